//! The command line, whole: what people type and what they get to see.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test: waits, reads")]

mod support;

use farrier::cli::{Cli, Dispatch, Local};
use farrier::model::{Entry, Machine, Stage, StepEnd};
use insta::assert_snapshot;
use serde_json::Value;
use support::{Plan, Served, serve};

/// Ten machines: n01 ready, n02 quarantined, n03 held, n04 without an answer, the others as new.
async fn fleet() -> Served {
    let s = serve(Plan { machines: 10, sick: &["n02"], dead: &["n04"], ..Plan::default() }).await;
    s.settled().await;
    for words in [
        &["machine", "enroll", "n01"][..],
        &["machine", "enroll", "n02"],
        &["machine", "enroll", "n04", "--desired", "in-service"],
        &["machine", "hold", "n03", "--why", "cabling"],
    ] {
        let (code, _, err) = s.cli_raw(words).await;
        assert_eq!(code, 0, "{words:?} {err}");
    }
    let looked_at = |m: &Machine| m.stage == Stage::Ready && m.observed.power.is_some();
    s.until_machine(1, "ready and looked at", looked_at).await;
    s.until_machine(2, "quarantined", |m| m.is_quarantined()).await;
    s.until_machine(4, "unreachable", |m| m.is_unreachable()).await;
    s
}

#[tokio::test]
async fn people_see_the_fleet() {
    let s = fleet().await;
    assert_snapshot!("list", s.cli(&["machine", "list"]).await);
    assert_snapshot!(
        "list_selected",
        s.cli(&["machine", "list", "n0*", "--selector", "pool=h100,control=enrolled"]).await
    );
    assert_snapshot!(
        "list_nothing",
        s.cli(&["machine", "list", "--selector", "stage=retired"]).await
    );
    assert_snapshot!("show", s.cli(&["machine", "show", "n01"]).await);
    assert_snapshot!("explain_ready", s.cli(&["machine", "explain", "n01"]).await);
    assert_snapshot!("explain_quarantined", s.cli(&["machine", "explain", "n02"]).await);
    assert_snapshot!("explain_held", s.cli(&["machine", "explain", "n03"]).await);
    assert_snapshot!("history", s.cli(&["machine", "history", "n01", "--all"]).await);
    assert_snapshot!("run_list", s.cli(&["run", "list", "n01"]).await);
    assert_snapshot!("run_show", s.cli(&["run", "show", "n01"]).await);
    assert_snapshot!("status", s.cli(&["status"]).await);
    assert_snapshot!("limits", s.cli(&["limits"]).await);
}

#[tokio::test]
async fn people_change_the_fleet() {
    let s = fleet().await;
    assert_snapshot!("set", s.cli(&["machine", "set", "n01", "drained"]).await);
    s.until_machine(1, "drained", |m| m.stage == Stage::Drained && m.run.is_none()).await;
    assert_snapshot!("unhold", s.cli(&["machine", "unhold", "n03", "--why", "done"]).await);
    assert_snapshot!("hold_two", s.cli(&["machine", "hold", "n05", "n06", "--why", "fans"]).await);
    assert_snapshot!(
        "hold_many",
        s.cli(&["machine", "hold", "--selector", "rack=r1", "--why", "power"]).await
    );
    assert_snapshot!(
        "hold_confirmed",
        s.cli(&["machine", "hold", "--selector", "rack=r1", "--why", "power", "--confirm", "8"])
            .await
    );
    assert_snapshot!(
        "unhold_mixed",
        s.cli(&["machine", "unhold", "n08", "n09", "--why", "done"]).await
    );
    assert_snapshot!("stop", s.cli(&["stop", "--why", "smoke in row a"]).await);
    assert_snapshot!("status_stopped", s.cli(&["status"]).await);
    assert_snapshot!("resume", s.cli(&["resume"]).await);
    let key = ["machine", "hold", "n10", "--why", "x", "--key", "k1"];
    assert_eq!(s.cli(&key).await, s.cli(&key).await, "said twice, done once");
    let by_ann = s.store.journal(10).iter().filter(|l| l.entry.name() == "changed").count();
    assert_eq!(by_ann, 1);
}

