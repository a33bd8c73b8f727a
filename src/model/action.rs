//! Acts on the outside world: a fixed vocabulary with ONE table of class, redo, deadline, limit.

use super::fault::Fault;
use super::limit::LimitClass;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// A power change (DSP0268 ResetType, as far as Farrier uses it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerOp {
    On,
    ForceOff,
    GracefulShutdown,
    /// Where the BMC has no restart, the step does off and on by itself.
    ForceRestart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootTarget {
    Pxe,
    UefiHttp,
    Cd,
    Disk,
    /// No override.
    None,
}

impl BootTarget {
    /// `BootSourceOverrideTarget` values that mean it (DSP0268 ComputerSystem.Boot).
    pub fn redfish_names(self) -> &'static [&'static str] {
        match self {
            BootTarget::Pxe => &["Pxe"],
            BootTarget::UefiHttp => &["UefiHttp"],
            BootTarget::Cd => &["Cd", "UsbCd"],
            BootTarget::Disk => &["Hdd"],
            BootTarget::None => &["None"],
        }
    }
}

/// What the cluster provider is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookVerb {
    Join,
    Cordon,
    Uncordon,
    Leave,
}

impl HookVerb {
    pub fn name(self) -> &'static str {
        match self {
            HookVerb::Join => "join",
            HookVerb::Cordon => "cordon",
            HookVerb::Uncordon => "uncordon",
            HookVerb::Leave => "leave",
        }
    }
}

/// A script that Farrier ships and runs as a named job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobScript {
    /// Burn-in preset `smoke`: GPU inventory, `dcgmi diag -r 1` where it is.
    Smoke,
    /// Overwrites the machine's local disks. Destroys data.
    Wipe,
}

impl JobScript {
    pub fn name(self) -> &'static str {
        match self {
            JobScript::Smoke => "smoke",
            JobScript::Wipe => "wipe",
        }
    }
}

/// One act on the outside world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    Power {
        op: PowerOp,
    },
    BmcReset {
        /// A further controller of the machine, by its name; none: the host's BMC.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        controller: Option<Box<str>>,
    },
    SetBoot {
        target: BootTarget,
    },
    /// Let the boot server answer this machine until its callback.
    OpenBootWindow {
        image: String,
        run: String,
        allow_existing_data: bool,
        /// Whom the deploy ramdisk lets in besides Farrier: OpenSSH public keys.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keys: Vec<String>,
    },
    CloseBootWindow {
        run: String,
    },
    UpdateFirmware {
        /// Catalog component: `bmc`, `bios`, …
        component: String,
        /// Firmware inventory member that is updated.
        inventory_id: String,
        from: String,
        to: String,
        /// File below the catalog's directory.
        file: String,
        sha256: String,
    },
    StartJob {
        script: JobScript,
        /// Name on the host: unique per intent, so a lost answer can be found again.
        name: String,
        timeout_ms: u64,
    },
    /// Write the image to the root disk, from within the deploy ramdisk.
    Deploy {
        image: String,
        run: String,
        /// Public half of the SSH host key that the installed system will have; refused when the
        /// boot window has made another one since.
        host_key: String,
        /// The job's name on the host, as in [`Action::StartJob`].
        name: String,
        timeout_ms: u64,
        allow_existing_data: bool,
    },
    /// Put the ramdisk's medium, made for this run, into the BMC's virtual drive.
    InsertMedia {
        run: String,
    },
    /// Empty the BMC's virtual drives.
    EjectMedia,
    /// Leave these BIOS attributes for the next POST.
    SetBios {
        attributes: BTreeMap<String, Value>,
    },
    /// UEFI Secure Boot from the next POST on.
    SetSecureBoot {
        on: bool,
    },
    /// Make a volume of whole drives, told by their serials. Destroys data.
    CreateVolume {
        /// `RAID1`, …
        raid: String,
        name: String,
        drives: Vec<String>,
    },
    Hook {
        verb: HookVerb,
    },
    /// Log out and remove what Farrier left on the BMC.
    EndBmcSessions,
}

/// [`Action`] without its data: the key of [`CLASSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionKind {
    PowerOn,
    PowerOff,
    PowerRestart,
    BmcReset,
    SetBoot,
    OpenBootWindow,
    CloseBootWindow,
    UpdateFirmware,
    BurnInJob,
    WipeJob,
    DeployJob,
    InsertMedia,
    EjectMedia,
    SetBios,
    SetSecureBoot,
    CreateVolume,
    Hook,
    EndBmcSessions,
}

