//! A small BMC with every resource that is read, for where no captured tree is at hand.

use super::captured::Tree;
use serde_json::{Map, Value, json};

/// A small BMC of all resources that are read: every part once.
pub(crate) fn small_tree() -> Tree {
    let link = |p: &str| json!({ "@odata.id": p });
    let mut t = Map::new();
    t.insert(
        "/redfish/v1".into(),
        json!({
        "Systems": link("/redfish/v1/Systems"), "UpdateService": link("/redfish/v1/UpdateService"),
        "Managers": link("/redfish/v1/Managers"), "Chassis": link("/redfish/v1/Chassis"),
        "Vendor": "Acme", "RedfishVersion": "1.18.0",
        "Tasks": link("/redfish/v1/TaskService"),
        "Links": {"Sessions": link("/redfish/v1/SessionService/Sessions")}}),
    );
    t.insert("/redfish/v1/systems".into(), json!({"Members": [link("/redfish/v1/Systems/1")]}));
    t.insert(
        "/redfish/v1/systems/1".into(),
        json!({
        "SerialNumber": "S1", "UUID": "8d0a0f6e-7a2f-4a5e-9d1e-0a1b2c3d4e5f", "PowerState": "On",
        "Status": {"Health": "OK"}, "MemorySummary": {"TotalSystemMemoryGiB": 64},
        "Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"},
        "Actions": {"#ComputerSystem.Reset": {"target": "/x"}},
        "Processors": link("/redfish/v1/Systems/1/Processors"),
        "EthernetInterfaces": link("/redfish/v1/Systems/1/Nics"),
        "Storage": link("/redfish/v1/Systems/1/Storage"),
        "Bios": link("/redfish/v1/Systems/1/Bios"),
        "SecureBoot": link("/redfish/v1/Systems/1/SecureBoot"),
        "LogServices": link("/redfish/v1/Systems/1/LogServices"),
        "Links": {"Chassis": [link("/redfish/v1/Chassis/1")],
                  "ManagedBy": [link("/redfish/v1/Managers/1")]}}),
    );
    small_capabilities(&mut t);
    t.insert("/redfish/v1/systems/1/processors".into(), json!({"Members": [
        link("/redfish/v1/Systems/1/Processors/CPU"), link("/redfish/v1/Systems/1/Processors/GPU")]}));
    for kind in ["CPU", "GPU"] {
        let path = format!("/redfish/v1/systems/1/processors/{}", kind.to_lowercase());
        t.insert(
            path,
            json!({"Id": kind, "ProcessorType": kind, "Model": "M", "SerialNumber": "P1"}),
        );
    }
    t.insert(
        "/redfish/v1/systems/1/nics".into(),
        json!({"Members": [link("/redfish/v1/Systems/1/Nics/1")]}),
    );
    t.insert(
        "/redfish/v1/systems/1/nics/1".into(),
        json!({"Id": "1", "MACAddress": "00:00:5e:00:53:01", "LinkStatus": "LinkUp"}),
    );
    t.insert(
        "/redfish/v1/systems/1/storage".into(),
        json!({"Members": [link("/redfish/v1/Systems/1/Storage/A")]}),
    );
    t.insert(
        "/redfish/v1/systems/1/storage/a".into(),
        json!({"Drives": [link("/redfish/v1/Drives/1")],
               "Volumes": link("/redfish/v1/Systems/1/Storage/A/Volumes")}),
    );
    t.insert(
        "/redfish/v1/drives/1".into(),
        json!({"Id": "1", "CapacityBytes": 1_000_000_000_000_u64}),
    );
    t.insert(
        "/redfish/v1/chassis/1".into(),
        json!({"PCIeDevices": link("/redfish/v1/Chassis/1/P"),
               "Thermal": link("/redfish/v1/Chassis/1/Thermal"),
               "Power": link("/redfish/v1/Chassis/1/Power"),
               "ThermalSubsystem": link("/redfish/v1/Chassis/1/ThermalSubsystem")}),
    );
    t.insert("/redfish/v1/chassis/1/p".into(), json!({"Members": []}));
    t.insert(
        "/redfish/v1/updateservice".into(),
        json!({"FirmwareInventory": link("/redfish/v1/U/F")}),
    );
    t.insert("/redfish/v1/u/f".into(), json!({"Members": [link("/redfish/v1/U/F/BIOS")]}));
    t.insert(
        "/redfish/v1/u/f/bios".into(),
        json!({"Id": "BIOS", "Version": "1", "Updateable": true}),
    );
    t.insert("/redfish/v1/taskservice".into(), json!({"Tasks": link("/redfish/v1/T")}));
    t.insert("/redfish/v1/t".into(), json!({"Members": [link("/redfish/v1/T/1")]}));
    t.insert(
        "/redfish/v1/t/1".into(),
        json!({"TaskState": "Running", "PercentComplete": 3,
        "Messages": [{"MessageId": "X.1.Y", "Message": "m", "MessageArgs": ["a"]}]}),
    );
    t.into_iter().collect()
}

