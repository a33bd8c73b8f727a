//! One daemon per database: an advisory lock on a file beside it. The kernel drops it with the
//! process, so a `kill -9` leaves nothing to clean up.

use crate::port::store::StoreError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Held as long as the file is open.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
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
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).ok();
            let who = match pid.trim() {
                "" => "another process".to_string(),
                pid => format!("another Farrier (pid {pid})"),
            };
            return Err(StoreError::Unusable(format!(
                "{who} uses the database `{}`; stop it first, or give this one a database of its \
                 own",
                path.display()
            )));
        }
        Err(TryLockError::Error(e)) => return Err(cannot(&e)),
    }
    // Only for people: what counts is the lock.
    let written = file
        .set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()));
    if let Err(e) = written {
        tracing::debug!(error = %e, "the pid was not written to the lock file");
    }
    Ok(Lock { _file: file })
}
