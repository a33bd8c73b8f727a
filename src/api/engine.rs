//! Questions to the running engine, each with an end.

use super::State;
use super::problem::{Code, Problem};
use super::select::nearest;
use crate::engine::Director;
use crate::model::{EngineTime, MachineId};
use std::time::Duration;

/// The engine answers between two events, in microseconds; this long means that it hangs.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the director; a problem when it does not answer.
pub(crate) async fn ask<T: Send + 'static>(
    state: &State,
    question: impl FnOnce(&Director, EngineTime) -> T + Send + 'static,
) -> Result<T, Problem> {
    match tokio::time::timeout(ASK_TIMEOUT, state.engine.ask(question)).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Problem::new(Code::EngineBusy, "the engine has ended")
            .hint("the daemon is stopping, or has failed; its log says which")),
        Err(_) => Err(Problem::new(
            Code::EngineBusy,
            format!("the engine did not answer within {} s", ASK_TIMEOUT.as_secs()),
        )
        .hint("try again; if it lasts, the daemon's log says why")),
    }
}

/// The machine called `name`; a problem with the nearest names when there is none.
pub(crate) async fn find(state: &State, name: &str) -> Result<MachineId, Problem> {
    let wanted = name.to_string();
    let found = ask(state, move |d, _| by_name(d, &wanted)).await?;
    found.map_err(|near| unknown(name, near))
}

/// The id, or the nearest names.
pub(super) fn by_name(d: &Director, name: &str) -> Result<MachineId, Vec<String>> {
    match d.machines().find(|m| m.seq > 0 && &*m.name == name) {
        Some(m) => Ok(m.id),
        None => Err(nearest(name, d.machines().map(|m| &*m.name))),
    }
}

pub(super) fn unknown(name: &str, near: Vec<String>) -> Problem {
    let problem = Problem::new(Code::NoSuchMachine, format!("there is no machine `{name}`"));
    if near.is_empty() {
        return problem.hint("`farrier machine list` shows every machine");
    }
    problem.nearest(near)
}
