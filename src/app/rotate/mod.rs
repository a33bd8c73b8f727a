//! Rotation of BMC passwords in the daemon: what people and the policy order, and what a start finds
//! unfinished. [`crate::decide::rotation`] decides; `drive` does.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "waits for BMCs and looks for passwords that are too old"
)]

mod drive;
mod escrow;
mod routes;

pub use routes::{Gate, gate, router};

use super::access::Access;
use super::current::Current;
use crate::decide::password;
use crate::decide::rotation::{self, Pace};
use crate::engine::Director;
use crate::engine::clock::wall_ms;
use crate::engine::driver::Handle;
use crate::model::controller::{place, placed};
use crate::model::hardware::AccountRules;
use crate::model::rotation::{Login, Phase, Rotation, Said};
use crate::model::{Control, Further, Machine, MachineId};
use crate::port::capability::{BmcAccounts, FurtherAccounts};
use crate::port::session::At;
use crate::port::{BmcCare, BmcTarget, Secret, Vault};
use crate::store::{Secrets, SqliteStore};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// What a rotation needs of the BMC edge.
pub trait Edge: BmcAccounts + FurtherAccounts + BmcCare {}
impl<T: BmcAccounts + FurtherAccounts + BmcCare> Edge for T {}

/// What a rotation works with.
pub struct Tools {
    pub edge: Arc<dyn Edge>,
    pub access: Access,
    pub vault: Arc<dyn Vault>,
    pub secrets: Secrets,
    pub store: SqliteStore,
    pub engine: Handle,
    pub current: Current,
    pub pace: Pace,
    pub look_every: Duration,
}

impl std::fmt::Debug for Tools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tools")
    }
}

/// All rotations of a site. Clones share them.
#[derive(Clone, Debug)]
pub struct Rotator {
    tools: Arc<Tools>,
    /// BMCs whose rotation is being driven, in one word each: see [`Rotation::machine`].
    driven: Arc<Mutex<BTreeSet<String>>>,
    turns: Arc<Semaphore>,
    /// Ended, and perhaps not in the journal yet.
    ended: Arc<Mutex<Vec<Rotation>>>,
}

/// Why a password is to change.
#[derive(Clone, Debug)]
pub struct Order {
    pub by: String,
    pub why: String,
    /// Set it although no hook keeps it.
    pub no_escrow: bool,
}

/// A BMC and its machine as the engine has them, for one order.
#[derive(Clone, Debug)]
struct Standing {
    id: MachineId,
    /// The machine.
    target: BmcTarget,
    /// Its further controller that is meant; none: its host's BMC.
    controller: Option<Arc<str>>,
    /// Why nothing may be written to it now.
    refusal: Option<String>,
}

impl Standing {
    fn at(&self) -> At {
        At { machine: self.id, controller: self.controller.clone() }
    }

    /// The further controller that is meant, in this target of its machine.
    fn further<'t>(&self, target: &'t BmcTarget) -> Option<&'t Further> {
        target.endpoint.controllers.named(self.controller.as_deref()?)
    }
}

fn standing(d: &Director, place: &str) -> Option<Standing> {
    let (name, controller) = placed(place);
    let m = d.machines().find(|m| m.seq > 0 && &*m.name == name)?;
    let expected = d.expected(m.id)?;
    let controller = match controller {
        Some(name) => Some(expected.bmc.controllers.named(name)?.name.clone()),
        None => None,
    };
    let target = BmcTarget {
        machine: m.id,
        name: m.name.clone(),
        endpoint: expected.bmc.clone(),
        // What was proven, and where nothing was, what the inventory says.
        identity: m.identity.or(&expected.identity),
    };
    let refusal = match (&m.hold, m.control) {
        _ if d.observe_only() => Some("the daemon only observes".to_string()),
        _ if d.stopped().is_some() => {
            Some("all actions are stopped; `farrier resume` first".into())
        }
        (_, Control::Unmanaged) => {
            Some("it is unmanaged: Farrier only reads it; adopt or enroll it first".into())
        }
        (Some(hold), _) => Some(format!("it is held by {}: {}", hold.by, hold.why)),
        _ => m.open.as_ref().map(|open| format!("`{}` is under way", open.action.kind())),
    };
    Some(Standing { id: m.id, target, controller, refusal })
}

