//! What the mainboard and its BMC keep besides power and firmware: BIOS settings, Secure Boot,
//! virtual media, volumes, the log's mark, the clock, a leak. None of it draws from the machine's
//! random numbers; log and clock are touched by a wire only.

use super::attribute::{ATTRIBUTES, Attribute};
use super::{Cause, HostState, VirtualMachine, What, Window};
use crate::model::EngineTime;
use crate::model::action::BootTarget;
use crate::model::hardware::{BiosFacts, SecureBootFacts};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// After an eject a BMC goes on saying `Inserted` for this long (field notes §6.14: 5–10 s).
const STALE_MS: u64 = 6_000;
/// A new volume is initialised in the background for this long.
pub(super) const VOLUME_MS: u64 = 30_000;
/// What a BIOS job leaves.
const BIOS: &str = "Systems/1/Bios";
/// Tasks and log lines that are kept.
const KEPT: usize = 20;

/// An image in a virtual drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    pub url: Arc<str>,
    /// Length of the image; 0: its server did not say.
    pub bytes: u64,
    /// An iPXE image with a script in it: the host asks the boot server, as after PXE.
    pub chains: bool,
}

/// A virtual drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualDrive {
    pub medium: Option<Medium>,
    /// What was ejected last, and until when the BMC still shows it.
    gone: Option<(Medium, EngineTime)>,
}

impl VirtualDrive {
    /// What the BMC says is in it, which after an eject is not what is in it.
    pub fn shown(&self, now: EngineTime) -> Option<&Medium> {
        let stale = || self.gone.as_ref().filter(|(_, until)| now < *until).map(|(m, _)| m);
        self.medium.as_ref().or_else(stale)
    }
}

/// Redundancy of a volume (DSP0268 Volume `RAIDType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raid {
    Raid0,
    Raid1,
}

impl Raid {
    pub const ALL: [Raid; 2] = [Raid::Raid0, Raid::Raid1];

    pub fn word(self) -> &'static str {
        match self {
            Raid::Raid0 => "RAID0",
            Raid::Raid1 => "RAID1",
        }
    }
}

/// When a volume is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Making {
    AtOnce,
    ByTask,
    AtPost,
}

/// A volume over some of the machine's drives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub id: u32,
    pub name: Arc<str>,
    pub raid: Raid,
    /// Positions in the inventory's disks.
    pub drives: Vec<usize>,
    /// It is there from then on; [`EngineTime::NEVER`]: from the next POST.
    pub ready: EngineTime,
}

/// A task of the BMC that writes no firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chore {
    pub id: u32,
    pub name: &'static str,
    pub started: EngineTime,
    /// [`EngineTime::NEVER`]: it waits for the next POST.
    pub ends: EngineTime,
    /// What it leaves, as a path below `/redfish/v1/`.
    pub leaves: String,
    /// It leaves nothing.
    pub fails: bool,
}

impl Chore {
    pub fn uri(&self) -> String {
        format!("/redfish/v1/TaskService/Tasks/{}", self.id)
    }
}

/// Something that the truth log does not hold and the BMC's log does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A GPU became too hot under load.
    GpuHot(u16),
    Leak,
    LogCleared,
}

/// Which date the world's time is.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// When it began, milliseconds since 1970.
    pub began_ms: i64,
    /// So much faster than ours it runs: its clocks go like ours, since people compare them.
    pub scale: u32,
}

impl Default for Calendar {
    /// 1 November 2026.
    fn default() -> Self {
        Self { began_ms: 1_793_491_200_000, scale: 1 }
    }
}

impl Calendar {
    fn right_ms(&self, at: EngineTime) -> i64 {
        let since = at.0 / u64::from(self.scale.max(1));
        self.began_ms.saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// Attributes in force that are not the factory's.
    changed: BTreeMap<&'static str, Value>,
    /// Wait for the next POST.
    pending: BTreeMap<&'static str, Value>,
    /// When a POST last applied settings.
    pub applied: Option<EngineTime>,
    /// Wanted from the next POST on.
    pub secure_boot: bool,
    /// In force.
    pub secure_boot_now: bool,
    /// CD, then USB stick.
    pub drives: [VirtualDrive; 2],
    /// Volumes, those still being made too.
    pub volumes: Vec<Volume>,
    /// Oldest first.
    pub chores: Vec<Chore>,
    pub notes: Vec<(EngineTime, Note)>,
    /// Lines of the truth log and notes before these were cleared from the BMC's log.
    pub cleared: (usize, usize),
    pub calendar: Calendar,
    /// When the BMC's clock was set, and how far it is ahead of the right time since then; oldest first.
    clock: Vec<(EngineTime, i64)>,
    pub leaking: bool,
    /// A drive that is in critical health.
    pub dead_drive: Option<usize>,
    pub asset_tag: Arc<str>,
    pub lit: bool,
    pub(super) next_volume: u32,
}

impl Board {
    /// What the BMC's clock said at that time, milliseconds since 1970: what it wrote down then keeps
    /// the date that it had.
    pub fn clock_ms(&self, at: EngineTime) -> i64 {
        self.calendar.right_ms(at).saturating_add(self.clock_ahead_ms(at))
    }

