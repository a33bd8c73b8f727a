//! The daemon as an operator would run it: configuration files, shipped workflow, cluster hook,
//! `farrier serve`, and the command line.

use crate::emulator::{self, Emulator};
use crate::host::{GPUS, Host};
use crate::http;
use crate::world::{Clock, Running, free_port};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

pub(crate) const NODE: &str = "node-01";
pub(crate) const IMAGE: &str = "test-os-1";
pub(crate) const KERNEL: &str = "a kernel would be here\n";

/// Engine time runs this many times faster: waits are short, and an order to the BMC still has
/// (60 s + 60 s) / 6 = 20 real seconds to be seen, more than the 11 s that the fake driver takes.
/// Deadlines of HTTP and SSH are real seconds at any scale.
const TIME_SCALE: u32 = 6;

pub(crate) fn farrier() -> PathBuf {
    std::env::var_os("FARRIER_BIN").map_or_else(
        || {
            let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/farrier");
            assert!(built.exists(), "no {}: cargo build --release", built.display());
            built
        },
        PathBuf::from,
    )
}

pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Clock,
    pub(crate) emulator: Arc<Emulator>,
    pub(crate) host: Arc<Host>,
    config: PathBuf,
    api: String,
    daemon: Option<Running>,
}

/// The node in the cluster's books, as the hook keeps it.
pub(crate) const OUTSIDE: &str =
    r#"{"member":false,"ready":false,"cordoned":false,"workloads":0,"detail":"not a node"}"#;

/// A cluster of one file. Logs what it is told and how often it is asked.
const HOOK: &str = r#"#!/bin/sh
cd "${0%/*}" || exit 1
order=$(cat | tr -d ' ')
verb=${order#*'"verb":"'}
verb=${verb%%'"'*}
if [ "$verb" = probe ]; then
    echo "$verb" >>probes
    exec cat node.json
fi
echo "$verb" >>orders
put() { cat >node.json.new && mv node.json.new node.json; }
case $verb in
    join) echo '{"member":true,"ready":true,"cordoned":false,"workloads":2,"detail":"takes work"}' | put ;;
    cordon) sed 's/"cordoned":false/"cordoned":true/' node.json | put ;;
    uncordon) sed 's/"cordoned":true/"cordoned":false/' node.json | put ;;
    leave) echo '{"member":false,"ready":false,"cordoned":false,"workloads":0,"detail":"left"}' | put ;;
    *) echo "{\"ok\":false,\"error\":\"what is $verb?\"}"; exit 0 ;;
esac
echo '{"ok":true}'
"#;

impl Site {
    /// `power`: how the machine is found. `pinned`: the inventory names the host's SSH key.
    pub(crate) fn build(uuid: &str, mac: &str, power: &str, pinned: bool) -> Self {
        let clock = Clock::start();
        let dir = tempfile::Builder::new().prefix("farrier-sushy-").tempdir().unwrap();
        // sshd's user reads below it.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let [api, boot, images] = [free_port(), free_port(), free_port()];
        let boot_url = format!("http://127.0.0.1:{boot}");
        let host = Host::build(dir.path(), uuid, mac, &boot_url);
        let emulator = Arc::new(Emulator::start(dir.path(), &clock, uuid, mac, power));
        let site = Self {
            config: dir.path().join("farrier.toml"),
            api: format!("http://127.0.0.1:{api}"),
            daemon: None,
            dir,
            clock,
            emulator,
            host,
        };
        let shipped = |path: &str| {
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
        };
        site.write("farrier.toml", &site.daemon_toml([api, boot, images]), 0o644);
        site.write("inventory.toml", &site.inventory_toml(uuid, mac, pinned), 0o644);
        // The shipped workflow, but for the patience with real disks: these are wiped in a second.
        let workflow: String = shipped("workflows/cpu-node.toml")
            .lines()
            .filter(|line| !line.starts_with("usual = "))
            .map(|line| format!("{line}\n"))
            .collect();
        site.write("workflows/cpu-node.toml", &workflow, 0o644);
        site.write("firmware-catalog/sushy/emulator.toml", CATALOG, 0o644);
        site.write("firmware-catalog/sushy/bios.bin", "firmware", 0o644);
        site.write(&format!("images/{IMAGE}/vmlinuz"), KERNEL, 0o644);
        site.write(&format!("images/{IMAGE}/initrd.img"), "a ramdisk would be here\n", 0o644);
        site.write("password", emulator::PASSWORD, 0o600);
        site.write("ssh_key", &site.host.client_key(), 0o600);
        site.write("cluster/hook", HOOK, 0o755);
        site.set_node(OUTSIDE);
        site
    }

