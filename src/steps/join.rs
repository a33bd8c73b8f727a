//! Make the machine take workloads: by the cluster's own word.

use super::{Look, View, need};
use crate::model::action::HookVerb;
use crate::model::facts::ProbeSet;
use crate::model::{Action, Machine};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {}

impl Params {
    pub(super) fn needs(&self, _m: &Machine) -> ProbeSet {
        ProbeSet::CLUSTER
    }

    pub(super) fn look(&self, v: &View<'_>) -> Look {
        if v.profile.cluster.is_none() {
            return Look::Skip { reason: "the profile names no cluster".into() };
        }
        let node = need!(v.report.cluster);
        match (node.member, node.cordoned, node.ready) {
            (false, _, _) => Look::Act(Action::Hook { verb: HookVerb::Join }),
            (true, true, _) => Look::Act(Action::Hook { verb: HookVerb::Uncordon }),
            (true, false, true) => Look::done("the cluster says ready"),
            (true, false, false) => Look::wait("the cluster to call the node ready", 10_000),
        }
    }
}