impl ActionKind {
    pub const ALL: [ActionKind; 18] = [
        ActionKind::PowerOn,
        ActionKind::PowerOff,
        ActionKind::PowerRestart,
        ActionKind::BmcReset,
        ActionKind::SetBoot,
        ActionKind::OpenBootWindow,
        ActionKind::CloseBootWindow,
        ActionKind::UpdateFirmware,
        ActionKind::BurnInJob,
        ActionKind::WipeJob,
        ActionKind::DeployJob,
        ActionKind::InsertMedia,
        ActionKind::EjectMedia,
        ActionKind::SetBios,
        ActionKind::SetSecureBoot,
        ActionKind::CreateVolume,
        ActionKind::Hook,
        ActionKind::EndBmcSessions,
    ];

    pub fn name(self) -> &'static str {
        match self {
            ActionKind::PowerOn => "power-on",
            ActionKind::PowerOff => "power-off",
            ActionKind::PowerRestart => "power-restart",
            ActionKind::BmcReset => "bmc-reset",
            ActionKind::SetBoot => "set-boot",
            ActionKind::OpenBootWindow => "open-boot-window",
            ActionKind::CloseBootWindow => "close-boot-window",
            ActionKind::UpdateFirmware => "update-firmware",
            ActionKind::BurnInJob => "burn-in-job",
            ActionKind::WipeJob => "wipe-job",
            ActionKind::DeployJob => "deploy-job",
            ActionKind::InsertMedia => "insert-media",
            ActionKind::EjectMedia => "eject-media",
            ActionKind::SetBios => "set-bios",
            ActionKind::SetSecureBoot => "set-secure-boot",
            ActionKind::CreateVolume => "create-volume",
            ActionKind::Hook => "hook",
            ActionKind::EndBmcSessions => "end-bmc-sessions",
        }
    }

    pub fn class(self) -> &'static Class {
        &CLASSES[self as usize].1
    }
}

impl fmt::Display for ActionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Action {
    /// What a reset of the host's BMC is about; no further controller is called so.
    pub const BMC: &'static str = "bmc";
    /// How the names of deploy jobs begin.
    pub const DEPLOY: &'static str = "deploy";

    /// The further controller that it is carried out at; `None`: the host's BMC, or no BMC at all.
    pub fn controller(&self) -> Option<&str> {
        match self {
            Action::BmcReset { controller } => controller.as_deref(),
            Action::UpdateFirmware { inventory_id, .. } => super::controller::split(inventory_id).0,
            _ => None,
        }
    }

    pub fn kind(&self) -> ActionKind {
        match self {
            Action::Power { op: PowerOp::On } => ActionKind::PowerOn,
            Action::Power { op: PowerOp::ForceOff | PowerOp::GracefulShutdown } => {
                ActionKind::PowerOff
            }
            Action::Power { op: PowerOp::ForceRestart } => ActionKind::PowerRestart,
            Action::BmcReset { .. } => ActionKind::BmcReset,
            Action::SetBoot { .. } => ActionKind::SetBoot,
            Action::OpenBootWindow { .. } => ActionKind::OpenBootWindow,
            Action::CloseBootWindow { .. } => ActionKind::CloseBootWindow,
            Action::UpdateFirmware { .. } => ActionKind::UpdateFirmware,
            Action::StartJob { script: JobScript::Smoke, .. } => ActionKind::BurnInJob,
            Action::StartJob { script: JobScript::Wipe, .. } => ActionKind::WipeJob,
            Action::Deploy { .. } => ActionKind::DeployJob,
            Action::InsertMedia { .. } => ActionKind::InsertMedia,
            Action::EjectMedia => ActionKind::EjectMedia,
            Action::SetBios { .. } => ActionKind::SetBios,
            Action::SetSecureBoot { .. } => ActionKind::SetSecureBoot,
            Action::CreateVolume { .. } => ActionKind::CreateVolume,
            Action::Hook { .. } => ActionKind::Hook,
            Action::EndBmcSessions => ActionKind::EndBmcSessions,
        }
    }
}

/// Short: seconds, hard deadline. Transfer: alive while it progresses. Job: launched, leaves a
/// name, is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duration {
    Short,
    Transfer,
    Job,
}

