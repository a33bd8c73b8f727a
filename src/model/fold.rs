//! `fold(journal) == row`: the only code that changes a [`Machine`]. An entry that does not fit
//! the row is an error, never a guess.

mod change;

use super::action::{Action, ActionKind, Expect, Outcome, Redo};
use super::fault::Fault;
use super::journal::{Entry, StepEnd};
use super::machine::{
    Act, Condition, Cursor, Deployed, FaultNote, Hold, Machine, MachineId, OpenAction, OpenState,
    ROOM, Ramdisk, Restored, Run,
};
use super::observed::Observed;
use super::remedy::{REMEDIES_KEPT, Remedied};
use super::stage::{Stage, is_legal};
use super::time::EngineTime;
use std::sync::Arc;

/// An entry that does not fit the row it was applied to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journal entry {seq} (`{entry}`) of {machine} does not fit: {why}")]
pub struct Illegal {
    pub machine: MachineId,
    pub seq: u64,
    pub entry: &'static str,
    pub why: String,
}

/// Who holds a machine after [`Entry::Restored`].
pub const RESTORE: &str = "restore";

/// How many closed actions of one attempt a row keeps; a step that needs more is ill-designed.
const ACTS_KEPT: usize = 24;

/// Applies one entry.
pub fn apply(m: &mut Machine, entry: &Entry, at: EngineTime) -> Result<(), Illegal> {
    let seq = m.seq + 1;
    let id = m.id;
    let refuse = |why: String| Illegal { machine: id, seq, entry: entry.name(), why };
    if ends_room_wait(entry)
        && let Some(step) = &mut m.step
        && step.end_room(at)
    {
        m.waiting = None;
    }
    match entry {
        Entry::Registered { name } => {
            if m.seq != 0 {
                return Err(refuse("the machine is registered already".into()));
            }
            m.name = name.clone();
            m.stage_since = at;
        }
        Entry::Changed { change, by, .. } => change::apply(m, change, by, at).map_err(refuse)?,
        Entry::RunBegan { workflow, reason } => {
            if let Some(run) = &m.run {
                return Err(refuse(format!("run {} has not ended", run.id)));
            }
            // From here on it is Farrier who changes things.
            m.observed = Observed::default();
            m.run = Some(Box::new(Run {
                id: seq,
                workflow: workflow.clone(),
                reason: reason.clone(),
                since: at,
                abort: None,
                incarnation: None,
            }));
        }
        Entry::RunEnded { .. } => {
            if m.run.take().is_none() {
                return Err(refuse("there is no run".into()));
            }
            m.step = None;
            m.waiting = None;
            if m.stage == Stage::Repair {
                (m.rescue, m.ramdisk) = (None, None);
            }
        }
        Entry::Entered { stage } => {
            if !is_legal(m.stage, *stage) {
                return Err(refuse(format!("there is no edge {} → {stage}", m.stage)));
            }
            if m.open.is_some() {
                return Err(refuse("an action is open".into()));
            }
            m.stage = *stage;
            m.stage_since = at;
            m.step = None;
            m.waiting = None;
            // Each stage that needs the ramdisk boots it for itself.
            m.ramdisk = None;
            match *stage {
                // Firmware, image and burn-in were observed on the way, or the disks are blank.
                Stage::Ready | Stage::Retired => m.restored = None,
                Stage::Provision => {
                    if let Some(restored) = &mut m.restored {
                        restored.firmware_is_known();
                    }
                }
                _ => {}
            }
        }
        Entry::StepBegan { index, key } => {
            if m.run.is_none() {
                return Err(refuse("there is no run".into()));
            }
            m.step = Some(Box::new(Cursor {
                index: *index,
                key: key.clone(),
                since: at,
                attempt: 0,
                acts: Vec::new(),
                holds: None,
                skip: None,
                cut: false,
                room_since: None,
            }));
            m.waiting = None;
        }
        Entry::StepEnded { key, end } => {
            match &m.step {
                Some(step) if step.key == *key => {}
                _ => return Err(refuse(format!("step `{key}` is not the current one"))),
            }
            if m.open.is_some() {
                return Err(refuse("an action is open".into()));
            }
            m.step = None;
            m.waiting = None;
            m.not_before = EngineTime::ZERO;
            if matches!(m.condition, Condition::BackingOff) {
                m.condition = Condition::Ok;
            }
            if matches!(end, StepEnd::Done { .. }) {
                m.last_fault = None;
            }
        }
        Entry::Proven { identity } => m.identity = Arc::new(identity.or(&m.identity)),
        Entry::HostKeyPinned { host_key } => m.host_key = Some((**host_key).into()),
        Entry::RamdiskUp { run, address, host_key } => {
            if m.run.is_none() {
                return Err(refuse("there is no run".into()));
            }
            m.ramdisk = Some(Box::new(Ramdisk {
                run: run.as_str().into(),
                address: address.as_str().into(),
                host_key: host_key.as_str().into(),
            }));
        }
        Entry::RescueUp { .. } => match &mut m.rescue {
            Some(rescue) => rescue.up = Some(at),
            None => return Err(refuse("nobody asked for a rescue".into())),
        },
        Entry::Deployed { image, run } => {
            m.deployed = Some(Deployed { image: image.as_str().into(), run: run.as_str().into() });
        }
        Entry::Intent { action, expect, baseline, holds } => {
            if let Some(open) = &m.open {
                return Err(refuse(format!("action {} is open", open.seq)));
            }
            if m.is_quarantined() || m.hold.is_some() {
                return Err(refuse("the machine is quarantined or held".into()));
            }
            let Some(step) = &mut m.step else {
                return Err(refuse("there is no step".into()));
            };
            // Waiting for headroom is nobody's delay: the clock starts with the first action.
            if step.acts.is_empty() && step.attempt == 0 {
                step.since = at;
            }
            step.holds = step.holds.or(*holds);
            m.waiting = None;
            if matches!(action, Action::BmcReset { .. } | Action::Power { .. }) {
                m.last_reset = at;
            }
            settle_down(m);
            m.open = Some(Box::new(OpenAction {
                seq,
                action: action.clone(),
                expect: expect.clone(),
                baseline: baseline.clone(),
                at,
                state: OpenState::Intended,
                presumed: false,
                handle: None,
                progress: 0,
                progress_at: at,
                interrupted: false,
            }));
        }
        Entry::Settled { outcome } => {
            let Some(open) = &mut m.open else {
                return Err(refuse("no action is open".into()));
            };
            match outcome {
                Outcome::Applied { handle } => {
                    open.state = OpenState::Applied;
                    open.handle = handle.clone().or_else(|| open.handle.take());
                    open.progress_at = at;
                }
                Outcome::Unknown { fault } => {
                    open.interrupted |= fault.code == Fault::INTERRUPTED;
                    open.state = OpenState::Unknown;
                }
                Outcome::Refused { .. } | Outcome::Failed { .. } | Outcome::Withdrawn { .. } => {
                    close(m, false, at);
                }
            }
        }
        Entry::Found { handle } => {
            let Some(open) = &mut m.open else {
                return Err(refuse("no action is open".into()));
            };
            open.state = OpenState::Applied;
            open.handle = Some(handle.clone());
            open.progress_at = at;
        }
        Entry::Progressed { digest } => {
            let Some(open) = &mut m.open else {
                return Err(refuse("no action is open".into()));
            };
            open.state = OpenState::Applied;
            open.progress = *digest;
            open.progress_at = at;
        }
        Entry::Closed { happened, .. } => {
            if m.open.is_none() {
                return Err(refuse("no action is open".into()));
            }
            close(m, *happened, at);
            m.waiting = None;
            // Launched work was followed to its end; a quarantined machine holds no place beyond.
            if m.is_quarantined()
                && let Some(step) = &mut m.step
            {
                step.holds = None;
            }
        }
        Entry::Faulted { fault, charged, not_before } => {
            start_clock(m, at);
            back_off(m, fault, *not_before, at);
            if *charged && let Some(step) = &mut m.step {
                step.attempt = step.attempt.saturating_add(1);
                step.cut = false;
                if m.open.is_none() {
                    forget(&mut step.acts, fault);
                }
            }
        }
        Entry::Excused { fault, not_before, .. } => {
            back_off(m, fault, *not_before, at);
            if let Some(step) = &mut m.step {
                step.cut = false;
                if m.open.is_none() {
                    forget(&mut step.acts, fault);
                    // What was cut is done anew, with its whole time.
                    step.since = at;
                }
            }
        }
        Entry::Remedied { remedy, code, .. } => {
            if m.open.is_some() {
                return Err(refuse("an action is open".into()));
            }
            let taken = m.remedies.get_or_insert_default();
            if taken.len() == REMEDIES_KEPT {
                taken.remove(0);
            }
            let code = code.as_str().into();
            taken.push(Remedied { remedy: *remedy, at, seq, code });
        }
        Entry::Cut { .. } => {
            if let Some(step) = &mut m.step {
                step.cut = true;
            }
        }
        Entry::Lost { fault } => {
            if m.is_quarantined() {
                return Err(refuse("a quarantined machine stays quarantined".into()));
            }
            let count = m.last_fault.as_ref().map_or(1, |n| n.count + 1);
            m.last_fault = Some(Box::new(FaultNote { fault: fault.clone(), at, count }));
            m.condition = Condition::Unreachable { since: at };
        }
        Entry::Back => {
            // An outage is nobody's delay: clocks that watch the step stand still meanwhile.
            let gap = match m.condition {
                Condition::Unreachable { since } => at.since(since),
                Condition::BackingOff => 0,
                _ => return Err(refuse("the machine was not away".into())),
            };
            if let Some(step) = &mut m.step {
                step.stand_still(gap);
            }
            if let Some(open) = &mut m.open {
                open.progress_at = at;
            }
            m.condition = Condition::Ok;
            m.not_before = EngineTime::ZERO;
            m.waiting = None;
            m.last_fault = None;
        }
        Entry::Quarantined { fault } => {
            if m.is_quarantined() {
                return Err(refuse("the machine is quarantined already".into()));
            }
            m.condition = Condition::Quarantined { since: at, fault: Box::new(fault.clone()) };
            m.last_fault = Some(Box::new(FaultNote { fault: fault.clone(), at, count: 1 }));
            m.waiting = None;
            if m.open.is_none()
                && let Some(step) = &mut m.step
            {
                step.holds = None;
            }
        }
        Entry::Waits { what } => {
            start_clock(m, at);
            m.waiting = Some(what.as_str().into());
            if what.starts_with(ROOM)
                && let Some(step) = &mut m.step
            {
                step.room_since.get_or_insert(at);
            }
            settle_down(m);
        }
        Entry::Observed { power, boot, firmware } => {
            m.observed = m.observed.with(*power, boot.as_deref(), firmware);
        }
        Entry::OutOfBand { .. } => m.out_of_band = m.out_of_band.saturating_add(1),
        Entry::Restored { incarnation, was } => {
            m.observed = Observed::default();
            if let Some(open) = &mut m.open {
                open.state = OpenState::Unknown;
            }
            if let Some(run) = &mut m.run
                && !was.is_empty()
            {
                run.incarnation.get_or_insert_with(|| was.clone());
            }
            m.restored = Some(Box::new(Restored { at, seq, presumed: Vec::new() }));
            // A hold of a person's stays theirs.
            m.hold.get_or_insert_with(|| {
                Box::new(Hold {
                    by: RESTORE.into(),
                    why: format!("restored from a backup as {incarnation}; look, then unhold"),
                    since: at,
                })
            });
        }
        Entry::Presumed { action, baseline, holds, .. } => {
            if m.open.is_some() || m.is_quarantined() || m.hold.is_some() {
                return Err(refuse(
                    "an action is open, or the machine is quarantined or held".into(),
                ));
            }
            let Some(restored) = &mut m.restored else {
                return Err(refuse("the machine was not restored".into()));
            };
            let Some(step) = &mut m.step else {
                return Err(refuse("there is no step".into()));
            };
            restored.presumed.push(Restored::key(action));
            step.holds = step.holds.or(*holds);
            m.waiting = None;
            settle_down(m);
            m.open = Some(Box::new(OpenAction {
                seq,
                action: action.clone(),
                expect: Expect { identity: (*m.identity).clone(), ..Expect::default() },
                baseline: baseline.clone(),
                at,
                state: OpenState::Applied,
                presumed: true,
                handle: None,
                progress: 0,
                progress_at: at,
                interrupted: false,
            }));
        }
        Entry::Noticed { what } => {
            m.notice = (!what.is_empty()).then(|| what.as_str().into());
        }
    }
    m.seq = seq;
    Ok(())
}

