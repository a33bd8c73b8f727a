//! `farrier demo` as a person runs it: the binary, a fleet, the last line.
#![allow(clippy::disallowed_methods)] // runs a program

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The binary under test: what `tests/run.sh` built, else what cargo did.
fn farrier() -> PathBuf {
    std::env::var_os("FARRIER_BIN").map_or_else(|| env!("CARGO_BIN_EXE_farrier").into(), Into::into)
}

fn demo(args: &[&str]) -> (Output, Value) {
    let out = Command::new(farrier()).arg("demo").args(args).output().expect("farrier runs");
    let text = String::from_utf8_lossy(&out.stdout);
    let last = text.lines().last().unwrap_or_default();
    let said = String::from_utf8_lossy(&out.stderr);
    let line = serde_json::from_str(last)
        .unwrap_or_else(|e| panic!("`{last}` is no JSON line ({e})\n{text}\n{said}"));
    (out, line)
}

#[test]
fn twenty_four_machines_go_into_service_and_the_sick_ones_do_not() {
    let (out, line) = demo(&["--machines", "24", "--until", "in-service", "--exit"]);
    let text = String::from_utf8_lossy(&out.stdout);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{:?}\n{text}\n{said}", out.status);
    // One of each kind that ends in quarantine: GPU, flash, identity, password.
    assert_eq!(line["machines"], 24);
    assert_eq!(line["in_service"], 20, "{text}");
    assert_eq!(line["quarantined"], 4, "{text}");
    assert!(line["seconds"].as_f64().is_some_and(|s| s > 0.0));
    for shown in ["burn-in-failed", "wrong-machine", "BMC outage, heals", "machine explain gpu-"] {
        assert!(text.contains(shown), "no `{shown}` in\n{text}");
    }
    assert!(said.contains("web page: http://127.0.0.1:"), "{said}");
    // Every line but the last two words of a path could hold one: no password is ever shown.
    assert!(!text.contains("calvin") && !said.contains("calvin"));
}

#[test]
fn a_fleet_may_rest_at_ready() {
    let (out, line) = demo(&["--machines", "3", "--until", "ready", "--exit", "--seed", "5"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(line["quarantined"], 0, "three machines are too few to have a sick one");
    assert_eq!(line["in_service"], 0);
}

#[test]
fn a_small_site_prints_what_it_took_beside_what_it_might_have() {
    let dir = tempfile::tempdir().expect("a directory");
    let plot = dir.path().join("site.svg");
    let shown = plot.display().to_string();
    let args = ["--machines", "5", "--profile", "site", "--time-scale", "60", "--until", "ready"];
    let (out, line) = demo(&[&args[..], &["--exit", "--plot", &shown]].concat());
    let text = String::from_utf8_lossy(&out.stdout);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{:?}\n{text}\n{said}", out.status);
    for what in ["makespan", "lower bound", "all alone", "requests to BMCs", "daemon's memory"] {
        assert!(text.contains(what), "no `{what}` in\n{text}");
    }
    let number = |name: &str| line[name].as_f64().unwrap_or_else(|| panic!("no {name}: {line}"));
    // Nobody beats the machines' own durations.
    assert!(number("ratio") >= 1.0, "{line}");
    // A login, an inventory of thirty parts, two updates and an installation at the least.
    assert!(number("requests_per_machine") > 60.0, "{line}");
    assert!(number("daemon_cpu_ms_per_machine") > 0.0, "{line}");
    assert!(number("ssh_commands_per_machine") >= 3.0, "{line}");
    let svg = std::fs::read_to_string(&plot).expect("the picture");
    assert!(svg.starts_with("<svg") && svg.matches("<polygon").count() >= 4, "{svg}");
}
