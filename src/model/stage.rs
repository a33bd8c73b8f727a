//! The closed graph of stages. ONE table of legal edges; the README's diagram is made from it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a machine is in its life. Conditions (held, unreachable, quarantined) stand beside it:
/// a failed machine keeps its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// BMC login, identity, inventory. Every new machine starts here, unmanaged.
    Discover,
    /// Bring firmware to the approved set.
    Firmware,
    /// Put the OS image on the machine.
    Provision,
    /// Prove the hardware.
    BurnIn,
    /// Resting: a provisioned spare.
    Ready,
    /// Join the cluster.
    Join,
    /// Resting: takes workloads.
    InService,
    /// Cordon and wait until the workloads have left.
    Drain,
    /// Resting: cordoned and empty.
    Drained,
    /// Resting: with people.
    Repair,
    /// Leave the cluster, sanitize, clean the BMC, power off.
    Retire,
    /// Resting: out of Farrier's hands.
    Retired,
}

impl Stage {
    /// Every stage, in life order.
    pub const ALL: [Stage; 12] = [
        Stage::Discover,
        Stage::Firmware,
        Stage::Provision,
        Stage::BurnIn,
        Stage::Ready,
        Stage::Join,
        Stage::InService,
        Stage::Drain,
        Stage::Drained,
        Stage::Repair,
        Stage::Retire,
        Stage::Retired,
    ];

    /// A resting place: nothing is under way; only people, health and drift matter there.
    pub fn is_resting(self) -> bool {
        matches!(
            self,
            Stage::Ready | Stage::InService | Stage::Drained | Stage::Repair | Stage::Retired
        )
    }

    /// The word used in files, the API and the CLI.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Discover => "discover",
            Stage::Firmware => "firmware",
            Stage::Provision => "provision",
            Stage::BurnIn => "burn-in",
            Stage::Ready => "ready",
            Stage::Join => "join",
            Stage::InService => "in-service",
            Stage::Drain => "drain",
            Stage::Drained => "drained",
            Stage::Repair => "repair",
            Stage::Retire => "retire",
            Stage::Retired => "retired",
        }
    }

    /// The stage with this [`Stage::name`].
    pub fn from_name(name: &str) -> Option<Stage> {
        Stage::ALL.into_iter().find(|s| s.name() == name)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One legal move between stages and what makes it happen.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    pub from: Stage,
    pub to: Stage,
    /// Why the move happens, as the diagram says it.
    pub when: &'static str,
}

const fn edge(from: Stage, to: Stage, when: &'static str) -> Edge {
    Edge { from, to, when }
}

/// All legal moves. `fold` refuses every other one.
pub const EDGES: &[Edge] = &[
    edge(Stage::Discover, Stage::Firmware, "enrolled"),
    edge(Stage::Discover, Stage::InService, "adopted, found in the cluster"),
    edge(Stage::Discover, Stage::Ready, "adopted, not in a cluster"),
    edge(Stage::Firmware, Stage::Provision, "firmware set verified"),
    edge(Stage::Provision, Stage::BurnIn, "image read back"),
    edge(Stage::BurnIn, Stage::Ready, "thresholds hold"),
    edge(Stage::Ready, Stage::Join, "desired in-service"),
    edge(Stage::Ready, Stage::Drained, "desired drained"),
    edge(Stage::Ready, Stage::Retire, "desired retired"),
    edge(Stage::Join, Stage::InService, "cluster says ready"),
    edge(Stage::InService, Stage::Drain, "desired drained, ready or retired"),
    edge(Stage::Drain, Stage::Drained, "empty"),
    edge(Stage::Drained, Stage::Join, "desired in-service"),
    edge(Stage::Drained, Stage::Firmware, "desired ready"),
    edge(Stage::Drained, Stage::Retire, "desired retired"),
    edge(Stage::Discover, Stage::Repair, "sent to repair"),
    edge(Stage::Firmware, Stage::Repair, "sent to repair"),
    edge(Stage::Provision, Stage::Repair, "sent to repair"),
    edge(Stage::BurnIn, Stage::Repair, "sent to repair"),
    edge(Stage::Drained, Stage::Repair, "sent to repair"),
    edge(Stage::Retire, Stage::Repair, "sent to repair"),
    edge(Stage::Repair, Stage::Discover, "enrolled again"),
    edge(Stage::Retire, Stage::Retired, "sanitized, off"),
    edge(Stage::Retired, Stage::Discover, "enrolled again"),
];

/// Is `from → to` in [`EDGES`]?
pub fn is_legal(from: Stage, to: Stage) -> bool {
    EDGES.iter().any(|e| e.from == from && e.to == to)
}

/// The stage diagram as Mermaid text, made from [`EDGES`]; the README's copy is tested equal.
pub fn diagram() -> String {
    let id = |s: Stage| s.name().replace('-', "_");
    let mut out = String::from("stateDiagram-v2\n    [*] --> discover\n");
    for s in Stage::ALL {
        if s.name().contains('-') {
            out += &format!("    state \"{}\" as {}\n", s.name(), id(s));
        }
    }
    for e in EDGES {
        out += &format!("    {} --> {}: {}\n", id(e.from), id(e.to), e.when);
    }
    for s in Stage::ALL.into_iter().filter(|s| s.is_resting()) {
        out += &format!("    class {} resting\n", id(s));
    }
    out += "    classDef resting font-weight:bold,stroke-width:3px\n";
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_match_serde() {
        for s in Stage::ALL {
            assert_eq!(Stage::from_name(s.name()), Some(s));
            assert_eq!(serde_json::to_string(&s).unwrap(), format!("\"{}\"", s.name()));
        }
    }

    #[test]
    fn every_stage_can_be_entered_and_left() {
        for s in Stage::ALL {
            assert!(EDGES.iter().any(|e| e.from == s), "{s} has no way out");
            assert!(EDGES.iter().any(|e| e.to == s), "{s} has no way in");
        }
    }
}
