//! Journal entries in words, for pages and tables.

use crate::model::change::PasswordEnd;
use crate::model::time::Span;
use crate::model::{Change, Entry, Outcome, StepEnd};

/// One line. Machines are not named: the reader knows which one it is.
pub fn words(entry: &Entry) -> String {
    match entry {
        Entry::Registered { name } => format!("registered as {name}"),
        Entry::Changed { change, by, .. } => format!("{by}: {}", order(change)),
        Entry::RunBegan { reason, .. } => format!("run began: {reason}"),
        Entry::RunEnded { why } => format!("run ended: {why}"),
        Entry::Entered { stage } => format!("entered {stage}"),
        Entry::StepBegan { key, .. } => format!("step `{key}` began"),
        Entry::StepEnded { key, end: StepEnd::Done { evidence } } => {
            format!("step `{key}` done: {evidence}")
        }
        Entry::StepEnded { key, end: StepEnd::Skipped { reason } } => {
            format!("step `{key}` skipped: {reason}")
        }
        Entry::Proven { identity } => {
            let (serial, mac) = (identity.serial.as_deref(), identity.mac.as_deref());
            let parts: Vec<&str> =
                [serial, identity.uuid.as_deref(), mac].into_iter().flatten().collect();
            format!("identity proven: {}", parts.join(", "))
        }
        Entry::HostKeyPinned { .. } => "SSH host key pinned".into(),
        Entry::RamdiskUp { address, .. } => format!("the deploy ramdisk answers at {address}"),
        Entry::RescueUp { address, host_key } => {
            format!("the rescue is up: root@{address}, host key {host_key}")
        }
        Entry::Deployed { image, .. } => format!("image {image} deployed"),
        Entry::Intent { action, .. } => format!("will do {} ({})", action.kind(), action.about()),
        Entry::Settled { outcome } => match outcome {
            Outcome::Applied { handle: Some(handle) } => format!("taken, followed at {handle}"),
            Outcome::Applied { handle: None } => "taken".into(),
            Outcome::Refused { saw, .. } => format!("not sent, things had changed: {saw}"),
            Outcome::Failed { fault } => format!("failed: {fault}"),
            Outcome::Unknown { fault } => format!("outcome unknown: {fault}"),
            Outcome::Withdrawn { why } => format!("withdrawn: {why}"),
        },
        Entry::Found { handle } => format!("launched work found again at {handle}"),
        Entry::Progressed { .. } => "launched work moved on".into(),
        Entry::Closed { happened: true, why } => format!("observed: {why}"),
        Entry::Closed { happened: false, why } => format!("did not happen: {why}"),
        Entry::Faulted { fault, charged, .. } => {
            let counts = if *charged { "" } else { " (not counted)" };
            format!("attempt failed{counts}: {fault}")
        }
        Entry::Excused { fault, why, .. } => {
            format!("attempt failed (not counted, laid to {why}): {fault}")
        }
        Entry::Remedied { remedy, code, failures } => {
            format!("tries {} after {failures} failures of `{code}`", remedy.name())
        }
        Entry::Cut { by } => format!("was part of an outage: {by}"),
        Entry::Lost { fault } => format!("the BMC stopped answering: {fault}"),
        Entry::Back => "the BMC answers again".into(),
        Entry::Quarantined { fault } => format!("quarantined: {fault}"),
        Entry::Waits { what } => format!("waits for {what}"),
        Entry::Observed { power, boot, firmware } => {
            let power = power.map(|p| format!("power {p:?}").to_lowercase());
            let boot = boot.as_ref().map(|b| format!("boot override {b}"));
            let firmware = (!firmware.is_empty()).then(|| firmware.join(", "));
            let parts: Vec<String> = [power, boot, firmware].into_iter().flatten().collect();
            format!("at rest: {}", parts.join("; "))
        }
        Entry::OutOfBand { what } => format!("not done by Farrier: {what}"),
        Entry::Presumed { action, why, .. } => {
            format!("`{}` may have been done already: {why}", action.kind())
        }
        Entry::Restored { incarnation, .. } => {
            format!("the database was restored from a backup, now incarnation {incarnation}")
        }
        Entry::Noticed { what } if what.is_empty() => "the notice is gone".into(),
        Entry::Noticed { what } => format!("noticed: {what}"),
    }
}

fn order(change: &Change) -> String {
    match change {
        Change::Adopt => "adopt".into(),
        Change::Enroll { allow_existing_data: true, desired } => {
            format!("enroll, desired {desired}, existing data may go")
        }
        Change::Enroll { desired, .. } => format!("enroll, desired {desired}"),
        Change::Desire { desired } => format!("desired {desired}"),
        Change::Hold { why }
        | Change::Unhold { why }
        | Change::Release { why }
        | Change::Retry { why }
        | Change::Abort { why }
        | Change::EndRescue { why }
        | Change::Repair { why } => format!("{} ({why})", change.name()),
        Change::Rescue { for_ms, why, .. } => format!("rescue for {} ({why})", Span(*for_ms)),
        Change::Password { end, controller, why } => {
            let it = match controller {
                Some(name) => format!("controller `{name}`"),
                None => "the BMC".into(),
            };
            match end {
                PasswordEnd::Rotated => format!("{it}'s password was rotated ({why})"),
                PasswordEnd::TakenBack => format!("{it} keeps its old password: {why}"),
                PasswordEnd::Stuck => format!("the rotation of {it}'s password is stuck: {why}"),
            }
        }
        Change::Skip { step, why } => format!("skip `{step}` ({why})"),
    }
}

/// Milliseconds as people write them.
pub fn span(ms: u64) -> String {
    Span(ms).to_string()
}
