//! What the daemon's API has besides that of [`crate::api`]: orders that the engine does not carry
//! out. Everything here stands behind the API's guard and in its description.

use super::{identify, netboot, pins, reload, rotate, webhooks};
use crate::api::problem::Body;
use crate::notify::Notifier;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;

/// What the routes work with.
#[derive(Debug)]
pub struct Desks {
    pub control: reload::Control,
    pub rotations: rotate::Gate,
    pub pins: pins::Desk,
    pub notifier: Notifier,
    pub dhcp: netboot::Desk,
    pub looks: identify::Desk,
}

/// For [`crate::api::router`].
pub fn router(desks: Desks) -> OpenApiRouter {
    reload::router()
        .with_state(desks.control)
        .merge(rotate::router().with_state(desks.rotations))
        .merge(pins::router().with_state(desks.pins))
        .merge(webhooks::router().with_state(desks.notifier))
        .merge(netboot::router().with_state(desks.dhcp))
        .merge(identify::router().with_state(desks.looks))
}

/// The whole API's description, checked in as `openapi.json`.
pub fn openapi() -> String {
    let mut more = reload::router().into_openapi();
    more.merge(rotate::router().into_openapi());
    more.merge(pins::router().into_openapi());
    more.merge(webhooks::router().into_openapi());
    more.merge(netboot::router().into_openapi());
    more.merge(identify::router().into_openapi());
    crate::api::openapi(more)
}

/// An error in the shape that all of the API's have (RFC 9457).
pub(super) fn problem(status: StatusCode, code: &str, title: &str, detail: String) -> Response {
    let body = Body {
        kind: format!("urn:farrier:problem:{code}"),
        code: code.into(),
        title: title.into(),
        status: status.as_u16(),
        detail,
        ..Body::default()
    };
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, kind, serde_json::to_vec(&body).unwrap_or_default()).into_response()
}
