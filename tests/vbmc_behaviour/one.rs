//! One virtual machine in one step: probe, decide, act as the engine does, over the wire.

use super::site::{Site, identity};
use async_trait::async_trait;
use farrier::bmc::RedfishBmc;
use farrier::decide::{Decide, Input, Room, Rules, Verdict, probes};
use farrier::engine::perform::{Context, perform, read};
use farrier::model::action::{HookVerb, JobScript};
use farrier::model::facts::{HostFacts, JobFacts, Membership, WindowFacts};
use farrier::model::time::Span;
use farrier::model::*;
use farrier::port::{Advertise, Boot, Cluster, HostTarget, Node, Ports, Shell, WindowOrder};
use farrier::sim::workflows;
use farrier::steps::Step;
use farrier::steps::site::{Profile, Site as Data};
use farrier::steps::workflow::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// World seconds in a real one.
pub(super) const SCALE: u32 = 120;

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

/// One machine in its step.
pub(super) struct One<'a> {
    site: &'a Site,
    pub(super) vendor: String,
    pub(super) m: Machine,
    context: Context,
    workflow: Workflow,
    data: Data,
    /// What was done and how it ended, for the asserts.
    pub(super) said: Vec<String>,
    /// The settings were seen waiting for a POST.
    pub(super) was_pending: bool,
}

impl<'a> One<'a> {
    pub(super) fn new(
        site: &'a Site,
        edge: &Arc<RedfishBmc>,
        n: usize,
        step: Step,
        profile: Profile,
    ) -> Self {
        let spec = StepSpec {
            key: step.kind().into(),
            stage: Stage::Firmware,
            step,
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
            profile: Arc::new(profile),
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

    pub(super) fn begin(&mut self) {
        let now = self.site.now();
        self.m.run = None;
        self.apply(Entry::RunBegan { workflow: "h".into(), reason: "t".into() }, now);
        let key = self.workflow.steps[0].key.clone();
        self.apply(Entry::StepBegan { index: 0, key }, now);
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
    pub(super) async fn ends(&mut self) -> String {
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
