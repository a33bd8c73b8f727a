//! Limits are data: overlapping buckets over failure domain × class (design law 9).

use super::expected::DomainKind;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitClass {
    /// Power changes that are not yet observed.
    Power,
    /// Firmware updates from intent until verified.
    Flash,
    /// Machines being imaged, from boot window to first login.
    Provision,
    BurnIn,
    /// Machines being emptied.
    Drain,
}

impl LimitClass {
    pub const ALL: [LimitClass; 5] = [
        LimitClass::Power,
        LimitClass::Flash,
        LimitClass::Provision,
        LimitClass::BurnIn,
        LimitClass::Drain,
    ];

    pub fn name(self) -> &'static str {
        match self {
            LimitClass::Power => "power",
            LimitClass::Flash => "flash",
            LimitClass::Provision => "provision",
            LimitClass::BurnIn => "burn-in",
            LimitClass::Drain => "drain",
        }
    }

    pub fn from_name(name: &str) -> Option<LimitClass> {
        LimitClass::ALL.into_iter().find(|c| c.name() == name)
    }
}

impl fmt::Display for LimitClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// At most `max` machines of each domain of kind `per` hold `class` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub class: LimitClass,
    pub per: DomainKind,
    pub max: u32,
}
