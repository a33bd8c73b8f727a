//! What reading BMCs costs the client.
//!
//! - The facts of each captured tree, its bodies in memory: CPU of all that happens to them.
//! - Requests of one power and health probe, by vendor of the virtual BMC.
//! - CPU of probing 2,000 virtual BMCs once a minute, sessions kept, each probe on a connection of its
//!   own as a minute's rest makes it; over HTTP, which is what virtual BMCs speak, and with the TLS
//!   that real ones ask for. The BMCs are served by another process. Passes are compressed to 12 s,
//!   probes spread evenly over them; `--pass-s 60` runs them in full.
//!
//! `cargo bench --bench bmc_facts [-- [--bmcs N] [--pass-s S]]`
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    reason = "a benchmark"
)]

#[path = "../tests/bmc/captured.rs"]
#[allow(dead_code, reason = "only its trees are wanted here")]
mod captured;
#[path = "../tests/bmc/server.rs"]
#[allow(dead_code, reason = "`captured` serves with it")]
mod server;

use farrier::bmc::canned::{Canned, Source};
use farrier::bmc::{RedfishBmc, Settings as EdgeSettings, Trace};
use farrier::config::quirks;
use farrier::model::{BmcEndpoint, Fault, Identity, MachineId};
use farrier::port::{Bmc, BmcRead, BmcTarget, Credential, Secret, Vault};
use farrier::sim::durations::Durations;
use farrier::sim::faults::Dice;
use farrier::sim::physics::Quirks;
use farrier::sim::serve::{Behaviour, Berth, Hosts, Latency, Profile, Serving, Settings, World};
use farrier::sim::serve::{serve, serve_as};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

const SERVE: &str = "--serve-bmcs";
/// Facts of the largest captured tree, once its bodies are read.
const FACTS_MS: f64 = 50.0;
const FACTS_ROUNDS: usize = 15;
/// Of one core, for 2,000 BMCs probed every minute.
const SHARE: f64 = 0.05;
const EVERY_S: f64 = 60.0;
const PASSES: usize = 3;

fn main() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        args.windows(2).find(|w| w[0] == flag).and_then(|w| w[1].parse::<usize>().ok())
    };
    if let Some(count) = after(SERVE) {
        return Builder::new_multi_thread().enable_all().build().unwrap().block_on(bmcs(count));
    }
    facts();
    // One thread is enough for a client that is to take a twentieth of one.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(requests());
    let count = after("--bmcs").unwrap_or(2_000);
    let pass = Duration::from_secs(after("--pass-s").map_or(12, |s| u64::try_from(s).unwrap()));
    runtime.block_on(minute(count, pass));
}

