//! Comparing firmware versions by the catalog's scheme.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

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
    fn opaque_knows_only_equal() {
        assert_eq!(compare(Scheme::Opaque, "a", "b"), None);
        assert_eq!(compare(Scheme::Opaque, "a ", "a"), Some(Equal));
    }
}
