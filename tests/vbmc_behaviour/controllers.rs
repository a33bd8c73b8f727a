//! A machine whose HGX baseboard has a BMC at an address of its own: the engine itself brings both to
//! their versions over two wires, and each is flashed and restarted once.

use super::site::{OneCredential, Site, edge, identity, own, shipped, until};
use axum::Router;
use axum::routing::get;
use farrier::app::access::{Access, Guarded};
use farrier::boot::BootServer;
use farrier::cluster::HooksCluster;
use farrier::config::shipped::VIRTUAL_IMAGES;
use farrier::decide::Rules;
use farrier::engine::Director;
use farrier::engine::clock::Clock;
use farrier::engine::director::Settings;
use farrier::engine::driver::{self, Driver, Handle, Wiring};
use farrier::model::time::Span;
use farrier::model::{
    Action, BmcEndpoint, Change, Condition, Controllers, Desired, EngineTime, Entry, Expected,
    Fault, FaultClass, Further, FurtherKind, HostEndpoint, Machine, MachineId, Outcome, Stage,
};
use farrier::port::store::{Loaded, Store};
use farrier::port::{Advertise, Inward, Ports};
use farrier::shell::SshShell;
use farrier::sim::serve::Behaviour;
use farrier::sim::truth::What;
use farrier::steps::catalog::{Activation, Catalog, Family, Firmware, FirmwareSet, SetStatus};
use farrier::steps::site::{Profile, Site as Rulebook};
use farrier::steps::version::Scheme;
use farrier::steps::workflow::{Retry, StepSpec, Unsupported, When, Workflow};
use farrier::steps::{Step, firmware, identify};
use farrier::store::SqliteStore;
use farrier::store::credentials::{Pin, Pins};
use regex::Regex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Engine seconds a second, and world seconds.
const SCALE: u32 = 60;
const FILE: &str = "farrier/virtual-bmc-7.20.bin";

/// Where images are.
struct At(String);

impl Advertise for At {
    fn images(&self, _: &Expected) -> Option<String> {
        Some(self.0.clone())
    }
    fn boot(&self, _: &Expected) -> Option<String> {
        None
    }
}

