//! Tasks as vendors have them (field notes R13–R16, §6 line 9): the clean tree's task is the truth,
//! and this is what is told of it.

use crate::sim::rng::Rng;
use crate::sim::serve::profile::{Accept, Profile, TaskMode};
use crate::sim::serve::seat::Seat;
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

/// What is told of one task.
#[derive(Debug)]
pub(super) enum Told {
    Shown,
    Gone,
}

/// The mode of a task: drawn once, by machine and number.
pub(super) fn mode(seat: &Seat, seed: u64, id: &str) -> TaskMode {
    let modes = &seat.profile.tasks.modes;
    let all: u64 = modes.values().map(|n| u64::from(*n)).sum();
    let number: u64 = id.parse().unwrap_or(0);
    let stream = u64::from(u32::from(seat.address)) << 32 | number & 0xffff_ffff;
    let mut left = Rng::stream(seed ^ 0x7a5c, stream).below(all);
    for (mode, weight) in modes {
        let weight = u64::from(*weight);
        if left < weight {
            return *mode;
        }
        left -= weight;
    }
    TaskMode::Normal
}

fn is_running(task: &Value) -> bool {
    matches!(task["TaskState"].as_str(), Some("Running" | "Pending"))
}

/// Changes a task into what this vendor shows of it.
pub(super) fn tell(profile: &Profile, mode: TaskMode, id: &str, task: &mut Value) -> Told {
    let running = is_running(task);
    match mode {
        TaskMode::Normal => {}
        TaskMode::GoneWhenDone if !running => return Told::Gone,
        TaskMode::GoneWhenDone => {}
        TaskMode::Stuck => {
            task["TaskState"] = "Running".into();
            task["TaskStatus"] = "OK".into();
            task["PercentComplete"] = task["PercentComplete"].as_u64().unwrap_or(99).min(99).into();
            task["Messages"] = json!([]);
            if let Some(task) = task.as_object_mut() {
                task.remove("EndTime");
            }
        }
        TaskMode::FullWhileRunning if running => task["PercentComplete"] = 100.into(),
        TaskMode::NewFirst
            if task["TaskState"] == "Running"
                && task["PercentComplete"].as_u64().unwrap_or(0) < 34 =>
        {
            task["TaskState"] = "New".into();
            task["PercentComplete"] = 0.into();
        }
        TaskMode::FullWhileRunning | TaskMode::NewFirst => {}
        TaskMode::NoPercent => task["PercentComplete"] = 0.into(),
        TaskMode::ToJob => {
            task["TaskState"] = "Completed".into();
            task["TaskStatus"] = "OK".into();
            task["PercentComplete"] = 100.into();
            let job = format!("/redfish/v1/JobService/Jobs/{}{id}", profile.ids.task_prefix);
            task["Messages"] = json!([{
                "MessageId": "Update.1.0.OperationTransitionedToJob",
                "Message": format!("The update operation has transitioned to the job at URI '{job}'."),
                "MessageArgs": [job], "Severity": "OK",
            }]);
        }
    }
    if profile.tasks.fails_completed && task["TaskState"] == "Exception" {
        task["TaskState"] = "Completed".into();
        task["TaskStatus"] = "Critical".into();
        task["PercentComplete"] = 100.into();
    }
    Told::Shown
}

/// The job that a task became, made from the task as it truly is.
pub(super) fn job(profile: &Profile, id: &str, task: &Value) -> Value {
    let state = match task["TaskState"].as_str() {
        Some("Completed") => "Completed",
        Some("Exception") => "Exception",
        _ => "Running",
    };
    let name = format!("{}{id}", profile.ids.task_prefix);
    json!({
        "@odata.id": format!("/redfish/v1/JobService/Jobs/{name}"),
        "@odata.type": "#Job.v1_2_4.Job", "Id": name, "Name": "Firmware update",
        "JobState": state, "JobStatus": task["TaskStatus"],
        "PercentComplete": task["PercentComplete"], "StartTime": task["StartTime"],
        "EndTime": task["EndTime"], "Messages": task["Messages"],
    })
}

