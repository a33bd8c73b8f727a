//! The director event by event: order, holds, full disks, second writers, the circuit breaker.

use farrier::decide::Rules;
use farrier::engine::director::Settings;
use farrier::engine::{Command, Director, Event};
use farrier::model::facts::*;
use farrier::model::*;
use farrier::port::store::*;
use farrier::steps::Step;
use farrier::steps::site::{Profile, Site};
use farrier::steps::workflow::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const UUID: &str = "11111111-2222-3333-4444-555555555501";

fn step(stage: Stage, key: &str, step: Step) -> StepSpec {
    StepSpec {
        key: key.into(),
        stage,
        step,
        timeout: time::Span(3_600_000),
        stall: time::Span(900_000),
        usual: time::Span(0),
        retry: Retry::default(),
        unsupported: Unsupported::Quarantine,
        when: When::default(),
    }
}

fn site() -> Site {
    use farrier::steps::{identify, power};
    let workflow = Workflow {
        name: "w".into(),
        watch: time::Span(300_000),
        sla: Default::default(),
        steps: vec![
            step(Stage::Discover, "identify", Step::Identify(identify::Params {})),
            step(Stage::Firmware, "off", Step::Power(power::Params { state: power::Wanted::Off })),
            step(Stage::Provision, "on", Step::Power(power::Params { state: power::Wanted::On })),
        ],
    };
    let hash = workflow.hash();
    let profile = Profile { name: "p".into(), workflow: hash.clone(), ..Profile::default() };
    Site {
        incarnation: "abcd1234".into(),
        profiles: BTreeMap::from([("p".into(), Arc::new(profile))]),
        workflows: BTreeMap::from([(hash, Arc::new(workflow))]),
        breaker_quarantines: 2,
        breaker_window_ms: 3_600_000,
        ..Site::default()
    }
}

fn expected(n: u32) -> Arc<Expected> {
    Arc::new(Expected {
        name: format!("n{n}").into(),
        identity: Identity::new(None, Some(&format!("{}{n:02}", &UUID[..34])), None).into(),
        rack: "r1".into(),
        position: 1,
        pool: "pool".into(),
        profile: "p".into(),
        domains: [].into(),
        labels: Default::default(),
        bmc: BmcEndpoint::default(),
        host: HostEndpoint::default(),
    })
}

/// A director, a store that says yes, and a world of one power switch per machine.
struct Bench {
    d: Director,
    now: EngineTime,
    out: Vec<Command>,
    power: BTreeMap<u32, Power>,
    uuid: BTreeMap<u32, u32>,
    acts: Vec<(u32, Action)>,
    acks: Vec<(u64, Result<u64, Fault>)>,
    journal: Vec<(u32, Entry)>,
    halted: Option<String>,
}

impl Bench {
    fn new(machines: u32) -> Self {
        let loaded = Loaded::default();
        let d = Director::new(Rules, Settings::default(), loaded, Arc::new(site()), EngineTime(1));
        let mut b = Bench {
            d,
            now: EngineTime(1),
            out: vec![],
            power: BTreeMap::new(),
            uuid: BTreeMap::new(),
            acts: vec![],
            acks: vec![],
            journal: vec![],
            halted: None,
        };
        let all = (1..=machines).map(|n| (MachineId(n), expected(n))).collect();
        for n in 1..=machines {
            b.power.insert(n, Power::On);
            b.uuid.insert(n, n);
        }
        b.event(Event::Expect { machines: all });
        b
    }

    fn event(&mut self, e: Event) {
        self.d.on(self.now, e, &mut self.out);
    }

    fn change(&mut self, n: u32, change: Change, ticket: u64) {
        let key = format!("k{ticket}");
        self.event(Event::Change { machine: MachineId(n), change, by: "test".into(), key, ticket });
    }

    fn enroll(&mut self, n: u32, ticket: u64) {
        self.change(
            n,
            Change::Enroll { allow_existing_data: false, desired: Desired::Ready },
            ticket,
        );
    }

