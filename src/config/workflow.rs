//! Workflows: which steps a stage is made of, in which order and with which patience.

mod params;

use super::Source;
use super::book::{Book, Place};
use super::diagnostic::Diagnostic;
use super::names::{self, unique};
use super::table::Table;
use crate::model::Stage;
use crate::model::action::JobScript;
use crate::model::time::Span;
use crate::steps::power::Wanted;
use crate::steps::workflow::{Retry, StepSpec, Unsupported, When, Workflow};
use crate::steps::{Step, rescue};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A step without `timeout` gets an hour, or what its own waiting needs where that is longer.
pub const DEFAULT_TIMEOUT: Span = Span(3_600_000);
/// A step without `stall`.
pub const DEFAULT_STALL: Span = Span(900_000);
/// A workflow without `[watch] every`.
pub const DEFAULT_WATCH: Span = Span(60_000);

/// Reads workflows, one a file. Broken ones are left out of the list.
pub fn parse(sources: &[Source]) -> (Vec<Arc<Workflow>>, Vec<Diagnostic>) {
    let book = Book::new(sources.iter().collect());
    let all = read(&book, 0..sources.len());
    (all.into_iter().map(|w| w.workflow).collect(), book.finish())
}

/// A workflow with places for checks against other files.
pub(super) struct Placed {
    pub(super) workflow: Arc<Workflow>,
    /// Pools that `when` names.
    pub(super) pools: Vec<(String, Place)>,
    /// Every `[[step]]` of the file could be read: what is not in it is not there.
    pub(super) complete: bool,
}

/// A step with the place of its header.
struct Read {
    spec: StepSpec,
    at: Place,
}

pub(super) fn read(book: &Book<'_>, files: Range<usize>) -> Vec<Placed> {
    let mut names = BTreeMap::new();
    files.filter_map(|file| book.read(file, |top| workflow(top, &mut names))).collect()
}

fn workflow(mut top: Table<'_, '_>, names: &mut BTreeMap<String, Place>) -> Option<Placed> {
    let book = top.book;
    top.schema();
    let name = top.need_name("name");
    if let Some(name) = name {
        unique(&top, names, name, "workflow");
    }
    let mut watch = DEFAULT_WATCH;
    if let Some(mut t) = top.table("watch") {
        if let Some((every, at)) = t.span("every") {
            if every.0 < 1000 {
                t.error(at, "health probes can't be closer than a second");
            }
            watch = every;
        }
        t.done();
    }
    let sla = sla(&mut top);
    let mut keys = BTreeMap::new();
    let mut pools = Vec::new();
    let mut steps: Vec<Read> = Vec::new();
    let tables = top.tables("step");
    let written = tables.len();
    for mut t in tables {
        if let Some(spec) = step(&mut t, &mut keys, &mut pools) {
            steps.push(Read { spec, at: t.at });
        }
        t.done();
    }
    let complete = written == steps.len();
    // Checks of the whole need the whole: what a mistake hides is not missing.
    if written == 0 {
        book.error(top.at, "the workflow has no `[[step]]`");
    } else if complete {
        check_order(book, &steps);
        check_gates(book, &steps);
    }
    top.done();
    // Stable: steps of a stage keep their order.
    steps.sort_by_key(|s| s.spec.stage);
    let steps = steps.into_iter().map(|s| s.spec).collect();
    let workflow = Workflow { name: name?.value.into(), watch, sla, steps };
    Some(Placed { workflow: Arc::new(workflow), pools, complete })
}

/// `[sla]`: a duration by working stage.
fn sla(top: &mut Table<'_, '_>) -> BTreeMap<Stage, Span> {
    let mut out = BTreeMap::new();
    let Some(mut t) = top.table("sla") else { return out };
    for stage in Stage::ALL.into_iter().filter(|s| !s.is_resting()) {
        if let Some((span, _)) = t.span(stage.name()) {
            out.insert(stage, span);
        }
    }
    t.done();
    out
}

