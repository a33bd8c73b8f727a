//! From a request and what is known to the answer: no socket, no clock, no file.

use super::client::{Asks, Machine, classify};
use super::lease::{Leases, Record};
use super::packet::{Kind, Reply, Request, Said, code};
use crate::model::identity::{clean_uuid, uuid_eq};
use crate::model::network::Lan;
use crate::port::netboot::{Firmware, Loaders, NetbootPlan, Resident, Residents};
use std::net::{IpAddr, Ipv4Addr};

/// How the server works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Beside the site's own DHCP server.
    Proxy,
    /// As the network's DHCP server, for machines of the inventory.
    Reservation,
}

/// What becomes of machines that are not in the inventory. They get nothing either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing is kept of them.
    #[default]
    Refuse,
    /// `farrier discover seen` shows them.
    List,
}

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Port 67.
    Dhcp,
    /// Port 4011, where firmware asks a proxy again for its boot file.
    Boot,
}

/// What is known when a request comes in.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub mode: Mode,
    pub door: Door,
    /// The network that the request comes from; `None`: none of the inventory's.
    pub lan: Option<&'a Lan>,
    /// Our address on the way to the client.
    pub server: Ipv4Addr,
    pub residents: &'a Residents,
    /// What the machine is to boot; `None`: no run waits for it.
    pub plan: Option<&'a NetbootPlan>,
    /// The UUID of the machine that asked first since the window is open.
    pub first_uuid: Option<[u8; 16]>,
    pub loaders: &'a Loaders,
    pub lease_s: u32,
    /// Wall clock, seconds since 1970.
    pub now_s: u64,
}

/// What is answered, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub reply: Option<Reply>,
    /// To be durable before the reply leaves.
    pub keep: Option<Record>,
    pub why: Why,
}

/// Why the answer is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// An address.
    Address(Ipv4Addr),
    /// An address, and what to boot.
    Boot(Ipv4Addr, String),
    /// What to boot, beside another's address.
    Proxied(String),
    /// The address that the client wants is not its own.
    NotYours(Ipv4Addr),
    /// The machine runs firmware that no loader is named for.
    NoLoader(u16),
    /// Not in the inventory.
    Stranger,
    /// In the inventory, and no run waits for it.
    NoWindow,
    /// The machine took another server's offer.
    TookOther(Ipv4Addr),
    /// The machine's own address lies elsewhere, and the network has no range.
    NoRange,
    /// Every address of the range is some machine's.
    Exhausted,
    /// The client found that another uses the address.
    Declined(Ipv4Addr),
    /// The same, of the address that the inventory gives it.
    OwnDeclined(Ipv4Addr),
    /// Its UUID is not the one that the inventory knows: two machines have one MAC, or the inventory
    /// is wrong. It gets an address and nothing to boot.
    OtherUuid(String),
    /// From no network of the inventory.
    NoNetwork,
    /// Nothing for this mode or port.
    NotForUs,
}

impl Answer {
    fn silent(why: Why) -> Self {
        Self { reply: None, keep: None, why }
    }
}

/// The answer to a request. Changes `leases` where an address is given or declined.
pub fn answer(request: &Request, scene: &Scene<'_>, leases: &mut Leases) -> Answer {
    match scene.mode {
        Mode::Proxy => proxied(request, scene),
        Mode::Reservation if scene.door == Door::Boot => Answer::silent(Why::NotForUs),
        Mode::Reservation => reserved(request, scene, leases),
    }
}

/// RFC 4578 and PXE 2.1 §2.2: an offer without an address, beside that of the site's DHCP server.
fn proxied(request: &Request, scene: &Scene<'_>) -> Answer {
    // Also one that only wants an address: a BMC that was delivered, a mistyped MAC.
    let Some(resident) = scene.residents.by_mac.get(&request.mac) else {
        return Answer::silent(Why::Stranger);
    };
    let asks = classify(request);
    let said = match (scene.door, request.kind) {
        (Door::Dhcp, Kind::Discover) => Said::Offer,
        (Door::Boot, Kind::Request | Kind::Inform) => Said::Ack,
        _ => return Answer::silent(Why::NotForUs),
    };
    if asks == Asks::Address {
        return Answer::silent(Why::NotForUs);
    }
    let Some(plan) = scene.plan else { return Answer::silent(Why::NoWindow) };
    if let Some(other) = other_uuid(request, scene, resident) {
        return Answer::silent(Why::OtherUuid(other));
    }
    let mut reply = Reply::to(request, said);
    // At port 4011 the client has its address already, and wants to see it.
    reply.ciaddr = request.ciaddr;
    reply.options.push((code::SERVER, scene.server.octets().into()));
    let file = match boot(asks, plan, request, scene, &mut reply) {
        Ok(file) => file,
        Err(arch) => return Answer::silent(Why::NoLoader(arch)),
    };
    if reply.option(code::CLASS).is_none() {
        reply.options.push((code::CLASS, b"PXEClient".to_vec()));
    }
    // Boot server discovery control, bit 3: no menu, take the file of this offer (PXE 2.1, table
    // 2-1). UEFI firmware is better without: see the module's page.
    if asks == Asks::Pxe(Machine::Known(Firmware::Bios)) {
        reply.options.push((code::VENDOR, vec![6, 1, 8, 255]));
    }
    Answer { reply: Some(reply), keep: None, why: Why::Proxied(file) }
}

