//! The boot override (DSP0268 ComputerSystem.Boot): the body that this vendor takes, at the resource
//! that it takes it at (field notes §4, R12).

use super::conn::Bmc;
use super::guard::{self, Stop};
use super::{fault, json, patch};
use crate::model::action::{BootTarget, Expect};
use crate::model::quirks::{BootAt, BootForm, Quirks};
use crate::model::{Fault, Outcome};
use crate::port::capability::{BootMode, BootOrder};
use serde_json::{Value, json};

pub(super) async fn set(
    bmc: &Bmc<'_>,
    expect: &Expect,
    order: &BootOrder,
) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let (links, system) = guard::check(bmc, expect).await?;
    let quirks = bmc.quirks_of(&system).await?;
    if order.continuous && !quirks.boot.continuous {
        let f = fault::unsupported("boot-once-only", "this BMC forgets a continuous override")
            .hint("set it once before each restart");
        return Ok(Outcome::Failed { fault: f });
    }
    let path = match (&links.boot_settings, quirks.boot.at) {
        (Some(settings), BootAt::Found) => settings.clone(),
        _ => links.system.clone(),
    };
    let read = patch::read(bmc, &path).await?;
    let name = match name(&quirks, order.target, &read.document, &system) {
        Ok(name) => name,
        Err(fault) => return Ok(Outcome::Failed { fault }),
    };
    let wish = Wish { name, order };
    let mut outcome = Outcome::Failed { fault: fault::not_redfish("PATCH", "no body to try") };
    for (i, boot) in wish.bodies(&quirks, &read.document).iter().enumerate() {
        // The override is set freely (redo class), so another body may be tried where one was
        // plainly turned down: HPE rejects Mode, others miss it.
        if i > 0 && !matches!(&outcome, Outcome::Failed { fault } if fault.code == "rejected") {
            break;
        }
        outcome = match patch::patch(bmc, &read, &json!({ "Boot": boot })).await? {
            Ok(_) => Outcome::Applied { handle: None },
            Err(outcome) => outcome,
        };
    }
    if let Outcome::Failed { fault } = outcome {
        // HPE takes no change while the host is in POST.
        let busy = fault.code == "conflict";
        let fault = if busy { fault::later(fault, quirks.reset.conflict_retry_s) } else { fault };
        return Ok(Outcome::Failed { fault });
    }
    // 200 with errors inside, and yet it works (Dell), or no answer at all: what the resource shows
    // decides (R9). What was taken is observed by the next probe, as after every action.
    if let Outcome::Unknown { .. } = &outcome
        && let Ok(shown) = bmc.get(&path).await
        && wish.is_in(&shown)
    {
        return Ok(Outcome::Applied { handle: None });
    }
    Ok(outcome)
}

/// A target by the BMC's name for it, and what else is wanted.
struct Wish<'o> {
    name: String,
    order: &'o BootOrder,
}

impl Wish<'_> {
    fn enabled(&self) -> &'static str {
        match (self.order.target, self.order.continuous) {
            (BootTarget::None, _) => "Disabled",
            (_, true) => "Continuous",
            (_, false) => "Once",
        }
    }

    /// Bodies to send, one after the other while they are turned down.
    fn bodies(&self, quirks: &Quirks, resource: &Value) -> Vec<Value> {
        let minimal = json!({"BootSourceOverrideEnabled": self.enabled(),
                             "BootSourceOverrideTarget": self.name});
        // Some have the mode absent or null: then there is nothing to set or to repeat.
        let shown = json::text(resource, &["Boot", "BootSourceOverrideMode"]);
        let mode = match (self.order.mode, self.order.target) {
            (Some(BootMode::Uefi), _) | (None, BootTarget::UefiHttp) => Some("UEFI".to_string()),
            (Some(BootMode::Legacy), _) => Some("Legacy".to_string()),
            (None, _) => shown.clone(),
        };
        let full = mode.filter(|_| shown.is_some()).map(|mode| {
            let mut full = minimal.clone();
            full["BootSourceOverrideMode"] = Value::from(mode);
            full
        });
        match (full, quirks.boot.form) {
            (None, _) | (_, BootForm::NoMode) => vec![minimal],
            (Some(full), BootForm::Triple) => vec![full, minimal],
            // A mode that is asked for is not left out.
            (Some(full), BootForm::Minimal) if self.order.mode.is_some() => vec![full],
            (Some(full), BootForm::Minimal) => vec![minimal, full],
        }
    }

    fn is_in(&self, resource: &Value) -> bool {
        let shown = |key| json::text(resource, &["Boot", key]).unwrap_or_default();
        let enabled = shown("BootSourceOverrideEnabled");
        if self.order.target == BootTarget::None {
            return enabled.eq_ignore_ascii_case("Disabled")
                || shown("BootSourceOverrideTarget").eq_ignore_ascii_case("None");
        }
        // sushy-tools' fake keeps no Enabled: `Continuous` where `Once` was said. That boots from
        // it, too.
        shown("BootSourceOverrideTarget").eq_ignore_ascii_case(&self.name)
            && !enabled.eq_ignore_ascii_case("Disabled")
    }
}

/// The BMC's name of the target: the first of ours that it lists.
fn name(
    quirks: &Quirks,
    target: BootTarget,
    resource: &Value,
    system: &Value,
) -> Result<String, Fault> {
    let names = quirks.boot.names.get(&target).map_or(&[][..], Vec::as_slice);
    let allowed = allowed(resource).or_else(|| allowed(system));
    let found = match &allowed {
        None => names.first(),
        Some(list) => names.iter().find(|n| list.contains(n)),
    };
    if let Some(name) = found {
        return Ok(name.clone());
    }
    // "None" is left out of some lists, and always understood.
    if target == BootTarget::None {
        return Ok("None".into());
    }
    let wanted = names.first().map_or("that", String::as_str);
    Err(fault::unsupported(
        "boot-target-unsupported",
        format!(
            "the BMC cannot boot from {wanted}; it has {}",
            allowed.unwrap_or_default().join(", ")
        ),
    ))
}

fn allowed(v: &Value) -> Option<Vec<String>> {
    let list = json::texts(v, &["Boot", "BootSourceOverrideTarget@Redfish.AllowableValues"]);
    (!list.is_empty()).then_some(list)
}
