//! Servers that misbehave: each ends in a classified fault with evidence, none in a panic, and no
//! password or token in any of them.

use super::server::{Reply, SYSTEM, Seen, Server, calm};
use super::{OneCredential, PASSWORD, edge, settings, target};
use farrier::bmc::{RedfishBmc, Settings};
use farrier::model::facts::TaskState;
use farrier::model::{Fault, FaultClass, MachineId};
use farrier::port::{BmcRead, BmcTarget};
use serde_json::json;
use std::sync::Arc;

const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

async fn fault_of(script: impl Fn(&Seen, &[Seen]) -> Reply + Send + Sync + 'static) -> Fault {
    let server = Server::start(script).await;
    edge().system(&target(&server.url)).await.expect_err("the server misbehaves")
}

/// The system's document is replaced by `reply`; all else is in order.
async fn fault_of_system(reply: Reply) -> Fault {
    fault_of(move |r, _| if r.path == SYSTEM { reply.clone() } else { calm(r) }).await
}

#[tokio::test]
async fn a_calm_bmc_is_read_with_one_login_and_then_one_get() {
    let server = Server::start(|r, _| calm(r)).await;
    let (edge, bmc) = (edge(), target(&server.url));
    let facts = edge.system(&bmc).await.unwrap();
    assert_eq!(facts.identity.serial.as_deref(), Some("S1001"));
    assert_eq!(facts.identity.uuid.as_deref(), Some("8d0a0f6e-7a2f-4a5e-9d1e-0a1b2c3d4e5f"));
    assert_eq!(facts.health.as_deref(), Some("Warning"));
    let before = server.seen().len();
    edge.system(&bmc).await.unwrap();
    assert_eq!(server.seen().len(), before + 1);
    assert_eq!(server.count("POST", SESSIONS), 1);
    let firmware = edge.firmware(&bmc).await.unwrap();
    assert_eq!(firmware.len(), 2);
    assert_eq!(firmware[0].version.as_deref(), Some("1.0"));
    let inventory = edge.inventory(&bmc).await.unwrap();
    assert!(inventory.gpus.is_empty() && inventory.warnings.is_empty(), "{inventory:?}");
}

#[tokio::test]
async fn html_and_half_a_body_are_not_redfish() {
    let html = "<html><body><h1>503 Service Unavailable</h1></body></html>";
    let f = fault_of_system(Reply::Text(200, "text/html", html.into())).await;
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Transient, "not-redfish"));
    assert!(f.evidence.is_some_and(|e| e.contains("Service Unavailable")));
    let f = fault_of_system(Reply::Half(json!({"SerialNumber": "S1001", "Pad": "x".repeat(500)})))
        .await;
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Transient, "not-redfish"));
    assert!(f.evidence.is_some_and(|e| e.contains("Serial") || e.contains("xxx")));
    let f = fault_of_system(Reply::ok(json!(["a", "list"]))).await;
    assert_eq!(f.code, "not-redfish");
    let f = fault_of_system(Reply::Text(403, "text/html", html.into())).await;
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Precondition, "forbidden"));
    let f = fault_of_system(Reply::Text(504, "text/html", html.into())).await;
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Transient, "bmc-error"));
}

#[tokio::test]
async fn large_documents_are_read_to_the_cap_and_not_beyond() {
    let padded =
        |mib: usize| Reply::ok(json!({"SerialNumber": "S1001", "Oem": "x".repeat(mib << 20)}));
    let server =
        Server::start(move |r, _| if r.path == SYSTEM { padded(3) } else { calm(r) }).await;
    let facts = edge().system(&target(&server.url)).await.unwrap();
    assert_eq!(facts.identity.serial.as_deref(), Some("S1001"));
    let f = fault_of_system(padded(5)).await;
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Transient, "too-large"));
}

