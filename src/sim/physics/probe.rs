//! Reads: facts built from the state, only what was asked for.

use super::{HostState, PowerState, VirtualMachine};
use crate::model::facts::{
    Component, HostFacts, InventoryFacts, JobFacts, JobNote, JobState, Membership, MirrorFacts,
    Nic, Part, Power, ProbeSet, SystemFacts, Task, TaskState, WindowFacts,
};
use crate::model::{Channel, EngineTime, Fault, FaultClass, Identity, Read, Report};
use std::sync::Arc;

/// What a probe is to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    pub set: ProbeSet,
    pub job: Option<&'a str>,
    pub handle: Option<&'a str>,
    pub run: Option<&'a str>,
    /// The key that the host must show; without one there is no connection.
    pub host_key: Option<&'a str>,
}

/// A secret in a place where secrets are met by accident: the output of a job. It must never reach
/// a journal.
pub const CANARY: &str = "$canary-9f2c-token";

/// NVMe drives of the virtual node.
pub(super) const DISKS: usize = 2;

impl VirtualMachine {
    /// Reads what is asked, at `now`.
    pub fn probe(&mut self, now: EngineTime, ask: &Ask<'_>) -> Report {
        self.advance(now);
        let mut report = Report { at: now, ..Report::default() };
        let bmc = ProbeSet::SYSTEM
            .with(ProbeSet::INVENTORY)
            .with(ProbeSet::FIRMWARE)
            .with(ProbeSet::TASKS)
            .with(ProbeSet::MEDIA)
            .with(ProbeSet::BIOS)
            .with(ProbeSet::SECURE_BOOT)
            .with(ProbeSet::STORAGE);
        if ask.set.0 & bmc.0 != 0 {
            let silent = (!self.bmc_up).then(no_bmc);
            if ask.set.has(ProbeSet::SYSTEM) {
                report.system = silent.clone().map_or_else(|| Ok(self.system()), Err).into();
            }
            if ask.set.has(ProbeSet::INVENTORY) {
                report.inventory = silent.clone().map_or_else(|| Ok(self.inventory()), Err).into();
            }
            if ask.set.has(ProbeSet::FIRMWARE) {
                report.firmware = silent.clone().map_or_else(|| Ok(self.components()), Err).into();
            }
            if ask.set.has(ProbeSet::TASKS) {
                report.tasks = silent.clone().map_or_else(|| Ok(self.task_list(now)), Err).into();
            }
            if ask.set.has(ProbeSet::MEDIA) {
                report.media = silent.clone().map_or_else(|| Ok(self.media(now)), Err).into();
            }
            if ask.set.has(ProbeSet::BIOS) {
                report.bios = silent.clone().map_or_else(|| Ok(self.board.bios()), Err).into();
            }
            if ask.set.has(ProbeSet::SECURE_BOOT) {
                let seen = || Ok(self.board.secure_boot_facts());
                report.secure_boot = silent.clone().map_or_else(seen, Err).into();
            }
            if ask.set.has(ProbeSet::STORAGE) {
                report.storage = silent.map_or_else(|| Ok(self.storage(now)), Err).into();
            }
        }
        self.read_baseboard(now, ask.set, ask.handle, &mut report);
        if ask.set.has(ProbeSet::HOST) {
            report.host = match self.host_fault(ask.host_key) {
                Some(f) => Read::Failed(f),
                None => Read::Seen(self.host_facts()),
            };
        }
        if ask.set.has(ProbeSet::JOB)
            && let Some(name) = ask.job
        {
            report.job = match self.host_fault(ask.host_key) {
                Some(f) => Read::Failed(f),
                None => Read::Seen(self.job_facts(now, name)),
            };
        }
        if ask.set.has(ProbeSet::CLUSTER) {
            report.cluster = Read::Seen(self.membership(now));
        }
        if ask.set.has(ProbeSet::BOOT) {
            report.boot = Read::Seen(self.window_facts(ask.run));
        }
        report
    }

