//! The lean hot row of a machine: everything a decision needs besides fresh facts. Only `fold`
//! writes it, so the journal always explains it.

use super::action::{Action, ActionKind, Baseline, Expect};
use super::change::Desired;
use super::fault::{Channel, Fault};
use super::identity::Identity;
use super::limit::LimitClass;
use super::observed::Observed;
use super::remedy::Remedied;
use super::stage::Stage;
use super::text::Text;
use super::time::EngineTime;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Dense number of a machine in its database.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MachineId(pub u32);

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}", self.0)
    }
}

/// Whose hands a machine is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// Probes only. Every new machine.
    #[default]
    Unmanaged,
    /// Taken over as it runs, untouched.
    Adopted,
    /// In the hands of its workflow.
    Enrolled,
}

impl Control {
    pub fn name(self) -> &'static str {
        match self {
            Control::Unmanaged => "unmanaged",
            Control::Adopted => "adopted",
            Control::Enrolled => "enrolled",
        }
    }
}

/// Beside the stage, never a stage. A hold is kept apart ([`Machine::hold`]): a quarantined
/// machine can be held too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "condition")]
pub enum Condition {
    #[default]
    Ok,
    /// The last attempt failed; [`Machine::not_before`] says when the next one is.
    BackingOff,
    /// Nothing comes back from the BMC. Clears itself after good probes.
    Unreachable { since: EngineTime },
    /// A person must look. Keeps its place; safe actions go on.
    Quarantined { since: EngineTime, fault: Box<Fault> },
}

impl Condition {
    pub fn name(&self) -> &'static str {
        match self {
            Condition::Ok => "ok",
            Condition::BackingOff => "backing-off",
            Condition::Unreachable { .. } => "unreachable",
            Condition::Quarantined { .. } => "quarantined",
        }
    }
}

/// A maintenance hold: by whom, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub by: String,
    pub why: String,
    pub since: EngineTime,
}

/// A trip through stages for one reason, pinned to its workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The journal seq at which it began: unique per machine.
    pub id: u64,
    /// Hash of the normalized workflow text.
    pub workflow: Arc<str>,
    pub reason: Arc<str>,
    pub since: EngineTime,
    /// Why a person aborted it; nothing new is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Arc<str>>,
    /// The incarnation it began under, where the database was restored since: its names in the
    /// outside world hold that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Arc<str>>,
}

/// Where a run stands inside its stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub index: u16,
    pub key: Arc<str>,
    pub since: EngineTime,
    /// Failed attempts charged so far.
    pub attempt: u16,
    /// What this attempt did, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acts: Vec<Act>,
    /// Headroom held until the step ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<LimitClass>,
    /// Why a person skips it: it ends as soon as no action is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<Box<str>>,
    /// An outage of something the machine shares passed over this attempt: what it may have cut is
    /// not held against the machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Since when it waits for room under a limit: that is nobody's delay, and its clocks stand still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_since: Option<EngineTime>,
}

/// How every wait for headroom begins.
pub const ROOM: &str = "room under the limit";

impl Cursor {
    /// Milliseconds that count for the step's timeout. `resumed`: before that nobody watched.
    pub fn age(&self, now: EngineTime, resumed: EngineTime) -> u64 {
        self.room_since.unwrap_or(now).since(self.since.max(resumed))
    }

    /// When the last update of this attempt, or a reset since that may have made it run, was through.
    pub fn written_at(&self) -> Option<EngineTime> {
        let written = |a: &Act| a.kind == ActionKind::UpdateFirmware && a.happened;
        let runs = |a: &&Act| {
            written(a)
                || matches!(
                    a.kind,
                    ActionKind::BmcReset | ActionKind::PowerOn | ActionKind::PowerRestart
                )
        };
        let first = self.acts.iter().position(written)?;
        self.acts[first..].iter().filter(runs).map(|a| a.closed).max()
    }

    /// The wait for room is over: its clocks go on from where they stood. Answers whether there was
    /// one.
    pub(super) fn end_room(&mut self, at: EngineTime) -> bool {
        let Some(began) = self.room_since.take() else { return false };
        self.stand_still(at.since(began));
        true
    }

    /// This long nothing was to be expected of it; deadlines that count from an act's end (a
    /// callback, a version) move too.
    pub(super) fn stand_still(&mut self, gap: u64) {
        self.since = self.since + gap;
        for act in &mut self.acts {
            act.closed = act.closed + gap;
        }
    }
}

