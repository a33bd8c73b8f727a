//! Resets: of the machine (ComputerSystem.Reset), of its BMC (Manager.Reset), and the cut of all
//! power, which every vendor calls something else.

use super::conn::Bmc;
use super::guard::{self, Action, Stop};
use super::{bios, controllers, discover, fault, json, system};
use crate::model::action::{Expect, PowerOp};
use crate::model::facts::Power;
use crate::model::quirks::{AcAction, AcCycle, ActionOn, Ladder, Quirks, ResetOf};
use crate::model::{Fault, Outcome};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const DONE: Outcome = Outcome::Applied { handle: None };

/// The state that `op` leads to, where a state alone tells.
fn goal(op: PowerOp) -> Option<Power> {
    match op {
        PowerOp::On => Some(Power::On),
        PowerOp::ForceOff | PowerOp::GracefulShutdown => Some(Power::Off),
        PowerOp::ForceRestart => None,
    }
}

/// What a ladder comes to on a BMC that takes these reset types.
#[derive(Debug, PartialEq, Eq)]
enum Way<'l> {
    /// One act.
    One(&'l str),
    /// Several, one after the other.
    Several(&'l [String]),
    /// Nothing that this BMC has; the best that was wanted.
    Missing(&'l str),
}

/// The first rung whose reset types the BMC has. A BMC that lists none is taken to have the first.
fn choose<'l>(ladder: &'l Ladder, allowed: Option<&[String]>) -> Way<'l> {
    let has = |t: &String| allowed.is_none_or(|all| all.iter().any(|a| a == t));
    let fits = ladder.iter().find(|way| !way.is_empty() && way.iter().all(has));
    match fits.map(Vec::as_slice) {
        Some([one]) => Way::One(one),
        Some(several) => Way::Several(several),
        None => Way::Missing(ladder.iter().flatten().next().map_or("reset", String::as_str)),
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
    let quirks = bmc.quirks_of(&v).await?;
    let allowed = action.allowed("ResetType");
    let none = Ladder::new();
    let ladder = quirks.reset.ladders.get(&ResetOf::from(op)).unwrap_or(&none);
    let reset = match choose(ladder, allowed.as_deref()) {
        Way::One(reset) => reset,
        way => return Ok(Outcome::Failed { fault: not_this_way(op, &way, allowed) }),
    };
    match action.post(bmc, &json!({"ResetType": reset})).await? {
        Ok(_) => Ok(DONE),
        // 409 and 400 also mean "already so" (R11): what the system shows decides.
        Err(Outcome::Failed { fault }) if fault.code == "conflict" => {
            let now = system::fetch(bmc).await.ok().map(|(_, v)| system::power(&v));
            let so = goal(op).is_some() && goal(op) == now;
            let later = |f| fault::later(f, quirks.reset.conflict_retry_s);
            Ok(if so { DONE } else { Outcome::Failed { fault: later(fault) } })
        }
        Err(outcome) => Ok(outcome),
    }
}

fn not_this_way(op: PowerOp, way: &Way<'_>, allowed: Option<Vec<String>>) -> Fault {
    let allowed = allowed.unwrap_or_default().join(", ");
    match way {
        Way::Several(acts) => fault::unsupported(
            "reset-type-unsupported",
            format!("this BMC takes {} for it, one after the other", acts.join(", then ")),
        )
        .hint("power off and on instead"),
        Way::One(wanted) | Way::Missing(wanted) => {
            let f = fault::unsupported(
                "reset-type-unsupported",
                format!("the BMC has no {wanted}; it has {allowed}"),
            );
            match op {
                PowerOp::ForceRestart => f.hint("power off and on instead"),
                PowerOp::GracefulShutdown => {
                    f.hint("shut the host down by itself, or force it off")
                }
                PowerOp::On | PowerOp::ForceOff => f,
            }
        }
    }
}

pub(super) async fn reset_bmc(bmc: &Bmc<'_>, expect: &Expect) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let (_, v) = guard::check(bmc, expect).await?;
    reset_manager(bmc, &v).await
}

/// The same where the caller holds the permit to write and has proven the BMC; its `system` was just
/// read.
pub(super) async fn reset_manager(bmc: &Bmc<'_>, system: &Value) -> Result<Outcome, Stop> {
    let quirks = bmc.quirks_of(system).await?;
    let Some(action) = manager_reset(bmc, system).await? else {
        let f = fault::unsupported("no-bmc-reset", "no manager of this machine has a Reset action");
        return Ok(Outcome::Failed { fault: f });
    };
    let allowed = action.allowed("ResetType");
    let none = Ladder::new();
    let ladder = quirks.reset.ladders.get(&ResetOf::Bmc).unwrap_or(&none);
    let Way::One(reset) = choose(ladder, allowed.as_deref()) else {
        let f = fault::unsupported(
            "no-bmc-reset",
            format!("the BMC can only {}", allowed.unwrap_or_default().join(", ")),
        );
        return Ok(Outcome::Failed { fault: f });
    };
    let outcome = action.post(bmc, &json!({"ResetType": reset})).await?;
    // Whether or not it answered: sessions, links and tasks are not to be relied on (R4).
    bmc.conn.forget_links();
    if !matches!(outcome, Err(Outcome::Failed { .. } | Outcome::Refused { .. })) {
        bmc.settle(quirks.bmc_settle_s);
    }
    Ok(match outcome {
        Ok(_) => DONE,
        Err(outcome) => outcome,
    })
}

/// Reset of the manager that manages this system: the host's BMC, not an HGX baseboard's.
async fn manager_reset(bmc: &Bmc<'_>, system: &Value) -> Result<Option<Action>, Stop> {
    for (_, manager) in controllers::candidates(bmc, system).await? {
        if let Some(action) = Action::find(bmc, &manager, "#Manager.Reset").await? {
            return Ok(Some(action));
        }
    }
    Ok(None)
}

/// Cuts the machine's power as if by its plug and gives it back; the BMC goes with it. Refused unless
/// the host is off.
pub(super) async fn ac_cycle(bmc: &Bmc<'_>, expect: &Expect) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let (links, v) = guard::check(bmc, expect).await?;
    let quirks = bmc.quirks_of(&v).await?;
    let Some(cycle) = &quirks.ac_cycle else {
        let f = fault::unsupported("no-ac-cycle", "no way to cut this machine's power is known")
            .hint("cut it at the power strip, or give its BMC's action in `[bmc] quirks`");
        return Ok(Outcome::Failed { fault: f });
    };
    // Some BMCs refuse it else (iLO); a host that runs loses what it has not written anywhere.
    let now = system::power(&v);
    if now != Power::Off {
        let saw = format!("power is {now:?}; the host must be off before its power is cut");
        return Err(Stop::Refused { saw, wrong_machine: false });
    }
    let cycle = match cycle {
        AcCycle::Action(action) => action,
        AcCycle::Setting { attribute, value } => {
            return by_setting(bmc, &quirks, &v, attribute, value).await;
        }
    };
    let Some(target) = ac_target(bmc, cycle, &links.system, &v).await? else {
        let f = fault::unsupported(
            "no-ac-cycle",
            format!("the BMC does not offer `{}`", cycle.action.trim_start_matches('#')),
        )
        .hint("some have it only with a licence or a newer firmware");
        return Ok(Outcome::Failed { fault: f });
    };
    let body = json!({"ResetType": cycle.reset_type});
    let outcome = guard::post(bmc, &target, &body).await?;
    bmc.conn.forget_links();
    if !matches!(outcome, Err(Outcome::Failed { .. } | Outcome::Refused { .. })) {
        bmc.settle(quirks.bmc_settle_s);
    }
    Ok(match outcome {
        Ok(_) => DONE,
        Err(Outcome::Failed { fault }) if fault.code == "conflict" => {
            Outcome::Failed { fault: fault::later(fault, quirks.reset.conflict_retry_s) }
        }
        Err(outcome) => outcome,
    })
}

/// Leaves the setting for the next POST, then switches the host on for it. Nothing happens before that:
/// a setting that waits alone is said to wait, and found waiting when this is asked for again.
async fn by_setting(
    bmc: &Bmc<'_>,
    quirks: &Quirks,
    system: &Value,
    attribute: &str,
    value: &str,
) -> Result<Outcome, Stop> {
    // Looked for first: a setting without a way to switch on would wait for whoever does it by hand.
    let Some(action) = Action::find(bmc, system, "#ComputerSystem.Reset").await? else {
        let f = fault::unsupported("no-reset", "this machine's system has no Reset action");
        return Ok(Outcome::Failed { fault: f });
    };
    let allowed = action.allowed("ResetType");
    let none = Ladder::new();
    let ladder = quirks.reset.ladders.get(&ResetOf::On).unwrap_or(&none);
    let reset = match choose(ladder, allowed.as_deref()) {
        Way::One(reset) => reset,
        way => return Ok(Outcome::Failed { fault: not_this_way(PowerOp::On, &way, allowed) }),
    };
    let wanted = BTreeMap::from([(attribute.to_string(), Value::from(value))]);
    match bios::leave(bmc, system, &wanted).await? {
        Outcome::Applied { .. } => {}
        Outcome::Failed { fault } => {
            let hint = "cut it at the power strip, or update the BMC: newer ones have an action";
            return Ok(Outcome::Failed { fault: fault.hint(hint) });
        }
        other => return Ok(other),
    }
    let waits = |f: Fault| {
        f.hint(format!("`{attribute}` waits in its BIOS: the host's next start cuts all power"))
    };
    let posted = match action.post(bmc, &json!({"ResetType": reset})).await {
        Ok(posted) => posted,
        Err(Stop::Fault(f)) => return Err(waits(*f).into()),
        Err(stop) => return Err(stop),
    };
    // The BMC goes with the power, minutes from now.
    bmc.conn.forget_links();
    Ok(match posted {
        Ok(_) => DONE,
        Err(Outcome::Failed { fault }) if fault.code == "conflict" => {
            Outcome::Failed { fault: waits(fault::later(fault, quirks.reset.conflict_retry_s)) }
        }
        Err(Outcome::Failed { fault }) => Outcome::Failed { fault: waits(fault) },
        Err(outcome) => outcome,
    })
}

async fn ac_target(
    bmc: &Bmc<'_>,
    cycle: &AcAction,
    system_path: &str,
    system: &Value,
) -> Result<Option<String>, Stop> {
    let found = match &cycle.on {
        ActionOn::System => action_target(system, &cycle.action),
        ActionOn::Manager => match controllers::host(bmc, system).await? {
            Some((_, manager)) => action_target(&manager, &cycle.action),
            None => None,
        },
        ActionOn::Chassis(id) => {
            let path = format!("/redfish/v1/Chassis/{id}");
            match bmc.get(&path).await {
                Ok(chassis) => action_target(&chassis, &cycle.action),
                Err(f) if discover::is_fatal(&f) => return Err(f.into()),
                Err(_) => None,
            }
        }
    };
    // A path that is known by heart goes below the system that was just proven to be the one.
    Ok(found.or_else(|| {
        let path = cycle.path.as_ref()?;
        Some(path.replace("{system}", system_path.trim_end_matches('/')))
    }))
}

/// The target of an action: below `Actions`, below its `Oem`, or below the vendor's part of the
/// resource's own `Oem` (iLO).
fn action_target(resource: &Value, name: &str) -> Option<String> {
    let here = |v: &Value| json::at(v, &[name]).and_then(|a| json::text(a, &["target"]));
    let own = json::at(resource, &["Actions"]);
    let oem = json::at(resource, &["Oem"]).and_then(Value::as_object);
    own.and_then(here).or_else(|| own.and_then(|a| json::at(a, &["Oem"])).and_then(here)).or_else(
        || {
            oem.into_iter()
                .flat_map(|o| o.values())
                .find_map(|vendor| json::at(vendor, &["Actions"]).and_then(here))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_way_that_a_bmc_has_is_taken_and_two_acts_are_not_one() {
        let ladder: Ladder =
            vec![vec!["ForceRestart".into()], vec!["ForceOff".into(), "On".into()]];
        let all = |types: &[&str]| types.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(choose(&ladder, None), Way::One("ForceRestart"));
        assert_eq!(choose(&ladder, Some(&all(&["ForceRestart"]))), Way::One("ForceRestart"));
        let two = all(&["ForceOff", "On"]);
        assert_eq!(choose(&ladder, Some(&two)), Way::Several(&ladder[1]));
        assert_eq!(choose(&ladder, Some(&all(&["On"]))), Way::Missing("ForceRestart"));
        assert_eq!(choose(&Ladder::new(), None), Way::Missing("reset"));
    }

    #[test]
    fn an_action_is_found_where_vendors_hide_it() {
        let target = json!({"target": "/x"});
        for v in [
            json!({"Actions": {"#A.Reset": target}}),
            json!({"Actions": {"Oem": {"#A.Reset": target}}}),
            json!({"Oem": {"Hpe": {"Actions": {"#A.Reset": target}}}}),
        ] {
            assert_eq!(action_target(&v, "#A.Reset").as_deref(), Some("/x"), "{v}");
        }
        assert_eq!(action_target(&json!({"Actions": []}), "#A.Reset"), None);
    }
}
