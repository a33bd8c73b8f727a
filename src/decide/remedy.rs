//! When trying again does not mend it: the next rung of the fault's ladder, where nothing speaks
//! against it. The ladders are data; what must never be cut short is here.

use super::{Input, Verdict, act};
use crate::model::facts::{Power, Read, Task};
use crate::model::identity::Match;
use crate::model::machine::FaultNote;
use crate::model::remedy::Remedy;
use crate::model::time::Span;
use crate::model::{ActionKind, Condition, Entry, Fault};
use crate::steps::firmware::{COPY_MS, may_copy};
use crate::steps::remediation::Rung;
use crate::steps::workflow::StepSpec;
use crate::steps::{Look, Step};

/// A remedy instead of one more try: its intent, through the same gate and limits as any other.
/// What can't be done now (no room, in use, a task runs) is left out; the step's retries go on.
pub(super) fn take(i: &Input<'_>, spec: &StepSpec, looked: &Look) -> Option<Verdict> {
    let note = failing(i)?;
    match looked {
        Look::Fail(f) | Look::Unread(f) if f.code == note.fault.code => {}
        Look::Act(_) => {}
        _ => return None,
    }
    if i.stopped || i.outage.is_some() {
        return None;
    }
    let failures = failures(i, note);
    let rungs = i.site.remediation.rungs(&note.fault);
    let rung = rungs.iter().find(|r| failures >= r.after && left(i, r) > 0)?;
    let waited = i.now.since(i.m.last_reset);
    if i.m.last_reset.0 > 0 && waited < i.site.remediation.interval.0 || !is_safe(i, spec, rung) {
        return None;
    }
    match act(i, spec, rung.remedy.action()) {
        Verdict::Act { mut entries } => {
            let code = note.fault.code.to_string();
            entries.insert(0, Entry::Remedied { remedy: rung.remedy, code, failures });
            Some(Verdict::Act { entries })
        }
        _ => None,
    }
}

/// What the machine backs off for.
fn failing<'a>(i: &Input<'a>) -> Option<&'a FaultNote> {
    let m = i.m;
    m.last_fault.as_deref().filter(|n| n.count > 0 && m.condition == Condition::BackingOff)
}

/// Failures so far: the same reading in a row, the step's charged attempts, or calls that came to
/// nothing, whichever is most.
fn failures(i: &Input<'_>, note: &FaultNote) -> u32 {
    let step = i.m.step.as_deref();
    let calls = step.map_or(0, |s| s.acts.iter().rev().take_while(|a| !a.happened).count());
    let attempts = step.map_or(0, |s| u32::from(s.attempt));
    note.count.max(attempts).max(u32::try_from(calls).unwrap_or(u32::MAX))
}

/// How often the rung may still be taken in its window.
fn left(i: &Input<'_>, rung: &Rung) -> u32 {
    let taken = i.m.remedies.iter().flat_map(|r| r.iter());
    let used =
        taken.filter(|r| r.remedy == rung.remedy && i.now.since(r.at) < rung.window.0).count();
    rung.limit.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
}

fn is_safe(i: &Input<'_>, spec: &StepSpec, rung: &Rung) -> bool {
    let Some(system) = i.report.system.seen() else { return false };
    if i.m.identity.compare(&system.identity) != Match::Same {
        return false;
    }
    // An update that did not take may have been taken all the same.
    let acts = i.m.step.as_ref().map_or(&[][..], |s| &s.acts);
    let flashed_lately = acts
        .iter()
        .any(|a| a.kind == ActionKind::UpdateFirmware && i.now.since(a.closed) < COPY_MS);
    if flashed_lately || may_copy(i.m, i.now) {
        return false;
    }
    // Nothing may be written, and that must be known: tasks that can't be read may be running.
    let idle = match &i.report.tasks {
        Read::Seen(tasks) => !tasks.iter().any(Task::may_run),
        _ => false,
    };
    match rung.remedy {
        Remedy::BmcReset => idle,
        // Where the host itself is the patient; an installation or a staged update is not cut.
        Remedy::PowerCycle => {
            idle && system.power == Power::On
                && matches!(spec.step, Step::BurnIn(_) | Step::Sanitize(_))
        }
    }
}

/// What comes before a person is called, for `explain`.
pub(super) fn ahead(i: &Input<'_>) -> Option<String> {
    let note = failing(i)?;
    let failures = failures(i, note);
    let rung = i.site.remediation.rungs(&note.fault).iter().find(|r| left(i, r) > 0)?;
    let name = rung.remedy.name();
    let more = rung.after.saturating_sub(failures);
    let resting = i.site.remediation.interval.0.saturating_sub(i.now.since(i.m.last_reset));
    Some(match (more, resting) {
        (0, 0) => format!("`{name}` as soon as nothing speaks against it"),
        (0, _) if i.m.last_reset.0 > 0 => {
            format!("`{name}` in {} (its last reset was too lately)", Span(resting))
        }
        (0, _) => format!("`{name}` as soon as nothing speaks against it"),
        (1, _) => format!("`{name}` after one more failure"),
        (n, _) => format!("`{name}` after {n} more failures"),
    })
}

/// The fault with what was tried in this run, for whoever is called.
pub(super) fn with_tried(i: &Input<'_>, mut fault: Fault) -> Fault {
    let since = i.m.run.as_ref().map_or(i.now, |r| r.since);
    let tried: Vec<String> = i
        .m
        .remedies
        .iter()
        .flat_map(|r| r.iter())
        .filter(|r| r.at >= since)
        .map(|r| format!("{} {} ago for `{}`", r.remedy.name(), Span(i.now.since(r.at)), r.code))
        .collect();
    if !tried.is_empty() {
        let said = fault.evidence.take().map(|e| format!("{e}; ")).unwrap_or_default();
        fault.evidence = Some(format!("{said}tried: {}", tried.join(", ")));
    }
    fault
}
