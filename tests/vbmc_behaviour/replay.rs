//! Captured trees through the replay server: what our client reads there is what it reads from a
//! server that was written for the comparison. Skipped where the trees are not beside the checkout.

use super::server::{Reply, Server};
use super::site::{Site, edge};
use super::unpacked::{MOCKUPS, unpacked};
use farrier::model::facts::{Component, InventoryFacts, SystemFacts};
use farrier::model::{BmcEndpoint, Identity, MachineId};
use farrier::port::{BmcRead, BmcTarget};
use farrier::sim::serve::Behaviour;
use farrier::sim::serve::replay::{Expand, Tree};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The trees, unpacked; each by name.
fn trees() -> Option<(tempfile::TempDir, Vec<String>)> {
    let dir = unpacked(MOCKUPS)?;
    let mut names: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Some((dir, names))
}

/// The tree in memory, read by nothing that the replay server uses.
fn in_memory(top: &Path) -> BTreeMap<String, Value> {
    let prefix = if top.join("redfish/v1").is_dir() { "" } else { "/redfish/v1" };
    let mut out = BTreeMap::new();
    let mut dirs: Vec<PathBuf> = vec![top.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.file_name().is_some_and(|f| f == "index.json") {
                let below = dir.strip_prefix(top).unwrap().to_string_lossy().to_lowercase();
                let uri = format!("{prefix}/{below}").trim_end_matches('/').to_string();
                if let Ok(v) = serde_json::from_slice(&std::fs::read(&path).unwrap()) {
                    out.insert(uri, v);
                }
            }
        }
    }
    out
}

async fn plain_server(tree: BTreeMap<String, Value>) -> Server {
    Server::start(move |r, _| {
        if r.method == "POST" && r.path.ends_with("Sessions") {
            return Reply::Json(201, vec![], json!({})).with("X-Auth-Token", "t-1");
        }
        let path = r.path.split('?').next().unwrap_or_default();
        match tree.get(&path.trim_end_matches('/').to_lowercase()) {
            Some(v) => Reply::ok(v.clone()),
            None => Reply::said(404, "ResourceMissingAtURI"),
        }
    })
    .await
}

fn target(url: &str) -> BmcTarget {
    BmcTarget {
        machine: MachineId(1),
        name: "captured".into(),
        endpoint: BmcEndpoint {
            url: url.into(),
            credential: "bmc".into(),
            tls: "off".into(),
            ipmi: None,
            controllers: Default::default(),
        },
        identity: Identity::default(),
    }
}

type Facts = (SystemFacts, InventoryFacts, Vec<Component>);

async fn facts(name: &str, url: &str) -> Facts {
    let (edge, bmc) = (edge(10_000), target(url));
    let mut inventory = edge.inventory(&bmc).await.unwrap_or_else(|f| panic!("{name}: {f:?}"));
    // A captured clock stands still, so it is further behind with each read.
    inventory.clock = None;
    inventory.warnings.retain(|w| !w.starts_with("the BMC's clock "));
    (
        edge.system(&bmc).await.unwrap_or_else(|f| panic!("{name}: {f:?}")),
        inventory,
        edge.firmware(&bmc).await.unwrap_or_else(|f| panic!("{name}: {f:?}")),
    )
}

async fn replaying(top: &Path, expand: Expand) -> Site {
    let tree = Tree::load(top, expand).unwrap_or_else(|e| panic!("{e}"));
    let behaviour = Behaviour { replay: Some(Arc::new(tree)), ..Behaviour::default() };
    Site::start(60, 1, behaviour).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_of_every_captured_tree_are_those_of_its_files() {
    let Some((dir, names)) = trees() else { return };
    let mut read = 0;
    for name in names.iter().filter(|n| !n.starts_with("quirk-")) {
        let top = dir.path().join(name);
        let server = plain_server(in_memory(&top)).await;
        let wanted = facts(name, &server.url).await;
        for expand in [Expand::Ignored, Expand::Refused] {
            let site = replaying(&top, expand).await;
            let got = facts(name, &site.serving.bmc_url(site.seat(1))).await;
            assert_eq!(got, wanted, "{name}, $expand {expand:?}");
        }
        println!("{name}: {} gpus, {} firmware", wanted.1.gpus.len(), wanted.2.len());
        read += 1;
    }
    assert!(read >= 5, "{names:?}");
}

#[tokio::test]
async fn a_captured_tree_takes_writes_in_memory_and_changes_nothing() {
    let Some((dir, names)) = trees() else { return };
    let name = names.iter().find(|n| n.starts_with("dmtf-")).expect("DMTF's tree");
    let top = dir.path().join(name);
    let site = replaying(&top, Expand::Refused).await;
    let system = "/redfish/v1/Systems/437XR1138R2";
    let before = site.get(1, system).await;
    let (status, ..) = site
        .call(
            1,
            Method::PATCH,
            system,
            &[],
            Some(json!({"AssetTag": "rack 7", "Boot": {"BootSourceOverrideTarget": "Pxe"}})),
        )
        .await;
    assert_eq!(status, 204);
    // In any case, with a slash.
    let after = site
        .get(1, &format!("{}/", system.to_uppercase().replace("/REDFISH/V1", "/redfish/v1")))
        .await;
    assert_eq!(after["AssetTag"], "rack 7");
    assert_eq!(after["Boot"]["BootSourceOverrideTarget"], "Pxe");
    assert_eq!(after["Boot"]["BootSourceOverrideMode"], before["Boot"]["BootSourceOverrideMode"]);
    let reset = format!("{system}/Actions/ComputerSystem.Reset");
    let (status, ..) =
        site.call(1, Method::POST, &reset, &[], Some(json!({"ResetType": "ForceOff"}))).await;
    assert_eq!(status, 204);
    assert_eq!(site.get(1, system).await["PowerState"], before["PowerState"], "no state behind it");
    let nowhere = "/redfish/v1/Systems/no/Actions/ComputerSystem.Reset";
    assert_eq!(site.call(1, Method::POST, nowhere, &[], Some(json!({}))).await.0, 404);
    let expanded = "/redfish/v1/Systems?$expand=.($levels=1)";
    assert_eq!(site.call(1, Method::GET, expanded, &[], None).await.0, 501);
    assert_eq!(site.log_in(1, "wrong").await.0, 401);
    let (status, headers, _) = site.log_in(1, super::site::PASSWORD).await;
    assert_eq!((status, site.open_sessions(1).await), (201, 1));
    let own = headers["location"].to_str().unwrap().to_string();
    assert_eq!(site.call(1, Method::DELETE, &own, &[], None).await.0, 204);
    assert_eq!(site.open_sessions(1).await, 0);
    assert_eq!(site.call(1, Method::PATCH, system, &[], Some(json!([1]))).await.0, 400);
}

#[tokio::test]
async fn a_captured_refusal_keeps_its_status_and_its_html() {
    let Some((dir, names)) = trees() else { return };
    let Some(name) = names.iter().find(|n| n.starts_with("quirk-403")) else { return };
    let site = replaying(&dir.path().join(name), Expand::Ignored).await;
    let (status, headers, _) = site.call(1, Method::GET, "/redfish/v1/Systems", &[], None).await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (403, "text/html"));
    let fault = edge(1_000).system(&target(&site.serving.bmc_url(site.seat(1)))).await.unwrap_err();
    assert_eq!(&*fault.code, "forbidden", "{fault:?}");
}
