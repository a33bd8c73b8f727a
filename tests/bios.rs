//! The BIOS step against what BMCs do: pending, one reboot, read again. Facts in, decisions out.

#[path = "support/case.rs"]
mod case;

use case::{MINUTE, UUID, spec};
use farrier::decide::Rules;
use farrier::decide::explain::explain;
use farrier::model::facts::*;
use farrier::model::hardware::{BiosFacts, BootMode, SecureBootFacts};
use farrier::model::*;
use farrier::sim::broken::{Break, first_catch};
use farrier::sim::profile::Profile as Faults;
use farrier::sim::run::{Spec, run};
use farrier::steps::settings::{Rule, Settings};
use farrier::steps::site::Profile;
use farrier::steps::workflow::Unsupported;
use farrier::steps::{Step, bios};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

const JOB: &str = "/redfish/v1/TaskService/Tasks/JID_7";

fn map(all: &[(&str, Value)]) -> BTreeMap<String, Value> {
    all.iter().map(|(k, v)| (k.to_string(), v.clone())).collect()
}

/// A board that does as boards do: settings wait for a POST.
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

impl Case {
    fn new() -> Self {
        let rule = |model: &str, bios: &str, attributes: &[(&str, Value)]| Rule {
            model: model.into(),
            bios: bios.parse().unwrap(),
            attributes: map(attributes),
        };
        let settings = Settings {
            rules: vec![
                rule("PowerEdge R7*", ">=1.5, <2", &[("Sriov", json!("On")), ("Cores", json!(4))]),
                rule("PowerEdge R7*", ">=2", &[("Sriov", json!("Other"))]),
            ],
            boot_mode: Some(BootMode::Uefi),
            secure_boot: Some(true),
        };
        let profile = Profile { bios: settings, cluster: Some("c".into()), ..Profile::default() };
        let step = Step::Bios(bios::Params::default());
        let steps = vec![spec("bios", Stage::Firmware, step)];
        let mut case = Case(case::Case::new(profile, steps, Desired::Ready));
        let system = case.system();
        system.manufacturer = Some("Dell Inc.".into());
        system.model = Some("PowerEdge R750".into());
        system.bios_version = Some("1.8.2".into());
        case.power(Power::On);
        case.report.bios = Read::Seen(BiosFacts {
            attributes: map(&[
                ("Sriov", json!("Off")),
                ("Cores", json!(8)),
                ("BootMode", json!("Bios")),
                ("Asset", json!("x")),
            ]),
            ..BiosFacts::default()
        });
        case.report.secure_boot = Read::Seen(SecureBootFacts {
            enabled: Some(false),
            in_force: Some(false),
            mode: Some("UserMode".into()),
        });
        case.report.tasks = Read::Seen(vec![]);
        case.report.cluster = Read::Seen(Membership::default());
        case
    }

    fn bios(&mut self) -> &mut BiosFacts {
        match &mut self.report.bios {
            Read::Seen(bios) => bios,
            _ => panic!("not read"),
        }
    }

    fn secure(&mut self) -> &mut SecureBootFacts {
        match &mut self.report.secure_boot {
            Read::Seen(secure) => secure,
            _ => panic!("not read"),
        }
    }

    /// A POST has ended: what waited for it is in force.
    fn posted(&mut self) {
        let bios = self.bios();
        bios.attributes.append(&mut bios.pending);
        let secure = self.secure();
        secure.in_force = secure.enabled;
    }

    /// All three settings that differ are set and wait, Secure Boot too.
    fn pending(job: Option<&str>) -> Self {
        let mut c = Case::new();
        assert_eq!(c.step(), "set-bios BootMode, Cores, Sriov", "in one go");
        c.applied(job);
        c.bios().pending =
            map(&[("Sriov", json!("On")), ("Cores", json!(4)), ("BootMode", json!("Uefi"))]);
        if let Some(job) = job {
            c.task(job, TaskState::InProgress, "Scheduled");
        }
        assert_eq!(c.step(), "closed:true");
        assert_eq!(c.step(), "set-secure-boot on");
        c.applied(None);
        c.secure().enabled = Some(true);
        assert_eq!(c.step(), "closed:true");
        c
    }

    /// And rebooted, the POST still under way.
    fn rebooted(job: Option<&str>) -> Self {
        let mut c = Case::pending(job);
        assert_eq!(c.step(), "power-restart force-restart", "one reboot for all");
        c.applied(None);
        c.boots();
        assert_eq!(c.later(MINUTE).step(), "closed:true");
        c
    }
}

const DONE: &str = "done: BootMode = Uefi, Cores = 4, Sriov = On, Secure Boot on";

