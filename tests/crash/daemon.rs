//! One process: a runtime, the store, the director. Driver and machine are played by the test, so
//! that it can end between any two commands.

use crate::life::{ID, Life};
use farrier::decide::Decide;
use farrier::engine::director::Settings;
use farrier::engine::{Command, Director, Event};
use farrier::model::action::ActionKind;
use farrier::model::*;
use farrier::port::store::{Committed, Store};
use farrier::sim::physics::{Ask, VirtualMachine};
use farrier::store::fsck::fsck;
use farrier::store::{self, SqliteStore};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// A life that takes longer has got stuck.
const LONGEST_MS: u64 = 5 * 24 * 3_600_000;

/// What a kill leaves: the machine, the people, the clock. The rest is on disk.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) vm: VirtualMachine,
    pub(crate) now: EngineTime,
    callbacks: u32,
    /// How many wishes were acknowledged.
    pub(crate) heard: usize,
}

impl World {
    pub(crate) fn new(life: &Life) -> Self {
        Self { vm: life.machine(), now: EngineTime(1_000), callbacks: 0, heard: 0 }
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = self.now + ms;
        self.vm.advance(self.now);
    }
}

/// Where a process can die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The command was said and never reached its addressee.
    Before,
    /// It took hold, and the answer was lost.
    After,
}

/// See the module's head.
pub(crate) struct Daemon<D: Decide> {
    rt: tokio::runtime::Runtime,
    store: SqliteStore,
    pub(crate) director: Director<D>,
    life: Life,
    out: Vec<Command>,
    /// The wish that this process was told.
    pub(crate) said: Option<usize>,
}

impl<D: Decide> Daemon<D> {
    /// Starts as `serve` does: open, load, read the inventory.
    pub(crate) fn start(life: &Life, db: &Path, now: EngineTime, decider: D) -> Self {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let line = life.line();
        let (store, director, id) = rt.block_on(async {
            let store = SqliteStore::open(db, store::Settings::default()).await.unwrap();
            let loaded = store.load().await.unwrap();
            let site = Arc::new(life.site(loaded.state.incarnation.clone()));
            for (hash, workflow) in &site.workflows {
                let json = serde_json::to_string(&**workflow).unwrap();
                store.keep_workflow(hash, &json).await.unwrap();
            }
            let ids = store.expect(std::slice::from_ref(&line)).await.unwrap();
            let director = Director::new(decider, Settings::default(), loaded, site, now);
            (store, director, ids[0])
        });
        assert_eq!(id, ID);
        let mut daemon =
            Self { rt, store, director, life: life.clone(), out: Vec::new(), said: None };
        daemon.feed(now, Event::Expect { machines: vec![(ID, Arc::new(line))] });
        daemon
    }

    fn feed(&mut self, now: EngineTime, event: Event) {
        self.director.on(now, event, &mut self.out);
    }

    /// Carries one command out in the world; returns the answer that a kill would lose.
    fn carry_out(&mut self, world: &mut World, command: Command) -> Option<Event> {
        match command {
            Command::Commit(item) => {
                let batch = std::slice::from_ref(&*item);
                let committed =
                    self.rt.block_on(self.store.commit(batch, world.now, 1_700_000_000_000));
                let result = committed.unwrap().remove(0);
                assert!(!matches!(result, Committed::Conflict { .. }), "{result:?}");
                Some(Event::Committed { machine: item.machine, result: Ok(result) })
            }
            Command::Probe { machine, token, set, job, handle, run } => {
                // As the driver does: the ramdisk's key while it has the host; a key that no
                // installation brought is the inventory's.
                let row = self.director.machine(machine);
                let ramdisk = row.and_then(|m| m.ramdisk.as_ref()).map(|r| r.host_key.clone());
                let pinned = ramdisk.or_else(|| row.and_then(|m| m.host_key.clone()));
                let key =
                    pinned.or_else(|| self.life.line().host.host_key.as_deref().map(Box::from));
                let (job, handle, run) = (job.as_deref(), handle.as_deref(), run.as_deref());
                let ask = Ask { set, job, handle, run, host_key: key.as_deref() };
                let report = Box::new(world.vm.probe(world.now, &ask));
                Some(Event::Probed { machine, token, report })
            }
            Command::Act { machine, seq, action, expect } => {
                let outcome = world.vm.act(world.now, seq, &action, &expect);
                Some(Event::Acted { machine, seq, outcome })
            }
            Command::Ack { ticket, result } => {
                result.unwrap();
                world.heard = world.heard.max(usize::try_from(ticket).unwrap() + 1);
                None
            }
            Command::CommitStop { .. } | Command::Halt { .. } => panic!("{command:?}"),
        }
    }

