//! Rules by vendor, model and BMC firmware, and what comes out of them for one BMC.

use super::{
    AcCycle, AccountQuirks, BootAt, BootForm, IfMatch, Ladder, MediaBody, MediaFirst, PushForm,
    PushTarget, Quirks, ResetOf, SessionQuirks, UpdateWay, Work,
};
use crate::model::action::BootTarget;
use regex::Regex;
use std::collections::BTreeMap;

/// All rules in their order: of those that fit a BMC, the first that says something of a field
/// counts for that field.
#[derive(Clone, Debug, Default)]
pub struct QuirkTable {
    pub rules: Vec<Rule>,
}

/// What one vendor's, model's or firmware's BMCs do.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Unique; named in reports.
    pub name: String,
    pub when: When,
    pub set: QuirkSet,
}

/// Whom a rule is for: all that is given must fit. What a BMC does not say fits nothing.
#[derive(Clone, Debug, Default)]
pub struct When {
    /// Any one fits any one of ServiceRoot `Vendor`, its `Oem` keys, and the system's
    /// `Manufacturer`.
    pub vendor: Vec<Regex>,
    /// ServiceRoot `Product`, `Name` or `Id`.
    pub product: Vec<Regex>,
    /// The system's `Model`.
    pub model: Vec<Regex>,
    /// The host's manager: its `Model` or `FirmwareVersion`.
    pub bmc: Vec<Regex>,
    /// The manager's firmware from this version on.
    pub firmware_from: Option<String>,
    /// The manager's firmware below this version.
    pub firmware_before: Option<String>,
}

/// What a BMC says of itself. More is known after a login than before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub vendors: Vec<String>,
    pub products: Vec<String>,
    pub model: Option<String>,
    /// The host's manager.
    pub bmc: Option<String>,
    pub firmware: Option<String>,
}

/// The fields that a rule may set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuirkSet {
    pub boot_form: Option<BootForm>,
    pub boot_at: Option<BootAt>,
    pub boot_continuous: Option<bool>,
    pub boot_names: BTreeMap<BootTarget, Vec<String>>,
    pub resets: BTreeMap<ResetOf, Ladder>,
    pub conflict_retry_s: Option<u32>,
    pub media_first: Option<MediaFirst>,
    pub media_slots: Option<Vec<String>>,
    pub media_bodies: Option<Vec<MediaBody>>,
    pub media_protocols: Option<Vec<String>>,
    pub media_settle_s: Option<u32>,
    pub ac_cycle: Option<AcCycle>,
    pub session_timeout_s: Option<u32>,
    pub lockout_threshold: Option<u32>,
    pub lockout_s: Option<u32>,
    pub session_most: Option<u32>,
    pub if_match: Option<IfMatch>,
    pub if_match_action: Option<IfMatch>,
    pub update_way: Option<UpdateWay>,
    pub push: Option<PushForm>,
    pub push_targets: Option<Vec<PushTarget>>,
    pub push_oem: Option<bool>,
    pub push_busy_flag: Option<bool>,
    pub update_target: Option<String>,
    pub works: Option<Vec<Work>>,
    pub password_min: Option<u32>,
    pub password_max: Option<u32>,
    pub user_max: Option<u32>,
    pub bmc_settle_s: Option<u32>,
    pub expand: Option<bool>,
    pub service_tag: Option<bool>,
}

impl QuirkTable {
    /// What holds for this BMC.
    pub fn resolve(&self, of: &Subject) -> Quirks {
        let mut set = QuirkSet::default();
        let mut out = Quirks::default();
        for rule in self.rules.iter().filter(|r| r.when.fits(of)) {
            out.rules.push(rule.name.clone());
            set.fill(&rule.set);
        }
        set.apply(&mut out);
        out
    }

    /// May this BMC do work that its tasks do not show? As far as its service root tells.
    pub fn hides_work(&self, of: &Subject) -> bool {
        self.rules.iter().any(|r| {
            let when = &r.when;
            r.set.works.is_some()
                && any(&when.vendor, of.vendors.iter())
                && any(&when.product, of.products.iter())
        })
    }

