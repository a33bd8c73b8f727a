//! A record of the requests to BMCs, for a person's report: how long each took, and which values in
//! the answers say who the machine is, so that they can be kept out of what is shared.

use super::http::{Answer, Body};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One request as it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// `None`: no answer.
    pub status: Option<u16>,
    pub took: Duration,
}

/// Kept while somebody holds it; set in [`Settings`](super::Settings).
#[derive(Debug, Default)]
pub struct Trace {
    asked: Mutex<Vec<Asked>>,
    identities: Mutex<BTreeSet<String>>,
}

impl Trace {
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serials, MACs, UUIDs, addresses, names and tags that were read.
    pub fn identities(&self) -> BTreeSet<String> {
        self.identities.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note(&self, method: &str, path: &str, answer: Option<&Answer>, took: Duration) {
        let asked = Asked {
            method: method.to_string(),
            path: path.to_string(),
            status: answer.map(|a| a.status),
            took,
        };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        if let Some(Answer { body: Body::Json(v), .. }) = answer {
            let mut found = BTreeSet::new();
            identities(v, false, &mut found);
            self.identities.lock().unwrap_or_else(PoisonError::into_inner).append(&mut found);
        }
    }
}

/// Parts of property names whose values say which machine, or whose, it is.
const NAMES: &[&str] = &[
    "serial",
    "uuid",
    "macaddress",
    "assettag",
    "hostname",
    "fqdn",
    "domainname",
    "servicetag",
    "nodeid",
    "durablename",
    "wwn",
    "gateway",
    "nameserver",
    "ntpserver",
    "username",
    "iqn",
    "guid",
    "servicecode",
    "gid",
    "permanentaddress",
    "contactperson",
    "postaladdress",
    "gps",
];

/// The same, where the whole name must be it.
const WHOLE: &[&str] = &["sku", "address", "ppid", "systemid", "location", "room", "rack", "row"];

fn identities(v: &Value, named: bool, out: &mut BTreeSet<String>) {
    match v {
        Value::Object(o) => {
            for (key, v) in o {
                let key = key.to_ascii_lowercase();
                // Names of links and actions say nothing of the machine.
                let says = !key.starts_with('@')
                    && !key.contains('@')
                    && (NAMES.iter().any(|n| key.contains(n)) || WHOLE.contains(&&*key));
                identities(v, says, out);
            }
        }
        Value::Array(a) => a.iter().for_each(|v| identities(v, named, out)),
        Value::String(s) if named => {
            let s = s.trim();
            // Shorter ones are words and numbers that stand for nothing alone; switches are named
            // after what they switch.
            let switch = ["enabled", "disabled"].iter().any(|w| s.eq_ignore_ascii_case(w));
            if s.chars().count() >= 4
                && !switch
                && crate::model::identity::clean_serial(s).is_some()
            {
                out.insert(s.to_string());
            }
        }
        Value::Number(n) if named && n.to_string().len() >= 6 => {
            out.insert(n.to_string());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_names_a_machine_is_noted_and_nothing_else() {
        let mut found = BTreeSet::new();
        let v = json!({"SerialNumber": "S1001", "Model": "G8", "UUID": "None",
            "IPv4Addresses": [{"Address": "192.0.2.7"}], "HostName": "node-7",
            "SerialInterfaces": {"@odata.id": "/redfish/v1/Managers/1/SerialInterfaces"},
            "SerialConsole": {"ServiceEnabled": true, "ConnectTypesSupported": ["SSH", "IPMI"]}});
        identities(&v, false, &mut found);
        let found: Vec<_> = found.iter().map(String::as_str).collect();
        assert_eq!(found, ["192.0.2.7", "S1001", "node-7"]);
    }
}
