//! What a profile asks of the BIOS: `[[profile.bios]]`, `boot_mode`, `secure_boot`.

use super::super::book::Place;
use super::super::table::{Table, Text};
use crate::model::hardware::BootMode;
use crate::steps::settings::{Rule, Settings};
use crate::steps::version::Range;
use serde_json::Value;
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::DeValue;

/// `place`: where the first of it stands.
pub(super) fn settings(t: &mut Table<'_, '_>, place: &mut Place) -> Settings {
    *place = t.at;
    let boot_mode = t.choice("boot_mode", &BootMode::ALL.map(|m| (m.name(), m)));
    let secure = t.text("secure_boot").and_then(|text| {
        let found = t.pick("secure_boot", text, &[("on", true), ("off", false)])?;
        Some((found, text.at))
    });
    if let (Some(BootMode::Legacy), Some((true, at))) = (boot_mode, secure) {
        t.error(at, "Secure Boot needs UEFI, and `boot_mode` is `legacy`")
            .hint("drop one of them, or say `secure_boot = \"off\"`");
    }
    let mut rules = Vec::new();
    if let Some((_, at)) = secure {
        *place = at;
    }
    // Who asks for what first: the same twice for the same machines is a slip.
    let mut first: BTreeMap<(String, String, String), Place> = BTreeMap::new();
    for mut r in t.tables("bios") {
        if rules.is_empty() {
            *place = r.at;
        }
        if let Some((rule, places)) = rule(&mut r) {
            for (name, at) in places {
                let key = (rule.model.to_lowercase(), rule.bios.to_string(), name);
                match first.get(&key) {
                    Some(other) => {
                        let where_is = r.book.where_is(*other);
                        r.error(at, format!("`{}` is set twice for the same machines", key.2))
                            .hint(format!("the other one is at {where_is}"));
                    }
                    None => drop(first.insert(key, at)),
                }
            }
            rules.push(rule);
        }
        r.done();
    }
    Settings { rules, boot_mode, secure_boot: secure.map(|(on, _)| on) }
}

/// A rule with the places of its attributes.
fn rule(t: &mut Table<'_, '_>) -> Option<(Rule, Vec<(String, Place)>)> {
    let model = t.need_text("model").filter(|m| is_model(t, *m));
    let bios = t.text("bios");
    let bios = match bios.map(|text| (text.value.parse::<Range>(), text.at)) {
        None if t.lacks("bios") => Some(Range::default()),
        None => None,
        Some((Ok(range), _)) => Some(range),
        Some((Err(why), at)) => {
            t.error(at, why).hint("bounds that all hold, like `\">=1.2, <2.0\"`");
            None
        }
    };
    if t.lacks("attributes") {
        t.missing("attributes");
    }
    let mut table = t.table("attributes")?;
    let (mut attributes, mut places) = (BTreeMap::new(), Vec::new());
    let pairs = table.pairs();
    if pairs.is_empty() {
        table
            .error(table.at, "`attributes` names no attribute")
            .hint("`farrier bmc bios` lists those of a machine");
    }
    for (key, value) in pairs {
        places.push((key.value.to_string(), key.at));
        if let Some(value) = attribute(&table, key, value) {
            attributes.insert(key.value.to_string(), value);
        }
    }
    Some((Rule { model: model?.value.to_string(), bios: bios?, attributes }, places))
}

/// Exact, or a beginning with one `*` at its end.
fn is_model(t: &Table<'_, '_>, model: Text<'_>) -> bool {
    let start = model.value.strip_suffix('*').unwrap_or(model.value);
    let fine = !start.contains('*');
    if !fine {
        t.error(model.at, format!("`{}` is no model", model.value))
            .hint("a model as the BMC says it, or how it begins and a `*`: `\"PowerEdge R7*\"`");
    }
    fine
}

/// Text, a whole number or true/false: what BIOS attributes are (DSP0268 AttributeRegistry).
fn attribute<'a>(t: &Table<'_, 'a>, key: Text<'_>, value: &Spanned<DeValue<'a>>) -> Option<Value> {
    let found = match value.get_ref() {
        DeValue::String(text) => Some(Value::from(text.to_string())),
        DeValue::Boolean(on) => Some(Value::from(*on)),
        DeValue::Integer(n) => {
            i64::from_str_radix(&n.as_str().replace('_', ""), n.radix()).ok().map(Value::from)
        }
        _ => None,
    };
    if found.is_none() {
        t.error(
            t.value_at(value),
            format!("`{}` must be a string, a whole number or a boolean", key.value),
        );
    }
    found
}
