//! Who may log in to a BMC: accounts, roles, length rules and lockout (DSP0268 AccountService;
//! field notes §6.13). An account outlives every restart of the BMC. Some BMCs have fixed slots instead
//! of a collection that grows: the first is reserved, the second the factory's, and a slot is given and
//! emptied by a PATCH (field notes R10).

use super::World;
use super::message::{self, Refusal};
use super::profile::Profile;
use super::seat::{Body, Seat};
use crate::model::EngineTime;
use crate::sim::truth::Cause;
use axum::http::StatusCode;
use serde_json::Value;

/// Slots that the BMC has.
const SLOTS: usize = 16;

/// What a BMC asks of those who log in.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) min_length: usize,
    pub(super) max_length: usize,
    /// Failed logins in a row after which an account is locked; 0: never.
    pub(super) lockout_threshold: u32,
    /// World seconds; failures older than this do not count either.
    pub(super) lockout_s: u64,
    /// Unused sessions end after this long, world milliseconds.
    pub(super) session_idle_ms: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            min_length: 8,
            max_length: 64,
            lockout_threshold: 5,
            lockout_s: 30,
            session_idle_ms: 30 * 60_000,
        }
    }
}

/// Predefined roles (DSP0266 §13.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    ReadOnly,
    Operator,
    Administrator,
}

impl Role {
    pub(super) const ALL: [Role; 3] = [Role::Administrator, Role::Operator, Role::ReadOnly];

    pub(super) fn word(self) -> &'static str {
        match self {
            Role::ReadOnly => "ReadOnly",
            Role::Operator => "Operator",
            Role::Administrator => "Administrator",
        }
    }

    pub(super) fn privileges(self) -> &'static [&'static str] {
        match self {
            Role::ReadOnly => &["Login", "ConfigureSelf"],
            Role::Operator => &["Login", "ConfigureComponents", "ConfigureSelf"],
            Role::Administrator => &[
                "Login",
                "ConfigureManager",
                "ConfigureUsers",
                "ConfigureComponents",
                "ConfigureSelf",
            ],
        }
    }

    fn of(word: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|r| r.word() == word)
    }
}

#[derive(Clone)]
pub(super) struct Account {
    pub(super) id: String,
    pub(super) user: String,
    password: String,
    pub(super) role: Role,
    pub(super) enabled: bool,
    /// Nothing but a new password may be written or read until it has one.
    pub(super) must_change: bool,
    failed: u32,
    failed_at: EngineTime,
    locked_until: EngineTime,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({} {} {:?})", self.id, self.user, self.role)
    }
}

impl Account {
    /// A slot that nobody has.
    fn empty(id: String) -> Self {
        Self { enabled: false, ..Self::new(id, "", "", Role::ReadOnly) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.user.is_empty()
    }

    fn new(id: String, user: &str, password: &str, role: Role) -> Self {
        Self {
            id,
            user: user.into(),
            password: password.into(),
            role,
            enabled: true,
            must_change: false,
            failed: 0,
            failed_at: EngineTime::ZERO,
            locked_until: EngineTime::ZERO,
        }
    }

    pub(super) fn is_locked(&self, now: EngineTime) -> bool {
        now < self.locked_until
    }
}

/// Who calls.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) user: String,
    pub(super) role: Role,
    pub(super) must_change: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Accounts {
    pub(super) rules: Rules,
    pub(super) list: Vec<Account>,
    /// They are slots: there are no more and no fewer.
    pub(super) fixed: bool,
}

/// The slot that nobody is given.
const RESERVED: &str = "1";

impl Accounts {
    /// One administrator, as from the factory.
    pub(super) fn factory(user: &str, password: &str) -> Self {
        let first = Account::new("1".into(), user, password, Role::Administrator);
        Self { rules: Rules::default(), list: vec![first], fixed: false }
    }