#[test]
fn what_differs_is_set_once_rebooted_once_and_done_when_read_in_force() {
    let mut c = Case::rebooted(None);
    let waits = c.step();
    assert!(
        waits.starts_with("waits for POST to apply BootMode reads Bios, wanted Uefi"),
        "{waits}"
    );
    assert!(waits.ends_with("and 1 more"), "{waits}");
    assert_eq!(c.later(5 * MINUTE).step(), "rest");
    let said = c.input(|i| explain(&Rules, i, c.now + 1));
    let waiting = said.waiting_for.unwrap();
    assert!(waiting.contains("Cores reads 8, wanted 4"), "explain names the attribute: {waiting}");
    c.posted();
    assert_eq!(c.step(), DONE);
}

#[test]
fn nothing_is_set_or_rebooted_where_nothing_differs() {
    let mut c = Case::new();
    c.bios().attributes.extend(map(&[
        ("Sriov", json!("On")),
        ("Cores", json!(4)),
        ("BootMode", json!("UEFI")),
    ]));
    (c.secure().enabled, c.secure().in_force) = (Some(true), Some(true));
    // Somebody's own task and somebody's own settings are nobody's business here.
    c.task("/t/1", TaskState::InProgress, "Running");
    c.bios().pending = map(&[("Asset", json!("y"))]);
    let done = c.step();
    assert!(done.starts_with("done: BootMode = UEFI"), "{done}");
    assert!(done.ends_with("not ours and pending: Asset = y"), "{done}");
}

#[test]
fn only_those_that_differ_are_set() {
    let mut c = Case::new();
    c.bios().attributes.extend(map(&[("Sriov", json!("On")), ("BootMode", json!("Uefi"))]));
    c.profile.bios.secure_boot = None;
    assert_eq!(c.step(), "set-bios Cores");
    let open = c.m.open.as_ref().unwrap();
    assert_eq!(open.action, Action::SetBios { attributes: map(&[("Cores", json!(4))]) });
    assert_eq!(open.expect.identity.uuid.as_deref(), Some(UUID));
}

#[test]
fn a_profile_or_a_rule_that_asks_nothing_skips_with_the_reason() {
    let mut c = Case::new();
    c.profile.bios = Settings::default();
    assert_eq!(c.step(), "skipped: the profile asks nothing of the BIOS");
    let mut c = Case::new();
    (c.profile.bios.boot_mode, c.profile.bios.secure_boot) = (None, None);
    c.profile.bios.rules.retain(|r| r.bios.to_string() == ">=2");
    assert_eq!(
        c.step(),
        "skipped: no `[[profile.bios]]` fits model `PowerEdge R750` with BIOS `1.8.2`"
    );
}

#[test]
fn another_bios_version_has_other_settings() {
    let mut c = Case::new();
    if let Read::Seen(system) = &mut c.report.system {
        system.bios_version = Some("2.1".into());
    }
    (c.profile.bios.boot_mode, c.profile.bios.secure_boot) = (None, None);
    assert_eq!(c.step(), "set-bios Sriov");
    let open = c.m.open.as_ref().unwrap();
    assert_eq!(open.action, Action::SetBios { attributes: map(&[("Sriov", json!("Other"))]) });
}

#[test]
fn what_the_bios_lacks_is_named_before_anything_is_set() {
    let mut c = Case::new();
    c.bios().attributes.retain(|k, _| k == "BootMode");
    assert_eq!(c.step(), "quarantined:unknown-bios-attribute");
    assert_eq!(c.quarantine().message, "this BIOS has no Cores, Sriov");
    let mut c = Case::new();
    c.bios().attributes.insert("Cores".into(), json!("8"));
    assert_eq!(c.step(), "quarantined:bios-value-kind");
    assert!(c.quarantine().message.contains("`Cores` is \"8\", wanted 4"));
}

#[test]
fn a_read_only_attribute_is_a_fault_and_nothing_is_rebooted() {
    let mut c = Case::new();
    c.step();
    let fault = Fault::new(
        FaultClass::Precondition,
        Channel::Bmc,
        "read-only-bios-attribute",
        "this BIOS does not let Cores be changed",
    );
    c.settle(Outcome::Failed { fault });
    assert_eq!(c.quarantine().message, "this BIOS does not let Cores be changed");
    assert!(c.m.open.is_none());
    assert_eq!(c.later(MINUTE).step(), "rest");
}

#[test]
fn never_while_a_task_runs_neither_the_set_nor_the_reboot() {
    let mut c = Case::new();
    c.task("/t/9", TaskState::InProgress, "Running");
    assert_eq!(c.step(), "waits for the BMC's task /t/9 to end");
    let mut c = Case::pending(None);
    c.task("/t/9", TaskState::InProgress, "Running");
    assert_eq!(c.step(), "waits for the BMC's task /t/9 to end");
    c.task("/t/9", TaskState::Succeeded, "Completed");
    assert_eq!(c.step(), "power-restart force-restart");
}

