//! Backup and restore from outside: what counts as a copy, what a restore makes of it, and what is
//! refused with everything left in its place.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests make files, damage them, and run the binary"
)]

use farrier::model::action::Baseline;
use farrier::model::*;
use farrier::port::store::*;
use farrier::store::backup::{Restoration, backup, examine, restore};
use farrier::store::fsck::fsck;
use farrier::store::{Settings, SqliteStore};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const WALL: u64 = 1_700_000_000_000;

/// A process that another test begins holds our last lock until it is another program.
async fn when_free<T>(mut attempt: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    let own = format!("another Farrier (pid {})", std::process::id());
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(e) => assert!(e.to_string().contains(&own) && Instant::now() < deadline, "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Place {
    dir: tempfile::TempDir,
    db: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    Place { dir, db }
}

impl Place {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn open(&self) -> SqliteStore {
        when_free(async || SqliteStore::open(&self.db, Settings::default()).await).await
    }

    /// [`Place::restore`] once the store was closed.
    async fn restore_when_free(&self, from: &Path) -> Restoration {
        when_free(async || self.restore(from).await).await
    }

    /// As `farrier restore` does it, an hour after the last commit.
    async fn restore(&self, from: &Path) -> Result<Restoration, StoreError> {
        let resume = |stored: EngineTime, wall: u64| stored + (WALL + 3_600_000 - wall);
        restore(from, &self.db, &resume, WALL + 3_600_000, "then").await
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn sql(path: &Path, text: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(text).unwrap();
}

fn number(path: &Path, text: &str) -> i64 {
    rusqlite::Connection::open(path).unwrap().query_row(text, [], |r| r.get(0)).unwrap()
}

fn expected(n: u32) -> Expected {
    Expected {
        name: format!("n{n}").into(),
        identity: Identity::new(Some(&format!("SN{n:05}")), None, None).into(),
        rack: "r1".into(),
        position: 1,
        pool: "pool".into(),
        profile: "p".into(),
        domains: [].into(),
        labels: Default::default(),
        bmc: BmcEndpoint::default(),
        host: HostEndpoint::default(),
    }
}

fn item(before: &Machine, at: u64, entries: Vec<Entry>) -> CommitItem {
    let mut row = before.clone();
    let at = EngineTime(at);
    for entry in &entries {
        fold::apply(&mut row, entry, at).unwrap();
    }
    CommitItem { machine: before.id, after_seq: before.seq, at, entries, row, facts: None }
}

async fn commit(store: &SqliteStore, items: Vec<CommitItem>) -> Vec<Machine> {
    let said = store.commit(&items, EngineTime(1_000), WALL).await.unwrap();
    assert!(said.iter().all(|c| *c == Committed::Durable), "{said:?}");
    items.into_iter().map(|i| i.row).collect()
}

fn changed(key: &str, change: Change) -> Entry {
    Entry::Changed { change, by: "ops".into(), key: key.into() }
}

fn enroll(key: &str) -> Entry {
    changed(key, Change::Enroll { allow_existing_data: false, desired: Desired::InService })
}

/// Twelve machines: 1 with an update that the BMC took, 2 held by a person, the others as new.
async fn fleet(store: &SqliteStore) -> Vec<Machine> {
    let lines: Vec<Expected> = (1..=12).map(expected).collect();
    let ids = store.expect(&lines).await.unwrap();
    store.keep_workflow("f00d", "{\"name\":\"w\"}").await.unwrap();
    let begin = ids.iter().map(|id| {
        let name = format!("n{}", id.0).into();
        item(&Machine::blank(*id), 10, vec![Entry::Registered { name }])
    });
    let mut rows = commit(store, begin.collect()).await;
    let action = Action::UpdateFirmware {
        component: "bmc".into(),
        inventory_id: "BMC".into(),
        from: "1".into(),
        to: "2".into(),
        file: "f".into(),
        sha256: "00".into(),
    };
    let (expect, baseline) = (Expect::default(), Baseline::default());
    let open = vec![
        enroll("k1"),
        Entry::RunBegan { workflow: "f00d".into(), reason: "enrolled".into() },
        Entry::StepBegan { index: 0, key: "fw".into() },
        Entry::Intent { action, expect, baseline, holds: None },
        Entry::Settled { outcome: Outcome::Applied { handle: Some("/t/1".into()) } },
    ];
    let hold = changed("k2", Change::Hold { why: "fans".into() });
    let next = vec![item(&rows[0], 900, open), item(&rows[1], 900, vec![hold])];
    for row in commit(store, next).await {
        let at = row.id.0 as usize - 1;
        rows[at] = row;
    }
    rows
}

#[tokio::test]
async fn a_copy_counts_once_it_was_checked_and_replaces_nothing_unasked() {
    let p = place();
    let store = p.open().await;
    fleet(&store).await;
    let copy = p.file("copy.db");
    let said = backup(&p.db, &copy, false).await.unwrap();
    assert_eq!((said.machines, said.entries, said.open_actions), (12, 18, 1));
    assert_eq!((said.wall_ms, said.bytes > 0), (WALL, true));
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&copy).unwrap();
    let why = backup(&p.db, &copy, false).await.unwrap_err().to_string();
    assert!(why.contains("there already") && why.contains("--replace"), "{why}");
    assert_eq!(std::fs::read(&copy).unwrap(), before);
    backup(&p.db, &copy, true).await.unwrap();

    // Another name of the database itself is not a place for its copy.
    let same = p.file("same.db");
    std::fs::hard_link(&p.db, &same).unwrap();
    let why = backup(&p.db, &same, true).await.unwrap_err().to_string();
    assert!(why.contains("the database itself"), "{why}");
    std::fs::remove_file(&same).unwrap();

    // A damaged database gives no copy, and the old one stays.
    store.close().await;
    sql(&p.db, "UPDATE machine SET stage = 'drain' WHERE id = 3");
    let before = std::fs::read(&copy).unwrap();
    let why = backup(&p.db, &copy, true).await.unwrap_err().to_string();
    assert!(why.contains("not whole") && why.contains("columns differ"), "{why}");
    assert_eq!(std::fs::read(&copy).unwrap(), before);
    assert!(!p.names().iter().any(|n| n.ends_with(".part")), "{:?}", p.names());
}

#[tokio::test]
async fn a_restore_is_another_incarnation_with_every_machine_held() {
    let p = place();
    let store = p.open().await;
    let rows = fleet(&store).await;
    let was = store.load().await.unwrap().state.incarnation;
    let copy = p.file("copy.db");
    backup(&p.db, &copy, false).await.unwrap();
    // The hour that is lost.
    commit(&store, vec![item(&rows[4], 950, vec![enroll("lost")])]).await;
    store.close().await;
    let epoch = number(&p.db, "SELECT epoch FROM shard");

    let done = p.restore_when_free(&copy).await;
    assert_eq!((done.from.machines, done.from.open_actions), (12, 1));
    assert_eq!(done.from.incarnation, *was);
    let found = fsck(&p.db).await.unwrap();
    assert_eq!((found.machines, found.entries, found.findings), (12, 30, vec![]));
    assert!(number(&p.db, "SELECT epoch FROM shard") > epoch, "an older owner writes nothing");

    let store = p.open().await;
    let loaded = store.load().await.unwrap();
    assert_eq!(*loaded.state.incarnation, *done.incarnation);
    assert_ne!(loaded.state.incarnation, was);
    assert_eq!(loaded.state.engine_time, EngineTime(1_000 + 3_600_000), "the hour has passed");
    for m in &loaded.machines {
        let by = if m.id.0 == 2 { "ops" } else { fold::RESTORE };
        assert_eq!(m.hold.as_ref().map(|h| &*h.by), Some(by), "{}", m.name);
        assert!(m.restored.is_some());
    }
    let m = &loaded.machines[0];
    let open = m.open.as_ref().unwrap();
    assert_eq!((open.state, open.handle.as_deref()), (OpenState::Unknown, Some("/t/1")));
    assert_eq!(m.run_name(&done.incarnation), rows[0].run_name(&was), "found by the same name");
    assert_eq!(loaded.machines[4].control, Control::Unmanaged, "what was lost is lost");

    // What was there is kept whole.
    let aside = done.aside.unwrap();
    assert!(aside.ends_with("state.db.aside-then"));
    assert!(fsck(&aside).await.unwrap().is_clean());
    assert_eq!(number(&aside, "SELECT count(*) FROM change_key WHERE key = 'lost'"), 1);
    // The lost key may be used again: what it said is not known here.
    commit(&store, vec![item(&loaded.machines[4], 5_000_000, vec![enroll("lost")])]).await;
}

#[tokio::test]
async fn what_a_kill_left_in_the_log_is_kept_aside_too() {
    let p = place();
    let store = p.open().await;
    let rows = fleet(&store).await;
    let copy = p.file("copy.db");
    backup(&p.db, &copy, false).await.unwrap();
    commit(&store, vec![item(&rows[4], 950, vec![enroll("lost")])]).await;
    // As a kill leaves it: the file and its log, and nobody at work.
    let other = place();
    for suffix in ["", "-wal"] {
        let from = format!("{}{suffix}", p.db.display());
        std::fs::copy(from, format!("{}{suffix}", other.db.display())).unwrap();
    }
    assert!(std::fs::metadata(other.file("state.db-wal")).unwrap().len() > 0);
    let aside = other.restore(&copy).await.unwrap().aside.unwrap();
    assert_eq!(number(&aside, "SELECT count(*) FROM change_key WHERE key = 'lost'"), 1);
    assert_eq!(number(&other.db, "SELECT count(*) FROM change_key WHERE key = 'lost'"), 0);
    assert!(fsck(&other.db).await.unwrap().is_clean());
    assert!(!other.names().iter().any(|n| n.contains("restoring")), "{:?}", other.names());
}

#[tokio::test]
async fn what_can_not_be_restored_leaves_everything_in_its_place() {
    let p = place();
    let store = p.open().await;
    fleet(&store).await;
    let good = p.file("good.db");
    backup(&p.db, &good, false).await.unwrap();

    let why = p.restore(&good).await.unwrap_err().to_string();
    assert!(why.contains("stop it first"), "{why}");
    store.close().await;

    let newer = p.file("newer.db");
    std::fs::copy(&good, &newer).unwrap();
    sql(&newer, "PRAGMA user_version = 99");
    let damaged = p.file("damaged.db");
    std::fs::copy(&good, &damaged).unwrap();
    sql(&damaged, "DELETE FROM journal WHERE machine_seq = 2");
    let text = p.file("notes.txt");
    std::fs::write(&text, "not a database").unwrap();
    let foreign = p.file("foreign.db");
    sql(&foreign, "CREATE TABLE a (x)");
    let (before, names) = (std::fs::read(&p.db).unwrap(), p.names());
    for (file, word) in [
        (&newer, "newer Farrier"),
        (&damaged, "not whole"),
        (&text, "not a backup"),
        (&foreign, "another program"),
        (&p.file("none.db"), "can't read the backup"),
        (&p.db.clone(), "the database itself"),
    ] {
        if *file != p.db {
            let why = examine(file).await.unwrap_err().to_string();
            assert!(why.contains(word), "{why}");
        }
        let why = p.restore(file).await.unwrap_err().to_string();
        assert!(why.contains(word), "{why}");
        assert_eq!(std::fs::read(&p.db).unwrap(), before, "{word}");
        assert_eq!(p.names(), names, "{word}");
    }
    let seen = examine(&good).await.unwrap();
    assert_eq!((seen.machines, p.names()), (12, names), "looking changes nothing");
}

#[tokio::test]
async fn a_restore_needs_no_database_in_its_place() {
    let p = place();
    let store = p.open().await;
    fleet(&store).await;
    let copy = p.file("copy.db");
    backup(&p.db, &copy, false).await.unwrap();
    store.close().await;
    std::fs::remove_file(&p.db).unwrap();
    // A log of the file that is gone must not meet the new one.
    std::fs::write(p.file("state.db-wal"), "left over").unwrap();
    assert_eq!(p.restore_when_free(&copy).await.aside, None);
    assert!(fsck(&p.db).await.unwrap().is_clean());
    let store = p.open().await;
    assert_eq!(store.load().await.unwrap().machines.len(), 12);
}

fn farrier(words: &[&str], files: &[&Path]) -> (Option<i32>, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_farrier")).args(words).args(files).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

#[tokio::test]
async fn the_commands_say_what_they_did() {
    let p = place();
    let store = p.open().await;
    fleet(&store).await;
    let copy = p.file("copy.db");
    let (code, out, err) = farrier(&["backup", "--db"], &[&p.db, &copy]);
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    assert!(out.contains("12 machines") && out.contains("key of its secrets"), "{out}");
    let (code, _, err) = farrier(&["backup", "--db"], &[&p.db, &copy]);
    assert!(code == Some(1) && err.contains("there already"), "{err}");

    let (code, out, _) = farrier(&["restore", "--dry-run", "--db"], &[&p.db, &copy]);
    assert!(code == Some(0) && out.contains("nothing was changed"), "{out}");
    let (code, _, err) = farrier(&["restore", "--db"], &[&p.db, &copy]);
    assert!(code == Some(1) && err.contains("hint: `farrier restore` needs"), "{err}");
    store.close().await;
    let (code, out, err) = farrier(&["--json", "restore", "--db"], &[&p.db, &copy]);
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&said["machines"], &said["open_actions"]), (&12.into(), &1.into()));
    assert_ne!(said["now_incarnation"], said["incarnation"]);
    assert!(Path::new(said["aside"].as_str().unwrap()).is_file());
}
