//! The director: the engine without I/O. It owns the rows, knows what is due, and turns events
//! into commands. State changes only when its commit is confirmed.

mod hearing;

use super::event::{Command, Event};
use super::headroom::{Headroom, bit};
use super::outages::Outages;
use crate::decide::explain::{Explanation, explain};
use crate::decide::outage::Outage;
use crate::decide::stuck::{self, Stuck};
use crate::decide::{Decide, Input, Room, Rules, Verdict, probes, retry};
use crate::model::action::Touch;
use crate::model::facts::ProbeSet;
use crate::model::{
    Action, ActionKind, Change, Channel, EngineTime, Entry, Expected, Fault, FaultClass, Machine,
    MachineId, Outcome, Report, fold,
};
use crate::port::store::{CommitItem, Committed, Loaded, SiteState, Stopped, StoreError};
use crate::steps::site::{Profile, Site};
use crate::steps::workflow::Workflow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::ops::{Deref, DerefMut};
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

#[derive(Debug)]
struct Pending {
    item: Box<CommitItem>,
    then: Then,
    tickets: Vec<u64>,
    /// The store said no: say it again at the slot's due time.
    failed: bool,
}

#[derive(Debug)]
struct Slot {
    row: Machine,
    expected: Option<Arc<Expected>>,
    due: EngineTime,
    probed_at: EngineTime,
    /// Read and written as if it stood here; apart, because nearly all machines are at rest.
    busy: Option<Box<Busy>>,
    /// Limit classes counted in the headroom: the row's, and those of the row to be.
    held: u8,
    /// Who does not answer: bits of [`hearing`].
    silent: u8,
}

/// What is under way with a machine.
#[derive(Debug)]
struct Busy {
    probing: Option<NonZeroU64>,
    /// The row's seq when the probe was sent: what it reads was asked for by that row.
    asked_at: u64,
    acting: Option<NonZeroU64>,
    commit: Option<Box<Pending>>,
    /// What came while a commit was under way.
    backlog: VecDeque<Event>,
    queued: Option<(u16, Arc<str>)>,
    /// Last report of a machine on its way: for `explain`. Resting machines keep none.
    last: Option<Box<Report>>,
}

impl Busy {
    const NOTHING: Busy = Busy {
        probing: None,
        asked_at: 0,
        acting: None,
        commit: None,
        backlog: VecDeque::new(),
        queued: None,
        last: None,
    };

    fn is_nothing(&self) -> bool {
        self.probing.is_none()
            && self.acting.is_none()
            && self.commit.is_none()
            && self.backlog.is_empty()
            && self.queued.is_none()
            && self.last.is_none()
    }
}

impl Deref for Slot {
    type Target = Busy;
    fn deref(&self) -> &Busy {
        static NOTHING: Busy = Busy::NOTHING;
        self.busy.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut Busy {
        self.busy.get_or_insert_with(|| Box::new(Busy::NOTHING))
    }
}

/// 100,000 machines are resident: 1,000 bytes each, strings and all.
const _: () = assert!(size_of::<Option<Slot>>() <= 312 && size_of::<Expected>() <= 216);

impl Slot {
    /// Keeps an event until the commit that is under way is answered.
    fn later(&mut self, event: Event) {
        self.backlog.push_back(event);
    }

    /// The oldest event that was kept.
    fn kept(&mut self) -> Option<Event> {
        self.backlog.pop_front()
    }

    fn tidy(&mut self) {
        if self.busy.as_ref().is_some_and(|b| b.is_nothing()) {
            self.busy = None;
        }
    }
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

    pub fn machine(&self, id: MachineId) -> Option<&Machine> {
        self.slot(id).map(|s| &s.row)
    }

    pub fn expected(&self, id: MachineId) -> Option<&Arc<Expected>> {
        self.slot(id).and_then(|s| s.expected.as_ref())
    }

    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.slots.iter().flatten().map(|s| &s.row)
    }

    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    pub fn headroom(&self) -> &Headroom {
        &self.headroom
    }

    pub fn stopped(&self) -> Option<&Stopped> {
        self.state.stopped.as_ref()
    }

    /// Why the database can't be written at the moment. Until it can, no action starts, and what
    /// happened meanwhile is kept and written later.
    pub fn unwritable(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    pub fn observe_only(&self) -> bool {
        self.settings.observe_only
    }

    /// When the machine was last read, and when it is looked at next.
    pub fn times(&self, id: MachineId) -> Option<(EngineTime, EngineTime)> {
        self.slot(id).map(|s| (s.probed_at, s.due))
    }

    /// Is the machine past its stage's SLA? For people only.
    pub fn overdue(&self, id: MachineId, now: EngineTime) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        let Some((_, _, workflow)) = self.context(slot) else { return false };
        stuck::overdue_at(&slot.row, workflow).is_some_and(|at| now >= at)
    }

