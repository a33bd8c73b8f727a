//! The demo's site: a world of virtual machines, and the configuration that an operator would have
//! written for it, with all it names: inventory, workflows, catalog, passwords, SSH key.

use super::profile::Profile;
use super::{DemoError, io, log_file};
use crate::config::shipped;
use crate::model::{Identity, Limit, MachineId};
use crate::sim::durations::Durations;
use crate::sim::faults::Dice;
use crate::sim::physics::{Quirks, Sickness};
use crate::sim::rng::mix;
use crate::sim::serve::{self, Berth, Hosts, Latency, Serving};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Machines in a rack of the demo's inventory.
pub(super) const RACK: usize = 8;

/// What a demo is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub machines: u32,
    pub profile: Profile,
    /// Where to draw the run as an SVG picture.
    pub plot: Option<PathBuf>,
    /// `in-service` or `ready`.
    pub until: String,
    /// End once all have arrived.
    pub exit: bool,
    pub seed: u64,
    /// World and engine run this many times faster than real time.
    pub time_scale: u32,
    /// Longest wait until all have arrived, real time.
    pub deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self::new(24)
    }
}

impl Options {
    pub const TIME_SCALE: u32 = 60;

    /// So many machines into service.
    pub fn new(machines: u32) -> Self {
        Self {
            machines,
            profile: Profile::Quick,
            plot: None,
            until: "in-service".into(),
            exit: false,
            seed: 1,
            time_scale: Self::TIME_SCALE,
            deadline: Duration::from_secs(300 + u64::from(machines)),
        }
    }

    /// A site of so many.
    pub fn site(machines: u32) -> Self {
        let profile = Profile::Site;
        Self { profile, time_scale: profile.time_scale(), ..Self::new(machines) }
    }

    fn trouble(&self, n: u32) -> Option<Trouble> {
        Trouble::of(n, self.machines, self.profile.trouble_block())
    }
}

/// What is wrong with a machine on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A GPU fails every burn-in.
    BadGpu,
    /// Every firmware update fails.
    FlashFails,
    /// Another machine was delivered than the inventory expects.
    WrongSerial,
    /// The inventory's password is not the BMC's.
    BadPassword,
    /// The BMC's switch port is dead for some minutes; heals.
    BmcOutage,
}

impl Trouble {
    pub const ALL: [Trouble; 5] = [
        Trouble::BadGpu,
        Trouble::BmcOutage,
        Trouble::WrongSerial,
        Trouble::FlashFails,
        Trouble::BadPassword,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Trouble::BadGpu => "bad GPU",
            Trouble::FlashFails => "every flash fails",
            Trouble::WrongSerial => "wrong machine delivered",
            Trouble::BadPassword => "wrong password",
            Trouble::BmcOutage => "BMC outage, heals",
        }
    }

    /// Must end in quarantine; the others must arrive.
    pub fn is_for_good(self) -> bool {
        self != Trouble::BmcOutage
    }

    /// The trouble of machine `n` (from 0) of `of`: one of each kind in every `every` machines.
    fn of(n: u32, of: u32, every: u32) -> Option<Trouble> {
        let block = n / every * every;
        let size = (of - block).min(every);
        let kinds = u32::try_from(Self::ALL.len()).unwrap_or(1);
        if size <= kinds {
            return None;
        }
        let hit = (0..kinds).find(|k| (k + 1) * size / (kinds + 1) == n - block)?;
        Self::ALL.get(usize::try_from(hit).ok()?).copied()
    }
}

/// When the outage begins and how long it lasts, world time.
const OUTAGE_AFTER_MS: u64 = 21 * 60_000;
const OUTAGE_MS: u64 = 7 * 60_000;

/// A world being served and a configuration for it.
#[derive(Debug)]
pub struct Site {
    /// `farrier.toml`.
    pub config: PathBuf,
    /// Where the daemon writes what it has to say.
    pub log: PathBuf,
    pub api_url: String,
    pub serving: Serving,
    /// By machine name.
    pub trouble: BTreeMap<String, Trouble>,
    dir: TempDir,
}

