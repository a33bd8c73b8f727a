//! Memory in huge pages while a large site is read at the start, in small ones otherwise.
//!
//! A hundred thousand rows come in half the time where the kernel hands out 2 MB at once. A daemon
//! that keeps them holds memory that nobody uses: 45 MB instead of 25 with one machine.
#![allow(clippy::disallowed_methods, reason = "asks how large files are")]

use std::path::{Path, PathBuf};

/// Files from here on (some thousand machines) are worth it.
const MUCH_BYTES: u64 = 4 << 20;

/// Huge pages if these files, or those below these directories, are large.
pub fn for_reading(files: &[PathBuf]) {
    let bytes: u64 = files.iter().map(|path| size(path)).sum();
    huge(bytes > MUCH_BYTES);
}

/// From now on memory grows by small pages.
pub fn for_good() {
    huge(false);
}

fn size(path: &Path) -> u64 {
    match std::fs::metadata(path) {
        Ok(m) if m.is_dir() => {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
        }
        Ok(m) => m.len(),
        Err(_) => 0,
    }
}

fn huge(on: bool) {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(!on) {
        tracing::debug!(%error, "the size of memory pages can't be chosen here");
    }
}
