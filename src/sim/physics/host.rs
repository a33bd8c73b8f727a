//! The host: boot, installation, jobs.

use super::{BootMode, BootOverride, Cause, Due, PowerState, Sickness, VirtualMachine, What};
use crate::model::deploy::RAMDISK;
use crate::model::facts::{Callback, JobState};
use crate::model::identity::uuid_eq;
use crate::model::{EngineTime, JobScript};
use crate::sim::faults::FaultKind;
use crate::sim::rng::mix;
use serde_json::json;
use std::sync::Arc;

/// What the host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    Down,
    Post,
    /// Asks the boot server for its script, then for its seed.
    NetBoot,
    /// Writes the image.
    Installing,
    /// In the installer, with nothing more to do: it refused or failed.
    Idle,
    /// No boot device.
    Stuck,
    /// Loads the operating system from disk.
    Booting,
    /// Loads the deploy ramdisk.
    Ramdisk,
    /// The deploy ramdisk answers SSH.
    InRamdisk,
    /// SSH answers.
    Running,
}

/// The operating system on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Mark of a deployment of ours; `None` for what was found.
    pub image: Option<Arc<str>>,
    pub run: Option<Arc<str>>,
    /// It lies on two disks: where the deploy job writes, the profile says so.
    pub mirror: bool,
}

impl Installed {
    pub(super) fn of_ours(image: &str, run: &str) -> Self {
        Self { image: Some(image.into()), run: Some(run.into()), mirror: true }
    }

    /// Somebody else's.
    pub(super) fn found() -> Self {
        Self { image: None, run: None, mirror: false }
    }
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Smoke,
    Wipe,
    /// `refuses`: it finds data that nobody has allowed it to overwrite.
    Deploy {
        refuses: bool,
    },
}

impl Work {
    pub(super) fn of(script: JobScript) -> Self {
        match script {
            JobScript::Smoke => Work::Smoke,
            JobScript::Wipe => Work::Wipe,
        }
    }
}

/// How a job ends (or ended).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    Good,
    SickGpu,
    /// A deployment that was not verified.
    BadImage,
}

/// A named job on the host.
#[derive(Clone, Debug)]
pub struct HostJob {
    pub id: u32,
    pub name: Arc<str>,
    pub work: Work,
    pub started: EngineTime,
    pub end: JobEnd,
    pub state: HostJobState,
    pub by: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostJobState {
    Running,
    Lost,
    Finished,
}

impl HostJob {
    /// As the job contract shows it at `now`.
    pub fn shown(&self, now: EngineTime, gpus: u16) -> JobState {
        match self.state {
            HostJobState::Running => {
                JobState::Running { progress: now.since(self.started) / 10_000 }
            }
            HostJobState::Lost => JobState::Lost { why: "the host rebooted".into() },
            HostJobState::Finished => match (self.work, self.end) {
                (Work::Deploy { refuses: true }, _) => JobState::Finished {
                    exit: 1,
                    result: Some(json!({"ok": false, "error": "holds-data"})),
                },
                (Work::Deploy { .. }, JobEnd::Good) => JobState::Finished {
                    exit: 0,
                    result: Some(json!({"ok": true, "disk": {"name": "nvme0n1"}})),
                },
                (Work::Deploy { .. }, _) => JobState::Finished {
                    exit: 1,
                    result: Some(json!({"ok": false, "error": "wrong-sha256"})),
                },
                (Work::Wipe, _) => JobState::Finished {
                    exit: 0,
                    result: Some(json!({"verified": true, "drives": ["nvme0n1", "nvme1n1"]})),
                },
                (Work::Smoke, JobEnd::Good) => JobState::Finished {
                    exit: 0,
                    result: Some(
                        json!({"ok": true, "gpus": gpus, "max_temp_c": 61.5, "problems": []}),
                    ),
                },
                (Work::Smoke, _) => JobState::Finished {
                    exit: 1,
                    result: Some(json!({
                        "ok": false, "gpus": gpus, "max_temp_c": 71.0,
                        "problems": ["GPU 3: dcgmi diag: memory test failed"],
                    })),
                },
            },
        }
    }
}

const JOBS_KEPT: usize = 8;

impl VirtualMachine {
    pub(super) fn host_down(&mut self) {
        if matches!(self.host, HostState::Ramdisk | HostState::InRamdisk) {
            // It lived in memory.
            self.jobs.clear();
            self.deploying = None;
        }
        self.host = HostState::Down;
        self.cancel_host();
        for job in self.jobs.iter_mut().filter(|j| j.state == HostJobState::Running) {
            job.state = HostJobState::Lost;
        }
    }

