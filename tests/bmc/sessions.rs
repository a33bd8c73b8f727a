//! Sessions: kept over restarts, never of another login, never traded for Basic in silence, and
//! logins that stay below what locks an account.

use super::server::{Reply, SYSTEM, Seen, Server, calm};
use super::{OneCredential, PASSWORD, settings, target};
use async_trait::async_trait;
use farrier::bmc::{RedfishBmc, Settings};
use farrier::model::action::{Expect, Outcome};
use farrier::model::quirks::{QuirkSet, QuirkTable, Rule, When};
use farrier::model::{Channel, Fault, FaultClass, MachineId};
use farrier::port::capability::BmcAccounts;
use farrier::port::session::{At, KeptSession, SessionStore};
use farrier::port::{BmcCare, BmcRead, Credential, Secret, Vault};
use farrier::store::{Key, SqliteStore};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const OURS: &str = "/redfish/v1/SessionService/Sessions/1";

/// A store in memory.
#[derive(Default)]
struct Shelf(Mutex<BTreeMap<At, KeptSession>>);

#[async_trait]
impl SessionStore for Shelf {
    async fn load(&self, at: &At) -> Result<Option<KeptSession>, Fault> {
        Ok(self.0.lock().unwrap().get(at).cloned())
    }

    async fn save(&self, at: &At, session: &KeptSession) -> Result<(), Fault> {
        self.0.lock().unwrap().insert(at.clone(), session.clone());
        Ok(())
    }

    async fn forget(&self, at: &At) -> Result<(), Fault> {
        self.0.lock().unwrap().remove(at);
        Ok(())
    }
}

impl Shelf {
    fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

/// Another password each time it is asked for one.
#[derive(Default)]
struct Guessing(AtomicUsize);

#[async_trait]
impl Vault for Guessing {
    async fn credential(&self, _name: &str) -> Result<Credential, Fault> {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Credential { user: "farrier".into(), password: Secret::new(format!("guess-{n}")) })
    }

    async fn ssh_key(&self, _name: &str) -> Result<Secret, Fault> {
        Err(Fault::new(FaultClass::Bug, Channel::Host, "no-key", "none here"))
    }
}

fn edge(vault: Arc<dyn Vault>, shelf: &Arc<Shelf>) -> RedfishBmc {
    RedfishBmc::new(vault, settings()).keeping(shelf.clone())
}

/// One rule, for a BMC whose root says that it is from Acme.
fn acme(set: QuirkSet) -> Settings {
    let vendor = regex::Regex::new("^Acme").into_iter().collect();
    let rule = Rule { name: "acme".into(), when: When { vendor, ..When::default() }, set };
    Settings { quirks: Arc::new(QuirkTable { rules: vec![rule] }), ..settings() }
}

fn from(vendor: &'static str) -> impl Fn(&Seen) -> Reply {
    move |r| match calm(r) {
        Reply::Json(200, h, mut v) if r.path == "/redfish/v1/" => {
            v["Vendor"] = vendor.into();
            Reply::Json(200, h, v)
        }
        other => other,
    }
}

async fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(&dir.join("farrier.db"), farrier::store::Settings::default()).await.unwrap()
}

#[tokio::test]
async fn a_session_is_taken_up_again_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::init(&dir.path().join("key")).unwrap();
    let server = Server::start(|r, _| calm(r)).await;
    let bmc = target(&server.url);
    for round in 0..3 {
        let store = open(dir.path()).await;
        let kept = Arc::new(store.bmc_sessions(Some(key.clone())).unwrap());
        let edge = RedfishBmc::new(Arc::new(OneCredential), settings()).keeping(kept);
        edge.system(&bmc).await.unwrap();
        assert_eq!(server.count("POST", SESSIONS), 1, "round {round}");
        // No log-out: the daemon was killed.
        drop(edge);
        store.close().await;
    }
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("token-0001") && !text.contains(PASSWORD), "in the clear");
    }
    // With another key it is as if there were none; without a key nothing is kept.
    let store = open(dir.path()).await;
    let other = Key::init(&dir.path().join("other")).unwrap();
    let kept = store.bmc_sessions(Some(other)).unwrap();
    assert_eq!(kept.load(&At::host(MachineId(1))).await, Ok(None));
    assert!(store.bmc_sessions(None).is_none());
    store.close().await;
}

