//! The boot edge over real HTTP on loopback: windows, seeds, callbacks, restarts, images.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // sockets, files and a deadline

use axum::Router;
use farrier::app::listen;
use farrier::boot::{BootServer, ImageServer, KnownImage, Settings};
use farrier::model::deploy::RootDisk;
use farrier::model::template::{OwnTemplate, Recipe, Recipes};
use farrier::model::{FaultClass, MachineId, Outcome};
use farrier::port::deploy::{DeployRequest, SeedFile};
use farrier::port::netboot::Netboot;
use farrier::port::{Boot, Inward, WindowOrder};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

const MAC: &str = "aa:bb:cc:dd:ee:01";
const RUN: &str = "0badcafe-m1-7";
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

/// A listener on loopback that ends with the value.
struct Served {
    base: String,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// As the daemon does.
async fn serve(router: Router) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (_go_on, ending) = watch::channel(false);
        listen::serve(listener, None, router, ending).await;
    });
    Served { base, task }
}

/// A client whose connections come from this loopback address.
fn client_from(address: &str) -> Client {
    // No TLS is spoken here, but the builder wants a provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let address: IpAddr = address.parse().unwrap();
    Client::builder().no_proxy().local_address(address).build().unwrap()
}

/// The daemon's boot side over one state directory.
struct Site {
    state: Arc<TempDir>,
    images: Option<PathBuf>,
    boot: BootServer,
    served: Served,
    inbox: mpsc::Receiver<Inward>,
    host: Client,
}

impl Site {
    async fn new() -> Self {
        Self::start(Arc::new(tempfile::tempdir().unwrap()), None).await
    }

    async fn start(state: Arc<TempDir>, images: Option<PathBuf>) -> Self {
        let (tx, inbox) = mpsc::channel(64);
        let settings = Settings { images: images.clone(), ..Settings::default() };
        let boot = BootServer::open(state.path(), settings, tx).unwrap();
        let served = serve(boot.router()).await;
        Self { state, images, boot, served, inbox, host: client_from("127.0.0.2") }
    }

    /// Drops everything that is in memory and starts anew from the directory.
    async fn restart(self) -> Self {
        let (state, images) = (self.state.clone(), self.images.clone());
        drop(self);
        Self::start(state, images).await
    }

    async fn open(&self, order: &WindowOrder) {
        let outcome = self.boot.open(order).await;
        assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
    }

    fn url(&self, path: &str) -> String {
        format!("{}/boot/{MAC}/{path}", self.served.base)
    }

    async fn get(&self, client: &Client, path: &str) -> (StatusCode, String) {
        let response = client.get(self.url(path)).send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    async fn ok(&self, path: &str) -> String {
        let (status, text) = self.get(&self.host, path).await;
        assert_eq!(status, 200, "{path}: {text}");
        text
    }

    async fn seed(&self) -> Value {
        serde_json::from_str(&self.ok("seed.json").await).unwrap()
    }

    async fn token(&self) -> String {
        self.seed().await["token"].as_str().unwrap().to_string()
    }

    async fn call(&self, client: &Client, body: &Value) -> StatusCode {
        self.call_raw(client, body.to_string()).await.status()
    }

    async fn call_raw(&self, client: &Client, body: impl Into<reqwest::Body>) -> Response {
        client.post(self.url("callback")).body(body).send().await.unwrap()
    }

    fn file(&self) -> PathBuf {
        self.state.path().join(format!("boot-windows/{RUN}.json"))
    }

    fn pokes(&mut self) -> Vec<MachineId> {
        let mut pokes = Vec::new();
        while let Ok(Inward::Poke { machine }) = self.inbox.try_recv() {
            pokes.push(machine);
        }
        pokes
    }
}

fn order() -> WindowOrder {
    WindowOrder {
        machine: MachineId(1),
        name: "gpu-001".into(),
        run: RUN.into(),
        image: "ubuntu-24.04-gpu".into(),
        mac: Some("AA-BB-CC-DD-EE-01".into()),
        allow_existing_data: false,
        base_url: "http://10.0.0.2:7121".into(),
        keys: vec![],
        profile: "gpu".into(),
        network: None,
        install: None,
    }
}

fn done(token: &str) -> Value {
    json!({"token": token, "ok": true, "host_key": KEY, "message": null})
}

fn failed(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed { fault } => fault.code.into_owned(),
        other => panic!("not a failure: {other:?}"),
    }
}

