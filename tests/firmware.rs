//! The firmware step against what BMCs really do (field notes R13–R21): facts in, decisions out.

#[path = "support/case.rs"]
mod case;

use case::{Free, UUID};
use farrier::decide::{Decide, Room, Rules, Verdict};
use farrier::model::action::{Baseline, Expect};
use farrier::model::facts::*;
use farrier::model::machine::Condition;
use farrier::model::*;
use farrier::steps::catalog::*;
use farrier::steps::site::Profile;
use farrier::steps::version::Scheme;
use farrier::steps::workflow::*;
use farrier::steps::{Step, firmware};
use regex::Regex;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

const TASK: &str = "/redfish/v1/TaskService/Tasks/7";

struct Full;
impl Room for Full {
    fn full(&self, _: MachineId, _: LimitClass) -> Option<String> {
        Some("flash in site s (450 at once)".into())
    }
}

struct Case(case::Case);

impl Deref for Case {
    type Target = case::Case;

    fn deref(&self) -> &case::Case {
        &self.0
    }
}

impl DerefMut for Case {
    fn deref_mut(&mut self) -> &mut case::Case {
        &mut self.0
    }
}

fn rx(s: &str) -> Regex {
    Regex::new(s).unwrap()
}

fn fw() -> Firmware {
    Firmware {
        id: "bmc-2".into(),
        component: "bmc".into(),
        inventory_id: rx("^(?:(Installed-.*)?BMC.*)$"),
        version: "2.0".into(),
        scheme: Scheme::Dotted,
        version_regex: None,
        min_version: Some("1.0".into()),
        blocked_versions: vec![],
        file: "bmc-2.bin".into(),
        size: 1,
        sha256: "00".repeat(32),
        activation: Activation::BmcReset,
        verify_timeout: time::Span(600_000),
        allow_downgrade: false,
        method: Default::default(),
    }
}

impl Case {
    fn new(version: &str) -> Self {
        let set = FirmwareSet { status: SetStatus::Approved, firmware: vec![fw()] };
        let family = Family {
            file: "v.toml".into(),
            manufacturer: vec![rx("^Dell.*$")],
            model: vec![rx("^R$")],
            sets: BTreeMap::from([("s".to_string(), set)]),
        };
        let profile = Profile {
            firmware_set: Some("s".into()),
            cluster: Some("c".into()),
            ..Profile::default()
        };
        let step = StepSpec {
            timeout: time::Span(7_200_000),
            retry: Retry::default(),
            ..case::spec("fw", Stage::Firmware, Step::Firmware(firmware::Params {}))
        };
        let mut case = Case(case::Case::new(profile, vec![step], Desired::Ready));
        case.site.catalog = Catalog { families: vec![family] };
        case.system("1.0", Power::On);
        case.version(version);
        case.report.tasks = Read::Seen(vec![]);
        case.report.cluster = Read::Seen(Membership::default());
        case
    }

    fn system(&mut self, reset: &str, power: Power) {
        self.report.system = Read::Seen(SystemFacts {
            identity: Identity::new(None, Some(UUID), None),
            manufacturer: Some("Dell Inc.".into()),
            model: Some("R".into()),
            power,
            last_reset: Some(reset.into()),
            ..SystemFacts::default()
        });
    }

    fn version(&mut self, version: &str) {
        let component = |id: &str, v: &str| Component {
            id: id.into(),
            version: Some(v.into()),
            ..Component::default()
        };
        self.report.firmware = Read::Seen(vec![
            component("Backup_BMC", "9.9"),
            component(&format!("Installed-1-{version}__BMC.1"), version),
        ]);
    }

    fn tasks(&mut self, tasks: &[(&str, TaskState, &str, u8)]) {
        self.report.tasks = Read::Seen(
            tasks
                .iter()
                .map(|(uri, state, raw, percent)| Task {
                    uri: (*uri).into(),
                    state: *state,
                    raw_state: (*raw).into(),
                    percent: Some(*percent),
                    message: None,
                })
                .collect(),
        );
    }

    /// Takes the verdict into the row; returns the entries' names and the intent's action kind.
    fn step(&mut self) -> String {
        let entries = match self.decide() {
            Verdict::Rest { .. } => return "rest".into(),
            Verdict::Write { entries, .. } | Verdict::Act { entries } => entries,
        };
        let mut words = Vec::new();
        for e in entries {
            words.push(match &e {
                Entry::Intent { action, .. } => format!("intent:{}", action.kind()),
                Entry::Closed { happened, .. } => format!("closed:{happened}"),
                Entry::Quarantined { fault } => format!("quarantined:{}", fault.code),
                Entry::Faulted { fault, .. } => format!("faulted:{}", fault.code),
                Entry::StepEnded { .. } => {
                    self.apply(e.clone());
                    return "done".into();
                }
                other => other.name().to_string(),
            });
            self.apply(e);
        }
        words.join(" ")
    }

    /// The update was started; the BMC said `outcome`.
    fn started(version: &str, outcome: Outcome) -> Self {
        let mut c = Case::new(version);
        assert_eq!(c.step(), "intent:update-firmware");
        c.apply(Entry::Settled { outcome });
        c
    }

    fn with_task() -> Self {
        let mut c = Case::started("1.5", Outcome::Applied { handle: Some(TASK.into()) });
        c.tasks(&[(TASK, TaskState::InProgress, "Running", 10)]);
        c
    }

    /// What may be staged is activated; the old version stays. Returns what follows.
    fn activated(&mut self) -> String {
        assert_eq!(self.step(), "intent:bmc-reset");
        self.apply(Entry::Settled { outcome: Outcome::Applied { handle: None } });
        assert_eq!(self.later(60_000).step(), "closed:true");
        assert_eq!(self.step(), "waits");
        self.later(700_000).step()
    }

