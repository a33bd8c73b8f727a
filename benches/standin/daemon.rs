//! The daemon with stand-in edges: the real director, driver, store (on disk, `synchronous=FULL`)
//! and HTTP API in a process of its own. With `bmcs`, the BMC edge is the real one as well.

use super::metal::Metals;
use axum::Json;
use axum::extract::{Query, State as Of};
use axum::routing::{get, post};
use farrier::api;
use farrier::bmc::RedfishBmc;
use farrier::decide::Rules;
use farrier::engine::Director;
use farrier::engine::clock::Clock;
use farrier::engine::director::Settings;
use farrier::engine::driver::{self, Driver, Handle, Wiring};
use farrier::model::time::Span;
use farrier::model::*;
use farrier::port::store::Store;
use farrier::port::{Credential, Inward, Ports, Secret, Vault};
use farrier::steps::site::{Profile, Site};
use farrier::steps::workflow::{Retry, StepSpec, Unsupported, When, Workflow};
use farrier::steps::{Step, identify, inventory, power, provision};
use farrier::store::{self, SqliteStore};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// So long that no clock of a step or a health probe comes in between, however fast engine time
/// runs.
const NEVER: Span = Span(1 << 50);

/// As many steps as enroll → manage → provide → deploy has phases: verified, inspected, deployed,
/// switched on. `deploy` alone is up to five actions, each with its intent and its observed result.
pub(crate) fn workflow(deploys: bool) -> Workflow {
    let spec = |stage, key: &str, step| StepSpec {
        key: key.into(),
        stage,
        step,
        timeout: NEVER,
        stall: NEVER,
        usual: Span(0),
        retry: Retry::default(),
        unsupported: Unsupported::Quarantine,
        when: When::default(),
    };
    let mut steps =
        vec![spec(Stage::Discover, "verify", Step::Identify(identify::Params::default()))];
    if deploys {
        let state = power::Wanted::On;
        let deploy = provision::Params { deadline: NEVER };
        steps.extend([
            spec(Stage::Discover, "inspect", Step::Inventory(inventory::Params::default())),
            spec(Stage::Provision, "deploy", Step::Provision(deploy)),
            spec(Stage::Join, "on", Step::Power(power::Params { state })),
        ]);
    }
    Workflow { name: "bench".into(), watch: NEVER, sla: BTreeMap::new(), steps }
}

fn site(incarnation: Arc<str>, deploys: bool) -> Arc<Site> {
    let workflow = workflow(deploys);
    let hash = workflow.hash();
    let profile = Profile {
        name: "p".into(),
        workflow: hash.clone(),
        image: Some("image".into()),
        ..Profile::default()
    };
    Arc::new(Site {
        incarnation,
        profiles: BTreeMap::from([("p".into(), Arc::new(profile))]),
        workflows: BTreeMap::from([(hash, Arc::new(workflow))]),
        ..Site::default()
    })
}

/// Machine `n` (from 0) as the inventory has it, in the numbering of the peer's mock BMCs.
pub(crate) fn expected(n: u32) -> Expected {
    let uuid = format!("00000000-0000-4000-8000-{n:012}");
    Expected {
        name: format!("n{n:06}").into(),
        identity: Identity::new(Some(&format!("SN{n:06}")), Some(&uuid), None).into(),
        rack: "r".into(),
        position: 1,
        pool: "pool".into(),
        profile: "p".into(),
        domains: [].into(),
        labels: Default::default(),
        bmc: BmcEndpoint {
            url: format!("http://127.{}.{}.{}:18000", 1 + n / 62_500, n / 250 % 250, 1 + n % 250)
                .into(),
            credential: "bmc".into(),
            tls: "off".into(),
            ipmi: None,
            controllers: Default::default(),
        },
        host: HostEndpoint::default(),
    }
}

struct Password;

#[async_trait::async_trait]
impl Vault for Password {
    async fn credential(&self, _: &str) -> Result<Credential, Fault> {
        Ok(Credential { user: "admin".into(), password: Secret::new("password") })
    }

    async fn ssh_key(&self, _: &str) -> Result<Secret, Fault> {
        unreachable!("hosts are stand-ins")
    }
}

