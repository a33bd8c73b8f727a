//! Killed around every single command of a machine's whole life, under each shipped workflow, then
//! restarted on the SQLite file as it lay there: the life goes on to the same end, and nothing is
//! done to the machine twice.
//!
//! Every commit and every action is interrupted twice: before it took hold and after, with its
//! answer lost. Director, decisions, workflows and store are production's; the machine is the
//! simulator's. An interrupted life goes on until the wish of that moment has come true; with
//! FARRIER_TEST_LONG=1 until the last one has.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests copy database files as a kill leaves them"
)]

mod daemon;
mod end;
mod life;

use daemon::{Daemon, Moment, World};
use end::{End, end};
use farrier::decide::{Decide, Input, Rules, Verdict};
use farrier::model::*;
use farrier::sim::rng::Rng;
use farrier::sim::truth::What;
use life::Life;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};

/// Between a kill and the next start.
const DOWN_MS: u64 = 20_000;

/// A world at the moment of a kill, with a copy of the database files.
struct Fork {
    killed: String,
    /// The wish under way.
    leg: usize,
    world: World,
    db: PathBuf,
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

fn remove_files(db: &Path) {
    for suffix in ["", "-wal", "-shm", ".lock"] {
        std::fs::remove_file(with(db, suffix)).ok();
    }
}

/// A kill loses what is in memory, not what the kernel has: a RAM disk shows the same and does
/// not wait for fsync some hundred thousand times.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// How a life looks at each wish's end when nothing disturbs it.
fn undisturbed(life: &Life) -> Vec<End> {
    let dir = scratch();
    let db = dir.path().join("state.db");
    let mut world = World::new(life);
    let mut daemon = Daemon::start(life, &db, world.now, Rules);
    let mut ends = Vec::new();
    for wish in 0..life.wishes.len() {
        let lived = daemon.live(&mut world, wish, |_, _, _, _| ControlFlow::Continue(()));
        assert!(lived.is_continue());
        ends.push(end(&daemon, &world));
    }
    daemon.end_and_check(&db, life.name);
    ends
}

/// Counts by what was interrupted: `before act`, `after probe`, …
type Counts = BTreeMap<String, usize>;

/// Lives `life` once and kills a copy of it at every moment.
fn kill_everywhere(life: &Life, ends: &[End], long: bool) -> Counts {
    let dir = scratch();
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let (send, forks) = mpsc::sync_channel::<Fork>(2 * threads);
    let forks = Mutex::new(forks);
    let mut counts = Counts::new();
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut broke = None;
                loop {
                    let next = forks.lock().unwrap().recv();
                    let Ok(fork) = next else { break };
                    // After a failure the rest is only taken from who sends it.
                    if failed.load(Ordering::Relaxed) {
                        continue;
                    }
                    let until = if long { life.last() } else { fork.leg };
                    let went = AssertUnwindSafe(|| go_on(life, fork, until, &ends[until]));
                    if let Err(why) = catch_unwind(went) {
                        failed.store(true, Ordering::Relaxed);
                        broke = Some(why);
                    }
                }
                if let Some(why) = broke {
                    resume_unwind(why);
                }
            });
        }
        let db = dir.path().join("state.db");
        let mut world = World::new(life);
        let mut daemon = Daemon::start(life, &db, world.now, Rules);
        let mut n = 0;
        let lived = daemon.live(&mut world, life.last(), |world, leg, moment, command| {
            let copy = dir.path().join(format!("{n}.db"));
            n += 1;
            copy_files(&db, &copy);
            let (kind, _) = command.split_once(' ').unwrap_or((command, ""));
            let moment = if moment == Moment::Before { "before" } else { "after" };
            *counts.entry(format!("{moment} {kind}")).or_default() += 1;
            let killed = format!("{}: killed {moment} `{command}`", life.name);
            send.send(Fork { killed, leg, world: world.clone(), db: copy }).unwrap();
            match failed.load(Ordering::Relaxed) {
                false => ControlFlow::Continue(()),
                // The scope tells.
                true => ControlFlow::Break(()),
            }
        });
        drop(send);
        if lived.is_continue() {
            assert_eq!(end(&daemon, &world), ends[life.last()], "the same life, differently");
        }
    });
    counts
}

/// The restart after a kill, until `wish` has come true.
fn go_on(life: &Life, fork: Fork, wish: usize, undisturbed: &End) {
    let mut world = fork.world;
    world.pass(DOWN_MS);
    let mut daemon = Daemon::start(life, &fork.db, world.now, Rules);
    let killed = fork.killed;
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let lived = daemon.live(&mut world, wish, |_, _, _, _| ControlFlow::Continue(()));
        assert!(lived.is_continue());
        end(&daemon, &world)
    }));
    let ended = lived.unwrap_or_else(|_| panic!("{killed}: see above"));
    // An update that may have been sent is made to count before it is sent again.
    let restarted = killed.contains("update-firmware") && ended.is_restarted(undisturbed);
    // And a POST tells whether a volume was ordered.
    let rebooted = killed.contains("create-volume") && ended.is_rebooted(undisturbed);
    if !rebooted && !restarted {
        assert_eq!(ended, *undisturbed, "{killed}");
    }
    daemon.end_and_check(&fork.db, &killed);
    remove_files(&fork.db);
}

