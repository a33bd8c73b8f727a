//! What the engine loads at its start, and a machine's history.

use super::error::{damaged, reading};
use super::{int, uint};
use crate::model::journal::ENTRY_VERSION;
use crate::model::{EngineTime, Entry, Expected, Machine, MachineId};
use crate::port::store::{HistoryLine, Loaded, SiteState, Stopped, StoreError};
use futures_util::TryStreamExt;
use sqlx::{SqliteConnection, SqlitePool};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Everything that is resident, as of one moment.
pub(super) async fn load(pool: &SqlitePool) -> Result<Loaded, StoreError> {
    let mut tx = pool.begin().await.map_err(reading)?;
    let conn = &mut *tx;
    let state = site_state(conn).await?;
    let mut words = Words::default();
    let mut machines = Vec::new();
    {
        let mut rows =
            sqlx::query_as::<_, (i64, String)>("SELECT id, json FROM machine ORDER BY id")
                .fetch(&mut *conn);
        while let Some((id, json)) = rows.try_next().await.map_err(reading)? {
            let mut machine = machine(id, &json)?;
            words.share_machine(&mut machine);
            machines.push(machine);
        }
    }
    let mut expected = BTreeMap::new();
    {
        let mut rows =
            sqlx::query_as::<_, (i64, String)>("SELECT id, json FROM expected ORDER BY id")
                .fetch(&mut *conn);
        while let Some((id, json)) = rows.try_next().await.map_err(reading)? {
            let mut line: Expected =
                parse(&json, || format!("the inventory's line of machine {id}"))?;
            words.share_expected(&mut line);
            expected.insert(machine_id(id), Arc::new(line));
        }
    }
    let workflows: Vec<(String, String)> = sqlx::query_as("SELECT hash, json FROM workflow")
        .fetch_all(&mut *conn)
        .await
        .map_err(reading)?;
    let workflows = workflows.into_iter().map(|(hash, json)| (hash.into(), json)).collect();
    Ok(Loaded { state, machines, expected, workflows })
}

async fn site_state(conn: &mut SqliteConnection) -> Result<SiteState, StoreError> {
    let (incarnation, engine_time, wall_ms, stopped, resumed_at): (
        String,
        i64,
        i64,
        Option<String>,
        i64,
    ) = sqlx::query_as(
        "SELECT incarnation, engine_time, wall_ms, stopped, resumed_at FROM site_state",
    )
    .fetch_one(conn)
    .await
    .map_err(reading)?;
    let stopped =
        stopped.map(|json| parse::<Stopped>(&json, || "the site's stop".into())).transpose()?;
    Ok(SiteState {
        incarnation: incarnation.into(),
        engine_time: EngineTime(uint(engine_time)),
        wall_ms: uint(wall_ms),
        stopped,
        resumed_at: EngineTime(uint(resumed_at)),
    })
}

pub(super) fn machine_id(id: i64) -> MachineId {
    MachineId(u32::try_from(id).unwrap_or(u32::MAX))
}

pub(super) fn machine(id: i64, json: &str) -> Result<Machine, StoreError> {
    parse(json, || format!("the row of machine {id}"))
}

fn parse<T: serde::de::DeserializeOwned>(
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

/// Words that many machines have in common (racks, profiles, workflow hashes) are kept once.
#[derive(Default)]
struct Words(BTreeSet<Arc<str>>);

impl Words {
    fn share(&mut self, word: &mut Arc<str>) {
        match self.0.get(&**word) {
            Some(known) => *word = known.clone(),
            None => {
                self.0.insert(word.clone());
            }
        }
    }

    fn share_machine(&mut self, m: &mut Machine) {
        if let Some(run) = &mut m.run {
            self.share(&mut run.workflow);
            self.share(&mut run.reason);
        }
        if let Some(step) = &mut m.step {
            self.share(&mut step.key);
        }
        // The same name stands in the inventory's line.
        self.share(&mut m.name);
    }

    fn share_expected(&mut self, e: &mut Expected) {
        for word in [&mut e.rack, &mut e.pool, &mut e.profile, &mut e.name] {
            self.share(word);
        }
        for domain in &mut e.domains {
            self.share(&mut domain.name);
        }
        e.domains.shrink_to_fit();
    }
}
