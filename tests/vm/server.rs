//! What the boot server does for a machine, as far as these tests need it: files with ranges, a seed,
//! and callbacks that are kept. A CD is served with the machine's own configuration laid over it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Text(String),
    File(PathBuf),
    /// A file with these bytes at this offset.
    Overlaid(PathBuf, u64, Vec<u8>),
}

/// What a machine said, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) path: String,
    pub(crate) from: IpAddr,
    pub(crate) body: String,
}

#[derive(Clone, Default)]
pub(crate) struct Server {
    files: Arc<Mutex<BTreeMap<String, Body>>>,
    said: Arc<Mutex<Vec<Said>>>,
    pub(crate) port: u16,
}

impl Server {
    /// Listens where the calling thread is: see [`crate::lab::Lab::inside`].
    pub(crate) fn start(address: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), ..Self::default() };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = serving.clone();
                std::thread::spawn(move || server.answer(stream).ok());
            }
        });
        server
    }

    pub(crate) fn put(&self, path: &str, body: Body) {
        self.files.lock().unwrap().insert(path.to_string(), body);
    }

    /// Callbacks so far, taken away.
    pub(crate) fn take_said(&self) -> Vec<Said> {
        std::mem::take(&mut *self.said.lock().unwrap())
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let from = stream.peer_addr()?.ip();
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (method, path) =
            (words.next().unwrap_or("").to_string(), words.next().unwrap_or("").to_string());
        let (mut length, mut range) = (0_usize, None);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            let header = header.trim().to_ascii_lowercase();
            if let Some(n) = header.strip_prefix("content-length:") {
                length = n.trim().parse().unwrap_or(0);
            }
            if let Some(r) = header.strip_prefix("range: bytes=") {
                range = Some(r.to_string());
            }
        }
        if method == "POST" {
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let body = String::from_utf8_lossy(&body).to_string();
            self.said.lock().unwrap().push(Said { path, from, body });
            return stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        let found = self.files.lock().unwrap().get(&path).cloned();
        match found {
            None => stream.write_all(
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            ),
            Some(body) => give(&mut stream, &body, range.as_deref(), method == "HEAD"),
        }
    }
}

fn give(
    stream: &mut TcpStream,
    body: &Body,
    range: Option<&str>,
    head: bool,
) -> std::io::Result<()> {
    let size = match body {
        Body::Text(text) => text.len() as u64,
        Body::File(path) | Body::Overlaid(path, _, _) => fs::metadata(path)?.len(),
    };
    let (first, last) = match range.and_then(|r| r.split_once('-')) {
        Some((a, b)) => (a.parse().unwrap_or(0), b.parse().unwrap_or(size - 1).min(size - 1)),
        None => (0, size.saturating_sub(1)),
    };
    let length = if size == 0 { 0 } else { last - first + 1 };
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nAccept-Ranges: bytes\r\n\
         Content-Range: bytes {first}-{last}/{size}\r\nConnection: close\r\n\r\n"
    )?;
    if head {
        return Ok(());
    }
    match body {
        Body::Text(text) => {
            let from = usize::try_from(first).unwrap_or(0);
            stream.write_all(&text.as_bytes()[from..from + usize::try_from(length).unwrap_or(0)])
        }
        Body::File(path) => copy(stream, path, first, length, None),
        Body::Overlaid(path, at, bytes) => copy(stream, path, first, length, Some((*at, bytes))),
    }
}

fn copy(
    stream: &mut TcpStream,
    path: &Path,
    first: u64,
    length: u64,
    over: Option<(u64, &Vec<u8>)>,
) -> std::io::Result<()> {
    let mut file = fs::File::open(path)?;
    file.seek(SeekFrom::Start(first))?;
    let (mut at, end, mut buffer) = (first, first + length, vec![0; 1 << 16]);
    while at < end {
        let wanted = usize::try_from((end - at).min(1 << 16)).unwrap_or(1 << 16);
        file.read_exact(&mut buffer[..wanted])?;
        if let Some((place, bytes)) = over {
            for (i, byte) in buffer[..wanted].iter_mut().enumerate() {
                let here = at + i as u64;
                if let Some(b) = here.checked_sub(place).and_then(|o| bytes.get(o as usize)) {
                    *byte = *b;
                }
            }
        }
        stream.write_all(&buffer[..wanted])?;
        at += wanted as u64;
    }
    Ok(())
}
