//! Rotations at a machine's further controller: with its machine or alone, killed at every step, and never at
//! one that is not proven.

use super::bmc::{ACCOUNT, Account, Manners, SESSIONS};
use super::rotation::order;
use super::site::{OLD, OLD_BOARD, PATIENCE, Point, Site, sealed};
use serde_json::Value;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const OWN: &str = "bmc/machine/n1/hgx";
const ROTATE: [&str; 6] = ["bmc", "rotate", "n1/hgx", "--why", "a test", "--no-wait"];

async fn site(manners: Manners, more: &str) -> Site {
    let host = Account::new(OLD, Manners::default());
    Site::with_board(host, Account::new(OLD_BOARD, manners), "B2002", more).await
}

/// What must hold at the end, whatever happened: the password in force is the one that is kept, under the
/// controller's own name; the escrow has it; no account was locked, and the host's was left alone.
async fn holds(site: &mut Site, what: &str) {
    let board = site.board();
    let (refused, asked) = (board.account.look(|s| s.refused), board.server.seen().len());
    let deadline = Instant::now() + PATIENCE;
    while site.board().server.seen().len() == asked {
        assert!(Instant::now() < deadline, "{what}: nobody reads it any more\n{}", site.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    site.stop();
    let account = &site.board().account;
    let (password, locked, after) = account.look(|s| (s.password.clone(), s.locked, s.refused));
    assert!(!locked, "{what}: the account was locked");
    assert_eq!(after, refused, "{what}: a login was refused after the end");
    assert_eq!(sealed(site.dir.path(), OWN).await.as_deref(), Some(&*password), "{what}");
    assert_eq!(sealed(site.dir.path(), &format!("pending/{OWN}")).await, None, "{what}");
    let escrow = site.escrow();
    for set in account.look(|s| s.set.clone()) {
        let kept = |n: &Value| n["password"] == *set && n["controller"] == "hgx";
        assert!(escrow.iter().any(kept), "{what}: set and not escrowed");
        assert!(!site.log().contains(&set), "{what}: a password in the log");
    }
    assert!(!site.log().contains(OLD_BOARD), "{what}: the old password in the log");
    let (host, refused) = site.account.look(|s| (s.password.clone(), s.refused));
    assert_eq!((host.as_str(), refused), (OLD, 0), "{what}: the host's was left alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controllers_password_is_rotated_with_its_machines_and_alone() {
    let mut site = site(Manners::default(), "").await;
    site.ready();
    let said = site.farrier(&["bmc", "rotate", "n1", "--why", "a test"]);
    assert!(said.contains("n1/hgx") && said.matches("kept").count() == 2, "{said}");
    let both = (site.account.password(), site.board().account.password());
    assert!(both.0 != both.1 && both.0 != OLD && both.1 != OLD_BOARD, "each has one of its own");
    let notes = site.escrow();
    let last = |controller: Value| {
        let note = notes.iter().rfind(|n| n["controller"] == controller).unwrap();
        [&note["machine"], &note["state"], &note["secret"], &note["serial"], &note["bmc_url"]]
            .map(|v| v.as_str().unwrap().to_string())
    };
    let url = &site.board().server.url;
    assert_eq!(last("hgx".into()), ["n1", "in-force", OWN, "B2002", url.as_str()]);
    let url = &site.server.url;
    let own = super::site::OWN;
    assert_eq!(last(Value::Null), ["n1", "in-force", own, "S1001", url.as_str()]);
    // One alone.
    site.farrier(&["bmc", "rotate", "n1/hgx", "--why", "a test"]);
    let board = site.board().account.password();
    assert!(board != both.1 && site.account.password() == both.0);
    site.farrier(&["bmc", "rotate", "n1/bmc", "--why", "a test"]);
    assert!(site.account.password() != both.0 && site.board().account.password() == board);
    for account in [&site.account, &site.board().account] {
        assert_eq!(account.look(|s| (s.refused, s.set.len())), (0, 2), "nothing had to be guessed");
    }
    site.until_history("controller `hgx`'s password was rotated", 2);
    site.until_history("the BMC's password was rotated", 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_request_to_a_controller_it_ends_with_a_password_that_works() {
    let point =
        |method, path, unless_password, after| Point { method, path, unless_password, after };
    let points = [
        ("before it is set", point("PATCH", ACCOUNT, None, false)),
        ("when it is set, before the answer", point("PATCH", ACCOUNT, None, true)),
        ("before the try", point("POST", SESSIONS, Some(OLD_BOARD), false)),
        ("in the try", point("POST", SESSIONS, Some(OLD_BOARD), true)),
    ];
    for (what, point) in points {
        let mut site = site(Manners::default(), "").await;
        site.ready();
        site.farrier(&["machine", "show", "n1"]);
        site.board().reaper.at(point);
        order(&mut site, &ROTATE, Some("hgx"));
        assert_eq!(site.until_over_of(Some("hgx")), "kept", "{what}");
        assert_eq!(site.board().reaper.kills.load(Ordering::SeqCst), 1, "{what}: it was killed");
        let mut set = site.board().account.look(|s| s.set.clone());
        set.dedup();
        assert_eq!(set.len(), 1, "{what}");
        holds(&mut site, what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_around_the_hook_a_controllers_password_is_one_that_works() {
    for what in ["before", "after", "in-force"] {
        let mut site = site(Manners { wants_etag: true, ..Manners::default() }, "").await;
        site.ready();
        std::fs::write(site.path("point"), what).unwrap();
        order(&mut site, &ROTATE, Some("hgx"));
        assert_eq!(site.until_over_of(Some("hgx")), "kept", "{what}");
        assert_eq!(std::fs::read_to_string(site.path("point")).unwrap(), "", "{what}: not killed");
        holds(&mut site, what).await;
    }
}

/// While it is stuck nobody logs in to the controller, and the host is read as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_rotation_of_a_controller_keeps_nobody_from_the_host() {
    let mut site = site(Manners { cuts: true, ..Manners::default() }, "").await;
    site.ready();
    order(&mut site, &ROTATE, Some("hgx"));
    assert_eq!(site.until_over_of(Some("hgx")), "stuck");
    site.until_history("the rotation of controller `hgx`'s password is stuck", 1);
    let (refused, asked) = (site.board().account.look(|s| s.refused), site.server.seen().len());
    let deadline = Instant::now() + PATIENCE;
    // Many looks at the host, of which some would read the controller too.
    while site.server.seen().len() < asked + 60 {
        assert!(Instant::now() < deadline, "the host is not read\n{}", site.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(site.board().account.look(|s| s.refused), refused, "nobody tried");
    let shown = site.farrier(&["machine", "show", "n1"]);
    assert!(!shown.contains("unreachable") && !shown.contains("quarantined"), "{shown}");
    site.board().account.look(|s| {
        s.password = OLD_BOARD.into();
        s.manners.cuts = false;
    });
    let again = ["bmc", "rotate", "n1/hgx", "--look-again", "--why", "put back by hand"];
    site.farrier(&again);
    let phase = site.until_over_of(Some("hgx"));
    assert!(phase == "kept" || phase == "taken-back", "{phase}\n{}", site.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_speaks_against_a_controllers_rotation_is_said_before_anything_changes() {
    let more = "[rotation]\nbreak_glass = [\"Farrier\"]\n";
    let mut site = site(Manners::default(), more).await;
    site.ready();
    let refused = |site: &Site| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let out = site.run(&["--json", "bmc", "rotate", "n1/hgx", "--why", "a test"]);
            let said: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
            if let Some(why) = said["refused"][0]["why"].as_str() {
                assert_eq!(said["refused"][0]["controller"], "hgx");
                return why.to_string();
            }
            assert!(Instant::now() < deadline, "{out:?}\n{}", site.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let why = refused(&site);
    assert!(why.contains("break-glass"), "{why}");
    let config = std::fs::read_to_string(site.path("farrier.toml")).unwrap();
    std::fs::write(site.path("farrier.toml"), config.replace(more, "")).unwrap();
    // Another board than the inventory's, and then one of which it says nothing.
    let inventory = std::fs::read_to_string(site.path("inventory.toml")).unwrap();
    for (serial, wanted) in
        [("serial = \"B9999\"\n", "B9999"), ("", "its serial is not in the inventory")]
    {
        let other = inventory.replace("serial = \"B2002\"\n", serial);
        assert_ne!(other, inventory);
        std::fs::write(site.path("inventory.toml"), other).unwrap();
        site.farrier(&["reload"]);
        let why = refused(&site);
        assert!(why.contains(wanted), "{why}");
    }
    assert!(site.board().account.look(|s| s.set.is_empty()));
    let out = site.run(&["bmc", "rotate", "n1/dpu0", "--why", "a test"]);
    let err = String::from_utf8_lossy(&out.stderr).to_string();
    assert!(!out.status.success() && err.contains("no controller `dpu0`"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_policy_a_controllers_password_changes_too_once_it_is_due() {
    let mut site = site(Manners::default(), "[rotation]\nevery = \"90d\"\n").await;
    site.ready();
    for controller in [None, Some("hgx")] {
        assert_eq!(site.until_over_of(controller), "kept");
        assert_eq!(site.rotation_of(controller).unwrap()["by"], "rotation policy");
    }
    assert_eq!(site.board().account.look(|s| s.set.len()), 1);
}
