//! What people and programs get to see.

use crate::api::problem::Body;
use serde::Serialize;
use std::fmt;
use std::io::Write;

/// Where a command writes.
pub struct Io<'a> {
    out: &'a mut (dyn Write + Send),
    err: &'a mut (dyn Write + Send),
    pub(crate) json: bool,
    colour: bool,
}

impl fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Io")
    }
}

impl<'a> Io<'a> {
    pub fn new(
        out: &'a mut (dyn Write + Send),
        err: &'a mut (dyn Write + Send),
        json: bool,
        colour: bool,
    ) -> Self {
        Self { out, err, json, colour }
    }

    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        writeln!(self.out, "{text}").map_err(|_| Failure::Pipe)
    }

    /// A line beside the answer, for people: standard output may be piped.
    pub(crate) fn note(&mut self, text: impl fmt::Display) {
        writeln!(self.err, "{text}").ok();
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|_| Failure::Pipe)
    }

    /// As they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|_| Failure::Pipe)?;
        self.flush()
    }

    /// One JSON document.
    pub(crate) fn document(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).unwrap_or_default();
        self.line(text)
    }

    pub(crate) fn paint(&self, paint: Paint, text: &str) -> String {
        match (self.colour, paint) {
            (false, _) | (_, Paint::None) => text.to_string(),
            (true, paint) => format!("\x1b[{}m{text}\x1b[0m", paint as u8),
        }
    }

    /// Rows in columns as wide as their widest cell; the last one is not padded.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<Cell>]) -> Result<(), Failure> {
        let mut width: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
        for row in rows {
            for (w, cell) in width.iter_mut().zip(row) {
                *w = (*w).max(cell.text.chars().count());
            }
        }
        let titles = head.iter().map(|h| Cell::new(*h).painted(Paint::Dim)).collect();
        for row in std::iter::once(&titles).chain(rows) {
            let mut line = String::new();
            let last = row.iter().rposition(|c| !c.text.is_empty()).unwrap_or(0);
            for (n, (cell, width)) in row.iter().zip(&width).enumerate().take(last + 1) {
                line.push_str(&self.paint(cell.paint, &cell.text));
                if n < last {
                    let gap = width - cell.text.chars().count() + 2;
                    line.extend(std::iter::repeat_n(' ', gap));
                }
            }
            self.line(line)?;
        }
        Ok(())
    }

    /// `name  value` lines, for one thing.
    pub(crate) fn fields(&mut self, fields: &[(&str, String)]) -> Result<(), Failure> {
        let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in fields.iter().filter(|(_, v)| !v.is_empty()) {
            let pad = " ".repeat(width - name.chars().count());
            let name = self.paint(Paint::Dim, name);
            // Further lines of a value stand below its first.
            let below = format!("\n{}", " ".repeat(width + 4));
            self.line(format_args!("  {name}{pad}  {}", printable(value).replace('\n', &below)))?;
        }
        Ok(())
    }
}

/// Text from outside may hold terminal escapes: they are shown, not obeyed.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// ANSI colours (SGR numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Paint {
    None = 0,
    Bold = 1,
    Dim = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
    Blue = 34,
    Magenta = 35,
}

/// One cell of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: printable(&text.into()).replace('\n', " "), paint: Paint::None }
    }

    pub(crate) fn painted(mut self, paint: Paint) -> Self {
        self.paint = paint;
        self
    }
}

/// Why a command did not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line makes no sense.
    Usage {
        error: String,
        hint: Option<String>,
    },
    Error {
        error: String,
        hint: Option<String>,
    },
    /// Nobody reads any more (`| head`).
    Pipe,
    /// All is said.
    Said,
}

impl Failure {
    pub(crate) fn usage(error: impl Into<String>) -> Self {
        Failure::Usage { error: error.into(), hint: None }
    }

    pub(crate) fn error(error: impl Into<String>) -> Self {
        Failure::Error { error: error.into(), hint: None }
    }

    pub(crate) fn hint(self, text: impl Into<String>) -> Self {
        match self {
            Failure::Usage { error, .. } => Failure::Usage { error, hint: Some(text.into()) },
            Failure::Error { error, .. } => Failure::Error { error, hint: Some(text.into()) },
            other => other,
        }
    }

    pub(crate) fn of(problem: &Body) -> Self {
        let failure = Failure::error(problem.detail.clone());
        match (&problem.hint, &*problem.code, problem.machines) {
            (_, "confirm-needed", Some(count)) => failure.hint(format!(
                "nothing was changed; look with `farrier machine list`, then add --confirm {count}"
            )),
            (_, "bad-body", _) if problem.place.as_deref().is_some_and(|p| p.ends_with("why")) => {
                failure.hint("--why \"…\": one sentence for the person who reads it at 3 a.m.")
            }
            (Some(hint), _, _) => failure.hint(hint.clone()),
            _ => failure,
        }
    }

    /// Says it on standard error; returns the exit code.
    pub(crate) fn report(self, io: &mut Io<'_>) -> u8 {
        let (code, error, hint) = match self {
            Failure::Usage { error, hint } => (2, error, hint),
            Failure::Error { error, hint } => (1, error, hint),
            Failure::Pipe => return 0,
            Failure::Said => return 1,
        };
        let mut text = format!("error: {}\n", printable(&error));
        if let Some(hint) = hint {
            text += &format!("hint: {}\n", printable(&hint));
        }
        io.err.write_all(text.as_bytes()).ok();
        code
    }
}
