//! A site for the tests of the people's surfaces: a real director and driver, a store in memory,
//! and ports with one power switch a machine. Machines are sick by name.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use async_trait::async_trait;
use farrier::api;
use farrier::cli::{Cli, Io, execute};
use farrier::decide::Rules;
use farrier::engine::Director;
use farrier::engine::clock::Clock;
use farrier::engine::director::Settings;
use farrier::engine::driver::{self, Driver, Handle, Wiring};
use farrier::model::action::{BootTarget, HookVerb};
use farrier::model::facts::*;
use farrier::model::time::Span;
use farrier::model::*;
use farrier::port::store::*;
use farrier::port::*;
use farrier::steps::Step;
use farrier::steps::site::{Profile, Site};
use farrier::steps::workflow::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Stands in the BMC's URL of every machine; must never come out again.
pub const PLANTED: &str = "calvin-the-planted-secret";

/// Engine time runs this many times faster than the clock.
const SCALE: u32 = 200;

/// A store that keeps everything in memory, with the same promises as the real one.
#[derive(Default)]
pub struct Memory {
    inner: Mutex<Inner>,
    /// Commits wait while this is set.
    pub hung: AtomicBool,
}

#[derive(Default)]
struct Inner {
    seq: BTreeMap<MachineId, u64>,
    journal: BTreeMap<MachineId, Vec<HistoryLine>>,
    facts: BTreeMap<MachineId, Report>,
    keys: BTreeSet<String>,
}

