use super::*;
use crate::model::action::{BootTarget, Expect, HookVerb, JobScript, Outcome, PowerOp};
use crate::model::facts::{JobState, Power, ProbeSet, TaskState};
use crate::sim::faults::FaultKind;
use crate::sim::profile::{Profile, Rule};

const M: u64 = 60_000;

fn machine_with(rules: &[FaultKind]) -> VirtualMachine {
    let profile = Profile {
        name: "test".into(),
        about: String::new(),
        rules: rules.iter().map(|k| Rule::new(*k, 1_000_000)).collect(),
        sick_per_million: 0,
        copies_per_million: 0,
        boards_per_million: 0,
        breaker: (0, 0),
    };
    let identity = Identity::new(
        Some("VSN-1"),
        Some("4c4c4544-0000-1000-8000-000000000001"),
        Some("02:00:00:00:00:01"),
    );
    VirtualMachine::new(
        Build {
            id: MachineId(1),
            name: "n1".into(),
            identity,
            gpus: 8,
            quirks: Quirks::default(),
            sick: None,
            durations: Arc::new(Durations::default()),
        },
        Rng::new(1),
        Dice::new(&profile, Rng::new(2)),
    )
}

fn at(minutes: u64) -> EngineTime {
    EngineTime(minutes * M)
}

fn expect(vm: &VirtualMachine) -> Expect {
    Expect { identity: vm.delivered.clone(), ..Expect::default() }
}

fn flash(vm: &mut VirtualMachine, now: EngineTime, seq: u64) -> Outcome {
    let e = Expect { from_version: Some("7.10".into()), ..expect(vm) };
    let action = Action::UpdateFirmware {
        component: "bmc".into(),
        inventory_id: "BMC".into(),
        from: "7.10".into(),
        to: "7.20".into(),
        file: String::new(),
        sha256: String::new(),
    };
    vm.act(now, seq, &action, &e)
}

fn install(vm: &mut VirtualMachine) {
    let e = expect(vm);
    let run = "r1".to_string();
    vm.act(
        at(0),
        1,
        &Action::OpenBootWindow {
            image: "img".into(),
            run: run.clone(),
            allow_existing_data: false,
            keys: vec![],
        },
        &e,
    );
    vm.act(at(0), 2, &Action::SetBoot { target: BootTarget::Pxe }, &e);
    vm.act(at(0), 3, &Action::Power { op: PowerOp::On }, &e);
    vm.advance(at(90));
}

#[test]
fn an_installation_goes_from_power_on_to_ssh() {
    let mut vm = machine_with(&[]);
    install(&mut vm);
    let key = vm.host_key.clone();
    let set = ProbeSet::SYSTEM.with(ProbeSet::HOST).with(ProbeSet::BOOT);
    let ask = Ask { set, run: Some("r1"), host_key: Some(&key), ..Ask::default() };
    let report = vm.probe(at(91), &ask);
    let window = report.boot.seen().unwrap();
    assert!(window.script_fetched && window.seed_fetched);
    assert_eq!(window.callback.as_ref().unwrap().host_key.as_deref(), Some(&*key));
    assert_eq!(report.host.seen().unwrap().image_run.as_deref(), Some("r1"));
    assert_eq!(report.system.seen().unwrap().power, Power::On);
    assert_eq!(report.system.seen().unwrap().boot_enabled.as_deref(), Some("Disabled"));
    assert_eq!(vm.truth.count(|e| e.what == What::InstallStarted), 1);
    // Another key than the pinned one is an identity fault.
    let ask = Ask { host_key: Some("ssh-ed25519 old"), ..ask };
    assert_eq!(vm.probe(at(92), &ask).host.fault().unwrap().code, "host-key-changed");
}

#[test]
fn a_foreign_disk_is_not_overwritten() {
    let mut vm = machine_with(&[]);
    vm.foreign_data = true;
    install(&mut vm);
    assert!(!vm.window.facts.callback.as_ref().unwrap().ok);
    assert_eq!(vm.truth.count(|e| e.what == What::InstallStarted), 0);
}

