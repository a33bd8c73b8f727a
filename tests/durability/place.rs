//! A database that is moved, deleted or replaced, and two daemons that want the same one.

use crate::fixture::{Fixture, Mount};
use farrier::app::demo::Options;
use farrier::app::demo::daemon::Daemon;
use farrier::store::{Settings, SqliteStore};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const FILES: [&str; 3] = ["farrier.db", "farrier.db-wal", "farrier.db-shm"];

fn move_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in FILES.iter().filter(|f| from.join(f).exists()) {
        fs::rename(from.join(file), to.join(file)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_moved_away_ends_the_daemon_and_is_missed_by_the_next() {
    let f = Fixture::new().await;
    let mut daemon = f.start().await;
    f.enroll().await;
    f.until_done("flash-started").await;
    let away = f.site.dir().join("away");
    move_files(&f.state(), &away);
    let words = f.ended(&mut daemon).await;
    assert!(words.contains("was moved away or deleted"), "{words}");
    assert!(words.contains("put the database back"), "{words}");

    let words = f.ended(&mut f.launch()).await;
    assert!(words.contains("is gone") && words.contains("does not begin anew"), "{words}");
    assert!(words.contains("farrier.db.lock` first"), "{words}");
    assert!(!f.db().exists(), "an empty site was made");

    move_files(&away, &f.state());
    f.arrives(f.start().await).await;
    f.site.stop(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_replaced_ends_an_idle_daemon_too() {
    let f = Fixture::new().await;
    let daemon = f.start().await;
    let before = f.get("/v1/status").await["incarnation"].clone();
    daemon.stop().await;
    // At rest nothing is written: found by looking.
    let mut daemon = f.start().await;
    let copy = f.site.dir().join("copy");
    fs::copy(f.db(), &copy).unwrap();
    fs::rename(&copy, f.db()).unwrap();
    let words = f.ended(&mut daemon).await;
    assert!(words.contains("was replaced by another file"), "{words}");

    // Deleted by somebody who means it: with the lock file.
    for file in FILES.iter().map(|f| f.to_string()).chain(["farrier.db.lock".into()]) {
        fs::remove_file(f.state().join(file)).ok();
    }
    let daemon = f.start().await;
    assert_ne!(f.get("/v1/status").await["incarnation"], before);
    daemon.stop().await;
    f.site.stop(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_is_refused_and_the_first_one_does_not_mind() {
    let f = Fixture::new().await;
    let mut daemon = f.start().await;
    let log = f.site.dir().join("second.log");
    let second = || {
        Daemon::start(&crate::fixture::farrier(), &f.site.config, Options::TIME_SCALE, &log)
            .expect("a process")
    };
    let words = f.ended(&mut second()).await;
    let holder = fs::read_to_string(f.state().join("farrier.db.lock")).unwrap();
    let pid = holder.lines().next().unwrap().trim();
    assert!(Path::new("/proc").join(pid).exists(), "{holder}");
    assert!(words.contains(&format!("another Farrier (pid {pid}) uses the database")), "{words}");
    assert!(daemon.check().is_none());
    f.enroll().await;
    f.arrives(daemon).await;
    f.site.stop(false).await;
}

async fn refused(path: &Path) {
    let why = match SqliteStore::open(path, Settings::default()).await {
        Ok(_) => panic!("`{}` was opened a second time", path.display()),
        Err(e) => e.to_string(),
    };
    let pid = format!("pid {}", std::process::id());
    assert!(why.contains("uses the database") && why.contains(&pid), "{why}");
}

#[tokio::test]
async fn one_database_has_one_daemon_under_whatever_name() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let other = dir.path().join("other");
    fs::create_dir_all(&home).unwrap();
    fs::create_dir_all(&other).unwrap();
    let db = home.join("state.db");
    // A link that leads nowhere yet is the database's name all the same.
    let dangling = other.join("early.db");
    symlink("../home/state.db", &dangling).unwrap();
    let store = SqliteStore::open(&dangling, Settings::default()).await.unwrap();
    assert!(db.exists() && home.join("state.db.lock").exists());

    let by_file = other.join("link.db");
    symlink(&db, &by_file).unwrap();
    let by_dir = dir.path().join("by-dir");
    symlink(&home, &by_dir).unwrap();
    let hard = other.join("hard.db");
    fs::hard_link(&db, &hard).unwrap();
    for name in [&db, &dangling, &by_file, &by_dir.join("state.db"), &hard] {
        refused(name).await;
    }
    assert!(!PathBuf::from(format!("{}-wal", hard.display())).exists(), "SQLite saw it");
    let mounted = dir.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    if let Some(_mount) = Mount::new(&mounted, &["--bind"], &home) {
        refused(&mounted.join("state.db")).await;
    }
    let bound = other.join("bound.db");
    fs::write(&bound, "").unwrap();
    if let Some(_mount) = Mount::new(&bound, &["--bind"], &db) {
        refused(&bound).await;
    }
    store.close().await;
    SqliteStore::open(&hard, Settings::default()).await.unwrap().close().await;
    SqliteStore::open(&db, Settings::default()).await.unwrap().close().await;
}

#[tokio::test]
async fn a_database_that_was_emptied_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state.db");
    SqliteStore::open(&db, Settings::default()).await.unwrap().close().await;
    fs::write(&db, "").unwrap();
    let why = SqliteStore::open(&db, Settings::default()).await.unwrap_err().to_string();
    assert!(why.contains("is empty") && why.contains("restore a backup"), "{why}");
    // A first start that got no further than its lock is none.
    let young = dir.path().join("young.db");
    fs::write(dir.path().join("young.db.lock"), "4711      \n                \n").unwrap();
    SqliteStore::open(&young, Settings::default()).await.unwrap().close().await;
}
