//! Probes and actions between the daemon and the virtual machines, and what they meet on the way.

use super::Runner;
use super::queue::{Arriving, Item, Meets};
use crate::decide::Decide;
use crate::model::action::Touch;
use crate::model::facts::ProbeSet;
use crate::model::{
    Action, Channel, EngineTime, Expect, Fault, FaultClass, MachineId, Outcome, Read, Report,
};
use crate::sim::coverage::column;
use crate::sim::faults::{Dice, FaultKind};
use crate::sim::physics::Ask;
use crate::sim::rng::Rng;
use crate::sim::truth::{What, intent_name};
use crate::sim::workflows::RACK;
use crate::steps::Step;

/// Names of the job, the task and the boot window that a probe is about.
pub(super) type Asked<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>);

impl<D: Decide + Clone> Runner<D> {
    pub(super) fn column(&self, machine: MachineId) -> usize {
        let step = self.checker.row(machine).step.as_ref();
        step.and_then(|s| self.step_columns.get(usize::from(s.index)).copied())
            .unwrap_or_else(|| column(None))
    }

    /// Tells the machine's dice what goes on, for rules that ask for it.
    fn set_scene(&mut self, i: usize, act: Option<&Action>) {
        let step = Step::KINDS.get(self.column(self.vms[i].id)).copied();
        self.vms[i].dice.set_scene(step, act.map(Action::kind));
    }

    /// Takes note of what the dice of machine `i` have thrown since.
    pub(super) fn look_at_faults(&mut self, i: usize) {
        let log = self.vms[i].dice.log();
        if log.len() == self.faults_seen[i] {
            return;
        }
        let column = self.column(self.vms[i].id);
        for injected in &self.vms[i].dice.log()[self.faults_seen[i]..] {
            self.coverage.fault(injected.kind, column);
        }
        self.faults_seen[i] = self.vms[i].dice.log().len();
    }

    pub(super) fn look_at_truth(&mut self, i: usize) {
        let vm = &self.vms[i];
        self.checker.effects(vm.id, vm);
        self.look_at_faults(i);
        // A host that called back makes the boot server poke the engine.
        let vm = &self.vms[i];
        if vm.callbacks != self.callbacks_seen[i] {
            let news = vm.callbacks - self.callbacks_seen[i];
            self.callbacks_seen[i] = vm.callbacks;
            let id = vm.id;
            for k in 0..news {
                self.push(self.now + u64::from(k) * 50 + 5, Item::Poke { machine: id });
            }
        }
        let vm = &self.vms[i];
        let next = vm.next_at();
        if vm.is_installing() && next != EngineTime::NEVER && self.poke_at[i] == EngineTime::NEVER {
            self.poke_at[i] = next;
            let id = vm.id;
            self.push(next, Item::Poke { machine: id });
        }
    }

    /// The management network leads to no BMC of this rack.
    fn bmcs_cut_off(&self, machine: MachineId) -> bool {
        let rack = (machine.0 / RACK) as usize;
        self.bmc_out[rack].max(self.core_out.0) > self.now
    }

    /// Nor to a host.
    fn hosts_cut_off(&self, machine: MachineId) -> bool {
        let rack = (machine.0 / RACK) as usize;
        self.host_out[rack].max(self.core_out.1) > self.now
    }

    /// The key that the daemon wants its SSH to see there.
    fn pinned(&self, id: MachineId) -> Option<String> {
        let row = self.director.as_ref().and_then(|d| d.machine(id));
        if let Some(ramdisk) = row.and_then(|m| m.ramdisk.as_deref()) {
            return Some(ramdisk.host_key.to_string());
        }
        let line = || self.lines[id.0 as usize].host.host_key.as_deref();
        row.and_then(|m| m.host_key.as_deref()).or_else(line).map(String::from)
    }

    pub(super) fn probe(
        &mut self,
        machine: MachineId,
        token: u64,
        set: ProbeSet,
        (job, handle, run): Asked<'_>,
        life: u32,
    ) {
        self.stats.probes += 1;
        let i = machine.0 as usize;
        self.set_scene(i, None);
        let key = self.pinned(machine);
        let key = key.as_deref();
        let (bmcs_cut_off, hosts_cut_off) =
            (self.bmcs_cut_off(machine), self.hosts_cut_off(machine));
        let rng = &mut self.rngs[i];
        let vm = &mut self.vms[i];
        let on_board = vm.is_on_baseboard(handle);
        let mut report =
            Box::new(vm.probe(self.now, &Ask { set, job, handle, run, host_key: key }));
        let mut ms = self.durations.read.pick(rng);
        if set.0 & !ProbeSet::SYSTEM.0 != 0 {
            ms += if set.has(ProbeSet::INVENTORY) || set.has(ProbeSet::FIRMWARE) {
                self.durations.read_big.pick(rng)
            } else {
                self.durations.ssh.pick(rng)
            };
        }
        if bmcs_cut_off {
            silence(&mut report, "the management network is down");
            ms = 10_000;
        } else if vm.bmc_port_out > self.now {
            // A task that is followed on the baseboard is asked there.
            let there = on_board.then(|| report.tasks.clone());
            silence(&mut report, "connect timed out");
            report.tasks = there.unwrap_or(report.tasks);
            ms = 10_000;
        } else {
            ms += meddle(&mut vm.dice, rng, self.now, &mut report);
        }
        let asked = report.tasks.was_asked() || report.firmware.was_asked();
        if vm.baseboard.is_some() && asked && vm.dice.throw(FaultKind::BoardNoAnswer, self.now) {
            vm.hide_baseboard(handle, &mut report);
            ms = ms.max(10_000);
        }
        if hosts_cut_off {
            silence_host(&mut report);
            ms = ms.max(10_000);
        }
        self.look_at_truth(i);
        report.at = self.now;
        self.push(self.now + ms, Item::Probed { machine, token, report, life });
    }

