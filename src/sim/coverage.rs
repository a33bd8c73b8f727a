//! What the seeds have touched: fault × step kind and crash × command. Seeds that touch nothing
//! prove nothing.

use super::faults::FaultKind;
use super::profile::Profile;
use crate::engine::Command;
use crate::model::{ActionKind, Entry, MachineId};
use crate::steps::Step;
use std::fmt::Write as _;

const STEPS: usize = Step::KINDS.len();
/// Column of machines without a step.
const NO_STEP: usize = STEPS;
const COLUMNS: usize = STEPS + 1;
/// Commands a daemon can die before: acts by kind, commits by kind of their intent, the rest.
const ACTS: usize = ActionKind::ALL.len();
const COMMANDS: usize = 2 * ACTS + 5;

/// Counters of one or many runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    faults: Vec<[u64; COLUMNS]>,
    crashes: [u64; COMMANDS],
    /// Steps that ended (done or skipped), by kind.
    pub ended: [u64; STEPS],
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            faults: vec![[0; COLUMNS]; FaultKind::COUNT],
            crashes: [0; COMMANDS],
            ended: [0; STEPS],
        }
    }
}

/// Position of a step kind in the matrix; `None` = no step.
pub fn column(kind: Option<&str>) -> usize {
    kind.and_then(|k| Step::KINDS.iter().position(|n| *n == k)).unwrap_or(NO_STEP)
}

fn row(command: &Command) -> usize {
    match command {
        Command::Act { action, .. } => action.kind() as usize,
        Command::Commit(item) => match item.entries.last() {
            Some(Entry::Intent { action, .. }) => ACTS + action.kind() as usize,
            _ => 2 * ACTS,
        },
        Command::Probe { .. } => 2 * ACTS + 1,
        Command::CommitStop { .. } => 2 * ACTS + 2,
        Command::Ack { .. } => 2 * ACTS + 3,
        Command::Halt { .. } => 2 * ACTS + 4,
    }
}

/// The machine that a command is about.
pub fn machine_of(command: &Command) -> Option<MachineId> {
    match command {
        Command::Act { machine, .. } | Command::Probe { machine, .. } => Some(*machine),
        Command::Commit(item) => Some(item.machine),
        Command::CommitStop { .. } | Command::Ack { .. } | Command::Halt { .. } => None,
    }
}

/// A command in words: `m4 act power-on`.
pub fn label(command: &Command) -> String {
    match machine_of(command) {
        Some(machine) => format!("{machine} {}", row_name(row(command))),
        None => row_name(row(command)),
    }
}

/// Can this fault strike in a step of this kind by the step's own doing?
fn meets(fault: &str, step: &str) -> bool {
    let acts = !matches!(step, "identify" | "inventory");
    match fault {
        "act-late" => matches!(step, "firmware" | "bios" | "volume" | "provision" | "power"),
        "boots-disk-not-pxe" | "callback-lost" | "callback-doubled" | "install-fails" => {
            step == "provision"
        }
        "job-lost-by-reboot" => matches!(step, "burn-in" | "sanitize"),
        "volume-fails" | "drive-dies" => step == "volume",
        // Elsewhere only what a cut would break is asked of it.
        "board-no-answer" => step == "firmware",
        "job-sick-gpu" => step == "burn-in",
        "workloads-late" => step == "drain",
        "shutdown-ignored" => step == "power",
        f if FaultKind::from_name(f).is_some_and(FaultKind::is_deed) => false,
        "disk-full" | "commit-stop-fails" | "commit-unknown" => false,
        "kill" | "commit-fails" => true,
        f if f.starts_with("flash-") => step == "firmware",
        f if f.starts_with("act-") => acts,
        _ => true,
    }
}

fn row_name(i: usize) -> String {
    match i {
        _ if i < ACTS => format!("act {}", ActionKind::ALL[i]),
        _ if i < 2 * ACTS => format!("commit intent {}", ActionKind::ALL[i - ACTS]),
        _ => ["commit other", "probe", "commit stop", "ack", "halt"][i - 2 * ACTS].to_string(),
    }
}

