//! What machines that boot from the network are answered, packet by packet, without a socket; how
//! networks are read and rendered; what a rack may fetch.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "reads the examples that ship, and measures that a limit holds"
)]

use async_trait::async_trait;
use axum::Router;
use axum::extract::Path as UrlPath;
use axum::routing::get;
use farrier::app::system_network;
use farrier::boot::network_config::{Host, network_config};
use farrier::boot::pace::{Limits, paced};
use farrier::config::netboot::DhcpMode;
use farrier::config::{self, Source};
use farrier::dhcp::answer::{Answer, Scene, Why, answer};
use farrier::dhcp::lease::{Leases, Record};
use farrier::dhcp::packet::{Kind, Malformed, Reply, Request, Said, code, parse};
use farrier::dhcp::{self, Door, Mode};
use farrier::model::identity;
use farrier::model::network::{Addressing, BondMode, Lan, Mac, Nic, Port};
use farrier::model::{FaultClass, MachineId};
use farrier::port::netboot::{
    Lessor, LoaderGate, Loaders, Netboot, NetbootPlan, Racks, Resident, Residents, Roster,
};
use farrier::tftp::{self, TftpServer};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 2);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 11);
const UUID: [u8; 16] = *b"\x44\x45\x4c\x4c\x58\x00\x10\x4a\x80\x39\xb7\xc0\x4f\x4b\x33\x33";
const BASE: &str = "http://10.30.0.2:7121";

fn mac(n: u8) -> Mac {
    Mac([0x0c, 0x42, 0xa1, 0, 0, n])
}

fn lan() -> Lan {
    let list = |a: &str| vec![a.parse().unwrap()];
    Lan {
        gateway: Some("10.30.0.1".parse().unwrap()),
        range: Some("10.30.0.100-10.30.0.101".parse().unwrap()),
        dns: list("10.30.0.3"),
        ntp: list("10.30.0.4"),
        mtu: Some(9000),
        domain: Some("lab.example".into()),
        ..Lan::new("provision", "10.30.0.0/24".parse().unwrap())
    }
}

/// n1 has an address and a UUID, n2 and those behind it neither.
fn residents() -> Residents {
    let mut all = Residents::default();
    for n in 1..=4 {
        let first = n == 1;
        let resident = Resident {
            machine: MachineId(n.into()),
            name: format!("n{n}").into(),
            address: first.then_some(OWN),
            // The other byte order of the first three fields.
            uuid: first.then(|| "4c4c4544-0058-4a10-8039-b7c04f4b3333".into()),
            rack: "r".into(),
        };
        all.addresses.extend(resident.address);
        all.by_mac.insert(mac(n), resident);
    }
    all
}

fn plan(n: u8) -> NetbootPlan {
    NetbootPlan {
        machine: MachineId(n.into()),
        name: format!("n{n}").into(),
        base_url: BASE.into(),
    }
}

/// A message as bytes: header, cookie, kind, and these options.
fn bytes(mac: Mac, kind: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = vec![0_u8; 240];
    out[0] = 1;
    out[1] = 1;
    out[2] = 6;
    out[4..8].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
    out[10] = 0x80;
    out[28..34].copy_from_slice(&mac.0);
    out[236..].copy_from_slice(&[99, 130, 83, 99]);
    out.extend([code::KIND, 1, kind]);
    for (code, data) in options {
        out.extend([*code, u8::try_from(data.len()).unwrap()]);
        out.extend_from_slice(data);
    }
    out.push(255);
    out
}

fn plain(mac: Mac, kind: u8, options: &[(u8, &[u8])]) -> Request {
    parse(&bytes(mac, kind, options)).unwrap()
}

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const WANTED: &[u8] = &[1, 3, 6, 12, 15, 26, 42, 66, 67];

/// What firmware and loaders send, as captured with OVMF, SeaBIOS and Debian's iPXE.
fn firmware(mac: Mac, kind: u8, what: &str) -> Request {
    let uuid = [&[0], &UUID[..]].concat();
    let (class, arch): (&[u8], u8) = match what {
        "bios" => (b"PXEClient:Arch:00000:UNDI:002001", 0),
        "uefi" => (b"PXEClient:Arch:00007:UNDI:003001", 7),
        "uefi-9" => (b"PXEClient:Arch:00009:UNDI:003016", 9),
        "uefi-32" => (b"PXEClient:Arch:00006:UNDI:003016", 6),
        "arm64" => (b"PXEClient:Arch:00011:UNDI:003000", 11),
        "http" => (b"HTTPClient:Arch:00016:UNDI:003001", 16),
        "http-arm64" => (b"HTTPClient:Arch:00019:UNDI:003001", 19),
        "http-32" => (b"HTTPClient:Arch:00015:UNDI:003001", 15),
        "ipxe" => (b"PXEClient:Arch:00007:UNDI:003010", 7),
        other => panic!("{other}"),
    };
    let arch = [0, arch];
    let mut options: Vec<(u8, &[u8])> = vec![
        (code::WANTED, WANTED),
        (57, &[5, 0xc0]),
        (code::CLASS, class),
        (code::ARCH, &arch),
        (94, &[1, 3, 16]),
        (code::UUID, &uuid),
    ];
    if what == "ipxe" {
        options.push((code::USER_CLASS, b"iPXE"));
        options.push((code::IPXE, &[0xb1, 5, 1, 0x80, 0x86, 0x10, 0x0e]));
    }
    plain(mac, kind, &options)
}

/// A network, its machines, and who is waited for.
struct Site {
    mode: Mode,
    door: Door,
    lan: Lan,
    residents: Residents,
    plan: Option<NetbootPlan>,
    first_uuid: Option<[u8; 16]>,
    leases: Leases,
    now_s: u64,
}

impl Site {
    fn new(mode: Mode) -> Self {
        Self {
            mode,
            door: Door::Dhcp,
            lan: lan(),
            residents: residents(),
            plan: None,
            first_uuid: None,
            leases: Leases::default(),
            now_s: 1_000_000,
        }
    }

    fn waits_for(mode: Mode, n: u8) -> Self {
        Self { plan: Some(plan(n)), ..Site::new(mode) }
    }

    fn ask(&mut self, request: &Request) -> Answer {
        let loaders = Loaders::default();
        let scene = Scene {
            mode: self.mode,
            door: self.door,
            lan: Some(&self.lan),
            server: SERVER,
            residents: &self.residents,
            plan: self.plan.as_ref(),
            first_uuid: self.first_uuid,
            loaders: &loaders,
            lease_s: 3600,
            now_s: self.now_s,
        };
        answer(request, &scene, &mut self.leases)
    }

    fn reply(&mut self, request: &Request) -> Reply {
        let answer = self.ask(request);
        answer.reply.unwrap_or_else(|| panic!("no reply: {:?}", answer.why))
    }
}

