//! The daemon as an operator runs it, in the lab: its files, its words, and what its journal says.

use crate::artefacts::{disk_image, farrier, ramdisk};
use crate::lab::{BMC_PASSWORD, BMC_USER, GATEWAY, Lab, run};
use crate::machine::Machine;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const API: &str = "http://127.0.0.1:7120";

/// A whole installation under software emulation, on cores that compilers use too: with a load of twenty
/// on two cores nine hundred seconds were not enough. What passes waits no longer for it.
pub(crate) const LONG: Duration = Duration::from_secs(2700);

/// The cluster: keeps each node's state in a file.
const HOOK: &str = r#"#!/bin/sh
cd "${0%/*}" || exit 1
order=$(cat | tr -d ' ')
verb=${order#*'"verb":"'}
verb=${verb%%'"'*}
node=${order#*'"machine":"'}
node=${node%%'"'*}
put() { cat >"$node.json.new" && mv "$node.json.new" "$node.json"; }
nobody='{"member":false,"ready":false,"cordoned":false,"workloads":0}'
[ -e "$node.json" ] || echo "$nobody" | put
[ "$verb" != probe ] || exec cat "$node.json"
case $verb in
    join) echo '{"member":true,"ready":true,"cordoned":false,"workloads":0}' | put ;;
    cordon) sed 's/"cordoned":false/"cordoned":true/' "$node.json" | put ;;
    uncordon) sed 's/"cordoned":true/"cordoned":false/' "$node.json" | put ;;
    leave) echo "$nobody" | put ;;
esac
echo '{"ok":true}'
"#;

/// A machine's line of the inventory.
#[derive(Clone, Debug)]
pub(crate) struct Line<'m> {
    pub(crate) machine: &'m Machine,
    /// As the profile spells its boot methods.
    pub(crate) boot: &'static str,
    /// The profile's rule for the root disk.
    pub(crate) root_disk: &'static str,
    /// Whose BMC the inventory takes for this machine's.
    pub(crate) bmc_of: &'m Machine,
    /// Lines for the profile behind its own: the installed system's interfaces.
    pub(crate) nics: &'static str,
    /// The inventory gives it its address; else it is given one of the network's range.
    pub(crate) addressed: bool,
    /// An installer that the profile trusts, instead of the disk image.
    pub(crate) installer: Option<&'static str>,
}

impl<'m> Line<'m> {
    pub(crate) fn of(machine: &'m Machine, boot: &'static str) -> Self {
        Self {
            machine,
            boot,
            root_disk: "kind = \"virtio\", min_gb = 1",
            bmc_of: machine,
            nics: "",
            addressed: true,
            installer: None,
        }
    }

    /// A machine that is to come as far as the ramdisk: what is wanted of its disk is a disk that it
    /// has not, so the job in the ramdisk ends before it fetches or writes anything.
    pub(crate) fn to_the_ramdisk(machine: &'m Machine, boot: &'static str) -> Self {
        Self { root_disk: "serial = \"NOT-IN-HERE\"", ..Self::of(machine, boot) }
    }

    pub(crate) fn with_bmc_of(&self, other: &'m Machine) -> Self {
        Self { bmc_of: other, ..self.clone() }
    }
}

pub(crate) struct Site<'a> {
    lab: &'a Lab,
    pub(crate) dir: PathBuf,
    daemon: Child,
    names: Vec<String>,
    pub(crate) patience: Duration,
    began: Instant,
}