    /// The same as this vendor has it.
    pub(super) fn of(profile: &Profile, user: &str, password: &str) -> Self {
        let mut out = Self::factory(user, password);
        let (min, max) = (profile.password.min, profile.password.max);
        out.rules.min_length = min.unwrap_or(out.rules.min_length);
        out.rules.max_length = max.unwrap_or(out.rules.max_length);
        if profile.accounts.slots > 0 {
            let first = out.list.pop();
            out.fixed = true;
            out.list =
                (1..=profile.accounts.slots).map(|n| Account::empty(n.to_string())).collect();
            if let (Some(slot), Some(first)) = (out.list.get_mut(1), first) {
                *slot = Account { id: slot.id.clone(), ..first };
            }
        }
        out
    }

    /// The account behind a login that is right; a wrong one counts towards the lockout. Without a
    /// lock a right password resets the count.
    pub(super) fn log_in(&mut self, now: EngineTime, user: &str, password: &str) -> Option<Caller> {
        let (threshold, span_ms) = (self.rules.lockout_threshold, self.rules.lockout_s * 1000);
        let known = |a: &&mut Account| !a.is_empty() && a.user == user && a.enabled;
        let account = self.list.iter_mut().find(known)?;
        if account.is_locked(now) {
            return None;
        }
        if now.since(account.failed_at) >= span_ms {
            account.failed = 0;
        }
        if account.password != password {
            account.failed += 1;
            account.failed_at = now;
            if threshold > 0 && account.failed >= threshold {
                account.failed = 0;
                account.locked_until = now + span_ms;
            }
            return None;
        }
        account.failed = 0;
        Some(account.caller())
    }

    /// The account of an open session, if it is still there.
    pub(super) fn caller(&self, user: &str) -> Option<Caller> {
        self.list.iter().find(|a| a.user == user && a.enabled).map(Account::caller)
    }

