//! The shapes of answers. Shapes of their own, not the model's: the API may not change because a
//! row does, and nothing comes out that was not put here on purpose.

use crate::decide::explain::Explanation as Live;
use crate::engine::Director;
use crate::model::{EngineTime, Expected, Fault, Further, Identity, Machine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

mod site;

pub use site::{EventView, GapView, LimitView, Limits, OutageView, Status, StopView, WhyOrder};

/// One machine in a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MachineRow {
    pub name: String,
    pub id: u32,
    /// Journal seq of the last entry.
    pub seq: u64,
    /// Absent when the machine's line has vanished from the inventory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    pub stage: String,
    pub in_stage_ms: u64,
    /// `ok`, `backing-off`, `unreachable`, `quarantined`.
    pub condition: String,
    /// `unmanaged`, `adopted`, `enrolled`.
    pub control: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldView>,
    /// The current run's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultView>,
    /// Drift noticed at rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// Past the SLA of its stage: since when it should have moved on, and what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<StuckView>,
    /// Changes made behind Farrier's back, counted since registration.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub out_of_band: u16,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u16) -> bool {
    *n == 0
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StuckView {
    /// Since the SLA was over.
    pub for_ms: u64,
    pub what: String,
}

/// One change made behind Farrier's back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OutOfBandView {
    pub seq: u64,
    /// When it was noticed: wall-clock time, RFC 3339.
    pub at: String,
    pub what: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HoldView {
    pub by: String,
    pub why: String,
    pub for_ms: u64,
}

/// A classified failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FaultView {
    /// Stable: `no-answer`, `bad-credentials`, `wrong-machine`, …
    pub code: String,
    pub class: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

impl From<&Fault> for FaultView {
    fn from(f: &Fault) -> Self {
        Self {
            code: f.code.to_string(),
            class: f.class.name().into(),
            message: f.message.clone(),
            hint: f.hint.clone(),
            evidence: f.evidence.clone(),
        }
    }
}

impl MachineRow {
    pub fn of(d: &Director, m: &Machine, now: EngineTime) -> Self {
        let expected = d.expected(m.id);
        let fault = m.last_fault.as_ref().filter(|n| n.count > 0 || m.is_quarantined());
        Self {
            name: m.name.to_string(),
            id: m.id.0,
            seq: m.seq,
            pool: expected.map(|e| e.pool.to_string()),
            rack: expected.map(|e| e.rack.to_string()),
            position: expected.map(|e| e.position),
            profile: expected.map(|e| e.profile.to_string()),
            stage: m.stage.name().into(),
            in_stage_ms: now.since(m.stage_since),
            condition: m.condition.name().into(),
            control: m.control.name().into(),
            desired: m.desired.map(|d| d.name().into()),
            hold: m.hold.as_ref().map(|h| HoldView {
                by: h.by.clone(),
                why: h.why.clone(),
                for_ms: now.since(h.since),
            }),
            run: m.run.as_ref().map(|r| r.id),
            step: m.step.as_ref().map(|s| s.key.to_string()),
            waiting: m.waiting.as_deref().map(str::to_string),
            fault: fault.map(|n| FaultView::from(&n.fault)),
            notice: m.notice.as_deref().map(str::to_string),
            stuck: d
                .stuck(m.id, now)
                .map(|s| StuckView { for_ms: now.since(s.since), what: s.what }),
            out_of_band: m.out_of_band,
        }
    }
}

/// A page of machines, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MachinePage {
    pub machines: Vec<MachineRow>,
    /// Machines that match, on all pages.
    pub total: usize,
    /// Give this as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One machine, with what is expected of it and what was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MachineView {
    #[serde(flatten)]
    pub row: MachineRow,
    /// What the inventory says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<ExpectedView>,
    /// What was proven.
    pub identity: IdentityView,
    /// Image that Farrier itself put on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Action that is not yet observed finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_action: Option<OpenView>,
    /// Since the machine was read last; absent when it was not since the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_ago_ms: Option<u64>,
    /// Until it is looked at next; absent while something is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_look_ms: Option<u64>,
    /// A person's rescue, wanted or under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<RescueView>,
    /// The last changes made behind Farrier's back, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub out_of_band_changes: Vec<OutOfBandView>,
    /// By part: `system`, `inventory`, `firmware`, `tasks`, `host`, `job`, `cluster`, `boot`.
    pub facts: BTreeMap<String, FactView>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IdentityView {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

impl From<&Identity> for IdentityView {
    fn from(i: &Identity) -> Self {
        Self {
            serial: i.serial.as_deref().map(str::to_string),
            uuid: i.uuid.as_deref().map(str::to_string),
            mac: i.mac.as_deref().map(str::to_string),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExpectedView {
    pub identity: IdentityView,
    /// Failure domains as `kind` → name.
    pub domains: BTreeMap<String, Vec<String>>,
    pub labels: BTreeMap<String, String>,
    /// Where the BMC was last found, without user or password.
    pub bmc_url: String,
    /// The credential's name, never its value.
    pub bmc_credential: String,
    pub bmc_tls: String,
    /// The machine's controllers at addresses of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<ControllerView>,
    pub host_address: String,
    pub host_user: String,
}

impl From<&Expected> for ExpectedView {
    fn from(e: &Expected) -> Self {
        let mut domains: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for d in &*e.domains {
            domains.entry(d.kind.name().into()).or_default().push(d.name.to_string());
        }
        Self {
            identity: (&*e.identity).into(),
            domains,
            labels: (*e.labels).clone(),
            bmc_url: bare_url(&e.bmc.url),
            bmc_credential: e.bmc.credential.to_string(),
            bmc_tls: e.bmc.tls.to_string(),
            controllers: e.bmc.controllers.iter().map(Into::into).collect(),
            host_address: e.host.address.to_string(),
            host_user: e.host.user.to_string(),
        }
    }
}

/// A controller of a machine besides its BMC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ControllerView {
    /// What its components and tasks begin with, before a colon.
    pub name: String,
    /// `hgx` or `dpu`.
    pub kind: String,
    /// Without user or password.
    pub url: String,
    /// The credential's name, never its value.
    pub credential: String,
    pub tls: String,
    /// What it must show before it is written to; absent: it never is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

impl From<&Further> for ControllerView {
    fn from(c: &Further) -> Self {
        Self {
            name: c.name.to_string(),
            kind: c.kind.name().into(),
            url: bare_url(&c.url),
            credential: c.credential.to_string(),
            tls: c.tls.to_string(),
            serial: c.serial.as_deref().map(str::to_string),
        }
    }
}

/// A URL without user, password and query: people paste passwords there.
fn bare_url(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or("");
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(s, r)| (s, r));
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(p)));
    let host = authority.rsplit('@').next().unwrap_or("");
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    match path {
        Some(path) => format!("{scheme}{host}/{path}"),
        None => format!("{scheme}{host}"),
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OpenView {
    /// Journal seq of the intent.
    pub seq: u64,
    pub action: String,
    pub about: String,
    /// `intended`, `applied`, `unknown`.
    pub state: String,
    pub for_ms: u64,
}

/// One part of what was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FactView {
    /// `fresh`, `stale` (older than twice the watch interval) or `unknown` (not read, or the last
    /// read failed).
    pub freshness: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Why the last read failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub value: Option<serde_json::Value>,
}

/// Why a machine is where it is, since when, and what comes next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    pub machine: String,
    /// One sentence.
    pub summary: String,
    pub stage: String,
    pub step: Option<String>,
    pub condition: String,
    pub control: String,
    pub desired: Option<String>,
    pub in_stage: String,
    pub in_step: Option<String>,
    /// `2 of 4`.
    pub attempt: Option<String>,
    pub waiting_for: Option<String>,
    pub open_action: Option<String>,
    pub last_fault: Option<String>,
    pub evidence: Option<String>,
    pub hint: Option<String>,
    pub notice: Option<String>,
    /// Steps that were skipped when they last came up, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// The last lines of the serial console of the run that is in trouble, as far as it was followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub console: Vec<String>,
    /// What Farrier does next, and when.
    pub next: String,
    /// Commands that a person can give now.
    pub ways_out: Vec<String>,
}

impl From<Live> for Explanation {
    fn from(e: Live) -> Self {
        Self {
            machine: e.machine,
            summary: e.summary,
            stage: e.stage,
            step: e.step,
            condition: e.condition,
            control: e.control,
            desired: e.desired,
            in_stage: e.in_stage,
            in_step: e.in_step,
            attempt: e.attempt,
            waiting_for: e.waiting_for,
            open_action: e.open_action,
            last_fault: e.last_fault,
            evidence: e.evidence,
            hint: e.hint,
            notice: e.notice,
            skipped: Vec::new(),
            console: Vec::new(),
            next: e.next,
            ways_out: e.ways_out,
        }
    }
}

/// One line of a machine's journal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    pub seq: u64,
    /// Wall-clock time, RFC 3339.
    pub at: String,
    pub engine_ms: u64,
    /// The entry in words.
    pub text: String,
    /// The entry as it is stored; its `entry` field names its kind.
    #[schema(value_type = Object)]
    pub entry: serde_json::Value,
}

/// A page of a machine's journal, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    pub machine: String,
    pub lines: Vec<Line>,
    /// Give this as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// One machine's trip through stages for one reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// Journal seq at which it began.
    pub id: u64,
    pub reason: String,
    /// Hash of the workflow that it is pinned to.
    pub workflow: String,
    /// Wall-clock time, RFC 3339.
    pub began: String,
    /// Until it ended, or until now.
    pub took_ms: u64,
    /// `running`, `ended`, or `given-up` (to repair).
    pub state: String,
    /// How it ended, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    pub steps: Vec<StepView>,
}

