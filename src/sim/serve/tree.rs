//! The Redfish resources of a virtual machine as JSON, made from its physics at each read. Shapes
//! follow DSP0266 (protocol) and DSP0268 (schemas); the tree is small but complete: no link in it
//! leads nowhere.

use super::seat::Body;
use crate::model::EngineTime;
use crate::sim::physics::VirtualMachine;
use serde_json::{Value, json};

const V1: &str = "/redfish/v1";

/// Reset types that the system takes.
pub(super) const RESETS: [&str; 4] = ["On", "ForceOff", "GracefulShutdown", "ForceRestart"];
/// Reset types that the BMC takes for itself.
pub(super) const BMC_RESETS: [&str; 2] = ["GracefulRestart", "ForceRestart"];

/// World time as a date: the world begins on 1 November 2026.
pub(super) fn date(at: EngineTime) -> String {
    const BEGIN_MS: i64 = 1_793_491_200_000;
    let ms = BEGIN_MS.saturating_add(i64::try_from(at.0).unwrap_or(0));
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |t| t.to_string())
}

/// The resource at `path` (segments below `/redfish/v1`); `None`: there is none.
pub(super) fn resource(body: &Body, now: EngineTime, path: &[&str]) -> Option<Value> {
    let vm = &body.vm;
    match path {
        [] => Some(root(vm)),
        ["SessionService"] => Some(typed(
            "SessionService",
            "SessionService.v1_1_8.SessionService",
            json!({
                "Id": "SessionService", "Name": "Session Service", "ServiceEnabled": true,
                "SessionTimeout": 1800,
                "Sessions": link("SessionService/Sessions"),
            }),
        )),
        ["SessionService", "Sessions"] => {
            let ids = body.sessions.values().map(|s| s.id.clone());
            Some(collection("SessionService/Sessions", "Session", ids))
        }
        ["SessionService", "Sessions", id] => {
            body.sessions.values().any(|s| s.id == *id).then(|| session(id))
        }
        ["Systems"] => Some(collection("Systems", "ComputerSystem", ["1".to_string()])),
        ["Systems", "1", rest @ ..] => system(vm, rest),
        ["Managers"] => Some(collection("Managers", "Manager", ["1".to_string()])),
        ["Managers", "1"] => Some(bmc(vm, now)),
        ["Chassis"] => Some(collection("Chassis", "Chassis", ["1".to_string()])),
        ["Chassis", "1"] => Some(typed(
            "Chassis/1",
            "Chassis.v1_21_0.Chassis",
            json!({
                "Id": "1", "Name": "Chassis", "ChassisType": "RackMount",
                "Manufacturer": "Farrier", "Model": "Virtual GPU node",
                "SerialNumber": vm.identity.serial,
                "Links": {"ComputerSystems": [link("Systems/1")], "ManagedBy": [link("Managers/1")]},
            }),
        )),
        ["UpdateService", rest @ ..] => updates(vm, rest),
        ["TaskService"] => Some(typed(
            "TaskService",
            "TaskService.v1_2_0.TaskService",
            json!({
                "Id": "TaskService", "Name": "Task Service", "ServiceEnabled": true,
                "Tasks": link("TaskService/Tasks"),
            }),
        )),
        ["TaskService", "Tasks"] => {
            let ids = vm.tasks.iter().map(|t| t.id.to_string());
            Some(collection("TaskService/Tasks", "Task", ids))
        }
        ["TaskService", "Tasks", id] => task(vm, now, id),
        _ => None,
    }
}

fn link(path: &str) -> Value {
    json!({"@odata.id": format!("{V1}/{path}")})
}

/// `body` with the annotations every resource has.
fn typed(path: &str, kind: &str, mut body: Value) -> Value {
    let id = if path.is_empty() { V1.to_string() } else { format!("{V1}/{path}") };
    body["@odata.id"] = id.into();
    body["@odata.type"] = format!("#{kind}").into();
    body
}

fn collection(path: &str, of: &str, ids: impl IntoIterator<Item = String>) -> Value {
    let members: Vec<Value> =
        ids.into_iter().map(|id| json!({"@odata.id": format!("{V1}/{path}/{id}")})).collect();
    typed(
        path,
        &format!("{of}Collection.{of}Collection"),
        json!({
            "Name": format!("{of} Collection"),
            "Members@odata.count": members.len(), "Members": members,
        }),
    )
}