/// RFC 2131 §4.3, for machines of the inventory alone.
fn reserved(request: &Request, scene: &Scene<'_>, leases: &mut Leases) -> Answer {
    let Some(resident) = scene.residents.by_mac.get(&request.mac) else {
        return Answer::silent(Why::Stranger);
    };
    let Some(lan) = scene.lan else { return Answer::silent(Why::NoNetwork) };
    match request.kind {
        // A lease is for ever: what is released is only not in use now.
        Kind::Release => return Answer::silent(Why::NotForUs),
        Kind::Decline => return declined(request, scene, lan, resident, leases),
        Kind::Request => {
            // Another server's offer was taken; ours is not wanted any more.
            if let Some(server) = request.server.filter(|s| *s != scene.server) {
                return Answer::silent(Why::TookOther(server));
            }
        }
        Kind::Discover | Kind::Inform => {}
    }
    let (address, keep) = match own_address(request, scene, lan, resident, leases) {
        Ok(found) => found,
        Err(why) => return Answer::silent(why),
    };
    let claimed = match request.kind {
        Kind::Request if !request.ciaddr.is_unspecified() => Some(request.ciaddr),
        Kind::Request => request.requested,
        _ => None,
    };
    if let Some(claimed) = claimed.filter(|c| *c != address) {
        let mut reply = Reply::to(request, Said::Nak);
        reply.options.push((code::SERVER, scene.server.octets().into()));
        reply.options.push((code::MESSAGE, b"that address is not this machine's".to_vec()));
        // Behind a relay the client's link has to be told by broadcast (RFC 2131 §4.3.2).
        if !request.giaddr.is_unspecified() {
            reply.flags |= BROADCAST;
        }
        return Answer { reply: Some(reply), keep, why: Why::NotYours(claimed) };
    }
    let said = if request.kind == Kind::Discover { Said::Offer } else { Said::Ack };
    let mut reply = Reply::to(request, said);
    reply.options.push((code::SERVER, scene.server.octets().into()));
    if request.kind == Kind::Inform {
        reply.ciaddr = request.ciaddr;
    } else {
        reply.yiaddr = address;
        reply.ciaddr = if request.kind == Kind::Request { request.ciaddr } else { reply.ciaddr };
        let seconds = |s: u32| s.to_be_bytes().to_vec();
        reply.options.push((code::LEASE, seconds(scene.lease_s)));
        reply.options.push((code::RENEW, seconds(scene.lease_s / 2)));
        reply.options.push((code::REBIND, seconds(scene.lease_s / 8 * 7)));
    }
    network(&mut reply, lan, resident, request);
    let asks = classify(request);
    // Whether a run waits or not: iPXE need not wait for a proxy's offer.
    if asks == Asks::Ipxe {
        reply.options.push((code::IPXE, vec![176, 1, 1]));
    }
    let why = match scene.plan {
        _ if asks == Asks::Address => Why::Address(address),
        None => Why::Address(address),
        Some(plan) => match other_uuid(request, scene, resident) {
            Some(other) => Why::OtherUuid(other),
            None => match boot(asks, plan, request, scene, &mut reply) {
                Ok(file) => Why::Boot(address, file),
                Err(arch) => Why::NoLoader(arch),
            },
        },
    };
    Answer { reply: Some(reply), keep, why }
}

/// Bit 15 of the flags.
const BROADCAST: u16 = 0x8000;

/// The inventory's address where it lies in this network, else one of the range.
fn own_address(
    request: &Request,
    scene: &Scene<'_>,
    lan: &Lan,
    resident: &Resident,
    leases: &mut Leases,
) -> Result<(Ipv4Addr, Option<Record>), Why> {
    if let Some(own) = resident.address.filter(|a| lan.subnet.contains((*a).into())) {
        return Ok((own, None));
    }
    if lan.range.is_none() {
        return Err(Why::NoRange);
    }
    let barred = |a: Ipv4Addr| a == scene.server || is_used(a, lan, scene.residents);
    let wish = Some(request.ciaddr).filter(|a| !a.is_unspecified()).or(request.requested);
    let found = leases.allocate(lan, request.mac, wish, barred, scene.now_s);
    found.map(|a| (a.address, a.keep)).map_err(|_| Why::Exhausted)
}

