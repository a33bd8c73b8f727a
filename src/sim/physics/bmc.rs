//! Power, boot override, firmware and tasks: the BMC's side.

use super::{Cause, Due, HostState, PowerState, Sickness, VirtualMachine, What};
use crate::model::action::BootTarget;
use crate::model::facts::TaskState;
use crate::model::{EngineTime, PowerOp};
use crate::sim::faults::FaultKind;
use crate::steps::catalog::Activation;
use std::sync::Arc;

/// `BootSourceOverrideEnabled` (DSP0268 ComputerSystem.Boot).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootMode {
    #[default]
    Disabled,
    Once,
    Continuous,
}

/// Where the next boot goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootOverride {
    pub target: BootTarget,
    pub mode: BootMode,
}

impl Default for BootOverride {
    fn default() -> Self {
        Self { target: BootTarget::None, mode: BootMode::Disabled }
    }
}

impl BootOverride {
    /// As `BootSourceOverrideTarget` spells it.
    pub fn target_word(&self) -> &'static str {
        match self.target {
            BootTarget::Pxe => "Pxe",
            BootTarget::UefiHttp => "UefiHttp",
            BootTarget::Cd => "Cd",
            BootTarget::Disk => "Hdd",
            BootTarget::None => "None",
        }
    }

    pub fn mode_word(&self) -> &'static str {
        match self.mode {
            BootMode::Disabled => "Disabled",
            BootMode::Once => "Once",
            BootMode::Continuous => "Continuous",
        }
    }

    fn is_net(&self) -> bool {
        self.mode != BootMode::Disabled
            && matches!(self.target, BootTarget::Pxe | BootTarget::UefiHttp)
    }
}

/// One firmware component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Member id of the firmware inventory.
    pub id: &'static str,
    pub name: &'static str,
    pub version: Arc<str>,
    /// Written and waiting for its activation.
    pub staged: Option<Arc<str>>,
    /// A cut in its copy broke it: it does not say its version any more, and runs no image.
    pub corrupt: bool,
    pub activation: Activation,
}

impl Slot {
    /// The components of the virtual GPU node with the versions they come with.
    pub fn factory() -> Vec<Slot> {
        vec![
            Slot {
                id: "BIOS",
                name: "System BIOS",
                version: Arc::from("2.0.0"),
                staged: None,
                corrupt: false,
                activation: Activation::HostReset,
            },
            Slot {
                id: "BMC",
                name: "Baseboard Management Controller",
                version: Arc::from("7.10"),
                staged: None,
                corrupt: false,
                activation: Activation::BmcReset,
            },
        ]
    }
}

/// What is wrong with one update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// 99 % for ever.
    Stuck,
    Fails,
    /// Completed, and the version stays.
    Unchanged,
    /// The task says Completed long before the work is done.
    Early,
    /// The BMC is dead afterwards.
    Bricks,
}

/// One update task.
#[derive(Clone, Debug)]
pub struct BmcTask {
    pub id: u32,
    pub slot: usize,
    pub to: Arc<str>,
    pub started: EngineTime,
    pub ends: EngineTime,
    pub flaw: Flaw,
    /// The end, once there is one.
    pub ended: Option<bool>,
    /// It stands behind another job and has not begun.
    pub held: bool,
    pub by: Cause,
}

impl BmcTask {
    pub fn uri(&self) -> String {
        format!("/redfish/v1/TaskService/Tasks/{}", self.id)
    }

    /// The work itself goes on.
    pub fn is_running(&self) -> bool {
        self.ended.is_none() && !self.held
    }

    /// It runs and the BMC does not claim that it has ended: nobody can know of the others.
    pub fn is_told_running(&self) -> bool {
        self.is_running() && self.flaw != Flaw::Early
    }

    /// State, Redfish `TaskState` and percent as a client sees them at `now`.
    pub fn shown(&self, now: EngineTime) -> (TaskState, &'static str, u8) {
        let span = self.ends.since(self.started).max(1);
        let percent = u8::try_from((now.since(self.started) * 100 / span).min(99)).unwrap_or(99);
        match self.ended {
            None if self.held => (TaskState::InProgress, "Pending", 0),
            Some(true) => (TaskState::Succeeded, "Completed", 100),
            Some(false) => (TaskState::Failed, "Exception", percent),
            None if self.flaw == Flaw::Early && percent >= 40 => {
                (TaskState::Succeeded, "Completed", 100)
            }
            None => (TaskState::InProgress, "Running", percent),
        }
    }
}

/// Tasks a BMC keeps; bmcweb keeps 100.
const TASKS_KEPT: usize = 20;

