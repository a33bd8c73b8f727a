//! A power and health pass over N virtual BMCs through the engine's port for BMCs, beside bare
//! reqwest that gets the same resource with the same gates in the same run. The BMCs are served by
//! a process of its own, at 0 ms latency: what is compared is what a client adds.
//!
//! `cargo bench --bench probe_pass [-- [--bmcs N]...]`
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    reason = "a benchmark"
)]

use farrier::bmc::RedfishBmc;
use farrier::model::{BmcEndpoint, Fault, Identity, MachineId};
use farrier::port::{Bmc, BmcTarget, Credential, Secret, Vault};
use farrier::sim::durations::Durations;
use farrier::sim::faults::Dice;
use farrier::sim::physics::Quirks;
use farrier::sim::serve::{Berth, Hosts, Latency, Settings, World, serve};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

const SERVE: &str = "--serve-bmcs";
const SYSTEM: &str = "/redfish/v1/Systems/1";
/// Probes under way at once over the whole site, as in the driver.
const AT_ONCE: usize = 1024;
/// Reads of one BMC at once, as in the edge.
const PER_BMC: usize = 3;
const ROUNDS: usize = 7;
const FLOOR: f64 = 0.70;

fn main() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        let pairs = args.windows(2).filter(move |w| w[0] == flag);
        pairs.filter_map(|w| w[1].parse::<usize>().ok()).collect::<Vec<_>>()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let [count] = after(SERVE)[..] {
        return runtime.block_on(bmcs(count));
    }
    let sizes = after("--bmcs");
    for count in if sizes.is_empty() { vec![500, 2000] } else { sizes } {
        runtime.block_on(pass(count));
    }
}

fn identity(n: usize) -> Identity {
    Identity::new(Some(&format!("VN{n:06}")), None, None)
}

/// Serves until it is killed.
async fn bmcs(count: usize) {
    let dir = tempfile::tempdir().unwrap();
    let machines = (0..count).map(|n| Berth {
        id: MachineId(u32::try_from(n).unwrap() + 1),
        name: format!("node-{n}").into(),
        identity: identity(n),
        gpus: 8,
        quirks: Quirks::default(),
        sick: None,
        user: "admin".into(),
        password: "password".into(),
        dice: Dice::none(),
    });
    // Nobody logs in to these hosts; the world wants a key that it would let in.
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&[7; 32]));
    let key = PrivateKey::new(pair, "bench").unwrap().public_key().to_openssh().unwrap();
    let settings = Settings {
        dir: dir.path().join("world"),
        seed: 1,
        scale: 1,
        durations: Durations::default(),
        latency: Latency::Even(0, 0),
        hosts: Hosts::Scripted,
        authorized_key: key,
        redfish_port: 0,
        ssh_port: 0,
        machines: machines.collect(),
    };
    let serving = serve(settings).await.unwrap();
    println!("{} {}", serving.redfish_port, serving.admin_url);
    std::future::pending::<()>().await;
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

struct Password;

#[async_trait::async_trait]
impl Vault for Password {
    async fn credential(&self, _: &str) -> Result<Credential, Fault> {
        Ok(Credential { user: "admin".into(), password: Secret::new("password") })
    }

    async fn ssh_key(&self, _: &str) -> Result<Secret, Fault> {
        unreachable!("no host is asked")
    }
}