    pub(super) fn boot_disk(&mut self, at: EngineTime) {
        if self.installed.is_some() {
            self.host = HostState::Booting;
            let ms = self.durations.boot_disk.pick(&mut self.rng);
            self.after(at + ms, Due::DiskUp);
        } else {
            self.host = HostState::Stuck;
        }
    }

    pub(super) fn disk_up(&mut self, at: EngineTime) {
        self.host = HostState::Running;
        let ms = self.durations.node_ready.pick(&mut self.rng);
        self.node.host_back(at + ms);
    }

    /// The boot server answers only while a run waits for this machine; else: boot the disk.
    pub(super) fn script_fetch(&mut self, at: EngineTime) {
        // It knows machines by their MAC: a stranger is told to boot its disk.
        let ours = self.identity == self.delivered;
        if !ours || !self.window.facts.open || self.window.facts.callback.is_some() {
            self.boot_disk(at);
            return;
        }
        // Where Farrier gives the addresses, firmware has stated its UUID before it fetches anything
        // (here: at machines with an even number), and another machine's gets nothing to boot.
        if self.id.0.is_multiple_of(2)
            && let Some(stated) = self.other_host.as_ref().and_then(|o| o.uuid.as_deref())
            && self.delivered.uuid.as_deref().is_some_and(|own| !uuid_eq(own, stated))
        {
            self.window.facts.other_uuid.get_or_insert_with(|| stated.to_string());
            self.boot_disk(at);
            return;
        }
        self.window.facts.script_fetched = true;
        let ms = self.durations.fetch.pick(&mut self.rng);
        self.after(at + ms, Due::SeedFetch);
    }

    pub(super) fn seed_fetch(&mut self, at: EngineTime) {
        if !self.window.facts.open {
            self.boot_disk(at);
            return;
        }
        self.window.facts.seed_fetched = true;
        if self.window.image == RAMDISK {
            self.jobs.clear();
            self.host = HostState::Ramdisk;
            let ms = self.durations.boot_disk.pick(&mut self.rng);
            self.after(at + ms, Due::RamdiskUp);
            return;
        }
        if self.foreign_data && !self.window.allow_existing_data {
            self.host = HostState::Idle;
            self.call_back(
                at,
                Callback {
                    ok: false,
                    message: Some("the disks hold data".into()),
                    code: None,
                    host_key: None,
                },
            );
            return;
        }
        self.host = HostState::Installing;
        let by = self.powered_by;
        self.effect(at, What::InstallStarted, by);
        self.installed = None;
        self.foreign_data = false;
        let ms = self.durations.install.pick(&mut self.rng);
        self.after(at + ms, Due::InstallDone);
    }

    pub(super) fn install_done(&mut self, at: EngineTime) {
        let by = self.powered_by;
        let fails =
            self.sick == Some(Sickness::Disk) || self.dice.throw(FaultKind::InstallFails, at);
        self.effect(at, What::InstallEnded { ok: !fails }, by);
        if fails {
            self.host = HostState::Idle;
            return;
        }
        self.installed = Some(Installed {
            image: Some(Arc::from(self.window.image.as_str())),
            run: self.window.facts.run.as_deref().map(Arc::from),
            mirror: false,
        });
        let key = mix(self.rng.next_u64());
        self.host_key = format!("ssh-ed25519 AAAA{key:016x}").into();
        self.jobs.clear();
        if !self.dice.throw(FaultKind::CallbackLost, at) {
            let said = Callback {
                ok: true,
                message: None,
                code: None,
                host_key: Some(self.host_key.to_string()),
            };
            if self.dice.throw(FaultKind::CallbackDoubled, at) {
                // The token is spent: the second call changes nothing but pokes again.
                self.callbacks += 1;
            }
            self.call_back(at, said);
        }
        self.reboot(at, Cause::Itself);
    }

    /// The ramdisk has its SSH up and says so.
    pub(super) fn ramdisk_up(&mut self, at: EngineTime) {
        self.host = HostState::InRamdisk;
        let key = mix(self.rng.next_u64());
        self.ramdisk_key = format!("ssh-ed25519 RAM{key:016x}").into();
        if !self.dice.throw(FaultKind::CallbackLost, at) {
            let key = Some(self.ramdisk_key.to_string());
            self.call_back(at, Callback { ok: true, message: None, code: None, host_key: key });
            self.window.facts.from = Some("192.0.2.1".into());
        }
    }

