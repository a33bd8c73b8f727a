//! What the director keeps of one machine: nearly nothing while it rests.

use super::{Event, Then};
use crate::model::{EngineTime, Expected, Machine, Report};
use crate::port::store::CommitItem;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) item: Box<CommitItem>,
    pub(super) then: Then,
    pub(super) tickets: Vec<u64>,
    /// The store said no: say it again at the slot's due time.
    pub(super) failed: bool,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) row: Machine,
    pub(super) expected: Option<Arc<Expected>>,
    pub(super) due: EngineTime,
    pub(super) probed_at: EngineTime,
    /// Read and written as if it stood here; apart, because nearly all machines are at rest.
    pub(super) busy: Option<Box<Busy>>,
    /// Limit classes counted in the headroom: the row's, and those of the row to be.
    pub(super) held: u8,
    /// Who does not answer: bits of [`hearing`].
    pub(super) silent: u8,
}

/// What is under way with a machine.
#[derive(Debug)]
pub(super) struct Busy {
    pub(super) probing: Option<NonZeroU64>,
    /// The row's seq when the probe was sent: what it reads was asked for by that row.
    pub(super) asked_at: u64,
    pub(super) acting: Option<NonZeroU64>,
    pub(super) commit: Option<Box<Pending>>,
    /// What came while a commit was under way.
    pub(super) backlog: VecDeque<Event>,
    pub(super) queued: Option<(u16, Arc<str>)>,
    /// Last report of a machine on its way: for `explain`. Resting machines keep none.
    pub(super) last: Option<Box<Report>>,
}

impl Busy {
    const NOTHING: Busy = Busy {
        probing: None,
        asked_at: 0,
        acting: None,
        commit: None,
        backlog: VecDeque::new(),
        queued: None,
        last: None,
    };

    fn is_nothing(&self) -> bool {
        self.probing.is_none()
            && self.acting.is_none()
            && self.commit.is_none()
            && self.backlog.is_empty()
            && self.queued.is_none()
            && self.last.is_none()
    }
}

impl Deref for Slot {
    type Target = Busy;
    fn deref(&self) -> &Busy {
        static NOTHING: Busy = Busy::NOTHING;
        self.busy.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut Busy {
        self.busy.get_or_insert_with(|| Box::new(Busy::NOTHING))
    }
}

/// 100,000 machines are resident: 1,000 bytes each, strings and all.
const _: () = assert!(size_of::<Option<Slot>>() <= 312 && size_of::<Expected>() <= 232);

impl Slot {
    /// Keeps an event until the commit that is under way is answered.
    pub(super) fn later(&mut self, event: Event) {
        self.backlog.push_back(event);
    }

    /// The oldest event that was kept.
    pub(super) fn kept(&mut self) -> Option<Event> {
        self.backlog.pop_front()
    }

    pub(super) fn tidy(&mut self) {
        if self.busy.as_ref().is_some_and(|b| b.is_nothing()) {
            self.busy = None;
        }
    }
}