#[test]
fn never_on_a_node_that_the_cluster_uses() {
    let mut c = Case::new();
    c.report.cluster =
        Read::Seen(Membership { member: true, ready: true, ..Membership::default() });
    assert_eq!(c.step(), "quarantined:in-use");
}

#[test]
fn the_bmcs_own_job_is_followed_and_not_waited_for_before_the_reboot() {
    // Named by its monitor; listed as a task.
    let monitor = "/redfish/v1/TaskService/TaskMonitors/JID_7";
    let mut c = Case::pending(Some(monitor));
    c.task(JOB, TaskState::InProgress, "Scheduled");
    assert_eq!(c.step(), "power-restart force-restart");
    c.applied(None);
    c.boots();
    assert_eq!(c.later(MINUTE).step(), "closed:true");
    assert!(c.step().starts_with("waits for POST to apply"));
    c.posted();
    c.task(JOB, TaskState::InProgress, "Running");
    assert_eq!(c.step(), format!("waits for the BMC's job {JOB} to end"));
    c.task(JOB, TaskState::Succeeded, "Completed");
    assert_eq!(c.step(), DONE);

    let mut c = Case::rebooted(Some(JOB));
    c.task(JOB, TaskState::Failed, "Completed");
    assert_eq!(c.step(), "faulted:bios-job-failed");
}

#[test]
fn a_lost_answer_finds_the_job_that_waits_and_no_other() {
    for (raw, found) in [("Scheduled", true), ("Running", false)] {
        let mut c = Case::new();
        c.profile.bios.secure_boot = None;
        c.step();
        let fault = Fault::no_answer(Channel::Bmc, "connection reset");
        c.settle(Outcome::Unknown { fault });
        assert!(c.step().starts_with("waits"), "not shown yet");
        c.bios().pending =
            map(&[("Sriov", json!("On")), ("Cores", json!(4)), ("BootMode", json!("Uefi"))]);
        c.task(JOB, TaskState::InProgress, raw);
        if found {
            assert_eq!(c.step(), "found");
        }
        assert_eq!(c.step(), "closed:true");
        let said = c.step();
        match found {
            true => assert_eq!(said, "power-restart force-restart"),
            false => assert_eq!(said, format!("waits for the BMC's task {JOB} to end")),
        }
    }
}

#[test]
fn settings_that_are_not_shown_did_not_take() {
    let mut c = Case::new();
    c.step();
    let fault = Fault::no_answer(Channel::Bmc, "connection reset");
    c.settle(Outcome::Unknown { fault });
    assert!(c.step().starts_with("waits"));
    assert_eq!(c.later(4 * MINUTE).step(), "closed:false faulted:did-not-take");
    let said = &c.m.last_fault.as_ref().unwrap().fault.message;
    assert!(said.contains("Cores for the next POST reads 8, wanted 4"), "{said}");
    c.now = c.m.not_before;
    assert_eq!(c.step(), "set-bios BootMode, Cores, Sriov", "the next attempt");
}

#[test]
fn pending_that_never_comes_into_force_ends_with_both_values() {
    let mut c = Case::rebooted(None);
    for attempt in 1..=3 {
        // The BIOS has dropped it.
        c.bios().pending.clear();
        c.secure().in_force = Some(true);
        assert!(c.step().starts_with("waits for POST"), "not set again in the same attempt");
        let said = c.later(31 * MINUTE).step();
        if attempt == 3 {
            assert_eq!(said, "quarantined:bios-unchanged");
            break;
        }
        assert_eq!(said, "faulted:bios-unchanged");
        c.now = c.m.not_before;
        assert_eq!(c.step(), "set-bios BootMode, Cores, Sriov");
        c.applied(None);
        c.bios().pending =
            map(&[("Sriov", json!("On")), ("Cores", json!(4)), ("BootMode", json!("Uefi"))]);
        assert_eq!(c.step(), "closed:true");
        assert_eq!(c.step(), "power-restart force-restart");
        c.applied(None);
        c.boots();
        assert_eq!(c.later(MINUTE).step(), "closed:true");
    }
    let fault = c.quarantine();
    for part in ["Cores reads 8, wanted 4", "Sriov reads Off, wanted On", "BootMode reads Bios"] {
        assert!(fault.message.contains(part), "{}", fault.message);
    }
    assert!(!fault.message.contains("Secure Boot"), "that one is in force: {}", fault.message);
}

#[test]
fn a_machine_that_is_off_is_powered_on_for_its_post() {
    let mut c = Case::pending(None);
    c.power(Power::Off);
    assert_eq!(c.step(), "power-on on");
    c.applied(None);
    c.boots();
    assert_eq!(c.later(MINUTE).step(), "closed:true");
    assert!(c.step().starts_with("waits for POST"));
    // Somebody presses the button in the middle of it.
    c.power(Power::Off);
    assert_eq!(c.later(MINUTE).step(), "power-on on");
    c.applied(None);
    c.boots();
    assert_eq!(c.later(MINUTE).step(), "closed:true");
    c.posted();
    assert_eq!(c.step(), DONE);
}

