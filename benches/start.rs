//! Starts of a site: from exec to the first answer of `farrier serve` with 10,000 and with 100,000
//! machines in the file (first on an empty database, then with all of them in it) and the memory
//! that a machine costs the daemon; and the recovery of 10,000 runs in flight, from exec until each
//! of them was read, decided about, and the decision is durable.
//!
//! `cargo bench --bench start [-- [--machines N]... [--runs N]]`
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    reason = "a benchmark"
)]

mod standin;

use farrier::model::action::Baseline;
use farrier::model::*;
use farrier::port::store::{CommitItem, Store};
use farrier::store::{Settings, SqliteStore};
use standin::{Process, daemon, free_port};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

fn main() {
    standin::daemon_if_asked();
    let args: Vec<String> = std::env::args().collect();
    let values = |flag: &str| -> Vec<u32> {
        let after = args.windows(2).filter(|w| w[0] == flag);
        after.filter_map(|w| w[1].parse().ok()).collect()
    };
    let sizes = values("--machines");
    for machines in if sizes.is_empty() { vec![10_000, 100_000] } else { sizes } {
        starts(machines);
    }
    for runs in if values("--runs").is_empty() { vec![10_000] } else { values("--runs") } {
        recovery(runs);
    }
}

/// Milliseconds that a start may take with so many machines.
fn ceiling_ms(machines: u32) -> f64 {
    if machines <= 10_000 { 150.0 } else { 1000.0 }
}

fn starts(machines: u32) {
    // What the daemon takes without any machine is not a machine's.
    let empty = {
        let dir = tempfile::tempdir().expect("a directory");
        let daemon = serve(dir.path(), 1);
        daemon.first_answer();
        daemon.wait("one machine", 60, |d| known(d) == 1);
        daemon.rss_mb()
    };
    let dir = tempfile::tempdir().expect("a directory");
    for what in ["first start (empty database)", "second start", "third start"] {
        let daemon = serve(dir.path(), machines);
        let ms = daemon.first_answer();
        let cpu = daemon.cpu_ms();
        let ceiling = ceiling_ms(machines);
        println!(
            "start: {what}, {machines} machines: first answer after {ms:.0} ms, {cpu:.0} ms of it \
             CPU (ceiling {ceiling} ms; load {}): {}",
            standin::load(),
            if ms <= ceiling { "ok" } else { "ABOVE" }
        );
        // All machines are in the database before the next start.
        daemon.wait("the inventory", 600, |d| known(d) == u64::from(machines));
        println!(
            "  resident {:.1} MB, {:.0} bytes a machine above the {empty:.1} MB of a daemon with \
             one; all of it, not only its rows",
            daemon.rss_mb(),
            (daemon.rss_mb() - empty) * 1e6 / f64::from(machines)
        );
    }
}

fn known(daemon: &Process) -> u64 {
    daemon.get("/v1/status")["machines"].as_u64().unwrap_or(0)
}

fn serve(dir: &Path, machines: u32) -> Process {
    let port = free_port();
    write_site(dir, port, machines);
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    command.args(["serve", "--observe-only", "--config"]).arg(dir.join("farrier.toml"));
    Process::start(command.env("FARRIER_LOG", "error"), port)
}

/// A site whose BMCs answer nobody: only the start counts.
fn write_site(dir: &Path, port: u16, machines: u32) {
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
    for rack in 0..machines.div_ceil(32) {
        let _ = write!(inventory, "[[rack]]\nname = \"r{rack}\"\nsite = \"s\"\n");
    }
    for n in 0..machines {
        let (net, a, b) = (n / 62_500, n / 250 % 250, n % 250 + 1);
        let _ = write!(
            inventory,
            "[[machine]]\nname = \"n{n:06}\"\nserial = \"SN{n:06}\"\nrack = \"r{}\"\nposition = {}\n\
             pool = \"pool\"\nbmc = {{ url = \"http://127.{}.{a}.{b}:9\", credential = \"bmc\" }}\n\
             host = {{ address = \"127.{}.{a}.{b}:9\" }}\n",
            n / 32,
            n % 32 + 1,
            9 + net,
            19 + net,
        );
    }
    std::fs::write(dir.join("farrier.toml"), daemon).expect("written");
    std::fs::write(dir.join("inventory.toml"), inventory).expect("written");
}

