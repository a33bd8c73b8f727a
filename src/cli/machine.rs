//! `farrier machine …`

use super::args::MachineCommand;
use super::change::{change, skip, target};
use super::client::{Api, encode};
use super::out::{Cell, Failure, Io, Paint};
use crate::api::select::Selector;
use crate::api::view::{
    ChangeKind, ChangeOrder, Explanation, FactView, History, MachinePage, MachineRow, MachineView,
};
use crate::api::words::span;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub(super) async fn run(
    api: &Api,
    command: MachineCommand,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let kind = |change| ChangeOrder { change, ..ChangeOrder::default() };
    match command {
        MachineCommand::List { glob, selector } => list(api, glob, selector, io).await,
        MachineCommand::Show { name } => show(api, &name, io).await,
        MachineCommand::Explain { name } => explain(api, &name, io).await,
        MachineCommand::History { name, last, all } => history(api, &name, last, all, io).await,
        MachineCommand::Console { name, run } => console(api, &name, run, io).await,
        MachineCommand::Evidence { name, output, force } => {
            evidence(api, &name, output, force, io).await
        }
        MachineCommand::Adopt(t) => change(api, t, kind(ChangeKind::Adopt), io).await,
        MachineCommand::Enroll { target, allow_existing_data, desired } => {
            let order = ChangeOrder {
                change: ChangeKind::Enroll,
                desired: Some(desired),
                allow_existing_data: Some(allow_existing_data),
                ..ChangeOrder::default()
            };
            change(api, target, order, io).await
        }
        MachineCommand::Set(set) => {
            let (target, desired) = target(set)?;
            let order = ChangeOrder { desired: Some(desired), ..kind(ChangeKind::Desire) };
            change(api, target, order, io).await
        }
        MachineCommand::Hold(t) => change(api, t, kind(ChangeKind::Hold), io).await,
        MachineCommand::Unhold(t) => change(api, t, kind(ChangeKind::Unhold), io).await,
        MachineCommand::Release(t) => change(api, t, kind(ChangeKind::Release), io).await,
        MachineCommand::Retry(t) => change(api, t, kind(ChangeKind::Retry), io).await,
        MachineCommand::Skip { target, step } => skip(api, target, step, io).await,
        MachineCommand::Abort(t) => change(api, t, kind(ChangeKind::Abort), io).await,
        MachineCommand::Repair(t) => change(api, t, kind(ChangeKind::Repair), io).await,
        MachineCommand::Rescue(order) => super::rescue::run(api, order, io).await,
    }
}

async fn list(
    api: &Api,
    glob: Option<String>,
    selector: Option<String>,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let mut s = Selector::parse(selector.as_deref().unwrap_or("")).map_err(Failure::usage)?;
    s.name = glob.or(s.name);
    let machines = fetch(api, &s).await?;
    if io.json {
        return io.document(&MachinePage { total: machines.len(), machines, next: None });
    }
    if machines.is_empty() {
        return io.line("no machine matches");
    }
    let rows: Vec<Vec<Cell>> = machines.iter().map(row).collect();
    io.table(
        &["NAME", "POOL", "RACK", "STAGE", "FOR", "CONDITION", "CONTROL", "DESIRED", "NOW"],
        &rows,
    )
}

/// Every machine that matches, page by page.
pub(super) async fn fetch(api: &Api, s: &Selector) -> Result<Vec<MachineRow>, Failure> {
    let word = |flag: Option<bool>| flag.map(|f| f.to_string());
    let (held, stuck, out_of_band) = (word(s.held), word(s.stuck), word(s.out_of_band));
    let mut query = String::from("?limit=1000");
    for (key, value) in [
        ("name", &s.name),
        ("pool", &s.pool),
        ("rack", &s.rack),
        ("stage", &s.stage),
        ("condition", &s.condition),
        ("control", &s.control),
        ("desired", &s.desired),
        ("step", &s.step),
        ("held", &held),
        ("stuck", &stuck),
        ("out_of_band", &out_of_band),
    ] {
        if let Some(value) = value {
            query += &format!("&{key}={}", encode(value));
        }
    }
    let mut machines = Vec::new();
    let mut after = None;
    loop {
        let more = after.map(|a: String| format!("&after={}", encode(&a))).unwrap_or_default();
        let page = api.get::<MachinePage>(&format!("/v1/machines{query}{more}")).await?;
        machines.extend(page.value.machines);
        after = page.value.next;
        if after.is_none() {
            break;
        }
    }
    Ok(machines)
}

