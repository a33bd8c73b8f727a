//! What must hold, checked on what each event changed; everything again at the end. The checker
//! knows the journal as it became durable and the truth as it physically happened, and believes
//! neither the director nor the class that an action declares.

use super::faults::{FaultKind, Injected};
use super::physics::{CANARY, PowerState, Sickness, VirtualMachine};
use super::rng::mix;
use super::store::MemStore;
use super::truth::{Cause, Effect, What};
use crate::model::action::Touch;
use crate::model::{
    Action, Change, Control, DomainKind, EngineTime, Entry, Expect, Expected, Fault, FaultClass,
    Limit, LimitClass, Machine, MachineId, Stage, StepEnd, fold, stage,
};
use crate::port::store::{CommitItem, Stopped};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every rule that can be broken, in words.
pub const RULES: &[&str] = &[
    "act-without-intent",
    "act-twice",
    "act-differs-from-intent",
    "two-at-once",
    "write-during-flash",
    "flash-again",
    "flash-while-staged",
    "flash-while-busy",
    "wipe-while-wiping",
    "wrong-machine",
    "unmanaged-touched",
    "adopted-touched",
    "held-touched",
    "stopped-touched",
    "quarantined-touched",
    "quarantined-moves",
    "intent-after-stop",
    "in-use",
    "limit",
    "physical-limit",
    "fold-differs",
    "illegal-edge",
    "done-not-true",
    "journal-gap",
    "conflict",
    "halt",
    "ack-not-durable",
    "quarantine-unjustified",
    "secret-in-journal",
    "liveness",
];

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub at: EngineTime,
    pub machine: MachineId,
    pub detail: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {} ms on {}: {}", self.rule, self.at.0, self.machine, self.detail)
    }
}

/// How the machine stood when an intent became durable.
#[derive(Clone, Debug)]
struct Intent {
    seq: u64,
    action: Action,
    expect: Expect,
    control: Control,
    untouched: bool,
    held: bool,
    stopped: bool,
    quarantined: bool,
    issued: Option<EngineTime>,
}

/// What the checker knows of one machine.
#[derive(Debug)]
struct Watch {
    folded: Machine,
    intents: Vec<Intent>,
    truth_seen: usize,
    /// Until then an issued action may still take hold.
    busy_until: EngineTime,
    probing: bool,
    acting: bool,
    committing: bool,
    held: u8,
    /// Bucket number of each limit this machine is in.
    buckets: Vec<Option<usize>>,
    /// Start of the current step, or the last release from quarantine.
    fresh_since: EngineTime,
    adopted_free: bool,
    /// When it was last said that an update did not take hold: by a person's release, or by the
    /// old version re-read long after the activation.
    taken_back_at: EngineTime,
    /// When an update last took hold.
    last_flash: EngineTime,
    step_since: EngineTime,
}

/// Violations kept with their text; all are counted.
const KEPT: usize = 40;

/// The checker of one run.
#[derive(Debug)]
pub struct Checker {
    watches: Vec<Watch>,
    limits: Vec<Limit>,
    buckets: BTreeMap<(usize, Arc<str>), usize>,
    levels: Vec<u32>,
    rack_of: Vec<usize>,
    violations: Vec<Violation>,
    count: u64,
    hash: u64,
    buffer: Vec<u8>,
    last_kill: EngineTime,
    killed: bool,
    last_trouble: Option<EngineTime>,
    /// Step kinds of the workflow, by index.
    kinds: Vec<&'static str>,
}

fn bit(class: LimitClass) -> u8 {
    1 << class as u8
}

impl Checker {
    pub fn new(limits: Vec<Limit>, kinds: Vec<&'static str>) -> Self {
        Self {
            watches: Vec::new(),
            limits,
            buckets: BTreeMap::new(),
            levels: Vec::new(),
            rack_of: Vec::new(),
            violations: Vec::new(),
            count: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            buffer: Vec::new(),
            last_kill: EngineTime::ZERO,
            killed: false,
            last_trouble: None,
            kinds,
        }
    }

