//! The one task that writes. It carries each order to its end, whoever still waits for it.

use super::commit::{self, Prepared, roll_back};
use super::error::{During, classify};
use super::lock::Lock;
use super::place::Place;
use super::{int, outbox, uint};
use crate::model::{EngineTime, MachineId};
use crate::port::store::{Committed, StoreError};
use sqlx::{Connection, SqliteConnection};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What can be written. Data only: see the module's invariant.
#[derive(Debug)]
pub(super) enum Order {
    Commit {
        items: Vec<Prepared>,
        now: EngineTime,
        wall_ms: u64,
        reply: Reply<Vec<Committed>>,
    },
    /// `json`: array of expected machines.
    Expect {
        json: String,
        reply: Reply<Vec<MachineId>>,
    },
    KeepWorkflow {
        hash: String,
        json: String,
        reply: Reply<()>,
    },
    SetStopped {
        stopped: Option<String>,
        /// The event that it makes, for the outbox.
        told: String,
        now: EngineTime,
        wall_ms: u64,
        reply: Reply<()>,
    },
    /// Where a webhook stands; one that is new is written down as standing at the end.
    HookStand {
        hook: String,
        reply: Reply<u64>,
    },
    HookDelivered {
        hook: String,
        number: u64,
        reply: Reply<()>,
    },
    /// An event that no entry causes; `told` as for the outbox.
    Tell {
        event: &'static str,
        machine: MachineId,
        since: EngineTime,
        told: String,
        wall_ms: u64,
        reply: Reply<()>,
    },
    /// Does nothing: its answer shows that the writer is at work.
    Ping {
        reply: Reply<()>,
    },
    SetSecret {
        name: String,
        user: String,
        sealed: Vec<u8>,
        set_ms: u64,
        reply: Reply<()>,
    },
    /// Answers whether there was one.
    RemoveSecret {
        name: String,
        reply: Reply<bool>,
    },
    /// `at`: the machine, and the name of its further controller or nothing.
    KeepSession {
        at: (i64, String),
        sealed: Vec<u8>,
        reply: Reply<()>,
    },
    ForgetSession {
        at: (i64, String),
        reply: Reply<()>,
    },
    KeepRotation {
        machine: String,
        json: String,
        reply: Reply<()>,
    },
    /// `json`: array of pins.
    SetPins {
        json: String,
        reply: Reply<()>,
    },
    /// `json`: array of delivered machines, each with its sealed password.
    Deliver {
        json: String,
        set_ms: u64,
        reply: Reply<()>,
    },
    /// Answers with the lock: it is to be kept until the readers have ended too.
    Close {
        reply: oneshot::Sender<Lock>,
    },
}

impl Order {
    /// Answers that it was not carried out.
    fn refuse(self, why: StoreError) {
        match self {
            Order::Commit { reply, .. } => drop(reply.send(Err(why))),
            Order::Expect { reply, .. } => drop(reply.send(Err(why))),
            Order::KeepWorkflow { reply, .. }
            | Order::SetStopped { reply, .. }
            | Order::HookDelivered { reply, .. }
            | Order::Tell { reply, .. }
            | Order::Ping { reply }
            | Order::KeepSession { reply, .. }
            | Order::ForgetSession { reply, .. }
            | Order::KeepRotation { reply, .. }
            | Order::SetPins { reply, .. }
            | Order::Deliver { reply, .. }
            | Order::SetSecret { reply, .. } => drop(reply.send(Err(why))),
            Order::RemoveSecret { reply, .. } => drop(reply.send(Err(why))),
            Order::HookStand { reply, .. } => drop(reply.send(Err(why))),
            Order::Close { .. } => {}
        }
    }
}

/// How often a writer that has nothing to do looks whether its file is still there.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The writer's connection. Fields drop in order: the lock is the last.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) conn: SqliteConnection,
    pub(super) epoch: i64,
    pub(super) place: Place,
    pub(super) lock: Lock,
}

