//! One probe or one action, through the ports. Compares nothing, decides nothing.

use crate::model::deploy::RAMDISK;
use crate::model::facts::ProbeSet;
use crate::model::machine::Ramdisk;
use crate::model::{
    Action, Channel, Expect, Expected, Fault, FaultClass, HostEndpoint, Identity, MachineId,
    Outcome, Read, Report,
};
use crate::port::capability::VolumeOrder;
use crate::port::deploy::DeployRequest;
use crate::port::{BmcTarget, HostTarget, InstallOrder, Node, Ports, UpdateOrder, WindowOrder};
use crate::steps::site::Profile;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A machine as the ports need it.
#[derive(Clone, Debug)]
pub struct Context {
    pub ports: Ports,
    pub machine: MachineId,
    pub identity: Identity,
    pub host_key: Option<Arc<str>>,
    /// The deploy ramdisk, while it has the host.
    pub ramdisk: Option<Ramdisk>,
    pub expected: Arc<Expected>,
    pub profile: Arc<Profile>,
    /// Its BMC answered when it was last asked.
    pub answers: bool,
}

impl Context {
    fn bmc(&self) -> BmcTarget {
        BmcTarget {
            machine: self.machine,
            name: self.expected.name.clone(),
            endpoint: self.expected.bmc.clone(),
            identity: self.identity.clone(),
        }
    }

    fn host(&self) -> HostTarget {
        if let Some(ramdisk) = &self.ramdisk {
            return HostTarget {
                machine: self.machine,
                name: self.expected.name.clone(),
                endpoint: HostEndpoint {
                    address: (*ramdisk.address).into(),
                    user: RAMDISK_USER.into(),
                    host_key: None,
                },
                host_key: Some((*ramdisk.host_key).into()),
            };
        }
        let stated = self.expected.host.host_key.as_deref().map(Arc::from);
        let mut endpoint = self.expected.host.clone();
        let mac = self.identity.mac.as_deref();
        if let Some(leased) = self.ports.advertise.leased_address(&self.expected, mac) {
            endpoint.address = leased.to_string().as_str().into();
        }
        HostTarget {
            machine: self.machine,
            name: self.expected.name.clone(),
            endpoint,
            host_key: self.host_key.clone().or(stated),
        }
    }

    /// What the installed system's seed says of its network.
    async fn system_network(&self) -> Result<Option<String>, Fault> {
        let mac = self.identity.mac.as_deref();
        self.ports.advertise.system_network(&self.expected, mac).await
    }

    fn node(&self) -> Option<Node> {
        Some(Node {
            machine: self.machine,
            name: self.expected.name.clone(),
            cluster: self.profile.cluster.clone()?,
            host: self.host(),
        })
    }
}

/// The ramdisk knows no other.
const RAMDISK_USER: &str = "root";

/// Longest time for all parts of one probe on one channel together: a hung BMC costs this and no
/// more, however much was to be read from it.
const PROBE_DEADLINE: Duration = Duration::from_secs(90);

/// Reads the wanted parts; channels side by side, parts of one channel one after the other, each
/// channel within 90 s.
pub async fn read(
    c: &Context,
    set: ProbeSet,
    job: Option<&str>,
    handle: Option<&str>,
    run: Option<&str>,
) -> Report {
    let until = deadline();
    let bmc = read_bmc(c, set, handle, until);
    let host = async {
        let target = c.host();
        let facts = match set.has(ProbeSet::HOST) {
            true => within(until, Channel::Host, c.ports.shell.facts(&target)).await,
            false => Read::NotAsked,
        };
        let job = match (set.has(ProbeSet::JOB), job) {
            (true, Some(name)) => {
                within(until, Channel::Host, c.ports.shell.job(&target, name)).await
            }
            _ => Read::NotAsked,
        };
        (facts, job)
    };
    let cluster = async {
        match (set.has(ProbeSet::CLUSTER), c.node()) {
            (true, Some(node)) => {
                within(until, Channel::Cluster, c.ports.cluster.membership(&node)).await
            }
            _ => Read::NotAsked,
        }
    };
    let boot = async {
        match (set.has(ProbeSet::BOOT), run) {
            (true, Some(run)) => {
                within(until, Channel::Boot, c.ports.boot.window(c.machine, run)).await
            }
            _ => Read::NotAsked,
        }
    };
    let (bmc, (facts, job), cluster, boot) = tokio::join!(bmc, host, cluster, boot);
    Report { host: facts, job, cluster, boot, ..bmc }
}