#[tokio::test]
async fn a_log_out_ends_the_session_and_forgets_it() {
    let shelf = Arc::new(Shelf::default());
    let server = Server::start(|r, _| calm(r)).await;
    let bmc = target(&server.url);
    let first = edge(Arc::new(OneCredential), &shelf);
    first.system(&bmc).await.unwrap();
    assert!(!shelf.is_empty());
    first.log_out().await;
    assert!(shelf.is_empty());
    assert_eq!(server.count("DELETE", OURS), 1);
    // One that was taken up is ended as well.
    let second = edge(Arc::new(OneCredential), &shelf);
    second.system(&bmc).await.unwrap();
    let third = edge(Arc::new(OneCredential), &shelf);
    third.system(&bmc).await.unwrap();
    assert_eq!(server.count("POST", SESSIONS), 2);
    assert_eq!(third.end_sessions(&bmc).await, Outcome::Applied { handle: None });
    assert_eq!(server.count("DELETE", OURS), 2);
    assert!(shelf.is_empty());
}

#[tokio::test]
async fn a_session_of_another_login_is_not_used() {
    let shelf = Arc::new(Shelf::default());
    let server = Server::start(|r, _| calm(r)).await;
    edge(Arc::new(OneCredential), &shelf).system(&target(&server.url)).await.unwrap();
    // Another password.
    edge(Arc::new(Guessing::default()), &shelf).system(&target(&server.url)).await.unwrap();
    assert_eq!(server.count("POST", SESSIONS), 2);
    // The machine's BMC has moved: its token goes to nobody else.
    let moved = Server::start(|r, _| calm(r)).await;
    edge(Arc::new(Guessing::default()), &shelf).system(&target(&moved.url)).await.unwrap();
    assert_eq!(moved.count("POST", SESSIONS), 1);
    let before = moved.seen().into_iter().take_while(|s| !s.is("POST", SESSIONS));
    assert!(before.into_iter().all(|s| s.header("x-auth-token").is_none()));
}

#[tokio::test]
async fn a_kept_session_that_expired_costs_one_login_and_no_suspicion() {
    let shelf = Arc::new(Shelf::default());
    let server = Server::start(|r, before| {
        let logins = before.iter().filter(|s| s.is("POST", SESSIONS)).count();
        let reads = before.iter().filter(|s| s.path == SYSTEM).count();
        if r.path == SYSTEM && logins == 1 && reads > 0 { Reply::status(401) } else { calm(r) }
    })
    .await;
    let bmc = target(&server.url);
    edge(Arc::new(OneCredential), &shelf).system(&bmc).await.unwrap();
    let again = edge(Arc::new(OneCredential), &shelf);
    again.system(&bmc).await.unwrap();
    again.system(&bmc).await.unwrap();
    assert_eq!(server.count("POST", SESSIONS), 2);
}

#[tokio::test]
async fn sessions_that_no_restart_finds_alive_are_not_kept() {
    for (vendor, kept) in [("HPE", false), ("Dell", true)] {
        let shelf = Arc::new(Shelf::default());
        let server = Server::start(move |r, _| from(vendor)(r)).await;
        edge(Arc::new(OneCredential), &shelf).system(&target(&server.url)).await.unwrap();
        assert_eq!(!shelf.is_empty(), kept, "{vendor}");
    }
}

#[tokio::test]
async fn a_session_is_not_traded_for_basic_when_its_renewal_fails() {
    type Break = fn(&Seen) -> Option<Reply>;
    let no_service: Break = |r| r.is("POST", SESSIONS).then(|| Reply::status(404));
    let no_method: Break = |r| r.is("POST", SESSIONS).then(|| Reply::status(405));
    for broken in [no_service, no_method] {
        let server = Server::start(move |r, before| {
            if before.iter().any(|s| s.path == SYSTEM) {
                // Half up after its reset: the session is gone, its service not there yet.
                return broken(r).unwrap_or_else(|| Reply::status(401));
            }
            calm(r)
        })
        .await;
        let edge = RedfishBmc::new(Arc::new(OneCredential), settings());
        let bmc = target(&server.url);
        edge.system(&bmc).await.unwrap();
        let f = edge.system(&bmc).await.unwrap_err();
        assert_eq!(f.class, FaultClass::Transient, "{f:?}");
        assert!(server.seen().iter().all(|s| s.header("authorization").is_none()));
    }
}

#[tokio::test]
async fn refused_logins_stay_below_what_locks_the_account() {
    // Nothing known: two, of whatever passwords. Two refusals lock this one: one.
    for (threshold, tries) in [(None, 2), (Some(2), 1), (Some(3), 2), (Some(50), 2)] {
        let server = Server::start(|r, _| {
            if r.is("POST", SESSIONS) { Reply::status(401) } else { from("Acme")(r) }
        })
        .await;
        let set = QuirkSet { lockout_threshold: threshold, ..QuirkSet::default() };
        let edge = RedfishBmc::new(Arc::new(Guessing::default()), acme(set));
        for _ in 0..6 {
            let f = edge.system(&target(&server.url)).await.unwrap_err();
            assert_eq!(f.class, FaultClass::Auth);
        }
        assert_eq!(server.count("POST", SESSIONS), tries, "{threshold:?}");
    }
}

