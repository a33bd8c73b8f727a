//! Which version of which schema the resources follow, once; `$metadata` (DSP0266 §8.2, OData CSDL)
//! and the list of schema files are made from it.

use serde_json::{Value, json};
use std::fmt::Write as _;

/// Type and version, of the bundle DSP8010 of late 2025.
pub(super) const SCHEMAS: [(&str, &str); 41] = [
    ("AccountService", "v1_18_1"),
    ("AttributeRegistry", "v1_4_0"),
    ("Bios", "v1_2_3"),
    ("BootOption", "v1_0_6"),
    ("Chassis", "v1_28_0"),
    ("ComputerSystem", "v1_27_0"),
    ("Drive", "v1_22_0"),
    ("EthernetInterface", "v1_12_4"),
    ("EventService", "v1_12_0"),
    ("Fan", "v1_6_0"),
    ("JsonSchemaFile", "v1_1_5"),
    ("LeakDetection", "v1_2_0"),
    ("LeakDetector", "v1_6_0"),
    ("LogEntry", "v1_21_0"),
    ("LogService", "v1_9_0"),
    ("Manager", "v1_24_0"),
    ("ManagerAccount", "v1_14_1"),
    ("ManagerNetworkProtocol", "v1_12_0"),
    ("Memory", "v1_23_0"),
    ("MessageRegistryFile", "v1_1_5"),
    ("PCIeDevice", "v1_21_0"),
    ("PowerSubsystem", "v1_1_3"),
    ("PowerSupply", "v1_6_0"),
    ("Processor", "v1_22_0"),
    ("Role", "v1_3_3"),
    ("SecureBoot", "v1_1_2"),
    ("Sensor", "v1_12_0"),
    ("ServiceRoot", "v1_20_0"),
    ("Session", "v1_8_0"),
    ("SessionService", "v1_2_0"),
    ("Settings", "v1_4_0"),
    ("SoftwareInventory", "v1_13_0"),
    ("Storage", "v1_21_0"),
    ("StorageController", "v1_11_0"),
    ("Task", "v1_7_4"),
    ("TaskService", "v1_3_0"),
    ("ThermalMetrics", "v1_3_2"),
    ("ThermalSubsystem", "v1_5_0"),
    ("UpdateService", "v1_17_0"),
    ("VirtualMedia", "v1_6_5"),
    ("Volume", "v1_10_2"),
];

/// Collections have no version.
const COLLECTIONS: [&str; 26] = [
    "BootOption",
    "Chassis",
    "ComputerSystem",
    "EthernetInterface",
    "EventDestination",
    "Fan",
    "JsonSchemaFile",
    "LeakDetector",
    "LogEntry",
    "LogService",
    "ManagerAccount",
    "Manager",
    "Memory",
    "MessageRegistryFile",
    "PCIeDevice",
    "PowerSupply",
    "Processor",
    "Role",
    "Sensor",
    "Session",
    "SoftwareInventory",
    "Storage",
    "StorageController",
    "Task",
    "VirtualMedia",
    "Volume",
];

/// `#Type.vX_Y_Z.Type`, or `#Type.Type` for a type without versions.
pub(super) fn annotation(kind: &str) -> String {
    match SCHEMAS.iter().find(|(name, _)| *name == kind) {
        Some((_, version)) => format!("#{kind}.{version}.{kind}"),
        None => format!("#{kind}.{kind}"),
    }
}

/// The document at `$metadata`: where each schema is published, and the service's container.
pub(in crate::sim::serve) fn metadata() -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <edmx:Edmx xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\" Version=\"4.0\">\n",
    );
    let mut include = |file: &str, names: &[String]| {
        let _ = writeln!(
            out,
            "  <edmx:Reference Uri=\"http://redfish.dmtf.org/schemas/v1/{file}_v1.xml\">"
        );
        for name in names {
            let _ = writeln!(out, "    <edmx:Include Namespace=\"{name}\"/>");
        }
        out.push_str("  </edmx:Reference>\n");
    };
    for (name, version) in SCHEMAS {
        include(name, &[name.to_string(), format!("{name}.{version}")]);
    }
    for of in COLLECTIONS {
        include(&format!("{of}Collection"), &[format!("{of}Collection")]);
    }
    include("RedfishExtensions", &["RedfishExtensions.v1_0_0".to_string()]);
    out.push_str(
        "  <edmx:DataServices>\n    \
         <Schema xmlns=\"http://docs.oasis-open.org/odata/ns/edm\" Namespace=\"Service\">\n      \
         <EntityContainer Name=\"Service\" Extends=\"ServiceRoot.v1_20_0.ServiceContainer\"/>\n    \
         </Schema>\n  </edmx:DataServices>\n</edmx:Edmx>\n",
    );
    out
}

/// One schema file: where it is published (DSP0268 JsonSchemaFile).
pub(super) fn file(id: &str) -> Option<Value> {
    let (name, version) = SCHEMAS.iter().find(|(name, _)| *name == id)?;
    Some(super::typed(
        &format!("JsonSchemas/{name}"),
        "JsonSchemaFile",
        json!({
            "Id": name, "Name": format!("{name} schema file"),
            "Languages": ["en"], "Schema": format!("#{name}.{version}.{name}"),
            "Location": [{
                "Language": "en",
                "PublicationUri":
                    format!("http://redfish.dmtf.org/schemas/v1/{name}.{version}.json"),
            }],
        }),
    ))
}
