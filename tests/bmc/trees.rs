//! Trees captured from real BMCs, served as files, with what must be read from them; and the same
//! trees with any field removed, nulled or retyped.

use super::captured::{Tree, serve, tree};
use super::server::{Reply, Server};
use super::small::small_tree;
use super::{edge, target};
use farrier::model::facts::{InventoryFacts, Power, SystemFacts};
use farrier::model::{Fault, FaultClass, Identity};
use farrier::port::BmcRead;
use farrier::port::capability::{
    BmcAbilities, BmcBios, BmcClock, BmcLog, BmcMedia, BmcSensors, BmcVolumes,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

struct Read {
    system: SystemFacts,
    inventory: InventoryFacts,
    firmware: usize,
    /// Requests of one `system` once the path is known.
    gets: usize,
}

async fn read(name: &str) -> Option<Read> {
    let server = serve(tree(name)?).await;
    let (edge, bmc) = (edge(), target(&server.url));
    edge.system(&bmc).await.unwrap_or_else(|f| panic!("{name}: {f:?}"));
    let before = server.seen().len();
    let system = edge.system(&bmc).await.unwrap();
    let gets = server.seen().len() - before;
    let inventory = edge.inventory(&bmc).await.unwrap_or_else(|f| panic!("{name}: {f:?}"));
    let firmware = edge.firmware(&bmc).await.unwrap_or_else(|f| panic!("{name}: {f:?}"));
    assert!(firmware.iter().all(|c| !c.id.is_empty() && c.uri.is_some()));
    println!(
        "{name}: {:?} {:?} {} cpus {:?} MiB {} disks {} nics {} gpus {} firmware {} warnings",
        system.identity,
        system.model,
        inventory.cpus.len(),
        inventory.memory_mib,
        inventory.disks.len(),
        inventory.nics.len(),
        inventory.gpus.len(),
        firmware.len(),
        inventory.warnings.len(),
    );
    Some(Read { system, inventory, firmware: firmware.len(), gets })
}

#[tokio::test]
async fn dell_r750() {
    let Some(r) = read("dell-poweredge-r750-idrac9-7.10").await else { return };
    assert_eq!(r.system.identity.serial.as_deref(), Some("CLLV0R3"), "the service tag");
    assert_eq!(r.system.identity.uuid.as_deref(), Some("4c4c4544-004c-4c10-8056-c3c04f305233"));
    assert_eq!(r.system.model.as_deref(), Some("PowerEdge R750"));
    assert_eq!((r.system.power, r.system.bios_version.as_deref()), (Power::On, Some("1.13.2")));
    assert_eq!(r.system.last_reset, None, "this clock never ran");
    assert_eq!(r.system.boot_enabled.as_deref(), Some("Disabled"));
    assert_eq!((r.gets, r.firmware), (1, 23));
    assert_eq!((r.inventory.cpus.len(), r.inventory.memory_mib), (2, Some(128 * 1024)));
    assert_eq!(r.inventory.nics.len(), 4);
}

#[tokio::test]
async fn lenovo_with_eight_gpus() {
    let Some(r) = read("lenovo-sr670v2-xcc-8gpu").await else { return };
    assert_eq!(r.system.identity.serial.as_deref(), Some("J105958B"));
    assert_eq!((r.inventory.cpus.len(), r.inventory.gpus.len()), (2, 8));
    assert!(r.inventory.gpus.iter().all(|g| g.serial.is_some()));
    assert_eq!((r.gets, r.inventory.memory_mib), (1, Some(1 << 20)));
    assert!(r.firmware > 0);
}

#[tokio::test]
async fn supermicro_hgx_has_its_gpus_among_the_pcie_devices() {
    let Some(r) = read("supermicro-sys821ge-tnhr-hgxh100").await else { return };
    assert_eq!(r.system.identity.serial.as_deref(), Some("S889914X3710910"));
    assert_eq!(r.inventory.gpus.len(), 8);
    assert!(r.inventory.gpus.iter().all(|g| g.model.as_deref() == Some("H100 80GB HBM3")));
    assert_eq!((r.inventory.cpus.len(), r.firmware, r.gets), (2, 106, 1));
}

#[tokio::test]
async fn dgx_is_the_machine_and_its_baseboard_has_the_gpus() {
    let Some(r) = read("nvidia-dgxh100-ami").await else { return };
    assert_eq!(r.system.model.as_deref(), Some("DGXH100"), "not HGX_Baseboard_0");
    assert_eq!(r.system.identity.serial.as_deref(), Some("1662923610124"));
    assert_eq!(r.inventory.gpus.len(), 8, "the FPGA is none");
    assert!(r.inventory.gpus.iter().all(|g| g.id.starts_with("GPU_SXM_")));
    assert_eq!(r.inventory.memory_mib, Some(2048 * 1024));
    assert_eq!(r.gets, 2, "its boot override lives in a settings object");
    assert!(r.firmware > 0);
}

#[tokio::test]
async fn dmtf_reference_tree() {
    let Some(r) = read("dmtf-public-rackmount1").await else { return };
    assert_eq!(r.system.identity.serial.as_deref(), Some("437XR1138R2"));
    assert_eq!((r.system.power, r.inventory.memory_mib), (Power::On, Some(96 * 1024)));
    let server = serve(tree("dmtf-public-rackmount1").unwrap()).await;
    let tasks = edge().tasks(&target(&server.url), None).await.unwrap();
    assert_eq!(tasks.len(), 2);
}

#[tokio::test]
async fn a_forbidden_html_answer_is_classified() {
    let Some(tree) = tree("quirk-403-html-libredfish") else { return };
    let server = Server::start(move |r, _| {
        let path = r.path.trim_end_matches('/').to_lowercase();
        match tree.get(&path) {
            Some(v) if path == "/redfish/v1" => Reply::ok(v.clone()),
            _ if r.method == "POST" => {
                Reply::Json(201, vec![], json!({})).with("X-Auth-Token", "t-1")
            }
            _ => Reply::Text(
                403,
                "text/html",
                "<?xml version=\"1.0\"?><html><h1>403 - Forbidden</h1></html>".into(),
            ),
        }
    })
    .await;
    let f = edge().system(&target(&server.url)).await.unwrap_err();
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Precondition, "forbidden"));
    assert!(f.evidence.is_some_and(|e| e.contains("403 - Forbidden")));
}