#[tokio::test]
async fn sessions_that_may_still_be_open_count_towards_the_most_that_a_bmc_has() {
    for (most, wanted) in [(None, 7), (Some(100), 7), (Some(4), 3), (Some(1), 1)] {
        // The BMC refuses the session whenever the test says so, and never says it has too many.
        let refuses = Arc::new(AtomicBool::new(false));
        let once = refuses.clone();
        let server = Server::start(move |r, _| {
            if r.path == SYSTEM
                && r.header("x-auth-token").is_some()
                && once.swap(false, Ordering::Relaxed)
            {
                return Reply::status(401);
            }
            from("Acme")(r)
        })
        .await;
        let set = QuirkSet { session_most: most, ..QuirkSet::default() };
        let edge = RedfishBmc::new(Arc::new(OneCredential), acme(set));
        let bmc = target(&server.url);
        edge.system(&bmc).await.unwrap();
        for _ in 0..6 {
            refuses.store(true, Ordering::Relaxed);
            edge.system(&bmc).await.unwrap();
        }
        assert_eq!(server.count("POST", SESSIONS), wanted, "{most:?}");
        let basic = server.seen().iter().any(|s| s.header("authorization").is_some());
        assert_eq!(basic, wanted < 7, "one is left for a person");
    }
}

#[tokio::test]
async fn a_login_is_tried_without_a_session_where_there_is_none_to_spare() {
    for (most, sessions) in [(None, 2), (Some(3), 2), (Some(2), 1)] {
        let server = Server::start(|r, _| from("Acme")(r)).await;
        let set = QuirkSet { session_most: most, ..QuirkSet::default() };
        let edge = RedfishBmc::new(Arc::new(OneCredential), acme(set));
        let bmc = target(&server.url);
        edge.system(&bmc).await.unwrap();
        edge.verify(&bmc, "farrier", &Secret::new(PASSWORD)).await.unwrap();
        assert_eq!(server.count("POST", SESSIONS), sessions, "{most:?}");
    }
}

#[tokio::test]
async fn a_lock_is_outlasted_before_the_next_login() {
    let server =
        Server::start(
            |r, _| {
                if r.is("POST", SESSIONS) { Reply::status(401) } else { from("Acme")(r) }
            },
        )
        .await;
    let set = QuirkSet { lockout_s: Some(3_600), ..QuirkSet::default() };
    let edge = RedfishBmc::new(Arc::new(OneCredential), acme(set));
    let bmc = target(&server.url);
    edge.system(&bmc).await.unwrap_err();
    let f = edge.system(&bmc).await.unwrap_err();
    assert!(f.retry_after_ms.is_some_and(|ms| ms > 3_500_000), "{f:?}");
}

#[tokio::test]
async fn a_short_session_is_learnt_and_renewed_without_a_refused_request() {
    // The BMC drops a session when the test says so; the quirks say after two seconds.
    let expired = Arc::new(AtomicBool::new(false));
    let drops = expired.clone();
    let server = Server::start(move |r, _| {
        if r.is("POST", SESSIONS) {
            drops.store(false, Ordering::Relaxed);
        } else if r.header("x-auth-token").is_some() && drops.load(Ordering::Relaxed) {
            return Reply::status(401);
        }
        from("Acme")(r)
    })
    .await;
    let set = QuirkSet { session_timeout_s: Some(2), ..QuirkSet::default() };
    let edge = RedfishBmc::new(Arc::new(OneCredential), acme(set));
    let bmc = target(&server.url);
    let mut requests = Vec::new();
    for _ in 0..4 {
        let before = server.seen().len();
        edge.system(&bmc).await.unwrap();
        requests.push(server.seen().len() - before);
        // The session's time passes; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        expired.store(true, Ordering::Relaxed);
    }
    assert_eq!(requests[1..], [3, 2, 2], "refused once, then known: login and read");
}

#[tokio::test]
async fn a_bmc_just_reset_is_left_alone_and_then_asked_again() {
    let server = Server::start(|r, _| from("Acme")(r)).await;
    let set = QuirkSet { bmc_settle_s: Some(3), ..QuirkSet::default() };
    let edge = RedfishBmc::new(Arc::new(OneCredential), acme(set));
    let bmc = target(&server.url);
    assert_eq!(edge.reset_bmc(&bmc, &Expect::default()).await, Outcome::Applied { handle: None });
    let before = server.seen().len();
    let f = edge.system(&bmc).await.unwrap_err();
    assert!(f.is_no_answer() && f.retry_after_ms.is_some(), "{f:?}");
    assert_eq!(server.seen().len(), before, "nothing was asked");
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while edge.system(&bmc).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "never asked again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
