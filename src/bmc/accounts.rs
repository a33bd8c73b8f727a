//! User accounts (DSP0268 AccountService, ManagerAccount): what the BMC asks of passwords, setting
//! the password of an account that is there, and one login to see whether it works.
//!
//! Accounts are never made or removed: on Dell they are fixed slots (field notes R10), and an
//! account of ours is all that is needed.

use super::conn::Bmc;
use super::guard::{self, Stop};
use super::http::{Answer, Login, NoAnswer, Request};
use super::{fault, json, patch};
use crate::model::action::{Expect, Outcome};
use crate::model::hardware::{Account, AccountRules};
use crate::model::quirks::IfMatch;
use crate::model::{Channel, Fault, FaultClass};
use crate::port::Secret;
use reqwest::Method;
use serde_json::{Value, json};

/// A BMC says so of an account whose password must be changed before anything else (DSP0266
/// §"Password change required").
const CHANGE_REQUIRED: &str = "PasswordChangeRequired";
/// The class that `fault.rs` gives it.
const CHANGE_REQUIRED_CODE: &str = "password-change-required";

/// What the BMC asks of passwords, and its accounts; one that can't be read is left out.
pub(super) async fn read(bmc: &Bmc<'_>) -> Result<(AccountRules, Vec<Account>), Fault> {
    let root = bmc.get("/redfish/v1/").await?;
    let Some(link) = json::link(&root, &["AccountService"]) else {
        return Err(fault::unsupported("no-account-service", "the BMC has no account service"));
    };
    let service = bmc.get(&link).await?;
    let Some(list) = json::link(&service, &["Accounts"]) else {
        return Err(fault::unsupported("no-account-service", "the BMC lists no accounts"));
    };
    let members = bmc.resources(&list).await?;
    let accounts = members.into_iter().filter_map(|(uri, v)| Some(account(uri, &v.ok()?)));
    Ok((stricter(&rules(&service), &known(bmc).await), accounts.collect()))
}

/// What BMCs of this kind ask of passwords, and when they lock: all there is to go by where an account
/// sees nothing before its password was changed.
pub(super) async fn known(bmc: &Bmc<'_>) -> AccountRules {
    let quirks = match bmc.quirks().await {
        Ok(quirks) => quirks,
        // The service root is open to everybody (R1).
        Err(_) => bmc.quirks_of_root(&bmc.root_unlocked().await.unwrap_or_default()),
    };
    AccountRules {
        min_length: quirks.account.password_min,
        max_length: quirks.account.password_max,
        lockout_threshold: quirks.session.lockout_threshold,
        lockout_duration_s: quirks.session.lockout_s,
        user_max: quirks.account.user_max,
    }
}

/// What fits both, as some BMCs say less than they ask: of lengths the narrower, of locks the sooner
/// and longer. 0 says nothing.
fn stricter(said: &AccountRules, known: &AccountRules) -> AccountRules {
    let some = |n: Option<u32>| n.filter(|n| *n > 0);
    let most = |a, b| some(a).max(some(b)).or(a);
    let least = |a, b| [some(a), some(b)].into_iter().flatten().min().or(a);
    let mut out = AccountRules {
        min_length: most(said.min_length, known.min_length),
        max_length: least(said.max_length, known.max_length),
        lockout_threshold: least(said.lockout_threshold, known.lockout_threshold),
        lockout_duration_s: most(said.lockout_duration_s, known.lockout_duration_s),
        user_max: known.user_max,
    };
    if let (Some(min), Some(max)) = (out.min_length, some(out.max_length))
        && min > max
    {
        // What is known is another firmware's: this one speaks for itself.
        (out.min_length, out.max_length) = (said.min_length, said.max_length);
    }
    out
}

fn rules(service: &Value) -> AccountRules {
    let number = |key: &str| {
        let v = json::at(service, &[key])?;
        let n = v.as_u64().or_else(|| v.as_str()?.trim().parse().ok())?;
        u32::try_from(n).ok()
    };
    AccountRules {
        min_length: number("MinPasswordLength"),
        max_length: number("MaxPasswordLength"),
        lockout_threshold: number("AccountLockoutThreshold"),
        lockout_duration_s: number("AccountLockoutDuration"),
        user_max: None,
    }
}

