//! `farrier serve`: the daemon. Everything is wired here and nothing is decided.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "reads the token's file and waits for signals"
)]

use super::access::{Access, Guarded};
use super::consoles::{self, Announcing, Consoles};
use super::current::Current;
use super::orders::Orders;
use super::rotate::{self, Rotator};
use super::systemd::{self, Manager};
use super::{files, identify, listen, netboot, parts, pins, reload, routes, webhooks};
use crate::api;
use crate::decide::Rules;
use crate::decide::rotation::Pace;
use crate::engine::Director;
use crate::engine::clock::{Clock, UNWATCHED_MS};
use crate::engine::director::Settings;
use crate::engine::driver::{self, Driver, Wiring};
use crate::model::time::Span;
use crate::model::{EngineTime, Expected};
use crate::notify::Notifier;
use crate::port::Secret;
use crate::port::outbox::Outbox;
use crate::port::store::{Loaded, Store};
use crate::store::SqliteStore;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How the daemon is to run.
#[derive(Clone, Debug)]
pub struct Ask {
    pub config: PathBuf,
    pub observe_only: bool,
    /// Engine time runs this many times faster; only demos and tests.
    pub time_scale: u32,
    /// The exact number of changed machines that a person confirms.
    pub confirm: Option<usize>,
}

const BLOCKING_THREADS: usize = 32;

/// Runs until a signal; exit 0 after a graceful end, 1 when it can't run, 2 for bad files.
pub fn serve(ask: &Ask) -> ExitCode {
    init_log();
    super::pages::for_reading(&super::files::large(&ask.config));
    // Blocking work here is small files (passwords, boot windows) and checks of files: thousands of
    // logins at once queue for a few threads rather than start hundreds.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.enable_all().max_blocking_threads(BLOCKING_THREADS).build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: no runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(start(ask)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(End::Files(report)) => {
            eprint!("{report}");
            ExitCode::from(2)
        }
        Err(End::Other(why)) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Why the daemon ended without being told to.
enum End {
    /// The configuration's report.
    Files(String),
    Other(String),
}

type Opened = Result<(SqliteStore, Loaded), String>;

/// Parses the files and opens the database side by side: with 10,000 machines each takes most of
/// what a start may take.
async fn start(ask: &Ask) -> Result<(), End> {
    let path = ask.config.clone();
    let config = tokio::task::spawn_blocking(move || files::load(&path));
    let early = files::database(&ask.config).map(|database| tokio::spawn(open(database)));
    let ended = |e: tokio::task::JoinError| End::Other(format!("the start broke off: {e}"));
    let config = config.await.map_err(ended)?;
    let config = match config {
        Ok(config) => config,
        Err(problems) => return Err(End::Files(problems.report)),
    };
    let opened = match early {
        Some(task) => task.await.map_err(ended)?,
        None => {
            let state = &config.daemon.state;
            std::fs::create_dir_all(state).map_err(|e| {
                End::Other(format!("can't make the state directory `{}`: {e}", state.display()))
            })?;
            open(config.daemon.database.clone()).await
        }
    };
    let (store, held) = opened.map_err(End::Other)?;
    run(ask, config, store, held).await.map_err(End::Other)
}

async fn open(database: PathBuf) -> Opened {
    let settings = crate::store::Settings::default();
    let store = SqliteStore::open(&database, settings).await.map_err(|e| e.to_string())?;
    let held = store.load().await.map_err(|e| e.to_string())?;
    Ok((store, held))
}

fn init_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FARRIER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,russh=warn"));
    let log = tracing_subscriber::registry().with(filter).with(api::LogTail::of_process());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if std::env::var_os("FARRIER_LOG_JSON").is_some() {
        log.with(lines.json()).init();
    } else {
        let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
        log.with(lines.with_ansi(ansi)).init();
    }
}

