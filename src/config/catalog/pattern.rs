//! Regexes with the place of what is wrong inside them.

use crate::config::book::Place;
use crate::config::table::{Table, Text};
use regex::Regex;

/// A regex that must start with `^`: one that matches anywhere takes in machines and parts that
/// nobody thought of.
pub(super) fn anchored(t: &Table<'_, '_>, key: &str, text: Text<'_>) -> Option<Regex> {
    let regex = any(t, key, text)?;
    if !text.value.starts_with('^') {
        t.error(text.at, format!("`{key}` must start with `^`"))
            .hint("without it the regex also matches in the middle of other names");
        return None;
    }
    Some(regex)
}

pub(super) fn any(t: &Table<'_, '_>, key: &str, text: Text<'_>) -> Option<Regex> {
    match Regex::new(text.value) {
        Ok(regex) => Some(regex),
        Err(error) => {
            let shown = error.to_string();
            let (why, column) = explain(&shown);
            let at = column.and_then(|c| inside(t, text, c)).unwrap_or(text.at);
            t.error(at, format!("`{key}` is not a regex: {why}"));
            None
        }
    }
}

/// The reason and the character at fault, out of the regex crate's drawing:
/// `regex parse error:\n    (a\n    ^\nerror: unclosed group`.
fn explain(shown: &str) -> (String, Option<usize>) {
    let why = shown.lines().rev().find_map(|l| l.strip_prefix("error: "));
    let caret =
        shown.lines().find(|l| l.trim_start().starts_with('^') && l.trim_end().ends_with('^'));
    // The pattern itself may look like a row of carets; then the column is a guess inside it.
    let column = caret.and_then(|l| l.find('^')).and_then(|c| c.checked_sub(4));
    let first = || shown.lines().next().unwrap_or("not accepted").to_string();
    (why.map_or_else(first, str::to_string), column.filter(|_| why.is_some()))
}

/// The place of a character of the value, where the file spells the value as it is.
fn inside(t: &Table<'_, '_>, text: Text<'_>, column: usize) -> Option<Place> {
    let written = t.book.text_of(text.at);
    let body = written.get(1..written.len().checked_sub(1)?)?;
    if body != text.value || text.value.contains('\n') {
        return None;
    }
    let offset = text.value.char_indices().nth(column).map_or(text.value.len(), |(i, _)| i);
    let start = text.at.start + 1 + u32::try_from(offset).ok()?;
    Some(Place { start, end: (start + 1).min(text.at.end), ..text.at })
}
