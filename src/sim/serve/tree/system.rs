//! The system, and the way to what is below it.

use super::{RESETS, action, bios, date, link, logs, media, parts, storage, typed};
use crate::model::EngineTime;
use crate::model::facts::Power;
use crate::sim::physics::{HostState, VirtualMachine};
use serde_json::{Value, json};

const AT: &str = "Systems/1";
/// Targets of the boot override (DSP0268 ComputerSystem.Boot).
pub(in crate::sim::serve) const BOOT_TARGETS: [&str; 5] = ["None", "Pxe", "UefiHttp", "Cd", "Hdd"];

pub(super) fn resource(vm: &VirtualMachine, now: EngineTime, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(system(vm)),
        ["Bios" | "SecureBoot", ..] => bios::resource(vm, rest),
        ["Processors" | "Memory" | "EthernetInterfaces" | "BootOptions", ..] => {
            parts::resource(vm, rest)
        }
        ["Storage", rest @ ..] => storage::resource(vm, now, rest),
        ["VirtualMedia", rest @ ..] => media::resource(vm, now, AT, rest),
        ["LogServices", rest @ ..] => logs::of_system(vm, now, rest),
        _ => None,
    }
}

fn system(vm: &VirtualMachine) -> Value {
    let facts = vm.system();
    let cards: Vec<Value> =
        (0..vm.gpus).map(|n| link(&format!("Chassis/1/PCIeDevices/GPU{n}"))).collect();
    let options = parts::boot_options();
    let order: Vec<&str> = options.iter().map(|o| o.id).collect();
    typed(
        AT,
        "ComputerSystem",
        json!({
            "Id": "1", "Name": "System", "SystemType": "Physical",
            "Manufacturer": facts.manufacturer, "Model": facts.model,
            "SerialNumber": facts.identity.serial, "UUID": facts.identity.uuid,
            "AssetTag": &*vm.board.asset_tag, "LocationIndicatorActive": vm.board.lit,
            "PowerState": format!("{:?}", facts.power), "BiosVersion": facts.bios_version,
            "LastResetTime": date(vm, vm.last_reset),
            "Status": {"State": "Enabled", "Health": facts.health, "HealthRollup": facts.health},
            "BootProgress": {"LastState": progress(vm, facts.power)},
            "Boot": {
                "BootSourceOverrideTarget": facts.boot_target,
                "BootSourceOverrideEnabled": facts.boot_enabled,
                "BootSourceOverrideMode": "UEFI",
                "BootSourceOverrideTarget@Redfish.AllowableValues": BOOT_TARGETS,
                "BootSourceOverrideEnabled@Redfish.AllowableValues":
                    ["Disabled", "Once", "Continuous"],
                "BootOrder": order, "BootOptions": link("Systems/1/BootOptions"),
            },
            "ProcessorSummary": {"Count": parts::CPUS, "Model": "Virtual 64-core"},
            "MemorySummary": {"TotalSystemMemoryGiB": parts::MEMORY_GIB},
            "Bios": link("Systems/1/Bios"), "SecureBoot": link("Systems/1/SecureBoot"),
            "Processors": link("Systems/1/Processors"), "Memory": link("Systems/1/Memory"),
            "Storage": link("Systems/1/Storage"),
            "EthernetInterfaces": link("Systems/1/EthernetInterfaces"),
            "LogServices": link("Systems/1/LogServices"),
            "VirtualMedia": link("Systems/1/VirtualMedia"),
            "PCIeDevices@odata.count": cards.len(), "PCIeDevices": cards,
            "Links": {
                "ManagedBy@odata.count": 1, "ManagedBy": [link("Managers/1")],
                "Chassis@odata.count": 1, "Chassis": [link("Chassis/1")],
            },
            "Actions": {"#ComputerSystem.Reset": {
                "target": action(AT, "ComputerSystem.Reset"),
                "ResetType@Redfish.AllowableValues": RESETS,
            }},
        }),
    )
}

/// `BootProgress.LastState`: how far the host has come.
fn progress(vm: &VirtualMachine, power: Power) -> &'static str {
    match vm.host {
        _ if power == Power::Off => "None",
        HostState::Down => "None",
        HostState::Post => "SystemHardwareInitializationComplete",
        HostState::NetBoot
        | HostState::Installing
        | HostState::Idle
        | HostState::Booting
        | HostState::Ramdisk => "OSBootStarted",
        HostState::Stuck => "SetupEntered",
        HostState::InRamdisk | HostState::Running => "OSRunning",
    }
}
