//! The serial consoles of machines that a run boots, followed beside the engine: what a host said that did
//! not come up. Where a boot window is open and the machine has an `ipmi` address, a task takes down its
//! console until the step ends. No decision knows of it, and nothing waits for it: it learns of windows by
//! standing in front of the boot server, and asks the engine what became of the step.
#![allow(clippy::disallowed_methods, reason = "an edge: it waits between two looks")]

use super::access::Access;
use crate::config::console::Consoles as Configured;
use crate::engine::driver::Handle;
use crate::ipmi::{Bounds, Console, FollowEnd, Heard, IpmiBmc, Live, Shelf};
use crate::model::facts::WindowFacts;
use crate::model::{Fault, FaultClass, MachineId, Outcome};
use crate::port::deploy::{DeployOrder, DeployRequest};
use crate::port::{BmcTarget, Boot, WindowOrder};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// What is to be known of a machine's run, to tell how far its boot is.
#[derive(Clone, Debug)]
pub struct Now {
    pub target: BmcTarget,
    /// As it is named outside.
    pub run: String,
    /// Stage and step; `None`: at rest.
    pub step: Option<String>,
    /// Failed attempts of the step.
    pub attempt: u16,
    pub quarantined: bool,
    pub aborted: bool,
}

/// The engine, and the way to a BMC, as this needs them.
#[async_trait]
pub trait Life: Send + Sync {
    /// `None`: there is no such machine, or no engine any more.
    async fn now(&self, machine: MachineId) -> Option<Now>;

    /// The target with what counts by now, and a place at it: nobody's password is changed while it is
    /// held.
    ///
    /// # Errors
    /// Nobody may log in now.
    fn enter(&self, target: &BmcTarget) -> Result<(Box<dyn Send + '_>, BmcTarget), Fault>;
}

/// The daemon's.
#[derive(Debug)]
pub struct Engine {
    pub handle: Handle,
    pub access: Access,
}

#[async_trait]
impl Life for Engine {
    async fn now(&self, machine: MachineId) -> Option<Now> {
        let ask = self.handle.ask(move |d, _| {
            let m = d.machine(machine)?;
            let expected = d.expected(machine)?;
            Some(Now {
                target: BmcTarget {
                    machine,
                    name: m.name.clone(),
                    endpoint: expected.bmc.clone(),
                    identity: m.identity.or(&expected.identity),
                },
                run: m.run_name(&d.site().incarnation),
                step: m.step.as_ref().map(|c| format!("{}/{}", m.stage.name(), c.key)),
                attempt: m.step.as_ref().map_or(0, |c| c.attempt),
                quarantined: m.is_quarantined(),
                aborted: m.run.as_ref().is_some_and(|r| r.abort.is_some()),
            })
        });
        ask.await.flatten()
    }

    fn enter(&self, target: &BmcTarget) -> Result<(Box<dyn Send + '_>, BmcTarget), Fault> {
        let (call, target) = self.access.enter(target)?;
        Ok((Box::new(call), target))
    }
}

/// Times; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two looks at what became of the step.
    pub look: Duration,
    /// After a console that the BMC ended.
    pub again: Duration,
    /// After one that could not be had.
    pub refused: Duration,
    /// Longest time without a word, after which the program is started anew.
    pub silent: Duration,
    /// Longest time that one console is followed at all.
    pub longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(5),
            again: Duration::from_secs(10),
            refused: Duration::from_secs(60),
            silent: Duration::from_secs(600),
            longest: Duration::from_secs(6 * 3600),
        }
    }
}

/// The consoles of a site.
#[derive(Clone)]
pub struct Consoles(Arc<Inner>);

struct Inner {
    ipmi: Arc<IpmiBmc>,
    life: Arc<dyn Life>,
    shelf: Shelf,
    pace: Pace,
    places: Semaphore,
    followed: Mutex<BTreeSet<MachineId>>,
    ending: watch::Sender<bool>,
}

impl std::fmt::Debug for Consoles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Consoles")
    }
}

/// How a console ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Good,
    Bad,
    /// The daemon ends; the next one goes on.
    Cut,
}

/// Where consoles of this site lie, and how much of them.
///
/// # Errors
/// The directory can't be made.
pub fn shelf(state: &Path, configured: &Configured) -> std::io::Result<Shelf> {
    let bounds = Bounds {
        bytes: configured.keep_kib.saturating_mul(1024),
        runs: configured.keep_runs,
        age: Duration::from_millis(configured.keep_for.0),
    };
    Shelf::new(state.join("consoles"), bounds)
}

impl Consoles {
    pub fn new(
        ipmi: Arc<IpmiBmc>,
        life: Arc<dyn Life>,
        shelf: Shelf,
        at_once: usize,
        pace: Pace,
    ) -> Self {
        Self(Arc::new(Inner {
            ipmi,
            life,
            shelf,
            pace,
            places: Semaphore::new(at_once.max(1)),
            followed: Mutex::default(),
            ending: watch::channel(false).0,
        }))
    }

