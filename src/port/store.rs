//! The store's domain operations. No CRUD: each is something the engine or the API does.

use crate::model::{EngineTime, Entry, Expected, Machine, MachineId, Report};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries of one machine that become durable together, with the row they make.
#[derive(Clone, Debug)]
pub struct CommitItem {
    pub machine: MachineId,
    /// Seq of the row before these entries: a differing one in the store is a conflict.
    pub after_seq: u64,
    pub at: EngineTime,
    pub entries: Vec<Entry>,
    pub row: Machine,
    /// Facts to keep beside the row, when they changed.
    pub facts: Option<Box<Report>>,
}

/// What became of one item of a batch: one loser does not roll back the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    Durable,
    /// The store's row is at another seq: this process is not its only writer.
    Conflict {
        stored_seq: u64,
    },
    /// A change with this idempotency key is in the journal already.
    Repeated {
        key: String,
    },
}

/// Why the store could not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing of the batch is durable; it may be tried again.
    #[error("the database could not write: {0}")]
    NotWritten(String),
    /// No space left: no new actions start, outcomes are kept in memory and tried again.
    #[error("the disk is full: {0}")]
    Full(String),
    /// Nobody knows whether the batch is durable: the daemon must exit and recover.
    #[error("the commit's outcome is unknown: {0}")]
    Unknown(String),
    /// The database can't be used at all.
    #[error("{0}")]
    Unusable(String),
}

/// State of the whole site that is not of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteState {
    /// Since the database was made (or restored).
    pub incarnation: Arc<str>,
    pub engine_time: EngineTime,
    /// Wall clock in ms since 1970 when `engine_time` was stored.
    pub wall_ms: u64,
    pub stopped: Option<Stopped>,
    /// When actions were last allowed again after a stop.
    #[serde(default)]
    pub resumed_at: EngineTime,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    pub by: String,
    pub why: String,
    pub at: EngineTime,
}

/// All that is resident.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    pub state: SiteState,
    pub machines: Vec<Machine>,
    pub expected: BTreeMap<MachineId, Arc<Expected>>,
    /// Normalized workflows that runs are pinned to, by hash (JSON).
    pub workflows: BTreeMap<Arc<str>, String>,
}

/// One line of a machine's history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HistoryLine {
    pub seq: u64,
    pub at: EngineTime,
    pub wall_ms: u64,
    pub entry: Entry,
}

/// The writer's side. Exactly one writer lives; no call holds a transaction across other I/O.
#[async_trait]
pub trait Store: Send + Sync {
    async fn load(&self) -> Result<Loaded, StoreError>;
    /// One durable transaction. `now` and `wall_ms` advance the persisted clock.
    async fn commit(
        &self,
        batch: &[CommitItem],
        now: EngineTime,
        wall_ms: u64,
    ) -> Result<Vec<Committed>, StoreError>;
    /// Upserts expected machines by name; returns the ids, in order.
    async fn expect(&self, machines: &[Expected]) -> Result<Vec<MachineId>, StoreError>;
    /// Keeps a workflow for the runs that will be pinned to it.
    async fn keep_workflow(&self, hash: &str, json: &str) -> Result<(), StoreError>;
    /// `None` also stores `now` as the time of the resumption.
    async fn set_stopped(
        &self,
        stopped: Option<&Stopped>,
        now: EngineTime,
    ) -> Result<(), StoreError>;
    /// Latest kept facts of a machine.
    async fn facts(&self, machine: MachineId) -> Result<Option<Report>, StoreError>;
    /// Journal lines after `after_seq`, oldest first, at most `limit`.
    async fn history(
        &self,
        machine: MachineId,
        after_seq: u64,
        limit: u32,
    ) -> Result<Vec<HistoryLine>, StoreError>;
}