    /// Answers one command; returns false when there is none.
    fn answer(&mut self) -> bool {
        if self.out.is_empty() {
            return false;
        }
        match self.out.remove(0) {
            Command::Commit(item) => self.durable(&item),
            Command::CommitStop { .. } => self.event(Event::StopCommitted { result: Ok(()) }),
            Command::Probe { machine, token, .. } => {
                let n = machine.0;
                let uuid = format!("{}{:02}", &UUID[..34], self.uuid[&n]);
                let system = SystemFacts {
                    identity: Identity::new(None, Some(&uuid), None),
                    power: self.power[&n],
                    ..SystemFacts::default()
                };
                let report = Box::new(Report {
                    at: self.now,
                    system: Read::Seen(system),
                    tasks: Read::Seen(vec![]),
                    ..Report::default()
                });
                self.event(Event::Probed { machine, token, report });
            }
            Command::Act { machine, seq, action, .. } => {
                self.acts.push((machine.0, action.clone()));
                if let Action::Power { op } = action {
                    let power = if op == PowerOp::On { Power::On } else { Power::Off };
                    self.power.insert(machine.0, power);
                }
                let outcome = Outcome::Applied { handle: None };
                self.event(Event::Acted { machine, seq, outcome });
            }
            Command::Ack { ticket, result } => self.acks.push((ticket, result)),
            Command::Halt { why } => self.halted = Some(why),
        }
        true
    }

    fn durable(&mut self, item: &CommitItem) {
        self.journal.extend(item.entries.iter().map(|e| (item.machine.0, e.clone())));
        self.event(Event::Committed { machine: item.machine, result: Ok(Committed::Durable) });
    }

    /// Runs for `ms`.
    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        for _ in 0..100_000 {
            while self.answer() {}
            let next = self.d.next_due();
            if next > end || self.halted.is_some() {
                break;
            }
            self.now = next.max(self.now);
            self.event(Event::Tick);
        }
        self.now = end;
    }

    fn stage(&self, n: u32) -> Stage {
        self.d.machine(MachineId(n)).unwrap().stage
    }
}

#[test]
fn an_unmanaged_machine_is_only_read() {
    let mut b = Bench::new(1);
    b.run(86_400_000);
    assert!(b.acts.is_empty());
    assert_eq!(b.stage(1), Stage::Discover);
    assert!(!b.d.machine(MachineId(1)).unwrap().identity.is_unknown());
}

#[test]
fn an_enrolled_machine_goes_its_way_and_the_journal_folds_to_its_row() {
    let mut b = Bench::new(1);
    b.enroll(1, 7);
    b.run(3_600_000);
    assert_eq!(b.acks, [(7, Ok(2))]);
    assert_eq!(b.stage(1), Stage::Ready);
    let ops: Vec<String> = b.acts.iter().map(|(_, a)| a.about()).collect();
    assert_eq!(ops, ["graceful-shutdown", "on"]);
}

#[test]
fn a_hold_that_arrives_during_the_intents_commit_comes_first() {
    let mut b = Bench::new(1);
    b.enroll(1, 1);
    // Run until the intent to power off is being committed.
    loop {
        let intent = b.out.iter().position(|c| {
            matches!(c, Command::Commit(i) if matches!(i.entries.last(), Some(Entry::Intent { .. })))
        });
        if let Some(at) = intent {
            let Command::Commit(item) = b.out.remove(at) else { unreachable!() };
            b.change(1, Change::Hold { why: "cabling".into() }, 2);
            b.durable(&item);
            break;
        }
        if !b.answer() {
            b.now = b.d.next_due();
            b.event(Event::Tick);
        }
    }
    b.run(3_600_000);
    assert!(b.acts.is_empty(), "acted after a hold that was acknowledged: {:?}", b.acts);
    assert_eq!(b.acks.last(), Some(&(2, Ok(b.d.machine(MachineId(1)).unwrap().seq))));
    b.change(1, Change::Unhold { why: "done".into() }, 3);
    b.run(3_600_000);
    assert_eq!(b.stage(1), Stage::Ready);
}

