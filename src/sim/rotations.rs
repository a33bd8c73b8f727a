//! A BMC's password over weeks: rotations by the production plan, one after the other, against an account
//! that locks, with the engine's own logins beside, answers that lie, and kills between any two records.
//! What must hold is judged by what the BMC has in force, not by what anybody believes.
//!
//! `src/decide/rotation/tests.rs` goes every way that one rotation may take within bounds; here they
//! follow each other, and others log in meanwhile.

use super::rng::Rng;
use crate::decide::rotation::{Act, Next, Pace, Seen, begin, next, resume, seen};
use crate::model::rotation::{Login, Phase, Rotation, Said, WallMs, Which};
use std::collections::BTreeSet;

/// Who carries the plan out: as `src/app/rotate` does, or with a mistake that must be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    Sound,
    /// The engine logs in whenever it likes.
    LetsOthersIn,
    /// A login that a kill cut off is taken for one that never was.
    ForgetsALogin,
    /// Sends another new password each time, which nobody has kept.
    MakesAnother,
    /// Does not wait for the operator's hook.
    SkipsTheHook,
    /// Takes the BMC's "yes" for the truth.
    TrustsAYes,
    /// Announces nothing before it acts: a kill finds the record of the act before.
    ActsFirst,
    /// Takes the operator's account for ours.
    TakesTheOperators,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub rotations: u32,
    pub kept: u32,
    pub taken_back: u32,
    pub kills: u32,
    /// Answers that were not so, and none at all.
    pub lies: u32,
    /// Logins of the engine that went through, and those that the rotation kept out.
    pub logins: u32,
    pub kept_out: u32,
    /// Most refused logins that counted towards the lock at once.
    pub refused: usize,
}

/// A run lasts that long; then answers are true, nobody is killed, and what is open must end.
const WEEKS_MS: WallMs = 21 * 86_400_000;
/// The engine looks at the machine so often.
const LOOK_MS: WallMs = 600_000;
/// The longest that a rotation under way may take once nothing goes wrong any more.
const END_MS: WallMs = 86_400_000;

/// Passwords are numbers; this one is on the label.
type Password = u32;
const LABEL: Password = 0;
const OURS: &str = "farrier";
/// The operator's own account has another one, which nobody here knows.
const OPERATORS: Password = Password::MAX;

#[derive(Debug)]
struct Account {
    password: Password,
    failed: Vec<WallMs>,
    locked: bool,
}

/// The BMC: two accounts, and a lock that counts failures.
#[derive(Debug)]
struct Bmc {
    ours: Account,
    operators: Account,
    /// A password that takes hold later.
    late: Option<(WallMs, Password)>,
    threshold: usize,
    window_ms: WallMs,
}

impl Bmc {
    fn account(&mut self, user: &str) -> &mut Account {
        if user == OURS { &mut self.ours } else { &mut self.operators }
    }

    fn login(&mut self, user: &str, password: Password, now: WallMs) -> bool {
        let (window_ms, threshold) = (self.window_ms, self.threshold);
        let account = self.account(user);
        account.failed.retain(|at| now < at.saturating_add(window_ms));
        if account.locked {
            return false;
        }
        if account.password == password {
            account.failed.clear();
            return true;
        }
        account.failed.push(now);
        account.locked = account.failed.len() >= threshold;
        false
    }

    fn pass(&mut self, now: WallMs) {
        if let Some((_, password)) = self.late.take_if(|(at, _)| *at <= now) {
            self.ours.password = password;
        }
    }
}

/// What a kill leaves.
#[derive(Clone, Debug, Default)]
struct Durable {
    record: Option<Rotation>,
    /// Of the machine's own; none: the label's counts.
    own: Option<Password>,
    sealed: Option<Password>,
}

impl Durable {
    /// Which password logins use.
    fn counts(&self) -> Password {
        self.own.unwrap_or(LABEL)
    }
}