    /// Somebody can log in: to the installed system, or to the ramdisk.
    pub fn answers_ssh(&self) -> bool {
        matches!(self.host, HostState::Running | HostState::InRamdisk)
    }

    /// The key that SSH shows.
    pub fn shown_host_key(&self) -> &str {
        match self.host {
            HostState::InRamdisk => &self.ramdisk_key,
            _ => &self.host_key,
        }
    }

    fn call_back(&mut self, _at: EngineTime, said: Callback) {
        self.callbacks += 1;
        if self.window.facts.open && self.window.facts.callback.is_none() {
            self.window.facts.callback = Some(said);
        }
    }

    /// Starts `script` as job `name`; a name that is there already is left alone.
    pub(super) fn start_job(&mut self, at: EngineTime, work: Work, name: &str, by: Cause) {
        if self.jobs.iter().any(|j| &*j.name == name) {
            return;
        }
        let (what, ms) = match work {
            Work::Smoke => (What::SmokeStarted, self.durations.burn_in.pick(&mut self.rng)),
            Work::Wipe => (What::WipeStarted, self.durations.wipe.pick(&mut self.rng)),
            Work::Deploy { .. } => {
                (What::InstallStarted, self.durations.install.pick(&mut self.rng))
            }
        };
        let refused = work == Work::Deploy { refuses: true };
        if !refused {
            self.effect(at, what, by);
        }
        if matches!(work, Work::Deploy { .. }) {
            if !refused {
                self.installed = None;
                self.foreign_data = false;
            }
        } else {
            self.spent.burns_in();
        }
        let sick = work == Work::Smoke
            && (self.sick == Some(Sickness::Gpu) || self.dice.throw(FaultKind::JobSickGpu, at));
        let id = self.next_job;
        self.next_job += 1;
        if self.jobs.len() == JOBS_KEPT {
            self.jobs.remove(0);
        }
        self.jobs.push(HostJob {
            id,
            name: Arc::from(name),
            work,
            started: at,
            end: if sick { JobEnd::SickGpu } else { JobEnd::Good },
            state: HostJobState::Running,
            by,
        });
        self.after(at + ms, Due::JobEnds(id));
        if self.dice.throw(FaultKind::JobLost, at) {
            self.after(at + ms / 2, Due::HostReboots);
        }
    }

    /// Wipes that overwrite the disks at this moment.
    pub fn running_wipes(&self) -> usize {
        let wipes = |j: &&HostJob| j.work == Work::Wipe && j.state == HostJobState::Running;
        self.jobs.iter().filter(wipes).count()
    }

    /// Jobs of any kind that run at this moment.
    pub fn running_jobs(&self) -> usize {
        self.jobs.iter().filter(|j| j.state == HostJobState::Running).count()
    }

    pub(super) fn job_ends(&mut self, at: EngineTime, id: u32) {
        let Some(job) = self.jobs.iter_mut().find(|j| j.id == id) else { return };
        job.state = HostJobState::Finished;
        let (work, end, by) = (job.work, job.end, job.by);
        if end == JobEnd::SickGpu {
            self.gpu_too_hot(at);
        }
        if work == (Work::Deploy { refuses: false }) {
            self.deployed(at, id, by);
        }
        if work == Work::Wipe {
            self.effect(at, What::WipeEnded, by);
            // The running system lives on in memory until the power goes.
            self.installed = None;
            self.foreign_data = false;
        }
    }

    /// A deployment ends: the disk boots, or nothing on it does.
    fn deployed(&mut self, at: EngineTime, id: u32, by: Cause) {
        let fails =
            self.sick == Some(Sickness::Disk) || self.dice.throw(FaultKind::InstallFails, at);
        self.effect(at, What::InstallEnded { ok: !fails }, by);
        let mark = self.deploying.take();
        if fails {
            if let Some(job) = self.jobs.iter_mut().find(|j| j.id == id) {
                job.end = JobEnd::BadImage;
            }
            return;
        }
        let Some((mark, key)) = mark else { return };
        self.installed = Some(mark);
        self.host_key = key;
    }

    /// A machine that runs already when it is delivered: adopted or foreign.
    pub fn found_running(&mut self, member: bool, workloads: u32) {
        self.power = PowerState::On;
        self.host = HostState::Running;
        self.boots = 1;
        self.boot = BootOverride { mode: BootMode::Disabled, ..self.boot };
        self.installed = Some(Installed::found());
        self.foreign_data = true;
        self.host_key = format!("ssh-ed25519 found-{}", self.id).into();
        if member {
            self.node.found_member(workloads);
        }
    }
}