    /// The next machine; ids are dense.
    pub fn add(&mut self, expected: &Expected) {
        let id = MachineId(u32::try_from(self.watches.len()).unwrap_or(u32::MAX));
        let mut buckets = Vec::with_capacity(self.limits.len());
        for (n, limit) in self.limits.iter().enumerate() {
            buckets.push(expected.domain(limit.per).map(|name| {
                let next = self.levels.len();
                let bucket = *self.buckets.entry((n, Arc::from(name))).or_insert(next);
                if bucket == next {
                    self.levels.push(0);
                }
                bucket
            }));
        }
        let rack = self
            .limits
            .iter()
            .position(|l| l.class == LimitClass::Flash && l.per == DomainKind::Rack);
        self.rack_of.push(rack.and_then(|n| buckets[n]).unwrap_or(usize::MAX));
        self.watches.push(Watch {
            folded: Machine::blank(id),
            intents: Vec::new(),
            truth_seen: 0,
            busy_until: EngineTime::ZERO,
            probing: false,
            acting: false,
            committing: false,
            held: 0,
            buckets,
            fresh_since: EngineTime::ZERO,
            adopted_free: false,
            taken_back_at: EngineTime::ZERO,
            last_flash: EngineTime::ZERO,
            step_since: EngineTime::ZERO,
        });
    }

    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// All violations, also those whose text was not kept.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Hash over every durable entry in the order in which they became durable.
    pub fn journal_hash(&self) -> u64 {
        self.hash
    }

    pub fn violate(
        &mut self,
        rule: &'static str,
        at: EngineTime,
        machine: MachineId,
        detail: impl FnOnce() -> String,
    ) {
        debug_assert!(RULES.contains(&rule), "{rule}");
        self.count += 1;
        if self.violations.len() < KEPT {
            self.violations.push(Violation { rule, at, machine, detail: detail() });
        }
    }

    /// The daemon is gone: what it had under way no longer counts as outstanding; actions that were
    /// sent may still take hold.
    pub fn killed(&mut self, now: EngineTime) {
        self.last_kill = now;
        self.killed = true;
        for w in &mut self.watches {
            (w.probing, w.acting, w.committing) = (false, false, false);
        }
    }

    /// A commit failed: retries and time-outs may follow from that.
    pub fn trouble(&mut self, now: EngineTime) {
        self.last_trouble = Some(now);
    }

    pub fn probe_sent(&mut self, now: EngineTime, id: MachineId) {
        let w = &mut self.watches[id.0 as usize];
        if std::mem::replace(&mut w.probing, true) {
            self.violate("two-at-once", now, id, || "a second probe".into());
        }
    }

    pub fn probe_answered(&mut self, id: MachineId) {
        self.watches[id.0 as usize].probing = false;
    }

    pub fn commit_sent(&mut self, now: EngineTime, id: MachineId) {
        let w = &mut self.watches[id.0 as usize];
        if std::mem::replace(&mut w.committing, true) {
            self.violate("two-at-once", now, id, || "a second commit".into());
        }
    }

    pub fn commit_answered(&mut self, id: MachineId) {
        self.watches[id.0 as usize].committing = false;
    }

    pub fn act_answered(&mut self, id: MachineId) {
        self.watches[id.0 as usize].acting = false;
    }

    /// The director orders an action.
    pub fn act_sent(
        &mut self,
        now: EngineTime,
        id: MachineId,
        seq: u64,
        action: &Action,
        expect: &Expect,
        vm: &VirtualMachine,
    ) {
        let w = &mut self.watches[id.0 as usize];
        let second = std::mem::replace(&mut w.acting, true) || now < w.busy_until;
        let kind = action.kind();
        let (mut missing, mut twice, mut differs) = (false, false, false);
        match w.intents.iter_mut().rev().find(|i| i.seq == seq) {
            None => missing = true,
            Some(intent) => {
                twice = intent.issued.is_some();
                differs = intent.action != *action || intent.expect != *expect;
                intent.issued = Some(now);
            }
        }
        if second {
            self.violate("two-at-once", now, id, || {
                format!("{kind} while another action may still take hold")
            });
        }
        if missing {
            self.violate("act-without-intent", now, id, || format!("{kind} with seq {seq}"));
        }
        if twice {
            self.violate("act-twice", now, id, || format!("{kind} with seq {seq}"));
        }
        if differs {
            self.violate("act-differs-from-intent", now, id, || format!("{kind}, seq {seq}"));
        }
        if kind.class().touches.contains(&Touch::Bmc)
            && vm.tasks.iter().any(|t| t.is_told_running() && t.ends > now)
            && vm.bmc_up
        {
            self.violate("write-during-flash", now, id, || format!("{kind} ordered"));
        }
    }

