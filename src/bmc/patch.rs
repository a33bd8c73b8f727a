//! PATCH in the BMC's own ETag dialect (field notes R12): GET, then If-Match with what the header
//! gave, then the other spellings.

use super::conn::Bmc;
use super::guard::Stop;
use super::http::{Answer, NoAnswer};
use super::{fault, json};
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
    let etags = etags(header.as_deref(), body.as_deref());
    Ok(Read { path: path.to_string(), document, etags })
}

/// What to say in If-Match, one after the other: what the header gave, what the body gave, then
/// the spellings that BMCs mistake for each other, `*`, and nothing (R12).
fn etags(header: Option<&str>, body: Option<&str>) -> Vec<Option<String>> {
    let mut out: Vec<Option<String>> = Vec::new();
    let mut add = |e: Option<String>| {
        if !out.contains(&e) {
            out.push(e);
        }
    };
    let first = header.or(body).map(str::trim).filter(|e| !e.is_empty());
    let Some(first) = first else { return vec![None, Some("*".into())] };
    add(Some(first.to_string()));
    if let Some(b) = body.filter(|b| !b.trim().is_empty()) {
        add(Some(b.trim().to_string()));
    }
    let bare = first.trim_start_matches("W/").trim_matches('"').to_string();
    add(Some(format!("W/\"{bare}\"")));
    add(Some(format!("\"{bare}\"")));
    add(Some(bare));
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
            Ok(a) if a.ok() => return Ok(Ok(a)),
            Ok(a) if is_precondition(&a) => last = Some(a),
            Ok(a) => {
                let f = bmc.scrubbed(fault::of_status(&what, &a));
                return Ok(Err(if a.status >= 500 && !fault::plainly_rejected(&a) {
                    Outcome::Unknown { fault: f }
                } else {
                    Outcome::Failed { fault: f }
                }));
            }
            Err(NoAnswer { fault, sent: false, .. }) => return Err(bmc.scrubbed(fault).into()),
            Err(NoAnswer { fault, .. }) => {
                return Ok(Err(Outcome::Unknown { fault: bmc.scrubbed(fault) }));
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

fn is_precondition(a: &Answer) -> bool {
    matches!(a.status, 412 | 428)
        || a.status == 400
            && json::messages(a.json()).iter().any(|m| {
                m.id.eq_ignore_ascii_case("PreconditionFailed")
                    || m.id.eq_ignore_ascii_case("PreconditionRequired")
                    || m.id.eq_ignore_ascii_case("HeaderMissing")
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_etag_ladder_has_every_spelling_once() {
        let all = |h, b| -> Vec<String> {
            etags(h, b).into_iter().map(|e| e.unwrap_or_else(|| "-".into())).collect()
        };
        assert_eq!(all(None, None), ["-", "*"]);
        assert_eq!(all(None, Some("")), ["-", "*"]);
        assert_eq!(all(Some("W/\"1\""), None), ["W/\"1\"", "\"1\"", "1", "*", "-"]);
        assert_eq!(all(Some("\"1\""), Some("\"2\"")), ["\"1\"", "\"2\"", "W/\"1\"", "1", "*", "-"]);
    }
}
