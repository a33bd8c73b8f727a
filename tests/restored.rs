//! After a restore: the world is an hour ahead of the rows, and nothing of that hour is done twice.
//! The real director with the real rules against one machine whose facts the test keeps.

use farrier::decide::Rules;
use farrier::engine::director::Settings;
use farrier::engine::{Command, Director, Event};
use farrier::model::facts::*;
use farrier::model::*;
use farrier::port::store::{Committed, Loaded, SiteState};
use farrier::steps::catalog::*;
use farrier::steps::site::{Profile, Site};
use farrier::steps::version::Scheme;
use farrier::steps::workflow::*;
use farrier::steps::{Step, burn_in, firmware, provision, sanitize};
use regex::Regex;
use std::collections::BTreeMap;
use std::sync::Arc;

const ID: MachineId = MachineId(7);
const UUID: &str = "11111111-2222-3333-4444-555555555501";

fn spec(stage: Stage, step: Step) -> StepSpec {
    StepSpec {
        key: step.kind().into(),
        stage,
        step,
        timeout: time::Span(4 * 3_600_000),
        stall: time::Span(3_600_000),
        usual: time::Span(0),
        retry: Retry::default(),
        unsupported: Unsupported::Quarantine,
        when: When::default(),
    }
}

fn workflow() -> Workflow {
    Workflow {
        name: "w".into(),
        watch: time::Span(60_000),
        sla: Default::default(),
        steps: vec![
            spec(Stage::Firmware, Step::Firmware(firmware::Params {})),
            spec(Stage::Provision, Step::Provision(provision::Params::default())),
            spec(Stage::BurnIn, Step::BurnIn(burn_in::Params::default())),
            spec(Stage::Retire, Step::Sanitize(sanitize::Params::default())),
        ],
    }
}

fn site() -> Site {
    let rx = |s: &str| Regex::new(s).unwrap();
    let fw = Firmware {
        id: "bmc-2".into(),
        component: "bmc".into(),
        inventory_id: rx("^BMC$"),
        version: "2.0".into(),
        scheme: Scheme::Dotted,
        version_regex: None,
        min_version: None,
        blocked_versions: vec![],
        file: "bmc-2.bin".into(),
        size: 1,
        sha256: "00".repeat(32),
        activation: Activation::BmcReset,
        verify_timeout: time::Span(600_000),
        allow_downgrade: false,
        method: Default::default(),
    };
    let set = FirmwareSet { status: SetStatus::Approved, firmware: vec![fw] };
    let family = Family {
        file: "v.toml".into(),
        manufacturer: vec![rx("^V$")],
        model: vec![rx("^M$")],
        sets: BTreeMap::from([("s".to_string(), set)]),
    };
    let profile = Profile {
        workflow: "h".into(),
        firmware_set: Some("s".into()),
        image: Some("ubuntu".into()),
        ..Profile::default()
    };
    Site {
        catalog: Catalog { families: vec![family] },
        profiles: BTreeMap::from([("p".into(), Arc::new(profile))]),
        workflows: BTreeMap::from([("h".into(), Arc::new(workflow()))]),
        incarnation: "bbbb".into(),
        ..Site::default()
    }
}

/// The machine, and what it shows.
struct Place {
    director: Director,
    now: EngineTime,
    world: Report,
    job: JobFacts,
    entries: Vec<Entry>,
    acts: Vec<Action>,
    /// What an action does to the world.
    effect: fn(&mut Report, &Action),
    ticket: u64,
}

