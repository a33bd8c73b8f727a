//! SQLite's answers as the engine needs them: not written, full, unknown, unusable.

use crate::port::store::StoreError;
use std::path::Path;

/// When it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum During {
    /// Before COMMIT was said: nothing is durable.
    Transaction,
    /// COMMIT itself.
    Commit,
    Read,
}

// Primary result codes, https://www.sqlite.org/rescode.html
const ERROR: i32 = 1;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const CONSTRAINT: i32 = 19;
const NOTADB: i32 = 26;

/// The primary result code of a database's error; `None`: it came from elsewhere.
fn code(e: &sqlx::Error) -> Option<i32> {
    let extended: i32 = e.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// Classifies once. A commit frame that could not be written whole is not there after recovery
/// (its checksum fails), so FULL and BUSY mean "not durable" even at COMMIT; after a failed write
/// or fsync of a commit nobody knows what the disk holds.
pub(super) fn classify(e: &sqlx::Error, during: During) -> StoreError {
    let text = e.to_string();
    match code(e) {
        Some(BUSY | LOCKED) => StoreError::NotWritten(format!(
            "{text}; another program holds the file's lock (a `sqlite3` shell, a backup?)"
        )),
        Some(FULL) => StoreError::Full(format!(
            "{text}; make room on the database's file system, Farrier tries again by itself"
        )),
        Some(READONLY | CANTOPEN) => StoreError::Unusable(format!(
            "the database can't be written: {text}; the daemon's user must own the file and be \
             allowed to create files in its directory"
        )),
        Some(CORRUPT | NOTADB) => StoreError::Unusable(damaged(&text)),
        Some(CONSTRAINT) => StoreError::Unusable(format!(
            "the database holds what this commit would write: {text}; run `farrier fsck`"
        )),
        Some(ERROR) => StoreError::Unusable(format!("the database refused a statement: {text}")),
        Some(IOERR) if during == During::Read => {
            StoreError::Unusable(format!("the database can't be read: {text}; look at the disk"))
        }
        _ if during == During::Commit => {
            StoreError::Unknown(format!("{text}; look at the disk, then start again"))
        }
        // The connection's thread is gone: whatever it was doing.
        None if matches!(e, sqlx::Error::WorkerCrashed) => StoreError::Unknown(text),
        _ => StoreError::NotWritten(text),
    }
}

pub(super) fn reading(e: sqlx::Error) -> StoreError {
    classify(&e, During::Read)
}

/// An error while opening `path`, told with the file's name.
pub(super) fn opening(path: &Path, e: &sqlx::Error) -> StoreError {
    let shown = path.display();
    match classify(e, During::Read) {
        StoreError::NotWritten(text) => StoreError::NotWritten(format!("`{shown}`: {text}")),
        StoreError::Full(text) => StoreError::Full(format!("`{shown}`: {text}")),
        StoreError::Unknown(text) | StoreError::Unusable(text) => {
            StoreError::Unusable(format!("`{shown}`: {text}"))
        }
    }
}

pub(super) fn damaged(text: &str) -> String {
    format!(
        "the database is damaged: {text}; leave the file as it is, copy it with its `-wal` file, \
         and start from a backup (`farrier fsck` says what is wrong)"
    )
}

/// Something of ours can't be put into JSON: a defect.
pub(super) fn encode(e: &serde_json::Error) -> StoreError {
    StoreError::Unusable(format!("what is to be stored can't be written as JSON: {e}"))
}
