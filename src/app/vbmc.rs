//! `farrier vbmc`: virtual BMCs that behave as a vendor's do, to develop against and to rehearse a
//! campaign on. The world is the simulator's; nothing of it leaves loopback.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "reads the environment and files, starts tar, waits for a signal"
)]

mod rehearsal;

use super::demo::site::{identity, key};
use super::demo::{DemoError, io, told_to_end};
use crate::model::MachineId;
use crate::sim::durations::Durations;
use crate::sim::faults::Dice;
use crate::sim::serve::profile::{Certificate, ProfileError, Tls};
use crate::sim::serve::replay::{Expand, ReplayError, Tree};
use crate::sim::serve::{
    Behaviour, Berth, Hosts, Latency, Profile, Serving, Settings, WorldError, serve_as,
};
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use tempfile::TempDir;

/// Where user and password of the virtual BMCs are taken from, as `farrier bmc` takes them.
pub const USER_ENV: &str = "FARRIER_BMC_USER";
pub const PASSWORD_ENV: &str = "FARRIER_BMC_PASSWORD";
/// What they are where nobody says otherwise: no secret, it opens nothing but loopback.
pub const DEFAULT_USER: &str = "admin";
pub const DEFAULT_PASSWORD: &str = "virtual-bmc-pw-1";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    pub machines: u32,
    /// A profile that ships, or `mixed`.
    pub vendor: String,
    /// A profile of one's own, instead.
    pub profile: Option<PathBuf>,
    pub seed: u64,
    /// The machines' own time runs this many times faster.
    pub time_scale: u32,
    /// BMCs answer at once instead of as slowly as the profile says.
    pub quick: bool,
    /// The certificate's kind (`stable`, `new-each-reboot`, `expired`); none: as the profile says.
    pub tls: Option<String>,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    /// Write an inventory here, and beside it all that `farrier serve` needs.
    pub inventory_out: Option<PathBuf>,
    /// A captured tree: a directory, or a name inside an archive.
    pub replay: Option<PathBuf>,
    pub expand: Expand,
    pub json: bool,
}

