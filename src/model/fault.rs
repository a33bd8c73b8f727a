//! Classified failures. The edge that saw a failure classifies it once; nobody matches on its
//! text later.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// What kind of failure it is; retry and remediation depend on this alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultClass {
    /// May pass by itself: try again.
    Transient,
    /// The other side asks for patience (429, 503, session limit): wait, no attempt charged.
    Throttled,
    /// Credentials refused. Retried rarely: BMCs lock accounts (3 tries / 30 s on some).
    Auth,
    /// The other side can't do it at all.
    Unsupported,
    /// The world is not as the action needs it; a person must change that.
    Precondition,
    /// Broken hardware.
    Hardware,
    /// This is not the machine that was expected.
    Identity,
    /// Sent, and nobody can tell whether it took hold.
    OutcomeUnknown,
    /// A defect of Farrier's own.
    Bug,
}

impl FaultClass {
    pub const ALL: [FaultClass; 9] = [
        FaultClass::Transient,
        FaultClass::Throttled,
        FaultClass::Auth,
        FaultClass::Unsupported,
        FaultClass::Precondition,
        FaultClass::Hardware,
        FaultClass::Identity,
        FaultClass::OutcomeUnknown,
        FaultClass::Bug,
    ];

    pub fn name(self) -> &'static str {
        match self {
            FaultClass::Transient => "transient",
            FaultClass::Throttled => "throttled",
            FaultClass::Auth => "auth",
            FaultClass::Unsupported => "unsupported",
            FaultClass::Precondition => "precondition",
            FaultClass::Hardware => "hardware",
            FaultClass::Identity => "identity",
            FaultClass::OutcomeUnknown => "outcome-unknown",
            FaultClass::Bug => "bug",
        }
    }
}

/// The way to the machine on which the failure was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    Bmc,
    Host,
    Cluster,
    Boot,
    Engine,
}

/// A classified failure with its evidence. Holds no secrets: the edge scrubs before it makes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub class: FaultClass,
    pub channel: Channel,
    /// Stable, for machines and runbooks: `no-answer`, `bad-credentials`, `wrong-machine`, …
    pub code: Cow<'static, str>,
    /// For the person at 3 a.m.: what happened.
    pub message: String,
    /// What the person can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What was seen: status line, body excerpt, task message (bounded by the edge).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// The other side's own wish (Retry-After), milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// A read failed that an act needs, not the act: no attempt was made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_read: bool,
}

impl Fault {
    /// The code of "nothing came back": connect refused, timed out, reset. Judged by domain and
    /// never a reason for quarantine by itself (design law 8).
    pub const NO_ANSWER: &'static str = "no-answer";

    /// The code of "the update was activated and the old version still runs": the evidence that
    /// a firmware update did not take hold, so that it may be done again.
    pub const VERSION_UNCHANGED: &'static str = "version-unchanged";
    /// The code of "the host was restarted for it and the BMC shows no such volume": the same evidence
    /// of a volume.
    pub const VOLUME_NOT_MADE: &'static str = "volume-not-made";
    /// One member of the firmware inventory could not be read, while others could.
    pub const COMPONENT_UNREAD: &'static str = "component-unread";
    /// The host's BMC lists no tasks, and work may go on at a further controller of the machine.
    pub const CONTROLLER_BUSY: &'static str = "controller-busy";
    /// No certificate of the BMC was accepted yet, and the inventory asks for one.
    pub const NO_PIN: &'static str = "no-pin";
    /// The BMC shows another certificate than the pinned one.
    pub const CERTIFICATE_CHANGED: &'static str = "certificate-changed";
    /// A BMC's job queue takes no more for now; says who fills it.
    pub const QUEUE_FULL: &'static str = "job-queue-full";
    /// The daemon ended while an action was under way.
    pub const INTERRUPTED: &'static str = "interrupted";

    pub fn new(
        class: FaultClass,
        channel: Channel,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            class,
            channel,
            code: Cow::Borrowed(code),
            message: message.into(),
            hint: None,
            evidence: None,
            retry_after_ms: None,
            of_read: false,
        }
    }

    /// Nothing came back on `channel`.
    pub fn no_answer(channel: Channel, message: impl Into<String>) -> Self {
        Self::new(FaultClass::Transient, channel, Self::NO_ANSWER, message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn evidence(mut self, evidence: impl Into<String>) -> Self {
        self.evidence = Some(evidence.into());
        self
    }

    pub fn retry_after(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// It is a read's, where that makes a difference: of a fault that passes by itself.
    pub fn of_read(self) -> Self {
        let of_read = matches!(self.class, FaultClass::Transient | FaultClass::OutcomeUnknown);
        Self { of_read, ..self }
    }

    /// Does it say that what may not be done twice did not take hold, so that it may be done again?
    pub fn takes_back(&self) -> bool {
        matches!(&*self.code, Self::VERSION_UNCHANGED | Self::VOLUME_NOT_MADE)
    }

    pub fn is_no_answer(&self) -> bool {
        self.code == Self::NO_ANSWER
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.message, self.code, self.class.name())
    }
}
