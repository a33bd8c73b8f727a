//! The boot listener's routes.

use super::callback;
use super::images::serve_file;
use super::preseed;
use super::problem::Problem;
use super::render::{self, Document};
use super::sendfile::FileRequest;
use super::server::{Shared, Slot};
use super::window::{Call, Fetch, Mac, Part, Window};
use crate::model::Fault;
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Largest callback body, bytes.
const BODY: usize = 16 * 1024;
/// A host that takes longer to send 16 KiB has gone.
const BODY_TIME: Duration = Duration::from_secs(30);

type Peer = ConnectInfo<SocketAddr>;
type Server = State<Arc<Shared>>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/boot/{mac}/ipxe", get(ipxe))
        .route("/boot/{mac}/meta-data", get(meta_data))
        .route("/boot/{mac}/user-data", get(user_data))
        .route("/boot/{mac}/network-config", get(network_config))
        .route("/boot/{mac}/file/{name}", get(recipe_file))
        .route("/boot/{mac}/seed.json", get(seed))
        .route("/boot/{mac}/preseed.cfg", get(preseed_cfg))
        .route("/boot/{mac}/installer.sh", get(installer_sh))
        .route("/boot/{mac}/image/{*file}", get(image))
        .route("/boot/{mac}/disk/{file}", get(disk))
        .route("/boot/{mac}/callback", post(call_back))
        .fallback(async || Problem::not_found())
        .with_state(shared)
}

async fn ipxe(s: Server, peer: Peer, m: Method, mac: Path<String>) -> Result<Response, Problem> {
    let window = fetch(&s, &peer, &mac, Part::Script, &m).await?;
    let script = match &window.preseed {
        Some(_) => Document::PreseedIpxe,
        None if window.is_of_ramdisk() => Document::RamdiskIpxe,
        None => Document::Ipxe,
    };
    document(&s, script, &window, "text/plain; charset=utf-8")
}

async fn meta_data(
    s: Server,
    peer: Peer,
    m: Method,
    mac: Path<String>,
) -> Result<Response, Problem> {
    let window = fetch(&s, &peer, &mac, Part::MetaData, &m).await?;
    document(&s, Document::MetaData, &window, "text/yaml; charset=utf-8")
}

async fn user_data(
    s: Server,
    peer: Peer,
    m: Method,
    mac: Path<String>,
) -> Result<Response, Problem> {
    let window = fetch(&s, &peer, &mac, Part::Seed, &m).await?;
    if window.is_of_ramdisk() || window.preseed.is_some() {
        return Err(Problem::not_found());
    }
    document(&s, Document::UserData, &window, "text/cloud-config; charset=utf-8")
}

/// cloud-init asks for it where it reads a NoCloud seed; without one it goes its own way.
async fn network_config(
    s: Server,
    peer: Peer,
    m: Method,
    mac: Path<String>,
) -> Result<Response, Problem> {
    let window = fetch(&s, &peer, &mac, Part::MetaData, &m).await?;
    if window.network.is_none() {
        return Err(Problem::not_found());
    }
    document(&s, Document::NetworkConfig, &window, "text/yaml; charset=utf-8")
}

/// A file that the image's recipe names.
async fn recipe_file(
    s: Server,
    peer: Peer,
    m: Method,
    path: Path<(String, String)>,
) -> Result<Response, Problem> {
    let (mac, name) = path.0;
    let window = fetch(&s, &peer, &mac, Part::Seed, &m).await?;
    let templates = s.templates();
    let recipe = templates.recipe(&window.image).filter(|r| r.files.contains(&name));
    if recipe.is_none() || window.is_of_ramdisk() {
        return Err(Problem::not_found());
    }
    document(&s, Document::File(&name), &window, "text/plain; charset=utf-8")
}

async fn seed(s: Server, peer: Peer, m: Method, mac: Path<String>) -> Result<Response, Problem> {
    let window = fetch(&s, &peer, &mac, Part::Seed, &m).await?;
    Ok(text(render::seed(&window, &s.settings.ssh_keys), "application/json"))
}

/// Not yet the seed: it tells nothing of this machine that its boot script does not tell too.
async fn preseed_cfg(
    s: Server,
    peer: Peer,
    m: Method,
    mac: Path<String>,
) -> Result<Response, Problem> {
    let window = fetch(&s, &peer, &mac, Part::MetaData, &m).await?;
    if window.preseed.is_none() {
        return Err(Problem::not_found());
    }
    document(&s, Document::Preseed, &window, "text/plain; charset=utf-8")
}

/// The script holds the token.
async fn installer_sh(
    s: Server,
    peer: Peer,
    m: Method,
    mac: Path<String>,
) -> Result<Response, Problem> {
    let window = fetch(&s, &peer, &mac, Part::Seed, &m).await?;
    let script = preseed::script(&window).ok_or_else(Problem::not_found)?;
    Ok(text(script, "text/plain; charset=utf-8"))
}

/// A file of the window's image, to the waiting machine alone.
async fn image(
    s: Server,
    peer: Peer,
    path: Path<(String, String)>,
    request: FileRequest,
) -> Result<Response, Problem> {
    let (mac, file) = path.0;
    let window = fetch(&s, &peer, &mac, Part::Image, &request.method).await?;
    let Some(images) = &s.settings.images else { return Err(Problem::not_found()) };
    serve_file(&images.join(&window.image), &file, &request).await
}

