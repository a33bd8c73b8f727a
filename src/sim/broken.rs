//! Deliberately broken deciders. Each wraps the production rules and breaks one thing; the
//! invariants must catch every one of them, or they prove nothing.

use super::faults::FaultKind;
use super::profile::{Profile, Rule};
use super::run::{Spec, run};
use crate::decide::{Decide, Input, Room, Rules, Verdict};
use crate::model::facts::{Membership, Power};
use crate::model::{
    Action, ActionKind, Channel, Control, Entry, Expect, Fault, FaultClass, LimitClass, MachineId,
    OpenState, Outcome, PowerOp, Read, Stage, StepEnd,
};
use std::collections::BTreeSet;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Intents expect nobody in particular, and nobody checks who answers.
    NoIdentity,
    /// An update without an answer counts as not done at once, and is issued again.
    ReissueNever,
    /// There is always room.
    NoLimits,
    /// A hold is not seen.
    IgnoreHold,
    /// `farrier stop` is not seen.
    IgnoreStop,
    /// Probes-only machines are worked on.
    ManageUnmanaged,
    /// A step counts as done when a call said so: an update is through once it was taken.
    TrustTheCall,
    /// Drains are over at once.
    SkipDrain,
    /// Power is cut while an update runs.
    CutDuringFlash,
    /// The first fault is for a person.
    QuarantineForNothing,
    /// Other tasks of a BMC are not seen.
    IgnoreTasks,
    /// Once an update was taken, its version is believed to run.
    AssumeVersion,
    /// Waits without an end.
    NeverDone,
    /// Job output goes into the journal.
    LeakOutput,
    /// An adopted machine is rebuilt as if it had been enrolled.
    RebuildAdopted,
    /// Believes in the versions of the delivery, and expects none at the write.
    FlashesForEver,
    /// A wipe that takes long is started anew.
    WipesAgain,
    /// Quarantined machines go on with their next step.
    MovesOn,
    /// The room of an update is given away while it runs.
    LetsGo,
    /// A BMC that does not answer costs an attempt.
    ChargesOutages,
    /// A rescue boots what the profile installs.
    RescueInstalls,
    /// BIOS settings that wait for a POST count as in force.
    AssumeBios,
    /// Images that are copied in the background are not seen.
    IgnoreCopies,
    /// A volume that is not shown yet is ordered once more.
    RemakesVolumes,
    /// Nobody looks at what is on the drives of a volume.
    VolumeOverData,
}

impl Break {
    pub const ALL: [Break; 25] = [
        Break::NoIdentity,
        Break::ReissueNever,
        Break::NoLimits,
        Break::IgnoreHold,
        Break::IgnoreStop,
        Break::ManageUnmanaged,
        Break::TrustTheCall,
        Break::SkipDrain,
        Break::CutDuringFlash,
        Break::QuarantineForNothing,
        Break::IgnoreTasks,
        Break::AssumeVersion,
        Break::NeverDone,
        Break::LeakOutput,
        Break::RebuildAdopted,
        Break::FlashesForEver,
        Break::WipesAgain,
        Break::MovesOn,
        Break::LetsGo,
        Break::ChargesOutages,
        Break::RescueInstalls,
        Break::AssumeBios,
        Break::IgnoreCopies,
        Break::RemakesVolumes,
        Break::VolumeOverData,
    ];

    /// Rules of which at least one must be reported.
    pub fn caught_by(self) -> &'static [&'static str] {
        match self {
            Break::NoIdentity => &["wrong-machine"],
            Break::ReissueNever => {
                &["flash-while-busy", "flash-while-staged", "two-at-once", "write-during-flash"]
            }
            Break::NoLimits => &["limit", "physical-limit"],
            Break::IgnoreHold => &["fold-differs", "held-touched", "quarantine-unjustified"],
            Break::IgnoreStop => &["intent-after-stop", "stopped-touched"],
            Break::ManageUnmanaged => {
                &["unmanaged-touched", "fold-differs", "quarantine-unjustified"]
            }
            Break::TrustTheCall => &["write-during-flash", "flash-while-busy"],
            Break::SkipDrain => &["in-use"],
            Break::CutDuringFlash => &["write-during-flash", "two-at-once"],
            Break::QuarantineForNothing => &["quarantine-unjustified"],
            Break::IgnoreTasks => &["flash-while-busy", "write-during-flash"],
            Break::AssumeVersion | Break::AssumeBios => &["done-not-true"],
            Break::IgnoreCopies => &["cut-during-copy"],
            Break::NeverDone => &["liveness"],
            Break::LeakOutput => &["secret-in-journal"],
            Break::FlashesForEver => &["flash-again"],
            Break::WipesAgain => &["wipe-while-wiping"],
            Break::MovesOn => &["quarantined-moves"],
            Break::LetsGo => &["physical-limit"],
            Break::ChargesOutages => &["outage-charged"],
            Break::RescueInstalls => &["rescue-wrote"],
            Break::RemakesVolumes => &["volume-again"],
            Break::VolumeOverData => &["data-lost"],
            Break::RebuildAdopted => &["adopted-touched", "in-use", "quarantine-unjustified"],
        }
    }
}

