//! How one vendor's BMCs behave on the wire, as data: how long they take, how many sessions they
//! give, how they refuse, what they leave out. One TOML a vendor in `vendors/`; every figure says
//! there where it comes from. What a profile does not name is as in the clean tree.
//!
//! Seconds and minutes are world time; milliseconds of `pace` are real time, as a client meets them.

use crate::sim::durations::Draw;
use crate::sim::physics::Quirks;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The profiles that ship, by name.
const SHIPPED: [(&str, &str); 7] = [
    ("clean", include_str!("vendors/clean.toml")),
    ("dell", include_str!("vendors/dell.toml")),
    ("hpe", include_str!("vendors/hpe.toml")),
    ("lenovo", include_str!("vendors/lenovo.toml")),
    ("supermicro", include_str!("vendors/supermicro.toml")),
    ("dgx", include_str!("vendors/dgx.toml")),
    ("openbmc", include_str!("vendors/openbmc.toml")),
];

/// A range, both ends included.
pub type Range = (u64, u64);

/// One vendor.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    pub name: String,
    /// `Manufacturer` of the system; the clean tree's is "Farrier".
    pub maker: Option<String>,
    pub ids: Ids,
    pub pace: Pace,
    pub sessions: Sessions,
    pub lockout: Option<Lockout>,
    pub password: Password,
    pub accounts: Accounts,
    pub boot: Boot,
    pub etag: Etag,
    pub errors: Errors,
    pub reset: Reset,
    pub start: Start,
    pub tasks: Tasks,
    pub jobs: Option<Jobs>,
    pub uris: Uris,
    pub hgx: Option<Hgx>,
    pub clock: Clock,
    pub tls: Option<Tls>,
    pub physics: Physics,
    /// Changes of single properties, in order.
    pub edit: Vec<Edit>,
}

/// What resources are called. Empty: as in the clean tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ids {
    pub system: String,
    pub manager: String,
    pub chassis: String,
    /// Comes before a task's number: `JID_`.
    pub task_prefix: String,
}

/// How long answers take, and how many are worked on at once. Draws are `[median, shortest,
/// longest]` in real milliseconds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pace {
    pub root_ms: (u64, u64, u64),
    pub plain_ms: (u64, u64, u64),
    pub big_ms: (u64, u64, u64),
    pub login_ms: (u64, u64, u64),
    pub first_login_ms: (u64, u64, u64),
    pub write_ms: (u64, u64, u64),
    pub tail_ms: (u64, u64, u64),
    /// So many of a million answers take `tail_ms`.
    pub tail_per_million: u32,
    pub workers: Range,
    /// Who waits longer for a worker is turned away with a 503.
    pub queue_ms: u64,
    /// Connections at once; further ones are reset.
    pub connections: usize,
}

impl Default for Pace {
    /// Field notes §6 lines 1 and 2.
    fn default() -> Self {
        Self {
            root_ms: (55, 20, 150),
            plain_ms: (140, 50, 400),
            big_ms: (1_000, 500, 3_000),
            login_ms: (400, 200, 900),
            first_login_ms: (12_000, 10_000, 15_000),
            write_ms: (250, 100, 800),
            tail_ms: (9_000, 5_000, 20_000),
            tail_per_million: 10_000,
            workers: (1, 4),
            queue_ms: 15_000,
            connections: 200,
        }
    }
}

impl Pace {
    /// A draw of one of the fields above.
    pub(super) fn draw((median, shortest, longest): (u64, u64, u64)) -> Draw {
        Draw::new(median, 0.45, shortest, longest)
    }
}

/// What the BMC says when it refuses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    pub status: u16,
    /// `MessageId` with its registry: `Base.1.12.ResourceInUse`.
    pub id: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub args: Vec<String>,
    /// `Retry-After`, seconds.
    #[serde(default)]
    pub retry_after_s: Option<u64>,
}

/// Sessions (field notes §6 line 3). They leak until they expire, as they do in the field.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    pub cap: usize,
    pub idle_s: u64,
    pub full: Said,
    /// Basic is still served when no session is left.
    pub basic: bool,
}

impl Default for Sessions {
    fn default() -> Self {
        let full = Said {
            status: 503,
            id: "Base.1.18.SessionLimitExceeded".into(),
            message: "The session establishment failed due to the number of simultaneous sessions \
                      exceeding the limit of the implementation."
                .into(),
            args: Vec::new(),
            retry_after_s: None,
        };
        Self { cap: 8, idle_s: 1_800, full, basic: true }
    }
}

