//! The deploy ramdisk for a person who looks at a broken machine: booted with their key, handed over,
//! and ended by them or by its deadline. Nothing here writes to a disk, and once it is handed over
//! Farrier does nothing to the host but end it: who is logged in is not to lose the machine by a read
//! that failed.

use super::ramdisk::{Ramdisk, boots_elsewhere, eject, is_up};
use super::{Look, View, need};
use crate::model::action::{BootTarget, PowerOp};
use crate::model::facts::{Power, ProbeSet, SystemFacts};
use crate::model::machine::Rescue;
use crate::model::time::Span;
use crate::model::{Action, ActionKind, Entry, FaultClass, Machine, Read};
use serde::{Deserialize, Serialize};

/// Longest rescue that can be asked for.
pub const LONGEST: Span = Span(72 * 3_600_000);
/// One without a time.
pub const USUAL: Span = Span(8 * 3_600_000);

/// How often a ramdisk that was handed over is looked at.
const LOOK_MS: u64 = 60_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Longest time from power on to the ramdisk's callback, then again to the first login.
    pub deadline: Span,
}

impl Default for Params {
    fn default() -> Self {
        Self { deadline: Span(2_700_000) }
    }
}

impl Params {
    pub(super) fn needs(&self, _m: &Machine) -> ProbeSet {
        // Its end can come at any look, and must find the medium.
        ProbeSet::SYSTEM.with(ProbeSet::BOOT).with(ProbeSet::HOST).with(ProbeSet::MEDIA)
    }

    pub(super) fn look(&self, v: &View<'_>) -> Look {
        let system = need!(v.report.system);
        let rescue = v.m.rescue.as_deref();
        let Some(rescue) = rescue.filter(|r| !r.is_over(v.now)) else {
            return end(v, system, rescue);
        };
        if rescue.up.is_some() {
            return handed_over(v, rescue);
        }
        if let Some(look) = shut_down(v, system) {
            return look;
        }
        let ramdisk = Ramdisk {
            v,
            system,
            window: need!(v.report.boot),
            deadline: self.deadline,
            allow_existing_data: false,
            keys: vec![rescue.key.to_string()],
        };
        match (ramdisk.enter(), &v.m.ramdisk) {
            (Err(look), _) => *look,
            (Ok(_), Some(up)) => Look::Note(vec![Entry::RescueUp {
                address: up.address.to_string(),
                host_key: up.host_key.to_string(),
            }]),
            (Ok(_), None) => Look::wait("the ramdisk to call back", 60_000),
        }
    }
}

/// What runs there before may be a system with data: it is asked to shut down, once, before its power
/// is cut.
fn shut_down(v: &View<'_>, system: &SystemFacts) -> Option<Look> {
    let step = v.m.step.as_ref()?;
    let first = step.attempt == 0 && step.acts.is_empty() && v.m.ramdisk.is_none();
    (first && system.power == Power::On)
        .then_some(Look::Act(Action::Power { op: PowerOp::GracefulShutdown }))
}

/// It is the person's: waited for, whatever the host does.
fn handed_over(v: &View<'_>, rescue: &Rescue) -> Look {
    let run = v.run_name();
    let host = v.report.host.seen();
    let there = host.is_some_and(|h| h.ramdisk_run.as_deref() == Some(&*run));
    let poll_ms = LOOK_MS.min(rescue.until.since(v.now)).max(1_000);
    let what = match (there, &v.report.host.fault()) {
        (true, _) => format!("{} to end the rescue", rescue.by),
        (false, Some(f)) if f.class == FaultClass::Identity => {
            format!("{} to end the rescue; the host has left the ramdisk", rescue.by)
        }
        _ => format!("{} to end the rescue; its ramdisk does not answer", rescue.by),
    };
    Look::wait(what, poll_ms)
}

/// Off, and nothing of ours stays behind: no medium, no boot override, no window.
fn end(v: &View<'_>, system: &SystemFacts, rescue: Option<&Rescue>) -> Look {
    let run = v.run_name();
    let window = need!(v.report.boot);
    let open = window.open && window.run.as_deref() == Some(&*run);
    let begun = open
        || is_up(v.m, &run)
        || v.m.step.as_ref().is_some_and(|s| s.attempt > 0 || !s.acts.is_empty());
    if !begun {
        return Look::done("the rescue was over before it began");
    }
    match system.power {
        Power::PoweringOn | Power::PoweringOff | Power::Unknown => {
            return Look::wait("the power state to settle", 5_000);
        }
        Power::On => return Look::Act(Action::Power { op: off(v, &run) }),
        Power::Off => {}
    }
    if let Some(look) = eject(v) {
        return look;
    }
    if boots_elsewhere(system) {
        let wanted = Action::SetBoot { target: after_it(v) };
        if v.m.last_act(ActionKind::SetBoot).is_none_or(|a| a.about != wanted.about()) {
            return Look::Act(wanted);
        }
    }
    // Also one of another run: of the time that a restore lost, and nothing waits for it any more.
    if window.open {
        let run = window.run.clone().unwrap_or(run);
        return Look::Act(Action::CloseBootWindow { run });
    }
    Look::done(match rescue.and_then(|r| r.ended.as_deref()) {
        Some(why) => format!("the rescue was ended ({why}); power is off"),
        None => "the rescue's time is over; power is off".into(),
    })
}

/// Some BMCs take every target but none (sushy-tools answers 500): then it is the disk.
fn after_it(v: &View<'_>) -> BootTarget {
    let failed = v.m.step.as_ref().is_some_and(|s| s.attempt > 0);
    let refused = v.m.last_fault.as_ref().is_some_and(|n| n.fault.code == "did-not-take");
    if failed && refused { BootTarget::Disk } else { BootTarget::None }
}

/// The ramdisk has no ear for the power button; any other system is asked first.
fn off(v: &View<'_>, run: &str) -> PowerOp {
    let other = match &v.report.host {
        Read::Seen(host) => host.ramdisk_run.as_deref() != Some(run),
        Read::Failed(f) => f.class == FaultClass::Identity,
        Read::NotAsked => false,
    };
    let on = v.m.last_act(ActionKind::PowerOn).map(|a| a.at);
    let asked =
        v.m.last_act(ActionKind::PowerOff).is_some_and(|off| on.is_none_or(|on| off.at > on));
    let ours = is_up(v.m, run) || on.is_some();
    match asked || ours && !other {
        true => PowerOp::ForceOff,
        false => PowerOp::GracefulShutdown,
    }
}