#[tokio::test]
async fn no_answer_is_told_from_a_bad_one() {
    let f = fault_of_system(Reply::Hang).await;
    assert!(f.is_no_answer(), "{f:?}");
    let f = fault_of_system(Reply::Drop).await;
    assert!(f.is_no_answer(), "{f:?}");
    let f = fault_of(|_, _| Reply::Hang).await;
    assert!(f.is_no_answer(), "{f:?}");
}

#[tokio::test]
async fn a_slow_bmc_keeps_no_other_waiting() {
    let slow = Server::start(|_, _| Reply::Hang).await;
    let fine = Server::start(|r, _| calm(r)).await;
    let edge = edge();
    let other = BmcTarget { machine: MachineId(2), ..target(&fine.url) };
    let stuck = target(&slow.url);
    let waiting = edge.system(&stuck);
    tokio::pin!(waiting);
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("the fine BMC waited for the slow one"),
        read = edge.system(&other) => assert!(read.is_ok()),
    }
}

#[tokio::test]
async fn a_cut_kept_alive_connection_is_tried_once_more() {
    let server = Server::start(|r, before| {
        let first = !before.iter().any(|s| s.path == SYSTEM);
        if r.path == SYSTEM && first { Reply::Drop } else { calm(r) }
    })
    .await;
    assert!(edge().system(&target(&server.url)).await.is_ok());
    assert_eq!(server.count("GET", SYSTEM), 2);
}

#[tokio::test]
async fn null_members_are_an_empty_collection() {
    let server = Server::start(|r, _| match r.path.as_str() {
        "/redfish/v1/UpdateService/FirmwareInventory" | "/redfish/v1/TaskService/Tasks" => {
            Reply::ok(json!({ "Members": null }))
        }
        _ => calm(r),
    })
    .await;
    let (edge, bmc) = (edge(), target(&server.url));
    assert_eq!(edge.firmware(&bmc).await, Ok(vec![]));
    assert_eq!(edge.tasks(&bmc, None).await, Ok(vec![]));
    let f = fault_of(|r, _| match r.path.as_str() {
        "/redfish/v1/Systems" => Reply::ok(json!({ "Members": null })),
        _ => calm(r),
    })
    .await;
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Transient, "no-system"));
}

const MEMBERS: &str = "/redfish/v1/UpdateService/FirmwareInventory";

#[tokio::test]
async fn one_firmware_member_that_cant_be_read_takes_no_other_with_it() {
    let half = || Reply::Half(json!({"Id": "BIOS", "Pad": "x".repeat(500)}));
    type Bad = (&'static str, fn() -> Reply, &'static str);
    let bad: [Bad; 4] = [
        ("a server error", || Reply::status(500), "bmc-error"),
        ("no JSON", || Reply::Text(200, "text/html", "<html>".into()), "not-redfish"),
        ("no answer", || Reply::Hang, Fault::NO_ANSWER),
        ("a reset", || Reply::Drop, Fault::NO_ANSWER),
    ];
    for (name, reply, code) in
        bad.into_iter().chain([("a half", half as fn() -> Reply, "not-redfish")])
    {
        let bios = format!("{MEMBERS}/BIOS");
        let server =
            Server::start(move |r, _| if r.path == bios { reply() } else { calm(r) }).await;
        let all = edge().firmware(&target(&server.url)).await.unwrap();
        let said: Vec<_> = all.iter().map(|c| (c.id.as_str(), c.version.as_deref())).collect();
        assert_eq!(said, [("BIOS", None), ("BMC", Some("7.10"))], "{name}");
        let why = all[0].unread.as_deref().unwrap_or_else(|| panic!("{name}"));
        assert_eq!(why.code, code, "{name}");
        assert!(all[1].unread.is_none(), "{name}");
    }
    // A link that leads nowhere is a member that is not there.
    let server = Server::start(|r, _| match r.path.ends_with("/BIOS") {
        true => Reply::said(404, "ResourceMissingAtURI"),
        false => calm(r),
    })
    .await;
    let all = edge().firmware(&target(&server.url)).await.unwrap();
    assert_eq!(all.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["BMC"]);
    // Where none can be read it is the BMC that can't.
    for (reply, code) in [(Reply::status(500), "bmc-error"), (Reply::Hang, Fault::NO_ANSWER)] {
        let below = format!("{MEMBERS}/");
        let server = Server::start(move |r, _| match r.path.starts_with(&below) {
            true => reply.clone(),
            false => calm(r),
        })
        .await;
        let f = edge().firmware(&target(&server.url)).await.unwrap_err();
        assert_eq!(f.code, code);
    }
}