    fn write(&self, file: &str, text: &str, mode: u32) {
        let path = self.dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn daemon_toml(&self, [api, boot, images]: [u16; 3]) -> String {
        format!(
            "schema = 1\n\n[paths]\nstate = \"state\"\n\n\
             [listen.api]\nbind = \"127.0.0.1:{api}\"\n\n\
             [listen.boot]\nbind = \"127.0.0.1:{boot}\"\nadvertise_url = \"http://127.0.0.1:{boot}\"\n\n\
             [listen.images]\nbind = \"127.0.0.1:{images}\"\nadvertise_url = \"http://127.0.0.1:{images}\"\n\n\
             [ssh]\nuser = \"{}\"\nkey = \"ssh_key\"\n\n\
             [[cluster]]\nname = \"books\"\nkind = \"hooks\"\ncommand = [\"{}/cluster/hook\"]\n\
             where = \"local\"\ntimeout = \"30s\"\n\n\
             [[credential]]\nname = \"bmc\"\nuser = \"{}\"\nfrom = {{ file = \"password\" }}\n",
            self.host.user,
            self.dir.path().display(),
            emulator::USER,
        )
    }

    /// The fake driver knows no serial number: UUID and MAC are the identity.
    fn inventory_toml(&self, uuid: &str, mac: &str, pinned: bool) -> String {
        let key = match pinned {
            true => format!(", host_key = \"{}\"", self.host.host_key),
            false => String::new(),
        };
        format!(
            "schema = 1\n\n[[site]]\nname = \"lab\"\n\n[[rack]]\nname = \"r01\"\nsite = \"lab\"\n\n\
             [[profile]]\nname = \"node\"\nworkflow = \"cpu-node\"\nfirmware_set = \"2026.11\"\n\
             image = \"{IMAGE}\"\ngpus = {GPUS}\ncluster = \"books\"\n\n\
             [[pool]]\nname = \"nodes\"\nprofile = \"node\"\n\n\
             [[machine]]\nname = \"{NODE}\"\nuuid = \"{uuid}\"\nmac = \"{mac}\"\nrack = \"r01\"\n\
             position = 1\npool = \"nodes\"\nbmc = {{ url = \"{}\", credential = \"bmc\" }}\n\
             host = {{ address = \"127.0.0.1:{}\"{key} }}\n",
            self.emulator.url, self.host.ssh_port,
        )
    }

    /// Starts `farrier serve` and waits for its API.
    pub(crate) fn serve(&mut self) {
        let log = self.dir.path().join("farrier.log");
        let out = fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(farrier());
        command.arg("serve").arg("--config").arg(&self.config);
        command.args(["--time-scale", &TIME_SCALE.to_string()]);
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        self.daemon = Some(Running::start(&mut command));
        let url = format!("{}/healthz", self.api);
        let daemon = self.daemon.as_mut().unwrap();
        self.clock.until("the daemon answers", 30, || {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}\n{}", fs::read_to_string(&log).unwrap_or_default());
            http::get(&url, None).is_ok_and(|a| a.status == 200)
        });
    }

    /// `kill -9`, in the middle of whatever it does.
    pub(crate) fn kill_9(&mut self, when: &str) {
        self.clock.say(&format!("kill -9 of the daemon: {when}"));
        self.daemon.take().expect("a daemon").kill();
    }

    /// SIGTERM; true for exit status 0.
    pub(crate) fn stop(&mut self) -> bool {
        let mut daemon = self.daemon.take().expect("a daemon");
        crate::world::run(Command::new("kill").args(["-TERM", &daemon.child.id().to_string()]));
        let ended = || daemon.child.try_wait().ok().flatten();
        self.clock.wait("the daemon ends", 30, ended).success()
    }

