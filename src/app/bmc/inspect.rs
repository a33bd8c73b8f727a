//! `farrier bmc inspect`: all facts and warnings that the machine's inventory would hold. A part that
//! can't be read is named with its fault and costs nothing else.

use super::{One, bios, boot, change, firmware};
use crate::cli::Io;
use crate::cli::out::{Cell, Failure};
use crate::model::Fault;
use crate::model::facts::{Component, InventoryFacts, Part, SystemFacts, Task};
use crate::model::hardware::{Abilities, ClockFacts, MediaSlot, SecureBootFacts, Volume};
use crate::port::BmcRead;
use crate::port::capability::{BmcAbilities, BmcBios, BmcClock, BmcMedia, BmcVolumes};
use serde::Serialize;
use std::collections::BTreeMap;

/// What one look at a BMC gives.
#[derive(Debug, Serialize)]
struct Inspection {
    address: String,
    system: SystemFacts,
    inventory: Option<InventoryFacts>,
    firmware: Option<Vec<Component>>,
    tasks: Option<Vec<Task>>,
    abilities: Option<Abilities>,
    media: Option<Vec<MediaSlot>>,
    secure_boot: Option<SecureBootFacts>,
    volumes: Option<Vec<Volume>>,
    clock: Option<ClockFacts>,
    /// What could not be read, and why; a BMC that lacks a thing says `unsupported`.
    unread: BTreeMap<&'static str, Fault>,
}

pub(super) async fn run(one: &One<'_>, io: &mut Io<'_>) -> Result<(), Failure> {
    let (edge, target) = (&one.edge, &one.target);
    let system = match edge.system(target).await {
        Ok(system) => system,
        Err(fault) => return Err(one.failed(fault).await),
    };
    let mut unread = BTreeMap::new();
    let seen = Inspection {
        address: target.name.to_string(),
        system,
        inventory: part("inventory", edge.inventory(target).await, &mut unread),
        firmware: part("firmware", edge.firmware(target).await, &mut unread),
        tasks: part("tasks", edge.tasks(target, None).await, &mut unread),
        abilities: part("abilities", edge.abilities(target).await, &mut unread),
        media: part("media", edge.media(target).await, &mut unread),
        secure_boot: part("secure_boot", edge.secure_boot(target).await, &mut unread),
        volumes: part("volumes", edge.volumes(target).await, &mut unread),
        clock: part("clock", edge.clock(target).await, &mut unread),
        unread,
    };
    if io.json { io.document(&seen) } else { print(&seen, io) }
}

fn part<T>(
    name: &'static str,
    read: Result<T, Fault>,
    unread: &mut BTreeMap<&'static str, Fault>,
) -> Option<T> {
    match read {
        Ok(found) => Some(found),
        Err(fault) => {
            unread.insert(name, fault);
            None
        }
    }
}