#[tokio::test]
async fn half_a_task_is_no_task_that_has_ended() {
    const TASK: &str = "/redfish/v1/TaskService/Tasks/7";
    let half = || Reply::Half(json!({"TaskState": "Running", "Pad": "x".repeat(500)}));
    let bad: [fn() -> Reply; 5] = [
        || Reply::Text(200, "text/html", "<html>".into()),
        || Reply::status(500),
        || Reply::Hang,
        || Reply::Drop,
        // 200, and an error is all there is (R9).
        || Reply::ok(json!({"error": {"@Message.ExtendedInfo": [{"MessageId": "Base.1.0.X"}]}})),
    ];
    for (n, reply) in bad.into_iter().chain([half as fn() -> Reply]).enumerate() {
        let server =
            Server::start(move |r, _| if r.path == TASK { reply() } else { calm(r) }).await;
        for handle in [Some(TASK), None] {
            let read = edge().tasks(&target(&server.url), handle).await;
            assert!(read.is_err(), "{n} {handle:?}: {read:?}");
        }
    }
    // A monitor's end is the operation's own answer.
    for (status, over) in [(202, false), (204, true)] {
        let server = Server::start(move |r, _| match r.path == TASK {
            true => Reply::status(status),
            false => calm(r),
        })
        .await;
        let read = edge().tasks(&target(&server.url), Some(TASK)).await.unwrap();
        assert_eq!(read[0].state == TaskState::Succeeded, over, "{status}");
    }
}

#[tokio::test]
async fn a_member_that_was_read_before_keeps_its_id_while_it_cant_be_read() {
    let server = Server::start(|r, before| {
        let path = format!("{MEMBERS}/BIOS");
        let reads = before.iter().filter(|s| s.path == path).count();
        match calm(r) {
            Reply::Json(200, h, mut v) if r.path == path && reads == 0 => {
                v["Id"] = json!("System.BIOS");
                Reply::Json(200, h, v)
            }
            _ if r.path == path => Reply::status(500),
            other => other,
        }
    })
    .await;
    let (edge, bmc) = (edge(), target(&server.url));
    assert_eq!(edge.firmware(&bmc).await.unwrap()[0].id, "System.BIOS");
    for _ in 0..2 {
        let all = edge.firmware(&bmc).await.unwrap();
        assert_eq!((all[0].id.as_str(), all[0].unread.is_some()), ("System.BIOS", true));
    }
}

#[tokio::test]
async fn collections_are_read_page_by_page_and_not_in_a_circle() {
    let server = Server::start(|r, _| {
        let base = "/redfish/v1/UpdateService/FirmwareInventory";
        match r.path.strip_prefix(base) {
            Some("") => Reply::ok(json!({
                "Members": [{"@odata.id": format!("{base}/BIOS")}],
                "Members@odata.nextLink": format!("{base}?$skip=1")})),
            Some("?$skip=1") => Reply::ok(json!({
                "Members": [{"@odata.id": format!("{base}/BMC")}],
                "Members@odata.nextLink": base})),
            _ => calm(r),
        }
    })
    .await;
    let ids: Vec<String> =
        edge().firmware(&target(&server.url)).await.unwrap().into_iter().map(|c| c.id).collect();
    assert_eq!(ids, ["BIOS", "BMC"]);
}

