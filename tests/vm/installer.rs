//! debian-installer, booted by PXE from the daemon, installs a machine that goes into service.
//!
//! Real: the installer as Debian ships it (`debian-installer-12-netboot-amd64`: its kernel, network
//! setup, preseed, anna, main-menu, debconf), and everything of Farrier's. Not real: partman,
//! base-installer and grub-installer are udebs of Debian's archive. What stands in for them
//! (`stand-in.sh`) asks our seed what they ask and lays a prepared system on the disk; whether they
//! themselves take our answers is not proven by this.

use crate::artefacts::{disk_image, farrier, ramdisk};
use crate::lab::{GATEWAY, Lab, run, skip};
use crate::machine::{Firmware, Plan, emulator_is_here};
use crate::server::{Body, Server};
use crate::site::{Line, Site};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const NETBOOT: &str = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64";
/// The installer starts a shell and a dozen programs for each line of its preseed.
const LONG: Duration = Duration::from_secs(5400);

fn shell(dir: &Path, script: &str) -> String {
    run(Command::new("sh").args(["-ec", script]).current_dir(dir))
}

/// The component that stands in, with the kernel modules that it needs.
fn stand_in(dir: &Path) -> (PathBuf, String) {
    let kernel = shell(
        dir,
        &format!(
            "zcat {NETBOOT}/initrd.gz | cpio -t 2>/dev/null | sed -n 's|^lib/modules/\\([^/]*\\)$|\\1|p'"
        ),
    );
    shell(
        dir,
        &format!(
            "apt-get download -q linux-image-{kernel} >&2\n\
             dpkg-deb --fsys-tarfile linux-image-*.deb | tar -x --wildcards '*/virtio_blk.ko' '*/ext4.ko' '*/jbd2.ko'\n\
             mkdir -p udeb/DEBIAN udeb/lib && mv lib/modules udeb/lib/"
        ),
    );
    let control = format!(
        "Package: stand-in\nVersion: 1\nArchitecture: amd64\nMaintainer: tests\nSection: debian-installer\n\
         Priority: standard\nInstaller-Menu-Item: 3000\nKernel-Version: {kernel}\nDescription: test's stand-in\n"
    );
    fs::write(dir.join("udeb/DEBIAN/control"), &control).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/stand-in.sh");
    run(Command::new("install")
        .args(["-m", "755"])
        .arg(script)
        .arg(dir.join("udeb/DEBIAN/postinst")));
    shell(dir, "dpkg-deb --root-owner-group -Zxz -b udeb stand-in.udeb");
    let file = dir.join("stand-in.udeb");
    let bytes = fs::read(&file).unwrap();
    let about = format!(
        "{control}Filename: pool/stand-in.udeb\nSize: {}\nMD5sum: {}\nSHA256: {}\n\n",
        bytes.len(),
        shell(dir, "md5sum stand-in.udeb | cut -d ' ' -f 1"),
        hex::encode(Sha256::digest(&bytes)),
    );
    (file, about)
}

/// An archive of one component, as far as the installer asks it.
fn archive(server: &Server, dir: &Path) {
    let (udeb, packages) = stand_in(dir);
    let index = "main/debian-installer/binary-amd64/Packages";
    let mut release =
        "Origin: Debian\nLabel: Debian\nSuite: oldstable\nVersion: 12.0\nCodename: bookworm\n\
         Architectures: amd64\nComponents: main\nDescription: Debian\nSHA256:\n"
            .to_string();
    let sum = hex::encode(Sha256::digest(packages.as_bytes()));
    writeln!(release, " {sum} {} {index}", packages.len()).unwrap();
    let dists = "/debian/dists/bookworm";
    server.put(&format!("{dists}/Release"), Body::Text(release));
    server.put(&format!("{dists}/{index}"), Body::Text(packages));
    let about = "Archive: oldstable\nComponent: main\nOrigin: Debian\nArchitecture: amd64\n";
    server.put(&format!("{dists}/main/binary-amd64/Release"), Body::Text(about.into()));
    server.put("/debian/pool/stand-in.udeb", Body::File(udeb));
    let system = dir.join("system.gz");
    let image = disk_image().file.display().to_string();
    shell(dir, &format!("zstd -q -d -c {image} | gzip -1 >{}", system.display()));
    server.put("/system.gz", Body::File(system));
}

#[test]
#[ignore = "long form: `tests/run.sh --long --only vm`"]
fn the_daemon_installs_a_machine_with_debians_installer() {
    if !emulator_is_here() {
        return;
    }
    if !Path::new(NETBOOT).join("initrd.gz").exists() {
        skip(&format!("no {NETBOOT} (Debian: debian-installer-12-netboot-amd64)"));
        return;
    }
    ramdisk();
    disk_image();
    let Some(mut lab) = Lab::start() else { return };
    let plan = Plan { disk_gib: 2, ..Plan::small("i1", Firmware::Bios) };
    let machine = lab.machine(&plan);
    let server = lab.inside(|| Server::start(GATEWAY));
    let dir = tempfile::tempdir().unwrap();
    archive(&server, dir.path());
    let line = Line {
        root_disk: "kind = \"virtio\", serial = \"LABDISK1\"",
        installer: Some("debian-installer"),
        ..Line::of(&machine, "\"pxe\"")
    };
    let mut site = Site::start(&lab, "reservation", &[line]);
    site.patience = LONG;
    let mirror = format!("http://{GATEWAY}:{}/debian", server.port);
    let mut add = Command::new(farrier());
    add.args(["image", "--config"]).arg(site.dir.join("farrier.toml"));
    add.args(["add", NETBOOT, "--id", "debian-installer", "--installer", "debian-preseed"]);
    add.args(["--mirror", &mirror, "--suite", "bookworm"]);
    add.args(["--kernel-package", "linux-image-cloud-amd64"]);
    add.args(["--kernel-arguments", "console=ttyS0 debian-installer/allow_unauthenticated=true"]);
    println!("{}", run(&mut add));
    site.cli(&["machine", "enroll", "i1", "--desired", "in-service", "--why", "first deployment"]);
    site.heard("i1", "will do open-boot-window");
    site.heard("i1", "override reads Hdd");
    site.rests("i1", "in-service");
    let history = site.cli(&["machine", "history", "i1", "--all"]);
    assert!(history.contains("image `debian-installer` read back over SSH"), "{history}");
    assert!(!history.contains("will do deploy-job"), "the ramdisk wrote nothing:\n{history}");
    println!("{history}");
}