fn row(m: &MachineRow) -> Vec<Cell> {
    let condition = match m.hold {
        Some(_) if m.condition == "ok" => Cell::new("held").painted(Paint::Magenta),
        Some(_) => Cell::new(format!("{}, held", m.condition)).painted(colour(&m.condition)),
        None => Cell::new(&m.condition).painted(colour(&m.condition)),
    };
    let or_dash = |text: &Option<String>| Cell::new(text.as_deref().unwrap_or("-"));
    vec![
        Cell::new(&m.name).painted(Paint::Bold),
        or_dash(&m.pool),
        or_dash(&m.rack),
        Cell::new(&m.stage),
        Cell::new(span(m.in_stage_ms)),
        condition,
        Cell::new(&m.control),
        or_dash(&m.desired),
        Cell::new(shortened(&now(m), 80)),
    ]
}

fn colour(condition: &str) -> Paint {
    match condition {
        "ok" => Paint::Green,
        "backing-off" => Paint::Yellow,
        "unreachable" => Paint::Blue,
        "quarantined" => Paint::Red,
        _ => Paint::None,
    }
}

/// What is to be said of a machine in one cell.
fn now(m: &MachineRow) -> String {
    if let Some(hold) = &m.hold {
        return format!("{}: {}", hold.by, hold.why);
    }
    if let (Some(fault), "quarantined" | "backing-off" | "unreachable") = (&m.fault, &*m.condition)
    {
        return fault.message.clone();
    }
    if let Some(stuck) = &m.stuck {
        return format!("stuck: {}", stuck.what);
    }
    match (&m.step, &m.waiting, &m.notice) {
        (Some(step), Some(what), _) => format!("{step}: waits for {what}"),
        (Some(step), None, _) => step.clone(),
        (None, _, Some(notice)) => notice.clone(),
        _ => String::new(),
    }
}

fn shortened(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_string();
    }
    text.chars().take(max - 1).chain(['…']).collect()
}

async fn show(api: &Api, name: &str, io: &mut Io<'_>) -> Result<(), Failure> {
    let answer = api.get::<MachineView>(&format!("/v1/machines/{}", encode(name))).await?;
    if io.json {
        return io.document(&answer.raw);
    }
    let m = answer.value;
    let r = &m.row;
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let title = io.paint(Paint::Bold, &r.name);
    io.line(title)?;
    io.fields(&[
        ("stage", format!("{} for {}", r.stage, span(r.in_stage_ms))),
        ("step", text(&r.step)),
        ("condition", r.condition.clone()),
        (
            "hold",
            r.hold.as_ref().map_or(String::new(), |h| {
                format!("by {} for {}: {}", h.by, span(h.for_ms), h.why)
            }),
        ),
        ("control", r.control.clone()),
        ("desired", text(&r.desired)),
        ("waiting for", text(&r.waiting)),
        (
            "action",
            m.open_action.as_ref().map_or(String::new(), |o| {
                format!("{} ({}), {} for {}", o.action, o.about, o.state, span(o.for_ms))
            }),
        ),
        ("fault", r.fault.as_ref().map_or(String::new(), |f| f.message.clone())),
        ("notice", text(&r.notice)),
        (
            "stuck",
            r.stuck
                .as_ref()
                .map_or(String::new(), |s| format!("for {}: {}", span(s.for_ms), s.what)),
        ),
        ("image", text(&m.image)),
        ("serial", text(&m.identity.serial)),
        ("uuid", text(&m.identity.uuid)),
        ("mac", text(&m.identity.mac)),
    ])?;
    if let Some(rescue) = &m.rescue {
        io.line("\nrescue")?;
        super::rescue::fields(rescue, io)?;
    }
    if !m.out_of_band_changes.is_empty() {
        io.line(format_args!("\nnot done by Farrier ({} in all)", r.out_of_band))?;
        let changes = m.out_of_band_changes.iter();
        let fields: Vec<(String, String)> =
            changes.map(|c| (c.at.replace('T', " "), c.what.clone())).collect();
        let fields: Vec<(&str, String)> =
            fields.iter().map(|(at, what)| (at.as_str(), what.clone())).collect();
        io.fields(&fields)?;
    }
    if let Some(e) = &m.expected {
        let place = match (&r.rack, r.position) {
            (Some(rack), Some(position)) => format!("rack {rack}, position {position}"),
            _ => String::new(),
        };
        let labels: Vec<String> = e.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        io.line("\nexpected")?;
        let mut fields = vec![
            ("pool", text(&r.pool)),
            ("profile", text(&r.profile)),
            ("place", place),
            ("bmc", format!("{} ({})", e.bmc_url, e.bmc_credential)),
        ];
        fields.extend(e.controllers.iter().map(|c| {
            let unproven = if c.serial.is_none() { ", read only: no serial" } else { "" };
            (c.name.as_str(), format!("{} ({}{unproven})", c.url, c.credential))
        }));
        fields.extend([
            ("host", format!("{}@{}", e.host_user, e.host_address)),
            ("labels", labels.join(", ")),
        ]);
        io.fields(&fields)?;
    }
    io.line("\nread")?;
    let ago = m.read_ago_ms.map(|ms| format!("{} ago", span(ms)));
    let next = m.next_look_ms.map(|ms| format!("in {}", span(ms)));
    let mut fields = vec![
        ("last", ago.unwrap_or_else(|| "not since the daemon started".into())),
        ("next", next.unwrap_or_else(|| "when what is under way has ended".into())),
    ];
    fields.extend(m.facts.iter().map(|(part, fact)| (part.as_str(), describe(part, fact))));
    io.fields(&fields)?;
    for warning in warnings(&m.facts) {
        io.line(format_args!("warning: {}", super::out::printable(warning)))?;
    }
    Ok(())
}

