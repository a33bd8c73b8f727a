//! Actions: guarded, sent once, and their answers read for what they prove.

use super::server::{Reply, SYSTEM, Server, calm};
use super::{edge, target};
use farrier::model::action::{BootTarget, Expect, Outcome, PowerOp};
use farrier::model::facts::Power;
use farrier::model::{FaultClass, Identity};
use farrier::port::{BmcCare, BmcPower, BmcRead, BmcUpdate, UpdateOrder};
use serde_json::json;

const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
const SIMPLE_UPDATE: &str = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";

fn expect() -> Expect {
    Expect { identity: Identity::new(Some("S1001"), None, None), ..Expect::default() }
}

fn order() -> UpdateOrder {
    UpdateOrder {
        image_url: "http://192.0.2.1/bios.bin".into(),
        inventory_id: "BIOS".into(),
        from: "1.0".into(),
        to: "2.0".into(),
        file: None,
    }
}

const APPLIED: Outcome = Outcome::Applied { handle: None };

#[tokio::test]
async fn power_goes_to_the_actions_own_target() {
    let server = Server::start(|r, _| calm(r)).await;
    let (edge, bmc) = (edge(), target(&server.url));
    let expect = Expect { power: Some(Power::On), ..expect() };
    assert_eq!(edge.power(&bmc, &expect, PowerOp::ForceOff).await, APPLIED);
    let posts: Vec<_> = server.seen().into_iter().filter(|s| s.is("POST", RESET)).collect();
    assert_eq!(posts.len(), 1);
    assert_eq!(posts[0].body, json!({"ResetType": "ForceOff"}));
    assert_eq!(posts[0].header("if-match"), None, "If-Match breaks actions on iDRAC10");
    // Already on: nothing to send.
    assert_eq!(edge.power(&bmc, &expect, PowerOp::On).await, APPLIED);
    assert_eq!(server.count("POST", RESET), 1);
}

#[tokio::test]
async fn nothing_is_sent_to_another_machine_or_against_another_state() {
    let server = Server::start(|r, _| calm(r)).await;
    let (edge, bmc) = (edge(), target(&server.url));
    let other = Expect { identity: Identity::new(Some("S2002"), None, None), ..Expect::default() };
    match edge.power(&bmc, &other, PowerOp::ForceOff).await {
        Outcome::Refused { saw, wrong_machine: true } => assert!(saw.contains("S1001"), "{saw}"),
        o => panic!("{o:?}"),
    }
    let off = Expect { power: Some(Power::Off), ..expect() };
    match edge.power(&bmc, &off, PowerOp::ForceRestart).await {
        Outcome::Refused { wrong_machine: false, .. } => {}
        o => panic!("{o:?}"),
    }
    let version = Expect { from_version: Some("0.9".into()), ..expect() };
    match edge.update(&bmc, &version, &order()).await {
        Outcome::Refused { saw, wrong_machine: false } => assert!(saw.contains("1.0"), "{saw}"),
        o => panic!("{o:?}"),
    }
    for o in [
        edge.set_boot(&bmc, &other, BootTarget::Pxe).await,
        edge.reset_bmc(&bmc, &other).await,
        edge.update(&bmc, &other, &order()).await,
    ] {
        assert!(matches!(o, Outcome::Refused { wrong_machine: true, .. }), "{o:?}");
    }
    assert!(server.seen().iter().all(|s| s.method == "GET" || s.path.contains("Sessions")));
}

#[tokio::test]
async fn a_post_dropped_after_it_arrived_is_unknown_and_was_sent_once() {
    for how in [Reply::Drop, Reply::Hang] {
        let reply = how.clone();
        let server = Server::start(move |r, _| match r.method.as_str() {
            "POST" if !r.path.contains("Session") => reply.clone(),
            _ => calm(r),
        })
        .await;
        let (edge, bmc) = (edge(), target(&server.url));
        match edge.power(&bmc, &expect(), PowerOp::ForceRestart).await {
            Outcome::Unknown { fault } => assert!(fault.is_no_answer(), "{fault:?}"),
            o => panic!("{how:?}: {o:?}"),
        }
        match edge.update(&bmc, &expect(), &order()).await {
            Outcome::Unknown { fault } => assert!(fault.is_no_answer(), "{fault:?}"),
            o => panic!("{how:?}: {o:?}"),
        }
        assert_eq!((server.count("POST", RESET), server.count("POST", SIMPLE_UPDATE)), (1, 1));
    }
}

#[tokio::test]
async fn a_bmc_that_is_not_there_fails_without_doubt() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    match edge().power(&target(&url), &expect(), PowerOp::On).await {
        Outcome::Failed { fault } => assert!(fault.is_no_answer(), "{fault:?}"),
        o => panic!("{o:?}"),
    }
}

