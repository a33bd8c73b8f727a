//! The director: the engine without I/O. It owns the rows, knows what is due, and turns events
//! into commands. State changes only when its commit is confirmed.

mod commits;
mod hearing;
mod orders;
mod slot;
mod view;

use super::event::{Command, Event};
use super::headroom::{Headroom, bit};
use super::outages::Outages;
use crate::decide::{Decide, Input, Room, Rules, Verdict, probes, retry};
use crate::model::facts::ProbeSet;
use crate::model::{
    Action, ActionKind, EngineTime, Entry, Expected, Machine, MachineId, Outcome, Report,
};
use crate::port::store::{Loaded, SiteState, Stopped};
use crate::steps::site::{Profile, Site};
use crate::steps::workflow::Workflow;
use orders::store_fault;
use slot::Slot;
use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;

/// How this process runs the engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Probes only, whatever people want.
    pub observe_only: bool,
    /// First looks after a start are spread over this many milliseconds.
    pub spread_ms: u64,
}

/// What follows a durable commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Look(EngineTime),
    Act,
}

/// See the module's head.
#[derive(Debug)]
pub struct Director<D: Decide = Rules> {
    decider: D,
    settings: Settings,
    site: Arc<Site>,
    state: SiteState,
    slots: Vec<Option<Slot>>,
    due: BTreeSet<(EngineTime, MachineId)>,
    headroom: Headroom,
    outages: Outages,
    token: u64,
    /// A stop that is not durable yet counts at once; its resumption counts when durable.
    stopping: VecDeque<(Option<Stopped>, u64)>,
    quarantines: VecDeque<EngineTime>,
    /// The breaker's stop could not be made durable: said again after the next commit that is.
    unsaid: Option<Stopped>,
    /// Why the last commit failed: no new actions until one succeeds.
    trouble: Option<String>,
}

/// Pause before a failed commit is said again.
const COMMIT_PAUSE_MS: u64 = 1_000;
/// First look after an action was taken.
const FIRST_LOOK_MS: u64 = 2_000;

impl<D: Decide> Director<D> {
    /// Starts from what the store holds: recovery and first start are one thing.
    pub fn new(
        decider: D,
        settings: Settings,
        loaded: Loaded,
        site: Arc<Site>,
        now: EngineTime,
    ) -> Self {
        let headroom = Headroom::new(site.limits.clone());
        let outages = Outages::new(site.remediation.outage);
        let slots = loaded.machines.last().map_or(0, |m| m.id.0 as usize + 1);
        let mut director = Self {
            decider,
            settings,
            site,
            state: loaded.state,
            slots: Vec::with_capacity(slots),
            due: BTreeSet::new(),
            headroom,
            outages,
            token: 0,
            stopping: VecDeque::new(),
            quarantines: VecDeque::new(),
            unsaid: None,
            trouble: None,
        };
        // Taken out, not looked up: the map's memory is free again before the due list is made.
        let mut lines = loaded.expected;
        for row in loaded.machines {
            let id = row.id;
            let expected = lines.remove(&id);
            let spread = retry::jitter(id, now) % settings.spread_ms.max(1);
            director.place(row, expected, now + spread);
        }
        drop(lines);
        // At once: one by one in order leaves the set's nodes half empty.
        director.due = director.slots.iter().flatten().map(|s| (s.due, s.row.id)).collect();
        director.recall_outages();
        director
    }

    fn insert(&mut self, row: Machine, expected: Option<Arc<Expected>>, due: EngineTime) {
        self.due.insert((due, row.id));
        self.place(row, expected, due);
    }

    fn place(&mut self, row: Machine, expected: Option<Arc<Expected>>, due: EngineTime) {
        let id = row.id;
        let index = id.0 as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        let held = held_bits(&row);
        if let Some(expected) = &expected {
            self.headroom.change(expected, 0, held);
        }
        self.slots[index] = Some(Slot {
            row,
            expected,
            due,
            probed_at: EngineTime::ZERO,
            busy: None,
            held,
            silent: 0,
        });
    }

    /// When the next machine is due.
    pub fn next_due(&self) -> EngineTime {
        self.due.first().map_or(EngineTime::NEVER, |(t, _)| *t)
    }