/// An account that locks itself (field notes §1.3, line 13 of §6).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lockout {
    /// Wrong passwords that lock.
    pub tries: usize,
    /// Counted over so long; 0: since the last right one.
    #[serde(default)]
    pub within_s: u64,
    pub for_s: u64,
}

/// The account's password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Password {
    /// It must be changed first: everything but the own account answers 403
    /// `PasswordChangeRequired` (DSP0266 §"Password change required handling").
    pub change_required: bool,
    /// Shortest and longest; nothing: the clean tree's.
    pub min: Option<usize>,
    pub max: Option<usize>,
}

/// Where accounts are (field notes R10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Accounts {
    /// So many fixed slots, all of them listed: slot 1 is reserved, slot 2 the factory's, the others are
    /// given and emptied by PATCH; none is made by POST (Dell). 0: accounts are made by POST.
    pub slots: usize,
}

/// What happens to `BootSourceOverrideMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    #[default]
    Writable,
    /// Shown, and a PATCH that has it is turned down (HPE).
    Refused,
    Absent,
    Null,
}

/// The boot override (field notes §4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Boot {
    pub mode: Mode,
    /// Without Enabled, Target and Mode together everything goes back to Disabled (Supermicro).
    pub needs_triple: bool,
    /// Allowed `BootSourceOverrideEnabled`; empty: as the tree has it.
    pub enabled: Vec<String>,
    /// Allowed targets; empty: as the tree has it.
    pub targets: Vec<String>,
    /// The allowed values of Enabled are not listed.
    pub enabled_unlisted: bool,
    /// Said to a PATCH while the host is in POST.
    pub in_post: Option<Said>,
    /// The override is written to this settings object below the system (`SD`, `Pending`).
    pub settings: Option<String>,
}

/// `ETag` as it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EtagHeader {
    #[default]
    Strong,
    Weak,
    None,
    Empty,
    /// Twice, with two values; the first is right.
    Duplicate,
}

/// `If-Match` on PATCH (field notes R12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IfMatch {
    #[default]
    Honoured,
    Ignored,
    /// None at all is a 428.
    Required,
    /// Only `W/"…"` is ever right.
    WeakOnly,
    /// Whatever it says, it is wrong.
    Rejected,
}

/// `If-Match` on actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnAction {
    #[default]
    Ignored,
    Rejected,
    /// Without one the BMC's own reset is a 428 (DGX).
    RequiredOnBmcReset,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Etag {
    pub header: EtagHeader,
    /// `@odata.etag` in bodies.
    pub in_body: bool,
    pub if_match: IfMatch,
    pub on_action: OnAction,
}

/// How an error body looks (field notes R8, R9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    #[default]
    Standard,
    /// `@Message.ExtendedInfo` is an object instead of an array.
    Object,
    /// `@Message.ExtendedInfo` stands at the top.
    TopLevel,
    Html,
    Plain,
    Empty,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Errors {
    pub shape: Shape,
    /// While the BMC starts.
    pub busy: Shape,
    /// For a 401; some are empty.
    pub refused: Option<Shape>,
    /// `error.code` of every error (`iLO.0.10.ExtendedInfo`).
    pub code: Option<String>,
    /// A boot override that worked answers 200 with an error inside (Dell 13G, R9).
    pub in_success: Option<Said>,
    /// Successful writes answer with this message instead of the resource (Supermicro's
    /// `{"Success": …}`).
    pub success: Option<String>,
}

/// Where allowable values stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listed {
    #[default]
    Inline,
    ActionInfo,
    Both,
    Nowhere,
}

/// A refusal for a while.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub for_ms: Range,
    pub say: Said,
}

/// Resets of the host and of the BMC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reset {
    /// Allowed `ResetType`; empty: as the tree has it.
    pub types: Vec<String>,
    pub listed: Listed,
    pub bmc_types: Vec<String>,
    pub bmc_listed: Listed,
    /// Said when the host is already so; nothing: 204.
    pub already: Option<Said>,
    /// Said to an order that the host's state does not allow.
    pub wrong_state: Option<Said>,
    /// After a power change further orders are refused for so long (iDRAC10, R11).
    pub settles: Option<Window>,
}

/// A BMC's way back after its restart (field notes §6 line 5), seconds from and to. It answers
/// nothing during the physics' own `bmc_reset` before that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Start {
    /// Connections are taken, and nothing answers.
    pub mute_s: Range,
    /// 503.
    pub busy_s: Range,
    /// A service root without links, and nothing behind it.
    pub bare_s: Range,
    /// Collections are empty or not there yet.
    pub partial_s: Range,
}