fn step(
    t: &mut Table<'_, '_>,
    keys: &mut BTreeMap<String, Place>,
    pools: &mut Vec<(String, Place)>,
) -> Option<StepSpec> {
    let key = t.need_name("key");
    if let Some(key) = key {
        unique(t, keys, key, "step");
    }
    let stage = stage(t);
    let step = params::step(t);
    let timeout = t.span("timeout");
    let stall = t.span("stall").map_or(DEFAULT_STALL, |(span, _)| span);
    let usual = t.span("usual").map_or(Span(0), |(span, _)| span);
    let retry = retry(t);
    let unsupported = t
        .choice(
            "unsupported",
            &[("quarantine", Unsupported::Quarantine), ("skip", Unsupported::Skip)],
        )
        .unwrap_or_default();
    let when = when(t, pools);
    let (key, stage, step) = (key?, stage?, step?);
    check_place(t, stage, &step);
    let needs = patience(&step);
    let timeout = match timeout {
        Some((span, at)) => {
            if let Some(needs) = needs
                && span.0 < needs.0
            {
                t.book
                    .warning(at, format!("`timeout` ends before the step's own {needs} are over"))
                    .hint("raise `timeout`, or lower the time in `params`");
            }
            span
        }
        // The timeout is the last resort, so it comes a while after the step's own limits.
        None => Span(needs.map_or(0, |n| n.0.saturating_add(900_000)).max(DEFAULT_TIMEOUT.0)),
    };
    Some(StepSpec {
        key: key.value.into(),
        stage,
        step,
        timeout,
        stall,
        usual,
        retry,
        unsupported,
        when,
    })
}

/// How long the kind itself may wait, by its parameters.
fn patience(step: &Step) -> Option<Span> {
    match step {
        Step::BurnIn(p) => Some(p.timeout),
        Step::Sanitize(p) => Some(p.timeout),
        Step::Drain(p) => Some(p.deadline),
        // Once to the callback, once to the first login.
        Step::Provision(p) => Some(Span(p.deadline.0.saturating_mul(2))),
        Step::Rescue(p) => {
            Some(Span(rescue::LONGEST.0.saturating_add(p.deadline.0.saturating_mul(2))))
        }
        Step::Bios(p) => Some(p.deadline),
        // Into the ramdisk and its first login, then a POST.
        Step::Volume(p) => Some(Span(p.deadline.0.saturating_mul(3))),
        _ => None,
    }
}

fn stage(t: &mut Table<'_, '_>) -> Option<Stage> {
    let text = t.need_text("stage")?;
    // What is done to a machine at rest there is done on a person's order.
    let on_order = |s: &Stage| *s == Stage::Repair;
    if let Some(stage) = Stage::from_name(text.value).filter(|s| s.is_resting() && !on_order(s)) {
        t.error(text.at, format!("nothing runs in `{stage}`: machines rest there"))
            .maybe_hint(working_stages_near(stage));
        return None;
    }
    let working: Vec<(&str, Stage)> = Stage::ALL
        .iter()
        .filter(|s| !s.is_resting() || on_order(s))
        .map(|s| (s.name(), *s))
        .collect();
    t.pick("stage", text, &working)
}

fn working_stages_near(resting: Stage) -> Option<String> {
    let into: Vec<&str> = crate::model::stage::EDGES
        .iter()
        .filter(|e| e.to == resting && !e.from.is_resting())
        .map(|e| e.from.name())
        .collect();
    (!into.is_empty()).then(|| format!("what leads there is done in {}", names::list(&into)))
}

fn retry(t: &mut Table<'_, '_>) -> Retry {
    let mut out = Retry::default();
    let Some(mut r) = t.table("retry") else { return out };
    if let Some(n) = r.integer("attempts", 1..1001) {
        out.attempts = u16::try_from(n).unwrap_or(out.attempts);
    }
    let base = r.span("base");
    let cap = r.span("cap");
    if let Some((base, _)) = base {
        out.base = base;
        // A longer first pause than the usual cap is meant so.
        out.cap = Span(out.cap.0.max(base.0));
    }
    if let Some((cap, at)) = cap {
        if cap.0 < out.base.0 {
            r.error(at, format!("the longest pause is shorter than the first one, {}", out.base));
        }
        out.cap = cap;
    }
    r.done();
    out
}

fn when(t: &mut Table<'_, '_>, pools: &mut Vec<(String, Place)>) -> When {
    let mut out = When::default();
    let Some(mut w) = t.table("when") else { return out };
    for pool in w.texts("pools") {
        out.pools.push(pool.value.to_string());
        pools.push((pool.value.to_string(), pool.at));
    }
    if let Some(mut labels) = w.table("labels") {
        for (key, value) in labels.pairs() {
            if let Some(text) = labels.as_text(key.value, value) {
                out.labels.insert(key.value.to_string(), text.value.to_string());
            }
        }
    }
    w.done();
    out
}

