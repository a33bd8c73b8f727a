//! The boot volume against what RAID controllers do: exactly two free drives, ordered once, there only
//! when it is shown. Facts in, decisions out.

#[path = "support/case.rs"]
mod case;

use case::{Case, MINUTE, UUID, spec};
use farrier::decide::Rules;
use farrier::decide::probes;
use farrier::model::deploy::{BootMethod, DiskKind, RootDisk};
use farrier::model::facts::*;
use farrier::model::hardware::Volume;
use farrier::model::storage::*;
use farrier::model::*;
use farrier::sim::broken::{Break, first_catch};
use farrier::sim::profile::Profile as Faults;
use farrier::sim::run::{Spec, run};
use farrier::steps::site::Profile;
use farrier::steps::workflow::Unsupported;
use farrier::steps::{Step, volume};

const JOB: &str = "/redfish/v1/TaskService/Tasks/JID_9";
const ORDER: &str = "create-volume RAID1 of SN1, SN2";

fn drive(n: u8) -> Drive {
    Drive {
        id: format!("D{n}"),
        uri: format!("/d/{n}"),
        model: Some("Micron 5300 480GB".into()),
        serial: Some(format!("SN{n}")),
        bytes: Some(480_103_981_056),
        kind: Some(DiskKind::Ssd),
        health: Some("OK".into()),
        ..Drive::default()
    }
}

fn made_of(drives: &[u8]) -> Volume {
    Volume {
        id: "V1".into(),
        uri: "/v/1".into(),
        name: Some("boot".into()),
        raid: Some("RAID1".into()),
        drives: drives.iter().map(|n| format!("/d/{n}")).collect(),
        ..Volume::default()
    }
}

/// Two small drives and a large one behind a controller, the host running, its last system Farrier's.
fn machine() -> Case {
    let wanted = BootVolume {
        name: "boot".into(),
        controller: Some("PERC*".into()),
        drives: DriveRule {
            kind: Some(DiskKind::Ssd),
            max_bytes: Some(500_000_000_000),
            ..DriveRule::default()
        },
        ..BootVolume::default()
    };
    let profile = Profile {
        image: Some("debian".into()),
        root_disk: Some(RootDisk { kind: Some(DiskKind::Raid), ..RootDisk::default() }),
        boot: vec![BootMethod::Pxe],
        boot_volume: Some(wanted),
        cluster: Some("c".into()),
        ..Profile::default()
    };
    let step = Step::Volume(volume::Params::default());
    let mut c = Case::new(profile, vec![spec("volume", Stage::Provision, step)], Desired::Ready);
    c.power(Power::On);
    c.report.tasks = Read::Seen(vec![]);
    c.report.cluster = Read::Seen(Membership::default());
    c.report.boot = Read::Seen(WindowFacts::default());
    c.report.host = Read::Failed(Fault::no_answer(Channel::Host, "nobody there"));
    c.report.media = Read::Seen(vec![]);
    c.report.storage = Read::Seen(StorageFacts {
        parts: vec![Storage {
            id: "RAID.Slot.1-1".into(),
            models: vec!["PERC H755".into()],
            levels: vec!["RAID0".into(), "RAID1".into()],
            drives: vec![drive(1), drive(2), Drive { bytes: Some(1 << 42), ..drive(3) }],
            volumes: vec![],
        }],
    });
    c.m.allow_existing_data = true;
    c
}

fn storage(c: &mut Case) -> &mut Storage {
    match &mut c.report.storage {
        Read::Seen(facts) => &mut facts.parts[0],
        _ => panic!("not read"),
    }
}

fn shows(c: &mut Case, volume: Volume) {
    let storage = storage(c);
    for drive in storage.drives.iter_mut().filter(|d| volume.drives.contains(&d.uri)) {
        drive.volumes.push(volume.uri.clone());
    }
    storage.volumes.push(volume);
}

const DONE: &str = "done: RAID1 `boot` (V1) of D1 (SN1) and D2 (SN2)";

#[test]
fn made_once_of_the_two_that_fit_and_done_when_it_is_shown() {
    let mut c = machine();
    assert_eq!(c.step(), ORDER);
    let open = c.m.open.as_ref().unwrap();
    assert_eq!(open.expect.identity.uuid.as_deref(), Some(UUID));
    assert!(matches!(&open.action, Action::CreateVolume { raid, name, .. }
        if raid == "RAID1" && name == "boot"));
    c.applied(Some(JOB));
    c.task(JOB, TaskState::InProgress, "Running");
    assert!(c.step().starts_with("waits for the"), "the task is followed");
    shows(&mut c, made_of(&[2, 1]));
    assert_eq!(c.step(), "closed:true");
    assert_eq!(c.step(), format!("waits for the BMC's job {JOB} to end"), "nobody cuts its power");
    c.task(JOB, TaskState::Succeeded, "Completed");
    assert_eq!(c.step(), DONE);
}