/// `news` changes when the outbox has a new line; `gone` hears why when the file is no longer there,
/// also while there is nothing to write.
pub(super) async fn run(
    mut writer: Writer,
    mut orders: mpsc::Receiver<Order>,
    news: Arc<watch::Sender<u64>>,
    gone: watch::Sender<Option<StoreError>>,
) {
    let mut closing = None;
    loop {
        let order = tokio::time::timeout(LOOK_EVERY, orders.recv()).await;
        let there = writer.place.check();
        if let Err(why) = &there {
            gone.send_replace(Some(why.clone()));
        }
        match (order, there) {
            (Ok(Some(Order::Close { reply })), _) => {
                closing = Some(reply);
                break;
            }
            (Ok(Some(order)), Ok(())) => writer.carry_out(order, &news).await,
            (Ok(Some(order)), Err(why)) => order.refuse(why),
            (Ok(None), _) => break,
            (Err(_), _) => {}
        }
    }
    let Writer { conn, lock, .. } = writer;
    if let Err(e) = conn.close().await {
        tracing::warn!(error = %e, "closing the database");
    }
    if let Some(reply) = closing {
        // Nobody waits for it: dropped here.
        drop(reply.send(lock));
    }
}

impl Writer {
    async fn carry_out(&mut self, order: Order, news: &watch::Sender<u64>) {
        let conn = &mut self.conn;
        // A caller that is gone needs no answer; what it asked for is done all the same.
        match order {
            Order::Commit { items, now, wall_ms, reply } => {
                let done = commit::commit(conn, self.epoch, &items, now, wall_ms).await;
                // Written into a file that went away meanwhile is not written.
                let done = done.and_then(|done| self.place.check().map(|()| done));
                let tells = done.is_ok() && items.iter().any(Prepared::tells);
                reply.send(done).ok();
                if tells {
                    news.send_modify(|n| *n += 1);
                }
            }
            Order::Expect { json, reply } => {
                reply.send(expect(conn, &json).await).ok();
            }
            Order::KeepWorkflow { hash, json, reply } => {
                let sql = "INSERT INTO workflow (hash, json) VALUES (?, ?) ON CONFLICT DO NOTHING";
                reply.send(once(conn, sqlx::query(sql).bind(hash).bind(json)).await.map(drop)).ok();
            }
            Order::SetStopped { stopped, told, now, wall_ms, reply } => {
                let done = stop(conn, stopped, told, now, wall_ms).await;
                if done.is_ok() {
                    news.send_modify(|n| *n += 1);
                }
                reply.send(done).ok();
            }
            Order::HookStand { hook, reply } => {
                let sql = "INSERT INTO webhook (name, delivered)
                           SELECT ?, coalesce(max(number), 0) FROM outbox WHERE true
                           ON CONFLICT (name) DO UPDATE SET delivered = delivered
                           RETURNING delivered";
                let stands = sqlx::query_as(sql).bind(hook).fetch_one(&mut *conn).await;
                let stands = stands.map(|(n,): (i64,)| uint(n));
                reply.send(stands.map_err(|e| classify(&e, During::Commit))).ok();
            }
            Order::HookDelivered { hook, number, reply } => {
                let sql = "UPDATE webhook SET delivered = max(delivered, ?) WHERE name = ?";
                let query = sqlx::query(sql).bind(int(number)).bind(hook);
                reply.send(once(conn, query).await.map(drop)).ok();
            }
            Order::Tell { event, machine, since, told, wall_ms, reply } => {
                let done = tell(conn, event, machine, since, told, wall_ms).await;
                if done.as_ref().is_ok_and(|fresh| *fresh) {
                    news.send_modify(|n| *n += 1);
                }
                reply.send(done.map(drop)).ok();
            }
            Order::Ping { reply } => {
                reply.send(Ok(())).ok();
            }
            Order::SetSecret { name, user, sealed, set_ms, reply } => {
                let sql = "INSERT INTO secret (name, user, sealed, set_ms) VALUES (?, ?, ?, ?)
                           ON CONFLICT (name) DO UPDATE SET user = excluded.user,
                           sealed = excluded.sealed, set_ms = excluded.set_ms";
                let query = sqlx::query(sql).bind(name).bind(user).bind(sealed).bind(int(set_ms));
                reply.send(once(conn, query).await.map(drop)).ok();
            }
            Order::RemoveSecret { name, reply } => {
                let query = sqlx::query("DELETE FROM secret WHERE name = ?").bind(name);
                reply.send(once(conn, query).await.map(|rows| rows > 0)).ok();
            }
            Order::KeepSession { at: (machine, controller), sealed, reply } => {
                let sql = "INSERT INTO bmc_session (machine, controller, sealed) VALUES (?, ?, ?)
                           ON CONFLICT (machine, controller) DO UPDATE SET sealed = excluded.sealed";
                let query = sqlx::query(sql).bind(machine).bind(controller).bind(sealed);
                reply.send(once(conn, query).await.map(drop)).ok();
            }
            Order::ForgetSession { at: (machine, controller), reply } => {
                let sql = "DELETE FROM bmc_session WHERE machine = ? AND controller = ?";
                let query = sqlx::query(sql).bind(machine).bind(controller);
                reply.send(once(conn, query).await.map(drop)).ok();
            }
            Order::KeepRotation { machine, json, reply } => {
                let sql = "INSERT INTO rotation (machine, json) VALUES (?, ?)
                           ON CONFLICT (machine) DO UPDATE SET json = excluded.json";
                let query = sqlx::query(sql).bind(machine).bind(json);
                reply.send(once(conn, query).await.map(drop)).ok();
            }
            Order::SetPins { json, reply } => {
                reply.send(once(conn, sqlx::query(SET_PINS).bind(json)).await.map(drop)).ok();
            }
            Order::Deliver { json, set_ms, reply } => {
                reply.send(deliver(conn, json, set_ms).await).ok();
            }
            Order::Close { .. } => {}
        }
    }
}

