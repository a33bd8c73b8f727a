//! Why a write does not go out: what every edge's guard says before it, and what that comes to.

use crate::model::{Fault, Outcome};

/// Why a write does not go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// What must be read first could not be. Boxed: it is the rare way.
    Fault(Box<Fault>),
    /// What was read is not what the action expects.
    Refused { saw: String, wrong_machine: bool },
}

impl From<Fault> for Stop {
    fn from(f: Fault) -> Self {
        Stop::Fault(Box::new(f))
    }
}

/// The outcome of a write with its guards: faults on the way are failed reads, guards that do not
/// hold are refusals.
pub fn settle(result: Result<Outcome, Stop>) -> Outcome {
    match result {
        Ok(outcome) => outcome,
        Err(Stop::Fault(fault)) => Outcome::Failed { fault: fault.of_read() },
        Err(Stop::Refused { saw, wrong_machine }) => Outcome::Refused { saw, wrong_machine },
    }
}
