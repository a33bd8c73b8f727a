//! Webhooks: what is durable is told, in order, at least once, signed; and a dead hook waits alone.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests listen on sockets and wait for what must come"
)]

use async_trait::async_trait;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use farrier::model::*;
use farrier::notify::{Hook, Notifier, verify};
use farrier::port::outbox::*;
use farrier::port::store::*;
use farrier::port::{Credential, Secret, Vault};
use farrier::store::{Settings, SqliteStore};
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

const KEY: &str = "a-key-for-signing";
const WALL: u64 = 1_700_000_000_000;

struct Keys;

#[async_trait]
impl Vault for Keys {
    async fn credential(&self, name: &str) -> Result<Credential, Fault> {
        assert_eq!(name, "pager");
        Ok(Credential { user: String::new(), password: Secret::new(KEY) })
    }

    async fn ssh_key(&self, _: &str) -> Result<Secret, Fault> {
        unreachable!("no host is asked")
    }
}

/// One delivery as it came.
#[derive(Clone, Debug)]
struct Came {
    headers: HeaderMap,
    text: String,
    body: Value,
}

impl Came {
    fn id(&self) -> String {
        self.headers["x-farrier-delivery"].to_str().unwrap().to_string()
    }

    fn event(&self) -> &str {
        self.headers["x-farrier-event"].to_str().unwrap()
    }
}

#[derive(Default)]
struct Inner {
    answer: AtomicU16,
    came: Mutex<Vec<Came>>,
}

/// A receiver that answers what it is told to.
#[derive(Clone)]
struct Receiver {
    inner: Arc<Inner>,
    url: String,
}

async fn receiver(answer: u16) -> Receiver {
    let inner = Arc::new(Inner { answer: AtomicU16::new(answer), ..Inner::default() });
    let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", tcp.local_addr().unwrap());
    let router = axum::Router::new().route("/hook", axum::routing::post(take));
    let router = router.with_state(inner.clone());
    tokio::spawn(async move { axum::serve(tcp, router).await.unwrap() });
    Receiver { inner, url }
}

async fn take(State(inner): State<Arc<Inner>>, headers: HeaderMap, text: String) -> StatusCode {
    let body = serde_json::from_str(&text).unwrap();
    inner.came.lock().unwrap().push(Came { headers, text, body });
    StatusCode::from_u16(inner.answer.load(Ordering::Relaxed)).unwrap()
}

impl Receiver {
    fn came(&self) -> Vec<Came> {
        self.inner.came.lock().unwrap().clone()
    }

    fn answer(&self, status: u16) {
        self.inner.answer.store(status, Ordering::Relaxed);
    }

    async fn until(&self, n: usize) -> Vec<Came> {
        until(&format!("{n} deliveries"), || async { self.came().len() >= n }).await;
        self.came()
    }
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

struct Place {
    _dir: tempfile::TempDir,
    db: PathBuf,
    store: SqliteStore,
    rows: Vec<Machine>,
}

fn expected(n: u32) -> Expected {
    Expected {
        name: format!("n{n}").into(),
        identity: Identity::default().into(),
        rack: "r1".into(),
        position: 1,
        pool: "pool".into(),
        profile: "p".into(),
        domains: [].into(),
        labels: BTreeMap::new().into(),
        bmc: BmcEndpoint::default(),
        host: HostEndpoint::default(),
    }
}

fn item(before: &Machine, entries: Vec<Entry>) -> CommitItem {
    let mut row = before.clone();
    let at = EngineTime(10);
    for entry in &entries {
        fold::apply(&mut row, entry, at).unwrap();
    }
    CommitItem { machine: before.id, after_seq: before.seq, at, entries, row, facts: None }
}

async fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    let store = SqliteStore::open(&db, Settings::default()).await.unwrap();
    let ids = store.expect(&(1..=4).map(expected).collect::<Vec<_>>()).await.unwrap();
    let items: Vec<CommitItem> = ids
        .into_iter()
        .map(|id| {
            let name = format!("n{}", id.0).into();
            item(&Machine::blank(id), vec![Entry::Registered { name }])
        })
        .collect();
    store.commit(&items, EngineTime(10), WALL).await.unwrap();
    let rows = items.into_iter().map(|i| i.row).collect();
    Place { _dir: dir, db, store, rows }
}

