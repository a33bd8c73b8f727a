//! One virtual machine and its BMC.

use crate::lab::{BMC_PASSWORD, BMC_USER, GATEWAY, Lab, kvm, run, skip, until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Firmware {
    Uefi,
    Bios,
}

/// What a machine is made of, besides one virtio disk of `disk_gib` and one NIC.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) firmware: Firmware,
    pub(crate) disk_gib: u32,
    /// Also an NVMe drive and a SCSI disk of 64 MiB each.
    pub(crate) more_disks: bool,
    /// Its firmware boots the network by HTTP alone.
    pub(crate) http_only: bool,
}

impl Plan {
    /// One disk of 1 GiB.
    pub(crate) fn small(name: &'static str, firmware: Firmware) -> Self {
        Self { name, firmware, disk_gib: 1, more_disks: false, http_only: false }
    }
}

/// What was done to a machine behind everybody's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// As it was defined.
    Nothing,
    /// Another board: BMC and host both say another UUID.
    Board,
    /// The BMC says what it always said, and the host behind it is another one.
    Host,
    /// It does not boot from the network, whatever it is told.
    NoNetboot,
}

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) uuid: String,
    /// With colons.
    pub(crate) mac: String,
    pub(crate) serial: String,
    /// Where it is by the lab's DHCP.
    pub(crate) address: String,
    /// `https://…`, without a slash at the end.
    pub(crate) bmc: String,
    /// The root disk's file.
    pub(crate) disk: PathBuf,
    console: PathBuf,
    netns: String,
    number: u32,
    plan: Plan,
}

fn sushy() -> Option<PathBuf> {
    std::env::var_os("FARRIER_SUSHY_LIBVIRT").map(PathBuf::from).filter(|p| p.exists())
}

/// Kinds of [`Plan::more_disks`].
const MORE_DISKS: &[&str] = &["nvme", "scsi"];

/// Is the emulator here that can drive libvirt?
pub(crate) fn emulator_is_here() -> bool {
    let here = sushy().is_some();
    if !here {
        skip("FARRIER_SUSHY_LIBVIRT names no sushy-emulator");
    }
    here
}

impl Machine {
    /// The machine, and the process that is its BMC.
    pub(crate) fn define(lab: &Lab, number: u32, plan: &Plan) -> (Self, Child) {
        let name = plan.name;
        let machine = Self {
            name: name.to_string(),
            uuid: format!("7e57ab1e-0000-4000-8000-{number:012x}"),
            mac: format!("52:54:00:77:00:{number:02x}"),
            serial: format!("LAB{number:04}"),
            address: format!("10.77.0.{}", 10 + number),
            bmc: format!("https://{GATEWAY}:{}", 8440 + number),
            disk: lab.path(&format!("{name}-root.qcow2")),
            console: lab.path(&format!("console/{name}.log")),
            netns: lab.netns().to_string(),
            number,
            plan: plan.clone(),
        };
        blank(&machine.disk, &format!("{}G", plan.disk_gib));
        if plan.more_disks {
            MORE_DISKS.iter().for_each(|kind| blank(&machine.other_disk(lab, kind), "64M"));
        }
        machine.redefine(lab, Change::Nothing);
        let bmc = machine.emulator(lab, 8440 + number);
        (machine, bmc)
    }

    fn other_disk(&self, lab: &Lab, kind: &str) -> PathBuf {
        lab.path(&format!("{}-{kind}.qcow2", self.name))
    }

    /// Its UUID after [`Change::Board`], and the host's after [`Change::Host`].
    pub(crate) fn other_uuid(&self) -> String {
        format!("0ddba11e-0000-4000-8000-{:012x}", self.number)
    }

    /// What it is from the next power on. It has to be off.
    pub(crate) fn redefine(&self, lab: &Lab, change: Change) {
        let Self { name, number, .. } = self;
        let mut more = String::new();
        if change == Change::Host {
            // Of two, QEMU takes the second.
            let other = self.other_uuid();
            more = format!("<qemu:arg value='-uuid'/><qemu:arg value='{other}'/>");
        }
        if self.plan.more_disks {
            for kind in MORE_DISKS {
                let file = self.other_disk(lab, kind);
                let file = file.display();
                more.push_str(&match *kind {
                    // libvirt knows no emulated NVMe.
                    "nvme" => format!(
                        "<qemu:arg value='-drive'/><qemu:arg value='file={file},if=none,id=nv0,cache=unsafe,discard=unmap'/>\
                         <qemu:arg value='-device'/><qemu:arg value='nvme,drive=nv0,serial=LABNVME{number},addr=0x1c'/>"
                    ),
                    _ => format!(
                        "<qemu:arg value='-device'/><qemu:arg value='virtio-scsi-pci,id=fs0,addr=0x1d'/>\
                         <qemu:arg value='-drive'/><qemu:arg value='file={file},if=none,id=sc0,cache=unsafe,discard=unmap'/>\
                         <qemu:arg value='-device'/><qemu:arg value='scsi-hd,bus=fs0.0,drive=sc0,serial=LABSCSI{number}'/>"
                    ),
                });
            }
        }
        let file = lab.path(&format!("{name}.xml"));
        fs::write(&file, self.xml(lab, change, &more)).unwrap();
        // A name that is defined keeps its UUID.
        let known = lab.virsh(&["list", "--all", "--name"]);
        if known.lines().any(|l| l.trim() == name) {
            lab.virsh(&["undefine", name, "--keep-nvram"]);
        }
        lab.virsh(&["define", &file.display().to_string()]);
    }