    /// The same in words; `None` when it is not.
    pub fn stuck(&self, id: MachineId, now: EngineTime) -> Option<Stuck> {
        let slot = self.slot(id)?;
        let (_, _, workflow) = self.context(slot)?;
        stuck::stuck(&slot.row, workflow, now)
    }

    /// Quarantines that the circuit breaker counts now, and how many trip it (0 = off).
    pub fn breaker(&self, now: EngineTime) -> (usize, u32) {
        let window = self.site.breaker_window_ms;
        let counted = self.quarantines.iter().filter(|t| now.since(**t) <= window).count();
        (counted, self.site.breaker_quarantines)
    }

    /// Actions that were started and not answered yet: a graceful stop waits for these.
    pub fn acting(&self) -> usize {
        self.slots.iter().flatten().filter(|s| s.acting.is_some()).count()
    }

    /// Commits that are not answered yet.
    pub fn committing(&self) -> usize {
        self.slots.iter().flatten().filter(|s| s.commit.is_some()).count()
    }

    /// When the next machine is due.
    pub fn next_due(&self) -> EngineTime {
        self.due.first().map_or(EngineTime::NEVER, |(t, _)| *t)
    }

    /// The live decision in words; `stored`: facts to use when none were read since the start.
    pub fn explain(
        &self,
        id: MachineId,
        now: EngineTime,
        stored: Option<&Report>,
    ) -> Option<Explanation> {
        let slot = self.slot(id)?;
        let empty = Report::default();
        let report = slot.last.as_deref().or(stored).unwrap_or(&empty);
        let (expected, profile, workflow) = self.context(slot)?;
        let room = self.headroom.view(expected);
        let input = self.input(slot, (expected, profile, workflow), report, &room, now);
        Some(explain(&self.decider, &input, slot.due))
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

    /// What machines share and is out now, or was until lately: for the API and metrics.
    pub fn outages(&self) -> impl Iterator<Item = &Outage> {
        self.outages.iter()
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

    /// Folds the entries into the row to be and asks the store to make them durable.
    #[allow(clippy::too_many_arguments, reason = "one call shape for every commit")]
    fn commit(
        &mut self,
        id: MachineId,
        entries: Vec<Entry>,
        then: Then,
        tickets: Vec<u64>,
        facts: Option<Box<Report>>,
        now: EngineTime,
        out: &mut Vec<Command>,
    ) {
        let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        let mut row = slot.row.clone();
        let mut entries = entries;
        let mut then = then;
        if let Some(illegal) = entries.iter().find_map(|e| fold::apply(&mut row, e, now).err()) {
            // A defect of ours: stop with this machine, keep the evidence, harm nothing.
            let fault = Fault::new(
                FaultClass::Bug,
                Channel::Engine,
                "illegal-entry",
                format!("a decision does not fit the machine's row: {illegal}"),
            )
            .hint("please report this with the machine's history");
            row = slot.row.clone();
            entries = vec![Entry::Quarantined { fault }];
            then = Then::Look(now + 60_000);
            if fold::apply(&mut row, &entries[0], now).is_err() {
                self.set_due(id, now + 60_000);
                return;
            }
        }
        let after = slot.held | held_bits(&row);
        let before = std::mem::replace(&mut slot.held, after);
        let item = Box::new(CommitItem {
            machine: id,
            after_seq: slot.row.seq,
            at: now,
            entries,
            row,
            facts,
        });
        slot.commit = Some(Box::new(Pending { item: item.clone(), then, tickets, failed: false }));
        if let Some(expected) = slot.expected.clone() {
            self.headroom.change(&expected, before, after);
        }
        self.set_due(id, EngineTime::NEVER);
        out.push(Command::Commit(item));
    }

    fn committed(
        &mut self,
        id: MachineId,
        result: Result<Committed, StoreError>,
        now: EngineTime,
        out: &mut Vec<Command>,
    ) {
        let Some(slot) = self.slot_mut(id) else { return };
        let Some(mut pending) = slot.commit.take() else { return };
        match result {
            Ok(Committed::Durable) => {}
            Ok(Committed::Repeated { .. }) => {
                // Said before, durable before: acknowledged again, done once.
                let seq = slot.row.seq;
                for ticket in pending.tickets {
                    out.push(Command::Ack { ticket, result: Ok(seq) });
                }
                self.release(id, now);
                self.set_due(id, now);
                self.drain(id, now, out);
                return;
            }
            Ok(Committed::Conflict { stored_seq }) => {
                let why = format!(
                    "another process writes this database: {} is at {stored_seq}, expected {}",
                    pending.item.row.name, pending.item.after_seq
                );
                out.push(Command::Halt { why });
                return;
            }
            Err(e @ (StoreError::NotWritten(_) | StoreError::Full(_))) => {
                self.trouble = Some(e.to_string());
                pending.failed = true;
                if let Some(slot) = self.slot_mut(id) {
                    slot.commit = Some(pending);
                }
                self.set_due(id, now + COMMIT_PAUSE_MS);
                return;
            }
            Err(e @ (StoreError::Unknown(_) | StoreError::Unusable(_))) => {
                out.push(Command::Halt { why: e.to_string() });
                return;
            }
        }
        let Pending { item, then, tickets, .. } = *pending;
        let quarantined = item.entries.iter().any(|e| matches!(e, Entry::Quarantined { .. }));
        slot.row = item.row;
        slot.last = if slot.row.run.is_some() { item.facts.or(slot.last.take()) } else { None };
        let seq = slot.row.seq;
        let lost = slot.row.lost_at();
        let excused =
            slot.expected.clone().is_some_and(|e| self.outages.of(id, &e, lost, now).is_some());
        self.trouble = None;
        if let Some(stopped) = self.unsaid.take() {
            self.stopping.push_back((Some(stopped.clone()), 0));
            out.push(Command::CommitStop { stopped: Some(stopped) });
        }
        for ticket in tickets {
            out.push(Command::Ack { ticket, result: Ok(seq) });
        }
        self.release(id, now);
        // What a domain that is out does to its machines says nothing of our own work.
        if quarantined && !excused {
            self.brake(now, out);
        }
        match then {
            Then::Look(due) => self.set_due(id, due.max(now)),
            Then::Act => self.start(id, now, out),
        }
        self.drain(id, now, out);
    }

    /// The intent is durable: do it, unless something newer says no.
    fn start(&mut self, id: MachineId, now: EngineTime, out: &mut Vec<Command>) {
        let no_actions = self.no_actions();
        let Some(slot) = self.slot_mut(id) else { return };
        let Some(open) = &slot.row.open else { return };
        let newer = slot.backlog.iter().any(|e| matches!(e, Event::Change { .. }));
        if newer || no_actions {
            let why = if newer { "a newer change came first" } else { "actions are stopped" };
            let entries = vec![Entry::Settled { outcome: Outcome::Withdrawn { why: why.into() } }];
            self.commit(id, entries, Then::Look(now), vec![], None, now, out);
            return;
        }
        let (seq, action, expect) = (open.seq, open.action.clone(), open.expect.clone());
        slot.acting = NonZeroU64::new(seq);
        if action.kind().class().touches.contains(&Touch::Power) {
            self.forget_host(id);
        }
        out.push(Command::Act { machine: id, seq, action, expect });
    }

    /// Counts only what the row holds now, and wakes who waited for what became free.
    fn release(&mut self, id: MachineId, now: EngineTime) {
        let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        let after = held_bits(&slot.row);
        let before = std::mem::replace(&mut slot.held, after);
        if before == after {
            return;
        }
        if let Some(expected) = slot.expected.clone() {
            let woken = self.headroom.change(&expected, before, after);
            self.wake(woken, now);
        }
    }

    /// Handles what came while the commit was under way, in order, until the next commit.
    fn drain(&mut self, id: MachineId, now: EngineTime, out: &mut Vec<Command>) {
        while let Some(slot) = self.slot_mut(id) {
            if slot.commit.is_some() {
                return;
            }
            let Some(event) = slot.kept() else { return };
            self.on(now, event, out);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the event's own parts")]
    fn change(
        &mut self,
        id: MachineId,
        change: Change,
        by: String,
        key: String,
        ticket: u64,
        now: EngineTime,
        out: &mut Vec<Command>,
    ) {
        let Some(slot) = self.slot_mut(id) else {
            let fault = Fault::new(
                FaultClass::Precondition,
                Channel::Engine,
                "no-such-machine",
                format!("there is no machine {id}"),
            );
            out.push(Command::Ack { ticket, result: Err(fault) });
            return;
        };
        if slot.commit.is_some() {
            slot.later(Event::Change { machine: id, change, by, key, ticket });
            return;
        }
        let entry = Entry::Changed { change, by, key };
        let mut probe = slot.row.clone();
        if let Err(illegal) = fold::apply(&mut probe, &entry, now) {
            let fault = Fault::new(
                FaultClass::Precondition,
                Channel::Engine,
                "not-now",
                format!("{}: {}", slot.row.name, illegal.why),
            );
            out.push(Command::Ack { ticket, result: Err(fault) });
            return;
        }
        self.commit(id, vec![entry], Then::Look(now), vec![ticket], None, now, out);
    }

    fn expect(
        &mut self,
        id: MachineId,
        expected: Arc<Expected>,
        now: EngineTime,
        out: &mut Vec<Command>,
    ) {
        if let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) {
            let held = slot.held;
            let old = slot.expected.replace(expected.clone());
            if let Some(old) = &old
                && old.domains != expected.domains
            {
                // Counted where it is now, from its next report on.
                let silent = std::mem::take(&mut slot.silent);
                self.outages.moved(id, old, silent & hearing::HOST_KNOWN != 0);
            }
            let woken = old.map(|old| self.headroom.change(&old, held, 0)).unwrap_or_default();
            self.headroom.change(&expected, 0, held);
            self.wake(woken, now);
            return;
        }
        let name = expected.name.clone();
        self.insert(Machine::blank(id), Some(expected), EngineTime::NEVER);
        self.due.remove(&(EngineTime::NEVER, id));
        let due = now + retry::jitter(id, now) % self.settings.spread_ms.max(1);
        self.commit(id, vec![Entry::Registered { name }], Then::Look(due), vec![], None, now, out);
    }

    fn reload(&mut self, site: Arc<Site>, now: EngineTime) {
        // Workflows that runs are pinned to stay known.
        let mut site = Arc::unwrap_or_clone(site);
        for slot in self.slots.iter().flatten() {
            if let Some(run) = &slot.row.run
                && !site.workflows.contains_key(&run.workflow)
                && let Some(old) = self.site.workflows.get(&run.workflow)
            {
                site.workflows.insert(run.workflow.clone(), old.clone());
            }
        }
        if site.incarnation.is_empty() {
            site.incarnation = self.site.incarnation.clone();
        }
        self.headroom = Headroom::new(site.limits.clone());
        self.outages.set_rule(site.remediation.outage);
        self.site = Arc::new(site);
        // Who waits for room may have some under the new limits.
        let mut waiting = Vec::new();
        for slot in self.slots.iter_mut().flatten() {
            if slot.queued.is_some() {
                slot.queued = None;
                slot.tidy();
                waiting.push(slot.row.id);
            }
            if let Some(expected) = &slot.expected {
                self.headroom.change(expected, 0, slot.held);
            }
        }
        self.wake(waiting, now);
    }

    /// Too many quarantines in a window stop all actions: the fault is then likely ours or the
    /// site's, not the machines'.
    fn brake(&mut self, now: EngineTime, out: &mut Vec<Command>) {
        let (limit, window) = (self.site.breaker_quarantines, self.site.breaker_window_ms);
        self.quarantines.push_back(now);
        while self.quarantines.front().is_some_and(|t| now.since(*t) > window) {
            self.quarantines.pop_front();
        }
        let many = limit > 0 && self.quarantines.len() >= limit as usize;
        if many && !self.no_actions() {
            let why = format!(
                "{} machines were quarantined within {}",
                self.quarantines.len(),
                crate::model::time::Span(window)
            );
            let stopped = Some(Stopped { by: "circuit-breaker".into(), why, at: now });
            self.stopping.push_back((stopped.clone(), 0));
            out.push(Command::CommitStop { stopped });
        }
    }

    /// Hashes of the workflows that running runs are pinned to.
    pub fn pinned(&self) -> BTreeMap<Arc<str>, u32> {
        let mut pinned = BTreeMap::new();
        for slot in self.slots.iter().flatten() {
            if let Some(run) = &slot.row.run {
                *pinned.entry(run.workflow.clone()).or_insert(0) += 1;
            }
        }
        pinned
    }
}

fn held_bits(row: &Machine) -> u8 {
    row.held_limits().fold(0, |bits, class| bits | bit(class))
}

/// The job of the open action, or the last one of the current step.
fn job_name(row: &Machine) -> Option<String> {
    if let Some(open) = &row.open
        && let Action::StartJob { name, .. } = &open.action
    {
        return Some(name.clone());
    }
    let acts = &row.step.as_ref()?.acts;
    let last = acts
        .iter()
        .rev()
        .find(|a| matches!(a.kind, ActionKind::BurnInJob | ActionKind::WipeJob))?;
    Some(last.about.clone())
}

fn store_fault(e: &StoreError) -> Fault {
    Fault::new(FaultClass::Transient, Channel::Engine, "not-durable", e.to_string())
        .hint("nothing was changed; try again once the database can be written")
}
