//! The daemon as a service: what systemd hears of it, its unit, and its webhooks over a kill -9.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests start processes, listen on sockets and wait for what must come"
)]

mod support;

use axum::extract::State;
use axum::http::HeaderMap;
use farrier::app::systemd::{self, Manager};
use farrier::model::*;
use farrier::notify::verify;
use farrier::port::store::{CommitItem, Store};
use farrier::store::{Settings, SqliteStore};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const WAIT: Duration = Duration::from_secs(60);
const KEY: &str = "signing-key-of-the-test";

/// The manager's end.
struct Socket(UnixDatagram);

impl Socket {
    fn at(path: &Path) -> Self {
        Self(UnixDatagram::bind(path).unwrap())
    }

    /// The next datagram, or `None` when nothing came in time.
    fn next(&self, wait: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(wait)).unwrap();
        let mut bytes = [0; 512];
        let n = self.0.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..n].to_vec()).unwrap())
    }

    /// Skips signs of life until `word` comes.
    fn expect(&self, word: &str) -> String {
        let deadline = Instant::now() + WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let said = self.next(left).unwrap_or_else(|| panic!("`{word}` did not come"));
            if said.contains(word) {
                return said;
            }
            assert_eq!(said, "WATCHDOG=1", "before `{word}`");
        }
    }

    /// Nothing comes for so long, after one sign that may have been on its way.
    fn is_silent(&self, long: Duration) -> bool {
        let end = Instant::now() + long;
        let mut late = 0;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) {
            late += u32::from(self.next(left).is_some());
        }
        late <= 1
    }

    fn drain(&self) {
        while self.next(Duration::from_millis(1)).is_some() {}
    }
}

struct Place {
    dir: tempfile::TempDir,
    api: u16,
}

/// A configuration without machines; `webhook`: where its one hook is.
fn place(webhook: &str) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let api = free.local_addr().unwrap().port();
    let workflows = concat!(env!("CARGO_MANIFEST_DIR"), "/workflows");
    let config = format!(
        "schema = 1\n[paths]\nstate = \"state\"\ninventory = [\"inventory.toml\"]\n\
         workflows = \"{workflows}\"\n[listen.api]\nbind = \"127.0.0.1:{api}\"\n\
         [[credential]]\nname = \"pager\"\nuser = \"-\"\nfrom = {{ env = \"HOOK_KEY\" }}\n\
         [[webhook]]\nname = \"ops\"\nurl = \"{webhook}\"\nsecret = \"pager\"\n"
    );
    std::fs::write(dir.path().join("farrier.toml"), config).unwrap();
    std::fs::write(dir.path().join("inventory.toml"), "schema = 1\n").unwrap();
    Place { dir, api }
}

impl Place {
    fn config(&self) -> PathBuf {
        self.dir.path().join("farrier.toml")
    }

    fn start(&self, more: &[(&str, &str)]) -> Daemon {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_farrier"))
            .args(["serve", "--config"])
            .arg(self.config())
            .env("HOOK_KEY", KEY)
            .env_remove("NOTIFY_SOCKET")
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Daemon(child)
    }

