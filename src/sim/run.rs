//! The discrete-event runner: one seed, one world, one director at a time. A safety phase with
//! faults, kills and churn; then a liveness phase in which faults stop, people repair, and every
//! healthy managed machine must arrive.

use super::coverage::{Coverage, column};
use super::durations::Durations;
use super::faults::{Dice, FaultKind, Profile};
use super::invariants::{Checker, Violation, has_arrived};
use super::physics::{Ask, VirtualMachine};
use super::rng::Rng;
use super::scenario::{DAY, Deed, Scenario};
use super::store::MemStore;
use super::truth::What;
use super::workflows::{self, RACK};
use crate::decide::Decide;
use crate::engine::director::{Director, Settings};
use crate::engine::{Command, Event};
use crate::model::action::Touch;
use crate::model::facts::ProbeSet;
use crate::model::{
    Action, Change, Channel, EngineTime, Entry, Expect, Expected, Fault, FaultClass, MachineId,
    Outcome, Read, Report,
};
use crate::port::store::{CommitItem, Committed, Stopped, StoreError};
use crate::steps::site::Site;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

/// One run to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub machines: u32,
    /// Length of the safety phase.
    pub days: u64,
    pub seed: u64,
    pub profile: Profile,
    /// Longest liveness phase.
    pub liveness_days: u64,
}

impl Spec {
    pub fn new(machines: u32, days: u64, seed: u64, profile: Profile) -> Self {
        Self { machines, days, seed, profile, liveness_days: 4 }
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
}

/// Numbers that tell whether a run did anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub probes: u64,
    pub acts: u64,
    pub commits: u64,
    pub entries: u64,
    pub kills: u64,
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
        self.quarantines += o.quarantines;
        self.flashes += o.flashes;
        self.installs += o.installs;
        self.wipes += o.wipes;
        self.settled_ms = self.settled_ms.max(o.settled_ms);
    }
}

/// What waits in the queue.
#[derive(Debug)]
enum Item {
    Probed { machine: MachineId, token: u64, report: Box<Report>, life: u32 },
    ActArrives(Box<Arriving>),
    Acted { machine: MachineId, seq: u64, outcome: Box<Outcome>, life: u32 },
    Deed(Box<Deed>),
    Poke { machine: MachineId },
    Restart,
}

#[derive(Debug)]
struct Arriving {
    machine: MachineId,
    seq: u64,
    action: Action,
    expect: Expect,
    life: u32,
    meets: Meets,
}

/// What an action meets on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meets {
    Nothing,
    LostBefore,
    LostAfter,
    /// Taken; applied this much later; answered at once or never.
    Late {
        ms: u64,
        answered: bool,
    },
    NotDone,
    Refused,
    Throttled,
}

#[derive(Debug)]
struct Queued {
    at: EngineTime,
    n: u64,
    item: Item,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.n == other.n
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.n).cmp(&(other.at, other.n))
    }
}

#[derive(Debug)]
enum Write {
    Item(Box<CommitItem>),
    Stop(Option<Stopped>),
}

/// A change that was said and not yet acknowledged: said again after a restart, with its key.
#[derive(Clone, Debug)]
enum Said {
    Change { machine: MachineId, change: Change, key: String },
    Stop { why: Option<String> },
}

/// Longest time that the runner waits before it asks a restarted daemon again.
const DOWN_MIN_MS: u64 = 1_000;
const DOWN_MAX_MS: u64 = 90_000;

