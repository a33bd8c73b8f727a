//! The HGX baseboard of some machines: the GPUs, and a BMC of their own at an address of its own. Its
//! tasks, images and copies go on whatever the host's BMC does; its own reset loses its tasks, and the
//! host's power is the baseboard's too (field notes §3.1, §6.10). Its port may be dead while the host's
//! BMC answers, and the reverse ([`VirtualMachine::bmc_port_out`]).

mod read;
#[cfg(test)]
mod tests;

use super::copy::Copying;
use super::{BmcTask, Cause, Due, Flaw, Sickness, Slot, VirtualMachine, What};
use crate::model::controller;
use crate::model::{EngineTime, Identity};
use crate::sim::faults::FaultKind;
use crate::sim::rng::Rng;
use crate::steps::catalog::Activation;
use std::sync::Arc;

/// The controller's name in the inventory.
pub const BASEBOARD: &str = "hgx";

/// In the truth log its components come after all of the host's: `SLOTS + n`.
pub(super) const SLOTS: u8 = 100;

/// Tasks that it keeps.
const TASKS_KEPT: usize = 20;

/// The baseboard and its BMC.
#[derive(Clone, Debug)]
pub struct Baseboard {
    /// What its own Redfish shows, and the inventory has.
    pub serial: Arc<str>,
    pub firmware: Vec<Slot>,
    pub tasks: Vec<BmcTask>,
    pub copies: Vec<Copying>,
    /// Slots whose new image runs with its BMC's next start, and is copied from then on.
    to_copy: Vec<usize>,
    /// Its BMC runs.
    pub up: bool,
    /// An image killed its BMC.
    pub bricked: bool,
    /// Its port is dead until then.
    pub port_out: EngineTime,
    /// It has not answered since then; `None`: it answers.
    silent_since: Option<EngineTime>,
    next_task: u32,
    /// Its own: it shifts nothing else that is drawn.
    rng: Rng,
}

impl Baseboard {
    /// As it comes from the factory, running.
    pub fn new(serial: Arc<str>, rng: Rng) -> Self {
        Self {
            serial,
            firmware: Self::factory(),
            tasks: Vec::new(),
            copies: Vec::new(),
            to_copy: Vec::new(),
            up: true,
            bricked: false,
            port_out: EngineTime::ZERO,
            silent_since: None,
            next_task: 1,
            rng,
        }
    }

    /// Its components with the versions that they come with.
    pub fn factory() -> Vec<Slot> {
        let slot = |id, name, version, activation| Slot {
            id,
            name,
            version: Arc::from(version),
            staged: None,
            corrupt: false,
            activation,
        };
        vec![
            slot("HGX_FW_BMC_0", "HGX baseboard BMC", "24.06", Activation::BmcReset),
            slot("HGX_FW_GPU_SXM_1", "GPU", "96.00.01", Activation::HostReset),
        ]
    }

    /// Does anything behind its address answer at `now`?
    pub fn answers(&self, now: EngineTime) -> bool {
        self.up && now >= self.port_out
    }
}

fn prefixed(id: &str) -> String {
    format!("{BASEBOARD}:{id}")
}

fn number(slot: usize) -> u8 {
    SLOTS.saturating_add(u8::try_from(slot).unwrap_or(u8::MAX))
}

/// The component on the baseboard that this id means; `None`: one of the host's.
pub(in crate::sim::physics) fn on_board(id: &str) -> Option<&str> {
    match controller::split(id) {
        (Some(BASEBOARD), rest) => Some(rest),
        _ => None,
    }
}

/// Everything that both BMCs do.
impl VirtualMachine {
    /// Update tasks, the baseboard's after the host BMC's.
    pub fn all_tasks(&self) -> impl Iterator<Item = &BmcTask> {
        self.tasks.iter().chain(self.baseboard.iter().flat_map(|b| &b.tasks))
    }

    /// Copies under way, the baseboard's after the host's board's.
    pub fn all_copies(&self) -> impl Iterator<Item = &Copying> {
        self.copies.iter().chain(self.baseboard.iter().flat_map(|b| &b.copies))
    }

    /// Since when the baseboard has not answered; `None`: it does, or there is none.
    pub(super) fn baseboard_silent_since(&self, at: EngineTime) -> Option<EngineTime> {
        let board = self.baseboard.as_ref()?;
        if board.answers(at) { None } else { board.silent_since }
    }
}

/// The serial of the baseboard that was delivered in this machine.
pub fn serial(delivered: &Identity) -> Arc<str> {
    format!("HGX-{}", delivered.serial.as_deref().unwrap_or("0")).into()
}

/// Writes, and what happens by itself.
impl VirtualMachine {
    fn silence_baseboard(&mut self, at: EngineTime) {
        if let Some(board) = &mut self.baseboard
            && board.silent_since.is_none()
        {
            board.silent_since = Some(at);
        }
    }

    fn baseboard_heard(&mut self, at: EngineTime) {
        if let Some(board) = &mut self.baseboard
            && board.answers(at)
        {
            board.silent_since = None;
        }
    }