const SET_PINS: &str = "
    INSERT INTO pin (machine, sha256, subject, by_whom, why, set_ms)
    SELECT v ->> 'machine', v ->> 'sha256', v ->> 'subject', v ->> 'by', v ->> 'why',
           v ->> 'set_ms'
    FROM (SELECT value AS v FROM json_each(?) LIMIT -1) WHERE true
    ON CONFLICT (machine) DO UPDATE SET sha256 = excluded.sha256, subject = excluded.subject,
    by_whom = excluded.by_whom, why = excluded.why, set_ms = excluded.set_ms";

const SEAL_DELIVERED: &str = "
    INSERT INTO secret (name, user, sealed, set_ms)
    SELECT v ->> 'name', v ->> 'user', unhex(v ->> 'sealed'), ?2
    FROM (SELECT value AS v FROM json_each(?1) LIMIT -1) WHERE true
    ON CONFLICT (name) DO UPDATE SET user = excluded.user, sealed = excluded.sealed,
    set_ms = excluded.set_ms";

const NOTE_DELIVERED: &str = "
    INSERT INTO delivered (serial, bmc_mac, rack, position, set_ms)
    SELECT v ->> 'serial', v ->> 'bmc_mac', v ->> 'rack', v ->> 'position', ?2
    FROM (SELECT value AS v FROM json_each(?1) LIMIT -1) WHERE true
    ON CONFLICT (serial) DO UPDATE SET bmc_mac = excluded.bmc_mac, rack = excluded.rack,
    position = excluded.position, set_ms = excluded.set_ms";

async fn deliver(conn: &mut SqliteConnection, json: String, set_ms: u64) -> Result<(), StoreError> {
    begin(conn).await?;
    let written = async {
        for sql in [SEAL_DELIVERED, NOTE_DELIVERED] {
            sqlx::query(sql).bind(json.clone()).bind(int(set_ms)).execute(&mut *conn).await?;
        }
        Ok(())
    };
    match written.await {
        Ok(()) => finish(conn, ()).await,
        Err(e) => {
            roll_back(conn).await;
            Err(classify(&e, During::Transaction))
        }
    }
}

