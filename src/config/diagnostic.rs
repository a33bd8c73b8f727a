//! What is wrong with a file, where, and what to do about it: shown the way compilers show it.

use super::Source;
use std::fmt;
use std::ops::Range;

/// Does a finding stop the configuration from loading?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is not loaded; a running daemon keeps the last good one.
    Error,
    /// Loaded, but somebody should look.
    Warning,
}

/// One finding with its place. `Display` shows all of it over several lines:
///
/// ```text
/// error: unknown key `seriall` in `[[machine]]`
///  --> inventory.toml:12:1
///    |
/// 12 | seriall = "7XJ9K33"
///    | ^^^^^^^
/// hint: did you mean `serial`?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// As [`Source::path`] names it.
    pub file: String,
    /// From 1; 0 when the finding has no place in the file (it can't be read at all).
    pub line: usize,
    /// From 1, in characters; 0 when there is no place.
    pub column: usize,
    /// Bytes of the file's text.
    pub span: Range<usize>,
    pub message: String,
    pub hint: Option<String>,
    /// The line with the place underlined; values that look like secrets are masked.
    pub excerpt: String,
}

impl Diagnostic {
    /// A finding about a whole file: it is missing, unreadable, not UTF-8.
    pub fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            line: 0,
            column: 0,
            span: 0..0,
            message: printable(&message.into()),
            hint: None,
            excerpt: String::new(),
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{word}: {}", self.message)?;
        let indent = self.line.max(1).ilog10() as usize + 1;
        if self.line == 0 {
            writeln!(f, "{:indent$}--> {}", "", self.file)?;
        } else {
            writeln!(f, "{:indent$}--> {}:{}:{}", "", self.file, self.line, self.column)?;
            f.write_str(&self.excerpt)?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "hint: {hint}")?;
        }
        Ok(())
    }
}

/// A generated file with one mistake has it ten thousand times; nobody reads them all.
const SHOWN: usize = 100;

/// The whole report: every finding, then how many there are.
pub fn render(diagnostics: &[Diagnostic]) -> String {
    let mut out = String::new();
    // Errors first in what is shown: a flood of warnings must not hide them.
    let errors = diagnostics.iter().filter(|d| d.is_error()).count();
    let mut room_for_warnings = SHOWN.saturating_sub(errors);
    let mut room_for_errors = SHOWN;
    let mut hidden = 0usize;
    for d in diagnostics {
        let room = if d.is_error() { &mut room_for_errors } else { &mut room_for_warnings };
        if *room == 0 {
            hidden += 1;
            continue;
        }
        *room -= 1;
        out.push_str(&d.to_string());
        out.push('\n');
    }
    if hidden > 0 {
        out.push_str(&format!("{hidden} more are not shown\n"));
    }
    let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let warnings = diagnostics.len() - errors;
    match (errors, warnings) {
        (0, 0) => {}
        (_, 0) => out.push_str(&format!("{}\n", count(errors, "error"))),
        (0, _) => out.push_str(&format!("{}\n", count(warnings, "warning"))),
        _ => {
            out.push_str(&format!("{}, {}\n", count(errors, "error"), count(warnings, "warning")));
        }
    }
    out
}

/// Where the lines of a text start, so that ten thousand findings cost one pass over it.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    source: &'a Source,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        let newlines = source.text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        let starts = std::iter::once(0).chain(newlines.map(|(i, _)| i + 1)).collect();
        Self { source, starts }
    }

    /// From 1.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.starts.partition_point(|s| *s <= at).max(1)
    }

    pub(super) fn diagnostic(
        &self,
        severity: Severity,
        span: Range<usize>,
        message: String,
        hint: Option<String>,
    ) -> Diagnostic {
        let text = &self.source.text;
        let start = floor(text, span.start);
        let end = floor(text, span.end).max(start);
        let line = self.line_of(start);
        let line_start = self.starts.get(line - 1).copied().unwrap_or(0);
        let line_end = self.starts.get(line).map_or(text.len(), |next| next - 1);
        let before = text.get(line_start..start).unwrap_or("");
        let shown = text.get(line_start..line_end).unwrap_or("").trim_end_matches('\r');
        let marked = text.get(start..end.min(line_end)).unwrap_or("").trim_end_matches('\r');
        let column = before.chars().count() + 1;
        Diagnostic {
            severity,
            file: self.source.path.clone(),
            line,
            column,
            span: start..end,
            message: printable(&message),
            hint: hint.map(|h| printable(&h)),
            excerpt: excerpt(line, shown, column - 1, marked.chars().count()),
        }
    }
}

/// The nearest character boundary at or before `at`.
pub(super) fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Longest part of a line that is shown.
const WIDTH: usize = 120;

