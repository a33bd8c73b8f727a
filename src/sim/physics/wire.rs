//! What a wire takes over. In the simulator the host's own calls and its jobs are draws and timers;
//! behind a wire they are real: the host asks a real boot server and runs real programs. A wire
//! sets those durations ([`crate::sim::durations::Durations::wired`]) so far away that only it
//! ends them.

use super::{Due, HostState, VirtualMachine, Window};
use crate::model::EngineTime;
use crate::model::facts::WindowFacts;

impl VirtualMachine {
    /// The host asked for its boot script and got one, or did not.
    pub fn script_answered(&mut self, now: EngineTime, got: bool) {
        self.advance(now);
        if self.host != HostState::NetBoot {
            return;
        }
        self.pending.retain(|(_, due)| !matches!(due, Due::ScriptFetch));
        self.window = Window {
            facts: WindowFacts { open: got, ..WindowFacts::default() },
            ..Window::default()
        };
        self.script_fetch(now);
    }

    /// The host asked for its seed: `Some` is the run, the image and whether data may go.
    pub fn seed_answered(&mut self, now: EngineTime, seed: Option<(String, String, bool)>) {
        self.advance(now);
        if self.host != HostState::NetBoot {
            return;
        }
        self.pending.retain(|(_, due)| !matches!(due, Due::SeedFetch));
        self.window.facts.open = seed.is_some();
        if let Some((run, image, allow)) = seed {
            self.window.facts.run = Some(run);
            self.window.image = image;
            self.window.allow_existing_data = allow;
        }
        self.seed_fetch(now);
    }

    /// The program behind job `name` ended.
    pub fn job_ended(&mut self, now: EngineTime, name: &str) {
        self.advance(now);
        let running =
            |j: &&super::HostJob| &*j.name == name && j.state == super::host::HostJobState::Running;
        let Some(id) = self.jobs.iter().find(running).map(|j| j.id) else { return };
        self.pending.retain(|(_, due)| !matches!(due, Due::JobEnds(i) if *i == id));
        self.job_ends(now, id);
    }
}
