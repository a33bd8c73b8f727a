//! `[[network]]`, and `[[profile.nic]]`: the networks of a site, and how an installed system is in
//! them.

use super::{Inventory, Network, Purpose};
use crate::config::book::{Book, Place};
use crate::config::names::dangling;
use crate::config::table::{Table, Text};
use crate::model::network::{AddressRange, Addressing, BondMode, Lan, Nic, Port, Subnet};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// A network as read, with the place of its subnet.
pub(super) fn network(t: &mut Table<'_, '_>, name: Option<String>) -> Option<(Network, Place)> {
    let purposes =
        [("bmc", Purpose::Bmc), ("provision", Purpose::Provision), ("data", Purpose::Data)];
    let purpose = t.need_choice("purpose", &purposes);
    let text = t.need_text("subnet");
    let subnet: Option<Subnet> = text.and_then(|text| read(t, text));
    let gateway = t.text("gateway").and_then(|g| Some((read::<IpAddr>(t, g)?, g.at)));
    let relay: Vec<Ipv4Addr> = t.texts("relay").iter().filter_map(|a| read(t, *a)).collect();
    let range = t.text("range").and_then(|r| Some((read::<AddressRange>(t, r)?, r.at)));
    let dns = t.texts("dns").iter().filter_map(|a| read(t, *a)).collect();
    let ntp = t.texts("ntp").iter().filter_map(|a| read(t, *a)).collect();
    // IPv4 needs 68 (RFC 791); 65535 is the loopback's.
    let mtu = t.integer("mtu", 68..65_536).and_then(|n| u16::try_from(n).ok());
    let vlan = t.integer("vlan", 1..4095).and_then(|n| u16::try_from(n).ok());
    let domain = t.text("domain").and_then(|d| domain(t, d));
    let (name, purpose, subnet, at) = (name?, purpose?, subnet?, text?.at);
    let gateway = gateway.filter(|(address, at)| {
        let inside = subnet.is_host(*address);
        if !inside {
            t.error(*at, format!("`{address}` is no host's address in `{subnet}`"))
                .hint("the gateway is the router's address in this network");
        }
        inside
    });
    let range = range.filter(|(range, at)| check_range(t, *range, *at, &subnet));
    if let (Some((range, at)), Some((IpAddr::V4(gateway), _))) = (range, gateway)
        && range.contains(gateway)
    {
        t.error(at, format!("the gateway `{gateway}` lies in the range"))
            .hint("the range is given to machines");
    }
    let lan = Lan {
        gateway: gateway.map(|g| g.0),
        relay,
        range: range.map(|r| r.0),
        dns,
        ntp,
        mtu,
        vlan,
        domain,
        ..Lan::new(&name, subnet)
    };
    let range_at = range.map_or(at, |r| r.1);
    Some((Network { name, purpose, subnet, lan: Arc::new(lan), range_at }, at))
}

fn check_range(t: &Table<'_, '_>, range: AddressRange, at: Place, subnet: &Subnet) -> bool {
    for end in [range.first, range.last] {
        if !subnet.is_host(end.into()) {
            t.error(at, format!("`{end}` is no host's address in `{subnet}`"))
                .hint("a range lies inside its subnet, without its first and last address");
            return false;
        }
    }
    true
}

fn read<T: std::str::FromStr>(t: &Table<'_, '_>, text: Text<'_>) -> Option<T>
where
    T::Err: ToString,
{
    match text.value.parse() {
        Ok(found) => Some(found),
        Err(why) => {
            let why = match why.to_string() {
                // The standard library does not say which text it was.
                plain if !plain.contains('`') => format!("`{}` is not an address", text.value),
                why => why,
            };
            t.error(text.at, why);
            None
        }
    }
}

/// A DNS name: it ends up in options and files.
fn domain(t: &Table<'_, '_>, text: Text<'_>) -> Option<String> {
    let label = |l: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (1..=63).contains(&l.len()) && l.chars().all(fits)
    };
    if text.value.len() <= 253 && text.value.split('.').all(label) {
        return Some(text.value.to_string());
    }
    t.error(text.at, format!("`{}` is not a domain", text.value))
        .hint("write one like `cluster.example.net`");
    None
}