impl VirtualMachine {
    /// Applies a power order. Never fails: what a BMC refuses was refused before.
    pub(super) fn order_power(&mut self, at: EngineTime, op: PowerOp, by: Cause) {
        match op {
            PowerOp::On => {
                if self.mains
                    && self.power == PowerState::Off
                    && self.sick != Some(Sickness::NoPower)
                {
                    self.cancel_power();
                    self.power = PowerState::TurningOn;
                    self.effect(at, What::PowerOn, by);
                    self.powered_by = by;
                    let ms = self.durations.power_on.pick(&mut self.rng);
                    self.after(at + ms, Due::PowerUp);
                }
            }
            PowerOp::ForceOff => {
                if matches!(self.power, PowerState::On | PowerState::TurningOn) {
                    self.cancel_power();
                    self.break_copies(at, by);
                    self.cut(at, by);
                    self.break_baseboard(at, by);
                    self.power = PowerState::TurningOff;
                    let ms = self.durations.power_off.pick(&mut self.rng);
                    self.after(at + ms, Due::PowerDown(by));
                }
            }
            PowerOp::GracefulShutdown => {
                // Without an operating system nobody hears the button.
                if self.power == PowerState::On
                    && self.host == HostState::Running
                    && !self.dice.throw(FaultKind::ShutdownIgnored, at)
                {
                    self.cancel_power();
                    self.break_copies(at, by);
                    self.cut(at, by);
                    self.break_baseboard(at, by);
                    let ms = self.durations.shutdown.pick(&mut self.rng);
                    self.after(at + ms, Due::PowerDown(by));
                }
            }
            PowerOp::ForceRestart => {
                if self.power == PowerState::On {
                    self.powered_by = by;
                    // From outside it is a cold one; what an operating system does by itself is warm.
                    self.break_copies(at, by);
                    self.reboot(at, by);
                    self.break_baseboard(at, by);
                }
            }
        }
    }

    pub(super) fn power_up(&mut self, at: EngineTime) {
        self.power = PowerState::On;
        self.start_post(at);
    }

    pub(super) fn power_down(&mut self, _at: EngineTime, _by: Cause) {
        self.power = PowerState::Off;
        self.host_down();
    }

    /// Off and on again without the power state changing.
    pub(super) fn reboot(&mut self, at: EngineTime, by: Cause) {
        self.cut(at, by);
        self.start_post(at);
    }

    /// The host loses power (or its operating system goes down) at this moment.
    pub(super) fn cut(&mut self, at: EngineTime, by: Cause) {
        if self.power == PowerState::On {
            self.effect(at, What::PowerCut, by);
        }
        self.host_down();
        self.node.host_lost(at);
        // A BIOS image is written through the host's flash chip while it is powered; the BMC's own
        // is not.
        self.break_tasks(at, by, |slot| slot.activation == Activation::HostReset);
    }

    fn start_post(&mut self, at: EngineTime) {
        self.last_reset = at;
        self.boots += 1;
        self.host = HostState::Post;
        let ms = self.durations.post.pick(&mut self.rng);
        self.after(at + ms, Due::PostDone);
    }

    pub(super) fn post_done(&mut self, at: EngineTime) {
        self.activate(at, Activation::HostReset);
        self.activate_baseboard(at, Activation::HostReset);
        self.apply_settings(at);
        let (net, cd) = (self.boot.is_net(), self.boots_cd());
        if self.boot.mode == BootMode::Once {
            self.boot = BootOverride::default();
        }
        if net && !self.dice.throw(FaultKind::BootsDisk, at) {
            self.host = HostState::NetBoot;
            let ms = self.durations.fetch.pick(&mut self.rng);
            self.after(at + ms, Due::ScriptFetch);
        } else if let Some(chains) = cd {
            self.boot_cd(at, chains);
            if chains {
                self.host = HostState::NetBoot;
                let ms = self.durations.fetch.pick(&mut self.rng);
                self.after(at + ms, Due::ScriptFetch);
            }
        } else {
            self.boot_disk(at);
        }
    }

    /// Sets the boot override; a BMC without `Once` keeps it.
    pub(super) fn set_boot(&mut self, at: EngineTime, target: BootTarget, by: Cause) {
        self.effect(at, What::SetBoot, by);
        let mode = match target {
            BootTarget::None => BootMode::Disabled,
            _ if self.quirks.ignores_once => BootMode::Continuous,
            _ => BootMode::Once,
        };
        self.boot = BootOverride { target, mode };
        if self.boot.is_net() {
            self.spent.provisions();
        }
    }

    /// The BMC restarts: tasks and what it staged for itself are settled, nothing answers.
    pub(super) fn restart_bmc(&mut self, at: EngineTime, by: Cause) {
        self.effect(at, What::BmcReset, by);
        self.break_tasks(at, by, |_| true);
        self.break_copies(at, by);
        // What waits in the queue outlives the BMC.
        self.tasks.retain(|t| t.held);
        self.board.forget();
        self.activate(at, Activation::BmcReset);
        self.bmc_up = false;
        self.pending.retain(|(_, due)| {
            !matches!(due, Due::BmcUp | Due::TaskEnds(_) | Due::TaskVanishes(..))
        });
        let ms = self.durations.bmc_reset.pick(&mut self.rng);
        self.after(at + ms, Due::BmcUp);
    }