/// Does this entry say that the machine no longer waits for headroom, or waits for more than that?
fn ends_room_wait(entry: &Entry) -> bool {
    match entry {
        Entry::Waits { what } => !what.starts_with(ROOM),
        Entry::Intent { .. }
        | Entry::Presumed { .. }
        | Entry::Faulted { .. }
        | Entry::Excused { .. }
        | Entry::Lost { .. }
        | Entry::Quarantined { .. } => true,
        _ => false,
    }
}

/// The first look that says something starts the step's clock.
fn start_clock(m: &mut Machine, at: EngineTime) {
    if !m.was_judged()
        && let Some(step) = &mut m.step
    {
        step.since = at;
    }
}

/// No attempt before `not_before`, because of this.
fn back_off(m: &mut Machine, fault: &Fault, not_before: EngineTime, at: EngineTime) {
    let count = match &m.last_fault {
        Some(note) if note.fault.code == fault.code => note.count + 1,
        _ => 1,
    };
    m.last_fault = Some(Box::new(FaultNote { fault: fault.clone(), at, count }));
    m.not_before = not_before;
    if !m.is_quarantined() {
        m.condition = Condition::BackingOff;
    }
}

/// The machine moves again after a failed attempt.
fn settle_down(m: &mut Machine) {
    if matches!(m.condition, Condition::BackingOff) {
        m.condition = Condition::Ok;
        m.not_before = EngineTime::ZERO;
        if let Some(note) = &mut m.last_fault {
            note.count = 0;
        }
    }
}

