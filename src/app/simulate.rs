//! `farrier sim`: the simulator at a person's hand.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tells how long it took; the simulation itself reads no clock"
)]

use crate::sim::campaign::{Campaign, Summary};
use crate::sim::faults::Profile;
use std::process::ExitCode;
use std::time::Instant;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    pub machines: u32,
    pub days: u64,
    pub seeds: u64,
    pub first_seed: u64,
    pub profile: String,
    pub json: bool,
}

/// Exit 0 without a violation, 1 with one, 2 on bad usage.
pub fn simulate(ask: &Ask) -> ExitCode {
    let Some(profile) = Profile::named(&ask.profile) else {
        eprintln!(
            "error: there is no fault profile `{}`\n  hint: one of calm, flaky, chaos",
            ask.profile
        );
        return ExitCode::from(2);
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let started = Instant::now();
    let campaign = Campaign {
        machines: ask.machines.max(1),
        days: ask.days.max(1),
        seeds: ask.seeds.max(1),
        first_seed: ask.first_seed,
        profile,
        threads,
    };
    let summary = campaign.run();
    let seconds = started.elapsed().as_secs_f64();
    report(&summary, seconds, ask);
    let empty = summary.coverage.empty_cells();
    if !empty.is_empty() && !ask.json {
        println!("never met: {}", empty.join(", "));
    }
    if summary.violations == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn report(summary: &Summary, seconds: f64, ask: &Ask) {
    for failure in summary.failures.iter().take(10) {
        eprintln!("seed {}: {} violations", failure.seed, failure.count);
        for violation in failure.violations.iter().take(10) {
            eprintln!("  {violation}");
        }
    }
    if ask.json {
        println!("{}", summary.json(seconds));
        return;
    }
    println!("{}", summary.coverage.table());
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = summary.events as f64 / seconds.max(0.001);
    println!(
        "{} seeds of {} machines over {} days, profile {}: {} events in {seconds:.1} s ({rate:.0}/s), {} violations",
        summary.seeds, ask.machines, ask.days, ask.profile, summary.events, summary.violations
    );
}