/// A machine in `stage` at the step of that stage; the database was then restored.
fn restored(stage: Stage, effect: fn(&mut Report, &Action)) -> Place {
    let mut m = Machine::blank(ID);
    let mut add = |e: Entry| fold::apply(&mut m, &e, EngineTime(1_000)).unwrap();
    let change = Change::Enroll { allow_existing_data: false, desired: Desired::Ready };
    add(Entry::Registered { name: "n7".into() });
    add(Entry::Changed { change, by: "ops".into(), key: "k".into() });
    add(Entry::Proven { identity: Identity::new(None, Some(UUID), None) });
    add(Entry::HostKeyPinned { host_key: "ssh-ed25519 A".into() });
    add(Entry::RunBegan { workflow: "h".into(), reason: "enrolled".into() });
    let way = [Stage::Firmware, Stage::Provision, Stage::BurnIn];
    match stage {
        Stage::Retire => {
            for s in way.into_iter().chain([Stage::Ready, Stage::Retire]) {
                add(Entry::Entered { stage: s });
            }
        }
        _ => {
            let upto = way.iter().position(|s| *s == stage).unwrap();
            way[..=upto].iter().for_each(|s| add(Entry::Entered { stage: *s }));
        }
    }
    let (index, spec) =
        workflow().steps.into_iter().enumerate().find(|(_, s)| s.stage == stage).unwrap();
    add(Entry::StepBegan { index: index.try_into().unwrap(), key: spec.key });
    add(Entry::Restored { incarnation: "bbbb".into(), was: "aaaa".into() });
    let expected = Expected {
        name: "n7".into(),
        identity: Identity::default().into(),
        rack: "r".into(),
        position: 0,
        pool: "p".into(),
        profile: "p".into(),
        domains: [].into(),
        labels: Default::default(),
        bmc: BmcEndpoint::default(),
        host: HostEndpoint::default(),
    };
    let loaded = Loaded {
        state: SiteState { incarnation: "bbbb".into(), ..SiteState::default() },
        machines: vec![m],
        expected: BTreeMap::from([(ID, Arc::new(expected))]),
        workflows: BTreeMap::new(),
    };
    let now = EngineTime(1_000_000);
    let director = Director::new(Rules, Settings::default(), loaded, Arc::new(site()), now);
    let mut place = Place {
        director,
        now,
        world: Report::default(),
        job: JobFacts::default(),
        entries: vec![],
        acts: vec![],
        effect,
        ticket: 0,
    };
    place.world.system = Read::Seen(SystemFacts {
        identity: Identity::new(None, Some(UUID), None),
        manufacturer: Some("V".into()),
        model: Some("M".into()),
        power: Power::On,
        boot_enabled: Some("Disabled".into()),
        ..SystemFacts::default()
    });
    place.world.tasks = Read::Seen(vec![]);
    place.world.firmware = version("1.0");
    place.world.host = Read::Seen(HostFacts::default());
    place.world.boot = Read::Seen(WindowFacts::default());
    place
}

fn version(v: &str) -> Read<Vec<Component>> {
    let bmc = Component { id: "BMC".into(), version: Some(v.into()), ..Component::default() };
    Read::Seen(vec![bmc])
}

impl Place {
    fn row(&self) -> &Machine {
        self.director.machine(ID).unwrap()
    }

    /// Runs for so many minutes of engine time, or until `end` holds.
    fn run(&mut self, minutes: u64, end: impl Fn(&Place) -> bool) {
        let until = self.now + minutes * 60_000;
        while !end(self) && self.director.next_due() <= until {
            self.now = self.now.max(self.director.next_due());
            self.feed(Event::Tick);
        }
        if !end(self) {
            self.now = until;
        }
    }

    fn feed(&mut self, event: Event) {
        let mut queue = vec![event];
        while let Some(event) = queue.pop() {
            let mut out = Vec::new();
            self.director.on(self.now, event, &mut out);
            for command in out {
                match command {
                    Command::Probe { machine, token, set, job, .. } => {
                        let report = Box::new(self.read(set, job.as_deref()));
                        queue.push(Event::Probed { machine, token, report });
                    }
                    Command::Commit(item) => {
                        self.entries.extend(item.entries.iter().cloned());
                        let result = Ok(Committed::Durable);
                        queue.push(Event::Committed { machine: item.machine, result });
                    }
                    Command::Act { machine, seq, action, .. } => {
                        (self.effect)(&mut self.world, &action);
                        self.acts.push(action);
                        let outcome = Outcome::Applied { handle: None };
                        queue.push(Event::Acted { machine, seq, outcome });
                    }
                    Command::Ack { result, .. } => drop(result.unwrap()),
                    Command::CommitStop { .. } | Command::Halt { .. } => panic!("{command:?}"),
                }
            }
        }
    }

    fn read(&self, set: ProbeSet, job: Option<&str>) -> Report {
        let mut r = Report { at: self.now, ..self.world.clone() };
        if !set.has(ProbeSet::FIRMWARE) {
            r.firmware = Read::NotAsked;
        }
        if !set.has(ProbeSet::TASKS) {
            r.tasks = Read::NotAsked;
        }
        if !set.has(ProbeSet::HOST) {
            r.host = Read::NotAsked;
        }
        if !set.has(ProbeSet::BOOT) {
            r.boot = Read::NotAsked;
        }
        if set.has(ProbeSet::JOB)
            && let Some(name) = job
        {
            r.job = Read::Seen(match *name == *self.job.name {
                true => self.job.clone(),
                false => JobFacts { name: name.into(), ..JobFacts::default() },
            });
        }
        r
    }

