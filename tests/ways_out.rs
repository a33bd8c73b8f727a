//! No state without a deadline and a way out: every step of every shipped workflow, in every condition
//! and with every action open, gets a time for the next look, a text for people and something that a
//! person can do; and whatever the world keeps answering, it comes to an end by itself.

use farrier::config::{self, shipped};
use farrier::decide::explain::explain;
use farrier::decide::outage::Outage;
use farrier::decide::{Decide, Input, Room, Rules, Verdict};
use farrier::model::action::{Baseline, Expect, JobScript};
use farrier::model::deploy::DiskKind;
use farrier::model::facts::*;
use farrier::model::hardware::{BiosFacts, SecureBootFacts};
use farrier::model::machine::{Cursor, FaultNote, Hold, Rescue, Run};
use farrier::model::storage::{Drive, Storage, StorageFacts};
use farrier::model::time::Span;
use farrier::model::*;
use farrier::sim::physics::Board;
use farrier::sim::workflows;
use farrier::steps::Step;
use farrier::steps::site::Site;
use farrier::steps::workflow::Workflow;
use std::sync::Arc;

const DAY: u64 = 86_400_000;
const NOW: EngineTime = EngineTime(400 * DAY);

struct Free;

impl Room for Free {
    fn full(&self, _: MachineId, _: LimitClass) -> Option<String> {
        None
    }
}

/// One of each kind.
fn actions() -> Vec<Action> {
    let job = |script| Action::StartJob { script, name: "j".into(), timeout_ms: 60_000 };
    let power = |op| Action::Power { op };
    let all = vec![
        power(PowerOp::On),
        power(PowerOp::ForceOff),
        power(PowerOp::GracefulShutdown),
        power(PowerOp::ForceRestart),
        Action::BmcReset { controller: None },
        Action::SetBoot { target: BootTarget::Pxe },
        Action::OpenBootWindow {
            image: "i".into(),
            run: "r".into(),
            allow_existing_data: false,
            keys: vec![],
        },
        Action::CloseBootWindow { run: "r".into() },
        Action::UpdateFirmware {
            component: "bmc".into(),
            inventory_id: "BMC".into(),
            from: "1".into(),
            to: "2".into(),
            file: "f".into(),
            sha256: "0".into(),
        },
        job(JobScript::Smoke),
        job(JobScript::Wipe),
        Action::Deploy {
            image: "i".into(),
            run: "r".into(),
            host_key: "k".into(),
            name: "deploy-1".into(),
            timeout_ms: 60_000,
            allow_existing_data: false,
        },
        Action::InsertMedia { run: "r".into() },
        Action::EjectMedia,
        Action::SetBios { attributes: [("SriovGlobalEnable".into(), "Enabled".into())].into() },
        Action::SetSecureBoot { on: true },
        Action::CreateVolume {
            raid: "RAID1".into(),
            name: "boot".into(),
            drives: vec!["VD0-1".into(), "VD1-1".into()],
        },
        Action::Hook { verb: HookVerb::Join },
        Action::Hook { verb: HookVerb::Leave },
        Action::EndBmcSessions,
    ];
    for kind in ActionKind::ALL {
        assert!(all.iter().any(|a| a.kind() == kind), "{kind} is missing here");
    }
    all
}

fn identity() -> Identity {
    Identity::new(Some("S1"), Some("4c4c4544-0031-3510-8052-b4c04f563132"), None)
}

