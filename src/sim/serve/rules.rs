//! Faults by rule, put in and taken out over the admin port while the world runs: which requests of
//! which machines, what happens to them, how often. Deterministic by each rule's seed.
//!
//! A rule as JSON; everything but `effect` may be left out:
//!
//! ```json
//! {"machine": "gpu-0*", "method": "POST", "path": "/redfish/v1/Systems/*/Actions/*",
//!  "effect": {"status": 503, "body": {"error": {}}, "headers": {"Retry-After": "3"}},
//!  "applied": true, "count": 1, "probability": 0.5, "seed": 7}
//! ```
//!
//! | effect | what the caller meets |
//! | --- | --- |
//! | `{"status": n, "body": …, "headers": {…}}` | this answer |
//! | `{"latency_ms": n}` | the right answer, so much later (real time) |
//! | `"drop"` | the connection is reset without an answer |
//! | `"half-reply"` | half of the right answer, then the end of the connection |
//! | `"hang"` | no answer, the connection stays |
//! | `"garbage"` | 200 with bytes that are no JSON |
//! | `"stale"` | what a GET answered when the rule first met it |
//!
//! `applied`: the BMC carries the request out before the fault strikes. By default it does where
//! it answers something (`half-reply`, `garbage`, `latency_ms`, `stale`) and does not otherwise.

use super::redfish::document;
use super::seat::Seat;
use super::{World, dialect, replay};
use crate::sim::rng::{Rng, mix};
use axum::body::{Body as Bytes, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Longest `latency_ms`, and how long `hang` hangs: ten minutes, real time.
const WAIT_MAX: Duration = Duration::from_secs(600);
const DOCUMENT_MAX: usize = 16 << 20;

/// What a rule does to a request that it strikes.
#[derive(Clone, Debug, PartialEq)]
enum Effect {
    Answer { status: StatusCode, body: Option<Value>, headers: Vec<(HeaderName, HeaderValue)> },
    Latency(Duration),
    Drop,
    HalfReply,
    Hang,
    Garbage,
    Stale,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    machine: String,
    method: Option<Method>,
    path: String,
    effect: Effect,
    applied: bool,
    count: Option<u64>,
    per_million: u32,
    seed: u64,
    /// As it was put in.
    text: Value,
}

/// What is wrong with a rule, and where.
#[derive(Debug, thiserror::Error)]
#[error("`{at}`: {why}")]
pub struct Mistake {
    pub at: String,
    pub why: String,
}

fn wrong<T>(at: &str, why: impl Into<String>) -> Result<T, Mistake> {
    Err(Mistake { at: at.to_string(), why: why.into() })
}

impl Rule {
    /// Reads a rule from its JSON.
    pub fn parse(text: &Value) -> Result<Rule, Mistake> {
        const KEYS: [&str; 8] =
            ["machine", "method", "path", "effect", "applied", "count", "probability", "seed"];
        let Some(object) = text.as_object() else {
            return wrong("/", "a rule is an object, like {\"effect\": \"drop\", \"count\": 1}");
        };
        known(object, &KEYS, "")?;
        let glob = |key: &str| match object.get(key) {
            None => Ok("*".to_string()),
            Some(Value::String(s)) if !s.is_empty() => Ok(s.clone()),
            Some(_) => wrong(key, "a pattern with `*` and `?`"),
        };
        let method = match object.get("method") {
            None => None,
            Some(Value::String(m)) if m == "*" => None,
            Some(Value::String(m)) => {
                const TAKEN: [&str; 6] = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"];
                match m.parse() {
                    Ok(method) if TAKEN.contains(&m.as_str()) => Some(method),
                    _ => return wrong("method", format!("one of {}, or *", TAKEN.join(", "))),
                }
            }
            Some(_) => return wrong("method", "a text like \"POST\""),
        };
        let Some(effect) = object.get("effect") else {
            return wrong("effect", "it is missing: what should happen?");
        };
        let effect = effect_of(effect)?;
        let applied = match object.get("applied") {
            None => !matches!(effect, Effect::Answer { .. } | Effect::Drop | Effect::Hang),
            Some(Value::Bool(b)) => *b,
            Some(_) => return wrong("applied", "true or false"),
        };
        let number = |key: &str| match object.get(key).map(Value::as_u64) {
            None => Ok(None),
            Some(Some(n)) => Ok(Some(n)),
            Some(None) => wrong(key, "a whole number from 0 up"),
        };
        let count = number("count")?;
        if count == Some(0) {
            return wrong("count", "0 times is never; leave it out for always");
        }
        let per_million = match object.get("probability").map(Value::as_f64) {
            None => 1_000_000,
            Some(Some(p)) if (0.0..=1.0).contains(&p) => {
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "between 0 and a million"
                )]
                let per_million = (p * 1e6).round() as u32;
                per_million
            }
            Some(_) => return wrong("probability", "a number from 0 to 1"),
        };
        Ok(Rule {
            machine: glob("machine")?,
            method,
            path: glob("path")?,
            effect,
            applied,
            count,
            per_million,
            seed: number("seed")?.unwrap_or(0),
            text: text.clone(),
        })
    }

    fn fits(&self, machine: &str, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|m| m == method)
            && fits(&self.machine, machine)
            && fits(&self.path, path)
    }
}