/// Kinds that make sense in some stages only.
fn check_place(t: &Table<'_, '_>, stage: Stage, step: &Step) {
    let only: &[Stage] = match step {
        // Wiping disks belongs to the end of a machine's life, after it has left its cluster.
        Step::Sanitize(_) | Step::ReleaseBmc(_) => &[Stage::Retire],
        Step::Rescue(_) => &[Stage::Repair],
        _ if stage == Stage::Repair => {
            t.error(t.at, format!("a `{}` step can't stand in stage `repair`", step.kind()))
                .hint("machines rest there; only a `rescue` step can, which a person asks for");
            return;
        }
        Step::Leave(_) => &[Stage::Drain, Stage::Retire],
        Step::Join(_) => &[Stage::Join],
        Step::Drain(_) => &[Stage::Drain, Stage::Retire],
        // After these the machine takes workloads, or may not be touched any more.
        Step::Firmware(_) | Step::Bios(_) | Step::Volume(_) | Step::Provision(_) => {
            &[Stage::Discover, Stage::Firmware, Stage::Provision, Stage::BurnIn]
        }
        _ => return,
    };
    if !only.contains(&stage) {
        let stages: Vec<&str> = only.iter().map(|s| s.name()).collect();
        t.error(t.at, format!("a `{}` step can't stand in stage `{stage}`", step.kind()))
            .hint(format!("it belongs to {}", names::list(&stages)));
    }
}

/// Stages in the file stand in the order in which machines pass them.
fn check_order(book: &Book<'_>, steps: &[Read]) {
    for pair in steps.windows(2) {
        let [before, after] = pair else { continue };
        if after.spec.stage < before.spec.stage {
            book.error(
                after.at,
                format!(
                    "step `{}` of stage `{}` stands after stage `{}`",
                    after.spec.key, after.spec.stage, before.spec.stage
                ),
            )
            .hint("write the stages in the order in which machines pass them");
        }
    }
}

/// Orders that cost data or trust when they are wrong.
fn check_gates(book: &Book<'_>, steps: &[Read]) {
    let always = |s: &&Read| s.spec.when == When::default();
    let proven = steps
        .iter()
        .filter(always)
        .any(|s| s.spec.stage == Stage::Discover && matches!(s.spec.step, Step::Identify(_)));
    let acts =
        steps.iter().find(|s| !matches!(s.spec.step, Step::Identify(_) | Step::Inventory(_)));
    if let (false, Some(first)) = (proven, acts) {
        book.error(
            first.at,
            format!("`{}` acts on a machine that no step has identified", first.spec.key),
        )
        .hint("start with an `identify` step in stage `discover`, without `when`");
    }
    let is_volume = |s: &&Read| matches!(s.spec.step, Step::Volume(_));
    let image = steps.iter().position(|s| matches!(s.spec.step, Step::Provision(_)));
    if let Some(late) = image.and_then(|i| steps.get(i..)?.iter().find(is_volume)) {
        book.error(
            late.at,
            format!("`{}` makes a volume after the image is written", late.spec.key),
        )
        .hint("what is on its drives is lost by that: put it before the `provision` step");
    }
    for (i, wipe) in steps.iter().enumerate() {
        if !matches!(&wipe.spec.step, Step::Sanitize(_)) {
            continue;
        }
        let before = steps.get(..i).unwrap_or_default();
        let retire = || before.iter().filter(|s| s.spec.stage == Stage::Retire);
        if let Some(off) =
            retire().find(|s| matches!(&s.spec.step, Step::Power(p) if p.state == Wanted::Off))
        {
            book.error(
                wipe.at,
                format!(
                    "`{}` needs the host up, and `{}` powers it off",
                    wipe.spec.key, off.spec.key
                ),
            )
            .hint(format!(
                "move `{}` behind it; it is at {}",
                off.spec.key,
                book.where_is(off.at)
            ));
        }
        if !retire().any(|s| matches!(s.spec.step, Step::Leave(_))) {
            book.error(
                wipe.at,
                format!("`{}` wipes a machine that may still be in a cluster", wipe.spec.key),
            )
            .hint("put a `leave` step before it; it is skipped where the profile has no cluster");
        }
    }
    for step in steps {
        if let Step::BurnIn(p) = &step.spec.step
            && p.preset == JobScript::Wipe
        {
            book.error(step.at, "burn-in can't run the wipe job")
                .hint("a `sanitize` step in stage `retire` does that, with its checks");
        }
    }
}
