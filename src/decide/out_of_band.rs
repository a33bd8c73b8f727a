//! Changes made behind Farrier's back: at rest nobody but Farrier should change power, firmware or
//! the boot override. Report-only: recorded, counted, shown, never undone.

use super::Input;
use crate::model::controller;
use crate::model::facts::{Component, Power, SystemFacts};
use crate::model::{Control, Entry, Machine, Stage};

/// The entries for what a probe at rest shows: a first look is the mark to compare with, each later
/// difference is somebody's change.
pub(super) fn seen(i: &Input<'_>) -> Vec<Entry> {
    let m = i.m;
    let system = match i.report.system.seen() {
        // Over IPMI nothing is known of the override.
        Some(system) if watched(m) && !system.over_ipmi => system,
        _ => return Vec::new(),
    };
    let power = matches!(system.power, Power::On | Power::Off).then_some(system.power);
    let boot = boot_override(system);
    let read = i.report.firmware.seen();
    // Of the host's BMC alone: a further controller that does not answer, or is new in the inventory,
    // is no change of firmware. Where one of them could not be read, what is missing is nobody's change.
    let hosts = read.map(|all| {
        all.iter().filter(|c| controller::split(&c.id).0.is_none()).collect::<Vec<&Component>>()
    });
    let whole = hosts.filter(|all| all.iter().all(|c| c.unread.is_none()));
    let firmware = whole.map(|all| versions(&all)).unwrap_or_default();
    let last = m.observed;
    let now = last.with(power, Some(&boot), &firmware);
    if now == last {
        return Vec::new();
    }
    let mut entries = Vec::new();
    let mut changed = |what: String| entries.push(Entry::OutOfBand { what });
    match (last.power, now.power) {
        (Some(before), Some(after)) if before != after => {
            changed(format!("power went {}", if after == Power::On { "on" } else { "off" }));
        }
        _ => {}
    }
    // A single-use override that a boot has used up is nobody's change.
    if last.boot != 0 && last.boot != now.boot && !(last.boot_once && boot == NO_OVERRIDE) {
        changed(format!("the boot override is now {boot}"));
    }
    if last.components != 0 && last.firmware != now.firmware {
        // Half a list is what a BMC gives that has just restarted, not a change.
        if now.components < last.components {
            return Vec::new();
        }
        changed(format!("firmware is now {}", firmware.join(", ")));
    }
    entries.push(Entry::Observed { power, boot: Some(boot), firmware });
    entries
}

/// Machines at rest that Farrier answers for; where people work, changes are theirs.
fn watched(m: &Machine) -> bool {
    m.control != Control::Unmanaged
        && m.run.is_none()
        && matches!(m.stage, Stage::Ready | Stage::InService | Stage::Drained)
}

const NO_OVERRIDE: &str = "none";

/// The override in one word; `none` for all ways in which BMCs say that there is none.
fn boot_override(system: &SystemFacts) -> String {
    let enabled = system.boot_enabled.as_deref().unwrap_or("");
    match system.boot_target.as_deref() {
        Some(target)
            if !target.eq_ignore_ascii_case("none")
                && !enabled.eq_ignore_ascii_case("disabled") =>
        {
            format!("{target} {enabled}").trim_end().to_lowercase()
        }
        _ => NO_OVERRIDE.into(),
    }
}

/// `id version` of every component that has a version, in the order of their ids.
fn versions(all: &[&Component]) -> Vec<String> {
    let mut list: Vec<String> =
        all.iter().filter_map(|c| c.version.as_deref().map(|v| format!("{} {v}", c.id))).collect();
    list.sort();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_is_one_word_however_it_is_said() {
        let says = |target: Option<&str>, enabled: Option<&str>| {
            boot_override(&SystemFacts {
                boot_target: target.map(Into::into),
                boot_enabled: enabled.map(Into::into),
                ..SystemFacts::default()
            })
        };
        assert_eq!(says(None, None), "none");
        assert_eq!(says(Some("None"), Some("Once")), "none");
        assert_eq!(says(Some("Pxe"), Some("Disabled")), "none");
        assert_eq!(says(Some("Pxe"), Some("Once")), "pxe once");
        assert_eq!(says(Some("Hdd"), None), "hdd");
    }
}