#[test]
fn faults_at_boot_show() {
    let mut vm = machine_with(&[FaultKind::BootsDisk]);
    install(&mut vm);
    assert!(!vm.window.facts.script_fetched);
    let mut vm = machine_with(&[FaultKind::CallbackLost]);
    install(&mut vm);
    assert!(vm.window.facts.callback.is_none() && vm.host == HostState::Running);
    let mut vm = machine_with(&[FaultKind::InstallFails]);
    install(&mut vm);
    assert!(vm.window.facts.callback.is_none() && vm.host == HostState::Idle);
}

#[test]
fn an_update_is_staged_until_the_reset_that_loses_its_task() {
    let mut vm = machine_with(&[]);
    let Outcome::Applied { handle: Some(uri) } = flash(&mut vm, at(0), 7) else { panic!() };
    let tasks = vm.task_list(at(0));
    assert_eq!((tasks[0].uri.as_str(), tasks[0].state), (uri.as_str(), TaskState::InProgress));
    vm.advance(at(30));
    assert_eq!(vm.task_list(at(30))[0].state, TaskState::Succeeded);
    assert_eq!(vm.components()[1].version.as_deref(), Some("7.10"), "staged, not running");
    // Flashing again now would be the same flash twice.
    flash(&mut vm, at(30), 8);
    assert!(matches!(
        vm.truth.effects().last().unwrap().what,
        What::FlashStarted { staged: true, already: false, busy: false, .. }
    ));
    vm.advance(at(60));
    let e = expect(&vm);
    vm.act(at(60), 9, &Action::BmcReset { controller: None }, &e);
    let ask = Ask { set: ProbeSet::SYSTEM, ..Ask::default() };
    assert!(vm.probe(at(60), &ask).system.fault().unwrap().is_no_answer());
    vm.advance(at(66));
    assert_eq!(vm.components()[1].version.as_deref(), Some("7.20"));
    assert!(vm.task_list(at(66)).is_empty());
    assert!(vm.probe(at(66), &ask).system.seen().is_some());
    // From-version re-read on the same channel.
    assert!(matches!(flash(&mut vm, at(67), 10), Outcome::Refused { .. }));
}

#[test]
fn update_flaws_show_as_field_reports_say() {
    let mut vm = machine_with(&[FaultKind::FlashStuck]);
    flash(&mut vm, at(0), 1);
    vm.advance(at(600));
    let task = &vm.task_list(at(600))[0];
    assert_eq!((task.state, task.percent), (TaskState::InProgress, Some(99)));
    let mut vm = machine_with(&[FaultKind::FlashEarly]);
    flash(&mut vm, at(0), 1);
    let ends = vm.tasks[0].ends;
    assert_eq!(vm.task_list(ends - 1000)[0].state, TaskState::Succeeded);
    assert!(vm.is_flashing(), "it says Completed and still writes");
    let mut vm = machine_with(&[FaultKind::FlashVanishes]);
    flash(&mut vm, at(0), 1);
    vm.advance(at(30));
    assert!(vm.task_list(at(30)).is_empty());
    let mut vm = machine_with(&[FaultKind::FlashUnchanged]);
    flash(&mut vm, at(0), 1);
    vm.advance(at(30));
    assert_eq!(vm.task_list(at(30))[0].state, TaskState::Succeeded);
    assert_eq!(vm.firmware[1].staged, None);
}

#[test]
fn a_reset_in_the_middle_breaks_the_update() {
    let mut vm = machine_with(&[]);
    flash(&mut vm, at(0), 1);
    let e = expect(&vm);
    vm.act(EngineTime(1000), 2, &Action::BmcReset { controller: None }, &e);
    let effects = vm.truth.effects();
    let reset = effects.iter().find(|e| e.what == What::BmcReset).unwrap();
    assert!(reset.scene.flashing);
    assert!(effects.iter().any(|e| e.what == What::FlashBroken { slot: 1 }));
    vm.advance(at(30));
    assert_eq!(&*vm.firmware[1].version, "7.10");
}

