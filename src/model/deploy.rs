//! What a deployment writes, where, and how the machine is brought to boot for it.

use super::action::BootTarget;
use serde::{Deserialize, Serialize};

/// The image id of the deploy ramdisk itself: a boot window of it hands out the ramdisk, and no
/// operating system may be named so.
pub const RAMDISK: &str = "farrier-ramdisk";

/// How the bytes of a disk image are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageFormat {
    /// As they are to lie on the disk.
    Raw,
    /// The same, compressed with zstd.
    RawZst,
}

impl ImageFormat {
    pub fn name(self) -> &'static str {
        match self {
            ImageFormat::Raw => "raw",
            ImageFormat::RawZst => "raw-zst",
        }
    }
}

/// How a disk is attached, as far as it can be a root disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskKind {
    Nvme,
    /// SATA or SAS without moving parts.
    Ssd,
    /// SATA or SAS that turns.
    Hdd,
    /// A virtual machine's.
    Virtio,
    /// A volume of a RAID controller, as the host sees it.
    Raid,
}

impl DiskKind {
    pub const ALL: [DiskKind; 5] =
        [DiskKind::Nvme, DiskKind::Ssd, DiskKind::Hdd, DiskKind::Virtio, DiskKind::Raid];

    pub fn name(self) -> &'static str {
        match self {
            DiskKind::Nvme => "nvme",
            DiskKind::Ssd => "ssd",
            DiskKind::Hdd => "hdd",
            DiskKind::Virtio => "virtio",
            DiskKind::Raid => "raid",
        }
    }

    pub fn from_name(name: &str) -> Option<DiskKind> {
        DiskKind::ALL.into_iter().find(|k| k.name() == name)
    }
}

/// Which disk gets the operating system. All that is set must hold, and exactly one local disk must
/// fit (two for a mirror): any other number is a fault with the list, never a choice. There is no
/// `/dev` name in it, because the kernel gives those anew with each boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RootDisk {
    /// Name of a link below `/dev/disk/by-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The whole model, or its beginning when it ends with `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<DiskKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Two disks of one size fit, and an md mirror of them gets the image.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mirror: bool,
}

/// How a machine is brought to boot what Farrier serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootMethod {
    /// The firmware's PXE, then iPXE.
    Pxe,
    /// The firmware fetches the loader by HTTP (UEFI 2.5 §24.7).
    UefiHttp,
    /// An ISO in the BMC's virtual drive.
    VirtualMedia,
}

impl BootMethod {
    pub const ALL: [BootMethod; 3] =
        [BootMethod::Pxe, BootMethod::UefiHttp, BootMethod::VirtualMedia];

    pub fn name(self) -> &'static str {
        match self {
            BootMethod::Pxe => "pxe",
            BootMethod::UefiHttp => "uefi-http",
            BootMethod::VirtualMedia => "virtual-media",
        }
    }

    /// What the BMC is told to boot next.
    pub fn target(self) -> BootTarget {
        match self {
            BootMethod::Pxe => BootTarget::Pxe,
            BootMethod::UefiHttp => BootTarget::UefiHttp,
            BootMethod::VirtualMedia => BootTarget::Cd,
        }
    }

    pub fn from_name(name: &str) -> Option<BootMethod> {
        BootMethod::ALL.into_iter().find(|m| m.name() == name)
    }
}

/// One line of an OpenSSH `.pub` file: kind, key, perhaps a comment. Nothing before it: options would
/// run commands at a login, and nothing that a shell or a list of keys takes for more than text.
pub fn is_public_key(line: &str) -> bool {
    let mut words = line.splitn(3, ' ');
    let kind = words.next().is_some_and(|kind| KEY_KINDS.contains(&kind));
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let key = words
        .next()
        .is_some_and(|key| key.len() >= 60 && key.starts_with("AAAA") && key.chars().all(base64));
    let plain = |c: char| (c.is_ascii_graphic() || c == ' ') && !"\"\\".contains(c);
    kind && key && line.len() <= 8_192 && words.next().is_none_or(|c| c.chars().all(plain))
}

const KEY_KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_one_plain_line() {
        let key = format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{}", "a".repeat(43));
        for good in [key.clone(), format!("{key} ann@laptop"), format!("{key} ann of row 3")] {
            assert!(is_public_key(&good), "{good}");
        }
        for bad in [
            String::new(),
            "ssh-ed25519".into(),
            "ssh-ed25519 AAAA".into(),
            format!("command=\"rm\" {key}"),
            format!("{key}\nssh-rsa AAAA"),
            format!("{key} a\nb"),
            format!("{key} \"x\""),
            format!(" {key}"),
            key.replace("ssh-ed25519", "ssh-dss"),
            key.replace('I', "*"),
            "-----BEGIN OPENSSH PRIVATE KEY-----".into(),
            format!("{key} {}", "c".repeat(9_000)),
        ] {
            assert!(!is_public_key(&bad), "{bad}");
        }
    }
}
