//! What is tried before a person is called, as data: the shipped file is `remediation.toml`.

use crate::model::time::Span;

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

/// Everything of `remediation.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remediation {
    pub outage: OutageRule,
}
