//! Redfish first; where it does not answer any more, IPMI for the few things that it can do: power,
//! boot device, a cold reset of the BMC. The engine sees one BMC and never which of the two it was.
//!
//! IPMI writes only where the machine has an `ipmi` address, Redfish is wedged (no answer, a server
//! error, no Redfish), and nothing went out over Redfish. After an unclear outcome nobody sends a
//! second time over another channel. A BMC in order costs no run of ipmitool.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "remembers when a BMC fell silent, on the monotonic clock"
)]

use crate::ipmi::{IpmiBmc, Look, Proof};
use crate::model::action::{BootTarget, PowerOp};
use crate::model::facts::{Component, InventoryFacts, SystemFacts, Task};
use crate::model::hardware::{BiosFacts, SecureBootFacts};
use crate::model::storage::StorageFacts;
use crate::model::{Expect, Fault, Identity, MachineId, Outcome};
use crate::port::capability::VolumeOrder;
use crate::port::{Bmc, BmcCare, BmcPower, BmcRead, BmcTarget, BmcUpdate, UpdateOrder};
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the handle of an action that went out over IPMI begins with: for the journal's reader.
pub const HANDLE: &str = "ipmi:";

/// Times of the fallback; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Reads of the system that failed in a row before IPMI is asked instead: one that fails once is
    /// usual.
    pub wedged_after: u32,
    /// Longest look at a Redfish that was wedged when it was last asked, before a write goes out over
    /// IPMI. An action has 60 s in all.
    pub retry_redfish: Duration,
    /// After a reset or an update of the BMC its IPMI may be up long before the rest (field notes
    /// R20): so long nothing is read over it.
    pub own_reset: Duration,
    /// IPMI was silent too: not asked again for so long.
    pub silent: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            wedged_after: 2,
            retry_redfish: Duration::from_secs(10),
            own_reset: Duration::from_secs(600),
            silent: Duration::from_secs(300),
        }
    }
}

/// What is remembered of one BMC.
#[derive(Clone, Copy, Debug, Default)]
struct Note {
    /// Reads of the system in a row that found Redfish wedged.
    misses: u32,
    reset_at: Option<Instant>,
    /// IPMI did not answer then.
    silent_at: Option<Instant>,
}

/// A site's BMCs: Redfish, with IPMI behind it.
pub struct WithFallback {
    redfish: Arc<dyn Bmc>,
    ipmi: Arc<IpmiBmc>,
    settings: Settings,
    notes: Mutex<BTreeMap<MachineId, Note>>,
}

impl std::fmt::Debug for WithFallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WithFallback")
    }
}

/// Is Redfish itself out of order, rather than refusing?
fn is_wedged(fault: &Fault) -> bool {
    fault.is_no_answer() || matches!(fault.code.as_ref(), "bmc-error" | "not-redfish")
}

fn within(at: Option<Instant>, time: Duration) -> bool {
    at.is_some_and(|at| at.elapsed() < time)
}

impl WithFallback {
    pub fn new(redfish: Arc<dyn Bmc>, ipmi: Arc<IpmiBmc>, settings: Settings) -> Self {
        Self { redfish, ipmi, settings, notes: Mutex::default() }
    }

