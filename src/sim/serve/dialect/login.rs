//! Logging in as vendors have it: few sessions that end soon, accounts that lock themselves, a
//! password that must be changed first.

use super::say;
use crate::model::EngineTime;
use crate::sim::serve::profile::{Profile, Said};
use crate::sim::serve::seat::Seat;
use axum::http::{HeaderMap, Method, header};
use std::collections::VecDeque;

/// What a BMC remembers of logins; gone with its restart.
#[derive(Clone, Debug, Default)]
pub(in crate::sim::serve) struct Logins {
    wrong: VecDeque<EngineTime>,
    locked_until: Option<EngineTime>,
    /// The password was changed, as asked for.
    changed: bool,
}

impl Logins {
    fn is_locked(&self, now: EngineTime) -> bool {
        self.locked_until.is_some_and(|until| now < until)
    }

    /// A wrong password came.
    fn wrong(&mut self, profile: &Profile, now: EngineTime) {
        let Some(lockout) = &profile.lockout else { return };
        if lockout.within_s > 0 {
            let within = lockout.within_s.saturating_mul(1000);
            self.wrong.retain(|at| now.since(*at) <= within);
        }
        self.wrong.push_back(now);
        if self.wrong.len() >= lockout.tries {
            self.wrong.clear();
            self.locked_until = Some(now + lockout.for_s.saturating_mul(1000));
        }
    }

    /// The BMC restarts: what it counted is gone, what it stored is not.
    pub(in crate::sim::serve) fn restart(&mut self) {
        *self = Self { changed: self.changed, ..Self::default() };
    }
}

/// How a request proves who it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    None,
    Token,
    Basic,
    /// It asks for a session.
    Login,
}

pub(super) fn proof(method: &Method, path: &[String], headers: &HeaderMap) -> Proof {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match (method, path.as_slice()) {
        (
            &Method::POST,
            ["SessionService", "Sessions"] | ["SessionService", "Sessions", "Members"],
        ) => Proof::Login,
        _ if headers.contains_key("x-auth-token") => Proof::Token,
        _ if headers.contains_key(header::AUTHORIZATION) => Proof::Basic,
        _ => Proof::None,
    }
}

/// Why nobody gets in this way now. Sessions that idled too long end here.
pub(super) fn refused(seat: &Seat, now: EngineTime, proof: Proof) -> Option<Said> {
    let profile = &seat.profile;
    let idle_ms = profile.sessions.idle_s.saturating_mul(1000);
    let (locked, sessions) = seat.with(now, |b| {
        b.sessions.retain(|_, s| now.since(s.used) < idle_ms);
        (b.logins.is_locked(now), b.sessions.len())
    });
    let by_password = matches!(proof, Proof::Login | Proof::Basic);
    if by_password && locked {
        // The right password is refused like a wrong one: who tries on does not learn it.
        return Some(say::base(401, "ResourceAtUriUnauthorized", "The account is locked."));
    }
    match proof {
        Proof::Login if sessions >= profile.sessions.cap => Some(profile.sessions.full.clone()),
        Proof::Basic if !profile.sessions.basic => {
            Some(say::base(401, "NoValidSession", "There is no valid session."))
        }
        _ => None,
    }
}

/// The path that somebody whose password must be changed may use.
pub(super) fn must_change(seat: &Seat, now: EngineTime, path: &[String]) -> bool {
    let own = matches!(path.first().map(String::as_str), Some("AccountService" | "SessionService"));
    seat.profile.password.change_required && !own && !seat.with(now, |b| b.logins.changed)
}

/// Notes how a request by password ended, and a password that was changed.
pub(super) fn note(
    seat: &Seat,
    now: EngineTime,
    proof: Proof,
    status: u16,
    changes_password: bool,
) {
    seat.with(now, |b| match (proof, status) {
        (Proof::Login | Proof::Basic, 401) => b.logins.wrong(&seat.profile, now),
        (Proof::Login, 200..=299) => b.logins.wrong.clear(),
        _ => {}
    });
    if changes_password && (200..300).contains(&status) {
        seat.with(now, |b| b.logins.changed = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_locks_after_so_many_tries_and_opens_again() {
        let smc = Profile::named("supermicro").expect("ships");
        let mut logins = Logins::default();
        let at = |s: u64| EngineTime(s * 1000);
        logins.wrong(&smc, at(0));
        logins.wrong(&smc, at(1));
        assert!(!logins.is_locked(at(1)));
        // The first is older than 30 s by now.
        logins.wrong(&smc, at(31));
        assert!(!logins.is_locked(at(31)));
        logins.wrong(&smc, at(31));
        assert!(logins.is_locked(at(32)) && logins.is_locked(at(60)));
        assert!(!logins.is_locked(at(61)), "30 s later");
        logins.wrong(&smc, at(70));
        logins.restart();
        assert!(logins.wrong.is_empty(), "a restart forgets");
    }
}
