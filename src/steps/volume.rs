//! Make the boot volume that the profile asks for, by the machine's RAID controller, before the image
//! is written. Making it destroys what is on its drives: exactly the two that the rule fits, never the
//! first two, none of them part of a volume, and on a first deployment none that may hold data. A
//! volume that is there is never deleted and never made again; whether it is there is what the BMC
//! shows, and nothing else.

use super::ramdisk::{Ramdisk, eject, media_needed};
use super::{Look, View, need};
use crate::model::action::PowerOp;
use crate::model::facts::{Power, ProbeSet, SystemFacts, Task, TaskState};
use crate::model::hardware::Volume;
use crate::model::machine::Act;
use crate::model::storage::{BootVolume, Drive, Storage, StorageFacts};
use crate::model::time::Span;
use crate::model::{Action, ActionKind, Channel, Fault, FaultClass, Machine, Read};
use crate::steps::site::Profile;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Longest time from power on until the controller shows its drives, or the volume that a POST was
    /// to make.
    pub deadline: Span,
}

impl Default for Params {
    fn default() -> Self {
        Self { deadline: Span(1_800_000) }
    }
}

/// Polls of volumes while the host is in its POST.
const POLL_MS: u64 = 15_000;
/// How long a BMC that took a volume may take to show it before a POST is tried.
const SHOWN_MS: u64 = 120_000;
/// Some tasks are pending for a moment before they run; those that are still so wait for a POST.
const PENDING_MS: u64 = 30_000;

/// The drives that the rule fits.
struct Chosen<'a> {
    wanted: &'a BootVolume,
    storage: &'a Storage,
    drives: Vec<&'a Drive>,
    serials: Vec<String>,
}

impl Params {
    pub(super) fn needs_of(m: &Machine, profile: &Profile) -> ProbeSet {
        if profile.boot_volume.is_none() {
            return ProbeSet::NONE;
        }
        let set = ProbeSet::SYSTEM.with(ProbeSet::TASKS).with(ProbeSet::STORAGE);
        // Where the drives may hold somebody's data the host is asked, or the ramdisk on it; and what
        // was opened for that is closed again.
        let looks = m.last_act(ActionKind::OpenBootWindow).is_some() || m.ramdisk.is_some();
        match consents(m) && !looks {
            true => set,
            false => set.with(ProbeSet::HOST).with(ProbeSet::BOOT).with(media_needed(m)),
        }
    }

    pub(super) fn needs(&self, _m: &Machine) -> ProbeSet {
        ProbeSet::NONE
    }

    pub(super) fn look(&self, v: &View<'_>) -> Look {
        let Some(wanted) = &v.profile.boot_volume else {
            return Look::Skip { reason: "the profile asks for no boot volume".into() };
        };
        let system = need!(v.report.system);
        if system.over_ipmi {
            return Look::wait("Redfish to answer again", POLL_MS);
        }
        let storage = need!(v.report.storage);
        let none = Vec::new();
        let tasks = match &v.report.tasks {
            Read::Failed(f) if f.class == FaultClass::Unsupported => &none,
            tasks => need!(*tasks),
        };
        let acts = v.m.step.as_ref().map_or(&[][..], |s| &s.acts);
        let posted = acts.iter().rposition(|a| a.happened && a.kind == ActionKind::CreateVolume);
        let chosen = match choose(wanted, storage) {
            Ok(chosen) => chosen,
            Err(fault) => return self.without_drives(v, system, fault),
        };
        if let Some(volume) = storage.made(wanted.kind.raid(), &chosen.serials) {
            return self.made(v, system, tasks, &chosen, volume);
        }
        match posted {
            Some(n) => self.posted(v, system, tasks, &chosen, &acts[n], &acts[n + 1..]),
            None => self.make(v, system, storage, tasks, &chosen),
        }
    }

    /// A controller without power shows no drives: the host is powered on before that counts.
    fn without_drives(&self, v: &View<'_>, system: &SystemFacts, fault: Fault) -> Look {
        let passing = matches!(&*fault.code, "no-raid-controller" | "too-few-drives");
        match system.power {
            _ if !passing => Look::Fail(fault),
            Power::Off => Look::Act(Action::Power { op: PowerOp::On }),
            Power::PoweringOn | Power::PoweringOff | Power::Unknown => {
                Look::wait("the power state to settle", 5_000)
            }
            // Whoever powered it on: it may still be in its POST.
            Power::On if v.step_age() <= self.deadline.0 => {
                let what = format!("the RAID controller to show its drives ({})", fault.message);
                Look::wait(what, POLL_MS)
            }
            Power::On => Look::Fail(fault),
        }
    }