    fn slot(&self, id: MachineId) -> Option<&Slot> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    fn slot_mut(&mut self, id: MachineId) -> Option<&mut Slot> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }

    fn no_actions(&self) -> bool {
        self.settings.observe_only
            || self.trouble.is_some()
            || self.state.stopped.is_some()
            || self.unsaid.is_some()
            || self.stopping.iter().any(|(s, _)| s.is_some())
    }

    fn context<'a>(&'a self, slot: &'a Slot) -> Option<(&'a Expected, &'a Profile, &'a Workflow)> {
        let expected = slot.expected.as_deref()?;
        let profile = self.site.profiles.get(&expected.profile)?;
        let hash = slot.row.run.as_ref().map_or(&profile.workflow, |r| &r.workflow);
        let workflow = self.site.workflows.get(hash)?;
        Some((expected, profile, workflow))
    }

    /// Everything that a decision about this machine reads.
    fn input<'a>(
        &'a self,
        slot: &'a Slot,
        (expected, profile, workflow): (&'a Expected, &'a Profile, &'a Workflow),
        report: &'a Report,
        room: &'a dyn Room,
        now: EngineTime,
    ) -> Input<'a> {
        Input {
            m: &slot.row,
            expected,
            profile,
            site: &self.site,
            workflow,
            report,
            now,
            room,
            stopped: self.no_actions(),
            resumed: self.state.resumed_at,
            outage: self.outages.of(slot.row.id, expected, slot.row.lost_at(), now),
        }
    }

    fn set_due(&mut self, id: MachineId, due: EngineTime) {
        if let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut)
            && slot.due != due
        {
            self.due.remove(&(slot.due, id));
            slot.due = due;
            if due != EngineTime::NEVER {
                self.due.insert((due, id));
            }
        }
    }

    /// One event in, commands out.
    pub fn on(&mut self, now: EngineTime, event: Event, out: &mut Vec<Command>) {
        let whose = match &event {
            Event::Probed { machine, .. }
            | Event::Acted { machine, .. }
            | Event::Committed { machine, .. }
            | Event::Change { machine, .. } => Some(*machine),
            _ => None,
        };
        self.hear(now, event, out);
        if let Some(slot) = whose.and_then(|id| self.slot_mut(id)) {
            slot.tidy();
        }
    }

    fn hear(&mut self, now: EngineTime, event: Event, out: &mut Vec<Command>) {
        match event {
            Event::Tick => self.tick(now, out),
            Event::Probed { machine, token, report } => {
                let Some(slot) = self.slot_mut(machine) else { return };
                if slot.probing != NonZeroU64::new(token) {
                    return;
                }
                slot.probing = None;
                slot.probed_at = report.at;
                self.count_silence(machine, &report, now);
                let Some(slot) = self.slot_mut(machine) else { return };
                if slot.commit.is_some() {
                    // Looked at again after the commit: the row is about to change.
                    slot.later(Event::Poke { machine });
                    slot.last = Some(report);
                    return;
                }
                if slot.row.seq != slot.asked_at {
                    // The row moved on meanwhile (a person's word): it needs other parts, and these
                    // were read before. Read again.
                    slot.last = Some(report);
                    self.set_due(machine, now);
                    return;
                }
                self.consider(machine, report, now, out);
            }
            Event::Acted { machine, seq, outcome } => {
                let Some(slot) = self.slot_mut(machine) else { return };
                if slot.acting != NonZeroU64::new(seq) {
                    return;
                }
                slot.acting = None;
                if slot.commit.is_some() {
                    slot.later(Event::Acted { machine, seq, outcome });
                    slot.acting = NonZeroU64::new(seq);
                    return;
                }
                self.acted(machine, outcome, now, out);
            }
            Event::Committed { machine, result } => self.committed(machine, result, now, out),
            Event::Change { machine, change, by, key, ticket } => {
                self.change(machine, change, by, key, ticket, now, out);
            }
            Event::Stop { why, by, ticket } => {
                let stopped = why.map(|why| Stopped { by, why, at: now });
                self.stopping.push_back((stopped.clone(), ticket));
                out.push(Command::CommitStop { stopped });
            }
            Event::StopCommitted { result } => {
                let Some((stopped, ticket)) = self.stopping.pop_front() else { return };
                let result = match result {
                    Ok(()) => {
                        let resumed = stopped.is_none();
                        self.state.stopped = stopped;
                        if resumed {
                            self.state.resumed_at = now;
                            self.quarantines.clear();
                        }
                        Ok(0)
                    }
                    Err(e) => {
                        // A person hears of it and says it again; the breaker does so itself, and
                        // until then its stop counts as said.
                        if ticket == 0 && stopped.is_some() {
                            self.unsaid = stopped;
                        }
                        Err(store_fault(&e))
                    }
                };
                out.push(Command::Ack { ticket, result });
            }
            Event::Expect { machines } => {
                for (id, expected) in machines {
                    self.expect(id, expected, now, out);
                }
            }
            Event::Site { site } => self.reload(site, now),
            Event::Poke { machine } => {
                if let Some(slot) = self.slot(machine)
                    && slot.commit.is_none()
                    && slot.probing.is_none()
                    && slot.acting.is_none()
                {
                    self.set_due(machine, now);
                }
            }
        }
    }

    fn tick(&mut self, now: EngineTime, out: &mut Vec<Command>) {
        self.outages.prune(now);
        while let Some((at, id)) = self.due.first().copied() {
            if at > now {
                break;
            }
            self.set_due(id, EngineTime::NEVER);
            let Some(slot) = self.slot_mut(id) else { continue };
            if let Some(pending) = &mut slot.commit {
                if pending.failed {
                    pending.failed = false;
                    out.push(Command::Commit(pending.item.clone()));
                }
                continue;
            }
            if slot.probing.is_none() && slot.acting.is_none() {
                self.probe(id, now, out);
            }
        }
    }

    fn probe(&mut self, id: MachineId, now: EngineTime, out: &mut Vec<Command>) {
        self.token += 1;
        let token = self.token;
        let Some(slot) = self.slot(id) else { return };
        let Some((_, profile, workflow)) = self.context(slot) else {
            // Its profile or pinned workflow is not known: read the BMC, decide nothing.
            self.set_due(id, now + 60_000);
            return;
        };
        let set = probes::wanted(&slot.row, profile, workflow, now);
        let job = if set.has(ProbeSet::JOB) { job_name(&slot.row) } else { None };
        let handle = slot.row.open.as_ref().and_then(|o| o.handle.clone());
        let run = (set.has(ProbeSet::BOOT) || set.has(ProbeSet::HOST))
            .then(|| slot.row.run_name(&self.site.incarnation));
        if let Some(slot) = self.slot_mut(id) {
            slot.probing = NonZeroU64::new(token);
            slot.asked_at = slot.row.seq;
        }
        out.push(Command::Probe { machine: id, token, set, job, handle, run });
    }

    /// A fresh report: decide.
    fn consider(
        &mut self,
        id: MachineId,
        report: Box<Report>,
        now: EngineTime,
        out: &mut Vec<Command>,
    ) {
        let Some(slot) = self.slot(id) else { return };
        if slot.acting.is_some() {
            return;
        }
        let Some((expected, profile, workflow)) = self.context(slot) else {
            self.set_due(id, now + 60_000);
            return;
        };
        let view = self.headroom.view(expected);
        let context = (expected, profile, workflow);
        let verdict = self.decider.decide(&self.input(slot, context, &report, &view, now));
        let hit = view.into_hit();
        match verdict {
            Verdict::Rest { due, .. } => {
                self.keep(id, report);
                self.set_due(id, due.max(now + 1));
            }
            Verdict::Write { entries, due } => {
                self.commit(id, entries, Then::Look(due), vec![], Some(report), now, out);
            }
            Verdict::Act { entries } => {
                self.commit(id, entries, Then::Act, vec![], Some(report), now, out);
            }
        }
        // Last: room that was just taken is not offered to the next in the queue.
        self.queue(id, hit, now);
    }

    /// Remembers the last report of a machine on its way.
    fn keep(&mut self, id: MachineId, report: Box<Report>) {
        if let Some(slot) = self.slot_mut(id) {
            slot.last = slot.row.run.is_some().then_some(report);
        }
    }

    fn queue(&mut self, id: MachineId, hit: Option<(u16, Arc<str>)>, now: EngineTime) {
        let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        if slot.queued == hit {
            return;
        }
        let next = match slot.queued.take() {
            Some(old) => self.headroom.dequeue(&old, id),
            None => Vec::new(),
        };
        if let Some(new) = &hit {
            self.headroom.enqueue(new, id, now);
        }
        slot.queued = hit;
        self.wake(next, now);
    }

    /// Who waited for room is looked at now, unless something of it is under way.
    fn wake(&mut self, machines: Vec<MachineId>, now: EngineTime) {
        for woken in machines {
            let idle = self.slot(woken).is_some_and(|s| {
                s.commit.is_none() && s.probing.is_none() && s.acting.is_none() && s.due > now
            });
            if idle {
                self.set_due(woken, now);
            }
        }
    }

    fn acted(&mut self, id: MachineId, outcome: Outcome, now: EngineTime, out: &mut Vec<Command>) {
        let Some(slot) = self.slot(id) else { return };
        if slot.row.open.is_none() {
            return;
        }
        let entries = match self.context(slot) {
            Some((expected, profile, workflow)) => {
                let view = self.headroom.view(expected);
                let (context, report) = ((expected, profile, workflow), Report::default());
                let input = self.input(slot, context, &report, &view, now);
                self.decider.settle(&input, outcome)
            }
            None => vec![Entry::Settled { outcome }],
        };
        let due = entries
            .iter()
            .find_map(|e| match e {
                Entry::Faulted { not_before, .. } => Some(*not_before),
                _ => None,
            })
            .unwrap_or(now + FIRST_LOOK_MS);
        self.commit(id, entries, Then::Look(due), vec![], None, now, out);
    }
}

fn held_bits(row: &Machine) -> u8 {
    row.held_limits().fold(0, |bits, class| bits | bit(class))
}

/// The job of the open action, or the last one of the current step.
fn job_name(row: &Machine) -> Option<String> {
    if let Some(open) = &row.open
        && let Action::StartJob { name, .. } | Action::Deploy { name, .. } = &open.action
    {
        return Some(name.clone());
    }
    let acts = &row.step.as_ref()?.acts;
    let last = acts.iter().rev().find(|a| {
        matches!(a.kind, ActionKind::BurnInJob | ActionKind::WipeJob | ActionKind::DeployJob)
    })?;
    Some(last.about.clone())
}