    /// A run waits for this machine to boot. Returns at once; a second word about the same machine is
    /// none.
    pub fn boots(&self, machine: MachineId) {
        let mut followed = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.0.ending.borrow() || !followed.insert(machine) {
            return;
        }
        drop(followed);
        let this = self.clone();
        tokio::spawn(async move {
            let _over = Over { inner: &this.0, machine };
            this.0.follow(machine).await;
        });
    }

    /// What a daemon before this one left: consoles are given back, of runs that nobody waits for any more
    /// too. `known`: machines by name.
    pub async fn resume(&self, known: impl Fn(&str) -> Option<MachineId>) {
        self.0.shelf.prune();
        for console in self.0.shelf.left() {
            let Some(machine) = known(&console.machine) else {
                console.leave();
                continue;
            };
            match self.0.life.now(machine).await {
                Some(now) if now.run == console.run && now.step.is_some() && !now.quarantined => {
                    self.boots(machine);
                }
                now => {
                    self.0.give_back(&console, now).await;
                    console.leave();
                }
            }
        }
    }

    /// Ends all that is followed and gives the consoles back; what was said so far stays for the next start.
    pub async fn stop(&self) {
        self.0.ending.send_replace(true);
        while !self.0.followed.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

struct Over<'a> {
    inner: &'a Inner,
    machine: MachineId,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let mut followed = self.inner.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.remove(&self.machine);
    }
}

/// What became of the step at which it began; `None`: it goes on.
fn judge(began: &Now, now: Option<&Now>, aborted: bool) -> Option<End> {
    let Some(now) = now else { return Some(End::Bad) };
    if now.quarantined {
        return Some(End::Bad);
    }
    if now.run == began.run && now.step == began.step {
        return None;
    }
    // An abort takes the machine out of its step as a good end does.
    Some(if aborted || now.aborted { End::Bad } else { End::Good })
}

impl Inner {
    async fn follow(&self, machine: MachineId) {
        let mut ending = self.ending.subscribe();
        let Some(began) = self.life.now(machine).await else { return };
        if began.target.endpoint.ipmi.is_none() || began.step.is_none() || began.quarantined {
            return;
        }
        // A whole rack that boots at once: who finds no place looks again, as long as it boots.
        let _place = loop {
            if let Ok(place) = self.places.try_acquire() {
                break place;
            }
            tokio::select! {
                () = tokio::time::sleep(self.pace.look) => {}
                _ = ending.wait_for(|e| *e) => return,
            }
            if judge(&began, self.life.now(machine).await.as_ref(), false).is_some() {
                return;
            }
        };
        let name = &began.target.name;
        let live = match self.shelf.follow(name, &began.run) {
            Ok(live) => Mutex::new(live),
            Err(e) => {
                tracing::warn!(machine = %name, "its console is not followed, no file for it: {e}");
                return;
            }
        };
        let end = {
            let sessions = self.sessions(&began.target, &live);
            tokio::pin!(sessions);
            tokio::select! {
                end = self.watch(&began, &live) => end,
                end = &mut sessions => end,
                () = tokio::time::sleep(self.pace.longest) => End::Bad,
                _ = ending.wait_for(|e| *e) => End::Cut,
            }
        };
        let live = live.into_inner().unwrap_or_else(PoisonError::into_inner);
        if live.is_open() {
            match self.release(&began.target).await {
                Ok(()) => live.set_open(false),
                Err(fault) => {
                    tracing::debug!(machine = %name, %fault, "its console was not given back");
                }
            }
        }
        match end {
            End::Good => self.shelf.forget(live),
            End::Bad => self.shelf.keep(live),
            End::Cut => drop(live),
        }
    }

    /// Until the step has ended, one way or the other.
    async fn watch(&self, began: &Now, live: &Mutex<Live>) -> End {
        let (mut aborted, mut attempt) = (false, began.attempt);
        loop {
            tokio::time::sleep(self.pace.look).await;
            let now = self.life.now(began.target.machine).await;
            if let Some(end) = judge(began, now.as_ref(), aborted) {
                return end;
            }
            let Some(now) = now else { return End::Bad };
            aborted |= now.aborted;
            if now.attempt > attempt {
                attempt = now.attempt;
                note(live, &format!("attempt {attempt} failed; what follows is the next one"));
            }
        }
    }

