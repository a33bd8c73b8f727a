//! What the engine knows of the site besides its machines: limits, profiles, workflows, catalog.
//! Built from files by `config`; swapped whole on reload.

use super::catalog::Catalog;
use super::remediation::Remediation;
use super::settings::Settings;
use super::workflow::Workflow;
use crate::model::Limit;
use crate::model::deploy::{BootMethod, RootDisk};
use crate::model::storage::BootVolume;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the machines of a pool should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    pub name: Arc<str>,
    /// Hash of the current workflow.
    pub workflow: Arc<str>,
    /// Approved firmware set; none = leave firmware alone.
    pub firmware_set: Option<String>,
    /// OS image id.
    pub image: Option<String>,
    /// Name of the cluster provider.
    pub cluster: Option<String>,
    /// GPUs a machine must show.
    pub gpus: u16,
    /// Which disk gets the image, which then is a disk image written by the deploy ramdisk. None: the
    /// image is an installer that does it all by itself.
    pub root_disk: Option<RootDisk>,
    /// The image is an installer all the same, and what it calls back is believed: nothing proves it but
    /// a token that went over HTTP.
    pub trust_installer: bool,
    /// Ways to boot what Farrier serves, the first one first; none = PXE.
    pub boot: Vec<BootMethod>,
    /// What its BIOS is to be set to.
    pub bios: Settings,
    /// The volume of a RAID controller that the image is written to; `root_disk` fits it as the host sees
    /// it.
    pub boot_volume: Option<BootVolume>,
    /// Public SSH keys that an installed system takes besides Farrier's own.
    pub authorized_keys: Vec<String>,
}

/// Everything a decision may read besides the machine.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Eight hex digits of the database's incarnation: part of every name Farrier leaves outside.
    pub incarnation: Arc<str>,
    pub limits: Vec<Limit>,
    pub profiles: BTreeMap<Arc<str>, Arc<Profile>>,
    /// By hash: the current ones and those that running runs are pinned to.
    pub workflows: BTreeMap<Arc<str>, Arc<Workflow>>,
    pub catalog: Catalog,
    /// Quarantines within `breaker_window_ms` that stop all destructive actions; 0 = off.
    pub breaker_quarantines: u32,
    pub breaker_window_ms: u64,
    pub remediation: Remediation,
}
