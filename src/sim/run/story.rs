//! What a person reads first of a broken rule: that machine's last hours, from its journal, from the
//! truth and from what was thrown at it.

use crate::model::EngineTime;
use crate::sim::invariants::Violation;
use crate::sim::physics::VirtualMachine;
use crate::sim::store::MemStore;

/// How far back, and how far beyond the violation.
const BEFORE_MS: u64 = 12 * 3_600_000;
const AFTER_MS: u64 = 1_800_000;

/// One line an event, oldest first.
pub(super) fn of(v: &Violation, store: &MemStore, vm: &VirtualMachine) -> Vec<String> {
    let from = EngineTime(v.at.0.saturating_sub(BEFORE_MS));
    let wanted = |at: EngineTime| at >= from && at <= v.at + AFTER_MS;
    let mut lines: Vec<(EngineTime, String)> = Vec::new();
    let journal = store.journal.get(v.machine.0 as usize);
    for (seq, (at, entry)) in (1..).zip(journal.into_iter().flatten()) {
        if wanted(*at) {
            let text = serde_json::to_string(entry).unwrap_or_default();
            lines.push((*at, format!("journal {seq} {text}")));
        }
    }
    for e in vm.truth.effects().iter().filter(|e| wanted(e.at)) {
        lines.push((e.at, format!("truth   {:?} by {:?}", e.what, e.by)));
    }
    for i in vm.dice.log().iter().filter(|i| wanted(i.at)) {
        lines.push((i.at, format!("fault   {}", i.kind.name())));
    }
    lines.sort_by_key(|(at, _)| *at);
    lines.into_iter().map(|(at, text)| format!("{:>12} {text}", at.0)).collect()
}