#[tokio::test]
async fn a_host_installs_from_script_to_callback() {
    let mut site = Site::new().await;
    for path in ["ipxe", "meta-data", "user-data", "seed.json"] {
        assert_eq!(site.get(&site.host, path).await.0, 404, "{path} without a window");
    }
    site.open(&order()).await;
    let facts = site.boot.window(MachineId(1), RUN).await.unwrap();
    assert!(facts.open && !facts.script_fetched && !facts.seed_fetched);
    assert_eq!(facts.run.as_deref(), Some(RUN));

    site.ok("ipxe").await;
    assert!(site.boot.window(MachineId(1), RUN).await.unwrap().script_fetched);
    assert!(!site.boot.window(MachineId(1), RUN).await.unwrap().seed_fetched);
    site.ok("meta-data").await;
    assert!(!site.boot.window(MachineId(1), RUN).await.unwrap().seed_fetched);
    let seed = site.seed().await;
    assert!(site.boot.window(MachineId(1), RUN).await.unwrap().seed_fetched);
    assert_eq!(seed, site.seed().await, "the seed is the same each time");
    assert_eq!(seed["run"], RUN);
    assert_eq!(seed["image"], "ubuntu-24.04-gpu");
    assert_eq!(seed["allow_existing_data"], false);
    assert_eq!(seed["callback"], format!("http://10.0.0.2:7121/boot/{MAC}/callback"));

    let token = seed["token"].as_str().unwrap();
    assert_eq!(token.len(), 32, "128 bits as hex");
    let body = json!({"token": token, "ok": true, "host_key": format!("{KEY} root@gpu-001")});
    assert_eq!(site.call(&site.host, &body).await, 200);
    let said = site.boot.window(MachineId(1), RUN).await.unwrap().callback.unwrap();
    assert!(said.ok);
    assert_eq!(said.host_key.as_deref(), Some(KEY), "the comment is not part of a key");
    assert_eq!(site.pokes(), [MachineId(1); 3], "script, seed, callback; nothing twice");

    // The machine boots the network once more: it must fall through to its disk.
    for path in ["ipxe", "meta-data", "user-data", "seed.json"] {
        assert_eq!(site.get(&site.host, path).await.0, 404, "{path} after the callback");
    }
    assert!(
        site.boot.window(MachineId(1), RUN).await.unwrap().open,
        "open for the engine until it closes it"
    );
    assert!(matches!(site.boot.close(RUN).await, Outcome::Applied { .. }));
    let facts = site.boot.window(MachineId(1), RUN).await.unwrap();
    assert!(!facts.open && facts.callback.is_some());
    assert_eq!(site.call(&site.host, &body).await, 404);
    assert!(matches!(site.boot.close(RUN).await, Outcome::Applied { .. }), "closing is idempotent");
    assert!(matches!(site.boot.close("no-such-run").await, Outcome::Applied { .. }));
    assert!(site.boot.window(MachineId(1), "no-such-run").await.unwrap().run.is_none());
}

#[tokio::test]
async fn a_restart_keeps_window_token_and_source() {
    let site = Site::new().await;
    site.open(&order()).await;
    site.ok("ipxe").await;
    let seed = site.seed().await;

    let site = site.restart().await;
    let facts = site.boot.window(MachineId(1), RUN).await.unwrap();
    assert!(facts.open && facts.script_fetched && facts.seed_fetched);
    assert_eq!(site.seed().await, seed, "the same token after the restart");
    let stranger = client_from("127.0.0.3");
    assert_eq!(site.get(&stranger, "seed.json").await.0, 404, "still bound");
    let body = done(seed["token"].as_str().unwrap());
    assert_eq!(site.call(&site.host, &body).await, 200);

    let site = site.restart().await;
    let facts = site.boot.window(MachineId(1), RUN).await.unwrap();
    assert_eq!(facts.callback.unwrap().host_key.as_deref(), Some(KEY));
    assert_eq!(site.call(&site.host, &body).await, 200, "the first answer was lost: 200 again");
    assert_eq!(site.get(&site.host, "ipxe").await.0, 404);
    site.boot.close(RUN).await;
    let site = site.restart().await;
    assert!(!site.boot.window(MachineId(1), RUN).await.unwrap().open);
    assert_eq!(site.call(&site.host, &body).await, 404);
}

#[tokio::test]
async fn the_first_address_owns_the_window() {
    let site = Site::new().await;
    site.open(&order()).await;
    let token = site.token().await;
    let stranger = client_from("127.0.0.3");
    for path in ["ipxe", "meta-data", "user-data", "seed.json", "image/vmlinuz"] {
        let response = stranger
            .get(site.url(path))
            .header("X-Forwarded-For", "127.0.0.2")
            .header("Forwarded", "for=127.0.0.2")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert!(!response.text().await.unwrap().contains(&token));
    }
    assert_eq!(site.call(&stranger, &done(&token)).await, 409);
    assert!(site.boot.window(MachineId(1), RUN).await.unwrap().callback.is_none());
    assert_eq!(site.call(&site.host, &done(&token)).await, 200);
}

