//! ETags as vendors have them (field notes R12): asked for, ignored, refused, spelt otherwise.

use super::say;
use crate::sim::serve::profile::{EtagHeader, IfMatch, OnAction, Profile, Said};
use axum::http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

fn bare(etag: &str) -> &str {
    etag.trim().trim_start_matches("W/").trim_matches('"')
}

fn if_match(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::IF_MATCH).and_then(|h| h.to_str().ok())
}

/// Why a PATCH is refused; `current`: the resource's ETag.
pub(super) fn refused(profile: &Profile, headers: &HeaderMap, current: &str) -> Option<Said> {
    let sent = if_match(headers);
    let failed = || {
        Some(say::base(
            412,
            "PreconditionFailed",
            "The ETag supplied did not match the one required.",
        ))
    };
    let matches = |sent: &str| sent == "*" || bare(sent) == bare(current);
    match (profile.etag.if_match, sent) {
        (IfMatch::Ignored, _) => None,
        (IfMatch::Required, None) => Some(say::base(
            428,
            "PreconditionRequired",
            "A precondition header or annotation is required to change this resource.",
        )),
        (_, None) => None,
        (IfMatch::Rejected, Some(_)) => failed(),
        (IfMatch::WeakOnly, Some(sent)) if sent != "*" && !sent.starts_with("W/") => failed(),
        (_, Some(sent)) if !matches(sent) => failed(),
        _ => None,
    }
}

/// Why an action is refused.
pub(super) fn refused_on_action(
    profile: &Profile,
    headers: &HeaderMap,
    is_bmc_reset: bool,
) -> Option<Said> {
    match (profile.etag.on_action, if_match(headers)) {
        (OnAction::Rejected, Some(_)) => {
            Some(say::base(412, "PreconditionFailed", "An action has no ETag to match."))
        }
        (OnAction::RequiredOnBmcReset, None) if is_bmc_reset => Some(say::base(
            428,
            "PreconditionRequired",
            "A precondition header is required for this action.",
        )),
        _ => None,
    }
}

/// Spells the ETag of an answer, in its header and its body.
pub(super) fn spell(profile: &Profile, headers: &mut HeaderMap, body: Option<&mut Value>) {
    let Some(etag) = headers.get(header::ETAG).and_then(|h| h.to_str().ok()).map(String::from)
    else {
        return;
    };
    let weak = format!("W/{etag}");
    let shown = if profile.etag.header == EtagHeader::Weak { &weak } else { &etag };
    if profile.etag.in_body
        && let Some(body) = body
        && body.is_object()
    {
        body["@odata.etag"] = shown.as_str().into();
    }
    match profile.etag.header {
        EtagHeader::Strong => {}
        EtagHeader::Weak => set(headers, &weak),
        EtagHeader::None => {
            headers.remove(header::ETAG);
        }
        EtagHeader::Empty => set(headers, ""),
        EtagHeader::Duplicate => {
            if let Ok(second) = HeaderValue::from_str("\"0\"") {
                headers.append(header::ETAG, second);
            }
        }
    }
}

fn set(headers: &mut HeaderMap, etag: &str) {
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(header::ETAG, etag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::serve::profile::Etag;
    use serde_json::json;

    fn with(etag: Etag) -> Profile {
        Profile { etag, ..Profile::default() }
    }

    #[test]
    fn each_mode_takes_what_it_takes() {
        let current = "\"abc\"";
        let status = |if_match: IfMatch, sent: Option<&str>| {
            let profile = with(Etag { if_match, ..Etag::default() });
            let mut headers = HeaderMap::new();
            if let Some(sent) = sent {
                headers.insert(header::IF_MATCH, sent.parse().expect("a header"));
            }
            refused(&profile, &headers, current).map(|s| s.status)
        };
        use IfMatch::*;
        let cases = [
            (Honoured, None, None),
            (Honoured, Some("\"abc\""), None),
            (Honoured, Some("\"old\""), Some(412)),
            (Ignored, Some("\"old\""), None),
            (Required, None, Some(428)),
            (Required, Some("W/\"abc\""), None),
            (Required, Some("*"), None),
            (WeakOnly, Some("\"abc\""), Some(412)),
            (WeakOnly, Some("W/\"abc\""), None),
            (WeakOnly, None, None),
            (Rejected, Some("\"abc\""), Some(412)),
            (Rejected, Some("*"), Some(412)),
            (Rejected, None, None),
        ];
        for (mode, sent, expected) in cases {
            assert_eq!(status(mode, sent), expected, "{mode:?} {sent:?}");
        }
    }

    #[test]
    fn an_etag_is_spelt_as_the_vendor_does() {
        let spelt = |header| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ETAG, HeaderValue::from_static("\"abc\""));
            let mut body = json!({});
            let profile = with(Etag { header, in_body: true, ..Etag::default() });
            spell(&profile, &mut headers, Some(&mut body));
            let all: Vec<String> = headers
                .get_all(header::ETAG)
                .iter()
                .map(|h| h.to_str().unwrap_or("?").to_string())
                .collect();
            (all, body["@odata.etag"].as_str().unwrap_or("").to_string())
        };
        assert_eq!(spelt(EtagHeader::Weak), (vec!["W/\"abc\"".into()], "W/\"abc\"".into()));
        assert_eq!(spelt(EtagHeader::None), (vec![], "\"abc\"".into()));
        assert_eq!(spelt(EtagHeader::Duplicate).0, ["\"abc\"", "\"0\""]);
        assert_eq!(spelt(EtagHeader::Empty).0, [""]);
    }
}