    /// The command line, as an operator types it.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new(farrier());
        command.args(args).env("FARRIER_API", &self.api).env("FARRIER_BY", "operator");
        crate::world::run(&mut command)
    }

    pub(crate) fn fsck(&self) -> String {
        let mut command = Command::new(farrier());
        crate::world::run(command.arg("fsck").arg("--config").arg(&self.config))
    }

    /// `GET /v1/machines/NODE`; null while the daemon doesn't know it.
    pub(crate) fn machine(&self) -> Value {
        let url = format!("{}/v1/machines/{NODE}", self.api);
        http::get(&url, None).map_or(Value::Null, |a| a.json())
    }

    pub(crate) fn explain(&self) -> Value {
        serde_json::from_str(&self.cli(&["machine", "explain", NODE, "--json"])).unwrap()
    }

    /// The whole journal in words, one entry a line.
    pub(crate) fn history(&self) -> String {
        self.cli(&["machine", "history", NODE, "--all"])
    }

    /// Waits until the machine is as wanted. A quarantine that nobody waits for ends the test.
    pub(crate) fn until(&self, what: &str, seconds: u64, yes: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.clock.wait(what, seconds, || {
                last = self.machine();
                if yes(&last) {
                    return Some(last.clone());
                }
                assert!(last["condition"] != "quarantined", "quarantined, but waiting for: {what}");
                std::thread::sleep(std::time::Duration::from_millis(100));
                None
            })
        }));
        match waited {
            Ok(found) => found,
            Err(panic) => {
                println!("--- machine\n{last:#}");
                std::panic::resume_unwind(panic);
            }
        }
    }

    pub(crate) fn rests(&self, stage: &str, seconds: u64) -> Value {
        self.until(&format!("it rests at {stage}"), seconds, |m| {
            m["stage"] == stage && m["condition"] == "ok" && m["run"].is_null()
        })
    }

    pub(crate) fn set_node(&self, text: &str) {
        let path = self.dir.path().join("cluster/node.json");
        let new = path.with_extension("test");
        fs::write(&new, format!("{text}\n")).unwrap();
        fs::rename(new, path).unwrap();
    }

    pub(crate) fn node(&self) -> String {
        fs::read_to_string(self.dir.path().join("cluster/node.json")).unwrap()
    }

    /// What the cluster was told, in order.
    pub(crate) fn orders(&self) -> Vec<String> {
        self.hook_log("orders")
    }

    /// How often the cluster was asked about the node.
    pub(crate) fn probes(&self) -> usize {
        self.hook_log("probes").len()
    }

    fn hook_log(&self, file: &str) -> Vec<String> {
        let path = self.dir.path().join("cluster").join(file);
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().map(String::from).collect()
    }
}

/// All that a person needs when the test fails.
impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for file in ["farrier.log", "bmc/log", "host/sshd.log"] {
            let text = fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("--- {file}\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
        }
        println!("--- the host\n{}", self.host.seen().join("\n"));
        for args in [["machine", "explain", NODE], ["machine", "history", NODE]] {
            let mut command = Command::new(farrier());
            let out = command.args(args).env("FARRIER_API", &self.api).output();
            println!("--- {}", args.join(" "));
            println!(
                "{}",
                out.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).into())
            );
        }
    }
}

/// A family for the emulator's machines, so that the step looks for the firmware and finds what the
/// fake driver lacks. The image is "firmware" without a newline.
const CATALOG: &str = r#"schema = 1

[match]
manufacturer = ["^Sushy Emulator$"]
model = ["^$"]

[set."2026.11"]
status = "approved"
order = ["bios"]

[[firmware]]
id = "sushy-bios-2.0"
set = "2026.11"
component = "bios"
inventory_id = '^BIOS$'
version = "2.0"
file = "bios.bin"
size = 8
sha256 = "c3bf47ea1f4a4a605470313cacb3a44f4a461f68c6faeab07e737610cb5ac835"
activation = "host-reset"
"#;