/// CPU time of this process, in milliseconds.
fn cpu_ms() -> f64 {
    let at = clock_gettime(ClockId::ProcessCPUTime);
    at.tv_sec as f64 * 1e3 + at.tv_nsec as f64 / 1e6
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

fn target(n: usize, url: String, tls: &str, identity: Identity) -> Arc<BmcTarget> {
    Arc::new(BmcTarget {
        machine: MachineId(u32::try_from(n).unwrap() + 1),
        name: format!("node-{n}").into(),
        endpoint: BmcEndpoint {
            url: url.into(),
            credential: "bmc".into(),
            tls: tls.into(),
            ipmi: None,
            controllers: Default::default(),
        },
        identity,
    })
}

// --- facts of captured trees

/// A tree whose bodies are in memory.
#[derive(Default)]
struct Bodies {
    by_path: BTreeMap<String, Arc<[u8]>>,
    /// Requests, and the bytes of their answers.
    asked: Mutex<(usize, usize)>,
}

impl Source for Bodies {
    fn answer(&self, method: &str, path: &str) -> Canned {
        let path = path.to_lowercase();
        let bare = path.split('?').next().unwrap_or_default().trim_end_matches('/');
        let found = [path.as_str(), bare].into_iter().find_map(|p| self.by_path.get(p));
        let body = found.cloned().unwrap_or_default();
        let mut asked = self.asked.lock().unwrap();
        *asked = (asked.0 + 1, asked.1 + body.len());
        let status = if found.is_some() { 200 } else { 404 };
        let token = ("X-Auth-Token".to_string(), b"token".to_vec());
        match method {
            "POST" => Canned { status: 201, headers: vec![token], body: b"{}"[..].into() },
            _ => Canned { status, headers: vec![], body },
        }
    }
}

fn facts() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let shipped = Arc::new(quirks::shipped());
    let mut costliest = ("", 0.0);
    for name in captured::NAMES {
        let Some(tree) = captured::tree(name) else { return };
        let by_path: BTreeMap<String, Arc<[u8]>> =
            tree.iter().map(|(p, v)| (p.clone(), v.to_string().into_bytes().into())).collect();
        let whole: usize = by_path.values().map(|b| b.len()).sum();
        let bodies = Arc::new(Bodies { by_path, ..Bodies::default() });
        let bmc = target(0, "http://bmc.invalid".into(), "off", Identity::default());
        let mut took = Vec::new();
        for _ in 0..FACTS_ROUNDS {
            // A new edge each time: nothing is known of this BMC yet.
            let settings = EdgeSettings { quirks: shipped.clone(), ..EdgeSettings::default() };
            let edge = RedfishBmc::new(Arc::new(Password), settings).answered_by(bodies.clone());
            *bodies.asked.lock().unwrap() = (0, 0);
            let before = cpu_ms();
            runtime.block_on(async {
                edge.system(&bmc).await.unwrap();
                edge.inventory(&bmc).await.unwrap();
                edge.firmware(&bmc).await.unwrap();
            });
            took.push(cpu_ms() - before);
        }
        took.sort_by(f64::total_cmp);
        let (middle, worst) = (took[took.len() / 2], took[took.len() - 1]);
        let (requests, bytes) = *bodies.asked.lock().unwrap();
        println!(
            "facts: {name}: {} documents, {:.1} MB; {requests} requests for {:.0} KB: {middle:.1} ms \
             CPU (median of {FACTS_ROUNDS}, worst {worst:.1})",
            tree.len(),
            whole as f64 / 1e6,
            bytes as f64 / 1e3,
        );
        // Not the worst of its rounds: what else the machine does is in that one.
        if middle > costliest.1 {
            costliest = (name, middle);
        }
    }
    let (name, ms) = costliest;
    println!(
        "facts of the costliest captured tree ({name}), its bodies in memory: {ms:.1} ms CPU \
         (ceiling {FACTS_MS} ms for the largest): {}",
        if ms <= FACTS_MS { "ok" } else { "ABOVE" }
    );
}

// --- requests of a probe

fn identity(n: usize) -> Identity {
    Identity::new(Some(&format!("VN{n:06}")), None, None)
}

fn world(dir: &tempfile::TempDir, count: usize) -> Settings {
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
    Settings {
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
    }
}

/// The names that vendors give a system's settings object.
fn is_settings(asked: &str) -> bool {
    ["/Settings", "/Pending", "/SD"].iter().any(|name| asked.ends_with(name))
}

async fn requests() {
    let dir = tempfile::tempdir().unwrap();
    let names = Profile::names();
    let profiles = names.iter().map(|n| Profile::named(n).unwrap()).collect();
    let behaviour = Behaviour { profiles, ..Behaviour::default() };
    let serving: Serving = serve_as(world(&dir, names.len()), behaviour).await.unwrap();
    let (mut one, mut two, mut more) = (0, 0, 0);
    for (n, name) in names.iter().enumerate() {
        let trace = Arc::new(Trace::default());
        let settings = EdgeSettings {
            trace: Some(trace.clone()),
            quirks: Arc::new(quirks::shipped()),
            ..EdgeSettings::default()
        };
        let edge = RedfishBmc::new(Arc::new(Password), settings);
        let url = serving.bmc_url(&serving.world.seats[n]);
        // Nothing but the address is known of it, as of a machine never read before.
        let bmc = target(n, url, "off", Identity::default());
        edge.system(&bmc).await.unwrap_or_else(|f| panic!("{name}: {f:?}"));
        let first = trace.asked().len();
        let facts = edge.system(&bmc).await.unwrap();
        let again: Vec<String> =
            trace.asked()[first..].iter().map(|a| format!("{} {}", a.method, a.path)).collect();
        assert!(facts.health.is_some(), "{name} shows no health");
        let what = match &again[..] {
            [_] => {
                one += 1;
                "ok"
            }
            // What is pending shows there alone, so it is read as long as the system says nothing.
            [_, own] if is_settings(own) => {
                two += 1;
                "ok, its boot override is in an object of its own"
            }
            _ => {
                more += 1;
                "MORE"
            }
        };
        println!("probe of {name}: first {first} requests, then {}: {what}", again.len());
        for asked in again.iter().filter(|_| again.len() > 1) {
            println!("  {asked}");
        }
    }
    println!(
        "a power and health probe is one request on {one} virtual vendors of {}, two on the {two} that \
         keep the boot override apart: {}",
        names.len(),
        if more == 0 { "ok" } else { "MORE ON SOME" }
    );
    serving.stop().await;
}

