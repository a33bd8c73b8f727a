//! The simulator as a test: the production rules pass, every broken decider is caught, and a seed
//! is a seed.

use farrier::decide::Rules;
use farrier::sim::broken::{Break, SEEDS, first_catch};
use farrier::sim::campaign::{Campaign, Summary, shrink};
use farrier::sim::faults::Profile;
use farrier::sim::run::{Spec, run};

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
        let spec = Spec::new(machines, days, failure.seed, Profile::named(name).expect("known"));
        let least = shrink(&spec, failure.violations[0].rule, &Rules);
        panic!(
            "{} seeds of profile {name} broke an invariant; the first shrinks to\n  \
             {name} {} {} {}\nkeep that line in tests/seeds/",
            summary.failures.len(),
            least.machines,
            least.days,
            least.seed
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
    let summary = campaign("chaos", 60, 6, 1, 8);
    println!("{}", summary.coverage.table());
    println!("{}", summary.json(0.0));
    assert_eq!(summary.coverage.untouched_steps(), [""; 0], "step kinds without a fault");
    assert_eq!(summary.coverage.unthrown_faults(), [""; 0], "faults never thrown");
    assert_eq!(summary.coverage.empty_cells(), [""; 0], "fault x step kind never met");
    let missed = summary.coverage.uncrashed_commands();
    assert!(missed.len() <= 8, "commands before which no daemon died: {missed:?}");
}

#[test]
fn the_same_seed_gives_the_same_journal() {
    for name in ["flaky", "chaos"] {
        let spec = Spec::new(20, 2, 7, profile(name));
        let (a, b) = (run(&spec, Rules), run(&spec, Rules));
        assert_eq!((a.journal_hash, a.events), (b.journal_hash, b.events), "{name}");
        let other = run(&Spec::new(20, 2, 8, profile(name)), Rules);
        assert_ne!(a.journal_hash, other.journal_hash, "{name}");
    }
}

#[test]
fn every_broken_decider_is_caught() {
    let missed: Vec<Break> = Break::ALL
        .into_iter()
        .filter(|broken| match first_catch(*broken, 1, SEEDS) {
            Some((seed, rule, at)) => {
                println!("{broken:?}: seed {seed}, `{rule}` at {} min", at.0 / 60_000);
                false
            }
            None => true,
        })
        .collect();
    assert!(missed.is_empty(), "not caught within {SEEDS} seeds: {missed:?}");
}

/// Seeds that once failed: `profile machines days seed  # why`.
#[test]
fn kept_seeds_stay_green() {
    for line in include_str!("seeds/kept.txt").lines() {
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
