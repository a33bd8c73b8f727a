//! Sessions at BMCs that outlive the daemon: a BMC has few (4 to 16), and one that is left behind
//! counts until its time-out (field notes R2, R3).

use super::Secret;
use crate::model::{Fault, MachineId};
use async_trait::async_trait;

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
    async fn load(&self, machine: MachineId) -> Result<Option<KeptSession>, Fault>;
    async fn save(&self, machine: MachineId, session: &KeptSession) -> Result<(), Fault>;
    async fn forget(&self, machine: MachineId) -> Result<(), Fault>;
}
