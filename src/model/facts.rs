//! What probes read. Every field is optional where the outside world may not say.

use super::fault::Fault;
use super::hardware::{BiosFacts, ClockFacts, SecureBootFacts};
use super::identity::Identity;
use super::storage::StorageFacts;
use super::time::EngineTime;
use serde::{Deserialize, Serialize};

/// One part of a probe's answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Read<T> {
    #[default]
    NotAsked,
    Failed(Fault),
    Seen(T),
}

impl<T> Read<T> {
    pub fn seen(&self) -> Option<&T> {
        match self {
            Read::Seen(t) => Some(t),
            _ => None,
        }
    }

    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Read::Failed(f) => Some(f),
            _ => None,
        }
    }

    pub fn was_asked(&self) -> bool {
        !matches!(self, Read::NotAsked)
    }
}

impl<T> From<Result<T, Fault>> for Read<T> {
    fn from(r: Result<T, Fault>) -> Self {
        match r {
            Ok(t) => Read::Seen(t),
            Err(f) => Read::Failed(f),
        }
    }
}

/// Which parts a probe should read: a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProbeSet(pub u16);

impl ProbeSet {
    pub const NONE: Self = Self(0);
    /// Identity, power, boot override, health: one request on most BMCs.
    pub const SYSTEM: Self = Self(1);
    /// CPUs, memory, disks, NICs, GPUs as the BMC lists them.
    pub const INVENTORY: Self = Self(2);
    /// The BMC's firmware inventory.
    pub const FIRMWARE: Self = Self(4);
    /// The BMC's task list.
    pub const TASKS: Self = Self(8);
    /// The operating system over SSH.
    pub const HOST: Self = Self(16);
    /// The named job of the machine's current step.
    pub const JOB: Self = Self(32);
    /// The cluster's view of the node.
    pub const CLUSTER: Self = Self(64);
    /// The boot window of the machine's current run.
    pub const BOOT: Self = Self(128);
    /// What is in the BMC's virtual drives.
    pub const MEDIA: Self = Self(256);
    /// BIOS attributes in force and pending.
    pub const BIOS: Self = Self(512);
    /// UEFI Secure Boot.
    pub const SECURE_BOOT: Self = Self(1024);
    /// Drives and volumes.
    pub const STORAGE: Self = Self(2048);

    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The answer to one probe. Parts that were not asked for are [`Read::NotAsked`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub at: EngineTime,
    pub system: Read<SystemFacts>,
    pub inventory: Read<InventoryFacts>,
    pub firmware: Read<Vec<Component>>,
    pub tasks: Read<Vec<Task>>,
    pub host: Read<HostFacts>,
    pub job: Read<JobFacts>,
    pub cluster: Read<Membership>,
    pub boot: Read<WindowFacts>,
    /// Addresses of the images in the BMC's virtual drives, as it says.
    #[serde(default)]
    pub media: Read<Vec<String>>,
    /// Only the attributes that the profile names, and all that wait for the next POST.
    #[serde(default)]
    pub bios: Read<BiosFacts>,
    #[serde(default)]
    pub secure_boot: Read<SecureBootFacts>,
    #[serde(default)]
    pub storage: Read<StorageFacts>,
}

/// Power as the BMC says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    On,
    Off,
    PoweringOn,
    PoweringOff,
    #[default]
    Unknown,
}

/// One read of the computer system resource that can boot and reset (DSP0268 ComputerSystem).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SystemFacts {
    pub identity: Identity,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
    pub power: Power,
    /// `OK`, `Warning`, `Critical` as the BMC rolls it up.
    pub health: Option<String>,
    /// `BootSourceOverrideTarget`, as the BMC spells it.
    pub boot_target: Option<String>,
    /// `BootSourceOverrideEnabled`: `Once`, `Continuous`, `Disabled`.
    pub boot_enabled: Option<String>,
    /// `LastResetTime`, as text: only compared for change.
    pub last_reset: Option<String>,
    pub bios_version: Option<String>,
    /// Redfish did not answer and IPMI did: it tells power and a proven identity, and no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_ipmi: bool,
}

