//! `farrier bmc power`

use super::{One, change};
use crate::cli::Io;
use crate::cli::bmc::{Power as Word, Sure};
use crate::cli::out::Failure;
use crate::model::facts::Power;
use crate::model::quirks::AcCycle;
use crate::port::capability::BmcNature;
use crate::port::{BmcCare, BmcPower, BmcRead};
use serde_json::json;

/// Seconds until the power must have changed: an operating system may take minutes to shut down,
/// a BMC one to switch (field notes §4).
const SHUTDOWN_S: u64 = 300;
const SWITCH_S: u64 = 90;
/// A BMC that lost its power needs 1 to 5 minutes to come back, some more.
const COLD_START_S: u64 = 600;

pub(super) async fn run(
    one: &One<'_>,
    op: Option<Word>,
    sure: Sure,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let Some(op) = op else {
        let facts = match one.edge.system(&one.target).await {
            Ok(facts) => facts,
            Err(fault) => return Err(one.failed(fault).await),
        };
        if io.json {
            return io.document(&json!({"power": facts.power, "health": facts.health}));
        }
        return io.line(change::named(&facts, &one.target.name));
    };
    let (what, goal, for_s) = match op {
        Word::On => ("Switch on", Power::On, SWITCH_S),
        Word::Off => ("Shut down", Power::Off, SHUTDOWN_S),
        Word::ForceOff => ("Cut the power", Power::Off, SWITCH_S),
        Word::Restart => ("Reset", Power::On, SWITCH_S),
        Word::AcCycle => return ac_cycle(one, sure, io).await,
    };
    let Some(order) = op.op() else { return Ok(()) };
    let (before, expect) = change::confirmed(one, what, sure, io).await?;
    let outcome = one.edge.power(&one.target, &expect, order).await;
    change::taken(one, outcome).await?;
    let (now, good) = change::until(one, for_s, |f| f.power == goal).await?;
    if !good {
        let failure = Failure::error(format!(
            "the BMC took it, and after {for_s} s the power is {}",
            change::power(now.power)
        ));
        return Err(match op {
            Word::Off => failure.hint("the operating system did not shut down: `force-off` cuts"),
            _ => failure.hint("look at the BMC's log: `farrier bmc log`"),
        });
    }
    if io.json {
        return io.document(&json!({"before": before.power, "power": now.power}));
    }
    match op {
        Word::Restart => io.line("reset; power is on"),
        _ if before.power == goal => {
            io.line(format_args!("power was {} already", change::power(goal)))
        }
        _ => io.line(format_args!("power is {}", change::power(now.power))),
    }
}

/// The edge refuses it unless the host is off; that its BMC was away is all that is seen of it.
async fn ac_cycle(one: &One<'_>, sure: Sure, io: &mut Io<'_>) -> Result<(), Failure> {
    let (before, expect) = change::confirmed(one, "Cut all power, the BMC's too", sure, io).await?;
    let outcome = one.edge.ac_cycle(&one.target, &expect).await;
    change::taken(one, outcome).await?;
    let (now, _) = change::until(one, COLD_START_S, |_| true).await?;
    if io.json {
        return io.document(&json!({"before": before.power, "power": now.power}));
    }
    let quirks = one.edge.quirks(&one.target).await.ok();
    if let Some(AcCycle::Setting { attribute, .. }) =
        quirks.as_ref().and_then(|q| q.ac_cycle.as_ref())
    {
        return io.line(format_args!(
            "the host starts for the BIOS setting `{attribute}`: all power goes at the end of its POST, \
             and the BMC is away then"
        ));
    }
    let power = change::power(now.power);
    io.line(format_args!("the BMC took it and answers again; power is {power}"))
}
