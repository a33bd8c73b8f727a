//! What went wrong, classified in one place. Nobody looks at a status code or a message id later.

use super::http::{Answer, Body};
use super::json::{self, Message};
use super::tls::{self, Refused};
use crate::model::{Channel, Fault, FaultClass};

/// Characters of a body that are kept as evidence.
const EVIDENCE: usize = 300;
/// Characters of a message. What was asked for is a part of it, and links are as long as a BMC likes.
const MESSAGE: usize = 500;

/// A fault whose message is fit to be shown, whatever words of the BMC are in it.
pub(super) fn new(class: FaultClass, code: &'static str, message: impl Into<String>) -> Fault {
    Fault::new(class, Channel::Bmc, code, json::excerpt(&message.into(), MESSAGE))
}

/// The request got no answer: connect refused, DNS, handshake, reset, time-out.
pub(super) fn no_connection(what: &str, error: &reqwest::Error, timeout_ms: u64) -> Fault {
    match tls::refused(error) {
        Some(Refused::Changed { seen }) => {
            return new(
                FaultClass::Identity,
                Fault::CERTIFICATE_CHANGED,
                format!("{what}: the BMC shows another certificate than the pinned one"),
            )
            .evidence(format!("shown: sha256:{seen}"))
            .hint("firmware updates and factory resets make a new one: compare it on site, then accept it with `farrier bmc pin`");
        }
        Some(Refused::Untrusted { expired: true, why }) => {
            return new(
                FaultClass::Precondition,
                "certificate-expired",
                format!("{what}: the BMC's certificate has expired: {why}"),
            )
            .hint("install a new one of your CA; or say `tls = \"pin\"`, compare it on site and accept it as it is with `farrier bmc pin`: a pinned one may be old");
        }
        Some(Refused::Untrusted { why, .. }) => {
            return new(
                FaultClass::Precondition,
                "certificate-untrusted",
                format!("{what}: the BMC's certificate is not trusted: {why}"),
            )
            .hint(
                "install a certificate of your CA, or say `tls = \"pin\"` and `farrier bmc pin`",
            );
        }
        None => {}
    }
    // The innermost cause says it: "Connection refused", "failed to lookup address".
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let why = if error.is_timeout() && !error.is_connect() {
        format!("no answer within {} s", timeout_ms.div_ceil(1000))
    } else if error.is_timeout() {
        "no connection in time".to_string()
    } else {
        json::excerpt(&cause.to_string(), 120)
    };
    Fault::no_answer(Channel::Bmc, format!("{what}: {why}"))
}

/// Something answers, and it is not a Redfish service in order.
pub(super) fn not_redfish(what: &str, why: &str) -> Fault {
    new(FaultClass::Transient, "not-redfish", format!("{what}: {why}"))
        .hint("a BMC that keeps doing this needs a BMC reset (its SSH or IPMI may still work)")
}

/// A link or action target that leads to another machine. Credentials never go there.
pub(super) fn foreign_link(link: &str) -> Fault {
    new(
        FaultClass::Precondition,
        "foreign-link",
        format!("the BMC points to another server: {}", json::excerpt(link, 120)),
    )
    .hint("give the BMC's own address in the inventory (a redirect to https is a foreign link too)")
}

/// The BMC does not have what is asked for.
pub(super) fn unsupported(code: &'static str, message: impl Into<String>) -> Fault {
    new(FaultClass::Unsupported, code, message)
}

/// The world is not as it must be; a person changes it.
pub(super) fn precondition(code: &'static str, message: impl Into<String>) -> Fault {
    new(FaultClass::Precondition, code, message)
}

/// The credential was refused.
pub(super) fn bad_credentials(what: &str) -> Fault {
    new(
        FaultClass::Auth,
        "bad-credentials",
        format!("{what}: the BMC refuses user name and password"),
    )
    .hint("correct the credential; it is not tried again for some minutes, BMCs lock accounts")
}

/// The answer, read as a JSON document.
pub(super) fn document(what: &str, answer: Answer) -> Result<serde_json::Value, Fault> {
    if !answer.ok() {
        return Err(of_status(what, &answer));
    }
    match answer.body {
        Body::Json(v) if is_error_alone(&v) => {
            // 200, and an error is all there is (Dell 13G; R9).
            let status = if patience(None, &json::messages(&v)).is_some() { 503 } else { 500 };
            Err(of_status(what, &Answer { status, body: Body::Json(v), ..answer }))
        }
        Body::Json(v) if v.is_object() => Ok(v),
        Body::Json(v) => {
            Err(not_redfish(what, &format!("the document is {}, not an object", json::kind(&v))))
        }
        Body::Empty => Err(not_redfish(what, &format!("status {} and no body", answer.status))),
        Body::Text(t) => Err(not_redfish(what, "the body is no JSON").evidence(evidence(&t))),
        Body::Half(t) => {
            Err(not_redfish(what, "the body ends in its middle").evidence(evidence(&t)))
        }
        Body::TooLarge => Err(new(
            FaultClass::Transient,
            "too-large",
            format!("{what}: the document is larger than Farrier reads"),
        )),
    }
}

