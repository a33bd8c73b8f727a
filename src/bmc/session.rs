//! Logging in: one session per BMC, found by the service's own link (R1, R2). A login is tried
//! again only where that cannot lock the account.

use super::conn::{Bmc, Conn};
use super::fault;
use super::http::{Clients, Login, Request};
use crate::model::{Fault, FaultClass};
use crate::port::{Credential, Secret};
use reqwest::{Method, Url};
use serde_json::json;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Refused logins that one BMC gets in [`Settings::login_pause_ms`](super::Settings) × 2: below the
/// lowest threshold seen (3 tries), with one to spare for a person.
const MAX_REFUSED: usize = 2;

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
}

/// Stands for a credential in memory, without being it.
fn mark(c: &Credential) -> [u8; 32] {
    let mut ctx = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    ctx.update(c.user.as_bytes());
    ctx.update(&[0]);
    ctx.update(c.password.expose().as_bytes());
    let mut out = [0; 32];
    out.copy_from_slice(ctx.finish().as_ref());
    out
}

impl Auth {
    fn set(&mut self, login: Login, session: Option<Url>, c: &Credential) {
        self.secrets = vec![c.password.clone()];
        if let Login::Token(t) = &login {
            self.secrets.push(t.clone());
        }
        self.login = Some(login);
        self.session = session;
        self.round += 1;
    }

    fn drop_login(&mut self) {
        self.login = None;
        self.session = None;
    }

    /// How long this credential must still rest.
    fn resting(&mut self, mark: &[u8; 32], pause: Duration) -> Option<Duration> {
        while self.refused.front().is_some_and(|(at, _)| at.elapsed() > pause * 2) {
            self.refused.pop_front();
        }
        let all = self.refused.len();
        let oldest = self.refused.front()?.0;
        let last = self.refused.iter().rev().find(|(_, m)| m == mark);
        let of_this = last.map(|(at, _)| pause.saturating_sub(at.elapsed()));
        let of_all = (all >= MAX_REFUSED).then(|| (pause * 2).saturating_sub(oldest.elapsed()));
        of_this.max(of_all).filter(|left| !left.is_zero())
    }

    fn refuse(&mut self, mark: [u8; 32]) {
        self.drop_login();
        self.refused.push_back((Instant::now(), mark));
    }
}

impl Bmc<'_> {
    fn pause(&self) -> Duration {
        Duration::from_millis(self.edge.settings.login_pause_ms)
    }

    /// The present login and its number; logs in where there is none.
    pub(super) async fn login(&self) -> Result<(Login, u64), Fault> {
        let mut auth = self.conn.auth.lock().await;
        if let Some(login) = &auth.login {
            let expired = matches!(login, Login::Basic { .. })
                && auth.basic_until.is_some_and(|until| Instant::now() >= until);
            if !expired {
                return Ok((login.clone(), auth.round));
            }
            auth.drop_login();
            auth.basic_until = None;
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
            auth.refuse(mark(&credential));
            return Err(fault::bad_credentials(what));
        }
        // Sessions expire, and die with every BMC reset (R4).
        auth.drop_login();
        let login = self.log_in(&mut auth).await?;
        Ok((login, auth.round))
    }

    async fn log_in(&self, auth: &mut Auth) -> Result<Login, Fault> {
        let credential = self.edge.vault.credential(&self.target.endpoint.credential).await?;
        let mark = mark(&credential);
        if let Some(left) = auth.resting(&mark, self.pause()) {
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
            auth.set(basic.clone(), None, &credential);
            return Ok(basic);
        };
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
                let login = Login::Token(token);
                auth.set(login.clone(), own, &credential);
                Ok(login)
            }
            // No session service after all.
            404 | 405 | 501 => {
                auth.set(basic.clone(), None, &credential);
                Ok(basic)
            }
            _ if fault::sessions_exhausted(&answer) => {
                tracing::warn!(
                    machine = %self.target.name,
                    evidence = %fault::says(&answer),
                    "the BMC has no session left; using Basic for a while"
                );
                let rest = Duration::from_millis(self.edge.settings.basic_for_ms);
                auth.basic_until = Some(Instant::now() + rest);
                auth.set(basic.clone(), None, &credential);
                Ok(basic)
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

/// Ends our session. Where the BMC does not answer, the session is kept in mind for another try;
/// the BMC drops it by itself after its time-out.
pub(super) async fn end(clients: &Clients, conn: &Conn) -> Result<(), Fault> {
    let mut auth = conn.auth.lock().await;
    let (Some(url), Some(login)) = (auth.session.clone(), auth.login.clone()) else {
        auth.drop_login();
        auth.secrets.clear();
        return Ok(());
    };
    let what = format!("DELETE {}", url.path());
    let request =
        Request { method: Method::DELETE, url, login: &login, if_match: None, body: None };
    let answer = clients.send(conn.policy, request).await.map_err(|no| no.fault)?;
    let secrets = std::mem::take(&mut auth.secrets);
    auth.drop_login();
    // 401 and 404: it had gone already.
    if answer.ok() || matches!(answer.status, 401 | 404 | 410) {
        return Ok(());
    }
    let exposed: Vec<&str> = secrets.iter().map(Secret::expose).collect();
    Err(fault::scrub(fault::of_status(&what, &answer), &exposed))
}