/// The relay addresses of all networks: one address means one network.
pub(super) fn check_relays(book: &Book<'_>, inv: &Inventory) {
    let mut first: BTreeMap<Ipv4Addr, &str> = BTreeMap::new();
    for network in &inv.networks {
        for relay in &network.lan.relay {
            let inside = inv.networks.iter().find(|n| n.subnet.contains((*relay).into()));
            let other = match inside {
                Some(n) if n.name != network.name => Some(n.name.as_str()),
                _ => first.insert(*relay, &network.name).filter(|n| *n != network.name),
            };
            if let Some(other) = other {
                book.error(
                    network.range_at,
                    format!(
                        "the relay `{relay}` of network `{}` means network `{other}` too",
                        network.name
                    ),
                )
                .hint("a relay's address tells from which network a request comes");
            }
        }
    }
}

/// Addresses of machines lie outside of the ranges that others are served from.
pub(super) fn check_hosts(book: &Book<'_>, inv: &Inventory) {
    for network in &inv.networks {
        let Some(range) = network.lan.range else { continue };
        let inside = |text: &str| match crate::config::url::address_of(text) {
            Some(IpAddr::V4(a)) if range.contains(a) => Some(a),
            _ => None,
        };
        let mut found = inv.machines.iter().filter_map(|m| {
            let mut further = m.bmc.controllers.iter();
            let at = inside(&m.host.address).or_else(|| inside(&m.bmc.url));
            let at = at.or_else(|| further.find_map(|c| inside(&c.url)));
            at.map(|address| (m.name.clone(), address))
        });
        if let Some((name, address)) = found.next() {
            let more = match found.count() {
                0 => String::new(),
                n => format!(" (and those of {n} more machines)"),
            };
            book.error(
                network.range_at,
                format!(
                    "the address `{address}` of `{name}`{more} lies in the range of network `{}`",
                    network.name
                ),
            )
            .hint("the range is for machines without an address of their own: make it smaller");
        }
    }
}

/// A profile's interface, with the place of the network's name.
#[derive(Clone, Debug)]
pub(in crate::config) struct PlacedNic {
    pub(in crate::config) nic: Nic,
    pub(in crate::config) at: Place,
}

/// The interfaces of `[[profile.nic]]`.
pub(super) fn nics(t: &mut Table<'_, '_>) -> Vec<PlacedNic> {
    let mut out: Vec<PlacedNic> = Vec::new();
    for mut n in t.tables("nic") {
        if let Some(found) = nic(&mut n) {
            if out.iter().any(|other| other.nic.name == found.nic.name) {
                n.error(found.at, format!("interface `{}` is there twice", found.nic.name));
            }
            out.push(found);
        }
        n.done();
    }
    out
}

fn nic(t: &mut Table<'_, '_>) -> Option<PlacedNic> {
    let name = t.need_text("name");
    if let Some(name) = name {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        // `bond0p1` and `bond0.4094` must be names too (IFNAMSIZ is 16).
        if name.value.len() > 10 || !name.value.chars().all(fits) {
            t.error(name.at, format!("`{}` is not a usable interface name", name.value))
                .hint("at most 10 letters, digits, `-` and `_`");
        }
    }
    let words = t.texts("port");
    let ports: Vec<Port> = words
        .iter()
        .filter_map(|text| match text.value {
            "boot" => Some(Port::Boot),
            other if other.chars().all(|c| c.is_ascii_alphanumeric() || "-_.*".contains(c)) => {
                Some(Port::Named(other.into()))
            }
            other => {
                t.error(text.at, format!("`{other}` names no port"))
                    .hint("`boot`, or the kernel's name of the port like `enp129s0f1np1`");
                None
            }
        })
        .collect();
    if t.lacks("port") {
        t.missing("port");
    } else if words.is_empty() {
        t.error(t.at, "`port` names no port")
            .hint("`boot`, or the kernel's name of the port like `enp129s0f1np1`");
    }
    let bond = t.choice("bond", &BondMode::ALL.map(|m| (m.name(), m)));
    if bond.is_none() && t.lacks("bond") && ports.len() > 1 {
        t.error(t.at, "several ports are one interface only in a bond")
            .hint("add `bond = \"active-backup\"` or `\"802.3ad\"`, or an interface for each port");
    }
    let network = t.text("network");
    let tagged = t.boolean("tagged").unwrap_or(false);
    let ways =
        [("dhcp", Addressing::Dhcp), ("static", Addressing::Static), ("none", Addressing::None)];
    let addressing = t.choice("address", &ways);
    let nic = Nic {
        name: name?.value.to_string(),
        ports,
        bond,
        network: network.map(|n| n.value.into()),
        tagged,
        addressing: addressing.unwrap_or_default(),
    };
    Some(PlacedNic { nic, at: network.map_or(t.at, |n| n.at) })
}

