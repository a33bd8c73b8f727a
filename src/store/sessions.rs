//! Sessions at BMCs, kept sealed: a token opens a BMC as its password does. Without a key nothing is
//! kept, and a start logs in anew.

use super::SqliteStore;
use super::error::reading;
use super::key::Key;
use super::secrets::{seal, unseal};
use super::writer::Order;
use crate::model::{Channel, Fault, FaultClass};
use crate::port::Secret;
use crate::port::session::{At, KeptSession, SessionStore};
use crate::port::store::StoreError;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// Binds what is sealed to this table, beside the machine.
const NAME: &str = "bmc session";

/// The table and its key.
#[derive(Clone, Debug)]
pub struct BmcSessions {
    store: SqliteStore,
    key: Key,
}

/// What is sealed. Digest and path go with the token: a digest of a password is half of one.
#[derive(Serialize, Deserialize)]
struct Inside {
    of: String,
    token: String,
    path: Option<String>,
}

impl SqliteStore {
    /// Where sessions are kept; `None` without a key to seal them with.
    pub fn bmc_sessions(&self, key: Option<Key>) -> Option<BmcSessions> {
        key.map(|key| BmcSessions { store: self.clone(), key })
    }
}

fn lost(e: &StoreError) -> Fault {
    Fault::new(FaultClass::Transient, Channel::Engine, "session-store", e.to_string())
}

/// The table's key.
fn key(at: &At) -> (i64, String) {
    (i64::from(at.machine.0), at.name().to_string())
}

/// What is sealed is for one BMC alone.
fn bound(at: &At) -> String {
    match &at.controller {
        None => at.machine.0.to_string(),
        Some(name) => format!("{}/{name}", at.machine.0),
    }
}

#[async_trait]
impl SessionStore for BmcSessions {
    async fn load(&self, at: &At) -> Result<Option<KeptSession>, Fault> {
        let (machine, controller) = key(at);
        let sql = "SELECT sealed FROM bmc_session WHERE machine = ? AND controller = ?";
        let row: Option<(Vec<u8>,)> = sqlx::query_as(sql)
            .bind(machine)
            .bind(controller)
            .fetch_optional(&self.store.readers)
            .await
            .map_err(|e| lost(&reading(e)))?;
        // Sealed with another key, or for another BMC: as if there were none.
        Ok(row.and_then(|(sealed,)| {
            let inside = unseal(&self.key, NAME, &bound(at), sealed)?;
            let inside: Inside = serde_json::from_str(inside.expose()).ok()?;
            Some(KeptSession { of: inside.of, token: Secret::new(inside.token), path: inside.path })
        }))
    }

    async fn save(&self, at: &At, session: &KeptSession) -> Result<(), Fault> {
        let inside = Inside {
            of: session.of.clone(),
            token: session.token.expose().to_string(),
            path: session.path.clone(),
        };
        let sealed = serde_json::to_string(&inside)
            .ok()
            .and_then(|text| seal(&self.key, NAME, &bound(at), &Secret::new(text)))
            .ok_or_else(|| lost(&StoreError::Unusable("a session could not be sealed".into())))?;
        let at = key(at);
        let order = |reply| Order::KeepSession { at, sealed, reply };
        self.store.order(order).await.map_err(|e| lost(&e))
    }

    async fn forget(&self, at: &At) -> Result<(), Fault> {
        let at = key(at);
        let order = |reply| Order::ForgetSession { at, reply };
        self.store.order(order).await.map_err(|e| lost(&e))
    }
}
