//! The facts of every captured tree, field by field against a file that a person has read. What
//! says which machine it was stands there as a hash: it may change places, not values.
//!
//! `FARRIER_BLESS=1` writes the files anew; look at what changed before you commit it.

use super::captured::{NAMES, Tree, hashed, identities, serve, tree};
use super::{edge, target};
use farrier::model::hardware::SensorKind;
use farrier::port::BmcRead;
use farrier::port::capability::{
    BmcAbilities, BmcBios, BmcClock, BmcLog, BmcMedia, BmcSensors, BmcVolumes,
};
use regex::Regex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// How a warning of a BMC's clock begins.
const CLOCK: &str = "the BMC's clock ";

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/bmc/golden/{name}.json"))
}

/// Everything that is read of one tree, with its identities hashed.
async fn facts(tree: &Arc<Tree>) -> Value {
    let server = serve(tree.clone()).await;
    let (edge, bmc) = (edge(), target(&server.url));
    let system = edge.system(&bmc).await.unwrap();
    let inventory = edge.inventory(&bmc).await.unwrap();
    let firmware = edge.firmware(&bmc).await.unwrap();
    let abilities = edge.abilities(&bmc).await.unwrap();
    // What a BMC lacks stands there as the fault's code.
    let or_code = |read: Result<Value, farrier::model::Fault>| match read {
        Ok(v) => v,
        Err(f) => json!(f.code),
    };
    let media = or_code(edge.media(&bmc).await.map(|m| json!(m)));
    let bios = or_code(edge.bios(&bmc).await.map(
        |b| json!({"attributes": b.attributes.len(), "pending": b.pending.keys().collect::<Vec<_>>(), "registry": b.registry}),
    ));
    let secure_boot = or_code(edge.secure_boot(&bmc).await.map(|s| json!(s)));
    let logs = or_code(edge.log(&bmc, 3).await.map(|all| {
        let mut by_log: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for e in all {
            by_log.entry(e.log).or_default().push(json!([e.id, e.at, e.severity, e.code]));
        }
        json!(by_log)
    }));
    let sensors = or_code(edge.sensors(&bmc).await.map(|all| {
        let kinds = [
            SensorKind::Power,
            SensorKind::Temperature,
            SensorKind::Fan,
            SensorKind::Voltage,
            SensorKind::Leak,
            SensorKind::Other,
        ];
        let count = |kind| all.iter().filter(|s| s.kind == kind).count();
        let first = |kind| all.iter().find(|s| s.kind == kind && s.value.is_some());
        kinds
            .into_iter()
            .filter(|kind| count(*kind) > 0)
            .map(|kind| json!({"kind": kind, "count": count(kind), "first": first(kind)}))
            .collect()
    }));
    let volumes = or_code(edge.volumes(&bmc).await.map(|v| json!(v)));
    let clock = or_code(edge.clock(&bmc).await.map(|c| json!(c.says)));
    let all = json!({
        "system": system,
        "abilities": abilities,
        "cpus": inventory.cpus, "gpus": inventory.gpus, "disks": inventory.disks,
        "nics": inventory.nics, "memory_mib": inventory.memory_mib,
        // A captured clock stands still: how far it is behind is another number each day.
        "warnings": inventory.warnings.iter().filter(|w| !w.starts_with(CLOCK)).collect::<Vec<_>>(),
        "firmware": firmware.iter().map(|c| json!([c.id, c.name, c.version, c.updateable]))
            .collect::<Vec<_>>(),
        "media": media, "bios": bios, "secure_boot": secure_boot, "logs": logs,
        "sensors": sensors, "volumes": volumes, "clock": clock,
    });
    Scrub::of(tree).value(all)
}

/// Replaces identities by their hashes, wherever in a text they stand.
struct Scrub {
    known: Vec<(String, String)>,
    mac: Regex,
}

impl Scrub {
    fn of(tree: &Tree) -> Scrub {
        let mut known: Vec<(String, String)> = identities(tree)
            .into_iter()
            .map(|v| (v.to_lowercase(), hashed(&v.to_lowercase())))
            .collect();
        known.sort_by_key(|(v, _)| std::cmp::Reverse(v.len()));
        // A MAC in a name or a UEFI device path has dashes or no separators; a partition has a UUID.
        let mac = r"(?i)\b[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}\b|\b[0-9a-f]{12}\b|\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b";
        Scrub { known, mac: Regex::new(mac).unwrap() }
    }

    fn value(&self, v: Value) -> Value {
        match v {
            Value::String(s) => Value::from(self.text(&s)),
            Value::Array(a) => a.into_iter().map(|v| self.value(v)).collect(),
            Value::Object(o) => o.into_iter().map(|(k, v)| (k, self.value(v))).collect(),
            other => other,
        }
    }

    fn text(&self, text: &str) -> String {
        let mut out = text.to_string();
        for (value, hash) in &self.known {
            while let Some(at) = out.to_ascii_lowercase().find(value) {
                out.replace_range(at..at + value.len(), hash);
            }
        }
        self.mac
            .replace_all(&out, |found: &regex::Captures<'_>| hashed(&found[0].to_lowercase()))
            .into_owned()
    }
}

/// Paths of the fields in which two documents differ.
fn differences(at: &str, want: &Value, got: &Value, out: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let none = &Value::Null;
                differences(
                    &format!("{at}.{key}"),
                    a.get(key).unwrap_or(none),
                    b.get(key).unwrap_or(none),
                    out,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{at}[{n}]"), a, b, out);
            }
        }
        (a, b) if a != b => out.push(format!("{at}: expected {a}, read {b}")),
        _ => {}
    }
}

#[tokio::test]
async fn the_facts_of_every_captured_tree_are_those_in_its_golden_file() {
    for name in NAMES {
        let Some(tree) = tree(name) else { return };
        let got = facts(&tree).await;
        if std::env::var_os("FARRIER_BLESS").is_some() {
            let text = serde_json::to_string_pretty(&got).unwrap();
            std::fs::write(file(name), text + "\n").unwrap();
            continue;
        }
        let want: Value = serde_json::from_slice(&std::fs::read(file(name)).unwrap()).unwrap();
        let mut wrong = Vec::new();
        differences(name, &want, &got, &mut wrong);
        assert!(wrong.is_empty(), "{} fields differ:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn no_golden_file_holds_an_identity_of_its_tree() {
    for name in NAMES {
        let Some(tree) = tree(name) else { return };
        let text = std::fs::read_to_string(file(name)).unwrap().to_lowercase();
        for value in identities(&tree) {
            assert!(!text.contains(&value.to_lowercase()), "{name}: `{value}`");
        }
        assert!(text.contains("\"#"), "{name}: nothing is hashed, so nothing was compared");
    }
}

#[test]
fn a_changed_field_is_named() {
    let mut found = Vec::new();
    let (a, b) =
        (json!({"gpus": [{"model": "A"}], "n": 1}), json!({"gpus": [{"model": "B"}], "n": 1}));
    differences("t", &a, &b, &mut found);
    assert_eq!(found, ["t.gpus[0].model: expected \"A\", read \"B\""]);
}