struct Site {
    rng: Rng,
    hand: Hand,
    pace: Pace,
    now: WallMs,
    bmc: Bmc,
    durable: Durable,
    /// What the process has in its memory: the record that it goes on with.
    record: Option<Rotation>,
    /// What the operator's hook has kept.
    escrow: BTreeSet<Password>,
    next_password: Password,
    figures: Figures,
    calm: bool,
}

/// Runs one seed. `Err`: what did not hold, and when.
pub fn run(seed: u64, hand: Hand) -> Result<Figures, String> {
    let mut rng = Rng::new(seed);
    let threshold = usize::try_from(rng.between(3, 4)).unwrap_or(3);
    let account = |password| Account { password, failed: Vec::new(), locked: false };
    let mut site = Site {
        hand,
        pace: Pace::default(),
        now: 1_000_000,
        bmc: Bmc {
            ours: account(LABEL),
            operators: account(OPERATORS),
            late: None,
            threshold,
            window_ms: rng.between(30_000, 300_000),
        },
        durable: Durable::default(),
        record: None,
        escrow: BTreeSet::from([LABEL]),
        next_password: LABEL + 1,
        figures: Figures::default(),
        calm: false,
        rng,
    };
    site.weeks().map_err(|why| format!("seed {seed}, {} s: {why}", site.now / 1000))?;
    Ok(site.figures)
}

impl Site {
    fn weeks(&mut self) -> Result<(), String> {
        let end = self.now + WEEKS_MS;
        let (mut due, mut look) = (self.now, self.now);
        loop {
            let at = if self.record.is_some() { due.min(look) } else { look };
            self.now = self.now.max(at);
            self.bmc.pass(self.now);
            if !self.calm && self.now >= end {
                self.calm = true;
            }
            if self.calm && (self.record.is_none() || self.now >= end + END_MS) {
                break;
            }
            if at == look {
                look = self.now + LOOK_MS;
                self.look()?;
                if self.record.is_none() && self.rng.chance(20_000) {
                    self.ask();
                    due = self.now;
                }
            } else {
                due = self.step()?;
            }
            self.holds()?;
        }
        match &self.record {
            None => Ok(()),
            Some(r) => Err(format!("a rotation does not end: {r:?}")),
        }
    }

    /// The engine reads the machine.
    fn look(&mut self) -> Result<(), String> {
        let shut = self.record.as_ref().is_some_and(Rotation::keeps_others_out);
        if shut && self.hand != Hand::LetsOthersIn {
            self.figures.kept_out += 1;
            return Ok(());
        }
        let counts = self.durable.counts();
        if !self.bmc.login(OURS, counts, self.now) {
            return Err(format!("access is lost: {counts} is refused; {:?}", self.bmc));
        }
        self.figures.logins += 1;
        Ok(())
    }

    /// A person asks for a new password.
    fn ask(&mut self) {
        self.figures.rotations += 1;
        self.durable.sealed = Some(self.fresh());
        let threshold = if self.rng.chance(500_000) { self.bmc.threshold } else { 0 };
        let own = "bmc/machine/n1";
        let r = Rotation {
            machine: "n1".into(),
            user: if self.hand == Hand::TakesTheOperators { "admin" } else { OURS }.into(),
            old: if self.durable.own.is_some() { own } else { "bmc" }.into(),
            new: own.into(),
            by: "sim".into(),
            why: "sim".into(),
            begun_ms: self.now,
            since_ms: self.now,
            phase: Phase::Made,
            needs_escrow: self.hand != Hand::SkipsTheHook,
            escrow_failures: 0,
            sets: 0,
            set_ms: 0,
            said: Said::Nothing,
            old_login: Login::Untried,
            new_login: Login::Untried,
            trying: None,
            refused_ms: Vec::new(),
            not_before_ms: 0,
            lockout_threshold: u32::try_from(threshold).unwrap_or(0),
            lockout_s: 0,
            trouble: None,
        };
        self.durable.record = Some(r.clone());
        self.record = Some(r);
    }