/// One closed action of the current attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    pub kind: ActionKind,
    /// What it was about: a component, a boot target, a job name.
    pub about: String,
    /// When its intent was committed.
    pub at: EngineTime,
    /// When it was closed.
    pub closed: EngineTime,
    pub happened: bool,
    /// Taken as done, because it may have been: after a restore, or as the daemon ended while it
    /// was being sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub presumed: bool,
    pub baseline: Baseline,
    /// The BMC's job that applies BIOS settings or makes a volume, where it made one: it may wait for
    /// the next POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<str>>,
}

/// How far an open action has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpenState {
    /// The intent is durable. After a restart this means: outcome unknown.
    Intended,
    /// The other side took it; not yet observed.
    Applied,
    /// Nobody can tell yet whether it took hold.
    Unknown,
}

/// The one action of a machine that is not yet observed finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAction {
    /// Journal seq of the intent: with the machine id, the action's name.
    pub seq: u64,
    pub action: Action,
    pub expect: Expect,
    pub baseline: Baseline,
    pub at: EngineTime,
    pub state: OpenState,
    /// Not sent by this database: taken as launched after a restore.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub presumed: bool,
    /// Where the launched work is followed (task path).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// Digest of the last progress seen and when it changed: for stall detection.
    #[serde(default)]
    pub progress: u64,
    #[serde(default)]
    pub progress_at: EngineTime,
    /// The daemon ended while it was under way: if it did not happen, that is held against nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
}

/// What Farrier itself put on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    pub image: Arc<str>,
    pub run: Text,
}

/// The deploy ramdisk that the host runs: who logs in goes there and not to the installed system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ramdisk {
    /// The run that it was booted for.
    pub run: Box<str>,
    /// From where it called back: `address` or `address:port`.
    pub address: Box<str>,
    /// The key that it told with its one-time token.
    pub host_key: Box<str>,
}

/// A person's rescue: the deploy ramdisk with their key, until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescue {
    /// OpenSSH public key, one line.
    pub key: Box<str>,
    pub by: Box<str>,
    pub why: Box<str>,
    pub until: EngineTime,
    /// When the ramdisk was handed over: from then on Farrier does nothing to the host but end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<EngineTime>,
    /// Why a person ended it before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Box<str>>,
}

impl Rescue {
    pub fn is_over(&self, now: EngineTime) -> bool {
        self.ended.is_some() || now >= self.until
    }
}

/// A fault with when it was last seen and how often in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultNote {
    pub fault: Fault,
    pub at: EngineTime,
    pub count: u32,
}

/// What a restore left to be weighed: the world may be ahead of the row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    pub at: EngineTime,
    /// Seq of the `restored` entry. A name of ours with this number or a higher one, given under an
    /// earlier incarnation, comes from the time that was lost.
    pub seq: u64,
    /// What was presumed since, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub presumed: Vec<Box<str>>,
}

/// Stands among what was presumed once the firmware stage was gone through.
const FIRMWARE_KNOWN: &str = "firmware known";

impl Restored {
    /// Under which words a presumed action is remembered.
    pub fn key(action: &Action) -> Box<str> {
        format!("{} {}", action.kind(), action.about()).into()
    }

    /// Was this presumed since the restore, or is it known by now?
    pub fn has_presumed(&self, action: &Action) -> bool {
        let key = Self::key(action);
        let known = |p: &str| p == FIRMWARE_KNOWN && action.kind() == ActionKind::UpdateFirmware;
        self.presumed.iter().any(|p| *p == key || known(p))
    }

    /// Every version was read after the restore: no update of the lost time can be staged any more.
    pub(super) fn firmware_is_known(&mut self) {
        self.presumed.push(FIRMWARE_KNOWN.into());
    }
}

