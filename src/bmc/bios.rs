//! BIOS attributes: those in force, those that wait for the next POST, and a change that waits there
//! too (DSP0268 Bios, DSP0266 §"Settings resource"). Where the pending ones are is the BMC's own link:
//! `Settings`, `Pending` and `SD` all exist, and iLO's differs in case and slash (field notes §1.3).

use super::conn::Bmc;
use super::guard::{self, Stop};
use super::{fault, json, patch, system, task};
use crate::model::action::Expect;
use crate::model::hardware::BiosFacts;
use crate::model::{Fault, FaultClass, Outcome};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) async fn read(bmc: &Bmc<'_>) -> Result<BiosFacts, Fault> {
    let (_, v) = system::fetch(bmc).await?;
    let bios = bios(bmc, &v).await?;
    let settings = match settings_link(&bios) {
        Some(link) => super::around::maybe(bmc, &link).await?,
        None => None,
    };
    Ok(facts(&bios, settings.as_ref()))
}

/// As a step needs it: without attributes there is nothing to compare with.
pub(super) async fn read_for_step(bmc: &Bmc<'_>) -> Result<BiosFacts, Fault> {
    let facts = read(bmc).await?;
    if facts.attributes.is_empty() {
        let why = "the BMC shows no BIOS attributes now";
        return Err(fault::new(FaultClass::Transient, "no-bios-attributes", why)
            .hint("some know them only once the host has been through a POST"));
    }
    Ok(facts)
}

async fn bios(bmc: &Bmc<'_>, system: &Value) -> Result<Value, Fault> {
    let link = json::link(system, &["Bios"])
        .ok_or_else(|| fault::unsupported("no-bios", "the BMC shows no BIOS settings"))?;
    bmc.get(&link).await
}

fn settings_link(bios: &Value) -> Option<String> {
    json::link(bios, &["@Redfish.Settings", "SettingsObject"])
}

fn attributes(v: &Value) -> Option<&Map<String, Value>> {
    json::at(v, &["Attributes"]).and_then(Value::as_object)
}

fn facts(bios: &Value, settings: Option<&Value>) -> BiosFacts {
    // An attribute is text, a number or true/false; anything else is nothing to go by.
    let plain = |v: &Value| matches!(v, Value::String(_) | Value::Number(_) | Value::Bool(_));
    let all = |m: Option<&Map<String, Value>>| -> BTreeMap<String, Value> {
        let good = m.into_iter().flatten().filter(|(_, v)| plain(v));
        good.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let in_force = all(attributes(bios));
    let mut pending = all(settings.and_then(attributes));
    pending.retain(|k, v| in_force.get(k) != Some(v));
    BiosFacts { attributes: in_force, pending, registry: json::text(bios, &["AttributeRegistry"]) }
}

pub(super) async fn set(
    bmc: &Bmc<'_>,
    expect: &Expect,
    wanted: &BTreeMap<String, Value>,
) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let (_, system) = guard::check(bmc, expect).await?;
    leave(bmc, &system, wanted).await
}

/// Leaves attributes for the next POST of a system that was just proven to be the one; the caller has
/// the BMC's one write.
pub(super) async fn leave(
    bmc: &Bmc<'_>,
    system: &Value,
    wanted: &BTreeMap<String, Value>,
) -> Result<Outcome, Stop> {
    let quirks = bmc.quirks_of(system).await?;
    let now = bios(bmc, system).await?;
    // Without a settings object the resource itself takes the change (DSP0266).
    let path = match settings_link(&now).or_else(|| json::link(system, &["Bios"])) {
        Some(path) => path,
        None => return Err(fault::unsupported("no-bios", "no place for BIOS settings").into()),
    };
    let read = patch::read(bmc, &path).await?;
    let before = facts(&now, Some(&read.document));
    if let Some(fault) = wrong(&before, wanted) {
        return Ok(Outcome::Failed { fault });
    }
    if let Some(fault) = read_only(bmc, &before, wanted).await? {
        return Ok(Outcome::Failed { fault });
    }
    let left: BTreeMap<&String, &Value> =
        wanted.iter().filter(|(k, v)| before.planned(k) != Some(*v)).collect();
    if left.is_empty() {
        return Ok(Outcome::Applied { handle: None });
    }
    let minimal = json!({ "Attributes": left });
    let mut bodies = vec![minimal.clone()];
    // iDRAC makes the job that applies them only where it is told when.
    let times = json::texts(&now, &["@Redfish.Settings", "SupportedApplyTimes"]);
    if times.iter().any(|t| t == "OnReset") {
        let mut full = minimal;
        full["@Redfish.SettingsApplyTime"] = json!({
            "@odata.type": "#Settings.v1_1_0.PreferredApplyTime", "ApplyTime": "OnReset"});
        bodies.insert(0, full);
    }
    let mut handle = None;
    for (n, body) in bodies.iter().enumerate() {
        match patch::patch(bmc, &read, body).await? {
            Ok(answer) => {
                handle = (answer.status == 202 || answer.location.is_some())
                    .then(|| task::handle(bmc, &answer))
                    .flatten();
                break;
            }
            // Turned down, so nothing was done: without the apply time.
            Err(Outcome::Failed { fault }) if fault.code == "rejected" && n + 1 < bodies.len() => {}
            // HPE takes no change while the host is in POST.
            Err(Outcome::Failed { fault }) if fault.code == "conflict" => {
                let fault = fault::later(fault, quirks.reset.conflict_retry_s);
                return Ok(Outcome::Failed { fault });
            }
            Err(outcome) => return Ok(outcome),
        }
    }
    let after = facts(&bios(bmc, system).await?, Some(&bmc.get(&path).await?));
    let missing: Vec<&str> = left
        .iter()
        .filter(|(k, v)| after.planned(k) != Some(**v))
        .map(|(k, _)| k.as_str())
        .collect();
    Ok(if missing.is_empty() {
        Outcome::Applied { handle }
    } else {
        let f = Fault::new(
            FaultClass::OutcomeUnknown,
            crate::model::Channel::Bmc,
            "bios-not-shown",
            format!("the BMC took the settings and does not show {}", missing.join(", ")),
        );
        Outcome::Unknown { fault: f.hint("some show them only after the next POST") }
    })
}

