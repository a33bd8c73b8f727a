//! The one retry policy: pure, durable, replayable. Edges retry nothing but an idempotent GET.

use crate::model::{EngineTime, Fault, FaultClass, Machine, MachineId};
use crate::steps::remediation::Relogin;
use crate::steps::workflow::Retry;

/// What comes after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Again { not_before: EngineTime, charged: bool },
    GiveUp,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// An attempt at the step's goal: charged.
    Attempt,
    /// A read: nothing was attempted; the step's timeout bounds it.
    Read,
}

/// Judges by class, and by whether anything was attempted.
pub fn after(
    m: &Machine,
    policy: Retry,
    relogin: Relogin,
    fault: &Fault,
    failed: Failed,
    now: EngineTime,
) -> Next {
    let attempt = m.step.as_ref().map_or(0, |s| s.attempt);
    let same = m.last_fault.as_ref().filter(|n| n.fault.code == fault.code).map_or(0, |n| n.count);
    let uncharged = |pause: u64| Next::Again { not_before: now + pause, charged: false };
    match fault.class {
        // Nothing came back: judged by reach and by the step's timeout, never by attempts.
        _ if fault.is_no_answer() => uncharged(pause(policy, u32::from(attempt) + same, m.id, now)),
        FaultClass::Transient | FaultClass::OutcomeUnknown if failed == Failed::Read => {
            uncharged(pause(policy, same, m.id, now))
        }
        FaultClass::Throttled => {
            let asked = fault.retry_after_ms.unwrap_or(0);
            uncharged(asked.max(pause(policy, same, m.id, now)))
        }
        FaultClass::Transient | FaultClass::OutcomeUnknown => {
            if attempt + 1 >= policy.attempts {
                return Next::GiveUp;
            }
            let wait = pause(policy, u32::from(attempt), m.id, now);
            Next::Again {
                not_before: now + wait.max(fault.retry_after_ms.unwrap_or(0)),
                charged: true,
            }
        }
        FaultClass::Auth => {
            if attempt >= relogin.limit {
                return Next::GiveUp;
            }
            Next::Again { not_before: now + relogin.pause.0, charged: true }
        }
        FaultClass::Unsupported
        | FaultClass::Precondition
        | FaultClass::Hardware
        | FaultClass::Identity
        | FaultClass::Bug => Next::GiveUp,
    }
}

/// Milliseconds until an attempt that is held against nobody is made again.
pub fn again(m: &Machine, policy: Retry, fault: &Fault, now: EngineTime) -> u64 {
    let same = m.last_fault.as_ref().filter(|n| n.fault.code == fault.code).map_or(0, |n| n.count);
    pause(policy, same, m.id, now)
}

/// Exponential, capped, with ±25 % jitter from a hash of machine and time.
pub fn pause(policy: Retry, failures: u32, id: MachineId, now: EngineTime) -> u64 {
    let base = policy.base.0.max(1000);
    let grown = base.saturating_mul(1u64 << failures.min(16)).min(policy.cap.0.max(base));
    let quarter = (grown / 4).max(1);
    grown - quarter + jitter(id, now) % (2 * quarter)
}

/// A replayable spread: splitmix64's finalizer over machine and time.
pub fn jitter(id: MachineId, now: EngineTime) -> u64 {
    let mut z = now.0 ^ (u64::from(id.0) << 40) ^ 0x9e37_79b9_7f4a_7c15;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Channel;

    fn fault(class: FaultClass) -> Fault {
        Fault::new(class, Channel::Bmc, "x", "x")
    }

    #[test]
    fn pauses_grow_to_the_cap_and_stay_near_it() {
        let policy = Retry::default();
        for failures in 0..40 {
            let p = pause(policy, failures, MachineId(3), EngineTime(77));
            assert!((11_250..=750_000).contains(&p), "{failures}: {p}");
        }
        assert!(pause(policy, 9, MachineId(3), EngineTime(77)) >= 450_000);
    }

    #[test]
    fn credentials_are_tried_twice_at_most() {
        let mut m = Machine::blank(MachineId(1));
        let policy = Retry::default();
        let relogin = Relogin::default();
        let first =
            after(&m, policy, relogin, &fault(FaultClass::Auth), Failed::Read, EngineTime(0));
        assert_eq!(first, Next::Again { not_before: EngineTime(relogin.pause.0), charged: true });
        m.step = Some(Box::new(crate::model::machine::Cursor {
            index: 0,
            key: "k".into(),
            since: EngineTime(0),
            attempt: 1,
            acts: vec![],
            holds: None,
            skip: None,
            cut: false,
            room_since: None,
        }));
        assert_eq!(
            after(&m, policy, relogin, &fault(FaultClass::Auth), Failed::Read, EngineTime(0)),
            Next::GiveUp
        );
    }

    #[test]
    fn patience_asked_for_is_given_and_not_charged() {
        let m = Machine::blank(MachineId(1));
        let f = fault(FaultClass::Throttled).retry_after(1_200_000);
        let Next::Again { not_before, charged } =
            after(&m, Retry::default(), Relogin::default(), &f, Failed::Attempt, EngineTime(5))
        else {
            panic!("gave up");
        };
        assert!(!charged && not_before >= EngineTime(1_200_005));
    }
}
