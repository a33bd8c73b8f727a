//! The HTTP API: what people and programs see of a running engine. Reads go through
//! [`Handle::ask`] and the store's reads; changes through the inbox, answered once durable.
//!
//! Architecture invariant: nothing here decides or writes; an answer never holds a secret.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an edge: makes idempotency keys and reads time-outs"
)]

mod auth;
mod bundle;
mod changes;
mod console;
mod engine;
mod events;
mod evidence;
mod exposition;
mod extract;
mod journal;
mod logs;
mod machines;
mod metrics;
pub mod problem;
mod runs;
pub mod select;
mod site;
pub mod view;
pub mod words;

pub(crate) use engine::{ask, find};
pub(crate) use events::{Watch, event};
pub use logs::LogTail;
pub(crate) use machines::{explanation, last_lines, machine_view};
pub(crate) use runs::runs_of;
pub(crate) use site::outages;

use crate::engine::driver::Handle;
use crate::ipmi::Shelf;
use crate::notify::Notifier;
use crate::port::Secret;
use crate::port::store::Store;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use problem::{Code, Problem};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Longest request body, in bytes.
pub const BODY_MAX: usize = 1 << 20;
/// Event streams open at once; each costs a task and a place in the broadcast.
const STREAMS_MAX: usize = 256;

/// What the API needs. Cheap to clone.
#[derive(Clone)]
pub struct State {
    pub engine: Handle,
    pub store: Arc<dyn Store>,
    /// For people: the page's heading and `status`.
    pub site_name: Arc<str>,
    pub version: Arc<str>,
    /// Required on every path but `/healthz` when set.
    pub token: Option<Secret>,
    /// A change that touches more machines than this waits for a confirm.
    pub confirm_max: usize,
    /// How long an answer waits for a change to become durable.
    pub ack_timeout: Duration,
    /// Turns true when the daemon stops: event streams end, so that a graceful stop can.
    pub ending: watch::Receiver<bool>,
    /// The running webhooks, for their numbers in the metrics.
    pub webhooks: Option<Notifier>,
    /// The database's file, for its size in the metrics.
    pub database: Option<PathBuf>,
    /// Consoles of machines whose boot was followed.
    pub consoles: Option<Shelf>,
    /// The end of the daemon's log, for evidence.
    pub log: LogTail,
    pub(crate) streams: Arc<Semaphore>,
}

impl State {
    /// With defaults: no token, a confirm above 10 machines, 10 s until a change counts as
    /// unanswered.
    pub fn new(engine: Handle, store: Arc<dyn Store>) -> Self {
        Self {
            engine,
            store,
            site_name: "farrier".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            token: None,
            confirm_max: 10,
            ack_timeout: Duration::from_secs(10),
            ending: watch::channel(false).1,
            webhooks: None,
            database: None,
            consoles: None,
            log: LogTail::default(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({})", self.site_name)
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Farrier",
        description = "Takes bare-metal machines from rack to cluster and back.\n\n\
            Errors are `application/problem+json` (RFC 9457) with a stable `code`. Durations are \
            milliseconds of engine time; times of day are RFC 3339 in UTC."
    ),
    components(schemas(problem::Body)),
    security((), ("token" = []))
)]
struct Doc;

fn documented() -> OpenApiRouter<State> {
    OpenApiRouter::with_openapi(Doc::openapi())
        .routes(routes!(machines::list))
        .routes(routes!(machines::show))
        .routes(routes!(machines::explain))
        .routes(routes!(machines::history))
        .routes(routes!(evidence::evidence))
        .routes(routes!(console::console))
        .routes(routes!(runs::list))
        .routes(routes!(runs::show))
        .routes(routes!(changes::one))
        .routes(routes!(changes::many))
        .routes(routes!(changes::stop))
        .routes(routes!(changes::resume))
        .routes(routes!(site::limits))
        .routes(routes!(site::status))
        .routes(routes!(events::stream))
        .routes(routes!(site::health))
        .routes(routes!(metrics::metrics))
}

/// The API's description with that of `more`: as it is served at `/v1/openapi.json` and, for the
/// daemon, checked in as `openapi.json`.
pub fn openapi(more: utoipa::openapi::OpenApi) -> String {
    let mut doc = documented().into_openapi();
    doc.merge(more);
    let scheme =
        utoipa::openapi::security::Http::new(utoipa::openapi::security::HttpAuthScheme::Bearer);
    doc.components
        .get_or_insert_default()
        .add_security_scheme("token", utoipa::openapi::security::SecurityScheme::Http(scheme));
    let mut text = doc.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Every route: `/v1`, health, metrics and the web page; and `more`, behind the same guard and in the
/// same description.
pub fn router(state: State, more: OpenApiRouter) -> axum::Router {
    let (more, described) = more.split_for_parts();
    let doc: Arc<str> = openapi(described).into();
    let (routes, _) = documented().split_for_parts();
    routes
        .route(
            "/v1/openapi.json",
            get(move || {
                let doc = doc.to_string();
                async move { ([(axum::http::header::CONTENT_TYPE, "application/json")], doc) }
            }),
        )
        .merge(crate::web::routes())
        .with_state(state.clone())
        .merge(more)
        .fallback(|uri: axum::http::Uri| async move {
            Problem::new(Code::NoSuchPath, format!("there is nothing at `{}`", uri.path()))
                .hint("the API is described at /v1/openapi.json; the fleet page is at /")
        })
        .method_not_allowed_fallback(
            |method: axum::http::Method, uri: axum::http::Uri| async move {
                Problem::new(
                    Code::MethodNotAllowed,
                    format!("`{}` does not take {method}", uri.path()),
                )
                .hint("the API is described at /v1/openapi.json")
            },
        )
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(axum::middleware::from_fn_with_state(state, auth::guard))
}