fn text(reply: &Reply, code: u8) -> Option<String> {
    reply.option(code).map(|d| String::from_utf8_lossy(d).into_owned())
}

#[test]
fn each_kind_of_firmware_is_told_its_own_loader() {
    for (what, file, class) in [
        ("bios", "undionly.kpxe".to_string(), None),
        ("uefi", "snponly.efi".into(), None),
        ("uefi-9", "snponly.efi".into(), None),
        ("arm64", "snponly-arm64.efi".into(), None),
        ("http", format!("{BASE}/loader/snponly.efi"), Some("HTTPClient")),
        ("http-arm64", format!("{BASE}/loader/snponly-arm64.efi"), Some("HTTPClient")),
        ("ipxe", format!("{BASE}/boot/0c:42:a1:00:00:01/ipxe"), None),
    ] {
        let reply = Site::waits_for(Mode::Reservation, 1).reply(&firmware(mac(1), DISCOVER, what));
        assert_eq!((reply.said, reply.yiaddr, reply.siaddr), (Said::Offer, OWN, SERVER), "{what}");
        assert_eq!(reply.file, file, "{what}");
        assert_eq!(text(&reply, code::BOOT_FILE), Some(file.clone()), "{what}");
        assert_eq!(text(&reply, code::CLASS).as_deref(), class, "{what}");
        assert_eq!(reply.option(code::UUID).map(|u| &u[1..]), Some(&UUID[..]), "{what}");
        // PXE discovery control has no place beside an address of our own.
        assert_eq!(reply.option(code::VENDOR), None, "{what}");
        assert!(reply.encode().len() < 548, "{what}: it fits into what all clients take");

        let mut site = Site::waits_for(Mode::Proxy, 1);
        let offer = site.reply(&firmware(mac(1), DISCOVER, what));
        assert_eq!(
            (offer.said, offer.yiaddr, offer.siaddr),
            (Said::Offer, Ipv4Addr::UNSPECIFIED, SERVER)
        );
        assert_eq!(offer.file, file, "{what}");
        assert_eq!(text(&offer, code::CLASS).as_deref(), class.or(Some("PXEClient")), "{what}");
        assert_eq!(offer.option(code::LEASE), None, "{what}: a proxy gives no address");
        assert_eq!(offer.option(code::ROUTER), None, "{what}");
        let control = offer.option(code::VENDOR);
        assert_eq!(control, (what == "bios").then_some(&[6, 1, 8, 255][..]), "{what}");
        // Firmware that asks again, at port 4011.
        site.door = Door::Boot;
        let again = Request { ciaddr: OWN, ..firmware(mac(1), REQUEST, what) };
        let ack = site.reply(&again);
        assert_eq!((ack.said, ack.ciaddr, &ack.file), (Said::Ack, OWN, &file), "{what}");
    }
}

#[test]
fn firmware_without_a_loader_gets_an_address_and_no_file() {
    for (what, arch) in [("uefi-32", 6), ("http-32", 15)] {
        let answer = Site::waits_for(Mode::Reservation, 1).ask(&firmware(mac(1), DISCOVER, what));
        assert_eq!(answer.why, Why::NoLoader(arch));
        let reply = answer.reply.unwrap();
        assert_eq!((reply.yiaddr, reply.file.as_str()), (OWN, ""));
        let answer = Site::waits_for(Mode::Proxy, 1).ask(&firmware(mac(1), DISCOVER, what));
        assert_eq!((answer.reply, answer.why), (None, Why::NoLoader(arch)));
    }
}

#[test]
fn without_a_run_that_waits_there_is_nothing_to_boot() {
    let answer = Site::new(Mode::Reservation).ask(&firmware(mac(1), DISCOVER, "uefi"));
    assert_eq!(answer.why, Why::Address(OWN));
    let reply = answer.reply.unwrap();
    assert_eq!((reply.file.as_str(), reply.siaddr), ("", Ipv4Addr::UNSPECIFIED));
    let answer = Site::new(Mode::Proxy).ask(&firmware(mac(1), DISCOVER, "uefi"));
    assert_eq!((answer.reply, answer.why), (None, Why::NoWindow));
}

#[test]
fn a_proxy_answers_nobody_who_only_wants_an_address() {
    let mut site = Site::waits_for(Mode::Proxy, 1);
    assert_eq!(site.ask(&plain(mac(1), DISCOVER, &[])).why, Why::NotForUs);
    assert_eq!(site.ask(&firmware(mac(1), REQUEST, "uefi")).why, Why::NotForUs, "not at port 67");
    site.door = Door::Boot;
    assert_eq!(site.ask(&firmware(mac(1), DISCOVER, "uefi")).why, Why::NotForUs);
}

#[test]
fn strangers_get_nothing() {
    for mode in [Mode::Proxy, Mode::Reservation] {
        for what in ["uefi", "http", "ipxe"] {
            let answer = Site::waits_for(mode, 1).ask(&firmware(mac(99), DISCOVER, what));
            assert_eq!((answer.reply, answer.why), (None, Why::Stranger));
        }
    }
    let lost = plain(mac(99), REQUEST, &[(code::REQUESTED, &[10, 30, 0, 5])]);
    assert_eq!(Site::new(Mode::Reservation).ask(&lost).reply, None, "not even a NAK");
}

#[test]
fn one_mac_has_one_address_whatever_its_client_identifier() {
    let mut site = Site::new(Mode::Reservation);
    let mut seen = Vec::new();
    for id in [
        &b"\x00uuid-of-the-firmware"[..],
        &b"\x01\x0c\x42\xa1\x00\x00\x02"[..],
        &b"\xff\x12\x34duid"[..],
    ] {
        seen.push(site.reply(&plain(mac(2), DISCOVER, &[(61, id)])).yiaddr);
    }
    assert_eq!(seen, [Ipv4Addr::new(10, 30, 0, 100); 3]);
}

#[test]
fn what_a_machine_is_told_of_its_network() {
    let mut site = Site::new(Mode::Reservation);
    let reply = site.reply(&plain(
        mac(1),
        REQUEST,
        &[
            (code::SERVER, &SERVER.octets()),
            (code::REQUESTED, &OWN.octets()),
            (code::WANTED, WANTED),
        ],
    ));
    assert_eq!((reply.said, reply.yiaddr), (Said::Ack, OWN));
    for (code, data) in [
        (code::SERVER, &SERVER.octets()[..]),
        (code::NETMASK, &[255, 255, 255, 0]),
        (code::BROADCAST, &[10, 30, 0, 255]),
        (code::ROUTER, &[10, 30, 0, 1]),
        (code::DNS, &[10, 30, 0, 3]),
        (code::NTP, &[10, 30, 0, 4]),
        (code::DOMAIN, b"lab.example"),
        (code::HOST_NAME, b"n1"),
        (code::MTU, &[0x23, 0x28]),
        (code::LEASE, &[0, 0, 0x0e, 0x10]),
        (code::RENEW, &[0, 0, 0x07, 0x08]),
        (code::REBIND, &[0, 0, 0x0c, 0x4e]),
    ] {
        assert_eq!(reply.option(code), Some(data), "option {code}");
    }
    // What was not asked for is left out.
    let short = site.reply(&plain(mac(1), DISCOVER, &[]));
    assert_eq!((short.option(code::MTU), short.option(code::HOST_NAME)), (None, None));
}

