//! Which machines are meant: names, globs and the words that rows carry.

use super::problem::{Code, Problem};
use crate::engine::Director;
use crate::model::{Desired, EngineTime, Machine, Stage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// All parts that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Selector {
    /// Exactly these machines. A name that is not there is an error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Name with `*` (any text) and `?` (any character).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    /// `discover`, `firmware`, … as the stage diagram names them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// `ok`, `backing-off`, `unreachable`, `quarantined`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// `unmanaged`, `adopted`, `enrolled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// `ready`, `in-service`, `drained`, `retired`, or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    /// At the step with this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Held for maintenance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
    /// Held by this name; after a restore, `restore` holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
    /// Past the SLA of its stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stuck: Option<bool>,
    /// Something was changed behind Farrier's back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_band: Option<bool>,
}

const CONDITIONS: &[&str] = &["ok", "backing-off", "unreachable", "quarantined"];
const CONTROLS: &[&str] = &["unmanaged", "adopted", "enrolled"];
const KEYS: &str = "name, pool, rack, stage, step, condition, control, desired, held, held-by, stuck, \
     out-of-band";

impl Selector {
    /// Reads `pool=h100,stage=ready` as the CLI takes it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut s = Selector::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(format!("`{part}` is not `key=value`; the keys are {KEYS}"));
            };
            let value = value.trim().to_string();
            let slot = match key.trim() {
                "name" => &mut s.name,
                "pool" => &mut s.pool,
                "rack" => &mut s.rack,
                "stage" => &mut s.stage,
                "condition" => &mut s.condition,
                "control" => &mut s.control,
                "desired" => &mut s.desired,
                "step" => &mut s.step,
                "held-by" => &mut s.held_by,
                word @ ("held" | "stuck" | "out-of-band") => {
                    let slot = match word {
                        "held" => &mut s.held,
                        "stuck" => &mut s.stuck,
                        _ => &mut s.out_of_band,
                    };
                    let said =
                        value.parse().map_err(|_| format!("`{word}` is `true` or `false`"))?;
                    if slot.replace(said).is_some() {
                        return Err(format!("`{word}` is given twice"));
                    }
                    continue;
                }
                other => return Err(format!("there is no key `{other}`; the keys are {KEYS}")),
            };
            if slot.replace(value).is_some() {
                return Err(format!("`{}` is given twice", key.trim()));
            }
        }
        Ok(s)
    }

    pub fn is_empty(&self) -> bool {
        *self == Selector::default()
    }

    /// Checks every word, so that a typing error selects nothing instead of something else.
    pub fn check(&self, place: &str) -> Result<Matcher, Problem> {
        let stages: Vec<&str> = Stage::ALL.iter().map(|s| s.name()).collect();
        let mut desired: Vec<&str> = Desired::ALL.iter().map(|d| d.name()).collect();
        desired.push("none");
        for (part, value, legal) in [
            ("stage", &self.stage, stages.as_slice()),
            ("condition", &self.condition, CONDITIONS),
            ("control", &self.control, CONTROLS),
            ("desired", &self.desired, desired.as_slice()),
        ] {
            if let Some(value) = value
                && !legal.contains(&value.as_str())
            {
                let problem =
                    Problem::new(Code::BadSelector, format!("there is no {part} `{value}`"))
                        .place(format!("{place}{part}"));
                let near = nearest(value, legal.iter().copied());
                return Err(if near.is_empty() {
                    problem.hint(format!("one of: {}", legal.join(", ")))
                } else {
                    problem.nearest(near)
                });
            }
        }
        Ok(Matcher { names: self.names.iter().cloned().collect(), selector: self.clone() })
    }
}

/// A selector whose words were checked.
#[derive(Clone, Debug)]
pub struct Matcher {
    names: BTreeSet<String>,
    selector: Selector,
}

