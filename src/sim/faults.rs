//! What can go wrong, and the dice that throw it. Every injected fault is recorded, so that a
//! quarantine can be traced to one and a run be played again from what was thrown.

use super::profile::{Match, Profile, Rule};
use super::rng::Rng;
use crate::model::{ActionKind, EngineTime};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

macro_rules! fault_kinds {
    ($($kind:ident $name:literal),+ $(,)?) => {
        /// What can go wrong. The comment of each is its name in the coverage matrix.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum FaultKind { $(#[doc = $name] $kind),+ }
        impl FaultKind {
            pub const ALL: &'static [FaultKind] = &[$(FaultKind::$kind),+];
            pub fn name(self) -> &'static str {
                match self { $(FaultKind::$kind => $name),+ }
            }
            pub fn from_name(name: &str) -> Option<FaultKind> {
                match name { $($name => Some(FaultKind::$kind),)+ _ => None }
            }
        }
    };
}

fault_kinds! {
    // What a probe meets.
    ProbeNoAnswer "probe-no-answer",
    ProbeHang "probe-hang",
    ProbeError "probe-5xx",
    ProbeAuth "probe-401",
    ProbeThrottled "probe-429",
    ProbePartial "probe-partial",
    BoardNoAnswer "board-no-answer",
    // What an action meets.
    ActLostBefore "act-lost-before",
    ActLostAfter "act-lost-after",
    ActLate "act-late",
    ActNotDone "act-ok-not-done",
    ActRefused "act-refused",
    ActThrottled "act-429",
    // What the machine does.
    FlashStuck "flash-stuck-99",
    FlashFails "flash-fails",
    FlashVanishes "flash-vanishes",
    FlashUnchanged "flash-unchanged",
    FlashEarly "flash-completed-early",
    FlashBricks "flash-bricks",
    VolumeFails "volume-fails",
    DriveDies "drive-dies",
    BootsDisk "boots-disk-not-pxe",
    CallbackLost "callback-lost",
    CallbackDoubled "callback-doubled",
    InstallFails "install-fails",
    JobLost "job-lost-by-reboot",
    JobSickGpu "job-sick-gpu",
    WorkloadsLate "workloads-late",
    ShutdownIgnored "shutdown-ignored",
    // What people and the building do.
    SerialSwapped "serial-swapped",
    WrongHost "bmc-wrong-host",
    HumanPower "human-power",
    HumanFlash "human-flash",
    HumanTask "human-task",
    HumanBoot "human-boot-order",
    Outage "switch-outage",
    HostOutage "host-network-outage",
    CoreOutage "core-switch-outage",
    BoardOutage "board-outage",
    BoardCrash "board-crash",
    BmcPort "bmc-port-outage",
    RackPower "rack-power-loss",
    // What the daemon and its store meet.
    CommitFails "commit-fails",
    CommitUnknown "commit-unknown",
    StopFails "commit-stop-fails",
    DiskFull "disk-full",
    SecondDaemon "second-daemon",
    OldDatabase "old-database",
    Kill "kill",
}

impl FaultKind {
    pub const COUNT: usize = FaultKind::ALL.len();

    /// Done by people or the building, by a [`super::scenario::Deed`], and not by dice at a call.
    pub fn is_deed(self) -> bool {
        (FaultKind::SerialSwapped..=FaultKind::RackPower).contains(&self)
            || matches!(self, FaultKind::SecondDaemon | FaultKind::OldDatabase)
    }
}

/// One fault that was thrown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    pub at: EngineTime,
    pub kind: FaultKind,
    /// What it struck, where one time has several: the command before which the daemon died.
    pub note: Option<Box<str>>,
}

/// The rules of a run, shared by all its dice.
#[derive(Debug)]
struct Rules {
    rules: Vec<Rule>,
    /// First and last position of each kind's rules.
    of: [(u8, u8); FaultKind::COUNT],
    /// How often each may still strike.
    remaining: Vec<AtomicU32>,
}