fn account(uri: String, v: &Value) -> Account {
    let yes = |key: &str| json::at(v, &[key]).and_then(Value::as_bool);
    Account {
        id: json::text(v, &["Id"]).unwrap_or_else(|| json::last_segment(&uri).to_string()),
        user: json::text(v, &["UserName"]).unwrap_or_default(),
        role: json::text(v, &["RoleId"]),
        enabled: yes("Enabled"),
        locked: yes("Locked"),
        uri,
    }
}

/// Sets the password of `user`, once. Only on the machine that is meant, as far as the BMC shows it:
/// one that asks for a new password first shows nothing else.
pub(super) async fn set(bmc: &Bmc<'_>, user: &str, password: &Secret) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let expect = Expect { identity: bmc.target.identity.clone(), ..Expect::default() };
    match guard::check(bmc, &expect).await {
        Ok(_) => {}
        Err(Stop::Fault(f)) if f.code == CHANGE_REQUIRED_CODE => {
            return forced(bmc, user, password).await;
        }
        Err(stop) => return Err(stop),
    }
    match read(bmc).await {
        Err(f) if f.code == CHANGE_REQUIRED_CODE => forced(bmc, user, password).await,
        read => put(bmc, read?, user, password).await,
    }
}

/// The same where whose BMC it is was proven, and what [`read`] gives was just read. The caller has its
/// turn to write.
pub(super) async fn put(
    bmc: &Bmc<'_>,
    (rules, accounts): (AccountRules, Vec<Account>),
    user: &str,
    password: &Secret,
) -> Result<Outcome, Stop> {
    let Some(account) = accounts.into_iter().find(|a| a.user == user) else {
        return Err(no_account(user, rules.user_max).into());
    };
    let (v, etag) = bmc.get_with_etag(&account.uri).await?;
    // Read again just before the write: slots are given to others.
    if json::text(&v, &["UserName"]).as_deref() != Some(user) {
        let saw = format!("{} is no longer the account of `{user}`", account.uri);
        return Err(Stop::Refused { saw, wrong_machine: false });
    }
    let url = bmc.conn.url(&account.uri)?;
    let what = format!("PATCH {}", url.path());
    let body = json!({"Password": password.expose()});
    let mut last = Outcome::Failed { fault: fault::not_redfish(&what, "no ETag to try") };
    for etag in
        patch::etags(IfMatch::Ladder, etag.as_deref(), json::text(&v, &["@odata.etag"]).as_deref())
    {
        let sent = bmc.send(Method::PATCH, url.clone(), etag.as_deref(), Some(&body)).await;
        match sorted(bmc, &what, sent, password) {
            Sorted::Again(outcome) => last = outcome,
            Sorted::Done(outcome) => return Ok(outcome),
        }
    }
    Ok(last)
}

/// `most`: characters that an account's name has on this BMC.
fn no_account(user: &str, most: Option<u32>) -> Fault {
    let length = u32::try_from(user.chars().count()).unwrap_or(u32::MAX);
    if let Some(most) = most.filter(|most| length > *most) {
        let why = format!(
            "the BMC has no account `{user}`: names on it have {most} characters at most, and this \
             one has {length}"
        );
        return fault::precondition("no-account", why).hint(
            "the account may be there under the beginning of its name: name that as credential",
        );
    }
    fault::precondition("no-account", format!("the BMC has no account `{user}`"))
        .hint("name a local account of the BMC as its credential; directory users have none")
}

enum Sorted {
    /// Turned down for its ETag: nothing was done.
    Again(Outcome),
    Done(Outcome),
}

