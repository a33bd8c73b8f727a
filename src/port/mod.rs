//! The engine's sockets to the outside world, as traits. Edges implement them; the simulator and
//! the driver use them. Time comes in events: there is no clock port.

pub mod capability;
pub mod command;
pub mod deploy;
pub mod heard;
pub mod netboot;
pub mod outbox;
pub mod session;
pub mod stop;
pub mod store;

use crate::model::action::{BootTarget, HookVerb, JobScript, PowerOp};
use crate::model::deploy::RootDisk;
use crate::model::facts::{
    Component, HostFacts, HostHardware, InventoryFacts, JobFacts, Membership, SystemFacts, Task,
    WindowFacts,
};
use crate::model::hardware::{BiosFacts, SecureBootFacts};
use crate::model::quirks::PushForm;
use crate::model::storage::StorageFacts;
use crate::model::{
    BmcEndpoint, Change, EngineTime, Expect, Expected, Fault, HostEndpoint, Identity, MachineId,
    Outcome,
};
use async_trait::async_trait;
use capability::VolumeOrder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

/// A BMC and the machine it is expected to be.
#[derive(Clone, Debug)]
pub struct BmcTarget {
    pub machine: MachineId,
    pub name: Arc<str>,
    pub endpoint: BmcEndpoint,
    /// Proven identity: tells which of several systems behind one BMC is meant.
    pub identity: crate::model::Identity,
}

/// A host and the key it must show.
#[derive(Clone, Debug)]
pub struct HostTarget {
    pub machine: MachineId,
    pub name: Arc<str>,
    pub endpoint: HostEndpoint,
    /// Pinned OpenSSH public key; without one there is no connection.
    pub host_key: Option<Arc<str>>,
}

/// A machine as its cluster knows it.
#[derive(Clone, Debug)]
pub struct Node {
    pub machine: MachineId,
    pub name: Arc<str>,
    /// Provider's name from the profile.
    pub cluster: String,
    pub host: HostTarget,
}

/// Reads of one BMC. Reads may run 2–4 at a time per BMC; the edge gates them. Inventory, firmware and
/// tasks are those of the machine's further controllers too, under their names; one that does not answer
/// hides nothing of the others.
#[async_trait]
pub trait BmcRead: Send + Sync {
    async fn system(&self, bmc: &BmcTarget) -> Result<SystemFacts, Fault>;
    async fn inventory(&self, bmc: &BmcTarget) -> Result<InventoryFacts, Fault>;
    async fn firmware(&self, bmc: &BmcTarget) -> Result<Vec<Component>, Fault>;
    /// Open and recent tasks. With a handle: that one alone, or, where it is gone, all others.
    async fn tasks(&self, bmc: &BmcTarget, handle: Option<&str>) -> Result<Vec<Task>, Fault>;
    /// Addresses of the images in the virtual drives; empty drives are left out.
    async fn inserted_media(&self, _bmc: &BmcTarget) -> Result<Vec<String>, Fault> {
        Err(no_media())
    }
    /// BIOS attributes in force and pending.
    async fn bios_settings(&self, _bmc: &BmcTarget) -> Result<BiosFacts, Fault> {
        Err(no_bios())
    }
    async fn secure_boot_state(&self, _bmc: &BmcTarget) -> Result<SecureBootFacts, Fault> {
        Err(no_bios())
    }
    /// Drives and volumes, whole: one document that can't be read fails all.
    async fn storage(&self, _bmc: &BmcTarget) -> Result<StorageFacts, Fault> {
        Err(no_volumes())
    }
}

/// Every write re-reads `expect` on the same channel first and refuses on a mismatch.
#[async_trait]
pub trait BmcPower: Send + Sync {
    async fn power(&self, bmc: &BmcTarget, expect: &Expect, op: PowerOp) -> Outcome;
    async fn set_boot(&self, bmc: &BmcTarget, expect: &Expect, target: BootTarget) -> Outcome;
}

