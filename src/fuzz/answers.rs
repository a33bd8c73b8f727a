//! What an operator's own programs and servers answer.

use super::Seen;
use crate::cluster::{done, member};
use crate::model::{Channel, FaultClass, Outcome};
use crate::store::kv::Kv;

/// The longest line that is made of a hook's words, its name in front.
const LINE: usize = 600;

fn is_line(text: &str, most: usize) -> bool {
    text.chars().count() <= most && !text.chars().any(char::is_control)
}

pub(super) fn hook(data: &[u8]) -> Seen {
    // As it is read of the program: what is no UTF-8 became U+FFFD.
    let text = String::from_utf8_lossy(data);
    let member = member("hook `probe` for m1", &text);
    match &member {
        Ok(m) => assert!(m.detail.as_deref().is_none_or(|d| is_line(d, LINE)), "{m:?}"),
        Err(f) => {
            assert_eq!((f.class, f.channel), (FaultClass::Transient, Channel::Cluster), "{f:?}");
            assert!(f.evidence.as_ref().is_none_or(|e| e.chars().count() <= 2_000), "{f:?}");
        }
    }
    let done = done("hook `join` for m1", &text);
    match &done {
        // Only an object that says so.
        Outcome::Applied { .. } => {
            let said: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            assert!(said["ok"] == true || said[0] == true, "{text}");
        }
        Outcome::Failed { fault } => assert!(is_line(&fault.message, LINE), "{fault:?}"),
        // It ran, and what it did is not known.
        Outcome::Unknown { fault } => assert_eq!(fault.code, "hook-garbage", "{fault:?}"),
        other => panic!("neither an identity nor a withdrawal was asked for: {other:?}"),
    }
    Box::new((member, done))
}

pub(super) fn vault(data: &[u8]) -> Seen {
    let kv = Kv {
        address: "https://vault.example:8200".into(),
        mount: "secret".into(),
        path: "bmc/m1".into(),
        field: "password".into(),
        token_file: "/nowhere".into(),
        namespace: None,
        ca_file: None,
    };
    let what = "https://vault.example:8200/v1/secret/data/bmc/m1";
    match kv.field_of(what, data) {
        Ok(secret) => {
            let body: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
            let field = body.pointer("/data/data/password").and_then(|f| f.as_str());
            assert_eq!(field, Some(secret.expose()), "it is the field and nothing else");
            Box::new(secret.expose().len())
        }
        // What came may be a secret, and stands in no message.
        Err(why) => {
            let ours = why.replace(what, "").replace("`secret`", "").replace("`password`", "");
            let known = [
                ": the answer is no JSON",
                " answered 200 without `data.data`; is  a KV engine of version 2?",
                ": the field  is no text",
                " has no field ",
            ];
            assert!(known.contains(&&*ours), "{why}");
            Box::new(why)
        }
    }
}
