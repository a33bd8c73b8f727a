//! The worlds in which each break must be caught.

use super::{Break, Broken};
use crate::sim::faults::FaultKind;
use crate::sim::profile::{Profile, Rule};
use crate::sim::run::{Spec, run};
use std::collections::BTreeSet;

/// Seeds within which each break must be caught, at 20 machines (60 for some of them) and 3 days of chaos.
pub const SEEDS: u64 = 12;

impl Break {
    /// Chaos, with more of what this break stumbles over.
    fn profile(self) -> Profile {
        let mut profile = Profile::named("chaos").unwrap_or_else(|| Profile::none("chaos"));
        if self == Break::ChargesOutages {
            profile.rules = vec![Rule::new(FaultKind::Outage, 20_000)];
            profile.sick_per_million = 0;
        }
        if matches!(self, Break::UnreadIsIdle | Break::IgnoreBoards) {
            profile.boards_per_million = 1_000_000;
        }
        let more: &[(FaultKind, u32)] = match self {
            Break::UnreadIsIdle => &[(FaultKind::BoardOutage, 50_000)],
            Break::NoIdentity => {
                &[(FaultKind::SerialSwapped, 10_000), (FaultKind::WrongHost, 10_000)]
            }
            _ => &[],
        };
        for (kind, per_million) in more {
            profile.rules.push(Rule::new(*kind, *per_million));
        }
        profile
    }
}

/// The first seed from `first` that catches `broken`, and all rules reported until then.
pub fn first_catch(broken: Break, first: u64) -> (Option<u64>, BTreeSet<&'static str>) {
    let mut seen = BTreeSet::new();
    // More updates than a rack may have must fall together in one of the racks.
    // And few machines with a boot volume come with somebody's data.
    let machines = if matches!(broken, Break::LetsGo | Break::VolumeOverData) { 60 } else { 20 };
    for seed in first..first + SEEDS {
        let spec = Spec {
            liveness_days: 1,
            stop_after: 50,
            ..Spec::new(machines, 3, seed, broken.profile())
        };
        let ran = run(&spec, Broken(broken));
        seen.extend(ran.violations.iter().map(|v| v.rule));
        if broken.caught_by().iter().any(|rule| seen.contains(rule)) {
            return (Some(seed), seen);
        }
    }
    (None, seen)
}
