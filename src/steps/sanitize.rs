//! Wipe the machine's local disks by the shipped job. The job re-reads DMI in the command that
//! writes and refuses any other host than the BMC's machine.

use super::power::ensure_on;
use super::ramdisk::{Ramdisk, eject, media_needed};
use super::{Look, View, need};
use crate::model::action::JobScript;
use crate::model::facts::{JobState, ProbeSet};
use crate::model::time::Span;
use crate::model::{Action, ActionKind, Channel, Fault, FaultClass, Machine};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Longest run of the job.
    pub timeout: Span,
    /// Longest time from power on to the ramdisk's callback, then again to the first login.
    pub deadline: Span,
}

impl Default for Params {
    fn default() -> Self {
        Self { timeout: Span(12 * 3_600_000), deadline: Span(2_700_000) }
    }
}

impl Params {
    pub(super) fn needs(&self, m: &Machine) -> ProbeSet {
        let host = ProbeSet::BOOT.with(ProbeSet::HOST);
        ProbeSet::SYSTEM.with(ProbeSet::JOB).with(host).with(media_needed(m))
    }

    pub(super) fn look(&self, v: &View<'_>) -> Look {
        let system = need!(v.report.system);
        let wiped = v.m.happened(ActionKind::WipeJob);
        // Where images are deployed from the ramdisk, disks are wiped from it: the installed system
        // can't wipe the disk that it lives on.
        let in_ramdisk = v.profile.root_disk.is_some();
        if in_ramdisk {
            let window = need!(v.report.boot);
            let ramdisk = Ramdisk {
                v,
                system,
                window,
                deadline: self.deadline,
                allow_existing_data: true,
                keys: vec![],
            };
            if wiped.is_none()
                && let Err(look) = ramdisk.enter()
            {
                return *look;
            }
        } else if let Some(look) = ensure_on(system.power) {
            return look;
        }
        let Some(act) = wiped else {
            return Look::Act(Action::StartJob {
                script: JobScript::Wipe,
                name: v.job_name("wipe"),
                timeout_ms: self.timeout.0,
            });
        };
        let job = need!(v.report.job);
        match &job.state {
            JobState::Finished { exit: 0, result: Some(result) }
                if result["verified"] == serde_json::Value::Bool(true) =>
            {
                if in_ramdisk && let Some(look) = leave(v) {
                    return look;
                }
                let drives = result["drives"].as_array().map_or(0, Vec::len);
                Look::done(format!("{drives} drives sanitized and read back ({})", act.about))
            }
            JobState::Finished { exit, result } => {
                let said = result.as_ref().map(ToString::to_string).unwrap_or_default();
                if let Some(fault) = result.as_ref().and_then(out_of_reach) {
                    return Look::Fail(fault.evidence(said));
                }
                let refused = result.as_ref().is_some_and(|r| r["refused"].is_string());
                let in_doubt = result.as_ref().is_some_and(|r| r["error"].is_string());
                let (class, code) = if refused {
                    (FaultClass::Identity, "wipe-refused")
                } else if in_doubt {
                    // A disk in use or of unknown kind: nothing was written, and nothing changes by
                    // trying again.
                    (FaultClass::Precondition, "wipe-in-doubt")
                } else {
                    (FaultClass::Transient, "wipe-failed")
                };
                Look::Fail(
                    Fault::new(class, Channel::Host, code, format!("the wipe ended with {exit}"))
                        .evidence(said),
                )
            }
            _ => Look::Fail(Fault::new(
                FaultClass::Transient,
                Channel::Host,
                "result-gone",
                "the wipe's result file is gone",
            )),
        }
    }
}

/// All that a wipe reaches is clean, and behind a RAID controller lie drives that none reaches: another
/// try changes nothing. The volume of them is not deleted here: without it they are no cleaner.
fn out_of_reach(result: &serde_json::Value) -> Option<Fault> {
    let list = |key: &str| result[key].as_array().map_or(&[][..], Vec::as_slice);
    let clean = list("drives").iter().all(|d| d["verified"] == serde_json::Value::Bool(true));
    let left: Vec<&str> =
        list("not_sanitized").iter().filter_map(|d| d["drive"].as_str()).collect();
    if left.is_empty() || !clean || result["error"].is_string() || result["refused"].is_string() {
        return None;
    }
    let message = format!("not sanitized: {}; what is on it can still be read", left.join(", "));
    let fault = Fault::new(FaultClass::Precondition, Channel::Host, "not-sanitized", message);
    Some(fault.hint(
        "destroy these drives, or erase them by their controller's own means; then \
         `farrier machine skip`",
    ))
}

/// Nothing of ours stays behind: no medium in the BMC's drive, no boot window.
fn leave(v: &View<'_>) -> Option<Look> {
    if let Some(look) = eject(v) {
        return Some(look);
    }
    let window = v.report.boot.seen().filter(|w| w.open)?;
    let run = window.run.clone()?;
    Some(Look::Act(Action::CloseBootWindow { run }))
}
