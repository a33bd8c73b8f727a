//! The site that the simulated daemon runs: the workflow of a GPU node with every step kind,
//! its profile, its limits, its firmware catalog.

use crate::model::time::Span;
use crate::model::{Domain, DomainKind, Expected, HostEndpoint, Identity, Limit, LimitClass};
use crate::model::{MachineId, Stage};
use crate::steps::catalog::{Activation, Catalog, Family, Firmware, FirmwareSet, SetStatus};
use crate::steps::site::{Profile, Site};
use crate::steps::version::Scheme;
use crate::steps::workflow::{Retry, StepSpec, Unsupported, When, Workflow};
use crate::steps::{Step, power};
use regex::Regex;
use std::sync::Arc;

const M: u64 = 60_000;
const H: u64 = 60 * M;

fn spec(stage: Stage, key: &str, step: Step, timeout_ms: u64) -> StepSpec {
    StepSpec {
        key: key.into(),
        stage,
        step,
        timeout: Span(timeout_ms),
        stall: Span(20 * M),
        retry: Retry::default(),
        unsupported: Unsupported::Quarantine,
        when: When::default(),
    }
}

/// The GPU node's workflow: all eleven step kinds.
pub fn gpu_node() -> Workflow {
    use Stage as S;
    let leave = || Step::Leave(Default::default());
    Workflow {
        name: "gpu-node".into(),
        watch: Span(15 * M),
        steps: vec![
            spec(S::Discover, "identify", Step::Identify(Default::default()), 2 * H),
            spec(S::Discover, "inventory", Step::Inventory(Default::default()), 2 * H),
            spec(S::Firmware, "firmware", Step::Firmware(Default::default()), 12 * H),
            spec(S::Provision, "leave-before-image", leave(), 2 * H),
            spec(S::Provision, "image", Step::Provision(Default::default()), 12 * H),
            spec(S::BurnIn, "smoke", Step::BurnIn(Default::default()), 12 * H),
            spec(S::Join, "join", Step::Join(Default::default()), 2 * H),
            spec(S::Drain, "drain", Step::Drain(Default::default()), 12 * H),
            spec(S::Retire, "leave", leave(), 2 * H),
            spec(S::Retire, "sanitize", Step::Sanitize(Default::default()), 24 * H),
            spec(S::Retire, "release-bmc", Step::ReleaseBmc(Default::default()), 2 * H),
            spec(S::Retire, "off", Step::Power(power::Params { state: power::Wanted::Off }), 2 * H),
        ],
    }
}

fn any(pattern: &str) -> Vec<Regex> {
    Regex::new(pattern).ok().into_iter().collect()
}

fn image(component: &str, member: &str, version: &str, activation: Activation) -> Option<Firmware> {
    Some(Firmware {
        id: format!("{component}-{version}"),
        component: component.into(),
        inventory_id: Regex::new(&format!("^{member}$")).ok()?,
        version: version.into(),
        scheme: Scheme::Dotted,
        version_regex: None,
        min_version: None,
        blocked_versions: Vec::new(),
        file: format!("virtual/{component}-{version}.bin"),
        size: 1 << 20,
        sha256: "0".repeat(64),
        activation,
        verify_timeout: Span(30 * M),
        allow_downgrade: false,
    })
}

/// The firmware catalog of the virtual node.
pub fn catalog() -> Catalog {
    let firmware = [
        image("bmc", "BMC", "7.20", Activation::BmcReset),
        image("bios", "BIOS", "2.1.0", Activation::HostReset),
    ];
    let set = FirmwareSet {
        status: SetStatus::Approved,
        firmware: firmware.into_iter().flatten().collect(),
    };
    Catalog {
        families: vec![Family {
            file: "virtual/gpu-node.toml".into(),
            manufacturer: any("^Farrier$"),
            model: any("^Virtual GPU node$"),
            sets: [("2026.11".to_string(), set)].into(),
        }],
    }
}

/// Machines of one rack.
pub const RACK: u32 = 10;

/// The site: one profile, limits over racks, pool and site.
pub fn site() -> Site {
    let workflow = gpu_node();
    let hash = workflow.hash();
    let profile = Profile {
        name: "gpu".into(),
        workflow: hash.clone(),
        firmware_set: Some("2026.11".into()),
        image: Some("ubuntu-24.04-gpu".into()),
        cluster: Some("sim".into()),
        gpus: 8,
    };
    let limit = |class, per, max| Limit { class, per, max };
    Site {
        incarnation: "51a0c0de".into(),
        limits: vec![
            limit(LimitClass::Power, DomainKind::Rack, 3),
            limit(LimitClass::Flash, DomainKind::Rack, 3),
            limit(LimitClass::Flash, DomainKind::Site, 24),
            limit(LimitClass::Provision, DomainKind::Rack, 4),
            limit(LimitClass::BurnIn, DomainKind::Rack, 5),
            limit(LimitClass::Drain, DomainKind::Rack, 3),
        ],
        profiles: [(profile.name.clone(), Arc::new(profile))].into(),
        workflows: [(hash, Arc::new(workflow))].into(),
        catalog: catalog(),
        breaker_quarantines: 0,
        breaker_window_ms: 0,
    }
}

/// The machine as its inventory line states it.
pub fn expected(id: MachineId, identity: Identity, host_key: Option<String>) -> Expected {
    let rack: Arc<str> = format!("r{:03}", id.0 / RACK).into();
    Expected {
        name: format!("n{:05}", id.0).into(),
        identity,
        rack: rack.clone(),
        position: u16::try_from(id.0 % RACK).unwrap_or(0),
        pool: "gpu".into(),
        profile: "gpu".into(),
        domains: vec![
            Domain { kind: DomainKind::Site, name: "sim".into() },
            Domain { kind: DomainKind::Rack, name: rack },
            Domain { kind: DomainKind::Pool, name: "gpu".into() },
        ],
        labels: Default::default(),
        bmc: Default::default(),
        host: HostEndpoint { host_key, ..HostEndpoint::default() },
    }
}
