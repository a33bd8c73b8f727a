//! The way into the deploy ramdisk when machines do otherwise than they are told: facts in, decisions out.

#[path = "support/case.rs"]
mod case;

use case::UUID;
use farrier::decide::Verdict;
use farrier::model::deploy::{BootMethod, RootDisk};
use farrier::model::facts::*;
use farrier::model::*;
use farrier::steps::site::Profile;
use farrier::steps::workflow::*;
use farrier::steps::{Step, power, sanitize};
use std::ops::{Deref, DerefMut};

const OTHER: &str = "99999999-2222-3333-4444-555555555501";
const FROM: &str = "10.0.0.9";

fn key(n: u8) -> String {
    format!("ssh-ed25519 RAM{n}")
}

/// A machine that is to be sanitized, first by PXE, then by virtual media.
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
        let spec = |key: &str, step| StepSpec {
            timeout: time::Span(46_800_000),
            stall: time::Span(3_600_000),
            retry: Retry::default(),
            ..case::spec(key, Stage::Retire, step)
        };
        let profile = Profile {
            root_disk: Some(RootDisk::default()),
            boot: vec![BootMethod::Pxe, BootMethod::VirtualMedia],
            ..Profile::default()
        };
        let steps = vec![
            spec("sanitize", Step::Sanitize(sanitize::Params::default())),
            spec("off", Step::Power(power::Params { state: power::Wanted::Off })),
        ];
        let mut case = Case(case::Case::new(profile, steps, Desired::Retired));
        case.system(UUID, Power::Off, "Hdd");
        case.silent();
        case.report.boot = Read::Seen(WindowFacts::default());
        case.report.job = Read::Seen(JobFacts::default());
        case.report.media = Read::Seen(vec![]);
        case.report.tasks = Read::Seen(vec![]);
        case
    }

    fn run(&self) -> String {
        self.m.run_name(&self.site.incarnation)
    }

    fn system(&mut self, uuid: &str, power: Power, boots: &str) {
        self.report.system = Read::Seen(SystemFacts {
            identity: Identity::new(None, Some(uuid), None),
            power,
            boot_target: Some(boots.into()),
            boot_enabled: Some("Continuous".into()),
            ..SystemFacts::default()
        });
    }

    fn silent(&mut self) {
        self.report.host = Read::Failed(Fault::no_answer(Channel::Host, "nobody there"));
    }

    /// A host answers: the ramdisk of this run, or a system on the disk.
    fn host(&mut self, uuid: &str, in_ramdisk: bool) {
        self.report.host = Read::Seen(HostFacts {
            identity: Identity::new(None, Some(uuid), None),
            image: (!in_ramdisk).then(|| "debian".into()),
            ramdisk_run: in_ramdisk.then(|| self.run()),
            ..HostFacts::default()
        });
    }

    fn window(&mut self, host_key: Option<String>) {
        let said =
            host_key.map(|k| Callback { ok: true, message: None, code: None, host_key: Some(k) });
        self.report.boot = Read::Seen(WindowFacts {
            open: true,
            run: Some(self.run()),
            callback: said,
            from: Some(FROM.into()),
            ..WindowFacts::default()
        });
    }

    /// Takes the verdict into the row; the last word of it.
    fn step(&mut self) -> String {
        self.now = self.now + 1_000;
        let entries = match self.decide() {
            Verdict::Rest { .. } => return "rest".into(),
            Verdict::Write { entries, .. } | Verdict::Act { entries } => entries,
        };
        let mut said = String::new();
        for e in entries {
            said = match &e {
                Entry::Intent {
                    action: Action::Power { op: PowerOp::GracefulShutdown }, ..
                } => "graceful-shutdown".into(),
                Entry::Intent { action, .. } => action.kind().to_string(),
                Entry::Quarantined { fault } => format!("quarantined: {}", fault.message),
                Entry::Faulted { fault, .. } => format!("faulted: {}", fault.message),
                Entry::RamdiskUp { host_key, .. } => format!("up with {host_key}"),
                other => other.name().to_string(),
            };
            self.apply(e);
        }
        said
    }

    /// The open action was done and seen.
    fn done(&mut self) {
        self.apply(Entry::Settled { outcome: Outcome::Applied { handle: None } });
        self.apply(Entry::Closed { happened: true, why: "seen".into() });
    }

    /// From power off to power on by the first method.
    fn boots_by_pxe(&mut self) {
        assert_eq!(self.step(), "open-boot-window");
        self.done();
        self.window(None);
        assert_eq!(self.step(), "set-boot");
        self.done();
        self.system(UUID, Power::Off, "Pxe");
        assert_eq!(self.step(), "power-on");
        self.done();
        self.system(UUID, Power::On, "Pxe");
    }

    /// The ramdisk of this run is up, with this key.
    fn in_ramdisk() -> Self {
        let mut c = Case::new();
        c.boots_by_pxe();
        c.window(Some(key(1)));
        assert_eq!(c.step(), format!("up with {}", key(1)));
        c
    }
}

