//! What must hold, checked on what each event changed; everything again at the end. The checker
//! knows the journal as it became durable and the truth as it physically happened, and believes
//! neither the director nor the class that an action declares.

mod effects;
mod journal;
mod justify;

use super::physics::VirtualMachine;
use super::store::MemStore;
use super::truth::{Cause, intent_name};
use crate::model::action::Touch;
use crate::model::{
    Action, Control, DomainKind, EngineTime, Expect, Expected, Limit, LimitClass, Machine,
    MachineId, Stage, fold,
};
use crate::port::store::Stopped;
use std::collections::{BTreeMap, VecDeque};
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
    "cut-during-copy",
    "unread-for-idle",
    "wipe-while-wiping",
    "job-while-job",
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
    "never-answered",
    "stale-epoch",
    "breaker-slept",
    "outage-charged",
    "quarantine-unjustified",
    "secret-in-journal",
    "rescue-wrote",
    "volume-again",
    "data-lost",
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
    /// See [`intent_name`].
    name: u64,
    at: EngineTime,
    action: Action,
    expect: Expect,
    control: Control,
    untouched: bool,
    held: bool,
    stopped: bool,
    quarantined: bool,
    /// A person's rescue was under way.
    rescue: bool,
    /// Data that nobody knows may be lost: a person said so, or a run of ours wrote the disks.
    consents: bool,
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
    /// Restores so far.
    generation: u32,
    /// Quarantines within milliseconds that must stop all actions; 0 = no breaker.
    breaker: (u32, u64),
    quarantines: VecDeque<EngineTime>,
    /// The breaker had to stop actions then, and nobody has resumed since.
    braked_at: Option<EngineTime>,
}

fn bit(class: LimitClass) -> u8 {
    1 << class as u8
}

impl Checker {
    pub fn new(limits: Vec<Limit>, kinds: Vec<&'static str>, breaker: (u32, u64)) -> Self {
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
            generation: 0,
            breaker,
            quarantines: VecDeque::new(),
            braked_at: None,
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
        // The breaker counts in memory: a new daemon begins anew.
        self.quarantines.clear();
        self.braked_at = None;
        for w in &mut self.watches {
            (w.probing, w.acting, w.committing) = (false, false, false);
        }
    }

    /// The director asks the store to keep a stop or its end.
    pub fn stop_said(&mut self, stopped: Option<&Stopped>) {
        if stopped.is_none() {
            self.braked_at = None;
        }
    }

    /// The stop or its end is durable.
    pub fn stop_durable(&mut self, stopped: Option<&Stopped>) {
        if stopped.is_none() {
            self.quarantines.clear();
            self.braked_at = None;
        }
    }

    /// Another quarantine is durable: enough of them in a window must stop all actions.
    fn count_quarantine(&mut self, now: EngineTime) {
        let (limit, window) = self.breaker;
        if limit == 0 {
            return;
        }
        self.quarantines.push_back(now);
        while self.quarantines.front().is_some_and(|t| now.since(*t) > window) {
            self.quarantines.pop_front();
        }
        if self.quarantines.len() >= limit as usize {
            self.braked_at.get_or_insert(now);
        }
    }

    /// The database was replaced by an older one: what it says counts from here on, and what
    /// physically happened stays true.
    pub fn restored(&mut self, now: EngineTime, store: &MemStore, generation: u32) {
        self.generation = generation;
        self.levels.fill(0);
        for i in 0..self.watches.len() {
            let w = &mut self.watches[i];
            let id = w.folded.id;
            w.folded = store.row(id).cloned().unwrap_or_else(|| Machine::blank(id));
            (w.probing, w.acting, w.committing) = (false, false, false);
            w.adopted_free = w.folded.desired.is_some();
            w.fresh_since = now;
            w.step_since = w.folded.step.as_ref().map_or(now, |s| s.since);
            w.held = 0;
            // What a copy says is held may be more than a limit allows: only growth is a fault.
            let held = w.folded.held_limits().fold(0, |bits, class| bits | bit(class));
            w.held = held;
            for n in 0..self.limits.len() {
                if held & bit(self.limits[n].class) != 0
                    && let Some(bucket) = self.watches[i].buckets[n]
                {
                    self.levels[bucket] += 1;
                }
            }
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
        let name = intent_name(self.generation, seq);
        match w.intents.iter_mut().rev().find(|i| i.name == name) {
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
            && vm.all_tasks().any(|t| {
                t.is_told_running() && t.ends > now && matches!(t.by, Cause::Farrier { .. })
            })
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