#[test]
fn the_bytes_of_an_offer() {
    let mut site = Site::waits_for(Mode::Reservation, 1);
    let request = firmware(mac(1), DISCOVER, "uefi");
    let relay = Request {
        giaddr: Ipv4Addr::new(10, 30, 0, 1),
        relay: Some(b"\x01\x04port".to_vec()),
        ..request
    };
    let bytes = site.reply(&relay).encode();
    assert_eq!(bytes[..4], [2, 1, 6, 0]);
    assert_eq!(bytes[4..8], [0xde, 0xad, 0xbe, 0xef]);
    assert_eq!(bytes[10..12], [0x80, 0], "the broadcast bit comes back");
    assert_eq!(bytes[16..20], OWN.octets());
    assert_eq!(bytes[20..24], SERVER.octets());
    assert_eq!(bytes[24..28], [10, 30, 0, 1]);
    assert_eq!(bytes[28..34], mac(1).0);
    assert_eq!(&bytes[108..120], b"snponly.efi\0");
    assert_eq!(bytes[236..240], [99, 130, 83, 99]);
    let options: Vec<u8> = codes(&bytes[240..]);
    let expected = [1, 3, 6, 12, 15, 26, 28, 42, 51, 53, 54, 58, 59, 66, 67, 97, 82];
    assert_eq!(options, expected, "the relay's option is the last");
    assert!(bytes.windows(6).any(|w| w == b"\x01\x04port"), "and comes back as it was");
}

/// The codes up to the end mark.
fn codes(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [code, length, tail @ ..] = rest {
        if *code == 255 {
            break;
        }
        out.push(*code);
        rest = &tail[usize::from(*length)..];
    }
    out
}

#[test]
fn requests_by_the_state_of_the_client() {
    let other = [10, 30, 0, 77];
    let mut site = Site::new(Mode::Reservation);
    let said = |site: &mut Site, r: &Request| site.ask(r).reply.map(|r| r.said);
    // SELECTING (RFC 2131 §4.3.2).
    let selecting = |server: Ipv4Addr, wants: [u8; 4]| {
        plain(mac(1), REQUEST, &[(code::SERVER, &server.octets()), (code::REQUESTED, &wants)])
    };
    assert_eq!(said(&mut site, &selecting(SERVER, OWN.octets())), Some(Said::Ack));
    assert_eq!(said(&mut site, &selecting(SERVER, other)), Some(Said::Nak));
    let elsewhere = Ipv4Addr::new(10, 30, 0, 9);
    let answer = site.ask(&selecting(elsewhere, other));
    assert_eq!((answer.reply, answer.why), (None, Why::TookOther(elsewhere)));
    // INIT-REBOOT.
    let rebooted = |wants: &[u8]| plain(mac(1), REQUEST, &[(code::REQUESTED, wants)]);
    assert_eq!(said(&mut site, &rebooted(&OWN.octets())), Some(Said::Ack));
    let nak = site.reply(&rebooted(&other));
    assert_eq!((nak.said, nak.yiaddr, nak.file.as_str()), (Said::Nak, Ipv4Addr::UNSPECIFIED, ""));
    // RENEWING and REBINDING.
    let renewing = |has: Ipv4Addr| Request { ciaddr: has, ..plain(mac(1), REQUEST, &[]) };
    let ack = site.reply(&renewing(OWN));
    assert_eq!((ack.said, ack.ciaddr, ack.yiaddr), (Said::Ack, OWN, OWN));
    assert_eq!(said(&mut site, &renewing(other.into())), Some(Said::Nak));
    // A NAK behind a relay reaches the client only as a broadcast.
    let behind = Request { giaddr: Ipv4Addr::new(10, 30, 0, 1), flags: 0, ..rebooted(&other) };
    assert_eq!(site.reply(&behind).flags, 0x8000);
    // INFORM: no address, no lease.
    let inform = Request { kind: Kind::Inform, ciaddr: OWN, ..plain(mac(1), DISCOVER, &[]) };
    let ack = site.reply(&inform);
    assert_eq!(
        (ack.said, ack.yiaddr, ack.option(code::LEASE)),
        (Said::Ack, Ipv4Addr::UNSPECIFIED, None)
    );
    // RELEASE: the address stays its own.
    let release = Request { kind: Kind::Release, ciaddr: OWN, ..plain(mac(1), DISCOVER, &[]) };
    assert_eq!(site.ask(&release).reply, None);
}

#[test]
fn an_address_is_never_offered_before_it_can_be_kept() {
    let mut site = Site::new(Mode::Reservation);
    let answer = site.ask(&plain(mac(2), DISCOVER, &[]));
    let first = Ipv4Addr::new(10, 30, 0, 100);
    let record = Record::Given { lan: "provision".into(), mac: mac(2), address: first };
    assert_eq!(answer.keep, Some(record.clone()));
    // Nobody said that it is kept: it is asked for again with the ACK.
    let request = plain(mac(2), REQUEST, &[(code::REQUESTED, &first.octets())]);
    assert_eq!(site.ask(&request).keep, Some(record.clone()));
    site.leases.kept(&record);
    assert_eq!(site.ask(&request).keep, None);
}

#[test]
fn after_the_leases_are_lost_each_machine_keeps_what_it_had() {
    let mut site = Site::new(Mode::Reservation);
    let had = Ipv4Addr::new(10, 30, 0, 101);
    let rebooted = plain(mac(3), REQUEST, &[(code::REQUESTED, &had.octets())]);
    let answer = site.ask(&rebooted);
    assert_eq!(answer.reply.map(|r| (r.said, r.yiaddr)), Some((Said::Ack, had)));
    assert!(answer.keep.is_some());
    let renewing = Request { ciaddr: had, ..plain(mac(2), REQUEST, &[]) };
    assert_eq!(site.reply(&renewing).said, Said::Nak, "it is another's by now");
}