#[tokio::test]
async fn expand_is_used_where_it_works_and_dropped_where_it_does_not() {
    for works in [true, false] {
        let server = Server::start(move |r, _| {
            let base = "/redfish/v1/UpdateService/FirmwareInventory";
            match calm(r) {
                Reply::Json(200, h, mut v) if r.path == "/redfish/v1/" => {
                    v["ProtocolFeaturesSupported"] = json!({"ExpandQuery": {"NoLinks": true}});
                    Reply::Json(200, h, v)
                }
                _ if r.path.starts_with(base) && r.path.contains("$expand") => match works {
                    true => Reply::ok(json!({"Members": [
                        {"@odata.id": format!("{base}/BIOS"), "Id": "BIOS", "Version": "3.3"}]})),
                    false => Reply::status(500),
                },
                other => other,
            }
        })
        .await;
        let all = edge().firmware(&target(&server.url)).await.unwrap();
        assert_eq!(all[0].version.as_deref(), Some(if works { "3.3" } else { "1.0" }));
        let bios = "/redfish/v1/UpdateService/FirmwareInventory/BIOS";
        assert_eq!(server.count("GET", bios), usize::from(!works));
    }
}

#[tokio::test]
async fn an_expired_session_is_renewed_once() {
    let server = Server::start(|r, before| {
        let reads = before.iter().filter(|s| s.path == SYSTEM).count();
        if r.path == SYSTEM && reads == 1 { Reply::status(401) } else { calm(r) }
    })
    .await;
    let (edge, bmc) = (edge(), target(&server.url));
    edge.system(&bmc).await.unwrap();
    edge.system(&bmc).await.unwrap();
    assert_eq!(server.count("POST", SESSIONS), 2);
}

#[tokio::test]
async fn refused_logins_are_never_looped() {
    // Sessions are handed out and not honoured.
    let server = Server::start(|r, _| {
        if r.path == "/redfish/v1/" || r.method == "POST" { calm(r) } else { Reply::status(401) }
    })
    .await;
    let (edge1, bmc) = (edge(), target(&server.url));
    for _ in 0..5 {
        let f = edge1.system(&bmc).await.unwrap_err();
        assert_eq!((f.class, f.code.as_ref()), (FaultClass::Auth, "bad-credentials"));
    }
    assert_eq!(server.count("POST", SESSIONS), 2);
    // A wrong password: one try, then none for minutes.
    let server =
        Server::start(|r, _| if r.method == "POST" { Reply::status(401) } else { calm(r) }).await;
    let (edge2, bmc) = (edge(), target(&server.url));
    for round in 0..5 {
        let f = edge2.system(&bmc).await.unwrap_err();
        assert_eq!((f.class, f.code.as_ref()), (FaultClass::Auth, "bad-credentials"));
        assert_eq!(f.retry_after_ms.is_some(), round > 0, "{f:?}");
    }
    assert_eq!(server.count("POST", SESSIONS), 1);
    // Basic too, where there are no sessions.
    let server = Server::start(|r, _| match r.path.as_str() {
        "/redfish/v1/" => Reply::ok(json!({"Systems": {"@odata.id": "/redfish/v1/Systems"}})),
        _ => Reply::status(401),
    })
    .await;
    let (edge3, bmc) = (edge(), target(&server.url));
    for _ in 0..5 {
        assert_eq!(edge3.system(&bmc).await.unwrap_err().code, "bad-credentials");
    }
    assert_eq!(server.seen().iter().filter(|s| s.header("authorization").is_some()).count(), 1);
}

#[tokio::test]
async fn many_reads_at_once_share_one_login() {
    let server = Server::start(|r, _| calm(r)).await;
    let (edge, bmc) = (edge(), target(&server.url));
    let reads = (0..8).map(|_| edge.system(&bmc));
    for read in futures_util::future::join_all(reads).await {
        read.unwrap();
    }
    assert_eq!(server.count("POST", SESSIONS), 1);
}

