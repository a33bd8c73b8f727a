//! A BMC's job queue (DSP0268 JobService, Job; field notes §6.15): what fills it when it takes no more,
//! and a lifecycle controller that is not ready. Jobs are only read: what others have queued is never
//! deleted here.

use super::conn::Bmc;
use super::{fault, json};
use crate::model::{Fault, FaultClass, Outcome};
use serde_json::Value;

/// A full queue is looked at again after this long where the BMC says nothing of it.
const AGAIN_MS: u64 = 600_000;
/// Jobs that a text for people names.
const NAMED: usize = 5;
/// Jobs that are read for it at most.
const READ: usize = 64;

/// Turned down for want of room is "not now", and no word on the image: who fills the queue is said.
pub(super) async fn explained(bmc: &Bmc<'_>, outcome: Outcome) -> Outcome {
    let Outcome::Failed { fault } = &outcome else { return outcome };
    if !is_full(fault) {
        return outcome;
    }
    let listed = match unfinished(bmc).await {
        Ok(jobs) if jobs.is_empty() => "none of its jobs can be seen".to_string(),
        Ok(jobs) => {
            let more = jobs.len().saturating_sub(NAMED);
            let named = jobs[..jobs.len().min(NAMED)].join(", ");
            if more > 0 { format!("{named} and {more} more") } else { named }
        }
        Err(f) => format!("its jobs can't be read: {f}"),
    };
    let full = fault::new(
        FaultClass::Throttled,
        Fault::QUEUE_FULL,
        format!("the BMC's job queue is full; nothing was started ({listed})"),
    )
    .retry_after(fault.retry_after_ms.unwrap_or(AGAIN_MS))
    .evidence(fault.evidence.clone().unwrap_or_else(|| fault.message.clone()))
    .hint("it is tried again, and no job of others is deleted: let them end (some wait for a host reboot), or delete on the BMC what nobody wants");
    Outcome::Failed { fault: full }
}

fn is_full(fault: &Fault) -> bool {
    const IDS: [&str; 3] = ["createlimitreachedforresource", "jobqueuefull", "queuefull"];
    let said = fault.evidence.as_deref().unwrap_or_default().to_ascii_lowercase();
    let words = ["job queue", "maximum number of jobs"].iter().any(|w| said.contains(w));
    (IDS.iter().any(|id| said.contains(id)) || words && said.contains("full"))
        && !matches!(fault.class, FaultClass::Auth | FaultClass::Identity)
}

/// Jobs that have not ended, in words.
async fn unfinished(bmc: &Bmc<'_>) -> Result<Vec<String>, Fault> {
    let root = bmc.get("/redfish/v1/").await?;
    let Some(service) = json::link(&root, &["JobService"]) else { return Ok(vec![]) };
    let service = bmc.get(&service).await?;
    let Some(list) = json::link(&service, &["Jobs"]) else { return Ok(vec![]) };
    let paths: Vec<String> =
        bmc.members(&list, false).await?.iter().filter_map(json::link_of).collect();
    let newest = paths.len().saturating_sub(READ);
    let read = bmc.get_all(paths[newest..].to_vec()).await?;
    Ok(read.into_iter().filter_map(|(path, v)| in_words(&path, &v.ok()?)).collect())
}

/// `None`: it has ended.
fn in_words(path: &str, v: &Value) -> Option<String> {
    const OVER: [&str; 6] =
        ["completed", "cancelled", "exception", "failed", "interrupted", "completedwitherrors"];
    let state = json::text(v, &["JobState"]).unwrap_or_else(|| "in an unknown state".into());
    if OVER.contains(&state.to_ascii_lowercase().as_str()) {
        return None;
    }
    let id = json::text(v, &["Id"]).unwrap_or_else(|| json::last_segment(path).to_string());
    let name = json::text(v, &["Name"]).map(|n| format!(" `{}`", json::excerpt(&n, 40)));
    Some(format!(
        "{}{} {}",
        json::excerpt(&id, 40),
        name.unwrap_or_default(),
        json::excerpt(&state, 30)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_that_has_ended_fills_nothing() {
        let words = |v: Value| in_words("/redfish/v1/JobService/Jobs/7", &v);
        assert_eq!(words(json!({"JobState": "Completed"})), None);
        assert_eq!(words(json!({"JobState": "CompletedWithErrors"})), None);
        let one = json!({"Id": "JID_1", "Name": "Configure: BIOS", "JobState": "Scheduled"});
        assert_eq!(words(one).as_deref(), Some("JID_1 `Configure: BIOS` Scheduled"));
        assert_eq!(words(json!({})).as_deref(), Some("7 in an unknown state"));
    }

    #[test]
    fn a_full_queue_is_told_from_a_bad_image() {
        let said = |text: &str| {
            is_full(&fault::precondition("rejected", "400").evidence(text.to_string()))
        };
        assert!(said("Base.1.18.CreateLimitReachedForResource: no more"));
        assert!(said("The job queue is full."));
        assert!(!said("Update.1.0.InvalidImage: the job can't use it"));
        assert!(!said(""));
    }
}
