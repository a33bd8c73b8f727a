//! A rescue from the order to the rest in repair: facts in, decisions out, against a host that does
//! what it is told and sometimes does not.

#[path = "support/case.rs"]
mod case;

use case::Free;
use farrier::decide::explain::explain;
use farrier::decide::{Decide, Input, Rules, Verdict};
use farrier::model::facts::*;
use farrier::model::machine::{Condition, Control, Machine};
use farrier::model::*;
use farrier::sim::workflows;
use farrier::steps::site::{Profile, Site};
use farrier::steps::workflow::Workflow;
use std::sync::Arc;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJsaHlEdYCtVIbYwvEdqLi1Yg8qnmPTOL1vXVXNVvZ8e ann@laptop";
const HOST_KEY: &str = "ssh-ed25519 AAAAhost";
const HOUR: u64 = 3_600_000;

fn identity() -> Identity {
    Identity::new(Some("S1"), Some("4c4c4544-0031-3510-8052-b4c04f563132"), None)
}

/// What answers on the host.
#[derive(Clone, Copy, PartialEq)]
enum Host {
    Silent,
    /// The system on its disk, with the key that is pinned for it or, seen by who expects the
    /// ramdisk, with another one.
    Disk,
    Ramdisk,
}

struct Case {
    m: Machine,
    site: Site,
    profile: Arc<Profile>,
    workflow: Arc<Workflow>,
    expected: Expected,
    now: EngineTime,
    power: Power,
    target: BootTarget,
    window: WindowFacts,
    media: Vec<String>,
    host: Host,
    /// Acts on the machine, in words, as they were sent.
    acts: Vec<String>,
    keys: Vec<String>,
    /// It obeys a shutdown.
    obeys: bool,
    /// It boots the ramdisk, and not its disk.
    boots: bool,
    /// Its BMC takes an override away.
    takes_none: bool,
}

impl Case {
    /// At rest in repair, its system running.
    fn new() -> Self {
        let mut site = workflows::site();
        let mut profile = (**site.profiles.values().find(|p| !p.boot.is_empty()).unwrap()).clone();
        profile.boot.truncate(1);
        site.incarnation = "0badcafe".into();
        let workflow = site.workflows[&profile.workflow].clone();
        let m = Machine {
            name: "n1".into(),
            seq: 9,
            control: Control::Enrolled,
            stage: Stage::Repair,
            identity: identity().into(),
            ..Machine::blank(MachineId(1))
        };
        Self {
            m,
            site,
            profile: profile.into(),
            workflow,
            expected: workflows::expected(MachineId(1), identity(), None),
            now: EngineTime(1_000_000),
            power: Power::On,
            target: BootTarget::None,
            window: WindowFacts::default(),
            media: vec![],
            host: Host::Disk,
            acts: vec![],
            keys: vec![],
            obeys: true,
            boots: true,
            takes_none: true,
        }
    }

    fn say(&mut self, change: Change) -> Result<(), String> {
        let entry = Entry::Changed { change, by: "ann".into(), key: format!("k{}", self.m.seq) };
        fold::apply(&mut self.m, &entry, self.now).map_err(|e| e.why)
    }

    fn ask(&mut self) {
        let (key, why) = (KEY.into(), "ECC errors".into());
        self.say(Change::Rescue { key, for_ms: 8 * HOUR, why }).unwrap();
    }

    fn apply(&mut self, e: &Entry) {
        fold::apply(&mut self.m, e, self.now).unwrap();
    }

    fn report(&self) -> Report {
        let run = self.m.run_name(&self.site.incarnation);
        let pinned = self.m.ramdisk.is_some();
        let host = |ramdisk_run| {
            let known = HostFacts { identity: identity(), ramdisk_run, ..HostFacts::default() };
            Read::Seen(HostFacts { image: Some("img".into()), ..known })
        };
        let (target, enabled) = match self.target {
            BootTarget::None => ("None", "Disabled"),
            t => (t.redfish_names()[0], "Once"),
        };
        Report {
            system: Read::Seen(SystemFacts {
                identity: identity(),
                power: self.power,
                boot_target: Some(target.into()),
                boot_enabled: Some(enabled.into()),
                ..SystemFacts::default()
            }),
            host: match self.host {
                Host::Silent => Read::Failed(Fault::no_answer(Channel::Host, "refused")),
                Host::Disk if pinned => Read::Failed(Fault::new(
                    FaultClass::Identity,
                    Channel::Host,
                    "host-key-changed",
                    "another key",
                )),
                Host::Disk => host(None),
                Host::Ramdisk if pinned => host(Some(run)),
                Host::Ramdisk => Read::Failed(Fault::no_answer(Channel::Host, "refused")),
            },
            tasks: Read::Seen(vec![]),
            cluster: Read::Seen(Membership::default()),
            boot: Read::Seen(self.window.clone()),
            media: Read::Seen(self.media.clone()),
            ..Report::default()
        }
    }

