//! One machine on the wire: its physics under a lock, the sessions of its BMC, and what its host is
//! due to do. Every access first lets the physics catch up and then looks at what happened since:
//! connections of a dead BMC end, the host's actor is told.

use super::accounts::Accounts;
use super::dialect::{Logins, Queued};
use super::profile::Profile;
use super::tls;
use crate::model::{EngineTime, MachineId};
use crate::sim::durations::Durations;
use crate::sim::faults::Dice;
use crate::sim::physics::{Build, HostState, Quirks, Sickness, VirtualMachine};
use crate::sim::rng::Rng;
use crate::sim::truth::What;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc, watch};

/// One machine to be built.
#[derive(Clone, Debug)]
pub struct Berth {
    pub id: MachineId,
    pub name: Arc<str>,
    /// Who really stands there; the inventory may expect somebody else.
    pub identity: crate::model::Identity,
    pub gpus: u16,
    pub quirks: Quirks,
    pub sick: Option<Sickness>,
    /// The BMC's user and password.
    pub user: String,
    pub password: String,
    pub dice: Dice,
}

/// What the wire has seen of one machine.
#[derive(Debug, Default)]
pub struct Counters {
    pub requests: AtomicU64,
    pub refused: AtomicU64,
    pub logins: AtomicU64,
    pub failed_logins: AtomicU64,
    pub updates: AtomicU64,
    pub execs: AtomicU64,
    pub boot_fetches: AtomicU64,
    pub callbacks: AtomicU64,
}

impl Counters {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Names and values.
    pub fn list(&self) -> [(&'static str, u64); 8] {
        let read = |c: &AtomicU64| c.load(Ordering::Relaxed);
        [
            ("requests", read(&self.requests)),
            ("refused", read(&self.refused)),
            ("logins", read(&self.logins)),
            ("failed_logins", read(&self.failed_logins)),
            ("updates", read(&self.updates)),
            ("execs", read(&self.execs)),
            ("boot_fetches", read(&self.boot_fetches)),
            ("callbacks", read(&self.callbacks)),
        ]
    }
}

/// What the host's actor has to act on, in the order in which it happened.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// The host lost its power or its operating system went down.
    Cut,
    /// POST is through and the host asks the network; `boot` counts boots.
    NetBoot { boot: u32 },
    /// The installer is through.
    Installed { ok: bool },
    /// The installer refused.
    Refused { why: String },
    /// The operating system is up.
    Up { boot: u32 },
}

/// A session of the BMC: its token is the key.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) user: String,
    pub(super) used: EngineTime,
}

/// What the lock guards.
#[derive(Debug)]
pub struct Body {
    pub vm: VirtualMachine,
    pub(super) sessions: BTreeMap<String, Session>,
    pub(super) accounts: Accounts,
    /// Jobs of other people in the BMC's queue.
    pub(super) jobs: Vec<Queued>,
    /// When the host was through its last POST.
    pub(super) posted: Option<EngineTime>,
    in_post: bool,
    /// What the BMC remembers of wrong passwords.
    pub(super) logins: Logins,
    /// How often power was changed through the BMC, and when last.
    pub(super) power_changed: Option<(u64, EngineTime)>,
    /// Documents that a PATCH changed in a replayed tree.
    pub(super) patched: BTreeMap<String, serde_json::Value>,
    /// The switch port of the BMC is dead until then.
    outage_until: EngineTime,
    /// Connections hang meanwhile instead of being refused.
    outage_silent: bool,
    /// The BMC restarted and does not answer yet.
    restarting: bool,
    /// When it was back from its last restart.
    back_at: Option<EngineTime>,
    /// BMC lives: one more with each restart.
    lives: u64,
    /// Effects of the truth log already looked at.
    seen: usize,
    /// Boot whose network boot, refusal and start were told.
    told_net: u32,
    told_refused: u32,
    told_up: u32,
    /// Boot for which the sandbox is ready.
    ready: u32,
    /// Jobs on the disk whose start the physics knows of.
    pub(super) told_jobs: BTreeSet<String>,
}

impl Body {
    /// Somebody's job comes into the BMC's queue.
    pub(super) fn queue_job(&mut self) {
        // Far from the numbers that the BMC gives to updates.
        let id = self.jobs.last().map_or(900_001, |job| job.id + 1);
        self.jobs.push(Queued { id });
    }

