//! The daemon is killed with SIGKILL again and again while a fleet is under way. It resumes each
//! time, the fleet arrives, and the world's own log shows no flash and no wipe done twice.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // a clock and a program

use farrier::app::demo::daemon::Daemon;
use farrier::app::demo::fleet::Api;
use farrier::app::demo::{Options, Site};
use farrier::sim::rng::Rng;
use farrier::sim::serve::admin;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn number(variable: &str, or: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(or)
}

fn farrier() -> PathBuf {
    std::env::var_os("FARRIER_BIN").map_or_else(|| env!("CARGO_BIN_EXE_farrier").into(), Into::into)
}

/// FARRIER_KILLS (default 50) and FARRIER_KILL_SEED choose how often and when.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_killed_again_and_again_resumes_and_repeats_nothing() {
    let kills = number("FARRIER_KILLS", 50);
    let seed = number("FARRIER_KILL_SEED", 1);
    let mut moments = Rng::new(seed);
    let exe = farrier();
    // Slower than the demo, so that there is work under way at every kill.
    let options = Options { seed, time_scale: 30, ..Options::new(16) };
    let site = Site::build(&options, &exe).await.expect("a site");
    let start = || Daemon::start(&exe, &site.config, options.time_scale, &site.log);
    let wait = Duration::from_secs(30);
    let api = Api::new(&site.api_url).expect("a client");
    let mut daemon = start().expect("a daemon");
    daemon.healthy(&site.api_url, wait).await.unwrap_or_else(|e| panic!("{e}"));
    api.enroll_all(options.machines, &options.until).await.unwrap_or_else(|e| panic!("{e}"));
    site.begin_troubles();

    let began = Instant::now();
    let mut killed_at_work = 0;
    for kill in 1..=kills {
        // Some kills come while it still recovers.
        let pause = if moments.chance(200_000) {
            moments.between(0, 100)
        } else {
            moments.between(100, 2500)
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let fleet = api.fleet().await.unwrap_or_default();
        killed_at_work += u32::from(!fleet.rests(&options.until, &site.trouble));
        if let Some(error) = daemon.check() {
            panic!("before kill {kill}: {error}");
        }
        daemon.kill().await.expect("it was killed");
        daemon = start().expect("a daemon");
        daemon
            .healthy(&site.api_url, wait)
            .await
            .unwrap_or_else(|e| panic!("after kill {kill}: {e}"));
    }
    println!("{kills} kills, {killed_at_work} of them at work, {:?}", began.elapsed());

    let deadline = Instant::now() + Duration::from_secs(300);
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
            }
            println!("{}", admin::truth(&site.serving.world));
            panic!("the fleet does not arrive; the daemon's last words:\n{}", daemon.tail());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let repeated = repeated(&admin::truth(&site.serving.world));
    assert!(repeated.is_empty(), "done twice: {repeated:#?}");
    let status = daemon.stop().await.expect("a status");
    assert!(status.success(), "a graceful stop ends with {status}");
    site.stop(false).await;
}

/// What must never happen twice and did.
fn repeated(truth: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (name, log) in truth.as_object().expect("machines") {
        let mut wipes = 0;
        let mut flashes: BTreeMap<u64, u32> = BTreeMap::new();
        for effect in log.as_array().expect("a log") {
            let at = &effect["at_ms"];
            match effect["what"].as_str().expect("a word") {
                "flash-started" => {
                    for flaw in ["already", "staged", "busy"] {
                        if effect[flaw] == true {
                            found.push(format!("{name} at {at}: a flash while `{flaw}`"));
                        }
                    }
                    *flashes.entry(effect["slot"].as_u64().unwrap_or(9)).or_default() += 1;
                }
                // The next flash of a slot whose flash failed is a new attempt, not a repetition.
                "flash-ended" if effect["ok"] == false => {
                    flashes.remove(&effect["slot"].as_u64().unwrap_or(9));
                }
                "flash-broken" => found.push(format!("{name} at {at}: an update was cut off")),
                "wipe-started" => wipes += 1,
                "install-started" | "power-cut" | "hook" if effect["right_machine"] == false => {
                    found.push(format!("{name} at {at}: the wrong machine was touched"));
                }
                _ => {}
            }
        }
        for (slot, times) in flashes.into_iter().filter(|(_, n)| *n > 1) {
            found.push(format!("{name}: slot {slot} was flashed {times} times"));
        }
        if wipes > 1 {
            found.push(format!("{name}: wiped {wipes} times"));
        }
    }
    found
}

#[test]
fn the_judge_of_repetitions_can_find_one() {
    let flash = |extra: &str| {
        format!(
            r#"{{"what":"flash-started","at_ms":1,"slot":0,"already":false,"staged":false,"busy":false{extra}}}"#
        )
    };
    let judge = |log: &[String]| {
        repeated(&serde_json::from_str(&format!(r#"{{"a":[{}]}}"#, log.join(","))).expect("JSON"))
    };
    let failed = r#"{"what":"flash-ended","at_ms":2,"slot":0,"ok":false}"#.to_string();
    assert!(judge(&[flash(""), failed, flash("")]).is_empty());
    assert_eq!(judge(&[flash(""), flash("")]).len(), 1);
    assert_eq!(judge(&[flash(r#","staged":true"#)]).len(), 1);
    let wipe = r#"{"what":"wipe-started","at_ms":1}"#.to_string();
    assert_eq!(judge(&[wipe.clone(), wipe]).len(), 1);
}
