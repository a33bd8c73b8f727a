//! Machines: list, one, why, history.

use super::State;
use super::engine::{ask, find};
use super::extract::Query;
use super::journal::{page, rfc3339, tail};
use super::problem::{Body, Code, Problem};
use super::select::Selector;
use super::view::{
    Explanation, FactView, FaultView, History, Line, MachinePage, MachineRow, MachineView,
    OpenView, OutOfBandView, RescueView, RunView,
};
use super::words::words;
use crate::model::{EngineTime, Entry, MachineId, OpenState, Read, Report};
use crate::port::store::HistoryLine;
use axum::Json;
use axum::extract::{Path, State as Of};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::IntoParams;

/// Machines on a page when the client does not say, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;
/// Facts older than this are stale however long the watch interval is short.
const FRESH_MS: u64 = 600_000;
/// Changes behind Farrier's back that one machine's answer tells of.
const OUT_OF_BAND_SHOWN: usize = 10;

/// Which machines, and where the page begins.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListQuery {
    /// Glob with `*` and `?`.
    name: Option<String>,
    pool: Option<String>,
    rack: Option<String>,
    stage: Option<String>,
    /// `ok`, `backing-off`, `unreachable`, `quarantined`.
    condition: Option<String>,
    /// `unmanaged`, `adopted`, `enrolled`.
    control: Option<String>,
    /// `ready`, `in-service`, `drained`, `retired`, `none`.
    desired: Option<String>,
    /// At the step with this key.
    step: Option<String>,
    held: Option<bool>,
    /// Held by this name; after a restore, `restore` holds.
    held_by: Option<String>,
    /// Past the SLA of its stage.
    stuck: Option<bool>,
    /// Something was changed behind Farrier's back.
    out_of_band: Option<bool>,
    /// 1 to 1000, default 100.
    limit: Option<usize>,
    /// The last name of the page before.
    after: Option<String>,
}