fn root(vm: &VirtualMachine) -> Value {
    typed(
        "",
        "ServiceRoot.v1_15_0.ServiceRoot",
        json!({
            "Id": "RootService", "Name": "Root Service", "RedfishVersion": "1.18.0",
            "Vendor": "Farrier", "Product": "Virtual BMC", "UUID": vm.identity.uuid,
            "Systems": link("Systems"), "Chassis": link("Chassis"), "Managers": link("Managers"),
            "SessionService": link("SessionService"), "UpdateService": link("UpdateService"),
            "Tasks": link("TaskService"),
            "Links": {"Sessions": link("SessionService/Sessions")},
            "ProtocolFeaturesSupported": {"ExpandQuery": {"ExpandAll": false, "NoLinks": false}},
        }),
    )
}

pub(super) fn session(id: &str) -> Value {
    typed(
        &format!("SessionService/Sessions/{id}"),
        "Session.v1_5_0.Session",
        json!({"Id": id, "Name": "User Session", "UserName": "admin"}),
    )
}

fn system(vm: &VirtualMachine, rest: &[&str]) -> Option<Value> {
    let facts = vm.system();
    let inventory = vm.inventory();
    match rest {
        [] => Some(typed(
            "Systems/1",
            "ComputerSystem.v1_20_0.ComputerSystem",
            json!({
                "Id": "1", "Name": "System", "SystemType": "Physical",
                "Manufacturer": facts.manufacturer, "Model": facts.model,
                "SerialNumber": facts.identity.serial, "UUID": facts.identity.uuid,
                "PowerState": format!("{:?}", facts.power),
                "BiosVersion": facts.bios_version,
                "LastResetTime": date(vm.last_reset),
                "Status": {"State": "Enabled", "Health": facts.health, "HealthRollup": facts.health},
                "Boot": {
                    "BootSourceOverrideTarget": facts.boot_target,
                    "BootSourceOverrideEnabled": facts.boot_enabled,
                    "BootSourceOverrideMode": "UEFI",
                    "BootSourceOverrideTarget@Redfish.AllowableValues":
                        ["None", "Pxe", "UefiHttp", "Cd", "Hdd"],
                    "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Disabled", "Once"],
                },
                "ProcessorSummary": {"Count": inventory.cpus.len(), "Model": "Virtual 64-core"},
                "MemorySummary": {
                    "TotalSystemMemoryGiB": inventory.memory_mib.map(|m| m / 1024),
                    "Status": {"State": "Enabled", "Health": "OK"},
                },
                "Processors": link("Systems/1/Processors"),
                "Storage": link("Systems/1/Storage"),
                "EthernetInterfaces": link("Systems/1/EthernetInterfaces"),
                "Links": {"ManagedBy": [link("Managers/1")], "Chassis": [link("Chassis/1")]},
                "Actions": {"#ComputerSystem.Reset": {
                    "target": format!("{V1}/Systems/1/Actions/ComputerSystem.Reset"),
                    "ResetType@Redfish.AllowableValues": RESETS,
                }},
            }),
        )),
        ["Processors"] => {
            let ids = inventory.cpus.into_iter().chain(inventory.gpus).map(|p| p.id);
            Some(collection("Systems/1/Processors", "Processor", ids))
        }
        ["Processors", id] => {
            let is_gpu = id.starts_with("GPU");
            let parts = if is_gpu { inventory.gpus } else { inventory.cpus };
            let part = parts.into_iter().find(|p| p.id == *id)?;
            Some(typed(
                &format!("Systems/1/Processors/{id}"),
                "Processor.v1_18_0.Processor",
                json!({
                    "Id": id, "Name": id, "ProcessorType": if is_gpu { "GPU" } else { "CPU" },
                    "Model": part.model, "Status": {"State": "Enabled", "Health": "OK"},
                }),
            ))
        }
        ["Storage"] => Some(collection("Systems/1/Storage", "Storage", ["1".to_string()])),
        ["Storage", "1"] => {
            let drives: Vec<Value> = (inventory.disks.iter())
                .map(|d| link(&format!("Systems/1/Storage/1/Drives/{}", d.id)))
                .collect();
            Some(typed(
                "Systems/1/Storage/1",
                "Storage.v1_15_0.Storage",
                json!({
                    "Id": "1", "Name": "NVMe", "Drives@odata.count": drives.len(), "Drives": drives,
                    "Status": {"State": "Enabled", "Health": "OK"},
                }),
            ))
        }
        ["Storage", "1", "Drives", id] => {
            let disk = inventory.disks.into_iter().find(|d| d.id == *id)?;
            Some(typed(
                &format!("Systems/1/Storage/1/Drives/{id}"),
                "Drive.v1_18_0.Drive",
                json!({
                    "Id": id, "Name": id, "MediaType": "SSD", "Protocol": "NVMe",
                    "SerialNumber": disk.serial, "CapacityBytes": disk.capacity,
                    "Status": {"State": "Enabled", "Health": "OK"},
                }),
            ))
        }
        ["EthernetInterfaces"] => {
            let ids = inventory.nics.into_iter().map(|n| n.id);
            Some(collection("Systems/1/EthernetInterfaces", "EthernetInterface", ids))
        }
        ["EthernetInterfaces", id] => {
            let nic = inventory.nics.into_iter().find(|n| n.id == *id)?;
            // A BMC that knows no UUID of a host that is off knows no MAC either.
            let mac = facts.identity.mac.and(nic.mac);
            Some(typed(
                &format!("Systems/1/EthernetInterfaces/{id}"),
                "EthernetInterface.v1_10_0.EthernetInterface",
                json!({
                    "Id": id, "Name": id, "MACAddress": mac, "PermanentMACAddress": mac,
                    "LinkStatus": nic.link_up.map(|up| if up { "LinkUp" } else { "LinkDown" }),
                    "Status": {"State": "Enabled", "Health": "OK"},
                }),
            ))
        }
        _ => None,
    }
}

