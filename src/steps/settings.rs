//! What a profile asks of the BIOS, as data: attributes by model and BIOS version, the boot mode,
//! Secure Boot.

use super::version::Range;
use crate::model::facts::SystemFacts;
use crate::model::hardware::{BiosFacts, BootMode};
use crate::model::{Channel, Fault, FaultClass};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// In file order: what a later rule says of an attribute counts, so the special comes after the
    /// general.
    pub rules: Vec<Rule>,
    pub boot_mode: Option<BootMode>,
    pub secure_boot: Option<bool>,
}

/// Attributes of the machines that it fits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// `Model` as the BMC says it, or how it begins with a `*` at the end.
    pub model: String,
    /// BIOS versions; names and values of attributes change between them.
    pub bios: Range,
    pub attributes: BTreeMap<String, Value>,
}

impl Rule {
    fn is_for(&self, model: &str) -> bool {
        let model = model.trim();
        match self.model.strip_suffix('*') {
            Some(start) => model.get(..start.len()).is_some_and(|m| m.eq_ignore_ascii_case(start)),
            None => model.eq_ignore_ascii_case(&self.model),
        }
    }
}

impl Settings {
    pub fn asks_nothing(&self) -> bool {
        self.rules.is_empty() && self.boot_mode.is_none() && self.secure_boot.is_none()
    }

    /// Does it ask for BIOS attributes, of whatever machine?
    pub fn asks_attributes(&self) -> bool {
        !self.rules.is_empty() || self.boot_mode.is_some()
    }

    /// Of the thousand attributes that a BIOS may have, those that a decision looks at; what waits for
    /// the next POST is kept whole, because a reboot of ours applies it too.
    pub fn keep(&self, mut facts: BiosFacts) -> BiosFacts {
        let named = self.rules.iter().flat_map(|r| r.attributes.keys().map(String::as_str));
        let names: BTreeSet<&str> = named.chain(SPELT.iter().map(|s| s.attribute)).collect();
        facts.attributes.retain(|name, _| names.contains(&**name));
        facts
    }

