//! The fleet by rack.

use super::page::{Trouble, render};
use crate::api::words::span;
use crate::api::{State, Watch, ask, event, outages};
use crate::engine::Director;
use crate::model::{Condition, Control, EngineTime, Machine, Stage};
use axum::extract::State as Of;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::collections::BTreeMap;

/// Above this many machines a cell is a small square; its name is in its title.
const DENSE: usize = 240;

/// One machine.
#[derive(Clone, Debug, Serialize)]
struct Cell {
    name: String,
    stage: &'static str,
    /// `quarantined`, `unreachable`, `held`, `backing-off`, `unmanaged` or empty: what a person
    /// should see first.
    mark: &'static str,
    title: String,
}

impl Cell {
    fn of(m: &Machine, now: EngineTime) -> Self {
        let mark = match (&m.condition, &m.hold, m.control) {
            (Condition::Quarantined { .. }, _, _) => "quarantined",
            (Condition::Unreachable { .. }, _, _) => "unreachable",
            (_, Some(_), _) => "held",
            (Condition::BackingOff, _, _) => "backing-off",
            (_, _, Control::Unmanaged) => "unmanaged",
            _ => "",
        };
        let mut title = format!("{} · {}", m.name, m.stage);
        if let Some(step) = &m.step {
            title += &format!(", {}", step.key);
        }
        title += &format!(", for {}", span(now.since(m.stage_since)));
        if !mark.is_empty() {
            title += &format!(" · {mark}");
        }
        if let Some(hold) = &m.hold {
            title += &format!(" by {}: {}", hold.by, hold.why);
        }
        if let Some(note) = m.last_fault.as_ref().filter(|_| m.condition != Condition::Ok) {
            title += &format!(" · {}", note.fault.message);
        } else if let Some(what) = &m.waiting {
            title += &format!(" · waits for {what}");
        }
        Self { name: m.name.to_string(), stage: m.stage.name(), mark, title }
    }
}

#[derive(Debug, Serialize)]
struct Rack {
    name: String,
    cells: Vec<Cell>,
}

#[derive(Debug, Serialize)]
struct Fleet {
    racks: Vec<Rack>,
    machines: usize,
    dense: bool,
    stages: Vec<Count>,
    marks: Vec<Count>,
    stopped: Option<Stop>,
    observe_only: bool,
    outages: Vec<Out>,
    stuck: usize,
    /// Machines that were changed behind Farrier's back.
    out_of_band: usize,
}

/// A failure domain that is out.
#[derive(Debug, Serialize)]
struct Out {
    text: String,
    since: String,
}

#[derive(Debug, Serialize)]
struct Page<'a> {
    site: &'a str,
    version: &'a str,
    fleet: Fleet,
}

#[derive(Debug, Serialize)]
struct Count {
    name: &'static str,
    n: usize,
    resting: bool,
}

#[derive(Debug, Serialize)]
struct Stop {
    by: String,
    why: String,
    since: String,
}

pub(super) async fn show(Of(state): Of<State>) -> Result<Response, Trouble> {
    let fleet = ask(&state, survey).await?;
    Ok(render("fleet.html", Page { site: &state.site_name, version: &state.version, fleet }))
}

fn survey(d: &Director, now: EngineTime) -> Fleet {
    let mut racks: BTreeMap<(bool, String), Vec<(u16, Cell)>> = BTreeMap::new();
    let mut stages: BTreeMap<&str, usize> = BTreeMap::new();
    let mut marks: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut machines, mut stuck, mut out_of_band) = (0, 0, 0);
    for m in d.machines().filter(|m| m.seq > 0) {
        let cell = Cell::of(m, now);
        machines += 1;
        stuck += usize::from(d.overdue(m.id, now));
        out_of_band += usize::from(m.out_of_band > 0);
        *stages.entry(cell.stage).or_default() += 1;
        *marks.entry(cell.mark).or_default() += 1;
        // What is in no rack comes last.
        let (rack, position) = match d.expected(m.id) {
            Some(e) => ((false, e.rack.to_string()), e.position),
            None => ((true, "not in the inventory".to_string()), 0),
        };
        racks.entry(rack).or_default().push((position, cell));
    }
    let mut racks: Vec<_> = racks.into_iter().collect();
    racks.sort_by_cached_key(|((last, name), _)| (*last, natural(name)));
    let count = |name: &'static str, n: Option<&usize>, resting: bool| Count {
        name,
        n: n.copied().unwrap_or(0),
        resting,
    };
    Fleet {
        racks: racks
            .into_iter()
            .map(|((_, name), mut cells)| {
                cells.sort_by_cached_key(|(position, cell)| (*position, natural(&cell.name)));
                Rack { name, cells: cells.into_iter().map(|(_, cell)| cell).collect() }
            })
            .collect(),
        machines,
        dense: machines > DENSE,
        stages: Stage::ALL
            .iter()
            .map(|s| count(s.name(), stages.get(s.name()), s.is_resting()))
            .collect(),
        marks: ["quarantined", "unreachable", "backing-off", "held", "unmanaged"]
            .into_iter()
            .map(|mark| count(mark, marks.get(mark), false))
            .collect(),
        stopped: d.stopped().map(|s| Stop {
            by: s.by.clone(),
            why: s.why.clone(),
            since: span(now.since(s.at)),
        }),
        observe_only: d.observe_only(),
        outages: outages(d, now)
            .into_iter()
            .map(|o| Out { text: o.text, since: span(o.for_ms) })
            .collect(),
        stuck,
        out_of_band,
    }
}

/// A sort key under which `r2` comes before `r10`.
fn natural(name: &str) -> String {
    let mut key = String::with_capacity(name.len() + 8);
    let mut digits = String::new();
    for c in name.chars().chain(std::iter::once('\0')) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        if !digits.is_empty() {
            key.push_str(&format!("{digits:0>12}"));
            digits.clear();
        }
        key.push(c);
    }
    key
}

/// Cells as they change: one event a commit, for the page's script.
pub(super) async fn live(Of(state): Of<State>) -> Response {
    match Watch::new(&state) {
        Ok(watch) => watch
            .into_sse(|durable| vec![event("cell", &Cell::of(&durable.item.row, durable.item.at))])
            .into_response(),
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::natural;

    #[test]
    fn racks_sort_as_people_count() {
        let mut racks = ["r10", "r2", "a", "r2-b10", "r2-b9"];
        racks.sort_by_key(|r| natural(r));
        assert_eq!(racks, ["a", "r2", "r2-b9", "r2-b10", "r10"]);
    }
}
