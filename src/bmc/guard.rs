//! What comes before and after every write: what the action expects is re-read on the same
//! channel, and the answer is read for what it says about having taken hold.

use super::conn::Bmc;
use super::discover::Links;
use super::fault;
use super::http::{Answer, NoAnswer};
use super::{json, system};
use crate::model::action::{Expect, Outcome};
use crate::model::identity::Match;
use crate::model::quirks::IfMatch;
use crate::model::{Fault, FaultClass};
pub(super) use crate::port::stop::Stop;
use reqwest::Method;
use serde_json::Value;
use std::sync::Arc;

/// Re-reads the system and compares identity and power with what the action expects (law 5).
pub(super) async fn check(bmc: &Bmc<'_>, expect: &Expect) -> Result<(Arc<Links>, Value), Stop> {
    let (links, v) = system::fetch(bmc).await?;
    let refused = |saw: String, wrong_machine| Stop::Refused { saw, wrong_machine };
    let wanted = &expect.identity;
    let by_tag = bmc.by_tag(&v);
    let mut found = system::identity(&v, wanted, by_tag);
    if matches!(wanted.compare(&found), Match::Unknown) && wanted.mac.is_some() {
        // Neither serial nor UUID to go by: the MACs, read now and not remembered.
        let macs = bmc.macs(&v).await?;
        found = system::facts(&v, wanted, &macs, by_tag).identity;
    }
    match wanted.compare(&found) {
        Match::Differs { part, expected, found } => {
            return Err(refused(format!("{part} `{found}`, expected `{expected}`"), true));
        }
        Match::Unknown if !wanted.is_unknown() => {
            return Err(refused("nothing that proves the machine's identity".into(), false));
        }
        Match::Same | Match::Unknown => {}
    }
    if let Some(power) = expect.power {
        let now = system::power(&v);
        if now != power {
            return Err(refused(format!("power is {now:?}, expected {power:?}"), false));
        }
    }
    Ok((links, v))
}

/// Posts an action once, never again: only a 401, which says that nothing was done, is repeated
/// under a new login.
pub(super) async fn post(
    bmc: &Bmc<'_>,
    target: &str,
    body: &Value,
) -> Result<Result<Answer, Outcome>, Stop> {
    let url = bmc.conn.url(target)?;
    let what = format!("POST {}", url.path());
    // Harmful on iDRAC10, wanted by AMI (R12). An action's own resource has no ETag to name.
    let any = bmc.conn.quirks().is_some_and(|q| q.etag.action == IfMatch::Any);
    let if_match = any.then_some("*");
    match bmc.send(Method::POST, url, if_match, Some(body)).await {
        Ok(answer) => Ok(taken(bmc, &what, answer)),
        Err(NoAnswer { fault, sent: false, .. }) => Err(bmc.scrubbed(fault).into()),
        Err(NoAnswer { fault, .. }) => {
            Ok(Err(Outcome::Unknown { fault: unknown(bmc.scrubbed(fault)) }))
        }
    }
}

/// Sorts an action's answer: taken, turned down, or nobody can tell.
pub(super) fn taken(bmc: &Bmc<'_>, what: &str, answer: Answer) -> Result<Answer, Outcome> {
    if answer.ok() {
        // 200 with errors inside: seen both where it had worked and where not (R9).
        let critical = json::messages(answer.json())
            .iter()
            .any(|m| m.severity.eq_ignore_ascii_case("critical"));
        if critical && answer.json().get("error").is_some() {
            let said = fault::says(&answer);
            let f = fault::new(
                FaultClass::OutcomeUnknown,
                "success-with-errors",
                format!("{what}: {} with a critical message inside", answer.status),
            );
            return Err(Outcome::Unknown { fault: bmc.scrubbed(f.evidence(said)) });
        }
        return Ok(answer);
    }
    let f = bmc.scrubbed(fault::of_status(what, &answer));
    if answer.status >= 500 && !fault::plainly_rejected(&answer) {
        return Err(Outcome::Unknown { fault: unknown(f) });
    }
    Err(Outcome::Failed { fault: f })
}

pub(super) fn unknown(f: Fault) -> Fault {
    f.hint("it may have taken hold; what the machine shows will decide")
}

/// An action by its name below `Actions`: target, and the values that a parameter may have, where
/// the BMC lists them (inline or in its ActionInfo).
#[derive(Debug)]
pub(super) struct Action {
    pub(super) target: String,
    inline: Value,
    info: Option<Value>,
    /// It names an ActionInfo that could not be read.
    unread: bool,
}

impl Action {
    pub(super) async fn find(
        bmc: &Bmc<'_>,
        resource: &Value,
        name: &str,
    ) -> Result<Option<Action>, Fault> {
        let Some(action) = json::at(resource, &["Actions", name]) else { return Ok(None) };
        let Some(target) = json::text(action, &["target"]) else { return Ok(None) };
        let path = json::text(action, &["@Redfish.ActionInfo"]);
        let info = match &path {
            None => None,
            // Optional help: without it the values are simply not known.
            Some(path) => match bmc.get(path).await {
                Ok(v) => Some(v),
                Err(f) if super::discover::is_fatal(&f) => return Err(f),
                Err(_) => None,
            },
        };
        let unread = path.is_some() && info.is_none();
        Ok(Some(Action { target, inline: action.clone(), info, unread }))
    }

    /// Posts it as [`post`] does. That a BMC turns down a value is no verdict where its list of them could
    /// not be read, and the value was guessed: another attempt reads the list again.
    pub(super) async fn post(
        &self,
        bmc: &Bmc<'_>,
        body: &Value,
    ) -> Result<Result<Answer, Outcome>, Stop> {
        Ok(post(bmc, &self.target, body).await?.map_err(|outcome| match outcome {
            Outcome::Failed { mut fault } if self.unread && fault.code == "rejected" => {
                fault.class = FaultClass::Transient;
                let hint =
                    "the BMC's list of what it takes could not be read, so the usual was sent";
                Outcome::Failed { fault: fault.hint(hint) }
            }
            other => other,
        }))
    }

    /// The values that `parameter` may have; `None`: the BMC does not say.
    pub(super) fn allowed(&self, parameter: &str) -> Option<Vec<String>> {
        let key = format!("{parameter}@Redfish.AllowableValues");
        let inline = json::texts(&self.inline, &[&key]);
        if !inline.is_empty() {
            return Some(inline);
        }
        let listed = self.parameter(parameter).map(|p| json::texts(p, &["AllowableValues"]))?;
        (!listed.is_empty()).then_some(listed)
    }

    fn parameter(&self, name: &str) -> Option<&Value> {
        json::list(self.info.as_ref()?, &["Parameters"])
            .iter()
            .find(|p| p.get("Name").and_then(Value::as_str) == Some(name))
    }

    /// Is `parameter` known to be one this BMC does not take?
    pub(super) fn lacks(&self, parameter: &str) -> bool {
        let listed = self.info.as_ref().map_or(&[][..], |i| json::list(i, &["Parameters"]));
        !listed.is_empty() && self.parameter(parameter).is_none()
    }
}