    /// The BMC's life and when it began to answer; `None`: it never restarted.
    pub(super) fn back(&self) -> Option<(u64, EngineTime)> {
        self.back_at.map(|at| (self.lives, at))
    }
}

/// One machine.
#[derive(Debug)]
pub struct Seat {
    pub name: Arc<str>,
    /// How its BMC behaves.
    pub profile: Arc<Profile>,
    /// It behaves as the clean tree does.
    pub(super) plain: bool,
    /// Connections to the BMC.
    lines: AtomicUsize,
    pub address: Ipv4Addr,
    pub user: String,
    pub password: String,
    pub counters: Counters,
    /// The host's root directory.
    pub root: PathBuf,
    /// Programs that the host has and this computer may not.
    pub(super) shims: PathBuf,
    body: Mutex<Body>,
    actor: mpsc::UnboundedSender<Happening>,
    /// Number of the BMC's life, 0 while it does not answer.
    bmc: watch::Sender<u64>,
    /// Number of the boot that answers SSH, 0 while none does.
    host: watch::Sender<u32>,
    next_at: AtomicU64,
    /// What its BMC shows where it speaks TLS.
    pub(super) certificate: tls::Shown,
    /// Requests that the BMC works on at once.
    pub(super) workers: Semaphore,
    /// The life of the BMC in which somebody logged in already.
    greeted: AtomicU64,
}

/// How a seat's BMC is to behave.
#[derive(Debug)]
pub(super) struct Manner {
    pub(super) profile: Arc<Profile>,
    /// Requests that it works on at once.
    pub(super) workers: usize,
}

impl Seat {
    pub(super) fn new(
        berth: Berth,
        manner: Manner,
        address: Ipv4Addr,
        root: PathBuf,
        shims: &Path,
        durations: Arc<Durations>,
        rng: Rng,
    ) -> (Self, mpsc::UnboundedReceiver<Happening>) {
        let (actor, inbox) = mpsc::unbounded_channel();
        let build = Build {
            id: berth.id,
            name: berth.name.clone(),
            identity: berth.identity,
            gpus: berth.gpus,
            quirks: berth.quirks,
            sick: berth.sick,
            durations,
        };
        let body = Body {
            vm: VirtualMachine::new(build, rng, berth.dice),
            sessions: BTreeMap::new(),
            accounts: Accounts::of(&manner.profile, &berth.user, &berth.password),
            jobs: Vec::new(),
            posted: None,
            in_post: false,
            logins: Logins::default(),
            power_changed: None,
            patched: BTreeMap::new(),
            outage_until: EngineTime::ZERO,
            outage_silent: false,
            restarting: false,
            back_at: None,
            lives: 1,
            seen: 0,
            told_net: 0,
            told_refused: 0,
            told_up: 0,
            ready: 0,
            told_jobs: BTreeSet::new(),
        };
        let seat = Self {
            name: berth.name,
            plain: manner.profile.is_plain(),
            profile: manner.profile,
            lines: AtomicUsize::new(0),
            address,
            user: berth.user,
            password: berth.password,
            counters: Counters::default(),
            root,
            shims: shims.to_path_buf(),
            body: Mutex::new(body),
            actor,
            bmc: watch::channel(1).0,
            host: watch::channel(0).0,
            next_at: AtomicU64::new(0),
            certificate: tls::Shown::default(),
            workers: Semaphore::new(manner.workers),
            // It has been up for long when the world begins.
            greeted: AtomicU64::new(1),
        };
        (seat, inbox)
    }

    /// Lets the machine catch up to `now`, then looks at or changes it.
    pub fn with<T>(&self, now: EngineTime, f: impl FnOnce(&mut Body) -> T) -> T {
        let mut body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        body.vm.advance(now);
        self.settle(&mut body, now);
        let out = f(&mut body);
        self.settle(&mut body, now);
        let next = match body.outage_until > now {
            true => body.vm.next_at().min(body.outage_until),
            false => body.vm.next_at(),
        };
        self.next_at.store(next.0, Ordering::Relaxed);
        out
    }

    /// When this machine does something by itself next.
    pub(super) fn next_at(&self) -> EngineTime {
        EngineTime(self.next_at.load(Ordering::Relaxed))
    }

    /// The switch port of the BMC dies for a while.
    pub fn cut_bmc_off(&self, now: EngineTime, until: EngineTime) {
        self.with(now, |b| (b.outage_until, b.outage_silent) = (until, false));
    }

