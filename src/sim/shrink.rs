//! From a failing run to the shortest script found that still breaks the same rule: an earlier end,
//! fewer machines, fewer deeds and faults.

use super::run::{Ran, Spec};
use super::scenario::{Deed, MINUTE};
use super::script::{Script, Told};
use crate::model::MachineId;
use std::collections::BTreeSet;

/// Runs that shrinking may cost.
pub const RUNS: u32 = 600;

/// Shrinks `script`; `run` makes one run of it. `None`: played as it was recorded it breaks nothing
/// (what people draw in the liveness phase is not in it), so there is only the seed.
pub fn shrink(script: &Script, run: impl Fn(&Spec) -> Ran) -> Option<Script> {
    let mut left = RUNS;
    let mut breaks = |s: &Script| -> Option<Script> {
        left = left.checked_sub(1)?;
        let ran = run(&s.spec());
        let hit = ran.violations.iter().find(|v| v.rule == script.rule)?;
        Some(Script { machine: hit.machine, broke_at: hit.at, ..s.clone() })
    };
    // Rules that are judged at the end need it.
    let at_once = Script { until: script.broke_at + MINUTE, liveness_days: 0, ..script.clone() };
    let mut best = breaks(&cut_off(at_once)).or_else(|| breaks(script))?;
    if let Some(alone) = breaks(&only(&best, &BTreeSet::from([best.machine]))) {
        best = alone;
    }
    best = without_machines(best, &mut breaks);
    best = without_lines(best, &mut breaks);
    best = without_machines(best, &mut breaks);
    Some(best)
}

fn cut_off(mut script: Script) -> Script {
    let until = script.until;
    script.lines.retain(|l| l.at < until);
    script
}

/// The machines that a script names.
fn named(script: &Script) -> BTreeSet<MachineId> {
    let of = |told: &Told| match told {
        Told::Deed(Deed::Expect { machines }) => machines.clone(),
        _ => Vec::new(),
    };
    script.lines.iter().flat_map(|l| of(&l.what)).collect()
}

/// The script with these machines only: the others never reach the inventory.
fn only(script: &Script, machines: &BTreeSet<MachineId>) -> Script {
    let mut script = script.clone();
    for line in &mut script.lines {
        if let Told::Deed(Deed::Expect { machines: expected }) = &mut line.what {
            expected.retain(|m| machines.contains(m));
        }
    }
    script.lines.retain(|l| match &l.what {
        Told::Deed(Deed::Expect { machines }) => !machines.is_empty(),
        Told::Deed(deed) => deed.machine().is_none_or(|m| machines.contains(&m)),
        Told::Fault { machine, .. } => machine.is_none_or(|m| machines.contains(&m)),
    });
    script
}

fn without_machines(
    mut best: Script,
    breaks: &mut impl FnMut(&Script) -> Option<Script>,
) -> Script {
    let mut size = named(&best).len().div_ceil(2);
    while size > 0 {
        let all: Vec<MachineId> = named(&best).into_iter().collect();
        let mut found = None;
        for part in all.chunks(size) {
            let kept: BTreeSet<MachineId> =
                all.iter().copied().filter(|m| !part.contains(m)).collect();
            if !kept.is_empty() {
                found = breaks(&only(&best, &kept));
            }
            if found.is_some() {
                break;
            }
        }
        match found {
            Some(smaller) => best = smaller,
            None => size /= 2,
        }
    }
    best
}

fn without_lines(mut best: Script, breaks: &mut impl FnMut(&Script) -> Option<Script>) -> Script {
    let mut size = best.lines.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        let mut shrunk = false;
        while at < best.lines.len() {
            let mut smaller = best.clone();
            let end = (at + size).min(smaller.lines.len());
            let mut n = 0;
            smaller.lines.retain(|l| {
                let part = (at..end).contains(&n);
                n += 1;
                !part || matches!(l.what, Told::Deed(Deed::Expect { .. }))
            });
            let is_smaller = smaller.lines.len() < best.lines.len();
            match is_smaller.then(|| breaks(&smaller)).flatten() {
                Some(smaller) => {
                    best = smaller;
                    shrunk = true;
                }
                None => at += size,
            }
        }
        if !shrunk || size == 1 {
            size /= 2;
        }
    }
    best
}
