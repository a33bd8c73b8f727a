//! Faults by rule: whatever happens to a request, nothing is done twice and the end is what truly
//! happened. And the admin port itself.

use super::site::{Site, edge, order, shipped, until};
use farrier::model::action::{BootTarget, Expect, Outcome, PowerOp};
use farrier::model::facts::{Power, TaskState};
use farrier::port::{BmcPower, BmcRead, BmcUpdate, UpdateOrder};
use farrier::sim::physics::BootMode;
use farrier::sim::truth::What;
use reqwest::Method;
use serde_json::{Value, json};

/// Every effect, and whether the BMC carried the request out.
fn effects() -> Vec<(Value, bool)> {
    let mut all = Vec::new();
    for applied in [false, true] {
        for effect in [
            json!({"status": 500}),
            json!({"status": 503, "body": {"error": {"code": "busy"}}}),
            json!("drop"),
            json!("half-reply"),
            json!("hang"),
            json!("garbage"),
        ] {
            all.push((json!({"effect": effect, "applied": applied}), applied));
        }
    }
    all.push((json!({"effect": {"latency_ms": 300}}), true));
    let critical = json!({"error": {"code": "x", "@Message.ExtendedInfo": [
        {"MessageId": "Base.1.0.GeneralError", "Message": "no", "Severity": "Critical"}]}});
    all.push((json!({"effect": {"status": 200, "body": critical}, "applied": true}), true));
    all.push((json!({"effect": {"status": 200, "body": critical}, "applied": false}), false));
    all
}

