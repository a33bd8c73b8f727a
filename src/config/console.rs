//! `[console]`: what is kept of what machines say on their serial consoles.

use super::table::Table;
use crate::model::time::Span;

/// Consoles that are followed while a run boots its machine: only of machines with an `ipmi` address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consoles {
    pub follow: bool,
    /// Of one console, its end.
    pub keep_kib: u64,
    /// Followed at the same time, on the whole site.
    pub at_once: usize,
    /// Consoles of failed runs: so many, so long.
    pub keep_runs: usize,
    pub keep_for: Span,
}

impl Default for Consoles {
    fn default() -> Self {
        Self {
            follow: true,
            keep_kib: 256,
            at_once: 32,
            keep_runs: 200,
            keep_for: Span(30 * 24 * 3_600_000),
        }
    }
}

pub(super) fn read(table: Option<Table<'_, '_>>) -> Consoles {
    let usual = Consoles::default();
    let Some(mut t) = table else { return usual };
    let count = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok());
    let read = Consoles {
        follow: t.boolean("follow").unwrap_or(usual.follow),
        keep_kib: t.integer("keep_kib", 16..16_385).unwrap_or(usual.keep_kib),
        at_once: count(t.integer("at_once", 1..513)).unwrap_or(usual.at_once),
        keep_runs: count(t.integer("keep_runs", 1..10_001)).unwrap_or(usual.keep_runs),
        keep_for: t.span("keep_for").map_or(usual.keep_for, |(span, _)| span),
    };
    t.done();
    read
}

#[cfg(test)]
mod tests {
    use super::super::{Source, daemon};
    use super::*;

    fn parse(text: &str) -> Result<Consoles, Vec<String>> {
        let source = Source::new("farrier.toml", format!("schema = 1\n{text}"));
        match daemon::parse(&source) {
            (Some(d), _) => Ok(d.consoles),
            (None, found) => Err(found.iter().map(|d| format!("{d:?}")).collect()),
        }
    }

    #[test]
    fn consoles_are_followed_unless_the_file_says_otherwise() {
        assert_eq!(parse("").unwrap(), Consoles::default());
        assert!(Consoles::default().follow);
        let own = parse(
            "[console]\nfollow = false\nkeep_kib = 64\nat_once = 4\nkeep_runs = 10\nkeep_for = \"7d\"",
        );
        let wanted = Consoles {
            follow: false,
            keep_kib: 64,
            at_once: 4,
            keep_runs: 10,
            keep_for: Span(7 * 24 * 3_600_000),
        };
        assert_eq!(own.unwrap(), wanted);
        for wrong in ["follow = 1", "keep_kib = 1", "at_once = 0", "keep_for = \"0s\"", "keep = 1"]
        {
            assert!(parse(&format!("[console]\n{wrong}")).is_err(), "{wrong}");
        }
    }
}
