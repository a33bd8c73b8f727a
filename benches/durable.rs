//! Durable steps per second through the director and the SQLite store, beside C SQLite with the
//! same schema, the same rows and the same batch size in the same run; and hot state per machine.
//!
//! A step is one commit of one machine: its journal entries, its row, and the facts it was decided
//! on, synced to disk with others of its batch before the machine goes on.
//!
//! `cargo bench --bench durable [-- [hot] [--rounds N] [--dir DIR]]`
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "a bench measures time"
)]

use farrier::decide::Rules;
use farrier::engine::director::Settings;
use farrier::engine::{Command, Director, Event};
use farrier::model::action::Baseline;
use farrier::model::facts::{Power, SystemFacts};
use farrier::model::time::Span;
use farrier::model::*;
use farrier::port::store::{CommitItem, Committed, Store};
use farrier::steps::Step;
use farrier::steps::site::{Profile, Site};
use farrier::steps::workflow::{Retry, StepSpec, Unsupported, When, Workflow};
use farrier::steps::{identify, power};
use farrier::store::{self, SqliteStore};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// Items of one transaction: the measure.
const BATCH: usize = 50;
const MACHINES: u32 = 500;
/// Steps of one round.
const STEPS: usize = 20_000;
/// Machines whose hot state is measured.
const RESIDENT: u32 = 100_000;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value =
        |flag: &str| args.iter().position(|a| a == flag).and_then(|i| args.get(i + 1)).cloned();
    if let Some(db) = value("--resident") {
        return resident(Path::new(&db));
    }
    let rounds = value("--rounds").and_then(|n| n.parse().ok()).unwrap_or(5);
    let base =
        value("--dir").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), Into::into);
    std::fs::create_dir_all(&base).unwrap();
    let dir = tempfile::tempdir_in(&base).unwrap();
    // `-- hot`: the hot state alone.
    if !args.iter().any(|a| a == "hot") {
        speed(dir.path(), rounds);
    }
    hot_state(dir.path());
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn speed(dir: &Path, rounds: usize) {
    let (mut ours, mut rows, mut sets) = (vec![], vec![], vec![]);
    for round in 0..rounds {
        let (rate, items) = through_director(&dir.join(format!("f{round}.db")));
        let by_row = in_c(&dir.join(format!("r{round}.db")), &items, one_by_one);
        let by_set = in_c(&dir.join(format!("s{round}.db")), &items, set_based);
        println!(
            "round {round}: farrier {rate:.0}, C row by row {by_row:.0}, C set-based {by_set:.0} steps/s"
        );
        ours.push(rate);
        rows.push(by_row);
        sets.push(by_set);
    }
    let (ours, rows, sets) = (median(ours), median(rows), median(sets));
    println!("durable steps/s (batch {BATCH}, synchronous=FULL, medians of {rounds}): {ours:.0}");
    println!("  C SQLite, one statement a row: {rows:.0}  ratio {:.2}", ours / rows);
    println!("  C SQLite, same set statements: {sets:.0}  ratio {:.2}", ours / sets);
    // The floor is of the same schema, statements and batch; C's best way is printed above.
    let ok = ours / sets >= 0.50 && ours >= 8_000.0;
    println!(
        "durable: ratio {:.2} to C with the same statements (floor 0.50), {ours:.0}/s (floor 8000): {}",
        ours / sets,
        if ok { "ok" } else { "BELOW" }
    );
}

// --- a fleet whose power goes off and on

fn site(incarnation: Arc<str>) -> Arc<Site> {
    let spec = |stage, key: String, step| StepSpec {
        key: key.into(),
        stage,
        step,
        timeout: Span(3_600_000),
        stall: Span(900_000),
        usual: Span(0),
        retry: Retry::default(),
        unsupported: Unsupported::Quarantine,
        when: When::default(),
    };
    let identify = Step::Identify(identify::Params {});
    let mut steps = vec![spec(Stage::Discover, "identify".into(), identify)];
    for n in 0..200 {
        let state = if n % 2 == 0 { power::Wanted::Off } else { power::Wanted::On };
        let step = Step::Power(power::Params { state });
        steps.push(spec(Stage::Firmware, format!("power-{n}"), step));
    }
    let workflow =
        Workflow { name: "w".into(), watch: Span(300_000), sla: Default::default(), steps };
    let hash = workflow.hash();
    let profile = Profile { name: "p".into(), workflow: hash.clone(), ..Profile::default() };
    Arc::new(Site {
        incarnation,
        profiles: BTreeMap::from([("p".into(), Arc::new(profile))]),
        workflows: BTreeMap::from([(hash, Arc::new(workflow))]),
        ..Site::default()
    })
}

