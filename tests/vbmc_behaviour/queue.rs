//! Job queues that are full, busy or strict (field notes §6.15), and accounts in fixed slots (§6.13):
//! what vendors do, and what our side makes of it. Nothing of others is deleted or changed.

use super::site::{PASSWORD, Site, edge, order, own, shipped, until};
use farrier::model::FaultClass;
use farrier::model::action::{Expect, Outcome};
use farrier::model::facts::TaskState;
use farrier::port::capability::BmcAccounts;
use farrier::port::{BmcRead, BmcUpdate, Secret, UpdateOrder};
use farrier::sim::physics::HostState;
use farrier::sim::truth::What;
use reqwest::Method;
use serde_json::{Value, json};

const V1: &str = "/redfish/v1";

fn update(site: &Site) -> (Expect, UpdateOrder) {
    let expect = Expect { from_version: Some("7.10".into()), ..Site::expect(1) };
    let update = UpdateOrder {
        image_url: format!("{}/farrier/virtual-bmc-7.20.bin", site.images),
        inventory_id: "BMC".into(),
        from: "7.10".into(),
        to: "7.20".into(),
        file: None,
    };
    (expect, update)
}

async fn deed(site: &Site, deed: &str) {
    let (status, said) = site.admin(Method::POST, &format!("/machines/node-1/{deed}"), None).await;
    assert_eq!(status, 204, "{said}");
}

