//! Prometheus text (exposition format 0.0.4). No label names a machine: the number of series does
//! not grow with the fleet.

use super::State;
use super::engine::ask;
use super::exposition::Text;
use super::problem::{Body, Problem};
use super::view::Status;
use crate::engine::Director;
use crate::engine::meter::{Meter, OUTCOMES};
use crate::model::{ActionKind, EngineTime, FaultClass, Stage};
use crate::notify::HookNumbers;
use axum::extract::State as Of;
use axum::http::header;
use axum::response::IntoResponse;
use std::collections::BTreeMap;
use std::path::Path;

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "site", operation_id = "metrics",
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn metrics(Of(state): Of<State>) -> Result<impl IntoResponse, Problem> {
    let mut text = ask(&state, write).await?;
    text.head("farrier_info", "gauge", "The daemon's version.");
    text.line("farrier_info", &[("version", &state.version)], 1);
    counters(&mut text, &state.engine.meter);
    if let Some(webhooks) = &state.webhooks {
        hooks(&mut text, &webhooks.numbers());
    }
    if let Some(path) = &state.database {
        text.head("farrier_database_bytes", "gauge", "Size of the database and its log, in bytes.");
        text.line("farrier_database_bytes", &[], size(path).await);
    }
    let text = text.into_string();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

/// The file and SQLite's write-ahead log beside it.
async fn size(path: &Path) -> u64 {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let mut bytes = 0;
    for path in [path, Path::new(&wal)] {
        bytes += tokio::fs::metadata(path).await.map_or(0, |m| m.len());
    }
    bytes
}

/// What the director knows now.
fn write(d: &Director, now: EngineTime) -> Text {
    let status = super::site::count(d, now);
    let mut of = Stages::default();
    let (mut runs, mut entries) = (0_u64, 0_u64);
    for m in d.machines().filter(|m| m.seq > 0) {
        runs += u64::from(m.run.is_some());
        entries += m.seq;
        let n = m.stage as usize;
        if !m.stage.is_resting() {
            of.oldest_ms[n] = of.oldest_ms[n].max(now.since(m.stage_since));
        }
        of.stuck[n] += u64::from(d.overdue(m.id, now));
        of.quarantined[n] += u64::from(m.is_quarantined());
    }
    let mut text = Text::default();
    let o = &mut text;
    counts(o, &status);
    o.one("farrier_held", "gauge", "Machines that are held.", status.held);
    o.one("farrier_runs", "gauge", "Machines on their way.", runs);
    o.one(
        "farrier_open_actions",
        "gauge",
        "Actions that are not yet observed finished.",
        status.open_actions,
    );
    of.write(o);
    o.one(
        "farrier_out_of_band_changes",
        "gauge",
        "Changes made behind Farrier's back, on all machines since their registration.",
        status.out_of_band,
    );
    o.one("farrier_domains_out", "gauge", "Failure domains that are out.", status.outages.len());
    limits(o, d);
    let (counted, trip) = d.breaker(now);
    let help = "Quarantines that the circuit breaker counts in its window.";
    o.one("farrier_breaker_quarantines", "gauge", help, counted);
    o.one("farrier_breaker_limit", "gauge", "Quarantines that trip it; 0: it is off.", trip);
    let tripped = d.stopped().is_some_and(|s| s.by == "circuit-breaker");
    let help = "1 while actions are stopped by the circuit breaker.";
    o.one("farrier_breaker_tripped", "gauge", help, u8::from(tripped));
    let stopped = u8::from(status.stopped.is_some());
    o.one("farrier_stopped", "gauge", "1 while actions are stopped.", stopped);
    let unwritable = u8::from(status.unwritable.is_some());
    o.one("farrier_unwritable", "gauge", "1 while the database can't be written.", unwritable);
    let observe = u8::from(status.observe_only);
    o.one("farrier_observe_only", "gauge", "1 when the daemon only observes.", observe);
    o.one("farrier_engine_time_seconds", "counter", "Engine time.", now.0 / 1000);
    o.one(
        "farrier_engine_lag_seconds",
        "gauge",
        "How late the engine is with the machine that is due first.",
        seconds(now.since(d.next_due()).saturating_mul(1000)),
    );
    o.one(
        "farrier_journal_entries",
        "gauge",
        "Journal entries of all machines since their registration.",
        entries,
    );
    text
}

#[derive(Default)]
struct Stages {
    oldest_ms: [u64; Stage::ALL.len()],
    stuck: [u64; Stage::ALL.len()],
    quarantined: [u64; Stage::ALL.len()],
}

impl Stages {
    fn write(&self, o: &mut Text) {
        let name = "farrier_stage_age_max_seconds";
        o.head(
            name,
            "gauge",
            "Longest time that a machine has been in a stage that is not a resting place.",
        );
        for stage in Stage::ALL.into_iter().filter(|s| !s.is_resting()) {
            o.line(name, &[("stage", stage.name())], self.oldest_ms[stage as usize] / 1000);
        }
        o.head("farrier_stuck", "gauge", "Machines past the SLA of their stage.");
        for stage in Stage::ALL.into_iter().filter(|s| !s.is_resting()) {
            o.line("farrier_stuck", &[("stage", stage.name())], self.stuck[stage as usize]);
        }
        o.head("farrier_quarantined", "gauge", "Machines in quarantine.");
        for stage in Stage::ALL {
            let n = self.quarantined[stage as usize];
            o.line("farrier_quarantined", &[("stage", stage.name())], n);
        }
    }
}

/// Every legal value is written, also when no machine has it: a series that vanishes can't alert.
fn counts(o: &mut Text, status: &Status) {
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
        o.head(name, "gauge", help);
        for value in legal {
            o.line(name, &[(label, value)], counted.get(*value).copied().unwrap_or(0));
        }
    }
}

