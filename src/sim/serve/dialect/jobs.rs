//! A vendor's job queue (field notes §6.15): what it holds, when it takes no more, and when its
//! controller is not ready for any.

use super::say;
use crate::model::EngineTime;
use crate::sim::physics::{BmcTask, HostState};
use crate::sim::rng::Rng;
use crate::sim::serve::profile::{Jobs, Said};
use crate::sim::serve::seat::{Body, Seat};
use serde_json::{Value, json};

/// A job that somebody else put into the queue: it waits for a reboot that nobody makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sim::serve) struct Queued {
    pub(in crate::sim::serve) id: u32,
}

/// Why this BMC takes no job now.
pub(in crate::sim::serve) fn refused(seat: &Seat, seed: u64, now: EngineTime) -> Option<Said> {
    let jobs = seat.profile.jobs.as_ref()?;
    seat.with(now, |b| {
        if is_busy(jobs, b, seed, now) {
            return Some(jobs.busy.clone().unwrap_or_else(|| {
                let mut said = say::base(
                    503,
                    "ServiceTemporarilyUnavailable",
                    "The service is temporarily unavailable.  Retry in 60 seconds.",
                );
                said.args = vec!["60".into()];
                said
            }));
        }
        b.vm.holds_updates = jobs.strict_order && !b.jobs.is_empty();
        (jobs.max > 0 && held(b, now) >= jobs.max).then(|| {
            jobs.full.clone().unwrap_or_else(|| {
                say::base(
                    400,
                    "CreateLimitReachedForResource",
                    "The create operation failed because the resource has reached the limit of \
                     possible resources.",
                )
            })
        })
    })
}

/// Jobs that have not ended.
fn held(b: &Body, now: EngineTime) -> usize {
    let updates = b.vm.tasks.iter().filter(|t| t.held || BmcTask::is_running(t)).count();
    let chores = b.vm.board.chores.iter().filter(|c| c.ends > now).count();
    updates + chores + b.jobs.len()
}

/// While the host is in its POST, and for a while after that and after the BMC's own start.
fn is_busy(jobs: &Jobs, b: &Body, seed: u64, now: EngineTime) -> bool {
    let (from, to) = jobs.busy_s;
    if to == 0 {
        return false;
    }
    let lasts = |n: u64| Rng::stream(seed ^ 0x1c68, n).between(from * 1000, to * 1000);
    let after = |at: Option<EngineTime>, n: u64| at.is_some_and(|at| now.since(at) < lasts(n));
    let started = b.back();
    b.vm.host == HostState::Post
        || after(b.posted, u64::from(b.vm.boots))
        || after(started.map(|(_, at)| at), started.map_or(0, |(life, _)| life << 32))
}

/// A job of somebody else's as the service shows it.
pub(super) fn shown(prefix: &str, job: &Queued) -> Value {
    let id = format!("{prefix}{}", job.id);
    json!({
        "@odata.id": format!("/redfish/v1/JobService/Jobs/{id}"),
        "@odata.type": "#Job.v1_2_4.Job", "Id": id, "Name": "Somebody's configuration",
        "JobState": "Pending", "JobStatus": "OK", "PercentComplete": 0, "Messages": [],
    })
}