/// One run under way.
pub struct Runner<D: Decide + Clone> {
    spec: Spec,
    decider: D,
    site: Arc<Site>,
    durations: Arc<Durations>,
    director: Option<Director<D>>,
    vms: Vec<VirtualMachine>,
    lines: Vec<Arc<Expected>>,
    store: MemStore,
    checker: Checker,
    people: Scenario,
    rng: Rng,
    dice: Dice,
    queue: BinaryHeap<Reverse<Queued>>,
    /// The writer's queue: first in, first durable.
    writes: VecDeque<(EngineTime, Write, Option<StoreError>)>,
    write_at: EngineTime,
    full_until: EngineTime,
    outages: BTreeMap<u32, EngineTime>,
    said: BTreeMap<u64, Said>,
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
        let site = Arc::new(workflows::site());
        let (people, vms, lines, plan) =
            Scenario::new(spec.seed, spec.machines, spec.days, &spec.profile, &durations);
        let kinds = |w: &Arc<crate::steps::workflow::Workflow>| {
            w.steps.iter().map(|s| s.step.kind()).collect()
        };
        let kinds = site.workflows.values().next().map(kinds).unwrap_or_default();
        let mut checker = Checker::new(site.limits.clone(), kinds);
        for line in &lines {
            checker.add(line);
        }
        let step_columns = site
            .workflows
            .values()
            .next()
            .map(|w| w.steps.iter().map(|s| column(Some(s.step.kind()))).collect())
            .unwrap_or_default();
        let store = MemStore::new(vms.len(), site.incarnation.clone());
        let dice = Dice::new(&spec.profile, Rng::stream(spec.seed, 0x517e));
        let mut runner = Self {
            rng: Rng::stream(spec.seed, 0x0add),
            dice,
            decider,
            site,
            durations,
            director: None,
            store,
            checker,
            people,
            queue: BinaryHeap::new(),
            writes: VecDeque::new(),
            write_at: EngineTime::ZERO,
            full_until: EngineTime::ZERO,
            outages: BTreeMap::new(),
            said: BTreeMap::new(),
            ticket: 0,
            n: 0,
            life: 0,
            now: EngineTime::ZERO,
            faults_seen: vec![0; vms.len()],
            callbacks_seen: vec![0; vms.len()],
            poke_at: vec![EngineTime::NEVER; vms.len()],
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
            runner.push(at, Item::Deed(Box::new(deed)));
        }
        runner.start();
        runner
    }

    /// Prints the journal of this machine to stderr as it becomes durable.
    pub fn trace(&mut self, machine: MachineId) {
        self.trace = Some(machine);
    }

    /// Runs both phases to their end.
    pub fn finish(mut self) -> Ran {
        let safety = EngineTime(self.spec.days * DAY);
        while let Some(at) = self.next_at()
            && at < safety
        {
            self.step(at);
        }
        self.now = safety;
        self.dice.set_on(false);
        for vm in &mut self.vms {
            vm.dice.set_on(false);
        }
        let last = safety + self.spec.liveness_days * DAY;
        let mut check = safety + DAY / 24;
        let mut settled = false;
        while let Some(at) = self.next_at()
            && at < last
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
        if !settled {
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
        for i in 0..self.vms.len() {
            self.look_at_truth(i);
        }
        self.checker.refold(self.now, &self.store);
        for vm in &self.vms {
            self.stats.flashes +=
                vm.truth.count(|e| matches!(e.what, What::FlashStarted { .. })) as u64;
            self.stats.installs += vm.truth.count(|e| e.what == What::InstallStarted) as u64;
            self.stats.wipes += vm.truth.count(|e| e.what == What::WipeStarted) as u64;
        }
        Ran {
            events: self.events,
            violation_count: self.checker.count(),
            violations: self.checker.violations().to_vec(),
            journal_hash: self.checker.journal_hash(),
            coverage: self.coverage,
            stats: self.stats,
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
        let write = self.writes.front().map_or(EngineTime::NEVER, |w| w.0);
        let due = self.director.as_ref().map_or(EngineTime::NEVER, Director::next_due);
        let at = queue.min(write).min(due).max(self.now);
        (at != EngineTime::NEVER).then_some(at)
    }

    fn step(&mut self, at: EngineTime) {
        self.now = at;
        if self.writes.front().is_some_and(|w| w.0 <= at) {
            if let Some((_, write, fails)) = self.writes.pop_front() {
                self.written(write, fails);
            }
        } else if self.queue.peek().is_some_and(|q| q.0.at <= at) {
            if let Some(Reverse(queued)) = self.queue.pop() {
                self.arrived(queued.item);
            }
        } else {
            self.feed(Event::Tick);
        }
    }

    fn arrived(&mut self, item: Item) {
        match item {
            Item::Probed { machine, token, report, life } => {
                if life == self.life {
                    self.checker.probe_answered(machine);
                    self.feed(Event::Probed { machine, token, report });
                }
            }
            Item::ActArrives(act) => self.act_arrives(*act),
            Item::Acted { machine, seq, outcome, life } => {
                if life == self.life {
                    self.checker.act_answered(machine);
                    self.feed(Event::Acted { machine, seq, outcome: *outcome });
                }
            }
            Item::Deed(deed) => self.deed(*deed),
            Item::Poke { machine } => {
                let i = machine.0 as usize;
                self.poke_at[i] = EngineTime::NEVER;
                self.vms[i].advance(self.now);
                self.look_at_truth(i);
                if self.director.is_some() {
                    self.feed(Event::Poke { machine });
                }
            }
            Item::Restart => self.start(),
        }
    }

    fn start(&mut self) {
        let settings = Settings { observe_only: false, spread_ms: 30_000 };
        let loaded = self.store.load(self.now);
        self.director = Some(Director::new(
            self.decider.clone(),
            settings,
            loaded,
            self.site.clone(),
            self.now,
        ));
        // People say again what nobody acknowledged, with the same key.
        for (_, said) in std::mem::take(&mut self.said) {
            self.say(said);
        }
        // The inventory is read at every start.
        let known: Vec<(MachineId, Arc<Expected>)> = self
            .lines
            .iter()
            .enumerate()
            .filter(|(i, _)| self.store.rows[*i].is_some())
            .map(|(i, line)| (self.vms[i].id, line.clone()))
            .collect();
        if !known.is_empty() {
            self.feed(Event::Expect { machines: known });
        }
    }

    fn kill(&mut self) {
        self.stats.kills += 1;
        self.director = None;
        self.life += 1;
        self.checker.killed(self.now);
        // What the writer had gathered is durable up to some point, and nobody was told.
        let durable = self.rng.below(self.writes.len() as u64 + 1);
        let writes = std::mem::take(&mut self.writes);
        for (i, (_, write, fails)) in writes.into_iter().enumerate() {
            if (i as u64) < durable && fails.is_none() {
                self.make_durable(write);
            }
        }
        let down = self.rng.between(DOWN_MIN_MS, DOWN_MAX_MS);
        self.push(self.now + down, Item::Restart);
    }

    /// One event in, its commands carried out; the daemon may die before any of them.
    fn feed(&mut self, event: Event) {
        let mut out = std::mem::take(&mut self.out);
        if let Some(director) = &mut self.director {
            self.events += 1;
            director.on(self.now, event, &mut out);
        }
        let mut commands = out.drain(..);
        while let Some(command) = commands.next() {
            // Most commands are probes; the dangerous moments are the acts and their intents.
            let dangerous = match &command {
                Command::Act { .. } | Command::CommitStop { .. } => true,
                Command::Commit(item) => matches!(item.entries.last(), Some(Entry::Intent { .. })),
                _ => false,
            };
            let throws = if dangerous { 16 } else { 1 };
            if (0..throws).any(|_| self.dice.throw(FaultKind::Kill, self.now)) {
                self.coverage.crash(&command);
                if let Command::Act { machine, .. } | Command::Probe { machine, .. } = &command {
                    self.coverage.fault(FaultKind::Kill, self.column(*machine));
                } else if let Command::Commit(item) = &command {
                    self.coverage.fault(FaultKind::Kill, self.column(item.machine));
                }
                drop(commands);
                self.out = out;
                self.kill();
                return;
            }
            self.carry_out(command);
        }
        drop(commands);
        self.out = out;
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Commit(item) => self.commit(item),
            Command::CommitStop { stopped } => self.enqueue_write(Write::Stop(stopped), None),
            Command::Probe { machine, token, set, job, handle, run } => {
                self.checker.probe_sent(self.now, machine);
                self.probe(machine, token, set, job.as_deref(), handle.as_deref(), run.as_deref());
            }
            Command::Act { machine, seq, action, expect } => self.act(machine, seq, action, expect),
            Command::Ack { ticket, result } => self.acknowledged(ticket, &result),
            Command::Halt { why } => {
                self.checker.violate("halt", self.now, MachineId(0), || why);
                self.kill();
            }
        }
    }

    // --- the store

    fn commit(&mut self, item: Box<CommitItem>) {
        self.checker.commit_sent(self.now, item.machine);
        let i = item.machine.0 as usize;
        let mut fails = None;
        if self.full_until > self.now {
            fails = Some(StoreError::Full("no space left on device".into()));
        } else if self.dice.throw(FaultKind::DiskFull, self.now) {
            self.full_until = self.now + self.rng.between(10_000, 600_000);
            self.checker.trouble(self.now);
            self.vms[i].dice.record(FaultKind::DiskFull, self.now);
            fails = Some(StoreError::Full("no space left on device".into()));
        } else if self.dice.throw(FaultKind::CommitFails, self.now) {
            self.checker.trouble(self.now);
            self.vms[i].dice.record(FaultKind::CommitFails, self.now);
            fails = Some(StoreError::NotWritten("database is locked".into()));
        }
        if fails.is_some() {
            self.look_at_faults(i);
        }
        self.enqueue_write(Write::Item(item), fails);
    }

    fn enqueue_write(&mut self, write: Write, fails: Option<StoreError>) {
        let at = self.now + self.durations.commit.pick(&mut self.rng);
        self.write_at = self.write_at.max(at);
        self.writes.push_back((self.write_at, write, fails));
    }

    fn written(&mut self, write: Write, fails: Option<StoreError>) {
        match (write, fails) {
            (Write::Item(item), Some(error)) => {
                self.checker.commit_answered(item.machine);
                self.feed(Event::Committed { machine: item.machine, result: Err(error) });
            }
            (Write::Item(item), None) => {
                let machine = item.machine;
                let result = self.make_durable(Write::Item(item));
                self.checker.commit_answered(machine);
                self.feed(Event::Committed { machine, result: Ok(result) });
            }
            (Write::Stop(stopped), _) => {
                self.make_durable(Write::Stop(stopped));
                self.feed(Event::StopCommitted { result: Ok(()) });
            }
        }
    }

    fn make_durable(&mut self, write: Write) -> Committed {
        match write {
            Write::Stop(stopped) => {
                self.store.set_stopped(stopped, self.now);
                Committed::Durable
            }
            Write::Item(item) => {
                let i = item.machine.0 as usize;
                if let Some(verdict) = self.store.refusal(&item) {
                    if let Committed::Conflict { stored_seq } = &verdict {
                        let seq = *stored_seq;
                        self.checker.violate("conflict", self.now, item.machine, || {
                            format!("stored seq {seq}, expected {}", item.after_seq)
                        });
                    }
                    return verdict;
                }
                self.stats.commits += 1;
                self.stats.entries += item.entries.len() as u64;
                for entry in &item.entries {
                    match entry {
                        Entry::Quarantined { .. } => self.stats.quarantines += 1,
                        Entry::StepEnded { key, .. } => {
                            let steps = self.site.workflows.values().next();
                            if let Some(spec) =
                                steps.and_then(|w| w.steps.iter().find(|s| s.key == *key))
                            {
                                let c = column(Some(spec.step.kind()));
                                self.coverage.ended[c] += 1;
                            }
                        }
                        _ => {}
                    }
                    if self.trace == Some(item.machine) {
                        eprintln!("{:>12} {}", self.now.0, serde_json::json!(entry));
                    }
                }
                self.checker.durable(self.now, &item, self.store.stopped.as_ref(), &self.vms[i]);
                self.store.commit(*item)
            }
        }
    }

    // --- the machines

    fn column(&self, machine: MachineId) -> usize {
        let step = self.checker.row(machine).step.as_ref();
        step.and_then(|s| self.step_columns.get(usize::from(s.index)).copied())
            .unwrap_or_else(|| column(None))
    }

    /// Takes note of what the dice of machine `i` have thrown since.
    fn look_at_faults(&mut self, i: usize) {
        let log = self.vms[i].dice.log();
        if log.len() == self.faults_seen[i] {
            return;
        }
        let column = self.column(self.vms[i].id);
        for injected in &self.vms[i].dice.log()[self.faults_seen[i]..] {
            self.coverage.fault(injected.kind, column);
        }
        self.faults_seen[i] = self.vms[i].dice.log().len();
    }

    fn look_at_truth(&mut self, i: usize) {
        let vm = &self.vms[i];
        self.checker.effects(vm.id, vm);
        self.look_at_faults(i);
        // A host that called back makes the boot server poke the engine.
        let vm = &self.vms[i];
        if vm.callbacks != self.callbacks_seen[i] {
            let news = vm.callbacks - self.callbacks_seen[i];
            self.callbacks_seen[i] = vm.callbacks;
            let id = vm.id;
            for k in 0..news {
                self.push(self.now + u64::from(k) * 50 + 5, Item::Poke { machine: id });
            }
        }
        let vm = &self.vms[i];
        let next = vm.next_at();
        if vm.is_installing() && next != EngineTime::NEVER && self.poke_at[i] == EngineTime::NEVER {
            self.poke_at[i] = next;
            let id = vm.id;
            self.push(next, Item::Poke { machine: id });
        }
    }

    fn probe(
        &mut self,
        machine: MachineId,
        token: u64,
        set: ProbeSet,
        job: Option<&str>,
        handle: Option<&str>,
        run: Option<&str>,
    ) {
        self.stats.probes += 1;
        let i = machine.0 as usize;
        let key = self
            .director
            .as_ref()
            .and_then(|d| d.machine(machine))
            .and_then(|m| m.host_key.clone());
        let key = key.as_deref().or(self.lines[i].host.host_key.as_deref());
        let vm = &mut self.vms[i];
        let mut report =
            Box::new(vm.probe(self.now, &Ask { set, job, handle, run, host_key: key }));
        let mut ms = self.durations.read.pick(&mut self.rng);
        if set.0 & !ProbeSet::SYSTEM.0 != 0 {
            ms += if set.has(ProbeSet::INVENTORY) || set.has(ProbeSet::FIRMWARE) {
                self.durations.read_big.pick(&mut self.rng)
            } else {
                self.durations.ssh.pick(&mut self.rng)
            };
        }
        let rack = machine.0 / RACK;
        if let Some(until) = self.outages.get(&rack)
            && *until > self.now
        {
            silence(&mut report, "the management network is down");
            ms = 10_000;
        } else {
            ms += meddle(&mut self.vms[i].dice, &mut self.rng, self.now, &mut report);
        }
        self.look_at_truth(i);
        report.at = self.now;
        let life = self.life;
        self.push(self.now + ms, Item::Probed { machine, token, report, life });
    }

    fn act(&mut self, machine: MachineId, seq: u64, action: Action, expect: Expect) {
        self.stats.acts += 1;
        let i = machine.0 as usize;
        self.vms[i].advance(self.now);
        self.look_at_truth(i);
        self.checker.act_sent(self.now, machine, seq, &action, &expect, &self.vms[i]);
        let class = action.kind().class();
        let dice = &mut self.vms[i].dice;
        let meets = if dice.throw(FaultKind::ActLostBefore, self.now) {
            Meets::LostBefore
        } else if dice.throw(FaultKind::ActLostAfter, self.now) {
            Meets::LostAfter
        } else if class.lag_ms > 0 && dice.throw(FaultKind::ActLate, self.now) {
            let ms = 1 + self.rng.below(class.lag_ms.saturating_sub(2_000).max(1));
            Meets::Late { ms, answered: self.rng.chance(500_000) }
        } else if dice.throw(FaultKind::ActNotDone, self.now) {
            Meets::NotDone
        } else if dice.throw(FaultKind::ActRefused, self.now) {
            Meets::Refused
        } else if dice.throw(FaultKind::ActThrottled, self.now) {
            Meets::Throttled
        } else {
            Meets::Nothing
        };
        self.look_at_faults(i);
        let ms = match action {
            Action::Hook { .. } => self.durations.hook.pick(&mut self.rng),
            Action::StartJob { .. } => self.durations.ssh.pick(&mut self.rng),
            _ => self.durations.act.pick(&mut self.rng),
        }
        .min(class.deadline_ms / 2);
        self.checker.act_under_way(machine, self.now + ms);
        let life = self.life;
        let arriving = Arriving { machine, seq, action, expect, life, meets };
        self.push(self.now + ms, Item::ActArrives(Box::new(arriving)));
    }

    fn act_arrives(&mut self, a: Arriving) {
        let i = a.machine.0 as usize;
        // The daemon died meanwhile: the request may have been sent or not.
        if a.life != self.life && self.rng.chance(500_000) {
            self.checker.act_over(a.machine, self.now);
            return;
        }
        let rack_down =
            self.outages.get(&(a.machine.0 / RACK)).is_some_and(|until| *until > self.now);
        let touches_bmc = a.action.kind().class().touches.contains(&Touch::Bmc);
        let deadline = a.action.kind().class().deadline_ms;
        let rest = 1 + self.rng.below(1_000);
        let vm = &mut self.vms[i];
        let channel = if touches_bmc { Channel::Bmc } else { Channel::Host };
        let failed = |class, code, text: &str| Outcome::Failed {
            fault: Fault::new(class, channel, code, text),
        };
        let unknown = || Outcome::Unknown {
            fault: Fault::new(
                FaultClass::OutcomeUnknown,
                channel,
                "deadline",
                "no answer within the deadline",
            ),
        };
        let mut over_at = self.now;
        let (outcome, after) = if rack_down && touches_bmc {
            (Outcome::Failed { fault: Fault::no_answer(Channel::Bmc, "connect timed out") }, rest)
        } else {
            match a.meets {
                Meets::LostBefore => (unknown(), deadline),
                Meets::Refused => (failed(FaultClass::Transient, "http-503", "503"), rest),
                Meets::Throttled => {
                    let fault = Fault::new(FaultClass::Throttled, channel, "http-429", "429");
                    (Outcome::Failed { fault: fault.retry_after(30_000) }, rest)
                }
                meets => match vm.refusal(self.now, &a.action, &a.expect) {
                    Some(outcome) => (outcome, rest),
                    None => match meets {
                        Meets::NotDone => (Outcome::Applied { handle: None }, rest),
                        Meets::Late { ms, answered } => {
                            let late = self.now + ms;
                            vm.apply_late(late, a.seq, &a.action);
                            over_at = late;
                            if answered {
                                (Outcome::Applied { handle: None }, rest)
                            } else {
                                (unknown(), deadline)
                            }
                        }
                        Meets::LostAfter => {
                            vm.apply(self.now, a.seq, &a.action);
                            (unknown(), deadline)
                        }
                        _ => (vm.apply(self.now, a.seq, &a.action), rest),
                    },
                },
            }
        };
        self.checker.act_over(a.machine, self.now);
        self.checker.act_under_way(a.machine, over_at);
        let flashed = matches!(
            self.vms[i].truth.effects().last(),
            Some(e) if matches!(e.what, What::FlashStarted { .. }) && e.at == self.now
        );
        self.look_at_truth(i);
        if flashed {
            self.checker.physical_flashes(self.now, a.machine, &self.vms);
        }
        let item = Item::Acted {
            machine: a.machine,
            seq: a.seq,
            outcome: Box::new(outcome),
            life: a.life,
        };
        self.push(self.now + after, item);
    }

    // --- people

    fn deed(&mut self, deed: Deed) {
        let now = self.now;
        match deed {
            Deed::Expect { first, count } => {
                let range = first as usize..(first + count) as usize;
                let machines: Vec<(MachineId, Arc<Expected>)> =
                    range.map(|i| (self.vms[i].id, self.lines[i].clone())).collect();
                for (id, line) in &machines {
                    self.store.expect(*id, line.clone());
                }
                if self.director.is_none() {
                    self.push(now + 60_000, Item::Deed(Box::new(Deed::Expect { first, count })));
                } else {
                    self.feed(Event::Expect { machines });
                    // A start-up commit that was lost in a crash is made at the next reading.
                    let missing =
                        (first..first + count).any(|n| self.store.row(MachineId(n)).is_none());
                    if missing {
                        self.push(
                            now + 120_000,
                            Item::Deed(Box::new(Deed::Expect { first, count })),
                        );
                    }
                }
            }
            Deed::Say { machine, change } => {
                self.n += 1;
                let key = format!("k{}", self.n);
                // An impatient client sends it twice.
                if self.rng.chance(20_000) {
                    let said = Said::Change { machine, change: change.clone(), key: key.clone() };
                    self.say(said);
                }
                self.say(Said::Change { machine, change, key });
            }
            Deed::Stop { why } => self.say(Said::Stop { why }),
            Deed::PressPower { machine } => self.vms[machine.0 as usize].press_power(now),
            Deed::Swap { machine } => {
                let other = self.people.stranger();
                self.vms[machine.0 as usize].swap(now, other);
            }
            Deed::Cross { machine } => {
                let other = self.people.stranger();
                self.vms[machine.0 as usize].cross_cables(now, Some(other));
            }
            Deed::Mend { machine } => self.vms[machine.0 as usize].mend(now),
            Deed::Rebuild { machine } => self.vms[machine.0 as usize].rebuild(now),
            Deed::Outage { rack, until } => {
                self.outages.insert(rack, until);
            }
            Deed::Rounds => {
                let store = &self.store;
                let plan = self.people.rounds(now, |id| store.row(id), &mut self.vms);
                for (at, deed) in plan {
                    self.push(at, Item::Deed(Box::new(deed)));
                }
            }
        }
    }

    fn say(&mut self, said: Said) {
        self.ticket += 1;
        let ticket = self.ticket;
        self.said.insert(ticket, said.clone());
        if self.director.is_none() {
            return;
        }
        let event = match said {
            Said::Change { machine, change, key } => {
                Event::Change { machine, change, by: "people".into(), key, ticket }
            }
            Said::Stop { why } => Event::Stop { why, by: "people".into(), ticket },
        };
        self.feed(event);
    }

    fn acknowledged(&mut self, ticket: u64, result: &Result<u64, Fault>) {
        let Some(said) = self.said.remove(&ticket) else { return };
        if let (Said::Change { machine, key, .. }, Ok(_)) = (&said, result)
            && !self.store.has_key(*machine, key)
        {
            self.checker.violate("ack-not-durable", self.now, *machine, || key.clone());
        }
        if let (Said::Stop { why }, Ok(_)) = (&said, result)
            && self.store.stopped.is_some() != why.is_some()
        {
            self.checker.violate("ack-not-durable", self.now, MachineId(0), || "stop".into());
        }
    }
}