#[test]
fn a_host_that_is_not_the_bmcs_machine_is_left_alone() {
    let both = format!("uuid is `{OTHER}`, expected `{UUID}`");
    // The system on its disk answers, before anything was done to it.
    let mut c = Case::new();
    c.system(UUID, Power::On, "Hdd");
    c.host(OTHER, false);
    let said = c.step();
    assert!(said.starts_with("quarantined") && said.contains(&both), "{said}");
    // The ramdisk answers, before anything is written.
    let mut c = Case::in_ramdisk();
    c.host(OTHER, true);
    let said = c.step();
    assert!(said.starts_with("quarantined") && said.contains(&both), "{said}");
    // The right one is wiped.
    let mut c = Case::in_ramdisk();
    c.host(UUID, true);
    assert_eq!(c.step(), "wipe-job");
    // Another board under the same BMC address.
    let mut c = Case::new();
    c.system(OTHER, Power::Off, "Hdd");
    let said = c.step();
    assert!(said.starts_with("quarantined") && said.contains(&both), "{said}");
}

/// An earlier step of the run has closed its window, and the daemon died over the order for the next.
#[test]
fn a_window_that_the_run_has_closed_is_not_the_one_that_was_ordered() {
    let seen = |open: bool| {
        let mut c = Case::new();
        assert_eq!(c.step(), "open-boot-window");
        c.0.unanswered();
        c.window(None);
        if let Read::Seen(w) = &mut c.report.boot {
            w.open = open;
        }
        c.0.later(1_000).step()
    };
    assert!(seen(true).contains("closed:true"), "{}", seen(true));
    assert!(!seen(false).contains("closed:true"), "{}", seen(false));
}

#[test]
fn the_old_disk_makes_room_for_the_next_boot_method() {
    let mut c = Case::new();
    c.boots_by_pxe();
    c.host(UUID, false);
    let said = c.step();
    assert_eq!(said, "faulted: the host booted debian from its disk and not the ramdisk by pxe");
    c.now = c.now + 900_000;
    assert_eq!(c.step(), "open-boot-window");
    c.done();
    assert_eq!(c.step(), "power-off");
    c.done();
    c.silent();
    c.system(UUID, Power::Off, "Pxe");
    assert_eq!(c.step(), "insert-media");
    c.done();
    assert_eq!(c.step(), "set-boot");
    c.done();
    c.system(UUID, Power::Off, "Cd");
    assert_eq!(c.step(), "power-on");
    c.done();
    c.system(UUID, Power::On, "Cd");
    c.now = c.now + 2_800_000;
    let said = c.step();
    assert!(
        said.contains("no word from the ramdisk 45m00s after power on by virtual-media"),
        "{said}"
    );
}

#[test]
fn a_spoofed_mac_is_told_by_the_address_that_asked() {
    let mut c = Case::new();
    c.boots_by_pxe();
    let Read::Seen(window) = &mut c.report.boot else { panic!() };
    window.script_fetched = true;
    c.now = c.now + 2_800_000;
    let said = c.step();
    let words = format!("its boot script was fetched from {FROM}, and its seed never");
    assert!(said.starts_with("faulted") && said.contains(&words), "{said}");
}