/// How often the policy looks for passwords that are too old, unless time runs faster.
pub const LOOK_EVERY: Duration = Duration::from_secs(600);
/// A password that could not be changed is let be for so long.
const LET_BE_MS: u64 = 24 * 3_600_000;

impl Rotator {
    pub fn new(tools: Tools) -> Self {
        let at_once = tools.current.get().daemon.rotation.at_once.max(1);
        let turns = Semaphore::new(usize::try_from(at_once).unwrap_or(1));
        Self {
            tools: Arc::new(tools),
            driven: Arc::default(),
            turns: Arc::new(turns),
            ended: Arc::default(),
        }
    }

    /// Before the engine starts: BMCs of which nobody knows which password is in force are shut. What a
    /// process that died at the end of a rotation left sealed goes, while nobody can begin another one.
    ///
    /// # Errors
    /// The records can't be read.
    pub async fn shut(&self, ids: &BTreeMap<Arc<str>, MachineId>) -> Result<(), String> {
        for r in self.tools.store.rotations().await.map_err(|e| e.to_string())? {
            let (machine, controller) = r.place();
            if let (true, Some(id)) = (r.keeps_others_out(), ids.get(machine)) {
                let at = At { machine: *id, controller: controller.map(Into::into) };
                self.tools.access.shut_at_once(&at, drive::words(&r));
            }
            if !r.is_open() && self.tools.secrets.has(&drive::pending(&r)) {
                drive::unseal(&self.tools, &r).await;
                self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(r);
            }
        }
        Ok(())
    }

    /// Goes on with what the last process left.
    pub async fn resume(&self) {
        let ended = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        for r in ended {
            if let Some(found) = self.standing(&r.machine).await {
                drive::note(&self.tools, &r, found.id).await;
            }
        }
        let open = match self.tools.store.rotations().await {
            Ok(all) => all.into_iter().filter(Rotation::is_open),
            Err(e) => return tracing::error!(error = %e, "rotations of passwords can't be read"),
        };
        for mut r in open {
            let found = self.standing(&r.machine).await;
            let Some(found) = found else {
                tracing::warn!(machine = %r.machine, "its rotation is unfinished, and it is gone");
                continue;
            };
            tracing::info!(machine = %r.machine, phase = r.phase.name(), "going on with a rotation");
            rotation::resume(&mut r, wall_ms());
            match self.tools.store.keep_rotation(&r).await {
                Ok(()) => self.spawn(r, found),
                Err(e) => tracing::error!(machine = %r.machine, error = %e, "not gone on with"),
            }
        }
    }

    async fn standing(&self, place: &str) -> Option<Standing> {
        let place = place.to_string();
        self.tools.engine.ask(move |d, _| standing(d, &place)).await.flatten()
    }

    /// Drives it in a task of its own, unless one does already.
    fn spawn(&self, r: Rotation, found: Standing) {
        let name = r.machine.clone();
        let mut driven = self.driven.lock().unwrap_or_else(PoisonError::into_inner);
        if !driven.insert(name.clone()) {
            return;
        }
        drop(driven);
        let this = self.clone();
        tokio::spawn(async move {
            let turn = this.turns.acquire().await;
            drive::drive(&this.tools, r, &found).await;
            drop(turn);
            this.driven.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        });
    }