impl Place {
    async fn commit(&mut self, n: usize, entries: Vec<Entry>) {
        let item = item(&self.rows[n - 1], entries);
        self.rows[n - 1] = item.row.clone();
        let said = self.store.commit(&[item], EngineTime(20), WALL).await.unwrap();
        assert_eq!(said, [Committed::Durable]);
    }

    async fn notifier(&self, hooks: Vec<Hook>) -> Notifier {
        notifier(Arc::new(self.store.clone()), hooks).await
    }

    async fn stand(&self, hook: &str) -> u64 {
        self.store.stand(hook).await.unwrap()
    }
}

async fn notifier(outbox: Arc<dyn Outbox>, hooks: Vec<Hook>) -> Notifier {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let notifier = Notifier::new(outbox, Arc::new(Keys)).unwrap();
    notifier.set(hooks).await;
    notifier
}

fn hook(name: &str, url: &str) -> Hook {
    Hook {
        name: name.into(),
        url: url.into(),
        secret: Some("pager".into()),
        events: EventKind::ALL.into_iter().filter(|e| *e != EventKind::OutOfBand).collect(),
        timeout: Duration::from_secs(5),
    }
}

fn quarantined(code: &'static str) -> Entry {
    let fault = Fault::new(FaultClass::Hardware, Channel::Host, code, "a GPU is gone")
        .hint("reseat it")
        .evidence("export TOKEN=found-in-a-job's-output");
    Entry::Quarantined { fault }
}

fn released(key: &str) -> Entry {
    let change = Change::Release { why: "reseated".into() };
    Entry::Changed { change, by: "ops".into(), key: key.into() }
}

fn stop(by: &str) -> Stopped {
    Stopped { by: by.into(), why: "smoke".into(), at: EngineTime(30) }
}

#[tokio::test]
async fn what_is_durable_is_told_in_order_and_signed() {
    let mut p = place().await;
    // Before the hook was known: not its business.
    p.commit(4, vec![quarantined("old")]).await;
    let r = receiver(204).await;
    let n = p.notifier(vec![hook("ops", &r.url)]).await;

    p.commit(1, vec![quarantined("gpu-lost")]).await;
    p.commit(2, vec![Entry::OutOfBand { what: "power".into() }]).await;
    p.commit(1, vec![released("k1")]).await;
    p.store.set_stopped(None, EngineTime(29)).await.unwrap();
    p.store.set_stopped(Some(&stop("ops")), EngineTime(30)).await.unwrap();
    p.store.set_stopped(None, EngineTime(31)).await.unwrap();
    p.store.set_stopped(Some(&stop("circuit-breaker")), EngineTime(32)).await.unwrap();
    let came = r.until(5).await;
    let events: Vec<&str> = came.iter().map(Came::event).collect();
    assert_eq!(events, ["quarantined", "released", "stopped", "resumed", "circuit-breaker"]);

    let incarnation = p.store.load().await.unwrap().state.incarnation;
    for c in &came {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = c.headers["x-farrier-signature"].to_str().unwrap();
        assert!(verify(KEY, header, c.text.as_bytes(), now_s, 60), "{header}");
        assert!(!verify("another", header, c.text.as_bytes(), now_s, 60));
        assert_eq!(c.body["id"], c.id());
        assert!(c.id().starts_with(&format!("{incarnation}-")), "{}", c.id());
        assert_eq!(c.body["event"], c.event());
        assert!(!c.text.contains("found-in-a-job"), "evidence stays behind: {}", c.text);
        assert!(!c.text.contains(KEY));
    }
    let first = &came[0].body;
    assert_eq!((&first["machine"], &first["stage"]), (&"n1".into(), &"discover".into()));
    assert_eq!(first["at"], "2023-11-14T22:13:20Z");
    assert_eq!(first["fault"]["code"], "gpu-lost");
    assert_eq!(first["fault"]["hint"], "reseat it");
    assert_eq!((&came[1].body["by"], &came[1].body["why"]), (&"ops".into(), &"reseated".into()));
    until("nothing waits", || async {
        let n = &n.numbers()["ops"];
        (n.depth, n.delivered, n.failures) == (0, 5, 0)
    })
    .await;
}