impl Memory {
    pub fn journal(&self, id: u32) -> Vec<HistoryLine> {
        self.inner.lock().unwrap().journal.get(&MachineId(id)).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Store for Memory {
    async fn load(&self) -> Result<Loaded, StoreError> {
        Ok(Loaded::default())
    }

    async fn commit(
        &self,
        batch: &[CommitItem],
        _: EngineTime,
        wall_ms: u64,
    ) -> Result<Vec<Committed>, StoreError> {
        while self.hung.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut inner = self.inner.lock().unwrap();
        let mut out = Vec::new();
        for item in batch {
            let stored_seq = inner.seq.get(&item.machine).copied().unwrap_or(0);
            if stored_seq != item.after_seq {
                out.push(Committed::Conflict { stored_seq });
                continue;
            }
            let used = item.entries.iter().find_map(|e| match e {
                Entry::Changed { key, .. } if inner.keys.contains(key) => Some(key.clone()),
                _ => None,
            });
            if let Some(key) = used {
                out.push(Committed::Repeated { key });
                continue;
            }
            for (n, entry) in item.entries.iter().enumerate() {
                if let Entry::Changed { key, .. } = entry {
                    inner.keys.insert(key.clone());
                }
                let seq = stored_seq + 1 + n as u64;
                let line = HistoryLine { seq, at: item.at, wall_ms, entry: entry.clone() };
                inner.journal.entry(item.machine).or_default().push(line);
            }
            inner.seq.insert(item.machine, item.row.seq);
            if let Some(facts) = &item.facts {
                inner.facts.insert(item.machine, (**facts).clone());
            }
            out.push(Committed::Durable);
        }
        Ok(out)
    }

    async fn expect(&self, _: &[Expected]) -> Result<Vec<MachineId>, StoreError> {
        Err(StoreError::Unusable("the tests give the ids".into()))
    }

    async fn keep_workflow(&self, _: &str, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn set_stopped(&self, _: Option<&Stopped>, _: EngineTime) -> Result<(), StoreError> {
        Ok(())
    }

    async fn facts(&self, machine: MachineId) -> Result<Option<Report>, StoreError> {
        Ok(self.inner.lock().unwrap().facts.get(&machine).cloned())
    }

    async fn history(
        &self,
        machine: MachineId,
        after_seq: u64,
        limit: u32,
    ) -> Result<Vec<HistoryLine>, StoreError> {
        let lines = self.journal(machine.0).into_iter().filter(|l| l.seq > after_seq);
        Ok(lines.take(limit as usize).collect())
    }
}

/// Every port of the site. `sick` and `dead` machines go by name.
struct World {
    power: Mutex<BTreeMap<MachineId, Power>>,
    sick: BTreeSet<String>,
    dead: Mutex<BTreeSet<String>>,
    refuses: BTreeSet<String>,
}

fn away(channel: Channel) -> Fault {
    Fault::no_answer(channel, "nobody is there")
}

#[async_trait]
impl BmcRead for World {
    async fn system(&self, bmc: &BmcTarget) -> Result<SystemFacts, Fault> {
        if self.dead.lock().unwrap().contains(&*bmc.name) {
            return Err(away(Channel::Bmc));
        }
        let id = if self.sick.contains(&*bmc.name) { 9999 } else { bmc.machine.0 };
        Ok(SystemFacts {
            identity: Identity::new(None, Some(&uuid(id)), None),
            manufacturer: Some("Acme".into()),
            model: Some("G8 <b>bold</b>".into()),
            power: self.power.lock().unwrap().get(&bmc.machine).copied().unwrap_or(Power::On),
            health: Some("OK".into()),
            ..SystemFacts::default()
        })
    }
    async fn inventory(&self, _: &BmcTarget) -> Result<InventoryFacts, Fault> {
        Ok(InventoryFacts::default())
    }
    async fn firmware(&self, _: &BmcTarget) -> Result<Vec<Component>, Fault> {
        Ok(vec![])
    }
    async fn tasks(&self, _: &BmcTarget, _: Option<&str>) -> Result<Vec<Task>, Fault> {
        Ok(vec![])
    }
}

#[async_trait]
impl BmcPower for World {
    async fn power(&self, bmc: &BmcTarget, _: &Expect, op: PowerOp) -> Outcome {
        if self.refuses.contains(&*bmc.name) {
            let fault = Fault::new(
                FaultClass::Transient,
                Channel::Bmc,
                "bmc-internal",
                "the BMC answered 500 to the reset",
            )
            .evidence("HTTP 500\n{\"error\": \"<script>alert(1)</script>\"}");
            return Outcome::Failed { fault };
        }
        let power = if op == PowerOp::On { Power::On } else { Power::Off };
        self.power.lock().unwrap().insert(bmc.machine, power);
        Outcome::Applied { handle: None }
    }
    async fn set_boot(&self, _: &BmcTarget, _: &Expect, _: BootTarget) -> Outcome {
        Outcome::Applied { handle: None }
    }
}

#[async_trait]
impl BmcUpdate for World {
    async fn update(&self, _: &BmcTarget, _: &Expect, _: &UpdateOrder) -> Outcome {
        Outcome::Failed { fault: away(Channel::Bmc) }
    }
}

#[async_trait]
impl BmcCare for World {
    async fn reset_bmc(&self, _: &BmcTarget, _: &Expect) -> Outcome {
        Outcome::Applied { handle: None }
    }
    async fn end_sessions(&self, _: &BmcTarget) -> Outcome {
        Outcome::Applied { handle: None }
    }
}

#[async_trait]
impl Shell for World {
    async fn facts(&self, _: &HostTarget) -> Result<HostFacts, Fault> {
        Err(away(Channel::Host))
    }
    async fn job(&self, _: &HostTarget, _: &str) -> Result<JobFacts, Fault> {
        Err(away(Channel::Host))
    }
    async fn start_job(
        &self,
        _: &HostTarget,
        _: &Expect,
        _: JobScript,
        _: &str,
        _: u64,
    ) -> Outcome {
        Outcome::Failed { fault: away(Channel::Host) }
    }
}

#[async_trait]
impl Cluster for World {
    async fn membership(&self, _: &Node) -> Result<Membership, Fault> {
        Err(away(Channel::Cluster))
    }
    async fn act(&self, _: &Node, _: &Expect, _: HookVerb) -> Outcome {
        Outcome::Failed { fault: away(Channel::Cluster) }
    }
}

#[async_trait]
impl Boot for World {
    async fn window(&self, _: MachineId, _: &str) -> Result<WindowFacts, Fault> {
        Ok(WindowFacts::default())
    }
    async fn open(&self, _: &WindowOrder) -> Outcome {
        Outcome::Applied { handle: None }
    }
    async fn close(&self, _: &str) -> Outcome {
        Outcome::Applied { handle: None }
    }
}

impl Advertise for World {
    fn images(&self, _: &Expected) -> Option<String> {
        None
    }
    fn boot(&self, _: &Expected) -> Option<String> {
        None
    }
}

fn uuid(id: u32) -> String {
    format!("11111111-2222-3333-4444-55555555{id:04}")
}

fn step(stage: Stage, key: &str, step: Step) -> StepSpec {
    StepSpec {
        key: key.into(),
        stage,
        step,
        timeout: Span(3_600_000),
        stall: Span(900_000),
        usual: Span(0),
        retry: Retry { attempts: 3, ..Retry::default() },
        unsupported: Unsupported::Quarantine,
        when: When::default(),
    }
}

fn site(sla_s: u64) -> Site {
    use farrier::steps::{identify, power};
    let workflow = Workflow {
        name: "w".into(),
        watch: Span(300_000),
        sla: BTreeMap::from([(Stage::Discover, Span(sla_s * 1000))]),
        steps: vec![
            step(Stage::Discover, "identify", Step::Identify(identify::Params {})),
            step(Stage::Firmware, "off", Step::Power(power::Params { state: power::Wanted::Off })),
            step(Stage::Provision, "on", Step::Power(power::Params { state: power::Wanted::On })),
        ],
    };
    let hash = workflow.hash();
    let profile = Profile { name: "gpu".into(), workflow: hash.clone(), ..Profile::default() };
    Site {
        incarnation: "abcd1234".into(),
        limits: vec![Limit { class: LimitClass::Power, per: DomainKind::Rack, max: 4 }],
        profiles: BTreeMap::from([("gpu".into(), Arc::new(profile))]),
        workflows: BTreeMap::from([(hash, Arc::new(workflow))]),
        ..Site::default()
    }
}

fn expected(id: u32, name: &str) -> Arc<Expected> {
    let rack = format!("r{}", (id - 1) / 8 + 1);
    Arc::new(Expected {
        name: name.into(),
        identity: Identity::new(None, Some(&uuid(id)), None).into(),
        rack: rack.as_str().into(),
        position: u16::try_from((id - 1) % 8 + 1).unwrap(),
        pool: if id.is_multiple_of(2) { "h100" } else { "cpu" }.into(),
        profile: "gpu".into(),
        domains: [Domain { kind: DomainKind::Rack, name: rack.as_str().into() }].into(),
        labels: BTreeMap::from([("row".into(), "a".into())]).into(),
        bmc: BmcEndpoint {
            url: format!("https://root:{PLANTED}@10.0.0.{}", id % 250).into(),
            credential: "bmc-admin".into(),
            tls: "off".into(),
            ipmi: None,
            controllers: Default::default(),
        },
        host: HostEndpoint {
            address: format!("10.1.0.{}", id % 250).into(),
            user: "root".into(),
            host_key: None,
        },
    })
}

/// How the site is made.
#[derive(Default)]
pub struct Plan {
    pub machines: u32,
    /// Another machine answers at their address.
    pub sick: &'static [&'static str],
    /// Their BMC does not answer.
    pub dead: &'static [&'static str],
    /// SLA of the stage `discover`, in seconds of engine time; else a day.
    pub sla_s: Option<u64>,
    /// Their BMC does not switch the power.
    pub refuses: &'static [&'static str],
    pub token: Option<&'static str>,
    pub ack_timeout: Option<Duration>,
    pub consoles: Option<farrier::ipmi::Shelf>,
}

