//! The daemon is killed with SIGKILL again and again while a fleet is installed, retired and
//! enrolled anew. It resumes each time, every order is carried out once, the fleet arrives, and the
//! world's own log shows no flash, no wipe and no image done twice.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // a clock and a program

mod people;
mod truth;

use farrier::app::demo::daemon::Daemon;
use farrier::app::demo::fleet::Api;
use farrier::app::demo::{Options, Site};
use farrier::model::Fault;
use farrier::sim::rng::Rng;
use farrier::sim::serve::admin;
use farrier::store::fsck::fsck;
use people::People;
use rusqlite::OpenFlags;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn number(variable: &str, or: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(or)
}

fn farrier() -> PathBuf {
    std::env::var_os("FARRIER_BIN").map_or_else(|| env!("CARGO_BIN_EXE_farrier").into(), Into::into)
}

/// When the next kill comes.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So many milliseconds after the daemon answers: it works, or still recovers.
    After(u64),
    /// So many milliseconds after something is written to the database's log: in the middle of a
    /// commit, or once an intent is durable and its call not yet answered.
    AfterCommit(u64),
}

/// `longest_ms`: until the latest kill.
fn moment(rng: &mut Rng, longest_ms: u64) -> Moment {
    match rng.between(0, 9) {
        0..=1 => Moment::After(rng.between(0, 60)),
        2..=3 => Moment::AfterCommit(0),
        4..=5 => Moment::AfterCommit(rng.between(1, 20)),
        _ => Moment::After(rng.between(60, longest_ms)),
    }
}

/// Waits for the moment. A commit is waited for at most a second: a fleet may have nothing to say.
async fn wait(moment: Moment, wal: &Path) -> bool {
    let (ms, commit) = match moment {
        Moment::After(ms) => (ms, false),
        Moment::AfterCommit(ms) => {
            let stamp = || std::fs::metadata(wal).ok().map(|m| (m.len(), m.modified().ok()));
            let (before, until) = (stamp(), Instant::now() + Duration::from_secs(1));
            while stamp() == before {
                if Instant::now() > until {
                    return false;
                }
                tokio::task::yield_now().await;
            }
            (ms, true)
        }
    };
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    commit
}

/// Actions that were under way when the daemon ended, by kind: how many, and how many of them had
/// not happened.
fn interrupted(db: &Path) -> BTreeMap<String, (u32, u32)> {
    let db = rusqlite::Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let db = db.expect("the database");
    let mut entries = db
        .prepare("SELECT machine, json FROM journal ORDER BY machine, machine_seq")
        .expect("a journal");
    let mut rows = entries.query([]).expect("entries");
    let (mut open, mut found) = (None, BTreeMap::<String, (u32, u32)>::new());
    while let Some(row) = rows.next().expect("an entry") {
        let machine: u32 = row.get(0).expect("a machine");
        let entry: Value =
            serde_json::from_str(&row.get::<_, String>(1).expect("an entry")).expect("JSON");
        let is = |what: &str| entry["entry"] == what;
        if is("intent") {
            let action = &entry["action"];
            let more = action["op"].as_str().or(action["script"].as_str()).unwrap_or_default();
            let kind = format!("{} {more}", action["action"].as_str().expect("an action"));
            open = Some((machine, kind.trim_end().to_string(), false));
        } else if let Some((of, kind, cut)) = &mut open
            && *of == machine
        {
            if is("settled") && entry["fault"]["code"] == Fault::INTERRUPTED {
                *cut = true;
                found.entry(kind.clone()).or_default().0 += 1;
            } else if is("closed") && *cut && entry["happened"] == false {
                found.entry(kind.clone()).or_default().1 += 1;
            }
        }
    }
    found
}

async fn database_is_clean(db: &Path, when: &str) -> u64 {
    let report = fsck(db).await.unwrap_or_else(|e| panic!("{when}: {e}"));
    assert!(report.is_clean(), "{when}: {:#?}", report.findings);
    report.entries
}

