//! The words of the command line.

pub mod credentials;
pub mod image;

pub use credentials::{BmcCommand, InventoryCommand};
pub use image::{Image, ImageCommand};

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Takes bare-metal machines from rack to cluster and back.
#[derive(Debug, Parser)]
#[command(name = "farrier", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// For every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Where the daemon's API is
    #[arg(
        long,
        global = true,
        env = "FARRIER_API",
        default_value = "http://127.0.0.1:7120",
        value_name = "URL"
    )]
    pub api: String,
    /// File that holds the API's token
    #[arg(long, global = true, env = "FARRIER_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust for an https API instead of the system's
    #[arg(long, global = true, env = "FARRIER_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Who speaks, for the journal [default: the user's name]
    #[arg(long, global = true, env = "FARRIER_BY", value_name = "NAME")]
    pub by: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    Serve(Serve),
    /// Check the configuration, the inventory, workflows and catalog: all problems at once
    Check(Check),
    /// Show a file as a machine would be handed it: boot script, seed, network
    ///
    /// Made from the configuration's files and from leases, without a daemon. The run's name and
    /// everything secret are words in capitals that begin with FARRIER.
    Render(Render),
    /// Show a fleet of virtual machines going into service, on real HTTP and SSH
    Demo(Demo),
    /// The demo's cluster hook: order on standard input, answer on standard output
    #[command(hide = true)]
    DemoHook { url: String },
    /// Serve virtual BMCs that behave as a vendor's do, on loopback, until Ctrl-C
    ///
    /// Every machine has an address of its own, 127.77.x.y. User and password are those of
    /// FARRIER_BMC_USER and FARRIER_BMC_PASSWORD [default: admin, virtual-bmc-pw-1]. The admin port
    /// shows what really happened (`GET /truth`) and takes fault rules (`POST /rules`).
    Vbmc(Vbmc),
    /// Simulate fleets and check the invariants
    Sim(Sim),
    /// Check a database: does each journal fold to its row?
    Fsck(Fsck),
    /// Copy the database, while the daemon runs; the copy is checked before it counts
    Backup(Backup),
    /// Put a backup in the database's place: every machine held, every open action unknown
    Restore(Restore),
    /// Print the unit under which systemd runs the daemon
    SystemdUnit(SystemdUnit),
    /// What keeps machines from booting over the network: other DHCP servers, taken ports, loaders
    Doctor(Doctor),
    /// Find BMCs, and machines that ask for an address
    Discover {
        #[command(subcommand)]
        command: DiscoverCommand,
    },
    /// One BMC over IPMI, by ipmitool: what is left when its Redfish is wedged
    Ipmi(Ipmi),
    /// See webhooks and try one
    Webhook {
        #[command(subcommand)]
        command: WebhookCommand,
    },
    /// Keep credentials
    Secret(Secret),
    /// One BMC without a daemon; passwords and certificates of a site's BMCs
    Bmc {
        #[command(subcommand)]
        command: super::bmc::Words,
    },
    /// What machines boot and what is written to their disks
    Image(Image),
    /// Take in what machines were delivered with
    Inventory {
        #[command(subcommand)]
        command: InventoryCommand,
    },
    /// See and change machines
    Machine {
        #[command(subcommand)]
        command: MachineCommand,
    },
    /// See runs
    Run {
        #[command(subcommand)]
        command: RunCommand,
    },
    /// Stop every action at every machine; probes go on
    Stop {
        /// For the person who finds everything stopped
        #[arg(long)]
        why: String,
    },
    /// Allow actions again
    Resume {
        #[arg(long, default_value = "resumed by hand")]
        why: String,
    },
    /// Read the configuration's files again; the last good ones stay when anything is wrong
    Reload {
        /// Take over an inventory that changes exactly this many known machines
        #[arg(long, value_name = "MACHINES")]
        confirm: Option<usize>,
    },
    /// The site at a glance
    Status,
    /// How full the limits are
    Limits,
    /// Show what becomes durable, as it does
    Events(Events),
}

#[derive(Debug, Args)]
pub struct Serve {
    #[arg(long, default_value = "farrier.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// Probes only: no action, whatever people want
    #[arg(long)]
    pub observe_only: bool,
    /// Engine time runs this many times faster (demos)
    #[arg(long, hide = true, default_value_t = 1)]
    pub time_scale: u32,
    /// Take over an inventory that changes exactly this many known machines
    #[arg(long, value_name = "MACHINES")]
    pub confirm: Option<usize>,
}