    /// How far it was ahead then, milliseconds.
    pub fn clock_ahead_ms(&self, at: EngineTime) -> i64 {
        self.clock.iter().rev().find(|(since, _)| *since <= at).map_or(0, |(_, ahead)| *ahead)
    }

    /// Somebody sets it to `date_ms`, milliseconds since 1970.
    pub fn set_clock(&mut self, now: EngineTime, date_ms: i64) {
        self.put_clock_ahead(now, date_ms.saturating_sub(self.calendar.right_ms(now)));
    }

    pub fn put_clock_ahead(&mut self, now: EngineTime, ahead_ms: i64) {
        if self.clock.len() == KEPT {
            self.clock.remove(1);
        }
        self.clock.push((now, ahead_ms));
    }

    /// The value in force.
    pub fn attribute(&self, attribute: &Attribute) -> Value {
        self.changed.get(attribute.name).cloned().unwrap_or_else(|| attribute.factory())
    }

    /// The value from the next POST on.
    pub fn attribute_next(&self, attribute: &Attribute) -> Value {
        self.pending.get(attribute.name).cloned().unwrap_or_else(|| self.attribute(attribute))
    }

    /// Does a job wait for the next POST?
    pub fn has_bios_job(&self) -> bool {
        self.chores.iter().any(|c| c.ends == EngineTime::NEVER && c.leaves == BIOS)
    }

    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// All attributes as a probe reads them.
    pub fn bios(&self) -> BiosFacts {
        let attributes = ATTRIBUTES.iter().map(|a| (a.name.to_string(), self.attribute(a)));
        let pending = self.pending.iter().map(|(k, v)| (k.to_string(), v.clone()));
        BiosFacts { attributes: attributes.collect(), pending: pending.collect(), registry: None }
    }

    pub fn secure_boot_facts(&self) -> SecureBootFacts {
        SecureBootFacts {
            enabled: Some(self.secure_boot),
            in_force: Some(self.secure_boot_now),
            mode: Some("UserMode".into()),
        }
    }

    fn apply_pending(&mut self, at: EngineTime) -> bool {
        let any = !self.pending.is_empty() || self.secure_boot != self.secure_boot_now;
        if any {
            for (name, value) in std::mem::take(&mut self.pending) {
                match Attribute::of(name) {
                    Some(a) if a.factory() == value => self.changed.remove(name),
                    _ => self.changed.insert(name, value),
                };
            }
            self.secure_boot_now = self.secure_boot;
            self.applied = Some(at);
        }
        for job in self.chores.iter_mut().filter(|c| c.ends == EngineTime::NEVER) {
            job.ends = at;
        }
        any
    }

    /// Makes what waited for a POST; `true`: there was something.
    fn make_pending(&mut self, at: EngineTime) -> bool {
        let mut any = false;
        for volume in self.volumes.iter_mut().filter(|v| v.ready == EngineTime::NEVER) {
            volume.ready = at;
            any = true;
        }
        any
    }

    /// Volumes that are there at `now`.
    pub fn volumes(&self, now: EngineTime) -> impl Iterator<Item = &Volume> {
        self.volumes.iter().filter(move |v| v.ready <= now)
    }

    /// The BMC restarted: what is only in its memory is gone.
    pub(super) fn forget(&mut self) {
        self.drives = Default::default();
        // A job that waits for a POST outlives the BMC.
        self.chores.retain(|c| c.ends == EngineTime::NEVER);
    }

