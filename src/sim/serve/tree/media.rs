//! Virtual media, shown under the BMC and under the system as some vendors do (field notes §1.3).

use super::{V1, collection, healthy, typed};
use crate::model::EngineTime;
use crate::sim::physics::VirtualMachine;
use serde_json::{Value, json};

/// Ids of the virtual drives in the physics' order, and what each can be.
pub(in crate::sim::serve) const DRIVES: [(&str, &[&str]); 2] =
    [("CD", &["CD", "DVD"]), ("USB", &["USBStick"])];

/// `at`: the owner's path.
pub(super) fn resource(
    vm: &VirtualMachine,
    now: EngineTime,
    at: &str,
    rest: &[&str],
) -> Option<Value> {
    match rest {
        [] => {
            let ids = DRIVES.iter().map(|(id, _)| (*id).to_string());
            Some(collection(&format!("{at}/VirtualMedia"), "VirtualMedia", ids))
        }
        [id] => drive(vm, now, at, id),
        _ => None,
    }
}

fn drive(vm: &VirtualMachine, now: EngineTime, at: &str, id: &str) -> Option<Value> {
    let n = DRIVES.iter().position(|(name, _)| *name == id)?;
    let (_, kinds) = DRIVES.get(n)?;
    let medium = vm.board.drives.get(n)?.shown(now);
    let path = format!("{at}/VirtualMedia/{id}");
    let file = medium.map(|m| m.url.rsplit('/').next().unwrap_or_default());
    let body = json!({
        "Id": id, "Name": format!("Virtual {id} drive"), "MediaTypes": kinds,
        "Image": medium.map(|m| &*m.url), "ImageName": file, "Inserted": medium.is_some(),
        "ConnectedVia": if medium.is_some() { "URI" } else { "NotConnected" },
        "WriteProtected": true, "TransferMethod": medium.map(|_| "Stream"),
        "TransferProtocolType": medium.map(|_| "HTTP"), "Status": healthy(),
        "Actions": {
            "#VirtualMedia.InsertMedia": {
                "target": format!("{V1}/{path}/Actions/VirtualMedia.InsertMedia"),
                "TransferProtocolType@Redfish.AllowableValues": ["HTTP"],
                "TransferMethod@Redfish.AllowableValues": ["Stream"],
            },
            "#VirtualMedia.EjectMedia": {
                "target": format!("{V1}/{path}/Actions/VirtualMedia.EjectMedia"),
            },
        },
    });
    Some(typed(&path, "VirtualMedia", body))
}
