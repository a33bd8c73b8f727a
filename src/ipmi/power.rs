//! Chassis Control and Cold Reset (IPMI 2.0, 28.3 and 20.2), once, after the guard.

use super::guard::{self, Stop};
use super::tool::{self, Trouble};
use super::{Bmc, DONE};
use crate::model::action::PowerOp;
use crate::model::facts::Power;
use crate::model::{Expect, FaultClass, Outcome};

fn verb(op: PowerOp) -> &'static str {
    match op {
        PowerOp::On => "on",
        PowerOp::ForceOff => "off",
        PowerOp::GracefulShutdown => "soft",
        PowerOp::ForceRestart => "reset",
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
    let _one = bmc.line.turn().await;
    let now = guard::check(bmc, expect).await?;
    if goal(op) == Some(now) {
        return Ok(DONE);
    }
    let sent = bmc.run(&["chassis", "power", verb(op)]).await;
    // Hard reset is optional in a chassis (28.3); a cycle restarts the host too. The refusal says
    // that nothing was done.
    match sent {
        Err(Trouble::NotDone(f))
            if op == PowerOp::ForceRestart
                && (f.class == FaultClass::Unsupported || f.code == "rejected") =>
        {
            Ok(outcome(bmc.run(&["chassis", "power", "cycle"]).await))
        }
        sent => Ok(outcome(sent)),
    }
}

pub(super) async fn reset_bmc(bmc: &Bmc<'_>, expect: &Expect) -> Result<Outcome, Stop> {
    let _one = bmc.line.turn().await;
    guard::check(bmc, expect).await?;
    if bmc.line.is_operator() {
        return Ok(Outcome::Failed { fault: tool::not_allowed("a cold reset of the BMC") });
    }
    // ipmitool waits for no answer to this one: many BMCs are gone before they give it. A BMC that
    // turns it down can't be told from one that restarts; what it shows afterwards decides.
    Ok(outcome(bmc.run(&["mc", "reset", "cold"]).await))
}

/// How a write ended: what was turned down failed, what may have been carried out is unknown.
pub(super) fn outcome(sent: Result<String, Trouble>) -> Outcome {
    match sent {
        Ok(_) => DONE,
        Err(Trouble::NotDone(fault)) => Outcome::Failed { fault },
        Err(Trouble::Unclear(fault)) => Outcome::Unknown {
            fault: fault.hint("it may have taken hold; what the machine shows will decide"),
        },
    }
}
