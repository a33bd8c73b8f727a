//! A daemon as a process, one machine, a hook that keeps passwords, and kills at named points.

use super::bmc::{Account, USER};
use super::server::{Reply, Seen, Server};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
pub(crate) const OLD: &str = "calvin-from-the-label";
pub(crate) const OLD_BOARD: &str = "password-of-the-board";
pub(crate) const OWN: &str = "bmc/machine/n1";

pub(crate) fn farrier() -> PathBuf {
    std::env::var_os("FARRIER_BIN").map_or_else(|| env!("CARGO_BIN_EXE_farrier").into(), Into::into)
}

/// When the daemon dies: at a request to the BMC.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    /// Only a login with another password than this one, where it is given.
    pub(crate) unless_password: Option<&'static str>,
    /// The BMC has done it by then, and only the answer is lost.
    pub(crate) after: bool,
}

impl Point {
    fn is(&self, r: &Seen) -> bool {
        let password = r.body["Password"].as_str();
        r.method == self.method
            && r.path.starts_with(self.path)
            && (self.unless_password.is_none() || password != self.unless_password)
    }
}

/// What the BMC's server asks the test.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    pid: AtomicI32,
    point: Mutex<Option<Point>>,
    pub(crate) kills: AtomicU32,
}

impl Reaper {
    /// Dies there, once.
    pub(crate) fn at(&self, point: Point) {
        *self.point.lock().unwrap() = Some(point);
    }

    fn strike(&self, r: &Seen, after: bool) -> bool {
        let mut point = self.point.lock().unwrap();
        if !point.as_ref().is_some_and(|p| p.after == after && p.is(r)) {
            return false;
        }
        *point = None;
        self.kill()
    }

    pub(crate) fn kill(&self) -> bool {
        let Some(pid) = Pid::from_raw(self.pid.load(Ordering::SeqCst)) else { return false };
        kill_process(pid, Signal::KILL).is_ok() && {
            self.kills.fetch_add(1, Ordering::SeqCst);
            true
        }
    }
}

/// A further controller of n1, `hgx`.
pub(crate) struct Board {
    pub(crate) account: Account,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) server: Server,
}

impl Board {
    async fn new(account: Account, serial: &'static str) -> Board {
        let reaper: Arc<Reaper> = Arc::default();
        let (state, scythe) = (account.clone(), reaper.clone());
        let server = Server::start(move |r, _| match served(&state, &scythe, r) {
            Reply::Json(status, headers, mut v) if v.get("SerialNumber").is_some() => {
                v["SerialNumber"] = serial.into();
                v["UUID"] = Value::Null;
                Reply::Json(status, headers, v)
            }
            // Named, so that each look at its firmware is a request.
            Reply::Json(status, headers, mut v) if v.get("AccountService").is_some() => {
                v["UpdateService"] = json!({"@odata.id": "/redfish/v1/UpdateService"});
                Reply::Json(status, headers, v)
            }
            other => other,
        })
        .await;
        Board { account, reaper, server }
    }
}

/// What a BMC answers, unless the daemon dies at that.
fn served(account: &Account, scythe: &Reaper, r: &Seen) -> Reply {
    if scythe.strike(r, false) {
        return Reply::Drop;
    }
    let reply = account.answer(r);
    if scythe.strike(r, true) { Reply::Drop } else { reply }
}

pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) account: Account,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) server: Server,
    board: Option<Board>,
    api: u16,
    child: Option<Child>,
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Keeps each note as a line; `point` in its directory says where the daemon is killed.
const HOOK: &str = r#"#!/bin/sh
dir=$(dirname "$0")
point=$(cat "$dir/point" 2>/dev/null)
note=$(cat)
# A daemon that was killed before it had said anything.
[ -n "$note" ] || exit 1
case $point in
refuse) exit 1 ;;
before) : > "$dir/point"; kill -9 $PPID; exit 1 ;;
esac
printf '%s\n' "$note" >> "$dir/escrow.jsonl"
case $point in
after) : > "$dir/point"; kill -9 $PPID ;;
in-force) case $note in *'"state":"in-force"'*) : > "$dir/point"; kill -9 $PPID ;; esac ;;
esac
exit 0
"#;

