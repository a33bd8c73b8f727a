//! What people say and do in the simulated site, carried out.

use super::Runner;
use super::queue::{Item, Said};
use crate::decide::Decide;
use crate::engine::Event;
use crate::model::{BootTarget, EngineTime, Expected, Fault, MachineId};
use crate::sim::coverage::column;
use crate::sim::faults::FaultKind;
use crate::sim::scenario::{Deed, MINUTE};
use crate::sim::workflows::RACK;
use std::sync::Arc;

impl<D: Decide + Clone> Runner<D> {
    pub(super) fn deed(&mut self, deed: Deed, again: bool) {
        if let Some((machine, kind)) = at_machine(&deed) {
            let i = machine.0 as usize;
            if !self.vms[i].mains {
                // Nobody works in a dark rack.
                let at = self.dark_until[(machine.0 / RACK) as usize] + MINUTE;
                self.push(at, Item::Deed { deed: Box::new(deed), again });
                return;
            }
            // The rounds' dice recorded it; a script has none.
            if let Some(kind) = kind
                && self.dice.is_played()
            {
                self.vms[i].dice.record(kind, self.now);
            }
        }
        if !again && deed != Deed::Rounds {
            self.deeds.push((self.now, deed.clone()));
        }
        self.do_it(deed);
        if let Some((machine, _)) = self.deeds.last().and_then(|(_, d)| at_machine(d)) {
            self.look_at_truth(machine.0 as usize);
        }
    }

