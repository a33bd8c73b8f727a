//! One virtual machine: BMC, host, cluster node and boot window. Lazy time: every call says what
//! time it is, and [`VirtualMachine::advance`] fires what has become due since, each transition at
//! its own time. Nothing ticks. It knows nothing of the director or the runner: the simulator asks
//! it directly, `sim/serve` puts a wire on it.
//!
//! Reads: [`VirtualMachine::probe`]. Writes: [`VirtualMachine::act`], or its two halves
//! [`VirtualMachine::refusal`] (the expectation re-read on the same channel) and
//! [`VirtualMachine::apply`], so that a caller can put a fault between them. A person at the
//! machine: [`VirtualMachine::press_power`], [`VirtualMachine::swap`], [`VirtualMachine::mend`], ….
//! What really happened: [`VirtualMachine::truth`].

mod act;
mod attribute;
mod baseboard;
mod bmc;
mod board;
mod copy;
mod host;
mod node;
mod people;
mod probe;
mod spent;
#[cfg(test)]
mod tests;
mod volume;
mod wire;

pub use attribute::{ATTRIBUTES, Attribute, Kind};
pub use baseboard::{BASEBOARD, Baseboard, serial as baseboard_serial};
pub use bmc::{BmcTask, BootMode, BootOverride, Flaw, Slot};
pub use board::{Board, Calendar, Chore, Making, Medium, Note, Raid, VirtualDrive, Volume};
pub use copy::Copying;
pub use host::{HostJob, HostState, Installed, JobEnd, Work};
pub use node::Node;
pub use probe::{Ask, CANARY};
pub use spent::Spent;

use super::durations::Durations;
use super::faults::Dice;
use super::rng::Rng;
use super::truth::{Cause, Effect, Scene, Truth, What};
use crate::model::facts::WindowFacts;
use crate::model::{Action, EngineTime, Identity, MachineId};
use std::sync::Arc;

/// Physical power of the host. The BMC itself has standby power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerState {
    Off,
    TurningOn,
    On,
    TurningOff,
}

/// What is wrong with a machine for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sickness {
    /// A GPU fails every burn-in.
    Gpu,
    /// Every firmware update fails.
    Flash,
    /// Power-on orders are taken and do nothing.
    NoPower,
    /// The BMC never answers.
    DeadBmc,
    /// Every installation fails.
    Disk,
}

impl Sickness {
    pub const ALL: [Sickness; 5] =
        [Sickness::Gpu, Sickness::Flash, Sickness::NoPower, Sickness::DeadBmc, Sickness::Disk];
}

/// How this machine's firmware behaves: differences between vendors, not faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// `Once` is kept as `Continuous` (Supermicro before 2022 among others).
    pub ignores_once: bool,
    /// UUID and MAC are null while the host is off.
    pub identity_null_when_off: bool,
    /// Versions are spelt with leading zeros: `02.01.00` for `2.1.0`.
    pub pads_versions: bool,
    /// Roots of trust copy a new image to a second place once it runs, as on HGX baseboards.
    pub copies_images: bool,
    /// Volumes are made by the next POST.
    pub volumes_at_post: bool,
}

/// The boot server's window for this machine.
#[derive(Clone, Debug, Default)]
pub struct Window {
    pub facts: WindowFacts,
    pub image: String,
    pub allow_existing_data: bool,
}

/// What a machine is built as.
#[derive(Clone, Debug)]
pub struct Build {
    pub id: MachineId,
    pub name: Arc<str>,
    pub identity: Identity,
    pub gpus: u16,
    pub quirks: Quirks,
    pub sick: Option<Sickness>,
    pub durations: Arc<Durations>,
}

/// A transition that waits for its time.
#[derive(Clone, Debug)]
enum Due {
    PowerUp,
    PowerDown(Cause),
    PostDone,
    ScriptFetch,
    SeedFetch,
    InstallDone,
    DiskUp,
    RamdiskUp,
    BmcUp,
    TaskEnds(u32),
    /// The BMC restarts by itself at the end of an update; `true`: the image was taken.
    TaskVanishes(u32, bool),
    JobEnds(u32),
    /// The image of this slot is in its second place too.
    CopyEnds(usize),
    HostReboots,
    Late(Box<(u64, Action)>),
    /// Of the baseboard's BMC.
    BoardUp,
    /// Its port has a link again.
    BoardHeard,
    BoardTaskEnds(u32),
    BoardTaskVanishes(u32, bool),
    BoardCopyEnds(usize),
}

impl Due {
    /// Ends with the host's power.
    fn is_of_host(&self) -> bool {
        matches!(
            self,
            Due::PostDone
                | Due::ScriptFetch
                | Due::SeedFetch
                | Due::InstallDone
                | Due::DiskUp
                | Due::RamdiskUp
                | Due::JobEnds(_)
                | Due::HostReboots
        )
    }