fn close(m: &mut Machine, happened: bool, at: EngineTime) {
    if let (Some(open), Some(step)) = (m.open.take(), &mut m.step) {
        // What the daemon's end cut is nobody's delay either.
        let cut = open.interrupted && open.state == OpenState::Unknown;
        let class = open.action.kind().class();
        if happened && matches!(open.action.kind(), ActionKind::PowerOff | ActionKind::PowerRestart)
        {
            // It lived in memory.
            m.ramdisk = None;
        }
        if cut && !happened {
            step.since = step.since + at.since(open.at.max(step.since));
        }
        if step.acts.len() == ACTS_KEPT {
            step.acts.remove(0);
        }
        let kind = open.action.kind();
        let keeps_job = matches!(kind, ActionKind::SetBios | ActionKind::CreateVolume);
        step.acts.push(Act {
            kind,
            about: open.action.about(),
            at: open.at,
            closed: at,
            happened,
            presumed: open.presumed || cut && happened && class.redo == Redo::Never,
            baseline: open.baseline,
            job: open.handle.filter(|_| keeps_job).map(Into::into),
        });
    }
}

/// A new attempt starts afresh, except behind an action that may not be done twice and took hold:
/// what failed after it (its activation, a read) is tried again, it is not. Only the re-read version,
/// or the volumes, take it back.
fn forget(acts: &mut Vec<Act>, fault: &Fault) {
    let kept = acts.iter().position(|a| a.happened && a.kind.class().redo == Redo::Never);
    match kept {
        Some(first) if !fault.takes_back() => drop(acts.drain(..first)),
        _ => acts.clear(),
    }
}

/// Folds a whole journal of one machine.
pub fn fold<'a>(
    id: MachineId,
    entries: impl IntoIterator<Item = (EngineTime, &'a Entry)>,
) -> Result<Machine, Illegal> {
    let mut m = Machine::blank(id);
    for (at, entry) in entries {
        apply(&mut m, entry, at)?;
    }
    Ok(m)
}
