//! Reading TOML by taking keys: every mistake becomes a finding at its place, reading goes on, and
//! what nobody took is an unknown key.

use super::Source;
use super::diagnostic::{Diagnostic, Lines, Severity};
use super::names;
use crate::model::time::Span;
use std::cell::{Cell, OnceCell, RefCell};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Bytes of one of the sources. Kept beside values that are checked against other files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: u32,
    pub(super) start: u32,
    pub(super) end: u32,
}

struct Note {
    severity: Severity,
    place: Place,
    message: String,
    hint: Option<String>,
}

/// All sources under check and what was found in them.
pub(super) struct Book<'a> {
    files: Vec<&'a Source>,
    lines: Vec<OnceCell<Lines<'a>>>,
    /// Files with a syntax error: what else they seem to say is not reported.
    broken: RefCell<Vec<bool>>,
    /// Searches for the name that was meant that may still be made: each looks at all names, and
    /// a generated file can have a wrong one in every machine.
    searches: Cell<u32>,
    notes: RefCell<Vec<Note>>,
}

impl<'a> Book<'a> {
    pub(super) fn new(files: Vec<&'a Source>) -> Self {
        let broken = RefCell::new(vec![false; files.len()]);
        let lines = files.iter().map(|_| OnceCell::new()).collect();
        Self { files, lines, broken, searches: Cell::new(200), notes: RefCell::default() }
    }

    pub(super) fn error(&self, place: Place, message: impl Into<String>) -> Fix<'_, 'a> {
        self.note(Severity::Error, place, message.into())
    }

    pub(super) fn warning(&self, place: Place, message: impl Into<String>) -> Fix<'_, 'a> {
        self.note(Severity::Warning, place, message.into())
    }

    fn note(&self, severity: Severity, place: Place, message: String) -> Fix<'_, 'a> {
        if self.is_broken(place.file) {
            return Fix { book: self, note: None };
        }
        let mut notes = self.notes.borrow_mut();
        notes.push(Note { severity, place, message, hint: None });
        Fix { book: self, note: Some(notes.len() - 1) }
    }

    pub(super) fn is_broken(&self, file: u32) -> bool {
        self.broken.borrow().get(file as usize).copied().unwrap_or(true)
    }

    /// Does one of these files have a syntax error? Then what seems missing may stand in it.
    pub(super) fn any_broken(&self, files: Range<usize>) -> bool {
        self.broken.borrow().get(files).is_some_and(|b| b.contains(&true))
    }

    /// May the name that was probably meant be searched for once more?
    pub(super) fn may_search(&self) -> bool {
        let left = self.searches.get();
        self.searches.set(left.saturating_sub(1));
        left > 0
    }

    /// `path:line` of a place, for hints that point at another one.
    pub(super) fn where_is(&self, place: Place) -> String {
        let line = self.lines(place.file).map_or(1, |l| l.line_of(place.start as usize));
        format!("{}:{line}", self.path(place.file as usize))
    }

