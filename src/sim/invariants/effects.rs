//! What physically happened, judged by how the machine stood at that moment.

use super::Checker;
use crate::model::{Control, DomainKind, EngineTime, LimitClass, MachineId};
use crate::sim::faults::FaultKind;
use crate::sim::physics::VirtualMachine;
use crate::sim::truth::{Cause, Effect, What};

/// Longest from a look to the intent that follows from it.
const UNSEEN_MS: u64 = 30_000;

impl Checker {
    /// What physically happened to a machine since the last look.
    pub fn effects(&mut self, id: MachineId, vm: &VirtualMachine) {
        let seen = self.watches[id.0 as usize].truth_seen;
        let news = vm.truth.since(seen);
        if news.is_empty() {
            return;
        }
        self.watches[id.0 as usize].truth_seen = seen + news.len();
        for effect in news {
            self.effect(id, effect, vm);
        }
    }

    fn effect(&mut self, id: MachineId, e: &Effect, vm: &VirtualMachine) {
        let w = &mut self.watches[id.0 as usize];
        let (mut wipe_twice, mut job_twice) = (false, false);
        match e.what {
            What::WipeStarted => {
                wipe_twice = vm.running_wipes() > 1;
                job_twice = vm.running_jobs() > 1;
            }
            What::SmokeStarted => job_twice = vm.running_jobs() > 1,
            What::FlashEnded { ok: true, .. } => w.last_flash = e.at,
            _ => {}
        }
        let Cause::Farrier { seq } = e.by else { return };
        let what = e.what;
        let name = what.name();
        let Some(note) = w.intents.iter().rev().find(|i| i.name == seq).cloned() else {
            self.violate("act-without-intent", e.at, id, || format!("{name} by seq {seq}"));
            return;
        };
        // No power cut and no reset while an image is copied to its second place, whoever made it run:
        // the chassis says so. What began since the last look can't be seen.
        if let What::CopyBroken { since, .. } = what
            && since + UNSEEN_MS <= note.at
        {
            self.violate("cut-during-copy", e.at, id, || format!("by seq {seq}"));
        }
        // A reset, too, whichever BMC it is of and whichever copies; and the power of a baseboard.
        let cuts = matches!(what, What::PowerCut | What::BmcReset | What::BoardReset);
        if cuts && e.scene.copying_since.is_some_and(|t| t + UNSEEN_MS <= note.at) {
            self.violate("cut-during-copy", e.at, id, || format!("{name} by seq {seq}"));
        }
        // A controller that had not answered since before the last look may have been at work.
        if (cuts || matches!(what, What::FlashStarted { .. }))
            && e.scene.board_silent_since.is_some_and(|t| t + UNSEEN_MS <= note.at)
        {
            self.violate("unread-for-idle", e.at, id, || format!("{name} by seq {seq}"));
        }
        let consequence = matches!(
            what,
            What::FlashEnded { .. }
                | What::FlashBroken { .. }
                | What::CopyBroken { .. }
                | What::WipeEnded
                | What::InstallEnded { .. }
        );
        if consequence {
            return;
        }
        // Who asked for a rescue has data on those disks, or a fault to look at.
        if note.rescue && matches!(what, What::InstallStarted | What::WipeStarted) {
            self.violate("rescue-wrote", e.at, id, || format!("{name} by seq {seq}"));
        }
        if what == What::VolumeAgain {
            self.violate("volume-again", e.at, id, || format!("seq {seq}"));
        }
        if what == (What::VolumeMade { data: true }) && !note.consents {
            self.violate("data-lost", e.at, id, || format!("{name} by seq {seq}"));
        }
        if note.control == Control::Unmanaged {
            self.violate("unmanaged-touched", e.at, id, || format!("{name} by seq {seq}"));
        }
        if note.untouched {
            self.violate("adopted-touched", e.at, id, || format!("{name} by seq {seq}"));
        }
        if wipe_twice {
            self.violate("wipe-while-wiping", e.at, id, || format!("seq {seq}"));
        }
        if job_twice {
            self.violate("job-while-job", e.at, id, || format!("{name} by seq {seq}"));
        }
        if !what.is_destructive() {
            return;
        }
        if note.held {
            self.violate("held-touched", e.at, id, || format!("{name} by seq {seq}"));
        }
        if note.stopped {
            self.violate("stopped-touched", e.at, id, || format!("{name} by seq {seq}"));
        }
        if note.quarantined {
            self.violate("quarantined-touched", e.at, id, || format!("{name} by seq {seq}"));
        }
        // What was sent to the right machine and met another was swapped under way.
        let crossed = note.issued.is_some_and(|t| t <= vm.crossed_at) && vm.crossed_at <= e.at;
        if !e.scene.right_machine && !crossed {
            self.violate("wrong-machine", e.at, id, || format!("{name} by seq {seq}"));
        }
        if what.needs_empty_host() && (e.scene.workloads > 0 || !e.scene.closed) {
            let n = e.scene.workloads;
            self.violate("in-use", e.at, id, || format!("{name} with {n} workloads, seq {seq}"));
        }
        // A person who starts something between our look and our write can't be seen.
        let unseen = e.scene.by_hand_since.is_some_and(|t| t + 15_000 > note.at);
        // Only the firmware step reads the list of tasks: an update that a person has started by hand
        // does not keep other steps from changing the power, and is that person's to guard.
        let theirs = what == What::PowerCut && e.scene.by_hand_since.is_some();
        if e.scene.flashing && !unseen && !theirs && cuts {
            self.violate("write-during-flash", e.at, id, || format!("{name} by seq {seq}"));
        }
        if let What::FlashStarted { slot, already, staged, busy } = what {
            let w = &self.watches[id.0 as usize];
            let said_so = w.taken_back_at > w.last_flash;
            let by_hand = vm.dice.log().iter().rev().take(20).any(|i| {
                matches!(i.kind, FaultKind::HumanFlash | FaultKind::HumanTask)
                    && i.at <= e.at
                    && note.at < i.at + 900_000
            });
            // Nothing on a BMC's wire shows an image that a person has staged and not activated: the
            // old version still reads, so it is written over with the same.
            let theirs = vm
                .truth
                .effects()
                .iter()
                .rev()
                .filter(|x| x.at < e.at)
                .filter(|x| matches!(x.what, What::FlashStarted { slot: s, .. } if s == slot))
                // They may have sent it more than once.
                .take_while(|x| x.by == Cause::Human)
                .any(|x| matches!(x.what, What::FlashStarted { staged: false, .. }));
            // Sent on the old version, taken minutes later by a slow BMC: somebody's restart may have
            // brought the new one meanwhile, and what is under way can't be called back.
            let mut log = vm.dice.log().iter().rev().take(20);
            let late = log.any(|i| {
                i.kind == FaultKind::ActLate
                    && i.at <= e.at
                    && note.issued.is_some_and(|t| i.at >= t)
            });
            if already && !by_hand && !late {
                self.violate("flash-again", e.at, id, || format!("seq {seq}"));
            }
            if staged && !said_so && !by_hand && !theirs {
                self.violate("flash-while-staged", e.at, id, || format!("seq {seq}"));
            }
            let copying = e.scene.copying_since.is_some_and(|t| t + UNSEEN_MS <= note.at);
            if busy && !unseen || copying {
                self.violate("flash-while-busy", e.at, id, || format!("seq {seq}"));
            }
        }
    }

    /// An update has just started: counts those that physically run in the same rack.
    pub fn physical_flashes(&mut self, now: EngineTime, id: MachineId, vms: &[VirtualMachine]) {
        let rack = self.rack_of[id.0 as usize];
        let Some(limit) = self
            .limits
            .iter()
            .find(|l| l.class == LimitClass::Flash && l.per == DomainKind::Rack)
            .copied()
        else {
            return;
        };
        let running = vms
            .iter()
            .zip(&self.rack_of)
            .filter(|(vm, r)| {
                **r == rack
                    && vm.all_tasks().any(|t| {
                        t.is_told_running() && t.ends > now && matches!(t.by, Cause::Farrier { .. })
                    })
            })
            .count();
        if running > limit.max as usize {
            self.violate("physical-limit", now, id, || format!("{running} updates in the rack"));
        }
    }
}