fn identity(n: u32) -> Identity {
    Identity {
        serial: Some(format!("S48291X{n:07}").into()),
        uuid: Some(format!("4c4c4544-0051-3510-8058-{n:012x}").into()),
        mac: Some(
            format!("02:00:{:02x}:{:02x}:{:02x}:01", n >> 16 & 255, n >> 8 & 255, n & 255).into(),
        ),
    }
}

fn expected(n: u32) -> Expected {
    let rack = format!("hall-b-r{:03}", n / 8);
    let domain = |kind, name: &str| Domain { kind, name: name.into() };
    Expected {
        name: format!("gpu-{n:06}").into(),
        identity: Arc::new(identity(n)),
        rack: rack.as_str().into(),
        position: (n % 8) as u16 * 4,
        pool: "training".into(),
        profile: "p".into(),
        domains: [
            domain(DomainKind::Site, "fra1"),
            domain(DomainKind::Rack, &rack),
            domain(DomainKind::Power, &format!("feed-{}", n / 64)),
            domain(DomainKind::Switch, &format!("leaf-{}", n / 32)),
            domain(DomainKind::Pool, "training"),
        ]
        .into(),
        labels: Default::default(),
        bmc: BmcEndpoint {
            url: format!("https://10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255).into(),
            credential: "bmc".into(),
            tls: "ca".into(),
            ipmi: None,
            controllers: Default::default(),
        },
        host: HostEndpoint {
            address: format!("10.{}.{}.{}", 64 + (n >> 16 & 63), n >> 8 & 255, n & 255).into(),
            user: "farrier".into(),
            host_key: None,
        },
    }
}

/// The driver's work, on one thread: while one batch becomes durable, the director goes on with
/// what it has.
struct Fleet {
    director: Director,
    now: EngineTime,
    out: Vec<Command>,
    power: BTreeMap<MachineId, Power>,
    waiting: VecDeque<CommitItem>,
    kept: Vec<CommitItem>,
    durable: usize,
}

impl Fleet {
    fn feed(&mut self, event: Event) {
        self.director.on(self.now, event, &mut self.out);
    }

    /// Answers everything but commits; those gather.
    fn answer(&mut self) {
        while !self.out.is_empty() {
            for command in std::mem::take(&mut self.out) {
                match command {
                    Command::Commit(item) => self.waiting.push_back(*item),
                    Command::Probe { machine, token, .. } => {
                        let power = self.power.get(&machine).copied().unwrap_or(Power::On);
                        let system = SystemFacts {
                            identity: identity(machine.0),
                            manufacturer: Some("Supermicro".into()),
                            model: Some("SYS-821GE-TNHR".into()),
                            power,
                            over_ipmi: false,
                            health: Some("OK".into()),
                            boot_target: Some("None".into()),
                            boot_enabled: Some("Disabled".into()),
                            last_reset: Some("2026-11-20T10:00:00Z".into()),
                            bios_version: Some("2.1.0".into()),
                        };
                        let system = Read::Seen(system);
                        let report = Report { at: self.now, system, ..Report::default() };
                        self.feed(Event::Probed { machine, token, report: Box::new(report) });
                    }
                    Command::Act { machine, seq, action, .. } => {
                        if let Action::Power { op } = action {
                            let on = matches!(op, PowerOp::On | PowerOp::ForceRestart);
                            self.power.insert(machine, if on { Power::On } else { Power::Off });
                        }
                        let outcome = Outcome::Applied { handle: None };
                        self.feed(Event::Acted { machine, seq, outcome });
                    }
                    Command::Ack { result, .. } => drop(result.unwrap()),
                    Command::CommitStop { .. } | Command::Halt { .. } => panic!("{command:?}"),
                }
            }
        }
    }

    fn enroll(&mut self, ids: &[MachineId]) {
        for id in ids {
            let change = Change::Enroll { allow_existing_data: false, desired: Desired::InService };
            let key = format!("enroll-{id}");
            let by = "bench".into();
            self.feed(Event::Change { machine: *id, change, by, key, ticket: 0 });
        }
    }

    /// The next batch goes to the store, if there is one; answers whether.
    fn send(&mut self, store: &SqliteStore, done: &mpsc::UnboundedSender<Batch>) -> bool {
        let batch = BATCH.min(self.waiting.len());
        if batch == 0 || batch < BATCH && self.director.next_due() <= self.now {
            return false;
        }
        let items: Vec<CommitItem> = self.waiting.drain(..batch).collect();
        let (store, done, now) = (store.clone(), done.clone(), self.now);
        tokio::spawn(async move {
            let each = store.commit(&items, now, 1_763_632_800_000).await.unwrap();
            done.send((items, each)).unwrap();
        });
        true
    }

    /// Runs until `steps` more are durable; returns seconds. As in the driver, one batch is with the
    /// store while the director hears of the one before.
    async fn run(&mut self, store: &SqliteStore, steps: usize) -> f64 {
        let started = Instant::now();
        let goal = self.durable + steps;
        let (done, mut results) = mpsc::unbounded_channel();
        let mut in_flight = false;
        let mut idle = 0;
        while self.durable < goal {
            self.answer();
            in_flight = in_flight || self.send(store, &done);
            if !in_flight {
                idle += 1;
                let row = self.director.machine(MachineId(1));
                assert!(idle < 2_000, "nothing becomes durable any more: {row:#?}");
                self.now = self.now.max(self.director.next_due());
                self.feed(Event::Tick);
                continue;
            }
            let (items, each) = results.recv().await.unwrap();
            idle = 0;
            in_flight = self.waiting.len() >= BATCH && self.send(store, &done);
            for (item, result) in items.into_iter().zip(each) {
                assert_eq!(result, Committed::Durable);
                self.durable += 1;
                let machine = item.machine;
                self.kept.push(item);
                self.feed(Event::Committed { machine, result: Ok(result) });
            }
        }
        // What is still with the store becomes durable within this time.
        if in_flight {
            let (items, each) = results.recv().await.unwrap();
            for (item, result) in items.into_iter().zip(each) {
                self.durable += 1;
                let machine = item.machine;
                self.kept.push(item);
                self.feed(Event::Committed { machine, result: Ok(result) });
            }
        }
        started.elapsed().as_secs_f64()
    }
}

type Batch = (Vec<CommitItem>, Vec<Committed>);

/// Steps per second, and what was committed from the first item on.
fn through_director(db: &Path) -> (f64, Vec<CommitItem>) {
    // Two threads, as `serve` has at least: the writer's task does not wait for the director.
    let rt =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let out = rt.block_on(async {
        let store = SqliteStore::open(db, store::Settings::default()).await.unwrap();
        let lines: Vec<Expected> = (1..=MACHINES).map(expected).collect();
        let ids = store.expect(&lines).await.unwrap();
        let loaded = store.load().await.unwrap();
        let site = site(loaded.state.incarnation.clone());
        let now = EngineTime(1_000);
        let mut fleet = Fleet {
            director: Director::new(Rules, Settings::default(), loaded, site, now),
            now,
            out: vec![],
            power: BTreeMap::new(),
            waiting: VecDeque::new(),
            kept: vec![],
            durable: 0,
        };
        let machines = ids.iter().copied().zip(lines.into_iter().map(Arc::new)).collect();
        fleet.feed(Event::Expect { machines });
        fleet.enroll(&ids);
        // Registered, enrolled, on their way.
        fleet.run(&store, MACHINES as usize * 4).await;
        let from = fleet.durable;
        let seconds = fleet.run(&store, STEPS).await;
        let rate = (fleet.durable - from) as f64 / seconds;
        store.close().await;
        (rate, fleet.kept)
    });
    rt.shutdown_background();
    out
}

// --- the same rows in C

/// An item as the columns it becomes: made before the clock runs.
struct Flat {
    id: i64,
    after_seq: i64,
    entries: Vec<(i64, Option<i64>, &'static str, String)>,
    row: Machine,
    row_json: String,
    at: i64,
    keys: Vec<String>,
    facts: Vec<(&'static str, String)>,
}

fn flat(item: &CommitItem) -> Flat {
    let run = item.row.run.as_ref().map(|r| r.id as i64);
    let entry = |(n, e): (usize, &Entry)| {
        let seq = (item.after_seq + 1 + n as u64) as i64;
        (seq, run, e.name(), serde_json::to_string(e).unwrap())
    };
    let key = |e: &Entry| match e {
        Entry::Changed { key, .. } => Some(key.clone()),
        _ => None,
    };
    let seen = item.facts.as_ref().and_then(|f| f.system.seen());
    Flat {
        id: i64::from(item.machine.0),
        after_seq: item.after_seq as i64,
        entries: item.entries.iter().enumerate().map(entry).collect(),
        row: item.row.clone(),
        row_json: serde_json::to_string(&item.row).unwrap(),
        at: item.at.0 as i64,
        keys: item.entries.iter().filter_map(key).collect(),
        facts: seen.map(|s| ("system", serde_json::to_string(s).unwrap())).into_iter().collect(),
    }
}

/// Replays the items; steps per second of those that Farrier was timed with.
fn in_c(
    db: &Path,
    items: &[CommitItem],
    write: fn(&rusqlite::Connection, &[Flat], &mut i64) -> rusqlite::Result<()>,
) -> f64 {
    let conn = rusqlite::Connection::open(db).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA cache_size = -65536;",
    )
    .unwrap();
    conn.execute_batch(include_str!("../src/store/schema.sql")).unwrap();
    conn.execute_batch(
        "INSERT INTO site_state VALUES (1, 'bench', 0, 0, NULL, 0);
         INSERT INTO shard VALUES (0, 1, 0);",
    )
    .unwrap();
    conn.set_prepared_statement_cache_capacity(32);
    let flat: Vec<Flat> = items.iter().map(flat).collect();
    let (before, timed) = flat.split_at(items.len() - STEPS);
    let mut seq = 0;
    for batch in before.chunks(BATCH) {
        write(&conn, batch, &mut seq).unwrap();
    }
    let started = Instant::now();
    for batch in timed.chunks(BATCH) {
        write(&conn, batch, &mut seq).unwrap();
    }
    timed.len() as f64 / started.elapsed().as_secs_f64()
}

const WALL_MS: i64 = 1_763_632_800_000;

fn one_by_one(conn: &rusqlite::Connection, batch: &[Flat], seq: &mut i64) -> rusqlite::Result<()> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    {
        let mut known = conn.prepare_cached("SELECT seq FROM machine WHERE id = ?")?;
        let mut repeated =
            conn.prepare_cached("SELECT 1 FROM change_key WHERE machine = ? AND key = ?")?;
        let mut journal = conn.prepare_cached(
            "INSERT INTO journal (shard, seq, machine, machine_seq, epoch, at, wall_ms, version,
             run, entry, json) VALUES (0, ?, ?, ?, 1, ?, ?, 1, ?, ?, ?)",
        )?;
        let mut machine = conn.prepare_cached(
            "INSERT INTO machine (id, shard, name, seq, control, desired, stage, condition, held,
             run, json) VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, seq = excluded.seq,
             control = excluded.control, desired = excluded.desired, stage = excluded.stage,
             condition = excluded.condition, held = excluded.held, run = excluded.run,
             json = excluded.json",
        )?;
        let mut facts = conn.prepare_cached(
            "INSERT INTO facts (machine, part, at, seen, json) VALUES (?, ?, ?, 1, ?)
             ON CONFLICT (machine, part) DO UPDATE SET at = excluded.at, seen = excluded.seen,
             json = excluded.json WHERE excluded.seen OR NOT seen",
        )?;
        let mut keys =
            conn.prepare_cached("INSERT INTO change_key (machine, key) VALUES (?, ?)")?;
        for item in batch {
            let stored: i64 = known.query_row([item.id], |r| r.get(0)).unwrap_or(0);
            assert_eq!(stored, item.after_seq);
            for key in &item.keys {
                assert!(!repeated.exists((item.id, key))?);
                keys.execute((item.id, key))?;
            }
            for (machine_seq, run, name, json) in &item.entries {
                *seq += 1;
                journal.execute((*seq, item.id, machine_seq, item.at, WALL_MS, run, name, json))?;
            }
            let m = &item.row;
            machine.execute((
                item.id,
                &*m.name,
                m.seq as i64,
                m.control.name(),
                m.desired.map(Desired::name),
                m.stage.name(),
                m.condition.name(),
                m.hold.is_some(),
                m.run.as_ref().map(|r| r.id as i64),
                &item.row_json,
            ))?;
            for (part, json) in &item.facts {
                facts.execute((item.id, part, item.at, json))?;
            }
        }
    }
    finish(conn, batch, *seq)
}

