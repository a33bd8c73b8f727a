//! A disk that is full, that fails, or that may not be written.

use crate::fixture::{Fixture, Mount};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

const ENOSPC: u32 = 28;
const EIO: u32 = 5;
const EROFS: u32 = 30;
const EDQUOT: u32 = 122;

/// No new action starts, people are told, what happens meanwhile is kept, and all goes on by itself
/// once there is room.
async fn a_full_disk(f: &Fixture, fill: impl Fn(), make_room: impl Fn()) {
    let mut daemon = f.start().await;
    f.enroll().await;
    f.until_done("flash-started").await;
    fill();
    f.until("the status says so", async || {
        let said = f.get("/v1/status").await["unwritable"].as_str().map(str::to_string);
        said.is_some_and(|why| why.contains("the disk is full") && why.contains("make room"))
    })
    .await;
    // What was under way may still land; then nothing more begins. The world goes on by minutes.
    let hold = json!({"change": "hold", "why": "is the disk full?"});
    let asking = f.say("gpu-001", "held-1", &hold);
    let watching = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = f.begun();
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            assert_eq!(f.begun(), before, "an action was begun on a full disk");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ((status, problem), ()) = tokio::join!(asking, watching);
    assert_eq!(status, 503, "{problem}");
    assert_eq!(problem["code"], "outcome-unknown", "{problem}");
    let said = |key: &str, what: &str| problem[key].as_str().is_some_and(|t| t.contains(what));
    assert!(said("detail", "the disk is full") && said("hint", "nothing is lost"), "{problem}");
    assert!(daemon.check().is_none(), "a full disk ends no daemon: {}", daemon.tail());

    make_room();
    f.until("the status is well again", async || f.get("/v1/status").await["unwritable"].is_null())
        .await;
    // It was kept: said again it is done once.
    let (status, answer) = f.say("gpu-001", "held-1", &hold).await;
    assert_eq!(status, 200, "{answer}");
    let unhold = json!({"change": "unhold", "why": "there is room"});
    let (status, answer) = f.say("gpu-001", "held-2", &unhold).await;
    assert_eq!(status, 200, "{answer}");
    f.arrives(daemon).await;
    let holds = f.journal().iter().filter(|e| e["change"] == "hold").count();
    assert_eq!(holds, 1, "an order that was said twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_nothing_begins_and_nothing_is_lost() {
    let f = Fixture::new().await;
    a_full_disk(&f, || f.order(&format!("write {ENOSPC}\n")), || f.order("")).await;
    f.site.stop(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_file_system_that_fills_up_is_survived_too() {
    let f = Fixture::new().await;
    let tmpfs = ["-t", "tmpfs", "-o", "size=16m"];
    let Some(mount) = Mount::new(&f.state(), &tmpfs, Path::new("tmpfs")) else { return };
    let filler = f.state().join("somebody-elses.log");
    let fill = || {
        let mut file = fs::File::create(&filler).unwrap();
        while file.write_all(&[b'x'; 4096]).is_ok() {}
        // The log of the database may have room within itself: as long as its next checkpoint.
        while file.write_all(b"x").is_ok() {}
    };
    a_full_disk(&f, fill, || fs::remove_file(&filler).unwrap()).await;
    drop(mount);
    f.site.stop(false).await;
}

/// Nobody knows what such a disk holds: the daemon ends with a word, and the next one reads.
async fn a_failing_disk(orders: &str, says: &str) {
    let f = Fixture::new().await;
    let mut daemon = f.start().await;
    f.enroll().await;
    f.until_done("flash-started").await;
    f.order(orders);
    let words = f.ended(&mut daemon).await;
    assert!(words.contains("outcome is unknown") && words.contains(says), "{orders}: {words}");
    assert!(words.contains("look at the disk"), "{orders}: {words}");
    // It does not run on such a disk either.
    let mut daemon = f.launch();
    let words = f.ended(&mut daemon).await;
    assert!(words.contains("farrier.db") && words.contains(says), "{orders}: {words}");
    f.order("");
    f.arrives(f.start().await).await;
    f.site.stop(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_turns_read_only_ends_the_daemon_with_a_word() {
    a_failing_disk(&format!("write {EROFS}\n"), "disk I/O error").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_used_up_ends_the_daemon_with_a_word() {
    a_failing_disk(&format!("write {EDQUOT}\n"), "disk I/O error").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_sync_ends_the_daemon_with_a_word() {
    a_failing_disk(&format!("sync {EIO}\n"), "disk I/O error").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_written_is_told_at_the_start() {
    let f = Fixture::new().await;
    let state = f.state();
    let Some(mount) = Mount::new(&state, &["--bind"], &state) else { return };
    mount.remount("bind,ro");
    let words = f.ended(&mut f.launch()).await;
    assert!(words.contains("Read-only file system"), "{words}");
    assert!(words.contains("writable by the daemon's user"), "{words}");
    assert!(!f.db().exists());
    drop(mount);

    let daemon = f.start().await;
    f.enroll().await;
    daemon.stop().await;
    let db = f.db();
    let Some(mount) = Mount::new(&db, &["--bind"], &db) else { return };
    mount.remount("bind,ro");
    let words = f.ended(&mut f.launch()).await;
    assert!(words.contains("can't open the database"), "{words}");
    assert!(words.contains("Read-only file system"), "{words}");
    drop(mount);
    f.arrives(f.start().await).await;
    f.site.stop(false).await;
}