/// [`Rules`] with one break.
#[derive(Clone, Copy, Debug)]
pub struct Broken(pub Break);

struct Boundless;

impl Room for Boundless {
    fn full(&self, _machine: MachineId, _class: LimitClass) -> Option<String> {
        None
    }
}

impl Decide for Broken {
    fn decide(&self, i: &Input<'_>) -> Verdict {
        let m = i.m;
        let with_row = |change: &dyn Fn(&mut crate::model::Machine)| {
            let mut row = m.clone();
            change(&mut row);
            Rules.decide(&Input { m: &row, ..*i })
        };
        match self.0 {
            Break::NoIdentity => {
                // The standing check and the expectation both believe whoever answers.
                let mut row = m.clone();
                if let Read::Seen(system) = &i.report.system
                    && !row.identity.is_unknown()
                {
                    row.identity = system.identity.clone().into();
                }
                blind(Rules.decide(&Input { m: &row, ..*i }))
            }
            Break::ReissueNever => match &m.open {
                Some(open)
                    if open.action.kind() == ActionKind::UpdateFirmware
                        && open.state == OpenState::Unknown =>
                {
                    Verdict::Write {
                        entries: vec![Entry::Closed {
                            happened: false,
                            why: "no answer: surely it did not happen".into(),
                        }],
                        due: i.now,
                    }
                }
                _ => with_report(i, &|r| clear_tasks(r)),
            },
            Break::NoLimits => Rules.decide(&Input { room: &Boundless, ..*i }),
            Break::IgnoreHold => with_row(&|row| row.hold = None),
            Break::IgnoreStop => Rules.decide(&Input { stopped: false, ..*i }),
            Break::ManageUnmanaged if m.control == Control::Unmanaged => {
                let power = i.report.system.seen().map(|s| s.power);
                // "It will want its inventory fresh": a reboot inside the discovery run.
                if m.step.is_some() && m.open.is_none() && power == Some(Power::On) {
                    act(Action::Power { op: PowerOp::ForceRestart }, i)
                } else {
                    Rules.decide(i)
                }
            }
            Break::TrustTheCall => match &m.open {
                Some(open) if open.state == OpenState::Applied => Verdict::Write {
                    entries: vec![Entry::Closed { happened: true, why: "the call said so".into() }],
                    due: i.now,
                },
                _ => Rules.decide(i),
            },
            Break::SkipDrain => with_report(i, &|r| {
                if !matches!(m.stage, Stage::Join | Stage::InService)
                    && let Read::Seen(node) = &mut r.cluster
                {
                    *node = Membership { workloads: 0, cordoned: true, ..node.clone() };
                }
            }),
            Break::CutDuringFlash => match &m.open {
                Some(open)
                    if open.action.kind() == ActionKind::UpdateFirmware
                        && open.state == OpenState::Applied
                        && i.now.since(open.at) > 60_000 =>
                {
                    let mut entries =
                        vec![Entry::Closed { happened: true, why: "long enough".into() }];
                    if let Verdict::Act { entries: act } =
                        act(Action::BmcReset { controller: None }, i)
                    {
                        entries.extend(act);
                    }
                    Verdict::Act { entries }
                }
                _ => Rules.decide(i),
            },
            Break::QuarantineForNothing => match Rules.decide(i) {
                Verdict::Write { entries, due } if m.run.is_some() => {
                    let entries = entries
                        .into_iter()
                        .map(|e| match e {
                            Entry::Waits { what } if m.id.0 % 4 == 1 && !m.is_quarantined() => {
                                Entry::Quarantined { fault: boredom(&what) }
                            }
                            e => e,
                        })
                        .collect();
                    Verdict::Write { entries, due }
                }
                verdict => verdict,
            },
            Break::IgnoreTasks => {
                let mut row = m.clone();
                let report_free = |r: &mut crate::model::Report| clear_tasks(r);
                // A quarantined machine's running task is forgotten as well.
                if let Some(open) = &mut row.open
                    && open.action.kind() == ActionKind::UpdateFirmware
                    && open.state == OpenState::Applied
                {
                    return Verdict::Write {
                        entries: vec![Entry::Closed {
                            happened: false,
                            why: "no task is seen".into(),
                        }],
                        due: i.now,
                    };
                }
                with_report(i, &report_free)
            }
            Break::AssumeVersion => with_report(i, &|r| {
                let acts = m.step.as_ref().map_or(&[][..], |s| &s.acts);
                if let Read::Seen(components) = &mut r.firmware {
                    for c in components {
                        let wanted = match c.id.as_str() {
                            "BMC" => ("bmc", "7.20"),
                            _ => ("bios", "2.1.0"),
                        };
                        let flashed = |a: &crate::model::machine::Act| {
                            a.kind == ActionKind::UpdateFirmware
                                && a.happened
                                && a.about == wanted.0
                        };
                        if acts.iter().any(flashed) {
                            c.version = Some(wanted.1.into());
                        }
                    }
                }
            }),
            Break::AssumeBios => with_report(i, &|r| {
                if let Read::Seen(bios) = &mut r.bios {
                    bios.attributes.append(&mut bios.pending);
                }
                if let Read::Seen(secure) = &mut r.secure_boot {
                    secure.in_force = secure.enabled;
                }
            }),
            Break::IgnoreCopies => with_report(i, &|r| {
                if let Read::Seen(tasks) = &mut r.tasks {
                    tasks.retain(|t| !t.is_copy());
                }
            }),
            Break::RemakesVolumes => {
                let (mut row, mut report) = (m.clone(), i.report.clone());
                if let Some(step) = &mut row.step {
                    step.acts.retain(|a| a.kind != ActionKind::CreateVolume);
                }
                if row.open.is_none() {
                    clear_tasks(&mut report);
                }
                Rules.decide(&Input { m: &row, report: &report, ..*i })
            }
            Break::VolumeOverData => {
                let kind = |s: &crate::model::machine::Cursor| {
                    i.workflow.steps.get(usize::from(s.index)).map(|s| s.step.kind())
                };
                let here = m.step.as_deref().and_then(kind) == Some("volume");
                with_row(&|row| row.allow_existing_data |= here)
            }
            Break::NeverDone => match Rules.decide(i) {
                Verdict::Write { entries, due }
                    if m.id.0 % 7 == 3
                        && entries.iter().any(|e| matches!(e, Entry::StepEnded { .. })) =>
                {
                    Verdict::Rest { due: due + 60_000, waiting: None }
                }
                verdict => verdict,
            },
            Break::LeakOutput => match (&i.report.job, Rules.decide(i)) {
                (Read::Seen(job), Verdict::Write { mut entries, due }) => {
                    let tail = job.tail.clone().unwrap_or_default();
                    entries.push(Entry::Noticed { what: tail });
                    Verdict::Write { entries, due }
                }
                (_, verdict) => verdict,
            },
            Break::RebuildAdopted if m.control == Control::Adopted && m.desired.is_none() => {
                let step = m.step.is_some() && m.open.is_none() && !m.identity.is_unknown();
                let on = i.report.system.seen().is_some_and(|s| s.power == Power::On);
                if step && on && m.hold.is_none() && !m.is_quarantined() {
                    act(Action::Power { op: PowerOp::ForceRestart }, i)
                } else {
                    Rules.decide(i)
                }
            }
            Break::FlashesForEver => {
                let mut verdict = with_report(i, &|r| {
                    if let Read::Seen(components) = &mut r.firmware {
                        for c in components {
                            let old = if c.id == "BMC" { "7.10" } else { "2.0.0" };
                            c.version = Some(old.into());
                        }
                    }
                });
                if let Verdict::Act { entries } = &mut verdict {
                    for entry in entries {
                        if let Entry::Intent { expect, .. } = entry {
                            expect.from_version = None;
                        }
                    }
                }
                verdict
            }
            Break::WipesAgain => match &m.open {
                Some(open)
                    if open.action.kind() == ActionKind::WipeJob
                        && open.state == OpenState::Applied
                        && i.now.since(open.at) > 60_000 =>
                {
                    closed(i, false, "it takes too long")
                }
                _ => Rules.decide(i),
            },
            Break::MovesOn => match &m.step {
                Some(step) if m.is_quarantined() && m.open.is_none() => {
                    let end = StepEnd::Skipped { reason: "never mind".into() };
                    let entries = vec![Entry::StepEnded { key: step.key.clone(), end }];
                    Verdict::Write { entries, due: i.now + 60_000 }
                }
                _ => Rules.decide(i),
            },
            Break::LetsGo => match &m.open {
                Some(open)
                    if open.action.kind() == ActionKind::UpdateFirmware
                        && open.state == OpenState::Applied =>
                {
                    closed(i, true, "it will do")
                }
                _ => {
                    let mut verdict = Rules.decide(i);
                    if let Verdict::Act { entries } = &mut verdict {
                        for entry in entries {
                            if let Entry::Intent { holds, .. } = entry {
                                *holds = None;
                            }
                        }
                    }
                    verdict
                }
            },
            Break::ChargesOutages => match i.report.system.fault() {
                Some(fault) if m.step.is_some() && m.open.is_none() && !m.is_quarantined() => {
                    let (fault, not_before) = (fault.clone(), i.now + 30_000);
                    let entries = vec![Entry::Faulted { fault, charged: true, not_before }];
                    Verdict::Write { entries, due: not_before }
                }
                _ => Rules.decide(i),
            },
            Break::RescueInstalls => {
                let mut verdict = Rules.decide(i);
                if let (Verdict::Act { entries }, Some(_)) = (&mut verdict, &m.rescue) {
                    for entry in entries {
                        if let Entry::Intent {
                            action: Action::OpenBootWindow { image, allow_existing_data, .. },
                            ..
                        } = entry
                        {
                            image.clone_from(&i.profile.image.clone().unwrap_or_default());
                            *allow_existing_data = true;
                        }
                    }
                }
                verdict
            }
            Break::ManageUnmanaged | Break::RebuildAdopted => Rules.decide(i),
        }
    }

