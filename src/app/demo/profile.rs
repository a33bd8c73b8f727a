//! The kinds of demo: what differs between a fleet to watch and a site to measure.

use super::Options;
use crate::config::inventory::default_limits;
use crate::model::{DomainKind, Limit, LimitClass};

/// What kind of demo it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// A small fleet that a person watches: quick answers, every fifth machine sick, limits of its
    /// own, programs on its hosts.
    #[default]
    Quick,
    /// A site: answer times of the field, unscaled; about 1 % sick; the limits that ship; hosts
    /// that answer scripts without running them.
    Site,
}

impl Profile {
    /// `None`: no such profile.
    pub fn from_name(name: &str) -> Option<Profile> {
        match name {
            "quick" => Some(Profile::Quick),
            "site" => Some(Profile::Site),
            _ => None,
        }
    }

    /// How many times faster than real time physics and engine run, where nobody says otherwise.
    pub fn time_scale(self) -> u32 {
        match self {
            Profile::Quick => Options::TIME_SCALE,
            Profile::Site => 30,
        }
    }

    /// One machine of so many has one kind of trouble.
    pub(super) fn trouble_block(self) -> u32 {
        match self {
            Profile::Quick => 24,
            // Four kinds for good: 0.8 % (field notes §6: 0.5–2 %).
            Profile::Site => 480,
        }
    }

    /// The limits in force, as the daemon will have them.
    pub fn limits(self, machines: u32) -> Vec<Limit> {
        let own = |class, per, max| Limit { class, per, max };
        match self {
            Profile::Quick => vec![
                own(LimitClass::Power, DomainKind::Rack, 8),
                own(LimitClass::Flash, DomainKind::Rack, 6),
                own(LimitClass::Flash, DomainKind::Site, 64),
                own(LimitClass::Provision, DomainKind::Rack, 8),
                own(LimitClass::Drain, DomainKind::Pool, 4),
                own(LimitClass::BurnIn, DomainKind::Power, 8),
            ],
            Profile::Site => default_limits(usize::try_from(machines).unwrap_or(usize::MAX)),
        }
    }
}
