//! One daemon per database. Two advisory locks, both dropped by the kernel with the process, so
//! that a `kill -9` leaves nothing to clean up: one on a file beside the database, which also says
//! who has it, and one on the database itself, for those who come to it by a hard link or a bind
//! mount. (SQLite's own locks are of another kind and don't meet these.)
//!
//! The file beside the database stays. It remembers which site had its database here, so that a
//! database that has vanished is missed and not made anew, empty.

use crate::port::store::StoreError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Held as long as the files are open.
#[derive(Debug)]
pub(super) struct Lock {
    beside: File,
    /// Kept open to the end: to close any handle of a file drops SQLite's locks on it.
    _database: Option<File>,
    /// The site whose database is, or was, at this place.
    site: Option<String>,
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// The database that `path` leads to, without symbolic links: two names, one lock. It need not
/// exist yet.
pub(super) fn resolve(path: &Path) -> PathBuf {
    /// As many links as Linux follows.
    const LINKS: usize = 40;
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        if let Ok(found) = path.canonicalize() {
            return found;
        }
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        match std::fs::read_link(&path) {
            Ok(target) => path = parent.join(target),
            Err(_) => match (parent.canonicalize(), path.file_name()) {
                (Ok(parent), Some(name)) => return parent.join(name),
                _ => return path,
            },
        }
    }
    path
}

/// How long the lock of a dead process is waited for. Its child needs milliseconds, and on a machine
/// that has far more to do than it can, seconds.
const DYING: Duration = Duration::from_secs(30);

/// Locks `file`. A daemon that was killed while it started a program leaves a child that holds the
/// lock until it runs that program, some milliseconds later: a holder that is dead is waited for, a
/// living one is not.
fn lock(file: &File, holder: impl Fn(&File) -> Option<String>) -> Result<(), TryLockError> {
    let until = Instant::now() + DYING;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => {}
            result => return result,
        }
        let pid = holder(file).filter(|pid| !pid.is_empty());
        if pid.is_some_and(|pid| Path::new("/proc").join(pid).exists()) {
            return file.try_lock();
        }
        // At a start, before anything else runs.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Takes the lock of the database at `path`, or says who has it.
pub(super) fn take(path: &Path) -> Result<Lock, StoreError> {
    let lock_path = beside(path, ".lock");
    let cannot = |e: &std::io::Error| {
        StoreError::Unusable(format!(
            "can't take the lock `{}`: {e}; the database's directory must exist and be writable \
             by the daemon's user",
            lock_path.display()
        ))
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(|e| cannot(&e))?;
    let named = |file: &File| {
        let mut text = [0; 16];
        let n = file.read_at(&mut text, 0).ok()?;
        let text = String::from_utf8_lossy(&text[..n]).into_owned();
        text.lines().next().map(|line| line.trim().to_string())
    };
    let locked = lock(&file, named);
    let mut text = String::new();
    file.read_to_string(&mut text).ok();
    let mut lines = text.lines().map(str::trim);
    let (pid, site) = (lines.next(), lines.next());
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = pid.filter(|p| !p.is_empty()).map(str::to_string);
            return Err(taken(path, pid));
        }
        Err(TryLockError::Error(e)) => return Err(cannot(&e)),
    }
    let site = site.filter(|s| !s.is_empty()).map(str::to_string);
    let lock = Lock { beside: file, _database: None, site };
    lock.write();
    Ok(lock)
}

impl Lock {
    /// The site that had its database here when the lock was taken.
    pub(super) fn site(&self) -> Option<&str> {
        self.site.as_deref()
    }

    /// Locks the database itself as well.
    pub(super) fn take_database(&mut self, file: File, path: &Path) -> Result<(), StoreError> {
        match lock(&file, holder) {
            Ok(()) => {
                self._database = Some(file);
                Ok(())
            }
            Err(TryLockError::WouldBlock) => Err(taken(path, holder(&file))),
            Err(TryLockError::Error(e)) => Err(StoreError::Unusable(format!(
                "can't lock the database `{}`: {e}; its file system must support flock",
                path.display()
            ))),
        }
    }

    /// From now on a database is missed here.
    pub(super) fn remember(&mut self, site: &str) {
        self.site = Some(site.to_string());
        self.write();
    }

    /// Overwritten in place, always as long: works on a full disk too.
    fn write(&self) {
        let site = self.site.as_deref().unwrap_or_default();
        let text = format!("{:<10}\n{site:<16}\n", std::process::id());
        let written = self
            .beside
            .write_all_at(text.as_bytes(), 0)
            .and_then(|()| self.beside.set_len(text.len() as u64));
        if let Err(e) = written {
            tracing::warn!(error = %e, "the lock file was not written");
        }
    }
}

fn taken(path: &Path, pid: Option<String>) -> StoreError {
    let who = match pid {
        Some(pid) => format!("another Farrier (pid {pid})"),
        None => "another process".to_string(),
    };
    StoreError::Unusable(format!(
        "{who} uses the database `{}`; stop it first, or give this one a database of its own",
        path.display()
    ))
}

/// Who has locked `file`, as the kernel lists it (proc_locks(5)).
fn holder(file: &File) -> Option<String> {
    let inode = file.metadata().ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let line = locks.lines().find(|l| {
        let words: Vec<&str> = l.split_whitespace().collect();
        matches!(words[..], [_, "FLOCK", _, _, _, place, ..]
            if place.rsplit(':').next().and_then(|n| n.parse().ok()) == Some(inode))
    })?;
    let pid = line.split_whitespace().nth(4)?;
    // 0: a process of another namespace.
    (pid != "0").then(|| pid.to_string())
}
