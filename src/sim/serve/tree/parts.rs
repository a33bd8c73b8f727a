//! Processors (GPUs too), memory, NICs and what can be booted.

use super::{collection, healthy, link, typed};
use crate::sim::physics::VirtualMachine;
use serde_json::{Value, json};

pub(super) const CPUS: u16 = 2;
pub(super) const MEMORY_GIB: u32 = 2_048;
const DIMMS: u32 = 16;

pub(super) fn resource(vm: &VirtualMachine, rest: &[&str]) -> Option<Value> {
    match rest {
        ["Processors"] => {
            let found = vm.inventory();
            let ids = found.cpus.into_iter().chain(found.gpus).map(|p| p.id);
            Some(collection("Systems/1/Processors", "Processor", ids))
        }
        ["Processors", id] => processor(vm, id),
        ["Memory"] => {
            let ids = (0..DIMMS).map(|n| format!("DIMM{n}"));
            Some(collection("Systems/1/Memory", "Memory", ids))
        }
        ["Memory", id] => (0..DIMMS).any(|n| format!("DIMM{n}") == *id).then(|| dimm(id)),
        ["EthernetInterfaces"] => {
            let ids = vm.inventory().nics.into_iter().map(|n| n.id);
            Some(collection("Systems/1/EthernetInterfaces", "EthernetInterface", ids))
        }
        ["EthernetInterfaces", id] => nic(vm, id),
        ["BootOptions"] => {
            let ids = boot_options().iter().map(|o| o.id.to_string());
            Some(collection("Systems/1/BootOptions", "BootOption", ids))
        }
        ["BootOptions", id] => {
            let option = boot_options().iter().find(|o| o.id == *id)?;
            Some(typed(
                &format!("Systems/1/BootOptions/{id}"),
                "BootOption",
                json!({
                    "Id": id, "BootOptionReference": id, "Name": option.name,
                    "DisplayName": option.name, "BootOptionEnabled": true, "Alias": option.alias,
                }),
            ))
        }
        _ => None,
    }
}

fn processor(vm: &VirtualMachine, id: &str) -> Option<Value> {
    let found = vm.inventory();
    let gpu = id.starts_with("GPU");
    let parts = if gpu { found.gpus } else { found.cpus };
    let part = parts.into_iter().find(|p| p.id == id)?;
    let mut body = json!({
        "Id": id, "Name": id, "ProcessorType": if gpu { "GPU" } else { "CPU" }, "Socket": id,
        "Manufacturer": part.manufacturer, "Model": part.model, "SerialNumber": part.serial,
        "Status": healthy(),
    });
    if gpu {
        body["SystemInterface"] = json!({
            "InterfaceType": "PCIe",
            "PCIe": {"PCIeType": "Gen5", "MaxPCIeType": "Gen5", "LanesInUse": 16, "MaxLanes": 16},
        });
        body["Links"] = json!({"PCIeDevice": link(&format!("Chassis/1/PCIeDevices/{id}"))});
    } else {
        body["TotalCores"] = 64.into();
        body["TotalThreads"] = 128.into();
        body["InstructionSet"] = "x86-64".into();
    }
    Some(typed(&format!("Systems/1/Processors/{id}"), "Processor", body))
}

fn dimm(id: &str) -> Value {
    typed(
        &format!("Systems/1/Memory/{id}"),
        "Memory",
        json!({
            "Id": id, "Name": id, "MemoryType": "DRAM", "MemoryDeviceType": "DDR5",
            "CapacityMiB": MEMORY_GIB / DIMMS * 1024, "OperatingSpeedMhz": 4800,
            "Location": {"PartLocation": {"LocationType": "Slot", "ServiceLabel": id}},
            "Status": healthy(),
        }),
    )
}

fn nic(vm: &VirtualMachine, id: &str) -> Option<Value> {
    let nic = vm.inventory().nics.into_iter().find(|n| n.id == id)?;
    // A BMC that knows no UUID of a host that is off knows no MAC either.
    let mac = vm.shown_identity().mac.and(nic.mac);
    Some(typed(
        &format!("Systems/1/EthernetInterfaces/{id}"),
        "EthernetInterface",
        json!({
            "Id": id, "Name": id, "MACAddress": mac, "PermanentMACAddress": mac,
            "LinkStatus": nic.link_up.map(|up| if up { "LinkUp" } else { "LinkDown" }),
            "Status": healthy(),
        }),
    ))
}

/// An entry of the firmware's boot menu.
pub(super) struct BootOption {
    pub(super) id: &'static str,
    name: &'static str,
    alias: &'static str,
}

pub(super) fn boot_options() -> &'static [BootOption] {
    &[
        BootOption { id: "Boot0001", name: "NVMe drive", alias: "Hdd" },
        BootOption { id: "Boot0002", name: "PXE IPv4 NIC1", alias: "Pxe" },
        BootOption { id: "Boot0003", name: "HTTP IPv4 NIC1", alias: "UefiHttp" },
        BootOption { id: "Boot0004", name: "Virtual CD", alias: "Cd" },
    ]
}
