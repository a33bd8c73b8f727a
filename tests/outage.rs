//! Machines that fall silent together: the domain is out, not they. No attempt is charged, nobody is
//! quarantined, and it heals itself.

use farrier::decide::Rules;
use farrier::engine::director::Settings;
use farrier::engine::{Command, Director, Event};
use farrier::model::action::JobScript;
use farrier::model::facts::*;
use farrier::model::time::Span;
use farrier::model::*;
use farrier::port::store::*;
use farrier::steps::site::{Profile, Site};
use farrier::steps::workflow::*;
use farrier::steps::{Step, burn_in, identify};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// How long the burn-in job of these machines takes.
const JOB: u64 = 40 * MINUTE;
/// Machines of a rack.
const RACK: u32 = 10;

fn step(stage: Stage, key: &str, step: Step) -> StepSpec {
    StepSpec {
        key: key.into(),
        stage,
        step,
        timeout: Span(90 * MINUTE),
        stall: Span(15 * MINUTE),
        usual: Span(0),
        retry: Retry { attempts: 2, ..Retry::default() },
        unsupported: Unsupported::Quarantine,
        when: When::default(),
    }
}

fn site() -> Site {
    let burn_in = burn_in::Params {
        preset: JobScript::Smoke,
        timeout: Span(2 * HOUR),
        ..burn_in::Params::default()
    };
    let workflow = Workflow {
        watch: Span(5 * MINUTE),
        sla: BTreeMap::new(),
        steps: vec![
            step(Stage::Discover, "identify", Step::Identify(identify::Params {})),
            step(Stage::BurnIn, "burn-in", Step::BurnIn(burn_in)),
        ],
        name: "w".into(),
    };
    let hash = workflow.hash();
    let profile = Profile { name: "p".into(), workflow: hash.clone(), ..Profile::default() };
    Site {
        incarnation: "abcd1234".into(),
        profiles: BTreeMap::from([("p".into(), Arc::new(profile))]),
        workflows: BTreeMap::from([(hash, Arc::new(workflow))]),
        breaker_quarantines: 1,
        breaker_window_ms: HOUR,
        ..Site::default()
    }
}

fn uuid(n: u32) -> String {
    format!("11111111-2222-3333-4444-5555555555{n:02}")
}

fn rack(n: u32) -> u32 {
    (n - 1) / RACK + 1
}

fn expected(n: u32) -> Arc<Expected> {
    let rack: Arc<str> = format!("r{}", rack(n)).into();
    Arc::new(Expected {
        name: format!("n{n}").into(),
        identity: Identity::new(None, Some(&uuid(n)), None).into(),
        rack: rack.clone(),
        position: 1,
        pool: "pool".into(),
        profile: "p".into(),
        domains: [
            Domain { kind: DomainKind::Site, name: "hall".into() },
            Domain { kind: DomainKind::Rack, name: rack },
            Domain { kind: DomainKind::Pool, name: "pool".into() },
        ]
        .into(),
        labels: Default::default(),
        bmc: BmcEndpoint::default(),
        host: HostEndpoint::default(),
    })
}

#[derive(Clone, Debug)]
struct Rig {
    power: Power,
    /// Its BMC's and its host's network.
    bmc: bool,
    ssh: bool,
    /// Name and start of the job that runs since the last boot.
    job: Option<(String, EngineTime)>,
    /// Jobs that a power cut killed.
    lost: BTreeSet<String>,
}

/// A director and racks of machines that do one job each.
struct Hall {
    d: Director,
    now: EngineTime,
    out: Vec<Command>,
    boxes: BTreeMap<u32, Rig>,
    journal: Vec<(EngineTime, u32, Entry)>,
    rows: BTreeMap<u32, Machine>,
    looks: Vec<(EngineTime, u32)>,
    starts: u32,
}

impl Hall {
    fn new(machines: u32) -> Self {
        let loaded = Loaded::default();
        let d = Director::new(Rules, Settings::default(), loaded, Arc::new(site()), EngineTime(1));
        let empty =
            Rig { power: Power::On, bmc: true, ssh: true, job: None, lost: BTreeSet::new() };
        let mut hall = Hall {
            d,
            now: EngineTime(1),
            out: vec![],
            boxes: (1..=machines).map(|n| (n, empty.clone())).collect(),
            journal: vec![],
            rows: BTreeMap::new(),
            looks: vec![],
            starts: 0,
        };
        let all = (1..=machines).map(|n| (MachineId(n), expected(n))).collect();
        hall.event(Event::Expect { machines: all });
        hall
    }

