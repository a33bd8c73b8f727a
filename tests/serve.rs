//! The virtual machines' wire, met by clients that are not ours: a plain HTTP client for the BMCs,
//! the system's `ssh` for the hosts.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // sockets, processes, a clock

use axum::extract::{ConnectInfo, Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use farrier::bmc::RedfishBmc;
use farrier::model::{
    Action, BmcEndpoint, EngineTime, Fault, HookVerb, Identity, MachineId, PowerOp,
};
use farrier::port::{BmcRead, BmcTarget, Credential, Secret, Vault};
use farrier::sim::durations::{Draw, Durations};
use farrier::sim::faults::Dice;
use farrier::sim::physics::{HostState, Quirks, Sickness};
use farrier::sim::rng::Rng;
use farrier::sim::serve::{Berth, Hosts, Latency, Seat, Serving, Settings, admin, host, serve};
use farrier::sim::truth::What;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Site {
    serving: Serving,
    dir: TempDir,
    http: reqwest::Client,
}

fn identity(n: u32) -> Identity {
    Identity::new(
        Some(&format!("VN{n:06}")),
        Some(&format!("f0a1{n:04x}-1111-4222-8333-444455556666")),
        Some(&format!("02:fa:00:00:{:02x}:{:02x}", n >> 8, n & 255)),
    )
}

async fn site(scale: u32, berths: impl IntoIterator<Item = (Option<Sickness>, Quirks)>) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let keypair = Ed25519Keypair::from_seed(&[7; 32]);
    let key = PrivateKey::new(KeypairData::Ed25519(keypair), "site").unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, &*key.to_openssh(LineEnding::LF).unwrap()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let machines = berths.into_iter().enumerate().map(|(n, (sick, quirks))| {
        let n = u32::try_from(n).unwrap() + 1;
        Berth {
            id: MachineId(n),
            name: format!("node-{n}").into(),
            identity: identity(n),
            gpus: 8,
            quirks,
            sick,
            user: "admin".into(),
            password: format!("password-{n}"),
            dice: Dice::none(),
        }
    });
    let settings = Settings {
        dir: dir.path().join("world"),
        seed: 1,
        scale,
        durations: Durations {
            // The shim's own time: the tests do not wait for a diagnostic.
            burn_in: Draw::new(1, 0.0, 1, 1),
            ..Durations::default()
        },
        latency: Latency::Even(0, 2),
        hosts: Hosts::Programs,
        authorized_key: key.public_key().to_openssh().unwrap(),
        redfish_port: 0,
        ssh_port: 0,
        machines: machines.collect(),
    };
    let serving = serve(settings).await.unwrap();
    let http =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
    Site { serving, dir, http }
}

impl Site {
    fn seat(&self, n: usize) -> &Arc<Seat> {
        &self.serving.world.seats[n - 1]
    }

    fn now(&self) -> EngineTime {
        self.serving.world.now()
    }

    fn url(&self, n: usize, path: &str) -> String {
        format!("{}{path}", self.serving.bmc_url(self.seat(n)))
    }