#[tokio::test]
async fn without_a_session_left_basic_is_used() {
    for id in ["SessionLimitExceeded", "RAC0218"] {
        let server =
            Server::start(
                move |r, _| {
                    if r.is("POST", SESSIONS) { Reply::said(503, id) } else { calm(r) }
                },
            )
            .await;
        let (edge, bmc) = (edge(), target(&server.url));
        edge.system(&bmc).await.unwrap();
        edge.system(&bmc).await.unwrap();
        assert_eq!(server.count("POST", SESSIONS), 1, "{id}");
        assert!(server.seen().last().is_some_and(|s| s.header("authorization").is_some()));
    }
    // Busy is not exhausted: no downgrade.
    let f =
        fault_of(|r, _| if r.is("POST", SESSIONS) { Reply::status(503) } else { calm(r) }).await;
    assert_eq!(f.class, FaultClass::Throttled);
}

#[tokio::test]
async fn an_expired_password_is_said() {
    let f = fault_of_system(Reply::said(403, "PasswordChangeRequired")).await;
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Auth, "password-change-required"));
    assert!(f.hint.is_some());
}

#[tokio::test]
async fn credentials_go_to_no_other_server() {
    let trap = Server::start(|_, _| Reply::ok(json!({}))).await;
    let elsewhere = format!("{}{SYSTEM}", trap.url);
    let to = elsewhere.clone();
    let f = fault_of_system(Reply::status(307).with("Location", &to)).await;
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Precondition, "foreign-link"));
    let to = elsewhere.clone();
    let f = fault_of(move |r, _| match r.path.as_str() {
        "/redfish/v1/Systems" => Reply::ok(json!({"Members": [{"@odata.id": to}]})),
        _ => calm(r),
    })
    .await;
    assert_eq!(f.code, "foreign-link");
    let to = elsewhere.replace("http://", "//");
    let f = fault_of(move |r, _| match r.path.as_str() {
        "/redfish/v1/Systems" => Reply::ok(json!({"Members": [{"@odata.id": to}]})),
        _ => calm(r),
    })
    .await;
    assert_eq!(f.code, "foreign-link");
    assert!(trap.seen().is_empty());
    // Within the BMC a redirect is followed.
    let server = Server::start(|r, _| match r.path.as_str() {
        "/redfish/v1/Systems" => {
            Reply::ok(json!({"Members": [{"@odata.id": "/redfish/v1/Systems/node-1"}]}))
        }
        "/redfish/v1/Systems/node-1" => Reply::status(307).with("Location", SYSTEM),
        _ => calm(r),
    })
    .await;
    assert!(edge().system(&target(&server.url)).await.is_ok());
}

#[tokio::test]
async fn what_is_optional_is_unsupported_not_broken() {
    let server = Server::start(|r, _| match r.path.as_str() {
        "/redfish/v1/" => Reply::ok(json!({
            "Systems": {"@odata.id": "/redfish/v1/Systems"},
            "Links": {"Sessions": {"@odata.id": SESSIONS}}})),
        _ => calm(r),
    })
    .await;
    let (edge, bmc) = (edge(), target(&server.url));
    let f = edge.firmware(&bmc).await.unwrap_err();
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Unsupported, "no-update-service"));
    let f = edge.tasks(&bmc, None).await.unwrap_err();
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Unsupported, "no-task-service"));
}

#[tokio::test]
async fn a_task_that_can_not_be_read_is_not_left_out_of_the_list() {
    // The update whose answer was lost runs under one of them: a list without it would say that
    // nothing runs.
    for broken in [Reply::Text(200, "text/html", "<html>".into()), Reply::status(500)] {
        let server = Server::start(move |r, _| match r.path.as_str() {
            "/redfish/v1/" => Reply::ok(json!({
                "Systems": {"@odata.id": "/redfish/v1/Systems"},
                "Tasks": {"@odata.id": "/redfish/v1/TaskService"},
                "Links": {"Sessions": {"@odata.id": SESSIONS}}})),
            "/redfish/v1/TaskService" => {
                Reply::ok(json!({"Tasks": {"@odata.id": "/redfish/v1/TaskService/Tasks"}}))
            }
            "/redfish/v1/TaskService/Tasks" => Reply::ok(json!({"Members": [
                {"@odata.id": "/redfish/v1/TaskService/Tasks/1"},
                {"@odata.id": "/redfish/v1/TaskService/Tasks/2"},
            ]})),
            "/redfish/v1/TaskService/Tasks/1" => Reply::ok(json!({"TaskState": "Completed"})),
            "/redfish/v1/TaskService/Tasks/2" => broken.clone(),
            _ => calm(r),
        })
        .await;
        let (edge, bmc) = (edge(), target(&server.url));
        assert!(edge.tasks(&bmc, None).await.is_err());
    }
}

