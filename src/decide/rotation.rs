//! The rotation of a BMC's password: from what is durable and what was seen to the next act. Pure.
//!
//! Every act can be cut by a kill, before it, after it, or in between, and setting a password can
//! take hold without an answer, with a wrong one, or late. So the same new password is always sent
//! again, never another one; a login says which of the two is in force; and the old one is dropped
//! only after the new one has worked, the new one only after the old one has worked again.

use crate::model::rotation::{Login, Phase, Rotation, Said, WallMs, Which};

/// How patiently a rotation goes on. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long a BMC may take to apply what it was sent.
    pub lag_ms: u64,
    /// How long a refused login counts. At least the time in which BMCs count failures (field notes
    /// R2: 3 in 30 s on some); a longer lock that the BMC tells of counts instead.
    pub rest_ms: u64,
    /// Until what failed for a passing reason is tried again.
    pub pause_ms: u64,
    /// How often the password is sent, and the hook is called, before it is taken back.
    pub tries: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { lag_ms: 30_000, rest_ms: 360_000, pause_ms: 30_000, tries: 3 }
    }
}

/// One act on the outside world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Hand the new password to the operator's hook.
    Escrow,
    /// Set it on the BMC.
    Set,
    /// Log in once with this password.
    Try(Which),
    /// Keep the new password as the machine's own.
    Promote,
    /// Drop the new password.
    TakeBack,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Act(Act),
    Rest {
        until_ms: WallMs,
    },
    /// Nothing: it is over, or a person must look.
    End,
}

/// What an act has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The hook kept it; the secret is kept, or dropped.
    Done,
    /// The hook, or our own database, did not.
    Failed,
    /// What the BMC said to the new password.
    Set(Said),
    /// What it said to a login; `None`: nothing about the password (no answer, busy).
    Login(Option<Login>),
}

/// Failed logins that are always safe: a person keeps one where three lock the account.
fn budget(r: &Rotation) -> usize {
    match r.lockout_threshold {
        0 => 2,
        n => usize::try_from(n.saturating_sub(1).clamp(1, 2)).unwrap_or(1),
    }
}

fn rest_ms(r: &Rotation, pace: &Pace) -> u64 {
    pace.rest_ms.max(u64::from(r.lockout_s).saturating_mul(1000))
}

/// What comes next; the same record and time give the same answer.
pub fn next(r: &Rotation, now: WallMs, pace: &Pace) -> Next {
    if matches!(r.phase, Phase::Kept | Phase::TakenBack | Phase::Stuck) {
        return Next::End;
    }
    if now < r.not_before_ms {
        return Next::Rest { until_ms: r.not_before_ms };
    }
    match r.phase {
        Phase::Made if r.needs_escrow => match r.escrow_failures < pace.tries {
            true => Next::Act(Act::Escrow),
            // Nothing was sent yet: the old password is in force.
            false => Next::Act(Act::TakeBack),
        },
        Phase::Made | Phase::Escrowed => Next::Act(Act::Set),
        Phase::Setting => look(r, now, pace),
        Phase::Proven => Next::Act(Act::Promote),
        Phase::Kept | Phase::TakenBack | Phase::Stuck => Next::End,
    }
}

/// It was sent: which one is in force?
fn look(r: &Rotation, now: WallMs, pace: &Pace) -> Next {
    let settled = r.set_ms.saturating_add(pace.lag_ms);
    // Without a plain answer it may still take hold.
    if matches!(r.said, Said::Nothing | Said::Unclear) && now < settled {
        return Next::Rest { until_ms: settled };
    }
    let (first, second) = match r.said {
        Said::Refused { .. } => (Which::Old, Which::New),
        _ => (Which::New, Which::Old),
    };
    for which in [first, second] {
        match login(r, which) {
            Login::Untried => return attempt(r, which, now, pace),
            Login::Works => return settle(r, which, settled, now, pace),
            Login::Refused => {}
        }
    }
    // `seen` has made it stuck already; here for a record of an older hand.
    Next::End
}

fn login(r: &Rotation, which: Which) -> Login {
    match which {
        Which::Old => r.old_login,
        Which::New => r.new_login,
    }
}

/// One login, if none of them all can lock the account.
fn attempt(r: &Rotation, which: Which, now: WallMs, pace: &Pace) -> Next {
    let rest = rest_ms(r, pace);
    let counted: Vec<WallMs> = r
        .refused_ms
        .iter()
        .map(|at| at.saturating_add(rest))
        .filter(|until| *until > now)
        .collect();
    match counted.iter().min() {
        Some(until) if counted.len() >= budget(r) => Next::Rest { until_ms: *until },
        _ => Next::Act(Act::Try(which)),
    }
}