type Query = sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// One statement as a transaction of its own; returns the rows it changed.
async fn once(conn: &mut SqliteConnection, query: Query) -> Result<u64, StoreError> {
    begin(conn).await?;
    match query.execute(&mut *conn).await {
        Ok(done) => finish(conn, done.rows_affected()).await,
        Err(e) => {
            roll_back(conn).await;
            Err(classify(&e, During::Transaction))
        }
    }
}

async fn begin(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut *conn).await;
    begun.map(drop).map_err(|e| classify(&e, During::Transaction))
}

async fn finish<T>(conn: &mut SqliteConnection, value: T) -> Result<T, StoreError> {
    match sqlx::query("COMMIT").execute(&mut *conn).await {
        Ok(_) => Ok(value),
        Err(e) => {
            roll_back(conn).await;
            Err(classify(&e, During::Commit))
        }
    }
}

/// Stops or resumes. A resumption of what is not stopped is nobody's news.
async fn stop(
    conn: &mut SqliteConnection,
    stopped: Option<String>,
    told: String,
    now: EngineTime,
    wall_ms: u64,
) -> Result<(), StoreError> {
    begin(conn).await?;
    let written = async {
        let (before,): (bool,) = sqlx::query_as("SELECT stopped IS NOT NULL FROM site_state")
            .fetch_one(&mut *conn)
            .await?;
        let news = before || stopped.is_some();
        let sql = "UPDATE site_state SET stopped = ?1, engine_time = max(engine_time, ?2),
                   resumed_at = iif(?1 IS NULL, ?2, resumed_at) WHERE id = 1";
        sqlx::query(sql).bind(stopped).bind(int(now.0)).execute(&mut *conn).await?;
        if news {
            outbox::add(conn, told, wall_ms).await?;
        }
        Ok(())
    };
    match written.await {
        Ok(()) => finish(conn, ()).await,
        Err(e) => {
            roll_back(conn).await;
            Err(classify(&e, During::Transaction))
        }
    }
}

async fn tell(
    conn: &mut SqliteConnection,
    event: &str,
    machine: MachineId,
    since: EngineTime,
    told: String,
    wall_ms: u64,
) -> Result<bool, StoreError> {
    begin(conn).await?;
    match outbox::tell(conn, event, machine, since, told, wall_ms).await {
        Ok(fresh) => finish(conn, fresh).await,
        Err(e) => {
            roll_back(conn).await;
            Err(classify(&e, During::Transaction))
        }
    }
}

async fn expect(conn: &mut SqliteConnection, json: &str) -> Result<Vec<MachineId>, StoreError> {
    begin(conn).await?;
    match upsert(conn, json).await {
        Ok(ids) => finish(conn, ids).await,
        Err(e) => {
            roll_back(conn).await;
            Err(classify(&e, During::Transaction))
        }
    }
}

/// Known names keep their id; an unchanged line writes nothing.
async fn upsert(conn: &mut SqliteConnection, json: &str) -> Result<Vec<MachineId>, sqlx::Error> {
    sqlx::query(
        "INSERT INTO expected (name, json)
         SELECT v ->> 'name', v FROM (SELECT value AS v FROM json_each(?) LIMIT -1) WHERE true
         ON CONFLICT (name) DO UPDATE SET json = excluded.json WHERE json <> excluded.json",
    )
    .bind(json.to_string())
    .execute(&mut *conn)
    .await?;
    let ids: Vec<(i64,)> = sqlx::query_as(
        "SELECT e.id FROM (SELECT key AS k, value ->> 'name' AS name FROM json_each(?)) j
         JOIN expected e ON e.name = j.name ORDER BY j.k",
    )
    .bind(json.to_string())
    .fetch_all(&mut *conn)
    .await?;
    Ok(ids
        .into_iter()
        .map(|(id,)| MachineId(u32::try_from(uint(id)).unwrap_or(u32::MAX)))
        .collect())
}
