//! The virtual machines on a wire: the physics of [`crate::sim::physics`] behind real Redfish over
//! HTTP and real SSH, for `farrier demo` and the tests. The other side of the edges, so it imports
//! none of them.
//!
//! | part | what |
//! | --- | --- |
//! | [`seat`] | one machine: physics under a lock, BMC sessions, what its host is due to do |
//! | `wire`, `tls` | listeners that tell machines apart by the address they were called at; certificates |
//! | [`redfish`] | the BMC: login and reads; `write`: where a write goes; `message`: what it says |
//! | `tree` | its resources; `accounts`, `bios`, `logs`, `media`, `update`, `volumes`: their writes |
//! | `latency` | how long a BMC takes for what |
//! | [`profile`], `dialect` | vendors as data, and what they put between the wire and the tree |
//! | [`rules`] | faults by rule, from the admin port |
//! | [`replay`] | a captured tree instead of the physics |
//! | [`host`] | the host's SSH server; `sandbox`: its file system, boots and processes; `scripted`: hosts without either |
//! | [`actor`] | the host's own calls: boot script, seed, installation, callback |
//! | [`admin`] | the world's own door: truth log, counters, cluster hook |
//!
//! What an honest fleet must imitate (field notes §6), and which test holds it:
//!
//! | line | what | test |
//! | --- | --- | --- |
//! | §6.1 | latencies by class, with a tail | `answers_take_what_the_field_notes_say` |
//! | §6.2 | few workers, a queue, a ceiling of connections | `connections_have_a_ceiling` |
//! | §6.3 | sessions run out and leak until they expire | `sessions_run_out_as_the_vendor_says_and_expire` |
//! | §6.4, §6.5 | a reset takes sessions and tasks; the BMC comes back in steps | `a_bmc_comes_back_in_steps`, `the_phases_come_in_their_order_and_end` |
//! | §6.6 | power takes its time, POST too; refused resets | `resets_are_listed_and_refused_as_the_vendor_does`, `what_the_wire_says_is_how_the_board_stands` |
//! | §6.7 | boot override by vendor | `each_vendor_has_its_own_boot_override`, `rf_boot_override_is_kept_and_consumed_by_one_boot` |
//! | §6.8 | updates: verified, staged, visible after the reset | `an_update_is_staged_until_the_reset_that_loses_its_task`, `rf_update_pulls_and_pushes_and_the_image_says_what_is_installed` |
//! | §6.9 | tasks that lie in every way | `each_mode_tells_the_truth_in_its_own_way`, `update_flaws_show_as_field_reports_say` |
//! | §6.10 | GPUs on a second system, absent while off; a copy in the background that a power cut breaks | `hgx_gpus_are_on_a_second_system`, `gpus_are_on_the_baseboard_and_processors_on_the_host`, `a_new_image_is_copied_in_the_background_and_the_chassis_says_so`, `a_power_cut_during_the_background_copy_breaks_the_component` |
//! | §6.11 | ETags | `etags_are_spelt_as_the_vendor_spells_them`, `each_mode_takes_what_it_takes` |
//! | §6.12 | shapes of errors | `errors_have_the_shapes_of_the_field` |
//! | §6.13 | lock-out, forced change, length rules, fixed slots | `accounts_are_fixed_slots_where_the_vendor_has_them`, `slots_are_all_there_and_lengths_are_the_vendors`, `an_account_locks_and_the_right_password_does_not_help`, `a_password_that_must_be_changed_closes_everything_else`, `accounts_have_roles_length_rules_and_a_lockout` |
//! | §6.14 | virtual media that fetches, and stays visible | `rf_virtual_media_inserts_an_image_that_can_be_had_and_no_other`, `an_ejected_image_stays_visible_for_some_seconds` |
//! | §6.15 | a task that becomes a job; a queue that is full, in strict order, or whose controller is in use | `each_mode_tells_the_truth_in_its_own_way`, `a_full_job_queue_is_said_with_who_fills_it_and_nothing_of_theirs_is_deleted`, `an_update_behind_an_unfinished_job_does_not_begin_before_that_is_over`, `a_lifecycle_controller_in_use_is_waited_for` |
//! | §6.16 | faults by rule, the same by seed | `a_rule_strikes_as_often_as_it_says_and_the_same_each_time`, `under_every_fault_an_order_is_carried_out_once_at_most` |
//! | §6.17 | a clock that is off; certificates that are kept, new after each start, expired | `a_clock_that_is_off_shows_in_all_that_the_bmc_dates`, `a_certificate_that_a_reboot_changes_is_another_machines_until_it_is_accepted`, `a_kept_certificate_outlives_reboots_and_not_somebodys_new_one`, `an_expired_certificate_is_good_where_it_is_pinned_and_refused_under_a_ca` |
//! | §6.18 | vendors mixed; captured trees | `a_campaign_is_rehearsed_on_six_vendors_under_faults`, `facts_of_every_captured_tree_are_those_of_its_files` |
//! | §6.19 | somebody at the rack | `somebody_at_the_rack_pulls_power_cuts_the_network_and_resets_the_bmc` |
//! | §6.20 | the truth log; the clean profile is valid | `the_validator_finds_no_fault_with_a_gpu_node`, `the_validator_finds_no_fault_with_a_cpu_node` |
//!
//! World time is real time since the start, times `scale`. One listener a protocol on loopback;
//! machine n has the address 127.77.x.y.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the world behind the wire has a clock, files and processes"
)]