/// One step of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    pub key: String,
    pub stage: String,
    pub began: String,
    /// Until it ended, or until now.
    pub took_ms: u64,
    /// `running`, `done`, `skipped`, `quarantined`, `given-up`.
    pub state: String,
    /// What a probe showed, or why it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Failed attempts that counted.
    pub failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<FaultView>,
    pub actions: Vec<ActionView>,
}

/// One action of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ActionView {
    /// Journal seq of its intent.
    pub seq: u64,
    pub action: String,
    pub about: String,
    pub took_ms: u64,
    /// `open`, `applied`, `happened`, `did-not-happen`, `refused`, `failed`, `unknown`,
    /// `withdrawn`.
    pub state: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Runs {
    pub machine: String,
    /// Newest first. Runs whose beginning was checkpointed away are not listed.
    pub runs: Vec<RunView>,
}

/// The deploy ramdisk for a person with their key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RescueView {
    pub by: String,
    pub why: String,
    /// The public key that is let in.
    pub key: String,
    /// Until it ends by itself; 0 while it is being ended.
    pub left_ms: u64,
    /// `booting`, `up`, `ending`.
    pub state: String,
    /// Where to log in, as user `root`; once it is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The host key that it must show: kind and key, as in `known_hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
}

impl RescueView {
    pub(super) fn of(m: &Machine, now: EngineTime) -> Option<Self> {
        let rescue = m.rescue.as_ref()?;
        let over = rescue.is_over(now);
        let up = m.ramdisk.as_ref().filter(|_| rescue.up.is_some() && !over);
        Some(Self {
            by: rescue.by.to_string(),
            why: rescue.why.to_string(),
            key: rescue.key.to_string(),
            left_ms: if over { 0 } else { rescue.until.since(now) },
            state: match (over, &up) {
                (true, _) => "ending",
                (false, Some(_)) => "up",
                (false, None) => "booting",
            }
            .into(),
            address: up.map(|r| r.address.to_string()),
            host_key: up.map(|r| r.host_key.to_string()),
        })
    }
}

