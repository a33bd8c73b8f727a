//! The discrete-event runner: one seed, one world, one director at a time. A safety phase with
//! faults, kills and churn; then a liveness phase in which faults stop, people repair, and every
//! healthy managed machine must arrive.

mod daemon;
mod disk;
mod people;
mod queue;
mod story;
mod wire;

use super::coverage::{Coverage, column};
use super::durations::Durations;
use super::faults::Dice;
use super::invariants::{Checker, Violation, has_arrived};
use super::physics::VirtualMachine;
use super::profile::Profile;
use super::rng::Rng;
use super::sabotage::Sabotage;
use super::scenario::{DAY, Deed, HOUR, Scenario};
use super::script::Script;
use super::store::{MemStore, Snapshot};
use super::truth::What;
use super::workflows::{self, RACK};
use crate::decide::Decide;
use crate::engine::director::Director;
use crate::engine::{Command, Event};
use crate::model::{EngineTime, Expected, MachineId};
use crate::steps::site::Site;
use queue::{Item, Queued, Said, Written};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

/// One run to make.
#[derive(Clone, Debug)]
pub struct Spec {
    pub machines: u32,
    /// Length of the safety phase.
    pub days: u64,
    pub seed: u64,
    pub profile: Profile,
    /// Longest liveness phase; 0 = none, and nothing must have arrived.
    pub liveness_days: u64,
    /// Violations after which a run is given up.
    pub stop_after: u64,
    /// Play this instead of what people and dice would do in the safety phase.
    pub script: Option<Arc<Script>>,
}

impl Spec {
    pub fn new(machines: u32, days: u64, seed: u64, profile: Profile) -> Self {
        Self { machines, days, seed, profile, liveness_days: 4, stop_after: 2_000, script: None }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Events that the director was given.
    pub events: u64,
    /// Kept with their text; `violation_count` counts all.
    pub violations: Vec<Violation>,
    pub violation_count: u64,
    pub journal_hash: u64,
    pub coverage: Coverage,
    pub stats: Stats,
    /// All that people and faults did, so that it can be played again: of a run that broke a rule.
    pub script: Option<Script>,
    /// The last hours of the machine on which the first rule was broken, a line an event.
    pub story: Vec<String>,
}

/// Numbers that tell whether a run did anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub probes: u64,
    pub acts: u64,
    pub commits: u64,
    pub entries: u64,
    pub kills: u64,
    pub restores: u64,
    pub quarantines: u64,
    pub flashes: u64,
    pub installs: u64,
    pub wipes: u64,
    /// Simulated milliseconds until everything had arrived after the faults stopped.
    pub settled_ms: u64,
}

impl Stats {
    pub fn add(&mut self, o: &Stats) {
        self.probes += o.probes;
        self.acts += o.acts;
        self.commits += o.commits;
        self.entries += o.entries;
        self.kills += o.kills;
        self.restores += o.restores;
        self.quarantines += o.quarantines;
        self.flashes += o.flashes;
        self.installs += o.installs;
        self.wipes += o.wipes;
        self.settled_ms = self.settled_ms.max(o.settled_ms);
    }
}

/// One run under way.
pub struct Runner<D: Decide + Clone> {
    spec: Spec,
    decider: D,
    sabotage: Option<Sabotage>,
    site: Arc<Site>,
    durations: Arc<Durations>,
    director: Option<Director<D>>,
    /// A daemon whose database another one has taken over, with its life's number.
    older: Option<(Director<D>, u32)>,
    vms: Vec<VirtualMachine>,
    lines: Vec<Arc<Expected>>,
    was_expected: Vec<bool>,
    store: MemStore,
    snapshot: Option<Snapshot>,
    keeps_snapshots: bool,
    /// Restores so far.
    generation: u32,
    checker: Checker,
    people: Scenario,
    deeds: Vec<(EngineTime, Deed)>,
    rng: Rng,
    /// One for each machine: what happens to one shifts no draw of another.
    rngs: Vec<Rng>,
    dice: Dice,
    queue: BinaryHeap<Reverse<Queued>>,
    /// The writer's queue: first in, first durable.
    writes: VecDeque<Written>,
    write_at: EngineTime,
    full_until: EngineTime,
    /// The store has just said what makes a daemon exit.
    may_halt: bool,
    /// By rack: until when BMCs, hosts, and power are cut off; the whole site's BMCs and hosts.
    bmc_out: Vec<EngineTime>,
    host_out: Vec<EngineTime>,
    dark_until: Vec<EngineTime>,
    core_out: (EngineTime, EngineTime),
    said: BTreeMap<u64, (EngineTime, Said)>,
    ticket: u64,
    n: u64,
    life: u32,
    now: EngineTime,
    faults_seen: Vec<usize>,
    callbacks_seen: Vec<u32>,
    poke_at: Vec<EngineTime>,
    step_columns: Vec<usize>,
    coverage: Coverage,
    stats: Stats,
    events: u64,
    out: Vec<Command>,
    trace: Option<MachineId>,
}

