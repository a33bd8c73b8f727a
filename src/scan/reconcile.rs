//! What was found beside what is expected. Pure; a difference is words for people, never a reason to
//! touch anything.

use super::{Found, Range};
use crate::model::identity::swap_uuid;
use crate::model::network::Mac;
use crate::model::{Expected, Further};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// How a finding and an expectation go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// At its address, with its UUID or with the MAC that its delivery note has.
    Expected,
    /// At its address; nothing on both sides proves it.
    Unproven,
    /// Its UUID or its MAC, at another address than the inventory's.
    Moved,
    /// At its address, another UUID, or the BMC of another serial.
    Mismatch,
    /// The same UUID at more than one address: at most one of them is the machine.
    Twice,
    /// Found, and not in the inventory.
    Unknown,
    /// In the inventory with an address that was scanned, and silent.
    Missing,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Expected,
        Kind::Unproven,
        Kind::Moved,
        Kind::Mismatch,
        Kind::Twice,
        Kind::Unknown,
        Kind::Missing,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Expected => "expected",
            Kind::Unproven => "unproven",
            Kind::Moved => "moved",
            Kind::Mismatch => "mismatch",
            Kind::Twice => "twice",
            Kind::Unknown => "unknown",
            Kind::Missing => "missing",
        }
    }
}

/// One address, or one machine that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    pub kind: Kind,
    pub address: Option<IpAddr>,
    /// The machine of the inventory that is meant, by its place there.
    #[serde(skip)]
    pub expected: Option<usize>,
    pub machine: Option<Arc<str>>,
    pub found: Option<Found>,
    /// For people.
    pub what: String,
}

/// Serials by the MAC of their BMC, as delivery notes have them.
pub type Delivered = BTreeMap<Mac, String>;

/// Compares. `scanned` says where silence means something.
pub fn reconcile(
    expected: &[Arc<Expected>],
    found: Vec<Found>,
    scanned: &[Range],
    delivered: &Delivered,
) -> Vec<Line> {
    let mut at: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
    for (n, machine) in expected.iter().enumerate() {
        for address in addresses(machine) {
            let here = at.entry(address).or_default();
            if !here.contains(&n) {
                here.push(n);
            }
        }
    }
    let further: BTreeMap<IpAddr, (&Expected, &Further)> = expected
        .iter()
        .flat_map(|m| m.bmc.controllers.iter().map(move |c| (&**m, c)))
        .filter_map(|(m, c)| Some((host(&c.url).parse().ok()?, (m, c))))
        .collect();
    let mut by_uuid: BTreeMap<String, usize> = BTreeMap::new();
    for (machine, n) in expected.iter().zip(0..) {
        if let Some(uuid) = machine.identity.uuid.as_deref() {
            by_uuid.entry(either_order(uuid)).or_insert(n);
        }
    }
    let by_serial: BTreeMap<&str, usize> = expected
        .iter()
        .zip(0..)
        .filter_map(|(machine, n)| Some((machine.identity.serial.as_deref()?, n)))
        .collect();
    let mut uuids: BTreeMap<String, usize> = BTreeMap::new();
    for uuid in found.iter().filter_map(uuid) {
        *uuids.entry(either_order(uuid)).or_default() += 1;
    }
    let mut seen = vec![false; expected.len()];
    let mut lines: Vec<Line> = Vec::with_capacity(found.len());
    for found in found {
        let here = at.get(&found.address).map_or(&[][..], Vec::as_slice);
        if let (true, Some((machine, c))) = (here.is_empty(), further.get(&found.address)) {
            lines.push(Line {
                kind: Kind::Unproven,
                address: Some(found.address),
                // Its system is not the machine's: nothing of it is compared.
                expected: None,
                machine: Some(machine.name.clone()),
                found: Some(found),
                what: format!("{}'s controller `{}`; nothing proves it", machine.name, c.name),
            });
            continue;
        }
        let twice =
            uuid(&found).is_some_and(|u| uuids.get(&either_order(u)).is_some_and(|n| *n > 1));
        let named = uuid(&found).and_then(|u| by_uuid.get(&either_order(u))).copied();
        let note = found
            .mac
            .and_then(|mac| delivered.get(&mac))
            .map(|serial| Note { serial, whose: by_serial.get(serial.as_str()).copied() });
        let line = judge(expected, Place { here, named, note }, found, twice);
        for n in here.iter().copied().chain(line.expected) {
            if let Some(seen) = seen.get_mut(n) {
                *seen = true;
            }
        }
        lines.push(line);
    }
    for (machine, n) in expected.iter().zip(0..) {
        let silent = addresses(machine).find(|a| scanned.iter().any(|r| r.contains(*a)));
        if let (Some(address), false) = (silent, seen.get(n).copied().unwrap_or(true)) {
            lines.push(Line {
                kind: Kind::Missing,
                address: Some(address),
                expected: Some(n),
                machine: Some(machine.name.clone()),
                found: None,
                what: format!("{} is expected here, and nothing answers", machine.name),
            });
        }
    }
    lines
}