async fn images() -> String {
    let bytes = VIRTUAL_IMAGES.iter().find(|(path, _)| *path == FILE).unwrap().1;
    let router = Router::new()
        .route(&format!("/firmware/{FILE}"), get(move || async move { bytes.to_vec() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(tokio::spawn(async move { axum::serve(listener, router).await }));
    url
}

fn image(component: &str, pattern: &str) -> Firmware {
    Firmware {
        id: component.into(),
        component: component.into(),
        inventory_id: Regex::new(pattern).unwrap(),
        version: "7.20".into(),
        scheme: Scheme::Dotted,
        version_regex: None,
        min_version: None,
        blocked_versions: vec![],
        file: FILE.into(),
        size: 1600,
        sha256: "00".repeat(32),
        activation: Activation::BmcReset,
        verify_timeout: Span(1_200_000),
        allow_downgrade: false,
        method: Default::default(),
    }
}

fn rulebook() -> Rulebook {
    let spec = |key: &str, stage, step| StepSpec {
        key: key.into(),
        stage,
        step,
        timeout: Span(14_400_000),
        stall: Span(3_600_000),
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
            spec("identify", Stage::Discover, Step::Identify(identify::Params {})),
            spec("firmware", Stage::Firmware, Step::Firmware(firmware::Params {})),
        ],
    };
    let hash = workflow.hash();
    let profile = Profile {
        name: "p".into(),
        workflow: hash.clone(),
        firmware_set: Some("s".into()),
        ..Profile::default()
    };
    let set = FirmwareSet {
        status: SetStatus::Approved,
        firmware: vec![image("hgx-bmc", "^hgx:BMC$"), image("bmc", "^BMC$")],
    };
    let family = Family {
        file: "v.toml".into(),
        manufacturer: vec![Regex::new("^Farrier$").unwrap()],
        model: vec![Regex::new("^Virtual GPU node").unwrap()],
        sets: BTreeMap::from([("s".to_string(), set)]),
    };
    Rulebook {
        incarnation: "abcd1234".into(),
        catalog: Catalog { families: vec![family] },
        profiles: BTreeMap::from([("p".into(), Arc::new(profile))]),
        workflows: BTreeMap::from([(hash, Arc::new(workflow))]),
        ..Rulebook::default()
    }
}

/// What machine 2's BMC shows itself as.
const BOARD: &str = "[ids]\nsystem = \"HGX_Baseboard_0\"\nmanager = \"HGX_BMC_0\"\n";

/// Machine 1 with machine 2's BMC as the one of its baseboard.
fn expected(site: &Site) -> Expected {
    let hgx = Further {
        name: "hgx".into(),
        kind: FurtherKind::Hgx,
        url: site.serving.bmc_url(site.seat(2)).into(),
        credential: "hgx".into(),
        tls: "off".into(),
        serial: identity(2).serial.as_deref().map(Into::into),
        barred: None,
    };
    Expected {
        name: "node-1".into(),
        identity: identity(1).into(),
        rack: "r1".into(),
        position: 1,
        pool: "p".into(),
        profile: "p".into(),
        domains: [].into(),
        labels: Default::default(),
        bmc: BmcEndpoint { controllers: Controllers::from(vec![hgx]), ..site.target(1).endpoint },
        host: HostEndpoint { address: "127.0.0.1:9".into(), ..HostEndpoint::default() },
    }
}

/// The engine over one machine with two wires.
struct Engine {
    machine: MachineId,
    handle: Handle,
    store: Arc<SqliteStore>,
    pins: Pins,
    running: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Engine {
    /// Its BMCs are reached by the passwords and certificates that count, as in the daemon.
    async fn start(expected: Expected) -> Engine {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("farrier.db");
        let kept = SqliteStore::open(&database, farrier::store::Settings::default()).await.unwrap();
        let kept = Arc::new(kept);
        let store: Arc<dyn Store> = kept.clone();
        let machine = store.expect(std::slice::from_ref(&expected)).await.unwrap()[0];
        let pins = kept.pins().await.unwrap();
        let access = Access::new(kept.secrets(None).await.unwrap(), pins.clone());

        let (handle, ends) = driver::channels();
        let shell =
            SshShell::new(Arc::new(OneCredential), farrier::shell::Settings::new("ssh", "root"));
        let shell = Arc::new(shell);
        let boot =
            BootServer::open(dir.path(), farrier::boot::Settings::default(), handle.inbox.clone());
        let ports = Ports {
            bmc: Arc::new(Guarded::new(Arc::new(edge(5_000)), access)),
            cluster: Arc::new(HooksCluster::new(BTreeMap::new(), shell.clone())),
            shell,
            boot: Arc::new(boot.unwrap()),
            advertise: Arc::new(At(images().await)),
        };
        let clock = Clock::resume(EngineTime(1_000), 0, SCALE);
        let director = Director::new(
            Rules,
            Settings { observe_only: false, spread_ms: 0 },
            Loaded::default(),
            Arc::new(rulebook()),
            clock.now(),
        );
        let wiring = Wiring { ports, store, clock };
        let driver = Driver::new(director, wiring, &handle, ends);
        let running = tokio::spawn(async move {
            driver.run(std::future::pending()).await.ok();
        });
        handle
            .inbox
            .send(Inward::Expect { machines: vec![(machine, Arc::new(expected))] })
            .await
            .unwrap();
        until("the machine to be registered", || async {
            handle.ask(move |d, _| d.machines().any(|m| m.seq > 0)).await.filter(|is| *is)
        })
        .await;
        let (ack, acked) = tokio::sync::oneshot::channel();
        let change = Change::Enroll { allow_existing_data: false, desired: Desired::Ready };
        let (by, key) = ("a test".to_string(), "enroll".to_string());
        handle.inbox.send(Inward::Change { machine, change, by, key, ack }).await.unwrap();
        acked.await.unwrap().unwrap();
        Engine { machine, handle, store: kept, pins, running, _dir: dir }
    }

    async fn row<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Machine) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let id = self.machine;
        self.handle.ask(move |d, _| d.machine(id).and_then(look)).await.flatten()
    }

    async fn until_ready(&self) {
        until("the machine to be ready", || {
            self.row(|m| (m.stage == Stage::Ready && m.run.is_none()).then_some(()))
        })
        .await;
    }

    /// What it waits for is a person's word about this certificate.
    async fn until_unaccepted(&self, whose: &'static str) {
        until(whose, || {
            self.row(move |m| m.waiting.as_deref().filter(|w| w.contains(whose)).map(drop))
        })
        .await;
    }

    /// What is shown at `url` now is accepted.
    async fn accept(&self, place: &str, url: &str) {
        let edge = edge(5_000);
        let shown = until("a certificate", || async { edge.certificate(url).await.ok() }).await;
        let pin = Pin {
            place: place.into(),
            sha256: shown.sha256,
            subject: shown.subject,
            by: "a test".into(),
            why: "compared".into(),
            set_ms: 1,
        };
        self.pins.set(&[pin]).await.unwrap();
        self.handle.inbox.send(Inward::Poke { machine: self.machine }).await.unwrap();
    }

    async fn history(&self) -> Vec<Entry> {
        let lines = self.store.history(self.machine, 0, 1_000).await.unwrap();
        lines.into_iter().map(|l| l.entry).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_baseboard_at_an_address_of_its_own_is_flashed_and_restarted_there() {
    let board = own(BOARD).remove(0);
    let profiles = vec![shipped(&["clean"]).remove(0), board];
    let site = Site::start(SCALE, 2, Behaviour { profiles, ..Behaviour::default() }).await;
    let engine = Engine::start(expected(&site)).await;
    let restarts = |n: usize| site.truth(n, |e| e.what == What::BmcReset);
    until("the baseboard to be flashed", || async { (site.flashes(2) > 0).then_some(()) }).await;
    until("its BMC to restart", || async { (restarts(2) > 0).then_some(()) }).await;
    until("the host's BMC to be flashed", || async { (site.flashes(1) > 0).then_some(()) }).await;
    until("the host's BMC to restart", || async { (restarts(1) > 0).then_some(()) }).await;
    engine.until_ready().await;
    for n in [1, 2] {
        assert_eq!((site.flashes(n), restarts(n)), (1, 1), "machine {n}");
        let bmc = site.get(n, "/redfish/v1/UpdateService/FirmwareInventory/BMC").await;
        assert_eq!(bmc["Version"], "7.20", "machine {n}");
    }
    let history = engine.history().await;
    let wanted: Vec<String> = history
        .iter()
        .filter_map(|entry| match entry {
            Entry::Intent { action: Action::UpdateFirmware { inventory_id, .. }, .. } => {
                Some(format!("flash {inventory_id}"))
            }
            Entry::Intent { action: Action::BmcReset { controller }, .. } => {
                Some(format!("restart {}", controller.as_deref().unwrap_or("the BMC")))
            }
            Entry::Settled { outcome: Outcome::Applied { handle: Some(handle) } } => Some(
                if handle.starts_with("hgx:/redfish/v1/") { "at hgx" } else { "at the BMC" }.into(),
            ),
            _ => None,
        })
        .collect();
    assert_eq!(
        wanted,
        ["flash hgx:BMC", "at hgx", "restart hgx", "flash BMC", "at the BMC", "restart the BMC"]
    );
    let quarantined = history.iter().any(|e| matches!(e, Entry::Quarantined { .. }));
    assert!(!quarantined, "{history:#?}");
    engine.running.abort();
}

/// Both with `tls = "pin"`, on BMCs that make a new certificate at each reboot: what Farrier's own update
/// changed is a person's to accept and no fault; somebody else's reset of the baseboard's BMC is one, and it
/// names the baseboard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_baseboards_new_certificate_is_put_down_to_our_own_update_and_to_nothing_else() {
    const NEW: &str = "[tls]\ncertificate = \"new-each-reboot\"\n";
    let profiles = vec![own(NEW).remove(0), own(&format!("{BOARD}{NEW}")).remove(0)];
    let site = Site::start(SCALE, 2, Behaviour { profiles, ..Behaviour::default() }).await;
    let mut expected = expected(&site);
    expected.bmc.tls = "pin".into();
    expected.bmc.controllers.change(|c| c.tls = "pin".into());
    let url = |n: usize| site.serving.bmc_url(site.seat(n));
    let engine = Engine::start(expected).await;
    engine.until_unaccepted("accept the BMC's certificate").await;
    engine.accept("node-1", &url(1)).await;
    // Its baseboard keeps nobody from the host: the step that needs it waits for it.
    engine.until_unaccepted("accept the certificate of controller `hgx`").await;
    engine.accept("node-1/hgx", &url(2)).await;
    engine.until_unaccepted("accept the new certificate of controller `hgx`").await;
    assert_eq!((site.flashes(2), site.flashes(1)), (1, 0), "its own update did it");
    engine.accept("node-1/hgx", &url(2)).await;
    engine.until_unaccepted("accept the BMC's new certificate").await;
    assert_eq!((site.flashes(2), site.flashes(1)), (1, 1));
    engine.accept("node-1", &url(1)).await;
    engine.until_ready().await;
    let quarantined = |all: &[Entry]| all.iter().any(|e| matches!(e, Entry::Quarantined { .. }));
    let history = engine.history().await;
    assert!(!quarantined(&history), "{history:#?}");
    site.seat(2).with(site.now(), |b| b.vm.reset_bmc_by_hand(site.now()));
    let fault = until("it is seen", || {
        engine.row(|m| match &m.condition {
            Condition::Quarantined { fault, .. } => Some(Fault::clone(fault)),
            _ => None,
        })
    })
    .await;
    assert_eq!((fault.class, &*fault.code), (FaultClass::Identity, "certificate-changed"));
    assert!(fault.message.contains("controller `hgx`"), "{fault}");
    engine.running.abort();
}
