//! The daemon as an operator runs it takes a machine from a blank disk into service and back to blank,
//! with nothing beside it: its own DHCP, TFTP, boot server, ramdisk and image; a hook for a cluster.

use crate::artefacts::{disk_image, farrier, ramdisk};
use crate::lab::{BMC_PASSWORD, BMC_USER, GATEWAY, Lab, run};
use crate::machine::{Firmware, Machine, Plan, emulator_is_here};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const API: &str = "http://127.0.0.1:7120";

/// The cluster: keeps one node's state in a file.
const HOOK: &str = r#"#!/bin/sh
cd "${0%/*}" || exit 1
order=$(cat | tr -d ' ')
verb=${order#*'"verb":"'}
verb=${verb%%'"'*}
[ "$verb" != probe ] || exec cat node.json
put() { cat >node.json.new && mv node.json.new node.json; }
case $verb in
    join) echo '{"member":true,"ready":true,"cordoned":false,"workloads":0}' | put ;;
    cordon) sed 's/"cordoned":false/"cordoned":true/' node.json | put ;;
    uncordon) sed 's/"cordoned":true/"cordoned":false/' node.json | put ;;
    leave) echo '{"member":false,"ready":false,"cordoned":false,"workloads":0}' | put ;;
esac
echo '{"ok":true}'
"#;

pub(crate) struct Site<'a> {
    lab: &'a Lab,
    pub(crate) dir: PathBuf,
    daemon: Child,
    name: String,
    began: Instant,
}

impl<'a> Site<'a> {
    pub(crate) fn start(lab: &'a Lab, machine: &Machine, boot: &str) -> Self {
        let root = "root_disk = { kind = \"virtio\", min_gb = 1 }";
        Self::start_with(lab, machine, &format!("image = \"debian\"\n{root}\nboot = [{boot}]"))
    }