fn known(object: &Map<String, Value>, keys: &[&str], below: &str) -> Result<(), Mistake> {
    match object.keys().find(|k| !keys.contains(&k.as_str())) {
        Some(key) => {
            wrong(&format!("{below}{key}"), format!("unknown; one of {}", keys.join(", ")))
        }
        None => Ok(()),
    }
}

fn effect_of(v: &Value) -> Result<Effect, Mistake> {
    let object = match v {
        Value::String(name) => {
            return match name.as_str() {
                "drop" => Ok(Effect::Drop),
                "half-reply" => Ok(Effect::HalfReply),
                "hang" => Ok(Effect::Hang),
                "garbage" => Ok(Effect::Garbage),
                "stale" => Ok(Effect::Stale),
                _ => wrong(
                    "effect",
                    format!(
                        "`{name}` is none; one of drop, half-reply, hang, garbage, stale, or an \
                         object with `status` or `latency_ms`"
                    ),
                ),
            };
        }
        Value::Object(object) => object,
        _ => return wrong("effect", "a name, or an object with `status` or `latency_ms`"),
    };
    known(object, &["status", "body", "headers", "latency_ms"], "effect.")?;
    if let Some(ms) = object.get("latency_ms") {
        if object.len() > 1 {
            return wrong("effect.latency_ms", "stands alone");
        }
        let max = u64::try_from(WAIT_MAX.as_millis()).unwrap_or(u64::MAX);
        return match ms.as_u64() {
            Some(ms) if ms <= max => Ok(Effect::Latency(Duration::from_millis(ms))),
            _ => wrong("effect.latency_ms", format!("milliseconds from 0 to {max}")),
        };
    }
    let status = object.get("status").and_then(Value::as_u64);
    let status = status.and_then(|s| u16::try_from(s).ok()).filter(|s| (200..600).contains(s));
    let Some(Ok(status)) = status.map(StatusCode::from_u16) else {
        return wrong("effect.status", "a status from 200 to 599");
    };
    let mut headers = Vec::new();
    match object.get("headers") {
        None => {}
        Some(Value::Object(all)) => {
            for (name, value) in all {
                let at = format!("effect.headers.{name}");
                let parsed = name
                    .parse::<HeaderName>()
                    .ok()
                    .zip(value.as_str().and_then(|v| HeaderValue::from_str(v).ok()));
                match parsed {
                    Some(pair) => headers.push(pair),
                    None => return wrong(&at, "a header's name and a text"),
                }
            }
        }
        Some(_) => return wrong("effect.headers", "an object of texts"),
    }
    Ok(Effect::Answer { status, body: object.get("body").cloned(), headers })
}