/// What is read beyond the daily round.
fn small_capabilities(t: &mut Map<String, Value>) {
    let link = |p: &str| json!({ "@odata.id": p });
    let members = |paths: &[&str]| {
        let all: Vec<Value> = paths.iter().map(|p| link(p)).collect();
        json!({"Members": all, "Members@odata.count": paths.len()})
    };
    let mut add = |path: &str, v: Value| {
        t.insert(format!("/redfish/v1/{path}").to_lowercase(), v);
    };
    add("Managers", members(&["/redfish/v1/Managers/1"]));
    add(
        "Managers/1",
        json!({"Id": "1", "Model": "B", "FirmwareVersion": "1.2",
            "DateTime": "2024-08-15T12:00:00Z", "DateTimeLocalOffset": "+00:00",
            "VirtualMedia": link("/redfish/v1/Managers/1/VirtualMedia"),
            "Actions": {"#Manager.Reset": {"target": "/y",
                "ResetType@Redfish.AllowableValues": ["ForceRestart"]}}}),
    );
    add("Managers/1/VirtualMedia", members(&["/redfish/v1/Managers/1/VirtualMedia/CD"]));
    add(
        "Managers/1/VirtualMedia/CD",
        json!({"Id": "CD", "MediaTypes": ["CD", "DVD"], "Inserted": false, "Image": null,
            "Actions": {"#VirtualMedia.InsertMedia": {"target": "/i"},
                        "#VirtualMedia.EjectMedia": {"target": "/e"}}}),
    );
    add(
        "Systems/1/Bios",
        json!({"Attributes": {"BootMode": "Uefi", "Cores": 8, "Turbo": true},
            "AttributeRegistry": "R.v1", "@Redfish.Settings": {
                "SupportedApplyTimes": ["OnReset"],
                "SettingsObject": link("/redfish/v1/Systems/1/Bios/Settings")}}),
    );
    add("Systems/1/Bios/Settings", json!({"Attributes": {"Cores": 4}}));
    add(
        "Systems/1/SecureBoot",
        json!({"SecureBootEnable": true, "SecureBootCurrentBoot": "Enabled",
               "SecureBootMode": "UserMode"}),
    );
    add("Systems/1/LogServices", members(&["/redfish/v1/Systems/1/LogServices/SEL"]));
    add(
        "Systems/1/LogServices/SEL",
        json!({"Id": "SEL", "Entries": link("/redfish/v1/Systems/1/LogServices/SEL/Entries")}),
    );
    add(
        "Systems/1/LogServices/SEL/Entries",
        json!({"Members": [
            {"@odata.id": "/redfish/v1/Systems/1/LogServices/SEL/Entries/1", "Id": "1",
             "Created": "2024-08-15T12:00:00Z", "Severity": "OK", "Message": "on"},
            {"@odata.id": "/redfish/v1/Systems/1/LogServices/SEL/Entries/2", "Id": "2",
             "Created": "2024-08-15T13:00:00Z", "Severity": "Critical", "Message": "hot"}],
            "Members@odata.nextLink": "/redfish/v1/Systems/1/LogServices/SEL/More"}),
    );
    add(
        "Systems/1/LogServices/SEL/More",
        json!({"Members": [link("/redfish/v1/Systems/1/LogServices/SEL/Entries/3")]}),
    );
    add(
        "Systems/1/LogServices/SEL/Entries/3",
        json!({"Id": "3", "Created": "2024-08-15T14:00:00Z", "MessageId": "X.1.Off", "Message": "off"}),
    );
    add("Chassis", members(&["/redfish/v1/Chassis/1"]));
    add(
        "Chassis/1/Thermal",
        json!({"Temperatures": [{"Name": "Inlet", "ReadingCelsius": -3, "Status": {"Health": "OK"}}],
               "Fans": [{"Name": "F1", "Reading": 9000, "ReadingUnits": "RPM"}]}),
    );
    add(
        "Chassis/1/Power",
        json!({"PowerControl": [{"Name": "Box", "PowerConsumedWatts": 812}],
               "PowerSupplies": [{"Name": "PS1", "PowerInputWatts": 400, "Status": {"Health": "OK"}}],
               "Voltages": [{"Name": "12V", "ReadingVolts": 12.1}]}),
    );
    add(
        "Chassis/1/ThermalSubsystem",
        json!({"LeakDetection": link("/redfish/v1/Chassis/1/ThermalSubsystem/LeakDetection")}),
    );
    add(
        "Chassis/1/ThermalSubsystem/LeakDetection",
        json!({"LeakDetectors": link("/redfish/v1/Chassis/1/ThermalSubsystem/LeakDetectors")}),
    );
    add(
        "Chassis/1/ThermalSubsystem/LeakDetectors",
        members(&["/redfish/v1/Chassis/1/ThermalSubsystem/LeakDetectors/1"]),
    );
    add(
        "Chassis/1/ThermalSubsystem/LeakDetectors/1",
        json!({"Id": "1", "Name": "tray", "DetectorState": "OK"}),
    );
    add("Systems/1/Storage/A/Volumes", members(&["/redfish/v1/Systems/1/Storage/A/Volumes/V"]));
    add(
        "Systems/1/Storage/A/Volumes/V",
        json!({"Id": "V", "RAIDType": "RAID1", "CapacityBytes": 1_000_000,
               "Links": {"Drives": [link("/redfish/v1/Drives/1")]}}),
    );
}
