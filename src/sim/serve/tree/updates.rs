//! The update service and the firmware inventory.

use super::{V1, action, collection, healthy, link, typed};
use crate::model::facts::Component;
use crate::sim::physics::VirtualMachine;
use serde_json::{Value, json};

pub(super) fn resource(vm: &VirtualMachine, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(typed(
            "UpdateService",
            "UpdateService",
            json!({
                "Id": "UpdateService", "Name": "Update Service", "ServiceEnabled": true,
                "Status": healthy(),
                "FirmwareInventory": link("UpdateService/FirmwareInventory"),
                "MultipartHttpPushUri": format!("{V1}/UpdateService/update-multipart"),
                "MaxImageSizeBytes": super::super::update::IMAGE_MAX,
                "Actions": {"#UpdateService.SimpleUpdate": {
                    "target": action("UpdateService", "UpdateService.SimpleUpdate"),
                    "TransferProtocol@Redfish.AllowableValues": ["HTTP"],
                }},
            }),
        )),
        ["FirmwareInventory"] => {
            let ids = vm.components().into_iter().map(|c| c.id);
            Some(collection("UpdateService/FirmwareInventory", "SoftwareInventory", ids))
        }
        ["FirmwareInventory", id] => {
            let mut shown = vm.components().into_iter().find(|c| c.id == *id).map(component)?;
            if vm.firmware.iter().any(|slot| slot.id == *id && slot.corrupt) {
                shown["Status"] = json!({"State": "UnavailableOffline", "Health": "Critical"});
            }
            Some(shown)
        }
        _ => None,
    }
}

fn component(part: Component) -> Value {
    let related = if part.id == "BMC" { "Managers/1" } else { "Systems/1/Bios" };
    typed(
        &format!("UpdateService/FirmwareInventory/{}", part.id),
        "SoftwareInventory",
        json!({
            "Id": part.id, "Name": part.name, "Version": part.version, "Manufacturer": "Farrier",
            "SoftwareId": format!("farrier-virtual-{}", part.id.to_lowercase()),
            "Updateable": part.updateable, "Status": healthy(),
            "RelatedItem@odata.count": 1, "RelatedItem": [link(related)],
        }),
    )
}
