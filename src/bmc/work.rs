//! Updates and copies that no task shows: iLO says in its update service what it flashes, HGX baseboards
//! on the chassis of each root of trust that it copies an image (field notes §3.1). Where to look is quirk
//! data; here it becomes a task, so that nothing is flashed, reset or powered off meanwhile.

use super::conn::Bmc;
use super::{fault, firmware, json};
use crate::model::facts::{Task, TaskState};
use crate::model::quirks::{Work, WorkOn};
use crate::model::{Fault, FaultClass};
use serde_json::Value;

/// What goes on now, and no more: what ended stays written there until the next time.
pub(super) async fn under_way(bmc: &Bmc<'_>) -> Result<Vec<Task>, Fault> {
    let mut out = Vec::new();
    for work in of(bmc).await? {
        for (path, v) in documents(bmc, &work).await? {
            let task = read(&path, &v, &work);
            out.extend(task.filter(|t| t.state == TaskState::InProgress));
        }
    }
    Ok(out)
}

/// The work that was listed under this name. `Err(handle)`: it is none of these.
pub(super) async fn named<'h>(
    bmc: &Bmc<'_>,
    handle: &'h str,
) -> Result<Result<Option<Task>, &'h str>, Fault> {
    let Some((path, property)) = handle.split_once('#') else { return Ok(Err(handle)) };
    let all = of(bmc).await?;
    let Some(work) = all.iter().find(|w| w.property == property) else { return Ok(Err(handle)) };
    match bmc.get(path).await {
        Ok(v) => Ok(Ok(read(path, &v, work))),
        Err(f) if f.class == FaultClass::Unsupported => Ok(Ok(None)),
        Err(f) => Err(f),
    }
}

/// Nothing is asked of a BMC whose vendor hides none.
async fn of(bmc: &Bmc<'_>) -> Result<Vec<Work>, Fault> {
    if !bmc.edge.table().hides_work(&bmc.root().await?.subject) {
        return Ok(vec![]);
    }
    Ok(bmc.quirks().await?.update.works.clone())
}

async fn documents(bmc: &Bmc<'_>, work: &Work) -> Result<Vec<(String, Value)>, Fault> {
    let WorkOn::Chassis(member) = &work.on else {
        let path = firmware::update_service_link(bmc).await;
        let Some(path) = there(path)? else { return Ok(vec![]) };
        return Ok(there(bmc.get(&path).await)?.map(|v| (path, v)).into_iter().collect());
    };
    let Some(link) = bmc.root().await?.chassis.clone() else { return Ok(vec![]) };
    let members = there(bmc.members(&link, false).await)?.unwrap_or_default();
    if members.is_empty() {
        // No board is without a chassis: its list is not filled yet, as after a reset of the BMC.
        return Err(fault::not_redfish(&link, "no chassis is listed, so none says what it copies"));
    }
    let paths = members.iter().filter_map(json::link_of);
    let paths = paths.filter(|p| member.is_match(json::last_segment(p))).collect();
    let mut out = Vec::new();
    for (path, v) in bmc.get_all(paths).await? {
        // One that can't be read may be copying.
        out.extend(there(v)?.map(|v| (path, v)));
    }
    Ok(out)
}

/// What is listed and is not there has no work.
fn there<T>(read: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match read {
        Ok(v) => Ok(Some(v)),
        Err(f) if f.class == FaultClass::Unsupported => Ok(None),
        Err(f) => Err(f),
    }
}

/// `None`: it says nothing of any.
fn read(path: &str, v: &Value, work: &Work) -> Option<Task> {
    let keys: Vec<&str> = work.property.split('/').filter(|k| !k.is_empty()).collect();
    let said = json::text(v, &keys)?;
    let is = |words: &[String]| words.iter().any(|w| w.eq_ignore_ascii_case(&said));
    if is(&work.idle) {
        return None;
    }
    let state = if is(&work.failed) {
        TaskState::Failed
    } else if is(&work.done) {
        TaskState::Succeeded
    } else {
        // A word that nobody knows: rather waited for than broken.
        TaskState::InProgress
    };
    Some(Task {
        uri: format!("{}#{}", path.trim_end_matches('/'), work.property),
        state,
        raw_state: json::excerpt(&said, 60),
        percent: None,
        message: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_property_says_is_a_tasks_state() {
        let words = |all: &[&str]| all.iter().map(ToString::to_string).collect();
        let work = Work {
            on: WorkOn::Service,
            property: "/Oem/Hpe/State".into(),
            idle: words(&["Idle"]),
            done: words(&["Complete"]),
            failed: words(&["Error"]),
        };
        let state = |v: Value| read("/u/", &v, &work).map(|t| (t.uri, t.state));
        let uri = || "/u#/Oem/Hpe/State".to_string();
        for (said, wanted) in [
            ("Writing", Some((uri(), TaskState::InProgress))),
            ("Something else", Some((uri(), TaskState::InProgress))),
            ("COMPLETE", Some((uri(), TaskState::Succeeded))),
            ("Error", Some((uri(), TaskState::Failed))),
            ("Idle", None),
        ] {
            assert_eq!(state(json!({"Oem": {"Hpe": {"State": said}}})), wanted, "{said}");
        }
        for v in [json!({}), json!({"Oem": null}), json!({"Oem": {"Hpe": {"State": null}}})] {
            assert_eq!(state(v.clone()), None, "{v}");
        }
    }
}
