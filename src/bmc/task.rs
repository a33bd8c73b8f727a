//! Tasks of the BMC (DSP0268 TaskService, Task; field notes R13–R16), and the handle that an
//! update's answer leaves.

use super::conn::{Bmc, List};
use super::discover::is_fatal;
use super::http::{Answer, Body};
use super::{fault, json, work};
use crate::model::facts::{Task, TaskState};
use crate::model::{Fault, FaultClass};
use serde_json::Value;

/// With a handle: that task, and the list only where it is gone, because then one under another
/// name may be it. Without: the whole list.
pub(super) async fn read(bmc: &Bmc<'_>, handle: Option<&str>) -> Result<Vec<Task>, Fault> {
    let Some(handle) = handle else { return listed(bmc).await };
    if let Some(task) = one(bmc, handle).await? {
        return Ok(vec![task]);
    }
    let mut tasks = match listed(bmc).await {
        Ok(tasks) => tasks,
        Err(f) if f.class == FaultClass::Unsupported => vec![],
        Err(f) => return Err(f),
    };
    if let Some(known) = tasks.iter_mut().find(|t| json::uri_eq(&t.uri, handle)) {
        // Spelt as the handle was journaled, so that it is found by it.
        known.uri = handle.to_string();
    }
    Ok(tasks)
}

/// All that goes on or has ended: the service's tasks, and work that it lists nowhere.
async fn listed(bmc: &Bmc<'_>) -> Result<Vec<Task>, Fault> {
    let unlisted = work::under_way(bmc).await?;
    match in_service(bmc).await {
        Ok(mut tasks) => {
            tasks.extend(unlisted);
            Ok(tasks)
        }
        Err(f) if f.class == FaultClass::Unsupported && !unlisted.is_empty() => Ok(unlisted),
        Err(f) => Err(f),
    }
}

async fn in_service(bmc: &Bmc<'_>) -> Result<Vec<Task>, Fault> {
    let read = match bmc.conn.list(List::Tasks) {
        None => None,
        Some(list) => match bmc.resources(&list).await {
            // It may have moved: found anew.
            Err(f) if f.class == FaultClass::Unsupported => None,
            read => Some(read?),
        },
    };
    let read = match read {
        Some(read) => read,
        None => {
            let none = || fault::unsupported("no-task-service", "the BMC has no task service");
            let root = bmc.root().await?;
            let Some(service) = &root.tasks else { return Err(none()) };
            let service = bmc.get(service).await?;
            let Some(list) = json::link(&service, &["Tasks"]) else { return Err(none()) };
            let read = bmc.resources(&list).await?;
            bmc.conn.keep_list(List::Tasks, &list);
            read
        }
    };
    let mut out = Vec::new();
    for (path, v) in read {
        match v {
            Ok(v) => out.push(followed(bmc, &path, &v).await?),
            // Listed, and gone since.
            Err(f) if f.class == FaultClass::Unsupported => {}
            // It may be the one that runs: nobody flashes or resets over a task that can't be read.
            Err(f) => return Err(f),
        }
    }
    Ok(out)
}

/// The task, or the job that it says it has become (Dell): a task that has completed by handing its
/// work on has done nothing yet (R13).
async fn followed(bmc: &Bmc<'_>, path: &str, v: &Value) -> Result<Task, Fault> {
    let own = task(path, v);
    let Some(job) = json::messages(v).into_iter().find_map(|m| {
        let moved = m.id.eq_ignore_ascii_case("OperationTransitionedToJob");
        moved.then(|| m.args.into_iter().next())?
    }) else {
        return Ok(own);
    };
    let Some(job) = bmc.conn.path(&job).filter(|j| !json::uri_eq(j, path)) else { return Ok(own) };
    match bmc.get(&job).await {
        // Under the task's name, which is the one that is journaled.
        Ok(v) => Ok(task(path, &v)),
        Err(f) if is_fatal(&f) => Err(f),
        // The job is gone or broken: neither success nor failure (R15), versions decide.
        Err(_) => {
            Ok(Task { state: TaskState::InProgress, raw_state: "Transitioned".into(), ..own })
        }
    }
}

/// The task or task monitor at `handle`. Gone means neither success nor failure (R15).
async fn one(bmc: &Bmc<'_>, handle: &str) -> Result<Option<Task>, Fault> {
    let handle = match work::named(bmc, handle).await? {
        Ok(known) => return Ok(known),
        Err(handle) => handle,
    };
    let answer = bmc.get_answer(handle).await?;
    if matches!(answer.status, 404 | 410) {
        return Ok(None);
    }
    if !answer.ok() {
        return Err(bmc.scrubbed(fault::of_status(&format!("GET {handle}"), &answer)));
    }
    if let Body::Json(v) = &answer.body
        && v.get("TaskState").is_some()
    {
        return followed(bmc, handle, v).await.map(Some);
    }
    if let Body::Json(v) = &answer.body
        && v.get("JobState").is_some()
    {
        return Ok(Some(task(handle, v)));
    }
    // A task monitor (DSP0266 §"Asynchronous operations"): 202 while it works, then the
    // operation's own answer.
    let (state, raw) = match (answer.status, &answer.body) {
        (202, _) => (TaskState::InProgress, "Running"),
        (_, Body::Empty) => (TaskState::Succeeded, "Completed"),
        // Half a document, or none: it may be that of a task that runs.
        _ => {
            let answer = fault::document(&format!("GET {handle}"), answer);
            answer.map_err(|f| bmc.scrubbed(f))?;
            (TaskState::Succeeded, "Completed")
        }
    };
    Ok(Some(Task {
        uri: handle.to_string(),
        state,
        raw_state: raw.to_string(),
        percent: None,
        message: None,
    }))
}