/// A running site with its API on a loopback port.
pub struct Served {
    pub url: String,
    pub http: reqwest::Client,
    pub store: Arc<Memory>,
    pub handle: Handle,
    pub ending: tokio::sync::watch::Sender<bool>,
    token_file: Option<tempfile::NamedTempFile>,
    world: Arc<World>,
}

pub fn name(id: u32) -> String {
    format!("n{id:02}")
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| n.to_string()).collect()
}

pub async fn serve(plan: Plan) -> Served {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let store = Arc::new(Memory::default());
    let world = Arc::new(World {
        power: Mutex::default(),
        sick: set(plan.sick),
        dead: Mutex::new(set(plan.dead)),
        refuses: set(plan.refuses),
    });
    let ports = Ports {
        bmc: world.clone(),
        shell: world.clone(),
        cluster: world.clone(),
        boot: world.clone(),
        advertise: world.clone(),
    };
    let clock = Clock::resume(EngineTime(1000), 0, SCALE);
    let settings = Settings { observe_only: false, spread_ms: 1000 };
    let director = Director::new(
        Rules,
        settings,
        Loaded::default(),
        Arc::new(site(plan.sla_s.unwrap_or(86_400))),
        clock.now(),
    );
    let wiring = Wiring { ports, store: store.clone(), clock };
    let (handle, ends) = driver::channels();
    let driver = Driver::new(director, wiring, &handle, ends);
    tokio::spawn(driver.run(std::future::pending()));
    let machines = (1..=plan.machines).map(|id| (MachineId(id), expected(id, &name(id)))).collect();
    handle.inbox.send(Inward::Expect { machines }).await.unwrap();

    let mut state = api::State::new(handle.clone(), store.clone());
    state.site_name = "test site".into();
    state.version = "0.0.0-test".into();
    state.confirm_max = 3;
    state.token = plan.token.map(Secret::new);
    state.consoles = plan.consoles;
    if let Some(timeout) = plan.ack_timeout {
        state.ack_timeout = timeout;
    }
    let (ending, ends) = tokio::sync::watch::channel(false);
    state.ending = ends;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = api::router(state, Default::default());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let http = reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls)
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let token_file = plan.token.map(|token| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), token).unwrap();
        file
    });
    let served = Served { url, http, store, handle, ending, token_file, world };
    let all = plan.machines as usize;
    let durable = move |d: &Director| d.machines().filter(|m| m.seq > 0).count() == all;
    served.until("all machines registered", durable).await;
    served
}