    fn settle(&self, i: &Input<'_>, outcome: Outcome) -> Vec<Entry> {
        Rules.settle(i, outcome)
    }
}

fn with_report(i: &Input<'_>, change: &dyn Fn(&mut crate::model::Report)) -> Verdict {
    let mut report = i.report.clone();
    change(&mut report);
    Rules.decide(&Input { report: &report, ..*i })
}

fn closed(i: &Input<'_>, happened: bool, why: &str) -> Verdict {
    Verdict::Write { entries: vec![Entry::Closed { happened, why: why.into() }], due: i.now }
}

fn clear_tasks(report: &mut crate::model::Report) {
    if let Read::Seen(tasks) = &mut report.tasks {
        tasks.retain(|t| !t.may_run());
    }
}

fn act(action: Action, i: &Input<'_>) -> Verdict {
    let expect = Expect { identity: (*i.m.identity).clone(), ..Expect::default() };
    Verdict::Act {
        entries: vec![Entry::Intent { action, expect, baseline: Default::default(), holds: None }],
    }
}

fn blind(mut verdict: Verdict) -> Verdict {
    if let Verdict::Act { entries } = &mut verdict {
        for entry in entries {
            if let Entry::Intent { expect, .. } = entry {
                expect.identity = Default::default();
            }
        }
    }
    verdict
}