#[test]
fn a_range_that_is_used_up_gives_nothing_and_takes_nothing() {
    let mut site = Site::new(Mode::Reservation);
    let got: Vec<_> = [2, 3].map(|n| site.reply(&plain(mac(n), DISCOVER, &[])).yiaddr).into();
    assert_eq!(got, [Ipv4Addr::new(10, 30, 0, 100), Ipv4Addr::new(10, 30, 0, 101)]);
    let answer = site.ask(&plain(mac(4), DISCOVER, &[]));
    assert_eq!((answer.reply, answer.why), (None, Why::Exhausted));
    assert_eq!(site.reply(&plain(mac(2), DISCOVER, &[])).yiaddr, got[0], "who has one keeps it");
    // A machine with an address of its own needs none of the range.
    assert_eq!(site.reply(&plain(mac(1), DISCOVER, &[])).yiaddr, OWN);
}

#[test]
fn what_the_network_itself_uses_is_not_given() {
    let mut site = Site::new(Mode::Reservation);
    site.lan.range = Some("10.30.0.1-10.30.0.12".parse().unwrap());
    let got: Vec<u8> =
        [2, 3, 4].map(|n| site.reply(&plain(mac(n), DISCOVER, &[])).yiaddr.octets()[3]).into();
    // .1 router, .2 we, .3 DNS, .4 NTP.
    assert_eq!(got, [5, 6, 7]);
}

#[test]
fn a_declined_address_is_not_offered_again() {
    let mut site = Site::new(Mode::Reservation);
    let first = site.reply(&plain(mac(2), DISCOVER, &[])).yiaddr;
    let decline = plain(mac(2), DECLINE, &[(code::REQUESTED, &first.octets())]);
    let answer = site.ask(&decline);
    assert_eq!((&answer.reply, &answer.why), (&None, &Why::Declined(first)));
    assert!(matches!(answer.keep, Some(Record::Declined { .. })), "it is remembered");
    assert_ne!(site.reply(&plain(mac(2), DISCOVER, &[])).yiaddr, first);
    // Nobody declines an address that is not its own, nor the one of the inventory.
    let foreign = plain(mac(3), DECLINE, &[(code::REQUESTED, &first.octets())]);
    assert_eq!(site.ask(&foreign).why, Why::NotForUs);
    let own = plain(mac(1), DECLINE, &[(code::REQUESTED, &OWN.octets())]);
    assert_eq!(site.ask(&own).why, Why::OwnDeclined(OWN));
}

#[test]
fn two_machines_with_one_mac_do_not_both_boot() {
    let mut other = UUID;
    other[15] ^= 1;
    for mode in [Mode::Proxy, Mode::Reservation] {
        // The inventory knows the UUID.
        let mut site = Site::waits_for(mode, 1);
        let stranger = Request { uuid: Some(other), ..firmware(mac(1), DISCOVER, "uefi") };
        let answer = site.ask(&stranger);
        assert!(matches!(answer.why, Why::OtherUuid(_)), "{:?}", answer.why);
        assert!(answer.reply.is_none_or(|r| r.file.is_empty()));
        // The machine itself is served, whoever was first.
        site.first_uuid = Some(other);
        let reply = site.reply(&firmware(mac(1), DISCOVER, "uefi"));
        assert!(reply.file.contains("snponly"), "{mode:?}");
        // It does not, and another was first.
        let mut site = Site { first_uuid: Some(UUID), ..Site::waits_for(mode, 2) };
        assert!(
            site.ask(&firmware(mac(2), DISCOVER, "uefi")).reply.unwrap().file.contains("snponly")
        );
        let answer = site.ask(&Request { uuid: Some(other), ..firmware(mac(2), DISCOVER, "uefi") });
        assert!(matches!(answer.why, Why::OtherUuid(_)), "{:?}", answer.why);
    }
}

/// One network and one machine that is waited for; who asked with its MAC and was another.
struct Waits {
    others: Mutex<Vec<(Mac, String)>>,
}

#[async_trait]
impl Netboot for Waits {
    async fn boot_of(&self, _: Mac) -> Option<NetbootPlan> {
        Some(plan(1))
    }
    async fn other_asked(&self, mac: Mac, stated: &str) {
        self.others.lock().unwrap().push((mac, stated.into()));
    }
}

#[async_trait]
impl Roster for Waits {
    async fn lans(&self) -> Arc<[Lan]> {
        [lan()].into()
    }
    async fn residents(&self, _: Mac) -> Arc<Residents> {
        residents().into()
    }
}

#[tokio::test]
async fn who_waits_is_told_of_a_machine_that_states_another_uuid() {
    let mut other = UUID;
    other[15] ^= 1;
    for mode in [Mode::Proxy, Mode::Reservation] {
        let state = tempfile::tempdir().unwrap();
        let settings = dhcp::Settings {
            mode,
            interfaces: Vec::new(),
            unknown: dhcp::Unknown::Refuse,
            loaders: Loaders::default(),
            lease_s: 60,
            ports: dhcp::Ports::default(),
        };
        let site = Arc::new(Waits { others: Mutex::default() });
        let server =
            dhcp::DhcpServer::open(state.path(), settings, site.clone(), site.clone()).unwrap();
        let interface = dhcp::Interface { name: "eth0".into(), addresses: vec![SERVER] };
        let origin =
            dhcp::Origin { interface, door: Door::Dhcp, peer: "0.0.0.0:68".parse().unwrap() };
        let ask = |uuid: [u8; 16]| {
            let stated = [&[0], uuid.as_slice()].concat();
            let class = b"PXEClient:Arch:00007:UNDI:003016".as_slice();
            bytes(mac(1), DISCOVER, &[(60, class), (93, &[0, 7]), (97, &stated)])
        };
        let reply = server.hear(&ask(UUID), &origin).await.expect("its own");
        let loads = |bytes: &[u8]| bytes.windows(7).any(|w| w == b"snponly");
        assert!(loads(&reply.0) && site.others.lock().unwrap().is_empty());
        let reply = server.hear(&ask(other), &origin).await;
        assert!(reply.is_none_or(|r| !loads(&r.0)), "nothing to boot");
        let stated = identity::clean_uuid(&hex::encode(other)).unwrap();
        assert_eq!(*site.others.lock().unwrap(), [(mac(1), stated)]);
    }
}

#[test]
fn ipxe_does_not_wait_for_a_proxy() {
    let reply = Site::new(Mode::Reservation).reply(&firmware(mac(1), DISCOVER, "ipxe"));
    assert_eq!(reply.option(code::IPXE), Some(&[176, 1, 1][..]));
}