    fn event(&mut self, e: Event) {
        self.d.on(self.now, e, &mut self.out);
    }

    fn enroll(&mut self, n: u32) {
        let change = Change::Enroll { allow_existing_data: false, desired: Desired::Ready };
        let key = format!("enroll-{n}");
        let machine = MachineId(n);
        self.event(Event::Change { machine, change, by: "test".into(), key, ticket: 1 });
    }

    fn of_rack(&self, r: u32) -> Vec<u32> {
        self.boxes.keys().copied().filter(|n| rack(*n) == r).collect()
    }

    fn silence(&mut self, machines: &[u32], silent: bool) {
        for n in machines {
            self.boxes.get_mut(n).unwrap().bmc = !silent;
        }
    }

    /// The rack is dark: BMCs, hosts and what ran on them.
    fn cut_power(&mut self, machines: &[u32]) {
        self.silence(machines, true);
        for n in machines {
            let b = self.boxes.get_mut(n).unwrap();
            b.power = Power::Off;
            b.lost.extend(b.job.take().map(|j| j.0));
        }
    }

    fn report(&self, n: u32, set: ProbeSet, job: Option<&str>) -> Report {
        let b = &self.boxes[&n];
        let mut report = Report { at: self.now, ..Report::default() };
        if !b.bmc {
            report.system = Read::Failed(Fault::no_answer(Channel::Bmc, "no route"));
        } else {
            report.system = Read::Seen(SystemFacts {
                identity: Identity::new(None, Some(&uuid(n)), None),
                power: b.power,
                ..SystemFacts::default()
            });
        }
        if set.has(ProbeSet::TASKS) && b.bmc {
            report.tasks = Read::Seen(vec![]);
        }
        let ssh = b.ssh && b.power == Power::On;
        let silent = || Fault::no_answer(Channel::Host, "connect timed out");
        if set.has(ProbeSet::HOST) {
            report.host = match ssh {
                false => Read::Failed(silent()),
                true => Read::Seen(HostFacts::default()),
            };
        }
        if set.has(ProbeSet::JOB)
            && let Some(name) = job
        {
            let state = match &b.job {
                _ if b.lost.contains(name) => JobState::Lost { why: "the host rebooted".into() },
                Some((own, since)) if own == name => match self.now.since(*since) {
                    age if age >= JOB => JobState::Finished {
                        exit: 0,
                        result: Some(serde_json::json!({"ok": true, "gpus": 0})),
                    },
                    age => JobState::Running { progress: age / 1000 },
                },
                _ => JobState::Absent,
            };
            report.job = match ssh {
                false => Read::Failed(silent()),
                true => Read::Seen(JobFacts { name: name.into(), state, ..JobFacts::default() }),
            };
        }
        report
    }

    fn answer(&mut self) -> bool {
        if self.out.is_empty() {
            return false;
        }
        match self.out.remove(0) {
            Command::Commit(item) => {
                let n = item.machine.0;
                self.journal.extend(item.entries.iter().map(|e| (self.now, n, e.clone())));
                self.rows.insert(n, item.row.clone());
                let result = Ok(Committed::Durable);
                self.event(Event::Committed { machine: item.machine, result });
            }
            Command::CommitStop { .. } => self.event(Event::StopCommitted { result: Ok(()) }),
            Command::Probe { machine, token, set, job, .. } => {
                self.looks.push((self.now, machine.0));
                let report = Box::new(self.report(machine.0, set, job.as_deref()));
                self.event(Event::Probed { machine, token, report });
            }
            Command::Act { machine, seq, action, .. } => {
                let now = self.now;
                let b = self.boxes.get_mut(&machine.0).unwrap();
                let reachable = match &action {
                    Action::Power { op } if b.bmc => {
                        b.power = if *op == PowerOp::On { Power::On } else { Power::Off };
                        true
                    }
                    Action::StartJob { name, .. } if b.ssh && b.power == Power::On => {
                        self.starts += 1;
                        b.job = Some((name.clone(), now));
                        true
                    }
                    _ => false,
                };
                let outcome = match reachable {
                    true => Outcome::Applied { handle: None },
                    false => Outcome::Failed { fault: Fault::no_answer(Channel::Host, "gone") },
                };
                self.event(Event::Acted { machine, seq, outcome });
            }
            Command::Ack { result, .. } => assert!(result.is_ok(), "{result:?}"),
            Command::Halt { why } => panic!("{why}"),
        }
        true
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        for _ in 0..1_000_000 {
            while self.answer() {}
            let next = self.d.next_due();
            if next > end {
                break;
            }
            self.now = next.max(self.now);
            self.event(Event::Tick);
        }
        self.now = end;
    }

