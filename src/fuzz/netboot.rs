//! What machines that boot from the network send: DHCP messages to a small site, and TFTP packets to
//! one transfer. A seed is a byte that chooses the scene, then packets, each with a byte of what
//! happens around it (DHCP only) and its length in two bytes in front.

use super::Seen;
use crate::dhcp::answer::{Answer, Scene, Why, answer};
use crate::dhcp::lease::{DECLINED_S, Leases};
use crate::dhcp::packet::{self, Kind, Reply, Request, Said, code};
use crate::dhcp::place::{destination, place};
use crate::dhcp::{Door, Interface, Mode, Origin, Ports};
use crate::model::MachineId;
use crate::model::network::{Lan, Mac, Subnet};
use crate::port::netboot::{Loaders, NetbootPlan, Resident, Residents};
use crate::tftp::packet::{Packet, Read, parse};
use crate::tftp::transfer::{BLOCK, End, Event, Step, Transfer, WINDOW};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Packets that are looked at; a transfer of a thousand says no more.
const MOST_PACKETS: usize = 500;
/// More in one datagram is put together by nobody's firmware.
const MOST_BYTES: usize = 1024;
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 2);
const DAY_S: u64 = 24 * 3600;

/// A packet and the byte in front of its length.
fn packets(mut data: &[u8], with_byte: bool) -> Vec<(u8, &[u8])> {
    let mut out = Vec::new();
    while out.len() < MOST_PACKETS {
        let byte = if with_byte {
            let Some((byte, rest)) = data.split_first() else { break };
            data = rest;
            *byte
        } else {
            0
        };
        let Some((length, rest)) = data.split_first_chunk::<2>() else { break };
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (packet, rest) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        out.push((byte, packet));
        data = rest;
    }
    out
}

/// Few addresses, so that they run out: three of the range's five are free, and four machines want one.
struct Site {
    lans: Vec<Lan>,
    residents: Residents,
    loaders: Loaders,
}

impl Site {
    /// `None`: never; the texts are ours.
    fn new() -> Option<Self> {
        let subnet = |text: &str| text.parse::<Subnet>().ok();
        let near = Lan {
            gateway: "10.30.0.100".parse().ok(),
            relay: vec![Ipv4Addr::new(192, 0, 2, 1)],
            range: "10.30.0.100-10.30.0.104".parse().ok(),
            dns: vec![SERVER.into(), "fd00::3".parse().ok()?],
            ntp: vec![SERVER.into()],
            mtu: Some(9000),
            domain: Some("lab.example".into()),
            ..Lan::new("near", subnet("10.30.0.0/24")?)
        };
        let far = Lan::new("far", subnet("10.31.0.0/16")?);
        let mut residents = Residents::default();
        for n in 1..=6_u8 {
            let address = match n {
                1 => Some(Ipv4Addr::new(10, 30, 0, 11)),
                // Inside the range: nobody else may get it.
                6 => Some(Ipv4Addr::new(10, 30, 0, 101)),
                _ => None,
            };
            let uuid = (n == 1).then(|| "33221100-5544-7766-8899-aabbccddee01".into());
            let name = format!("node-{n}").into();
            let resident =
                Resident { machine: MachineId(n.into()), name, address, uuid, rack: "r".into() };
            residents.addresses.extend(address);
            residents.by_mac.insert(Mac([0x52, 0x54, 0, 0x77, 0, n]), resident);
        }
        Some(Self { lans: vec![near, far], residents, loaders: Loaders::default() })
    }

    /// May this machine ever be told that this address is its own, in this network?
    fn may_have(&self, lan: &Lan, mac: Mac, address: Ipv4Addr) -> bool {
        let own = self.residents.by_mac.get(&mac).and_then(|r| r.address);
        if own.is_some_and(|own| lan.subnet.contains(own.into())) {
            return own == Some(address);
        }
        let given_away = self.residents.addresses.contains(&address);
        lan.range.is_some_and(|r| r.contains(address))
            && lan.subnet.is_host(address.into())
            && lan.gateway != Some(address.into())
            && address != SERVER
            && !given_away
    }
}