fn settle(r: &Rotation, works: Which, settled: WallMs, now: WallMs, pace: &Pace) -> Next {
    if works == Which::New {
        return Next::Act(Act::Promote);
    }
    let for_good = r.said == Said::Refused { again: false } || r.sets >= pace.tries;
    match (for_good, now < settled) {
        // The same password again: whichever call takes hold, it is the one that is kept.
        (false, false) => Next::Act(Act::Set),
        (_, true) if r.said != (Said::Refused { again: false }) => Next::Rest { until_ms: settled },
        _ => Next::Act(Act::TakeBack),
    }
}

fn enter(r: &mut Rotation, phase: Phase, now: WallMs) {
    if r.phase != phase {
        r.phase = phase;
        r.since_ms = now;
    }
}

/// The record as it must be durable before `act` begins.
pub fn begin(r: &mut Rotation, act: Act, now: WallMs) {
    match act {
        Act::Set => {
            enter(r, Phase::Setting, now);
            r.sets += 1;
            r.set_ms = now;
            r.said = Said::Nothing;
            (r.old_login, r.new_login) = (Login::Untried, Login::Untried);
        }
        Act::Try(which) => r.trying = Some(which),
        Act::Escrow | Act::Promote | Act::TakeBack => {}
    }
}

/// The record after `act`, as it must be durable before the next one.
pub fn seen(r: &mut Rotation, act: Act, seen: Seen, now: WallMs, pace: &Pace) {
    match (act, seen) {
        (Act::Escrow, Seen::Done) => enter(r, Phase::Escrowed, now),
        (Act::Escrow, _) => {
            r.escrow_failures += 1;
            r.not_before_ms = now.saturating_add(pace.pause_ms);
        }
        (Act::Set, Seen::Set(said)) => r.said = said,
        (Act::Set, _) => r.said = Said::Unclear,
        (Act::Try(which), Seen::Login(result)) => tried(r, which, result, now, pace),
        (Act::Try(which), _) => tried(r, which, None, now, pace),
        (Act::Promote, Seen::Done) => enter(r, Phase::Kept, now),
        (Act::TakeBack, Seen::Done) => enter(r, Phase::TakenBack, now),
        (Act::Promote | Act::TakeBack, _) => {
            r.not_before_ms = now.saturating_add(pace.pause_ms);
        }
    }
}

fn tried(r: &mut Rotation, which: Which, result: Option<Login>, now: WallMs, pace: &Pace) {
    r.trying = None;
    let Some(result) = result else {
        // The BMC may have counted it.
        refused(r, now);
        r.not_before_ms = now.saturating_add(pace.pause_ms);
        return;
    };
    if result == Login::Refused {
        refused(r, now);
    }
    match which {
        Which::Old => r.old_login = result,
        Which::New => r.new_login = result,
    }
    match (r.old_login, r.new_login) {
        (_, Login::Works) => enter(r, Phase::Proven, now),
        // "Yes" was said, and it is not so, or not yet: ask again once it had its time.
        (Login::Untried, Login::Refused)
            if r.said == Said::Applied && now < r.set_ms.saturating_add(pace.lag_ms) =>
        {
            r.said = Said::Unclear;
            r.new_login = Login::Untried;
        }
        (Login::Refused, Login::Refused) => enter(r, Phase::Stuck, now),
        _ => {}
    }
}

/// How many refusals are remembered: more than any budget.
const REMEMBERED: usize = 8;

fn refused(r: &mut Rotation, now: WallMs) {
    r.refused_ms.push(now);
    if r.refused_ms.len() > REMEMBERED {
        r.refused_ms.remove(0);
    }
}

/// After a start: a login of which nobody knows how it ended counts as refused, from now on.
pub fn resume(r: &mut Rotation, now: WallMs) {
    if r.trying.take().is_some() {
        refused(r, now);
    }
}

/// A person says: look once more which of the two works.
pub fn look_again(r: &mut Rotation, now: WallMs) {
    if r.phase == Phase::Stuck {
        enter(r, Phase::Setting, now);
        r.said = Said::Unclear;
        (r.old_login, r.new_login) = (Login::Untried, Login::Untried);
    }
}

#[cfg(test)]
mod tests;
