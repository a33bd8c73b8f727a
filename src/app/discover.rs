//! `farrier discover scan`: what answers on the BMC networks, beside what the inventory expects.
//! Looks, compares, says; changes nothing.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "reads inventory files and the environment's credential"
)]

use super::access::{Access, Guarded};
use super::identify::{self, Identified};
use super::{database, files, parts};
use crate::bmc::RedfishBmc;
use crate::cli::Global;
use crate::cli::args::Scan as Words;
use crate::config::{self, Daemon, Source};
use crate::model::{Channel, Expected, Fault, FaultClass, MachineId};
use crate::port::{Bmc, Credential, Secret, Vault};
use crate::scan::reconcile::{Delivered, Kind, Line, reconcile};
use crate::scan::{self, Range};
use async_trait::async_trait;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// What is to be scanned, and what it is compared with.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub ranges: Vec<String>,
    pub allow: Vec<String>,
    pub config: Option<PathBuf>,
    pub inventory: Vec<PathBuf>,
    pub identify: bool,
    pub knock: scan::Settings,
    /// Where a daemon may be that has the database.
    pub api: Option<Global>,
}

impl Ask {
    /// As a command line says it.
    pub fn of(w: Words, api: Global) -> Self {
        Self {
            api: Some(api),
            ranges: w.range,
            allow: w.allow,
            config: w.config,
            inventory: w.inventory,
            identify: w.identify,
            knock: scan::Settings {
                https_port: w.https_port,
                http_port: w.http_port,
                ipmi_port: w.ipmi_port,
                per_s: w.rate,
                at_once: w.at_once.into(),
                timeout_ms: w.timeout.saturating_mul(1000),
            },
        }
    }
}

/// More addresses than this are a slip of the pen: at 50 connections a second they take an hour.
const MAX_ADDRESSES: u128 = 65_536;

