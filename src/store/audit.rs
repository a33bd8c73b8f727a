//! What `fsck` checks beyond the fold: the engine's rules as far as a database can show them. The
//! simulator checks the same on what physically happened (`src/sim/invariants.rs`).

use super::error::reading;
use super::fsck::FsckReport;
use super::read::{machine, machine_id};
use crate::model::action::Redo;
use crate::model::{Action, Control, EngineTime, Entry, Expected, Limit, LimitClass, Machine};
use crate::port::Secret;
use crate::port::store::{Stopped, StoreError};
use futures_util::TryStreamExt;
use sqlx::SqliteConnection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Shorter ones stand in many words by chance.
const SECRET_MIN: usize = 6;

/// Reads along one machine's journal.
#[derive(Debug, Default)]
pub(super) struct Watch {
    last: EngineTime,
    /// Names that jobs were started under.
    jobs: BTreeSet<String>,
    /// Actions that may not be done twice and took hold, by what they were about, with the seq of
    /// their intent; until the step has ended or a probe takes them back.
    done: BTreeMap<String, u64>,
}

impl Watch {
    /// `m`: the row before `entry`.
    pub(super) fn entry(
        &mut self,
        m: &Machine,
        entry: &Entry,
        at: EngineTime,
        report: &mut FsckReport,
    ) {
        let (name, seq) = (&m.name, m.seq + 1);
        if at < self.last {
            let (at, last) = (at.0, self.last.0);
            report.find(format!("{name}: entry {seq} is of {at} ms, the one before of {last} ms"));
        }
        self.last = at;
        match entry {
            Entry::Intent { action, .. } => {
                let kind = action.kind();
                if m.control == Control::Unmanaged && kind.class().destructive {
                    report.find(format!(
                        "{name}: entry {seq} begins `{kind}` on an unmanaged machine"
                    ));
                }
                if let Action::StartJob { name: job, .. } = action
                    && !self.jobs.insert(job.clone())
                {
                    report.find(format!("{name}: entry {seq} starts the job `{job}` again"));
                }
                if kind.class().redo == Redo::Never
                    && let Some(first) = self.done.get(&key(action))
                {
                    report.find(format!(
                        "{name}: entry {seq} begins `{kind}` of {} again, entry {first} had taken \
                         hold",
                        action.about()
                    ));
                }
            }
            Entry::Closed { happened: true, .. } => {
                if let Some(open) = &m.open
                    && open.action.kind().class().redo == Redo::Never
                {
                    self.done.insert(key(&open.action), open.seq);
                }
            }
            Entry::Faulted { fault, .. }
            | Entry::Excused { fault, .. }
            | Entry::Quarantined { fault }
                if fault.takes_back() =>
            {
                self.done.clear();
            }
            Entry::StepEnded { .. } | Entry::Entered { .. } | Entry::RunEnded { .. } => {
                self.done.clear();
            }
            _ => {}
        }
    }
}

fn key(action: &Action) -> String {
    match action {
        Action::UpdateFirmware { component, to, .. } => format!("{component} {to}"),
        other => other.about(),
    }
}

/// Epochs only grow: an entry of an earlier owner behind one of a later is a second writer's.
pub(super) async fn owners(
    conn: &mut SqliteConnection,
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    let rows: Vec<(i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT shard, seq, epoch, before FROM (SELECT shard, seq, epoch,
         lag(epoch) OVER (PARTITION BY shard ORDER BY seq) AS before FROM journal)
         WHERE epoch < before LIMIT 5",
    )
    .fetch_all(conn)
    .await
    .map_err(reading)?;
    for (shard, seq, epoch, before) in rows {
        report.find(format!(
            "journal: entry {seq} of shard {shard} was written in epoch {epoch}, after epoch \
             {before} had begun: two daemons wrote this database"
        ));
    }
    Ok(())
}