/// What the world answers, and keeps answering.
fn worlds() -> Vec<(&'static str, Report)> {
    let system =
        |power| Read::Seen(SystemFacts { identity: identity(), power, ..SystemFacts::default() });
    let fails = |what: &dyn Fn(Channel) -> Fault| Report {
        system: Read::Failed(what(Channel::Bmc)),
        inventory: Read::Failed(what(Channel::Bmc)),
        firmware: Read::Failed(what(Channel::Bmc)),
        tasks: Read::Failed(what(Channel::Bmc)),
        host: Read::Failed(what(Channel::Host)),
        job: Read::Failed(what(Channel::Host)),
        cluster: Read::Failed(what(Channel::Cluster)),
        boot: Read::Failed(what(Channel::Boot)),
        bios: Read::Failed(what(Channel::Bmc)),
        secure_boot: Read::Failed(what(Channel::Bmc)),
        storage: Read::Failed(what(Channel::Bmc)),
        ..Report::default()
    };
    let class = |class| move |channel| Fault::new(class, channel, "x", "x");
    let silent = |channel| Fault::no_answer(channel, "x");
    let seen = |power| Report {
        system: system(power),
        inventory: Read::Seen(InventoryFacts::default()),
        firmware: Read::Seen(vec![]),
        tasks: Read::Seen(vec![]),
        host: Read::Seen(HostFacts::default()),
        job: Read::Seen(JobFacts::default()),
        cluster: Read::Seen(Membership { member: true, workloads: 1, ..Membership::default() }),
        boot: Read::Seen(WindowFacts::default()),
        bios: Read::Seen(BiosFacts::default()),
        secure_boot: Read::Seen(SecureBootFacts::default()),
        storage: Read::Seen(StorageFacts::default()),
        ..Report::default()
    };
    let beside = |report: Report| Report { system: system(Power::On), ..report };
    let task = Task {
        uri: "/t/1".into(),
        state: TaskState::InProgress,
        raw_state: "Running".into(),
        percent: Some(99),
        message: None,
    };
    // Model and settings are there, and no POST ever applies what waits for it.
    let factory = Board::default().bios();
    let node = Read::Seen(SystemFacts {
        identity: identity(),
        power: Power::On,
        model: Some("Virtual GPU node".into()),
        bios_version: Some("2.1.0".into()),
        ..SystemFacts::default()
    });
    let pending = workflows::BIOS.iter().map(|(k, v)| (k.to_string(), (*v).into())).collect();
    let waits = BiosFacts { pending, ..factory.clone() };
    let secure = |enabled, in_force| {
        Read::Seen(SecureBootFacts { enabled, in_force, mode: Some("UserMode".into()) })
    };
    // Two free drives, of which nothing is ever made.
    let drive = |n: u8| Drive {
        id: format!("NVMe{n}"),
        uri: format!("/d/{n}"),
        serial: Some(format!("VD{n}-1")),
        kind: Some(DiskKind::Nvme),
        ..Drive::default()
    };
    let free = StorageFacts {
        parts: vec![Storage { drives: vec![drive(0), drive(1)], ..Storage::default() }],
    };
    let ramdisk = HostFacts { holds_data: Some(false), ..HostFacts::default() };
    vec![
        (
            "a controller that makes nothing",
            Report { storage: Read::Seen(free.clone()), ..seen(Power::On) },
        ),
        (
            "a controller that makes nothing, without power",
            Report { storage: Read::Seen(free), host: Read::Seen(ramdisk), ..seen(Power::Off) },
        ),
        (
            "a BIOS that takes nothing",
            Report {
                system: node.clone(),
                bios: Read::Seen(factory),
                secure_boot: secure(Some(false), Some(false)),
                ..seen(Power::On)
            },
        ),
        (
            "a BIOS that never applies",
            Report {
                system: node,
                bios: Read::Seen(waits),
                secure_boot: secure(Some(true), Some(false)),
                ..seen(Power::On)
            },
        ),
        ("all is empty, power on", seen(Power::On)),
        ("all is empty, power off", seen(Power::Off)),
        ("power never settles", seen(Power::PoweringOn)),
        ("a task runs for ever", Report { tasks: Read::Seen(vec![task]), ..seen(Power::On) }),
        ("nothing answers", fails(&silent)),
        ("only the BMC answers", beside(fails(&silent))),
        ("errors beside the system", beside(fails(&class(FaultClass::Transient)))),
        ("errors", fails(&class(FaultClass::Transient))),
        ("patience for ever", fails(&class(FaultClass::Throttled))),
        ("credentials refused", fails(&class(FaultClass::Auth))),
        ("can't do it", beside(fails(&class(FaultClass::Unsupported)))),
        (
            "nothing but the system was asked",
            Report { system: system(Power::On), ..Report::default() },
        ),
    ]
}

struct Place {
    site: Site,
    workflow: Arc<Workflow>,
    expected: Expected,
}