// --- recovery

/// The journal of a machine that was killed with an action open: whether its boot window was
/// opened nobody knows.
fn in_flight(id: MachineId, n: u32, workflow: &str) -> CommitItem {
    let line = daemon::expected(n);
    let identity = Identity::clone(&line.identity);
    let enroll = Change::Enroll { allow_existing_data: false, desired: Desired::InService };
    let entries = vec![
        Entry::Registered { name: line.name },
        Entry::Changed { change: enroll, by: "ops".into(), key: format!("k{n}") },
        Entry::Proven { identity: identity.clone() },
        Entry::RunBegan { workflow: workflow.into(), reason: "enrolled".into() },
        Entry::Entered { stage: Stage::Firmware },
        Entry::Entered { stage: Stage::Provision },
        Entry::StepBegan { index: 2, key: "deploy".into() },
        Entry::Intent {
            action: Action::OpenBootWindow {
                image: "image".into(),
                run: format!("0badcafe-{id}-4"),
                allow_existing_data: false,
                keys: vec![],
            },
            expect: Expect { identity, power: None, from_version: None },
            baseline: Baseline::default(),
            holds: None,
        },
    ];
    let (at, mut row) = (EngineTime(5_000), Machine::blank(id));
    for entry in &entries {
        fold::apply(&mut row, entry, at).expect("it fits");
    }
    CommitItem { machine: id, after_seq: 0, at, entries, row, facts: None }
}

fn recovery(runs: u32) {
    let dir = tempfile::tempdir().expect("a directory");
    let workflow = daemon::workflow(true).hash();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let seq = runtime.expect("a runtime").block_on(async {
        let db = dir.path().join("farrier.db");
        let store = SqliteStore::open(&db, Settings::default()).await.expect("it opens");
        let numbers: Vec<u32> = (0..runs).collect();
        let mut seq = 0;
        for chunk in numbers.chunks(1_000) {
            let lines: Vec<Expected> = chunk.iter().map(|n| daemon::expected(*n)).collect();
            let ids = store.expect(&lines).await.expect("taken in");
            let items: Vec<CommitItem> =
                ids.into_iter().zip(chunk).map(|(id, n)| in_flight(id, *n, &workflow)).collect();
            seq = items[0].row.seq;
            store.commit(&items, EngineTime(5_000), 1).await.expect("committed");
        }
        store.close().await;
        seq
    });
    for _ in 0..3 {
        // Each time the same database: decisions of the round before are not in it.
        let copy = tempfile::tempdir().expect("a directory");
        std::fs::copy(dir.path().join("farrier.db"), copy.path().join("farrier.db"))
            .expect("copied");
        let daemon = Process::standin(copy.path(), 1, false);
        let first = daemon.ms();
        let all = u64::from(runs);
        let query = format!("/bench/seen?since=0&seq={seq}");
        daemon.wait("all read", 60, |d| d.get(&query)["read"] == all);
        let read = daemon.ms();
        daemon.wait("all decided", 60, |d| d.get(&query)["moved"] == all);
        let (decided, cpu) = (daemon.ms(), daemon.cpu_ms());
        println!(
            "recovery: {runs} runs in flight, each with an open action: exec to first answer \
             {first:.0} ms, all read {read:.0} ms, all decided and durable {decided:.0} ms, \
             CPU {cpu:.0} ms (ceiling 2000 ms; looks not spread, edges that answer at once; load \
             {}): {}",
            standin::load(),
            if decided <= 2000.0 { "ok" } else { "ABOVE" }
        );
    }
}