fn every_moment_of(life: &Life) {
    let long = std::env::var_os("FARRIER_TEST_LONG").is_some();
    let ends = undisturbed(life);
    let counts = kill_everywhere(life, &ends, long);
    println!("{}: {} kills {counts:?}", life.name, counts.values().sum::<usize>());
    let of = |what: &str| counts.get(what).copied().unwrap_or(0);
    assert_eq!(of("before act"), of("after act"));
    assert_eq!(of("before commit"), of("after commit"));
    assert!(of("after act") > 15 && of("after commit") > 100 && of("after probe") > 100);
    assert_eq!(of("after ack"), life.wishes.len());
    // A life in which something is not done proves nothing of it.
    let last = &ends[life.last()];
    for kind in [
        "FlashStarted",
        "InstallStarted",
        "SmokeStarted",
        "WipeStarted",
        "Hook(Join)",
        "Hook(Cordon)",
        "Hook(Leave)",
        "PowerCut",
        "PowerOn",
    ] {
        let done = last.effects.iter().any(|(what, n)| what.starts_with(kind) && *n > 0);
        assert!(done, "the life has no `{kind}`: {last:#?}");
    }
}

#[test]
fn an_enrolled_gpu_node_survives_a_kill_at_every_moment() {
    every_moment_of(&Life::enrolled("gpu-node enrolled", "gpu-node", 8));
}

#[test]
fn an_adopted_gpu_node_survives_a_kill_at_every_moment() {
    every_moment_of(&Life::adopted("gpu-node adopted", "gpu-node", 8));
}

#[test]
fn an_enrolled_cpu_node_survives_a_kill_at_every_moment() {
    every_moment_of(&Life::enrolled("cpu-node enrolled", "cpu-node", 0));
}

#[test]
fn an_adopted_cpu_node_survives_a_kill_at_every_moment() {
    every_moment_of(&Life::adopted("cpu-node adopted", "cpu-node", 0));
}

#[test]
fn a_node_on_a_raid_controller_survives_a_kill_at_every_moment() {
    let life = Life::on_raid();
    every_moment_of(&life);
    let made = |end: &End| {
        end.effects.iter().find(|(what, _)| what.starts_with("VolumeMade")).map(|(_, n)| *n)
    };
    assert_eq!(undisturbed(&life).last().and_then(made), Some(1));
}

#[test]
fn no_shipped_workflow_is_left_out() {
    let lived: std::collections::BTreeSet<String> = Life::all()
        .iter()
        .flat_map(|l| l.site("x".into()).workflows.into_values())
        .map(|w| format!("{}.toml", w.name))
        .collect();
    let shipped = farrier::config::shipped::WORKFLOWS.map(|(file, _)| file.to_string());
    assert_eq!(lived, shipped.into());
}

#[test]
fn lives_go_on_when_every_process_dies_after_a_few_commands() {
    for (n, life) in Life::all().iter().enumerate() {
        let ends = undisturbed(life);
        let dir = scratch();
        let db = dir.path().join("state.db");
        let mut world = World::new(life);
        let mut lives = 0;
        let mut rng = Rng::new(11 + n as u64);
        loop {
            lives += 1;
            let mut daemon = Daemon::start(life, &db, world.now, Rules);
            // Some die right after the start, some get a little further.
            let mut left = rng.between(1, 60);
            let lived = daemon.live(&mut world, life.last(), |_, _, _, _| {
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if lived.is_continue() {
                // Attempts that were cut off may be made again; the place is the same.
                assert_eq!(end(&daemon, &world).stage, ends[life.last()].stage);
                daemon.end_and_check(&db, "many kills");
                break;
            }
            drop(daemon);
            world.pass(DOWN_MS);
            assert!(lives < 1_000, "it never arrives");
        }
        println!("{}: {lives} processes", life.name);
        assert!(lives > 5);
    }
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
    let life = Life::enrolled("gpu-node enrolled", "gpu-node", 8);
    let dir = scratch();
    let db = dir.path().join("state.db");
    let mut world = World::new(&life);
    let at_an_update = |_: &World, _: usize, moment: Moment, name: &str| match moment
        == Moment::After
        && name.starts_with("act update-firmware")
    {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let mut daemon = Daemon::start(&life, &db, world.now, Forgetful);
    assert!(daemon.live(&mut world, life.last(), at_an_update).is_break());
    let before = world.vm.truth.count(|e| matches!(e.what, What::FlashStarted { .. }));
    assert_eq!(before, 1);
    drop(daemon);
    world.pass(DOWN_MS);
    let mut daemon = Daemon::start(&life, &db, world.now, Forgetful);
    // The one update that was under way is started a second time.
    assert!(daemon.live(&mut world, life.last(), at_an_update).is_break());
    let again = world.vm.truth.count(|e| {
        matches!(e.what, What::FlashStarted { already, staged, busy, .. }
            if already || staged || busy)
    });
    assert!(again > 0, "{:#?}", world.vm.truth.effects());
}
