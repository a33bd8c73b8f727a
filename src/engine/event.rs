//! What the director hears and what it says.

use crate::model::facts::ProbeSet;
use crate::model::{Action, Change, Expect, Expected, Fault, MachineId, Outcome, Report};
use crate::port::store::{CommitItem, Committed, Stopped, StoreError};
use crate::steps::site::Site;
use std::sync::Arc;

/// Something happened. `now` comes beside it.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed: look at what is due.
    Tick,
    /// The answer to [`Command::Probe`] with this token.
    Probed { machine: MachineId, token: u64, report: Box<Report> },
    /// The answer to [`Command::Act`] for the intent with this seq.
    Acted { machine: MachineId, seq: u64, outcome: Outcome },
    /// The answer to [`Command::Commit`] for this machine.
    Committed { machine: MachineId, result: Result<Committed, StoreError> },
    /// The answer to [`Command::CommitStop`].
    StopCommitted { result: Result<(), StoreError> },
    /// A person or an API says something; `ticket` names the answer.
    Change { machine: MachineId, change: Change, by: String, key: String, ticket: u64 },
    /// Stop or resume all actions.
    Stop { why: Option<String>, by: String, ticket: u64 },
    /// Expected machines of the inventory, new or changed.
    Expect { machines: Vec<(MachineId, Arc<Expected>)> },
    /// The site's data was reloaded.
    Site { site: Arc<Site> },
    /// Look at this machine now.
    Poke { machine: MachineId },
}

/// What the driver is to do. At most one commit, one probe and one action of a machine are under
/// way at a time.
#[derive(Clone, Debug)]
pub enum Command {
    Commit(Box<CommitItem>),
    CommitStop {
        stopped: Option<Stopped>,
    },
    /// Read `set`; `job`, `handle` and `run` say which job, task and boot window are meant.
    Probe {
        machine: MachineId,
        token: u64,
        set: ProbeSet,
        job: Option<String>,
        handle: Option<String>,
        run: Option<String>,
    },
    /// Do it once. The intent is durable under `seq`.
    Act {
        machine: MachineId,
        seq: u64,
        action: Action,
        expect: Expect,
    },
    /// The store can't be trusted any more: exit, so that the next start recovers.
    Halt {
        why: String,
    },
    /// The change with this ticket is durable (seq), or was refused.
    Ack {
        ticket: u64,
        result: Result<u64, Fault>,
    },
}
