//! What the engine has done since the daemon started, counted for people. No decision reads it, and
//! nothing here names a machine: the numbers do not grow with the fleet.

use crate::model::facts::Read;
use crate::model::{ActionKind, Entry, Fault, FaultClass, Outcome, Report};
use crate::port::store::CommitItem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How the edge's answer to an action is called, in the order of [`Meter::actions`].
pub const OUTCOMES: [&str; 5] = ["applied", "refused", "failed", "unknown", "withdrawn"];
/// The parts of a probe, in the order of [`Meter::reads`].
pub const PARTS: [&str; 12] = [
    "system",
    "inventory",
    "firmware",
    "tasks",
    "host",
    "job",
    "cluster",
    "boot",
    "media",
    "bios",
    "secure-boot",
    "storage",
];
/// Upper bounds of the histograms' buckets, in microseconds: from a commit on a fast disk to a BMC
/// that uses the whole deadline of a probe.
pub const BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000, 30_000_000, 90_000_000,
];

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations by bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One more than the bounds: what is above the last.
    buckets: [Count; BOUNDS_US.len() + 1],
    sum_us: Count,
}

impl Histogram {
    pub fn add(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| us > *bound);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.add(1);
        }
        self.sum_us.add(us);
    }

    /// How many were at most as long as each bound, then how many there were, as Prometheus counts.
    pub fn cumulative(&self) -> [u64; BOUNDS_US.len() + 1] {
        let mut total = 0;
        self.buckets.each_ref().map(|bucket| {
            total += bucket.get();
            total
        })
    }

    /// Microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }
}

/// All counters.
#[derive(Debug, Default)]
pub struct Meter {
    /// Transactions that are durable, and those that failed.
    pub commits: Count,
    pub commits_failed: Count,
    /// Journal entries that became durable.
    pub entries: Count,
    /// One transaction, from the order to its answer.
    pub commit_time: Histogram,
    /// By [`ActionKind::ALL`], then [`OUTCOMES`].
    actions: [[Count; OUTCOMES.len()]; ActionKind::ALL.len()],
    /// Open actions that a probe showed: taken hold of, or not.
    pub happened: Count,
    pub not_happened: Count,
    /// Failures in the journal, by [`FaultClass::ALL`].
    faults: [Count; FaultClass::ALL.len()],
    /// Those that ended in a quarantine.
    quarantines: [Count; FaultClass::ALL.len()],
    pub out_of_band: Count,
    /// By [`PARTS`]: read, and failed to.
    reads: [[Count; 2]; PARTS.len()],
    /// One probe of one machine, waiting for a place among the probes not counted.
    pub probe_time: Histogram,
}

impl Meter {
    pub fn actions(&self, kind: ActionKind) -> &[Count; OUTCOMES.len()] {
        &self.actions[kind as usize]
    }

    pub fn faults(&self, class: FaultClass) -> u64 {
        self.faults[class as usize].get()
    }

    pub fn quarantines(&self, class: FaultClass) -> u64 {
        self.quarantines[class as usize].get()
    }

    /// By [`PARTS`]: how many were read, and how many could not be.
    pub fn reads(&self) -> impl Iterator<Item = (&'static str, u64, u64)> + '_ {
        PARTS
            .into_iter()
            .zip(&self.reads)
            .map(|(part, [seen, failed])| (part, seen.get(), failed.get()))
    }

    pub(super) fn acted(&self, kind: ActionKind, outcome: &Outcome) {
        let n = match outcome {
            Outcome::Applied { .. } => 0,
            Outcome::Refused { .. } => 1,
            Outcome::Failed { .. } => 2,
            Outcome::Unknown { .. } => 3,
            Outcome::Withdrawn { .. } => 4,
        };
        self.actions[kind as usize][n].add(1);
    }

    pub(super) fn durable(&self, item: &CommitItem) {
        self.entries.add(item.entries.len() as u64);
        let fault = |f: &Fault| &self.faults[f.class as usize];
        for entry in &item.entries {
            match entry {
                Entry::Faulted { fault: f, .. } | Entry::Lost { fault: f } => fault(f).add(1),
                Entry::Quarantined { fault: f } => {
                    fault(f).add(1);
                    self.quarantines[f.class as usize].add(1);
                }
                Entry::Closed { happened: true, .. } => self.happened.add(1),
                Entry::Closed { happened: false, .. } => self.not_happened.add(1),
                Entry::OutOfBand { .. } => self.out_of_band.add(1),
                _ => {}
            }
        }
    }

    pub(super) fn probed(&self, report: &Report, took: Duration) {
        self.probe_time.add(took);
        let parts = [
            result(&report.system),
            result(&report.inventory),
            result(&report.firmware),
            result(&report.tasks),
            result(&report.host),
            result(&report.job),
            result(&report.cluster),
            result(&report.boot),
            result(&report.media),
            result(&report.bios),
            result(&report.secure_boot),
            result(&report.storage),
        ];
        for (counts, result) in self.reads.iter().zip(parts) {
            if let Some(n) = result {
                counts[n].add(1);
            }
        }
    }
}

/// 0: read, 1: failed; `None`: not asked for.
fn result<T>(read: &Read<T>) -> Option<usize> {
    match read {
        Read::NotAsked => None,
        Read::Seen(_) => Some(0),
        Read::Failed(_) => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_kinds_stand_where_they_are_counted() {
        for (n, kind) in ActionKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, n);
        }
        for (n, class) in FaultClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, n);
        }
    }

    #[test]
    fn a_histogram_counts_each_once_and_bounds_are_included() {
        let h = Histogram::default();
        for us in [1, 500, 501, 90_000_000, 90_000_001] {
            h.add(Duration::from_micros(us));
        }
        let counts = h.cumulative();
        assert_eq!((counts[0], counts[1]), (2, 3));
        assert_eq!((counts[BOUNDS_US.len() - 1], counts[BOUNDS_US.len()]), (4, 5));
        assert_eq!(h.sum_us(), 180_001_003);
        assert!(BOUNDS_US.is_sorted());
    }
}
