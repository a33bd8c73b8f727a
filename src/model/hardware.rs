//! What a BMC can show and do beyond the facts that decisions read: media, BIOS settings, logs,
//! sensors, volumes, accounts. Every field is optional where a BMC may not say.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a BMC is, and what it says it can do to its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// `Vendor` of the service root (DSP0268 ServiceRoot).
    pub vendor: Option<String>,
    /// `RedfishVersion` of the service root.
    pub redfish: Option<String>,
    pub bmc_model: Option<String>,
    pub bmc_firmware: Option<String>,
    /// Values of ComputerSystem.Reset, in the BMC's order; empty: it does not say.
    pub reset_types: Vec<String>,
    /// Values of Manager.Reset; empty: it does not say.
    pub bmc_reset_types: Vec<String>,
    /// Values of `BootSourceOverrideTarget`; empty: it does not say.
    pub boot_targets: Vec<String>,
    pub boot_options: Vec<BootOption>,
    /// Ways in which firmware can be brought: `SimpleUpdate`, `multipart push`, `push`.
    pub updates: Vec<String>,
    /// Seconds after which an idle session ends (DSP0268 SessionService).
    pub session_timeout_s: Option<u64>,
    /// Failed logins after which an account is locked; 0: never (DSP0268 AccountService).
    pub lockout_threshold: Option<u64>,
}

/// One entry of the boot order (DSP0268 BootOption).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootOption {
    /// What the boot order calls it: `Boot0003`.
    pub reference: String,
    pub name: Option<String>,
    pub enabled: Option<bool>,
    pub uefi_path: Option<String>,
}

/// A virtual drive of a BMC (DSP0268 VirtualMedia).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaSlot {
    pub id: String,
    /// Resource path.
    pub uri: String,
    /// `CD`, `DVD`, `USBStick`, `Floppy` as the BMC spells them.
    pub kinds: Vec<String>,
    pub image: Option<String>,
    /// As the BMC says it; some go on saying `true` for seconds after an eject.
    pub inserted: Option<bool>,
}

/// BIOS attributes in force, and those that wait for the next POST (DSP0268 Bios).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BiosFacts {
    pub attributes: BTreeMap<String, Value>,
    /// Those of the settings object that differ from what is in force.
    pub pending: BTreeMap<String, Value>,
    /// Name of the attribute registry, which explains them.
    pub registry: Option<String>,
}

impl BiosFacts {
    /// What the attribute will be after the next POST.
    pub fn planned(&self, name: &str) -> Option<&Value> {
        self.pending.get(name).or_else(|| self.attributes.get(name))
    }
}

impl SecureBootFacts {
    /// In force now, as far as the BMC says so; some show only what is wanted.
    pub fn now(&self) -> Option<bool> {
        self.in_force.or(self.enabled)
    }
}

/// UEFI Secure Boot (DSP0268 SecureBoot).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureBootFacts {
    /// Wanted from the next boot on.
    pub enabled: Option<bool>,
    /// In force now.
    pub in_force: Option<bool>,
    /// `UserMode`, `SetupMode`, …
    pub mode: Option<String>,
}

/// Firmware that reads the boot medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootMode {
    Uefi,
    Legacy,
}

impl BootMode {
    pub const ALL: [BootMode; 2] = [BootMode::Uefi, BootMode::Legacy];

    pub fn name(self) -> &'static str {
        match self {
            BootMode::Uefi => "uefi",
            BootMode::Legacy => "legacy",
        }
    }
}

/// A line of a BMC's log: the SEL, or a log service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Which log: `SEL`, `Lclog`, …
    pub log: String,
    pub id: String,
    /// As the BMC spells it: its clock may be wrong and its zone missing.
    pub at: Option<String>,
    /// `OK`, `Warning`, `Critical`.
    pub severity: Option<String>,
    pub code: Option<String>,
    pub message: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SensorKind {
    Power,
    Temperature,
    Fan,
    Voltage,
    /// A leak detector of a liquid cooling loop.
    Leak,
    #[default]
    Other,
}

/// One reading of a chassis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sensor {
    pub name: String,
    pub kind: SensorKind,
    pub value: Option<f64>,
    /// `W`, `Cel`, `RPM`, `V`; for a leak detector its state is in `health`.
    pub unit: Option<String>,
    /// `OK`, `Warning`, `Critical`.
    pub health: Option<String>,
}

/// A RAID or boot volume (DSP0268 Volume).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub id: String,
    pub uri: String,
    pub name: Option<String>,
    /// `RAID0`, `RAID1`, …
    pub raid: Option<String>,
    pub capacity_bytes: Option<u64>,
    /// Resource paths of its drives.
    pub drives: Vec<String>,
    /// `OK`, `Warning`, `Critical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// What its controller does with it: `Initialize, 12 %`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
}

/// A BMC's clock beside ours. A wrong one breaks TLS fetches of images (field notes R22).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockFacts {
    /// As the BMC spells it.
    pub says: Option<String>,
    /// Positive: the BMC is ahead. Half a round trip is taken off.
    pub ahead_ms: Option<i64>,
}

/// A user account of a BMC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub uri: String,
    /// Slot or id.
    pub id: String,
    /// Empty in a free slot.
    pub user: String,
    pub role: Option<String>,
    pub enabled: Option<bool>,
    pub locked: Option<bool>,
}

/// What a BMC asks of passwords and how it locks (DSP0268 AccountService).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRules {
    pub min_length: Option<u32>,
    pub max_length: Option<u32>,
    /// Failed logins after which an account is locked; 0 or none: never.
    pub lockout_threshold: Option<u32>,
    pub lockout_duration_s: Option<u32>,
    /// Characters of an account's name; no BMC says it, it is known of some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_max: Option<u32>,
}

/// Whose controller a Redfish manager is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControllerKind {
    /// The BMC of the host: the one that resets it and is reset as "the BMC".
    Host,
    /// Of a GPU baseboard (HGX).
    Baseboard,
    Dpu,
    /// Software that Redfish lists as a manager (a fabric manager).
    Service,
    #[default]
    Other,
}

/// A controller of a machine (DSP0268 Manager).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    pub id: String,
    /// Resource path.
    pub uri: String,
    pub kind: ControllerKind,
    pub model: Option<String>,
    pub firmware: Option<String>,
    /// `OK`, `Warning`, `Critical`.
    pub health: Option<String>,
}
