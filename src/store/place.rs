//! Where the database is, and whether it is still there. A file that was moved, deleted or
//! replaced takes writes as before, and nobody would ever find them.

use super::lock::beside;
use crate::port::store::StoreError;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Device and inode.
type Id = (u64, u64);

/// The files as they were opened.
#[derive(Debug)]
pub(super) struct Place {
    files: Vec<(PathBuf, Id)>,
}

impl Place {
    /// Remembers the database at `path` and its log.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        let mut files = Vec::with_capacity(2);
        for path in [path.to_path_buf(), beside(path, "-wal")] {
            let id = id(&path).map_err(|e| {
                StoreError::Unusable(format!("can't look at `{}`: {e}", path.display()))
            })?;
            files.push((path, id));
        }
        Ok(Self { files })
    }

    /// Two `stat` calls, some microseconds.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (path, opened) in &self.files {
            let what = match id(path) {
                Ok(found) if found == *opened => continue,
                Ok(_) => "was replaced by another file".to_string(),
                Err(e) if e.kind() == ErrorKind::NotFound => "was moved away or deleted".into(),
                Err(e) => format!("can't be looked at any more ({e})"),
            };
            return Err(StoreError::Unusable(format!(
                "the database's file `{}` {what} while Farrier was using it. Nothing more is \
                 written and no action starts: Farrier ends\n  hint: put the database back with \
                 its `-wal` file, both as they were; then start Farrier, which reads every \
                 machine again",
                path.display()
            )));
        }
        Ok(())
    }
}

fn id(path: &Path) -> std::io::Result<Id> {
    std::fs::metadata(path).map(|m| (m.dev(), m.ino()))
}
