//! Reads of the journal, bounded.

use super::State;
use super::problem::Problem;
use crate::model::{Change, Entry, MachineId};
use crate::port::store::HistoryLine;

/// Lines that one read of the store asks for at most.
const READ: usize = 1000;
/// Lines that are read to put runs together or to find an idempotency key.
const SCAN: usize = 20_000;

/// At most `limit` lines after `after`.
pub(super) async fn page(
    state: &State,
    id: MachineId,
    after: u64,
    limit: usize,
) -> Result<Vec<HistoryLine>, Problem> {
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    state.store.history(id, after, limit).await.map_err(|e| Problem::unreadable(&e))
}

/// The last lines up to `seq`, oldest first, at most [`SCAN`].
pub(super) async fn tail(
    state: &State,
    id: MachineId,
    seq: u64,
) -> Result<Vec<HistoryLine>, Problem> {
    let mut after = seq.saturating_sub(SCAN as u64);
    let mut lines: Vec<HistoryLine> = Vec::new();
    while lines.len() < SCAN {
        let read = page(state, id, after, READ).await?;
        let Some(last) = read.last() else { break };
        after = last.seq;
        let full = read.len() == READ;
        lines.extend(read);
        if !full {
            break;
        }
    }
    Ok(lines)
}

/// The change that was made under `key`, with its seq.
pub(super) async fn by_key(
    state: &State,
    id: MachineId,
    seq: u64,
    key: &str,
) -> Result<Option<(u64, Change)>, Problem> {
    let lines = tail(state, id, seq).await?;
    Ok(lines.into_iter().rev().find_map(|line| match line.entry {
        Entry::Changed { change, key: used, .. } if used == key => Some((line.seq, change)),
        _ => None,
    }))
}

/// Milliseconds since 1970 as people and programs write them.
pub(super) fn rfc3339(wall_ms: u64) -> String {
    let ms = i64::try_from(wall_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| "unknown".into(), |t| format!("{t:.3}"))
}
