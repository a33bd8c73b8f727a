//! A real daemon over a virtual fleet on the wire, whose database is taken back to a backup again
//! and again: the world is minutes ahead of it each time. People look and release in bulk; the fleet
//! arrives, and the world's own log shows no flash, no wipe and no image done twice.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // a clock and a program

#[allow(dead_code, reason = "its other users count as well")]
#[path = "../kill/truth.rs"]
mod truth;

use farrier::app::demo::daemon::Daemon;
use farrier::app::demo::fleet::Api;
use farrier::app::demo::{Options, Site};
use farrier::sim::rng::Rng;
use farrier::sim::serve::admin;
use farrier::store::fsck::fsck;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::process::Command;

const MACHINES: u32 = 12;

fn number(variable: &str, or: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(or)
}

fn farrier() -> PathBuf {
    std::env::var_os("FARRIER_BIN").map_or_else(|| env!("CARGO_BIN_EXE_farrier").into(), Into::into)
}

/// Runs the program; returns what it printed.
async fn run(words: &[&str], files: &[&Path]) -> String {
    let out = Command::new(farrier()).args(words).args(files).output().await.expect("it runs");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{words:?}: {said}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Releases what the restore holds, once each machine was read.
async fn unhold(site: &Site) {
    let count = MACHINES.to_string();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let list = run(&["--api", &site.api_url, "machine", "list"], &[]).await;
        if list.lines().count() > MACHINES as usize {
            break;
        }
        assert!(Instant::now() < deadline, "{list}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let words = ["--api", &site.api_url, "machine", "unhold", "--selector", "held-by=restore"];
    let words = [&words[..], &["--why", "looked", "--confirm", &count]].concat();
    run(&words, &[]).await;
}

/// FARRIER_RESTORES (default 4; 24 with FARRIER_TEST_LONG) and FARRIER_RESTORE_SEED choose how often
/// and when.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_whose_database_is_taken_back_repeats_nothing() {
    let long = std::env::var_os("FARRIER_TEST_LONG").is_some();
    let restores = number("FARRIER_RESTORES", if long { 24 } else { 4 });
    let seed = number("FARRIER_RESTORE_SEED", 1);
    let mut rng = Rng::new(seed);
    let exe = farrier();
    let options = Options { seed, ..Options::new(MACHINES) };
    let site = Site::build(&options, &exe).await.expect("a site");
    let db = site.dir().join("state/farrier.db");
    let copy = site.dir().join("backup.db");
    let start = || Daemon::start(&exe, &site.config, options.time_scale, &site.log);
    let patience = Duration::from_secs(30);
    let api = Api::new(&site.api_url).expect("a client");
    let mut daemon = start().expect("a daemon");
    daemon.healthy(&site.api_url, patience).await.unwrap_or_else(|e| panic!("{e}"));
    api.enroll_all(MACHINES, &options.until).await.unwrap_or_else(|e| panic!("{e}"));

    let began = Instant::now();
    for round in 1..=restores {
        // A life takes about two minutes of the clock; the rounds are spread over it.
        tokio::time::sleep(Duration::from_millis(rng.between(500, 12_000))).await;
        run(&["backup", "--replace", "--db"], &[&db, &copy]).await;
        // Up to ten minutes of the world's time are lost.
        tokio::time::sleep(Duration::from_millis(rng.between(500, 10_000))).await;
        if let Some(error) = daemon.check() {
            panic!("before restore {round}: {error}");
        }
        daemon.kill().await.expect("it was killed");
        run(&["restore", "--db"], &[&db, &copy]).await;
        daemon = start().expect("a daemon");
        daemon.healthy(&site.api_url, patience).await.unwrap_or_else(|e| panic!("{round}: {e}"));
        unhold(&site).await;
    }
    println!("{restores} restores in {:?}", began.elapsed());

    let deadline = Instant::now() + Duration::from_secs(420);
    loop {
        if let Some(error) = daemon.check() {
            panic!("{error}");
        }
        let fleet = api.fleet().await.unwrap_or_else(|e| panic!("{e}"));
        if fleet.rests(&options.until, &site.trouble) {
            break;
        }
        if Instant::now() > deadline {
            for row in fleet.stuck(&options.until, &site.trouble) {
                println!("--- {row:?}\n{}", api.explain(&row.name).await.unwrap_or_default());
                let words = ["--api", &site.api_url, "machine", "history", &row.name, "--all"];
                println!("{}", run(&words, &[]).await);
            }
            println!("{}", admin::truth(&site.serving.world));
            panic!("the fleet does not arrive; the daemon's last words:\n{}", daemon.tail());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let happened = admin::truth(&site.serving.world);
    println!("{:?}; arrived after {:?}", truth::tally(&happened), began.elapsed());
    let repeated = truth::repeated(&happened);
    assert!(repeated.is_empty(), "done twice: {repeated:#?}");
    let status = daemon.stop().await.expect("a status");
    assert!(status.success(), "a graceful stop ends with {status}");
    let report = fsck(&db).await.expect("a database");
    assert!(report.is_clean(), "{:#?}", report.findings);
    site.stop(false).await;
}
