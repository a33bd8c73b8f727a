//! Sessions at BMCs, kept sealed: a token opens a BMC as its password does. Without a key nothing is
//! kept, and a start logs in anew.

use super::error::reading;
use super::key::Key;
use super::secrets::{seal, unseal};
use super::writer::Order;
use super::{SqliteStore, int};
use crate::model::{Channel, Fault, FaultClass, MachineId};
use crate::port::Secret;
use crate::port::session::{KeptSession, SessionStore};
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

#[async_trait]
impl SessionStore for BmcSessions {
    async fn load(&self, machine: MachineId) -> Result<Option<KeptSession>, Fault> {
        let row: Option<(Vec<u8>,)> =
            sqlx::query_as("SELECT sealed FROM bmc_session WHERE machine = ?")
                .bind(i64::from(machine.0))
                .fetch_optional(&self.store.readers)
                .await
                .map_err(|e| lost(&reading(e)))?;
        // Sealed with another key, or for another machine: as if there were none.
        Ok(row.and_then(|(sealed,)| {
            let inside = unseal(&self.key, NAME, &machine.0.to_string(), sealed)?;
            let inside: Inside = serde_json::from_str(inside.expose()).ok()?;
            Some(KeptSession { of: inside.of, token: Secret::new(inside.token), path: inside.path })
        }))
    }

    async fn save(&self, machine: MachineId, session: &KeptSession) -> Result<(), Fault> {
        let inside = Inside {
            of: session.of.clone(),
            token: session.token.expose().to_string(),
            path: session.path.clone(),
        };
        let sealed = serde_json::to_string(&inside)
            .ok()
            .and_then(|text| seal(&self.key, NAME, &machine.0.to_string(), &Secret::new(text)))
            .ok_or_else(|| lost(&StoreError::Unusable("a session could not be sealed".into())))?;
        let machine = int(u64::from(machine.0));
        let order = |reply| Order::KeepSession { machine, sealed, reply };
        self.store.order(order).await.map_err(|e| lost(&e))
    }

    async fn forget(&self, machine: MachineId) -> Result<(), Fault> {
        let machine = int(u64::from(machine.0));
        let order = |reply| Order::ForgetSession { machine, reply };
        self.store.order(order).await.map_err(|e| lost(&e))
    }
}