/// The BMC's parts, side by side as far as the BMC's own gate lets them. One that may be dead is
/// asked for its system first: a dead one is asked once, not four times.
async fn read_bmc(c: &Context, set: ProbeSet, handle: Option<&str>, until: Instant) -> Report {
    let target = c.bmc();
    let bmc = &c.ports.bmc;
    let system = async {
        match set.has(ProbeSet::SYSTEM) {
            true => within(until, Channel::Bmc, bmc.system(&target)).await,
            false => Read::NotAsked,
        }
    };
    let inventory = async {
        match set.has(ProbeSet::INVENTORY) {
            true => within(until, Channel::Bmc, bmc.inventory(&target)).await,
            false => Read::NotAsked,
        }
    };
    let tasks = async {
        match set.has(ProbeSet::TASKS) {
            true => within(until, Channel::Bmc, bmc.tasks(&target, handle)).await,
            false => Read::NotAsked,
        }
    };
    let firmware = async {
        match set.has(ProbeSet::FIRMWARE) {
            true => within(until, Channel::Bmc, bmc.firmware(&target)).await,
            false => Read::NotAsked,
        }
    };
    let media = async {
        match set.has(ProbeSet::MEDIA) {
            true => within(until, Channel::Bmc, bmc.inserted_media(&target)).await,
            false => Read::NotAsked,
        }
    };
    let bios = async {
        match set.has(ProbeSet::BIOS) {
            true => {
                let read = async { Ok(c.profile.bios.keep(bmc.bios_settings(&target).await?)) };
                within(until, Channel::Bmc, read).await
            }
            false => Read::NotAsked,
        }
    };
    let secure_boot = async {
        match set.has(ProbeSet::SECURE_BOOT) {
            true => within(until, Channel::Bmc, bmc.secure_boot_state(&target)).await,
            false => Read::NotAsked,
        }
    };
    let storage = async {
        match set.has(ProbeSet::STORAGE) {
            true => within(until, Channel::Bmc, bmc.storage(&target)).await,
            false => Read::NotAsked,
        }
    };
    let updates = async {
        let Some(handle) = handle else { return tokio::join!(tasks, firmware) };
        // As long as its task tells how an update stands, nobody asks for versions.
        let tasks = tasks.await;
        let told = tasks.seen().is_some_and(|all| all.iter().any(|t| t.uri == handle));
        (tasks, if told { Read::NotAsked } else { firmware.await })
    };
    let parts = async { tokio::join!(inventory, updates, media, bios, secure_boot, storage) };
    let (system, parts) = if c.answers {
        let (system, parts) = tokio::join!(system, parts);
        (system, Some(parts))
    } else {
        let system = system.await;
        let dead = system.fault().is_some_and(Fault::is_no_answer);
        (system, if dead { None } else { Some(parts.await) })
    };
    if let (Some(fault), None) = (system.fault().filter(|f| f.is_no_answer()), &parts) {
        return silent(set, fault);
    }
    let (inventory, (tasks, firmware), media, bios, secure_boot, storage) =
        parts.unwrap_or_default();
    Report {
        system,
        inventory,
        firmware,
        tasks,
        media,
        bios,
        secure_boot,
        storage,
        ..Report::default()
    }
}