#[tokio::test]
async fn a_head_binds_nothing() {
    let mut site = Site::new().await;
    site.open(&order()).await;
    let curious = client_from("127.0.0.3");
    let response = curious.head(site.url("ipxe")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!site.boot.window(MachineId(1), RUN).await.unwrap().script_fetched);
    assert!(site.pokes().is_empty());
    site.ok("ipxe").await;
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_then_slowed_down() {
    let site = Site::new().await;
    site.open(&order()).await;
    let token = site.token().await;
    for _ in 0..5 {
        assert_eq!(site.call(&site.host, &done("00000000000000000000000000000000")).await, 403);
    }
    let response = site.call_raw(&site.host, done(&token).to_string()).await;
    assert_eq!(response.status(), 429);
    let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    // Per source: another one gets its own answer.
    let stranger = client_from("127.0.0.3");
    assert_eq!(site.call(&stranger, &done("")).await, 403);
    assert!(site.boot.window(MachineId(1), RUN).await.unwrap().callback.is_none());
}

#[tokio::test]
async fn a_callback_counts_once() {
    let site = Site::new().await;
    site.open(&order()).await;
    let token = site.token().await;
    // Sixteen different words at once: one is taken, all others are told it is spent.
    let calls = (0..16).map(|i| {
        let body = json!({"token": token, "ok": true, "message": format!("call {i}")});
        site.call_raw(&site.host, body.to_string())
    });
    let answers = futures_util::future::join_all(calls).await;
    let count = |s: u16| answers.iter().filter(|a| a.status() == s).count();
    assert_eq!((count(200), count(410)), (1, 15));
    let winner = answers.iter().position(|a| a.status() == 200).unwrap();
    let said = site.boot.window(MachineId(1), RUN).await.unwrap().callback.unwrap();
    assert_eq!(said.message.unwrap(), format!("call {winner}"));
}

#[tokio::test]
async fn malformed_callbacks_consume_nothing() {
    let site = Site::new().await;
    site.open(&order()).await;
    let token = site.token().await;
    let bodies = [
        String::new(),
        "{".into(),
        "null".into(),
        "[]".into(),
        "<html>".into(),
        json!({"token": token}).to_string(),
        json!({"token": token, "ok": "yes"}).to_string(),
        json!({"ok": true}).to_string(),
        json!({"token": token, "ok": true, "host_key": "not a key"}).to_string(),
        json!({"token": token, "ok": true, "host_key": format!("{KEY}\n{KEY}")}).to_string(),
    ];
    for body in bodies {
        let response = site.call_raw(&site.host, body.clone()).await;
        assert_eq!(response.status(), 400, "{body}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let text = response.text().await.unwrap();
        assert!(!text.contains(&token), "the answer quotes the token: {text}");
        let problem: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(problem["code"], "bad-callback");
        assert_eq!(problem["status"], 400);
    }
    let response = site.call_raw(&site.host, vec![0xff, 0xfe]).await;
    assert_eq!(response.status(), 400);
    let large = json!({"token": token, "ok": true, "message": "x".repeat(16 * 1024)});
    assert_eq!(site.call(&site.host, &large).await, 413);
    assert!(site.boot.window(MachineId(1), RUN).await.unwrap().callback.is_none());
    assert_eq!(site.call(&site.host, &done(&token)).await, 200);
}

#[tokio::test]
async fn who_asks_with_a_machines_mac_and_is_another_is_told_at_once() {
    let other = "99999999-2222-4333-8444-555555555501";
    let mac = MAC.parse().unwrap();
    let mut site = Site::new().await;
    site.boot.other_asked(mac, other).await;
    assert!(site.pokes().is_empty(), "nobody waits");
    site.open(&order()).await;
    site.boot.other_asked(mac, other).await;
    // Firmware asks again and again, and so may a third one.
    site.boot.other_asked(mac, other).await;
    site.boot.other_asked(mac, "00000000-2222-4333-8444-555555555501").await;
    assert_eq!(site.pokes(), [MachineId(1)]);
    let site = site.restart().await;
    let facts = site.boot.window(MachineId(1), RUN).await.unwrap();
    assert_eq!((facts.other_uuid.as_deref(), facts.script_fetched), (Some(other), false));
    // The next attempt knows nothing of it, and the machine itself is served.
    site.open(&order()).await;
    assert_eq!(site.boot.window(MachineId(1), RUN).await.unwrap().other_uuid, None);
    site.ok("ipxe").await;
}

#[tokio::test]
async fn a_new_attempt_is_a_new_window_and_the_same_order_twice_is_one() {
    let site = Site::new().await;
    site.open(&order()).await;
    let before = fs::read_to_string(site.file()).unwrap();
    let token_of = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap();
        value["token"].as_str().unwrap().to_string()
    };
    site.open(&order()).await;
    let again = fs::read_to_string(site.file()).unwrap();
    assert_eq!(token_of(&before), token_of(&again), "nobody was here yet");

    let old = site.token().await;
    assert_eq!(old, token_of(&before));
    site.call(&site.host, &json!({"token": old, "ok": false, "message": "disks hold data"})).await;
    assert!(!site.boot.window(MachineId(1), RUN).await.unwrap().callback.unwrap().ok);

    site.open(&order()).await;
    let facts = site.boot.window(MachineId(1), RUN).await.unwrap();
    assert!(facts.open && !facts.seed_fetched && facts.callback.is_none());
    // The host comes back with another lease, and the old attempt's word is worth nothing.
    let moved = client_from("127.0.0.4");
    let (status, text) = site.get(&moved, "seed.json").await;
    assert_eq!(status, 200);
    let seed: Value = serde_json::from_str(&text).unwrap();
    let new = seed["token"].as_str().unwrap();
    assert_ne!(new, old);
    assert_eq!(site.call(&moved, &done(&old)).await, 403);
    assert_eq!(site.call(&moved, &done(new)).await, 200);
}

#[tokio::test]
async fn one_mac_waits_for_one_machine() {
    let site = Site::new().await;
    site.open(&order()).await;
    let twin = WindowOrder {
        machine: MachineId(2),
        name: "gpu-002".into(),
        run: "0badcafe-m2-9".into(),
        ..order()
    };
    let outcome = site.boot.open(&twin).await;
    let Outcome::Failed { fault } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(fault.code, "mac-in-use");
    assert!(fault.message.contains("gpu-001") && fault.message.contains("gpu-002"));
    assert_eq!(site.seed().await["run"], RUN, "the first one is untouched");
    assert!(site.boot.window(twin.machine, &twin.run).await.unwrap().run.is_none());

    // The same machine's next run takes over from one that never closed its window.
    let next = WindowOrder { run: "0badcafe-m1-8".into(), ..order() };
    site.open(&next).await;
    assert!(!site.boot.window(MachineId(1), RUN).await.unwrap().open);
    assert_eq!(site.seed().await["run"], "0badcafe-m1-8");
    site.boot.close(&next.run).await;
    site.open(&twin).await;
    assert_eq!(site.seed().await["run"], "0badcafe-m2-9");
    let site = site.restart().await;
    assert_eq!(site.seed().await["run"], "0badcafe-m2-9");
}

#[tokio::test]
async fn what_can_not_stand_in_a_script_opens_no_window() {
    let site = Site::new().await;
    let with = |f: fn(&mut WindowOrder)| {
        let mut order = order();
        f(&mut order);
        order
    };
    for (order, code) in [
        (with(|o| o.mac = None), "no-boot-mac"),
        (with(|o| o.mac = Some("aa:bb".into())), "bad-boot-mac"),
        (with(|o| o.image = "../etc".into()), "bad-boot-name"),
        (with(|o| o.image = "a b".into()), "bad-boot-name"),
        (with(|o| o.image = "a\nchain http://evil".into()), "bad-boot-name"),
        (with(|o| o.name = "n'; rm".into()), "bad-boot-name"),
        (with(|o| o.run = "../../x".into()), "bad-boot-name"),
        (with(|o| o.base_url = "http://h/$(id)".into()), "bad-boot-url"),
        (with(|o| o.base_url = "ftp://h".into()), "bad-boot-url"),
    ] {
        assert_eq!(failed(site.boot.open(&order).await), code);
    }
    assert_eq!(fs::read_dir(site.state.path().join("boot-windows")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_answer_waits_for_the_disk() {
    let mut site = Site::new().await;
    site.open(&order()).await;
    let token = site.token().await;
    site.pokes();
    // The rename can't work while a directory stands where the file was.
    fs::rename(site.file(), site.state.path().join("aside")).unwrap();
    fs::create_dir_all(site.file().join("in-the-way")).unwrap();
    assert_eq!(site.get(&site.host, "ipxe").await.0, 503);
    assert!(
        !site.boot.window(MachineId(1), RUN).await.unwrap().script_fetched,
        "memory is not ahead of disk"
    );
    assert_eq!(site.call(&site.host, &done(&token)).await, 503);
    assert!(site.boot.window(MachineId(1), RUN).await.unwrap().callback.is_none());
    assert!(matches!(site.boot.close(RUN).await, Outcome::Failed { .. }));
    assert!(site.boot.window(MachineId(1), RUN).await.unwrap().open);
    assert!(site.pokes().is_empty());
    // The disk is well again.
    fs::remove_dir_all(site.file()).unwrap();
    site.ok("ipxe").await;
    assert_eq!(site.call(&site.host, &done(&token)).await, 200);
}

#[tokio::test]
async fn files_are_private_and_old_ones_go() {
    let site = Site::new().await;
    site.open(&order()).await;
    let token = site.token().await;
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&site.file()), 0o600);
    assert_eq!(mode(site.file().parent().unwrap()), 0o700);
    site.boot.close(RUN).await;
    let closed = fs::read_to_string(site.file()).unwrap();
    assert!(!closed.contains(&token), "a spent token stays on the disk");

    // The same file, last changed 40 days ago; and one that a crash left, and one that is no JSON.
    let mut old: Value = serde_json::from_str(&closed).unwrap();
    old["changed_at"] = json!(old["changed_at"].as_u64().unwrap() - 40 * 86_400);
    fs::write(site.file(), old.to_string()).unwrap();
    let dir = site.file().parent().unwrap().to_path_buf();
    fs::write(dir.join(".staged-x"), "{").unwrap();
    fs::write(dir.join("broken.json"), "{\"version\":").unwrap();
    let site = site.restart().await;
    assert!(!site.file().exists());
    assert!(!dir.join(".staged-x").exists());
    assert!(site.boot.window(MachineId(1), RUN).await.unwrap().run.is_none());
    site.open(&order()).await;
}

#[tokio::test]
async fn two_open_windows_of_one_mac_are_never_both_served() {
    // Only a person who edits the files can make this.
    let site = Site::new().await;
    site.open(&order()).await;
    let mut twin: Value = serde_json::from_str(&fs::read_to_string(site.file()).unwrap()).unwrap();
    twin["run"] = json!("0badcafe-m2-9");
    twin["machine"] = json!(2);
    twin["opened_at"] = json!(twin["opened_at"].as_u64().unwrap() + 5);
    fs::write(site.file().with_file_name("0badcafe-m2-9.json"), twin.to_string()).unwrap();
    let site = site.restart().await;
    assert!(!site.boot.window(MachineId(1), RUN).await.unwrap().open);
    assert_eq!(site.seed().await["run"], "0badcafe-m2-9");
}

#[tokio::test]
async fn the_rendered_files() {
    let site = Site::new().await;
    site.open(&WindowOrder { base_url: "http://10.0.0.2:7121/".into(), ..order() }).await;
    let token = site.token().await;
    insta::assert_snapshot!("ipxe", site.ok("ipxe").await);
    insta::assert_snapshot!("meta_data", site.ok("meta-data").await);
    let user_data = site.ok("user-data").await.replace(&token, "TOKEN");
    insta::assert_snapshot!("user_data", user_data);
    insta::assert_snapshot!("seed", site.ok("seed.json").await.replace(&token, "TOKEN"));
    assert!(!site.ok("ipxe").await.contains(&token), "a boot script is shown on consoles");
    assert!(!site.ok("meta-data").await.contains(&token), "every user of the host reads this");
}

fn own(name: &str, text: &str) -> OwnTemplate {
    OwnTemplate { name: name.into(), path: format!("templates/{name}.j2"), text: text.into() }
}

const NETWORK: &str = "{\"network\":{\"version\":2,\"ethernets\":{\"lan0\":{}}}}\n";

#[tokio::test]
async fn an_installer_fetches_the_network_of_its_system() {
    let site = Site::new().await;
    site.open(&order()).await;
    assert_eq!(site.get(&site.host, "network-config").await.0, 404, "its profile has none");
    site.open(&WindowOrder { network: Some(NETWORK.into()), ..order() }).await;
    assert_eq!(site.ok("network-config").await, NETWORK);
    let stranger = client_from("127.0.0.3");
    assert_eq!(site.get(&stranger, "network-config").await.0, 404, "it is bound by then");
    let site = site.restart().await;
    assert_eq!(site.ok("network-config").await, NETWORK, "kept with the window");
    assert_eq!(site.call(&site.host, &done(&site.token().await)).await, 200);
    assert_eq!(site.get(&site.host, "network-config").await.0, 404, "after the callback");
}

#[tokio::test]
async fn an_operators_template_counts_and_its_fault_is_told_before_the_machine_is_touched() {
    let site = Site::new().await;
    let mut recipes = Recipes {
        templates: vec![
            own("image/ubuntu-24.04-gpu/user-data", "image {{ name }} {{ token }}\n"),
            own("profile/gpu/meta-data", "profile {{ profile }} {{ network.version }}\n"),
        ],
        ..Recipes::default()
    };
    site.boot.set_recipes(&recipes).unwrap();
    // No network, so what the profile's template takes on is not there.
    let Outcome::Failed { fault } = site.boot.open(&order()).await else { panic!("opened") };
    assert_eq!((&*fault.code, fault.class), ("boot-template", FaultClass::Precondition));
    assert!(fault.message.contains("`gpu-001`"), "{fault:?}");
    assert!(fault.message.contains("templates/profile/gpu/meta-data.j2:1"), "{fault:?}");
    assert!(fault.hint.as_deref().unwrap().contains("farrier render"), "{fault:?}");
    assert!(!site.boot.window(MachineId(1), RUN).await.unwrap().open);
    let order = WindowOrder { network: Some(NETWORK.into()), ..order() };
    site.open(&order).await;
    let token = site.token().await;
    assert_eq!(site.ok("user-data").await, format!("image gpu-001 {token}\n"));
    assert_eq!(site.ok("meta-data").await, "profile gpu 2\n");
    // Reloaded while the installer is under way: what counts when it asks.
    recipes.templates.truncate(1);
    site.boot.set_recipes(&recipes).unwrap();
    assert!(site.ok("meta-data").await.starts_with("instance-id"));
    let broken = Recipes { templates: vec![own("image/x/ipxe", "{% if %}")], ..recipes };
    assert_eq!(site.boot.set_recipes(&broken).unwrap_err().code, "boot-template");
    assert_eq!(site.ok("user-data").await, format!("image gpu-001 {token}\n"), "the last good one");
}

#[tokio::test]
async fn a_recipe_boots_another_installer() {
    let site = Site::new().await;
    let recipe = Recipe {
        kernel: "linux".into(),
        initrds: vec!["a.img".into(), "b.img".into()],
        arguments: "inst.ks={{ here }}/file/ks.cfg".into(),
        files: vec!["ks.cfg".into()],
    };
    let id = order().image;
    let recipes = Recipes {
        templates: vec![own(&format!("image/{id}/ks.cfg"), "{{ name }} {{ token }}\n")],
        images: BTreeMap::from([(id, recipe)]),
    };
    site.boot.set_recipes(&recipes).unwrap();
    site.open(&order()).await;
    insta::assert_snapshot!("recipe_ipxe", site.ok("ipxe").await);
    assert!(!site.boot.window(MachineId(1), RUN).await.unwrap().seed_fetched);
    let text = site.ok("file/ks.cfg").await;
    assert!(site.boot.window(MachineId(1), RUN).await.unwrap().seed_fetched, "that is its seed");
    assert_eq!(text, format!("gpu-001 {}\n", site.token().await));
    for bad in ["file/user-data", "file/other.cfg", "file/..%2Fks.cfg", "file/"] {
        assert_eq!(site.get(&site.host, bad).await.0, 404, "{bad}");
    }
}

/// The order to write an image, as the ramdisk's job gets it.
async fn seed_of(
    site: &Site,
    images: &Path,
    request: impl Fn(&mut DeployRequest),
) -> Vec<SeedFile> {
    let about = "schema = 1\nkind = \"disk\"\nfile = \"disk.raw\"\nformat = \"raw\"\nsize = 4\nraw_size = 4\n";
    fs::create_dir_all(images.join("debian")).unwrap();
    fs::write(images.join("debian/image.toml"), format!("{about}sha256 = \"{:064}\"\n", 0))
        .unwrap();
    site.open(&WindowOrder { image: "farrier-ramdisk".into(), ..order() }).await;
    let host_key = site.boot.window(MachineId(1), RUN).await.unwrap().made_key.unwrap();
    let mut wanted = DeployRequest {
        name: "gpu-001".into(),
        run: RUN.into(),
        image: "debian".into(),
        host_key,
        root: RootDisk::default(),
        allow_existing_data: false,
        authorized_keys: Vec::new(),
        profile: "gpu".into(),
        network: None,
    };
    request(&mut wanted);
    site.boot.deploy_order(&wanted).await.unwrap().seed
}

#[tokio::test]
async fn the_seed_of_a_disk_image_brings_its_network() {
    let images = tempfile::tempdir().unwrap();
    let state = Arc::new(tempfile::tempdir().unwrap());
    let site = Site::start(state, Some(images.path().into())).await;
    let names = |seed: &[SeedFile]| seed.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
    let seed = seed_of(&site, images.path(), |_| {}).await;
    assert_eq!(names(&seed), ["meta-data", "user-data"]);
    let with = |r: &mut DeployRequest| r.network = Some(NETWORK.into());
    let seed = seed_of(&site, images.path(), with).await;
    assert_eq!(names(&seed), ["meta-data", "user-data", "network-config"]);
    assert_eq!(seed[2].content.expose(), NETWORK);
    assert_eq!(site.get(&site.host, "network-config").await.0, 404, "it is written, not served");
    let recipes = Recipes {
        templates: vec![
            own("profile/gpu/network-config", "{{ network.ethernets|tojson }} {{ here }}\n"),
            own("image/debian/deployed-user-data", "{{ public }} {{ keys|length }}\n"),
        ],
        ..Recipes::default()
    };
    site.boot.set_recipes(&recipes).unwrap();
    let seed = seed_of(&site, images.path(), with).await;
    assert!(seed[1].content.expose().starts_with("ssh-ed25519 "), "{}", seed[1].content.expose());
    assert!(seed[2].content.expose().starts_with("{\"lan0\""), "{}", seed[2].content.expose());
}

/// The callback script of user-data, run by `sh` with `curl` against this server.
#[tokio::test]
async fn the_shipped_callback_script_calls_back() {
    if !["curl", "sh"].iter().all(|p| Path::new("/usr/bin").join(p).exists()) {
        println!("skipped: no curl here");
        return;
    }
    let site = Site::new().await;
    site.open(&WindowOrder { base_url: site.served.base.clone(), ..order() }).await;
    let local = client_from("127.0.0.1"); // where curl will come from
    let (_, user_data) = site.get(&local, "user-data").await;
    let root = tempfile::tempdir().unwrap();
    let key = root.path().join("key.pub");
    fs::write(&key, format!("{KEY} root@gpu-001\n")).unwrap();
    let script: String = user_data
        .split_once("      #!/bin/sh\n")
        .and_then(|(_, rest)| rest.split_once("runcmd:"))
        .map(|(script, _)| script.lines().map(|l| l.strip_prefix("      ").unwrap_or(l)))
        .unwrap()
        .flat_map(|l| [l, "\n"])
        .collect();
    let script = script
        .replace("/etc/ssh/ssh_host_ed25519_key.pub", key.to_str().unwrap())
        .replace("/run/farrier-callback", root.path().join("farrier-callback").to_str().unwrap());
    let run = tokio::process::Command::new("sh").arg("-c").arg(&script).output().await.unwrap();
    assert!(run.status.success(), "{run:?}");
    let said = site.boot.window(MachineId(1), RUN).await.unwrap().callback.unwrap();
    assert!(said.ok);
    assert_eq!(said.host_key.as_deref(), Some(KEY));
    let left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["key.pub"], "the token's file is gone");
}

/// A log that can be read back.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_token_is_in_no_log_and_no_debug_output() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // One thread: its subscriber sees every task.
    let _guard = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let site = Site::new().await;
        site.open(&order()).await;
        let token = site.token().await;
        site.ok("user-data").await;
        let stranger = client_from("127.0.0.3");
        site.call(&stranger, &done(&token)).await;
        site.call(&site.host, &done(&format!("{token}x"))).await;
        site.call(&site.host, &json!({"token": token, "ok": 1})).await;
        site.call(&site.host, &done(&token)).await;
        let facts = site.boot.window(MachineId(1), RUN).await.unwrap();
        let shown = format!("{:?} {:?} {facts:?}", site.boot, order());
        site.boot.close(RUN).await;
        // The file may have been cut short by somebody: that is reported, without its text.
        fs::write(site.file(), format!("{{\"token\":\"{token}\",\"open\":\"{token}\"}}")).unwrap();
        let site = site.restart().await;
        drop(site);
        let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
        assert!(log.contains("called back") && log.contains("can't be read"), "{log}");
        assert!(!log.contains(&token), "the token is in the log:\n{log}");
        assert!(!shown.contains(&token), "the token is in Debug output: {shown}");
    });
}