fn evidence(text: &str) -> String {
    json::excerpt(text, EVIDENCE)
}

/// All that the answer's body says, in one line.
pub(super) fn says(answer: &Answer) -> String {
    match &answer.body {
        Body::Json(v) => {
            let said: Vec<String> = json::messages(v)
                .iter()
                .map(|m| match (m.id.as_str(), m.text.as_str()) {
                    ("", text) => text.to_string(),
                    (id, "") => id.to_string(),
                    (id, text) => format!("{id}: {text}"),
                })
                .collect();
            if said.is_empty() { evidence(&v.to_string()) } else { evidence(&said.join("; ")) }
        }
        Body::Text(t) | Body::Half(t) => evidence(t),
        Body::Empty | Body::TooLarge => String::new(),
    }
}

/// How long the BMC asks to be left alone (R5): Retry-After, or the seconds in
/// `ServiceTemporarilyUnavailable`; Dell's SYS518 means 30 s.
fn patience(header_ms: Option<u64>, messages: &[Message]) -> Option<u64> {
    header_ms.or_else(|| {
        messages.iter().find_map(|m| {
            if m.id.eq_ignore_ascii_case("ServiceTemporarilyUnavailable") {
                // Some leave the seconds out: bmcweb means 30 by it.
                let s: Option<u64> = m.args.first().and_then(|a| a.trim().parse().ok());
                Some(s.unwrap_or(30).min(3600) * 1000)
            } else {
                m.id.eq_ignore_ascii_case("SYS518").then_some(30_000)
            }
        })
    })
}

/// Dell's lifecycle controller runs one thing at a time, and none while it starts or the host is in its
/// POST: no failure of what was ordered (field notes §3.1, §6.15; it stays so through many tries).
fn controller_in_use(messages: &[Message]) -> Option<u64> {
    let in_use = |m: &Message| {
        let text = m.text.to_ascii_lowercase();
        let says = ["in use", "not ready", "being used", "is busy", "not available"];
        m.id.eq_ignore_ascii_case("LC068")
            || text.contains("lifecycle controller") && says.iter().any(|w| text.contains(w))
    };
    messages.iter().any(in_use).then_some(60_000)
}

/// Is an error all that the document says?
fn is_error_alone(v: &serde_json::Value) -> bool {
    v.as_object().is_some_and(|o| {
        o.contains_key("error") && o.keys().all(|k| k == "error" || k.starts_with('@'))
    }) && !json::messages(v).is_empty()
}

fn has(messages: &[Message], ids: &[&str]) -> bool {
    messages.iter().any(|m| ids.iter().any(|id| m.id.eq_ignore_ascii_case(id)))
}

/// Out of sessions, not out of order (R3).
pub(super) fn sessions_exhausted(answer: &Answer) -> bool {
    const IDS: &[&str] = &[
        "RAC0218",
        "SessionLimitExceeded",
        "CreateLimitReachedForResource",
        "SessionLimitReached",
        "MaxSessionsReached",
    ];
    has(&json::messages(answer.json()), IDS)
}