#[test]
fn what_somebody_else_left_pending_is_said_before_our_post_applies_it() {
    let mut c = Case::new();
    c.bios().pending = map(&[("Asset", json!("y"))]);
    assert_eq!(c.step(), "noticed");
    assert!(c.m.notice.as_deref().unwrap().ends_with("the same POST: Asset = y"));
    assert_eq!(c.step(), "set-bios BootMode, Cores, Sriov");
    // What they left of ours and as wanted needs no set of ours, only the POST.
    let mut c = Case::new();
    c.profile.bios.secure_boot = None;
    c.bios().pending =
        map(&[("Sriov", json!("On")), ("Cores", json!(4)), ("BootMode", json!("Uefi"))]);
    assert_eq!(c.step(), "power-restart force-restart");
    // What they left would undo ours at the next POST: taken back, and no POST needed.
    let mut c = Case::new();
    c.profile.bios.secure_boot = None;
    c.posted();
    c.bios().attributes.extend(map(&[
        ("Sriov", json!("On")),
        ("Cores", json!(4)),
        ("BootMode", json!("Uefi")),
    ]));
    c.bios().pending = map(&[("Cores", json!(2))]);
    assert_eq!(c.step(), "set-bios Cores");
    c.applied(None);
    c.bios().pending.clear();
    assert_eq!(c.step(), "closed:true");
    assert_eq!(c.step(), "done: BootMode = Uefi, Cores = 4, Sriov = On");
}

#[test]
fn a_daemon_killed_in_the_middle_asks_before_it_acts() {
    let mut c = Case::new();
    c.profile.bios.secure_boot = None;
    c.step();
    // The process died here; the row still says `intended`.
    assert_eq!(c.step(), "settled");
    c.bios().pending =
        map(&[("Sriov", json!("On")), ("Cores", json!(4)), ("BootMode", json!("Uefi"))]);
    assert_eq!(c.step(), "closed:true");
    assert_eq!(c.step(), "power-restart force-restart");
    assert_eq!(c.step(), "settled");
    c.boots();
    assert_eq!(c.later(MINUTE).step(), "closed:true", "the reboot had happened");
    c.posted();
    assert_eq!(c.step(), "done: BootMode = Uefi, Cores = 4, Sriov = On");
}

#[test]
fn only_what_the_profile_asks_about_is_read() {
    let wanted = |c: &Case| {
        let set = farrier::decide::probes::wanted(&c.m, &c.profile, &c.workflow, c.now);
        (set.has(ProbeSet::BIOS), set.has(ProbeSet::SECURE_BOOT))
    };
    let mut c = Case::new();
    assert_eq!(wanted(&c), (true, true));
    c.profile.bios.secure_boot = None;
    assert_eq!(wanted(&c), (true, false));
    c.profile.bios = Settings { secure_boot: Some(false), ..Settings::default() };
    assert_eq!(wanted(&c), (false, true));
    c.profile.bios = Settings::default();
    assert_eq!(wanted(&c), (false, false));
}

#[test]
fn a_bmc_without_tasks_has_none_and_one_without_bios_says_so() {
    let none = |code| Fault::new(FaultClass::Unsupported, Channel::Bmc, code, "404");
    let mut c = Case::new();
    c.report.tasks = Read::Failed(none("no-task-service"));
    assert_eq!(c.step(), "set-bios BootMode, Cores, Sriov");
    let mut c = Case::new();
    c.report.bios = Read::Failed(none("no-bios"));
    assert_eq!(c.step(), "quarantined:no-bios");
    let mut c = Case::new();
    c.report.bios = Read::Failed(none("no-bios"));
    c.workflow.steps[0].unsupported = Unsupported::Skip;
    assert!(c.step().starts_with("skipped"));
}

#[test]
fn a_decider_that_takes_pending_for_done_is_caught_by_what_truly_is_in_force() {
    let (seed, seen) = first_catch(Break::AssumeBios, 1);
    assert!(seed.is_some(), "{seen:?}");
}

#[test]
fn a_small_site_in_chaos_sets_its_bios_without_a_violation() {
    let ran = run(&Spec::new(12, 2, 5, Faults::named("chaos").unwrap()), Rules);
    let told: Vec<String> = ran.violations.iter().map(ToString::to_string).collect();
    assert_eq!(told, [""; 0]);
    let bios = Step::KINDS.iter().position(|k| *k == "bios").unwrap();
    assert!(ran.coverage.ended[bios] > 3, "{}", ran.coverage.table());
}