    fn fresh(&mut self) -> Password {
        self.next_password += 1;
        self.next_password
    }

    /// One act, and when to look again.
    fn step(&mut self) -> Result<WallMs, String> {
        let Some(mut r) = self.record.clone() else { return Ok(WallMs::MAX) };
        let act = match next(&r, self.now, &self.pace) {
            Next::Rest { until_ms } if until_ms > self.now => return Ok(until_ms),
            Next::Rest { .. } => return Err("it rests until the past".into()),
            Next::End => return self.end(&r),
            Next::Act(act) => act,
        };
        if self.is_killed() {
            return Ok(self.now);
        }
        begin(&mut r, act, self.now);
        if self.hand != Hand::ActsFirst {
            self.durable.record = Some(r.clone());
        }
        self.record = Some(r.clone());
        if self.is_killed() {
            return Ok(self.now);
        }
        let saw = self.perform(act, &r.user);
        self.holds()?;
        if self.is_killed() {
            return Ok(self.now);
        }
        seen(&mut r, act, saw, self.now, &self.pace);
        if self.hand == Hand::TrustsAYes && saw == Seen::Set(Said::Applied) {
            r.phase = Phase::Proven;
        }
        self.durable.record = Some(r.clone());
        self.record = Some(r);
        self.is_killed();
        // An act takes its time.
        Ok(self.now + self.rng.between(1, 5_000))
    }

    fn end(&mut self, r: &Rotation) -> Result<WallMs, String> {
        match r.phase {
            Phase::Kept => self.figures.kept += 1,
            Phase::TakenBack => self.figures.taken_back += 1,
            other => {
                return Err(format!("one of the two passwords works, and it is {other:?}: {r:?}"));
            }
        }
        self.durable.record = None;
        self.durable.sealed = None;
        self.record = None;
        Ok(WallMs::MAX)
    }

    /// The process dies, perhaps, and another one goes on from what is durable.
    fn is_killed(&mut self) -> bool {
        if self.calm || !self.rng.chance(150_000) {
            return false;
        }
        self.figures.kills += 1;
        self.now += self.rng.between(500, 120_000);
        self.bmc.pass(self.now);
        self.record = self.durable.record.clone();
        if let Some(r) = &mut self.record
            && self.hand != Hand::ForgetsALogin
        {
            resume(r, self.now);
            self.durable.record = Some(r.clone());
        }
        true
    }

    fn lies(&mut self) -> bool {
        let lies = !self.calm && self.rng.chance(250_000);
        self.figures.lies += u32::from(lies);
        lies
    }

    fn perform(&mut self, act: Act, user: &str) -> Seen {
        let new = self.durable.sealed.unwrap_or(LABEL);
        match act {
            Act::Escrow => {
                let lies = self.lies();
                if !lies || self.rng.chance(500_000) {
                    self.escrow.insert(new);
                }
                if lies { Seen::Failed } else { Seen::Done }
            }
            Act::Set => self.set(user, new),
            Act::Try(which) => {
                let password = match which {
                    Which::New => new,
                    Which::Old => self.durable.counts(),
                };
                let lies = self.lies();
                // No answer: the BMC may have counted it or not.
                if lies && self.rng.chance(500_000) {
                    return Seen::Login(None);
                }
                let works = self.bmc.login(user, password, self.now);
                self.figures.refused = self.figures.refused.max(self.bmc.ours.failed.len());
                Seen::Login(match (lies, works) {
                    (true, _) => None,
                    (false, true) => Some(Login::Works),
                    (false, false) => Some(Login::Refused),
                })
            }
            Act::Promote => {
                if self.lies() {
                    return Seen::Failed;
                }
                self.durable.own = Some(new);
                Seen::Done
            }
            Act::TakeBack => match self.lies() {
                true => Seen::Failed,
                false => Seen::Done,
            },
        }
    }