fn print(seen: &Inspection, io: &mut Io<'_>) -> Result<(), Failure> {
    let s = &seen.system;
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let title = [s.manufacturer.as_deref(), s.model.as_deref()];
    let title = title.into_iter().flatten().collect::<Vec<_>>().join(" ");
    io.line(if title.is_empty() { "a machine without a model" } else { title.as_str() })?;
    let abilities = seen.abilities.clone().unwrap_or_default();
    let bmc = [abilities.bmc_model.as_deref(), abilities.bmc_firmware.as_deref()];
    let id = &s.identity;
    io.fields(&[
        ("serial", id.serial.as_ref().map_or("-".into(), ToString::to_string)),
        ("UUID", id.uuid.as_ref().map_or("-".into(), ToString::to_string)),
        ("boot MAC", id.mac.as_ref().map_or("-".into(), ToString::to_string)),
        ("power", change::power(s.power).to_string()),
        ("health", or_dash(&s.health)),
        ("boot", boot::said(s)),
        ("BIOS", or_dash(&s.bios_version)),
        ("BMC", bmc.into_iter().flatten().collect::<Vec<_>>().join(" ")),
        ("BMC's clock", seen.clock.as_ref().map(clock).unwrap_or_default()),
        (
            "memory",
            seen.inventory
                .as_ref()
                .and_then(|i| i.memory_mib)
                .map(|mib| format!("{} GiB", mib / 1024))
                .unwrap_or_default(),
        ),
        (
            "Secure Boot",
            seen.secure_boot
                .as_ref()
                .map(|b| {
                    format!("wanted {}, in force {}", bios::word(b.enabled), bios::word(b.in_force))
                })
                .unwrap_or_default(),
        ),
        ("resets", abilities.reset_types.join(", ")),
        ("boots from", abilities.boot_targets.join(", ")),
        (
            "virtual media",
            seen.media
                .as_ref()
                .map(|m| m.iter().map(|s| s.id.as_str()).collect::<Vec<_>>().join(", "))
                .unwrap_or_default(),
        ),
    ])?;
    if let Some(inventory) = &seen.inventory {
        parts(inventory, io)?;
        nics(inventory, io)?;
    }
    if let Some(volumes) = seen.volumes.as_ref().filter(|v| !v.is_empty()) {
        let row = |v: &Volume| {
            vec![
                Cell::new(&v.id),
                Cell::new(or_dash(&v.raid)),
                Cell::new(v.capacity_bytes.map_or("-".into(), size)),
                Cell::new(v.drives.len().to_string()),
            ]
        };
        io.line("")?;
        io.table(
            &["VOLUME", "RAID", "SIZE", "DRIVES"],
            &volumes.iter().map(row).collect::<Vec<_>>(),
        )?;
    }
    if let Some(all) = seen.firmware.as_ref().filter(|all| !all.is_empty()) {
        io.line("")?;
        firmware::table(all, io)?;
    }
    let warnings = seen.inventory.iter().flat_map(|i| &i.warnings).cloned();
    let lost = seen.unread.iter().map(|(name, f)| format!("{name}: {} ({})", f.message, f.code));
    let notes: Vec<String> = warnings.chain(lost).collect();
    if !notes.is_empty() {
        io.line("")?;
    }
    for note in notes {
        io.line(format_args!("warning: {}", crate::cli::out::printable(&note)))?;
    }
    Ok(())
}

/// How far the clock is off; below two seconds it can't be told.
pub(super) fn clock(c: &ClockFacts) -> String {
    match (c.ahead_ms, &c.says) {
        (Some(ms), _) if ms.unsigned_abs() < 2_000 => "right".to_string(),
        (Some(ms), _) => {
            let span = crate::model::time::Span(ms.unsigned_abs());
            format!("{span} {}", if ms > 0 { "ahead" } else { "behind" })
        }
        (None, Some(says)) => format!("says `{says}`"),
        (None, None) => "does not say".to_string(),
    }
}

fn parts(i: &InventoryFacts, io: &mut Io<'_>) -> Result<(), Failure> {
    let all = [("cpu", &i.cpus), ("gpu", &i.gpus), ("disk", &i.disks)];
    let rows: Vec<Vec<Cell>> =
        all.iter().flat_map(|(kind, parts)| parts.iter().map(|p| row(kind, p))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    io.line("")?;
    io.table(&["PART", "ID", "MODEL", "SERIAL", "SIZE", "SLOT", "FIRMWARE"], &rows)
}

fn row(kind: &str, p: &Part) -> Vec<Cell> {
    let or_dash = |text: &Option<String>| Cell::new(text.as_deref().unwrap_or("-"));
    vec![
        Cell::new(kind),
        Cell::new(&p.id),
        or_dash(&p.model),
        or_dash(&p.serial),
        Cell::new(p.capacity.map_or("-".into(), size)),
        or_dash(&p.slot),
        or_dash(&p.firmware),
    ]
}

/// As disks are sold: decimal.
pub(super) fn size(bytes: u64) -> String {
    let gb = bytes / 1_000_000_000;
    if gb >= 10_000 { format!("{} TB", gb / 1000) } else { format!("{gb} GB") }
}

fn nics(i: &InventoryFacts, io: &mut Io<'_>) -> Result<(), Failure> {
    if i.nics.is_empty() {
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = i
        .nics
        .iter()
        .map(|n| {
            let link = match n.link_up {
                Some(true) => "up",
                Some(false) => "down",
                None => "-",
            };
            let mac = Cell::new(n.mac.as_deref().unwrap_or("-"));
            vec![Cell::new(&n.id), mac, Cell::new(link)]
        })
        .collect();
    io.line("")?;
    io.table(&["NIC", "MAC", "LINK"], &rows)
}
