//! The outbox: lines come with the commits that cause them and go when there are too many.

use super::error::reading;
use super::writer::Order;
use super::{SqliteStore, int, uint};
use crate::model::{EngineTime, MachineId};
use crate::port::outbox::{Outbox, OutboxLine, Told};
use crate::port::store::StoreError;
use async_trait::async_trait;
use serde_json::{Map, Value};
use sqlx::SqliteConnection;
use tokio::sync::watch;

/// Lines that are kept: with a hook that is dead for weeks the table stays small, and that hook
/// misses the oldest.
pub(super) const KEPT: u64 = 10_000;

/// ?1 wall clock, ?2 array of [event, body]. Then the oldest go; ?3: how many stay.
const ADD: &str = "
INSERT INTO outbox (incarnation, event, wall_ms, json)
SELECT s.incarnation, v ->> 0, ?, v -> 1
FROM (SELECT key AS k, value AS v FROM json_each(?) LIMIT -1), site_state s ORDER BY k;
DELETE FROM outbox WHERE number <= (SELECT max(number) FROM outbox) - ?";

/// Adds lines inside the caller's transaction. `told`: JSON array of [event, body].
pub(super) async fn add(
    conn: &mut SqliteConnection,
    told: String,
    wall_ms: u64,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(ADD).bind(int(wall_ms)).bind(told).bind(int(KEPT));
    query.execute(conn).await.map(drop)
}

/// `[event, body]` as an element of that array.
pub(super) fn element(out: &mut String, told: &Told) -> Result<(), serde_json::Error> {
    super::commit::element(out, &(told.kind.name(), &told.body))
}

/// One event as that array.
pub(super) fn array(told: &Told) -> Result<String, StoreError> {
    let mut one = String::new();
    element(&mut one, told).map_err(|e| super::error::encode(&e))?;
    Ok(format!("[{one}]"))
}

/// Adds an event that no entry causes, once; `false`: it was told before. Inside a transaction.
pub(super) async fn tell(
    conn: &mut SqliteConnection,
    event: &str,
    machine: MachineId,
    since: EngineTime,
    told: String,
    wall_ms: u64,
) -> Result<bool, sqlx::Error> {
    let fresh = sqlx::query(
        "INSERT INTO told (event, machine, since) VALUES (?, ?, ?)
         ON CONFLICT (event, machine) DO UPDATE SET since = excluded.since
         WHERE since <> excluded.since",
    )
    .bind(event.to_string())
    .bind(i64::from(machine.0))
    .bind(int(since.0))
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if fresh > 0 {
        add(conn, told, wall_ms).await?;
    }
    Ok(fresh > 0)
}

#[async_trait]
impl Outbox for SqliteStore {
    async fn stand(&self, hook: &str) -> Result<u64, StoreError> {
        let hook = hook.to_string();
        self.order(|reply| Order::HookStand { hook, reply }).await
    }

    async fn after(&self, number: u64, limit: u32) -> Result<Vec<OutboxLine>, StoreError> {
        let rows: Vec<(i64, String, String, i64, String)> = sqlx::query_as(
            "SELECT number, incarnation, event, wall_ms, json FROM outbox WHERE number > ?
             ORDER BY number LIMIT ?",
        )
        .bind(int(number))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(reading)?;
        let line = |(number, incarnation, event, wall_ms, json): (i64, String, _, _, String)| {
            let body = match serde_json::from_str(&json) {
                Ok(Value::Object(body)) => body,
                _ => Map::new(),
            };
            let id = format!("{incarnation}-{number}");
            OutboxLine { number: uint(number), id, event, wall_ms: uint(wall_ms), body }
        };
        Ok(rows.into_iter().map(line).collect())
    }

    async fn depth(&self, number: u64) -> Result<u64, StoreError> {
        let (n,): (i64,) = sqlx::query_as("SELECT count(*) FROM outbox WHERE number > ?")
            .bind(int(number))
            .fetch_one(&self.readers)
            .await
            .map_err(reading)?;
        Ok(uint(n))
    }

    async fn delivered(&self, hook: &str, number: u64) -> Result<(), StoreError> {
        let hook = hook.to_string();
        self.order(|reply| Order::HookDelivered { hook, number, reply }).await
    }

    async fn tell(
        &self,
        machine: MachineId,
        since: EngineTime,
        told: Told,
        wall_ms: u64,
    ) -> Result<(), StoreError> {
        let event = told.kind.name();
        let told = array(&told)?;
        self.order(|reply| Order::Tell { event, machine, since, told, wall_ms, reply }).await
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}