#[test]
fn the_wrong_machine_is_refused_and_told_apart() {
    let mut vm = machine_with(&[]);
    install(&mut vm);
    let e = expect(&vm);
    let other = Identity::new(Some("VSN-2"), None, None);
    let wipe = Action::StartJob { script: JobScript::Wipe, name: "wipe-1".into(), timeout_ms: 1 };
    vm.cross_cables(at(100), Some(other.clone()));
    assert!(matches!(vm.act(at(100), 4, &wipe, &e), Outcome::Refused { .. }));
    let blind = Expect::default();
    vm.act(at(100), 5, &wipe, &blind);
    let last = vm.truth.effects().last().unwrap();
    assert_eq!(last.what, What::WipeStarted);
    assert!(!last.scene.right_machine);
    vm.swap(at(400), other);
    assert!(matches!(
        vm.act(at(400), 6, &Action::BmcReset { controller: None }, &e),
        Outcome::Refused { .. }
    ));
}

#[test]
fn jobs_are_named_finish_and_are_lost_by_a_reboot() {
    let mut vm = machine_with(&[]);
    install(&mut vm);
    let e = expect(&vm);
    let smoke =
        Action::StartJob { script: JobScript::Smoke, name: "smoke-1".into(), timeout_ms: 1 };
    vm.act(at(100), 4, &smoke, &e);
    vm.act(at(101), 5, &smoke, &e);
    assert_eq!(vm.truth.count(|e| e.what == What::SmokeStarted), 1, "never twice by one name");
    assert!(matches!(vm.job_facts(at(101), "smoke-1").state, JobState::Running { .. }));
    vm.advance(at(130));
    assert!(matches!(vm.job_facts(at(130), "smoke-1").state, JobState::Finished { exit: 0, .. }));
    let smoke =
        Action::StartJob { script: JobScript::Smoke, name: "smoke-2".into(), timeout_ms: 1 };
    vm.act(at(130), 6, &smoke, &e);
    vm.press_power(at(131));
    assert!(matches!(vm.job_facts(at(131), "smoke-2").state, JobState::Lost { .. }));
    assert!(matches!(vm.job_facts(at(131), "none").state, JobState::Absent));
}

#[test]
fn a_cordoned_node_runs_empty() {
    let mut vm = machine_with(&[]);
    install(&mut vm);
    let e = expect(&vm);
    let hook = |verb| Action::Hook { verb };
    vm.act(at(100), 4, &hook(HookVerb::Join), &e);
    assert!(vm.membership(at(110)).ready && vm.membership(at(110)).workloads > 0);
    vm.act(at(110), 5, &Action::Power { op: PowerOp::ForceOff }, &e);
    let cut = vm.truth.effects().last().unwrap();
    assert!(cut.scene.workloads > 0 && !cut.scene.closed, "{cut:?}");
    vm.advance(at(120));
    vm.act(at(120), 6, &Action::Power { op: PowerOp::On }, &e);
    vm.advance(at(180));
    vm.act(at(180), 7, &hook(HookVerb::Cordon), &e);
    assert!(vm.membership(at(180)).workloads > 0);
    assert!(matches!(vm.act(at(180), 8, &hook(HookVerb::Leave), &e), Outcome::Failed { .. }));
    assert_eq!(vm.membership(at(180 + 181)).workloads, 0);
    vm.act(at(400), 9, &hook(HookVerb::Leave), &e);
    assert!(!vm.membership(at(400)).member);
}

#[test]
fn a_late_call_takes_hold_when_nobody_expects_it() {
    let mut vm = machine_with(&[]);
    vm.apply_late(at(2), 3, &Action::Power { op: PowerOp::On });
    vm.advance(at(1));
    assert_eq!(vm.power, PowerState::Off);
    assert!(vm.has_late_act());
    vm.advance(at(4));
    assert_eq!(vm.power, PowerState::On);
    assert_eq!(vm.truth.effects()[0].by, Cause::Farrier { seq: 3 });
}

