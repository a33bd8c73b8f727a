//! What probes see of a baseboard: its components and tasks beside the host BMC's, under its name.

use super::{BASEBOARD, Baseboard, on_board, prefixed, serial};
use crate::model::facts::{Component, ProbeSet, Read, Report, Task, TaskState};
use crate::model::{Channel, EngineTime, Fault};
use crate::sim::physics::VirtualMachine;

impl Baseboard {
    fn components(&self) -> impl Iterator<Item = Component> {
        self.firmware.iter().map(|slot| Component {
            id: prefixed(slot.id),
            name: Some(slot.name.into()),
            version: (!slot.corrupt).then(|| slot.version.to_string()),
            updateable: Some(true),
            uri: Some(format!("/redfish/v1/UpdateService/FirmwareInventory/{}", slot.id)),
            unread: None,
        })
    }

    fn task_list(&self, now: EngineTime) -> Vec<Task> {
        let tasks = self.tasks.iter().map(|t| {
            let (state, raw, percent) = t.shown(now);
            Task {
                uri: prefixed(&t.uri()),
                state,
                raw_state: raw.into(),
                percent: Some(percent),
                message: (state == TaskState::Failed).then(|| "the image was not taken".into()),
            }
        });
        let copies = self.copies.iter().filter_map(|c| {
            let id = self.firmware.get(c.slot)?.id;
            let root = format!("/redfish/v1/Chassis/{id}_ERoT#/Oem/Nvidia/BackgroundCopyStatus");
            Some(Task {
                uri: prefixed(&root),
                state: TaskState::InProgress,
                raw_state: "InProgress".into(),
                percent: None,
                message: None,
            })
        });
        tasks.chain(copies).collect()
    }
}

fn silent() -> Fault {
    let why = format!("controller `{BASEBOARD}`: it refuses connections");
    Fault::no_answer(Channel::Bmc, why)
}

/// Stands for all its components.
fn unread_components() -> Component {
    Component { id: prefixed(""), unread: Some(Box::new(silent())), ..Component::default() }
}

/// Stands for all its tasks: work may go on there.
fn unread_tasks() -> Task {
    let Fault { code, message, .. } = silent();
    Task {
        uri: prefixed(""),
        state: TaskState::Unread,
        raw_state: code.to_string(),
        percent: None,
        message: Some(message),
    }
}

impl VirtualMachine {
    /// Adds to a report of the host's BMC what was asked of the baseboard's.
    pub(in crate::sim::physics) fn read_baseboard(
        &self,
        now: EngineTime,
        set: ProbeSet,
        handle: Option<&str>,
        report: &mut Report,
    ) {
        let Some(board) = &self.baseboard else { return };
        let answers = board.answers(now);
        if set.has(ProbeSet::FIRMWARE)
            && let Read::Seen(own) = &mut report.firmware
        {
            if answers {
                own.extend(board.components());
            } else {
                own.push(unread_components());
            }
        }
        if !set.has(ProbeSet::TASKS) {
            return;
        }
        // Who follows a task there asks for nothing else, and asks nobody else.
        if let Some(handle) = handle.filter(|h| on_board(h).is_some()) {
            report.tasks = if answers { Ok(board.task_list(now)) } else { Err(silent()) }.into();
            if let Read::Seen(tasks) = &mut report.tasks
                && tasks.iter().any(|t| t.uri == handle)
            {
                tasks.retain(|t| t.uri == handle);
                // As long as its task tells how an update stands, nobody asks for versions.
                report.firmware = Read::NotAsked;
            }
            return;
        }
        if let Read::Seen(own) = &mut report.tasks {
            if answers {
                own.extend(board.task_list(now));
            } else {
                own.push(unread_tasks());
            }
        }
    }

    /// The baseboard's BMC alone does not answer this probe.
    pub fn hide_baseboard(&self, handle: Option<&str>, report: &mut Report) {
        if let Read::Seen(all) = &mut report.firmware {
            all.retain(|c| on_board(&c.id).is_none());
            all.push(unread_components());
        }
        match &mut report.tasks {
            Read::NotAsked => {}
            tasks if self.is_on_baseboard(handle) => *tasks = Read::Failed(silent()),
            Read::Seen(all) => {
                all.retain(|t| on_board(&t.uri).is_none());
                all.push(unread_tasks());
            }
            Read::Failed(_) => {}
        }
    }

    /// Does a probe for this task go to the baseboard's BMC alone?
    pub fn is_on_baseboard(&self, handle: Option<&str>) -> bool {
        self.baseboard.is_some() && handle.is_some_and(|h| on_board(h).is_some())
    }

    /// Why nothing can be written to the baseboard, or it is not the one of the inventory.
    pub(in crate::sim::physics) fn baseboard_refusal(
        &self,
        now: EngineTime,
    ) -> Option<Result<String, Fault>> {
        let Some(board) = &self.baseboard else {
            return Some(Ok(format!("no controller `{BASEBOARD}`")));
        };
        if !board.answers(now) {
            return Some(Err(silent()));
        }
        let expected = serial(&self.delivered);
        (board.serial != expected).then(|| Ok(format!("serial {}", board.serial)))
    }
}
