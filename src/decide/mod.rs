//! Machine-wide rules, pure: `(machine, workflow, facts, now, headroom) → Verdict`. No I/O, no
//! clock, no randomness: the same input gives the same verdict, today and in the simulator.

mod certificate;
mod copying;
pub mod explain;
pub mod gate;
pub mod judge;
mod out_of_band;
pub mod outage;
mod pace;
pub mod password;
pub mod probes;
pub mod reach;
mod remedy;
pub mod restored;
pub mod retry;
pub mod rotation;
pub mod route;
pub mod stuck;
pub mod watch;

use crate::model::facts::Read;
use crate::model::machine::ROOM;
use crate::model::{
    Action, ActionKind, Channel, EngineTime, Entry, Expected, Fault, FaultClass, LimitClass,
    Machine, MachineId, OpenState, Outcome, Report, StepEnd,
};
use crate::steps::site::{Profile, Site};
use crate::steps::workflow::{StepSpec, Unsupported, Workflow};
use crate::steps::{Look, View};
use copying::Against;
use outage::Outage;
use restored::Weighed;
use retry::Failed;

/// Everything a decision may read.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub m: &'a Machine,
    pub expected: &'a Expected,
    pub profile: &'a Profile,
    pub site: &'a Site,
    /// The run's own workflow, or the profile's current one when there is no run.
    pub workflow: &'a Workflow,
    /// Fresh: read for this decision.
    pub report: &'a Report,
    pub now: EngineTime,
    pub room: &'a dyn Room,
    /// `farrier stop` or `--observe-only`: no actions.
    pub stopped: bool,
    /// When actions were last allowed again.
    pub resumed: EngineTime,
    /// What the machine shares with others and is out, or was until lately.
    pub outage: Option<&'a Outage>,
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Input({} in {})", self.m.name, self.m.stage)
    }
}

/// Headroom, as a decision sees it.
pub trait Room {
    /// The bucket that has no room for one more `class` of this machine, in words; `None` = room.
    fn full(&self, machine: MachineId, class: LimitClass) -> Option<String>;
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing to write. Look again at `due`.
    Rest { due: EngineTime, waiting: Option<String> },
    /// Make these entries durable, then look again at `due`.
    Write { entries: Vec<Entry>, due: EngineTime },
    /// Make these entries durable, the last being the intent; then do it once.
    Act { entries: Vec<Entry> },
}

