//! The site at a glance: status, limits, health.

use super::State;
use super::engine::ask;
use super::problem::{Body, Problem};
use super::view::{LimitView, Limits, OutageView, Status, StopView};
use crate::engine::Director;
use crate::model::{Channel, EngineTime};
use axum::Json;
use axum::extract::State as Of;
use std::collections::BTreeMap;

/// Counts, and whether actions are allowed.
#[utoipa::path(get, path = "/v1/status", tag = "site", operation_id = "status",
    responses((status = 200, body = Status),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn status(Of(state): Of<State>) -> Result<Json<Status>, Problem> {
    let mut status = ask(&state, count).await?;
    status.site = state.site_name.to_string();
    status.version = state.version.to_string();
    status.confirm_max = state.confirm_max;
    Ok(Json(status))
}

/// Failure domains that are out now.
pub(crate) fn outages(d: &Director, now: EngineTime) -> Vec<OutageView> {
    let out = d.outages().filter(|o| !o.is_over());
    out.map(|o| OutageView {
        per: o.kind.name().into(),
        domain: o.name.to_string(),
        channel: if o.channel == Channel::Host { "host" } else { "bmc" }.into(),
        out: o.out,
        of: o.of,
        for_ms: now.since(o.since),
        text: o.to_string(),
    })
    .collect()
}

pub(super) fn count(d: &Director, now: EngineTime) -> Status {
    let mut s = Status {
        incarnation: d.site().incarnation.to_string(),
        engine_ms: now.0,
        observe_only: d.observe_only(),
        outages: outages(d, now),
        stopped: d.stopped().map(|stopped| StopView {
            by: stopped.by.clone(),
            why: stopped.why.clone(),
            for_ms: now.since(stopped.at),
        }),
        unwritable: d.unwritable().map(str::to_string),
        ..Status::default()
    };
    for m in d.machines().filter(|m| m.seq > 0) {
        s.machines += 1;
        one_more(&mut s.by_stage, m.stage.name());
        one_more(&mut s.by_condition, m.condition.name());
        one_more(&mut s.by_control, m.control.name());
        s.held += usize::from(m.hold.is_some());
        s.stuck += usize::from(d.overdue(m.id, now));
        s.out_of_band += u64::from(m.out_of_band);
        s.open_actions += usize::from(m.open.is_some());
    }
    s
}

fn one_more(counts: &mut BTreeMap<String, usize>, key: &str) {
    match counts.get_mut(key) {
        Some(n) => *n += 1,
        None => drop(counts.insert(key.to_string(), 1)),
    }
}

/// How full the limits are.
#[utoipa::path(get, path = "/v1/limits", tag = "site", operation_id = "limits",
    responses((status = 200, body = Limits),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn limits(Of(state): Of<State>) -> Result<Json<Limits>, Problem> {
    let limits = ask(&state, |d, _| {
        d.headroom()
            .taken()
            .map(|(limit, domain, taken, waiting)| LimitView {
                class: limit.class.name().into(),
                per: limit.per.name().into(),
                domain: domain.to_string(),
                taken,
                max: limit.max,
                waiting,
            })
            .collect()
    })
    .await?;
    Ok(Json(Limits { limits }))
}

/// `ok` while the engine answers. Needs no token.
#[utoipa::path(get, path = "/healthz", tag = "site", operation_id = "health", security(()),
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = Body, content_type = "application/problem+json")))]
pub(super) async fn health(Of(state): Of<State>) -> Result<&'static str, Problem> {
    ask(&state, |_, _| "ok\n").await
}