/// An answer that is no success, classified.
pub(super) fn of_status(what: &str, answer: &Answer) -> Fault {
    let messages = json::messages(answer.json());
    let status = answer.status;
    let said = says(answer);
    let line = match messages.first().map(|m| m.text.as_str()).filter(|t| !t.is_empty()) {
        Some(text) => format!("{what}: {status}, {}", json::excerpt(text, 160)),
        None => format!("{what}: the BMC answered {status}"),
    };
    let wait = patience(answer.retry_after_ms, &messages).or_else(|| controller_in_use(&messages));
    let fault = match status {
        401 => bad_credentials(what),
        _ if messages.iter().any(|m| ends_with(&m.id, "PasswordChangeRequired")) => {
            new(FaultClass::Auth, "password-change-required", line)
                .hint("the account's password has expired: set a new one on the BMC")
        }
        403 if has(&messages, &["InsufficientPrivilege", "AccessDenied"]) => {
            new(FaultClass::Auth, "insufficient-privilege", line)
                .hint("give the account the Administrator role")
        }
        403 => new(FaultClass::Precondition, "forbidden", line)
            .hint("the account's role, lockdown mode or a missing licence forbids it"),
        429 => new(FaultClass::Throttled, "busy", line),
        503 if sessions_exhausted(answer) => new(FaultClass::Throttled, "session-limit", line),
        503 => new(FaultClass::Throttled, "busy", line),
        _ if wait.is_some() => new(FaultClass::Throttled, "busy", line),
        404 | 410 => unsupported("not-found", line),
        405 | 501 => unsupported("not-supported", line),
        400 if has(&messages, &["ActionNotSupported", "QueryNotSupported"]) => {
            unsupported("not-supported", line)
        }
        // Busy with POST, with a job, or already there: R11. Passes by itself.
        409 | 423 => new(FaultClass::Transient, "conflict", line),
        400 if has(&messages, IN_STATE) => new(FaultClass::Transient, "conflict", line),
        412 | 428 => new(FaultClass::Transient, "etag", line),
        300..=399 => match &answer.location {
            Some(to) => foreign_link(to),
            None => not_redfish(what, &format!("status {status} without a target")),
        },
        400..=499 => new(FaultClass::Precondition, "rejected", line),
        500..=599 => new(FaultClass::Transient, "bmc-error", line),
        _ => not_redfish(what, &format!("status {status}")),
    };
    let fault = if said.is_empty() { fault } else { fault.evidence(said) };
    match wait {
        Some(ms) => fault.retry_after(ms),
        None => fault,
    }
}

/// Of those in [`IN_STATE`], the ones that name a state which ends by itself.
const PASSING: &[&str] = &[
    "InvalidOperationForSystemState",
    "UnableToModifyDuringSystemPOST",
    "ActionParameterValueConflict",
    "ResourceInUse",
    "ResourceInStandby",
];

/// The machine is not in a state for it, now: R11.
const IN_STATE: &[&str] = &[
    "InvalidOperationForSystemState",
    "UnableToModifyDuringSystemPOST",
    "ActionParameterValueConflict",
    "ResourceInUse",
    "ResourceInStandby",
    "OperationFailed",
    "PSU501",
];

/// A 5xx whose body says plainly that the request was turned down before anything was done.
pub(super) fn plainly_rejected(answer: &Answer) -> bool {
    let messages = json::messages(answer.json());
    const IDS: &[&str] = &[
        "ActionNotSupported",
        "ActionParameterMissing",
        "ActionParameterNotSupported",
        "ActionParameterUnknown",
        "ActionParameterValueFormatError",
        "ActionParameterValueNotInList",
        "ActionParameterValueTypeError",
        "CreateLimitReachedForResource",
        "InsufficientPrivilege",
        "InvalidOperationForSystemState",
        "LC068",
        "MalformedJSON",
        "PropertyMissing",
        "PropertyUnknown",
        "PropertyValueNotInList",
        "ResourceInUse",
        "ResourceAtUriUnauthorized",
        "ServiceTemporarilyUnavailable",
        "ServiceShuttingDown",
        "SYS518",
        "UnableToModifyDuringSystemPOST",
    ];
    answer.status == 501
        || has(&messages, IDS)
        || (matches!(answer.status, 429 | 503)
            && patience(answer.retry_after_ms, &messages).is_some())
}

/// A refusal for the state that the machine is in, now: POST, a change that the BMC has not yet seen
/// the end of (R11). The edge does not wait that out; whoever ordered it does, `wait_s` at a time.
/// Where the BMC names the state, it passes by itself and no attempt is charged; a bare 409 may be
/// anything.
pub(super) fn later(fault: Fault, wait_s: u32) -> Fault {
    let said = fault.evidence.as_deref().unwrap_or_default().to_ascii_lowercase();
    let named = PASSING.iter().any(|id| said.contains(&id.to_ascii_lowercase()));
    let class = if named { FaultClass::Throttled } else { fault.class };
    let ms = fault.retry_after_ms.unwrap_or(u64::from(wait_s) * 1000);
    Fault { class, ..fault }.retry_after(ms)
}

