//! Logging in: one session per BMC, found by the service's own link (R1, R2), kept over restarts where
//! there is a place for it. A login is tried again only where that cannot lock the account.

use super::conn::{Bmc, Conn};
use super::http::{Login, Request};
use super::{RedfishBmc, fault};
use crate::model::quirks::SessionQuirks;
use crate::model::{Fault, FaultClass};
use crate::port::session::KeptSession;
use crate::port::{Credential, Secret};
use reqwest::{Method, Url};
use serde_json::json;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Refused logins that one BMC gets in a pause × 2, where nothing is known of its lock: below the
/// lowest threshold seen (3 tries), with one to spare for a person.
const MAX_REFUSED: usize = 2;

/// Sessions that a BMC drops sooner than this are not worth keeping for the next start.
const KEEP_FROM_S: u32 = 120;

/// Requests of one probe are side by side.
const SIDE_BY_SIDE: Duration = Duration::from_secs(1);

/// How we are logged in to one BMC.
#[derive(Debug, Default)]
pub(super) struct Auth {
    login: Option<Login>,
    /// The session's own URL, to end it.
    session: Option<Url>,
    /// Counts logins: tells a stale refusal from one of the present login.
    round: u64,
    /// No session is asked for before this.
    basic_until: Option<Instant>,
    /// What was refused, and when: not tried again for a while.
    refused: VecDeque<(Instant, [u8; 32])>,
    /// For scrubbing only.
    secrets: Vec<Secret>,
    /// Kept sessions were looked for.
    looked: bool,
    /// This BMC has sessions: it has given us one.
    has_sessions: bool,
    used: Option<Instant>,
    /// How long the session had rested when it was used last; requests side by side count as one.
    rested: Duration,
    /// A session that had rested for longer than this BMC's time-out was refused: the time-out is
    /// as the quirks say.
    expires: bool,
    /// When sessions of ours were refused: they were not ended by us, and may still hold their place.
    left_behind: VecDeque<Instant>,
}

/// Stands for a login in memory, without being it: address, user, password.
fn mark(base: &Url, c: &Credential) -> [u8; 32] {
    let mut ctx = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in [base.as_str(), &c.user, c.password.expose()] {
        ctx.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        ctx.update(part.as_bytes());
    }
    let mut out = [0; 32];
    out.copy_from_slice(ctx.finish().as_ref());
    out
}

/// When refused logins are tried again.
#[derive(Clone, Copy, Debug)]
struct Caution {
    pause: Duration,
    most: usize,
}

impl Auth {
    fn set(&mut self, login: Login, session: Option<Url>, c: &Credential) {
        self.secrets = vec![c.password.clone()];
        if let Login::Token(t) = &login {
            self.secrets.push(t.clone());
            self.has_sessions = true;
        }
        self.login = Some(login);
        self.session = session;
        self.round += 1;
        self.used = Some(Instant::now());
        self.rested = Duration::ZERO;
    }

    /// The session is used now.
    fn touch(&mut self) {
        let rested = self.rest();
        if rested > SIDE_BY_SIDE {
            self.rested = rested;
        }
        self.used = Some(Instant::now());
    }

    fn rest(&self) -> Duration {
        self.used.map_or(Duration::ZERO, |at| at.elapsed())
    }

    fn drop_login(&mut self) {
        self.login = None;
        self.session = None;
    }

    /// Is it a session, and such a rest longer than this BMC keeps one?
    fn outlasts(&self, rest: Duration, timeout_s: Option<u32>) -> bool {
        let limit = timeout_s.map(|s| Duration::from_secs(u64::from(s)));
        matches!(self.login, Some(Login::Token(_))) && limit.is_some_and(|limit| rest >= limit)
    }

    /// How long this credential must still rest.
    fn resting(&mut self, mark: &[u8; 32], caution: Caution) -> Option<Duration> {
        let Caution { pause, most } = caution;
        while self.refused.front().is_some_and(|(at, _)| at.elapsed() > pause * 2) {
            self.refused.pop_front();
        }
        let all = self.refused.len();
        let oldest = self.refused.front()?.0;
        let last = self.refused.iter().rev().find(|(_, m)| m == mark);
        let of_this = last.map(|(at, _)| pause.saturating_sub(at.elapsed()));
        let of_all = (all >= most).then(|| (pause * 2).saturating_sub(oldest.elapsed()));
        of_this.max(of_all).filter(|left| !left.is_zero())
    }

