//! `farrier bmc rotate` and `farrier bmc pin`: a client of the daemon, which alone has the secrets.

use super::args::BmcCommand;
use super::args::credentials::{Pin, Rotate};
use super::client::{Api, encode};
use super::out::{Cell, Failure, Io, Paint};
use crate::api::select::Selector;
use crate::model::Action;
use crate::model::controller::{place, placed};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal};
use std::time::Duration;

pub(super) async fn run(api: &Api, command: BmcCommand, io: &mut Io<'_>) -> Result<(), Failure> {
    match command {
        BmcCommand::Rotate(ask) if ask.list => list(api, io).await,
        BmcCommand::Rotate(ask) if ask.look_again || ask.forget => settle(api, ask, io).await,
        BmcCommand::Rotate(ask) => rotate(api, ask, io).await,
        BmcCommand::Pin(ask) => pin(api, ask, io).await,
    }
}

#[derive(Deserialize)]
struct Started {
    started: Vec<String>,
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    machine: String,
    controller: Option<String>,
    why: String,
}

#[derive(Deserialize)]
struct Rotations {
    rotations: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    machine: String,
    controller: Option<String>,
    phase: String,
    open: bool,
    user: String,
    by: String,
    why: String,
    trouble: Option<String>,
}

impl Line {
    /// Whose it is, as the command takes it.
    fn place(&self) -> String {
        place(&self.machine, self.controller.as_deref())
    }

    fn is_at_its_end(&self) -> bool {
        !self.open || self.phase == "stuck"
    }
}

fn selector(names: Vec<String>, text: Option<&str>) -> Result<Selector, Failure> {
    let parsed = text.map(Selector::parse).transpose().map_err(Failure::usage)?;
    Ok(Selector { names, ..parsed.unwrap_or_default() })
}

async fn list(api: &Api, io: &mut Io<'_>) -> Result<(), Failure> {
    let answer = api.get::<Rotations>("/v1/rotations").await?;
    if io.json {
        return io.document(&answer.raw);
    }
    if answer.value.rotations.is_empty() {
        return io.line("no password was rotated yet");
    }
    table(answer.value.rotations.iter(), io)
}

fn table<'a>(lines: impl Iterator<Item = &'a Line>, io: &mut Io<'_>) -> Result<(), Failure> {
    let rows: Vec<Vec<Cell>> = lines
        .map(|l| {
            let paint = match l.phase.as_str() {
                "kept" => Paint::Green,
                "stuck" => Paint::Red,
                "taken-back" => Paint::Yellow,
                _ => Paint::None,
            };
            vec![
                Cell::new(l.place()),
                Cell::new(&l.user),
                Cell::new(&l.phase).painted(paint),
                Cell::new(&l.by),
                Cell::new(l.trouble.as_deref().unwrap_or(&l.why)),
            ]
        })
        .collect();
    io.table(&["MACHINE", "USER", "PHASE", "BY", "WHY OR TROUBLE"], &rows)
}

/// How often the daemon is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(500);

async fn rotate(api: &Api, ask: Rotate, io: &mut Io<'_>) -> Result<(), Failure> {
    let body = json!({
        "selector": selector(ask.names, ask.selector.as_deref())?,
        "why": ask.why.unwrap_or_default(),
        "no_escrow": ask.no_escrow,
        "confirm": ask.confirm,
    });
    let answer = api.post::<Started>("/v1/rotations", &body, None).await?;
    let Started { started, refused } = answer.value;
    if !io.json {
        for r in &refused {
            let whose = place(&r.machine, r.controller.as_deref());
            io.line(format_args!("{whose}: not begun: {}", super::out::printable(&r.why)))?;
        }
    }
    let mut ended: Vec<Line> = Vec::new();
    let mut raw = answer.raw;
    if !ask.no_wait && !started.is_empty() {
        let wanted: BTreeSet<&str> = started.iter().map(String::as_str).collect();
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            let all = api.get::<Rotations>("/v1/rotations").await?;
            ended = all.value.rotations;
            ended.retain(|l| wanted.contains(l.place().as_str()));
            if ended.iter().all(Line::is_at_its_end) {
                raw["rotations"] = all.raw["rotations"].clone();
                break;
            }
        }
    }
    if io.json {
        io.document(&raw)?;
    } else if ask.no_wait {
        io.line(format_args!(
            "{} begun; `farrier bmc rotate --list` says how far they are",
            started.len()
        ))?;
    } else {
        table(ended.iter(), io)?;
    }
    let failed = ended.iter().any(|l| l.phase != "kept");
    if failed || !refused.is_empty() { Err(Failure::Said) } else { Ok(()) }
}