fn excerpt(line: usize, text: &str, skip: usize, marked: usize) -> String {
    let masked = mask(text);
    let total = masked.chars().count();
    // A machine-made line can be a megabyte: show the part around the place.
    let from = if total <= WIDTH || skip < WIDTH / 2 { 0 } else { skip - WIDTH / 2 };
    let part = printable(&masked.chars().skip(from).take(WIDTH).collect::<String>());
    let skip = (skip - from).min(part.chars().count());
    let marked = marked.clamp(1, part.chars().count().saturating_sub(skip).max(1));
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    let pad = " ".repeat(skip);
    let carets = "^".repeat(marked);
    let space = if part.is_empty() { "" } else { " " };
    format!("{gutter} |\n{number} |{space}{part}\n{gutter} | {pad}{carets}\n")
}

/// Control characters would move the cursor or recolour the terminal of whoever reads the report.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Replaces what looks like a secret, whose place is not in these files, so that reporting the
/// mistake does not spread it: values after `password`-like keys, and `user:password@` in URLs.
fn mask(line: &str) -> String {
    let low = line.to_ascii_lowercase();
    for word in ["password", "passwd", "passphrase", "secret", "token"] {
        for (at, _) in low.match_indices(word) {
            let rest = &line[at + word.len()..];
            let is_value = rest.trim_start_matches(['"', '\'', ' ', '\t']).starts_with('=');
            if let (true, Some(eq)) = (is_value, rest.find('=')) {
                return format!("{} …", &line[..at + word.len() + eq + 1]);
            }
        }
    }
    let mut out = String::new();
    let mut rest = line;
    while let Some((head, tail)) = rest.split_once("://") {
        out.push_str(head);
        out.push_str("://");
        let end = tail.find([' ', '"', '\'', '/']).unwrap_or(tail.len());
        // A password may have an `@` or a `/` itself: up to the last `@` of the quoted text.
        let quoted = tail.find(['"', '\'']).unwrap_or(end).max(end);
        rest = match tail[..quoted].rfind('@') {
            Some(at) => {
                out.push('…');
                &tail[at..]
            }
            None => tail,
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, span: Range<usize>) -> Diagnostic {
        let source = Source { path: "f.toml".into(), text: text.into() };
        Lines::new(&source).diagnostic(Severity::Error, span, "m".into(), None)
    }

    #[test]
    fn places_count_lines_and_characters() {
        let d = at("a = 1\nbé = 2\n", 10..11);
        assert_eq!((d.line, d.column), (2, 4));
        assert_eq!(d.excerpt, "  |\n2 | bé = 2\n  |    ^\n");
        let end = at("a = ", 4..4);
        assert_eq!((end.line, end.column), (1, 5));
        // Outside the text and inside a character: the nearest place, no panic.
        assert_eq!(at("é", 1..99).column, 1);
        assert_eq!(at("", 5..9).line, 1);
    }

    #[test]
    fn secrets_are_not_repeated() {
        assert_eq!(mask("password = \"calvin\""), "password = …");
        assert_eq!(
            mask("a = { user = \"x\", Password=\"calvin\" }"),
            "a = { user = \"x\", Password= …"
        );
        assert_eq!(mask("url = \"https://root:calvin@10.0.0.1\""), "url = \"https://…@10.0.0.1\"");
        assert_eq!(
            mask("{ a = \"http://h\", b = \"http://u:p/@x@h/p\" }"),
            "{ a = \"http://h\", b = \"http://…@h/p\" }"
        );
        assert_eq!(mask("token_file = \"/x\""), "token_file = \"/x\"");
        assert_eq!(mask("[secrets]"), "[secrets]");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("x = \"{}\" y", "a".repeat(5000));
        let d = at(&text, 5007..5008);
        assert!(d.excerpt.lines().all(|l| l.chars().count() < 140), "{}", d.excerpt);
        let lines: Vec<&str> = d.excerpt.lines().collect();
        let caret = lines[2].find('^').unwrap();
        assert_eq!(lines[1].chars().nth(caret), Some('y'));
    }

    #[test]
    fn errors_are_shown_before_a_flood_of_warnings_ends() {
        let mut all: Vec<Diagnostic> = (0..150)
            .map(|_| Diagnostic { severity: Severity::Warning, ..Diagnostic::of_file("f", "w") })
            .collect();
        all.push(Diagnostic::of_file("f", "the one that counts"));
        let text = render(&all);
        assert!(text.contains("error: the one that counts"));
        assert!(text.ends_with("51 more are not shown\n1 error, 150 warnings\n"), "{text}");
    }
}
