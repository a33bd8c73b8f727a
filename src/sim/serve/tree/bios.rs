//! BIOS settings, those that wait for the next POST, and Secure Boot.

use super::{V1, action, date, link, schemas, typed};
use crate::sim::physics::{ATTRIBUTES, Attribute, VirtualMachine};
use serde_json::{Map, Value, json};

pub(super) const REGISTRY: &str = "FarrierBiosAttributeRegistry.v1_0_0";
const AT: &str = "Systems/1/Bios";

/// `rest`: below `Systems/1`.
pub(super) fn resource(vm: &VirtualMachine, rest: &[&str]) -> Option<Value> {
    match rest {
        ["Bios"] => Some(in_force(vm)),
        ["Bios", "Settings"] => Some(typed(
            "Systems/1/Bios/Settings",
            "Bios",
            json!({
                "Id": "Settings", "Name": "BIOS settings from the next POST on",
                "AttributeRegistry": REGISTRY,
                "Attributes": attributes(|a| vm.board.attribute_next(a)),
            }),
        )),
        ["SecureBoot"] => {
            let word = |on: bool| if on { "Enabled" } else { "Disabled" };
            Some(typed(
                "Systems/1/SecureBoot",
                "SecureBoot",
                json!({
                    "Id": "SecureBoot", "Name": "UEFI Secure Boot",
                    "SecureBootEnable": vm.board.secure_boot,
                    "SecureBootCurrentBoot": word(vm.board.secure_boot_now),
                    "SecureBootMode": "UserMode",
                }),
            ))
        }
        _ => None,
    }
}

fn in_force(vm: &VirtualMachine) -> Value {
    let mut settings = json!({
        "@odata.type": schemas::annotation("Settings"), "SettingsObject": link("Systems/1/Bios/Settings"),
        "SupportedApplyTimes": ["OnReset"],
    });
    if let Some(at) = vm.board.applied {
        settings["Time"] = date(vm, at).into();
    }
    typed(
        AT,
        "Bios",
        json!({
            "Id": "Bios", "Name": "BIOS settings", "AttributeRegistry": REGISTRY,
            "@Redfish.Settings": settings,
            "Attributes": attributes(|a| vm.board.attribute(a)),
            "Links": {
                "ActiveSoftwareImage": link("UpdateService/FirmwareInventory/BIOS"),
                "SoftwareImages@odata.count": 1,
                "SoftwareImages": [link("UpdateService/FirmwareInventory/BIOS")],
            },
            "Actions": {"#Bios.ResetBios": {"target": action(AT, "Bios.ResetBios")}},
        }),
    )
}

fn attributes(value: impl Fn(&Attribute) -> Value) -> Map<String, Value> {
    ATTRIBUTES.iter().map(|a| (a.name.to_string(), value(a))).collect()
}

/// The registry's file: where a reader finds it.
pub(super) fn registry_uri() -> String {
    format!("{V1}/Registries/{REGISTRY}/{REGISTRY}.json")
}