#[tokio::test]
async fn a_dead_hook_waits_alone_and_has_everything_in_the_end() {
    let mut p = place().await;
    let (dead, good) = (receiver(503).await, receiver(200).await);
    let n = p.notifier(vec![hook("dead", &dead.url), hook("good", &good.url)]).await;
    for machine in 1..=3 {
        p.commit(machine, vec![quarantined("x")]).await;
    }
    let came = good.until(3).await;
    let ids: Vec<String> = came.iter().map(Came::id).collect();
    until("the outage is seen", || async { n.numbers()["dead"].failing.is_some() }).await;
    let numbers = n.numbers();
    assert_eq!((numbers["dead"].delivered, numbers["good"].failures), (0, 0));
    assert!(numbers["dead"].failing.as_ref().unwrap().1.contains("503"));
    assert!(dead.came().iter().all(|c| c.id() == ids[0]), "in order: the first until it went");

    dead.answer(200);
    until("the dead one has caught up", || async { n.numbers()["dead"].delivered == 3 }).await;
    let mut seen: Vec<String> = dead.came().iter().map(Came::id).collect();
    seen.dedup();
    assert_eq!(seen, ids, "each, in order, under the same ids");
    assert_eq!(n.numbers()["dead"].failing, None);
}

/// An outbox whose process is killed after a delivery: the mark never comes.
struct Killed(SqliteStore);

#[async_trait]
impl Outbox for Killed {
    async fn stand(&self, hook: &str) -> Result<u64, StoreError> {
        self.0.stand(hook).await
    }
    async fn after(&self, number: u64, limit: u32) -> Result<Vec<OutboxLine>, StoreError> {
        self.0.after(number, limit).await
    }
    async fn depth(&self, number: u64) -> Result<u64, StoreError> {
        self.0.depth(number).await
    }
    async fn delivered(&self, _: &str, _: u64) -> Result<(), StoreError> {
        std::future::pending().await
    }
    async fn tell(
        &self,
        machine: MachineId,
        since: EngineTime,
        told: Told,
        wall_ms: u64,
    ) -> Result<(), StoreError> {
        self.0.tell(machine, since, told, wall_ms).await
    }
    fn news(&self) -> watch::Receiver<u64> {
        self.0.news()
    }
}

#[tokio::test]
async fn a_kill_before_the_mark_delivers_again_under_the_same_id() {
    let mut p = place().await;
    let r = receiver(200).await;
    let before = notifier(Arc::new(Killed(p.store.clone())), vec![hook("ops", &r.url)]).await;
    p.commit(1, vec![quarantined("x")]).await;
    r.until(1).await;
    before.set(vec![]).await;
    p.commit(2, vec![quarantined("y")]).await;

    p.store.close().await;
    p.store = SqliteStore::open(&p.db, Settings::default()).await.unwrap();
    let after = p.notifier(vec![hook("ops", &r.url)]).await;
    let came = r.until(3).await;
    assert_eq!(came[0].id(), came[1].id(), "the receiver can tell");
    assert_eq!(came[0].body["machine"], came[1].body["machine"]);
    assert_ne!(came[1].id(), came[2].id());
    until("it is marked", || async { after.numbers()["ops"].delivered == 2 }).await;
    let last: u64 = came[2].id().rsplit('-').next().unwrap().parse().unwrap();
    until("the mark is durable", || async { p.stand("ops").await == last }).await;
}

#[tokio::test]
async fn what_did_not_become_durable_is_not_told() {
    let mut p = place().await;
    p.stand("ops").await;
    let stale = item(&Machine { seq: 0, ..Machine::blank(MachineId(1)) }, vec![quarantined("x")]);
    let good = item(&p.rows[1], vec![quarantined("y")]);
    let said = p.store.commit(&[stale, good.clone()], EngineTime(20), WALL).await.unwrap();
    assert!(matches!(said[..], [Committed::Conflict { .. }, Committed::Durable]), "{said:?}");
    p.rows[1] = good.row;
    let lines = p.store.after(0, 10).await.unwrap();
    let machines: Vec<&Value> = lines.iter().map(|l| &l.body["machine"]).collect();
    assert_eq!(machines, ["n2"]);
}

