//! The IPMI edge: what is left of a BMC when its Redfish does not answer. Power, boot device, a cold
//! reset, the event log, the FRU and the console, through `ipmitool`: no Rust crate speaks cipher
//! suite 17 (field notes §5.2), and ipmitool is what operators have and trust.
//!
//! | part | what |
//! | --- | --- |
//! | [`parse`] | what ipmitool prints, as values: pure |
//! | `tool` | one bounded run of it, the ladder of cipher suites, failures classified |
//! | `guard` | what comes before every write: which machine is this, is it on? |
//! | `power`, `boot` | the writes |
//! | `sel`, `fru` | log and identity |
//! | `sol` | the console into a file, at a person's word |
//! | `follow`, `shelf`, [`plain()`] | the console of a boot as it comes; what is kept of it; how it is shown |
//!
//! | field notes | what | test |
//! | --- | --- | --- |
//! | §5.3 | cipher 17, then 3, then what the BMC lists; what works is remembered | `suites_are_tried_from_the_best_and_the_one_that_works_is_remembered`, `the_suite_is_found_where_nobody_names_it` |
//! | §5.3 | the password in the environment alone | `the_password_is_in_the_environment_and_nowhere_else` |
//! | §5.3 | bounded in time, number and budget; killed with its children | `a_hung_program_is_ended_in_time_with_all_that_it_started`, `all_runs_of_one_operation_share_its_budget`, `the_site_runs_no_more_programs_at_once_than_it_may`, `one_bmc_is_asked_one_thing_at_a_time` |
//! | §4, §5.1 | boot device with the efiboot bit, read back | `the_boot_device_is_set_for_uefi_and_read_back` |
//! | §5.1 | GUIDs in every byte order, FRU: who is it, before every write | `a_guid_proves_it_in_every_byte_order`, `nothing_is_written_to_another_machine` |
//! | §5.1 | real programs: ipmi_sim, pyghmi | `power_is_read_and_changed`, `boot_log_fru_and_cold_reset`, `a_console_is_captured_over_the_wire` |
//! | §5.1 | one console a BMC: a person's is not taken, ours is given back | `a_console_in_use_is_left_to_whoever_has_it`, `a_console_is_followed_and_given_back` |
//!
//! IPMI proves nothing of the BMC (there is no certificate), and its login hands a hash of the
//! password to whoever asks (IPMI 2.0 RAKP): it belongs on a management network of its own, and
//! nowhere else.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an edge: it runs a program under a deadline"
)]

mod boot;
mod follow;
mod fru;
mod guard;
pub mod parse;
mod plain;
mod power;
mod sel;
mod shelf;
mod sol;
mod tool;

pub use follow::{FollowEnd, Heard};
pub use guard::{Look, Proof};
pub use parse::{BootFlags, Fru};
pub use plain::plain;
pub use shelf::{Bounds, Console, Live, Shelf};

use crate::model::action::{BootTarget, PowerOp};
use crate::model::hardware::LogEntry;
use crate::model::{Expect, Fault, IpmiEndpoint, MachineId, Outcome};
use crate::port::capability::{BmcConsole, BmcLog, CaptureOrder, Captured};
use crate::port::stop::settle;
use crate::port::{BmcCare, BmcPower, BmcTarget, Vault};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tool::Line;

/// How ipmitool is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program; found by PATH unless it is a path.
    pub program: PathBuf,
    /// One run, killed afterwards.
    pub run_ms: u64,
    /// All runs of one operation together (Ironic's default).
    pub budget_ms: u64,
    /// `-N`: seconds until a packet is sent again.
    pub resend_s: u32,
    /// `-R`: how often. With 2 and 2 a silent BMC costs 10 s (measured with ipmitool 1.8.19).
    pub resends: u32,
    /// Runs at once on the whole site, consoles aside.
    pub at_once: usize,
    /// A refused login is not repeated for this long, and there are two in twice the time at most:
    /// some BMCs lock after three tries (field notes R2).
    pub login_pause_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            program: PathBuf::from("ipmitool"),
            run_ms: 20_000,
            budget_ms: 60_000,
            resend_s: 2,
            resends: 2,
            at_once: 16,
            login_pause_ms: 180_000,
        }
    }
}