async fn pass(count: usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([SERVE, &count.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _server = Server(child);
    let (port, admin) = line.trim().split_once(' ').expect("a port and a door");

    let edge: Arc<dyn Bmc> = Arc::new(RedfishBmc::new(Arc::new(Password), Default::default()));
    let ours: Vec<Arc<BmcTarget>> = (0..count)
        .map(|n| {
            Arc::new(BmcTarget {
                machine: MachineId(u32::try_from(n).unwrap() + 1),
                name: format!("node-{n}").into(),
                endpoint: BmcEndpoint {
                    url: format!("http://{}:{port}", World::address(n)).into(),
                    credential: "bmc".into(),
                    tls: "off".into(),
                    ipmi: None,
                    controllers: Default::default(),
                },
                identity: identity(n),
            })
        })
        .collect();
    // Idle connections stay, as the edge keeps them.
    let client = reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
        .tcp_nodelay(true)
        .build()
        .unwrap();
    let bare: Vec<Arc<Bare>> = futures_util::future::join_all(
        (0..count).map(|n| Bare::login(&client, format!("http://{}:{port}", World::address(n)))),
    )
    .await;
    // Sessions, links, connections: not what is compared.
    each(&ours, &edge).await;
    let before = requests(&client, admin).await;
    each(&ours, &edge).await;
    let asked = (requests(&client, admin).await - before) as f64 / count as f64;
    let (mut a, mut b) = (vec![], vec![]);
    let (mut a_cpu, mut b_cpu) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        let start = cpu_ms();
        a.push(each(&ours, &edge).await);
        let middle = cpu_ms();
        b.push(each_bare(&bare, &client).await);
        (a_cpu, b_cpu) = (a_cpu + middle - start, b_cpu + cpu_ms() - middle);
    }
    let middle = |mut of: Vec<f64>| {
        of.sort_by(f64::total_cmp);
        count as f64 / of[of.len() / 2]
    };
    let (a, b) = (middle(a), middle(b));
    let each_ms = |cpu: f64| cpu / (ROUNDS * count) as f64;
    println!(
        "probe pass, {count} BMCs, medians of {ROUNDS}: through the port {a:.0} BMCs/s, bare \
         reqwest {b:.0} BMCs/s, ratio {:.2} (floor {FLOOR}; {AT_ONCE} at once, {PER_BMC} a BMC; {asked:.2} requests a BMC): \
         {}",
        a / b,
        if a / b >= FLOOR { "ok" } else { "BELOW" }
    );
    println!(
        "  the client's own CPU a BMC, which the server's share of the cores does not blur: {:.3} ms \
         and {:.3} ms, ratio {:.2}",
        each_ms(a_cpu),
        each_ms(b_cpu),
        b_cpu / a_cpu
    );
}

/// User and system time of this process, in milliseconds (ticks of 10 ms).
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit(')').next().unwrap();
    let ticks = after.split_whitespace().skip(11).take(2).map(|t| t.parse::<f64>().unwrap());
    ticks.sum::<f64>() * 10.0
}

/// What the BMCs have been asked so far.
async fn requests(client: &reqwest::Client, admin: &str) -> u64 {
    let answer = client.get(format!("{admin}/counters")).send().await.unwrap();
    let all: BTreeMap<String, Value> = answer.json().await.unwrap();
    all.values().filter_map(|of| of["requests"].as_u64()).sum()
}

/// Seconds for all.
async fn each(targets: &[Arc<BmcTarget>], edge: &Arc<dyn Bmc>) -> f64 {
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let started = Instant::now();
    let tasks: Vec<_> = targets
        .iter()
        .map(|target| {
            let (target, edge, gate) = (target.clone(), edge.clone(), gate.clone());
            tokio::spawn(async move {
                let _permit = gate.acquire().await;
                let facts = edge.system(&target).await.unwrap();
                assert!(facts.health.is_some() && facts.identity.serial.is_some());
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    started.elapsed().as_secs_f64()
}

/// One BMC for bare reqwest: its session and its gate.
struct Bare {
    url: String,
    token: String,
    gate: Semaphore,
}

impl Bare {
    async fn login(client: &reqwest::Client, base: String) -> Arc<Self> {
        let answer = client
            .post(format!("{base}/redfish/v1/SessionService/Sessions"))
            .json(&serde_json::json!({ "UserName": "admin", "Password": "password" }))
            .send()
            .await
            .unwrap();
        let token = answer.headers()["x-auth-token"].to_str().unwrap().to_string();
        answer.bytes().await.unwrap();
        let gate = Semaphore::new(PER_BMC);
        Arc::new(Self { url: format!("{base}{SYSTEM}"), token, gate })
    }
}

async fn each_bare(bmcs: &[Arc<Bare>], client: &reqwest::Client) -> f64 {
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let started = Instant::now();
    let tasks: Vec<_> = bmcs
        .iter()
        .map(|bmc| {
            let (bmc, client, gate) = (bmc.clone(), client.clone(), gate.clone());
            tokio::spawn(async move {
                let _permit = gate.acquire().await;
                let _read = bmc.gate.acquire().await;
                let request = client.get(&bmc.url).header("x-auth-token", &bmc.token);
                let system: Value = request.send().await.unwrap().json().await.unwrap();
                assert!(system["PowerState"].is_string() && system["Status"].is_object());
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    started.elapsed().as_secs_f64()
}
