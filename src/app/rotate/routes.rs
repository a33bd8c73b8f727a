//! The API's part: `POST` and `GET /v1/rotations`.

use super::{Order, Rotator};
use crate::app::orders::{self, Orders};
use crate::model::rotation::Rotation;
use crate::port::Secret;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

/// `GET` and `POST /v1/rotations`, `POST /v1/rotations/{machine}`.
pub fn router(rotator: Rotator, token: Option<Secret>) -> Router {
    let orders = Orders::new(
        rotator.tools.engine.clone(),
        rotator.tools.current.clone(),
        token,
        "password rotation",
    );
    Router::new()
        .route("/v1/rotations", get(list).post(order))
        .route("/v1/rotations/{machine}", post(settle))
        .with_state((rotator, orders))
}

type Gate = State<(Rotator, Orders)>;

/// A rotation as people see it; no password is in it.
fn shown(r: &Rotation) -> Value {
    json!({
        "machine": r.machine,
        "phase": r.phase.name(),
        "open": r.is_open(),
        "user": r.user,
        "secret": r.new,
        "by": r.by,
        "why": r.why,
        "begun_ms": r.begun_ms,
        "since_ms": r.since_ms,
        "trouble": r.trouble,
    })
}

async fn list(State((rotator, orders)): Gate, headers: HeaderMap) -> Response {
    if let Some(refused) = orders.refuse(&headers) {
        return refused;
    }
    match rotator.list().await {
        Ok(all) => {
            let all: Vec<Value> = all.iter().map(shown).collect();
            Json(json!({ "rotations": all })).into_response()
        }
        Err(why) => orders.problem(StatusCode::SERVICE_UNAVAILABLE, "store-unreadable", why),
    }
}

#[derive(Deserialize)]
struct Asked {
    #[serde(flatten)]
    which: orders::Which,
    why: String,
    #[serde(default)]
    no_escrow: bool,
}

async fn order(
    State((rotator, orders)): Gate,
    headers: HeaderMap,
    Json(asked): Json<Asked>,
) -> Response {
    if let Some(refused) = orders.refuse(&headers) {
        return refused;
    }
    let names = match orders.names(&asked.which, &asked.why).await {
        Ok(names) => names,
        Err(refused) => return *refused,
    };
    let order = Order { by: orders::by(&headers), why: asked.why, no_escrow: asked.no_escrow };
    let (mut started, mut refused) = (Vec::new(), Vec::new());
    // Each reads the BMC's rules first: some at a time.
    for part in names.chunks(16) {
        let all = part.iter().map(|name| rotator.order(name, &order));
        let results = futures_util::future::join_all(all).await;
        for (name, result) in part.iter().zip(results) {
            match result {
                Ok(()) => started.push(name.clone()),
                Err(why) => refused.push(json!({ "machine": name, "why": why })),
            }
        }
    }
    Json(json!({ "started": started, "refused": refused })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settle {
    /// Else: look once more which password works.
    #[serde(default)]
    forget: bool,
    why: String,
}

async fn settle(
    State((rotator, orders)): Gate,
    Path(machine): Path<String>,
    headers: HeaderMap,
    Json(asked): Json<Settle>,
) -> Response {
    if let Some(refused) = orders.refuse(&headers) {
        return refused;
    }
    let by = format!("{}: {}", orders::by(&headers), asked.why);
    match rotator.settle(&machine, asked.forget, &by).await {
        Ok(()) => Json(json!({ "machine": machine })).into_response(),
        Err(why) => orders.problem(StatusCode::CONFLICT, "not-now", why),
    }
}
