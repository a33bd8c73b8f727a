//! A batch as one transaction. Every table takes one statement, whatever the batch's size: what
//! costs with SQLite behind a thread is the hop between threads, not the rows.

use super::error::{self, During, classify};
use super::facts;
use super::{int, uint};
use crate::model::journal::ENTRY_VERSION;
use crate::model::{Change, EngineTime, Entry, Machine, MachineId};
use crate::port::store::{CommitItem, Committed, StoreError};
use serde::Serialize;
use sqlx::SqliteConnection;
use std::collections::{BTreeMap, BTreeSet};

/// An item as JSON pieces, ready to be joined with those of others.
#[derive(Debug)]
pub(super) struct Prepared {
    machine: MachineId,
    after_seq: u64,
    /// Idempotency keys of its changes.
    keys: Vec<String>,
    /// Elements of the journal's array, joined by commas, and how many.
    journal: String,
    entries: u64,
    row: String,
    /// Elements of the facts' array, joined by commas.
    facts: String,
    /// Elements of the outbox's array; nearly always empty.
    outbox: String,
}

impl Prepared {
    /// Will it add to the outbox?
    pub(super) fn tells(&self) -> bool {
        !self.outbox.is_empty()
    }
}

/// In a journal element's run field: the run that the row had before this commit.
const RUN_BEFORE: i64 = -1;

pub(super) fn prepare(item: &CommitItem) -> Result<Prepared, StoreError> {
    pieces(item).map_err(|e| error::encode(&e))
}

fn pieces(item: &CommitItem) -> Result<Prepared, serde_json::Error> {
    let mut keys = Vec::new();
    let mut journal = String::new();
    let mut run = run_before(item);
    for (seq, entry) in (item.after_seq + 1..).zip(&item.entries) {
        match entry {
            Entry::Changed { key, .. } => keys.push(key.clone()),
            Entry::RunBegan { .. } => run = Some(int(seq)),
            _ => {}
        }
        element(&mut journal, &(item.machine.0, seq, int(item.at.0), run, entry.name(), entry))?;
        if ends_run(entry) {
            run = None;
        }
    }
    let m = &item.row;
    let mut row = String::new();
    element(
        &mut row,
        &(
            m.id.0,
            &*m.name,
            m.seq,
            m.control.name(),
            m.desired.map(|d| d.name()),
            m.stage.name(),
            m.condition.name(),
            u8::from(m.hold.is_some()),
            m.run.as_ref().map(|r| r.id),
            m,
        ),
    )?;
    let mut facts = String::new();
    if let Some(report) = &item.facts {
        facts::elements(&mut facts, item.machine, report)?;
    }
    let mut outbox = String::new();
    for told in crate::port::outbox::of_item(item) {
        super::outbox::element(&mut outbox, &told)?;
    }
    let entries = item.entries.len() as u64;
    let (machine, after_seq) = (item.machine, item.after_seq);
    Ok(Prepared { machine, after_seq, keys, journal, entries, row, facts, outbox })
}

fn ends_run(entry: &Entry) -> bool {
    matches!(entry, Entry::RunEnded { .. } | Entry::Changed { change: Change::Repair { .. }, .. })
}

/// The run that the first entry belongs to, as far as the item tells.
fn run_before(item: &CommitItem) -> Option<i64> {
    let first = item.entries.iter().find(|e| ends_run(e) || matches!(e, Entry::RunBegan { .. }));
    match first {
        Some(Entry::RunBegan { .. }) => None,
        Some(_) => Some(RUN_BEFORE),
        None => item.row.run.as_ref().map(|r| int(r.id)),
    }
}

pub(super) fn element(out: &mut String, value: &impl Serialize) -> Result<(), serde_json::Error> {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(&serde_json::to_string(value)?);
    Ok(())
}

fn array<'a>(pieces: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::from("[");
    for piece in pieces.filter(|p| !p.is_empty()) {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(piece);
    }
    out.push(']');
    out
}

