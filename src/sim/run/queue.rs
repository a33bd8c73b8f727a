//! What waits for its time in the runner: a heap of items and the writer's queue.

use crate::model::{Action, Change, EngineTime, Expect, MachineId, Outcome, Report};
use crate::port::store::{CommitItem, Stopped, StoreError};
use crate::sim::scenario::Deed;

/// What waits in the heap.
#[derive(Debug)]
pub(super) enum Item {
    Probed {
        machine: MachineId,
        token: u64,
        report: Box<Report>,
        life: u32,
    },
    ActArrives(Box<Arriving>),
    Acted {
        machine: MachineId,
        seq: u64,
        outcome: Box<Outcome>,
        life: u32,
    },
    /// `again`: follows from an earlier one, so a script does not tell it.
    Deed {
        deed: Box<Deed>,
        again: bool,
    },
    Say(Box<Said>),
    Poke {
        machine: MachineId,
    },
    MainsBack {
        rack: u32,
    },
    Snapshot,
    Restart,
}

#[derive(Debug)]
pub(super) struct Arriving {
    pub machine: MachineId,
    pub seq: u64,
    /// The intent's name over all restores.
    pub name: u64,
    pub action: Action,
    pub expect: Expect,
    pub life: u32,
    pub meets: Meets,
}

/// What an action meets on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meets {
    Nothing,
    LostBefore,
    LostAfter,
    /// Taken; applied this much later; answered at once or never.
    Late {
        ms: u64,
        answered: bool,
    },
    NotDone,
    Refused,
    Throttled,
}

#[derive(Debug)]
pub(super) struct Queued {
    pub at: EngineTime,
    pub n: u64,
    pub item: Item,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.n == other.n
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.n).cmp(&(other.at, other.n))
    }
}

#[derive(Debug)]
pub(super) enum Write {
    Item(Box<CommitItem>),
    Stop(Option<Stopped>),
}

/// One order to the writer, of one daemon.
#[derive(Debug)]
pub(super) struct Written {
    pub at: EngineTime,
    pub write: Write,
    pub fails: Option<StoreError>,
    pub life: u32,
}

/// A change that was said and not yet acknowledged: said again after a restart, with its key.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Change { machine: MachineId, change: Change, key: String },
    Stop { why: Option<String> },
}