    fn later(&mut self, ms: u64) -> &mut Self {
        self.now = self.now + ms;
        self
    }
}

#[test]
fn the_wanted_version_is_left_alone_and_a_newer_one_too() {
    assert_eq!(Case::new("2.0").step(), "done");
    assert_eq!(Case::new("2.0.0").step(), "done", "spelt otherwise");
    assert_eq!(Case::new("2.1").step(), "done", "no downgrade");
}

#[test]
fn an_old_version_is_updated_with_its_expectation_and_baseline() {
    let mut c = Case::new("1.5");
    c.tasks(&[("/old", TaskState::Succeeded, "Completed", 100)]);
    let Verdict::Act { entries } = c.decide() else { panic!("no act") };
    let Some(Entry::Intent { action, expect, baseline, holds }) = entries.last() else {
        panic!("no intent")
    };
    assert!(
        matches!(action, Action::UpdateFirmware { inventory_id, .. } if inventory_id.contains("__BMC.1"))
    );
    assert_eq!(expect.from_version.as_deref(), Some("1.5"));
    assert_eq!(expect.identity.uuid.as_deref(), Some(UUID));
    assert_eq!(baseline.tasks, ["/old"]);
    assert_eq!(*holds, Some(LimitClass::Flash));
}

#[test]
fn below_the_stepping_stone_a_person_decides() {
    assert_eq!(Case::new("0.9").step(), "quarantined:stepping-stone");
}

#[test]
fn never_while_another_task_runs() {
    let mut c = Case::new("1.5");
    c.tasks(&[("/someone-else", TaskState::InProgress, "New", 0)]);
    assert_eq!(c.step(), "waits");
}

#[test]
fn never_on_a_node_that_the_cluster_uses() {
    let mut c = Case::new("1.5");
    c.report.cluster =
        Read::Seen(Membership { member: true, ready: true, ..Membership::default() });
    assert_eq!(c.step(), "quarantined:in-use");
    let mut c = Case::new("1.5");
    c.report.cluster = Read::Failed(Fault::no_answer(Channel::Cluster, "down"));
    assert_eq!(c.step(), "faulted:no-answer", "no word from the cluster is no leave");
    let mut c = Case::new("1.5");
    c.report.cluster =
        Read::Seen(Membership { member: true, cordoned: true, ..Membership::default() });
    assert_eq!(c.step(), "intent:update-firmware");
}

#[test]
fn a_completed_task_is_not_success_the_version_is() {
    let mut c = Case::with_task();
    c.tasks(&[(TASK, TaskState::Succeeded, "Completed", 100)]);
    assert_eq!(c.later(60_000).step(), "closed:true");
    assert_eq!(c.step(), "intent:bmc-reset", "activation");
    c.apply(Entry::Settled { outcome: Outcome::Applied { handle: None } });
    assert_eq!(c.later(20_000).step(), "waits", "the old firmware may still answer");
    c.report.tasks = Read::Seen(vec![]);
    assert_eq!(c.later(60_000).step(), "closed:true");
    assert_eq!(c.step(), "waits");
    assert_eq!(c.later(30_000).step(), "rest");
    // The version never changes: after the verify time-out that is a failed attempt.
    assert_eq!(c.later(700_000).step(), "faulted:version-unchanged");
    c.later(900_000);
    assert_eq!(c.step(), "intent:update-firmware", "a second attempt from the start");
}

#[test]
fn the_new_version_ends_the_step() {
    let mut c = Case::with_task();
    c.tasks(&[(TASK, TaskState::Succeeded, "Completed", 100)]);
    assert_eq!(c.later(60_000).step(), "closed:true");
    c.version("2.0");
    assert_eq!(c.step(), "done");
}

#[test]
fn a_failed_task_charges_an_attempt_and_attempts_end() {
    let mut c = Case::with_task();
    for attempt in 1..=4 {
        c.tasks(&[(TASK, TaskState::Failed, "Completed", 100)]);
        let said = c.later(60_000).step();
        if attempt == 4 {
            assert_eq!(said, "closed:false quarantined:update-failed");
            break;
        }
        assert_eq!(said, "closed:false faulted:update-failed", "attempt {attempt}");
        c.later(3_600_000 / 8);
        assert_eq!(c.step(), "intent:update-firmware");
        c.apply(Entry::Settled { outcome: Outcome::Applied { handle: Some(TASK.into()) } });
    }
    assert!(matches!(c.m.condition, Condition::Quarantined { .. }));
}

#[test]
fn a_vanished_task_is_neither_success_nor_failure() {
    let mut c = Case::with_task();
    c.tasks(&[]);
    assert_eq!(c.later(30_000).step(), "waits", "it may be listed again");
    assert_eq!(c.later(200_000).step(), "closed:true");
    // Not done: the version is the old one, so the staged image is activated once and re-read.
    assert_eq!(c.step(), "intent:bmc-reset");
}

/// The version runs, and a root of trust copies the image to its second place.
#[test]
fn what_was_flashed_is_not_done_while_the_bmc_still_copies_it() {
    const COPY: &str = "/redfish/v1/Chassis/HGX_ERoT_BMC_0#/Oem/Nvidia/BackgroundCopyStatus";
    let copying = || {
        let mut c = Case::with_task();
        c.tasks(&[(TASK, TaskState::Succeeded, "Completed", 100)]);
        assert_eq!(c.later(60_000).step(), "closed:true");
        c.tasks(&[]);
        assert_eq!(c.step(), "intent:bmc-reset");
        c.apply(Entry::Settled { outcome: Outcome::Applied { handle: None } });
        assert_eq!(c.later(60_000).step(), "closed:true");
        c.version("2.0");
        c.tasks(&[(COPY, TaskState::InProgress, "InProgress", 0)]);
        assert_eq!(c.step(), "waits");
        c
    };
    let mut c = copying();
    assert_eq!(c.later(600_000).step(), "rest");
    c.report.tasks = Read::Failed(Fault::no_answer(Channel::Bmc, "refused"));
    assert_eq!(c.later(15_000).step(), "waits", "what can't be read may go on");
    c.tasks(&[]);
    assert_eq!(c.later(60_000).step(), "done");
    // A task that never ends keeps nobody for longer than a copy takes.
    assert_eq!(copying().later(2_700_000).step(), "done");
    // A machine on which nothing was flashed waits for nobody.
    let mut c = Case::new("2.0");
    c.tasks(&[(COPY, TaskState::InProgress, "InProgress", 0)]);
    assert_eq!(c.step(), "done");
}