    fn has_length(&self, password: &str) -> bool {
        let length = password.chars().count();
        (self.rules.min_length..=self.rules.max_length).contains(&length)
    }
}

impl Account {
    fn caller(&self) -> Caller {
        Caller { user: self.user.clone(), role: self.role, must_change: self.must_change }
    }
}

fn bad(id: &'static str, args: &[&str]) -> Refusal {
    message::refusal(StatusCode::BAD_REQUEST, id, args)
}

/// `PATCH` of an account. People without a say in accounts may still set their own password.
pub(super) fn patch(
    b: &mut Body,
    caller: &Caller,
    id: &str,
    wanted: &Value,
) -> Result<(), Refusal> {
    let Some(place) = b.accounts.list.iter().position(|a| a.id == id) else {
        return Err(message::missing());
    };
    let Some(members) = wanted.as_object().filter(|o| !o.is_empty()) else {
        return Err(bad("EmptyJSON", &[]));
    };
    let mut next = b.accounts.list[place].clone();
    let own = next.user == caller.user;
    let only_password = members.keys().all(|k| k == "Password");
    if caller.role != Role::Administrator && !(own && only_password) {
        return Err(message::refusal(StatusCode::FORBIDDEN, "InsufficientPrivilege", &[]));
    }
    if b.accounts.fixed {
        if id == RESERVED {
            return Err(bad("PropertyNotWritable", &["UserName"]));
        }
        if members.get("UserName").and_then(Value::as_str) == Some("") {
            return empty_slot(b, place);
        }
        if next.is_empty() && !members.contains_key("UserName") {
            return Err(bad("PropertyMissing", &["UserName"]));
        }
    }
    for (key, value) in members {
        match (key.as_str(), value) {
            ("Password", Value::String(password)) => {
                if !b.accounts.has_length(password) {
                    return Err(bad("PropertyValueFormatError", &["******", "Password"]));
                }
                next.password.clone_from(password);
                next.must_change = false;
            }
            ("UserName", Value::String(user)) if is_name(user) => {
                if b.accounts.list.iter().any(|a| a.user == *user && a.id != id) {
                    return Err(exists(user));
                }
                next.user.clone_from(user);
            }
            ("Enabled", Value::Bool(on)) => next.enabled = *on,
            ("Locked", Value::Bool(false)) => {
                next.failed = 0;
                next.locked_until = EngineTime::ZERO;
            }
            ("PasswordChangeRequired", Value::Bool(on)) => next.must_change = *on,
            ("RoleId", Value::String(role)) => match Role::of(role) {
                Some(role) => next.role = role,
                None => return Err(bad("PropertyValueNotInList", &[role, "RoleId"])),
            },
            ("UserName" | "Enabled" | "Password" | "PasswordChangeRequired" | "RoleId", v) => {
                return Err(bad("PropertyValueTypeError", &[&v.to_string(), key]));
            }
            ("Id" | "Name" | "Locked" | "AccountTypes", _) => {
                return Err(bad("PropertyNotWritable", &[key]));
            }
            _ => return Err(bad("PropertyUnknown", &[key])),
        }
    }
    if next.enabled && next.password.is_empty() {
        // A slot that was just given has no password to log in with.
        return Err(bad("PropertyMissing", &["Password"]));
    }
    let before = std::mem::replace(&mut b.accounts.list[place], next);
    let now = &b.accounts.list[place];
    if before.user != now.user || !now.enabled {
        b.sessions.retain(|_, s| s.user != before.user);
    }
    Ok(())
}

/// The slot is nobody's any more; that of the last administrator stays.
fn empty_slot(b: &mut Body, place: usize) -> Result<(), Refusal> {
    if is_last_administrator(b, place) {
        return Err(bad("ResourceCannotBeDeleted", &[]));
    }
    let id = b.accounts.list[place].id.clone();
    let gone = std::mem::replace(&mut b.accounts.list[place], Account::empty(id));
    b.sessions.retain(|_, s| s.user != gone.user);
    Ok(())
}

fn is_last_administrator(b: &Body, place: usize) -> bool {
    let is_admin = |a: &Account| a.role == Role::Administrator && a.enabled;
    is_admin(&b.accounts.list[place]) && b.accounts.list.iter().filter(|a| is_admin(a)).count() == 1
}

fn is_name(user: &str) -> bool {
    (1..=32).contains(&user.chars().count()) && !user.contains([':', ' '])
}

fn exists(user: &str) -> Refusal {
    bad("ResourceAlreadyExists", &["ManagerAccount", "UserName", user])
}

/// `POST` of an account; its id.
pub(super) fn create(b: &mut Body, wanted: &Value) -> Result<String, Refusal> {
    if b.accounts.fixed {
        return Err(fixed());
    }
    let text =
        |key: &'static str| wanted[key].as_str().ok_or_else(|| bad("PropertyMissing", &[key]));
    let (user, password, role) = (text("UserName")?, text("Password")?, text("RoleId")?);
    let Some(role) = Role::of(role) else {
        return Err(bad("PropertyValueNotInList", &[role, "RoleId"]));
    };
    if !is_name(user) {
        return Err(bad("PropertyValueFormatError", &[user, "UserName"]));
    }
    if !b.accounts.has_length(password) {
        return Err(bad("PropertyValueFormatError", &["******", "Password"]));
    }
    if b.accounts.list.iter().any(|a| a.user == user) {
        return Err(exists(user));
    }
    let mut slots = (1..=SLOTS).map(|n| n.to_string());
    let free = slots.find(|id| b.accounts.list.iter().all(|a| a.id != *id));
    let Some(id) = free else {
        return Err(bad("CreateLimitReachedForResource", &[]));
    };
    let mut account = Account::new(id.clone(), user, password, role);
    account.enabled = wanted["Enabled"].as_bool().unwrap_or(true);
    account.must_change = wanted["PasswordChangeRequired"].as_bool().unwrap_or(false);
    b.accounts.list.push(account);
    Ok(id)
}

/// Slots are given and emptied, not made and removed.
fn fixed() -> Refusal {
    message::refusal(StatusCode::METHOD_NOT_ALLOWED, "OperationNotAllowed", &[])
}

/// `DELETE` of an account; the last administrator stays.
pub(super) fn delete(b: &mut Body, id: &str) -> Result<(), Refusal> {
    let Some(place) = b.accounts.list.iter().position(|a| a.id == id) else {
        return Err(message::missing());
    };
    if b.accounts.fixed {
        return Err(fixed());
    }
    if is_last_administrator(b, place) {
        return Err(message::refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "ResourceCannotBeDeleted",
            &[],
        ));
    }
    let gone = b.accounts.list.remove(place);
    b.sessions.retain(|_, s| s.user != gone.user);
    Ok(())
}