/// What points to a machine of the inventory.
struct Place<'a> {
    /// Those that the inventory has at this address.
    here: &'a [usize],
    /// The one with this UUID.
    named: Option<usize>,
    /// The delivery note with this MAC.
    note: Option<Note<'a>>,
}

struct Note<'a> {
    serial: &'a str,
    /// `None`: no machine of the inventory has it.
    whose: Option<usize>,
}

fn judge(expected: &[Arc<Expected>], place: Place<'_>, found: Found, twice: bool) -> Line {
    let Place { here, named, note } = place;
    let name = |n: usize| expected.get(n).map(|e| e.name.clone());
    let wanted = |n: usize| expected.get(n).and_then(|e| e.identity.uuid.as_deref());
    let seen = uuid(&found).map(str::to_string);
    let names = || {
        here.iter().filter_map(|n| name(*n)).map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
    };
    let uuid_text = seen.as_deref().unwrap_or("none");
    let at = |n: usize| expected.get(n).map(|e| e.bmc.url.to_string()).unwrap_or_default();
    let also = || match here.is_empty() {
        true => String::new(),
        false => format!("; expected here: {}", names()),
    };
    let has_serial = |here: &[usize]| {
        here.iter().any(|n| expected.get(*n).is_some_and(|e| e.identity.serial.is_some()))
    };
    // The UUID says one machine, the delivery note another one.
    let torn =
        note.as_ref().filter(|note| named.is_some_and(|n| note.whose.is_some_and(|w| w != n)));
    let (kind, who, what) = if let (Some(n), Some(note)) = (named, torn) {
        let what = format!(
            "{} by its UUID; its BMC was delivered with serial {}, {}'s",
            name(n).unwrap_or_default(),
            note.serial,
            note.whose.and_then(name).unwrap_or_default()
        );
        (Kind::Mismatch, Some(n), what)
    } else if let Some(n) = named.filter(|n| here.contains(n)) {
        (Kind::Expected, Some(n), format!("{}, as expected", name(n).unwrap_or_default()))
    } else if let Some(n) = named {
        let (machine, at) = (name(n).unwrap_or_default(), at(n));
        (Kind::Moved, Some(n), format!("{machine}, which the inventory has at {at}{}", also()))
    } else if let Some(note) =
        note.filter(|n| n.whose.is_some() || here.is_empty() || has_serial(here))
    {
        by_note(&note, here, name, at, also)
    } else if let Some(first) = here.first().copied() {
        match wanted(first) {
            Some(wanted) if seen.is_some() => (
                Kind::Mismatch,
                Some(first),
                format!("UUID {uuid_text}; {} has {wanted} in the inventory", names()),
            ),
            _ => (Kind::Unproven, Some(first), unproven(&found, &names(), seen.is_some())),
        }
    } else {
        (Kind::Unknown, None, "not in the inventory".to_string())
    };
    let (kind, what) = match twice {
        true if kind != Kind::Unknown => {
            (Kind::Twice, format!("{what}; UUID {uuid_text} answers at another address too"))
        }
        true => (Kind::Twice, format!("{what}; UUID {uuid_text} answers twice")),
        false => (kind, what),
    };
    Line {
        kind,
        address: Some(found.address),
        expected: who,
        machine: who.and_then(name),
        found: Some(found),
        what,
    }
}

/// It shows no UUID of the inventory; its delivery note says whose BMC it is.
fn by_note(
    note: &Note<'_>,
    here: &[usize],
    name: impl Fn(usize) -> Option<Arc<str>>,
    at: impl Fn(usize) -> String,
    also: impl Fn() -> String,
) -> (Kind, Option<usize>, String) {
    let serial = note.serial;
    let Some(n) = note.whose else {
        let what = format!("not in the inventory; its BMC was delivered with serial {serial}");
        let kind = if here.is_empty() { Kind::Unknown } else { Kind::Mismatch };
        return (kind, here.first().copied(), format!("{what}{}", also()));
    };
    let machine = name(n).unwrap_or_default();
    let by = format!("{machine} by its delivery note (serial {serial})");
    if here.contains(&n) {
        (Kind::Expected, Some(n), by)
    } else if here.is_empty() {
        (Kind::Moved, Some(n), format!("{by}, which the inventory has at {}", at(n)))
    } else {
        (Kind::Mismatch, here.first().copied(), format!("{by}{}", also()))
    }
}

