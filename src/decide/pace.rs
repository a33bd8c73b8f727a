//! When to look again: launched work first when it usually is over, then at growing intervals.

use super::Input;
use crate::model::action::Duration;
use crate::model::{ActionKind, OpenAction, OpenState};
use crate::steps::workflow::StepSpec;

/// Longest pause between two looks at something that is awaited.
const RAREST_MS: u64 = 120_000;

/// Without an expectation: 1/16 of the age, between the asked pace and two minutes.
pub(super) fn waiting(poll_ms: u64, age_ms: u64) -> u64 {
    (age_ms / 16).clamp(poll_ms, poll_ms.max(RAREST_MS))
}

/// Launched work: nothing is learned from a BMC that flashes by asking it every 15 s, and some get
/// slower by it. The first look comes when the step's `usual` has passed, or earlier where progress
/// must be seen for the stall clock; after that 1/16 of `usual`, growing by a quarter of what it is
/// overdue.
pub(super) fn launched(i: &Input<'_>, spec: &StepSpec, open: &OpenAction, poll_ms: u64) -> u64 {
    let age = i.now.since(open.at);
    let kind = open.action.kind();
    let launched = kind.class().duration != Duration::Short;
    // An update whose task is not found yet is looked for closely.
    let found = open.handle.is_some() || kind != ActionKind::UpdateFirmware;
    if !launched || !found || open.state != OpenState::Applied || spec.usual.0 == 0 {
        return waiting(poll_ms, age);
    }
    overdue(spec.usual.0, age).min((spec.stall.0 / 4).max(1000))
}

fn overdue(usual_ms: u64, age_ms: u64) -> u64 {
    match usual_ms.checked_sub(age_ms) {
        Some(left) if left > 0 => left,
        _ => ((age_ms - usual_ms) / 4).clamp((usual_ms / 16).max(1000), RAREST_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_look_comes_when_the_work_usually_is_over() {
        assert_eq!(overdue(480_000, 2_000), 478_000);
        assert_eq!(overdue(480_000, 479_999), 1);
    }

    #[test]
    fn then_the_pauses_grow_to_two_minutes() {
        let (mut age, mut looks, mut last) = (480_000, 0, 0);
        while age < 3_600_000 {
            let pause = overdue(480_000, age);
            assert!(pause >= last, "pauses do not shrink");
            (last, age, looks) = (pause, age + pause, looks + 1);
        }
        assert_eq!(last, RAREST_MS);
        assert!((30..40).contains(&looks), "{looks} looks in an hour");
    }
}