// --- a minute of 2,000

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Serves until it is killed: plain, and the same behind TLS.
async fn bmcs(count: usize) {
    let dir = tempfile::tempdir().unwrap();
    let serving = serve(world(&dir, count)).await.unwrap();
    let key = rcgen::generate_simple_self_signed(vec!["bmc".into()]).unwrap();
    let der = key.cert.der().clone();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    let private = rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![der], private.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
    let tls_port = listener.local_addr().unwrap().port();
    let plain_port = serving.redfish_port;
    println!("{plain_port} {tls_port} sha256:{}", hex::encode(digest));
    loop {
        let Ok((outside, _)) = listener.accept().await else { continue };
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let address = outside.local_addr().unwrap().ip();
            let (Ok(mut outside), Ok(mut inside)) =
                tokio::join!(acceptor.accept(outside), TcpStream::connect((address, plain_port)))
            else {
                return;
            };
            tokio::io::copy_bidirectional(&mut outside, &mut inside).await.ok();
        });
    }
}

async fn minute(count: usize, pass: Duration) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([SERVE, &count.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _server = Server(child);
    let words: Vec<&str> = line.split_whitespace().collect();
    let [plain, tls, pin] = words[..] else { panic!("ports and a pin, not `{line}`") };
    for (scheme, port, trust) in [("http", plain, "off"), ("https", tls, pin)] {
        let trace = Arc::new(Trace::default());
        let settings = |trace| EdgeSettings { trace, ..EdgeSettings::default() };
        let edge: Arc<dyn Bmc> = Arc::new(RedfishBmc::new(Arc::new(Password), settings(None)));
        let targets: Vec<Arc<BmcTarget>> = (0..count)
            .map(|n| {
                target(n, format!("{scheme}://{}:{port}", World::address(n)), trust, identity(n))
            })
            .collect();
        // Sessions and links: made once, not in what is measured.
        round(&targets, &edge, pass).await;
        let before = cpu_ms();
        for _ in 0..PASSES {
            round(&targets, &edge, pass).await;
        }
        let each = (cpu_ms() - before) / (PASSES * count) as f64;
        let share = each * count as f64 / (EVERY_S * 1e3);
        // One BMC more, whose requests are written down.
        let watched: Arc<dyn Bmc> =
            Arc::new(RedfishBmc::new(Arc::new(Password), settings(Some(trace.clone()))));
        round(&targets[..1], &watched, Duration::ZERO).await;
        let first = trace.asked().len();
        round(&targets[..1], &watched, Duration::ZERO).await;
        println!(
            "{count} virtual BMCs over {scheme}, {PASSES} passes of {} s, sessions kept, a new \
             connection and {} request a probe: {each:.3} ms CPU each; every {EVERY_S:.0} s that is \
             {:.2} % of one core (ceiling {:.0} %): {}",
            pass.as_secs(),
            trace.asked().len() - first,
            share * 100.0,
            SHARE * 100.0,
            if share <= SHARE { "ok" } else { "ABOVE" }
        );
    }
}

/// One probe of each, evenly over `pass`, and all of them answered.
async fn round(targets: &[Arc<BmcTarget>], edge: &Arc<dyn Bmc>, pass: Duration) {
    let start = tokio::time::Instant::now();
    let step = pass / u32::try_from(targets.len()).unwrap();
    let mut probes = Vec::with_capacity(targets.len());
    for (n, bmc) in targets.iter().enumerate() {
        tokio::time::sleep_until(start + step * u32::try_from(n).unwrap()).await;
        let (bmc, edge) = (bmc.clone(), edge.clone());
        probes.push(tokio::spawn(async move {
            let facts = edge.system(&bmc).await.unwrap_or_else(|f| panic!("{}: {f:?}", bmc.name));
            assert!(facts.health.is_some() && facts.identity.serial.is_some());
        }));
    }
    for probe in probes {
        probe.await.unwrap();
    }
    tokio::time::sleep_until(start + pass).await;
}