/// Asked for what this BIOS does not have, or with another kind of value than it has.
fn wrong(now: &BiosFacts, wanted: &BTreeMap<String, Value>) -> Option<Fault> {
    if now.attributes.is_empty() {
        // Nothing to compare with: the BMC will say.
        return None;
    }
    let unknown: Vec<&str> =
        wanted.keys().filter(|k| now.planned(k).is_none()).map(String::as_str).collect();
    if !unknown.is_empty() {
        return Some(
            fault::precondition(
                "unknown-bios-attribute",
                format!("this BIOS has no {}", unknown.join(", ")),
            )
            .hint("names are exact and differ between vendors: `farrier bmc bios` lists them"),
        );
    }
    wanted.iter().find_map(|(k, v)| {
        let has = now.planned(k)?;
        let (has, given) = (json::kind(has), json::kind(v));
        (has != given).then(|| {
            fault::precondition("bios-value-kind", format!("`{k}` is {has}, and {given} was given"))
        })
    })
}

/// What the attribute registry says that nobody can change. Without a registry the BMC will say so when
/// it is asked.
async fn read_only(
    bmc: &Bmc<'_>,
    before: &BiosFacts,
    wanted: &BTreeMap<String, Value>,
) -> Result<Option<Fault>, Fault> {
    let differs = |k: &&String| before.planned(k) != wanted.get(*k);
    let names: Vec<&String> = wanted.keys().filter(differs).collect();
    let (Some(id), false) = (&before.registry, names.is_empty()) else { return Ok(None) };
    let Some(registry) = registry(bmc, id).await? else { return Ok(None) };
    let fixed = locked(&registry, &names);
    Ok((!fixed.is_empty()).then(|| {
        fault::precondition(
            "read-only-bios-attribute",
            format!("this BIOS does not let {} be changed", fixed.join(", ")),
        )
        .hint("another attribute may lock it, or it is a fact and no setting")
    }))
}

/// The names among `names` that the registry calls read-only.
fn locked<'n>(registry: &Value, names: &[&'n String]) -> Vec<&'n str> {
    let entries = json::list(registry, &["RegistryEntries", "Attributes"]);
    let is_locked = |name: &str| {
        entries.iter().any(|e| {
            json::at(e, &["ReadOnly"]).and_then(Value::as_bool) == Some(true)
                && json::text(e, &["AttributeName"]).as_deref() == Some(name)
        })
    };
    names.iter().map(|n| n.as_str()).filter(|n| is_locked(n)).collect()
}

/// The attribute registry's own document (DSP0268 MessageRegistryFile, AttributeRegistry).
async fn registry(bmc: &Bmc<'_>, id: &str) -> Result<Option<Value>, Fault> {
    let root = super::around::maybe(bmc, "/redfish/v1/").await?.unwrap_or_default();
    let Some(all) = json::link(&root, &["Registries"]) else { return Ok(None) };
    let path = format!("{}/{id}", all.trim_end_matches('/'));
    let Some(file) = super::around::maybe(bmc, &path).await? else { return Ok(None) };
    let places = json::list(&file, &["Location"]);
    let Some(uri) = places.iter().find_map(|l| json::text(l, &["Uri"])) else { return Ok(None) };
    super::around::maybe(bmc, &uri).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_is_what_differs() {
        let bios = json!({"Attributes": {"A": "on", "B": 1, "C": null, "D": ["x"]},
                          "AttributeRegistry": "R"});
        let f = facts(&bios, Some(&json!({"Attributes": {"A": "on", "B": 2, "E": true}})));
        assert_eq!(f.attributes.len(), 2);
        assert_eq!(f.pending, BTreeMap::from([("B".into(), json!(2)), ("E".into(), json!(true))]));
        assert_eq!(facts(&json!({"Attributes": []}), Some(&json!(null))), BiosFacts::default());
    }

    #[test]
    fn the_registry_says_what_is_locked() {
        let registry = json!({"RegistryEntries": {"Attributes": [
            {"AttributeName": "A", "ReadOnly": true}, {"AttributeName": "B", "ReadOnly": false},
            {"AttributeName": "C"}, 7]}});
        let names = ["A", "B", "C", "D"].map(String::from);
        assert_eq!(locked(&registry, &names.each_ref()), ["A"]);
        assert!(locked(&json!([]), &names.each_ref()).is_empty());
    }

    #[test]
    fn a_name_or_a_kind_that_the_bios_lacks_is_refused_before_it_is_sent() {
        let now = facts(&json!({"Attributes": {"A": "on", "B": 1}}), None);
        let ask = |k: &str, v: Value| wrong(&now, &BTreeMap::from([(k.to_string(), v)]));
        assert_eq!(ask("X", json!("on")).map(|f| f.code), Some("unknown-bios-attribute".into()));
        assert_eq!(ask("B", json!("1")).map(|f| f.code), Some("bios-value-kind".into()));
        assert_eq!(ask("A", json!("off")), None);
    }
}