fn limits(o: &mut Text, d: &Director) {
    let buckets: Vec<_> = d.headroom().taken().collect();
    for (name, help) in [
        ("farrier_limit_taken", "Machines that hold a limit."),
        ("farrier_limit_max", "Machines that may hold a limit at once."),
        ("farrier_limit_waiting", "Machines that wait for room."),
    ] {
        // None was used or waited for since the start.
        if buckets.is_empty() {
            return;
        }
        o.head(name, "gauge", help);
        for (limit, domain, taken, waiting) in &buckets {
            let value = match name {
                "farrier_limit_taken" => u64::from(*taken),
                "farrier_limit_max" => u64::from(limit.max),
                _ => *waiting as u64,
            };
            let labels =
                [("class", limit.class.name()), ("per", limit.per.name()), ("domain", *domain)];
            o.line(name, &labels, value);
        }
    }
}

/// What was done since the daemon started.
fn counters(o: &mut Text, meter: &Meter) {
    let name = "farrier_actions_total";
    o.head(name, "counter", "Actions by kind, and by what the other side answered.");
    for kind in ActionKind::ALL {
        for (outcome, count) in OUTCOMES.into_iter().zip(meter.actions(kind)) {
            o.line(name, &[("kind", kind.name()), ("outcome", outcome)], count.get());
        }
    }
    let name = "farrier_actions_observed_total";
    o.head(name, "counter", "Actions of which a probe showed whether they took hold.");
    o.line(name, &[("happened", "true")], meter.happened.get());
    o.line(name, &[("happened", "false")], meter.not_happened.get());
    let name = "farrier_faults_total";
    o.head(name, "counter", "Failures that entered the journal, by class.");
    for class in FaultClass::ALL {
        o.line(name, &[("class", class.name())], meter.faults(class));
    }
    let name = "farrier_quarantines_total";
    o.head(name, "counter", "Quarantines, by the class of their fault.");
    for class in FaultClass::ALL {
        o.line(name, &[("class", class.name())], meter.quarantines(class));
    }
    let help = "Changes behind Farrier's back that were noticed.";
    o.one("farrier_out_of_band_total", "counter", help, meter.out_of_band.get());
    o.one("farrier_commits_total", "counter", "Durable transactions.", meter.commits.get());
    let help = "Transactions that failed.";
    o.one("farrier_commits_failed_total", "counter", help, meter.commits_failed.get());
    let help = "Journal entries that became durable.";
    o.one("farrier_entries_total", "counter", help, meter.entries.get());
    let help = "One transaction, from the order to its answer.";
    o.histogram("farrier_commit_seconds", help, &meter.commit_time);
    let name = "farrier_probe_reads_total";
    o.head(name, "counter", "Parts of probes, by whether they could be read.");
    for (part, seen, failed) in meter.reads() {
        o.line(name, &[("part", part), ("result", "seen")], seen);
        o.line(name, &[("part", part), ("result", "failed")], failed);
    }
    let help = "One probe of one machine.";
    o.histogram("farrier_probe_seconds", help, &meter.probe_time);
}

/// The outbox as each webhook sees it. Hooks are named in the configuration: there are a few.
fn hooks(o: &mut Text, hooks: &BTreeMap<String, HookNumbers>) {
    if hooks.is_empty() {
        return;
    }
    type Value = fn(&HookNumbers) -> u64;
    let families: [(&str, &str, &str, Value); 5] = [
        ("farrier_webhook_depth", "gauge", "Lines of the outbox still to be told.", |n| n.depth),
        ("farrier_webhook_failing", "gauge", "1 while deliveries fail.", |n| {
            u64::from(n.failing.is_some())
        }),
        ("farrier_webhook_delivered_total", "counter", "Deliveries that went through.", |n| {
            n.delivered
        }),
        ("farrier_webhook_failures_total", "counter", "Deliveries that failed.", |n| n.failures),
        ("farrier_webhook_missed_total", "counter", "Lines that were gone too early.", |n| {
            n.missed
        }),
    ];
    for (name, kind, help, value) in families {
        o.head(name, kind, help);
        for (hook, numbers) in hooks {
            o.line(name, &[("webhook", hook)], value(numbers));
        }
    }
}

/// Microseconds as seconds, exactly.
pub(super) fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}
