//! Is a quarantine traced to an injected fault, and is what ended as done so in the world?

use super::Checker;
use crate::model::{EngineTime, Fault, FaultClass, MachineId, Stage};
use crate::sim::faults::{FaultKind, Injected};
use crate::sim::physics::{Attribute, HostState, PowerState, Sickness, VirtualMachine};
use crate::sim::truth::{Cause, What};
use crate::sim::workflows;

impl Checker {
    /// Nothing but a dead network has happened to this machine since its step began, and it was
    /// dead lately: whatever is charged now is charged to it (design law 8).
    pub(super) fn only_outage(&self, now: EngineTime, id: MachineId, vm: &VirtualMachine) -> bool {
        use FaultKind as K;
        let w = &self.watches[id.0 as usize];
        let since = w.fresh_since - 600_000;
        let mut outage = false;
        for i in vm.dice.log().iter().rev() {
            match i.kind {
                // The longest one lasts three hours.
                K::Outage | K::CoreOutage => {
                    outage |= i.at <= now && now.since(i.at) < 4 * 3_600_000;
                }
                _ if i.at >= since => return false,
                K::SerialSwapped
                | K::WrongHost
                | K::FlashStuck
                | K::CallbackLost
                | K::OldDatabase
                | K::HostOutage
                | K::RackPower
                | K::HumanPower
                | K::WorkloadsLate
                | K::HumanFlash
                | K::HumanTask
                | K::HumanBoot
                | K::BoardOutage
                | K::FlashBricks => return false,
                _ => {}
            }
        }
        outage
            && vm.sick.is_none()
            && vm.is_whole()
            && vm.power == PowerState::On
            // A blank machine was put here by people and sent into service: it never gets ready.
            && !(vm.host == HostState::Stuck && w.folded.stage == Stage::Join)
            && !(self.killed && self.last_kill >= since)
            && self.last_trouble.is_none_or(|t| t < since)
    }

    /// Why this quarantine has no injected fault to justify it.
    pub(super) fn unjustified(
        &self,
        now: EngineTime,
        id: MachineId,
        fault: &Fault,
        vm: &VirtualMachine,
    ) -> Option<String> {
        use FaultKind as K;
        let w = &self.watches[id.0 as usize];
        let since = w.fresh_since - 600_000;
        let log = vm.dice.log();
        let recent = |kinds: &[K]| {
            log.iter()
                .rev()
                .take_while(|i| i.at >= since)
                .any(|i: &Injected| kinds.contains(&i.kind))
        };
        let lasting = |kinds: &[K]| {
            log.iter()
                .rev()
                .take_while(|i| now.since(i.at) < 4 * 86_400_000)
                .any(|i| kinds.contains(&i.kind))
        };
        // A dead management network is never a reason.
        let net = |k: K| matches!(k, K::Outage | K::CoreOutage | K::BmcPort);
        let last = log.iter().rev().find(|i| !net(i.kind));
        let something = last.is_some_and(|i| i.at >= since)
            || lasting(&[
                K::SerialSwapped,
                K::WrongHost,
                K::FlashStuck,
                K::WorkloadsLate,
                K::HumanPower,
                K::CallbackLost,
                K::HumanFlash,
                K::HumanTask,
                K::HumanBoot,
                K::FlashBricks,
                // Of what nobody can read nothing is concluded, and no step goes on for ever.
                K::BoardOutage,
                K::RackPower,
                K::OldDatabase,
                K::HostOutage,
            ])
            || self.killed && self.last_kill >= since
            || self.last_trouble.is_some_and(|t| t >= since)
            || vm.sick.is_some()
            // Broken by a cut that nobody of ours made, however long ago.
            || !vm.is_whole();
        let fine = match (fault.class, &*fault.code) {
            (FaultClass::Bug, _) => false,
            // Installed anew in the time that a restore lost: the old key stays pinned, however long
            // ago that was.
            (FaultClass::Identity, "host-key-changed")
                if log.iter().any(|i| i.kind == K::OldDatabase)
                    && installed(vm) != w.folded.deployed.as_ref().map(|d| &*d.run) =>
            {
                true
            }
            (FaultClass::Identity, "host-key-changed") => lasting(&[
                K::CallbackLost,
                K::SerialSwapped,
                K::WrongHost,
                K::ActLostAfter,
                K::OldDatabase,
            ]),
            (FaultClass::Identity, _) => {
                lasting(&[K::SerialSwapped, K::WrongHost])
                    || vm.identity != vm.delivered
                    || vm.other_host.is_some()
            }
            (FaultClass::Hardware, "drive-broken") => lasting(&[K::DriveDies]),
            (FaultClass::Hardware, _) => recent(&[K::JobSickGpu]) || vm.sick == Some(Sickness::Gpu),
            (FaultClass::Auth, _) => recent(&[K::ProbeAuth]),
            (FaultClass::Precondition, "existing-data") => {
                // A system that whoever mended the machine left there is data as well.
                let left = vm.installed.as_ref().is_some_and(|i| i.run.is_none());
                vm.foreign_data || left || lasting(&[K::SerialSwapped, K::OldDatabase])
            }
            (FaultClass::Precondition, "workloads-running") => vm.node.workloads(now) > 0,
            (FaultClass::Precondition, "drain-deadline") => lasting(&[K::WorkloadsLate]),
            (FaultClass::Throttled, _) => false,
            // However long it rested in between; and without a restore there is no such doubt.
            (_, "restored-in-doubt") => w.folded.restored.is_some(),
            // A restored machine keeps its doubt about staged images until it is ready again.
            (_, Fault::VERSION_UNCHANGED | Fault::VOLUME_NOT_MADE)
                if w.folded.restored.is_some() =>
            {
                true
            }
            // Without power nothing boots and no node gets ready; nobody told Farrier to power it on.
            (_, "step-timeout") if vm.power != PowerState::On => true,
            // Another machine was put here and sent into service before it had an image; or an old
            // database does not know that the host is in the deploy ramdisk.
            (_, "step-timeout") if matches!(vm.host, HostState::Stuck | HostState::InRamdisk) => {
                true
            }
            _ => something,
        };
        (!fine).then(|| {
            let faults: Vec<&str> = log.iter().rev().take(4).map(|i| i.kind.name()).collect();
            format!("{fault}; last injected: {}", faults.join(", "))
        })
    }
}