#[tokio::test]
async fn answers_to_an_action_are_sorted() {
    type Case = (Reply, fn(&Outcome) -> bool);
    let cases: Vec<Case> = vec![
        (Reply::status(200), |o| *o == APPLIED),
        (Reply::status(202), |o| *o == APPLIED),
        (Reply::said(200, "Success"), |o| *o == APPLIED),
        (Reply::status(500), |o| matches!(o, Outcome::Unknown { .. })),
        (Reply::status(502), |o| matches!(o, Outcome::Unknown { .. })),
        (Reply::status(503), |o| matches!(o, Outcome::Unknown { .. })),
        (Reply::Json(503, vec![("Retry-After", "20".into())], json!({})), |o| {
            matches!(o, Outcome::Failed { fault } if fault.class == FaultClass::Throttled
                && fault.retry_after_ms == Some(20_000))
        }),
        (Reply::said(500, "ActionNotSupported"), |o| matches!(o, Outcome::Failed { .. })),
        (
            Reply::status(409),
            |o| matches!(o, Outcome::Failed { fault } if fault.class == FaultClass::Transient),
        ),
        (
            Reply::status(400),
            |o| matches!(o, Outcome::Failed { fault } if fault.class == FaultClass::Precondition),
        ),
        (
            Reply::status(405),
            |o| matches!(o, Outcome::Failed { fault } if fault.class == FaultClass::Unsupported),
        ),
        (
            Reply::Json(
                200,
                vec![],
                json!({"error": {"@Message.ExtendedInfo": [
                {"MessageId": "X.1.0.Bad", "Severity": "Critical", "Message": "no"}]}}),
            ),
            |o| matches!(o, Outcome::Unknown { .. }),
        ),
    ];
    for (reply, judge) in cases {
        let answer = reply.clone();
        let server =
            Server::start(move |r, _| if r.is("POST", RESET) { answer.clone() } else { calm(r) })
                .await;
        let o = edge().power(&target(&server.url), &expect(), PowerOp::ForceRestart).await;
        assert!(judge(&o), "{reply:?}: {o:?}");
        assert_eq!(server.count("POST", RESET), 1, "{reply:?}");
    }
}

#[tokio::test]
async fn already_so_is_applied_when_the_system_shows_it() {
    let server = Server::start(|r, before| {
        if r.is("POST", RESET) {
            return Reply::status(409);
        }
        let reply = calm(r);
        match reply {
            Reply::Json(200, h, mut v)
                if r.path == SYSTEM && before.iter().any(|s| s.is("POST", RESET)) =>
            {
                v["PowerState"] = json!("Off");
                Reply::Json(200, h, v)
            }
            other => other,
        }
    })
    .await;
    let (edge, bmc) = (edge(), target(&server.url));
    assert_eq!(edge.power(&bmc, &expect(), PowerOp::ForceOff).await, APPLIED);
}

#[tokio::test]
async fn what_a_bmc_lacks_is_unsupported_with_a_hint() {
    let server = Server::start(|r, _| match calm(r) {
        Reply::Json(200, h, mut v) if r.path == SYSTEM => {
            let reset = &mut v["Actions"]["#ComputerSystem.Reset"];
            reset["ResetType@Redfish.AllowableValues"] = json!(null);
            reset["@Redfish.ActionInfo"] = json!("/redfish/v1/Systems/1/ResetActionInfo");
            v["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"] = json!(["None", "Pxe"]);
            Reply::Json(200, h, v)
        }
        _ if r.path.ends_with("ResetActionInfo") => Reply::ok(json!({"Parameters": [
            {"Name": "ResetType", "AllowableValues": ["On", "ForceOff"]}]})),
        other => other,
    })
    .await;
    let (edge, bmc) = (edge(), target(&server.url));
    for op in [PowerOp::ForceRestart, PowerOp::GracefulShutdown] {
        match edge.power(&bmc, &expect(), op).await {
            Outcome::Failed { fault } => {
                assert_eq!(fault.class, FaultClass::Unsupported);
                assert!(fault.hint.is_some());
            }
            o => panic!("{o:?}"),
        }
    }
    match edge.set_boot(&bmc, &expect(), BootTarget::UefiHttp).await {
        Outcome::Failed { fault } => assert_eq!(fault.code, "boot-target-unsupported"),
        o => panic!("{o:?}"),
    }
    assert_eq!(edge.power(&bmc, &expect(), PowerOp::ForceOff).await, APPLIED);
}

