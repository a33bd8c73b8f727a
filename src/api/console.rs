//! What a machine's serial console said while a run booted it.

use super::State;
use super::engine::{ask, find};
use super::extract::Query;
use super::problem::{Body, Code, Problem};
use crate::ipmi::{Console, Shelf};
use crate::model::MachineId;
use axum::extract::{Path, State as Of};
use axum::http::header;
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::IntoParams;

/// Lines that `explain` shows, and the longest of them.
const LINES: usize = 8;
const LINE_MAX: usize = 240;

/// Which run's.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConsoleQuery {
    /// As it is named outside, like `1a2b3c4d-m7-120`; default: the newest that there is.
    run: Option<String>,
}

/// The end of what the machine's serial console said while a run booted it: of the boot under way, or of
/// one that failed. Control sequences are taken out; the header `farrier-run` names the run.
#[utoipa::path(get, path = "/v1/machines/{name}/console", tag = "machines",
    operation_id = "machine_console",
    params(("name" = String, Path, description = "The machine's name"), ConsoleQuery),
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn console(
    Of(state): Of<State>,
    Path(name): Path<String>,
    Query(q): Query<ConsoleQuery>,
) -> Result<impl IntoResponse, Problem> {
    find(&state, &name).await?;
    let Some((console, text)) = read(&state, &name, q.run.clone()).await else {
        let of = q.run.map_or_else(String::new, |run| format!(" of run `{run}`"));
        return Err(Problem::new(Code::NoConsole, format!("no console of {name}{of} was kept"))
            .hint(
                "it is followed while a run boots a machine with an `ipmi` address, and kept when \
                 that fails",
            ));
    };
    let kind = "text/plain; charset=utf-8".to_string();
    // A browser must not guess that this is a page.
    let plain = "nosniff".to_string();
    Ok((
        [
            (header::CONTENT_TYPE, kind),
            (header::X_CONTENT_TYPE_OPTIONS, plain),
            (header::HeaderName::from_static("farrier-run"), console.run),
        ],
        text,
    ))
}

async fn read(state: &State, name: &str, run: Option<String>) -> Option<(Console, String)> {
    let (shelf, name): (Shelf, _) = (state.consoles.clone()?, name.to_string());
    let read = tokio::task::spawn_blocking(move || {
        let console = shelf.find(&name, run.as_deref())?;
        let text = shelf.read(&console).ok()?;
        Some((console, text))
    });
    read.await.ok().flatten()
}

/// Of whatever run, for a bundle.
pub(super) async fn newest(state: &State, name: &str) -> Option<String> {
    read(state, name, None).await.map(|(_, text)| text)
}

/// The last lines of the run at which the machine is.
pub(super) async fn last_lines(
    state: &State,
    id: MachineId,
    name: &str,
) -> Result<Vec<String>, Problem> {
    if state.consoles.is_none() {
        return Ok(Vec::new());
    }
    let run = ask(state, move |d, _| {
        d.machine(id).filter(|m| m.run.is_some()).map(|m| m.run_name(&d.site().incarnation))
    });
    let Some(run) = run.await? else { return Ok(Vec::new()) };
    let Some((_, text)) = read(state, name, Some(run)).await else { return Ok(Vec::new()) };
    let said = text.lines().rev().filter(|l| !l.trim().is_empty()).take(LINES);
    let mut lines: Vec<String> = said.map(|l| l.chars().take(LINE_MAX).collect()).collect();
    lines.reverse();
    Ok(lines)
}
