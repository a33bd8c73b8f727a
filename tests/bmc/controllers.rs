//! A machine with a controller at an address of its own: two services, one machine. What they show
//! stands side by side, neither hides the other, and a write goes to the one that is proven.

use super::server::{Reply, SYSTEM, Seen, Server, calm};
use super::{OneCredential, PASSWORD, edge, settings, target};
use farrier::app::access::{Access, Guarded};
use farrier::bmc::{RedfishBmc, Settings};
use farrier::model::action::{Expect, Outcome};
use farrier::model::facts::{Component, Task, TaskState};
use farrier::model::{Fault, FaultClass, Further, FurtherKind, Identity};
use farrier::port::{BmcCare, BmcRead, BmcTarget, BmcUpdate, Secret, UpdateOrder};
use farrier::store::credentials::Pin;
use farrier::store::vault::{References, SiteVault};
use farrier::store::{Key, SqliteStore};
use serde_json::json;
use std::sync::Arc;

const SIMPLE_UPDATE: &str = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
const RESET: &str = "/redfish/v1/Managers/1/Actions/Manager.Reset";
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const TASKS: &str = "/redfish/v1/TaskService/Tasks";

/// The host's BMC: nothing goes on there.
fn host(r: &Seen) -> Reply {
    match r.path.as_str() {
        TASKS => Reply::ok(json!({"Members": []})),
        _ => calm(r),
    }
}

/// The baseboard's: another serial, and a task that runs.
fn board(r: &Seen) -> Reply {
    match (r.path.as_str(), calm(r)) {
        (SYSTEM, Reply::Json(200, h, mut v)) => {
            v["SerialNumber"] = "B2002".into();
            v["UUID"] = json!(null);
            Reply::Json(200, h, v)
        }
        (_, reply) => reply,
    }
}

fn hgx(url: &str, serial: Option<&str>) -> Further {
    Further {
        name: "hgx".into(),
        kind: FurtherKind::Hgx,
        url: url.into(),
        credential: "hgx".into(),
        tls: "off".into(),
        serial: serial.map(Into::into),
        barred: None,
    }
}

