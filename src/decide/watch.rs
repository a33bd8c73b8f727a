//! At rest: health, drift, and the standing check that this still is the machine it was.

use super::{Input, Verdict, give_up, out_of_band, retry, write};
use crate::model::facts::Power;
use crate::model::identity::Match;
use crate::model::{ActionKind, EngineTime, Entry, Fault, Machine, OpenState, Stage};
use crate::steps::identify::wrong_machine;
use std::cmp::Ordering;

/// Milliseconds until the next health probe, spread over the fleet.
pub(super) fn pause(i: &Input<'_>) -> u64 {
    let watch = i.workflow.watch.0.max(1000);
    watch - watch / 8 + retry::jitter(i.m.id, i.now) % (watch / 4).max(1)
}

/// A certificate that nobody has accepted yet is waited for. Another one than the accepted one is
/// another machine, unless Farrier itself gave it reason to be.
fn certificate(i: &Input<'_>, fault: &Fault) -> Option<Verdict> {
    let what = match fault.code.as_ref() {
        // At rest there is nothing that would wait for it.
        Fault::NO_PIN if i.m.step.is_some() => FIRST_CERTIFICATE,
        Fault::CERTIFICATE_CHANGED if renewed(i.m, i.now) => NEW_CERTIFICATE,
        Fault::CERTIFICATE_CHANGED => return Some(give_up(i, fault.clone())),
        _ => return None,
    };
    Some(super::wait(i, what, ASK_AGAIN_MS))
}

/// What a machine waits for whose inventory says `tls = "pin"`, and that has no pin.
pub(super) const FIRST_CERTIFICATE: &str = "a person to accept the BMC's certificate";

/// What a machine waits for whose BMC came back from Farrier's own update with a new certificate.
pub(super) const NEW_CERTIFICATE: &str = "a person to accept the BMC's new certificate";

/// A person who accepts it has the machine looked at by that.
const ASK_AGAIN_MS: u64 = 60_000;

/// How long after Farrier's own update a new certificate is put down to it.
const RENEWED_MS: u64 = 3_600_000;

/// Did Farrier itself update this BMC's machine within the last hour, and was the BMC reset since,
/// by Farrier or by the update? Such resets make self-signed certificates anew (field notes §4).
pub(super) fn renewed(m: &Machine, now: EngineTime) -> bool {
    let flashing = m.open.as_ref().filter(|o| o.action.kind() == ActionKind::UpdateFirmware);
    if flashing.is_some_and(|o| o.state != OpenState::Intended) {
        return true;
    }
    let acts = m.step.as_ref().map_or(&[][..], |s| &s.acts);
    let flashed = acts.iter().rev().find(|a| {
        a.kind == ActionKind::UpdateFirmware && a.happened && now.since(a.closed) <= RENEWED_MS
    });
    let resets = m.open.as_ref().is_some_and(|o| o.action.kind() == ActionKind::BmcReset);
    flashed.is_some_and(|a| resets || m.last_reset >= a.at)
}

/// Another machine answers at the address: quarantine, whatever the stage. People at work (repair)
/// and machines out of hand (retired) aside.
pub(super) fn identity(i: &Input<'_>) -> Option<Verdict> {
    let with_people = i.m.run.is_none() && matches!(i.m.stage, Stage::Repair | Stage::Retired);
    if with_people || i.m.is_quarantined() {
        return None;
    }
    if let Some(verdict) = i.report.system.fault().and_then(|f| certificate(i, f)) {
        return Some(verdict);
    }
    let found = &i.report.system.seen()?.identity;
    match i.m.identity.compare(found) {
        Match::Differs { part, expected, found } => {
            Some(give_up(i, wrong_machine(crate::model::Channel::Bmc, part, &expected, &found)))
        }
        Match::Same | Match::Unknown => None,
    }
}

/// Nothing is wanted: note drift, look again later.
pub(super) fn at_rest(i: &Input<'_>) -> Verdict {
    let due = i.now + pause(i);
    let mut entries = out_of_band::seen(i);
    if let Some(notice) = notice(i)
        && i.m.notice.as_deref().unwrap_or("") != notice
    {
        entries.push(Entry::Noticed { what: notice });
    }
    if entries.is_empty() { Verdict::Rest { due, waiting: None } } else { write(entries, due) }
}

/// Drift in words, empty when there is none; `None` when this probe can't tell.
fn notice(i: &Input<'_>) -> Option<String> {
    let system = i.report.system.seen()?;
    let mut found = Vec::new();
    if i.m.stage == Stage::InService && system.power == Power::Off {
        found.push("power is off; in service it should be on".to_string());
    }
    if i.m.stage == Stage::Retired && system.power == Power::On {
        found.push("power is on; retired it should be off".to_string());
    }
    if system.over_ipmi {
        found.push("its Redfish does not answer; power is read over IPMI".to_string());
    }
    if let Some(health) = system.health.as_deref()
        && !health.eq_ignore_ascii_case("ok")
    {
        found.push(format!("the BMC rolls health up as {health}"));
    }
    match i.report.firmware.seen() {
        Some(inventory) if i.m.stage != Stage::Retired => {
            let set = i.profile.firmware_set.as_ref().and_then(|name| {
                i.site.catalog.family(system).and_then(|family| family.sets.get(name))
            });
            let kept = said(i.m, |p| p.contains(SET_SAYS));
            for fw in set.map(|s| s.firmware.as_slice()).unwrap_or_default() {
                let Ok(member) = fw.read(inventory) else {
                    let about = format!("{} is ", fw.component);
                    found.extend(kept.iter().filter(|p| p.starts_with(&about)).cloned());
                    continue;
                };
                if let Some(version) = member.and_then(|c| c.version.as_deref())
                    && fw.compare(version) != Some(Ordering::Equal)
                {
                    found.push(format!("{} is {version}{SET_SAYS}{}", fw.component, fw.version));
                }
            }
            for c in i.expected.bmc.controllers.iter() {
                let all = c.prefixed("");
                if inventory.iter().any(|seen| seen.id == all && seen.unread.is_some()) {
                    found.push(format!("{}{NOT_READ}", c.called()));
                }
            }
        }
        // Firmware was not read this time: keep what was said of it.
        _ => found.extend(said(i.m, |p| p.contains(SET_SAYS) || p.ends_with(NOT_READ))),
    }
    Some(found.join("; also "))
}

const SET_SAYS: &str = ", the set says ";
/// Of a further controller.
const NOT_READ: &str = " does not show its firmware";

/// Parts of the notice that stands.
fn said(m: &Machine, which: impl Fn(&str) -> bool) -> Vec<String> {
    let kept = m.notice.as_deref().unwrap_or("");
    kept.split("; also ").filter(|p| which(p)).map(str::to_string).collect()
}