    /// People say the next wish once the last one has come true, and again after a restart.
    fn people(&mut self, world: &World) {
        let Some(row) = self.director.machine(ID) else { return };
        let heard = world.heard;
        let ready = match heard.checked_sub(1) {
            None => row.seq > 0,
            Some(last) => self.rests(last),
        };
        if ready && heard < self.life.wishes.len() && self.said != Some(heard) {
            self.said = Some(heard);
            let change = self.life.wishes[heard].0.clone();
            let (key, ticket) = (format!("wish-{heard}"), heard as u64);
            let event = Event::Change { machine: ID, change, by: "people".into(), key, ticket };
            self.feed(world.now, event);
        }
    }

    fn rests(&self, wish: usize) -> bool {
        let stage = self.life.wishes[wish].1;
        self.director
            .machine(ID)
            .is_some_and(|m| m.stage == stage && m.run.is_none() && m.open.is_none())
    }

    fn has_come_true(&self, world: &World, wish: usize) -> bool {
        world.heard == wish + 1 && self.out.is_empty() && self.rests(wish)
    }

    /// Lives on until `wish` has come true. `at` is called before each commit and act and after
    /// each command, before its answer is heard; on `Break` the process is dead.
    pub(crate) fn live(
        &mut self,
        world: &mut World,
        wish: usize,
        mut at: impl FnMut(&World, usize, Moment, &str) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let started = world.now;
        while !self.has_come_true(world, wish) {
            let row = self.director.machine(ID).cloned();
            assert!(world.now.since(started) < LONGEST_MS, "stuck: {row:#?}");
            assert!(!row.as_ref().is_some_and(Machine::is_quarantined), "quarantined: {row:#?}");
            self.people(world);
            if self.out.is_empty() {
                let next = self.director.next_due();
                assert_ne!(next, EngineTime::NEVER, "nothing is due: {row:#?}");
                world.now = world.now.max(next);
                self.feed(world.now, Event::Tick);
                continue;
            }
            let command = self.out.remove(0);
            let leg = self.said.unwrap_or(0);
            let open = row.as_ref().and_then(|m| m.open.as_deref()).map(|o| o.action.kind());
            let name = name_of(&command, open);
            if matches!(command, Command::Commit(_) | Command::Act { .. }) {
                at(world, leg, Moment::Before, &name)?;
            }
            let answer = self.carry_out(world, command);
            world.pass(20);
            at(world, leg, Moment::After, &name)?;
            if let Some(event) = answer {
                self.feed(world.now, event);
            }
            if world.vm.callbacks != world.callbacks {
                world.callbacks = world.vm.callbacks;
                self.feed(world.now, Event::Poke { machine: ID });
            }
        }
        ControlFlow::Continue(())
    }

    /// Ends as a process does that had nothing to do, and looks at what it left.
    pub(crate) fn end_and_check(self, db: &Path, after: &str) {
        let Daemon { rt, store, .. } = self;
        let report = rt.block_on(async {
            store.close().await;
            fsck(db).await.unwrap()
        });
        assert!(report.is_clean(), "{after}: {:?}", report.findings);
        assert_eq!(report.machines, 1);
    }
}

/// A commit is named with the action that it is about: the one it begins, or the one that is open.
fn name_of(command: &Command, open: Option<ActionKind>) -> String {
    match command {
        Command::Commit(item) => {
            let names: Vec<&str> = item.entries.iter().map(Entry::name).collect();
            let begun = item.entries.iter().find_map(|e| match e {
                Entry::Intent { action, .. } => Some(action.kind()),
                _ => None,
            });
            let about = begun.or(open).map(|kind| format!(" of {kind}")).unwrap_or_default();
            format!("commit {}{about}", names.join("+"))
        }
        Command::Probe { set, .. } => format!("probe {:#x}", set.0),
        Command::Act { action, .. } => format!("act {} {}", action.kind(), action.about()),
        Command::Ack { .. } => "ack".into(),
        other => format!("{other:?}"),
    }
}
