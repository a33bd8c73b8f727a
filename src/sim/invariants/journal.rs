//! What must hold of a commit: the entries it makes durable, given the row before them.

use super::justify::not_true;
use super::{Checker, Intent, bit, difference};
use crate::model::{
    Change, Control, EngineTime, Entry, FaultClass, MachineId, StepEnd, fold, stage,
};
use crate::port::store::{CommitItem, Stopped};
use crate::sim::physics::{CANARY, VirtualMachine};
use crate::sim::rng::mix;
use crate::sim::truth::intent_name;

impl Checker {
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
        if let Some(at) = self.braked_at
            && item.at > at
            && matches!(item.entries.last(), Some(Entry::Intent { .. }))
        {
            self.violate("breaker-slept", now, id, || format!("it had to stop at {} ms", at.0));
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
                    name: intent_name(self.generation, row.seq + 1),
                    at: now,
                    action: action.clone(),
                    expect: expect.clone(),
                    control: row.control,
                    untouched: row.control == Control::Adopted && !w.adopted_free,
                    held: row.hold.is_some(),
                    stopped,
                    quarantined: row.is_quarantined(),
                    rescue: row.rescue.is_some(),
                    consents: row.allow_existing_data || row.deployed.is_some(),
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
            Entry::Faulted { fault, .. } | Entry::Excused { fault, .. } if fault.takes_back() => {
                w.taken_back_at = now;
            }
            Entry::Faulted { charged: true, .. } if self.only_outage(now, id, vm) => {
                self.violate("outage-charged", now, id, || entry_text(entry));
            }
            Entry::Quarantined { fault } => {
                self.count_quarantine(now);
                // Silence shows itself as such, never as a disk with data or a broken part.
                let silent =
                    matches!(fault.class, FaultClass::Transient | FaultClass::OutcomeUnknown);
                if silent && self.only_outage(now, id, vm) {
                    self.violate("outage-charged", now, id, || entry_text(entry));
                }
                let w = &mut self.watches[id.0 as usize];
                if fault.takes_back() {
                    w.taken_back_at = now;
                }
                if let Some(why) = self.unjustified(now, id, fault, vm) {
                    self.violate("quarantine-unjustified", now, id, || why);
                }
            }
            _ => {}
        }
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
}

fn entry_text(entry: &Entry) -> String {
    match entry {
        Entry::Faulted { fault, .. } | Entry::Quarantined { fault } => {
            format!("{}: {fault}", entry.name())
        }
        _ => entry.name().to_string(),
    }
}
