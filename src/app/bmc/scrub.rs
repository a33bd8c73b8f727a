//! Takes out of a report what says which machine it was about: serials, MACs, UUIDs, addresses, host
//! names, tags. Two sieves: the values that were read under such names, and everything that looks
//! like one.

use crate::model::identity::clean_mac;
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeSet;

/// Stands for what was taken out.
const GONE: &str = "…";

#[derive(Debug)]
pub(super) struct Scrub {
    /// Longest first: one may be part of another.
    values: Vec<String>,
    looks: Vec<Regex>,
}

impl Scrub {
    /// `keep`: words of the product, which some BMCs repeat under an identity's name.
    pub(super) fn new(values: BTreeSet<String>, keep: &[String]) -> Scrub {
        let kept = |v: &String| keep.iter().any(|k| k.eq_ignore_ascii_case(v));
        let mut values: Vec<String> = values.into_iter().filter(|v| !kept(v)).collect();
        // In names and UEFI paths a MAC stands without its colons.
        let macs = values.iter().filter_map(|v| clean_mac(v)).map(|mac| mac.replace(':', ""));
        let bare: Vec<String> = macs.collect();
        values.extend(bare);
        values.sort_by_key(|v| std::cmp::Reverse(v.len()));
        let looks = [
            // UUID, then MAC with any separator, IPv6, IPv4.
            r"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}",
            r"(?i)\b[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5,}\b",
            r"(?i)\b(?:[0-9a-f]{1,4}:){3,}[0-9a-f:]*[0-9a-f]\b",
            r"(?i)\b(?:[0-9a-f]{1,4}:)+:[0-9a-f:]*",
            // Versions have four numbers too, so only what stands as an address: in a URL, or
            // in a private range.
            r"(?:https?|nfs|cifs|ftp|smb)://[^\s/`]+",
            r"\b(?:10\.[0-9]{1,3}|127\.[0-9]{1,3}|169\.254|172\.(?:1[6-9]|2[0-9]|3[01])|192\.168)\.[0-9]{1,3}\.[0-9]{1,3}\b",
        ];
        Scrub { values, looks: looks.iter().filter_map(|r| Regex::new(r).ok()).collect() }
    }

    /// Every text of the value, keys left alone.
    pub(super) fn value(&self, v: Value) -> Value {
        match v {
            Value::String(s) => Value::from(self.text(&s)),
            Value::Array(a) => a.into_iter().map(|v| self.value(v)).collect(),
            Value::Object(o) => o.into_iter().map(|(k, v)| (k, self.value(v))).collect(),
            other => other,
        }
    }

    fn text(&self, text: &str) -> String {
        let mut out = text.to_string();
        for value in &self.values {
            out = replaced(&out, value);
        }
        for look in &self.looks {
            out = look.replace_all(&out, GONE).into_owned();
        }
        out
    }
}

/// Replaces without regard to case: a path may spell a serial differently than its property.
fn replaced(text: &str, value: &str) -> String {
    // ASCII only, so that positions in both spellings are the same.
    let (low, what) = (text.to_ascii_lowercase(), value.to_ascii_lowercase());
    if what.is_empty() || !low.contains(&what) {
        return text.to_string();
    }
    let mut out = String::new();
    let mut from = 0;
    for (at, found) in low.match_indices(&what) {
        out.push_str(text.get(from..at).unwrap_or_default());
        out.push_str(GONE);
        from = at + found.len();
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn identities_go_and_versions_stay() {
        let known = BTreeSet::from(["S1001".to_string(), "node-7".into(), "PowerEdge".into()]);
        let scrub = Scrub::new(known, &["PowerEdge".to_string()]);
        let clean = |text: &str| scrub.text(text);
        assert_eq!(
            clean("GET /redfish/v1/Systems/s1001/x: 404"),
            "GET /redfish/v1/Systems/…/x: 404"
        );
        assert_eq!(clean("NODE-7 has 00:1a:2b:3c:4d:5e"), "… has …");
        assert_eq!(clean("8D0A0F6E-7a2f-4a5e-9d1e-0a1b2c3d4e5f"), "…");
        assert_eq!(clean("at http://bmc-1.example/x and 192.168.49.149"), "at …/x and …");
        assert_eq!(clean("10.2.3.4 127.0.0.1"), "… …");
        let mac = Scrub::new(BTreeSet::from(["94:6D:AE:91:FB:22".to_string()]), &[]);
        assert_eq!(mac.text("PXE 946DAE91FB22, MAC(946dae91fb22,0x1)"), "PXE …, MAC(…,0x1)");
        assert_eq!(clean("fe80::1 2001:db8:0:1:1:1:1:1"), "… …");
        assert_eq!(
            clean("PowerEdge 7.10.30.00, 96.00.61.00.01, 12:30:05"),
            "PowerEdge 7.10.30.00, 96.00.61.00.01, 12:30:05"
        );
        assert_eq!(scrub.value(json!({"S1001": ["S1001", 7]})), json!({"S1001": ["…", 7]}));
    }
}
