//! The site that the simulated daemon runs: the shipped workflow of a GPU node with every step
//! kind, the shipped catalog, one profile, and limits tight enough to be felt.

use crate::config::{self, shipped};
use crate::model::deploy::{BootMethod, DiskKind, RootDisk};
use crate::model::hardware::BootMode;
use crate::model::storage::{BootVolume, DriveRule, VolumeKind};
use crate::model::time::Span;
use crate::model::{
    Domain, DomainKind, Expected, Further, FurtherKind, HostEndpoint, Identity, Limit, LimitClass,
    MachineId,
};
use crate::steps::catalog::Catalog;
use crate::steps::settings::{self, Settings};
use crate::steps::site::{Profile, Site};
use crate::steps::workflow::Workflow;
use std::sync::Arc;

/// Health probes of the simulated fleet at rest come no more often than this. Production's shipped
/// pace is a matter of taste; here most events would be health probes that find nothing.
pub const WATCH_MIN: Span = Span(600_000);

/// The shipped workflow of a GPU node, as operators get it.
pub fn gpu_node() -> Option<Workflow> {
    let (workflows, _) = config::workflow::parse(&shipped::workflows());
    let shipped = workflows.into_iter().find(|w| &*w.name == "gpu-node")?;
    let mut workflow = Arc::unwrap_or_clone(shipped);
    workflow.watch = Span(workflow.watch.0.max(WATCH_MIN.0));
    Some(workflow)
}

/// The shipped family of the virtual node, and the one of those with a baseboard.
fn families() -> [config::Source; 2] {
    let hgx = include_str!("catalog/virtual-hgx.toml");
    let hgx = config::Source::new("firmware-catalog/farrier/virtual-hgx.toml", hgx);
    [shipped::virtual_catalog(), hgx]
}

/// The firmware catalog of the virtual nodes.
pub fn catalog() -> Catalog {
    config::catalog::parse("firmware-catalog", &families(), &|_| true).0
}

/// The profile of every sixth machine: an md mirror.
const DISK: &str = "gpu-disk";
/// And of every other sixth: a mirror of its RAID controller.
const RAID: &str = "gpu-raid";

/// Does its profile ask for a boot volume?
pub fn has_boot_volume(id: MachineId) -> bool {
    id.0 % 6 == 1
}

/// Attributes that the factory sets otherwise.
pub const BIOS: [(&str, &str); 2] = [("SriovGlobalEnable", "Enabled"), ("NumaNodesPerSocket", "4")];

/// What the profiles ask of the BIOS.
pub fn bios() -> Settings {
    let rule = |model: &str, bios: &str, attributes: &[(&str, &str)]| settings::Rule {
        model: model.into(),
        bios: bios.parse().unwrap_or_default(),
        attributes: attributes.iter().map(|(k, v)| (k.to_string(), (*v).into())).collect(),
    };
    Settings {
        rules: vec![
            rule("Virtual*", ">=2", &BIOS),
            // Not this machine's: it must not be believed.
            rule("Virtual*", ">=9", &[("LogicalProc", "Disabled")]),
        ],
        boot_mode: Some(BootMode::Uefi),
        secure_boot: Some(true),
    }
}

/// A mirror of the virtual node's two drives.
pub fn boot_volume() -> BootVolume {
    BootVolume {
        kind: VolumeKind::HardwareRaid1,
        name: "boot".into(),
        controller: None,
        drives: DriveRule { kind: Some(DiskKind::Nvme), ..DriveRule::default() },
    }
}

/// Machines of one rack.
pub const RACK: u32 = 10;