/// How one value is spoilt.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Remove,
    Null,
    Number,
    Text,
    List,
    Object,
}

/// Spoils the `nth` value of a document (depth first, wrapping around).
fn spoil(v: &mut Value, nth: usize, harm: Harm) {
    fn count(v: &Value) -> usize {
        match v {
            Value::Object(o) => o.values().map(|v| 1 + count(v)).sum(),
            Value::Array(a) => a.iter().map(|v| 1 + count(v)).sum(),
            _ => 0,
        }
    }
    fn replacement(harm: Harm) -> Value {
        match harm {
            Harm::Remove | Harm::Null => Value::Null,
            Harm::Number => json!(-7.5e300),
            Harm::Text => json!("\u{0}é{}://../"),
            Harm::List => json!([null, 1, "x", [], {}]),
            Harm::Object => json!({"@odata.id": 5, "x": null}),
        }
    }
    fn walk(v: &mut Value, left: &mut usize, harm: Harm) -> bool {
        match v {
            Value::Object(o) => {
                let keys: Vec<String> = o.keys().cloned().collect();
                for key in keys {
                    if *left == 0 {
                        if matches!(harm, Harm::Remove) {
                            o.remove(&key);
                        } else {
                            o.insert(key, replacement(harm));
                        }
                        return true;
                    }
                    *left -= 1;
                    if let Some(inner) = o.get_mut(&key)
                        && walk(inner, left, harm)
                    {
                        return true;
                    }
                }
                false
            }
            Value::Array(a) => {
                for i in 0..a.len() {
                    if *left == 0 {
                        if matches!(harm, Harm::Remove) {
                            a.remove(i);
                        } else {
                            a[i] = replacement(harm);
                        }
                        return true;
                    }
                    *left -= 1;
                    if walk(&mut a[i], left, harm) {
                        return true;
                    }
                }
                false
            }
            _ => false,
        }
    }
    let all = count(v);
    if all > 0 {
        walk(v, &mut (nth % all), harm);
    }
}

fn harms() -> impl Strategy<Value = Harm> {
    prop_oneof![
        Just(Harm::Remove),
        Just(Harm::Null),
        Just(Harm::Number),
        Just(Harm::Text),
        Just(Harm::List),
        Just(Harm::Object),
    ]
}

