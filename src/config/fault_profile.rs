//! Fault profiles of the simulator: TOML to rules, with every mistake at its place. Which faults,
//! steps and actions there are is the simulator's to say ([`Words`]).

use super::Source;
use super::book::{Book, place};
use super::diagnostic::Diagnostic;
use super::table::Table;
use crate::model::time::Span;

/// The names that a profile may use.
#[derive(Clone, Debug, Default)]
pub struct Words {
    pub faults: Vec<&'static str>,
    pub steps: Vec<&'static str>,
    pub acts: Vec<&'static str>,
    pub models: Vec<&'static str>,
}

/// A profile as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawProfile {
    pub name: String,
    pub about: String,
    /// Machines that are sick for good, per million.
    pub sick_per_million: u32,
    /// Machines whose boards copy new images to a second place, per million.
    pub copies_per_million: u32,
    /// Machines with a baseboard that has a BMC of its own, per million of those that may.
    pub boards_per_million: u32,
    /// Quarantines within milliseconds that stop all actions; 0 = no circuit breaker.
    pub breaker: (u32, u64),
    pub rules: Vec<RawRule>,
}

/// `[[rule]]`: where it matches, what happens, how likely and how often.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawRule {
    /// Position in [`Words::faults`].
    pub action: usize,
    /// Chances out of a million that strike.
    pub per_million: u32,
    /// Strikes at most so often in a run, over all machines.
    pub remaining: Option<u32>,
    /// First and last machine.
    pub machines: Option<(u32, u32)>,
    pub rack: Option<u32>,
    /// Positions in [`Words`].
    pub model: Option<usize>,
    pub step: Option<usize>,
    pub act: Option<usize>,
    /// Milliseconds from the start of the run.
    pub from_ms: u64,
    pub until_ms: Option<u64>,
    /// How long it lasts at least and at most, for what lasts (an outage), milliseconds.
    pub lasts_ms: Option<(u64, u64)>,
}

/// Reads one profile. The result is usable only when no diagnostic is an error.
pub fn parse(source: &Source, words: &Words) -> (RawProfile, Vec<Diagnostic>) {
    let book = Book::new(vec![source]);
    let profile = book.read(0, |top| read(&book, top, words));
    (profile, book.finish())
}

fn read(book: &Book<'_>, mut top: Table<'_, '_>, words: &Words) -> RawProfile {
    let mut profile = RawProfile::default();
    top.schema();
    if let Some(name) = top.need_name("name") {
        profile.name = name.value.to_string();
    }
    if let Some(about) = top.text("about") {
        profile.about = about.value.to_string();
    }
    profile.sick_per_million = probability(&mut top, "sick").unwrap_or(0);
    profile.copies_per_million = probability(&mut top, "copies").unwrap_or(0);
    profile.boards_per_million = probability(&mut top, "boards").unwrap_or(0);
    if let Some(mut t) = top.table("breaker") {
        let quarantines = t.integer("quarantines", 1..100_000).unwrap_or(1);
        let window = t.span("window").map_or(3_600_000, |(s, _)| s.0);
        profile.breaker = (u32::try_from(quarantines).unwrap_or(1), window);
        t.done();
    }
    for t in top.tables("rule") {
        profile.rules.extend(rule(t, words));
    }
    if profile.rules.len() > usize::from(u8::MAX) {
        book.error(place(0, 0..0), "more than 255 rules");
    }
    top.done();
    profile
}

fn choices(words: &[&'static str]) -> Vec<(&'static str, usize)> {
    words.iter().enumerate().map(|(i, w)| (*w, i)).collect()
}

fn rule(mut t: Table<'_, '_>, words: &Words) -> Option<RawRule> {
    let action = t.need_choice("action", &choices(&words.faults));
    let per_million = probability(&mut t, "probability");
    if t.lacks("probability") {
        t.missing("probability");
    }
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let mut rule = RawRule {
        remaining: t.integer("remaining", 1..1_000_000_000).map(small),
        ..RawRule::default()
    };
    rule.lasts_ms = between(&mut t, "lasts");
    if let Some(mut m) = t.table("match") {
        rule.machines = machines(&mut m);
        rule.rack = m.integer("rack", 0..1_000_000).map(small);
        rule.model = m.choice("model", &choices(&words.models));
        rule.step = m.choice("step", &choices(&words.steps));
        rule.act = m.choice("act", &choices(&words.acts));
        rule.from_ms = m.span("from").map_or(0, |(s, _)| s.0);
        rule.until_ms = m.span("until").map(|(s, at)| {
            if s.0 <= rule.from_ms {
                m.error(at, "`until` must be later than `from`").maybe_hint(None);
            }
            s.0
        });
        m.done();
    }
    t.done();
    Some(RawRule { action: action?, per_million: per_million?, ..rule })
}

/// `0.02`: as chances out of a million.
fn probability(t: &mut Table<'_, '_>, key: &'static str) -> Option<u32> {
    let value = t.take(key)?;
    let number = value
        .get_ref()
        .as_float()
        .map(|f| f.as_str().replace('_', ""))
        .or_else(|| value.get_ref().as_integer().map(|i| i.as_str().replace('_', "")))
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|p| (0.0..=1.0).contains(p));
    let Some(p) = number else {
        let at = t.value_at(value);
        t.error(at, format!("`{key}` must be a probability from 0.0 to 1.0"))
            .hint("0.02 strikes twice in a hundred chances");
        return None;
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be from 0 to 1"
    )]
    let per_million = (p * 1_000_000.0 + 0.5) as u32;
    Some(per_million)
}

/// `"10m"` or `["2m", "40m"]`.
fn between(t: &mut Table<'_, '_>, key: &'static str) -> Option<(u64, u64)> {
    let texts = t.texts(key);
    let mut spans = Vec::new();
    for text in &texts {
        match text.value.parse::<Span>() {
            Ok(span) => spans.push(span.0),
            Err(why) => t.error(text.at, why).maybe_hint(None),
        }
    }
    match (spans[..].first(), spans.last()) {
        (Some(a), Some(b)) if spans.len() <= 2 && a <= b => Some((*a, *b)),
        (Some(_), _) => {
            if let Some(text) = texts.first() {
                t.error(
                    text.at,
                    format!("`{key}` must be one duration, or the shortest and the longest"),
                )
                .maybe_hint(None);
            }
            None
        }
        _ => None,
    }
}

/// `"3"` or `"0-9"`.
fn machines(t: &mut Table<'_, '_>) -> Option<(u32, u32)> {
    let text = t.text("machines")?;
    let (a, b) = text.value.split_once('-').unwrap_or((text.value, text.value));
    match (a.trim().parse::<u32>(), b.trim().parse::<u32>()) {
        (Ok(a), Ok(b)) if a <= b => Some((a, b)),
        _ => {
            t.error(text.at, format!("`{}` names no machines", text.value))
                .hint("write one number, or the first and the last: `\"0-9\"`");
            None
        }
    }
}