pub(super) fn boredom(what: &str) -> Fault {
    Fault::new(FaultClass::Transient, Channel::Engine, "bored", format!("waiting for {what}"))
}

/// Seeds within which each break must be caught, at 20 machines (60 for some of them) and 3 days of chaos.
pub const SEEDS: u64 = 12;

impl Break {
    /// Chaos, with more of what this break stumbles over.
    fn profile(self) -> Profile {
        let mut profile = Profile::named("chaos").unwrap_or_else(|| Profile::none("chaos"));
        if self == Break::ChargesOutages {
            profile.rules = vec![Rule::new(FaultKind::Outage, 20_000)];
            profile.sick_per_million = 0;
        }
        let more: &[(FaultKind, u32)] = match self {
            Break::NoIdentity => {
                &[(FaultKind::SerialSwapped, 10_000), (FaultKind::WrongHost, 10_000)]
            }
            _ => &[],
        };
        for (kind, per_million) in more {
            profile.rules.push(Rule::new(*kind, *per_million));
        }
        profile
    }
}

/// The first seed from `first` that catches `broken`, and all rules reported until then.
pub fn first_catch(broken: Break, first: u64) -> (Option<u64>, BTreeSet<&'static str>) {
    let mut seen = BTreeSet::new();
    // More updates than a rack may have must fall together in one of the racks.
    // And few machines with a boot volume come with somebody's data.
    let machines = if matches!(broken, Break::LetsGo | Break::VolumeOverData) { 60 } else { 20 };
    for seed in first..first + SEEDS {
        let spec = Spec {
            liveness_days: 1,
            stop_after: 50,
            ..Spec::new(machines, 3, seed, broken.profile())
        };
        let ran = run(&spec, Broken(broken));
        seen.extend(ran.violations.iter().map(|v| v.rule));
        if broken.caught_by().iter().any(|rule| seen.contains(rule)) {
            return (Some(seed), seen);
        }
    }
    (None, seen)
}
