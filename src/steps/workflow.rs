//! The contents of stages as data: an ordered list of steps. A run keeps the workflow it started
//! with; its hash names it.

use super::Step;
use crate::model::Stage;
use crate::model::time::Span;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often and how long a step's failures are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Failed attempts until quarantine.
    pub attempts: u16,
    /// First pause; doubles with every failure.
    pub base: Span,
    /// Longest pause.
    pub cap: Span,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 4, base: Span(15_000), cap: Span(600_000) }
    }
}

/// What becomes of a step that the machine can't do at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unsupported {
    #[default]
    Quarantine,
    /// Skip the step; the reason stands in the journal and in `explain`.
    Skip,
}

/// For which machines a step is: all conditions must hold. No expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// Labels with exactly these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// One of these pools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
}

/// One step of a workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepSpec {
    pub key: Arc<str>,
    pub stage: Stage,
    #[serde(flatten)]
    pub step: Step,
    /// Longest time in the step, outages not counted, until quarantine.
    pub timeout: Span,
    /// Longest time without progress of launched work.
    pub stall: Span,
    /// How long the work it launches usually takes: the first look comes then. 0 = not said.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub usual: Span,
    pub retry: Retry,
    pub unsupported: Unsupported,
    pub when: When,
}

fn is_zero(span: &Span) -> bool {
    span.0 == 0
}

/// A parsed workflow. `steps` are grouped by stage, in file order inside a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    pub name: Arc<str>,
    /// Seconds between health probes at rest.
    pub watch: Span,
    /// Longest time in a stage until people are called; nothing else follows from it. A stage that
    /// is not named gets the sum of its steps' timeouts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sla: BTreeMap<Stage, Span>,
    pub steps: Vec<StepSpec>,
}

impl Workflow {
    /// The steps of a stage with their positions in [`Workflow::steps`].
    pub fn of_stage(&self, stage: Stage) -> impl Iterator<Item = (usize, &StepSpec)> {
        self.steps.iter().enumerate().filter(move |(_, s)| s.stage == stage)
    }

    /// The SLA of a stage; `None` where nothing is done.
    pub fn sla(&self, stage: Stage) -> Option<Span> {
        self.sla.get(&stage).copied().or_else(|| {
            let timeouts = self.of_stage(stage).map(|(_, s)| s.timeout.0);
            timeouts.reduce(u64::saturating_add).map(Span)
        })
    }

    /// First 16 hex digits of the SHA-256 of the normalized workflow: its name in runs.
    pub fn hash(&self) -> Arc<str> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let digest = Sha256::digest(&text);
        digest[..8].iter().map(|b| format!("{b:02x}")).collect::<String>().into()
    }
}