/// Why there are no virtual BMCs.
#[derive(Debug, thiserror::Error)]
pub enum VbmcError {
    #[error(
        "`{0}` is not a loopback address\n  hint: virtual BMCs take any order; they are served on 127.0.0.0/8 only"
    )]
    NotLoopback(SocketAddr),
    #[error("the profile `{file}` can't be read: {error}")]
    ProfileFile { file: String, error: std::io::Error },
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(
        "`{archive}` can't be unpacked: {why}\n  hint: DIR, or ARCHIVE/NAME for a tree inside an archive that tar reads"
    )]
    Archive { archive: String, why: String },
    #[error(
        "there is no captured tree `{0}`\n  hint: a directory, or ARCHIVE/NAME for a tree inside an archive"
    )]
    NoTree(String),
    #[error(
        "`{0}` was not made by `farrier vbmc` and is left alone\n  hint: name a file in an empty directory"
    )]
    NotOurs(String),
    #[error(transparent)]
    World(#[from] WorldError),
    #[error(transparent)]
    Files(#[from] DemoError),
}

/// Serves until a signal comes. Exit 0 then, 2 when it can't start.
pub fn vbmc(ask: &Ask) -> ExitCode {
    let result = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(run(ask)),
        Err(error) => Err(DemoError::Io { what: "runtime".into(), error }.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(ask: &Ask) -> Result<(), VbmcError> {
    if let Err(why) = super::descriptors::raise(1_000 + 8 * u64::from(ask.machines)) {
        eprintln!("warning: {why}");
    }
    let fleet = Fleet::start(ask).await?;
    let config = match &ask.inventory_out {
        Some(file) => Some(rehearsal::write(file, ask, &fleet)?),
        None => None,
    };
    fleet.tell(ask, config.as_deref());
    told_to_end().await;
    fleet.serving.stop().await;
    Ok(())
}

/// User and password, as the environment has them.
fn credential() -> (String, String) {
    let or = |name: &str, default: &str| {
        std::env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| default.to_string())
    };
    (or(USER_ENV, DEFAULT_USER), or(PASSWORD_ENV, DEFAULT_PASSWORD))
}

/// The running world.
struct Fleet {
    serving: Serving,
    user: String,
    password: String,
    /// The host's side of the daemon's SSH key.
    key: russh::keys::PrivateKey,
    _dir: TempDir,
}

fn name(n: u32) -> String {
    format!("vbmc-{:03}", n + 1)
}

impl Fleet {
    async fn start(ask: &Ask) -> Result<Fleet, VbmcError> {
        for address in [ask.listen, ask.admin] {
            if !address.ip().is_loopback() || !address.is_ipv4() {
                return Err(VbmcError::NotLoopback(address));
            }
        }
        let profiles = profiles(ask)?;
        let dir = tempfile::Builder::new().prefix("farrier-vbmc-").tempdir();
        let dir = dir.map_err(io("a temporary directory"))?;
        let replay = match &ask.replay {
            Some(from) => Some(Arc::new(Tree::load(&unpacked(from, dir.path())?, ask.expand)?)),
            None => None,
        };
        let (user, password) = credential();
        let key = key()?;
        let machines = (0..ask.machines).map(|n| {
            let profile = profiles.get(usize::try_from(n).unwrap_or(0) % profiles.len().max(1));
            Berth {
                id: MachineId(n + 1),
                name: name(n).into(),
                identity: identity(ask.seed, n),
                gpus: 8,
                quirks: profile.map(|p| p.quirks()).unwrap_or_default(),
                sick: None,
                user: user.clone(),
                password: password.clone(),
                dice: Dice::none(),
            }
        });
        let settings = Settings {
            dir: dir.path().join("world"),
            seed: ask.seed,
            scale: ask.time_scale,
            durations: Durations::default(),
            latency: if ask.quick { Latency::Even(0, 1) } else { Latency::Vendor },
            hosts: Hosts::Scripted,
            authorized_key: key
                .public_key()
                .to_openssh()
                .map_err(|e| DemoError::Key(e.to_string()))?,
            redfish_port: ask.listen.port(),
            ssh_port: 0,
            machines: machines.collect(),
        };
        let behaviour = Behaviour { profiles, admin_port: ask.admin.port(), replay };
        let serving = serve_as(settings, behaviour).await?;
        Ok(Fleet { serving, user, password, key, _dir: dir })
    }

    fn tell(&self, ask: &Ask, config: Option<&Path>) {
        let seats = &self.serving.world.seats;
        let vendor = |n: usize| match &ask.replay {
            Some(_) => "captured",
            None => seats.get(n).map_or("", |s| s.profile.name.as_str()),
        };
        if ask.json {
            let bmcs: Vec<_> = seats
                .iter()
                .enumerate()
                .map(|(n, s)| {
                    json!({"name": &*s.name, "url": self.serving.bmc_url(s), "vendor": vendor(n)})
                })
                .collect();
            println!(
                "{}",
                json!({
                    "bmcs": bmcs, "admin": self.serving.admin_url, "user": self.user,
                    "user_env": USER_ENV, "password_env": PASSWORD_ENV,
                    "config": config.map(|c| c.display().to_string()),
                })
            );
            return;
        }
        const SHOWN: usize = 12;
        for (n, seat) in seats.iter().enumerate().take(SHOWN) {
            println!("{:<10} {:<28} {}", seat.name, self.serving.bmc_url(seat), vendor(n));
        }
        if let Some(last) = seats.last().filter(|_| seats.len() > SHOWN) {
            let more = seats.len() - SHOWN;
            println!("… {more} more, up to {} {}", last.name, self.serving.bmc_url(last));
        }
        println!("user and password: as {USER_ENV} and {PASSWORD_ENV} say, else see --help");
        println!("admin: {} (truth, counters, machines, rules)", self.serving.admin_url);
        if let Some(config) = config {
            let (config, scale) = (config.display(), ask.time_scale);
            println!("to rehearse: farrier serve --config {config} --time-scale {scale}");
        }
        println!("Ctrl-C ends it");
    }
}

fn profiles(ask: &Ask) -> Result<Vec<Arc<Profile>>, VbmcError> {
    let certificate = match ask.tls.as_deref() {
        None => return vendors(ask),
        Some("new-each-reboot") => Certificate::NewEachReboot,
        Some("expired") => Certificate::Expired,
        Some(_) => Certificate::Stable,
    };
    let tls = Some(Tls { certificate });
    let with = |p: &Arc<Profile>| Arc::new(Profile { tls, ..Profile::clone(p) });
    Ok(vendors(ask)?.iter().map(with).collect())
}

fn vendors(ask: &Ask) -> Result<Vec<Arc<Profile>>, VbmcError> {
    Ok(match (&ask.profile, ask.vendor.as_str()) {
        (Some(file), _) => {
            let shown = file.display().to_string();
            let text = std::fs::read_to_string(file)
                .map_err(|error| VbmcError::ProfileFile { file: shown.clone(), error })?;
            vec![Profile::parse(&shown, &text)?]
        }
        (None, "mixed") => Profile::mixed()?,
        (None, vendor) => vec![Profile::named(vendor)?],
    })
}

/// The directory of a captured tree; one inside an archive is unpacked below `dir` first.
fn unpacked(from: &Path, dir: &Path) -> Result<PathBuf, VbmcError> {
    if from.is_dir() {
        return Ok(from.to_path_buf());
    }
    let archive = from.ancestors().skip(1).find(|p| p.is_file());
    let Some((archive, inside)) = archive.and_then(|a| Some((a, from.strip_prefix(a).ok()?)))
    else {
        return Err(VbmcError::NoTree(from.display().to_string()));
    };
    let to = dir.join("captured");
    std::fs::create_dir_all(&to).map_err(io(to.display().to_string()))?;
    let failed = |why: String| VbmcError::Archive { archive: archive.display().to_string(), why };
    let out = Command::new("tar")
        .arg("-xf")
        .arg(archive)
        .arg("-C")
        .arg(&to)
        .arg("--")
        .arg(inside)
        .output()
        .map_err(|e| failed(format!("tar: {e}")))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        return Err(failed(said.lines().next().unwrap_or("tar failed").to_string()));
    }
    Ok(to.join(inside))
}
