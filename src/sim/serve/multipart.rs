//! `multipart/form-data` (RFC 7578) read as it comes in: a part's content passes by in pieces and is
//! never whole in memory.

use axum::body::BodyDataStream;
use futures_util::StreamExt as _;

/// Longest head of a part.
const HEAD_MAX: usize = 8 * 1024;

/// What is wrong with a body.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("the body ended inside a part")]
    Ended,
    #[error("the body is not multipart/form-data")]
    Shape,
}

pub(super) struct Parts {
    body: BodyDataStream,
    /// Read and not yet passed on. Begins with the delimiter, between parts.
    buffer: Vec<u8>,
    /// CRLF, two dashes, the boundary.
    delimiter: Vec<u8>,
}

impl Parts {
    /// `content_type`: the request's header.
    pub(super) fn new(content_type: &str, body: BodyDataStream) -> Result<Self, Broken> {
        let boundary = boundary(content_type).ok_or(Broken::Shape)?;
        // The first delimiter has no line before it.
        Ok(Self { body, buffer: b"\r\n".to_vec(), delimiter: format!("\r\n--{boundary}").into() })
    }

    /// The next part's name; what is left of the one before is skipped. `None`: that was the last.
    pub(super) async fn next(&mut self) -> Result<Option<String>, Broken> {
        while self.piece().await?.is_some() {}
        let after = self.delimiter.len();
        while self.buffer.len() < after + 2 {
            self.more().await?;
        }
        if self.buffer[after..].starts_with(b"--") {
            return Ok(None);
        }
        let end = loop {
            if let Some(end) = find(&self.buffer[after..], b"\r\n\r\n") {
                break after + end;
            }
            if self.buffer.len() > after + HEAD_MAX {
                return Err(Broken::Shape);
            }
            self.more().await?;
        };
        let name = name(&self.buffer[after..end]).ok_or(Broken::Shape)?;
        self.buffer.drain(..end + 4);
        Ok(Some(name))
    }

    /// The next piece of this part; `None` at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        loop {
            if let Some(at) = find(&self.buffer, &self.delimiter) {
                return Ok((at > 0).then(|| self.buffer.drain(..at).collect()));
            }
            // The last bytes may begin a delimiter.
            let safe = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
            if safe > 0 {
                return Ok(Some(self.buffer.drain(..safe).collect()));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), Broken> {
        match self.body.next().await {
            Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
            Some(Err(_)) | None => return Err(Broken::Ended),
        }
        Ok(())
    }
}

fn find(all: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = wanted.first()?;
    let mut from = 0;
    while let Some(at) = all.get(from..)?.iter().position(|b| b == first) {
        if all[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn boundary(content_type: &str) -> Option<&str> {
    let (kind, rest) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = rest.split(';').find_map(|p| {
        let (key, value) = p.trim().split_once('=')?;
        key.eq_ignore_ascii_case("boundary").then_some(value)
    })?;
    let value = value.trim_matches('"');
    (1..=70).contains(&value.len()).then_some(value)
}

/// `name` of the Content-Disposition.
fn name(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let line = head.lines().find_map(|l| {
        let (key, value) = l.split_once(':')?;
        key.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    line.split(';').find_map(|p| {
        let (key, value) = p.trim().split_once('=')?;
        (key == "name").then(|| value.trim_matches('"').to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    const KIND: &str = "multipart/form-data; boundary=\"xx\"";

    /// All parts of `text`, which comes in pieces of `step` bytes.
    async fn read(text: &str, step: usize) -> Result<Vec<(String, String)>, Broken> {
        let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
            text.as_bytes().chunks(step).map(|c| Ok(c.to_vec())).collect();
        let body = Body::from_stream(futures_util::stream::iter(pieces)).into_data_stream();
        let mut parts = Parts::new(KIND, body)?;
        let mut out = Vec::new();
        while let Some(name) = parts.next().await? {
            let mut all = Vec::new();
            while let Some(piece) = parts.piece().await? {
                all.extend(piece);
            }
            out.push((name, String::from_utf8(all).expect("text")));
        }
        Ok(out)
    }

    #[tokio::test]
    async fn parts_are_the_same_however_the_body_is_cut() {
        let head = |name: &str| format!("Content-Disposition: form-data; name=\"{name}\"\r\n");
        let text = format!(
            "--xx\r\n{}\r\n{{}}\r\n--xx\r\n{}Content-Type: a/b\r\n\r\n\r\n--x y\r\n\r\n--xx--\r\n",
            head("UpdateParameters"),
            head("UpdateFile"),
        );
        for step in 1..text.len() {
            let got = read(&text, step).await.expect("whole");
            assert_eq!(got[0], ("UpdateParameters".to_string(), "{}".to_string()), "{step}");
            assert_eq!(got[1], ("UpdateFile".to_string(), "\r\n--x y\r\n".to_string()), "{step}");
        }
        for cut in 1..text.len() - 4 {
            assert!(read(&text[..cut], 7).await.is_err(), "{cut}");
        }
        assert_eq!(read("<html>", 3).await, Err(Broken::Ended));
    }

    #[test]
    fn only_form_data_with_a_boundary_is_read() {
        assert_eq!(boundary("multipart/form-data; boundary=a-b"), Some("a-b"));
        assert_eq!(boundary("multipart/mixed; boundary=a"), None);
        assert_eq!(boundary("multipart/form-data; boundary="), None);
        assert_eq!(boundary("application/json"), None);
    }
}
