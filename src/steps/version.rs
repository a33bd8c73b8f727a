//! Comparing firmware versions by the catalog's scheme.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// How versions of a component are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Runs of digits compare as numbers, runs of letters as text: `7.00.60` < `7.10`, `U46` < `U54`.
    #[default]
    Dotted,
    Lexical,
    /// Equal or not; nothing is older.
    Opaque,
}

/// `None` when the two can't be ordered.
pub fn compare(scheme: Scheme, a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (a.trim(), b.trim());
    match scheme {
        Scheme::Opaque => (a == b).then_some(Ordering::Equal),
        Scheme::Lexical => Some(a.cmp(b)),
        Scheme::Dotted => {
            let (a, b) = (runs(a), runs(b));
            if a.is_empty() || b.is_empty() {
                return None;
            }
            let longest = a.len().max(b.len());
            for i in 0..longest {
                let order = match (a.get(i), b.get(i)) {
                    (Some(Run::Number(x)), Some(Run::Number(y))) => number_cmp(x, y),
                    (Some(Run::Word(x)), Some(Run::Word(y))) => x.cmp(y),
                    // `1.2` and `1.2.0` are the same release; `1.2` is older than `1.2.1`.
                    (Some(Run::Number(x)), None) => number_cmp(x, "0"),
                    (None, Some(Run::Number(y))) => number_cmp("0", y),
                    (Some(Run::Word(_)), None) => Ordering::Greater,
                    (None, Some(Run::Word(_))) => Ordering::Less,
                    // Letters against digits: spelt by different rules.
                    _ => return None,
                };
                if order != Ordering::Equal {
                    return Some(order);
                }
            }
            Some(Ordering::Equal)
        }
    }
}

/// Versions between bounds, as people write them: `>=1.2, <2.0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range(Vec<(Bound, String)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    AtLeast,
    Above,
    AtMost,
    Below,
    Exactly,
}

impl Bound {
    /// Longer words first: `>` begins `>=` too.
    const ALL: [(&'static str, Bound); 5] = [
        (">=", Bound::AtLeast),
        ("<=", Bound::AtMost),
        (">", Bound::Above),
        ("<", Bound::Below),
        ("=", Bound::Exactly),
    ];

    fn holds(self, order: Ordering) -> bool {
        match self {
            Bound::AtLeast => order.is_ge(),
            Bound::Above => order.is_gt(),
            Bound::AtMost => order.is_le(),
            Bound::Below => order.is_lt(),
            Bound::Exactly => order.is_eq(),
        }
    }
}

impl Range {
    /// Does `version` lie inside? `None`: it can't be compared with a bound.
    pub fn holds(&self, version: &str) -> Option<bool> {
        let mut inside = true;
        for (bound, text) in &self.0 {
            inside &= bound.holds(compare(Scheme::Dotted, version, text)?);
        }
        Some(inside)
    }

    /// Two bounds that no version satisfies both.
    fn contradiction(&self) -> bool {
        let lower = |b: Bound| matches!(b, Bound::AtLeast | Bound::Above | Bound::Exactly);
        let upper = |b: Bound| matches!(b, Bound::AtMost | Bound::Below | Bound::Exactly);
        let strict = |b: Bound| matches!(b, Bound::Above | Bound::Below);
        self.0.iter().filter(|(b, _)| lower(*b)).any(|(low, from)| {
            self.0.iter().filter(|(b, _)| upper(*b)).any(|(high, to)| {
                match compare(Scheme::Dotted, from, to) {
                    Some(Ordering::Greater) => true,
                    Some(Ordering::Equal) => strict(*low) || strict(*high),
                    _ => false,
                }
            })
        })
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bounds = Vec::new();
        for part in text.split(',').map(str::trim) {
            let found = Bound::ALL.iter().find_map(|(w, b)| Some((*b, part.strip_prefix(w)?)));
            let (bound, version) = found.unwrap_or((Bound::Exactly, part));
            let version = version.trim();
            if runs(version).is_empty() {
                return Err(format!("`{part}` is no bound of a version"));
            }
            bounds.push((bound, version.to_string()));
        }
        let range = Range(bounds);
        match range.contradiction() {
            true => Err(format!("no version is `{text}`")),
            false => Ok(range),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (bound, version)) in self.0.iter().enumerate() {
            let word = Bound::ALL.iter().find(|(_, b)| b == bound).map_or("", |(w, _)| *w);
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{word}{version}")?;
        }
        Ok(())
    }
}

enum Run {
    Number(String),
    Word(String),
}

fn number_cmp(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn runs(text: &str) -> Vec<Run> {
    let mut out = Vec::new();
    for piece in text.split(|c: char| !c.is_ascii_alphanumeric()) {
        let mut rest = piece;
        while let Some(first) = rest.chars().next() {
            let digits = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
            let run = rest[..end].to_ascii_lowercase();
            out.push(if digits { Run::Number(run) } else { Run::Word(run) });
            rest = &rest[end..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ordering::{Equal, Greater, Less};

    #[test]
    fn dotted_orders_like_vendors_do() {
        let cmp = |a, b| compare(Scheme::Dotted, a, b);
        assert_eq!(cmp("7.00.60.00", "7.10.30.00"), Some(Less));
        assert_eq!(cmp("7.9", "7.10"), Some(Less));
        assert_eq!(cmp("1.2", "1.2.0"), Some(Equal));
        assert_eq!(cmp("01.05", "1.5"), Some(Equal));
        assert_eq!(cmp("U54 v2.10", "U54 v2.72"), Some(Less));
        assert_eq!(cmp("GH200-24.05-2", "gh200-24.05-1"), Some(Greater));
        assert_eq!(cmp("99999999999999999999999.1", "2"), Some(Greater));
        assert_eq!(cmp("abc", "1.2"), None);
        assert_eq!(cmp("", "1"), None);
        assert_eq!(cmp("é1", "1"), Some(Equal));
    }

    #[test]
    fn a_range_has_bounds_that_all_hold() {
        let range = |text: &str| text.parse::<Range>();
        let r = range(">=1.2, <2.0").unwrap();
        for (version, inside) in
            [("1.2", true), ("1.1.9", false), ("1.10.3", true), ("2.0", false), ("2.0.0", false)]
        {
            assert_eq!(r.holds(version), Some(inside), "{version}");
        }
        assert_eq!(r.holds("U54 v1.5"), None);
        assert_eq!(r.to_string(), ">=1.2, <2.0");
        assert_eq!(range("1.8.2").unwrap().holds("1.08.2"), Some(true), "exactly");
        assert!(Range::default().holds("anything").unwrap());
        for wrong in ["", ">=", ">=1, ", "<1, >=1", ">=2, <1.9", "=1, =2"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
        assert!(range(">=1, <=1").is_ok());
    }

    #[test]
    fn opaque_knows_only_equal() {
        assert_eq!(compare(Scheme::Opaque, "a", "b"), None);
        assert_eq!(compare(Scheme::Opaque, "a ", "a"), Some(Equal));
    }
}
