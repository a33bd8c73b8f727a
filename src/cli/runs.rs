//! `farrier run …`

use super::args::RunCommand;
use super::client::{Api, encode};
use super::out::{Cell, Failure, Io, Paint};
use crate::api::view::{RunView, Runs};
use crate::api::words::span;

pub(super) async fn run(api: &Api, command: RunCommand, io: &mut Io<'_>) -> Result<(), Failure> {
    match command {
        RunCommand::List { machine } => list(api, &machine, io).await,
        RunCommand::Show { machine, id } => show(api, &machine, id, io).await,
    }
}

async fn list(api: &Api, machine: &str, io: &mut Io<'_>) -> Result<(), Failure> {
    let answer = api.get::<Runs>(&format!("/v1/machines/{}/runs", encode(machine))).await?;
    if io.json {
        return io.document(&answer.raw);
    }
    if answer.value.runs.is_empty() {
        return io.line(format_args!("{machine} has had no run yet"));
    }
    let rows: Vec<Vec<Cell>> = answer
        .value
        .runs
        .iter()
        .map(|r| {
            vec![
                Cell::new(r.id.to_string()).painted(Paint::Bold),
                Cell::new(r.began.replace('T', " ")),
                Cell::new(span(r.took_ms)),
                Cell::new(r.steps.len().to_string()),
                Cell::new(&r.state).painted(colour(&r.state)),
                Cell::new(&r.reason),
                Cell::new(r.outcome.as_deref().unwrap_or("")),
            ]
        })
        .collect();
    io.table(&["RUN", "BEGAN", "TOOK", "STEPS", "STATE", "REASON", "OUTCOME"], &rows)
}

async fn show(api: &Api, machine: &str, id: Option<u64>, io: &mut Io<'_>) -> Result<(), Failure> {
    let path = format!("/v1/machines/{}/runs", encode(machine));
    let run: RunView = match id {
        Some(id) => api.get(&format!("{path}/{id}")).await?.value,
        None => {
            let runs = api.get::<Runs>(&path).await?.value.runs;
            runs.into_iter().next().ok_or_else(|| {
                Failure::error(format!("{machine} has had no run yet"))
                    .hint("`farrier machine explain` says what it waits for")
            })?
        }
    };
    if io.json {
        return io.document(&run);
    }
    let title = io.paint(Paint::Bold, &format!("run {} of {machine}", run.id));
    io.line(title)?;
    io.fields(&[
        ("reason", run.reason.clone()),
        ("workflow", run.workflow.clone()),
        ("began", run.began.replace('T', " ")),
        ("took", span(run.took_ms)),
        ("state", run.state.clone()),
        ("outcome", run.outcome.clone().unwrap_or_default()),
    ])?;
    io.line("")?;
    let mut rows = Vec::new();
    for step in &run.steps {
        let detail = match (&step.evidence, &step.last_fault) {
            (Some(evidence), _) => evidence.clone(),
            (None, Some(fault)) => fault.message.clone(),
            _ => String::new(),
        };
        rows.push(vec![
            Cell::new(&step.stage),
            Cell::new(&step.key).painted(Paint::Bold),
            Cell::new(span(step.took_ms)),
            Cell::new(&step.state).painted(colour(&step.state)),
            Cell::new(step.failures.to_string()),
            Cell::new(detail),
        ]);
        for action in &step.actions {
            rows.push(vec![
                Cell::new(""),
                Cell::new(format!("· {} ({})", action.action, action.about)),
                Cell::new(span(action.took_ms)),
                Cell::new(&action.state).painted(Paint::Dim),
            ]);
        }
    }
    io.table(&["STAGE", "STEP", "TOOK", "STATE", "FAILED", "DETAIL"], &rows)
}

fn colour(state: &str) -> Paint {
    match state {
        "done" | "ended" => Paint::Green,
        "running" => Paint::Blue,
        "quarantined" => Paint::Red,
        "given-up" => Paint::Yellow,
        _ => Paint::Dim,
    }
}
