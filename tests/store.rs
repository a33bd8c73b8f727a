//! The SQLite store from outside: what is durable, who is refused, what breaks and how it says so.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests make files, damage them, and run mount"
)]

use farrier::model::action::Baseline;
use farrier::model::facts::*;
use farrier::model::*;
use farrier::port::store::*;
use farrier::port::{Secret, Vault};
use farrier::store::backup::backup;
use farrier::store::fsck::fsck;
use farrier::store::key::{Key, KeyFrom};
use farrier::store::vault::{From, Reference, References, SiteVault};
use farrier::store::{Settings, SqliteStore};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    Place { _dir: dir, path }
}

impl Place {
    async fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path, Settings::default()).await.unwrap()
    }

    async fn refused(&self) -> String {
        SqliteStore::open(&self.path, Settings::default()).await.unwrap_err().to_string()
    }

    fn sql(&self, sql: &str) {
        let conn = rusqlite::Connection::open(&self.path).unwrap();
        conn.execute_batch(sql).unwrap();
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.path.display()))
    }
}

fn expected(n: u32) -> Expected {
    Expected {
        name: format!("n{n}").into(),
        identity: Identity::new(Some(&format!("SN{n:05}")), None, None).into(),
        rack: "r1".into(),
        position: 1,
        pool: "pool".into(),
        profile: "p".into(),
        domains: [Domain { kind: DomainKind::Rack, name: "r1".into() }].into(),
        labels: BTreeMap::from([("zone".into(), "a \"quoted\" é".into())]).into(),
        bmc: BmcEndpoint::default(),
        host: HostEndpoint::default(),
    }
}

/// The entries and the row that they make.
fn item(before: &Machine, at: u64, entries: Vec<Entry>) -> CommitItem {
    let mut row = before.clone();
    let at = EngineTime(at);
    for entry in &entries {
        fold::apply(&mut row, entry, at).unwrap();
    }
    CommitItem { machine: before.id, after_seq: before.seq, at, entries, row, facts: None }
}

fn registered(id: MachineId) -> CommitItem {
    let name = format!("n{}", id.0).into();
    item(&Machine::blank(id), 10, vec![Entry::Registered { name }])
}

fn changed(key: &str, change: Change) -> Entry {
    Entry::Changed { change, by: "ops".into(), key: key.into() }
}

fn enroll(key: &str) -> Entry {
    changed(key, Change::Enroll { allow_existing_data: false, desired: Desired::InService })
}

fn began() -> Entry {
    Entry::RunBegan { workflow: "f00d".into(), reason: "enrolled".into() }
}

async fn commit(store: &SqliteStore, items: &[CommitItem]) -> Vec<Committed> {
    store.commit(items, EngineTime(1_000), 1_700_000_000_000).await.unwrap()
}

/// `n` registered machines.
async fn site(store: &SqliteStore, n: u32) -> Vec<Machine> {
    let lines: Vec<Expected> = (1..=n).map(expected).collect();
    let ids = store.expect(&lines).await.unwrap();
    let items: Vec<CommitItem> = ids.into_iter().map(registered).collect();
    assert!(commit(store, &items).await.iter().all(|c| *c == Committed::Durable));
    store.keep_workflow("f00d", "{\"name\":\"w\"}").await.unwrap();
    items.into_iter().map(|i| i.row).collect()
}

async fn findings(path: &Path) -> Vec<String> {
    fsck(path).await.unwrap().findings
}

