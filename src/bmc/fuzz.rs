//! Ways in for fuzz targets to what is private here: one answer, read as each of its readers does.

use super::canned::Canned;
use super::http::Answer;
use super::{RedfishBmc, fault, guard, patch, task};
use crate::model::quirks::IfMatch;
use crate::model::{Fault, Outcome};
use crate::port::BmcTarget;

/// Not a path that any BMC has.
const WHAT: &str = "GET /fuzz";

/// All faults that are made of one answer.
#[derive(Debug)]
pub struct Faults {
    /// It was asked for a document; `None`: it is one.
    pub of_document: Option<Fault>,
    /// It is the answer to an action.
    pub of_action: Option<Outcome>,
    /// It is a refusal for now.
    pub later: Fault,
    pub sessions_exhausted: bool,
    pub plainly_rejected: bool,
    /// Asks for another ETag.
    pub precondition: bool,
}

/// # Errors
/// The target's address is none.
pub fn faults(edge: &RedfishBmc, target: &BmcTarget, canned: &Canned) -> Result<Faults, Fault> {
    let bmc = edge.bmc(target)?;
    let answer = || Answer::of(canned, edge.settings.max_body_bytes);
    Ok(Faults {
        of_document: fault::document(WHAT, answer()).err().map(|f| bmc.scrubbed(f)),
        of_action: guard::taken(&bmc, WHAT, answer()).err(),
        later: fault::later(fault::of_status(WHAT, &answer()), 30),
        sessions_exhausted: fault::sessions_exhausted(&answer()),
        plainly_rejected: fault::plainly_rejected(&answer()),
        precondition: patch::is_precondition(&answer()),
    })
}

/// What is made of one answer's headers, and of what stands for them in its body.
#[derive(Debug)]
pub struct Heads {
    /// What If-Match may say, one after the other, by the ladder and where `*` comes first.
    pub etags: Vec<Option<String>>,
    pub etags_any_first: Vec<Option<String>>,
    pub retry_after_ms: Option<u64>,
    /// The Location as a path on this BMC, and where that leads to.
    pub path: Option<String>,
    pub path_url: Option<String>,
    /// The Location as a URL that credentials may go to.
    pub url: Option<String>,
    /// Where an accepted update is followed.
    pub task: Option<String>,
}

/// # Errors
/// The target's address is none.
pub fn heads(edge: &RedfishBmc, target: &BmcTarget, canned: &Canned) -> Result<Heads, Fault> {
    let bmc = edge.bmc(target)?;
    let answer = Answer::of(canned, edge.settings.max_body_bytes);
    let (header, body) = (answer.etag.clone(), super::json::text(answer.json(), &["@odata.etag"]));
    let etags = |policy| patch::etags(policy, header.as_deref(), body.as_deref());
    let location = answer.location.as_deref();
    let path = location.and_then(|l| bmc.conn.path(l));
    Ok(Heads {
        etags: etags(IfMatch::Ladder),
        etags_any_first: etags(IfMatch::Any),
        retry_after_ms: answer.retry_after_ms,
        path_url: path.as_ref().and_then(|p| bmc.conn.url(p).ok()).map(String::from),
        path,
        url: location.and_then(|l| bmc.conn.url(l).ok()).map(String::from),
        task: task::handle(&bmc, &answer),
    })
}
