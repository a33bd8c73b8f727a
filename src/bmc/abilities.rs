//! What a BMC is and says it can do: resets, boot targets and options, ways of updating, limits.
//! Nothing is tried.

use super::conn::Bmc;
use super::guard::Action;
use super::{around, json, system};
use crate::model::Fault;
use crate::model::hardware::{Abilities, BootOption};
use serde_json::Value;

pub(super) async fn read(bmc: &Bmc<'_>) -> Result<Abilities, Fault> {
    let (links, v) = system::fetch(bmc).await?;
    let root = around::maybe(bmc, "/redfish/v1/").await?.unwrap_or_default();
    let mut found = Abilities {
        vendor: json::text(&root, &["Vendor"]),
        redfish: json::text(&root, &["RedfishVersion"]),
        reset_types: values(bmc, &v, "#ComputerSystem.Reset").await?,
        boot_targets: targets(&v),
        boot_options: options(bmc, &v).await?,
        ..Abilities::default()
    };
    if found.boot_targets.is_empty()
        && let Some(path) = &links.boot_settings
        && let Some(settings) = around::maybe(bmc, path).await?
    {
        // DGX lists them only in the settings object.
        found.boot_targets = targets(&settings);
    }
    if let Some((_, manager)) = around::managers(bmc, &v).await?.first() {
        found.bmc_model = json::text(manager, &["Model"]);
        found.bmc_firmware = json::text(manager, &["FirmwareVersion"]);
        found.bmc_reset_types = values(bmc, manager, "#Manager.Reset").await?;
    }
    if let Some(service) = below(bmc, &root, "UpdateService").await? {
        found.updates = updates(&service);
    }
    let number = |v: &Value, key| json::at(v, &[key]).and_then(Value::as_u64);
    if let Some(service) = below(bmc, &root, "SessionService").await? {
        found.session_timeout_s = number(&service, "SessionTimeout");
    }
    if let Some(service) = below(bmc, &root, "AccountService").await? {
        found.lockout_threshold = number(&service, "AccountLockoutThreshold");
    }
    Ok(found)
}

async fn below(bmc: &Bmc<'_>, v: &Value, key: &str) -> Result<Option<Value>, Fault> {
    match json::link(v, &[key]) {
        Some(link) => around::maybe(bmc, &link).await,
        None => Ok(None),
    }
}

async fn values(bmc: &Bmc<'_>, v: &Value, action: &str) -> Result<Vec<String>, Fault> {
    let action = Action::find(bmc, v, action).await?;
    Ok(action.and_then(|a| a.allowed("ResetType")).unwrap_or_default())
}

fn targets(v: &Value) -> Vec<String> {
    json::texts(v, &["Boot", "BootSourceOverrideTarget@Redfish.AllowableValues"])
}

/// The boot options in the boot order's order; those that it leaves out come last.
async fn options(bmc: &Bmc<'_>, system: &Value) -> Result<Vec<BootOption>, Fault> {
    let Some(link) = json::link(system, &["Boot", "BootOptions"]) else { return Ok(vec![]) };
    let read = around::members(bmc, &link).await?;
    let mut all: Vec<BootOption> = read
        .iter()
        .map(|(path, v)| BootOption {
            reference: json::text(v, &["BootOptionReference"])
                .or_else(|| json::text(v, &["Id"]))
                .unwrap_or_else(|| json::last_segment(path).to_string()),
            name: json::text(v, &["DisplayName"]).or_else(|| json::text(v, &["Name"])),
            enabled: json::at(v, &["BootOptionEnabled"]).and_then(Value::as_bool),
            uefi_path: json::text(v, &["UefiDevicePath"]),
        })
        .collect();
    let order = json::texts(system, &["Boot", "BootOrder"]);
    // VeraRubin's entries carry the name too: "Boot0019: Ubuntu" (field notes §4).
    let place = |o: &BootOption| {
        let named = |entry: &String| entry.split(':').next() == Some(o.reference.as_str());
        order.iter().position(named).unwrap_or(usize::MAX)
    };
    all.sort_by_key(place);
    Ok(all)
}

fn updates(service: &Value) -> Vec<String> {
    let action = json::text(service, &["Actions", "#UpdateService.SimpleUpdate", "target"]);
    let ways = [
        ("SimpleUpdate", action),
        ("multipart push", json::text(service, &["MultipartHttpPushUri"])),
        ("push", json::text(service, &["HttpPushUri"])),
    ];
    ways.into_iter().filter_map(|(way, found)| found.map(|_| way.to_string())).collect()
}