    /// Begins a rotation at `place`, a machine's name or `machine/controller`: everything that speaks
    /// against it is found before anything is changed.
    ///
    /// # Errors
    /// A sentence for a person; nothing was changed.
    pub async fn order(&self, place: &str, order: &Order) -> Result<(), String> {
        let t = &*self.tools;
        let Some(found) = self.standing(place).await else {
            return Err("there is no such machine, or no such controller of it".into());
        };
        if let Some(refusal) = found.refusal {
            return Err(refusal);
        }
        t.secrets.can_keep().map_err(|e| e.to_string())?;
        let loaded = t.current.get();
        if loaded.daemon.escrow.is_none() && !order.no_escrow {
            return Err("no `[escrow]` hook keeps the new password for the day the database is \
                        lost; configure one, or say `--no-escrow`"
                .into());
        }
        let before = t.store.rotations().await.map_err(|e| e.to_string())?;
        if let Some(open) = before.iter().find(|r| r.machine == place && r.is_open()) {
            return Err(match open.phase {
                Phase::Stuck => format!(
                    "the last rotation is stuck: {}; `--look-again` or `--forget` it first",
                    open.trouble.as_deref().unwrap_or("neither password works")
                ),
                phase => format!("a rotation is under way ({})", phase.name()),
            });
        }
        let target = t.access.resolve(&found.target).map_err(|f| f.to_string())?;
        let further = found.further(&target);
        let old = further.map_or(&target.endpoint.credential, |c| &c.credential);
        let credential = t.vault.credential(old).await.map_err(|f| f.to_string())?;
        if loaded.daemon.rotation.is_break_glass(&credential.user) {
            return Err(format!(
                "`{}` is a break-glass account of yours, which Farrier never touches; give it an \
                 account of its own",
                credential.user
            ));
        }
        if further.is_some_and(|c| c.serial.is_none()) {
            return Err(
                "its serial is not in the inventory, so nothing is written to it; give `serial` \
                        in `[[machine.controller]]`, as its own Redfish shows it"
                    .into(),
            );
        }
        let rules = self.rules(&found, &target, &credential.user).await?;
        let password = new_password(&rules, &credential.user)?;
        let now = wall_ms();
        let r = Rotation {
            machine: place.to_string(),
            user: credential.user.clone(),
            old: old.to_string(),
            new: Access::own(&found.target, found.controller.as_deref()),
            by: order.by.clone(),
            why: order.why.clone(),
            begun_ms: now,
            since_ms: now,
            phase: Phase::Made,
            needs_escrow: !order.no_escrow,
            escrow_failures: 0,
            sets: 0,
            set_ms: 0,
            said: Said::Nothing,
            old_login: Login::Untried,
            new_login: Login::Untried,
            trying: None,
            refused_ms: Vec::new(),
            not_before_ms: 0,
            lockout_threshold: rules.lockout_threshold.unwrap_or(0),
            lockout_s: rules.lockout_duration_s.unwrap_or(0),
            trouble: None,
        };
        // Sealed first: a record without its password would be worth nothing.
        let pending = drive::pending(&r);
        t.secrets.set(&pending, &r.user, &password).await.map_err(|e| e.to_string())?;
        t.store.keep_rotation(&r).await.map_err(|e| e.to_string())?;
        tracing::info!(machine = place, user = %r.user, by = %r.by, why = %r.why, "a rotation begins");
        self.spawn(r, Standing { refusal: None, ..found });
        Ok(())
    }

    /// What the BMC asks of passwords; it must show the account that is meant. An account that has
    /// to change its password first sees nothing of that.
    async fn rules(
        &self,
        found: &Standing,
        target: &BmcTarget,
        user: &str,
    ) -> Result<AccountRules, String> {
        let edge = &self.tools.edge;
        let read = match &found.controller {
            Some(name) => edge.accounts_at(target, name).await,
            None => edge.accounts(target).await,
        };
        match read {
            Ok((rules, accounts)) => match accounts.iter().find(|a| a.user == user) {
                Some(account) if account.enabled == Some(false) => {
                    Err(format!("the BMC's account `{user}` is disabled"))
                }
                Some(_) => Ok(rules),
                None => Err(format!(
                    "the BMC has no account `{user}` of its own (a directory's user has its \
                     password there)"
                )),
            },
            Err(f) if f.code == "password-change-required" && found.controller.is_some() => {
                Err("it shows nothing before its password was changed, and so not that it is the \
                 controller which is meant; set a first password by hand"
                    .into())
            }
            Err(f) if f.code == "password-change-required" => {
                self.tools.edge.known_rules(target).await.map_err(|f| f.to_string())
            }
            Err(f) => Err(f.to_string()),
        }
    }