async fn jobs(site: &Site) -> usize {
    let list = site.get(1, &format!("{V1}/JobService/Jobs")).await;
    list["Members"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn a_full_job_queue_is_said_with_who_fills_it_and_nothing_of_theirs_is_deleted() {
    let site = Site::of(60, shipped(&["lenovo"])).await;
    let (edge, bmc) = (edge(5_000), site.target(1));
    let service = site.get(1, &format!("{V1}/JobService")).await;
    assert_eq!(service["ServiceCapabilities"]["MaxJobs"], 3);
    for _ in 0..3 {
        deed(&site, "queue-job").await;
    }
    let (expect, update) = update(&site);
    let Outcome::Failed { fault } = edge.update(&bmc, &expect, &update).await else {
        panic!("a full queue takes nothing")
    };
    assert_eq!((fault.class, &*fault.code), (FaultClass::Throttled, "job-queue-full"), "{fault}");
    assert_eq!(fault.retry_after_ms, Some(600_000), "later, not at once");
    for id in ["900001", "900002", "900003"] {
        assert!(fault.to_string().contains(id), "no {id}: {fault}");
    }
    assert!(fault.hint.as_deref().is_some_and(|h| h.contains("no job of others is deleted")));
    assert_eq!((jobs(&site).await, site.flashes(1)), (3, 0));
    // Whoever they belong to has done with them.
    deed(&site, "clear-jobs").await;
    let done = order("the same again", || edge.update(&bmc, &expect, &update)).await;
    assert!(matches!(done, Outcome::Applied { .. }), "{done:?}");
    assert_eq!(site.flashes(1), 1);
}

#[tokio::test]
async fn an_update_behind_an_unfinished_job_does_not_begin_before_that_is_over() {
    let site = Site::of(60, own("[jobs]\nstrict_order = true\n")).await;
    let (edge, bmc) = (edge(5_000), site.target(1));
    deed(&site, "queue-job").await;
    let (expect, update) = update(&site);
    let Outcome::Applied { handle } = edge.update(&bmc, &expect, &update).await else {
        panic!("it is taken into the queue")
    };
    let handle = handle.expect("a task");
    let tasks = edge.tasks(&bmc, Some(&handle)).await.unwrap();
    let own = tasks.iter().find(|t| t.uri == handle).expect("it is listed");
    assert_eq!((own.state, &*own.raw_state), (TaskState::InProgress, "Pending"));
    assert_eq!(site.flashes(1), 0, "nothing is written");
    // It outlives the BMC, as its queue does.
    site.seat(1).with(site.now(), |b| b.vm.reset_bmc_by_hand(site.now()));
    until("it is still there", || async {
        let tasks = edge.tasks(&bmc, Some(&handle)).await.ok()?;
        tasks.iter().any(|t| t.uri == handle && t.raw_state == "Pending").then_some(())
    })
    .await;
    deed(&site, "clear-jobs").await;
    until("it is written", || async {
        let tasks = edge.tasks(&bmc, Some(&handle)).await.ok()?;
        tasks.iter().any(|t| t.uri == handle && t.state == TaskState::Succeeded).then_some(())
    })
    .await;
    assert_eq!(site.flashes(1), 1);
}

#[tokio::test]
async fn a_lifecycle_controller_in_use_is_waited_for() {
    let site = Site::of(60, shipped(&["dell"])).await;
    let (edge, bmc) = (edge(5_000), site.target(1));
    let seat = site.seat(1).clone();
    seat.with(site.now(), |b| b.vm.press_power(site.now()));
    until("POST", || async {
        seat.with(site.now(), |b| b.vm.host == HostState::Post).then_some(())
    })
    .await;
    let (expect, update) = update(&site);
    let Outcome::Failed { fault } = edge.update(&bmc, &expect, &update).await else {
        panic!("it is in use during POST")
    };
    assert_eq!(
        (fault.class, fault.retry_after_ms),
        (FaultClass::Throttled, Some(60_000)),
        "{fault}"
    );
    assert!(fault.evidence.as_deref().is_some_and(|e| e.contains("LC068")), "{fault:?}");
    assert_eq!(site.flashes(1), 0);
    let done = order("after POST and a while", || edge.update(&bmc, &expect, &update)).await;
    assert!(matches!(done, Outcome::Applied { .. }), "{done:?}");
    let posted = seat.with(site.now(), |b| b.vm.host != HostState::Post);
    assert!(posted && site.flashes(1) == 1);
}

/// `PATCH` of an account slot by a plain client; status and body.
async fn slot(site: &Site, n: usize, body: Value) -> (u16, Value) {
    let path = format!("{V1}/AccountService/Accounts/{n}");
    let (status, _, said) = site.call(1, Method::PATCH, &path, &[], Some(body)).await;
    (status, said)
}

#[tokio::test]
async fn accounts_are_fixed_slots_where_the_vendor_has_them() {
    let site = Site::of(60, shipped(&["dell"])).await;
    let list = format!("{V1}/AccountService/Accounts");
    let members = |v: &Value| v["Members"].as_array().map_or(0, Vec::len);
    assert_eq!(members(&site.get(1, &list).await), 16);
    let new = |user: &str| {
        json!({"UserName": user, "Password": "made-by-a-test-1", "RoleId": "Administrator",
               "Enabled": true})
    };
    let (status, ..) = site.call(1, Method::POST, &list, &[], Some(new("farrier"))).await;
    assert_eq!(status, 405, "none is made by POST");
    assert_eq!(slot(&site, 1, new("farrier")).await.0, 400, "the first is reserved");
    let (status, said) = slot(&site, 3, new("farrier")).await;
    assert!(status < 300, "{said}");
    let shown = site.get(1, &format!("{list}/3")).await;
    assert_eq!((&shown["UserName"], &shown["Enabled"]), (&json!("farrier"), &json!(true)));
    assert_eq!(slot(&site, 4, new("farrier")).await.0, 400, "one slot a name");
    let (status, ..) = site.call(1, Method::DELETE, &format!("{list}/3"), &[], None).await;
    assert_eq!(status, 405, "none is removed");
    assert!(slot(&site, 3, json!({"Enabled": false})).await.0 < 300);
    assert!(slot(&site, 3, json!({"UserName": ""})).await.0 < 300);
    assert_eq!(site.get(1, &format!("{list}/3")).await["RoleId"], "None");
    assert_eq!(members(&site.get(1, &list).await), 16);
    assert_eq!(
        slot(&site, 2, json!({"UserName": ""})).await.0,
        400,
        "the last administrator stays"
    );
}

/// Rotation changes the slot that holds the user, wherever that is, and no other.
#[tokio::test]
async fn a_password_is_changed_in_the_slot_of_its_user_and_in_no_other() {
    let site = Site::of(60, shipped(&["dell"])).await;
    let (edge, bmc) = (edge(5_000), site.target(1));
    let account = |user: &str, password: &str| json!({"UserName": user, "Password": password, "RoleId": "Administrator", "Enabled": true});
    let (glass, old, new) = ("kept-in-an-envelope", "made-by-a-test-1", "made-by-a-test-2");
    assert!(slot(&site, 3, account("break-glass", glass)).await.0 < 300);
    assert!(slot(&site, 7, account("farrier", old)).await.0 < 300);
    let (rules, accounts) = edge.accounts(&bmc).await.unwrap();
    assert_eq!(accounts.iter().filter(|a| !a.user.is_empty()).count(), 3);
    assert!(rules.max_length.is_some_and(|max| max <= 40), "{rules:?}");
    let before = site.truth(1, |e| e.what == What::AccountSet);
    let done = edge.set_password(&bmc, "farrier", &Secret::new(new)).await;
    assert_eq!(done, Outcome::Applied { handle: None });
    assert_eq!(site.truth(1, |e| e.what == What::AccountSet), before + 1, "one write");
    for (user, password, works) in [
        ("farrier", new, true),
        ("farrier", old, false),
        ("break-glass", glass, true),
        ("admin", PASSWORD, true),
    ] {
        let tried = edge.verify(&bmc, user, &Secret::new(password)).await;
        assert_eq!(tried.is_ok(), works, "{user}: {tried:?}");
    }
    // The slot was given to somebody else meanwhile: it is found where it is now, or not at all.
    assert!(slot(&site, 7, json!({"UserName": ""})).await.0 < 300);
    assert!(slot(&site, 7, account("somebody", "another-password")).await.0 < 300);
    let Outcome::Failed { fault } = edge.set_password(&bmc, "farrier", &Secret::new(old)).await
    else {
        panic!("nobody of that name")
    };
    assert_eq!(&*fault.code, "no-account");
    assert!(edge.verify(&bmc, "somebody", &Secret::new("another-password")).await.is_ok());
    // On a BMC that asks for 13 to 20, a longer or shorter one is turned down and none is changed.
    let site = Site::of(60, shipped(&["dgx"])).await;
    let bmc = site.target(1);
    for wrong in ["twelve-chars", "twenty-one-characters"] {
        let done = edge.set_password(&bmc, "admin", &Secret::new(wrong)).await;
        assert!(matches!(done, Outcome::Failed { .. }), "{wrong}: {done:?}");
    }
    assert!(edge.verify(&bmc, "admin", &Secret::new(PASSWORD)).await.is_ok());
}
