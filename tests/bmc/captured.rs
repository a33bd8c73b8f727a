//! Trees captured from real BMCs, served as files. They are never copied into the checkout: without
//! them beside it a test skips and says so.

#[path = "../support/unpacked.rs"]
mod unpacked;

use super::server::{Reply, Server};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use unpacked::{MOCKUPS, unpacked};

/// All trees that answer.
pub(crate) const NAMES: [&str; 5] = [
    "dell-poweredge-r750-idrac9-7.10",
    "dmtf-public-rackmount1",
    "lenovo-sr670v2-xcc-8gpu",
    "nvidia-dgxh100-ami",
    "supermicro-sys821ge-tnhr-hgxh100",
];

pub(crate) type Tree = BTreeMap<String, Value>;

static UNPACKED: LazyLock<Option<tempfile::TempDir>> = LazyLock::new(|| unpacked(MOCKUPS));

static LOADED: LazyLock<Mutex<BTreeMap<String, Arc<Tree>>>> = LazyLock::new(Mutex::default);

/// One captured tree by path, lower-cased and without the slash at its end.
pub(crate) fn tree(name: &str) -> Option<Arc<Tree>> {
    let dir = UNPACKED.as_ref()?;
    let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(tree) = loaded.get(name) {
        return Some(tree.clone());
    }
    let top = dir.path().join(name);
    assert!(top.is_dir(), "no captured tree `{name}`");
    // DMTF's short form leaves the prefix out.
    let prefix = if top.join("redfish/v1").is_dir() { "" } else { "/redfish/v1" };
    let mut out = Tree::new();
    let mut dirs: Vec<PathBuf> = vec![top.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.file_name().is_some_and(|f| f == "index.json") {
                let below = dir.strip_prefix(&top).unwrap().to_string_lossy().to_lowercase();
                let uri = format!("{prefix}/{below}").trim_end_matches('/').to_string();
                if let Ok(v) = serde_json::from_slice(&std::fs::read(&path).unwrap()) {
                    out.insert(uri, v);
                }
            }
        }
    }
    let out = Arc::new(out);
    loaded.insert(name.to_string(), out.clone());
    Some(out)
}

pub(crate) async fn serve(tree: Arc<Tree>) -> Server {
    Server::start(move |r, _| {
        if r.method == "POST" && r.path.ends_with("Sessions") {
            return Reply::Json(201, vec![], json!({})).with("X-Auth-Token", "t-1");
        }
        // Pages of a collection were kept under their whole address.
        let whole = r.path.to_lowercase();
        let path = whole.split('?').next().unwrap_or_default().trim_end_matches('/');
        match tree.get(&whole).or_else(|| tree.get(path)) {
            Some(v) => Reply::ok(v.clone()),
            None => Reply::said(404, "ResourceMissingAtURI"),
        }
    })
    .await
}

/// What says which machine a tree was taken from, found by the names of its properties and without
/// the code that is tested: serials, UUIDs, MACs, host names, tags, addresses.
pub(crate) fn identities(tree: &Tree) -> BTreeSet<String> {
    fn walk(v: &Value, named: bool, out: &mut BTreeSet<String>) {
        match v {
            Value::Object(o) => {
                for (key, v) in o {
                    let key = key.to_lowercase();
                    let named = !key.contains('@')
                        && ([
                            "serialnumber",
                            "uuid",
                            "macaddress",
                            "assettag",
                            "hostname",
                            "fqdn",
                            "servicetag",
                            "nodeid",
                            "durablename",
                            "permanentaddress",
                        ]
                        .iter()
                        .any(|n| key.contains(n))
                            || key == "sku"
                            || key == "address");
                    walk(v, named, out);
                }
            }
            Value::Array(a) => a.iter().for_each(|v| walk(v, named, out)),
            Value::String(s) if named && s.trim().len() >= 5 => {
                out.insert(s.trim().to_string());
            }
            _ => {}
        }
    }
    let mut out = BTreeSet::new();
    tree.values().for_each(|v| walk(v, false, &mut out));
    // Words that stand there where nobody wrote anything.
    const WORDS: &[&str] = &[
        "Not Available",
        "Unknown",
        "N/A",
        "Free form asset tag",
        "unknown",
        "Enabled",
        "Disabled",
        "None",
    ];
    out.retain(|v| {
        !WORDS.contains(&v.as_str()) && v.chars().any(|c| c != '0' && c.is_alphanumeric())
    });
    out
}

/// Stands for a value of a captured tree: tells whether two are the same, and not what it is.
pub(crate) fn hashed(value: &str) -> String {
    let digest = Sha256::digest(value.as_bytes());
    format!("#{}", hex::encode(&digest[..5]))
}
