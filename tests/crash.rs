//! Killed after every single command of a GPU node's whole life, then restarted on the SQLite file
//! as it lay there: the life goes on to the same end, and nothing is done to the machine twice.
//!
//! Director, decisions, workflow and store are production's; the machine is the simulator's.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests copy database files as a kill leaves them"
)]

use farrier::decide::{Decide, Input, Rules, Verdict};
use farrier::engine::director::Settings;
use farrier::engine::{Command, Director, Event};
use farrier::model::*;
use farrier::port::store::{Committed, Store};
use farrier::sim::durations::Durations;
use farrier::sim::faults::Dice;
use farrier::sim::physics::{Ask, Build, Quirks, VirtualMachine};
use farrier::sim::rng::Rng;
use farrier::sim::scenario::identity;
use farrier::sim::truth::{Cause, What};
use farrier::sim::workflows;
use farrier::steps::site::Site;
use farrier::store::fsck::fsck;
use farrier::store::{self, SqliteStore};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One machine, as the store numbers it.
const ID: MachineId = MachineId(1);
/// Between a kill and the next start.
const DOWN_MS: u64 = 20_000;
/// A life that takes longer has got stuck.
const LONGEST_MS: u64 = 5 * 24 * 3_600_000;

/// What people say next, and where the machine rests then.
fn wishes() -> [(Change, Stage); 4] {
    let desire = |desired| Change::Desire { desired };
    [
        (
            Change::Enroll { allow_existing_data: false, desired: Desired::InService },
            Stage::InService,
        ),
        (desire(Desired::Drained), Stage::Drained),
        (desire(Desired::InService), Stage::InService),
        (desire(Desired::Retired), Stage::Retired),
    ]
}

/// What a kill leaves: the machine, the people, the clock. The rest is on disk.
#[derive(Clone)]
struct World {
    vm: VirtualMachine,
    now: EngineTime,
    callbacks: u32,
    /// How many wishes were acknowledged.
    heard: usize,
}

impl World {
    fn new() -> Self {
        let build = Build {
            id: ID,
            name: "n00001".into(),
            identity: identity(1),
            gpus: 8,
            quirks: Quirks::default(),
            sick: None,
            durations: Arc::new(Durations::default()),
        };
        let vm = VirtualMachine::new(build, Rng::stream(7, 1), Dice::none());
        Self { vm, now: EngineTime(1_000), callbacks: 0, heard: 0 }
    }
}

/// A world at the moment of a kill, with a copy of the database files.
struct Fork {
    after: String,
    world: World,
    db: PathBuf,
}

/// One process: a runtime, the store, the director.
struct Daemon<D: Decide> {
    rt: tokio::runtime::Runtime,
    store: SqliteStore,
    director: Director<D>,
    out: Vec<Command>,
    /// The wish that this process was told.
    said: Option<usize>,
}

fn fresh_site(incarnation: Arc<str>) -> Site {
    Site { incarnation, ..workflows::site() }
}

impl<D: Decide> Daemon<D> {
    /// Starts as `serve` does: open, load, read the inventory.
    fn start(db: &Path, now: EngineTime, decider: D) -> Self {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let line = workflows::expected(ID, identity(1), None);
        let (store, director, id) = rt.block_on(async {
            let store = SqliteStore::open(db, store::Settings::default()).await.unwrap();
            let loaded = store.load().await.unwrap();
            let site = Arc::new(fresh_site(loaded.state.incarnation.clone()));
            for (hash, workflow) in &site.workflows {
                let json = serde_json::to_string(&**workflow).unwrap();
                store.keep_workflow(hash, &json).await.unwrap();
            }
            let ids = store.expect(std::slice::from_ref(&line)).await.unwrap();
            let director = Director::new(decider, Settings::default(), loaded, site, now);
            (store, director, ids[0])
        });
        assert_eq!(id, ID);
        let mut daemon = Self { rt, store, director, out: Vec::new(), said: None };
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
                let key = self.director.machine(machine).and_then(|m| m.host_key.clone());
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
        let (rests, heard) = (row.stage, world.heard);
        let wishes = wishes();
        let ready = match heard.checked_sub(1) {
            None => row.seq > 0,
            Some(last) => rests == wishes[last].1 && row.run.is_none() && row.open.is_none(),
        };
        if ready && heard < wishes.len() && self.said != Some(heard) {
            self.said = Some(heard);
            let change = wishes[heard].0.clone();
            let (key, ticket) = (format!("wish-{heard}"), heard as u64);
            let event = Event::Change { machine: ID, change, by: "people".into(), key, ticket };
            self.feed(world.now, event);
        }
    }

