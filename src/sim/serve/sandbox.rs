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
    let seed = mix(u64::from(id)) >> 34;
    fs::write(world.join("seed"), seed.to_string()).await?;
    fs::write(world.join("smi.xml"), smi_xml(gpus, seed)).await?;
    fs::write(world.join("dcgm"), if id % 2 == 0 { "4" } else { "3" }).await?;
    let diag_s = format!("{}.{:03}", diag_ms / 1000, diag_ms % 1000);
    fs::write(world.join("diag_s"), diag_s).await?;
    if sick == Some(Sickness::Gpu) {
        fs::write(world.join("sick_gpu"), "3").await?;
    }
    fill_disks(root, data).await
}

/// What `nvidia-smi -q -x` says of healthy, idle GPUs; the shim speaks the short forms itself.
fn smi_xml(gpus: u16, seed: u64) -> String {
    let mut xml = format!(
        "<?xml version=\"1.0\" ?>\n\
         <!DOCTYPE nvidia_smi_log SYSTEM \"nvsmi_device_v12.dtd\">\n<nvidia_smi_log>\n\
         \t<timestamp>Sun Nov  1 00:00:00 2026</timestamp>\n\
         \t<driver_version>580.82.09</driver_version>\n\
         \t<cuda_version>13.0</cuda_version>\n\
         \t<attached_gpus>{gpus}</attached_gpus>\n"
    );
    for i in 0..u64::from(gpus) {
        let temp = 38 + (i * 7 + seed) % 24;
        xml += &format!(
            "\t<gpu id=\"00000000:{bus:02X}:00.0\">\n\
             \t\t<product_name>Virtual GPU</product_name>\n\
             \t\t<persistence_mode>Enabled</persistence_mode>\n\
             \t\t<serial>165{short:06}{i:02}</serial>\n\
             \t\t<uuid>GPU-{seed:08x}-0000-4000-8000-{i:012x}</uuid>\n\
             \t\t<gpu_recovery_action>None</gpu_recovery_action>\n\
             \t\t<pci><pci_gpu_link_info>\
             <pcie_gen><max_link_gen>5</max_link_gen><current_link_gen>1</current_link_gen>\
             </pcie_gen><link_widths><max_link_width>16x</max_link_width>\
             <current_link_width>16x</current_link_width></link_widths>\
             </pci_gpu_link_info><replay_counter>0</replay_counter></pci>\n\
             \t\t<ecc_errors><volatile><sram_correctable>0</sram_correctable>\
             <sram_uncorrectable_parity>0</sram_uncorrectable_parity>\
             <sram_uncorrectable_secded>0</sram_uncorrectable_secded>\
             <dram_correctable>0</dram_correctable>\
             <dram_uncorrectable>0</dram_uncorrectable></volatile></ecc_errors>\n\
             \t\t<remapped_rows><remapped_row_corr>0</remapped_row_corr>\
             <remapped_row_unc>0</remapped_row_unc>\
             <remapped_row_pending>No</remapped_row_pending>\
             <remapped_row_failure>No</remapped_row_failure></remapped_rows>\n\
             \t\t<temperature><gpu_temp>{temp} C</gpu_temp>\
             <gpu_temp_tlimit>N/A</gpu_temp_tlimit>\
             <memory_temp>{memory} C</memory_temp></temperature>\n\
             \t\t<processes></processes>\n\t</gpu>\n",
            bus = i + 27,
            short = seed % 1_000_000,
            memory = temp + 4,
        );
    }
    xml + "</nvidia_smi_log>\n"
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
    let line = |s: Option<&str>| s.map(|s| format!("{s}\n")).unwrap_or_default();
    fs::write(dmi.join("product_uuid"), line(who.uuid.as_deref())).await?;
    fs::write(dmi.join("product_serial"), line(who.serial.as_deref())).await?;
    fs::write(seat.root.join("proc/sys/kernel/random/boot_id"), boot_id(id, boot) + "\n").await
}

/// The boot id of machine `id`'s boot number `boot`.
pub(super) fn boot_id(id: u32, boot: u32) -> String {
    let word = mix(u64::from(id) << 32 | u64::from(boot));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        word >> 32,
        (word >> 16) & 0xffff,
        word & 0xfff,
        (word >> 4) & 0xfff,
        mix(word) >> 16,
    )
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
