//! Machine-wide reasons against an action, and what the action must expect.

use super::Input;
use crate::model::action::{Baseline, Touch};
use crate::model::facts::Power;
use crate::model::{Action, ActionKind, Channel, Control, Expect, Fault, FaultClass, PowerOp};

/// A fault when this action must not be asked for now.
pub(super) fn refuse(i: &Input<'_>, action: &Action) -> Option<Fault> {
    let m = i.m;
    let kind = action.kind();
    if m.control == Control::Unmanaged {
        return Some(Fault::new(
            FaultClass::Bug,
            Channel::Engine,
            "unmanaged",
            format!("`{kind}` was wanted on an unmanaged machine"),
        ));
    }
    if m.identity.is_unknown() {
        return Some(Fault::new(
            FaultClass::Identity,
            Channel::Engine,
            "identity-unproven",
            format!("`{kind}` needs a proven identity; this machine has none"),
        ));
    }
    if interrupts(kind) && i.profile.cluster.is_some() {
        return workloads(i, kind);
    }
    None
}

/// Would this action interrupt workloads?
fn interrupts(kind: ActionKind) -> bool {
    matches!(
        kind,
        ActionKind::PowerOff
            | ActionKind::PowerRestart
            | ActionKind::UpdateFirmware
            | ActionKind::BmcReset
            // Nobody's workloads are to meet another BIOS at their next boot.
            | ActionKind::SetBios
            | ActionKind::SetSecureBoot
            | ActionKind::BurnInJob
            | ActionKind::WipeJob
    ) || kind.class().touches.contains(&Touch::Disk)
}

/// Was the cluster not asked, and is its word needed for this?
pub(super) fn unasked(i: &Input<'_>, action: &Action) -> bool {
    interrupts(action.kind()) && i.profile.cluster.is_some() && !i.report.cluster.was_asked()
}

/// Only on machines that the cluster does not use: no member, or cordoned and empty.
fn workloads(i: &Input<'_>, kind: ActionKind) -> Option<Fault> {
    let node = match (i.report.cluster.seen(), i.report.cluster.fault()) {
        (Some(node), _) => node,
        (None, Some(f)) => return Some(f.clone()),
        (None, None) => {
            return Some(Fault::new(
                FaultClass::Bug,
                Channel::Engine,
                "not-probed",
                format!("`{kind}` needs the cluster's word and it was not asked"),
            ));
        }
    };
    if node.member && (!node.cordoned || node.workloads > 0) {
        return Some(
            Fault::new(
                FaultClass::Precondition,
                Channel::Cluster,
                "in-use",
                format!(
                    "`{kind}` would interrupt the cluster: the node is a member, {}, with {} workloads",
                    if node.cordoned { "cordoned" } else { "not cordoned" },
                    node.workloads,
                ),
            )
            .hint("drain the node first; a running machine is taken over with `farrier machine adopt`"),
        );
    }
    None
}

/// What the edge must find again just before the write, and the state to compare with afterwards.
pub(super) fn expectation(i: &Input<'_>, action: &Action) -> (Expect, Baseline) {
    let system = i.report.system.seen();
    let power = system.map(|s| s.power);
    let expect = Expect {
        identity: (*i.m.identity).clone(),
        power: match action {
            Action::Power { op: PowerOp::On } => Some(Power::Off),
            Action::Power { .. } => Some(Power::On),
            // A medium that appears under a running host is another host's installation.
            Action::InsertMedia { .. } => Some(Power::Off),
            _ => None,
        },
        from_version: match action {
            Action::UpdateFirmware { from, .. } => Some(from.clone()),
            _ => None,
        },
    };
    let tasks = match action {
        Action::UpdateFirmware { .. } | Action::SetBios { .. } | Action::CreateVolume { .. } => i
            .report
            .tasks
            .seen()
            .map(|t| t.iter().map(|t| t.uri.clone()).collect())
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    let baseline = Baseline {
        tasks,
        power,
        last_reset: system.and_then(|s| s.last_reset.clone()),
        boot_id: i.report.host.seen().and_then(|h| h.boot_id.clone()),
    };
    (expect, baseline)
}
