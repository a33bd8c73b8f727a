//! The BIOS step itself over the wire of every vendor that ships: probe, decide, act, and what truly
//! happened to the board.

use super::site::{Site, edge, identity, order, shipped, until};
use async_trait::async_trait;
use farrier::bmc::RedfishBmc;
use farrier::decide::{Decide, Input, Room, Rules, Verdict, probes};
use farrier::engine::perform::{Context, perform, read};
use farrier::model::action::{HookVerb, JobScript};
use farrier::model::facts::{HostFacts, JobFacts, Membership, Power, WindowFacts};
use farrier::model::time::Span;
use farrier::model::*;
use farrier::port::capability::BmcBios;
use farrier::port::{
    Advertise, BmcRead, Boot, Cluster, HostTarget, Node, Ports, Shell, WindowOrder,
};
use farrier::sim::physics::Attribute;
use farrier::sim::serve::Profile as Vendor;
use farrier::sim::truth::What;
use farrier::sim::workflows;
use farrier::steps::site::{Profile, Site as Data};
use farrier::steps::workflow::*;
use farrier::steps::{Step, bios};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// World seconds in a real one.
const SCALE: u32 = 120;

struct Free;

impl Room for Free {
    fn full(&self, _: MachineId, _: LimitClass) -> Option<String> {
        None
    }
}

/// Everything but the BMC: not asked in this step.
struct Nothing;

fn nobody(channel: Channel) -> Fault {
    Fault::no_answer(channel, "nobody is there")
}

#[async_trait]
impl Shell for Nothing {
    async fn facts(&self, _: &HostTarget) -> Result<HostFacts, Fault> {
        Err(nobody(Channel::Host))
    }

    async fn job(&self, _: &HostTarget, _: &str) -> Result<JobFacts, Fault> {
        Err(nobody(Channel::Host))
    }

    async fn start_job(
        &self,
        _: &HostTarget,
        _: &Expect,
        _: JobScript,
        _: &str,
        _: u64,
    ) -> Outcome {
        unreachable!("no job in this step")
    }
}

#[async_trait]
impl Cluster for Nothing {
    async fn membership(&self, _: &Node) -> Result<Membership, Fault> {
        Err(nobody(Channel::Cluster))
    }

    async fn act(&self, _: &Node, _: &Expect, _: HookVerb) -> Outcome {
        unreachable!("no cluster in this step")
    }
}

#[async_trait]
impl Boot for Nothing {
    async fn window(&self, _: MachineId, _: &str) -> Result<WindowFacts, Fault> {
        Ok(WindowFacts::default())
    }

    async fn open(&self, _: &WindowOrder) -> Outcome {
        unreachable!("no boot window in this step")
    }

    async fn close(&self, _: &str) -> Outcome {
        unreachable!("no boot window in this step")
    }
}

impl Advertise for Nothing {
    fn images(&self, _: &Expected) -> Option<String> {
        None
    }

    fn boot(&self, _: &Expected) -> Option<String> {
        None
    }
}

/// One machine in its BIOS step.
struct One<'a> {
    site: &'a Site,
    vendor: String,
    m: Machine,
    context: Context,
    workflow: Workflow,
    data: Data,
    /// What was done and how it ended, for the asserts.
    said: Vec<String>,
    /// The settings were seen waiting for a POST.
    was_pending: bool,
}

impl<'a> One<'a> {
    fn new(site: &'a Site, edge: &Arc<RedfishBmc>, n: usize) -> Self {
        let spec = StepSpec {
            key: "bios".into(),
            stage: Stage::Firmware,
            step: Step::Bios(bios::Params::default()),
            timeout: Span(10_800_000),
            stall: Span(900_000),
            usual: Span(0),
            retry: Retry::default(),
            unsupported: Unsupported::Quarantine,
            when: When::default(),
        };
        let mut expected = workflows::expected(MachineId(0), identity(n), None);
        let target = site.target(n);
        expected.name = target.name.clone();
        expected.bmc = target.endpoint.clone();
        let mut m = Machine::blank(target.machine);
        m.name = target.name;
        m.control = Control::Enrolled;
        m.desired = Some(Desired::Ready);
        m.stage = Stage::Firmware;
        m.identity = Identity { mac: None, ..identity(n) }.into();
        let context = Context {
            ports: Ports {
                bmc: edge.clone(),
                shell: Arc::new(Nothing),
                cluster: Arc::new(Nothing),
                boot: Arc::new(Nothing),
                advertise: Arc::new(Nothing),
            },
            machine: m.id,
            identity: (*m.identity).clone(),
            host_key: None,
            ramdisk: None,
            expected: Arc::new(expected),
            profile: Arc::new(Profile { bios: workflows::bios(), ..Profile::default() }),
            answers: true,
        };
        let workflow = Workflow {
            name: "w".into(),
            watch: Span(300_000),
            sla: BTreeMap::new(),
            steps: vec![spec],
        };
        let mut one = One {
            vendor: site.seat(n).profile.name.clone(),
            site,
            m,
            context,
            workflow,
            data: Data::default(),
            said: vec![],
            was_pending: false,
        };
        one.begin();
        one
    }

