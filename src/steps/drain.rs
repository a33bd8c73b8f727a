//! Cordon, then wait until the workloads have left. Nothing is killed.

use super::{Look, View, need};
use crate::model::action::HookVerb;
use crate::model::facts::ProbeSet;
use crate::model::time::Span;
use crate::model::{Action, Channel, Fault, FaultClass, Machine};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Longest wait for workloads to end by themselves.
    pub deadline: Span,
}

impl Default for Params {
    fn default() -> Self {
        Self { deadline: Span(4 * 3_600_000) }
    }
}

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
            return Look::Skip { reason: "not a member of the cluster".into() };
        }
        if !node.cordoned {
            return Look::Act(Action::Hook { verb: HookVerb::Cordon });
        }
        if node.workloads == 0 {
            return Look::done("cordoned, no workloads left");
        }
        if v.step_age() > self.deadline.0 {
            return Look::Fail(
                Fault::new(
                    FaultClass::Precondition,
                    Channel::Cluster,
                    "drain-deadline",
                    format!("{} workloads are still running after {}", node.workloads, self.deadline),
                )
                .hint("the node stays cordoned and untouched; end the workloads, then `farrier machine release`"),
            );
        }
        Look::wait("workloads to end", 30_000)
    }
}
