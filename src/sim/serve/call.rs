//! A host's own calls: one HTTP/1.0 request from the machine's own address, on a connection of its
//! own. A client for each of thousands of machines would cost 115 KB each; this costs nothing
//! between two calls.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

/// Longest call, real time.
const DEADLINE: Duration = Duration::from_secs(10);

/// Status and body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// `Content-Length`, and of a part the whole's length from `Content-Range`.
    pub(super) length: Option<u64>,
}

impl Answer {
    pub(super) fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// GET of an `http://address:port/…` URL; at most `max` bytes of its body are read.
pub(super) async fn get(from: Ipv4Addr, url: &str, max: usize) -> io::Result<Answer> {
    within(DEADLINE, call(from, "GET", url, Extra::Nothing, max)).await
}

/// HEAD: how long it is.
pub(super) async fn head(from: Ipv4Addr, url: &str) -> io::Result<Answer> {
    within(DEADLINE, call(from, "HEAD", url, Extra::Nothing, 0)).await
}

/// GET of the first `bytes` of something; a server may answer with all of it.
pub(super) async fn start(from: Ipv4Addr, url: &str, bytes: usize) -> io::Result<Answer> {
    within(DEADLINE, call(from, "GET", url, Extra::FirstBytes(bytes), bytes)).await
}

/// POST of a JSON text.
pub(super) async fn post(from: Ipv4Addr, url: &str, json: &str) -> io::Result<Answer> {
    within(DEADLINE, call(from, "POST", url, Extra::Json(json), 64 * 1024)).await
}

async fn within<T>(deadline: Duration, call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(deadline, call).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// What goes along with a request.
#[derive(Clone, Copy)]
enum Extra<'a> {
    Nothing,
    Json(&'a str),
    FirstBytes(usize),
}

async fn call(
    from: Ipv4Addr,
    method: &str,
    url: &str,
    extra: Extra<'_>,
    max: usize,
) -> io::Result<Answer> {
    let rest = url.strip_prefix("http://").ok_or_else(|| odd("not an http:// URL"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let to = address(host).await?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let mut stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    let mut request = format!("{method} /{path} HTTP/1.0\r\nHost: {host}\r\n");
    match extra {
        Extra::Nothing => request += "\r\n",
        Extra::Json(json) => {
            request += &format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
                json.len()
            );
        }
        Extra::FirstBytes(n) => {
            request += &format!("Range: bytes=0-{}\r\n\r\n", n.saturating_sub(1));
        }
    }
    stream.write_all(request.as_bytes()).await?;
    let mut all = Vec::new();
    // Asked by HTTP/1.0, so the end of the connection is the end of the body.
    let most = u64::try_from(max).unwrap_or(u64::MAX) + 16 * 1024;
    stream.take(most).read_to_end(&mut all).await?;
    let whole = matches!(extra, Extra::Nothing | Extra::Json(_)) && method != "HEAD";
    read(&all, whole)
}

/// `address`, `address:port`, or a name; port 80 where none is said.
async fn address(host: &str) -> io::Result<SocketAddr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let named = if host.contains(':') { host.to_string() } else { format!("{host}:80") };
    let mut found = tokio::net::lookup_host(named).await?;
    found.find(SocketAddr::is_ipv4).ok_or_else(|| odd("no such host"))
}

/// `whole`: less body than the head promises is an error.
fn read(all: &[u8], whole: bool) -> io::Result<Answer> {
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(|| odd("half a head"))?;
    let head = std::str::from_utf8(&all[..end]).map_err(|_| odd("a head that is no text"))?;
    let body = all[end + 4..].to_vec();
    let status = head.split(' ').nth(1).and_then(|s| s.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| odd("no status"))?;
    let header = |wanted: &str| {
        head.lines().find_map(|l| {
            let (name, value) = l.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_string())
        })
    };
    let length = header("content-length").and_then(|v| v.parse::<u64>().ok());
    let got = u64::try_from(body.len()).unwrap_or(u64::MAX);
    if whole && length.is_some_and(|n| n > got) {
        return Err(odd("half a body"));
    }
    let of = header("content-range").and_then(|v| v.rsplit_once('/')?.1.parse().ok());
    Ok(Answer { status, body, length: of.or(length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_an_error() {
        let whole = read(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", true).expect("whole");
        assert!(whole.ok());
        assert_eq!(whole.body, b"ok");
        assert!(read(b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nok", true).is_err());
        assert!(read(b"HTTP/1.0 200 OK\r\ncontent-le", true).is_err());
        let part =
            b"HTTP/1.0 206 Part\r\nContent-Length: 2\r\nContent-Range: bytes 0-1/9\r\n\r\nok";
        assert_eq!(read(part, false).expect("a part").length, Some(9));
        assert!(!read(b"HTTP/1.0 404 Not Found\r\n\r\n", true).expect("whole").ok());
    }
}
