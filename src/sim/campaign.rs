//! Many seeds over threads, and the shrinking of one that failed. Each seed is a run of its own;
//! results are put together in seed order, so that threads do not show.

use super::coverage::Coverage;
use super::profile::Profile;
use super::run::{Ran, Spec, Stats, run};
use super::script::Script;
use crate::decide::{Decide, Rules};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What `farrier sim` is asked for.
#[derive(Clone, Debug)]
pub struct Campaign {
    pub machines: u32,
    pub days: u64,
    pub seeds: u64,
    pub first_seed: u64,
    pub profile: Profile,
    pub threads: usize,
}

/// A seed that broke something.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub count: u64,
    pub violations: Vec<super::invariants::Violation>,
    pub script: Option<Script>,
    /// See [`crate::sim::run::Ran::story`].
    pub story: Vec<String>,
}

/// All seeds together.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub seeds: u64,
    pub events: u64,
    pub violations: u64,
    pub failures: Vec<Failure>,
    pub coverage: Coverage,
    pub stats: Stats,
    /// What the seeds were run under.
    pub profile: Option<Profile>,
    /// (seed, journal hash), in seed order.
    pub hashes: Vec<(u64, u64)>,
}

impl Campaign {
    /// Runs all seeds with the production decisions.
    pub fn run(&self) -> Summary {
        self.run_with(&Rules)
    }

    /// Runs all seeds with these decisions.
    pub fn run_with<D: Decide + Clone + Sync>(&self, decider: &D) -> Summary {
        self.run_telling(decider, &|_, _| {})
    }

    /// Like [`Campaign::run_with`]; `tell` hears after each seed how many are done and how many of
    /// those failed.
    pub fn run_telling<D: Decide + Clone + Sync>(
        &self,
        decider: &D,
        tell: &(dyn Fn(u64, u64) + Sync),
    ) -> Summary {
        let failed = AtomicU64::new(0);
        let next = AtomicU64::new(0);
        let done: Mutex<Vec<(u64, Ran)>> = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= self.seeds {
                            return;
                        }
                        let seed = self.first_seed + n;
                        let spec = Spec::new(self.machines, self.days, seed, self.profile.clone());
                        let ran = run(&spec, decider.clone());
                        if ran.violation_count > 0 {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        let Ok(mut done) = done.lock() else { continue };
                        done.push((seed, ran));
                        tell(done.len() as u64, failed.load(Ordering::Relaxed));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_default();
        done.sort_by_key(|(seed, _)| *seed);
        let mut summary = Summary {
            seeds: done.len() as u64,
            profile: Some(self.profile.clone()),
            ..Summary::default()
        };
        for (seed, ran) in done {
            summary.events += ran.events;
            summary.violations += ran.violation_count;
            summary.coverage.add(&ran.coverage);
            summary.stats.add(&ran.stats);
            summary.hashes.push((seed, ran.journal_hash));
            if ran.violation_count > 0 {
                summary.failures.push(Failure {
                    seed,
                    count: ran.violation_count,
                    violations: ran.violations,
                    script: ran.script,
                    story: ran.story,
                });
            }
        }
        summary
    }
}

impl Summary {
    /// The closing line of `farrier sim --json`; `seconds` is the caller's, who has a clock.
    pub fn json(&self, seconds: f64) -> serde_json::Value {
        let (hit, cells) = self.coverage.cells();
        let none = Profile::none("none");
        let profile = self.profile.as_ref().unwrap_or(&none);
        serde_json::json!({
            "profile": profile.name,
            "seeds": self.seeds,
            "events": self.events,
            "violations": self.violations,
            "coverage": {
                "cells": cells,
                "hit": hit,
                "empty_cells": self.coverage.empty_cells(profile),
                "untouched_steps": self.coverage.untouched_steps(profile),
                "unthrown_faults": self.coverage.unthrown_faults(profile),
                "uncrashed_commands": self.coverage.uncrashed_commands(),
            },
            "seconds": (seconds * 100.0).round() / 100.0,
        })
    }
}