/// Decisions as a value, so that the simulator can break them on purpose.
pub trait Decide {
    fn decide(&self, input: &Input<'_>) -> Verdict;

    /// The entries that an action's answer makes. `input.report` is empty: nothing was probed.
    fn settle(&self, input: &Input<'_>, outcome: Outcome) -> Vec<Entry> {
        settle(input, outcome)
    }
}

/// The decisions that ship.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules;

impl Decide for Rules {
    fn decide(&self, input: &Input<'_>) -> Verdict {
        decide(input)
    }
}

fn decide(i: &Input<'_>) -> Verdict {
    let m = i.m;
    // After a restart an intent without outcome is unknown, whatever else is true.
    if let Some(open) = &m.open
        && open.state == OpenState::Intended
    {
        let fault = Fault::new(
            FaultClass::OutcomeUnknown,
            Channel::Engine,
            Fault::INTERRUPTED,
            format!("`{}` was under way when the daemon ended", open.action.kind()),
        );
        return write(vec![Entry::Settled { outcome: Outcome::Unknown { fault } }], i.now);
    }
    if let Some(verdict) = reach::away(i) {
        return verdict;
    }
    if let Some(verdict) = watch::identity(i) {
        return verdict;
    }
    if m.open.is_some() {
        return judge::open_action(i);
    }
    if m.is_quarantined() {
        return Verdict::Rest { due: i.now + watch::pause(i), waiting: None };
    }
    if let Some(hold) = &m.hold {
        if let Some(verdict) = restored::while_held(i) {
            return verdict;
        }
        let waiting = format!("the hold of {} to end ({})", hold.by, hold.why);
        return Verdict::Rest { due: i.now + watch::pause(i), waiting: Some(waiting) };
    }
    match (&m.run, &m.step) {
        (None, _) => match route::departure(i) {
            Some(entries) => write(entries, i.now),
            None => watch::at_rest(i),
        },
        (Some(run), _) if run.abort.is_some() => abort(i),
        (Some(_), None) => write(route::advance(i, None), i.now),
        (Some(_), Some(step)) => match i.workflow.steps.get(usize::from(step.index)) {
            Some(spec) if spec.key == step.key => look(i, spec),
            _ => give_up(
                i,
                Fault::new(
                    FaultClass::Bug,
                    Channel::Engine,
                    "no-such-step",
                    format!("the pinned workflow has no step `{}`", step.key),
                ),
            ),
        },
    }
}

fn settle(i: &Input<'_>, outcome: Outcome) -> Vec<Entry> {
    let fault = match &outcome {
        Outcome::Failed { fault } if leads_elsewhere(i) => {
            // The attempt is over, and the next one takes the next boot method.
            Fault { class: FaultClass::Transient, ..fault.clone() }
        }
        Outcome::Failed { fault } => fault.clone(),
        Outcome::Refused { saw, wrong_machine } => {
            let class = if *wrong_machine { FaultClass::Identity } else { FaultClass::Transient };
            let code = if *wrong_machine { "wrong-machine" } else { "changed-meanwhile" };
            Fault::new(
                class,
                Channel::Engine,
                code,
                format!("refused just before the write: {saw}"),
            )
        }
        _ => return vec![Entry::Settled { outcome }],
    };
    let settled = Entry::Settled { outcome };
    let spec = i.m.step.as_ref().and_then(|s| i.workflow.steps.get(usize::from(s.index)));
    let mut after = i.m.clone();
    let applied = crate::model::fold::apply(&mut after, &settled, i.now);
    let (Ok(()), Some(spec)) = (applied, spec) else {
        return vec![settled];
    };
    // A remedy that did not take costs no attempt: the step is as it was.
    if i.m.is_quarantined() || i.m.is_remedied() {
        return vec![settled];
    }
    // What must be read before an act could not be: as with every read, nothing was attempted.
    let failed = if fault.of_read { Failed::Read } else { Failed::Attempt };
    match fail(&Input { m: &after, ..*i }, spec, vec![], fault, failed) {
        Verdict::Write { entries, .. } => [vec![settled], entries].concat(),
        _ => vec![settled],
    }
}

/// Is what failed one of several ways to boot this machine?
fn leads_elsewhere(i: &Input<'_>) -> bool {
    let Some(open) = &i.m.open else { return false };
    let method = match &open.action {
        Action::InsertMedia { .. } => true,
        Action::SetBoot { target } => i.profile.boot.iter().any(|m| m.target() == *target),
        _ => false,
    };
    method && i.profile.boot.len() > 1
}

/// The current step's judgement, turned into a verdict.
fn look(i: &Input<'_>, spec: &StepSpec) -> Verdict {
    if let Some(why) = i.m.step.as_ref().and_then(|s| s.skip.as_deref()) {
        let reason = format!("a person said so: {why}");
        return end_step(i, spec, StepEnd::Skipped { reason });
    }
    let view = view(i, spec);
    let early = i.now < i.m.not_before;
    let looked = spec.step.look(&view);
    if !early && let Some(verdict) = remedy::take(i, spec, &looked) {
        return verdict;
    }
    match looked {
        Look::Done { evidence } => end_step(i, spec, StepEnd::Done { evidence }),
        Look::Skip { reason } => end_step(i, spec, StepEnd::Skipped { reason }),
        Look::Note(entries) => write(entries, i.now),
        _ if early => Verdict::Rest { due: i.m.not_before, waiting: None },
        Look::Act(action)
            if i.m.step.as_ref().is_some_and(|s| s.acts.is_empty() && s.attempt == 0) =>
        {
            act(i, spec, action)
        }
        _ if i.m.was_judged()
            && view.step_age() > spec.timeout.0
            && !i.stopped
            && i.outage.is_none() =>
        {
            give_up(i, timed_out(i, spec))
        }
        Look::Wait { what, poll_ms } => {
            // What is waited for began with the step's last action, not with the step.
            let acts = i.m.step.as_ref().map_or(&[][..], |s| &s.acts);
            let age = acts.last().map_or(u64::MAX, |a| i.now.since(a.closed));
            wait(i, &what, pace::waiting(poll_ms, age.min(view.step_age())))
        }
        Look::Fail(fault) => fail(i, spec, vec![], fault, Failed::Attempt),
        Look::Unread(fault) => fail(i, spec, vec![], fault, Failed::Read),
        Look::Act(action) => act(i, spec, action),
    }
}

/// An aborted run: what Farrier left open for the machine is closed, then it rests with people.
fn abort(i: &Input<'_>) -> Verdict {
    let acts = i.m.step.as_ref().map_or(&[][..], |s| &s.acts);
    let window = acts.iter().rev().find_map(|a| match a.kind {
        ActionKind::OpenBootWindow if a.happened => Some(Some(&a.about)),
        ActionKind::CloseBootWindow if a.happened => Some(None),
        _ => None,
    });
    let spec = i.m.step.as_ref().and_then(|s| i.workflow.steps.get(usize::from(s.index)));
    if let (Some(Some(run)), Some(spec)) = (window, spec) {
        if i.now < i.m.not_before {
            return Verdict::Rest { due: i.m.not_before, waiting: None };
        }
        return act(i, spec, Action::CloseBootWindow { run: run.clone() });
    }
    write(route::abort(i), i.now)
}

/// Refusals in a row of what an action needs to know, until the step's timeout counts for it.
const GATE_REFUSALS: u32 = 8;

/// Who waits for room is woken when there is some; this is for a wake-up that was missed. Thousands
/// may wait for hours, and each look reads the BMC.
const ROOM_MS: u64 = 3_600_000;

/// Polls of a copy in the background: it takes 5 to 30 minutes.
const COPIES_MS: u64 = 30_000;

/// An action is wanted: every machine-wide reason against it, then the intent.
fn act(i: &Input<'_>, spec: &StepSpec, action: Action) -> Verdict {
    let (action, presumed) = match restored::weigh(i, &action) {
        Weighed::AsWanted => (action, None),
        Weighed::First(instead) => (instead, None),
        Weighed::Presume(instead, why) => (instead, Some(why)),
        Weighed::Wait(what) => return wait(i, &what, 30_000),
        Weighed::Unread(fault) => return fail(i, spec, vec![], fault, Failed::Read),
        Weighed::InDoubt(fault) => return give_up(i, fault),
    };
    if presumed.is_none()
        && let Some(against) = copying::speaks(i, &action)
    {
        let overdue = view(i, spec).step_age() > spec.timeout.0;
        return match against {
            // Whatever it is that does not come has the step's time.
            _ if overdue && !i.stopped && i.outage.is_none() => give_up(i, timed_out(i, spec)),
            Against::Unasked => wait(i, copying::COPIES_WORD, 1_000),
            Against::Copies(what) => wait(i, &what, COPIES_MS),
            Against::Unread(fault) => fail(i, spec, vec![], fault, Failed::Read),
        };
    }
    // Once: a probe that was to hold it and does not is a defect, which the gate names.
    let asked = i.m.waiting.as_deref() == Some(probes::CLUSTER_WORD);
    if presumed.is_none() && !asked && gate::unasked(i, &action) {
        return wait(i, probes::CLUSTER_WORD, 1_000);
    }
    if presumed.is_none()
        && let Some(fault) = gate::refuse(i, &action)
    {
        // Waiting for room is nobody's delay; a word that never comes has the step's time.
        let same = i.m.last_fault.as_ref().filter(|n| n.fault.code == fault.code);
        let often = same.is_some_and(|n| n.count >= GATE_REFUSALS);
        if often && view(i, spec).step_age() > spec.timeout.0 && !i.stopped && i.outage.is_none() {
            return give_up(i, timed_out(i, spec));
        }
        return fail(i, spec, vec![], fault, Failed::Read);
    }
    if i.stopped {
        return wait(i, "actions to be resumed (stopped)", 30_000);
    }
    if let Some(outage) = i.outage.filter(|o| !o.is_over()) {
        return wait(i, &format!("{} to be whole again", outage.domain()), 30_000);
    }
    let class = action.kind().class();
    let step = i.m.step.as_ref();
    let holds = spec.step.holds().filter(|_| step.is_none_or(|s| s.holds.is_none()));
    for wanted in
        class.limit.filter(|c| step.is_none_or(|s| s.holds != Some(*c))).into_iter().chain(holds)
    {
        if let Some(full) = i.room.full(i.m.id, wanted) {
            return wait(i, &format!("{} {full}", ROOM), ROOM_MS);
        }
    }
    let (expect, baseline) = gate::expectation(i, &action);
    if let Some(why) = presumed {
        return write(vec![Entry::Presumed { action, baseline, holds, why }], i.now);
    }
    Verdict::Act { entries: vec![Entry::Intent { action, expect, baseline, holds }] }
}

/// An attempt failed: skip, back off or give up, by class.
fn fail(
    i: &Input<'_>,
    spec: &StepSpec,
    mut before: Vec<Entry>,
    fault: Fault,
    failed: Failed,
) -> Verdict {
    if fault.class == FaultClass::Unsupported
        && spec.unsupported == Unsupported::Skip
        && i.m.open.is_none()
    {
        let reason = fault.to_string();
        return end_step(i, spec, StepEnd::Skipped { reason });
    }
    let next = retry::after(i.m, spec.retry, i.site.remediation.relogin, &fault, failed, i.now);
    let held_against = !matches!(next, retry::Next::Again { charged: false, .. });
    let excuse =
        || outage::excuse(i.outage, i.m, &fault).or_else(|| restored::excuse(i.m, &fault, failed));
    if held_against && let Some(why) = excuse() {
        let not_before = i.now + retry::again(i.m, spec.retry, &fault, i.now);
        before.push(Entry::Excused { fault, not_before, why });
        return write(before, not_before);
    }
    match next {
        retry::Next::GiveUp => {
            before.push(Entry::Quarantined { fault: remedy::with_tried(i, fault) });
            write(before, i.now + watch::pause(i))
        }
        retry::Next::Again { not_before, charged } => {
            before.push(Entry::Faulted { fault, charged, not_before });
            write(before, not_before)
        }
    }
}

fn give_up(i: &Input<'_>, fault: Fault) -> Verdict {
    write(vec![Entry::Quarantined { fault: remedy::with_tried(i, fault) }], i.now + watch::pause(i))
}

fn end_step(i: &Input<'_>, spec: &StepSpec, end: StepEnd) -> Verdict {
    let index = i.m.step.as_ref().map(|s| s.index);
    if let Err(fault) = route::arrival_facts(i, index) {
        return fail(i, spec, vec![], fault, Failed::Read);
    }
    let mut entries = vec![Entry::StepEnded { key: spec.key.clone(), end }];
    entries.extend(route::advance(i, index));
    write(entries, i.now)
}

/// Waits for `what`; written only when it is something else than before.
fn wait(i: &Input<'_>, what: &str, poll_ms: u64) -> Verdict {
    let due = i.now + poll_ms;
    if i.m.waiting.as_deref() == Some(what) {
        return Verdict::Rest { due, waiting: Some(what.to_string()) };
    }
    write(vec![Entry::Waits { what: what.to_string() }], due)
}

fn write(entries: Vec<Entry>, due: EngineTime) -> Verdict {
    Verdict::Write { entries, due }
}

fn view<'a>(i: &Input<'a>, spec: &'a StepSpec) -> View<'a> {
    View {
        m: i.m,
        expected: i.expected,
        profile: i.profile,
        site: i.site,
        spec,
        report: i.report,
        now: i.now,
        resumed: i.resumed,
    }
}

fn timed_out(i: &Input<'_>, spec: &StepSpec) -> Fault {
    let waited = i.m.waiting.as_deref().unwrap_or("its goal");
    let mut fault = Fault::new(
        FaultClass::Transient,
        Channel::Engine,
        "step-timeout",
        format!(
            "step `{}` took longer than {}; it was waiting for {waited}",
            spec.key, spec.timeout
        ),
    )
    .hint("look at the machine, then `farrier machine release`");
    if let Some(note) = &i.m.last_fault {
        fault = fault.evidence(format!("last fault: {}", note.fault));
    }
    fault
}

/// The part of a report that failed because nothing came back.
fn unanswered<T>(read: &Read<T>) -> Option<&Fault> {
    read.fault().filter(|f| f.is_no_answer())
}