/// What the answers so far say of addresses.
#[derive(Default)]
struct Told {
    holders: BTreeMap<Ipv4Addr, Mac>,
    /// Found in use, and when.
    declined: BTreeMap<Ipv4Addr, u64>,
}

impl Told {
    fn look(&mut self, found: &Answer, mac: Mac, now_s: u64) {
        if let Why::Declined(address) = found.why {
            self.holders.remove(&address);
            self.declined.insert(address, now_s);
        }
        let Some(reply) = found.reply.as_ref().filter(|r| !r.yiaddr.is_unspecified()) else {
            return;
        };
        let holder = *self.holders.entry(reply.yiaddr).or_insert(mac);
        assert_eq!(holder, mac, "{} is {holder}'s, and {mac} was told it too", reply.yiaddr);
        let rests = self.declined.get(&reply.yiaddr).is_some_and(|at_s| now_s < at_s + DECLINED_S);
        assert!(!rests, "{} was found in use within a day", reply.yiaddr);
    }
}

pub(super) fn dhcp(data: &[u8]) -> Seen {
    let (Some(site), Some((scene, rest))) = (Site::new(), data.split_first()) else {
        return Box::new(());
    };
    let mode = if scene & 1 == 0 { Mode::Reservation } else { Mode::Proxy };
    let door = if scene & 2 == 0 { Door::Dhcp } else { Door::Boot };
    let addresses = if scene & 4 == 0 { vec![SERVER] } else { Vec::new() };
    let origin = Origin {
        interface: Interface { name: "lab0".into(), addresses },
        door,
        peer: SocketAddr::from((Ipv4Addr::new(10, 30, 0, 50), 1068)),
    };
    let (mut leases, mut told) = (Leases::default(), Told::default());
    let mut first: BTreeMap<Mac, [u8; 16]> = BTreeMap::new();
    let mut seen: Vec<Box<dyn Debug>> = Vec::new();
    let mut now_s = 1_700_000_000;
    for (around, bytes) in packets(rest, true) {
        now_s += [0, 60, DAY_S / 2, DAY_S + 1].get(usize::from(around & 3)).copied().unwrap_or(0);
        let offer = packet::parse_reply(bytes, origin_ip(&origin));
        if let Ok(heard) = &offer {
            assert!(printable(&heard.file) && heard.file.len() <= 255, "{heard:?}");
        }
        let request = match packet::parse(bytes) {
            Ok(request) => request,
            Err(why) => {
                seen.push(Box::new((why, offer)));
                continue;
            }
        };
        check_request(&request);
        let Some((lan, server)) = place(&request, &site.lans, &origin.interface) else { continue };
        let known = site.residents.by_mac.contains_key(&request.mac);
        // No run waits for machines with an odd number, unless this packet's byte says so.
        let waits = known && (request.mac.0[5] & 1 == 0 || around & 4 != 0);
        let plan = waits.then(|| NetbootPlan {
            machine: MachineId(1),
            name: "node".into(),
            base_url: "http://10.30.0.2:7121".into(),
        });
        let first_uuid = request
            .uuid
            .filter(|_| waits)
            .map(|stated| *first.entry(request.mac).or_insert(stated));
        let view = Scene {
            mode,
            door,
            lan,
            server,
            residents: &site.residents,
            plan: plan.as_ref(),
            first_uuid,
            loaders: &site.loaders,
            lease_s: 3600,
            now_s,
        };
        let before = leases.records();
        let mut found = answer(&request, &view, &mut leases);
        if let Some(record) = &found.keep {
            // The disk is full: nothing of it may leave.
            if around & 8 != 0 {
                found.reply = None;
            } else {
                leases.kept(record);
            }
        } else {
            assert!(mode == Mode::Reservation || leases.records() == before, "a proxy leases");
        }
        told.look(&found, request.mac, now_s);
        if !known {
            assert_eq!((&found.reply, &found.keep), (&None, &None), "a stranger: {request:?}");
            assert_eq!(leases.records(), before, "a stranger changes the book");
        }
        let sent = found.reply.as_ref().map(|reply| {
            check_reply(&site, &request, &view, reply);
            (destination(reply, &origin, Ports::default()), reply.encode())
        });
        seen.push(Box::new((found, sent)));
    }
    check_book(&leases);
    Box::new((seen, leases.all().map(|(l, m, a)| (l.clone(), m, a)).collect::<Vec<_>>()))
}

