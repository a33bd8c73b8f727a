//! Wrong tokens, counted per source address: nobody guesses 128 bits, but nobody should be able
//! to try for free either.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Wrong tokens of one source in [`PERIOD`] until it has to wait.
const ALLOWED: u32 = 5;
const PERIOD: Duration = Duration::from_secs(60);
/// More sources than this are not remembered: the map must not grow with an attack.
const SOURCES: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Throttle {
    sources: BTreeMap<IpAddr, Misses>,
}

#[derive(Debug)]
struct Misses {
    since: Instant,
    count: u32,
}

impl Throttle {
    /// Seconds until this source may try again; `None`: it may.
    pub(super) fn must_wait_s(&self, from: IpAddr, now: Instant) -> Option<u64> {
        let misses = self.sources.get(&from)?;
        let rest = PERIOD.checked_sub(now.saturating_duration_since(misses.since))?;
        (misses.count >= ALLOWED && !rest.is_zero()).then_some(rest.as_secs().max(1))
    }

    pub(super) fn missed(&mut self, from: IpAddr, now: Instant) {
        let fresh = |m: &Misses| now.saturating_duration_since(m.since) < PERIOD;
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&from) {
            self.sources.retain(|_, m| fresh(m));
            if self.sources.len() >= SOURCES {
                self.sources.pop_first();
            }
        }
        let misses = self.sources.entry(from).or_insert(Misses { since: now, count: 0 });
        if !fresh(misses) {
            *misses = Misses { since: now, count: 0 };
        }
        misses.count = misses.count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_source_waits_after_five_and_others_do_not() {
        let (mut t, start) = (Throttle::default(), Instant::now());
        let a = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let b = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
        for _ in 0..4 {
            t.missed(a, start);
        }
        assert_eq!(t.must_wait_s(a, start), None);
        t.missed(a, start);
        assert_eq!(t.must_wait_s(a, start), Some(60));
        assert_eq!(t.must_wait_s(b, start), None);
        let later = start + Duration::from_secs(61);
        assert_eq!(t.must_wait_s(a, later), None);
        t.missed(a, later);
        assert_eq!(t.must_wait_s(a, later), None, "the count starts again");
    }

    #[test]
    fn the_map_is_bounded() {
        let (mut t, now) = (Throttle::default(), Instant::now());
        for i in 0..10_000u32 {
            t.missed(IpAddr::V4(Ipv4Addr::from(i)), now);
        }
        assert_eq!(t.sources.len(), SOURCES);
    }
}
