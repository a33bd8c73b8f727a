//! Sessions at BMCs that outlive the daemon: a BMC has few (4 to 16), and one that is left behind
//! counts until its time-out (field notes R2, R3).

use super::Secret;
use crate::model::{Fault, MachineId};
use async_trait::async_trait;
use std::sync::Arc;

/// At whom a session is: a machine's BMC, or its further controller of this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    pub machine: MachineId,
    pub controller: Option<Arc<str>>,
}

impl At {
    /// The machine's BMC.
    pub fn host(machine: MachineId) -> Self {
        Self { machine, controller: None }
    }

    /// The controller's name; empty for the host's BMC.
    pub fn name(&self) -> &str {
        self.controller.as_deref().unwrap_or("")
    }
}

/// A session as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSession {
    /// Digest of address, user and password: a session of others is not used.
    pub of: String,
    pub token: Secret,
    /// Path of the session's own resource, to end it.
    pub path: Option<String>,
}

/// Where sessions are kept. All of it is help: without it a BMC is logged in to once more.
#[async_trait]
pub trait SessionStore: Send + Sync {
    async fn load(&self, at: &At) -> Result<Option<KeptSession>, Fault>;
    async fn save(&self, at: &At, session: &KeptSession) -> Result<(), Fault>;
    async fn forget(&self, at: &At) -> Result<(), Fault>;
}