fn origin_ip(origin: &Origin) -> Ipv4Addr {
    origin.interface.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED)
}

fn printable(text: &str) -> bool {
    text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

fn check_request(request: &Request) {
    assert!(request.mac.is_card(), "{request:?}");
    assert!(request.class.len() <= 64 && printable(&request.class), "{request:?}");
}

fn check_reply(site: &Site, request: &Request, view: &Scene<'_>, reply: &Reply) {
    assert_eq!((reply.mac, reply.xid, reply.giaddr), (request.mac, request.xid, request.giaddr));
    let boots = !reply.file.is_empty() || !reply.siaddr.is_unspecified();
    assert!(!boots || view.plan.is_some(), "no run waits for it: {reply:?}");
    match view.mode {
        Mode::Proxy => assert!(reply.yiaddr.is_unspecified() && boots, "{reply:?}"),
        Mode::Reservation => {
            let gives = matches!(request.kind, Kind::Discover | Kind::Request);
            assert_eq!(
                reply.yiaddr.is_unspecified(),
                reply.said == Said::Nak || !gives,
                "{reply:?}"
            );
        }
    }
    if reply.said == Said::Nak {
        assert!(request.kind == Kind::Request && !boots, "{reply:?}");
    }
    if !reply.yiaddr.is_unspecified() {
        let fits = view.lan.is_some_and(|lan| site.may_have(lan, reply.mac, reply.yiaddr));
        assert!(fits, "not its address: {reply:?}");
    }
    let bytes = reply.encode();
    assert!((300..=MOST_BYTES).contains(&bytes.len()), "{} bytes: {reply:?}", bytes.len());
    // As a client reads it.
    let heard = packet::parse_reply(&bytes, view.server);
    let address = Some(reply.yiaddr).filter(|a| !a.is_unspecified());
    let read = heard.as_ref().map(|h| (h.mac, h.server, h.address, h.next));
    assert_eq!(read, Ok((reply.mac, view.server, address, reply.siaddr)), "{reply:?}");
    if reply.file.len() < 128 || reply.option(code::BOOT_FILE).is_some() {
        assert_eq!(heard.map(|h| h.file), Ok(reply.file.clone()), "{reply:?}");
    }
    if let Some(relay) = &request.relay {
        let whole = bytes.iter().rposition(|b| *b != 0).and_then(|end| bytes.get(..=end));
        let length = u8::try_from(relay.len()).unwrap_or(u8::MAX);
        let tail = [&[code::RELAY, length], relay.as_slice(), &[255]].concat();
        assert!(whole.is_some_and(|w| w.ends_with(&tail)), "the relay's own words: {reply:?}");
    }
}

/// What a compacted journal holds is the same book.
fn check_book(leases: &Leases) {
    let mut again = Leases::default();
    leases.records().iter().for_each(|record| again.replay(record));
    assert!(leases.all().eq(again.all()), "{leases:?} became {again:?}");
    let mut addresses: Vec<Ipv4Addr> = leases.all().map(|(_, _, address)| address).collect();
    let all = addresses.len();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), all, "an address is two machines': {leases:?}");
}

/// Lengths of the loader: at ends of blocks, and beyond windows of them.
const LENGTHS: [usize; 8] = [0, 1, 511, 512, 1468, 40_000, 2_000, 9];
/// Silences in a row after which a client counts as gone.
const MOST_SILENCES: usize = 7;

