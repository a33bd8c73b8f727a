//! A host's files below a temporary directory, and a shell to run scripts in.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const UUID: &str = "33221100-5544-7766-8899-aabbccddeeff";
pub(crate) const SWAPPED: &str = "00112233-4455-6677-8899-AABBCCDDEEFF";
pub(crate) const OTHER: &str = "aaaaaaaa-5544-7766-8899-aabbccddeeff";
pub(crate) const SERIAL: &str = "FRR-0042";
const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) root: PathBuf,
    pub(crate) shims: PathBuf,
    pub(crate) path: String,
}

/// Every shell that is here: dash with the system's tools, busybox with nothing but its own.
pub(crate) fn worlds() -> Vec<(&'static str, World)> {
    let mut all = vec![("dash", World::new())];
    if let Some(busybox) = find("busybox") {
        let mut world = World::new();
        let applets = world.dir.path().join("applets");
        fs::create_dir(&applets).unwrap();
        let ok = Command::new(&busybox).arg("--install").arg("-s").arg(&applets).status().unwrap();
        assert!(ok.success());
        fs::remove_file(world.shims.join("sh")).unwrap();
        symlink(&busybox, world.shims.join("sh")).unwrap();
        world.path = format!("{}:{}", world.shims.display(), applets.display());
        all.push(("busybox", world));
    } else {
        println!("skipped: no busybox here, the scripts run under dash only");
    }
    all
}

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    SYSTEM_PATH.split(':').map(|d| Path::new(d).join(program)).find(|p| p.exists())
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = dir.path().join("root");
        let shims = dir.path().join("shims");
        fs::create_dir_all(&shims).unwrap();
        for sub in ["sys/class/dmi/id", "proc/sys/kernel/random", "etc/farrier", "dev/disk"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        symlink(find("dash").unwrap_or("/bin/sh".into()), shims.join("sh")).unwrap();
        let path = format!("{}:{SYSTEM_PATH}", shims.display());
        let world = Self { dir, root, shims, path };
        world.file("sys/class/dmi/id/product_uuid", format!("{UUID}\n"));
        world.file("sys/class/dmi/id/product_serial", format!("{SERIAL}\n"));
        world.boot("11111111-0000-4000-8000-000000000001");
        world.file("etc/os-release", "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n");
        world.file("etc/hostname", "gpu-42\n");
        world
    }

    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        fs::write(self.root.join(path), content).unwrap();
    }

    pub(crate) fn boot(&self, id: &str) {
        self.file("proc/sys/kernel/random/boot_id", format!("{id}\n"));
    }

    /// A program on the host's PATH.
    pub(crate) fn shim(&self, name: &str, text: &str) {
        let path = self.shims.join(name);
        // Never written in place: a running script would read the new text.
        let new = self.shims.join(format!(".{name}.new"));
        fs::write(&new, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// `sh -s` as sshd would run it.
    pub(crate) fn sh(&self, text: &str) -> String {
        let out = self.run(Command::new("sh").arg("-s"), text);
        String::from_utf8(out.stdout).unwrap()
    }

    pub(crate) fn run(&self, command: &mut Command, stdin: &str) -> Output {
        // Found through our PATH, not the test's.
        let program = self.shims.join(command.get_program());
        let mut full =
            Command::new(if program.exists() { program } else { command.get_program().into() });
        let mut child = full
            .args(command.get_args())
            .env_clear()
            .env("PATH", &self.path)
            .env("FARRIER_ROOT", &self.root)
            .envs(command.get_envs().filter_map(|(k, v)| v.map(|v| (k, v))))
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    }

    pub(crate) fn job(&self, name: &str) -> PathBuf {
        self.root.join("var/lib/farrier/jobs").join(name)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }
}

/// Asks until the answer is yes; panics when it never is.
pub(crate) fn until(what: &str, mut yes: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !yes() {
        assert!(Instant::now() < end, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}
