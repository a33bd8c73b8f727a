//! One command on a host, for edges that need a program run there (cluster hooks).

use super::HostTarget;
use crate::model::{Fault, Identity};
use async_trait::async_trait;
use std::time::Duration;

/// What a command left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Exit status; `None`: a signal ended it, or the connection died. Never read as 0.
    pub exit: Option<u32>,
    /// Bounded; what was beyond is dropped.
    pub stdout: String,
    pub stderr: String,
    /// Some of the output was dropped.
    pub truncated: bool,
}

/// Why a command has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRun {
    /// The host is another machine than expected; nothing was run.
    Refused { saw: String },
    /// It never reached the host: it did not run.
    NotSent(Fault),
    /// It was sent, and how it went is not known.
    NoAnswer(Fault),
}

impl NotRun {
    /// As a read's fault, where nothing was to be changed.
    pub fn into_read_fault(self) -> Fault {
        match self {
            NotRun::Refused { saw } => Fault::new(
                crate::model::FaultClass::Identity,
                crate::model::Channel::Host,
                "wrong-machine",
                format!("the host is another machine: {saw}"),
            ),
            NotRun::NotSent(f) | NotRun::NoAnswer(f) => f,
        }
    }
}

/// Runs a program on a host.
#[async_trait]
pub trait HostCommand: Send + Sync {
    /// Runs `argv` with `stdin`. With `expect`, DMI is compared in the same command, just before.
    async fn run(
        &self,
        host: &HostTarget,
        expect: Option<&Identity>,
        argv: &[String],
        stdin: &[u8],
        deadline: Duration,
    ) -> Result<Ran, NotRun>;
}
