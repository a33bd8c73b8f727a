//! What is tried before a person is called, as data: the shipped file is `remediation.toml`.

use crate::model::remedy::Remedy;
use crate::model::time::Span;
use crate::model::{Channel, Fault, FaultClass};

/// When machines that fall silent together mean that something they share is out, and not they.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutageRule {
    /// Fewest machines of a domain that make an outage. Two may be chance or one person's work.
    pub machines: u32,
    /// Percent of the domain's machines that must have stopped, of those that answered before.
    pub share: u32,
    /// The same for the whole site, whose cause is likeliest the daemon's own network. Higher,
    /// because in a site of two racks one dead rack is half of it.
    pub site_share: u32,
    /// They stopped within this time of one another.
    pub window: Span,
    /// So long after an outage has begun or ended its machines' failures are laid to it.
    pub grace: Span,
    /// When it ends, its machines are looked at spread over at least this time.
    pub spread: Span,
}

/// The defaults are estimates, to be corrected by sites: a BMC that is cut off is noticed after one
/// probe's deadline (90 s at most), so a window of two minutes sees a domain's machines together
/// once they are asked; a host takes 2 to 15 minutes from power to its operating system (field notes
/// on Redfish, §6 line 6), hence the grace.
impl Default for OutageRule {
    fn default() -> Self {
        Self {
            machines: 3,
            share: 50,
            site_share: 80,
            window: Span(120_000),
            grace: Span(900_000),
            spread: Span(60_000),
        }
    }
}

/// What follows refused credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relogin {
    /// Tries after the first refusal.
    pub limit: u16,
    /// Before each of them: longer than the lock-out windows of BMCs that forgive (30 s to 5 min in
    /// captured trees); two tries in all stay below every captured threshold (3 and more).
    pub pause: Span,
}

impl Default for Relogin {
    fn default() -> Self {
        Self { limit: 1, pause: Span(360_000) }
    }
}

/// One rung: what is done after so many failures, how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    pub remedy: Remedy,
    /// Failures of the same kind before it.
    pub after: u32,
    /// Times within `window`, for one machine.
    pub limit: u32,
    pub window: Span,
}

/// The rungs for some faults, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    pub class: FaultClass,
    pub channel: Channel,
    /// Fault codes; empty = every one of the class on the channel.
    pub codes: Vec<String>,
    pub rungs: Vec<Rung>,
}

/// Everything of `remediation.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remediation {
    pub outage: OutageRule,
    pub relogin: Relogin,
    /// Shortest time between two resets of one machine, BMC or power, Farrier's own steps' too.
    pub interval: Span,
    /// The first that fits a fault counts.
    pub ladders: Vec<Ladder>,
}

/// No ladders: failures are tried again, then a person is called.
impl Default for Remediation {
    fn default() -> Self {
        Self {
            outage: OutageRule::default(),
            relogin: Relogin::default(),
            interval: Span(1_800_000),
            ladders: Vec::new(),
        }
    }
}

impl Remediation {
    /// The rungs for a fault.
    pub fn rungs(&self, fault: &Fault) -> &[Rung] {
        let fits = |l: &&Ladder| {
            l.class == fault.class
                && l.channel == fault.channel
                && (l.codes.is_empty() || l.codes.iter().any(|c| *c == fault.code))
        };
        self.ladders.iter().find(fits).map_or(&[], |l| &l.rungs)
    }
}
