//! `kind` and `params` of a step, decoded by the kinds' own serde types: a new kind or parameter
//! needs nothing here.

use crate::config::book::{Place, place};
use crate::config::names;
use crate::config::table::Table;
use crate::steps::Step;
use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use std::cell::Cell;
use std::fmt;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error, ValueDeserializer};

/// The step of a `[[step]]` table, with every mistake in its parameters noted.
pub(super) fn step(t: &mut Table<'_, '_>) -> Option<Step> {
    let kind = t.need_text("kind");
    let params = t.take("params");
    let kind = kind?;
    let kinds = Step::KINDS.map(|k| (k, k));
    let kind_name = t.pick("kind", kind, &kinds)?;
    let (mut entries, at) = match params {
        None => (DeTable::new(), None),
        Some(value) => {
            t.as_table("params", value)?;
            let DeValue::Table(entries) = value.get_ref() else { return None };
            (entries.clone(), Some(value.span()))
        }
    };
    let known = fields(kind_name);
    let header = t.at.start as usize..t.at.end as usize;
    let file = t.at.file as usize;
    let mut noted: Vec<String> = Vec::new();
    let strange: Vec<_> = match known.is_empty() {
        // No names, or a type that does not tell them: serde decides below.
        true => Vec::new(),
        false => entries.keys().filter(|k| !known.contains(&&**k.get_ref())).cloned().collect(),
    };
    for key in strange {
        unknown(t, place(file, key.span()), kind_name, key.get_ref(), &known);
        entries.remove(&**key.get_ref());
        noted.push(key.get_ref().to_string());
    }
    // Serde stops at the first mistake: note it, take the key out, read again.
    loop {
        let error = match decode(kind_name, &entries, header.clone()) {
            Ok(step) if noted.is_empty() => return Some(step),
            Ok(_) => return None,
            Err(error) => error,
        };
        let culprit = error.span().and_then(|span| {
            let hit = |outer: std::ops::Range<usize>| {
                outer.start <= span.start && span.end <= outer.end && span != header
            };
            let found = entries.iter().find(|(k, v)| hit(k.span()) || hit(v.span()));
            found.map(|(k, v)| (k.get_ref().to_string(), k.span(), v.span()))
        });
        let Some((key, key_span, value_span)) = culprit else {
            // Nothing to point at: a parameter is missing, unless its bad value was noted already.
            let message = error.message().trim();
            if !noted.iter().any(|k| message.contains(&format!("`{k}`"))) {
                let at = at.clone().map_or(t.at, |span| place(file, span));
                t.error(at, format!("`params` of kind `{kind_name}`: {message}"))
                    .hint(format!("known here: {}", names::list(&known)));
            }
            return None;
        };
        if known.contains(&key.as_str()) {
            let why = error.message().trim().replace('\n', "; ");
            t.error(place(file, value_span), format!("`{key}` in `params`: {why}"));
        } else {
            unknown(t, place(file, key_span), kind_name, &key, &known);
        }
        entries.remove(key.as_str());
        noted.push(key);
    }
}

fn unknown(t: &Table<'_, '_>, at: Place, kind: &str, key: &str, known: &[&'static str]) {
    let hint = match known.is_empty() {
        true => Some(format!("`{kind}` takes no parameters")),
        false => names::hint(key, known),
    };
    t.error(at, format!("unknown key `{key}` in `params` of kind `{kind}`")).maybe_hint(hint);
}

fn decode(kind: &str, params: &DeTable<'_>, span: std::ops::Range<usize>) -> Result<Step, Error> {
    let spanned = |value| Spanned::new(span.clone(), value);
    let mut table = DeTable::new();
    table.insert(
        Spanned::new(span.clone(), "kind".into()),
        spanned(DeValue::String(kind.to_string().into())),
    );
    table.insert(
        Spanned::new(span.clone(), "params".into()),
        spanned(DeValue::Table(params.clone())),
    );
    Step::deserialize(ValueDeserializer::from(spanned(DeValue::Table(table))))
}

/// The parameter names of a kind, asked from its type: deserialization is started and tells the
/// names before it reads anything.
fn fields(kind: &str) -> Vec<&'static str> {
    let seen = Cell::new(&[] as &'static [&'static str]);
    // Always fails, by design of the probe.
    let _ = Step::deserialize(Probe { kind, seen: &seen, in_params: false });
    seen.get().to_vec()
}

#[derive(Clone, Copy)]
struct Probe<'p> {
    kind: &'p str,
    seen: &'p Cell<&'static [&'static str]>,
    in_params: bool,
}

#[derive(Debug)]
struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("probed")
    }
}

impl std::error::Error for Stop {}

impl serde::de::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Stop
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if self.in_params {
            return Err(Stop);
        }
        visitor.visit_map(Entries { probe: self, next: 0 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        if self.in_params {
            self.seen.set(fields);
        }
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// `kind = …` and then `params`.
struct Entries<'p> {
    probe: Probe<'p>,
    next: u8,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Stop> {
        self.next += 1;
        let key = match self.next {
            1 => "kind",
            2 => "params",
            _ => return Ok(None),
        };
        let key: StrDeserializer<'_, Stop> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        match self.next {
            1 => {
                let kind: StrDeserializer<'_, Stop> = self.probe.kind.into_deserializer();
                seed.deserialize(kind)
            }
            2 => seed.deserialize(Probe { in_params: true, ..self.probe }),
            _ => Err(Stop::custom("")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_tells_its_parameters() {
        assert_eq!(fields("burn-in"), ["preset", "timeout", "min_gpus", "max_temp_c"]);
        assert_eq!(fields("power"), ["state"]);
        assert_eq!(fields("firmware"), [] as [&str; 0]);
        assert_eq!(fields("no-such-kind"), [] as [&str; 0]);
    }
}
