//! Set the BIOS to what the profile asks: everything that differs waits for one POST, and an attribute
//! is done only when it is read as in force afterwards. Boot mode and Secure Boot go the same way.

use super::settings::shown;
use super::{Look, View, need};
use crate::model::action::PowerOp;
use crate::model::facts::{Power, ProbeSet, SystemFacts, Task, TaskState};
use crate::model::hardware::{BiosFacts, SecureBootFacts};
use crate::model::machine::Act;
use crate::model::time::Span;
use crate::model::{Action, ActionKind, Channel, Entry, Fault, FaultClass, Machine, Read};
use crate::steps::site::Profile;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Longest time from the reboot until the settings are read as in force.
    pub deadline: Span,
}

impl Default for Params {
    fn default() -> Self {
        Self { deadline: Span(1_800_000) }
    }
}

/// Polls of settings while the host is in its POST.
const POLL_MS: u64 = 15_000;
/// Settings that a text for people names.
const NAMED: usize = 3;

/// What the judgement goes by.
struct Seen<'a> {
    system: &'a SystemFacts,
    bios: &'a BiosFacts,
    secure_boot: &'a SecureBootFacts,
    wanted: BTreeMap<String, Value>,
    secure: Option<bool>,
}

impl Params {
    /// Only what the profile asks about: a BIOS is hundreds of attributes.
    pub(super) fn needs_of(profile: &Profile) -> ProbeSet {
        let bios = &profile.bios;
        if bios.asks_nothing() {
            return ProbeSet::NONE;
        }
        let mut set = ProbeSet::SYSTEM.with(ProbeSet::TASKS);
        if bios.asks_attributes() {
            set = set.with(ProbeSet::BIOS);
        }
        if bios.secure_boot.is_some() {
            set = set.with(ProbeSet::SECURE_BOOT);
        }
        set
    }

    pub(super) fn needs(&self, _m: &Machine) -> ProbeSet {
        ProbeSet::NONE
    }

    pub(super) fn look(&self, v: &View<'_>) -> Look {
        let asked = &v.profile.bios;
        if asked.asks_nothing() {
            return Look::Skip { reason: "the profile asks nothing of the BIOS".into() };
        }
        let system = need!(v.report.system);
        if system.over_ipmi {
            return Look::wait("Redfish to answer again", POLL_MS);
        }
        let (no_bios, no_secure_boot) = (BiosFacts::default(), SecureBootFacts::default());
        let bios = if asked.asks_attributes() { need!(v.report.bios) } else { &no_bios };
        let secure_boot = match asked.secure_boot {
            Some(_) => need!(v.report.secure_boot),
            None => &no_secure_boot,
        };
        let wanted = match asked.wanted(system, bios) {
            Ok(wanted) => wanted,
            Err(fault) => return Look::Fail(fault),
        };
        let secure = asked.secure_boot;
        let seen = Seen { system, bios, secure_boot, wanted, secure };
        if seen.wanted.is_empty() && secure.is_none() {
            return Look::Skip {
                reason: format!(
                    "no `[[profile.bios]]` fits model `{}` with BIOS `{}`",
                    system.model.as_deref().unwrap_or("unknown"),
                    system.bios_version.as_deref().unwrap_or("unknown"),
                ),
            };
        }
        if let Some(fault) = seen.impossible() {
            return Look::Fail(fault);
        }
        self.go_on(v, &seen)
    }

