//! The append-only journal's entries: outcomes, not plans. Unchanged probes are not written.

use super::action::{Action, Baseline, Expect, Outcome};
use super::change::Change;
use super::facts::Power;
use super::fault::Fault;
use super::identity::Identity;
use super::limit::LimitClass;
use super::remedy::Remedy;
use super::stage::Stage;
use super::time::EngineTime;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Version of the entry format as it is written; older ones are upcast on read.
pub const ENTRY_VERSION: u16 = 1;

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "end")]
pub enum StepEnd {
    /// Observed: what the probe showed.
    Done {
        evidence: String,
    },
    Skipped {
        reason: String,
    },
}

/// One thing that happened to one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "entry")]
pub enum Entry {
    Registered {
        name: Arc<str>,
    },
    /// A person or an API said so. `key`: its idempotency key.
    Changed {
        #[serde(flatten)]
        change: Change,
        by: String,
        key: String,
    },
    RunBegan {
        workflow: Arc<str>,
        reason: Arc<str>,
    },
    RunEnded {
        why: String,
    },
    Entered {
        stage: Stage,
    },
    StepBegan {
        index: u16,
        key: Arc<str>,
    },
    StepEnded {
        key: Arc<str>,
        #[serde(flatten)]
        end: StepEnd,
    },
    /// The machine behind the address is proven to be this one.
    Proven {
        identity: Identity,
    },
    HostKeyPinned {
        host_key: Arc<str>,
    },
    /// The deploy ramdisk called back: until the host loses power, who logs in goes there.
    RamdiskUp {
        run: String,
        address: String,
        host_key: String,
    },
    /// The ramdisk of a person's rescue answers SSH there, with this host key: it is theirs now.
    RescueUp {
        address: String,
        host_key: String,
    },
    Deployed {
        image: String,
        run: String,
    },
    /// Durable before the action starts.
    Intent {
        action: Action,
        expect: Expect,
        baseline: Baseline,
        /// Headroom to hold until the step ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holds: Option<LimitClass>,
    },
    /// What the edge said of the open action.
    Settled {
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// Launched work was found again by a probe.
    Found {
        handle: String,
    },
    /// Launched work moved on.
    Progressed {
        digest: u64,
    },
    /// A probe showed whether the open action took hold.
    Closed {
        happened: bool,
        why: String,
    },
    /// An attempt failed. `charged`: it counts against the step's attempts.
    Faulted {
        fault: Fault,
        charged: bool,
        not_before: EngineTime,
    },
    /// An attempt failed, and an outage of something the machine shares did it: not charged, and the
    /// attempt starts afresh.
    Excused {
        fault: Fault,
        not_before: EngineTime,
        /// The outage, in words.
        why: String,
    },
    /// Trying again did not mend it: a rung of the fault's ladder is taken. Its intent follows.
    Remedied {
        remedy: Remedy,
        /// The fault's code.
        code: String,
        failures: u32,
    },
    /// The machine was part of an outage: what was under way may have been cut.
    Cut {
        by: String,
    },
    /// The BMC stopped answering; the host, when its network went and the BMC's stayed.
    Lost {
        fault: Fault,
    },
    /// The BMC answers again (after an outage or a single miss).
    Back,
    Quarantined {
        fault: Fault,
    },
    Waits {
        what: String,
    },
    /// What a machine at rest shows of the things that only Farrier should change: the mark that
    /// later probes are compared with. `firmware`: `id version` each; empty = not read this time.
    Observed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        power: Option<Power>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boot: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        firmware: Vec<String>,
    },
    /// Something changed that Farrier did not do: power, firmware, boot order. Report-only.
    OutOfBand {
        what: String,
    },
    /// This database was restored from a backup: what happened since then is not in it. The machine
    /// is held and an open action's outcome is unknown.
    Restored {
        /// The incarnation from here on.
        incarnation: Arc<str>,
        /// The one before: runs under way keep the names they gave under it.
        #[serde(default)]
        was: Arc<str>,
    },
    /// After a restore: this may have been done in the time that was lost. It is taken as launched,
    /// never sent by this database, and facts decide.
    Presumed {
        action: Action,
        baseline: Baseline,
        /// Headroom to hold until the step ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holds: Option<LimitClass>,
        why: String,
    },
    /// Drift or a change made behind Farrier's back: what, report-only. Empty = gone again.
    Noticed {
        what: String,
    },
}

impl Entry {
    /// The word that stands in the journal's `entry` field.
    pub fn name(&self) -> &'static str {
        match self {
            Entry::Registered { .. } => "registered",
            Entry::Changed { .. } => "changed",
            Entry::RunBegan { .. } => "run-began",
            Entry::RunEnded { .. } => "run-ended",
            Entry::Entered { .. } => "entered",
            Entry::StepBegan { .. } => "step-began",
            Entry::StepEnded { .. } => "step-ended",
            Entry::Proven { .. } => "proven",
            Entry::HostKeyPinned { .. } => "host-key-pinned",
            Entry::RamdiskUp { .. } => "ramdisk-up",
            Entry::RescueUp { .. } => "rescue-up",
            Entry::Deployed { .. } => "deployed",
            Entry::Intent { .. } => "intent",
            Entry::Settled { .. } => "settled",
            Entry::Found { .. } => "found",
            Entry::Progressed { .. } => "progressed",
            Entry::Closed { .. } => "closed",
            Entry::Faulted { .. } => "faulted",
            Entry::Excused { .. } => "excused",
            Entry::Remedied { .. } => "remedied",
            Entry::Cut { .. } => "cut",
            Entry::Lost { .. } => "lost",
            Entry::Back => "back",
            Entry::Quarantined { .. } => "quarantined",
            Entry::Waits { .. } => "waits",
            Entry::Observed { .. } => "observed",
            Entry::OutOfBand { .. } => "out-of-band",
            Entry::Restored { .. } => "restored",
            Entry::Presumed { .. } => "presumed",
            Entry::Noticed { .. } => "noticed",
        }
    }
}
