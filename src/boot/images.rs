//! Files over HTTP for BMCs and installers: plain GET and HEAD, one range, no surprises.
//!
//! A firmware file is offered only if the catalog knows it, and only while its bytes have the
//! catalog's SHA-256. BMCs speak HTTP/1.0, ask HEAD first, and stumble over chunked bodies: every
//! answer has its `Content-Length` (RFC 9110 §8.6). Bodies are streamed in small pieces, or sent by the
//! kernel ([`super::sendfile`]).

use super::problem::Problem;
use super::sendfile::FileRequest;
use crate::model::{Channel, Fault, FaultClass};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::Mutex as AsyncMutex;

/// Bytes read and sent at a time.
const PIECE: usize = 64 * 1024;

/// What the catalog says about a firmware file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownImage {
    /// 64 hex digits, lower case.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// The images listener. Clones share one state.
#[derive(Clone, Debug)]
pub struct ImageServer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    catalog_dir: path::PathBuf,
    images_dir: Option<path::PathBuf>,
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    image: KnownImage,
    /// The file as it was when it was read last, and what was wrong with it.
    checked: Arc<AsyncMutex<Option<Checked>>>,
}

type Checked = (Stamp, Result<(), Fault>);

/// Changes when a file's bytes do: device, inode, size, times of change in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp([i128; 5]);

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Self([
            meta.dev().into(),
            meta.ino().into(),
            meta.size().into(),
            ns(meta.mtime(), meta.mtime_nsec()),
            ns(meta.ctime(), meta.ctime_nsec()),
        ])
    }

    /// Would a later change show? File systems keep times in steps of up to 2 s, so a file that
    /// changed just now may change once more under the same stamp.
    fn is_settled(&self, now_ns: i128) -> bool {
        let Stamp([_, _, _, modified, changed]) = self;
        now_ns - modified.max(changed) > 3_000_000_000
    }
}

fn now_ns() -> i128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| i128::try_from(d.as_nanos()).unwrap_or(i128::MAX))
}

impl ImageServer {
    /// `known`: firmware files by their path below `catalog_dir`, with `/`.
    pub fn new(
        catalog_dir: impl Into<path::PathBuf>,
        images_dir: Option<path::PathBuf>,
        known: BTreeMap<String, KnownImage>,
    ) -> Self {
        let server = Self(Arc::new(Shared {
            catalog_dir: catalog_dir.into(),
            images_dir,
            known: Mutex::default(),
        }));
        server.offer(known);
        server
    }

    /// The catalog was reloaded: from now on these are offered.
    pub fn offer(&self, known: BTreeMap<String, KnownImage>) {
        let mut held = self.0.known();
        let mut next = BTreeMap::new();
        for (file, image) in known {
            let known = match held.remove(&file) {
                Some(before) if before.image == image => before,
                _ => Known { image, checked: Arc::default() },
            };
            next.insert(file, known);
        }
        *held = next;
    }

    /// Reads every known firmware file and says which of them will not be offered.
    pub async fn verify(&self) -> Vec<Fault> {
        let known: Vec<(String, Known)> =
            self.0.known().iter().map(|(f, k)| (f.clone(), k.clone())).collect();
        let mut faults = Vec::new();
        for (file, known) in known {
            let opened = match open_below(&self.0.catalog_dir, &file).await {
                Ok(opened) => known.check(&file, opened).await.map(|_| ()),
                Err(e) => Err(bad_image(&file, format!("it can't be opened: {e}"))),
            };
            faults.extend(opened.err());
        }
        faults
    }

