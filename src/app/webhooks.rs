//! Webhooks wired up: hooks from the configuration, machines that are stuck, and the API's part.
#![allow(clippy::disallowed_methods, reason = "looks for stuck machines every minute")]

use crate::api::problem::Body;
use crate::config::daemon::Webhook;
use crate::engine::clock::wall_ms;
use crate::engine::driver::Handle;
use crate::model::{EngineTime, MachineId};
use crate::notify::{Hook, HookNumbers, Notifier};
use crate::port::outbox::{EventKind, Outbox, Told, of_stuck};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How often stuck machines are looked for; SLAs are hours.
const STUCK_EVERY: Duration = Duration::from_secs(60);

/// As the configuration has them.
pub fn hooks(configured: &[Webhook]) -> Vec<Hook> {
    let known = |name: &str| EventKind::ALL.into_iter().find(|e| e.name() == name);
    configured
        .iter()
        .map(|w| Hook {
            name: w.name.clone(),
            url: w.url.clone(),
            secret: w.secret.clone(),
            events: w.events.iter().filter_map(|e| known(e)).collect(),
            timeout: Duration::from_millis(w.timeout.0),
        })
        .collect()
}

/// Puts machines past their SLA into the outbox, each once for each time, until the engine ends.
pub async fn watch_stuck(engine: Handle, outbox: Arc<dyn Outbox>) {
    let mut tick = tokio::time::interval(STUCK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(found) = engine.ask(look).await else { return };
        for (machine, since, told) in found {
            if let Err(e) = outbox.tell(machine, since, told, wall_ms()).await {
                tracing::warn!(error = %e, "a stuck machine was not told of; trying again in a minute");
            }
        }
    }
}

fn look(director: &crate::engine::Director, now: EngineTime) -> Vec<(MachineId, EngineTime, Told)> {
    director
        .machines()
        .filter_map(|m| {
            let stuck = director.stuck(m.id, now)?;
            Some((m.id, stuck.since, of_stuck(m, &stuck.what)))
        })
        .collect()
}

/// `GET /v1/webhooks` and `POST /v1/webhooks/{name}/test`.
pub fn router() -> OpenApiRouter<Notifier> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(test))
}

fn problem(status: StatusCode, code: &str, detail: String) -> Response {
    super::routes::problem(status, code, "webhook", detail)
}

#[derive(Serialize, ToSchema)]
struct Webhooks {
    webhooks: Vec<WebhookView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
struct WebhookView {
    name: String,
    /// Events that wait.
    depth: u64,
    delivered: u64,
    failures: u64,
    /// Events that went before it could be told.
    missed: u64,
    failing_since_s: Option<u64>,
    last_error: Option<String>,
}

/// Each hook of the configuration in force, and how it gets on.
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", operation_id = "list_webhooks",
    responses((status = 200, body = Webhooks)))]
async fn list(State(notifier): State<Notifier>) -> Response {
    let webhooks = notifier.numbers().iter().map(|(n, h)| shown(n, h)).collect();
    Json(Webhooks { webhooks }).into_response()
}

fn shown(name: &str, n: &HookNumbers) -> WebhookView {
    WebhookView {
        name: name.to_string(),
        depth: n.depth,
        delivered: n.delivered,
        failures: n.failures,
        missed: n.missed,
        failing_since_s: n.failing.as_ref().map(|f| f.0),
        last_error: n.failing.as_ref().map(|f| f.1.clone()),
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = WebhookTested)]
struct Tested {
    result: String,
}

/// Sends a hook an event `test`, now.
#[utoipa::path(post, path = "/v1/webhooks/{name}/test", tag = "webhooks",
    operation_id = "test_webhook",
    params(("name" = String, Path, description = "The hook's name")),
    responses((status = 200, body = Tested),
        (status = "4XX", body = Body, content_type = "application/problem+json"),
        (status = 502, body = Body, content_type = "application/problem+json",
            description = "Not delivered")))]
async fn test(State(notifier): State<Notifier>, Path(name): Path<String>) -> Response {
    match notifier.test(&name).await {
        Some(Ok(status)) => {
            let result = format!("delivered: it answered {status}");
            Json(Tested { result }).into_response()
        }
        Some(Err(why)) => problem(StatusCode::BAD_GATEWAY, "not-delivered", why),
        None => problem(
            StatusCode::NOT_FOUND,
            "no-such-webhook",
            format!("there is no webhook `{name}` in the configuration in force"),
        ),
    }
}