    /// Set what is not planned, then one POST, then in force.
    fn go_on(&self, v: &View<'_>, seen: &Seen<'_>) -> Look {
        let acts = v.m.step.as_ref().map_or(&[][..], |s| &s.acts);
        let set = acts.iter().rposition(|a| a.happened && sets(a.kind));
        let after = set.map_or(acts, |set| &acts[set + 1..]);
        let booted = after.iter().rfind(|a| a.happened && boots(a.kind));
        let job = acts.iter().rev().find_map(|a| a.job.as_deref());
        let unplanned = seen.unplanned();
        let left = seen.left();
        let none = Vec::new();
        let tasks = match &v.report.tasks {
            Read::Failed(f) if f.class == FaultClass::Unsupported => &none,
            tasks => need!(*tasks),
        };
        let own = tasks.iter().find(|t| job.is_some_and(|job| t.is_named(job)));
        if left.is_empty() && unplanned.is_empty() {
            return match own {
                // The next step would cut the power under it.
                Some(job)
                    if job.state == TaskState::InProgress && v.step_age() <= self.deadline.0 =>
                {
                    Look::wait(format!("the BMC's job {} to end", job.uri), POLL_MS)
                }
                _ => Look::done(seen.evidence()),
            };
        }
        if let Some(job) = own.filter(|t| t.state == TaskState::Failed) {
            return Look::Fail(job_failed(job));
        }
        if let (Some(booted), Power::On) = (booted, seen.system.power) {
            return self.through_post(v, seen, booted, &left);
        }
        // The job that waits for our own reboot is not in its way.
        let busy = |t: &&Task| t.may_run() && !job.is_some_and(|job| t.is_named(job));
        if let Some(busy) = tasks.iter().find(busy) {
            return Look::wait(v.awaited(busy), POLL_MS);
        }
        // What did not last over its POST is not set again in the same attempt.
        if booted.is_none() && !unplanned.is_empty() {
            return seen.set(v, &unplanned);
        }
        match seen.system.power {
            Power::Off => Look::Act(Action::Power { op: PowerOp::On }),
            Power::On => Look::Act(Action::Power { op: PowerOp::ForceRestart }),
            _ => Look::wait("the power state to settle", 5_000),
        }
    }

    /// Rebooted for it: the POST applies the settings, and it takes its time.
    fn through_post(&self, v: &View<'_>, seen: &Seen<'_>, booted: &Act, left: &[String]) -> Look {
        if v.watched_since(booted.closed) <= self.deadline.0 {
            return Look::wait(named(left), POLL_MS);
        }
        Look::Fail(
            Fault::new(
                FaultClass::Transient,
                Channel::Bmc,
                "bios-unchanged",
                format!("{} after the reboot the BIOS is not as asked: {}", self.deadline, left.join("; ")),
            )
            .evidence(seen.pending())
            .hint("does POST stop with a question on the console? The BIOS may turn a value down that depends on another one"),
        )
    }
}

/// Leaves something for the next POST.
fn sets(kind: ActionKind) -> bool {
    matches!(kind, ActionKind::SetBios | ActionKind::SetSecureBoot)
}

fn boots(kind: ActionKind) -> bool {
    matches!(kind, ActionKind::PowerOn | ActionKind::PowerRestart)
}

fn job_failed(job: &Task) -> Fault {
    Fault::new(
        FaultClass::Transient,
        Channel::Bmc,
        "bios-job-failed",
        format!("the BMC's job {} for the BIOS settings ended as {}", job.uri, job.raw_state),
    )
    .evidence(job.message.clone().unwrap_or_default())
}

/// The first few of `left`, for people.
fn named(left: &[String]) -> String {
    let more = left.len().saturating_sub(NAMED);
    let some = left[..left.len().min(NAMED)].join("; ");
    match more {
        0 => format!("POST to apply {some}"),
        n => format!("POST to apply {some}; and {n} more"),
    }
}