/// ?1 machines with the seq they should be at, ?2 machines with a key, ?3 our epoch. One row:
/// conflicts, repeats, the shard's last seq (null when the epoch is another's).
macro_rules! check_sql {
    () => {
        "SELECT (SELECT json_group_array(json_array(j.key, coalesce(m.seq, 0)))
                 FROM json_each(?1) j LEFT JOIN machine m ON m.id = j.value ->> 0
                 WHERE coalesce(m.seq, 0) <> j.value ->> 1),
                (SELECT json_group_array(json_array(k.value ->> 0, c.key))
                 FROM json_each(?2) k
                 JOIN change_key c ON c.machine = k.value ->> 1 AND c.key = k.value ->> 2),
                (SELECT seq FROM shard WHERE id = 0 AND epoch = ?3)"
    };
}
pub(super) const CHECK: &str = check_sql!();
const BEGIN_AND_CHECK: &str = concat!("BEGIN IMMEDIATE; ", check_sql!());

/// In order: last seq before, epoch, wall clock, entry version, journal; rows; facts; keys; last
/// seq after, epoch; engine time, wall clock. (Plain `?`: sqlx miscounts numbered parameters of a
/// later statement.) The inner `LIMIT -1` keeps SQLite from looking `value` up, and so copying it,
/// once for every column.
const WRITE: &str = "
INSERT INTO journal (shard, seq, machine, machine_seq, epoch, at, wall_ms, version, run, entry, json)
SELECT 0, ? + 1 + k, v ->> 0, v ->> 1, ?, v ->> 2, ?, ?,
       CASE v ->> 3 WHEN -1 THEN (SELECT run FROM machine WHERE id = v ->> 0) ELSE v ->> 3 END,
       v ->> 4, v ->> 5
FROM (SELECT key AS k, value AS v FROM json_each(?) LIMIT -1);
INSERT INTO machine (id, shard, name, seq, control, desired, stage, condition, held, run, json)
SELECT v ->> 0, 0, v ->> 1, v ->> 2, v ->> 3, v ->> 4, v ->> 5, v ->> 6, v ->> 7, v ->> 8, v ->> 9
FROM (SELECT value AS v FROM json_each(?) LIMIT -1) WHERE true
ON CONFLICT (id) DO UPDATE SET name = excluded.name, seq = excluded.seq,
    control = excluded.control, desired = excluded.desired, stage = excluded.stage,
    condition = excluded.condition, held = excluded.held, run = excluded.run,
    json = excluded.json;
INSERT INTO facts (machine, part, at, seen, json)
SELECT v ->> 0, v ->> 1, v ->> 2, v ->> 3, v ->> 4
FROM (SELECT value AS v FROM json_each(?) LIMIT -1) WHERE true
ON CONFLICT (machine, part) DO UPDATE SET at = excluded.at, seen = excluded.seen,
    json = excluded.json
    WHERE excluded.seen OR NOT seen;
INSERT INTO change_key (machine, key)
SELECT value ->> 1, value ->> 2 FROM json_each(?) WHERE true ON CONFLICT DO NOTHING;
UPDATE shard SET seq = ? WHERE id = 0 AND epoch = ?;
UPDATE site_state SET engine_time = max(engine_time, ?), wall_ms = ? WHERE id = 1";

/// Commits a batch. Every item gets its own answer; losers leave nothing behind.
pub(super) async fn commit(
    conn: &mut SqliteConnection,
    epoch: i64,
    items: &[Prepared],
    now: EngineTime,
    wall_ms: u64,
) -> Result<Vec<Committed>, StoreError> {
    let written = transaction(conn, epoch, items, now, wall_ms).await;
    match written {
        Ok(each) => match sqlx::query("COMMIT").execute(&mut *conn).await {
            Ok(_) => Ok(each),
            Err(e) => {
                roll_back(conn).await;
                Err(classify(&e, During::Commit))
            }
        },
        Err(e) => {
            roll_back(conn).await;
            Err(e)
        }
    }
}

/// An error may have ended the transaction already: then this says so, and that is fine.
pub(super) async fn roll_back(conn: &mut SqliteConnection) {
    sqlx::query("ROLLBACK").execute(&mut *conn).await.ok();
}

