//! `farrier bmc boot`

use super::{One, change};
use crate::cli::Io;
use crate::cli::bmc::{Boot as Word, Sure};
use crate::cli::out::{Cell, Failure};
use crate::model::facts::SystemFacts;
use crate::port::capability::BmcAbilities;
use crate::port::{BmcPower, BmcRead};
use serde_json::json;

pub(super) async fn run(
    one: &One<'_>,
    target: Option<Word>,
    sure: Sure,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let Some(target) = target else { return show(one, io).await };
    let what = match target {
        Word::Pxe => "Boot from the network by PXE, once",
        Word::Http => "Boot from the network by UEFI HTTP, once",
        Word::Cd => "Boot from the optical drive, once",
        Word::Disk => "Boot from disk, once",
        Word::None => "End the boot override",
    };
    let (_, expect) = change::confirmed(one, what, sure, io).await?;
    let outcome = one.edge.set_boot(&one.target, &expect, target.into()).await;
    change::taken(one, outcome).await?;
    let now = system(one).await?;
    if io.json {
        return io.document(&json!({
            "boot_target": now.boot_target, "boot_enabled": now.boot_enabled}));
    }
    io.line(format_args!("the BMC now says {}", said(&now)))
}

async fn system(one: &One<'_>) -> Result<SystemFacts, Failure> {
    match one.edge.system(&one.target).await {
        Ok(facts) => Ok(facts),
        Err(fault) => Err(one.failed(fault).await),
    }
}

/// The override as the BMC spells it.
pub(super) fn said(facts: &SystemFacts) -> String {
    let target = facts.boot_target.as_deref().unwrap_or("nothing");
    let enabled = facts.boot_enabled.as_deref().unwrap_or("nothing");
    format!("{target} ({enabled})")
}

async fn show(one: &One<'_>, io: &mut Io<'_>) -> Result<(), Failure> {
    let facts = system(one).await?;
    let abilities = match one.edge.abilities(&one.target).await {
        Ok(found) => found,
        Err(fault) => return Err(one.failed(fault).await),
    };
    if io.json {
        return io.document(&json!({
            "boot_target": facts.boot_target, "boot_enabled": facts.boot_enabled,
            "targets": abilities.boot_targets, "options": abilities.boot_options}));
    }
    io.fields(&[("override", said(&facts)), ("targets", abilities.boot_targets.join(", "))])?;
    if abilities.boot_options.is_empty() {
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = abilities
        .boot_options
        .iter()
        .map(|o| {
            let on = match o.enabled {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            };
            let name = o.name.as_deref().unwrap_or("-");
            vec![Cell::new(&o.reference), Cell::new(on), Cell::new(name)]
        })
        .collect();
    io.table(&["OPTION", "ENABLED", "NAME"], &rows)
}
