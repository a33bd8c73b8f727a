//! The BMC itself: clock, network protocols, its own NIC, its log.

use super::{BMC_RESETS, action, collection, date, healthy, link, logs, media, typed};
use crate::model::EngineTime;
use crate::sim::physics::VirtualMachine;
use serde_json::{Value, json};

const AT: &str = "Managers/1";

pub(super) fn resource(vm: &VirtualMachine, now: EngineTime, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(bmc(vm, now)),
        ["NetworkProtocol"] => Some(protocols(vm)),
        ["EthernetInterfaces"] => {
            let path = format!("{AT}/EthernetInterfaces");
            Some(collection(&path, "EthernetInterface", ["eth0".to_string()]))
        }
        ["EthernetInterfaces", "eth0"] => Some(nic(vm)),
        ["VirtualMedia", rest @ ..] => media::resource(vm, now, AT, rest),
        ["LogServices", rest @ ..] => logs::of_bmc(vm, now, rest),
        _ => None,
    }
}

fn bmc(vm: &VirtualMachine, now: EngineTime) -> Value {
    let version = vm.components().into_iter().find(|c| c.id == "BMC").and_then(|c| c.version);
    typed(
        AT,
        "Manager",
        json!({
            "Id": "1", "Name": "BMC", "ManagerType": "BMC", "FirmwareVersion": version,
            "Manufacturer": "Farrier", "Model": "Virtual BMC", "PowerState": "On",
            "UUID": vm.identity.uuid, "ServiceEntryPointUUID": vm.identity.uuid,
            "DateTime": date(vm, now),
            "DateTimeLocalOffset": "+00:00", "Status": healthy(),
            "NetworkProtocol": link("Managers/1/NetworkProtocol"),
            "EthernetInterfaces": link("Managers/1/EthernetInterfaces"),
            "LogServices": link("Managers/1/LogServices"),
            "VirtualMedia": link("Managers/1/VirtualMedia"),
            "Links": {
                "ManagerForServers@odata.count": 1, "ManagerForServers": [link("Systems/1")],
                "ManagerForChassis@odata.count": 1, "ManagerForChassis": [link("Chassis/1")],
                "ManagerInChassis": link("Chassis/1"),
                "ActiveSoftwareImage": link("UpdateService/FirmwareInventory/BMC"),
                "SoftwareImages@odata.count": 1,
                "SoftwareImages": [link("UpdateService/FirmwareInventory/BMC")],
            },
            "Actions": {"#Manager.Reset": {
                "target": action(AT, "Manager.Reset"),
                "ResetType@Redfish.AllowableValues": BMC_RESETS,
            }},
        }),
    )
}

fn protocols(vm: &VirtualMachine) -> Value {
    let off = |port: u16| json!({"ProtocolEnabled": false, "Port": port});
    typed(
        "Managers/1/NetworkProtocol",
        "ManagerNetworkProtocol",
        json!({
            "Id": "NetworkProtocol", "Name": "Network protocols", "Status": healthy(),
            "HostName": format!("bmc-{}", vm.name), "FQDN": null,
            "HTTP": {"ProtocolEnabled": true, "Port": 80}, "HTTPS": off(443), "SSH": off(22),
            "IPMI": off(623), "NTP": {"ProtocolEnabled": false, "NTPServers": []},
        }),
    )
}

fn nic(vm: &VirtualMachine) -> Value {
    // The host's own with another first octet: unlike it, and still of this machine.
    let mac = vm.identity.mac.as_deref().and_then(|mac| Some(format!("06{}", mac.get(2..)?)));
    typed(
        "Managers/1/EthernetInterfaces/eth0",
        "EthernetInterface",
        json!({
            "Id": "eth0", "Name": "BMC network port", "InterfaceEnabled": true,
            "MACAddress": mac, "PermanentMACAddress": mac, "LinkStatus": "LinkUp",
            "SpeedMbps": 1000, "FullDuplex": true, "Status": healthy(),
        }),
    )
}
