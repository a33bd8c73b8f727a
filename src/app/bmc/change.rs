//! What comes before and after every change: say what is about to be done to which machine, have it
//! confirmed, and sort what came of it.

use super::One;
use crate::bmc::RedfishBmc;
use crate::cli::Io;
use crate::cli::bmc::Sure;
use crate::cli::out::Failure;
use crate::model::facts::{Power, SystemFacts};
use crate::model::{Expect, Outcome};
use crate::port::BmcRead;
use std::time::Duration;

/// A machine in one line: who it is, where, and how it stands.
pub(super) fn named(facts: &SystemFacts, address: &str) -> String {
    let model = facts.model.as_deref().or(facts.manufacturer.as_deref()).unwrap_or("machine");
    let who = match (&facts.identity.serial, &facts.identity.uuid, &facts.identity.mac) {
        (Some(serial), _, _) => format!("serial {serial}"),
        (None, Some(uuid), _) => format!("UUID {uuid}"),
        (None, None, Some(mac)) => format!("MAC {mac}"),
        (None, None, None) => "without any identity".to_string(),
    };
    format!("{model}, {who}, at {address}; power is {}", power(facts.power))
}

pub(super) fn power(power: Power) -> &'static str {
    match power {
        Power::On => "on",
        Power::Off => "off",
        Power::PoweringOn => "coming on",
        Power::PoweringOff => "going off",
        Power::Unknown => "unknown",
    }
}

/// Says it, and has it confirmed by `--yes` or by a person. What the change then expects is the
/// machine that was shown.
pub(super) async fn confirmed(
    one: &One<'_>,
    what: &str,
    sure: Sure,
    io: &mut Io<'_>,
) -> Result<(SystemFacts, Expect), Failure> {
    let facts = match one.edge.system(&one.target).await {
        Ok(facts) => facts,
        Err(fault) => return Err(one.failed(fault).await),
    };
    let text = format!("{what}: {}.", named(&facts, &one.target.name));
    if sure.yes {
        io.note(&text);
    } else {
        match (one.ask)(&text) {
            Some(true) => {}
            Some(false) => return Err(Failure::error("nothing was done")),
            None => {
                return Err(Failure::usage(format!("nothing was done. {text}"))
                    .hint("add --yes where nobody can be asked"));
            }
        }
    }
    let expect = Expect { identity: facts.identity.clone(), ..Expect::default() };
    Ok((facts, expect))
}

/// The handle of what was launched, or why it was not done.
pub(super) async fn taken(one: &One<'_>, outcome: Outcome) -> Result<Option<String>, Failure> {
    match outcome {
        Outcome::Applied { handle } => Ok(handle),
        Outcome::Refused { saw, wrong_machine } => {
            let failure = Failure::error(format!("nothing was sent: the BMC shows {saw}"));
            Err(if wrong_machine {
                failure.hint("another machine answers there than a moment ago")
            } else {
                failure
            })
        }
        Outcome::Failed { fault } => Err(one.failed(fault).await),
        Outcome::Unknown { fault } => Err(Failure::error(format!(
            "sent, and nobody can tell whether it took hold: {} ({})",
            fault.message, fault.code
        ))
        .hint(fault.hint.unwrap_or_else(|| "look before you repeat it".to_string()))),
        Outcome::Withdrawn { why } => Err(Failure::error(why)),
    }
}

/// Reads the system until it is `good`, for at most `for_s` seconds; the last that was seen, and
/// whether it was good.
pub(super) async fn until(
    one: &One<'_>,
    for_s: u64,
    good: impl Fn(&SystemFacts) -> bool,
) -> Result<(SystemFacts, bool), Failure> {
    let pause = Duration::from_secs(1);
    let mut left = for_s;
    loop {
        match read(&one.edge, one).await {
            Ok(facts) if good(&facts) => return Ok((facts, true)),
            Ok(facts) if left == 0 => return Ok((facts, false)),
            Err(failure) if left == 0 => return Err(failure),
            Ok(_) | Err(_) => {}
        }
        left = left.saturating_sub(1);
        tokio::time::sleep(pause).await;
    }
}

async fn read(edge: &RedfishBmc, one: &One<'_>) -> Result<SystemFacts, Failure> {
    match edge.system(&one.target).await {
        Ok(facts) => Ok(facts),
        Err(fault) => Err(one.failed(fault).await),
    }
}