impl Matcher {
    pub fn matches(&self, d: &Director, m: &Machine, now: EngineTime) -> bool {
        let s = &self.selector;
        let expected = d.expected(m.id);
        let is = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|w| w == has);
        let place = |wanted: &Option<String>, has: Option<&str>| {
            wanted.as_deref().is_none_or(|w| has == Some(w))
        };
        // A row without a first durable entry is not there yet.
        m.seq > 0
            && (self.names.is_empty() || self.names.contains(&*m.name))
            && s.name.as_deref().is_none_or(|glob| glob_matches(glob, &m.name))
            && place(&s.pool, expected.map(|e| &*e.pool))
            && place(&s.rack, expected.map(|e| &*e.rack))
            && is(&s.stage, m.stage.name())
            && is(&s.condition, m.condition.name())
            && is(&s.control, m.control.name())
            && is(&s.desired, m.desired.map_or("none", Desired::name))
            && place(&s.step, m.step.as_ref().map(|step| &*step.key))
            && s.held.is_none_or(|held| held == m.hold.is_some())
            && place(&s.held_by, m.hold.as_ref().map(|h| h.by.as_str()))
            && s.out_of_band.is_none_or(|changed| changed == (m.out_of_band > 0))
            && s.stuck.is_none_or(|stuck| stuck == d.overdue(m.id, now))
    }
}

/// `*` and `?` globs. Linear in the text for each star: no pattern can make it slow.
pub fn glob_matches(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                g += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    g = at + 1;
                    t = from + 1;
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

/// At most three of `names` that `wanted` may have meant, closest first.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted: Vec<char> = wanted.to_lowercase().chars().take(64).collect();
    let far = (wanted.len() / 3).clamp(1, 3);
    let mut near: Vec<(usize, &str)> = names
        .filter(|n| !n.is_empty() && n.len().abs_diff(wanted.len()) <= 8)
        .filter_map(|n| {
            let name: Vec<char> = n.to_lowercase().chars().take(64).collect();
            let begins =
                wanted.len() >= 3 && (name.starts_with(&wanted) || wanted.starts_with(&name));
            let d = distance(&wanted, &name);
            (d <= far || begins).then_some((d, n))
        })
        .collect();
    near.sort_unstable();
    near.truncate(3);
    near.into_iter().map(|(_, n)| n.to_string()).collect()
}

/// Edits between two words (Levenshtein).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replace.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, text, yes) in [
            ("*", "", true),
            ("gpu-*", "gpu-01", true),
            ("gpu-*", "cpu-01", false),
            ("*-0?", "gpu-01", true),
            ("*-0?", "gpu-0", false),
            ("g*p*1", "gpu-p-01", true),
            ("", "a", false),
            ("a*b*c", "abcbc", true),
            ("é?", "éé", true),
        ] {
            assert_eq!(glob_matches(glob, text), yes, "{glob} {text}");
        }
        let (glob, text) = ("*a".repeat(40), "a".repeat(39) + "b");
        assert!(!glob_matches(&glob, &text));
    }

    #[test]
    fn selectors_are_read_or_refused() {
        let s = Selector::parse("pool=h100, stage=ready,held=true,out-of-band=false").unwrap();
        assert_eq!(
            (s.pool.as_deref(), s.stage.as_deref(), s.held, s.out_of_band, s.stuck),
            (Some("h100"), Some("ready"), Some(true), Some(false), None)
        );
        assert!(Selector::parse("stuck=yes").unwrap_err().contains("`true` or `false`"));
        assert!(Selector::parse("held=true,held=false").unwrap_err().contains("twice"));
        assert!(s.check("").is_ok());
        assert!(Selector::parse("pol=h100").unwrap_err().contains("no key `pol`"));
        assert!(Selector::parse("pool").unwrap_err().contains("key=value"));
        assert!(Selector::parse("pool=a,pool=b").unwrap_err().contains("twice"));
        let bad = Selector { stage: Some("redy".into()), ..Selector::default() };
        let problem = bad.check("selector.").unwrap_err().into_body();
        assert_eq!(problem.nearest, ["ready"]);
        assert_eq!(problem.place.as_deref(), Some("selector.stage"));
    }

    #[test]
    fn near_names() {
        let names = ["gpu-01", "gpu-02", "cpu-01", "storage"];
        assert_eq!(nearest("gpu-1", names.into_iter()), ["gpu-01"]);
        assert_eq!(nearest("GPU-02", names.into_iter())[0], "gpu-02");
        assert!(nearest("zzzzzz", names.into_iter()).is_empty());
        assert_eq!(nearest("stor", names.into_iter()), ["storage"]);
    }
}
