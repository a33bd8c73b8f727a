//! What is in the ramdisk: programs of the packages with their libraries, kernel modules, udev's rules,
//! and the few texts of ours.

use super::cpio::{Archive, Node};
use super::tree::{Tree, run};
use super::{Trouble, modules};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Packages of the ramdisk, besides the kernel and what they depend on.
pub(super) const PACKAGES: &[&str] = &[
    "busybox-static",
    "coreutils",
    "curl",
    "dash",
    "diffutils",
    "dmidecode",
    "dmsetup",
    "dosfstools",
    "dropbear-bin",
    "e2fsprogs",
    "efibootmgr",
    "gdisk",
    "hdparm",
    "kmod",
    "mdadm",
    "mtools",
    "nvme-cli",
    "sg3-utils",
    "tcpdump",
    "udev",
    "util-linux",
    "zstd",
];

/// Programs with the names under which they are called; busybox has everything else. What starts other
/// programs is never busybox: Debian's takes its own applets then, whatever is on the PATH.
const PROGRAMS: &[&str] = &[
    "dash",
    "curl",
    "zstd",
    "dropbear",
    "dropbearkey",
    "sgdisk",
    "nvme",
    "hdparm",
    "sg_sanitize",
    "sg_inq",
    "sg_vpd",
    "sg_turs",
    "sg_requests",
    "lsblk",
    "blkdiscard",
    "blkid",
    "blockdev",
    "wipefs",
    "mdadm",
    "dmsetup",
    "e2fsck",
    "resize2fs",
    "mke2fs",
    "mkfs.fat",
    "mtools",
    "dmidecode",
    "efibootmgr",
    "udevadm",
    "kmod",
    "dd",
    "sha256sum",
    "base64",
    "cat",
    "cp",
    "head",
    "tail",
    "tee",
    "tr",
    "wc",
    "stat",
    "sync",
    "truncate",
    "od",
    "timeout",
    "ata_id",
    "scsi_id",
    "cdrom_id",
    "cmp",
    "setsid",
    "tcpdump",
];

/// Other names of a program.
const LINKS: &[(&str, &str)] = &[
    ("sh", "dash"),
    ("mkfs.ext4", "mke2fs"),
    ("mkfs.vfat", "mkfs.fat"),
    ("mcopy", "mtools"),
    ("mdir", "mtools"),
    ("mmd", "mtools"),
    ("mtype", "mtools"),
    ("modprobe", "kmod"),
    ("insmod", "kmod"),
    ("lsmod", "kmod"),
    ("rmmod", "kmod"),
    ("systemd-udevd", "udevadm"),
];

/// Loaded at run time, so no program names it: threads that end.
const EXTRA_LIBRARIES: &[&str] = &["libgcc_s.so.1"];

/// No rule that assembles an array or a volume group: what is on the disks stays asleep.
const RULES: &[&str] = &[
    "50-firmware.rules",
    "50-udev-default.rules",
    "60-block.rules",
    "60-cdrom_id.rules",
    "60-persistent-storage.rules",
    "75-net-description.rules",
    "80-drivers.rules",
];

/// For the names that udev's rules use.
const GROUPS: &[&str] = &[
    "root", "tty", "disk", "lp", "kmem", "dialout", "cdrom", "floppy", "tape", "audio", "video",
    "input", "kvm", "render", "sgx", "plugdev", "netdev", "nogroup",
];

const INIT: &str = include_str!("ramdisk/init.sh");
const DHCP: &str = include_str!("ramdisk/dhcp.sh");
const JSON: &str = include_str!("ramdisk/json.awk");

fn file(mode: u32, bytes: impl Into<Vec<u8>>) -> Node {
    Node::File { mode, bytes: bytes.into() }
}

fn link(target: &str) -> Node {
    Node::Link { target: target.to_string() }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
    fs::read(path).map_err(|e| Trouble::file("reading", path, &e))
}

