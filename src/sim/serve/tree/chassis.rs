//! The chassis: cooling, power, sensors, and the cards in it.

use super::{collection, healthy, link, sensors, typed};
use crate::sim::physics::{PowerState, VirtualMachine};
use serde_json::{Value, json};

const AT: &str = "Chassis/1";
const COOLING: &str = "Chassis/1/ThermalSubsystem";
const POWER: &str = "Chassis/1/PowerSubsystem";

pub(super) fn resource(vm: &VirtualMachine, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(chassis(vm)),
        ["Sensors", rest @ ..] => sensors::resource(vm, rest),
        ["ThermalSubsystem", rest @ ..] => cooling(vm, rest),
        ["PowerSubsystem", rest @ ..] => power(vm, rest),
        ["PCIeDevices"] => {
            let ids = (0..vm.gpus).map(|n| format!("GPU{n}"));
            Some(collection("Chassis/1/PCIeDevices", "PCIeDevice", ids.chain(["NIC1".to_string()])))
        }
        ["PCIeDevices", id] => card(vm, id),
        _ => None,
    }
}

fn chassis(vm: &VirtualMachine) -> Value {
    let drives: Vec<Value> = (vm.inventory().disks.iter())
        .map(|d| link(&format!("Systems/1/Storage/1/Drives/{}", d.id)))
        .collect();
    let on = vm.power != PowerState::Off;
    typed(
        AT,
        "Chassis",
        json!({
            "Id": "1", "Name": "Chassis", "ChassisType": "RackMount",
            "Manufacturer": "Farrier", "Model": vm.model, "SerialNumber": vm.identity.serial,
            "AssetTag": &*vm.board.asset_tag, "LocationIndicatorActive": vm.board.lit,
            "PowerState": if on { "On" } else { "Off" }, "Status": status(vm),
            "PowerSubsystem": link(POWER), "ThermalSubsystem": link(COOLING),
            "Sensors": link("Chassis/1/Sensors"), "PCIeDevices": link("Chassis/1/PCIeDevices"),
            "Links": {
                "ComputerSystems@odata.count": 1, "ComputerSystems": [link("Systems/1")],
                "ManagedBy@odata.count": 1, "ManagedBy": [link("Managers/1")],
                "ManagersInChassis@odata.count": 1, "ManagersInChassis": [link("Managers/1")],
                "Drives@odata.count": drives.len(), "Drives": drives,
            },
        }),
    )
}

fn status(vm: &VirtualMachine) -> Value {
    match vm.board.leaking {
        true => json!({"State": "Enabled", "Health": "Critical", "HealthRollup": "Critical"}),
        false => healthy(),
    }
}

fn cooling(vm: &VirtualMachine, rest: &[&str]) -> Option<Value> {
    let leaks = vm.gpus > 0;
    let detectors = || (0..2).map(|n| format!("Leak{n}"));
    match rest {
        [] => {
            let mut body = json!({
                "Id": "ThermalSubsystem", "Name": "Cooling", "Status": status(vm),
                "Fans": link(&format!("{COOLING}/Fans")),
                "ThermalMetrics": link(&format!("{COOLING}/ThermalMetrics")),
            });
            // Boxes full of GPUs have cold plates, and hoses that may leak.
            if leaks {
                body["LeakDetection"] = link(&format!("{COOLING}/LeakDetection"));
            }
            Some(typed(COOLING, "ThermalSubsystem", body))
        }
        ["ThermalMetrics"] => {
            let heat = sensors::all(vm).into_iter().filter(|s| s.id.ends_with("Temp"));
            let readings: Vec<Value> = heat
                .map(|s| {
                    let mut short = sensors::excerpt(&s.id, s.reading);
                    short["DeviceName"] = s.id.trim_end_matches("Temp").into();
                    short
                })
                .collect();
            Some(typed(
                &format!("{COOLING}/ThermalMetrics"),
                "ThermalMetrics",
                json!({
                    "Id": "ThermalMetrics", "Name": "Temperatures",
                    "TemperatureSummaryCelsius": {"Intake": sensors::excerpt("Inlet", Some(24))},
                    "TemperatureReadingsCelsius@odata.count": readings.len(),
                    "TemperatureReadingsCelsius": readings,
                }),
            ))
        }
        ["Fans"] => {
            let ids = (0..sensors::FANS).map(|n| format!("Fan{n}"));
            Some(collection(&format!("{COOLING}/Fans"), "Fan", ids))
        }
        ["Fans", id] => {
            (0..sensors::FANS).find(|n| format!("Fan{n}") == *id)?;
            let rpm = sensors::rpm(vm);
            let mut speed = sensors::excerpt(&format!("{id}Speed"), Some(rpm / 160));
            speed["SpeedRPM"] = rpm.into();
            Some(typed(
                &format!("{COOLING}/Fans/{id}"),
                "Fan",
                json!({
                    "Id": id, "Name": id, "PhysicalContext": "Chassis", "HotPluggable": true,
                    "SpeedPercent": speed, "Status": healthy(),
                }),
            ))
        }
        ["LeakDetection"] if leaks => Some(typed(
            &format!("{COOLING}/LeakDetection"),
            "LeakDetection",
            json!({
                "Id": "LeakDetection", "Name": "Leak detection", "Status": status(vm),
                "LeakDetectors": link(&format!("{COOLING}/LeakDetection/LeakDetectors")),
            }),
        )),
        ["LeakDetection", "LeakDetectors"] if leaks => {
            let path = format!("{COOLING}/LeakDetection/LeakDetectors");
            Some(collection(&path, "LeakDetector", detectors()))
        }
        ["LeakDetection", "LeakDetectors", id] if leaks => {
            let n = detectors().position(|d| d == *id)?;
            let health = if vm.board.leaking && n == 0 { "Critical" } else { "OK" };
            Some(typed(
                &format!("{COOLING}/LeakDetection/LeakDetectors/{id}"),
                "LeakDetector",
                json!({
                    "Id": id, "Name": format!("Leak detector {n}"), "LeakDetectorType": "Moisture",
                    "DetectorState": health, "PhysicalContext": "Chassis",
                    "Status": {"State": "Enabled", "Health": health},
                }),
            ))
        }
        _ => None,
    }
}

