//! `fsck` beyond the fold: journals that fold to their rows and still show that the engine broke a
//! rule. Each case is written through the store as a faulty engine would, or tampered with after.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests make files and change them"
)]

use farrier::model::action::Baseline;
use farrier::model::*;
use farrier::port::Secret;
use farrier::port::store::*;
use farrier::store::fsck::{FsckReport, Known, fsck, fsck_with};
use farrier::store::{Key, Settings, SqliteStore};
use std::path::PathBuf;

/// A database that holds what a journal says of two machines of one rack.
struct Case {
    dir: tempfile::TempDir,
    store: SqliteStore,
    rows: Vec<Machine>,
}

fn line(n: u32) -> Expected {
    Expected {
        name: format!("n{n}").into(),
        identity: Identity::new(Some(&format!("SN{n:05}")), None, None).into(),
        rack: "r1".into(),
        position: 1,
        pool: "pool".into(),
        profile: "p".into(),
        domains: [Domain { kind: DomainKind::Rack, name: "r1".into() }].into(),
        labels: Default::default(),
        bmc: BmcEndpoint::default(),
        host: HostEndpoint::default(),
    }
}

impl Case {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("state.db"), Settings::default()).await;
        let store = store.unwrap();
        let ids = store.expect(&[line(1), line(2)]).await.unwrap();
        store.keep_workflow("f00d", "{\"name\":\"w\"}").await.unwrap();
        let rows = ids.into_iter().map(Machine::blank).collect();
        let mut case = Self { dir, store, rows };
        for n in 0..2 {
            let name = format!("n{}", n + 1).into();
            case.say(n, 10, vec![Entry::Registered { name }]).await;
        }
        case
    }

    fn db(&self) -> PathBuf {
        self.dir.path().join("state.db")
    }

    async fn say(&mut self, n: usize, at: u64, entries: Vec<Entry>) {
        let at = EngineTime(at);
        let before = &self.rows[n];
        let mut row = before.clone();
        for entry in &entries {
            fold::apply(&mut row, entry, at).unwrap();
        }
        let (machine, after_seq) = (before.id, before.seq);
        let item = CommitItem { machine, after_seq, at, entries, row: row.clone(), facts: None };
        let each = self.store.commit(&[item], at, 1_700_000_000_000).await.unwrap();
        assert_eq!(each, [Committed::Durable]);
        self.rows[n] = row;
    }

    /// A managed machine in the middle of a step.
    async fn enrolled(&mut self, n: usize) {
        let change = Change::Enroll { allow_existing_data: false, desired: Desired::Ready };
        let key = format!("k{n}");
        self.say(n, 20, vec![Entry::Changed { change, by: "ops".into(), key }]).await;
        self.begun(n).await;
    }

    async fn begun(&mut self, n: usize) {
        let run = Entry::RunBegan { workflow: "f00d".into(), reason: "test".into() };
        self.say(n, 30, vec![run, Entry::StepBegan { index: 0, key: "s".into() }]).await;
    }

    fn sql(&self, sql: &str) {
        rusqlite::Connection::open(self.db()).unwrap().execute_batch(sql).unwrap();
    }

    /// Beside the open store, as beside a running daemon.
    async fn fsck(&self) -> FsckReport {
        fsck(&self.db()).await.unwrap()
    }

    async fn finds(&self, what: &str) {
        let found = self.fsck().await.findings;
        assert!(found.iter().any(|f| f.contains(what)), "no `{what}` in {found:?}");
    }
}

fn intent(action: Action) -> Entry {
    let (expect, baseline) = (Expect::default(), Baseline::default());
    Entry::Intent { action, expect, baseline, holds: None }
}

fn update(to: &str) -> Entry {
    intent(Action::UpdateFirmware {
        component: "bmc".into(),
        inventory_id: "BMC".into(),
        from: "7.10".into(),
        to: to.into(),
        file: "f.bin".into(),
        sha256: "00".into(),
    })
}

fn applied() -> Entry {
    Entry::Settled { outcome: Outcome::Applied { handle: None } }
}

fn closed(happened: bool) -> Entry {
    Entry::Closed { happened, why: "seen".into() }
}

#[tokio::test]
async fn an_update_that_took_hold_is_not_begun_again() {
    let mut case = Case::new().await;
    case.enrolled(0).await;
    case.say(0, 40, vec![update("7.20"), applied(), closed(true)]).await;
    case.say(0, 50, vec![update("7.30"), applied(), closed(false)]).await;
    case.say(0, 60, vec![update("7.30"), applied(), closed(true)]).await;
    assert!(case.fsck().await.is_clean(), "another version, and one that did not happen");
    let old = Fault::new(FaultClass::Transient, Channel::Bmc, Fault::VERSION_UNCHANGED, "old");
    let taken_back = Entry::Faulted { fault: old, charged: true, not_before: EngineTime::ZERO };
    case.say(0, 70, vec![taken_back]).await;
    case.say(0, 80, vec![update("7.30"), applied(), closed(true)]).await;
    assert!(case.fsck().await.is_clean(), "the re-read version took it back");
    case.say(0, 90, vec![update("7.30")]).await;
    case.finds("begins `update-firmware` of bmc again").await;
}

