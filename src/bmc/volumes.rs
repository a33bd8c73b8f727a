//! RAID and boot volumes (DSP0268 Storage, Volume). Making one destroys what its drives hold, so the
//! drives are told by their serials, every one is found exactly once, and none is part of a volume.

use super::conn::Bmc;
use super::guard::{self, Stop};
use super::storage::{self, Part};
use super::{around, fault, json, system, task};
use crate::model::action::Expect;
use crate::model::hardware::Volume;
use crate::model::storage::Drive;
use crate::model::{Fault, FaultClass, Outcome};
use crate::port::capability::VolumeOrder;
use serde_json::{Value, json};

/// The volumes that can be read, for people.
pub(super) async fn read(bmc: &Bmc<'_>) -> Result<Vec<Volume>, Fault> {
    let (_, system) = system::fetch(bmc).await?;
    let all = match json::link(&system, &["Storage"]) {
        Some(link) => around::members(bmc, &link).await?,
        None => vec![],
    };
    let (mut out, mut any) = (Vec::new(), false);
    for (_, document) in all {
        let Some(list) = json::link(&document, &["Volumes"]) else { continue };
        if around::maybe(bmc, &list).await?.is_none() {
            continue;
        }
        any = true;
        let volumes = around::members(bmc, &list).await?;
        out.extend(volumes.iter().filter(|(_, v)| !is_raw(v)).map(|(p, v)| volume(p, v)));
    }
    match any {
        true => Ok(out),
        false => Err(fault::unsupported("no-volumes", "no storage of this machine has volumes")),
    }
}

/// A drive that is shown as a volume of its own (iDRAC does so with every NVMe) is none.
pub(super) fn is_raw(v: &Value) -> bool {
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

pub(super) fn volume(path: &str, v: &Value) -> Volume {
    Volume {
        id: json::text(v, &["Id"]).unwrap_or_else(|| json::last_segment(path).to_string()),
        uri: path.to_string(),
        name: json::text(v, &["DisplayName"]).or_else(|| json::text(v, &["Name"])),
        raid: raid(v),
        capacity_bytes: json::at(v, &["CapacityBytes"]).and_then(Value::as_u64),
        drives: json::list(v, &["Links", "Drives"]).iter().filter_map(json::link_of).collect(),
        health: json::text(v, &["Status", "Health"]),
        operation: operation(v),
    }
}

/// The first of what its controller does with it (DSP0268 Volume `Operations`).
fn operation(v: &Value) -> Option<String> {
    let first = json::list(v, &["Operations"]).first()?;
    let name =
        json::text(first, &["OperationName"]).or_else(|| json::text(first, &["Operation"]))?;
    let percent = json::at(first, &["PercentageComplete"]).and_then(Value::as_u64);
    Some(percent.map_or_else(|| name.clone(), |p| format!("{name}, {p} %")))
}

pub(super) async fn create(
    bmc: &Bmc<'_>,
    expect: &Expect,
    order: &VolumeOrder,
) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let (_, system) = guard::check(bmc, expect).await?;
    let all = storage::parts(bmc, &system).await.map_err(Fault::of_read)?;
    let (part, drives) = storage::find(&all, &order.drives)?;
    let paths: Vec<String> = drives.iter().map(|d| d.uri.clone()).collect();
    if let Some(same) = part.facts.volumes.iter().find(|v| is_of(v, &paths)) {
        // Said twice, done once.
        if same.raid.as_deref() == Some(&*order.raid) {
            return Ok(Outcome::Applied { handle: None });
        }
    }
    if let Some(fault) = taken(part, &drives) {
        return Ok(Outcome::Failed { fault });
    }
    let levels = &part.facts.levels;
    if !levels.is_empty() && !levels.contains(&order.raid) {
        let f = fault::unsupported(
            "raid-unsupported",
            format!("the controller has no {}; it has {}", order.raid, levels.join(", ")),
        );
        return Ok(Outcome::Failed { fault: f });
    }
    let mut first = None;
    for body in bodies(&part.collection, order, &paths) {
        match guard::post(bmc, &part.list, &body).await? {
            Ok(answer) if answer.status == 202 => {
                return Ok(Outcome::Applied { handle: task::handle(bmc, &answer) });
            }
            Ok(_) => return made(bmc, &part.list, &paths).await,
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

fn is_of(volume: &Volume, drives: &[String]) -> bool {
    volume.drives.len() == drives.len()
        && drives.iter().all(|d| volume.drives.iter().any(|v| json::uri_eq(v, d)))
}

/// Is one of the drives part of a volume, or not fit to be?
fn taken(part: &Part, drives: &[&Drive]) -> Option<Fault> {
    for drive in drives {
        if let Some(uri) = drive.volumes.first() {
            let volume = part.facts.volumes.iter().find(|v| json::uri_eq(&v.uri, uri));
            let id = volume.map_or(json::last_segment(uri), |v| &v.id);
            let message = format!("drive {} is part of volume {id}", drive.id);
            return Some(
                fault::precondition("drive-in-use", message)
                    .hint("what it holds would be lost: delete that volume by hand first"),
            );
        }
        if drive.is_broken() {
            return Some(Fault::new(
                FaultClass::Hardware,
                crate::model::Channel::Bmc,
                "drive-broken",
                format!("drive {} is in critical health", drive.id),
            ));
        }
    }
    None
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
