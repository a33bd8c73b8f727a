//! The words of `farrier bmc`: one BMC at a person's hand, without a daemon.

use crate::model::action::{BootTarget, PowerOp};
use clap::{Args, Subcommand, ValueEnum};

/// Everything that follows `farrier bmc`.
#[derive(Debug, Subcommand)]
pub enum Words {
    #[command(flatten)]
    Alone(BmcCommand),
    /// For machines that the daemon knows.
    #[command(flatten)]
    Site(super::args::BmcCommand),
}

/// What needs no daemon.
#[derive(Debug)]
pub struct Bmc {
    pub command: BmcCommand,
}

#[derive(Debug, Subcommand)]
pub enum BmcCommand {
    /// Everything that the machine's inventory would hold, and what was odd while reading it
    Inspect(At),
    /// See the power, or change it
    Power {
        #[command(flatten)]
        at: At,
        op: Option<Power>,
        #[command(flatten)]
        sure: Sure,
    },
    /// See what the machine boots from next, or set it for one boot
    Boot {
        #[command(flatten)]
        at: At,
        target: Option<Boot>,
        #[command(flatten)]
        sure: Sure,
    },
    /// See the virtual drives, or show the host an image in one
    Media {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        sure: Sure,
        #[command(subcommand)]
        change: Option<MediaChange>,
    },
    /// See the BIOS settings, or change some with the next boot
    Bios {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        sure: Sure,
        /// Only names that contain this
        #[arg(long, value_name = "TEXT")]
        like: Option<String>,
        #[command(subcommand)]
        change: Option<BiosChange>,
    },
    /// See the RAID volumes, or make one, as a volume to boot from
    Volume {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        sure: Sure,
        #[command(subcommand)]
        change: Option<VolumeChange>,
    },
    /// The newest lines of every log
    Log {
        #[command(flatten)]
        at: At,
        /// So many of each log
        #[arg(long, default_value_t = 20, value_name = "LINES")]
        last: usize,
    },
    /// The firmware inventory
    Firmware(At),
    /// Power, temperatures, fans, voltages, leaks
    Sensors(At),
    /// What this model and firmware can do, without any identity: a report to be shared
    Qualify(At),
}

impl BmcCommand {
    pub fn at(&self) -> &At {
        match self {
            BmcCommand::Inspect(at)
            | BmcCommand::Firmware(at)
            | BmcCommand::Sensors(at)
            | BmcCommand::Qualify(at)
            | BmcCommand::Power { at, .. }
            | BmcCommand::Boot { at, .. }
            | BmcCommand::Media { at, .. }
            | BmcCommand::Bios { at, .. }
            | BmcCommand::Volume { at, .. }
            | BmcCommand::Log { at, .. } => at,
        }
    }
}

/// Which BMC, and how it is trusted. User and password come from `FARRIER_BMC_USER` and
/// `FARRIER_BMC_PASSWORD`, or are asked for.
#[derive(Clone, Debug, Args)]
pub struct At {
    /// Name or address; https is meant where it has no scheme
    pub address: String,
    /// How the BMC proves itself: `ca`, `off`, or `sha256:<64 hex digits>` of its certificate
    #[arg(long, global = true, default_value = "ca", value_name = "POLICY")]
    pub tls: String,
    /// The serial of the system that is meant, where one address has several
    #[arg(long, global = true)]
    pub serial: Option<String>,
    /// The same by UUID
    #[arg(long, global = true)]
    pub uuid: Option<String>,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Sure {
    /// Do it without asking
    #[arg(long, short, global = true)]
    pub yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Power {
    On,
    /// Ask the operating system to shut down
    Off,
    /// Cut the power
    ForceOff,
    /// Reset without asking the operating system
    Restart,
    /// Cut all power, the BMC's too, and give it back: only with the host off
    AcCycle,
}

impl Power {
    /// `None`: it is no change of the host's power.
    pub fn op(self) -> Option<PowerOp> {
        match self {
            Power::On => Some(PowerOp::On),
            Power::Off => Some(PowerOp::GracefulShutdown),
            Power::ForceOff => Some(PowerOp::ForceOff),
            Power::Restart => Some(PowerOp::ForceRestart),
            Power::AcCycle => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Boot {
    /// Network, by PXE
    Pxe,
    /// Network, by UEFI HTTP
    Http,
    /// Optical drive, as virtual media is
    Cd,
    Disk,
    /// No override: the boot order
    None,
}

impl From<Boot> for BootTarget {
    fn from(word: Boot) -> Self {
        match word {
            Boot::Pxe => BootTarget::Pxe,
            Boot::Http => BootTarget::UefiHttp,
            Boot::Cd => BootTarget::Cd,
            Boot::Disk => BootTarget::Disk,
            Boot::None => BootTarget::None,
        }
    }
}

#[derive(Clone, Debug, Subcommand)]
pub enum MediaChange {
    /// Put an image into a virtual drive; what it holds is taken out first
    Insert {
        /// Where the BMC fetches it: plain, short, no query
        url: String,
        /// Which kind of drive
        #[arg(long, default_value = "CD")]
        kind: String,
    },
    /// Empty every virtual drive
    Eject,
}

#[derive(Clone, Debug, Subcommand)]
pub enum BiosChange {
    /// Settings that are to hold from the next boot on
    Set {
        #[arg(value_name = "NAME=VALUE", required = true)]
        settings: Vec<String>,
    },
    /// UEFI Secure Boot from the next boot on
    SecureBoot { state: OnOff },
}

#[derive(Clone, Debug, Subcommand)]
pub enum VolumeChange {
    /// Make a volume; what its drives hold is lost. One that is there with these drives is left as it is
    Create {
        /// As the controller calls it: RAID1, …
        #[arg(long, value_name = "LEVEL")]
        raid: String,
        /// Serial of a drive, as `inspect` shows it; given once for each
        #[arg(long = "drive", value_name = "SERIAL", required = true)]
        drives: Vec<String>,
        #[arg(long, default_value = "boot")]
        name: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    On,
    Off,
}
