//! `explain`: the live decision in words, without commit.

use super::{Decide, Input, Verdict, certificate, remedy};
use crate::model::stage::is_legal;
use crate::model::time::Span;
use crate::model::{Channel, Condition, Control, EngineTime, Entry, FaultClass, Machine, Stage};
use serde::{Deserialize, Serialize};

/// Why a machine is where it is, since when, and what comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub machine: String,
    /// One sentence for the person at 3 a.m.
    pub summary: String,
    pub stage: String,
    pub step: Option<String>,
    pub condition: String,
    pub control: String,
    pub desired: Option<String>,
    /// Time in the stage, in the step.
    pub in_stage: String,
    pub in_step: Option<String>,
    pub attempt: Option<String>,
    pub waiting_for: Option<String>,
    pub open_action: Option<String>,
    pub last_fault: Option<String>,
    pub evidence: Option<String>,
    pub hint: Option<String>,
    /// Drift noticed at rest.
    pub notice: Option<String>,
    /// What Farrier does next, and when.
    pub next: String,
    /// The ways out that a person has now.
    pub ways_out: Vec<String>,
}

/// Explains by the same decision the engine takes, on the facts that were read last. `due` is
/// when the engine looks again.
pub fn explain(decider: &impl Decide, i: &Input<'_>, due: EngineTime) -> Explanation {
    let m = i.m;
    let name = &m.name;
    let verdict = decider.decide(i);
    let waiting = match &verdict {
        Verdict::Rest { waiting: Some(w), .. } => Some(w.clone()),
        _ => m.waiting.as_deref().map(str::to_string),
    };
    let spec = m.step.as_ref().and_then(|s| i.workflow.steps.get(usize::from(s.index)));
    let fault = m.last_fault.as_ref().filter(|n| n.count > 0 || m.is_quarantined());
    let mut ways_out = Vec::new();
    let unaccepted = waiting.as_deref().and_then(|w| certificate::awaited(i, w));
    let mut hint = fault.and_then(|n| n.fault.hint.clone());
    let summary = match (&m.condition, &m.hold) {
        (Condition::Quarantined { since, fault }, _) => {
            ways_out.push(format!("farrier machine release {name} --why \"…\""));
            if is_legal(m.stage, Stage::Repair) && m.open.is_none() {
                ways_out.push(format!("farrier machine repair {name} --why \"…\""));
            }
            hint = fault.hint.clone();
            format!(
                "{name} is quarantined in {} for {}: {}",
                m.stage,
                Span(i.now.since(*since)),
                fault.message
            )
        }
        (Condition::Unreachable { since }, _) => {
            let away = Span(i.now.since(*since));
            match i.outage.filter(|o| !o.is_over()) {
                Some(outage) => format!("{name} has not answered for {away}; {outage}"),
                None => format!(
                    "{name}'s {} has not answered for {away}; it heals itself once it answers",
                    if m.lost_on() == Some(Channel::Host) { "host" } else { "BMC" },
                ),
            }
        }
        (_, Some(hold)) => {
            ways_out.push(format!("farrier machine unhold {name} --why \"…\""));
            format!("{name} is held by {}: {}", hold.by, hold.why)
        }
        (Condition::BackingOff, _) => format!(
            "{name} backs off in {}: {}",
            m.stage,
            fault.map_or("a failed attempt", |n| n.fault.message.as_str())
        ),
        (Condition::Ok, None) => match (&m.step, m.control) {
            (Some(step), _) => format!(
                "{name} is in {} at step `{}`{}",
                m.stage,
                step.key,
                waiting.as_ref().map(|w| format!(", waiting for {w}")).unwrap_or_default()
            ),
            (None, Control::Unmanaged) => {
                ways_out.push(format!("farrier machine adopt {name}"));
                ways_out.push(format!("farrier machine enroll {name}"));
                format!("{name} is unmanaged: Farrier only reads it")
            }
            (None, _) => format!("{name} rests in {}", m.stage),
        },
    };
    if let Some(it) = unaccepted {
        let place = it.place;
        let bmc = it.controller.map_or("the BMC".into(), |c| format!("controller `{c}`"));
        hint = Some(match it.renewed {
            true => format!(
                "Farrier updated its firmware and {bmc} was reset since, which makes a new \
                 certificate: compare the fingerprint, then accept it with `farrier bmc pin {place}`"
            ),
            false => format!("`farrier bmc pin {place}` shows the one it has and keeps it"),
        });
        ways_out.push(format!("farrier bmc pin {place} --why \"…\""));
    }
    if let Some(rescue) = &m.rescue {
        if let (Some(_), Some(r)) = (rescue.up, &m.ramdisk) {
            hint = Some(format!(
                "ssh root@{}, which must show the host key {}; over in {}",
                r.address,
                r.host_key,
                Span(rescue.until.since(i.now))
            ));
        }
        if rescue.ended.is_none() {
            ways_out.push(format!("farrier machine rescue {name} --end --why \"…\""));
        }
    }
    if m.step.is_some() && !m.is_quarantined() {
        ways_out.push(format!("farrier machine retry {name}"));
        if m.hold.is_none() {
            ways_out.push(format!("farrier machine hold {name} --why \"…\""));
        }
    }
    ways_out.extend(leave_behind(m));
    // At rest and not well: one that is well where it belongs needs no way out.
    if ways_out.is_empty() && m.condition != Condition::Ok {
        ways_out.push(format!("farrier machine retry {name}"));
        ways_out.push(format!("farrier machine hold {name} --why \"…\""));
    }
    let look = if due == EngineTime::NEVER || due <= i.now {
        "now".to_string()
    } else {
        format!("in {}", Span(due.since(i.now)))
    };
    let next = match &verdict {
        Verdict::Act { entries } => match entries.last() {
            Some(Entry::Intent { action, .. }) => {
                format!("do `{}` ({}) after the next probe, {look}", action.kind(), action.about())
            }
            _ => format!("look again {look}"),
        },
        Verdict::Write { entries, .. } => {
            let words: Vec<&str> = entries.iter().map(Entry::name).collect();
            format!("probe again {look}; on today's facts: {}", words.join(", "))
        }
        Verdict::Rest { .. } => format!("probe again {look}"),
    };
    let next = match remedy::ahead(i) {
        Some(ahead) => format!("{next}; then {ahead}"),
        None => next,
    };
    Explanation {
        machine: name.to_string(),
        summary,
        stage: m.stage.name().into(),
        step: m.step.as_ref().map(|s| s.key.to_string()),
        condition: m.condition.name().into(),
        control: m.control.name().into(),
        desired: m.desired.map(|d| d.name().into()),
        in_stage: Span(i.now.since(m.stage_since)).to_string(),
        in_step: m.step.as_ref().map(|s| Span(i.now.since(s.since)).to_string()),
        attempt: m
            .step
            .as_ref()
            .zip(spec)
            .map(|(s, spec)| format!("{} of {}", s.attempt + 1, spec.retry.attempts)),
        waiting_for: waiting,
        open_action: m.open.as_ref().map(|o| {
            format!(
                "{} ({}), {:?} for {}",
                o.action.kind(),
                o.action.about(),
                o.state,
                Span(i.now.since(o.at))
            )
        }),
        last_fault: fault.map(|n| n.fault.to_string()),
        evidence: fault.and_then(|n| n.fault.evidence.clone()),
        hint,
        notice: m.notice.as_deref().map(str::to_string),
        next,
        ways_out,
    }
}

/// Skip and abort, where the machine would take them now.
fn leave_behind(m: &Machine) -> Vec<String> {
    if m.run.as_ref().is_none_or(|r| r.abort.is_some()) {
        return Vec::new();
    }
    let (name, mut ways) = (&m.name, Vec::new());
    // Nobody should talk a foreign machine past the step that found it out.
    let foreign = matches!(&m.condition, Condition::Quarantined { fault, .. }
        if fault.class == FaultClass::Identity);
    let free = m.open.is_none() && !foreign;
    if let Some(step) = m.step.as_ref().filter(|s| s.skip.is_none() && free) {
        ways.push(format!("farrier machine skip {name} --step {} --why \"…\"", step.key));
    }
    if is_legal(m.stage, Stage::Repair) || m.stage == Stage::Repair {
        ways.push(format!("farrier machine abort {name} --why \"…\""));
    }
    ways
}
