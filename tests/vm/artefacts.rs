//! What the machines boot and what is written to them: built once a process, and the disk image once a
//! version, because it is the longest job of all.

use crate::lab::run;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Raised with any change to `image.sh`.
const IMAGE_VERSION: u32 = 2;

fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    base.join("farrier-tests")
}

/// The program that ships.
pub(crate) fn farrier() -> PathBuf {
    std::env::var_os("FARRIER_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_farrier")), PathBuf::from)
}

/// A disk image as it is served, and what an order says about it.
#[derive(Clone, Debug)]
pub(crate) struct DiskImage {
    pub(crate) file: PathBuf,
    pub(crate) sha256: String,
    pub(crate) size: u64,
    pub(crate) raw_size: u64,
}

/// Debian with cloud-init, taken in by `farrier image add`.
pub(crate) fn disk_image() -> &'static DiskImage {
    static IMAGE: OnceLock<DiskImage> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let dir = cache().join(format!("vm-{IMAGE_VERSION}"));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("disk.raw.zst");
        if !file.exists() {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/image.sh");
            run(Command::new("nice").args(["-n", "5", "sh"]).arg(script).arg(&file));
        }
        let images = dir.join("images");
        fs::create_dir_all(&images).unwrap();
        let config = dir.join("farrier.toml");
        let words = |extra: &[&str]| {
            let mut command = Command::new(farrier());
            command.args(["--json", "image", "--config"]).arg(&config).args(extra);
            command
        };
        run(words(&["add", "--id", "debian", "--replace"]).arg(&file));
        let list: Value = serde_json::from_str(&run(&mut words(&["list"]))).unwrap();
        let about = &list[0]["image"];
        DiskImage {
            file: images.join("debian").join(about["file"].as_str().unwrap()),
            sha256: about["sha256"].as_str().unwrap().to_string(),
            size: about["size"].as_u64().unwrap(),
            raw_size: about["raw_size"].as_u64().unwrap(),
        }
    })
}

/// Directory with vmlinuz, initrd.img, ramdisk.iso and ramdisk.toml.
pub(crate) fn ramdisk() -> &'static Path {
    static RAMDISK: OnceLock<PathBuf> = OnceLock::new();
    RAMDISK.get_or_init(|| {
        // Beside the other artefacts and not in a temporary directory: another test binary of the same
        // run may want it too.
        let out = cache().join(format!("vm-{IMAGE_VERSION}/ramdisk"));
        build_ramdisk(&out);
        out
    })
}

/// Builds the ramdisk into `out`; what the command said.
pub(crate) fn build_ramdisk(out: &Path) -> String {
    let mut command = Command::new(farrier());
    command.args(["image", "build-ramdisk", "--out"]).arg(out);
    command.arg("--cache").arg(cache().join("ramdisk-packages"));
    run(&mut command)
}
