//! Simulator speed with every invariant on, one core: events per second of a chaotic site.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    reason = "a benchmark"
)]

use farrier::decide::Rules;
use farrier::sim::profile::Profile;
use farrier::sim::run::{Spec, run};
use std::time::Instant;

fn main() {
    let mut rates = Vec::new();
    for (name, seeds) in [("calm", 3), ("chaos", 5)] {
        for seed in 1..=seeds {
            let profile = Profile::named(name).expect("shipped");
            let started = Instant::now();
            let ran = run(&Spec::new(100, 7, seed, profile), Rules);
            let rate = ran.events as f64 / started.elapsed().as_secs_f64();
            println!("simulator {name} seed {seed}: {} events, {rate:.0} events/s", ran.events);
            if name == "chaos" {
                rates.push(rate);
            }
        }
    }
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    println!(
        "simulator: median {median:.0} events/s = {:.2} x the floor of 300000/s",
        median / 300_000.0
    );
}