fn power(vm: &VirtualMachine, rest: &[&str]) -> Option<Value> {
    let supplies = sensors::supplies(vm);
    let ids = || (0..supplies).map(|n| format!("PSU{n}"));
    match rest {
        [] => {
            let members: Vec<Value> =
                ids().map(|id| link(&format!("{POWER}/PowerSupplies/{id}"))).collect();
            Some(typed(
                POWER,
                "PowerSubsystem",
                json!({
                    "Id": "PowerSubsystem", "Name": "Power", "Status": healthy(),
                    "CapacityWatts": 3_000 * u32::from(supplies),
                    "Allocation": {"AllocatedWatts": sensors::watts(vm)},
                    "PowerSupplies": link(&format!("{POWER}/PowerSupplies")),
                    "PowerSupplyRedundancy": [{
                        "RedundancyType": "NPlusM", "MaxSupportedInGroup": supplies,
                        "MinNeededInGroup": supplies / 2, "Status": healthy(),
                        "RedundancyGroup@odata.count": members.len(), "RedundancyGroup": members,
                    }],
                }),
            ))
        }
        ["PowerSupplies"] => {
            Some(collection(&format!("{POWER}/PowerSupplies"), "PowerSupply", ids()))
        }
        ["PowerSupplies", id] => {
            ids().find(|known| known == id)?;
            Some(typed(
                &format!("{POWER}/PowerSupplies/{id}"),
                "PowerSupply",
                json!({
                    "Id": id, "Name": id, "PowerSupplyType": "AC", "Manufacturer": "Farrier",
                    "Model": "Virtual 3 kW", "PowerCapacityWatts": 3_000, "HotPluggable": true,
                    "LineInputStatus": "Normal", "Status": healthy(),
                }),
            ))
        }
        _ => None,
    }
}

fn card(vm: &VirtualMachine, id: &str) -> Option<Value> {
    let gpu = (0..vm.gpus).any(|n| format!("GPU{n}") == id);
    if !gpu && id != "NIC1" {
        return None;
    }
    let mut links = json!({"Chassis": [link(AT)], "Chassis@odata.count": 1});
    if gpu {
        links["Processors"] = json!([link(&format!("Systems/1/Processors/{id}"))]);
        links["Processors@odata.count"] = 1.into();
    }
    Some(typed(
        &format!("{AT}/PCIeDevices/{id}"),
        "PCIeDevice",
        json!({
            "Id": id, "Name": id, "DeviceType": "SingleFunction", "Manufacturer": "Farrier",
            "Model": if gpu { "Virtual GPU" } else { "Virtual NIC" },
            "PCIeInterface": {
                "PCIeType": "Gen5", "MaxPCIeType": "Gen5", "LanesInUse": 16, "MaxLanes": 16,
            },
            "Status": healthy(), "Links": links,
        }),
    ))
}
