//! `farrier bmc bios`

use super::{One, change};
use crate::cli::Io;
use crate::cli::bmc::{BiosChange, OnOff, Sure};
use crate::cli::out::{Cell, Failure};
use crate::model::hardware::BiosFacts;
use crate::port::capability::BmcBios;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) async fn run(
    one: &One<'_>,
    wanted: Option<&BiosChange>,
    like: Option<&str>,
    sure: Sure,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    match wanted {
        None => show(one, like, io).await,
        Some(BiosChange::Set { settings }) => set(one, settings, sure, io).await,
        Some(BiosChange::SecureBoot { state }) => {
            let on = *state == OnOff::On;
            let what = if on { "Switch Secure Boot on" } else { "Switch Secure Boot off" };
            let what = format!("{what} from the next boot on");
            let (_, expect) = change::confirmed(one, &what, sure, io).await?;
            let outcome = one.edge.set_secure_boot(&one.target, &expect, on).await;
            change::taken(one, outcome).await?;
            let now = match one.edge.secure_boot(&one.target).await {
                Ok(now) => now,
                Err(fault) => return Err(one.failed(fault).await),
            };
            if io.json {
                return io.document(&now);
            }
            io.line(format_args!(
                "Secure Boot: wanted {}, in force {}",
                word(now.enabled),
                word(now.in_force)
            ))
        }
    }
}

pub(super) fn word(on: Option<bool>) -> &'static str {
    match on {
        Some(true) => "on",
        Some(false) => "off",
        None => "unknown",
    }
}

async fn read(one: &One<'_>) -> Result<BiosFacts, Failure> {
    match one.edge.bios(&one.target).await {
        Ok(facts) => Ok(facts),
        Err(fault) => Err(one.failed(fault).await),
    }
}

async fn show(one: &One<'_>, like: Option<&str>, io: &mut Io<'_>) -> Result<(), Failure> {
    let mut facts = read(one).await?;
    if let Some(like) = like.map(str::to_ascii_lowercase) {
        facts.attributes.retain(|k, _| k.to_ascii_lowercase().contains(&like));
        facts.pending.retain(|k, _| k.to_ascii_lowercase().contains(&like));
    }
    let secure = one.edge.secure_boot(&one.target).await.ok();
    if io.json {
        return io.document(&json!({"bios": facts, "secure_boot": secure}));
    }
    if let Some(s) = secure {
        io.line(format_args!(
            "Secure Boot: wanted {}, in force {}, {}",
            word(s.enabled),
            word(s.in_force),
            s.mode.as_deref().unwrap_or("mode unknown")
        ))?;
    }
    table(&facts, io)
}

fn table(facts: &BiosFacts, io: &mut Io<'_>) -> Result<(), Failure> {
    let mut names: Vec<&String> = facts.attributes.keys().chain(facts.pending.keys()).collect();
    names.sort();
    names.dedup();
    let shown = |v: Option<&Value>| match v {
        Some(Value::String(s)) => s.clone(),
        Some(v) => v.to_string(),
        None => "-".to_string(),
    };
    let rows: Vec<Vec<Cell>> = names
        .into_iter()
        .map(|k| {
            let after = facts.pending.get(k).map(|v| shown(Some(v))).unwrap_or_default();
            vec![Cell::new(k), Cell::new(shown(facts.attributes.get(k))), Cell::new(after)]
        })
        .collect();
    io.table(&["NAME", "IN FORCE", "AFTER THE NEXT BOOT"], &rows)
}

async fn set(
    one: &One<'_>,
    settings: &[String],
    sure: Sure,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let now = read(one).await?;
    let mut wanted = BTreeMap::new();
    for setting in settings {
        let Some((name, text)) = setting.split_once('=') else {
            return Err(Failure::usage(format!("`{setting}` is not NAME=VALUE")));
        };
        let value = value(now.attributes.get(name), text)
            .ok_or_else(|| Failure::usage(format!("`{name}` takes another kind of value")))?;
        if wanted.insert(name.to_string(), value).is_some() {
            return Err(Failure::usage(format!("`{name}` is given twice")));
        }
    }
    let list: Vec<String> = settings.to_vec();
    let what = format!("Set {} from the next boot on", list.join(", "));
    let (_, expect) = change::confirmed(one, &what, sure, io).await?;
    let outcome = one.edge.set_bios(&one.target, &expect, &wanted).await;
    let handle = change::taken(one, outcome).await?;
    let mut after = read(one).await?;
    if let Some(handle) = handle {
        io.note(format_args!("the BMC applies it in {handle}"));
    }
    if io.json {
        return io.document(&after.pending);
    }
    after.attributes.retain(|k, _| wanted.contains_key(k));
    after.pending.retain(|k, _| wanted.contains_key(k));
    table(&after, io)
}

/// The text as the kind of value that the attribute has.
fn value(now: Option<&Value>, text: &str) -> Option<Value> {
    match now {
        Some(Value::Bool(_)) => text.parse().ok().map(Value::Bool),
        Some(Value::Number(_)) => text.parse::<i64>().ok().map(Value::from),
        _ => Some(Value::from(text)),
    }
}