fn finish(conn: &rusqlite::Connection, batch: &[Flat], seq: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE shard SET seq = ? WHERE id = 0 AND epoch = 1")?.execute([seq])?;
    conn.prepare_cached(
        "UPDATE site_state SET engine_time = max(engine_time, ?), wall_ms = ? WHERE id = 1",
    )?
    .execute((batch.last().map_or(0, |i| i.at), WALL_MS))?;
    conn.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

fn list(parts: impl Iterator<Item = String>) -> String {
    format!("[{}]", parts.collect::<Vec<_>>().join(","))
}

fn set_based(conn: &rusqlite::Connection, batch: &[Flat], seq: &mut i64) -> rusqlite::Result<()> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let seqs = list(batch.iter().map(|i| format!("[{},{}]", i.id, i.after_seq)));
    let keyed = list(
        batch
            .iter()
            .flat_map(|i| i.keys.iter().map(|k| serde_json::to_string(&(0, i.id, k)).unwrap())),
    );
    let lost: (String, String) = conn
        .prepare_cached(
            "SELECT (SELECT json_group_array(json_array(j.key, coalesce(m.seq, 0)))
                 FROM json_each(?1) j LEFT JOIN machine m ON m.id = j.value ->> 0
                 WHERE coalesce(m.seq, 0) <> j.value ->> 1),
                (SELECT json_group_array(json_array(k.value ->> 0, c.key))
                 FROM json_each(?2) k
                 JOIN change_key c ON c.machine = k.value ->> 1 AND c.key = k.value ->> 2)",
        )?
        .query_row((seqs, &keyed), |r| Ok((r.get(0)?, r.get(1)?)))?;
    assert_eq!(lost, ("[]".to_string(), "[]".to_string()));
    let journal = list(batch.iter().flat_map(|i| {
        i.entries.iter().map(|(n, run, name, json)| {
            let run = run.map_or("null".into(), |r| r.to_string());
            format!("[{},{n},{},{run},\"{name}\",{json}]", i.id, i.at)
        })
    }));
    let entries = conn
        .prepare_cached(
            "INSERT INTO journal (shard, seq, machine, machine_seq, epoch, at, wall_ms, version,
             run, entry, json)
             SELECT 0, ? + 1 + k, v ->> 0, v ->> 1, 1, v ->> 2, ?, 1,
             CASE v ->> 3 WHEN -1 THEN (SELECT run FROM machine WHERE id = v ->> 0)
                  ELSE v ->> 3 END, v ->> 4, v ->> 5
             FROM (SELECT key AS k, value AS v FROM json_each(?) LIMIT -1)",
        )?
        .execute((*seq, WALL_MS, journal))?;
    *seq += entries as i64;
    let rows = list(batch.iter().map(|i| {
        let m = &i.row;
        serde_json::to_string(&(
            i.id,
            &*m.name,
            m.seq,
            m.control.name(),
            m.desired.map(Desired::name),
            m.stage.name(),
            m.condition.name(),
            u8::from(m.hold.is_some()),
            m.run.as_ref().map(|r| r.id),
            serde_json::value::RawValue::from_string(i.row_json.clone()).unwrap(),
        ))
        .unwrap()
    }));
    conn.prepare_cached(
        "INSERT INTO machine (id, shard, name, seq, control, desired, stage, condition, held, run,
         json)
         SELECT v ->> 0, 0, v ->> 1, v ->> 2, v ->> 3, v ->> 4, v ->> 5, v ->> 6, v ->> 7, v ->> 8,
         v ->> 9 FROM (SELECT value AS v FROM json_each(?) LIMIT -1) WHERE true
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, seq = excluded.seq,
         control = excluded.control, desired = excluded.desired, stage = excluded.stage,
         condition = excluded.condition, held = excluded.held, run = excluded.run,
         json = excluded.json",
    )?
    .execute([rows])?;
    let facts = list(batch.iter().flat_map(|i| {
        i.facts.iter().map(|(part, json)| format!("[{},\"{part}\",{},1,{json}]", i.id, i.at))
    }));
    conn.prepare_cached(
        "INSERT INTO facts (machine, part, at, seen, json)
         SELECT v ->> 0, v ->> 1, v ->> 2, v ->> 3, v ->> 4
         FROM (SELECT value AS v FROM json_each(?) LIMIT -1) WHERE true
         ON CONFLICT (machine, part) DO UPDATE SET at = excluded.at, seen = excluded.seen,
         json = excluded.json WHERE excluded.seen OR NOT seen",
    )?
    .execute([facts])?;
    conn.prepare_cached(
        "INSERT INTO change_key (machine, key) SELECT value ->> 1, value ->> 2 FROM json_each(?)
         WHERE true ON CONFLICT DO NOTHING",
    )?
    .execute([keyed])?;
    finish(conn, batch, *seq)
}