#[test]
fn a_hundred_percent_while_running_is_still_running() {
    let mut c = Case::with_task();
    c.tasks(&[(TASK, TaskState::InProgress, "Running", 100)]);
    assert_eq!(c.later(60_000).step(), "waits");
    assert_eq!(c.later(60_000).step(), "rest");
}

#[test]
fn a_stalled_task_is_never_started_over() {
    let mut c = Case::with_task();
    assert_eq!(c.later(300_000).step(), "progressed");
    assert_eq!(c.later(600_000).step(), "waits");
    assert_eq!(c.later(400_000).step(), "quarantined:task-stalled");
    assert!(c.m.open.is_some(), "its headroom stays held: it may still be writing");
    assert_eq!(c.later(3_600_000).step(), "rest", "quarantined: followed, not touched");
    c.tasks(&[(TASK, TaskState::Failed, "Killed", 0)]);
    assert_eq!(c.step(), "closed:false");
}

#[test]
fn a_lost_answer_is_found_again_by_the_new_task() {
    let lost = Fault::no_answer(Channel::Bmc, "connection reset");
    let mut c = Case::started("1.5", Outcome::Unknown { fault: lost });
    assert_eq!(c.later(5_000).step(), "waits");
    c.tasks(&[(TASK, TaskState::InProgress, "New", 0)]);
    assert_eq!(c.step(), "found");
    assert_eq!(c.m.open.as_ref().unwrap().handle.as_deref(), Some(TASK));
}

/// A copy in the background follows from an update, and is none.
#[test]
fn a_background_copy_is_not_taken_for_the_update_whose_answer_was_lost() {
    const COPY: &str = "/redfish/v1/Chassis/HGX_ERoT_BMC_0#/Oem/Nvidia/BackgroundCopyStatus";
    let lost = Fault::no_answer(Channel::Bmc, "connection reset");
    let mut c = Case::started("1.5", Outcome::Unknown { fault: lost });
    c.tasks(&[(COPY, TaskState::InProgress, "InProgress", 0)]);
    assert_eq!(c.later(5_000).step(), "waits");
    assert_eq!(c.m.open.as_ref().unwrap().handle, None);
}

/// It stands behind somebody's job: nothing is being written, and a person looks at the queue.
#[test]
fn a_task_that_waits_in_the_bmcs_queue_is_said_to_wait() {
    let mut c = Case::with_task();
    c.tasks(&[(TASK, TaskState::InProgress, "Pending", 0)]);
    assert_eq!(c.later(300_000).step(), "progressed");
    assert_eq!(c.later(600_000).step(), "waits");
    assert_eq!(c.later(400_000).step(), "quarantined:task-queued");
    assert!(c.m.open.is_some(), "it may begin any time");
}

#[test]
fn a_full_job_queue_costs_no_attempt_and_is_tried_again() {
    let full = Fault::new(FaultClass::Throttled, Channel::Bmc, Fault::QUEUE_FULL, "JID_1 Pending");
    let full = full.retry_after(600_000);
    let mut c = Case::new("1.5");
    for _ in 0..6 {
        assert_eq!(c.step(), "intent:update-firmware");
        let entries = c.input(|i| Rules.settle(i, Outcome::Failed { fault: full.clone() }));
        entries.into_iter().for_each(|e| c.apply(e));
        assert!(c.m.open.is_none() && !c.m.is_quarantined());
        assert_eq!(c.m.step.as_ref().unwrap().attempt, 0);
        assert!(c.m.not_before.since(c.now) >= 600_000, "not before it may have room");
        c.now = c.m.not_before;
    }
}

#[test]
fn a_lost_answer_without_a_trace_is_activated_and_only_the_version_takes_it_back() {
    let lost = Fault::no_answer(Channel::Bmc, "connection reset");
    let mut c = Case::started("1.5", Outcome::Unknown { fault: lost });
    c.later(200_000);
    assert_eq!(c.step(), "waits", "the BMC may still apply it");
    // It may have been taken, and its task lost with a BMC reset: an image may be staged.
    assert_eq!(c.later(60_000).step(), "closed:true");
    assert_eq!(c.activated(), "faulted:version-unchanged");
    assert_eq!(c.m.step.as_ref().unwrap().attempt, 1, "nobody's end cut it: an attempt");
    c.now = c.m.not_before;
    assert_eq!(c.step(), "intent:update-firmware");
}

#[test]
fn without_a_task_list_nobody_can_tell_and_a_person_must_look() {
    let lost = Fault::no_answer(Channel::Bmc, "connection reset");
    let mut c = Case::started("1.5", Outcome::Unknown { fault: lost });
    c.report.tasks =
        Read::Failed(Fault::new(FaultClass::Unsupported, Channel::Bmc, "not-found", "404"));
    assert_eq!(c.later(300_000).step(), "quarantined:cant-tell");
}

#[test]
fn a_daemon_killed_in_the_middle_asks_before_it_acts() {
    let mut c = Case::new("1.5");
    assert_eq!(c.step(), "intent:update-firmware");
    // The process died here; the row still says `intended`.
    assert_eq!(c.step(), "settled");
    c.version("2.0");
    assert_eq!(c.step(), "waits", "the version is there, and the call may still be under way");
    assert_eq!(c.later(250_000).step(), "closed:true", "the update had happened: version re-read");
    assert_eq!(c.step(), "done");
}

