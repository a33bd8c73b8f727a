//! Storage as a decision about volumes needs it: whole. A drive that can't be read may be the third
//! that fits a rule, a volume that can't be read may hold one of the drives; so one bad document fails
//! all, and nothing is concluded from the rest.

use super::conn::Bmc;
use super::inventory::is_absent;
use super::volumes::{is_raw, volume};
use super::{fault, json, system};
use crate::model::deploy::DiskKind;
use crate::model::hardware::Volume;
use crate::model::identity::clean_serial;
use crate::model::storage::{Drive, Storage, StorageFacts};
use crate::model::{Fault, FaultClass};
use serde_json::Value;

/// A storage subsystem with the documents that a write goes by.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) facts: Storage,
    /// The volume collection: its path and its document.
    pub(super) list: String,
    pub(super) collection: Value,
}

pub(super) async fn read(bmc: &Bmc<'_>) -> Result<StorageFacts, Fault> {
    let (_, v) = system::fetch(bmc).await?;
    let parts = parts(bmc, &v).await.map_err(Fault::of_read)?;
    Ok(StorageFacts { parts: parts.into_iter().map(|p| p.facts).collect() })
}

/// The storage that can have volumes. A machine that is off may show none.
pub(super) async fn parts(bmc: &Bmc<'_>, system: &Value) -> Result<Vec<Part>, Fault> {
    let Some(link) = json::link(system, &["Storage"]) else { return Ok(vec![]) };
    let mut out = Vec::new();
    for (path, document) in members(bmc, &link).await? {
        let Some(list) = json::link(&document, &["Volumes"]) else { continue };
        let Some(collection) = there(bmc.get(&list).await)? else { continue };
        let listed = members(bmc, &list).await?;
        let links = json::list(&document, &["Drives"]).iter().filter_map(json::link_of).collect();
        let read = whole(bmc.get_all(links).await?)?;
        let present = read.iter().filter(|(_, v)| !is_absent(v));
        let mut drives: Vec<Drive> = present.map(|(p, v)| drive(p, v)).collect();
        let raw = || listed.iter().filter(|(_, v)| is_raw(v)).map(|(p, _)| p);
        for drive in &mut drives {
            drive.volumes.retain(|link| !raw().any(|r| json::uri_eq(r, link)));
        }
        let real = listed.iter().filter(|(_, v)| !is_raw(v));
        let volumes: Vec<Volume> = real.map(|(p, v)| spelt(volume(p, v), &mut drives)).collect();
        let controllers = controllers(bmc, &document).await?;
        let models = controllers.iter().filter_map(|c| json::text(c, &["Model"]));
        let mut levels: Vec<String> =
            controllers.iter().flat_map(|c| json::texts(c, &["SupportedRAIDTypes"])).collect();
        levels.sort();
        levels.dedup();
        let facts = Storage {
            id: json::text(&document, &["Id"])
                .unwrap_or_else(|| json::last_segment(&path).to_string()),
            models: models.collect(),
            levels,
            drives,
            volumes,
        };
        out.push(Part { facts, list, collection });
    }
    Ok(out)
}

/// Inside the storage, or (DSP0268 Storage v1.9 and later) in a collection of their own.
async fn controllers(bmc: &Bmc<'_>, storage: &Value) -> Result<Vec<Value>, Fault> {
    let inline = json::list(storage, &["StorageControllers"]);
    let link = json::link(storage, &["Controllers"]);
    match link.filter(|_| inline.is_empty()) {
        Some(link) => Ok(members(bmc, &link).await?.into_iter().map(|(_, v)| v).collect()),
        None => Ok(inline.to_vec()),
    }
}

/// The volume with its drives spelt as the drives themselves are, which then know of it.
fn spelt(mut volume: Volume, drives: &mut [Drive]) -> Volume {
    for link in &mut volume.drives {
        if let Some(drive) = drives.iter_mut().find(|d| json::uri_eq(&d.uri, link)) {
            link.clone_from(&drive.uri);
            if !drive.volumes.iter().any(|v| json::uri_eq(v, &volume.uri)) {
                drive.volumes.push(volume.uri.clone());
            }
        }
    }
    volume
}