#[test]
fn packets_that_are_none_are_named() {
    let good = bytes(mac(1), DISCOVER, &[]);
    let with = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        parse(&bad)
    };
    assert_eq!(parse(&good[..239]), Err(Malformed::Short));
    assert_eq!(with(0, 2), Err(Malformed::NotRequest));
    assert_eq!(with(1, 32), Err(Malformed::NotEthernet));
    assert_eq!(with(2, 200), Err(Malformed::NotEthernet));
    assert_eq!(with(28, 0xff), Err(Malformed::BadMac));
    assert_eq!(with(236, 0), Err(Malformed::NoCookie));
    assert_eq!(with(242, 2), Err(Malformed::NoKind), "an offer is no request");
    // One option that makes no sense does not cost the others.
    let odd = plain(
        mac(1),
        DISCOVER,
        &[(code::REQUESTED, &[1]), (code::UUID, &[9]), (code::ARCH, &[0, 7])],
    );
    assert_eq!((odd.requested, odd.uuid, odd.arch), (None, None, Some(7)));
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700), patch in any::<bool>()) {
        let mut bytes = bytes;
        // Most random bytes stop at the header: let half of them come to the options.
        if patch && bytes.len() > 240 {
            bytes[..3].copy_from_slice(&[1, 1, 6]);
            bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
        }
        if let Ok(request) = parse(&bytes) {
            let request = Request { mac: mac(1), ..request };
            for mode in [Mode::Proxy, Mode::Reservation] {
                if let Some(reply) = Site::waits_for(mode, 1).ask(&request).reply {
                    prop_assert!(reply.encode().len() >= 300);
                }
            }
        }
        let _ = farrier::tftp::packet::parse(&bytes);
    }

    /// Whoever asks in whatever order, a kill in between included: no address is two MACs'.
    #[test]
    fn no_address_is_ever_given_twice(
        steps in proptest::collection::vec((2_u8..40, 0_u8..4), 1..200)
    ) {
        let mut site = Site::new(Mode::Reservation);
        site.lan.range = Some("10.30.0.100-10.30.0.120".parse().unwrap());
        for n in 2..40 {
            site.residents.by_mac.insert(mac(n), Resident {
                machine: MachineId(n.into()), name: format!("n{n}").into(), address: None, uuid: None, rack: "r".into(),
            });
        }
        let mut journal: Vec<Record> = Vec::new();
        let mut owner: std::collections::BTreeMap<Ipv4Addr, Mac> = std::collections::BTreeMap::new();
        for (n, what) in steps {
            let request = match (what, site.leases.of("provision", mac(n))) {
                (0, Some(has)) => plain(mac(n), DECLINE, &[(code::REQUESTED, &has.octets())]),
                (1, Some(has)) => plain(mac(n), REQUEST, &[(code::REQUESTED, &has.octets())]),
                _ => plain(mac(n), DISCOVER, &[]),
            };
            let answer = site.ask(&request);
            if let Some(record) = &answer.keep {
                journal.push(record.clone());
                site.leases.kept(record);
                if let Record::Declined { address, .. } = record {
                    owner.remove(address);
                }
            }
            if let Some(reply) = answer.reply.filter(|r| r.said != Said::Nak) {
                let holder = owner.entry(reply.yiaddr).or_insert(mac(n));
                prop_assert_eq!(*holder, mac(n), "{} given twice", reply.yiaddr);
            }
            if what == 3 {
                // Killed here: what is on the disk is all that there is.
                site.leases = Leases::default();
                for record in &journal {
                    site.leases.replay(record);
                }
            }
        }
    }
}

fn nic(name: &str, ports: &[Port], network: &str) -> Nic {
    Nic {
        name: name.into(),
        ports: ports.to_vec(),
        bond: None,
        network: Some(network.into()),
        tagged: false,
        addressing: Addressing::Dhcp,
    }
}

#[test]
fn the_network_of_an_installed_system() {
    let port = |name: &str| Port::Named(name.into());
    let lans = [
        lan(),
        Lan {
            vlan: Some(120),
            mtu: Some(9000),
            ..Lan::new("data", "10.40.0.0/16".parse().unwrap())
        },
    ];
    let nics = [
        Nic {
            bond: Some(BondMode::Lacp),
            addressing: Addressing::Static,
            ..nic("bond0", &[Port::Boot, port("enp129s0f1np1")], "provision")
        },
        Nic { tagged: true, ..nic("lan1", &[port("enp65s0*")], "data") },
    ];
    let host = Host { name: "n1", mac: Some(mac(1)), addresses: &[OWN] };
    insta::assert_snapshot!("network_config", network_config(&host, &nics, &lans).unwrap());
    // What the profile asks for and the machine has not.
    let lacks = |host: &Host<'_>, nics: &[Nic]| network_config(host, nics, &lans).unwrap_err();
    let why = lacks(&Host { addresses: &[Ipv4Addr::new(10, 99, 0, 1)], ..host }, &nics);
    assert!(why.what.contains("`n1` has no address in network `provision`"), "{why}");
    assert!(why.what.contains("`bond0`") && why.hint.contains("reservation"), "{why:?}");
    let why = lacks(&Host { mac: None, ..host }, &nics);
    assert!(why.what.contains("`n1` has no `mac`") && why.what.contains("`bond0p0`"), "{why}");
    let why = lacks(&host, &[nic("lan0", &[Port::Boot], "gone")]);
    assert!(why.what.contains("is in network `gone`"), "{why}");
}

/// The findings of an inventory with these networks and this profile, as `line: message`.
fn findings(networks: &str, more: &str) -> Vec<String> {
    let text = format!(
        "schema = 1\n[[site]]\nname = \"s\"\n[[rack]]\nname = \"r\"\nsite = \"s\"\n\
         [[profile]]\nname = \"p\"\nworkflow = \"w\"\n{more}\n[[pool]]\nname = \"p\"\nprofile = \"p\"\n{networks}\n\
         [[machine]]\nname = \"n1\"\nrack = \"r\"\npool = \"p\"\nserial = \"S1\"\nhost = {{ address = \"10.30.0.11\" }}\n\
         bmc = {{ url = \"https://10.20.0.1\", credential = \"bmc\" }}\n"
    );
    let (_, found) = config::inventory::parse(&[Source::new("i.toml", text)]);
    found.into_iter().filter(config::Diagnostic::is_error).map(|d| d.message).collect()
}

fn one(network: &str) -> Vec<String> {
    findings(
        &format!(
            "[[network]]\nname = \"a\"\npurpose = \"provision\"\nsubnet = \"10.30.0.0/24\"\n{network}"
        ),
        "",
    )
}

