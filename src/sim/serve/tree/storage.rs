//! The storage subsystem: its controller, drives and volumes.

use super::{collection, healthy, link, typed};
use crate::model::EngineTime;
use crate::sim::physics::{Raid, VirtualMachine, Volume};
use serde_json::{Value, json};

const AT: &str = "Systems/1/Storage/1";

pub(super) fn resource(vm: &VirtualMachine, now: EngineTime, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(collection("Systems/1/Storage", "Storage", ["1".to_string()])),
        ["1"] => {
            let drives: Vec<Value> = vm
                .inventory()
                .disks
                .iter()
                .map(|d| link(&format!("{AT}/Drives/{}", d.id)))
                .collect();
            Some(typed(
                AT,
                "Storage",
                json!({
                    "Id": "1", "Name": "NVMe", "Drives@odata.count": drives.len(), "Drives": drives,
                    "Controllers": link(&format!("{AT}/Controllers")),
                    "Volumes": link(&format!("{AT}/Volumes")), "Status": healthy(),
                }),
            ))
        }
        ["1", "Controllers"] => {
            Some(collection(&format!("{AT}/Controllers"), "StorageController", ["1".to_string()]))
        }
        ["1", "Controllers", "1"] => Some(typed(
            &format!("{AT}/Controllers/1"),
            "StorageController",
            json!({
                "Id": "1", "Name": "NVMe controller", "Manufacturer": "Farrier",
                "SupportedDeviceProtocols": ["NVMe"],
                "SupportedRAIDTypes": Raid::ALL.map(Raid::word), "Status": healthy(),
            }),
        )),
        ["1", "Drives", id] => drive(vm, now, id),
        ["1", "Volumes"] => {
            let ids = vm.board.volumes(now).map(|v| v.id.to_string());
            let mut list = collection(&format!("{AT}/Volumes"), "Volume", ids);
            if vm.quirks.volumes_at_post {
                list["@Redfish.OperationApplyTimeSupport"] = json!({
                    "@odata.type": "#Settings.v1_3_5.OperationApplyTimeSupport",
                    "SupportedValues": ["OnReset"],
                });
            }
            Some(list)
        }
        ["1", "Volumes", id] => {
            let found = vm.board.volumes(now).find(|v| v.id.to_string() == *id)?;
            Some(volume(vm, found))
        }
        _ => None,
    }
}

fn drive(vm: &VirtualMachine, now: EngineTime, id: &str) -> Option<Value> {
    let disks = vm.inventory().disks;
    let n = disks.iter().position(|d| d.id == id)?;
    let disk = disks.into_iter().nth(n)?;
    let mut body = json!({
        "Id": id, "Name": id, "MediaType": "SSD", "Protocol": "NVMe", "Manufacturer": disk.manufacturer,
        "SerialNumber": disk.serial, "CapacityBytes": disk.capacity, "Status": healthy(),
    });
    if vm.board.dead_drive == Some(n) {
        body["Status"]["Health"] = "Critical".into();
    }
    let volumes = vm.board.volumes(now).filter(|v| v.drives.contains(&n));
    let volumes: Vec<Value> = volumes.map(|v| link(&format!("{AT}/Volumes/{}", v.id))).collect();
    body["Links"] = json!({
        "Chassis": link("Chassis/1"), "Volumes@odata.count": volumes.len(), "Volumes": volumes,
    });
    Some(typed(&format!("{AT}/Drives/{id}"), "Drive", body))
}

fn volume(vm: &VirtualMachine, v: &Volume) -> Value {
    let disks = vm.inventory().disks;
    let used = || v.drives.iter().filter_map(|n| disks.get(*n));
    let smallest = used().filter_map(|d| d.capacity).min().unwrap_or(0);
    let capacity = match v.raid {
        Raid::Raid0 => smallest.saturating_mul(u64::try_from(v.drives.len()).unwrap_or(0)),
        Raid::Raid1 => smallest,
    };
    let drives: Vec<Value> = used().map(|d| link(&format!("{AT}/Drives/{}", d.id))).collect();
    typed(
        &format!("{AT}/Volumes/{}", v.id),
        "Volume",
        json!({
            "Id": v.id.to_string(), "Name": &*v.name, "RAIDType": v.raid.word(),
            "CapacityBytes": capacity, "Status": healthy(),
            "Links": {"Drives@odata.count": drives.len(), "Drives": drives},
        }),
    )
}
