//! The boot override: minimal body, the BMC's ETag dialect, and the triple where a vendor wants it
//! (field notes §4, R12).

use super::conn::Bmc;
use super::guard::{self, Stop};
use super::patch::{self, Read};
use super::{fault, json};
use crate::model::Outcome;
use crate::model::action::{BootTarget, Expect};
use serde_json::{Value, json};

/// Names of a target, the standard one first.
fn names(target: BootTarget) -> &'static [&'static str] {
    match target {
        BootTarget::Pxe => &["Pxe"],
        BootTarget::UefiHttp => &["UefiHttp"],
        BootTarget::Cd => &["Cd", "UsbCd"],
        BootTarget::Disk => &["Hdd"],
        BootTarget::None => &["None"],
    }
}

/// Vendors that fall back to defaults unless Enabled, Target and Mode come together.
fn wants_mode(system: &Value) -> bool {
    let maker = json::text(system, &["Manufacturer"]).unwrap_or_default().to_ascii_lowercase();
    ["supermicro", "ami", "american megatrends", "asrock"].iter().any(|m| maker.starts_with(m))
}

pub(super) async fn set(
    bmc: &Bmc<'_>,
    expect: &Expect,
    target: BootTarget,
) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let (links, system) = guard::check(bmc, expect).await?;
    let path = links.boot_settings.clone().unwrap_or_else(|| links.system.clone());
    let read = patch::read(bmc, &path).await?;
    let allowed = allowed(&read.document).or_else(|| allowed(&system));
    let name = match &allowed {
        None => Some(names(target)[0]),
        Some(list) => names(target).iter().copied().find(|n| list.iter().any(|a| a == n)),
    };
    // "None" is left out of some lists, and always understood.
    let Some(name) = name.or((target == BootTarget::None).then_some("None")) else {
        return Ok(Outcome::Failed {
            fault: fault::unsupported(
                "boot-target-unsupported",
                format!(
                    "the BMC cannot boot from {}; it has {}",
                    names(target)[0],
                    allowed.unwrap_or_default().join(", ")
                ),
            ),
        });
    };
    let enabled = if target == BootTarget::None { "Disabled" } else { "Once" };
    let mut minimal =
        json!({"BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": name});
    // Some have it absent or null: then there is nothing to repeat.
    let mode = json::text(&read.document, &["Boot", "BootSourceOverrideMode"]);
    let with_mode = mode.map(|mode| {
        let mut full = minimal.clone();
        full["BootSourceOverrideMode"] =
            Value::from(if target == BootTarget::UefiHttp { "UEFI".to_string() } else { mode });
        full
    });
    let (first, second) = match with_mode {
        Some(full) if wants_mode(&system) => (full, Some(minimal.take())),
        Some(full) => (minimal, Some(full)),
        None => (minimal, None),
    };
    let mut outcome = send(bmc, &read, &first).await?;
    // The override is set freely (redo class), so the other body may be tried where this was
    // turned down: HPE rejects Mode, others miss it.
    if let (Outcome::Failed { fault }, Some(second)) = (&outcome, second)
        && fault.code == "rejected"
    {
        outcome = send(bmc, &read, &second).await?;
    }
    Ok(outcome)
}

fn allowed(v: &Value) -> Option<Vec<String>> {
    let list = json::texts(v, &["Boot", "BootSourceOverrideTarget@Redfish.AllowableValues"]);
    (!list.is_empty()).then_some(list)
}

async fn send(bmc: &Bmc<'_>, read: &Read, boot: &Value) -> Result<Outcome, Stop> {
    Ok(match patch::patch(bmc, read, &json!({ "Boot": boot })).await? {
        Ok(_) => Outcome::Applied { handle: None },
        Err(outcome) => outcome,
    })
}
