//! Debian packages, fetched by the host's apt-get from its own sources and unpacked beside each other.
//! Nothing is installed and no maintainer script runs. The tree's programs are started through the
//! tree's own dynamic loader, so that the host needs apt-get and dpkg-deb and no more, and what is
//! built depends on the packages alone.

use super::Trouble;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// Where Debian's packages have programs and libraries; its bookworm is not merged inside of packages.
const PROGRAMS: &[&str] = &["bin", "sbin", "usr/bin", "usr/sbin", "lib/udev", "usr/lib/udev"];
const LIBRARY_DIRS: &[&str] =
    &["lib/x86_64-linux-gnu", LIBRARIES, "lib/systemd", "usr/lib/systemd"];

/// Unpacked packages.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    /// `name version`, sorted.
    pub(super) packages: Vec<String>,
}

/// Runs `command` to its end; its output, or why there is none.
pub(super) fn run(command: &mut Command, what: &str) -> Result<Output, Trouble> {
    let program = command.get_program().to_string_lossy().to_string();
    let output = command.output().map_err(|e| {
        let trouble = Trouble::new(format!("{what}: can't run {program}: {e}"));
        match e.kind() {
            std::io::ErrorKind::NotFound => trouble.hint(missing(&program)),
            _ => trouble,
        }
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(6).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(Trouble::new(format!(
        "{what}: {program} ended with {}\n  {}",
        output.status,
        last.join("\n  ")
    )))
}

fn missing(program: &str) -> String {
    match program {
        "apt-get" | "dpkg-deb" => {
            "the ramdisk is made of Debian's packages: build it on Debian or \
             Ubuntu, in a container is fine, and copy the directory"
                .into()
        }
        "qemu-img" => "apt-get install qemu-utils".into(),
        other => format!("install `{other}`"),
    }
}

/// The host's apt-get, told that nothing is installed and that files go to `cache`.
fn apt(cache: &Path, status: &Path) -> Command {
    let mut apt = Command::new("apt-get");
    for (key, value) in [
        ("Dir::State::status", status.display().to_string()),
        ("Dir::Cache::archives", cache.display().to_string()),
        ("Debug::NoLocking", "1".into()),
        ("APT::Architecture", "amd64".into()),
        ("APT::Architectures::", "amd64".into()),
        ("APT::Install-Recommends", "0".into()),
        ("APT::Sandbox::User", "root".into()),
    ] {
        apt.arg("-o").arg(format!("{key}={value}"));
    }
    apt.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// Fetches `wanted` and what it depends on into `cache` (kept files are used again) and unpacks all of
/// it below `root`.
pub(super) fn fetch(wanted: &[&str], cache: &Path, root: &Path) -> Result<Tree, Trouble> {
    let made =
        |path: &Path| fs::create_dir_all(path).map_err(|e| Trouble::file("making", path, &e));
    made(&cache.join("partial"))?;
    made(root)?;
    let status = root.with_extension("status");
    fs::write(&status, "").map_err(|e| Trouble::file("writing", &status, &e))?;
    let known = |t: Trouble| {
        t.hint(
            "apt-get takes packages from this machine's sources: `apt-get update` makes its lists \
             new; on Ubuntu the kernel is `--kernel-package linux-image-generic`",
        )
    };
    // It lists only what it would fetch: what is kept is no kept file of this directory.
    let nothing = root.with_extension("none");
    made(&nothing.join("partial"))?;
    let mut ask = apt(&nothing, &status);
    ask.args(["--yes", "--print-uris", "--quiet=2", "install"]).args(wanted);
    let list = run(&mut ask, "looking for the packages").map_err(known)?;
    let mut fetch = apt(cache, &status);
    fetch.args(["--yes", "--quiet=2", "--download-only", "install"]).args(wanted);
    run(&mut fetch, "fetching the packages").map_err(known)?;
    // What apt-get listed, not what lies in the cache: that may be of an older build.
    let mut files: Vec<String> = String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .filter(|name| name.ends_with(".deb"))
        .map(String::from)
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(known(Trouble::new("apt-get knows none of the packages")));
    }
    let mut packages = Vec::new();
    for name in &files {
        let file = cache.join(name);
        unpack(&file, root).map_err(|t| {
            t.hint(format!("if the file is broken, delete {} and try again", file.display()))
        })?;
        let mut parts = name.trim_end_matches(".deb").split('_');
        let (package, version) = (parts.next().unwrap_or(name), parts.next().unwrap_or("?"));
        packages.push(format!("{package} {}", version.replace("%3a", ":")));
    }
    Ok(Tree { root: root.to_path_buf(), packages })
}

/// What a package has below these is read by people only: half of the files, none of it needed.
const UNREAD: &[&str] =
    &["./usr/share", "./usr/include", "./usr/lib/x86_64-linux-gnu/perl*", "./boot/System.map*"];

fn unpack(file: &Path, root: &Path) -> Result<(), Trouble> {
    let what = format!("unpacking {}", file.display());
    let broken = |e: std::io::Error, program: &str| {
        Trouble::new(format!("{what}: can't run {program}: {e}")).hint(missing(program))
    };
    let mut source = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| broken(e, "dpkg-deb"))?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "--no-same-owner"]).arg("-C").arg(root);
    tar.args(UNREAD.iter().map(|u| format!("--exclude={u}")));
    if let Some(out) = source.stdout.take() {
        tar.stdin(out);
    }
    let taken = run(&mut tar, &what).map(|_| ());
    let ended = source.wait().map_err(|e| broken(e, "dpkg-deb"))?;
    taken?;
    if !ended.success() {
        return Err(Trouble::new(format!("{what}: dpkg-deb ended with {ended}")));
    }
    Ok(())
}

