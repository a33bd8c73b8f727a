//! A copy of a running database, and its way back. The copy counts only after it was checked; what
//! comes back is another incarnation: every machine held, every open action's outcome unknown.

use super::commit;
use super::error::{During, classify, opening, reading};
use super::fsck::{FsckReport, fsck};
use super::lock::{self, beside};
use super::migrate::{self, MIGRATIONS, copy_part, put_in_place};
use super::open::{MAGIC, incarnation, inspect, options};
use super::read::machine;
use super::{Settings, int, uint};
use crate::model::{EngineTime, Entry, Machine, fold};
use crate::port::store::{CommitItem, StoreError};
use sqlx::sqlite::SqliteSynchronous;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A database as it is told to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub incarnation: String,
    /// Wall clock in ms since 1970 of its last commit.
    pub wall_ms: u64,
    /// Migrations made in it.
    pub format: u64,
    pub machines: u64,
    pub entries: u64,
    pub open_actions: u64,
    pub bytes: u64,
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restoration {
    pub from: Copy,
    pub incarnation: String,
    /// Where the database that was there is kept; `None`: there was none.
    pub aside: Option<PathBuf>,
}

/// Machines whose entries are written by one set of statements.
const GROUP: usize = 1000;

/// A consistent copy of the database at `path`, also while a daemon writes it. It is written beside
/// `to`, checked like `farrier fsck` does, made durable, and only then gets its name; readable by
/// the owner only. Secrets stay sealed; their key is not in it.
///
/// # Errors
/// The database can't be read or is damaged, `to` is there already and `replace` is not set, or
/// `to` can't be written. Nothing stands at `to` then that did not before.
pub async fn backup(path: &Path, to: &Path, replace: bool) -> Result<Copy, StoreError> {
    let shown = to.display();
    let there = || {
        StoreError::Unusable(format!(
            "`{shown}` is there already; it was left as it is\n  hint: name another file, or give \
             `--replace`"
        ))
    };
    if same_file(path, to) {
        return Err(StoreError::Unusable(format!("`{shown}` is the database itself")));
    }
    if to.exists() && !replace {
        return Err(there());
    }
    let part = beside(to, ".part");
    let mut conn = inspect(path).await?;
    let copied = copy_part(&mut conn, &part).await;
    conn.close().await.map_err(|e| opening(path, &e))?;
    let finished = async {
        copied.map_err(|why| {
            StoreError::Unusable(format!("`{}` could not be copied: {why}", path.display()))
        })?;
        let copy = checked(&part).await?;
        if to.exists() && !replace {
            return Err(there());
        }
        put_in_place(&part, to).map_err(StoreError::Unusable)?;
        Ok(copy)
    }
    .await;
    if finished.is_err() {
        std::fs::remove_file(&part).ok();
    }
    finished
}

/// Looks at a backup without changing anything: is it whole, and could it be restored here?
///
/// # Errors
/// It is no database of ours, of a newer format, or damaged.
pub async fn examine(backup: &Path) -> Result<Copy, StoreError> {
    let mut conn = open_backup(backup).await?;
    let made = migrate::inspect(&mut conn, backup, MIGRATIONS.len()).await;
    conn.close().await.ok();
    let format = uint(made?.made);
    if format != MIGRATIONS.len() as u64 {
        // An older one is checked after its copy was migrated.
        return Ok(Copy { format, ..Copy::blank(backup) });
    }
    checked(backup).await
}

/// Puts the backup in the place of the database at `path`, whose daemon must have ended.
/// `resume`: engine time of a counter that was stored as (engine time, wall ms), as a start does it.
/// `stamp`: what the present database's kept name ends with.
///
/// # Errors
/// Another process has the database; the backup can't be used ([`examine`]); the file system. The
/// present database is in its place then.
pub async fn restore(
    backup: &Path,
    path: &Path,
    resume: &(dyn Fn(EngineTime, u64) -> EngineTime + Sync),
    wall_ms: u64,
    stamp: &str,
) -> Result<Restoration, StoreError> {
    let path = &lock::resolve(path);
    let mut lock = lock::take(path)?;
    if path.exists() {
        let present = File::options().read(true).write(true).open(path);
        let present = present.map_err(|e| {
            StoreError::Unusable(format!("can't open the database `{}`: {e}", path.display()))
        })?;
        lock.take_database(present, path)?;
    }
    if same_file(backup, path) {
        return Err(StoreError::Unusable(format!(
            "`{}` is the database itself; name a backup",
            backup.display()
        )));
    }
    let seen = examine(backup).await?;
    let part = beside(path, ".restoring");
    let made = prepare(backup, path, &part, resume, wall_ms).await;
    let (from, incarnation) = match made {
        Ok(made) => made,
        Err(e) => {
            std::fs::remove_file(&part).ok();
            return Err(e);
        }
    };
    let aside = keep_aside(path, stamp).await?;
    put_in_place(&part, path).map_err(StoreError::Unusable)?;
    Ok(Restoration { from: Copy { format: seen.format, ..from }, incarnation, aside })
}

