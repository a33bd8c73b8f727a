//! What must hold in a database. Works beside a running daemon: it reads one
//! consistent moment and writes nothing.

use super::audit::{self, Watch};
use super::commit::columns;
use super::error::reading;
use super::key::Key;
use super::open::inspect;
use super::read::{entry, machine, machine_id};
use super::secrets::open_all;
use super::uint;
use crate::model::{Control, EngineTime, Entry, Limit, Machine, fold};
use crate::port::Secret;
use crate::port::store::StoreError;
use futures_util::TryStreamExt;
use sqlx::{Connection, SqliteConnection};
use std::path::Path;

/// What was looked at and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    pub machines: u64,
    pub entries: u64,
    pub open_actions: u64,
    /// One readable line each; empty: all is well. Only the first [`MAX_FINDINGS`] are kept.
    pub findings: Vec<String>,
    /// All of them.
    pub found: u64,
    /// What a person may want to know and what is no damage.
    pub notes: Vec<String>,
}

/// What `fsck` is told besides the file. Nothing by default: what needs it is not looked at.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Limits in force, to count who holds how much now.
    pub limits: Vec<Limit>,
    /// Values that must stand nowhere in the clear, each with its name.
    pub secrets: Vec<(String, Secret)>,
    /// Opens the table of sealed secrets, to look for those as well.
    pub key: Option<Key>,
}

pub const MAX_FINDINGS: usize = 1000;

impl FsckReport {
    pub fn is_clean(&self) -> bool {
        self.found == 0
    }

    pub(super) fn find(&mut self, what: String) {
        self.found += 1;
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(what);
        }
    }
}

/// Checks the database at `path`. `Err`: it could not be looked at at all.
pub async fn fsck(path: &Path) -> Result<FsckReport, StoreError> {
    fsck_with(path, &Known::default()).await
}

/// The same, with what is known besides.
pub async fn fsck_with(path: &Path, known: &Known) -> Result<FsckReport, StoreError> {
    let mut conn = inspect(path).await?;
    let mut report = FsckReport::default();
    let looked = look(&mut conn, known, &mut report).await;
    conn.close().await.ok();
    match looked {
        Ok(()) => Ok(report),
        // Damage can end the reading; what was found until then counts.
        Err(e) => {
            report.find(format!("reading stopped: {e}"));
            Ok(report)
        }
    }
}

async fn look(
    conn: &mut SqliteConnection,
    known: &Known,
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    let mut tx = conn.begin().await.map_err(reading)?;
    file(&mut tx, report).await?;
    sequence(&mut tx, report).await?;
    orphans(&mut tx, report).await?;
    audit::owners(&mut tx, report).await?;
    audit::stopped(&mut tx, report).await?;
    let mut secrets = known.secrets.clone();
    if let Some(key) = &known.key {
        secrets.append(&mut open_all(&mut tx, key).await?);
    }
    audit::secrets(&mut tx, &secrets, report).await?;
    audit::limits(&mut tx, &known.limits, report).await?;
    fold_all(&mut tx, report).await
}

async fn file(conn: &mut SqliteConnection, report: &mut FsckReport) -> Result<(), StoreError> {
    let lines: Vec<(String,)> =
        sqlx::query_as("PRAGMA integrity_check").fetch_all(&mut *conn).await.map_err(reading)?;
    for (line,) in lines.iter().filter(|(l,)| l != "ok") {
        report.find(format!("file: {line}"));
    }
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT \"table\", count(*) FROM pragma_foreign_key_check GROUP BY \"table\"",
    )
    .fetch_all(conn)
    .await
    .map_err(reading)?;
    for (table, n) in rows {
        report.find(format!("{table}: {n} rows refer to a machine that is not there"));
    }
    Ok(())
}