#[tokio::test]
async fn secrets_are_in_no_fault() {
    let echo = format!("user=farrier password={PASSWORD} token=token-0001");
    let f = fault_of_system(Reply::Text(500, "text/plain", echo.clone())).await;
    let shown = format!("{f:?}");
    assert!(shown.contains("password=…"), "{shown}");
    assert!(!shown.contains(PASSWORD) && !shown.contains("token-0001"), "{shown}");
    let f = fault_of(move |r, _| {
        if r.method == "POST" { Reply::Text(500, "text/plain", echo.clone()) } else { calm(r) }
    })
    .await;
    assert!(!format!("{f:?}").contains(PASSWORD), "{f:?}");
}

#[tokio::test]
async fn a_moved_system_is_found_again() {
    // sushy-tools says 500 of a domain that is gone.
    for (status, looks) in [(404, 1), (500, 2)] {
        moved_system(status, looks).await;
    }
}

async fn moved_system(status: u16, looks: usize) {
    let server = Server::start(move |r, before| {
        let moved = before.iter().any(|s| s.path == SYSTEM);
        match r.path.as_str() {
            "/redfish/v1/Systems" if moved => {
                Reply::ok(json!({"Members": [{"@odata.id": "/redfish/v1/Systems/Self"}]}))
            }
            SYSTEM if moved => Reply::status(status),
            "/redfish/v1/Systems/Self" => Reply::ok(json!({"SerialNumber": "S1001"})),
            _ => calm(r),
        }
    })
    .await;
    let (edge, bmc) = (edge(), target(&server.url));
    edge.system(&bmc).await.unwrap();
    let mut facts = edge.system(&bmc).await;
    for _ in 1..looks {
        assert!(facts.is_err(), "{facts:?}");
        facts = edge.system(&bmc).await;
    }
    assert_eq!(facts.unwrap().identity.serial.as_deref(), Some("S1001"));
}

/// A server's side of TLS with a certificate for 127.0.0.1 of its own; its digest, and the certificate.
pub(super) fn self_signed() -> (rustls::ServerConfig, String, String) {
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_string()]).unwrap();
    let der = signed.cert.der().clone();
    let pin = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der));
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der], key)
        .unwrap();
    (config, pin, signed.cert.pem())
}

#[tokio::test]
async fn the_pinned_certificate_is_the_only_one_taken() {
    let (config, pin, pem) = self_signed();
    let server = Server::start_tls(config, |r, _| calm(r)).await;
    let edge = edge();
    let with = |tls: &str| {
        let mut t = target(&server.url);
        t.endpoint.tls = tls.into();
        t
    };
    edge.system(&with(&format!("sha256:{pin}"))).await.unwrap();
    edge.system(&with("off")).await.unwrap();
    let arrived = server.seen().len();
    let f = edge.system(&with(&format!("sha256:{}", "00".repeat(32)))).await.unwrap_err();
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Identity, "certificate-changed"));
    assert!(f.evidence.is_some_and(|e| e.contains(&pin)), "the shown one is named");
    let f = edge.system(&with("ca")).await.unwrap_err();
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Precondition, "certificate-untrusted"));
    let f = edge.system(&with("sha256:12")).await.unwrap_err();
    assert_eq!(f.code, "bad-address");
    assert_eq!(server.seen().len(), arrived, "no request went over a refused connection");
    // A CA that is trusted on purpose.
    let ca = RedfishBmc::new(Arc::new(OneCredential), Settings { ca_pem: Some(pem), ..settings() });
    ca.system(&with("ca")).await.unwrap();
}

