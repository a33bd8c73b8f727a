//! From stage to stage: what people want, what is there, and the one edge table.

use super::Input;
use crate::model::{Channel, Control, Desired, Entry, Fault, FaultClass, Stage, StepEnd};

/// At rest (or idle in discovery): does anything call for a run?
pub(super) fn departure(i: &Input<'_>) -> Option<Vec<Entry>> {
    let m = i.m;
    let to = match (m.stage, m.control, m.desired) {
        (Stage::Discover, Control::Unmanaged, _) => {
            // Discover once; afterwards facts are kept fresh by health probes.
            if !m.identity.is_unknown() {
                return None;
            }
            return Some(begin(i, None, "discovery"));
        }
        (Stage::Discover, Control::Enrolled, _) => return Some(begin(i, None, "enrolled")),
        (Stage::Discover, Control::Adopted, _) => return Some(begin(i, None, "adopted")),
        (Stage::Repair, Control::Enrolled, _) if m.rescue.is_some() => {
            let by = m.rescue.as_ref().map_or("", |r| &r.by);
            return Some(begin(i, None, &format!("rescue by {by}")));
        }
        // `Enroll` after a repair or retirement; an adopted machine's `release` too.
        (Stage::Repair | Stage::Retired, Control::Enrolled, Some(d)) if d != Desired::Retired => {
            Stage::Discover
        }
        (Stage::Ready, _, Some(Desired::InService)) => Stage::Join,
        (Stage::Ready, _, Some(Desired::Drained)) => Stage::Drained,
        (Stage::Ready, _, Some(Desired::Retired)) => Stage::Retire,
        (Stage::InService, _, Some(Desired::Drained | Desired::Ready | Desired::Retired)) => {
            Stage::Drain
        }
        (Stage::Drained, _, Some(Desired::InService)) => Stage::Join,
        (Stage::Drained, Control::Enrolled, Some(Desired::Ready)) => Stage::Firmware,
        (Stage::Drained, _, Some(Desired::Retired)) => Stage::Retire,
        _ => return None,
    };
    let reason = format!("desired {}", m.desired.map_or("unset", Desired::name));
    Some(begin(i, Some(to), &reason))
}

fn begin(i: &Input<'_>, to: Option<Stage>, reason: &str) -> Vec<Entry> {
    let mut entries =
        vec![Entry::RunBegan { workflow: i.profile.workflow.clone(), reason: reason.into() }];
    match to {
        Some(stage) => arrive(i, stage, &mut entries),
        None => next_step(i, i.m.stage, None, &mut entries),
    }
    entries
}

/// The end of an aborted run: its place in the repair shop, power and disks as they are.
pub(super) fn abort(i: &Input<'_>) -> Vec<Entry> {
    let why = i.m.run.as_ref().and_then(|r| r.abort.as_deref()).unwrap_or("aborted");
    let reason = format!("aborted: {why}");
    let ended = i.m.step.as_ref().map(|s| Entry::StepEnded {
        key: s.key.clone(),
        end: StepEnd::Skipped { reason: reason.clone() },
    });
    let mut entries: Vec<Entry> = ended.into_iter().collect();
    if i.m.stage != Stage::Repair {
        entries.push(Entry::Entered { stage: Stage::Repair });
    }
    entries.push(Entry::RunEnded { why: reason });
    entries
}

/// The entries after the step at `index` of the current stage has ended (`None`: before its
/// first): the next step, or the next stage.
pub(super) fn advance(i: &Input<'_>, index: Option<u16>) -> Vec<Entry> {
    let mut entries = Vec::new();
    next_step(i, i.m.stage, index, &mut entries);
    entries
}

/// Is what the next stage depends on known? An adopted machine rests where its cluster says.
pub(super) fn arrival_facts(i: &Input<'_>, index: Option<u16>) -> Result<(), Fault> {
    let last = following(i, i.m.stage, index).is_none();
    if last
        && i.m.stage == Stage::Discover
        && i.m.control == Control::Adopted
        && i.profile.cluster.is_some()
    {
        return match (i.report.cluster.seen(), i.report.cluster.fault()) {
            (Some(_), _) => Ok(()),
            (None, Some(f)) => Err(f.clone()),
            (None, None) => Err(Fault::new(
                FaultClass::Transient,
                Channel::Cluster,
                "not-asked-yet",
                "the cluster was not asked about the node yet",
            )),
        };
    }
    Ok(())
}

fn following(
    i: &Input<'_>,
    stage: Stage,
    after: Option<u16>,
) -> Option<(u16, std::sync::Arc<str>)> {
    i.workflow
        .of_stage(stage)
        .filter(|(n, _)| after.is_none_or(|a| *n > usize::from(a)))
        .find(|(_, spec)| {
            spec.when.labels.iter().all(|(k, v)| i.expected.labels.get(k) == Some(v))
                && (spec.when.pools.is_empty()
                    || spec.when.pools.iter().any(|p| **p == *i.expected.pool))
        })
        .and_then(|(n, spec)| Some((u16::try_from(n).ok()?, spec.key.clone())))
}

fn next_step(i: &Input<'_>, stage: Stage, after: Option<u16>, entries: &mut Vec<Entry>) {
    if let Some((index, key)) = following(i, stage, after) {
        entries.push(Entry::StepBegan { index, key });
        return;
    }
    match next_stage(i, stage) {
        Some(next) => arrive(i, next, entries),
        None => entries.push(Entry::RunEnded {
            why: match (stage, after) {
                (Stage::Repair, None) => "its workflow has no `rescue` step".into(),
                (Stage::Repair, Some(_)) => "the rescue is over; it rests in repair".into(),
                _ => "discovered; adopt or enroll it".into(),
            },
        }),
    }
}

fn arrive(i: &Input<'_>, stage: Stage, entries: &mut Vec<Entry>) {
    entries.push(Entry::Entered { stage });
    if stage.is_resting() {
        entries.push(Entry::RunEnded { why: format!("arrived in {stage}") });
    } else {
        next_step(i, stage, None, entries);
    }
}

/// Where a stage leads when its last step has ended.
fn next_stage(i: &Input<'_>, stage: Stage) -> Option<Stage> {
    Some(match stage {
        Stage::Discover => match i.m.control {
            Control::Unmanaged => return None,
            Control::Enrolled => Stage::Firmware,
            Control::Adopted => {
                if i.report.cluster.seen().is_some_and(|c| c.member) {
                    Stage::InService
                } else {
                    Stage::Ready
                }
            }
        },
        Stage::Firmware => Stage::Provision,
        Stage::Provision => Stage::BurnIn,
        Stage::BurnIn => Stage::Ready,
        Stage::Join => Stage::InService,
        Stage::Drain => Stage::Drained,
        Stage::Retire => Stage::Retired,
        Stage::Ready | Stage::InService | Stage::Drained | Stage::Repair | Stage::Retired => {
            return None;
        }
    })
}