/// The BMC's new image runs since its reset, and is copied.
fn copying() -> VirtualMachine {
    let mut vm = machine_with(&[]);
    vm.quirks.copies_images = true;
    vm.found_running(false, 0);
    flash(&mut vm, at(0), 1);
    vm.advance(at(20));
    vm.apply(at(20), 2, &Action::BmcReset { controller: None });
    assert!(vm.copies.is_empty(), "the BMC has to start first");
    while vm.copies.is_empty() {
        let next = vm.next_at();
        assert!(next < at(30), "it starts, and copies");
        vm.advance(next);
    }
    vm
}

/// Field notes §6.10: 5 to 30 minutes from the moment the image runs.
#[test]
fn a_new_image_is_copied_in_the_background_and_the_chassis_says_so() {
    let mut vm = copying();
    let copy = vm.copies[0];
    assert!((5 * M..=30 * M).contains(&copy.ends.since(copy.since)), "{copy:?}");
    let ask = Ask { set: ProbeSet::TASKS.with(ProbeSet::FIRMWARE), ..Ask::default() };
    let report = vm.probe(EngineTime(copy.ends.0 - 1), &ask);
    assert_eq!(report.firmware.seen().unwrap()[1].version.as_deref(), Some("7.20"));
    let tasks = report.tasks.seen().unwrap();
    let copies: Vec<_> = tasks.iter().filter(|t| t.is_copy()).collect();
    assert_eq!(copies.len(), 1, "{tasks:?}");
    assert_eq!(copies[0].state, TaskState::InProgress);
    let report = vm.probe(copy.ends, &ask);
    assert!(report.tasks.seen().unwrap().iter().all(|t| !t.is_copy()));
    assert_eq!(vm.truth.count(|e| matches!(e.what, What::CopyEnded { slot: 1 })), 1);
    assert!(vm.is_whole());
}

#[test]
fn whoever_cuts_a_copy_breaks_the_component_until_somebody_mends_it() {
    type Cut = fn(&mut VirtualMachine, EngineTime);
    let cuts: [(&str, Cut); 6] = [
        ("BMC reset", |vm, now| drop(vm.apply(now, 9, &Action::BmcReset { controller: None }))),
        ("off", |vm, now| drop(vm.apply(now, 9, &Action::Power { op: PowerOp::ForceOff }))),
        ("shutdown", |vm, now| {
            drop(vm.apply(now, 9, &Action::Power { op: PowerOp::GracefulShutdown }));
        }),
        ("restart", |vm, now| drop(vm.apply(now, 9, &Action::Power { op: PowerOp::ForceRestart }))),
        ("power button", VirtualMachine::press_power),
        ("rack", |vm, now| {
            vm.lose_mains(now);
            vm.mains_back(now + M);
        }),
    ];
    for (name, cut) in cuts {
        let mut vm = copying();
        let now = vm.copies[0].since + M;
        cut(&mut vm, now);
        let broken = vm.truth.count(|e| matches!(e.what, What::CopyBroken { slot: 1, .. }));
        assert_eq!((broken, vm.is_whole()), (1, false), "{name}");
        let ask = Ask { set: ProbeSet::SYSTEM.with(ProbeSet::FIRMWARE), ..Ask::default() };
        let report = vm.probe(now + 10 * M, &ask);
        assert_eq!(report.system.seen().unwrap().health.as_deref(), Some("Critical"), "{name}");
        assert_eq!(report.firmware.seen().unwrap()[1].version, None, "{name}");
        vm.mend(now + 11 * M);
        assert!(vm.is_whole(), "{name}");
    }
    // A board without such roots of trust copies nothing.
    let mut vm = machine_with(&[]);
    flash(&mut vm, at(0), 1);
    vm.advance(at(20));
    vm.apply(at(20), 2, &Action::BmcReset { controller: None });
    vm.advance(at(30));
    assert_eq!(vm.truth.count(|e| matches!(e.what, What::CopyStarted { .. })), 0);
}
