//! Values as they are stored, and a machine's history.

use super::error::{damaged, reading};
use super::{int, uint};
use crate::model::journal::ENTRY_VERSION;
use crate::model::{EngineTime, Entry, Machine, MachineId};
use crate::port::store::{HistoryLine, StoreError};
use sqlx::SqlitePool;

pub(super) fn machine_id(id: i64) -> MachineId {
    MachineId(u32::try_from(id).unwrap_or(u32::MAX))
}

pub(super) fn machine(id: i64, json: &str) -> Result<Machine, StoreError> {
    parse(json, || format!("the row of machine {id}"))
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(
    json: &str,
    what: impl FnOnce() -> String,
) -> Result<T, StoreError> {
    serde_json::from_str(json)
        .map_err(|e| StoreError::Unusable(damaged(&format!("{} can't be read: {e}", what()))))
}

/// An entry as it was written, in today's form. So far there is one version.
pub(super) fn entry(version: i64, json: &str) -> Result<Entry, String> {
    if version > i64::from(ENTRY_VERSION) || version < 1 {
        return Err(format!("is of version {version}, this Farrier knows {ENTRY_VERSION}"));
    }
    serde_json::from_str(json).map_err(|e| format!("can't be read: {e}"))
}

/// Journal lines of a machine after `after_seq`, oldest first.
pub(super) async fn history(
    pool: &SqlitePool,
    machine: MachineId,
    after_seq: u64,
    limit: u32,
) -> Result<Vec<HistoryLine>, StoreError> {
    let rows: Vec<(i64, i64, i64, i64, String)> = sqlx::query_as(
        "SELECT machine_seq, at, wall_ms, version, json FROM journal
         WHERE machine = ? AND machine_seq > ? ORDER BY machine_seq LIMIT ?",
    )
    .bind(i64::from(machine.0))
    .bind(int(after_seq))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
    .map_err(reading)?;
    rows.into_iter()
        .map(|(seq, at, wall_ms, version, json)| {
            let entry = entry(version, &json).map_err(|why| {
                StoreError::Unusable(damaged(&format!("entry {seq} of {machine} {why}")))
            })?;
            let (seq, at, wall_ms) = (uint(seq), EngineTime(uint(at)), uint(wall_ms));
            Ok(HistoryLine { seq, at, wall_ms, entry })
        })
        .collect()
}