    pub(super) fn act(
        &mut self,
        machine: MachineId,
        seq: u64,
        action: Action,
        expect: Expect,
        life: u32,
    ) {
        self.stats.acts += 1;
        let i = machine.0 as usize;
        self.vms[i].advance(self.now);
        self.look_at_truth(i);
        self.checker.act_sent(self.now, machine, seq, &action, &expect, &self.vms[i]);
        self.set_scene(i, Some(&action));
        let class = action.kind().class();
        let rng = &mut self.rngs[i];
        let dice = &mut self.vms[i].dice;
        let meets = if dice.throw(FaultKind::ActLostBefore, self.now) {
            Meets::LostBefore
        } else if dice.throw(FaultKind::ActLostAfter, self.now) {
            Meets::LostAfter
        } else if class.lag_ms > 0 && dice.throw(FaultKind::ActLate, self.now) {
            let ms = 1 + rng.below(class.lag_ms.saturating_sub(2_000).max(1));
            Meets::Late { ms, answered: rng.chance(500_000) }
        } else if dice.throw(FaultKind::ActNotDone, self.now) {
            Meets::NotDone
        } else if dice.throw(FaultKind::ActRefused, self.now) {
            Meets::Refused
        } else if dice.throw(FaultKind::ActThrottled, self.now) {
            Meets::Throttled
        } else {
            Meets::Nothing
        };
        let ms = match action {
            Action::Hook { .. } => self.durations.hook.pick(rng),
            Action::StartJob { .. } => self.durations.ssh.pick(rng),
            _ => self.durations.act.pick(rng),
        }
        .min(class.deadline_ms / 2);
        self.look_at_faults(i);
        self.checker.act_under_way(machine, self.now + ms);
        let name = intent_name(self.generation, seq);
        let arriving = Arriving { machine, seq, name, action, expect, life, meets };
        self.push(self.now + ms, Item::ActArrives(Box::new(arriving)));
    }

    pub(super) fn act_arrives(&mut self, a: Arriving) {
        let i = a.machine.0 as usize;
        // The daemon died meanwhile: the request may have been sent or not.
        if !self.lives(a.life) && self.rngs[i].chance(500_000) {
            self.checker.act_over(a.machine, self.now);
            return;
        }
        let touches_bmc = a.action.kind().class().touches.contains(&Touch::Bmc);
        let port_out = self.vms[i].bmc_port_out > self.now;
        let no_bmc = touches_bmc && (port_out || self.bmcs_cut_off(a.machine));
        let no_host = matches!(a.action, Action::StartJob { .. }) && self.hosts_cut_off(a.machine);
        let deadline = a.action.kind().class().deadline_ms;
        let rest = 1 + self.rngs[i].below(1_000);
        // A job goes over SSH with the pinned key, or not at all.
        let key = (a.life == self.life && matches!(a.action, Action::StartJob { .. }))
            .then(|| self.pinned(a.machine))
            .flatten();
        let vm = &mut self.vms[i];
        let stranger = key
            .and_then(|key| vm.host_fault(Some(&key)))
            .filter(|f| f.class == FaultClass::Identity);
        let channel = if touches_bmc { Channel::Bmc } else { Channel::Host };
        let failed = |class, code, text: &str| Outcome::Failed {
            fault: Fault::new(class, channel, code, text),
        };
        let unknown = || Outcome::Unknown {
            fault: Fault::new(
                FaultClass::OutcomeUnknown,
                channel,
                "deadline",
                "no answer within the deadline",
            ),
        };
        let mut over_at = self.now;
        let (outcome, after) = if no_bmc || no_host {
            (Outcome::Failed { fault: Fault::no_answer(channel, "connect timed out") }, rest)
        } else if let Some(fault) = stranger {
            (Outcome::Failed { fault }, rest)
        } else {
            match a.meets {
                Meets::LostBefore => (unknown(), deadline),
                Meets::Refused => (failed(FaultClass::Transient, "http-503", "503"), rest),
                Meets::Throttled => {
                    let fault = Fault::new(FaultClass::Throttled, channel, "http-429", "429");
                    (Outcome::Failed { fault: fault.retry_after(30_000) }, rest)
                }
                meets => match vm.refusal(self.now, &a.action, &a.expect) {
                    Some(outcome) => (outcome, rest),
                    None => match meets {
                        Meets::NotDone => (Outcome::Applied { handle: None }, rest),
                        Meets::Late { ms, answered } => {
                            let late = self.now + ms;
                            vm.apply_late(late, a.name, &a.action);
                            over_at = late;
                            if answered {
                                (Outcome::Applied { handle: None }, rest)
                            } else {
                                (unknown(), deadline)
                            }
                        }
                        Meets::LostAfter => {
                            vm.apply(self.now, a.name, &a.action);
                            (unknown(), deadline)
                        }
                        _ => (vm.apply(self.now, a.name, &a.action), rest),
                    },
                },
            }
        };
        self.checker.act_over(a.machine, self.now);
        self.checker.act_under_way(a.machine, over_at);
        let flashed = matches!(
            self.vms[i].truth.effects().last(),
            Some(e) if matches!(e.what, What::FlashStarted { .. }) && e.at == self.now
        );
        self.look_at_truth(i);
        if flashed {
            self.checker.physical_flashes(self.now, a.machine, &self.vms);
        }
        let item = Item::Acted {
            machine: a.machine,
            seq: a.seq,
            outcome: Box::new(outcome),
            life: a.life,
        };
        self.push(self.now + after, item);
    }
}

