//! The roots of trust of an HGX baseboard, each a chassis: whether they copy an image to its second place
//! (field notes §1.3: `Oem.Nvidia.BackgroundCopyStatus`). No task shows that.

use super::typed;
use crate::sim::physics::VirtualMachine;
use serde_json::{Value, json};

const NAME: &str = "HGX_ERoT_";

/// Their ids; none on a board that copies nothing.
pub(super) fn ids(vm: &VirtualMachine) -> impl Iterator<Item = String> {
    let there = vm.quirks.copies_images.then_some(&vm.firmware);
    there.into_iter().flatten().map(|slot| format!("{NAME}{}_0", slot.id))
}

pub(super) fn resource(vm: &VirtualMachine, id: &str) -> Option<Value> {
    let n = ids(vm).position(|own| own == id)?;
    let slot = vm.firmware.get(n)?;
    let copies = vm.copies.iter().any(|c| c.slot == n);
    let said = match (copies, slot.corrupt) {
        (true, _) => "InProgress",
        (false, true) => "Failed",
        (false, false) => "Completed",
    };
    let health = if slot.corrupt { "Critical" } else { "OK" };
    Some(typed(
        &format!("Chassis/{id}"),
        "Chassis",
        json!({
            "Id": id, "Name": id, "ChassisType": "Component", "Manufacturer": "NVIDIA",
            "Status": {"State": "Enabled", "Health": health},
            "Oem": {"Nvidia": {
                "@odata.type": "#NvidiaChassis.v1_0_0.NvidiaRoTChassis",
                "BackgroundCopyStatus": said, "AutomaticBackgroundCopyEnabled": true,
            }},
        }),
    ))
}