    fn lines(&self, file: u32) -> Option<&Lines<'a>> {
        let source = self.files.get(file as usize)?;
        Some(self.lines.get(file as usize)?.get_or_init(|| Lines::new(source)))
    }

    /// The text of a place.
    pub(super) fn text_of(&self, place: Place) -> &'a str {
        let span = place.start as usize..place.end as usize;
        self.files.get(place.file as usize).and_then(|s| s.text.get(span)).unwrap_or("")
    }

    pub(super) fn path(&self, file: usize) -> &'a str {
        self.files.get(file).map_or("", |s| &s.path)
    }

    /// Parses one file; its syntax errors are noted. Read the result with [`Book::root`].
    pub(super) fn parse(&self, file: usize) -> Spanned<DeTable<'a>> {
        let empty = || Spanned::new(0..0, DeTable::new());
        let Some(source) = self.files.get(file) else { return empty() };
        // Places are 32 bits wide; a larger file is not one that people wrote.
        if u32::try_from(source.text.len()).is_err() {
            self.error(place(file, 0..0), "the file is larger than 4 GB");
            self.set_broken(file);
            return empty();
        }
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        if errors.is_empty() {
            return table;
        }
        let mut found: Vec<(Range<usize>, String)> = errors
            .iter()
            .map(|e| (e.span().unwrap_or(0..0), e.message().trim().replace('\n', "; ")))
            .collect();
        found.sort_by_key(|(span, _)| span.start);
        // One mistake derails the parser for a while: the first complaint of each line is the
        // useful one, and later lines are mostly echoes.
        let mut line = usize::MAX;
        let mut shown = 0;
        for (span, message) in found {
            let before = source.text.get(..span.start.min(source.text.len())).unwrap_or("");
            let this = before.bytes().filter(|b| *b == b'\n').count();
            if this != line && shown < 5 {
                self.error(place(file, span), format!("not valid TOML: {message}"));
                shown += 1;
            }
            line = this;
        }
        self.set_broken(file);
        table
    }

    fn set_broken(&self, file: usize) {
        if let Some(b) = self.broken.borrow_mut().get_mut(file) {
            *b = true;
        }
    }

    /// The top of a parsed file.
    pub(super) fn root<'b>(
        &'b self,
        file: usize,
        table: &'b Spanned<DeTable<'a>>,
    ) -> Table<'b, 'a> {
        Table::new(self, place(file, 0..0), String::new(), table.get_ref())
    }

    /// Every finding, by file and place.
    pub(super) fn finish(self) -> Vec<Diagnostic> {
        let mut notes = self.notes.take();
        notes.sort_by_key(|n| (n.place, n.severity));
        notes
            .into_iter()
            .filter_map(|n| {
                let span = n.place.start as usize..n.place.end as usize;
                let lines = self.lines(n.place.file)?;
                Some(lines.diagnostic(n.severity, span, n.message, n.hint))
            })
            .collect()
    }
}

/// A finding just made, to which a hint may be added.
pub(super) struct Fix<'b, 'a> {
    book: &'b Book<'a>,
    note: Option<usize>,
}

impl Fix<'_, '_> {
    pub(super) fn hint(self, hint: impl Into<String>) {
        self.maybe_hint(Some(hint.into()));
    }

    pub(super) fn maybe_hint(self, hint: Option<String>) {
        let mut notes = self.book.notes.borrow_mut();
        if let Some(note) = self.note.and_then(|i| notes.get_mut(i)) {
            note.hint = hint;
        }
    }
}

pub(super) fn place(file: usize, span: Range<usize>) -> Place {
    let cut = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { file: cut(file), start: cut(span.start), end: cut(span.end) }
}

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
    /// As messages name it: `[[machine]]`; empty for the top of a file.
    what: String,
    entries: &'b DeTable<'a>,
    asked: Vec<&'static str>,
    taken: usize,
}

impl<'b, 'a> Table<'b, 'a> {
    fn new(book: &'b Book<'a>, at: Place, what: String, entries: &'b DeTable<'a>) -> Self {
        Self { book, at, what, entries, asked: Vec::new(), taken: 0 }
    }

    /// " in `[[machine]]`", or nothing at the top.
    fn inside(&self) -> String {
        if self.what.is_empty() { String::new() } else { format!(" in `{}`", self.what) }
    }

    fn place(&self, span: Range<usize>) -> Place {
        place(self.at.file as usize, span)
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
        let place = if self.what.is_empty() { self.place(0..0) } else { self.at };
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
        key: &str,
        value: &'b Spanned<DeValue<'a>>,
    ) -> Option<Table<'b, 'a>> {
        match value.get_ref() {
            DeValue::Table(entries) => {
                let what = match self.what.trim_matches(['[', ']']) {
                    "" => format!("[{key}]"),
                    above => format!("{above}.{key}"),
                };
                Some(Table::new(self.book, self.place(value.span()), what, entries))
            }
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
                DeValue::Table(entries) => {
                    let at = self.place(item.span());
                    Some(Table::new(self.book, at, format!("[[{key}]]"), entries))
                }
                _ => {
                    self.wrong(key, item, "a table").hint(format!("write `[[{key}]]`"));
                    None
                }
            })
            .collect()
    }

    /// The file's format version: `schema = 1`.
    pub(super) fn schema(&mut self) {
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