/// Nothing comes back from the host.
fn silence_host(report: &mut Report) {
    let fault = || Fault::no_answer(Channel::Host, "the management network is down");
    if report.host.was_asked() {
        report.host = Read::Failed(fault());
    }
    if report.job.was_asked() {
        report.job = Read::Failed(fault());
    }
}

/// Nothing comes back from the BMC.
fn silence(report: &mut Report, why: &str) {
    let fault = || Fault::no_answer(Channel::Bmc, why);
    if report.system.was_asked() {
        report.system = Read::Failed(fault());
    }
    if report.inventory.was_asked() {
        report.inventory = Read::Failed(fault());
    }
    if report.firmware.was_asked() {
        report.firmware = Read::Failed(fault());
    }
    if report.tasks.was_asked() {
        report.tasks = Read::Failed(fault());
    }
    if report.media.was_asked() {
        report.media = Read::Failed(fault());
    }
    if report.bios.was_asked() {
        report.bios = Read::Failed(fault());
    }
    if report.secure_boot.was_asked() {
        report.secure_boot = Read::Failed(fault());
    }
    if report.storage.was_asked() {
        report.storage = Read::Failed(fault());
    }
}

/// What a probe meets on its way; returns how much longer it takes.
fn meddle(dice: &mut Dice, rng: &mut Rng, now: EngineTime, report: &mut Report) -> u64 {
    if dice.throw(FaultKind::ProbeNoAnswer, now) {
        silence(report, "connection reset");
        return 3_000;
    }
    if dice.throw(FaultKind::ProbeHang, now) {
        silence(report, "no answer within 90 s");
        return 90_000;
    }
    let fault = |class, code, text: &str| Fault::new(class, Channel::Bmc, code, text);
    let whole = if dice.throw(FaultKind::ProbeError, now) {
        Some(fault(FaultClass::Transient, "http-500", "500 Internal Server Error"))
    } else if dice.throw(FaultKind::ProbeAuth, now) {
        Some(fault(FaultClass::Auth, "bad-credentials", "401 Unauthorized"))
    } else if dice.throw(FaultKind::ProbeThrottled, now) {
        Some(fault(FaultClass::Throttled, "http-429", "429").retry_after(20_000))
    } else {
        None
    };
    if let Some(fault) = whole {
        report.system = Read::Failed(fault);
        return 0;
    }
    if dice.throw(FaultKind::ProbePartial, now) {
        let http = || Fault::new(FaultClass::Transient, Channel::Bmc, "http-500", "500");
        match rng.below(9) {
            0 if report.firmware.was_asked() => report.firmware = Read::Failed(http()),
            1 if report.tasks.was_asked() => report.tasks = Read::Failed(http()),
            2 if report.host.was_asked() => {
                report.host = Read::Failed(Fault::no_answer(Channel::Host, "reset by peer"));
            }
            3 if report.job.was_asked() => {
                report.job = Read::Failed(Fault::no_answer(Channel::Host, "reset by peer"));
            }
            4 if report.cluster.was_asked() => {
                report.cluster = Read::Failed(Fault::new(
                    FaultClass::Transient,
                    Channel::Cluster,
                    "hook-failed",
                    "the hook ended with 1",
                ));
            }
            5 if report.inventory.was_asked() => report.inventory = Read::Failed(http()),
            6 if report.bios.was_asked() => report.bios = Read::Failed(http()),
            7 if report.secure_boot.was_asked() => report.secure_boot = Read::Failed(http()),
            8 if report.storage.was_asked() => report.storage = Read::Failed(http()),
            _ => {}
        }
    }
    0
}
