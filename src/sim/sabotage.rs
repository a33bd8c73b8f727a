//! Deliberately broken directors and stores: what stands between the director and the world and
//! bends events and commands. The invariants must catch every one of them.

use super::broken::SEEDS;
use super::faults::FaultKind;
use super::profile::{Profile, Rule};
use super::run::{Ran, Runner, Spec};
use crate::decide::Rules;
use crate::engine::{Command, Event};
use crate::model::{EngineTime, Entry, MachineId, Stage};
use crate::port::store::{Committed, StoreError};
use crate::steps::site::Site;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Acts as soon as the intent was handed to the store.
    ActsBeforeCommit,
    /// Acts once more when it hears of a commit again.
    ActsTwice,
    /// Acts on something else than what the intent expects.
    ActsBlindly,
    /// Acknowledges a change when it is said.
    AcksEarly,
    /// Acknowledges a stop and does not write it.
    ForgetsStop,
    /// The limits are not known any more after a restart.
    ForgetsLimits,
    /// Throws away what comes while a commit is under way.
    DropsBacklog,
    /// Takes a commit that failed for one that was made.
    BelievesFailedCommits,
    /// Tries a commit again whose outcome nobody knows.
    RetriesUnknownCommits,
    /// Writes although another daemon has taken over.
    NotFenced,
    /// Reads a machine twice at a time.
    ProbesTwice,
    /// The circuit breaker is not connected.
    SleepyBreaker,
    /// Writes rows that its entries do not make.
    BendsRows,
    /// Sends machines along edges that there are not.
    LeavesTheGraph,
    /// Starts actions on quarantined machines.
    WorksInQuarantine,
    /// Exits for no reason.
    HaltsForNothing,
    /// The disk confirms what it has not written.
    LyingDisk,
}

impl Defect {
    pub const ALL: [Defect; 17] = [
        Defect::ActsBeforeCommit,
        Defect::ActsTwice,
        Defect::ActsBlindly,
        Defect::AcksEarly,
        Defect::ForgetsStop,
        Defect::ForgetsLimits,
        Defect::DropsBacklog,
        Defect::BelievesFailedCommits,
        Defect::RetriesUnknownCommits,
        Defect::NotFenced,
        Defect::ProbesTwice,
        Defect::SleepyBreaker,
        Defect::BendsRows,
        Defect::LeavesTheGraph,
        Defect::WorksInQuarantine,
        Defect::HaltsForNothing,
        Defect::LyingDisk,
    ];

    /// Rules of which at least one must be reported.
    pub fn caught_by(self) -> &'static [&'static str] {
        match self {
            Defect::ActsBeforeCommit => &["act-without-intent"],
            Defect::ActsTwice => &["act-twice"],
            Defect::ActsBlindly => &["act-differs-from-intent"],
            Defect::AcksEarly | Defect::ForgetsStop => &["ack-not-durable"],
            Defect::ForgetsLimits => &["limit"],
            Defect::DropsBacklog => &["never-answered", "liveness"],
            Defect::BelievesFailedCommits | Defect::RetriesUnknownCommits => {
                &["conflict", "act-without-intent"]
            }
            Defect::NotFenced => &["stale-epoch"],
            Defect::ProbesTwice => &["two-at-once"],
            Defect::SleepyBreaker => &["breaker-slept"],
            Defect::BendsRows => &["fold-differs"],
            Defect::LeavesTheGraph => &["illegal-edge"],
            Defect::WorksInQuarantine => &["quarantined-touched"],
            Defect::HaltsForNothing => &["halt"],
            Defect::LyingDisk => &["journal-gap"],
        }
    }

    /// Chaos, with more of what this defect stumbles over.
    fn profile(self) -> Profile {
        let mut profile = Profile::named("chaos").unwrap_or_else(|| Profile::none("chaos"));
        match self {
            Defect::RetriesUnknownCommits => {
                profile.rules.push(Rule::new(FaultKind::CommitUnknown, 2_000));
            }
            // No death that would make people say it again.
            Defect::DropsBacklog => {
                profile.rules = vec![Rule::new(FaultKind::DiskFull, 2_000)];
            }
            Defect::SleepyBreaker => profile.breaker = (3, 7_200_000),
            _ => {}
        }
        profile
    }
}

/// One defect at work in one run.
#[derive(Debug)]
pub struct Sabotage {
    defect: Defect,
    committing: BTreeSet<MachineId>,
    acted: BTreeSet<(MachineId, u64)>,
    quarantined: BTreeSet<MachineId>,
    early: Option<u64>,
    said: u64,
}

impl Sabotage {
    pub fn new(defect: Defect) -> Self {
        Self {
            defect,
            committing: BTreeSet::new(),
            acted: BTreeSet::new(),
            quarantined: BTreeSet::new(),
            early: None,
            said: 0,
        }
    }

    /// Does the store refuse a daemon whose epoch is over?
    pub fn fences(&self) -> bool {
        self.defect != Defect::NotFenced
    }

    /// Does the disk lose what it confirmed when the daemon dies?
    pub fn forgets(&self) -> bool {
        self.defect == Defect::LyingDisk
    }

    /// The director has started: what it hears at once.
    pub fn started(&mut self, life: u32, site: &Arc<Site>) -> Option<Event> {
        self.committing.clear();
        let mut site = Site::clone(site);
        match self.defect {
            Defect::ForgetsLimits if life > 0 => site.limits.clear(),
            Defect::SleepyBreaker => site.breaker_quarantines = 0,
            _ => return None,
        }
        Some(Event::Site { site: Arc::new(site) })
    }