#[test]
fn what_is_there_is_done_whoever_made_it_and_whatever_it_is_called() {
    let mut c = machine();
    c.m.allow_existing_data = false;
    let volume = Volume {
        name: Some("old".into()),
        health: Some("Warning".into()),
        operation: Some("Initialize, 12 %".into()),
        ..made_of(&[1, 2])
    };
    shows(&mut c, volume);
    c.power(Power::Off);
    assert_eq!(
        c.step(),
        "done: RAID1 `old` (V1) of D1 (SN1) and D2 (SN2); goes on in the background: \
         Initialize, 12 %; health Warning"
    );
}

#[test]
fn a_profile_without_one_skips_and_reads_nothing() {
    let mut c = machine();
    let wanted = |c: &Case| probes::wanted(&c.m, &c.profile, &c.workflow, c.now);
    assert!(wanted(&c).has(ProbeSet::STORAGE) && !wanted(&c).has(ProbeSet::HOST));
    c.m.allow_existing_data = false;
    assert!(wanted(&c).has(ProbeSet::HOST), "somebody's data may be there");
    c.profile.boot_volume = None;
    assert!(!wanted(&c).has(ProbeSet::STORAGE));
    assert_eq!(c.step(), "skipped: the profile asks for no boot volume");
}

#[test]
fn never_two_of_three_nor_one() {
    let mut c = machine();
    storage(&mut c).drives[2].bytes = Some(480_103_981_056);
    assert_eq!(c.step(), "quarantined:too-many-drives");
    assert!(c.quarantine().evidence.as_ref().unwrap().contains("D3 (SN3)"));
    // One that fits and is part of another volume counts all the same.
    let mut c = machine();
    storage(&mut c).drives[2].bytes = Some(480_103_981_056);
    shows(&mut c, Volume { raid: Some("RAID0".into()), ..made_of(&[3]) });
    assert_eq!(c.step(), "quarantined:too-many-drives");
    let mut c = machine();
    storage(&mut c).drives.remove(0);
    assert!(c.step().starts_with("waits for the RAID controller to show its drives (1 drives fit"));
    assert_eq!(c.later(31 * MINUTE).step(), "quarantined:too-few-drives");
    let mut c = machine();
    storage(&mut c).drives[1].serial = None;
    assert_eq!(c.step(), "quarantined:drive-without-serial");
}

#[test]
fn drives_on_two_controllers_make_no_volume() {
    let mut c = machine();
    let Read::Seen(facts) = &mut c.report.storage else { panic!() };
    let second = facts.parts[0].drives.remove(1);
    facts.parts.push(Storage {
        id: "RAID.Slot.2-1".into(),
        models: vec!["PERC H355".into()],
        drives: vec![second],
        ..Storage::default()
    });
    assert_eq!(c.step(), "quarantined:drives-apart");
}

#[test]
fn a_controller_that_is_missing_is_waited_for_and_then_named() {
    let mut c = machine();
    storage(&mut c).models = vec!["BOSS-S2".into()];
    assert!(c.step().starts_with("waits for the RAID controller"));
    assert_eq!(c.later(31 * MINUTE).step(), "quarantined:no-raid-controller");
    assert!(c.quarantine().message.contains("RAID.Slot.1-1 (BOSS-S2)"));
    // Without power it shows nothing: powered on first.
    let mut c = machine();
    c.report.storage = Read::Seen(StorageFacts::default());
    c.power(Power::Off);
    assert_eq!(c.step(), "power-on on");
}

#[test]
fn a_drive_of_another_volume_is_never_taken() {
    for consent in [false, true] {
        let mut c = machine();
        c.m.allow_existing_data = consent;
        shows(&mut c, Volume { name: Some("data".into()), ..made_of(&[2, 3]) });
        assert_eq!(c.step(), "quarantined:drive-in-use");
        assert!(
            c.quarantine().message.contains("D2 (SN2) is part of another volume: RAID1 `data`")
        );
        assert!(c.m.open.is_none());
    }
    // A volume that only the drive itself tells of counts as well.
    let mut c = machine();
    storage(&mut c).drives[0].volumes.push("/v/77".into());
    assert_eq!(c.step(), "quarantined:drive-in-use");
    // Another level over just these two.
    let mut c = machine();
    shows(&mut c, Volume { raid: Some("RAID0".into()), ..made_of(&[1, 2]) });
    assert_eq!(c.step(), "quarantined:drive-in-use");
    // The same name over others: the rule or the volume is not what was meant.
    let mut c = machine();
    shows(&mut c, made_of(&[3]));
    assert_eq!(c.step(), "quarantined:volume-elsewhere");
}

