//! The simulated daemon's life: start, events and commands, death, a second one beside it, and a
//! database that somebody puts back.

use super::Runner;
use super::queue::{Item, Write};
use crate::decide::Decide;
use crate::engine::director::{Director, Settings};
use crate::engine::{Command, Event};
use crate::model::{Entry, Expected, MachineId};
use crate::sim::coverage::{self, column};
use crate::sim::faults::FaultKind;
use crate::sim::scenario::Deed;
use crate::steps::site::Site;
use std::sync::Arc;

/// Longest time that the runner waits before it asks a restarted daemon again.
const DOWN_MIN_MS: u64 = 1_000;
const DOWN_MAX_MS: u64 = 90_000;

impl<D: Decide + Clone> Runner<D> {
    pub(super) fn start(&mut self) {
        if self.director.is_some() {
            return;
        }
        let settings = Settings { observe_only: false, spread_ms: 30_000 };
        let loaded = self.store.load(self.now);
        let site = self.site.clone();
        // As the boot server does when the daemon starts.
        for vm in &mut self.vms {
            let run = self.store.row(vm.id).map(|m| m.run_name(&site.incarnation));
            vm.close_stray_window(run.as_deref());
        }
        self.director = Some(Director::new(self.decider.clone(), settings, loaded, site, self.now));
        if let Some(event) = self.sabotage.as_mut().and_then(|s| s.started(self.life, &self.site)) {
            self.feed(event);
        }
        // People say again what nobody acknowledged, with the same key.
        for (_, (_, said)) in std::mem::take(&mut self.said) {
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

    pub(super) fn kill(&mut self) {
        self.stats.kills += 1;
        self.director = None;
        self.older = None;
        self.life += 1;
        self.checker.killed(self.now);
        // What the writer had gathered is durable up to some point, and nobody was told.
        let durable = self.rng.below(self.writes.len() as u64 + 1);
        let writes = std::mem::take(&mut self.writes);
        for (i, w) in writes.into_iter().enumerate() {
            if (i as u64) < durable && w.fails.is_none() && w.life + 1 == self.life {
                self.make_durable(w.write, self.life);
            }
        }
        if self.sabotage.as_ref().is_some_and(|s| s.forgets()) {
            self.store.forget_last();
        }
        let down = self.rng.between(DOWN_MIN_MS, DOWN_MAX_MS);
        self.push(self.now + down, Item::Restart);
    }

    /// One event in, its commands carried out; the daemon may die before any of them.
    pub(super) fn feed(&mut self, event: Event) {
        let Some(sabotage) = &mut self.sabotage else {
            self.feed_one(event);
            return;
        };
        for event in sabotage.hears(event) {
            self.feed_one(event);
        }
    }

    fn feed_one(&mut self, event: Event) {
        let mut out = std::mem::take(&mut self.out);
        if let Some(director) = &mut self.director {
            self.events += 1;
            director.on(self.now, event, &mut out);
        }
        let answers = match &mut self.sabotage {
            Some(sabotage) => sabotage.says(self.now, &mut out),
            None => Vec::new(),
        };
        let mut commands = out.drain(..);
        while let Some(command) = commands.next() {
            if self.dies_before(&command) {
                drop(commands);
                self.out = out;
                self.kill();
                return;
            }
            self.carry_out(command);
        }
        drop(commands);
        self.out = out;
        for event in answers {
            self.feed_one(event);
        }
    }

    fn dies_before(&mut self, command: &Command) -> bool {
        // Most commands are probes; the dangerous moments are the acts and their intents.
        let dangerous = match command {
            Command::Act { .. } | Command::CommitStop { .. } => true,
            Command::Commit(item) => matches!(item.entries.last(), Some(Entry::Intent { .. })),
            _ => false,
        };
        let throws = if dangerous { 16 } else { 1 };
        let label = || coverage::label(command);
        let now = self.now;
        if !(0..throws).any(|_| self.dice.throw_at(FaultKind::Kill, now, label).is_some()) {
            return false;
        }
        self.coverage.crash(command);
        if let Some(machine) = coverage::machine_of(command) {
            self.coverage.fault(FaultKind::Kill, self.column(machine));
        }
        true
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Commit(item) => self.commit(item),
            Command::CommitStop { stopped } => {
                self.checker.stop_said(stopped.as_ref());
                self.commit_stop(stopped);
            }
            Command::Probe { machine, token, set, job, handle, run } => {
                self.checker.probe_sent(self.now, machine);
                let asked = (job.as_deref(), handle.as_deref(), run.as_deref());
                self.probe(machine, token, set, asked, self.life);
            }
            Command::Act { machine, seq, action, expect } => {
                self.act(machine, seq, action, expect, self.life);
            }
            Command::Ack { ticket, result } => self.acknowledged(ticket, &result),
            Command::Halt { why } => {
                if !self.may_halt {
                    self.checker.violate("halt", self.now, MachineId(0), || why);
                }
                self.kill();
            }
        }
    }

    // --- a second daemon

    /// Another daemon is started on the same database and takes it over; this one does not know yet.
    pub(super) fn second_daemon(&mut self) {
        let Some(director) = self.director.take() else { return };
        self.coverage.fault(FaultKind::SecondDaemon, column(None));
        self.older = Some((director, self.life));
        self.life += 1;
        self.checker.killed(self.now);
        // The takeover is a transaction of its own: what was queued before it is durable, and the
        // older one hears so; the rest is refused.
        let durable = self.rng.below(self.writes.len() as u64 + 1);
        let writes = std::mem::take(&mut self.writes);
        let mut told = Vec::new();
        for (i, w) in writes.into_iter().enumerate() {
            if (i as u64) < durable && w.fails.is_none() && w.life + 1 == self.life {
                told.push(match &w.write {
                    Write::Stop(_) => {
                        self.make_durable(w.write, self.life);
                        Event::StopCommitted { result: Ok(()) }
                    }
                    Write::Item(item) => {
                        let machine = item.machine;
                        let result = Ok(self.make_durable(w.write, self.life));
                        Event::Committed { machine, result }
                    }
                });
            } else {
                self.writes.push_back(w);
            }
        }
        for event in told {
            self.feed_older(event);
        }
        self.start();
    }

    /// An event for the daemon whose time is over.
    pub(super) fn feed_older(&mut self, event: Event) {
        let Some((mut director, life)) = self.older.take() else { return };
        let mut out = Vec::new();
        director.on(self.now, event, &mut out);
        self.older = Some((director, life));
        for command in out {
            match command {
                Command::Commit(item) => self.enqueue(Write::Item(item), None, life),
                Command::CommitStop { stopped } => self.enqueue(Write::Stop(stopped), None, life),
                Command::Probe { machine, token, set, job, handle, run } => {
                    let asked = (job.as_deref(), handle.as_deref(), run.as_deref());
                    self.probe(machine, token, set, asked, life);
                }
                Command::Act { machine, seq, action, expect } => {
                    self.act(machine, seq, action, expect, life);
                }
                Command::Ack { ticket, result } => self.acknowledged(ticket, &result),
                // It has noticed, and exits.
                Command::Halt { .. } => {
                    self.older = None;
                    return;
                }
            }
        }
    }

    /// Is the daemon of this life still there to hear an answer?
    pub(super) fn lives(&self, life: u32) -> bool {
        life == self.life && self.director.is_some()
            || self.older.as_ref().is_some_and(|(_, l)| *l == life)
    }

    // --- an old database

    /// The daemon dies and its database is replaced by the last hourly copy.
    pub(super) fn old_database(&mut self) {
        let Some(copy) = self.snapshot.take() else { return };
        if self.director.is_some() {
            self.kill();
        }
        self.generation += 1;
        self.stats.restores += 1;
        let mut site = Site::clone(&self.site);
        site.incarnation = format!("51a0c0{:02x}", 0xde + self.generation).into();
        self.store.restore(&copy, site.incarnation.clone(), self.now);
        self.site = Arc::new(site);
        self.checker.restored(self.now, &self.store, self.generation);
        let mut missing = Vec::new();
        for i in 0..self.vms.len() {
            self.vms[i].dice.record(FaultKind::OldDatabase, self.now);
            self.look_at_faults(i);
            if self.store.rows[i].is_none() && self.was_expected[i] {
                missing.push(self.vms[i].id);
            }
        }
        // The inventory still names what the copy does not know.
        if !missing.is_empty() {
            let deed = Box::new(Deed::Expect { machines: missing });
            self.push(self.now + 120_000, Item::Deed { deed, again: true });
        }
    }
}