/// Machines, sorted by name.
#[utoipa::path(get, path = "/v1/machines", tag = "machines", operation_id = "list_machines",
    params(ListQuery),
    responses((status = 200, body = MachinePage),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn list(
    Of(state): Of<State>,
    Query(q): Query<ListQuery>,
) -> Result<Json<MachinePage>, Problem> {
    let limit = page_size(q.limit)?;
    let after = q.after;
    let matcher = Selector {
        names: vec![],
        name: q.name,
        pool: q.pool,
        rack: q.rack,
        stage: q.stage,
        condition: q.condition,
        control: q.control,
        desired: q.desired,
        step: q.step,
        held: q.held,
        held_by: q.held_by,
        stuck: q.stuck,
        out_of_band: q.out_of_band,
    }
    .check("query ")?;
    let page = ask(&state, move |d, now| {
        let mut hits: Vec<_> = d.machines().filter(|m| matcher.matches(d, m, now)).collect();
        let total = hits.len();
        hits.retain(|m| after.as_deref().is_none_or(|after| &*m.name > after));
        let more = hits.len() > limit;
        if more {
            // Only the page is sorted: the engine waits for this.
            hits.select_nth_unstable_by(limit, |a, b| a.name.cmp(&b.name));
            hits.truncate(limit);
        }
        hits.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let machines: Vec<MachineRow> = hits.iter().map(|m| MachineRow::of(d, m, now)).collect();
        let next = machines.last().filter(|_| more).map(|m| m.name.clone());
        MachinePage { machines, total, next }
    })
    .await?;
    Ok(Json(page))
}

fn page_size(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(PAGE) {
        n @ 1..=PAGE_MAX => Ok(n),
        n => {
            Err(Problem::new(Code::BadQuery, format!("`limit` is {n}; it can be 1 to {PAGE_MAX}"))
                .place("query limit"))
        }
    }
}

/// One machine with what is expected of it and what was read.
#[utoipa::path(get, path = "/v1/machines/{name}", tag = "machines", operation_id = "show_machine",
    params(("name" = String, Path, description = "The machine's name")),
    responses((status = 200, body = MachineView),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn show(
    Of(state): Of<State>,
    Path(name): Path<String>,
) -> Result<Json<MachineView>, Problem> {
    let id = find(&state, &name).await?;
    machine_view(&state, id, &name).await.map(Json)
}

pub(crate) async fn machine_view(
    state: &State,
    id: MachineId,
    name: &str,
) -> Result<MachineView, Problem> {
    let facts = stored(state, id).await?;
    let view = ask(state, move |d, now| {
        let m = d.machine(id)?;
        let expected = d.expected(id);
        let (read, due) = d.times(id)?;
        let watch = expected
            .and_then(|e| d.site().profiles.get(&e.profile))
            .and_then(|p| d.site().workflows.get(&p.workflow))
            .map_or(0, |w| w.watch.0);
        Some(MachineView {
            row: MachineRow::of(d, m, now),
            expected: expected.map(|e| (&**e).into()),
            identity: (&*m.identity).into(),
            image: m.deployed.as_ref().map(|d| d.image.to_string()),
            open_action: m.open.as_ref().map(|o| OpenView {
                seq: o.seq,
                action: o.action.kind().name().into(),
                about: o.action.about(),
                state: match o.state {
                    OpenState::Intended => "intended",
                    OpenState::Applied => "applied",
                    OpenState::Unknown => "unknown",
                }
                .into(),
                for_ms: now.since(o.at),
            }),
            read_ago_ms: (read != EngineTime::ZERO).then(|| now.since(read)),
            next_look_ms: (due != EngineTime::NEVER).then(|| due.since(now)),
            rescue: RescueView::of(m, now),
            out_of_band_changes: vec![],
            facts: facts.as_ref().map(|f| parts(f, now, watch)).unwrap_or_default(),
        })
    })
    .await?;
    let mut view = view.ok_or_else(|| super::engine::unknown(name, vec![]))?;
    if view.row.out_of_band > 0 {
        view.out_of_band_changes = out_of_band(&tail(state, id, view.row.seq).await?);
    }
    Ok(view)
}

/// The last changes made behind Farrier's back, newest first.
fn out_of_band(lines: &[HistoryLine]) -> Vec<OutOfBandView> {
    let noticed = lines.iter().rev().filter_map(|l| match &l.entry {
        Entry::OutOfBand { what } => {
            Some(OutOfBandView { seq: l.seq, at: rfc3339(l.wall_ms), what: what.clone() })
        }
        _ => None,
    });
    noticed.take(OUT_OF_BAND_SHOWN).collect()
}

async fn stored(state: &State, id: MachineId) -> Result<Option<Report>, Problem> {
    state.store.facts(id).await.map_err(|e| Problem::unreadable(&e))
}

fn parts(r: &Report, now: EngineTime, watch_ms: u64) -> BTreeMap<String, FactView> {
    let age = now.since(r.at);
    let stale = age > (2 * watch_ms).max(FRESH_MS);
    let mut out = BTreeMap::new();
    let mut add = |part: &str, fact: FactView| {
        out.insert(part.to_string(), fact);
    };
    add("system", fact(&r.system, age, stale));
    add("inventory", fact(&r.inventory, age, stale));
    add("firmware", fact(&r.firmware, age, stale));
    add("tasks", fact(&r.tasks, age, stale));
    add("host", fact(&r.host, age, stale));
    add("job", fact(&r.job, age, stale));
    add("cluster", fact(&r.cluster, age, stale));
    add("boot", fact(&r.boot, age, stale));
    out
}

fn fact<T: Serialize>(read: &Read<T>, age: u64, stale: bool) -> FactView {
    match read {
        Read::NotAsked => FactView { freshness: "unknown".into(), ..FactView::default() },
        Read::Failed(fault) => FactView {
            freshness: "unknown".into(),
            age_ms: Some(age),
            fault: Some(FaultView::from(fault)),
            value: None,
        },
        Read::Seen(value) => FactView {
            freshness: if stale { "stale" } else { "fresh" }.into(),
            age_ms: Some(age),
            fault: None,
            value: serde_json::to_value(value).ok(),
        },
    }
}

/// Why the machine is where it is and what comes next: the live decision, not carried out.
#[utoipa::path(get, path = "/v1/machines/{name}/explain", tag = "machines",
    operation_id = "explain_machine",
    params(("name" = String, Path, description = "The machine's name")),
    responses((status = 200, body = Explanation),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn explain(
    Of(state): Of<State>,
    Path(name): Path<String>,
) -> Result<Json<Explanation>, Problem> {
    let id = find(&state, &name).await?;
    explanation(&state, id, &name).await.map(Json)
}

pub(crate) async fn explanation(
    state: &State,
    id: MachineId,
    name: &str,
) -> Result<Explanation, Problem> {
    let facts = stored(state, id).await?;
    let live = ask(state, move |d, now| {
        d.explain(id, now, facts.as_ref())
            .ok_or_else(|| d.expected(id).map(|e| e.profile.to_string()))
    })
    .await?;
    let live = live.map_err(|profile| match profile {
        Some(profile) => Problem::new(
            Code::NotExplainable,
            format!("{name}'s profile `{profile}`, or its workflow, is not in the configuration"),
        )
        .hint("the machine is only read until it is; `farrier check` looks at the files"),
        None => Problem::new(
            Code::NotExplainable,
            format!("{name} is not in the inventory any more: Farrier leaves it alone"),
        )
        .hint("put its line back, or leave it out for good"),
    })?;
    let runs = super::runs::runs_of(state, id).await?;
    let console = match &*live.condition {
        "ok" => Vec::new(),
        _ => super::console::last_lines(state, id, name).await?,
    };
    Ok(Explanation { skipped: skipped(&runs), console, ..live.into() })
}

/// Steps whose latest end was a skip, in words. `runs`: newest first.
fn skipped(runs: &[RunView]) -> Vec<String> {
    let mut ended = BTreeSet::new();
    let mut found = Vec::new();
    for step in runs.iter().flat_map(|r| r.steps.iter().rev()) {
        if step.state == "running" || !ended.insert((&step.stage, &step.key)) {
            continue;
        }
        if step.state == "skipped" {
            let why = step.evidence.as_deref().unwrap_or("no reason given");
            found.push(format!("`{}` in {}: {why}", step.key, step.stage));
        }
    }
    found.reverse();
    found
}

/// Where a page of the journal begins.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HistoryQuery {
    /// Lines after this seq; default 0, the beginning.
    after: Option<u64>,
    /// 1 to 1000, default 100.
    limit: Option<usize>,
    /// The last `limit` lines instead; `after` is not looked at.
    last: Option<bool>,
}

/// The machine's journal, oldest first.
#[utoipa::path(get, path = "/v1/machines/{name}/history", tag = "machines",
    operation_id = "machine_history",
    params(("name" = String, Path, description = "The machine's name"), HistoryQuery),
    responses((status = 200, body = History),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn history(
    Of(state): Of<State>,
    Path(name): Path<String>,
    Query(q): Query<HistoryQuery>,
) -> Result<Json<History>, Problem> {
    let limit = page_size(q.limit)?;
    let id = find(&state, &name).await?;
    let after = match q.last {
        Some(true) => {
            let seq = ask(&state, move |d, _| d.machine(id).map_or(0, |m| m.seq)).await?;
            seq.saturating_sub(limit as u64)
        }
        _ => q.after.unwrap_or(0),
    };
    // One more than asked for tells whether there is a next page.
    let mut lines = page(&state, id, after, limit + 1).await?;
    let more = lines.len() > limit;
    lines.truncate(limit);
    let next = lines.last().filter(|_| more).map(|l| l.seq);
    let lines = lines.iter().map(line).collect();
    Ok(Json(History { machine: name, lines, next }))
}

/// The last `count` lines up to `seq`, oldest first.
pub(crate) async fn last_lines(
    state: &State,
    id: MachineId,
    seq: u64,
    count: usize,
) -> Result<Vec<Line>, Problem> {
    let lines = page(state, id, seq.saturating_sub(count as u64), count).await?;
    Ok(lines.iter().map(line).collect())
}

pub(super) fn line(l: &HistoryLine) -> Line {
    Line {
        seq: l.seq,
        at: rfc3339(l.wall_ms),
        engine_ms: l.at.0,
        text: words(&l.entry),
        entry: serde_json::to_value(&l.entry).unwrap_or_default(),
    }
}
