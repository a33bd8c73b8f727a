//! The controllers of a machine: a host's BMC, and beside it those of an HGX baseboard, of DPUs, of
//! services that Redfish lists as managers too. Only the first is "the BMC" of the machine.

use super::conn::Bmc;
use super::{discover, json};
use crate::model::Fault;
use crate::model::hardware::{Controller, ControllerKind};
use serde_json::Value;

/// All controllers, the host's BMC first.
pub(super) async fn read(bmc: &Bmc<'_>) -> Result<Vec<Controller>, Fault> {
    let (links, system) = super::system::fetch(bmc).await?;
    let Some(managers) = bmc.root().await?.managers.clone() else { return Ok(vec![]) };
    let own = managed_by(&system);
    let mut out: Vec<Controller> = bmc
        .resources(&managers)
        .await?
        .into_iter()
        .filter_map(|(path, read)| Some(controller(&path, &read.ok()?, &links.system, &own)))
        .collect();
    out.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
    Ok(out)
}

fn managed_by(system: &Value) -> Vec<String> {
    json::list(system, &["Links", "ManagedBy"]).iter().filter_map(json::link_of).collect()
}

fn controller(path: &str, v: &Value, system: &str, own: &[String]) -> Controller {
    let id = json::text(v, &["Id"]).unwrap_or_else(|| json::last_segment(path).to_string());
    Controller {
        kind: kind(&id, path, v, system, own),
        uri: path.to_string(),
        model: json::text(v, &["Model"]),
        firmware: json::text(v, &["FirmwareVersion"]),
        health: json::text(v, &["Status", "Health"]),
        id,
    }
}

/// By name where the name says it, else by what it manages.
fn kind(id: &str, path: &str, v: &Value, system: &str, own: &[String]) -> ControllerKind {
    let name = id.to_ascii_uppercase();
    let model = json::text(v, &["Model"]).unwrap_or_default().to_ascii_uppercase();
    let of = json::text(v, &["ManagerType"]).unwrap_or_default();
    let is_bmc = of.is_empty() || of.eq_ignore_ascii_case("bmc");
    let manages_us = json::list(v, &["Links", "ManagerForServers"])
        .iter()
        .filter_map(json::link_of)
        .any(|link| json::uri_eq(&link, system));
    let dpu = ["DPU", "BLUEFIELD", "NIC.SLOT"].iter().any(|w| name.contains(w))
        || model.contains("BLUEFIELD");
    if name.starts_with("HGX") {
        if is_bmc { ControllerKind::Baseboard } else { ControllerKind::Service }
    } else if dpu && !manages_us {
        ControllerKind::Dpu
    } else if own.iter().any(|link| json::uri_eq(link, path)) || manages_us {
        ControllerKind::Host
    } else if !is_bmc {
        ControllerKind::Service
    } else if own.is_empty() {
        // Nothing says who manages the system: any BMC may.
        ControllerKind::Host
    } else {
        ControllerKind::Other
    }
}

/// The manager of the host itself: its path and its document.
pub(super) async fn host(bmc: &Bmc<'_>, system: &Value) -> Result<Option<(String, Value)>, Fault> {
    Ok(candidates(bmc, system).await?.into_iter().next())
}

/// Managers that may be the host's, the likeliest first; an unreadable one is left out, unless it was
/// the only one.
pub(super) async fn candidates(
    bmc: &Bmc<'_>,
    system: &Value,
) -> Result<Vec<(String, Value)>, Fault> {
    let own = managed_by(system);
    let mut paths = own.clone();
    if paths.is_empty()
        && let Some(managers) = bmc.root().await?.managers.clone()
    {
        paths = bmc.members(&managers, false).await?.iter().filter_map(json::link_of).collect();
    }
    let system = json::text(system, &["@odata.id"]).unwrap_or_default();
    let mut found: Vec<(ControllerKind, String, Value)> = Vec::new();
    let mut broken = None;
    for path in paths {
        match bmc.get(&path).await {
            Ok(v) => found.push((controller(&path, &v, &system, &own).kind, path, v)),
            Err(f) if discover::is_fatal(&f) => return Err(f),
            Err(f) => broken = Some(f),
        }
    }
    if let (true, Some(f)) = (found.is_empty(), broken) {
        return Err(f);
    }
    // Stable: of two of a kind the BMC's own order counts.
    found.sort_by_key(|(kind, _, _)| *kind);
    Ok(found.into_iter().map(|(_, path, v)| (path, v)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hosts_bmc_is_told_from_the_others() {
        use ControllerKind::*;
        let system = "/redfish/v1/Systems/DGX";
        let own = ["/redfish/v1/Managers/BMC".to_string()];
        let dgx =
            json!({"Links": {"ManagerForServers": [{"@odata.id": "/redfish/v1/systems/dgx/"}]}});
        let cases = [
            ("BMC", json!({"ManagerType": "BMC"}), &own[..], Host),
            ("HGX_BMC_0", json!({"ManagerType": "BMC", "Model": "OpenBmc"}), &own, Baseboard),
            ("HGX_FabricManager_0", json!({"ManagerType": "Service"}), &own, Service),
            ("Bluefield_BMC", json!({"ManagerType": "BMC"}), &own, Dpu),
            ("1", dgx, &[], Host),
            ("1", json!({"Model": "BlueField-3 BMC"}), &[], Dpu),
            ("RMC", json!({"ManagerType": "RackManager"}), &own, Service),
            ("Second", json!({"ManagerType": "BMC"}), &own, Other),
        ];
        for (id, v, own, wanted) in cases {
            let path = format!("/redfish/v1/Managers/{id}");
            assert_eq!(controller(&path, &v, system, own).kind, wanted, "{id}");
        }
    }
}
