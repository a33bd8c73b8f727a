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
    within(DEADLINE, call(from, "GET", url, None, max)).await
}

/// POST of a JSON text.
pub(super) async fn post(from: Ipv4Addr, url: &str, json: &str) -> io::Result<Answer> {
    within(DEADLINE, call(from, "POST", url, Some(json), 64 * 1024)).await
}

async fn within<T>(deadline: Duration, call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(deadline, call).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

async fn call(
    from: Ipv4Addr,
    method: &str,
    url: &str,
    json: Option<&str>,
    max: usize,
) -> io::Result<Answer> {
    let rest = url.strip_prefix("http://").ok_or_else(|| odd("not an http:// URL"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let to: SocketAddr = host.parse().map_err(|_| odd("not an address and port"))?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let mut stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    let mut request = format!("{method} /{path} HTTP/1.0\r\nHost: {host}\r\n");
    if let Some(json) = json {
        request += &format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
            json.len()
        );
    } else {
        request += "\r\n";
    }
    stream.write_all(request.as_bytes()).await?;
    let mut all = Vec::new();
    // Asked by HTTP/1.0, so the end of the connection is the end of the body.
    stream.take(u64::try_from(max).unwrap_or(u64::MAX) + 16 * 1024).read_to_end(&mut all).await?;
    read(&all)
}

fn read(all: &[u8]) -> io::Result<Answer> {
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(|| odd("half a head"))?;
    let head = std::str::from_utf8(&all[..end]).map_err(|_| odd("a head that is no text"))?;
    let body = all[end + 4..].to_vec();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| odd("no status"))?;
    let length = head.lines().find_map(|l| {
        let (name, value) = l.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|n| n > body.len()) {
        return Err(odd("half a body"));
    }
    Ok(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_an_error() {
        let whole = read(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok").expect("whole");
        assert!(whole.ok());
        assert_eq!(whole.body, b"ok");
        assert!(read(b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nok").is_err());
        assert!(read(b"HTTP/1.0 200 OK\r\ncontent-le").is_err());
        assert!(!read(b"HTTP/1.0 404 Not Found\r\n\r\n").expect("whole").ok());
    }
}
