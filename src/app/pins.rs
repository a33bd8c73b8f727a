//! Pinned certificates: what BMCs show, for people to compare, and what people have accepted.
#![allow(clippy::disallowed_types, reason = "answers hold what was read just now")]

use super::orders::{self, Orders};
use crate::api::problem::Body;
use crate::bmc::RedfishBmc;
use crate::engine::clock::wall_ms;
use crate::model::controller::{place, placed};
use crate::model::{Fault, MachineId};
use crate::port::Inward;
use crate::store::credentials::{Pin, Pins};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Handshakes at once.
const AT_ONCE: usize = 32;

/// What the routes work with.
#[derive(Clone, Debug)]
pub struct Desk {
    pub bmc: Arc<RedfishBmc>,
    pub pins: Pins,
    pub engine: crate::engine::driver::Handle,
    pub orders: Orders,
}

/// `POST /v1/pins/shown` reads certificates, `POST /v1/pins` keeps those that a person has named.
pub fn router() -> OpenApiRouter<Desk> {
    OpenApiRouter::new().routes(routes!(shown)).routes(routes!(accept))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = CertificatesAsked)]
struct Asked {
    #[serde(flatten)]
    which: orders::Which,
}

/// A BMC, as the inventory has it.
#[derive(Clone, Debug)]
struct Endpoint {
    id: MachineId,
    url: String,
    /// Its `tls`.
    policy: String,
}

/// The BMCs of these places that there are.
async fn endpoints(desk: &Desk, places: BTreeSet<String>) -> Option<BTreeMap<String, Endpoint>> {
    let found = desk.engine.ask(move |d, _| {
        let machines: BTreeSet<&str> = places.iter().map(|p| placed(p).0).collect();
        let meant = d.machines().filter(|m| machines.contains(&*m.name));
        let known = meant.filter_map(|m| {
            let bmc = &d.expected(m.id)?.bmc;
            let endpoint = |url: &str, policy: &str| Endpoint {
                id: m.id,
                url: url.to_string(),
                policy: policy.to_string(),
            };
            let host = (place(&m.name, None), endpoint(&bmc.url, &bmc.tls));
            let further = bmc.controllers.iter();
            let further =
                further.map(|c| (place(&m.name, Some(&c.name)), endpoint(&c.url, &c.tls)));
            Some([host].into_iter().chain(further).collect::<Vec<_>>())
        });
        known.flatten().filter(|(place, _)| places.contains(place)).collect()
    });
    found.await
}

