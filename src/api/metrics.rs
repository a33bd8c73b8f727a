//! Prometheus text (exposition format 0.0.4). No label names a machine: the number of series does
//! not grow with the fleet.

use super::State;
use super::engine::ask;
use super::problem::{Body, Problem};
use super::view::Status;
use crate::engine::Director;
use crate::model::{EngineTime, Stage};
use axum::extract::State as Of;
use axum::http::header;
use axum::response::IntoResponse;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "site", operation_id = "metrics",
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn metrics(Of(state): Of<State>) -> Result<impl IntoResponse, Problem> {
    let version = state.version.clone();
    let text = ask(&state, move |d, now| write(d, now, &version)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

fn write(d: &Director, now: EngineTime, version: &str) -> String {
    let status = super::site::count(d, now);
    let mut oldest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut runs = 0_u64;
    for m in d.machines().filter(|m| m.seq > 0) {
        runs += u64::from(m.run.is_some());
        if !m.stage.is_resting() {
            let age = oldest.entry(m.stage.name()).or_default();
            *age = (*age).max(now.since(m.stage_since));
        }
    }
    let mut out = String::new();
    let o = &mut out;
    head(o, "farrier_info", "gauge", "The daemon's version.");
    line(o, "farrier_info", &[("version", version)], 1);
    counts(o, &status);
    head(o, "farrier_held", "gauge", "Machines that are held.");
    line(o, "farrier_held", &[], status.held);
    head(o, "farrier_runs", "gauge", "Machines on their way.");
    line(o, "farrier_runs", &[], runs);
    head(o, "farrier_open_actions", "gauge", "Actions that are not yet observed finished.");
    line(o, "farrier_open_actions", &[], status.open_actions);
    head(
        o,
        "farrier_stage_age_max_seconds",
        "gauge",
        "Longest time that a machine has been in a stage that is not a resting place.",
    );
    for stage in Stage::ALL.iter().filter(|s| !s.is_resting()) {
        let age = oldest.get(stage.name()).copied().unwrap_or(0) / 1000;
        line(o, "farrier_stage_age_max_seconds", &[("stage", stage.name())], age);
    }
    limits(o, d);
    head(o, "farrier_stopped", "gauge", "1 while actions are stopped.");
    line(o, "farrier_stopped", &[], u8::from(status.stopped.is_some()));
    head(o, "farrier_unwritable", "gauge", "1 while the database can't be written.");
    line(o, "farrier_unwritable", &[], u8::from(status.unwritable.is_some()));
    head(o, "farrier_observe_only", "gauge", "1 when the daemon only observes.");
    line(o, "farrier_observe_only", &[], u8::from(status.observe_only));
    head(o, "farrier_engine_time_seconds", "counter", "Engine time.");
    line(o, "farrier_engine_time_seconds", &[], now.0 / 1000);
    out
}

/// Every legal value is written, also when no machine has it: a series that vanishes can't alert.
fn counts(o: &mut String, status: &Status) {
    let stages: Vec<&str> = Stage::ALL.iter().map(|s| s.name()).collect();
    let conditions = ["ok", "backing-off", "unreachable", "quarantined"];
    let controls = ["unmanaged", "adopted", "enrolled"];
    for (name, label, help, legal, counted) in [
        ("farrier_machines", "stage", "Machines by stage.", &stages[..], &status.by_stage),
        (
            "farrier_machines_by_condition",
            "condition",
            "Machines by condition.",
            &conditions[..],
            &status.by_condition,
        ),
        (
            "farrier_machines_by_control",
            "control",
            "Machines by control mode.",
            &controls[..],
            &status.by_control,
        ),
    ] {
        head(o, name, "gauge", help);
        for value in legal {
            line(o, name, &[(label, value)], counted.get(*value).copied().unwrap_or(0));
        }
    }
}

fn limits(o: &mut String, d: &Director) {
    let buckets: Vec<_> = d.headroom().taken().collect();
    for (name, help) in [
        ("farrier_limit_taken", "Machines that hold a limit."),
        ("farrier_limit_max", "Machines that may hold a limit at once."),
        ("farrier_limit_waiting", "Machines that wait for room."),
    ] {
        head(o, name, "gauge", help);
        for (limit, domain, taken, waiting) in &buckets {
            let value = match name {
                "farrier_limit_taken" => u64::from(*taken),
                "farrier_limit_max" => u64::from(limit.max),
                _ => *waiting as u64,
            };
            let labels =
                [("class", limit.class.name()), ("per", limit.per.name()), ("domain", *domain)];
            line(o, name, &labels, value);
        }
    }
}

fn head(o: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(o, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
}

fn line(o: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    o.push_str(name);
    for (n, (key, text)) in labels.iter().enumerate() {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        write!(o, "{}{key}=\"{text}\"", if n == 0 { '{' } else { ',' }).ok();
    }
    if !labels.is_empty() {
        o.push('}');
    }
    writeln!(o, " {value}").ok();
}
