//! Bring the firmware to the profile's approved set: compare and act, one component at a time,
//! done only when the wanted version is re-read on the right component.

use super::catalog::{Activation, Firmware, SetStatus};
use super::{Look, View, need};
use crate::model::action::PowerOp;
use crate::model::controller;
use crate::model::facts::{Component, Power, ProbeSet, Read};
use crate::model::machine::Act;
use crate::model::{Action, ActionKind, Channel, EngineTime, Fault, FaultClass, Machine};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {}

/// Polls of versions while a component restarts.
const POLL_MS: u64 = 15_000;

impl Params {
    pub(super) fn needs(&self, _m: &Machine) -> ProbeSet {
        ProbeSet::SYSTEM.with(ProbeSet::FIRMWARE).with(ProbeSet::TASKS)
    }

    pub(super) fn look(&self, v: &View<'_>) -> Look {
        let Some(wanted) = &v.profile.firmware_set else {
            return Look::Skip { reason: "the profile names no firmware set".into() };
        };
        let system = need!(v.report.system);
        let Some(family) = v.site.catalog.family(system) else {
            return Look::Fail(
                Fault::new(
                    FaultClass::Unsupported,
                    Channel::Engine,
                    "no-catalog",
                    format!(
                        "no firmware catalog matches `{}` `{}`",
                        system.manufacturer.as_deref().unwrap_or("?"),
                        system.model.as_deref().unwrap_or("?"),
                    ),
                )
                .hint("add a family below `firmware-catalog/`, or drop `firmware_set` from the profile"),
            );
        };
        let Some(set) = family.sets.get(wanted) else {
            return Look::Fail(Fault::new(
                FaultClass::Unsupported,
                Channel::Engine,
                "no-set",
                format!("`{}` has no set `{wanted}`", family.file),
            ));
        };
        if !matches!(set.status, SetStatus::Approved | SetStatus::Canary) {
            return Look::Fail(Fault::new(
                FaultClass::Precondition,
                Channel::Engine,
                "set-not-approved",
                format!("set `{wanted}` is {:?}, not approved", set.status),
            ));
        }
        let inventory = need!(v.report.firmware);
        let mut seen = Vec::new();
        for fw in &set.firmware {
            let found = match fw.read(inventory) {
                Ok(found) => found,
                Err(unread) => return not_read(v, fw, unread),
            };
            let Some(member) = found else {
                if let Some(name) = fw.controller()
                    && v.expected.bmc.controllers.named(name).is_none()
                {
                    return Look::Fail(no_controller(fw, name));
                }
                return Look::Fail(
                    Fault::new(
                        FaultClass::Transient,
                        Channel::Bmc,
                        "component-missing",
                        format!("no firmware inventory member is `{}`", fw.component),
                    )
                    .hint("collections are partly empty after a BMC reset; else correct `inventory_id`"),
                );
            };
            let Some(reported) = member.version.as_deref() else {
                return Look::Fail(Fault::new(
                    FaultClass::Transient,
                    Channel::Bmc,
                    "version-unknown",
                    format!("`{}` reports no version", member.id),
                ));
            };
            match fw.compare(reported) {
                Some(Ordering::Equal) => seen.push(format!("{} {}", fw.component, fw.version)),
                Some(Ordering::Greater) if !fw.allow_downgrade => {
                    seen.push(format!("{} {reported} (newer, kept)", fw.component));
                }
                _ => return install(v, fw, member, reported),
            }
        }
        // What comes next may cut the power.
        still_at_work(v).unwrap_or_else(|| Look::done(format!("set {wanted}: {}", seen.join(", "))))
    }
}

/// A component that may be there. Where it is for want of an accepted certificate, nothing but a person's
/// word ends that.
fn not_read(v: &View<'_>, fw: &Firmware, unread: Fault) -> Look {
    match fw.controller().and_then(|name| v.expected.bmc.controllers.named(name)) {
        Some(c) if unread.code == Fault::NO_PIN => Look::wait(c.first_certificate(), POLL_MS),
        _ => Look::Unread(unread),
    }
}

fn no_controller(fw: &Firmware, name: &str) -> Fault {
    Fault::new(
        FaultClass::Precondition,
        Channel::Engine,
        "no-controller",
        format!("`{}` is on the controller `{name}`, and the inventory gives none", fw.component),
    )
    .hint(format!("give it with `[[machine.controller]]`, or take `{name}:` out of `inventory_id`"))
}

/// A board copies its new image to a second place for 5 to 30 minutes after it runs, and a power cut
/// breaks the copy (field notes §3.1, §6 line 10); a BIOS runs after a POST of up to 15 minutes. What
/// goes on for longer after the last reset is something else.
pub(crate) const COPY_MS: u64 = 2_700_000;