/// Interfaces against networks and against the machines of their profile.
pub(super) fn check_nics(book: &Book<'_>, inv: &Inventory) {
    for (name, profile) in &inv.profiles {
        // Made from a pool's own cluster: its base was looked at.
        if name.contains('@') {
            continue;
        }
        for PlacedNic { nic, at } in &profile.nics {
            let Some(wanted) = &nic.network else { continue };
            let Some(network) = inv.networks.iter().find(|n| *n.name == **wanted) else {
                if !inv.broken {
                    dangling(book, *at, "network", wanted, inv.networks.iter().map(|n| &*n.name));
                }
                continue;
            };
            if nic.tagged && network.lan.vlan.is_none() {
                book.error(*at, format!("network `{wanted}` has no `vlan` to tag with"))
                    .hint("add `vlan` to the network, or drop `tagged`");
            }
            if nic.addressing != Addressing::Static {
                continue;
            }
            if network.subnet.netmask().is_none() {
                book.error(*at, format!("interface `{}` is static, and network `{wanted}` is not IPv4", nic.name))
                    .hint("`static` is for IPv4 so far; `address = \"none\"` leaves the interface to router advertisements");
            } else if network.lan.range.is_none()
                && let Some(machine) = homeless(inv, name, network)
            {
                book.error(*at, no_address(nic, &machine.name, wanted))
                    .hint("give the machine its address, or the interface `address = \"dhcp\"`");
            }
        }
        check_names(book, &profile.nics);
    }
}

/// One name is one interface, members of bonds included; one network gives a machine one address.
fn check_names(book: &Book<'_>, nics: &[PlacedNic]) {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for PlacedNic { nic, at } in nics {
        let is_static = nic.addressing == Addressing::Static;
        if let Some(network) = nic.network.as_deref().filter(|_| is_static)
            && let Some(other) = seen.insert(network, &nic.name)
        {
            book.error(
                *at,
                format!("`{other}` and `{}` are both static in network `{network}`", nic.name),
            )
            .hint("a machine has one address in a network: bond the two, or leave one without");
        }
        let is_member = |bond: &Nic| {
            let number = nic.name.strip_prefix(&*bond.name).and_then(|n| n.strip_prefix('p'));
            let number = number.and_then(|n| n.parse::<usize>().ok());
            bond.bond.is_some() && number.is_some_and(|n| n < bond.ports.len())
        };
        if let Some(bond) = nics.iter().find(|other| is_member(&other.nic)) {
            book.error(
                *at,
                format!("`{}` is the name of a member of `{}`", nic.name, bond.nic.name),
            )
            .hint("members of a bond are called after it: `bond0p0`, `bond0p1`");
        }
    }
}

fn no_address(nic: &Nic, machine: &str, network: &str) -> String {
    format!(
        "interface `{}` is static, and `{machine}` has no `host.address` in network `{network}`",
        nic.name
    )
}

/// A machine of this profile without an address in this network.
fn homeless<'i>(
    inv: &'i Inventory,
    profile: &str,
    network: &Network,
) -> Option<&'i Arc<crate::model::Expected>> {
    inv.machines.iter().find(|m| {
        let of = m.profile.split('@').next() == Some(profile);
        let address = crate::config::url::address_of(&m.host.address);
        of && !address.is_some_and(|a| network.subnet.contains(a))
    })
}

/// Static interfaces whose address would come out of a range: only our own DHCP server gives those.
pub(in crate::config) fn check_leased_nics(book: &Book<'_>, inv: &Inventory, gives: bool) {
    let profiles = inv.profiles.iter().filter(|(name, _)| !gives && !name.contains('@'));
    for (name, PlacedNic { nic, at }) in
        profiles.flat_map(|(name, p)| p.nics.iter().map(move |nic| (name, nic)))
    {
        let network = inv.networks.iter().find(|n| Some(&*n.name) == nic.network.as_deref());
        if nic.addressing == Addressing::Static
            && let Some(network) =
                network.filter(|n| n.lan.range.is_some() && n.subnet.netmask().is_some())
            && let Some(machine) = homeless(inv, name, network)
        {
            book.error(*at, no_address(nic, &machine.name, &network.name)).hint(
                "give the machine its address, or the interface `address = \"dhcp\"`; addresses out \
                 of a `range` are given only with `[listen.dhcp] mode = \"reservation\"`",
            );
        }
    }
}
