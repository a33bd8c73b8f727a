//! The API's part: `POST` and `GET /v1/rotations`.

use super::{Order, Rotator};
use crate::api::problem::Body;
use crate::app::orders::{self, Orders};
use crate::model::controller::{place, placed};
use crate::model::rotation::Rotation;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// `GET` and `POST /v1/rotations`, `POST /v1/rotations/{machine}`.
pub fn router() -> OpenApiRouter<Gate> {
    OpenApiRouter::new().routes(routes!(list, order)).routes(routes!(settle))
}

/// What the routes work with.
pub type Gate = (Rotator, Orders);

/// For [`router`].
pub fn gate(rotator: Rotator) -> Gate {
    let (engine, current) = (rotator.tools.engine.clone(), rotator.tools.current.clone());
    (rotator, Orders::new(engine, current, "password rotation"))
}

/// A rotation as people see it; no password is in it.
#[derive(Serialize, ToSchema)]
#[schema(as = Rotation)]
struct View {
    machine: String,
    /// Of this further controller of the machine; left out: of its host's BMC.
    #[serde(skip_serializing_if = "Option::is_none")]
    controller: Option<String>,
    /// `made`, `escrowed`, `setting`, `proven`, `kept`, `taken-back`, `stuck`.
    phase: &'static str,
    /// It has not come to its end by itself.
    open: bool,
    user: String,
    /// Under which name the password is kept.
    secret: String,
    by: String,
    why: String,
    /// Wall clock in ms since 1970.
    begun_ms: u64,
    since_ms: u64,
    trouble: Option<String>,
}

impl From<&Rotation> for View {
    fn from(r: &Rotation) -> Self {
        let (machine, controller) = r.place();
        Self {
            machine: machine.into(),
            controller: controller.map(Into::into),
            phase: r.phase.name(),
            open: r.is_open(),
            user: r.user.clone(),
            secret: r.new.clone(),
            by: r.by.clone(),
            why: r.why.clone(),
            begun_ms: r.begun_ms,
            since_ms: r.since_ms,
            trouble: r.trouble.clone(),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Rotations {
    rotations: Vec<View>,
}

/// The latest rotation of each BMC.
#[utoipa::path(get, path = "/v1/rotations", tag = "passwords", operation_id = "list_rotations",
    responses((status = 200, body = Rotations),
        (status = 503, body = Body, content_type = "application/problem+json")))]
async fn list(State((rotator, orders)): State<Gate>) -> Response {
    match rotator.list().await {
        Ok(all) => {
            Json(Rotations { rotations: all.iter().map(View::from).collect() }).into_response()
        }
        Err(why) => orders.problem(StatusCode::SERVICE_UNAVAILABLE, "store-unreadable", why),
    }
}

#[derive(Deserialize, ToSchema)]
#[schema(as = RotationOrder)]
struct Asked {
    #[serde(flatten)]
    which: orders::Which,
    why: String,
    /// Set it although no hook keeps it.
    #[serde(default)]
    no_escrow: bool,
}

#[derive(Default, Serialize, ToSchema)]
#[schema(as = RotationsBegun)]
struct Begun {
    /// A machine's name for its host's BMC, `machine/controller` for a further controller.
    started: Vec<String>,
    refused: Vec<NotBegun>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RotationRefused)]
struct NotBegun {
    machine: String,
    /// Of this further controller of the machine; left out: of its host's BMC.
    #[serde(skip_serializing_if = "Option::is_none")]
    controller: Option<String>,
    why: String,
}

/// Begins a rotation of each BMC that is meant: of a machine its host's and those of its further
/// controllers; `machine/controller` among the names means that one alone, `machine/bmc` its host's alone.
#[utoipa::path(post, path = "/v1/rotations", tag = "passwords", operation_id = "rotate_passwords",
    params(("x-farrier-by" = Option<String>, Header, description = "Who says so; default `api`")),
    request_body = Asked,
    responses((status = 200, body = Begun),
        (status = 409, body = Body, content_type = "application/problem+json",
            description = "`confirm-needed`: nothing was begun; repeat it with `confirm`"),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]

async fn order(
    State((rotator, orders)): State<Gate>,
    headers: HeaderMap,
    Json(asked): Json<Asked>,
) -> Response {
    let places: Vec<String> = match orders.bmcs(&asked.which, &asked.why).await {
        Ok(places) => places.into_iter().collect(),
        Err(refused) => return *refused,
    };
    let order = Order { by: orders::by(&headers), why: asked.why, no_escrow: asked.no_escrow };
    let mut begun = Begun::default();
    // Each reads the BMC's rules first: some at a time.
    for part in places.chunks(16) {
        let all = part.iter().map(|place| rotator.order(place, &order));
        let results = futures_util::future::join_all(all).await;
        for (place, result) in part.iter().zip(results) {
            let (machine, controller) = placed(place);
            match result {
                Ok(()) => begun.started.push(place.clone()),
                Err(why) => begun.refused.push(NotBegun {
                    machine: machine.into(),
                    controller: controller.map(Into::into),
                    why,
                }),
            }
        }
    }
    Json(begun).into_response()
}

#[derive(Deserialize, ToSchema)]
#[schema(as = RotationSettle)]
#[serde(deny_unknown_fields)]
struct Settle {
    /// Else: look once more which password works.
    #[serde(default)]
    forget: bool,
    /// That of this further controller of the machine; left out: its host BMC's.
    #[serde(default)]
    controller: Option<String>,
    why: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RotationSettled)]
struct Settled {
    machine: String,
}

/// Goes on with a rotation that is stuck.
#[utoipa::path(post, path = "/v1/rotations/{machine}", tag = "passwords",
    operation_id = "settle_rotation",
    params(("machine" = String, Path, description = "The machine's name"),
        ("x-farrier-by" = Option<String>, Header, description = "Who says so; default `api`")),
    request_body = Settle,
    responses((status = 200, body = Settled),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
async fn settle(
    State((rotator, orders)): State<Gate>,
    Path(machine): Path<String>,
    headers: HeaderMap,
    Json(asked): Json<Settle>,
) -> Response {
    let by = format!("{}: {}", orders::by(&headers), asked.why);
    let place = place(&machine, asked.controller.as_deref());
    match rotator.settle(&place, asked.forget, &by).await {
        Ok(()) => Json(Settled { machine }).into_response(),
        Err(why) => orders.problem(StatusCode::CONFLICT, "not-now", why),
    }
}