#[test]
fn a_daemon_killed_again_and_again_costs_the_machine_neither_attempts_nor_time() {
    let mut c = Case::new("1.5");
    assert_eq!(c.step(), "intent:update-firmware");
    for kill in 1..=40 {
        // Died before the call went out.
        assert_eq!(c.step(), "settled", "kill {kill}");
        assert_eq!(c.later(250_000).step(), "closed:true", "kill {kill}");
        assert_eq!(c.activated(), "excused", "kill {kill}");
        c.now = c.m.not_before;
        assert_eq!(c.step(), "intent:update-firmware", "kill {kill}");
    }
    let step = c.m.step.as_ref().unwrap();
    assert_eq!(step.attempt, 0);
    assert!(c.now.since(EngineTime(1_000_000)) > 7_200_000, "longer than the step may take");
    // An answer that was lost while the daemon lived is an attempt as before.
    let lost = Fault::no_answer(Channel::Bmc, "connection reset");
    c.apply(Entry::Settled { outcome: Outcome::Unknown { fault: lost } });
    assert_eq!(c.later(250_000).step(), "closed:true");
    assert_eq!(c.activated(), "faulted:version-unchanged");
    assert_eq!(c.m.step.as_ref().unwrap().attempt, 1);
}

#[test]
fn another_machine_at_the_address_is_quarantined_at_once() {
    let mut c = Case::with_task();
    if let Read::Seen(s) = &mut c.report.system {
        s.identity = Identity::new(None, Some("11111111-2222-3333-4444-555555555502"), None);
    }
    assert_eq!(c.step(), "quarantined:wrong-machine");
}

#[test]
fn a_bmc_that_updates_itself_may_be_away() {
    let mut c = Case::with_task();
    c.report.system = Read::Failed(Fault::no_answer(Channel::Bmc, "refused"));
    for _ in 0..8 {
        assert_eq!(c.later(60_000).step(), "rest");
    }
    assert_eq!(c.later(300_000).step(), "faulted:no-answer");
}

#[test]
fn unsupported_is_skipped_only_where_the_workflow_says_so() {
    let gone =
        || Read::Failed(Fault::new(FaultClass::Unsupported, Channel::Bmc, "not-found", "404"));
    let mut c = Case::new("1.5");
    c.report.firmware = gone();
    assert_eq!(c.step(), "quarantined:not-found");
    let mut c = Case::new("1.5");
    c.report.firmware = gone();
    c.workflow.steps[0].unsupported = Unsupported::Skip;
    assert_eq!(c.step(), "done");
}

#[test]
fn an_intent_does_not_fit_a_held_or_quarantined_row() {
    let intent = |action| Entry::Intent {
        action,
        expect: Expect::default(),
        baseline: Baseline::default(),
        holds: None,
    };
    let mut c = Case::new("1.5");
    c.apply(Entry::Changed {
        change: Change::Hold { why: "x".into() },
        by: "me".into(),
        key: "k".into(),
    });
    let now = c.now;
    assert!(fold::apply(&mut c.m, &intent(Action::BmcReset { controller: None }), now).is_err());
}

#[test]
fn a_wait_for_room_takes_no_time_of_the_step_whatever_comes_between() {
    let mut c = Case::new("1.5");
    c.room = &Full;
    let busy =
        || Fault::new(FaultClass::Throttled, Channel::Bmc, "busy", "503, the service is busy");
    for _ in 0..5 {
        assert_eq!(c.step(), "waits");
        // A day, and the step may take two hours.
        assert_eq!(c.later(86_400_000).step(), "rest");
        let seen = c.report.firmware.clone();
        c.report.firmware = Read::Failed(busy());
        assert_eq!(c.step(), "faulted:busy");
        c.report.firmware = seen;
        c.now = c.m.not_before;
    }
    c.room = &Free;
    assert_eq!(c.step(), "intent:update-firmware");
    // From here on it is the step's time again.
    c.apply(Entry::Settled { outcome: Outcome::Applied { handle: Some(TASK.into()) } });
    c.tasks(&[(TASK, TaskState::InProgress, "Running", 10)]);
    assert_eq!(c.later(60_000).step(), "waits");
    c.tasks(&[(TASK, TaskState::InProgress, "Running", 11)]);
    assert_eq!(c.later(7_200_000).step(), "quarantined:step-timeout");
}

#[test]
fn a_first_look_that_comes_late_is_not_the_machines_delay() {
    let busy =
        || Fault::new(FaultClass::Throttled, Channel::Bmc, "busy", "503, the service is busy");
    let mut c = Case::new("1.5");
    let seen = c.report.firmware.clone();
    c.report.firmware = Read::Failed(busy());
    // Thousands of machines were looked at before this one, and the step may take two hours.
    assert_eq!(c.later(7_200_001).step(), "faulted:busy");
    c.now = c.m.not_before;
    assert_eq!(c.step(), "faulted:busy", "its time began with the first look");
    c.report.firmware = seen;
    c.room = &Full;
    c.now = c.m.not_before;
    assert_eq!(c.step(), "waits");
    // The same fault for as long as the step may take.
    let mut c = Case::new("1.5");
    c.report.firmware = Read::Failed(busy());
    assert_eq!(c.step(), "faulted:busy");
    assert_eq!(c.later(7_200_001).step(), "quarantined:step-timeout");
}

