//! Runs, put together from the journal: what was done, how long each step took, how it ended.

use super::State;
use super::engine::{ask, find};
use super::journal::{rfc3339, tail};
use super::problem::{Body, Code, Problem};
use super::view::{ActionView, FaultView, RunView, Runs, StepView};
use crate::model::{Change, EngineTime, Entry, MachineId, Outcome, Stage, StepEnd};
use crate::port::store::HistoryLine;
use axum::Json;
use axum::extract::{Path, State as Of};

/// A machine's runs, newest first.
#[utoipa::path(get, path = "/v1/machines/{name}/runs", tag = "runs", operation_id = "list_runs",
    params(("name" = String, Path, description = "The machine's name")),
    responses((status = 200, body = Runs),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn list(
    Of(state): Of<State>,
    Path(name): Path<String>,
) -> Result<Json<Runs>, Problem> {
    let id = find(&state, &name).await?;
    let runs = runs_of(&state, id).await?;
    Ok(Json(Runs { machine: name, runs }))
}

/// One run with its steps.
#[utoipa::path(get, path = "/v1/machines/{name}/runs/{id}", tag = "runs",
    operation_id = "show_run",
    params(("name" = String, Path, description = "The machine's name"),
        ("id" = u64, Path, description = "The run's id")),
    responses((status = 200, body = RunView),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn show(
    Of(state): Of<State>,
    Path((name, run)): Path<(String, String)>,
) -> Result<Json<RunView>, Problem> {
    let id = find(&state, &name).await?;
    let runs = runs_of(&state, id).await?;
    let known: Vec<String> = runs.iter().take(5).map(|r| r.id.to_string()).collect();
    let found = runs.into_iter().find(|r| run.parse() == Ok(r.id));
    found.map(Json).ok_or_else(|| {
        let problem = Problem::new(Code::NoSuchRun, format!("{name} has no run `{run}`"));
        match known.is_empty() {
            true => problem.hint(format!("{name} has had no run yet")),
            false => problem.hint(format!("its latest runs: {}", known.join(", "))),
        }
    })
}

/// All runs whose beginning the journal still holds, newest first.
pub(crate) async fn runs_of(state: &State, id: MachineId) -> Result<Vec<RunView>, Problem> {
    let (seq, now) = ask(state, move |d, now| (d.machine(id).map_or(0, |m| m.seq), now)).await?;
    let lines = tail(state, id, seq).await?;
    let mut runs = assemble(&lines, now);
    runs.reverse();
    Ok(runs)
}

/// A run that is being put together.
struct Open {
    view: RunView,
    since: EngineTime,
    step_since: EngineTime,
    action_since: EngineTime,
}

impl Open {
    fn step(&mut self) -> Option<&mut StepView> {
        self.view.steps.last_mut().filter(|s| matches!(&*s.state, "running" | "quarantined"))
    }

    fn action(&mut self) -> Option<&mut ActionView> {
        let action = self.view.steps.last_mut()?.actions.last_mut()?;
        matches!(&*action.state, "open" | "applied" | "unknown").then_some(action)
    }

    fn settle(&mut self, state: &str, at: EngineTime) {
        let took = at.since(self.action_since);
        if let Some(action) = self.action() {
            action.state = state.into();
            action.took_ms = took;
        }
    }

    fn end_step(&mut self, state: &str, evidence: Option<&str>, at: EngineTime) {
        let took = at.since(self.step_since);
        if let Some(step) = self.step() {
            step.state = state.into();
            step.evidence = evidence.map(str::to_string);
            step.took_ms = took;
        }
    }

    fn end(mut self, state: &str, why: String, at: EngineTime) -> RunView {
        self.end_step("given-up", None, at);
        self.view.state = state.into();
        self.view.outcome = Some(why);
        self.view.took_ms = at.since(self.since);
        self.view
    }
}

/// Oldest first.
fn assemble(lines: &[HistoryLine], now: EngineTime) -> Vec<RunView> {
    let mut runs = Vec::new();
    let mut open: Option<Open> = None;
    let mut stage = Stage::Discover;
    for line in lines {
        let at = line.at;
        if let Entry::Entered { stage: entered } = &line.entry {
            stage = *entered;
            continue;
        }
        if let Entry::RunBegan { workflow, reason } = &line.entry {
            let view = RunView {
                id: line.seq,
                reason: reason.to_string(),
                workflow: workflow.to_string(),
                began: rfc3339(line.wall_ms),
                state: "running".into(),
                ..RunView::default()
            };
            open = Some(Open { view, since: at, step_since: at, action_since: at });
            continue;
        }
        if let Entry::Changed { change: Change::Repair { .. }, .. } = &line.entry {
            stage = Stage::Repair;
        }
        let Some(run) = &mut open else { continue };
        match &line.entry {
            Entry::RunEnded { why } => {
                let why = why.clone();
                runs.extend(open.take().map(|run| run.end("ended", why, at)));
            }
            Entry::Changed { change: Change::Repair { why }, by, .. } => {
                let why = format!("sent to repair by {by}: {why}");
                runs.extend(open.take().map(|run| run.end("given-up", why, at)));
            }
            Entry::Changed { change: Change::Release { .. }, .. } => {
                if let Some(step) = run.step() {
                    step.state = "running".into();
                }
            }
            Entry::StepBegan { key, .. } => {
                run.step_since = at;
                run.view.steps.push(StepView {
                    key: key.to_string(),
                    stage: stage.name().into(),
                    began: rfc3339(line.wall_ms),
                    state: "running".into(),
                    ..StepView::default()
                });
            }
            Entry::StepEnded { end: StepEnd::Done { evidence }, .. } => {
                run.end_step("done", Some(evidence), at);
            }
            Entry::StepEnded { end: StepEnd::Skipped { reason }, .. } => {
                run.end_step("skipped", Some(reason), at);
            }
            Entry::Intent { action, .. } | Entry::Presumed { action, .. } => {
                run.action_since = at;
                if let Some(step) = run.step() {
                    step.actions.push(ActionView {
                        seq: line.seq,
                        action: action.kind().name().into(),
                        about: action.about(),
                        took_ms: 0,
                        state: "open".into(),
                    });
                }
            }
            Entry::Settled { outcome } => {
                let state = match outcome {
                    Outcome::Applied { .. } => "applied",
                    Outcome::Refused { .. } => "refused",
                    Outcome::Failed { .. } => "failed",
                    Outcome::Unknown { .. } => "unknown",
                    Outcome::Withdrawn { .. } => "withdrawn",
                };
                run.settle(state, at);
            }
            Entry::Found { .. } => run.settle("applied", at),
            Entry::Closed { happened, .. } => {
                run.settle(if *happened { "happened" } else { "did-not-happen" }, at);
            }
            Entry::Faulted { fault, charged, .. } => {
                if let Some(step) = run.step() {
                    step.failures += u32::from(*charged);
                    step.last_fault = Some(FaultView::from(fault));
                }
            }
            Entry::Quarantined { fault } => {
                if let Some(step) = run.step() {
                    step.state = "quarantined".into();
                    step.last_fault = Some(FaultView::from(fault));
                }
            }
            _ => {}
        }
    }
    if let Some(mut run) = open {
        run.view.took_ms = now.since(run.since);
        let (step, action) = (now.since(run.step_since), now.since(run.action_since));
        if let Some(s) = run.step() {
            s.took_ms = step;
        }
        if let Some(a) = run.action() {
            a.took_ms = action;
        }
        runs.push(run.view);
    }
    runs
}