    /// Power as the BMC says it.
    pub fn shown_power(&self) -> Power {
        match self.power {
            PowerState::Off => Power::Off,
            PowerState::TurningOn => Power::PoweringOn,
            PowerState::On => Power::On,
            PowerState::TurningOff => Power::PoweringOff,
        }
    }

    /// Identity as the BMC says it now.
    pub fn shown_identity(&self) -> Identity {
        if self.quirks.identity_null_when_off && self.power == PowerState::Off {
            return Identity { serial: self.identity.serial.clone(), uuid: None, mac: None };
        }
        self.identity.clone()
    }

    /// A version as this vendor spells it.
    pub fn spell(&self, version: &Arc<str>) -> String {
        if !self.quirks.pads_versions {
            return version.to_string();
        }
        version.split('.').map(|n| format!("{n:0>2}")).collect::<Vec<_>>().join(".")
    }

    pub fn system(&self) -> SystemFacts {
        SystemFacts {
            identity: self.shown_identity(),
            manufacturer: Some("Farrier".into()),
            model: Some(self.model.into()),
            power: self.shown_power(),
            health: Some(if self.is_whole() { "OK" } else { "Critical" }.into()),
            boot_target: Some(self.boot.target_word().into()),
            boot_enabled: Some(self.boot.mode_word().into()),
            last_reset: Some(self.last_reset.0.to_string()),
            bios_version: self
                .firmware
                .first()
                .filter(|s| !s.corrupt)
                .map(|s| self.spell(&s.version)),
            over_ipmi: false,
        }
    }

    pub fn inventory(&self) -> InventoryFacts {
        InventoryFacts {
            cpus: (0..2)
                .map(|i| Part {
                    id: format!("CPU{i}"),
                    model: Some("Virtual 64-core".into()),
                    ..Part::default()
                })
                .collect(),
            memory_mib: Some(2_097_152),
            disks: (0..DISKS)
                .map(|i| Part {
                    id: format!("NVMe{i}"),
                    serial: Some(format!("VD{i}-{}", self.id.0)),
                    capacity: Some(3_840_755_982_336),
                    ..Part::default()
                })
                .collect(),
            nics: vec![Nic {
                id: "NIC1".into(),
                mac: self.identity.mac.as_deref().map(str::to_string),
                link_up: Some(true),
            }],
            gpus: self.gpu_parts(),
            clock: None,
            warnings: Vec::new(),
        }
    }

    fn gpu_parts(&self) -> Vec<Part> {
        (0..self.gpus)
            .map(|i| Part {
                id: format!("GPU{i}"),
                model: Some("Virtual GPU".into()),
                ..Part::default()
            })
            .collect()
    }

    pub fn components(&self) -> Vec<Component> {
        self.firmware
            .iter()
            .map(|slot| Component {
                id: slot.id.into(),
                name: Some(slot.name.into()),
                version: (!slot.corrupt).then(|| self.spell(&slot.version)),
                updateable: Some(true),
                uri: Some(format!("/redfish/v1/UpdateService/FirmwareInventory/{}", slot.id)),
                unread: None,
            })
            .collect()
    }

    pub fn task_list(&self, now: EngineTime) -> Vec<Task> {
        let updates = self.tasks.iter().map(|t| {
            let (state, raw, percent) = t.shown(now);
            Task {
                uri: t.uri(),
                state,
                raw_state: raw.into(),
                percent: Some(percent),
                message: (state == TaskState::Failed).then(|| "the image was not taken".into()),
            }
        });
        let chores = self.board.chores.iter().map(|c| {
            let (state, raw) = match (c.ends, c.ends <= now) {
                (EngineTime::NEVER, _) => (TaskState::InProgress, "Pending"),
                (_, false) => (TaskState::InProgress, "Running"),
                (_, true) if c.fails => (TaskState::Failed, "Exception"),
                (_, true) => (TaskState::Succeeded, "Completed"),
            };
            Task {
                uri: c.uri(),
                state,
                raw_state: raw.into(),
                percent: Some(if state == TaskState::InProgress { 0 } else { 100 }),
                message: c.fails.then(|| "it was not done".into()),
            }
        });
        updates.chain(chores).chain(self.copies_as_tasks()).collect()
    }