impl Rules {
    fn new(profile: Option<&Profile>) -> Arc<Self> {
        let mut rules = profile.map(|p| p.rules.clone()).unwrap_or_default();
        rules.sort_by_key(|r| r.kind);
        rules.truncate(usize::from(u8::MAX));
        let mut of = [(0, 0); FaultKind::COUNT];
        for kind in FaultKind::ALL {
            let first = rules.partition_point(|r| r.kind < *kind);
            let last = rules.partition_point(|r| r.kind <= *kind);
            of[*kind as usize] =
                (u8::try_from(first).unwrap_or(u8::MAX), u8::try_from(last).unwrap_or(u8::MAX));
        }
        let remaining = rules.iter().map(|r| AtomicU32::new(r.remaining.unwrap_or(u32::MAX)));
        Arc::new(Self { remaining: remaining.collect(), rules, of })
    }
}

/// Where dice lie: what the rules may match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seat {
    /// `None`: the site's own dice.
    pub machine: Option<u32>,
    pub rack: u32,
    pub model: &'static str,
}

/// The dice of one machine (or of the site): rules, a generator and what it has thrown.
#[derive(Clone, Debug)]
pub struct Dice {
    rules: Arc<Rules>,
    rng: Rng,
    on: bool,
    seat: Seat,
    step: Option<&'static str>,
    act: Option<ActionKind>,
    log: Vec<Injected>,
    /// Played from a script instead of thrown: what has not struck yet.
    script: Option<Vec<Injected>>,
}

impl Dice {
    pub fn new(profile: &Profile, rng: Rng) -> Self {
        Self::with(Rules::new(Some(profile)), rng, true)
    }

    /// Dice that never throw anything: a healthy world.
    pub fn none() -> Self {
        Self::with(Rules::new(None), Rng::new(0), false)
    }

    fn with(rules: Arc<Rules>, rng: Rng, on: bool) -> Self {
        Self {
            rules,
            rng,
            on,
            seat: Seat::default(),
            step: None,
            act: None,
            log: Vec::new(),
            script: None,
        }
    }

    /// Dice of a machine under the same rules.
    pub fn sibling(&self, rng: Rng, seat: Seat) -> Self {
        Self { seat, script: None, ..Self::with(self.rules.clone(), rng, self.on) }
    }

    /// What the machine is doing: step kind and action, for rules that ask for it.
    pub fn set_scene(&mut self, step: Option<&'static str>, act: Option<ActionKind>) {
        (self.step, self.act) = (step, act);
    }

    /// The rack that the site's next throws are about.
    pub fn at_rack(&mut self, rack: u32) {
        self.seat.rack = rack;
    }

    /// From now on only what `script` says strikes: each at its first chance at or after its time.
    pub fn play(&mut self, script: Vec<Injected>) {
        self.script = Some(script);
    }

    pub fn is_played(&self) -> bool {
        self.script.is_some()
    }

    /// Throws `kind`? A throw is recorded.
    pub fn throw(&mut self, kind: FaultKind, at: EngineTime) -> bool {
        self.throw_at(kind, at, String::new).is_some()
    }

    /// Like [`Dice::throw`]; `note` tells what it would strike. The rule that struck.
    pub fn throw_at(
        &mut self,
        kind: FaultKind,
        at: EngineTime,
        note: impl Fn() -> String,
    ) -> Option<Rule> {
        if !self.on {
            return None;
        }
        if self.script.is_some() {
            return self.cue(kind, at, note);
        }
        let (first, last) = self.rules.of[kind as usize];
        for n in usize::from(first)..usize::from(last) {
            let rule = self.rules.rules[n];
            if !self.fits(&rule.matches, at) || !self.rng.chance(rule.per_million) {
                continue;
            }
            if rule.remaining.is_some() {
                let left = &self.rules.remaining[n];
                let before = left.load(Ordering::Relaxed);
                if before == 0 {
                    continue;
                }
                left.store(before - 1, Ordering::Relaxed);
            }
            let note = Some(note()).filter(|n| !n.is_empty()).map(String::into_boxed_str);
            self.log.push(Injected { at, kind, note });
            return Some(rule);
        }
        None
    }

