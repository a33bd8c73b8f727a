//! What befalls machines, racks, the site and its daemon, drawn at every round from their dice.

use super::{Deed, HOUR, MINUTE, Scenario};
use crate::model::{EngineTime, MachineId};
use crate::sim::faults::FaultKind;
use crate::sim::physics::VirtualMachine;
use crate::sim::workflows::RACK;

impl Scenario {
    /// What befalls one machine within the hour, from its dice.
    pub(super) fn building(
        &mut self,
        now: EngineTime,
        id: MachineId,
        vm: &mut VirtualMachine,
        plan: &mut Vec<(EngineTime, Deed)>,
    ) {
        let at = now + self.rng.below(HOUR);
        let machine = id;
        if vm.dice.throw(FaultKind::HumanPower, at) {
            plan.push((at, Deed::PressPower { machine }));
            if self.rng.chance(700_000) {
                plan.push((at + 20 * MINUTE, Deed::PressPower { machine }));
            }
        }
        if vm.dice.throw(FaultKind::SerialSwapped, at) {
            plan.push((at, Deed::Swap { machine }));
        }
        if vm.dice.throw(FaultKind::WrongHost, at) {
            plan.push((at, Deed::Cross { machine }));
        }
        if vm.dice.throw(FaultKind::HumanFlash, at) {
            let own = self.rng.chance(500_000);
            let newest = self.rng.chance(700_000);
            let to = match (own, newest) {
                (true, true) => "7.20",
                (true, false) => "7.10",
                (false, true) => "2.1.0",
                (false, false) => "2.0.0",
            };
            plan.push((at, Deed::Flash { machine, own, to: to.into() }));
        }
        if vm.dice.throw(FaultKind::HumanTask, at) {
            plan.push((at, Deed::Task { machine }));
        }
        if vm.dice.throw(FaultKind::HumanBoot, at) {
            plan.push((at, Deed::BootOrder { machine, disk: self.rng.chance(500_000) }));
        }
        // Machines without a second BMC throw nothing here, and draw what they always drew.
        if vm.baseboard.is_none() {
            return;
        }
        if let Some(rule) = vm.dice.throw_at(FaultKind::BoardOutage, at, String::new) {
            let until = at + vm.dice.lasts(&rule);
            plan.push((at, Deed::BoardOut { machine, until }));
        }
        if vm.dice.throw(FaultKind::BoardCrash, at) {
            plan.push((at, Deed::BoardCrash { machine }));
        }
        if let Some(rule) = vm.dice.throw_at(FaultKind::BmcPort, at, String::new) {
            let until = at + vm.dice.lasts(&rule);
            plan.push((at, Deed::BmcOut { machine, until }));
        }
    }

    /// What befalls racks, the site and its daemon within the hour.
    pub(super) fn site_deeds(&mut self, now: EngineTime, plan: &mut Vec<(EngineTime, Deed)>) {
        let none = String::new;
        for rack in 0..self.machines.div_ceil(RACK) {
            let at = now + self.rng.below(HOUR);
            self.site.at_rack(rack);
            for (kind, hosts, bmcs) in
                [(FaultKind::Outage, false, true), (FaultKind::HostOutage, true, false)]
            {
                if let Some(rule) = self.site.throw_at(kind, at, none) {
                    let until = at + self.site.lasts(&rule);
                    // Some racks have one switch for both.
                    let hosts = hosts || rack % 3 == 1;
                    plan.push((at, Deed::Outage { rack: Some(rack), until, hosts, bmcs }));
                }
            }
            if let Some(rule) = self.site.throw_at(FaultKind::RackPower, at, none) {
                plan.push((at, Deed::Dark { rack, until: at + self.site.lasts(&rule) }));
            }
        }
        let at = now + self.rng.below(HOUR);
        if let Some(rule) = self.site.throw_at(FaultKind::CoreOutage, at, none) {
            let until = at + self.site.lasts(&rule);
            let hosts = self.rng.chance(500_000);
            plan.push((at, Deed::Outage { rack: None, until, hosts, bmcs: true }));
        }
        if self.site.throw(FaultKind::SecondDaemon, at) {
            plan.push((at, Deed::SecondDaemon));
        }
        if self.site.throw(FaultKind::OldDatabase, at) {
            plan.push((at, Deed::OldDatabase));
        }
        if !self.calm && self.rng.chance(12_000) {
            let at = now + self.rng.below(HOUR);
            plan.push((at, Deed::Stop { why: Some("drill".into()) }));
            plan.push((at + 5 * MINUTE + self.rng.below(40 * MINUTE), Deed::Stop { why: None }));
            self.stopped = true;
        }
    }
}