    pub(super) fn note(&mut self, at: EngineTime, note: Note) {
        // The oldest go; marks count from the front.
        if self.notes.len() == 8 * KEPT {
            self.notes.remove(0);
            self.cleared.1 = self.cleared.1.saturating_sub(1);
        }
        self.notes.push((at, note));
    }
}

impl VirtualMachine {
    /// Leaves BIOS settings for the next POST; all must be of [`ATTRIBUTES`] and taken by it.
    pub fn set_bios(&mut self, now: EngineTime, by: Cause, values: &[(&'static Attribute, Value)]) {
        self.advance(now);
        for (attribute, value) in values {
            if self.board.attribute(attribute) == *value {
                self.board.pending.remove(attribute.name);
            } else {
                self.board.pending.insert(attribute.name, value.clone());
            }
        }
        self.effect(now, What::BiosSet, by);
    }

    /// The BMC's job for the settings that wait: its number.
    pub fn add_bios_job(&mut self, now: EngineTime) -> u32 {
        let ends = EngineTime::NEVER;
        self.add_chore("Configure: BIOS.Setup.1-1", now, ends, BIOS.to_string(), false)
    }

    pub(super) fn add_chore(
        &mut self,
        name: &'static str,
        started: EngineTime,
        ends: EngineTime,
        leaves: String,
        fails: bool,
    ) -> u32 {
        let id = self.next_task;
        self.next_task += 1;
        if self.board.chores.len() == KEPT {
            self.board.chores.remove(0);
        }
        self.board.chores.push(Chore { id, name, started, ends, leaves, fails });
        id
    }

    /// The factory's settings from the next POST on.
    pub fn reset_bios(&mut self, now: EngineTime, by: Cause) {
        let all: Vec<_> = ATTRIBUTES.iter().map(|a| (a, a.factory())).collect();
        self.set_bios(now, by, &all);
    }

    pub fn set_secure_boot(&mut self, now: EngineTime, by: Cause, on: bool) {
        self.advance(now);
        self.board.secure_boot = on;
        self.effect(now, What::SecureBootSet, by);
    }

    /// Puts an image into virtual drive `drive`; `false`: one is in it.
    pub fn insert_medium(
        &mut self,
        now: EngineTime,
        by: Cause,
        drive: usize,
        medium: Medium,
    ) -> bool {
        self.advance(now);
        let Some(slot) = self.board.drives.get_mut(drive) else { return false };
        if slot.medium.is_some() {
            return false;
        }
        *slot = VirtualDrive { medium: Some(medium), gone: None };
        self.effect(now, What::MediumInserted, by);
        true
    }

    /// Takes the image out; `false`: there was none.
    pub fn eject_medium(&mut self, now: EngineTime, by: Cause, drive: usize) -> bool {
        self.advance(now);
        let Some(slot) = self.board.drives.get_mut(drive) else { return false };
        let Some(medium) = slot.medium.take() else { return false };
        slot.gone = Some((medium, now + STALE_MS));
        self.effect(now, What::MediumEjected, by);
        true
    }

    /// An account of the BMC was written.
    pub fn account_set(&mut self, now: EngineTime, by: Cause) {
        self.advance(now);
        self.effect(now, What::AccountSet, by);
    }

    /// Empties the BMC's log; that this was done is its first line.
    pub fn clear_log(&mut self, now: EngineTime) {
        self.advance(now);
        self.board.cleared = (self.truth.effects().len(), self.board.notes.len());
        self.board.note(now, Note::LogCleared);
    }

    /// A hose drips, or was mended.
    pub fn leak(&mut self, now: EngineTime, leaking: bool) {
        self.advance(now);
        if leaking && !self.board.leaking {
            self.board.note(now, Note::Leak);
        }
        self.board.leaking = leaking;
    }

    /// POST applies what waited for it.
    pub(super) fn apply_settings(&mut self, at: EngineTime) {
        if self.board.apply_pending(at) {
            self.effect(at, What::SettingsApplied, Cause::Itself);
        }
        if self.board.make_pending(at) {
            self.lose_data();
        }
    }

    /// Does this boot go to the virtual CD? Without one in the drive it goes on to the disk.
    pub(super) fn boots_cd(&self) -> Option<bool> {
        let wanted =
            self.boot.target == BootTarget::Cd && self.boot.mode != super::BootMode::Disabled;
        let [cd, _] = &self.board.drives;
        cd.medium.as_ref().filter(|_| wanted).map(|m| m.chains)
    }

    /// A system that runs from the CD: it writes nothing and nobody knows its SSH key.
    pub(super) fn boot_cd(&mut self, at: EngineTime, chains: bool) {
        self.effect(at, What::BootedCd, Cause::Itself);
        if !chains {
            // What an installer said earlier is not said again.
            self.window = Window::default();
        }
        self.host = HostState::Idle;
    }

    /// The GPU that a job drives too hot at this moment.
    pub fn hot_gpu(&self) -> Option<u16> {
        let sick = self.jobs.iter().any(|j| {
            j.state == super::host::HostJobState::Running && j.end == super::JobEnd::SickGpu
        });
        (sick && self.gpus > 0).then(|| 3.min(self.gpus - 1))
    }

    /// A job that finds a GPU too hot leaves a line in the BMC's log.
    pub(super) fn gpu_too_hot(&mut self, at: EngineTime) {
        let gpu = 3.min(self.gpus.saturating_sub(1));
        self.board.note(at, Note::GpuHot(gpu));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_wait_for_a_post_and_factory_values_are_not_kept() {
        let mut board = Board::default();
        let sriov = Attribute::of("SriovGlobalEnable").expect("known");
        board.pending.insert(sriov.name, "Enabled".into());
        assert_eq!(board.attribute(sriov), "Disabled");
        assert_eq!(board.attribute_next(sriov), "Enabled");
        assert!(board.apply_pending(EngineTime(5)));
        assert_eq!(
            (board.attribute(sriov), board.applied),
            ("Enabled".into(), Some(EngineTime(5)))
        );
        assert!(!board.apply_pending(EngineTime(6)), "once");
        board.pending.insert(sriov.name, "Disabled".into());
        board.apply_pending(EngineTime(7));
        assert!(board.changed.is_empty());
    }

    #[test]
    fn an_ejected_image_is_shown_a_little_longer() {
        let medium = Medium { url: "http://127.0.0.1/a.iso".into(), bytes: 1, chains: false };
        let drive = VirtualDrive { medium: None, gone: Some((medium, EngineTime(STALE_MS))) };
        assert!(drive.shown(EngineTime(STALE_MS - 1)).is_some());
        assert!(drive.shown(EngineTime(STALE_MS)).is_none());
    }
}