    /// May some rule still fit once the host's manager is known? Then it is worth a request.
    pub fn asks_manager(&self, of: &Subject) -> bool {
        self.rules.iter().any(|r| {
            let w = &r.when;
            (!w.bmc.is_empty() || w.firmware_from.is_some() || w.firmware_before.is_some())
                && w.fits_but_manager(of)
        })
    }
}

impl When {
    fn fits(&self, of: &Subject) -> bool {
        let bmc: Vec<&String> = of.bmc.iter().chain(&of.firmware).collect();
        let version = of.firmware.as_deref().map(numbers);
        let at_least = |from: &String| version.as_ref().is_some_and(|v| *v >= numbers(from));
        let below = |before: &String| version.as_ref().is_some_and(|v| *v < numbers(before));
        self.fits_but_manager(of)
            && any(&self.bmc, bmc.into_iter())
            && self.firmware_from.as_ref().is_none_or(at_least)
            && self.firmware_before.as_ref().is_none_or(below)
    }

    fn fits_but_manager(&self, of: &Subject) -> bool {
        any(&self.vendor, of.vendors.iter())
            && any(&self.product, of.products.iter())
            && any(&self.model, of.model.iter())
    }
}

fn any<'s>(wanted: &[Regex], mut said: impl Iterator<Item = &'s String>) -> bool {
    wanted.is_empty() || said.any(|s| wanted.iter().any(|r| r.is_match(s)))
}

/// The numbers of a BMC's version, from the first dotted one on: `iLO 5 v2.72` is 2, 72 and
/// `GB200Nvl-24.12-8` is 24, 12, 8.
pub fn numbers(version: &str) -> Vec<u64> {
    let digit = |at: Option<usize>| {
        at.and_then(|at| version.as_bytes().get(at)).is_some_and(u8::is_ascii_digit)
    };
    let dot = version
        .match_indices('.')
        .map(|(at, _)| at)
        .find(|at| digit(at.checked_sub(1)) && digit(Some(at + 1)));
    let start = dot.map_or(0, |dot| {
        let before = version.as_bytes().get(..dot).unwrap_or_default();
        dot - before.iter().rev().take_while(|b| b.is_ascii_digit()).count()
    });
    version
        .get(start..)
        .unwrap_or_default()
        .split(|c: char| !c.is_ascii_digit())
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().unwrap_or(u64::MAX))
        .collect()
}

impl QuirkSet {
    /// Takes over what it does not have yet.
    fn fill(&mut self, from: &QuirkSet) {
        macro_rules! first {
            ($($field:ident),* $(,)?) => {
                $(if self.$field.is_none() { self.$field.clone_from(&from.$field); })*
            };
        }
        first!(
            boot_form,
            boot_at,
            boot_continuous,
            conflict_retry_s,
            media_first,
            media_slots,
            media_bodies,
            media_protocols,
            media_settle_s,
            ac_cycle,
            session_timeout_s,
            lockout_threshold,
            lockout_s,
            session_most,
            if_match,
            if_match_action,
            update_way,
            push,
            push_targets,
            push_oem,
            push_busy_flag,
            update_target,
            works,
            password_min,
            password_max,
            user_max,
            bmc_settle_s,
            expand,
            service_tag,
        );
        for (target, names) in &from.boot_names {
            self.boot_names.entry(*target).or_insert_with(|| names.clone());
        }
        for (of, ladder) in &from.resets {
            self.resets.entry(*of).or_insert_with(|| ladder.clone());
        }
    }