async fn settle(api: &Api, ask: Rotate, io: &mut Io<'_>) -> Result<(), Failure> {
    let why = ask.why.unwrap_or_default();
    for name in &ask.names {
        let (machine, controller) = placed(name);
        let controller = controller.filter(|c| *c != Action::BMC);
        let body = json!({ "forget": ask.forget, "controller": controller, "why": why });
        let path = format!("/v1/rotations/{}", encode(machine));
        let answer = api.post::<Value>(&path, &body, None).await?;
        if io.json {
            io.document(&answer.raw)?;
        } else {
            let what = if ask.forget { "given up" } else { "looked at once more" };
            io.line(format_args!("{name}: {what}"))?;
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Shown {
    certificates: Vec<Certificate>,
}

#[derive(Deserialize)]
struct Certificate {
    machine: String,
    controller: Option<String>,
    url: String,
    policy: String,
    /// `new`, `pinned`, `changed`, `unread`.
    stands: String,
    #[serde(default)]
    sha256: String,
    #[serde(default)]
    subject: String,
    #[serde(default)]
    not_after: String,
    trouble: Option<String>,
}

impl Certificate {
    /// Whose it is, as the command takes it.
    fn place(&self) -> String {
        place(&self.machine, self.controller.as_deref())
    }
}

async fn pin(api: &Api, ask: Pin, io: &mut Io<'_>) -> Result<(), Failure> {
    let selector = selector(ask.names, ask.selector.as_deref())?;
    let body = json!({ "selector": selector, "confirm": ask.confirm });
    let answer = api.post::<Shown>("/v1/pins/shown", &body, None).await?;
    let shown = answer.value.certificates;
    let unread = shown.iter().any(|c| c.stands == "unread");
    let fresh: Vec<&Certificate> =
        shown.iter().filter(|c| matches!(c.stands.as_str(), "new" | "changed")).collect();
    if io.json && (fresh.is_empty() || !ask.yes) {
        io.document(&answer.raw)?;
        return if unread { Err(Failure::Said) } else { Ok(()) };
    }
    if !io.json {
        certificates(&shown, io)?;
    }
    if fresh.is_empty() {
        io.line("nothing to accept")?;
        return if unread { Err(Failure::Said) } else { Ok(()) };
    }
    if !ask.yes && !confirmed(fresh.len(), io)? {
        return Err(Failure::error("nothing was pinned")
            .hint("compare the fingerprints on site, then answer `yes`, or say `--yes`"));
    }
    let pins: Vec<Value> = fresh
        .iter()
        .map(|c| {
            json!({ "machine": c.machine, "controller": c.controller, "sha256": c.sha256,
                    "subject": c.subject })
        })
        .collect();
    let body = json!({ "pins": pins, "why": ask.why });
    let kept = api.post::<Value>("/v1/pins", &body, None).await?;
    if io.json {
        let mut raw = answer.raw;
        raw["pinned"] = kept.raw["pinned"].clone();
        io.document(&raw)?;
    } else {
        io.line(format_args!("{} pinned", fresh.len()))?;
        if let Some(other) = fresh.iter().find(|c| c.policy != "pin") {
            io.line(format_args!(
                "{}'s policy is `{}`: its pin counts once the inventory says `tls = \"pin\"`",
                other.place(),
                other.policy
            ))?;
        }
    }
    if unread { Err(Failure::Said) } else { Ok(()) }
}

fn certificates(shown: &[Certificate], io: &mut Io<'_>) -> Result<(), Failure> {
    let rows: Vec<Vec<Cell>> = shown
        .iter()
        .map(|c| {
            let paint = match c.stands.as_str() {
                "pinned" => Paint::Green,
                "changed" | "unread" => Paint::Red,
                _ => Paint::Yellow,
            };
            let what = match &c.trouble {
                Some(trouble) => trouble.clone(),
                None => format!("{}, until {}, at {}", c.subject, c.not_after, c.url),
            };
            vec![
                Cell::new(c.place()),
                Cell::new(&c.stands).painted(paint),
                Cell::new(&c.sha256),
                Cell::new(what),
            ]
        })
        .collect();
    io.table(&["MACHINE", "STANDS", "SHA-256", "CERTIFICATE"], &rows)
}

fn confirmed(count: usize, io: &mut Io<'_>) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    io.line(format_args!("accept {count} of them as the BMCs' own? Type `yes`:"))?;
    io.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|e| Failure::error(e.to_string()))?;
    Ok(answer.trim() == "yes")
}