pub(super) fn tftp(data: &[u8]) -> Seen {
    let Some((scene, rest)) = data.split_first() else { return Box::new(()) };
    let packets = packets(rest, false);
    let Some((_, first)) = packets.first() else { return Box::new(()) };
    let read = match parse(first) {
        Ok(Packet::Read(read)) => read,
        other => {
            if let Ok(Packet::OtherMode(words) | Packet::Error(_, words)) = &other {
                assert!(words.len() <= 255 && printable(words), "{other:?}");
            }
            return Box::new(other);
        }
    };
    check_read(&read);
    let length = LENGTHS.get(usize::from(scene % 8)).copied().unwrap_or(0);
    let file: Arc<[u8]> = (0..=250_u8).cycle().take(length).collect();
    let mut client = Client::new(&file, &read);
    let mut transfer = Transfer::new(file.clone(), &read);
    let mut seen = vec![client.step(&Event::Start, transfer.on(&Event::Start))];
    // A packet of no bytes stands for a silence.
    let after = packets.iter().skip(1).filter_map(|(_, bytes)| match bytes {
        [] => Some(Event::Silence),
        bytes => parse(bytes).ok().map(Event::Packet),
    });
    for event in after {
        if client.ended.is_some() {
            break;
        }
        seen.push(client.step(&event, transfer.on(&event)));
    }
    for _ in 0..MOST_SILENCES {
        if client.ended.is_none() {
            seen.push(client.step(&Event::Silence, transfer.on(&Event::Silence)));
        }
    }
    assert!(client.ended.is_some(), "it waits for ever for a client that is gone: {read:?}");
    Box::new((read, seen, client.ended))
}

fn check_read(read: &Read) {
    assert!((1..=255).contains(&read.file.len()) && printable(&read.file), "{read:?}");
    assert!(read.block.is_none_or(|b| (8..=65_464).contains(&b)), "{read:?}");
    assert!(read.timeout_s != Some(0) && read.window != Some(0), "{read:?}");
    let loaders = Loaders::default();
    for path in loaders.paths(&read.file) {
        let inside = path.parent().is_some_and(|dir| loaders.dirs.iter().any(|d| d == dir));
        assert!(inside, "{} lies elsewhere", path.display());
    }
}

/// What the other side of a transfer knows by what it was sent and said itself.
struct Client<'f> {
    file: &'f [u8],
    block: usize,
    window: u64,
    /// Blocks that it said it has, and the last one that it was sent.
    acked: u64,
    sent: u64,
    /// Options were sent and not yet acknowledged.
    bargains: bool,
    /// Packets without progress that were answered since the last progress.
    answered: u32,
    ended: Option<End>,
}

impl<'f> Client<'f> {
    fn new(file: &'f [u8], read: &Read) -> Self {
        Self {
            file,
            block: usize::from(read.block.map_or(512, |b| b.min(BLOCK))),
            window: u64::from(read.window.map_or(1, |w| w.min(WINDOW))),
            acked: 0,
            sent: 0,
            bargains: read.block.is_some()
                || read.size
                || read.timeout_s.is_some()
                || read.window.is_some(),
            answered: 0,
            ended: None,
        }
    }