/// A write of the account service's own rules.
pub(super) fn patch_rules(b: &mut Body, wanted: &Value) -> Result<(), Refusal> {
    let Some(members) = wanted.as_object().filter(|o| !o.is_empty()) else {
        return Err(bad("EmptyJSON", &[]));
    };
    let mut rules = b.accounts.rules.clone();
    for (key, value) in members {
        let Some(number) = value.as_u64() else {
            return Err(bad("PropertyValueTypeError", &[&value.to_string(), key]));
        };
        match key.as_str() {
            "AccountLockoutThreshold" => {
                rules.lockout_threshold = u32::try_from(number).unwrap_or(u32::MAX);
            }
            "AccountLockoutDuration" | "AccountLockoutCounterResetAfter" => {
                rules.lockout_s = number.min(86_400);
            }
            "MinPasswordLength" if (1..=64).contains(&number) => {
                rules.min_length = usize::try_from(number).unwrap_or(rules.min_length);
            }
            "MinPasswordLength" => {
                return Err(bad("PropertyValueOutOfRange", &[&number.to_string(), key]));
            }
            "MaxPasswordLength" => return Err(bad("PropertyNotWritable", &[key])),
            _ => return Err(bad("PropertyUnknown", &[key])),
        }
    }
    b.accounts.rules = rules;
    Ok(())
}

/// Leaves a line in the truth log: which account is nobody's business there.
pub(super) fn changed(world: &World, seat: &Seat) {
    let now = world.now();
    let by = Cause::Farrier { seq: world.seq() };
    seat.with(now, |b| b.vm.account_set(now, by));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_locked_for_a_while_and_the_right_password_does_not_help() {
        let mut accounts = Accounts::factory("admin", "password-1");
        let t = |s: u64| EngineTime(s * 1000);
        for n in 0..4 {
            assert!(accounts.log_in(t(n), "admin", "wrong").is_none());
        }
        assert!(accounts.log_in(t(4), "admin", "password-1").is_some(), "four are forgiven");
        for n in 5..10 {
            assert!(accounts.log_in(t(n), "admin", "wrong").is_none());
        }
        assert!(accounts.log_in(t(11), "admin", "password-1").is_none(), "locked");
        assert!(accounts.list[0].is_locked(t(11)) && !accounts.list[0].is_locked(t(39)));
        assert!(accounts.log_in(t(39), "admin", "password-1").is_some());
        assert!(accounts.log_in(t(40), "nobody", "password-1").is_none());
    }

    #[test]
    fn slots_are_all_there_and_lengths_are_the_vendors() {
        let dell = Profile::named("dell").expect("ships");
        let mut accounts = Accounts::of(&dell, "root", "calvin-of-the-label");
        assert_eq!(accounts.list.len(), 16);
        assert!(accounts.list[0].is_empty() && accounts.list[1].user == "root");
        let t = EngineTime::ZERO;
        assert!(accounts.log_in(t, "root", "calvin-of-the-label").is_some());
        assert!(accounts.log_in(t, "", "").is_none(), "an empty slot is nobody");
        for (vendor, takes, not) in
            [("dgx", 13, 12), ("dgx", 20, 21), ("lenovo", 10, 9), ("openbmc", 20, 21)]
        {
            let profile = Profile::named(vendor).expect("ships");
            let accounts = Accounts::of(&profile, "admin", "virtual-bmc-pw-1");
            let long = |n: usize| accounts.has_length(&"x".repeat(n));
            assert!(long(takes) && !long(not), "{vendor}");
            assert_eq!(accounts.list.len(), 1);
        }
    }

    #[test]
    fn nothing_that_is_printed_of_an_account_shows_its_password() {
        let accounts = Accounts::factory("admin", "password-1");
        assert!(!format!("{accounts:?}").contains("password-1"));
    }
}
