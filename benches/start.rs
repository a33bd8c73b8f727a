//! From exec to the first answer of `farrier serve`, with 10,000 machines in the file: a first
//! start on an empty database, then a second one with all of them in it.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    reason = "a benchmark"
)]

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MACHINES: u32 = 10_000;
const CEILING_MS: f64 = 150.0;

struct Daemon {
    child: Child,
    started: Instant,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let port = free.expect("a port").port();
    write_site(dir.path(), port);
    for what in ["first start (empty database)", "second start", "third start"] {
        let daemon = start(dir.path());
        let ms = first_answer(port, &daemon);
        println!(
            "start: {what}, {MACHINES} machines: first answer after {ms:.0} ms = {:.2} x the ceiling of {CEILING_MS} ms",
            ms / CEILING_MS
        );
        // All machines are in the database before the next start.
        let all = format!("\"machines\":{MACHINES}");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !ask(port, "/v1/status").unwrap_or_default().contains(&all) {
            assert!(Instant::now() < deadline, "the inventory is not taken in");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn start(dir: &Path) -> Daemon {
    let started = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_farrier"))
        .args(["serve", "--observe-only", "--config"])
        .arg(dir.join("farrier.toml"))
        .env("FARRIER_LOG", "error")
        .stdout(Stdio::null())
        .spawn()
        .expect("the daemon starts");
    Daemon { child, started }
}

/// Milliseconds from exec until `/healthz` has answered.
fn first_answer(port: u16, daemon: &Daemon) -> f64 {
    loop {
        if ask(port, "/healthz").is_some_and(|a| a.starts_with("HTTP/1.1 200")) {
            return daemon.started.elapsed().as_secs_f64() * 1000.0;
        }
        assert!(daemon.started.elapsed() < Duration::from_secs(30), "no answer");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn ask(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A site whose BMCs answer nobody: only the start counts.
fn write_site(dir: &Path, port: u16) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let daemon = format!(
        "schema = 1\n[paths]\nstate = \"state\"\nworkflows = \"{0}/workflows\"\ncatalog = \"none\"\n\
         [listen.api]\nbind = \"127.0.0.1:{port}\"\n\
         [listen.boot]\nbind = \"127.0.0.1:0\"\nadvertise_url = \"http://127.0.0.1:1\"\n\
         [[credential]]\nname = \"bmc\"\nuser = \"admin\"\nfrom = {{ env = \"NO_SUCH_PASSWORD\" }}\n\
         [[cluster]]\nname = \"k\"\nkind = \"hooks\"\ncommand = [\"/bin/false\"]\n",
        here.display()
    );
    let mut inventory = String::from(
        "schema = 1\n[[site]]\nname = \"s\"\n\
         [[profile]]\nname = \"p\"\nworkflow = \"cpu-node\"\nimage = \"i\"\n\
         [[pool]]\nname = \"pool\"\nprofile = \"p\"\ncluster = \"k\"\n",
    );
    for rack in 0..MACHINES.div_ceil(32) {
        let _ = write!(inventory, "[[rack]]\nname = \"r{rack}\"\nsite = \"s\"\n");
    }
    for n in 0..MACHINES {
        let (a, b) = (n / 250, n % 250 + 1);
        let _ = write!(
            inventory,
            "[[machine]]\nname = \"n{n:05}\"\nserial = \"SN{n:06}\"\nrack = \"r{}\"\nposition = {}\n\
             pool = \"pool\"\nbmc = {{ url = \"http://127.9.{a}.{b}:9\", credential = \"bmc\" }}\n\
             host = {{ address = \"127.10.{a}.{b}:9\" }}\n",
            n / 32,
            n % 32 + 1,
        );
    }
    std::fs::write(dir.join("farrier.toml"), daemon).expect("written");
    std::fs::write(dir.join("inventory.toml"), inventory).expect("written");
}