#[test]
fn a_component_that_cant_be_read_is_not_missing_and_costs_no_attempt() {
    let unread = |c: &mut Case, id: &str| {
        let why = Fault::new(FaultClass::Transient, Channel::Bmc, "bmc-error", "GET /x: 500");
        let unread = Some(Box::new(why));
        let bmc = Component { id: id.into(), unread, ..Component::default() };
        let Read::Seen(all) = &mut c.report.firmware else { panic!("none") };
        all.retain(|c| c.id.starts_with("Backup"));
        all.push(bmc);
    };
    // Under its own id, and where only the path's end is known.
    for id in ["Installed-1-1.5__BMC.1", "7"] {
        let mut c = Case::new("1.5");
        unread(&mut c, id);
        for _ in 0..7 {
            assert_eq!(c.later(900_000).step(), "faulted:component-unread", "{id}");
            assert_eq!(c.m.step.as_ref().map(|s| s.attempt), Some(0), "{id}");
        }
        assert_eq!(c.later(60_000_000).step(), "quarantined:step-timeout", "{id}: not for ever");
    }
    // Readable again: it goes on as if nothing had been.
    let mut c = Case::new("1.5");
    unread(&mut c, "7");
    assert_eq!(c.step(), "faulted:component-unread");
    c.version("1.5");
    assert_eq!(c.later(1_000_000).step(), "intent:update-firmware");
    // Another component that can't be read changes nothing for this one.
    let mut c = Case::new("2.0");
    let Read::Seen(all) = &mut c.report.firmware else { panic!("none") };
    let why = Fault::no_answer(Channel::Bmc, "GET /y: no answer");
    all.push(Component { id: "PSU".into(), unread: Some(why.into()), ..Component::default() });
    assert_eq!(c.step(), "done");
    // One that is not listed is missing, as before.
    let mut c = Case::new("1.5");
    let Read::Seen(all) = &mut c.report.firmware else { panic!("none") };
    all.retain(|c| c.id.starts_with("Backup"));
    assert_eq!(c.step(), "faulted:component-missing");
    assert_eq!(c.m.step.as_ref().map(|s| s.attempt), Some(1));
}

#[test]
fn a_version_that_cant_be_read_is_no_evidence_that_an_update_did_not_take() {
    let lost = Outcome::Unknown { fault: Fault::no_answer(Channel::Bmc, "the answer was lost") };
    let mut c = Case::started("1.5", lost);
    // No task list, and nobody knows the version: with the old one a person would be called.
    let none = Fault::new(FaultClass::Unsupported, Channel::Bmc, "no-tasks", "no task list");
    c.report.tasks = Read::Failed(none);
    let Read::Seen(all) = &mut c.report.firmware else { panic!("none") };
    let why = Fault::new(FaultClass::Transient, Channel::Bmc, "bmc-error", "GET /x: 500");
    all[1].unread = Some(Box::new(why));
    all[1].version = None;
    assert_eq!(c.later(5_000_000).step(), "faulted:component-unread");
    c.version("2.0");
    assert_eq!(c.later(600_000).step(), "closed:true");
}

fn other_certificate() -> Read<SystemFacts> {
    let text = "the BMC shows another certificate than the pinned one";
    Read::Failed(Fault::new(FaultClass::Identity, Channel::Bmc, Fault::CERTIFICATE_CHANGED, text))
}

#[test]
fn a_changed_certificate_is_another_machine_unless_farrier_just_updated_it() {
    let mut c = Case::new("1.5");
    c.report.system = other_certificate();
    assert_eq!(c.step(), "quarantined:certificate-changed");

    // The update is over and the BMC was reset for it: a person accepts the new one.
    let mut c = Case::with_task();
    c.tasks(&[(TASK, TaskState::Succeeded, "Completed", 100)]);
    assert_eq!(c.later(60_000).step(), "closed:true");
    c.tasks(&[]);
    assert_eq!(c.step(), "intent:bmc-reset");
    c.apply(Entry::Settled { outcome: Outcome::Applied { handle: None } });
    c.later(120_000).report.system = other_certificate();
    assert_eq!(c.step(), "waits");
    assert_eq!(c.step(), "rest", "said once");
    let told = c.input(|i| farrier::decide::explain::explain(&Rules, i, c.now));
    assert!(told.hint.is_some_and(|h| h.contains("farrier bmc pin n1")));
    assert!(told.ways_out.iter().any(|w| w.starts_with("farrier bmc pin n1")));
    // Accepted: the story goes on.
    c.system("2.0", Power::On);
    c.version("2.0");
    assert_eq!(c.later(1_000).step(), "closed:true");

    // Long after, it is another machine again.
    let mut c = Case::with_task();
    c.tasks(&[(TASK, TaskState::Succeeded, "Completed", 100)]);
    assert_eq!(c.later(60_000).step(), "closed:true");
    c.tasks(&[]);
    assert_eq!(c.step(), "intent:bmc-reset");
    c.apply(Entry::Settled { outcome: Outcome::Applied { handle: None } });
    c.later(3_700_000).report.system = other_certificate();
    assert_eq!(c.step(), "quarantined:certificate-changed");
}

impl Case {
    /// The baseboard shows another certificate than the accepted one, or nobody has accepted any.
    fn untrusted_baseboard(&mut self, class: FaultClass, code: &'static str) {
        let what = format!("controller `hgx` ({AT_HGX}): its certificate");
        let fault = Fault::new(class, Channel::Bmc, code, what.clone()).hint("compare it");
        let Read::Seen(all) = &mut self.report.firmware else { panic!("none") };
        all.retain(|c| !c.id.starts_with("hgx:"));
        let unread = Some(fault.into());
        all.push(Component { id: "hgx:".into(), unread, ..Component::default() });
        let task = Task {
            uri: "hgx:".into(),
            state: TaskState::Unread,
            raw_state: code.into(),
            percent: None,
            message: Some(what),
        };
        self.report.tasks = Read::Seen(vec![task]);
    }

    fn changed_at_baseboard(&mut self) -> &mut Self {
        self.untrusted_baseboard(FaultClass::Identity, Fault::CERTIFICATE_CHANGED);
        self
    }