/// May an image that this step wrote still be copied, as far as times tell?
pub(crate) fn may_copy(m: &Machine, now: EngineTime) -> bool {
    let written = m.step.as_ref().and_then(|s| s.written_at());
    written.is_some_and(|at| now.since(at) < COPY_MS)
}

/// All versions are as they should be: does the BMC still work on what was flashed here?
fn still_at_work(v: &View<'_>) -> Option<Look> {
    let written = v.m.step.as_ref().and_then(|s| s.written_at())?;
    if v.watched_since(written) >= COPY_MS {
        return None;
    }
    match &v.report.tasks {
        Read::Seen(tasks) => {
            let busy = tasks.iter().find(|t| t.may_run())?;
            Some(Look::wait(v.awaited(busy), POLL_MS))
        }
        // The versions are right: that its tasks can't be read now is no failure of the step.
        Read::Failed(f) if f.class != FaultClass::Unsupported => {
            Some(Look::wait("the BMC's tasks to be read", POLL_MS))
        }
        _ => None,
    }
}

/// One component is not at its version: wait, activate or update.
fn install(v: &View<'_>, fw: &Firmware, member: &Component, reported: &str) -> Look {
    let system = need!(v.report.system);
    let acts = v.m.step.as_ref().map_or(&[][..], |s| &s.acts);
    let flashed = acts.iter().rposition(|a| {
        a.kind == ActionKind::UpdateFirmware && a.about == fw.component && a.happened
    });
    let Some(flashed) = flashed else {
        return flash(v, fw, member, reported);
    };
    // The update itself is through: make it the running version, then wait for that.
    let after = &acts[flashed + 1..];
    let wanted = match fw.activation {
        Activation::None => None,
        Activation::BmcReset => Some(ActionKind::BmcReset),
        Activation::HostReset => Some(match system.power {
            Power::Off => ActionKind::PowerOn,
            _ => ActionKind::PowerRestart,
        }),
    };
    // Another controller's restart makes nothing of this one's run.
    let controller = controller::split(&member.id).0;
    let activates = |a: &&Act| match a.kind {
        ActionKind::BmcReset => a.about == controller.unwrap_or(Action::BMC),
        kind => matches!(kind, ActionKind::PowerOn | ActionKind::PowerRestart),
    };
    let activated = match fw.activation {
        Activation::None => Some(acts[flashed].closed),
        _ => after.iter().find(|a| a.happened && activates(a)).map(|a| a.closed),
    };
    if activated.is_none() {
        // Somebody else's update: a reset would break it.
        match &v.report.tasks {
            Read::Seen(tasks) => {
                if let Some(busy) = tasks.iter().find(|t| t.may_run()) {
                    return Look::wait(v.awaited(busy), POLL_MS);
                }
            }
            Read::Failed(f) if f.code == Fault::CONTROLLER_BUSY => return Look::Unread(f.clone()),
            _ => {}
        }
    }
    match (activated, wanted) {
        (Some(at), _) if v.watched_since(at) > fw.verify_timeout.0 => Look::Fail(
            Fault::new(
                FaultClass::Transient,
                Channel::Bmc,
                Fault::VERSION_UNCHANGED,
                format!(
                    "`{}` still reports `{reported}` {} after the update to `{}`",
                    member.id, fw.verify_timeout, fw.version,
                ),
            )
            .hint("some parts change only after an AC cycle; see the BMC's own log"),
        ),
        (Some(_), _) => Look::wait(format!("{} to report {}", fw.component, fw.version), POLL_MS),
        (None, Some(ActionKind::BmcReset)) => {
            Look::Act(Action::BmcReset { controller: controller.map(Into::into) })
        }
        (None, Some(ActionKind::PowerOn)) => Look::Act(Action::Power { op: PowerOp::On }),
        (None, _) => Look::Act(Action::Power { op: PowerOp::ForceRestart }),
    }
}

fn flash(v: &View<'_>, fw: &Firmware, member: &Component, reported: &str) -> Look {
    if let Some(min) = &fw.min_version
        && super::version::compare(fw.scheme, fw.normalize(reported), min) == Some(Ordering::Less)
    {
        return Look::Fail(
            Fault::new(
                FaultClass::Precondition,
                Channel::Bmc,
                "stepping-stone",
                format!(
                    "{} `{reported}` is below `{min}`, the lowest that may go to `{}`",
                    fw.component, fw.version
                ),
            )
            .hint("install the vendor's stepping-stone version first"),
        );
    }
    // Never while another task runs, whoever started it.
    let tasks = need!(v.report.tasks);
    if let Some(busy) = tasks.iter().find(|t| t.may_run()) {
        return Look::wait(v.awaited(busy), POLL_MS);
    }
    Look::Act(Action::UpdateFirmware {
        component: fw.component.clone(),
        inventory_id: member.id.clone(),
        from: reported.to_string(),
        to: fw.version.clone(),
        file: fw.file.clone(),
        sha256: fw.sha256.clone(),
    })
}
