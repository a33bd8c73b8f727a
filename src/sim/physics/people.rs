//! A person (or the building) at the machine: what nobody told Farrier about.

use super::{BmcTask, HostState, Installed, Node, Slot, Window};
use super::{Cause, Due, PowerState, VirtualMachine, What};
use crate::model::{EngineTime, Identity, PowerOp};

impl VirtualMachine {
    /// Somebody presses the power button: off when on, on when off.
    pub fn press_power(&mut self, now: EngineTime) {
        self.advance(now);
        let op = match self.power {
            PowerState::On => PowerOp::ForceOff,
            PowerState::Off => PowerOp::On,
            PowerState::TurningOn | PowerState::TurningOff => return,
        };
        self.order_power(now, op, Cause::Human);
    }

    /// Somebody resets the BMC with a pin.
    pub fn reset_bmc_by_hand(&mut self, now: EngineTime) {
        self.advance(now);
        if self.bmc_up {
            self.restart_bmc(now, Cause::Human);
        }
    }

    /// Another machine stands behind this address from now on, running and with data on it.
    pub fn swap(&mut self, now: EngineTime, other: Identity) {
        self.advance(now);
        self.break_copies(now, Cause::Human);
        self.break_baseboard(now, Cause::Human);
        let taken = self.clone();
        self.to_copy.clear();
        self.pending.clear();
        self.crossed_at = now;
        self.away.get_or_insert_with(|| Box::new(taken));
        self.renew_baseboard(now, Some(super::baseboard_serial(&other)));
        self.identity = other;
        self.bmc_up = self.mains;
        self.tasks.clear();
        self.firmware = Slot::factory();
        self.node = Node::default();
        self.boot = super::BootOverride::default();
        self.board = super::Board::default();
        self.found_running(false, 0);
        self.host_key = "ssh-ed25519 somebody-elses".into();
    }

    /// The host's address leads to another host (`None`: put right again).
    pub fn cross_cables(&mut self, now: EngineTime, other: Option<Identity>) {
        self.advance(now);
        self.crossed_at = now;
        self.other_host = other;
    }

    /// A repair: the right machine, cables as they should be, a BMC restarted from its standby
    /// power, so that no task hangs. A machine that is sick for good stays sick.
    pub fn mend(&mut self, now: EngineTime) {
        self.advance(now);
        self.other_host = None;
        self.board.dead_drive = None;
        if let Some(own) = self.away.take() {
            self.come_home(now, *own);
        }
        if self.bricked {
            // Another board, as it comes from the factory; its stickers say the same.
            self.bricked = false;
            self.firmware = Slot::factory();
            self.restart_bmc(now, Cause::Human);
        }
        if self.installed.is_none() && matches!(self.host, HostState::Stuck | HostState::Idle) {
            // Whoever comes to a machine that boots nothing leaves a rescue system on its disk.
            self.installed = Some(Installed::found());
            self.reboot(now, Cause::Human);
        } else if self.installed.is_some() && self.power == PowerState::Off {
            // And nobody leaves a machine off that could run.
            self.order_power(now, PowerOp::On, Cause::Human);
        }
        if self.tasks.iter().any(BmcTask::is_running) {
            self.restart_bmc(now, Cause::Human);
        }
        let board = self.baseboard.as_ref();
        if board.is_some_and(|b| b.bricked || b.firmware.iter().any(|s| s.corrupt)) {
            self.renew_baseboard(now, None);
        } else if board.is_some_and(|b| b.tasks.iter().any(BmcTask::is_running)) {
            self.restart_baseboard(now, Cause::Human);
        }
        if !self.is_whole() {
            // What a cut broke is beyond an update: another board for that too.
            self.firmware = Slot::factory();
        }
        if self.node.cordoned {
            // Whoever holds a drain up is talked to.
            self.node.ends.clear();
        }
    }

    /// The machine that was swapped away is back in its place, unplugged meanwhile.
    fn come_home(&mut self, now: EngineTime, own: VirtualMachine) {
        self.pending.clear();
        self.crossed_at = now;
        self.identity = own.identity;
        self.power = PowerState::Off;
        self.host = HostState::Down;
        self.boot = own.boot;
        self.board = own.board;
        self.firmware = own.firmware;
        self.to_copy = own.to_copy;
        self.tasks.clear();
        self.baseboard = own.baseboard;
        self.darken_baseboard(now);
        self.light_baseboard(now);
        self.bricked = own.bricked;
        self.bmc_up = self.bmc_lives();
        self.installed = own.installed;
        self.foreign_data = own.foreign_data;
        self.host_key = own.host_key;
        self.jobs = own.jobs;
        self.node = own.node;
        self.window = own.window;
        self.host_down();
        self.node.host_lost(now);
    }

    /// A new machine in this place, as from the factory: old firmware, empty disks, off. It keeps
    /// the name and (as a repaired board does) the identity.
    pub fn rebuild(&mut self, now: EngineTime) {
        self.advance(now);
        if self.power == PowerState::On {
            self.effect(now, What::PowerCut, Cause::Human);
        }
        self.pending.retain(|(_, due)| matches!(due, Due::Late(_)));
        self.copies.clear();
        self.to_copy.clear();
        self.renew_baseboard(now, None);
        self.power = PowerState::Off;
        self.host = HostState::Down;
        self.firmware = Slot::factory();
        self.tasks.clear();
        self.bricked = false;
        self.bmc_up = self.bmc_lives();
        self.installed = None;
        self.foreign_data = false;
        self.jobs.clear();
        self.boot = super::BootOverride::default();
        self.board = super::Board::default();
        self.node = Node::default();
        self.window = Window::default();
    }

    /// Somebody updates component `slot` by the BMC's own page. A BMC that writes already says no.
    pub fn flash_by_hand(&mut self, now: EngineTime, slot: usize, to: &str) {
        self.advance(now);
        if self.bmc_up && self.copies.is_empty() && !self.tasks.iter().any(BmcTask::is_running) {
            self.start_flash(now, slot, to, Cause::Human);
        }
    }

    /// Somebody writes the version that runs once more: a task that is not ours.
    pub fn task_by_hand(&mut self, now: EngineTime) {
        let version = self.firmware.first().map(|s| s.version.clone()).unwrap_or_default();
        self.flash_by_hand(now, 0, &version);
    }

    /// Somebody changes the boot order.
    pub fn boot_order_by_hand(&mut self, now: EngineTime, target: crate::model::BootTarget) {
        self.advance(now);
        if self.bmc_up {
            self.set_boot(now, target, Cause::Human);
        }
    }

    /// Somebody empties the node with the cluster's own tools.
    pub fn evict(&mut self, now: EngineTime) {
        self.advance(now);
        self.node.cordoned |= self.node.member;
        self.node.ends.clear();
    }

    /// The BMC answers or not, whatever it does itself: a dead switch.
    pub fn is_reachable(&self) -> bool {
        self.bmc_up
    }
}