    /// One session after the other. Ends only when there is no room on the disk.
    async fn sessions(&self, target: &BmcTarget, live: &Mutex<Live>) -> End {
        let mut said = String::new();
        loop {
            let (pause, what) = match self.session(target, live).await {
                Ok(FollowEnd::Closed) => {
                    (self.pace.again, "the BMC ended the console, or somebody took it".to_string())
                }
                Ok(FollowEnd::Silent) => {
                    self.release(target).await.ok();
                    (Duration::ZERO, String::new())
                }
                Ok(FollowEnd::Taken) => {
                    let what = "somebody else has the console, and it is not taken from them";
                    (self.pace.refused, what.to_string())
                }
                Err(fault) if fault.code == NO_ROOM => return End::Bad,
                Err(fault) => (self.pace.refused, format!("no console: {fault}")),
            };
            // A BMC that is away for an hour is one line.
            if !what.is_empty() && what != said {
                note(live, &what);
                said = what;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn session(&self, target: &BmcTarget, live: &Mutex<Live>) -> Result<FollowEnd, Fault> {
        let (place, target) = self.life.enter(target)?;
        // Held until the login is over: then a new password does not matter to it.
        let mut place = Some(place);
        let ours = lock(live).is_open();
        let mut failed = None;
        let mut hear = |heard: Heard<'_>| match heard {
            Heard::Open => {
                lock(live).set_open(true);
                drop(place.take());
            }
            Heard::Text(text) => {
                if let Err(e) = lock(live).push(text) {
                    failed = Some(e);
                }
            }
        };
        let end = self.ipmi.follow(&target, ours, self.pace.silent, &mut hear).await;
        if let Some(e) = failed {
            tracing::warn!(machine = %target.name, "its console can't be written down: {e}");
            return Err(Fault::new(
                FaultClass::Precondition,
                crate::model::Channel::Engine,
                NO_ROOM,
                format!("the console can't be written down: {e}"),
            ));
        }
        // Whoever has it now, it is not ours.
        if matches!(end, Ok(FollowEnd::Closed | FollowEnd::Taken)) {
            lock(live).set_open(false);
        }
        end
    }

    async fn release(&self, target: &BmcTarget) -> Result<(), Fault> {
        let (_place, target) = self.life.enter(target)?;
        self.ipmi.give_back(&target).await
    }

    async fn give_back(&self, console: &Console, now: Option<Now>) {
        let Some(now) = now.filter(|n| console.is_open() && n.target.endpoint.ipmi.is_some())
        else {
            return;
        };
        if let Err(fault) = self.release(&now.target).await {
            tracing::warn!(machine = %now.target.name, %fault, "the console that an earlier start left open was not given back");
        }
    }
}

const NO_ROOM: &str = "no-room";

fn lock(live: &Mutex<Live>) -> std::sync::MutexGuard<'_, Live> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(live: &Mutex<Live>, what: &str) {
    lock(live).note(what).ok();
}

/// The boot server, and somebody who hears which machines it waits for.
pub struct Announcing {
    pub boot: Arc<dyn Boot>,
    pub consoles: Consoles,
}

impl std::fmt::Debug for Announcing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Announcing")
    }
}

#[async_trait]
impl Boot for Announcing {
    /// Also after a restart and a release, when the window that is waited for was open before.
    async fn window(&self, machine: MachineId, run: &str) -> Result<WindowFacts, Fault> {
        let facts = self.boot.window(machine, run).await;
        if facts.as_ref().is_ok_and(|f| f.open && f.run.as_deref() == Some(run)) {
            self.consoles.boots(machine);
        }
        facts
    }

    async fn open(&self, order: &WindowOrder) -> Outcome {
        let outcome = self.boot.open(order).await;
        if matches!(outcome, Outcome::Applied { .. }) {
            self.consoles.boots(order.machine);
        }
        outcome
    }

    async fn close(&self, run: &str) -> Outcome {
        self.boot.close(run).await
    }

    async fn deploy_order(&self, request: &DeployRequest) -> Result<DeployOrder, Fault> {
        self.boot.deploy_order(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BmcEndpoint, Identity};

    fn now(run: &str, step: Option<&str>) -> Now {
        Now {
            target: BmcTarget {
                machine: MachineId(1),
                name: "n1".into(),
                endpoint: BmcEndpoint::default(),
                identity: Identity::default(),
            },
            run: run.into(),
            step: step.map(Into::into),
            attempt: 0,
            quarantined: false,
            aborted: false,
        }
    }

    #[test]
    fn a_console_ends_with_its_step_and_is_kept_unless_that_ended_well() {
        let began = now("r1", Some("provision/install"));
        assert_eq!(judge(&began, Some(&began), false), None);
        let retried = Now { attempt: 2, ..began.clone() };
        assert_eq!(judge(&began, Some(&retried), false), None, "the same console goes on");
        let next = now("r1", Some("burn-in/smoke"));
        assert_eq!(judge(&began, Some(&next), false), Some(End::Good));
        assert_eq!(
            judge(&began, Some(&now("r0", None)), false),
            Some(End::Good),
            "its run's last step"
        );
        assert_eq!(judge(&began, Some(&now("r0", None)), true), Some(End::Bad), "aborted");
        let quarantined = Now { quarantined: true, ..began.clone() };
        assert_eq!(judge(&began, Some(&quarantined), false), Some(End::Bad));
        assert_eq!(judge(&began, None, false), Some(End::Bad), "the machine is gone");
    }
}
