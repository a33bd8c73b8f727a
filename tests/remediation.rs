//! Ladders: what is tried before a person is called, when, how often, and when never.

use farrier::config;
use farrier::decide::explain::explain;
use farrier::decide::probes::wanted;
use farrier::decide::{Decide, Input, Room, Rules, Verdict};
use farrier::model::facts::*;
use farrier::model::machine::Act;
use farrier::model::time::Span;
use farrier::model::*;
use farrier::steps::site::{Profile, Site};
use farrier::steps::workflow::*;
use farrier::steps::{Step, burn_in, inventory, power};
use std::collections::BTreeMap;

const MINUTE: u64 = 60_000;
const UUID: &str = "4c4c4544-0031-3510-8052-b4c04f563132";

struct Free;

impl Room for Free {
    fn full(&self, _: MachineId, _: LimitClass) -> Option<String> {
        None
    }
}

fn expected() -> Expected {
    Expected {
        name: "n1".into(),
        identity: Identity::new(None, Some(UUID), None).into(),
        rack: "r1".into(),
        position: 1,
        pool: "p".into(),
        profile: "p".into(),
        domains: [].into(),
        labels: Default::default(),
        bmc: BmcEndpoint::default(),
        host: HostEndpoint::default(),
    }
}

/// One machine in one step that fails in one way.
struct Case {
    m: Machine,
    now: EngineTime,
    report: Report,
    site: Site,
    profile: Profile,
    workflow: Workflow,
    stopped: bool,
}

impl Case {
    fn new(stage: Stage, step: Step) -> Self {
        let spec = StepSpec {
            key: "s".into(),
            stage,
            step,
            timeout: Span(6 * 60 * MINUTE),
            stall: Span(15 * MINUTE),
            usual: Span(0),
            retry: Retry { attempts: 9, ..Retry::default() },
            unsupported: Unsupported::Quarantine,
            when: When::default(),
        };
        let workflow = Workflow {
            name: "w".into(),
            watch: Span(5 * MINUTE),
            sla: BTreeMap::new(),
            steps: vec![spec],
        };
        let now = EngineTime(10 * 24 * 60 * MINUTE);
        let mut m = Machine::blank(MachineId(1));
        let mut apply = |e: Entry| fold::apply(&mut m, &e, now).unwrap();
        apply(Entry::Registered { name: "n1".into() });
        let change = Change::Enroll { allow_existing_data: false, desired: Desired::Ready };
        apply(Entry::Changed { change, by: "test".into(), key: "k".into() });
        apply(Entry::RunBegan { workflow: workflow.hash(), reason: "enrolled".into() });
        apply(Entry::Proven { identity: Identity::new(None, Some(UUID), None) });
        for s in [Stage::Firmware, Stage::Provision, Stage::BurnIn] {
            if m.stage == stage {
                break;
            }
            fold::apply(&mut m, &Entry::Entered { stage: s }, now).unwrap();
        }
        fold::apply(&mut m, &Entry::StepBegan { index: 0, key: "s".into() }, now).unwrap();
        let report = Report {
            system: Read::Seen(SystemFacts {
                identity: Identity::new(None, Some(UUID), None),
                power: Power::On,
                ..SystemFacts::default()
            }),
            tasks: Read::Seen(vec![]),
            ..Report::default()
        };
        let remediation = config::remediation::shipped();
        let site = Site { remediation, ..Site::default() };
        let profile = Profile { name: "p".into(), ..Profile::default() };
        Case { m, now, report, site, profile, workflow, stopped: false }
    }

    /// Its BMC answers, and its inventory is 500.
    fn wedged() -> Self {
        let mut c = Case::new(Stage::Discover, Step::Inventory(inventory::Params::default()));
        let fault = Fault::new(FaultClass::Transient, Channel::Bmc, "bmc-error", "500");
        c.report.inventory = Read::Failed(fault);
        c
    }

    /// Its host hangs: powered on, no SSH; jobs can't be started.
    fn hung() -> Self {
        let mut c = Case::new(Stage::BurnIn, Step::BurnIn(burn_in::Params::default()));
        c.report.job = Read::Failed(Fault::no_answer(Channel::Host, "no answer"));
        c
    }