    /// The port of its BMC is dead until then; what it does goes on.
    pub fn cut_off_baseboard(&mut self, now: EngineTime, until: EngineTime) {
        self.advance(now);
        self.silence_baseboard(now);
        if let Some(board) = &mut self.baseboard {
            board.port_out = board.port_out.max(until);
            self.after(until, Due::BoardHeard);
        }
    }

    /// The port of the host's BMC is dead until then; the baseboard's is not.
    pub fn cut_off_bmc(&mut self, now: EngineTime, until: EngineTime) {
        self.advance(now);
        self.bmc_port_out = self.bmc_port_out.max(until);
    }

    /// Its BMC restarts by itself.
    pub fn crash_baseboard(&mut self, now: EngineTime) {
        self.advance(now);
        self.restart_baseboard(now, Cause::Itself);
    }

    /// Its BMC restarts: its tasks are lost, what it staged for itself runs, and nothing answers. The
    /// host, its BMC and what goes on there are not touched.
    pub(super) fn restart_baseboard(&mut self, at: EngineTime, by: Cause) {
        if !self.baseboard.as_ref().is_some_and(|b| self.mains && !b.bricked) {
            return;
        }
        self.effect(at, What::BoardReset, by);
        self.break_baseboard(at, by);
        self.activate_baseboard(at, Activation::BmcReset);
        self.silence_baseboard(at);
        self.pending.retain(|(_, due)| {
            !matches!(due, Due::BoardUp | Due::BoardTaskEnds(_) | Due::BoardTaskVanishes(..))
        });
        let draw = self.durations.bmc_reset;
        let Some(board) = &mut self.baseboard else { return };
        board.tasks.clear();
        board.up = false;
        let ms = draw.pick(&mut board.rng);
        self.after(at + ms, Due::BoardUp);
    }

    /// The baseboard's BMC has started.
    pub(super) fn baseboard_up(&mut self, at: EngineTime) {
        let mains = self.mains;
        let Some(board) = &mut self.baseboard else { return };
        board.up = mains && !board.bricked;
        if !board.up {
            return;
        }
        for slot in std::mem::take(&mut board.to_copy) {
            self.copy_on_baseboard(at, slot);
        }
        self.baseboard_heard(at);
    }

    pub(super) fn baseboard_port_back(&mut self, at: EngineTime) {
        self.baseboard_heard(at);
    }

    /// The host's power goes, or its BMC restarts: what it writes and copies is broken.
    pub(super) fn break_baseboard(&mut self, at: EngineTime, by: Cause) {
        let Some(board) = &mut self.baseboard else { return };
        let mut broken = Vec::new();
        for task in board.tasks.iter_mut().filter(|t| t.is_running()) {
            task.ended = Some(false);
            broken.push(What::FlashBroken { slot: number(task.slot) });
        }
        for copy in std::mem::take(&mut board.copies) {
            if let Some(slot) = board.firmware.get_mut(copy.slot) {
                slot.corrupt = true;
            }
            broken.push(What::CopyBroken { slot: number(copy.slot), since: copy.since });
        }
        for what in broken {
            self.effect(at, what, by);
        }
        self.pending.retain(|(_, due)| !matches!(due, Due::BoardCopyEnds(_)));
    }

    /// The rack goes dark.
    pub(super) fn darken_baseboard(&mut self, at: EngineTime) {
        self.break_baseboard(at, Cause::Itself);
        self.activate_baseboard(at, Activation::BmcReset);
        self.silence_baseboard(at);
        if let Some(board) = &mut self.baseboard {
            board.tasks.clear();
            board.up = false;
        }
    }

    /// The rack has power again.
    pub(super) fn light_baseboard(&mut self, at: EngineTime) {
        let draw = self.durations.bmc_reset;
        let Some(board) = &mut self.baseboard else { return };
        let (ms, port) = (draw.pick(&mut board.rng), board.port_out);
        self.after(at + ms, Due::BoardUp);
        // Whoever waits for its port waits on.
        self.after(port.max(at), Due::BoardHeard);
    }

    /// Another board in its place, as from the factory; a repaired one has the same stickers.
    pub(super) fn renew_baseboard(&mut self, at: EngineTime, serial: Option<Arc<str>>) {
        let mains = self.mains;
        let Some(board) = &mut self.baseboard else { return };
        let rng = board.rng.clone();
        let serial = serial.unwrap_or_else(|| board.serial.clone());
        // Whoever has it in hands looks after its cable too.
        *board = Baseboard { next_task: board.next_task, up: mains, ..Baseboard::new(serial, rng) };
        self.pending.retain(|(_, due)| !due.is_of_baseboard());
        if !mains {
            self.silence_baseboard(at);
        }
    }

