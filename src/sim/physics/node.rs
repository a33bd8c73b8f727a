//! The machine as the cluster knows it. An open node is always busy; a cordon lets its workloads
//! run out. So nothing needs to tick while a node is in service.

use super::{Cause, HostState, VirtualMachine, What};
use crate::model::{EngineTime, HookVerb};
use crate::sim::faults::FaultKind;

/// Membership and workloads.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub member: bool,
    pub cordoned: bool,
    /// The node calls itself ready from then on; `None` while the host is down.
    pub ready_at: Option<EngineTime>,
    /// Workloads of an open, ready node.
    pub busy: u32,
    /// When the workloads of a cordoned node end.
    pub ends: Vec<EngineTime>,
}

impl Node {
    pub fn is_ready(&self, now: EngineTime) -> bool {
        self.member && self.ready_at.is_some_and(|t| t <= now)
    }

    /// Workloads on the node at `now`.
    pub fn workloads(&self, now: EngineTime) -> u32 {
        if !self.member {
            return 0;
        }
        if self.cordoned {
            return u32::try_from(self.ends.iter().filter(|t| **t > now).count()).unwrap_or(0);
        }
        if self.is_ready(now) { self.busy } else { 0 }
    }

    pub(super) fn host_lost(&mut self, _now: EngineTime) {
        self.ready_at = None;
        self.ends.clear();
    }

    pub(super) fn host_back(&mut self, ready_at: EngineTime) {
        self.ready_at = Some(ready_at);
    }

    pub(super) fn found_member(&mut self, workloads: u32) {
        self.member = true;
        self.ready_at = Some(EngineTime::ZERO);
        self.busy = workloads;
    }
}

/// Longer than every drain deadline: a budget that lets nothing be evicted.
const NEVER_DRAINS_MS: u64 = 10 * 3_600_000;

impl VirtualMachine {
    pub(super) fn hook(&mut self, at: EngineTime, verb: HookVerb, by: Cause) {
        self.effect(at, What::Hook(verb), by);
        match verb {
            HookVerb::Join => {
                if !self.node.member {
                    self.node.member = true;
                    self.node.cordoned = false;
                    self.node.busy = u32::try_from(self.rng.between(1, 4)).unwrap_or(1);
                    let ms = self.durations.node_ready.pick(&mut self.rng);
                    self.node.ready_at = (self.host == HostState::Running).then_some(at + ms);
                }
            }
            HookVerb::Cordon => {
                if self.node.member && !self.node.cordoned {
                    let running = self.node.workloads(at);
                    let late = running > 0 && self.dice.throw(FaultKind::WorkloadsLate, at);
                    self.node.cordoned = true;
                    self.node.ends = (0..running)
                        .map(|_| at + self.durations.workload.pick(&mut self.rng))
                        .collect();
                    if late {
                        self.node.ends.push(at + NEVER_DRAINS_MS);
                    }
                }
            }
            HookVerb::Uncordon => {
                self.node.cordoned = false;
                self.node.ends.clear();
            }
            HookVerb::Leave => {
                self.node.member = false;
                self.node.cordoned = false;
                self.node.ends.clear();
            }
        }
    }
}