/// The list could not be read in this moment, and the usual value is none of it: no verdict.
#[tokio::test]
async fn a_guess_that_is_turned_down_is_tried_again_with_the_list() {
    let server = Server::start(|r, seen| match calm(r) {
        Reply::Json(200, h, mut v) if r.path == SYSTEM => {
            let reset = &mut v["Actions"]["#ComputerSystem.Reset"];
            reset["ResetType@Redfish.AllowableValues"] = json!(null);
            reset["@Redfish.ActionInfo"] = json!("/redfish/v1/Systems/1/ResetActionInfo");
            Reply::Json(200, h, v)
        }
        _ if r.path.ends_with("ResetActionInfo") => {
            match seen.iter().any(|s| s.path.ends_with("ComputerSystem.Reset")) {
                false => Reply::status(500),
                true => Reply::ok(json!({"Parameters": [
                    {"Name": "ResetType", "AllowableValues": ["PowerCycle", "On", "ForceOff"]}]})),
            }
        }
        _ if r.method == "POST" && r.body["ResetType"] == "ForceRestart" => Reply::status(400),
        other => other,
    })
    .await;
    let (edge, bmc) = (edge(), target(&server.url));
    match edge.power(&bmc, &expect(), PowerOp::ForceRestart).await {
        Outcome::Failed { fault } => {
            assert_eq!((fault.class, &*fault.code), (FaultClass::Transient, "rejected"));
            assert!(fault.hint.as_deref().unwrap_or_default().contains("could not be read"));
        }
        o => panic!("{o:?}"),
    }
    // With the list it is clear.
    match edge.power(&bmc, &expect(), PowerOp::ForceRestart).await {
        Outcome::Failed { fault } => assert_eq!(fault.class, FaultClass::Unsupported, "{fault:?}"),
        other => assert_eq!(other, APPLIED),
    }
}

#[tokio::test]
async fn the_boot_override_is_minimal_and_speaks_the_bmcs_etag() {
    // Takes only the bare spelling of its weak ETag.
    let server = Server::start(|r, _| match r.method.as_str() {
        "PATCH" if r.header("if-match") == Some("abc") => Reply::status(204),
        "PATCH" => Reply::status(412),
        _ if r.path == SYSTEM => calm(r).with("ETag", "W/\"abc\""),
        _ => calm(r),
    })
    .await;
    let (edge, bmc) = (edge(), target(&server.url));
    assert_eq!(edge.set_boot(&bmc, &expect(), BootTarget::Pxe).await, APPLIED);
    let patches: Vec<_> = server.seen().into_iter().filter(|s| s.is("PATCH", SYSTEM)).collect();
    let tags: Vec<_> = patches.iter().filter_map(|p| p.header("if-match")).collect();
    assert_eq!(tags, ["W/\"abc\"", "\"abc\"", "abc"]);
    assert_eq!(
        patches[0].body,
        json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}})
    );
}

#[tokio::test]
async fn supermicro_gets_the_triple_and_hpe_never_a_mode() {
    for (maker, sends_mode) in [("Supermicro", true), ("HPE", false)] {
        let server = Server::start(move |r, _| match calm(r) {
            Reply::Json(200, h, mut v) if r.path == SYSTEM => {
                v["Manufacturer"] = json!(maker);
                v["Boot"]["BootSourceOverrideMode"] = json!("UEFI");
                Reply::Json(200, h, v)
            }
            other => other,
        })
        .await;
        let o = edge().set_boot(&target(&server.url), &expect(), BootTarget::Pxe).await;
        assert_eq!(o, APPLIED);
        let seen = server.seen();
        let patch = seen.iter().find(|s| s.method == "PATCH").unwrap();
        let mode = patch.body["Boot"].get("BootSourceOverrideMode").is_some();
        assert_eq!(mode, sends_mode, "{maker}");
    }
}

#[tokio::test]
async fn the_settings_object_takes_the_override_where_it_has_one() {
    const SD: &str = "/redfish/v1/Systems/1/SD";
    let server = Server::start(|r, before| match calm(r) {
        Reply::Json(200, h, mut v) if r.path == SYSTEM => {
            v["@Redfish.Settings"] = json!({"SettingsObject": {"@odata.id": SD}});
            Reply::Json(200, h, v)
        }
        _ if r.is("PATCH", SD) => Reply::status(204),
        _ if r.is("GET", SD) => {
            let set = before.iter().any(|s| s.is("PATCH", SD));
            let (target, enabled) = if set { ("Pxe", "Once") } else { ("None", "Disabled") };
            Reply::ok(json!({"Boot": {"BootSourceOverrideTarget": target,
                                      "BootSourceOverrideEnabled": enabled}}))
        }
        other => other,
    })
    .await;
    let (edge, bmc) = (edge(), target(&server.url));
    assert_eq!(edge.set_boot(&bmc, &expect(), BootTarget::Pxe).await, APPLIED);
    assert_eq!((server.count("PATCH", SD), server.count("PATCH", SYSTEM)), (1, 0));
    let facts = edge.system(&bmc).await.unwrap();
    assert_eq!(facts.boot_target.as_deref(), Some("Pxe"));
    assert_eq!(facts.boot_enabled.as_deref(), Some("Once"));
}

