//! Resets: of the machine (ComputerSystem.Reset) and of its BMC (Manager.Reset).

use super::conn::Bmc;
use super::guard::{self, Action, Stop};
use super::{discover, fault, json, system};
use crate::model::Outcome;
use crate::model::action::{Expect, PowerOp};
use crate::model::facts::Power;
use serde_json::{Value, json};

const DONE: Outcome = Outcome::Applied { handle: None };

/// The reset types that do `op`, best first.
fn reset_types(op: PowerOp) -> &'static [&'static str] {
    match op {
        PowerOp::On => &["On", "ForceOn"],
        PowerOp::ForceOff => &["ForceOff"],
        PowerOp::GracefulShutdown => &["GracefulShutdown"],
        PowerOp::ForceRestart => &["ForceRestart"],
    }
}

/// The state that `op` leads to, where a state alone tells.
fn goal(op: PowerOp) -> Option<Power> {
    match op {
        PowerOp::On => Some(Power::On),
        PowerOp::ForceOff | PowerOp::GracefulShutdown => Some(Power::Off),
        PowerOp::ForceRestart => None,
    }
}

pub(super) async fn power(bmc: &Bmc<'_>, expect: &Expect, op: PowerOp) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let (links, v) = guard::check(bmc, expect).await?;
    if goal(op) == Some(system::power(&v)) {
        return Ok(DONE);
    }
    let action = Action::find(bmc, &v, "#ComputerSystem.Reset").await?.ok_or_else(|| {
        fault::unsupported("no-reset", format!("{} has no Reset action", links.system))
    })?;
    let allowed = action.allowed("ResetType");
    let wanted = reset_types(op);
    let reset = match &allowed {
        None => Some(wanted[0]),
        Some(list) => wanted.iter().copied().find(|w| list.iter().any(|a| a == w)),
    };
    let Some(reset) = reset else {
        let f = fault::unsupported(
            "reset-type-unsupported",
            format!(
                "the BMC has no {}; it has {}",
                wanted[0],
                allowed.unwrap_or_default().join(", ")
            ),
        );
        return Ok(Outcome::Failed {
            fault: match op {
                PowerOp::ForceRestart => f.hint("power off and on instead"),
                PowerOp::GracefulShutdown => {
                    f.hint("shut the host down by itself, or force it off")
                }
                PowerOp::On | PowerOp::ForceOff => f,
            },
        });
    };
    match guard::post(bmc, &action.target, &json!({"ResetType": reset})).await? {
        Ok(_) => Ok(DONE),
        // 409 and 400 also mean "already so" (R11): what the system shows decides.
        Err(Outcome::Failed { fault }) if fault.code == "conflict" => {
            let now = system::fetch(bmc).await.ok().map(|(_, v)| system::power(&v));
            Ok(if goal(op).is_some() && goal(op) == now { DONE } else { Outcome::Failed { fault } })
        }
        Err(outcome) => Ok(outcome),
    }
}

pub(super) async fn reset_bmc(bmc: &Bmc<'_>, expect: &Expect) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let (_, v) = guard::check(bmc, expect).await?;
    let Some(action) = manager_reset(bmc, &v).await? else {
        let f = fault::unsupported("no-bmc-reset", "no manager of this machine has a Reset action");
        return Ok(Outcome::Failed { fault: f });
    };
    let allowed = action.allowed("ResetType");
    let reset = match &allowed {
        None => Some("GracefulRestart"),
        Some(list) => {
            ["GracefulRestart", "ForceRestart"].into_iter().find(|w| list.iter().any(|a| a == w))
        }
    };
    let Some(reset) = reset else {
        let f = fault::unsupported(
            "no-bmc-reset",
            format!("the BMC can only {}", allowed.unwrap_or_default().join(", ")),
        );
        return Ok(Outcome::Failed { fault: f });
    };
    let outcome = guard::post(bmc, &action.target, &json!({"ResetType": reset})).await?;
    // Whether or not it answered: sessions, links and tasks are not to be relied on (R4).
    bmc.conn.forget_links();
    Ok(match outcome {
        Ok(_) => DONE,
        Err(outcome) => outcome,
    })
}

/// Reset of the manager that manages this system; HGX managers are not the machine's BMC.
async fn manager_reset(bmc: &Bmc<'_>, system: &Value) -> Result<Option<Action>, Stop> {
    let mut paths: Vec<String> =
        json::list(system, &["Links", "ManagedBy"]).iter().filter_map(json::link_of).collect();
    if paths.is_empty()
        && let Some(managers) = bmc.root().await?.managers.clone()
    {
        paths = bmc.members(&managers, false).await?.iter().filter_map(json::link_of).collect();
    }
    paths.sort_by_key(|p| json::last_segment(p).to_ascii_uppercase().starts_with("HGX"));
    for path in paths {
        match bmc.get(&path).await {
            Ok(v) => {
                if let Some(action) = Action::find(bmc, &v, "#Manager.Reset").await? {
                    return Ok(Some(action));
                }
            }
            Err(f) if discover::is_fatal(&f) => return Err(f.into()),
            Err(_) => {}
        }
    }
    Ok(None)
}