/// The machine behind `host`, with its baseboard at `board`.
fn both(host: &str, board: &str, serial: Option<&str>) -> BmcTarget {
    let mut target = target(host);
    target.identity = Identity::new(Some("S1001"), None, None);
    target.endpoint.controllers = vec![hgx(board, serial)].into();
    target
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn expect() -> Expect {
    Expect { identity: Identity::new(Some("S1001"), None, None), ..Expect::default() }
}

fn order(id: &str) -> UpdateOrder {
    UpdateOrder {
        image_url: "http://192.0.2.1/hgx.bin".into(),
        inventory_id: id.into(),
        from: "7.10".into(),
        to: "8.0".into(),
        file: None,
    }
}

fn ids(all: &[Component]) -> Vec<&str> {
    all.iter().map(|c| c.id.as_str()).collect()
}

fn uris(all: &[Task]) -> Vec<&str> {
    all.iter().map(|t| t.uri.as_str()).collect()
}

/// Writes that reached a server; logins are none.
fn writes(server: &Server) -> Vec<String> {
    let seen =
        server.seen().into_iter().filter(|s| s.method != "GET" && !s.path.contains(SESSIONS));
    seen.map(|s| format!("{} {}", s.method, s.path)).collect()
}

#[tokio::test]
async fn what_two_controllers_show_stands_side_by_side() {
    let (a, b) = (Server::start(|r, _| host(r)).await, Server::start(|r, _| board(r)).await);
    let (edge, bmc) = (edge(), both(&a.url, &b.url, None));
    let firmware = edge.firmware(&bmc).await.unwrap();
    assert_eq!(ids(&firmware), ["BIOS", "BMC", "hgx:BIOS", "hgx:BMC"]);
    assert_eq!(firmware[3].version.as_deref(), Some("7.10"));
    let tasks = edge.tasks(&bmc, None).await.unwrap();
    assert_eq!(uris(&tasks), ["hgx:/redfish/v1/TaskService/Tasks/7"]);
    assert_eq!(tasks[0].state, TaskState::InProgress);
    let system = edge.system(&bmc).await.unwrap();
    assert_eq!(system.identity.serial.as_deref(), Some("S1001"), "the host's, and no other");
    // A session each, and both are ended.
    assert_eq!((a.count("POST", SESSIONS), b.count("POST", SESSIONS)), (1, 1));
    edge.log_out().await;
    let own = format!("{SESSIONS}/1");
    assert_eq!((a.count("DELETE", &own), b.count("DELETE", &own)), (1, 1));
}

#[tokio::test]
async fn a_controller_that_is_down_hides_nothing_of_the_host() {
    let a = Server::start(|r, _| host(r)).await;
    let hanging = Server::start(|_, _| Reply::Hang).await;
    let broken = Server::start(|_, _| Reply::status(500)).await;
    let short = Settings { further_read_ms: 400, ..settings() };
    for url in [nobody(), hanging.url.clone(), broken.url.clone()] {
        let edge = RedfishBmc::new(Arc::new(OneCredential), short.clone());
        let bmc = both(&a.url, &url, Some("B2002"));
        assert_eq!(edge.system(&bmc).await.unwrap().model.as_deref(), Some("G8"));
        let firmware = edge.firmware(&bmc).await.unwrap();
        assert_eq!(ids(&firmware), ["BIOS", "BMC", "hgx:"]);
        let why: &Fault = firmware[2].unread.as_deref().unwrap();
        assert!(why.message.contains("`hgx`") && why.message.contains(&url), "{why}");
        // It may work on something.
        let tasks = edge.tasks(&bmc, None).await.unwrap();
        assert_eq!((uris(&tasks), tasks[0].state), (vec!["hgx:"], TaskState::Unread));
        assert!(tasks[0].may_run() && tasks[0].message.as_ref().unwrap().contains(&url));
        let inventory = edge.inventory(&bmc).await.unwrap();
        let said = inventory.warnings.iter().find(|w| w.contains("`hgx`")).unwrap();
        assert!(said.contains(&url), "{said}");
        // Who follows a task of the host's BMC does not wait for it.
        assert_eq!(
            edge.tasks(&bmc, Some("/redfish/v1/TaskService/Tasks/9")).await.unwrap(),
            vec![]
        );
        // Who follows one of its own is told.
        let lost = edge.tasks(&bmc, Some("hgx:/redfish/v1/TaskService/Tasks/7")).await.unwrap_err();
        assert!(lost.message.contains("`hgx`"), "{lost}");
        match edge.update(&bmc, &expect(), &order("hgx:BMC")).await {
            Outcome::Failed { fault } => assert!(fault.message.contains("`hgx`"), "{fault}"),
            o => panic!("{o:?}"),
        }
        // The host's own firmware is flashed all the same, where the engine wants it.
        assert!(matches!(
            edge.update(&bmc, &expect(), &order("BMC")).await,
            Outcome::Applied { .. }
        ));
    }
    assert_eq!(writes(&a), vec![format!("POST {SIMPLE_UPDATE}"); 3]);
    assert!(writes(&broken).is_empty());
}

#[tokio::test]
async fn a_host_that_is_down_is_down_whatever_others_show() {
    let b = Server::start(|r, _| board(r)).await;
    let (edge, bmc) = (edge(), both(&nobody(), &b.url, Some("B2002")));
    assert!(edge.system(&bmc).await.unwrap_err().is_no_answer());
    assert!(edge.firmware(&bmc).await.unwrap_err().is_no_answer());
    assert!(edge.tasks(&bmc, None).await.unwrap_err().is_no_answer());
    assert!(edge.inventory(&bmc).await.unwrap_err().is_no_answer());
    match edge.update(&bmc, &expect(), &order("hgx:BMC")).await {
        Outcome::Failed { fault } => assert!(fault.is_no_answer(), "{fault}"),
        o => panic!("{o:?}"),
    }
    assert!(writes(&b).is_empty(), "the host is proven first");
}

#[tokio::test]
async fn work_at_a_controller_is_not_lost_where_the_host_lists_none() {
    let a = Server::start(|r, _| match r.path.as_str() {
        "/redfish/v1/TaskService" | TASKS => Reply::said(404, "ResourceMissingAtURI"),
        _ => calm(r),
    })
    .await;
    let b = Server::start(|r, _| board(r)).await;
    let fault = edge().tasks(&both(&a.url, &b.url, None), None).await.unwrap_err();
    assert_eq!((&*fault.code, fault.class), ("controller-busy", FaultClass::Transient));
    assert!(fault.message.contains("hgx:"), "{fault}");
    // Nothing goes on: it is as before.
    let idle = Server::start(|r, _| host(r)).await;
    let fault = edge().tasks(&both(&a.url, &idle.url, None), None).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unsupported);
}