    /// Why SSH does not answer, or answers as somebody else.
    pub fn host_fault(&self, pinned: Option<&str>) -> Option<Fault> {
        let Some(pinned) = pinned else {
            return Some(Fault::new(
                FaultClass::Precondition,
                Channel::Host,
                "no-host-key",
                "no host key is pinned",
            ));
        };
        if !self.answers_ssh() {
            return Some(Fault::no_answer(Channel::Host, "connection to port 22 refused"));
        }
        (pinned != self.shown_host_key()).then(|| {
            Fault::new(
                FaultClass::Identity,
                Channel::Host,
                "host-key-changed",
                "the host shows another key than the pinned one",
            )
        })
    }

    pub fn host_facts(&self) -> HostFacts {
        let in_ramdisk = self.host == HostState::InRamdisk;
        let mark = self.installed.as_ref().filter(|_| !in_ramdisk);
        let disk = self.installed.as_ref().filter(|_| in_ramdisk);
        HostFacts {
            identity: self.host_identity().clone(),
            boot_id: Some(format!("boot-{}", self.boots)),
            hostname: Some(self.name.to_string()),
            os: Some("Virtual Linux".into()),
            kernel: None,
            image: mark.and_then(|i| i.image.as_deref()).map(String::from),
            image_run: mark.and_then(|i| i.run.as_deref()).map(String::from),
            ramdisk_run: self.window.facts.run.clone().filter(|_| in_ramdisk),
            disk_run: disk.and_then(|i| i.run.as_deref()).map(String::from),
            root_mirror: mark
                .filter(|i| i.mirror)
                .map(|_| MirrorFacts { disks: 2, ..MirrorFacts::default() }),
            holds_data: Some(self.foreign_data || disk.is_some()),
            gpus: self.gpu_parts(),
            jobs: self.job_notes(),
        }
    }

    fn job_notes(&self) -> Vec<JobNote> {
        let note = |j: &super::host::HostJob| JobNote {
            name: j.name.to_string(),
            running: j.state == super::host::HostJobState::Running,
        };
        self.jobs.iter().map(note).collect()
    }

    pub fn job_facts(&self, now: EngineTime, name: &str) -> JobFacts {
        let job = self.jobs.iter().find(|j| &*j.name == name);
        JobFacts {
            name: name.into(),
            state: job.map_or(JobState::Absent, |j| j.shown(now, self.gpus)),
            boot_id: Some(format!("boot-{}", self.boots)),
            tail: job.map(|_| format!("export NGC_TOKEN={CANARY}")),
        }
    }

    fn media(&self, now: EngineTime) -> Vec<String> {
        let shown = self.board.drives.iter().filter_map(|d| d.shown(now));
        shown.map(|m| m.url.to_string()).collect()
    }

    pub fn membership(&self, now: EngineTime) -> Membership {
        Membership {
            member: self.node.member,
            ready: self.node.is_ready(now),
            cordoned: self.node.cordoned,
            workloads: self.node.workloads(now),
            detail: None,
        }
    }

    /// An open window that no run waits for is closed, unless the host has been at it.
    pub fn close_stray_window(&mut self, run: Option<&str>) {
        let w = &mut self.window.facts;
        if w.open && w.run.as_deref() != run && !w.script_fetched && w.callback.is_none() {
            w.open = false;
        }
    }

    /// The window of `run`, or an open one of another run.
    pub fn window_facts(&self, run: Option<&str>) -> WindowFacts {
        let w = &self.window.facts;
        match run {
            Some(run) if w.open || w.run.as_deref() == Some(run) => w.clone(),
            _ => WindowFacts::default(),
        }
    }
}

pub(super) fn no_bmc() -> Fault {
    Fault::no_answer(Channel::Bmc, "the BMC refuses connections")
}
