//! Answers about the site as a whole.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Why everything is stopped or resumed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyOrder {
    pub why: String,
}

/// Whether actions are stopped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StopView {
    pub by: String,
    pub why: String,
    pub for_ms: u64,
}

/// The site at a glance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    pub site: String,
    pub version: String,
    /// Of the database, since it was made or restored.
    pub incarnation: String,
    pub engine_ms: u64,
    pub machines: usize,
    pub by_stage: BTreeMap<String, usize>,
    pub by_condition: BTreeMap<String, usize>,
    pub by_control: BTreeMap<String, usize>,
    pub held: usize,
    /// Machines past the SLA of their stage.
    pub stuck: usize,
    /// Changes made behind Farrier's back, on all machines since their registration.
    pub out_of_band: u64,
    /// Failure domains that are out now.
    pub outages: Vec<OutageView>,
    /// Actions that are not yet observed finished.
    pub open_actions: usize,
    /// Absent while actions are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<StopView>,
    /// Why the database can't be written now: no action starts until it can. Absent when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwritable: Option<String>,
    /// The daemon was started with `--observe-only`.
    pub observe_only: bool,
    /// A change that touches more machines than this waits for a confirm.
    pub confirm_max: usize,
}

/// A failure domain whose machines stopped answering together: nothing is charged to them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OutageView {
    /// Kind of failure domain: `site`, `rack`, …
    pub per: String,
    pub domain: String,
    /// `bmc` or `host`: which way they went silent.
    pub channel: String,
    /// Machines that are silent, of those that answered before.
    pub out: u32,
    pub of: u32,
    pub for_ms: u64,
    /// The same in words, with what it points to.
    pub text: String,
}

/// One bucket of a limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LimitView {
    /// `power`, `flash`, `provision`, `burn-in`, `drain`.
    pub class: String,
    /// Kind of failure domain: `site`, `rack`, …
    pub per: String,
    pub domain: String,
    pub taken: u32,
    pub max: u32,
    /// Machines that wait for room.
    pub waiting: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Limits {
    /// Buckets that were used or waited for since the daemon started.
    pub limits: Vec<LimitView>,
}

/// The data of one event of the stream; the event's name is the entry's kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    pub machine: String,
    pub seq: u64,
    /// Engine time, milliseconds.
    pub at: u64,
    /// The entry in words.
    pub text: String,
    #[schema(value_type = Object)]
    pub entry: serde_json::Value,
}

/// The data of a `gap` event: the client was too slow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GapView {
    /// Commits that were passed over.
    pub missed: u64,
}
