//! Tasks (DSP0268 TaskService, Task): updates and volumes. All are gone after a restart of the BMC.

use super::{V1, collection, date, healthy, link, typed};
use crate::model::EngineTime;
use crate::sim::physics::{Chore, VirtualMachine};
use serde_json::{Value, json};

pub(super) fn resource(vm: &VirtualMachine, now: EngineTime, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(typed(
            "TaskService",
            "TaskService",
            json!({
                "Id": "TaskService", "Name": "Task Service", "ServiceEnabled": true,
                "CompletedTaskOverWritePolicy": "Oldest", "LifeCycleEventOnTaskStateChange": false,
                "Status": healthy(), "Tasks": link("TaskService/Tasks"),
            }),
        )),
        ["Tasks"] => {
            let updates = vm.tasks.iter().map(|t| t.id);
            let chores = vm.board.chores.iter().map(|c| c.id);
            let mut ids: Vec<u32> = updates.chain(chores).collect();
            ids.sort_unstable();
            Some(collection("TaskService/Tasks", "Task", ids.iter().map(u32::to_string)))
        }
        ["Tasks", id] => task(vm, now, id),
        _ => None,
    }
}

pub(in crate::sim::serve) fn task(vm: &VirtualMachine, now: EngineTime, id: &str) -> Option<Value> {
    let id: u32 = id.parse().ok()?;
    match vm.board.chores.iter().find(|c| c.id == id) {
        Some(chore) => Some(of_chore(vm, chore, now)),
        None => update(vm, now, id),
    }
}

fn update(vm: &VirtualMachine, now: EngineTime, id: u32) -> Option<Value> {
    let task = vm.tasks.iter().find(|t| t.id == id)?;
    let shown = vm.task_list(now).into_iter().find(|t| t.uri == task.uri())?;
    let failed = shown.message.is_some();
    let messages: Vec<Value> = (shown.message.iter())
        .map(|m| {
            json!({
                "MessageId": "Update.1.0.ApplyFailed", "MessageSeverity": "Critical",
                "Severity": "Critical", "Message": m, "MessageArgs": [],
                "Resolution": "Check the image and try again.",
            })
        })
        .collect();
    let mut body = frame(vm, id, "Firmware update", task.started);
    body["TaskState"] = shown.raw_state.into();
    body["TaskStatus"] = if failed { "Critical" } else { "OK" }.into();
    body["PercentComplete"] = shown.percent.into();
    body["Messages"] = messages.into();
    if task.ended.is_some() {
        body["EndTime"] = date(vm, task.ends).into();
    }
    Some(body)
}

fn of_chore(vm: &VirtualMachine, chore: &Chore, now: EngineTime) -> Value {
    let ended = chore.ends <= now;
    let span = chore.ends.since(chore.started).max(1);
    let mut body = frame(vm, chore.id, chore.name, chore.started);
    body["TaskState"] = match (chore.ends, ended) {
        (EngineTime::NEVER, _) => "Pending",
        (_, true) if chore.fails => "Exception",
        (_, true) => "Completed",
        (_, false) => "Running",
    }
    .into();
    body["TaskStatus"] = if ended && chore.fails { "Critical" } else { "OK" }.into();
    let percent = (now.since(chore.started) * 100 / span).min(if ended { 100 } else { 99 });
    body["PercentComplete"] = percent.into();
    body["Messages"] = json!([]);
    if ended {
        body["EndTime"] = date(vm, chore.ends).into();
    }
    if ended && !chore.fails {
        body["Links"] = json!({"CreatedResources": [link(&chore.leaves)]});
    }
    body
}

fn frame(vm: &VirtualMachine, id: u32, name: &str, started: EngineTime) -> Value {
    typed(
        &format!("TaskService/Tasks/{id}"),
        "Task",
        json!({
            "Id": id.to_string(), "Name": name, "StartTime": date(vm, started),
            "TaskMonitor": format!("{V1}/TaskService/TaskMonitors/{id}"), "HidePayload": true,
        }),
    )
}
