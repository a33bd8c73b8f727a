//! Who a BMC is that answered a scan: one login, and what only that tells. By the scan itself, or by the
//! daemon for it (`POST /v1/discover/identify`), which has the credentials and never says one: it is told
//! addresses, looks for itself who answers there, and logs in to nobody else.

use super::access::{Access, Guarded};
use super::current::Current;
use super::discover::by_mac;
use super::orders;
use crate::api::problem::Body;
use crate::bmc::RedfishBmc;
use crate::engine::driver;
use crate::model::identity::Match;
use crate::model::{Expected, Fault, Identity, MachineId};
use crate::port::{Bmc, BmcTarget, Vault};
use crate::scan::reconcile::{Kind, reconcile};
use crate::scan::{self, Range};
use crate::store::SqliteStore;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Mutex;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Logins at once, and addresses that one order of a scan has: it waits for the answer.
pub const LOGINS: usize = 8;
/// Addresses that an order may have.
const MOST: usize = 32;
/// Longest time for one of the two reads behind a login: the one who asks waits for a minute.
const READ_MS: u64 = 20_000;

/// What one login told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum Identified {
    Same {
        serial: Option<String>,
        uuid: Option<String>,
        mac: Option<String>,
    },
    Differs {
        part: String,
        expected: String,
        found: String,
    },
    /// Nothing the inventory says of it is known to the BMC.
    Unknown,
    Failed {
        why: String,
    },
    /// No credential was sent.
    NotAsked {
        why: String,
    },
}

/// Logs in where what answers has shown that it is this machine, once, and compares.
pub async fn compare(
    edge: &dyn Bmc,
    id: MachineId,
    machine: &Expected,
    line: &scan::reconcile::Line,
) -> Identified {
    let not = |why: &str| Identified::NotAsked { why: why.to_string() };
    let url = match (line.kind, line.found.as_ref().and_then(|f| f.redfish.as_ref())) {
        (Kind::Expected | Kind::Moved, Some(redfish)) => &redfish.url,
        (Kind::Twice, _) => return not("its UUID answers at two addresses"),
        (Kind::Mismatch, _) => return not("what it shows is another machine's"),
        _ => return not("nothing it shows before a login says that it is this machine"),
    };
    if url.starts_with("http://") && !machine.bmc.url.starts_with("http://") {
        return not("it answers without TLS, and the inventory has https");
    }
    let target = BmcTarget {
        machine: id,
        name: machine.name.clone(),
        endpoint: crate::model::BmcEndpoint { url: url.as_str().into(), ..machine.bmc.clone() },
        identity: (*machine.identity).clone(),
    };
    let read = read(edge, &target, machine).await;
    // Whatever came of it: a session that stays behind is one of few.
    edge.end_sessions(&target).await;
    read.unwrap_or_else(|fault| Identified::Failed { why: fault.to_string() })
}

async fn read(edge: &dyn Bmc, target: &BmcTarget, machine: &Expected) -> Result<Identified, Fault> {
    let wanted = &machine.identity;
    let found = edge.system(target).await?.identity;
    let no_mac = Identity { mac: None, ..found.clone() };
    if let Match::Differs { part, expected, found } = wanted.compare(&no_mac) {
        return Ok(Identified::Differs { part: part.into(), expected, found });
    }
    let mut mac = None;
    if let Some(wanted) = &wanted.mac {
        let nics = edge.inventory(target).await?.nics;
        let macs: Vec<String> = nics.into_iter().filter_map(|n| n.mac).collect();
        if macs.iter().any(|m| **m == **wanted) {
            mac = Some(wanted.to_string());
        } else if !macs.is_empty() {
            return Ok(Identified::Differs {
                part: "mac".into(),
                expected: wanted.to_string(),
                found: macs.join(", "),
            });
        }
    }
    if mac.is_none() && wanted.compare(&no_mac) == Match::Unknown {
        return Ok(Identified::Unknown);
    }
    let text = |t: Option<&str>| t.map(str::to_string);
    Ok(Identified::Same {
        serial: text(found.serial.as_deref()),
        uuid: text(found.uuid.as_deref()),
        mac,
    })
}

/// What the route works with.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Beside the engine's own edge, whose sessions and links are not disturbed; it lasts, so that it
    /// remembers which logins were refused.
    edge: Arc<Guarded>,
    engine: driver::Handle,
    current: Current,
    store: SqliteStore,
    /// One order at a time: no machine is logged in to twice.
    turn: Arc<Mutex<()>>,
}

impl Desk {
    pub fn new(
        vault: Arc<dyn Vault>,
        access: Access,
        engine: driver::Handle,
        current: Current,
        store: SqliteStore,
        ca_pem: Option<String>,
    ) -> Self {
        let settings = crate::bmc::Settings {
            ca_pem,
            quirks: current.get().quirks.clone(),
            total_read_ms: READ_MS,
            ..crate::bmc::Settings::default()
        };
        let edge = Arc::new(Guarded::new(Arc::new(RedfishBmc::new(vault, settings)), access));
        Self { edge, engine, current, store, turn: Arc::default() }
    }
}

