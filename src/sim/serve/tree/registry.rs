//! Registries: where DMTF publishes the messages, and the BIOS attributes as the board has them.

use super::bios::{REGISTRY, registry_uri};
use super::{collection, typed};
use crate::sim::physics::{ATTRIBUTES, Attribute, Kind};
use serde_json::{Value, json};

/// Registries of DMTF whose messages are used, with their versions.
const PUBLISHED: [(&str, &str); 2] = [("Base", "1.18.1"), ("Update", "1.0.2")];

pub(super) fn resource(rest: &[&str]) -> Option<Value> {
    match rest {
        [] => {
            let ids = PUBLISHED.iter().map(|(name, _)| *name).chain([REGISTRY]);
            Some(collection("Registries", "MessageRegistryFile", ids.map(String::from)))
        }
        [id] if *id == REGISTRY => Some(file(id, REGISTRY, json!({"Uri": registry_uri()}))),
        [id, name] if *id == REGISTRY && name.strip_suffix(".json") == Some(REGISTRY) => {
            Some(attributes())
        }
        [id] => {
            let (name, version) = PUBLISHED.iter().find(|(name, _)| name == id)?;
            let short = version.rsplit_once('.').map_or(*version, |(short, _)| short);
            let at = format!("https://redfish.dmtf.org/registries/{name}.{version}.json");
            Some(file(id, &format!("{name}.{short}"), json!({"PublicationUri": at})))
        }
        _ => None,
    }
}

fn file(id: &str, registry: &str, mut place: Value) -> Value {
    place["Language"] = "en".into();
    typed(
        &format!("Registries/{id}"),
        "MessageRegistryFile",
        json!({
            "Id": id, "Name": format!("{id} registry file"), "Languages": ["en"],
            "Registry": registry, "Location": [place],
        }),
    )
}

/// A document of its own, not a resource: it has no `@odata.id` (DSP0268 AttributeRegistry).
fn attributes() -> Value {
    json!({
        "@odata.type": super::schemas::annotation("AttributeRegistry"),
        "Id": REGISTRY, "Name": "BIOS attributes", "Language": "en", "OwningEntity": "Farrier",
        "RegistryVersion": "1.0.0",
        "RegistryEntries": {"Attributes": ATTRIBUTES.iter().map(entry).collect::<Vec<_>>()},
    })
}

fn entry(a: &Attribute) -> Value {
    let mut out = json!({
        "AttributeName": a.name, "DisplayName": a.title, "DefaultValue": a.factory(),
        "ReadOnly": matches!(a.kind, Kind::Fixed(_)), "ResetRequired": true,
    });
    match a.kind {
        Kind::Enumeration(values) => {
            out["Type"] = "Enumeration".into();
            let values = values.iter().map(|v| json!({"ValueName": v, "ValueDisplayName": v}));
            out["Value"] = values.collect::<Vec<_>>().into();
        }
        Kind::Integer { from, to, .. } => {
            out["Type"] = "Integer".into();
            out["LowerBound"] = from.into();
            out["UpperBound"] = to.into();
        }
        Kind::Boolean(_) => out["Type"] = "Boolean".into(),
        Kind::Text(_) | Kind::Fixed(_) => {
            out["Type"] = "String".into();
            out["MaxLength"] = 64.into();
        }
    }
    out
}
