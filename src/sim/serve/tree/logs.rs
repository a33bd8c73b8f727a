//! The system event log: power, resets, flashes, heat and leaks, as the physics had them. It
//! expands its entries, as the schema has it (`OData.AutoExpand`), and comes in pages.

use super::{action, collection, collection_of, date, healthy, link, typed};
use crate::model::EngineTime;
use crate::sim::physics::{Note, VirtualMachine};
use crate::sim::truth::{Effect, What};
use serde_json::{Value, json};

/// Entries of a page.
const PAGE: usize = 50;
/// Lines that the log holds; the oldest go.
const HOLDS: usize = 512;

/// Below `Systems/1/LogServices`.
pub(super) fn of_system(vm: &VirtualMachine, now: EngineTime, rest: &[&str]) -> Option<Value> {
    resource(vm, now, ("Systems/1", "SEL", "System event log"), rest)
}

/// Below `Managers/1/LogServices`: what happened to the BMC itself.
pub(super) fn of_bmc(vm: &VirtualMachine, now: EngineTime, rest: &[&str]) -> Option<Value> {
    resource(vm, now, ("Managers/1", "BMC", "BMC log"), rest)
}

fn resource(
    vm: &VirtualMachine,
    now: EngineTime,
    (at, id, name): (&str, &str, &str),
    rest: &[&str],
) -> Option<Value> {
    let path = format!("{at}/LogServices/{id}");
    let of_bmc = id == "BMC";
    match rest {
        [] => Some(collection(&format!("{at}/LogServices"), "LogService", [id.to_string()])),
        [own] if *own == id => Some(typed(
            &path,
            "LogService",
            json!({
                "Id": id, "Name": name, "LogEntryType": if of_bmc { "Event" } else { "SEL" },
                "ServiceEnabled": true, "MaxNumberOfRecords": HOLDS,
                "OverWritePolicy": "WrapsWhenFull",
                "DateTime": date(vm, now),
                "DateTimeLocalOffset": "+00:00", "Status": healthy(),
                "Entries": link(&format!("{path}/Entries")),
                "Actions": {"#LogService.ClearLog": {"target": action(&path, "LogService.ClearLog")}},
            }),
        )),
        [own, "Entries"] if *own == id => Some(page(vm, &path, of_bmc, 0)),
        // A page further on; the router makes this segment of `?$skip=`.
        [own, "Entries", skip] if *own == id && skip.starts_with("$skip=") => {
            Some(page(vm, &path, of_bmc, skip.get(6..)?.parse().ok()?))
        }
        [own, "Entries", entry_id] if *own == id => {
            lines(vm, of_bmc).find(|l| l.id == *entry_id).map(|l| entry(vm, &path, of_bmc, &l))
        }
        _ => None,
    }
}

fn page(vm: &VirtualMachine, path: &str, of_bmc: bool, skip: usize) -> Value {
    let all: Vec<Line> = lines(vm, of_bmc).collect();
    let held = all.get(all.len().saturating_sub(HOLDS)..).unwrap_or_default();
    let members =
        held.iter().skip(skip).take(PAGE).map(|l| entry(vm, path, of_bmc, l)).collect::<Vec<_>>();
    let next = skip.saturating_add(members.len());
    let mut body = collection_of(&format!("{path}/Entries"), "LogEntry", members);
    body["Members@odata.count"] = held.len().into();
    if next < held.len() {
        body["Members@odata.nextLink"] =
            format!("{}/{path}/Entries?$skip={next}", super::V1).into();
    }
    body
}

const CHANGE: Code = ("Version Change", "Informational", "0x6f07ffff");