/// Is that the network's own, or one that the inventory gives to a machine?
pub(super) fn is_used(address: Ipv4Addr, lan: &Lan, residents: &Residents) -> bool {
    let theirs = [lan.gateway.as_slice(), &lan.dns, &lan.ntp].concat();
    residents.addresses.contains(&address)
        || lan.relay.contains(&address)
        || theirs.contains(&IpAddr::V4(address))
}

fn declined(
    request: &Request,
    scene: &Scene<'_>,
    lan: &Lan,
    resident: &Resident,
    leases: &mut Leases,
) -> Answer {
    let Some(address) = request.requested else { return Answer::silent(Why::NotForUs) };
    if resident.address == Some(address) {
        return Answer::silent(Why::OwnDeclined(address));
    }
    match leases.decline(&lan.name, request.mac, address, scene.now_s) {
        Some(record) => Answer { reply: None, keep: Some(record), why: Why::Declined(address) },
        None => Answer::silent(Why::NotForUs),
    }
}

/// What a machine of the network is told besides its address.
fn network(reply: &mut Reply, lan: &Lan, resident: &Resident, request: &Request) {
    let v4 = |all: &[IpAddr]| -> Vec<u8> {
        let v4 = all.iter().filter_map(|a| match a {
            IpAddr::V4(a) => Some(a.octets()),
            IpAddr::V6(_) => None,
        });
        v4.flatten().collect()
    };
    let mut put = |code: u8, data: Vec<u8>| {
        if !data.is_empty() {
            reply.options.push((code, data));
        }
    };
    let octets = |a: Option<Ipv4Addr>| a.map(|a| a.octets().to_vec()).unwrap_or_default();
    put(code::NETMASK, octets(lan.subnet.netmask()));
    put(code::BROADCAST, octets(lan.subnet.broadcast()));
    put(code::ROUTER, v4(lan.gateway.as_slice()));
    put(code::DNS, v4(&lan.dns));
    put(code::DOMAIN, lan.domain.clone().unwrap_or_default().into_bytes());
    // Unasked for, these only make the message long for firmware.
    let wants = |code: u8| request.wanted.contains(&code);
    if wants(code::NTP) {
        put(code::NTP, v4(&lan.ntp));
    }
    if wants(code::HOST_NAME) {
        put(code::HOST_NAME, resident.name.bytes().take(63).collect());
    }
    if let Some(mtu) = lan.mtu.filter(|_| wants(code::MTU)) {
        put(code::MTU, mtu.to_be_bytes().into());
    }
}

/// Puts in what to boot and returns it. `Err`: the number of firmware that no loader is named for.
fn boot(
    asks: Asks,
    plan: &NetbootPlan,
    request: &Request,
    scene: &Scene<'_>,
    reply: &mut Reply,
) -> Result<String, u16> {
    let loader = |machine: Machine| match machine {
        Machine::Known(firmware) => {
            scene.loaders.names.get(&firmware).cloned().ok_or(request.arch.unwrap_or(0))
        }
        Machine::Other(arch) => Err(arch),
    };
    let file = match asks {
        Asks::Address => return Ok(String::new()),
        Asks::Pxe(machine) => loader(machine)?,
        Asks::Http(machine) => {
            reply.options.push((code::CLASS, b"HTTPClient".to_vec()));
            format!("{}/loader/{}", plan.base_url, loader(machine)?)
        }
        Asks::Ipxe => format!("{}/boot/{}/ipxe", plan.base_url, request.mac),
    };
    reply.siaddr = scene.server;
    reply.file.clone_from(&file);
    // Firmware that asks for the options gets them too; some reads nothing else.
    if request.wanted.contains(&code::TFTP_SERVER) && matches!(asks, Asks::Pxe(_)) {
        reply.options.push((code::TFTP_SERVER, scene.server.to_string().into_bytes()));
    }
    if request.wanted.contains(&code::BOOT_FILE) || file.len() > 127 {
        reply.options.push((code::BOOT_FILE, file.clone().into_bytes()));
    }
    // Some firmware drops an answer that does not say back who it is (RFC 4578 §2.3).
    if let Some(uuid) = &request.uuid {
        reply.options.push((code::UUID, [&[0], uuid.as_slice()].concat()));
    }
    Ok(file)
}

/// The UUID that the client states, if another one is known of the machine; where none is, if another
/// machine with this MAC came first. Firmware and iPXE state it in either byte order.
fn other_uuid(request: &Request, scene: &Scene<'_>, resident: &Resident) -> Option<String> {
    let stated = clean_uuid(&hex::encode(request.uuid?))?;
    let first = scene.first_uuid.and_then(|u| clean_uuid(&hex::encode(u)));
    let differs = |known: &str| !uuid_eq(&stated, known);
    // Not both: the one that came first may have been the wrong one, and the cable is right by now.
    let known = resident.uuid.as_deref().or(first.as_deref());
    known.is_some_and(differs).then_some(stated)
}