    /// The rack goes dark, BMC and all: what runs is broken, what a BMC had taken and not yet
    /// applied is gone.
    pub fn lose_mains(&mut self, now: EngineTime) {
        self.advance(now);
        if !self.mains {
            return;
        }
        let on = matches!(self.power, PowerState::On | PowerState::TurningOn);
        self.break_copies(now, Cause::Itself);
        self.cut(now, Cause::Itself);
        self.restart_bmc(now, Cause::Itself);
        self.darken_baseboard(now);
        self.pending.clear();
        self.mains = false;
        self.bmc_up = false;
        self.power = PowerState::Off;
        self.on_before = on;
    }

    /// The rack has power again: the BMC boots, the host as its policy says.
    pub fn mains_back(&mut self, now: EngineTime) {
        self.advance(now);
        if self.mains {
            return;
        }
        self.mains = true;
        let ms = self.durations.bmc_reset.pick(&mut self.rng);
        self.after(now + ms, Due::BmcUp);
        self.light_baseboard(now);
        if self.on_before && !self.stays_off {
            self.order_power(now, PowerOp::On, Cause::Itself);
        }
    }

    fn break_tasks(&mut self, at: EngineTime, by: Cause, which: impl Fn(&Slot) -> bool) {
        for i in 0..self.tasks.len() {
            let slot = self.tasks[i].slot;
            if self.tasks[i].is_running() && which(&self.firmware[slot]) {
                self.tasks[i].ended = Some(false);
                let slot = u8::try_from(slot).unwrap_or(u8::MAX);
                self.effect(at, What::FlashBroken { slot }, by);
            }
        }
    }

    /// Starts an update; returns the task's path.
    pub(super) fn start_flash(
        &mut self,
        at: EngineTime,
        slot: usize,
        to: &str,
        by: Cause,
    ) -> String {
        let id = self.next_task;
        self.next_task += 1;
        if self.tasks.len() == TASKS_KEPT {
            self.tasks.remove(0);
        }
        let task = BmcTask {
            id,
            slot,
            to: Arc::from(to),
            started: at,
            ends: EngineTime::NEVER,
            flaw: Flaw::None,
            ended: None,
            held: self.holds_updates,
            by,
        };
        let uri = task.uri();
        if task.held {
            self.tasks.push(task);
        } else {
            self.begin_flash(at, task);
        }
        uri
    }

    /// What stood before the updates in the queue is over: they begin.
    pub fn release_updates(&mut self, now: EngineTime) {
        self.advance(now);
        self.holds_updates = false;
        let (held, begun) = std::mem::take(&mut self.tasks).into_iter().partition(|t| t.held);
        self.tasks = begun;
        for task in held {
            self.begin_flash(now, BmcTask { held: false, started: now, ..task });
        }
    }

    fn begin_flash(&mut self, at: EngineTime, task: BmcTask) {
        let BmcTask { id, slot, by, .. } = task;
        let to = &*task.to;
        let now = &self.firmware[slot];
        let what = What::FlashStarted {
            slot: u8::try_from(slot).unwrap_or(u8::MAX),
            already: &*now.version == to,
            staged: now.staged.as_deref() == Some(to),
            busy: self.all_tasks().any(BmcTask::is_told_running),
        };
        self.effect(at, what, by);
        self.spent.flashes();
        let ends = at + self.durations.flash.pick(&mut self.rng);
        let flaw = self.flaw(at);
        if flaw == Flaw::None && self.dice.throw(FaultKind::FlashVanishes, at) {
            let taken = self.rng.chance(500_000);
            self.after(ends, Due::TaskVanishes(id, taken));
        } else if flaw != Flaw::Stuck {
            self.after(ends, Due::TaskEnds(id));
        }
        self.tasks.push(BmcTask { ends, flaw, ..task });
    }

    pub(super) fn task_ends(&mut self, at: EngineTime, id: u32) {
        let Some(task) = self.tasks.iter_mut().find(|t| t.id == id && t.ended.is_none()) else {
            return;
        };
        let (slot, by, flaw) = (task.slot, task.by, task.flaw);
        let ok = !matches!(flaw, Flaw::Fails | Flaw::Bricks);
        task.ended = Some(ok);
        let to = task.to.clone();
        if ok && flaw != Flaw::Unchanged {
            self.take_image(at, slot, to);
        }
        self.effect(at, What::FlashEnded { slot: u8::try_from(slot).unwrap_or(u8::MAX), ok }, by);
        if flaw == Flaw::Bricks {
            self.break_copies(at, Cause::Itself);
            self.bricked = true;
            self.bmc_up = false;
            self.tasks.clear();
        }
    }

    pub(super) fn task_vanishes(&mut self, at: EngineTime, id: u32, taken: bool) {
        if taken {
            self.task_ends(at, id);
        }
        self.restart_bmc(at, Cause::Itself);
    }

    fn take_image(&mut self, at: EngineTime, n: usize, to: Arc<str>) {
        let slot = &mut self.firmware[n];
        match slot.activation {
            Activation::None => {
                slot.version = to;
                self.copy_image(at, n);
            }
            Activation::BmcReset | Activation::HostReset => slot.staged = Some(to),
        }
    }
}