/// What a task does besides ending (field notes §6 line 9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskMode {
    #[default]
    Normal,
    /// 404 as soon as it has ended.
    GoneWhenDone,
    /// Running for ever, whatever came of it.
    Stuck,
    /// 100 % while it runs.
    FullWhileRunning,
    /// `New` for the first third.
    NewFirst,
    /// Completed at once, "transitioned to job"; the job goes on.
    ToJob,
    /// 0 % from beginning to end.
    NoPercent,
}

/// How an update's acceptance looks (R13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accept {
    #[default]
    Location,
    /// The task in the body, no `Location`.
    Body,
    /// `{"Accepted": …}` with the task's path among the `MessageArgs`.
    Message,
    /// 204 and nothing else.
    Nothing,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tasks {
    /// How often which mode is drawn; none: always normal.
    pub modes: BTreeMap<TaskMode, u32>,
    pub accept: Accept,
    /// A failure shows as Completed with a Critical message (Dell).
    pub fails_completed: bool,
    /// A change of BIOS settings becomes a job that waits for the next POST, one at a time (Dell).
    pub bios_job: bool,
    /// A volume is there as it is answered, with 201 and its `Location`, and no task.
    pub volume_at_once: bool,
}

/// The queue of jobs that updates and settings go through (field notes §6.15).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jobs {
    /// Unfinished jobs that it holds; 0: no limit.
    pub max: usize,
    /// Said to one more; nothing: `CreateLimitReachedForResource`.
    pub full: Option<Said>,
    /// What comes behind an unfinished job does not begin before that is over (HPE).
    pub strict_order: bool,
    /// Takes no job during a POST, and for so long after it and after the BMC's own start, seconds from
    /// and to (Dell's lifecycle controller).
    pub busy_s: Range,
    /// Said then; nothing: `ServiceTemporarilyUnavailable`.
    pub busy: Option<Said>,
}

/// How the service takes and spells paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Uris {
    /// Paths in any case are understood.
    pub ignores_case: bool,
    /// Every link ends with a slash.
    pub slash: bool,
}

/// GPUs below a second system with a manager of its own (field notes §6 line 10).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hgx {
    pub system: String,
    /// The GPUs are not listed while the host is off.
    #[serde(default)]
    pub absent_when_off: bool,
}

/// The BMC's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clock {
    /// Ahead of the world by so much, drawn per machine; below 0 behind.
    pub skew_s: (i64, i64),
}

/// Redfish over TLS; without it the BMC speaks plain HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub certificate: Certificate,
}

/// A self-signed certificate (field notes §6.17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certificate {
    Stable,
    /// Another one after every restart of the BMC.
    NewEachReboot,
    /// Valid until 2020.
    Expired,
}

/// What is of the machine and not of its wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Physics {
    pub ignores_once: bool,
    pub identity_null_when_off: bool,
    pub pads_versions: bool,
    /// Roots of trust copy a new image to a second place, as on HGX baseboards.
    pub copies_images: bool,
    pub volumes_at_post: bool,
}

/// One property of one kind of resource.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Below `/redfish/v1`, in the clean tree's names, with `*` for any one segment; empty: the
    /// service root.
    pub path: String,
    /// JSON pointer (RFC 6901). Where its parent is missing nothing happens.
    pub at: String,
    /// The new value; none: [`Edit::to_null`] or removed.
    #[serde(default)]
    pub set: Option<Value>,
    #[serde(default)]
    pub to_null: bool,
}

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("there is no vendor profile `{0}`\n  hint: one of {names}, mixed, or a file by --profile", names = Profile::names().join(", "))]
    Unknown(String),
    #[error("{file}: {error}")]
    Text { file: String, error: Box<toml::de::Error> },
    #[error("{file}: `{at}`: {why}")]
    Value { file: String, at: &'static str, why: String },
}

