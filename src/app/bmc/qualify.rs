//! `farrier bmc qualify`: what a model and its firmware can do, which requests it takes how long for,
//! and what is odd about it. Read-only, and without anything that says which machine it was.

use super::scrub::Scrub;
use super::{One, inspect, sensors};
use crate::bmc::Asked;
use crate::cli::Io;
use crate::cli::out::{Cell, Failure, Paint};
use crate::model::facts::{InventoryFacts, SystemFacts};
use crate::model::hardware::{Abilities, BiosFacts, LogEntry, Sensor, SensorKind};
use crate::model::{Fault, FaultClass};
use crate::port::BmcRead;
use crate::port::capability::{
    BmcAbilities, BmcBios, BmcClock, BmcLog, BmcMedia, BmcNature, BmcSensors, BmcVolumes,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Kinds of requests that are listed as the slowest.
const SLOWEST: usize = 5;

#[derive(Debug, Serialize, Deserialize)]
struct Report {
    farrier: String,
    manufacturer: Option<String>,
    model: Option<String>,
    bios: Option<String>,
    /// Vendor and version that the service names.
    vendor: Option<String>,
    redfish: Option<String>,
    bmc_model: Option<String>,
    bmc_firmware: Option<String>,
    capabilities: Vec<Capability>,
    /// Names of the quirks' rules that fit.
    quirks: Vec<String>,
    requests: Requests,
    oddities: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Capability {
    name: String,
    /// `yes`, `no`, or `unclear`: it could not be read.
    can: String,
    seen: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Requests {
    count: usize,
    /// Without an answer, or with one from 500 on.
    failed: usize,
    median_ms: u64,
    worst_ms: u64,
    slowest: Vec<Slow>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Slow {
    what: String,
    worst_ms: u64,
}

/// What was read, part by part.
struct Seen {
    system: SystemFacts,
    capabilities: Vec<Capability>,
    abilities: Abilities,
    oddities: Vec<String>,
}

impl Seen {
    fn say(&mut self, name: &str, can: bool, seen: impl Into<String>) {
        let can = if can { "yes" } else { "no" };
        self.capabilities.push(Capability {
            name: name.into(),
            can: can.into(),
            seen: seen.into(),
        });
    }

    /// The part, or what its fault says of the capability.
    fn part<T>(&mut self, name: &str, read: Result<T, Fault>) -> Option<T> {
        match read {
            Ok(found) => Some(found),
            Err(f) => {
                let can = if f.class == FaultClass::Unsupported { "no" } else { "unclear" };
                self.capabilities.push(Capability {
                    name: name.into(),
                    can: can.into(),
                    seen: format!("{} ({})", f.message, f.code),
                });
                None
            }
        }
    }
}

pub(super) async fn run(one: &One<'_>, io: &mut Io<'_>) -> Result<(), Failure> {
    let seen = match look(one).await {
        Ok(seen) => seen,
        Err(fault) => return Err(one.failed(fault).await),
    };
    let Seen { system, capabilities, abilities, oddities } = seen;
    let keep: Vec<String> = [&system.manufacturer, &system.model, &abilities.bmc_model]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let report = Report {
        farrier: env!("CARGO_PKG_VERSION").into(),
        manufacturer: system.manufacturer,
        model: system.model,
        bios: system.bios_version,
        vendor: abilities.vendor,
        redfish: abilities.redfish,
        bmc_model: abilities.bmc_model,
        bmc_firmware: abilities.bmc_firmware,
        capabilities,
        quirks: match one.edge.quirks(&one.target).await {
            Ok(quirks) => quirks.rules.clone(),
            Err(fault) => return Err(one.failed(fault).await),
        },
        requests: requests(&one.trace.asked()),
        oddities,
    };
    let mut known = one.trace.identities();
    known.insert(host(&one.target.endpoint.url));
    let clean = serde_json::to_value(report).map(|v| Scrub::new(known, &keep).value(v));
    let report: Report = clean
        .and_then(serde_json::from_value)
        .map_err(|e| Failure::error(format!("the report could not be written: {e}")))?;
    if io.json { io.document(&report) } else { print(&report, io) }
}

/// Name or address of a URL, without scheme and port.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or(rest);
    match rest.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6).to_string(),
        None => rest.split(':').next().unwrap_or(rest).to_string(),
    }
}

async fn look(one: &One<'_>) -> Result<Seen, Fault> {
    let (edge, target) = (&one.edge, &one.target);
    let system = edge.system(target).await?;
    let mut seen = Seen {
        system,
        capabilities: Vec::new(),
        abilities: Abilities::default(),
        oddities: Vec::new(),
    };
    if let Some(found) = seen.part("resets", edge.abilities(target).await) {
        seen.abilities = found;
        abilities(&mut seen);
    }
    if let Some(found) = seen.part("inventory", edge.inventory(target).await) {
        inventory(&mut seen, found);
    }
    if let Some(all) = seen.part("firmware inventory", edge.firmware(target).await) {
        let updateable = all.iter().filter(|c| c.updateable == Some(true)).count();
        let without = all.iter().filter(|c| c.version.is_none()).count();
        seen.say(
            "firmware inventory",
            !all.is_empty(),
            format!("{} parts, {updateable} updateable", all.len()),
        );
        if without > 0 {
            seen.oddities
                .push(format!("{without} parts of the firmware inventory have no version"));
        }
    }
    if let Some(all) = seen.part("tasks", edge.tasks(target, None).await) {
        seen.say("tasks", true, format!("{} listed", all.len()));
    }
    if let Some(slots) = seen.part("virtual media", edge.media(target).await) {
        let mut kinds: Vec<&str> =
            slots.iter().flat_map(|s| s.kinds.iter().map(String::as_str)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        seen.say(
            "virtual media",
            !slots.is_empty(),
            format!("{} drives; {}", slots.len(), kinds.join(", ")),
        );
    }
    if let Some(found) = seen.part("BIOS settings", edge.bios(target).await) {
        bios(&mut seen, &found);
    }
    if let Some(found) = seen.part("Secure Boot", edge.secure_boot(target).await) {
        let mode = found.mode.unwrap_or_else(|| "mode unknown".into());
        seen.say("Secure Boot", found.enabled.is_some(), mode);
    }
    // One line of each is enough to see that the log is there.
    if let Some(entries) = seen.part("logs", edge.log(target, 1).await) {
        logs(&mut seen, &entries);
    }
    if let Some(all) = seen.part("sensors", edge.sensors(target).await) {
        readings(&mut seen, &all);
    }
    if let Some(all) = seen.part("volumes", edge.volumes(target).await) {
        seen.say("volumes", true, format!("{} listed", all.len()));
    }
    if let Some(clock) = seen.part("clock", edge.clock(target).await) {
        seen.say("clock", clock.ahead_ms.is_some(), inspect::clock(&clock));
    }
    Ok(seen)
}

fn abilities(seen: &mut Seen) {
    let a = seen.abilities.clone();
    let listed = |all: &[String]| match all {
        [] => "not listed; the standard's names are tried".to_string(),
        all => all.join(", "),
    };
    seen.say("resets", true, listed(&a.reset_types));
    let has = |word: &str| a.reset_types.is_empty() || a.reset_types.iter().any(|t| t == word);
    seen.say(
        "restart in one action",
        has("ForceRestart"),
        if has("ForceRestart") { "ForceRestart" } else { "off and on instead" },
    );
    seen.say("BMC reset", !a.bmc_reset_types.is_empty(), listed(&a.bmc_reset_types));
    seen.say("boot override", true, listed(&a.boot_targets));
    let http = a.boot_targets.iter().any(|t| t == "UefiHttp");
    seen.say("boot by UEFI HTTP", http, if http { "UefiHttp" } else { "not listed" });
    seen.say(
        "boot options",
        !a.boot_options.is_empty(),
        format!("{} listed", a.boot_options.len()),
    );
    seen.say(
        "firmware updates",
        !a.updates.is_empty(),
        if a.updates.is_empty() { "none advertised".to_string() } else { a.updates.join(", ") },
    );
    let seconds = |s: Option<u64>| s.map_or("not told".to_string(), |s| format!("{s} s"));
    seen.say("sessions", a.session_timeout_s.is_some(), seconds(a.session_timeout_s));
    if a.vendor.is_none() {
        seen.oddities.push("the service root names no vendor".into());
    }
    if let Some(n @ 1..=3) = a.lockout_threshold {
        seen.oddities.push(format!("an account is locked after {n} refused logins"));
    }
}

fn inventory(seen: &mut Seen, found: InventoryFacts) {
    let models = |parts: &[crate::model::facts::Part]| {
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for p in parts {
            *count.entry(p.model.clone().unwrap_or_else(|| "no model".into())).or_default() += 1;
        }
        count.iter().map(|(model, n)| format!("{n} × {model}")).collect::<Vec<_>>().join(", ")
    };
    for (name, parts) in [("CPUs", &found.cpus), ("GPUs", &found.gpus), ("disks", &found.disks)] {
        let serials = parts.iter().filter(|p| p.serial.is_some()).count();
        let mut text = models(parts);
        if !parts.is_empty() {
            text += &format!("; {serials} with a serial");
        }
        seen.say(name, !parts.is_empty(), text);
    }
    let macs = found.nics.iter().filter(|n| n.mac.is_some()).count();
    seen.say("NICs", macs > 0, format!("{}, {macs} with a MAC", found.nics.len()));
    let memory = found.memory_mib.map_or("not told".to_string(), |m| format!("{} GiB", m / 1024));
    seen.say("memory", found.memory_mib.is_some(), memory);
    seen.oddities.extend(found.warnings);
}

fn bios(seen: &mut Seen, found: &BiosFacts) {
    seen.say(
        "BIOS settings",
        !found.attributes.is_empty(),
        format!(
            "{} attributes, {} pending, registry {}",
            found.attributes.len(),
            found.pending.len(),
            found.registry.as_deref().unwrap_or("not told"),
        ),
    );
}

fn logs(seen: &mut Seen, entries: &[LogEntry]) {
    let mut names: Vec<&str> = entries.iter().map(|e| e.log.as_str()).collect();
    names.dedup();
    let text = if names.is_empty() { "all empty".to_string() } else { names.join(", ") };
    let undated = entries.iter().filter(|e| {
        let at = e.at.as_deref().unwrap_or_default();
        at.parse::<jiff::Timestamp>().is_err()
    });
    let undated = undated.count();
    seen.say("logs", true, text);
    if undated > 0 {
        seen.oddities.push(format!("{undated} newest log lines have no usable time"));
    }
}

fn readings(seen: &mut Seen, all: &[Sensor]) {
    let kinds = [
        SensorKind::Power,
        SensorKind::Temperature,
        SensorKind::Fan,
        SensorKind::Voltage,
        SensorKind::Leak,
        SensorKind::Other,
    ];
    let count = |kind| all.iter().filter(|s| s.kind == kind).count();
    let text: Vec<String> = kinds
        .into_iter()
        .filter(|kind| count(*kind) > 0)
        .map(|kind| format!("{} {}", count(kind), sensors::word(kind)))
        .collect();
    seen.say("sensors", !all.is_empty(), text.join(", "));
    let leaks = count(SensorKind::Leak);
    seen.say("leak detectors", leaks > 0, format!("{leaks} listed"));
}

/// How long the requests took, and which kinds took longest. A kind is a path without its ids.
fn requests(asked: &[Asked]) -> Requests {
    let mut took: Vec<u64> = asked.iter().map(|a| millis(a.took)).collect();
    took.sort_unstable();
    let mut worst: BTreeMap<String, u64> = BTreeMap::new();
    for a in asked {
        let ms = worst.entry(format!("{} {}", a.method, kind(&a.path))).or_default();
        *ms = (*ms).max(millis(a.took));
    }
    let mut slowest: Vec<Slow> =
        worst.into_iter().map(|(what, worst_ms)| Slow { what, worst_ms }).collect();
    slowest.sort_by_key(|s| std::cmp::Reverse(s.worst_ms));
    slowest.truncate(SLOWEST);
    Requests {
        count: asked.len(),
        failed: asked.iter().filter(|a| a.status.is_none_or(|s| s >= 500)).count(),
        median_ms: took.get(took.len() / 2).copied().unwrap_or_default(),
        worst_ms: took.last().copied().unwrap_or_default(),
        slowest,
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// `/redfish/v1/Systems/X/Processors/Y` is `Systems/*/Processors/*`: in Redfish every second segment
/// below a collection is somebody's id.
fn kind(path: &str) -> String {
    let below = path.trim_matches('/').trim_start_matches("redfish/v1").trim_matches('/');
    if below.is_empty() {
        return "service root".into();
    }
    let named = below.split('/').enumerate().map(|(n, s)| if n % 2 == 1 { "*" } else { s });
    named.collect::<Vec<_>>().join("/")
}

fn print(r: &Report, io: &mut Io<'_>) -> Result<(), Failure> {
    let words = |all: &[&Option<String>]| {
        all.iter().filter_map(|t| t.as_deref()).collect::<Vec<_>>().join(" ")
    };
    let title = words(&[&r.manufacturer, &r.model]);
    io.line(if title.is_empty() { "a machine without a model".to_string() } else { title })?;
    io.fields(&[
        ("BIOS", words(&[&r.bios])),
        ("BMC", words(&[&r.vendor, &r.bmc_model, &r.bmc_firmware])),
        ("Redfish", words(&[&r.redfish])),
        ("farrier", r.farrier.clone()),
    ])?;
    io.line("")?;
    let rows: Vec<Vec<Cell>> = r
        .capabilities
        .iter()
        .map(|c| {
            let paint = match c.can.as_str() {
                "yes" => Paint::Green,
                "no" => Paint::Dim,
                _ => Paint::Yellow,
            };
            vec![Cell::new(&c.name), Cell::new(&c.can).painted(paint), Cell::new(&c.seen)]
        })
        .collect();
    io.table(&["CAPABILITY", "CAN", "SEEN"], &rows)?;
    io.line("")?;
    if !r.quirks.is_empty() {
        io.line(format_args!("quirks that apply: {}", r.quirks.join(", ")))?;
    }
    io.line(format_args!(
        "{} requests, {} failed; median {} ms, worst {} ms",
        r.requests.count, r.requests.failed, r.requests.median_ms, r.requests.worst_ms
    ))?;
    for slow in &r.requests.slowest {
        io.line(format_args!("  {} ms  {}", slow.worst_ms, slow.what))?;
    }
    if !r.oddities.is_empty() {
        io.line("")?;
    }
    for odd in &r.oddities {
        io.line(format_args!("odd: {}", crate::cli::out::printable(odd)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_by_kind_and_not_by_id() {
        assert_eq!(kind("/redfish/v1/"), "service root");
        assert_eq!(kind("/redfish/v1/Systems/437XR/Processors/CPU1"), "Systems/*/Processors/*");
        assert_eq!(host("https://[fd00::7]:8443/"), "fd00::7");
        assert_eq!(host("https://bmc-7.example:8443"), "bmc-7.example");
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let asked = |ms, status| Asked {
            method: "GET".into(),
            path: "/redfish/v1/Systems/1".into(),
            status,
            took: Duration::from_millis(ms),
        };
        let r = requests(&[asked(10, Some(200)), asked(30, None), asked(20, Some(503))]);
        assert_eq!((r.count, r.failed, r.median_ms, r.worst_ms), (3, 2, 20, 30));
        assert_eq!(requests(&[]).median_ms, 0);
    }
}