/// An image that a BMC is to fetch and install.
#[derive(Clone, Debug)]
pub struct UpdateOrder {
    /// Where this BMC can fetch the file: plain, short, no query string (field notes R22).
    pub image_url: String,
    /// Of a further controller with its name before it: then it goes there.
    pub inventory_id: String,
    pub from: String,
    pub to: String,
    /// The same image on this disk, for BMCs that do not fetch; `None`: it cannot be pushed.
    pub file: Option<ImageFile>,
}

/// A firmware image on this disk, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
    /// It is to be pushed, in this form, also where the BMC fetches; `None`: where it does not.
    pub form: Option<PushForm>,
}

impl ImageFile {
    /// Milliseconds that pushing it may take: 60 s and 10 kB/s, the slowest upload worth waiting for
    /// (field notes R7).
    pub fn push_deadline_ms(&self) -> u64 {
        60_000 + self.size / 10
    }
}

#[async_trait]
pub trait BmcUpdate: Send + Sync {
    /// `Applied{handle}` carries the task's path.
    async fn update(&self, bmc: &BmcTarget, expect: &Expect, order: &UpdateOrder) -> Outcome;
}

#[async_trait]
pub trait BmcCare: Send + Sync {
    async fn reset_bmc(&self, bmc: &BmcTarget, expect: &Expect) -> Outcome;
    /// Restarts the machine's further controller of this name, and nothing else. `expect` is what the
    /// host's BMC must show.
    async fn reset_controller(&self, _bmc: &BmcTarget, _expect: &Expect, name: &str) -> Outcome {
        let why = format!("this way to the BMC knows no controller `{name}`");
        let class = crate::model::FaultClass::Unsupported;
        let channel = crate::model::Channel::Bmc;
        Outcome::Failed { fault: Fault::new(class, channel, "no-controller", why) }
    }
    /// Log out and forget the session.
    async fn end_sessions(&self, bmc: &BmcTarget) -> Outcome;
    /// Shows the host this image as a drive; what was in the drive is taken out first. Refused unless
    /// the host is as `expect` says. Answers once the drive reads so.
    async fn insert_media(&self, _bmc: &BmcTarget, _expect: &Expect, _image_url: &str) -> Outcome {
        Outcome::Failed { fault: no_media() }
    }
    /// Every drive that may hold an image of ours is emptied.
    async fn eject_media(&self, _bmc: &BmcTarget, _expect: &Expect) -> Outcome {
        Outcome::Failed { fault: no_media() }
    }
    /// Leaves the attributes that differ for the next POST, all or none. `Applied{handle}` carries the
    /// path of the BMC's job for them, where it made one.
    async fn change_bios(
        &self,
        _bmc: &BmcTarget,
        _expect: &Expect,
        _attributes: &BTreeMap<String, Value>,
    ) -> Outcome {
        Outcome::Failed { fault: no_bios() }
    }
    /// From the next POST on.
    async fn change_secure_boot(&self, _bmc: &BmcTarget, _expect: &Expect, _on: bool) -> Outcome {
        Outcome::Failed { fault: no_bios() }
    }
    /// Makes a volume of drives that are part of none; destroys what they hold. `Applied{handle}` carries
    /// the path of the BMC's task, where it made one.
    async fn make_volume(
        &self,
        _bmc: &BmcTarget,
        _expect: &Expect,
        _order: &VolumeOrder,
    ) -> Outcome {
        Outcome::Failed { fault: no_volumes() }
    }
    /// Cuts all power of the machine, its BMC's too, and gives it back. Refused unless the host is
    /// off.
    async fn ac_cycle(&self, _bmc: &BmcTarget, _expect: &Expect) -> Outcome {
        let why = "this way to the BMC can't cut the machine's power";
        let class = crate::model::FaultClass::Unsupported;
        Outcome::Failed { fault: Fault::new(class, crate::model::Channel::Bmc, "no-ac-cycle", why) }
    }
}

fn no_media() -> Fault {
    let why = "this way to the BMC has no virtual media";
    let class = crate::model::FaultClass::Unsupported;
    let channel = crate::model::Channel::Bmc;
    Fault::new(class, channel, "no-virtual-media", why)
}