/// Consoles that are captured at once, on the whole site.
const CONSOLES: usize = 4;

/// All BMCs of a site over IPMI.
pub struct IpmiBmc {
    vault: Arc<dyn Vault>,
    settings: Settings,
    places: Semaphore,
    consoles: Semaphore,
    /// What is remembered of each BMC. Lost with the process, and nothing is lost by that.
    lines: Mutex<BTreeMap<MachineId, Arc<Line>>>,
}

impl std::fmt::Debug for IpmiBmc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IpmiBmc").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// One operation on one BMC.
struct Bmc<'a> {
    edge: &'a IpmiBmc,
    target: &'a BmcTarget,
    line: Arc<Line>,
    /// The operation's budget ends.
    until: Instant,
}

impl IpmiBmc {
    pub fn new(vault: Arc<dyn Vault>, settings: Settings) -> Self {
        let places = Semaphore::new(settings.at_once.max(1));
        let consoles = Semaphore::new(CONSOLES);
        Self { vault, settings, places, consoles, lines: Mutex::default() }
    }

    fn bmc<'a>(&'a self, target: &'a BmcTarget) -> Result<Bmc<'a>, Fault> {
        let Some(endpoint) = target.endpoint.ipmi.as_deref() else { return Err(tool::no_ipmi()) };
        let until = Instant::now() + Duration::from_millis(self.settings.budget_ms);
        Ok(Bmc { edge: self, target, line: self.line(target.machine, endpoint), until })
    }

    /// What is remembered of a BMC; a changed endpoint starts afresh.
    fn line(&self, machine: MachineId, endpoint: &IpmiEndpoint) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.get(&machine) {
            Some(line) if line.endpoint == *endpoint => line.clone(),
            _ => {
                let line = Arc::new(Line::new(endpoint.clone()));
                lines.insert(machine, line.clone());
                line
            }
        }
    }

    /// Is a run possible without waiting for others? Reads that are only a second choice leave the
    /// places to those that have no other.
    pub fn has_room(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// Power, and which machine this is.
    ///
    /// # Errors
    /// No answer, refused credentials, no ipmitool: classified.
    pub async fn look(&self, target: &BmcTarget) -> Result<Look, Fault> {
        let bmc = self.bmc(target)?;
        let _one = bmc.line.turn().await;
        guard::look(&bmc, &target.identity).await
    }

    /// The machine's own FRU.
    ///
    /// # Errors
    /// As [`IpmiBmc::look`]; `Unsupported` where the BMC has none.
    pub async fn fru(&self, target: &BmcTarget) -> Result<Fru, Fault> {
        let bmc = self.bmc(target)?;
        let _one = bmc.line.turn().await;
        fru::fru(&bmc).await
    }

    /// What the BMC would boot from next.
    ///
    /// # Errors
    /// As [`IpmiBmc::look`].
    pub async fn boot_flags(&self, target: &BmcTarget) -> Result<BootFlags, Fault> {
        let bmc = self.bmc(target)?;
        let _one = bmc.line.turn().await;
        boot::flags(&bmc).await
    }
}

const DONE: Outcome = Outcome::Applied { handle: None };

#[async_trait]
impl BmcPower for IpmiBmc {
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
impl BmcCare for IpmiBmc {
    async fn reset_bmc(&self, target: &BmcTarget, expect: &Expect) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(power::reset_bmc(&bmc, expect).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }

    /// Every run ends its own session.
    async fn end_sessions(&self, _: &BmcTarget) -> Outcome {
        DONE
    }
}

#[async_trait]
impl BmcLog for IpmiBmc {
    async fn log(&self, target: &BmcTarget, most: usize) -> Result<Vec<LogEntry>, Fault> {
        let bmc = self.bmc(target)?;
        let _one = bmc.line.turn().await;
        sel::log(&bmc, most).await
    }
}

#[async_trait]
impl BmcConsole for IpmiBmc {
    async fn capture(&self, target: &BmcTarget, order: &CaptureOrder) -> Result<Captured, Fault> {
        sol::capture(&self.bmc(target)?, order).await
    }
}