#[test]
fn broken_drives_and_volumes_are_for_a_person() {
    let mut c = machine();
    storage(&mut c).drives[1].health = Some("Critical".into());
    assert_eq!(c.step(), "quarantined:drive-broken");
    let mut c = machine();
    shows(&mut c, made_of(&[1, 2]));
    storage(&mut c).drives[1].health = Some("Critical".into());
    assert_eq!(c.step(), "quarantined:drive-broken");
    let mut c = machine();
    shows(&mut c, Volume { health: Some("Critical".into()), ..made_of(&[1, 2]) });
    assert_eq!(c.step(), "quarantined:volume-broken");
}

#[test]
fn a_controller_without_the_level_says_so() {
    let mut c = machine();
    storage(&mut c).levels = vec!["RAID0".into()];
    c.workflow.steps[0].unsupported = Unsupported::Skip;
    assert!(c.step().starts_with("skipped: storage RAID.Slot.1-1 has no RAID1; it has RAID0"));
}

#[test]
fn never_on_a_node_that_the_cluster_uses_nor_while_a_task_runs() {
    let mut c = machine();
    c.report.cluster =
        Read::Seen(Membership { member: true, ready: true, ..Membership::default() });
    assert_eq!(c.step(), "quarantined:in-use");
    let mut c = machine();
    c.task("/t/1", TaskState::InProgress, "Running");
    assert_eq!(c.step(), "waits for the BMC's task /t/1 to end");
}

#[test]
fn a_job_of_nobody_that_waits_for_a_post_gets_one_and_may_be_the_volume() {
    let mut c = machine();
    c.task(JOB, TaskState::InProgress, "Scheduled");
    assert_eq!(c.step(), format!("waits for the BMC's task {JOB} to end"));
    assert_eq!(c.later(MINUTE).step(), "power-restart force-restart");
    c.applied(None);
    c.boots();
    assert_eq!(c.later(MINUTE).step(), "closed:true");
    assert_eq!(c.step(), format!("waits for the BMC's task {JOB} to end"), "once is enough");
    c.task(JOB, TaskState::Succeeded, "Completed");
    shows(&mut c, made_of(&[1, 2]));
    assert_eq!(c.step(), DONE);
}

#[test]
fn a_job_that_waits_for_a_post_gets_one_and_is_not_ordered_again() {
    // Named by its monitor; listed as a task.
    let monitor = "/redfish/v1/TaskService/TaskMonitors/JID_9";
    let mut c = machine();
    c.step();
    c.applied(Some(monitor));
    c.task(JOB, TaskState::InProgress, "Scheduled");
    assert_eq!(c.step(), "closed:true");
    assert!(c.step().starts_with("waits for the BMC to show the volume"), "it may run at once");
    assert_eq!(c.later(MINUTE).step(), "power-restart force-restart");
    c.applied(None);
    c.boots();
    assert_eq!(c.later(MINUTE).step(), "closed:true");
    assert_eq!(c.step(), "waits for POST to make the volume of D1 (SN1) and D2 (SN2)");
    assert_eq!(c.later(5 * MINUTE).step(), "rest");
    c.task(JOB, TaskState::Succeeded, "Completed");
    shows(&mut c, made_of(&[1, 2]));
    assert_eq!(c.step(), DONE);
}

#[test]
fn a_machine_that_went_off_is_powered_on_for_its_post() {
    let mut c = machine();
    c.step();
    c.applied(Some(JOB));
    c.task(JOB, TaskState::InProgress, "Pending");
    assert_eq!(c.step(), "closed:true");
    c.power(Power::Off);
    assert_eq!(c.later(MINUTE).step(), "power-on on");
}

