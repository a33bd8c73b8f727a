//! The computer system: identity, power, health, boot override (DSP0268 ComputerSystem).

use super::conn::Bmc;
use super::discover::Links;
use super::json;
use crate::model::facts::{Power, SystemFacts};
use crate::model::identity::{Match, clean_mac, clean_serial};
use crate::model::{Fault, FaultClass, Identity};
use serde_json::Value;
use std::sync::Arc;

/// Reads the system: one GET once its path is known, two where the boot override is kept apart.
pub(super) async fn read(bmc: &Bmc<'_>) -> Result<SystemFacts, Fault> {
    let (links, v) = fetch(bmc).await?;
    let mut facts = facts(&v, &bmc.target.identity, &links.macs, bmc.by_tag(&v));
    if let Some(path) = &links.boot_settings
        && is_off(&facts)
    {
        match bmc.get(path).await {
            Ok(pending) => {
                let (target, enabled) = boot(&pending);
                if enabled.as_deref().is_some_and(|e| !e.eq_ignore_ascii_case("disabled")) {
                    (facts.boot_target, facts.boot_enabled) = (target, enabled);
                }
            }
            Err(f) if f.class == FaultClass::Unsupported => {}
            // What the system itself says is not what counts: unread is not "no override".
            Err(f) => return Err(f),
        }
    }
    Ok(facts)
}

fn is_off(facts: &SystemFacts) -> bool {
    facts.boot_enabled.as_deref().is_none_or(|e| e.eq_ignore_ascii_case("disabled"))
}

/// The system's document, freshly read. A path that has gone is searched anew, once.
pub(super) async fn fetch(bmc: &Bmc<'_>) -> Result<(Arc<Links>, Value), Fault> {
    if let Some(links) = bmc.conn.links() {
        match bmc.get(&links.system).await {
            Ok(v) if stays(bmc, &v) => return Ok((links, v)),
            Ok(_) => {}
            Err(f) if f.class == FaultClass::Unsupported => {}
            Err(f) => {
                // Some say 500 of a system that is no more where it was: the next look asks the
                // collection.
                if f.class == FaultClass::Transient && !f.is_no_answer() {
                    bmc.conn.forget_links();
                }
                return Err(f);
            }
        }
        bmc.conn.forget_links();
    }
    bmc.find_system().await
}

/// A system that now proves to be another machine (learnt meanwhile which one is meant) is looked
/// for again.
fn stays(bmc: &Bmc<'_>, v: &Value) -> bool {
    let found = identity(v, &bmc.target.identity, bmc.by_tag(v));
    !matches!(bmc.target.identity.compare(&found), Match::Differs { part: "serial" | "uuid", .. })
}

/// Serial and UUID as the BMC gives them.
///
/// Where `by_tag` (Dell), `SerialNumber` is the board's; what is on the label and in DMI is the
/// service tag, which Redfish has as `SKU`. Where the inventory names either, that one is meant.
pub(super) fn identity(v: &Value, wanted: &Identity, by_tag: bool) -> Identity {
    let number = json::text(v, &["SerialNumber"]);
    let tag = json::text(v, &["SKU"]).filter(|sku| {
        by_tag && (5..=7).contains(&sku.len()) && sku.bytes().all(|b| b.is_ascii_alphanumeric())
    });
    let named = number.as_deref().and_then(clean_serial);
    let serial = match (&wanted.serial, &named, &tag) {
        (Some(w), Some(n), _) if **w == **n => number,
        (_, _, Some(_)) => tag,
        _ => number,
    };
    Identity::new(serial.as_deref(), json::text(v, &["UUID"]).as_deref(), None)
}

/// The MAC to report: the expected one where the BMC lists it; the only one; else none, because a
/// BMC that lists some ports says nothing about another one, and "which boots" is not in the list.
/// Where nothing else tells the machine apart, the first is better than none.
fn mac(wanted: &Identity, found: &Identity, macs: &[String]) -> Option<String> {
    match (&wanted.mac, macs) {
        (Some(w), all) if all.iter().any(|mac| **mac == **w) => Some(w.to_string()),
        (None, [only]) => Some(only.clone()),
        (_, [first, ..]) if found.serial.is_none() && found.uuid.is_none() => Some(first.clone()),
        _ => None,
    }
}

