//! The site at a glance; stop and resume.

use super::client::Api;
use super::out::{Cell, Failure, Io, Paint};
use crate::api::view::{Limits, Status, StopView, WhyOrder};
use crate::api::words::span;
use crate::model::Stage;
use std::collections::BTreeMap;

pub(super) async fn stop(api: &Api, why: &str, io: &mut Io<'_>) -> Result<(), Failure> {
    let order = WhyOrder { why: why.into() };
    let answer = api.post::<StopView>("/v1/stop", &order, None).await?;
    if io.json {
        return io.document(&answer.raw);
    }
    io.line("stopped: no new action at any machine; probes go on")?;
    io.line("`farrier resume` allows actions again")
}

pub(super) async fn resume(api: &Api, why: &str, io: &mut Io<'_>) -> Result<(), Failure> {
    let order = WhyOrder { why: why.into() };
    let answer = api.post::<WhyOrder>("/v1/resume", &order, None).await?;
    if io.json {
        return io.document(&answer.raw);
    }
    io.line("resumed: actions are allowed again")
}

pub(super) async fn reload(
    api: &Api,
    confirm: Option<usize>,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    #[derive(serde::Deserialize)]
    struct Answer {
        result: String,
    }
    let order = serde_json::json!({ "confirm": confirm });
    let answer = api.post::<Answer>("/v1/reload", &order, None).await?;
    if io.json {
        return io.document(&answer.raw);
    }
    io.line(answer.value.result)
}

pub(super) async fn status(api: &Api, io: &mut Io<'_>) -> Result<(), Failure> {
    let answer = api.get::<Status>("/v1/status").await?;
    if io.json {
        return io.document(&answer.raw);
    }
    let s = answer.value;
    let title = io.paint(Paint::Bold, &s.site);
    io.line(title)?;
    if let Some(stop) = &s.stopped {
        let text =
            format!("actions are stopped by {} for {}: {}", stop.by, span(stop.for_ms), stop.why);
        let line = io.paint(Paint::Red, &super::out::printable(&text));
        io.line(line)?;
    }
    for outage in &s.outages {
        let text = format!("{} (for {})", outage.text, span(outage.for_ms));
        let line = io.paint(Paint::Yellow, &super::out::printable(&text));
        io.line(line)?;
    }
    if let Some(why) = &s.unwritable {
        let line = io.paint(Paint::Red, &super::out::printable(why));
        io.line(line)?;
    }
    let blocked = (s.observe_only, s.stopped.is_some(), s.unwritable.is_some());
    let actions = match blocked {
        (true, ..) => "none: the daemon only observes".into(),
        (_, true, _) => "none: stopped".into(),
        (.., true) => "none: the database can't be written".into(),
        _ => format!("allowed; {} open", s.open_actions),
    };
    io.fields(&[
        ("version", s.version),
        ("engine time", span(s.engine_ms)),
        ("machines", s.machines.to_string()),
        ("actions", actions),
        ("held", s.held.to_string()),
        ("stuck", counted(s.stuck as u64, "farrier machine list --selector stuck=true")),
        ("out of band", counted(s.out_of_band, "farrier machine list --selector out-of-band=true")),
        ("condition", joined(&s.by_condition)),
        ("control", joined(&s.by_control)),
    ])?;
    io.line("")?;
    let rows: Vec<Vec<Cell>> = Stage::ALL
        .iter()
        .filter_map(|stage| {
            let n = s.by_stage.get(stage.name())?;
            let rests = if stage.is_resting() { "resting" } else { "" };
            Some(vec![Cell::new(stage.name()), Cell::new(n.to_string()), Cell::new(rests)])
        })
        .collect();
    io.table(&["STAGE", "MACHINES", ""], &rows)
}

/// A number that should be zero; with what to look at when it is not.
fn counted(n: u64, look: &str) -> String {
    if n == 0 { String::from("0") } else { format!("{n} (`{look}`)") }
}

fn joined(counts: &BTreeMap<String, usize>) -> String {
    counts.iter().map(|(word, n)| format!("{n} {word}")).collect::<Vec<_>>().join(", ")
}

pub(super) async fn limits(api: &Api, io: &mut Io<'_>) -> Result<(), Failure> {
    let answer = api.get::<Limits>("/v1/limits").await?;
    if io.json {
        return io.document(&answer.raw);
    }
    if answer.value.limits.is_empty() {
        return io.line("no limit was used since the daemon started");
    }
    let rows: Vec<Vec<Cell>> = answer
        .value
        .limits
        .iter()
        .map(|l| {
            let full = l.taken >= l.max;
            vec![
                Cell::new(&l.class),
                Cell::new(format!("{} {}", l.per, l.domain)),
                Cell::new(format!("{} of {}", l.taken, l.max)).painted(if full {
                    Paint::Yellow
                } else {
                    Paint::None
                }),
                Cell::new(l.waiting.to_string()),
            ]
        })
        .collect();
    io.table(&["CLASS", "DOMAIN", "TAKEN", "WAITING"], &rows)
}