/// What was odd about the BMC when its inventory was read.
fn warnings(facts: &BTreeMap<String, FactView>) -> Vec<&str> {
    let found = facts.get("inventory").and_then(|fact| fact.value.as_ref());
    let all = found.and_then(|v| v.get("warnings")).and_then(|w| w.as_array());
    all.into_iter().flatten().filter_map(|w| w.as_str()).collect()
}

/// One line about one part of the facts.
fn describe(part: &str, fact: &FactView) -> String {
    let age = fact.age_ms.map(|ms| format!(", {} old", span(ms))).unwrap_or_default();
    if let Some(fault) = &fact.fault {
        return format!("unknown{age}: {}", fault.message);
    }
    let Some(value) = &fact.value else { return "unknown: not read".into() };
    let word = |key: &str| value.get(key).and_then(|v| v.as_str()).unwrap_or("").to_string();
    let count = |key: &str| value.get(key).and_then(|v| v.as_array()).map_or(0, Vec::len);
    let what = match part {
        "system" => {
            let parts = [word("manufacturer"), word("model"), format!("power {}", word("power"))];
            parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(" ")
        }
        "inventory" => format!(
            "{} CPUs, {} GPUs, {} disks, {} NICs",
            count("cpus"),
            count("gpus"),
            count("disks"),
            count("nics")
        ),
        "firmware" => format!("{} components", value.as_array().map_or(0, Vec::len)),
        "tasks" => format!("{} tasks", value.as_array().map_or(0, Vec::len)),
        "host" => {
            let parts = [word("hostname"), word("os"), word("image")];
            parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(", ")
        }
        "job" => word("name"),
        "cluster" => word("detail"),
        _ => String::new(),
    };
    let gap = if what.is_empty() { "" } else { ": " };
    format!("{}{age}{gap}{what}", fact.freshness)
}

async fn console(
    api: &Api,
    name: &str,
    run: Option<String>,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let run = run.map(|run| format!("?run={}", encode(&run))).unwrap_or_default();
    let bytes = api.bytes(&format!("/v1/machines/{}/console{run}", encode(name))).await?;
    // Made harmless where it was read, and once more here: a client need not trust its server.
    let text = crate::ipmi::plain(&bytes);
    if io.json {
        return io.document(&serde_json::json!({"machine": name, "console": text}));
    }
    for line in text.lines() {
        io.line(line)?;
    }
    Ok(())
}