#[tokio::test]
async fn steps_are_skipped_and_runs_aborted() {
    let s = serve(Plan { machines: 5, refuses: &["n01", "n02", "n03"], ..Plan::default() }).await;
    s.settled().await;
    let (code, _, err) = s.cli_raw(&["machine", "enroll", "n01", "n02", "n03"]).await;
    assert_eq!(code, 0, "{err}");
    for id in 1..=3 {
        s.until_machine(id, "quarantined", |m| m.is_quarantined()).await;
    }
    assert_snapshot!("explain_ways_out", s.cli(&["machine", "explain", "n01"]).await);
    let skip = |words: &[&'static str]| [&["machine", "skip"], words].concat();
    assert_snapshot!(
        "skip_nothing",
        s.cli(&skip(&["n04", "--why", "the relay is known to be broken"])).await
    );
    assert_snapshot!("skip_mixed", s.cli(&skip(&["n01", "n04", "--why", "x"])).await);
    assert_snapshot!("skip_without_why", s.cli(&skip(&["n01"])).await);
    assert_snapshot!(
        "skip_another_step",
        s.cli(&skip(&["n01", "--step", "identify", "--why", "x"])).await
    );
    assert_snapshot!(
        "skip_selected",
        s.cli(&skip(&[
            "--selector",
            "step=off,name=n0[12]",
            "--why",
            "the relay is known to be broken"
        ]))
        .await
    );
    assert_snapshot!(
        "skip",
        s.cli(&skip(&[
            "--selector",
            "step=off,name=n0?,rack=r1",
            "--confirm",
            "3",
            "--why",
            "the relay is known to be broken"
        ]))
        .await
    );
    for id in 1..=3 {
        s.until_machine(id, "ready", |m| m.stage == Stage::Ready && m.run.is_none()).await;
    }
    let ended = s.store.journal(1).into_iter().filter_map(|l| match l.entry {
        Entry::StepEnded { key, end: StepEnd::Skipped { reason } } => Some((key, reason)),
        _ => None,
    });
    assert_eq!(
        ended.collect::<Vec<_>>(),
        [("off".into(), "a person said so: the relay is known to be broken".to_string())]
    );
    assert_snapshot!(
        "abort_at_rest",
        s.cli(&["machine", "abort", "n01", "--why", "the rack is to be moved"]).await
    );
    assert_snapshot!("abort_nothing", s.cli(&["machine", "abort", "n04", "--why", "x"]).await);
}

#[tokio::test]
async fn an_aborted_run_ends_in_repair() {
    let s = serve(Plan { machines: 1, refuses: &["n01"], ..Plan::default() }).await;
    s.settled().await;
    s.cli_raw(&["machine", "enroll", "n01"]).await;
    s.until_machine(1, "quarantined", |m| m.is_quarantined()).await;
    assert_snapshot!(
        "abort",
        s.cli(&["machine", "abort", "n01", "--why", "the rack is to be moved"]).await
    );
    s.until_machine(1, "in repair", |m| m.stage == Stage::Repair && m.run.is_none()).await;
    assert_snapshot!("aborted_run", s.cli(&["run", "show", "n01"]).await);
}

#[tokio::test]
async fn errors_say_what_happened_and_what_to_do() {
    let s = fleet().await;
    assert_snapshot!("unknown_machine", s.cli(&["machine", "show", "n0l"]).await);
    assert_snapshot!(
        "unknown_machine_2",
        s.cli(&["machine", "hold", "n01", "storage", "--why", "x"]).await
    );
    assert_snapshot!("no_why", s.cli(&["machine", "release", "n02"]).await);
    assert_snapshot!("not_now", s.cli(&["machine", "release", "n01", "--why", "x"]).await);
    assert_snapshot!("unmanaged", s.cli(&["machine", "set", "n05", "ready"]).await);
    assert_snapshot!("bad_state", s.cli(&["machine", "set", "n01", "happy"]).await);
    assert_snapshot!("set_without_names", s.cli(&["machine", "set", "ready"]).await);
    assert_snapshot!("no_names", s.cli(&["machine", "hold", "--why", "x"]).await);
    assert_snapshot!("bad_selector_key", s.cli(&["machine", "list", "--selector", "rak=r1"]).await);
    assert_snapshot!(
        "bad_selector_value",
        s.cli(&["machine", "list", "--selector", "stage=redy"]).await
    );
    assert_snapshot!(
        "selector_of_nothing",
        s.cli(&["machine", "hold", "--selector", "stage=retired", "--why", "x"]).await
    );
    assert_snapshot!("no_such_run", s.cli(&["run", "show", "n01", "999"]).await);
    assert_snapshot!("latest_run", s.cli(&["run", "show", "n03"]).await);
    assert_snapshot!(
        "token_in_clear",
        s.cli(&["--api", "http://farrier.example", "--token-file", "/dev/null", "status"]).await
    );
    assert_snapshot!("no_daemon", s.cli(&["--api", "http://127.0.0.1:9", "status"]).await);
    assert_snapshot!("no_url", s.cli(&["--api", "farrier.example", "status"]).await);
}

#[tokio::test]
async fn json_is_what_the_api_says() {
    let s = fleet().await;
    for (words, path) in [
        (&["--json", "machine", "show", "n01"][..], "/v1/machines/n01"),
        (&["machine", "explain", "n02", "--json"], "/v1/machines/n02/explain"),
        (&["status", "--json"], "/v1/status"),
        (&["limits", "--json"], "/v1/limits"),
        (&["run", "list", "n01", "--json"], "/v1/machines/n01/runs"),
    ] {
        let (code, out, _) = s.cli_raw(words).await;
        assert_eq!(code, 0, "{words:?}");
        let said: Value = serde_json::from_str(&out).unwrap();
        let (_, answer) = s.get(path).await;
        let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&said), keys(&answer), "{words:?}");
    }
    let (_, out, _) = s.cli_raw(&["--json", "machine", "hold", "n05", "--why", "x"]).await;
    let done: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(done["machine"], "n05");
}