impl Profile {
    /// The names of those that ship.
    pub fn names() -> Vec<&'static str> {
        SHIPPED.iter().map(|(name, _)| *name).collect()
    }

    /// One that ships.
    pub fn named(name: &str) -> Result<Arc<Profile>, ProfileError> {
        let Some((name, text)) = SHIPPED.iter().find(|(n, _)| *n == name) else {
            return Err(ProfileError::Unknown(name.to_string()));
        };
        Self::parse(&format!("{name}.toml"), text)
    }

    /// All vendors in turn, the clean one left out: a mixed fleet.
    pub fn mixed() -> Result<Vec<Arc<Profile>>, ProfileError> {
        Self::names().into_iter().filter(|n| *n != "clean").map(Self::named).collect()
    }

    /// Reads a profile; `file` is for people.
    pub fn parse(file: &str, text: &str) -> Result<Arc<Profile>, ProfileError> {
        let profile: Profile = toml::from_str(text)
            .map_err(|e| ProfileError::Text { file: file.to_string(), error: Box::new(e) })?;
        profile.check().map_err(|(at, why)| ProfileError::Value {
            file: file.to_string(),
            at,
            why,
        })?;
        Ok(Arc::new(profile))
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let wrong = |at, why: &str| Err((at, why.to_string()));
        if self.name.is_empty() {
            return wrong("name", "a profile needs a name");
        }
        if self.sessions.cap == 0 && !self.sessions.basic {
            return wrong("sessions.cap", "0 sessions and no Basic: nobody could log in");
        }
        if self.lockout.as_ref().is_some_and(|l| l.tries == 0) {
            return wrong("lockout.tries", "0 tries lock before anybody came");
        }
        if (1..3).contains(&self.accounts.slots) {
            return wrong("accounts.slots", "slots 1 and 2 are taken: 3 at least, or 0");
        }
        if let (Some(min), Some(max)) = (self.password.min, self.password.max)
            && min > max
        {
            return wrong("password.min", "longer than `password.max`");
        }
        if self.pace.workers.0 == 0 || self.pace.workers.0 > self.pace.workers.1 {
            return wrong("pace.workers", "from 1 up, smaller number first");
        }
        if self.pace.connections == 0 {
            return wrong("pace.connections", "0 connections: nobody could call");
        }
        let start = &self.start;
        if [start.mute_s, start.busy_s, start.bare_s, start.partial_s].iter().any(|r| r.0 > r.1) {
            return wrong("start", "ranges are [from, to], smaller number first");
        }
        if self.jobs.as_ref().is_some_and(|j| j.busy_s.0 > j.busy_s.1) {
            return wrong("jobs.busy_s", "[from, to], smaller number first");
        }
        if self.clock.skew_s.0 > self.clock.skew_s.1 {
            return wrong("clock.skew_s", "[from, to], smaller number first");
        }
        let said = [
            Some(&self.sessions.full),
            self.boot.in_post.as_ref(),
            self.reset.already.as_ref(),
            self.reset.wrong_state.as_ref(),
            self.reset.settles.as_ref().map(|w| &w.say),
            self.jobs.as_ref().and_then(|j| j.full.as_ref()),
            self.jobs.as_ref().and_then(|j| j.busy.as_ref()),
        ];
        if said.into_iter().flatten().any(|s| !(400..600).contains(&s.status)) {
            return wrong("status", "a refusal has a status of 400 to 599");
        }
        for edit in &self.edit {
            if !edit.at.starts_with('/') {
                return wrong("edit.at", "a JSON pointer begins with `/`");
            }
            if edit.set.is_some() && edit.to_null {
                return wrong("edit", "`set` or `to_null`, not both");
            }
        }
        Ok(())
    }

    /// Nothing differs from the clean tree: requests pass by.
    pub(super) fn is_plain(&self) -> bool {
        *self
            == Profile {
                name: self.name.clone(),
                pace: self.pace.clone(),
                tls: self.tls,
                ..Profile::default()
            }
    }

    /// What of it the physics knows.
    pub fn quirks(&self) -> Quirks {
        let Physics {
            ignores_once,
            identity_null_when_off,
            pads_versions,
            copies_images,
            volumes_at_post,
        } = self.physics;
        Quirks {
            ignores_once,
            identity_null_when_off,
            pads_versions,
            copies_images,
            volumes_at_post,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ships_reads_and_only_the_clean_one_is_plain() {
        for name in Profile::names() {
            let profile = Profile::named(name).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(profile.name, name);
            assert_eq!(profile.is_plain(), name == "clean", "{name}");
        }
        assert_eq!(Profile::mixed().map(|all| all.len()).unwrap_or(0), 6);
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        let said = |text: &str| Profile::parse("mine.toml", text).expect_err("wrong").to_string();
        let text = said("name = \"x\"\n[sessions]\ncap = \"many\"\n");
        assert!(text.contains("mine.toml") && text.contains("line 3"), "{text}");
        assert!(said("name = \"x\"\nspeed = 1\n").contains("unknown field `speed`"));
        assert!(said("[sessions]\ncap = 1\n").contains("`name`"));
        let text = said("name = \"x\"\n[[edit]]\npath = \"Systems/1\"\nat = \"Model\"\n");
        assert!(text.contains("`edit.at`"), "{text}");
        assert!(said("name = \"x\"\n[lockout]\ntries = 0\nfor_s = 1\n").contains("lockout.tries"));
        let nobody = Profile::named("acme").expect_err("unknown").to_string();
        assert!(nobody.contains("acme") && nobody.contains("hint:"), "{nobody}");
    }
}
