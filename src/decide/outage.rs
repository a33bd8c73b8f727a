//! Machines that fall silent together: the switch, the power or the chassis they share is out, and
//! nothing is concluded about any one of them (design law 8).

use crate::model::time::Span;
use crate::model::{Channel, DomainKind, EngineTime, Fault, FaultClass, Machine};
use crate::steps::remediation::OutageRule;
use std::fmt;
use std::sync::Arc;

/// A failure domain whose machines stopped answering together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    pub kind: DomainKind,
    pub name: Arc<str>,
    /// On which way they went silent: [`Channel::Bmc`] or [`Channel::Host`].
    pub channel: Channel,
    /// How many are silent, of how many that answered before it began.
    pub out: u32,
    pub of: u32,
    /// When the first and the last of them stopped.
    pub since: EngineTime,
    pub last: EngineTime,
    /// The window of the rule by which it was judged.
    pub window: Span,
    /// Enough machines answer again since then; kept for a while, because what it cut shows late.
    pub healed: Option<EngineTime>,
}

impl Outage {
    pub fn is_over(&self) -> bool {
        self.healed.is_some()
    }

    /// `rack r3`.
    pub fn domain(&self) -> String {
        format!("{} {}", self.kind.name(), self.name)
    }

    /// Is it the reason of a machine that fell silent at `stopped` and did not answer since?
    pub fn covers(&self, stopped: EngineTime) -> bool {
        !self.is_over() || stopped >= self.since && stopped <= self.last + self.window.0
    }

    /// Is it young enough, or over for so short a time, that a machine which answers may still show
    /// what it did?
    pub fn is_fresh(&self, rule: &OutageRule, now: EngineTime) -> bool {
        now.since(self.healed.unwrap_or(self.last)) < rule.grace.0
    }

    /// What they share, in the words of whoever has to go there.
    fn cause(&self) -> String {
        let name = &self.name;
        match (self.kind, self.channel) {
            (DomainKind::Site, _) => "the network of this daemon, not the machines".into(),
            (DomainKind::Rack, Channel::Host) => {
                format!("the network or the power of {name}, not this machine")
            }
            (DomainKind::Rack, _) => format!("the switch or the power of {name}, not this machine"),
            (DomainKind::Power, _) => format!("power feed {name}, not this machine"),
            (DomainKind::Chassis, _) => format!("chassis {name} or its power, not this machine"),
            (DomainKind::Switch, _) => format!("switch {name}, not this machine"),
            (DomainKind::Cooling, _) => format!("cooling loop {name}, not this machine"),
            (DomainKind::Nvlink, _) => format!("NVLink domain {name}, not this machine"),
            (DomainKind::Pool, _) => format!("something that pool {name} shares"),
        }
    }
}

impl fmt::Display for Outage {
    /// `rack r3: 18 of 20 machines stopped answering within 2 min: the switch or the power of r3,
    /// not this machine`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.channel == Channel::Host { "answering SSH" } else { "answering" };
        // Those that were asked late stopped no later than the others, but were seen to.
        let within = self.last.since(self.since).max(self.window.0).div_ceil(60_000);
        write!(
            f,
            "{}: {} of {} machines stopped {how} within {within} min: {}",
            self.domain(),
            self.out,
            self.of,
            self.cause()
        )
    }
}

/// Percent of a domain's machines that must stop together.
fn share(rule: &OutageRule, kind: DomainKind) -> u64 {
    u64::from(if kind == DomainKind::Site { rule.site_share } else { rule.share })
}

/// The rule: are `stopped` of `of` machines, those that answered when the window began, so many
/// that the domain is out?
pub fn is_out(rule: &OutageRule, kind: DomainKind, stopped: usize, of: usize) -> bool {
    stopped >= rule.machines.max(2) as usize
        && stopped as u64 * 100 >= share(rule, kind) * of as u64
}

/// A pool is a name that people gave; its machines share nothing that fails.
pub fn can_fail(kind: DomainKind) -> bool {
    kind != DomainKind::Pool
}

/// An outage that this failure is laid to: nothing is charged for it, and it is no reason for a
/// quarantine. What a machine says about itself (wrong identity, broken hardware, refused
/// credentials) is never excused.
pub(super) fn excuse(outage: Option<&Outage>, m: &Machine, fault: &Fault) -> Option<String> {
    let passing = matches!(fault.class, FaultClass::Transient | FaultClass::OutcomeUnknown);
    if !passing || fault.channel == Channel::Cluster {
        return None;
    }
    match outage {
        Some(outage) => Some(outage.domain()),
        None if m.step.as_ref().is_some_and(|s| s.cut) => Some("an outage before".into()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage() -> Outage {
        Outage {
            kind: DomainKind::Rack,
            name: "r3".into(),
            channel: Channel::Bmc,
            out: 18,
            of: 20,
            since: EngineTime(1_000),
            last: EngineTime(61_000),
            window: OutageRule::default().window,
            healed: None,
        }
    }

    #[test]
    fn it_reads_as_a_person_would_say_it() {
        assert_eq!(
            outage().to_string(),
            "rack r3: 18 of 20 machines stopped answering within 2 min: the switch or the power \
             of r3, not this machine"
        );
        let site = Outage { kind: DomainKind::Site, name: "s".into(), ..outage() };
        assert!(site.to_string().ends_with("the network of this daemon, not the machines"));
    }

    #[test]
    fn three_and_half_of_a_domain_but_most_of_a_site() {
        let rule = OutageRule::default();
        assert!(!is_out(&rule, DomainKind::Rack, 2, 2), "two may be chance");
        assert!(is_out(&rule, DomainKind::Rack, 3, 6));
        assert!(!is_out(&rule, DomainKind::Rack, 3, 7));
        assert!(!is_out(&rule, DomainKind::Site, 20, 40), "one of two racks is not the site");
        assert!(is_out(&rule, DomainKind::Site, 32, 40));
    }

    #[test]
    fn a_machine_that_died_before_or_long_after_is_not_covered() {
        let mut o = outage();
        assert!(o.covers(EngineTime(0)), "while it lasts nothing is concluded");
        o.healed = Some(EngineTime(500_000));
        assert!(!o.covers(EngineTime(0)));
        assert!(o.covers(EngineTime(30_000)));
        assert!(!o.covers(EngineTime(400_000)));
    }
}