/// Nothing comes back from the BMC.
fn silence(report: &mut Report, why: &str) {
    let fault = || Fault::no_answer(Channel::Bmc, why);
    if report.system.was_asked() {
        report.system = Read::Failed(fault());
    }
    if report.inventory.was_asked() {
        report.inventory = Read::Failed(fault());
    }
    if report.firmware.was_asked() {
        report.firmware = Read::Failed(fault());
    }
    if report.tasks.was_asked() {
        report.tasks = Read::Failed(fault());
    }
}

/// What a probe meets on its way; returns how much longer it takes.
fn meddle(dice: &mut Dice, rng: &mut Rng, now: EngineTime, report: &mut Report) -> u64 {
    if dice.throw(FaultKind::ProbeNoAnswer, now) {
        silence(report, "connection reset");
        return 3_000;
    }
    if dice.throw(FaultKind::ProbeHang, now) {
        silence(report, "no answer within 90 s");
        return 90_000;
    }
    let fault = |class, code, text: &str| Fault::new(class, Channel::Bmc, code, text);
    let whole = if dice.throw(FaultKind::ProbeError, now) {
        Some(fault(FaultClass::Transient, "http-500", "500 Internal Server Error"))
    } else if dice.throw(FaultKind::ProbeAuth, now) {
        Some(fault(FaultClass::Auth, "bad-credentials", "401 Unauthorized"))
    } else if dice.throw(FaultKind::ProbeThrottled, now) {
        Some(fault(FaultClass::Throttled, "http-429", "429").retry_after(20_000))
    } else {
        None
    };
    if let Some(fault) = whole {
        report.system = Read::Failed(fault);
        return 0;
    }
    if dice.throw(FaultKind::ProbePartial, now) {
        let http = || Fault::new(FaultClass::Transient, Channel::Bmc, "http-500", "500");
        match rng.below(6) {
            0 if report.firmware.was_asked() => report.firmware = Read::Failed(http()),
            1 if report.tasks.was_asked() => report.tasks = Read::Failed(http()),
            2 if report.host.was_asked() => {
                report.host = Read::Failed(Fault::no_answer(Channel::Host, "reset by peer"));
            }
            3 if report.job.was_asked() => {
                report.job = Read::Failed(Fault::no_answer(Channel::Host, "reset by peer"));
            }
            4 if report.cluster.was_asked() => {
                report.cluster = Read::Failed(Fault::new(
                    FaultClass::Transient,
                    Channel::Cluster,
                    "hook-failed",
                    "the hook ended with 1",
                ));
            }
            5 if report.inventory.was_asked() => report.inventory = Read::Failed(http()),
            _ => {}
        }
    }
    0
}