fn unproven(found: &Found, names: &str, says_uuid: bool) -> String {
    match (&found.redfish, &found.other) {
        (Some(_), _) if says_uuid => {
            format!("{names} by its address; the inventory has no UUID to compare")
        }
        (Some(_), _) => format!("{names} by its address; the BMC tells no UUID before a login"),
        (None, Some(_)) => format!("{names} is expected here, and its Redfish is not in order"),
        (None, None) => format!("{names} is expected here, and answers IPMI alone"),
    }
}

fn uuid(found: &Found) -> Option<&str> {
    found.redfish.as_ref()?.uuid.as_deref()
}

/// One text for both byte orders of a UUID.
fn either_order(uuid: &str) -> String {
    let other = swap_uuid(uuid);
    other.filter(|o| o.as_str() < uuid).unwrap_or_else(|| uuid.to_string())
}

/// Where the inventory has the machine's BMC, where that is an address and no name.
fn addresses(machine: &Expected) -> impl Iterator<Item = IpAddr> {
    let ipmi = machine.bmc.ipmi.as_ref().map(|i| i.address.to_string());
    let host = host(&machine.bmc.url).to_string();
    [Some(host), ipmi].into_iter().flatten().filter_map(|h| h.parse().ok())
}

/// The host of `https://host[:port][/…]`.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    if let Some(v6) = authority.strip_prefix('[') {
        return v6.split(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::Redfish;
    use super::*;
    use crate::model::{BmcEndpoint, HostEndpoint, Identity};

    fn machine(name: &str, url: &str, uuid: Option<&str>) -> Arc<Expected> {
        Arc::new(Expected {
            name: name.into(),
            identity: Identity::new(None, uuid, None).into(),
            rack: "r".into(),
            position: 0,
            pool: "p".into(),
            profile: "p".into(),
            domains: [].into(),
            labels: Default::default(),
            bmc: BmcEndpoint { url: url.into(), ..BmcEndpoint::default() },
            host: HostEndpoint::default(),
        })
    }

    fn at(address: &str, uuid: Option<&str>) -> Found {
        let redfish = Redfish { uuid: uuid.map(Into::into), ..Redfish::default() };
        let address = address.parse().unwrap();
        Found { address, redfish: Some(redfish), ipmi: true, other: None, mac: None }
    }

    const A: &str = "33221100-5544-7766-8899-aabbccddeeff";
    const A_SWAPPED: &str = "00112233-4455-6677-8899-aabbccddeeff";
    const B: &str = "bbbbbbbb-5544-7766-8899-aabbccddeeff";
    const C: &str = "cccccccc-5544-7766-8899-aabbccddeeff";

    #[test]
    fn every_difference_has_its_name() {
        let expected = [
            machine("n1", "https://10.0.0.1", Some(A_SWAPPED)),
            machine("n2", "https://10.0.0.2:8443/", Some(B)),
            machine("n3", "https://10.0.0.3", None),
            machine("n4", "https://[fd00::4]", Some(C)),
            machine("n5", "https://10.0.0.5", Some("dddddddd-5544-7766-8899-aabbccddeeff")),
            machine("n6", "https://10.9.0.6", None),
            machine("n7", "https://bmc-7.example", None),
            machine("n8", "https://10.0.0.8", Some("eeeeeeee-5544-7766-8899-aabbccddeeff")),
        ];
        let found = vec![
            at("10.0.0.1", Some(A)),
            at("10.0.0.2", Some("12121212-5544-7766-8899-aabbccddeeff")),
            at("10.0.0.3", Some("99999999-5544-7766-8899-aabbccddeeff")),
            at("10.0.0.9", Some(C)),
            at("10.0.0.10", None),
            at("10.0.0.8", None),
        ];
        let scanned = ["10.0.0.0/24".parse().unwrap()];
        let lines = reconcile(&expected, found, &scanned, &Delivered::new());
        let said: Vec<_> = lines.iter().map(|l| (l.kind, l.machine.as_deref())).collect();
        assert_eq!(
            said,
            [
                (Kind::Expected, Some("n1")),
                (Kind::Mismatch, Some("n2")),
                (Kind::Unproven, Some("n3")),
                (Kind::Moved, Some("n4")),
                (Kind::Unknown, None),
                (Kind::Unproven, Some("n8")),
                (Kind::Missing, Some("n5")),
            ],
            "n6 was not scanned, n7 has a name"
        );
        assert!(
            lines[1].what.contains("12121212") && lines[1].what.contains(B),
            "{}",
            lines[1].what
        );
    }

    #[test]
    fn a_uuid_that_answers_twice_is_nobodys() {
        let expected = [machine("n1", "https://10.0.0.1", Some(A))];
        let found = vec![at("10.0.0.1", Some(A)), at("10.0.0.2", Some(A_SWAPPED))];
        let lines = reconcile(&expected, found, &[], &Delivered::new());
        assert!(lines.iter().all(|l| l.kind == Kind::Twice), "{lines:?}");
    }

    /// As on the day when a rack arrives: serials, and no UUIDs yet.
    #[test]
    fn a_delivery_note_says_whose_a_bmc_is() {
        let serial = |name: &str, url: &str, serial: &str| {
            let mut machine = (*machine(name, url, None)).clone();
            machine.identity = Identity::new(Some(serial), None, None).into();
            Arc::new(machine)
        };
        let expected = [
            serial("n1", "https://10.0.0.1", "SN0001"),
            serial("n2", "https://10.0.0.2", "SN0002"),
            serial("n3", "https://10.0.0.3", "SN0003"),
            machine("n4", "https://10.0.0.4", Some(A)),
        ];
        let mac = |n: u8| Mac([2, 0, 0, 0, 0, n]);
        let delivered =
            [1, 2, 3, 9].map(|n| (mac(n), format!("SN000{n}"))).into_iter().collect::<Delivered>();
        let shows = |address: &str, n: u8, uuid| Found { mac: Some(mac(n)), ..at(address, uuid) };
        let found = vec![
            shows("10.0.0.1", 1, Some(B)),
            shows("10.0.0.2", 3, None),
            shows("10.0.0.4", 2, Some(A)),
            shows("10.0.0.70", 2, None),
            shows("10.0.0.71", 9, None),
            shows("10.0.0.72", 8, None),
            shows("10.0.0.3", 9, None),
        ];
        let lines = reconcile(&expected, found, &[], &delivered);
        let said: Vec<_> = lines.iter().map(|l| (l.kind, l.machine.as_deref())).collect();
        assert_eq!(
            said,
            [
                (Kind::Expected, Some("n1")),
                (Kind::Mismatch, Some("n2")),
                (Kind::Mismatch, Some("n4")),
                (Kind::Moved, Some("n2")),
                (Kind::Unknown, None),
                (Kind::Unknown, None),
                (Kind::Mismatch, Some("n3")),
            ]
        );
        for (line, words) in [
            (1, "n3 by its delivery note (serial SN0003); expected here: n2"),
            (2, "n4 by its UUID; its BMC was delivered with serial SN0002, n2's"),
            (
                3,
                "n2 by its delivery note (serial SN0002), which the inventory has at https://10.0.0.2",
            ),
            (4, "not in the inventory; its BMC was delivered with serial SN0009"),
            (5, "not in the inventory"),
        ] {
            assert_eq!(lines[line].what, words);
        }
    }

    #[test]
    fn hosts_are_read_from_urls() {
        assert_eq!(host("https://10.0.0.2:8443/x"), "10.0.0.2");
        assert_eq!(host("http://[fd00::1]:80"), "fd00::1");
        assert_eq!(host("bmc-1"), "bmc-1");
        assert_eq!(host(""), "");
    }

    #[test]
    fn a_further_controllers_address_is_known_and_is_not_the_machines() {
        let mut one = (*machine("n1", "https://10.0.0.1", None)).clone();
        one.bmc.controllers = vec![Further {
            name: "hgx".into(),
            kind: crate::model::FurtherKind::Hgx,
            url: "https://10.0.0.9".into(),
            credential: "hgx".into(),
            tls: "ca".into(),
            serial: None,
            barred: None,
        }]
        .into();
        let range: Range = "10.0.0.0/24".parse().unwrap();
        let lines =
            reconcile(&[Arc::new(one)], vec![at("10.0.0.9", None)], &[range], &Delivered::new());
        let kinds: Vec<_> = lines.iter().map(|l| (l.kind, l.machine.as_deref())).collect();
        // Found there, the machine's own BMC is still missing.
        assert_eq!(kinds, [(Kind::Unproven, Some("n1")), (Kind::Missing, Some("n1"))]);
        assert!(lines[0].what.contains("`hgx`"), "{}", lines[0].what);
    }
}
