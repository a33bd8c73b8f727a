//! Fault profiles as data, and the dice that throw them. Every injected fault is recorded, so that
//! a quarantine can be traced to one.

use super::rng::Rng;
use crate::model::EngineTime;
use std::sync::Arc;

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
    Outage "switch-outage",
    // What the daemon and its store meet.
    CommitFails "commit-fails",
    DiskFull "disk-full",
    Kill "kill",
}

impl FaultKind {
    pub const COUNT: usize = FaultKind::ALL.len();
}

/// Throws `kind` in `per_million` of a million chances. A chance is one probe, action, flash, boot,
/// job, drain or commit; for [`FaultKind::Kill`] one command of the director; for what people and
/// the building do, one hour of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub kind: FaultKind,
    pub per_million: u32,
}

/// A named set of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: &'static str,
    pub rules: Vec<Rule>,
    /// Machines that are sick for good, per million.
    pub sick_per_million: u32,
}

impl Profile {
    pub const NAMES: [&'static str; 3] = ["calm", "flaky", "chaos"];

    /// `calm`, `flaky` or `chaos`.
    pub fn named(name: &str) -> Option<Profile> {
        let rules = |list: &[(FaultKind, u32)]| -> Vec<Rule> {
            list.iter().map(|(kind, p)| Rule { kind: *kind, per_million: *p }).collect()
        };
        match name {
            "calm" => Some(Profile { name: "calm", rules: Vec::new(), sick_per_million: 0 }),
            "flaky" => {
                Some(Profile { name: "flaky", rules: rules(FLAKY), sick_per_million: 10_000 })
            }
            "chaos" => {
                Some(Profile { name: "chaos", rules: rules(CHAOS), sick_per_million: 25_000 })
            }
            _ => None,
        }
    }

    fn table(&self) -> [u32; FaultKind::COUNT] {
        let mut table = [0; FaultKind::COUNT];
        for rule in &self.rules {
            table[rule.kind as usize] = rule.per_million;
        }
        table
    }
}

use FaultKind as K;

/// What a healthy site has in a bad week.
const FLAKY: &[(FaultKind, u32)] = &[
    (K::ProbeNoAnswer, 4_000),
    (K::ProbeHang, 500),
    (K::ProbeError, 3_000),
    (K::ProbeThrottled, 2_000),
    (K::ActLostBefore, 10_000),
    (K::ActLostAfter, 10_000),
    (K::ActRefused, 10_000),
    (K::FlashFails, 20_000),
    (K::BootsDisk, 20_000),
    (K::CallbackDoubled, 30_000),
    (K::InstallFails, 10_000),
    (K::ShutdownIgnored, 50_000),
    (K::Kill, 20),
];

/// Everything, far more often than any site has it.
const CHAOS: &[(FaultKind, u32)] = &[
    (K::ProbeNoAnswer, 10_000),
    (K::ProbeHang, 2_000),
    (K::ProbeError, 8_000),
    (K::ProbeAuth, 1_500),
    (K::ProbeThrottled, 6_000),
    (K::ProbePartial, 6_000),
    (K::ActLostBefore, 30_000),
    (K::ActLostAfter, 40_000),
    (K::ActLate, 40_000),
    (K::ActNotDone, 25_000),
    (K::ActRefused, 25_000),
    (K::ActThrottled, 20_000),
    (K::FlashStuck, 25_000),
    (K::FlashFails, 40_000),
    (K::FlashVanishes, 50_000),
    (K::FlashUnchanged, 30_000),
    (K::FlashEarly, 40_000),
    (K::BootsDisk, 50_000),
    (K::CallbackLost, 30_000),
    (K::CallbackDoubled, 50_000),
    (K::InstallFails, 30_000),
    (K::JobLost, 30_000),
    (K::JobSickGpu, 15_000),
    (K::WorkloadsLate, 30_000),
    (K::ShutdownIgnored, 150_000),
    (K::SerialSwapped, 150),
    (K::WrongHost, 150),
    (K::HumanPower, 600),
    (K::Outage, 300),
    (K::CommitFails, 1_500),
    (K::DiskFull, 60),
    (K::Kill, 300),
];

/// One fault that was thrown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injected {
    pub at: EngineTime,
    pub kind: FaultKind,
}

/// The dice of one machine (or of the site): a profile, a generator and what it has thrown.
#[derive(Clone, Debug)]
pub struct Dice {
    table: Arc<[u32; FaultKind::COUNT]>,
    rng: Rng,
    on: bool,
    log: Vec<Injected>,
}

impl Dice {
    pub fn new(profile: &Profile, rng: Rng) -> Self {
        Self { table: Arc::new(profile.table()), rng, on: true, log: Vec::new() }
    }

    /// Dice that never throw anything: a healthy world.
    pub fn none() -> Self {
        Self {
            table: Arc::new([0; FaultKind::COUNT]),
            rng: Rng::new(0),
            on: false,
            log: Vec::new(),
        }
    }

    /// Dice of another machine with the same profile.
    pub fn sibling(&self, rng: Rng) -> Self {
        Self { table: self.table.clone(), rng, on: self.on, log: Vec::new() }
    }

    /// Throws `kind`? A throw is recorded.
    pub fn throw(&mut self, kind: FaultKind, at: EngineTime) -> bool {
        let p = self.table[kind as usize];
        if p == 0 || !self.on || !self.rng.chance(p) {
            return false;
        }
        self.log.push(Injected { at, kind });
        true
    }

    /// Records a fault that was thrown elsewhere and struck here too (an outage, a kill).
    pub fn record(&mut self, kind: FaultKind, at: EngineTime) {
        self.log.push(Injected { at, kind });
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
    fn chaos_throws_every_kind_and_calm_none() {
        let chaos = Profile::named("chaos").unwrap();
        for kind in FaultKind::ALL {
            assert!(chaos.rules.iter().any(|r| r.kind == *kind), "{}", kind.name());
            assert_eq!(FaultKind::from_name(kind.name()), Some(*kind));
        }
        assert!(Profile::named("calm").unwrap().rules.is_empty());
        let mut dice = Dice::new(&chaos, Rng::new(1));
        let thrown = (0..10_000).filter(|_| dice.throw(K::ActLate, EngineTime::ZERO)).count();
        assert!((200..700).contains(&thrown), "{thrown}");
        assert_eq!(dice.log().len(), thrown);
        dice.set_on(false);
        assert!(!(0..10_000).any(|_| dice.throw(K::ActLate, EngineTime::ZERO)));
    }
}