fn places() -> Vec<Place> {
    let (all, found) = config::workflow::parse(&shipped::workflows());
    assert!(found.is_empty() && all.len() >= 2);
    let place = |workflow: Arc<Workflow>| {
        let mut site = workflows::site();
        site.workflows.insert(workflow.hash(), workflow.clone());
        let expected = workflows::expected(MachineId(1), identity(), None);
        Place { site, workflow, expected }
    };
    let places: Vec<Place> = all.into_iter().map(place).collect();
    // The site's first profile in all of them, and the one with a boot volume in one.
    let with_volume = |p: &Place| {
        let profile = p.site.profiles.values().find(|p| p.boot_volume.is_some()).unwrap();
        let mut site = p.site.clone();
        site.profiles = [(profile.name.clone(), profile.clone())].into();
        Place { site, workflow: p.workflow.clone(), expected: p.expected.clone() }
    };
    let more = with_volume(&places[0]);
    places.into_iter().chain([more]).collect()
}

fn row(place: &Place, index: usize) -> Machine {
    let spec = &place.workflow.steps[index];
    Machine {
        name: "n1".into(),
        seq: 9,
        control: Control::Enrolled,
        desired: Some(Desired::InService),
        stage: spec.stage,
        stage_since: NOW,
        identity: identity().into(),
        run: Some(Box::new(Run {
            id: 2,
            workflow: place.workflow.hash(),
            reason: "enrolled".into(),
            since: NOW,
            abort: None,
            incarnation: None,
        })),
        step: Some(Box::new(Cursor {
            index: u16::try_from(index).unwrap(),
            key: spec.key.clone(),
            since: NOW,
            attempt: 0,
            acts: vec![],
            holds: None,
            skip: None,
            cut: false,
            room_since: None,
        })),
        rescue: matches!(spec.step, Step::Rescue(_)).then(|| {
            Box::new(Rescue {
                key: "k".into(),
                by: "p".into(),
                why: "w".into(),
                until: NOW + DAY / 3,
                up: None,
                ended: None,
            })
        }),
        ..Machine::blank(MachineId(1))
    }
}

fn open(action: &Action, state: OpenState) -> Box<OpenAction> {
    Box::new(OpenAction {
        seq: 9,
        action: action.clone(),
        expect: Expect::default(),
        baseline: Baseline::default(),
        at: NOW,
        state,
        handle: None,
        progress: 0,
        progress_at: NOW,
        interrupted: false,
        presumed: false,
    })
}

/// Every condition a machine in a step can be in, with a name.
fn conditions(m: &Machine) -> Vec<(&'static str, Machine)> {
    let fault = |channel| Fault::no_answer(channel, "x");
    let note = |channel, count| Some(Box::new(FaultNote { fault: fault(channel), at: NOW, count }));
    let lost = Condition::Unreachable { since: NOW };
    let broken = Fault::new(FaultClass::Hardware, Channel::Host, "x", "x");
    let mut all = vec![
        ("ok", m.clone()),
        (
            "backing off",
            Machine {
                condition: Condition::BackingOff,
                not_before: NOW + 60_000,
                last_fault: note(Channel::Bmc, 1),
                ..m.clone()
            },
        ),
        (
            "unreachable",
            Machine { condition: lost.clone(), last_fault: note(Channel::Bmc, 3), ..m.clone() },
        ),
        (
            "host unreachable",
            Machine { condition: lost, last_fault: note(Channel::Host, 3), ..m.clone() },
        ),
        (
            "quarantined",
            Machine {
                condition: Condition::Quarantined { since: NOW, fault: Box::new(broken) },
                ..m.clone()
            },
        ),
        (
            "held",
            Machine {
                hold: Some(Box::new(Hold { by: "p".into(), why: "w".into(), since: NOW })),
                ..m.clone()
            },
        ),
    ];
    let mut cut = m.clone();
    cut.step.as_mut().unwrap().cut = true;
    all.push(("cut", cut));
    let mut aborted = m.clone();
    aborted.run.as_mut().unwrap().abort = Some("why".into());
    // Fold takes an abort only where there is a safe place to go.
    if stage::is_legal(m.stage, Stage::Repair) {
        all.push(("aborted", aborted));
    }
    all
}

fn outage() -> Outage {
    Outage {
        kind: DomainKind::Rack,
        name: "r1".into(),
        channel: Channel::Bmc,
        out: 9,
        of: 10,
        since: NOW,
        last: NOW,
        window: Span(120_000),
        healed: None,
    }
}

struct Case<'a> {
    place: &'a Place,
    report: &'a Report,
    outage: Option<&'a Outage>,
    now: EngineTime,
    m: Machine,
    what: String,
}