/// What is in the box, as the BMC lists it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InventoryFacts {
    pub cpus: Vec<Part>,
    pub memory_mib: Option<u64>,
    pub disks: Vec<Part>,
    pub nics: Vec<Nic>,
    pub gpus: Vec<Part>,
    /// The BMC's clock when this was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockFacts>,
    /// What could not be read or made no sense; never a reason to drop the rest.
    pub warnings: Vec<String>,
}

/// A CPU, GPU or disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub id: String,
    pub model: Option<String>,
    pub manufacturer: Option<String>,
    pub serial: Option<String>,
    /// Bytes, for disks.
    pub capacity: Option<u64>,
    /// Where it sits, as printed on the machine or as the BMC numbers it; of GPUs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Version of its own firmware; of GPUs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Nic {
    pub id: String,
    pub mac: Option<String>,
    pub link_up: Option<bool>,
}

/// One member of the BMC's firmware inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Resource id; on some BMCs it contains the version and changes after an update. Of a further
    /// controller with its name before it; a name and a colon alone stand for all that it has.
    pub id: String,
    pub name: Option<String>,
    pub version: Option<String>,
    pub updateable: Option<bool>,
    /// Resource path, for `Targets`.
    pub uri: Option<String>,
    /// The BMC lists it, and its document could not be read this time: nothing is known of it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<Box<Fault>>,
}

/// Where a BMC task stands (DSP0268 Task; rules R14–R16 of the field notes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// New, Starting, Running, Pending, Suspended, … and every unknown word.
    InProgress,
    /// Completed, status OK or Warning, no critical message.
    Succeeded,
    /// Exception, Killed, Cancelled, Interrupted, or Completed with a critical message.
    Failed,
    /// Stands for all tasks of a further controller whose list could not be read this time: work may go
    /// on there. Its `uri` is the controller's name and a colon, its `raw_state` the code of the fault,
    /// its `message` says why.
    Unread,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Path of the task resource; of a further controller with its name before it.
    pub uri: String,
    pub state: TaskState,
    /// As the BMC spelt it.
    pub raw_state: String,
    pub percent: Option<u8>,
    pub message: Option<String>,
}

impl Task {
    /// A board copies an image to its second place: told by the chassis of a root of trust, not by a
    /// task (`path#property`). A power cut or a BMC reset in it breaks the component.
    pub fn is_copy(&self) -> bool {
        let path = self.uri.split_once('#').map(|(path, _)| path.to_ascii_lowercase());
        path.is_some_and(|path| path.contains("/chassis/"))
    }

    /// Work goes on, or nobody can tell.
    pub fn may_run(&self) -> bool {
        matches!(self.state, TaskState::InProgress | TaskState::Unread)
    }

    /// Does it stand for the tasks of a controller that could not be read for the fault of this code?
    pub fn is_unread_for(&self, code: &str) -> bool {
        self.state == TaskState::Unread && self.raw_state == code
    }

    /// A job is named by its task, its monitor or the job service, under the same last word.
    pub fn is_named(&self, job: &str) -> bool {
        let last = |path: &str| path.trim_end_matches('/').rsplit('/').next().map(str::to_string);
        self.uri == job || last(&self.uri).is_some_and(|l| !l.is_empty() && Some(l) == last(job))
    }

    /// Does it wait for the host's next POST?
    pub fn waits_for_post(&self) -> bool {
        self.state == TaskState::InProgress && matches!(&*self.raw_state, "Pending" | "Scheduled")
    }
}

/// The operating system, read over pinned SSH.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// DMI identity: proves the pairing BMC ↔ host.
    pub identity: Identity,
    pub boot_id: Option<String>,
    pub hostname: Option<String>,
    pub os: Option<String>,
    pub kernel: Option<String>,
    /// The mark that a deployment of ours left: image id.
    pub image: Option<String>,
    /// The mark that a deployment of ours left: the run that wrote it.
    pub image_run: Option<String>,
    /// The deploy ramdisk answers, booted for this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramdisk_run: Option<String>,
    /// What the ramdisk found on a disk: the run that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_run: Option<String>,
    /// The root file system lies on a mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mirror: Option<MirrorFacts>,
    /// `Some(true)`: a disk has a partition table or file system that no run of ours wrote.
    pub holds_data: Option<bool>,
    pub gpus: Vec<Part>,
    /// Jobs of ours whose directories are on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<JobNote>,
}