/// The hot row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub id: MachineId,
    pub name: Arc<str>,
    /// Seq of the last journal entry folded in; dense per machine.
    pub seq: u64,
    pub control: Control,
    /// Given at enrolment: a first deployment may overwrite foreign data.
    #[serde(default)]
    pub allow_existing_data: bool,
    pub desired: Option<Desired>,
    pub stage: Stage,
    pub stage_since: EngineTime,
    pub run: Option<Box<Run>>,
    pub step: Option<Box<Cursor>>,
    pub condition: Condition,
    pub hold: Option<Box<Hold>>,
    pub open: Option<Box<OpenAction>>,
    pub last_fault: Option<Box<FaultNote>>,
    /// No attempt before this time.
    pub not_before: EngineTime,
    /// What the machine waits for, for people.
    pub waiting: Option<Box<str>>,
    /// Drift or an out-of-band change last noticed at rest; report-only.
    pub notice: Option<Box<str>>,
    /// The mark that the next probe at rest is compared with; empty while a run is under way.
    #[serde(default)]
    pub observed: Observed,
    /// When Farrier last reset it or changed its power; zero = never.
    #[serde(default)]
    pub last_reset: EngineTime,
    /// Remedies taken lately, oldest first.
    #[allow(clippy::box_collection, reason = "nearly always empty: one word in every row")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedies: Option<Box<Vec<Remedied>>>,
    /// Changes made behind Farrier's back, counted since registration.
    #[serde(default)]
    pub out_of_band: u16,
    /// Proven identity; one with the inventory's where that says the same.
    pub identity: Arc<Identity>,
    /// Pinned SSH host key.
    pub host_key: Option<Box<str>>,
    /// Since it called back and until the host loses power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramdisk: Option<Box<Ramdisk>>,
    /// Wanted by a person, in `repair`; gone with the end of its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<Box<Rescue>>,
    pub deployed: Option<Deployed>,
    /// Since a restore, until everything on the way to `ready` was observed anew or a person has
    /// looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Box<Restored>>,
}

impl Machine {
    /// Did a look say anything since the current step began? The step's clock starts with the first
    /// that does: a look that comes late is Farrier's delay, not the machine's.
    pub fn was_judged(&self) -> bool {
        self.step.as_ref().is_some_and(|step| {
            self.open.is_some()
                || step.attempt > 0
                || !step.acts.is_empty()
                || self.waiting.is_some()
                || self.last_fault.as_ref().is_some_and(|n| n.at >= step.since)
        })
    }

    /// A row before its first entry.
    pub fn blank(id: MachineId) -> Self {
        Self {
            id,
            name: Arc::from(""),
            seq: 0,
            control: Control::Unmanaged,
            allow_existing_data: false,
            desired: None,
            stage: Stage::Discover,
            stage_since: EngineTime::ZERO,
            run: None,
            step: None,
            condition: Condition::Ok,
            hold: None,
            open: None,
            last_fault: None,
            not_before: EngineTime::ZERO,
            waiting: None,
            notice: None,
            observed: Observed::default(),
            last_reset: EngineTime::ZERO,
            remedies: None,
            out_of_band: 0,
            identity: Arc::default(),
            host_key: None,
            ramdisk: None,
            rescue: None,
            deployed: None,
            restored: None,
        }
    }

    /// Name of the current run in the outside world (boot window, image mark). `incarnation`: the
    /// database's. Unique over restores, and the same before and after one.
    pub fn run_name(&self, incarnation: &str) -> String {
        let run = self.run.as_deref();
        let born = run.and_then(|r| r.incarnation.as_deref()).unwrap_or(incarnation);
        format!("{born}-{}-{}", self.id, run.map_or(0, |r| r.id))
    }

    pub fn is_quarantined(&self) -> bool {
        matches!(self.condition, Condition::Quarantined { .. })
    }

    pub fn is_unreachable(&self) -> bool {
        matches!(self.condition, Condition::Unreachable { .. })
    }

    /// Headroom this machine holds now: from its open action and from its step.
    pub fn held_limits(&self) -> impl Iterator<Item = LimitClass> + '_ {
        let from_action = self.open.as_ref().and_then(|o| o.action.kind().class().limit);
        let from_step =
            self.step.as_ref().and_then(|s| s.holds).filter(|c| Some(*c) != from_action);
        from_action.into_iter().chain(from_step)
    }

    /// Is the open action a remedy, and not the step's own?
    pub fn is_remedied(&self) -> bool {
        let last = self.remedies.as_ref().and_then(|r| r.last());
        last.zip(self.open.as_ref()).is_some_and(|(remedy, open)| remedy.seq + 1 == open.seq)
    }

    /// The way on which an unreachable machine is.
    pub fn lost_on(&self) -> Option<Channel> {
        self.last_fault.as_ref().filter(|_| self.is_unreachable()).map(|n| n.fault.channel)
    }

    /// Since when it counts as unreachable.
    pub fn lost_at(&self) -> Option<EngineTime> {
        match self.condition {
            Condition::Unreachable { since } => Some(since),
            _ => None,
        }
    }

    /// The last act of `kind` in the current attempt.
    pub fn last_act(&self, kind: ActionKind) -> Option<&Act> {
        self.step.as_ref()?.acts.iter().rev().find(|a| a.kind == kind)
    }

    /// The last act of `kind` in the current attempt that was seen to take hold.
    pub fn happened(&self, kind: ActionKind) -> Option<&Act> {
        self.step.as_ref()?.acts.iter().rev().find(|a| a.kind == kind && a.happened)
    }
}