#[test]
fn networks_are_checked_at_their_place() {
    let good = "gateway = \"10.30.0.1\"\nrange = \"10.30.0.100-10.30.0.200\"\ndns = [\"10.30.0.3\"]\n\
                ntp = \"10.30.0.4\"\nmtu = 9000\nvlan = 12\ndomain = \"lab.example\"\nrelay = \"10.99.0.1\"";
    assert_eq!(one(good), [""; 0]);
    for (line, message) in [
        ("gateway = \"10.31.0.1\"", "`10.31.0.1` is no host's address in `10.30.0.0/24`"),
        ("gateway = \"10.30.0.255\"", "`10.30.0.255` is no host's address in `10.30.0.0/24`"),
        ("gateway = \"router\"", "`router` is not an address"),
        (
            "range = \"10.30.0.100\"",
            "`10.30.0.100` is not a range; write one like `10.30.0.100-10.30.0.200`",
        ),
        ("range = \"10.30.0.9-10.30.0.1\"", "`10.30.0.9-10.30.0.1` ends before it begins"),
        ("range = \"10.30.0.250-10.30.1.5\"", "`10.30.1.5` is no host's address in `10.30.0.0/24`"),
        ("range = \"10.30.0.0-10.30.0.5\"", "`10.30.0.0` is no host's address in `10.30.0.0/24`"),
        (
            "gateway = \"10.30.0.100\"\nrange = \"10.30.0.100-10.30.0.200\"",
            "the gateway `10.30.0.100` lies in the range",
        ),
        (
            "range = \"10.30.0.10-10.30.0.20\"",
            "the address `10.30.0.11` of `n1` lies in the range of network `a`",
        ),
        ("dns = [\"10.30.0.3\", \"ns1\"]", "`ns1` is not an address"),
        ("domain = \"lab_example!\"", "`lab_example!` is not a domain"),
        ("mtu = 10", "`mtu` in `[[network]]` must be from 68 to 65535"),
        ("vlan = 4095", "`vlan` in `[[network]]` must be from 1 to 4094"),
        ("relays = \"10.99.0.1\"", "unknown key `relays` in `[[network]]`"),
    ] {
        assert_eq!(one(line), [message], "{line}");
    }
    let two = "[[network]]\nname = \"b\"\npurpose = \"data\"\nsubnet = \"10.31.0.0/24\"\nrelay = \"10.30.0.9\"";
    assert_eq!(one(two), ["the relay `10.30.0.9` of network `b` means network `a` too"]);
}

#[test]
fn interfaces_are_checked_against_networks_and_machines() {
    let network = "[[network]]\nname = \"a\"\npurpose = \"provision\"\nsubnet = \"10.31.0.0/24\"";
    let nic =
        |lines: &str| findings(network, &format!("[[profile.nic]]\nname = \"lan0\"\n{lines}"));
    assert_eq!(nic("port = \"boot\"\nnetwork = \"a\""), [""; 0]);
    for (lines, message) in [
        ("network = \"a\"", "`port` is missing in `profile.nic`"),
        ("port = \"boot\"\nnetwork = \"b\"", "there is no network `b`"),
        (
            "port = \"boot\"\nnetwork = \"a\"\ntagged = true",
            "network `a` has no `vlan` to tag with",
        ),
        (
            "port = \"boot\"\nnetwork = \"a\"\naddress = \"static\"",
            "interface `lan0` is static, and `n1` has no `host.address` in network `a`",
        ),
        ("port = [\"boot\", \"enp1s0\"]", "several ports are one interface only in a bond"),
        ("port = \"/dev/eth0\"", "`/dev/eth0` names no port"),
        ("port = []", "`port` names no port"),
        (
            "port = [\"boot\", \"a\"]\nbond = \"802.3ad\"\n[[profile.nic]]\nname = \"lan0p1\"\nport = \"c\"",
            "`lan0p1` is the name of a member of `lan0`",
        ),
        ("port = \"boot\"\nbond = \"lacp\"", "unknown bond `lacp` in `profile.nic`"),
    ] {
        assert_eq!(nic(lines), [message], "{lines}");
    }
}

#[test]
fn the_listeners_are_checked() {
    let read = |text: &str| {
        let text = format!("schema = 1\n{text}");
        let (daemon, found) = config::daemon::parse(&Source::new("farrier.toml", text));
        let found: Vec<String> = found.into_iter().map(|d| d.message).collect();
        (daemon, found)
    };
    let (daemon, found) = read(
        "[listen.dhcp]\nmode = \"proxy\"\ninterfaces = [\"eth1\", \"bond0.30\"]\nunknown = \"list\"\nlease = \"2h\"\n\
         [listen.tftp]\nbind = [\"10.30.0.2\", \"10.31.0.2:1069\"]\n\
         [loaders]\npaths = \"boot\"\nx64 = \"ipxe.efi\"\n",
    );
    assert_eq!(found, [""; 0]);
    let daemon = daemon.unwrap();
    let dhcp = daemon.dhcp.unwrap();
    assert_eq!((dhcp.mode, dhcp.lease_s, dhcp.list_unknown), (DhcpMode::Proxy, 7200, true));
    let bound: Vec<String> = daemon.tftp.unwrap().bind.iter().map(ToString::to_string).collect();
    assert_eq!(bound, ["10.30.0.2:69", "10.31.0.2:1069"]);
    assert_eq!(daemon.loaders.names.get("x64").map(String::as_str), Some("ipxe.efi"));
    assert!(read("[listen.dhcp]\nmode = \"off\"\n").0.unwrap().dhcp.is_none());
    for (text, message) in [
        (
            "[listen.dhcp]\nmode = \"on\"\ninterfaces = \"e\"\n",
            "unknown mode `on` in `listen.dhcp`",
        ),
        ("[listen.dhcp]\nmode = \"proxy\"\n", "`interfaces` is missing in `listen.dhcp`"),
        (
            "[listen.dhcp]\nmode = \"proxy\"\ninterfaces = \"a/b\"\n",
            "`a/b` is not the name of an interface",
        ),
        ("[listen.dhcp]\nmode = \"off\"\nlease = \"5s\"\n", "`lease` must be from 2m to 30d"),
        ("[listen.tftp]\nbind = \"eth0\"\n", "`eth0` is not an address"),
        ("[loaders]\nx64 = \"../x.efi\"\n", "`../x.efi` is not a plain file name"),
    ] {
        assert_eq!(read(text).1, [message], "{text}");
    }
}

#[test]
fn the_examples_that_ship_have_a_network_for_each_machine() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("inventory.example.toml")).unwrap();
    let (inventory, found) =
        config::inventory::parse(&[Source::new("inventory.example.toml", text)]);
    assert_eq!(found.iter().filter(|d| d.is_error()).count(), 0, "{}", config::render(&found));
    let provision = inventory.networks.iter().find(|n| n.name == "provision").unwrap();
    assert!(provision.lan.range.is_some() && provision.lan.gateway.is_some());
}

/// All machines are in one rack.
struct OneRack;

#[async_trait]
impl Racks for OneRack {
    async fn rack_of(&self, _: IpAddr) -> Option<Arc<str>> {
        Some("r1".into())
    }
}