/// Everything is read from the tree; a fault must be one of a BMC, not of ours, and quick.
///
/// `all`: the capabilities beyond the daily round too.
fn read_spoilt(tree: Tree, all: bool) -> Vec<Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let server = serve(Arc::new(tree)).await;
        let (edge, mut bmc) = (edge(), target(&server.url));
        bmc.identity = Identity::new(Some("S1"), None, Some("00:00:5e:00:53:01"));
        let (system, inventory, firmware, tasks) = tokio::join!(
            edge.system(&bmc),
            edge.inventory(&bmc),
            edge.firmware(&bmc),
            edge.tasks(&bmc, Some("/redfish/v1/T/1")),
        );
        let mut faults: Vec<Fault> = [system.err(), inventory.err(), firmware.err(), tasks.err()]
            .into_iter()
            .flatten()
            .collect();
        if !all {
            return faults;
        }
        let (abilities, media, bios, secure_boot) = tokio::join!(
            edge.abilities(&bmc),
            edge.media(&bmc),
            edge.bios(&bmc),
            edge.secure_boot(&bmc),
        );
        let (log, sensors, volumes, clock) = tokio::join!(
            edge.log(&bmc, 5),
            edge.sensors(&bmc),
            edge.volumes(&bmc),
            edge.clock(&bmc),
        );
        let all = [
            abilities.err(),
            media.err(),
            bios.err(),
            secure_boot.err(),
            log.err(),
            sensors.err(),
            volumes.err(),
            clock.err(),
        ];
        faults.extend(all.into_iter().flatten());
        faults
    })
}

fn assert_classified(faults: &[Fault]) {
    for f in faults {
        assert_ne!(f.class, FaultClass::Bug, "{f:?}");
        assert!(!f.is_no_answer(), "the server answered: {f:?}");
        assert!(f.evidence.as_ref().is_none_or(|e| e.chars().count() <= 301), "{f:?}");
    }
}

#[test]
fn the_small_tree_is_whole() {
    assert_eq!(read_spoilt(small_tree(), true), vec![]);
}

#[tokio::test]
async fn every_capability_of_the_small_tree_is_read_whole() {
    use farrier::model::hardware::SensorKind;
    let server = serve(Arc::new(small_tree())).await;
    let (edge, bmc) = (edge(), target(&server.url));
    let abilities = edge.abilities(&bmc).await.unwrap();
    assert_eq!(abilities.bmc_firmware.as_deref(), Some("1.2"));
    assert_eq!(abilities.bmc_reset_types, ["ForceRestart"]);
    let media = edge.media(&bmc).await.unwrap();
    assert_eq!((media.len(), media[0].id.as_str(), media[0].inserted), (1, "CD", Some(false)));
    let bios = edge.bios(&bmc).await.unwrap();
    assert_eq!(bios.attributes.len(), 3);
    assert_eq!(bios.pending.get("Cores"), Some(&json!(4)));
    assert_eq!(edge.secure_boot(&bmc).await.unwrap().in_force, Some(true));
    let log = edge.log(&bmc, 2).await.unwrap();
    let newest: Vec<&str> = log.iter().map(|e| e.message.as_str()).collect();
    assert_eq!(newest, ["off", "hot"], "the last page is the newest");
    let sensors = edge.sensors(&bmc).await.unwrap();
    let of = |kind| sensors.iter().filter(|s| s.kind == kind).count();
    assert_eq!(
        [
            SensorKind::Power,
            SensorKind::Temperature,
            SensorKind::Fan,
            SensorKind::Voltage,
            SensorKind::Leak,
            SensorKind::Other
        ]
        .map(of),
        [2, 1, 1, 1, 1, 0]
    );
    let volumes = edge.volumes(&bmc).await.unwrap();
    assert_eq!((volumes[0].raid.as_deref(), volumes[0].drives.len()), (Some("RAID1"), 1));
    let clock = edge.clock(&bmc).await.unwrap();
    assert!(clock.ahead_ms.is_some_and(|ms| ms < 0), "2024 is behind: {clock:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_spoilt_field_yields_facts_or_a_classified_fault(
        at in any::<prop::sample::Index>(),
        nth in 0_usize..400,
        harm in harms(),
    ) {
        let mut tree = small_tree();
        let uri = tree.keys().nth(at.index(tree.len())).cloned().unwrap_or_default();
        spoil(tree.get_mut(&uri).unwrap(), nth, harm);
        assert_classified(&read_spoilt(tree, true));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_spoilt_captured_tree_does_too(
        which in 0_usize..3,
        at in any::<prop::sample::Index>(),
        nth in 0_usize..4_000,
        harm in harms(),
    ) {
        let name = [
            "dell-poweredge-r750-idrac9-7.10",
            "lenovo-sr670v2-xcc-8gpu",
            "nvidia-dgxh100-ami",
        ][which];
        if let Some(tree) = tree(name) {
            let mut tree = (*tree).clone();
            // Among the resources that are read: systems and what is below them, and the services.
            let read: Vec<String> = tree
                .keys()
                .filter(|k| {
                    let depth = k.matches('/').count();
                    depth <= 4 || k.contains("/processors/") && depth <= 6
                })
                .cloned()
                .collect();
            let uri = &read[at.index(read.len())];
            spoil(tree.get_mut(uri).unwrap(), nth, harm);
            // A DGX has 350 sensors and 40 logs: what they may hold, the small tree has too.
            assert_classified(&read_spoilt(tree, which < 2));
        }
    }
}
