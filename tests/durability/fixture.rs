//! A small fleet behind real BMCs and a daemon whose disk and clock take orders.

use crate::truth;
use farrier::app::demo::daemon::Daemon;
use farrier::app::demo::fleet::{Api, Fleet};
use farrier::app::demo::{Options, Site};
use farrier::sim::serve::admin;
use farrier::store::fsck::fsck;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest wait for anything here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
const MACHINES: u32 = 4;

pub(crate) fn farrier() -> PathBuf {
    std::env::var_os("FARRIER_BIN").map_or_else(|| env!("CARGO_BIN_EXE_farrier").into(), Into::into)
}

/// `faults.c`, compiled once.
fn preload() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/durability/faults.c");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let library = target.join(format!("faults-{}.so", std::process::id()));
        let out = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
            .arg(&library)
            .arg(source)
            .output()
            .expect("a C compiler: the build needs one too");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        library
    })
}

pub(crate) struct Fixture {
    pub(crate) site: Site,
    pub(crate) api: Api,
    http: reqwest::Client,
    exe: PathBuf,
    faults: PathBuf,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let options = Options { until: "ready".into(), ..Options::new(MACHINES) };
        let site = Site::build(&options, &farrier()).await.expect("a site");
        let (exe, faults) = (site.dir().join("farrier.sh"), site.dir().join("faults"));
        let script = format!(
            "#!/bin/sh\nexec env LD_PRELOAD='{}' FARRIER_TEST_FAULTS='{}' '{}' \"$@\"\n",
            preload().display(),
            faults.display(),
            farrier().display()
        );
        fs::write(&exe, script).unwrap();
        fs::set_permissions(&exe, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(site.dir().join("state")).unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()
            .expect("a client");
        let api = Api::new(&site.api_url).expect("a client");
        let fixture = Self { site, api, http, exe, faults };
        fixture.order("");
        fixture
    }

    /// What disk and clock do from now on; see `faults.c`.
    pub(crate) fn order(&self, orders: &str) {
        // Whole or not at all: the daemon reads it at any moment.
        let new = self.faults.with_extension("new");
        fs::write(&new, orders).unwrap();
        fs::rename(&new, &self.faults).unwrap();
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.site.dir().join("state")
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.state().join("farrier.db")
    }

    /// Starts the daemon; it need not get far.
    pub(crate) fn launch(&self) -> Daemon {
        Daemon::start(&self.exe, &self.site.config, Options::TIME_SCALE, &self.site.log)
            .expect("a process")
    }

    pub(crate) async fn start(&self) -> Daemon {
        let mut daemon = self.launch();
        let up = daemon.healthy(&self.site.api_url, Duration::from_secs(60)).await;
        up.unwrap_or_else(|e| panic!("{e}"));
        daemon
    }

    pub(crate) async fn enroll(&self) {
        self.api.enroll_all(MACHINES, "ready").await.unwrap_or_else(|e| panic!("{e}"));
    }

    /// Waits until the daemon has ended by itself; its last words, and whether it failed.
    pub(crate) async fn ended(&self, daemon: &mut Daemon) -> String {
        let status = tokio::time::timeout(PATIENCE, daemon.ended()).await.unwrap_or_else(|_| {
            panic!("it does not end; its last words:\n{}", daemon.tail());
        });
        let tail = daemon.tail();
        assert_eq!(status, "exit status: 1", "{tail}");
        tail
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.site.api_url);
        self.http.get(url).send().await.expect("an answer").json().await.expect("JSON")
    }

    /// Says a change; status and body.
    pub(crate) async fn say(&self, machine: &str, key: &str, change: &Value) -> (u16, Value) {
        let url = format!("{}/v1/machines/{machine}/changes", self.site.api_url);
        let request = self.http.post(url).header("idempotency-key", key).json(change);
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    pub(crate) fn truth(&self) -> Value {
        admin::truth(&self.site.serving.world)
    }

    /// How many things were begun over the wire so far.
    pub(crate) fn begun(&self) -> usize {
        let truth = self.truth();
        let all = truth.as_object().unwrap().values().flat_map(|log| log.as_array().unwrap());
        all.filter(|e| e["by"] == "wire" && !e["what"].as_str().unwrap().ends_with("-ended"))
            .count()
    }

    /// Waits until `what` was done to some machine.
    pub(crate) async fn until_done(&self, what: &str) {
        self.until(what, async || truth::tally(&self.truth()).contains_key(what)).await;
    }

    pub(crate) async fn until(&self, what: &str, mut is: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is().await {
            assert!(Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until every machine is ready; nothing was done twice, and the database is in order.
    pub(crate) async fn arrives(&self, mut daemon: Daemon) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(error) = daemon.check() {
                panic!("{error}");
            }
            let fleet = self.api.fleet().await.unwrap_or_else(|e| panic!("{e}"));
            if fleet.rests("ready", &self.site.trouble) {
                break;
            }
            if Instant::now() > deadline {
                self.explain(&fleet).await;
                panic!("the fleet does not arrive; last words:\n{}", daemon.tail());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let status = daemon.stop().await.expect("a status");
        assert!(status.success(), "a graceful stop ends with {status}");
        self.is_in_order().await;
    }

    pub(crate) async fn is_in_order(&self) {
        let report = fsck(&self.db()).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(report.is_clean(), "{:#?}", report.findings);
        let repeated = truth::repeated(&self.truth());
        assert!(repeated.is_empty(), "done twice: {repeated:#?}");
    }

    async fn explain(&self, fleet: &Fleet) {
        for row in fleet.stuck("ready", &self.site.trouble) {
            let why = self.api.explain(&row.name).await.unwrap_or_default();
            println!("--- {row:?}\n{why}");
        }
        println!("{}", self.truth());
    }

    /// Every entry of every machine's history, as JSON.
    pub(crate) fn journal(&self) -> Vec<Value> {
        let db = rusqlite::Connection::open(self.db()).unwrap();
        let mut rows = db.prepare("SELECT json FROM journal ORDER BY seq").unwrap();
        let rows = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(|json| serde_json::from_str(&json.unwrap()).unwrap()).collect()
    }
}

/// A mount that ends with the test.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// `None`, said aloud, where mounting is not allowed.
    pub(crate) fn new(at: &Path, args: &[&str], from: &Path) -> Option<Mount> {
        let out = Command::new("mount").args(args).arg(from).arg(at).output();
        match out {
            Ok(out) if out.status.success() => Some(Mount(at.to_path_buf())),
            other => {
                println!("SKIPPED: no mount here ({other:?})");
                None
            }
        }
    }

    pub(crate) fn remount(&self, options: &str) {
        let args = ["-o", &format!("remount,{options}")];
        let out = Command::new("mount").args(args).arg(&self.0).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}
