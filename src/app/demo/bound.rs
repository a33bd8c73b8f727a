//! How fast anybody could have been: the lower bound of a run, from what the fleet drew for itself.
//!
//! It is the longer of two: the time that one machine needs all alone (its own POSTs, flashes,
//! installations and burn-ins; the answer times of the writes that start them, of one read before
//! each and of one after everything that ends), and for each bucket of each limit the machines' own
//! time in that class, divided by the limit. Durations that were cut short do not count, side by
//! side counts once, and neither polls nor any other read do ([`Spent`]).

use super::site::{RACK, Site};
use crate::model::{DomainKind, Limit, LimitClass};
use crate::sim::physics::Spent;
use std::collections::BTreeMap;

/// One reason why the run can't be shorter, in real seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Floor {
    pub why: String,
    pub seconds: f64,
}

/// All of them, the one that binds first.
pub fn floors(site: &Site, limits: &[Limit]) -> Vec<Floor> {
    let world = &site.serving.world;
    let now = world.now();
    let spent: Vec<(String, Spent)> = (world.seats.iter())
        .map(|seat| (seat.name.to_string(), seat.with(now, |b| b.vm.spent.clone())))
        .collect();
    of(&spent, limits, |world_ms| world.real(world_ms).as_secs_f64())
}

fn of(spent: &[(String, Spent)], limits: &[Limit], real: impl Fn(u64) -> f64) -> Vec<Floor> {
    let mut floors = Vec::new();
    if let Some((name, longest)) = spent.iter().max_by_key(|(_, s)| s.all_ms) {
        let why = format!("{name} all alone");
        floors.push(Floor { why, seconds: real(longest.all_ms) });
    }
    for limit in limits {
        let mut buckets: BTreeMap<usize, u64> = BTreeMap::new();
        for (n, (_, s)) in spent.iter().enumerate() {
            *buckets.entry(bucket(limit.per, n)).or_default() += own(s, limit.class);
        }
        // More machines at once than there are is no limit.
        let longest = buckets.values().copied().max().unwrap_or(0);
        let Limit { class, per, max } = limit;
        floors.push(Floor {
            why: format!("limit {class} per {}, {max} at once", per.name()),
            seconds: real(longest / u64::from((*max).max(1))),
        });
    }
    floors.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    floors
}

/// Which domain of this kind machine `n` is in; a rack has its own feeds and its own switch.
fn bucket(per: DomainKind, n: usize) -> usize {
    match per {
        DomainKind::Rack | DomainKind::Power | DomainKind::Switch => n / RACK,
        DomainKind::Site | DomainKind::Pool => 0,
        // The demo's inventory names none: nothing counts together.
        DomainKind::Chassis | DomainKind::Cooling | DomainKind::Nvlink => n,
    }
}

fn own(s: &Spent, class: LimitClass) -> u64 {
    match class {
        LimitClass::Power => s.power_ms,
        LimitClass::Flash => s.flash_ms,
        LimitClass::Provision => s.provision_ms,
        LimitClass::BurnIn => s.burn_in_ms,
        LimitClass::Drain => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_machine_or_the_fullest_bucket_binds() {
        let machine = |n: u32, flash_ms: u64| {
            let mut spent = Spent::default();
            (spent.all_ms, spent.flash_ms) = (flash_ms + 20_000, flash_ms);
            (format!("n{n}"), spent)
        };
        let mut fleet: Vec<_> = (0..16).map(|n| machine(n, 60_000)).collect();
        fleet[9].1.all_ms = 200_000;
        let limit = |per, max| Limit { class: LimitClass::Flash, per, max };
        let real = |ms: u64| f64::from(u32::try_from(ms).unwrap_or(0)) / 1000.0;
        let floors = of(&fleet, &[limit(DomainKind::Rack, 4), limit(DomainKind::Site, 8)], real);
        assert_eq!(floors[0], Floor { why: "n9 all alone".into(), seconds: 200.0 });
        assert_eq!(floors[1].seconds, 120.0);
        assert_eq!(floors[1].why, "limit flash per rack, 4 at once");
        let floors = of(&fleet, &[limit(DomainKind::Site, 4)], real);
        assert_eq!(floors[0].why, "limit flash per site, 4 at once");
        assert_eq!(floors[0].seconds, 240.0);
    }
}
