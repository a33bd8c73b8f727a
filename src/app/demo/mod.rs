//! `farrier demo`: a fleet of virtual machines goes into service on real HTTP and real SSH.
//!
//! This process is the world: machines, cluster, truth log, progress. The daemon is a child of its
//! own, `farrier serve` on a generated configuration, and knows nothing of a demo but its time
//! scale.
//!
//! | part | what |
//! | --- | --- |
//! | [`site`] | the world, and the configuration that describes it |
//! | `profile` | what differs between a fleet to watch and a site to measure |
//! | [`daemon`] | the child: start, health, graceful stop, kill |
//! | [`fleet`] | what the daemon's API says of the machines, and whether all have arrived |
//! | `hook` | the daemon's cluster hook: passes an order on to the world |
//! | `progress` | bars on a terminal, lines elsewhere |
//! | [`measure`], [`bound`], `table` | what the run cost, how fast it could have been at best, both side by side |
//! | [`plot`] | the run as a picture |
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "generates files, starts a process, looks at a clock"
)]

pub mod bound;
pub mod daemon;
pub mod fleet;
mod hook;
pub mod measure;
pub mod plot;
mod profile;
mod progress;
pub mod site;
mod table;

pub use hook::hook;
pub use profile::Profile;
pub use site::{Options, Site, Trouble};