    fn cue(&mut self, kind: FaultKind, at: EngineTime, note: impl Fn() -> String) -> Option<Rule> {
        let script = self.script.as_mut()?;
        let now = |c: &Injected| {
            c.kind == kind && c.at <= at && c.note.as_deref().is_none_or(|n| n == note())
        };
        let found = script.iter().position(now)?;
        let cue = script.remove(found);
        self.log.push(Injected { at, ..cue });
        Some(Rule::new(kind, 0))
    }

    fn fits(&self, m: &Match, at: EngineTime) -> bool {
        let machine = self.seat.machine.unwrap_or(u32::MAX);
        (m.from_ms..m.until_ms).contains(&at.0)
            && m.machines.is_none_or(|(a, b)| (a..=b).contains(&machine))
            && m.rack.is_none_or(|r| r == self.seat.rack)
            && m.model.is_none_or(|model| model == self.seat.model)
            && m.step.is_none_or(|s| self.step == Some(s))
            && m.act.is_none_or(|a| self.act == Some(a))
    }

    /// Draws how long something of this rule lasts.
    pub fn lasts(&mut self, rule: &Rule) -> u64 {
        self.rng.between(rule.lasts_ms.0, rule.lasts_ms.1)
    }

    /// Records a fault that was thrown elsewhere and struck here too (an outage, a full disk).
    pub fn record(&mut self, kind: FaultKind, at: EngineTime) {
        self.log.push(Injected { at, kind, note: None });
    }

    /// Faults on (the safety phase) or off (the liveness phase).
    pub fn set_on(&mut self, on: bool) {
        self.on = on;
    }

    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Everything thrown so far, oldest first.
    pub fn log(&self) -> &[Injected] {
        &self.log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_throw_as_often_as_their_rules_say_and_only_where_they_match() {
        let mut profile = Profile::none("test");
        let only = Match { machines: Some((3, 4)), from_ms: 100, ..Match::ANYWHERE };
        profile.rules = vec![
            Rule::new(FaultKind::ActLate, 40_000),
            Rule { matches: only, remaining: Some(2), ..Rule::new(FaultKind::Kill, 1_000_000) },
        ];
        let mut dice = Dice::new(&profile, Rng::new(1));
        let late = EngineTime(200);
        let thrown = (0..10_000).filter(|_| dice.throw(FaultKind::ActLate, late)).count();
        assert!((200..700).contains(&thrown), "{thrown}");
        assert_eq!(dice.log().len(), thrown);
        assert!(!dice.throw(FaultKind::Kill, late), "the site is no machine");
        let seat = |n| Seat { machine: Some(n), ..Seat::default() };
        let mut third = dice.sibling(Rng::new(2), seat(3));
        assert!(!third.throw(FaultKind::Kill, EngineTime(99)), "too early");
        assert!(third.throw(FaultKind::Kill, late));
        assert!(dice.sibling(Rng::new(3), seat(4)).throw(FaultKind::Kill, late));
        assert!(!third.throw(FaultKind::Kill, late), "it has struck twice");
        dice.set_on(false);
        assert!(!(0..10_000).any(|_| dice.throw(FaultKind::ActLate, late)));
    }

    #[test]
    fn a_script_strikes_at_the_first_chance_and_once() {
        let mut dice = Dice::new(&Profile::none("test"), Rng::new(1));
        let note = Some("act power-on".into());
        dice.play(vec![
            Injected { at: EngineTime(50), kind: FaultKind::ActLate, note: None },
            Injected { at: EngineTime(0), kind: FaultKind::Kill, note },
        ]);
        assert!(!dice.throw(FaultKind::ActLate, EngineTime(49)));
        assert!(dice.throw(FaultKind::ActLate, EngineTime(60)));
        assert!(!dice.throw(FaultKind::ActLate, EngineTime(61)));
        assert!(dice.throw_at(FaultKind::Kill, EngineTime(1), || "probe".into()).is_none());
        assert!(dice.throw_at(FaultKind::Kill, EngineTime(1), || "act power-on".into()).is_some());
    }
}