async fn run(
    ask: &Ask,
    mut config: crate::config::Loaded,
    store: SqliteStore,
    mut held: Loaded,
) -> Result<(), String> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    // A BMC is held by up to three connections while it is read.
    let wanted = u64::try_from(config.expected.len()).unwrap_or(u64::MAX).saturating_mul(3);
    if let Err(why) = super::descriptors::raise(wanted.saturating_add(1_000)) {
        tracing::warn!("{why}");
    }
    let daemon = config.daemon.clone();
    let api_socket = listen::bind("api", daemon.api.bind).await?;
    let tls = daemon.api.tls.as_ref().map(listen::tls_config).transpose()?;
    let token = daemon.api.token_file.as_deref().map(read_token).transpose()?;

    let manager = Manager::from_env();
    let vault = Arc::new(parts::vault(&store, &daemon).await?);
    let outbox: Arc<dyn Outbox> = Arc::new(store.clone());
    let notifier = Notifier::new(outbox.clone(), vault.clone())?;
    notifier.set(webhooks::hooks(&daemon.webhooks)).await;
    let database = store.clone();
    let store: Arc<dyn Store> = Arc::new(store);

    // A line without a row was stored just before an end: it is as good as new.
    let has_row = |id| held.machines.binary_search_by_key(id, |m| m.id).is_ok();
    let known: BTreeMap<_, _> = held
        .expected
        .iter()
        .filter(|(id, _)| has_row(id))
        .map(|(_, e)| (e.name.clone(), e.clone()))
        .collect();
    let clock = Clock::resume(held.state.engine_time, held.state.wall_ms, ask.time_scale);
    unwatched(&*store, &mut held, clock.now(), ask.time_scale).await?;
    let site = reload::site(&config, &held.state.incarnation, &held.workflows);
    let lines = std::mem::take(&mut config.expected);
    let spread_ms = spread(lines.len());
    let current = Current::new(config);

    let (handle, ends) = driver::channels();
    let secrets = vault.secrets().clone();
    let pins = database.pins().await.map_err(|e| e.to_string())?;
    let access = Access::new(secrets.clone(), pins.clone());
    let bmc = parts::redfish(&current, vault.clone(), &database, ask.time_scale)?;
    let mut parts = parts::build(&current, vault.clone(), bmc, handle.inbox.clone())?;
    // Outermost: nobody gets past the password and the certificate that count by now.
    parts.ports.bmc = Arc::new(Guarded::new(parts.ports.bmc.clone(), access.clone()));
    let looks = identify::Desk::new(
        vault.clone(),
        access.clone(),
        handle.clone(),
        current.clone(),
        database.clone(),
        parts::bmc_ca(&current)?,
    );
    let shelf = consoles::shelf(&daemon.state, &daemon.consoles).map_err(|e| {
        format!("no directory for consoles below `{}`: {e}", daemon.state.display())
    })?;
    let life = consoles::Engine { handle: handle.clone(), access: access.clone() };
    let followed = Consoles::new(
        parts.ipmi.clone(),
        Arc::new(life),
        shelf.clone(),
        daemon.consoles.at_once,
        consoles::Pace::default(),
    );
    if daemon.consoles.follow {
        parts.ports.boot =
            Arc::new(Announcing { boot: parts.ports.boot.clone(), consoles: followed.clone() });
    }
    let rotator = Rotator::new(rotate::Tools {
        edge: parts.bmc.clone(),
        access,
        vault,
        secrets,
        store: database.clone(),
        engine: handle.clone(),
        current: current.clone(),
        pace: pace(ask.time_scale),
        look_every: rotate::LOOK_EVERY / ask.time_scale.max(1),
    });
    let ids: BTreeMap<_, _> = held.expected.iter().map(|(id, e)| (e.name.clone(), *id)).collect();
    rotator.shut(&ids).await?;
    let incarnation = held.state.incarnation.clone();
    let is_current = |id, run: &str| {
        let at = held.machines.binary_search_by_key(&id, |m| m.id);
        at.is_ok_and(|at| held.machines[at].run_name(&incarnation) == run)
    };
    parts.boot.close_strays(is_current).await.map_err(|f| f.to_string())?;
    let settings = Settings { observe_only: ask.observe_only, spread_ms };
    let director = Director::new(Rules, settings, held, site, clock.now());
    let wiring = Wiring { ports: parts.ports.clone(), store: store.clone(), clock };
    let driver = Driver::new(director, wiring, &handle, ends);

    let (ending, ended) = watch::channel(false);
    let mut state = api::State::new(handle.clone(), store.clone());
    state.token = token;
    state.confirm_max = daemon.confirm_max_machines as usize;
    state.ending = ended.clone();
    state.log = api::LogTail::of_process();
    state.database = Some(daemon.database.clone());
    state.webhooks = Some(notifier.clone());
    state.consoles = Some(shelf);
    let control = reload::Control {
        path: ask.config.clone(),
        current: current.clone(),
        store: store.clone(),
        engine: handle.clone(),
        boot: parts.boot.clone(),
        images: parts.images.clone(),
        bmc: parts.bmc.clone(),
        notifier: notifier.clone(),
        manager: manager.clone(),
    };
    let desk = pins::Desk {
        bmc: parts.bmc.clone(),
        pins,
        engine: handle.clone(),
        orders: Orders::new(handle.clone(), current.clone(), "certificates"),
    };
    let netboot = netboot::open(&daemon, &current, &handle, &parts.boot).await?;
    let desks = routes::Desks {
        control: control.clone(),
        rotations: rotate::gate(rotator.clone()),
        pins: desk,
        notifier,
        dhcp: netboot.desk(handle.clone(), database.clone()),
        looks,
    };
    let api = api::router(state, routes::router(desks));
    let mut listeners = vec![tokio::spawn(listen::serve(api_socket, tls, api, ended.clone()))];
    if let Some(boot) = &daemon.boot {
        let socket = listen::bind("boot", boot.bind).await?;
        listeners.push(tokio::spawn(listen::serve(
            socket,
            None,
            netboot.boot_router(parts.boot.router()),
            ended.clone(),
        )));
    }
    let roster = netboot.roster();
    listeners.extend(netboot.start(&ended));
    if let Some(images) = &daemon.image_server {
        let socket = listen::bind("images", images.bind).await?;
        let router = parts.images.router().merge(parts.boot.media_router(roster));
        listeners.push(tokio::spawn(listen::serve(socket, None, router, ended.clone())));
    }
    tracing::info!(api = %daemon.api.bind, database = %daemon.database.display(), "farrier serves");
    tokio::spawn(first_inventory(control.clone(), known, lines, ask.confirm));
    tokio::spawn(hangups(control));
    let left = followed.clone();
    tokio::spawn(async move { left.resume(|name| ids.get(name).copied()).await });
    tokio::spawn(webhooks::watch_stuck(handle.clone(), outbox));
    tokio::spawn(async move {
        rotator.resume().await;
        rotator.keep_fresh().await;
    });
    if let Some(limit) = systemd::watchdog() {
        let (manager, handle, store) = (manager.clone(), handle.clone(), database.clone());
        tokio::spawn(systemd::signs_of_life(manager, limit, handle, store));
    }
    super::pages::for_good();
    manager.tell("READY=1");
    let stopping = async {
        signalled().await;
        manager.tell("STOPPING=1");
    };
    let result = tokio::select! {
        result = driver.run(stopping) => result,
        why = database.lost() => Err(why.to_string()),
    };
    ending.send(true).ok();
    for listener in listeners {
        // A client that keeps its connection open does not keep the daemon alive.
        let grace = std::time::Duration::from_secs(2);
        tokio::time::timeout(grace, listener).await.ok();
    }
    // Sessions left behind fill a BMC's few slots until they time out (field notes R2).
    let grace = std::time::Duration::from_secs(10);
    let (_, left) = tokio::join!(
        tokio::time::timeout(grace, parts.bmc.log_out()),
        tokio::time::timeout(grace, followed.stop()),
    );
    if left.is_err() {
        tracing::warn!("some consoles were not given back; the next start does it");
    }
    tracing::info!("farrier ended");
    result
}