    fn with<T>(&self, f: impl FnOnce(&Input<'_>) -> T) -> T {
        f(&Input {
            m: &self.m,
            expected: &expected(),
            profile: &self.profile,
            site: &self.site,
            workflow: &self.workflow,
            report: &self.report,
            now: self.now,
            room: &Free,
            stopped: self.stopped,
            resumed: EngineTime::ZERO,
            outage: None,
        })
    }

    fn apply(&mut self, entries: &[Entry]) {
        for e in entries {
            fold::apply(&mut self.m, e, self.now).unwrap();
        }
    }

    /// Decides and folds until an intent comes, at most `looks` times; says what was decided.
    fn until_intent(&mut self, looks: u32) -> Option<(Vec<Entry>, ActionKind)> {
        for _ in 0..looks {
            match self.with(|i| Rules.decide(i)) {
                Verdict::Rest { due, .. } => self.now = due.max(self.now + 1),
                Verdict::Write { entries, due } => {
                    self.apply(&entries);
                    self.now = due.max(self.now + 1);
                    if entries.iter().any(|e| matches!(e, Entry::Quarantined { .. })) {
                        return None;
                    }
                }
                Verdict::Act { entries } => {
                    self.apply(&entries);
                    let Some(Entry::Intent { action, .. }) = entries.last() else { panic!() };
                    let kind = action.kind();
                    return Some((entries, kind));
                }
            }
        }
        None
    }

    /// What the BMC says of the open action.
    fn settle(&mut self, outcome: Outcome) {
        let entries = self.with(|i| Rules.settle(i, outcome));
        self.apply(&entries);
        self.now = self.m.not_before.max(self.now + 1);
    }

    fn next(&self) -> String {
        self.with(|i| explain(&Rules, i, self.now)).next
    }
}

#[test]
fn a_bmc_whose_inventory_stays_broken_is_reset_once_and_then_a_person_is_called() {
    let mut c = Case::wedged();
    let first = c.with(|i| Rules.decide(i));
    assert!(matches!(first, Verdict::Write { .. }), "one failure is tried again: {first:?}");
    let (entries, kind) = c.until_intent(20).expect("a remedy");
    assert_eq!(kind, ActionKind::BmcReset);
    assert!(
        matches!(&entries[0], Entry::Remedied { code, failures: 4, .. } if code == "bmc-error"),
        "{entries:?}"
    );
    assert!(c.m.is_remedied() && c.m.last_reset == c.now);
    // Taken, gone for a while, back again, and observed.
    c.settle(Outcome::Applied { handle: None });
    c.now = c.now + 2 * MINUTE;
    let Verdict::Write { entries, .. } = c.with(|i| Rules.decide(i)) else { panic!() };
    assert!(matches!(entries[..], [Entry::Closed { happened: true, .. }]), "{entries:?}");
    c.apply(&entries);
    assert_eq!(c.m.step.as_ref().unwrap().attempt, 0, "a remedy costs no attempt");
    // Still broken: no second reset within the day, the step's time ends it, with the evidence.
    assert_eq!(c.until_intent(400), None);
    let Condition::Quarantined { fault, .. } = &c.m.condition else {
        panic!("{:?}", c.m.condition)
    };
    let evidence = fault.evidence.as_deref().unwrap();
    assert!(
        evidence.contains("tried: bmc-reset") && evidence.contains("`bmc-error`"),
        "{evidence}"
    );
    // The day after a person's release it may be tried again.
    let release = Change::Release { why: "looked".into() };
    c.now = c.now + 25 * 60 * MINUTE;
    c.apply(&[Entry::Changed { change: release, by: "p".into(), key: "r".into() }]);
    assert_eq!(c.until_intent(20).map(|e| e.1), Some(ActionKind::BmcReset));
}

#[test]
fn what_passes_by_itself_is_not_reset() {
    let mut c = Case::wedged();
    for _ in 0..3 {
        let Verdict::Write { entries, due } = c.with(|i| Rules.decide(i)) else { panic!() };
        c.apply(&entries);
        c.now = due;
    }
    c.report.inventory = Read::Seen(InventoryFacts::default());
    let Verdict::Write { entries, .. } = c.with(|i| Rules.decide(i)) else { panic!() };
    assert!(matches!(entries[0], Entry::StepEnded { .. }), "{entries:?}");
}

#[test]
fn a_bmc_is_never_reset_while_it_may_be_writing() {
    let task = |state, raw: &str| {
        Read::Seen(vec![Task {
            uri: "/t/1".into(),
            state,
            raw_state: raw.into(),
            percent: Some(99),
            message: None,
        }])
    };
    let unread = || Fault::new(FaultClass::Transient, Channel::Bmc, "bmc-error", "500");
    for tasks in [
        task(TaskState::InProgress, "Running"),
        Read::Failed(unread()),
        Read::Failed(Fault::new(FaultClass::Unsupported, Channel::Bmc, "not-found", "404")),
        Read::NotAsked,
    ] {
        let mut c = Case::wedged();
        c.report.tasks = tasks.clone();
        assert_eq!(c.until_intent(60), None, "with {tasks:?}");
    }
    let mut c = Case::wedged();
    c.report.tasks = task(TaskState::Succeeded, "Completed");
    assert!(c.until_intent(60).is_some(), "what has ended writes nothing");
    // Nor in the time of a copy after an update, whatever the task list says.
    let mut c = Case::wedged();
    let now = c.now;
    c.m.step.as_mut().unwrap().acts.push(Act {
        job: None,
        kind: ActionKind::UpdateFirmware,
        about: "bmc".into(),
        at: now,
        closed: now,
        presumed: false,
        happened: true,
        baseline: Default::default(),
    });
    let (_, kind) = c.until_intent(60).expect("later");
    assert_eq!(kind, ActionKind::BmcReset);
    assert!(c.now.since(now) >= 45 * MINUTE, "{}", Span(c.now.since(now)));
}

#[test]
fn two_resets_of_one_machine_lie_half_an_hour_apart() {
    let mut c = Case::wedged();
    let now = c.now;
    c.m.last_reset = now - MINUTE;
    let (_, _) = c.until_intent(60).expect("a remedy");
    assert!(c.now.since(now) >= 29 * MINUTE, "{}", Span(c.now.since(now)));
}

#[test]
fn a_node_in_use_or_another_machine_or_a_stop_forbids_it() {
    let mut c = Case::wedged();
    c.profile.cluster = Some("k8s".into());
    c.report.cluster =
        Read::Seen(Membership { member: true, workloads: 3, ..Membership::default() });
    assert_eq!(c.until_intent(60), None);
    let mut c = Case::wedged();
    c.stopped = true;
    assert_eq!(c.until_intent(60), None);
    let mut c = Case::wedged();
    c.report.system = Read::Seen(SystemFacts { power: Power::On, ..SystemFacts::default() });
    assert_eq!(c.until_intent(60), None, "a BMC that does not say whose it is");
}

#[test]
fn a_hung_host_is_power_cycled_after_calls_that_came_to_nothing() {
    let mut c = Case::hung();
    let mut starts = 0;
    let kind = loop {
        let (_, kind) = c.until_intent(20).expect("a job or a remedy");
        if kind != ActionKind::BurnInJob {
            break kind;
        }
        starts += 1;
        c.settle(Outcome::Failed { fault: Fault::no_answer(Channel::Host, "no answer") });
    };
    assert_eq!((kind, starts), (ActionKind::PowerRestart, 8));
    // It comes back and the step goes on where it was; the first attempt still.
    c.settle(Outcome::Applied { handle: None });
    c.now = c.now + 3 * MINUTE;
    let Verdict::Write { entries, .. } = c.with(|i| Rules.decide(i)) else { panic!() };
    c.apply(&entries);
    assert_eq!(c.until_intent(5).map(|e| e.1), Some(ActionKind::BurnInJob));
    assert_eq!(c.m.step.as_ref().unwrap().attempt, 0);
}

#[test]
fn a_remedy_that_the_bmc_refuses_costs_no_attempt() {
    let mut c = Case::wedged();
    c.until_intent(20).expect("a remedy");
    c.settle(Outcome::Failed {
        fault: Fault::new(FaultClass::Precondition, Channel::Bmc, "rejected", "400"),
    });
    assert!(!c.m.is_quarantined() && c.m.open.is_none());
    assert_eq!(c.m.step.as_ref().unwrap().attempt, 0);
}

#[test]
fn explain_names_the_next_rung() {
    let mut c = Case::wedged();
    let mut said = Vec::new();
    for _ in 0..4 {
        let Verdict::Write { entries, due } = c.with(|i| Rules.decide(i)) else { panic!() };
        c.apply(&entries);
        said.push(c.next());
        c.now = due;
    }
    assert!(said[0].ends_with("then `bmc-reset` after 3 more failures"), "{said:?}");
    assert!(said[2].ends_with("then `bmc-reset` after one more failure"), "{said:?}");
    assert!(said[3].contains("then `bmc-reset` as soon as nothing speaks against it"), "{said:?}");
    c.m.last_reset = c.now;
    assert!(c.next().contains("its last reset was too lately"), "{}", c.next());
}

#[test]
fn refused_credentials_are_tried_once_more_as_the_data_says() {
    let refused = || Fault::new(FaultClass::Auth, Channel::Bmc, "bad-credentials", "401");
    let mut c = Case::wedged();
    c.report.system = Read::Failed(refused());
    c.report.tasks = Read::Failed(refused());
    let Verdict::Write { entries, due } = c.with(|i| Rules.decide(i)) else { panic!() };
    assert!(matches!(entries[..], [Entry::Faulted { charged: true, .. }]), "{entries:?}");
    assert_eq!(due.since(c.now), 6 * MINUTE);
    c.apply(&entries);
    c.now = due;
    assert_eq!(c.until_intent(1), None);
    assert!(c.m.is_quarantined(), "no third try near a lock-out");
    let mut c = Case::wedged();
    c.site.remediation.relogin.limit = 0;
    c.report.system = Read::Failed(refused());
    c.until_intent(1);
    assert!(c.m.is_quarantined());
}

/// A host that is to be switched off.
fn switched_off() -> Case {
    let off = Step::Power(power::Params { state: power::Wanted::Off });
    Case::new(Stage::Firmware, off)
}

fn running(uri: &str) -> Read<Vec<Task>> {
    Read::Seen(vec![Task {
        uri: uri.into(),
        state: TaskState::InProgress,
        raw_state: "InProgress".into(),
        percent: None,
        message: None,
    }])
}

/// Whichever step wants it: the copy that no task shows would be broken by it.
#[test]
fn no_power_is_cut_while_a_board_copies_an_image() {
    const COPY: &str = "/redfish/v1/Chassis/HGX_ERoT_BMC_0#/Oem/Nvidia/BackgroundCopyStatus";
    let mut c = switched_off();
    c.report.tasks = running(COPY);
    assert_eq!(c.until_intent(20), None);
    let waiting = c.m.waiting.as_deref().expect("it says what it waits for").to_string();
    assert!(waiting.contains(COPY) && waiting.contains("copied in the background"), "{waiting}");
    let reads = |c: &Case| wanted(&c.m, &c.profile, &c.workflow, c.now);
    assert!(reads(&c).has(ProbeSet::TASKS), "each look reads it anew");
    c.report.tasks = Read::Seen(vec![]);
    assert_eq!(c.until_intent(3).map(|e| e.1), Some(ActionKind::PowerOff));
    // One that never ends is for a person, with what was waited for.
    let mut c = switched_off();
    c.report.tasks = running(COPY);
    assert_eq!(c.until_intent(2_000), None);
    let Condition::Quarantined { fault, .. } = &c.m.condition else {
        panic!("{:?}", c.m.condition)
    };
    assert!(fault.code == "step-timeout" && fault.to_string().contains(COPY), "{fault}");
}

#[test]
fn what_a_board_copies_is_read_before_its_power_is_cut() {
    let mut c = switched_off();
    assert!(wanted(&c.m, &c.profile, &c.workflow, c.now).has(ProbeSet::TASKS));
    c.report.tasks = Read::NotAsked;
    assert_eq!(c.until_intent(3), None);
    assert!(wanted(&c.m, &c.profile, &c.workflow, c.now).has(ProbeSet::TASKS));
    let broken = || Fault::new(FaultClass::Transient, Channel::Bmc, "bmc-error", "500");
    c.report.tasks = Read::Failed(broken());
    assert_eq!(c.until_intent(5), None, "what can't be read may go on");
    // A BMC without tasks has none, and somebody's update is not this step's to guard.
    let no_tasks = Fault::new(FaultClass::Unsupported, Channel::Bmc, "not-found", "404");
    for tasks in [Read::Failed(no_tasks), running("/redfish/v1/TaskService/Tasks/1")] {
        let mut c = switched_off();
        c.report.tasks = tasks;
        assert_eq!(c.until_intent(3).map(|e| e.1), Some(ActionKind::PowerOff));
    }
    // Over IPMI nobody says it: then the time since the last update counts.
    for (updated, waits) in [(false, false), (true, true)] {
        let mut c = switched_off();
        let Read::Seen(system) = &mut c.report.system else { panic!() };
        system.over_ipmi = true;
        c.report.tasks = Read::Failed(broken());
        let begun = c.now;
        if updated {
            c.m.step.as_mut().unwrap().acts.push(Act {
                job: None,
                kind: ActionKind::UpdateFirmware,
                about: "bmc".into(),
                at: begun,
                closed: begun,
                presumed: false,
                happened: true,
                baseline: Default::default(),
            });
        }
        assert_eq!(c.until_intent(200).map(|e| e.1), Some(ActionKind::PowerOff));
        assert_eq!(c.now.since(begun) > 40 * MINUTE, waits, "{}", Span(c.now.since(begun)));
    }
}
