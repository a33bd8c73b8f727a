//! The test's own HTTP client: nothing of Farrier's, so that a fault in Farrier's client cannot
//! hide itself. HTTP/1.0, one request a connection.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

/// `Err` where there was no answer at all.
pub(crate) fn get(url: &str, login: Option<(&str, &str)>) -> Result<Answer, String> {
    send("GET", url, login, None)
}

pub(crate) fn post(url: &str, body: &Value) -> Result<Answer, String> {
    send("POST", url, None, Some(body))
}

fn send(
    method: &str,
    url: &str,
    login: Option<(&str, &str)>,
    body: Option<&Value>,
) -> Result<Answer, String> {
    let why = |e: std::io::Error| format!("{method} {url}: {e}");
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("not plain HTTP: {url}"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).map_err(why)?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(why)?;
    let mut head = format!("{method} /{path} HTTP/1.0\r\nHost: {host}\r\n");
    if let Some((user, password)) = login {
        let word = STANDARD.encode(format!("{user}:{password}"));
        head += &format!("Authorization: Basic {word}\r\n");
    }
    let body = body.map(ToString::to_string).unwrap_or_default();
    if method == "POST" {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).map_err(why)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(why)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("{url}: no answer"))?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| format!("{url}: no status in `{head}`"))?;
    Ok(Answer { status, body: body.to_string() })
}
