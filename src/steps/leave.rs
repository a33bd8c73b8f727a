//! Take the machine out of the cluster's books. Refuses while workloads run.

use super::{Look, View, need};
use crate::model::action::HookVerb;
use crate::model::facts::ProbeSet;
use crate::model::{Action, Channel, Fault, FaultClass, Machine};
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
        if !node.member {
            return Look::done("not a member of the cluster");
        }
        if node.workloads > 0 {
            return Look::Fail(
                Fault::new(
                    FaultClass::Precondition,
                    Channel::Cluster,
                    "workloads-running",
                    format!("{} workloads run on the node", node.workloads),
                )
                .hint("drain it first: `farrier machine set <name> drained`"),
            );
        }
        Look::Act(Action::Hook { verb: HookVerb::Leave })
    }
}