mod accounts;
pub mod actor;
pub mod admin;
mod bios;
mod call;
mod dialect;
pub mod host;
mod latency;
mod logs;
mod media;
mod message;
mod multipart;
pub mod profile;
pub mod redfish;
pub mod replay;
pub mod rules;
mod sandbox;
mod scripted;
pub mod seat;
mod tls;
mod tree;
mod update;
mod volumes;
mod wire;
mod write;

pub use latency::Latency;
pub use profile::Profile;
pub use seat::{Berth, Body, Counters, Seat};

use super::durations::Durations;
use super::physics::Calendar;
use super::rng::{Rng, mix};
use crate::model::EngineTime;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What a world is built from.
#[derive(Debug)]
pub struct Settings {
    /// Directory of the sandboxes; made if missing.
    pub dir: PathBuf,
    pub seed: u64,
    /// World seconds per real second.
    pub scale: u32,
    /// Physical durations in world time; [`Durations::wired`] is applied here.
    pub durations: Durations,
    pub latency: Latency,
    pub hosts: Hosts,
    /// The one public key that the hosts let in, OpenSSH form.
    pub authorized_key: String,
    /// 0: any free one.
    pub redfish_port: u16,
    /// 0: any free one.
    pub ssh_port: u16,
    pub machines: Vec<Berth>,
}

/// How the wire behaves, besides what is behind it. The default: cleanly.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Machine n has the n-th, over and over; none: the clean tree.
    pub profiles: Vec<Arc<Profile>>,
    /// Of the admin listener; 0: any free one.
    pub admin_port: u16,
    /// Files instead of the physics.
    pub replay: Option<Arc<replay::Tree>>,
}

/// What stands behind the hosts' SSH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Real programs in a sandbox each.
    Programs,
    /// Answers from the physics; for sites of thousands.
    Scripted,
}

/// All machines and their common clock.
#[derive(Debug)]
pub struct World {
    pub seats: Vec<Arc<Seat>>,
    by_address: BTreeMap<Ipv4Addr, usize>,
    started: Instant,
    scale: u32,
    latency: Latency,
    pub(crate) hosts: Hosts,
    authorized: russh::keys::PublicKey,
    seed: u64,
    draws: AtomicU64,
    boot_url: Mutex<Option<String>>,
    pub rules: rules::Rules,
    replay: Option<Arc<replay::Tree>>,
}

/// Why a world can't start.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    #[error("`{what}`: {error}")]
    Io { what: String, error: std::io::Error },
    #[error("the public key that hosts are to let in can't be read: {0}")]
    Key(String),
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> WorldError {
    let what = what.into();
    move |error| WorldError::Io { what, error }
}