impl Tree {
    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// The file behind `below`, through links that are meant relative to the tree.
    pub(super) fn resolve(&self, below: &str) -> Option<PathBuf> {
        let mut path = self.root.join(below);
        for _ in 0..8 {
            match fs::read_link(&path) {
                Ok(to) => match to.strip_prefix("/") {
                    Ok(inside) => path = self.root.join(inside),
                    Err(_) => path = path.parent()?.join(to),
                },
                Err(_) => return path.is_file().then_some(path),
            }
        }
        None
    }

    /// A program by its name.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf, Trouble> {
        PROGRAMS.iter().find_map(|dir| self.resolve(&format!("{dir}/{name}"))).ok_or_else(|| {
            Trouble::new(format!("none of the packages has the program `{name}`"))
                .hint("the packages are of another distribution than Debian 12 or 13?")
        })
    }

    fn loader(&self) -> Result<PathBuf, Trouble> {
        let names = ["lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"];
        names
            .iter()
            .find_map(|n| self.resolve(n))
            .ok_or_else(|| Trouble::new("libc6 of amd64 is not among the packages"))
    }

    fn library_path(&self) -> String {
        let dirs: Vec<String> =
            LIBRARY_DIRS.iter().map(|d| self.root.join(d).display().to_string()).collect();
        dirs.join(":")
    }

    /// A program of the tree, ready for its arguments.
    pub(super) fn command(&self, name: &str) -> Result<Command, Trouble> {
        let mut command = Command::new(self.loader()?);
        command.arg("--library-path").arg(self.library_path()).arg("--argv0").arg(name);
        command.arg(self.program(name)?);
        command.env("LC_ALL", "C").env("TZ", "UTC").env("MTOOLS_SKIP_CHECK", "1");
        command.env("GCONV_PATH", self.root.join(LIBRARIES).join("gconv"));
        Ok(command)
    }

    /// The shared objects that `programs` load, by the names under which they are looked for, and the
    /// loader itself.
    pub(super) fn libraries(
        &self,
        programs: &BTreeSet<PathBuf>,
    ) -> Result<BTreeMap<String, PathBuf>, Trouble> {
        let loader = self.loader()?;
        let mut found = BTreeMap::new();
        for program in programs {
            let mut command = Command::new(&loader);
            command.arg("--library-path").arg(self.library_path()).arg("--list").arg(program);
            let what = format!("looking for the libraries of {}", program.display());
            let list = run(&mut command, &what)?;
            for line in String::from_utf8_lossy(&list.stdout).lines() {
                let Some((name, rest)) = line.trim().split_once(" => ") else { continue };
                let path = PathBuf::from(rest.split(" (").next().unwrap_or(rest));
                if name.starts_with('/') {
                    continue;
                }
                if !path.starts_with(&self.root) {
                    return Err(Trouble::new(format!(
                        "{} needs {name}, which none of the packages has",
                        program.display()
                    )));
                }
                found.insert(name.to_string(), path);
            }
        }
        Ok(found)
    }

    pub(super) fn loader_file(&self) -> Result<PathBuf, Trouble> {
        self.loader()
    }

    /// The kernel's version, of which there is one.
    pub(super) fn kernel(&self) -> Result<String, Trouble> {
        let dir = self.path("lib/modules");
        let dir = if dir.is_dir() { dir } else { self.path("usr/lib/modules") };
        let entries = fs::read_dir(&dir).map_err(|e| Trouble::file("looking at", &dir, &e))?;
        let mut versions: Vec<String> =
            entries.flatten().map(|e| e.file_name().to_string_lossy().to_string()).collect();
        versions.sort();
        match versions.as_slice() {
            [one] => Ok(one.clone()),
            several => Err(Trouble::new(format!(
                "one kernel is needed, the packages have {}",
                if several.is_empty() { "none".into() } else { several.join(", ") }
            ))
            .hint("name one with --kernel-package")),
        }
    }
}
