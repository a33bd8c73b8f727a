//! The engine itself with a Redfish that is dead: IPMI carries the power of a machine on its way to
//! `ready`, against OpenIPMI's ipmi_sim.

use super::openipmi::{Sim, known};
use super::{ByName, program, settings, until};
use farrier::app::fallback::{self, WithFallback};
use farrier::bmc::RedfishBmc;
use farrier::boot::BootServer;
use farrier::cluster::HooksCluster;
use farrier::decide::Rules;
use farrier::engine::Director;
use farrier::engine::clock::Clock;
use farrier::engine::director::Settings;
use farrier::engine::driver::{self, Driver, Wiring};
use farrier::model::time::Span;
use farrier::model::{
    Change, Desired, EngineTime, Entry, Expected, HostEndpoint, MachineId, Outcome, Stage,
};
use farrier::port::store::{Loaded, Store};
use farrier::port::{Advertise, Inward, Ports};
use farrier::shell::SshShell;
use farrier::steps::site::{Profile, Site};
use farrier::steps::workflow::{Retry, StepSpec, Unsupported, When, Workflow};
use farrier::steps::{Step, identify, power};
use farrier::store::SqliteStore;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Engine seconds a second.
const SCALE: u32 = 60;

struct Nowhere;

impl Advertise for Nowhere {
    fn images(&self, _: &Expected) -> Option<String> {
        None
    }
    fn boot(&self, _: &Expected) -> Option<String> {
        None
    }
}

fn site() -> Site {
    let spec = |key: &str, step| StepSpec {
        key: key.into(),
        stage: Stage::Discover,
        step,
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
        steps: vec![
            spec("identify", Step::Identify(identify::Params {})),
            spec("power", Step::Power(power::Params { state: power::Wanted::On })),
        ],
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipmi_carries_the_power_of_a_machine_whose_redfish_is_dead() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let sim = Sim::start(None).await;
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("farrier.db");
    let store = SqliteStore::open(&database, farrier::store::Settings::default()).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let expected = Expected {
        name: "node-1".into(),
        identity: known().into(),
        rack: "r1".into(),
        position: 1,
        pool: "p".into(),
        profile: "p".into(),
        domains: [].into(),
        labels: Default::default(),
        bmc: sim.bmc().endpoint,
        host: HostEndpoint { address: "127.0.0.1:9".into(), ..HostEndpoint::default() },
    };
    let ids = store.expect(std::slice::from_ref(&expected)).await.unwrap();
    let machine: MachineId = ids[0];

    let vault = Arc::new(ByName);
    let (handle, ends) = driver::channels();
    let redfish = Arc::new(RedfishBmc::new(vault.clone(), farrier::bmc::Settings::default()));
    let over = farrier::ipmi::Settings { program: program("ipmitool"), ..settings() };
    let ipmi = Arc::new(farrier::ipmi::IpmiBmc::new(vault.clone(), over));
    let patience =
        fallback::Settings { retry_redfish: Duration::from_secs(2), ..Default::default() };
    let shell = Arc::new(SshShell::new(vault, farrier::shell::Settings::new("ssh", "root")));
    let boot =
        BootServer::open(dir.path(), farrier::boot::Settings::default(), handle.inbox.clone());
    let ports = Ports {
        bmc: Arc::new(WithFallback::new(redfish, ipmi, patience)),
        cluster: Arc::new(HooksCluster::new(BTreeMap::new(), shell.clone())),
        shell,
        boot: Arc::new(boot.unwrap()),
        advertise: Arc::new(Nowhere),
    };
    let clock = Clock::resume(EngineTime(1_000), 0, SCALE);
    let director = Director::new(
        Rules,
        Settings { observe_only: false, spread_ms: 0 },
        Loaded::default(),
        Arc::new(site()),
        clock.now(),
    );
    let wiring = Wiring { ports, store: store.clone(), clock };
    let running =
        tokio::spawn(Driver::new(director, wiring, &handle, ends).run(std::future::pending()));
    let machines = vec![(machine, Arc::new(expected))];
    handle.inbox.send(Inward::Expect { machines }).await.unwrap();
    until(
        "it to be registered",
        async || handle.ask(move |d, _| d.machines().any(|m| m.seq > 0)).await,
        |is| *is == Some(true),
    )
    .await;
    let (ack, acked) = tokio::sync::oneshot::channel();
    let change = Change::Enroll { allow_existing_data: false, desired: Desired::Ready };
    let (by, key) = ("a test".to_string(), "enroll".to_string());
    handle.inbox.send(Inward::Change { machine, change, by, key, ack }).await.unwrap();
    acked.await.unwrap().unwrap();

    let find = move |d: &Director| d.machines().find(|m| m.id == machine).cloned();
    let stage = async || handle.ask(move |d, _| find(d)).await.flatten().map(|m| m.stage);
    until("the machine to be ready", stage, |s| *s == Some(Stage::Ready)).await;
    assert_eq!(sim.read("power").trim(), "1", "it is on");
    let on = sim.set().into_iter().filter(|l| l == "set power 1").count();
    assert_eq!(on, 1, "{:?}", sim.set());
    let history = store.history(machine, 0, 1_000).await.unwrap();
    let over_ipmi = history.iter().any(|l| match &l.entry {
        Entry::Settled { outcome: Outcome::Applied { handle: Some(handle) } } => {
            handle.starts_with(fallback::HANDLE)
        }
        _ => false,
    });
    assert!(over_ipmi, "the journal says over what it went: {history:#?}");
    let quarantined = history.iter().any(|l| matches!(l.entry, Entry::Quarantined { .. }));
    assert!(!quarantined, "{history:#?}");
    running.abort();
}