    /// The command's output; waits until the daemon answers.
    fn farrier(&self, words: &[&str]) -> String {
        let deadline = Instant::now() + WAIT;
        loop {
            let out = Command::new(env!("CARGO_BIN_EXE_farrier"))
                .args(["--api", &format!("http://127.0.0.1:{}", self.api)])
                .args(words)
                .output()
                .unwrap();
            if out.status.success() {
                return String::from_utf8(out.stdout).unwrap();
            }
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let err = String::from_utf8_lossy(&out.stderr).to_string();
            assert!(Instant::now() < deadline, "{words:?}: {err}\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

struct Daemon(Child);

impl Daemon {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn ended(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn systemd_hears_of_the_daemons_life() {
    let p = place("http://127.0.0.1:1/");
    let path = p.dir.path().join("notify");
    let socket = Socket::at(&path);
    let mut daemon =
        p.start(&[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "600000")]);
    assert_eq!(socket.expect("READY"), "READY=1");
    // Ready means that it serves.
    p.farrier(&["status"]);
    for _ in 0..3 {
        socket.expect("WATCHDOG=1");
    }
    daemon.signal("-HUP");
    let said = socket.expect("RELOADING");
    let us = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&said);
    assert!(us.parse::<u64>().unwrap() > 0);
    socket.expect("READY");
    daemon.signal("-TERM");
    socket.expect("STOPPING=1");
    assert_eq!(daemon.ended(), Some(0));
}

#[test]
fn without_a_watchdog_there_are_no_signs_of_life() {
    let p = place("http://127.0.0.1:1/");
    let path = p.dir.path().join("notify");
    let socket = Socket::at(&path);
    let other = ("WATCHDOG_PID", "1");
    let notify = ("NOTIFY_SOCKET", path.to_str().unwrap());
    let mut daemon = p.start(&[notify, ("WATCHDOG_USEC", "100000"), other]);
    socket.expect("READY");
    p.farrier(&["status"]);
    daemon.signal("-TERM");
    assert_eq!(socket.next(WAIT).as_deref(), Some("STOPPING=1"), "meant for another process");
    assert_eq!(daemon.ended(), Some(0));
}

#[test]
fn an_abstract_socket_is_a_socket() {
    let name = format!("farrier-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = Socket(UnixDatagram::bind_addr(&address).unwrap());
    Manager::at(&format!("@{name}")).tell("READY=1");
    assert_eq!(socket.next(WAIT).as_deref(), Some("READY=1"));
    // Nobody there, or no socket's name: nothing happens.
    Manager::at("/nowhere/at/all").tell("READY=1");
    Manager::at("relative").tell("READY=1");
}

async fn store(dir: &Path) -> SqliteStore {
    SqliteStore::open(&dir.join("state.db"), Settings { busy_ms: 30_000, ..Settings::default() })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wedged_engine_gives_no_sign_of_life() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = Socket::at(&path);
    let store = store(dir.path()).await;
    let served = support::serve(support::Plan { machines: 1, ..support::Plan::default() }).await;
    let limit = Duration::from_millis(200);
    let manager = Manager::at(path.to_str().unwrap());
    let handle = served.handle.clone();
    tokio::spawn(systemd::signs_of_life(manager, limit, handle, store));
    for _ in 0..3 {
        assert_eq!(socket.next(WAIT).as_deref(), Some("WATCHDOG=1"));
    }
    // A question that takes for ever wedges the engine's loop as a defect of ours would.
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let (entered, inside) = tokio::sync::oneshot::channel();
    let handle = served.handle.clone();
    let wedge = tokio::spawn(async move {
        handle
            .ask(move |_, _| {
                entered.send(()).ok();
                wait.recv().ok();
            })
            .await
    });
    inside.await.unwrap();
    socket.drain();
    assert!(socket.is_silent(limit * 6), "no progress, no sign");
    go_on.send(()).unwrap();
    wedge.await.unwrap();
    socket.expect("WATCHDOG=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wedged_writer_gives_no_sign_of_life() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = Socket::at(&path);
    let store = store(dir.path()).await;
    let served = support::serve(support::Plan { machines: 1, ..support::Plan::default() }).await;
    let limit = Duration::from_millis(200);
    let manager = Manager::at(path.to_str().unwrap());
    let handle = served.handle.clone();
    tokio::spawn(systemd::signs_of_life(manager, limit, handle, store.clone()));
    socket.expect("WATCHDOG=1");
    // Another program holds the file; the writer waits for it.
    let other = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writing = tokio::spawn(async move {
        let row = Machine::blank(MachineId(1));
        let entries = vec![Entry::Registered { name: "n1".into() }];
        let (machine, at) = (row.id, EngineTime(1));
        let item = CommitItem { machine, after_seq: 0, at, entries, row, facts: None };
        store.commit(&[item], at, 1).await
    });
    // Until the order has reached the writer signs may still come; then they end.
    let deadline = Instant::now() + WAIT;
    while !socket.is_silent(limit * 6) {
        assert!(Instant::now() < deadline, "signs of life with a writer that waits");
    }
    other.execute_batch("ROLLBACK").unwrap();
    writing.await.unwrap().unwrap();
    socket.expect("WATCHDOG=1");
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let dir = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_farrier"));
    let (config, key) = (dir.path().join("farrier.toml"), dir.path().join("key"));
    let out = Command::new(binary)
        .args(["systemd-unit", "--config"])
        .arg(&config)
        .arg("--key")
        .arg(&key)
        .output()
        .unwrap();
    assert!(out.status.success());
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(text, systemd::unit(binary, &config, Some(&key)));
    let line = format!("LoadCredential=farrier-key:{}\n", key.display());
    for part in ["Type=notify\n", "WatchdogSec=", "StateDirectory=farrier\n", &line] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let unit = dir.path().join("farrier.service");
    std::fs::write(&unit, &text).unwrap();
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output();
    match verified {
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stderr);
            // Other units of the machine are not ours to judge.
            let ours: Vec<&str> = said.lines().filter(|l| l.contains("farrier.service")).collect();
            assert_eq!(ours, Vec::<&str>::new());
        }
        Err(e) => eprintln!("SKIPPED: the unit was not verified: systemd-analyze: {e}"),
    }
}

type Came = Arc<Mutex<Vec<(String, String)>>>;

async fn take(State(came): State<Came>, headers: HeaderMap, body: String) {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let signature = headers["x-farrier-signature"].to_str().unwrap();
    assert!(verify(KEY, signature, body.as_bytes(), now_s, 60));
    let said: serde_json::Value = serde_json::from_str(&body).unwrap();
    let word = |key: &str| said[key].as_str().unwrap().to_string();
    came.lock().unwrap().push((word("event"), word("id")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_daemon_was_to_tell_is_told_by_the_next_one() {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let p = place(&format!("http://{address}/hook"));
    // Nobody is there yet.
    drop(tcp);
    let daemon = p.start(&[]);
    assert!(p.farrier(&["stop", "--why", "drill"]).contains("stopped"));
    drop(daemon); // SIGKILL

    let came = Came::default();
    let router = axum::Router::new().route("/hook", axum::routing::post(take));
    let router = router.with_state(came.clone());
    let tcp = tokio::net::TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move { axum::serve(tcp, router).await.unwrap() });
    let _daemon = p.start(&[]);
    assert_eq!(p.farrier(&["webhook", "test", "ops"]), "delivered: it answered 200\n");
    p.farrier(&["resume"]);
    let deadline = Instant::now() + WAIT;
    let told = loop {
        let told: Vec<(String, String)> =
            came.lock().unwrap().iter().filter(|c| c.0 != "test").cloned().collect();
        if told.iter().any(|c| c.0 == "resumed") {
            break told;
        }
        assert!(Instant::now() < deadline, "{told:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let mut events: Vec<&str> = told.iter().map(|c| &*c.0).collect();
    events.dedup();
    assert_eq!(events, ["stopped", "resumed"], "in order: {told:?}");
    let listed = p.farrier(&["webhook", "list"]);
    assert!(listed.contains("ops") && listed.contains("ok"), "{listed}");
    let log = std::fs::read_to_string(p.dir.path().join("log")).unwrap();
    assert!(!log.contains(KEY));
}