fn no_bios() -> Fault {
    let why = "this way to the BMC has no BIOS settings";
    let class = crate::model::FaultClass::Unsupported;
    Fault::new(class, crate::model::Channel::Bmc, "no-bios", why)
}

fn no_volumes() -> Fault {
    let why = "this way to the BMC has no volumes";
    let class = crate::model::FaultClass::Unsupported;
    Fault::new(class, crate::model::Channel::Bmc, "no-volumes", why)
}

/// All of a BMC.
pub trait Bmc: BmcRead + BmcPower + BmcUpdate + BmcCare {}
impl<T: BmcRead + BmcPower + BmcUpdate + BmcCare> Bmc for T {}

/// The operating system over SSH.
#[async_trait]
pub trait Shell: Send + Sync {
    async fn facts(&self, host: &HostTarget) -> Result<HostFacts, Fault>;
    /// What is in the machine; in the deploy ramdisk, where all of it can be seen.
    async fn hardware(&self, _host: &HostTarget) -> Result<HostHardware, Fault> {
        let why = "this way to the host can't list its hardware";
        let class = crate::model::FaultClass::Unsupported;
        Err(Fault::new(class, crate::model::Channel::Host, "no-hardware-list", why))
    }
    async fn job(&self, host: &HostTarget, name: &str) -> Result<JobFacts, Fault>;
    /// Starts the shipped script as job `name`; the same name is never started twice. Scripts
    /// that destroy data compare `expect.identity` with DMI in the command that writes.
    async fn start_job(
        &self,
        host: &HostTarget,
        expect: &Expect,
        script: JobScript,
        name: &str,
        timeout_ms: u64,
    ) -> Outcome;
    /// Starts the wipe job, told the serials of the drives that must be there: one that it does not
    /// see it reports as not sanitized.
    async fn start_wipe(
        &self,
        host: &HostTarget,
        expect: &Expect,
        _drives: &[String],
        name: &str,
        timeout_ms: u64,
    ) -> Outcome {
        self.start_job(host, expect, JobScript::Wipe, name, timeout_ms).await
    }
    /// Starts the shipped deploy job as `name` in the deploy ramdisk; the same name is never started
    /// twice. It compares `expect.identity` with DMI in the process that writes.
    async fn start_deploy(
        &self,
        _host: &HostTarget,
        _expect: &Expect,
        _order: &deploy::DeployOrder,
        _name: &str,
        _timeout_ms: u64,
    ) -> Outcome {
        let why = "this way to the host can't deploy an image";
        let class = crate::model::FaultClass::Unsupported;
        Outcome::Failed { fault: Fault::new(class, crate::model::Channel::Host, "no-deploy", why) }
    }
}

/// A cluster that machines join and leave.
#[async_trait]
pub trait Cluster: Send + Sync {
    async fn membership(&self, node: &Node) -> Result<Membership, Fault>;
    async fn act(&self, node: &Node, expect: &Expect, verb: HookVerb) -> Outcome;
}

/// What the boot server is to hand to one machine.
#[derive(Clone, Debug)]
pub struct WindowOrder {
    pub machine: MachineId,
    pub name: Arc<str>,
    pub run: String,
    pub image: String,
    pub mac: Option<String>,
    pub allow_existing_data: bool,
    /// Where this host reaches the boot listener, without a slash at the end.
    pub base_url: String,
    /// Whom the deploy ramdisk lets in besides Farrier: OpenSSH public keys.
    pub keys: Vec<String>,
    /// Whose templates count before the image's.
    pub profile: Arc<str>,
    /// `network-config` of the system that an installer installs.
    pub network: Option<String>,
    /// What an installer is told that the profile trusts with the choice of the disk.
    pub install: Option<InstallOrder>,
}

/// For an installer that Farrier tells which disk is meant, because nobody is there to look.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InstallOrder {
    /// As the BMC says it: the installer compares it with its DMI before it writes.
    pub identity: Identity,
    pub root: RootDisk,
    /// Public SSH keys besides Farrier's own.
    pub authorized_keys: Vec<String>,
}

