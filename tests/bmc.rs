//! The Redfish edge against servers that misbehave, captured trees, and sushy-tools.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests serve files, start a program and wait for conditions with a deadline"
)]

#[path = "bmc/bios.rs"]
mod bios;
#[path = "bmc/captured.rs"]
mod captured;
#[path = "bmc/controllers.rs"]
mod controllers;
#[path = "bmc/faults.rs"]
mod faults;
#[path = "bmc/golden.rs"]
mod golden;
#[path = "bmc/logs.rs"]
mod logs;
#[path = "bmc/media.rs"]
mod media;
#[path = "bmc/push.rs"]
mod push;
#[path = "bmc/quirks.rs"]
mod quirks;
#[path = "bmc/server.rs"]
mod server;
#[path = "bmc/sessions.rs"]
mod sessions;
#[path = "bmc/small.rs"]
mod small;
#[path = "bmc/sushy.rs"]
mod sushy;
#[path = "bmc/trees.rs"]
mod trees;
#[path = "bmc/work.rs"]
mod work;
#[path = "bmc/writes.rs"]
mod writes;

use async_trait::async_trait;
use farrier::bmc::{RedfishBmc, Settings};
use farrier::model::{BmcEndpoint, Channel, Fault, FaultClass, Identity, MachineId};
use farrier::port::{BmcTarget, Credential, Secret, Vault};
use std::sync::Arc;

const PASSWORD: &str = "s3cret-of-the-bmc";

struct OneCredential;

#[async_trait]
impl Vault for OneCredential {
    async fn credential(&self, _name: &str) -> Result<Credential, Fault> {
        Ok(Credential { user: "farrier".into(), password: Secret::new(PASSWORD) })
    }

    async fn ssh_key(&self, _name: &str) -> Result<Secret, Fault> {
        Err(Fault::new(FaultClass::Bug, Channel::Host, "no-key", "none here"))
    }
}

/// Short deadlines: a server that never answers must not cost the test a minute.
fn settings() -> Settings {
    Settings {
        read_timeout_ms: 1_500,
        write_timeout_ms: 1_500,
        settle_ms: 5,
        quirks: Arc::new(farrier::config::quirks::shipped()),
        ..Settings::default()
    }
}

fn edge() -> RedfishBmc {
    RedfishBmc::new(Arc::new(OneCredential), settings())
}

fn target(url: &str) -> BmcTarget {
    BmcTarget {
        machine: MachineId(1),
        name: "node-1".into(),
        endpoint: BmcEndpoint {
            url: url.into(),
            credential: "bmc".into(),
            tls: "off".into(),
            ipmi: None,
            controllers: Default::default(),
        },
        identity: Identity::default(),
    }
}