/// What people may order. `why` is kept in the journal with `hold`, `unhold`, `release`, `skip`,
/// `abort`, `repair`, `rescue` and `end-rescue`, which require it, and with `retry`; with the others
/// it goes to the daemon's log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeOrder {
    pub change: ChangeKind,
    /// With `desire` (required) and `enroll` (default `ready`): `ready`, `in-service`, `drained`,
    /// `retired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    /// With `enroll`: a first deployment may overwrite a disk that holds data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_existing_data: Option<bool>,
    /// With `skip` (required): the key of the step that is meant. A machine that is at another step
    /// by then refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// With `rescue` (required): the person's OpenSSH public key, one line of a `.pub` file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// With `rescue`: milliseconds from now until it ends by itself; default 8 h, at most 72 h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The kinds of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// Take over a running machine untouched.
    #[default]
    Adopt,
    /// Hand the machine to its workflow, toward `desired`.
    Enroll,
    /// Where it should rest from now on.
    Desire,
    /// Probes only, until `unhold`.
    Hold,
    Unhold,
    /// End a quarantine: the step starts over with fresh attempts.
    Release,
    /// Try the current step again now.
    Retry,
    /// End the current step as skipped; the run goes on with the next one.
    Skip,
    /// Start nothing more of the run, follow what was launched to its end, then rest in `repair`.
    Abort,
    /// Give the machine to people.
    Repair,
    /// Boot the deploy ramdisk with `key` let in; the machine must rest in `repair`. Said again with
    /// the same key, it lasts longer.
    Rescue,
    /// End a rescue: power off, back to rest in `repair`.
    EndRescue,
}

/// A change is durable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    pub machine: String,
    /// Journal seq of the change.
    pub seq: u64,
    /// Repeating the request with this key is safe.
    pub idempotency_key: String,
}

/// One change for many machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkOrder {
    pub selector: super::select::Selector,
    pub change: ChangeOrder,
    /// How many machines the sender expects the selector to match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<usize>,
}

/// What became of a change for many machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BulkChanged {
    /// Machines on which the change is durable, by name.
    pub changed: Vec<Changed>,
    /// Machines that refused it or whose answer is missing, by name.
    pub refused: Vec<Refused>,
    /// Repeating the request with this key is safe.
    pub idempotency_key: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Refused {
    pub machine: String,
    pub problem: super::problem::Body,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_secrets() {
        for (url, bare) in [
            ("https://10.0.0.5", "https://10.0.0.5"),
            ("https://root:calvin@10.0.0.5:8443/x?token=1#a", "https://10.0.0.5:8443/x"),
            ("https://a@b:c@d/e", "https://d/e"),
            ("10.0.0.5", "10.0.0.5"),
            ("", ""),
        ] {
            assert_eq!(bare_url(url), bare);
        }
    }
}
