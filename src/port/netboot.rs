//! What the edges that bring a machine to boot from the network (DHCP, TFTP, the boot server) need
//! of each other and of the site.

use crate::model::MachineId;
use crate::model::network::{Lan, Mac};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

/// What a machine that boots now is to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetbootPlan {
    pub machine: MachineId,
    pub name: Arc<str>,
    /// Where this host reaches the boot listener, without a slash at the end.
    pub base_url: String,
}

/// Knows which machines are waited for: the boot server and its windows.
#[async_trait]
pub trait Netboot: Send + Sync {
    /// `None`: no run waits for this machine, so it is to boot what it has.
    async fn boot_of(&self, mac: Mac) -> Option<NetbootPlan>;
    /// A host with the MAC of a machine that is waited for states another UUID than that machine's,
    /// and got nothing to boot: who waits is told at once. `stated` is as
    /// [`clean_uuid`](crate::model::identity::clean_uuid) spells it.
    async fn other_asked(&self, mac: Mac, stated: &str);
}

/// A machine of the inventory, as far as its address goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    pub machine: MachineId,
    pub name: Arc<str>,
    /// The inventory's `host.address`, where it is an IPv4 address.
    pub address: Option<Ipv4Addr>,
    /// As the inventory spells it, where it knows it.
    pub uuid: Option<String>,
    pub rack: Arc<str>,
}

/// All machines by boot MAC.
#[derive(Clone, Debug, Default)]
pub struct Residents {
    pub by_mac: BTreeMap<Mac, Resident>,
    /// Every address that the inventory gives to a machine: never another one's.
    pub addresses: BTreeSet<Ipv4Addr>,
}

/// Knows networks and machines; both change with a reload.
#[async_trait]
pub trait Roster: Send + Sync {
    /// The networks in which hosts may be served.
    async fn lans(&self) -> Arc<[Lan]>;
    /// Machines as they were a moment ago. With a MAC that is not among them they are read anew,
    /// though not for each one.
    async fn residents(&self, wanted: Mac) -> Arc<Residents>;
}

/// Gives addresses for good, one a MAC in each network: this daemon's DHCP server, where it is the
/// network's own.
#[async_trait]
pub trait Lessor: Send + Sync {
    /// The one that this MAC has in this network; durable.
    fn lease_of(&self, network: &str, mac: Mac) -> Option<Ipv4Addr>;
    /// The same, or else a free one of the network's range, durable when it returns.
    ///
    /// # Errors
    /// A sentence for a person: the range is used up, or the lease can't be kept.
    async fn lease(&self, lan: &Lan, mac: Mac) -> Result<Ipv4Addr, String>;
}

/// May who has this address load a boot loader? A machine that no run waits for may not; one that
/// nobody knows may: loaders hold no secret.
#[async_trait]
pub trait LoaderGate: Send + Sync {
    async fn may_load(&self, from: Ipv4Addr) -> bool;
}

/// In which rack is the machine with this address? `None`: nobody knows it.
#[async_trait]
pub trait Racks: Send + Sync {
    async fn rack_of(&self, from: IpAddr) -> Option<Arc<str>>;
}

/// What kind of firmware runs a loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Firmware {
    /// PC BIOS.
    Bios,
    /// UEFI, x86-64.
    X64,
    /// UEFI, 64-bit ARM.
    Arm64,
}

impl Firmware {
    pub const ALL: [Firmware; 3] = [Firmware::Bios, Firmware::X64, Firmware::Arm64];

    pub fn name(self) -> &'static str {
        match self {
            Firmware::Bios => "bios",
            Firmware::X64 => "x64",
            Firmware::Arm64 => "arm64",
        }
    }
}

/// The boot loaders of the operator's distribution: where they lie, and which one is for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaders {
    /// Searched in this order.
    pub dirs: Vec<PathBuf>,
    /// File name for each kind of firmware.
    pub names: BTreeMap<Firmware, String>,
    /// Other files that loaders fetch by themselves (a shim's second stage).
    pub also: Vec<String>,
}

impl Default for Loaders {
    /// Debian's `ipxe`, `shim-signed` and `grub-efi-amd64-signed`.
    fn default() -> Self {
        let dirs = ["/usr/lib/ipxe", "/usr/lib/shim", "/usr/lib/grub/x86_64-efi-signed"];
        let names = [
            (Firmware::Bios, "undionly.kpxe"),
            (Firmware::X64, "snponly.efi"),
            (Firmware::Arm64, "snponly-arm64.efi"),
        ];
        let also = ["ipxe.efi", "shimx64.efi.signed", "grubnetx64.efi.signed"];
        Self {
            dirs: dirs.into_iter().map(PathBuf::from).collect(),
            names: names.into_iter().map(|(f, n)| (f, n.to_string())).collect(),
            also: also.map(String::from).to_vec(),
        }
    }
}

impl Loaders {
    /// Is that the plain name of a loader? Nothing else is ever opened.
    pub fn knows(&self, name: &str) -> bool {
        is_plain(name)
            && (self.names.values().any(|n| n == name) || self.also.iter().any(|n| n == name))
    }

    /// Where a known loader may lie, in the order to look; nothing for another name.
    pub fn paths(&self, name: &str) -> Vec<PathBuf> {
        let known = self.knows(name);
        self.dirs.iter().filter(|_| known).map(|dir| dir.join(name)).collect()
    }
}

/// One file name, without a way to say another directory.
fn is_plain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loaders_have_paths() {
        let loaders = Loaders::default();
        assert_eq!(loaders.paths("snponly.efi").len(), 3);
        for bad in ["", "../snponly.efi", "/etc/passwd", "passwd", ".", "snponly.efi/", "a\0b"] {
            assert!(loaders.paths(bad).is_empty(), "{bad:?}");
        }
        let odd = Loaders { also: vec!["../x".into()], ..Loaders::default() };
        assert!(!odd.knows("../x"), "a name with a way in it is never known");
    }
}