// --- hot state

/// The journal of a machine in service; every tenth is in the middle of an update.
fn life(id: MachineId, n: u32) -> CommitItem {
    let enroll = Change::Enroll { allow_existing_data: false, desired: Desired::InService };
    let mut entries = vec![
        Entry::Registered { name: expected(n).name },
        Entry::Changed { change: enroll, by: "ops".into(), key: format!("k{n}") },
        Entry::Proven { identity: identity(n) },
        Entry::RunBegan { workflow: "a".repeat(64).into(), reason: "desired in-service".into() },
        Entry::Entered { stage: Stage::Firmware },
    ];
    if n.is_multiple_of(10) {
        entries.push(Entry::StepBegan { index: 2, key: "firmware".into() });
        entries.push(Entry::Intent {
            action: Action::UpdateFirmware {
                component: "bios".into(),
                inventory_id: "BIOS".into(),
                from: "2.0.0".into(),
                to: "2.1.0".into(),
                file: "supermicro/h13/bios-2.1.0.bin".into(),
                sha256: "b".repeat(64),
            },
            expect: Expect {
                identity: identity(n),
                power: None,
                from_version: Some("2.0.0".into()),
            },
            baseline: Baseline {
                tasks: vec!["/redfish/v1/TaskService/Tasks/1".into()],
                ..Baseline::default()
            },
            holds: None,
        });
        let handle = Some("/redfish/v1/TaskService/Tasks/2".into());
        entries.push(Entry::Settled { outcome: Outcome::Applied { handle } });
    } else {
        let host_key = format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{n:043}");
        entries.push(Entry::Entered { stage: Stage::Provision });
        entries.push(Entry::HostKeyPinned { host_key: host_key.into() });
        let (image, run) = ("ubuntu-24.04-gpu".into(), format!("abcd1234-{id}-4"));
        entries.push(Entry::Deployed { image, run });
        for stage in [Stage::BurnIn, Stage::Ready, Stage::Join, Stage::InService] {
            entries.push(Entry::Entered { stage });
        }
        entries.push(Entry::RunEnded { why: "arrived".into() });
    }
    let (at, mut row) = (EngineTime(5_000), Machine::blank(id));
    for entry in &entries {
        fold::apply(&mut row, entry, at).unwrap();
    }
    CommitItem { machine: id, after_seq: 0, at, entries, row, facts: None }
}