impl World {
    /// Machine `n`'s address: 127.77.x.y, never .0 or .255.
    pub fn address(n: usize) -> Ipv4Addr {
        let (x, y) = (n / 250, n % 250 + 1);
        Ipv4Addr::new(127, 77, u8::try_from(x % 250).unwrap_or(0), u8::try_from(y).unwrap_or(1))
    }

    /// World time now.
    pub fn now(&self) -> EngineTime {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        EngineTime(ms.saturating_mul(u64::from(self.scale)))
    }

    /// A world duration in real time.
    pub fn real(&self, world_ms: u64) -> Duration {
        Duration::from_millis(world_ms.div_ceil(u64::from(self.scale)))
    }

    /// A real duration in world milliseconds.
    pub fn world_ms(&self, real: Duration) -> u64 {
        u64::try_from(real.as_millis()).unwrap_or(u64::MAX).saturating_mul(u64::from(self.scale))
    }

    /// The seat called at `local`.
    pub fn seat_at(&self, local: SocketAddr) -> Option<&Arc<Seat>> {
        let SocketAddr::V4(local) = local else { return None };
        self.seats.get(*self.by_address.get(local.ip())?)
    }

    pub fn seat(&self, name: &str) -> Option<&Arc<Seat>> {
        self.seats.iter().find(|s| &*s.name == name)
    }

    /// Where hosts ask for their boot script: what DHCP would tell them. Base URL of the boot
    /// listener, without a slash at the end.
    pub fn set_boot_url(&self, url: impl Into<String>) {
        let url: String = url.into();
        *self.boot_url.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(url.trim_end_matches('/').to_string());
    }

    pub fn boot_url(&self) -> Option<String> {
        self.boot_url.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A number that nobody else drew.
    fn draw(&self) -> u64 {
        mix(self.seed ^ mix(self.draws.fetch_add(1, Ordering::Relaxed)))
    }

    /// The number of a write, as the truth log has it.
    fn seq(&self) -> u64 {
        self.draw() >> 40
    }

    /// How long `seat` takes for its `n`-th request.
    fn latency(&self, seat: &Seat, asked: latency::Asked, n: u64) -> Duration {
        let stream = u64::from(u32::from(seat.address)) << 32 | n & 0xffff_ffff;
        let mut rng = Rng::stream(self.seed ^ 0x1a7e, stream);
        self.latency.pick(asked, &seat.profile.pace, &mut rng)
    }

    /// How long a request to `seat` waits for a worker before it is turned away.
    fn queue_max(&self, seat: &Seat) -> Duration {
        self.latency.queue_max(&seat.profile.pace)
    }
}

/// A world being served. Dropping it ends the listeners; [`Serving::stop`] ends the hosts'
/// processes too.
#[derive(Debug)]
pub struct Serving {
    pub world: Arc<World>,
    pub redfish_port: u16,
    pub ssh_port: u16,
    pub admin_url: String,
    tasks: JoinSet<()>,
}

impl Serving {
    /// `http://127.77.…:port` of a machine's BMC, or `https`.
    pub fn bmc_url(&self, seat: &Seat) -> String {
        let scheme = if seat.profile.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}", seat.address, self.redfish_port)
    }

    /// Ends everything, the programs in the sandboxes included.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        if self.world.hosts == Hosts::Scripted {
            return;
        }
        for seat in &self.world.seats {
            sandbox::kill_all(&seat.root).await;
        }
    }
}

/// Builds the world, makes the sandboxes and opens the listeners; every BMC behaves cleanly.
pub async fn serve(settings: Settings) -> Result<Serving, WorldError> {
    serve_as(settings, Behaviour::default()).await
}

