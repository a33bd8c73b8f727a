//! Bring the host's power to a state.

use super::ramdisk::is_up;
use super::{Look, View, need};
use crate::model::action::PowerOp;
use crate::model::facts::{Power, ProbeSet};
use crate::model::{Action, ActionKind, Machine};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    On,
    Off,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub state: Wanted,
}

impl Params {
    pub(super) fn needs(&self, _m: &Machine) -> ProbeSet {
        ProbeSet::SYSTEM
    }

    pub(super) fn look(&self, v: &View<'_>) -> Look {
        let power = need!(v.report.system).power;
        match (self.state, power) {
            (Wanted::On, Power::On) => Look::done("power is on"),
            (Wanted::Off, Power::Off) => Look::done("power is off"),
            (_, Power::PoweringOn | Power::PoweringOff | Power::Unknown) => {
                Look::wait("the power state to settle", 5_000)
            }
            (Wanted::On, Power::Off) => Look::Act(Action::Power { op: PowerOp::On }),
            // Graceful first; a host that ignores it is forced off (field notes §4). The deploy ramdisk
            // always does, and has nothing to end.
            (Wanted::Off, Power::On) => Look::Act(Action::Power {
                op: if v.last_power_off_failed() || is_up(v.m, &v.run_name()) {
                    PowerOp::ForceOff
                } else {
                    PowerOp::GracefulShutdown
                },
            }),
        }
    }
}

/// A step whose work is on the host first needs its power: `None` = it is on.
pub(super) fn ensure_on(power: Power) -> Option<Look> {
    match power {
        Power::On => None,
        Power::Off => Some(Look::Act(Action::Power { op: PowerOp::On })),
        _ => Some(Look::wait("the power state to settle", 5_000)),
    }
}

impl View<'_> {
    /// A shutdown was tried in this attempt and the machine is still on.
    fn last_power_off_failed(&self) -> bool {
        self.m.last_act(ActionKind::PowerOff).is_some()
    }
}