#[derive(Clone)]
struct Shared {
    engine: Handle,
    store: Arc<dyn Store>,
}

/// Serves until it is killed. `scale`: engine time runs that many times faster, so that the pauses
/// after an action (2 s on real machines) are not what is measured.
pub(crate) fn run(dir: &Path, port: u16, scale: u32, bmcs: bool) {
    // As `farrier serve` does with a site of this size.
    farrier::app::pages::for_reading(&[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let opened = SqliteStore::open(&dir.join("farrier.db"), store::Settings::default()).await;
        let store: Arc<dyn Store> = Arc::new(opened.unwrap());
        let held = store.load().await.unwrap();
        let site = site(held.state.incarnation.clone(), !bmcs);
        for (hash, workflow) in &site.workflows {
            store.keep_workflow(hash, &serde_json::to_string(workflow).unwrap()).await.unwrap();
        }
        let clock = Clock::resume(held.state.engine_time, held.state.wall_ms, scale);
        let (handle, ends) = driver::channels();
        let metals = Arc::new(Metals::open(&dir.join("metal.jsonl")));
        let ports = Ports {
            bmc: match bmcs {
                true => Arc::new(RedfishBmc::new(Arc::new(Password), Default::default())),
                false => metals.clone(),
            },
            shell: metals.clone(),
            cluster: metals.clone(),
            boot: metals.clone(),
            advertise: metals,
        };
        let director = Director::new(Rules, Settings::default(), held, site, clock.now());
        let wiring = Wiring { ports, store: store.clone(), clock };
        let driver = Driver::new(director, wiring, &handle, ends);
        let shared = Shared { engine: handle.clone(), store: store.clone() };
        let own = axum::Router::new()
            .route("/bench/expect", post(take_in))
            .route("/bench/poke", post(poke))
            .route("/bench/seen", get(seen))
            .with_state(shared);
        let router = api::router(api::State::new(handle, store), Default::default()).merge(own);
        let socket = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        tokio::spawn(async move { axum::serve(socket, router).await });
        driver.run(std::future::pending()).await.unwrap();
    });
}

type Asked = Query<BTreeMap<String, u64>>;

/// `?n=`: takes that many machines in, as a reload of an inventory does.
async fn take_in(Of(shared): Of<Shared>, Query(asked): Asked) -> Json<Value> {
    let lines: Vec<Expected> = (0..u32::try_from(asked["n"]).unwrap()).map(expected).collect();
    let ids = shared.store.expect(&lines).await.unwrap();
    let machines = ids.into_iter().zip(lines.into_iter().map(Arc::new)).collect();
    shared.engine.inbox.send(Inward::Expect { machines }).await.unwrap();
    Json(json!({}))
}

/// Every machine is looked at now; answers the engine's time.
async fn poke(Of(shared): Of<Shared>) -> Json<Value> {
    let question =
        |d: &Director, now: EngineTime| (now.0, d.machines().map(|m| m.id).collect::<Vec<_>>());
    let (now, machines) = shared.engine.ask(question).await.unwrap();
    for machine in machines {
        shared.engine.inbox.send(Inward::Poke { machine }).await.unwrap();
    }
    Json(json!({ "now": now }))
}

/// `?since=`: how many machines were read after that engine time, `?seq=`: and how many rows are
/// past that entry; how many of each condition.
async fn seen(Of(shared): Of<Shared>, Query(asked): Asked) -> Json<Value> {
    let of = |key: &str| asked.get(key).copied().unwrap_or(0);
    let (since, seq) = (EngineTime(of("since")), of("seq"));
    let question = move |d: &Director, _: EngineTime| {
        let read = |m: &&Machine| d.times(m.id).is_some_and(|(at, _)| at > since);
        let mut conditions: BTreeMap<String, usize> = BTreeMap::new();
        for m in d.machines() {
            *conditions.entry(m.condition.name().into()).or_default() += 1;
        }
        json!({
            "read": d.machines().filter(read).count(),
            "moved": d.machines().filter(|m| m.seq > seq).count(),
            "conditions": conditions,
        })
    };
    Json(shared.engine.ask(question).await.unwrap())
}
