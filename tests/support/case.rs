//! One machine in one step, what is read of it made by hand: facts in, decisions out.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use farrier::decide::{Decide, Input, Room, Rules, Verdict};
use farrier::model::facts::*;
use farrier::model::machine::{Condition, Control, Machine};
use farrier::model::*;
use farrier::steps::Step;
use farrier::steps::site::{Profile, Site};
use farrier::steps::workflow::*;

pub const UUID: &str = "11111111-2222-3333-4444-555555555501";
pub const MINUTE: u64 = 60_000;

/// There is always room.
pub struct Free;

impl Room for Free {
    fn full(&self, _: MachineId, _: LimitClass) -> Option<String> {
        None
    }
}

/// A step with a lot of time.
pub fn spec(key: &str, stage: Stage, step: Step) -> StepSpec {
    StepSpec {
        key: key.into(),
        stage,
        step,
        timeout: time::Span(180 * MINUTE),
        stall: time::Span(15 * MINUTE),
        usual: time::Span(0),
        retry: Retry { attempts: 3, ..Retry::default() },
        unsupported: Unsupported::Quarantine,
        when: When::default(),
    }
}

pub fn workflow(steps: Vec<StepSpec>) -> Workflow {
    Workflow { name: "w".into(), watch: time::Span(5 * MINUTE), sla: Default::default(), steps }
}

pub fn expected() -> Expected {
    Expected {
        name: "n1".into(),
        identity: Identity::default().into(),
        rack: "r".into(),
        position: 0,
        pool: "p".into(),
        profile: "p".into(),
        domains: [].into(),
        labels: Default::default(),
        bmc: BmcEndpoint::default(),
        host: HostEndpoint::default(),
    }
}

/// An enrolled machine, proven, in `stage`.
pub fn machine(stage: Stage, desired: Desired) -> Machine {
    let mut m = Machine::blank(MachineId(1));
    m.name = "n1".into();
    m.control = Control::Enrolled;
    m.desired = Some(desired);
    m.stage = stage;
    m.identity = Identity::new(None, Some(UUID), None).into();
    m
}

pub struct Case {
    pub m: Machine,
    pub site: Site,
    pub profile: Profile,
    pub workflow: Workflow,
    pub expected: Expected,
    pub report: Report,
    pub now: EngineTime,
    pub room: &'static dyn Room,
    /// Resets of the host so far.
    pub resets: u32,
}

impl Case {
    /// In the first of `steps`, of which nothing was looked at yet.
    pub fn new(profile: Profile, steps: Vec<StepSpec>, desired: Desired) -> Self {
        let (stage, key) = (steps[0].stage, steps[0].key.clone());
        let mut case = Case {
            m: machine(stage, desired),
            site: Site::default(),
            profile,
            workflow: workflow(steps),
            expected: expected(),
            report: Report::default(),
            now: EngineTime(1_000_000),
            room: &Free,
            resets: 0,
        };
        case.apply(Entry::RunBegan { workflow: "h".into(), reason: "t".into() });
        case.apply(Entry::StepBegan { index: 0, key });
        case
    }

    pub fn apply(&mut self, e: Entry) {
        fold::apply(&mut self.m, &e, self.now).unwrap();
    }

    pub fn input<T>(&self, f: impl FnOnce(&Input<'_>) -> T) -> T {
        f(&Input {
            m: &self.m,
            expected: &self.expected,
            profile: &self.profile,
            site: &self.site,
            workflow: &self.workflow,
            report: &self.report,
            now: self.now,
            room: self.room,
            stopped: false,
            resumed: EngineTime::ZERO,
            outage: None,
        })
    }

    pub fn decide(&self) -> Verdict {
        self.input(|i| Rules.decide(i))
    }

    /// Takes the verdict into the row; the entries' names and what they are about.
    pub fn step(&mut self) -> String {
        let entries = match self.decide() {
            Verdict::Rest { .. } => return "rest".into(),
            Verdict::Write { entries, .. } | Verdict::Act { entries } => entries,
        };
        let mut words = Vec::new();
        for e in entries {
            words.push(match &e {
                Entry::Intent { action, .. } => format!("{} {}", action.kind(), action.about()),
                Entry::Closed { happened, .. } => format!("closed:{happened}"),
                Entry::Quarantined { fault } => format!("quarantined:{}", fault.code),
                Entry::Faulted { fault, .. } => format!("faulted:{}", fault.code),
                Entry::Waits { what } => format!("waits for {what}"),
                Entry::StepEnded { end, .. } => {
                    self.apply(e.clone());
                    return match end {
                        StepEnd::Done { evidence } => format!("done: {evidence}"),
                        StepEnd::Skipped { reason } => format!("skipped: {reason}"),
                    };
                }
                other => other.name().to_string(),
            });
            self.apply(e);
        }
        words.join(" ")
    }

    pub fn later(&mut self, ms: u64) -> &mut Self {
        self.now = self.now + ms;
        self
    }

    /// The pause after a failed attempt is over.
    pub fn again(&mut self) -> &mut Self {
        self.now = self.m.not_before;
        self
    }

    pub fn settle(&mut self, outcome: Outcome) {
        let entries =
            self.input(|i| Rules.settle(&Input { report: &Report::default(), ..*i }, outcome));
        for e in entries {
            self.apply(e);
        }
    }

    pub fn applied(&mut self, handle: Option<&str>) {
        self.settle(Outcome::Applied { handle: handle.map(Into::into) });
    }

    /// Sent, and nothing came back.
    pub fn unanswered(&mut self) {
        self.settle(Outcome::Unknown { fault: Fault::no_answer(Channel::Bmc, "connection reset") });
    }

    pub fn system(&mut self) -> &mut SystemFacts {
        if !matches!(self.report.system, Read::Seen(_)) {
            self.report.system = Read::Seen(SystemFacts {
                identity: Identity::new(None, Some(UUID), None),
                ..SystemFacts::default()
            });
        }
        match &mut self.report.system {
            Read::Seen(system) => system,
            _ => unreachable!(),
        }
    }

    pub fn power(&mut self, power: Power) {
        let resets = self.resets.to_string();
        let system = self.system();
        (system.power, system.last_reset) = (power, Some(resets));
    }

    /// A POST has begun.
    pub fn boots(&mut self) {
        self.resets += 1;
        self.power(Power::On);
    }

    pub fn task(&mut self, uri: &str, state: TaskState, raw: &str) {
        self.report.tasks = Read::Seen(vec![Task {
            uri: uri.into(),
            state,
            raw_state: raw.into(),
            percent: Some(0),
            message: Some("said so".into()),
        }]);
    }

    pub fn quarantine(&self) -> &Fault {
        match &self.m.condition {
            Condition::Quarantined { fault, .. } => fault,
            other => panic!("{other:?}"),
        }
    }
}