/// Does `text` fit the pattern? `*` is any run of characters, `?` is one.
fn fits(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut j) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while j < t.len() {
        match p.get(i) {
            Some('*') => {
                star = Some((i, j));
                i += 1;
            }
            Some(c) if *c == '?' || *c == t[j] => {
                i += 1;
                j += 1;
            }
            _ => match star {
                // The last star takes one character more.
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    i = at + 1;
                    j = taken + 1;
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

#[derive(Debug)]
struct Kept {
    id: u64,
    rule: Rule,
    /// Requests that fitted, and those of them that it struck.
    met: u64,
    hits: u64,
    /// What a stale rule answers, by machine and path.
    stale: BTreeMap<(Arc<str>, String), (StatusCode, axum::body::Bytes)>,
}

/// The rules in force, oldest first: the first that strikes a request has it.
#[derive(Debug, Default)]
pub struct Rules {
    all: Mutex<(u64, Vec<Kept>)>,
}

/// A rule that struck.
struct Hit {
    id: u64,
    effect: Effect,
    applied: bool,
}

impl Rules {
    fn lock(&self) -> MutexGuard<'_, (u64, Vec<Kept>)> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a rule in force; returns its number.
    pub fn add(&self, rule: Rule) -> u64 {
        let mut all = self.lock();
        all.0 += 1;
        let id = all.0;
        all.1.push(Kept { id, rule, met: 0, hits: 0, stale: BTreeMap::new() });
        id
    }

    /// Takes one rule, or all, out of force; returns how many there were.
    pub fn remove(&self, id: Option<u64>) -> usize {
        let rules = &mut self.lock().1;
        let before = rules.len();
        rules.retain(|k| id.is_some_and(|id| k.id != id));
        before - rules.len()
    }

    /// `[{"id", "rule", "met", "hits"}]`.
    pub fn list(&self) -> Value {
        let all = self.lock();
        let line =
            |k: &Kept| json!({"id": k.id, "rule": k.rule.text, "met": k.met, "hits": k.hits});
        all.1.iter().map(line).collect()
    }

    fn strike(&self, machine: &str, method: &Method, path: &str) -> Option<Hit> {
        for kept in &mut self.lock().1 {
            if !kept.rule.fits(machine, method, path)
                || kept.rule.effect == Effect::Stale && *method != Method::GET
            {
                continue;
            }
            kept.met += 1;
            let used_up = kept.rule.count.is_some_and(|max| kept.hits >= max);
            let mut draw = Rng::stream(mix(kept.rule.seed), kept.met);
            if used_up || !draw.chance(kept.rule.per_million) {
                continue;
            }
            kept.hits += 1;
            let Rule { effect, applied, .. } = &kept.rule;
            return Some(Hit { id: kept.id, effect: effect.clone(), applied: *applied });
        }
        None
    }

    /// The first answer that rule `id` met for this; `new` becomes it where there is none.
    fn stale(
        &self,
        id: u64,
        key: (Arc<str>, String),
        new: Option<(StatusCode, axum::body::Bytes)>,
    ) -> Option<(StatusCode, axum::body::Bytes)> {
        let mut all = self.lock();
        let kept = all.1.iter_mut().find(|k| k.id == id)?;
        if let Some(new) = new {
            kept.stale.entry(key.clone()).or_insert(new);
        }
        kept.stale.get(&key).cloned()
    }
}

/// One request, struck by a rule or not.
pub(super) async fn answer(
    world: &Arc<World>,
    seat: &Arc<Seat>,
    line: &Notify,
    parts: &Parts,
    path: &[&str],
    body: &[u8],
) -> Response {
    let Some(hit) = world.rules.strike(&seat.name, &parts.method, parts.uri.path()) else {
        return behind(world, seat, parts, path, body).await;
    };
    let real = || behind(world, seat, parts, path, body);
    match hit.effect {
        Effect::Latency(wait) => {
            tokio::time::sleep(wait).await;
            real().await
        }
        Effect::Answer { status, body, headers } => {
            if hit.applied {
                drop(real().await);
            }
            let mut out = match body {
                Some(Value::String(text)) => {
                    (status, [(header::CONTENT_TYPE, "text/plain")], text).into_response()
                }
                Some(body) => document(status, &body),
                None => status.into_response(),
            };
            out.headers_mut().extend(headers);
            out
        }
        Effect::Drop => {
            if hit.applied {
                drop(real().await);
            }
            line.notify_one();
            std::future::pending().await
        }
        Effect::Hang => {
            if hit.applied {
                drop(real().await);
            }
            tokio::time::sleep(WAIT_MAX).await;
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
        Effect::Garbage => {
            if hit.applied {
                drop(real().await);
            }
            let bytes = b"{\"@odata.id\": \"/redfish/v1\xff\x00{{{ \x1b[0m <html>".as_slice();
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], bytes).into_response()
        }
        Effect::HalfReply => {
            if hit.applied {
                half(real().await).await
            } else {
                half(document(StatusCode::OK, &json!({"Name": "half an answer"}))).await
            }
        }
        Effect::Stale => {
            let key = (seat.name.clone(), parts.uri.to_string());
            if let Some((status, bytes)) = world.rules.stale(hit.id, key.clone(), None) {
                let kind = [(header::CONTENT_TYPE, "application/json;charset=utf-8")];
                return (status, kind, bytes).into_response();
            }
            let (head, body) = real().await.into_parts();
            let bytes = to_bytes(body, DOCUMENT_MAX).await.unwrap_or_default();
            if head.status.is_success() {
                world.rules.stale(hit.id, key, Some((head.status, bytes.clone())));
            }
            Response::from_parts(head, Bytes::from(bytes))
        }
    }
}

/// What answers when no rule does.
async fn behind(
    world: &Arc<World>,
    seat: &Arc<Seat>,
    parts: &Parts,
    path: &[&str],
    body: &[u8],
) -> Response {
    match &world.replay {
        Some(tree) => replay::answer(world, seat, tree, parts, body),
        None => dialect::answer(world, seat, parts, path, body).await,
    }
}

/// The head of an answer, half of its body, and the end of the connection.
async fn half(out: Response) -> Response {
    let (mut head, body) = out.into_parts();
    let whole = to_bytes(body, DOCUMENT_MAX).await.unwrap_or_default();
    // An answer without a body breaks off in one that it never had.
    let length = whole.len().max(2);
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if head.status == StatusCode::NO_CONTENT {
        head.status = StatusCode::OK;
    }
    let first = whole.slice(..whole.len() / 2);
    let rest = futures_util::stream::unfold(Some(first), |left| async move {
        match left {
            Some(first) => Some((Ok(first), None)),
            None => {
                // Long enough for the first half to be on its way.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), None))
            }
        }
    });
    Response::from_parts(head, Bytes::from_stream(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_people_expect() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("gpu-*", "gpu-001", true),
            ("gpu-?0?", "gpu-001", true),
            ("gpu-?", "gpu-001", false),
            ("/redfish/v1/Systems/*/Actions/*", "/redfish/v1/Systems/1/Actions/X.Reset", true),
            ("/redfish/v1/Systems/*/Actions/*", "/redfish/v1/Systems/1", false),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xaxxbc", false),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_mistake_names_its_place() {
        let said = |v: Value| Rule::parse(&v).expect_err("wrong").to_string();
        for (rule, at) in [
            (json!([]), "`/`"),
            (json!({}), "`effect`"),
            (json!({"effect": "explode"}), "`effect`"),
            (json!({"effect": {"status": 99}}), "`effect.status`"),
            (json!({"effect": {"status": "ok"}}), "`effect.status`"),
            (json!({"effect": {"latency_ms": -1}}), "`effect.latency_ms`"),
            (json!({"effect": {"latency_ms": 1, "status": 500}}), "`effect.latency_ms`"),
            (json!({"effect": {"status": 500, "colour": 1}}), "`effect.colour`"),
            (json!({"effect": {"status": 500, "headers": {"a b": "x"}}}), "`effect.headers.a b`"),
            (json!({"effect": "drop", "often": 3}), "`often`"),
            (json!({"effect": "drop", "count": 0}), "`count`"),
            (json!({"effect": "drop", "count": 1.5}), "`count`"),
            (json!({"effect": "drop", "probability": 2}), "`probability`"),
            (json!({"effect": "drop", "method": "FETCH"}), "`method`"),
            (json!({"effect": "drop", "machine": 7}), "`machine`"),
            (json!({"effect": "drop", "applied": "yes"}), "`applied`"),
        ] {
            let text = said(rule.clone());
            assert!(text.starts_with(at), "{rule}: {text}");
        }
    }

    #[test]
    fn a_rule_strikes_as_often_as_it_says_and_the_same_each_time() {
        let struck = |rule: Value| -> Vec<bool> {
            let rules = Rules::default();
            rules.add(Rule::parse(&rule).expect("valid"));
            (0..200).map(|_| rules.strike("a", &Method::GET, "/redfish/v1").is_some()).collect()
        };
        let twice = struck(json!({"effect": "drop", "count": 2}));
        assert_eq!(twice.iter().filter(|s| **s).count(), 2);
        assert!(twice[0] && twice[1]);
        let rule = json!({"effect": "drop", "probability": 0.3, "seed": 5});
        let some = struck(rule.clone());
        assert!((30..90).contains(&some.iter().filter(|s| **s).count()));
        assert_eq!(some, struck(rule), "the same seed");
        assert_ne!(some, struck(json!({"effect": "drop", "probability": 0.3, "seed": 6})));
        assert!(!struck(json!({"effect": "stale", "method": "POST"}))[0]);
    }

    #[test]
    fn rules_are_counted_and_taken_out() {
        let rules = Rules::default();
        let first = rules.add(Rule::parse(&json!({"effect": "hang", "machine": "b"})).expect("ok"));
        let second = rules.add(Rule::parse(&json!({"effect": "drop"})).expect("ok"));
        assert!(rules.strike("a", &Method::GET, "/x").is_some_and(|h| h.id == second));
        let list = rules.list();
        assert_eq!((&list[0]["met"], &list[1]["hits"]), (&json!(0), &json!(1)));
        assert_eq!(rules.remove(Some(first)), 1);
        assert_eq!(rules.remove(Some(first)), 0);
        assert_eq!(rules.remove(None), 1);
    }
}
