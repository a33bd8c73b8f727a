//! RAID and boot volumes (DSP0268 Storage, Volume). Making one destroys what its drives hold, so the
//! drives are told by their serials, every one is found exactly once, and none is part of a volume.

use super::conn::Bmc;
use super::guard::{self, Stop};
use super::{around, fault, json, system, task};
use crate::model::action::Expect;
use crate::model::hardware::Volume;
use crate::model::identity::clean_serial;
use crate::model::{Fault, FaultClass, Outcome};
use crate::port::capability::VolumeOrder;
use serde_json::{Value, json};

/// One storage subsystem with its drives and volumes.
#[derive(Debug)]
struct Storage {
    document: Value,
    /// The volume collection.
    list: String,
    collection: Value,
    volumes: Vec<Volume>,
    drives: Vec<(String, Value)>,
}

pub(super) async fn read(bmc: &Bmc<'_>) -> Result<Vec<Volume>, Fault> {
    let (_, v) = system::fetch(bmc).await?;
    let all = storages(bmc, &v, false).await?;
    if all.is_empty() {
        return Err(fault::unsupported("no-volumes", "no storage of this machine has volumes"));
    }
    Ok(all.into_iter().flat_map(|s| s.volumes).collect())
}

/// Storage that can have volumes; with its drives where they are asked for.
async fn storages(bmc: &Bmc<'_>, system: &Value, drives: bool) -> Result<Vec<Storage>, Fault> {
    let Some(link) = json::link(system, &["Storage"]) else { return Ok(vec![]) };
    let mut out = Vec::new();
    for (_, document) in around::members(bmc, &link).await? {
        let Some(list) = json::link(&document, &["Volumes"]) else { continue };
        let Some(collection) = around::maybe(bmc, &list).await? else { continue };
        let volumes = around::members(bmc, &list).await?;
        let links: Vec<String> =
            json::list(&document, &["Drives"]).iter().filter_map(json::link_of).collect();
        let drives = if drives { around::readable(bmc, bmc.get_all(links).await?) } else { vec![] };
        let volumes = volumes.iter().filter(|(_, v)| !is_raw(v)).map(|(p, v)| volume(p, v));
        out.push(Storage { list, collection, volumes: volumes.collect(), drives, document });
    }
    Ok(out)
}

/// A drive that is shown as a volume of its own (iDRAC does so with every NVMe) is none.
fn is_raw(v: &Value) -> bool {
    json::text(v, &["VolumeType"]).is_some_and(|t| t == "RawDevice") && raid(v).is_none()
}

fn raid(v: &Value) -> Option<String> {
    json::text(v, &["RAIDType"]).filter(|r| !r.eq_ignore_ascii_case("none")).or_else(|| {
        // The property before RAIDType.
        let old = match json::text(v, &["VolumeType"])?.as_str() {
            "NonRedundant" => "RAID0",
            "Mirrored" => "RAID1",
            "StripedWithParity" => "RAID5",
            "SpannedMirrors" => "RAID10",
            "SpannedStripesWithParity" => "RAID50",
            _ => return None,
        };
        Some(old.to_string())
    })
}

fn volume(path: &str, v: &Value) -> Volume {
    Volume {
        id: json::text(v, &["Id"]).unwrap_or_else(|| json::last_segment(path).to_string()),
        uri: path.to_string(),
        name: json::text(v, &["DisplayName"]).or_else(|| json::text(v, &["Name"])),
        raid: raid(v),
        capacity_bytes: json::at(v, &["CapacityBytes"]).and_then(Value::as_u64),
        drives: json::list(v, &["Links", "Drives"]).iter().filter_map(json::link_of).collect(),
    }
}

pub(super) async fn create(
    bmc: &Bmc<'_>,
    expect: &Expect,
    order: &VolumeOrder,
) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let (_, system) = guard::check(bmc, expect).await?;
    let all = storages(bmc, &system, true).await?;
    let (storage, drives) = find(&all, &order.drives)?;
    if let Some(same) = storage.volumes.iter().find(|v| is_of(v, &drives)) {
        // Said twice, done once.
        if same.raid.as_deref() == Some(&*order.raid) {
            return Ok(Outcome::Applied { handle: None });
        }
    }
    if let Some(fault) = taken(storage, &drives) {
        return Ok(Outcome::Failed { fault });
    }
    let levels = levels(&storage.document);
    if !levels.is_empty() && !levels.contains(&order.raid) {
        let f = fault::unsupported(
            "raid-unsupported",
            format!("the controller has no {}; it has {}", order.raid, levels.join(", ")),
        );
        return Ok(Outcome::Failed { fault: f });
    }
    let mut first = None;
    for body in bodies(&storage.collection, order, &drives) {
        match guard::post(bmc, &storage.list, &body).await? {
            Ok(answer) if answer.status == 202 => {
                return Ok(Outcome::Applied { handle: task::handle(bmc, &answer) });
            }
            Ok(_) => return made(bmc, &storage.list, &drives).await,
            // Turned down for what it said: nothing was done.
            Err(outcome) => match &outcome {
                Outcome::Failed { fault } if fault.code == "rejected" => {
                    first.get_or_insert(outcome);
                }
                _ => return Ok(outcome),
            },
        }
    }
    let none = || Outcome::Failed { fault: fault::unsupported("no-volumes", "nothing to send") };
    Ok(first.unwrap_or_else(none))
}