#[tokio::test]
async fn an_update_goes_to_the_controller_that_has_the_component() {
    let (a, b) = (Server::start(|r, _| host(r)).await, Server::start(|r, _| board(r)).await);
    let (edge, bmc) = (edge(), both(&a.url, &b.url, Some("B2002")));
    let handle = match edge.update(&bmc, &expect(), &order("hgx:BMC")).await {
        Outcome::Applied { handle: Some(handle) } => handle,
        o => panic!("{o:?}"),
    };
    assert_eq!(handle, "hgx:/redfish/v1/TaskService/Tasks/7");
    assert_eq!(writes(&b), [format!("POST {SIMPLE_UPDATE}")]);
    assert!(writes(&a).is_empty());
    let sent = b.seen().into_iter().find(|s| s.is("POST", SIMPLE_UPDATE)).unwrap();
    let member = "/redfish/v1/UpdateService/FirmwareInventory/BMC";
    assert_eq!(sent.body["Targets"], json!([member]), "by its own name");
    // It is followed at its own BMC, under the name that was journaled.
    let before = a.seen().len();
    let tasks = edge.tasks(&bmc, Some(&handle)).await.unwrap();
    assert_eq!((uris(&tasks), tasks[0].percent), (vec![&*handle], Some(40)));
    assert_eq!(a.seen().len(), before, "the host's BMC is not asked");
    // Another version than expected: nothing is sent.
    let newer = Expect { from_version: Some("7.11".into()), ..expect() };
    match edge.update(&bmc, &newer, &order("hgx:BMC")).await {
        Outcome::Refused { saw, wrong_machine: false } => {
            assert!(saw.contains("`hgx`") && saw.contains("7.10"), "{saw}");
        }
        o => panic!("{o:?}"),
    }
    assert_eq!(writes(&b).len(), 1);
}

#[tokio::test]
async fn a_reset_goes_to_the_controller_that_is_meant() {
    let (a, b) = (Server::start(|r, _| host(r)).await, Server::start(|r, _| board(r)).await);
    let (edge, bmc) = (edge(), both(&a.url, &b.url, Some("B2002")));
    assert_eq!(
        edge.reset_controller(&bmc, &expect(), "hgx").await,
        Outcome::Applied { handle: None }
    );
    assert_eq!(writes(&b), [format!("POST {RESET}")]);
    assert!(writes(&a).is_empty());
    // It is left alone for a while, the host's BMC is not.
    let tasks = edge.tasks(&bmc, None).await.unwrap();
    assert_eq!((uris(&tasks), tasks[0].state), (vec!["hgx:"], TaskState::Unread));
    assert!(edge.system(&bmc).await.is_ok());
    match edge.reset_controller(&bmc, &expect(), "dpu0").await {
        Outcome::Failed { fault } => assert_eq!(fault.code, "no-controller"),
        o => panic!("{o:?}"),
    }
    assert_eq!((writes(&a).len(), writes(&b).len()), (0, 1));
}

