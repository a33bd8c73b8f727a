//! PATCH in the BMC's own ETag dialect (RFC 9110 §13.1.1; field notes R12): GET, then If-Match with
//! what the header gave, then the spellings that BMCs mistake for it.

use super::conn::Bmc;
use super::guard::{self, Stop};
use super::http::{Answer, NoAnswer};
use super::{fault, json};
use crate::model::quirks::IfMatch;
use crate::model::{Fault, Outcome};
use reqwest::Method;
use serde_json::Value;

/// A resource as it was read, with what may be said in If-Match for it.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) path: String,
    pub(super) document: Value,
    etags: Vec<Option<String>>,
}

/// Reads what is to be changed.
pub(super) async fn read(bmc: &Bmc<'_>, path: &str) -> Result<Read, Fault> {
    let (document, header) = bmc.get_with_etag(path).await?;
    let body = json::text(&document, &["@odata.etag"]);
    let policy = bmc.conn.quirks().map_or(IfMatch::Ladder, |q| q.etag.patch);
    let etags = etags(policy, header.as_deref(), body.as_deref());
    Ok(Read { path: path.to_string(), document, etags })
}

/// What to say in If-Match, one after the other; `None`: no such header.
pub(super) fn etags(
    policy: IfMatch,
    header: Option<&str>,
    body: Option<&str>,
) -> Vec<Option<String>> {
    let mut out: Vec<Option<String>> = Vec::new();
    let mut add = |e: Option<String>| {
        if !out.contains(&e) {
            out.push(e);
        }
    };
    match policy {
        IfMatch::Never => return vec![None],
        IfMatch::Any => add(Some("*".into())),
        IfMatch::Ladder => {}
    }
    let clean = |e: Option<&str>| e.map(str::trim).filter(|e| !e.is_empty()).map(str::to_string);
    let (header, body) = (clean(header), clean(body));
    let Some(first) = header.or_else(|| body.clone()) else {
        add(None);
        add(Some("*".into()));
        return out;
    };
    let bare = first.trim_start_matches("W/").trim_matches('"').to_string();
    add(Some(first));
    if let Some(body) = body {
        add(Some(body));
    }
    // Nothing between the quotes: no tag to spell another way.
    if !bare.is_empty() {
        add(Some(format!("W/\"{bare}\"")));
        add(Some(format!("\"{bare}\"")));
        add(Some(bare));
    }
    add(Some("*".into()));
    add(None);
    out
}

/// Sends `body`; another spelling of the ETag only where the answer says that the one before it
/// was the reason, and so that nothing was done.
pub(super) async fn patch(
    bmc: &Bmc<'_>,
    read: &Read,
    body: &Value,
) -> Result<Result<Answer, Outcome>, Stop> {
    let url = bmc.conn.url(&read.path)?;
    let what = format!("PATCH {}", url.path());
    let mut last: Option<Answer> = None;
    for etag in &read.etags {
        let sent = bmc.send(Method::PATCH, url.clone(), etag.as_deref(), Some(body)).await;
        match sent {
            Ok(a) if is_precondition(&a) => last = Some(a),
            Ok(a) => return Ok(guard::taken(bmc, &what, a)),
            Err(NoAnswer { fault, sent: false, .. }) => return Err(bmc.scrubbed(fault).into()),
            Err(NoAnswer { fault, .. }) => {
                return Ok(Err(Outcome::Unknown { fault: guard::unknown(bmc.scrubbed(fault)) }));
            }
        }
    }
    Ok(Err(Outcome::Failed {
        fault: match last {
            Some(a) => bmc.scrubbed(fault::of_status(&what, &a)),
            None => fault::not_redfish(&what, "no ETag to try"),
        },
    }))
}

pub(super) fn is_precondition(a: &Answer) -> bool {
    matches!(a.status, 412 | 428)
        || a.status == 400
            && json::messages(a.json()).iter().any(|m| {
                ["PreconditionFailed", "PreconditionRequired", "HeaderMissing", "HeaderInvalid"]
                    .iter()
                    .any(|id| m.id.eq_ignore_ascii_case(id))
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_etag_ladder_has_every_spelling_once() {
        let all = |policy, h, b| -> Vec<String> {
            etags(policy, h, b).into_iter().map(|e| e.unwrap_or_else(|| "-".into())).collect()
        };
        let usual = |h, b| all(IfMatch::Ladder, h, b);
        assert_eq!(usual(None, None), ["-", "*"]);
        assert_eq!(usual(None, Some("")), ["-", "*"]);
        assert_eq!(usual(Some(" "), None), ["-", "*"]);
        assert_eq!(usual(Some("W/\"1\""), None), ["W/\"1\"", "\"1\"", "1", "*", "-"]);
        assert_eq!(
            usual(Some("\"1\""), Some("\"2\"")),
            ["\"1\"", "\"2\"", "W/\"1\"", "1", "*", "-"]
        );
        assert_eq!(usual(Some("\"\""), None), ["\"\"", "*", "-"]);
        assert_eq!(all(IfMatch::Never, Some("\"1\""), None), ["-"]);
        assert_eq!(all(IfMatch::Any, Some("\"1\""), None), ["*", "\"1\"", "W/\"1\"", "1", "-"]);
        assert_eq!(all(IfMatch::Any, None, None), ["*", "-"]);
    }
}