#[derive(Debug, Args)]
pub struct Check {
    #[arg(long, default_value = "farrier.toml", value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub struct Render {
    pub machine: String,
    /// ipxe, user-data, meta-data, network-config, seed.json, deployed-user-data, or a file of the
    /// image's recipe [default: tells which there are]
    pub file: Option<String>,
    /// The port that it boots from, where the inventory does not say
    #[arg(long)]
    pub mac: Option<String>,
    #[arg(long, default_value = "farrier.toml", value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub struct Doctor {
    #[arg(long, default_value = "farrier.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// Where to ask who answers DHCP [default: the interfaces of `[listen.dhcp]`]
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub interface: Vec<String>,
    /// Seconds to listen for answers; some servers ping an address for three before they offer it
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub wait: u64,
}

#[derive(Debug, Args)]
pub struct Demo {
    #[arg(long, default_value_t = 24)]
    pub machines: u32,
    /// `site`: answer times of real BMCs, the shipped limits, and what the run cost
    #[arg(long, default_value = "quick", value_parser = ["quick", "site"])]
    pub profile: String,
    /// Draw the run: machines per stage over time
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Where healthy machines should arrive
    #[arg(long, default_value = "in-service", value_parser = ["ready", "in-service"])]
    pub until: String,
    /// End when they have arrived
    #[arg(long)]
    pub exit: bool,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many times faster than real time the demo's world runs [default: 60, or 30 for `site`]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub time_scale: Option<u32>,
}

#[derive(Debug, Args)]
pub struct Vbmc {
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub machines: u32,
    /// How the BMCs behave; `mixed`: each vendor in turn
    #[arg(long, default_value = "clean", value_parser =
        ["dell", "hpe", "lenovo", "supermicro", "dgx", "openbmc", "clean", "mixed"])]
    pub vendor: String,
    /// A profile of your own
    #[arg(long, value_name = "FILE.toml", conflicts_with = "vendor")]
    pub profile: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many times faster than real time the machines live (POST, updates, resets)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub time_scale: u32,
    /// Answer at once, not as slowly as the vendor's BMCs do
    #[arg(long)]
    pub quick: bool,
    /// Speak TLS with a self-signed certificate that is kept, made anew by every start of the BMC, or
    /// expired
    #[arg(long, value_name = "CERTIFICATE", value_parser = ["stable", "new-each-reboot", "expired"])]
    pub tls: Option<String>,
    /// Port of the BMCs; the address must be loopback
    #[arg(long, default_value = "127.0.0.1:0", value_name = "127.0.0.1:PORT")]
    pub listen: std::net::SocketAddr,
    /// Where the admin port is
    #[arg(long, default_value = "127.0.0.1:0", value_name = "127.0.0.1:PORT")]
    pub admin: std::net::SocketAddr,
    /// Write an inventory, and beside it all that `farrier serve` needs to rehearse on these machines
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub inventory_out: Option<PathBuf>,
    /// Serve a captured tree instead: a directory, or a tree's name inside an archive
    #[arg(long, value_name = "DIR|ARCHIVE/NAME", conflicts_with_all = ["vendor", "profile"])]
    pub replay: Option<PathBuf>,
    /// Answer `$expand` on a captured tree as if it were not there, instead of 501
    #[arg(long, requires = "replay")]
    pub ignore_expand: bool,
}

