//! What Farrier may do to a machine so that something works again which trying again did not mend.

use super::action::{Action, PowerOp};
use super::time::EngineTime;
use serde::{Deserialize, Serialize};

/// A rung of a ladder that acts. It becomes an ordinary intent. (An AC cycle is no action yet.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    BmcReset,
    PowerCycle,
}

impl Remedy {
    pub fn name(self) -> &'static str {
        match self {
            Remedy::BmcReset => "bmc-reset",
            Remedy::PowerCycle => "power-cycle",
        }
    }

    pub fn action(self) -> Action {
        match self {
            Remedy::BmcReset => Action::BmcReset { controller: None },
            Remedy::PowerCycle => Action::Power { op: PowerOp::ForceRestart },
        }
    }
}

/// One that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedied {
    pub remedy: Remedy,
    pub at: EngineTime,
    /// Journal seq of its entry; that of its intent is the next.
    pub seq: u64,
    /// The code of the fault it was for.
    pub code: Box<str>,
}

/// How many of them a row remembers: more than any window's limits allow.
pub const REMEDIES_KEPT: usize = 12;