fn name(n: u32) -> String {
    format!("gpu-{:03}", n + 1)
}

pub(in crate::app) fn identity(seed: u64, n: u32) -> Identity {
    let word = mix(seed ^ mix(u64::from(n)));
    Identity::new(
        Some(&format!("FV{:04X}{:05}", seed & 0xffff, n + 1)),
        Some(&format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{n:012x}",
            word >> 32,
            word & 0xffff,
            n & 0xfff,
            seed & 0xfff
        )),
        Some(&format!(
            "02:fa:{:02x}:{:02x}:{:02x}:{:02x}",
            seed & 0xff,
            n >> 16,
            (n >> 8) & 0xff,
            n & 0xff
        )),
    )
}

impl Site {
    /// Serves the world and writes the configuration. `exe`: the program that the daemon's cluster
    /// hook runs.
    pub async fn build(options: &Options, exe: &Path) -> Result<Site, DemoError> {
        let dir = tempfile::Builder::new()
            .prefix("farrier-demo-")
            .tempdir()
            .map_err(io("a temporary directory"))?;
        let key = key()?;
        let trouble: BTreeMap<String, Trouble> =
            (0..options.machines).filter_map(|n| Some((name(n), options.trouble(n)?))).collect();
        let machines = (0..options.machines).map(|n| {
            let trouble = trouble.get(&name(n)).copied();
            // The inventory says `n`; who was delivered instead is far outside it.
            let who = if trouble == Some(Trouble::WrongSerial) { n + 50_000 } else { n };
            Berth {
                id: MachineId(n + 1),
                name: name(n).into(),
                identity: identity(options.seed, who),
                gpus: 8,
                quirks: quirks(n),
                sick: match trouble {
                    Some(Trouble::BadGpu) => Some(Sickness::Gpu),
                    Some(Trouble::FlashFails) => Some(Sickness::Flash),
                    _ => None,
                },
                user: "admin".into(),
                password: password(options.seed, n),
                dice: Dice::none(),
            }
        });
        let settings = serve::Settings {
            dir: dir.path().join("world"),
            seed: options.seed,
            scale: options.time_scale,
            durations: Durations::default(),
            latency: match options.profile {
                Profile::Quick => Latency::Even(1, 8),
                Profile::Site => Latency::Field,
            },
            hosts: match options.profile {
                Profile::Quick => Hosts::Programs,
                Profile::Site => Hosts::Scripted,
            },
            authorized_key: key
                .public_key()
                .to_openssh()
                .map_err(|e| DemoError::Key(e.to_string()))?,
            redfish_port: 0,
            ssh_port: 0,
            machines: machines.collect(),
        };
        let serving = serve::serve(settings).await?;
        let [api, boot, images] = free_ports()?;
        let site = Site {
            config: dir.path().join("farrier.toml"),
            log: log_file(dir.path()),
            api_url: format!("http://127.0.0.1:{api}"),
            serving,
            trouble,
            dir,
        };
        site.serving.world.set_boot_url(format!("http://127.0.0.1:{boot}"));
        let text = site.daemon_toml(options, exe, [api, boot, images]);
        site.write("farrier.toml", text.as_bytes(), 0o644)?;
        site.write("inventory.toml", site.inventory_toml(options).as_bytes(), 0o644)?;
        let pem = key.to_openssh(LineEnding::LF).map_err(|e| DemoError::Key(e.to_string()))?;
        site.write("ssh_key", pem.as_bytes(), 0o600)?;
        for n in 0..options.machines {
            let wrong = site.trouble.get(&name(n)) == Some(&Trouble::BadPassword);
            let password = if wrong { "calvin".to_string() } else { password(options.seed, n) };
            site.write(&format!("passwords/{}", name(n)), password.as_bytes(), 0o600)?;
        }
        for (file, text) in shipped::WORKFLOWS {
            site.write(&format!("workflows/{file}"), text.as_bytes(), 0o644)?;
        }
        let (file, text) = shipped::VIRTUAL_CATALOG;
        site.write(&format!("firmware-catalog/{file}"), text.as_bytes(), 0o644)?;
        for (file, bytes) in shipped::VIRTUAL_IMAGES {
            site.write(&format!("firmware-catalog/{file}"), bytes, 0o644)?;
        }
        site.write(&format!("images/{IMAGE}/vmlinuz"), b"a kernel would be here\n", 0o644)?;
        site.write(&format!("images/{IMAGE}/initrd.img"), b"a ramdisk would be here\n", 0o644)?;
        Ok(site)
    }

