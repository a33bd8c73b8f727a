//! A virtual BMC: Redfish over HTTP, plain or under TLS (DSP0266). Here are login and reads, whose resources come
//! from `super::tree`; writes go on to `super::write`. A dead BMC never gets this far: its
//! connections end in `super::wire`.

use super::accounts::Caller;
use super::latency::Asked;
use super::message::{self, Refusal, refusal};
use super::seat::{Counters, Seat, Session};
use super::wire::{Bmcs, Called};
use super::{World, dialect, rules, tree, update, write};
use crate::model::{Action, EngineTime};
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
use tokio::net::TcpListener;

/// Sessions that a BMC gives (field notes §6: 4–16).
const SESSIONS: usize = 8;
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
    let path: Vec<&str> = parts.uri.path().split('/').filter(|s| !s.is_empty()).collect();
    let path = match path.as_slice() {
        ["redfish"] => return document(StatusCode::OK, &json!({"v1": "/redfish/v1/"})),
        ["redfish", "v1", rest @ ..] => rest,
        _ => return fault(StatusCode::NOT_FOUND, "not a Redfish path"),
    };
    // An image is read as it comes; everything else is short.
    let pushed = parts.method == Method::POST && path == ["UpdateService", "update-multipart"];
    let (body, stream) = match pushed {
        true => (Default::default(), Some(body)),
        false => match to_bytes(body, BODY_MAX).await {
            Ok(body) => (body, None),
            Err(_) => return fault(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
        },
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
    let mut out = match stream {
        // As it comes: no rule and no dialect sees it.
        Some(stream) => push(&world, &seat, &parts, stream)
            .await
            .unwrap_or_else(|refused| turn_down(refused, &parts, path)),
        None => rules::answer(&world, &seat, &line, &parts, path, &body).await,
    };
    // hyper writes our own time where there is none.
    let now = world.now();
    let date = seat.with(now, |b| tree::http_date(&b.vm, now));
    if let Some(date) = date.and_then(|d| header::HeaderValue::from_str(&d).ok()) {
        out.headers_mut().insert(header::DATE, date);
    }
    if out.status().is_success() {
        seat.with(now, |b| match asked {
            Asked::Write | Asked::FirstLogin => b.vm.spent.write(since, now),
            Asked::Root | Asked::Plain | Asked::Big | Asked::Login => b.vm.spent.read(since, now),
        });
    }
    out
}

/// The answer to a refused request, with what only the router knows in it.
fn turn_down(refused: Refusal, parts: &Parts, path: &[&str]) -> Response {
    let mut out = match refused.status {
        StatusCode::NOT_FOUND => {
            let at = parts.uri.path();
            refusal(StatusCode::NOT_FOUND, "ResourceMissingAtURI", &[at]).answer()
        }
        _ => refused.answer(),
    };
    let (name, value) = match out.status() {
        StatusCode::UNAUTHORIZED => (header::WWW_AUTHENTICATE, "Basic realm=\"virtual BMC\""),
        StatusCode::METHOD_NOT_ALLOWED => (header::ALLOW, write::allowed(path)),
        _ => return out,
    };
    out.headers_mut().insert(name, header::HeaderValue::from_static(value));
    out
}

async fn push(world: &World, seat: &Seat, parts: &Parts, body: Bytes) -> Result<Response, Refusal> {
    // Before the first byte of the image is read: whoever has no say costs nothing.
    let caller = logged_in(seat, world.now(), &parts.headers)?;
    if caller.role != super::accounts::Role::Administrator || caller.must_change {
        return Err(refusal(StatusCode::FORBIDDEN, "InsufficientPrivilege", &[]));
    }
    if let Some(said) = dialect::queue_refuses(seat, world.seed, world.now()) {
        let status = StatusCode::from_u16(said.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        return Err(message::because(status, &said.message));
    }
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|h| h.to_str().ok());
    update::push(world, seat, kind.unwrap_or_default(), body.into_data_stream()).await
}

/// What the tree answers, with nothing between it and the wire.
pub(super) async fn clean(
    world: &Arc<World>,
    seat: &Arc<Seat>,
    parts: &Parts,
    path: &[&str],
    body: &[u8],
) -> Response {
    let out = handle(world, seat, parts, path, body).await;
    out.unwrap_or_else(|refused| turn_down(refused, parts, path))
}

async fn handle(
    world: &Arc<World>,
    seat: &Arc<Seat>,
    parts: &Parts,
    path: &[&str],
    body: &[u8],
) -> Result<Response, Refusal> {
    let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
    // DSP0266 §13.2: the root, its two OData documents and the login are open to everybody.
    match path {
        [] if is_read => return read(world, seat, path, parts),
        ["odata"] if is_read => return Ok(document(StatusCode::OK, &tree::odata())),
        ["$metadata"] if is_read => {
            let headers = [
                (header::CONTENT_TYPE, "application/xml;charset=utf-8"),
                (header::HeaderName::from_static("odata-version"), "4.0"),
            ];
            return Ok((headers, tree::metadata()).into_response());
        }
        ["SessionService", "Sessions"] if parts.method == Method::POST => {
            return log_in(world, seat, body);
        }
        _ => {}
    }
    let caller = logged_in(seat, world.now(), &parts.headers)?;
    if caller.must_change {
        let own = own_account(world, seat, &caller);
        if !matches!(path, ["AccountService", "Accounts", id] if *id == own) {
            let at = format!("{}/AccountService/Accounts/{own}", tree::V1);
            return Err(refusal(StatusCode::FORBIDDEN, "PasswordChangeRequired", &[&at]));
        }
    }
    match is_read {
        true => read(world, seat, path, parts),
        false => write::write(world, seat, &caller, parts, path, body).await,
    }
}

fn own_account(world: &World, seat: &Seat, caller: &Caller) -> String {
    seat.with(world.now(), |b| {
        let own = b.accounts.list.iter().find(|a| a.user == caller.user);
        own.map(|a| a.id.clone()).unwrap_or_default()
    })
}

fn read(world: &World, seat: &Seat, path: &[&str], parts: &Parts) -> Result<Response, Refusal> {
    if let ["TaskService", "TaskMonitors", id] = path {
        return update::monitor(world, seat, id);
    }
    let now = world.now();
    let query = parts.uri.query().unwrap_or_default();
    let found = match query.split('&').find(|q| q.starts_with('$')) {
        None => seat.with(now, |b| tree::resource(b, now, path)),
        // A page further on of a long collection; its link says so.
        Some(page) if page.starts_with("$skip=") && path.ends_with(&["Entries"]) => {
            let mut path = path.to_vec();
            path.push(page);
            seat.with(now, |b| tree::resource(b, now, &path))
        }
        // None is advertised (DSP0266 §7.3).
        Some(_) => return Err(refusal(StatusCode::NOT_IMPLEMENTED, "QueryNotSupported", &[])),
    };
    let body = found.ok_or_else(message::missing)?;
    let text = body.to_string();
    let etag = etag_of(&body, &text);
    if parts.headers.get(header::IF_NONE_MATCH).is_some_and(|h| h == &*etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let mut out = tagged(StatusCode::OK, etag, text);
    let allowed = header::HeaderValue::from_static(write::allowed(path));
    out.headers_mut().insert(header::ALLOW, allowed);
    Ok(out)
}

/// A resource with its ETag.
pub(super) fn show(status: StatusCode, body: &Value) -> Response {
    let text = body.to_string();
    let etag = etag_of(body, &text);
    tagged(status, etag, text)
}

fn tagged(status: StatusCode, etag: String, text: String) -> Response {
    let mut out = written(status, text);
    if let Ok(etag) = etag.parse() {
        out.headers_mut().insert(header::ETAG, etag);
    }
    out
}

pub(super) fn etag(body: &Value) -> String {
    etag_of(body, &body.to_string())
}

/// `text`: the body as it is written. A clock that goes on is no change of the resource.
fn etag_of(body: &Value, text: &str) -> String {
    if body.get("DateTime").is_some() {
        let mut still = body.clone();
        still["DateTime"] = Value::Null;
        return hashed(&still.to_string());
    }
    hashed(text)
}

fn hashed(text: &str) -> String {
    let hash = text.as_bytes().chunks(8).fold(7u64, |h, chunk| {
        let word = chunk.iter().fold(0u64, |w, b| w << 8 | u64::from(*b));
        mix(h ^ word)
    });
    format!("\"{hash:016x}\"")
}

pub(super) fn document(status: StatusCode, body: &Value) -> Response {
    written(status, body.to_string())
}

fn written(status: StatusCode, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json;charset=utf-8"),
        (header::HeaderName::from_static("odata-version"), "4.0"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (status, headers, Bytes::from(text)).into_response()
}

/// A Redfish error body (DSP0266 §8.6) in words of our own.
pub(super) fn fault(status: StatusCode, why: &str) -> Response {
    message::because(status, why).answer()
}

fn log_in(world: &World, seat: &Seat, body: &[u8]) -> Result<Response, Refusal> {
    let body = serde_json::from_slice::<Value>(body).unwrap_or(Value::Null);
    let text = |key: &str| body[key].as_str().unwrap_or_default();
    let now = world.now();
    let caller = seat.with(now, |b| b.accounts.log_in(now, text("UserName"), text("Password")));
    let Some(caller) = caller else {
        Counters::count(&seat.counters.failed_logins);
        let why = "the user name or the password is wrong";
        return Err(message::because(StatusCode::UNAUTHORIZED, why));
    };
    let token = format!("{:016x}{:016x}", world.draw(), world.draw());
    let id = format!("{:08x}", world.draw() >> 32);
    let opened = seat.with(now, |b| {
        let idle_ms = b.accounts.rules.session_idle_ms;
        b.sessions.retain(|_, s| now.since(s.used) < idle_ms);
        let room = b.sessions.len() < SESSIONS;
        if room {
            let user = caller.user.clone();
            b.sessions.insert(token.clone(), Session { id: id.clone(), user, used: now });
        }
        room
    });
    if !opened {
        return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "SessionLimitExceeded", &[]));
    }
    Counters::count(&seat.counters.logins);
    let mut shown = tree::session(&id, &caller.user);
    if caller.must_change {
        let own = own_account(world, seat, &caller);
        let at = format!("{}/AccountService/Accounts/{own}", tree::V1);
        let said = message::message("PasswordChangeRequired", &[&at]);
        shown["@Message.ExtendedInfo"] = json!([said]);
    }
    let mut out = document(StatusCode::CREATED, &shown);
    let location = format!("/redfish/v1/SessionService/Sessions/{id}");
    if let (Ok(token), Ok(location)) = (token.parse(), location.parse()) {
        out.headers_mut().insert("x-auth-token", token);
        out.headers_mut().insert(header::LOCATION, location);
    }
    Ok(out)
}

/// Who calls, by session or by Basic login.
fn logged_in(seat: &Seat, now: EngineTime, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let nobody = || refusal(StatusCode::UNAUTHORIZED, "NoValidSession", &[]);
    if let Some(token) = headers.get("x-auth-token").and_then(|h| h.to_str().ok()) {
        let found = seat.with(now, |b| {
            let idle_ms = b.accounts.rules.session_idle_ms;
            let session = b.sessions.get_mut(token)?;
            let alive = now.since(session.used) < idle_ms;
            session.used = now;
            alive.then(|| b.accounts.caller(&session.user))?
        });
        return found.ok_or_else(nobody);
    }
    let basic = headers.get(header::AUTHORIZATION).and_then(|h| h.to_str().ok());
    let basic = basic.and_then(|h| h.strip_prefix("Basic ")).ok_or_else(nobody)?;
    let told = base64::engine::general_purpose::STANDARD.decode(basic.trim()).ok();
    let told = told.and_then(|t| String::from_utf8(t).ok());
    let right = told
        .as_deref()
        .and_then(|t| t.split_once(':'))
        .and_then(|(user, password)| seat.with(now, |b| b.accounts.log_in(now, user, password)));
    if right.is_none() {
        Counters::count(&seat.counters.failed_logins);
    }
    right.ok_or_else(nobody)
}

/// Applies an action; the seq in the truth log is the number of this BMC's write.
pub(super) fn apply(world: &World, seat: &Seat, action: &Action) -> crate::model::Outcome {
    let now = world.now();
    let seq = world.seq();
    seat.with(now, |b| b.vm.apply(now, seq, action))
}
