//! What BMCs can do beyond the daily round: each a trait of its own, so that an edge offers what its
//! protocol has and nothing pretends. Redfish offers all, IPMI a few.
//!
//! As with every write: what the action expects is re-read on the same channel first, it is sent
//! once, and done means read back.

use super::{BmcTarget, Secret};
use crate::model::action::BootTarget;
pub use crate::model::hardware::BootMode;
use crate::model::hardware::{
    Abilities, Account, AccountRules, BiosFacts, ClockFacts, Controller, LogEntry, MediaSlot,
    SecureBootFacts, Sensor, Volume,
};
use crate::model::quirks::Quirks;
use crate::model::{Expect, Fault, Outcome};
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

#[async_trait]
pub trait BmcAbilities: Send + Sync {
    /// What the BMC is and says it can do; nothing is tried.
    async fn abilities(&self, bmc: &BmcTarget) -> Result<Abilities, Fault>;
}

/// An image that a BMC is to show its host as a drive.
#[derive(Clone, Debug)]
pub struct MediaOrder {
    /// Plain, short, no query string (field notes R22).
    pub image_url: String,
    /// `CD`, `USBStick`, …
    pub kind: String,
}

#[async_trait]
pub trait BmcMedia: Send + Sync {
    async fn media(&self, bmc: &BmcTarget) -> Result<Vec<MediaSlot>, Fault>;
    /// Ejects what is in the slot first, whatever the BMC says of it.
    async fn insert(&self, bmc: &BmcTarget, expect: &Expect, order: &MediaOrder) -> Outcome;
    /// Every slot that may hold an image of ours is emptied.
    async fn eject(&self, bmc: &BmcTarget, expect: &Expect) -> Outcome;
}

#[async_trait]
pub trait BmcBios: Send + Sync {
    async fn bios(&self, bmc: &BmcTarget) -> Result<BiosFacts, Fault>;
    /// Leaves the settings pending; the next POST applies them.
    async fn set_bios(
        &self,
        bmc: &BmcTarget,
        expect: &Expect,
        attributes: &BTreeMap<String, Value>,
    ) -> Outcome;
    async fn secure_boot(&self, bmc: &BmcTarget) -> Result<SecureBootFacts, Fault>;
    async fn set_secure_boot(&self, bmc: &BmcTarget, expect: &Expect, on: bool) -> Outcome;
}

#[async_trait]
pub trait BmcLog: Send + Sync {
    /// The newest entries of every log, at most `most` of each.
    async fn log(&self, bmc: &BmcTarget, most: usize) -> Result<Vec<LogEntry>, Fault>;
}

#[async_trait]
pub trait BmcSensors: Send + Sync {
    async fn sensors(&self, bmc: &BmcTarget) -> Result<Vec<Sensor>, Fault>;
}

/// A volume to be made.
#[derive(Clone, Debug)]
pub struct VolumeOrder {
    /// `RAID1`, …
    pub raid: String,
    pub name: String,
    /// Serials of the drives; every one must be found, once.
    pub drives: Vec<String>,
}

#[async_trait]
pub trait BmcVolumes: Send + Sync {
    async fn volumes(&self, bmc: &BmcTarget) -> Result<Vec<Volume>, Fault>;
    /// `Applied{handle}` carries the task's path where there is one. Destroys what the drives hold.
    async fn create(&self, bmc: &BmcTarget, expect: &Expect, order: &VolumeOrder) -> Outcome;
}

#[async_trait]
pub trait BmcClock: Send + Sync {
    async fn clock(&self, bmc: &BmcTarget) -> Result<ClockFacts, Fault>;
}

#[async_trait]
pub trait BmcAccounts: Send + Sync {
    async fn accounts(&self, bmc: &BmcTarget) -> Result<(AccountRules, Vec<Account>), Fault>;
    /// What BMCs of this kind ask of passwords: for one that shows nothing before its password was
    /// changed.
    async fn known_rules(&self, bmc: &BmcTarget) -> Result<AccountRules, Fault>;
    /// Sets the password of `user`, an account that is there.
    async fn set_password(&self, bmc: &BmcTarget, user: &str, password: &Secret) -> Outcome;
    /// Does this login work? One try, in a session of its own that is ended again.
    async fn verify(&self, bmc: &BmcTarget, user: &str, password: &Secret) -> Result<(), Fault>;
}

/// The same at a machine's further controller of this name. A password is set only where two are proven:
/// the host by its BMC's identity, the controller by the serial that the inventory gives it.
#[async_trait]
pub trait FurtherAccounts: Send + Sync {
    async fn accounts_at(
        &self,
        bmc: &BmcTarget,
        controller: &str,
    ) -> Result<(AccountRules, Vec<Account>), Fault>;
    async fn set_password_at(
        &self,
        bmc: &BmcTarget,
        controller: &str,
        user: &str,
        password: &Secret,
    ) -> Outcome;
    async fn verify_at(
        &self,
        bmc: &BmcTarget,
        controller: &str,
        user: &str,
        password: &Secret,
    ) -> Result<(), Fault>;
    /// Logs out there and nowhere else.
    async fn end_sessions_at(&self, bmc: &BmcTarget, controller: &str) -> Result<(), Fault>;
}

/// A boot override with all that one can have.
#[derive(Clone, Debug)]
pub struct BootOrder {
    pub target: BootTarget,
    /// `None`: as it is.
    pub mode: Option<BootMode>,
    /// Until it is taken back, not once. Refused where the BMC forgets it.
    pub continuous: bool,
}

impl BootOrder {
    /// Once, in the mode that is set.
    pub fn once(target: BootTarget) -> Self {
        Self { target, mode: None, continuous: false }
    }
}

#[async_trait]
pub trait BmcBoot: Send + Sync {
    async fn boot(&self, bmc: &BmcTarget, expect: &Expect, order: &BootOrder) -> Outcome;
}

/// What an edge knows of a BMC besides its hardware.
#[async_trait]
pub trait BmcNature: Send + Sync {
    /// The host's BMC first.
    async fn controllers(&self, bmc: &BmcTarget) -> Result<Vec<Controller>, Fault>;
    /// What this BMC does otherwise than the standard.
    async fn quirks(&self, bmc: &BmcTarget) -> Result<Arc<Quirks>, Fault>;
}

/// How much of a console is taken down.
#[derive(Clone, Debug)]
pub struct CaptureOrder {
    /// Made anew, readable by its owner alone; one that is there is not written over.
    pub into: PathBuf,
    pub for_ms: u64,
    pub max_bytes: u64,
}

/// Why a capture ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureEnd {
    /// Its time was over.
    Time,
    /// It was as long as it may be.
    Size,
    /// The BMC ended it: another console was opened, or the BMC restarted.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    pub bytes: u64,
    pub end: CaptureEnd,
}

/// The host's serial console as the BMC shows it.
#[async_trait]
pub trait BmcConsole: Send + Sync {
    /// Takes the console away from whoever has it, and writes what it says to a file. Nothing is
    /// typed. Passwords of the BMC are taken out of what is written.
    async fn capture(&self, bmc: &BmcTarget, order: &CaptureOrder) -> Result<Captured, Fault>;
}
