//! The boot override: minimal body, the BMC's ETag dialect, and the triple where a vendor wants it
//! (field notes §4, R12).

use super::conn::Bmc;
use super::guard::{self, Stop};
use super::http::{Answer, NoAnswer};
use super::{fault, json};
use crate::model::Outcome;
use crate::model::action::{BootTarget, Expect};
use reqwest::Method;
use serde_json::{Value, json};

/// Names of a target, the standard one first.
fn names(target: BootTarget) -> &'static [&'static str] {
    match target {
        BootTarget::Pxe => &["Pxe"],
        BootTarget::UefiHttp => &["UefiHttp"],
        BootTarget::Cd => &["Cd", "UsbCd"],
        BootTarget::Disk => &["Hdd"],
        BootTarget::None => &["None"],
    }
}

/// Vendors that fall back to defaults unless Enabled, Target and Mode come together.
fn wants_mode(system: &Value) -> bool {
    let maker = json::text(system, &["Manufacturer"]).unwrap_or_default().to_ascii_lowercase();
    ["supermicro", "ami", "american megatrends", "asrock"].iter().any(|m| maker.starts_with(m))
}

pub(super) async fn set(
    bmc: &Bmc<'_>,
    expect: &Expect,
    target: BootTarget,
) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let (links, system) = guard::check(bmc, expect).await?;
    let path = links.boot_settings.clone().unwrap_or_else(|| links.system.clone());
    let (resource, etag) = bmc.get_with_etag(&path).await?;
    let allowed = allowed(&resource).or_else(|| allowed(&system));
    let name = match &allowed {
        None => Some(names(target)[0]),
        Some(list) => names(target).iter().copied().find(|n| list.iter().any(|a| a == n)),
    };
    // "None" is left out of some lists, and always understood.
    let Some(name) = name.or((target == BootTarget::None).then_some("None")) else {
        return Ok(Outcome::Failed {
            fault: fault::unsupported(
                "boot-target-unsupported",
                format!(
                    "the BMC cannot boot from {}; it has {}",
                    names(target)[0],
                    allowed.unwrap_or_default().join(", ")
                ),
            ),
        });
    };
    let enabled = if target == BootTarget::None { "Disabled" } else { "Once" };
    let mut minimal =
        json!({"BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": name});
    // Some have it absent or null: then there is nothing to repeat.
    let mode = json::text(&resource, &["Boot", "BootSourceOverrideMode"]);
    let with_mode = mode.map(|mode| {
        let mut full = minimal.clone();
        full["BootSourceOverrideMode"] =
            Value::from(if target == BootTarget::UefiHttp { "UEFI".to_string() } else { mode });
        full
    });
    let (first, second) = match with_mode {
        Some(full) if wants_mode(&system) => (full, Some(minimal.take())),
        Some(full) => (minimal, Some(full)),
        None => (minimal, None),
    };
    let etags = etags(etag.as_deref(), json::text(&resource, &["@odata.etag"]).as_deref());
    let mut outcome = patch(bmc, &path, &etags, &first).await?;
    // The override is set freely (redo class), so the other body may be tried where this was
    // turned down: HPE rejects Mode, others miss it.
    if let (Outcome::Failed { fault }, Some(second)) = (&outcome, second)
        && fault.code == "rejected"
    {
        outcome = patch(bmc, &path, &etags, &second).await?;
    }
    Ok(outcome)
}

fn allowed(v: &Value) -> Option<Vec<String>> {
    let list = json::texts(v, &["Boot", "BootSourceOverrideTarget@Redfish.AllowableValues"]);
    (!list.is_empty()).then_some(list)
}

/// What to say in If-Match, one after the other: what the header gave, what the body gave, then
/// the spellings that BMCs mistake for each other, `*`, and nothing (R12).
pub(super) fn etags(header: Option<&str>, body: Option<&str>) -> Vec<Option<String>> {
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

async fn patch(
    bmc: &Bmc<'_>,
    path: &str,
    etags: &[Option<String>],
    boot: &Value,
) -> Result<Outcome, Stop> {
    let url = bmc.conn.url(path)?;
    let what = format!("PATCH {}", url.path());
    let body = json!({ "Boot": boot });
    let mut last: Option<Answer> = None;
    for etag in etags {
        let sent = bmc.send(Method::PATCH, url.clone(), etag.as_deref(), Some(&body)).await;
        match sent {
            Ok(a) if a.ok() => return Ok(Outcome::Applied { handle: None }),
            Ok(a) if is_precondition(&a) => last = Some(a),
            Ok(a) => {
                let f = bmc.scrubbed(fault::of_status(&what, &a));
                return Ok(if a.status >= 500 && !fault::plainly_rejected(&a) {
                    Outcome::Unknown { fault: f }
                } else {
                    Outcome::Failed { fault: f }
                });
            }
            Err(NoAnswer { fault, sent: false, .. }) => return Err(bmc.scrubbed(fault).into()),
            Err(NoAnswer { fault, .. }) => {
                return Ok(Outcome::Unknown { fault: bmc.scrubbed(fault) });
            }
        }
    }
    Ok(Outcome::Failed {
        fault: match last {
            Some(a) => bmc.scrubbed(fault::of_status(&what, &a)),
            None => fault::not_redfish(&what, "no ETag to try"),
        },
    })
}

pub(super) fn is_precondition(a: &Answer) -> bool {
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
