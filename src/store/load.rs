//! What the engine loads at its start: all rows, and the inventory's lines beside them.
//!
//! What costs with SQLite behind a thread is the hop between threads, and after that the parsing.
//! So a statement brings hundreds of machines as one text, and threads of their own parse it.

use super::error::reading;
use super::read::{machine, machine_id, parse};
use super::uint;
use crate::model::{Domain, EngineTime, Expected, Machine, MachineId};
use crate::port::store::{Loaded, SiteState, Stopped, StoreError};
use sqlx::{SqliteConnection, SqlitePool};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Machines that are read and parsed at a time.
const CHUNK: u16 = 512;
/// Threads that parse, at most.
const WORKERS: usize = 4;

/// Everything that is resident, as of one moment.
pub(super) async fn load(pool: &SqlitePool) -> Result<Loaded, StoreError> {
    let mut tx = pool.begin().await.map_err(reading)?;
    let conn = &mut *tx;
    let state = site_state(conn).await?;
    let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM machine")
        .fetch_one(&mut *conn)
        .await
        .map_err(reading)?;
    let count = usize::try_from(count).unwrap_or(0);
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get().min(WORKERS));
    let (senders, parsing): (Vec<_>, Vec<_>) = (0..workers)
        .map(|_| {
            let (send, chunks) = mpsc::channel(2);
            (send, tokio::task::spawn_blocking(move || Parsed::from(chunks, count)))
        })
        .unzip();
    let read = read_chunks(conn, &senders).await;
    drop(senders);
    let mut parsed = Vec::with_capacity(workers);
    for worker in parsing {
        let broke = |e| StoreError::Unusable(format!("loading the rows broke off: {e}"));
        parsed.push(worker.await.map_err(broke)??);
    }
    read?;
    let (machines, expected) = in_order(parsed, count);
    let workflows: Vec<(String, String)> = sqlx::query_as("SELECT hash, json FROM workflow")
        .fetch_all(&mut *conn)
        .await
        .map_err(reading)?;
    let workflows = workflows.into_iter().map(|(hash, json)| (hash.into(), json)).collect();
    Ok(Loaded { state, machines, expected: expected.into_iter().collect(), workflows })
}

/// A range of ids: rows, and the lines of the inventory. Each is an id, a space and JSON, one
/// after the other with [`BETWEEN`] between them.
#[derive(Debug)]
struct Chunk {
    rows: String,
    lines: String,
}

/// A control character (record separator) that no JSON has in it.
const BETWEEN: char = '\u{1e}';

/// Reads range after range and deals them out in turn.
async fn read_chunks(
    conn: &mut SqliteConnection,
    workers: &[mpsc::Sender<Chunk>],
) -> Result<(), StoreError> {
    let mut after = -1;
    for worker in workers.iter().cycle() {
        // The last id of this range; there is none for the last range.
        let (upto,): (Option<i64>,) = sqlx::query_as(
            "SELECT min(coalesce(m, e), coalesce(e, m)) FROM (SELECT
                 (SELECT id FROM machine WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2 - 1) AS m,
                 (SELECT id FROM expected WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2 - 1) AS e)",
        )
        .bind(after)
        .bind(i64::from(CHUNK))
        .fetch_one(&mut *conn)
        .await
        .map_err(reading)?;
        let (rows, lines): (Option<String>, Option<String>) = sqlx::query_as(
            "SELECT (SELECT group_concat(id || ' ' || json, char(30)) FROM
                     (SELECT id, json FROM machine WHERE id > ?1 AND id <= ?2 ORDER BY id)),
                    (SELECT group_concat(id || ' ' || json, char(30)) FROM
                     (SELECT id, json FROM expected WHERE id > ?1 AND id <= ?2 ORDER BY id))",
        )
        .bind(after)
        .bind(upto.unwrap_or(i64::MAX))
        .fetch_one(&mut *conn)
        .await
        .map_err(reading)?;
        let chunk = Chunk { rows: rows.unwrap_or_default(), lines: lines.unwrap_or_default() };
        // A worker that is gone found damage and tells so itself.
        let gone = worker.send(chunk).await.is_err();
        match upto {
            Some(id) if !gone => after = id,
            _ => break,
        }
    }
    Ok(())
}

/// What one thread made of its chunks, and how many rows and lines each of them had.
#[derive(Debug)]
struct Parsed {
    machines: Vec<Machine>,
    expected: Vec<(MachineId, Arc<Expected>)>,
    sizes: Vec<(usize, usize)>,
}

impl Parsed {
    /// `count`: room is taken for that many machines at once. Growing would leave holes, and room
    /// that is never written to costs nothing.
    fn from(mut chunks: mpsc::Receiver<Chunk>, count: usize) -> Result<Self, StoreError> {
        let mut words = Words::default();
        let mut all = Self {
            machines: Vec::with_capacity(count),
            expected: Vec::with_capacity(count),
            sizes: Vec::new(),
        };
        while let Some(chunk) = chunks.blocking_recv() {
            let (row, line) = (all.machines.len(), all.expected.len());
            all.take(&chunk, &mut words)?;
            all.sizes.push((all.machines.len() - row, all.expected.len() - line));
        }
        Ok(all)
    }

    fn take(&mut self, chunk: &Chunk, words: &mut Words) -> Result<(), StoreError> {
        let first = self.machines.len();
        for (id, json) in numbered(&chunk.rows) {
            let mut row = machine(id, json)?;
            words.share_machine(&mut row);
            self.machines.push(row);
        }
        let rows = self.machines.get_mut(first..).unwrap_or_default();
        for (id, json) in numbered(&chunk.lines) {
            let mut line: Expected =
                parse(json, || format!("the inventory's line of machine {id}"))?;
            words.share_expected(&mut line);
            let id = machine_id(id);
            if let Ok(at) = rows.binary_search_by_key(&id, |m| m.id)
                && let Some(row) = rows.get_mut(at)
            {
                share_both(row, &mut line);
            }
            self.expected.push((id, Arc::new(line)));
        }
        Ok(())
    }
}

/// The records of a [`Chunk`]'s text.
fn numbered(text: &str) -> impl Iterator<Item = (i64, &str)> {
    text.split(BETWEEN).filter_map(|record| {
        let (id, json) = record.split_once(' ')?;
        Some((id.parse().ok()?, json))
    })
}

type Rows = (Vec<Machine>, Vec<(MachineId, Arc<Expected>)>);

/// Chunks were dealt out in turn and are gathered so: everything by id again.
fn in_order(parsed: Vec<Parsed>, count: usize) -> Rows {
    let mut machines = Vec::with_capacity(count);
    let mut expected = Vec::with_capacity(count);
    let mut hands: Vec<_> = parsed
        .into_iter()
        .map(|p| (p.machines.into_iter(), p.expected.into_iter(), p.sizes.into_iter()))
        .collect();
    let mut more = true;
    while more {
        more = false;
        for (rows, lines, sizes) in &mut hands {
            if let Some((r, l)) = sizes.next() {
                machines.extend(rows.by_ref().take(r));
                expected.extend(lines.by_ref().take(l));
                more = true;
            }
        }
    }
    (machines, expected)
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
        bmc.controllers.change(|c| {
            for word in [&mut c.name, &mut c.credential, &mut c.tls] {
                self.share(word);
            }
        });
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