    fn has_ended(&self, world: &World) -> bool {
        world.heard == wishes().len()
            && self.out.is_empty()
            && self
                .director
                .machine(ID)
                .is_some_and(|m| m.stage == Stage::Retired && m.run.is_none() && m.open.is_none())
    }

    /// Lives on to the end. `after` is called after each command, before its answer is heard; on
    /// `Break` the process is dead.
    fn live(
        &mut self,
        world: &mut World,
        mut after: impl FnMut(&World, &str) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let started = world.now;
        while !self.has_ended(world) {
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
            let name = name_of(&command);
            let answer = self.carry_out(world, command);
            world.now = world.now + 20;
            world.vm.advance(world.now);
            after(world, &name)?;
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
}

fn name_of(command: &Command) -> String {
    match command {
        Command::Commit(item) => {
            let names: Vec<&str> = item.entries.iter().map(Entry::name).collect();
            format!("commit {}", names.join("+"))
        }
        Command::Probe { set, .. } => format!("probe {:#x}", set.0),
        Command::Act { action, .. } => format!("act {} {}", action.kind(), action.about()),
        Command::Ack { .. } => "ack".into(),
        other => format!("{other:?}"),
    }
}

/// Where it ended, without when.
#[derive(Debug, PartialEq)]
struct End {
    stage: Stage,
    control: machine::Control,
    desired: Option<Desired>,
    condition: machine::Condition,
    image: Option<String>,
    identity: Identity,
    waiting: Option<Box<str>>,
    firmware: Vec<(String, String)>,
    installed: bool,
    member: bool,
    power: String,
    window_open: bool,
    /// What was done to the machine by Farrier, how often. Not in it: acts that may be done again
    /// freely, as doing them twice is doing them once.
    effects: BTreeMap<String, usize>,
}

fn end<D: Decide>(daemon: &Daemon<D>, world: &World) -> End {
    let row = daemon.director.machine(ID).unwrap();
    let vm = &world.vm;
    let mut effects = BTreeMap::new();
    for effect in vm.truth.effects() {
        let free = matches!(
            effect.what,
            What::SetBoot | What::WindowOpened | What::WindowClosed | What::SessionsEnded
        );
        if matches!(effect.by, Cause::Farrier { .. }) && !free {
            *effects.entry(format!("{:?}", effect.what)).or_insert(0) += 1;
        }
        if let What::FlashStarted { already, staged, busy, .. } = effect.what {
            assert!(!already && !staged && !busy, "{effect:?}");
        }
        assert!(!matches!(effect.what, What::FlashBroken { .. }), "{effect:?}");
        assert!(effect.scene.right_machine, "{effect:?}");
        if effect.what.needs_empty_host() {
            assert_eq!(effect.scene.workloads, 0, "{effect:?}");
        }
    }
    End {
        stage: row.stage,
        control: row.control,
        desired: row.desired,
        condition: row.condition.clone(),
        image: row.deployed.as_ref().map(|d| d.image.to_string()),
        identity: (*row.identity).clone(),
        waiting: row.waiting.clone(),
        firmware: vm.firmware.iter().map(|s| (s.id.into(), s.version.to_string())).collect(),
        installed: vm.installed.is_some(),
        member: vm.node.member,
        power: format!("{:?}", vm.power),
        window_open: vm.window.facts.open,
        effects,
    }
}

/// What a `kill -9` leaves of the database: its files as they are at that moment.
fn copy_files(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let (from, to) = (with(from, suffix), with(to, suffix));
        if from.exists() {
            std::fs::copy(from, to).unwrap();
        }
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// A kill loses what is in memory, not what the kernel has: a RAM disk shows the same and does
/// not wait for fsync some ten thousand times.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn fsck_is_clean<D: Decide>(daemon: Daemon<D>, db: &Path, after: &str) {
    let Daemon { rt, store, .. } = daemon;
    let report = rt.block_on(async {
        store.close().await;
        fsck(db).await.unwrap()
    });
    assert!(report.is_clean(), "killed after `{after}`: {:?}", report.findings);
    assert_eq!(report.machines, 1);
}

#[test]
fn a_life_goes_on_after_a_kill_at_any_command() {
    let dir = scratch();
    let db = dir.path().join("state.db");
    let mut world = World::new();
    let mut daemon = Daemon::start(&db, world.now, Rules);
    let mut forks = Vec::new();
    let lived = daemon.live(&mut world, |world, name| {
        let copy = dir.path().join(format!("{}.db", forks.len()));
        copy_files(&db, &copy);
        forks.push(Fork { after: name.into(), world: world.clone(), db: copy });
        ControlFlow::Continue(())
    });
    assert!(lived.is_continue());
    let undisturbed = end(&daemon, &world);
    fsck_is_clean(daemon, &db, "nothing");
    for kind in
        ["FlashStarted", "InstallStarted", "SmokeStarted", "WipeStarted", "Hook(Join)", "PowerCut"]
    {
        let done = undisturbed.effects.iter().any(|(what, n)| what.starts_with(kind) && *n > 0);
        assert!(done, "the life has no `{kind}`: {undisturbed:#?}");
    }
    let acts = forks.iter().filter(|f| f.after.starts_with("act")).count();
    let commits = forks.iter().filter(|f| f.after.starts_with("commit")).count();
    println!("{} commands: {commits} commits, {acts} acts", forks.len());
    assert!(acts > 15 && commits > 60);

    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(8) {
            scope.spawn(|| {
                while let Some(fork) = forks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut world = fork.world.clone();
                    world.now = world.now + DOWN_MS;
                    world.vm.advance(world.now);
                    let mut daemon = Daemon::start(&fork.db, world.now, Rules);
                    let lived = daemon.live(&mut world, |_, _| ControlFlow::Continue(()));
                    assert!(lived.is_continue());
                    let ended = end(&daemon, &world);
                    assert_eq!(ended, undisturbed, "killed after `{}`", fork.after);
                    fsck_is_clean(daemon, &fork.db, &fork.after);
                }
            });
        }
    });
}