/// A mirror of disks (md RAID1), as the kernel on it sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorFacts {
    pub disks: u32,
    /// Of these, how many are not there or not up to date.
    pub missing: u32,
    /// How far a copy from one disk to the other has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_percent: Option<u32>,
}

/// A job directory on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobNote {
    pub name: String,
    /// Started under this boot and without a result so far.
    pub running: bool,
}

/// What is in the machine, as its own kernel sees it in the deploy ramdisk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostHardware {
    /// DMI identity: proves the pairing BMC ↔ host.
    pub identity: Identity,
    pub vendor: Option<String>,
    pub product: Option<String>,
    pub board_serial: Option<String>,
    pub bios_version: Option<String>,
    /// One a socket.
    pub cpus: Vec<HostCpu>,
    pub memory_mib: Option<u64>,
    pub disks: Vec<HostDisk>,
    pub nics: Vec<HostNic>,
    /// Display and 3D controllers that are more than the board's own.
    pub gpus: Vec<HostGpu>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCpu {
    pub socket: u32,
    pub model: Option<String>,
    pub cores: Option<u32>,
    pub threads: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDisk {
    /// The kernel's name of this boot.
    pub name: String,
    /// How it hangs on the host: `nvme`, `sata`, `sas`, `virtio`, `raid`, or why it is no local disk
    /// (`usb`, `fc`, `iscsi`, `nvme-fabrics`, `shared`, `multipath`, …).
    pub attached: String,
    pub bytes: Option<u64>,
    pub sector_bytes: Option<u32>,
    pub serial: Option<String>,
    pub model: Option<String>,
    pub rotates: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNic {
    pub name: String,
    pub mac: Option<String>,
    pub link_up: Option<bool>,
    pub speed_mbit: Option<u32>,
    pub driver: Option<String>,
    /// PCI address.
    pub pci: Option<String>,
    pub neighbour: Option<LldpNeighbour>,
}

/// The switch port that a NIC is plugged into, by what that port says (IEEE 802.1AB).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LldpNeighbour {
    pub chassis: Option<String>,
    pub port: Option<String>,
    pub system: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostGpu {
    /// PCI address.
    pub pci: String,
    /// `vendor:device`, lower-case hex: `10de:2330`.
    pub device: String,
    /// `vendor:device` of the board's maker.
    pub board: Option<String>,
}

/// A named job on a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobFacts {
    pub name: String,
    pub state: JobState,
    /// Boot id of the host now.
    pub boot_id: Option<String>,
    /// Last lines of output, bounded.
    pub tail: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// No such job on the host.
    #[default]
    Absent,
    Running {
        /// Changes while the job lives (bytes of output, heartbeat): for stall detection.
        progress: u64,
    },
    /// Started, yet neither running nor finished: the host rebooted or the job was killed.
    Lost { why: String },
    /// Ended; `result` is the job's JSON result file.
    Finished { exit: i32, result: Option<serde_json::Value> },
}

/// The cluster's view of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub member: bool,
    pub ready: bool,
    pub cordoned: bool,
    /// Workloads still on the machine.
    pub workloads: u32,
    /// What the provider says, for people.
    pub detail: Option<String>,
}

/// The boot window of a run: what the host fetched and said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowFacts {
    pub open: bool,
    /// The run the window belongs to.
    pub run: Option<String>,
    pub script_fetched: bool,
    pub seed_fetched: bool,
    pub callback: Option<Callback>,
    /// The address that fetched and called back; with a port where the ramdisk named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Public half of the SSH host key that the installed system will have, OpenSSH form; made with
    /// a window for the ramdisk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_key: Option<String>,
    /// The UUID of a host that asked by DHCP with this window's MAC and is not the machine that DHCP
    /// knows by it; such a host gets nothing to boot. In the byte order that was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_uuid: Option<String>,
}

/// What a deployed host said with its one-shot token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// Installed, or refused/failed with `message`.
    pub ok: bool,
    pub message: Option<String>,
    /// Why not, as one word: `holds-data`, `no-root-disk` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The host's new public SSH host key, OpenSSH form: pinned from here on.
    pub host_key: Option<String>,
}