impl Case<'_> {
    fn input<T>(&self, f: impl FnOnce(&Input<'_>) -> T) -> T {
        let profile = self.place.site.profiles.values().next().unwrap();
        f(&Input {
            m: &self.m,
            expected: &self.place.expected,
            profile,
            site: &self.place.site,
            workflow: &self.place.workflow,
            report: self.report,
            now: self.now,
            room: &Free,
            stopped: false,
            resumed: EngineTime::ZERO,
            outage: self.outage,
        })
    }

    /// One look: a finite time, a text, a way out. Returns when to look again.
    fn look(&mut self) -> EngineTime {
        let what = self.what.clone();
        let verdict = self.input(|i| Rules.decide(i));
        let said = self.input(|i| explain(&Rules, i, self.now + 1));
        assert!(!said.summary.is_empty() && !said.next.is_empty(), "{what}: no words");
        let at_ease = self.m.run.is_none() && self.m.condition == Condition::Ok;
        assert!(at_ease || !said.ways_out.is_empty(), "{what}: no way out: {said:?}");
        let (entries, due) = match verdict {
            Verdict::Rest { due, waiting } => {
                let told = waiting.is_some()
                    || self.m.waiting.is_some()
                    || self.m.condition != Condition::Ok
                    || self.m.run.is_none();
                assert!(told, "{what}: rests and nobody knows why");
                (vec![], due.max(self.now + 1))
            }
            Verdict::Write { entries, due } => {
                assert!(!entries.is_empty(), "{what}: writes nothing");
                (entries, due)
            }
            Verdict::Act { entries } => {
                assert!(matches!(entries.last(), Some(Entry::Intent { .. })), "{what}");
                let fault = Fault::new(FaultClass::OutcomeUnknown, Channel::Bmc, "x", "x");
                let unknown = Entry::Settled { outcome: Outcome::Unknown { fault } };
                ([entries, vec![unknown]].concat(), self.now + 60_000)
            }
        };
        for e in &entries {
            let folded = fold::apply(&mut self.m, e, self.now);
            assert!(folded.is_ok(), "{what}: {}: {e:?}", folded.unwrap_err());
        }
        assert!(due != EngineTime::NEVER, "{what}: never looked at again");
        assert!(
            due.since(self.now) <= DAY,
            "{what}: looked at after {}",
            Span(due.since(self.now))
        );
        due
    }

    /// Does it rest with people, or where it belongs, or heal by itself?
    fn is_settled(&self) -> bool {
        self.m.is_quarantined()
            || self.m.is_unreachable()
            || self.m.hold.is_some()
            || self.m.run.is_none()
    }
}