    /// The latest rotation of each BMC.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn list(&self) -> Result<Vec<Rotation>, String> {
        self.tools.store.rotations().await.map_err(|e| e.to_string())
    }

    /// A stuck rotation: looks once more which password works, or (`forget`) lets others log in
    /// again with what is kept.
    ///
    /// # Errors
    /// A sentence for a person; nothing was changed.
    pub async fn settle(&self, place: &str, forget: bool, by: &str) -> Result<(), String> {
        let all = self.list().await?;
        let Some(mut r) = all.into_iter().find(|r| r.machine == place) else {
            return Err("its password was never rotated".into());
        };
        if r.phase != Phase::Stuck {
            return Err(format!("its rotation is not stuck ({})", r.phase.name()));
        }
        let found = self.standing(place).await.ok_or("there is no such machine or controller")?;
        let now = wall_ms();
        if forget {
            (r.phase, r.since_ms) = (Phase::TakenBack, now);
            r.trouble = Some(format!("given up by {by}"));
        } else {
            rotation::look_again(&mut r, now);
        }
        self.tools.store.keep_rotation(&r).await.map_err(|e| e.to_string())?;
        match forget {
            true => self.tools.access.open(&found.at()),
            false => self.spawn(r, found),
        }
        Ok(())
    }

    /// Changes passwords that have become too old, as the configuration in force says.
    pub async fn keep_fresh(self) {
        let mut tick = tokio::time::interval(self.tools.look_every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Whose turn was last: BMCs that refuse each time keep nobody waiting who comes after them.
        let mut last = String::new();
        loop {
            tick.tick().await;
            let policy = self.tools.current.get().daemon.rotation.clone();
            let Some(every) = policy.every else { continue };
            let Ok(all) = self.list().await else { continue };
            let now = wall_ms();
            let fresh = |r: &Rotation| match r.phase {
                Phase::Kept => now.saturating_sub(r.since_ms) < every.0,
                Phase::TakenBack => now.saturating_sub(r.since_ms) < LET_BE_MS,
                _ => true,
            };
            let leave: BTreeSet<String> =
                all.into_iter().filter(|r| fresh(r)).map(|r| r.machine).collect();
            let after = last.clone();
            let due = self.tools.engine.ask(move |d, _| {
                let able = d.machines().filter(|m| m.condition == crate::model::Condition::Ok);
                let places: BTreeSet<String> = able.flat_map(|m| written_to(d, m)).collect();
                in_turn(places, &after)
                    .filter(|p| !leave.contains(p))
                    .filter(|p| standing(d, p).is_some_and(|s| s.refusal.is_none()))
                    .take(usize::try_from(policy.at_once).unwrap_or(1))
                    .collect::<Vec<_>>()
            });
            let Some(due) = due.await else { return };
            let order = Order {
                by: "rotation policy".into(),
                why: format!("the password is older than {every}"),
                no_escrow: false,
            };
            for place in due {
                if let Err(why) = self.order(&place, &order).await {
                    tracing::warn!(machine = %place, %why, "its password is due, and not changed");
                }
                last = place;
            }
        }
    }
}

/// Those after the last one, then from the start.
fn in_turn(places: BTreeSet<String>, last: &str) -> impl Iterator<Item = String> {
    let (before, after): (Vec<_>, Vec<_>) = places.into_iter().partition(|p| p.as_str() <= last);
    after.into_iter().chain(before)
}

/// The machine's BMCs that may be written to at all, its host's first: a controller without a serial is
/// only read.
fn written_to(d: &Director, m: &Machine) -> Vec<String> {
    let expected = d.expected(m.id);
    let further = expected.iter().flat_map(|e| e.bmc.controllers.iter());
    let proven = further.filter(|c| c.serial.is_some());
    let further: Vec<String> = proven.map(|c| place(&m.name, Some(&c.name))).collect();
    [place(&m.name, None)].into_iter().chain(further).collect()
}

/// A password that fits; random bytes are drawn until they give one.
fn new_password(rules: &AccountRules, user: &str) -> Result<Secret, String> {
    let length = password::length(rules)?;
    for _ in 0..64 {
        let mut random = [0; 256];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gives no random numbers")?;
        if let Some(made) = password::make(&random, length, user) {
            return Ok(Secret::new(made));
        }
    }
    Err(format!("no password came about that does not hold `{user}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_refuse_each_time_keep_nobody_waiting() {
        let all: BTreeSet<String> = ["n1", "n1/hgx", "n2", "n3"].map(String::from).into();
        let turn = |last: &str| in_turn(all.clone(), last).take(2).collect::<Vec<_>>();
        assert_eq!(turn(""), ["n1", "n1/hgx"]);
        assert_eq!(turn("n1/hgx"), ["n2", "n3"]);
        assert_eq!(turn("n3"), ["n1", "n1/hgx"]);
        // One that has gone since.
        assert_eq!(turn("n2/dpu"), ["n3", "n1"]);
    }
}
