//! `farrier vbmc` as a process: what it prints, what it refuses, and a rehearsal: the daemon takes
//! its machines of six vendors, under faults, to `ready`.

use super::unpacked::{MOCKUPS, archive};
use farrier::app::demo::daemon::Daemon;
use farrier::app::demo::fleet::Api;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The binary under test: what `tests/run.sh` built, else what cargo did.
pub(super) fn farrier() -> PathBuf {
    std::env::var_os("FARRIER_BIN").map_or_else(|| env!("CARGO_BIN_EXE_farrier").into(), Into::into)
}

pub(super) fn client() -> reqwest::Client {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap()
}

pub(super) async fn fetch(url: &str) -> Value {
    client().get(url).send().await.unwrap().json().await.unwrap()
}

pub(super) struct Vbmc {
    child: Child,
    /// Its line of JSON.
    pub(super) said: Value,
}

impl Vbmc {
    pub(super) async fn start(args: &[&str]) -> Vbmc {
        let mut child = Command::new(farrier())
            .arg("vbmc")
            .args(args)
            .arg("--json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await;
        let line = line.expect("a line in time").unwrap().expect("it says where it is");
        Vbmc { child, said: serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}")) }
    }

    pub(super) fn text(&self, key: &str) -> &str {
        self.said[key].as_str().unwrap_or_else(|| panic!("no {key}: {}", self.said))
    }

    /// SIGTERM, as systemd would.
    pub(super) async fn end(mut self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let ended = tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await;
        assert!(ended.expect("it ends when told to").unwrap().success());
    }
}

async fn refused(args: &[&str]) -> String {
    let out = Command::new(farrier()).arg("vbmc").args(args).output().await.unwrap();
    assert_eq!(out.status.code(), Some(2), "{args:?}");
    assert!(out.stdout.is_empty());
    String::from_utf8(out.stderr).unwrap()
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let bad = put("bad.toml", "name = \"x\"\n[sessions]\ncaps = 3\n");
    let foreign = put("farrier.toml", "# my own\n");
    let inventory = dir.path().join("inventory.toml").display().to_string();
    for (args, says) in [
        (vec!["--listen", "0.0.0.0:0"], "not a loopback address"),
        (vec!["--admin", "192.0.2.1:80"], "not a loopback address"),
        (vec!["--vendor", "acme"], "possible values"),
        (vec!["--profile", &bad], "unknown field `caps`"),
        (vec!["--profile", "/nowhere.toml"], "can't be read"),
        (vec!["--replay", "/nowhere/at/all"], "no captured tree"),
        (vec!["--inventory-out", &inventory], "left alone"),
    ] {
        let said = refused(&args).await;
        assert!(said.contains("error: ") && said.contains(says), "{args:?}: {said}");
    }
    assert_eq!(std::fs::read_to_string(foreign).unwrap(), "# my own\n");
}

#[tokio::test]
async fn a_captured_tree_is_served_out_of_its_archive() {
    let Some(archive) = archive(MOCKUPS) else { return };
    let tree = archive.join("dmtf-public-rackmount1").display().to_string();
    let vbmc = Vbmc::start(&["--replay", &tree, "--quick"]).await;
    let bmc = vbmc.said["bmcs"][0]["url"].as_str().unwrap();
    let root = fetch(&format!("{bmc}/redfish/v1")).await;
    assert_eq!(root["RedfishVersion"], "1.15.0");
    vbmc.end().await;
}

/// What truly happened, by machine: how often each thing did.
async fn truth(vbmc: &Vbmc) -> BTreeMap<String, BTreeMap<String, usize>> {
    let all = fetch(&format!("{}/truth", vbmc.text("admin"))).await;
    let all: BTreeMap<String, Vec<Value>> = serde_json::from_value(all).unwrap();
    let count = |log: Vec<Value>| {
        let mut out = BTreeMap::new();
        for line in log {
            let slot = line["slot"].as_u64().map(|s| format!(" {s}")).unwrap_or_default();
            let what = format!("{}{slot}", line["what"].as_str().unwrap());
            *out.entry(what).or_insert(0) += 1;
        }
        out
    };
    all.into_iter().map(|(name, log)| (name, count(log))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_is_rehearsed_on_six_vendors_under_faults() {
    // HPE's sessions last 30 s of its time: at 120 a busy machine loses them between two requests.
    const SCALE: u32 = 80;
    let dir = tempfile::tempdir().unwrap();
    let inventory = dir.path().join("inventory.toml").display().to_string();
    let scale = SCALE.to_string();
    let args = ["--machines", "6", "--vendor", "mixed", "--quick", "--time-scale", &scale];
    let vbmc = Vbmc::start(&[&args[..], &["--inventory-out", &inventory]].concat()).await;
    let vendors: Vec<&str> =
        vbmc.said["bmcs"].as_array().unwrap().iter().filter_map(|b| b["vendor"].as_str()).collect();
    assert_eq!(vendors, ["dell", "hpe", "lenovo", "supermicro", "dgx", "openbmc"]);
    let http = client();
    // Orders that are carried out while nobody hears of it, orders that never arrive, slow reads;
    // and reads that fail in every way, of one resource and of any.
    for rule in [
        json!({"method": "POST", "path": "*/ComputerSystem.Reset", "effect": "drop",
               "applied": true, "probability": 0.3, "seed": 1}),
        json!({"method": "POST", "path": "*/UpdateService.SimpleUpdate", "effect": "drop",
               "applied": true, "probability": 0.5, "seed": 2}),
        json!({"method": "POST", "path": "*/ComputerSystem.Reset", "effect": {"status": 503},
               "probability": 0.2, "seed": 3}),
        json!({"method": "GET", "path": "*/FirmwareInventory/*", "effect": {"status": 500},
               "probability": 0.2, "seed": 6}),
        json!({"method": "GET", "effect": {"status": 500}, "probability": 0.01, "seed": 8}),
        json!({"method": "GET", "effect": "half-reply", "probability": 0.01, "seed": 9}),
        json!({"method": "GET", "effect": "garbage", "probability": 0.01, "seed": 10}),
        json!({"method": "GET", "effect": "drop", "probability": 0.02, "seed": 11}),
        json!({"method": "GET", "effect": {"latency_ms": 50}, "probability": 0.05, "seed": 5}),
    ] {
        let url = format!("{}/rules", vbmc.text("admin"));
        let answer = http.post(url).body(rule.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{rule}");
    }
    let config = PathBuf::from(vbmc.text("config"));
    let api_url = std::fs::read_to_string(&config).unwrap();
    let api_url = api_url.lines().find_map(|l| l.strip_prefix("bind = ")).unwrap();
    let api_url = format!("http://{}", api_url.trim_matches('"'));
    let log = dir.path().join("daemon.log");
    let mut daemon = Daemon::start(&farrier(), &config, SCALE, &log).unwrap();
    daemon.healthy(&api_url, Duration::from_secs(30)).await.unwrap();
    let api = Api::new(&api_url).unwrap();
    // Discovered: facts before anybody enrolled them.
    let deadline = Instant::now() + Duration::from_secs(30);
    for bmc in vbmc.said["bmcs"].as_array().unwrap() {
        let url = format!("{api_url}/v1/machines/{}", bmc["name"].as_str().unwrap());
        loop {
            let shown = fetch(&url).await;
            let text = shown.to_string();
            if text.contains("Virtual GPU node") && text.contains("FV0001") {
                break;
            }
            assert!(Instant::now() < deadline, "no facts of {bmc}: {shown:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    api.enroll_all(6, "ready").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(200);
    loop {
        let fleet = api.fleet().await.unwrap();
        if fleet.rests("ready", &BTreeMap::new()) {
            break;
        }
        if Instant::now() > deadline {
            let mut said = String::new();
            for row in &fleet.rows {
                said += &format!("{row:?}\n{}\n", api.explain(&row.name).await.unwrap());
            }
            panic!("not at rest:\n{said}\n{:#?}", truth(&vbmc).await);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let truth = truth(&vbmc).await;
    let copies = |what: &BTreeMap<String, usize>| what.contains_key("copy-started 1");
    assert_eq!(truth.values().filter(|what| copies(what)).count(), 2, "HGX boards copy");
    for (name, what) in &truth {
        let count = |key: &str| what.get(key).copied().unwrap_or(0);
        for slot in 0..2 {
            assert_eq!(count(&format!("flash-started {slot}")), 1, "{name}: {what:?}");
            assert_eq!(count(&format!("flash-broken {slot}")), 0, "{name}: {what:?}");
        }
        assert_eq!(count("install-started"), 1, "{name}: {what:?}");
        for slot in 0..2 {
            let begun = count(&format!("copy-started {slot}"));
            assert_eq!(count(&format!("copy-ended {slot}")), begun, "{name}: {what:?}");
            assert_eq!(count(&format!("copy-broken {slot}")), 0, "{name}: {what:?}");
        }
    }
    let rules = fetch(&format!("{}/rules", vbmc.text("admin"))).await;
    let (mut writes, mut reads) = (0, BTreeMap::new());
    for rule in rules.as_array().unwrap() {
        let hits = rule["hits"].as_u64().unwrap();
        match rule["rule"]["method"] == "GET" {
            true => *reads.entry(rule["rule"]["effect"].to_string()).or_insert(0) += hits,
            false => writes += hits,
        }
    }
    assert!(writes > 0 && reads.len() == 5, "{rules}");
    assert!(reads.values().all(|hits| *hits > 0), "rules that struck nothing: {rules}");
    let counters = fetch(&format!("{}/counters", vbmc.text("admin"))).await;
    for (name, seen) in counters.as_object().unwrap() {
        assert!(seen["open_sessions"].as_u64().is_some_and(|n| n <= 8), "{name}: {seen}");
        assert_eq!(seen["failed_logins"], 0, "{name}");
    }
    daemon.stop().await;
    vbmc.end().await;
}
