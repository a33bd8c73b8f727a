//! The world's own door, for the demo's parent, its cluster hook and the tests: nothing that a real
//! machine has.
//!
//! | call | what |
//! | --- | --- |
//! | `GET /truth` | every machine's truth log, oldest first |
//! | `GET /counters` | what the wire has seen of each machine |
//! | `GET /machines` | how each machine stands physically |
//! | `POST /hook` | the cluster hook: probe, join, cordon, uncordon, leave |
//! | `GET`, `POST`, `DELETE /rules`, `DELETE /rules/{id}` | fault rules ([`super::rules`]), with their hits |
//! | `POST /machines/{name}/{deed}` | somebody at the rack: [`DEEDS`] |

use super::World;
use super::redfish::apply;
use super::rules::Rule;
use super::seat::Seat;
use crate::model::{Action, EngineTime, HookVerb};
use crate::sim::physics::HostState;
use crate::sim::truth::{Cause, Effect, What};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::net::TcpListener;

pub(super) async fn serve(world: Arc<World>, listener: TcpListener) {
    let router = Router::new()
        .route("/truth", get(|State(w): State<Arc<World>>| async move { Json(truth(&w)) }))
        .route("/counters", get(|State(w): State<Arc<World>>| async move { Json(counters(&w)) }))
        .route("/machines", get(|State(w): State<Arc<World>>| async move { Json(machines(&w)) }))
        .route("/machines/{name}/{deed}", post(do_deed))
        .route("/rules", get(list_rules).post(add_rule).delete(remove_rules))
        .route("/rules/{id}", delete(remove_rule))
        .route("/hook", post(hook))
        .with_state(world);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the world's admin listener ended");
    }
}

/// The truth log of all machines: `{"name": [{"at_ms", "what", …}]}`.
pub fn truth(world: &World) -> Value {
    let now = world.now();
    let of = |seat: &Arc<Seat>| {
        let log = seat.with(now, |b| b.vm.truth.effects().iter().map(line).collect::<Vec<_>>());
        (seat.name.to_string(), Value::from(log))
    };
    Value::Object(world.seats.iter().map(of).collect())
}

fn line(effect: &Effect) -> Value {
    let scene = &effect.scene;
    let mut out = json!({
        "at_ms": effect.at.0, "what": effect.what.name(),
        "by": match effect.by {
            Cause::Farrier { .. } => "wire",
            Cause::Human => "human",
            Cause::Itself => "itself",
        },
        "right_machine": scene.right_machine, "workloads": scene.workloads,
        "closed": scene.closed, "flashing": scene.flashing, "was_on": scene.was_on,
    });
    match effect.what {
        What::FlashStarted { slot, already, staged, busy } => {
            out["slot"] = slot.into();
            out["already"] = already.into();
            out["staged"] = staged.into();
            out["busy"] = busy.into();
        }
        What::FlashEnded { slot, ok } => {
            out["slot"] = slot.into();
            out["ok"] = ok.into();
        }
        What::FlashBroken { slot } | What::CopyStarted { slot } | What::CopyEnded { slot } => {
            out["slot"] = slot.into();
        }
        What::CopyBroken { slot, since } => {
            out["slot"] = slot.into();
            out["since_ms"] = since.0.into();
        }
        What::InstallEnded { ok } => out["ok"] = ok.into(),
        _ => {}
    }
    out
}

fn counters(world: &World) -> Value {
    let of = |seat: &Arc<Seat>| {
        let mut list: Map<String, Value> =
            seat.counters.list().into_iter().map(|(k, v)| (k.to_string(), v.into())).collect();
        let open = seat.with(world.now(), |b| b.sessions.len());
        list.insert("open_sessions".into(), open.into());
        (seat.name.to_string(), Value::Object(list))
    };
    Value::Object(world.seats.iter().map(of).collect())
}

fn machines(world: &World) -> Value {
    let now = world.now();
    let of = |seat: &Arc<Seat>| {
        let shown = seat.with(now, |b| {
            let vm = &b.vm;
            let versions: Map<String, Value> =
                vm.firmware.iter().map(|s| (s.id.to_string(), (*s.version).into())).collect();
            json!({
                "address": seat.address.to_string(), "power": format!("{:?}", vm.power),
                "host": format!("{:?}", vm.host), "bmc_up": vm.bmc_up, "boots": vm.boots,
                "firmware": versions, "member": vm.node.member, "ready": vm.node.is_ready(now),
                "image": vm.installed.as_ref().and_then(|i| i.image.as_deref()),
                "root": seat.root.display().to_string(),
            })
        });
        (seat.name.to_string(), shown)
    };
    Value::Object(world.seats.iter().map(of).collect())
}

/// What somebody at the rack can do to a machine.
pub const DEEDS: [&str; 11] = [
    "pull-power",
    "restore-power",
    "cut-network",
    "restore-network",
    "reset-bmc",
    "press-power",
    "rebuild",
    "mend",
    "renew-certificate",
    "queue-job",
    "clear-jobs",
];

