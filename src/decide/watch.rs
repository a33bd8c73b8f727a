//! At rest: health, drift, and the standing check that this still is the machine it was.

use super::{Input, Verdict, certificate, give_up, out_of_band, retry, write};
use crate::model::facts::Power;
use crate::model::identity::Match;
use crate::model::{Entry, Fault, Machine, Stage};
use crate::steps::identify::wrong_machine;
use std::cmp::Ordering;

/// Milliseconds until the next health probe, spread over the fleet.
pub(super) fn pause(i: &Input<'_>) -> u64 {
    let watch = i.workflow.watch.0.max(1000);
    watch - watch / 8 + retry::jitter(i.m.id, i.now) % (watch / 4).max(1)
}

/// Another machine answers at the address: quarantine, whatever the stage. People at work (repair)
/// and machines out of hand (retired) aside.
pub(super) fn identity(i: &Input<'_>) -> Option<Verdict> {
    let with_people = i.m.run.is_none() && matches!(i.m.stage, Stage::Repair | Stage::Retired);
    if with_people || i.m.is_quarantined() {
        return None;
    }
    if let Some(verdict) = i.report.system.fault().and_then(|f| certificate::of_host(i, f)) {
        return Some(verdict);
    }
    let found = &i.report.system.seen()?.identity;
    match i.m.identity.compare(found) {
        Match::Differs { part, expected, found } => {
            Some(give_up(i, wrong_machine(crate::model::Channel::Bmc, part, &expected, &found)))
        }
        Match::Same | Match::Unknown => certificate::of_controllers(i),
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
                let unread = inventory.iter().filter(|seen| seen.id == all);
                if let Some(why) = unread.filter_map(|seen| seen.unread.as_deref()).next() {
                    let unpinned = match why.code == Fault::NO_PIN {
                        true => ", whose certificate nobody has accepted,",
                        false => "",
                    };
                    found.push(format!("{}{unpinned}{NOT_READ}", c.called()));
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