#[test]
fn a_lost_answer_finds_its_task_or_the_volume() {
    // The task is there.
    let mut c = machine();
    c.step();
    c.unanswered();
    assert!(c.step().starts_with("waits"));
    c.task(JOB, TaskState::InProgress, "Running");
    assert_eq!(c.step(), "found");
    assert_eq!(c.m.open.as_ref().unwrap().handle.as_deref(), Some(JOB));
    // The volume is.
    let mut c = machine();
    c.step();
    c.unanswered();
    shows(&mut c, made_of(&[1, 2]));
    assert_eq!(c.step(), "closed:true");
    assert_eq!(c.step(), DONE);
    // Somebody's own task from before is not taken for it.
    let mut c = machine();
    c.task("/t/1", TaskState::Succeeded, "Completed");
    c.step();
    c.unanswered();
    assert!(c.step().starts_with("waits"));
}

#[test]
fn nobody_can_tell_until_a_post_has_told_and_only_then_it_is_ordered_again() {
    let mut c = machine();
    c.step();
    c.unanswered();
    assert!(c.step().starts_with("waits"));
    assert_eq!(c.later(5 * MINUTE).step(), "closed:true", "perhaps taken");
    assert!(c.step().starts_with("waits for the BMC to show the volume"));
    assert_eq!(c.later(3 * MINUTE).step(), "power-restart force-restart");
    c.applied(None);
    c.boots();
    assert_eq!(c.later(MINUTE).step(), "closed:true");
    assert!(c.step().starts_with("waits for POST to make the volume"));
    // A read that fails takes nothing back.
    let seen = c.report.storage.clone();
    c.report.storage = Read::Failed(Fault::no_answer(Channel::Bmc, "reset"));
    assert_eq!(c.step(), "faulted:no-answer");
    c.report.storage = seen;
    assert_ne!(c.again().step(), ORDER);
    assert_eq!(c.later(31 * MINUTE).step(), "faulted:volume-not-made");
    assert!(c.m.last_fault.as_ref().unwrap().fault.message.ends_with("D1 (SN1) and D2 (SN2)"));
    assert_eq!(c.again().step(), ORDER, "the next attempt");
}

#[test]
fn a_task_that_is_lost_is_neither_done_nor_failed() {
    let mut c = machine();
    c.step();
    c.applied(Some(JOB));
    c.report.tasks = Read::Seen(vec![]);
    assert!(c.step().starts_with("waits"));
    assert_eq!(c.later(20 * MINUTE).step(), "closed:true");
    assert_ne!(c.step(), ORDER);
    shows(&mut c, made_of(&[1, 2]));
    assert_eq!(c.step(), DONE);
}

#[test]
fn a_job_that_failed_costs_an_attempt() {
    let mut c = machine();
    c.step();
    c.applied(Some(JOB));
    c.task(JOB, TaskState::Failed, "CompletedWithErrors");
    assert_eq!(c.step(), "closed:false faulted:volume-job-failed");
    assert_eq!(c.again().step(), ORDER);
    // One that waited for the POST and failed in it.
    c.applied(Some(JOB));
    c.task(JOB, TaskState::InProgress, "Scheduled");
    c.step();
    assert_eq!(c.later(MINUTE).step(), "power-restart force-restart");
    c.applied(None);
    c.boots();
    c.later(MINUTE).step();
    c.task(JOB, TaskState::Failed, "Completed");
    assert_eq!(c.step(), "faulted:volume-not-made");
    assert_eq!(c.again().step(), ORDER);
}

#[test]
fn a_refusal_is_said_as_the_edge_saw_it() {
    let mut c = machine();
    c.step();
    let fault = Fault::new(
        FaultClass::Precondition,
        Channel::Bmc,
        "drive-in-use",
        "drive D2 is part of volume V9",
    );
    c.settle(Outcome::Failed { fault });
    assert_eq!(c.quarantine().message, "drive D2 is part of volume V9");
    assert_eq!(c.later(MINUTE).step(), "rest");
}

#[test]
fn a_daemon_killed_in_the_middle_asks_before_it_acts() {
    let mut c = machine();
    c.step();
    // The process died here; the row still says `intended`.
    assert_eq!(c.step(), "settled");
    assert!(c.step().starts_with("waits"));
    c.task(JOB, TaskState::InProgress, "Scheduled");
    assert_eq!(c.step(), "found");
    assert_eq!(c.step(), "closed:true");
    assert!(c.step().starts_with("waits for the BMC to show the volume"), "it may run at once");
    assert_eq!(c.later(MINUTE).step(), "power-restart force-restart");
    assert_eq!(c.step(), "settled");
    c.boots();
    assert_eq!(c.later(MINUTE).step(), "closed:true", "the reboot had happened");
    shows(&mut c, made_of(&[1, 2]));
    c.task(JOB, TaskState::Succeeded, "Completed");
    assert_eq!(c.step(), DONE);
}