/// A boot listener whose files are as large as is asked for, and the most that were on their way at
/// once.
async fn paced_files(limits: Limits) -> (String, Arc<AtomicUsize>) {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let file = move |UrlPath(bytes): UrlPath<usize>| {
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let pieces = futures_util::stream::unfold((bytes, now.clone()), |(left, now)| async move {
            if left == 0 {
                now.fetch_sub(1, Ordering::SeqCst);
                return None;
            }
            tokio::task::yield_now().await;
            let piece = left.min(64 * 1024);
            Some((Ok::<_, std::io::Error>(vec![7_u8; piece]), (left - piece, now)))
        });
        async move { axum::body::Body::from_stream(pieces) }
    };
    let router = Router::new()
        .route("/boot/m/image/{bytes}", get(file.clone()))
        .route("/boot/m/disk/{bytes}", get(file));
    let router =
        paced(router.route("/boot/m/ipxe", get(async || "script")), limits, Arc::new(OneRack));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    (base, seen)
}

#[tokio::test]
async fn a_rack_fetches_no_more_files_at_once_than_it_may() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (base, most) = paced_files(Limits { files: 2, bytes_per_s: None }).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let fetch = |n: usize| {
        let kind = if n.is_multiple_of(2) { "image" } else { "disk" };
        let request = client.get(format!("{base}/boot/m/{kind}/{}", 300_000 + n)).send();
        async move { request.await.unwrap().bytes().await.unwrap().len() }
    };
    let lengths = futures_util::future::join_all((0..12).map(fetch)).await;
    assert_eq!(lengths, (300_000..300_012).collect::<Vec<_>>(), "each has its whole file");
    assert!(most.load(Ordering::SeqCst) <= 2, "{} at once", most.load(Ordering::SeqCst));
    // Scripts do not queue behind images.
    let held = client.get(format!("{base}/boot/m/image/50000000")).send().await.unwrap();
    let also = client.get(format!("{base}/boot/m/image/50000000")).send().await.unwrap();
    let script = client.get(format!("{base}/boot/m/ipxe")).send().await.unwrap();
    assert_eq!(script.text().await.unwrap(), "script");
    // Who goes away makes room.
    drop((held, also));
    assert_eq!(fetch(0).await, 300_000);
}

#[tokio::test]
async fn a_rack_gets_no_more_bytes_a_second_than_it_may() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (base, _) = paced_files(Limits { files: 8, bytes_per_s: Some(4_000_000) }).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let start = Instant::now();
    let fetch = |_| {
        let request = client.get(format!("{base}/boot/m/image/1000000")).send();
        async move { request.await.unwrap().bytes().await.unwrap().len() }
    };
    let all = futures_util::future::join_all((0..4).map(fetch)).await;
    assert_eq!(all, [1_000_000; 4]);
    // 4 MB at 4 MB/s, less a tenth of a second's share that may go at once. It can't be faster.
    assert!(start.elapsed() >= Duration::from_millis(850), "{:?}", start.elapsed());
}

#[test]
fn what_other_servers_mean_for_the_mode() {
    use farrier::app::doctor::{Level, servers};
    use farrier::config::netboot::Dhcp;
    use farrier::dhcp::packet::Heard;
    let heard = |server: u8, gives: bool, file: &str| Heard {
        mac: mac(1),
        server: Ipv4Addr::new(10, 30, 0, server),
        address: gives.then_some(OWN),
        file: file.into(),
        next: Ipv4Addr::UNSPECIFIED,
    };
    let dhcp =
        |mode| Dhcp { mode, interfaces: vec!["eth1".into()], list_unknown: false, lease_s: 3600 };
    let (proxy, own) = (dhcp(DhcpMode::Proxy), dhcp(DhcpMode::Reservation));
    let (ok, warn, fail) = (Level::Ok, Level::Warn, Level::Fail);
    let other = vec![heard(9, true, "")];
    let boots = vec![heard(9, true, ""), heard(9, true, "pxelinux.0")];
    let beside = vec![heard(9, true, ""), heard(8, false, "")];
    let two = vec![heard(9, true, ""), heard(8, true, "")];
    for (mode, answers, levels) in [
        (&own, vec![], vec![ok]),
        (&own, other.clone(), vec![fail]),
        (&own, boots.clone(), vec![fail]),
        (&own, vec![heard(8, false, "x.efi")], vec![fail]),
        (&proxy, vec![], vec![fail]),
        (&proxy, other, vec![ok]),
        (&proxy, boots, vec![fail]),
        (&proxy, beside, vec![warn, ok]),
        (&proxy, two, vec![ok, ok, warn]),
    ] {
        let found = servers("eth1", Ok(answers.clone()), Some(mode), &[]);
        let got: Vec<Level> = found.iter().map(|f| f.level).collect();
        assert_eq!(got, levels, "{:?} {answers:?}: {found:?}", mode.mode);
    }
    let found = servers("eth1", Err("no such interface".into()), Some(&own), &[]);
    assert_eq!(found[0].level, fail);
}

/// Nobody at this address may load.
struct Closed(Ipv4Addr);

#[async_trait]
impl LoaderGate for Closed {
    async fn may_load(&self, from: Ipv4Addr) -> bool {
        from != self.0
    }
}