    /// The same as a switch that drops packets: nobody is refused, nothing is answered.
    pub fn silence_bmc(&self, now: EngineTime, until: EngineTime) {
        self.with(now, |b| (b.outage_until, b.outage_silent) = (until, true));
    }

    /// Do calls to the BMC lead nowhere, without a word?
    pub(super) fn is_silent(&self, now: EngineTime) -> bool {
        self.with(now, |b| b.outage_silent && b.outage_until > now)
    }

    /// A connection comes; `false`: the BMC has no room for it.
    pub(super) fn line_up(&self) -> bool {
        let max = self.profile.pace.connections;
        let before = self.lines.fetch_add(1, Ordering::Relaxed);
        if before >= max {
            self.line_down();
        }
        before < max
    }

    /// A connection that [`Seat::line_up`] counted has ended.
    pub(super) fn line_down(&self) {
        self.lines.fetch_sub(1, Ordering::Relaxed);
    }

    /// The life of the BMC that answers; 0 when none does.
    pub(super) fn bmc_life(&self, now: EngineTime) -> u64 {
        self.with(now, |_| ());
        *self.bmc.borrow()
    }

    /// Is this the first login since the BMC's restart?
    pub(super) fn is_first_login(&self) -> bool {
        let life = *self.bmc.borrow();
        self.greeted.swap(life, Ordering::Relaxed) != life
    }

    /// Ends when the BMC's life `life` does.
    pub(super) fn bmc_gone(&self, life: u64) -> impl Future<Output = ()> + Send + use<> {
        gone(self.bmc.subscribe(), life)
    }

    /// The boot that answers SSH; 0 when none does.
    pub(super) fn host_life(&self, now: EngineTime) -> u32 {
        self.with(now, |_| ());
        *self.host.borrow()
    }

    pub(super) fn host_gone(&self, boot: u32) -> impl Future<Output = ()> + Send + use<> {
        gone(self.host.subscribe(), boot)
    }

    /// The sandbox is ready for SSH in this boot.
    pub(super) fn host_ready(&self, now: EngineTime, boot: u32) {
        self.with(now, |b| b.ready = boot);
    }

    fn settle(&self, body: &mut Body, now: EngineTime) {
        // An actor that has ended needs no news.
        let tell = |h: Happening| drop(self.actor.send(h));
        let mut restarted = false;
        for effect in body.vm.truth.since(body.seen) {
            match effect.what {
                What::BmcReset => restarted = true,
                What::PowerCut => tell(Happening::Cut),
                What::InstallEnded { ok } => tell(Happening::Installed { ok }),
                _ => {}
            }
        }
        body.seen = body.vm.truth.effects().len();
        if restarted {
            body.lives += 1;
            body.sessions.clear();
            body.logins.restart();
            body.restarting = true;
        }
        if body.restarting && body.vm.bmc_up {
            body.restarting = false;
            body.back_at = Some(now);
        }
        let in_post = body.vm.host == HostState::Post;
        if std::mem::replace(&mut body.in_post, in_post) && !in_post {
            body.posted = Some(now);
        }
        let boot = body.vm.boots;
        match body.vm.host {
            HostState::NetBoot if body.told_net != boot => {
                body.told_net = boot;
                tell(Happening::NetBoot { boot });
            }
            HostState::Idle if body.told_refused != boot => {
                body.told_refused = boot;
                if let Some(said) = &body.vm.window.facts.callback
                    && !said.ok
                {
                    let why = said.message.clone().unwrap_or_default();
                    tell(Happening::Refused { why });
                }
            }
            HostState::Running if body.told_up != boot => {
                body.told_up = boot;
                tell(Happening::Up { boot });
            }
            _ => {}
        }
        let bmc_answers = body.vm.bmc_up && body.outage_until <= now;
        let bmc = if bmc_answers { body.lives } else { 0 };
        let host_answers = body.vm.host == HostState::Running && body.ready == boot;
        let host = if host_answers { boot } else { 0 };
        set(&self.bmc, bmc);
        set(&self.host, host);
    }
}

fn set<T: PartialEq>(cell: &watch::Sender<T>, value: T) {
    cell.send_if_modified(|v| {
        let changed = *v != value;
        *v = value;
        changed
    });
}

async fn gone<T: PartialEq>(mut cell: watch::Receiver<T>, life: T) {
    // An error means that the seat itself is gone, which ends everything too.
    drop(cell.wait_for(|v| *v != life).await);
}