impl<D: Decide + Clone> std::fmt::Debug for Runner<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Runner(seed {} at {:?})", self.spec.seed, self.now)
    }
}

/// Makes one run.
pub fn run<D: Decide + Clone>(spec: &Spec, decider: D) -> Ran {
    Runner::new(spec.clone(), decider).finish()
}

impl<D: Decide + Clone> Runner<D> {
    pub fn new(spec: Spec, decider: D) -> Self {
        let durations = Arc::new(Durations::default());
        let mut site = workflows::site();
        (site.breaker_quarantines, site.breaker_window_ms) = spec.profile.breaker;
        let (mut people, mut vms, lines, plan) =
            Scenario::new(spec.seed, spec.machines, spec.days, &spec.profile, &durations);
        let kinds: Vec<&'static str> = site
            .workflows
            .values()
            .next()
            .map(|w| w.steps.iter().map(|s| s.step.kind()).collect())
            .unwrap_or_default();
        let step_columns = kinds.iter().map(|kind| column(Some(kind))).collect();
        let mut checker = Checker::new(site.limits.clone(), kinds, spec.profile.breaker);
        for line in &lines {
            checker.add(line);
        }
        let store = MemStore::new(vms.len(), site.incarnation.clone());
        let mut dice = Dice::new(&spec.profile, Rng::stream(spec.seed, 0x517e));
        let mut plan = plan;
        let mut keeps_snapshots = spec.profile.throws(super::faults::FaultKind::OldDatabase);
        if let Some(script) = &spec.script {
            people.safe_until(script.until);
            plan = script.deeds();
            plan.push((script.until + HOUR, Deed::Rounds));
            dice.play(script.faults(None));
            for vm in &mut vms {
                vm.dice.play(script.faults(Some(vm.id)));
            }
            keeps_snapshots = plan.iter().any(|(_, d)| *d == Deed::OldDatabase);
        }
        let racks = spec.machines.div_ceil(RACK) as usize;
        let (seed, machines) = (spec.seed, vms.len());
        let rngs = (0..machines).map(|n| Rng::stream(seed, 5_000_000 + n as u64)).collect();
        let mut runner = Self {
            rng: Rng::stream(seed, 0x0add),
            rngs,
            dice,
            decider,
            sabotage: None,
            site: Arc::new(site),
            durations,
            director: None,
            older: None,
            store,
            snapshot: None,
            keeps_snapshots,
            generation: 0,
            checker,
            people,
            deeds: Vec::new(),
            queue: BinaryHeap::new(),
            writes: VecDeque::new(),
            write_at: EngineTime::ZERO,
            full_until: EngineTime::ZERO,
            may_halt: false,
            bmc_out: vec![EngineTime::ZERO; racks],
            host_out: vec![EngineTime::ZERO; racks],
            dark_until: vec![EngineTime::ZERO; racks],
            core_out: (EngineTime::ZERO, EngineTime::ZERO),
            said: BTreeMap::new(),
            ticket: 0,
            n: 0,
            life: 0,
            now: EngineTime::ZERO,
            faults_seen: vec![0; machines],
            callbacks_seen: vec![0; machines],
            poke_at: vec![EngineTime::NEVER; machines],
            was_expected: vec![false; machines],
            step_columns,
            coverage: Coverage::default(),
            stats: Stats::default(),
            events: 0,
            out: Vec::new(),
            trace: None,
            spec,
            vms,
            lines,
        };
        for (at, deed) in plan {
            runner.push(at, Item::Deed { deed: Box::new(deed), again: false });
        }
        if keeps_snapshots {
            runner.push(EngineTime(HOUR / 2), Item::Snapshot);
        }
        runner
    }

    /// Prints the journal of this machine to stderr as it becomes durable.
    pub fn trace(&mut self, machine: MachineId) {
        self.trace = Some(machine);
    }

    /// Stands between the director and the world, and breaks something.
    pub fn sabotage(&mut self, sabotage: Sabotage) {
        self.sabotage = Some(sabotage);
    }

    /// Runs both phases to their end.
    pub fn finish(mut self) -> Ran {
        let safety = match &self.spec.script {
            Some(script) => script.until,
            None => EngineTime(self.spec.days * DAY),
        };
        self.start();
        while let Some(at) = self.next_at()
            && at < safety
            && self.checker.count() < self.spec.stop_after
        {
            self.step(at);
        }
        self.now = safety;
        self.dice.set_on(false);
        for vm in &mut self.vms {
            vm.dice.set_on(false);
        }
        if self.spec.liveness_days > 0 && self.checker.count() < self.spec.stop_after {
            self.settle(safety);
        }
        for i in 0..self.vms.len() {
            self.look_at_truth(i);
        }
        self.unanswered();
        self.checker.refold(self.now, &self.store);
        for vm in &self.vms {
            self.stats.flashes +=
                vm.truth.count(|e| matches!(e.what, What::FlashStarted { .. })) as u64;
            self.stats.installs += vm.truth.count(|e| e.what == What::InstallStarted) as u64;
            self.stats.wipes += vm.truth.count(|e| e.what == What::WipeStarted) as u64;
        }
        let script = self.checker.violations().first().map(|v| {
            let site = self.dice.log();
            let vms = self.vms.iter().map(|vm| (vm.id, vm.dice.log()));
            Script::record(&self.spec, v, safety, &self.deeds, site, vms)
        });
        let story = match self.checker.violations().first() {
            Some(v) => story::of(v, &self.store, &self.vms[v.machine.0 as usize]),
            None => Vec::new(),
        };
        Ran {
            events: self.events,
            violation_count: self.checker.count(),
            violations: self.checker.violations().to_vec(),
            journal_hash: self.checker.journal_hash(),
            coverage: self.coverage,
            stats: self.stats,
            script,
            story,
        }
    }