    async fn call(
        &self,
        n: usize,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(u16, reqwest::header::HeaderMap, Value), reqwest::Error> {
        let mut request = self
            .http
            .request(method, self.url(n, path))
            .basic_auth("admin", Some(format!("password-{n}")));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await?;
        Ok((status, headers, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    async fn get(&self, n: usize, path: &str) -> Value {
        let (status, _, body) = self.call(n, reqwest::Method::GET, path, None).await.unwrap();
        assert_eq!(status, 200, "{path}");
        body
    }

    async fn post(&self, n: usize, path: &str, body: Value) -> u16 {
        self.call(n, reqwest::Method::POST, path, Some(body)).await.unwrap().0
    }

    async fn reset(&self, n: usize, kind: &str) -> u16 {
        let path = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
        self.post(n, path, json!({"ResetType": kind})).await
    }

    /// Runs a command on the host with the system's ssh, its key pinned as the physics has it.
    async fn ssh(&self, n: usize, command: &str) -> (Option<i32>, String, String) {
        let seat = self.seat(n);
        let key = seat.with(self.now(), |b| host::public_host_key(&b.vm)).unwrap();
        let known = self.dir.path().join(format!("known-{n}"));
        let port = self.serving.ssh_port;
        std::fs::write(&known, format!("[{}]:{port} {key}\n", seat.address)).unwrap();
        let out = tokio::process::Command::new("ssh")
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=5"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", known.display()))
            .arg("-i")
            .arg(self.dir.path().join("key"))
            .args(["-p", &port.to_string()])
            .arg(format!("root@{}", seat.address))
            .arg(command)
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .unwrap();
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    }

    /// A host that runs an operating system, as if it had been delivered so.
    async fn found_running(&self, n: usize) {
        self.seat(n).with(self.now(), |b| b.vm.found_running(false, 0));
        let (status, ..) = self.call(n, reqwest::Method::GET, "/redfish/v1", None).await.unwrap();
        assert_eq!(status, 200);
        self.until("SSH answers", || async { self.ssh(n, "true").await.0 == Some(0) }).await;
    }

    async fn until<F: Future<Output = bool>>(&self, what: &str, mut is: impl FnMut() -> F) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is().await {
            assert!(Instant::now() < deadline, "still not: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn healthy(n: usize) -> Vec<(Option<Sickness>, Quirks)> {
    vec![(None, Quirks::default()); n]
}

/// What the wire says, in the physics' own words.
fn heard(system: &Value, nic: &Value, versions: &[Value], tasks: &[Value]) -> Value {
    json!({
        "serial": system["SerialNumber"], "uuid": system["UUID"], "mac": nic["MACAddress"],
        "power": system["PowerState"], "bios": system["BiosVersion"],
        "target": system["Boot"]["BootSourceOverrideTarget"],
        "enabled": system["Boot"]["BootSourceOverrideEnabled"],
        "versions": versions.iter().map(|v| json!([v["Id"], v["Version"]])).collect::<Vec<_>>(),
        "tasks": tasks.iter().map(|t| json!([t["@odata.id"], t["TaskState"]])).collect::<Vec<_>>(),
    })
}

fn stands(seat: &Seat, now: EngineTime) -> (bool, Value) {
    seat.with(now, |b| {
        let system = b.vm.system();
        let who = &system.identity;
        let value = json!({
            "serial": who.serial, "uuid": who.uuid, "mac": who.mac,
            "power": format!("{:?}", system.power), "bios": system.bios_version,
            "target": system.boot_target, "enabled": system.boot_enabled,
            "versions":
                b.vm.components().iter().map(|c| json!([c.id, c.version])).collect::<Vec<_>>(),
            "tasks":
                b.vm.task_list(now).iter().map(|t| json!([t.uri, t.raw_state])).collect::<Vec<_>>(),
        });
        (b.vm.bmc_up, value)
    })
}

/// Reads the parts one by one; `None` when the BMC went away meanwhile.
async fn read_all(site: &Site, n: usize) -> Option<Value> {
    let get = async |path: &str| {
        let (status, _, body) = site.call(n, reqwest::Method::GET, path, None).await.ok()?;
        (status == 200).then_some(body)
    };
    let members = async |path: &str| {
        let list = get(path).await?;
        let members = list["Members"].as_array()?.clone();
        assert_eq!(list["Members@odata.count"], members.len());
        let mut out = Vec::new();
        for member in members {
            // A task may be forgotten between the list and the read.
            out.push(get(member["@odata.id"].as_str()?).await?);
        }
        Some(out)
    };
    let system = get("/redfish/v1/Systems/1").await?;
    let nic = members("/redfish/v1/Systems/1/EthernetInterfaces").await?.remove(0);
    let versions = members("/redfish/v1/UpdateService/FirmwareInventory").await?;
    let tasks = members("/redfish/v1/TaskService/Tasks").await?;
    Some(heard(&system, &nic, &versions, &tasks))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_reads_is_how_the_machine_stands() {
    let quirks = [
        Quirks::default(),
        Quirks { identity_null_when_off: true, pads_versions: true, ..Quirks::default() },
        Quirks { ignores_once: true, ..Quirks::default() },
    ];
    // Fast enough that power, POST, flashes and BMC restarts all happen meanwhile.
    let site = site(1500, quirks.map(|q| (None, q))).await;
    let images = image_server().await;
    let mut rng = Rng::new(11);
    let (mut compared, mut offs, mut tasks) = (0, 0, 0);
    for _ in 0..90 {
        let n = usize::try_from(rng.below(3)).unwrap() + 1;
        let (path, body) = match rng.below(6) {
            0 => ("Systems/1/Actions/ComputerSystem.Reset", json!({"ResetType": "On"})),
            1 => ("Systems/1/Actions/ComputerSystem.Reset", json!({"ResetType": "ForceOff"})),
            2 => ("Systems/1/Actions/ComputerSystem.Reset", json!({"ResetType": "ForceRestart"})),
            3 if rng.chance(300_000) => ("Managers/1/Actions/Manager.Reset", json!({})),
            3 | 4 => {
                let enabled = ["Once", "Disabled"][usize::try_from(rng.below(2)).unwrap()];
                let boot = json!({"Boot": {
                    "BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": "Hdd",
                }});
                let patch = reqwest::Method::PATCH;
                drop(site.call(n, patch, "/redfish/v1/Systems/1", Some(boot)).await);
                ("", Value::Null)
            }
            _ => {
                let id = ["BMC", "BIOS"][usize::try_from(rng.below(2)).unwrap()];
                ("UpdateService/Actions/UpdateService.SimpleUpdate", update(&images.url, id))
            }
        };
        if !path.is_empty() {
            let path = format!("/redfish/v1/{path}");
            drop(site.call(n, reqwest::Method::POST, &path, Some(body)).await);
        }
        for _ in 0..4 {
            let (up, before) = stands(site.seat(n), site.now());
            let wire = read_all(&site, n).await;
            let (still_up, after) = stands(site.seat(n), site.now());
            if before != after || !(up && still_up) {
                continue;
            }
            // Up all the time and unchanged; a restart in between would have changed nothing else.
            if let Some(wire) = wire {
                assert_eq!(wire, before);
                compared += 1;
                offs += usize::from(before["power"] == "Off");
                tasks += before["tasks"].as_array().map_or(0, Vec::len);
                break;
            }
        }
    }
    assert!(compared > 20, "compared {compared}");
    assert!(offs > 0 && tasks > 0, "off {offs}, tasks {tasks}");
    site.serving.stop().await;
}

/// The site's own passwords, for the edge that ships.
struct Passwords;

#[async_trait::async_trait]
impl Vault for Passwords {
    async fn credential(&self, name: &str) -> Result<Credential, Fault> {
        Ok(Credential { user: "admin".into(), password: Secret::new(name) })
    }

    async fn ssh_key(&self, name: &str) -> Result<Secret, Fault> {
        Ok(Secret::new(name))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_that_went_over_the_wire_are_the_facts() {
    let quirks = [
        Quirks::default(),
        Quirks { identity_null_when_off: true, pads_versions: true, ..Quirks::default() },
    ];
    let site = site(1200, quirks.map(|q| (None, q))).await;
    let images = image_server().await;
    let edge = RedfishBmc::new(Arc::new(Passwords), farrier::bmc::Settings::default());
    let targets: Vec<BmcTarget> = (1..=2)
        .map(|n| BmcTarget {
            machine: MachineId(u32::try_from(n).unwrap()),
            name: site.seat(n).name.clone(),
            endpoint: BmcEndpoint {
                url: site.serving.bmc_url(site.seat(n)).into(),
                credential: format!("password-{n}").into(),
                tls: "off".into(),
                ipmi: None,
                controllers: Default::default(),
            },
            identity: identity(u32::try_from(n).unwrap()),
        })
        .collect();
    let mut rng = Rng::new(5);
    let (mut compared, mut powers) = (0, std::collections::BTreeSet::new());
    for _ in 0..60 {
        let n = usize::try_from(rng.below(2)).unwrap() + 1;
        match rng.below(4) {
            0 => {
                site.reset(n, "On").await;
            }
            1 => {
                site.reset(n, "ForceOff").await;
            }
            2 => {
                let path = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
                site.post(n, path, update(&images.url, "BIOS")).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(rng.below(150))).await,
        }
        let target = &targets[n - 1];
        let seat = site.seat(n);
        let look = || {
            let now = site.now();
            seat.with(now, |b| {
                let (system, tasks) = (b.vm.system(), b.vm.task_list(now));
                (system, b.vm.inventory(), b.vm.components(), tasks, b.vm.last_reset)
            })
        };
        for _ in 0..5 {
            let before = look();
            let mut heard = (
                edge.system(target).await.expect("a system"),
                edge.inventory(target).await.expect("an inventory"),
                edge.firmware(target).await.expect("firmware"),
                edge.tasks(target, None).await.expect("tasks"),
            );
            let after = look();
            // Percentages move on; only compare what stood still.
            if before != after {
                continue;
            }
            let (mut system, inventory, firmware, tasks, last_reset) = before;
            // On the wire it is a date: its change is all that matters.
            assert_eq!(
                last_reset == EngineTime::ZERO,
                heard.0.last_reset.as_deref() == Some("2026-11-01T00:00:00Z"),
                "{:?}",
                heard.0.last_reset
            );
            system.last_reset.clone_from(&heard.0.last_reset);
            // The edge keeps the MACs of its first look around; a BMC that shows none for now
            // changes nothing about that.
            if system.identity.mac.is_none() {
                heard.0.identity.mac = None;
            }
            assert_eq!(heard.0, system);
            assert_eq!(heard.2, firmware);
            let brief = |tasks: &[farrier::model::facts::Task]| {
                tasks.iter().map(|t| (t.uri.clone(), t.state, t.percent)).collect::<Vec<_>>()
            };
            assert_eq!(brief(&heard.3), brief(&tasks));
            let ids = |parts: &[farrier::model::facts::Part]| {
                parts
                    .iter()
                    .map(|p| (p.id.clone(), p.serial.clone(), p.capacity))
                    .collect::<Vec<_>>()
            };
            assert_eq!(ids(&heard.1.cpus), ids(&inventory.cpus));
            assert_eq!(ids(&heard.1.gpus), ids(&inventory.gpus));
            assert_eq!(ids(&heard.1.disks), ids(&inventory.disks));
            assert_eq!(heard.1.memory_mib, inventory.memory_mib);
            powers.insert(system.power);
            compared += 1;
            break;
        }
    }
    assert!(compared > 20 && powers.len() > 1, "{compared} {powers:?}");
    site.serving.stop().await;
}

#[tokio::test]
async fn no_link_of_the_tree_leads_nowhere() {
    let site = site(60, healthy(1)).await;
    let mut todo = vec!["/redfish/v1".to_string()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(path) = todo.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let body = site.get(1, &path).await;
        assert_eq!(body["@odata.id"], *path, "{path}");
        links(&body, &mut todo);
    }
    // 2 CPUs, 8 GPUs, 2 drives, 1 NIC, 2 firmware members and their collections.
    assert!(seen.len() > 25, "{seen:?}");
    let gpus = seen.iter().filter(|p| p.contains("Processors/GPU")).count();
    assert_eq!(gpus, 8);
    let system = site.get(1, "/redfish/v1/Systems/1/").await;
    assert_eq!(system["MemorySummary"]["TotalSystemMemoryGiB"], 2048);
    site.serving.stop().await;
}

fn links(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(path) if key == "@odata.id" => out.push(path.into()),
                    _ => links(value, out),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|v| links(v, out)),
        _ => {}
    }
}

#[tokio::test]
async fn sessions_open_and_end_and_each_bmc_has_its_own_password() {
    let site = site(60, healthy(2)).await;
    let sessions = site.url(1, "/redfish/v1/SessionService/Sessions");
    let system = site.url(1, "/redfish/v1/Systems/1");
    let login = |password: &str| {
        site.http.post(&sessions).json(&json!({"UserName": "admin", "Password": password})).send()
    };
    assert_eq!(login("password-2").await.unwrap().status(), 401);
    assert_eq!(site.http.get(&system).send().await.unwrap().status(), 401);
    let session = login("password-1").await.unwrap();
    assert_eq!(session.status(), 201);
    let token = session.headers()["x-auth-token"].to_str().unwrap().to_string();
    let place = session.headers()["location"].to_str().unwrap().to_string();
    let get = |token: String| site.http.get(&system).header("x-auth-token", token).send();
    assert_eq!(get(token.clone()).await.unwrap().status(), 200);
    assert_eq!(get("0".into()).await.unwrap().status(), 401);
    for _ in 0..7 {
        assert_eq!(login("password-1").await.unwrap().status(), 201);
    }
    let full = login("password-1").await.unwrap();
    assert_eq!(full.status(), 503);
    assert!(full.text().await.unwrap().contains("SessionLimitExceeded"));
    let out = site.http.delete(site.url(1, &place)).header("x-auth-token", &token).send().await;
    assert_eq!(out.unwrap().status(), 204);
    assert_eq!(get(token).await.unwrap().status(), 401);
    assert_eq!(login("password-1").await.unwrap().status(), 201);
    site.serving.stop().await;
}

#[tokio::test]
async fn a_bmc_that_restarts_takes_its_connections_and_sessions_along() {
    let site = site(600, healthy(2)).await;
    let answer = site
        .http
        .post(site.url(1, "/redfish/v1/SessionService/Sessions"))
        .json(&json!({"UserName": "admin", "Password": "password-1"}))
        .send()
        .await
        .unwrap();
    let token = answer.headers()["x-auth-token"].to_str().unwrap().to_string();
    // An idle connection sees the end without asking.
    let address = SocketAddr::from((site.seat(1).address, site.serving.redfish_port));
    let mut idle = tokio::net::TcpStream::connect(address).await.unwrap();
    let status = site.post(1, "/redfish/v1/Managers/1/Actions/Manager.Reset", json!({})).await;
    assert_eq!(status, 204, "the answer goes out before the BMC does");
    let mut buffer = [0; 1];
    let end = tokio::io::AsyncReadExt::read(&mut idle, &mut buffer);
    match tokio::time::timeout(Duration::from_secs(5), end).await {
        Ok(Ok(0) | Err(_)) => {}
        other => panic!("the connection lives on: {other:?}"),
    }
    let gone = site.http.get(site.url(1, "/redfish/v1")).send().await.unwrap_err();
    assert!(!gone.is_timeout(), "{gone}");
    assert_eq!(site.get(2, "/redfish/v1").await["Vendor"], "Farrier", "the neighbour answers");
    site.until("the BMC is back", || async {
        site.http.get(site.url(1, "/redfish/v1")).send().await.is_ok()
    })
    .await;
    let system = site.url(1, "/redfish/v1/Systems/1");
    let old = site.http.get(system).header("x-auth-token", token).send().await.unwrap();
    assert_eq!(old.status(), 401, "sessions do not survive");
    site.serving.stop().await;
}

#[tokio::test]
async fn the_boot_override_is_written_with_and_without_an_etag() {
    let site = site(60, healthy(1)).await;
    let path = "/redfish/v1/Systems/1";
    let (_, headers, _) = site.call(1, reqwest::Method::GET, path, None).await.unwrap();
    let etag = headers["etag"].to_str().unwrap().to_string();
    let boot = |target: &str| {
        json!({"Boot": {
            "BootSourceOverrideTarget": target, "BootSourceOverrideEnabled": "Once",
        }})
    };
    let patch = |etag: Option<String>, body: Value| {
        let mut request = site.http.patch(site.url(1, path)).json(&body);
        request = request.basic_auth("admin", Some("password-1"));
        if let Some(etag) = etag {
            request = request.header("if-match", etag);
        }
        request.send()
    };
    assert_eq!(patch(Some(etag.clone()), boot("Pxe")).await.unwrap().status(), 200);
    assert_eq!(patch(Some(etag), boot("Hdd")).await.unwrap().status(), 412);
    assert_eq!(site.get(1, path).await["Boot"]["BootSourceOverrideTarget"], "Pxe");
    assert_eq!(patch(None, boot("Cd")).await.unwrap().status(), 200);
    assert_eq!(patch(None, boot("Floppy")).await.unwrap().status(), 400);
    assert_eq!(site.get(1, path).await["Boot"]["BootSourceOverrideTarget"], "Cd");
    site.serving.stop().await;
}

struct Images {
    url: String,
    gets: Arc<Mutex<Vec<(String, std::net::IpAddr)>>>,
}

/// Serves firmware images: good ones, half a one, a page of HTML.
async fn image_server() -> Images {
    let gets = Arc::new(Mutex::new(Vec::new()));
    let log = gets.clone();
    let router = Router::new().route(
        "/{file}",
        get(move |UrlPath(file): UrlPath<String>, ConnectInfo(peer): ConnectInfo<SocketAddr>| {
            log.lock().unwrap().push((file.clone(), peer.ip()));
            async move {
                match file.as_str() {
                    "bmc.bin" => Ok("farrier-virtual-bmc-7.20\n".repeat(64)),
                    "bios.bin" => Ok("farrier-virtual-bios-2.1.0\n".repeat(64)),
                    "half.bin" => Ok("farrier-virtual-bmc-7.20\nfarrier-virt".to_string()),
                    _ => Err(StatusCode::NOT_FOUND),
                }
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    Images { url, gets }
}

fn update(base: &str, id: &str) -> Value {
    json!({
        "ImageURI": format!("{base}/{}.bin", id.to_lowercase()), "TransferProtocol": "HTTP",
        "Targets": [format!("/redfish/v1/UpdateService/FirmwareInventory/{id}")],
    })
}

#[tokio::test]
async fn an_update_fetches_its_image_and_shows_after_its_reset() {
    let site =
        site(1200, [(None, Quirks::default()), (Some(Sickness::Flash), Quirks::default())]).await;
    let images = image_server().await;
    let path = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
    let firmware = "/redfish/v1/UpdateService/FirmwareInventory/BMC";
    for (url, why) in [("half.bin", "half an image"), ("none.bin", "no image")] {
        let mut order = update(&images.url, "BMC");
        order["ImageURI"] = format!("{}/{url}", images.url).into();
        assert_eq!(site.post(1, path, order).await, 400, "{why}");
    }
    let mut wrong = update(&images.url, "BMC");
    wrong["ImageURI"] = format!("{}/bios.bin", images.url).into();
    assert_eq!(site.post(1, path, wrong).await, 400, "an image for another component");
    let log = |n: usize| site.seat(n).with(site.now(), |b| b.vm.truth.effects().to_vec());
    assert!(log(1).is_empty(), "nothing was flashed");

    for n in [1, 2] {
        let call = site.call(n, reqwest::Method::POST, path, Some(update(&images.url, "BMC")));
        let (status, headers, task) = call.await.unwrap();
        assert_eq!(status, 202);
        let task_uri = task["@odata.id"].as_str().unwrap().to_string();
        let monitor = headers["location"].to_str().unwrap();
        assert_eq!(task["TaskMonitor"], monitor, "as DSP0266 has it");
        site.until("the task ends", || async {
            site.get(n, &task_uri).await["TaskState"] != "Running"
        })
        .await;
        let last = site.get(n, &task_uri).await;
        assert_eq!(last["TaskState"], if n == 1 { "Completed" } else { "Exception" });
    }
    assert!(images.gets.lock().unwrap().iter().any(|(file, from)| {
        file == "bmc.bin" && *from == std::net::IpAddr::from(site.seat(1).address)
    }));
    assert_eq!(site.get(1, firmware).await["Version"], "7.10", "staged, not running");
    assert_eq!(site.post(1, "/redfish/v1/Managers/1/Actions/Manager.Reset", json!({})).await, 204);
    site.until("7.20 runs", || async {
        match site.call(1, reqwest::Method::GET, firmware, None).await {
            Ok((200, _, body)) => body["Version"] == "7.20",
            _ => false,
        }
    })
    .await;
    // A second flash of what runs already is taken, and the truth says so.
    assert_eq!(site.post(1, path, update(&images.url, "BMC")).await, 202);
    assert!(log(1).iter().any(|e| matches!(e.what, What::FlashStarted { already: true, .. })));
    site.serving.stop().await;
}

#[tokio::test]
async fn ssh_runs_real_programs_on_a_running_host_and_on_no_other() {
    let site =
        site(60, [(None, Quirks::default()), (Some(Sickness::Gpu), Quirks::default())]).await;
    let (status, _, err) = site.ssh(1, "true").await;
    assert_eq!(status, Some(255), "a host that is off lets nobody in: {err}");
    site.found_running(1).await;
    site.found_running(2).await;
    let (status, out, err) = site.ssh(1, "cat; echo hello; echo oops >&2; exit 7").await;
    assert_eq!((status, out.as_str(), err.as_str()), (Some(7), "hello\n", "oops\n"));
    let (_, out, _) = site.ssh(1, "cat $FARRIER_ROOT/sys/class/dmi/id/product_serial").await;
    assert_eq!(out, "VN000001\n");
    let disk = "head -c 520 $FARRIER_ROOT/dev/disk/nvme0n1 | tr -d '\\0' | wc -c";
    let (_, out, _) = site.ssh(1, disk).await;
    assert_eq!(out.trim(), "0", "the disks of a new machine are blank");

    let (status, out, _) = site.ssh(1, "nvidia-smi -q -x | grep -c '<gpu id'").await;
    assert_eq!((status, out.trim()), (Some(0), "8"));
    let (_, out, _) = site.ssh(1, "nvidia-smi -L").await;
    assert_eq!(out.lines().count(), 8);
    let query = "nvidia-smi --query-gpu=index,temperature.gpu --format=csv,noheader,nounits";
    let (_, out, _) = site.ssh(1, query).await;
    for (i, line) in out.lines().enumerate() {
        let (index, temp) = line.split_once(", ").unwrap();
        assert_eq!(index, i.to_string());
        assert!((30..70).contains(&temp.parse::<i32>().unwrap()), "{line}");
    }
    // Host 1 speaks DCGM 3 with a banner, host 2 speaks DCGM 4 and has a sick GPU.
    let (status, out, _) = site.ssh(1, "dcgmi diag -r 1 -j").await;
    assert_eq!(status, Some(0));
    let three: Value = serde_json::from_str(&out[out.find('{').unwrap()..]).unwrap();
    assert!(!out.starts_with('{') && three["DCGM GPU Diagnostic"]["version"].is_string());
    let (status, out, _) = site.ssh(2, "dcgmi diag -r 1 -j").await;
    assert_eq!(status, Some(226));
    let four: Value = serde_json::from_str(&out).unwrap();
    let results = &four["DCGM Diagnostic"]["test_categories"][0]["tests"][0]["results"];
    assert_eq!(results[3]["status"], "Fail");
    assert_eq!(results[2]["status"], "Pass");
    let probe = "/redfish/v1/Systems/1/Processors/GPU3";
    assert_eq!(site.get(2, probe).await["ProcessorType"], "GPU", "the BMC sees nothing of it");

    // Another key gets nobody in.
    let other = Ed25519Keypair::from_seed(&[8; 32]);
    let other = PrivateKey::new(KeypairData::Ed25519(other), "stranger").unwrap();
    let key = site.dir.path().join("key");
    std::fs::write(&key, &*other.to_openssh(LineEnding::LF).unwrap()).unwrap();
    let (status, _, err) = site.ssh(1, "true").await;
    assert_eq!(status, Some(255));
    assert!(err.contains("Permission denied"), "{err}");
    site.serving.stop().await;
}

#[tokio::test]
async fn a_power_cut_kills_what_runs_and_the_next_boot_has_another_id() {
    let site = site(600, healthy(1)).await;
    site.found_running(1).await;
    let boot_id = "cat $FARRIER_ROOT/proc/sys/kernel/random/boot_id";
    let (_, first, _) = site.ssh(1, boot_id).await;
    let job = "$FARRIER_ROOT/var/lib/farrier/jobs/r1-smoke-1";
    let start = format!(
        "mkdir {job} && (setsid sh -c 'echo $$ > {job}/pid; sleep 600; sleep 600' \
         >/dev/null 2>&1 </dev/null &) ; while [ ! -s {job}/pid ]; do sleep 0.05; done; cat {job}/pid"
    );
    let (status, pid, err) = site.ssh(1, &start).await;
    assert_eq!(status, Some(0), "{err}");
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    assert!(process.exists());
    site.until("the physics knows of the job", || async {
        site.seat(1)
            .with(site.now(), |b| b.vm.truth.effects().iter().any(|e| e.what == What::SmokeStarted))
    })
    .await;
    assert_eq!(site.reset(1, "ForceOff").await, 204);
    site.until("the job's process is dead", || async { !process.exists() }).await;
    site.until("the host is off", || async {
        site.get(1, "/redfish/v1/Systems/1").await["PowerState"] == "Off"
    })
    .await;
    assert_eq!(site.reset(1, "ForceRestart").await, 409, "nothing to restart");
    assert_eq!(site.reset(1, "On").await, 204);
    site.until("the host is up again", || async { site.ssh(1, "true").await.0 == Some(0) }).await;
    let (_, second, _) = site.ssh(1, boot_id).await;
    assert_ne!(first, second);
    let (_, left, _) = site.ssh(1, &format!("ls {job}")).await;
    assert_eq!(left, "pid\n", "the disk keeps the job's files");
    site.serving.stop().await;
}

#[derive(Clone, Default)]
struct BootServer {
    callbacks: Arc<Mutex<Vec<(Value, std::net::IpAddr)>>>,
    fetches: Arc<Mutex<Vec<(String, std::net::IpAddr)>>>,
}

/// Speaks the daemon's side of the boot contract for some MACs.
async fn boot_server(open_for: Vec<String>) -> (String, BootServer) {
    let state = BootServer::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let base = url.clone();
    let router = Router::new()
        .route(
            "/boot/{mac}/{file}",
            get(
                move |UrlPath((mac, file)): UrlPath<(String, String)>,
                      ConnectInfo(peer): ConnectInfo<SocketAddr>,
                      State(s): State<BootServer>| async move {
                    s.fetches.lock().unwrap().push((file.clone(), peer.ip()));
                    if !open_for.contains(&mac) {
                        return Err(StatusCode::NOT_FOUND);
                    }
                    match file.as_str() {
                        "ipxe" => Ok("#!ipxe\nboot\n".to_string()),
                        "seed.json" => Ok(json!({
                            "run": "r7", "image": "ubuntu", "allow_existing_data": false,
                            "token": "t0", "callback": format!("{base}/boot/{mac}/callback"),
                        })
                        .to_string()),
                        _ => Err(StatusCode::NOT_FOUND),
                    }
                },
            ),
        )
        .route(
            "/boot/{mac}/callback",
            post(
                move |ConnectInfo(peer): ConnectInfo<SocketAddr>,
                      State(s): State<BootServer>,
                      Json(body): Json<Value>| async move {
                    s.callbacks.lock().unwrap().push((body, peer.ip()));
                },
            ),
        )
        .with_state(state.clone());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    (url, state)
}

#[tokio::test]
async fn a_network_boot_installs_calls_back_and_comes_up_with_a_new_key() {
    let site = site(600, healthy(3)).await;
    let (url, server) =
        boot_server([1, 3].map(|n| identity(n).mac.unwrap().to_string()).to_vec()).await;
    site.serving.world.set_boot_url(format!("{url}/"));
    // The third has data on its disks.
    site.seat(3).with(site.now(), |b| b.vm.foreign_data = true);
    let boot = json!({"Boot": {
        "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe",
    }});
    for n in 1..=3 {
        let path = "/redfish/v1/Systems/1";
        let patch = site.call(n, reqwest::Method::PATCH, path, Some(boot.clone())).await.unwrap();
        assert_eq!(patch.0, 200);
        assert_eq!(site.reset(n, "On").await, 204);
    }
    site.until("the installed host answers SSH", || async {
        site.seat(1).with(site.now(), |b| b.vm.host == HostState::Running)
            && site.ssh(1, "true").await.0 == Some(0)
    })
    .await;
    let (_, mark, _) = site.ssh(1, "cat $FARRIER_ROOT/etc/farrier/image").await;
    assert_eq!(mark, "image=ubuntu\nrun=r7\n");
    let head = "head -c 520 $FARRIER_ROOT/dev/disk/nvme0n1 | tail -c 8";
    let (_, data, _) = site.ssh(1, head).await;
    assert_eq!(data, "EFI PART");
    let from = std::net::IpAddr::from(site.seat(1).address);
    site.until("both callbacks", || async { server.callbacks.lock().unwrap().len() == 2 }).await;
    let mut said = server.callbacks.lock().unwrap().clone();
    said.sort_by_key(|(_, ip)| *ip);
    let key = site.seat(1).with(site.now(), |b| host::public_host_key(&b.vm)).unwrap();
    assert_eq!(said[1].0["ok"], false);
    assert_eq!(said[1].0["message"], "the disks hold data");
    assert_eq!(said[0].0["ok"], true);
    assert_eq!(said[0].0["token"], "t0");
    assert_eq!(said[0].0["host_key"], *key);
    assert_eq!(said[0].1, from);
    let fetches = server.fetches.lock().unwrap().clone();
    let own: Vec<&str> =
        fetches.iter().filter(|(_, ip)| *ip == from).map(|(f, _)| f.as_str()).collect();
    assert_eq!(own, ["ipxe", "seed.json"]);
    // The second had no window: nothing was written, and there is no disk to boot.
    site.until("the second gives up", || async {
        site.seat(2).with(site.now(), |b| b.vm.host == HostState::Stuck)
    })
    .await;
    assert!(site.seat(2).with(site.now(), |b| b.vm.installed.is_none()));
    let truth = admin::truth(&site.serving.world);
    let what = |n: usize| {
        truth[format!("node-{n}")]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["what"].clone())
            .collect::<Vec<_>>()
    };
    assert!(what(1).contains(&json!("install-ended")), "{:?}", what(1));
    assert!(!what(2).contains(&json!("install-started")));
    assert!(!what(3).contains(&json!("install-started")), "it refused");
    site.serving.stop().await;
}

#[tokio::test]
async fn the_hook_and_the_truth_are_reached_over_the_admin_door() {
    let site = site(6000, healthy(1)).await;
    let hook = |verb: &str, machine: &str| {
        let url = format!("{}/hook", site.serving.admin_url);
        let order = json!({"verb": verb, "machine": machine, "cluster": "virtual"});
        let http = site.http.clone();
        async move {
            let answer = http.post(url).json(&order).send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    };
    assert_eq!(hook("join", "node-1").await.1["ok"], false, "the host is off");
    site.found_running(1).await;
    assert_eq!(hook("join", "node-1").await.1, json!({"ok": true}));
    site.until("ready", || async { hook("probe", "node-1").await.1["ready"] == true }).await;
    let probe = hook("probe", "node-1").await.1;
    assert!(probe["member"] == true && probe["workloads"].as_u64().unwrap() > 0, "{probe}");
    assert_eq!(hook("leave", "node-1").await.1["ok"], false, "workloads run");
    assert_eq!(hook("cordon", "node-1").await.1["ok"], true);
    site.until("drained", || async { hook("probe", "node-1").await.1["workloads"] == 0 }).await;
    assert_eq!(hook("leave", "node-1").await.1["ok"], true);
    assert_eq!(hook("probe", "node-2").await.0, 404);
    assert_eq!(hook("explode", "node-1").await.0, 400);
    let verbs = site.seat(1).with(site.now(), |b| {
        let hooks = |e: &farrier::sim::truth::Effect| match e.what {
            What::Hook(verb) => Some(verb),
            _ => None,
        };
        b.vm.truth.effects().iter().filter_map(hooks).collect::<Vec<_>>()
    });
    assert_eq!(verbs, [HookVerb::Join, HookVerb::Cordon, HookVerb::Leave]);
    let url = format!("{}/truth", site.serving.admin_url);
    let truth: Value = site.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(truth["node-1"].as_array().unwrap().len(), 3);
    // A person at the machine is told apart from what came over the wire.
    let now = site.now();
    site.seat(1).with(now, |b| {
        b.vm.press_power(now);
        b.vm.apply(now, 1, &Action::Power { op: PowerOp::On });
    });
    let log = admin::truth(&site.serving.world);
    assert_eq!(log["node-1"][3]["by"], "human");
    site.serving.stop().await;
}
