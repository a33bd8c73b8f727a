//! Fault profiles: rules from TOML, those that ship and those of a file.

use super::faults::FaultKind;
use crate::config::fault_profile::{self, RawRule, Words};
use crate::config::{Diagnostic, Source};
use crate::model::ActionKind;
use crate::steps::Step;

/// Models of the virtual machines: one of four is a B; those of the last have a baseboard with a BMC
/// of its own.
pub const MODELS: [&str; 3] = ["Virtual GPU node", "Virtual GPU node B", "Virtual HGX node"];

/// Where and when a rule counts; `None` = everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// First and last machine.
    pub machines: Option<(u32, u32)>,
    pub rack: Option<u32>,
    pub model: Option<&'static str>,
    /// Step kind.
    pub step: Option<&'static str>,
    pub act: Option<ActionKind>,
    /// Milliseconds from the start of the run.
    pub from_ms: u64,
    pub until_ms: u64,
}

impl Match {
    pub const ANYWHERE: Match = Match {
        machines: None,
        rack: None,
        model: None,
        step: None,
        act: None,
        from_ms: 0,
        until_ms: u64::MAX,
    };
}

/// Throws `kind` in `per_million` of a million chances. What a chance is says the head of
/// `src/sim/profiles/calm.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub kind: FaultKind,
    pub per_million: u32,
    pub matches: Match,
    /// Strikes at most so often in a run.
    pub remaining: Option<u32>,
    /// Shortest and longest, milliseconds, for what lasts.
    pub lasts_ms: (u64, u64),
}

impl Rule {
    /// Everywhere, without an end.
    pub fn new(kind: FaultKind, per_million: u32) -> Self {
        Self { kind, per_million, matches: Match::ANYWHERE, remaining: None, lasts_ms: LASTS_MS }
    }
}

/// What lasts lasts so long when the rule does not say.
const LASTS_MS: (u64, u64) = (120_000, 2_520_000);

/// A named set of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: String,
    pub about: String,
    pub rules: Vec<Rule>,
    /// Machines that are sick for good, per million.
    pub sick_per_million: u32,
    /// Machines whose boards copy new images to a second place, per million.
    pub copies_per_million: u32,
    /// Machines whose GPUs are on a baseboard with a BMC of its own, per million of those that may.
    pub boards_per_million: u32,
    /// Quarantines within milliseconds that stop all actions; 0 = no circuit breaker.
    pub breaker: (u32, u64),
}

/// Name and text of the profiles that ship.
const SHIPPED: [(&str, &str); 8] = [
    ("calm", include_str!("profiles/calm.toml")),
    ("flaky", include_str!("profiles/flaky.toml")),
    ("chaos", include_str!("profiles/chaos.toml")),
    ("rack-loss", include_str!("profiles/rack-loss.toml")),
    ("switch-loss", include_str!("profiles/switch-loss.toml")),
    ("bad-firmware", include_str!("profiles/bad-firmware.toml")),
    ("humans", include_str!("profiles/humans.toml")),
    ("old-database", include_str!("profiles/old-database.toml")),
];

impl Profile {
    pub const NAMES: [&'static str; 8] = [
        SHIPPED[0].0,
        SHIPPED[1].0,
        SHIPPED[2].0,
        SHIPPED[3].0,
        SHIPPED[4].0,
        SHIPPED[5].0,
        SHIPPED[6].0,
        SHIPPED[7].0,
    ];

    /// Nothing goes wrong.
    pub fn none(name: &str) -> Self {
        Self {
            name: name.into(),
            about: String::new(),
            rules: Vec::new(),
            sick_per_million: 0,
            copies_per_million: 0,
            boards_per_million: 0,
            breaker: (0, 0),
        }
    }

    /// One of [`Profile::NAMES`].
    pub fn named(name: &str) -> Option<Profile> {
        let (name, text) = SHIPPED.iter().find(|(n, _)| *n == name)?;
        Profile::parse(&Source::new(format!("src/sim/profiles/{name}.toml"), *text)).ok()
    }

    /// A profile of somebody's file; every mistake with its place.
    pub fn parse(source: &Source) -> Result<Profile, Vec<Diagnostic>> {
        let words = Words {
            faults: FaultKind::ALL.iter().map(|k| k.name()).collect(),
            steps: Step::KINDS.to_vec(),
            acts: ActionKind::ALL.iter().map(|k| k.name()).collect(),
            models: MODELS.to_vec(),
        };
        let (raw, found) = fault_profile::parse(source, &words);
        if found.iter().any(Diagnostic::is_error) {
            return Err(found);
        }
        Ok(Profile {
            rules: raw.rules.iter().filter_map(rule).collect(),
            name: raw.name,
            about: raw.about,
            sick_per_million: raw.sick_per_million,
            copies_per_million: raw.copies_per_million,
            boards_per_million: raw.boards_per_million,
            breaker: raw.breaker,
        })
    }

    /// Does any rule throw `kind`?
    pub fn throws(&self, kind: FaultKind) -> bool {
        self.rules.iter().any(|r| r.kind == kind && r.per_million > 0)
    }
}

fn rule(raw: &RawRule) -> Option<Rule> {
    Some(Rule {
        kind: *FaultKind::ALL.get(raw.action)?,
        per_million: raw.per_million,
        matches: Match {
            machines: raw.machines,
            rack: raw.rack,
            model: raw.model.and_then(|i| MODELS.get(i).copied()),
            step: raw.step.and_then(|i| Step::KINDS.get(i).copied()),
            act: raw.act.and_then(|i| ActionKind::ALL.get(i).copied()),
            from_ms: raw.from_ms,
            until_ms: raw.until_ms.unwrap_or(u64::MAX),
        },
        remaining: raw.remaining,
        lasts_ms: raw.lasts_ms.unwrap_or(LASTS_MS),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_profiles_are_what_their_names_say_and_use_every_fault() {
        let mut thrown: Vec<FaultKind> = Vec::new();
        for (name, text) in SHIPPED {
            let found = Profile::parse(&Source::new(name, text));
            let profile = found.unwrap_or_else(|d| panic!("{}", crate::config::render(&d)));
            assert_eq!(profile.name, name);
            thrown.extend(profile.rules.iter().map(|r| r.kind));
        }
        for kind in FaultKind::ALL {
            assert!(thrown.contains(kind), "no profile throws {}", kind.name());
        }
        assert!(Profile::named("calm").unwrap().rules.is_empty());
    }

    #[test]
    fn all_mistakes_of_a_profile_are_told_with_their_places() {
        let text = "schema = 1\nname = \"mine\"\n[[rule]]\naction = \"flash-stuck\"\n\
                    probability = 1.5\nremainning = 3\n[[rule]]\naction = \"kill\"\n\
                    match = { step = \"burnin\", machines = \"9-3\", until = \"1x\" }\n";
        let found = Profile::parse(&Source::new("mine.toml", text)).unwrap_err();
        let shown = crate::config::render(&found);
        for wanted in [
            "mine.toml:4:10",
            "did you mean `flash-stuck-99`?",
            "`probability` must be a probability",
            "unknown key `remainning`",
            "did you mean `remaining`?",
            "`probability` is missing",
            "did you mean `burn-in`?",
            "`9-3` names no machines",
            "`1x` is not a duration",
        ] {
            assert!(shown.contains(wanted), "{wanted}:\n{shown}");
        }
    }
}