#[tokio::test]
async fn an_update_names_its_target_and_leaves_a_handle() {
    let server = Server::start(|r, _| calm(r)).await;
    let (edge, bmc) = (edge(), target(&server.url));
    let task = "/redfish/v1/TaskService/Tasks/7";
    let expect = Expect { from_version: Some("1.0".into()), ..expect() };
    assert_eq!(
        edge.update(&bmc, &expect, &order()).await,
        Outcome::Applied { handle: Some(task.into()) }
    );
    let seen = server.seen();
    let post = seen.iter().find(|s| s.is("POST", SIMPLE_UPDATE)).unwrap();
    assert_eq!(
        post.body,
        json!({"ImageURI": "http://192.0.2.1/bios.bin", "TransferProtocol": "HTTP",
               "Targets": ["/redfish/v1/UpdateService/FirmwareInventory/BIOS"]})
    );
    let tasks = edge.tasks(&bmc, Some(task)).await.unwrap();
    assert_eq!(tasks.len(), 1);
    assert_eq!((tasks[0].uri.as_str(), tasks[0].percent), (task, Some(40)));
    let tasks = edge.tasks(&bmc, Some("/redfish/v1/TaskService/Tasks/8")).await.unwrap();
    assert_eq!(tasks.len(), 1, "a task that is gone is simply not listed");
}

#[tokio::test]
async fn handles_are_found_in_every_place() {
    let cases = [
        (
            Reply::Json(
                202,
                vec![("Location", "http://idrac.lab/redfish/v1/TaskService/Tasks/JID_1".into())],
                json!({}),
            ),
            Some("/redfish/v1/TaskService/Tasks/JID_1"),
        ),
        (
            Reply::Json(
                202,
                vec![("Location", "/redfish/v1/TaskService/TaskMonitors/0".into())],
                json!({"@odata.id": "/redfish/v1/TaskService/Tasks/0", "TaskState": "Starting"}),
            ),
            Some("/redfish/v1/TaskService/Tasks/0"),
        ),
        (
            Reply::ok(
                json!({"Accepted": {"@Message.ExtendedInfo": [{"MessageId": "SMC.1.0.OemSimpleupdateAcceptedMessage", "MessageArgs": ["/redfish/v1/TaskService/Tasks/1"]}]}}),
            ),
            Some("/redfish/v1/TaskService/Tasks/1"),
        ),
        (
            Reply::ok(json!({"note": "job JID_42 created"})),
            Some("/redfish/v1/TaskService/Tasks/JID_42"),
        ),
        (Reply::status(204), None),
    ];
    for (reply, handle) in cases {
        let answer = reply.clone();
        let server =
            Server::start(
                move |r, _| {
                    if r.is("POST", SIMPLE_UPDATE) { answer.clone() } else { calm(r) }
                },
            )
            .await;
        let o = edge().update(&target(&server.url), &expect(), &order()).await;
        assert_eq!(o, Outcome::Applied { handle: handle.map(String::from) }, "{reply:?}");
    }
}

#[tokio::test]
async fn the_bmc_is_reset_through_its_own_manager() {
    let server = Server::start(|r, _| calm(r)).await;
    let (edge, bmc) = (edge(), target(&server.url));
    assert_eq!(edge.reset_bmc(&bmc, &expect()).await, APPLIED);
    let seen = server.seen();
    let post = seen.iter().find(|s| s.path.ends_with("Manager.Reset")).unwrap();
    assert_eq!(post.body, json!({"ResetType": "ForceRestart"}), "GracefulRestart is not listed");
}

#[tokio::test]
async fn ending_sessions_deletes_ours() {
    let server = Server::start(|r, _| calm(r)).await;
    let (edge, bmc) = (edge(), target(&server.url));
    edge.system(&bmc).await.unwrap();
    assert_eq!(edge.end_sessions(&bmc).await, APPLIED);
    assert_eq!(edge.end_sessions(&bmc).await, APPLIED);
    assert_eq!(server.count("DELETE", "/redfish/v1/SessionService/Sessions/1"), 1);
}