    fn unhold(&mut self) {
        self.ticket += 1;
        let (change, ticket) = (Change::Unhold { why: "looked".into() }, self.ticket);
        let (by, key) = ("ops".to_string(), format!("u{ticket}"));
        self.feed(Event::Change { machine: ID, change, by, key, ticket });
    }

    fn acted(&self) -> Vec<&'static str> {
        self.acts.iter().map(|a| a.kind().name()).collect()
    }

    fn ended(&self, step: &str) -> bool {
        self.entries.iter().any(
            |e| matches!(e, Entry::StepEnded { key, end: StepEnd::Done { .. } } if **key == *step),
        )
    }

    fn quarantine(&self) -> Option<&str> {
        match &self.row().condition {
            Condition::Quarantined { fault, .. } => Some(&fault.code),
            _ => None,
        }
    }
}

#[test]
fn while_held_the_machine_is_read_and_what_is_new_is_told() {
    let mut p = restored(Stage::Firmware, |_, _| {});
    let job = JobNote { name: "smoke-aaaa-m7-40".into(), running: true };
    p.world.host = Read::Seen(HostFacts {
        jobs: vec![job],
        image_run: Some("aaaa-m7-31".into()),
        ..HostFacts::default()
    });
    p.run(60, |_| false);
    assert_eq!(p.acted(), Vec::<&str>::new());
    let notice = p.row().notice.as_deref().unwrap_or("");
    for part in ["deployed by run aaaa-m7-31", "smoke-aaaa-m7-40 of the lost time runs"] {
        assert!(notice.contains(part), "{notice}");
    }
    let noticed = p.entries.iter().filter(|e| matches!(e, Entry::Noticed { .. })).count();
    assert_eq!(noticed, 1, "said once");
}

#[test]
fn an_update_that_was_staged_in_the_lost_time_is_activated_and_not_flashed_again() {
    // The task list was lost with a BMC reset: nothing but the version can tell.
    let mut p = restored(Stage::Firmware, |world, action| {
        if matches!(action, Action::BmcReset { .. }) {
            world.firmware = version("2.0");
        }
    });
    p.unhold();
    p.run(120, |p| p.ended("firmware"));
    assert!(p.ended("firmware"), "{:#?}", p.entries);
    assert_eq!(p.acted()[0], "bmc-reset");
    assert!(!p.acted().contains(&"update-firmware"), "{:?}", p.acted());
}

#[test]
fn an_update_that_never_was_is_made_once_the_activation_has_shown_so() {
    let mut p = restored(Stage::Firmware, |world, action| {
        if matches!(action, Action::UpdateFirmware { .. }) {
            world.firmware = version("2.0");
        }
    });
    p.unhold();
    p.run(240, |p| p.ended("firmware"));
    assert!(p.ended("firmware"), "{:#?}", p.entries);
    assert_eq!(p.acted()[..2], ["bmc-reset", "update-firmware"]);
    assert_eq!(p.acted().iter().filter(|a| **a == "update-firmware").count(), 1);
}

#[test]
fn a_running_task_of_the_lost_time_is_waited_for() {
    let mut p = restored(Stage::Firmware, |_, _| {});
    p.world.tasks = Read::Seen(vec![Task {
        uri: "/t/9".into(),
        state: TaskState::InProgress,
        raw_state: "Running".into(),
        percent: Some(40),
        message: None,
    }]);
    p.unhold();
    p.run(30, |_| false);
    assert_eq!(p.acted(), Vec::<&str>::new());
    p.world.tasks = Read::Seen(vec![]);
    p.world.firmware = version("2.0");
    p.run(30, |p| p.ended("firmware"));
    assert!(p.ended("firmware"));
    assert!(!p.acted().contains(&"update-firmware"), "{:?}", p.acted());
}

