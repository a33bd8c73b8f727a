//! Prove the hardware by a named job with a JSON result and thresholds.

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
    pub preset: JobScript,
    /// Longest run of the job.
    pub timeout: Span,
    /// GPUs that must be seen and healthy; none = what the profile says.
    pub min_gpus: Option<u16>,
    /// Highest accepted GPU temperature, °C.
    pub max_temp_c: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            preset: JobScript::Smoke,
            timeout: Span(1_800_000),
            min_gpus: None,
            max_temp_c: 87.0,
        }
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
        if v.m.happened(ActionKind::BurnInJob).is_none() {
            return Look::Act(Action::StartJob {
                script: self.preset,
                name: v.job_name(self.preset.name()),
                timeout_ms: self.timeout.0,
            });
        }
        match &need!(v.report.job).state {
            JobState::Finished { exit, result: Some(result) } => self.judge(v, *exit, result),
            JobState::Finished { exit, result: None } => Look::Fail(
                Fault::new(
                    FaultClass::Transient,
                    Channel::Host,
                    "no-result",
                    format!("the burn-in job ended with {exit} and no readable result"),
                )
                .hint("its output is on the host below the job directory"),
            ),
            _ => Look::Fail(Fault::new(
                FaultClass::Transient,
                Channel::Host,
                "result-gone",
                "the burn-in job's result is gone",
            )),
        }
    }

    /// Result contract: `{"ok":bool,"gpus":n,"max_temp_c":x,"problems":["…"],"checks":[…]}`.
    fn judge(&self, v: &View<'_>, exit: i32, result: &serde_json::Value) -> Look {
        let gpus = result["gpus"].as_u64().unwrap_or(0);
        let wanted = u64::from(self.min_gpus.unwrap_or(v.profile.gpus));
        let mut problems: Vec<String> = result["problems"]
            .as_array()
            .map(|p| {
                p.iter().map(|x| x.as_str().map_or_else(|| x.to_string(), str::to_string)).collect()
            })
            .unwrap_or_default();
        if gpus < wanted {
            problems.push(format!("{gpus} of {wanted} GPUs seen"));
        }
        if let Some(t) = result["max_temp_c"].as_f64()
            && t > self.max_temp_c
        {
            problems.push(format!("{t} °C is above {} °C", self.max_temp_c));
        }
        if exit == 0 && result["ok"] == serde_json::Value::Bool(true) && problems.is_empty() {
            return Look::done(format!("{} passed, {gpus} GPUs", self.preset.name()));
        }
        if problems.is_empty() {
            problems.push(format!("exit {exit}"));
        }
        Look::Fail(
            Fault::new(
                FaultClass::Hardware,
                Channel::Host,
                "burn-in-failed",
                format!("burn-in `{}` failed: {}", self.preset.name(), problems.join("; ")),
            )
            .hint("repair, then `farrier machine release` to run it again")
            .evidence(result.to_string().chars().take(4000).collect::<String>()),
        )
    }
}
