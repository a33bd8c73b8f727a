//! A BMC with an account service: one account of ours, its password, its lock.

use super::server::{Reply, SYSTEM, Seen, calm};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
pub(crate) const ACCOUNT: &str = "/redfish/v1/AccountService/Accounts/3";
pub(crate) const USER: &str = "farrier";

/// How it misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manners {
    /// Nothing but a new password is taken first (DSP0266).
    pub(crate) change_first: bool,
    /// If-Match must be what was read.
    pub(crate) wants_etag: bool,
    /// Basic only.
    pub(crate) no_sessions: bool,
    /// Passwords are cut off without a word.
    pub(crate) cuts: bool,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) password: String,
    pub(crate) manners: Manners,
    /// When logins failed, within the window.
    failed: Vec<Instant>,
    pub(crate) locked: bool,
    /// How many logins failed in all.
    pub(crate) refused: usize,
    sessions: BTreeSet<String>,
    made: usize,
    /// Every password that was set.
    pub(crate) set: Vec<String>,
}

/// Its state is the test's to look at; the server's script asks it.
#[derive(Clone, Debug)]
pub(crate) struct Account(Arc<Mutex<State>>);

/// Failed logins that lock, and in which time (field notes R2: 3 in 30 s).
const THRESHOLD: usize = 3;
/// As the daemon's clock runs 600 times faster in these tests, so does the BMC's.
const WINDOW: Duration = Duration::from_millis(500);

impl Account {
    pub(crate) fn new(password: &str, manners: Manners) -> Self {
        Self(Arc::new(Mutex::new(State {
            password: password.into(),
            manners,
            failed: Vec::new(),
            locked: false,
            refused: 0,
            sessions: BTreeSet::new(),
            made: 0,
            set: Vec::new(),
        })))
    }

    pub(crate) fn look<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    pub(crate) fn password(&self) -> String {
        self.look(|s| s.password.clone())
    }

    /// The answer to one request.
    pub(crate) fn answer(&self, r: &Seen) -> Reply {
        let mut s = self.0.lock().unwrap();
        let path = r.path.trim_end_matches('/');
        if (r.method.as_str(), path) == ("GET", "/redfish/v1") {
            let mut root = json!({
                "Name": "BMC of a test",
                "Systems": {"@odata.id": "/redfish/v1/Systems"},
                "AccountService": {"@odata.id": "/redfish/v1/AccountService"},
                "Links": {"Sessions": {"@odata.id": SESSIONS}}});
            if s.manners.no_sessions {
                root["Links"] = json!({});
            }
            return Reply::ok(root);
        }
        if (r.method.as_str(), path) == ("POST", SESSIONS) {
            let (user, password) = (text(&r.body, "UserName"), text(&r.body, "Password"));
            if !s.admits(&user, &password) {
                return Reply::status(401);
            }
            s.made += 1;
            let token = format!("token-{}", s.made);
            s.sessions.insert(token.clone());
            let location = format!("{SESSIONS}/{}", s.made);
            return Reply::Json(201, vec![], json!({}))
                .with("X-Auth-Token", &token)
                .with("Location", &location);
        }
        let admitted = match (r.header("x-auth-token"), r.header("authorization")) {
            (Some(token), _) => s.sessions.contains(token),
            (None, Some(basic)) => {
                let plain =
                    basic.strip_prefix("Basic ").and_then(|b| BASE64_STANDARD.decode(b).ok());
                let plain = String::from_utf8(plain.unwrap_or_default()).unwrap_or_default();
                let (user, password) = plain.split_once(':').unwrap_or_default();
                s.admits(user, password)
            }
            (None, None) => false,
        };
        if !admitted {
            return Reply::status(401);
        }
        if s.manners.change_first && path != ACCOUNT {
            return Reply::Json(
                403,
                vec![],
                json!({"error": {"@Message.ExtendedInfo": [{
                    "MessageId": "Base.1.11.PasswordChangeRequired",
                    "Message": "The password must be changed.",
                    "MessageArgs": [ACCOUNT]}]}}),
            );
        }
        match (r.method.as_str(), path) {
            ("DELETE", p) if p.starts_with(SESSIONS) => {
                if let Some(token) = r.header("x-auth-token") {
                    s.sessions.remove(token);
                }
                Reply::status(204)
            }
            ("GET", "/redfish/v1/AccountService") => Reply::ok(json!({
                "MinPasswordLength": 13, "MaxPasswordLength": 20,
                "AccountLockoutThreshold": THRESHOLD, "AccountLockoutDuration": 0,
                "Accounts": {"@odata.id": "/redfish/v1/AccountService/Accounts"}})),
            // Fixed slots, as on Dell: most are free.
            ("GET", "/redfish/v1/AccountService/Accounts") => Reply::ok(json!({"Members": [
                {"@odata.id": "/redfish/v1/AccountService/Accounts/1"},
                {"@odata.id": "/redfish/v1/AccountService/Accounts/2"},
                {"@odata.id": ACCOUNT}]})),
            ("GET", "/redfish/v1/AccountService/Accounts/1") => {
                Reply::ok(json!({"Id": "1", "UserName": "", "Enabled": false}))
            }
            ("GET", "/redfish/v1/AccountService/Accounts/2") => {
                Reply::ok(json!({"Id": "2", "UserName": "root", "Enabled": true}))
            }
            ("GET", ACCOUNT) => Reply::ok(json!({
                "Id": "3", "UserName": USER, "Enabled": true, "RoleId": "Administrator"}))
            .with("ETag", "W/\"7\""),
            ("PATCH", ACCOUNT) => {
                let tag =
                    r.header("if-match").map(|t| t.trim_start_matches("W/").trim_matches('"'));
                if s.manners.wants_etag && tag != Some("7") {
                    return Reply::said(412, "PreconditionFailed");
                }
                let new = text(&r.body, "Password");
                if !(13..=20).contains(&new.len()) {
                    return Reply::said(400, "PropertyValueFormatError");
                }
                s.set.push(new.clone());
                s.password = new;
                if s.manners.cuts {
                    s.password.pop();
                }
                s.manners.change_first = false;
                // Sessions of the old password end with it.
                s.sessions.clear();
                Reply::status(204)
            }
            ("GET", SYSTEM) | ("GET", "/redfish/v1/Systems") => {
                let inside = Seen { headers: logged_in(), ..r.clone() };
                calm(&inside)
            }
            _ => Reply::said(404, "ResourceMissingAtURI"),
        }
    }
}

fn logged_in() -> std::collections::BTreeMap<String, String> {
    [("x-auth-token".to_string(), "token-0001".to_string())].into()
}

fn text(body: &Value, key: &str) -> String {
    body[key].as_str().unwrap_or_default().to_string()
}

impl State {
    fn admits(&mut self, user: &str, password: &str) -> bool {
        let now = Instant::now();
        if !self.locked && user == USER && password == self.password {
            return true;
        }
        self.refused += 1;
        self.failed.retain(|at| now.duration_since(*at) < WINDOW);
        self.failed.push(now);
        self.locked |= self.failed.len() >= THRESHOLD;
        false
    }
}