fn ends_with(id: &str, end: &str) -> bool {
    let at = id.len().checked_sub(end.len());
    at.and_then(|at| id.get(at..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

/// Takes every spelling of the secrets out of what is kept.
pub(super) fn scrub(mut fault: Fault, secrets: &[&str]) -> Fault {
    fault.message = scrub_text(&fault.message, secrets);
    fault.evidence = fault.evidence.map(|e| scrub_text(&e, secrets));
    fault
}

/// The text without these secrets.
pub(super) fn scrub_text(text: &str, secrets: &[&str]) -> String {
    let long = secrets.iter().filter(|s| s.len() >= 4);
    long.fold(
        text.to_string(),
        |text, s| if text.contains(*s) { text.replace(*s, "…") } else { text },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(status: u16, body: serde_json::Value) -> Answer {
        Answer {
            status,
            etag: None,
            location: None,
            retry_after_ms: None,
            token: None,
            body: Body::Json(body),
        }
    }

    fn said(id: &str, args: &[&str]) -> serde_json::Value {
        json!({"error": {"@Message.ExtendedInfo": [
            {"MessageId": format!("Base.1.12.{id}"), "Message": "m", "MessageArgs": args}]}})
    }

    #[test]
    fn every_status_has_a_class() {
        use FaultClass::*;
        let cases = [
            (401, json!({}), Auth, "bad-credentials"),
            (403, said("PasswordChangeRequired", &[]), Auth, "password-change-required"),
            (403, said("InsufficientPrivilege", &[]), Auth, "insufficient-privilege"),
            (403, json!({}), Precondition, "forbidden"),
            (404, json!({}), Unsupported, "not-found"),
            (405, json!({}), Unsupported, "not-supported"),
            (501, json!({}), Unsupported, "not-supported"),
            (429, json!({}), Throttled, "busy"),
            (503, json!({}), Throttled, "busy"),
            (503, said("SessionLimitExceeded", &[]), Throttled, "session-limit"),
            (500, json!({}), Transient, "bmc-error"),
            (504, json!({}), Transient, "bmc-error"),
            (409, json!({}), Transient, "conflict"),
            (400, said("InvalidOperationForSystemState", &[]), Transient, "conflict"),
            (400, json!({}), Precondition, "rejected"),
            (302, json!({}), Transient, "not-redfish"),
        ];
        for (status, body, class, code) in cases {
            let f = of_status("GET /x", &answer(status, body));
            assert_eq!((f.class, f.code.as_ref()), (class, code), "{status}");
        }
    }

    #[test]
    fn a_bmc_says_how_long_to_wait_in_three_ways() {
        let f = of_status("GET /x", &answer(503, said("ServiceTemporarilyUnavailable", &["7"])));
        assert_eq!(f.retry_after_ms, Some(7_000));
        let f = of_status("GET /x", &answer(400, said("SYS518", &[])));
        assert_eq!((f.class, f.retry_after_ms), (FaultClass::Throttled, Some(30_000)));
        let f = of_status("GET /x", &answer(503, said("serviceTemporarilyUnavailable", &[])));
        assert_eq!(f.retry_after_ms, Some(30_000));
        let a = Answer { retry_after_ms: Some(3_000), ..answer(429, json!({})) };
        assert_eq!(of_status("GET /x", &a).retry_after_ms, Some(3_000));
    }

    #[test]
    fn a_lifecycle_controller_in_use_is_not_now() {
        let words = json!({"error": {"@Message.ExtendedInfo": [
            {"MessageId": "IDRAC.2.8.SUP9", "Message": "Lifecycle Controller is in use."}]}});
        for body in [said("LC068", &[]), words] {
            let f = of_status("POST /x", &answer(400, body));
            assert_eq!((f.class, f.retry_after_ms), (FaultClass::Throttled, Some(60_000)));
        }
        let other = said("LC001", &[]);
        assert_eq!(of_status("POST /x", &answer(400, other)).code, "rejected");
    }

    #[test]
    fn a_state_that_is_named_passes_and_is_not_charged() {
        let named = of_status("POST /x", &answer(400, said("UnableToModifyDuringSystemPOST", &[])));
        let f = later(named, 30);
        assert_eq!((f.class, f.retry_after_ms), (FaultClass::Throttled, Some(30_000)));
        let f = later(of_status("POST /x", &answer(409, json!({}))), 10);
        assert_eq!((f.class, f.retry_after_ms), (FaultClass::Transient, Some(10_000)));
    }

    #[test]
    fn a_success_that_is_an_error_alone_is_one() {
        let f = document("GET /x", answer(200, said("SYS518", &[]))).unwrap_err();
        assert_eq!((f.class, f.retry_after_ms), (FaultClass::Throttled, Some(30_000)));
        let f = document("GET /x", answer(200, said("GeneralError", &[]))).unwrap_err();
        assert_eq!((f.class, f.code.as_ref()), (FaultClass::Transient, "bmc-error"));
        let mut v = said("Success", &[]);
        v["Id"] = json!("1");
        assert!(document("GET /x", answer(200, v)).is_ok());
    }

    #[test]
    fn secrets_are_scrubbed() {
        let f = not_redfish("GET /x", "token hunter22").evidence("password=hunter22 ok");
        let f = scrub(f, &["hunter22"]);
        assert!(!format!("{f:?}").contains("hunter22"));
        assert!(f.evidence.is_some_and(|e| e.contains("password=… ok")));
    }
}
