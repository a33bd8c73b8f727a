//! One machine: why it is where it is, its run, its last journal lines.

use super::page::{Trouble, render};
use crate::api::problem::Body;
use crate::api::view::{
    ExpectedView, Explanation, IdentityView, Line, MachineRow, MachineView, OutOfBandView, RunView,
};
use crate::api::words::span;
use crate::api::{State, explanation, find, last_lines, machine_view, runs_of};
use axum::extract::{Path, State as Of};
use axum::response::Response;
use serde::Serialize;

/// Journal lines on the page.
const LINES: usize = 40;

/// What the template gets.
#[derive(Debug, Serialize)]
struct Page<'a> {
    site: &'a str,
    version: &'a str,
    m: MachineRow,
    expected: Option<ExpectedView>,
    identity: IdentityView,
    image: Option<String>,
    stuck_for: Option<String>,
    changes: Vec<OutOfBandView>,
    read_ago: Option<String>,
    next_look: Option<String>,
    held_for: Option<String>,
    why: Option<Explanation>,
    trouble: Option<Body>,
    facts: Vec<Fact>,
    run: Option<Timeline>,
    /// Runs before this one.
    earlier: usize,
    /// Newest first.
    lines: Vec<Line>,
}

/// A run as it is drawn.
#[derive(Debug, Serialize)]
struct Timeline {
    run: RunView,
    took: String,
    steps: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    key: String,
    stage: String,
    /// The first step of its stage in the run.
    first: bool,
    state: String,
    took: String,
    /// 1 to 20: share of the run, for the bar.
    share: u64,
    detail: String,
    failures: u32,
    actions: Vec<Act>,
}

#[derive(Debug, Serialize)]
struct Act {
    action: String,
    about: String,
    state: String,
    took: String,
}

#[derive(Debug, Serialize)]
struct Fact {
    part: String,
    freshness: String,
    age: Option<String>,
    fault: Option<String>,
    value: Option<String>,
}

pub(super) async fn show(
    Of(state): Of<State>,
    Path(name): Path<String>,
) -> Result<Response, Trouble> {
    let id = find(&state, &name).await?;
    let machine: MachineView = machine_view(&state, id, &name).await?;
    let (why, trouble): (Option<Explanation>, _) = match explanation(&state, id, &name).await {
        Ok(why) => (Some(why), None),
        Err(problem) => (None, Some(problem.into_body())),
    };
    let lines: Vec<Line> = last_lines(&state, id, machine.row.seq, LINES).await?;
    let mut runs = runs_of(&state, id).await?;
    let run = if runs.is_empty() { None } else { Some(timeline(runs.remove(0))) };
    let facts: Vec<Fact> = machine
        .facts
        .iter()
        .map(|(part, f)| Fact {
            part: part.clone(),
            freshness: f.freshness.clone(),
            age: f.age_ms.map(span),
            fault: f.fault.as_ref().map(|f| f.message.clone()),
            value: f.value.as_ref().map(|v| serde_json::to_string_pretty(v).unwrap_or_default()),
        })
        .collect();
    Ok(render(
        "machine.html",
        Page {
            site: &state.site_name,
            version: &state.version,
            image: machine.image,
            stuck_for: machine.row.stuck.as_ref().map(|s| span(s.for_ms)),
            changes: machine.out_of_band_changes,
            read_ago: machine.read_ago_ms.map(span),
            next_look: machine.next_look_ms.map(span),
            held_for: machine.row.hold.as_ref().map(|h| span(h.for_ms)),
            expected: machine.expected,
            identity: machine.identity,
            m: machine.row,
            why,
            trouble,
            facts,
            run,
            earlier: runs.len(),
            lines: lines.into_iter().rev().collect(),
        },
    ))
}

fn timeline(run: RunView) -> Timeline {
    let longest = run.steps.iter().map(|s| s.took_ms).max().unwrap_or(1).max(1);
    let mut stage = "";
    let mut steps = Vec::new();
    for s in &run.steps {
        let detail = match (&s.evidence, &s.last_fault) {
            (Some(evidence), _) => evidence.clone(),
            (None, Some(fault)) => fault.message.clone(),
            (None, None) => String::new(),
        };
        steps.push(Row {
            key: s.key.clone(),
            stage: s.stage.clone(),
            first: s.stage != stage,
            state: s.state.clone(),
            took: span(s.took_ms),
            share: (s.took_ms.saturating_mul(20) / longest).clamp(1, 20),
            detail,
            failures: s.failures,
            actions: s
                .actions
                .iter()
                .map(|a| Act {
                    action: a.action.clone(),
                    about: a.about.clone(),
                    state: a.state.clone(),
                    took: span(a.took_ms),
                })
                .collect(),
        });
        stage = &s.stage;
    }
    Timeline { took: span(run.took_ms), steps, run }
}
