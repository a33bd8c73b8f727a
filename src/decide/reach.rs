//! Unreachable is not quarantined: nothing is charged, and it clears itself after good probes.

use super::{Input, Verdict, unanswered, watch, write};
use crate::model::{ActionKind, Condition, Entry};

/// Misses in a row until a machine counts as unreachable.
const MISSES: u32 = 3;
/// A BMC that was told to restart or updates itself may be away this long (field notes §6, 5:
/// reboots of 60–300 s, then half-up services).
const OWN_RESET_MS: u64 = 600_000;
const SECOND: &str = "a second good probe";
const FIRST: &str = "the BMC to answer";

/// A verdict when the BMC is away or just came back; `None` = it is there.
pub(super) fn away(i: &Input<'_>) -> Option<Verdict> {
    let m = i.m;
    let Some(fault) = unanswered(&i.report.system) else {
        return back(i);
    };
    if m.is_quarantined() {
        return Some(Verdict::Rest { due: i.now + watch::pause(i), waiting: None });
    }
    if let Condition::Unreachable { since } = m.condition {
        let due = i.now + (i.now.since(since) / 4).clamp(15_000, 300_000);
        if m.waiting.as_deref() == Some(SECOND) {
            return Some(write(vec![Entry::Waits { what: FIRST.into() }], due));
        }
        return Some(Verdict::Rest { due, waiting: Some(FIRST.into()) });
    }
    if let Some(open) = &m.open
        && matches!(open.action.kind(), ActionKind::BmcReset | ActionKind::UpdateFirmware)
        && i.now.since(open.progress_at) < OWN_RESET_MS
    {
        let due = i.now + 15_000;
        return Some(Verdict::Rest { due, waiting: Some("the BMC to come back".into()) });
    }
    let misses =
        m.last_fault.as_ref().filter(|n| n.fault.code == fault.code).map_or(0, |n| n.count);
    if misses + 1 >= MISSES {
        return Some(write(vec![Entry::Lost { fault: fault.clone() }], i.now + 15_000));
    }
    let not_before = i.now + (5_000 << misses);
    Some(write(
        vec![Entry::Faulted { fault: fault.clone(), charged: false, not_before }],
        not_before,
    ))
}

fn back(i: &Input<'_>) -> Option<Verdict> {
    let m = i.m;
    if !i.report.system.was_asked() {
        return None;
    }
    match m.condition {
        Condition::Unreachable { .. } if i.report.system.seen().is_none() => {
            // It answers, if only with an error: the step's own retry deals with that.
            Some(write(vec![Entry::Back], i.now + 5_000))
        }
        Condition::Unreachable { .. } if m.waiting.as_deref() == Some(SECOND) => {
            Some(write(vec![Entry::Back], i.now))
        }
        Condition::Unreachable { .. } => {
            Some(write(vec![Entry::Waits { what: SECOND.into() }], i.now + 5_000))
        }
        // A single miss at rest: nothing else would clear it.
        Condition::BackingOff if m.step.is_none() && i.report.system.seen().is_some() => {
            Some(write(vec![Entry::Back], i.now))
        }
        _ => None,
    }
}
