//! The simulator as a test: the production rules pass under every profile, every broken decider and
//! director is caught, a seed is a seed, and a failing one shrinks to a script.
#![allow(clippy::disallowed_methods, reason = "reads the kept scripts")]

use farrier::decide::Rules;
use farrier::sim::broken::{self, Break, Broken, SEEDS};
use farrier::sim::campaign::{Campaign, Summary};
use farrier::sim::invariants::RULES;
use farrier::sim::profile::Profile;
use farrier::sim::run::{Spec, run};
use farrier::sim::sabotage::{self, Defect};
use farrier::sim::script::Script;
use farrier::sim::shrink::shrink;
use std::collections::BTreeSet;
use std::path::Path;

fn profile(name: &str) -> Profile {
    Profile::named(name).expect("a known profile")
}

fn campaign(name: &str, machines: u32, days: u64, first_seed: u64, seeds: u64) -> Summary {
    let profile = profile(name);
    let summary = Campaign { machines, days, seeds, first_seed, profile, threads: 2 }.run();
    for failure in &summary.failures {
        eprintln!("profile {name}, seed {}, {} violations", failure.seed, failure.count);
        for v in failure.violations.iter().take(10) {
            eprintln!("  {v}");
        }
    }
    if let Some(failure) = summary.failures.first() {
        let script = failure.script.as_ref().and_then(|s| shrink(s, |spec| run(spec, Rules)));
        let script = script.map_or_else(|| "(does not play)".to_string(), |s| s.to_string());
        panic!(
            "{} seeds of profile {name} broke an invariant; keep\n  {name} {machines} {days} {}\n\
             in tests/seeds/regressions.txt; the first shrinks to\n{script}",
            summary.failures.len(),
            failure.seed
        );
    }
    summary
}

#[test]
fn a_calm_site_has_no_violation_and_no_quarantine() {
    let summary = campaign("calm", 40, 4, 1, 4);
    assert_eq!(summary.stats.quarantines, 0);
    assert!(summary.stats.installs > 100 && summary.stats.flashes > 100 && summary.stats.wipes > 5);
}

#[test]
fn a_flaky_site_has_no_violation() {
    let summary = campaign("flaky", 40, 4, 100, 4);
    assert!(summary.stats.quarantines > 0 && summary.stats.kills > 0, "{:?}", summary.stats);
}

#[test]
fn chaos_has_no_violation_and_touches_everything() {
    let summary = campaign("chaos", 60, 6, 1, 14);
    let chaos = profile("chaos");
    println!("{}", summary.coverage.table());
    println!("{}", summary.json(0.0));
    assert_eq!(summary.coverage.untouched_steps(&chaos), [""; 0], "step kinds without a fault");
    assert_eq!(summary.coverage.unthrown_faults(&chaos), [""; 0], "faults never thrown");
    assert_eq!(summary.coverage.empty_cells(&chaos), [""; 0], "fault x step kind never met");
    let missed = summary.coverage.uncrashed_commands();
    assert!(missed.len() <= 8, "commands before which no daemon died: {missed:?}");
}

#[test]
fn racks_without_power_leave_no_violation() {
    let summary = campaign("rack-loss", 40, 4, 1, 4);
    assert_eq!(summary.coverage.unthrown_faults(&profile("rack-loss")), [""; 0]);
}

#[test]
fn dead_switches_cost_no_attempts_and_quarantine_nobody() {
    let summary = campaign("switch-loss", 40, 4, 1, 6);
    assert_eq!(summary.coverage.unthrown_faults(&profile("switch-loss")), [""; 0]);
}

#[test]
fn bad_firmware_is_braked() {
    let summary = campaign("bad-firmware", 40, 4, 1, 4);
    assert!(summary.stats.quarantines > 20, "{:?}", summary.stats);
    assert_eq!(summary.coverage.unthrown_faults(&profile("bad-firmware")), [""; 0]);
}

#[test]
fn humans_are_survived() {
    let summary = campaign("humans", 40, 4, 1, 4);
    assert_eq!(summary.coverage.unthrown_faults(&profile("humans")), [""; 0]);
}

#[test]
fn an_old_database_does_nothing_twice() {
    let summary = campaign("old-database", 40, 4, 1, 8);
    assert!(summary.stats.restores > 4, "{:?}", summary.stats);
    assert_eq!(summary.coverage.unthrown_faults(&profile("old-database")), [""; 0]);
}

#[test]
fn the_same_seed_gives_the_same_journal() {
    for name in Profile::NAMES {
        let spec = Spec::new(20, 2, 7, profile(name));
        let (a, b) = (run(&spec, Rules), run(&spec, Rules));
        assert_eq!((a.journal_hash, a.events), (b.journal_hash, b.events), "{name}");
        let other = run(&Spec::new(20, 2, 8, profile(name)), Rules);
        assert_ne!(a.journal_hash, other.journal_hash, "{name}");
    }
}

/// Rules that no breaker is reported by, and why that is no hole.
const UNBROKEN: &[(&str, &str)] = &[(
    "held-touched",
    "the fold refuses an intent on a held machine before it is durable: `fold-differs` reports it",
)];