/// What an answer to the PATCH proves. The new password is in no fault.
fn sorted(bmc: &Bmc<'_>, what: &str, sent: Result<Answer, NoAnswer>, password: &Secret) -> Sorted {
    let clean = |f: Fault| fault::scrub(bmc.scrubbed(f), &[password.expose()]);
    match sent {
        Ok(a) if a.ok() => {
            // Dell 13G and others: 200 with the refusal inside (R9).
            let bad = json::messages(a.json()).iter().any(|m| {
                matches!(m.severity.to_ascii_lowercase().as_str(), "critical" | "warning")
            });
            if bad && a.json().get("error").is_some() {
                let f = Fault::new(
                    FaultClass::OutcomeUnknown,
                    Channel::Bmc,
                    "success-with-errors",
                    format!("{what}: {} with an error inside", a.status),
                );
                return Sorted::Done(Outcome::Unknown {
                    fault: clean(f.evidence(fault::says(&a))),
                });
            }
            Sorted::Done(Outcome::Applied { handle: None })
        }
        Ok(a) => {
            let again = patch::is_precondition(&a);
            let unclear = a.status >= 500 && !fault::plainly_rejected(&a);
            let f = clean(fault::of_status(what, &a));
            match (again, unclear) {
                (true, _) => Sorted::Again(Outcome::Failed { fault: f }),
                (false, true) => Sorted::Done(Outcome::Unknown { fault: f }),
                (false, false) => Sorted::Done(Outcome::Failed { fault: f }),
            }
        }
        Err(NoAnswer { fault, sent: false, .. }) => {
            Sorted::Done(Outcome::Failed { fault: clean(fault) })
        }
        Err(NoAnswer { fault, .. }) => Sorted::Done(Outcome::Unknown { fault: clean(fault) }),
    }
}

/// Sets the password of an account that may do nothing else before. Its URI is in the very refusal
/// (DSP0266: `PasswordChangeRequired`, first argument); such an account may read and change itself
/// under Basic. What machine this is can't be read before; a factory password is one machine's.
async fn forced(bmc: &Bmc<'_>, user: &str, password: &Secret) -> Result<Outcome, Stop> {
    let credential = bmc.edge.vault.credential(&bmc.target.endpoint.credential).await?;
    if credential.user != user {
        return Err(no_account(user, None).into());
    }
    let old = &credential.password;
    let login = Login::Basic { user: user.into(), password: old.clone() };
    let asker = Asker { bmc, login: &login, secrets: [old.expose(), password.expose()] };
    let root = bmc.root_unlocked().await?;
    let ask = root.systems.clone().unwrap_or_else(|| "/redfish/v1/Systems".into());
    let told = named(&asker.send(Method::GET, &ask, None, None).await?);
    let uri = match told.and_then(|uri| bmc.conn.path(&uri)) {
        Some(uri) => Some(uri),
        None => asker.own(user).await?,
    };
    let Some(uri) = uri else {
        let f = fault::precondition(
            CHANGE_REQUIRED_CODE,
            "the BMC asks for a new password and does not say of which account",
        );
        return Err(f.hint("set a first password by hand, then import it").into());
    };
    let account = asker.send(Method::GET, &uri, None, None).await?;
    let v = account.json();
    if json::text(v, &["UserName"]).is_some_and(|found| found != user) {
        let saw = format!("{uri} is the account of another user");
        return Err(Stop::Refused { saw, wrong_machine: false });
    }
    let what = format!("PATCH {uri}");
    let body = json!({"Password": password.expose()});
    let mut last = Outcome::Failed { fault: fault::not_redfish(&what, "no ETag to try") };
    for etag in patch::etags(
        IfMatch::Ladder,
        account.etag.as_deref(),
        json::text(v, &["@odata.etag"]).as_deref(),
    ) {
        let request = Request {
            method: Method::PATCH,
            url: bmc.conn.url(&uri)?,
            login: &login,
            if_match: etag.as_deref(),
            body: Some(&body),
        };
        let sent = bmc.edge.clients.send(bmc.conn.policy, request).await;
        match sorted(bmc, &what, sent, password) {
            Sorted::Again(outcome) => last = outcome,
            Sorted::Done(outcome) => return Ok(outcome),
        }
    }
    Ok(last)
}

/// The URI of the account whose password must change, as a refusal names it.
fn named(answer: &Answer) -> Option<String> {
    let messages = json::messages(answer.json());
    let said = messages.iter().find(|m| m.id.eq_ignore_ascii_case(CHANGE_REQUIRED))?;
    said.args.iter().find(|a| a.to_ascii_lowercase().contains("/accounts/")).cloned()
}