/// `seq` has no gaps, the shard knows its last one, and the clock is not behind what happened.
async fn sequence(conn: &mut SqliteConnection, report: &mut FsckReport) -> Result<(), StoreError> {
    let rows: Vec<(i64, Option<i64>, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT j.shard, s.seq, min(j.seq), max(j.seq), count(*), max(j.epoch) - coalesce(s.epoch, 0)
         FROM journal j LEFT JOIN shard s ON s.id = j.shard GROUP BY j.shard",
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(reading)?;
    for (shard, known, first, last, n, ahead) in rows {
        if first != 1 || last != n {
            report.find(format!(
                "journal: shard {shard} has {n} entries numbered {first} to {last}: some are missing"
            ));
        }
        if known != Some(last) {
            let known = known.map_or("nothing".into(), |k| k.to_string());
            report.find(format!("journal: shard {shard} ends at {last}, its counter says {known}"));
        }
        if ahead > 0 {
            report.find(format!("journal: shard {shard} has entries of an epoch to come"));
        }
    }
    let behind: Option<(i64, i64)> = sqlx::query_as(
        "SELECT engine_time, last FROM site_state, (SELECT max(at) AS last FROM journal)
         WHERE last > engine_time",
    )
    .fetch_optional(conn)
    .await
    .map_err(reading)?;
    if let Some((clock, last)) = behind {
        report.find(format!("site: engine time {clock} is behind the journal's last entry {last}"));
    }
    Ok(())
}

/// Rows that belong to nothing.
const ORPHANS: &[(&str, &str)] = &[
    (
        "journal: entries of machines that have no row",
        "SELECT machine FROM journal WHERE machine NOT IN (SELECT id FROM machine) GROUP BY machine",
    ),
    (
        "machine: rows that no inventory ever named",
        "SELECT id FROM machine WHERE id NOT IN (SELECT id FROM expected)",
    ),
    (
        "machine: rows without a journal",
        "SELECT id FROM machine WHERE id NOT IN (SELECT machine FROM journal)",
    ),
    (
        "machine: runs pinned to a workflow that was not kept",
        "SELECT id FROM machine WHERE run IS NOT NULL
         AND json -> 'run' ->> 'workflow' NOT IN (SELECT hash FROM workflow)",
    ),
    (
        "change_key: keys of changes that are not in the journal",
        "SELECT machine FROM change_key k WHERE NOT EXISTS (SELECT 1 FROM journal j
         WHERE j.machine = k.machine AND j.entry = 'changed' AND j.json ->> 'key' = k.key)",
    ),
    (
        "journal: changes whose key was not kept",
        "SELECT machine FROM journal j WHERE entry = 'changed' AND NOT EXISTS
         (SELECT 1 FROM change_key k WHERE k.machine = j.machine AND k.key = j.json ->> 'key')",
    ),
];

async fn orphans(conn: &mut SqliteConnection, report: &mut FsckReport) -> Result<(), StoreError> {
    for (what, sql) in ORPHANS {
        let rows: Vec<(i64,)> =
            sqlx::query_as(*sql).fetch_all(&mut *conn).await.map_err(reading)?;
        if rows.is_empty() {
            continue;
        }
        let few: Vec<String> = rows.iter().take(5).map(|(id,)| format!("m{id}")).collect();
        let more = if rows.len() > few.len() { ", …" } else { "" };
        report.find(format!("{what}: {} ({}{more})", rows.len(), few.join(", ")));
    }
    Ok(())
}

/// Folds every journal, one machine in memory at a time, and compares with its row.
async fn fold_all(conn: &mut SqliteConnection, report: &mut FsckReport) -> Result<(), StoreError> {
    let rows: Vec<(i64, String)> = sqlx::query_as("SELECT id, json FROM machine ORDER BY id")
        .fetch_all(&mut *conn)
        .await
        .map_err(reading)?;
    for (id, json) in rows {
        report.machines += 1;
        let row = match machine(id, &json) {
            Ok(row) => row,
            Err(e) => {
                report.find(format!("m{id}: {e}"));
                continue;
            }
        };
        if row.id != machine_id(id) {
            report.find(format!("m{id}: the row says it is {}", row.id));
        }
        let stored: super::commit::Columns = sqlx::query_as(
            "SELECT name, seq, control, desired, stage, condition, held, run FROM machine
             WHERE id = ?",
        )
        .bind(id)
        .fetch_one(&mut *conn)
        .await
        .map_err(reading)?;
        if stored != columns(&row) {
            report.find(format!("{}: the row's columns differ from its JSON", row.name));
        }
        if let Some(folded) = fold_one(conn, &row, report).await?
            && folded != row
        {
            report.find(format!("{}: {}", row.name, difference(&folded, &row)));
        }
        open_action(&row, report);
    }
    Ok(())
}