#[tokio::test]
async fn what_was_committed_is_loaded_and_the_site_keeps_its_name() {
    let p = place();
    let store = p.open().await;
    let incarnation = store.load().await.unwrap().state.incarnation;
    assert_eq!(incarnation.len(), 8);
    assert!(incarnation.bytes().all(|b| b.is_ascii_hexdigit()));
    let rows = site(&store, 3).await;
    store.keep_workflow("f00d", "{\"name\":\"other\"}").await.unwrap();
    let fault = Fault::new(FaultClass::Transient, Channel::Bmc, "x", "said \"no\" in \\ é\u{1}")
        .evidence("a\nb");
    let entries = vec![
        enroll("k1"),
        began(),
        Entry::StepBegan { index: 0, key: "identify".into() },
        Entry::Intent {
            action: Action::Power { op: PowerOp::On },
            expect: Expect::default(),
            baseline: Baseline::default(),
            holds: None,
        },
        Entry::Settled { outcome: Outcome::Failed { fault: fault.clone() } },
        // Numbers that a float would round.
        Entry::Intent {
            action: Action::Power { op: PowerOp::On },
            expect: Expect::default(),
            baseline: Baseline::default(),
            holds: Some(LimitClass::Power),
        },
        Entry::Progressed { digest: u64::MAX - 1 },
        Entry::Faulted { fault, charged: true, not_before: EngineTime(u64::MAX - 7) },
    ];
    let one = item(&rows[0], 900, entries.clone());
    let row = one.row.clone();
    commit(&store, &[one]).await;
    let stop = Stopped { by: "ops".into(), why: "drill".into(), at: EngineTime(1_500) };
    store.set_stopped(Some(&stop), EngineTime(1_500)).await.unwrap();
    store.close().await;

    let store = p.open().await;
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.state.incarnation, incarnation);
    assert_eq!(loaded.state.engine_time, EngineTime(1_500));
    assert_eq!(loaded.state.wall_ms, 1_700_000_000_000);
    assert_eq!(loaded.state.stopped, Some(stop));
    assert_eq!(loaded.machines, [row, rows[1].clone(), rows[2].clone()]);
    let lines: Vec<Expected> = loaded.expected.values().map(|e| (**e).clone()).collect();
    assert_eq!(lines, [expected(1), expected(2), expected(3)]);
    assert_eq!(loaded.workflows["f00d"], "{\"name\":\"w\"}");
    let history = store.history(rows[0].id, 1, 100).await.unwrap();
    let read: Vec<Entry> = history.iter().map(|l| l.entry.clone()).collect();
    assert_eq!(read, entries);
    assert_eq!(history[0].seq, 2);
    assert_eq!(history[0].at, EngineTime(900));
    assert_eq!(history[0].wall_ms, 1_700_000_000_000);
    let few = store.history(rows[0].id, 2, 2).await.unwrap();
    assert_eq!(few.iter().map(|l| l.seq).collect::<Vec<_>>(), [3, 4]);
    store.set_stopped(None, EngineTime(2_000)).await.unwrap();
    let state = store.load().await.unwrap().state;
    assert_eq!((state.stopped, state.resumed_at), (None, EngineTime(2_000)));
    assert_eq!(findings(&p.path).await, Vec::<String>::new());
}

#[tokio::test]
async fn one_loser_does_not_roll_back_the_others() {
    let p = place();
    let store = p.open().await;
    let rows = site(&store, 4).await;
    commit(&store, &[item(&rows[0], 20, vec![enroll("k")])]).await;
    let stale = item(&rows[0], 30, vec![enroll("k2")]);
    let fine = item(&rows[1], 30, vec![enroll("k"), began()]);
    // A repeated key, not in the first place.
    let (one, two) = (enroll("m"), changed("m2", Change::Hold { why: "x".into() }));
    let third = item(&rows[2], 30, vec![one.clone(), two.clone()]);
    commit(&store, std::slice::from_ref(&third)).await;
    let again = item(&third.row, 31, vec![began(), two]);
    let last = item(&rows[3], 30, vec![one]);
    let each = commit(&store, &[stale, fine.clone(), again, last.clone()]).await;
    assert_eq!(
        each,
        [
            Committed::Conflict { stored_seq: 2 },
            Committed::Durable,
            Committed::Repeated { key: "m2".into() },
            Committed::Durable,
        ]
    );
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.machines[1], fine.row);
    assert_eq!(loaded.machines[2], third.row, "nothing of a repeated item is applied");
    assert_eq!(loaded.machines[3], last.row);
    assert_eq!(store.history(rows[2].id, 0, 10).await.unwrap().len(), 3);
    // The loser's own key was not used up.
    let row = loaded.machines[0].clone();
    assert_eq!(commit(&store, &[item(&row, 40, vec![enroll("k2")])]).await, [Committed::Durable]);
    // A machine that was never registered conflicts as well.
    let ghost = Machine { seq: 7, ..Machine::blank(MachineId(99)) };
    assert_eq!(
        commit(&store, &[item(&ghost, 40, vec![enroll("g")])]).await,
        [Committed::Conflict { stored_seq: 0 }]
    );
    assert_eq!(findings(&p.path).await, Vec::<String>::new(), "seq stays dense");
}

