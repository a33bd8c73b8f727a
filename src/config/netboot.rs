//! `[listen.dhcp]`, `[listen.tftp]` and `[loaders]`: how machines that boot from the network are
//! answered.

use super::book::Place;
use super::table::Table;
use crate::model::network::Subnet;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// How DHCP is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpMode {
    /// Beside the site's own DHCP server: only what to boot.
    Proxy,
    /// As the network's DHCP server, for machines of the inventory.
    Reservation,
}

/// `[listen.dhcp]` that is not `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dhcp {
    pub mode: DhcpMode,
    /// Interfaces by name.
    pub interfaces: Vec<String>,
    /// Machines that are not in the inventory are kept for `farrier discover seen`.
    pub list_unknown: bool,
    pub lease_s: u32,
}

/// `[listen.tftp]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tftp {
    pub bind: Vec<SocketAddr>,
}

/// `[loaders]`: where boot loaders lie and which is for whom. What is empty or missing is as it ships.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaders {
    pub paths: Vec<PathBuf>,
    /// By `bios`, `x64`, `arm64`.
    pub names: BTreeMap<&'static str, String>,
    pub also: Vec<String>,
}

/// What one rack may fetch from the boot listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RackLimits {
    /// Files at once.
    pub files: usize,
    pub mbit_per_s: Option<u32>,
}

impl Default for RackLimits {
    fn default() -> Self {
        Self { files: 16, mbit_per_s: None }
    }
}

/// `rack_files` and `rack_mbit_per_s` of `[listen.boot]`.
pub(super) fn rack_limits(t: &mut Table<'_, '_>) -> RackLimits {
    let files = t.integer("rack_files", 1..10_001).and_then(|n| usize::try_from(n).ok());
    let rate = t.integer("rack_mbit_per_s", 1..1_000_001).and_then(|n| u32::try_from(n).ok());
    RackLimits { files: files.unwrap_or(RackLimits::default().files), mbit_per_s: rate }
}

pub(super) fn dhcp(table: Option<Table<'_, '_>>) -> (Option<Dhcp>, Option<Place>) {
    let Some(mut t) = table else { return (None, None) };
    let modes = [
        ("off", None),
        ("proxy", Some(DhcpMode::Proxy)),
        ("reservation", Some(DhcpMode::Reservation)),
    ];
    let mode = t.need_choice("mode", &modes);
    let interfaces: Vec<String> = t
        .texts("interfaces")
        .into_iter()
        .filter_map(|text| {
            // The kernel's own rule (dev_valid_name).
            let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
            if text.value.len() < 16 && text.value.chars().all(fits) {
                return Some(text.value.to_string());
            }
            t.error(text.at, format!("`{}` is not the name of an interface", text.value))
                .hint("`ip link` shows their names");
            None
        })
        .collect();
    let unknown = t.choice("unknown", &[("refuse", false), ("list", true)]);
    let lease = t.span("lease");
    let lease_s = lease.map_or(3600, |(span, at)| {
        let seconds = u32::try_from(span.0 / 1000).unwrap_or(u32::MAX);
        if !(120..=30 * 86_400).contains(&seconds) {
            t.error(at, "`lease` must be from 2m to 30d").hint("`1h` is usual");
        }
        seconds
    });
    let at = t.at;
    if matches!(mode, Some(Some(_))) && t.lacks("interfaces") {
        t.missing("interfaces");
    }
    t.done();
    let dhcp = mode.flatten().map(|mode| Dhcp {
        mode,
        interfaces,
        list_unknown: unknown.unwrap_or(false),
        lease_s,
    });
    (dhcp, Some(at))
}

pub(super) fn tftp(table: Option<Table<'_, '_>>) -> Option<Tftp> {
    let mut t = table?;
    let mut bind = Vec::new();
    for text in t.texts("bind") {
        // The port is nearly always the same one.
        let plain = text.value.parse().map(|ip: std::net::IpAddr| SocketAddr::new(ip, 69));
        match text.value.parse().or(plain) {
            Ok(address) => bind.push(address),
            Err(_) => {
                t.error(text.at, format!("`{}` is not an address", text.value))
                    .hint("write one like `10.30.0.2` or `10.30.0.2:69`");
            }
        }
    }
    if t.lacks("bind") {
        t.missing("bind");
    }
    t.done();
    Some(Tftp { bind })
}

pub(super) fn loaders(table: Option<Table<'_, '_>>, base: &Path) -> Loaders {
    let Some(mut t) = table else { return Loaders::default() };
    let mut out = Loaders {
        paths: t.texts("paths").iter().map(|p| base.join(p.value)).collect(),
        ..Loaders::default()
    };
    let plain = |name: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
        !name.starts_with('.') && name.len() <= 100 && name.chars().all(fits)
    };
    for key in ["bios", "x64", "arm64"] {
        if let Some(text) = t.text(key) {
            if plain(text.value) {
                out.names.insert(key, text.value.to_string());
            } else {
                t.error(text.at, format!("`{}` is not a plain file name", text.value))
                    .hint("directories stand in `paths`");
            }
        }
    }
    for text in t.texts("also") {
        if plain(text.value) {
            out.also.push(text.value.to_string());
        } else {
            t.error(text.at, format!("`{}` is not a plain file name", text.value))
                .hint("directories stand in `paths`");
        }
    }
    t.done();
    out
}

/// Does this subnet have addresses that DHCP can give?
pub(super) fn is_v4(subnet: &Subnet) -> bool {
    subnet.netmask().is_some()
}