/// The site: one profile, limits over racks, pool and site.
pub fn site() -> Site {
    let workflow = gpu_node().unwrap_or_else(|| Workflow {
        name: "none".into(),
        watch: WATCH_MIN,
        sla: Default::default(),
        steps: Vec::new(),
    });
    let hash = workflow.hash();
    let profile = Profile {
        name: "gpu".into(),
        workflow: hash.clone(),
        firmware_set: Some("2026.11".into()),
        image: Some("ubuntu-24.04-gpu".into()),
        cluster: Some("sim".into()),
        gpus: 8,
        bios: bios(),
        ..Profile::default()
    };
    // The same, from a disk image that the deploy ramdisk writes to a mirror.
    let disk = Profile {
        name: DISK.into(),
        root_disk: Some(RootDisk {
            kind: Some(DiskKind::Nvme),
            mirror: true,
            ..RootDisk::default()
        }),
        boot: vec![BootMethod::Pxe, BootMethod::VirtualMedia],
        ..profile.clone()
    };
    let raid = Profile {
        name: RAID.into(),
        root_disk: Some(RootDisk { kind: Some(DiskKind::Raid), ..RootDisk::default() }),
        boot_volume: Some(boot_volume()),
        ..disk.clone()
    };
    let limit = |class, per, max| Limit { class, per, max };
    Site {
        incarnation: "51a0c0de".into(),
        limits: vec![
            limit(LimitClass::Power, DomainKind::Rack, 3),
            limit(LimitClass::Flash, DomainKind::Rack, 3),
            limit(LimitClass::Flash, DomainKind::Site, 24),
            limit(LimitClass::Provision, DomainKind::Rack, 4),
            limit(LimitClass::BurnIn, DomainKind::Rack, 5),
            limit(LimitClass::Drain, DomainKind::Rack, 3),
        ],
        profiles: [profile, disk, raid].map(|p| (p.name.clone(), Arc::new(p))).into(),
        workflows: [(hash, Arc::new(workflow))].into(),
        catalog: catalog(),
        breaker_quarantines: 0,
        breaker_window_ms: 0,
        remediation: config::remediation::shipped(),
    }
}

/// The machine as its inventory line states it.
pub fn expected(id: MachineId, identity: Identity, host_key: Option<String>) -> Expected {
    let rack: Arc<str> = format!("r{:03}", id.0 / RACK).into();
    Expected {
        name: format!("n{:05}", id.0).into(),
        identity: Arc::new(identity),
        rack: rack.clone(),
        position: u16::try_from(id.0 % RACK).unwrap_or(0),
        pool: "gpu".into(),
        profile: match id.0 % 6 {
            _ if has_boot_volume(id) => RAID.into(),
            4 => DISK.into(),
            _ => "gpu".into(),
        },
        domains: [
            Domain { kind: DomainKind::Site, name: "sim".into() },
            Domain { kind: DomainKind::Rack, name: rack },
            Domain { kind: DomainKind::Pool, name: "gpu".into() },
        ]
        .into(),
        labels: Default::default(),
        bmc: Default::default(),
        host: HostEndpoint { host_key: host_key.map(Into::into), ..HostEndpoint::default() },
    }
}

/// A baseboard's BMC as the inventory states it.
pub fn controller(name: &str, serial: &str) -> Further {
    Further {
        name: name.into(),
        kind: FurtherKind::Hgx,
        url: "https://hgx.invalid".into(),
        credential: "hgx".into(),
        tls: "ca".into(),
        serial: Some(serial.into()),
        barred: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::physics::BASEBOARD;
    use crate::steps::Step;

    #[test]
    fn the_shipped_workflow_has_every_step_kind_and_the_catalog_its_set() {
        let workflow = gpu_node().unwrap();
        for kind in Step::KINDS {
            assert!(workflow.steps.iter().any(|s| s.step.kind() == kind), "{kind}");
        }
        let site = site();
        let set = &site.catalog.families[0].sets["2026.11"];
        assert_eq!(set.firmware.len(), 2);
        let found = config::catalog::parse("firmware-catalog", &families(), &|_| true).1;
        assert_eq!(config::render(&found), "");
        let hgx = &site.catalog.families[1].sets["2026.11"].firmware;
        let there = hgx.iter().filter(|fw| fw.controller() == Some(BASEBOARD)).count();
        assert_eq!((hgx.len(), there), (4, 2));
        assert!(site.profiles.values().all(|p| site.workflows.contains_key(&p.workflow)));
    }
}