/// The whole initramfs. `stage` is a directory to work in; `firmware`: all of /lib/firmware comes too.
pub(super) fn assemble(tree: &Tree, stage: &Path, firmware: bool) -> Result<Archive, Trouble> {
    let mut archive = Archive::default();
    for dir in ["proc", "sys", "dev", "run", "mnt", "var/log", "var/lib", "etc/dropbear"] {
        archive.put(dir, Node::Dir { mode: 0o755 });
    }
    archive.put("tmp", Node::Dir { mode: 0o1777 });
    archive.put("root", Node::Dir { mode: 0o700 });
    for name in ["bin", "sbin", "usr/sbin"] {
        archive.put(name, link(if name == "usr/sbin" { "bin" } else { "usr/bin" }));
    }
    archive.put("lib", link("usr/lib"));
    archive.put("lib64", link("usr/lib64"));
    archive.put("etc/mtab", link("/proc/self/mounts"));

    programs(tree, &mut archive)?;
    kernel_modules(tree, stage, &mut archive)?;
    udev(tree, &mut archive)?;
    if firmware {
        copy_below(&tree.path("lib/firmware"), "usr/lib/firmware", &mut archive)?;
        copy_below(&tree.path("usr/lib/firmware"), "usr/lib/firmware", &mut archive)?;
    }
    texts(tree, &mut archive);
    Ok(archive)
}

fn programs(tree: &Tree, archive: &mut Archive) -> Result<(), Trouble> {
    let mut dynamic = BTreeSet::new();
    for name in PROGRAMS {
        let path = tree.program(name)?;
        let place = match *name {
            "ata_id" | "scsi_id" | "cdrom_id" => format!("usr/lib/udev/{name}"),
            name => format!("usr/bin/{name}"),
        };
        archive.put(&place, file(0o755, read(&path)?));
        dynamic.insert(path);
    }
    let mut libraries = tree.libraries(&dynamic)?;
    for name in EXTRA_LIBRARIES {
        let places = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
        if let Some(path) = places.iter().find_map(|d| tree.resolve(&format!("{d}/{name}"))) {
            libraries.insert((*name).to_string(), path);
        }
    }
    for (name, path) in &libraries {
        archive.put(&format!("usr/lib/x86_64-linux-gnu/{name}"), file(0o755, read(path)?));
    }
    archive.put("usr/lib64/ld-linux-x86-64.so.2", file(0o755, read(&tree.loader_file()?)?));
    for (name, target) in LINKS {
        archive.put(&format!("usr/bin/{name}"), link(target));
    }
    // mtools translates names of files by way of code page 850.
    for name in
        ["gconv/IBM850.so", "gconv/gconv-modules", "gconv/gconv-modules.d/gconv-modules-extra.conf"]
    {
        let below = format!("usr/lib/x86_64-linux-gnu/{name}");
        if let Some(path) = tree.resolve(&below) {
            archive.put(&below, file(0o644, read(&path)?));
        }
    }
    // The applets under the names that nothing better has.
    let busybox = tree.program("busybox")?;
    archive.put("usr/bin/busybox", file(0o755, read(&busybox)?));
    let list =
        run(std::process::Command::new(&busybox).arg("--list"), "listing busybox's applets")?;
    for applet in String::from_utf8_lossy(&list.stdout).lines() {
        let place = format!("usr/bin/{applet}");
        if !applet.is_empty() && !archive.has(&place) {
            archive.put(&place, link("busybox"));
        }
    }
    Ok(())
}