#[test]
fn a_life_goes_on_when_every_process_dies_after_a_few_commands() {
    let dir = scratch();
    let db = dir.path().join("state.db");
    let mut world = World::new();
    let mut lives = 0;
    let mut rng = Rng::new(11);
    loop {
        lives += 1;
        let mut daemon = Daemon::start(&db, world.now, Rules);
        // Some die right after the start, some get a little further.
        let mut left = rng.between(1, 60);
        let lived = daemon.live(&mut world, |_, _| {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if lived.is_continue() {
            assert_eq!(end(&daemon, &world).stage, Stage::Retired);
            fsck_is_clean(daemon, &db, "many kills");
            break;
        }
        drop(daemon);
        world.now = world.now + DOWN_MS;
        world.vm.advance(world.now);
        assert!(lives < 1_000, "it never arrives");
    }
    println!("{lives} lives");
    assert!(lives > 5);
}

/// After a restart it takes every open intent for not done.
struct Forgetful;

impl Decide for Forgetful {
    fn decide(&self, i: &Input<'_>) -> Verdict {
        match &i.m.open {
            Some(open) if open.state == machine::OpenState::Intended => Verdict::Write {
                entries: vec![Entry::Closed { happened: false, why: "who knows".into() }],
                due: i.now,
            },
            _ => Rules.decide(i),
        }
    }

    fn settle(&self, i: &Input<'_>, outcome: Outcome) -> Vec<Entry> {
        Rules.settle(i, outcome)
    }
}

#[test]
fn a_decision_that_forgets_its_intents_is_caught() {
    let dir = scratch();
    let db = dir.path().join("state.db");
    let mut world = World::new();
    let mut daemon = Daemon::start(&db, world.now, Forgetful);
    let lived = daemon.live(&mut world, |_, name| match name.contains("update-firmware") {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    assert!(lived.is_break());
    let before = world.vm.truth.count(|e| matches!(e.what, What::FlashStarted { .. }));
    assert_eq!(before, 1);
    drop(daemon);
    world.now = world.now + DOWN_MS;
    world.vm.advance(world.now);
    let mut daemon = Daemon::start(&db, world.now, Forgetful);
    // The one update that was under way is started a second time.
    let again = daemon.live(&mut world, |_, name| match name.contains("update-firmware") {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    assert!(again.is_break());
    let after: Vec<_> = world
        .vm
        .truth
        .effects()
        .iter()
        .filter(|e| matches!(e.what, What::FlashStarted { .. }))
        .collect();
    assert!(
        after.iter().any(|e| matches!(
            e.what,
            What::FlashStarted { already, staged, busy, .. } if already || staged || busy
        )),
        "{after:#?}"
    );
}