/// `POST /v1/discover/identify`.
pub fn router() -> OpenApiRouter<Desk> {
    OpenApiRouter::new().routes(routes!(identify))
}

/// Where somebody has found BMCs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = IdentifyOrder)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// 1 to 32, within `[discovery] ranges`.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    #[serde(default = "https")]
    pub https_port: u16,
    #[serde(default = "http")]
    pub http_port: u16,
    #[serde(default = "ipmi")]
    pub ipmi_port: u16,
}

fn https() -> u16 {
    scan::Settings::default().https_port
}

fn http() -> u16 {
    scan::Settings::default().http_port
}

fn ipmi() -> u16 {
    scan::Settings::default().ipmi_port
}

/// Who is there.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = IdentifyTold)]
pub struct Told {
    /// One an address that answers.
    pub lines: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = IdentifyLine)]
pub struct Line {
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The machine that it has shown to be, before any login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    pub identified: Identified,
}

const TITLE: &str = "not identified";

fn problem(status: StatusCode, code: &str, detail: String) -> Response {
    super::routes::problem(status, code, TITLE, detail)
}

/// Knocks at the addresses, and logs in, once each, to the machines of the inventory that show who they
/// are; says what only a login tells. No credential is in the answer.
#[utoipa::path(post, path = "/v1/discover/identify", tag = "discovery",
    operation_id = "identify_found",
    params(("x-farrier-by" = Option<String>, Header, description = "Who asks; default `api`")),
    request_body = Order,
    responses((status = 200, body = Told),
        (status = "4XX", body = Body, content_type = "application/problem+json"),
        (status = 503, body = Body, content_type = "application/problem+json")))]
async fn identify(
    State(desk): State<Desk>,
    headers: HeaderMap,
    Json(order): Json<Order>,
) -> Response {
    let count = order.addresses.len();
    if !(1..=MOST).contains(&count) {
        let why = format!("{count} addresses; an order has 1 to {MOST}");
        return problem(StatusCode::BAD_REQUEST, "bad-body", why);
    }
    let ranges: Vec<Range> = desk
        .current
        .get()
        .daemon
        .discovery
        .iter()
        .filter_map(|r| r.to_string().parse().ok())
        .collect();
    let is_allowed = |a: &&IpAddr| {
        a.to_string().parse().is_ok_and(|one: Range| ranges.iter().any(|r| one.is_within(r)))
    };
    if let Some(stray) = order.addresses.iter().find(|a| !is_allowed(a)) {
        let why = format!("{stray} does not lie within `[discovery] ranges` of the configuration");
        return problem(StatusCode::FORBIDDEN, "not-allowed", why);
    }
    let ended = || {
        let why = "the engine has ended".to_string();
        problem(StatusCode::SERVICE_UNAVAILABLE, "engine-busy", why)
    };
    let all = desk.engine.ask(|d, _| {
        let all = d.machines().filter_map(|m| Some((m.id, d.expected(m.id)?.clone())));
        all.collect::<Vec<(MachineId, Arc<Expected>)>>()
    });
    let Some(all) = all.await else { return ended() };
    let (ids, expected): (Vec<MachineId>, Vec<Arc<Expected>>) = all.into_iter().unzip();
    let delivered = match desk.store.delivered().await {
        Ok(notes) => by_mac(notes),
        Err(e) => return problem(StatusCode::SERVICE_UNAVAILABLE, "unreadable", e.to_string()),
    };
    let by = orders::by(&headers);
    let _turn = desk.turn.lock().await;
    tracing::info!(%by, addresses = count, "looks who answers there, by one login each");
    let knock = scan::Settings {
        https_port: order.https_port,
        http_port: order.http_port,
        ipmi_port: order.ipmi_port,
        ..scan::Settings::default()
    };
    let mut addresses = order.addresses;
    addresses.sort_unstable();
    addresses.dedup();
    let found = match scan::scan(addresses.into_iter(), &knock, || ()).await {
        Ok(found) => found,
        Err(why) => return problem(StatusCode::SERVICE_UNAVAILABLE, "no-scan", why),
    };
    // Silence means nothing here: only these few were asked.
    let lines = reconcile(&expected, found, &[], &delivered);
    let (edge, expected, ids) = (&*desk.edge, &expected, &ids);
    let told = futures_util::stream::iter(lines).map(|line| async move {
        let address = line.address?;
        let at = line.expected.and_then(|n| Some((*ids.get(n)?, expected.get(n)?)));
        let identified = match at {
            Some((id, machine)) => compare(edge, id, machine, &line).await,
            None => Identified::NotAsked { why: line.what.clone() },
        };
        Some(Line { address, machine: line.machine.map(|m| m.to_string()), identified })
    });
    let lines = told.buffered(LOGINS).filter_map(std::future::ready).collect().await;
    Json(Told { lines }).into_response()
}