    /// Lets the troubles begin that come while the fleet works.
    pub fn begin_troubles(&self) {
        let world = &self.serving.world;
        for (name, _) in self.trouble.iter().filter(|(_, t)| **t == Trouble::BmcOutage) {
            let Some(seat) = world.seat(name).cloned() else { continue };
            let world = world.clone();
            drop(tokio::spawn(async move {
                tokio::time::sleep(world.real(OUTAGE_AFTER_MS)).await;
                let now = world.now();
                seat.cut_bmc_off(now, now + OUTAGE_MS);
            }));
        }
    }

    /// Ends the world. `keep`: leave the files, and say where.
    pub async fn stop(self, keep: bool) -> Option<PathBuf> {
        self.serving.stop().await;
        match keep {
            true => Some(self.dir.keep()),
            false => None,
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, file: &str, bytes: &[u8], mode: u32) -> Result<(), DemoError> {
        let path = self.dir.path().join(file);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io(parent.display().to_string()))?;
        }
        let shown = path.display().to_string();
        fs::write(&path, bytes).map_err(io(shown.clone()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(io(shown))
    }

    fn daemon_toml(&self, options: &Options, exe: &Path, ports: [u16; 3]) -> String {
        let [api, boot, images] = ports;
        let mut text = format!(
            "# Made by `farrier demo`.\nschema = 1\n\n\
             [paths]\nstate = \"state\"\n\n\
             [listen.api]\nbind = \"127.0.0.1:{api}\"\n\n\
             [listen.boot]\nbind = \"127.0.0.1:{boot}\"\n\
             advertise_url = \"http://127.0.0.1:{boot}\"\n\n\
             [listen.images]\nbind = \"127.0.0.1:{images}\"\n\
             advertise_url = \"http://127.0.0.1:{images}\"\n\n\
             [ssh]\nuser = \"root\"\nkey = \"ssh_key\"\n\n\
             [[cluster]]\nname = \"virtual\"\nkind = \"hooks\"\n\
             command = [{}, \"demo-hook\", \"{}/hook\"]\nwhere = \"local\"\ntimeout = \"30s\"\n\n\
             [confirm]\nmax_machines = {}\n\n\
             [breaker]\nquarantines = {}\nwindow = \"1h\"\n",
            quoted(&exe.display().to_string()),
            self.serving.admin_url,
            options.machines,
            // The sick ones are sick on purpose.
            10 + 2 * self.trouble.len(),
        );
        for n in 0..options.machines {
            let name = name(n);
            let _ = write!(
                text,
                "\n[[credential]]\nname = \"{name}\"\nuser = \"admin\"\n\
                 from = {{ file = \"passwords/{name}\" }}\n"
            );
        }
        text
    }

    fn inventory_toml(&self, options: &Options) -> String {
        let mut text = format!(
            "# Made by `farrier demo`.\nschema = 1\n\n\
             [[site]]\nname = \"demo\"\n\n\
             [[profile]]\nname = \"virtual-gpu\"\nworkflow = \"gpu-node\"\n\
             firmware_set = \"2026.11\"\nimage = \"{IMAGE}\"\ngpus = 8\ncluster = \"virtual\"\n\n\
             [[pool]]\nname = \"train\"\nprofile = \"virtual-gpu\"\n"
        );
        // A site has the limits that ship, and no line of its own.
        let own = options.profile == Profile::Quick;
        for Limit { class, per, max } in
            options.profile.limits(options.machines).into_iter().filter(|_| own)
        {
            let per = per.name();
            let _ =
                write!(text, "\n[[limit]]\nclass = \"{class}\"\nper = \"{per}\"\nmax = {max}\n");
        }
        for rack in 0..options.machines.div_ceil(8) {
            let rack = rack + 1;
            let _ = write!(
                text,
                "\n[[rack]]\nname = \"r{rack:02}\"\nsite = \"demo\"\n\
                 power = [\"feed-{rack:02}a\", \"feed-{rack:02}b\"]\nswitch = \"leaf-{rack:02}\"\n"
            );
        }
        for n in 0..options.machines {
            let who = identity(options.seed, n);
            let Some(seat) = self.serving.world.seat(&name(n)) else { continue };
            let _ = write!(
                text,
                "\n[[machine]]\nname = \"{0}\"\nserial = \"{1}\"\nmac = \"{2}\"\n\
                 rack = \"r{3:02}\"\nposition = {4}\npool = \"train\"\n\
                 bmc = {{ url = \"{5}\", credential = \"{0}\" }}\n\
                 host = {{ address = \"{6}:{7}\" }}\n",
                name(n),
                who.serial.unwrap_or_default(),
                who.mac.unwrap_or_default(),
                n / 8 + 1,
                n % 8 * 8 + 1,
                self.serving.bmc_url(seat),
                seat.address,
                self.serving.ssh_port,
            );
        }
        text
    }
}

/// The image that the profile names; its files are placeholders, the installer is the world's.
const IMAGE: &str = "virtual-linux-1";

pub(in crate::app) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Vendors differ; so do these.
fn quirks(n: u32) -> Quirks {
    Quirks {
        ignores_once: n % 7 == 3,
        identity_null_when_off: n % 5 == 4,
        pads_versions: n % 6 == 5,
        copies_images: false,
        volumes_at_post: n % 8 == 6,
    }
}

fn password(seed: u64, n: u32) -> String {
    format!("{:016x}", mix(mix(seed ^ 0x70a5) ^ u64::from(n)))
}

pub(in crate::app) fn key() -> Result<PrivateKey, DemoError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|e| DemoError::Key(e.to_string()))?;
    PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&bytes)), "farrier-demo")
        .map_err(|e| DemoError::Key(e.to_string()))
}