    fn blocks(&self) -> u64 {
        u64::try_from(self.file.len() / self.block).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// The block that a number of 16 bits means: the first one behind what the client has.
    fn of(&self, number: u16) -> u64 {
        let [.., high, low] = self.acked.to_be_bytes();
        self.acked + u64::from(number.wrapping_sub(u16::from_be_bytes([high, low])))
    }

    /// Notes how many packets of which size the step sends.
    fn step(&mut self, event: &Event, step: Step) -> (usize, usize, u64) {
        let mut progress = false;
        if let Event::Packet(Packet::Ack(number)) = event {
            let block = self.of(*number);
            if self.bargains {
                progress = *number == 0;
                self.bargains &= !progress;
            } else if block > self.acked && block <= self.sent {
                (self.acked, progress) = (block, true);
            }
        }
        if progress {
            self.answered = 0;
        }
        match step {
            Step::Wait => {
                assert!(!matches!(event, Event::Start | Event::Silence) && !progress, "{event:?}");
                (0, 0, 0)
            }
            Step::Done(end) => {
                match (&end, event) {
                    (End::Whole, _) => assert_eq!(self.acked, self.blocks(), "after {event:?}"),
                    (End::BrokenOff(..), Event::Packet(Packet::Error(..))) => {}
                    (End::Gone(had), Event::Silence) => assert_eq!(*had, self.acked),
                    _ => panic!("{end:?} after {event:?}"),
                }
                self.ended = Some(end);
                (0, 0, 0)
            }
            Step::Send(packets, wait_ms) => {
                assert!((1000..=8 * 255_000).contains(&wait_ms), "{wait_ms} ms");
                let most = if self.bargains { 1 } else { self.window };
                assert!((1..=most).contains(&(packets.len() as u64)), "{} packets", packets.len());
                if matches!(event, Event::Packet(_)) && !progress {
                    self.answered += 1;
                    assert!(self.answered == 1 && self.window > 1, "one packet more for each ACK");
                }
                packets.iter().for_each(|packet| self.look(packet));
                (packets.len(), packets.iter().map(Vec::len).sum(), wait_ms)
            }
        }
    }

    fn look(&mut self, packet: &[u8]) {
        let [0, kind, rest @ ..] = packet else { panic!("{packet:?}") };
        assert_eq!(*kind == 6, self.bargains, "options are agreed upon first: {packet:?}");
        if *kind == 6 {
            assert!(packet.len() <= 128, "{packet:?}");
            return;
        }
        let Some((number, bytes)) = rest.split_first_chunk::<2>() else { panic!("{packet:?}") };
        let block = self.of(u16::from_be_bytes(*number));
        assert!(block > self.acked && block <= self.acked + self.window, "block {block}");
        let start = usize::try_from(block - 1).unwrap_or(usize::MAX).saturating_mul(self.block);
        let end = start.saturating_add(self.block).min(self.file.len());
        assert_eq!((*kind, Some(bytes)), (3, self.file.get(start..end)), "block {block}");
        self.sent = self.sent.max(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "reads the seeds")]
    fn seeds_lead_where_their_names_say() {
        let read = |path: &str| {
            let path = format!("{}/fuzz/corpus/{path}", env!("CARGO_MANIFEST_DIR"));
            std::fs::read(path).unwrap()
        };
        let dhcp = |name: &str| format!("{:?}", dhcp(&read(&format!("dhcp/{name}"))));
        for (name, wanted) in [
            (
                "uefi-whole-boot",
                "Boot(10.30.0.102, \"http://10.30.0.2:7121/boot/52:54:00:77:00:02/ipxe\")",
            ),
            ("uefi-own-address", "Boot(10.30.0.11, \"snponly.efi\")"),
            ("uefi-http", "Boot(10.30.0.102, \"http://10.30.0.2:7121/loader/snponly.efi\")"),
            // QEMU's card has iPXE in its ROM.
            ("bios", "Boot(10.30.0.102, \"http://10.30.0.2:7121/boot/52:54:00:77:00:04/ipxe\")"),
            ("udhcpc", "Address(10.30.0.102)"),
            ("relayed", "NoRange"),
            ("proxy", "NoWindow"),
            ("proxy-4011", "Proxied(\"snponly.efi\")"),
            ("exhausted", "Exhausted"),
            ("declined", "Declined(10.30.0.102)"),
            ("nak", "NotYours(10.30.0.104)"),
            ("wish", "Address(10.30.0.104)"),
            ("stranger", "Stranger"),
            ("two-uuids", "OtherUuid"),
            ("took-other", "TookOther(10.30.0.9)"),
            ("odd-headers", "NotEthernet"),
            ("offer-of-another", "server: 10.30.0.2, address: Some(10.30.0.102)"),
        ] {
            let seen = dhcp(name);
            assert!(seen.contains(wanted), "{name}: no {wanted} in {seen}");
        }
        let tftp = |name: &str| format!("{:?}", tftp(&read(&format!("tftp/{name}"))));
        for (name, wanted) in [
            ("ovmf-size-only", "BrokenOff(8"),
            ("ovmf-whole", "Whole"),
            ("ipxe-bios", "Whole"),
            ("windows", "Whole"),
            ("plain", "Whole"),
            ("silent", "Gone("),
            ("write", "Write"),
            ("malformed", "Opcode"),
        ] {
            let seen = tftp(name);
            assert!(seen.contains(wanted), "{name}: no {wanted} in {seen}");
        }
    }
}
