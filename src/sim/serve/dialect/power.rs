//! Boot overrides and resets as vendors take them (field notes §1.3, §4, R11).

use super::say;
use crate::model::EngineTime;
use crate::sim::physics::{HostState, PowerState};
use crate::sim::rng::Rng;
use crate::sim::serve::profile::{Listed, Mode, Profile, Said};
use crate::sim::serve::seat::Seat;
use serde_json::{Value, json};

/// The ActionInfo of a reset, beside the resource that has the action.
pub(super) const ACTION_INFO: &str = "ResetActionInfo";

/// What becomes of a write.
#[derive(Debug)]
pub(super) enum Fate {
    /// It goes to the clean tree with this body.
    Pass(Value),
    Refused(Said),
    /// Taken, and nothing is done.
    Done,
}

fn not_in_list(value: &str, property: &str) -> Fate {
    let mut said = say::base(400, "PropertyValueNotInList", "The value is not in the list.");
    said.args = vec![value.to_string(), property.to_string()];
    Fate::Refused(said)
}

/// A PATCH of `Boot`.
pub(super) fn set_boot(seat: &Seat, now: EngineTime, body: &Value) -> Fate {
    let boot = &seat.profile.boot;
    let wanted = &body["Boot"];
    let text = |key: &str| wanted[key].as_str();
    let (enabled, target) = (text("BootSourceOverrideEnabled"), text("BootSourceOverrideTarget"));
    let has_mode = wanted.get("BootSourceOverrideMode").is_some();
    if let Some(said) = &boot.in_post
        && seat.with(now, |b| b.vm.host == HostState::Post)
    {
        return Fate::Refused(said.clone());
    }
    match boot.mode {
        Mode::Refused if has_mode => {
            let mut said = say::base(400, "PropertyNotWritable", "The property is read only.");
            said.args = vec!["BootSourceOverrideMode".into()];
            return Fate::Refused(said);
        }
        Mode::Absent if has_mode => {
            let mut said = say::base(400, "PropertyUnknown", "The property is not known.");
            said.args = vec!["BootSourceOverrideMode".into()];
            return Fate::Refused(said);
        }
        _ => {}
    }
    let allows = |list: &[String], value: Option<&str>| {
        list.is_empty() || value.is_none_or(|v| list.iter().any(|l| l == v))
    };
    if !allows(&boot.enabled, enabled) {
        return not_in_list(enabled.unwrap_or_default(), "BootSourceOverrideEnabled");
    }
    if !allows(&boot.targets, target) {
        return not_in_list(target.unwrap_or_default(), "BootSourceOverrideTarget");
    }
    if boot.needs_triple && !(enabled.is_some() && target.is_some() && has_mode) {
        return Fate::Pass(json!({"Boot": {
            "BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None",
        }}));
    }
    Fate::Pass(body.clone())
}

/// A reset of the host.
pub(super) fn reset(seat: &Seat, now: EngineTime, seed: u64, body: &Value) -> Fate {
    let rules = &seat.profile.reset;
    let Some(kind) = body["ResetType"].as_str() else { return Fate::Pass(body.clone()) };
    if !rules.types.is_empty() && !rules.types.iter().any(|t| t == kind) {
        let mut said =
            say::base(400, "ActionParameterValueNotInList", "The value is not in the list.");
        said.args = vec![kind.to_string(), "ResetType".into(), "ComputerSystem.Reset".into()];
        return Fate::Refused(said);
    }
    let (power, changed) = seat.with(now, |b| (b.vm.power, b.power_changed));
    if let (Some(window), Some((count, at))) = (&rules.settles, changed) {
        let stream = u64::from(u32::from(seat.address)) << 32 | count & 0xffff_ffff;
        let (from, to) = window.for_ms;
        if now.since(at) < Rng::stream(seed ^ 0x5e77, stream).between(from, to) {
            return Fate::Refused(window.say.clone());
        }
    }
    let on = matches!(power, PowerState::On | PowerState::TurningOn);
    let kind = match kind {
        "ForceOn" => "On",
        "PowerCycle" | "GracefulRestart" => "ForceRestart",
        "PushPowerButton" if on => "GracefulShutdown",
        "PushPowerButton" => "On",
        "Nmi" => return Fate::Done,
        other => other,
    };
    let already = (kind == "On" && on) || (kind == "ForceOff" && !on);
    if let (true, Some(said)) = (already, &rules.already) {
        return Fate::Refused(said.clone());
    }
    let needs_on = matches!(kind, "GracefulShutdown" | "ForceRestart");
    if let (true, Some(said)) = (needs_on && power != PowerState::On, &rules.wrong_state) {
        return Fate::Refused(said.clone());
    }
    Fate::Pass(json!({ "ResetType": kind }))
}

