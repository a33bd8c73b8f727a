//! Did the open action take hold? Judged by facts against the baseline, never by what a call or
//! a task said about itself.

mod volume;

use super::retry::Failed;
use super::{Input, Verdict, fail, give_up, pace, timed_out, unanswered, wait, watch, write};
use crate::model::action::Redo;
use crate::model::controller;
use crate::model::facts::{JobState, Power, Read, Task, TaskState};
use crate::model::{
    Action, BootTarget, Channel, EngineTime, Entry, Fault, FaultClass, HookVerb, OpenAction,
    OpenState, PowerOp,
};
use crate::steps::ramdisk::is_medium_of;
use crate::steps::settings::shown;
use serde_json::Value;
use std::collections::BTreeMap;

/// What the facts say of an open action.
enum Judgement {
    Happened(String),
    DidNot(String),
    /// Launched work was found under this name.
    Found(String),
    /// Alive, and moved on.
    Moved(u64),
    /// Nothing to tell yet.
    Still(&'static str),
    /// The launched work failed.
    Broke(Fault),
    /// Dangerous to touch: a person must look; the action stays open.
    Stuck(Fault),
    /// Past every deadline and no evidence either way.
    CantTell(String),
    /// The facts that would tell could not be read.
    Unread(Fault),
}

use Judgement::{Broke, CantTell, DidNot, Found, Happened, Moved, Still, Stuck, Unread};

/// A host that ignores a graceful shutdown for this long will not obey it (Ironic's soft power
/// off timeout is 600 s; ops lower it to this).
const GRACE_MS: u64 = 300_000;
/// After a reset the old firmware may still answer for a moment (field notes R20: 10–30 s).
const SETTLE_MS: u64 = 30_000;

pub(super) fn open_action(i: &Input<'_>) -> Verdict {
    let m = i.m;
    let Some(open) = m.open.as_deref() else {
        return Verdict::Rest { due: i.now, waiting: None };
    };
    let Some(spec) = m.step.as_ref().and_then(|s| i.workflow.steps.get(usize::from(s.index)))
    else {
        return give_up(
            i,
            Fault::new(
                FaultClass::Bug,
                Channel::Engine,
                "no-such-step",
                "an action is open and its step is not in the pinned workflow",
            ),
        );
    };
    let closed = |happened, why: String| Entry::Closed { happened, why };
    let judged = judge(i, open, spec.stall.0);
    let step_age = m.step.as_ref().map_or(0, |s| s.age(i.now, i.resumed));
    let overdue = step_age > spec.timeout.0 && !i.stopped && i.outage.is_none();
    // A quarantined machine's launched work is still followed to its end; nothing follows from it.
    if m.is_quarantined() {
        return match judged {
            Happened(why) => write(vec![closed(true, why)], i.now + watch::pause(i)),
            DidNot(why) => write(vec![closed(false, why)], i.now + watch::pause(i)),
            Broke(f) => write(vec![closed(false, f.to_string())], i.now + watch::pause(i)),
            Found(handle) => write(vec![Entry::Found { handle }], i.now + 30_000),
            _ => Verdict::Rest { due: i.now + 60_000, waiting: None },
        };
    }
    let redo = open.action.kind().class().redo;
    match judged {
        Happened(why) => write(vec![closed(true, why)], i.now),
        DidNot(why) => did_not(i, spec, open, why),
        CantTell(why) if redo == Redo::Never => give_up(
            i,
            Fault::new(
                FaultClass::OutcomeUnknown,
                Channel::Engine,
                "cant-tell",
                format!("nobody can tell whether `{}` took hold: {why}", open.action.kind()),
            )
            .hint("look at the machine; `farrier machine release` says it did not happen"),
        ),
        CantTell(why) => did_not(i, spec, open, why),
        Found(handle) => write(vec![Entry::Found { handle }], i.now),
        Stuck(_) if i.outage.is_some() => wait(i, "the outage's effects to pass", 60_000),
        Stuck(fault) => give_up(i, fault),
        Broke(fault) => {
            fail(i, spec, vec![closed(false, fault.to_string())], fault, Failed::Attempt)
        }
        _ if overdue => give_up(i, timed_out(i, spec)),
        // Progress is written often enough for the stall clock, not at every percent.
        Moved(digest) if i.now.since(open.progress_at) >= spec.stall.0 / 4 => {
            write(vec![Entry::Progressed { digest }], i.now + pace::launched(i, spec, open, 15_000))
        }
        Moved(_) => wait(i, "the launched work to end", pace::launched(i, spec, open, 15_000)),
        Still(what) => wait(i, what, pace::launched(i, spec, open, 5_000)),
        Unread(_) if i.now < m.not_before => Verdict::Rest { due: m.not_before, waiting: None },
        Unread(fault) if fault.is_no_answer() => wait(
            i,
            "an answer that tells how the action went",
            pace::waiting(10_000, i.now.since(open.at)),
        ),
        Unread(fault) => fail(i, spec, vec![], fault, Failed::Read),
    }
}

fn did_not(
    i: &Input<'_>,
    spec: &crate::steps::workflow::StepSpec,
    open: &OpenAction,
    why: String,
) -> Verdict {
    let closed = Entry::Closed { happened: false, why: why.clone() };
    // A shutdown that the host ignored is no failure: the step goes on to force it.
    if matches!(open.action, Action::Power { op: PowerOp::GracefulShutdown }) {
        return write(vec![closed], i.now);
    }
    // Nor a remedy that did not take: the step goes on as it was.
    if i.m.is_remedied() {
        return write(vec![closed], i.now);
    }
    let kind = open.action.kind();
    let fault = Fault::new(
        FaultClass::Transient,
        Channel::Engine,
        "did-not-take",
        format!("`{kind}` did not take hold: {why}"),
    );
    let failed = if open.interrupted { Failed::Read } else { Failed::Attempt };
    fail(i, spec, vec![closed], fault, failed)
}

fn judge(i: &Input<'_>, open: &OpenAction, stall_ms: u64) -> Judgement {
    let class = open.action.kind().class();
    // Time in which nobody watched is no evidence, and may be a wall clock's invention.
    // An order that was taken is judged from its answer on: one BMC in a hundred takes 20 s for that.
    let since = if open.state == OpenState::Applied { open.progress_at } else { open.at };
    let age = i.now.since(since.max(open.at).max(i.resumed));
    let late = age > class.deadline_ms + class.lag_ms;
    let read = |fault: Option<&Fault>| match fault {
        Some(f) => Unread(f.clone()),
        None => Still("a probe that tells how the action went"),
    };
    match &open.action {
        Action::Power { op } => {
            let Some(system) = i.report.system.seen() else {
                return read(i.report.system.fault());
            };
            power(i, open, *op, system.power, system.last_reset.as_deref(), age, late)
        }
        Action::BmcReset { controller: Some(name) } => controller_reset(i, open, name, late),
        Action::BmcReset { controller: None } => match i.report.system.seen() {
            None => read(i.report.system.fault()),
            // IPMI is up before the rest of a BMC is (field notes R20).
            Some(system) if system.over_ipmi => Still("Redfish to answer again"),
            Some(_)
                if open.state == OpenState::Applied
                    && i.now.since(seen_at(i, open)) > SETTLE_MS =>
            {
                Happened("the BMC answers again".into())
            }
            Some(_) if open.state == OpenState::Applied => Still("the BMC to restart"),
            Some(_) if late => CantTell("a BMC does not tell when it restarted".into()),
            Some(_) => Still("to see whether the BMC restarts"),
        },
        Action::SetBoot { target } => {
            let Some(system) = i.report.system.seen() else {
                return read(i.report.system.fault());
            };
            let enabled = system.boot_enabled.as_deref();
            let off = enabled.is_some_and(|e| e.eq_ignore_ascii_case("disabled"));
            match system.boot_target.as_deref() {
                Some(t)
                    if target.redfish_names().iter().any(|n| t.eq_ignore_ascii_case(n)) && !off =>
                {
                    Happened(format!("override reads {t}"))
                }
                _ if *target == BootTarget::None && off => Happened("override is off".into()),
                None if open.state == OpenState::Applied => {
                    Happened("taken; this BMC does not report its override".into())
                }
                _ if late => DidNot(format!(
                    "override reads {} ({})",
                    system.boot_target.as_deref().unwrap_or("nothing"),
                    enabled.unwrap_or("no mode"),
                )),
                _ => Still("the boot override to be read back"),
            }
        }
        Action::OpenBootWindow { run, .. } => match i.report.boot.seen() {
            None => read(i.report.boot.fault()),
            // One that an earlier step of the run closed is no open one.
            Some(w) if w.open && w.run.as_deref() == Some(run) => {
                Happened("the window is open".into())
            }
            Some(_) if late => DidNot("the boot server has no such window".into()),
            Some(_) => Still("the boot window to open"),
        },
        Action::CloseBootWindow { run } => match i.report.boot.seen() {
            None => read(i.report.boot.fault()),
            Some(w) if !w.open || w.run.as_deref() != Some(run) => {
                Happened("the window is closed".into())
            }
            Some(_) if late => DidNot("the window is still open".into()),
            Some(_) => Still("the boot window to close"),
        },
        Action::UpdateFirmware { inventory_id, to, .. } => {
            update(i, open, inventory_id, to, late, stall_ms)
        }
        Action::StartJob { .. } | Action::Deploy { .. } => match i.report.job.seen() {
            // A job does not outlive the host's power.
            None if is_off(i) && late && open.state == OpenState::Applied => Broke(Fault::new(
                FaultClass::Transient,
                Channel::Host,
                "job-lost",
                "the host is powered off and its job with it",
            )),
            None if is_off(i) && late => DidNot("the host is powered off".into()),
            None if in_ramdisk(i) && left_ramdisk(i, open, stall_ms) => Broke(Fault::new(
                FaultClass::Transient,
                Channel::Host,
                "job-lost",
                "the host has left the deploy ramdisk, and its job is gone with it",
            )),
            None => read(i.report.job.fault()),
            Some(job) => match &job.state {
                JobState::Finished { .. } => Happened("the result file is there".into()),
                JobState::Running { progress }
                    if *progress != open.progress || open.state != OpenState::Applied =>
                {
                    Moved(*progress)
                }
                JobState::Running { .. } if i.now.since(seen_at(i, open)) > stall_ms => Broke(
                    Fault::new(
                        FaultClass::Transient,
                        Channel::Host,
                        "job-stalled",
                        format!("no progress for {}", crate::model::time::Span(stall_ms)),
                    )
                    .evidence(job.tail.clone().unwrap_or_default()),
                ),
                JobState::Running { .. } => Still("the job to end"),
                JobState::Lost { why } => Broke(Fault::new(
                    FaultClass::Transient,
                    Channel::Host,
                    "job-lost",
                    format!("the job is gone: {why}"),
                )),
                JobState::Absent if open.state == OpenState::Applied => Broke(Fault::new(
                    FaultClass::Transient,
                    Channel::Host,
                    "job-lost",
                    "the host knows nothing of the job it started",
                )),
                JobState::Absent if late => DidNot("the host knows nothing of the job".into()),
                JobState::Absent => Still("the job to appear"),
            },
        },
        Action::Hook { verb } => match i.report.cluster.seen() {
            None => read(i.report.cluster.fault()),
            Some(node) => {
                let there = match verb {
                    HookVerb::Join => node.member,
                    HookVerb::Cordon => node.member && node.cordoned,
                    HookVerb::Uncordon => node.member && !node.cordoned,
                    HookVerb::Leave => !node.member,
                };
                if there {
                    Happened(format!("the cluster shows `{}`", verb.name()))
                } else if late {
                    DidNot(format!("the cluster does not show `{}`", verb.name()))
                } else {
                    Still("the cluster to show it")
                }
            }
        },
        Action::InsertMedia { run } => match i.report.media.seen() {
            None => read(i.report.media.fault()),
            Some(images) if images.iter().any(|image| is_medium_of(image, run)) => {
                Happened("the BMC's virtual drive holds it".into())
            }
            Some(_) if late => DidNot("the BMC's virtual drives do not hold it".into()),
            Some(_) => Still("the BMC's virtual drive to hold the medium"),
        },
        // Some say for seconds that what they ejected is still there.
        Action::EjectMedia => match i.report.media.seen() {
            None => read(i.report.media.fault()),
            Some(images) if images.is_empty() => Happened("the virtual drives are empty".into()),
            Some(images) if late => DidNot(format!("a virtual drive holds {}", images.join(", "))),
            Some(_) => Still("the BMC's virtual drives to be empty"),
        },
        Action::SetBios { attributes } => bios(i, open, attributes, late),
        Action::SetSecureBoot { on } => match i.report.secure_boot.seen() {
            None => read(i.report.secure_boot.fault()),
            Some(seen) if seen.enabled == Some(*on) => {
                Happened("the BMC shows it for the next POST".into())
            }
            Some(seen) if late => DidNot(format!(
                "Secure Boot for the next POST reads {}",
                match seen.enabled {
                    Some(true) => "on",
                    Some(false) => "off",
                    None => "nothing",
                },
            )),
            Some(_) => Still("the BMC to show Secure Boot as set"),
        },
        Action::CreateVolume { raid, drives, .. } => {
            volume::judge(i, open, raid, drives, late, stall_ms)
        }
        Action::EndBmcSessions => match open.state {
            OpenState::Applied => Happened("logged out".into()),
            _ if late => DidNot("no answer".into()),
            _ => Still("the BMC to log out"),
        },
    }
}

/// The reset of a further controller: the host's BMC tells nothing of it, its own tasks do.
fn controller_reset(i: &Input<'_>, open: &OpenAction, name: &str, late: bool) -> Judgement {
    let silent = match &i.report.tasks {
        Read::NotAsked => return Still("a probe that tells how the action went"),
        Read::Seen(tasks) => tasks
            .iter()
            .any(|t| t.state == TaskState::Unread && controller::split(&t.uri).0 == Some(name)),
        // Controllers without a list of tasks: their versions will tell.
        Read::Failed(f) if f.class == FaultClass::Unsupported => false,
        Read::Failed(f) => return Unread(f.clone()),
    };
    let applied = open.state == OpenState::Applied;
    if silent {
        Still("the controller to answer again")
    } else if applied && i.now.since(seen_at(i, open)) > SETTLE_MS {
        Happened("the controller answers again".into())
    } else if applied {
        Still("the controller to restart")
    } else if late {
        CantTell("a BMC does not tell when it restarted".into())
    } else {
        Still("to see whether the controller restarts")
    }
}

fn in_ramdisk(i: &Input<'_>) -> bool {
    i.m.ramdisk.is_some()
}

/// What runs in the ramdisk ends with it: another key at its address, or silence for as long as a job
/// may stand still. Whatever is left of it ends with the power, which the next attempt cuts first.
fn left_ramdisk(i: &Input<'_>, open: &OpenAction, stall_ms: u64) -> bool {
    i.report.job.fault().is_some_and(|f| {
        f.class == FaultClass::Identity
            || f.is_no_answer() && i.now.since(seen_at(i, open)) > stall_ms
    })
}

fn is_off(i: &Input<'_>) -> bool {
    i.report.system.seen().is_some_and(|s| s.power == Power::Off)
}

fn power(
    i: &Input<'_>,
    open: &OpenAction,
    op: PowerOp,
    power: Power,
    last_reset: Option<&str>,
    age: u64,
    late: bool,
) -> Judgement {
    let settling = matches!(power, Power::PoweringOn | Power::PoweringOff | Power::Unknown);
    match op {
        PowerOp::On if power == Power::On => Happened("power is on".into()),
        PowerOp::ForceOff | PowerOp::GracefulShutdown if power == Power::Off => {
            Happened("power is off".into())
        }
        PowerOp::GracefulShutdown if age <= GRACE_MS => Still("the host to shut down"),
        PowerOp::ForceRestart => {
            let rebooted = matches!(
                (&open.baseline.boot_id, i.report.host.seen().and_then(|h| h.boot_id.as_ref())),
                (Some(before), Some(now)) if before != now
            );
            match (open.baseline.last_reset.as_deref(), last_reset) {
                (Some(before), Some(now)) if before != now => Happened(format!("last reset {now}")),
                _ if rebooted => Happened("the host has a new boot id".into()),
                (Some(_), Some(_)) if late => DidNot("the last reset time is unchanged".into()),
                (None, _) | (_, None)
                    if open.state == OpenState::Applied
                        && i.now.since(seen_at(i, open)) > SETTLE_MS
                        && power == Power::On =>
                {
                    Happened("taken; this BMC tells no reset time".into())
                }
                _ if late && !settling => CantTell("neither reset time nor boot id tells".into()),
                _ => Still("the host to restart"),
            }
        }
        _ if settling && !late => Still("the power state to settle"),
        _ if late => DidNot(format!("power reads {power:?}")),
        _ => Still("the power state to change"),
    }
}

fn update(
    i: &Input<'_>,
    open: &OpenAction,
    inventory_id: &str,
    to: &str,
    late: bool,
    stall_ms: u64,
) -> Judgement {
    let (version_is_new, unread) = match is_at(i, inventory_id, to) {
        Ok(is_new) => (is_new, None),
        Err(fault) => (false, Some(fault)),
    };
    let tasks = match &i.report.tasks {
        Read::Seen(tasks) => tasks,
        // Without its task list a BMC may still be writing, whatever version it shows: only one that
        // has no list at all is judged by the version alone.
        Read::Failed(f) if f.class == FaultClass::Unsupported && version_is_new => {
            return Happened(format!("version {to} is re-read"));
        }
        read => {
            return match (unanswered(read), read.fault()) {
                (Some(f), _) => Unread(f.clone()),
                (None, Some(f))
                    if f.class == FaultClass::Unsupported && late && i.m.restored.is_some() =>
                {
                    Happened("perhaps taken before the restore; the version will decide".into())
                }
                (None, Some(f)) if f.class == FaultClass::Unsupported && late => match unread {
                    Some(unread) => Unread(unread),
                    None => {
                        CantTell("the BMC has no task list and the version is the old one".into())
                    }
                },
                (None, Some(f)) => Unread(f.clone()),
                (None, None) => Still("the task list"),
            };
        }
    };
    // What goes on elsewhere in the machine is another update.
    let here = controller::split(inventory_id).0;
    let tasks: Vec<&Task> = tasks.iter().filter(|t| controller::split(&t.uri).0 == here).collect();
    if let Some(unread) = tasks.iter().find(|t| t.state == TaskState::Unread) {
        return Unread(Fault::no_answer(Channel::Bmc, unread.message.clone().unwrap_or_default()));
    }
    let followed = match &open.handle {
        Some(handle) => tasks.iter().find(|t| t.uri == *handle),
        None => None,
    };
    // Before the version is believed: a task of ours whose name was lost with the answer.
    let fresh = match &open.handle {
        Some(_) => None,
        // A copy that began since follows from an update and is none.
        None => tasks.iter().find(|t| !t.is_copy() && !open.baseline.tasks.contains(&t.uri)),
    };
    match (followed, &open.handle) {
        (Some(task), _) => follow(i, open, task, stall_ms),
        _ if fresh.is_some_and(|t| t.state == TaskState::InProgress) => {
            Found(fresh.map(|t| t.uri.clone()).unwrap_or_default())
        }
        // Without a task's name the order may still be under way, whoever made the version what it is
        // (some BMCs begin minutes later): done is done only when it can't begin any more.
        (None, None) if version_is_new && !late => Still("what was sent to be past"),
        _ if version_is_new => Happened(format!("version {to} is re-read")),
        // The list was lost with the BMC's memory, or the task was cleaned away: neither success
        // nor failure. After a pause the versions decide (the step activates and re-reads).
        (None, Some(_)) if i.now.since(seen_at(i, open)) > stall_ms.min(OWN_LAG_MS) => {
            Happened("its task is gone from the list; the version will decide".into())
        }
        (None, Some(_)) => Still("the task to be listed again"),
        (None, None) => match fresh {
            Some(task) => Found(task.uri.clone()),
            // Its answer may have been lost after the BMC took it, and its task with a BMC reset: an
            // image may be staged. It is activated first, and only the re-read version takes it back.
            None if late && (open.state != OpenState::Intended || i.m.restored.is_some()) => {
                Happened("perhaps taken, no task was named; the version will decide".into())
            }
            None if late => match unread {
                // A version that was not read is not the old one.
                Some(unread) => Unread(unread),
                None => DidNot("no new task, and the version is the old one".into()),
            },
            None => Still("the update's task to appear"),
        },
    }
}

/// Do the settings wait for the next POST, or are they in force by now?
fn bios(
    i: &Input<'_>,
    open: &OpenAction,
    wanted: &BTreeMap<String, Value>,
    late: bool,
) -> Judgement {
    let Some(seen) = i.report.bios.seen() else {
        return match i.report.bios.fault() {
            Some(fault) => Unread(fault.clone()),
            None => Still("the BIOS settings"),
        };
    };
    let missing: Vec<String> = (wanted.iter())
        .filter(|(k, v)| seen.planned(k) != Some(*v))
        .map(|(k, v)| {
            let now = seen.planned(k).map_or("nothing".into(), shown);
            format!("{k} for the next POST reads {now}, wanted {}", shown(v))
        })
        .collect();
    if !missing.is_empty() && late {
        return DidNot(missing.join("; "));
    }
    if !missing.is_empty() {
        return Still("the BMC to show the settings as pending");
    }
    // Its answer was lost, and with it the name of the job that applies them: one that waits for the
    // next POST is ours, and nobody waits for its end before the reboot.
    let ours = |t: &&Task| t.waits_for_post() && !open.baseline.tasks.contains(&t.uri);
    let tasks = i.report.tasks.seen().map_or(&[][..], Vec::as_slice);
    match (&open.handle, tasks.iter().find(ours)) {
        (None, Some(job)) if open.state != OpenState::Applied => Found(job.uri.clone()),
        _ => Happened(format!("{} attributes are set for the next POST", wanted.len())),
    }
}

/// Is the member at version `to`? As the catalog compares it. `Err`: its version could not be read.
fn is_at(i: &Input<'_>, inventory_id: &str, to: &str) -> Result<bool, Fault> {
    let all = match &i.report.firmware {
        Read::Seen(all) => all,
        Read::Failed(fault) => return Err(fault.clone()),
        Read::NotAsked => return Ok(false),
    };
    let set = i
        .report
        .system
        .seen()
        .and_then(|s| i.site.catalog.family(s))
        .and_then(|f| i.profile.firmware_set.as_ref().and_then(|name| f.sets.get(name)));
    let fw =
        set.and_then(|s| s.firmware.iter().find(|fw| fw.version == to && fw.fits(inventory_id)));
    match fw {
        Some(fw) => Ok(fw
            .read(all)?
            .and_then(|c| c.version.as_deref())
            .is_some_and(|v| fw.compare(v) == Some(std::cmp::Ordering::Equal))),
        // The catalog moved on meanwhile: compare by id and text.
        None => {
            let member = all.iter().find(|c| c.id == inventory_id);
            match member.and_then(|c| c.unread.as_deref()) {
                Some(why) => Err(why.clone()),
                None => Ok(member.and_then(|c| c.version.as_deref()) == Some(to)),
            }
        }
    }
}

/// How long a vanished task may take to be listed again.
const OWN_LAG_MS: u64 = 180_000;

/// Since when its progress was watched: not while the daemon was down.
fn seen_at(i: &Input<'_>, open: &OpenAction) -> EngineTime {
    open.progress_at.max(i.resumed)
}

fn follow(i: &Input<'_>, open: &OpenAction, task: &Task, stall_ms: u64) -> Judgement {
    match task.state {
        TaskState::Succeeded => Happened("its task completed; the version will decide".into()),
        TaskState::Failed => Broke(
            Fault::new(
                FaultClass::Transient,
                Channel::Bmc,
                "update-failed",
                format!("the BMC's task {} ended as {}", task.uri, task.raw_state),
            )
            .evidence(task.message.clone().unwrap_or_default()),
        ),
        TaskState::InProgress => {
            let digest = digest(task);
            if digest != open.progress {
                Moved(digest)
            } else if i.now.since(seen_at(i, open)) > stall_ms && is_queued(task) {
                // It has begun nothing, and nobody can say that it never will.
                Stuck(
                    Fault::new(
                        FaultClass::OutcomeUnknown,
                        Channel::Bmc,
                        "task-queued",
                        format!(
                            "task {} has waited in the BMC's queue for {} ({})",
                            task.uri,
                            crate::model::time::Span(stall_ms),
                            task.raw_state,
                        ),
                    )
                    .hint("an earlier job may hold it up (some BMCs keep a strict order): let that one end or delete it on the BMC; then release")
                    .evidence(task.message.clone().unwrap_or_default()),
                )
            } else if i.now.since(seen_at(i, open)) > stall_ms {
                // Never start over while it may still be writing.
                Stuck(
                    Fault::new(
                        FaultClass::OutcomeUnknown,
                        Channel::Bmc,
                        "task-stalled",
                        format!(
                            "task {} has been {} at {} % without a change for {}",
                            task.uri,
                            task.raw_state,
                            task.percent.unwrap_or(0),
                            crate::model::time::Span(stall_ms),
                        ),
                    )
                    .hint("a BMC reset often frees it, once nothing is being written; then release")
                    .evidence(task.message.clone().unwrap_or_default()),
                )
            } else {
                Still("the BMC's task to move")
            }
        }
        // Stands for a whole list, never for one task that is followed by its name.
        TaskState::Unread => Still("the BMC's update task to be read"),
    }
}

/// It waits for its turn.
fn is_queued(task: &Task) -> bool {
    matches!(&*task.raw_state, "Pending" | "New" | "Scheduled")
}

/// FNV-1a over state, percent and message: (state, percent, message) is what progress means (R16).
fn digest(task: &Task) -> u64 {
    let percent = [task.percent.unwrap_or(255)];
    let parts =
        [task.raw_state.as_bytes(), &percent, task.message.as_deref().unwrap_or("").as_bytes()];
    parts
        .iter()
        .flat_map(|p| p.iter())
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}