    fn begin(&mut self) {
        let now = self.site.now();
        self.m.run = None;
        self.apply(Entry::RunBegan { workflow: "h".into(), reason: "t".into() }, now);
        self.apply(Entry::StepBegan { index: 0, key: "bios".into() }, now);
        self.said.clear();
    }

    fn apply(&mut self, e: Entry, now: EngineTime) {
        match &e {
            Entry::Intent { action, .. } => self.said.push(action.kind().to_string()),
            Entry::Quarantined { fault } => {
                panic!("{}: {fault}, {:?}", self.vendor, fault.evidence)
            }
            _ => {}
        }
        let folded = fold::apply(&mut self.m, &e, now);
        folded.unwrap_or_else(|e| panic!("{}: {e}", self.vendor));
    }

    fn input<T>(&self, report: &Report, now: EngineTime, f: impl FnOnce(&Input<'_>) -> T) -> T {
        f(&Input {
            m: &self.m,
            expected: &self.context.expected,
            profile: &self.context.profile,
            site: &self.data,
            workflow: &self.workflow,
            report,
            now,
            room: &Free,
            stopped: false,
            resumed: EngineTime::ZERO,
            outage: None,
        })
    }

    /// As the engine does it, until the step has ended: its evidence.
    async fn ends(&mut self) -> String {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            assert!(
                Instant::now() < deadline,
                "{}: no end: {:?}, waiting for {:?}, fault {:?}",
                self.vendor,
                self.said,
                self.m.waiting,
                self.m.last_fault,
            );
            let now = self.site.now();
            let set = probes::wanted(&self.m, &self.context.profile, &self.workflow, now);
            let handle = self.m.open.as_ref().and_then(|o| o.handle.clone());
            let report = read(&self.context, set, None, handle.as_deref(), None).await;
            self.was_pending |= report.bios.seen().is_some_and(|b| !b.pending.is_empty());
            let now = self.site.now();
            let verdict = self.input(&report, now, |i| Rules.decide(i));
            let (entries, due) = match verdict {
                Verdict::Rest { due, .. } => (vec![], due),
                Verdict::Write { entries, due } => (entries, due),
                Verdict::Act { entries } => (entries, now),
            };
            let mut ended = None;
            for e in entries {
                if let Entry::StepEnded { end, .. } = &e {
                    ended = Some(format!("{end:?}"));
                }
                if ended.is_none() {
                    self.apply(e, now);
                }
            }
            if let Some(ended) = ended {
                return ended;
            }
            if let Some(open) = self.m.open.clone().filter(|o| o.state == OpenState::Intended) {
                let outcome = perform(&self.context, open.action, &open.expect).await;
                let now = self.site.now();
                for e in self.input(&Report::default(), now, |i| Rules.settle(i, outcome.clone())) {
                    self.apply(e, now);
                }
                continue;
            }
            let wait = due.since(self.site.now()).min(30_000) / u64::from(SCALE);
            tokio::time::sleep(Duration::from_millis(wait.max(20))).await;
        }
    }
}

