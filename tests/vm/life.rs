//! Lives of machines, driven through the SSH edge: without the engine, which has tests of its own on the
//! same lab.

use crate::artefacts::{DiskImage, build_ramdisk, disk_image, ramdisk};
use crate::lab::{GATEWAY, Lab, run, until};
use crate::machine::{Firmware, Machine, Plan, emulator_is_here};
use crate::server::{Body, Server};
use async_trait::async_trait;
use farrier::model::deploy::{ImageFormat, RootDisk};
use farrier::model::facts::{HostFacts, JobState};
use farrier::model::{
    Channel, Expect, Fault, FaultClass, HostEndpoint, Identity, MachineId, Outcome,
};
use farrier::port::command::HostCommand;
use farrier::port::deploy::{DeployOrder, SeedFile};
use farrier::port::{Credential, HostTarget, Secret, Shell, Vault};
use farrier::shell::{Settings, SshShell};
use serde_json::Value;
use std::fs;
use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For a boot under software emulation, on cores that others use too.
const BOOT: Duration = Duration::from_secs(1200);
const JOB: Duration = Duration::from_secs(1800);

struct Key(String);

#[async_trait]
impl Vault for Key {
    async fn credential(&self, name: &str) -> Result<Credential, Fault> {
        Err(Fault::new(FaultClass::Bug, Channel::Engine, "no-credential", name.to_string()))
    }

    async fn ssh_key(&self, _name: &str) -> Result<Secret, Fault> {
        Ok(Secret::new(self.0.clone()))
    }
}

/// One machine's run, as the test sees it.
pub(crate) struct Run<'a> {
    pub(crate) lab: &'a Lab,
    machine: &'a Machine,
    pub(crate) server: Server,
    pub(crate) shell: SshShell,
    public_key: String,
    began: Instant,
}