/// A first deployment, looked at by the ramdisk that finds `holds_data`.
fn looked_at(holds_data: Option<bool>) -> Case {
    let mut c = machine();
    c.m.allow_existing_data = false;
    assert!(c.step().starts_with("open-boot-window"), "the ramdisk looks first");
    c.applied(None);
    let run = c.m.run_name(&c.site.incarnation);
    let window = |callback| {
        Read::Seen(WindowFacts {
            open: true,
            run: Some(run.clone()),
            from: Some("10.0.0.9".into()),
            callback,
            ..WindowFacts::default()
        })
    };
    c.report.boot = window(None);
    assert_eq!(c.step(), "closed:true");
    assert_eq!(c.step(), "power-off force-off");
    c.applied(None);
    c.power(Power::Off);
    assert_eq!(c.step(), "closed:true");
    assert_eq!(c.step(), "set-boot pxe");
    c.applied(None);
    let system = c.system();
    (system.boot_target, system.boot_enabled) = (Some("Pxe".into()), Some("Once".into()));
    assert_eq!(c.step(), "closed:true");
    assert_eq!(c.step(), "power-on on");
    c.applied(None);
    c.boots();
    let system = c.system();
    (system.boot_target, system.boot_enabled) = (Some("None".into()), Some("Disabled".into()));
    assert_eq!(c.step(), "closed:true");
    c.report.boot = window(Some(Callback {
        ok: true,
        message: None,
        code: None,
        host_key: Some("ssh-ed25519 RAM".into()),
    }));
    assert_eq!(c.step(), "ramdisk-up");
    c.report.host = Read::Seen(HostFacts {
        identity: Identity::new(None, Some(UUID), None),
        ramdisk_run: Some(run),
        holds_data,
        ..HostFacts::default()
    });
    c
}

#[test]
fn a_first_deployment_looks_for_data_before_it_makes_anything() {
    let mut c = looked_at(Some(false));
    assert_eq!(c.step(), ORDER);
    c.applied(Some(JOB));
    shows(&mut c, made_of(&[1, 2]));
    c.task(JOB, TaskState::Succeeded, "Completed");
    assert_eq!(c.step(), "closed:true");
    // Its kernel knows other disks than there are now.
    assert_eq!(c.step(), "power-off force-off");
    c.applied(None);
    c.power(Power::Off);
    assert_eq!(c.step(), "closed:true");
    assert!(c.step().starts_with("close-boot-window"), "nothing of it is left open");
    c.applied(None);
    c.report.boot = Read::Seen(WindowFacts::default());
    assert_eq!(c.step(), "closed:true");
    assert_eq!(c.step(), DONE);
}

#[test]
fn data_that_nobody_has_given_up_stops_it() {
    for holds in [Some(true), None] {
        let mut c = looked_at(holds);
        assert_eq!(c.step(), "quarantined:existing-data");
    }
    // A system that runs already tells before the ramdisk is needed.
    let mut c = machine();
    c.m.allow_existing_data = false;
    c.report.host = Read::Seen(HostFacts {
        identity: Identity::new(None, Some(UUID), None),
        holds_data: Some(true),
        ..HostFacts::default()
    });
    assert_eq!(c.step(), "quarantined:existing-data");
    // Without a ramdisk nobody can tell.
    let mut c = machine();
    c.m.allow_existing_data = false;
    c.profile.trust_installer = true;
    assert_eq!(c.step(), "quarantined:existing-data");
    assert!(c.quarantine().message.contains("nobody can tell whether D1 (SN1) and D2 (SN2)"));
}

#[test]
fn a_decider_that_orders_twice_is_caught_by_what_truly_happened() {
    let (seed, seen) = first_catch(Break::RemakesVolumes, 1);
    assert!(seed.is_some(), "{seen:?}");
}

#[test]
fn a_decider_that_does_not_look_for_data_is_caught() {
    let (seed, seen) = first_catch(Break::VolumeOverData, 1);
    assert!(seed.is_some(), "{seen:?}");
}

#[test]
fn a_small_site_in_chaos_makes_its_volumes_without_a_violation() {
    let ran = run(&Spec::new(20, 3, 5, Faults::named("chaos").unwrap()), Rules);
    let told: Vec<String> = ran.violations.iter().map(ToString::to_string).collect();
    assert_eq!(told, [""; 0]);
    let volume = Step::KINDS.iter().position(|k| *k == "volume").unwrap();
    assert!(ran.coverage.ended[volume] > 3, "{}", ran.coverage.table());
}