#[tokio::test]
async fn nothing_is_written_to_a_controller_that_is_not_proven() {
    let (a, b) = (Server::start(|r, _| host(r)).await, Server::start(|r, _| board(r)).await);
    let silent = Server::start(|r, _| match (r.path.as_str(), board(r)) {
        (SYSTEM, Reply::Json(200, h, mut v)) => {
            v["SerialNumber"] = json!(null);
            Reply::Json(200, h, v)
        }
        (_, reply) => reply,
    })
    .await;
    let edge = edge();
    let (update, id) = (order("hgx:BMC"), expect());
    // Cables of two baseboards are crossed: both values are said.
    let crossed = both(&a.url, &b.url, Some("B9999"));
    for outcome in [
        edge.update(&crossed, &id, &update).await,
        edge.reset_controller(&crossed, &id, "hgx").await,
    ] {
        match outcome {
            Outcome::Refused { saw, wrong_machine: true } => {
                let all = ["`hgx`", b.url.as_str(), "B2002", "B9999"];
                assert!(all.iter().all(|part| saw.contains(part)), "{saw}");
            }
            o => panic!("{o:?}"),
        }
    }
    // It shows nothing.
    match edge.update(&both(&a.url, &silent.url, Some("B2002")), &id, &update).await {
        Outcome::Refused { saw, wrong_machine: false } => assert!(saw.contains("B2002"), "{saw}"),
        o => panic!("{o:?}"),
    }
    // The inventory says nothing.
    match edge.update(&both(&a.url, &b.url, None), &id, &update).await {
        Outcome::Failed { fault } => {
            assert_eq!(
                (&*fault.code, fault.class),
                ("controller-unproven", FaultClass::Precondition)
            );
            assert!(fault.hint.unwrap().contains("`serial`"));
        }
        o => panic!("{o:?}"),
    }
    // The right baseboard, at a host that is another machine.
    let other = Expect { identity: Identity::new(Some("S2002"), None, None), ..Expect::default() };
    let right = both(&a.url, &b.url, Some("B2002"));
    for outcome in [
        edge.update(&right, &other, &update).await,
        edge.reset_controller(&right, &other, "hgx").await,
    ] {
        assert!(matches!(outcome, Outcome::Refused { wrong_machine: true, .. }), "{outcome:?}");
    }
    for server in [&a, &b, &silent] {
        assert_eq!(writes(server), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_controller_is_proven_by_its_manager_or_chassis_too() {
    let a = Server::start(|r, _| host(r)).await;
    for (list, member) in
        [("Managers", "/redfish/v1/Managers/1"), ("Chassis", "/redfish/v1/Chassis/B")]
    {
        let b = Server::start(move |r, _| {
            let link = |p: &str| json!({ "@odata.id": p });
            match (r.path.as_str(), board(r)) {
                ("/redfish/v1/", Reply::Json(200, h, mut v)) => {
                    v["Chassis"] = link("/redfish/v1/Chassis");
                    Reply::Json(200, h, v)
                }
                (path, _) if path == format!("/redfish/v1/{list}") => {
                    Reply::ok(json!({"Members": [link(member)]}))
                }
                (path, _) if path == member => {
                    Reply::ok(json!({"Id": "x", "SerialNumber": "1575023002"}))
                }
                (_, reply) => reply,
            }
        })
        .await;
        let bmc = both(&a.url, &b.url, Some("1575023002"));
        let done = edge().update(&bmc, &expect(), &order("hgx:BMC")).await;
        assert!(matches!(done, Outcome::Applied { .. }), "{list}: {done:?}");
    }
}

#[tokio::test]
async fn each_controller_keeps_a_session_of_its_own_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::init(&dir.path().join("key")).unwrap();
    let (a, b) = (Server::start(|r, _| host(r)).await, Server::start(|r, _| board(r)).await);
    let bmc = both(&a.url, &b.url, None);
    for round in 0..3 {
        let path = dir.path().join("farrier.db");
        let store = SqliteStore::open(&path, farrier::store::Settings::default()).await.unwrap();
        let kept = Arc::new(store.bmc_sessions(Some(key.clone())).unwrap());
        let edge = RedfishBmc::new(Arc::new(OneCredential), settings()).keeping(kept);
        edge.firmware(&bmc).await.unwrap();
        assert_eq!((a.count("POST", SESSIONS), b.count("POST", SESSIONS)), (1, 1), "{round}");
        if round == 2 {
            // A person's log-out takes both.
            assert_eq!(edge.end_sessions(&bmc).await, Outcome::Applied { handle: None });
            let own = format!("{SESSIONS}/1");
            assert_eq!((a.count("DELETE", &own), b.count("DELETE", &own)), (1, 1));
            edge.firmware(&bmc).await.unwrap();
            assert_eq!((a.count("POST", SESSIONS), b.count("POST", SESSIONS)), (2, 2));
        }
        drop(edge);
        store.close().await;
    }
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("token-0001") && !text.contains(PASSWORD), "in the clear");
    }
}