    /// Nothing of it is there and nothing was sent.
    fn make(
        &self,
        v: &View<'_>,
        system: &SystemFacts,
        storage: &StorageFacts,
        tasks: &[Task],
        chosen: &Chosen<'_>,
    ) -> Look {
        if let Some(fault) = chosen.unfit(storage) {
            return Look::Fail(fault);
        }
        if let Some(busy) = tasks.iter().find(|t| t.may_run()) {
            // Nobody knows whose it is any more; it may be this very volume, and it ends with a POST.
            let booted = [ActionKind::PowerOn, ActionKind::PowerRestart];
            let waits = busy.waits_for_post() && v.step_age() > PENDING_MS;
            if waits && booted.iter().all(|k| v.m.happened(*k).is_none()) {
                return post(system);
            }
            return Look::wait(v.awaited(busy), POLL_MS);
        }
        if !consents(v.m)
            && let Some(look) = self.look_for_data(v, system, chosen)
        {
            return look;
        }
        match system.power {
            Power::On => Look::Act(Action::CreateVolume {
                raid: chosen.wanted.kind.raid().into(),
                name: chosen.wanted.name.clone(),
                drives: chosen.serials.clone(),
            }),
            // Most controllers take orders only while they have the host's power.
            Power::Off => Look::Act(Action::Power { op: PowerOp::On }),
            _ => Look::wait("the power state to settle", 5_000),
        }
    }

    /// Whether drives hold data no BMC tells: the deploy ramdisk looks. `None`: they hold none.
    fn look_for_data(
        &self,
        v: &View<'_>,
        system: &SystemFacts,
        chosen: &Chosen<'_>,
    ) -> Option<Look> {
        let names = chosen.names();
        let seen = v.report.host.seen();
        if seen.is_some_and(|h| h.holds_data == Some(true) && h.ramdisk_run.is_none()) {
            return Some(Look::Fail(existing_data(&format!(
                "the host's disks hold data that Farrier did not write; a volume of {names} would \
                 destroy what these hold of it"
            ))));
        }
        if v.profile.trust_installer {
            return Some(Look::Fail(existing_data(&format!(
                "nobody can tell whether {names} hold data, and a volume of them destroys it: this \
                 profile has no ramdisk that could look"
            ))));
        }
        let window = match &v.report.boot {
            Read::Seen(window) => window,
            Read::Failed(f) => return Some(Look::Unread(f.clone())),
            Read::NotAsked => return Some(Look::wait("the boot server's word", 1_000)),
        };
        let ramdisk = Ramdisk {
            v,
            system,
            window,
            deadline: self.deadline,
            allow_existing_data: false,
            keys: vec![],
        };
        let host = match ramdisk.enter() {
            Ok(host) => host,
            Err(look) => return Some(*look),
        };
        match host.holds_data {
            Some(false) => None,
            Some(true) => Some(Look::Fail(existing_data(&format!(
                "the ramdisk finds data on a disk; a volume of {names} may destroy it"
            )))),
            None => Some(Look::Fail(existing_data(&format!(
                "the ramdisk can't read all disks, and a volume of {names} destroys what is on them"
            )))),
        }
    }

    /// It was sent: now it is shown, or waits for a POST.
    fn posted(
        &self,
        v: &View<'_>,
        system: &SystemFacts,
        tasks: &[Task],
        chosen: &Chosen<'_>,
        act: &Act,
        after: &[Act],
    ) -> Look {
        let own = own_task(tasks, act);
        if let Some(job) = own.filter(|t| t.state == TaskState::Failed) {
            return Look::Fail(
                not_made(
                    format!("the BMC's job {} for the volume ended as {}", job.uri, job.raw_state),
                    chosen,
                )
                .evidence(job.message.clone().unwrap_or_default()),
            );
        }
        let booted = after.iter().rfind(|a| {
            a.happened && matches!(a.kind, ActionKind::PowerOn | ActionKind::PowerRestart)
        });
        let names = chosen.names();
        if let (Some(booted), Power::On) = (booted, system.power) {
            if v.watched_since(booted.closed) <= self.deadline.0 {
                return Look::wait(format!("POST to make the volume of {names}"), POLL_MS);
            }
            let what = format!("{} after the reboot the BMC shows no volume", self.deadline);
            return Look::Fail(not_made(what, chosen));
        }
        let waits = own.is_some_and(|t| t.waits_for_post());
        let grace = if waits { PENDING_MS } else { SHOWN_MS };
        if v.watched_since(act.closed) <= grace {
            return Look::wait(format!("the BMC to show the volume of {names}"), POLL_MS);
        }
        // The job that waits for our own reboot is not in its way.
        let busy = |t: &&Task| t.may_run() && !is_own(t, act);
        let runs = own.filter(|t| t.state == TaskState::InProgress && !waits);
        if let Some(busy) = tasks.iter().find(busy).or(runs) {
            return Look::wait(v.awaited(busy), POLL_MS);
        }
        post(system)
    }