/// What may be done when an intent's outcome is unknown and the probe says "did not happen" or
/// "can't tell".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redo {
    /// Doing it twice is doing it once.
    Freely,
    /// Only while what it expects still holds (the edge re-reads it on the same channel).
    IfStill,
    /// Launched under our name: found by it, never started under it again.
    Named,
    /// Only on evidence that it did not happen; else quarantine.
    Never,
}

/// Which state an action writes to. One write at a time per BMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    Bmc,
    Power,
    Disk,
    Os,
    Cluster,
    Boot,
}

/// The class of an action kind.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    pub duration: Duration,
    pub redo: Redo,
    pub touches: &'static [Touch],
    /// Milliseconds until a call without an answer counts as outcome unknown.
    pub deadline_ms: u64,
    /// Milliseconds after the deadline in which a BMC may still apply a call it took.
    pub lag_ms: u64,
    /// Headroom held from intent until the launched work is observed finished.
    pub limit: Option<LimitClass>,
    /// May cost data or interrupt workloads: refused on unmanaged and held machines.
    pub destructive: bool,
}

const fn class(
    duration: Duration,
    redo: Redo,
    touches: &'static [Touch],
    deadline_s: u64,
    lag_s: u64,
    limit: Option<LimitClass>,
    destructive: bool,
) -> Class {
    Class {
        duration,
        redo,
        touches,
        deadline_ms: deadline_s * 1000,
        lag_ms: lag_s * 1000,
        limit,
        destructive,
    }
}

/// The one table, in [`ActionKind::ALL`] order. Deadlines: a BMC read or write answers within 60 s
/// (field notes R7); lags: a BMC may apply a power change up to 60 s late (§4 there), a task may
/// appear two minutes after its SimpleUpdate (downloads start late).
#[rustfmt::skip]
pub const CLASSES: [(ActionKind, Class); 18] = [
    (ActionKind::PowerOn,         class(Duration::Short, Redo::IfStill, &[Touch::Bmc, Touch::Power], 60, 60, Some(LimitClass::Power), false)),
    (ActionKind::PowerOff,        class(Duration::Short, Redo::IfStill, &[Touch::Bmc, Touch::Power, Touch::Os], 60, 60, Some(LimitClass::Power), true)),
    (ActionKind::PowerRestart,    class(Duration::Short, Redo::IfStill, &[Touch::Bmc, Touch::Power, Touch::Os], 60, 60, Some(LimitClass::Power), true)),
    (ActionKind::BmcReset,        class(Duration::Short, Redo::IfStill, &[Touch::Bmc], 60, 60, None, true)),
    (ActionKind::SetBoot,         class(Duration::Short, Redo::Freely, &[Touch::Bmc], 60, 30, None, true)),
    (ActionKind::OpenBootWindow,  class(Duration::Short, Redo::Freely, &[Touch::Boot], 60, 0, None, false)),
    (ActionKind::CloseBootWindow, class(Duration::Short, Redo::Freely, &[Touch::Boot], 60, 0, None, false)),
    (ActionKind::UpdateFirmware,  class(Duration::Job, Redo::Never, &[Touch::Bmc], 120, 120, Some(LimitClass::Flash), true)),
    (ActionKind::BurnInJob,       class(Duration::Job, Redo::Named, &[Touch::Os], 60, 0, Some(LimitClass::BurnIn), true)),
    (ActionKind::WipeJob,         class(Duration::Job, Redo::Named, &[Touch::Disk, Touch::Os], 60, 0, None, true)),
    (ActionKind::DeployJob,       class(Duration::Job, Redo::Named, &[Touch::Disk, Touch::Os], 60, 0, None, true)),
    (ActionKind::InsertMedia,     class(Duration::Short, Redo::IfStill, &[Touch::Bmc], 120, 30, None, true)),
    (ActionKind::EjectMedia,      class(Duration::Short, Redo::Freely, &[Touch::Bmc], 120, 30, None, true)),
    (ActionKind::SetBios,         class(Duration::Short, Redo::Freely, &[Touch::Bmc], 120, 30, None, true)),
    (ActionKind::SetSecureBoot,   class(Duration::Short, Redo::Freely, &[Touch::Bmc], 60, 30, None, true)),
    (ActionKind::CreateVolume,    class(Duration::Job, Redo::Never, &[Touch::Bmc, Touch::Disk], 120, 120, None, true)),
    (ActionKind::Hook,            class(Duration::Short, Redo::IfStill, &[Touch::Cluster], 120, 0, None, true)),
    (ActionKind::EndBmcSessions,  class(Duration::Short, Redo::Freely, &[Touch::Bmc], 60, 0, None, false)),
];

