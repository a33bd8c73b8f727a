use super::*;
use crate::model::action::{Expect, Outcome, PowerOp};
use crate::model::facts::{ProbeSet, Read, TaskState};
use crate::model::{Action, Fault, MachineId};
use crate::sim::durations::Durations;
use crate::sim::faults::Dice;
use crate::sim::physics::{Ask, Build, Quirks};

const M: u64 = 60_000;

fn machine() -> VirtualMachine {
    let build = Build {
        id: MachineId(1),
        name: "n1".into(),
        identity: Identity::new(Some("VSN-1"), None, None),
        gpus: 8,
        quirks: Quirks::default(),
        sick: None,
        durations: Arc::new(Durations::default()),
    };
    let mut vm = VirtualMachine::new(build, Rng::new(1), Dice::none());
    vm.baseboard = Some(Baseboard::new(super::serial(&vm.delivered), Rng::new(3)));
    vm
}

fn at(minutes: u64) -> EngineTime {
    EngineTime(minutes * M)
}

fn act(vm: &mut VirtualMachine, now: EngineTime, action: &Action) -> Outcome {
    let e = Expect { identity: vm.delivered.clone(), ..Expect::default() };
    vm.act(now, 7, action, &e)
}

fn flash(vm: &mut VirtualMachine, now: EngineTime, id: &str, to: &str) -> Outcome {
    let action = Action::UpdateFirmware {
        component: "hgx".into(),
        inventory_id: id.into(),
        from: String::new(),
        to: to.into(),
        file: String::new(),
        sha256: String::new(),
    };
    act(vm, now, &action)
}

fn restart(controller: Option<&str>) -> Action {
    Action::BmcReset { controller: controller.map(Into::into) }
}

/// Ids of the components and handles of the tasks that a probe shows, with their states.
fn seen(vm: &mut VirtualMachine, now: EngineTime) -> (Vec<String>, Vec<(String, TaskState)>) {
    let set = ProbeSet::FIRMWARE.with(ProbeSet::TASKS);
    let report = vm.probe(now, &Ask { set, ..Ask::default() });
    let Read::Seen(components) = report.firmware else { panic!("no components") };
    let Read::Seen(tasks) = report.tasks else { panic!("no tasks") };
    let ids = components.into_iter().map(|c| c.id).collect();
    (ids, tasks.into_iter().map(|t| (t.uri, t.state)).collect())
}

fn broken(vm: &VirtualMachine) -> usize {
    vm.truth.count(|e| matches!(e.what, What::FlashBroken { .. } | What::CopyBroken { .. }))
}

#[test]
fn its_update_outlives_the_hosts_bmc_and_is_followed_there_alone() {
    let mut vm = machine();
    let done = flash(&mut vm, at(0), "hgx:HGX_FW_BMC_0", "24.09");
    let Outcome::Applied { handle: Some(handle) } = done else { panic!("{done:?}") };
    assert_eq!(handle, "hgx:/redfish/v1/TaskService/Tasks/1");
    let (ids, tasks) = seen(&mut vm, at(0));
    assert_eq!(ids, ["BIOS", "BMC", "hgx:HGX_FW_BMC_0", "hgx:HGX_FW_GPU_SXM_1"]);
    assert_eq!(tasks, [(handle.clone(), TaskState::InProgress)]);
    // The host's BMC restarts, or its cable is out: who follows the task still sees it.
    vm.reset_bmc_by_hand(EngineTime(1_000));
    let set = ProbeSet::SYSTEM.with(ProbeSet::FIRMWARE).with(ProbeSet::TASKS);
    let ask = Ask { set, handle: Some(&handle), ..Ask::default() };
    let report = vm.probe(EngineTime(2_000), &ask);
    assert!(report.system.fault().is_some_and(Fault::is_no_answer));
    assert!(report.tasks.seen().is_some_and(|t| t.len() == 1 && t[0].uri == handle));
    assert!(!report.firmware.was_asked());
    vm.advance(at(30));
    assert_eq!(broken(&vm), 0);
    // Staged, then run by its own BMC's restart and by no other, and copied from then on.
    act(&mut vm, at(30), &restart(None));
    vm.advance(at(40));
    let version = |vm: &VirtualMachine| vm.baseboard.as_ref().unwrap().firmware[0].version.clone();
    assert_eq!(&*version(&vm), "24.06");
    act(&mut vm, at(40), &restart(Some("hgx")));
    let (_, tasks) = seen(&mut vm, at(40));
    assert_eq!(tasks, [("hgx:".to_string(), TaskState::Unread)], "it restarts, and may be at work");
    let back = at(46);
    let (_, tasks) = seen(&mut vm, back);
    assert_eq!(&*version(&vm), "24.09");
    assert_eq!(tasks.len(), 1, "its old tasks are lost with its memory: {tasks:?}");
    assert!(tasks[0].0.starts_with("hgx:/redfish/v1/Chassis/") && tasks[0].0.contains('#'));
    vm.advance(at(90));
    assert_eq!((broken(&vm), vm.is_whole()), (0, true));
}

