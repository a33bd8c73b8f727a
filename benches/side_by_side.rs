//! The peer's workload on Farrier: nodes from the inventory into service through the daemon's HTTP
//! API, on machines that obey at once; a list of all of them; a power and health pass over mock
//! BMCs; and what is left of 150 operations after kill -9. The daemon is a process of its own with
//! the real engine, store (SQLite, `synchronous=FULL`) and API; only its edges are stand-ins, and
//! their work is counted as the daemon's.
//!
//! `cargo bench --bench side_by_side [-- [--nodes N] [--peer FILE]]`; FILE: JSON lines of the peer's
//! `bench.py`, made on the same machine. Without it the peer's published figures are shown, with
//! their date.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark"
)]

mod standin;

use serde_json::Value;
use standin::{Connection, Process, ask};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The pauses after an action are for real machines; a thousandth of them is left.
const SCALE: u32 = 1000;
/// Connections of the client, as many as the peer's.
const CLIENTS: u32 = 8;
const KILLED: u32 = 150;

fn main() {
    standin::daemon_if_asked();
    let args: Vec<String> = std::env::args().collect();
    let value =
        |flag: &str| args.iter().position(|a| a == flag).and_then(|i| args.get(i + 1)).cloned();
    let nodes = value("--nodes").and_then(|n| n.parse().ok()).unwrap_or(1000);
    let peer = Peer::read(value("--peer").as_deref());
    println!("side by side, {nodes} nodes; the peer's figures: {}", peer.source);

    flow(nodes, &peer);
    sync(nodes, &peer);
    killed(&peer);
}

/// One line: ours, the peer's, how many times better ours is, the floor or ceiling.
fn line(what: &str, ours: f64, unit: &str, peer: Option<f64>, more_is_better: bool, bar: f64) {
    let ok = if more_is_better { ours >= bar } else { ours <= bar };
    let sign = if more_is_better { "≥" } else { "≤" };
    let beside = peer.map_or(String::new(), |p| {
        let times = if more_is_better { ours / p } else { p / ours };
        format!("; the peer {p:.2}, {times:.0} times")
    });
    let verdict = if ok { "ok" } else { "MISSED" };
    println!("  {what}: {ours:.2} {unit}{beside} (bar {sign} {bar}): {verdict}");
}

fn flow(nodes: u32, peer: &Peer) {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Process::standin(dir.path(), SCALE, false);
    let (cpu, started) = (daemon.cpu_ms(), Instant::now());
    daemon.post(&format!("/bench/expect?n={nodes}"));
    daemon.wait("all machines registered", 60, |d| count(d, "") == nodes);
    let registered = started.elapsed().as_secs_f64();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let port = daemon.port;
            scope.spawn(move || enroll(port, (client..nodes).step_by(CLIENTS as usize)));
        }
    });
    let enrolled = started.elapsed().as_secs_f64();
    daemon.wait("all machines in service", 600, |d| count(d, "&stage=in-service") == nodes);
    let seconds = started.elapsed().as_secs_f64();
    let per_node = (daemon.cpu_ms() - cpu) / f64::from(nodes);
    println!(
        "registered after {registered:.2} s, all enrolled after {enrolled:.2} s, all in service \
         after {seconds:.2} s (engine time x {SCALE})"
    );
    line("enroll to service", f64::from(nodes) / seconds, "nodes/s", peer.nodes_s, true, 100.0);
    line("CPU a node, stand-in edges included", per_node, "ms", peer.cpu_ms, false, 5.0);
    line("resident", daemon.rss_mb(), "MB", peer.rss_mb, false, 50.0);

    let mut connection = Connection::open(daemon.port).expect("a connection");
    let mut took: Vec<f64> = (0..50)
        .map(|_| {
            let asked = Instant::now();
            let (status, body) =
                connection.ask("GET", "/v1/machines?limit=1000", "").expect("a list");
            let ms = asked.elapsed().as_secs_f64() * 1000.0;
            assert!(status == 200 && body.len() > nodes.min(1000) as usize * 50);
            ms
        })
        .collect();
    took.sort_by(f64::total_cmp);
    line("list of up to 1,000 nodes, median", took[25], "ms", peer.list_ms, false, 10.0);
    drop(daemon);
    let again = Process::standin(dir.path(), SCALE, false);
    let first = again.ms() / 1000.0;
    line("exec to first answer with them", first, "s", peer.first_s, false, 0.15);
}

