//! What people want of one machine, in order, and the site that it lives in.

use farrier::config::{self, shipped};
use farrier::model::*;
use farrier::sim::durations::Durations;
use farrier::sim::faults::Dice;
use farrier::sim::physics::{Build, Quirks, VirtualMachine};
use farrier::sim::rng::Rng;
use farrier::sim::scenario::identity;
use farrier::sim::workflows;
use farrier::steps::site::{Profile, Site};
use farrier::steps::workflow::Workflow;
use std::sync::Arc;

/// One machine, as the store numbers it.
pub(crate) const ID: MachineId = MachineId(1);

/// A whole life under one of the shipped workflows.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) name: &'static str,
    workflow: &'static str,
    /// The simulated site's profile that says how the image gets onto the disk: by an installer, or from
    /// the deploy ramdisk.
    profile: &'static str,
    gpus: u16,
    /// Delivered running, a busy member of the cluster.
    found_running: bool,
    /// What people say, and where the machine rests then.
    pub(crate) wishes: Vec<(Change, Stage)>,
}

const RAID: &str = "gpu-raid";

fn enroll(desired: Desired) -> Change {
    Change::Enroll { allow_existing_data: false, desired }
}

/// Both ways to install are lived through: GPU nodes from a disk image, the others by an installer.
fn profile(gpus: u16) -> &'static str {
    if gpus > 0 { "gpu-disk" } else { "gpu" }
}

fn desire(desired: Desired) -> Change {
    Change::Desire { desired }
}

impl Life {
    /// From the factory into service, emptied and installed anew, retired, and enrolled again.
    pub(crate) fn enrolled(name: &'static str, workflow: &'static str, gpus: u16) -> Self {
        let profile = profile(gpus);
        let wishes = vec![
            (enroll(Desired::InService), Stage::InService),
            (desire(Desired::Drained), Stage::Drained),
            (desire(Desired::Ready), Stage::Ready),
            (desire(Desired::Drained), Stage::Drained),
            (desire(Desired::InService), Stage::InService),
            (desire(Desired::Retired), Stage::Retired),
            (enroll(Desired::Ready), Stage::Ready),
            (desire(Desired::Retired), Stage::Retired),
        ];
        Self { name, workflow, profile, gpus, found_running: false, wishes }
    }

    /// Taken over as it runs, drained and back, retired, and only then enrolled.
    pub(crate) fn adopted(name: &'static str, workflow: &'static str, gpus: u16) -> Self {
        let profile = profile(gpus);
        let wishes = vec![
            (Change::Adopt, Stage::InService),
            (desire(Desired::Drained), Stage::Drained),
            (desire(Desired::InService), Stage::InService),
            (desire(Desired::Retired), Stage::Retired),
            (enroll(Desired::InService), Stage::InService),
        ];
        Self { name, workflow, profile, gpus, found_running: true, wishes }
    }

    /// The same as the first, on a volume that a RAID controller makes at a POST.
    pub(crate) fn on_raid() -> Self {
        Self { profile: RAID, ..Self::enrolled("gpu-node on RAID", "gpu-node", 8) }
    }

    pub(crate) fn all() -> Vec<Life> {
        vec![
            Life::enrolled("gpu-node enrolled", "gpu-node", 8),
            Life::adopted("gpu-node adopted", "gpu-node", 8),
            Life::enrolled("cpu-node enrolled", "cpu-node", 0),
            Life::adopted("cpu-node adopted", "cpu-node", 0),
            Life::on_raid(),
        ]
    }

    pub(crate) fn last(&self) -> usize {
        self.wishes.len() - 1
    }

    /// The simulated site with this life's workflow, as it ships, in its only profile.
    pub(crate) fn site(&self, incarnation: Arc<str>) -> Site {
        let (all, _) = config::workflow::parse(&shipped::workflows());
        let found = all.into_iter().find(|w| &*w.name == self.workflow).expect("it ships");
        let mut workflow: Workflow = Arc::unwrap_or_clone(found);
        workflow.watch.0 = workflow.watch.0.max(workflows::WATCH_MIN.0);
        let hash = workflow.hash();
        let mut site = Site { incarnation, ..workflows::site() };
        let simulated = &site.profiles[self.profile];
        let profile =
            Profile { workflow: hash.clone(), gpus: self.gpus, ..Profile::clone(simulated) };
        site.profiles = [(profile.name.clone(), Arc::new(profile))].into();
        site.workflows = [(hash, Arc::new(workflow))].into();
        site
    }

    /// The machine as it is delivered.
    pub(crate) fn machine(&self) -> VirtualMachine {
        let build = Build {
            id: ID,
            name: "n00001".into(),
            identity: identity(1),
            gpus: self.gpus,
            quirks: Quirks { volumes_at_post: self.profile == RAID, ..Quirks::default() },
            sick: None,
            durations: Arc::new(Durations::default()),
        };
        let mut vm = VirtualMachine::new(build, Rng::stream(7, 1), Dice::none());
        if self.found_running {
            vm.found_running(true, 3);
        }
        vm
    }

    /// Its inventory line. A host that runs already is known by its key.
    pub(crate) fn line(&self) -> Expected {
        let key = self.found_running.then(|| self.machine().host_key.to_string());
        Expected { profile: self.profile.into(), ..workflows::expected(ID, identity(1), key) }
    }
}