    /// `GET /firmware/{file}` from the catalog, `GET /images/{file}` from the image directory.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/firmware/{*file}", get(firmware))
            .route("/images/{*file}", get(image))
            .fallback(async || Problem::not_found())
            .with_state(self.0.clone())
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Server = State<Arc<Shared>>;

async fn firmware(
    s: Server,
    file: Path<String>,
    request: FileRequest,
) -> Result<Response, Problem> {
    let known = s.known().get(&*file).cloned().ok_or_else(Problem::not_found)?;
    let opened = open_below(&s.catalog_dir, &file).await.map_err(|_| Problem::not_found())?;
    let etag = format!("\"{}\"", known.image.sha256);
    match known.check(&file, opened).await {
        Ok(opened) => answer(opened, &etag, &request).await,
        Err(fault) => {
            tracing::error!(file = *file, %fault, "a firmware image is not offered");
            Err(Problem::new(StatusCode::NOT_FOUND, "bad-image", fault.message))
        }
    }
}

async fn image(s: Server, file: Path<String>, request: FileRequest) -> Result<Response, Problem> {
    let dir = s.images_dir.as_ref().ok_or_else(Problem::not_found)?;
    serve_file(dir, &file, &request).await
}

impl Known {
    /// Hands the file back if its bytes are the catalog's. Reads it once for each change of it,
    /// and to its end even if who asked has gone: the next one asks for the same.
    async fn check(&self, name: &str, opened: Opened) -> Result<Opened, Fault> {
        let (known, name) = (self.clone(), name.to_string());
        let checked = tokio::spawn(async move {
            let mut checked = known.checked.lock().await;
            let stamp = Stamp::of(&opened.meta);
            if let Some((before, result)) = checked.as_ref()
                && *before == stamp
            {
                return result.clone().map(|()| opened);
            }
            let (found, opened) = tokio::task::spawn_blocking(move || digest(opened))
                .await
                .map_err(io::Error::other)
                .flatten()
                .map_err(|e| bad_image(&name, format!("it can't be read: {e}")))?;
            let result = known.compare(&name, opened.meta.len(), &found);
            // A bad file is remembered too: who asks for it again and again costs no reading.
            *checked = stamp.is_settled(now_ns()).then(|| (stamp, result.clone()));
            result.map(|()| opened)
        });
        match checked.await {
            Ok(result) => result,
            Err(e) => Err(Fault::new(
                FaultClass::Bug,
                Channel::Engine,
                "image-check",
                format!("the check of a firmware image broke off: {e}"),
            )),
        }
    }

