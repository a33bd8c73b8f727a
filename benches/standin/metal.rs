//! Machines that obey at once: the engine's ports over a table. What they became is kept in a file
//! of lines, so that they outlive the daemon as machines do.

use farrier::model::action::{BootTarget, HookVerb, JobScript, PowerOp};
use farrier::model::facts::{
    Callback, Component, HostFacts, InventoryFacts, JobFacts, Membership, Power, SystemFacts, Task,
    WindowFacts,
};
use farrier::model::{Channel, Expect, Expected, Fault, MachineId, Outcome};
use farrier::port::{
    Advertise, BmcCare, BmcPower, BmcRead, BmcTarget, BmcUpdate, Boot, Cluster, HostTarget, Node,
    Shell, UpdateOrder, WindowOrder,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

/// One machine as it stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Metal {
    on: bool,
    boots_from_net: bool,
    /// Run, image, open, called back.
    window: Option<(String, String, bool, bool)>,
    /// Image and the run that wrote it.
    disk: Option<(String, String)>,
}

/// All machines. Every answer is immediate; nothing ever fails.
#[derive(Debug)]
pub(crate) struct Metals(Mutex<(BTreeMap<MachineId, Metal>, File)>);

impl Metals {
    /// As the lines of `file` left them.
    pub(crate) fn open(file: &Path) -> Self {
        let lines = std::fs::read_to_string(file).unwrap_or_default();
        let known = lines.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        let log = File::options().create(true).append(true).open(file).unwrap();
        Self(Mutex::new((known, log)))
    }

    fn get(&self, id: MachineId) -> Metal {
        self.0.lock().unwrap().0.get(&id).cloned().unwrap_or_default()
    }

    fn change(&self, id: MachineId, how: impl FnOnce(&mut Metal)) -> Outcome {
        let mut all = self.0.lock().unwrap();
        let (known, log) = &mut *all;
        let metal = known.entry(id).or_default();
        how(metal);
        let line = serde_json::to_string(&(id, &*metal)).unwrap() + "\n";
        log.write_all(line.as_bytes()).unwrap();
        Outcome::Applied { handle: None }
    }
}

/// `<incarnation>-m<id>-<seq>`.
fn machine_of(run: &str) -> MachineId {
    let id = run.split('-').find_map(|part| part.strip_prefix('m')?.parse().ok());
    MachineId(id.expect("a run's name holds its machine"))
}

#[async_trait::async_trait]
impl BmcRead for Metals {
    async fn system(&self, bmc: &BmcTarget) -> Result<SystemFacts, Fault> {
        let metal = self.get(bmc.machine);
        let (target, enabled) =
            if metal.boots_from_net { ("Pxe", "Once") } else { ("None", "Disabled") };
        Ok(SystemFacts {
            identity: bmc.identity.clone(),
            manufacturer: Some("Mock".into()),
            model: Some("M1".into()),
            power: if metal.on { Power::On } else { Power::Off },
            health: Some("OK".into()),
            boot_target: Some(target.into()),
            boot_enabled: Some(enabled.into()),
            ..SystemFacts::default()
        })
    }

    async fn inventory(&self, _: &BmcTarget) -> Result<InventoryFacts, Fault> {
        Ok(InventoryFacts::default())
    }

    async fn firmware(&self, _: &BmcTarget) -> Result<Vec<Component>, Fault> {
        Ok(vec![])
    }

    async fn tasks(&self, _: &BmcTarget, _: Option<&str>) -> Result<Vec<Task>, Fault> {
        Ok(vec![])
    }
}

#[async_trait::async_trait]
impl BmcPower for Metals {
    async fn power(&self, bmc: &BmcTarget, _: &Expect, op: PowerOp) -> Outcome {
        self.change(bmc.machine, |m| {
            m.on = matches!(op, PowerOp::On | PowerOp::ForceRestart);
            if let Some((run, image, true, called)) = &mut m.window
                && m.on
                && m.boots_from_net
            {
                *called = true;
                m.disk = Some((image.clone(), run.clone()));
                m.boots_from_net = false;
            }
        })
    }

    async fn set_boot(&self, bmc: &BmcTarget, _: &Expect, target: BootTarget) -> Outcome {
        self.change(bmc.machine, |m| m.boots_from_net = target == BootTarget::Pxe)
    }
}

#[async_trait::async_trait]
impl BmcUpdate for Metals {
    async fn update(&self, _: &BmcTarget, _: &Expect, _: &UpdateOrder) -> Outcome {
        unreachable!("the workflow has no firmware step")
    }
}

#[async_trait::async_trait]
impl BmcCare for Metals {
    async fn reset_bmc(&self, _: &BmcTarget, _: &Expect) -> Outcome {
        Outcome::Applied { handle: None }
    }

    async fn end_sessions(&self, _: &BmcTarget) -> Outcome {
        Outcome::Applied { handle: None }
    }
}

#[async_trait::async_trait]
impl Shell for Metals {
    async fn facts(&self, host: &HostTarget) -> Result<HostFacts, Fault> {
        let metal = self.get(host.machine);
        let Some((image, run)) = metal.disk.filter(|_| metal.on) else {
            return Err(Fault::no_answer(Channel::Host, "no system is running"));
        };
        Ok(HostFacts {
            image: Some(image),
            image_run: Some(run),
            holds_data: Some(false),
            ..HostFacts::default()
        })
    }

    async fn job(&self, _: &HostTarget, _: &str) -> Result<JobFacts, Fault> {
        Ok(JobFacts::default())
    }

    async fn start_job(
        &self,
        _: &HostTarget,
        _: &Expect,
        _: JobScript,
        _: &str,
        _: u64,
    ) -> Outcome {
        unreachable!("the workflow has no job")
    }
}

#[async_trait::async_trait]
impl Cluster for Metals {
    async fn membership(&self, _: &Node) -> Result<Membership, Fault> {
        Ok(Membership::default())
    }

    async fn act(&self, _: &Node, _: &Expect, _: HookVerb) -> Outcome {
        unreachable!("the profile names no cluster")
    }
}

#[async_trait::async_trait]
impl Boot for Metals {
    async fn window(&self, _: MachineId, run: &str) -> Result<WindowFacts, Fault> {
        let metal = self.get(machine_of(run));
        let window = metal.window.filter(|w| w.0 == run);
        Ok(window.map_or_else(WindowFacts::default, |(run, _, open, called)| WindowFacts {
            open,
            run: Some(run),
            script_fetched: called,
            seed_fetched: called,
            callback: called.then_some(Callback {
                ok: true,
                message: None,
                code: None,
                host_key: None,
            }),
            ..WindowFacts::default()
        }))
    }

    async fn open(&self, order: &WindowOrder) -> Outcome {
        let window = (order.run.clone(), order.image.clone(), true, false);
        self.change(order.machine, |m| m.window = Some(window))
    }

    async fn close(&self, run: &str) -> Outcome {
        self.change(machine_of(run), |m| {
            if let Some(window) = &mut m.window {
                window.2 = false;
            }
        })
    }
}

impl Advertise for Metals {
    fn images(&self, _: &Expected) -> Option<String> {
        None
    }

    fn boot(&self, _: &Expected) -> Option<String> {
        Some("http://127.0.0.1:1".into())
    }
}