#[tokio::test]
async fn two_items_of_one_machine_in_a_batch_follow_each_other() {
    let p = place();
    let store = p.open().await;
    let rows = site(&store, 2).await;
    let a = item(&rows[0], 20, vec![enroll("a")]);
    let b = item(&a.row, 21, vec![changed("a", Change::Hold { why: "x".into() })]);
    let c = item(&a.row, 22, vec![changed("c", Change::Hold { why: "x".into() })]);
    let other = item(&rows[1], 20, vec![enroll("a")]);
    let each = commit(&store, &[a, other, b, c.clone()]).await;
    let repeated = Committed::Repeated { key: "a".into() };
    assert_eq!(each, [Committed::Durable, Committed::Durable, repeated, Committed::Durable]);
    assert_eq!(store.load().await.unwrap().machines[0], c.row);
    assert_eq!(findings(&p.path).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_name_keeps_its_id() {
    let p = place();
    let store = p.open().await;
    let first = store.expect(&[expected(1), expected(2)]).await.unwrap();
    assert_ne!(first[0], first[1]);
    let mut moved = expected(1);
    moved.rack = "r9".into();
    let second = store.expect(&[expected(3), moved.clone(), expected(2)]).await.unwrap();
    assert_eq!(second[1..], first);
    assert!(!first.contains(&second[0]));
    let loaded = store.load().await.unwrap();
    assert_eq!(*loaded.expected[&first[0]], moved);
    assert_eq!(loaded.expected.len(), 3);
    assert!(loaded.machines.is_empty(), "a row is made by its first commit only");
}

#[tokio::test]
async fn kept_facts_are_the_last_that_were_seen_of_each_part() {
    let p = place();
    let store = p.open().await;
    let rows = site(&store, 2).await;
    assert_eq!(store.facts(rows[0].id).await.unwrap(), None);
    let system = |power| Read::Seen(SystemFacts { power, ..SystemFacts::default() });
    let silent = || Fault::no_answer(Channel::Bmc, "nothing");
    let inventory = Read::Seen(InventoryFacts { memory_mib: Some(1), ..Default::default() });
    let mut m = rows[0].clone();
    let reports = [
        Report {
            at: EngineTime(100),
            system: system(Power::On),
            inventory: inventory.clone(),
            host: Read::Failed(silent()),
            ..Report::default()
        },
        Report { at: EngineTime(200), system: system(Power::Off), ..Report::default() },
        // What can't be read now was seen before.
        Report {
            at: EngineTime(300),
            system: Read::Failed(silent()),
            inventory: Read::Failed(silent()),
            tasks: Read::Seen(vec![]),
            ..Report::default()
        },
    ];
    for (n, report) in reports.into_iter().enumerate() {
        let mut next = item(&m, report.at.0, vec![Entry::Waits { what: format!("{n}") }]);
        next.facts = Some(Box::new(report));
        m = next.row.clone();
        commit(&store, &[next]).await;
    }
    let kept = store.facts(rows[0].id).await.unwrap().unwrap();
    assert_eq!(kept.at, EngineTime(300));
    assert_eq!(kept.system, system(Power::Off));
    assert_eq!(kept.inventory, inventory);
    assert_eq!(kept.host, Read::Failed(silent()), "never seen: why not");
    assert_eq!(kept.tasks, Read::Seen(vec![]));
    assert_eq!(kept.cluster, Read::NotAsked);
    assert_eq!(store.facts(rows[1].id).await.unwrap(), None);
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_nothing() {
    let p = place();
    let store = p.open().await;
    let rows = site(&store, 1).await;
    let items = [item(&rows[0], 20, vec![enroll("k")])];
    {
        let asked = store.commit(&items, EngineTime(1), 1);
        tokio::pin!(asked);
        assert!(futures_util::poll!(asked.as_mut()).is_pending());
    }
    // The writer takes orders in order: when this one is done, so is that.
    store.keep_workflow("h", "{}").await.unwrap();
    assert_eq!(store.load().await.unwrap().machines[0], items[0].row);
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_told_who_has_it() {
    let p = place();
    let store = p.open().await;
    let why = p.refused().await;
    assert!(why.contains(&format!("pid {}", std::process::id())), "{why}");
    store.close().await;
    p.open().await.close().await;
    // A lock file that nobody holds is no lock.
    std::fs::write(p.beside(".lock"), "1\n").unwrap();
    p.open().await;
}

#[tokio::test]
async fn an_owner_of_an_earlier_epoch_writes_nothing() {
    let p = place();
    let store = p.open().await;
    let rows = site(&store, 1).await;
    p.sql("UPDATE shard SET epoch = epoch + 1");
    let items = [item(&rows[0], 20, vec![enroll("k")])];
    let e = store.commit(&items, EngineTime(1), 1).await.unwrap_err();
    assert!(matches!(&e, StoreError::Unusable(why) if why.contains("taken over")), "{e:?}");
    assert_eq!(store.load().await.unwrap().machines, rows);
}

#[tokio::test]
async fn foreign_newer_and_broken_files_are_refused_and_left_alone() {
    let p = place();
    let text = "this is somebody's letter, and it is longer than sixteen bytes\n";
    std::fs::write(&p.path, text).unwrap();
    let why = p.refused().await;
    assert!(why.contains("not a database"), "{why}");
    assert_eq!(std::fs::read_to_string(&p.path).unwrap(), text);

    let p = place();
    p.sql("CREATE TABLE songs (title)");
    let why = p.refused().await;
    assert!(why.contains("another program"), "{why}");

    let p = place();
    p.open().await.close().await;
    p.sql("PRAGMA user_version = 40");
    let before = std::fs::read(&p.path).unwrap();
    let why = p.refused().await;
    assert!(why.contains("newer Farrier (format 40"), "{why}");
    assert_eq!(std::fs::read(&p.path).unwrap(), before);
    let why = fsck(&p.path).await.unwrap_err().to_string();
    assert!(why.contains("newer"), "{why}");

    let p = place();
    let why = fsck(&p.path).await.unwrap_err().to_string();
    assert!(why.contains("there is no"), "{why}");
    let p = Place { path: p.path.join("no/such/dir.db"), ..p };
    let why = p.refused().await;
    assert!(why.contains("directory must exist"), "{why}");
}

#[tokio::test]
async fn a_damaged_file_is_said_to_be_damaged() {
    let p = place();
    let store = p.open().await;
    site(&store, 200).await;
    store.close().await;
    let whole = std::fs::read(&p.path).unwrap();
    // Every page behind the first: the file opens, what it holds is gone.
    let mut torn = whole.clone();
    for byte in &mut torn[4096..] {
        *byte = 0x5a;
    }
    std::fs::write(&p.path, &torn).unwrap();
    let why = match SqliteStore::open(&p.path, Settings::default()).await {
        Err(e) => e.to_string(),
        Ok(store) => store.load().await.unwrap_err().to_string(),
    };
    assert!(why.contains("damaged") && why.contains("backup"), "{why}");
    // One bit in the middle of a row: fsck finds what the daemon would not.
    let p = place();
    let mut bent = whole;
    let at = bent.windows(9).rposition(|w| w == b"\"control\"").unwrap();
    bent[at + 2] ^= 1;
    std::fs::write(&p.path, &bent).unwrap();
    let found = findings(&p.path).await;
    assert!(!found.is_empty());
}

#[tokio::test]
async fn a_locked_file_is_not_written_and_written_later() {
    let p = place();
    let settings = Settings { busy_ms: 50, ..Settings::default() };
    let store = SqliteStore::open(&p.path, settings).await.unwrap();
    let rows = site(&store, 1).await;
    let items = [item(&rows[0], 20, vec![enroll("k")])];
    let shell = rusqlite::Connection::open(&p.path).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let e = store.commit(&items, EngineTime(1), 1).await.unwrap_err();
    assert!(matches!(&e, StoreError::NotWritten(why) if why.contains("locked")), "{e:?}");
    let e = store.expect(&[expected(7)]).await.unwrap_err();
    assert!(matches!(e, StoreError::NotWritten(_)), "{e:?}");
    assert_eq!(store.load().await.unwrap().machines, rows, "reads go on");
    shell.execute_batch("ROLLBACK").unwrap();
    assert_eq!(commit(&store, &items).await, [Committed::Durable]);
}

/// Commits until the disk is full; returns the row as it stood then, and the item that failed.
async fn fill(store: &SqliteStore, mut m: Machine) -> (Machine, CommitItem) {
    for n in 0..10_000 {
        let next = item(&m, 100 + n, vec![Entry::Waits { what: "x".repeat(4_000) }]);
        let batch = std::slice::from_ref(&next);
        match store.commit(batch, EngineTime(100 + n), 1).await {
            Ok(each) => assert_eq!(each, [Committed::Durable]),
            Err(e) => {
                assert!(matches!(&e, StoreError::Full(why) if why.contains("room")), "{e:?}");
                return (m, next);
            }
        }
        m = next.row;
    }
    panic!("the disk never filled up");
}

#[tokio::test]
async fn a_full_database_loses_nothing() {
    let p = place();
    let settings = Settings { max_pages: Some(100), ..Settings::default() };
    let store = SqliteStore::open(&p.path, settings).await.unwrap();
    let rows = site(&store, 1).await;
    let (row, failed) = fill(&store, rows[0].clone()).await;
    assert_eq!(store.load().await.unwrap().machines, [row]);
    store.close().await;
    assert_eq!(findings(&p.path).await, Vec::<String>::new());
    let store = p.open().await;
    assert_eq!(commit(&store, &[failed]).await, [Committed::Durable]);
}

/// A small file system of its own; `None`, said aloud, where mounting is not allowed.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(options: &str) -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(out) if out.status.success() => Some(Mount(dir)),
            other => {
                println!("skipped: no mount here ({other:?})");
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let status = std::process::Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.0.path())
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_goes_on_when_there_is_room() {
    let Some(mount) = Mount::new("size=2m") else { return };
    let path = mount.0.path().join("state.db");
    let store = SqliteStore::open(&path, Settings::default()).await.unwrap();
    let rows = site(&store, 1).await;
    let (row, failed) = fill(&store, rows[0].clone()).await;
    // Said again and again, as the director does.
    for _ in 0..3 {
        let batch = std::slice::from_ref(&failed);
        let e = store.commit(batch, EngineTime(9), 1).await.unwrap_err();
        assert!(matches!(e, StoreError::Full(_)), "{e:?}");
    }
    assert_eq!(store.load().await.unwrap().machines, [row]);
    mount.remount("size=16m");
    assert_eq!(commit(&store, &[failed]).await, [Committed::Durable]);
    store.close().await;
    assert_eq!(findings(&path).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_file_that_may_not_be_written_is_said_to_be_so() {
    let Some(mount) = Mount::new("size=8m") else { return };
    let path = mount.0.path().join("state.db");
    SqliteStore::open(&path, Settings::default()).await.unwrap().close().await;
    mount.remount("ro");
    let e = SqliteStore::open(&path, Settings::default()).await.unwrap_err();
    assert!(matches!(&e, StoreError::Unusable(why) if why.contains("writable")), "{e:?}");
}

#[tokio::test]
async fn a_backup_is_whole_while_the_daemon_runs() {
    let p = place();
    let store = p.open().await;
    let rows = site(&store, 20).await;
    let copy = p.beside(".backup");
    backup(&p.path, &copy, false).await.unwrap();
    commit(&store, &[item(&rows[0], 20, vec![enroll("k")])]).await;
    let report = fsck(&copy).await.unwrap();
    assert_eq!((report.machines, report.entries, report.found), (20, 20, 0));
    let why = backup(&p.path, &copy, false).await.unwrap_err().to_string();
    assert!(why.contains("there already"), "{why}");
    let restored = SqliteStore::open(&copy, Settings::default()).await.unwrap();
    assert_eq!(restored.load().await.unwrap().machines, rows);
}

#[tokio::test]
async fn fsck_finds_what_was_tampered_with() {
    let p = place();
    let store = p.open().await;
    let rows = site(&store, 2).await;
    let entries = vec![
        enroll("k"),
        began(),
        Entry::StepBegan { index: 0, key: "on".into() },
        Entry::Intent {
            action: Action::Power { op: PowerOp::On },
            expect: Expect::default(),
            baseline: Baseline::default(),
            holds: None,
        },
    ];
    commit(&store, &[item(&rows[0], 50, entries)]).await;
    store.close().await;
    let report = fsck(&p.path).await.unwrap();
    assert_eq!((report.machines, report.entries, report.open_actions), (2, 6, 1));
    assert!(report.is_clean(), "{:?}", report.findings);
    let good = std::fs::read(&p.path).unwrap();
    let cases = [
        ("UPDATE machine SET json = json_set(json, '$.stage', 'drain') WHERE id = 1", "`stage`"),
        ("UPDATE machine SET stage = 'drain' WHERE id = 1", "columns differ"),
        ("DELETE FROM journal WHERE machine_seq = 3", "some are missing"),
        ("DELETE FROM journal WHERE machine_seq = 5", "its counter says 6"),
        ("DELETE FROM machine WHERE id = 2", "no row"),
        ("DELETE FROM expected WHERE id = 2", "no inventory"),
        ("DELETE FROM workflow", "pinned to a workflow"),
        ("DELETE FROM change_key", "key was not kept"),
        ("INSERT INTO change_key VALUES (1, 'other')", "not in the journal"),
        ("UPDATE site_state SET engine_time = 1", "is behind"),
        ("UPDATE journal SET run = NULL WHERE machine_seq = 4", "wrong run"),
        ("UPDATE journal SET version = 9 WHERE machine_seq = 4", "of version 9"),
        ("UPDATE journal SET entry = 'back' WHERE machine_seq = 4", "its column says `back`"),
        (
            "UPDATE journal SET json = '{\"entry\":\"entered\",\"stage\":\"drain\"}',
             entry = 'entered' WHERE machine_seq = 4",
            "no edge discover → drain",
        ),
        (
            "UPDATE machine SET json = json_set(json, '$.open.seq', 4) WHERE id = 1",
            "not the journal's last intent",
        ),
    ];
    for (sql, expected) in cases {
        p.sql(sql);
        let found = findings(&p.path).await;
        assert!(found.iter().any(|f| f.contains(expected)), "{sql}: {found:?}");
        std::fs::write(&p.path, &good).unwrap();
    }
}

/// Every byte that the database has on disk.
fn bytes(p: &Place) -> Vec<u8> {
    let mut all = std::fs::read(&p.path).unwrap();
    all.extend(std::fs::read(p.beside("-wal")).unwrap_or_default());
    all
}

fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle.as_bytes())
}

#[tokio::test]
async fn secrets_are_sealed_and_need_their_key() {
    let p = place();
    let key_path = p.beside(".key");
    let store = p.open().await;
    let locked = store.secrets(None).await.unwrap();
    let canary = "calvin-canary-5e5e";
    let why = locked.set("bmc", "root", &Secret::new(canary)).await.unwrap_err().to_string();
    assert!(why.contains("key_file"), "{why}");

    assert!(Key::read(&KeyFrom::File(key_path.clone())).unwrap().is_none());
    let key = Key::init(&key_path).unwrap();
    let again = Key::init(&key_path).unwrap_err().to_string();
    assert!(again.contains("there already"), "{again}");
    let secrets = store.secrets(Some(key.clone())).await.unwrap();
    secrets.set("bmc", "root", &Secret::new("old")).await.unwrap();
    secrets.set("bmc", "root", &Secret::new(canary)).await.unwrap();
    secrets.set("ipmi", "admin", &Secret::new(canary)).await.unwrap();
    let (user, value) = secrets.get("bmc").unwrap().unwrap();
    assert_eq!((user.as_str(), value.expose()), ("root", canary));
    assert!(secrets.get("nope").unwrap().is_none());
    let names: Vec<String> = secrets.list().await.unwrap().into_iter().map(|l| l.name).collect();
    assert_eq!(names, ["bmc", "ipmi"]);
    let key_text = std::fs::read_to_string(&key_path).unwrap();
    assert!(!format!("{secrets:?} {key:?}").contains(canary));
    assert!(!format!("{key:?}").contains(key_text.trim()));
    let on_disk = bytes(&p);
    assert!(holds(&on_disk, "ipmi"), "the search works");
    assert!(!holds(&on_disk, canary));
    assert!(!holds(&on_disk, key_text.trim()));

    // A sealed value counts for its own row and user only; the table is read when a daemon starts.
    for tamper in [
        "UPDATE secret SET user = 'x' WHERE name = 'ipmi'",
        "UPDATE secret SET user = 'admin', sealed = (SELECT sealed FROM secret WHERE name = 'bmc')
         WHERE name = 'ipmi'",
    ] {
        p.sql(tamper);
        let read = store.secrets(Some(key.clone())).await.unwrap();
        let why = read.get("ipmi").unwrap_err().to_string();
        assert!(why.contains("can't be opened"), "{tamper}: {why}");
        assert!(read.get("bmc").unwrap().is_some());
    }
    assert!(secrets.remove("bmc").await.unwrap());
    assert!(!secrets.remove("bmc").await.unwrap());
    secrets.set("ipmi", "admin", &Secret::new(canary)).await.unwrap();
    store.close().await;

    let store = p.open().await;
    let why = store.secrets(None).await.unwrap_err().to_string();
    assert!(why.contains("no key to open them"), "{why}");
    let other = Key::init(&p.beside(".other")).unwrap();
    let why = store.secrets(Some(other)).await.unwrap_err().to_string();
    assert!(why.contains("does not open"), "{why}");
    let key = Key::read(&KeyFrom::File(key_path)).unwrap();
    let secrets = store.secrets(key).await.unwrap();
    assert_eq!(secrets.get("ipmi").unwrap().unwrap().1.expose(), canary);
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let p = place();
    let path = p.beside(".key");
    Key::init(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let from = KeyFrom::File(path.clone());
    for mode in [0o644, 0o640, 0o602] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let why = Key::read(&from).unwrap_err().to_string();
        assert!(why.contains("chmod 600"), "{why}");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    assert!(Key::read(&from).unwrap().is_some());
    let bad = p.beside(".bad");
    std::fs::write(&bad, "abc\n").unwrap();
    std::fs::set_permissions(&bad, std::fs::Permissions::from_mode(0o600)).unwrap();
    let why = Key::read(&KeyFrom::File(bad)).unwrap_err().to_string();
    assert!(why.contains("64 hex digits") && !why.contains("abc"), "{why}");
}

#[tokio::test]
async fn the_vault_looks_into_the_table_first_then_at_references() {
    let p = place();
    let store = p.open().await;
    let key = Key::init(&p.beside(".key")).unwrap();
    let secrets = store.secrets(Some(key)).await.unwrap();
    secrets.set("sealed", "root", &Secret::new("from-table")).await.unwrap();
    secrets.set("ssh", "", &Secret::new("KEY\nLINES\n")).await.unwrap();
    let file = p.beside(".password");
    std::fs::write(&file, "from-file\nsecond line\n").unwrap();
    let ssh = p.beside(".ssh");
    std::fs::write(&ssh, "-----BEGIN\nabc\n").unwrap();
    let exec = |args: &[&str]| From::Exec(args.iter().map(|a| a.to_string()).collect());
    let reference = |from| Reference { user: "admin".into(), from };
    let vault = SiteVault::new(
        secrets,
        References {
            credentials: BTreeMap::from([
                ("sealed".into(), reference(From::File("/nowhere".into()))),
                ("file".into(), reference(From::File(file))),
                ("env".into(), reference(From::Env("PATH".into()))),
                ("exec".into(), reference(exec(&["printf", "from-exec\nmore"]))),
                (
                    "fails".into(),
                    reference(exec(&["sh", "-c", "echo canary; echo canary >&2; exit 3"])),
                ),
                ("empty".into(), reference(exec(&["true"]))),
                ("gone".into(), reference(From::File("/nowhere".into()))),
                ("unset".into(), reference(From::Env("FARRIER_TEST_NOT_SET".into()))),
            ]),
            ssh_keys: BTreeMap::from([("deploy".into(), From::File(ssh))]),
        },
    );
    let mut got = Vec::new();
    for name in ["sealed", "file", "exec"] {
        let c = vault.credential(name).await.unwrap();
        got.push((c.user, c.password.expose().to_string()));
    }
    let want = [("root", "from-table"), ("admin", "from-file"), ("admin", "from-exec")];
    assert_eq!(got, want.map(|(u, p)| (u.to_string(), p.to_string())));
    let path = vault.credential("env").await.unwrap();
    assert_eq!(path.password.expose(), std::env::var("PATH").unwrap());
    assert_eq!(vault.ssh_key("ssh").await.unwrap().expose(), "KEY\nLINES\n");
    assert_eq!(vault.ssh_key("deploy").await.unwrap().expose(), "-----BEGIN\nabc\n");
    for (name, code, says) in [
        ("fails", "unreadable-secret", "exit status: 3"),
        ("empty", "unreadable-secret", "empty"),
        ("gone", "unreadable-secret", "/nowhere"),
        ("unset", "unreadable-secret", "not set"),
        ("nobody", "no-such-secret", "no credential `nobody`"),
    ] {
        let fault = vault.credential(name).await.unwrap_err();
        assert_eq!((fault.class, &*fault.code), (FaultClass::Precondition, code));
        assert!(fault.message.contains(says), "{fault}");
        assert!(!format!("{fault:?}").contains("canary"));
    }
    assert!(vault.ssh_key("nobody").await.is_err());
}
