//! What people's orders change in a row. An order that does not fit it is refused, with a reason
//! for whoever gave it.

use super::close;
use crate::model::action::Redo;
use crate::model::change::{Change, Desired};
use crate::model::machine::{Condition, Control, Hold, Machine, OpenState, Rescue};
use crate::model::stage::{Stage, is_legal};
use crate::model::time::EngineTime;

/// Applies one change.
pub(super) fn apply(
    m: &mut Machine,
    change: &Change,
    by: &str,
    at: EngineTime,
) -> Result<(), String> {
    match change {
        Change::Adopt => {
            if m.control == Control::Enrolled {
                return Err("an enrolled machine can't be adopted".into());
            }
            m.control = Control::Adopted;
        }
        Change::Enroll { allow_existing_data, desired } => {
            leads_somewhere(Control::Enrolled, m.stage, *desired)?;
            m.control = Control::Enrolled;
            m.allow_existing_data = *allow_existing_data;
            m.desired = Some(*desired);
        }
        Change::Desire { desired } => {
            if m.control == Control::Unmanaged {
                return Err("the machine is unmanaged: adopt or enroll it first".into());
            }
            leads_somewhere(m.control, m.stage, *desired)?;
            m.desired = Some(*desired);
        }
        Change::Hold { why } => {
            m.hold = Some(Box::new(Hold { by: by.to_string(), why: why.clone(), since: at }));
        }
        Change::Unhold { .. } => {
            let Some(hold) = m.hold.take() else {
                return Err("the machine is not held".into());
            };
            if let Some(step) = &mut m.step
                && !step.end_room(at)
            {
                step.since = step.since + at.since(hold.since.max(step.since));
            }
        }
        Change::Release { .. } => {
            if !m.is_quarantined() {
                return Err("the machine is not quarantined".into());
            }
            m.condition = Condition::Ok;
            // A person has looked: what nobody could tell counts as not done from here on.
            m.restored = None;
            if m.open.as_ref().is_some_and(|o| o.state == OpenState::Unknown) {
                close(m, false, at);
            }
            if let Some(open) = &mut m.open {
                open.progress_at = at;
            }
            m.not_before = EngineTime::ZERO;
            start_over(m, at);
        }
        Change::Retry { .. } => {
            m.not_before = EngineTime::ZERO;
            if matches!(m.condition, Condition::BackingOff) {
                m.condition = Condition::Ok;
            }
        }
        Change::Skip { step: wanted, why } => {
            let Some(step) = &mut m.step else {
                return Err("no step is under way".into());
            };
            if *step.key != **wanted {
                return Err(format!("the current step is `{}`, not `{wanted}`", step.key));
            }
            if m.open.is_some() {
                return Err("an action is open; hold the machine and wait for it".into());
            }
            step.skip = Some(why.as_str().into());
            m.not_before = EngineTime::ZERO;
            m.condition = Condition::Ok;
        }
        Change::Abort { why } => {
            if !is_legal(m.stage, Stage::Repair) && m.stage != Stage::Repair {
                return Err(format!(
                    "there is no safe place to abort to from {}: set the desired state instead",
                    m.stage
                ));
            }
            let Some(run) = &mut m.run else {
                return Err("no run is under way".into());
            };
            run.abort = Some(why.as_str().into());
            m.desired = None;
            m.not_before = EngineTime::ZERO;
            // A person has looked, as with a release.
            m.condition = Condition::Ok;
            if m.open.as_ref().is_some_and(|o| o.state == OpenState::Unknown) {
                close(m, false, at);
            }
            if let Some(open) = &mut m.open {
                open.progress_at = at;
            }
        }
        Change::Password { .. } => {}
        Change::Repair { .. } => {
            if !is_legal(m.stage, Stage::Repair) {
                return Err(format!("there is no edge {} → repair", m.stage));
            }
            if m.open.is_some() {
                return Err("an action is open; hold the machine and wait for it".into());
            }
            m.run = None;
            m.step = None;
            m.waiting = None;
            m.condition = Condition::Ok;
            m.stage = Stage::Repair;
            m.stage_since = at;
            m.desired = None;
        }
        Change::Rescue { key, for_ms, why } => rescue(m, key, *for_ms, why, by, at)?,
        Change::EndRescue { why } => {
            let Some(rescue) = &mut m.rescue else {
                return Err("nobody asked for a rescue".into());
            };
            rescue.ended = Some(why.as_str().into());
            if m.run.is_none() {
                m.rescue = None;
            }
            // It goes on to its end also where the boot has failed and waits for its next attempt.
            m.not_before = EngineTime::ZERO;
            if matches!(m.condition, Condition::BackingOff) {
                m.condition = Condition::Ok;
            }
        }
    }
    Ok(())
}

fn rescue(
    m: &mut Machine,
    key: &str,
    for_ms: u64,
    why: &str,
    by: &str,
    at: EngineTime,
) -> Result<(), String> {
    if m.control != Control::Enrolled {
        return Err("only an enrolled machine is booted by Farrier: enroll it first".into());
    }
    if m.stage != Stage::Repair {
        let first = match is_legal(m.stage, Stage::Repair) {
            true => "send it to repair first",
            false => "set it to `drained`, then send it to repair",
        };
        return Err(format!(
            "a rescue begins in repair and the machine is in {}: {first}",
            m.stage
        ));
    }
    let until = at + for_ms;
    let (quarantined, runs) = (m.is_quarantined(), m.run.is_some());
    match &mut m.rescue {
        Some(before) if before.ended.is_some() => {
            return Err("a rescue is being ended: wait until the machine rests in repair".into());
        }
        Some(before) if *before.key == *key => before.until = until,
        Some(before) => {
            return Err(format!("it is in the rescue of {} with another key: end that", before.by));
        }
        None if quarantined => {
            return Err("the machine is quarantined: look at it and release it first".into());
        }
        None if runs => return Err("a run is under way".into()),
        None => {
            m.rescue = Some(Box::new(Rescue {
                key: key.into(),
                by: by.into(),
                why: why.into(),
                until,
                up: None,
                ended: None,
            }));
        }
    }
    Ok(())
}

/// A wish that no edge leads to would be kept and never come true, without a word.
fn leads_somewhere(control: Control, stage: Stage, desired: Desired) -> Result<(), String> {
    match (control, stage, desired) {
        (_, Stage::Repair, Desired::Retired) => {
            Err("from repair no way leads to retired: enroll it with desired `ready`, then retire \
                 it; a machine that can't be enrolled any more leaves by the inventory"
                .into())
        }
        (Control::Adopted, Stage::Repair | Stage::Retire | Stage::Retired, d)
            if d != Desired::Retired =>
        {
            Err(format!(
                "an adopted machine is not installed anew, so from {stage} it can't become {d}: \
                 enroll it"
            ))
        }
        _ => Ok(()),
    }
}

fn start_over(m: &mut Machine, at: EngineTime) {
    if let Some(step) = &mut m.step {
        step.attempt = 0;
        step.since = at;
        if m.open.is_none() {
            // A staged image is not flashed again because a person looked: it is activated, and
            // only the re-read version takes it back.
            step.acts.retain(|a| a.happened && a.kind.class().redo == Redo::Never);
        }
    }
}