pub(crate) fn keygen(path: &Path) -> (String, String) {
    run(Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"])
        .arg(path));
    let public = fs::read_to_string(path.with_extension("pub")).unwrap();
    (fs::read_to_string(path).unwrap(), public.trim().to_string())
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

impl<'a> Run<'a> {
    pub(crate) fn new(lab: &'a Lab, machine: &'a Machine, server: Server) -> Self {
        let (private, public_key) = keygen(&lab.path(&format!("{}-farrier", machine.name)));
        let settings = Settings {
            connect_deadline: Duration::from_secs(60),
            command_deadline: Duration::from_secs(120),
            ..Settings::new("farrier", "root")
        };
        let shell = SshShell::new(Arc::new(Key(private)), settings);
        Self { lab, machine, server, shell, public_key, began: Instant::now() }
    }

    pub(crate) fn say(&self, what: &str) {
        println!("{:6.1} s  {}: {what}", self.began.elapsed().as_secs_f32(), self.machine.name);
    }

    fn base(&self) -> String {
        format!("/boot/{}", self.machine.mac.replace(':', "-"))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{GATEWAY}:{}{path}", self.server.port)
    }

    /// Lets the machine boot the ramdisk for `run`.
    pub(crate) fn serve_ramdisk(&self, run: &str) {
        let base = self.base();
        let seed = serde_json::json!({
            "kind": "ramdisk", "name": self.machine.name, "run": run, "token": format!("token-{run}"),
            "callback": self.url(&format!("{base}/callback")), "authorized_keys": [self.public_key],
        });
        self.server.put(&format!("{base}/seed.json"), Body::Text(seed.to_string()));
        for name in ["vmlinuz", "initrd.img"] {
            let file = Body::File(ramdisk().join(name));
            self.server.put(&format!("{base}/ramdisk/{name}"), file);
        }
    }

    /// Waits until the ramdisk has called home; the host as it may be spoken to.
    pub(crate) fn called_home(&self, run: &str) -> HostTarget {
        let said = until("the ramdisk calls home", BOOT, || self.server.take_said().pop());
        let body: Value = serde_json::from_str(&said.body).unwrap();
        assert_eq!((&body["ok"], &body["token"]), (&true.into(), &format!("token-{run}").into()));
        assert_eq!(said.path, format!("{}/callback", self.base()));
        self.host(said.from, body["host_key"].as_str().unwrap())
    }

    fn host(&self, address: IpAddr, key: &str) -> HostTarget {
        HostTarget {
            machine: MachineId(1),
            name: self.machine.name.as_str().into(),
            endpoint: HostEndpoint {
                address: address.to_string().into(),
                user: "root".into(),
                ..HostEndpoint::default()
            },
            host_key: Some(key.into()),
        }
    }

    pub(crate) fn expect(&self) -> Expect {
        expect(&self.machine.uuid, &self.machine.serial)
    }

    fn facts(&self, host: &HostTarget) -> Result<HostFacts, Fault> {
        self.lab.inside(|| block_on(self.shell.facts(host)))
    }

    /// Follows a job to its end; its result.
    pub(crate) fn follow(&self, host: &HostTarget, name: &str) -> Value {
        self.follow_every(host, name, Duration::ZERO)
    }

    /// The same, with this pause after each look: one is a login, and costs the machine.
    pub(crate) fn follow_every(&self, host: &HostTarget, name: &str, pause: Duration) -> Value {
        let mut last = 0;
        until(&format!("job {name} ends"), JOB, || {
            match self.lab.inside(|| block_on(self.shell.job(host, name))) {
                Ok(job) => match job.state {
                    JobState::Running { progress } => {
                        assert!(progress >= last, "progress goes on");
                        last = progress;
                        std::thread::sleep(pause);
                        None
                    }
                    JobState::Finished { result, .. } => {
                        Some(result.unwrap_or_else(|| panic!("no result: {:?}", job.tail)))
                    }
                    other => panic!("{other:?}"),
                },
                Err(fault) => {
                    println!("        {fault}");
                    None
                }
            }
        })
    }
}

fn expect(uuid: &str, serial: &str) -> Expect {
    Expect { identity: Identity::new(Some(serial), Some(uuid), None), ..Expect::default() }
}

pub(crate) fn order(
    run: &Run<'_>,
    image: &DiskImage,
    id: &str,
    host_key: &str,
    public: &str,
) -> DeployOrder {
    run.server.put("/images/debian", Body::File(image.file.clone()));
    let indented: String = host_key.lines().map(|l| format!("    {l}\n")).collect();
    let user_data = format!(
        "#cloud-config\nhostname: {name}\nlocale: false\ndisable_root: false\nssh_deletekeys: true\n\
         ssh_keys:\n  ed25519_public: {public}\n  ed25519_private: |\n{indented}\
         users:\n  - name: root\n    ssh_authorized_keys: [\"{key}\"]\n\
         write_files:\n  - path: /etc/farrier/image\n    content: |\n      image=debian\n      run={id}\n",
        name = run.machine.name,
        key = run.public_key,
    );
    let meta_data = format!("instance-id: {id}\nlocal-hostname: {}\n", run.machine.name);
    DeployOrder {
        image: "debian".into(),
        run: id.into(),
        image_url: run.url("/images/debian"),
        format: ImageFormat::RawZst,
        sha256: image.sha256.clone(),
        size: image.size,
        raw_size: image.raw_size,
        root: RootDisk { serial: Some("LABDISK1".into()), ..RootDisk::default() },
        allow_existing_data: false,
        seed: vec![
            SeedFile { name: "user-data".into(), content: Secret::new(user_data) },
            SeedFile { name: "meta-data".into(), content: Secret::new(meta_data) },
        ],
    }
}

/// A server of files, and a DHCP server that sends machines to it.
pub(crate) fn pxe(lab: &mut Lab) -> Server {
    let server = lab.inside(|| Server::start(GATEWAY));
    lab.dhcp(&format!("http://{GATEWAY}:{}/boot.ipxe", server.port));
    server.put(
        "/boot.ipxe",
        Body::Text(format!(
            "#!ipxe\nset here http://{GATEWAY}:{}/boot/${{net0/mac:hexhyp}}\n\
             kernel ${{here}}/ramdisk/vmlinuz initrd=initrd.img farrier.seed=${{here}}/ ip=dhcp BOOTIF=01-${{net0/mac:hexhyp}}\n\
             initrd ${{here}}/ramdisk/initrd.img\nboot\n",
            server.port
        )),
    );
    server
}

/// The whole life of one machine that boots over the network. The daemon's own lives (`engine.rs`) go the
/// same way; these look at each step, and take a quarter of an hour each.
fn whole_life(firmware: Firmware, name: &'static str) {
    if !emulator_is_here() {
        return;
    }
    // The longest jobs of all, side by side with the lab's start.
    let making = std::thread::spawn(|| {
        disk_image();
    });
    ramdisk();
    let Some(mut lab) = Lab::start() else { return };
    let machine = lab.machine(&Plan {
        disk_gib: 4,
        more_disks: firmware == Firmware::Uefi,
        ..Plan::small(name, firmware)
    });
    let server = pxe(&mut lab);
    making.join().unwrap();
    let image = disk_image();
    let run = Run::new(&lab, &machine, server);

    run.serve_ramdisk("run-1");
    machine.boot("Pxe");
    let host = run.called_home("run-1");
    run.say("the ramdisk called home");
    assert_eq!(host.endpoint.address.to_string(), machine.address);

    let facts = run.facts(&host).unwrap();
    assert_eq!(facts.ramdisk_run.as_deref(), Some("run-1"));
    assert_eq!(facts.identity.serial.as_deref(), Some(&*machine.serial));
    assert_eq!(facts.holds_data, Some(false), "the disks are blank");
    let hardware = lab.inside(|| block_on(run.shell.hardware(&host))).unwrap();
    let nic = &hardware.nics[0];
    assert_eq!((nic.mac.as_deref(), nic.link_up), (Some(&*machine.mac), Some(true)));
    assert_eq!(hardware.product.as_deref(), Some("VirtualNode"));
    assert!(hardware.memory_mib.is_some_and(|m| m > 800) && !hardware.cpus.is_empty());
    let disk = |serial: &str| hardware.disks.iter().find(|d| d.serial.as_deref() == Some(serial));
    assert_eq!(disk("LABDISK1").map(|d| (&*d.attached, d.bytes)), Some(("virtio", Some(4 << 30))));
    let mut serials = vec!["LABDISK1".to_string()];
    if firmware == Firmware::Uefi {
        assert_eq!(disk("LABNVME1").map(|d| &*d.attached), Some("nvme"), "{:?}", hardware.disks);
        assert_eq!(disk("LABSCSI1").map(|d| &*d.attached), Some("virtio"), "{:?}", hardware.disks);
        serials.extend(["LABNVME1".into(), "LABSCSI1".into()]);
    }
    run.say("facts and hardware read");

    // Another machine's order is refused before a byte is written.
    let (private, public) = keygen(&lab.path("host-key"));
    let told = order(&run, image, "run-1", &private, &public);
    let other = expect("7e57ab1e-0000-4000-8000-0000000000ff", &machine.serial);
    let deploy = |expect: &Expect, name: &str| {
        lab.inside(|| block_on(run.shell.start_deploy(&host, expect, &told, name, 900_000)))
    };
    let refused = deploy(&other, "deploy-other");
    assert!(matches!(refused, Outcome::Refused { wrong_machine: true, .. }), "{refused:?}");

    let started = deploy(&run.expect(), "deploy-1");
    assert!(matches!(started, Outcome::Applied { .. }), "{started:?}");
    // The same name again starts nothing.
    assert!(matches!(deploy(&run.expect(), "deploy-1"), Outcome::Applied { .. }));
    let result = run.follow(&host, "deploy-1");
    assert_eq!(result["ok"], true, "{result}");
    assert_eq!(result["disk"]["serial"], "LABDISK1");
    run.say(&format!("image written in {} s", result["seconds"]));
    let order_left = lab.inside(|| block_on(run.shell.tail(&host, "deploy-1", 65_536))).unwrap();
    assert!(!order_left.contains("PRIVATE KEY"), "the job's output tells the host key");
    assert!(!order_left.contains("through a pipe"), "no device before the disk: {order_left}");

    machine.boot("Hdd");
    let host = run.host(host.endpoint.address.to_string().parse().unwrap(), &public);
    let facts = until("the system answers with the key that its seed carried", BOOT, || {
        run.facts(&host).ok()
    });
    assert_eq!(
        (facts.image.as_deref(), facts.image_run.as_deref()),
        (Some("debian"), Some("run-1"))
    );
    assert_eq!((facts.hostname.as_deref(), facts.ramdisk_run), (Some(name), None));
    run.say("the system answers with the key that its seed carried");

    run.serve_ramdisk("run-2");
    machine.boot("Pxe");
    let host = run.called_home("run-2");
    run.say("back in the ramdisk");
    if firmware == Firmware::Bios {
        // A disk that a run of ours wrote may be written again; an image that is gone boots nothing.
        let gone = DeployOrder { image_url: run.url("/images/gone"), ..told.clone() };
        let started = lab.inside(|| {
            block_on(run.shell.start_deploy(&host, &run.expect(), &gone, "deploy-gone", 900_000))
        });
        assert!(matches!(started, Outcome::Applied { .. }), "{started:?}");
        let result = run.follow(&host, "deploy-gone");
        assert_eq!(result["error"], "fetch-failed", "{result}");
        let said = lab.inside(|| block_on(run.shell.tail(&host, "deploy-gone", 8192))).unwrap();
        assert!(said.contains("vda was written by a run of ours before"), "{said}");
    }
    if firmware == Firmware::Uefi {
        // A boot entry of ours, which is to go, among the firmware's own, which are to stay.
        let words = "efibootmgr -q -c -d /dev/vda -p 2 -l \\EFI\\BOOT\\BOOTX64.EFI -L";
        let mut argv: Vec<String> = words.split(' ').map(String::from).collect();
        argv.push(format!("Farrier {name}"));
        let made = lab
            .inside(|| block_on(run.shell.run(&host, None, &argv, b"", Duration::from_secs(60))));
        assert!(made.as_ref().is_ok_and(|r| r.exit == Some(0)), "{made:?}");
    }
    let wipe = |name: &str, serials: &[String]| {
        let started = lab.inside(|| {
            block_on(run.shell.start_wipe(&host, &run.expect(), serials, name, 900_000))
        });
        assert!(matches!(started, Outcome::Applied { .. }), "{started:?}");
        run.follow(&host, name)
    };
    // And a drive that somebody pulled out.
    let pulled = firmware == Firmware::Bios;
    let mut expected = serials.clone();
    expected.extend(pulled.then(|| "PULLED-1".to_string()));
    let result = wipe("wipe-1", &expected);
    assert_eq!(result["verified"], !pulled, "{result}");
    if pulled {
        assert_eq!(result["not_sanitized"][0]["drive"], "PULLED-1", "{result}");
        assert_eq!(result["not_sanitized"][0]["advice"], "not sanitized: destroy");
    }
    assert_eq!(result["drives"].as_array().unwrap().len(), serials.len(), "{result}");
    for drive in result["drives"].as_array().unwrap() {
        assert!(drive["started"].is_string() && drive["claims"] != "", "{drive}");
        assert_eq!(drive["verified"], true, "{drive}");
        if drive["serial"] == "LABNVME1" {
            assert!(drive["method"].as_str().unwrap().starts_with("NVMe Format"), "{drive}");
        }
    }
    if firmware == Firmware::Uefi {
        let gone = result["boot_entries"].as_str().unwrap();
        assert!(gone.ends_with(&format!("Farrier {name}")) && !gone.contains("UEFI"), "{result}");
    }
    run.say(&format!("wiped: {}", result["drives"]));
    machine.power("ForceOff");
    assert!(machine.disk_is_blank(), "QEMU finds something on the disk");
    run.say("off, and blank by QEMU's word");
}

#[test]
#[ignore = "long form: `tests/run.sh --long --only vm`"]
fn a_uefi_machine_goes_from_blank_to_a_login_and_back() {
    whole_life(Firmware::Uefi, "n1");
}

#[test]
#[ignore = "long form: `tests/run.sh --long --only vm`"]
fn a_bios_machine_goes_from_blank_to_a_login_and_back() {
    whole_life(Firmware::Bios, "n2");
}

/// A CD in the BMC's drive, a static address on it, and no DHCP server at all. A UEFI machine's goes by the
/// daemon (`engine.rs`).
#[test]
fn a_bios_machine_boots_the_ramdisk_from_virtual_media() {
    if !emulator_is_here() {
        return;
    }
    ramdisk();
    let Some(mut lab) = Lab::start() else { return };
    let machine = lab.machine(&Plan::small("v1", Firmware::Bios));
    let server = lab.inside(|| Server::start(GATEWAY));
    let run = Run::new(&lab, &machine, server);
    run.serve_ramdisk("run-cd");
    let about = fs::read_to_string(ramdisk().join("ramdisk.toml")).unwrap();
    let about: toml::Table = about.parse().unwrap();
    let overlay = about["overlay"].as_table().unwrap();
    let (offset, size) =
        (overlay["offset"].as_integer().unwrap(), overlay["size"].as_integer().unwrap());
    let mut config = format!(
        "{}\nseed={}\nmac={}\naddress=10.77.0.77/24\ngateway={GATEWAY}\ndns={GATEWAY}\n",
        overlay["magic"].as_str().unwrap(),
        run.url(&run.base()),
        machine.mac
    )
    .into_bytes();
    config.resize(size as usize, b'\n');
    let iso = Body::Overlaid(ramdisk().join("ramdisk.iso"), offset as u64, config);
    run.server.put("/cd/ramdisk.iso", iso);
    machine.insert(&run.url("/cd/ramdisk.iso"));
    machine.boot("Cd");
    let host = run.called_home("run-cd");
    run.say("the ramdisk from the CD called home");
    assert_eq!(host.endpoint.address.to_string(), "10.77.0.77");
    let facts = run.facts(&host).unwrap();
    assert_eq!(facts.ramdisk_run.as_deref(), Some("run-cd"));
    assert!(machine.console().contains("farrier: ready for"), "{}", machine.console());
    machine.power("ForceOff");
}

#[test]
fn the_same_packages_give_the_same_ramdisk() {
    if !emulator_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    build_ramdisk(dir.path());
    println!("built in {:.1} s", began.elapsed().as_secs_f32());
    for name in ["vmlinuz", "initrd.img", "ramdisk.iso", "ramdisk.toml"] {
        let [a, b] =
            [fs::read(ramdisk().join(name)).unwrap(), fs::read(dir.path().join(name)).unwrap()];
        assert!(a == b, "{name} differs between two builds ({} and {} bytes)", a.len(), b.len());
    }
    let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
    assert!(size("vmlinuz") + size("initrd.img") < 60_000_000, "over 60 MB");
}