fn task(path: &str, v: &Value) -> Task {
    // A job's words are other ones (DSP0268 Job; Dell's own `JobState`).
    let of = |task, job| json::text(v, &[task]).or_else(|| json::text(v, &[job]));
    let raw = of("TaskState", "JobState").unwrap_or_default();
    let status = of("TaskStatus", "JobStatus");
    let messages = json::messages(v);
    let critical = messages.iter().any(|m| m.severity.eq_ignore_ascii_case("critical"));
    let bad = status
        .as_deref()
        .is_some_and(|s| !s.eq_ignore_ascii_case("ok") && !s.eq_ignore_ascii_case("warning"));
    let state = match raw.as_str() {
        "Completed" if !bad && !critical => TaskState::Succeeded,
        "Completed"
        | "CompletedWithErrors"
        | "Exception"
        | "Killed"
        | "Cancelled"
        | "Interrupted"
        | "Failed"
        | "RebootFailed" => TaskState::Failed,
        _ => TaskState::InProgress,
    };
    // Of a failure the critical message, else the last: BMCs append.
    let said = messages
        .iter()
        .find(|m| m.severity.eq_ignore_ascii_case("critical"))
        .or_else(|| messages.iter().rev().find(|m| !m.text.is_empty()))
        .map(|m| if m.text.is_empty() { m.id.clone() } else { m.text.clone() })
        // Dell's jobs have one message, as text.
        .or_else(|| json::text(v, &["Message"]));
    Task {
        uri: path.to_string(),
        state,
        raw_state: json::excerpt(&raw, 60),
        percent: json::at(v, &["PercentComplete"])
            .and_then(Value::as_u64)
            .and_then(|p| u8::try_from(p.min(100)).ok()),
        message: said.map(|m| json::excerpt(&m, 200)),
    }
}

/// Where an accepted update is followed (R13). A task in the body comes before the Location
/// header: that names a monitor on some, which is in no list.
pub(super) fn handle(bmc: &Bmc<'_>, answer: &Answer) -> Option<String> {
    let body = answer.json();
    let is_task = body.get("TaskState").is_some()
        || json::text(body, &["@odata.type"]).is_some_and(|t| t.starts_with("#Task."));
    let own = if is_task { json::text(body, &["@odata.id"]) } else { None };
    own.or_else(|| answer.location.clone())
        .or_else(|| json::text(body, &["@odata.id"]).filter(|l| names_task(l)))
        .or_else(|| json::text(body, &["TaskMonitor"]))
        .or_else(|| {
            json::messages(body)
                .into_iter()
                .flat_map(|m| m.args)
                .find(|a| (a.starts_with('/') || a.starts_with("http")) && names_task(a))
        })
        .or_else(|| {
            let id = job_id(&body.to_string())?;
            Some(format!("/redfish/v1/TaskService/Tasks/{id}"))
        })
        .and_then(|link| bmc.conn.path(&link))
}

fn names_task(link: &str) -> bool {
    let link = link.to_ascii_lowercase();
    link.contains("/task") || link.contains("/jobs/")
}

/// Dell's job id, `JID_` and digits, wherever it is mentioned.
fn job_id(text: &str) -> Option<String> {
    let rest = &text[text.find("JID_")? + 4..];
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!digits.is_empty()).then(|| format!("JID_{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn states_are_read_by_state_status_and_messages() {
        use TaskState::*;
        let cases = [
            (json!({"TaskState": "New"}), InProgress),
            (json!({"TaskState": "Downloading"}), InProgress),
            (json!({"TaskState": null}), InProgress),
            (json!({"TaskState": "UserIntervention"}), InProgress),
            (json!({"TaskState": "Completed"}), Succeeded),
            (json!({"TaskState": "Completed", "TaskStatus": "Warning"}), Succeeded),
            (json!({"TaskState": "Completed", "TaskStatus": "Critical"}), Failed),
            (
                json!({"TaskState": "Completed", "TaskStatus": "OK",
                       "Messages": [{"Severity": "Critical", "Message": "no"}]}),
                Failed,
            ),
            (json!({"TaskState": "Exception"}), Failed),
            (json!({"TaskState": "Killed"}), Failed),
            (json!({"TaskState": "Cancelled"}), Failed),
            (json!({"JobState": "Scheduled"}), InProgress),
            (json!({"JobState": "CompletedWithErrors"}), Failed),
            (json!({"JobState": "Completed", "JobStatus": "OK"}), Succeeded),
        ];
        for (v, state) in cases {
            assert_eq!(task("/t", &v).state, state, "{v}");
        }
        assert_eq!(task("/t", &json!({"PercentComplete": 400})).percent, Some(100));
        assert_eq!(task("/t", &json!({"PercentComplete": -1})).percent, None);
    }

    #[test]
    fn job_ids_are_found() {
        assert_eq!(job_id("x JID_123456 y").as_deref(), Some("JID_123456"));
        assert_eq!(job_id("JID_"), None);
        assert_eq!(job_id("none"), None);
    }
}