    /// The daemon dies and starts again with what was durable.
    fn restart(&mut self) {
        let loaded = Loaded {
            machines: self.rows.values().cloned().collect(),
            expected: self.rows.keys().map(|n| (MachineId(*n), expected(*n))).collect(),
            ..Loaded::default()
        };
        self.d = Director::new(Rules, Settings::default(), loaded, Arc::new(site()), self.now);
        self.out.clear();
    }

    fn row(&self, n: u32) -> &Machine {
        self.d.machine(MachineId(n)).unwrap()
    }

    fn explain(&self, n: u32) -> String {
        self.d.explain(MachineId(n), self.now, None).unwrap().summary
    }

    fn outages(&self) -> Vec<String> {
        let lasting = self.d.outages().filter(|o| !o.is_over());
        lasting.map(|o| format!("{} {:?} {}/{}", o.domain(), o.channel, o.out, o.of)).collect()
    }

    /// Nothing was held against anybody.
    fn assert_innocent(&self) {
        for (at, n, e) in &self.journal {
            let against =
                matches!(e, Entry::Quarantined { .. } | Entry::Faulted { charged: true, .. });
            assert!(!against, "{at:?} n{n}: {e:?}");
        }
        assert!(self.d.stopped().is_none(), "{:?}", self.d.stopped());
    }

    fn assert_arrived(&self) {
        for m in self.d.machines() {
            let step = m.step.as_ref().map(|s| s.key.clone());
            assert_eq!(
                (m.stage, &m.condition),
                (Stage::Ready, &Condition::Ok),
                "{} {step:?}",
                m.name
            );
        }
    }
}

/// Every machine enrolled and in the middle of its job.
fn at_work(machines: u32) -> Hall {
    let mut hall = Hall::new(machines);
    for n in 1..=machines {
        hall.enroll(n);
    }
    hall.run(10 * MINUTE);
    assert!(hall.d.machines().all(|m| m.open.is_some()), "every machine does its job");
    hall
}

#[test]
fn a_dead_switch_is_no_machines_fault_and_heals_itself() {
    let mut hall = at_work(20);
    let rack = hall.of_rack(1);
    hall.silence(&rack, true);
    hall.run(5 * MINUTE);
    assert_eq!(hall.outages(), ["rack r1 Bmc 10/10"]);
    assert!(hall.row(1).is_unreachable());
    assert!(
        hall.explain(1).contains(
            "rack r1: 10 of 10 machines stopped answering within 2 min: the switch or the power \
             of r1, not this machine"
        ),
        "{}",
        hall.explain(1)
    );
    assert!(hall.outages().iter().all(|o| !o.contains("r2")));
    // Longer than the step's timeout and its stall.
    hall.run(4 * HOUR);
    hall.silence(&rack, false);
    hall.looks.clear();
    let healed = hall.now;
    hall.run(10 * MINUTE);
    assert_eq!(hall.outages(), [""; 0]);
    let first: BTreeMap<u32, EngineTime> =
        hall.looks.iter().rev().filter(|(_, n)| *n <= 10).map(|(at, n)| (*n, *at)).collect();
    let soon = first.values().filter(|at| at.since(healed) < 7 * MINUTE).count();
    let times: BTreeSet<EngineTime> = first.values().copied().collect();
    assert_eq!(soon, 10, "all are looked at soon");
    assert!(times.len() >= 8, "not all at once: {times:?}");
    hall.run(2 * HOUR);
    hall.assert_innocent();
    hall.assert_arrived();
    assert_eq!(hall.starts, 20, "the jobs ran on meanwhile: none was started twice");
}

#[test]
fn after_a_power_loss_the_cut_work_is_done_anew_and_not_charged() {
    let mut hall = at_work(20);
    let rack = hall.of_rack(1);
    hall.cut_power(&rack);
    hall.run(30 * MINUTE);
    assert_eq!(hall.outages(), ["rack r1 Bmc 10/10"]);
    // Power is back: the BMCs answer, the hosts stay off.
    hall.silence(&rack, false);
    hall.run(4 * HOUR);
    hall.assert_innocent();
    hall.assert_arrived();
    assert_eq!(hall.starts, 30, "ten jobs were cut and started again");
    let excused = hall.journal.iter().filter(|(_, _, e)| matches!(e, Entry::Excused { .. }));
    let excused: Vec<_> = excused.map(|(_, n, _)| *n).collect();
    assert_eq!(excused.len(), 10, "{excused:?}");
}

