//! How far the fleet is: a bar a stage on a terminal, a line now and then elsewhere.

use super::fleet::Fleet;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal;
use std::time::Duration;

/// On the way into service, in order.
const STAGES: [&str; 7] =
    ["discover", "firmware", "provision", "burn-in", "ready", "join", "in-service"];
/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

struct Bars {
    /// Keeps them on the screen together.
    _all: MultiProgress,
    /// By rank in [`STAGES`].
    stages: Vec<(usize, ProgressBar)>,
    foot: ProgressBar,
}

/// Where the progress is shown: always on standard error.
pub(super) struct Progress {
    bars: Option<Bars>,
    last: Cell<Option<Duration>>,
}

impl Progress {
    pub(super) fn new(machines: u32) -> Self {
        let bars = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::new();
            let style = ProgressStyle::with_template("{prefix:>12} {bar:40} {pos:>4}/{len} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            // Nobody rests at `ready` on the way; a bar for it would only repeat burn-in's.
            let stages = STAGES.iter().enumerate().filter(|(_, s)| **s != "ready");
            let bars = stages.map(|(rank, stage)| {
                let bar = all.add(ProgressBar::new(u64::from(machines)));
                bar.set_style(style.clone());
                bar.set_prefix(*stage);
                (rank, bar)
            });
            let bars: Vec<_> = bars.collect();
            let foot = all.add(ProgressBar::new_spinner());
            Bars { _all: all, stages: bars, foot }
        });
        Self { bars, last: Cell::new(None) }
    }

    /// Shows the fleet as it is now.
    pub(super) fn show(&self, fleet: &Fleet, elapsed: Duration) {
        let foot = format!(
            "{:>4} s   backing off {}, unreachable {}, quarantined {}",
            elapsed.as_secs(),
            fleet.with("backing-off"),
            fleet.with("unreachable"),
            fleet.quarantined(),
        );
        if let Some(Bars { stages, foot: spinner, .. }) = &self.bars {
            for (rank, bar) in stages {
                let here = fleet.at(STAGES[*rank]);
                let last = *rank + 1 == STAGES.len();
                bar.set_position(if last { count(here) } else { count(beyond(fleet, *rank)) });
                bar.set_message(if last || here == 0 {
                    String::new()
                } else {
                    format!("{here} in it")
                });
            }
            spinner.set_message(foot);
            spinner.tick();
            return;
        }
        if self.last.get().is_some_and(|last| elapsed < last + LINE_EVERY) {
            return;
        }
        self.last.set(Some(elapsed));
        let here: Vec<String> = STAGES
            .iter()
            .map(|s| (s, fleet.at(s)))
            .filter(|(_, n)| *n > 0)
            .map(|(s, n)| format!("{s} {n}"))
            .collect();
        eprintln!("{foot}   {}", here.join(", "));
    }

    /// Leaves the last state standing.
    pub(super) fn end(&self) {
        if let Some(Bars { stages, foot: spinner, .. }) = &self.bars {
            stages.iter().for_each(|(_, bar)| bar.abandon());
            spinner.abandon();
        }
    }
}

fn beyond(fleet: &Fleet, rank: usize) -> usize {
    STAGES[rank + 1..].iter().map(|s| fleet.at(s)).sum()
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