    fn told(&self) -> farrier::decide::explain::Explanation {
        self.input(|i| farrier::decide::explain::explain(&Rules, i, self.now))
    }

    /// The baseboard's firmware is written and its BMC told to restart.
    fn baseboard_restarts() -> Case {
        let mut c = with_baseboard(Some("1.5"));
        assert_eq!(c.step(), "intent:update-firmware");
        c.apply(Entry::Settled { outcome: Outcome::Applied { handle: Some(HGX_TASK.into()) } });
        c.tasks(&[(HGX_TASK, TaskState::Succeeded, "Completed", 100)]);
        assert_eq!(c.later(60_000).step(), "closed:true");
        assert_eq!(c.intended(), Action::BmcReset { controller: Some("hgx".into()) });
        c.apply(Entry::Settled { outcome: Outcome::Applied { handle: None } });
        c.later(120_000);
        c
    }
}

#[test]
fn a_changed_certificate_of_a_controller_is_another_one_unless_farrier_just_updated_it() {
    // Whichever part of the report tells.
    let mut c = with_baseboard(Some("2.0"));
    c.changed_at_baseboard();
    assert_eq!(c.step(), "quarantined:certificate-changed");
    let told = c.told();
    assert!(told.summary.contains("controller `hgx`"), "{told:?}");
    let mut c = with_baseboard(Some("2.0"));
    c.changed_at_baseboard().baseboard(Some("2.0"));
    assert_eq!(c.step(), "quarantined:certificate-changed");
    assert!(c.told().hint.unwrap().contains("farrier bmc pin n1/hgx"));

    // Its own update is over and it was restarted for that: a person accepts the new one.
    let mut c = Case::baseboard_restarts();
    c.changed_at_baseboard();
    assert_eq!(c.step(), "waits");
    assert_eq!(c.step(), "rest", "said once");
    let wanted = format!("a person to accept the new certificate of controller `hgx` ({AT_HGX})");
    assert_eq!(c.waits_for(), wanted);
    let told = c.told();
    let hint = told.hint.unwrap();
    assert!(hint.contains("farrier bmc pin n1/hgx") && hint.contains("was reset"), "{hint}");
    assert!(told.ways_out.iter().any(|w| w.starts_with("farrier bmc pin n1/hgx ")));
    // Accepted: the story goes on.
    c.baseboard(Some("2.0"));
    c.report.tasks = Read::Seen(vec![]);
    assert_eq!(c.later(60_000).step(), "closed:true");
    assert_eq!(c.step(), "done");

    // While the update itself is followed by its name.
    let mut c = with_baseboard(Some("1.5"));
    assert_eq!(c.step(), "intent:update-firmware");
    c.apply(Entry::Settled { outcome: Outcome::Applied { handle: Some(HGX_TASK.into()) } });
    let what = format!("controller `hgx` ({AT_HGX}): another certificate");
    let changed = Fault::new(FaultClass::Identity, Channel::Bmc, Fault::CERTIFICATE_CHANGED, what);
    c.report.tasks = Read::Failed(changed.clone());
    assert_eq!((c.step().as_str(), c.waits_for()), ("waits", wanted.as_str()));

    // Long after, it is another one again.
    let mut c = Case::baseboard_restarts();
    c.later(3_700_000).changed_at_baseboard();
    assert_eq!(c.step(), "quarantined:certificate-changed");
}

#[test]
fn an_update_of_one_bmc_is_no_reason_for_another_ones_certificate() {
    let mut c = Case::baseboard_restarts();
    c.report.system = other_certificate();
    assert_eq!(c.step(), "quarantined:certificate-changed");
    // The host's was updated, and its BMC restarts.
    let mut c = with_baseboard(Some("2.0"));
    c.version("1.5");
    c.baseboard(Some("2.0"));
    assert_eq!(c.step(), "intent:update-firmware");
    c.apply(Entry::Settled { outcome: Outcome::Applied { handle: Some(TASK.into()) } });
    c.tasks(&[(TASK, TaskState::Succeeded, "Completed", 100)]);
    assert_eq!(c.later(60_000).step(), "closed:true");
    c.tasks(&[]);
    assert_eq!(c.intended(), Action::BmcReset { controller: None });
    c.apply(Entry::Settled { outcome: Outcome::Applied { handle: None } });
    c.later(120_000).changed_at_baseboard();
    assert_eq!(c.step(), "quarantined:certificate-changed");
}

#[test]
fn a_controller_whose_certificate_nobody_has_accepted_is_waited_for_where_it_is_needed() {
    let unpinned = |c: &mut Case| c.untrusted_baseboard(FaultClass::Precondition, Fault::NO_PIN);
    let wanted = format!("a person to accept the certificate of controller `hgx` ({AT_HGX})");
    // Its own firmware is wanted; a flash of the host's BMC could cut its work.
    for behind in [false, true] {
        let mut c = with_baseboard(Some("2.0"));
        if behind {
            c.version("1.5");
            c.site.catalog.families[0].sets.get_mut("s").unwrap().firmware.pop();
        }
        unpinned(&mut c);
        assert_eq!((c.step().as_str(), c.waits_for()), ("waits", wanted.as_str()));
        let told = c.told();
        assert!(told.hint.unwrap().contains("`farrier bmc pin n1/hgx` shows the one it has"));
        assert!(told.ways_out.iter().any(|w| w.starts_with("farrier bmc pin n1/hgx ")));
        assert_eq!(c.later(60_000_000).step(), "quarantined:step-timeout", "not for ever");
    }
    // Where nothing of it is wanted it is in nobody's way.
    let mut c = with_baseboard(Some("2.0"));
    c.site.catalog.families[0].sets.get_mut("s").unwrap().firmware.pop();
    unpinned(&mut c);
    assert_eq!(c.step(), "done");
}

const AT_HGX: &str = "https://10.0.0.9";
const HGX_TASK: &str = "hgx:/redfish/v1/TaskService/Tasks/7";