#[test]
fn a_restart_in_the_middle_of_it_forgets_nothing() {
    let mut hall = at_work(10);
    let all = hall.of_rack(1);
    hall.cut_power(&all);
    hall.run(30 * MINUTE);
    hall.restart();
    assert_eq!(hall.outages().len(), 2, "the rack and the hall: {:?}", hall.outages());
    hall.silence(&all, false);
    // Until all have come back; then the daemon dies before it sees the lost jobs.
    while hall.d.machines().any(Machine::is_unreachable) {
        hall.run(1_000);
    }
    hall.restart();
    hall.run(4 * HOUR);
    hall.assert_innocent();
    hall.assert_arrived();
}

#[test]
fn two_dead_bmcs_are_two_dead_bmcs() {
    let mut hall = at_work(20);
    hall.silence(&[1, 2], true);
    hall.run(HOUR);
    assert_eq!(hall.outages(), [""; 0]);
    assert!(hall.explain(1).contains("n1's BMC has not answered"), "{}", hall.explain(1));
    // Others follow over the day: no two of them together.
    for n in 3..=8 {
        hall.silence(&[n], true);
        hall.run(HOUR);
    }
    assert_eq!(hall.outages(), [""; 0]);
    assert!(hall.row(8).is_unreachable());
    hall.silence(&[1, 2, 3, 4, 5, 6, 7, 8], false);
    hall.run(2 * HOUR);
    hall.assert_innocent();
    hall.assert_arrived();
}

#[test]
fn the_neighbours_are_asked_so_that_resting_racks_are_judged_at_once() {
    let mut hall = Hall::new(20);
    hall.run(HOUR);
    let rack = hall.of_rack(2);
    hall.silence(&rack, true);
    // Within one round of health probes two are found silent; the others are then asked.
    hall.run(3 * MINUTE);
    assert_eq!(hall.outages(), ["rack r2 Bmc 10/10"]);
    hall.silence(&rack, false);
    hall.run(15 * MINUTE);
    assert_eq!(hall.outages(), [""; 0]);
    assert!(hall.d.machines().all(|m| m.condition == Condition::Ok));
    hall.run(HOUR);
    assert_eq!(hall.d.outages().count(), 0, "what is over is forgotten after its grace");
}

#[test]
fn most_of_the_site_at_once_is_the_daemons_own_network() {
    let mut hall = at_work(40);
    let most: Vec<u32> = (1..=36).collect();
    hall.silence(&most, true);
    hall.run(3 * HOUR);
    assert!(
        hall.explain(5).contains(
            "36 of 40 machines stopped answering within 2 min: the network of this daemon"
        ) || hall.explain(5).contains("rack r1: 10 of 10"),
        "{}",
        hall.explain(5)
    );
    assert!(hall.outages().contains(&"site hall Bmc 36/40".to_string()), "{:?}", hall.outages());
    hall.silence(&most, false);
    hall.run(3 * HOUR);
    hall.assert_innocent();
    hall.assert_arrived();
}

#[test]
fn a_dead_leaf_switch_stops_the_clocks_of_the_hosts_behind_it() {
    let mut hall = at_work(20);
    for n in hall.of_rack(2) {
        hall.boxes.get_mut(&n).unwrap().ssh = false;
    }
    hall.run(4 * HOUR);
    assert_eq!(hall.outages(), ["rack r2 Host 10/10"]);
    assert!(hall.row(15).is_unreachable());
    assert!(hall.explain(15).contains("stopped answering SSH"), "{}", hall.explain(15));
    for n in hall.of_rack(2) {
        hall.boxes.get_mut(&n).unwrap().ssh = true;
    }
    hall.run(2 * HOUR);
    hall.assert_innocent();
    hall.assert_arrived();
    assert_eq!(hall.starts, 20);
}

#[test]
fn a_machine_alone_with_a_lost_job_pays_for_it() {
    let mut hall = at_work(20);
    hall.cut_power(&[4]);
    hall.run(10 * MINUTE);
    hall.silence(&[4], false);
    hall.run(4 * HOUR);
    let charged =
        hall.journal.iter().filter(|(_, _, e)| matches!(e, Entry::Faulted { charged: true, .. }));
    assert_eq!(charged.count(), 1);
    hall.assert_arrived();
}
