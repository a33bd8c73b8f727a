//! Reading TOML by taking keys: every mistake becomes a finding at its place, reading goes on, and
//! what nobody took is an unknown key.

use super::book::{Book, Fix, Place, place};
use super::names;
use crate::model::time::Span;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A string with its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'b> {
    pub(super) value: &'b str,
    pub(super) at: Place,
}

/// A table being read. Dropped without [`Table::done`], it reports no unknown keys.
pub(super) struct Table<'b, 'a> {
    pub(super) book: &'b Book<'a>,
    /// The header or the braces.
    pub(super) at: Place,
    /// Where the piece that was parsed starts in its file.
    base: usize,
    /// Keys down to this table, as far as messages name them; empty at the top of a file.
    path: [&'b str; 3],
    /// An element of `[[…]]`.
    is_item: bool,
    entries: &'b DeTable<'a>,
    asked: Vec<&'static str>,
    taken: usize,
}

impl<'b, 'a> Table<'b, 'a> {
    /// The top of a file, or of a piece that starts at byte `base` of it.
    pub(super) fn top(
        book: &'b Book<'a>,
        file: usize,
        base: usize,
        entries: &'b DeTable<'a>,
    ) -> Self {
        Self {
            book,
            at: place(file, base..base),
            base,
            path: [""; 3],
            is_item: false,
            entries,
            asked: Vec::with_capacity(16),
            taken: 0,
        }
    }

    fn below(
        &self,
        key: &'b str,
        is_item: bool,
        span: Range<usize>,
        entries: &'b DeTable<'a>,
    ) -> Self {
        let mut path = self.path;
        if let Some(free) = path.iter_mut().find(|p| p.is_empty()) {
            *free = key;
        }
        let asked = Vec::with_capacity(16);
        Self {
            book: self.book,
            at: self.place(span),
            base: self.base,
            path,
            is_item,
            entries,
            asked,
            taken: 0,
        }
    }

    /// " in `[[machine]]`", or nothing at the top.
    fn inside(&self) -> String {
        match (self.path, self.is_item) {
            (["", ..], _) => String::new(),
            ([key, "", _], true) => format!(" in `[[{key}]]`"),
            ([key, "", _], false) => format!(" in `[{key}]`"),
            ([a, b, ""], _) => format!(" in `{a}.{b}`"),
            ([a, b, c], _) => format!(" in `{a}.{b}.{c}`"),
        }
    }

    fn is_top(&self) -> bool {
        self.path[0].is_empty()
    }

    /// Where the table came from, or the start of the file.
    fn place(&self, span: Range<usize>) -> Place {
        place(self.at.file as usize, self.base + span.start..self.base + span.end)
    }

    pub(super) fn error(&self, place: Place, message: impl Into<String>) -> Fix<'b, 'a> {
        self.book.error(place, message)
    }

    /// The raw value of a key.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'b Spanned<DeValue<'a>>> {
        self.asked.push(key);
        let found = self.entries.get(key);
        self.taken += usize::from(found.is_some());
        found
    }

    /// Keys with places and values, for tables whose keys are names. Takes all.
    pub(super) fn pairs(&mut self) -> Vec<(Text<'b>, &'b Spanned<DeValue<'a>>)> {
        self.taken = self.entries.len();
        let pairs = self.entries.iter();
        pairs.map(|(k, v)| (Text { value: k.get_ref(), at: self.place(k.span()) }, v)).collect()
    }