    /// The action on its way may take hold until `until`.
    pub fn act_under_way(&mut self, id: MachineId, until: EngineTime) {
        let w = &mut self.watches[id.0 as usize];
        w.busy_until = w.busy_until.max(until);
    }

    /// The action has taken hold or never will.
    pub fn act_over(&mut self, id: MachineId, now: EngineTime) {
        let w = &mut self.watches[id.0 as usize];
        w.busy_until = w.busy_until.min(now);
    }

    /// A commit that becomes durable now, before the store takes it.
    pub fn durable(
        &mut self,
        now: EngineTime,
        item: &CommitItem,
        stopped: Option<&Stopped>,
        vm: &VirtualMachine,
    ) {
        let id = item.machine;
        // Decided after the stop: one decided before it may still wait for the disk.
        if let Some(stop) = stopped
            && item.at > stop.at
            && matches!(item.entries.last(), Some(Entry::Intent { .. }))
        {
            self.violate("intent-after-stop", now, id, String::new);
        }
        let stopped = stopped.is_some();
        if self.watches[id.0 as usize].folded.seq != item.after_seq {
            self.violate("journal-gap", now, id, || format!("after seq {}", item.after_seq));
        }
        for entry in &item.entries {
            self.digest(now, id, entry);
            self.before(now, id, entry, stopped, vm);
            let w = &mut self.watches[id.0 as usize];
            if let Err(illegal) = fold::apply(&mut w.folded, entry, item.at) {
                self.violate("fold-differs", now, id, || illegal.to_string());
            }
        }
        let w = &self.watches[id.0 as usize];
        if w.folded != item.row {
            let differs = difference(&w.folded, &item.row);
            self.violate("fold-differs", now, id, || differs);
        }
        self.count_limits(now, id);
    }

    /// What must hold of an entry, given the row before it.
    fn before(
        &mut self,
        now: EngineTime,
        id: MachineId,
        entry: &Entry,
        stopped: bool,
        vm: &VirtualMachine,
    ) {
        let w = &mut self.watches[id.0 as usize];
        let moves = matches!(
            entry,
            Entry::RunBegan { .. }
                | Entry::Entered { .. }
                | Entry::StepBegan { .. }
                | Entry::StepEnded { .. }
        );
        if moves && w.folded.is_quarantined() {
            self.violate("quarantined-moves", now, id, || entry.name().into());
        }
        let w = &mut self.watches[id.0 as usize];
        match entry {
            Entry::Intent { action, expect, .. } => {
                let row = &w.folded;
                let intent = Intent {
                    seq: row.seq + 1,
                    action: action.clone(),
                    expect: expect.clone(),
                    control: row.control,
                    untouched: row.control == Control::Adopted && !w.adopted_free,
                    held: row.hold.is_some(),
                    stopped,
                    quarantined: row.is_quarantined(),
                    issued: None,
                };
                w.intents.push(intent);
            }
            Entry::Entered { stage: to } => {
                let from = w.folded.stage;
                if !stage::EDGES.iter().any(|e| e.from == from && e.to == *to) {
                    self.violate("illegal-edge", now, id, || format!("{from} → {to}"));
                }
            }
            Entry::StepBegan { .. } => {
                w.fresh_since = now;
                w.step_since = now;
            }
            Entry::StepEnded { end: StepEnd::Done { .. }, .. } => {
                let kind =
                    w.folded.step.as_ref().and_then(|s| self.kinds.get(usize::from(s.index)));
                if let Some(kind) = kind.copied()
                    && let Some(why) = not_true(now, kind, w.step_since, vm)
                {
                    self.violate("done-not-true", now, id, || format!("{kind}: {why}"));
                }
            }
            Entry::Changed { change, .. } => match change {
                Change::Release { .. } | Change::Repair { .. } => {
                    w.fresh_since = now;
                    w.taken_back_at = now;
                }
                Change::Desire { .. } | Change::Enroll { .. } => w.adopted_free = true,
                _ => {}
            },
            Entry::Faulted { fault, .. } | Entry::Excused { fault, .. }
                if fault.code == Fault::VERSION_UNCHANGED =>
            {
                w.taken_back_at = now;
            }
            Entry::Quarantined { fault } => {
                if fault.code == Fault::VERSION_UNCHANGED {
                    w.taken_back_at = now;
                }
                if let Some(why) = self.unjustified(now, id, fault, vm) {
                    self.violate("quarantine-unjustified", now, id, || why);
                }
            }
            _ => {}
        }
    }

