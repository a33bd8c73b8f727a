//! `vagrant/`, as its README walks a newcomer through it, up to the login; and away with it again.

use crate::artefacts::{disk_image, farrier, ramdisk};
use crate::lab::{Lab, run, until};
use crate::login::Login;
use crate::machine::emulator_is_here;
use crate::site::LONG;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// As many as are started; `inventory.toml` has one more.
const MACHINES: usize = 2;

struct Walk<'a> {
    lab: &'a Lab,
    /// The test's own copy of `vagrant/`.
    dir: PathBuf,
    daemon: Option<Child>,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

impl Walk<'_> {
    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = self.lab.command(program);
        command.args(words).current_dir(&self.dir).stdin(Stdio::null());
        command.env("LAB_MACHINES", MACHINES.to_string()).env("LAB_LIBVIRT_URI", self.lab.uri());
        command.env("LAB_SUSHY", std::env::var_os("FARRIER_SUSHY_LIBVIRT").unwrap());
        command.env("VAGRANT_HOME", self.lab.path("vagrant.d"));
        command.env("VAGRANT_CHECKPOINT_DISABLE", "1").env("FARRIER_API", "http://127.0.0.1:7120");
        command
    }

    fn run(&self, program: &str, words: &[&str]) -> String {
        let began = std::time::Instant::now();
        let said = run(&mut self.command(program, words));
        println!("{:6.1} s  {program} {}", began.elapsed().as_secs_f32(), words.join(" "));
        said
    }

    fn farrier(&self, words: &[&str]) -> String {
        run(&mut self.command(&farrier().display().to_string(), words))
    }

    fn run_farrier(&self, words: &[&str]) {
        println!("{}", self.run(&farrier().display().to_string(), words));
    }

    fn until(&self, name: &str, what: &str, yes: impl Fn(&Value) -> bool) {
        let began = std::time::Instant::now();
        until(&format!("{name} {what}"), LONG, || {
            let words = ["machine", "show", name, "--json"];
            let out = self.command(&farrier().display().to_string(), &words).output().unwrap();
            let machine: Value = serde_json::from_slice(&out.stdout).ok()?;
            yes(&machine).then_some(())
        });
        println!("{:6.1} s  {name} {what}", began.elapsed().as_secs_f32());
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.kill().ok();
            daemon.wait().ok();
        }
        if std::thread::panicking() {
            println!("{}", fs::read_to_string(self.dir.join("log")).unwrap_or_default());
        }
        // The BMCs would outlive the lab.
        self.command("./lab.sh", &["clean"]).output().ok();
    }
}

#[test]
#[ignore = "long form: `tests/run.sh --long --only vm`, which installs Vagrant"]
fn a_newcomer_gets_a_machine_to_log_in_to() {
    if !emulator_is_here() {
        return;
    }
    let Some(lab) = Lab::start() else { return };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    copy(&here.join("workflows"), &lab.path("workflows"));
    fs::create_dir_all(lab.path("firmware-catalog")).unwrap();
    let dir = lab.path("vagrant");
    copy(&here.join("vagrant"), &dir);
    let mut walk = Walk { lab: &lab, dir: dir.clone(), daemon: None };

    walk.run("vagrant", &["validate"]);
    walk.run("vagrant", &["up", "--provider=libvirt"]);
    walk.run("./lab.sh", &["bmcs"]);
    walk.farrier(&["check"]);

    // The three files name the same machines.
    let inventory: toml::Table =
        toml::from_str(&fs::read_to_string(dir.join("inventory.toml")).unwrap()).unwrap();
    for machine in inventory["machine"].as_array().unwrap().iter().take(MACHINES) {
        let word = |key: &str| machine[key].as_str().unwrap().to_string();
        let domain = lab.virsh(&["dumpxml", &format!("farrier-{}", word("name"))]);
        for wanted in [word("uuid"), word("mac"), word("serial")] {
            assert!(domain.contains(&wanted), "{wanted} is not in {domain}");
        }
        let bmc = machine["bmc"]["url"].as_str().unwrap();
        let login = format!(
            "user = \"admin:{}\"",
            fs::read_to_string(dir.join("lab/bmc-password")).unwrap()
        );
        fs::write(dir.join("login"), login).unwrap();
        let systems =
            walk.run("curl", &["-sSfk", "-K", "login", &format!("{bmc}/redfish/v1/Systems")]);
        assert!(systems.contains(&word("uuid")), "{systems}");
        assert!(systems.contains("\"Members@odata.count\": 1,"), "a BMC of one machine: {systems}");
    }

    // `farrier image build-ramdisk` has made it already, for all tests.
    fs::create_dir_all(dir.join("images")).unwrap();
    symlink(ramdisk(), dir.join("images/farrier-ramdisk")).unwrap();
    let image = disk_image().file.display().to_string();
    walk.farrier(&["image", "add", &image, "--id", "debian"]);
    let log = fs::File::create(dir.join("log")).unwrap();
    let mut serve = walk.command(&farrier().display().to_string(), &["serve"]);
    serve.stdout(log.try_clone().unwrap()).stderr(log);
    walk.daemon = Some(serve.spawn().unwrap());
    for name in ["node1", "node2"] {
        walk.until(name, "is read", |machine| {
            let system = &machine["facts"]["system"];
            system["freshness"] == "fresh" && system["value"]["power"] == "on"
        });
    }
    walk.run_farrier(&["doctor"]);
    walk.run_farrier(&["machine", "enroll", "node1", "--desired", "ready", "--why", "first try"]);
    walk.until("node1", "rests at ready", |machine| {
        assert_ne!(machine["condition"], "quarantined", "{machine:#}");
        machine["stage"] == "ready" && machine["run"].is_null()
    });
    walk.run_farrier(&["machine", "explain", "node1"]);
    println!("{}", walk.farrier(&["machine", "history", "node1"]));
    let login = Login::as_it_is(&lab, &dir.join("lab/ssh_key"), "10.78.0.11");
    let said = login.ask("hostname; cat /etc/farrier/image").expect("a login");
    assert!(said.starts_with("node1") && said.contains("image=debian"), "{said}");
    walk.daemon = walk.daemon.take().and_then(|mut daemon| {
        daemon.kill().ok();
        daemon.wait().ok();
        None
    });

    walk.run("vagrant", &["destroy", "-f"]);
    assert_eq!(lab.virsh(&["list", "--all", "--name"]), "");
    walk.run("./lab.sh", &["clean"]);
    assert!(!dir.join("lab").exists());
    assert!(!lab.virsh(&["net-list", "--all", "--name"]).contains("farrier-lab"));
}
