//! What is in the box: CPUs, memory, disks, NICs, GPUs. A part that can't be read costs a warning,
//! never the rest.

use super::conn::Bmc;
use super::json::{self, Warnings};
use super::{clock, discover, system};
use crate::model::Fault;
use crate::model::facts::{InventoryFacts, Nic, Part};
use crate::model::identity::{clean_mac, clean_serial};
use serde_json::Value;

pub(super) async fn read(bmc: &Bmc<'_>) -> Result<InventoryFacts, Fault> {
    let (links, v) = system::fetch(bmc).await?;
    let mut w = Warnings::default();
    // First: a broken BMC fills the warnings.
    let clock = clock::noticed(bmc, &v, &mut w).await?;
    let mut facts = InventoryFacts { clock, ..InventoryFacts::default() };
    processors(bmc, &v, &mut facts, &mut w).await?;
    for other in &links.others {
        if let Some(v) = soft(bmc.get(other).await, other, &mut w)? {
            processors(bmc, &v, &mut facts, &mut w).await?;
        }
    }
    if facts.gpus.is_empty() {
        facts.gpus = pcie_gpus(bmc, &v, &mut w).await?;
    }
    facts.memory_mib = memory(bmc, &v, &links.system, &mut w).await?;
    facts.disks = disks(bmc, &v, &mut w).await?;
    facts.nics = nics(bmc, &v, &mut w).await?;
    once(&mut facts.gpus);
    once(&mut facts.disks);
    facts.warnings = w.0;
    Ok(facts)
}

/// A part's fault becomes a warning; the BMC's own ends the read.
pub(super) fn soft<T>(
    read: Result<T, Fault>,
    what: &str,
    w: &mut Warnings,
) -> Result<Option<T>, Fault> {
    match read {
        Ok(v) => Ok(Some(v)),
        Err(f) if discover::is_fatal(&f) => Err(f),
        Err(f) => {
            w.push(format!("{what}: {} ({})", f.message, f.code));
            Ok(None)
        }
    }
}

/// The members of the collection at `v[key]`, those that could be read.
pub(super) async fn below(
    bmc: &Bmc<'_>,
    v: &Value,
    key: &str,
    w: &mut Warnings,
) -> Result<Vec<(String, Value)>, Fault> {
    let Some(link) = json::link(v, &[key]) else { return Ok(vec![]) };
    let read = soft(bmc.resources(&link).await, key, w)?.unwrap_or_default();
    good(read, w)
}

pub(super) fn good(
    read: Vec<(String, Result<Value, Fault>)>,
    w: &mut Warnings,
) -> Result<Vec<(String, Value)>, Fault> {
    let mut out = Vec::new();
    for (path, read) in read {
        if let Some(v) = soft(read, &path, w)? {
            out.push((path, v));
        }
    }
    Ok(out)
}

/// An empty slot is listed as a resource that is absent.
pub(super) fn is_absent(v: &Value) -> bool {
    json::text(v, &["Status", "State"]).is_some_and(|s| s.eq_ignore_ascii_case("absent"))
}

fn part(path: &str, v: &Value, w: &mut Warnings) -> Part {
    Part {
        id: w.text(v, "Id", path).unwrap_or_else(|| json::last_segment(path).to_string()),
        model: w.text(v, "Model", path),
        manufacturer: w.text(v, "Manufacturer", path),
        serial: w.text(v, "SerialNumber", path).as_deref().and_then(clean_serial),
        ..Part::default()
    }
}

/// A GPU: a part with its place and its own firmware, which vendors write in different places.
fn gpu(path: &str, v: &Value, w: &mut Warnings) -> Part {
    let slot = json::text(v, &["Location", "PartLocation", "ServiceLabel"])
        .or_else(|| json::text(v, &["Slot", "Location", "PartLocation", "ServiceLabel"]))
        .or_else(|| Some(format!("GPU{}", json::text(v, &["Oem", "Supermicro", "GPUSlot"])?)))
        .or_else(|| {
            let device = json::link(v, &["Links", "PCIeDevice"])?;
            let name = json::last_segment(&device).to_string();
            name.to_ascii_lowercase().contains("slot").then_some(name)
        });
    Part { slot, firmware: w.text(v, "FirmwareVersion", path), ..part(path, v, w) }
}

/// CPUs and GPUs by `ProcessorType`; others (FPGA, DPU cores) are neither.
async fn processors(
    bmc: &Bmc<'_>,
    system: &Value,
    facts: &mut InventoryFacts,
    w: &mut Warnings,
) -> Result<(), Fault> {
    for (path, v) in below(bmc, system, "Processors", w).await? {
        // GB200 says Absent of GPUs whose firmware has a version: State is no proof there, a
        // model or serial is.
        if is_absent(&v) && v["Model"].is_null() && v["SerialNumber"].is_null() {
            continue;
        }
        let kind = w.text(&v, "ProcessorType", &path).unwrap_or_default();
        match kind.as_str() {
            "GPU" => facts.gpus.push(gpu(&path, &v, w)),
            "CPU" | "" => facts.cpus.push(part(&path, &v, w)),
            _ => {}
        }
    }
    Ok(())
}