fn drive(path: &str, v: &Value) -> Drive {
    let nvme = json::text(v, &["Protocol"]).is_some_and(|p| p.eq_ignore_ascii_case("nvme"));
    let kind = match json::text(v, &["MediaType"]).map(|m| m.to_ascii_uppercase()).as_deref() {
        _ if nvme => Some(DiskKind::Nvme),
        Some("SSD") => Some(DiskKind::Ssd),
        Some("HDD") => Some(DiskKind::Hdd),
        _ => None,
    };
    Drive {
        id: json::text(v, &["Id"]).unwrap_or_else(|| json::last_segment(path).to_string()),
        uri: path.to_string(),
        model: json::text(v, &["Model"]),
        serial: json::text(v, &["SerialNumber"]).as_deref().and_then(clean_serial),
        bytes: json::at(v, &["CapacityBytes"]).and_then(Value::as_u64),
        kind,
        health: json::text(v, &["Status", "Health"]),
        volumes: json::list(v, &["Links", "Volumes"]).iter().filter_map(json::link_of).collect(),
    }
}

async fn members(bmc: &Bmc<'_>, collection: &str) -> Result<Vec<(String, Value)>, Fault> {
    match there(bmc.resources(collection).await)? {
        Some(read) => whole(read),
        None => Ok(vec![]),
    }
}

/// All of them; one that is listed and gone since is no more.
fn whole(read: Vec<(String, Result<Value, Fault>)>) -> Result<Vec<(String, Value)>, Fault> {
    let each = read.into_iter().map(|(path, v)| Ok(there(v)?.map(|v| (path, v))));
    let all: Result<Vec<_>, Fault> = each.collect();
    Ok(all?.into_iter().flatten().collect())
}

fn there<T>(read: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match read {
        Ok(v) => Ok(Some(v)),
        Err(f) if f.class == FaultClass::Unsupported => Ok(None),
        Err(f) => Err(f),
    }
}

/// The drives with these serials, each found once, all of one storage.
pub(super) fn find<'s>(
    all: &'s [Part],
    serials: &[String],
) -> Result<(&'s Part, Vec<&'s Drive>), super::guard::Stop> {
    let refused = |saw: String| super::guard::Stop::Refused { saw, wrong_machine: false };
    let mut wanted: Vec<&String> = serials.iter().collect();
    wanted.sort();
    wanted.dedup();
    if wanted.is_empty() || wanted.len() != serials.len() {
        return Err(fault::precondition("bad-drives", "name each drive once, by serial").into());
    }
    let mut place: Option<usize> = None;
    let mut drives = Vec::new();
    for serial in serials {
        let of = |(n, part): (usize, &'s Part)| {
            let its = part.facts.drives.iter();
            its.filter(|d| d.serial.as_deref() == Some(serial.trim())).map(move |d| (n, d))
        };
        let found: Vec<(usize, &Drive)> = all.iter().enumerate().flat_map(of).collect();
        match found[..] {
            [(n, drive)] if place.is_none_or(|p| p == n) => {
                place = Some(n);
                drives.push(drive);
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
        Some(part) => Ok((part, drives)),
        None => Err(refused("no drives".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_drive_knows_its_volumes_however_they_are_spelt() {
        let mut drives = vec![
            drive(
                "/redfish/v1/Drives/D1",
                &json!({"Id": "D1", "SerialNumber": "S1",
                "Protocol": "SATA", "MediaType": "SSD"}),
            ),
            drive("/redfish/v1/Drives/D2", &json!({"Protocol": "NVMe", "MediaType": "SSD"})),
        ];
        assert_eq!((drives[0].kind, drives[1].kind), (Some(DiskKind::Ssd), Some(DiskKind::Nvme)));
        let v = json!({"Id": "V", "RAIDType": "RAID1",
            "Links": {"Drives": [{"@odata.id": "/redfish/v1/drives/d1/"}]}});
        let volume = spelt(volume("/redfish/v1/V", &v), &mut drives);
        assert_eq!(volume.drives, ["/redfish/v1/Drives/D1"]);
        assert_eq!(drives[0].volumes, ["/redfish/v1/V"]);
        assert!(drives[1].volumes.is_empty());
    }

    #[test]
    fn one_that_can_not_be_read_fails_all_and_one_that_is_gone_does_not() {
        let gone = || Err(fault::unsupported("gone", "404"));
        let bad = || Err(fault::new(FaultClass::Transient, "http-500", "500"));
        let good = || Ok(json!({}));
        let named = |v| ("/v".to_string(), v);
        assert_eq!(whole(vec![named(good()), named(gone())]).unwrap().len(), 1);
        assert_eq!(whole(vec![named(good()), named(bad())]).unwrap_err().code, "http-500");
    }
}
