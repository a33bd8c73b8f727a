//! The network of an installed system as netplan's version 2, which is cloud-init's
//! `network-config` too. Written as JSON: every JSON text is YAML, and nothing needs quoting rules.

use crate::model::network::{Addressing, BondMode, Lan, Mac, Nic, Port};
use serde_json::{Map, Value, json};
use std::fmt;
use std::net::Ipv4Addr;

/// The machine as its network sees it.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    pub name: &'a str,
    /// Of the port that it boots from.
    pub mac: Option<Mac>,
    /// The inventory's `host.address`, then what Farrier's DHCP server gave it for good.
    pub addresses: &'a [Ipv4Addr],
}

/// What a profile asks for and this machine does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// A sentence that names the machine and its interface.
    pub what: String,
    pub hint: &'static str,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// The profile and the networks don't fit: nothing that a machine could mend.
const CHECK: &str = "`farrier check` shows what is wrong with the profile's interfaces";

/// The text of `network-config` for one machine. Ends with a newline.
///
/// # Errors
/// What is missing, with the machine and the interface.
pub fn network_config(host: &Host<'_>, nics: &[Nic], lans: &[Lan]) -> Result<String, Lacking> {
    let mut sections = Sections::default();
    for nic in nics {
        let lan = match &nic.network {
            None => None,
            Some(name) => {
                let found = lans.iter().find(|l| l.name == *name);
                let gone = || Lacking {
                    what: format!(
                        "interface `{}` of `{}` is in network `{name}`, and there is none",
                        nic.name, host.name
                    ),
                    hint: CHECK,
                };
                Some(found.ok_or_else(gone)?)
            }
        };
        let addressed = addressing(host, nic, lan)?;
        let vlan = lan.and_then(|l| l.vlan).filter(|_| nic.tagged);
        // With a tag the link itself has no address; the VLAN on top of it has.
        let mut link = match vlan {
            None => addressed.clone(),
            Some(_) => silent(),
        };
        if let Some(mtu) = lan.and_then(|l| l.mtu) {
            link.insert("mtu".into(), mtu.into());
        }
        match nic.bond {
            None => {
                let none = || Lacking {
                    what: format!("interface `{}` of `{}` has no port", nic.name, host.name),
                    hint: CHECK,
                };
                let port = nic.ports.first().ok_or_else(none)?;
                sections.port(host, &nic.name, port, link)?;
            }
            Some(mode) => sections.bond(host, nic, mode, link)?,
        }
        if let (Some(vlan), Some(lan)) = (vlan, lan) {
            let mut entry = addressed;
            entry.insert("id".into(), vlan.into());
            entry.insert("link".into(), nic.name.clone().into());
            if let Some(mtu) = lan.mtu {
                entry.insert("mtu".into(), mtu.into());
            }
            sections.vlans.insert(format!("{}.{vlan}", nic.name), entry.into());
        }
    }
    let mut network = Map::new();
    network.insert("version".into(), 2.into());
    for (name, section) in
        [("ethernets", sections.ethernets), ("bonds", sections.bonds), ("vlans", sections.vlans)]
    {
        if !section.is_empty() {
            network.insert(name.into(), section.into());
        }
    }
    let whole = json!({ "network": network });
    Ok(format!("{whole:#}\n"))
}

#[derive(Default)]
struct Sections {
    ethernets: Map<String, Value>,
    bonds: Map<String, Value>,
    vlans: Map<String, Value>,
}