fn hgx() -> Further {
    Further {
        name: "hgx".into(),
        kind: FurtherKind::Hgx,
        url: AT_HGX.into(),
        credential: "hgx".into(),
        tls: "ca".into(),
        serial: Some("1575023".into()),
        barred: None,
    }
}

/// The host's firmware is as it should be; that of the baseboard is at `gpu`, or not read.
fn with_baseboard(gpu: Option<&str>) -> Case {
    let mut c = Case::new("2.0");
    c.expected.bmc.controllers = vec![hgx()].into();
    let fw = Firmware {
        id: "gpu-2".into(),
        component: "gpu".into(),
        inventory_id: rx("^hgx:HGX_FW_GPU_SXM_1$"),
        file: "gpu-2.fwpkg".into(),
        ..fw()
    };
    c.site.catalog.families[0].sets.get_mut("s").unwrap().firmware.push(fw);
    c.baseboard(gpu);
    c
}

impl Case {
    fn baseboard(&mut self, gpu: Option<&str>) {
        let Read::Seen(all) = &mut self.report.firmware else { panic!("none") };
        all.retain(|c| !c.id.starts_with("hgx:"));
        let silent =
            || Fault::no_answer(Channel::Bmc, format!("controller `hgx` ({AT_HGX}): no answer"));
        all.push(match gpu {
            Some(version) => Component {
                id: "hgx:HGX_FW_GPU_SXM_1".into(),
                version: Some(version.into()),
                ..Component::default()
            },
            None => Component {
                id: "hgx:".into(),
                unread: Some(silent().into()),
                ..Component::default()
            },
        });
    }

    fn intended(&mut self) -> Action {
        let Verdict::Act { entries } = self.decide() else { panic!("no act") };
        let action = entries.iter().find_map(|e| match e {
            Entry::Intent { action, .. } => Some(action.clone()),
            _ => None,
        });
        self.step();
        action.expect("an intent")
    }

    fn waits_for(&self) -> &str {
        self.m.waiting.as_deref().unwrap_or("nothing")
    }
}

#[test]
fn a_component_of_a_further_controller_is_flashed_and_restarted_there() {
    let mut c = with_baseboard(Some("1.5"));
    let flash = c.intended();
    assert!(
        matches!(&flash, Action::UpdateFirmware { inventory_id, from, .. }
            if inventory_id == "hgx:HGX_FW_GPU_SXM_1" && from == "1.5"),
        "{flash:?}"
    );
    c.apply(Entry::Settled { outcome: Outcome::Applied { handle: Some(HGX_TASK.into()) } });
    c.tasks(&[(HGX_TASK, TaskState::InProgress, "Running", 10)]);
    assert_eq!(c.later(60_000).step(), "waits");
    c.tasks(&[(HGX_TASK, TaskState::Succeeded, "Completed", 100)]);
    assert_eq!(c.later(300_000).step(), "closed:true");
    assert_eq!(c.intended(), Action::BmcReset { controller: Some("hgx".into()) });
    c.apply(Entry::Settled { outcome: Outcome::Applied { handle: None } });
    // The host's BMC answers all the time: that says nothing of the other one.
    c.tasks(&[("hgx:", TaskState::Unread, "no-answer", 0)]);
    assert_eq!(c.later(60_000).step(), "waits");
    assert_eq!(c.waits_for(), "the controller to answer again");
    c.report.tasks = Read::Seen(vec![]);
    assert_eq!(c.later(60_000).step(), "closed:true");
    c.baseboard(Some("2.0"));
    assert_eq!(c.step(), "done");
}

#[test]
fn a_restart_of_another_controller_activates_nothing() {
    let mut c = with_baseboard(Some("1.5"));
    assert_eq!(c.step(), "intent:update-firmware");
    c.apply(Entry::Settled { outcome: Outcome::Applied { handle: Some(HGX_TASK.into()) } });
    c.tasks(&[(HGX_TASK, TaskState::Succeeded, "Completed", 100)]);
    assert_eq!(c.later(60_000).step(), "closed:true");
    // A remedy restarted the host's BMC.
    let reset = Action::BmcReset { controller: None };
    c.apply(Entry::Intent {
        action: reset,
        expect: Expect::default(),
        baseline: Baseline::default(),
        holds: None,
    });
    c.apply(Entry::Settled { outcome: Outcome::Applied { handle: None } });
    c.apply(Entry::Closed { happened: true, why: "it answers".into() });
    assert_eq!(c.intended(), Action::BmcReset { controller: Some("hgx".into()) });
}

#[test]
fn a_controller_that_is_not_read_is_waited_for_by_name_and_not_for_ever() {
    let mut c = with_baseboard(None);
    for _ in 0..7 {
        assert_eq!(c.later(900_000).step(), "faulted:component-unread");
        let fault = &c.m.last_fault.as_ref().unwrap().fault;
        assert!(fault.message.contains("`hgx`") && fault.message.contains(AT_HGX), "{fault}");
        assert_eq!(c.m.step.as_ref().map(|s| s.attempt), Some(0), "nothing is charged");
        assert!(!c.m.is_unreachable());
    }
    assert_eq!(c.later(60_000_000).step(), "quarantined:step-timeout");
    // Its firmware is of no interest where the set has none for it.
    let mut c = with_baseboard(None);
    c.site.catalog.families[0].sets.get_mut("s").unwrap().firmware.pop();
    assert_eq!(c.step(), "done");
    // A component of the host's BMC that is not there is missing, whatever others do not show.
    let mut c = with_baseboard(None);
    let Read::Seen(all) = &mut c.report.firmware else { panic!("none") };
    all.retain(|c| !c.id.starts_with("Installed"));
    assert_eq!(c.step(), "faulted:component-missing");
    // The set has firmware for a controller that the inventory does not give.
    let mut c = with_baseboard(None);
    c.expected.bmc.controllers = Controllers::default();
    let Read::Seen(all) = &mut c.report.firmware else { panic!("none") };
    all.retain(|c| !c.id.starts_with("hgx:"));
    assert_eq!(c.step(), "quarantined:no-controller");
}