    pub(super) fn missing(&self, key: &str) {
        let place = if self.is_top() { self.place(0..0) } else { self.at };
        self.error(place, format!("`{key}` is missing{}", self.inside()));
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'a>>, wanted: &str) -> Fix<'b, 'a> {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.error(
            self.place(value.span()),
            format!("`{key}`{} must be {wanted}, not {found}", self.inside()),
        )
    }

    /// Where a value stands.
    pub(super) fn value_at(&self, value: &Spanned<DeValue<'a>>) -> Place {
        self.place(value.span())
    }

    /// Is the key not there at all? (A wrong type was already noted.)
    pub(super) fn lacks(&self, key: &str) -> bool {
        !self.entries.contains_key(key)
    }

    pub(super) fn as_text(&self, key: &str, value: &'b Spanned<DeValue<'a>>) -> Option<Text<'b>> {
        let at = self.place(value.span());
        match value.get_ref().as_str() {
            Some(text) if text.trim().is_empty() => {
                self.error(at, format!("`{key}`{} must not be empty", self.inside()));
                None
            }
            Some(value) => Some(Text { value, at }),
            None => {
                self.wrong(key, value, "a string");
                None
            }
        }
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<Text<'b>> {
        let value = self.take(key)?;
        self.as_text(key, value)
    }

    pub(super) fn need_text(&mut self, key: &'static str) -> Option<Text<'b>> {
        let Some(value) = self.take(key) else {
            self.missing(key);
            return None;
        };
        self.as_text(key, value)
    }

    /// A name: letters, digits, `.`, `-`, `_`, at most 128. Names end up in URLs, metric labels and
    /// file names.
    pub(super) fn need_name(&mut self, key: &'static str) -> Option<Text<'b>> {
        let text = self.need_text(key)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if text.value.len() > 128 || !text.value.chars().all(fits) {
            self.error(text.at, format!("`{}` is not a usable name", text.value))
                .hint("names have letters, digits, `.`, `-` and `_`, at most 128");
            return None;
        }
        Some(text)
    }

    /// A string or an array of strings.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<Text<'b>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Array(items) => {
                items.iter().filter_map(|item| self.as_text(key, item)).collect()
            }
            DeValue::String(_) => self.as_text(key, value).into_iter().collect(),
            _ => {
                self.wrong(key, value, "a string or an array of strings");
                Vec::new()
            }
        }
    }

    pub(super) fn integer(&mut self, key: &'static str, range: Range<u64>) -> Option<u64> {
        let value = self.take(key)?;
        let Some(number) = value.get_ref().as_integer() else {
            self.wrong(key, value, "an integer");
            return None;
        };
        let digits = number.as_str().replace('_', "");
        match u64::from_str_radix(digits.trim_start_matches('+'), number.radix()) {
            Ok(n) if range.contains(&n) => Some(n),
            _ => {
                let (low, high) = (range.start, range.end - 1);
                self.error(
                    self.place(value.span()),
                    format!("`{key}`{} must be from {low} to {high}", self.inside()),
                );
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let value = self.take(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong(key, value, "`true` or `false`");
        }
        found
    }

    /// A duration above zero as people write it: `90s`, `15m`, `1h30m`.
    pub(super) fn span(&mut self, key: &'static str) -> Option<(Span, Place)> {
        let value = self.take(key)?;
        let at = self.place(value.span());
        let Some(text) = value.get_ref().as_str() else {
            self.wrong(key, value, "a duration in quotes")
                .hint("write one like `\"90s\"`, `\"15m\"` or `\"1h30m\"`");
            return None;
        };
        match text.parse::<Span>() {
            Ok(Span(0)) => {
                self.error(at, format!("`{key}`{} must be longer than nothing", self.inside()));
                None
            }
            Ok(span) => Some((span, at)),
            Err(why) => {
                self.error(at, why);
                None
            }
        }
    }

    /// One of a closed list of words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(key)?;
        self.pick(key, text, words)
    }

    pub(super) fn need_choice<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.need_text(key)?;
        self.pick(key, text, words)
    }

    pub(super) fn pick<T: Copy>(
        &self,
        key: &str,
        text: Text<'_>,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let found = words.iter().find(|(w, _)| *w == text.value).map(|(_, t)| *t);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
            self.error(text.at, format!("unknown {key} `{}`{}", text.value, self.inside()))
                .maybe_hint(names::hint(text.value, &known));
        }
        found
    }

    /// A sub-table, `[key]` or `{ … }`.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Table<'b, 'a>> {
        let value = self.take(key)?;
        self.as_table(key, value)
    }

    pub(super) fn as_table(
        &self,
        key: &'b str,
        value: &'b Spanned<DeValue<'a>>,
    ) -> Option<Table<'b, 'a>> {
        match value.get_ref() {
            DeValue::Table(entries) => Some(self.below(key, false, value.span(), entries)),
            _ => {
                self.wrong(key, value, "a table");
                None
            }
        }
    }

    /// The tables of `[[key]]`, in file order.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Table<'b, 'a>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong(key, value, "an array of tables").hint(format!("write `[[{key}]]`"));
            return Vec::new();
        };
        items
            .iter()
            .filter_map(|item| match item.get_ref() {
                DeValue::Table(entries) => Some(self.below(key, true, item.span(), entries)),
                _ => {
                    self.wrong(key, item, "a table").hint(format!("write `[[{key}]]`"));
                    None
                }
            })
            .collect()
    }

    /// The file's format version: `schema = 1`, at its start.
    pub(super) fn schema(&mut self) {
        if self.base > 0 {
            return;
        }
        let at = self.entries.get("schema").map(|v| self.place(v.span()));
        let missing = at.is_none();
        let known = self.integer("schema", 0..u64::MAX);
        if missing {
            self.error(self.place(0..0), "`schema` is missing")
                .hint("start the file with `schema = 1`");
        } else if let (Some(n), Some(at)) = (known, at)
            && n != 1
        {
            self.error(at, format!("this Farrier reads schema 1, not {n}"))
                .hint("the file is for another version of Farrier");
        }
    }

    /// Reports every key that nobody asked for.
    pub(super) fn done(self) {
        if self.taken == self.entries.len() {
            return;
        }
        for (key, _) in self.entries {
            let name: &str = key.get_ref();
            if !self.asked.contains(&name) {
                let secret = ["password", "passwd", "secret", "token"].contains(&name);
                let hint = if secret {
                    Some("secrets do not stand in these files: see `[[credential]]`".to_string())
                } else {
                    names::hint(name, &self.asked)
                };
                self.error(
                    self.place(key.span()),
                    format!("unknown key `{name}`{}", self.inside()),
                )
                .maybe_hint(hint);
            }
        }
    }
}
