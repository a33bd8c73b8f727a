//! Facts beside the row, kept by part: a report that did not ask for a part leaves what was kept
//! of it, and a part that could not be read this time does too.

use super::commit::element;
use super::error::reading;
use super::{int, uint};
use crate::model::{EngineTime, MachineId, Read, Report};
use crate::port::store::StoreError;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::SqlitePool;

/// Elements of the facts' array for a report: one for each part that was asked.
pub(super) fn elements(
    out: &mut String,
    machine: MachineId,
    report: &Report,
) -> Result<(), serde_json::Error> {
    let mut part = Parts { out, machine, at: int(report.at.0) };
    part.add("system", &report.system)?;
    part.add("inventory", &report.inventory)?;
    part.add("firmware", &report.firmware)?;
    part.add("tasks", &report.tasks)?;
    part.add("host", &report.host)?;
    part.add("job", &report.job)?;
    part.add("cluster", &report.cluster)?;
    part.add("boot", &report.boot)?;
    part.add("media", &report.media)?;
    part.add("bios", &report.bios)?;
    part.add("secure-boot", &report.secure_boot)?;
    part.add("storage", &report.storage)
}

struct Parts<'a> {
    out: &'a mut String,
    machine: MachineId,
    at: i64,
}

impl Parts<'_> {
    fn add<T: Serialize>(&mut self, name: &str, read: &Read<T>) -> Result<(), serde_json::Error> {
        match read {
            Read::NotAsked => Ok(()),
            Read::Seen(t) => element(self.out, &(self.machine.0, name, self.at, 1, t)),
            Read::Failed(fault) => element(self.out, &(self.machine.0, name, self.at, 0, fault)),
        }
    }
}

/// What is kept of a machine, as one report; its `at` is that of the youngest part.
pub(super) async fn load(
    pool: &SqlitePool,
    machine: MachineId,
) -> Result<Option<Report>, StoreError> {
    let rows: Vec<(String, i64, i64, String)> =
        sqlx::query_as("SELECT part, at, seen, json FROM facts WHERE machine = ?")
            .bind(i64::from(machine.0))
            .fetch_all(pool)
            .await
            .map_err(reading)?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut report = Report::default();
    for (part, at, seen, json) in rows {
        report.at = report.at.max(EngineTime(uint(at)));
        let seen = seen != 0;
        match part.as_str() {
            "system" => report.system = kept(machine, &part, seen, &json),
            "inventory" => report.inventory = kept(machine, &part, seen, &json),
            "firmware" => report.firmware = kept(machine, &part, seen, &json),
            "tasks" => report.tasks = kept(machine, &part, seen, &json),
            "host" => report.host = kept(machine, &part, seen, &json),
            "job" => report.job = kept(machine, &part, seen, &json),
            "cluster" => report.cluster = kept(machine, &part, seen, &json),
            "boot" => report.boot = kept(machine, &part, seen, &json),
            "media" => report.media = kept(machine, &part, seen, &json),
            "bios" => report.bios = kept(machine, &part, seen, &json),
            "secure-boot" => report.secure_boot = kept(machine, &part, seen, &json),
            "storage" => report.storage = kept(machine, &part, seen, &json),
            // Of another version; the next probe reads it again.
            _ => {}
        }
    }
    Ok(Some(report))
}

/// Facts are read again all the time, so a part that no longer parses is one that is not known.
fn kept<T: DeserializeOwned>(machine: MachineId, part: &str, seen: bool, json: &str) -> Read<T> {
    let read = match seen {
        true => serde_json::from_str(json).map(Read::Seen),
        false => serde_json::from_str(json).map(Read::Failed),
    };
    read.unwrap_or_else(|e| {
        tracing::warn!(%machine, part, error = %e, "kept facts could not be read");
        Read::NotAsked
    })
}
