//! Which machines are silent, by failure domain: counted as reports come in, rebuilt from the rows
//! after a restart. Nothing of it is stored, and a site whose machines answer costs nothing.

use crate::decide::outage::{Outage, can_fail, is_out};
use crate::model::{Channel, Domain, EngineTime, Expected, MachineId};
use crate::steps::remediation::OutageRule;
use std::collections::BTreeMap;

/// A domain on one channel.
type Key = (Channel, Domain);

#[derive(Debug, Default)]
struct Level {
    /// Silent machines by the time they stopped.
    stops: Vec<(EngineTime, MachineId)>,
    /// Hosts that answer or did: only machines that are worked on have one.
    hosts: usize,
    /// When the others of the domain were asked last.
    asked: Option<EngineTime>,
}

/// All domains that have silent machines.
#[derive(Debug, Default)]
pub struct Outages {
    rule: OutageRule,
    levels: BTreeMap<Key, Level>,
    /// Since when a machine is silent.
    silent: BTreeMap<(Channel, MachineId), EngineTime>,
    out: BTreeMap<Key, Outage>,
    /// Machines of each domain that have ever answered: made when two machines of one are silent.
    census: Option<BTreeMap<Domain, Vec<MachineId>>>,
}

impl Outages {
    pub fn new(rule: OutageRule) -> Self {
        Self { rule, ..Self::default() }
    }

    pub fn set_rule(&mut self, rule: OutageRule) {
        self.rule = rule;
    }

    /// Outages that last, and those whose effects may still show.
    pub fn iter(&self) -> impl Iterator<Item = &Outage> {
        self.out.values()
    }

    /// The inventory has changed: who shares what is counted anew when it matters.
    pub fn forget_census(&mut self) {
        self.census = None;
    }

    /// Is the census needed to judge what just stopped, and not there?
    pub fn wants_census(&self, channel: Channel, expected: &Expected, now: EngineTime) -> bool {
        self.census.is_none()
            && channel == Channel::Bmc
            && expected.domains.iter().filter(|d| can_fail(d.kind)).any(|d| {
                let key = (channel, d.clone());
                self.out.contains_key(&key)
                    || self.levels.get(&key).is_some_and(|l| self.recent(l, now) >= 2)
            })
    }