/// How a scan ended, as `--json` has it.
#[derive(Debug, Serialize)]
pub struct Report {
    pub addresses: u64,
    pub ranges: Vec<String>,
    pub lines: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub struct Row {
    #[serde(flatten)]
    pub line: Line,
    /// Only with `--identify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identified: Option<Identified>,
}

/// Prints the findings; exit 0 when the scan was made, whatever it found, 1 when it could not be,
/// 2 when it must not be.
pub fn scan(ask: &Ask, json: bool) -> ExitCode {
    database::block_on(async {
        match run(ask).await {
            Ok(report) if json => {
                println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
                ExitCode::SUCCESS
            }
            Ok(report) => {
                show(&report);
                ExitCode::SUCCESS
            }
            Err(End::Refused(why)) => {
                eprintln!("error: {why}");
                ExitCode::from(2)
            }
            Err(End::Failed(why)) => {
                eprintln!("error: {why}");
                ExitCode::FAILURE
            }
        }
    })
}

/// Why there is no report.
#[derive(Debug)]
pub enum End {
    /// Not allowed, or not understood; nothing was sent.
    Refused(String),
    Failed(String),
}

/// Scans, compares and, where it was asked for, logs in.
///
/// # Errors
/// A sentence for a person.
pub async fn run(ask: &Ask) -> Result<Report, End> {
    let loaded = match &ask.config {
        Some(path) => Some(files::load(path).map_err(|p| End::Refused(p.report))?),
        None => None,
    };
    let daemon = loaded.as_ref().map(|l| l.daemon.clone());
    let ranges = allowed(ask, daemon.as_ref()).map_err(End::Refused)?;
    let expected = match (ask.inventory.is_empty(), loaded) {
        (false, _) => inventory(&ask.inventory).map_err(End::Refused)?,
        (true, Some(loaded)) => loaded.expected,
        (true, None) => Vec::new(),
    };
    let logins = match ask.identify {
        true => Some(logins(ask, daemon.as_ref()).await?),
        false => None,
    };
    let count: u128 = ranges.iter().map(Range::len).sum();
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let bar = bar(count);
    let all = ranges.iter().flat_map(Range::addresses);
    let found = scan::scan(all, &ask.knock, || bar.inc(1)).await.map_err(End::Failed)?;
    bar.finish_and_clear();
    let lines = reconcile(&expected, found, &ranges, &delivered(daemon.as_ref()).await);
    let rows = match logins {
        None => lines.into_iter().map(|line| Row { line, identified: None }).collect(),
        Some(logins) => identify(&logins, ask, &expected, lines).await?,
    };
    Ok(Report {
        addresses: count,
        ranges: ranges.iter().map(Range::to_string).collect(),
        lines: rows,
    })
}

/// The delivery notes that were taken in, as the database has them, also beside a running daemon.
async fn delivered(daemon: Option<&Daemon>) -> Delivered {
    let Some(daemon) = daemon.filter(|d| d.database.is_file()) else { return Delivered::new() };
    match crate::store::credentials::delivered_at(&daemon.database).await {
        Ok(all) => by_mac(all),
        Err(e) => {
            eprintln!("warning: delivery notes are not compared: {e}");
            Delivered::new()
        }
    }
}

/// Serials by BMC MAC.
pub(super) fn by_mac(notes: Vec<(String, String)>) -> Delivered {
    notes.into_iter().filter_map(|(serial, mac)| Some((mac.parse().ok()?, serial))).collect()
}

/// The ranges to scan: what was asked for, as far as it lies in what is allowed; that as a whole
/// where nothing was asked for.
fn allowed(ask: &Ask, daemon: Option<&Daemon>) -> Result<Vec<Range>, String> {
    let parse = |all: &[String]| all.iter().map(|t| t.parse()).collect::<Result<Vec<Range>, _>>();
    let (allowed, place) = match daemon {
        Some(daemon) => {
            let all: Vec<String> = daemon.discovery.iter().map(ToString::to_string).collect();
            (parse(&all)?, "`[discovery] ranges` of the configuration")
        }
        None => (parse(&ask.allow)?, "--allow"),
    };
    if allowed.is_empty() {
        return Err(match daemon {
            Some(_) => "the configuration allows no range to be scanned\n  hint: write one like \
                        `[discovery]`, `ranges = [\"10.20.0.0/16\"]` into farrier.toml"
                .to_string(),
            None => "no range is allowed to be scanned\n  hint: name the BMC network with \
                     `--allow 10.20.0.0/24`, or a configuration that has `[discovery] ranges`"
                .to_string(),
        });
    }
    let mut wanted = parse(&ask.ranges)?;
    if wanted.is_empty() {
        wanted.clone_from(&allowed);
    }
    if let Some(stray) = wanted.iter().find(|w| !allowed.iter().any(|a| w.is_within(a))) {
        return Err(format!(
            "{stray} does not lie within what may be scanned; nothing was sent\n  hint: {place} \
             says what may"
        ));
    }
    let mut out: Vec<Range> = Vec::with_capacity(wanted.len());
    for range in wanted {
        // What lies in another one is not knocked at twice.
        if !out.iter().any(|r| range.is_within(r)) {
            out.retain(|r| !r.is_within(&range));
            out.push(range);
        }
    }
    let count: u128 = out.iter().map(Range::len).fold(0, u128::saturating_add);
    if count > MAX_ADDRESSES {
        return Err(format!(
            "{count} addresses are more than a scan takes ({MAX_ADDRESSES})\n  hint: name a part of \
             them with `--range`"
        ));
    }
    Ok(out)
}

fn inventory(paths: &[PathBuf]) -> Result<Vec<Arc<Expected>>, String> {
    let mut sources = Vec::with_capacity(paths.len());
    for path in paths {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("can't read the inventory `{shown}`: {e}"))?;
        sources.push(Source::new(shown, text));
    }
    let (inventory, found) = config::inventory::parse(&sources);
    if found.iter().any(|d| d.severity == config::Severity::Error) {
        return Err(format!("the inventory has mistakes\n{}", config::render(&found)));
    }
    Ok(inventory.machines)
}

/// One credential for all, from the environment.
struct Given(Credential);

#[async_trait]
impl Vault for Given {
    async fn credential(&self, _: &str) -> Result<Credential, Fault> {
        Ok(self.0.clone())
    }

    async fn ssh_key(&self, name: &str) -> Result<Secret, Fault> {
        let why = format!("a scan needs no key, and not `{name}`");
        Err(Fault::new(FaultClass::Bug, Channel::Engine, "no-key", why))
    }
}