    /// Why this quarantine has no injected fault to justify it.
    fn unjustified(
        &self,
        now: EngineTime,
        id: MachineId,
        fault: &Fault,
        vm: &VirtualMachine,
    ) -> Option<String> {
        use FaultKind as K;
        let w = &self.watches[id.0 as usize];
        let since = w.fresh_since - 600_000;
        let log = vm.dice.log();
        let recent = |kinds: &[K]| {
            log.iter()
                .rev()
                .take_while(|i| i.at >= since)
                .any(|i: &Injected| kinds.contains(&i.kind))
        };
        let lasting = |kinds: &[K]| {
            log.iter()
                .rev()
                .take_while(|i| now.since(i.at) < 4 * 86_400_000)
                .any(|i| kinds.contains(&i.kind))
        };
        let something = log.last().is_some_and(|i| i.at >= since)
            || lasting(&[
                K::SerialSwapped,
                K::WrongHost,
                K::FlashStuck,
                K::WorkloadsLate,
                K::HumanPower,
                K::CallbackLost,
            ])
            || self.killed && self.last_kill >= since
            || self.last_trouble.is_some_and(|t| t >= since)
            || vm.sick.is_some();
        let fine = match (fault.class, &*fault.code) {
            (FaultClass::Bug, _) => false,
            (FaultClass::Identity, "host-key-changed") => {
                lasting(&[K::CallbackLost, K::SerialSwapped, K::WrongHost, K::ActLostAfter])
            }
            (FaultClass::Identity, _) => {
                lasting(&[K::SerialSwapped, K::WrongHost])
                    || vm.identity != vm.delivered
                    || vm.other_host.is_some()
            }
            (FaultClass::Hardware, _) => recent(&[K::JobSickGpu]) || vm.sick == Some(Sickness::Gpu),
            (FaultClass::Auth, _) => recent(&[K::ProbeAuth]),
            (FaultClass::Precondition, "existing-data") => {
                vm.foreign_data || lasting(&[K::SerialSwapped])
            }
            (FaultClass::Precondition, "drain-deadline") => lasting(&[K::WorkloadsLate]),
            (FaultClass::Throttled, _) => false,
            // Without power nothing boots and no node gets ready; nobody told Farrier to power it on.
            (_, "step-timeout") if vm.power != PowerState::On => true,
            _ => something,
        };
        (!fine).then(|| {
            let faults: Vec<&str> = log.iter().rev().take(4).map(|i| i.kind.name()).collect();
            format!("{fault}; last injected: {}", faults.join(", "))
        })
    }

