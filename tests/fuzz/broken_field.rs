//! One broken field costs that field: every value of a whole BMC is spoilt in every way, one at a
//! time, and what else was read of it must be what it was (field notes R23).

use super::{mutate, seeds};
use farrier::fuzz::{Deck, Read, read};
use farrier::model::Fault;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// `system/model`, `gpus/GPU1/serial`, … and what was read there.
type Facts = BTreeMap<String, String>;

/// The seed that has every part, as documents by path.
fn whole() -> Vec<(String, Value)> {
    let seeds = seeds::own("redfish-facts");
    let (_, text) = seeds.iter().find(|(name, _)| name == "whole").unwrap();
    let text = String::from_utf8(text.clone()).unwrap();
    let documents = text.split("=== ").filter(|d| !d.is_empty()).map(|d| {
        let (head, body) = d.split_once("\n\n").unwrap();
        (head.split(' ').next().unwrap().to_string(), serde_json::from_str(body).unwrap())
    });
    documents.collect()
}

fn read_of(documents: &[(String, Value)]) -> Read {
    let of = documents.iter().map(|(path, v)| (path.as_str(), v.to_string().into_bytes()));
    read(&Arc::new(Deck::of(of))).unwrap()
}

fn flat(facts: &Read) -> Facts {
    fn put(out: &mut Facts, at: &str, v: &Value) {
        match v {
            Value::Object(o) => o.iter().for_each(|(k, v)| put(out, &format!("{at}/{k}"), v)),
            Value::Null => {}
            v => drop(out.insert(at.to_string(), v.to_string())),
        }
    }
    fn each<T: serde::Serialize>(out: &mut Facts, at: &str, parts: &[T], id: impl Fn(&T) -> &str) {
        for part in parts {
            put(out, &format!("{at}/{}", id(part)), &json!(part));
        }
    }
    fn lost(out: &mut Facts, at: &str, fault: &Fault) {
        out.insert(format!("{at}/!"), fault.code.to_string());
    }
    let mut out = Facts::new();
    match &facts.system {
        Ok(system) => put(&mut out, "system", &json!(system)),
        Err(f) => lost(&mut out, "system", f),
    }
    match &facts.inventory {
        Ok(found) => {
            each(&mut out, "cpus", &found.cpus, |p| &p.id);
            each(&mut out, "gpus", &found.gpus, |p| &p.id);
            each(&mut out, "disks", &found.disks, |p| &p.id);
            each(&mut out, "nics", &found.nics, |n| &n.id);
            put(&mut out, "memory", &json!(found.memory_mib));
            put(&mut out, "clock", &json!(found.clock));
        }
        Err(f) => lost(&mut out, "inventory", f),
    }
    match &facts.firmware {
        Ok(all) => each(&mut out, "firmware", all, |c| &c.id),
        Err(f) => lost(&mut out, "firmware", f),
    }
    match &facts.tasks {
        Ok(all) => each(&mut out, "tasks", all, |t| &t.uri),
        Err(f) => lost(&mut out, "tasks", f),
    }
    out
}

/// Of the document at `path`, what may change where the value below `key` is spoilt.
fn may_change(path: &str, key: &str) -> Vec<String> {
    let last = path.rsplit('/').next().unwrap();
    let machine = ["system/", "cpus/", "gpus/", "disks/", "nics/", "memory", "inventory/", "clock"];
    // A part is told by its id; where the id is spoilt it is another one's.
    let part = |kind: &str| vec![if key == "Id" { kind.into() } else { format!("{kind}{last}/") }];
    let all = |kinds: &[&str]| kinds.iter().map(|k| (*k).to_string()).collect();
    match (path, key) {
        // Where work may be hidden, and without a system nobody knows where: rather no task list than
        // one that lacks it.
        ("/redfish/v1", "Systems") => [all(&machine), all(&["tasks/"])].concat(),
        ("/redfish/v1/Systems", _) => all(&machine),
        // iLO says there what it flashes.
        ("/redfish/v1", "UpdateService") => all(&["firmware/", "tasks/"]),
        // Whose BMC it is says whether it hides work, and where.
        ("/redfish/v1", "Tasks" | "Chassis" | "Vendor") => all(&["tasks/"]),
        ("/redfish/v1", "Managers") | ("/redfish/v1/Managers", _) => all(&["clock"]),
        (p, "DateTime" | "DateTimeLocalOffset") if p.contains("/Managers/") => all(&["clock"]),
        (p, _) if p.contains("/Managers/") => vec![],
        (p, _) if p.contains("/Chassis") => all(&["tasks/"]),
        // Sessions gone: Basic is used.
        ("/redfish/v1", _) => vec![],
        ("/redfish/v1/Systems/1", key) => all(match key {
            "SerialNumber" | "UUID" => &["system/identity/"],
            "Manufacturer" => &["system/manufacturer"],
            // Of a DGX it says that copies are hidden.
            "Model" => &["system/model", "tasks/"],
            "PowerState" => &["system/power"],
            "BiosVersion" => &["system/bios_version"],
            "LastResetTime" => &["system/last_reset"],
            "Status" => &["system/health"],
            "Boot" => &["system/boot_"],
            "MemorySummary" => &["memory"],
            "Processors" => &["cpus/", "gpus/"],
            "EthernetInterfaces" => &["nics/", "system/identity/mac"],
            "Storage" => &["disks/"],
            _ => &[],
        }),
        (p, _) if p.ends_with("/Processors") => all(&["cpus/", "gpus/"]),
        // One of an unknown type is a CPU, as older BMCs have them.
        (p, _) if p.contains("/Processors/CPU") => part("cpus/"),
        (p, _) if p.contains("/Processors/") => [part("gpus/"), part("cpus/")].concat(),
        (p, _) if p.ends_with("/EthernetInterfaces") => all(&["nics/", "system/identity/mac"]),
        (p, _) if p.contains("/EthernetInterfaces/") => {
            [part("nics/"), all(&["system/identity/mac"])].concat()
        }
        (p, _) if p.contains("/Storage") => all(&["disks/"]),
        (p, _) if p.contains("/Drives/") => part("disks/"),
        (p, _) if p.contains("/FirmwareInventory/") => part("firmware/"),
        (p, "Oem") if p.ends_with("/UpdateService") => all(&["tasks/"]),
        (p, _) if p.contains("/UpdateService") => all(&["firmware/"]),
        (p, _) if p.contains("/TaskService") => all(&["tasks/"]),
        (p, _) => panic!("what may `{p}` change?"),
    }
}