/// FARRIER_KILLS (default 50; 500 with FARRIER_TEST_LONG) and FARRIER_KILL_SEED choose how often
/// and when.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_killed_again_and_again_resumes_and_repeats_nothing() {
    let long = std::env::var_os("FARRIER_TEST_LONG").is_some();
    let kills = number("FARRIER_KILLS", if long { 500 } else { 50 });
    // Few kills are spread over the whole of a life.
    let longest_ms = if long { 1_600 } else { 3_000 };
    let seed = number("FARRIER_KILL_SEED", 1);
    let mut rng = Rng::new(seed);
    let exe = farrier();
    let options = Options { seed, until: "ready".into(), ..Options::new(16) };
    let site = Site::build(&options, &exe).await.expect("a site");
    let db = site.dir().join("state/farrier.db");
    let wal = site.dir().join("state/farrier.db-wal");
    let start = || Daemon::start(&exe, &site.config, options.time_scale, &site.log);
    let patience = Duration::from_secs(30);
    let api = Api::new(&site.api_url).expect("a client");
    let mut people = People::new(&site, long);
    let mut daemon = start().expect("a daemon");
    daemon.healthy(&site.api_url, patience).await.unwrap_or_else(|e| panic!("{e}"));
    site.begin_troubles();

    let began = Instant::now();
    let (mut at_work, mut in_commits) = (0, 0);
    for kill in 1..=kills {
        let fleet = api.fleet().await.unwrap_or_default();
        at_work += u32::from(!people.under_way(&fleet).is_empty());
        let given_up = people.given_up(&fleet);
        if !given_up.is_empty() {
            people.explain(&api, &given_up).await;
            let kept = site.stop(true).await;
            panic!("before kill {kill}: healthy and in quarantine; all is kept in {kept:?}");
        }
        // Orders are under way too when it dies: those are said again, under the same key.
        let sending = async {
            people.send_on(&fleet).await;
            std::future::pending().await
        };
        let in_commit = tokio::select! {
            hit = wait(moment(&mut rng, longest_ms), &wal) => hit,
            never = sending => never,
        };
        in_commits += u32::from(in_commit);
        if let Some(error) = daemon.check() {
            panic!("before kill {kill}: {error}");
        }
        daemon.kill().await.expect("it was killed");
        if kill % 10 == 0 {
            database_is_clean(&db, &format!("after kill {kill}")).await;
        }
        daemon = start().expect("a daemon");
        daemon
            .healthy(&site.api_url, patience)
            .await
            .unwrap_or_else(|e| panic!("after kill {kill}: {e}"));
    }
    let killing = began.elapsed();
    let in_that_time = truth::tally(&admin::truth(&site.serving.world));

    // From here on it lives; every healthy machine goes through a whole round.
    // Six machines are drained, four at once, for three hours of the world's time at most each.
    let deadline = Instant::now() + Duration::from_secs(if long { 900 } else { 420 });
    loop {
        if let Some(error) = daemon.check() {
            panic!("{error}");
        }
        let fleet = api.fleet().await.unwrap_or_else(|e| panic!("{e}"));
        let under_way = people.under_way(&fleet);
        if people.new_comers(&fleet) > 0 {
            people.send_on(&fleet).await;
        } else if under_way.is_empty() && fleet.rows.len() == 16 {
            break;
        }
        let given_up = !people.given_up(&fleet).is_empty();
        if given_up || Instant::now() > deadline {
            people.explain(&api, &under_way).await;
            println!("{}", admin::truth(&site.serving.world));
            let kept = site.stop(true).await;
            let words = daemon.tail();
            panic!("the fleet does not arrive; all is kept in {kept:?}; last words:\n{words}");
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let status = daemon.stop().await.expect("a status");
    assert!(status.success(), "a graceful stop ends with {status}");
    let entries = database_is_clean(&db, "at the end").await;

    let log = admin::truth(&site.serving.world);
    let tally = truth::tally(&log);
    let (ordered, said) = people.words();
    let cut = interrupted(&db);
    println!(
        "{kills} kills in {killing:?} ({at_work} with machines under way, {in_commits} during or \
         just after a commit); actions cut (and not happened): {cut:?}; {ordered} orders, said {said} times; {entries} journal entries; \
         {tally:?}, of these while it was being killed {in_that_time:?}"
    );
    let many = kills >= 200;
    assert!(!cut.is_empty() || !many, "no kill came between an intent and its answer");
    let repeated = truth::repeated(&log);
    assert!(repeated.is_empty(), "done twice: {repeated:#?}");
    for what in ["flash-started", "wipe-started", "install-started", "smoke-started", "power-cut"] {
        assert!(tally.get(what).is_some_and(|n| *n >= 3), "too few `{what}`: {tally:?}");
        // On a slow machine fifty kills are over before the first retires; the long form proves all.
        if many || matches!(what, "flash-started" | "power-cut") {
            let seen = in_that_time.contains_key(what);
            assert!(seen, "no `{what}` between the kills: {in_that_time:?}");
        }
    }
    site.stop(false).await;
}
