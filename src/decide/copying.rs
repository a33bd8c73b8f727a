//! Once a new image runs, the roots of trust of some boards copy it to a second place for 5 to 30
//! minutes, and whoever cuts the power or resets the BMC meanwhile breaks the component (field notes on
//! Redfish, §3.1, §6 line 10). So before each such act the BMC's word on what it copies is read,
//! whichever step wants the act and whoever wrote the image.

use super::Input;
use crate::model::facts::{Read, Task, TaskState};
use crate::model::{Action, ActionKind, Fault, FaultClass};
use crate::steps::firmware::may_copy;

/// A wait that ends with the next probe: what that one must hold.
pub(super) const COPIES_WORD: &str = "the BMC's word on what it copies";

/// How a wait for a copy begins.
const COPYING: &str = "what is copied in the background (a power cut breaks it):";

/// Is this the wait for a copy's end? Then each probe reads whether it is there.
pub(super) fn is_copying(waiting: &str) -> bool {
    waiting.starts_with(COPYING)
}

/// Why the power is not cut now.
pub(super) enum Against {
    /// The tasks were not read: the next probe does.
    Unasked,
    /// Until then it is waited for this.
    Copies(String),
    /// What can't be read may go on.
    Unread(Fault),
}

/// What speaks against this action; `None`: nothing is copied, or the action cuts nothing.
pub(super) fn speaks(i: &Input<'_>, action: &Action) -> Option<Against> {
    let cuts = matches!(
        action.kind(),
        ActionKind::PowerOff | ActionKind::PowerRestart | ActionKind::BmcReset
    );
    if !cuts {
        return None;
    }
    match &i.report.tasks {
        Read::Seen(tasks) => {
            let copies = |t: &&Task| t.is_copy() && t.state == TaskState::InProgress;
            // A controller that does not answer may copy as well.
            let copy = tasks.iter().find(copies);
            let copy = copy.or_else(|| tasks.iter().find(|t| t.state == TaskState::Unread))?;
            Some(Against::Copies(match i.expected.bmc.controllers.of(&copy.uri) {
                Some((c, _)) if copy.is_unread_for(Fault::NO_PIN) => {
                    format!("{COPYING} {} may, and nobody has accepted its certificate", c.called())
                }
                Some((c, _)) if copy.state == TaskState::Unread => {
                    format!("{COPYING} {} may, and does not answer", c.called())
                }
                Some((c, uri)) => format!("{COPYING} {uri} of {}", c.called()),
                None => format!("{COPYING} {}", copy.uri),
            }))
        }
        Read::NotAsked => Some(Against::Unasked),
        Read::Failed(f) if f.class == FaultClass::Unsupported => None,
        // Over IPMI no BMC says it.
        Read::Failed(_) if i.report.system.seen().is_some_and(|s| s.over_ipmi) => {
            may_copy(i.m, i.now).then(|| {
                Against::Copies(format!("{COPYING} what was just written, unseen over IPMI"))
            })
        }
        Read::Failed(f) => Some(Against::Unread(f.clone())),
    }
}
