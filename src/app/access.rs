//! The way to every BMC: which password and which certificate are the machine's own by now, and
//! whether a rotation keeps others out while nobody knows which password is in force.
//!
//! The inventory names what a machine came with; what was changed since is in the database. Edges
//! get an endpoint in which that is settled, so that none of them knows of either. A machine's further
//! controllers have certificates and passwords of their own: none of another is ever sent to one, and
//! one that nobody may go to now is barred and hides nothing of the others.

use crate::model::action::{BootTarget, PowerOp};
use crate::model::controller::place;
use crate::model::facts::{Component, InventoryFacts, SystemFacts, Task};
use crate::model::hardware::{BiosFacts, SecureBootFacts};
use crate::model::storage::StorageFacts;
use crate::model::{Channel, Expect, Fault, FaultClass, Further, Outcome};
use crate::port::capability::VolumeOrder;
use crate::port::session::At;
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
    seats: Arc<Mutex<BTreeMap<At, Seat>>>,
    left: Arc<Notify>,
}

/// Who is at one BMC.
#[derive(Debug, Default)]
struct Seat {
    calls: u32,
    /// Why nobody may come.
    shut: Option<String>,
}

/// A call under way at these BMCs; over when dropped.
#[derive(Debug)]
pub(super) struct Call<'a> {
    access: &'a Access,
    at: Vec<At>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut seats = self.access.seats();
        for at in &self.at {
            if let Some(seat) = seats.get_mut(at) {
                seat.calls = seat.calls.saturating_sub(1);
                if seat.calls == 0 && seat.shut.is_none() {
                    seats.remove(at);
                }
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

fn rotates(whose: &str, why: &str) -> Fault {
    let what = format!("nobody logs in to {whose} now: {why}");
    Fault::new(FaultClass::Throttled, Channel::Bmc, "password-rotation", what)
        .hint("`farrier bmc rotate --list` says how far it is")
        .retry_after(5_000)
}

/// `tls` of an endpoint that is to show this certificate.
fn pinned(pin: &Pin) -> Arc<str> {
    format!("sha256:{}", pin.sha256).into()
}

impl Access {
    pub fn new(secrets: Secrets, pins: Pins) -> Self {
        Self { secrets, pins, seats: Arc::default(), left: Arc::default() }
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<At, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under which name a password of the machine's own is kept, or of its further controller's. A
    /// machine that is known by the serial it was delivered with keeps it under that: a replaced board
    /// comes with its own.
    pub fn own(target: &BmcTarget, controller: Option<&str>) -> String {
        match (target.endpoint.credential.strip_prefix(FACTORY), controller) {
            (Some(serial), None) => format!("bmc/serial/{serial}"),
            _ => format!("bmc/machine/{}", place(&target.name, controller)),
        }
    }

    /// The target with the credential and the certificate that count now.
    ///
    /// # Errors
    /// The inventory wants a pinned certificate, and nobody has accepted one.
    pub fn resolve(&self, target: &BmcTarget) -> Result<BmcTarget, Fault> {
        let mut target = target.clone();
        let own = Self::own(&target, None);
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
        let own =
            |c: &Further| Some(Self::own(target, Some(&c.name))).filter(|o| self.secrets.has(o));
        let controllers = &target.endpoint.controllers;
        let own: Vec<Option<String>> = controllers.iter().map(own).collect();
        if own.iter().all(Option::is_none) && controllers.iter().all(|c| &*c.tls != "pin") {
            return;
        }
        let (machine, mut own) = (&target.name, own.into_iter());
        target.endpoint.controllers.change(|c| {
            if let Some(own) = own.next().flatten() {
                c.credential = own.into();
            }
            let place = place(machine, Some(&c.name));
            match self.pins.get(&place) {
                _ if &*c.tls != "pin" => {}
                Some(pin) => c.tls = pinned(&pin),
                None => c.barred = Some(Arc::new(no_pin("it", &place))),
            }
        });
    }

    /// A place at this machine's BMC and at each of its further controllers that others may go to, for as
    /// long as it is held; and the target as in [`Access::resolve`], the other controllers barred.
    ///
    /// # Errors
    /// A rotation keeps everybody from the BMC; as [`Access::resolve`].
    pub(super) fn enter(&self, target: &BmcTarget) -> Result<(Call<'_>, BmcTarget), Fault> {
        let host = At::host(target.machine);
        let mut seats = self.seats();
        if let Some(why) = seats.get(&host).and_then(|s| s.shut.as_deref()) {
            return Err(rotates(&format!("{}'s BMC", target.name), why));
        }
        let mut barred = BTreeMap::new();
        let mut at = vec![host];
        for c in target.endpoint.controllers.iter() {
            let there = At { machine: target.machine, controller: Some(c.name.clone()) };
            match seats.get(&there).and_then(|s| s.shut.as_deref()) {
                Some(why) => drop(barred.insert(c.name.clone(), Arc::new(rotates("it", why)))),
                None => at.push(there),
            }
        }
        for at in &at {
            seats.entry(at.clone()).or_default().calls += 1;
        }
        drop(seats);
        let call = Call { access: self, at };
        let mut resolved = self.resolve(target)?;
        if !barred.is_empty() {
            resolved.endpoint.controllers.change(|c| {
                c.barred = barred.remove(&c.name).or_else(|| c.barred.take());
            });
        }
        Ok((call, resolved))
    }

    /// From now on nobody gets to this BMC; returns once those who are there have left.
    pub async fn shut(&self, at: &At, why: &str) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // Hears of everyone who leaves after the look.
            left.as_mut().enable();
            self.shut_at_once(at, why);
            if self.seats().get(at).is_none_or(|s| s.calls == 0) {
                return;
            }
            left.await;
        }
    }

    /// The same without waiting, for a start: nobody is there yet.
    pub fn shut_at_once(&self, at: &At, why: &str) {
        self.seats().entry(at.clone()).or_default().shut = Some(why.to_string());
    }

    pub fn open(&self, at: &At) {
        let mut seats = self.seats();
        if let Some(seat) = seats.get_mut(at) {
            seat.shut = None;
            if seat.calls == 0 {
                seats.remove(at);
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
