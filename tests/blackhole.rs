//! BMCs that take a connection and never answer, or drop it on the floor, must not slow the others:
//! a real engine with the real Redfish edge over more dead BMCs than it has places for probes.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real sockets, and waits for conditions with a deadline"
)]

use async_trait::async_trait;
use farrier::bmc::{RedfishBmc, Settings as BmcSettings};
use farrier::decide::Rules;
use farrier::engine::Director;
use farrier::engine::clock::Clock;
use farrier::engine::director::Settings;
use farrier::engine::driver::{self, Driver, Wiring};
use farrier::model::action::HookVerb;
use farrier::model::facts::{HostFacts, JobFacts, Membership, WindowFacts};
use farrier::model::time::Span;
use farrier::model::*;
use farrier::port::store::*;
use farrier::port::*;
use farrier::sim::durations::Durations;
use farrier::sim::faults::Dice;
use farrier::sim::physics::Quirks;
use farrier::sim::serve::{self, Berth, Hosts, Latency};
use farrier::steps::Step;
use farrier::steps::identify;
use farrier::steps::site::{Profile, Site};
use farrier::steps::workflow::{Retry, StepSpec, Unsupported, When, Workflow};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const HEALTHY: u32 = 50;
/// More than the driver has places for probes. They come first in every queue.
const DEAD: u32 = 1_200;
/// Reads of each healthy machine that the test waits for.
const READS: usize = 3;
/// Engine seconds a second: the healthy are due again after two seconds.
const SCALE: u32 = 30;
const PASSWORD: &str = "a-password";

/// Every port but the BMC: nobody is there.
struct Nobody;

fn away(channel: Channel) -> Fault {
    Fault::no_answer(channel, "nobody is there")
}

#[async_trait]
impl Vault for Nobody {
    async fn credential(&self, _: &str) -> Result<Credential, Fault> {
        Ok(Credential { user: "admin".into(), password: Secret::new(PASSWORD) })
    }
    async fn ssh_key(&self, _: &str) -> Result<Secret, Fault> {
        Err(away(Channel::Host))
    }
}

#[async_trait]
impl Shell for Nobody {
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
impl Cluster for Nobody {
    async fn membership(&self, _: &Node) -> Result<Membership, Fault> {
        Err(away(Channel::Cluster))
    }
    async fn act(&self, _: &Node, _: &Expect, _: HookVerb) -> Outcome {
        Outcome::Failed { fault: away(Channel::Cluster) }
    }
}

#[async_trait]
impl Boot for Nobody {
    async fn window(&self, _: MachineId, _: &str) -> Result<WindowFacts, Fault> {
        Ok(WindowFacts::default())
    }
    async fn open(&self, _: &WindowOrder) -> Outcome {
        Outcome::Failed { fault: away(Channel::Boot) }
    }
    async fn close(&self, _: &str) -> Outcome {
        Outcome::Failed { fault: away(Channel::Boot) }
    }
}

impl Advertise for Nobody {
    fn images(&self, _: &Expected) -> Option<String> {
        None
    }
    fn boot(&self, _: &Expected) -> Option<String> {
        None
    }
}

/// Takes everything and remembers nothing: nothing is read back here.
struct Forgetful;

#[async_trait]
impl Store for Forgetful {
    async fn load(&self) -> Result<Loaded, StoreError> {
        Ok(Loaded::default())
    }
    async fn commit(
        &self,
        batch: &[CommitItem],
        _: EngineTime,
        _: u64,
    ) -> Result<Vec<Committed>, StoreError> {
        Ok(vec![Committed::Durable; batch.len()])
    }
    async fn expect(&self, _: &[Expected]) -> Result<Vec<MachineId>, StoreError> {
        Ok(vec![])
    }
    async fn keep_workflow(&self, _: &str, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
    async fn set_stopped(&self, _: Option<&Stopped>, _: EngineTime) -> Result<(), StoreError> {
        Ok(())
    }
    async fn facts(&self, _: MachineId) -> Result<Option<Report>, StoreError> {
        Ok(None)
    }
    async fn history(&self, _: MachineId, _: u64, _: u32) -> Result<Vec<HistoryLine>, StoreError> {
        Ok(vec![])
    }
}

/// Nobody logs in to a host here.
fn public_key() -> String {
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&[7; 32]));
    PrivateKey::new(pair, "test").unwrap().public_key().to_openssh().unwrap()
}

fn identity(id: u32) -> Identity {
    Identity::new(Some(&format!("SN{id:05}")), None, None)
}

fn site() -> Site {
    let identify = StepSpec {
        key: "identify".into(),
        stage: Stage::Discover,
        step: Step::Identify(identify::Params {}),
        timeout: Span(3_600_000),
        stall: Span(900_000),
        usual: Span(0),
        retry: Retry::default(),
        unsupported: Unsupported::Quarantine,
        when: When::default(),
    };
    let workflow = Workflow {
        name: "w".into(),
        watch: Span(60_000),
        sla: Default::default(),
        steps: vec![identify],
    };
    let hash = workflow.hash();
    let profile = Profile { name: "p".into(), workflow: hash.clone(), ..Profile::default() };
    Site {
        incarnation: "abcd1234".into(),
        profiles: BTreeMap::from([("p".into(), Arc::new(profile))]),
        workflows: BTreeMap::from([(hash, Arc::new(workflow))]),
        ..Site::default()
    }
}

