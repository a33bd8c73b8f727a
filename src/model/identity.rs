//! Who a machine is: serial + system UUID + boot MAC. An address is only where it was last found.

use super::text::Text;
use serde::{Deserialize, Serialize};

/// Room for the 36 characters of a UUID.
pub type UuidText = Text<38>;

/// Known identity. `None` = not known (null while powered off, or a placeholder), never "differs".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// 8-4-4-4-12, lower case.
    pub uuid: Option<UuidText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// `aa:bb:cc:dd:ee:ff`.
    pub mac: Option<Text>,
}

/// How two identities compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// At least one part is known on both sides and all such parts agree.
    Same,
    /// No part is known on both sides.
    Unknown,
    /// A part is known on both sides and differs: which, ours, theirs.
    Differs { part: &'static str, expected: String, found: String },
}

impl Identity {
    /// Takes raw values as a BMC, DMI or a person gives them; placeholders become unknown.
    pub fn new(serial: Option<&str>, uuid: Option<&str>, mac: Option<&str>) -> Self {
        Self {
            serial: serial.and_then(clean_serial).map(Text::from),
            uuid: uuid.and_then(clean_uuid).map(Text::from),
            mac: mac.and_then(clean_mac).map(Text::from),
        }
    }

    pub fn is_unknown(&self) -> bool {
        self.serial.is_none() && self.uuid.is_none() && self.mac.is_none()
    }

    /// Compares what is known on both sides. UUIDs compare in both byte orders: SMBIOS before 2.6
    /// and some BMCs swap the first three fields.
    pub fn compare(&self, found: &Identity) -> Match {
        let mut same = false;
        if let (Some(a), Some(b)) = (&self.uuid, &found.uuid) {
            if !uuid_eq(a, b) {
                return Match::Differs {
                    part: "uuid",
                    expected: a.to_string(),
                    found: b.to_string(),
                };
            }
            same = true;
        }
        for (part, a, b) in
            [("serial", &self.serial, &found.serial), ("mac", &self.mac, &found.mac)]
        {
            if let (Some(a), Some(b)) = (a, b) {
                if a != b {
                    return Match::Differs { part, expected: a.to_string(), found: b.to_string() };
                }
                same = true;
            }
        }
        if same { Match::Same } else { Match::Unknown }
    }

    /// Fills the unknown parts of `self` from `other`.
    pub fn or(&self, other: &Identity) -> Identity {
        Identity {
            serial: self.serial.clone().or_else(|| other.serial.clone()),
            uuid: self.uuid.clone().or_else(|| other.uuid.clone()),
            mac: self.mac.clone().or_else(|| other.mac.clone()),
        }
    }
}

/// Strings that boards report when nobody programmed a serial.
const PLACEHOLDERS: &[&str] = &[
    "to be filled",
    "default string",
    "system serial number",
    "not specified",
    "none",
    "n/a",
    "na",
    "unknown",
    "0123456789",
    "empty",
];

/// A serial number, trimmed; `None` for placeholders ("To Be Filled By O.E.M.", all 0 or F).
pub fn clean_serial(raw: &str) -> Option<String> {
    let s = raw.trim();
    let low = s.to_ascii_lowercase();
    let filler = s.chars().all(|c| matches!(c, '0' | 'F' | 'f' | '.' | '-' | ' ' | 'x' | 'X'));
    let placeholder = PLACEHOLDERS.iter().any(|p| low == *p || (p.len() > 4 && low.contains(p)));
    (!s.is_empty() && !filler && !placeholder).then(|| s.to_string())
}

