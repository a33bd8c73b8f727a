//! What the benches of whole daemons share: processes and their figures, a plain HTTP client, the
//! daemon with stand-in edges.
#![allow(dead_code, reason = "each bench uses a part")]

pub(crate) mod daemon;
mod metal;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// First argument of a bench that runs itself as the daemon.
pub(crate) const DAEMON: &str = "--standin-daemon";

/// Runs as the daemon and never returns, if the process was started as one.
pub(crate) fn daemon_if_asked() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|a| a == DAEMON) {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let number = |i: usize| args[i].parse::<u32>().unwrap();
        let port = u16::try_from(number(3)).unwrap();
        daemon::run(Path::new(&args[2]), port, number(4), args[5] == "redfish");
        unreachable!("a daemon is killed");
    }
}

/// A child that is killed with its bench.
pub(crate) struct Process {
    child: Child,
    pub(crate) started: Instant,
    pub(crate) port: u16,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    pub(crate) fn start(command: &mut Command, port: u16) -> Self {
        let started = Instant::now();
        let child = command.stdout(Stdio::null()).spawn().expect("it starts");
        Self { child, started, port }
    }

    /// This bench's own program as the daemon with stand-in edges.
    pub(crate) fn standin(dir: &Path, scale: u32, bmcs: bool) -> Self {
        let port = free_port();
        let me = std::env::current_exe().unwrap();
        let edge = if bmcs { "redfish" } else { "standin" };
        let mut command = Command::new(me);
        command.arg(DAEMON).arg(dir).args([port.to_string(), scale.to_string(), edge.into()]);
        let daemon = Self::start(&mut command, port);
        daemon.first_answer();
        daemon
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Milliseconds from exec until `/healthz` has answered.
    pub(crate) fn first_answer(&self) -> f64 {
        loop {
            if ask(self.port, "GET", "/healthz", "").is_some_and(|a| a.0 == 200) {
                return self.ms();
            }
            assert!(self.started.elapsed() < Duration::from_secs(60), "no answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Milliseconds since exec.
    pub(crate) fn ms(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * 1000.0
    }

    /// User and system time so far, in milliseconds; clock ticks are 10 ms on every Linux.
    pub(crate) fn cpu_ms(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let after = stat.rsplit(')').next().unwrap();
        let ticks = after.split_whitespace().skip(11).take(2).map(|t| t.parse::<f64>().unwrap());
        ticks.sum::<f64>() * 10.0
    }

    /// Resident memory in MB (10^6 bytes).
    pub(crate) fn rss_mb(&self) -> f64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / 1e6
    }

    /// A JSON answer.
    pub(crate) fn get(&self, path: &str) -> serde_json::Value {
        let (status, body) = ask(self.port, "GET", path, "").expect("an answer");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    pub(crate) fn post(&self, path: &str) -> serde_json::Value {
        let (status, body) = ask(self.port, "POST", path, "").expect("an answer");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Asks every few milliseconds until `done` says so.
    pub(crate) fn wait(
        &self,
        what: &str,
        limit_s: u64,
        mut done: impl FnMut(&Self) -> bool,
    ) -> f64 {
        let started = Instant::now();
        while !done(self) {
            assert!(started.elapsed() < Duration::from_secs(limit_s), "never came: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
        started.elapsed().as_secs_f64()
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

/// One request on a connection of its own: status and body.
pub(crate) fn ask(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut connection = Connection::open(port)?;
    connection.ask(method, path, body)
}

/// A kept connection.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self(BufReader::new(stream)))
    }

    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(head.as_bytes()).ok()?;
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line).ok()?;
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(n) = header.strip_prefix("content-length:") {
                length = n.trim().parse().ok()?;
            }
        }
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).ok()?;
        Some((status, String::from_utf8(bytes).ok()?))
    }
}
