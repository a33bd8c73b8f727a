//! The way to every BMC: which password and which certificate are the machine's own by now, and
//! whether a rotation keeps others out while nobody knows which password is in force.
//!
//! The inventory names what a machine came with; what was changed since is in the database. Edges
//! get an endpoint in which that is settled, so that none of them knows of either. A further controller
//! has a certificate of its own as the host's BMC has; it goes by the credential that the inventory names
//! for it, and the machine's own password is never sent to it.

use crate::model::action::{BootTarget, PowerOp};
use crate::model::controller::place;
use crate::model::facts::{Component, InventoryFacts, SystemFacts, Task};
use crate::model::hardware::{BiosFacts, SecureBootFacts};
use crate::model::storage::StorageFacts;
use crate::model::{Channel, Expect, Fault, FaultClass, MachineId, Outcome};
use crate::port::capability::VolumeOrder;
use crate::port::{Bmc, BmcCare, BmcPower, BmcRead, BmcTarget, BmcUpdate, UpdateOrder};
use crate::store::Secrets;
use crate::store::credentials::{FACTORY, Pin, Pins};
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// See the module's head. Clones share everything.
#[derive(Clone, Debug)]
pub struct Access {
    secrets: Secrets,
    pins: Pins,
    seats: Arc<Mutex<BTreeMap<MachineId, Seat>>>,
    left: Arc<Notify>,
}

/// Who is at one BMC.
#[derive(Debug, Default)]
struct Seat {
    calls: u32,
    /// Why nobody may come.
    shut: Option<String>,
}

/// A call under way; over when dropped.
#[derive(Debug)]
pub(super) struct Call<'a> {
    access: &'a Access,
    machine: MachineId,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut seats = self.access.seats();
        if let Some(seat) = seats.get_mut(&self.machine) {
            seat.calls = seat.calls.saturating_sub(1);
            if seat.calls == 0 && seat.shut.is_none() {
                seats.remove(&self.machine);
            }
        }
        drop(seats);
        self.access.left.notify_waiters();
    }
}

/// `place` as `farrier bmc pin` takes it.
fn no_pin(whose: &str, place: &str) -> Fault {
    let what = format!("no certificate of {whose} was accepted yet");
    Fault::new(FaultClass::Precondition, Channel::Bmc, Fault::NO_PIN, what)
        .hint(format!("`farrier bmc pin {place}` shows the one it has and keeps it"))
}

/// `tls` of an endpoint that is to show this certificate.
fn pinned(pin: &Pin) -> Arc<str> {
    format!("sha256:{}", pin.sha256).into()
}