/// GPUs among the PCIe devices, where no processor is one (Supermicro HGX). Devices are told by
/// their name, so that a hundred others need not be read.
async fn pcie_gpus(bmc: &Bmc<'_>, system: &Value, w: &mut Warnings) -> Result<Vec<Part>, Fault> {
    let mut paths: Vec<String> =
        json::list(system, &["PCIeDevices"]).iter().filter_map(json::link_of).collect();
    for link in json::list(system, &["Links", "Chassis"]).iter().filter_map(json::link_of) {
        let Some(chassis) = soft(bmc.get(&link).await, &link, w)? else { continue };
        let Some(devices) = json::link(&chassis, &["PCIeDevices"]) else { continue };
        let members = soft(bmc.members(&devices, false).await, &devices, w)?.unwrap_or_default();
        paths.extend(members.iter().filter_map(json::link_of));
    }
    paths.retain(|p| json::last_segment(p).to_ascii_uppercase().contains("GPU"));
    paths.sort();
    paths.dedup();
    let read = good(bmc.get_all(paths).await?, w)?;
    Ok(read.iter().filter(|(_, v)| !is_absent(v)).map(|(p, v)| gpu(p, v, w)).collect())
}

async fn memory(
    bmc: &Bmc<'_>,
    system: &Value,
    path: &str,
    w: &mut Warnings,
) -> Result<Option<u64>, Fault> {
    if let Some(summary) = json::at(system, &["MemorySummary"])
        && let Some(gib) = w.number(summary, "TotalSystemMemoryGiB", path)
        && gib > 0.0
    {
        return Ok(whole(gib * 1024.0));
    }
    let modules = below(bmc, system, "Memory", w).await?;
    let mib: f64 = modules.iter().filter_map(|(p, v)| w.number(v, "CapacityMiB", p)).sum();
    Ok(whole(mib).filter(|m| *m > 0))
}

/// A number of a size that makes sense, rounded.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounds are checked")]
fn whole(n: f64) -> Option<u64> {
    (n.is_finite() && (0.0..1e18).contains(&n)).then(|| n.round() as u64)
}

async fn disks(bmc: &Bmc<'_>, system: &Value, w: &mut Warnings) -> Result<Vec<Part>, Fault> {
    let mut drives = Vec::new();
    let storage = below(bmc, system, "Storage", w).await?;
    for (_, v) in &storage {
        drives.extend(json::list(v, &["Drives"]).iter().filter_map(json::link_of));
    }
    drives.sort();
    drives.dedup();
    let mut out = Vec::new();
    for (path, v) in good(bmc.get_all(drives).await?, w)? {
        if is_absent(&v) {
            continue;
        }
        let mut disk = part(&path, &v, w);
        disk.capacity = w.number(&v, "CapacityBytes", &path).and_then(whole);
        out.push(disk);
    }
    if out.is_empty() && storage.is_empty() {
        // The older resource, with its devices inline.
        for (path, v) in below(bmc, system, "SimpleStorage", w).await? {
            for (n, device) in json::list(&v, &["Devices"]).iter().enumerate() {
                if is_absent(device) {
                    continue;
                }
                let mut disk = part(&path, device, w);
                disk.id = json::text(device, &["Name"])
                    .unwrap_or_else(|| format!("{}-{n}", json::last_segment(&path)));
                disk.capacity = w.number(device, "CapacityBytes", &path).and_then(whole);
                out.push(disk);
            }
        }
    }
    Ok(out)
}

async fn nics(bmc: &Bmc<'_>, system: &Value, w: &mut Warnings) -> Result<Vec<Nic>, Fault> {
    let mut out = Vec::new();
    for (path, v) in below(bmc, system, "EthernetInterfaces", w).await? {
        let mac = ["PermanentMACAddress", "MACAddress"]
            .into_iter()
            .find_map(|key| clean_mac(&w.text(&v, key, &path)?));
        let link_up = w.text(&v, "LinkStatus", &path).and_then(|s| match s.as_str() {
            "LinkUp" => Some(true),
            "LinkDown" | "NoLink" => Some(false),
            _ => None,
        });
        let id = w.text(&v, "Id", &path).unwrap_or_else(|| json::last_segment(&path).to_string());
        out.push(Nic { id, mac, link_up });
    }
    Ok(out)
}

/// Drops parts that are listed twice, told by their serial.
fn once(parts: &mut Vec<Part>) {
    let mut seen = std::collections::BTreeSet::new();
    parts.retain(|p| p.serial.as_ref().is_none_or(|serial| seen.insert(serial.clone())));
}
