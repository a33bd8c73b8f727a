//! Unreachable is not quarantined: nothing is charged, and it clears itself after good probes.

use super::{Input, Verdict, retry, unanswered, watch, write};
use crate::model::facts::{Power, Read};
use crate::model::{ActionKind, Channel, Condition, EngineTime, Entry, Fault, Machine, Report};

/// Misses in a row until a machine counts as unreachable.
const MISSES: u32 = 3;
/// A BMC that was told to restart or updates itself may be away this long (field notes §6, 5:
/// reboots of 60–300 s, then half-up services).
const OWN_RESET_MS: u64 = 600_000;
const SECOND: &str = "a second good probe";
const FIRST: &str = "the BMC to answer";
const HOST: &str = "the host to answer";

/// What a report says of who answers; `None` = it tells nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub bmc: Option<bool>,
    /// The host's SSH. Silence tells something only of a host that answered since its power was
    /// changed last: the director remembers that.
    pub host: Option<bool>,
}

/// Who answered. A BMC that restarts by our own hand tells nothing by its silence, nor does a host
/// that is not powered on.
pub fn heard(m: &Machine, report: &Report, now: EngineTime) -> Heard {
    let bmc = match &report.system {
        Read::NotAsked => None,
        read if unanswered(read).is_some() => (!restarts(m, now)).then_some(false),
        _ => Some(true),
    };
    let on = report.system.seen().is_some_and(|s| s.power == Power::On);
    let host = if report.host.seen().is_some() || report.job.seen().is_some() {
        Some(true)
    } else if on && host_silent(report).is_some() {
        Some(false)
    } else {
        None
    };
    Heard { bmc, host }
}

fn host_silent(report: &Report) -> Option<&Fault> {
    unanswered(&report.host).or(unanswered(&report.job))
}

/// Is the BMC away because Farrier told it to restart or writes its firmware?
fn restarts(m: &Machine, now: EngineTime) -> bool {
    m.open.as_ref().is_some_and(|open| {
        matches!(open.action.kind(), ActionKind::BmcReset | ActionKind::UpdateFirmware)
            && open.action.controller().is_none()
            && now.since(open.progress_at) < OWN_RESET_MS
    })
}

/// A verdict when the BMC (or, in an outage, the host) is away or just came back; `None` = it is
/// there.
pub(super) fn away(i: &Input<'_>) -> Option<Verdict> {
    let m = i.m;
    let Some(fault) = unanswered(&i.report.system) else {
        return host_away(i).or_else(|| back(i));
    };
    if m.is_quarantined() {
        return Some(Verdict::Rest { due: i.now + watch::pause(i), waiting: None });
    }
    if let Condition::Unreachable { since } = m.condition {
        return Some(still_away(i, since, FIRST));
    }
    let lasting = i.outage.filter(|o| o.channel == Channel::Bmc && !o.is_over());
    if restarts(m, i.now) && lasting.is_none() {
        let due = i.now + 15_000;
        return Some(Verdict::Rest { due, waiting: Some("the BMC to come back".into()) });
    }
    let misses =
        m.last_fault.as_ref().filter(|n| n.fault.code == fault.code).map_or(0, |n| n.count);
    // One miss of a machine whose neighbours went silent with it is enough.
    if misses + 1 >= MISSES || lasting.is_some() {
        return Some(lost(i, fault));
    }
    let not_before = i.now + (5_000 << misses);
    Some(write(
        vec![Entry::Faulted { fault: fault.clone(), charged: false, not_before }],
        not_before,
    ))
}

fn lost(i: &Input<'_>, fault: &Fault) -> Verdict {
    let mut fault = fault.clone();
    if let Some(outage) = i.outage.filter(|o| !o.is_over()) {
        fault.evidence = Some(outage.to_string());
    }
    write(vec![Entry::Lost { fault }], i.now + 15_000)
}

/// Looks again after a quarter of the time that it has been away, give or take: machines that were
/// lost together are not found together.
fn still_away(i: &Input<'_>, since: EngineTime, what: &str) -> Verdict {
    let pause = (i.now.since(since) / 4).clamp(15_000, 300_000);
    let due = i.now + (pause - pause / 4 + retry::jitter(i.m.id, i.now) % (pause / 2));
    if i.m.waiting.as_deref() == Some(SECOND) {
        return write(vec![Entry::Waits { what: what.into() }], due);
    }
    let waiting = match i.outage.filter(|o| !o.is_over()) {
        Some(outage) => format!("{} to come back", outage.domain()),
        None => what.into(),
    };
    Verdict::Rest { due, waiting: Some(waiting) }
}

/// The hosts of a domain fell silent together while the BMCs still answer: their network is out.
/// The clocks of the step stand still until it is back.
fn host_away(i: &Input<'_>) -> Option<Verdict> {
    let m = i.m;
    let fault = host_silent(i.report)?;
    if m.is_quarantined() || m.step.is_none() || i.report.system.seen().is_none() {
        return None;
    }
    let lasting = i.outage.is_some_and(|o| o.channel == Channel::Host && !o.is_over());
    match m.condition {
        Condition::Unreachable { since } if lasting && m.lost_on() == Some(Channel::Host) => {
            Some(still_away(i, since, HOST))
        }
        Condition::Unreachable { .. } => None,
        _ if lasting => Some(lost(i, fault)),
        _ => None,
    }
}

fn back(i: &Input<'_>) -> Option<Verdict> {
    let m = i.m;
    if !i.report.system.was_asked() {
        return None;
    }
    let returned = || {
        let cut = i.outage.filter(|_| m.step.is_some());
        let mut entries: Vec<Entry> =
            cut.map(|o| Entry::Cut { by: o.to_string() }).into_iter().collect();
        entries.push(Entry::Back);
        entries
    };
    match m.condition {
        Condition::Unreachable { .. } if i.report.system.seen().is_none() => {
            // It answers, if only with an error: the step's own retry deals with that.
            Some(write(returned(), i.now + 5_000))
        }
        Condition::Unreachable { .. } if m.waiting.as_deref() == Some(SECOND) => {
            Some(write(returned(), i.now))
        }
        Condition::Unreachable { .. } => {
            Some(write(vec![Entry::Waits { what: SECOND.into() }], i.now + 5_000))
        }
        // A single miss at rest: nothing else would clear it.
        Condition::BackingOff if m.step.is_none() && i.report.system.seen().is_some() => {
            Some(write(vec![Entry::Back], i.now))
        }
        _ => None,
    }
}
