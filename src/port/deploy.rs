//! The order to write an operating system to a machine's disk, from within the deploy ramdisk.

use super::Secret;
use crate::model::deploy::{ImageFormat, RootDisk};
use std::sync::Arc;

/// What the deploy job is told. It goes to the host over the pinned SSH session, never through a
/// boot script or a seed.
#[derive(Clone, Debug)]
pub struct DeployOrder {
    /// Image id, for the mark on the disk.
    pub image: String,
    /// The run that deploys, for the mark on the disk.
    pub run: String,
    /// Where the ramdisk fetches the image; the server answers Range requests.
    pub image_url: String,
    pub format: ImageFormat,
    /// Of the bytes as served, lower-case hex.
    pub sha256: String,
    /// Bytes as served.
    pub size: u64,
    /// Bytes as they lie on the disk.
    pub raw_size: u64,
    pub root: RootDisk,
    /// Overwrite a disk that holds what no run of ours wrote.
    pub allow_existing_data: bool,
    /// Files of the NoCloud volume (label `CIDATA`) that is made behind the image.
    pub seed: Vec<SeedFile>,
}

/// What is wanted of a deployment: the boot server makes a [`DeployOrder`] of it, with the address and
/// the digest of its image and the seed for this machine.
#[derive(Clone, Debug)]
pub struct DeployRequest {
    pub name: Arc<str>,
    /// The run whose boot window is open.
    pub run: String,
    pub image: String,
    /// The public host key that is pinned: the order is refused when the window has another one.
    pub host_key: String,
    pub root: RootDisk,
    pub allow_existing_data: bool,
    /// Public SSH keys besides Farrier's own.
    pub authorized_keys: Vec<String>,
    /// Whose templates count before the image's.
    pub profile: Arc<str>,
    /// `network-config` of the installed system; none: it does what its image does by itself.
    pub network: Option<String>,
}

/// One file of the seed volume.
#[derive(Clone, Debug)]
pub struct SeedFile {
    /// Plain file name: `user-data`, `meta-data`, `network-config`.
    pub name: String,
    /// May hold a host's private key.
    pub content: Secret,
}
