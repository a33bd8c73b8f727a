//! The file system of a virtual host: a directory that `FARRIER_ROOT` names, with DMI, boot id,
//! deployment mark, disks as small files and the programs a GPU host has. A power cut kills what
//! runs in it.

use super::seat::Seat;
use crate::sim::physics::Sickness;
use crate::sim::rng::mix;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::fs;

const NVIDIA_SMI: &str = include_str!("shims/nvidia-smi.sh");
const DCGMI: &str = include_str!("shims/dcgmi.sh");

/// Disks and their size: enough to hold data, little enough for thousands.
pub(super) const DISKS: [&str; 2] = ["nvme0n1", "nvme1n1"];
const DISK_BYTES: u64 = 2 << 20;

/// Writes the programs; returns their directory.
pub(super) async fn make_shims(dir: &Path) -> io::Result<PathBuf> {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).await?;
    for (name, text) in [("nvidia-smi", NVIDIA_SMI), ("dcgmi", DCGMI)] {
        let path = bin.join(name);
        fs::write(&path, text).await?;
        fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).await?;
    }
    Ok(bin)
}

/// A host as delivered: blank disks, or somebody's data on them.
pub(super) async fn make(seat: &Seat, diag_ms: u64) -> io::Result<()> {
    let root = &seat.root;
    for dir in [
        "sys/class/dmi/id",
        "proc/sys/kernel/random",
        "etc/farrier",
        "dev/disk",
        "root",
        "tmp",
        "var/lib/farrier/jobs",
        ".world",
    ] {
        fs::create_dir_all(root.join(dir)).await?;
    }
    let os =
        "NAME=\"Virtual Linux\"\nID=virtual\nVERSION_ID=\"1\"\nPRETTY_NAME=\"Virtual Linux\"\n";
    fs::write(root.join("etc/os-release"), os).await?;
    let (gpus, id, sick, data) = seat.with(crate::model::EngineTime::ZERO, |b| {
        (b.vm.gpus, b.vm.id.0, b.vm.sick, b.vm.foreign_data)
    });
    let world = root.join(".world");
    fs::write(world.join("gpus"), gpus.to_string()).await?;
    fs::write(world.join("seed"), (mix(u64::from(id)) >> 34).to_string()).await?;
    fs::write(world.join("dcgm"), if id % 2 == 0 { "4" } else { "3" }).await?;
    let diag_s = format!("{}.{:03}", diag_ms / 1000, diag_ms % 1000);
    fs::write(world.join("diag_s"), diag_s).await?;
    if sick == Some(Sickness::Gpu) {
        fs::write(world.join("sick_gpu"), "3").await?;
    }
    fill_disks(root, data).await
}

async fn fill_disks(root: &Path, data: bool) -> io::Result<()> {
    for disk in DISKS {
        let path = root.join("dev/disk").join(disk);
        let mut head = vec![0; 4096];
        if data {
            // A protective MBR and a GPT header are what a look at the first sectors finds.
            head[510..512].copy_from_slice(&[0x55, 0xaa]);
            head[512..520].copy_from_slice(b"EFI PART");
            head.extend(b"a customer's data\n".repeat(4096));
        }
        fs::write(&path, &head).await?;
        fs::OpenOptions::new().write(true).open(&path).await?.set_len(DISK_BYTES).await?;
    }
    Ok(())
}

/// The operating system starts: a new boot id, and DMI as this board has it.
pub(super) async fn boot(seat: &Seat, boot: u32) -> io::Result<()> {
    let now = crate::model::EngineTime::ZERO;
    let (who, id) = seat.with(now, |b| (b.vm.host_identity().clone(), b.vm.id.0));
    let dmi = seat.root.join("sys/class/dmi/id");
    let line = |s: Option<String>| s.map(|s| s + "\n").unwrap_or_default();
    fs::write(dmi.join("product_uuid"), line(who.uuid)).await?;
    fs::write(dmi.join("product_serial"), line(who.serial)).await?;
    let word = mix(u64::from(id) << 32 | u64::from(boot));
    let boot_id = format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}\n",
        word >> 32,
        (word >> 16) & 0xffff,
        word & 0xfff,
        (word >> 4) & 0xfff,
        mix(word) >> 16,
    );
    fs::write(seat.root.join("proc/sys/kernel/random/boot_id"), boot_id).await
}

/// The installer starts to write: whatever was there is gone.
pub(super) async fn erase(root: &Path) -> io::Result<()> {
    match fs::remove_file(root.join("etc/farrier/image")).await {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::remove_dir_all(root.join("var/lib/farrier/jobs")).await?;
    fs::create_dir_all(root.join("var/lib/farrier/jobs")).await
}

/// The image is on the disks and says so.
pub(super) async fn install(root: &Path, image: &str, run: &str) -> io::Result<()> {
    fill_disks(root, true).await?;
    fs::write(root.join("etc/farrier/image"), format!("image={image}\nrun={run}\n")).await
}

/// Jobs on the host: name, and whether the job has ended.
pub(super) async fn jobs(root: &Path) -> Vec<(String, bool)> {
    let dir = root.join("var/lib/farrier/jobs");
    let mut out = Vec::new();
    let Ok(mut entries) = fs::read_dir(&dir).await else { return out };
    while let Ok(Some(entry)) = entries.next_entry().await {
        if let Ok(name) = entry.file_name().into_string() {
            let ended = fs::try_exists(entry.path().join("exit")).await.unwrap_or(false);
            out.push((name, ended));
        }
    }
    out.sort();
    out
}

/// Kills everything that runs in this sandbox, as a power cut does. Processes are known by the
/// `FARRIER_ROOT` they were started with; those that fork meanwhile are met in the next round.
pub(super) async fn kill_all(root: &Path) {
    let mark = [b"FARRIER_ROOT=", root.as_os_str().as_bytes()].concat();
    for _ in 0..6 {
        let mark = mark.clone();
        let found = tokio::task::spawn_blocking(move || processes_with(&mark)).await;
        let found = found.unwrap_or_default();
        if found.is_empty() {
            return;
        }
        let killed = tokio::process::Command::new("kill").arg("-KILL").args(found).output().await;
        if let Err(error) = killed {
            tracing::warn!(%error, "the processes of a virtual host can't be killed");
            return;
        }
    }
}

fn processes_with(mark: &[u8]) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    pids.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
        .filter(|pid| {
            // Unreadable: another user's, or gone already.
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|b| *b == 0).any(|v| v == mark)
        })
        .collect()
}