    /// The BMC shows it. Nothing of ours is left on the way.
    fn made(
        &self,
        v: &View<'_>,
        system: &SystemFacts,
        tasks: &[Task],
        chosen: &Chosen<'_>,
        volume: &Volume,
    ) -> Look {
        if let Some(fault) = chosen.broken() {
            return Look::Fail(fault);
        }
        if volume.health.as_deref().is_some_and(|h| h.eq_ignore_ascii_case("critical")) {
            return Look::Fail(
                Fault::new(
                    FaultClass::Hardware,
                    Channel::Bmc,
                    "volume-broken",
                    format!("volume {} is in critical health", volume.id),
                )
                .hint("look at its drives; Farrier does not delete volumes"),
            );
        }
        let acts = v.m.step.as_ref().map_or(&[][..], |s| &s.acts);
        let act = acts.iter().rev().find(|a| a.kind == ActionKind::CreateVolume);
        // The next step would cut the power under it.
        let own = act.and_then(|act| own_task(tasks, act));
        if let Some(job) = own.filter(|t| t.state == TaskState::InProgress && !t.waits_for_post())
            && act.is_some_and(|a| v.watched_since(a.closed) <= self.deadline.0)
        {
            return Look::wait(format!("the BMC's job {} to end", job.uri), POLL_MS);
        }
        // The ramdisk that looked has other disks now than its kernel knows.
        if v.m.ramdisk.is_some() && system.power == Power::On {
            return Look::Act(Action::Power { op: PowerOp::ForceOff });
        }
        if v.m.happened(ActionKind::OpenBootWindow).is_some() {
            let window = v.report.boot.seen().filter(|w| w.open).and_then(|w| w.run.clone());
            if let Some(look) = eject(v) {
                return look;
            }
            if let Some(run) = window {
                return Look::Act(Action::CloseBootWindow { run });
            }
        }
        Look::done(chosen.evidence(volume))
    }
}

/// The act that leads through a POST.
fn post(system: &SystemFacts) -> Look {
    match system.power {
        Power::Off => Look::Act(Action::Power { op: PowerOp::On }),
        Power::On => Look::Act(Action::Power { op: PowerOp::ForceRestart }),
        _ => Look::wait("the power state to settle", 5_000),
    }
}

/// May what is on the drives be lost? As the deploy job is told.
fn consents(m: &Machine) -> bool {
    m.allow_existing_data || m.deployed.is_some()
}

fn existing_data(what: &str) -> Fault {
    Fault::new(FaultClass::Precondition, Channel::Bmc, "existing-data", what).hint(
        "look at what is on the disks; `farrier machine enroll <name> --allow-existing-data` \
         overwrites it",
    )
}

/// What takes the order back: it may be sent again.
fn not_made(what: String, chosen: &Chosen<'_>) -> Fault {
    Fault::new(
        FaultClass::Transient,
        Channel::Bmc,
        Fault::VOLUME_NOT_MADE,
        format!("{what}; wanted {} of {}", chosen.wanted.kind.raid(), chosen.names()),
    )
    .hint("does POST stop with a question on the console? `farrier bmc volume` lists the volumes")
}

fn own_task<'t>(tasks: &'t [Task], act: &Act) -> Option<&'t Task> {
    tasks.iter().find(|t| is_own(t, act))
}

fn is_own(task: &Task, act: &Act) -> bool {
    act.job.as_deref().is_some_and(|job| task.is_named(job))
}

fn fault(class: FaultClass, code: &'static str, message: String) -> Fault {
    Fault::new(class, Channel::Bmc, code, message)
}