/// The wanted modules, staged so that depmod makes its tables for these alone.
fn kernel_modules(tree: &Tree, stage: &Path, archive: &mut Archive) -> Result<(), Trouble> {
    let version = tree.kernel()?;
    let from = {
        let split = tree.path("lib/modules");
        if split.is_dir() { split } else { tree.path("usr/lib/modules") }
    };
    let depmod = |base: &Path| {
        let mut command = tree.command("depmod")?;
        command.arg("-b").arg(base).arg(&version);
        run(&mut command, "finding what kernel modules need")
    };
    let base = from.parent().and_then(Path::parent).unwrap_or(&from).to_path_buf();
    depmod(&base)?;
    let dep = read(&from.join(&version).join("modules.dep"))?;
    let mut wanted = modules::wanted(&String::from_utf8_lossy(&dep));
    wanted
        .extend(["modules.builtin", "modules.builtin.modinfo", "modules.order"].map(String::from));
    let staged = stage.join("lib/modules").join(&version);
    for name in &wanted {
        let (source, target) = (from.join(&version).join(name), staged.join(name));
        if !source.exists() {
            continue;
        }
        let dir = target.parent().unwrap_or(&staged);
        fs::create_dir_all(dir).map_err(|e| Trouble::file("making", dir, &e))?;
        fs::copy(&source, &target).map_err(|e| Trouble::file("copying", &source, &e))?;
    }
    depmod(stage)?;
    copy_below(&stage.join("lib/modules"), "usr/lib/modules", archive)
}

fn udev(tree: &Tree, archive: &mut Archive) -> Result<(), Trouble> {
    for name in RULES {
        let places = ["lib/udev/rules.d", "usr/lib/udev/rules.d"];
        let found = places.iter().find_map(|d| tree.resolve(&format!("{d}/{name}")));
        if let Some(path) = found {
            archive.put(&format!("usr/lib/udev/rules.d/{name}"), file(0o644, read(&path)?));
        }
    }
    if !archive.has("usr/lib/udev/rules.d/60-persistent-storage.rules") {
        return Err(Trouble::new("the package `udev` has no rules for disks"));
    }
    Ok(())
}

/// Every plain file and link below `dir`, at `to`.
fn copy_below(dir: &Path, to: &str, archive: &mut Archive) -> Result<(), Trouble> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().to_string());
        let place = format!("{to}/{name}");
        match fs::read_link(&path) {
            Ok(target) => archive.put(&place, link(&target.to_string_lossy())),
            Err(_) if path.is_dir() => copy_below(&path, &place, archive)?,
            Err(_) => archive.put(&place, file(0o644, read(&path)?)),
        }
    }
    Ok(())
}

fn texts(tree: &Tree, archive: &mut Archive) {
    let groups: String =
        GROUPS.iter().enumerate().map(|(id, name)| format!("{name}:x:{id}:\n")).collect();
    let packages: String = tree.packages.iter().map(|p| format!("{p}\n")).collect();
    for (path, mode, text) in [
        ("init", 0o755, INIT),
        ("usr/lib/farrier/dhcp.sh", 0o755, DHCP),
        ("usr/lib/farrier/json.awk", 0o644, JSON),
        ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/shadow", 0o600, "root:*:19000:0:99999:7:::\n"),
        ("etc/shells", 0o644, "/bin/sh\n"),
        ("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n"),
        ("etc/hosts", 0o644, "127.0.0.1 localhost\n"),
        ("etc/hostname", 0o644, "farrier-ramdisk\n"),
        ("etc/os-release", 0o644, "ID=farrier-ramdisk\nPRETTY_NAME=\"Farrier deploy ramdisk\"\n"),
        ("etc/profile", 0o644, "PATH=/usr/bin\nexport PATH\n"),
        ("etc/group", 0o644, &*groups),
        ("etc/farrier/packages", 0o644, &*packages),
    ] {
        archive.put(path, file(mode, text));
    }
}

/// The kernel, and when it was built: the date of all that has none of its own.
pub(super) fn kernel_file(tree: &Tree) -> Result<(PathBuf, u32), Trouble> {
    let path = tree.path(&format!("boot/vmlinuz-{}", tree.kernel()?));
    let about = fs::metadata(&path).map_err(|e| Trouble::file("looking at", &path, &e))?;
    let built = about
        .modified()
        .ok()
        .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|d| u32::try_from(d.as_secs()).ok());
    Ok((path, built.unwrap_or(0)))
}