    /// The session was refused: whether it is gone or the BMC only says so, nobody knows.
    fn leave_behind(&mut self) {
        if matches!(self.login, Some(Login::Token(_))) {
            self.left_behind.push_back(Instant::now());
        }
        self.drop_login();
    }

    /// Sessions of ours that the BMC may still hold. One is over when it has rested for `timeout`.
    fn may_be_held(&mut self, timeout: Duration) -> usize {
        while self.left_behind.front().is_some_and(|at| at.elapsed() > timeout) {
            self.left_behind.pop_front();
        }
        self.left_behind.len()
    }

    fn refuse(&mut self, mark: [u8; 32]) {
        self.drop_login();
        self.refused.push_back((Instant::now(), mark));
    }
}

impl Bmc<'_> {
    fn session_quirks(&self) -> SessionQuirks {
        self.conn.root().map(|root| self.quirks_of_root(&root).session.clone()).unwrap_or_default()
    }

    /// By what is known of this BMC's lock: one try fewer than locks it, two at most, and a rest that
    /// outlasts it (R2).
    fn caution(&self) -> Caution {
        let quirks = self.session_quirks();
        let lock_ms = quirks.lockout_s.map_or(0, |s| u64::from(s) * 1000);
        let below = |n: u32| usize::try_from(n.saturating_sub(1)).unwrap_or(MAX_REFUSED);
        Caution {
            pause: Duration::from_millis(self.edge.settings.login_pause_ms.max(lock_ms)),
            most: match quirks.lockout_threshold {
                None | Some(0) => MAX_REFUSED,
                Some(n) => below(n).clamp(1, MAX_REFUSED),
            },
        }
    }

    /// Of the sessions that this BMC has, is there one for us, and still one for a person? Yes where
    /// nothing is known. `more`: besides the one that is asked for.
    fn spare(&self, auth: &mut Auth, more: usize) -> bool {
        let quirks = self.session_quirks();
        let Some(most) = quirks.most.and_then(|n| usize::try_from(n).ok()) else { return true };
        let timeout = match quirks.timeout_s {
            Some(s) => Duration::from_secs(u64::from(s)),
            None => Duration::from_millis(self.edge.settings.basic_for_ms),
        };
        let held = auth.may_be_held(timeout).saturating_add(more);
        held == 0 || held.saturating_add(2) <= most
    }

    /// May a session be opened beside the one that is kept?
    pub(super) async fn has_session_to_spare(&self) -> bool {
        let mut auth = self.conn.auth.lock().await;
        let ours = usize::from(matches!(auth.login, Some(Login::Token(_))));
        self.spare(&mut auth, ours)
    }

    /// The present login and its number; logs in where there is none.
    pub(super) async fn login(&self) -> Result<(Login, u64), Fault> {
        let mut auth = self.conn.auth.lock().await;
        if let Some(login) = &auth.login {
            let basic = matches!(login, Login::Basic { .. });
            let expired = if basic {
                auth.basic_until.is_some_and(|until| Instant::now() >= until)
            } else {
                // Not worth a refused request: it is known how long this BMC keeps a session.
                auth.expires && auth.outlasts(auth.rest(), self.session_quirks().timeout_s)
            };
            if !expired {
                let login = login.clone();
                auth.touch();
                return Ok((login, auth.round));
            }
            auth.drop_login();
            if basic {
                auth.basic_until = None;
            }
        }
        let login = self.log_in(&mut auth).await?;
        Ok((login, auth.round))
    }

    /// The login of `round` got a 401. Logs in again where that is allowed: `again` is true for a
    /// request's first refusal only.
    pub(super) async fn login_refused(
        &self,
        round: u64,
        again: bool,
        what: &str,
    ) -> Result<(Login, u64), Fault> {
        let mut auth = self.conn.auth.lock().await;
        if let (Some(login), true) = (&auth.login, auth.round != round) {
            // Another request has logged in again meanwhile.
            if again {
                return Ok((login.clone(), auth.round));
            }
            return Err(fault::bad_credentials(what));
        }
        let session = matches!(auth.login, Some(Login::Token(_)));
        if auth.login.is_some() && (!session || !again) {
            let credential = self.edge.vault.credential(&self.target.endpoint.credential).await?;
            auth.refuse(mark(&self.conn.base, &credential));
            return Err(fault::bad_credentials(what));
        }
        // Sessions expire, and die with every BMC reset (R4).
        auth.expires |= auth.outlasts(auth.rested, self.session_quirks().timeout_s);
        auth.leave_behind();
        let login = self.log_in(&mut auth).await?;
        Ok((login, auth.round))
    }

    async fn log_in(&self, auth: &mut Auth) -> Result<Login, Fault> {
        let credential = self.edge.vault.credential(&self.target.endpoint.credential).await?;
        let mark = mark(&self.conn.base, &credential);
        if let Some(login) = self.kept(auth, &mark, &credential).await {
            return Ok(login);
        }
        if let Some(left) = auth.resting(&mark, self.caution()) {
            let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            return Err(fault::bad_credentials("login not tried again yet").retry_after(ms));
        }
        let basic =
            Login::Basic { user: credential.user.clone(), password: credential.password.clone() };
        if auth.basic_until.is_some() {
            auth.set(basic.clone(), None, &credential);
            return Ok(basic);
        }
        // The service root needs no login (DSP0266 §"Authentication"); where it does, or where it
        // names no sessions, there is no session service to speak of.
        let sessions = match self.root_unlocked().await {
            Ok(root) => root.sessions.clone(),
            Err(f) if f.class == FaultClass::Auth => None,
            Err(f) => return Err(f),
        };
        let Some(sessions) = sessions else {
            if auth.has_sessions {
                return Err(no_sessions_now("the service root names no sessions"));
            }
            auth.set(basic.clone(), None, &credential);
            return Ok(basic);
        };
        if !self.spare(auth, 0) {
            tracing::warn!(
                machine = %self.target.name,
                of = self.session_quirks().most,
                held = auth.left_behind.len(),
                "sessions that the BMC refused may still be open there; none of the last is taken, \
                 using Basic for a while"
            );
            return Ok(self.basic_for_a_while(auth, &credential));
        }
        let url = self.conn.url(&sessions)?;
        let what = format!("POST {}", url.path());
        let body = json!({"UserName": credential.user, "Password": credential.password.expose()});
        let request = Request {
            method: Method::POST,
            url: url.clone(),
            login: &Login::None,
            if_match: None,
            body: Some(&body),
        };
        let scrubbed = |f: Fault| fault::scrub(f, &[credential.password.expose()]);
        let mut answer = match self.edge.clients.send(self.conn.policy, request).await {
            Ok(a) => a,
            Err(no) => return Err(scrubbed(no.fault)),
        };
        match answer.status {
            200..=299 => {
                let Some(token) = answer.token.take() else {
                    tracing::info!(machine = %self.target.name, "a session without a token; using Basic");
                    auth.set(basic.clone(), None, &credential);
                    return Ok(basic);
                };
                let own = answer
                    .location
                    .take()
                    .or_else(|| super::json::link_of(answer.json()))
                    .and_then(|l| self.conn.path(&l))
                    .and_then(|p| self.conn.url(&p).ok());
                self.save(&mark, &token, own.as_ref()).await;
                let login = Login::Token(token);
                auth.set(login.clone(), own, &credential);
                Ok(login)
            }
            404 | 405 | 501 if auth.has_sessions => {
                let said = fault::says(&answer);
                Err(scrubbed(no_sessions_now(&format!("{what}: {}", answer.status)).evidence(said)))
            }
            // No session service after all.
            404 | 405 | 501 => {
                auth.set(basic.clone(), None, &credential);
                Ok(basic)
            }
            _ if fault::sessions_exhausted(&answer) => {
                tracing::warn!(
                    machine = %self.target.name,
                    of = self.session_quirks().most,
                    evidence = %fault::says(&answer),
                    "the BMC has no session left; using Basic for a while"
                );
                Ok(self.basic_for_a_while(auth, &credential))
            }
            _ => {
                let fault = scrubbed(fault::of_status(&what, &answer));
                // Some answer 400 or 403 to a wrong password.
                if matches!(answer.status, 400 | 401 | 403) {
                    auth.refuse(mark);
                }
                Err(match answer.status {
                    400 | 403 if fault.class != FaultClass::Auth => fault::bad_credentials(&what)
                        .evidence(scrubbed(fault).evidence.unwrap_or_default()),
                    _ => fault,
                })
            }
        }
    }

    fn basic_for_a_while(&self, auth: &mut Auth, c: &Credential) -> Login {
        let basic = Login::Basic { user: c.user.clone(), password: c.password.clone() };
        let rest = Duration::from_millis(self.edge.settings.basic_for_ms);
        auth.basic_until = Some(Instant::now() + rest);
        auth.set(basic.clone(), None, c);
        basic
    }

    /// The session that was kept for this BMC, where it is one of this very login. It may have
    /// expired: then its first use is refused, and a new one follows.
    async fn kept(&self, auth: &mut Auth, mark: &[u8; 32], c: &Credential) -> Option<Login> {
        if std::mem::replace(&mut auth.looked, true) {
            return None;
        }
        let store = self.edge.sessions.as_ref()?;
        let kept = match store.load(&self.conn.at).await {
            Ok(kept) => kept?,
            Err(fault) => {
                tracing::debug!(machine = %self.target.name, %fault, "kept session not read");
                return None;
            }
        };
        if kept.of != hex::encode(mark) {
            store.forget(&self.conn.at).await.ok();
            return None;
        }
        let own = kept.path.as_deref().and_then(|path| self.conn.url(path).ok());
        let login = Login::Token(kept.token);
        auth.set(login.clone(), own, c);
        Some(login)
    }

    /// Keeps a new session for the next start.
    async fn save(&self, mark: &[u8; 32], token: &Secret, own: Option<&Url>) {
        let Some(store) = &self.edge.sessions else { return };
        // One commit for each login: not for sessions that no restart finds alive.
        if self.session_quirks().timeout_s.is_some_and(|s| s < KEEP_FROM_S) {
            return;
        }
        let kept = KeptSession {
            of: hex::encode(mark),
            token: token.clone(),
            path: own.map(|url| url.path().to_string()),
        };
        if let Err(fault) = store.save(&self.conn.at, &kept).await {
            tracing::debug!(machine = %self.target.name, %fault, "session not kept");
        }
    }

    /// Takes password and token out of a fault, should a BMC have echoed them.
    pub(super) fn scrubbed(&self, fault: Fault) -> Fault {
        match self.conn.auth.try_lock() {
            Ok(auth) => {
                let secrets: Vec<&str> = auth.secrets.iter().map(Secret::expose).collect();
                fault::scrub(fault, &secrets)
            }
            // Someone logs in right now: rather no evidence than an unchecked one.
            Err(_) => Fault { evidence: None, ..fault },
        }
    }
}