    /// The attributes that a machine is to have.
    ///
    /// # Errors
    /// A rule fits its model, and its BIOS version is not known or can't be compared; or the BIOS shows
    /// no boot mode, or two things are asked of it.
    pub fn wanted(
        &self,
        system: &SystemFacts,
        bios: &BiosFacts,
    ) -> Result<BTreeMap<String, Value>, Fault> {
        let mut out = BTreeMap::new();
        for rule in self.fitting(system)? {
            out.extend(rule.attributes.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        if let Some(mode) = self.boot_mode {
            let (name, value) = boot_mode(system, bios, mode)?;
            if let Some(other) = out.get(&name).filter(|v| **v != value) {
                return Err(precondition(
                    "bios-asked-twice",
                    format!(
                        "`boot_mode = \"{}\"` means `{name}` = {}, and a rule of the profile says {}",
                        mode.name(),
                        shown(&value),
                        shown(other)
                    ),
                )
                .hint("drop one of them from the profile"));
            }
            out.insert(name, value);
        }
        Ok(out)
    }

    fn fitting(&self, system: &SystemFacts) -> Result<Vec<&Rule>, Fault> {
        let model = system.model.as_deref().unwrap_or("");
        let version = system.bios_version.as_deref().unwrap_or("").trim();
        let mut out = Vec::new();
        for rule in self.rules.iter().filter(|r| r.is_for(model)) {
            match rule.bios.holds(version) {
                Some(true) => out.push(rule),
                Some(false) => {}
                None if version.is_empty() => {
                    return Err(Fault::new(
                        FaultClass::Transient,
                        Channel::Bmc,
                        "bios-version-unknown",
                        format!("the BMC names no BIOS version to hold against `{}`", rule.bios),
                    )
                    .hint("some know it only once the host has been through a POST"));
                }
                None => {
                    return Err(precondition(
                        "bios-version-strange",
                        format!("BIOS version `{version}` can't be compared with `{}`", rule.bios),
                    )
                    .hint("write the bounds as this BMC spells its BIOS version"));
                }
            }
        }
        Ok(out)
    }
}

fn precondition(code: &'static str, message: String) -> Fault {
    Fault::new(FaultClass::Precondition, Channel::Bmc, code, message)
}

/// A value as people write it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// How a BIOS spells its boot mode.
struct Spelt {
    attribute: &'static str,
    /// How `Manufacturer` begins; empty: whoever has the attribute.
    maker: &'static str,
    uefi: &'static str,
    legacy: &'static str,
}

/// Vendors' attribute registries: Dell iDRAC9, HPE iLO 5, Supermicro X12, Lenovo XCC.
const SPELT: [Spelt; 4] = [
    Spelt { attribute: "BootMode", maker: "Dell", uefi: "Uefi", legacy: "Bios" },
    Spelt { attribute: "BootMode", maker: "", uefi: "Uefi", legacy: "LegacyBios" },
    Spelt { attribute: "BootModeSelect", maker: "", uefi: "UEFI", legacy: "Legacy" },
    Spelt {
        attribute: "BootModes_SystemBootMode",
        maker: "",
        uefi: "UEFIMode",
        legacy: "LegacyMode",
    },
];

fn boot_mode(
    system: &SystemFacts,
    bios: &BiosFacts,
    mode: BootMode,
) -> Result<(String, Value), Fault> {
    let maker = system.manufacturer.as_deref().unwrap_or("");
    let fits = |s: &&Spelt| {
        bios.planned(s.attribute).is_some()
            && maker.get(..s.maker.len()).is_some_and(|m| m.eq_ignore_ascii_case(s.maker))
    };
    let Some(spelt) = SPELT.iter().find(fits) else {
        return Err(precondition(
            "boot-mode-unknown",
            "this BIOS has no boot mode that Farrier knows".into(),
        )
        .hint("give its own attribute in `[[profile.bios]]` instead of `boot_mode`"));
    };
    let word = match mode {
        BootMode::Uefi => spelt.uefi,
        BootMode::Legacy => spelt.legacy,
    };
    // Its own spelling of the same word.
    let now = bios.attributes.get(spelt.attribute);
    let same = now.filter(|v| v.as_str().is_some_and(|v| v.eq_ignore_ascii_case(word)));
    Ok((spelt.attribute.into(), same.cloned().unwrap_or_else(|| word.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn system(model: &str, bios: Option<&str>) -> SystemFacts {
        SystemFacts {
            manufacturer: Some("Dell Inc.".into()),
            model: Some(model.into()),
            bios_version: bios.map(Into::into),
            ..SystemFacts::default()
        }
    }

    fn rule(model: &str, bios: &str, attributes: &[(&str, Value)]) -> Rule {
        Rule {
            model: model.into(),
            bios: if bios.is_empty() { Range::default() } else { bios.parse().unwrap() },
            attributes: attributes.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
        }
    }

    #[test]
    fn a_later_rule_that_fits_counts() {
        let settings = Settings {
            rules: vec![
                rule("PowerEdge*", "", &[("A", json!("1")), ("B", json!(true))]),
                rule("poweredge R750", ">=1.5, <2", &[("A", json!("2"))]),
            ],
            ..Settings::default()
        };
        let wanted = |model, bios| settings.wanted(&system(model, bios), &BiosFacts::default());
        assert_eq!(wanted("PowerEdge R750", Some("1.8.2")).unwrap()["A"], "2");
        assert_eq!(wanted("PowerEdge R750", Some("2.0")).unwrap()["A"], "1");
        assert_eq!(wanted("PowerEdge R760", None).unwrap()["B"], true);
        assert!(wanted("SYS-821GE", None).unwrap().is_empty());
        assert_eq!(wanted("PowerEdge R750", None).unwrap_err().code, "bios-version-unknown");
        let strange = wanted("PowerEdge R750", Some("U54 v1.8")).unwrap_err();
        assert_eq!(
            (strange.class, &*strange.code),
            (FaultClass::Precondition, "bios-version-strange")
        );
    }

    #[test]
    fn a_boot_mode_is_asked_in_the_words_of_the_bios() {
        let ask = |maker: &str, attribute: &str, now: &str, mode| {
            let system = SystemFacts { manufacturer: Some(maker.into()), ..SystemFacts::default() };
            let bios = BiosFacts {
                attributes: BTreeMap::from([(attribute.to_string(), json!(now))]),
                ..BiosFacts::default()
            };
            let settings = Settings { boot_mode: Some(mode), ..Settings::default() };
            settings.wanted(&system, &bios).map(|w| w[attribute].clone())
        };
        use BootMode::{Legacy, Uefi};
        assert_eq!(ask("Dell Inc.", "BootMode", "Uefi", Legacy).unwrap(), "Bios");
        assert_eq!(ask("HPE", "BootMode", "Uefi", Legacy).unwrap(), "LegacyBios");
        assert_eq!(ask("Supermicro", "BootModeSelect", "Dual", Uefi).unwrap(), "UEFI");
        assert_eq!(
            ask("Lenovo", "BootModes_SystemBootMode", "UEFIMODE", Uefi).unwrap(),
            "UEFIMODE"
        );
        assert_eq!(ask("Acme", "Firmware", "x", Uefi).unwrap_err().code, "boot-mode-unknown");
        let twice = Settings {
            boot_mode: Some(Uefi),
            rules: vec![rule("*", "", &[("BootMode", json!("Bios"))])],
            ..Settings::default()
        };
        let bios = BiosFacts {
            attributes: BTreeMap::from([("BootMode".to_string(), json!("Bios"))]),
            ..BiosFacts::default()
        };
        let fault = twice.wanted(&system("R", None), &bios).unwrap_err();
        assert_eq!(fault.code, "bios-asked-twice");
    }
}