/// Fetches a file from a TFTP server the slow way: one block after the other, each acknowledged.
async fn fetch_by_tftp(server: SocketAddr, from: &str, request: &[u8]) -> Result<Vec<u8>, u8> {
    let socket = tokio::net::UdpSocket::bind((from, 0)).await.unwrap();
    socket.send_to(request, server).await.unwrap();
    let (mut got, mut next, mut buffer) = (Vec::new(), 1_u16, [0; 2048]);
    loop {
        let received = tokio::time::timeout(Duration::from_secs(30), socket.recv_from(&mut buffer));
        let (length, peer) = received.await.expect("an answer").unwrap();
        assert_ne!(peer, server, "a transfer has a port of its own, refusals of requests aside");
        match buffer[..length] {
            [0, 3, a, b, ..] => {
                let number = u16::from_be_bytes([a, b]);
                if number == next {
                    got.extend_from_slice(&buffer[4..length]);
                    next = next.wrapping_add(1);
                }
                socket.send_to(&[0, 4, a, b], peer).await.unwrap();
                if length < 516 {
                    return Ok(got);
                }
            }
            [0, 5, _, code, ..] => return Err(code),
            ref other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_machines_load_at_once_and_nobody_loads_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let loader: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    std::fs::write(dir.path().join("snponly.efi"), &loader).unwrap();
    std::fs::write(dir.path().join("passwd"), "x").unwrap();
    let loaders = Loaders { dirs: vec![dir.path().into()], ..Loaders::default() };
    let bind = vec!["127.0.0.1:0".parse().unwrap()];
    let gate: Arc<dyn LoaderGate> = Arc::new(Closed(Ipv4Addr::new(127, 9, 9, 9)));
    let server = TftpServer::new(tftp::Settings { bind, loaders, gate: Some(gate) });
    let sockets = server.bind().await.unwrap();
    let address = sockets[0].local_addr().unwrap();
    let (_ending, ended) = tokio::sync::watch::channel(false);
    tokio::spawn(async move { server.serve(sockets, ended).await });

    let want = b"\0\x01snponly.efi\0octet\0";
    let all = (0..200_u8)
        .map(|n| async move { fetch_by_tftp(address, &format!("127.1.0.{}", n + 1), want).await });
    let got = futures_util::future::join_all(all).await;
    assert!(got.iter().all(|g| g.as_ref() == Ok(&loader)), "each has the whole loader");
    for name in [
        "passwd",
        "../passwd",
        "/etc/passwd",
        "./snponly.efi",
        "snponly.efi/../passwd",
        "arm64.efi",
    ] {
        let request = [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
        assert_eq!(fetch_by_tftp(address, "127.1.0.1", &request).await, Err(1), "{name}");
    }
    assert_eq!(fetch_by_tftp(address, "127.9.9.9", want).await, Err(2), "no run waits for it");
}

/// What a DHCP server would have given: one address, in one network.
struct OneLease(&'static str, Ipv4Addr);

#[async_trait]
impl Lessor for OneLease {
    fn lease_of(&self, network: &str, _: Mac) -> Option<Ipv4Addr> {
        (network == self.0).then_some(self.1)
    }
    async fn lease(&self, lan: &Lan, mac: Mac) -> Result<Ipv4Addr, String> {
        self.lease_of(&lan.name, mac).ok_or_else(|| format!("no lease in {}", lan.name))
    }
}

/// A site with two networks, whose machine `n1` is as `host` and `nics` say.
fn site(nics: &str, host: &str) -> config::Loaded {
    let daemon = "schema = 1\n[listen.api]\nbind = \"127.0.0.1:7120\"\n[listen.boot]\nbind = \"10.30.0.2:7121\"\n\
        advertise_url = \"http://10.30.0.2:7121\"\n[listen.dhcp]\nmode = \"reservation\"\ninterfaces = [\"eth1\"]\n\
        [[credential]]\nname = \"bmc\"\nuser = \"u\"\nfrom = { file = \"p\" }\n";
    let inventory = format!(
        "schema = 1\n[[site]]\nname = \"s\"\n[[rack]]\nname = \"r\"\nsite = \"s\"\n\
         [[network]]\nname = \"provision\"\npurpose = \"provision\"\nsubnet = \"10.30.0.0/24\"\nrange = \"10.30.0.100-10.30.0.110\"\n\
         [[network]]\nname = \"data\"\npurpose = \"data\"\nsubnet = \"10.40.0.0/24\"\nrange = \"10.40.0.100-10.40.0.110\"\nvlan = 7\n\
         [[profile]]\nname = \"p\"\nworkflow = \"cpu-node\"\nimage = \"debian\"\n{nics}\n[[pool]]\nname = \"p\"\nprofile = \"p\"\n\
         [[machine]]\nname = \"n1\"\nrack = \"r\"\npool = \"p\"\nserial = \"S1\"\nmac = \"0c:42:a1:00:00:01\"\n{host}\n\
         bmc = {{ url = \"https://10.20.0.1\", credential = \"bmc\" }}\n"
    );
    let workflow = concat!(env!("CARGO_MANIFEST_DIR"), "/workflows/cpu-node.toml");
    let sources = config::Sources {
        daemon: Source::new("farrier.toml", daemon),
        inventory: vec![Source::new("inventory.toml", inventory)],
        workflows: vec![Source::new("cpu-node.toml", std::fs::read_to_string(workflow).unwrap())],
        ..config::Sources::default()
    };
    config::load(&sources, &|_| true).unwrap_or_else(|found| panic!("{}", config::render(&found)))
}

#[tokio::test]
async fn the_first_login_goes_where_the_installed_system_is() {
    let lease = OneLease("provision", Ipv4Addr::new(10, 30, 0, 105));
    let nic = |port: &str, network: &str, more: &str| {
        format!(
            "[[profile.nic]]\nname = \"lan0\"\nport = \"{port}\"\nnetwork = \"{network}\"\n{more}\n"
        )
    };
    let fixed = "address = \"static\"";
    let found = |nics: &str, host: &str| {
        let site = site(nics, host);
        system_network::leased_address(&site, &site.expected[0], None, &lease)
            .map(|a| a.to_string())
    };
    let leased = Some("10.30.0.105".to_string());
    // By its name, which only our own leases can tell.
    assert_eq!(found("", ""), leased);
    assert_eq!(found(&nic("boot", "provision", ""), ""), leased, "DHCP tells the boot MAC");
    assert_eq!(found(&nic("eno2", "provision", fixed), ""), leased, "written into its seed");
    assert_eq!(found(&nic("eno2", "provision", ""), ""), None, "another port's MAC asks there");
    assert_eq!(found(&nic("boot", "data", "tagged = true"), ""), None);
    // What the inventory says counts, a name for DNS too.
    for host in ["10.30.0.11", "n1.example.net"] {
        let host = format!("host = {{ address = \"{host}\" }}");
        assert_eq!(found(&nic("boot", "provision", fixed), &host), None);
    }

    let text = async |nics: &str, host: &str, lessor: Option<&dyn Lessor>| {
        let site = site(nics, host);
        system_network::system_network(&site, &site.expected[0], None, lessor).await
    };
    let lessor: Option<&dyn Lessor> = Some(&lease);
    assert_eq!(text("", "", lessor).await.unwrap(), None, "no interfaces, no file");
    let written = text(&nic("boot", "provision", fixed), "", lessor).await.unwrap().unwrap();
    assert!(written.contains("\"10.30.0.105/24\""), "{written}");
    let host = "host = { address = \"10.30.0.11\" }";
    let written = text(&nic("boot", "provision", fixed), host, lessor).await.unwrap().unwrap();
    assert!(written.contains("\"10.30.0.11/24\""), "{written}");
    for (lessor, what) in [(lessor, "no lease in data"), (None, "has no address in network `data`")]
    {
        let fault = text(&nic("boot", "data", fixed), host, lessor).await.unwrap_err();
        assert_eq!((&*fault.code, fault.class), ("no-system-network", FaultClass::Precondition));
        assert!(fault.message.contains("`n1`") && fault.message.contains(what), "{fault}");
        assert!(fault.hint.is_some());
    }
}