impl Sections {
    fn port(
        &mut self,
        host: &Host<'_>,
        name: &str,
        port: &Port,
        mut entry: Map<String, Value>,
    ) -> Result<(), Lacking> {
        let found = match port {
            Port::Boot => {
                let mac = host.mac.ok_or_else(|| Lacking {
                    what: format!(
                        "`{}` has no `mac`, and its interface `{name}` is the port that it boots from",
                        host.name
                    ),
                    hint: "give the machine its `mac` in the inventory",
                })?;
                // A name is only set where the card is known by its MAC: with a pattern several
                // could fit, and two can't have one name.
                entry.insert("set-name".into(), name.into());
                json!({ "macaddress": mac.to_string() })
            }
            Port::Named(pattern) => json!({ "name": pattern }),
        };
        entry.insert("match".into(), found);
        if self.ethernets.insert(name.into(), entry.into()).is_some() {
            let what = format!("two interfaces of `{}` are called `{name}`", host.name);
            return Err(Lacking { what, hint: CHECK });
        }
        Ok(())
    }

    fn bond(
        &mut self,
        host: &Host<'_>,
        nic: &Nic,
        mode: BondMode,
        mut entry: Map<String, Value>,
    ) -> Result<(), Lacking> {
        let mut members = Vec::new();
        for (n, port) in nic.ports.iter().enumerate() {
            let member = format!("{}p{n}", nic.name);
            self.port(host, &member, port, silent())?;
            members.push(member);
        }
        entry.insert("interfaces".into(), members.into());
        let mut parameters = json!({ "mode": mode.name(), "mii-monitor-interval": 100 });
        match mode {
            BondMode::Lacp => {
                parameters["lacp-rate"] = "fast".into();
                parameters["transmit-hash-policy"] = "layer3+4".into();
            }
            BondMode::BalanceXor => parameters["transmit-hash-policy"] = "layer3+4".into(),
            BondMode::ActiveBackup => {}
        }
        // DHCP gives addresses by the boot port's MAC: the bond speaks with it.
        if let Some(mac) = host.mac.filter(|_| nic.ports.contains(&Port::Boot)) {
            entry.insert("macaddress".into(), mac.to_string().into());
        }
        entry.insert("parameters".into(), parameters);
        self.bonds.insert(nic.name.clone(), entry.into());
        Ok(())
    }
}

/// A link that is up and has no address.
fn silent() -> Map<String, Value> {
    let entry = [("dhcp4", false), ("dhcp6", false)];
    entry.into_iter().map(|(key, on)| (key.to_string(), on.into())).collect()
}

fn addressing(
    host: &Host<'_>,
    nic: &Nic,
    lan: Option<&Lan>,
) -> Result<Map<String, Value>, Lacking> {
    let mut entry = silent();
    match (nic.addressing, lan) {
        (Addressing::None, _) | (_, None) => {}
        (Addressing::Dhcp, Some(_)) => {
            entry.insert("dhcp4".into(), true.into());
            // The server knows machines by MAC; networkd would send an identifier of its own.
            entry.insert("dhcp-identifier".into(), "mac".into());
        }
        (Addressing::Static, Some(lan)) => {
            let inside = host.addresses.iter().find(|a| lan.subnet.contains((**a).into()));
            let address = inside.ok_or_else(|| Lacking {
                what: format!(
                    "`{}` has no address in network `{}`, and its interface `{}` is `static` there",
                    host.name, lan.name, nic.name
                ),
                hint: "give the machine a `host.address` there or the interface `address = \"dhcp\"`; \
                       Farrier gives addresses of the network's `range` where it is the DHCP server \
                       (`reservation`)",
            })?;
            let own = format!("{address}/{}", lan.subnet.prefix());
            entry.insert("addresses".into(), json!([own]));
            if let Some(gateway) = lan.gateway {
                // Not netplan's `default`: cloud-init 22.4 (Debian 12) takes that for an address.
                let all = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                entry.insert("routes".into(), json!([{ "to": all, "via": gateway }]));
            }
            let mut names = Map::new();
            if !lan.dns.is_empty() {
                names.insert("addresses".into(), json!(lan.dns));
            }
            if let Some(domain) = &lan.domain {
                names.insert("search".into(), json!([domain]));
            }
            if !names.is_empty() {
                entry.insert("nameservers".into(), names.into());
            }
        }
    }
    Ok(entry)
}