/// A UUID as 8-4-4-4-12 lower-case hex; `None` for anything else and for all-0 or all-F.
pub fn clean_uuid(raw: &str) -> Option<String> {
    let hex: String =
        raw.trim().chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
    if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    if hex.bytes().all(|b| b == b'0') || hex.bytes().all(|b| b == b'f') {
        return None;
    }
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// A MAC as `aa:bb:cc:dd:ee:ff`; `None` for anything else, all-0 and broadcast.
pub fn clean_mac(raw: &str) -> Option<String> {
    let hex: String = raw
        .trim()
        .chars()
        .filter(|c| !matches!(c, ':' | '-' | '.'))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    if hex.len() != 12 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    if hex.bytes().all(|b| b == b'0') || hex.bytes().all(|b| b == b'f') {
        return None;
    }
    let pairs: Vec<&str> = (0..6).map(|i| &hex[i * 2..i * 2 + 2]).collect();
    Some(pairs.join(":"))
}

/// Equal as given, or with the first three fields byte-swapped.
pub fn uuid_eq(a: &str, b: &str) -> bool {
    a == b || swap_uuid(a).as_deref() == Some(b)
}

/// A UUID that came over the wire in one of two byte orders, in the one that people know it by: boards
/// have UUIDs of RFC 9562, whose version stands at one place. As it came where neither order tells.
pub fn likelier_uuid(stated: &str) -> String {
    let tells = |u: &str| matches!(u.as_bytes().get(14), Some(b'1'..=b'8'));
    let swapped = swap_uuid(stated).filter(|s| tells(s) && !tells(stated));
    swapped.unwrap_or_else(|| stated.to_string())
}

/// The first three fields byte-swapped: the other of the two orders in which boards give a UUID.
pub fn swap_uuid(u: &str) -> Option<String> {
    let h: String = u.chars().filter(|c| *c != '-').collect();
    if h.len() != 32 || !h.is_ascii() {
        return None;
    }
    let rev = |s: &str| -> String {
        (0..s.len() / 2).rev().map(|i| &s[i * 2..i * 2 + 2]).collect::<String>()
    };
    clean_uuid(&format!("{}{}{}{}", rev(&h[..8]), rev(&h[8..12]), rev(&h[12..16]), &h[16..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_unknown_not_different() {
        for s in ["To Be Filled By O.E.M.", "0000000", "FFFF", "", "  ", "Default string", "NA"] {
            assert_eq!(clean_serial(s), None, "{s:?}");
        }
        assert_eq!(clean_serial(" 7XJ9K33 ").as_deref(), Some("7XJ9K33"));
        assert_eq!(clean_uuid("00000000-0000-0000-0000-000000000000"), None);
        assert_eq!(clean_uuid("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"), None);
        assert_eq!(clean_uuid(""), None);
        assert_eq!(clean_uuid("é".repeat(16).as_str()), None);
        assert_eq!(clean_mac("00-1A-2B-3C-4D-5E").as_deref(), Some("00:1a:2b:3c:4d:5e"));
        assert_eq!(clean_mac("ff:ff:ff:ff:ff:ff"), None);
    }

    #[test]
    fn uuids_compare_in_both_byte_orders() {
        let a = Identity::new(None, Some("33221100-5544-7766-8899-aabbccddeeff"), None);
        let b = Identity::new(None, Some("00112233-4455-6677-8899-AABBCCDDEEFF"), None);
        assert_eq!(a.compare(&b), Match::Same);
        let c = Identity::new(None, Some("00112233-4455-6677-8899-aabbccddee00"), None);
        assert!(matches!(a.compare(&c), Match::Differs { part: "uuid", .. }));
    }

    #[test]
    fn a_uuid_off_the_wire_is_told_in_the_order_of_its_label() {
        let label = "7e57ab1e-0000-4000-8000-000000000001";
        let wire = "1eab577e-0000-0040-8000-000000000001";
        assert_eq!((likelier_uuid(wire), likelier_uuid(label)), (label.into(), label.into()));
        // Dell's reads well either way, others' neither way.
        for other in
            ["44454c4c-5800-104a-8039-b7c04f4b3333", "00112233-4455-0000-8899-aabbccddeeff"]
        {
            assert_eq!(likelier_uuid(other), other);
        }
    }

    #[test]
    fn unknown_parts_do_not_count() {
        let a = Identity::new(Some("S1"), None, None);
        let b = Identity::new(None, Some("00112233-4455-6677-8899-aabbccddeeff"), None);
        assert_eq!(a.compare(&b), Match::Unknown);
        assert_eq!(a.compare(&a.or(&b)), Match::Same);
    }
}
