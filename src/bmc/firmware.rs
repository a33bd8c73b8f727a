//! The BMC's firmware inventory (DSP0268 UpdateService, SoftwareInventory).

use super::conn::{Bmc, List};
use super::{fault, json};
use crate::model::facts::Component;
use crate::model::{Fault, FaultClass};
use serde_json::Value;

pub(super) async fn read(bmc: &Bmc<'_>) -> Result<Vec<Component>, Fault> {
    let mut out: Vec<Component> = Vec::new();
    let mut lost = None;
    for (path, read) in members(bmc).await? {
        match read {
            Ok(v) => out.push(component(&path, &v)),
            // Listed and not there: 22 such links on one Supermicro (field notes R23).
            Err(f) if f.class == FaultClass::Unsupported => {
                tracing::debug!(machine = %bmc.target.name, fault = %f, "no such firmware member");
                lost = Some(f);
            }
            Err(f) => {
                tracing::debug!(machine = %bmc.target.name, fault = %f, "firmware member not read");
                let id = bmc.conn.member_at(&path);
                let id = id.unwrap_or_else(|| json::last_segment(&path).to_string());
                let unread = Some(Box::new(f.clone()));
                out.push(Component { id, uri: Some(path), unread, ..Component::default() });
                lost = Some(f);
            }
        }
    }
    // Nothing could be read at all: the fault says more than a list of what was not.
    match lost {
        Some(f) if out.iter().all(|c| c.unread.is_some()) => return Err(f),
        _ => {}
    }
    let paths = out.iter().filter_map(|c| Some((c.id.clone(), c.uri.clone()?)));
    bmc.conn.keep_members(paths.collect());
    Ok(out)
}

/// Members that may be silent while the others answer. One more, and it is the BMC that is.
const SILENT_MAX: usize = 2;

/// The inventory's members, by the link that was found before; a link that has gone is found anew.
async fn members(bmc: &Bmc<'_>) -> Result<Vec<(String, Result<Value, Fault>)>, Fault> {
    if let Some(link) = bmc.conn.list(List::Firmware) {
        match bmc.resources_but(&link, SILENT_MAX).await {
            Err(f) if f.class == FaultClass::Unsupported => {}
            read => return read,
        }
    }
    let link = inventory_link(&update_service(bmc).await?)?;
    let read = bmc.resources_but(&link, SILENT_MAX).await?;
    bmc.conn.keep_list(List::Firmware, &link);
    Ok(read)
}

/// The update service's document.
pub(super) async fn update_service(bmc: &Bmc<'_>) -> Result<Value, Fault> {
    let link = update_service_link(bmc).await?;
    bmc.get(&link).await
}

pub(super) async fn update_service_link(bmc: &Bmc<'_>) -> Result<String, Fault> {
    let root = bmc.root().await?;
    let none = || fault::unsupported("no-update-service", "the BMC has no update service");
    root.update.clone().ok_or_else(none)
}

pub(super) fn inventory_link(service: &Value) -> Result<String, Fault> {
    json::link(service, &["FirmwareInventory"]).ok_or_else(|| {
        Fault::new(
            FaultClass::Unsupported,
            crate::model::Channel::Bmc,
            "no-firmware-inventory",
            "the BMC's update service has no firmware inventory",
        )
    })
}

pub(super) fn component(path: &str, v: &Value) -> Component {
    Component {
        id: json::text(v, &["Id"]).unwrap_or_else(|| json::last_segment(path).to_string()),
        name: json::text(v, &["Name"]),
        version: json::text(v, &["Version"]),
        updateable: json::at(v, &["Updateable"]).and_then(Value::as_bool),
        uri: Some(path.to_string()),
        unread: None,
    }
}