impl Seen<'_> {
    /// What this BIOS does not have, or with another kind of value: said before anything is rebooted.
    fn impossible(&self) -> Option<Fault> {
        let lacks: Vec<&str> = (self.wanted.keys())
            .filter(|k| self.bios.planned(k).is_none())
            .map(String::as_str)
            .collect();
        if !lacks.is_empty() {
            return Some(
                Fault::new(
                    FaultClass::Precondition,
                    Channel::Bmc,
                    "unknown-bios-attribute",
                    format!("this BIOS has no {}", lacks.join(", ")),
                )
                .hint("names are exact and differ between vendors: `farrier bmc bios` lists them"),
            );
        }
        let kind = std::mem::discriminant::<Value>;
        let other: Vec<String> = (self.wanted.iter())
            .filter_map(|(k, v)| Some((k, v, self.bios.planned(k)?)))
            .filter(|(_, v, has)| kind(v) != kind(has))
            .map(|(k, v, has)| format!("`{k}` is {has}, wanted {v}"))
            .collect();
        if !other.is_empty() {
            return Some(Fault::new(
                FaultClass::Precondition,
                Channel::Bmc,
                "bios-value-kind",
                format!("values of another kind than this BIOS has: {}", other.join("; ")),
            ));
        }
        if self.secure.is_some() && self.secure_boot.enabled.is_none() {
            return Some(Fault::new(
                FaultClass::Unsupported,
                Channel::Bmc,
                "no-secure-boot",
                "the BMC does not say whether Secure Boot is on",
            ));
        }
        None
    }

    /// Attributes that the next POST would not leave as they are wanted.
    fn unplanned(&self) -> Unplanned {
        let attributes = (self.wanted.iter())
            .filter(|(k, v)| self.bios.planned(k) != Some(*v))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        Unplanned {
            attributes,
            secure: self.secure.filter(|on| self.secure_boot.enabled != Some(*on)),
        }
    }

    /// What is not in force, each with both values.
    fn left(&self) -> Vec<String> {
        let differs = (self.wanted.iter())
            .filter(|(k, v)| self.bios.attributes.get(*k) != Some(*v))
            .map(|(k, v)| {
                let now = self.bios.attributes.get(k).map_or("unknown".into(), shown);
                format!("{k} reads {now}, wanted {}", shown(v))
            });
        let word = |on| if on { "on" } else { "off" };
        let secure = self.secure.filter(|on| self.secure_boot.now() != Some(*on)).map(|on| {
            let now = self.secure_boot.now().map_or("unknown", word);
            format!("Secure Boot reads {now}, wanted {}", word(on))
        });
        differs.chain(secure).collect()
    }

    /// What somebody else left for the next POST.
    fn foreign(&self) -> Vec<String> {
        let theirs = self.bios.pending.iter().filter(|(k, _)| !self.wanted.contains_key(*k));
        theirs.map(|(k, v)| format!("{k} = {}", shown(v))).collect()
    }

    fn pending(&self) -> String {
        let all: Vec<String> =
            self.bios.pending.iter().map(|(k, v)| format!("{k} = {}", shown(v))).collect();
        match all.is_empty() {
            true => "nothing is pending".into(),
            false => format!("still pending: {}", all.join(", ")),
        }
    }

    fn evidence(&self) -> String {
        let mut all: Vec<String> =
            self.wanted.iter().map(|(k, v)| format!("{k} = {}", shown(v))).collect();
        all.extend(self.secure.map(|on| format!("Secure Boot {}", if on { "on" } else { "off" })));
        let foreign = self.foreign();
        if !foreign.is_empty() {
            all.push(format!("not ours and pending: {}", foreign.join(", ")));
        }
        all.join(", ")
    }

    /// One PATCH for all attributes, then Secure Boot; both wait for the same POST.
    fn set(&self, v: &View<'_>, unplanned: &Unplanned) -> Look {
        let foreign = self.foreign();
        if !foreign.is_empty() {
            // Our POST applies them too, and afterwards nobody can tell.
            let what = format!(
                "BIOS settings that are not ours wait for the same POST: {}",
                foreign.join(", ")
            );
            if v.m.notice.as_deref() != Some(&*what) {
                return Look::Note(vec![Entry::Noticed { what }]);
            }
        }
        match unplanned.secure {
            Some(on) if unplanned.attributes.is_empty() => Look::Act(Action::SetSecureBoot { on }),
            _ => Look::Act(Action::SetBios { attributes: unplanned.attributes.clone() }),
        }
    }
}

struct Unplanned {
    attributes: BTreeMap<String, Value>,
    secure: Option<bool>,
}

impl Unplanned {
    fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.secure.is_none()
    }
}