    fn notes(&self) -> MutexGuard<'_, BTreeMap<MachineId, Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, bmc: &BmcTarget) -> Note {
        self.notes().get(&bmc.machine).copied().unwrap_or_default()
    }

    fn change(&self, bmc: &BmcTarget, change: impl FnOnce(&mut Note)) {
        change(self.notes().entry(bmc.machine).or_default());
    }

    /// Redfish answered: nothing is remembered but a reset of our own.
    fn answered(&self, bmc: &BmcTarget) {
        let mut notes = self.notes();
        if let Some(note) = notes.get_mut(&bmc.machine) {
            note.misses = 0;
            note.silent_at = None;
            if !within(note.reset_at, self.settings.own_reset) {
                notes.remove(&bmc.machine);
            }
        }
    }

    /// Facts over IPMI instead of those that Redfish did not give; its fault where there are none.
    async fn system_over_ipmi(&self, bmc: &BmcTarget, fault: Fault) -> Result<SystemFacts, Fault> {
        self.change(bmc, |n| n.misses = n.misses.saturating_add(1));
        let note = self.note(bmc);
        let resting = within(note.reset_at, self.settings.own_reset)
            || within(note.silent_at, self.settings.silent);
        // A whole site that is cut off must not queue for ipmitool: whoever finds no place goes
        // without.
        if note.misses < self.settings.wedged_after || resting || !self.ipmi.has_room() {
            return Err(fault);
        }
        match self.ipmi.look(bmc).await {
            Ok(look) => facts(&look).map_err(|saw| told(fault, &format!("over IPMI: {saw}"))),
            Err(why) => {
                self.change(bmc, |n| n.silent_at = Some(Instant::now()));
                Err(told(fault, &format!("over IPMI: {why}")))
            }
        }
    }

    /// May a write go out over IPMI? `Ok`: yes, for this fault of Redfish. Only after Redfish has
    /// just been read and was wedged, so that one bad answer moves nothing to another channel.
    async fn is_redfish_wedged(&self, bmc: &BmcTarget) -> Option<Fault> {
        let read = self.redfish.system(bmc);
        match tokio::time::timeout(self.settings.retry_redfish, read).await {
            Ok(Ok(_)) => {
                self.answered(bmc);
                None
            }
            Ok(Err(fault)) => is_wedged(&fault).then_some(fault),
            Err(_) => Some(Fault::no_answer(
                crate::model::Channel::Bmc,
                format!(
                    "no answer from Redfish within {} s",
                    self.settings.retry_redfish.as_secs()
                ),
            )),
        }
    }

    /// A write: over Redfish, or over IPMI where that is allowed. `what` is for people.
    async fn write(
        &self,
        bmc: &BmcTarget,
        what: &str,
        over_redfish: impl Future<Output = Outcome> + Send,
        over_ipmi: impl Future<Output = Outcome> + Send,
    ) -> Outcome {
        if bmc.endpoint.ipmi.is_none() {
            return over_redfish.await;
        }
        let wedged = match self.note(bmc).misses {
            // In order when it was last read.
            0 => match over_redfish.await {
                // `Failed` says that it was not carried out; of these only one that never went out
                // has no answer. What the others were is looked at again below.
                Outcome::Failed { fault } if is_wedged(&fault) => {
                    match self.is_redfish_wedged(bmc).await {
                        Some(now) => now,
                        None => return Outcome::Failed { fault },
                    }
                }
                outcome => return outcome,
            },
            _ => match self.is_redfish_wedged(bmc).await {
                Some(fault) => fault,
                None => return over_redfish.await,
            },
        };
        tracing::warn!(machine = %bmc.name, redfish = %wedged, "`{what}` goes out over IPMI");
        let outcome = over_ipmi.await;
        tracing::warn!(machine = %bmc.name, ?outcome, "`{what}` over IPMI ended");
        let because = format!("over IPMI, because of Redfish: {wedged}");
        match outcome {
            Outcome::Applied { .. } => Outcome::Applied { handle: Some(format!("{HANDLE}{what}")) },
            Outcome::Failed { fault } => Outcome::Failed { fault: told(fault, &because) },
            Outcome::Unknown { fault } => Outcome::Unknown { fault: told(fault, &because) },
            refused @ (Outcome::Refused { .. } | Outcome::Withdrawn { .. }) => refused,
        }
    }

    fn was_reset(&self, bmc: &BmcTarget, outcome: &Outcome) {
        if bmc.endpoint.ipmi.is_some()
            && matches!(outcome, Outcome::Applied { .. } | Outcome::Unknown { .. })
        {
            self.change(bmc, |n| n.reset_at = Some(Instant::now()));
        }
    }
}

/// The fault with what else was seen.
fn told(fault: Fault, more: &str) -> Fault {
    let evidence = match &fault.evidence {
        Some(evidence) => format!("{evidence}; {more}"),
        None => more.to_string(),
    };
    fault.evidence(evidence.chars().take(600).collect::<String>())
}

/// What a look over IPMI is worth to a decision: power, of a machine that is proven to be this one.
/// Whatever it says of another identity is for people: a FRU is programmed by hand often enough.
fn facts(look: &Look) -> Result<SystemFacts, String> {
    let facts = |identity: Identity| SystemFacts {
        identity,
        power: look.power,
        over_ipmi: true,
        ..SystemFacts::default()
    };
    match &look.proof {
        Proof::Same(identity) => Ok(facts(identity.clone())),
        Proof::Doubtful(saw) => Err(format!("power {:?}, yet {saw}", look.power)),
        Proof::Other { saw, .. } => Err(format!("power {:?} of {saw}", look.power)),
        Proof::Nothing => {
            Err(format!("power {:?}, and nothing that proves the machine", look.power))
        }
    }
}

#[async_trait]
impl BmcRead for WithFallback {
    async fn system(&self, bmc: &BmcTarget) -> Result<SystemFacts, Fault> {
        match self.redfish.system(bmc).await {
            Err(fault) if bmc.endpoint.ipmi.is_some() && is_wedged(&fault) => {
                self.system_over_ipmi(bmc, fault).await
            }
            // It answers, if only to refuse.
            read => {
                self.answered(bmc);
                read
            }
        }
    }