/// By DHCP its firmware says who it is, and gets nothing to boot: nobody waits for its callback.
#[test]
fn a_host_that_states_another_uuid_is_told_at_once() {
    let swapped = identity::swap_uuid(UUID).unwrap();
    let quarantined = format!("uuid is `{OTHER}`, expected `{UUID}`");
    let mut c = Case::new();
    c.boots_by_pxe();
    let window = |c: &mut Case, stated: &str, fetched: bool| {
        c.window(None);
        let Read::Seen(window) = &mut c.report.boot else { panic!() };
        (window.other_uuid, window.script_fetched) = (Some(stated.into()), fetched);
    };
    // The same in the other byte order is no other; nor is one that asked beside the machine itself.
    window(&mut c, &swapped, false);
    assert_eq!(c.step(), "waits");
    window(&mut c, OTHER, true);
    assert_eq!(c.step(), "waits");
    window(&mut c, OTHER, false);
    let said = c.step();
    assert!(said.starts_with("quarantined") && said.contains(&quarantined), "{said}");
    assert!(said.contains("asks to boot with this machine's MAC"), "{said}");
    let fault = c.m.last_fault.as_ref().map(|n| n.fault.clone());
    assert!(fault.is_none_or(|f| f.class == FaultClass::Identity));
    assert_eq!(c.step(), "rest", "never tried again by itself");
    // A person has looked: its window is opened anew, and knows nothing of before.
    let change = Change::Release { why: "the cable is in its own host".into() };
    c.apply(Entry::Changed { change, by: "ann".into(), key: "k1".into() });
    assert_eq!(c.step(), "open-boot-window");
}

#[test]
fn a_ramdisk_without_power_is_booted_anew_with_its_new_key() {
    let mut c = Case::in_ramdisk();
    c.host(OTHER, true);
    assert!(c.step().starts_with("quarantined"));
    // A person put it right, which took its power, and releases it.
    c.silent();
    c.system(UUID, Power::Off, "Pxe");
    c.apply(Entry::Changed {
        by: "operator".into(),
        key: String::new(),
        change: change::Change::Release { why: "the cable".into() },
    });
    assert_eq!(c.step(), "open-boot-window", "no waiting for a host without power");
    c.done();
    c.window(None);
    assert_eq!(c.step(), "power-on", "the override stands");
    c.done();
    c.system(UUID, Power::On, "Pxe");
    c.window(Some(key(2)));
    assert_eq!(c.step(), format!("up with {}", key(2)));
    c.host(UUID, true);
    assert_eq!(c.step(), "wipe-job");
}

#[test]
fn nobody_waits_for_the_ramdisk_to_shut_down() {
    for (in_ramdisk, op) in [(true, "power-off"), (false, "graceful-shutdown")] {
        let mut c = if in_ramdisk { Case::in_ramdisk() } else { Case::new() };
        c.system(UUID, Power::On, "Pxe");
        let end = journal::StepEnd::Done { evidence: "blank".into() };
        c.apply(Entry::StepEnded { key: "sanitize".into(), end });
        c.apply(Entry::StepBegan { index: 1, key: "off".into() });
        assert_eq!(c.step(), op);
    }
}

#[test]
fn drives_behind_a_raid_volume_are_not_called_sanitized_and_not_tried_again() {
    let wiped = |result: serde_json::Value| {
        let mut c = Case::in_ramdisk();
        c.host(UUID, true);
        assert_eq!(c.step(), "wipe-job");
        c.done();
        let state = JobState::Finished { exit: 5, result: Some(result) };
        c.report.job = Read::Seen(JobFacts { state, ..JobFacts::default() });
        c.step()
    };
    let clean = serde_json::json!({"name": "nvme0n1", "verified": true});
    let left = serde_json::json!([{"drive": "sda", "why": "a volume of a RAID controller",
                                   "advice": "not sanitized: destroy"}]);
    let said = wiped(serde_json::json!({"verified": false, "drives": [clean.clone()],
                                        "not_sanitized": left.clone()}));
    assert_eq!(said, "quarantined: not sanitized: sda; what is on it can still be read");
    // A disk that did not get clean is tried once more, whatever lies hidden.
    let dirty = serde_json::json!({"name": "nvme1n1", "verified": false});
    let said = wiped(serde_json::json!({"verified": false, "drives": [clean, dirty],
                                        "not_sanitized": left}));
    assert!(said.starts_with("faulted: the wipe ended with 5"), "{said}");
}