#[test]
fn a_job_of_the_lost_time_is_taken_on_by_its_name() {
    let mut p = restored(Stage::BurnIn, |_, _| {});
    let name = "smoke-aaaa-m7-44";
    let jobs = |running| {
        Read::Seen(HostFacts {
            jobs: vec![
                JobNote { name: "smoke-aaaa-m7-3".into(), running: false },
                JobNote { name: "smoke-aaaa-m9-90".into(), running: false },
                JobNote { name: name.into(), running },
            ],
            ..HostFacts::default()
        })
    };
    p.world.host = jobs(true);
    p.job = JobFacts {
        name: name.into(),
        state: JobState::Running { progress: 5 },
        ..JobFacts::default()
    };
    p.unhold();
    p.run(5, |_| false);
    let open = p.row().open.as_deref().map(|o| o.action.about());
    assert_eq!(open.as_deref(), Some(name), "{:#?}", p.entries);
    p.world.host = jobs(false);
    let result = serde_json::json!({"ok": true, "gpus": 8, "problems": []});
    p.job.state = JobState::Finished { exit: 0, result: Some(result) };
    p.run(30, |p| p.ended("burn-in"));
    assert!(p.ended("burn-in"), "{:#?}", p.entries);
    assert_eq!(p.acted(), Vec::<&str>::new(), "no second job");
    assert_eq!(p.row().stage, Stage::Ready);
    assert!(p.row().restored.is_none(), "everything was observed anew");
}

#[test]
fn without_a_job_of_the_lost_time_one_is_started_as_ever() {
    let mut p = restored(Stage::BurnIn, |_, _| {});
    p.unhold();
    p.run(10, |p| !p.acts.is_empty());
    let [Action::StartJob { name, .. }] = &p.acts[..] else { panic!("{:?}", p.acts) };
    assert!(name.starts_with("smoke-bbbb-m7-"), "{name}");
}

#[test]
fn an_installation_of_the_lost_time_is_left_to_its_end() {
    let mut p = restored(Stage::Provision, |_, _| {});
    let run = p.row().run_name("bbbb");
    assert!(run.starts_with("aaaa-m7-"), "named under the incarnation it began under: {run}");
    let silent = Fault::no_answer(Channel::Host, "refused");
    p.world.host = Read::Failed(silent);
    p.world.boot = Read::Seen(WindowFacts {
        open: true,
        run: Some(run.clone()),
        script_fetched: true,
        seed_fetched: true,
        ..WindowFacts::default()
    });
    p.unhold();
    p.run(20, |_| false);
    assert_eq!(p.acted(), Vec::<&str>::new(), "power stays on");
    p.world.boot = Read::Seen(WindowFacts {
        open: false,
        run: Some(run.clone()),
        script_fetched: true,
        seed_fetched: true,
        callback: Some(Callback {
            ok: true,
            message: None,
            code: None,
            host_key: Some("ssh-ed25519 B".into()),
        }),
        ..WindowFacts::default()
    });
    p.world.host = Read::Seen(HostFacts {
        image: Some("ubuntu".into()),
        image_run: Some(run.clone()),
        ..HostFacts::default()
    });
    p.run(20, |p| p.ended("provision"));
    assert!(p.ended("provision"), "{:#?}", p.entries);
    assert_eq!(p.row().deployed.as_ref().map(|d| &*d.run), Some(&*run));
    let before = p.entries.iter().position(|e| matches!(e, Entry::StepEnded { .. })).unwrap();
    assert!(!p.entries[..before].iter().any(|e| matches!(e, Entry::Intent { .. })));
}

#[test]
fn a_host_that_was_deployed_since_is_neither_written_nor_wiped() {
    for stage in [Stage::Provision, Stage::Retire] {
        let mut p = restored(stage, |_, _| {});
        p.world.host = Read::Seen(HostFacts {
            image: Some("ubuntu".into()),
            image_run: Some("aaaa-m7-77".into()),
            ..HostFacts::default()
        });
        p.unhold();
        p.run(30, |p| p.quarantine().is_some());
        assert_eq!(p.quarantine(), Some("restored-in-doubt"), "{:#?}", p.entries);
        assert_eq!(p.acted(), Vec::<&str>::new());
        assert!(p.row().last_fault.as_ref().unwrap().fault.to_string().contains("aaaa-m7-77"));
    }
}

#[test]
fn a_host_with_another_key_is_not_written_on_a_guess() {
    let mut p = restored(Stage::Provision, |_, _| {});
    let other = Fault::new(FaultClass::Identity, Channel::Host, "host-key-changed", "another key");
    p.world.host = Read::Failed(other);
    p.unhold();
    p.run(30, |p| p.quarantine().is_some());
    assert_eq!(p.quarantine(), Some("restored-in-doubt"), "{:#?}", p.entries);
    assert_eq!(p.acted(), Vec::<&str>::new());
}