    fn do_it(&mut self, deed: Deed) {
        let now = self.now;
        match deed {
            Deed::Expect { machines } => self.expect(machines),
            Deed::Say { machine, change } => {
                self.n += 1;
                let key = format!("k{}", self.n);
                let said = Said::Change { machine, change, key };
                // An impatient client sends it twice.
                if self.rngs[machine.0 as usize].chance(20_000) {
                    self.say(said.clone());
                }
                self.say(said);
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
            // Who comes with other disks looks first whether anything is under way.
            Deed::Rebuild { machine } => {
                if self.checker.row(machine).run.is_none() {
                    self.vms[machine.0 as usize].rebuild(now);
                }
            }
            Deed::Evict { machine } => self.vms[machine.0 as usize].evict(now),
            Deed::Flash { machine, own, to } => {
                self.vms[machine.0 as usize].flash_by_hand(now, usize::from(own), &to);
            }
            Deed::Task { machine } => self.vms[machine.0 as usize].task_by_hand(now),
            Deed::BootOrder { machine, disk } => {
                let target = if disk { BootTarget::Disk } else { BootTarget::Pxe };
                self.vms[machine.0 as usize].boot_order_by_hand(now, target);
            }
            Deed::BoardOut { machine, until } => {
                self.vms[machine.0 as usize].cut_off_baseboard(now, until);
            }
            Deed::BoardCrash { machine } => self.vms[machine.0 as usize].crash_baseboard(now),
            Deed::BmcOut { machine, until } => {
                self.vms[machine.0 as usize].cut_off_bmc(now, until);
            }
            Deed::Outage { rack, until, hosts, bmcs } => self.outage(rack, until, hosts, bmcs),
            Deed::Dark { rack, until } => {
                let i = rack as usize;
                self.dark_until[i] = self.dark_until[i].max(until);
                for n in self.machines_of(Some(rack)) {
                    self.vms[n].dice.record(FaultKind::RackPower, now);
                    self.vms[n].lose_mains(now);
                    self.look_at_truth(n);
                }
                self.push(until, Item::MainsBack { rack });
            }
            Deed::SecondDaemon => self.second_daemon(),
            Deed::OldDatabase => self.old_database(),
            Deed::Rounds => {
                let store = &self.store;
                let stopped = store.stopped.as_ref();
                let plan = self.people.rounds(now, |id| store.row(id), stopped, &mut self.vms);
                for (at, deed) in plan {
                    self.push(at, Item::Deed { deed: Box::new(deed), again: false });
                }
            }
        }
    }

    fn expect(&mut self, machines: Vec<MachineId>) {
        let now = self.now;
        let later =
            |machines| Item::Deed { deed: Box::new(Deed::Expect { machines }), again: true };
        let lines: Vec<(MachineId, Arc<Expected>)> =
            machines.iter().map(|id| (*id, self.lines[id.0 as usize].clone())).collect();
        for (id, line) in &lines {
            self.was_expected[id.0 as usize] = true;
            self.store.expect(*id, line.clone());
        }
        if self.director.is_none() {
            self.push(now + 60_000, later(machines));
            return;
        }
        self.feed(Event::Expect { machines: lines });
        // A start-up commit that was lost in a crash is made at the next reading.
        if machines.iter().any(|id| self.store.row(*id).is_none()) {
            self.push(now + 120_000, later(machines));
        }
    }

    fn outage(&mut self, rack: Option<u32>, until: EngineTime, hosts: bool, bmcs: bool) {
        let kind = match (rack, bmcs) {
            (None, _) => FaultKind::CoreOutage,
            (Some(_), true) => FaultKind::Outage,
            (Some(_), false) => FaultKind::HostOutage,
        };
        let (bmc, host) = match rack {
            Some(r) => (&mut self.bmc_out[r as usize], &mut self.host_out[r as usize]),
            None => (&mut self.core_out.0, &mut self.core_out.1),
        };
        if bmcs {
            *bmc = until.max(*bmc);
        }
        if hosts {
            *host = until.max(*host);
        }
        for n in self.machines_of(rack) {
            self.vms[n].dice.record(kind, self.now);
            self.look_at_faults(n);
        }
    }

    fn machines_of(&self, rack: Option<u32>) -> Vec<usize> {
        let ids = self.vms.iter().map(|vm| vm.id.0);
        ids.filter(|id| rack.is_none_or(|r| r == id / RACK)).map(|id| id as usize).collect()
    }

    pub(super) fn mains_back(&mut self, rack: u32) {
        if self.dark_until[rack as usize] > self.now {
            return;
        }
        for n in self.machines_of(Some(rack)) {
            self.vms[n].mains_back(self.now);
            self.look_at_truth(n);
        }
    }

    pub(super) fn say(&mut self, said: Said) {
        self.ticket += 1;
        let ticket = self.ticket;
        self.said.insert(ticket, (self.now, said.clone()));
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

    pub(super) fn acknowledged(&mut self, ticket: u64, result: &Result<u64, Fault>) {
        let Some((_, said)) = self.said.remove(&ticket) else { return };
        match (&said, result) {
            (Said::Change { machine, key, .. }, Ok(_)) if !self.store.has_key(*machine, key) => {
                self.checker.violate("ack-not-durable", self.now, *machine, || key.clone());
            }
            (Said::Stop { why }, Ok(_)) if self.store.stopped.is_some() != why.is_some() => {
                self.checker.violate("ack-not-durable", self.now, MachineId(0), || "stop".into());
            }
            (Said::Stop { .. }, Err(_)) => {
                // It could not be made durable, and the person was told: said again.
                self.coverage.fault(FaultKind::StopFails, column(None));
                self.push(self.now + MINUTE, Item::Say(Box::new(said)));
            }
            _ => {}
        }
    }

    /// What was said an hour ago and never answered.
    pub(super) fn unanswered(&mut self) {
        for (at, said) in std::mem::take(&mut self.said).into_values() {
            if self.now.since(at) > 60 * MINUTE {
                let machine = match &said {
                    Said::Change { machine, .. } => *machine,
                    Said::Stop { .. } => MachineId(0),
                };
                self.checker.violate("never-answered", self.now, machine, || format!("{said:?}"));
            }
        }
    }
}

/// The machine that somebody must stand at, and the fault that this is.
fn at_machine(deed: &Deed) -> Option<(MachineId, Option<FaultKind>)> {
    Some(match deed {
        Deed::PressPower { machine } => (*machine, Some(FaultKind::HumanPower)),
        Deed::Swap { machine } => (*machine, Some(FaultKind::SerialSwapped)),
        Deed::Cross { machine } => (*machine, Some(FaultKind::WrongHost)),
        Deed::Flash { machine, .. } => (*machine, Some(FaultKind::HumanFlash)),
        Deed::Task { machine } => (*machine, Some(FaultKind::HumanTask)),
        Deed::BootOrder { machine, .. } => (*machine, Some(FaultKind::HumanBoot)),
        Deed::BoardOut { machine, .. } => (*machine, Some(FaultKind::BoardOutage)),
        Deed::BoardCrash { machine } => (*machine, Some(FaultKind::BoardCrash)),
        Deed::BmcOut { machine, .. } => (*machine, Some(FaultKind::BmcPort)),
        Deed::Mend { machine } | Deed::Rebuild { machine } | Deed::Evict { machine } => {
            (*machine, None)
        }
        _ => return None,
    })
}