/// The certificates that BMCs show now; nothing is kept, no password is sent.
#[utoipa::path(post, path = "/v1/pins/shown", tag = "certificates", operation_id = "read_certificates",
    request_body = Asked,
    responses((status = 200, body = Certificates),
        (status = 409, body = Body, content_type = "application/problem+json",
            description = "`confirm-needed`: repeat it with `confirm`"),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
async fn shown(State(desk): State<Desk>, Json(asked): Json<Asked>) -> Response {
    let places = match desk.orders.bmcs(&asked.which, "look").await {
        Ok(places) => places,
        Err(refused) => return *refused,
    };
    let Some(all) = endpoints(&desk, places).await else { return desk.orders.ended() };
    let reads = all.into_iter().map(|(place, at)| {
        let desk = desk.clone();
        async move {
            let read = desk.bmc.certificate(&at.url).await;
            line(&place, at, desk.pins.get(&place).as_ref(), read)
        }
    });
    let mut certificates: Vec<CertificateLine> =
        futures_util::stream::iter(reads).buffered(AT_ONCE).collect().await;
    certificates.sort_by(|a, b| (&a.machine, &a.controller).cmp(&(&b.machine, &b.controller)));
    Json(Certificates { certificates }).into_response()
}

#[derive(Serialize, ToSchema)]
struct Certificates {
    certificates: Vec<CertificateLine>,
}

/// What one BMC shows.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = Certificate)]
struct CertificateLine {
    machine: String,
    /// Of this further controller of the machine; left out: of its host's BMC.
    #[serde(skip_serializing_if = "Option::is_none")]
    controller: Option<String>,
    url: String,
    /// `tls` of the inventory.
    policy: String,
    /// `pinned`, `changed`, `new`, or `unread`.
    stands: &'static str,
    /// Lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    self_signed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<String>,
    /// Why it is unread.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

fn line(
    place: &str,
    at: Endpoint,
    pin: Option<&Pin>,
    read: Result<crate::bmc::Certificate, Fault>,
) -> CertificateLine {
    let (machine, controller) = placed(place);
    let line = CertificateLine {
        machine: machine.into(),
        controller: controller.map(Into::into),
        url: at.url,
        policy: at.policy,
        ..CertificateLine::default()
    };
    match read {
        Ok(c) => CertificateLine {
            stands: match pin {
                Some(pin) if pin.sha256 == c.sha256 => "pinned",
                Some(_) => "changed",
                None => "new",
            },
            sha256: Some(c.sha256),
            subject: Some(c.subject),
            issuer: Some(c.issuer),
            self_signed: Some(c.self_signed),
            not_after: Some(c.not_after),
            ..line
        },
        Err(f) => CertificateLine { stands: "unread", trouble: Some(f.to_string()), ..line },
    }
}

#[derive(Deserialize, ToSchema)]
#[schema(as = PinOrder)]
#[serde(deny_unknown_fields)]
struct Accept {
    pins: Vec<Accepted>,
    why: String,
}

#[derive(Serialize, ToSchema)]
struct Pinned {
    pinned: usize,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = PinWanted)]
#[serde(deny_unknown_fields)]
struct Accepted {
    machine: String,
    /// A further controller of the machine; left out: its host's BMC.
    #[serde(default)]
    controller: Option<String>,
    /// Hex, with or without colons.
    sha256: String,
    #[serde(default)]
    subject: String,
}

/// Keeps exactly the fingerprints that a person has seen: what a BMC shows now is not asked, it may
/// be another one.
#[utoipa::path(post, path = "/v1/pins", tag = "certificates", operation_id = "pin_certificates",
    params(("x-farrier-by" = Option<String>, Header, description = "Who says so; default `api`")),
    request_body = Accept,
    responses((status = 200, body = Pinned),
        (status = "4XX", body = Body, content_type = "application/problem+json"),
        (status = 503, body = Body, content_type = "application/problem+json")))]
async fn accept(
    State(desk): State<Desk>,
    headers: HeaderMap,
    Json(asked): Json<Accept>,
) -> Response {
    let bad = |why: String| desk.orders.problem(StatusCode::BAD_REQUEST, "bad-body", why);
    if asked.why.trim().is_empty() {
        return bad("`why` is empty".into());
    }
    let places = asked.pins.iter().map(|p| place(&p.machine, p.controller.as_deref()));
    let Some(known) = endpoints(&desk, places.collect()).await else { return desk.orders.ended() };
    let (by, now) = (orders::by(&headers), wall_ms());
    let mut pins = Vec::with_capacity(asked.pins.len());
    for p in asked.pins {
        let sha256 = p.sha256.trim().to_ascii_lowercase().replace(':', "");
        if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return bad(format!("`{}` is no SHA-256 fingerprint", p.sha256));
        }
        let place = place(&p.machine, p.controller.as_deref());
        if !known.contains_key(&place) {
            return bad(match &p.controller {
                Some(c) => format!("there is no machine `{}` with a controller `{c}`", p.machine),
                None => format!("there is no machine `{}`", p.machine),
            });
        }
        let subject: String = p.subject.chars().filter(|c| !c.is_control()).take(256).collect();
        pins.push(Pin {
            place,
            sha256,
            subject,
            by: by.clone(),
            why: asked.why.clone(),
            set_ms: now,
        });
    }
    if let Err(e) = desk.pins.set(&pins).await {
        let why = e.to_string();
        return desk.orders.problem(StatusCode::SERVICE_UNAVAILABLE, "not-durable", why);
    }
    for pin in &pins {
        tracing::info!(machine = %pin.place, sha256 = %pin.sha256, %by, why = %pin.why, "pinned");
        if let Some(at) = known.get(&pin.place) {
            // Whoever waited for it is looked at now.
            desk.engine.inbox.send(Inward::Poke { machine: at.id }).await.ok();
        }
    }
    Json(Pinned { pinned: pins.len() }).into_response()
}