async fn transaction(
    conn: &mut SqliteConnection,
    epoch: i64,
    items: &[Prepared],
    now: EngineTime,
    wall_ms: u64,
) -> Result<Vec<Committed>, StoreError> {
    let mut each = Vec::with_capacity(items.len());
    let mut rest = items;
    let mut sql = BEGIN_AND_CHECK;
    while !rest.is_empty() {
        let (group, later) = rest.split_at(distinct(rest));
        rest = later;
        each.append(&mut write_group(conn, sql, epoch, group, now, wall_ms).await?);
        sql = CHECK;
    }
    Ok(each)
}

/// How many items from the first on are of different machines: a second one of a machine must
/// see what the first did.
fn distinct(items: &[Prepared]) -> usize {
    let mut seen = BTreeSet::new();
    items.iter().position(|i| !seen.insert(i.machine)).unwrap_or(items.len())
}

pub(super) async fn write_group(
    conn: &mut SqliteConnection,
    check: &'static str,
    epoch: i64,
    group: &[Prepared],
    now: EngineTime,
    wall_ms: u64,
) -> Result<Vec<Committed>, StoreError> {
    let failed = |e: sqlx::Error| classify(&e, During::Transaction);
    let (mut seqs, mut keys) = (String::new(), String::new());
    for (i, item) in group.iter().enumerate() {
        element(&mut seqs, &(item.machine.0, item.after_seq)).map_err(|e| error::encode(&e))?;
        for key in &item.keys {
            element(&mut keys, &(i, item.machine.0, key)).map_err(|e| error::encode(&e))?;
        }
    }
    let (conflicts, repeats, last): (String, String, Option<i64>) = sqlx::query_as(check)
        .bind(format!("[{seqs}]"))
        .bind(format!("[{keys}]"))
        .bind(epoch)
        .fetch_one(&mut *conn)
        .await
        .map_err(failed)?;
    let last = last.ok_or_else(|| {
        StoreError::Unusable("another process has taken over this database's shard".into())
    })?;
    let mut lost: BTreeMap<usize, Committed> = BTreeMap::new();
    let parse = |e: serde_json::Error| error::encode(&e);
    for (i, key) in serde_json::from_str::<Vec<(usize, String)>>(&repeats).map_err(parse)? {
        lost.insert(i, Committed::Repeated { key });
    }
    for (i, seq) in serde_json::from_str::<Vec<(usize, i64)>>(&conflicts).map_err(parse)? {
        lost.insert(i, Committed::Conflict { stored_seq: uint(seq) });
    }
    let won = || group.iter().enumerate().filter(|(i, _)| !lost.contains_key(i)).map(|(_, p)| p);
    let entries: u64 = won().map(|p| p.entries).sum();
    if won().next().is_some() {
        if !lost.is_empty() {
            keys.clear();
            for item in won() {
                for key in &item.keys {
                    element(&mut keys, &(0, item.machine.0, key)).map_err(parse)?;
                }
            }
        }
        sqlx::query(WRITE)
            .bind(last)
            .bind(epoch)
            .bind(int(wall_ms))
            .bind(i64::from(ENTRY_VERSION))
            .bind(array(won().map(|p| &*p.journal)))
            .bind(array(won().map(|p| &*p.row)))
            .bind(array(won().map(|p| &*p.facts)))
            .bind(format!("[{keys}]"))
            .bind(last.saturating_add(int(entries)))
            .bind(epoch)
            .bind(int(now.0))
            .bind(int(wall_ms))
            .execute(&mut *conn)
            .await
            .map_err(failed)?;
    }
    if won().any(Prepared::tells) {
        let told = array(won().map(|p| &*p.outbox));
        super::outbox::add(conn, told, wall_ms).await.map_err(failed)?;
    }
    Ok((0..group.len()).map(|i| lost.remove(&i).unwrap_or(Committed::Durable)).collect())
}

/// The columns beside a row's JSON, as `fsck` compares them.
pub(super) type Columns = (String, i64, String, Option<String>, String, String, i64, Option<i64>);

pub(super) fn columns(m: &Machine) -> Columns {
    (
        m.name.to_string(),
        int(m.seq),
        m.control.name().to_string(),
        m.desired.map(|d| d.name().to_string()),
        m.stage.name().to_string(),
        m.condition.name().to_string(),
        i64::from(m.hold.is_some()),
        m.run.as_ref().map(|r| int(r.id)),
    )
}