use daemon::Daemon;
use fleet::{Api, Fleet};
use plot::Course;
use progress::Progress;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// What keeps a demo from going on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("`{what}`: {error}")]
    Io { what: String, error: std::io::Error },
    #[error(transparent)]
    World(#[from] crate::sim::serve::WorldError),
    #[error("a key can't be made: {0}")]
    Key(String),
    #[error("the daemon ended ({status}); its last words:\n{tail}")]
    DaemonEnded { status: String, tail: String },
    #[error("the daemon did not answer at {url} within {seconds} s; its last words:\n{tail}")]
    NoDaemon { url: String, seconds: u64, tail: String },
    #[error("the daemon's API: {0}")]
    Api(String),
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> DemoError {
    let what = what.into();
    move |error| DemoError::Io { what, error }
}

/// Runs the demo; exit 0 when every healthy machine arrived and every sick one is quarantined.
pub fn demo(options: &Options) -> ExitCode {
    let result = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(run(options)),
        Err(error) => Err(DemoError::Io { what: "runtime".into(), error }),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<bool, DemoError> {
    let exe = std::env::current_exe().map_err(io("this program's own file"))?;
    // A virtual machine and its daemon hold a few connections each; the child inherits the limit.
    if let Err(why) = super::descriptors::raise(1_000 + 4 * u64::from(options.machines)) {
        eprintln!("warning: {why}");
    }
    let started = Instant::now();
    let site = Site::build(options, &exe).await?;
    eprintln!(
        "{} virtual machines on loopback, {} of them in trouble; time runs {} times faster here",
        options.machines,
        site.trouble.len(),
        options.time_scale
    );
    if options.profile == Profile::Site {
        eprintln!(
            "BMCs answer as slowly as real ones do; POST, flashing, installation and burn-in take \
             1/{} of their time; hosts answer scripts over SSH without running them",
            options.time_scale
        );
    }
    let mut daemon = Daemon::start(&exe, &site.config, options.time_scale, &site.log)?;
    let outcome = tokio::select! {
        outcome = drive(options, &site, &mut daemon, started) => outcome,
        () = told_to_end() => {
            eprintln!("interrupted");
            Ok(None)
        }
    };
    if let Ok(Some(_)) = outcome
        && !options.exit
    {
        eprintln!("the fleet stays up; web page: {}   Ctrl-C ends it", site.api_url);
        tokio::select! {
            () = told_to_end() => {}
            status = daemon.ended() => eprintln!("the daemon ended: {status}"),
        }
    }
    let keep = !matches!(outcome, Ok(Some(Verdict { arrived: true, .. }) | None));
    daemon.stop().await;
    let kept = site.stop(keep).await;
    if let Some(dir) = kept {
        eprintln!("files of this demo are kept in {}", dir.display());
    }
    let Some(verdict) = outcome? else { return Ok(false) };
    // Last on standard output, whatever was said before.
    println!("{}", verdict.line);
    Ok(verdict.arrived)
}

struct Verdict {
    arrived: bool,
    line: String,
}

/// Ctrl-C, or a signal that would leave the daemon without its world.
pub(in crate::app) async fn told_to_end() {
    let (Ok(mut term), Ok(mut hangup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        drop(tokio::signal::ctrl_c().await);
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// From a started daemon to a fleet that rests.
async fn drive(
    options: &Options,
    site: &Site,
    daemon: &mut Daemon,
    started: Instant,
) -> Result<Option<Verdict>, DemoError> {
    daemon.healthy(&site.api_url, Duration::from_secs(30)).await?;
    eprintln!("web page: {}   daemon's log: {}", site.api_url, site.log.display());
    let api = Api::new(&site.api_url)?;
    let enrolled = Instant::now();
    api.enroll_all(options.machines, &options.until).await?;
    site.begin_troubles();
    let progress = Progress::new(options.machines);
    let deadline = started + options.deadline;
    let mut course = Course::new(options.machines);
    // Thousands of rows are not asked for several times a second.
    let pause = if options.machines > 200 { 1_000 } else { 250 };
    let fleet = loop {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if let Some(error) = daemon.check() {
            return Err(error);
        }
        let fleet = match api.fleet().await {
            Ok(fleet) => fleet,
            // Busy for a moment; the deadline counts on.
            Err(_) if Instant::now() < deadline => continue,
            Err(error) => return Err(error),
        };
        progress.show(&fleet, started.elapsed());
        course.note(enrolled.elapsed(), &fleet);
        if fleet.rests(&options.until, &site.trouble) || Instant::now() >= deadline {
            break fleet;
        }
    };
    let makespan = enrolled.elapsed();
    progress.end();
    if let Some(file) = &options.plot {
        std::fs::write(file, course.svg()).map_err(io(file.display().to_string()))?;
        eprintln!("the run as a picture: {}", file.display());
    }
    let cost = match options.profile {
        Profile::Site => table::Cost::of(options, site, daemon, makespan),
        Profile::Quick => None,
    };
    report(options, site, &api, &fleet, started, cost).await.map(Some)
}

/// Explains what stands out, and sums up.
async fn report(
    options: &Options,
    site: &Site,
    api: &Api,
    fleet: &Fleet,
    started: Instant,
    cost: Option<table::Cost>,
) -> Result<Verdict, DemoError> {
    let arrived = fleet.rests(&options.until, &site.trouble);
    let mut out = std::io::stdout();
    let mut say = |text: &str| {
        // A closed pipe must not keep the daemon from being stopped.
        drop(writeln!(out, "{text}"));
    };
    if !arrived {
        let stuck = fleet.stuck(&options.until, &site.trouble);
        say(&format!("not everything arrived within {} s:", options.deadline.as_secs()));
        for row in stuck {
            say(&format!("\n--- {}", row.name));
            say(&api.explain(&row.name).await.unwrap_or_else(|e| e.to_string()));
        }
    }
    for (name, trouble) in &site.trouble {
        if let Some(row) = fleet.rows.iter().find(|r| r.name == *name) {
            let fault = row.fault.as_deref().unwrap_or("-");
            say(&format!("{name}  {:<22} {:<12} {fault}", trouble.name(), row.condition));
        }
    }
    let shown = fleet.rows.iter().filter(|r| r.condition == "quarantined");
    let shown = shown.max_by_key(|r| site.trouble.get(&r.name) == Some(&Trouble::BadGpu));
    if let Some(row) = shown {
        say(&format!("\n$ farrier --api {} machine explain {}", site.api_url, row.name));
        say(&api.explain(&row.name).await?);
    }
    if let Some(cost) = &cost {
        say(&format!("\n{cost}"));
    }
    let tenths = started.elapsed().as_millis() / 100;
    let seconds = u32::try_from(tenths).map(f64::from).unwrap_or(f64::MAX) / 10.0;
    let line = format!(
        "{{\"machines\":{},\"in_service\":{},\"quarantined\":{},\"seconds\":{seconds:.1}{}}}",
        options.machines,
        fleet.at("in-service"),
        fleet.quarantined(),
        cost.map(|c| c.json()).unwrap_or_default(),
    );
    Ok(Verdict { arrived, line })
}

/// Where the daemon's log of a demo lies.
pub(crate) fn log_file(dir: &std::path::Path) -> PathBuf {
    dir.join("daemon.log")
}