/// How many machines match a query.
fn count(daemon: &Process, query: &str) -> u32 {
    let page = daemon.get(&format!("/v1/machines?limit=1{query}"));
    page["total"].as_u64().expect("a total") as u32
}

fn enroll(port: u16, nodes: impl Iterator<Item = u32>) {
    let mut connection = Connection::open(port).expect("a connection");
    for n in nodes {
        let path = format!("/v1/machines/n{n:06}/changes");
        let order = r#"{"change":"enroll","desired":"in-service"}"#;
        let (status, body) = connection.ask("POST", &path, order).expect("an answer");
        assert_eq!(status, 200, "{body}");
    }
}

// --- power and health over Redfish

/// The peer's own mock BMCs, where its files are beside this checkout.
struct Mocks(Child);

impl Drop for Mocks {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

const MOCK_STATS: u16 = 18_999;

fn mocks(nodes: u32) -> Option<Mocks> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = |base: &Path| base.join("../shared/bench/ironic/mock_bmc.py");
    // A worktree may lie one level deeper.
    let script: PathBuf =
        [beside(repository), beside(repository.parent()?)].into_iter().find(|p| p.is_file())?;
    let child = Command::new("python3")
        .arg(script)
        .args(["--nodes", &nodes.to_string()])
        .args(["--stats-port", &MOCK_STATS.to_string()])
        .stdout(Stdio::null())
        .spawn()
        .ok()?;
    let mocks = Mocks(child);
    let deadline = Instant::now() + Duration::from_secs(60);
    while ask(MOCK_STATS, "GET", "/stats", "").is_none() {
        assert!(Instant::now() < deadline, "the mock BMCs do not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(mocks)
}

fn sync(nodes: u32, peer: &Peer) {
    let Some(_mocks) = mocks(nodes) else {
        println!(
            "  power and health pass: NOT RUN, the peer's mock_bmc.py or python3 is not there"
        );
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Process::standin(dir.path(), 1, true);
    daemon.post(&format!("/bench/expect?n={nodes}"));
    // Identified: a session each and the links followed once.
    let all = u64::from(nodes);
    let first = daemon.wait("all identified", 300, |d| {
        d.get("/bench/seen?since=0&seq=5")["moved"] == all && count(d, "&condition=ok") == nodes
    });
    println!("  first look at all of them, with login and discovery: {first:.2} s");
    let mut passes = Vec::new();
    for _ in 0..3 {
        ask(MOCK_STATS, "GET", "/reset", "").expect("the mocks answer");
        let (cpu, started) = (daemon.cpu_ms(), Instant::now());
        let now = daemon.post("/bench/poke")["now"].as_u64().expect("a time");
        daemon.wait("all read again", 300, |d| {
            d.get(&format!("/bench/seen?since={now}"))["read"] == all
        });
        let seconds = started.elapsed().as_secs_f64();
        let (_, stats) = ask(MOCK_STATS, "GET", "/stats", "").expect("the mocks answer");
        let stats: Value = serde_json::from_str(&stats).expect("JSON");
        let requests = stats["n"].as_f64().expect("a count") / f64::from(nodes);
        passes.push((seconds, requests, (daemon.cpu_ms() - cpu) / f64::from(nodes)));
    }
    passes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (seconds, requests, cpu) = passes[1];
    println!("  power and health pass over {nodes} mock BMCs, median of {}:", passes.len());
    line("the pass", seconds, "s", peer.sync_s(nodes), false, 5.0);
    line("requests a BMC", requests, "", peer.sync_requests, false, 2.0);
    line("CPU a BMC", cpu, "ms", peer.sync_cpu_ms, false, 11.0);
}

// --- kill -9

fn killed(peer: &Peer) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut daemon = Process::standin(dir.path(), 1, false);
    daemon.post(&format!("/bench/expect?n={KILLED}"));
    daemon.wait("all registered", 60, |d| count(d, "") == KILLED);
    enroll(daemon.port, 0..KILLED);
    // All on their way: deploying, none there yet.
    daemon.wait("all deploying", 60, |d| count(d, "&stage=provision") == KILLED);
    daemon.kill();
    let again = Process::standin(dir.path(), 1, false);
    let seconds = again.wait("all in service", 300, |d| count(d, "&stage=in-service") == KILLED);
    let done = count(&again, "&stage=in-service");
    println!("kill -9 with {KILLED} operations in flight, restarted, nobody helps:");
    let peer_done =
        peer.resumed.map_or("not in its file".to_string(), |n| format!("{n}, however many"));
    println!(
        "  resumed and finished: {done} of {KILLED}, the last after {seconds:.1} s; the peer: \
         {peer_done}: {}",
        if done == KILLED { "ok" } else { "MISSED" }
    );
}

// --- the peer's figures

#[derive(Default)]
struct Peer {
    source: String,
    nodes_s: Option<f64>,
    cpu_ms: Option<f64>,
    rss_mb: Option<f64>,
    first_s: Option<f64>,
    list_ms: Option<f64>,
    /// Nodes a second of a steady pass.
    sync_nodes_s: Option<f64>,
    sync_requests: Option<f64>,
    sync_cpu_ms: Option<f64>,
    resumed: Option<u32>,
}

impl Peer {
    fn read(file: Option<&str>) -> Self {
        let Some(file) = file else { return Self::published() };
        let text = std::fs::read_to_string(file).expect("the peer's file can be read");
        let lines = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        let by_mode: BTreeMap<String, Value> =
            lines.filter_map(|l| Some((l["mode"].as_str()?.to_string(), l))).collect();
        let mode = |name: &str| by_mode.get(name);
        let flow = mode("api").or_else(|| mode("flow"));
        let phases = flow.and_then(Value::as_object).map(|all| {
            let phase = |v: &Value| Some((v["s"].as_f64()?, v["cpu_ms_node"].as_f64()?));
            let way = ["enroll", "manage", "provide", "active"];
            let phases = way.iter().filter_map(|name| phase(all.get(*name)?));
            phases.fold((0.0, 0.0), |a, p| (a.0 + p.0, a.1 + p.1))
        });
        let number = |v: Option<&Value>, key: &str| v.and_then(|v| v[key].as_f64());
        let pass = mode("sync").and_then(|s| s["passes"].as_array()?.last().cloned());
        let list = flow.and_then(|f| f["api"]["list1000_c1"]["p50_ms"].as_f64());
        // It kills with 30 under way: those that were active in the end had gone on.
        let active = |k: &Value| k["final"]["active"].as_u64().unwrap_or(0) as u32;
        Self {
            source: format!("`{file}`"),
            nodes_s: number(flow, "nodes").zip(phases).map(|(n, (s, _))| n / s),
            cpu_ms: phases.map(|(_, cpu)| cpu),
            rss_mb: number(flow, "rss_after_mb"),
            first_s: number(mode("startup"), "first_api_200_s"),
            list_ms: list,
            sync_nodes_s: number(pass.as_ref(), "nodes_per_s"),
            sync_requests: number(pass.as_ref(), "reqs_node"),
            sync_cpu_ms: number(pass.as_ref(), "cpu_ms_node"),
            resumed: mode("kill").map(active),
        }
    }

    /// As measured by others, on another day and perhaps another machine: a reference only.
    fn published() -> Self {
        Self {
            source: "published reference of 2026-11-20 (Ironic 39.0.0, 2 quiet cores); not \
                     measured in this run, give `--peer FILE` for that"
                .into(),
            nodes_s: Some(3.7),
            cpu_ms: Some(251.0),
            rss_mb: Some(336.0),
            first_s: Some(2.08),
            list_ms: Some(199.0),
            sync_nodes_s: Some(1.12),
            sync_requests: Some(5.0),
            sync_cpu_ms: Some(1763.0),
            resumed: Some(0),
        }
    }

    fn sync_s(&self, nodes: u32) -> Option<f64> {
        self.sync_nodes_s.map(|rate| f64::from(nodes) / rate)
    }
}
