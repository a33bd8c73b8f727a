//! The end of the daemon's log, kept in memory for evidence bundles. Bounded in bytes; lines hold
//! what the log holds, so no secrets.

use super::journal::rfc3339;
use crate::engine::clock::wall_ms;
use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Bytes of text that are kept: some ten thousand lines.
const BYTES_MAX: usize = 2 << 20;
/// Longest line, in bytes; what is beyond is dropped.
const LINE_MAX: usize = 4 << 10;

/// The subscriber is the process's, so its tail is too.
static PROCESS: LazyLock<LogTail> = LazyLock::new(LogTail::default);

/// The last lines of the log. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LogTail(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
}

#[derive(Debug)]
struct LogLine {
    wall_ms: u64,
    level: Level,
    /// The field `machine`: a name, or an id like `m7`.
    machine: Option<String>,
    text: String,
}

impl LogTail {
    /// The tail of this process's log; a layer for its subscriber.
    pub fn of_process() -> Self {
        PROCESS.clone()
    }

    fn keep(&self, line: LogLine) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += line.text.len();
        ring.lines.push_back(line);
        while ring.bytes > BYTES_MAX {
            let Some(old) = ring.lines.pop_front() else { break };
            ring.bytes -= old.text.len();
        }
    }

    /// Lines about a machine, and warnings that name none: those may be the cause. Oldest first.
    pub(super) fn about(&self, name: &str, id: &str) -> Vec<String> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = |line: &&LogLine| match line.machine.as_deref() {
            Some(machine) => machine == name || machine == id,
            None => line.level <= Level::WARN || names(&line.text, name),
        };
        let lines = ring.lines.iter().filter(mine);
        lines.map(|l| format!("{} {:>5} {}", rfc3339(l.wall_ms), l.level, l.text)).collect()
    }
}

/// Does the text name the machine, and not only one whose name begins the same?
fn names(text: &str, name: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "-_".contains(c));
    text.match_indices(name).any(|(at, found)| {
        let after = text.get(at + found.len()..).and_then(|rest| rest.chars().next());
        !part(text.get(..at).and_then(|t| t.chars().next_back())) && !part(after)
    })
}

impl<S: Subscriber> Layer<S> for LogTail {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut seen = Seen::default();
        event.record(&mut seen);
        let meta = event.metadata();
        let mut text = format!("{}: {}{}", meta.target(), seen.message, seen.fields);
        if text.len() > LINE_MAX {
            let end = (0..=LINE_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
        let line =
            LogLine { wall_ms: wall_ms(), level: *meta.level(), machine: seen.machine, text };
        self.keep(line);
    }
}

#[derive(Default)]
struct Seen {
    message: String,
    fields: String,
    machine: Option<String>,
}

impl Seen {
    fn add(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_string(),
            name => {
                if name == "machine" {
                    self.machine = Some(value.to_string());
                }
                write!(self.fields, " {name}={value}").ok();
            }
        }
    }
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn a_tail_tells_of_one_machine_and_of_the_site() {
        let tail = LogTail::default();
        let subscriber = tracing_subscriber::registry().with(tail.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(machine = "n1", fault = %"no answer", "mine");
            tracing::info!(machine = %"m7", "mine by id");
            tracing::info!(machine = "n12", "another's");
            tracing::warn!(error = "disk full", "commit failed");
            tracing::info!("something of no interest");
            tracing::info!("n12 is told in a text");
            tracing::info!("n1: told in a text");
        });
        let lines = tail.about("n1", "m7");
        let ends: Vec<&str> = lines.iter().map(|l| l.split_once(": ").unwrap().1).collect();
        assert_eq!(
            ends,
            [
                "mine machine=n1 fault=no answer",
                "mine by id machine=m7",
                "commit failed error=disk full",
                "n1: told in a text"
            ]
        );
        assert!(lines[2].contains("Z  WARN farrier::api::logs::tests: "), "{}", lines[2]);
    }

    #[test]
    fn the_tail_is_bounded() {
        let tail = LogTail::default();
        let subscriber = tracing_subscriber::registry().with(tail.clone());
        let long = "é".repeat(LINE_MAX);
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..2_000 {
                tracing::warn!(n, "{long}");
            }
        });
        let ring = tail.0.lock().unwrap();
        assert!(ring.bytes <= BYTES_MAX && ring.bytes > BYTES_MAX - 2 * LINE_MAX);
        assert_eq!(ring.bytes, ring.lines.iter().map(|l| l.text.len()).sum::<usize>());
        assert!(ring.lines.iter().all(|l| l.text.len() <= LINE_MAX));
    }
}