    fn is_of_baseboard(&self) -> bool {
        matches!(
            self,
            Due::BoardUp
                | Due::BoardHeard
                | Due::BoardTaskEnds(_)
                | Due::BoardTaskVanishes(..)
                | Due::BoardCopyEnds(_)
        )
    }
}

/// One virtual machine. Fields are what a wire needs to show; they change only through methods.
#[derive(Clone, Debug)]
pub struct VirtualMachine {
    pub id: MachineId,
    pub name: Arc<str>,
    /// As the BMC spells it: rules and firmware families may ask for it.
    pub model: &'static str,
    /// Who was delivered under this name.
    pub delivered: Identity,
    /// Who stands behind the BMC's address now.
    pub identity: Identity,
    /// Who stands behind the host's address, when it is not the BMC's machine.
    pub other_host: Option<Identity>,
    pub gpus: u16,
    pub quirks: Quirks,
    pub sick: Option<Sickness>,
    pub power: PowerState,
    pub boot: BootOverride,
    pub board: Board,
    /// Time of the last host reset.
    pub last_reset: EngineTime,
    pub firmware: Vec<Slot>,
    pub tasks: Vec<BmcTask>,
    /// Further updates stand behind another job until that is over.
    pub holds_updates: bool,
    /// Images that are being copied to their second place.
    pub copies: Vec<Copying>,
    /// Slots whose new image runs with the BMC's next start, and is copied from then on.
    to_copy: Vec<usize>,
    /// Copies begun so far.
    copied: u32,
    /// The baseboard with a BMC of its own, where the machine has one.
    pub baseboard: Option<Baseboard>,
    /// The port of the host's BMC is dead until then; the baseboard's is not.
    pub bmc_port_out: EngineTime,
    pub bmc_up: bool,
    /// The rack has power. Without it not even the BMC lives.
    pub mains: bool,
    /// An image killed the BMC: it answers again when somebody has put another board in.
    pub bricked: bool,
    /// Stays off when the mains come back (the usual policy is the last state).
    pub stays_off: bool,
    pub host: HostState,
    pub boots: u32,
    pub installed: Option<Installed>,
    /// A disk holds data that no run of ours wrote.
    pub foreign_data: bool,
    /// The host's public SSH key; new with every installation.
    pub host_key: Arc<str>,
    /// The deploy ramdisk's; new with every boot of it.
    pub ramdisk_key: Arc<str>,
    /// What the deployment under way will have put on the disk, and the host key of it.
    deploying: Option<(Installed, Arc<str>)>,
    pub jobs: Vec<HostJob>,
    pub node: Node,
    pub window: Window,
    /// Callbacks the host has made, doubled ones too: a hint for whoever pokes the engine.
    pub callbacks: u32,
    pub truth: Truth,
    pub dice: Dice,
    /// What its own durations came to.
    pub spent: Spent,
    durations: Arc<Durations>,
    rng: Rng,
    next_task: u32,
    next_job: u32,
    /// The last power change's cause: an installation is its consequence.
    powered_by: Cause,
    /// The machine that was here before a swap.
    away: Option<Box<VirtualMachine>>,
    /// Latest first, so that the next one is popped from the end.
    pending: Vec<(EngineTime, Due)>,
    /// When another machine or host last came behind this name: a call sent before may meet it.
    pub crossed_at: EngineTime,
    /// Had power when the mains went away.
    on_before: bool,
    /// Updated by `advance`; no call may go back in time.
    now: EngineTime,
}

impl VirtualMachine {
    /// A machine as it comes from the factory: off, old firmware, empty disks, in no cluster.
    pub fn new(build: Build, rng: Rng, dice: Dice) -> Self {
        Self {
            id: build.id,
            name: build.name,
            model: "Virtual GPU node",
            delivered: build.identity.clone(),
            identity: build.identity,
            other_host: None,
            gpus: build.gpus,
            quirks: build.quirks,
            sick: build.sick,
            power: PowerState::Off,
            boot: BootOverride::default(),
            board: Board::default(),
            last_reset: EngineTime::ZERO,
            firmware: Slot::factory(),
            tasks: Vec::new(),
            holds_updates: false,
            copies: Vec::new(),
            to_copy: Vec::new(),
            copied: 0,
            baseboard: None,
            bmc_port_out: EngineTime::ZERO,
            bmc_up: build.sick != Some(Sickness::DeadBmc),
            mains: true,
            bricked: false,
            stays_off: false,
            host: HostState::Down,
            boots: 0,
            installed: None,
            foreign_data: false,
            host_key: Arc::from("ssh-ed25519 factory"),
            ramdisk_key: Arc::from(""),
            deploying: None,
            jobs: Vec::new(),
            node: Node::default(),
            window: Window::default(),
            callbacks: 0,
            truth: Truth::default(),
            dice,
            spent: Spent::default(),
            durations: build.durations,
            rng,
            next_task: 1,
            next_job: 1,
            powered_by: Cause::Itself,
            away: None,
            pending: Vec::new(),
            crossed_at: EngineTime::ZERO,
            on_before: false,
            now: EngineTime::ZERO,
        }
    }

