//! The host. Real: OpenSSH's `sshd` with its own configuration, port, host key and an unprivileged
//! user, and every script that Farrier runs through it. The test's: the actor that turns what the
//! emulator shows into a machine, because behind the fake driver nothing boots. It sees the power
//! change with its own Redfish client, runs sshd only while the machine is on and installed,
//! fetches what a PXE boot fetches, "installs" by writing files below FARRIER_ROOT, and calls back.
//! DMI, disks, `nvidia-smi` and `dcgmi` are files and shims.

use crate::emulator::Emulator;
use crate::http;
use crate::world::{Running, poll, run};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) const GPUS: usize = 2;
const DISK_BYTES: usize = 3 * 1024 * 1024 + 512;
const SSHD: &str = "/usr/sbin/sshd";
const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) struct Host {
    dir: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) user: String,
    pub(crate) mac: String,
    pub(crate) ssh_port: u16,
    /// `ssh-ed25519 AAAA…`, without the comment.
    pub(crate) host_key: String,
    boot_url: String,
    as_root: bool,
    /// The installer waits between fetching its script and its seed while this is set.
    pub(crate) hold: AtomicBool,
    ending: AtomicBool,
    seen: Mutex<Vec<String>>,
    sshd: Mutex<Option<Running>>,
}

/// The actor's thread; dropping it ends the host.
pub(crate) struct Actor {
    host: Arc<Host>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.host.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        self.host.cut_power();
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// A host that is off, with two blank disks.
    pub(crate) fn build(dir: &Path, uuid: &str, mac: &str, boot_url: &str) -> Arc<Self> {
        assert!(
            Path::new(SSHD).exists(),
            "no {SSHD}: `bash tests/run.sh --only sushy` installs it"
        );
        let dir = dir.join("host");
        let root = dir.join("root");
        for sub in
            ["sys/class/dmi/id", "proc/sys/kernel/random", "etc/farrier", "dev/disk", "var/lib"]
        {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        fs::create_dir_all(dir.join("shims")).unwrap();
        let as_root = run(Command::new("id").arg("-u")) == "0";
        let user = match as_root {
            true => system_user(),
            false => run(Command::new("id").arg("-un")),
        };
        run(Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", "", "-t", "ed25519", "-f"])
            .arg(dir.join("host_key")));
        run(Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", "farrier", "-t", "ed25519", "-f"])
            .arg(dir.join("client_key")));
        fs::copy(dir.join("client_key.pub"), dir.join("authorized")).unwrap();
        fs::set_permissions(dir.join("authorized"), fs::Permissions::from_mode(0o644)).unwrap();
        let line = fs::read_to_string(dir.join("host_key.pub")).unwrap();
        let host_key = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let host = Self {
            root,
            user,
            mac: mac.into(),
            ssh_port: crate::world::free_port(),
            host_key,
            boot_url: boot_url.into(),
            as_root,
            hold: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            seen: Mutex::default(),
            sshd: Mutex::default(),
            dir,
        };
        host.set_dmi(uuid);
        host.file("etc/hostname", "node\n");
        for disk in ["nvme0n1", "nvme1n1"] {
            host.file(&format!("dev/disk/{disk}"), vec![0; DISK_BYTES]);
        }
        host.shims();
        if host.as_root {
            run(Command::new("chown").arg("-R").arg(&host.user).arg(&host.dir));
        }
        Arc::new(host)
    }

    /// Farrier's private key for this host.
    pub(crate) fn client_key(&self) -> String {
        fs::read_to_string(self.dir.join("client_key")).unwrap()
    }

    /// As a board's DMI says it; the serial is what boards say when none was programmed.
    pub(crate) fn set_dmi(&self, uuid: &str) {
        self.file("sys/class/dmi/id/product_uuid", format!("{uuid}\n"));
        self.file("sys/class/dmi/id/product_serial", "To be filled by O.E.M.\n");
    }

    pub(crate) fn file(&self, path: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.root.join(path), bytes).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    /// Each disk's content, by name.
    pub(crate) fn disks(&self) -> Vec<(String, Vec<u8>)> {
        let mut all: Vec<_> = fs::read_dir(self.root.join("dev/disk"))
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.file_name().to_string_lossy().into_owned(), fs::read(e.path()).unwrap()))
            .collect();
        all.sort();
        all
    }

    /// What an operating system leaves on disks: something at the start, inside, and at the end.
    pub(crate) fn write_disks(&self) {
        for (name, mut bytes) in self.disks() {
            let end = bytes.len();
            for at in [0, 512, end / 2, end - 16] {
                bytes[at..at + 16].copy_from_slice(b"somebody's data\n");
            }
            self.file(&format!("dev/disk/{name}"), bytes);
        }
    }

    /// Names of the jobs of this kind that were ever started.
    pub(crate) fn jobs(&self, kind: &str) -> Vec<String> {
        let Ok(all) = fs::read_dir(self.root.join("var/lib/farrier/jobs")) else { return vec![] };
        let names = all.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<_> = names.filter(|n| n.contains(kind)).collect();
        names.sort();
        names
    }

    pub(crate) fn job_file(&self, job: &str, file: &str) -> String {
        self.read(&format!("var/lib/farrier/jobs/{job}/{file}"))
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        locked(&self.seen).clone()
    }

    fn say(&self, what: impl Into<String>) {
        locked(&self.seen).push(what.into());
    }

    pub(crate) fn ssh_listens(&self) -> bool {
        locked(&self.sshd).is_some()
    }

    /// The tools of a GPU host. Inside a job `nvidia-smi` waits for `$FARRIER_ROOT/go`, so that the
    /// test can look at a job that runs; each call inside a job leaves a line in `calls`.
    fn shims(&self) {
        let gpu = |n: usize| {
            format!(
                "<gpu id=\"00000000:{n:02X}:00.0\"><product_name>Test GPU</product_name>\
                 <serial>16400000{n}</serial><uuid>GPU-{n}</uuid>\
                 <temperature><gpu_temp>{} C</gpu_temp></temperature></gpu>",
                40 + n
            )
        };
        let gpus: String = (0..GPUS).map(gpu).collect();
        let xml = format!(
            "<?xml version=\"1.0\" ?>\n<nvidia_smi_log><attached_gpus>{GPUS}</attached_gpus>{gpus}</nvidia_smi_log>\n"
        );
        let dcgm = json!({"DCGM Diagnostic": {"test_categories": [{"category": "Deployment", "tests": [
            {"name": "software", "results": [{"entity_group": "GPU", "entity_id": 0, "status": "Pass"}],
             "test_summary": {"status": "Pass"}}]}]}});
        fs::write(self.dir.join("smi.xml"), xml).unwrap();
        fs::write(self.dir.join("dcgm.json"), format!("{dcgm}\n")).unwrap();
        let d = self.dir.display();
        let count =
            "[ -z \"$FARRIER_RESULT\" ] || echo \"${0##*/}\" >>\"$FARRIER_ROOT/var/lib/calls\"";
        let wait = "n=0; while [ -n \"$FARRIER_RESULT\" ] && [ ! -e \"$FARRIER_ROOT/go\" ] && \
                    [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done";
        for (name, text) in [
            ("nvidia-smi", format!("{count}\n{wait}\ncat '{d}/smi.xml'")),
            ("dcgmi", format!("{count}\ncat '{d}/dcgm.json'")),
        ] {
            let path = self.dir.join("shims").join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// Turns the host's life over to the emulator's power state.
    pub(crate) fn live(self: &Arc<Self>, emulator: Arc<Emulator>) -> Actor {
        let host = self.clone();
        let thread = std::thread::spawn(move || {
            let mut was_on = false;
            let mut boot: Option<NetBoot> = None;
            while !host.ending.load(Ordering::Relaxed) {
                if let Ok(system) = emulator.system() {
                    let on = system["PowerState"] == "On";
                    if on && !was_on {
                        boot = host.power_on(system["Boot"]["BootSourceOverrideTarget"].as_str());
                    }
                    if was_on && !on {
                        host.say("off");
                        boot = None;
                        host.cut_power();
                    }
                    was_on = on;
                }
                if let Some(step) = boot.take() {
                    boot = host.net_boot(step);
                }
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        Actor { host: self.clone(), thread: Some(thread) }
    }

    fn power_on(&self, target: Option<&str>) -> Option<NetBoot> {
        let target = target.unwrap_or("nothing");
        self.say(format!("on, boots from {target}"));
        let word = u64::from(std::process::id()) * 1000 + self.seen().len() as u64;
        self.file(
            "proc/sys/kernel/random/boot_id",
            format!("00000000-0000-4000-8000-{word:012x}\n"),
        );
        match target {
            "Pxe" => Some(NetBoot::Script),
            _ if self.root.join("etc/farrier/image").exists()
                || self.read("etc/os-release").contains("NAME") =>
            {
                self.start_sshd();
                None
            }
            _ => {
                self.say("no operating system on the disk");
                None
            }
        }
    }

    /// One try of the next step; firmware and installer try again until they get an answer.
    fn net_boot(&self, step: NetBoot) -> Option<NetBoot> {
        match step {
            NetBoot::Script => {
                let url = format!("{}/boot/{}/ipxe", self.boot_url, self.mac);
                let script = http::get(&url, None).ok().filter(|a| a.status == 200);
                let Some(script) = script else { return Some(NetBoot::Script) };
                assert!(script.body.starts_with("#!ipxe\n"), "{}", script.body);
                let word = |before: &str| {
                    let rest = script.body.split(before).nth(1);
                    rest.and_then(|r| r.split_whitespace().next()).map(String::from)
                };
                let (Some(kernel), Some(seed)) = (word("\nkernel "), word("farrier.seed=")) else {
                    panic!("no kernel or seed in {}", script.body);
                };
                let kernel = http::get(&kernel, None).unwrap();
                assert_eq!((kernel.status, &*kernel.body), (200, crate::site::KERNEL));
                self.say("fetched its boot script and kernel");
                Some(NetBoot::Seed { base: seed })
            }
            NetBoot::Seed { base } if self.hold.load(Ordering::Relaxed) => {
                Some(NetBoot::Seed { base })
            }
            NetBoot::Seed { base } => {
                let part = |name: &str| {
                    http::get(&format!("{base}{name}"), None).ok().filter(|a| a.status == 200)
                };
                let (Some(seed), Some(meta)) = (part("seed.json"), part("meta-data")) else {
                    return Some(NetBoot::Seed { base });
                };
                let seed = seed.json();
                assert!(meta.body.contains(seed["run"].as_str().unwrap()), "{}", meta.body);
                self.say(format!("installs {}", seed["image"]));
                Some(NetBoot::CallBack { said: self.install(&seed), url: callback(&seed) })
            }
            NetBoot::CallBack { url, said } => match http::post(&url, &said) {
                Ok(answer) if answer.status == 200 => {
                    self.say("called back");
                    None
                }
                Ok(answer) if answer.status < 500 => panic!("{url}: {}", answer.body),
                _ => Some(NetBoot::CallBack { url, said }),
            },
        }
    }

    /// What the installer does: looks at the disks, writes them, leaves Farrier's mark, and runs the
    /// installed system. Returns the callback's body.
    fn install(&self, seed: &Value) -> Value {
        let full = self.disks().iter().any(|(_, b)| b.iter().take(4096).any(|b| *b != 0));
        if full && seed["allow_existing_data"] != true {
            return json!({"token": seed["token"], "ok": false, "host_key": null, "message": "the disks hold data"});
        }
        self.write_disks();
        let word = |key: &str| seed[key].as_str().unwrap().to_string();
        self.file("etc/os-release", "PRETTY_NAME=\"Test OS 1\"\n");
        self.file("etc/farrier/image", format!("image={}\nrun={}\n", word("image"), word("run")));
        self.start_sshd();
        json!({"token": word("token"), "ok": true, "host_key": self.host_key, "message": null})
    }

    fn start_sshd(&self) {
        let config = self.dir.join("sshd_config");
        let d = self.dir.display();
        let text = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {d}/host_key\nAuthorizedKeysFile {d}/authorized\n\
             PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nMaxStartups 100\n\
             SetEnv FARRIER_ROOT={} PATH={d}/shims:{SYSTEM_PATH}\n",
            self.ssh_port,
            self.root.display(),
        );
        fs::write(&config, text).unwrap();
        let log = self.dir.join("sshd.log");
        let mut command = match self.as_root {
            true => {
                let mut c = Command::new("setpriv");
                c.args(["--reuid", &self.user, "--regid", &self.user, "--clear-groups"]);
                c.arg(SSHD);
                c
            }
            false => Command::new(SSHD),
        };
        command.args(["-D", "-e", "-f"]).arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(&log).unwrap());
        *locked(&self.sshd) = Some(Running::start(&mut command));
        poll("sshd listens", 30, || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            said.contains("Server listening on").then_some(())
        });
        self.say("sshd listens");
    }

    /// Nothing survives it: sshd, its connections, what runs in them, and jobs.
    fn cut_power(&self) {
        let Some(mut sshd) = locked(&self.sshd).take() else { return };
        let mut doomed = descendants(sshd.child.id());
        // Jobs have left sshd's family; their environment tells whose they are.
        let mark = format!("FARRIER_ROOT={}", self.root.display());
        for pid in pids() {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            if environ.split(|b| *b == 0).any(|word| word == mark.as_bytes()) {
                doomed.push(pid);
            }
        }
        sshd.kill();
        for pid in doomed {
            Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status().ok();
        }
    }
}

/// How far a network boot has come.
enum NetBoot {
    Script,
    Seed { base: String },
    CallBack { url: String, said: Value },
}

fn callback(seed: &Value) -> String {
    seed["callback"].as_str().unwrap().to_string()
}

fn pids() -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap();
    all.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn descendants(of: u32) -> Vec<u32> {
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let pairs: Vec<(u32, u32)> = pids().into_iter().filter_map(|p| Some((p, parent(p)?))).collect();
    let mut found = vec![of];
    let mut at = 0;
    while let Some(one) = found.get(at).copied() {
        found.extend(pairs.iter().filter(|(_, parent)| *parent == one).map(|(p, _)| *p));
        at += 1;
    }
    found.split_off(1)
}

/// sshd must not run as root here: an unprivileged user of its own.
fn system_user() -> String {
    const USER: &str = "farrier-test";
    let there = || {
        let out = Command::new("id").arg(USER).output().unwrap();
        out.status.success()
    };
    if !there() {
        // Another test may make it at the same time; only that it is there counts.
        let mut add = Command::new("useradd");
        add.args(["--system", "--shell", "/bin/sh", "--home-dir", "/", USER]).output().ok();
        poll("the test user is there", 20, || there().then_some(()));
    }
    USER.into()
}