/// Exactly the drives that the rule fits, on one controller.
fn choose<'a>(wanted: &'a BootVolume, facts: &'a StorageFacts) -> Result<Chosen<'a>, Fault> {
    let rule = wanted.controller.as_deref().unwrap_or("any");
    let on: Vec<&Storage> = facts.parts.iter().filter(|s| wanted.is_on(s)).collect();
    if on.is_empty() {
        let there: Vec<String> =
            facts.parts.iter().map(|s| format!("{} ({})", s.id, s.models.join(", "))).collect();
        let message = match there.is_empty() {
            true => "no storage of this machine can have volumes".to_string(),
            false => format!("no storage fits controller `{rule}`: {}", there.join("; ")),
        };
        return Err(fault(FaultClass::Precondition, "no-raid-controller", message)
            .hint("`controller` is the storage's id, or a controller's model as the BMC says it"));
    }
    let fitting: Vec<(&Storage, &Drive)> = on
        .iter()
        .flat_map(|s| s.drives.iter().map(move |d| (*s, d)))
        .filter(|(_, d)| wanted.drives.fits(d))
        .collect();
    let takes = wanted.kind.drives();
    let seen = || {
        let all = on.iter().flat_map(|s| s.drives.iter());
        let one = |d: &Drive| {
            let fits = if wanted.drives.fits(d) { "fits" } else { "does not fit" };
            let model = d.model.as_deref().unwrap_or("unknown model");
            format!("{} {model}, {} bytes: {fits}", d.name(), d.bytes.unwrap_or(0))
        };
        all.map(one).collect::<Vec<_>>().join("; ")
    };
    if fitting.len() != takes {
        let n = fitting.len();
        let (code, message) = match n < takes {
            true => {
                ("too-few-drives", format!("{n} drives fit the rule, and a mirror takes {takes}"))
            }
            false => {
                ("too-many-drives", format!("{n} drives fit the rule, and it is never guessed"))
            }
        };
        return Err(fault(FaultClass::Precondition, code, message)
            .evidence(seen())
            .hint("`[profile.boot_volume]` has to fit exactly two drives of this machine"));
    }
    let storage = fitting[0].0;
    if fitting.iter().any(|(s, _)| !std::ptr::eq(*s, storage)) {
        return Err(fault(
            FaultClass::Precondition,
            "drives-apart",
            "the drives that fit are on different controllers, and no volume spans these".into(),
        )
        .evidence(seen())
        .hint("say which one by `controller`"));
    }
    let drives: Vec<&Drive> = fitting.into_iter().map(|(_, d)| d).collect();
    let mut serials: Vec<String> = drives.iter().filter_map(|d| d.serial.clone()).collect();
    serials.sort();
    serials.dedup();
    if serials.len() != takes {
        return Err(fault(
            FaultClass::Precondition,
            "drive-without-serial",
            "the drives that fit have no serials that tell them apart".into(),
        )
        .evidence(seen()));
    }
    Ok(Chosen { wanted, storage, drives, serials })
}

impl Chosen<'_> {
    fn names(&self) -> String {
        let all: Vec<String> = self.drives.iter().map(|d| d.name()).collect();
        all.join(" and ")
    }

    fn broken(&self) -> Option<Fault> {
        let drive = self.drives.iter().find(|d| d.is_broken())?;
        Some(fault(
            FaultClass::Hardware,
            "drive-broken",
            format!("drive {} is in critical health", drive.name()),
        ))
    }

    /// Why no volume is made of these drives.
    fn unfit(&self, facts: &StorageFacts) -> Option<Fault> {
        let all = || facts.parts.iter().flat_map(|s| &s.volumes);
        for drive in &self.drives {
            let Some(uri) = drive.volumes.first() else { continue };
            let volume = all().find(|v| v.uri == *uri);
            let what = volume.map_or_else(|| uri.clone(), shown);
            return Some(
                fault(
                    FaultClass::Precondition,
                    "drive-in-use",
                    format!("drive {} is part of another volume: {what}", drive.name()),
                )
                .hint(
                    "Farrier deletes no volume: look at what it holds, delete it by hand, then \
                     `farrier machine release`",
                ),
            );
        }
        let name = &self.wanted.name;
        if let Some(volume) = all().find(|v| v.name.as_deref() == Some(name)) {
            return Some(
                fault(
                    FaultClass::Precondition,
                    "volume-elsewhere",
                    format!("another volume has the name `{name}`: {}", shown(volume)),
                )
                .hint("is the rule for other drives than the ones it was made of? Correct one of them"),
            );
        }
        let levels = &self.storage.levels;
        let raid = self.wanted.kind.raid();
        if !levels.is_empty() && !levels.iter().any(|l| l == raid) {
            return Some(fault(
                FaultClass::Unsupported,
                "raid-unsupported",
                format!("storage {} has no {raid}; it has {}", self.storage.id, levels.join(", ")),
            ));
        }
        self.broken()
    }

    fn evidence(&self, volume: &Volume) -> String {
        let mut out = format!("{} of {}", shown(volume), self.names());
        if let Some(operation) = &volume.operation {
            // It can be written to meanwhile.
            out.push_str(&format!("; goes on in the background: {operation}"));
        }
        if let Some(health) = volume.health.as_deref().filter(|h| !h.eq_ignore_ascii_case("ok")) {
            out.push_str(&format!("; health {health}"));
        }
        out
    }
}

fn shown(volume: &Volume) -> String {
    format!(
        "{} `{}` ({})",
        volume.raid.as_deref().unwrap_or("volume"),
        volume.name.as_deref().unwrap_or("-"),
        volume.id
    )
}