/// Why a step that ended as done is not so in the world. A machine that people have just had their
/// hands on proves nothing.
pub(super) fn not_true(
    now: EngineTime,
    kind: &str,
    since: EngineTime,
    vm: &VirtualMachine,
) -> Option<&'static str> {
    let hands = vm.crossed_at + 600_000 > now && vm.crossed_at != EngineTime::ZERO
        || vm.truth.effects().iter().rev().take(6).any(|e| e.by == Cause::Human && e.at >= since);
    if hands || vm.identity != vm.delivered || vm.other_host.is_some() {
        return None;
    }
    match kind {
        "firmware" => {
            let board = vm.baseboard.iter().flat_map(|b| &b.firmware);
            let mut all = vm.firmware.iter().chain(board);
            let old = all.any(|s| matches!(&*s.version, "2.0.0" | "7.10" | "24.06" | "96.00.01"));
            old.then_some("an old version runs")
        }
        "provision" => {
            let ours = vm.installed.as_ref().is_some_and(|i| i.run.is_some());
            (!ours).then_some("no image of ours is on the disk")
        }
        "bios" => {
            let asked = |(name, value): &(&str, &str)| {
                Attribute::of(name).is_some_and(|a| vm.board.attribute(a) == *value)
            };
            let set = workflows::BIOS.iter().all(asked) && vm.board.secure_boot_now;
            (!set).then_some("a setting is not in force")
        }
        "volume" if workflows::has_boot_volume(vm.id) => {
            (vm.board.volumes(now).next().is_none()).then_some("there is no volume")
        }
        "drain" => (vm.node.workloads(now) > 0).then_some("workloads run"),
        "join" => (!vm.node.member).then_some("not a member"),
        "leave" => vm.node.member.then_some("still a member"),
        // One that was over before it began leaves what it found.
        "rescue" if opened_since(vm, since) => match (vm.window.facts.open, vm.host) {
            (true, _) => Some("its boot window is open"),
            (_, HostState::InRamdisk) => Some("the ramdisk still runs"),
            _ => None,
        },
        "sanitize" => {
            // After a restore the wipe may have run in the time that was lost.
            let restored = vm.dice.log().iter().any(|i| i.kind == FaultKind::OldDatabase);
            let since = if restored { last_install(vm) } else { since };
            let wiped =
                vm.truth.effects().iter().rev().any(|e| e.what == What::WipeEnded && e.at >= since);
            (!wiped).then_some("no wipe ended")
        }
        _ => None,
    }
}

/// The run that wrote what is on the disk.
fn installed(vm: &VirtualMachine) -> Option<&str> {
    vm.installed.as_ref()?.run.as_deref()
}

fn opened_since(vm: &VirtualMachine, since: EngineTime) -> bool {
    let effects = vm.truth.effects().iter().rev().take_while(|e| e.at >= since);
    effects.filter(|e| e.what == What::WindowOpened).count() > 0
}

fn last_install(vm: &VirtualMachine) -> EngineTime {
    let effects = vm.truth.effects().iter().rev();
    effects.filter(|e| e.what == What::InstallStarted).map(|e| e.at).next().unwrap_or_default()
}
