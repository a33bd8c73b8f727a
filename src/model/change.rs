//! What people and APIs may say about a machine. Append-only, acknowledged once durable.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where people want a machine to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Desired {
    /// A provisioned spare.
    Ready,
    InService,
    Drained,
    Retired,
}

impl Desired {
    pub const ALL: [Desired; 4] =
        [Desired::Ready, Desired::InService, Desired::Drained, Desired::Retired];

    pub fn name(self) -> &'static str {
        match self {
            Desired::Ready => "ready",
            Desired::InService => "in-service",
            Desired::Drained => "drained",
            Desired::Retired => "retired",
        }
    }

    pub fn from_name(name: &str) -> Option<Desired> {
        Desired::ALL.into_iter().find(|d| d.name() == name)
    }
}

impl fmt::Display for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a rotation of a password ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PasswordEnd {
    /// The new one is in force and kept.
    Rotated,
    /// The old one is in force.
    TakenBack,
    /// Neither works: nobody logs in until a person has looked.
    Stuck,
}

/// One order from a person or an API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
pub enum Change {
    /// Take over a running machine untouched: it rests where it is found.
    Adopt,
    /// Hand the machine to the workflow, toward `desired`.
    Enroll {
        /// A first deployment refuses a disk that holds data unless this is set.
        allow_existing_data: bool,
        desired: Desired,
    },
    /// Where the machine should rest from now on.
    Desire { desired: Desired },
    /// Maintenance: probes only, until released.
    Hold { why: String },
    /// End a hold.
    Unhold { why: String },
    /// End a quarantine: the step starts over with fresh attempts.
    Release { why: String },
    /// Try the current step again now.
    Retry { why: String },
    /// End the current step as skipped. `step` is its key: an order that comes late skips nothing else.
    Skip { step: String, why: String },
    /// Start nothing more of this run, follow what was launched to its end, then rest in `repair`.
    Abort { why: String },
    /// What became of a rotation of its BMC's password, or its further controller's of this name: said by the rotation, never by people. Nothing
    /// of the row changes; it is for the journal's reader, and for webhooks.
    Password {
        end: PasswordEnd,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        controller: Option<String>,
        why: String,
    },
    /// Give the machine to people. Only where the edge table has an edge to `repair`.
    Repair { why: String },
    /// Boot the deploy ramdisk with this person's key, in `repair`; said again with the same key it
    /// lasts longer. No disk is written.
    Rescue {
        /// OpenSSH public key, one line. Beside a change the journal keeps its idempotency key as `key`.
        #[serde(rename = "ssh_key")]
        key: String,
        /// From when it is said until it ends by itself.
        for_ms: u64,
        why: String,
    },
    /// End a rescue before its time.
    EndRescue { why: String },
}

impl Change {
    pub fn name(&self) -> &'static str {
        match self {
            Change::Adopt => "adopt",
            Change::Enroll { .. } => "enroll",
            Change::Desire { .. } => "desire",
            Change::Hold { .. } => "hold",
            Change::Unhold { .. } => "unhold",
            Change::Release { .. } => "release",
            Change::Retry { .. } => "retry",
            Change::Skip { .. } => "skip",
            Change::Abort { .. } => "abort",
            Change::Password { .. } => "password",
            Change::Repair { .. } => "repair",
            Change::Rescue { .. } => "rescue",
            Change::EndRescue { .. } => "end-rescue",
        }
    }
}
