//! From entries to durable rows, and what follows: the action, the wake-up of who waits.

use super::slot::Pending;
use super::{COMMIT_PAUSE_MS, Director, Then, held_bits};
use crate::decide::Decide;
use crate::engine::event::{Command, Event};
use crate::model::action::Touch;
use crate::model::{
    Channel, EngineTime, Entry, Fault, FaultClass, MachineId, Outcome, Report, fold,
};
use crate::port::store::{CommitItem, Committed, StoreError};
use std::num::NonZeroU64;

impl<D: Decide> Director<D> {
    /// Folds the entries into the row to be and asks the store to make them durable.
    #[allow(clippy::too_many_arguments, reason = "one call shape for every commit")]
    pub(super) fn commit(
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

    pub(super) fn committed(
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
    pub(super) fn start(&mut self, id: MachineId, now: EngineTime, out: &mut Vec<Command>) {
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
    pub(super) fn release(&mut self, id: MachineId, now: EngineTime) {
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
    pub(super) fn drain(&mut self, id: MachineId, now: EngineTime, out: &mut Vec<Command>) {
        while let Some(slot) = self.slot_mut(id) {
            if slot.commit.is_some() {
                return;
            }
            let Some(event) = slot.kept() else { return };
            self.on(now, event, out);
        }
    }
}