/// Nobody watched while the daemon was down (or the wall clock jumped over the restart): clocks of
/// steps start anew, as after a stop, for this start and those to come.
async fn unwatched(
    store: &dyn Store,
    held: &mut Loaded,
    now: EngineTime,
    time_scale: u32,
) -> Result<(), String> {
    let gap = now.since(held.state.engine_time) / u64::from(time_scale.max(1));
    if gap <= UNWATCHED_MS || held.machines.is_empty() {
        return Ok(());
    }
    tracing::info!(gap = %Span(gap), "nobody watched for some time: clocks of steps start anew");
    let stopped = held.state.stopped.as_ref();
    store.set_stopped(stopped, now).await.map_err(|e| e.to_string())?;
    // A stop's own end does it later.
    if stopped.is_none() {
        held.state.resumed_at = now;
    }
    Ok(())
}

/// Rotations wait by the wall clock, which a demo's world outruns.
fn pace(time_scale: u32) -> Pace {
    let (pace, scale) = (Pace::default(), u64::from(time_scale.max(1)));
    Pace {
        lag_ms: pace.lag_ms / scale,
        rest_ms: pace.rest_ms / scale,
        pause_ms: pace.pause_ms / scale,
        ..pace
    }
}

/// First looks are spread: 2 ms a machine, a minute at most.
fn spread(machines: usize) -> u64 {
    u64::try_from(machines).unwrap_or(u64::MAX).saturating_mul(2).min(60_000)
}

/// Takes the inventory in while the API answers already: with 10,000 new machines that is most of
/// a start. When it is refused, the engine goes on with what the database knows.
async fn first_inventory(
    control: reload::Control,
    known: BTreeMap<Arc<str>, Arc<Expected>>,
    lines: Vec<Arc<Expected>>,
    confirm: Option<usize>,
) {
    let config = control.current.get();
    match reload::take(&*control.store, &known, &lines, &config, confirm).await {
        Ok(machines) if machines.is_empty() => {}
        Ok(machines) => {
            let expect = crate::port::Inward::Expect { machines };
            if control.engine.inbox.send(expect).await.is_err() {
                tracing::error!("the engine ended before it heard of the inventory");
            }
        }
        Err(why) => tracing::error!("{why}"),
    }
}

fn read_token(path: &Path) -> Result<Secret, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("can't read the token file `{}`: {e}", path.display()))?;
    match text.trim() {
        "" => Err(format!("the token file `{}` is empty", path.display())),
        token => Ok(Secret::new(token)),
    }
}

/// SIGTERM or SIGINT.
async fn signalled() {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("can't listen for signals; end me with SIGKILL, nothing is lost by it");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping: actions under way end first");
}

/// SIGHUP reloads; the last good configuration stays when anything is wrong.
async fn hangups(control: reload::Control) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        match control.reload(None).await {
            Ok(said) => tracing::info!("{said}"),
            Err(why) => {
                tracing::error!("reload refused, the last good configuration stays:\n{why}");
            }
        }
    }
}
