//! What a stage is made of: one file a step kind, with its parameters, its pure judgement and the
//! actions it may ask for. A new kind is a file here, a line in [`Step`] and in `dispatch`.

pub mod bios;
pub mod burn_in;
pub mod catalog;
pub mod drain;
pub mod firmware;
pub mod identify;
pub mod inventory;
pub mod join;
pub mod leave;
pub mod power;
pub mod provision;
pub(crate) mod ramdisk;
pub mod release_bmc;
pub mod remediation;
pub mod rescue;
pub mod sanitize;
pub mod settings;
pub mod site;
pub mod version;
pub mod volume;
pub mod workflow;

use crate::model::facts::{ProbeSet, Task, TaskState};
use crate::model::{Action, EngineTime, Entry, Expected, Fault, LimitClass, Machine, Report};
use serde::{Deserialize, Serialize};
use site::{Profile, Site};
use workflow::StepSpec;

/// Every step kind with its parameters, as `kind` and `params` of a `[[step]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "params")]
pub enum Step {
    Identify(identify::Params),
    Inventory(inventory::Params),
    Firmware(firmware::Params),
    Bios(bios::Params),
    Volume(volume::Params),
    Provision(provision::Params),
    Power(power::Params),
    BurnIn(burn_in::Params),
    Join(join::Params),
    Drain(drain::Params),
    Leave(leave::Params),
    Sanitize(sanitize::Params),
    ReleaseBmc(release_bmc::Params),
    Rescue(rescue::Params),
}

macro_rules! dispatch {
    ($step:expr, $p:ident => $call:expr) => {
        match $step {
            Step::Identify($p) => $call,
            Step::Inventory($p) => $call,
            Step::Firmware($p) => $call,
            Step::Bios($p) => $call,
            Step::Volume($p) => $call,
            Step::Provision($p) => $call,
            Step::Power($p) => $call,
            Step::BurnIn($p) => $call,
            Step::Join($p) => $call,
            Step::Drain($p) => $call,
            Step::Leave($p) => $call,
            Step::Sanitize($p) => $call,
            Step::ReleaseBmc($p) => $call,
            Step::Rescue($p) => $call,
        }
    };
}

impl Step {
    /// Every kind's name, for diagnostics and coverage.
    pub const KINDS: [&'static str; 14] = [
        "identify",
        "inventory",
        "firmware",
        "bios",
        "volume",
        "provision",
        "power",
        "burn-in",
        "join",
        "drain",
        "leave",
        "sanitize",
        "release-bmc",
        "rescue",
    ];

    pub fn kind(&self) -> &'static str {
        match self {
            Step::Identify(_) => "identify",
            Step::Inventory(_) => "inventory",
            Step::Firmware(_) => "firmware",
            Step::Bios(_) => "bios",
            Step::Volume(_) => "volume",
            Step::Provision(_) => "provision",
            Step::Power(_) => "power",
            Step::BurnIn(_) => "burn-in",
            Step::Join(_) => "join",
            Step::Drain(_) => "drain",
            Step::Leave(_) => "leave",
            Step::Sanitize(_) => "sanitize",
            Step::ReleaseBmc(_) => "release-bmc",
            Step::Rescue(_) => "rescue",
        }
    }

    /// Which parts a probe must read before [`Step::look`].
    pub fn needs(&self, m: &Machine, profile: &Profile) -> ProbeSet {
        match self {
            Step::Bios(_) => bios::Params::needs_of(profile),
            Step::Volume(_) => volume::Params::needs_of(m, profile),
            _ => dispatch!(self, p => p.needs(m)),
        }
    }

    /// Headroom held from this step's first action to its end.
    pub fn holds(&self) -> Option<LimitClass> {
        match self {
            Step::Firmware(_) => Some(LimitClass::Flash),
            Step::Provision(_) => Some(LimitClass::Provision),
            Step::BurnIn(_) => Some(LimitClass::BurnIn),
            Step::Drain(_) => Some(LimitClass::Drain),
            _ => None,
        }
    }

    /// The pure judgement: what the fresh report means for this step. Called only when no action
    /// is open.
    pub fn look(&self, view: &View<'_>) -> Look {
        dispatch!(self, p => p.look(view))
    }
}

/// What a step may look at. No clock: `now` came with the event.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub m: &'a Machine,
    pub expected: &'a Expected,
    pub profile: &'a Profile,
    pub site: &'a Site,
    pub spec: &'a StepSpec,
    pub report: &'a Report,
    pub now: EngineTime,
    /// When actions were last allowed again, or the daemon came back after a time in which nobody
    /// watched: clocks of steps don't run meanwhile.
    pub resumed: EngineTime,
}

impl View<'_> {
    /// Name of this machine's current run in the outside world: unique over restores.
    pub fn run_name(&self) -> String {
        self.m.run_name(&self.site.incarnation)
    }

    /// A name for a job about to be started: unique per intent.
    pub fn job_name(&self, what: &str) -> String {
        format!("{what}-{}-{}-{}", self.site.incarnation, self.m.id, self.m.seq + 1)
    }

    /// What a task that may run is waited for with, in words that stay the same meanwhile.
    pub fn awaited(&self, task: &Task) -> String {
        match self.expected.bmc.controllers.of(&task.uri) {
            Some((c, _)) if task.is_unread_for(Fault::NO_PIN) => c.first_certificate(),
            Some((c, _)) if task.state == TaskState::Unread => {
                format!("{} to answer: an update may go on there", c.called())
            }
            Some((c, uri)) => format!("the task {uri} of {} to end", c.called()),
            None => format!("the BMC's task {} to end", task.uri),
        }
    }

    /// Milliseconds since `at` in which somebody could watch.
    pub fn watched_since(&self, at: EngineTime) -> u64 {
        self.now.since(at.max(self.resumed))
    }

    /// Milliseconds the current step has run (outages, holds, stops and the wait for room not
    /// counted).
    pub fn step_age(&self) -> u64 {
        self.m.step.as_ref().map_or(0, |s| s.age(self.now, self.resumed))
    }
}

/// A step's judgement.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// Observed: the step's goal is there.
    Done {
        evidence: String,
    },
    /// Not for this machine.
    Skip {
        reason: String,
    },
    /// Facts worth a journal entry of their own before anything else (a proven identity, a pinned
    /// key); the step is looked at again afterwards.
    Note(Vec<Entry>),
    Act(Action),
    /// Nothing to do but look again. `what` is for people and stays the same while it waits.
    Wait {
        what: String,
        poll_ms: u64,
    },
    /// The attempt failed.
    Fail(Fault),
    /// What the judgement needs could not be read: no attempt was made, none is charged.
    Unread(Fault),
}

impl Look {
    pub fn done(evidence: impl Into<String>) -> Self {
        Look::Done { evidence: evidence.into() }
    }

    pub fn wait(what: impl Into<String>, poll_ms: u64) -> Self {
        Look::Wait { what: what.into(), poll_ms }
    }
}

/// Reads one part of the report, or returns the look that its absence means.
macro_rules! need {
    ($read:expr) => {
        match &$read {
            $crate::model::Read::Seen(t) => t,
            $crate::model::Read::Failed(f) => return $crate::steps::Look::Unread(f.clone()),
            $crate::model::Read::NotAsked => {
                return $crate::steps::Look::Fail($crate::model::Fault::new(
                    $crate::model::FaultClass::Bug,
                    $crate::model::Channel::Engine,
                    "not-probed",
                    concat!("the probe did not read ", stringify!($read)),
                ));
            }
        }
    };
}
pub(crate) use need;
