//! Did the order for a volume take hold?

use super::{
    Broke, Found, Happened, Input, Judgement, OWN_LAG_MS, OpenAction, Still, Unread, follow,
    seen_at,
};
use crate::model::facts::{Read, Task, TaskState};
use crate::model::{Fault, FaultClass};

/// Is the volume there, on its way, or was it never made? The BMC's volumes are the truth; its task only
/// tells how long to wait for them.
pub(super) fn judge(
    i: &Input<'_>,
    open: &OpenAction,
    raid: &str,
    drives: &[String],
    late: bool,
    stall_ms: u64,
) -> Judgement {
    let storage = match &i.report.storage {
        Read::Seen(storage) => storage,
        Read::Failed(fault) => return Unread(fault.clone()),
        Read::NotAsked => return Still("the BMC's volumes"),
    };
    if storage.made(raid, drives).is_some() {
        return Happened("the BMC shows the volume".into());
    }
    let none = Vec::new();
    let tasks = match &i.report.tasks {
        Read::Seen(tasks) => tasks,
        Read::Failed(f) if f.class == FaultClass::Unsupported => &none,
        Read::Failed(fault) => return Unread(fault.clone()),
        Read::NotAsked => return Still("the task list"),
    };
    let fresh = |t: &&Task| !open.baseline.tasks.contains(&t.uri);
    match &open.handle {
        Some(handle) => match tasks.iter().find(|t| t.is_named(handle)) {
            Some(task) if task.waits_for_post() => {
                Happened("taken; the next POST makes the volume".into())
            }
            Some(task) if task.state == TaskState::Succeeded => {
                Happened("its task completed; the volumes will decide".into())
            }
            Some(task) => match follow(i, open, task, stall_ms) {
                Broke(fault) => Broke(Fault { code: "volume-job-failed".into(), ..fault }),
                judged => judged,
            },
            None if i.now.since(seen_at(i, open)) > stall_ms.min(OWN_LAG_MS) => {
                Happened("its task is gone from the list; the volumes will decide".into())
            }
            None => Still("the task to be listed again"),
        },
        // Its answer was lost, or named no task: one that was not there before is ours.
        None => match tasks.iter().find(fresh) {
            Some(task) => Found(task.uri.clone()),
            // It may wait for a POST where no list shows it: one tells, and nothing is sent twice.
            None if late => Happened("perhaps taken, no task was named; a POST will tell".into()),
            None => Still("the volume or its task to be shown"),
        },
    }
}
