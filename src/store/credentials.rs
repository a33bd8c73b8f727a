//! Rotations of passwords under way, pinned certificates, and delivery notes: few rows, kept by
//! name and beside the secrets that they are about.

use super::error::{encode, reading};
use super::open::inspect;
use super::secrets::{Secrets, seal};
use super::writer::Order;
use super::{SqliteStore, int, uint, wall_ms};
use crate::model::rotation::Rotation;
use crate::port::Secret;
use crate::port::store::StoreError;
use serde_json::json;
use sqlx::Connection;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// A pinned certificate, and who took it for the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The machine's name for its host's BMC; for a further controller `machine/controller`.
    pub place: String,
    /// SHA-256 of the certificate's DER, 64 hex digits.
    pub sha256: String,
    pub subject: String,
    pub by: String,
    pub why: String,
    /// Wall clock in ms since 1970.
    pub set_ms: u64,
}

/// The pins of a site. Clones share them.
#[derive(Clone, Debug)]
pub struct Pins {
    store: SqliteStore,
    /// All of them: every call to a BMC asks.
    known: Arc<RwLock<BTreeMap<String, Pin>>>,
}

/// One line of a delivery note.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub serial: String,
    /// As the model spells MACs.
    pub bmc_mac: String,
    pub user: String,
    pub password: Secret,
    pub rack: Option<String>,
    pub position: Option<u16>,
}

/// Name of the secret that holds a machine's password as it was delivered.
pub fn factory(serial: &str) -> String {
    format!("{FACTORY}{serial}")
}

/// How the names of factory passwords begin.
pub const FACTORY: &str = "factory/";

const DELIVERED: &str = "SELECT serial, bmc_mac FROM delivered ORDER BY serial";

impl SqliteStore {
    /// The latest rotation of each BMC, open or over, by machine and controller.
    ///
    /// # Errors
    /// The database can't be read, or a record is not one.
    pub async fn rotations(&self) -> Result<Vec<Rotation>, StoreError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT machine, json FROM rotation ORDER BY machine")
                .fetch_all(&self.readers)
                .await
                .map_err(reading)?;
        let read = |(machine, json): (String, String)| {
            serde_json::from_str(&json).map_err(|e| {
                StoreError::Unusable(format!("the rotation of `{machine}` can't be read: {e}"))
            })
        };
        rows.into_iter().map(read).collect()
    }

    /// Durable once it returns.
    ///
    /// # Errors
    /// Nothing was written, or nobody knows.
    pub async fn keep_rotation(&self, rotation: &Rotation) -> Result<(), StoreError> {
        let json = serde_json::to_string(rotation).map_err(|e| encode(&e))?;
        let machine = rotation.machine.clone();
        self.order(|reply| Order::KeepRotation { machine, json, reply }).await
    }

    /// All pins.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn pins(&self) -> Result<Pins, StoreError> {
        type Row = (String, String, String, String, String, i64);
        let rows: Vec<Row> =
            sqlx::query_as("SELECT machine, sha256, subject, by_whom, why, set_ms FROM pin")
                .fetch_all(&self.readers)
                .await
                .map_err(reading)?;
        let pin = |(place, sha256, subject, by, why, set_ms): Row| {
            (place.clone(), Pin { place, sha256, subject, by, why, set_ms: uint(set_ms) })
        };
        let known = rows.into_iter().map(pin).collect();
        Ok(Pins { store: self.clone(), known: Arc::new(RwLock::new(known)) })
    }

    /// Serial and BMC MAC of every machine on a delivery note.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn delivered(&self) -> Result<Vec<(String, String)>, StoreError> {
        sqlx::query_as(DELIVERED).fetch_all(&self.readers).await.map_err(reading)
    }
}

/// Serial and BMC MAC of every machine on a delivery note, of the database at `path`: nothing is written,
/// and a daemon may run.
///
/// # Errors
/// The database can't be read.
pub async fn delivered_at(path: &Path) -> Result<Vec<(String, String)>, StoreError> {
    let mut conn = inspect(path).await?;
    let rows = sqlx::query_as(DELIVERED).fetch_all(&mut conn).await.map_err(reading);
    conn.close().await.ok();
    rows
}

impl Pins {
    /// The pin of the BMC at this place, see [`Pin::place`].
    pub fn get(&self, place: &str) -> Option<Pin> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(place).cloned()
    }

    /// Keeps all of them in one transaction.
    ///
    /// # Errors
    /// None was kept, or nobody knows.
    pub async fn set(&self, pins: &[Pin]) -> Result<(), StoreError> {
        let rows = pins.iter().map(|p| {
            json!({"machine": p.place, "sha256": p.sha256, "subject": p.subject, "by": p.by,
                   "why": p.why, "set_ms": int(p.set_ms)})
        });
        let json = serde_json::Value::from_iter(rows).to_string();
        self.store.order(|reply| Order::SetPins { json, reply }).await?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(pins.iter().map(|p| (p.place.clone(), p.clone())));
        Ok(())
    }
}

impl Secrets {
    /// Seals the factory password of every machine, all in one transaction; a serial that is known
    /// gets what the note says now.
    ///
    /// # Errors
    /// There is no key, or nothing was written, or nobody knows.
    pub async fn deliver(&self, lines: &[Delivered]) -> Result<(), StoreError> {
        let key = self.key()?;
        let mut rows = Vec::with_capacity(lines.len());
        let mut kept = Vec::with_capacity(lines.len());
        for line in lines {
            let name = factory(&line.serial);
            let sealed = seal(key, &name, &line.user, &line.password).ok_or_else(|| {
                StoreError::Unusable(format!("the secret `{name}` could not be sealed"))
            })?;
            rows.push(json!({
                "serial": line.serial, "bmc_mac": line.bmc_mac, "rack": line.rack,
                "position": line.position, "name": name, "user": line.user,
                "sealed": hex::encode(&sealed),
            }));
            kept.push((name, (line.user.clone(), sealed)));
        }
        let json = serde_json::Value::from(rows).to_string();
        let set_ms = wall_ms();
        self.store().order(|reply| Order::Deliver { json, set_ms, reply }).await?;
        self.remember(kept);
        Ok(())
    }
}