    /// What the director hears of this event.
    pub fn hears(&mut self, event: Event) -> Vec<Event> {
        match (self.defect, event) {
            (
                Defect::DropsBacklog,
                Event::Change { machine, .. } | Event::Acted { machine, .. },
            ) if self.committing.contains(&machine) => Vec::new(),
            (Defect::DropsBacklog, Event::Committed { machine, result }) => {
                self.committing.remove(&machine);
                vec![Event::Committed { machine, result }]
            }
            (Defect::BelievesFailedCommits, Event::Committed { machine, result: Err(_) }) => {
                vec![Event::Committed { machine, result: Ok(Committed::Durable) }]
            }
            (
                Defect::RetriesUnknownCommits,
                Event::Committed { machine, result: Err(StoreError::Unknown(why)) },
            ) => {
                vec![Event::Committed { machine, result: Err(StoreError::NotWritten(why)) }]
            }
            (Defect::AcksEarly, Event::Change { machine, change, by, key, ticket }) => {
                self.early = Some(ticket);
                vec![Event::Change { machine, change, by, key, ticket }]
            }
            (_, event) => vec![event],
        }
    }

    /// Bends what the director says; returns what it is answered at once.
    pub fn says(&mut self, now: EngineTime, out: &mut Vec<Command>) -> Vec<Event> {
        let mut answers = Vec::new();
        let commands = std::mem::take(out);
        out.extend(self.early.take().map(|ticket| Command::Ack { ticket, result: Ok(0) }));
        for command in commands {
            self.said += 1;
            self.bend(now, command, out, &mut answers);
        }
        answers
    }

    fn bend(
        &mut self,
        now: EngineTime,
        command: Command,
        out: &mut Vec<Command>,
        answers: &mut Vec<Event>,
    ) {
        match (self.defect, command) {
            (Defect::DropsBacklog, Command::Commit(item)) => {
                self.committing.insert(item.machine);
                out.push(Command::Commit(item));
            }
            (Defect::ActsBeforeCommit, Command::Commit(item)) => {
                let early = match item.entries.last() {
                    Some(Entry::Intent { action, expect, .. }) => Some(Command::Act {
                        machine: item.machine,
                        seq: item.row.seq,
                        action: action.clone(),
                        expect: expect.clone(),
                    }),
                    _ => None,
                };
                self.acted.extend(early.as_ref().map(|_| (item.machine, item.row.seq)));
                out.push(Command::Commit(item));
                out.extend(early);
            }
            (Defect::ActsBeforeCommit, Command::Act { machine, seq, action, expect }) => {
                if !self.acted.remove(&(machine, seq)) {
                    out.push(Command::Act { machine, seq, action, expect });
                }
            }
            (Defect::ActsTwice, act @ Command::Act { .. }) => out.extend([act.clone(), act]),
            (Defect::ActsBlindly, Command::Act { machine, seq, action, .. }) => {
                out.push(Command::Act { machine, seq, action, expect: Default::default() });
            }
            (Defect::ForgetsStop, Command::CommitStop { stopped: Some(_) }) => {
                answers.push(Event::StopCommitted { result: Ok(()) });
            }
            (Defect::ProbesTwice, probe @ Command::Probe { .. })
                if self.said.is_multiple_of(64) =>
            {
                out.extend([probe.clone(), probe]);
            }
            (Defect::BendsRows, Command::Commit(mut item)) => {
                if item.row.step.is_some() && item.row.last_fault.is_some() {
                    item.row.last_fault = None;
                }
                out.push(Command::Commit(item));
            }
            (Defect::LeavesTheGraph, Command::Commit(mut item)) => {
                for entry in &mut item.entries {
                    if let Entry::Entered { stage: stage @ Stage::Provision } = entry {
                        *stage = Stage::InService;
                    }
                }
                out.push(Command::Commit(item));
            }
            (Defect::WorksInQuarantine, Command::Commit(mut item)) => {
                // The quarantine slips in just before the intent.
                if let Some(Entry::Intent { .. }) = item.entries.last()
                    && self.quarantined.insert(item.machine)
                {
                    let fault = super::broken::boredom("nothing");
                    let at = item.entries.len() - 1;
                    item.entries.insert(at, Entry::Quarantined { fault });
                    item.row.seq += 1;
                }
                out.push(Command::Commit(item));
            }
            (Defect::WorksInQuarantine, Command::Act { machine, seq, action, expect })
                if self.quarantined.contains(&machine) =>
            {
                out.push(Command::Act { machine, seq: seq + 1, action, expect });
            }
            (Defect::HaltsForNothing, command) => {
                out.push(command);
                if self.said == 5_000 {
                    out.push(Command::Halt { why: format!("bored at {} ms", now.0) });
                }
            }
            (_, command) => out.push(command),
        }
    }
}

/// One run with this defect.
pub fn run(spec: &Spec, defect: Defect) -> Ran {
    let mut runner = Runner::new(spec.clone(), Rules);
    runner.sabotage(Sabotage::new(defect));
    runner.finish()
}

/// The first seed from `first` that catches `defect`, and all rules reported until then.
pub fn first_catch(defect: Defect, first: u64) -> (Option<u64>, BTreeSet<&'static str>) {
    let mut seen = BTreeSet::new();
    for seed in first..first + SEEDS {
        let spec =
            Spec { liveness_days: 2, stop_after: 50, ..Spec::new(20, 3, seed, defect.profile()) };
        let ran = run(&spec, defect);
        seen.extend(ran.violations.iter().map(|v| v.rule));
        if defect.caught_by().iter().any(|rule| seen.contains(rule)) {
            return (Some(seed), seen);
        }
    }
    (None, seen)
}