/// Who logs in.
enum Logins {
    Here(Box<dyn Bmc>),
    /// It has the database, and with it the credentials.
    Daemon(Box<Global>),
}

async fn logins(ask: &Ask, daemon: Option<&Daemon>) -> Result<Logins, End> {
    let given = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let edge = |vault| RedfishBmc::new(vault, crate::bmc::Settings::default());
    if let (Some(user), Some(password)) = (given("FARRIER_BMC_USER"), given("FARRIER_BMC_PASSWORD"))
    {
        let vault = Given(Credential { user, password: Secret::new(password) });
        return Ok(Logins::Here(Box::new(edge(Arc::new(vault)))));
    }
    let hint = "hint: give FARRIER_BMC_USER and FARRIER_BMC_PASSWORD in the environment";
    let Some(daemon) = daemon.filter(|d| d.database.is_file()) else {
        return Err(End::Refused(format!("`--identify` has no credential\n  {hint}")));
    };
    let opened =
        crate::store::SqliteStore::open(&daemon.database, crate::store::Settings::default()).await;
    let store = match (opened, &ask.api) {
        (Ok(store), _) => store,
        // The database is the daemon's while that runs: it is asked to look.
        (Err(_), Some(global)) => return Ok(Logins::Daemon(Box::new(global.clone()))),
        (Err(e), None) => return Err(End::Failed(format!("{e}\n  {hint}"))),
    };
    let vault = async {
        let vault = parts::vault(&store, daemon).await?;
        Ok((vault, store.pins().await.map_err(|e| e.to_string())?))
    };
    let read = vault.await.map_err(End::Failed);
    store.close().await;
    let (vault, pins) = read?;
    // A password that was rotated counts, not the one that the machine came with.
    let access = Access::new(vault.secrets().clone(), pins);
    Ok(Logins::Here(Box::new(Guarded::new(Arc::new(edge(Arc::new(vault))), access))))
}

/// Logs in to the machines that showed their UUID or their note's MAC, once each, and compares what only
/// a login tells.
async fn identify(
    logins: &Logins,
    ask: &Ask,
    expected: &[Arc<Expected>],
    lines: Vec<Line>,
) -> Result<Vec<Row>, End> {
    let edge = match logins {
        Logins::Here(edge) => &**edge,
        Logins::Daemon(global) => return by_daemon(global, ask, lines).await,
    };
    let rows = futures_util::stream::iter(lines).map(|line| async move {
        let at = line.expected.and_then(|n| Some((n, expected.get(n)?)));
        let identified = match at {
            Some((n, machine)) if line.found.is_some() => {
                let id = MachineId(u32::try_from(n).unwrap_or(u32::MAX));
                Some(identify::compare(edge, id, machine, &line).await)
            }
            _ => None,
        };
        Row { line, identified }
    });
    Ok(rows.buffered(identify::LOGINS).collect().await)
}

/// The same by the daemon, which has the credentials: it is told addresses, and tells what it found.
async fn by_daemon(global: &Global, ask: &Ask, lines: Vec<Line>) -> Result<Vec<Row>, End> {
    let mut rows: Vec<Row> = lines.into_iter().map(|line| Row { line, identified: None }).collect();
    let asks = |row: &&mut Row| row.line.expected.is_some() && row.line.found.is_some();
    let mut wanted: Vec<&mut Row> = rows.iter_mut().filter(asks).collect();
    for some in wanted.chunks_mut(identify::LOGINS) {
        let addresses = some.iter().filter_map(|r| r.line.address).collect();
        let order = identify::Order {
            addresses,
            https_port: ask.knock.https_port,
            http_port: ask.knock.http_port,
            ipmi_port: ask.knock.ipmi_port,
        };
        let told: identify::Told =
            crate::cli::identify(global, &order).await.map_err(End::Failed)?;
        for row in some {
            let of = |t: &&identify::Line| Some(t.address) == row.line.address;
            let found = told.lines.iter().find(of);
            row.identified = Some(match found {
                // Its inventory is newer or older than the one that was compared with here.
                Some(t) if t.machine.as_deref() != row.line.machine.as_deref() => {
                    let other = t.machine.as_deref().unwrap_or("no machine of its inventory");
                    Identified::NotAsked { why: format!("the daemon takes it for {other}") }
                }
                Some(t) => t.identified.clone(),
                None => Identified::NotAsked { why: "it no longer answers".into() },
            });
        }
    }
    Ok(rows)
}

