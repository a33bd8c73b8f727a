//! `[[webhook]]`: who is told when Farrier needs a person.

use super::names::unique;
use super::table::Table;
use crate::model::time::Span;
use std::collections::BTreeMap;

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub name: String,
    pub url: String,
    /// Name of the secret that signs its deliveries.
    pub secret: Option<String>,
    /// Names of events.
    pub events: Vec<String>,
    pub timeout: Span,
}

/// What can be asked for.
pub const EVENTS: [&str; 8] = [
    "quarantined",
    "stuck",
    "circuit-breaker",
    "stopped",
    "resumed",
    "released",
    "password-stuck",
    OPT_IN,
];
/// Told only to those who ask for it: a site with people at its BMCs has many.
const OPT_IN: &str = "out-of-band";

const TIMEOUT: Span = Span(10_000);
const LONGEST: Span = Span(60_000);

pub(super) fn read(tables: Vec<Table<'_, '_>>) -> Vec<Webhook> {
    let mut out = Vec::new();
    let mut seen = BTreeMap::new();
    for mut t in tables {
        let name = t.need_name("name");
        let url = t.need_text("url");
        let secret = t.text("secret").map(|s| s.value.to_string());
        let asked = t.texts("events");
        let words: Vec<(&'static str, ())> = EVENTS.iter().map(|e| (*e, ())).collect();
        let mut events: Vec<String> = Vec::new();
        for event in &asked {
            if t.pick("event", *event, &words).is_some() && !events.iter().any(|e| e == event.value)
            {
                events.push(event.value.to_string());
            }
        }
        if asked.is_empty() {
            events = EVENTS.iter().filter(|e| **e != OPT_IN).map(ToString::to_string).collect();
        }
        let timeout = t.span("timeout");
        if let Some((span, at)) = timeout
            && span.0 > LONGEST.0
        {
            t.error(at, format!("a delivery may take {LONGEST} at most, not {span}")).hint(
                "let the receiver take it and work afterwards; it is sent again on no answer",
            );
        }
        if let Some(url) = &url
            && let Err(why) = check(url.value)
        {
            t.error(url.at, why).hint("write one like `https://alerts.example/farrier`");
        }
        if let (Some(name), Some(url)) = (name, url) {
            unique(&t, &mut seen, name, "webhook");
            out.push(Webhook {
                name: name.value.to_string(),
                url: url.value.to_string(),
                secret,
                events,
                timeout: timeout.map_or(TIMEOUT, |(span, _)| span),
            });
        }
        t.done();
    }
    out
}

/// `http(s)://host…` without a user or password: those would stand in this file in clear.
fn check(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else { return Err(format!("`{url}` is not an http or https URL")) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if authority.contains('@') {
        return Err("a webhook's URL must not hold a user or password".into());
    }
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    if host.is_empty() || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("`{url}` names no host"));
    }
    Ok(())
}
