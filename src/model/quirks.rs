//! What BMCs do otherwise than the standard, as data: what holds for one BMC. `rules` says of which,
//! and `bmc-quirks.toml` is the table that ships. No rule is needed for a BMC that follows DSP0266 and
//! DSP0268: the defaults are for that one.

mod rules;

pub use rules::{QuirkSet, QuirkTable, Rule, Subject, When, numbers};

use super::action::{BootTarget, PowerOp};
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;

/// What holds for one BMC.
#[derive(Clone, Debug, PartialEq)]
pub struct Quirks {
    /// Names of the rules that fit, in their order.
    pub rules: Vec<String>,
    pub boot: BootQuirks,
    pub reset: ResetQuirks,
    pub media: MediaQuirks,
    pub ac_cycle: Option<AcCycle>,
    pub session: SessionQuirks,
    pub etag: EtagQuirks,
    pub update: UpdateQuirks,
    pub account: AccountQuirks,
    /// Seconds after a BMC reset before its answers are those of the new start (field notes R20).
    pub bmc_settle_s: u32,
    /// `$expand` may be used where the service says it can (R23).
    pub expand: bool,
    /// The serial on the label is `SKU`, not `SerialNumber`.
    pub service_tag: bool,
}

/// What the PATCH of the boot override holds (field notes §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootForm {
    /// Enabled and Target; with Mode where that is turned down.
    #[default]
    Minimal,
    /// Enabled, Target and Mode together, or the BMC falls back to defaults.
    Triple,
    /// Never Mode: it is not writable.
    NoMode,
}

/// Where the boot override is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootAt {
    /// The settings object where it holds the boot properties, else the system.
    #[default]
    Found,
    System,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BootQuirks {
    pub form: BootForm,
    pub at: BootAt,
    /// `Continuous` is kept over restarts. Where it is not, an override is set once before each.
    pub continuous: bool,
    /// Spellings of a target, best first.
    pub names: BTreeMap<BootTarget, Vec<String>>,
}

/// What is reset, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResetOf {
    On,
    ForceOff,
    GracefulShutdown,
    Restart,
    Bmc,
}

impl From<PowerOp> for ResetOf {
    fn from(op: PowerOp) -> Self {
        match op {
            PowerOp::On => ResetOf::On,
            PowerOp::ForceOff => ResetOf::ForceOff,
            PowerOp::GracefulShutdown => ResetOf::GracefulShutdown,
            PowerOp::ForceRestart => ResetOf::Restart,
        }
    }
}

/// Ways to do it, best first; each is the ResetTypes that it takes, one after the other. An action
/// is one act: a way of several is for whoever orders them one by one.
pub type Ladder = Vec<Vec<String>>;

#[derive(Clone, Debug, PartialEq)]
pub struct ResetQuirks {
    pub ladders: BTreeMap<ResetOf, Ladder>,
    /// Seconds to wait after a reset that was refused for the state the machine is in (R11).
    pub conflict_retry_s: u32,
}

/// Which collection of virtual drives is looked at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MediaFirst {
    #[default]
    Managers,
    Systems,
}

/// One way to insert an image: the properties that are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaBody {
    /// PATCH of the drive, not its InsertMedia action (Lenovo's EXT drives have none).
    pub patch: bool,
    /// Besides `Image`.
    pub fields: Vec<MediaField>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MediaField {
    /// `true`.
    Inserted,
    /// `true`.
    WriteProtected,
    /// The URL's scheme in capitals.
    TransferProtocolType,
    /// `Stream`.
    TransferMethod,
    /// Empty `UserName` and `Password`.
    Credentials,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaQuirks {
    pub first: MediaFirst,
    /// Ids of drives to prefer, best first; else any that takes the kind.
    pub slots: Vec<String>,
    /// Tried one after the other while the BMC plainly turns them down.
    pub bodies: Vec<MediaBody>,
    /// Schemes that it fetches by, lower case; empty: any.
    pub protocols: Vec<String>,
    /// Seconds that a drive goes on saying it is full after an eject.
    pub settle_s: u32,
}

/// Where an action is advertised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionOn {
    System,
    Manager,
    /// The chassis with this id.
    Chassis(String),
}

/// Cutting the power of the whole machine and giving it back. Only ever begun with the host off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcCycle {
    Action(AcAction),
    /// A BIOS attribute that is left for the next POST; the host is then switched on for it, and the
    /// power goes once that POST is through.
    Setting {
        attribute: String,
        value: String,
    },
}

/// An action of the vendor's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcAction {
    pub on: ActionOn,
    /// Name below `Actions` or `Actions.Oem`, as `#LenovoComputerSystem.SystemReset`.
    pub action: String,
    /// The action's target where the BMC does not advertise it; `{system}` stands for the system's
    /// path.
    pub path: Option<String>,
    /// `ResetType` of its body.
    pub reset_type: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionQuirks {
    /// Seconds without a request after which a session is gone.
    pub timeout_s: Option<u32>,
    /// Refused logins that lock the account.
    pub lockout_threshold: Option<u32>,
    /// Seconds that a lock lasts, and in which refusals are counted.
    pub lockout_s: Option<u32>,
    /// Sessions that there can be at once, everybody's together.
    pub most: Option<u32>,
}

