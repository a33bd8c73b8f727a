//! Every order of kills and misbehaviours of a BMC, within bounds: always a password that works and
//! is kept, escrowed before it can be in force, and never a locked account.

use super::*;
use std::collections::BTreeSet;

const START: WallMs = 1_000_000;

/// What is outside of the process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    in_force: Which,
    /// The new one takes hold then.
    late: Option<WallMs>,
    escrowed: bool,
    /// The new one is kept as the machine's own.
    kept: bool,
    /// The new one is sealed under its own name until it is over.
    sealed: bool,
    failed: Vec<WallMs>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    r: Rotation,
    world: World,
    now: WallMs,
    kills: u8,
    oddities: u8,
}

fn record(threshold: u32) -> Rotation {
    Rotation {
        machine: "n1".into(),
        user: "farrier".into(),
        old: "bmc".into(),
        new: "bmc/machine/n1".into(),
        by: "test".into(),
        why: "test".into(),
        begun_ms: START,
        since_ms: START,
        phase: Phase::Made,
        needs_escrow: true,
        escrow_failures: 0,
        sets: 0,
        set_ms: 0,
        said: Said::Nothing,
        old_login: Login::Untried,
        new_login: Login::Untried,
        trying: None,
        refused_ms: Vec::new(),
        not_before_ms: 0,
        lockout_threshold: threshold,
        lockout_s: 0,
        trouble: None,
    }
}

impl State {
    fn pass(&mut self, now: WallMs) {
        self.now = self.now.max(now);
        if self.world.late.is_some_and(|at| at <= self.now) {
            self.world.late = None;
            self.world.in_force = Which::New;
        }
    }

    /// The process dies and another one starts from what is durable.
    fn killed(mut self) -> Option<State> {
        self.kills = self.kills.checked_sub(1)?;
        let now = self.now + 1_000;
        self.pass(now);
        resume(&mut self.r, now);
        Some(self)
    }

    fn odd(mut self) -> Option<State> {
        self.oddities = self.oddities.checked_sub(1)?;
        Some(self)
    }
}

/// Every way in which an act may go: the world after it, and what the process sees of it.
fn ways(s: &State, act: Act, pace: &Pace, lock_at: usize) -> Vec<(State, Seen)> {
    let mut out = Vec::new();
    match act {
        Act::Escrow => {
            let kept = |mut s: State| {
                s.world.escrowed = true;
                s
            };
            out.push((kept(s.clone()), Seen::Done));
            if let Some(odd) = s.clone().odd() {
                out.push((odd.clone(), Seen::Failed));
                out.push((kept(odd), Seen::Failed));
            }
        }
        Act::Set => {
            assert!(s.world.escrowed, "set before it was escrowed");
            assert!(s.world.sealed, "set and not sealed");
            let took = |mut s: State| {
                s.world.in_force = Which::New;
                s
            };
            let late = |mut s: State| {
                if s.world.in_force == Which::Old {
                    s.world.late = Some(s.now + pace.lag_ms - 1);
                }
                s
            };
            out.push((took(s.clone()), Seen::Set(Said::Applied)));
            let Some(odd) = s.clone().odd() else { return out };
            let (no, passing) = (Said::Refused { again: false }, Said::Refused { again: true });
            for said in [Said::Unclear, no, passing] {
                out.push((took(odd.clone()), Seen::Set(said)));
            }
            for said in [Said::Applied, Said::Unclear] {
                out.push((late(odd.clone()), Seen::Set(said)));
            }
            for said in [Said::Applied, Said::Unclear, no, passing] {
                out.push((odd.clone(), Seen::Set(said)));
            }
        }
        Act::Try(which) => {
            let mut asked = s.clone();
            if which != asked.world.in_force {
                asked.world.failed.push(asked.now);
                let since = asked.now.saturating_sub(pace.rest_ms);
                asked.world.failed.retain(|at| *at > since);
                let failed = asked.world.failed.len();
                assert!(failed < lock_at, "the account is locked: {asked:#?}");
            }
            let result = if which == asked.world.in_force { Login::Works } else { Login::Refused };
            out.push((asked.clone(), Seen::Login(Some(result))));
            if let Some(odd) = s.clone().odd() {
                out.push((odd, Seen::Login(None)));
            }
            if let Some(odd) = asked.odd() {
                out.push((odd, Seen::Login(None)));
            }
        }
        Act::Promote => {
            assert_eq!(s.world.in_force, Which::New);
            let mut s = s.clone();
            s.world.kept = true;
            out.push((s, Seen::Done));
        }
        Act::TakeBack => {
            assert_eq!(s.world.in_force, Which::Old);
            let mut s = s.clone();
            s.world.sealed = false;
            out.push((s, Seen::Done));
        }
    }
    out
}

fn holds(s: &State) {
    let World { in_force, late, escrowed, kept, sealed, .. } = &s.world;
    if *in_force == Which::New || late.is_some() {
        assert!(*escrowed, "in force and not escrowed: {s:#?}");
        assert!(*sealed || *kept, "in force and not kept: {s:#?}");
    }
    if *kept {
        assert_eq!(*in_force, Which::New, "kept and not in force: {s:#?}");
    }
    // The old one is what logins use until the new one is kept.
    if *in_force == Which::Old && late.is_none() && s.r.phase == Phase::Kept {
        panic!("{s:#?}");
    }
    assert_ne!(s.r.phase, Phase::Stuck, "one of the two always works: {s:#?}");
}