/// Makes the database here, loads it in a process of its own: freed memory of one would hide the
/// other's.
fn hot_state(dir: &Path) {
    let db = dir.join("resident.db");
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let store = SqliteStore::open(&db, store::Settings::default()).await.unwrap();
        let numbers: Vec<u32> = (1..=RESIDENT).collect();
        for chunk in numbers.chunks(1_000) {
            let lines: Vec<Expected> = chunk.iter().map(|n| expected(*n)).collect();
            let ids = store.expect(&lines).await.unwrap();
            let items: Vec<CommitItem> =
                ids.into_iter().zip(chunk).map(|(id, n)| life(id, *n)).collect();
            store.commit(&items, EngineTime(5_000), 1).await.unwrap();
        }
        store.close().await;
    });
    let me = std::env::current_exe().unwrap();
    let status = std::process::Command::new(me).arg("--resident").arg(&db).status().unwrap();
    assert!(status.success());
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn resident(db: &Path) {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    farrier::app::pages::for_reading(&[db.to_path_buf()]);
    rt.block_on(async {
        let store = SqliteStore::open(db, store::Settings::default()).await.unwrap();
        let before = resident_bytes();
        let started = Instant::now();
        let loaded = store.load().await.unwrap();
        let seconds = started.elapsed().as_secs_f64();
        assert_eq!(loaded.machines.len(), RESIDENT as usize);
        let site = site(loaded.state.incarnation.clone());
        let director = Director::new(Rules, Settings::default(), loaded, site, EngineTime(9_000));
        let each = (resident_bytes() - before) as f64 / f64::from(RESIDENT);
        println!(
            "hot state: {each:.0} bytes a machine ({RESIDENT} loaded in {seconds:.2} s; ceiling \
             1000): {}",
            if each <= 1000.0 { "ok" } else { "ABOVE" }
        );
        println!(
            "  of these inline: row {} bytes, inventory line {} bytes; the rest are their strings, \
             the director's slot and due list",
            size_of::<Machine>(),
            size_of::<Expected>()
        );
        drop(director);
    });
}