/// What the edge re-reads on the same channel just before the write, and refuses on mismatch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expect {
    pub identity: super::Identity,
    /// Power that must still be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<super::facts::Power>,
    /// Firmware version that must still be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_version: Option<String>,
}

/// The state before an intent, to tell later whether it took hold (design law 1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<super::facts::Power>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reset: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
}

/// How an action ended, as the edge saw it. Never "done": done is observed by a later probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// The other side took it. `handle`: where the launched work is followed (task path), or
    /// `ipmi:…` where it went out over IPMI and nothing is left to follow.
    Applied {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handle: Option<String>,
    },
    /// The edge re-read what the action expects and it was not so; nothing was sent.
    /// `wrong_machine`: what differed was the identity.
    Refused {
        saw: String,
        #[serde(default)]
        wrong_machine: bool,
    },
    /// The other side said no, or nothing was sent: it did not take hold.
    Failed { fault: Fault },
    /// Sent; no or no clear answer.
    Unknown { fault: Fault },
    /// Withdrawn before it started (a newer change, a stop).
    Withdrawn { why: String },
}

impl Action {
    /// What it is about, in a few words: the component, the target, the job.
    pub fn about(&self) -> String {
        match self {
            Action::Power { op } => match op {
                PowerOp::On => "on".into(),
                PowerOp::ForceOff => "force-off".into(),
                PowerOp::GracefulShutdown => "graceful-shutdown".into(),
                PowerOp::ForceRestart => "force-restart".into(),
            },
            Action::BmcReset { controller: Some(name) } => name.to_string(),
            Action::BmcReset { controller: None } | Action::EndBmcSessions => Self::BMC.into(),
            Action::SetBoot { target } => match target {
                BootTarget::Pxe => "pxe".into(),
                BootTarget::UefiHttp => "uefi-http".into(),
                BootTarget::Cd => "cd".into(),
                BootTarget::Disk => "disk".into(),
                BootTarget::None => "none".into(),
            },
            Action::OpenBootWindow { run, .. } | Action::CloseBootWindow { run } => run.clone(),
            Action::UpdateFirmware { component, .. } => component.clone(),
            Action::StartJob { name, .. } | Action::Deploy { name, .. } => name.clone(),
            Action::InsertMedia { run } => run.clone(),
            Action::EjectMedia => "media".into(),
            Action::SetBios { attributes } => few(attributes.keys()),
            Action::SetSecureBoot { on } => if *on { "on" } else { "off" }.into(),
            Action::CreateVolume { raid, drives, .. } => {
                format!("{raid} of {}", few(drives.iter()))
            }
            Action::Hook { verb } => verb.name().into(),
        }
    }
}

/// The first of some names, and how many more there are: a row keeps this.
fn few<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    const NAMED: usize = 3;
    let more = names.len().saturating_sub(NAMED);
    let named: Vec<&str> = names.take(NAMED).map(String::as_str).collect();
    match more {
        0 => named.join(", "),
        n => format!("{} and {n} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_of_the_hosts_bmc_reads_and_writes_as_it_always_did() {
        let old = r#"{"action":"bmc-reset"}"#;
        let host = Action::BmcReset { controller: None };
        assert_eq!(serde_json::from_str::<Action>(old).unwrap(), host);
        assert_eq!(serde_json::to_string(&host).unwrap(), old);
        let hgx = Action::BmcReset { controller: Some("hgx".into()) };
        let json = serde_json::to_string(&hgx).unwrap();
        assert_eq!(json, r#"{"action":"bmc-reset","controller":"hgx"}"#);
        assert_eq!(serde_json::from_str::<Action>(&json).unwrap(), hgx);
        assert_eq!((host.about(), hgx.about()), ("bmc".into(), "hgx".into()));
        assert_eq!((host.controller(), hgx.controller()), (None, Some("hgx")));
    }

    #[test]
    fn the_table_is_in_order() {
        for (i, kind) in ActionKind::ALL.into_iter().enumerate() {
            assert_eq!(CLASSES[i].0, kind);
        }
    }
}
