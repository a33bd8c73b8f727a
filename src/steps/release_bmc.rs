//! Take what Farrier left on the BMC away: its sessions.

use super::{Look, View};
use crate::model::facts::ProbeSet;
use crate::model::{Action, ActionKind, Machine};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {}

impl Params {
    pub(super) fn needs(&self, _m: &Machine) -> ProbeSet {
        ProbeSet::NONE
    }

    pub(super) fn look(&self, v: &View<'_>) -> Look {
        match v.m.happened(ActionKind::EndBmcSessions) {
            Some(_) => Look::done("sessions ended"),
            None => Look::Act(Action::EndBmcSessions),
        }
    }
}
