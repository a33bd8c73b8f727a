//! `farrier image build-ramdisk`.

use super::tree::{self, run};
use super::{Trouble, contents, iso};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Build {
    /// Where the files go; without it `farrier-ramdisk` below the images.
    pub out: Option<PathBuf>,
    pub kernel_package: String,
    /// Packages whose /lib/firmware is taken along.
    pub firmware_packages: Vec<String>,
    /// Where fetched packages are kept.
    pub cache: Option<PathBuf>,
}

/// `ramdisk.toml`: what was built, and where the ISO's configuration lies.
#[derive(Debug, Serialize)]
struct About {
    schema: u32,
    kernel: String,
    architecture: &'static str,
    /// Region of `ramdisk.iso` that is overlaid for each machine.
    overlay: Overlay,
    files: BTreeMap<String, BuiltFile>,
    /// `name version` of all packages that it is made of.
    packages: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Overlay {
    offset: u64,
    size: u64,
    magic: &'static str,
}

#[derive(Debug, Serialize)]
struct BuiltFile {
    size: u64,
    sha256: String,
}

struct Progress {
    began: Instant,
    quiet: bool,
}

impl Progress {
    fn step(&self, what: &str) {
        if !self.quiet {
            eprintln!("{:5.1} s  {what}", self.began.elapsed().as_secs_f32());
        }
    }
}

/// Where packages are kept between builds: they are large and the same for every build.
fn default_cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("farrier/ramdisk-packages")
}

/// Builds kernel, initramfs, ISO and their description into `out`.
pub(super) fn build(ask: &Build, default_out: &Path, json: bool) -> Result<(), Trouble> {
    let out = ask.out.as_deref().unwrap_or(default_out);
    let progress = Progress { began: Instant::now(), quiet: json };
    fs::create_dir_all(out).map_err(|e| Trouble::file("making", out, &e))?;
    let work = tempfile::Builder::new()
        .prefix("farrier-ramdisk-")
        .tempdir()
        .map_err(|e| Trouble::new(format!("no directory to work in: {e}")))?;
    let cache = ask.cache.clone().unwrap_or_else(default_cache);

    progress.step(&format!("fetching packages into {}", cache.display()));
    let mut wanted: Vec<&str> = vec![&ask.kernel_package];
    wanted.extend(contents::PACKAGES);
    wanted.extend(iso::PACKAGES);
    wanted.extend(ask.firmware_packages.iter().map(String::as_str));
    let tree = tree::fetch(&wanted, &cache, &work.path().join("tree"))?;

    progress.step(&format!("{} packages, choosing files", tree.packages.len()));
    let stage = work.path().join("stage");
    let archive = contents::assemble(&tree, &stage, !ask.firmware_packages.is_empty())?;
    let (kernel, built) = contents::kernel_file(&tree)?;
    let date =
        std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|v| v.parse().ok()).unwrap_or(built);

    progress.step("compressing the ramdisk");
    let initrd = work.path().join("initrd.img");
    let target = fs::File::create(&initrd).map_err(|e| Trouble::file("writing", &initrd, &e))?;
    let mut zstd = tree
        .command("zstd")?
        // One thread: the bytes must not depend on how many there are.
        .args(["-15", "-q", "-c", "--single-thread"])
        .stdin(Stdio::piped())
        .stdout(target)
        .spawn()
        .map_err(|e| Trouble::new(format!("can't run zstd: {e}")))?;
    if let Some(stdin) = zstd.stdin.take() {
        let mut stdin = std::io::BufWriter::with_capacity(1 << 20, stdin);
        archive
            .write(&mut stdin, date)
            .and_then(|()| stdin.flush())
            .map_err(|e| Trouble::new(format!("writing the ramdisk: {e}")))?;
    }
    let ended = zstd.wait().map_err(|e| Trouble::new(format!("waiting for zstd: {e}")))?;
    if !ended.success() {
        return Err(Trouble::new(format!("zstd ended with {ended}"))
            .hint(format!("is {} full?", work.path().display())));
    }

    progress.step("making the ISO");
    let image = work.path().join("ramdisk.iso");
    let offset = iso::make(&tree, &kernel, &initrd, date, &work.path().join("iso"), &image)?;

    let mut files = BTreeMap::new();
    for (name, from) in [("vmlinuz", &kernel), ("initrd.img", &initrd), ("ramdisk.iso", &image)] {
        let bytes = contents::read(from)?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        put(&out.join(name), &bytes)?;
        files.insert(name.to_string(), BuiltFile { size, sha256 });
    }
    let about = About {
        schema: 1,
        kernel: tree.kernel()?,
        architecture: "amd64",
        overlay: Overlay { offset, size: iso::CONFIG_SIZE, magic: iso::MAGIC },
        files,
        packages: tree.packages.clone(),
    };
    let text = toml::to_string(&about).map_err(|e| Trouble::new(format!("ramdisk.toml: {e}")))?;
    put(&out.join("ramdisk.toml"), text.as_bytes())?;
    if json {
        println!("{}", serde_json::json!({ "directory": out, "about": about }));
    } else {
        progress.step("done");
        println!("{}, kernel {}", out.display(), about.kernel);
        for (name, file) in &about.files {
            println!("  {name:<12} {:5.1} MB", megabytes(file.size));
        }
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Writes beside and renames: a boot server that reads meanwhile sees the old file or the new one.
pub(super) fn put(path: &Path, bytes: &[u8]) -> Result<(), Trouble> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let kept = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".farrier-").tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(file.path(), mode)?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    kept().map_err(|e| Trouble::file("writing", path, &e))
}

/// Runs a tool of the tree; its output is of no interest.
pub(super) fn quietly(command: &mut std::process::Command, what: &str) -> Result<(), Trouble> {
    run(command, what).map(|_| ())
}
