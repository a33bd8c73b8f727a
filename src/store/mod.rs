//! The store on SQLite: one writer, a few readers, one file.
//!
//! | part | what |
//! | --- | --- |
//! | `open` | lock, checks, migrations, connections |
//! | `lock`, `place` | one daemon per database; is the file still where it was opened? |
//! | `writer` | the one task that writes; callers send orders and await answers |
//! | `commit` | a batch as one transaction, one statement per table |
//! | `load`, `read` | what the engine loads at its start; what the API reads |
//! | `sessions` | sessions at BMCs, for the next start |
//! | `secrets`, [`key`] | the encrypted table, its key |
//! | [`vault`], [`kv`] | credentials for the edges; those that a Vault-style server keeps |
//! | [`fsck`], `audit` | what must hold in a database, and what in its history |
//! | `outbox` | events for webhooks, durable with what causes them |
//! | [`credentials`] | rotations under way, pinned certificates, delivery notes |
//! | [`backup`] | copies, and their way back |
//!
//! Architecture invariant: an order to the writer is data, so nobody can run code (foreign I/O
//! least of all) inside a transaction, and a caller that goes away cancels nothing.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an edge: reads files, environment and the wall clock"
)]

mod audit;
pub mod backup;
mod commit;
pub mod credentials;
mod error;
mod facts;
pub mod fsck;
pub mod key;
pub mod kv;
mod load;
mod lock;
mod migrate;
mod open;
mod outbox;
mod place;
mod read;
mod secrets;
mod sessions;
pub mod vault;
mod writer;

pub use key::Key;
pub use open::Settings;
pub use secrets::{SecretLine, Secrets};
pub use sessions::BmcSessions;

use crate::model::{EngineTime, Expected, MachineId, Report};
use crate::port::store::{CommitItem, Committed, HistoryLine, Loaded, Stopped, Store, StoreError};
use async_trait::async_trait;
use sqlx::SqlitePool;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use writer::Order;

/// A database that this process alone writes. Clones share it.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    orders: mpsc::Sender<Order>,
    readers: SqlitePool,
    /// Changes when the outbox has a new line.
    news: Arc<watch::Sender<u64>>,
    lost: watch::Receiver<Option<StoreError>>,
}

impl SqliteStore {
    /// Ends the writer after what it was given, and all readers; the lock is free afterwards.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        let lock = match self.orders.send(Order::Close { reply }).await {
            Ok(()) => done.await.ok(),
            Err(_) => None,
        };
        self.readers.close().await;
        drop(lock);
    }

    /// Resolves when the database's file was moved, deleted or replaced, within seconds also when
    /// nothing is written. Never while it is where it was opened.
    pub async fn lost(&self) -> StoreError {
        let mut lost = self.lost.clone();
        let why = lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            // The writer has ended in peace.
            None => std::future::pending().await,
        }
    }

    /// Answers once the writer has done what it was given before.
    ///
    /// # Errors
    /// The writer has ended.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.order(|reply| Order::Ping { reply }).await
    }

    /// Sends an order and awaits its answer. The order is carried out even when the caller is
    /// dropped meanwhile.
    async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Order,
    ) -> Result<T, StoreError> {
        let ended = || StoreError::Unknown("the database's writer has ended".into());
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn load(&self) -> Result<Loaded, StoreError> {
        load::load(&self.readers).await
    }

    async fn commit(
        &self,
        batch: &[CommitItem],
        now: EngineTime,
        wall_ms: u64,
    ) -> Result<Vec<Committed>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        // Serialized here, so that the writer's connection does not wait for it.
        let items = batch.iter().map(commit::prepare).collect::<Result<Vec<_>, _>>()?;
        self.order(|reply| Order::Commit { items, now, wall_ms, reply }).await
    }

    async fn expect(&self, machines: &[Expected]) -> Result<Vec<MachineId>, StoreError> {
        if machines.is_empty() {
            return Ok(Vec::new());
        }
        let json = serde_json::to_string(machines).map_err(|e| error::encode(&e))?;
        self.order(|reply| Order::Expect { json, reply }).await
    }

    async fn keep_workflow(&self, hash: &str, json: &str) -> Result<(), StoreError> {
        let (hash, json) = (hash.to_string(), json.to_string());
        self.order(|reply| Order::KeepWorkflow { hash, json, reply }).await
    }

    async fn set_stopped(
        &self,
        stopped: Option<&Stopped>,
        now: EngineTime,
    ) -> Result<(), StoreError> {
        let wall_ms = wall_ms();
        let told = outbox::array(&crate::port::outbox::of_stop(stopped))?;
        let stopped =
            stopped.map(serde_json::to_string).transpose().map_err(|e| error::encode(&e))?;
        self.order(|reply| Order::SetStopped { stopped, told, now, wall_ms, reply }).await
    }

    async fn facts(&self, machine: MachineId) -> Result<Option<Report>, StoreError> {
        facts::load(&self.readers, machine).await
    }

    async fn history(
        &self,
        machine: MachineId,
        after_seq: u64,
        limit: u32,
    ) -> Result<Vec<HistoryLine>, StoreError> {
        read::history(&self.readers, machine, after_seq, limit).await
    }
}

fn wall_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// A number as SQLite holds it: 64 bits with a sign.
fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Back again; a negative number (which nobody writes) reads as 0.
fn uint(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
