//! Deliberately broken deciders. Each wraps the production rules and breaks one thing; the
//! invariants must catch every one of them, or they prove nothing.

mod catch;
mod kinds;

pub use catch::{SEEDS, first_catch};
pub use kinds::Break;

use crate::decide::{Decide, Input, Room, Rules, Verdict};
use crate::model::controller;
use crate::model::facts::{Membership, Power, TaskState};
use crate::model::{
    Action, ActionKind, Channel, Control, Entry, Expect, Fault, FaultClass, LimitClass, MachineId,
    OpenState, Outcome, PowerOp, Read, Stage, StepEnd,
};

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
            Break::UnreadIsIdle => with_report(i, &|r| {
                if let Read::Seen(tasks) = &mut r.tasks {
                    tasks.retain(|t| t.state != TaskState::Unread);
                }
            }),
            Break::IgnoreBoards => with_report(i, &|r| {
                if let Read::Seen(tasks) = &mut r.tasks
                    && m.open.is_none()
                {
                    tasks.retain(|t| controller::split(&t.uri).0.is_none());
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