/// Requests under a login of their own, beside the session that is kept.
struct Asker<'a, 'b> {
    bmc: &'a Bmc<'b>,
    login: &'a Login,
    secrets: [&'a str; 2],
}

impl Asker<'_, '_> {
    async fn send(
        &self,
        method: Method,
        link: &str,
        if_match: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, Fault> {
        let url = self.bmc.conn.url(link)?;
        let request = Request { method, url, login: self.login, if_match, body };
        let sent = self.bmc.edge.clients.send(self.bmc.conn.policy, request).await;
        sent.map_err(|no| fault::scrub(no.fault, &self.secrets))
    }

    /// The user's own account among those that the service lets it see.
    async fn own(&self, user: &str) -> Result<Option<String>, Fault> {
        let at = async |link: &str| -> Result<Value, Fault> {
            Ok(self.send(Method::GET, link, None, None).await?.json().clone())
        };
        let root = at("/redfish/v1/").await?;
        let Some(link) = json::link(&root, &["AccountService"]) else { return Ok(None) };
        let Some(list) = json::link(&at(&link).await?, &["Accounts"]) else { return Ok(None) };
        for member in json::list(&at(&list).await?, &["Members"]).iter().take(32) {
            let Some(uri) = json::link_of(member) else { continue };
            if json::text(&at(&uri).await?, &["UserName"]).as_deref() == Some(user) {
                return Ok(Some(uri));
            }
        }
        Ok(None)
    }
}

/// One login, in a session of its own that is ended again. `Ok`: it works, be it with the demand
/// for a new password. `Err` of class auth: it was refused.
pub(super) async fn verify(bmc: &Bmc<'_>, user: &str, password: &Secret) -> Result<(), Fault> {
    let secrets = [password.expose(), ""];
    let spare = bmc.has_session_to_spare().await;
    let sessions = match bmc.root_unlocked().await {
        Ok(root) => root.sessions.clone(),
        Err(f) if f.class == FaultClass::Auth => None,
        Err(f) => return Err(f),
    };
    // Where there may be none to spare, the one login that is judged is not spent on asking for it.
    if let Some(link) = sessions.filter(|_| spare) {
        let asker = Asker { bmc, login: &Login::None, secrets };
        let body = json!({"UserName": user, "Password": password.expose()});
        let mut answer = asker.send(Method::POST, &link, None, Some(&body)).await?;
        let exhausted = fault::sessions_exhausted(&answer);
        if let (true, Some(token)) = (answer.ok(), answer.token.take()) {
            end(bmc, &answer, token).await;
            return Ok(());
        }
        // No session to be had: one try of another kind, which is the first login that is judged.
        if !(answer.ok() || exhausted || matches!(answer.status, 404 | 405 | 501)) {
            return judged(&format!("POST {link}"), &answer, &secrets);
        }
    }
    let login = Login::Basic { user: user.into(), password: password.clone() };
    let asker = Asker { bmc, login: &login, secrets };
    let root = bmc.root_unlocked().await.unwrap_or_default();
    let link = root.systems.clone().unwrap_or_else(|| "/redfish/v1/Systems".into());
    let answer = asker.send(Method::GET, &link, None, None).await?;
    judged(&format!("GET {link}"), &answer, &secrets)
}

/// What an answer says of the login that it was asked with.
fn judged(what: &str, answer: &Answer, secrets: &[&str]) -> Result<(), Fault> {
    if answer.ok() {
        return Ok(());
    }
    let f = fault::scrub(fault::of_status(what, answer), secrets);
    match answer.status {
        // Known, and not let in yet, or not allowed this.
        _ if f.code == CHANGE_REQUIRED_CODE || f.code == "insufficient-privilege" => Ok(()),
        // Some answer 400 or 403 to a wrong password.
        400 | 401 | 403 => Err(fault::bad_credentials(what)),
        _ => Err(f),
    }
}

/// Ends the session of a try; one that stays times out by itself.
async fn end(bmc: &Bmc<'_>, answer: &Answer, token: Secret) {
    let link = answer.location.clone().or_else(|| json::link_of(answer.json()));
    let Some(path) = link.and_then(|l| bmc.conn.path(&l)) else { return };
    let login = Login::Token(token);
    let asker = Asker { bmc, login: &login, secrets: ["", ""] };
    if asker.send(Method::DELETE, &path, None, None).await.is_err() {
        tracing::debug!(machine = %bmc.target.name, "the session of a login's try was not ended");
    }
}
