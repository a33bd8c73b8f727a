//! Who holds how much of which limit, and who has waited longest. Rebuilt from the rows after a
//! restart; nothing of it is stored.

use crate::decide::Room;
use crate::model::{EngineTime, Expected, Limit, LimitClass, MachineId};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One bucket: the limit's number and the domain's name.
type Bucket = (u16, Arc<str>);

#[derive(Debug, Default)]
struct Level {
    taken: u32,
    /// Waiting machines, longest first. A younger one does not pass an older one.
    queue: Vec<(EngineTime, MachineId)>,
}

/// All buckets of a site.
#[derive(Debug, Default)]
pub struct Headroom {
    limits: Vec<Limit>,
    levels: BTreeMap<Bucket, Level>,
}

impl Headroom {
    pub fn new(limits: Vec<Limit>) -> Self {
        Self { limits, levels: BTreeMap::new() }
    }

    fn buckets<'a>(
        &'a self,
        expected: &'a Expected,
        class: LimitClass,
    ) -> impl Iterator<Item = (Limit, Bucket)> + 'a {
        // A machine may be in several domains of a kind: a rack with two power feeds.
        self.limits.iter().enumerate().filter(move |(_, l)| l.class == class).flat_map(
            move |(n, l)| {
                let domains = expected.domains.iter().filter(|d| d.kind == l.per);
                domains.filter_map(move |d| Some((*l, (u16::try_from(n).ok()?, d.name.clone()))))
            },
        )
    }

    /// Counts a machine's held classes from `before` to `after` (bit sets of [`bit`]). Returns the
    /// machines that now have room and should be looked at.
    pub fn change(&mut self, expected: &Expected, before: u8, after: u8) -> Vec<MachineId> {
        let mut woken = Vec::new();
        for class in LimitClass::ALL {
            let (was, is) = (before & bit(class) != 0, after & bit(class) != 0);
            if was == is {
                continue;
            }
            let buckets: Vec<(Limit, Bucket)> = self.buckets(expected, class).collect();
            for (limit, bucket) in buckets {
                let level = self.levels.entry(bucket).or_default();
                if is {
                    level.taken += 1;
                } else {
                    level.taken = level.taken.saturating_sub(1);
                    let free = limit.max.saturating_sub(level.taken) as usize;
                    woken.extend(level.queue.iter().take(free).map(|(_, id)| *id));
                }
            }
        }
        woken
    }

    /// The machine waits for the bucket since `now`, unless it does so already.
    pub fn enqueue(&mut self, bucket: &Bucket, machine: MachineId, now: EngineTime) {
        let queue = &mut self.levels.entry(bucket.clone()).or_default().queue;
        if !queue.iter().any(|(_, id)| *id == machine) {
            queue.push((now, machine));
        }
    }

    /// The machine no longer waits for `bucket`. Returns the machines that have room there now: one
    /// that was woken and turned to another bucket must not leave its place empty.
    pub fn dequeue(&mut self, bucket: &Bucket, machine: MachineId) -> Vec<MachineId> {
        let max = self.limits.get(usize::from(bucket.0)).map_or(0, |l| l.max);
        let Some(level) = self.levels.get_mut(bucket) else { return Vec::new() };
        level.queue.retain(|(_, id)| *id != machine);
        let free = max.saturating_sub(level.taken) as usize;
        level.queue.iter().take(free).map(|(_, id)| *id).collect()
    }

    /// This headroom as one machine's decision sees it.
    pub fn view<'a>(&'a self, expected: &'a Expected) -> View<'a> {
        View { headroom: self, expected, hit: RefCell::new(None) }
    }

    /// How many machines hold `limit` in each domain: for `farrier limits` and metrics.
    pub fn taken(&self) -> impl Iterator<Item = (Limit, &str, u32, usize)> + '_ {
        self.levels.iter().filter_map(|((n, domain), level)| {
            let limit = self.limits.get(usize::from(*n))?;
            Some((*limit, &**domain, level.taken, level.queue.len()))
        })
    }
}

/// The bit of a class in a held set.
pub fn bit(class: LimitClass) -> u8 {
    1 << class as u8
}

/// See [`Headroom::view`].
#[derive(Debug)]
pub struct View<'a> {
    headroom: &'a Headroom,
    expected: &'a Expected,
    hit: RefCell<Option<Bucket>>,
}

impl View<'_> {
    /// The bucket that was full, if one was asked for and full.
    pub fn into_hit(self) -> Option<Bucket> {
        self.hit.into_inner()
    }
}

impl Room for View<'_> {
    fn full(&self, machine: MachineId, class: LimitClass) -> Option<String> {
        for (limit, bucket) in self.headroom.buckets(self.expected, class) {
            let Some(level) = self.headroom.levels.get(&bucket) else {
                if limit.max == 0 {
                    return Some(format!(
                        "{class} per {} {}: none allowed",
                        limit.per.name(),
                        bucket.1
                    ));
                }
                continue;
            };
            let ahead = level.queue.iter().take_while(|(_, id)| *id != machine).count();
            if level.taken as usize + ahead >= limit.max as usize {
                let text =
                    format!("{class} in {} {} ({} at once)", limit.per.name(), bucket.1, limit.max);
                *self.hit.borrow_mut() = Some(bucket);
                return Some(text);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Domain, DomainKind};

    fn machine(rack: &str) -> Expected {
        Expected {
            name: "m".into(),
            identity: Arc::default(),
            rack: rack.into(),
            position: 0,
            pool: "p".into(),
            profile: "p".into(),
            domains: [
                Domain { kind: DomainKind::Site, name: "s".into() },
                Domain { kind: DomainKind::Rack, name: rack.into() },
            ]
            .into(),
            labels: Default::default(),
            bmc: Default::default(),
            host: Default::default(),
        }
    }

    #[test]
    fn the_longest_waiting_goes_first_and_buckets_overlap() {
        let mut h = Headroom::new(vec![
            Limit { class: LimitClass::Flash, per: DomainKind::Rack, max: 1 },
            Limit { class: LimitClass::Flash, per: DomainKind::Site, max: 2 },
        ]);
        let (a, b) = (machine("r1"), machine("r2"));
        let flash = bit(LimitClass::Flash);
        assert!(h.change(&a, 0, flash).is_empty());
        let view = h.view(&a);
        assert!(view.full(MachineId(2), LimitClass::Flash).is_some());
        let bucket = view.into_hit().unwrap();
        h.enqueue(&bucket, MachineId(2), EngineTime(5));
        h.enqueue(&bucket, MachineId(2), EngineTime(6));
        assert!(
            h.view(&b).full(MachineId(3), LimitClass::Flash).is_none(),
            "another rack has room"
        );
        h.change(&b, 0, flash);
        assert_eq!(h.change(&a, flash, 0), [MachineId(2)], "the waiter is woken");
        assert!(h.view(&a).full(MachineId(4), LimitClass::Flash).is_some(), "no passing");
        assert!(h.view(&a).full(MachineId(2), LimitClass::Flash).is_none());
        h.enqueue(&bucket, MachineId(5), EngineTime(7));
        assert_eq!(h.dequeue(&bucket, MachineId(2)), [MachineId(5)], "the next one is woken");
        h.dequeue(&bucket, MachineId(5));
        assert!(h.view(&a).full(MachineId(4), LimitClass::Flash).is_none());
        assert!(h.view(&a).full(MachineId(4), LimitClass::Power).is_none(), "no limit, no bucket");
    }
}