/// `tls = "pin"` and nobody has accepted its certificate: nothing is sent to it, and nothing of the host is
/// hidden. Accepted, it is read; and where it shows another one, that is said of it alone.
#[tokio::test]
async fn a_controller_is_read_under_the_certificate_that_was_accepted_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farrier.db");
    let store = SqliteStore::open(&path, farrier::store::Settings::default()).await.unwrap();
    let pins = store.pins().await.unwrap();
    let access = Access::new(store.secrets(None).await.unwrap(), pins.clone());
    let redfish = RedfishBmc::new(Arc::new(OneCredential), settings());
    let guarded = Guarded::new(Arc::new(redfish), access);
    let (config, shown, _) = super::faults::self_signed();
    let a = Server::start(|r, _| host(r)).await;
    let b = Server::start_tls(config, |r, _| board(r)).await;
    let mut bmc = both(&a.url, &b.url, Some("B2002"));
    bmc.endpoint.controllers.change(|c| c.tls = "pin".into());
    let unread = async |code: &str| {
        let firmware = guarded.firmware(&bmc).await.unwrap();
        assert_eq!(ids(&firmware), ["BIOS", "BMC", "hgx:"]);
        let why = firmware[2].unread.clone().unwrap();
        assert!(why.code == code && why.message.contains("`hgx`"), "{why}");
        let tasks = guarded.tasks(&bmc, None).await.unwrap();
        assert!(tasks[0].is_unread_for(code) && tasks[0].may_run(), "{tasks:?}");
        assert!(guarded.system(&bmc).await.is_ok());
        for outcome in [
            guarded.update(&bmc, &expect(), &order("hgx:BMC")).await,
            guarded.reset_controller(&bmc, &expect(), "hgx").await,
        ] {
            match outcome {
                Outcome::Failed { fault } => assert_eq!(fault.code, code),
                o => panic!("{o:?}"),
            }
        }
        assert!(b.seen().is_empty(), "nothing was sent");
        why.hint.clone().unwrap()
    };
    let pin = |sha256: String| Pin {
        place: "node-1/hgx".into(),
        sha256,
        subject: String::new(),
        by: "a test".into(),
        why: "compared".into(),
        set_ms: 1,
    };
    // The host's own pin is none of it.
    pins.set(&[Pin { place: "node-1".into(), ..pin(shown.clone()) }]).await.unwrap();
    assert!(unread("no-pin").await.contains("farrier bmc pin node-1/hgx"));
    pins.set(&[pin("ab".repeat(32))]).await.unwrap();
    unread("certificate-changed").await;
    // Of the two it is the controller's that counts, over a restart too.
    pins.set(&[pin(shown.clone())]).await.unwrap();
    assert_eq!(store.pins().await.unwrap().get("node-1/hgx"), Some(pin(shown.clone())));
    let firmware = guarded.firmware(&bmc).await.unwrap();
    assert_eq!(ids(&firmware), ["BIOS", "BMC", "hgx:BIOS", "hgx:BMC"]);
    assert!(matches!(
        guarded.update(&bmc, &expect(), &order("hgx:BMC")).await,
        Outcome::Applied { .. }
    ));
    store.close().await;
}

/// The machine's own password, made by a rotation, is the host BMC's alone: its controllers go on by the
/// credential that they name, also where the BMC had the same one.
#[tokio::test]
async fn a_rotated_password_is_sent_to_the_hosts_bmc_alone() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::init(&dir.path().join("key")).unwrap();
    let path = dir.path().join("farrier.db");
    let store = SqliteStore::open(&path, farrier::store::Settings::default()).await.unwrap();
    let secrets = store.secrets(Some(key)).await.unwrap();
    secrets.set("shared", "root", &Secret::new("shared-by-both")).await.unwrap();
    secrets.set("bmc/machine/node-1", "root", &Secret::new("of-this-bmc-alone")).await.unwrap();
    let vault = SiteVault::new(secrets.clone(), References::default());
    let redfish = RedfishBmc::new(Arc::new(vault), settings());
    let guarded =
        Guarded::new(Arc::new(redfish), Access::new(secrets, store.pins().await.unwrap()));
    let (a, b) = (Server::start(|r, _| host(r)).await, Server::start(|r, _| board(r)).await);
    let mut bmc = both(&a.url, &b.url, None);
    bmc.endpoint.credential = "shared".into();
    bmc.endpoint.controllers.change(|c| c.credential = "shared".into());
    assert_eq!(guarded.firmware(&bmc).await.unwrap().len(), 4);
    let sent = |server: &Server| -> Vec<String> {
        let logins = server.seen().into_iter().filter(|s| s.is("POST", SESSIONS));
        logins.map(|s| s.body["Password"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(
        (sent(&a), sent(&b)),
        (vec!["of-this-bmc-alone".into()], vec!["shared-by-both".into()])
    );
    store.close().await;
}