/// `cut-network` drops packets, so nobody is refused; `pull-power` takes the BMC with it; `rebuild`
/// puts a machine fresh from the factory in the place; `mend` is a person's repair;
/// `renew-certificate` has the BMC make another one; `queue-job` puts a job of somebody's into the BMC's
/// queue, `clear-jobs` takes those out again.
async fn do_deed(
    State(world): State<Arc<World>>,
    Path((name, deed)): Path<(String, String)>,
) -> Response {
    let Some(seat) = world.seat(&name) else {
        return said(StatusCode::NOT_FOUND, &format!("no machine `{name}` here"));
    };
    let now = world.now();
    match deed.as_str() {
        "pull-power" => seat.with(now, |b| b.vm.lose_mains(now)),
        "restore-power" => seat.with(now, |b| b.vm.mains_back(now)),
        "cut-network" => seat.silence_bmc(now, EngineTime::NEVER),
        "restore-network" => seat.cut_bmc_off(now, EngineTime::ZERO),
        "reset-bmc" => seat.with(now, |b| b.vm.reset_bmc_by_hand(now)),
        "press-power" => seat.with(now, |b| b.vm.press_power(now)),
        "rebuild" => seat.with(now, |b| b.vm.rebuild(now)),
        "mend" => seat.with(now, |b| b.vm.mend(now)),
        "renew-certificate" => seat.certificate.renew(),
        "queue-job" => seat.with(now, |b| b.queue_job()),
        "clear-jobs" => seat.with(now, |b| {
            b.jobs.clear();
            b.vm.release_updates(now);
        }),
        _ => {
            let why = format!("nobody can `{deed}` here; one of {}", DEEDS.join(", "));
            return said(StatusCode::BAD_REQUEST, &why);
        }
    }
    StatusCode::NO_CONTENT.into_response()
}

fn said(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

async fn list_rules(State(world): State<Arc<World>>) -> Json<Value> {
    Json(world.rules.list())
}

async fn add_rule(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let rule = match serde_json::from_slice::<Value>(&body) {
        Ok(rule) => rule,
        Err(error) => return said(StatusCode::BAD_REQUEST, &format!("no JSON: {error}")),
    };
    match Rule::parse(&rule) {
        Ok(rule) => {
            (StatusCode::CREATED, Json(json!({ "id": world.rules.add(rule) }))).into_response()
        }
        Err(mistake) => said(StatusCode::BAD_REQUEST, &mistake.to_string()),
    }
}

async fn remove_rules(State(world): State<Arc<World>>) -> StatusCode {
    world.rules.remove(None);
    StatusCode::NO_CONTENT
}

async fn remove_rule(State(world): State<Arc<World>>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<u64>() else {
        return said(StatusCode::BAD_REQUEST, &format!("`{id}` is no rule's number"));
    };
    match world.rules.remove(Some(id)) {
        0 => said(StatusCode::NOT_FOUND, &format!("no rule {id}")),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

/// The cluster hook's JSON contract: the provider's side of it.
async fn hook(State(world): State<Arc<World>>, Json(order): Json<Value>) -> Response {
    let name = order["machine"].as_str().unwrap_or_default();
    let Some(seat) = world.seat(name) else {
        let why = format!("no machine `{name}` here");
        return (StatusCode::NOT_FOUND, Json(json!({"ok": false, "error": why}))).into_response();
    };
    let verb = match order["verb"].as_str() {
        Some("probe") => {
            let now = world.now();
            let seen = seat.with(now, |b| b.vm.membership(now));
            return Json(json!({
                "member": seen.member, "ready": seen.ready, "cordoned": seen.cordoned,
                "workloads": seen.workloads, "detail": "virtual cluster",
            }))
            .into_response();
        }
        Some("join") => HookVerb::Join,
        Some("cordon") => HookVerb::Cordon,
        Some("uncordon") => HookVerb::Uncordon,
        Some("leave") => HookVerb::Leave,
        other => {
            let why = format!("no verb `{}`", other.unwrap_or("?"));
            return (StatusCode::BAD_REQUEST, Json(json!({"ok": false, "error": why})))
                .into_response();
        }
    };
    Json(match write(&world, seat, verb) {
        Ok(()) => json!({"ok": true}),
        Err(why) => json!({"ok": false, "error": why}),
    })
    .into_response()
}

fn write(world: &World, seat: &Seat, verb: HookVerb) -> Result<(), String> {
    let now = world.now();
    let (host, workloads) = seat.with(now, |b| (b.vm.host, b.vm.node.workloads(now)));
    match verb {
        HookVerb::Join if host != HostState::Running => return Err("the node is not up".into()),
        HookVerb::Leave if workloads > 0 => {
            return Err(format!("{workloads} workloads run on the node"));
        }
        _ => {}
    }
    apply(world, seat, &Action::Hook { verb });
    Ok(())
}
