//! Rotations in the real daemon, killed with SIGKILL at every point that the outside can see.

use super::bmc::{ACCOUNT, Account, Manners, SESSIONS, USER};
use super::server::{Reply, Server};
use super::site::{OLD, OWN, Point, Site, sealed};
use serde_json::Value;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const ROTATE: [&str; 6] = ["bmc", "rotate", "n1", "--why", "a test", "--no-wait"];

/// Orders a rotation by these words, of n1's BMC or its controller of this name; the daemon may die while
/// it answers.
pub(crate) fn order(site: &mut Site, words: &[&str], controller: Option<&str>) {
    let deadline = Instant::now() + super::site::PATIENCE;
    while site.rotation_of(controller).is_none() {
        if site.has_died() {
            site.start();
        }
        site.run(words);
        assert!(Instant::now() < deadline, "no rotation begins\n{}", site.log());
    }
}

/// What must hold at the end, whatever happened: the password in force is the one that is kept, the
/// escrow has it, the account was never locked, and no password is in the log.
async fn holds(site: &mut Site, phase: &str, what: &str) {
    // The daemon itself says that its credential works.
    let refused = site.account.look(|s| s.refused);
    site.farrier(&["machine", "hold", "n1", "--why", "look"]);
    site.farrier(&["machine", "unhold", "n1", "--why", "looked"]);
    let asked = site.server.seen().len();
    let deadline = Instant::now() + super::site::PATIENCE;
    while site.server.seen().len() == asked {
        assert!(Instant::now() < deadline, "{what}: nobody probes any more\n{}", site.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    site.stop();
    let (password, locked, after) =
        site.account.look(|s| (s.password.clone(), s.locked, s.refused));
    assert!(!locked, "{what}: the account was locked");
    assert_eq!(after, refused, "{what}: a login was refused after the end");
    let own = sealed(site.dir.path(), OWN).await;
    match phase {
        "kept" => assert_eq!(own.as_deref(), Some(password.as_str()), "{what}"),
        "taken-back" => assert_eq!((password.as_str(), own), (OLD, None), "{what}"),
        other => panic!("{what}: ended as {other}\n{}", site.log()),
    }
    // A kill right after the end leaves its sealed copy to the next start.
    let pending = format!("pending/{OWN}");
    let deadline = Instant::now() + super::site::PATIENCE;
    while sealed(site.dir.path(), &pending).await.is_some() {
        assert!(Instant::now() < deadline, "{what}: the sealed copy stays\n{}", site.log());
        site.start();
        tokio::time::sleep(Duration::from_millis(100)).await;
        site.stop();
    }
    let escrow = site.escrow();
    for set in site.account.look(|s| s.set.clone()) {
        assert!(escrow.iter().any(|n| n["password"] == *set), "{what}: set and not escrowed");
        assert!(!site.log().contains(&set), "{what}: a password in the log");
    }
    assert!(!site.log().contains(OLD), "{what}: the old password in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_rotated_twice_and_told_to_the_hook() {
    let account = Account::new(OLD, Manners { wants_etag: true, ..Manners::default() });
    let mut site = Site::new(account, "").await;
    site.ready();
    let mut last = OLD.to_string();
    for round in 1..=2 {
        let said = site.farrier(&["bmc", "rotate", "n1", "--why", "a test"]);
        assert!(said.contains("kept"), "{said}");
        let password = site.account.password();
        assert!(password != last && (13..=20).contains(&password.len()), "{password}");
        let states: Vec<String> = site
            .escrow()
            .iter()
            .filter(|n| n["password"] == *password)
            .map(|n| n["state"].as_str().unwrap().to_string())
            .collect();
        assert_eq!(states, ["pending", "in-force"], "round {round}");
        last = password;
    }
    let note = site.escrow().pop().unwrap();
    assert_eq!((note["machine"].as_str(), note["user"].as_str()), (Some("n1"), Some(USER)));
    assert_eq!((note["secret"].as_str(), note["serial"].as_str()), (Some(OWN), Some("S1001")));
    assert_eq!(site.account.look(|s| s.refused), 0, "nothing had to be guessed");
    holds(&mut site, "kept", "twice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_request_it_ends_with_a_password_that_works() {
    let point =
        |method, path, unless_password, after| Point { method, path, unless_password, after };
    let points = [
        ("before it is set", point("PATCH", ACCOUNT, None, false)),
        ("when it is set, before the answer", point("PATCH", ACCOUNT, None, true)),
        ("before the try", point("POST", SESSIONS, Some(OLD), false)),
        ("in the try", point("POST", SESSIONS, Some(OLD), true)),
    ];
    for (what, point) in points {
        let mut site = Site::new(Account::new(OLD, Manners::default()), "").await;
        site.ready();
        site.farrier(&["machine", "show", "n1"]);
        site.reaper.at(point);
        order(&mut site, &ROTATE, None);
        let phase = site.until_over();
        assert_eq!(phase, "kept", "{what}");
        assert_eq!(site.reaper.kills.load(Ordering::SeqCst), 1, "{what}: it was killed");
        // A call that was lost is made again with the same password.
        let mut set = site.account.look(|s| s.set.clone());
        set.dedup();
        assert_eq!(set.len(), 1, "{what}");
        holds(&mut site, &phase, what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_around_the_hook_it_ends_with_a_password_that_works() {
    for what in ["before", "after", "in-force"] {
        let mut site = Site::new(Account::new(OLD, Manners::default()), "").await;
        site.ready();
        std::fs::write(site.path("point"), what).unwrap();
        order(&mut site, &ROTATE, None);
        let phase = site.until_over();
        assert_eq!(phase, "kept", "{what}");
        assert_eq!(std::fs::read_to_string(site.path("point")).unwrap(), "", "{what}: not killed");
        holds(&mut site, &phase, what).await;
    }
}

/// FARRIER_KILLS chooses how many random kills (default 12; 100 with FARRIER_TEST_LONG).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_again_and_again_it_ends_with_a_password_that_works() {
    let long = std::env::var_os("FARRIER_TEST_LONG").is_some();
    let kills: u64 = std::env::var("FARRIER_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(if long { 100 } else { 12 });
    let mut site = Site::new(Account::new(OLD, Manners::default()), "").await;
    site.ready();
    let mut rng = farrier::sim::rng::Rng::new(7);
    let (mut done, mut rotations) = (0, 0);
    while done < kills {
        let before = site.rotation().map(|r| r["begun_ms"].clone());
        while site.rotation().map(|r| r["begun_ms"].clone()) == before {
            if site.has_died() {
                site.start();
            }
            site.run(&ROTATE);
        }
        rotations += 1;
        // Up to three kills while it is under way.
        for _ in 0..rng.between(1, 3) {
            tokio::time::sleep(Duration::from_millis(rng.between(0, 40))).await;
            done += u64::from(site.reaper.kill());
            while !site.has_died() {
                tokio::task::yield_now().await;
            }
            site.start();
        }
        assert_eq!(site.until_over(), "kept", "rotation {rotations}\n{}", site.log());
        assert!(!site.account.look(|s| s.locked), "locked in rotation {rotations}");
    }
    let cut = site.log().matches("going on with a rotation").count();
    println!("{done} kills in {rotations} rotations, {cut} in the middle of one");
    assert!(cut > 0, "no kill came in the middle");
    holds(&mut site, "kept", "at random").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_keeps_nothing_leaves_the_old_password_in_force() {
    let mut site = Site::new(Account::new(OLD, Manners::default()), "").await;
    site.ready();
    std::fs::write(site.path("point"), "refuse").unwrap();
    order(&mut site, &ROTATE, None);
    assert_eq!(site.until_over(), "taken-back");
    assert!(site.account.look(|s| s.set.is_empty()), "nothing was set");
    let trouble = site.rotation().unwrap()["trouble"].as_str().unwrap().to_string();
    assert!(trouble.contains("escrow hook"), "{trouble}");
    holds(&mut site, "taken-back", "refused").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_factory_password_that_must_change_first_is_the_same_flow() {
    let account = Account::new(OLD, Manners { change_first: true, ..Manners::default() });
    let mut site = Site::new(account, "").await;
    site.ready();
    order(&mut site, &ROTATE, None);
    let phase = site.until_over();
    assert_eq!(phase, "kept");
    holds(&mut site, &phase, "factory").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_speaks_against_a_rotation_is_said_before_anything_changes() {
    let more = "[rotation]\nbreak_glass = [\"Farrier\", \"root\"]\n";
    let mut site = Site::new(Account::new(OLD, Manners::default()), more).await;
    site.start();
    let refused = |site: &Site, words: &[&str]| {
        let all = [&["--json", "bmc", "rotate", "n1", "--why", "a test"][..], words].concat();
        let deadline = Instant::now() + super::site::PATIENCE;
        loop {
            let out = site.run(&all);
            let said: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
            if let Some(why) = said["refused"][0]["why"].as_str() {
                return why.to_string();
            }
            assert!(Instant::now() < deadline, "{out:?}\n{}", site.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let why = refused(&site, &[]);
    assert!(why.contains("unmanaged"), "{why}");
    site.farrier(&["machine", "adopt", "n1", "--why", "test"]);
    let why = refused(&site, &[]);
    assert!(why.contains("break-glass"), "{why}");
    site.farrier(&["machine", "hold", "n1", "--why", "test"]);
    let why = refused(&site, &[]);
    assert!(why.contains("held by tester"), "{why}");
    site.farrier(&["machine", "unhold", "n1", "--why", "test"]);
    // Without a hook: only where a person says so.
    let config = std::fs::read_to_string(site.path("farrier.toml")).unwrap();
    let config = config.replace(more, "");
    let (head, _) = config.split_once("[escrow]").unwrap();
    std::fs::write(site.path("farrier.toml"), head).unwrap();
    site.farrier(&["reload"]);
    let why = refused(&site, &[]);
    assert!(why.contains("--no-escrow"), "{why}");
    assert!(site.account.look(|s| s.set.is_empty()) && site.rotation().is_none());
    site.farrier(&["bmc", "rotate", "n1", "--why", "a test", "--no-escrow"]);
    assert_eq!(site.account.look(|s| s.set.len()), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_survives_the_loss_of_the_database() {
    let mut site = Site::new(Account::new(OLD, Manners::default()), "").await;
    site.ready();
    site.farrier(&["bmc", "rotate", "n1", "--why", "a test"]);
    let password = site.account.password();
    assert_ne!(password, OLD);
    site.stop();
    // Database and key are gone; what is left is what the hook has kept.
    std::fs::remove_dir_all(site.path("state")).unwrap();
    std::fs::remove_file(site.path("key")).unwrap();
    let last = site.escrow().into_iter().rfind(|n| n["state"] == "in-force").unwrap();
    let text = |key: &str| last[key].as_str().unwrap().to_string();
    site.secret_set(&text("secret"), &text("password"));
    let refused = site.account.look(|s| s.refused);
    let asked = site.server.seen().len();
    site.start();
    let deadline = Instant::now() + super::site::PATIENCE;
    let read = |site: &Site| {
        site.server.seen().iter().skip(asked).any(|r| r.path == super::server::SYSTEM)
    };
    while !read(&site) {
        assert!(Instant::now() < deadline, "nobody gets in\n{}", site.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(site.account.look(|s| s.refused), refused, "the first login works");
    // And it can be rotated again.
    site.farrier(&["machine", "adopt", "n1", "--why", "test"]);
    site.farrier(&["bmc", "rotate", "n1", "--why", "after the loss"]);
    assert_ne!(site.account.password(), password);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_policy_a_password_changes_once_it_is_due_and_not_again() {
    let account = Account::new(OLD, Manners::default());
    let mut site = Site::new(account, "[rotation]\nevery = \"90d\"\n").await;
    site.ready();
    assert_eq!(site.until_over(), "kept");
    let r = site.rotation().unwrap();
    assert_eq!(r["by"], "rotation policy");
    assert!(r["why"].as_str().unwrap().contains("90d"), "{r}");
    // The policy looks every second here; two more looks change nothing.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(site.account.look(|s| s.set.len()), 1);
    assert_eq!(site.rotation().unwrap()["begun_ms"], r["begun_ms"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_is_stuck_is_told_and_stands_in_the_journal() {
    let pager = Server::start(|_, _| Reply::status(204)).await;
    let hook = format!("[[webhook]]\nname = \"pager\"\nurl = \"{}/page\"\n", pager.url);
    let account = Account::new(OLD, Manners { cuts: true, ..Manners::default() });
    let mut site = Site::new(account, &hook).await;
    site.ready();
    order(&mut site, &ROTATE, None);
    assert_eq!(site.until_over(), "stuck");
    let told = |pager: &Server| {
        let all = pager.seen().into_iter().filter(|r| r.body["event"] == "password-stuck");
        all.map(|r| r.body).collect::<Vec<Value>>()
    };
    let deadline = Instant::now() + super::site::PATIENCE;
    while told(&pager).is_empty() {
        assert!(Instant::now() < deadline, "nobody is told\n{}", site.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let event = told(&pager).remove(0);
    assert_eq!((&event["machine"], &event["by"]), (&"n1".into(), &"tester".into()), "{event}");
    assert!(event["why"].as_str().unwrap().contains("--look-again"), "{event}");
    let text = "the rotation of the BMC's password is stuck";
    site.until_history(text, 1);
    // A restart finds it stuck, and says it no second time.
    site.stop();
    site.start();
    site.farrier(&["machine", "show", "n1"]);
    assert_eq!(site.until_over(), "stuck");
    // What a person says comes after whatever the start had to say.
    site.account.look(|s| {
        s.password = OLD.into();
        s.manners.cuts = false;
    });
    let said = site.farrier(&["bmc", "rotate", "n1", "--look-again", "--why", "put back by hand"]);
    let phase = site.until_over();
    let end = match phase.as_str() {
        "kept" => "the BMC's password was rotated",
        "taken-back" => "the BMC keeps its old password",
        other => panic!("{other}: {said}\n{}", site.log()),
    };
    let history = site.until_history(end, 1);
    assert_eq!(history.matches(text).count(), 1, "{history}");
    assert_eq!(told(&pager).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quirks_are_read_again_and_passwords_are_as_they_say() {
    let mut site = Site::new(Account::new(OLD, Manners::default()), "").await;
    let config = std::fs::read_to_string(site.path("farrier.toml")).unwrap();
    let config = format!("{config}[bmc]\nquirks = \"q.toml\"\n");
    std::fs::write(site.path("farrier.toml"), config).unwrap();
    let write = |site: &Site, text: &str| std::fs::write(site.path("q.toml"), text).unwrap();
    write(&site, "schema = 1\n");
    site.ready();
    site.farrier(&["bmc", "rotate", "n1", "--why", "a test"]);
    assert_eq!(site.account.password().len(), 16);
    let rule = "schema = 1\n[[quirk]]\nname = \"acme\"\n[quirk.match]\nvendor = \"^Acme\"\n\
                [quirk.account]\n";
    write(&site, &format!("{rule}password_most = 15\n"));
    let out = site.run(&["reload"]);
    let said = String::from_utf8_lossy(&out.stderr).to_string();
    assert!(!out.status.success() && said.contains("password_most"), "{said}");
    let check = Command::new(super::site::farrier())
        .args(["check", "--config"])
        .arg(site.path("farrier.toml"))
        .output()
        .unwrap();
    assert!(!check.status.success(), "{check:?}");
    write(&site, &format!("{rule}password_max = 15\n"));
    site.farrier(&["reload"]);
    site.farrier(&["bmc", "rotate", "n1", "--why", "a test"]);
    assert_eq!(site.account.password().len(), 15);
    site.until_history("the BMC's password was rotated (a test)", 2);
}
