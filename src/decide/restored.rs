//! After a restore the world may be ahead of the row: an update was started, staged or done, an image
//! written, a job run, the node joined, all in the time that was lost. Nothing of that is done twice:
//! what a step asks for is first looked for under the names that an earlier incarnation gave, or taken
//! as launched and judged by what is observed. What can't be told goes to a person with the evidence.

use super::retry::Failed;
use super::{Input, Verdict, watch, write};
use crate::model::action::{Redo, Touch};
use crate::model::facts::{HostFacts, ProbeSet, Read, TaskState};
use crate::model::fold::RESTORE;
use crate::model::machine::Restored;
use crate::model::{
    Action, ActionKind, Channel, Entry, Fault, FaultClass, Machine, PowerOp, Stage,
};
use crate::steps::site::Profile;

/// What an action that is wanted means on a restored machine.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Weighed {
    /// Nothing speaks against it: as on any other machine.
    AsWanted,
    /// What the lost time left there would make it do something else: this goes before it.
    First(Action),
    /// This may have been done already: take it as launched. The text is for people.
    Presume(Action, String),
    Wait(String),
    /// What would tell could not be read.
    Unread(Fault),
    /// Nobody can tell, and doing it again would cost something.
    InDoubt(Fault),
}

/// What is read of a restored machine besides what its step needs.
pub(super) fn reads(m: &Machine, profile: &Profile) -> ProbeSet {
    let mut set = ProbeSet::NONE;
    if m.hold.is_some() {
        set = set.with(ProbeSet::FIRMWARE).with(ProbeSet::TASKS);
    }
    if m.hold.is_some() || m.step.is_some() {
        set = set.with(ProbeSet::HOST).with(ProbeSet::BOOT);
    }
    if profile.cluster.is_some() && (m.hold.is_some() || m.step.is_some()) {
        set = set.with(ProbeSet::CLUSTER);
    }
    set
}

/// While the restore's hold stands: what the machine shows that the row does not know, as a notice
/// for the person who is to release it.
pub(super) fn while_held(i: &Input<'_>) -> Option<Verdict> {
    let restored = i.m.restored.as_deref()?;
    i.m.hold.as_ref().filter(|h| h.by == RESTORE)?;
    let found = surprises(i, restored);
    if found == i.m.notice.as_deref().unwrap_or("") || !i.report.system.was_asked() {
        return None;
    }
    Some(write(vec![Entry::Noticed { what: found }], i.now + watch::pause(i)))
}

fn surprises(i: &Input<'_>, restored: &Restored) -> String {
    let mut found = Vec::new();
    let tasks = i.report.tasks.seen().map_or(&[][..], Vec::as_slice);
    let running = tasks.iter().filter(|t| t.state == TaskState::InProgress).count();
    if running > 0 && i.m.open.is_none() {
        found.push(format!("the BMC runs {running} task(s) that this database does not know"));
    }
    if let Some(host) = i.report.host.seen() {
        if let Some(run) = lost_mark(i.m, restored, host) {
            found.push(format!("the host was deployed by run {run}, after the backup"));
        }
        for job in host.jobs.iter().filter(|j| lost(i.m, restored, &i.site.incarnation, &j.name)) {
            let state = if job.running { "runs" } else { "has ended" };
            found.push(format!("job {} of the lost time {state}", job.name));
        }
    }
    if let Some(node) = i.report.cluster.seen() {
        let serves = i.m.stage == Stage::InService;
        if node.member && !serves {
            found.push(format!("the node is in the cluster with {} workloads", node.workloads));
        } else if serves && !node.member {
            found.push("the node is not in the cluster".into());
        }
    }
    match found.is_empty() {
        true => String::new(),
        false => format!("since the backup: {}", found.join("; ")),
    }
}

