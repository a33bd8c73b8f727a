//! Embedded forward-only migrations. `PRAGMA user_version` counts those that were made; it
//! changes with them in one transaction.

use super::error::{self, During};
use super::lock::beside;
use crate::port::store::StoreError;
use sqlx::{AssertSqlSafe, SqliteConnection};
use std::fs::File;
use std::path::Path;

/// In order; one that has shipped is never changed.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3-credentials.sql"),
    include_str!("schema-4-sessions.sql"),
    include_str!("schema-5-controllers.sql"),
];

/// `FARR`: tells our databases from other programs' (`PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x4641_5252;

/// What a file is before it is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Migrations made so far; 0: a new, empty file.
    pub made: i64,
}

/// Is this a database of ours, and one that this program knows?
pub(super) async fn inspect(
    conn: &mut SqliteConnection,
    path: &Path,
    known: usize,
) -> Result<Version, StoreError> {
    let (application, made, tables): (i64, i64, i64) = sqlx::query_as(
        "SELECT a.application_id, v.user_version, (SELECT count(*) FROM sqlite_schema)
         FROM pragma_application_id a, pragma_user_version v",
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(|e| error::opening(path, &e))?;
    let shown = path.display();
    if tables > 0 && application != APPLICATION_ID {
        return Err(StoreError::Unusable(format!(
            "`{shown}` is a database of another program; give Farrier a file of its own"
        )));
    }
    let known = i64::try_from(known).unwrap_or(i64::MAX);
    if made > known {
        return Err(StoreError::Unusable(format!(
            "`{shown}` was written by a newer Farrier (format {made}, this one knows {known}); \
             start that version, or restore the copy it kept (`{shown}.before-{made}`)"
        )));
    }
    Ok(Version { made })
}

/// Makes what is missing. Before an existing database is changed a copy is kept beside it as
/// `<db>.before-<format>`.
pub(super) async fn migrate(
    conn: &mut SqliteConnection,
    path: &Path,
    migrations: &[&'static str],
) -> Result<(), StoreError> {
    let Version { made } = inspect(conn, path, migrations.len()).await?;
    let target = migrations.len();
    let done = usize::try_from(made).unwrap_or(0);
    if done == target {
        return Ok(());
    }
    if done > 0 {
        let copy = beside(path, &format!(".before-{target}"));
        copy_to(conn, &copy).await.map_err(|why| {
            StoreError::Unusable(format!(
                "`{}` is of an older format, and no copy could be made before changing it: {why}; \
                 nothing was changed",
                path.display()
            ))
        })?;
        tracing::info!(copy = %copy.display(), "kept a copy of the database before migrating it");
    }
    make(conn, path, migrations).await
}

/// Makes what is missing, without a copy.
pub(super) async fn make(
    conn: &mut SqliteConnection,
    path: &Path,
    migrations: &[&'static str],
) -> Result<(), StoreError> {
    let Version { made } = inspect(conn, path, migrations.len()).await?;
    let done = usize::try_from(made).unwrap_or(0);
    for (i, sql) in migrations.iter().enumerate().skip(done) {
        let format = i + 1;
        let script = format!(
            "BEGIN IMMEDIATE;\n{sql}\nPRAGMA application_id = {APPLICATION_ID};\n\
             PRAGMA user_version = {format};"
        );
        let made = sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut *conn).await;
        let failed = |e: &sqlx::Error, during| {
            let why = error::classify(e, during);
            match why {
                StoreError::Full(_) => why,
                _ => StoreError::Unusable(format!(
                    "`{}` could not be brought to format {format}: {why}",
                    path.display()
                )),
            }
        };
        if let Err(e) = made {
            sqlx::raw_sql("ROLLBACK").execute(&mut *conn).await.ok();
            return Err(failed(&e, During::Transaction));
        }
        sqlx::raw_sql("COMMIT")
            .execute(&mut *conn)
            .await
            .map_err(|e| failed(&e, During::Commit))?;
    }
    Ok(())
}

/// A consistent copy of the whole database, whole or not at all; readable by the owner only.
async fn copy_to(conn: &mut SqliteConnection, to: &Path) -> Result<(), String> {
    let part = beside(to, ".part");
    let finished = match copy_part(conn, &part).await {
        Ok(()) => put_in_place(&part, to),
        Err(why) => Err(why),
    };
    if finished.is_err() {
        std::fs::remove_file(&part).ok();
    }
    finished
}

/// The copy under a name that does not count yet, durable; what was left at that name is replaced.
pub(super) async fn copy_part(conn: &mut SqliteConnection, part: &Path) -> Result<(), String> {
    use std::os::unix::fs::OpenOptionsExt;
    let at_part = |e: std::io::Error| format!("`{}`: {e}", part.display());
    match std::fs::remove_file(part) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(at_part(e)),
        _ => {}
    }
    let name = part.to_str().ok_or_else(|| format!("`{}` is not UTF-8", part.display()))?;
    // SQLite fills an empty file; made here, it is nobody else's to read from the first byte on.
    File::options().write(true).create_new(true).mode(0o600).open(part).map_err(at_part)?;
    let copied = sqlx::query("VACUUM INTO ?").bind(name).execute(&mut *conn).await;
    let durable = copied
        .map_err(|e| e.to_string())
        .and_then(|_| File::open(part).and_then(|f| f.sync_all()).map_err(at_part));
    if durable.is_err() {
        std::fs::remove_file(part).ok();
    }
    durable
}

/// Gives a durable file its name, durably.
pub(super) fn put_in_place(part: &Path, to: &Path) -> Result<(), String> {
    std::fs::rename(part, to)
        .and_then(|()| match to.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        })
        .map_err(|e| format!("`{}`: {e}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{ConnectOptions, Connection};

    async fn connect(path: &Path) -> SqliteConnection {
        let options = sqlx::sqlite::SqliteConnectOptions::new();
        options.filename(path).create_if_missing(true).connect().await.unwrap()
    }

    async fn count(path: &Path, table: &'static str) -> Option<i64> {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let mut conn = connect(path).await;
        let n = sqlx::query_as::<_, (i64,)>(sql).fetch_one(&mut conn).await.ok();
        conn.close().await.unwrap();
        n.map(|n| n.0)
    }

    #[tokio::test]
    async fn a_copy_is_kept_and_a_failed_migration_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        const FIRST: &str = "CREATE TABLE a (x); INSERT INTO a VALUES (1), (2);";
        const SECOND: &str = "CREATE TABLE b (x); INSERT INTO b SELECT x FROM a;";
        const BROKEN: &str = "DELETE FROM a; INSERT INTO nowhere VALUES (1);";
        let mut conn = connect(&path).await;
        migrate(&mut conn, &path, &[FIRST]).await.unwrap();
        assert!(!beside(&path, ".before-1").exists(), "a new database has nothing to keep");
        let e = migrate(&mut conn, &path, &[FIRST, BROKEN]).await.unwrap_err();
        assert!(e.to_string().contains("format 2"), "{e}");
        assert_eq!(inspect(&mut conn, &path, 2).await.unwrap().made, 1);
        migrate(&mut conn, &path, &[FIRST, SECOND]).await.unwrap();
        migrate(&mut conn, &path, &[FIRST, SECOND]).await.unwrap();
        assert_eq!(inspect(&mut conn, &path, 2).await.unwrap().made, 2);
        conn.close().await.unwrap();
        assert_eq!(count(&path, "b").await, Some(2));
        let copy = beside(&path, ".before-2");
        assert_eq!(count(&copy, "a").await, Some(2), "the copy is the database as it was");
        assert_eq!(count(&copy, "b").await, None);
        assert!(!beside(&copy, ".part").exists());
    }
}
