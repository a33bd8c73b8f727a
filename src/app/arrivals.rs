//! Machines that asked for an address with a MAC that the inventory does not have, beside what is expected: a
//! mistyped MAC, another port, a BMC whose delivery note was taken in. Pure; words for people, and nothing
//! is served on a guess.

use crate::dhcp::Stranger;
use crate::model::identity::{clean_uuid, uuid_eq};
use crate::model::{Expected, Identity};
use crate::scan::reconcile::Delivered;
use serde::Serialize;
use std::sync::Arc;

/// Who that seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing points to a machine of the inventory.
    Unknown,
    /// The UUID of a machine whose boot MAC is another one.
    OtherMac,
    /// The BMC of a machine, by its delivery note.
    Bmc,
    /// A BMC that was delivered, of a machine that the inventory does not have.
    Delivered,
}

/// A stranger and what is to be said of it.
#[derive(Clone, Debug, Serialize)]
pub struct Arrival {
    #[serde(flatten)]
    pub seen: Stranger,
    pub kind: Kind,
    pub machine: Option<Arc<str>>,
    /// For people.
    pub what: String,
}

/// A machine of the inventory, and what was proven of it.
#[derive(Clone, Debug)]
pub struct Known {
    pub expected: Arc<Expected>,
    pub proven: Identity,
}

pub fn arrivals(strangers: Vec<Stranger>, known: &[Known], delivered: &Delivered) -> Vec<Arrival> {
    let each = strangers.into_iter().map(|seen| {
        let (kind, machine, what) = judge(&seen, known, delivered);
        Arrival { seen, kind, machine, what }
    });
    let mut all: Vec<Arrival> = each.collect();
    // Those of which something is known are not lost among the others.
    all.sort_by_key(|a| a.kind == Kind::Unknown);
    all
}

fn judge(
    seen: &Stranger,
    known: &[Known],
    delivered: &Delivered,
) -> (Kind, Option<Arc<str>>, String) {
    if let Some(serial) = delivered.get(&seen.mac) {
        let has = |k: &&Known| k.expected.identity.serial.as_deref() == Some(serial.as_str());
        let Some(machine) = known.iter().find(has) else {
            let what =
                format!("a BMC, delivered with serial {serial}; the inventory has no such machine");
            return (Kind::Delivered, None, what);
        };
        let e = &machine.expected;
        let at = seen.address.map(|a| format!(" at {a}")).unwrap_or_default();
        let what = format!(
            "the BMC of {}{at} by its delivery note (serial {serial}); the inventory has {}",
            e.name, e.bmc.url
        );
        return (Kind::Bmc, Some(e.name.clone()), what);
    }
    let stated = seen.uuid.as_deref().and_then(clean_uuid);
    let is_its = |known: &str| stated.as_deref().is_some_and(|stated| uuid_eq(stated, known));
    let mut fits = known.iter().filter(|k| {
        let uuid = k.expected.identity.uuid.as_ref().or(k.proven.uuid.as_ref());
        uuid.is_some_and(|uuid| is_its(uuid))
    });
    match (fits.next(), fits.next()) {
        (Some(one), None) => {
            let e = &one.expected;
            let mac = e.identity.mac.as_ref().or(one.proven.mac.as_ref());
            let mac =
                mac.map_or_else(|| "has no boot MAC".into(), |mac| format!("boots with {mac}"));
            let what = format!("{} by its UUID; in the inventory it {mac}", e.name);
            (Kind::OtherMac, Some(e.name.clone()), what)
        }
        (Some(one), Some(two)) => {
            let (one, two) = (&one.expected.name, &two.expected.name);
            (Kind::Unknown, None, format!("its UUID is that of {one} and of {two}"))
        }
        (None, _) => (Kind::Unknown, None, "not in the inventory".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::network::Mac;
    use crate::model::{BmcEndpoint, HostEndpoint};

    fn known(name: &str, stated: Identity, proven: Identity) -> Known {
        let expected = Arc::new(Expected {
            name: name.into(),
            identity: stated.into(),
            rack: "r".into(),
            position: 0,
            pool: "p".into(),
            profile: "p".into(),
            domains: [].into(),
            labels: Default::default(),
            bmc: BmcEndpoint { url: "https://10.0.0.1".into(), ..BmcEndpoint::default() },
            host: HostEndpoint::default(),
        });
        Known { expected, proven }
    }

    fn stranger(mac: u8, uuid: Option<&str>) -> Stranger {
        Stranger {
            mac: Mac([2, 0, 0, 0, 0, mac]),
            network: None,
            asks: String::new(),
            class: String::new(),
            uuid: uuid.map(Into::into),
            address: Some("10.0.0.77".parse().unwrap()),
            first_s: 0,
            last_s: 0,
            times: 1,
        }
    }

    /// As the firmware sends it, and the same with the bytes of its first fields turned round.
    const A: &str = "33221100554477668899aabbccddeeff";
    const A_SWAPPED: &str = "00112233-4455-6677-8899-aabbccddeeff";
    const B: &str = "bbbbbbbb-5544-7766-8899-aabbccddeeff";

    #[test]
    fn who_arrives_is_named_by_uuid_or_delivery_note_and_else_unknown() {
        let uuid = |uuid: &str| Identity::new(None, Some(uuid), Some("02:00:00:00:00:aa"));
        let all = [
            known("n1", uuid(A_SWAPPED), Identity::default()),
            known(
                "n2",
                Identity::new(Some("SN0002"), None, None),
                Identity::new(None, Some(B), None),
            ),
            known("n3", uuid("cccccccc-5544-7766-8899-aabbccddeeff"), Identity::default()),
            known("n4", uuid("cccccccc-5544-7766-8899-aabbccddeeff"), Identity::default()),
        ];
        let delivered: Delivered = [(7, "SN0002"), (8, "SN0008")]
            .map(|(n, serial)| (Mac([2, 0, 0, 0, 0, n]), serial.to_string()))
            .into_iter()
            .collect();
        let seen = vec![
            stranger(1, Some(A)),
            stranger(2, Some(B)),
            stranger(3, Some("cccccccc554477668899aabbccddeeff")),
            stranger(4, Some("00000000000000000000000000000000")),
            stranger(5, None),
            stranger(7, None),
            stranger(8, None),
        ];
        let said: Vec<_> = arrivals(seen, &all, &delivered)
            .into_iter()
            .map(|a| (a.kind, a.machine.as_deref().map(str::to_string), a.what))
            .collect();
        let n = |name: &str| Some(name.to_string());
        assert_eq!(
            said,
            [
                (Kind::OtherMac, n("n1"), "n1 by its UUID; in the inventory it boots with 02:00:00:00:00:aa".to_string()),
                (Kind::OtherMac, n("n2"), "n2 by its UUID; in the inventory it has no boot MAC".into()),
                (
                    Kind::Bmc,
                    n("n2"),
                    "the BMC of n2 at 10.0.0.77 by its delivery note (serial SN0002); the inventory has https://10.0.0.1".into()
                ),
                (
                    Kind::Delivered,
                    None,
                    "a BMC, delivered with serial SN0008; the inventory has no such machine".into()
                ),
                (Kind::Unknown, None, "its UUID is that of n3 and of n4".into()),
                (Kind::Unknown, None, "not in the inventory".into()),
                (Kind::Unknown, None, "not in the inventory".into()),
            ]
        );
    }
}