impl<'a> Site<'a> {
    /// A daemon that answers DHCP in this `mode`, for these machines.
    pub(crate) fn start(lab: &'a Lab, mode: &str, lines: &[Line<'_>]) -> Self {
        let dir = lab.path("site");
        fs::create_dir_all(&dir).unwrap();
        put(&dir, "farrier.toml", &config(&dir, mode), 0o644);
        put(&dir, "inventory.toml", &inventory(lines), 0o644);
        put(&dir, "workflows/cpu-node.toml", &workflow(), 0o644);
        put(&dir, "firmware-catalog/.keep", "", 0o644);
        put(&dir, "password", BMC_PASSWORD, 0o600);
        put(&dir, "cluster/hook", HOOK, 0o755);
        let image = disk_image().file.parent().unwrap().to_path_buf();
        fs::create_dir_all(dir.join("images")).unwrap();
        symlink(image, dir.join("images/debian")).unwrap();
        symlink(ramdisk(), dir.join("images/farrier-ramdisk")).unwrap();
        let key = dir.join("ssh_key");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        let daemon = serve(lab, &dir);
        let names = lines.iter().map(|l| l.machine.name.clone()).collect();
        let site = Self { lab, dir, daemon, names, patience: LONG, began: Instant::now() };
        site.answers();
        site
    }

    /// Until its API answers, and knows the machines.
    fn answers(&self) {
        crate::lab::until("the daemon answers", Duration::from_secs(120), || {
            let out = self.words(&["machine", "list"]).output().unwrap();
            let said = String::from_utf8_lossy(&out.stdout);
            self.names.iter().all(|name| said.contains(name.as_str())).then_some(())
        });
    }

    pub(crate) fn kill_9(&mut self, when: &str) {
        println!("{:6.1} s  kill -9 of the daemon {when}", self.began.elapsed().as_secs_f32());
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        self.daemon = serve(self.lab, &self.dir);
        self.answers();
    }

    /// The inventory as it is from now on.
    pub(crate) fn expects(&self, lines: &[Line<'_>]) {
        put(&self.dir, "inventory.toml", &inventory(lines), 0o644);
        self.cli(&["reload"]);
    }

    fn words(&self, words: &[&str]) -> Command {
        let mut command = self.lab.command(&farrier().display().to_string());
        command.args(words).env("FARRIER_API", API).env("FARRIER_BY", "operator");
        command
    }

    pub(crate) fn cli(&self, words: &[&str]) -> String {
        run(&mut self.words(words))
    }

    fn show(&self, name: &str) -> Value {
        serde_json::from_str(&self.cli(&["machine", "show", name, "--json"])).unwrap()
    }

    pub(crate) fn history(&self, name: &str) -> String {
        self.cli(&["machine", "history", name, "--all"])
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Waits until the machine is as wanted. Looks once a second: each look is two programs.
    fn until(&self, name: &str, what: &str, mut yes: impl FnMut(&Value) -> bool) {
        let end = Instant::now() + self.patience;
        loop {
            let machine = self.show(name);
            if yes(&machine) {
                break;
            }
            let quarantined = machine["condition"] == "quarantined";
            if quarantined || Instant::now() > end {
                let why = if quarantined { "quarantined" } else { "late" };
                let history = self.history(name);
                panic!("{name} is {why}, waiting for: {what}\n{machine:#}\n{history}");
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        self.say(name, what);
    }

    /// A line of the journal, in words.
    pub(crate) fn heard(&self, name: &str, what: &str) {
        self.until(name, what, |_| self.history(name).contains(what));
    }

    pub(crate) fn rests(&self, name: &str, stage: &str) {
        self.until(name, &format!("rests at {stage}"), |m| {
            m["stage"] == stage && m["condition"] == "ok" && m["run"].is_null()
        });
    }

    /// Waits for the quarantine; its fault, which has to say all of these words.
    pub(crate) fn quarantined(&self, name: &str, code: &str, words: &[&str]) {
        let mut fault = Value::Null;
        self.until(name, &format!("quarantined: {code}"), |m| {
            fault = m["fault"].clone();
            m["condition"] == "quarantined"
        });
        assert_eq!(fault["code"], code, "{fault:#}\n{}", self.history(name));
        let said = fault.to_string();
        for word in words {
            assert!(said.contains(word), "nothing of `{word}`: {said}");
        }
        assert!(fault["hint"].is_string(), "no hint: {said}");
        self.say(name, fault["message"].as_str().unwrap());
    }

    pub(crate) fn say(&self, name: &str, what: &str) {
        println!("{:6.1} s  {name}: {what}", self.began.elapsed().as_secs_f32());
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(60).collect();
            println!("-- the end of the daemon's log");
            lines.iter().rev().for_each(|line| println!("{line}"));
        }
    }
}

fn put(dir: &Path, file: &str, text: &str, mode: u32) {
    let path = dir.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn config(dir: &Path, mode: &str) -> String {
    let netboot = match mode {
        "off" => "[listen.dhcp]\nmode = \"off\"\n\n".to_string(),
        mode => format!(
            "[listen.dhcp]\nmode = \"{mode}\"\ninterfaces = [\"lab0\"]\n\n\
             [listen.tftp]\nbind = \"{GATEWAY}\"\n\n"
        ),
    };
    format!(
        "schema = 1\n\n[paths]\nstate = \"state\"\n\n[listen.api]\nbind = \"127.0.0.1:7120\"\n\n\
         [listen.boot]\nbind = \"{GATEWAY}:7121\"\nadvertise_url = \"http://{GATEWAY}:7121\"\n\n\
         [listen.images]\nbind = \"{GATEWAY}:7122\"\nadvertise_url = \"http://{GATEWAY}:7122\"\n\n\
         {netboot}[ssh]\nuser = \"root\"\nkey = \"ssh_key\"\n\n\
         [[cluster]]\nname = \"books\"\nkind = \"hooks\"\ncommand = [\"{}/cluster/hook\"]\n\
         where = \"local\"\ntimeout = \"30s\"\n\n\
         [[credential]]\nname = \"bmc\"\nuser = \"{BMC_USER}\"\nfrom = {{ file = \"password\" }}\n",
        dir.display()
    )
}

fn inventory(lines: &[Line<'_>]) -> String {
    let mut text = format!(
        "schema = 1\n\n[[site]]\nname = \"lab\"\n\n[[rack]]\nname = \"r01\"\nsite = \"lab\"\n\n\
         [[network]]\nname = \"provision\"\npurpose = \"provision\"\nsubnet = \"10.77.0.0/24\"\n\
         gateway = \"{GATEWAY}\"\nrange = \"10.77.0.100-10.77.0.199\"\n\n"
    );
    for (position, line) in (1..).zip(lines) {
        let Machine { name, uuid, mac, address, .. } = line.machine;
        let Line { boot, root_disk, bmc_of, nics, .. } = line;
        let image = match line.installer {
            Some(id) => format!("{id}\"\ntrust_installer = true"),
            None => "debian\"".into(),
        };
        let host = match line.addressed {
            true => format!("host = {{ address = \"{address}\" }}"),
            false => String::new(),
        };
        text.push_str(&format!(
            "[[profile]]\nname = \"{name}\"\nworkflow = \"cpu-node\"\nimage = \"{image}\n\
             cluster = \"books\"\nroot_disk = {{ {root_disk} }}\nboot = [{boot}]\n\n{nics}\
             [[pool]]\nname = \"{name}\"\nprofile = \"{name}\"\n\n\
             [[machine]]\nname = \"{name}\"\nuuid = \"{uuid}\"\nmac = \"{mac}\"\nrack = \"r01\"\n\
             position = {position}\npool = \"{name}\"\n\
             bmc = {{ url = \"{bmc}\", credential = \"bmc\", tls = \"off\" }}\n\
             {host}\n\n",
            bmc = bmc_of.bmc,
        ));
    }
    text
}

/// The shipped workflow, but for its patience with real disks and real people.
fn workflow() -> String {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/workflows/cpu-node.toml");
    let text = fs::read_to_string(shipped).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with("usual = "));
    let lines = lines.map(|l| match l.split_once(", base = ") {
        Some((attempts, _)) if l.starts_with("retry = ") => {
            format!("{attempts}, base = \"2s\", cap = \"10s\" }}\n")
        }
        _ => format!("{l}\n"),
    });
    lines.collect()
}

fn serve(lab: &Lab, dir: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = lab.command(&farrier().display().to_string());
    command.arg("serve").arg("--config").arg(dir.join("farrier.toml"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}