    fn xml(&self, lab: &Lab, change: Change, more: &str) -> String {
        let Self { name, mac, serial, number, plan, .. } = self;
        let uuid = if change == Change::Board { self.other_uuid() } else { self.uuid.clone() };
        // QEMU's own ROM is iPXE: without it OVMF's PXE is what boots. SeaBIOS has no other.
        let (os, rom) = match plan.firmware {
            Firmware::Uefi => (
                format!(
                    "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>\
                     <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>{}</nvram>",
                    lab.path(&format!("lib/{name}.vars")).display()
                ),
                "<rom enabled='no'/>",
            ),
            Firmware::Bios => ("<bios useserial='yes' rebootTimeout='5000'/>".to_string(), ""),
        };
        let rom = if change == Change::NoNetboot { "<rom enabled='no'/>" } else { rom };
        // OVMF tries PXE over IPv4 and IPv6 before HTTP, a minute each (field notes, lab §4).
        let switches: String = ["IPv4PXESupport", "IPv6PXESupport"]
            .iter()
            .filter(|_| plan.http_only)
            .map(|s| format!("<entry name='opt/org.tianocore/{s}'>n</entry>"))
            .collect();
        let firmware = match switches.is_empty() {
            true => String::new(),
            false => format!("<sysinfo type='fwcfg'>{switches}</sysinfo>"),
        };
        let (kind, cpu) = if kvm() { ("kvm", "host-passthrough") } else { ("qemu", "maximum") };
        format!(
            "<domain type='{kind}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
             <name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>1024</memory><vcpu>1</vcpu>\
             <sysinfo type='smbios'><system><entry name='manufacturer'>Lab</entry>\
             <entry name='product'>VirtualNode</entry><entry name='serial'>{serial}</entry></system></sysinfo>{firmware}\
             <os><type arch='x86_64' machine='q35'>hvm</type>{os}<smbios mode='sysinfo'/></os>\
             <features><acpi/><apic/></features><cpu mode='{cpu}'/><clock offset='utc'/>\
             <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>\
             <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
             <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='unsafe' discard='unmap'/>\
             <source file='{}'/><target dev='vda' bus='virtio'/><serial>LABDISK{number}</serial></disk>\
             <interface type='bridge'><mac address='{mac}'/><source bridge='lab0'/><model type='virtio'/>{rom}</interface>\
             <serial type='pty'><log file='{}' append='on'/><target port='0'/></serial>\
             <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\
             <memballoon model='none'/><video><model type='none'/></video></devices>\
             <qemu:commandline>{more}</qemu:commandline></domain>",
            self.disk.display(),
            self.console.display(),
        )
    }