impl Conn {
    /// The text without what this BMC was told in confidence; `None`: somebody logs in right now.
    pub(super) fn without_secrets(&self, text: &str) -> Option<String> {
        let auth = self.auth.try_lock().ok()?;
        let secrets: Vec<&str> = auth.secrets.iter().map(Secret::expose).collect();
        Some(fault::scrub_text(text, &secrets))
    }
}

/// A BMC that gave sessions has none now: it is half up. Nothing falls back to Basic for that (R3),
/// which would send the password with every request from then on.
fn no_sessions_now(why: &str) -> Fault {
    fault::not_redfish(why, "this BMC had sessions before")
}

/// Ends our session. Where the BMC does not answer, the session is kept in mind for another try, and
/// for the next start; the BMC drops it by itself after its time-out.
pub(super) async fn end(edge: &RedfishBmc, conn: &Conn) -> Result<(), Fault> {
    let mut auth = conn.auth.lock().await;
    let (Some(url), Some(login)) = (auth.session.clone(), auth.login.clone()) else {
        auth.drop_login();
        auth.secrets.clear();
        return Ok(());
    };
    let what = format!("DELETE {}", url.path());
    let request =
        Request { method: Method::DELETE, url, login: &login, if_match: None, body: None };
    let answer = edge.clients.send(conn.policy, request).await.map_err(|no| no.fault)?;
    let secrets = std::mem::take(&mut auth.secrets);
    auth.drop_login();
    if let Some(store) = &edge.sessions {
        store.forget(&conn.at).await.ok();
    }
    // 401 and 404: it had gone already.
    if answer.ok() || matches!(answer.status, 401 | 404 | 410) {
        return Ok(());
    }
    let exposed: Vec<&str> = secrets.iter().map(Secret::expose).collect();
    Err(fault::scrub(fault::of_status(&what, &answer), &exposed))
}