#[test]
fn an_action_is_not_started_while_the_disk_is_full_and_nothing_is_lost() {
    let mut b = Bench::new(2);
    b.enroll(1, 1);
    // The next commits fail.
    let mut failed = 0;
    for _ in 0..200 {
        if let Some(at) = b.out.iter().position(|c| matches!(c, Command::Commit(_))) {
            let Command::Commit(item) = b.out.remove(at) else { unreachable!() };
            failed += 1;
            let result = Err(StoreError::Full("no space".into()));
            b.event(Event::Committed { machine: item.machine, result });
        } else if !b.answer() {
            b.now = b.d.next_due().max(b.now);
            b.event(Event::Tick);
        }
        assert!(b.acts.is_empty());
    }
    assert!(failed > 10);
    b.run(3_600_000);
    assert_eq!(b.stage(1), Stage::Ready, "it goes on by itself once the disk has room");
}

#[test]
fn a_second_writer_ends_this_process() {
    let mut b = Bench::new(1);
    let Some(Command::Commit(item)) = b.out.pop() else { panic!("no commit") };
    let result = Ok(Committed::Conflict { stored_seq: 9 });
    b.event(Event::Committed { machine: item.machine, result });
    b.run(1);
    assert!(b.halted.unwrap().contains("another process"));
}

#[test]
fn a_wrong_machine_is_quarantined_and_two_of_them_stop_everything() {
    let mut b = Bench::new(3);
    for n in 1..=3 {
        b.enroll(n, u64::from(n));
    }
    b.uuid.insert(1, 41);
    b.uuid.insert(2, 42);
    b.run(600_000);
    assert!(b.d.machine(MachineId(1)).unwrap().is_quarantined());
    assert!(b.d.stopped().is_some_and(|s| s.by == "circuit-breaker"), "{:?}", b.d.stopped());
    let acts = b.acts.len();
    b.run(3_600_000);
    assert_eq!(b.acts.len(), acts, "stopped means no actions");
    b.event(Event::Stop { why: None, by: "ops".into(), ticket: 9 });
    b.run(3_600_000);
    assert_eq!(b.stage(3), Stage::Ready);
    // Release by a person: it is looked at again, and it still is the wrong machine.
    b.change(1, Change::Release { why: "looked".into() }, 10);
    b.run(600_000);
    assert!(b.d.machine(MachineId(1)).unwrap().is_quarantined());
    b.uuid.insert(1, 1);
    b.change(1, Change::Release { why: "cable fixed".into() }, 11);
    b.run(3_600_000);
    assert_eq!(b.stage(1), Stage::Ready);
}

#[test]
fn a_restart_with_an_open_intent_finds_out_before_it_acts_again() {
    let mut b = Bench::new(1);
    b.enroll(1, 1);
    // Until the power-off intent is durable; the act itself happens, its answer is lost.
    let row = loop {
        if let Some(Command::Act { .. }) = b.out.first() {
            b.power.insert(1, Power::Off);
            break b.d.machine(MachineId(1)).unwrap().clone();
        }
        if !b.answer() {
            b.now = b.d.next_due();
            b.event(Event::Tick);
        }
    };
    let loaded = Loaded {
        machines: vec![row],
        expected: BTreeMap::from([(MachineId(1), expected(1))]),
        ..Loaded::default()
    };
    b.d = Director::new(Rules, Settings::default(), loaded, Arc::new(site()), b.now);
    b.out.clear();
    b.run(3_600_000);
    assert_eq!(b.stage(1), Stage::Ready);
    let ops: Vec<String> = b.acts.iter().map(|(_, a)| a.about()).collect();
    assert_eq!(ops, ["on"], "the shutdown was not said twice");
}