    async fn inventory(&self, bmc: &BmcTarget) -> Result<InventoryFacts, Fault> {
        self.redfish.inventory(bmc).await
    }

    async fn firmware(&self, bmc: &BmcTarget) -> Result<Vec<Component>, Fault> {
        self.redfish.firmware(bmc).await
    }

    async fn tasks(&self, bmc: &BmcTarget, handle: Option<&str>) -> Result<Vec<Task>, Fault> {
        self.redfish.tasks(bmc, handle.filter(|h| !h.starts_with(HANDLE))).await
    }

    async fn inserted_media(&self, bmc: &BmcTarget) -> Result<Vec<String>, Fault> {
        self.redfish.inserted_media(bmc).await
    }

    async fn bios_settings(&self, bmc: &BmcTarget) -> Result<BiosFacts, Fault> {
        self.redfish.bios_settings(bmc).await
    }

    async fn secure_boot_state(&self, bmc: &BmcTarget) -> Result<SecureBootFacts, Fault> {
        self.redfish.secure_boot_state(bmc).await
    }

    async fn storage(&self, bmc: &BmcTarget) -> Result<StorageFacts, Fault> {
        self.redfish.storage(bmc).await
    }
}

#[async_trait]
impl BmcPower for WithFallback {
    async fn power(&self, bmc: &BmcTarget, expect: &Expect, op: PowerOp) -> Outcome {
        let what = format!("power {}", crate::model::Action::Power { op }.about());
        let (redfish, ipmi) =
            (self.redfish.power(bmc, expect, op), self.ipmi.power(bmc, expect, op));
        self.write(bmc, &what, redfish, ipmi).await
    }

    async fn set_boot(&self, bmc: &BmcTarget, expect: &Expect, to: BootTarget) -> Outcome {
        let what = format!("boot {}", crate::model::Action::SetBoot { target: to }.about());
        let (redfish, ipmi) =
            (self.redfish.set_boot(bmc, expect, to), self.ipmi.set_boot(bmc, expect, to));
        self.write(bmc, &what, redfish, ipmi).await
    }
}

#[async_trait]
impl BmcUpdate for WithFallback {
    /// Never over IPMI.
    async fn update(&self, bmc: &BmcTarget, expect: &Expect, order: &UpdateOrder) -> Outcome {
        let outcome = self.redfish.update(bmc, expect, order).await;
        // An update of another controller takes nothing from the host's BMC.
        if bmc.endpoint.controllers.of(&order.inventory_id).is_none() {
            self.was_reset(bmc, &outcome);
        }
        outcome
    }
}

#[async_trait]
impl BmcCare for WithFallback {
    async fn reset_bmc(&self, bmc: &BmcTarget, expect: &Expect) -> Outcome {
        let (redfish, ipmi) =
            (self.redfish.reset_bmc(bmc, expect), self.ipmi.reset_bmc(bmc, expect));
        let outcome = self.write(bmc, "BMC cold reset", redfish, ipmi).await;
        self.was_reset(bmc, &outcome);
        outcome
    }

    /// Never over IPMI: it knows the host's BMC alone.
    async fn reset_controller(&self, bmc: &BmcTarget, expect: &Expect, name: &str) -> Outcome {
        self.redfish.reset_controller(bmc, expect, name).await
    }

    async fn insert_media(&self, bmc: &BmcTarget, expect: &Expect, image_url: &str) -> Outcome {
        self.redfish.insert_media(bmc, expect, image_url).await
    }

    async fn eject_media(&self, bmc: &BmcTarget, expect: &Expect) -> Outcome {
        self.redfish.eject_media(bmc, expect).await
    }

    async fn change_bios(
        &self,
        bmc: &BmcTarget,
        expect: &Expect,
        attributes: &BTreeMap<String, Value>,
    ) -> Outcome {
        self.redfish.change_bios(bmc, expect, attributes).await
    }

    async fn change_secure_boot(&self, bmc: &BmcTarget, expect: &Expect, on: bool) -> Outcome {
        self.redfish.change_secure_boot(bmc, expect, on).await
    }

    async fn make_volume(&self, bmc: &BmcTarget, expect: &Expect, order: &VolumeOrder) -> Outcome {
        self.redfish.make_volume(bmc, expect, order).await
    }

    /// Never over IPMI: it can't cut the BMC's own power.
    async fn ac_cycle(&self, bmc: &BmcTarget, expect: &Expect) -> Outcome {
        let outcome = self.redfish.ac_cycle(bmc, expect).await;
        self.was_reset(bmc, &outcome);
        outcome
    }

    async fn end_sessions(&self, bmc: &BmcTarget) -> Outcome {
        self.redfish.end_sessions(bmc).await
    }
}