#[derive(Debug, Args)]
pub struct Sim {
    #[arg(long, default_value_t = 100)]
    pub machines: u32,
    /// Simulated days of each seed
    #[arg(long, default_value_t = 7)]
    pub days: u32,
    /// How many seeds
    #[arg(long, default_value_t = 16)]
    pub seeds: u64,
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    pub first_seed: u64,
    /// Only this seed
    #[arg(long, conflicts_with_all = ["seeds", "first_seed"])]
    pub seed: Option<u64>,
    /// What goes wrong: a profile that ships (calm, flaky, chaos, rack-loss, switch-loss,
    /// bad-firmware, humans, old-database) or a file of yours that ends in `.toml`
    #[arg(long, default_value = "flaky", value_name = "NAME|FILE")]
    pub profile: String,
    /// Shrink the first seed that fails to the shortest script found, print it and write it to FILE
    #[arg(long, value_name = "FILE")]
    pub shrink: Option<PathBuf>,
    /// Play a script that was shrunk; everything else comes from it
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Fsck {
    /// The database [default: the one of --config]
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,
    #[arg(long, default_value = "farrier.toml", value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// Where the copy goes; the key of the secrets is not part of it
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub replace: bool,
    /// The database [default: the one of --config]
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,
    #[arg(long, default_value = "farrier.toml", value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// A file that `farrier backup` made
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Check the backup and say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// The database [default: the one of --config]
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,
    #[arg(long, default_value = "farrier.toml", value_name = "FILE")]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub struct SystemdUnit {
    #[arg(long, default_value = "/etc/farrier/farrier.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// Key of the secrets, handed over as the credential `farrier-key`
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Webhooks, what they still have to be told, and how they fail
    List,
    /// Send a `test` event now
    Test { name: String },
}

#[derive(Debug, Args)]
pub struct Secret {
    #[arg(long, default_value = "farrier.toml", value_name = "FILE")]
    pub config: PathBuf,
    #[command(subcommand)]
    pub command: SecretCommand,
}

#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Keep a credential; its value is read from standard input or a file, never from arguments
    Set {
        name: String,
        /// User that the password is for
        #[arg(long)]
        user: Option<String>,
        /// Read the value here [default: standard input]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Names of the kept credentials
    List,
    /// Forget a credential
    Rm { name: String },
}

#[derive(Debug, Subcommand)]
pub enum MachineCommand {
    /// List machines
    List {
        /// Only names like this (`*` and `?`)
        glob: Option<String>,
        /// Only these: pool, rack, stage, step, condition, control, desired, held, stuck, out-of-band
        #[arg(long, value_name = "KEY=VALUE,…")]
        selector: Option<String>,
    },
    /// One machine, with what was read and how old that is
    Show { name: String },
    /// Why a machine is where it is, and what comes next
    Explain { name: String },
    /// A machine's journal
    History {
        name: String,
        /// The last so many lines
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        last: u32,
        /// From the beginning
        #[arg(long, conflicts_with = "last")]
        all: bool,
    },
    /// What its serial console said while a run booted it; kept where the run failed
    Console {
        name: String,
        /// The run that is meant [default: the newest that was kept]
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
    },
    /// Save a machine's evidence as one archive: facts, faults, journal, log
    Evidence {
        name: String,
        /// Where to [default: NAME-evidence.tar.gz]; `-` is standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Write over a file that is there
        #[arg(long)]
        force: bool,
    },
    /// Take over running machines untouched: they rest where they are found
    Adopt(Target),
    /// Hand machines to their workflow
    Enroll {
        #[command(flatten)]
        target: Target,
        /// A first deployment may overwrite disks that hold data
        #[arg(long)]
        allow_existing_data: bool,
        /// Where they should rest
        #[arg(long, default_value = "ready", value_name = "STATE")]
        desired: String,
    },
    /// Say where machines should rest: ready, in-service, drained or retired
    #[command(override_usage = "farrier machine set [OPTIONS] <NAME>... <DESIRED>\n       \
        farrier machine set [OPTIONS] --selector <KEY=VALUE,…> <DESIRED>")]
    Set(SetTarget),
    /// Hold machines for maintenance: probes only
    Hold(Target),
    /// End a hold
    Unhold(Target),
    /// End a quarantine: the step starts over with fresh attempts
    Release(Target),
    /// Try the current step again now
    Retry(Target),
    /// End the current step as skipped; the run goes on with the next one
    Skip {
        #[command(flatten)]
        target: Target,
        /// The step that is meant [default: the one at which the machines are now]
        #[arg(long, value_name = "KEY")]
        step: Option<String>,
    },
    /// Start nothing more of the run, follow what was launched to its end, then rest in repair
    Abort(Target),
    /// Give machines to people for repair
    Repair(Target),
    /// Boot the deploy ramdisk for a person, with their key; the machine must rest in repair
    ///
    /// Farrier writes to no disk for it. It ends with `--end` or when its time is over, by cutting the
    /// power: unmount what you mounted before. Said again with the same key it lasts longer. Without
    /// --key and --end: how to log in.
    Rescue(RescueOrder),
}

#[derive(Clone, Debug, Args)]
pub struct RescueOrder {
    pub name: String,
    /// Your public key, a file like ~/.ssh/id_ed25519.pub
    #[arg(long, value_name = "FILE.pub", conflicts_with = "end", requires = "why")]
    pub key: Option<PathBuf>,
    /// How long from now, like 90m or 8h, at most 72h
    #[arg(long, value_name = "TIME", requires = "key", default_value = "8h")]
    pub r#for: String,
    /// End it: power off, back to rest in repair
    #[arg(long, requires = "why")]
    pub end: bool,
    /// For the person who reads the history at 3 a.m.
    #[arg(long)]
    pub why: Option<String>,
    /// Idempotency key of a command that is said again
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// Which machines, and why.
#[derive(Clone, Debug, Default, Args)]
pub struct Target {
    #[arg(value_name = "NAME", required_unless_present = "selector")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub how: How,
}

/// Like [`Target`]; the last word is the desired state.
#[derive(Clone, Debug, Args)]
pub struct SetTarget {
    /// Names, then where they should rest
    #[arg(value_name = "NAME… DESIRED", required = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub how: How,
}

#[derive(Clone, Debug, Default, Args)]
pub struct How {
    /// Machines by name, pool, rack, stage, step, condition, control, desired, held, stuck,
    /// out-of-band
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub selector: Option<String>,
    /// For the person who reads the history at 3 a.m.
    #[arg(long)]
    pub why: Option<String>,
    /// How many machines the change may touch; asked for when they are many
    #[arg(long, value_name = "COUNT")]
    pub confirm: Option<usize>,
    /// Idempotency key of a command that is said again
    #[arg(long)]
    pub key: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// A machine's runs, newest first
    List { machine: String },
    /// One run, step by step
    Show {
        machine: String,
        /// [default: the latest]
        id: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub struct Events {
    /// Go on until interrupted; what it does anyway
    #[arg(long)]
    pub follow: bool,
    /// Only machines with names like this (`*` and `?`)
    #[arg(long, value_name = "GLOB")]
    pub machine: Option<String>,
    /// End after so many
    #[arg(long, value_name = "COUNT")]
    pub count: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub enum DiscoverCommand {
    /// Knock at the addresses of BMC networks, and compare what answers with the inventory
    ///
    /// No credential is shown, nothing is changed, and only ranges that are allowed are touched:
    /// `[discovery] ranges` of the configuration, or --allow where there is none.
    Scan(Scan),
    /// Who asked for an address by DHCP with a MAC that the inventory does not have, and whom it seems to be
    Seen,
}

#[derive(Clone, Debug, Args)]
pub struct Scan {
    /// Addresses to knock at, as a subnet or one address [default: all that is allowed]
    #[arg(long, value_name = "CIDR", num_args = 1..)]
    pub range: Vec<String>,
    /// A range that may be scanned, where no configuration says it
    #[arg(long, value_name = "CIDR", num_args = 1.., conflicts_with = "config")]
    pub allow: Vec<String>,
    /// The daemon's configuration: allowed ranges, inventory, credentials
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to compare with [default: the inventory of --config]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub inventory: Vec<PathBuf>,
    /// Log in, once, to each machine that shows its UUID, and compare serial and MAC. The credential
    /// is FARRIER_BMC_USER and FARRIER_BMC_PASSWORD, or the configuration's; beside a daemon, which has
    /// the database, that one logs in (--api says where it is)
    #[arg(long)]
    pub identify: bool,
    /// Connections begun a second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rate: u32,
    /// Addresses at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub at_once: u16,
    /// Seconds for one connection
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub timeout: u64,
    #[arg(long, default_value_t = 443, value_name = "PORT")]
    pub https_port: u16,
    #[arg(long, default_value_t = 80, value_name = "PORT")]
    pub http_port: u16,
    #[arg(long, default_value_t = 623, value_name = "PORT")]
    pub ipmi_port: u16,
}

/// The credential is FARRIER_BMC_USER and FARRIER_BMC_PASSWORD.
#[derive(Debug, Args)]
pub struct Ipmi {
    /// Address or name of the BMC, with a port if it is not 623
    #[arg(value_name = "ADDRESS[:PORT]")]
    pub address: String,
    /// The machine's serial number: nothing is written to another one
    #[arg(long)]
    pub serial: Option<String>,
    /// Cipher suite [default: 17, then 3, then what the BMC lists]
    #[arg(long, value_name = "SUITE")]
    pub cipher: Option<u8>,
    #[command(subcommand)]
    pub command: IpmiCommand,
}

#[derive(Debug, Subcommand)]
pub enum IpmiCommand {
    /// Power, FRU and boot device
    Status,
    /// The newest entries of the system event log
    Log {
        #[arg(long, default_value_t = 50)]
        last: usize,
    },
    /// Take down the serial console into a new file; nothing is typed
    Console {
        #[arg(long, value_name = "FILE")]
        into: PathBuf,
        #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: u64,
        #[arg(long, default_value_t = 16, value_name = "MIB")]
        max_mib: u64,
    },
    /// Change the power
    Power {
        #[arg(value_parser = ["on", "off", "soft", "restart"])]
        to: String,
    },
    /// Choose the device of the next boot
    Boot {
        #[arg(value_parser = ["pxe", "cd", "disk", "none"])]
        from: String,
    },
    /// Restart the BMC; the host goes on
    ResetBmc,
}