impl Access {
    pub fn new(secrets: Secrets, pins: Pins) -> Self {
        Self { secrets, pins, seats: Arc::default(), left: Arc::default() }
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<MachineId, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under which name a password of the machine's own is kept. A machine that is known by the
    /// serial it was delivered with keeps it under that: a replaced board comes with its own.
    pub fn own(target: &BmcTarget) -> String {
        match target.endpoint.credential.strip_prefix(FACTORY) {
            Some(serial) => format!("bmc/serial/{serial}"),
            None => format!("bmc/machine/{}", target.name),
        }
    }

    /// The target with the credential and the certificate that count now.
    ///
    /// # Errors
    /// The inventory wants a pinned certificate, and nobody has accepted one.
    pub fn resolve(&self, target: &BmcTarget) -> Result<BmcTarget, Fault> {
        let mut target = target.clone();
        let own = Self::own(&target);
        if self.secrets.has(&own) {
            target.endpoint.credential = own.into();
        }
        if &*target.endpoint.tls == "pin" {
            let Some(pin) = self.pins.get(&target.name) else {
                return Err(no_pin(&format!("{}'s BMC", target.name), &target.name));
            };
            target.endpoint.tls = pinned(&pin);
        }
        self.resolve_controllers(&mut target);
        Ok(target)
    }

    /// The same of the machine's further controllers. One without a pin is barred, and keeps nobody from
    /// the others.
    fn resolve_controllers(&self, target: &mut BmcTarget) {
        let machine = &target.name;
        let controllers = &mut target.endpoint.controllers;
        if controllers.iter().all(|c| &*c.tls != "pin") {
            return;
        }
        controllers.change(|c| {
            let place = place(machine, Some(&c.name));
            match self.pins.get(&place) {
                _ if &*c.tls != "pin" => {}
                Some(pin) => c.tls = pinned(&pin),
                None => c.barred = Some(Arc::new(no_pin("it", &place))),
            }
        });
    }

    /// A place at this BMC, for as long as it is held; and the target as in [`Access::resolve`].
    ///
    /// # Errors
    /// A rotation keeps everybody out; as [`Access::resolve`].
    pub(super) fn enter(&self, target: &BmcTarget) -> Result<(Call<'_>, BmcTarget), Fault> {
        let mut seats = self.seats();
        let seat = seats.entry(target.machine).or_default();
        if let Some(why) = &seat.shut {
            return Err(Fault::new(
                FaultClass::Throttled,
                Channel::Bmc,
                "password-rotation",
                format!("nobody logs in to {}'s BMC now: {why}", target.name),
            )
            .hint("`farrier bmc rotate --list` says how far it is")
            .retry_after(5_000));
        }
        seat.calls += 1;
        drop(seats);
        let call = Call { access: self, machine: target.machine };
        let resolved = self.resolve(target)?;
        Ok((call, resolved))
    }

    /// From now on nobody gets to this BMC; returns once those who are there have left.
    pub async fn shut(&self, machine: MachineId, why: &str) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // Hears of everyone who leaves after the look.
            left.as_mut().enable();
            self.shut_at_once(machine, why);
            if self.seats().get(&machine).is_none_or(|s| s.calls == 0) {
                return;
            }
            left.await;
        }
    }

    /// The same without waiting, for a start: nobody is there yet.
    pub fn shut_at_once(&self, machine: MachineId, why: &str) {
        self.seats().entry(machine).or_default().shut = Some(why.to_string());
    }

    pub fn open(&self, machine: MachineId) {
        let mut seats = self.seats();
        if let Some(seat) = seats.get_mut(&machine) {
            seat.shut = None;
            if seat.calls == 0 {
                seats.remove(&machine);
            }
        }
    }
}

/// BMCs as the engine reaches them.
pub struct Guarded {
    inner: Arc<dyn Bmc>,
    access: Access,
}

impl Guarded {
    pub fn new(inner: Arc<dyn Bmc>, access: Access) -> Self {
        Self { inner, access }
    }
}

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guarded")
    }
}

#[async_trait]
impl BmcRead for Guarded {
    async fn system(&self, bmc: &BmcTarget) -> Result<SystemFacts, Fault> {
        let (_call, bmc) = self.access.enter(bmc)?;
        self.inner.system(&bmc).await
    }

    async fn inventory(&self, bmc: &BmcTarget) -> Result<InventoryFacts, Fault> {
        let (_call, bmc) = self.access.enter(bmc)?;
        self.inner.inventory(&bmc).await
    }

    async fn firmware(&self, bmc: &BmcTarget) -> Result<Vec<Component>, Fault> {
        let (_call, bmc) = self.access.enter(bmc)?;
        self.inner.firmware(&bmc).await
    }

    async fn tasks(&self, bmc: &BmcTarget, handle: Option<&str>) -> Result<Vec<Task>, Fault> {
        let (_call, bmc) = self.access.enter(bmc)?;
        self.inner.tasks(&bmc, handle).await
    }

    async fn inserted_media(&self, bmc: &BmcTarget) -> Result<Vec<String>, Fault> {
        let (_call, bmc) = self.access.enter(bmc)?;
        self.inner.inserted_media(&bmc).await
    }

