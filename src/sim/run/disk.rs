//! The store under the simulated daemon: what a commit meets, when it is durable, and who may
//! write.

use super::Runner;
use super::queue::{Write, Written};
use crate::decide::Decide;
use crate::engine::Event;
use crate::model::Entry;
use crate::port::store::{CommitItem, Committed, Stopped, StoreError};
use crate::sim::coverage::column;
use crate::sim::faults::FaultKind;

impl<D: Decide + Clone> Runner<D> {
    pub(super) fn commit(&mut self, item: Box<CommitItem>) {
        self.checker.commit_sent(self.now, item.machine);
        let i = item.machine.0 as usize;
        let now = self.now;
        let mut fails = None;
        let mut kind = None;
        if self.full_until > now {
            fails = Some(StoreError::Full("no space left on device".into()));
        } else if self.dice.throw(FaultKind::DiskFull, now) {
            self.full_until = now + self.rng.between(10_000, 600_000);
            kind = Some(FaultKind::DiskFull);
            fails = Some(StoreError::Full("no space left on device".into()));
        } else if self.dice.throw(FaultKind::CommitFails, now) {
            kind = Some(FaultKind::CommitFails);
            fails = Some(StoreError::NotWritten("database is locked".into()));
        } else if self.dice.throw(FaultKind::CommitUnknown, now) {
            kind = Some(FaultKind::CommitUnknown);
            fails = Some(StoreError::Unknown("input/output error".into()));
        }
        if let Some(kind) = kind {
            self.checker.trouble(now);
            self.vms[i].dice.record(kind, now);
            self.look_at_faults(i);
        }
        self.enqueue(Write::Item(item), fails, self.life);
    }

    pub(super) fn commit_stop(&mut self, stopped: Option<Stopped>) {
        let fails = if self.full_until > self.now {
            Some(StoreError::Full("no space left on device".into()))
        } else {
            let strikes = self.dice.throw(FaultKind::StopFails, self.now);
            strikes.then(|| {
                self.coverage.fault(FaultKind::StopFails, column(None));
                StoreError::NotWritten("database is locked".into())
            })
        };
        self.enqueue(Write::Stop(stopped), fails, self.life);
    }

    /// The writer's queue: first in, first durable.
    pub(super) fn enqueue(&mut self, write: Write, fails: Option<StoreError>, life: u32) {
        let at = self.now + self.durations.commit.pick(&mut self.rng);
        self.write_at = self.write_at.max(at);
        self.writes.push_back(Written { at: self.write_at, write, fails, life });
    }

    /// The disk has answered.
    pub(super) fn written(&mut self, w: Written) {
        if w.life != self.life {
            self.fenced(w);
            return;
        }
        match (w.write, w.fails) {
            (Write::Item(item), Some(error)) => {
                let machine = item.machine;
                self.checker.commit_answered(machine);
                let unknown = matches!(error, StoreError::Unknown(_));
                if unknown && self.rng.chance(500_000) {
                    self.make_durable(Write::Item(item), w.life);
                }
                self.may_halt = unknown;
                self.feed(Event::Committed { machine, result: Err(error) });
                self.may_halt = false;
            }
            (Write::Item(item), None) => {
                let machine = item.machine;
                let result = self.make_durable(Write::Item(item), w.life);
                self.checker.commit_answered(machine);
                self.feed(Event::Committed { machine, result: Ok(result) });
            }
            (Write::Stop(_), Some(error)) => self.feed(Event::StopCommitted { result: Err(error) }),
            (Write::Stop(stopped), None) => {
                self.make_durable(Write::Stop(stopped), w.life);
                self.feed(Event::StopCommitted { result: Ok(()) });
            }
        }
    }

    /// A daemon writes whose epoch is over: nothing of it may become durable.
    fn fenced(&mut self, w: Written) {
        let epoch = || StoreError::Unusable("another daemon has taken this database over".into());
        let fences = self.sabotage.as_ref().is_none_or(|s| s.fences());
        match w.write {
            Write::Item(item) => {
                let machine = item.machine;
                let result = if fences {
                    Err(epoch())
                } else {
                    Ok(self.make_durable(Write::Item(item), w.life))
                };
                self.feed_older(Event::Committed { machine, result });
            }
            Write::Stop(_) => self.feed_older(Event::StopCommitted { result: Err(epoch()) }),
        }
    }

    /// The order is on the disk from now on, if the store does not refuse it.
    pub(super) fn make_durable(&mut self, write: Write, life: u32) -> Committed {
        let item = match write {
            Write::Stop(stopped) => {
                self.checker.stop_durable(stopped.as_ref());
                self.store.set_stopped(stopped, self.now);
                return Committed::Durable;
            }
            Write::Item(item) => item,
        };
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
        if life != self.life {
            self.checker.violate("stale-epoch", self.now, item.machine, || {
                format!("written by daemon {life}, daemon {} has taken over", self.life)
            });
        }
        self.stats.commits += 1;
        self.stats.entries += item.entries.len() as u64;
        for entry in &item.entries {
            match entry {
                Entry::Quarantined { .. } => self.stats.quarantines += 1,
                Entry::StepEnded { key, .. } => {
                    let steps = self.site.workflows.values().next();
                    if let Some(spec) = steps.and_then(|w| w.steps.iter().find(|s| s.key == *key)) {
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