    fn compare(&self, name: &str, size: u64, sha256: &str) -> Result<(), Fault> {
        let wanted = &self.image;
        let wrong = |what: String| Err(bad_image(name, what));
        if size != wanted.size {
            return wrong(format!("it has {size} bytes, the catalog says {}", wanted.size));
        }
        if sha256 != wanted.sha256 {
            return wrong(format!("its SHA-256 is {sha256}, the catalog says {}", wanted.sha256));
        }
        Ok(())
    }
}

/// SHA-256 of the whole file as hex; the file is at its start again.
fn digest(mut opened: Opened) -> io::Result<(String, Opened)> {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut piece = vec![0; PIECE];
    loop {
        match opened.file.read(&mut piece)? {
            0 => break,
            n => context.update(piece.get(..n).unwrap_or_default()),
        }
    }
    opened.file.rewind()?;
    Ok((hex::encode(context.finish()), opened))
}

fn bad_image(file: &str, why: impl AsRef<str>) -> Fault {
    let message = format!("firmware image `{file}` is not offered: {}", why.as_ref());
    Fault::new(FaultClass::Precondition, Channel::Engine, "bad-image", message)
        .hint("put the vendor's file there again, or correct the catalog; no BMC gets it till then")
}

/// Serves `file` from below `dir`.
pub(super) async fn serve_file(
    dir: &path::Path,
    file: &str,
    request: &FileRequest,
) -> Result<Response, Problem> {
    let opened = open_below(dir, file).await.map_err(|_| Problem::not_found())?;
    let Stamp([_, ino, size, modified, _]) = Stamp::of(&opened.meta);
    let etag = format!("\"{ino:x}-{size:x}-{modified:x}\"");
    answer(opened, &etag, request).await
}

/// Bytes that stand in a served file instead of its own.
#[derive(Clone, Debug)]
pub(super) struct Overlay {
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
}

impl Overlay {
    /// Lays what of it falls into `piece`, which stands at `at` in the file, over it.
    fn lay(&self, at: u64, piece: &mut [u8]) {
        let end = at.saturating_add(piece.len() as u64);
        let own_end = self.offset.saturating_add(self.bytes.len() as u64);
        let (from, to) = (at.max(self.offset), end.min(own_end));
        let index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        if from < to
            && let Some(into) = piece.get_mut(index(from - at)..index(to - at))
            && let Some(own) = self.bytes.get(index(from - self.offset)..index(to - self.offset))
        {
            into.copy_from_slice(own);
        }
    }
}

/// As [`serve_file`], with other bytes in one place. `tag` names those bytes.
pub(super) async fn serve_overlaid(
    dir: &path::Path,
    file: &str,
    request: &FileRequest,
    overlay: Overlay,
    tag: &str,
) -> Result<Response, Problem> {
    let opened = open_below(dir, file).await.map_err(|_| Problem::not_found())?;
    let Stamp([_, ino, size, modified, _]) = Stamp::of(&opened.meta);
    let etag = format!("\"{ino:x}-{size:x}-{modified:x}-{tag}\"");
    answer_overlaid(opened, &etag, request, Some(overlay)).await
}

#[derive(Debug)]
struct Opened {
    file: File,
    meta: Metadata,
}

/// Opens a regular file that lies below `dir`, also after all links are followed.
async fn open_below(dir: &path::Path, file: &str) -> io::Result<Opened> {
    let nothing = || io::Error::from(io::ErrorKind::NotFound);
    // Hidden files are never meant; this takes `.` and `..` too.
    let plain =
        |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', '\0']);
    if !file.split('/').all(plain) {
        return Err(nothing());
    }
    let (dir, file) = (dir.to_path_buf(), file.to_string());
    let opened = tokio::task::spawn_blocking(move || {
        let dir = fs::canonicalize(dir)?;
        let path = fs::canonicalize(dir.join(file))?;
        // Looked at before it is opened: opening a FIFO would wait for a writer.
        if !path.starts_with(&dir) || !fs::metadata(&path)?.is_file() {
            return Err(nothing());
        }
        let file = File::open(&path)?;
        let meta = file.metadata()?;
        if meta.is_file() { Ok(Opened { file, meta }) } else { Err(nothing()) }
    });
    opened.await.map_err(io::Error::other)?
}

async fn answer(opened: Opened, etag: &str, request: &FileRequest) -> Result<Response, Problem> {
    answer_overlaid(opened, etag, request, None).await
}

async fn answer_overlaid(
    opened: Opened,
    etag: &str,
    request: &FileRequest,
    overlay: Option<Overlay>,
) -> Result<Response, Problem> {
    let total = opened.meta.len();
    let header = |name| request.headers.get(name).and_then(|v| v.to_str().ok());
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(header::ETAG, etag);
    }
    if header(header::IF_NONE_MATCH).is_some_and(|list| matches(list, etag)) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    // A range of something else than the client holds would tear its file (RFC 9110 §13.1.5).
    let same = header(header::IF_RANGE).is_none_or(|tag| tag.trim() == etag);
    let range = header(header::RANGE).filter(|_| request.method == Method::GET && same);
    let (from, length) = match range.map_or(Range::Whole, |r| Range::parse(r, total)) {
        Range::Whole => (0, total),
        Range::Part { from, length } => {
            let text = format!("bytes {from}-{}/{total}", from + length - 1);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            put(&mut response, header::CONTENT_RANGE, &text);
            (from, length)
        }
        Range::Outside => {
            let what = format!("the file has {total} bytes");
            let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "bad-range", what);
            let mut response = problem.into_response();
            put(&mut response, header::CONTENT_RANGE, &format!("bytes */{total}"));
            return Ok(response);
        }
    };
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if request.method == Method::GET {
        *response.body_mut() = match (&request.lane, overlay) {
            (Some(lane), None) => lane.clone().body(opened.file, from, length),
            (_, overlay) => stream(opened.file, from, length, overlay),
        };
    }
    Ok(response)
}

fn put(response: &mut Response, name: header::HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().insert(name, value);
    }
}

