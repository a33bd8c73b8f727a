//! The BMC edge: a thin Redfish client (DSP0266, DSP0268) that trusts nothing it reads. It follows
//! links and action targets, classifies every failure, keeps one session per BMC and sends every
//! action once. Comparing what an action expects is done here, deciding never.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an edge: session ages and pauses are measured on the monotonic clock"
)]

mod accounts;
mod boot;
mod certificate;
mod conn;
mod discover;
mod fault;
mod firmware;
mod guard;
mod http;
mod inventory;
mod json;
mod power;
mod session;
mod system;
mod task;
mod tls;
mod update;

pub use certificate::Certificate;

use crate::model::action::{BootTarget, Expect, Outcome, PowerOp};
use crate::model::facts::{Component, InventoryFacts, SystemFacts, Task};
use crate::model::hardware::{Account, AccountRules};
use crate::model::{Fault, MachineId};
use crate::port::capability::BmcAccounts;
use crate::port::{BmcCare, BmcPower, BmcRead, BmcTarget, BmcUpdate, Secret, UpdateOrder, Vault};
use async_trait::async_trait;
use conn::{Bmc, Conn};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How the client behaves. The defaults are those of field notes R7.
#[derive(Clone, Debug)]
pub struct Settings {
    pub connect_timeout_ms: u64,
    pub read_timeout_ms: u64,
    pub write_timeout_ms: u64,
    /// Documents above this are not read; the largest seen is a 3.1 MB registry.
    pub max_body_bytes: usize,
    pub reads_per_bmc: usize,
    /// PEM certificates that `tls = "ca"` trusts besides the system's.
    pub ca_pem: Option<String>,
    /// A refused login is not repeated for this long; some BMCs lock after 3 tries in 30 s.
    pub login_pause_ms: u64,
    /// After a BMC ran out of sessions, how long Basic is used before a session is tried again.
    pub basic_for_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 10_000,
            read_timeout_ms: 60_000,
            write_timeout_ms: 60_000,
            max_body_bytes: 4 << 20,
            reads_per_bmc: 3,
            ca_pem: None,
            login_pause_ms: 180_000,
            basic_for_ms: 1_800_000,
        }
    }
}

/// All BMCs of a site over Redfish.
pub struct RedfishBmc {
    vault: Arc<dyn Vault>,
    settings: Arc<Settings>,
    clients: http::Clients,
    /// What is remembered per BMC: gate, session, links.
    conns: Mutex<BTreeMap<MachineId, Arc<Conn>>>,
}

impl std::fmt::Debug for RedfishBmc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedfishBmc")
    }
}

impl RedfishBmc {
    pub fn new(vault: Arc<dyn Vault>, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let clients = http::Clients::new(settings.clone());
        Self { vault, settings, clients, conns: Mutex::default() }
    }

    /// One BMC with what is remembered of it. A changed address, trust or credential name starts
    /// afresh.
    fn bmc<'a>(&'a self, target: &'a BmcTarget) -> Result<Bmc<'a>, Fault> {
        let mut conns = self.conns.lock().unwrap_or_else(PoisonError::into_inner);
        let conn = match conns.get(&target.machine) {
            Some(c) if c.is_for(&target.endpoint) => c.clone(),
            _ => {
                let conn = Arc::new(Conn::new(&target.endpoint, &self.settings)?);
                conns.insert(target.machine, conn.clone());
                conn
            }
        };
        Ok(Bmc { edge: self, target, conn })
    }

    /// The certificate that is shown at a BMC's `url`, trusted or not; nothing else is sent.
    ///
    /// # Errors
    /// Nothing answered, or the address is not https.
    pub async fn certificate(&self, url: &str) -> Result<Certificate, Fault> {
        certificate::read(url).await
    }

    /// Logs out everywhere, for a graceful stop: sessions are few and outlive us by half an hour.
    pub async fn log_out(&self) {
        let all: Vec<Arc<Conn>> = {
            let mut conns = self.conns.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *conns).into_values().collect()
        };
        let ends = all.iter().map(|c| session::end(&self.clients, c));
        for fault in futures_util::future::join_all(ends).await.into_iter().filter_map(Result::err)
        {
            tracing::debug!(%fault, "a session was not ended; it will time out");
        }
    }
}

#[async_trait]
impl BmcRead for RedfishBmc {
    async fn system(&self, target: &BmcTarget) -> Result<SystemFacts, Fault> {
        system::read(&self.bmc(target)?).await
    }

    async fn inventory(&self, target: &BmcTarget) -> Result<InventoryFacts, Fault> {
        inventory::read(&self.bmc(target)?).await
    }

    async fn firmware(&self, target: &BmcTarget) -> Result<Vec<Component>, Fault> {
        firmware::read(&self.bmc(target)?).await
    }

    async fn tasks(&self, target: &BmcTarget, handle: Option<&str>) -> Result<Vec<Task>, Fault> {
        task::read(&self.bmc(target)?, handle).await
    }
}

/// An action's errors before anything was sent are failures; guards that do not hold are refusals.
fn settle(result: Result<Outcome, guard::Stop>) -> Outcome {
    match result {
        Ok(outcome) => outcome,
        Err(guard::Stop::Fault(fault)) => Outcome::Failed { fault: *fault },
        Err(guard::Stop::Refused { saw, wrong_machine }) => Outcome::Refused { saw, wrong_machine },
    }
}

#[async_trait]
impl BmcPower for RedfishBmc {
    async fn power(&self, target: &BmcTarget, expect: &Expect, op: PowerOp) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(power::power(&bmc, expect, op).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn set_boot(&self, target: &BmcTarget, expect: &Expect, to: BootTarget) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(boot::set(&bmc, expect, to).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }
}

#[async_trait]
impl BmcUpdate for RedfishBmc {
    async fn update(&self, target: &BmcTarget, expect: &Expect, order: &UpdateOrder) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(update::update(&bmc, expect, order).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }
}

#[async_trait]
impl BmcCare for RedfishBmc {
    async fn reset_bmc(&self, target: &BmcTarget, expect: &Expect) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(power::reset_bmc(&bmc, expect).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn end_sessions(&self, target: &BmcTarget) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => {
                let _one = bmc.conn.write().await;
                match session::end(&self.clients, &bmc.conn).await {
                    Ok(()) => Outcome::Applied { handle: None },
                    Err(fault) => Outcome::Failed { fault },
                }
            }
            Err(fault) => Outcome::Failed { fault },
        }
    }
}

#[async_trait]
impl BmcAccounts for RedfishBmc {
    async fn accounts(&self, target: &BmcTarget) -> Result<(AccountRules, Vec<Account>), Fault> {
        accounts::read(&self.bmc(target)?).await
    }

    async fn set_password(&self, target: &BmcTarget, user: &str, password: &Secret) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(accounts::set(&bmc, user, password).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn verify(&self, target: &BmcTarget, user: &str, password: &Secret) -> Result<(), Fault> {
        accounts::verify(&self.bmc(target)?, user, password).await
    }
}