    async fn bios_settings(&self, bmc: &BmcTarget) -> Result<BiosFacts, Fault> {
        let (_call, bmc) = self.access.enter(bmc)?;
        self.inner.bios_settings(&bmc).await
    }

    async fn secure_boot_state(&self, bmc: &BmcTarget) -> Result<SecureBootFacts, Fault> {
        let (_call, bmc) = self.access.enter(bmc)?;
        self.inner.secure_boot_state(&bmc).await
    }

    async fn storage(&self, bmc: &BmcTarget) -> Result<StorageFacts, Fault> {
        let (_call, bmc) = self.access.enter(bmc)?;
        self.inner.storage(&bmc).await
    }
}

#[async_trait]
impl BmcPower for Guarded {
    async fn power(&self, bmc: &BmcTarget, expect: &Expect, op: PowerOp) -> Outcome {
        match self.access.enter(bmc) {
            Ok((_call, bmc)) => self.inner.power(&bmc, expect, op).await,
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn set_boot(&self, bmc: &BmcTarget, expect: &Expect, target: BootTarget) -> Outcome {
        match self.access.enter(bmc) {
            Ok((_call, bmc)) => self.inner.set_boot(&bmc, expect, target).await,
            Err(fault) => Outcome::Failed { fault },
        }
    }
}

#[async_trait]
impl BmcUpdate for Guarded {
    async fn update(&self, bmc: &BmcTarget, expect: &Expect, order: &UpdateOrder) -> Outcome {
        match self.access.enter(bmc) {
            Ok((_call, bmc)) => self.inner.update(&bmc, expect, order).await,
            Err(fault) => Outcome::Failed { fault },
        }
    }
}

#[async_trait]
impl BmcCare for Guarded {
    async fn reset_bmc(&self, bmc: &BmcTarget, expect: &Expect) -> Outcome {
        match self.access.enter(bmc) {
            Ok((_call, bmc)) => self.inner.reset_bmc(&bmc, expect).await,
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn reset_controller(&self, bmc: &BmcTarget, expect: &Expect, name: &str) -> Outcome {
        match self.access.enter(bmc) {
            Ok((_call, bmc)) => self.inner.reset_controller(&bmc, expect, name).await,
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn insert_media(&self, bmc: &BmcTarget, expect: &Expect, image_url: &str) -> Outcome {
        match self.access.enter(bmc) {
            Ok((_call, bmc)) => self.inner.insert_media(&bmc, expect, image_url).await,
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn eject_media(&self, bmc: &BmcTarget, expect: &Expect) -> Outcome {
        match self.access.enter(bmc) {
            Ok((_call, bmc)) => self.inner.eject_media(&bmc, expect).await,
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn change_bios(
        &self,
        bmc: &BmcTarget,
        expect: &Expect,
        attributes: &BTreeMap<String, Value>,
    ) -> Outcome {
        match self.access.enter(bmc) {
            Ok((_call, bmc)) => self.inner.change_bios(&bmc, expect, attributes).await,
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn change_secure_boot(&self, bmc: &BmcTarget, expect: &Expect, on: bool) -> Outcome {
        match self.access.enter(bmc) {
            Ok((_call, bmc)) => self.inner.change_secure_boot(&bmc, expect, on).await,
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn make_volume(&self, bmc: &BmcTarget, expect: &Expect, order: &VolumeOrder) -> Outcome {
        match self.access.enter(bmc) {
            Ok((_call, bmc)) => self.inner.make_volume(&bmc, expect, order).await,
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn ac_cycle(&self, bmc: &BmcTarget, expect: &Expect) -> Outcome {
        match self.access.enter(bmc) {
            Ok((_call, bmc)) => self.inner.ac_cycle(&bmc, expect).await,
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn end_sessions(&self, bmc: &BmcTarget) -> Outcome {
        match self.access.enter(bmc) {
            Ok((_call, bmc)) => self.inner.end_sessions(&bmc).await,
            Err(fault) => Outcome::Failed { fault },
        }
    }
}
