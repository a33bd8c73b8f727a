//! Names: unique ones, ones that must exist, and the one that was probably meant.

use super::book::{Book, Place};
use super::table::{Table, Text};
use std::collections::{BTreeMap, BTreeSet};

/// The candidate that is at most a third of the word's letters away; the first of equals.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let typed: Vec<char> = word.to_lowercase().chars().take(64).collect();
    let limit = (typed.len() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .filter(|c| c.len().abs_diff(word.len()) <= 8)
        .map(|c| (distance(&typed, c), c))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// As a hint: "did you mean `x`?", else all that is allowed where that is short.
pub(super) fn hint(word: &str, candidates: &[&str]) -> Option<String> {
    if let Some(name) = nearest(word, candidates.iter().copied()) {
        return Some(format!("did you mean `{name}`?"));
    }
    (1..=24).contains(&candidates.len()).then(|| format!("known here: {}", list(candidates)))
}

/// The name that was probably meant, or the first ones that there are.
pub fn listed(word: &str, known: &[&str]) -> String {
    if let Some(name) = nearest(word, known.iter().copied()) {
        return format!("did you mean `{name}`?");
    }
    let first = known.get(..known.len().min(10)).unwrap_or_default();
    match known.len() - first.len() {
        _ if first.is_empty() => "there is none at all".into(),
        0 => format!("there are {}", list(first)),
        more => format!("there are {}, and {more} more", list(first)),
    }
}

/// `a`, `b` and `c`.
pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

/// Edits between two words; two swapped neighbours and `_` for `-` count as one.
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1; b.len() + 1];
        for j in 0..b.len() {
            let change = last[j] + usize::from(a[i] != b[j]);
            row[j + 1] = change.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// Notes the second one of a name.
pub(super) fn unique(
    t: &Table<'_, '_>,
    seen: &mut BTreeMap<String, Place>,
    name: Text<'_>,
    what: &str,
) {
    if let Some(first) = seen.get(name.value) {
        t.error(name.at, format!("{what} `{}` is there twice", name.value))
            .hint(format!("the other one is at {}", t.book.where_is(*first)));
    } else {
        seen.insert(name.value.to_string(), name.at);
    }
}

/// A reference to something that must be among `known`.
pub(super) fn dangling<'k>(
    book: &Book<'_>,
    at: Place,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'k str>,
) {
    let hint = book.may_search().then(|| {
        let known: BTreeSet<&str> = known.filter(|k| !k.is_empty()).collect();
        let known: Vec<&str> = known.into_iter().collect();
        if known.is_empty() { Some("there is none at all".into()) } else { hint(name, &known) }
    });
    book.error(at, format!("there is no {what} `{name}`")).maybe_hint(hint.flatten());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_find_their_word() {
        let known = ["serial", "uuid", "mac", "rack", "pool", "firmware_set"];
        for (typed, meant) in [
            ("seriall", Some("serial")),
            ("sreial", Some("serial")),
            ("Rack", Some("rack")),
            ("pol", Some("pool")),
            ("firmware-set", Some("firmware_set")),
            ("position", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
    }

    #[test]
    fn without_a_near_name_the_known_ones_are_listed() {
        assert_eq!(hint("zzzz", &["on", "off"]).as_deref(), Some("known here: `on` and `off`"));
        assert_eq!(hint("zzzz", &[]), None);
    }
}