#[test]
fn work_on_any_controller_or_none_that_can_be_read_stops_flashes_and_restarts() {
    let running =
        "the task /redfish/v1/TaskService/Tasks/7 of controller `hgx` (https://10.0.0.9) to end";
    for (uri, state, wanted) in [
        (HGX_TASK, TaskState::InProgress, running),
        (
            "hgx:",
            TaskState::Unread,
            "controller `hgx` (https://10.0.0.9) to answer: an update may go on there",
        ),
    ] {
        // A flash of the host's BMC.
        let mut c = with_baseboard(Some("2.0"));
        c.version("1.5");
        c.baseboard(Some("2.0"));
        c.tasks(&[(uri, state, "x", 0)]);
        assert_eq!((c.step().as_str(), c.waits_for()), ("waits", wanted));
        // A restart that activates what was flashed on the host.
        let mut c = with_baseboard(Some("2.0"));
        c.version("1.5");
        c.baseboard(Some("2.0"));
        assert_eq!(c.step(), "intent:update-firmware");
        c.apply(Entry::Settled { outcome: Outcome::Applied { handle: Some(TASK.into()) } });
        c.tasks(&[(TASK, TaskState::Succeeded, "Completed", 100)]);
        assert_eq!(c.later(60_000).step(), "closed:true");
        c.tasks(&[(uri, state, "x", 0)]);
        assert_eq!((c.step().as_str(), c.waits_for()), ("waits", wanted));
        assert_eq!(c.later(60_000_000).step(), "quarantined:step-timeout", "not for ever");
    }
    // The host's BMC lists no tasks, and those of the baseboard can't be told from none.
    let mut c = with_baseboard(Some("2.0"));
    c.version("1.5");
    c.baseboard(Some("2.0"));
    assert_eq!(c.step(), "intent:update-firmware");
    c.apply(Entry::Settled { outcome: Outcome::Applied { handle: Some(TASK.into()) } });
    c.tasks(&[(TASK, TaskState::Succeeded, "Completed", 100)]);
    assert_eq!(c.later(60_000).step(), "closed:true");
    let busy =
        Fault::new(FaultClass::Transient, Channel::Bmc, Fault::CONTROLLER_BUSY, "hgx: works");
    c.report.tasks = Read::Failed(busy);
    assert_eq!(c.step(), "faulted:controller-busy");
    c.report.tasks =
        Read::Failed(Fault::new(FaultClass::Unsupported, Channel::Bmc, "no-tasks", "none"));
    assert_eq!(c.later(900_000).step(), "intent:bmc-reset");
}

#[test]
fn a_task_of_another_controller_is_not_the_lost_update() {
    let lost = || Outcome::Unknown { fault: Fault::no_answer(Channel::Bmc, "cut") };
    // Of the host's update nothing is known; the baseboard begins something.
    let mut c = Case::started("1.5", lost());
    c.expected.bmc.controllers = vec![hgx()].into();
    c.tasks(&[(HGX_TASK, TaskState::InProgress, "Running", 1)]);
    assert_eq!(c.later(60_000).step(), "waits");
    c.tasks(&[
        (HGX_TASK, TaskState::InProgress, "Running", 2),
        (TASK, TaskState::InProgress, "Running", 1),
    ]);
    assert_eq!(c.later(10_000).step(), "found");
    assert_eq!(c.m.open.as_ref().and_then(|o| o.handle.as_deref()), Some(TASK));
    // Of the baseboard's: it is found there.
    let mut c = with_baseboard(Some("1.5"));
    assert_eq!(c.step(), "intent:update-firmware");
    c.apply(Entry::Settled { outcome: lost() });
    c.tasks(&[
        (TASK, TaskState::InProgress, "Running", 1),
        (HGX_TASK, TaskState::InProgress, "Running", 2),
    ]);
    assert_eq!(c.later(10_000).step(), "found");
    assert_eq!(c.m.open.as_ref().and_then(|o| o.handle.as_deref()), Some(HGX_TASK));
    // It does not answer: nobody says that it did not begin.
    let mut c = with_baseboard(Some("1.5"));
    assert_eq!(c.step(), "intent:update-firmware");
    c.apply(Entry::Settled { outcome: lost() });
    c.baseboard(None);
    c.tasks(&[("hgx:", TaskState::Unread, "no-answer", 0)]);
    assert_eq!(c.later(3_000_000).step(), "waits");
    assert!(c.m.open.is_some());
}

#[test]
fn a_pattern_without_a_controllers_name_means_the_hosts_bmc() {
    let fw = |pattern: &str| Firmware { inventory_id: rx(pattern), ..fw() };
    for (pattern, id, fits) in [
        ("^hgx:HGX_FW_.*", "hgx:HGX_FW_GPU_SXM_1", true),
        ("^hgx:HGX_FW_.*", "HGX_FW_GPU_SXM_1", false),
        ("^HGX_FW_.*", "hgx:HGX_FW_GPU_SXM_1", false),
        ("^.*GPU.*", "hgx:HGX_FW_GPU_SXM_1", false),
        ("^.*GPU.*", "HGX_FW_GPU_SXM_1", true),
        ("^dpu-?[01]:BMC", "dpu0:BMC", false),
        ("^dpu0:BMC", "dpu0:BMC_Firmware", true),
        ("^DCIM:INSTALLED_.*BIOS.*", "DCIM:INSTALLED_0x23_741__BIOS.Setup.1-1", true),
    ] {
        assert_eq!(fw(pattern).fits(id), fits, "{pattern} and {id}");
    }
}