#[tokio::test]
async fn events_are_followed() {
    let s = serve(Plan { machines: 1, ..Plan::default() }).await;
    // Until the stream has it: each hold is an event of its own.
    let noise = async {
        loop {
            let (code, _, err) = s.cli_raw(&["machine", "hold", "n01", "--why", "noise"]).await;
            assert_eq!(code, 0, "{err}");
        }
    };
    let heard = tokio::select! {
        heard = s.cli_raw(&["events", "--follow", "--count", "1", "--machine", "n01"]) => heard,
        () = noise => unreachable!(),
    };
    assert_eq!(heard.0, 0, "{}", heard.2);
    assert!(heard.1.starts_with("n01 #"), "{}", heard.1);
}

#[test]
fn what_is_not_a_client_command_goes_to_main() {
    let parse = |words: &str| {
        let words = words.split(' ');
        <Cli as clap::Parser>::try_parse_from(std::iter::once("farrier").chain(words)).unwrap()
    };
    for (words, name) in [
        ("serve --config x.toml --observe-only", "Serve"),
        ("serve --time-scale 60", "Serve"),
        ("check", "Check"),
        ("demo --machines 24 --until in-service --exit --seed 7", "Demo"),
        ("sim --machines 9 --days 2 --seeds 3 --first-seed 4 --profile chaos --json", "Sim"),
        ("sim --seed 5", "Sim"),
        ("fsck --db x.db", "Fsck"),
        ("secret set bmc --user root", "Secret"),
        ("secret list", "Secret"),
        ("secret rm bmc", "Secret"),
        ("inventory import --csv note.csv --partial", "Inventory"),
    ] {
        let Dispatch::Local { command, json } = farrier::cli::run(parse(words)) else {
            panic!("{words} was run")
        };
        assert!(format!("{command:?}").starts_with(name), "{words}: {command:?}");
        assert_eq!(json, words.contains("--json"));
    }
    let Dispatch::Local { command, .. } =
        farrier::cli::run(parse("sim --machines 9 --profile chaos"))
    else {
        panic!()
    };
    let Local::Sim(sim) = *command else { panic!() };
    assert_eq!((sim.machines, &*sim.profile, sim.seed), (9, "chaos", None));
    // A token is never an argument.
    let words = ["farrier", "--token", "x", "status"];
    assert!(<Cli as clap::Parser>::try_parse_from(words).is_err());
    use clap::CommandFactory;
    Cli::command().debug_assert();
}