    /// The liveness phase: everything healthy must arrive.
    fn settle(&mut self, safety: EngineTime) {
        let last = safety + self.spec.liveness_days * DAY;
        let mut check = safety + DAY / 24;
        let mut settled = false;
        while let Some(at) = self.next_at()
            && at < last
            && self.checker.count() < self.spec.stop_after
        {
            self.step(at);
            if self.now >= check {
                check = self.now + DAY / 24;
                if self.laggards().is_empty() {
                    settled = true;
                    break;
                }
            }
        }
        self.stats.settled_ms = self.now.since(safety);
        if settled {
            return;
        }
        for id in self.laggards() {
            let row = self.checker.row(id);
            let text = format!(
                "{} desired {:?}, {}, step {:?}, open {:?}, waiting {:?}, last fault {:?}",
                row.stage,
                row.desired,
                row.condition.name(),
                row.step.as_ref().map(|s| &*s.key),
                row.open.as_ref().map(|o| (o.action.kind(), o.state)),
                row.waiting,
                row.last_fault.as_ref().map(|f| f.fault.to_string()),
            );
            self.checker.violate("liveness", self.now, id, || text);
        }
    }

    /// Healthy managed machines that are not where people want them.
    fn laggards(&self) -> Vec<MachineId> {
        self.vms
            .iter()
            .filter(|vm| vm.sick.is_none())
            .map(|vm| vm.id)
            .filter(|id| {
                let row = self.checker.row(*id);
                row.hold.is_some()
                    || row.control != crate::model::Control::Unmanaged && !has_arrived(row)
            })
            .collect()
    }

    fn push(&mut self, at: EngineTime, item: Item) {
        self.n += 1;
        self.queue.push(Reverse(Queued { at, n: self.n, item }));
    }

    fn next_at(&self) -> Option<EngineTime> {
        let queue = self.queue.peek().map_or(EngineTime::NEVER, |q| q.0.at);
        let write = self.writes.front().map_or(EngineTime::NEVER, |w| w.at);
        let due = self.director.as_ref().map_or(EngineTime::NEVER, Director::next_due);
        let older = self.older.as_ref().map_or(EngineTime::NEVER, |(d, _)| d.next_due());
        let at = queue.min(write).min(due).min(older).max(self.now);
        (at != EngineTime::NEVER).then_some(at)
    }

    fn step(&mut self, at: EngineTime) {
        self.now = at;
        if self.writes.front().is_some_and(|w| w.at <= at) {
            if let Some(w) = self.writes.pop_front() {
                self.written(w);
            }
        } else if self.queue.peek().is_some_and(|q| q.0.at <= at) {
            if let Some(Reverse(queued)) = self.queue.pop() {
                self.arrived(queued.item);
            }
        } else if self.older.as_ref().is_some_and(|(d, _)| d.next_due() <= at) {
            self.feed_older(Event::Tick);
        } else {
            self.feed(Event::Tick);
        }
    }

    fn arrived(&mut self, item: Item) {
        match item {
            Item::Probed { machine, token, report, life } => {
                let event = Event::Probed { machine, token, report };
                if life == self.life {
                    self.checker.probe_answered(machine);
                    self.feed(event);
                } else if self.lives(life) {
                    self.feed_older(event);
                }
            }
            Item::ActArrives(act) => self.act_arrives(*act),
            Item::Acted { machine, seq, outcome, life } => {
                let event = Event::Acted { machine, seq, outcome: *outcome };
                if life == self.life {
                    self.checker.act_answered(machine);
                    self.feed(event);
                } else if self.lives(life) {
                    self.feed_older(event);
                }
            }
            Item::Deed { deed, again } => self.deed(*deed, again),
            Item::Say(said) => self.say(*said),
            Item::Poke { machine } => {
                let i = machine.0 as usize;
                self.poke_at[i] = EngineTime::NEVER;
                self.vms[i].advance(self.now);
                self.look_at_truth(i);
                if self.director.is_some() {
                    self.feed(Event::Poke { machine });
                }
            }
            Item::MainsBack { rack } => self.mains_back(rack),
            Item::Snapshot => {
                if self.keeps_snapshots {
                    self.snapshot = Some(self.store.snapshot());
                    self.push(self.now + HOUR, Item::Snapshot);
                }
            }
            Item::Restart => self.start(),
        }
    }
}
