//! Events for people who are not looking: durable with what caused them, kept until every webhook
//! had its chance.

use super::store::{CommitItem, Stopped, StoreError};
use crate::model::change::PasswordEnd;
use crate::model::{Change, EngineTime, Entry, Machine, MachineId};
use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

/// What a webhook may be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    Quarantined,
    /// Past its stage's SLA.
    Stuck,
    /// Farrier stopped all actions by itself.
    CircuitBreaker,
    /// A person stopped all actions.
    Stopped,
    Resumed,
    Released,
    /// Something changed that Farrier did not do.
    OutOfBand,
    /// Neither the old nor the new password of a BMC works.
    PasswordStuck,
    /// Sent by hand, never kept.
    Test,
}

impl EventKind {
    /// What can be asked for in `[[webhook]] events`.
    pub const ALL: [EventKind; 8] = [
        EventKind::Quarantined,
        EventKind::Stuck,
        EventKind::CircuitBreaker,
        EventKind::Stopped,
        EventKind::Resumed,
        EventKind::Released,
        EventKind::PasswordStuck,
        EventKind::OutOfBand,
    ];

    pub fn name(self) -> &'static str {
        match self {
            EventKind::Quarantined => "quarantined",
            EventKind::Stuck => "stuck",
            EventKind::CircuitBreaker => "circuit-breaker",
            EventKind::Stopped => "stopped",
            EventKind::Resumed => "resumed",
            EventKind::Released => "released",
            EventKind::OutOfBand => "out-of-band",
            EventKind::PasswordStuck => "password-stuck",
            EventKind::Test => "test",
        }
    }
}

/// An event before it has its number.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub kind: EventKind,
    /// What is said besides `event`, `id` and `at`.
    pub body: Map<String, Value>,
}

/// An event in the outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxLine {
    /// Its place in the order.
    pub number: u64,
    /// The same each time it is delivered, and never another event's, over restores too.
    pub id: String,
    /// [`EventKind::name`] as it was written.
    pub event: String,
    /// Wall clock in ms since 1970.
    pub wall_ms: u64,
    pub body: Map<String, Value>,
}

/// The reading side. Lines are numbered in the order of their commits and kept up to a bound.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// The number of the last line that this hook had. A hook that was not known starts behind
    /// what is there.
    async fn stand(&self, hook: &str) -> Result<u64, StoreError>;
    /// Lines after `number`, oldest first.
    async fn after(&self, number: u64, limit: u32) -> Result<Vec<OutboxLine>, StoreError>;
    /// How many lines are after `number`.
    async fn depth(&self, number: u64) -> Result<u64, StoreError>;
    async fn delivered(&self, hook: &str, number: u64) -> Result<(), StoreError>;
    /// Adds an event that no entry causes, once for each (kind, machine, since).
    async fn tell(
        &self,
        machine: MachineId,
        since: EngineTime,
        told: Told,
        wall_ms: u64,
    ) -> Result<(), StoreError>;
    /// Changes whenever a line was added.
    fn news(&self) -> watch::Receiver<u64>;
}

/// The events that an item's entries cause. Evidence stays behind: it may be output of anything.
pub fn of_item(item: &CommitItem) -> Vec<Told> {
    let mut told = Vec::new();
    for (seq, entry) in (item.after_seq + 1..).zip(&item.entries) {
        let (kind, mut body) = match entry {
            Entry::Quarantined { fault } => {
                let fault = json!({
                    "class": fault.class,
                    "code": fault.code,
                    "message": fault.message,
                    "hint": fault.hint,
                });
                (EventKind::Quarantined, Map::from_iter([("fault".to_string(), fault)]))
            }
            Entry::Changed { change: Change::Release { why }, by, .. } => {
                (EventKind::Released, words(&[("by", by), ("why", why)]))
            }
            Entry::Changed {
                change: Change::Password { end: PasswordEnd::Stuck, controller, why },
                by,
                ..
            } => {
                let mut said = words(&[("by", by), ("why", why)]);
                if let Some(name) = controller {
                    said.insert("controller".into(), name.as_str().into());
                }
                (EventKind::PasswordStuck, said)
            }
            Entry::OutOfBand { what } => (EventKind::OutOfBand, words(&[("what", what)])),
            _ => continue,
        };
        body.extend(place(&item.row));
        body.insert("seq".into(), seq.into());
        told.push(Told { kind, body });
    }
    told
}

/// The event of a stop or a resumption. `before`: what stood until then.
pub fn of_stop(stopped: Option<&Stopped>) -> Told {
    match stopped {
        Some(s) if s.by == BREAKER => {
            Told { kind: EventKind::CircuitBreaker, body: words(&[("why", &s.why)]) }
        }
        Some(s) => {
            Told { kind: EventKind::Stopped, body: words(&[("by", &s.by), ("why", &s.why)]) }
        }
        None => Told { kind: EventKind::Resumed, body: Map::new() },
    }
}

/// The event of a machine past its SLA; `what` says it in words.
pub fn of_stuck(row: &Machine, what: &str) -> Told {
    let mut body = words(&[("what", what)]);
    body.extend(place(row));
    Told { kind: EventKind::Stuck, body }
}

/// Who stops when too many machines were quarantined.
pub const BREAKER: &str = "circuit-breaker";

fn words(pairs: &[(&str, &str)]) -> Map<String, Value> {
    pairs.iter().map(|(k, v)| ((*k).to_string(), Value::from(*v))).collect()
}

fn place(row: &Machine) -> Map<String, Value> {
    let mut place = words(&[("machine", &row.name), ("stage", row.stage.name())]);
    if let Some(step) = &row.step {
        place.insert("step".into(), Value::from(&*step.key));
    }
    place
}
