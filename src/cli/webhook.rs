//! Webhooks: how they stand, and a try.

use super::args::WebhookCommand;
use super::client::Api;
use super::out::{Cell, Failure, Io, Paint};
use serde::Deserialize;

#[derive(Deserialize)]
struct Listed {
    webhooks: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    name: String,
    depth: u64,
    delivered: u64,
    failures: u64,
    missed: u64,
    last_error: Option<String>,
}

#[derive(Deserialize)]
struct Tried {
    result: String,
}

pub(super) async fn run(
    api: &Api,
    command: WebhookCommand,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    match command {
        WebhookCommand::List => list(api, io).await,
        WebhookCommand::Test { name } => {
            let path = format!("/v1/webhooks/{name}/test");
            let answer = api.post::<Tried>(&path, &serde_json::json!({}), None).await?;
            if io.json {
                return io.document(&answer.raw);
            }
            io.line(answer.value.result)
        }
    }
}

async fn list(api: &Api, io: &mut Io<'_>) -> Result<(), Failure> {
    let answer = api.get::<Listed>("/v1/webhooks").await?;
    if io.json {
        return io.document(&answer.raw);
    }
    if answer.value.webhooks.is_empty() {
        return io.line("no webhook is configured");
    }
    let rows: Vec<Vec<Cell>> = answer
        .value
        .webhooks
        .iter()
        .map(|w| {
            let state = w.last_error.as_deref().unwrap_or("ok");
            let paint = if w.last_error.is_some() { Paint::Red } else { Paint::None };
            vec![
                Cell::new(&w.name),
                Cell::new(w.depth.to_string()),
                Cell::new(w.delivered.to_string()),
                Cell::new(w.failures.to_string()),
                Cell::new(w.missed.to_string()),
                Cell::new(super::out::printable(state)).painted(paint),
            ]
        })
        .collect();
    io.table(&["WEBHOOK", "WAITING", "DELIVERED", "FAILURES", "MISSED", "STATE"], &rows)
}