/// `length` bytes from `from` on. A file that ends early breaks the connection off: a short body
/// must not look whole.
fn stream(file: File, from: u64, length: u64, overlay: Option<Overlay>) -> Body {
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(PIECE);
    let start = (file, from != 0, length, overlay);
    Body::from_stream(futures_util::stream::try_unfold(start, move |state| async move {
        let (mut file, seek, left, overlay) = state;
        if left == 0 {
            return Ok(None);
        }
        if seek {
            file.seek(io::SeekFrom::Start(from)).await?;
        }
        let mut piece = vec![0; usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))];
        let n = file.read(&mut piece).await?;
        if n == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        piece.truncate(n);
        if let Some(overlay) = &overlay {
            overlay.lay(from + (length - left), &mut piece);
        }
        let left = left.saturating_sub(n as u64);
        Ok(Some((Bytes::from(piece), (file, false, left, overlay))))
    }))
}

/// Does `If-None-Match` name this tag (weakly compared, RFC 9110 §13.1.2)?
fn matches(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|t| t == "*" || t.strip_prefix("W/").unwrap_or(t) == etag)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    /// No range, or one that may be ignored: several, or of another unit (RFC 9110 §14.2).
    Whole,
    Part {
        from: u64,
        length: u64,
    },
    Outside,
}

impl Range {
    fn parse(text: &str, total: u64) -> Range {
        let Some((first, last)) = text
            .trim()
            .strip_prefix("bytes=")
            .filter(|r| !r.contains(','))
            .and_then(|r| r.trim().split_once('-'))
        else {
            return Range::Whole;
        };
        let part = |from: u64, end: u64| Range::Part { from, length: end - from };
        let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<u64>().ok(),
            false => None,
        };
        match (first, last) {
            ("", suffix) => match number(suffix) {
                None => Range::Whole,
                Some(0) => Range::Outside,
                Some(_) if total == 0 => Range::Outside,
                Some(n) => part(total.saturating_sub(n), total),
            },
            (first, last) => {
                let end = match last {
                    "" => Some(u64::MAX),
                    last => number(last),
                };
                match (number(first), end) {
                    (Some(from), Some(end)) if end < from => Range::Whole,
                    (Some(from), Some(_)) if from >= total => Range::Outside,
                    (Some(from), Some(end)) => part(from, end.saturating_add(1).min(total)),
                    _ => Range::Whole,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |from, length| Range::Part { from, length };
        for (text, want) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-5", part(2, 4)),
            ("bytes=2-", part(2, 8)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-99", part(0, 10)),
            ("bytes=9-99", part(9, 1)),
            ("bytes=0-18446744073709551615", part(0, 10)),
            ("bytes=10-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=5-2", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("bytes=", Range::Whole),
            ("bytes=-", Range::Whole),
            ("bytes=+1-2", Range::Whole),
            ("bytes=99999999999999999999-", Range::Whole),
            ("lines=1-2", Range::Whole),
        ] {
            assert_eq!(Range::parse(text, 10), want, "{text}");
        }
        assert_eq!(Range::parse("bytes=0-", 0), Range::Outside);
        assert_eq!(Range::parse("bytes=-1", 0), Range::Outside);
    }

    #[test]
    fn an_overlay_stands_where_it_belongs_whatever_is_asked_for() {
        let overlay = Overlay { offset: 4, bytes: Bytes::from_static(b"WXYZ") };
        let file = b"abcdefghijkl";
        for at in 0..file.len() {
            for end in at..=file.len() {
                let mut piece = file[at..end].to_vec();
                overlay.lay(at as u64, &mut piece);
                assert_eq!(piece, b"abcdWXYZijkl"[at..end], "{at}..{end}");
            }
        }
    }

    #[test]
    fn a_fresh_file_is_read_again() {
        let s = 1_000_000_000;
        let stamp = Stamp([1, 2, 3, 100 * s, 102 * s]);
        assert!(!stamp.is_settled(104 * s), "changed 2 s ago");
        assert!(stamp.is_settled(106 * s));
        assert!(!stamp.is_settled(50 * s), "a file from the future never settles");
    }

    #[test]
    fn tags() {
        assert!(matches("\"a\", W/\"b\"", "\"b\""));
        assert!(matches("*", "\"b\""));
        assert!(!matches("\"a\"", "\"b\""));
    }
}
