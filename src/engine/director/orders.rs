//! What people and the site say: changes, expected machines, a reload, the circuit breaker.

use super::{Director, Headroom, Then, hearing};
use crate::decide::{Decide, retry};
use crate::engine::event::{Command, Event};
use crate::model::{
    Change, Channel, EngineTime, Entry, Expected, Fault, FaultClass, Machine, MachineId, fold,
};
use crate::port::store::{Stopped, StoreError};
use crate::steps::site::Site;
use std::sync::Arc;

impl<D: Decide> Director<D> {
    #[allow(clippy::too_many_arguments, reason = "the event's own parts")]
    pub(super) fn change(
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

    pub(super) fn expect(
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

    pub(super) fn reload(&mut self, site: Arc<Site>, now: EngineTime) {
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
    pub(super) fn brake(&mut self, now: EngineTime, out: &mut Vec<Command>) {
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
}

pub(super) fn store_fault(e: &StoreError) -> Fault {
    Fault::new(FaultClass::Transient, Channel::Engine, "not-durable", e.to_string())
        .hint("nothing was changed; try again once the database can be written")
}
