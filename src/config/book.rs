//! The sources under check and what was found in them: parsing, places, findings.

use super::Source;
use super::diagnostic::{Diagnostic, Lines, Severity, floor};
use super::table::Table;
use std::cell::{Cell, OnceCell, RefCell};
use std::ops::Range;
use toml::Spanned;
use toml::de::DeTable;

/// Text that is parsed at once, where a file can be read in pieces.
const PIECE: usize = 64 * 1024;

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

    /// The text of a file.
    pub(super) fn whole(&self, file: usize) -> &'a str {
        self.files.get(file).map_or("", |s| &s.text)
    }

    pub(super) fn path(&self, file: usize) -> &'a str {
        self.files.get(file).map_or("", |s| &s.path)
    }

    /// Parses one file and hands its top to `read`; syntax errors are noted.
    pub(super) fn read<R>(&self, file: usize, read: impl FnOnce(Table<'_, 'a>) -> R) -> R {
        let (text, table, errors) = self.parse(file, 0..usize::MAX);
        if !errors.is_empty() {
            self.note_syntax(file, 0, text, &errors);
        }
        read(Table::top(self, file, 0, table.get_ref()))
    }

    /// Like [`Book::read`], for files with very many `[[header]]`s: in pieces that start with one,
    /// so that a file with 100,000 machines is never in memory as a tree (1 KB and more a table).
    /// `read` gets the top of each piece; single tables and plain keys are in one of them.
    pub(super) fn read_in_pieces(
        &self,
        file: usize,
        header: &str,
        mut read: impl FnMut(Table<'_, 'a>),
    ) {
        let text = self.files.get(file).map_or("", |s| s.text.as_str());
        let cut = format!("\n{header}");
        let mut start = 0usize;
        loop {
            let after = floor(text, start.saturating_add(PIECE));
            let found = text.get(after..).and_then(|rest| rest.find(&cut));
            let mut end = found.map_or(usize::MAX, |i| after + i + 1);
            let (mut text, mut table, mut errors) = self.parse(file, start..end);
            if !errors.is_empty() {
                // What ends in the middle of something does not parse: either the file is wrong,
                // or the header stood inside a string. The rest as one piece tells.
                end = usize::MAX;
                (text, table, errors) = self.parse(file, start..end);
            }
            if !errors.is_empty() {
                self.note_syntax(file, start, text, &errors);
            }
            read(Table::top(self, file, start, table.get_ref()));
            if end == usize::MAX {
                return;
            }
            start = end;
        }
    }

    fn parse(
        &self,
        file: usize,
        part: Range<usize>,
    ) -> (&'a str, Spanned<DeTable<'a>>, Vec<toml::de::Error>) {
        let mut text = self.files.get(file).map_or("", |s| s.text.as_str());
        // Places are 32 bits wide; a larger file is not one that people wrote.
        if u32::try_from(text.len()).is_err() {
            self.error(place(file, 0..0), "the file is larger than 4 GB");
            self.set_broken(file);
            text = "";
        }
        let text = text.get(part.start..part.end.min(text.len())).unwrap_or("");
        let (table, errors) = DeTable::parse_recoverable(text);
        (text, table, errors)
    }

    /// One mistake derails the parser for a while: the first complaint of each line is the useful
    /// one, and later lines are mostly echoes.
    fn note_syntax(&self, file: usize, base: usize, text: &str, errors: &[toml::de::Error]) {
        let mut found: Vec<(Range<usize>, String)> = errors
            .iter()
            .map(|e| (e.span().unwrap_or(0..0), e.message().trim().replace('\n', "; ")))
            .collect();
        found.sort_by_key(|(span, _)| span.start);
        let mut line = usize::MAX;
        let mut shown = 0;
        for (span, message) in found {
            let before = text.get(..span.start.min(text.len())).unwrap_or("");
            let this = before.bytes().filter(|b| *b == b'\n').count();
            if this != line && shown < 5 {
                let span = base + span.start..base + span.end;
                self.error(place(file, span), format!("not valid TOML: {message}"));
                shown += 1;
            }
            line = this;
        }
        self.set_broken(file);
    }

    fn set_broken(&self, file: usize) {
        if let Some(b) = self.broken.borrow_mut().get_mut(file) {
            *b = true;
        }
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
