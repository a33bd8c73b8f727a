//! Wipe the machine's local disks by the shipped job. The job re-reads DMI in the command that
//! writes and refuses any other host than the BMC's machine.

use super::power::ensure_on;
use super::{Look, View, need};
use crate::model::action::JobScript;
use crate::model::facts::{JobState, ProbeSet};
use crate::model::time::Span;
use crate::model::{Action, ActionKind, Channel, Fault, FaultClass, Machine};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Longest run of the job.
    pub timeout: Span,
}

impl Default for Params {
    fn default() -> Self {
        Self { timeout: Span(12 * 3_600_000) }
    }
}

impl Params {
    pub(super) fn needs(&self, _m: &Machine) -> ProbeSet {
        ProbeSet::SYSTEM.with(ProbeSet::JOB)
    }

    pub(super) fn look(&self, v: &View<'_>) -> Look {
        if let Some(look) = ensure_on(need!(v.report.system).power) {
            return look;
        }
        let Some(act) = v.m.happened(ActionKind::WipeJob) else {
            return Look::Act(Action::StartJob {
                script: JobScript::Wipe,
                name: v.job_name("wipe"),
                timeout_ms: self.timeout.0,
            });
        };
        let job = need!(v.report.job);
        match &job.state {
            JobState::Finished { exit: 0, result: Some(result) }
                if result["verified"] == serde_json::Value::Bool(true) =>
            {
                let drives = result["drives"].as_array().map_or(0, Vec::len);
                Look::done(format!("{drives} drives overwritten and read back ({})", act.about))
            }
            JobState::Finished { exit, result } => {
                let said = result.as_ref().map(ToString::to_string).unwrap_or_default();
                let refused = result.as_ref().is_some_and(|r| r["refused"].is_string());
                let in_doubt = result.as_ref().is_some_and(|r| r["error"].is_string());
                let (class, code) = if refused {
                    (FaultClass::Identity, "wipe-refused")
                } else if in_doubt {
                    // A disk in use or of unknown kind: nothing was written, and nothing changes by
                    // trying again.
                    (FaultClass::Precondition, "wipe-in-doubt")
                } else {
                    (FaultClass::Transient, "wipe-failed")
                };
                Look::Fail(
                    Fault::new(class, Channel::Host, code, format!("the wipe ended with {exit}"))
                        .evidence(said),
                )
            }
            _ => Look::Fail(Fault::new(
                FaultClass::Transient,
                Channel::Host,
                "result-gone",
                "the wipe's result file is gone",
            )),
        }
    }
}