async fn fold_one(
    conn: &mut SqliteConnection,
    row: &Machine,
    report: &mut FsckReport,
) -> Result<Option<Machine>, StoreError> {
    let mut m = Machine::blank(row.id);
    let mut lines = sqlx::query_as::<_, (i64, i64, i64, String, String, Option<i64>)>(
        "SELECT machine_seq, at, version, entry, json, run FROM journal WHERE machine = ?
         ORDER BY machine_seq",
    )
    .bind(i64::from(row.id.0))
    .fetch(conn);
    let mut intent = None;
    let mut watch = Watch::default();
    while let Some((seq, at, version, name, json, run)) = lines.try_next().await.map_err(reading)? {
        report.entries += 1;
        if uint(seq) != m.seq + 1 {
            report.find(format!("{}: entry {} is missing", row.name, m.seq + 1));
            return Ok(None);
        }
        let entry = match entry(version, &json) {
            Ok(entry) => entry,
            Err(why) => {
                report.find(format!("{}: entry {seq} {why}", row.name));
                return Ok(None);
            }
        };
        if entry.name() != name {
            report.find(format!(
                "{}: entry {seq} is `{}`, its column says `{name}`",
                row.name,
                entry.name()
            ));
        }
        watch.entry(&m, &entry, EngineTime(uint(at)), report);
        let before = m.run.as_ref().map(|r| r.id);
        if let Err(illegal) = fold::apply(&mut m, &entry, EngineTime(uint(at))) {
            report.find(format!("{}: {illegal}", row.name));
            return Ok(None);
        }
        // An entry that ends a run belongs to it; one that begins a run belongs to that one.
        if run.map(uint) != m.run.as_ref().map(|r| r.id).or(before) {
            report.find(format!("{}: entry {seq} stands under the wrong run", row.name));
        }
        if let Entry::Intent { action, .. } | Entry::Presumed { action, .. } = entry {
            intent = Some((uint(seq), action));
        }
    }
    if let Some(open) = &row.open
        && intent.as_ref().is_none_or(|(seq, action)| *seq != open.seq || *action != open.action)
    {
        report.find(format!(
            "{}: the open `{}` (entry {}) is not the journal's last intent",
            row.name,
            open.action.kind(),
            open.seq
        ));
    }
    Ok(Some(m))
}

fn open_action(row: &Machine, report: &mut FsckReport) {
    let Some(open) = &row.open else { return };
    report.open_actions += 1;
    let kind = open.action.kind();
    if row.control == Control::Unmanaged && kind.class().destructive {
        report.find(format!("{}: `{kind}` is open on an unmanaged machine", row.name));
    }
    if open.seq > row.seq {
        report.find(format!("{}: `{kind}` is open from an entry to come", row.name));
    }
}

/// Which fields of the row are not what the journal says.
fn difference(folded: &Machine, row: &Machine) -> String {
    let json = |m: &Machine| match serde_json::to_value(m) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let (folded, row) = (json(folded), json(row));
    let parts: Vec<String> = row
        .iter()
        .filter(|(key, value)| folded.get(*key) != Some(value))
        .map(|(key, value)| {
            let should = folded.get(key).unwrap_or(&serde_json::Value::Null);
            format!("`{key}` is {value}, the journal says {should}")
        })
        .collect();
    format!("the row is not what its journal folds to: {}", parts.join("; "))
}