/// Every step × condition × open action × answer, with a domain out and without.
fn each(mut check: impl FnMut(Case<'_>)) -> u32 {
    let (places, worlds, actions, outage) = (places(), worlds(), actions(), outage());
    let mut cases = 0;
    for place in &places {
        for index in 0..place.workflow.steps.len() {
            let plain = row(place, index);
            let mut rows = conditions(&plain);
            for action in &actions {
                for state in [OpenState::Intended, OpenState::Applied, OpenState::Unknown] {
                    let m = Machine { open: Some(open(action, state)), ..plain.clone() };
                    rows.extend(conditions(&m).into_iter().filter(|(name, _)| *name != "cut"));
                }
            }
            for (condition, m) in rows {
                for (world, report) in &worlds {
                    for outage in [None, Some(&outage)] {
                        let spec = &place.workflow.steps[index];
                        let what = format!(
                            "{} {} `{}`, {condition}, open {:?}, {world}{}",
                            place.workflow.name,
                            spec.stage,
                            spec.key,
                            m.open.as_ref().map(|o| (o.action.kind(), o.state)),
                            if outage.is_some() { ", the rack is out" } else { "" },
                        );
                        cases += 1;
                        check(Case { place, report, outage, now: NOW, m: m.clone(), what });
                    }
                }
            }
        }
    }
    cases
}

#[test]
fn every_state_has_a_next_look_a_text_and_a_way_out() {
    let cases = each(|mut case| {
        case.look();
    });
    println!("{cases} states");
    assert!(cases > 50_000, "{cases}");
}

#[test]
fn whatever_the_world_keeps_answering_it_comes_to_an_end() {
    let mut longest = 0;
    each(|mut case| {
        // While a domain is out nothing ends; that ends with the outage. Conditions other than ok
        // lead to ok, or are ends themselves.
        if case.outage.is_some() || case.m.condition != Condition::Ok || case.m.hold.is_some() {
            return;
        }
        // One open action of each kind is enough: the states meet in `unknown`.
        if case.m.open.as_ref().is_some_and(|o| o.state == OpenState::Intended) {
            return;
        }
        let (mut looks, mut at_once) = (0, 0);
        while !case.is_settled() {
            let due = case.look();
            at_once = if due <= case.now { at_once + 1 } else { 0 };
            looks += 1;
            assert!(at_once < 60, "{}: goes round and round", case.what);
            assert!(
                case.now.since(NOW) < 60 * DAY,
                "{}: no end after {looks} looks, step {:?}, waiting {:?}, fault {:?}",
                case.what,
                case.m.step.as_ref().map(|s| (&s.key, s.attempt)),
                case.m.waiting,
                case.m.last_fault.as_ref().map(|n| n.fault.to_string()),
            );
            case.now = due.max(case.now);
        }
        longest = longest.max(case.now.since(NOW));
    });
    println!("the longest way to an end takes {}", Span(longest));
}

#[test]
fn machines_at_rest_have_a_way_out_too() {
    let (places, worlds, outage) = (places(), worlds(), outage());
    let place = &places[0];
    for stage in Stage::ALL {
        for control in [Control::Unmanaged, Control::Adopted, Control::Enrolled] {
            let mut m = row(place, 0);
            (m.run, m.step, m.stage, m.control) = (None, None, stage, control);
            m.desired = None;
            for condition in [
                Condition::Ok,
                Condition::BackingOff,
                Condition::Unreachable { since: NOW },
                Condition::Quarantined {
                    since: NOW,
                    fault: Box::new(Fault::no_answer(Channel::Bmc, "x")),
                },
            ] {
                m.condition = condition;
                for (world, report) in &worlds {
                    for outage in [None, Some(&outage)] {
                        let what = format!("{stage} {control:?} {} {world}", m.condition.name());
                        let mut case = Case { place, report, outage, now: NOW, m: m.clone(), what };
                        case.look();
                    }
                }
            }
        }
    }
}

/// A host that was installed by nobody we know of shows another key, for ever.
#[test]
fn a_changed_host_key_ends_in_a_new_installation() {
    let changed =
        || Fault::new(FaultClass::Identity, Channel::Host, "host-key-changed", "another key");
    let places = places();
    let place = &places[0];
    let say = |m: &mut Machine, change| {
        let entry = Entry::Changed { change, by: "people".into(), key: "k".into() };
        fold::apply(m, &entry, NOW).map_err(|e| e.to_string())
    };
    let repair = || Change::Repair { why: "reinstalled".into() };
    let job = Action::StartJob { script: JobScript::Wipe, name: "j".into(), timeout_ms: 60_000 };
    let report = |power| Report {
        system: Read::Seen(SystemFacts { identity: identity(), power, ..SystemFacts::default() }),
        host: Read::Failed(changed()),
        job: Read::Failed(changed()),
        ..Report::default()
    };
    let (on, off) = (report(Power::On), report(Power::Off));
    let stages = [Stage::BurnIn, Stage::Retire];
    let steps = place.workflow.steps.iter().enumerate().filter(|(_, s)| stages.contains(&s.stage));
    for (index, spec) in steps {
        let what = format!("{} `{}`", spec.stage, spec.key);
        let m = Machine { open: Some(open(&job, OpenState::Applied)), ..row(place, index) };
        let case =
            |m, report| Case { place, report, outage: None, now: NOW + DAY, m, what: what.clone() };
        // The job can't be followed: quarantined, and its host is not given away meanwhile.
        let mut quarantined = case(m, &on);
        quarantined.look();
        assert!(quarantined.m.is_quarantined() && quarantined.m.open.is_some(), "{what}");
        assert!(say(&mut quarantined.m.clone(), repair()).is_err(), "{what}");
        // No job outlives its host's power.
        let mut dark = case(quarantined.m, &off);
        dark.look();
        assert!(dark.m.open.is_none() && dark.m.is_quarantined(), "{what}");
        say(&mut dark.m, repair()).unwrap();
        say(&mut dark.m, Change::Enroll { allow_existing_data: true, desired: Desired::Ready })
            .unwrap();
        dark.look();
        assert_eq!(dark.m.stage, Stage::Discover, "{what}");
    }
}
