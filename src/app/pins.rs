//! Pinned certificates: what BMCs show, for people to compare, and what people have accepted.
#![allow(clippy::disallowed_types, reason = "answers hold what was read just now")]

use super::orders::{self, Orders};
use crate::api::problem::Body;
use crate::bmc::RedfishBmc;
use crate::engine::clock::wall_ms;
use crate::model::{Fault, MachineId};
use crate::port::Inward;
use crate::store::credentials::{Pin, Pins};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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

/// Id, BMC address and policy of the machines called so.
async fn endpoints(
    desk: &Desk,
    names: Vec<String>,
) -> Option<BTreeMap<String, (MachineId, String, String)>> {
    let found = desk.engine.ask(move |d, _| {
        let all = d.machines().filter(|m| names.binary_search_by(|n| (**n).cmp(&m.name)).is_ok());
        all.filter_map(|m| {
            let bmc = &d.expected(m.id)?.bmc;
            Some((m.name.to_string(), (m.id, bmc.url.to_string(), bmc.tls.to_string())))
        })
        .collect()
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
    let names = match desk.orders.names(&asked.which, "look").await {
        Ok(names) => names,
        Err(refused) => return *refused,
    };
    let Some(all) = endpoints(&desk, names).await else {
        let why = "the engine has ended".to_string();
        return desk.orders.problem(StatusCode::SERVICE_UNAVAILABLE, "engine-busy", why);
    };
    let reads = all.into_iter().map(|(machine, (_, url, tls))| {
        let desk = desk.clone();
        async move {
            let read = desk.bmc.certificate(&url).await;
            line(&machine, &url, &tls, desk.pins.get(&machine).as_ref(), read)
        }
    });
    let mut certificates: Vec<CertificateLine> =
        futures_util::stream::iter(reads).buffered(AT_ONCE).collect().await;
    certificates.sort_by(|a, b| a.machine.cmp(&b.machine));
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
    machine: &str,
    url: &str,
    tls: &str,
    pin: Option<&Pin>,
    read: Result<crate::bmc::Certificate, Fault>,
) -> CertificateLine {
    let line = CertificateLine {
        machine: machine.into(),
        url: url.into(),
        policy: tls.into(),
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
    let mut names: Vec<String> = asked.pins.iter().map(|p| p.machine.clone()).collect();
    names.sort_unstable();
    let Some(known) = endpoints(&desk, names).await else {
        let why = "the engine has ended".to_string();
        return desk.orders.problem(StatusCode::SERVICE_UNAVAILABLE, "engine-busy", why);
    };
    let (by, now) = (orders::by(&headers), wall_ms());
    let mut pins = Vec::with_capacity(asked.pins.len());
    for p in asked.pins {
        let sha256 = p.sha256.trim().to_ascii_lowercase().replace(':', "");
        if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return bad(format!("`{}` is no SHA-256 fingerprint", p.sha256));
        }
        if !known.contains_key(&p.machine) {
            return bad(format!("there is no machine `{}`", p.machine));
        }
        let subject: String = p.subject.chars().filter(|c| !c.is_control()).take(256).collect();
        pins.push(Pin {
            machine: p.machine,
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
        tracing::info!(machine = %pin.machine, sha256 = %pin.sha256, %by, why = %pin.why, "pinned");
        if let Some((machine, ..)) = known.get(&pin.machine) {
            // Whoever waited for it is looked at now.
            desk.engine.inbox.send(Inward::Poke { machine: *machine }).await.ok();
        }
    }
    Json(Pinned { pinned: pins.len() }).into_response()
}