/// Looks at one wanted action.
pub(super) fn weigh(i: &Input<'_>, action: &Action) -> Weighed {
    let Some(restored) = i.m.restored.as_deref() else { return Weighed::AsWanted };
    let kind = action.kind();
    // What was sent just before the end may still come into sight.
    let class = kind.class();
    if i.now.since(restored.at) <= class.deadline_ms + class.lag_ms
        && class.touches.contains(&Touch::Bmc)
    {
        return Weighed::Wait("what was sent before the restore to show itself".into());
    }
    // A rescue writes to no disk, whatever the lost time holds, and a person who has looked asked for it.
    if i.m.stage == Stage::Repair {
        return Weighed::AsWanted;
    }
    if let Some(left) = window_left(i, action) {
        return left;
    }
    match action {
        Action::UpdateFirmware { component, .. } => {
            if restored.has_presumed(action) {
                return Weighed::AsWanted;
            }
            Weighed::Presume(
                action.clone(),
                format!(
                    "its update may have been staged in the lost time; {component} is activated \
                     first and its version re-read",
                ),
            )
        }
        Action::StartJob { script, timeout_ms, .. } => {
            let host = match host(i) {
                Ok(host) => host,
                Err(weighed) => return *weighed,
            };
            if kind == ActionKind::WipeJob
                && let Some(run) = lost_mark(i.m, restored, host)
            {
                return in_doubt(format!(
                    "the host was deployed by run {run} after the backup; its disks are not wiped"
                ));
            }
            let ours =
                || host.jobs.iter().filter(|j| lost(i.m, restored, &i.site.incarnation, &j.name));
            let prefix = format!("{}-", script.name());
            let found = ours()
                .filter(|j| j.name.starts_with(&prefix))
                .filter_map(|j| Some((number(i.m, &j.name)?, &j.name)))
                .map(|(n, name)| (n, job(*script, name, *timeout_ms)))
                .filter(|(_, action)| !restored.has_presumed(action))
                .max_by_key(|(n, _)| *n);
            if let Some((_, found)) = found {
                let why = format!("`{}` was started in the lost time", found.about());
                return Weighed::Presume(found, why);
            }
            match ours().find(|j| j.running) {
                Some(other) => Weighed::Wait(format!("job {} of the lost time to end", other.name)),
                None => Weighed::AsWanted,
            }
        }
        Action::Deploy { image, run, host_key, timeout_ms, allow_existing_data, .. } => {
            let host = match host(i) {
                Ok(host) => host,
                Err(weighed) => return *weighed,
            };
            if let Some(later) = lost_mark(i.m, restored, host) {
                return in_doubt(format!(
                    "a disk was deployed by run {later} after the backup; it is not written again"
                ));
            }
            match lost_job(i, restored, host, Action::DEPLOY) {
                Some(name) => {
                    let found = Action::Deploy {
                        image: image.clone(),
                        run: run.clone(),
                        host_key: host_key.clone(),
                        name: name.into(),
                        timeout_ms: *timeout_ms,
                        allow_existing_data: *allow_existing_data,
                    };
                    if restored.has_presumed(&found) {
                        return Weighed::AsWanted;
                    }
                    Weighed::Presume(found, format!("`{name}` was started in the lost time"))
                }
                None => Weighed::AsWanted,
            }
        }
        // What was deployed in the lost time may lie on just these drives.
        Action::CreateVolume { .. } => match i.report.host.seen() {
            Some(host) => match lost_mark(i.m, restored, host) {
                Some(run) => in_doubt(format!(
                    "the host was deployed by run {run} after the backup; no volume is made there"
                )),
                None => Weighed::AsWanted,
            },
            None => match i.report.host.fault() {
                Some(f) if f.class == FaultClass::Identity => in_doubt(format!(
                    "the host may have been deployed after the backup, and it can't be asked: {f}"
                )),
                _ => Weighed::AsWanted,
            },
        },
        Action::OpenBootWindow { run, .. } => {
            if let Some(host) = i.report.host.seen()
                && let Some(later) = lost_mark(i.m, restored, host)
            {
                return in_doubt(format!(
                    "the host was deployed by run {later} after the backup; it is not written again"
                ));
            }
            if restored.has_presumed(action) {
                return Weighed::AsWanted;
            }
            match i.report.boot.seen() {
                Some(w) if w.run.as_deref() == Some(run) => Weighed::Presume(
                    action.clone(),
                    "its boot window is there from the lost time".into(),
                ),
                _ => match i.report.host.fault() {
                    // Another key than the pinned one: somebody installed it, likely we.
                    Some(f) if f.class == FaultClass::Identity => in_doubt(format!(
                        "the host may have been deployed after the backup, and it can't be asked: {f}"
                    )),
                    _ => Weighed::AsWanted,
                },
            }
        }
        // The window's installation may be under way: cutting the power would end it half-way.
        Action::Power { op: PowerOp::ForceOff | PowerOp::ForceRestart } => {
            let on = Action::Power { op: PowerOp::On };
            let waits = i.report.boot.seen().is_some_and(|w| {
                w.open && w.run.is_some() && (w.callback.is_none() || w.made_key.is_some())
            });
            let opened = i.m.happened(ActionKind::OpenBootWindow).is_some();
            if waits && opened && i.report.host.seen().is_none() && !restored.has_presumed(&on) {
                return Weighed::Presume(
                    on,
                    "the host may be installing since the lost time".into(),
                );
            }
            Weighed::AsWanted
        }
        _ => Weighed::AsWanted,
    }
}