/// While actions are stopped nothing begins.
pub(super) async fn stopped(
    conn: &mut SqliteConnection,
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    let row: Option<(Option<String>,)> = sqlx::query_as("SELECT stopped FROM site_state")
        .fetch_optional(&mut *conn)
        .await
        .map_err(reading)?;
    let Some((Some(json),)) = row else { return Ok(()) };
    let Ok(stopped) = serde_json::from_str::<Stopped>(&json) else {
        report.find("site: its stop can't be read".into());
        return Ok(());
    };
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT machine, machine_seq FROM journal WHERE entry = 'intent' AND at > ? LIMIT 5",
    )
    .bind(super::int(stopped.at.0))
    .fetch_all(conn)
    .await
    .map_err(reading)?;
    for (id, seq) in rows {
        report.find(format!(
            "{}: entry {seq} begins an action after the stop by {}",
            machine_id(id),
            stopped.by
        ));
    }
    Ok(())
}

/// Where text of machines and people stands.
const TEXTS: [(&str, &str); 7] = [
    ("journal", "SELECT 'entry ' || machine_seq || ' of m' || machine, json FROM journal"),
    ("machine", "SELECT 'm' || id, json FROM machine"),
    ("facts", "SELECT 'm' || machine || ' ' || part, json FROM facts"),
    ("expected", "SELECT 'm' || id, json FROM expected"),
    ("change_key", "SELECT 'm' || machine, key FROM change_key"),
    ("outbox", "SELECT 'line ' || number, json FROM outbox"),
    ("site_state", "SELECT 'the stop', coalesce(stopped, '') FROM site_state"),
];

/// No secret stands in the clear. Its name is told, never its value.
pub(super) async fn secrets(
    conn: &mut SqliteConnection,
    secrets: &[(String, Secret)],
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    // As they stand within JSON text.
    let mut wanted = Vec::new();
    for (name, secret) in secrets.iter().filter(|(_, s)| s.expose().len() >= SECRET_MIN) {
        if let Ok(json) = serde_json::to_string(secret.expose()) {
            wanted.push((name, json.trim_matches('"').to_string()));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    for (table, sql) in TEXTS {
        let mut rows = sqlx::query_as::<_, (String, String)>(sql).fetch(&mut *conn);
        while let Some((place, text)) = rows.try_next().await.map_err(reading)? {
            for (name, _) in wanted.iter().filter(|(_, value)| text.contains(value)) {
                report.find(format!("{table}: {place} holds the secret `{name}` in the clear"));
            }
        }
    }
    Ok(())
}

/// Who holds how much now. A limit that was lowered is exceeded until its holders have ended, so
/// this is a note.
pub(super) async fn limits(
    conn: &mut SqliteConnection,
    limits: &[Limit],
    report: &mut FsckReport,
) -> Result<(), StoreError> {
    if limits.is_empty() {
        return Ok(());
    }
    let mut held: BTreeMap<(LimitClass, Arc<str>, &str), u32> = BTreeMap::new();
    let mut rows = sqlx::query_as::<_, (i64, String, String)>(
        "SELECT m.id, m.json, e.json FROM machine m JOIN expected e ON e.id = m.id",
    )
    .fetch(conn);
    while let Some((id, row, line)) = rows.try_next().await.map_err(reading)? {
        // What can't be read is told by the fold.
        let (Ok(row), Ok(line)) = (machine(id, &row), serde_json::from_str::<Expected>(&line))
        else {
            continue;
        };
        for class in row.held_limits() {
            for domain in line.domains.iter() {
                *held.entry((class, domain.name.clone(), domain.kind.name())).or_default() += 1;
            }
        }
    }
    for limit in limits {
        let over = held.iter().filter(|((class, _, kind), n)| {
            *class == limit.class && *kind == limit.per.name() && **n > limit.max
        });
        for ((class, domain, kind), n) in over {
            report.notes.push(format!(
                "limit: {n} machines of {kind} `{domain}` hold {class}, the limit is {}; right if \
                 it was lowered while they were under way",
                limit.max
            ));
        }
    }
    Ok(())
}
