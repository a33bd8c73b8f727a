//! UEFI Secure Boot (DSP0268 SecureBoot).

use super::conn::Bmc;
use super::guard::{self, Stop};
use super::{fault, json, patch, system};
use crate::model::action::Expect;
use crate::model::hardware::SecureBootFacts;
use crate::model::{Fault, FaultClass, Outcome};
use serde_json::{Value, json};

pub(super) async fn read(bmc: &Bmc<'_>) -> Result<SecureBootFacts, Fault> {
    let (_, v) = system::fetch(bmc).await?;
    Ok(facts(&bmc.get(&link(&v)?).await?))
}

fn link(system: &Value) -> Result<String, Fault> {
    json::link(system, &["SecureBoot"])
        .ok_or_else(|| fault::unsupported("no-secure-boot", "the BMC shows no Secure Boot"))
}

fn facts(v: &Value) -> SecureBootFacts {
    let in_force = json::text(v, &["SecureBootCurrentBoot"]);
    SecureBootFacts {
        enabled: json::at(v, &["SecureBootEnable"]).and_then(Value::as_bool),
        in_force: in_force.and_then(|s| match s.to_ascii_lowercase().as_str() {
            "enabled" => Some(true),
            "disabled" => Some(false),
            _ => None,
        }),
        mode: json::text(v, &["SecureBootMode"]),
    }
}

pub(super) async fn set(bmc: &Bmc<'_>, expect: &Expect, on: bool) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let (_, system) = guard::check(bmc, expect).await?;
    let path = link(&system)?;
    let read = patch::read(bmc, &path).await?;
    let now = facts(&read.document);
    if now.enabled == Some(on) {
        return Ok(Outcome::Applied { handle: None });
    }
    if on && now.mode.as_deref() == Some("SetupMode") {
        let f = fault::precondition(
            "secure-boot-setup-mode",
            "no keys are installed, and Secure Boot can be enabled in UserMode only",
        );
        return Ok(Outcome::Failed { fault: f.hint("reset the keys to their defaults first") });
    }
    if let Err(outcome) = patch::patch(bmc, &read, &json!({ "SecureBootEnable": on })).await? {
        return Ok(outcome);
    }
    if facts(&bmc.get(&path).await?).enabled == Some(on) {
        return Ok(Outcome::Applied { handle: None });
    }
    let f = Fault::new(
        FaultClass::OutcomeUnknown,
        crate::model::Channel::Bmc,
        "secure-boot-not-shown",
        "the BMC took the change of Secure Boot and does not show it",
    );
    Ok(Outcome::Unknown { fault: f.hint("some show it only after the next POST") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_and_in_force_are_two_things() {
        let v = json!({"SecureBootEnable": true, "SecureBootCurrentBoot": "Disabled",
                       "SecureBootMode": "UserMode"});
        let f = facts(&v);
        assert_eq!(
            (f.enabled, f.in_force, f.mode.as_deref()),
            (Some(true), Some(false), Some("UserMode"))
        );
        assert_eq!(facts(&json!({"SecureBootEnable": "yes"})), SecureBootFacts::default());
    }
}