    /// When something happens next by itself; [`EngineTime::NEVER`] when nothing does.
    pub fn next_at(&self) -> EngineTime {
        self.pending.last().map_or(EngineTime::NEVER, |(at, _)| *at)
    }

    /// Fires everything that was due until `now`, each at its own time.
    pub fn advance(&mut self, now: EngineTime) {
        while let Some((at, _)) = self.pending.last()
            && *at <= now
            && let Some((at, due)) = self.pending.pop()
        {
            self.now = at;
            self.fire(at, due);
        }
        self.now = self.now.max(now);
    }

    fn fire(&mut self, at: EngineTime, due: Due) {
        self.spent.end(at, &due);
        match due {
            Due::PowerUp => self.power_up(at),
            Due::PowerDown(by) => self.power_down(at, by),
            Due::PostDone => self.post_done(at),
            Due::ScriptFetch => self.script_fetch(at),
            Due::SeedFetch => self.seed_fetch(at),
            Due::InstallDone => self.install_done(at),
            Due::DiskUp => self.disk_up(at),
            Due::RamdiskUp => self.ramdisk_up(at),
            Due::BmcUp => {
                self.bmc_up = self.bmc_lives();
                if self.bmc_up {
                    for slot in std::mem::take(&mut self.to_copy) {
                        self.copy_image(at, slot);
                    }
                }
            }
            Due::TaskEnds(id) => self.task_ends(at, id),
            Due::TaskVanishes(id, taken) => self.task_vanishes(at, id, taken),
            Due::JobEnds(id) => self.job_ends(at, id),
            Due::CopyEnds(slot) => self.copy_ends(at, slot),
            Due::HostReboots => self.reboot(at, Cause::Itself),
            Due::BoardUp => self.baseboard_up(at),
            Due::BoardHeard => self.baseboard_port_back(at),
            Due::BoardTaskEnds(id) => self.baseboard_task_ends(at, id),
            Due::BoardTaskVanishes(id, taken) => self.baseboard_task_vanishes(at, id, taken),
            Due::BoardCopyEnds(slot) => self.baseboard_copy_ends(at, slot),
            Due::Late(act) => {
                let (seq, action) = *act;
                // The BMC took the call long ago; its answer interests nobody now.
                let _ = self.apply(at, seq, &action);
            }
        }
    }

    fn after(&mut self, at: EngineTime, due: Due) {
        self.spent.begin(self.now, &due);
        let i = self.pending.partition_point(|(t, _)| *t > at);
        self.pending.insert(i, (at, due));
    }

    fn cancel_host(&mut self) {
        self.pending.retain(|(_, due)| !due.is_of_host());
    }

    fn cancel_power(&mut self) {
        self.pending.retain(|(_, due)| !matches!(due, Due::PowerUp | Due::PowerDown(_)));
    }

    /// Is an update running, as far as the BMC itself knows?
    pub fn is_flashing(&self) -> bool {
        self.tasks.iter().any(BmcTask::is_running)
    }

    /// Can the BMC run at all?
    pub(super) fn bmc_lives(&self) -> bool {
        self.mains && !self.bricked && self.sick != Some(Sickness::DeadBmc)
    }

    /// Is the host writing an image now?
    pub fn is_installing(&self) -> bool {
        self.host == HostState::Installing || self.deploying.is_some()
    }

    /// The identity that DMI on the host shows.
    pub fn host_identity(&self) -> &Identity {
        self.other_host.as_ref().unwrap_or(&self.identity)
    }

    /// A call that the BMC took and has not applied yet.
    pub fn has_late_act(&self) -> bool {
        self.pending.iter().any(|(_, due)| matches!(due, Due::Late(_)))
    }

    fn effect(&mut self, at: EngineTime, what: What, by: Cause) {
        let deploys = what == What::InstallStarted && self.host == HostState::InRamdisk;
        let on_host = matches!(what, What::WipeStarted | What::SmokeStarted) || deploys;
        let right_machine =
            self.identity == self.delivered && (!on_host || self.other_host.is_none());
        let told = || self.all_tasks().filter(|t| t.is_told_running());
        let by_hand = told().all(|t| t.by == Cause::Human);
        let scene = Scene {
            right_machine,
            by_hand_since: told().map(|t| t.started).max().filter(|_| by_hand),
            workloads: self.node.workloads(at),
            closed: !self.node.member || self.node.cordoned,
            flashing: told().next().is_some(),
            copying_since: self.all_copies().map(|c| c.since).max(),
            board_silent_since: self.baseboard_silent_since(at),
            was_on: self.power == PowerState::On,
        };
        self.truth.push(Effect { at, what, by, scene });
    }
}