    fn apply(self, to: &mut Quirks) {
        fn set<T>(from: Option<T>, to: &mut T) {
            if let Some(value) = from {
                *to = value;
            }
        }
        set(self.boot_form, &mut to.boot.form);
        set(self.boot_at, &mut to.boot.at);
        set(self.boot_continuous, &mut to.boot.continuous);
        to.boot.names.extend(self.boot_names);
        to.reset.ladders.extend(self.resets);
        set(self.conflict_retry_s, &mut to.reset.conflict_retry_s);
        set(self.media_first, &mut to.media.first);
        set(self.media_slots, &mut to.media.slots);
        set(self.media_bodies, &mut to.media.bodies);
        set(self.media_protocols, &mut to.media.protocols);
        set(self.media_settle_s, &mut to.media.settle_s);
        to.ac_cycle = self.ac_cycle;
        to.session = SessionQuirks {
            timeout_s: self.session_timeout_s,
            lockout_threshold: self.lockout_threshold,
            lockout_s: self.lockout_s,
            most: self.session_most,
        };
        set(self.if_match, &mut to.etag.patch);
        set(self.if_match_action, &mut to.etag.action);
        set(self.update_way, &mut to.update.way);
        set(self.push, &mut to.update.push);
        set(self.push_targets, &mut to.update.targets);
        set(self.push_oem, &mut to.update.oem);
        set(self.push_busy_flag, &mut to.update.busy_flag);
        to.update.simple_update = self.update_target;
        set(self.works, &mut to.update.works);
        to.account = AccountQuirks {
            password_min: self.password_min,
            password_max: self.password_max,
            user_max: self.user_max,
        };
        set(self.bmc_settle_s, &mut to.bmc_settle_s);
        set(self.expand, &mut to.expand);
        set(self.service_tag, &mut to.service_tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, vendor: &str, set: QuirkSet) -> Rule {
        let vendor = Regex::new(vendor).into_iter().collect();
        Rule { name: name.into(), when: When { vendor, ..When::default() }, set }
    }

    #[test]
    fn the_first_rule_that_speaks_of_a_field_counts() {
        let set = |form, expand| QuirkSet { boot_form: form, expand, ..QuirkSet::default() };
        let table = QuirkTable {
            rules: vec![
                rule("a", "^A", set(Some(BootForm::Triple), None)),
                rule("b", "^B", set(Some(BootForm::NoMode), Some(false))),
                rule("all", "", set(Some(BootForm::NoMode), Some(false))),
            ],
        };
        let of = |vendor: &str| {
            table.resolve(&Subject { vendors: vec![vendor.into()], ..Subject::default() })
        };
        let a = of("Acme");
        assert_eq!((a.boot.form, a.expand), (BootForm::Triple, false));
        assert_eq!(a.rules, ["a", "all"]);
        // Nothing known: nothing fits, and the standard holds.
        assert_eq!(table.resolve(&Subject::default()), Quirks::default());
    }

    #[test]
    fn versions_are_their_numbers_from_the_first_dotted_one() {
        let cases: [(&str, &[u64]); 8] = [
            ("7.10.30.00", &[7, 10, 30, 0]),
            ("iLO 5 v2.72", &[2, 72]),
            ("TGBT42S 2.83 2023-07-05", &[2, 83, 2023, 7, 5]),
            ("GB200Nvl-24.12-8", &[24, 12, 8]),
            ("01.05.10", &[1, 5, 10]),
            ("7", &[7]),
            ("é1.2", &[1, 2]),
            ("", &[]),
        ];
        for (text, wanted) in cases {
            assert_eq!(numbers(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_firmware_range_needs_a_known_firmware() {
        let mut r = rule("old", "^Dell", QuirkSet { expand: Some(false), ..QuirkSet::default() });
        r.when.firmware_from = Some("3.0".into());
        r.when.firmware_before = Some("7.10".into());
        let table = QuirkTable { rules: vec![r] };
        let of = |firmware: Option<&str>| Subject {
            vendors: vec!["Dell".into()],
            firmware: firmware.map(str::to_string),
            ..Subject::default()
        };
        assert!(table.resolve(&of(None)).expand);
        assert!(!table.resolve(&of(Some("7.00.60"))).expand);
        assert!(table.resolve(&of(Some("7.10.30"))).expand);
        assert!(table.resolve(&of(Some("2.9"))).expand);
        assert!(table.asks_manager(&of(None)));
        let other = Subject { vendors: vec!["HPE".into()], ..Subject::default() };
        assert!(!table.asks_manager(&other));
    }
}