fn bar(count: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos:>5}/{len} addresses, {eta} left");
    let bar = ProgressBar::new(count);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn show(report: &Report) {
    let cells: Vec<[String; 4]> = report.lines.iter().map(cells).collect();
    let mut width = [0; 3];
    for row in &cells {
        for (w, cell) in width.iter_mut().zip(row) {
            *w = (*w).max(cell.chars().count());
        }
    }
    for [address, kind, what, says] in &cells {
        let [a, k, w] = width;
        println!("{}", format!("{address:a$}  {kind:k$}  {what:w$}  {says}").trim_end());
    }
    let mut counts = Vec::new();
    for kind in Kind::ALL {
        match report.lines.iter().filter(|r| r.line.kind == kind).count() {
            0 => {}
            n => counts.push(format!("{n} {}", kind.name())),
        }
    }
    let told = if counts.is_empty() { "nothing answered".to_string() } else { counts.join(", ") };
    println!("{} addresses: {told}", report.addresses);
}

fn cells(row: &Row) -> [String; 4] {
    let line = &row.line;
    let address = line.address.map(|a| a.to_string()).unwrap_or_default();
    let found = line.found.as_ref();
    let what = match found.map(|f| (&f.redfish, &f.other, f.ipmi)) {
        Some((Some(r), _, ipmi)) => {
            let words = [r.vendor.as_deref(), r.product.as_deref(), r.version.as_deref()];
            let words: Vec<&str> = words.into_iter().flatten().collect();
            format!("Redfish {}{}", words.join(" "), if ipmi { ", IPMI" } else { "" })
        }
        Some((None, Some(other), ipmi)) => {
            format!("{other}{}", if ipmi { ", IPMI" } else { "" })
        }
        Some((None, None, _)) => "IPMI".to_string(),
        None => String::new(),
    };
    let says = match &row.identified {
        None => line.what.clone(),
        Some(told) => format!("{}; {}", line.what, identified(told)),
    };
    [address, line.kind.name().to_string(), what, says]
}

fn identified(told: &Identified) -> String {
    match told {
        Identified::Same { serial, mac, .. } => {
            let serial = serial.as_deref().unwrap_or("not known");
            let mac = mac.as_deref().map(|m| format!(", MAC {m}")).unwrap_or_default();
            format!("logged in: the same machine (serial {serial}{mac})")
        }
        Identified::Differs { part, expected, found } => {
            format!("logged in: ANOTHER MACHINE, {part} is {found}, expected {expected}")
        }
        Identified::Unknown => "logged in: the BMC knows nothing to compare".to_string(),
        Identified::Failed { why } => format!("not identified: {why}"),
        Identified::NotAsked { why } => format!("no login: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(ranges: &[&str], allow: &[&str]) -> Ask {
        let own = |all: &[&str]| all.iter().map(|s| s.to_string()).collect();
        Ask { ranges: own(ranges), allow: own(allow), ..Ask::default() }
    }

    #[test]
    fn nothing_outside_of_what_is_allowed_is_scanned() {
        let ok = |r: &[&str], a: &[&str]| {
            allowed(&ask(r, a), None)
                .map(|all| all.iter().map(Range::to_string).collect::<Vec<_>>())
        };
        assert_eq!(ok(&[], &["10.0.0.0/24"]), Ok(vec!["10.0.0.0/24".to_string()]));
        assert_eq!(
            ok(&["10.0.0.0/28", "10.0.0.3"], &["10.0.0.0/24"]),
            Ok(vec!["10.0.0.0/28".to_string()]),
            "not knocked at twice"
        );
        assert!(
            ok(&["10.0.1.0/24"], &["10.0.0.0/24"]).is_err_and(|e| e.contains("nothing was sent"))
        );
        assert!(ok(&["10.0.0.0/24"], &[]).is_err_and(|e| e.contains("hint:")));
        assert!(ok(&[], &["10.0.0.0/8"]).is_err_and(|e| e.contains("16777214 addresses")));
        assert!(ok(&["::/0"], &["::/0"]).is_err());
    }
}
