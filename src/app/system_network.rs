//! The network of an installed system: from its profile's interfaces, the inventory's networks and the
//! addresses that this daemon's DHCP server has given.

use crate::boot::network_config::{Host, Lacking, network_config};
use crate::config::Loaded;
use crate::model::network::{Addressing, Lan, Mac, Nic, Port};
use crate::model::{Channel, Expected, Fault, FaultClass};
use crate::port::netboot::Lessor;
use std::net::{IpAddr, Ipv4Addr};

/// `network-config` of the machine's installed system. `None`: its profile has no `[[profile.nic]]`.
/// An interface that is static without a `host.address` gets an address of the network's range.
///
/// # Errors
/// What the profile asks for and this machine does not have; nothing was given or written then.
pub async fn system_network(
    loaded: &Loaded,
    machine: &Expected,
    mac: Option<&str>,
    lessor: Option<&dyn Lessor>,
) -> Result<Option<String>, Fault> {
    let Some(nics) = loaded.nics.get(&machine.profile) else { return Ok(None) };
    let mac = boot_mac(machine, mac);
    let mut addresses: Vec<Ipv4Addr> = own_address(machine).into_iter().collect();
    for nic in &**nics {
        if let (Some(lan), Some(lessor), Some(mac)) =
            (wants_lease(loaded, nic, &addresses), lessor, mac)
        {
            let given = lessor.lease(lan, mac).await.map_err(|why| {
                let what = format!("`{}` needs an address and gets none: {why}", machine.name);
                refused(what, "make the network's `range` larger, or give it a `host.address`")
            })?;
            addresses.push(given);
        }
    }
    let lans: Vec<Lan> = loaded.networks.iter().map(|n| (*n.lan).clone()).collect();
    let host = Host { name: &machine.name, mac, addresses: &addresses };
    let text = network_config(&host, nics, &lans);
    text.map(Some).map_err(|Lacking { what, hint }| refused(what, hint))
}

fn refused(what: String, hint: &str) -> Fault {
    Fault::new(FaultClass::Precondition, Channel::Boot, "no-system-network", what).hint(hint)
}

/// The network in which this interface is static, has a range, and none of these addresses lies.
fn wants_lease<'l>(loaded: &'l Loaded, nic: &Nic, addresses: &[Ipv4Addr]) -> Option<&'l Lan> {
    let lan = lan_of(loaded, nic).filter(|lan| lan.range.is_some())?;
    let has = addresses.iter().any(|a| lan.subnet.contains((*a).into()));
    (nic.addressing == Addressing::Static && !has).then_some(lan)
}

fn lan_of<'l>(loaded: &'l Loaded, nic: &Nic) -> Option<&'l Lan> {
    let name = nic.network.as_deref()?;
    loaded.networks.iter().map(|n| &*n.lan).find(|lan| *lan.name == *name)
}

/// The proven one, else the inventory's.
fn boot_mac(machine: &Expected, proven: Option<&str>) -> Option<Mac> {
    proven.or(machine.identity.mac.as_deref()).and_then(|m| m.parse().ok())
}

fn own_address(machine: &Expected) -> Option<Ipv4Addr> {
    match Loaded::address_of(&machine.host.address) {
        Some(IpAddr::V4(address)) => Some(address),
        _ => None,
    }
}

/// Where the installed system of a machine without a `host.address` is found: at the address that our
/// own DHCP server gave it. With another server only DNS knows, by the machine's name.
pub fn leased_address(
    loaded: &Loaded,
    machine: &Expected,
    mac: Option<&str>,
    lessor: &dyn Lessor,
) -> Option<Ipv4Addr> {
    // A stated name is for DNS to answer, whatever else is known.
    if *machine.host.address != *machine.name {
        return None;
    }
    let mac = boot_mac(machine, mac)?;
    let lease = |lan: &Lan| lessor.lease_of(&lan.name, mac);
    match loaded.nics.get(&machine.profile) {
        // Only where an interface will have that address: a port's own, or what DHCP tells the MAC.
        Some(nics) => {
            let asks = |nic: &&Nic| match nic.addressing {
                Addressing::Static => true,
                Addressing::Dhcp => !nic.tagged && nic.ports.contains(&Port::Boot),
                Addressing::None => false,
            };
            nics.iter().filter(asks).filter_map(|nic| lan_of(loaded, nic)).find_map(lease)
        }
        None => loaded.networks.iter().find_map(|n| lease(&n.lan)),
    }
}