impl Copy {
    fn blank(path: &Path) -> Self {
        let bytes = std::fs::metadata(path).map_or(0, |m| m.len());
        Copy {
            incarnation: String::new(),
            wall_ms: 0,
            format: 0,
            machines: 0,
            entries: 0,
            open_actions: 0,
            bytes,
        }
    }
}

/// Is `to` the very file? (Another name for it included.)
fn same_file(path: &Path, to: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::metadata(path), std::fs::metadata(to)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

async fn checked(path: &Path) -> Result<Copy, StoreError> {
    let report = fsck(path).await?;
    if !report.is_clean() {
        return Err(not_clean(path, &report));
    }
    let mut conn = inspect(path).await?;
    let read: Result<(String, i64), _> =
        sqlx::query_as("SELECT incarnation, wall_ms FROM site_state").fetch_one(&mut conn).await;
    conn.close().await.ok();
    let (incarnation, wall_ms) = read.map_err(reading)?;
    Ok(Copy {
        incarnation,
        wall_ms: uint(wall_ms),
        format: MIGRATIONS.len() as u64,
        machines: report.machines,
        entries: report.entries,
        open_actions: report.open_actions,
        ..Copy::blank(path)
    })
}

fn not_clean(path: &Path, report: &FsckReport) -> StoreError {
    let few: Vec<&str> = report.findings.iter().take(5).map(String::as_str).collect();
    StoreError::Unusable(format!(
        "`{}` is not whole, so it does not count as a copy: {} findings, among them: {}\n  hint: \
         `farrier fsck --db FILE` lists them; an older backup may be whole",
        path.display(),
        report.found,
        few.join("; ")
    ))
}

async fn open_backup(backup: &Path) -> Result<SqliteConnection, StoreError> {
    let shown = backup.display();
    let mut head = Vec::with_capacity(MAGIC.len());
    File::open(backup)
        .and_then(|f| f.take(MAGIC.len() as u64).read_to_end(&mut head))
        .map_err(|e| StoreError::Unusable(format!("can't read the backup `{shown}`: {e}")))?;
    if head != MAGIC {
        return Err(StoreError::Unusable(format!("`{shown}` is not a backup of a database")));
    }
    let options = options(backup, Settings::default()).read_only(true);
    options.connect().await.map_err(|e| opening(backup, &e))
}

/// The file that will be the database: copied, brought to today's format, made another incarnation.
async fn prepare(
    backup: &Path,
    path: &Path,
    part: &Path,
    resume: &(dyn Fn(EngineTime, u64) -> EngineTime + Sync),
    wall_ms: u64,
) -> Result<(Copy, String), StoreError> {
    let mut source = open_backup(backup).await?;
    let copied = copy_part(&mut source, part).await;
    source.close().await.ok();
    copied.map_err(|why| {
        StoreError::Unusable(format!("`{}` could not be copied: {why}", backup.display()))
    })?;
    let options = options(part, Settings::default()).synchronous(SqliteSynchronous::Full);
    let mut conn = options.connect().await.map_err(|e| opening(part, &e))?;
    let migrated = migrate::make(&mut conn, part, MIGRATIONS).await;
    conn.close().await.map_err(|e| opening(part, &e))?;
    migrated?;
    let from = checked(part).await?;

    let epoch = 1 + epoch_of(backup).await.max(epoch_of(path).await);
    let mut conn = options.connect().await.map_err(|e| opening(part, &e))?;
    let written = another_incarnation(&mut conn, epoch, resume, wall_ms).await;
    conn.close().await.map_err(|e| opening(part, &e))?;
    let incarnation = written?;
    File::open(part)
        .and_then(|f| f.sync_all())
        .map_err(|e| StoreError::Unusable(format!("`{}`: {e}", part.display())))?;
    let after = fsck(part).await?;
    if !after.is_clean() {
        return Err(not_clean(part, &after));
    }
    Ok((from, incarnation))
}

/// The highest epoch that wrote this file; 0 where it can't be read. An older owner that still runs
/// somewhere writes nothing into the restored database.
async fn epoch_of(path: &Path) -> i64 {
    if !path.exists() {
        return 0;
    }
    let Ok(mut conn) = options(path, Settings::default()).read_only(true).connect().await else {
        return 0;
    };
    let epoch: Result<(i64,), _> =
        sqlx::query_as("SELECT coalesce(max(epoch), 0) FROM shard").fetch_one(&mut conn).await;
    conn.close().await.ok();
    epoch.map_or(0, |e| e.0)
}

/// One transaction: a new incarnation, a new epoch, and `restored` for every machine.
async fn another_incarnation(
    conn: &mut SqliteConnection,
    epoch: i64,
    resume: &(dyn Fn(EngineTime, u64) -> EngineTime + Sync),
    wall_ms: u64,
) -> Result<String, StoreError> {
    let failed = |e: sqlx::Error| classify(&e, During::Transaction);
    let fresh = incarnation()?;
    let (was, engine_time, stored_wall): (String, i64, i64) =
        sqlx::query_as("SELECT incarnation, engine_time, wall_ms FROM site_state")
            .fetch_one(&mut *conn)
            .await
            .map_err(reading)?;
    let stored = EngineTime(uint(engine_time));
    let now = resume(stored, uint(stored_wall)).max(stored);
    let was: Arc<str> = was.into();
    let entry = Entry::Restored { incarnation: fresh.as_str().into(), was };
    let rows: Vec<(i64, String)> = sqlx::query_as("SELECT id, json FROM machine ORDER BY id")
        .fetch_all(&mut *conn)
        .await
        .map_err(reading)?;

    sqlx::query("BEGIN IMMEDIATE").execute(&mut *conn).await.map_err(failed)?;
    sqlx::query("UPDATE shard SET epoch = ?")
        .bind(epoch)
        .execute(&mut *conn)
        .await
        .map_err(failed)?;
    sqlx::query("UPDATE site_state SET incarnation = ?, engine_time = ?, wall_ms = ?")
        .bind(fresh.clone())
        .bind(int(now.0))
        .bind(int(wall_ms))
        .execute(&mut *conn)
        .await
        .map_err(failed)?;
    for group in rows.chunks(GROUP) {
        let items = group.iter().map(|(id, json)| restored(machine(*id, json)?, &entry, now));
        let items = items.collect::<Result<Vec<_>, StoreError>>()?;
        let items = items.iter().map(commit::prepare).collect::<Result<Vec<_>, _>>()?;
        commit::write_group(conn, commit::CHECK, epoch, &items, now, wall_ms).await?;
    }
    sqlx::query("COMMIT").execute(&mut *conn).await.map_err(|e| classify(&e, During::Commit))?;
    Ok(fresh)
}

fn restored(before: Machine, entry: &Entry, at: EngineTime) -> Result<CommitItem, StoreError> {
    let mut row = before.clone();
    fold::apply(&mut row, entry, at).map_err(|e| StoreError::Unusable(e.to_string()))?;
    let (machine, after_seq) = (before.id, before.seq);
    Ok(CommitItem { machine, after_seq, at, entries: vec![entry.clone()], row, facts: None })
}

/// Gives the present database a second name, `<db>.aside-<stamp>`, under which it stays when the
/// restored one takes its place. Its log is written back first, so that it is one file.
async fn keep_aside(path: &Path, stamp: &str) -> Result<Option<PathBuf>, StoreError> {
    let wal = beside(path, "-wal");
    let cannot = |what: &Path, e: &std::io::Error| {
        StoreError::Unusable(format!(
            "the present database can't be kept aside as `{}`: {e}; nothing was changed",
            what.display()
        ))
    };
    if !path.exists() {
        // A log without its database belongs to nothing; it must not meet the restored one.
        std::fs::remove_file(&wal).ok();
        std::fs::remove_file(beside(path, "-shm")).ok();
        return Ok(None);
    }
    let aside = beside(path, &format!(".aside-{stamp}"));
    if aside.exists() {
        return Err(StoreError::Unusable(format!(
            "`{}` is there already; nothing was changed\n  hint: try again in a second",
            aside.display()
        )));
    }
    let options = options(path, Settings::default());
    if let Ok(mut conn) = options.connect().await {
        let back = sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut conn).await;
        if let Err(e) = back {
            tracing::warn!(error = %e, "the present database's log stays beside it");
        }
        conn.close().await.ok();
    }
    // By a second name and a rename over the first there is no moment without a database.
    if std::fs::hard_link(path, &aside).is_err() {
        std::fs::copy(path, &aside)
            .and_then(|_| File::open(&aside)?.sync_all())
            .map_err(|e| cannot(&aside, &e))?;
    }
    // Only a damaged database still has one; it goes along.
    if wal.exists() {
        let kept = beside(&aside, "-wal");
        std::fs::rename(&wal, &kept).map_err(|e| cannot(&kept, &e))?;
    }
    std::fs::remove_file(beside(path, "-shm")).ok();
    Ok(Some(aside))
}