async fn live(site: &Site, edge: &Arc<RedfishBmc>, n: usize) {
    // Half of them run already.
    let runs = n.is_multiple_of(2);
    let now = site.now();
    if runs {
        site.seat(n).with(now, |b| b.vm.found_running(false, 0));
    }
    let mut one = One::new(site, edge, n);
    let vendor = one.vendor.clone();
    let count = |which: fn(&What) -> bool| site.truth(n, |e| which(&e.what));
    let ended = one.ends().await;
    assert!(ended.contains("SriovGlobalEnable = Enabled, Secure Boot on"), "{vendor}: {ended}");
    let boot = if runs { "power-restart" } else { "power-on" };
    let mut done = one.said.clone();
    // A BMC that was busy is asked again.
    done.dedup();
    assert_eq!(done, ["set-bios", "set-secure-boot", boot], "{vendor}");
    assert!(one.was_pending, "{vendor}: pending, then in force");
    assert_eq!(count(|w| *w == What::BiosSet), 1, "{vendor}");
    assert_eq!(count(|w| *w == What::SecureBootSet), 1, "{vendor}");
    assert_eq!(count(|w| *w == What::SettingsApplied), 1, "{vendor}: by one POST");
    let boots = count(|w| matches!(w, What::PowerOn | What::PowerCut));
    assert_eq!(boots, 1, "{vendor}: one reboot");
    site.seat(n).with(site.now(), |b| {
        for (name, value) in workflows::BIOS {
            let attribute = Attribute::of(name).unwrap();
            assert_eq!(b.vm.board.attribute(attribute), value, "{vendor}");
        }
        assert!(b.vm.board.secure_boot_now && !b.vm.board.has_pending(), "{vendor}");
        assert!(!b.vm.board.has_bios_job(), "{vendor}");
    });
    // The same once more: all is there, nothing is done.
    one.begin();
    assert!(one.ends().await.contains("Done"), "{vendor}");
    assert_eq!(one.said, [""; 0], "{vendor}");
    assert_eq!(edge.system(&site.target(n)).await.unwrap().power, Power::On, "{vendor}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bios_of_every_vendor_is_set_by_one_post_and_read_again() {
    let names = Vendor::names();
    // Each of them off and running.
    let twice: Vec<&str> = names.iter().flat_map(|n| [*n, *n]).collect();
    let site = Site::of(SCALE, shipped(&twice)).await;
    let edge = Arc::new(edge(5_000));
    let lives = (1..=twice.len()).map(|n| live(&site, &edge, n));
    futures_util::future::join_all(lives).await;
    edge.log_out().await;
}

#[tokio::test]
async fn dells_job_waits_for_the_post_and_takes_no_second_change() {
    let site = Site::of(SCALE, shipped(&["dell"])).await;
    let (edge, bmc, expect) = (edge(5_000), site.target(1), Site::expect(1));
    let ask = |name: &str, value: &str| BTreeMap::from([(name.to_string(), value.into())]);
    let first = ask("SriovGlobalEnable", "Enabled");
    let Outcome::Applied { handle: Some(job) } =
        order("the job", || edge.set_bios(&bmc, &expect, &first)).await
    else {
        panic!("no job")
    };
    let tasks = edge.tasks(&bmc, Some(&job)).await.unwrap();
    assert_eq!((tasks.len(), &*tasks[0].raw_state), (1, "Pending"), "{tasks:?}");
    let second = ask("LogicalProc", "Disabled");
    let said = edge.set_bios(&bmc, &expect, &second).await;
    assert!(matches!(said, Outcome::Failed { .. }), "{said:?}");
    assert_eq!(site.truth(1, |e| e.what == What::BiosSet), 1);
}

#[tokio::test]
async fn what_the_registry_calls_read_only_is_not_sent() {
    let site = Site::of(SCALE, shipped(&["clean", "supermicro"])).await;
    let edge = edge(5_000);
    for n in 1..=2 {
        let ask = BTreeMap::from([
            ("SriovGlobalEnable".to_string(), "Enabled".into()),
            ("SystemModelName".to_string(), "mine".into()),
        ]);
        let fault = until("read-only", || async {
            match edge.set_bios(&site.target(n), &Site::expect(n), &ask).await {
                Outcome::Failed { fault } if fault.class == FaultClass::Precondition => Some(fault),
                Outcome::Failed { .. } => None,
                other => panic!("{other:?}"),
            }
        })
        .await;
        assert_eq!(fault.code, "read-only-bios-attribute");
        assert!(fault.message.contains("SystemModelName"), "{}", fault.message);
        assert!(!fault.message.contains("Sriov"), "{}", fault.message);
        assert_eq!(site.truth(n, |e| e.what == What::BiosSet), 0);
    }
}