#[test]
fn the_hosts_power_cuts_what_goes_on_there_and_the_scene_says_so() {
    let mut vm = machine();
    vm.press_power(at(0));
    flash(&mut vm, at(20), "hgx:HGX_FW_GPU_SXM_1", "96.00.02");
    act(&mut vm, EngineTime(at(20).0 + 1_000), &Action::Power { op: PowerOp::ForceOff });
    let cut = *vm.truth.effects().iter().rev().find(|e| e.what == What::PowerCut).unwrap();
    assert!(cut.scene.flashing);
    assert_eq!(broken(&vm), 1);
    let task = vm.all_tasks().next().unwrap();
    assert_eq!(task.ended, Some(false));
    // Its copies as well, and then the component is broken until somebody brings another board.
    vm.press_power(at(30));
    flash(&mut vm, at(50), "hgx:HGX_FW_BMC_0", "24.09");
    act(&mut vm, at(70), &restart(Some("hgx")));
    vm.advance(at(76));
    assert_eq!(vm.all_copies().count(), 1);
    act(&mut vm, at(76), &Action::Power { op: PowerOp::ForceRestart });
    assert!(!vm.is_whole());
    vm.mend(at(100));
    assert!(vm.is_whole());
}

#[test]
fn unread_it_may_be_at_work_and_nothing_is_sent_to_it() {
    let mut vm = machine();
    vm.cut_off_baseboard(at(1), at(10));
    let (ids, tasks) = seen(&mut vm, at(5));
    assert_eq!(ids, ["BIOS", "BMC", "hgx:"]);
    assert_eq!(tasks, [("hgx:".to_string(), TaskState::Unread)]);
    let done = flash(&mut vm, at(5), "hgx:HGX_FW_BMC_0", "24.09");
    assert!(matches!(done, Outcome::Failed { fault } if fault.is_no_answer()));
    // The host's BMC takes what it is told; the scene says what was not known then.
    act(&mut vm, at(6), &restart(None));
    let last = vm.truth.effects().last().unwrap();
    assert_eq!((last.what, last.scene.board_silent_since), (What::BmcReset, Some(at(1))));
    let (_, tasks) = seen(&mut vm, at(15));
    assert!(tasks.is_empty());
    assert_eq!(vm.baseboard_silent_since(at(15)), None);
}

#[test]
fn another_machines_board_is_refused_by_its_serial() {
    let mut vm = machine();
    if let Some(board) = &mut vm.baseboard {
        board.serial = "HGX-VSN-2".into();
    }
    let done = flash(&mut vm, at(0), "hgx:HGX_FW_BMC_0", "24.09");
    assert!(matches!(done, Outcome::Refused { wrong_machine: true, .. }), "{done:?}");
    assert!(vm.truth.effects().is_empty());
}