fn bmc(vm: &VirtualMachine, now: EngineTime) -> Value {
    let version = vm.components().into_iter().find(|c| c.id == "BMC").and_then(|c| c.version);
    typed(
        "Managers/1",
        "Manager.v1_19_0.Manager",
        json!({
            "Id": "1", "Name": "BMC", "ManagerType": "BMC", "FirmwareVersion": version,
            "DateTime": date(now), "Status": {"State": "Enabled", "Health": "OK"},
            "Links": {"ManagerForServers": [link("Systems/1")]},
            "Actions": {"#Manager.Reset": {
                "target": format!("{V1}/Managers/1/Actions/Manager.Reset"),
                "ResetType@Redfish.AllowableValues": BMC_RESETS,
            }},
        }),
    )
}

fn updates(vm: &VirtualMachine, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(typed(
            "UpdateService",
            "UpdateService.v1_14_0.UpdateService",
            json!({
                "Id": "UpdateService", "Name": "Update Service", "ServiceEnabled": true,
                "FirmwareInventory": link("UpdateService/FirmwareInventory"),
                "Actions": {"#UpdateService.SimpleUpdate": {
                    "target": format!("{V1}/UpdateService/Actions/UpdateService.SimpleUpdate"),
                    "TransferProtocol@Redfish.AllowableValues": ["HTTP"],
                }},
            }),
        )),
        ["FirmwareInventory"] => {
            let ids = vm.components().into_iter().map(|c| c.id);
            Some(collection("UpdateService/FirmwareInventory", "SoftwareInventory", ids))
        }
        ["FirmwareInventory", id] => {
            let part = vm.components().into_iter().find(|c| c.id == *id)?;
            Some(typed(
                &format!("UpdateService/FirmwareInventory/{id}"),
                "SoftwareInventory.v1_10_0.SoftwareInventory",
                json!({
                    "Id": id, "Name": part.name, "Version": part.version,
                    "Updateable": part.updateable, "Status": {"State": "Enabled", "Health": "OK"},
                }),
            ))
        }
        _ => None,
    }
}

pub(super) fn task(vm: &VirtualMachine, now: EngineTime, id: &str) -> Option<Value> {
    let task = vm.tasks.iter().find(|t| t.id.to_string() == id)?;
    let shown = vm.task_list(now).into_iter().find(|t| t.uri == task.uri())?;
    let failed = shown.message.is_some();
    let messages: Vec<Value> = shown
        .message
        .iter()
        .map(|m| json!({"MessageId": "Update.1.0.ApplyFailed", "Severity": "Critical", "Message": m}))
        .collect();
    Some(typed(
        &format!("TaskService/Tasks/{id}"),
        "Task.v1_7_2.Task",
        json!({
            "Id": id, "Name": "Firmware update", "TaskState": shown.raw_state,
            "TaskStatus": if failed { "Critical" } else { "OK" },
            "PercentComplete": shown.percent, "StartTime": date(task.started),
            "EndTime": task.ended.map(|_| date(task.ends)), "Messages": messages,
        }),
    ))
}