    /// `profile`: what the machine's profile says of its image.
    pub(crate) fn start_with(lab: &'a Lab, machine: &Machine, profile: &str) -> Self {
        let dir = lab.path("site");
        let write = |file: &str, text: &str, mode: u32| {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write(
            "farrier.toml",
            &format!(
                "schema = 1\n\n[paths]\nstate = \"state\"\n\n[listen.api]\nbind = \"127.0.0.1:7120\"\n\n\
                 [listen.boot]\nbind = \"{GATEWAY}:7121\"\nadvertise_url = \"http://{GATEWAY}:7121\"\n\n\
                 [listen.images]\nbind = \"{GATEWAY}:7122\"\nadvertise_url = \"http://{GATEWAY}:7122\"\n\n\
                 [listen.dhcp]\nmode = \"reservation\"\ninterfaces = [\"lab0\"]\n\n\
                 [listen.tftp]\nbind = \"{GATEWAY}\"\n\n[ssh]\nuser = \"root\"\nkey = \"ssh_key\"\n\n\
                 [[cluster]]\nname = \"books\"\nkind = \"hooks\"\ncommand = [\"{}/cluster/hook\"]\n\
                 where = \"local\"\ntimeout = \"30s\"\n\n\
                 [[credential]]\nname = \"bmc\"\nuser = \"{BMC_USER}\"\nfrom = {{ file = \"password\" }}\n",
                dir.display()
            ),
            0o644,
        );
        // Without one it is given one of the range, and found there.
        let host = match machine.name.as_str() {
            "e1" => String::new(),
            _ => format!("host = {{ address = \"{}\" }}", machine.address),
        };
        write(
            "inventory.toml",
            &format!(
                "schema = 1\n\n[[site]]\nname = \"lab\"\n\n[[rack]]\nname = \"r01\"\nsite = \"lab\"\n\n\
                 [[network]]\nname = \"provision\"\npurpose = \"provision\"\nsubnet = \"10.77.0.0/24\"\n\
                 gateway = \"{GATEWAY}\"\nrange = \"10.77.0.100-10.77.0.199\"\n\n\
                 [[profile]]\nname = \"node\"\nworkflow = \"cpu-node\"\ncluster = \"books\"\n\
                 {profile}\n\n{nic}\
                 [[pool]]\nname = \"nodes\"\nprofile = \"node\"\n\n\
                 [[machine]]\nname = \"{name}\"\nuuid = \"{uuid}\"\nmac = \"{mac}\"\nrack = \"r01\"\n\
                 position = 1\npool = \"nodes\"\n\
                 bmc = {{ url = \"{bmc}\", credential = \"bmc\", tls = \"off\" }}\n\
                 {host}\n",
                nic = crate::network::STATIC,
                name = machine.name,
                uuid = machine.uuid,
                mac = machine.mac,
                bmc = machine.bmc,
            ),
            0o644,
        );
        // The shipped workflow, but for its patience with real disks.
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/workflows/cpu-node.toml");
        let text = fs::read_to_string(shipped).unwrap();
        let workflow: String =
            text.lines().filter(|l| !l.starts_with("usual = ")).map(|l| format!("{l}\n")).collect();
        write("workflows/cpu-node.toml", &workflow, 0o644);
        write("firmware-catalog/.keep", "", 0o644);
        write("password", BMC_PASSWORD, 0o600);
        write("cluster/hook", HOOK, 0o755);
        let nobody = "{\"member\":false,\"ready\":false,\"cordoned\":false,\"workloads\":0}\n";
        write("cluster/node.json", nobody, 0o644);
        let image = disk_image().file.parent().unwrap().to_path_buf();
        fs::create_dir_all(dir.join("images")).unwrap();
        symlink(image, dir.join("images/debian")).unwrap();
        symlink(ramdisk(), dir.join("images/farrier-ramdisk")).unwrap();
        let key = dir.join("ssh_key");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        let daemon = serve(lab, &dir);
        let site = Self { lab, dir, daemon, name: machine.name.clone(), began: Instant::now() };
        site.answers();
        site
    }

    /// Until its API answers.
    fn answers(&self) {
        crate::lab::until("the daemon answers", Duration::from_secs(60), || {
            let out = self.words(&["machine", "list"]).output().unwrap();
            out.status.success().then_some(())
        });
    }

    fn kill_9(&mut self, when: &str) {
        self.say(&format!("kill -9 of the daemon {when}"));
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        self.daemon = serve(self.lab, &self.dir);
        self.answers();
    }

    fn words(&self, words: &[&str]) -> Command {
        let mut command = self.lab.command(&farrier().display().to_string());
        command.args(words).env("FARRIER_API", API).env("FARRIER_BY", "operator");
        command
    }

    pub(crate) fn cli(&self, words: &[&str]) -> String {
        run(&mut self.words(words))
    }

    fn machine(&self) -> Value {
        serde_json::from_str(&self.cli(&["machine", "show", &self.name, "--json"])).unwrap()
    }

    /// Waits until the machine is as wanted; a quarantine ends the test with what there is to read.
    fn until(&self, what: &str, limit: Duration, yes: impl Fn(&Value) -> bool) {
        crate::lab::until(what, limit, || {
            let machine = self.machine();
            if machine["condition"] == "quarantined" {
                let history = self.cli(&["machine", "history", &self.name, "--all"]);
                panic!("quarantined, waiting for {what}\n{machine:#}\n{history}");
            }
            yes(&machine).then_some(())
        });
        self.say(what);
    }

    /// A line of the journal, in words.
    pub(crate) fn heard(&self, what: &str, limit: Duration) {
        self.until(what, limit, |_| {
            self.cli(&["machine", "history", &self.name, "--all"]).contains(what)
        });
    }

    pub(crate) fn rests(&self, stage: &str, limit: Duration) {
        self.until(&format!("rests at {stage}"), limit, |m| {
            m["stage"] == stage && m["condition"] == "ok" && m["run"].is_null()
        });
    }

    pub(crate) fn say(&self, what: &str) {
        println!("{:6.1} s  {}: {what}", self.began.elapsed().as_secs_f32(), self.name);
    }
}

fn serve(lab: &Lab, dir: &std::path::Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = lab.command(&farrier().display().to_string());
    command.arg("serve").arg("--config").arg(dir.join("farrier.toml"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(60).collect();
            println!("-- the end of the daemon's log");
            lines.iter().rev().for_each(|line| println!("{line}"));
        }
    }
}

/// Boots are minutes under software emulation.
pub(crate) const LONG: Duration = Duration::from_secs(900);

fn life(firmware: Firmware, name: &'static str, boot: &str, kills: bool) {
    if !emulator_is_here() {
        return;
    }
    ramdisk();
    disk_image();
    let Some(mut lab) = Lab::start() else { return };
    let machine = lab.machine(&Plan { name, firmware, disk_gib: 1, more_disks: false });
    let mut site = Site::start(&lab, &machine, boot);
    site.cli(&["machine", "enroll", name, "--desired", "in-service", "--why", "first deployment"]);
    site.heard("the deploy ramdisk answers", LONG);
    site.heard("will do deploy-job", LONG);
    if kills {
        site.kill_9("while the image is written");
    }
    site.heard("override reads Hdd", LONG);
    if kills {
        site.kill_9("at the first boot");
    }
    site.rests("in-service", LONG);
    let address = if name == "e1" { "10.77.0.100" } else { &machine.address };
    crate::network::is_static(&lab, &site.dir.join("ssh_key"), address);
    site.say(&format!("its seed gave it {address}"));
    site.cli(&["machine", "set", name, "retired", "--why", "end of lease"]);
    site.rests("retired", LONG);
    let history = site.cli(&["machine", "history", name, "--all"]);
    let deploys = history.matches("will do deploy-job").count();
    assert_eq!(deploys, 1, "one image, one write:\n{history}");
    assert_eq!(history.matches("will do wipe-job").count(), 1, "{history}");
    assert!(machine.disk_is_blank(), "QEMU finds something on the disk");
    let system = machine.redfish("GET", "", None).unwrap();
    assert!(system.contains("\"PowerState\": \"Off\""), "{system}");
    site.say("off, and blank by QEMU's word");
    println!("{history}");
}

#[test]
fn the_daemon_takes_a_uefi_machine_from_blank_to_service_and_back() {
    life(Firmware::Uefi, "e1", "\"pxe\"", true);
}

#[test]
fn the_daemon_takes_a_bios_machine_from_blank_to_service_and_back() {
    life(Firmware::Bios, "e2", "\"pxe\"", false);
}
