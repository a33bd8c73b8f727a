//! Which parts to read before the next decision: no more than it needs.

use super::copying::{COPIES_WORD, is_copying};
use crate::model::facts::ProbeSet;
use crate::model::machine::ROOM;
use crate::model::{
    ActionKind, Channel, Condition, Control, EngineTime, FaultClass, Machine, Stage,
};
use crate::steps::Step;
use crate::steps::site::Profile;
use crate::steps::workflow::Workflow;

/// Every how many health probes at rest the firmware inventory is read too.
const FIRMWARE_EVERY: u64 = 12;

/// The parts to read for `m` now.
pub fn wanted(m: &Machine, profile: &Profile, workflow: &Workflow, now: EngineTime) -> ProbeSet {
    let mut set = ProbeSet::SYSTEM;
    // Where the host's network is out, its end shows on the host alone.
    let away = m.is_unreachable() && m.lost_on() != Some(Channel::Host);
    if away || m.is_quarantined() && m.open.is_none() {
        return set;
    }
    if m.restored.is_some() {
        set = set.with(super::restored::reads(m, profile));
    }
    if let Some(open) = &m.open {
        set = set.with(for_action(open.action.kind()));
        if open.action.controller().is_some() {
            // The host's BMC does not tell whether another controller is back.
            set = set.with(ProbeSet::TASKS);
        }
    } else if let Some(spec) =
        m.step.as_ref().and_then(|s| workflow.steps.get(usize::from(s.index)))
    {
        set = set.with(spec.step.needs(m, profile));
        let failing = fails(m);
        if failing {
            // A remedy may follow: what it must know.
            set = set.with(ProbeSet::TASKS);
        }
        // Before the power is cut: what the board copies meanwhile.
        if disrupts(&spec.step) && (may_act(m) || copies(m)) {
            set = set.with(ProbeSet::TASKS);
        }
        if profile.cluster.is_some() && (failing || disrupts(&spec.step) && may_act(m)) {
            set = set.with(ProbeSet::CLUSTER);
        }
    }
    match m.stage {
        // Where an adopted machine comes to rest depends on its cluster.
        Stage::Discover if m.control == Control::Adopted => set.with(ProbeSet::CLUSTER),
        s if s.is_resting() && m.run.is_none() => {
            let turn = now.0 / workflow.watch.0.max(1) + u64::from(m.id.0);
            if turn.is_multiple_of(FIRMWARE_EVERY) { set.with(ProbeSet::FIRMWARE) } else { set }
        }
        _ => set,
    }
}

/// A wait that ends with the next probe: what that one must hold.
pub const CLUSTER_WORD: &str = "the cluster's word on the node";

/// Asking the cluster is a program's start. While a step waits for something that only time brings
/// it is not asked; when the wait is over it is, before anything is interrupted.
fn may_act(m: &Machine) -> bool {
    m.waiting
        .as_deref()
        .is_none_or(|w| w == CLUSTER_WORD || w == COPIES_WORD || w.starts_with(ROOM))
}

/// Is it waited for a copy's end?
fn copies(m: &Machine) -> bool {
    m.waiting.as_deref().is_some_and(is_copying)
}

/// Does the machine back off for something that a remedy may mend?
fn fails(m: &Machine) -> bool {
    m.condition == Condition::BackingOff
        && m.last_fault.as_ref().is_some_and(|n| {
            matches!(n.fault.channel, Channel::Bmc | Channel::Host)
                && matches!(
                    n.fault.class,
                    FaultClass::Transient | FaultClass::Throttled | FaultClass::OutcomeUnknown
                )
        })
}

/// May this step ask for something that interrupts workloads?
pub fn disrupts(step: &Step) -> bool {
    matches!(
        step,
        Step::Firmware(_)
            | Step::Bios(_)
            | Step::Volume(_)
            | Step::Provision(_)
            | Step::Power(_)
            | Step::Sanitize(_)
            | Step::BurnIn(_)
            | Step::Rescue(_)
    )
}

fn for_action(kind: ActionKind) -> ProbeSet {
    match kind {
        ActionKind::PowerOn
        | ActionKind::PowerOff
        | ActionKind::BmcReset
        | ActionKind::SetBoot
        | ActionKind::EndBmcSessions => ProbeSet::SYSTEM,
        ActionKind::PowerRestart => ProbeSet::SYSTEM.with(ProbeSet::HOST),
        ActionKind::OpenBootWindow | ActionKind::CloseBootWindow => ProbeSet::BOOT,
        ActionKind::UpdateFirmware => ProbeSet::FIRMWARE.with(ProbeSet::TASKS),
        ActionKind::BurnInJob | ActionKind::WipeJob | ActionKind::DeployJob => ProbeSet::JOB,
        ActionKind::InsertMedia | ActionKind::EjectMedia => ProbeSet::MEDIA,
        ActionKind::SetBios => ProbeSet::BIOS.with(ProbeSet::TASKS),
        ActionKind::SetSecureBoot => ProbeSet::SECURE_BOOT,
        ActionKind::CreateVolume => ProbeSet::STORAGE.with(ProbeSet::TASKS),
        ActionKind::Hook => ProbeSet::CLUSTER,
    }
}
