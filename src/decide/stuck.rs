//! Past its stage's SLA: a call for people, and nothing else. No decision reads this.

use crate::model::time::Span;
use crate::model::{Condition, Control, EngineTime, Machine};
use crate::steps::workflow::Workflow;

/// A machine that is longer in its stage than it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// When its SLA was over.
    pub since: EngineTime,
    /// The stage, the SLA, and what the machine waits for, in words.
    pub what: String,
}

/// `workflow` is the run's own. Judged in stages that are not resting places, while a run is under
/// way or should be. Held and quarantined machines are with people already; the outbox and the metrics say so
/// in words of their own.
pub fn stuck(m: &Machine, workflow: &Workflow, now: EngineTime) -> Option<Stuck> {
    let since = overdue_at(m, workflow).filter(|at| now >= *at)?;
    let sla = workflow.sla(m.stage)?;
    let mut what = format!("in {} for longer than {sla}", m.stage);
    if let Some(step) = &m.step {
        what += &format!(", at step `{}`", step.key);
    }
    what += &match (&m.condition, &m.open, &m.waiting) {
        (Condition::Unreachable { since }, _, _) => {
            format!("; its BMC has not answered for {}", Span(now.since(*since)))
        }
        (Condition::BackingOff, _, _) => match &m.last_fault {
            Some(note) => format!("; last fault: {}", note.fault),
            None => String::new(),
        },
        (_, Some(open), _) => {
            format!("; `{}` is open for {}", open.action.kind(), Span(now.since(open.at)))
        }
        (_, None, Some(waiting)) => format!("; it waits for {waiting}"),
        (_, None, None) => String::new(),
    };
    Some(Stuck { since, what })
}

/// When the machine counts as stuck if it stays where it is; `None`: it never does.
pub fn overdue_at(m: &Machine, workflow: &Workflow) -> Option<EngineTime> {
    if m.stage.is_resting() || m.hold.is_some() || m.is_quarantined() {
        return None;
    }
    let began = match &m.run {
        // A machine may have idled in `discover` long before anybody wanted it.
        Some(run) => m.stage_since.max(run.since),
        // One that never answered has no run: its line in the inventory may be wrong.
        None if m.identity.is_unknown() || m.control != Control::Unmanaged => m.stage_since,
        None => return None,
    };
    workflow.sla(m.stage).map(|sla| began + sla.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::machine::{Cursor, Hold, Run};
    use crate::model::{Channel, Fault, FaultClass, Identity, MachineId, Stage};
    use crate::steps::Step;
    use crate::steps::identify;
    use crate::steps::workflow::{Retry, StepSpec, Unsupported, When};
    use std::collections::BTreeMap;

    fn workflow() -> Workflow {
        let step = |key: &str, minutes: u64| StepSpec {
            key: key.into(),
            stage: Stage::Discover,
            step: Step::Identify(identify::Params {}),
            timeout: Span(minutes * 60_000),
            stall: Span(60_000),
            usual: Span(0),
            retry: Retry::default(),
            unsupported: Unsupported::Quarantine,
            when: When::default(),
        };
        Workflow {
            name: "w".into(),
            watch: Span(60_000),
            sla: BTreeMap::from([(Stage::Firmware, Span(600_000))]),
            steps: vec![step("a", 10), step("b", 20)],
        }
    }

    fn machine(stage: Stage) -> Machine {
        let mut m = Machine::blank(MachineId(1));
        m.stage = stage;
        m.run = Some(Box::new(Run {
            id: 2,
            workflow: "w".into(),
            reason: "enrolled".into(),
            since: EngineTime(5_000),
            abort: None,
            incarnation: None,
        }));
        m
    }

    #[test]
    fn the_sla_is_the_stages_own_or_its_steps_timeouts() {
        let (w, m) = (workflow(), machine(Stage::Discover));
        let end = EngineTime(5_000 + 30 * 60_000);
        assert_eq!(overdue_at(&m, &w), Some(end), "from the run's start: 10m and 20m");
        assert_eq!(stuck(&m, &w, end - 1), None);
        let found = stuck(&m, &w, end).unwrap();
        assert_eq!(found.since, end);
        assert_eq!(found.what, "in discover for longer than 30m00s");

        let mut m = machine(Stage::Firmware);
        m.stage_since = EngineTime(60_000);
        assert_eq!(overdue_at(&m, &w), Some(EngineTime(660_000)), "as the file says");
        m.stage = Stage::Provision;
        assert_eq!(overdue_at(&m, &w), None, "nothing is done there");
    }

    #[test]
    fn it_says_what_the_machine_waits_for() {
        let (w, mut m) = (workflow(), machine(Stage::Discover));
        let late = EngineTime(3_600_000);
        m.step = Some(Box::new(Cursor {
            index: 0,
            key: "a".into(),
            since: EngineTime(5_000),
            attempt: 0,
            acts: vec![],
            holds: None,
            skip: None,
            cut: false,
            room_since: None,
        }));
        m.waiting = Some("room under the limit flash".into());
        let what = |m: &Machine| stuck(m, &w, late).unwrap().what;
        assert_eq!(
            what(&m),
            "in discover for longer than 30m00s, at step `a`; it waits for room under the limit flash"
        );
        m.condition = Condition::Unreachable { since: EngineTime(3_000_000) };
        assert!(what(&m).ends_with("its BMC has not answered for 10m00s"), "{}", what(&m));
    }

    #[test]
    fn machines_at_rest_or_with_people_are_not_stuck() {
        let (w, late) = (workflow(), EngineTime::NEVER);
        assert!(stuck(&machine(Stage::Discover), &w, late).is_some());
        let mut m = machine(Stage::Discover);
        m.run = None;
        assert!(stuck(&m, &w, late).is_some(), "never reached");
        m.identity = std::sync::Arc::new(Identity::new(Some("S1"), None, None));
        assert_eq!(stuck(&m, &w, late), None, "an unmanaged machine that was read");
        let mut m = machine(Stage::Discover);
        m.hold =
            Some(Box::new(Hold { by: "ann".into(), why: "fans".into(), since: EngineTime(1) }));
        assert_eq!(stuck(&m, &w, late), None);
        let mut m = machine(Stage::Discover);
        let fault = Fault::new(FaultClass::Hardware, Channel::Host, "x", "x");
        m.condition = Condition::Quarantined { since: EngineTime(1), fault: Box::new(fault) };
        assert_eq!(stuck(&m, &w, late), None);
        let mut m = machine(Stage::InService);
        m.run = None;
        assert_eq!(stuck(&m, &w, late), None);
    }
}
