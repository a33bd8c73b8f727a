//! Webhooks wired up: hooks from the configuration, machines that are stuck, and the API's part.
#![allow(clippy::disallowed_methods, reason = "looks for stuck machines every minute")]

use crate::config::daemon::Webhook;
use crate::engine::clock::wall_ms;
use crate::engine::driver::Handle;
use crate::model::{EngineTime, MachineId};
use crate::notify::{Hook, HookNumbers, Notifier};
use crate::port::Secret;
use crate::port::outbox::{EventKind, Outbox, Told, of_stuck};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

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
pub fn router(notifier: Notifier, token: Option<Secret>) -> Router {
    Router::new()
        .route("/v1/webhooks", get(list))
        .route("/v1/webhooks/{name}/test", post(test))
        .with_state(Gate { notifier, token })
}

#[derive(Clone)]
struct Gate {
    notifier: Notifier,
    token: Option<Secret>,
}

impl Gate {
    fn refuse(&self, headers: &HeaderMap) -> Option<Response> {
        let token = self.token.as_ref()?;
        (!super::reload::is_token(headers, token))
            .then(|| problem(StatusCode::UNAUTHORIZED, "unauthorized", "a token is needed".into()))
    }
}

fn problem(status: StatusCode, code: &str, detail: String) -> Response {
    let body = json!({
        "status": status.as_u16(), "code": code, "title": "webhook", "detail": detail,
    });
    (status, [("content-type", "application/problem+json")], body.to_string()).into_response()
}

async fn list(State(gate): State<Gate>, headers: HeaderMap) -> Response {
    if let Some(refused) = gate.refuse(&headers) {
        return refused;
    }
    let hooks: Vec<Value> = gate.notifier.numbers().iter().map(|(n, h)| shown(n, h)).collect();
    Json(json!({ "webhooks": hooks })).into_response()
}

fn shown(name: &str, n: &HookNumbers) -> Value {
    json!({
        "name": name,
        "depth": n.depth,
        "delivered": n.delivered,
        "failures": n.failures,
        "missed": n.missed,
        "failing_since_s": n.failing.as_ref().map(|f| f.0),
        "last_error": n.failing.as_ref().map(|f| &f.1),
    })
}

async fn test(State(gate): State<Gate>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    if let Some(refused) = gate.refuse(&headers) {
        return refused;
    }
    match gate.notifier.test(&name).await {
        Some(Ok(status)) => {
            Json(json!({ "result": format!("delivered: it answered {status}") })).into_response()
        }
        Some(Err(why)) => problem(StatusCode::BAD_GATEWAY, "not-delivered", why),
        None => problem(
            StatusCode::NOT_FOUND,
            "no-such-webhook",
            format!("there is no webhook `{name}` in the configuration in force"),
        ),
    }
}