/// Follows every way from `first`; returns the number of states and of ends by phase.
fn explore(first: State, pace: &Pace, lock_at: usize) -> (usize, usize, usize) {
    let (mut seen_states, mut todo) = (BTreeSet::new(), vec![first]);
    let (mut kept, mut back) = (0, 0);
    while let Some(s) = todo.pop() {
        if !seen_states.insert(s.clone()) {
            continue;
        }
        holds(&s);
        let act = match next(&s.r, s.now, pace) {
            Next::End => {
                match s.r.phase {
                    Phase::Kept => kept += 1,
                    Phase::TakenBack => {
                        assert_eq!((s.world.in_force, s.world.late), (Which::Old, None), "{s:#?}");
                        back += 1;
                    }
                    other => panic!("ended in {other:?}: {s:#?}"),
                }
                continue;
            }
            Next::Rest { until_ms } => {
                assert!(until_ms > s.now, "rests until the past: {s:#?}");
                todo.extend(s.clone().killed());
                let mut s = s;
                s.pass(until_ms);
                todo.push(s);
                continue;
            }
            Next::Act(act) => act,
        };
        // Killed before the announcement is durable; then, before anything was done.
        todo.extend(s.clone().killed());
        let mut announced = s;
        begin(&mut announced.r, act, announced.now);
        todo.extend(announced.clone().killed());
        for (mut after, what) in ways(&announced, act, pace, lock_at) {
            // Killed when it was done and nobody had written that down.
            todo.extend(after.clone().killed());
            let now = after.now + 100;
            after.pass(now);
            seen(&mut after.r, act, what, now, pace);
            todo.push(after);
        }
    }
    (seen_states.len(), kept, back)
}

fn first(threshold: u32, kills: u8, oddities: u8) -> State {
    let world = World {
        in_force: Which::Old,
        late: None,
        escrowed: false,
        kept: false,
        sealed: true,
        failed: Vec::new(),
    };
    State { r: record(threshold), world, now: START, kills, oddities }
}

#[test]
fn every_kill_and_every_lie_ends_with_a_password_that_works() {
    let pace = Pace::default();
    // (what the BMC says of its lock, what it is)
    for (said, lock_at) in [(0, 3), (3, 3), (5, 5), (2, 2)] {
        let (states, kept, back) = explore(first(said, 2, 3), &pace, lock_at);
        println!("{states} states, {kept} ends kept, {back} taken back");
        assert!(kept > 100 && back > 10, "{states} states, {kept} kept, {back} taken back");
    }
}

#[test]
fn undisturbed_it_takes_one_call_and_one_login() {
    let pace = Pace::default();
    let mut s = first(3, 0, 0);
    let mut acts = Vec::new();
    loop {
        match next(&s.r, s.now, &pace) {
            Next::End => break,
            Next::Rest { .. } => panic!("nothing to wait for: {s:#?}"),
            Next::Act(act) => {
                acts.push(act);
                begin(&mut s.r, act, s.now);
                let (after, what) = ways(&s, act, &pace, 3).remove(0);
                s = after;
                seen(&mut s.r, act, what, s.now, &pace);
            }
        }
    }
    assert_eq!(acts, [Act::Escrow, Act::Set, Act::Try(Which::New), Act::Promote]);
    assert_eq!((s.r.phase, s.world.failed.len()), (Phase::Kept, 0));
}

#[test]
fn a_password_that_the_bmc_turns_down_is_taken_back_after_one_login_with_the_old_one() {
    let pace = Pace::default();
    let mut r = record(3);
    r.phase = Phase::Escrowed;
    begin(&mut r, Act::Set, START);
    seen(&mut r, Act::Set, Seen::Set(Said::Refused { again: false }), START, &pace);
    assert_eq!(next(&r, START, &pace), Next::Act(Act::Try(Which::Old)));
    begin(&mut r, Act::Try(Which::Old), START);
    seen(&mut r, Act::Try(Which::Old), Seen::Login(Some(Login::Works)), START, &pace);
    assert_eq!(next(&r, START, &pace), Next::Act(Act::TakeBack));
}

#[test]
fn where_neither_works_nobody_logs_in_until_a_person_says_so() {
    let pace = Pace::default();
    let mut r = record(3);
    begin(&mut r, Act::Set, START);
    seen(&mut r, Act::Set, Seen::Set(Said::Applied), START, &pace);
    let mut now = START + pace.lag_ms;
    for which in [Which::New, Which::Old] {
        assert_eq!(next(&r, now, &pace), Next::Act(Act::Try(which)));
        begin(&mut r, Act::Try(which), now);
        seen(&mut r, Act::Try(which), Seen::Login(Some(Login::Refused)), now, &pace);
    }
    assert_eq!(r.phase, Phase::Stuck);
    assert!(r.keeps_others_out() && r.is_open());
    now += 10 * pace.rest_ms;
    assert_eq!(next(&r, now, &pace), Next::End);
    // Two logins were refused: asked at once, it waits until they no longer count.
    look_again(&mut r, START + pace.lag_ms + 1);
    assert!(matches!(next(&r, START + pace.lag_ms + 1, &pace), Next::Rest { .. }));
    assert_eq!(next(&r, now, &pace), Next::Act(Act::Try(Which::New)));
}