/// Every part of a BMC that does not answer.
fn silent(set: ProbeSet, fault: &Fault) -> Report {
    fn part<T>(asked: bool, fault: &Fault) -> Read<T> {
        if asked { Read::Failed(fault.clone()) } else { Read::NotAsked }
    }
    Report {
        system: part(set.has(ProbeSet::SYSTEM), fault),
        inventory: part(set.has(ProbeSet::INVENTORY), fault),
        firmware: part(set.has(ProbeSet::FIRMWARE), fault),
        tasks: part(set.has(ProbeSet::TASKS), fault),
        media: part(set.has(ProbeSet::MEDIA), fault),
        bios: part(set.has(ProbeSet::BIOS), fault),
        secure_boot: part(set.has(ProbeSet::SECURE_BOOT), fault),
        storage: part(set.has(ProbeSet::STORAGE), fault),
        ..Report::default()
    }
}

#[allow(clippy::disallowed_methods, reason = "the probe's deadline")]
fn deadline() -> Instant {
    Instant::now() + PROBE_DEADLINE
}

async fn within<T>(
    until: Instant,
    channel: Channel,
    part: impl Future<Output = Result<T, Fault>>,
) -> Read<T> {
    match tokio::time::timeout_at(until, part).await {
        Ok(result) => result.into(),
        Err(_) => Read::Failed(Fault::no_answer(
            channel,
            format!("the probe was not answered within {} s", PROBE_DEADLINE.as_secs()),
        )),
    }
}

/// Does it once. Past the class's deadline the outcome is unknown.
pub async fn perform(c: &Context, action: Action, expect: &Expect) -> Outcome {
    let mut deadline_ms = action.kind().class().deadline_ms;
    if let Action::UpdateFirmware { file, .. } = &action {
        // Where the BMC does not fetch, the image goes through this call.
        let image = c.ports.advertise.firmware_file(file);
        deadline_ms += image.map_or(0, |i| i.push_deadline_ms());
    }
    let deadline = Duration::from_millis(deadline_ms);
    match tokio::time::timeout(deadline, act(c, &action, expect)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Unknown {
            fault: Fault::new(
                FaultClass::OutcomeUnknown,
                Channel::Engine,
                "deadline",
                format!("`{}` had no answer within {} s", action.kind(), deadline.as_secs()),
            ),
        },
    }
}