impl Site {
    /// A configuration, a sealed password, and a BMC behind a server. `more` goes to farrier.toml.
    pub(crate) async fn new(account: Account, more: &str) -> Site {
        let reaper: Arc<Reaper> = Arc::default();
        let (state, scythe) = (account.clone(), reaper.clone());
        let server = Server::start(move |r, _| served(&state, &scythe, r)).await;
        let dir = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let api = free.local_addr().unwrap().port();
        drop(free);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("workflows")).unwrap();
        write(
            "workflows/look.toml",
            "schema = 1\nname = \"look\"\n[watch]\nevery = \"60s\"\n[[step]]\nstage = \
             \"discover\"\nkey = \"identify\"\nkind = \"identify\"\ntimeout = \"30m\"\n",
        );
        write("hook.sh", HOOK);
        write(
            "farrier.toml",
            &format!(
                "schema = 1\n[paths]\nstate = \"state\"\nworkflows = \"workflows\"\n\
                 [listen.api]\nbind = \"127.0.0.1:{api}\"\n[secrets]\nkey_file = \"key\"\n\
                 [escrow]\ncommand = [\"/bin/sh\", \"{}\"]\n{more}",
                dir.path().join("hook.sh").display()
            ),
        );
        write("inventory.toml", &inventory(&server.url, "bmc", "off"));
        let site = Site { dir, account, reaper, server, board: None, api, child: None };
        site.secret_set("bmc", OLD);
        site
    }

    /// The same, where n1 has a baseboard at an address of its own.
    pub(crate) async fn with_board(
        account: Account,
        board: Account,
        serial: &'static str,
        more: &str,
    ) -> Site {
        let mut site = Site::new(account, more).await;
        let board = Board::new(board, serial).await;
        let text = std::fs::read_to_string(site.path("inventory.toml")).unwrap();
        let controller = format!(
            "[[machine.controller]]\nname = \"hgx\"\nkind = \"hgx\"\nurl = \"{}\"\n\
             serial = \"{serial}\"\ncredential = \"hgx\"\ntls = \"off\"\n",
            board.server.url
        );
        std::fs::write(site.path("inventory.toml"), text + &controller).unwrap();
        site.secret_set("hgx", OLD_BOARD);
        site.board = Some(board);
        site
    }

    pub(crate) fn board(&self) -> &Board {
        self.board.as_ref().expect("a board")
    }

    /// Tells whoever kills the daemon which process it is.
    fn is_process(&self, pid: i32) {
        let further = self.board.iter().map(|b| &b.reaper);
        for reaper in [&self.reaper].into_iter().chain(further) {
            reaper.pid.store(pid, Ordering::SeqCst);
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("farrier.toml")
    }

    pub(crate) fn secret_set(&self, name: &str, value: &str) {
        let mut child = Command::new(farrier())
            .args(["secret", "--config"])
            .arg(self.config())
            .args(["set", name, "--user", USER])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// Starts the daemon, whose clock runs 600 times faster.
    pub(crate) fn start(&mut self) {
        let log =
            std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let child = Command::new(farrier())
            .args(["serve", "--time-scale", "600", "--config"])
            .arg(self.config())
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.is_process(i32::try_from(child.id()).unwrap());
        self.child = Some(child);
    }

    /// Ends it, unless somebody has; then nobody has the database.
    pub(crate) fn stop(&mut self) {
        self.is_process(0);
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().unwrap();
        }
    }

    /// Is it dead without our stopping it? Then it is gone from the process table too.
    pub(crate) fn has_died(&mut self) -> bool {
        let dead = self.child.as_mut().is_some_and(|c| c.try_wait().unwrap().is_some());
        if dead {
            self.is_process(0);
            self.child = None;
        }
        dead
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api)
    }

    /// It answers whoever has no token.
    pub(crate) async fn until_healthy(&self) {
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.api)).is_err() {
            assert!(Instant::now() < deadline, "it does not listen\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until n1's history says it so many times; the history.
    pub(crate) fn until_history(&self, text: &str, times: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let history = self.farrier(&["machine", "history", "n1"]);
            if history.matches(text).count() == times {
                return history;
            }
            assert!(Instant::now() < deadline, "`{text}` is not there:\n{history}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        Command::new(farrier())
            .args(["--api", &self.url(), "--by", "tester"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Until the command succeeds.
    pub(crate) fn farrier(&self, words: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let out = self.run(words);
            if out.status.success() {
                return String::from_utf8(out.stdout).unwrap();
            }
            let err = String::from_utf8_lossy(&out.stderr).to_string();
            assert!(Instant::now() < deadline, "{words:?}: {err}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The daemon serves and has n1 in hand.
    pub(crate) fn ready(&mut self) {
        self.start();
        self.farrier(&["machine", "adopt", "n1", "--why", "test"]);
    }

    /// n1's rotation as the daemon tells it; nothing while it can't be asked.
    pub(crate) fn rotation(&self) -> Option<Value> {
        self.rotation_of(None)
    }

    /// The same of its controller of this name.
    pub(crate) fn rotation_of(&self, controller: Option<&str>) -> Option<Value> {
        let out = self.run(&["--json", "bmc", "rotate", "--list"]);
        let all: Value = serde_json::from_slice(&out.stdout).ok()?;
        let is = |r: &&Value| r["machine"] == "n1" && r["controller"].as_str() == controller;
        all["rotations"].as_array()?.iter().find(is).cloned()
    }

    /// Starts the daemon again whenever it is dead, until the rotation is at its end; its phase.
    pub(crate) fn until_over(&mut self) -> String {
        self.until_over_of(None)
    }

    /// The same of its controller of this name.
    pub(crate) fn until_over_of(&mut self, controller: Option<&str>) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.has_died() {
                self.start();
            }
            if let Some(r) = self.rotation_of(controller)
                && (r["open"] == false || r["phase"] == "stuck")
            {
                return r["phase"].as_str().unwrap().to_string();
            }
            assert!(
                Instant::now() < deadline,
                "{:?}\n{}",
                self.rotation_of(controller),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the hook has kept, oldest first.
    pub(crate) fn escrow(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("escrow.jsonl")).unwrap_or_default();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

pub(crate) fn inventory(url: &str, credential: &str, tls: &str) -> String {
    format!(
        "schema = 1\n[[site]]\nname = \"s\"\n[[rack]]\nname = \"r7\"\nsite = \"s\"\n\
         [[profile]]\nname = \"p\"\nworkflow = \"look\"\n[[pool]]\nname = \"all\"\nprofile = \
         \"p\"\n[[machine]]\nname = \"n1\"\nserial = \"S1001\"\nrack = \"r7\"\npool = \
         \"all\"\nbmc = {{ url = \"{url}\", credential = \"{credential}\", tls = \"{tls}\" }}\n\
         host = {{ address = \"127.0.0.1:1\" }}\n"
    )
}

/// The sealed password called `name`; the daemon must be down.
pub(crate) async fn sealed(dir: &Path, name: &str) -> Option<String> {
    use farrier::store::key::KeyFrom;
    use farrier::store::{Key, Settings, SqliteStore};
    let path = dir.join("state/farrier.db");
    let deadline = Instant::now() + PATIENCE;
    let store = loop {
        match SqliteStore::open(&path, Settings::default()).await {
            Ok(store) => break store,
            // A process that another test begins holds our last lock until it is another program.
            Err(e) => assert!(Instant::now() < deadline, "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let key = Key::read(&KeyFrom::File(dir.join("key"))).unwrap();
    let secrets = store.secrets(key).await.unwrap();
    let found = secrets.get(name).unwrap().map(|(_, value)| value.expose().to_string());
    store.close().await;
    found
}