    /// Counts the machines of every domain; only those that have ever answered are given.
    pub fn take_census<'a>(&mut self, all: impl Iterator<Item = (MachineId, &'a Expected)>) {
        let mut census: BTreeMap<Domain, Vec<MachineId>> = BTreeMap::new();
        for (id, expected) in all {
            for domain in expected.domains.iter().filter(|d| can_fail(d.kind)) {
                match census.get_mut(domain) {
                    Some(members) => members.push(id),
                    None => drop(census.insert(domain.clone(), vec![id])),
                }
            }
        }
        self.census = Some(census);
    }

    fn recent(&self, level: &Level, now: EngineTime) -> usize {
        level.stops.len() - before(&level.stops, now - self.rule.window.0)
    }

    /// The machine stopped answering at `at`.
    pub fn stopped(
        &mut self,
        channel: Channel,
        id: MachineId,
        expected: &Expected,
        at: EngineTime,
    ) {
        if self.silent.insert((channel, id), at).is_some() {
            return;
        }
        for domain in expected.domains.iter().filter(|d| can_fail(d.kind)) {
            let stops = &mut self.levels.entry((channel, domain.clone())).or_default().stops;
            stops.insert(stops.partition_point(|s| *s < (at, id)), (at, id));
        }
    }

    /// The machine answers again (or its silence tells nothing any more).
    pub fn answers(&mut self, channel: Channel, id: MachineId, expected: &Expected) {
        let Some(at) = self.silent.remove(&(channel, id)) else { return };
        for domain in expected.domains.iter() {
            let key = (channel, domain.clone());
            let Some(level) = self.levels.get_mut(&key) else { continue };
            if let Ok(n) = level.stops.binary_search(&(at, id)) {
                level.stops.remove(n);
            }
            if level.stops.is_empty() && level.hosts == 0 {
                self.levels.remove(&key);
            }
        }
    }

    /// The machine is no longer in these domains.
    pub fn moved(&mut self, id: MachineId, old: &Expected, host_known: bool) {
        self.answers(Channel::Bmc, id, old);
        self.answers(Channel::Host, id, old);
        if host_known {
            self.host_known(old, false);
        }
        self.census = None;
    }

    /// One host more (or less) is known to answer, or to have answered.
    pub fn host_known(&mut self, expected: &Expected, known: bool) {
        for domain in expected.domains.iter().filter(|d| can_fail(d.kind)) {
            let key = (Channel::Host, domain.clone());
            let level = self.levels.entry(key.clone()).or_default();
            level.hosts = if known { level.hosts + 1 } else { level.hosts.saturating_sub(1) };
            if level.stops.is_empty() && level.hosts == 0 {
                self.levels.remove(&key);
            }
        }
    }

    /// Judges the domains of a machine after one of them stopped or came back. Returns machines that
    /// should be asked soon: the neighbours of two that stopped together, or those that are still
    /// silent in a domain that begins to answer; and over how many milliseconds to spread them.
    pub fn judge(
        &mut self,
        channel: Channel,
        expected: &Expected,
        now: EngineTime,
    ) -> (Vec<MachineId>, u64) {
        let mut ask = Vec::new();
        for domain in expected.domains.iter().filter(|d| can_fail(d.kind)) {
            let key = (channel, domain.clone());
            let none = Level::default();
            let level = self.levels.get(&key).unwrap_or(&none);
            let members = match (channel, &self.census) {
                (Channel::Host, _) => level.hosts,
                (_, Some(census)) => census.get(domain).map_or(0, Vec::len),
                (_, None) => 0,
            };
            let last_asked = level.asked;
            let may_ask = last_asked.is_none_or(|at| now.since(at) > self.rule.window.0);
            let mut asks = false;
            if let Some(outage) = self.out.get_mut(&key).filter(|o| !o.is_over()) {
                let older = before(&level.stops, outage.since);
                let out = level.stops.len() - older;
                let of = members.saturating_sub(older).max(out);
                if is_out(&self.rule, domain.kind, out, of) {
                    outage.out = number(out);
                    outage.of = number(of);
                    outage.last = level.stops.last().map_or(outage.last, |s| s.0.max(outage.last));
                } else {
                    outage.healed = Some(now);
                }
                if may_ask {
                    asks = true;
                    ask.extend(level.stops[older..].iter().map(|(_, id)| *id));
                }
            } else {
                let older = before(&level.stops, now - self.rule.window.0);
                let recent = level.stops.len() - older;
                let of = members.saturating_sub(older);
                if members > 0 && is_out(&self.rule, domain.kind, recent, of.max(recent)) {
                    let since = level.stops[older].0;
                    let outage = Outage {
                        kind: domain.kind,
                        name: domain.name.clone(),
                        channel,
                        out: number(recent),
                        of: number(of.max(recent)),
                        since,
                        last: now,
                        window: self.rule.window,
                        healed: None,
                    };
                    self.out.insert(key.clone(), outage);
                } else if recent >= 2
                    && of >= self.rule.machines as usize
                    && domain.kind != crate::model::DomainKind::Site
                    && channel == Channel::Bmc
                    && may_ask
                {
                    asks = true;
                    let all = self.census.as_ref().and_then(|c| c.get(domain));
                    ask.extend(
                        all.into_iter()
                            .flatten()
                            .filter(|id| !self.silent.contains_key(&(channel, **id))),
                    );
                }
            }
            if asks && let Some(level) = self.levels.get_mut(&key) {
                level.asked = Some(now);
            }
        }
        ask.sort_unstable();
        ask.dedup();
        // Many machines of a large site: no more than a hundred a second.
        let spread = self.rule.spread.0.max(ask.len() as u64 * 10);
        (ask, spread)
    }

    /// The outage that a machine's silence, or its failures of now, are laid to: of several the one
    /// that most of its domain suffers, then the largest. `lost`: since when its row says that it is
    /// unreachable.
    pub fn of(
        &self,
        id: MachineId,
        expected: &Expected,
        lost: Option<EngineTime>,
        now: EngineTime,
    ) -> Option<&Outage> {
        if self.out.is_empty() {
            return None;
        }
        let covers = |outage: &Outage| {
            let stopped = self.silent.get(&(outage.channel, id)).copied().or(lost);
            stopped.is_some_and(|at| outage.covers(at)) || outage.is_fresh(&self.rule, now)
        };
        let both = [Channel::Bmc, Channel::Host];
        let all = expected.domains.iter().flat_map(|d| {
            both.into_iter().filter_map(move |channel| self.out.get(&(channel, d.clone())))
        });
        all.filter(|o| covers(o))
            .max_by_key(|o| (!o.is_over(), u64::from(o.out) * 1000 / u64::from(o.of.max(1)), o.of))
    }

    /// Forgets outages that are over and can explain nothing any more.
    pub fn prune(&mut self, now: EngineTime) {
        if self.out.is_empty() {
            return;
        }
        let (levels, rule) = (&self.levels, &self.rule);
        self.out.retain(|key, outage| {
            let silent = levels.get(key).is_some_and(|l| {
                let within = |s: &&(EngineTime, MachineId)| outage.covers(s.0);
                l.stops.iter().any(|s| within(&s))
            });
            !outage.is_over() || outage.is_fresh(rule, now) || silent
        });
    }
}

/// How many stopped before `at`.
fn before(stops: &[(EngineTime, MachineId)], at: EngineTime) -> usize {
    stops.partition_point(|s| s.0 < at)
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