#[tokio::test]
async fn a_job_has_a_name_of_its_own() {
    let mut case = Case::new().await;
    case.enrolled(0).await;
    let wipe = |name: &str| {
        intent(Action::StartJob { script: JobScript::Wipe, name: name.into(), timeout_ms: 1 })
    };
    case.say(0, 40, vec![wipe("wipe-1"), applied(), closed(false), wipe("wipe-2")]).await;
    assert!(case.fsck().await.is_clean());
    case.say(0, 50, vec![applied(), closed(false), wipe("wipe-1")]).await;
    case.finds("starts the job `wipe-1` again").await;
}

#[tokio::test]
async fn nothing_destructive_begins_on_an_unmanaged_machine() {
    let mut case = Case::new().await;
    case.begun(0).await;
    case.say(0, 40, vec![intent(Action::Power { op: PowerOp::ForceOff }), closed(true)]).await;
    case.finds("begins `power-off` on an unmanaged machine").await;
}

#[tokio::test]
async fn nothing_begins_after_a_stop() {
    let mut case = Case::new().await;
    case.enrolled(0).await;
    case.say(0, 40, vec![intent(Action::BmcReset { controller: None }), closed(true)]).await;
    let stopped = |at| Stopped { by: "ann".into(), why: "smoke".into(), at: EngineTime(at) };
    case.store.set_stopped(Some(&stopped(40)), EngineTime(40)).await.unwrap();
    assert!(case.fsck().await.is_clean(), "what was asked for before the stop");
    case.store.set_stopped(Some(&stopped(39)), EngineTime(40)).await.unwrap();
    case.finds("begins an action after the stop by ann").await;
}

#[tokio::test]
async fn time_and_owners_only_go_on() {
    let mut case = Case::new().await;
    case.enrolled(0).await;
    case.say(0, 40, vec![Entry::Waits { what: "rain".into() }]).await;
    case.say(0, 50, vec![Entry::Waits { what: "sun".into() }]).await;
    assert!(case.fsck().await.is_clean());
    case.sql("UPDATE journal SET at = 45 WHERE at = 40; UPDATE journal SET at = 44 WHERE at = 50");
    case.finds("is of 44 ms, the one before of 45 ms").await;
    case.sql("UPDATE journal SET epoch = 2 WHERE seq < 3; UPDATE shard SET epoch = 2");
    case.finds("two daemons wrote this database").await;
}

#[tokio::test]
async fn no_secret_stands_in_the_clear() {
    let mut case = Case::new().await;
    let value = "correct-\"horse\"-battery";
    case.enrolled(0).await;
    case.say(0, 40, vec![Entry::Waits { what: "a horse".into() }]).await;
    let key = Key::init(&case.dir.path().join("key")).unwrap();
    let sealed = case.store.secrets(Some(key.clone())).await.unwrap();
    sealed.set("bmc", "root", &Secret::new(value)).await.unwrap();
    let short = ("pin".to_string(), Secret::new("n1"));
    let told =
        Known { secrets: vec![("pw".into(), Secret::new(value)), short], ..Known::default() };
    let opened = Known { key: Some(key), ..Known::default() };
    for known in [&told, &opened] {
        let report = fsck_with(&case.db(), known).await.unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
    }
    case.say(0, 50, vec![Entry::Waits { what: format!("401 for root:{value}") }]).await;
    for (known, name) in [(&told, "pw"), (&opened, "bmc")] {
        let report = fsck_with(&case.db(), known).await.unwrap();
        // In the journal and in the row that it folds to.
        assert_eq!(report.found, 2, "{:?}", report.findings);
        for finding in &report.findings {
            assert!(finding.contains(&format!("the secret `{name}` in the clear")), "{finding}");
            assert!(!finding.contains("battery"), "{finding}");
        }
    }
}

#[tokio::test]
async fn who_holds_more_than_the_limit_is_told_as_a_note() {
    let mut case = Case::new().await;
    for n in 0..2 {
        case.enrolled(n).await;
        case.say(n, 40, vec![intent(Action::Power { op: PowerOp::On })]).await;
    }
    let limit = |max| Limit { class: LimitClass::Power, per: DomainKind::Rack, max };
    let with = |max| Known { limits: vec![limit(max)], ..Known::default() };
    let report = fsck_with(&case.db(), &with(2)).await.unwrap();
    assert!(report.is_clean() && report.notes.is_empty(), "{report:?}");
    let report = fsck_with(&case.db(), &with(1)).await.unwrap();
    assert!(report.is_clean(), "a lowered limit is no damage");
    assert!(report.notes[0].contains("2 machines of rack `r1` hold power, the limit is 1"));
}
