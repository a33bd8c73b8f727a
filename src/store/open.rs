//! Opening: the lock, what the file is, migrations, the writer's connection and the readers.

use super::error;
use super::lock::{self, Lock};
use super::migrate::{self, MIGRATIONS};
use super::place::Place;
use super::writer::{self, Writer};
use super::{SqliteStore, int};
use crate::port::store::StoreError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How a database is opened.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long to wait for a lock that another program holds on the file.
    pub busy_ms: u64,
    /// Connections of the read pool.
    pub readers: u32,
    /// Most pages (4 KiB each) that the file may take; `None`: as many as there is room for.
    pub max_pages: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { busy_ms: 5_000, readers: 4, max_pages: None }
    }
}

/// First bytes of every SQLite database, <https://www.sqlite.org/fileformat.html> §1.3.
pub(super) const MAGIC: &[u8; 16] = b"SQLite format 3\0";

impl SqliteStore {
    /// Opens or creates the database at `path` as its only writer. Files made beside it:
    /// `<db>.lock`, `<db>-wal`, `<db>-shm`, and `<db>.before-<format>` when it is migrated.
    pub async fn open(path: &Path, settings: Settings) -> Result<Self, StoreError> {
        let path = &lock::resolve(path);
        let mut lock = lock::take(path)?;
        missed(path, &lock)?;
        lock.take_database(look(path)?, path)?;
        let conn = connect(path, settings).await?;
        let writer = prepare(conn, lock, path).await?;
        let readers = read_pool(path, settings)?;
        let (orders, inbox) = mpsc::channel(64);
        let news = Arc::new(watch::Sender::new(0));
        let (gone, lost) = watch::channel(None);
        tokio::spawn(writer::run(writer, inbox, news.clone(), gone));
        Ok(Self { orders, readers, news, lost })
    }
}

/// A site that had its database here and has none now did not ask for an empty one.
fn missed(path: &Path, lock: &Lock) -> Result<(), StoreError> {
    let Some(site) = lock.site() else { return Ok(()) };
    let what = match std::fs::metadata(path) {
        Ok(file) if file.len() > 0 => return Ok(()),
        Ok(_) => "is empty",
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => "is gone",
        // Told by whoever opens it.
        Err(_) => return Ok(()),
    };
    Err(StoreError::Unusable(format!(
        "the database `{0}` {what}; the site `{site}` had one here. Farrier does not begin anew by \
         itself\n  hint: put it back with its `-wal` file, or restore a backup there; to begin with \
         an empty site, remove `{0}.lock` first",
        path.display()
    )))
}

/// Looks at the file without SQLite: a plain answer for a file that is none, and no second
/// thought of SQLite's own (it would take an unreadable file for a new one).
fn look(path: &Path) -> Result<File, StoreError> {
    let shown = path.display();
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let mut file = opened.map_err(|e| {
        StoreError::Unusable(format!(
            "can't open the database `{shown}`: {e}; the daemon's user must be able to read and \
             write it"
        ))
    })?;
    let mut head = Vec::with_capacity(MAGIC.len());
    file.by_ref()
        .take(MAGIC.len() as u64)
        .read_to_end(&mut head)
        .map_err(|e| StoreError::Unusable(format!("can't read the database `{shown}`: {e}")))?;
    if !head.is_empty() && head != MAGIC {
        return Err(StoreError::Unusable(format!(
            "`{shown}` is not a database; it was left as it is. Give another path, or restore a \
             backup there"
        )));
    }
    Ok(file)
}

pub(super) fn options(path: &Path, settings: Settings) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(Duration::from_millis(settings.busy_ms))
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
}

async fn connect(path: &Path, settings: Settings) -> Result<SqliteConnection, StoreError> {
    let mut options = options(path, settings)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", "-65536");
    if let Some(pages) = settings.max_pages {
        options = options.pragma("max_page_count", pages.to_string());
    }
    options.connect().await.map_err(|e| error::opening(path, &e))
}

fn read_pool(path: &Path, settings: Settings) -> Result<sqlx::SqlitePool, StoreError> {
    let options = options(path, settings).read_only(true);
    Ok(SqlitePoolOptions::new()
        .max_connections(settings.readers.max(1))
        .min_connections(0)
        .connect_lazy_with(options))
}

/// Migrates, makes the site's row in a new database, and takes the next epoch: from here on a
/// commit of an earlier owner writes nothing.
async fn prepare(
    mut conn: SqliteConnection,
    mut lock: Lock,
    path: &Path,
) -> Result<Writer, StoreError> {
    migrate::migrate(&mut conn, path, MIGRATIONS).await?;
    let incarnation = incarnation()?;
    let taken: Result<(i64, String), sqlx::Error> = async {
        sqlx::query(
            "INSERT OR IGNORE INTO site_state (id, incarnation, engine_time, wall_ms, resumed_at)
             VALUES (1, ?, 0, 0, 0)",
        )
        .bind(incarnation)
        .execute(&mut conn)
        .await?;
        sqlx::query_as(
            "INSERT INTO shard (id, epoch, seq) VALUES (0, 1, 0)
             ON CONFLICT (id) DO UPDATE SET epoch = epoch + 1
             RETURNING epoch, (SELECT incarnation FROM site_state)",
        )
        .fetch_one(&mut conn)
        .await
    }
    .await;
    let (epoch, site) = taken.map_err(|e| error::opening(path, &e))?;
    lock.remember(&site);
    Ok(Writer { conn, epoch, place: Place::of(path)?, lock })
}

/// Eight hex digits that tell this database from every other, and from itself after a restore.
pub(super) fn incarnation() -> Result<String, StoreError> {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| StoreError::Unusable("the system gives no random numbers".into()))?;
    Ok(hex::encode(bytes))
}

/// Opens `path` read-only, beside a running daemon or without one.
pub(super) async fn inspect(path: &Path) -> Result<SqliteConnection, StoreError> {
    if let Err(e) = std::fs::metadata(path) {
        return Err(StoreError::Unusable(format!("there is no `{}`: {e}", path.display())));
    }
    let settings = Settings::default();
    let connected = options(path, settings).read_only(true).connect().await;
    let mut conn = connected.map_err(|e| error::opening(path, &e))?;
    let version = migrate::inspect(&mut conn, path, MIGRATIONS.len()).await?;
    if version.made != int(MIGRATIONS.len() as u64) {
        return Err(StoreError::Unusable(format!(
            "`{}` is of format {}, this Farrier works with {}; start the daemon once to migrate \
             it (a copy is kept)",
            path.display(),
            version.made,
            MIGRATIONS.len()
        )));
    }
    Ok(conn)
}