    /// sushy-tools, shown this machine, also with its other UUID, and no other machine; TLS and a password, as a BMC has them.
    fn emulator(&self, lab: &Lab, port: u32) -> Child {
        let dir = lab.path(&format!("bmc-{}", self.name));
        fs::create_dir_all(dir.join("state")).unwrap();
        let at = |name: &str| dir.join(name).display().to_string();
        run(Command::new("openssl").args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]).args([
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=bmc",
            "-addext",
            &format!("subjectAltName=IP:{GATEWAY}"),
            "-keyout",
            &at("key.pem"),
            "-out",
            &at("cert.pem"),
        ]));
        let emulator = sushy().unwrap();
        let python = emulator.with_file_name("python");
        let hash = "import bcrypt, sys; print(sys.argv[1] + ':' + bcrypt.hashpw(sys.argv[2].encode(), bcrypt.gensalt(4)).decode())";
        let line = run(Command::new(python).args(["-c", hash, BMC_USER, BMC_PASSWORD]));
        fs::write(dir.join("htpasswd"), line + "\n").unwrap();
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '{GATEWAY}'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\n\
             SUSHY_EMULATOR_SSL_CERT = '{}'\nSUSHY_EMULATOR_SSL_KEY = '{}'\nSUSHY_EMULATOR_AUTH_FILE = '{}'\n\
             SUSHY_EMULATOR_STATE_DIR = '{}'\nSUSHY_EMULATOR_LIBVIRT_URI = '{}'\n\
             SUSHY_EMULATOR_ALLOWED_INSTANCES = ['{}', '{}']\nSUSHY_EMULATOR_VMEDIA_VERIFY_SSL = False\n\
             SUSHY_EMULATOR_BOOT_LOADER_MAP = {{'UEFI': {{'x86_64': '/usr/share/OVMF/OVMF_CODE_4M.fd'}}, 'Legacy': {{'x86_64': None}}}}\n",
            at("cert.pem"),
            at("key.pem"),
            at("htpasswd"),
            at("state"),
            lab.uri(),
            self.uuid,
            self.other_uuid(),
        );
        fs::write(dir.join("conf.py"), config).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let child = lab
            .command(&emulator.display().to_string())
            .args(["--config", &at("conf.py")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        until("the BMC answers", Duration::from_secs(60), || self.redfish("GET", "", None).ok());
        child
    }

    /// One Redfish call; `path` below the machine's system, or from `/redfish` on.
    pub(crate) fn redfish(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<String, String> {
        let url = match path.strip_prefix("/redfish") {
            Some(rest) => format!("{}/redfish{rest}", self.bmc),
            None => format!("{}/redfish/v1/Systems/{}{path}", self.bmc, self.uuid),
        };
        let user = format!("{BMC_USER}:{BMC_PASSWORD}");
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &self.netns,
            "curl",
            "-sSk",
            "--fail-with-body",
            "-m",
            "60",
        ]);
        command.args(["-u", &user, "-X", method, &url]);
        if let Some(body) = body {
            command.args(["-H", "Content-Type: application/json", "-d", body]);
        }
        let out = command.output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).to_string();
        if out.status.success() {
            Ok(said)
        } else {
            Err(format!("{method} {url}: {said}{}", String::from_utf8_lossy(&out.stderr)))
        }
    }

    /// Chooses what it boots from next (`Pxe`, `Hdd`, `Cd`) and restarts it.
    pub(crate) fn boot(&self, target: &str) {
        let order = format!(
            "{{\"Boot\":{{\"BootSourceOverrideTarget\":\"{target}\",\"BootSourceOverrideEnabled\":\"Once\"}}}}"
        );
        self.power("ForceOff");
        self.redfish("PATCH", "", Some(&order)).unwrap();
        self.power("On");
    }

    pub(crate) fn power(&self, how: &str) {
        let order = format!("{{\"ResetType\":\"{how}\"}}");
        self.redfish("POST", "/Actions/ComputerSystem.Reset", Some(&order)).unwrap();
    }

    pub(crate) fn insert(&self, url: &str) {
        let order = format!("{{\"Image\":\"{url}\",\"Inserted\":true,\"WriteProtected\":true}}");
        self.redfish("POST", "/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia", Some(&order))
            .unwrap();
    }

    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).to_string()
    }

    /// Is it on, by libvirt's word?
    pub(crate) fn is_on(&self, lab: &Lab) -> bool {
        lab.virsh(&["domstate", &self.name]) == "running"
    }

    /// Pulls the plug, not by its BMC.
    pub(crate) fn unplug(&self, lab: &Lab) {
        if self.is_on(lab) {
            lab.virsh(&["destroy", &self.name]);
        }
    }

    /// A copy of its root disk as it is now. It has to be off.
    pub(crate) fn copy_of_disk(&self) -> PathBuf {
        let copy = self.disk.with_extension("copy");
        fs::copy(&self.disk, &copy).unwrap();
        copy
    }

    /// Does its root disk still hold what the copy holds, by QEMU's word?
    pub(crate) fn disk_is_as_in(&self, copy: &Path) -> bool {
        let out = Command::new("qemu-img").arg("compare").arg(&self.disk).arg(copy).output();
        out.unwrap().status.success()
    }

    /// Is the root disk's partition table still the copy's? What a system that starts from the disk leaves
    /// alone, and neither a wipe nor an image does.
    pub(crate) fn has_partitions_of(&self, copy: &Path) -> bool {
        let table = |disk: &Path| {
            let out = disk.with_extension("table");
            let mut dd = Command::new("qemu-img");
            // UEFI specification 2.10, §5.3: the protective MBR, the header, and 32 sectors of entries.
            dd.args(["dd", "-f", "qcow2", "-O", "raw", "bs=512", "count=34"]);
            let (from, to) = (format!("if={}", disk.display()), format!("of={}", out.display()));
            run(dd.args([from, to]));
            fs::read(out).unwrap()
        };
        let (now, then) = (table(&self.disk), table(copy));
        assert_eq!(&then[512..520], b"EFI PART", "the copy has no partition table");
        now == then
    }

    /// Does its root disk hold nothing at all? By QEMU's word, not by the machine's.
    pub(crate) fn disk_is_blank(&self) -> bool {
        let size = run(Command::new("qemu-img").args(["info", "--output=json"]).arg(&self.disk));
        let size: serde_json::Value = serde_json::from_str(&size).unwrap();
        let other = self.disk.with_extension("blank");
        blank(&other, &size["virtual-size"].to_string());
        self.disk_is_as_in(&other)
    }
}

pub(crate) fn blank(file: &Path, size: &str) {
    run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(file).arg(size));
}