/// Sends raw bytes and reads to the end.
fn raw(base: &str, request: &str) -> String {
    let mut stream = std::net::TcpStream::connect(base.trim_start_matches("http://")).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_a_directory_is_ever_served() {
    let root = tempfile::tempdir().unwrap();
    let (catalog, images) = (root.path().join("catalog"), root.path().join("images"));
    fs::create_dir_all(catalog.join("dell")).unwrap();
    fs::create_dir_all(images.join("ubuntu-24.04-gpu")).unwrap();
    fs::write(root.path().join("secret"), "s3cret").unwrap();
    fs::write(catalog.join("dell/idrac.exe"), "firmware").unwrap();
    fs::write(images.join("ubuntu-24.04-gpu/vmlinuz"), "kernel").unwrap();
    fs::write(images.join(".hidden"), "s3cret").unwrap();
    std::os::unix::fs::symlink(root.path().join("secret"), images.join("link")).unwrap();
    std::os::unix::fs::symlink(root.path(), images.join("up")).unwrap();
    let secret = known("s3cret".as_bytes());
    let files = [
        ("dell/idrac.exe".to_string(), known("firmware".as_bytes())),
        ("../secret".to_string(), secret.clone()),
    ];
    let server = ImageServer::new(&catalog, Some(images.clone()), BTreeMap::from(files));
    let served = serve(server.router()).await;
    let site = Site::start(Arc::new(tempfile::tempdir().unwrap()), Some(images)).await;
    site.open(&order()).await;
    // Bind the window to the address from which the raw requests come.
    let local = client_from("127.0.0.1");
    assert_eq!(site.get(&local, "image/vmlinuz").await, (StatusCode::OK, "kernel".into()));

    let escapes = [
        "../secret",
        "../../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "%2e%2e%2f%2e%2e%2fsecret",
        "..%5csecret",
        "a/../../secret",
        "dell/../../secret",
        "ubuntu-24.04-gpu/../../secret",
        "./../secret",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "//etc/passwd",
        "link",
        "up/secret",
        ".hidden",
        "%00",
        "idrac.exe%00.txt",
        "dell",
        "dell/",
        "",
        "%ff%fe",
    ];
    for escape in escapes {
        for (base, dir) in [
            (&served.base, "firmware".to_string()),
            (&served.base, "images".to_string()),
            (&site.served.base, format!("boot/{MAC}/image")),
        ] {
            let request = format!("GET /{dir}/{escape} HTTP/1.0\r\nHost: x\r\n\r\n");
            let answer = raw(base, &request);
            assert!(
                answer.starts_with("HTTP/1.0 404") || answer.starts_with("HTTP/1.0 400"),
                "{request}{answer}"
            );
            assert!(!answer.contains("s3cret") && !answer.contains("root:"), "{request}{answer}");
        }
    }
    let (status, text) =
        get_text(&local, &format!("{}/firmware/dell/idrac.exe", served.base)).await;
    assert_eq!((status, &*text), (StatusCode::OK, "firmware"));
    let unknown = format!("{}/firmware/dell/other.exe", served.base);
    fs::write(catalog.join("dell/other.exe"), "not in the catalog").unwrap();
    assert_eq!(get_text(&local, &unknown).await.0, 404, "only what the catalog names");
}

fn known(bytes: &[u8]) -> KnownImage {
    KnownImage { sha256: hex::encode(Sha256::digest(bytes)), size: bytes.len() as u64 }
}

async fn get_text(client: &Client, url: &str) -> (StatusCode, String) {
    let response = client.get(url).send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

/// A catalog with one firmware file.
async fn one_image(bytes: &[u8]) -> (TempDir, ImageServer, Served, String) {
    let catalog = tempfile::tempdir().unwrap();
    fs::create_dir(catalog.path().join("dell")).unwrap();
    fs::write(catalog.path().join("dell/bios.bin"), bytes).unwrap();
    let files = BTreeMap::from([("dell/bios.bin".to_string(), known(bytes))]);
    let server = ImageServer::new(catalog.path(), None, files);
    let served = serve(server.router()).await;
    let url = format!("{}/firmware/dell/bios.bin", served.base);
    (catalog, server, served, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn images_speak_the_http_of_bmcs() {
    let bytes: Vec<u8> = (0..300_000u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
    let (_catalog, server, served, url) = one_image(&bytes).await;
    assert!(server.verify().await.is_empty());
    let client = client_from("127.0.0.1");
    let send = async |method: Method, headers: &[(&str, &str)]| {
        let mut request = client.request(method, &url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    };

    let whole = send(Method::GET, &[]).await;
    assert_eq!(whole.status(), 200);
    assert_eq!(whole.headers()["content-length"], "300000");
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    assert!(!whole.headers().contains_key("transfer-encoding"));
    let etag = whole.headers()["etag"].to_str().unwrap().to_string();
    assert_eq!(etag, format!("\"{}\"", known(&bytes).sha256));
    assert_eq!(whole.bytes().await.unwrap(), bytes);

    let head = send(Method::HEAD, &[]).await;
    assert_eq!(
        (head.status(), &head.headers()["content-length"]),
        (StatusCode::OK, &"300000".parse().unwrap())
    );
    assert!(head.bytes().await.unwrap().is_empty());

    let part = send(Method::GET, &[("range", "bytes=100000-199999")]).await;
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 100000-199999/300000");
    assert_eq!(part.headers()["content-length"], "100000");
    assert_eq!(part.bytes().await.unwrap(), bytes[100_000..200_000]);
    let tail = send(Method::GET, &[("range", "bytes=-7"), ("if-range", &etag)]).await;
    assert_eq!(tail.status(), 206);
    assert_eq!(tail.bytes().await.unwrap(), bytes[299_993..]);
    let torn = send(Method::GET, &[("range", "bytes=5-"), ("if-range", "\"old\"")]).await;
    assert_eq!((torn.status(), torn.bytes().await.unwrap().len()), (StatusCode::OK, 300_000));
    let outside = send(Method::GET, &[("range", "bytes=300000-")]).await;
    assert_eq!(outside.status(), 416);
    assert_eq!(outside.headers()["content-range"], "bytes */300000");

    let same = send(Method::GET, &[("if-none-match", &format!("\"x\", {etag}"))]).await;
    assert_eq!(same.status(), 304);
    assert_eq!(same.headers()["etag"], *etag);
    assert!(same.bytes().await.unwrap().is_empty());
    assert_eq!(send(Method::GET, &[("if-none-match", "\"x\"")]).await.status(), 200);
    assert_eq!(send(Method::POST, &[]).await.status(), 405);
    assert_eq!(get_text(&client, &format!("{}/", served.base)).await.0, 404);

    let answer = raw(&served.base, "GET /firmware/dell/bios.bin HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{}", &answer[..200]);
    assert!(answer.to_lowercase().contains("content-length: 300000\r\n"));
    let answer = raw(&served.base, "HEAD /firmware/dell/bios.bin HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\n"));
    assert!(answer.to_lowercase().contains("content-length: 300000\r\n"));
}

#[tokio::test]
async fn a_firmware_file_that_is_not_the_catalogs_is_not_offered() {
    let (catalog, server, _served, url) = one_image(b"the vendor's bytes").await;
    let client = client_from("127.0.0.1");
    assert_eq!(get_text(&client, &url).await, (StatusCode::OK, "the vendor's bytes".into()));
    let path = catalog.path().join("dell/bios.bin");
    // The same length: only the digest tells.
    fs::write(&path, b"somebody's bytes!!").unwrap();
    let (status, text) = get_text(&client, &url).await;
    assert_eq!(status, 404);
    assert!(text.contains("bad-image") && text.contains("SHA-256"), "{text}");
    let faults = server.verify().await;
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].code, "bad-image");
    fs::write(&path, b"short").unwrap();
    assert_eq!(get_text(&client, &url).await.0, 404);
    fs::remove_file(&path).unwrap();
    assert_eq!(get_text(&client, &url).await.0, 404);
    assert_eq!(server.verify().await.len(), 1);
    fs::write(&path, b"the vendor's bytes").unwrap();
    assert_eq!(get_text(&client, &url).await.0, 200);
    // A reloaded catalog that no longer names it.
    server.offer(BTreeMap::new());
    assert_eq!(get_text(&client, &url).await.0, 404);
}

#[tokio::test]
async fn a_large_file_is_streamed_not_held() {
    let catalog = tempfile::tempdir().unwrap();
    let images = tempfile::tempdir().unwrap();
    let size = 512 * 1024 * 1024;
    fs::File::create(images.path().join("big.img")).unwrap().set_len(size).unwrap();
    let server = ImageServer::new(catalog.path(), Some(images.path().into()), BTreeMap::new());
    let served = serve(server.router()).await;
    let client = client_from("127.0.0.1");
    let url = format!("{}/images/big.img", served.base);
    let before = resident_kib();
    let mut response = client.get(&url).send().await.unwrap();
    let (mut seen, mut peak) = (0, 0);
    while let Some(piece) = response.chunk().await.unwrap() {
        if seen / (32 << 20) != (seen + piece.len() as u64) / (32 << 20) {
            peak = peak.max(resident_kib());
        }
        seen += piece.len() as u64;
    }
    assert_eq!(seen, size);
    // Other tests of this process run beside it; half a file held would still be seen.
    let grown = peak.saturating_sub(before);
    assert!(grown < 128 * 1024, "the process grew by {grown} KiB");
    // A client that goes away in the middle costs nobody else anything.
    let mut gone = client.get(&url).send().await.unwrap();
    assert!(gone.chunk().await.unwrap().is_some());
    drop(gone);
    let part = client.get(&url).header("range", "bytes=0-9").send().await.unwrap();
    assert_eq!(part.bytes().await.unwrap().len(), 10);
}

/// An image of more than one of the pieces in which the kernel is told to send it.
async fn one_large(size: usize) -> (TempDir, Vec<u8>, Served) {
    let images = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..size).map(|i| (i ^ (i >> 8) ^ (i >> 16)).to_le_bytes()[0]).collect();
    fs::write(images.path().join("disk.raw"), &bytes).unwrap();
    let catalog = images.path().join("catalog");
    let server = ImageServer::new(catalog, Some(images.path().into()), BTreeMap::new());
    let served = serve(server.router()).await;
    (images, bytes, served)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_on_one_connection_do_not_mix() {
    let (_images, bytes, served) = one_large((5 << 20) + 12_345).await;
    let base = served.base.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(base.trim_start_matches("http://")).unwrap();
        let get = |range: &str, more: &str| {
            format!("GET /images/disk.raw HTTP/1.1\r\nHost: x\r\n{range}{more}\r\n")
        };
        // All at once, before the first byte of an answer is read.
        let requests = [
            get("Range: bytes=5-1048584\r\n", ""),
            get("", ""),
            get("", "If-None-Match: *\r\n"),
            "HEAD /images/disk.raw HTTP/1.1\r\nHost: x\r\n\r\n".into(),
            get("Range: bytes=-3\r\n", "Connection: close\r\n"),
        ];
        stream.write_all(requests.concat().as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    let mut answer = &*answer.await.unwrap();
    let wanted: [(&str, &[u8]); 5] = [
        ("206", &bytes[5..1_048_585]),
        ("200", &bytes),
        ("304", b""),
        ("200", b""),
        ("206", &bytes[bytes.len() - 3..]),
    ];
    for (status, body) in wanted {
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(answer[end..].starts_with(body), "{} bytes after {head}", body.len());
        answer = &answer[end + body.len()..];
    }
    assert!(answer.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_ends_early_does_not_look_whole() {
    let (images, bytes, served) = one_large(64 << 20).await;
    let url = format!("{}/images/disk.raw", served.base);
    let mut response = client_from("127.0.0.1").get(url).send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    let file = fs::File::options().write(true).open(images.path().join("disk.raw")).unwrap();
    file.set_len(1000).unwrap();
    let mut got = first.len();
    let broke = loop {
        match response.chunk().await {
            Ok(Some(piece)) => got += piece.len(),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broke && got < bytes.len(), "{got} bytes, and then an end as if that were all");
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_window_that_no_run_waits_for_is_closed_unless_a_host_is_at_it() {
    let site = Site::new().await;
    site.open(&order()).await;
    let current = |_, run: &str| run == RUN;
    assert_eq!(site.boot.close_strays(current).await.unwrap(), 0);
    assert!(site.boot.window(MachineId(1), RUN).await.unwrap().open);
    // A restored database knows another run; this one was fetched, so an installation may run.
    site.ok("ipxe").await;
    let nobody = |_, _: &str| false;
    assert_eq!(site.boot.close_strays(nobody).await.unwrap(), 0);
    assert!(site.boot.window(MachineId(1), RUN).await.unwrap().open);

    let site = Site::new().await;
    site.open(&order()).await;
    assert_eq!(site.boot.close_strays(nobody).await.unwrap(), 1);
    assert!(!site.boot.window(MachineId(1), RUN).await.unwrap().open);
    let site = site.restart().await;
    assert!(!site.boot.window(MachineId(1), RUN).await.unwrap().open, "and it stays so");
    assert_eq!(site.get(&site.host, "ipxe").await.0, 404);
}

#[tokio::test]
async fn a_rescue_lets_its_person_in_and_nobody_who_is_no_plain_key() {
    const PERSON: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJsaHlEdYCtVIbYwvEdqLi1Yg8qnmPTOL1vXVXNVvZ8e ann";
    let site = Site::new().await;
    let ramdisk = || WindowOrder { image: "farrier-ramdisk".into(), ..order() };
    for bad in [
        format!("command=\"id\" {PERSON}"),
        format!("{PERSON}\nssh-rsa AAAAB3"),
        "-----BEGIN OPENSSH PRIVATE KEY-----".into(),
    ] {
        let outcome = site.boot.open(&WindowOrder { keys: vec![bad], ..ramdisk() }).await;
        let Outcome::Failed { fault } = outcome else { panic!("{outcome:?}") };
        assert_eq!(fault.code, "bad-ssh-key");
        assert!(!site.boot.window(MachineId(1), RUN).await.unwrap().open);
    }
    site.open(&WindowOrder { keys: vec![PERSON.into()], ..ramdisk() }).await;
    assert_eq!(site.seed().await["authorized_keys"], json!([PERSON]));
    // The same after a kill.
    let site = site.restart().await;
    assert_eq!(site.seed().await["authorized_keys"], json!([PERSON]));
    // The next window of the same machine is a deployment's: nobody else is let in.
    site.boot.close(RUN).await;
    let next = WindowOrder { run: "0badcafe-m1-9".into(), ..ramdisk() };
    site.open(&next).await;
    assert_eq!(site.seed().await["authorized_keys"], json!([]));
}