fn expected(id: u32, url: String) -> (MachineId, Arc<Expected>) {
    let expected = Expected {
        name: format!("n{id:04}").as_str().into(),
        identity: identity(id).into(),
        rack: "r1".into(),
        position: 1,
        pool: "p".into(),
        profile: "p".into(),
        domains: [].into(),
        labels: Default::default(),
        bmc: BmcEndpoint {
            url: url.into(),
            credential: "bmc".into(),
            tls: "off".into(),
            ipmi: None,
            controllers: Default::default(),
        },
        host: HostEndpoint::default(),
    };
    (MachineId(id), Arc::new(expected))
}

/// Takes every connection, reads what comes and never says a word.
async fn mute() -> (String, Arc<Mutex<Vec<TcpStream>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let held = Arc::new(Mutex::new(Vec::new()));
    let keep = held.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            keep.lock().unwrap().push(stream);
        }
    });
    (url, held)
}

/// A listener that nobody serves: once its queue of one is full, the kernel drops what comes.
fn dropping() -> (String, TcpListener) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    (format!("http://{}", listener.local_addr().unwrap()), listener)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn black_holes_do_not_slow_the_others() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    farrier::app::descriptors::raise(4_000).expect("descriptors for the black holes");
    let dir = tempfile::tempdir().unwrap();
    // Numbers above those of the dead: whoever is due at the same time comes after them.
    let berths = (1..=HEALTHY).map(|n| Berth {
        id: MachineId(DEAD + n),
        name: format!("h{n}").as_str().into(),
        identity: identity(DEAD + n),
        gpus: 0,
        quirks: Quirks::default(),
        sick: None,
        user: "admin".into(),
        password: PASSWORD.into(),
        dice: Dice::none(),
    });
    let serving = serve::serve(serve::Settings {
        dir: dir.path().to_path_buf(),
        seed: 1,
        scale: SCALE,
        durations: Durations::default(),
        latency: Latency::Even(0, 2),
        hosts: Hosts::Scripted,
        authorized_key: public_key(),
        redfish_port: 0,
        ssh_port: 0,
        machines: berths.collect(),
    })
    .await
    .unwrap();
    let (mute_url, held) = mute().await;
    let (drop_url, _full) = dropping();
    let dead = (1..=DEAD).map(|id| {
        let url = if id % 2 == 0 { mute_url.clone() } else { drop_url.clone() };
        expected(id, url)
    });
    let seats = serving.world.seats.iter();
    let healthy = seats.zip(1..).map(|(seat, n)| expected(DEAD + n, serving.bmc_url(seat)));
    let machines: Vec<_> = dead.chain(healthy).collect();

    // Both kinds of dead are given up only after a minute, long after the test's condition.
    let settings = BmcSettings { connect_timeout_ms: 60_000, ..BmcSettings::default() };
    let nobody = Arc::new(Nobody);
    let ports = Ports {
        bmc: Arc::new(RedfishBmc::new(nobody.clone(), settings)),
        shell: nobody.clone(),
        cluster: nobody.clone(),
        boot: nobody.clone(),
        advertise: nobody,
    };
    let clock = Clock::resume(EngineTime(1_000), 0, SCALE);
    let (handle, ends) = driver::channels();
    let director = Director::new(
        Rules,
        Settings { observe_only: true, spread_ms: 0 },
        Loaded::default(),
        Arc::new(site()),
        clock.now(),
    );
    let wiring = Wiring { ports, store: Arc::new(Forgetful), clock };
    let driver = Driver::new(director, wiring, &handle, ends);
    let running = tokio::spawn(driver.run(std::future::pending()));
    handle.inbox.send(Inward::Expect { machines }).await.unwrap();

    // When each machine was read, as often as the test looks.
    let mut reads: BTreeMap<u32, BTreeSet<EngineTime>> = BTreeMap::new();
    let deadline = Instant::now() + Duration::from_secs(55);
    loop {
        let seen = handle
            .ask(|d, _| {
                let ids = (1..=DEAD + HEALTHY).map(MachineId);
                ids.filter_map(|id| Some((id.0, d.times(id)?.0))).collect::<Vec<_>>()
            })
            .await
            .expect("the engine runs");
        for (id, at) in seen.into_iter().filter(|(_, at)| *at > EngineTime::ZERO) {
            reads.entry(id).or_default().insert(at);
        }
        let done = |id: u32| reads.get(&id).is_some_and(|at| at.len() >= READS);
        if (DEAD + 1..=DEAD + HEALTHY).all(done) {
            break;
        }
        let slow = (DEAD + 1..=DEAD + HEALTHY).filter(|id| !done(*id)).count();
        assert!(
            Instant::now() < deadline,
            "{slow} of {HEALTHY} healthy machines wait for the dead"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // All that while not one probe of a dead BMC had come back: the healthy ones waited for none.
    let answered = reads.keys().filter(|id| **id <= DEAD).count();
    assert_eq!(answered, 0, "probes of black holes ended before those of the healthy");
    assert!(held.lock().unwrap().len() > 100, "the black holes were really called");
    running.abort();
    serving.stop().await;
}