/// A reset of the BMC.
pub(super) fn reset_bmc(profile: &Profile, body: &Value) -> Fate {
    let types = &profile.reset.bmc_types;
    match body["ResetType"].as_str() {
        Some(kind) if !types.is_empty() && !types.iter().any(|t| t == kind) => {
            let mut said =
                say::base(400, "ActionParameterValueNotInList", "The value is not in the list.");
            said.args = vec![kind.to_string(), "ResetType".into(), "Manager.Reset".into()];
            Fate::Refused(said)
        }
        _ => Fate::Pass(body.clone()),
    }
}

/// Shows the boot override and the reset as this vendor does.
pub(super) fn show(profile: &Profile, path: &[String], body: &mut Value) {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["Systems", "1"] => {
            show_boot(profile, body);
            if let Some(maker) = &profile.maker
                && let Some(shown) = body.get_mut("Manufacturer")
            {
                *shown = maker.as_str().into();
            }
            let rules = &profile.reset;
            list(body, "/Actions/#ComputerSystem.Reset", "Systems/1", &rules.types, rules.listed);
        }
        ["Managers", "1"] => {
            let rules = &profile.reset;
            list(body, "/Actions/#Manager.Reset", "Managers/1", &rules.bmc_types, rules.bmc_listed);
        }
        _ => {}
    }
}

fn show_boot(profile: &Profile, body: &mut Value) {
    let rules = &profile.boot;
    if let Some(settings) = &rules.settings {
        body["@Redfish.Settings"] = json!({
            "@odata.type": "#Settings.v1_3_5.Settings",
            "SettingsObject": {"@odata.id": format!("/redfish/v1/Systems/1/{settings}")},
        });
    }
    let Some(boot) = body.get_mut("Boot").and_then(Value::as_object_mut) else { return };
    match rules.mode {
        Mode::Writable | Mode::Refused => {}
        Mode::Absent => {
            boot.remove("BootSourceOverrideMode");
        }
        Mode::Null => {
            boot.insert("BootSourceOverrideMode".into(), Value::Null);
        }
    }
    let allowable = |name: &str| format!("{name}@Redfish.AllowableValues");
    if !rules.targets.is_empty() {
        boot.insert(allowable("BootSourceOverrideTarget"), json!(rules.targets));
    }
    if rules.enabled_unlisted {
        boot.remove(&allowable("BootSourceOverrideEnabled"));
    } else if !rules.enabled.is_empty() {
        boot.insert(allowable("BootSourceOverrideEnabled"), json!(rules.enabled));
    }
}

fn list(body: &mut Value, action: &str, owner: &str, types: &[String], listed: Listed) {
    let Some(action) = body.pointer_mut(action).and_then(Value::as_object_mut) else { return };
    let inline = "ResetType@Redfish.AllowableValues";
    if !types.is_empty() {
        action.insert(inline.into(), json!(types));
    }
    if matches!(listed, Listed::ActionInfo | Listed::Nowhere) {
        action.remove(inline);
    }
    if matches!(listed, Listed::ActionInfo | Listed::Both) {
        let info = format!("/redfish/v1/{owner}/{ACTION_INFO}");
        action.insert("@Redfish.ActionInfo".into(), info.into());
    }
}

/// The ActionInfo at `path`, where this vendor has one.
pub(super) fn action_info(profile: &Profile, path: &[String]) -> Option<Value> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let rules = &profile.reset;
    let (types, listed) = match path.as_slice() {
        ["Systems", "1", ACTION_INFO] => (&rules.types, rules.listed),
        ["Managers", "1", ACTION_INFO] => (&rules.bmc_types, rules.bmc_listed),
        _ => return None,
    };
    matches!(listed, Listed::ActionInfo | Listed::Both).then(|| {
        json!({
            "@odata.id": format!("/redfish/v1/{}", path.join("/")),
            "@odata.type": "#ActionInfo.v1_4_2.ActionInfo",
            "Id": ACTION_INFO, "Name": "Reset Action Info",
            "Parameters": [{
                "Name": "ResetType", "Required": true, "DataType": "String",
                "AllowableValues": types,
            }],
        })
    })
}

/// The settings object that takes the override, made from the system as shown.
pub(super) fn settings_object(name: &str, system: &Value) -> Value {
    let mut boot = system["Boot"].clone();
    if let Some(boot) = boot.as_object_mut() {
        boot.retain(|key, _| key.starts_with("BootSourceOverride"));
    }
    json!({
        "@odata.id": format!("/redfish/v1/Systems/1/{name}"),
        "@odata.type": system["@odata.type"], "Id": name, "Name": "Pending settings",
        "Boot": boot,
    })
}
