//! Evidence of one machine as an archive: what a person attaches to a ticket or reads at 3 a.m.
//! Made from the journal and the kept facts, so a quarantine is still in it after its release.

use super::State;
use super::bundle::Bundle;
use super::engine::{ask, find};
use super::journal::{rfc3339, tail};
use super::machines::{explanation, line, machine_view};
use super::problem::{Body, Code, Problem};
use super::view::{FactView, FaultView, MachineView};
use crate::engine::clock::wall_ms;
use crate::model::{Change, Entry, Outcome};
use crate::port::store::HistoryLine;
use axum::extract::{Path, State as Of};
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;

/// Journal lines in a bundle besides those of the current run.
const LINES: usize = 2_000;
/// Latest faults, at most.
const FAULTS: usize = 1_000;

/// One failure as the journal tells it.
#[derive(Debug, Serialize)]
struct FaultLine {
    seq: u64,
    at: String,
    /// The entry's kind: `faulted`, `lost`, `quarantined`, `settled`, or `released`, which ends a
    /// quarantine.
    entry: &'static str,
    /// The attempt counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    charged: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<FaultView>,
    /// Who released it and why; what the edge saw when it refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    said: Option<String>,
}

/// The machine's evidence as one `.tar.gz`; its `README.txt` says what is what.
#[utoipa::path(get, path = "/v1/machines/{name}/evidence", tag = "machines",
    operation_id = "machine_evidence",
    params(("name" = String, Path, description = "The machine's name")),
    responses((status = 200, body = Vec<u8>, content_type = "application/gzip"),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn evidence(
    Of(state): Of<State>,
    Path(name): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let id = find(&state, &name).await?;
    let machine = machine_view(&state, id, &name).await?;
    // An answer also where the configuration is gone: that is what the bundle then shows.
    let why = match explanation(&state, id, &name).await {
        Ok(why) => serde_json::to_value(why),
        Err(problem) => serde_json::to_value(problem.into_body()),
    };
    let lines = tail(&state, id, machine.row.seq).await?;
    let site = ask(&state, super::site::count).await?;
    let log = state.log.about(&name, &id.to_string());
    let console = super::console::newest(&state, &name).await;
    let made = wall_ms();
    let packed = tokio::task::spawn_blocking(move || {
        let mut bundle = Bundle::new(format!("{}-evidence", machine.row.name), made / 1000);
        bundle.json("machine.json", &machine);
        bundle.json("explain.json", &why.unwrap_or_default());
        bundle.json("site.json", &site);
        facts(&mut bundle, &machine);
        let run = machine.row.run.unwrap_or(u64::MAX);
        let from = lines.len().saturating_sub(LINES);
        let from = lines.iter().position(|l| l.seq >= run).unwrap_or(from).min(from);
        let shown = lines.get(from..).unwrap_or_default().iter();
        bundle.lines("journal.jsonl", shown.map(|l| to_json(&line(l))));
        bundle.json("faults.json", &faults(&lines));
        if let Some(text) = console {
            bundle.lines("console-tail.txt", text.lines().map(str::to_string));
        }
        bundle.lines("log-tail.txt", log);
        let text = readme(&machine, &bundle, made);
        bundle.lead("README.txt", text);
        bundle.pack()
    })
    .await;
    match packed {
        Ok(Ok(bytes)) => {
            let file = format!("attachment; filename=\"{name}-evidence.tar.gz\"");
            let kind = "application/gzip".to_string();
            Ok(([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, file)], bytes))
        }
        Ok(Err(e)) => Err(Problem::new(Code::EngineBusy, format!("no bundle was made: {e}"))),
        Err(e) => Err(Problem::new(Code::EngineBusy, format!("no bundle was made: {e}"))
            .hint("please report this with the daemon's log")),
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Each part that was ever read, by itself; the BMC's tasks and the job's output where people look
/// for them.
fn facts(bundle: &mut Bundle, machine: &MachineView) {
    let read = |f: &FactView| f.age_ms.is_some();
    for (part, fact) in machine.facts.iter().filter(|(_, f)| read(f)) {
        bundle.json(&format!("facts/{part}.json"), fact);
    }
    if let Some(tasks) = machine.facts.get("tasks").filter(|f| read(f)) {
        bundle.json("tasks.json", tasks);
    }
    let job = machine.facts.get("job").and_then(|f| f.value.as_ref());
    if let Some(text) = job.and_then(|j| j.get("tail")).and_then(|t| t.as_str()) {
        bundle.lines("job-tail.txt", text.lines().map(str::to_string));
    }
}

/// Everything that went wrong, as far back as the journal is read; oldest first.
fn faults(lines: &[HistoryLine]) -> Vec<FaultLine> {
    let mut found: Vec<FaultLine> =
        lines.iter().rev().filter_map(fault_line).take(FAULTS).collect();
    found.reverse();
    found
}

fn fault_line(l: &HistoryLine) -> Option<FaultLine> {
    let (charged, fault, said) = match &l.entry {
        Entry::Faulted { fault, charged, .. } => (Some(*charged), Some(fault), None),
        Entry::Lost { fault } | Entry::Quarantined { fault } => (None, Some(fault), None),
        Entry::Settled { outcome: Outcome::Failed { fault } | Outcome::Unknown { fault } } => {
            (None, Some(fault), None)
        }
        Entry::Settled { outcome: Outcome::Refused { saw, .. } } => (None, None, Some(saw.clone())),
        Entry::Changed { change: Change::Release { why }, by, .. } => {
            (None, None, Some(format!("{by}: {why}")))
        }
        _ => return None,
    };
    Some(FaultLine {
        seq: l.seq,
        at: rfc3339(l.wall_ms),
        entry: if matches!(l.entry, Entry::Changed { .. }) { "released" } else { l.entry.name() },
        charged,
        fault: fault.map(FaultView::from),
        said,
    })
}

/// What each file is; only those that are there.
fn readme(machine: &MachineView, bundle: &Bundle, made: u64) -> String {
    let about = |path: &str| match path {
        "machine.json" => {
            "the machine as Farrier knows it: row, inventory, identity, what was read"
        }
        "explain.json" => "why it is where it is and what comes next; or why that can't be said",
        "site.json" => "the site at that time: counts, outages, whether actions were stopped",
        "journal.jsonl" => {
            "its journal, oldest first: the current run whole, at least the last 2000 lines"
        }
        "faults.json" => {
            "every failure the journal still tells of, oldest first, with what was seen"
        }
        "tasks.json" => "the BMC's task list with its messages, as it was read last",
        "job-tail.txt" => "the end of the output of the last job on the host",
        "console-tail.txt" => {
            "the end of what its serial console said while a run booted it; not what Farrier said"
        }
        "log-tail.txt" => {
            "the daemon's log since its start: lines about this machine, and the site's warnings"
        }
        _ => "what was read last of this part, with its age in milliseconds",
    };
    let mut text =
        format!("Evidence about {}, made by Farrier on {}.\n\n", machine.row.name, rfc3339(made));
    let width = bundle.names().map(str::len).max().unwrap_or(0);
    for path in bundle.names() {
        text += &format!("{path:width$}  {}\n", about(path));
    }
    for (path, absent) in [
        ("tasks.json", "the BMC's task list was not read"),
        ("job-tail.txt", "no job's output was read"),
        ("console-tail.txt", "no console was kept: no `ipmi` address, or its runs went well"),
    ] {
        if !bundle.names().any(|n| n == path) {
            text += &format!("{path:width$}  absent: {absent}\n");
        }
    }
    text += "\nAges are those of the youngest part that was read: another one may be older.\n\
        Passwords, tokens and keys are in none of these files.\n";
    for cut in bundle.cut() {
        text += &format!("cut: {cut}\n");
    }
    text
}