/// The drives with these serials, each found once, all of one storage.
fn find<'s>(all: &'s [Storage], serials: &[String]) -> Result<(&'s Storage, Vec<String>), Stop> {
    let refused = |saw: String| Stop::Refused { saw, wrong_machine: false };
    let mut wanted: Vec<&String> = serials.iter().collect();
    wanted.sort();
    wanted.dedup();
    if wanted.is_empty() || wanted.len() != serials.len() {
        return Err(fault::precondition("bad-drives", "name each drive once, by serial").into());
    }
    let mut place: Option<usize> = None;
    let mut drives = Vec::new();
    for serial in serials {
        let mut found = Vec::new();
        for (n, storage) in all.iter().enumerate() {
            for (path, v) in &storage.drives {
                let its = json::text(v, &["SerialNumber"]).as_deref().and_then(clean_serial);
                if its.as_deref() == Some(serial.trim()) {
                    found.push((n, path));
                }
            }
        }
        match found[..] {
            [(n, path)] if place.is_none_or(|p| p == n) => {
                place = Some(n);
                drives.push(path.clone());
            }
            [_] => {
                let f = fault::precondition(
                    "drives-apart",
                    "the drives are on different controllers, and no volume spans these",
                );
                return Err(f.into());
            }
            [] => return Err(refused(format!("no drive with serial `{serial}`"))),
            _ => return Err(refused(format!("{} drives with serial `{serial}`", found.len()))),
        }
    }
    match place.and_then(|n| all.get(n)) {
        Some(storage) => Ok((storage, drives)),
        None => Err(refused("no drives".into())),
    }
}

fn is_of(volume: &Volume, drives: &[String]) -> bool {
    volume.drives.len() == drives.len()
        && drives.iter().all(|d| volume.drives.iter().any(|v| json::uri_eq(v, d)))
}

/// Is one of the drives part of a volume, or not fit to be?
fn taken(storage: &Storage, drives: &[String]) -> Option<Fault> {
    for (path, v) in storage.drives.iter().filter(|(p, _)| drives.contains(p)) {
        let id = json::text(v, &["Id"]).unwrap_or_else(|| json::last_segment(path).to_string());
        let holds = |volume: &&Volume| volume.drives.iter().any(|d| json::uri_eq(d, path));
        if let Some(volume) = storage.volumes.iter().find(holds) {
            let message = format!("drive {id} is part of volume {}", volume.id);
            return Some(
                fault::precondition("drive-in-use", message)
                    .hint("what it holds would be lost: delete that volume by hand first"),
            );
        }
        let health = json::text(v, &["Status", "Health"]);
        if health.as_deref().is_some_and(|h| h.eq_ignore_ascii_case("critical")) {
            return Some(Fault::new(
                FaultClass::Hardware,
                crate::model::Channel::Bmc,
                "drive-broken",
                format!("drive {id} is in critical health"),
            ));
        }
    }
    None
}

/// RAID levels that the storage's controllers say they have; empty: they do not say.
fn levels(storage: &Value) -> Vec<String> {
    let controllers = json::list(storage, &["StorageControllers"]);
    let mut all: Vec<String> =
        controllers.iter().flat_map(|c| json::texts(c, &["SupportedRAIDTypes"])).collect();
    all.sort();
    all.dedup();
    all
}

/// The standard's body, then the one from before `RAIDType` and `Links.Drives`.
fn bodies(collection: &Value, order: &VolumeOrder, drives: &[String]) -> Vec<Value> {
    let drives: Vec<Value> = drives.iter().map(|d| json!({ "@odata.id": d })).collect();
    let times = json::texts(collection, &["@Redfish.OperationApplyTimeSupport", "SupportedValues"]);
    let time = ["Immediate", "OnReset"].into_iter().find(|t| times.iter().any(|s| s == t));
    let mut bodies = vec![
        json!({"RAIDType": order.raid, "Name": order.name, "Links": {"Drives": drives}}),
        json!({"RAIDType": order.raid, "DisplayName": order.name, "Links": {"Drives": drives}}),
    ];
    let old = match order.raid.as_str() {
        "RAID0" => Some("NonRedundant"),
        "RAID1" => Some("Mirrored"),
        "RAID5" => Some("StripedWithParity"),
        "RAID10" => Some("SpannedMirrors"),
        _ => None,
    };
    bodies.extend(old.map(|old| json!({"VolumeType": old, "Name": order.name, "Drives": drives})));
    if let Some(time) = time {
        for body in &mut bodies {
            body["@Redfish.OperationApplyTime"] = Value::from(time);
        }
    }
    bodies
}

/// Done means read back.
async fn made(bmc: &Bmc<'_>, list: &str, drives: &[String]) -> Result<Outcome, Stop> {
    let now = around::members(bmc, list).await?;
    if now.iter().map(|(p, v)| volume(p, v)).any(|v| is_of(&v, drives)) {
        return Ok(Outcome::Applied { handle: None });
    }
    let f = Fault::new(
        FaultClass::OutcomeUnknown,
        crate::model::Channel::Bmc,
        "volume-not-shown",
        "the BMC took the volume and does not show it",
    );
    Ok(Outcome::Unknown { fault: f.hint("some make it only at the next POST") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_drive_is_no_volume() {
        assert!(is_raw(&json!({"VolumeType": "RawDevice", "RAIDType": null})));
        assert!(is_raw(&json!({"VolumeType": "RawDevice", "RAIDType": "None"})));
        assert!(!is_raw(&json!({"VolumeType": "Mirrored"})));
        assert_eq!(raid(&json!({"VolumeType": "Mirrored"})).as_deref(), Some("RAID1"));
        assert_eq!(raid(&json!({"RAIDType": "RAID6"})).as_deref(), Some("RAID6"));
    }
}
