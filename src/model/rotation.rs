//! The change of a BMC account's password, as far as it has come. A record is durable before the
//! act that it announces, so a kill leaves a record that says what may have happened.
//!
//! The passwords are not in it: the old one keeps its name among the secrets, and the new one waits
//! sealed under a name of its own until a login with it has worked.

use super::controller::placed;
use serde::{Deserialize, Serialize};

/// Wall clock, milliseconds since 1970: a record outlives the process.
pub type WallMs = u64;

/// How far a rotation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The new password is sealed, and nobody else knows it.
    Made,
    /// The operator's hook has kept it.
    Escrowed,
    /// It was sent to the BMC, or is just about to be: either password may be in force.
    Setting,
    /// A login with the new one has worked.
    Proven,
    /// The new one is the machine's own. Over.
    Kept,
    /// The old one is in force and the new one is dropped. Over.
    TakenBack,
    /// Neither works. A person must look; nobody logs in until then.
    Stuck,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Made => "made",
            Phase::Escrowed => "escrowed",
            Phase::Setting => "setting",
            Phase::Proven => "proven",
            Phase::Kept => "kept",
            Phase::TakenBack => "taken-back",
            Phase::Stuck => "stuck",
        }
    }
}

/// One of the two passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    Old,
    New,
}

/// What the BMC said to the last call that set the password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// Nothing yet, or the process ended before it was heard.
    #[default]
    Nothing,
    Applied,
    /// Turned down; `again`: for a reason that passes.
    Refused {
        again: bool,
    },
    /// Sent, and no clear answer.
    Unclear,
}

/// What a login with one of the passwords has shown since the last call that set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Login {
    #[default]
    Untried,
    Works,
    Refused,
}

/// A rotation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rotation {
    /// Whose password: the machine's name for its host's BMC; for a further controller
    /// `machine/controller`. In one word, so that a Farrier that knows of the host's BMC alone finds no
    /// such machine, and not the wrong BMC.
    pub machine: String,
    /// User whose password changes: the one that Farrier logs in as.
    pub user: String,
    /// Name of the credential that was in force at the beginning.
    pub old: String,
    /// Name of the secret that the new password becomes.
    pub new: String,
    pub by: String,
    pub why: String,
    pub begun_ms: WallMs,
    /// When the phase was entered.
    pub since_ms: WallMs,
    pub phase: Phase,
    /// Set only once the operator's hook has kept it.
    pub needs_escrow: bool,
    pub escrow_failures: u32,
    /// How often it was sent to the BMC.
    pub sets: u32,
    pub set_ms: WallMs,
    pub said: Said,
    pub old_login: Login,
    pub new_login: Login,
    /// A login that was begun and whose result is not known.
    pub trying: Option<Which>,
    /// When logins of this rotation were refused, or may have been.
    pub refused_ms: Vec<WallMs>,
    /// Nothing is done before.
    pub not_before_ms: WallMs,
    /// Failed logins that lock the account, and for how long, as the BMC says; 0: it does not say.
    pub lockout_threshold: u32,
    pub lockout_s: u32,
    /// The last thing that went wrong, for people.
    pub trouble: Option<String>,
}

impl Rotation {
    /// The machine's name, and the further controller's whose password it is; none: the host BMC's.
    pub fn place(&self) -> (&str, Option<&str>) {
        placed(&self.machine)
    }

    /// It has not come to its end by itself.
    pub fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Kept | Phase::TakenBack)
    }

    /// Nobody but the rotation may log in: a wrong guess of another would count towards the
    /// account's lock.
    pub fn keeps_others_out(&self) -> bool {
        matches!(self.phase, Phase::Setting | Phase::Proven | Phase::Stuck)
    }
}