    fn input<T>(&self, f: impl FnOnce(&Input<'_>) -> T) -> T {
        f(&Input {
            m: &self.m,
            expected: &self.expected,
            profile: &self.profile,
            site: &self.site,
            workflow: &self.workflow,
            report: &self.report(),
            now: self.now,
            room: &Free,
            stopped: false,
            resumed: EngineTime::ZERO,
            outage: None,
        })
    }

    /// One look; what is ordered is done at once.
    fn look(&mut self) -> Vec<Entry> {
        let (entries, due) = match self.input(|i| Rules.decide(i)) {
            Verdict::Rest { due, .. } => (vec![], due),
            Verdict::Write { entries, due } => (entries, due),
            Verdict::Act { entries } => (entries, self.now),
        };
        for e in &entries {
            self.apply(e);
        }
        if let Some(Entry::Intent { action, .. }) = entries.last() {
            self.acts.push(format!("{} {}", action.kind(), action.about()));
            self.obey(&action.clone());
            self.apply(&Entry::Settled { outcome: Outcome::Applied { handle: None } });
        }
        self.now = due.max(self.now + 1_000);
        entries
    }

    fn obey(&mut self, action: &Action) {
        match action {
            Action::Power { op: PowerOp::On } => {
                self.power = Power::On;
                let ours = self.boots && self.target != BootTarget::None && self.window.open;
                self.target = BootTarget::None;
                self.host = if ours { Host::Ramdisk } else { Host::Disk };
                if ours {
                    self.window.script_fetched = true;
                    self.window.seed_fetched = true;
                    self.window.from = Some("10.0.0.7".into());
                    let host_key = Some(HOST_KEY.into());
                    self.window.callback =
                        Some(Callback { ok: true, host_key, message: None, code: None });
                }
            }
            Action::Power { op: PowerOp::GracefulShutdown } if !self.obeys => {}
            Action::Power { .. } => (self.power, self.host) = (Power::Off, Host::Silent),
            Action::SetBoot { target: BootTarget::None } if !self.takes_none => {}
            Action::SetBoot { target } => self.target = *target,
            Action::OpenBootWindow { run, image, keys, .. } => {
                assert_eq!(image, deploy::RAMDISK, "nothing else is ever booted for a rescue");
                self.window =
                    WindowFacts { open: true, run: Some(run.clone()), ..Default::default() };
                self.keys.clone_from(keys);
            }
            Action::CloseBootWindow { .. } => self.window.open = false,
            Action::EjectMedia => self.media.clear(),
            other => panic!("nothing of a rescue: {other:?}"),
        }
    }

    /// Looks until it holds; panics when it never does.
    fn until(&mut self, what: &str, holds: impl Fn(&Case) -> bool) {
        for _ in 0..2_000 {
            if holds(self) {
                return;
            }
            self.look();
        }
        panic!("never: {what}; {:?}; {:#?}", self.acts, self.m);
    }

    fn up(&self) -> bool {
        self.m.rescue.as_ref().is_some_and(|r| r.up.is_some())
    }

    fn rests(&self) -> bool {
        self.m.run.is_none() && self.m.rescue.is_none()
    }

    fn given() -> Self {
        let mut c = Case::new();
        c.ask();
        c.until("handed over", Case::up);
        c.acts.clear();
        c
    }

    fn run(&self) -> String {
        self.m.run_name(&self.site.incarnation)
    }
}

const ENDS: [&str; 2] = ["power-off force-off", "close-boot-window"];

/// The journal keeps a change flat, beside who said it and its idempotency key: no two of them may have
/// one name, or the database can't be read any more.
#[test]
fn what_was_said_is_read_back_from_the_journal() {
    let why = || String::from("why");
    let desired = Desired::Ready;
    let changes = [
        Change::Adopt,
        Change::Enroll { allow_existing_data: true, desired },
        Change::Desire { desired },
        Change::Hold { why: why() },
        Change::Unhold { why: why() },
        Change::Release { why: why() },
        Change::Retry { why: why() },
        Change::Skip { step: "image".into(), why: why() },
        Change::Abort { why: why() },
        Change::Repair { why: why() },
        Change::Rescue { key: KEY.into(), for_ms: HOUR, why: why() },
        Change::EndRescue { why: why() },
    ];
    for change in changes {
        let said = Entry::Changed { change, by: "ann".into(), key: "k1".into() };
        let text = serde_json::to_string(&said).unwrap();
        let read: Entry = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(read, said);
    }
}

#[test]
fn it_is_booted_handed_over_and_ended_by_its_deadline() {
    let mut c = Case::new();
    c.ask();
    let asked = c.now;
    c.until("handed over", Case::up);
    let run = c.run();
    assert_eq!(
        c.acts,
        [
            // What runs there may have data in memory: it is asked first.
            "power-off graceful-shutdown",
            &format!("open-boot-window {run}"),
            "set-boot pxe",
            "power-on on",
        ]
    );
    assert_eq!(c.keys, [KEY]);
    let said = c.input(|i| explain(&Rules, i, c.now));
    let hint = said.hint.unwrap_or_default();
    assert!(hint.contains("root@10.0.0.7") && hint.contains(HOST_KEY), "{hint}");
    assert!(said.ways_out.iter().any(|w| w.contains("rescue n1 --end")), "{:?}", said.ways_out);
    c.acts.clear();
    c.until("rests", Case::rests);
    let took = c.now.since(asked);
    assert!((8 * HOUR..8 * HOUR + HOUR / 2).contains(&took), "ended after {took} ms");
    assert_eq!(c.acts, [ENDS[0].to_string(), format!("{} {run}", ENDS[1])]);
    assert_eq!((c.m.stage, c.power, c.window.open), (Stage::Repair, Power::Off, false));
    assert!(c.m.ramdisk.is_none() && !c.m.is_quarantined());
    // And it stays there.
    for _ in 0..20 {
        c.look();
    }
    assert!(c.rests() && c.power == Power::Off);
}

#[test]
fn a_person_ends_it_and_leaves_no_override() {
    let mut c = Case::given();
    // A BMC without `Once` keeps the override; and a medium was left in its drive.
    c.target = BootTarget::Pxe;
    let run = c.run();
    c.say(Change::EndRescue { why: "found it".into() }).unwrap();
    c.until("rests", Case::rests);
    assert_eq!(c.acts, [ENDS[0], "set-boot none", &format!("{} {run}", ENDS[1])]);
    assert_eq!(c.target, BootTarget::None);
}

/// sushy-tools answers 500 to an override of none.
#[test]
fn a_bmc_that_takes_no_override_away_is_left_with_its_disk() {
    let mut c = Case::given();
    (c.target, c.takes_none) = (BootTarget::Pxe, false);
    c.say(Change::EndRescue { why: "found it".into() }).unwrap();
    c.until("rests", Case::rests);
    assert_eq!(c.target, BootTarget::Disk, "{:?}", c.acts);
    assert!(!c.m.is_quarantined() && !c.window.open);
}

/// After a restore: the run that the database has forgotten had a window open.
#[test]
fn its_end_closes_another_runs_window_too() {
    let mut c = Case::given();
    c.window.run = Some("0badcafe-m1-999".into());
    c.say(Change::EndRescue { why: "found it".into() }).unwrap();
    c.until("rests", Case::rests);
    assert!(c.acts.contains(&format!("{} 0badcafe-m1-999", ENDS[1])), "{:?}", c.acts);
    assert!(!c.window.open);
}

#[test]
fn once_handed_over_the_host_is_left_alone() {
    for host in [Host::Silent, Host::Disk] {
        let mut c = Case::given();
        c.host = host;
        let end = c.now + 6 * HOUR;
        c.until("six hours", |c| c.now > end);
        assert_eq!(c.acts, [""; 0], "nothing is done to a machine that a person works on");
        assert_eq!((c.m.condition.clone(), c.m.step.as_ref().unwrap().attempt), (Condition::Ok, 0));
        c.until("rests", Case::rests);
        // Another system than the ramdisk may have data: asked first.
        let off = if host == Host::Disk { "power-off graceful-shutdown" } else { ENDS[0] };
        assert_eq!(c.acts[0], off);
    }
}

#[test]
fn a_host_that_ignores_a_shutdown_is_cut() {
    let mut c = Case::new();
    c.obeys = false;
    c.ask();
    c.until("handed over", Case::up);
    let of_power: Vec<&str> =
        c.acts.iter().map(String::as_str).filter(|a| a.starts_with("power")).collect();
    assert_eq!(of_power, ["power-off graceful-shutdown", ENDS[0], "power-on on"]);
}

#[test]
fn what_boots_its_disk_ends_with_a_person_who_has_ways_out() {
    let mut c = Case::new();
    c.boots = false;
    c.ask();
    c.until("quarantined", |c| c.m.is_quarantined());
    assert_eq!(c.m.last_fault.as_ref().unwrap().fault.code, "booted-disk");
    let said = c.input(|i| explain(&Rules, i, c.now));
    for way in ["release", "rescue n1 --end", "abort"] {
        assert!(said.ways_out.iter().any(|w| w.contains(way)), "{way}: {:?}", said.ways_out);
    }
    // Ended and released, nothing of ours stays.
    c.say(Change::EndRescue { why: "no use".into() }).unwrap();
    c.say(Change::Release { why: "looked".into() }).unwrap();
    c.until("rests", Case::rests);
    assert_eq!((c.power, c.window.open, c.target), (Power::Off, false, BootTarget::None));
    // Or aborted: the power as it is, and no window.
    let mut c = Case::new();
    c.boots = false;
    c.ask();
    c.until("quarantined", |c| c.m.is_quarantined());
    c.say(Change::Abort { why: "by hand".into() }).unwrap();
    c.until("rests", Case::rests);
    assert_eq!((c.m.stage, c.window.open), (Stage::Repair, false));
}

#[test]
fn ended_before_it_began_the_host_is_not_touched() {
    let mut c = Case::new();
    c.ask();
    c.say(Change::EndRescue { why: "wrong machine".into() }).unwrap();
    assert!(c.rests());
    c.ask();
    c.until("its run", |c| c.m.step.is_some());
    c.say(Change::EndRescue { why: "wrong machine".into() }).unwrap();
    c.until("rests", Case::rests);
    assert_eq!((c.acts.len(), c.power, c.host == Host::Disk), (0, Power::On, true));
}

#[test]
fn a_hold_keeps_even_its_end_waiting() {
    let mut c = Case::given();
    c.say(Change::Hold { why: "hands in the rack".into() }).unwrap();
    c.say(Change::EndRescue { why: "done".into() }).unwrap();
    for _ in 0..50 {
        c.look();
    }
    assert_eq!((c.acts.len(), c.power), (0, Power::On));
    c.say(Change::Unhold { why: "out".into() }).unwrap();
    c.until("rests", Case::rests);
    assert_eq!(c.power, Power::Off);
}

#[test]
fn only_an_enrolled_machine_at_rest_in_repair_is_rescued() {
    let order = |key: &str| Change::Rescue { key: key.into(), for_ms: HOUR, why: "w".into() };
    for stage in Stage::ALL.into_iter().filter(|s| *s != Stage::Repair) {
        let mut c = Case::new();
        c.m.stage = stage;
        let why = c.say(order(KEY)).unwrap_err();
        assert!(why.contains("repair"), "{stage}: {why}");
    }
    for control in [Control::Unmanaged, Control::Adopted] {
        let mut c = Case::new();
        c.m.control = control;
        assert!(c.say(order(KEY)).unwrap_err().contains("enroll"));
    }
    let mut c = Case::given();
    assert!(c.say(order("ssh-ed25519 other")).unwrap_err().contains("another key"));
    // The same key again: it lasts from now on.
    let (until, now) = (c.m.rescue.as_ref().unwrap().until, c.now);
    c.say(Change::Rescue { key: KEY.into(), for_ms: 9 * HOUR, why: "more".into() }).unwrap();
    assert_eq!(c.m.rescue.as_ref().unwrap().until, now + 9 * HOUR);
    assert!(now + 9 * HOUR > until && c.up());
    c.say(Change::EndRescue { why: "done".into() }).unwrap();
    assert!(c.say(order(KEY)).unwrap_err().contains("being ended"));
}

#[test]
fn a_workflow_without_the_step_ends_at_once_and_says_so() {
    let mut c = Case::new();
    let mut workflow = (*c.workflow).clone();
    workflow.steps.retain(|s| s.stage != Stage::Repair);
    c.workflow = workflow.into();
    c.ask();
    let entries = c.look();
    assert!(
        entries.iter().any(|e| matches!(e, Entry::RunEnded { why } if why.contains("`rescue`"))),
        "{entries:?}"
    );
    assert!(c.rests());
}

#[test]
fn an_enrolment_said_meanwhile_follows_the_rescue() {
    let mut c = Case::given();
    c.say(Change::Enroll { allow_existing_data: true, desired: Desired::Ready }).unwrap();
    c.until("an hour later", |c| c.now.0 > 2 * HOUR);
    assert!(c.up() && c.acts.is_empty());
    c.say(Change::EndRescue { why: "done".into() }).unwrap();
    c.until("enrolled", |c| c.m.stage == Stage::Discover);
    assert!(c.m.rescue.is_none() && c.power == Power::Off);
}
