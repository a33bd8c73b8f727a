//! Words about images.

use crate::model::installer::InstallerKind;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Image {
    /// Says where the images are; without the file they are in `images` beside it
    #[arg(long, global = true, default_value = "farrier.toml", value_name = "FILE")]
    pub config: PathBuf,
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Build the deploy ramdisk from Debian's packages; nothing is installed
    ///
    /// Packages come from this machine's own apt sources. The same packages give the same bytes.
    BuildRamdisk(BuildRamdisk),
    /// Take in a disk image (raw, raw.zst or qcow2), or an installer's kernel and initrd
    Add(Add),
    /// The ramdisk and the images that are there
    List,
    /// Read images again: are they what was taken in?
    Verify {
        /// [default: all]
        id: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct Add {
    /// With --installer: the directory with the kernel and the initrd
    pub file: PathBuf,
    /// What profiles call it
    #[arg(long)]
    pub id: String,
    /// Put it in the place of the image that has this id
    #[arg(long)]
    pub replace: bool,
    /// It is an installer, and takes this seed: `autoinstall` or `debian-preseed`
    #[arg(long, value_name = "KIND", value_parser = installer_kind)]
    pub installer: Option<InstallerKind>,
    /// For an installer's kernel, like console=ttyS0
    #[arg(long, value_name = "WORDS", default_value = "", requires = "installer")]
    pub kernel_arguments: String,
    /// Debian's archive as machines reach it, like `http://mirror.example/debian`
    #[arg(long, value_name = "URL", requires = "installer")]
    pub mirror: Option<String>,
    /// What debian-installer installs
    #[arg(long, default_value = "stable", requires = "installer")]
    pub suite: String,
    /// The kernel that debian-installer installs
    #[arg(
        long,
        default_value = "linux-image-amd64",
        value_name = "PACKAGE",
        requires = "installer"
    )]
    pub kernel_package: String,
}

fn installer_kind(text: &str) -> Result<InstallerKind, String> {
    let known = InstallerKind::ALL.map(InstallerKind::name).join("` or `");
    InstallerKind::from_name(text).ok_or_else(|| format!("`{known}`"))
}

#[derive(Debug, Args)]
pub struct BuildRamdisk {
    /// Where it goes [default: farrier-ramdisk below the images]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Ubuntu: linux-image-generic. A cloud kernel has no drivers for real hardware
    #[arg(long, default_value = "linux-image-amd64", value_name = "PACKAGE")]
    pub kernel_package: String,
    /// Take along the firmware of this package, for cards that do not work without; may be repeated
    #[arg(long, value_name = "PACKAGE")]
    pub firmware_package: Vec<String>,
    /// Where fetched packages are kept [default: farrier/ramdisk-packages in the user's cache]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}