/// The whole BMC as an iLO that flashes, and as a DGX whose root of trust copies: no task shows either.
fn with_hidden_work() -> [(Vec<(String, Value)>, &'static str); 2] {
    let of = |path: &str, changes: Value, all: &mut Vec<(String, Value)>| {
        let found = all.iter_mut().find(|(p, _)| p == path);
        let (_, document) = found.unwrap();
        for (key, value) in changes.as_object().unwrap() {
            document[key] = value.clone();
        }
    };
    let mut ilo = whole();
    of("/redfish/v1", json!({"Vendor": "HPE"}), &mut ilo);
    let flashes = json!({"Oem": {"Hpe": {"State": "Writing", "Flags": "NONE"}}});
    of("/redfish/v1/UpdateService", flashes, &mut ilo);
    let mut dgx = whole();
    of("/redfish/v1", json!({"Vendor": "AMI"}), &mut dgx);
    of("/redfish/v1/Systems/1", json!({"Model": "DGXH100"}), &mut dgx);
    let member = "/redfish/v1/Chassis/HGX_ERoT_GPU_SXM_1";
    dgx.push(("/redfish/v1/Chassis".into(), json!({"Members": [{"@odata.id": member}]})));
    let copies = json!({"Id": "E", "Oem": {"Nvidia": {"BackgroundCopyStatus": "InProgress"}}});
    dgx.push((member.into(), copies));
    [
        (ilo, "tasks//redfish/v1/UpdateService#/Oem/Hpe/State/state"),
        (
            dgx,
            "tasks//redfish/v1/Chassis/HGX_ERoT_GPU_SXM_1#/Oem/Nvidia/BackgroundCopyStatus/state",
        ),
    ]
}

/// The value number `n` of a document, depth first: its own key at the top.
fn top_key(document: &Value, n: usize) -> String {
    let mut left = n;
    for (key, v) in document.as_object().unwrap() {
        let below = 1 + mutate::count(v);
        if left < below {
            return key.clone();
        }
        left -= below;
    }
    panic!("no value {n}")
}

/// Spoils the documents that `of` picks; what it cost, and how many trees were read.
fn spoil(
    documents: &[(String, Value)],
    of: impl Fn(&str) -> bool,
) -> (BTreeSet<String>, usize, usize) {
    let before = flat(&read_of(documents));
    let harms = [
        None,
        Some(Value::Null),
        Some(json!(-7.5e300)),
        Some(json!("\u{0}é{}://../")),
        Some(json!([null, 1, "x", [], {}])),
        Some(json!({"@odata.id": 5, "x": null})),
    ];
    let (mut spoilt, mut cost, mut free) = (0, BTreeSet::new(), 0);
    for (n, (path, document)) in documents.iter().enumerate().filter(|(_, (p, _))| of(p)) {
        for value in 0..mutate::count(document) {
            let key = top_key(document, value);
            let may = may_change(path, &key);
            for harm in &harms {
                let mut broken = documents.to_vec();
                assert!(mutate::replace(&mut broken[n].1, &mut value.clone(), harm));
                let after = flat(&read_of(&broken));
                spoilt += 1;
                let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                let changed: Vec<&String> =
                    keys.into_iter().filter(|k| before.get(*k) != after.get(*k)).collect();
                free += usize::from(changed.is_empty());
                for fact in changed {
                    assert!(
                        may.iter().any(|m| fact.starts_with(m.as_str())),
                        "{path}: `{key}` (value {value}) as {harm:?} changes `{fact}`: {:?} to {:?}",
                        before.get(fact),
                        after.get(fact)
                    );
                    cost.insert(fact.clone());
                }
            }
        }
    }
    (cost, spoilt, free)
}

#[test]
fn one_broken_field_costs_that_field_alone() {
    let documents = whole();
    let before = flat(&read_of(&documents));
    for wanted in
        ["system/model", "cpus/CPU1/model", "gpus/GPU2/slot", "disks/DISK1/serial", "clock/says"]
    {
        assert!(before.contains_key(wanted), "{before:#?}");
    }
    let (cost, spoilt, free) = spoil(&documents, |_| true);
    // Nothing was read that no field stands for, and spoiling is not without effect.
    let never: Vec<&String> = before.keys().filter(|k| !cost.contains(*k)).collect();
    assert_eq!(never, Vec::<&String>::new());
    println!("{spoilt} spoilt trees, {free} of them read as before");
}

#[test]
fn one_broken_field_costs_no_more_where_work_is_hidden() {
    for (documents, work) in with_hidden_work() {
        let before = flat(&read_of(&documents));
        assert_eq!(before.get(work).map(String::as_str), Some("\"in-progress\""), "{before:#?}");
        let says =
            |p: &str| p == "/redfish/v1" || p.ends_with("/UpdateService") || p.contains("/Chassis");
        let (cost, spoilt, _) = spoil(&documents, says);
        assert!(cost.contains(work), "{cost:?}");
        println!("{spoilt} spoilt trees with hidden work");
    }
}