    /// Starts an update there; returns the task's handle.
    pub(super) fn flash_baseboard(
        &mut self,
        at: EngineTime,
        id: &str,
        to: &str,
        by: Cause,
    ) -> Option<String> {
        let board = self.baseboard.as_ref()?;
        // A BMC that is down takes nothing, whoever sent it long ago.
        let slot = board.firmware.iter().position(|s| s.id == id).filter(|_| board.up)?;
        let now = &board.firmware[slot];
        let what = What::FlashStarted {
            slot: number(slot),
            already: &*now.version == to,
            staged: now.staged.as_deref() == Some(to),
            busy: self.all_tasks().any(BmcTask::is_told_running),
        };
        self.effect(at, what, by);
        let flaw = self.flaw(at);
        let draw = self.durations.flash;
        let vanishes = flaw == Flaw::None && self.dice.throw(FaultKind::FlashVanishes, at);
        let board = self.baseboard.as_mut()?;
        let ends = at + draw.pick(&mut board.rng);
        let n = board.next_task;
        board.next_task += 1;
        if board.tasks.len() == TASKS_KEPT {
            board.tasks.remove(0);
        }
        let task = BmcTask {
            id: n,
            slot,
            to: Arc::from(to),
            started: at,
            ends,
            flaw,
            ended: None,
            held: false,
            by,
        };
        let handle = prefixed(&task.uri());
        board.tasks.push(task);
        if vanishes {
            let taken = board.rng.chance(500_000);
            self.after(ends, Due::BoardTaskVanishes(n, taken));
        } else if flaw != Flaw::Stuck {
            self.after(ends, Due::BoardTaskEnds(n));
        }
        Some(handle)
    }

    pub(super) fn baseboard_task_ends(&mut self, at: EngineTime, id: u32) {
        let Some(board) = &mut self.baseboard else { return };
        let running = |t: &&mut BmcTask| t.id == id && t.ended.is_none();
        let Some(task) = board.tasks.iter_mut().find(running) else { return };
        let (n, by, flaw, to) = (task.slot, task.by, task.flaw, task.to.clone());
        let ok = !matches!(flaw, Flaw::Fails | Flaw::Bricks);
        task.ended = Some(ok);
        if ok && flaw != Flaw::Unchanged {
            board.firmware[n].staged = Some(to);
        }
        self.effect(at, What::FlashEnded { slot: number(n), ok }, by);
        if flaw == Flaw::Bricks {
            self.break_baseboard(at, Cause::Itself);
            self.silence_baseboard(at);
            if let Some(board) = &mut self.baseboard {
                (board.bricked, board.up) = (true, false);
                board.tasks.clear();
            }
        }
    }

    pub(super) fn baseboard_task_vanishes(&mut self, at: EngineTime, id: u32, taken: bool) {
        if taken {
            self.baseboard_task_ends(at, id);
        }
        self.restart_baseboard(at, Cause::Itself);
    }

    /// What was staged for this runs from now on.
    pub(super) fn activate_baseboard(&mut self, at: EngineTime, by: Activation) {
        let Some(board) = &mut self.baseboard else { return };
        let mut run = Vec::new();
        for (n, slot) in board.firmware.iter_mut().enumerate() {
            if slot.activation == by
                && let Some(staged) = slot.staged.take()
            {
                slot.version = staged;
                run.push(n);
            }
        }
        if by == Activation::BmcReset {
            board.to_copy.extend(run);
        } else {
            for slot in run {
                self.copy_on_baseboard(at, slot);
            }
        }
    }

    fn copy_on_baseboard(&mut self, at: EngineTime, slot: usize) {
        let draw = self.durations.copy;
        let Some(board) = &mut self.baseboard else { return };
        let ends = at + draw.pick(&mut board.rng);
        board.copies.retain(|c| c.slot != slot);
        self.effect(at, What::CopyStarted { slot: number(slot) }, Cause::Itself);
        if let Some(board) = &mut self.baseboard {
            board.copies.push(Copying { slot, since: at, ends });
        }
        self.after(ends, Due::BoardCopyEnds(slot));
    }

    pub(super) fn baseboard_copy_ends(&mut self, at: EngineTime, slot: usize) {
        let Some(board) = &mut self.baseboard else { return };
        let over = |c: &Copying| c.slot == slot && c.ends <= at;
        if let Some(n) = board.copies.iter().position(over) {
            board.copies.remove(n);
            self.effect(at, What::CopyEnded { slot: number(slot) }, Cause::Itself);
        }
    }

    /// What will be wrong with an update that begins now.
    pub(super) fn flaw(&mut self, at: EngineTime) -> Flaw {
        if self.sick == Some(Sickness::Flash) || self.dice.throw(FaultKind::FlashFails, at) {
            Flaw::Fails
        } else if self.dice.throw(FaultKind::FlashStuck, at) {
            Flaw::Stuck
        } else if self.dice.throw(FaultKind::FlashUnchanged, at) {
            Flaw::Unchanged
        } else if self.dice.throw(FaultKind::FlashEarly, at) {
            Flaw::Early
        } else if self.dice.throw(FaultKind::FlashBricks, at) {
            Flaw::Bricks
        } else {
            Flaw::None
        }
    }
}