#[tokio::test]
async fn a_service_that_is_half_up_is_not_called_unsupported() {
    let f = fault_of(|_, _| Reply::status(404)).await;
    assert_eq!((f.class, f.code.as_ref()), (FaultClass::Transient, "no-redfish"));
    for path in ["/redfish/v1/Systems", SYSTEM] {
        let f =
            fault_of(move |r, _| if r.path == path { Reply::status(404) } else { calm(r) }).await;
        assert_eq!((f.class, f.code.as_ref()), (FaultClass::Transient, "no-system"), "{path}");
    }
    let f = fault_of(|r, _| match r.path.as_str() {
        "/redfish/v1/" => Reply::ok(json!({ "RedfishVersion": "1.9.0" })),
        _ => calm(r),
    })
    .await;
    assert_eq!(f.class, FaultClass::Transient, "a root without links: {f:?}");
}

#[tokio::test]
async fn one_bmc_gets_three_reads_at_a_time() {
    let server = Server::start(|r, before| {
        // All requests after the login and the first read wait for ever.
        let known = before.iter().any(|s| s.path == SYSTEM);
        if known { Reply::Hang } else { calm(r) }
    })
    .await;
    let slow = Settings { read_timeout_ms: 30_000, write_timeout_ms: 30_000, ..settings() };
    let edge = Arc::new(RedfishBmc::new(Arc::new(OneCredential), slow));
    let bmc = target(&server.url);
    edge.system(&bmc).await.unwrap();
    let before = server.seen().len();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let (edge, bmc) = (edge.clone(), bmc.clone());
        waiting.spawn(async move { edge.system(&bmc).await.ok() });
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while server.seen().len() < before + 3 {
        assert!(std::time::Instant::now() < deadline, "fewer than three reads arrived");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // Time for a fourth to arrive, if the gate let it.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(server.seen().len(), before + 3);
    waiting.abort_all();
}

#[tokio::test]
async fn a_bmc_that_left_keeps_its_session_for_another_log_out() {
    use farrier::model::Outcome;
    use farrier::port::BmcCare;
    let server = Server::start(|r, before| {
        let first = !before.iter().any(|s| s.method == "DELETE");
        if r.method == "DELETE" && first { Reply::Hang } else { calm(r) }
    })
    .await;
    let (edge, bmc) = (edge(), target(&server.url));
    edge.system(&bmc).await.unwrap();
    match edge.end_sessions(&bmc).await {
        Outcome::Failed { fault } => assert!(fault.is_no_answer()),
        o => panic!("{o:?}"),
    }
    assert_eq!(edge.end_sessions(&bmc).await, Outcome::Applied { handle: None });
    assert_eq!(server.count("DELETE", "/redfish/v1/SessionService/Sessions/1"), 2);
}

#[tokio::test]
async fn one_bmc_gets_one_write_at_a_time() {
    use farrier::model::action::{Expect, PowerOp};
    use farrier::port::BmcPower;
    const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
    let server =
        Server::start(|r, _| if r.is("POST", RESET) { Reply::Hang } else { calm(r) }).await;
    let slow = Settings { write_timeout_ms: 30_000, ..settings() };
    let edge = Arc::new(RedfishBmc::new(Arc::new(OneCredential), slow));
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (edge, bmc) = (edge.clone(), target(&server.url));
        waiting.spawn(async move {
            edge.power(&bmc, &Expect::default(), PowerOp::ForceRestart).await;
        });
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while server.count("POST", RESET) < 1 {
        assert!(std::time::Instant::now() < deadline, "no write arrived");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // Time for a second to arrive, if the gate let it.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(server.count("POST", RESET), 1);
    waiting.abort_all();
}

#[tokio::test]
async fn a_success_that_is_an_error_alone_is_no_empty_system() {
    for (id, class) in [("GeneralError", FaultClass::Transient), ("SYS518", FaultClass::Throttled)]
    {
        let f = fault_of_system(Reply::said(200, id)).await;
        assert_eq!(f.class, class, "{f:?}");
        assert_eq!(f.retry_after_ms.is_some(), class == FaultClass::Throttled);
    }
}

#[tokio::test]
async fn a_part_of_a_probe_has_a_deadline_for_all_its_requests() {
    // Each document just in time, and no end of them.
    let server = Server::start(|r, _| {
        let base = "/redfish/v1/UpdateService/FirmwareInventory";
        match r.path.strip_prefix(base) {
            Some(rest) if !rest.starts_with('/') => {
                std::thread::sleep(std::time::Duration::from_millis(40));
                let n = rest.trim_start_matches("?$skip=").parse().unwrap_or(0) + 1;
                Reply::ok(
                    json!({"Members": [], "Members@odata.nextLink": format!("{base}?$skip={n}")}),
                )
            }
            _ => calm(r),
        }
    })
    .await;
    let settings = Settings { total_read_ms: 400, ..settings() };
    let edge = RedfishBmc::new(Arc::new(OneCredential), settings);
    let f = edge.firmware(&target(&server.url)).await.unwrap_err();
    assert!(f.is_no_answer() && f.message.contains("to its end"), "{f:?}");
}

#[tokio::test]
async fn an_action_goes_to_no_other_server() {
    use farrier::model::Outcome;
    use farrier::model::action::{Expect, PowerOp};
    use farrier::port::BmcPower;
    let trap = Server::start(|_, _| Reply::ok(json!({}))).await;
    let to = format!("{}/reset", trap.url);
    let server = Server::start(move |r, _| match calm(r) {
        Reply::Json(200, h, mut v) if r.path == SYSTEM => {
            v["Actions"]["#ComputerSystem.Reset"]["target"] = json!(to);
            Reply::Json(200, h, v)
        }
        other => other,
    })
    .await;
    match edge().power(&target(&server.url), &Expect::default(), PowerOp::ForceOff).await {
        Outcome::Failed { fault } => assert_eq!(fault.code, "foreign-link"),
        o => panic!("{o:?}"),
    }
    assert!(trap.seen().is_empty());
}

#[tokio::test]
async fn a_task_that_became_a_job_is_as_far_as_the_job() {
    use farrier::model::facts::TaskState::{Failed, InProgress, Succeeded};
    const TASK: &str = "/redfish/v1/TaskService/Tasks/7";
    const JOB: &str = "/redfish/v1/Managers/1/Oem/Dell/Jobs/JID_7";
    for (job, state) in [
        (Some(json!({"JobState": "Scheduled", "Message": "waits for the host"})), InProgress),
        (Some(json!({"JobState": "Completed"})), Succeeded),
        (Some(json!({"JobState": "CompletedWithErrors"})), Failed),
        // Gone: neither success nor failure (R15).
        (None, InProgress),
    ] {
        let shown = job.clone();
        let server = Server::start(move |r, _| match r.path.as_str() {
            TASK if r.header("x-auth-token").is_some() => Reply::ok(json!({
                "TaskState": "Completed", "TaskStatus": "OK",
                "Messages": [{"MessageId": "Update.1.0.OperationTransitionedToJob",
                              "Message": "moved", "MessageArgs": [JOB]}]})),
            JOB => shown.clone().map_or_else(|| Reply::status(404), Reply::ok),
            _ => calm(r),
        })
        .await;
        let (edge, bmc) = (edge(), target(&server.url));
        for handle in [Some(TASK), None] {
            let tasks = edge.tasks(&bmc, handle).await.unwrap();
            assert_eq!((tasks[0].uri.as_str(), tasks[0].state), (TASK, state), "{job:?}");
        }
    }
}