    fn digest(&mut self, now: EngineTime, id: MachineId, entry: &Entry) {
        self.buffer.clear();
        if serde_json::to_writer(&mut self.buffer, entry).is_err() {
            self.violate("fold-differs", now, id, || "an entry that is no JSON".into());
            return;
        }
        let mut h = self.hash ^ u64::from(id.0) ^ (now.0 << 20);
        let mut secret = false;
        for chunk in self.buffer.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            h = (h ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
        if self.buffer.contains(&CANARY.as_bytes()[0]) {
            let canary = CANARY.as_bytes();
            secret = self.buffer.windows(canary.len()).any(|w| w == canary);
        }
        self.hash = mix(h);
        if secret {
            self.violate("secret-in-journal", now, id, || entry.name().into());
        }
    }

    fn count_limits(&mut self, now: EngineTime, id: MachineId) {
        let w = &mut self.watches[id.0 as usize];
        let after = w.folded.held_limits().fold(0, |bits, class| bits | bit(class));
        let before = std::mem::replace(&mut w.held, after);
        if before == after {
            return;
        }
        for n in 0..self.limits.len() {
            let limit = self.limits[n];
            let Some(bucket) = self.watches[id.0 as usize].buckets[n] else { continue };
            let (was, is) = (before & bit(limit.class) != 0, after & bit(limit.class) != 0);
            if was && !is {
                self.levels[bucket] = self.levels[bucket].saturating_sub(1);
            }
            if is && !was {
                self.levels[bucket] += 1;
                let level = self.levels[bucket];
                if level > limit.max {
                    self.violate("limit", now, id, || {
                        format!("{level} hold {} per {}", limit.class, limit.per.name())
                    });
                }
            }
        }
    }

    /// What physically happened to a machine since the last look.
    pub fn effects(&mut self, id: MachineId, vm: &VirtualMachine) {
        let seen = self.watches[id.0 as usize].truth_seen;
        let news = vm.truth.since(seen);
        if news.is_empty() {
            return;
        }
        self.watches[id.0 as usize].truth_seen = seen + news.len();
        for effect in news {
            self.effect(id, effect, vm);
        }
    }

    fn effect(&mut self, id: MachineId, e: &Effect, vm: &VirtualMachine) {
        let w = &mut self.watches[id.0 as usize];
        let mut wipe_twice = false;
        match e.what {
            What::WipeStarted => wipe_twice = vm.running_wipes() > 1,
            What::FlashEnded { ok: true, .. } => w.last_flash = e.at,
            _ => {}
        }
        let Cause::Farrier { seq } = e.by else { return };
        let what = e.what;
        let name = what.name();
        let Some(note) = w.intents.iter().rev().find(|i| i.seq == seq).cloned() else {
            self.violate("act-without-intent", e.at, id, || format!("{name} by seq {seq}"));
            return;
        };
        let consequence = matches!(
            what,
            What::FlashEnded { .. }
                | What::FlashBroken { .. }
                | What::WipeEnded
                | What::InstallEnded { .. }
        );
        if consequence {
            return;
        }
        if note.control == Control::Unmanaged {
            self.violate("unmanaged-touched", e.at, id, || format!("{name} by seq {seq}"));
        }
        if note.untouched {
            self.violate("adopted-touched", e.at, id, || format!("{name} by seq {seq}"));
        }
        if wipe_twice {
            self.violate("wipe-while-wiping", e.at, id, || format!("seq {seq}"));
        }
        if !what.is_destructive() {
            return;
        }
        if note.held {
            self.violate("held-touched", e.at, id, || format!("{name} by seq {seq}"));
        }
        if note.stopped {
            self.violate("stopped-touched", e.at, id, || format!("{name} by seq {seq}"));
        }
        if note.quarantined {
            self.violate("quarantined-touched", e.at, id, || format!("{name} by seq {seq}"));
        }
        // What was sent to the right machine and met another was swapped under way.
        let crossed = note.issued.is_some_and(|t| t <= vm.crossed_at) && vm.crossed_at <= e.at;
        if !e.scene.right_machine && !crossed {
            self.violate("wrong-machine", e.at, id, || format!("{name} by seq {seq}"));
        }
        if what.needs_empty_host() && (e.scene.workloads > 0 || !e.scene.closed) {
            let n = e.scene.workloads;
            self.violate("in-use", e.at, id, || format!("{name} with {n} workloads, seq {seq}"));
        }
        if e.scene.flashing && matches!(what, What::PowerCut | What::BmcReset) {
            self.violate("write-during-flash", e.at, id, || format!("{name} by seq {seq}"));
        }
        if let What::FlashStarted { already, staged, busy, .. } = what {
            let w = &self.watches[id.0 as usize];
            let said_so = w.taken_back_at > w.last_flash;
            if already {
                self.violate("flash-again", e.at, id, || format!("seq {seq}"));
            }
            if staged && !said_so {
                self.violate("flash-while-staged", e.at, id, || format!("seq {seq}"));
            }
            if busy {
                self.violate("flash-while-busy", e.at, id, || format!("seq {seq}"));
            }
        }
    }

    /// An update has just started: counts those that physically run in the same rack.
    pub fn physical_flashes(&mut self, now: EngineTime, id: MachineId, vms: &[VirtualMachine]) {
        let rack = self.rack_of[id.0 as usize];
        let Some(limit) = self
            .limits
            .iter()
            .find(|l| l.class == LimitClass::Flash && l.per == DomainKind::Rack)
            .copied()
        else {
            return;
        };
        let running = vms
            .iter()
            .zip(&self.rack_of)
            .filter(|(vm, r)| {
                **r == rack
                    && vm.tasks.iter().any(|t| {
                        t.is_told_running() && t.ends > now && matches!(t.by, Cause::Farrier { .. })
                    })
            })
            .count();
        if running > limit.max as usize {
            self.violate("physical-limit", now, id, || format!("{running} updates in the rack"));
        }
    }

    /// The whole journal once more: it folds to the stored row.
    pub fn refold(&mut self, now: EngineTime, store: &MemStore) {
        for (i, journal) in store.journal.iter().enumerate() {
            let id = MachineId(u32::try_from(i).unwrap_or(u32::MAX));
            let Some(row) = store.row(id) else { continue };
            match fold::fold(id, journal.iter().map(|(at, e)| (*at, e))) {
                Ok(folded) if folded == *row => {}
                Ok(folded) => {
                    let differs = difference(&folded, row);
                    self.violate("fold-differs", now, id, || differs);
                }
                Err(illegal) => {
                    self.violate("fold-differs", now, id, || illegal.to_string());
                }
            }
        }
    }

    /// The folded row of a machine.
    pub fn row(&self, id: MachineId) -> &Machine {
        &self.watches[id.0 as usize].folded
    }
}

/// Why a step that ended as done is not so in the world. A machine that people have just had their
/// hands on proves nothing.
fn not_true(
    now: EngineTime,
    kind: &str,
    since: EngineTime,
    vm: &VirtualMachine,
) -> Option<&'static str> {
    let hands = vm.crossed_at + 600_000 > now && vm.crossed_at != EngineTime::ZERO
        || vm.truth.effects().iter().rev().take(6).any(|e| e.by == Cause::Human && e.at >= since);
    if hands || vm.identity != vm.delivered || vm.other_host.is_some() {
        return None;
    }
    match kind {
        "firmware" => {
            let old = vm.firmware.iter().any(|s| matches!(&*s.version, "2.0.0" | "7.10"));
            old.then_some("an old version runs")
        }
        "provision" => {
            let ours = vm.installed.as_ref().is_some_and(|i| i.run.is_some());
            (!ours).then_some("no image of ours is on the disk")
        }
        "drain" => (vm.node.workloads(now) > 0).then_some("workloads run"),
        "join" => (!vm.node.member).then_some("not a member"),
        "leave" => vm.node.member.then_some("still a member"),
        "sanitize" => {
            let wiped =
                vm.truth.effects().iter().rev().any(|e| e.what == What::WipeEnded && e.at >= since);
            (!wiped).then_some("no wipe ended")
        }
        _ => None,
    }
}

/// Is the machine where people want it, with nothing under way?
pub fn has_arrived(row: &Machine) -> bool {
    use crate::model::Desired as D;
    let there = match (row.desired, row.stage) {
        (Some(D::Ready), Stage::Ready)
        | (Some(D::InService), Stage::InService)
        | (Some(D::Drained), Stage::Drained)
        | (Some(D::Retired), Stage::Retired)
        | (None, _) => true,
        // An adopted machine is not reinstalled: drained is as spare as it gets.
        (Some(D::Ready), Stage::Drained) => row.control == Control::Adopted,
        _ => false,
    };
    there && row.run.is_none() && row.open.is_none() && !row.is_quarantined()
}

fn difference(folded: &Machine, row: &Machine) -> String {
    let parts = |m: &Machine| serde_json::to_value(m).unwrap_or_default();
    let (a, b) = (parts(folded), parts(row));
    let Some(map) = a.as_object() else { return "not comparable".into() };
    let fields: Vec<&str> =
        map.iter().filter(|(k, v)| b.get(k.as_str()) != Some(v)).map(|(k, _)| k.as_str()).collect();
    format!("the row differs from the folded journal in {}", fields.join(", "))
}