/// The same with BMCs that behave as said.
pub async fn serve_as(settings: Settings, behaviour: Behaviour) -> Result<Serving, WorldError> {
    // Another part of the process may have installed it; the first one stays.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let durations = Arc::new(settings.durations);
    let programs = settings.hosts == Hosts::Programs;
    let wired = match settings.hosts {
        Hosts::Programs => durations.wired(),
        // Without programs the physics ends the jobs.
        Hosts::Scripted => {
            Durations { burn_in: durations.burn_in, wipe: durations.wipe, ..durations.wired() }
        }
    };
    let wired = Arc::new(wired);
    let mut seats = Vec::with_capacity(settings.machines.len());
    let mut inboxes = Vec::with_capacity(settings.machines.len());
    let clean = Arc::new(Profile::default());
    let calendar = Calendar {
        began_ms: jiff::Timestamp::now().as_millisecond(),
        scale: settings.scale.max(1),
    };
    let shims = sandbox::make_shims(&settings.dir).await.map_err(io("shims"))?;
    for (n, berth) in settings.machines.into_iter().enumerate() {
        let root = settings.dir.join("hosts").join(&*berth.name);
        let rng = Rng::stream(settings.seed, n as u64);
        let profiles = &behaviour.profiles;
        let profile = profiles.get(n % profiles.len().max(1)).unwrap_or(&clean).clone();
        let mut draw = Rng::stream(settings.seed ^ 0x3042, n as u64);
        let workers = settings.latency.workers(&profile.pace, &mut draw);
        let address = World::address(n);
        let skew_ms = skew_ms(&profile, settings.seed, address);
        let manner = seat::Manner { profile, workers };
        let (seat, inbox) = Seat::new(berth, manner, address, root, &shims, wired.clone(), rng);
        let diag_ms = durations.burn_in.pick(&mut Rng::stream(settings.seed ^ 0xd1a6, n as u64));
        let begin = EngineTime::ZERO;
        seat.with(begin, |b| {
            b.vm.board.calendar = calendar;
            b.vm.board.put_clock_ahead(begin, skew_ms);
        });
        let seat = Arc::new(seat);
        if programs {
            sandbox::make(&seat, diag_ms / u64::from(settings.scale.max(1)))
                .await
                .map_err(io(seat.root.display().to_string()))?;
        }
        seats.push(seat);
        inboxes.push(inbox);
    }
    let authorized = russh::keys::PublicKey::from_openssh(&settings.authorized_key)
        .map_err(|e| WorldError::Key(e.to_string()))?;
    let world = Arc::new(World {
        by_address: seats.iter().enumerate().map(|(i, s)| (s.address, i)).collect(),
        seats,
        started: Instant::now(),
        scale: settings.scale.max(1),
        latency: settings.latency,
        hosts: settings.hosts,
        authorized,
        seed: settings.seed,
        draws: AtomicU64::new(1),
        boot_url: Mutex::new(None),
        rules: rules::Rules::default(),
        replay: behaviour.replay,
    });
    let mut tasks = JoinSet::new();
    let bmcs = wire::bind(settings.redfish_port).map_err(io("the Redfish listener"))?;
    let redfish_port = bmcs.local_addr().map_err(io("the Redfish listener"))?.port();
    tasks.spawn(redfish::serve(world.clone(), bmcs));
    let hosts = wire::bind(settings.ssh_port).map_err(io("the SSH listener"))?;
    let ssh_port = hosts.local_addr().map_err(io("the SSH listener"))?.port();
    tasks.spawn(host::serve(world.clone(), hosts));
    let door = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, behaviour.admin_port)).await;
    let door = door.map_err(io("the admin listener"))?;
    let admin = door.local_addr().map_err(io("the admin listener"))?;
    tasks.spawn(admin::serve(world.clone(), door));
    for (seat, inbox) in world.seats.iter().zip(inboxes) {
        tasks.spawn(actor::live(world.clone(), seat.clone(), inbox));
    }
    tasks.spawn(tick(world.clone()));
    Ok(Serving { world, redfish_port, ssh_port, admin_url: format!("http://{admin}"), tasks })
}

/// By what this machine's clock is wrong.
fn skew_ms(profile: &Profile, seed: u64, address: Ipv4Addr) -> i64 {
    let (from, to) = profile.clock.skew_s;
    let span = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
    let drawn = Rng::stream(seed ^ 0xc10c, u64::from(u32::from(address))).between(0, span);
    from.saturating_add(i64::try_from(drawn).unwrap_or(0)).saturating_mul(1000)
}

/// Fires what is due even while nobody calls, so that power cuts end connections when they happen.
async fn tick(world: Arc<World>) {
    loop {
        let now = world.now();
        for seat in world.seats.iter().filter(|s| s.next_at() <= now) {
            seat.with(now, |_| ());
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}