/// The boot server: answers a machine only while a run waits for it.
#[async_trait]
pub trait Boot: Send + Sync {
    /// The window of this run; where it has none, an open one of the machine's, whose run is another.
    async fn window(&self, machine: MachineId, run: &str) -> Result<WindowFacts, Fault>;
    async fn open(&self, order: &WindowOrder) -> Outcome;
    async fn close(&self, run: &str) -> Outcome;
    /// The order to write an image: only while the run's window for the ramdisk is open.
    async fn deploy_order(
        &self,
        _request: &deploy::DeployRequest,
    ) -> Result<deploy::DeployOrder, Fault> {
        let why = "this boot server deploys no images";
        let class = crate::model::FaultClass::Unsupported;
        Err(Fault::new(class, crate::model::Channel::Boot, "no-deploy", why))
    }
}

/// Which URL of ours a machine is told: a BMC and a host see different addresses of one daemon. And
/// what the site says of the installed system's own address.
#[async_trait]
pub trait Advertise: Send + Sync {
    /// Where this machine's BMC fetches firmware; `None`: nothing is served to it.
    fn images(&self, machine: &Expected) -> Option<String>;
    /// Where this machine's host boots from.
    fn boot(&self, machine: &Expected) -> Option<String>;
    /// A firmware image on this disk, by its name below the catalog.
    fn firmware_file(&self, _file: &str) -> Option<ImageFile> {
        None
    }
    /// The network of the system that is to be installed, as cloud-init's `network-config`, for the
    /// machine with this boot MAC. `None`: its profile names no interfaces.
    async fn system_network(
        &self,
        _machine: &Expected,
        _mac: Option<&str>,
    ) -> Result<Option<String>, Fault> {
        Ok(None)
    }
    /// Where the installed system answers, when the inventory gives no address and Farrier's own DHCP
    /// server gave it one for good.
    fn leased_address(&self, _machine: &Expected, _mac: Option<&str>) -> Option<Ipv4Addr> {
        None
    }
}

/// All ports of a site, as the driver holds them.
#[derive(Clone)]
pub struct Ports {
    pub bmc: Arc<dyn Bmc>,
    pub shell: Arc<dyn Shell>,
    pub cluster: Arc<dyn Cluster>,
    pub boot: Arc<dyn Boot>,
    pub advertise: Arc<dyn Advertise>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ports")
    }
}

/// What edges and people send to the engine: its only way in.
#[derive(Debug)]
pub enum Inward {
    /// A change of one machine; answered once durable.
    Change {
        machine: MachineId,
        change: Change,
        by: String,
        key: String,
        ack: tokio::sync::oneshot::Sender<Result<u64, Fault>>,
    },
    /// Expected machines of a (re)loaded inventory; ids are given by the store.
    Expect { machines: Vec<(MachineId, Arc<Expected>)> },
    /// The site's data changed.
    Site { site: Arc<crate::steps::site::Site> },
    /// Stop (`Some(why)`) or resume (`None`) all actions; answered once durable.
    Stop { why: Option<String>, by: String, ack: tokio::sync::oneshot::Sender<Result<u64, Fault>> },
    /// Look at the machine now: a host called back, a hint came in.
    Poke { machine: MachineId },
}

/// The sending end of the engine's inbox.
pub type Inbox = tokio::sync::mpsc::Sender<Inward>;

/// A credential as an edge uses it. Never printed.
#[derive(Clone)]
pub struct Credential {
    pub user: String,
    pub password: Secret,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({})", self.user)
    }
}

/// A value that never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself; for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where edges get credentials from.
#[async_trait]
pub trait Vault: Send + Sync {
    async fn credential(&self, name: &str) -> Result<Credential, Fault>;
    /// A private SSH key in OpenSSH form.
    async fn ssh_key(&self, name: &str) -> Result<Secret, Fault>;
}

/// When a report was made and what it holds: the facts that are kept.
#[derive(Clone, Debug)]
pub struct Kept {
    pub machine: MachineId,
    pub at: EngineTime,
    pub report: crate::model::Report,
}