/// An update's acceptance as this vendor answers it.
pub(super) fn accept(
    profile: &Profile,
    status: &mut StatusCode,
    headers: &mut HeaderMap,
    body: &mut Option<Value>,
) {
    let task = body.as_ref().and_then(|b| b["@odata.id"].as_str()).map(String::from);
    match profile.tasks.accept {
        Accept::Location => {}
        Accept::Body => {
            headers.remove(header::LOCATION);
        }
        Accept::Message => {
            headers.remove(header::LOCATION);
            *status = StatusCode::OK;
            *body = Some(json!({"Accepted": {
                "code": "Base.v1_4_0.Accepted",
                "Message": "Successfully Accepted Request. Please see the location header and \
                            ExtendedInfo for more information.",
                "@Message.ExtendedInfo": [{
                    "MessageId": "SMC.1.0.OemSimpleupdateAcceptedMessage",
                    "Severity": "Ok", "Resolution": "No resolution was required.",
                    "Message": "Please also check Task Resource /redfish/v1/TaskService/Tasks to see more information.",
                    "MessageArgs": [task.unwrap_or_default()],
                    "RelatedProperties": ["EnterpriseAccepted"],
                }],
            }}));
        }
        Accept::Nothing => {
            headers.remove(header::LOCATION);
            *status = StatusCode::NO_CONTENT;
            *body = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: &str, percent: u64) -> Value {
        json!({"TaskState": state, "TaskStatus": "OK", "PercentComplete": percent, "Messages": []})
    }

    #[test]
    fn each_mode_tells_the_truth_in_its_own_way() {
        let plain = Profile::default();
        let told = |mode, state, percent| {
            let mut v = task(state, percent);
            match tell(&plain, mode, "7", &mut v) {
                Told::Gone => "gone".to_string(),
                Told::Shown => {
                    format!("{} {}", v["TaskState"].as_str().unwrap_or("?"), v["PercentComplete"])
                }
            }
        };
        use TaskMode::*;
        for (mode, state, percent, shown) in [
            (Normal, "Running", 40, "Running 40"),
            (GoneWhenDone, "Running", 40, "Running 40"),
            (GoneWhenDone, "Completed", 100, "gone"),
            (Stuck, "Completed", 100, "Running 99"),
            (FullWhileRunning, "Running", 40, "Running 100"),
            (FullWhileRunning, "Completed", 100, "Completed 100"),
            (NewFirst, "Running", 10, "New 0"),
            (NewFirst, "Running", 40, "Running 40"),
            (NoPercent, "Running", 40, "Running 0"),
            (ToJob, "Running", 40, "Completed 100"),
        ] {
            assert_eq!(told(mode, state, percent), shown, "{mode:?}");
        }
        let dell = Profile::named("dell").expect("ships");
        let mut v = task("Exception", 30);
        tell(&dell, Normal, "7", &mut v);
        assert_eq!((&v["TaskState"], &v["TaskStatus"]), (&json!("Completed"), &json!("Critical")));
        assert_eq!(job(&dell, "7", &task("Running", 3))["JobState"], "Running");
    }

    #[test]
    fn an_acceptance_names_its_task_in_the_body_in_a_message_or_not_at_all() {
        let accepted = |accept| {
            let profile = Profile {
                tasks: crate::sim::serve::profile::Tasks { accept, ..Default::default() },
                ..Profile::default()
            };
            let (mut status, mut headers) = (StatusCode::ACCEPTED, HeaderMap::new());
            headers.insert(header::LOCATION, "/t/1".parse().expect("a header"));
            let mut body = Some(json!({"@odata.id": "/t/1"}));
            super::accept(&profile, &mut status, &mut headers, &mut body);
            (status.as_u16(), headers.contains_key(header::LOCATION), body)
        };
        assert!(matches!(accepted(Accept::Location), (202, true, Some(_))));
        assert!(matches!(accepted(Accept::Body), (202, false, Some(_))));
        assert!(matches!(accepted(Accept::Nothing), (204, false, None)));
        let (status, location, body) = accepted(Accept::Message);
        assert_eq!((status, location), (200, false));
        let args = &body.unwrap_or_default()["Accepted"]["@Message.ExtendedInfo"][0]["MessageArgs"];
        assert_eq!(args, &json!(["/t/1"]));
    }
}