impl Served {
    /// Nothing comes back from these BMCs any more.
    pub fn silence(&self, ids: impl IntoIterator<Item = u32>) {
        self.world.dead.lock().unwrap().extend(ids.into_iter().map(name));
    }

    /// Every BMC answers again.
    pub fn answer(&self) {
        self.world.dead.lock().unwrap().clear();
    }

    /// Somebody turns the power of a machine on or off.
    pub fn switch(&self, id: u32, power: Power) {
        self.world.power.lock().unwrap().insert(MachineId(id), power);
    }

    /// Waits until the engine is in the wanted state.
    pub async fn until(
        &self,
        what: &str,
        question: impl Fn(&Director) -> bool + Clone + Send + 'static,
    ) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let asked = question.clone();
            if self.handle.ask(move |d, _| asked(d)).await == Some(true) {
                return;
            }
            assert!(Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Every machine was looked at for the first time, and nothing is under way.
    pub async fn settled(&self) {
        self.until("all machines discovered", |d| {
            d.machines().all(|m| {
                let known = m.run.is_none() && !m.identity.is_unknown();
                known || m.is_quarantined() || m.is_unreachable()
            })
        })
        .await;
    }

    pub async fn until_machine(
        &self,
        id: u32,
        what: &str,
        question: impl Fn(&Machine) -> bool + Clone + Send + 'static,
    ) {
        let ask = move |d: &Director| d.machine(MachineId(id)).is_some_and(&question);
        self.until(&format!("{} {what}", name(id)), ask).await;
    }

    /// Status and body.
    pub async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)))
    }

    pub async fn post(
        &self,
        path: &str,
        body: &serde_json::Value,
        headers: &[(&str, &str)],
    ) -> (u16, serde_json::Value) {
        let mut request = self.http.post(format!("{}{path}", self.url)).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    /// Runs a whole command line; the exit code and what it said, as a snapshot shows it.
    pub async fn cli(&self, words: &[&str]) -> String {
        let (code, out, err) = self.cli_raw(words).await;
        let mut text = format!("$ farrier {}\n{out}", words.join(" "));
        if !err.is_empty() {
            text += &format!("--- stderr\n{err}");
        }
        if code != 0 {
            text += &format!("--- exit code {code}\n");
        }
        self.steady(&text)
    }

    pub async fn cli_raw(&self, words: &[&str]) -> (u8, String, String) {
        let mut line = vec!["farrier".to_string(), "--by".into(), "ann".into()];
        if !words.contains(&"--api") {
            line.extend(["--api".to_string(), self.url.clone()]);
        }
        if let Some(file) = &self.token_file {
            line.extend(["--token-file".to_string(), file.path().display().to_string()]);
        }
        line.extend(words.iter().map(|w| w.to_string()));
        let cli = match <Cli as clap::Parser>::try_parse_from(line) {
            Ok(cli) => cli,
            Err(e) => return (2, String::new(), e.to_string()),
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let json = cli.global.json;
        let code = {
            let mut io = Io::new(&mut out, &mut err, json, false);
            execute(cli.command, &cli.global, &mut io).await
        };
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// Takes out what differs from run to run.
    pub fn steady(&self, text: &str) -> String {
        let mut text = text.replace(&self.url, "http://API");
        for (pattern, with) in [
            (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d{3}Z", "<time>"),
            (r"\b[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<key>"),
            (r"\b(\d+d\d\dh|\d+h\d\dm|\d+m\d\ds|\d+s|\d+ms)\b {2,}", "<t>  "),
            (r"\b(\d+d\d\dh|\d+h\d\dm|\d+m\d\ds|\d+s|\d+ms)\b", "<t>"),
            (r"(_ms\W+)\d+", "${1}0"),
            (r"\b[0-9a-f]{16}\b", "<hash>"),
            (r"FOR +CONDITION", "FOR  CONDITION"),
            (r"TOOK +ST", "TOOK  ST"),
            (r"(?m) +$", ""),
        ] {
            text = regex::Regex::new(pattern).unwrap().replace_all(&text, with).into_owned();
        }
        text
    }
}