/// A boot window of the lost time and, on the BMC, an override that goes with it: the next start of
/// the host would write an image that nobody has asked for since. Closed first; the host then finds
/// no image and boots its disk.
fn window_left(i: &Input<'_>, action: &Action) -> Option<Weighed> {
    let Action::Power { op: PowerOp::On | PowerOp::ForceRestart } = action else { return None };
    if i.m.happened(ActionKind::OpenBootWindow).is_some() {
        return None;
    }
    match &i.report.boot {
        Read::Seen(w) if w.open => {
            w.run.clone().map(|run| Weighed::First(Action::CloseBootWindow { run }))
        }
        Read::Seen(_) => None,
        Read::Failed(f) => Some(Weighed::Unread(f.clone())),
        Read::NotAsked => Some(Weighed::Wait("the boot server to be asked for its window".into())),
    }
}

/// Why a failed attempt is held against nobody: it stood on what was presumed, and that never was.
pub(super) fn excuse(m: &Machine, fault: &Fault, failed: Failed) -> Option<String> {
    let transient = matches!(fault.class, FaultClass::Transient | FaultClass::OutcomeUnknown);
    let acts = m.step.as_ref().map_or(&[][..], |s| &s.acts);
    let stands = m.open.as_ref().is_some_and(|o| o.presumed)
        || acts.iter().any(|a| {
            // What may not be done twice stays in the attempt until its version takes it back.
            a.presumed && (fault.takes_back() || a.kind.class().redo != Redo::Never)
        });
    let why = match m.restored {
        Some(_) => "it stood on what was presumed after the restore",
        None => "it stood on what was presumed as the daemon ended while sending it",
    };
    (transient && failed == Failed::Attempt && stands).then(|| why.into())
}

fn job(script: crate::model::JobScript, name: &str, timeout_ms: u64) -> Action {
    Action::StartJob { script, name: name.into(), timeout_ms }
}

/// The youngest job of the lost time whose name begins so.
fn lost_job<'a>(
    i: &Input<'_>,
    restored: &Restored,
    host: &'a HostFacts,
    what: &str,
) -> Option<&'a str> {
    let prefix = format!("{what}-");
    let ours = host.jobs.iter().filter(|j| lost(i.m, restored, &i.site.incarnation, &j.name));
    ours.filter(|j| j.name.starts_with(&prefix))
        .filter_map(|j| Some((number(i.m, &j.name)?, &*j.name)))
        .max_by_key(|(n, _)| *n)
        .map(|(_, name)| name)
}

/// The host's word, or what its absence means: nothing is started beside a job that can't be seen.
fn host<'a>(i: &Input<'a>) -> Result<&'a HostFacts, Box<Weighed>> {
    match &i.report.host {
        Read::Seen(host) => Ok(host),
        Read::Failed(f) if f.class == FaultClass::Identity => Err(Box::new(in_doubt(format!(
            "the host may have been deployed after the backup, and it can't be asked: {f}"
        )))),
        Read::Failed(f) => Err(Box::new(Weighed::Unread(f.clone()))),
        Read::NotAsked => Err(Box::new(Weighed::Wait("the host to be asked for its jobs".into()))),
    }
}