#[test]
fn every_broken_decider_and_director_is_caught_and_every_rule_has_one() {
    let mut missed = Vec::new();
    let mut seen: BTreeSet<&str> = UNBROKEN.iter().map(|(rule, _)| *rule).collect();
    for broken in Break::ALL {
        let (seed, rules) = broken::first_catch(broken, 1);
        println!("{broken:?}: seed {seed:?}, {rules:?}");
        seen.extend(rules);
        if seed.is_none() {
            missed.push(format!("{broken:?}"));
        }
    }
    for defect in Defect::ALL {
        let (seed, rules) = sabotage::first_catch(defect, 1);
        println!("{defect:?}: seed {seed:?}, {rules:?}");
        seen.extend(rules);
        if seed.is_none() {
            missed.push(format!("{defect:?}"));
        }
    }
    assert!(missed.is_empty(), "not caught within {SEEDS} seeds: {missed:?}");
    let unseen: Vec<&&str> = RULES.iter().filter(|rule| !seen.contains(*rule)).collect();
    assert!(unseen.is_empty(), "rules that nothing has broken: {unseen:?}");
}

/// The copy that no task shows, which a power cut breaks: whoever does not look for it cuts it, and the
/// physics tells.
#[test]
fn who_does_not_see_background_copies_cuts_one() {
    let (seed, rules) = broken::first_catch(Break::IgnoreCopies, 1);
    assert!(seed.is_some() && rules.contains("cut-during-copy"), "{seed:?}, {rules:?}");
}

/// Machines whose baseboards have BMCs of their own, all of them, under everything that befalls those.
#[test]
fn controllers_of_their_own_are_never_cut_and_never_flashed_twice() {
    let profile = Profile { boards_per_million: 1_000_000, ..profile("chaos") };
    let (name, seeds) = (profile.name.clone(), 6);
    let summary =
        Campaign { machines: 20, days: 5, seeds, first_seed: 1, profile, threads: 2 }.run();
    if let Some(failure) = summary.failures.first() {
        panic!(
            "profile {name} with boards everywhere, seed {}: {:#?}",
            failure.seed, failure.violations
        );
    }
    assert!(summary.stats.flashes > 100 && summary.stats.kills > 0, "{:?}", summary.stats);
}

/// Who takes a controller for idle because it does not answer cuts the power over its head; who does not
/// look at it at all breaks what it copies.
#[test]
fn who_takes_an_unread_controller_for_idle_is_caught() {
    for (broken, rule) in
        [(Break::UnreadIsIdle, "unread-for-idle"), (Break::IgnoreBoards, "cut-during-copy")]
    {
        let (seed, rules) = broken::first_catch(broken, 1);
        assert!(seed.is_some() && rules.contains(rule), "{broken:?}: {seed:?}, {rules:?}");
    }
}

#[test]
fn a_failing_seed_shrinks_to_a_script_that_fails_alone() {
    let spec = Spec { liveness_days: 1, ..Spec::new(20, 3, 1, profile("chaos")) };
    let broken = Broken(Break::TrustTheCall);
    let ran = run(&spec, broken);
    let recorded = ran.script.expect("a run that broke a rule is recorded");
    let script = shrink(&recorded, |spec| run(spec, broken)).expect("the recorded run plays");
    let text = script.to_string();
    println!("{} lines shrink to {}:\n{text}", recorded.lines.len(), script.lines.len());
    assert!(script.lines.len() < 12, "{text}");
    let read = Script::parse(&text).expect("what is written can be read");
    assert_eq!(read, script);
    let again = run(&read.spec(), broken);
    assert!(again.violations.iter().any(|v| v.rule == script.rule), "{text}");
    assert_eq!(run(&read.spec(), Rules).violation_count, 0, "the real rules pass it\n{text}");
}

/// Seeds that once failed: `profile machines days seed  # why`.
#[test]
fn kept_seeds_stay_green() {
    for line in include_str!("seeds/regressions.txt").lines() {
        let text = line.split('#').next().unwrap_or("").trim();
        if text.is_empty() {
            continue;
        }
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [name, machines, days, seed] = parts[..] else { panic!("bad line: {line}") };
        let number = |t: &str| t.parse::<u64>().unwrap_or_else(|_| panic!("bad line: {line}"));
        let machines = u32::try_from(number(machines)).expect("a small number");
        let spec = Spec::new(machines, number(days), number(seed), profile(name));
        let ran = run(&spec, Rules);
        assert_eq!(ran.violation_count, 0, "{line}: {:#?}", ran.violations);
    }
}

/// Scripts of runs that once broke a rule.
#[test]
fn kept_scripts_stay_green() {
    let folder = Path::new(file!()).parent().map(|p| p.join("seeds")).unwrap_or_default();
    let mut played = 0;
    for file in std::fs::read_dir(folder).expect("the folder of seeds").flatten() {
        let path = file.path();
        if path.extension().is_some_and(|e| e == "script") {
            let text = std::fs::read_to_string(&path).expect("a text file");
            let script = Script::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let ran = run(&script.spec(), Rules);
            assert_eq!(ran.violation_count, 0, "{}: {:#?}", path.display(), ran.violations);
            assert!(ran.stats.acts > 0, "{} does nothing", path.display());
            played += 1;
        }
    }
    assert!(played > 0, "no script is kept");
}