async fn act(c: &Context, action: &Action, expect: &Expect) -> Outcome {
    let ports = &c.ports;
    match action {
        Action::Power { op } => ports.bmc.power(&c.bmc(), expect, *op).await,
        Action::BmcReset { controller: None } => ports.bmc.reset_bmc(&c.bmc(), expect).await,
        Action::BmcReset { controller: Some(name) } => {
            ports.bmc.reset_controller(&c.bmc(), expect, name).await
        }
        Action::SetBoot { target } => ports.bmc.set_boot(&c.bmc(), expect, *target).await,
        Action::EndBmcSessions => ports.bmc.end_sessions(&c.bmc()).await,
        Action::UpdateFirmware { inventory_id, from, to, file, .. } => {
            let Some(base) = ports.advertise.images(&fetching(c, action)) else {
                return nowhere("images", "listen.images");
            };
            let order = UpdateOrder {
                image_url: format!("{}/firmware/{file}", base.trim_end_matches('/')),
                inventory_id: inventory_id.clone(),
                from: from.clone(),
                to: to.clone(),
                file: ports.advertise.firmware_file(file),
            };
            ports.bmc.update(&c.bmc(), expect, &order).await
        }
        Action::OpenBootWindow { image, run, allow_existing_data, keys } => {
            let Some(base) = ports.advertise.boot(&c.expected) else {
                return nowhere("boot", "listen.boot");
            };
            // Before the machine is powered off for it. The ramdisk brings its own network; that of the
            // system which it writes goes with the order to write it.
            let network = match image == RAMDISK {
                true => None,
                false => match c.system_network().await {
                    Ok(network) => network,
                    Err(fault) => return Outcome::Failed { fault },
                },
            };
            let order = WindowOrder {
                base_url: base.trim_end_matches('/').to_string(),
                machine: c.machine,
                name: c.expected.name.clone(),
                run: run.clone(),
                image: image.clone(),
                mac: c.identity.mac.as_deref().map(str::to_string),
                allow_existing_data: *allow_existing_data,
                keys: keys.clone(),
                profile: c.expected.profile.clone(),
                network,
                install: install_order(c, expect, image),
            };
            ports.boot.open(&order).await
        }
        Action::CloseBootWindow { run } => ports.boot.close(run).await,
        Action::StartJob { script, name, timeout_ms } => {
            ports.shell.start_job(&c.host(), expect, *script, name, *timeout_ms).await
        }
        Action::Deploy { image, run, host_key, name, timeout_ms, allow_existing_data } => {
            let Some(root) = c.profile.root_disk.clone() else {
                let why = "the profile says no more which disk gets the image";
                return precondition(Channel::Engine, "no-root-disk-rule", why);
            };
            let network = match c.system_network().await {
                Ok(network) => network,
                Err(fault) => return Outcome::Failed { fault },
            };
            let request = DeployRequest {
                name: c.expected.name.clone(),
                run: run.clone(),
                image: image.clone(),
                host_key: host_key.clone(),
                root,
                allow_existing_data: *allow_existing_data,
                authorized_keys: c.profile.authorized_keys.clone(),
                profile: c.expected.profile.clone(),
                network,
            };
            match ports.boot.deploy_order(&request).await {
                Ok(order) => {
                    ports.shell.start_deploy(&c.host(), expect, &order, name, *timeout_ms).await
                }
                Err(fault) => Outcome::Failed { fault },
            }
        }
        Action::InsertMedia { run } => {
            let Some(base) = ports.advertise.images(&c.expected) else {
                return nowhere("images", "listen.images");
            };
            let url = format!("{}/media/{run}.iso", base.trim_end_matches('/'));
            ports.bmc.insert_media(&c.bmc(), expect, &url).await
        }
        Action::EjectMedia => ports.bmc.eject_media(&c.bmc(), expect).await,
        Action::SetBios { attributes } => ports.bmc.change_bios(&c.bmc(), expect, attributes).await,
        Action::SetSecureBoot { on } => ports.bmc.change_secure_boot(&c.bmc(), expect, *on).await,
        Action::CreateVolume { raid, name, drives } => {
            let order =
                VolumeOrder { raid: raid.clone(), name: name.clone(), drives: drives.clone() };
            ports.bmc.make_volume(&c.bmc(), expect, &order).await
        }
        Action::Hook { verb } => match c.node() {
            Some(node) => ports.cluster.act(&node, expect, *verb).await,
            None => precondition(Channel::Cluster, "no-cluster", "the profile names no cluster"),
        },
    }
}

/// The machine as it stands to who fetches the image: a further controller may be in another network.
fn fetching<'c>(c: &'c Context, action: &Action) -> Cow<'c, Expected> {
    let named = action.controller().and_then(|name| c.expected.bmc.controllers.named(name));
    let Some(controller) = named else { return Cow::Borrowed(&c.expected) };
    let mut there = (*c.expected).clone();
    there.bmc.url = controller.url.clone();
    Cow::Owned(there)
}

fn precondition(channel: Channel, code: &'static str, why: &str) -> Outcome {
    Outcome::Failed { fault: Fault::new(FaultClass::Precondition, channel, code, why) }
}

/// For an installer that the profile trusts; the ramdisk is told over SSH.
fn install_order(c: &Context, expect: &Expect, image: &str) -> Option<InstallOrder> {
    let root = c.profile.root_disk.clone();
    let root = root.filter(|_| c.profile.trust_installer && image != RAMDISK)?;
    Some(InstallOrder {
        identity: expect.identity.clone(),
        root,
        authorized_keys: c.profile.authorized_keys.clone(),
    })
}

fn nowhere(what: &str, section: &str) -> Outcome {
    Outcome::Failed {
        fault: Fault::new(
            FaultClass::Precondition,
            Channel::Engine,
            "not-advertised",
            format!("this machine has no URL for the {what} listener"),
        )
        .hint(format!("give `[{section}]` an `advertise_url` that covers its network")),
    }
}
