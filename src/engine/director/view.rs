//! What anybody may ask of the director between two events.

use super::{Director, Headroom};
use crate::decide::Decide;
use crate::decide::explain::{Explanation, explain};
use crate::decide::outage::Outage;
use crate::decide::stuck::{self, Stuck};
use crate::model::{EngineTime, Expected, Machine, MachineId, Report};
use crate::port::store::Stopped;
use crate::steps::site::Site;
use std::collections::BTreeMap;
use std::sync::Arc;

impl<D: Decide> Director<D> {
    pub fn machine(&self, id: MachineId) -> Option<&Machine> {
        self.slot(id).map(|s| &s.row)
    }

    pub fn expected(&self, id: MachineId) -> Option<&Arc<Expected>> {
        self.slot(id).and_then(|s| s.expected.as_ref())
    }

    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.slots.iter().flatten().map(|s| &s.row)
    }

    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    pub fn headroom(&self) -> &Headroom {
        &self.headroom
    }

    pub fn stopped(&self) -> Option<&Stopped> {
        self.state.stopped.as_ref()
    }

    /// Why the database can't be written at the moment. Until it can, no action starts, and what
    /// happened meanwhile is kept and written later.
    pub fn unwritable(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    pub fn observe_only(&self) -> bool {
        self.settings.observe_only
    }

    /// When the machine was last read, and when it is looked at next.
    pub fn times(&self, id: MachineId) -> Option<(EngineTime, EngineTime)> {
        self.slot(id).map(|s| (s.probed_at, s.due))
    }

    /// Is the machine past its stage's SLA? For people only.
    pub fn overdue(&self, id: MachineId, now: EngineTime) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        let Some((_, _, workflow)) = self.context(slot) else { return false };
        stuck::overdue_at(&slot.row, workflow).is_some_and(|at| now >= at)
    }

    /// The same in words; `None` when it is not.
    pub fn stuck(&self, id: MachineId, now: EngineTime) -> Option<Stuck> {
        let slot = self.slot(id)?;
        let (_, _, workflow) = self.context(slot)?;
        stuck::stuck(&slot.row, workflow, now)
    }

    /// Quarantines that the circuit breaker counts now, and how many trip it (0 = off).
    pub fn breaker(&self, now: EngineTime) -> (usize, u32) {
        let window = self.site.breaker_window_ms;
        let counted = self.quarantines.iter().filter(|t| now.since(**t) <= window).count();
        (counted, self.site.breaker_quarantines)
    }

    /// Actions that were started and not answered yet: a graceful stop waits for these.
    pub fn acting(&self) -> usize {
        self.slots.iter().flatten().filter(|s| s.acting.is_some()).count()
    }

    /// Commits that are not answered yet.
    pub fn committing(&self) -> usize {
        self.slots.iter().flatten().filter(|s| s.commit.is_some()).count()
    }

    /// The live decision in words; `stored`: facts to use when none were read since the start.
    pub fn explain(
        &self,
        id: MachineId,
        now: EngineTime,
        stored: Option<&Report>,
    ) -> Option<Explanation> {
        let slot = self.slot(id)?;
        let empty = Report::default();
        let report = slot.last.as_deref().or(stored).unwrap_or(&empty);
        let (expected, profile, workflow) = self.context(slot)?;
        let room = self.headroom.view(expected);
        let input = self.input(slot, (expected, profile, workflow), report, &room, now);
        Some(explain(&self.decider, &input, slot.due))
    }

    /// What machines share and is out now, or was until lately: for the API and metrics.
    pub fn outages(&self) -> impl Iterator<Item = &Outage> {
        self.outages.iter()
    }

    /// Hashes of the workflows that running runs are pinned to.
    pub fn pinned(&self) -> BTreeMap<Arc<str>, u32> {
        let mut pinned = BTreeMap::new();
        for slot in self.slots.iter().flatten() {
            if let Some(run) = &slot.row.run {
                *pinned.entry(run.workflow.clone()).or_insert(0) += 1;
            }
        }
        pinned
    }
}