/// What came of an order with one fault on its way, given again only where it surely was not done.
fn ends_well(what: &str, outcome: Outcome, applied: bool, happened: usize) -> bool {
    assert!(happened <= 1, "{what}: done {happened} times");
    match outcome {
        // Nothing may be called done that was not.
        Outcome::Applied { .. } => happened == 1,
        Outcome::Failed { fault } => {
            assert!(!applied && happened == 0, "{what}: {fault:?}, and it was done");
            false
        }
        Outcome::Unknown { .. } => {
            assert_eq!(happened == 1, applied, "{what}");
            happened == 1
        }
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_every_fault_an_order_is_carried_out_once_at_most() {
    let effects = effects();
    let site = Site::start(60, effects.len(), Default::default()).await;
    let edge = edge(400);
    let each = effects.iter().enumerate().map(|(i, (rule, applied))| {
        let (site, edge, n) = (&site, &edge, i + 1);
        async move {
            let (bmc, expect) = (site.target(n), Site::expect(n));
            edge.system(&bmc).await.unwrap();
            // Power.
            let what = format!("power: {rule}");
            add(site, n, "*/ComputerSystem.Reset", rule).await;
            let outcome = edge.power(&bmc, &expect, PowerOp::On).await;
            let ons = || site.truth(n, |e| e.what == What::PowerOn);
            // A BMC may still be at it when the caller has given up.
            if !ends_well(&what, outcome, *applied, ons()) {
                order(&what, || edge.power(&bmc, &expect, PowerOp::On)).await;
            }
            until(&what, || async {
                (edge.system(&bmc).await.ok()?.power == Power::On).then_some(())
            })
            .await;
            assert_eq!(ons(), 1, "{what}");
            // An update.
            let what = format!("update: {rule}");
            add(site, n, "*/UpdateService.SimpleUpdate", rule).await;
            let update = UpdateOrder {
                image_url: format!("{}/farrier/virtual-bmc-7.20.bin", site.images),
                inventory_id: "BMC".into(),
                from: "7.10".into(),
                to: "7.20".into(),
                file: None,
            };
            let with = Expect { from_version: Some("7.10".into()), ..expect.clone() };
            let outcome = edge.update(&bmc, &with, &update).await;
            if !ends_well(&what, outcome, *applied, site.flashes(n)) {
                order(&what, || edge.update(&bmc, &with, &update)).await;
            }
            until(&what, || async {
                let tasks = edge.tasks(&bmc, None).await.ok()?;
                tasks.iter().any(|t| t.state == TaskState::Succeeded).then_some(())
            })
            .await;
            assert_eq!(site.flashes(n), 1, "{what}");
            // The boot override may be set as often as one likes; it must end as it was asked for.
            let what = format!("boot: {rule}");
            site.admin(
                Method::POST,
                "/rules",
                Some(&with_match(rule, n, "PATCH", "*/Systems/1").to_string()),
            )
            .await;
            for _ in 0..2 {
                let _ = edge.set_boot(&bmc, &expect, BootTarget::Pxe).await;
            }
            let mode = site.seat(n).with(site.now(), |b| b.vm.boot.mode);
            assert_eq!(mode, BootMode::Once, "{what}");
        }
    });
    futures_util::future::join_all(each).await;
    let (_, rules) = site.admin(Method::GET, "/rules", None).await;
    for rule in rules.as_array().unwrap() {
        assert_eq!(rule["hits"], 1, "a rule that struck nothing proves nothing: {rule}");
    }
}

fn with_match(rule: &Value, n: usize, method: &str, path: &str) -> Value {
    let mut rule = rule.clone();
    rule["machine"] = format!("node-{n}").into();
    rule["method"] = method.into();
    rule["path"] = path.into();
    rule["count"] = 1.into();
    rule
}

async fn add(site: &Site, n: usize, path: &str, rule: &Value) {
    let rule = with_match(rule, n, "POST", path);
    let (status, said) = site.admin(Method::POST, "/rules", Some(&rule.to_string())).await;
    assert_eq!(status, 201, "{rule}: {said}");
}

#[tokio::test]
async fn a_stale_read_is_the_first_one_again_until_its_rule_goes() {
    let site = Site::of(60, shipped(&["clean"])).await;
    let rule = json!({"effect": "stale", "path": "/redfish/v1/Systems/1"}).to_string();
    let (_, added) = site.admin(Method::POST, "/rules", Some(&rule)).await;
    let power = || async { site.get(1, "/redfish/v1/Systems/1").await["PowerState"].clone() };
    assert_eq!(power().await, "Off");
    let seat = site.seat(1).clone();
    seat.with(site.now(), |b| b.vm.press_power(site.now()));
    until("it is on", || async {
        let on = seat.with(site.now(), |b| format!("{:?}", b.vm.shown_power()) == "On");
        on.then_some(())
    })
    .await;
    assert_eq!(power().await, "Off", "stale");
    let id = &added["id"];
    assert_eq!(site.admin(Method::DELETE, &format!("/rules/{id}"), None).await.0, 204);
    assert_eq!(power().await, "On");
}

#[tokio::test]
async fn what_is_wrong_with_a_rule_is_said_with_its_place() {
    let site = Site::of(60, shipped(&["clean"])).await;
    for (body, place) in [
        ("{\"effect\": \"drop\",}", "line 1 column"),
        ("[]", "`/`"),
        ("{\"effect\": \"drop\", \"counts\": 1}", "`counts`"),
        ("{\"effect\": {\"status\": 42}}", "`effect.status`"),
        ("{\"effect\": \"drop\", \"probability\": 7}", "`probability`"),
    ] {
        let (status, said) = site.admin(Method::POST, "/rules", Some(body)).await;
        let said = said["error"].as_str().unwrap_or_default();
        assert!(status == 400 && said.contains(place), "{body}: {status} {said}");
    }
    assert_eq!(site.admin(Method::GET, "/rules", None).await.1, json!([]));
    for (path, status) in [("/rules/9", 404), ("/rules/nine", 400)] {
        assert_eq!(site.admin(Method::DELETE, path, None).await.0, status, "{path}");
    }
    for (path, status, says) in [
        ("/machines/nobody/press-power", 404, "nobody"),
        ("/machines/node-1/paint-it-red", 400, "pull-power"),
    ] {
        let (got, said) = site.admin(Method::POST, path, None).await;
        let said = said["error"].as_str().unwrap_or_default();
        assert!(got == status && said.contains(says), "{path}: {got} {said}");
    }
}

#[tokio::test]
async fn somebody_at_the_rack_pulls_power_cuts_the_network_and_resets_the_bmc() {
    let site = Site::of(300, shipped(&["clean"])).await;
    let (edge, bmc) = (edge(300), site.target(1));
    let deed = |name: &'static str| {
        let site = &site;
        async move {
            let path = format!("/machines/node-1/{name}");
            assert_eq!(site.admin(Method::POST, &path, None).await.0, 204, "{name}");
        }
    };
    let answers = || async { edge.system(&bmc).await.ok() };
    edge.system(&bmc).await.unwrap();
    deed("press-power").await;
    until("on", || async { (answers().await?.power == Power::On).then_some(()) }).await;
    // A switch that drops packets refuses nobody.
    deed("cut-network").await;
    let fault = edge.system(&bmc).await.unwrap_err();
    assert!(fault.is_no_answer(), "{fault:?}");
    deed("restore-network").await;
    until("an answer again", answers).await;
    assert!(site.open_sessions(1).await >= 1, "the BMC itself never went away");
    deed("reset-bmc").await;
    until("its sessions are gone", || async {
        (site.truth(1, |e| e.what == What::BmcReset) == 1).then_some(())
    })
    .await;
    until("an answer after the reset", answers).await;
    deed("pull-power").await;
    assert!(edge.system(&bmc).await.is_err());
    deed("restore-power").await;
    until("on as before", || async { (answers().await?.power == Power::On).then_some(()) }).await;
    deed("rebuild").await;
    until("as from the factory", || async { (answers().await?.power == Power::Off).then_some(()) })
        .await;
}