/// All of [`SystemFacts`] but a pending override.
pub(super) fn facts(v: &Value, wanted: &Identity, macs: &[String], by_tag: bool) -> SystemFacts {
    let mut found = identity(v, wanted, by_tag);
    found.mac = mac(wanted, &found, macs)
        // Few systems name their boot MAC themselves.
        .or_else(|| clean_mac(&json::text(v, &["Oem", "BootMacAddress"])?))
        .map(Into::into);
    let (boot_target, boot_enabled) = boot(v);
    SystemFacts {
        identity: found,
        manufacturer: json::text(v, &["Manufacturer"]),
        model: json::text(v, &["Model"]),
        power: power(v),
        health: json::text(v, &["Status", "HealthRollup"])
            .or_else(|| json::text(v, &["Status", "Health"])),
        boot_target,
        boot_enabled,
        // A clock that never ran ("0000-…" on iDRAC9, 1970 on HGX) would read as "no reset since".
        last_reset: json::text(v, &["LastResetTime"])
            .filter(|t| !t.starts_with("0000") && !t.starts_with("1970")),
        bios_version: json::text(v, &["BiosVersion"]),
        over_ipmi: false,
    }
}

pub(super) fn power(v: &Value) -> Power {
    match json::text(v, &["PowerState"]).unwrap_or_default().to_ascii_lowercase().as_str() {
        "on" => Power::On,
        "off" => Power::Off,
        "poweringon" => Power::PoweringOn,
        "poweringoff" => Power::PoweringOff,
        _ => Power::Unknown,
    }
}

fn boot(v: &Value) -> (Option<String>, Option<String>) {
    (
        json::text(v, &["Boot", "BootSourceOverrideTarget"]),
        json::text(v, &["Boot", "BootSourceOverrideEnabled"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_service_tag_is_a_dells_serial_unless_the_board_is_named() {
        let v = json!({"Manufacturer": "Dell Inc.", "SerialNumber": "MXFC40025U031S", "SKU": "CLLV0R3"});
        let nobody = Identity::default();
        assert_eq!(identity(&v, &nobody, true).serial.as_deref(), Some("CLLV0R3"));
        let board = Identity::new(Some("MXFC40025U031S"), None, None);
        assert_eq!(identity(&v, &board, true).serial.as_deref(), Some("MXFC40025U031S"));
        let v = json!({"Manufacturer": "HPE", "SerialNumber": "S1", "SKU": "P12345"});
        assert_eq!(identity(&v, &nobody, false).serial.as_deref(), Some("S1"));
    }

    #[test]
    fn a_mac_is_reported_only_where_it_means_something() {
        let macs = ["00:00:5e:00:53:01".to_string(), "00:00:5e:00:53:02".to_string()];
        let known = Identity::new(Some("S1"), None, None);
        let nobody = Identity::default();
        let second = Identity::new(None, None, Some("00:00:5e:00:53:02"));
        let third = Identity::new(None, None, Some("00:00:5e:00:53:03"));
        assert_eq!(mac(&second, &known, &macs).as_deref(), Some("00:00:5e:00:53:02"));
        assert_eq!(mac(&third, &known, &macs), None);
        assert_eq!(mac(&nobody, &known, &macs), None);
        assert_eq!(mac(&nobody, &known, &macs[..1]).as_deref(), Some("00:00:5e:00:53:01"));
        assert_eq!(mac(&third, &nobody, &macs).as_deref(), Some("00:00:5e:00:53:01"));
    }

    #[test]
    fn clocks_that_never_ran_are_unknown() {
        let at = |t: &str| {
            facts(&json!({"LastResetTime": t}), &Identity::default(), &[], false).last_reset
        };
        assert_eq!(at("0000-00-00T00:00:00+00:00"), None);
        assert_eq!(at("1970-01-01T00:00:00+00:00"), None);
        assert!(at("2024-07-02T02:40:43+00:00").is_some());
    }

    #[test]
    fn wrong_types_are_unknown() {
        let v =
            json!({"PowerState": 1, "Boot": [], "Status": "OK", "UUID": {}, "SerialNumber": null});
        let f = facts(&v, &Identity::default(), &[], false);
        assert_eq!(f, SystemFacts::default());
    }
}