#[tokio::test]
async fn a_stuck_machine_is_told_once_for_each_time() {
    let p = place().await;
    let told = || of_stuck(&p.rows[0], "in firmware for longer than 4h");
    for (since, lines) in [(100, 1), (100, 1), (900, 2), (900, 2)] {
        p.store.tell(MachineId(1), EngineTime(since), told(), WALL).await.unwrap();
        assert_eq!(p.store.depth(0).await.unwrap(), lines, "{since}");
    }
    let line = &p.store.after(0, 1).await.unwrap()[0];
    assert_eq!((&*line.event, &line.body["machine"]), ("stuck", &"n1".into()));
}

#[tokio::test]
async fn the_outbox_is_bounded_and_a_late_hook_knows_what_it_missed() {
    let mut p = place().await;
    p.stand("late").await;
    rusqlite::Connection::open(&p.db)
        .unwrap()
        .execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10050)
             INSERT INTO outbox (incarnation, event, wall_ms, json)
             SELECT 'aaaa', 'out-of-band', 1, '{}' FROM n",
        )
        .unwrap();
    p.commit(1, vec![quarantined("x")]).await;
    assert_eq!(p.store.depth(0).await.unwrap(), 10_000);
    // Only what it asked for is posted; what is gone is counted.
    let r = receiver(200).await;
    let mut late = hook("late", &r.url);
    late.events = [EventKind::Quarantined].into();
    rusqlite::Connection::open(&p.db)
        .unwrap()
        .execute_batch("DELETE FROM outbox WHERE number < 10040")
        .unwrap();
    let n = p.notifier(vec![late]).await;
    let came = r.until(1).await;
    assert_eq!(came[0].event(), "quarantined");
    assert_eq!(n.numbers()["late"].missed, 10_039);
}

#[tokio::test]
async fn a_test_event_is_sent_past_the_outbox() {
    let p = place().await;
    let r = receiver(200).await;
    let n = p.notifier(vec![hook("ops", &r.url)]).await;
    assert_eq!(n.test("ops").await, Some(Ok(200)));
    assert_eq!((r.came()[0].event(), p.store.depth(0).await.unwrap()), ("test", 0));
    r.answer(301);
    let why = n.test("ops").await.unwrap().unwrap_err();
    assert!(why.contains("301"), "{why}");
    assert_eq!(n.test("nobody").await, None);
    let gone = hook("gone", "http://127.0.0.1:1/with-a-token-in-it");
    n.set(vec![gone]).await;
    let why = n.test("gone").await.unwrap().unwrap_err();
    assert!(!why.contains("token-in-it"), "{why}");
}

#[test]
fn the_configuration_knows_the_same_events() {
    let names: Vec<&str> = EventKind::ALL.iter().map(|e| e.name()).collect();
    assert_eq!(names, farrier::config::webhook::EVENTS);
}

#[test]
fn mistakes_in_a_hook_are_told_with_their_place() {
    let parse = |text: &str| {
        let text = format!("schema = 1\n{text}");
        let source = farrier::config::Source::new("farrier.toml", text);
        let (daemon, found) = farrier::config::daemon::parse(&source);
        (daemon.map(|d| d.webhooks), farrier::config::render(&found))
    };
    let (hooks, found) = parse("[[webhook]]\nname = \"a\"\nurl = \"https://x.example/y?z=1\"\n");
    let hooks = hooks.unwrap();
    assert_eq!((hooks[0].events.len(), hooks[0].timeout.0, &*found), (7, 10_000, ""));
    assert!(!hooks[0].events.iter().any(|e| e == "out-of-band"), "only for who asks");
    for (text, word) in [
        ("name = \"a\"\n", "url"),
        ("name = \"a\"\nurl = \"ftp://x\"\n", "not an http or https URL"),
        ("name = \"a\"\nurl = \"https://me:pw@x/\"\n", "user or password"),
        ("name = \"a\"\nurl = \"https:///y\"\n", "names no host"),
        ("name = \"a\"\nurl = \"http://x\"\nevents = [\"stuk\"]\n", "did you mean `stuck`"),
        ("name = \"a\"\nurl = \"http://x\"\ntimeout = \"5m\"\n", "60s at most"),
        ("name = \"a\"\nurl = \"http://x\"\nretries = 3\n", "retries"),
    ] {
        let (hooks, found) = parse(&format!("[[webhook]]\n{text}"));
        assert!(hooks.is_none() && found.contains(word), "{text}: {found}");
    }
}
