//! What the engine loads at its start, and a machine's history.

use super::error::{damaged, reading};
use super::{int, uint};
use crate::model::journal::ENTRY_VERSION;
use crate::model::{Domain, EngineTime, Entry, Expected, Machine, MachineId};
use crate::port::store::{HistoryLine, Loaded, SiteState, Stopped, StoreError};
use futures_util::TryStreamExt;
use sqlx::{SqliteConnection, SqlitePool};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Everything that is resident, as of one moment.
pub(super) async fn load(pool: &SqlitePool) -> Result<Loaded, StoreError> {
    let mut tx = pool.begin().await.map_err(reading)?;
    let conn = &mut *tx;
    let state = site_state(conn).await?;
    let mut words = Words::default();
    // Growing would leave holes of its size.
    let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM machine")
        .fetch_one(&mut *conn)
        .await
        .map_err(reading)?;
    let mut machines: Vec<Machine> = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
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
    let mut expected = Vec::with_capacity(machines.len());
    {
        let mut rows =
            sqlx::query_as::<_, (i64, String)>("SELECT id, json FROM expected ORDER BY id")
                .fetch(&mut *conn);
        while let Some((id, json)) = rows.try_next().await.map_err(reading)? {
            let mut line: Expected =
                parse(&json, || format!("the inventory's line of machine {id}"))?;
            words.share_expected(&mut line);
            let id = machine_id(id);
            if let Ok(at) = machines.binary_search_by_key(&id, |m| m.id)
                && let Some(row) = machines.get_mut(at)
            {
                share_both(row, &mut line);
            }
            expected.push((id, Arc::new(line)));
        }
    }
    let expected = expected.into_iter().collect();
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
struct Words {
    words: BTreeSet<Arc<str>>,
    domains: BTreeSet<Arc<[Domain]>>,
}

impl Words {
    fn share(&mut self, word: &mut Arc<str>) {
        match self.words.get(&**word) {
            Some(known) => *word = known.clone(),
            None => {
                self.words.insert(word.clone());
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
        if let Some(deployed) = &mut m.deployed {
            self.share(&mut deployed.image);
        }
    }

    fn share_expected(&mut self, e: &mut Expected) {
        let (bmc, host) = (&mut e.bmc, &mut e.host);
        for word in [
            &mut e.rack,
            &mut e.pool,
            &mut e.profile,
            &mut bmc.credential,
            &mut bmc.tls,
            &mut host.user,
        ] {
            self.share(word);
        }
        if let Some(known) = self.domains.get(&*e.domains) {
            e.domains = known.clone();
            return;
        }
        for domain in Arc::make_mut(&mut e.domains) {
            self.share(&mut domain.name);
        }
        self.domains.insert(e.domains.clone());
    }
}

/// What a machine's row and its line of the inventory say alike is kept once.
fn share_both(row: &mut Machine, line: &mut Expected) {
    if line.name == row.name {
        line.name = row.name.clone();
    }
    if line.identity == row.identity {
        line.identity = row.identity.clone();
    }
}