/// What is said in If-Match (field notes R12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfMatch {
    /// The ETag that was read, then its other spellings, `*`, and nothing.
    #[default]
    Ladder,
    Never,
    /// `*` first.
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtagQuirks {
    pub patch: IfMatch,
    /// Action POSTs: harmful on some, wanted by few.
    pub action: IfMatch,
}

/// How an image comes to the BMC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdateWay {
    /// SimpleUpdate where there is one, else a push.
    #[default]
    Found,
    Pull,
    Push,
    /// A push where the image is at hand and the BMC takes it, else SimpleUpdate.
    PushFirst,
}

/// How an image is pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PushForm {
    /// MultipartHttpPushUri where there is one, else HttpPushUri.
    #[default]
    Found,
    Multipart,
    Raw,
    /// This BMC's push is none that Farrier speaks.
    None,
}

/// `Targets` of a push for inventory members whose id fits.
#[derive(Clone, Debug)]
pub struct PushTarget {
    pub member: Regex,
    pub target: String,
    /// `Oem` of the parameters, for what the vendor loses unless it is told to keep it.
    pub oem: Option<Value>,
}

impl PartialEq for PushTarget {
    fn eq(&self, other: &Self) -> bool {
        self.member.as_str() == other.member.as_str()
            && self.target == other.target
            && self.oem == other.oem
    }
}

/// Where a BMC says of an update or a copy what none of its tasks does.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    pub on: WorkOn,
    /// Below the document's top, as `/Oem/Hpe/State`.
    pub property: String,
    /// Words for: nothing goes on. Any word that is in none of the lists means that something does.
    pub idle: Vec<String>,
    /// Words for: it ended well.
    pub done: Vec<String>,
    pub failed: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum WorkOn {
    /// The update service.
    Service,
    /// Each chassis whose id fits.
    Chassis(Regex),
}

impl PartialEq for WorkOn {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (WorkOn::Service, WorkOn::Service) => true,
            (WorkOn::Chassis(a), WorkOn::Chassis(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateQuirks {
    pub way: UpdateWay,
    pub push: PushForm,
    /// The first that fits; none: the member itself.
    pub targets: Vec<PushTarget>,
    /// `UpdateParameters` must have an empty `Oem`.
    pub oem: bool,
    /// `HttpPushUriTargetsBusy` is taken before a push and given back after it.
    pub busy_flag: bool,
    /// SimpleUpdate's target where the advertised one does not work.
    pub simple_update: Option<String>,
    /// Looked at wherever tasks are.
    pub works: Vec<Work>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountQuirks {
    pub password_min: Option<u32>,
    pub password_max: Option<u32>,
    /// Characters of an account's name.
    pub user_max: Option<u32>,
}

fn ways(types: &[&[&str]]) -> Ladder {
    types.iter().map(|way| way.iter().map(ToString::to_string).collect()).collect()
}

impl Default for Quirks {
    fn default() -> Self {
        let body = |fields: &[MediaField]| MediaBody { patch: false, fields: fields.to_vec() };
        use MediaField::*;
        let names = |all: &[&str]| all.iter().map(ToString::to_string).collect();
        Self {
            rules: Vec::new(),
            boot: BootQuirks {
                form: BootForm::Minimal,
                at: BootAt::Found,
                continuous: true,
                names: BTreeMap::from([
                    (BootTarget::Pxe, names(&["Pxe"])),
                    (BootTarget::UefiHttp, names(&["UefiHttp"])),
                    (BootTarget::Cd, names(&["Cd", "UsbCd"])),
                    (BootTarget::Disk, names(&["Hdd"])),
                    (BootTarget::None, names(&["None"])),
                ]),
            },
            reset: ResetQuirks {
                ladders: BTreeMap::from([
                    (ResetOf::On, ways(&[&["On"], &["ForceOn"]])),
                    (ResetOf::ForceOff, ways(&[&["ForceOff"]])),
                    (ResetOf::GracefulShutdown, ways(&[&["GracefulShutdown"]])),
                    (ResetOf::Restart, ways(&[&["ForceRestart"], &["ForceOff", "On"]])),
                    (ResetOf::Bmc, ways(&[&["GracefulRestart"], &["ForceRestart"]])),
                ]),
                conflict_retry_s: 10,
            },
            media: MediaQuirks {
                first: MediaFirst::Managers,
                slots: Vec::new(),
                bodies: vec![
                    body(&[Inserted, WriteProtected]),
                    body(&[Inserted]),
                    body(&[]),
                    body(&[Inserted, TransferProtocolType]),
                    body(&[Inserted, TransferProtocolType, TransferMethod]),
                    body(&[Inserted, TransferProtocolType, Credentials]),
                    MediaBody { patch: true, fields: vec![Inserted] },
                ],
                protocols: Vec::new(),
                settle_s: 10,
            },
            ac_cycle: None,
            session: SessionQuirks::default(),
            etag: EtagQuirks { patch: IfMatch::Ladder, action: IfMatch::Never },
            update: UpdateQuirks::default(),
            account: AccountQuirks::default(),
            bmc_settle_s: 10,
            expand: true,
            service_tag: false,
        }
    }
}