    /// The BMC takes the password at once, later, or not at all, and says what it likes of it.
    fn set(&mut self, user: &str, new: Password) -> Seen {
        let new = if self.hand == Hand::MakesAnother {
            let other = self.fresh();
            self.durable.sealed = Some(other);
            other
        } else {
            new
        };
        if !self.lies() {
            self.bmc.account(user).password = new;
            return Seen::Set(Said::Applied);
        }
        const NO: Said = Said::Refused { again: false };
        const PASSING: Said = Said::Refused { again: true };
        let says: &[Said] = match self.rng.below(3) {
            0 => {
                self.bmc.account(user).password = new;
                &[Said::Unclear, NO, PASSING]
            }
            1 => {
                if self.bmc.ours.password != new {
                    let after = self.rng.between(1, self.pace.lag_ms - 1);
                    self.bmc.late = Some((self.now + after, new));
                }
                &[Said::Applied, Said::Unclear]
            }
            _ => &[Said::Applied, Said::Unclear, NO, PASSING],
        };
        Seen::Set(self.rng.pick(says).copied().unwrap_or(Said::Unclear))
    }

    /// After every event.
    fn holds(&self) -> Result<(), String> {
        let Site { bmc, durable, .. } = self;
        if bmc.ours.locked {
            return Err(format!("the account is locked: {bmc:?}, {:?}", self.record));
        }
        let operators = &bmc.operators;
        if operators.password != OPERATORS || !operators.failed.is_empty() || operators.locked {
            return Err(format!("the operator's account was touched: {operators:?}"));
        }
        let late = bmc.late.map(|(_, password)| password);
        for password in [Some(bmc.ours.password), late].into_iter().flatten() {
            if durable.counts() != password && durable.sealed != Some(password) {
                return Err(format!("{password} may be in force and is not kept: {durable:?}"));
            }
            if !self.escrow.contains(&password) {
                return Err(format!("{password} may be in force and the hook does not have it"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: u64 = 150;

    #[test]
    fn a_password_that_works_is_always_known_and_nobody_is_locked_out() {
        let mut all = Figures::default();
        for seed in 0..SEEDS {
            let f = run(seed, Hand::Sound).unwrap_or_else(|why| panic!("{why}"));
            assert_eq!(f.rotations, f.kept + f.taken_back, "seed {seed}");
            all.rotations += f.rotations;
            all.kept += f.kept;
            all.taken_back += f.taken_back;
            all.kills += f.kills;
            all.lies += f.lies;
            all.logins += f.logins;
            all.kept_out += f.kept_out;
            all.refused = all.refused.max(f.refused);
        }
        println!("{all:?}");
        // The runs are about something.
        assert!(all.kept > 100 && all.taken_back > 10, "{all:?}");
        assert!(all.kills > 100 && all.lies > 100 && all.kept_out > 10, "{all:?}");
        assert!(all.refused >= 2, "{all:?}");
        assert_eq!(run(7, Hand::Sound), run(7, Hand::Sound), "a seed is a run");
    }

    #[test]
    fn each_broken_hand_is_caught() {
        for (hand, says) in [
            (Hand::LetsOthersIn, "access is lost"),
            (Hand::ForgetsALogin, "locked"),
            (Hand::MakesAnother, "in force"),
            (Hand::SkipsTheHook, "the hook does not have it"),
            (Hand::TrustsAYes, "in force"),
            (Hand::ActsFirst, ""),
            (Hand::TakesTheOperators, "the operator's account was touched"),
        ] {
            let caught = (0..20 * SEEDS).find_map(|seed| run(seed, hand).err());
            let why = caught.unwrap_or_else(|| panic!("nobody notices {hand:?}"));
            println!("{hand:?}: {why}");
            assert!(why.contains(says), "{hand:?}: {why}");
        }
    }
}
