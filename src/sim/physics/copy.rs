//! The second place of an image. Once a new image runs, the roots of trust of an HGX baseboard copy it
//! there in the background for 5 to 30 minutes; whoever cuts the power or resets the BMC meanwhile
//! breaks the component (field notes §3.1, §6.10). No task shows it, the chassis of the root of trust
//! does.

use super::{Cause, Due, VirtualMachine, What};
use crate::model::EngineTime;
use crate::model::facts::{Task, TaskState};
use crate::sim::rng::Rng;
use crate::steps::catalog::Activation;

/// A copy under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copying {
    /// Position in [`VirtualMachine::firmware`].
    pub slot: usize,
    pub since: EngineTime,
    pub ends: EngineTime,
}

fn number(slot: usize) -> u8 {
    u8::try_from(slot).unwrap_or(u8::MAX)
}

impl VirtualMachine {
    /// A new image of `slot` runs.
    pub(super) fn copy_image(&mut self, at: EngineTime, slot: usize) {
        if !self.quirks.copies_images {
            return;
        }
        self.copies.retain(|c| c.slot != slot);
        // Not from the machine's own numbers: a copy shifts nothing else that is drawn.
        let n = u64::from(self.id.0) << 32 | u64::from(self.copied);
        self.copied += 1;
        let ends = at + self.durations.copy.pick(&mut Rng::stream(0xc0b7, n));
        self.effect(at, What::CopyStarted { slot: number(slot) }, Cause::Itself);
        self.copies.push(Copying { slot, since: at, ends });
        self.after(ends, Due::CopyEnds(slot));
    }

    /// The images that were staged for this run from now on.
    pub(super) fn activate(&mut self, at: EngineTime, by: Activation) {
        for n in 0..self.firmware.len() {
            let slot = &mut self.firmware[n];
            if slot.activation == by
                && let Some(staged) = slot.staged.take()
            {
                slot.version = staged;
                match by {
                    Activation::BmcReset => self.to_copy.push(n),
                    _ => self.copy_image(at, n),
                }
            }
        }
    }

    pub(super) fn copy_ends(&mut self, at: EngineTime, slot: usize) {
        if let Some(n) = self.copies.iter().position(|c| c.slot == slot && c.ends <= at) {
            self.copies.remove(n);
            self.effect(at, What::CopyEnded { slot: number(slot) }, Cause::Itself);
        }
    }

    /// The power goes, or the BMC restarts: whatever is being copied is broken, and what ran is no
    /// longer valid for its root of trust.
    pub(super) fn break_copies(&mut self, at: EngineTime, by: Cause) {
        for copy in std::mem::take(&mut self.copies) {
            if let Some(slot) = self.firmware.get_mut(copy.slot) {
                slot.corrupt = true;
            }
            let slot = number(copy.slot);
            self.effect(at, What::CopyBroken { slot, since: copy.since }, by);
        }
        self.pending.retain(|(_, due)| !matches!(due, Due::CopyEnds(_)));
    }

    /// No component was broken by a cut in its copy.
    pub fn is_whole(&self) -> bool {
        let board = self.baseboard.iter().flat_map(|b| &b.firmware);
        self.firmware.iter().chain(board).all(|s| !s.corrupt)
    }

    /// What the copies look like to who asks for tasks: as the chassis of their roots of trust say it.
    pub(super) fn copies_as_tasks(&self) -> impl Iterator<Item = Task> {
        self.copies.iter().filter_map(|c| {
            let id = self.firmware.get(c.slot)?.id;
            Some(Task {
                uri: format!(
                    "/redfish/v1/Chassis/HGX_ERoT_{id}_0#/Oem/Nvidia/BackgroundCopyStatus"
                ),
                state: TaskState::InProgress,
                raw_state: "InProgress".into(),
                percent: None,
                message: None,
            })
        })
    }
}