async fn explain(api: &Api, name: &str, io: &mut Io<'_>) -> Result<(), Failure> {
    let path = format!("/v1/machines/{}/explain", encode(name));
    let answer = api.get::<Explanation>(&path).await?;
    if io.json {
        return io.document(&answer.raw);
    }
    let e = answer.value;
    let text = |t: Option<String>| t.unwrap_or_default();
    let step = e.step.map(|step| {
        let mut line = step;
        if let Some(time) = e.in_step {
            line += &format!(", for {time}");
        }
        if let Some(attempt) = e.attempt {
            line += &format!(", attempt {attempt}");
        }
        line
    });
    let control = match e.desired {
        Some(desired) => format!("{}, desired {desired}", e.control),
        None => e.control,
    };
    let summary = io.paint(Paint::Bold, &super::out::printable(&e.summary));
    io.line(summary)?;
    io.line("")?;
    io.fields(&[
        ("stage", format!("{}, for {}", e.stage, e.in_stage)),
        ("step", text(step)),
        ("condition", e.condition),
        ("control", control),
        ("waiting for", text(e.waiting_for)),
        ("action", text(e.open_action)),
        ("last fault", text(e.last_fault)),
        ("evidence", text(e.evidence)),
        ("notice", text(e.notice)),
        ("next", e.next),
        ("hint", text(e.hint)),
    ])?;
    if !e.console.is_empty() {
        io.line("\nthe console's last lines:")?;
        for line in &e.console {
            io.line(format_args!("  {}", super::out::printable(line)))?;
        }
    }
    if !e.skipped.is_empty() {
        io.line("\nskipped:")?;
        for step in e.skipped {
            io.line(format_args!("  {}", super::out::printable(&step)))?;
        }
    }
    if !e.ways_out.is_empty() {
        io.line("\nways out:")?;
        for way in e.ways_out {
            io.line(format_args!("  {}", super::out::printable(&way)))?;
        }
    }
    Ok(())
}

async fn history(
    api: &Api,
    name: &str,
    last: u32,
    all: bool,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let path = format!("/v1/machines/{}/history", encode(name));
    let mut after = 0;
    let mut whole = History { machine: name.into(), ..History::default() };
    loop {
        let query = match all {
            true => format!("?limit=1000&after={after}"),
            false => format!("?limit={last}&last=true"),
        };
        let page = api.get::<History>(&format!("{path}{query}")).await?.value;
        whole.lines.extend(page.lines);
        match page.next.filter(|_| all) {
            Some(next) => after = next,
            None => break,
        }
    }
    if io.json {
        return io.document(&whole);
    }
    let rows: Vec<Vec<Cell>> = whole
        .lines
        .iter()
        .map(|l| {
            vec![
                Cell::new(l.at.replace('T', " ")).painted(Paint::Dim),
                Cell::new(l.seq.to_string()).painted(Paint::Dim),
                Cell::new(&l.text),
            ]
        })
        .collect();
    io.table(&["AT", "SEQ", "WHAT"], &rows)
}

/// Saves the archive; never over a file that is there, unless told to.
async fn evidence(
    api: &Api,
    name: &str,
    output: Option<PathBuf>,
    force: bool,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let bytes = api.bytes(&format!("/v1/machines/{}/evidence", encode(name))).await?;
    let file = output.unwrap_or_else(|| format!("{name}-evidence.tar.gz").into());
    if file == Path::new("-") {
        return io.bytes(&bytes);
    }
    let mut open = std::fs::OpenOptions::new();
    open.write(true).mode(0o600);
    let open = if force { open.create(true).truncate(true) } else { open.create_new(true) };
    let written = open.open(&file).and_then(|mut f| f.write_all(&bytes));
    written.map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => Failure::error(format!("{} is there already", file.display()))
            .hint("name another file with --output, or add --force"),
        _ => Failure::error(format!("{}: {e}", file.display())),
    })?;
    if io.json {
        let done = serde_json::json!({"machine": name, "file": file, "bytes": bytes.len()});
        return io.document(&done);
    }
    let kib = bytes.len().div_ceil(1024);
    io.line(format_args!("{}: {kib} KiB; begin with README.txt in it", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_warnings_of_an_inventory_are_shown_and_nothing_else_breaks_it() {
        let of = |part: &str, value: serde_json::Value| {
            let fact = FactView { value: Some(value), ..FactView::default() };
            BTreeMap::from([(part.to_string(), fact)])
        };
        let off = "the BMC's clock is 16m59s ahead";
        let facts = of("inventory", json!({"warnings": [off, 7, null], "cpus": []}));
        assert_eq!(warnings(&facts), [off]);
        for (part, value) in [
            ("inventory", json!({})),
            ("inventory", json!({"warnings": "none"})),
            ("inventory", json!(null)),
            ("system", json!({"warnings": [off]})),
        ] {
            assert!(warnings(&of(part, value)).is_empty(), "{part}");
        }
    }
}