impl Coverage {
    pub fn fault(&mut self, kind: FaultKind, column: usize) {
        self.faults[kind as usize][column] += 1;
    }

    /// The daemon died before carrying this out.
    pub fn crash(&mut self, before: &Command) {
        self.crashes[row(before)] += 1;
    }

    pub fn add(&mut self, other: &Coverage) {
        for (mine, theirs) in self.faults.iter_mut().zip(&other.faults) {
            for (a, b) in mine.iter_mut().zip(theirs) {
                *a += b;
            }
        }
        for (a, b) in self.crashes.iter_mut().zip(&other.crashes) {
            *a += b;
        }
        for (a, b) in self.ended.iter_mut().zip(&other.ended) {
            *a += b;
        }
    }

    /// Step kinds that never ended, or that no fault has met although the profile has some.
    pub fn untouched_steps(&self, profile: &Profile) -> Vec<&'static str> {
        let faults = !profile.rules.is_empty();
        (0..STEPS)
            .filter(|c| faults && self.faults.iter().all(|f| f[*c] == 0) || self.ended[*c] == 0)
            .map(|c| Step::KINDS[c])
            .collect()
    }

    /// Faults of the profile that were never thrown.
    pub fn unthrown_faults(&self, profile: &Profile) -> Vec<&'static str> {
        FaultKind::ALL
            .iter()
            .filter(|k| profile.throws(**k) && self.faults[**k as usize].iter().all(|n| *n == 0))
            .map(|k| k.name())
            .collect()
    }

    /// Cells (fault, step kind) that could have a hit and have none: faults of a call meet every
    /// step that makes such a call; faults of the world (a swapped machine, an outage, a full
    /// disk) strike at any time and are counted by [`Coverage::unthrown_faults`].
    pub fn empty_cells(&self, profile: &Profile) -> Vec<String> {
        let mut empty = Vec::new();
        for kind in FaultKind::ALL {
            for (column, step) in Step::KINDS.iter().enumerate() {
                let thrown = profile.rules.iter().any(|r| {
                    r.kind == *kind
                        && r.per_million > 0
                        && r.matches.step.is_none_or(|s| s == *step)
                });
                if thrown && meets(kind.name(), step) && self.faults[*kind as usize][column] == 0 {
                    empty.push(format!("{} x {step}", kind.name()));
                }
            }
        }
        empty
    }

    /// Acts and intents before which no daemon has died.
    pub fn uncrashed_commands(&self) -> Vec<String> {
        (0..2 * ACTS + 4).filter(|i| self.crashes[*i] == 0).map(row_name).collect()
    }

    /// Cells with a hit, and all cells that could have one.
    pub fn cells(&self) -> (usize, usize) {
        let hit = self.faults.iter().flatten().filter(|n| **n > 0).count();
        (hit, FaultKind::COUNT * COLUMNS)
    }

    /// Both matrices as text.
    pub fn table(&self) -> String {
        let mut out = format!("{:<22}", "fault \\ step");
        for name in Step::KINDS.iter().chain(&["(none)"]) {
            let _ = write!(out, " {:>9.9}", name);
        }
        out.push('\n');
        for kind in FaultKind::ALL {
            let _ = write!(out, "{:<22}", kind.name());
            for n in self.faults[*kind as usize] {
                let _ = write!(out, " {n:>9}");
            }
            out.push('\n');
        }
        let _ = write!(out, "{:<22}", "steps ended");
        for n in self.ended {
            let _ = write!(out, " {n:>9}");
        }
        out.push_str("\n\ncrash before command\n");
        for (i, n) in self.crashes.iter().enumerate() {
            let _ = writeln!(out, "  {:<34} {n:>8}", row_name(i));
        }
        out
    }
}