/// `SensorType`, `EntryCode` and the event data of IPMI 2.0, tables 42-1 to 42-3.
type Code = (&'static str, &'static str, &'static str);

/// A line of the log: what the sensors and the BMC make of an event.
struct Line {
    id: String,
    at: EngineTime,
    severity: &'static str,
    code: Code,
    message: String,
}

fn lines(vm: &VirtualMachine, of_bmc: bool) -> impl Iterator<Item = Line> {
    let (effects, notes) = vm.board.cleared;
    let told = vm.truth.effects().iter().enumerate().skip(effects);
    let told = told.filter_map(|(n, e)| of_effect(vm, n, e));
    let noted = vm.board.notes.iter().enumerate().skip(notes).map(|(n, (at, note))| {
        let id = format!("N{}", n + 1);
        of_note(id, *at, *note)
    });
    let mut all: Vec<(bool, Line)> = told.chain(noted).collect();
    all.retain(|(bmc, _)| *bmc == of_bmc);
    all.sort_by_key(|(_, l)| l.at);
    all.into_iter().map(|(_, l)| l)
}

/// The line of an effect, and whether it is of the BMC's log; most effects leave none.
fn of_effect(vm: &VirtualMachine, n: usize, e: &Effect) -> Option<(bool, Line)> {
    let slot = |slot: u8| {
        let slot = vm.firmware.get(usize::from(slot));
        slot.map_or("a component", |s| s.name)
    };
    let acpi = "System ACPI PowerState";
    let host =
        |severity: &'static str, code: Code, message: String| (false, severity, code, message);
    let bmc = |message: &str| (true, "OK", ("OEM", "OEM", "0x6f00ffff"), message.to_string());
    let (of_bmc, severity, code, message) = match e.what {
        What::PowerOn => host("OK", (acpi, "D0 Power State", "0x6f00ffff"), "Host power on".into()),
        What::PowerCut => {
            host("OK", (acpi, "D3 Power State", "0x6f06ffff"), "Host power off or reset".into())
        }
        What::FlashStarted { slot: s, .. } => {
            host("OK", CHANGE, format!("Update of {} started", slot(s)))
        }
        What::FlashEnded { slot: s, ok: true } => {
            host("OK", CHANGE, format!("Update of {} written", slot(s)))
        }
        What::FlashEnded { slot: s, ok: false } | What::FlashBroken { slot: s } => {
            let code = (CHANGE.0, "Transition to Critical from less severe", "0x6f05ffff");
            host("Critical", code, format!("Update of {} failed", slot(s)))
        }
        What::CopyBroken { slot: s, .. } => {
            let code = (CHANGE.0, "Transition to Critical from less severe", "0x6f05ffff");
            host("Critical", code, format!("Background copy of {} was cut short", slot(s)))
        }
        What::SettingsApplied => {
            let code = ("SystemBoot/Restart", "Informational", "0x6f01ffff");
            host("OK", code, "Settings applied by POST".into())
        }
        What::BmcReset => bmc("BMC reset"),
        What::MediumInserted => bmc("Virtual medium inserted"),
        What::MediumEjected => bmc("Virtual medium ejected"),
        What::AccountSet => bmc("Account changed"),
        What::VolumeMade { .. } => bmc("Volume created"),
        What::VolumeDeleted => bmc("Volume deleted"),
        _ => return None,
    };
    Some((of_bmc, Line { id: (n + 1).to_string(), at: e.at, severity, code, message }))
}

fn of_note(id: String, at: EngineTime, note: Note) -> (bool, Line) {
    let (severity, code, message) = match note {
        Note::GpuHot(n) => (
            "Critical",
            ("Temperature", "Upper Critical - going high", "0x0109ffff"),
            format!("GPU{n} temperature above its critical threshold"),
        ),
        Note::Leak => (
            "Critical",
            ("CoolingDevice", "Transition to Critical from less severe", "0x0702ffff"),
            "Coolant leak detected".to_string(),
        ),
        Note::LogCleared => (
            "OK",
            ("Event Logging Disabled", "State Asserted", "0x6f02ffff"),
            "Log cleared".to_string(),
        ),
    };
    (false, Line { id, at, severity, code, message })
}

fn entry(vm: &VirtualMachine, path: &str, of_bmc: bool, line: &Line) -> Value {
    let (sensor, code, data) = line.code;
    let mut body = json!({
        "Id": line.id, "Name": format!("Log entry {}", line.id),
        "EntryType": if of_bmc { "Event" } else { "SEL" },
        "Created": date(vm, line.at), "Severity": line.severity, "Message": line.message,
    });
    if !of_bmc {
        body["SensorType"] = sensor.into();
        body["EntryCode"] = code.into();
        body["MessageId"] = data.into();
    } else {
        body["MessageId"] = "ResourceEvent.1.3.ResourceChanged".into();
    }
    typed(&format!("{path}/Entries/{}", line.id), "LogEntry", body)
}
