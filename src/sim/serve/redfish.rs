//! A virtual BMC: Redfish over plain HTTP (DSP0266). Reads come from `super::tree`; here are
//! login and writes. A dead BMC never gets this far: its connections end in `super::wire`.

use super::latency::Asked;
use super::seat::{Counters, Seat, Session};
use super::wire::{Bmcs, Called};
use super::{World, rules, tree, update};
use crate::model::action::BootTarget;
use crate::model::{Action, EngineTime, PowerOp};
use crate::sim::physics::PowerState;
use crate::sim::rng::mix;
use axum::Router;
use axum::body::{Body as Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Sessions that a BMC gives (field notes §6: 4–16).
const SESSIONS: usize = 8;
/// Unused sessions end after this long (world time).
const SESSION_IDLE_MS: u64 = 30 * 60_000;
const BODY_MAX: usize = 64 * 1024;

pub(super) async fn serve(world: Arc<World>, listener: TcpListener) {
    let router: Router = Router::new().fallback(answer).with_state(world.clone());
    let service = router.into_make_service_with_connect_info::<Called>();
    if let Err(error) = axum::serve(Bmcs { world, listener }, service).await {
        tracing::error!(%error, "the virtual BMCs' listener ended");
    }
}

async fn answer(
    State(world): State<Arc<World>>,
    ConnectInfo(Called(seat, line)): ConnectInfo<Called>,
    request: Request,
) -> Response {
    let Some(seat) = seat else { return fault(StatusCode::NOT_FOUND, "no machine here") };
    let n = seat.counters.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_MAX).await else {
        return fault(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    };
    let path: Vec<&str> = parts.uri.path().split('/').filter(|s| !s.is_empty()).collect();
    let path = match path.as_slice() {
        ["redfish"] => return json!({"v1": "/redfish/v1/"}).to_string().into_response(),
        ["redfish", "v1", rest @ ..] => rest,
        _ => return fault(StatusCode::NOT_FOUND, "not a Redfish path"),
    };
    let patience = world.queue_max(&seat);
    let Ok(Ok(_worker)) = tokio::time::timeout(patience, seat.workers.acquire()).await else {
        return fault(StatusCode::SERVICE_UNAVAILABLE, "the service is busy");
    };
    let mut asked = Asked::of(&parts.method, path, parts.uri.query());
    if asked == Asked::Login && seat.is_first_login() {
        asked = Asked::FirstLogin;
    }
    let since = world.now();
    let takes = world.latency(&seat, asked, n);
    if !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
    let out = rules::answer(&world, &seat, &line, &parts, path, &body).await;
    if out.status().is_success() {
        let now = world.now();
        seat.with(now, |b| match asked {
            Asked::Write | Asked::FirstLogin => b.vm.spent.write(since, now),
            Asked::Root | Asked::Plain | Asked::Big | Asked::Login => b.vm.spent.read(since, now),
        });
    }
    out
}

/// What the tree answers, with nothing between it and the wire.
pub(super) async fn clean(
    world: &Arc<World>,
    seat: &Arc<Seat>,
    parts: &Parts,
    path: &[&str],
    body: &[u8],
) -> Response {
    handle(world, seat, parts, path, body).await
}

async fn handle(
    world: &Arc<World>,
    seat: &Arc<Seat>,
    parts: &Parts,
    path: &[&str],
    body: &[u8],
) -> Response {
    let body = serde_json::from_slice::<Value>(body).unwrap_or(Value::Null);
    // DSP0266: the root and the login are open to everybody.
    match (&parts.method, path) {
        (&Method::GET | &Method::HEAD, []) => return read(world, seat, path, parts),
        (&Method::POST, ["SessionService", "Sessions"]) => return log_in(world, seat, &body),
        _ => {}
    }
    if !is_authorized(seat, world.now(), &parts.headers) {
        let mut out = fault(StatusCode::UNAUTHORIZED, "log in first");
        let realm = header::HeaderValue::from_static("Basic realm=\"virtual BMC\"");
        out.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
        return out;
    }
    match (&parts.method, path) {
        (&Method::GET | &Method::HEAD, _) => read(world, seat, path, parts),
        (&Method::DELETE, ["SessionService", "Sessions", id]) => {
            let found = seat.with(world.now(), |b| {
                let before = b.sessions.len();
                b.sessions.retain(|_, s| s.id != *id);
                b.sessions.len() != before
            });
            match found {
                true => StatusCode::NO_CONTENT.into_response(),
                false => fault(StatusCode::NOT_FOUND, "no such session"),
            }
        }
        (&Method::PATCH, ["Systems", "1"]) => set_boot(world, seat, &parts.headers, &body),
        (&Method::POST, ["Systems", "1", "Actions", "ComputerSystem.Reset"]) => {
            reset(world, seat, &body)
        }
        (&Method::POST, ["Managers", "1", "Actions", "Manager.Reset"]) => {
            reset_bmc(world, seat, &body)
        }
        (&Method::POST, ["UpdateService", "Actions", "UpdateService.SimpleUpdate"]) => {
            update::simple_update(world.clone(), seat.clone(), body).await
        }
        (_, path) => match seat.with(world.now(), |b| tree::resource(b, world.now(), path)) {
            Some(_) => fault(StatusCode::METHOD_NOT_ALLOWED, "not with this resource"),
            None => fault(StatusCode::NOT_FOUND, "no such resource"),
        },
    }
}

fn read(world: &World, seat: &Seat, path: &[&str], parts: &Parts) -> Response {
    let now = world.now();
    let Some(body) = seat.with(now, |b| tree::resource(b, now, path)) else {
        return fault(StatusCode::NOT_FOUND, "no such resource");
    };
    let etag = etag(&body);
    let unchanged = parts.headers.get(header::IF_NONE_MATCH).is_some_and(|h| h == &*etag);
    let mut out = match unchanged {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => document(StatusCode::OK, &body),
    };
    if let Ok(etag) = etag.parse() {
        out.headers_mut().insert(header::ETAG, etag);
    }
    out
}

fn etag(body: &Value) -> String {
    let hash = body.to_string().bytes().fold(7u64, |h, b| mix(h ^ u64::from(b)));
    format!("\"{hash:016x}\"")
}

pub(super) fn document(status: StatusCode, body: &Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json;charset=utf-8"),
        (header::HeaderName::from_static("odata-version"), "4.0"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (status, headers, Bytes::from(body.to_string())).into_response()
}

/// A Redfish error body (DSP0266 §8.6).
pub(super) fn fault(status: StatusCode, message: &str) -> Response {
    let body = json!({"error": {
        "code": "Base.1.18.GeneralError", "message": message,
        "@Message.ExtendedInfo": [{
            "MessageId": "Base.1.18.GeneralError", "Message": message, "Severity": "Critical",
        }],
    }});
    document(status, &body)
}

fn log_in(world: &World, seat: &Seat, body: &Value) -> Response {
    let text = |key: &str| body[key].as_str().unwrap_or_default();
    if text("UserName") != seat.user || text("Password") != seat.password {
        Counters::count(&seat.counters.failed_logins);
        return fault(StatusCode::UNAUTHORIZED, "the user name or the password is wrong");
    }
    let now = world.now();
    let token = format!("{:016x}{:016x}", world.draw(), world.draw());
    let id = format!("{:08x}", world.draw() >> 32);
    let opened = seat.with(now, |b| {
        b.sessions.retain(|_, s| now.since(s.used) < SESSION_IDLE_MS);
        let room = b.sessions.len() < SESSIONS;
        if room {
            b.sessions.insert(token.clone(), Session { id: id.clone(), used: now });
        }
        room
    });
    if !opened {
        let body = json!({"error": {
            "code": "Base.1.18.SessionLimitExceeded",
            "message": "the session limit is reached",
            "@Message.ExtendedInfo": [{
                "MessageId": "Base.1.18.SessionLimitExceeded", "Severity": "Critical",
                "Message": "The session establishment failed due to the number of simultaneous \
                            sessions exceeding the limit of the implementation.",
            }],
        }});
        return document(StatusCode::SERVICE_UNAVAILABLE, &body);
    }
    Counters::count(&seat.counters.logins);
    let mut out = document(StatusCode::CREATED, &tree::session(&id));
    let location = format!("/redfish/v1/SessionService/Sessions/{id}");
    if let (Ok(token), Ok(location)) = (token.parse(), location.parse()) {
        out.headers_mut().insert("x-auth-token", token);
        out.headers_mut().insert(header::LOCATION, location);
    }
    out
}

fn is_authorized(seat: &Seat, now: EngineTime, headers: &HeaderMap) -> bool {
    if let Some(token) = headers.get("x-auth-token").and_then(|h| h.to_str().ok()) {
        return seat.with(now, |b| {
            let Some(session) = b.sessions.get_mut(token) else { return false };
            let alive = now.since(session.used) < SESSION_IDLE_MS;
            session.used = now;
            alive
        });
    }
    let basic = headers.get(header::AUTHORIZATION).and_then(|h| h.to_str().ok());
    let Some(basic) = basic.and_then(|h| h.strip_prefix("Basic ")) else { return false };
    let right = base64::engine::general_purpose::STANDARD
        .encode(format!("{}:{}", seat.user, seat.password));
    if basic.trim() != right {
        Counters::count(&seat.counters.failed_logins);
    }
    basic.trim() == right
}

/// Applies an action; the seq in the truth log is the number of this BMC's write.
pub(super) fn apply(world: &World, seat: &Seat, action: &Action) -> crate::model::Outcome {
    let now = world.now();
    let seq = world.draw() >> 40;
    seat.with(now, |b| b.vm.apply(now, seq, action))
}

fn reset(world: &World, seat: &Seat, body: &Value) -> Response {
    let op = match body["ResetType"].as_str() {
        Some("On") => PowerOp::On,
        Some("ForceOff") => PowerOp::ForceOff,
        Some("GracefulShutdown") => PowerOp::GracefulShutdown,
        Some("ForceRestart") => PowerOp::ForceRestart,
        _ => return fault(StatusCode::BAD_REQUEST, "`ResetType` is missing or not allowed"),
    };
    let power = seat.with(world.now(), |b| b.vm.power);
    if power != PowerState::On && matches!(op, PowerOp::GracefulShutdown | PowerOp::ForceRestart) {
        return fault(StatusCode::CONFLICT, "the host is not on");
    }
    apply(world, seat, &Action::Power { op });
    StatusCode::NO_CONTENT.into_response()
}

/// The answer goes out before the BMC does, as most do it.
fn reset_bmc(world: &World, seat: &Seat, body: &Value) -> Response {
    if !body["ResetType"].as_str().is_none_or(|t| tree::BMC_RESETS.contains(&t)) {
        return fault(StatusCode::BAD_REQUEST, "`ResetType` is not allowed");
    }
    let now = world.now();
    let at = now + world.world_ms(Duration::from_millis(100)).max(1000);
    let seq = world.draw() >> 40;
    seat.with(now, |b| b.vm.apply_late(at, seq, &Action::BmcReset));
    StatusCode::NO_CONTENT.into_response()
}

/// `PATCH` of the boot override. A differing `If-Match` is refused, a missing one is not.
fn set_boot(world: &World, seat: &Seat, headers: &HeaderMap, body: &Value) -> Response {
    let now = world.now();
    if let Some(wanted) = headers.get(header::IF_MATCH)
        && wanted != "*"
    {
        let current = seat.with(now, |b| tree::resource(b, now, &["Systems", "1"]));
        if current.is_none_or(|c| wanted != &*etag(&c)) {
            return fault(StatusCode::PRECONDITION_FAILED, "the resource changed meanwhile");
        }
    }
    let boot = &body["Boot"];
    if !boot.is_object() || body.as_object().is_none_or(|o| o.len() != 1) {
        return fault(StatusCode::BAD_REQUEST, "only `Boot` can be written");
    }
    let enabled = boot["BootSourceOverrideEnabled"].as_str();
    let target = match (enabled, boot["BootSourceOverrideTarget"].as_str()) {
        (Some("Disabled"), _) | (_, Some("None")) => BootTarget::None,
        (None | Some("Once"), Some("Pxe")) => BootTarget::Pxe,
        (None | Some("Once"), Some("UefiHttp")) => BootTarget::UefiHttp,
        (None | Some("Once"), Some("Cd")) => BootTarget::Cd,
        (None | Some("Once"), Some("Hdd")) => BootTarget::Disk,
        _ => return fault(StatusCode::BAD_REQUEST, "not an allowable boot override"),
    };
    apply(world, seat, &Action::SetBoot { target });
    let parts = [(header::CONTENT_TYPE, "application/json;charset=utf-8")];
    let body = seat.with(now, |b| tree::resource(b, now, &["Systems", "1"]));
    (StatusCode::OK, parts, body.unwrap_or_default().to_string()).into_response()
}