/// The disk image that the deploy job was told to write.
async fn disk(
    s: Server,
    peer: Peer,
    path: Path<(String, String)>,
    request: FileRequest,
) -> Result<Response, Problem> {
    let (mac, file) = path.0;
    let window = fetch(&s, &peer, &mac, Part::Disk, &request.method).await?;
    let (Some(images), Some(image)) = (&s.settings.images, &window.deploys) else {
        return Err(Problem::not_found());
    };
    serve_file(&images.join(image), &file, &request).await
}

/// The open window of this MAC, once it is durable that this address fetched this part.
async fn fetch(
    shared: &Arc<Shared>,
    peer: &Peer,
    mac: &str,
    part: Part,
    method: &Method,
) -> Result<Window, Problem> {
    let (slot, from) = (find(shared, mac)?, source(peer));
    let look_only = method != Method::GET;
    let (window, news) = shared
        .change(slot, move |w| match w.fetch(from, part, look_only) {
            Fetch::Refused => {
                if w.source.is_some_and(|s| s != from) {
                    tracing::warn!(machine = w.name, run = w.run, %from,
                        "another address asks for this machine's boot files; it got nothing");
                }
                ((None, false), None)
            }
            Fetch::Again => ((Some(w.clone()), false), None),
            Fetch::News(next) => ((Some((*next).clone()), true), Some(*next)),
        })
        .await
        .map_err(|f| not_durable(&f))?;
    let window = window.ok_or_else(Problem::not_found)?;
    if news {
        tracing::info!(machine = window.name, run = window.run, %from, ?part, "first fetch");
        shared.poke(window.machine);
    }
    Ok(window)
}

async fn call_back(
    s: Server,
    peer: Peer,
    mac: Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let (slot, from) = (find(&s, &mac)?, source(&peer));
    let body = tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, BODY)).await;
    let body = body.map_err(|_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "the body did not come in time")
    })?;
    let body = body.map_err(|_| {
        let what = format!("the body is larger than {BODY} bytes, or broke off");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", what)
    })?;
    let (token, said) = callback::parse(&body)
        .map_err(|why| Problem::new(StatusCode::BAD_REQUEST, "bad-callback", why))?;
    let throttle = || s.throttle.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(wait_s) = throttle().must_wait_s(from, Instant::now()) {
        return Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-wrong-tokens",
            format!("too many wrong tokens from this address; again in {wait_s} s"),
        )
        .retry_after_s(wait_s));
    }
    let (call, machine) = s
        .change(slot, move |w| {
            let machine = (w.machine, w.name.clone(), w.run.clone());
            match w.call(from, token.expose(), &said) {
                Call::Taken(next) => ((Call::Taken(next.clone()), machine), Some(*next)),
                other => ((other, machine), None),
            }
        })
        .await
        .map_err(|f| not_durable(&f))?;
    let (id, name, run) = machine;
    match call {
        Call::Taken(w) => {
            let ok = w.callback.as_ref().is_some_and(|c| c.ok);
            tracing::info!(machine = name, run, %from, ok, "the host called back");
            s.poke(id);
            Ok(text("{\"ok\":true}\n".into(), "application/json"))
        }
        Call::Repeated => Ok(text("{\"ok\":true}\n".into(), "application/json")),
        Call::NoWindow => Err(Problem::not_found()),
        Call::WrongToken => {
            throttle().missed(from, Instant::now());
            tracing::warn!(machine = name, run, %from, "a callback with a wrong token");
            Err(Problem::new(StatusCode::FORBIDDEN, "wrong-token", "that is not the token"))
        }
        Call::WrongSource => {
            tracing::warn!(machine = name, run, %from, "a callback from another address");
            Err(Problem::new(
                StatusCode::CONFLICT,
                "wrong-source",
                "the seed was fetched from another address",
            ))
        }
        Call::Spent => Err(Problem::new(
            StatusCode::GONE,
            "token-spent",
            "this token was used before, with other words",
        )),
    }
}

fn find(shared: &Shared, mac: &str) -> Result<Slot, Problem> {
    Mac::parse(mac).and_then(|mac| shared.by_mac(&mac)).ok_or_else(Problem::not_found)
}

/// A dual-stack listener sees IPv4 peers as `::ffff:a.b.c.d`; the same host is the same source.
fn source(peer: &Peer) -> IpAddr {
    peer.0.ip().to_canonical()
}

fn document(
    shared: &Shared,
    what: Document<'_>,
    window: &Window,
    kind: &'static str,
) -> Result<Response, Problem> {
    match shared.templates().render(what, window) {
        Ok(body) => Ok(text(body, kind)),
        Err(why) => {
            tracing::error!(machine = window.name, run = window.run, what = ?what, %why,
                "a boot template could not be rendered; the host got nothing");
            let detail = "a boot template could not be rendered";
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "boot-template", detail))
        }
    }
}

fn text(body: String, kind: &'static str) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The host asks again; the person reads why in our log, not in the host's.
fn not_durable(fault: &Fault) -> Problem {
    tracing::error!(%fault, "a boot window could not be kept; the host was asked to try again");
    let detail = "the boot server can't keep its state now; try again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "boot-state", detail).retry_after_s(10)
}