/// The run that wrote the host's image, where that happened after the backup.
fn lost_mark<'a>(m: &Machine, restored: &Restored, host: &'a HostFacts) -> Option<&'a str> {
    let mark = host.image_run.as_deref().or(host.disk_run.as_deref())?;
    let known = m.deployed.as_ref().is_some_and(|d| *d.run == *mark);
    // The run under way keeps its name over the restore, so its number is an older one.
    (!known && number(m, mark)? >= restored.seq && !is_of(m, mark)).then_some(mark)
}

/// The mark of a run that began after the restore.
fn is_of(m: &Machine, mark: &str) -> bool {
    m.run.as_ref().is_some_and(|r| r.incarnation.is_none() && number(m, mark) == Some(r.id))
}

/// A name of ours that an earlier incarnation gave after the backup.
fn lost(m: &Machine, restored: &Restored, incarnation: &str, name: &str) -> bool {
    number(m, name).is_some_and(|n| n >= restored.seq)
        && name.split('-').rev().nth(2) != Some(incarnation)
}

/// The number at the end of `…<incarnation>-<machine>-<number>`, where it names this machine.
fn number(m: &Machine, name: &str) -> Option<u64> {
    let mut parts = name.rsplitn(3, '-');
    let number = parts.next()?.parse().ok()?;
    (parts.next()? == m.id.to_string() && parts.next().is_some_and(|p| !p.is_empty()))
        .then_some(number)
}

fn in_doubt(what: String) -> Weighed {
    Weighed::InDoubt(
        Fault::new(FaultClass::OutcomeUnknown, Channel::Engine, "restored-in-doubt", what).hint(
            "look at the machine; `farrier machine release` does the step again, `farrier machine skip` \
             leaves it out, `farrier machine repair`, then `enroll`, installs it anew",
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EngineTime, MachineId, fold};

    fn restored(seq: u64) -> Machine {
        let mut m = Machine::blank(MachineId(7));
        m.seq = seq - 1;
        let entry = Entry::Restored { incarnation: "bbbb".into(), was: "aaaa".into() };
        fold::apply(&mut m, &entry, EngineTime(9)).unwrap();
        m
    }

    #[test]
    fn names_of_the_lost_time_are_told_from_known_ones() {
        let m = restored(40);
        let r = m.restored.as_deref().unwrap();
        for (name, is) in [
            ("smoke-aaaa-m7-40", true),
            ("smoke-aaaa-m7-39", false),
            ("smoke-bbbb-m7-41", false),
            ("smoke-aaaa-m8-41", false),
            ("m7-50", false),
            ("somebody-elses-job", false),
        ] {
            assert_eq!(lost(&m, r, "bbbb", name), is, "{name}");
        }
    }

    #[test]
    fn a_mark_of_the_run_under_way_is_no_surprise() {
        let mut m = restored(40);
        let r = m.restored.clone().unwrap();
        let host = |run: &str| HostFacts { image_run: Some(run.into()), ..HostFacts::default() };
        assert_eq!(lost_mark(&m, &r, &host("aaaa-m7-12")), None, "a run from before the backup");
        assert_eq!(lost_mark(&m, &r, &host("aaaa-m7-44")), Some("aaaa-m7-44"));
        assert_eq!(lost_mark(&m, &r, &host("by-hand")), None);
        let begun = Entry::RunBegan { workflow: "w".into(), reason: "r".into() };
        fold::apply(&mut m, &begun, EngineTime(10)).unwrap();
        assert_eq!(m.run_name("bbbb"), "bbbb-m7-41");
        assert_eq!(lost_mark(&m, &r, &host("bbbb-m7-41")), None, "its own");
    }

    #[test]
    fn a_run_under_way_keeps_its_name_over_two_restores() {
        let mut m = Machine::blank(MachineId(3));
        let begun = Entry::RunBegan { workflow: "w".into(), reason: "r".into() };
        fold::apply(&mut m, &begun, EngineTime(1)).unwrap();
        let before = m.run_name("aaaa");
        for (was, now) in [("aaaa", "bbbb"), ("bbbb", "cccc")] {
            let entry = Entry::Restored { incarnation: now.into(), was: was.into() };
            fold::apply(&mut m, &entry, EngineTime(2)).unwrap();
            assert_eq!(m.run_name(now), before);
        }
    }
}