/// Three ports that are free now; the daemon takes them in a moment.
pub(in crate::app) fn free_ports() -> Result<[u16; 3], DemoError> {
    let listeners: Result<Vec<TcpListener>, _> =
        (0..3).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    let listeners = listeners.map_err(io("a free port"))?;
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr().map_err(io("a free port"))?.port();
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_24_machines_have_one_of_each_trouble() {
        for of in [24, 48, 30, 7, 6] {
            let all: Vec<Trouble> = (0..of).filter_map(|n| Trouble::of(n, of, 24)).collect();
            for kind in Trouble::ALL {
                let wanted = usize::try_from(of.div_ceil(24)).unwrap_or(0);
                assert_eq!(all.iter().filter(|t| **t == kind).count(), wanted, "{of} {kind:?}");
            }
        }
        assert!((0..5).all(|n| Trouble::of(n, 5, 24).is_none()), "too few to be sick");
        let site = Options::site(4_500);
        assert_eq!((0..4_500).filter(|n| site.trouble(*n).is_some()).count(), 50);
    }

    #[tokio::test]
    async fn the_generated_configuration_is_without_a_finding() {
        let options = Options { machines: 30, ..Options::default() };
        let site = Site::build(&options, Path::new("/opt/with \"quotes\"/farrier")).await;
        let site = site.expect("a site");
        let loaded = crate::app::files::load(&site.config).map_err(|p| p.report).expect("valid");
        assert_eq!(loaded.expected.len(), 30);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert!(site.stop(false).await.is_none());
    }
}
