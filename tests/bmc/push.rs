//! Images that are pushed: whole, once, with their length and the login in the first request.

use super::server::{Reply, Seen, Server, calm};
use super::{OneCredential, edge, settings, target};
use farrier::bmc::{RedfishBmc, Settings};
use farrier::model::action::{Expect, Outcome};
use farrier::model::quirks::PushForm;
use farrier::model::{FaultClass, Identity};
use farrier::port::{BmcUpdate, ImageFile, UpdateOrder};
use serde_json::{Value, json};
use std::sync::Arc;
use tempfile::TempDir;

const SERVICE: &str = "/redfish/v1/UpdateService";
const PUSH: &str = "/redfish/v1/UpdateService/update-multipart";
const RAW: &str = "/fwupdate";

/// More than a socket takes at once, of bytes that are no text.
fn image() -> (TempDir, Vec<u8>, ImageFile) {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..900_001u32).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
    let path = dir.path().join("bios.bin");
    std::fs::write(&path, &bytes).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    let file = ImageFile { path, size: 900_001, sha256: hex::encode(digest), form: None };
    (dir, bytes, file)
}

fn order(file: &ImageFile) -> UpdateOrder {
    UpdateOrder {
        image_url: "http://192.0.2.1/bios.bin".into(),
        inventory_id: "BIOS".into(),
        from: "1.0".into(),
        to: "2.0".into(),
        file: Some(file.clone()),
    }
}

fn expect() -> Expect {
    Expect { identity: Identity::new(Some("S1001"), None, None), ..Expect::default() }
}

/// A BMC that fetches nothing; its update service has `fields`.
fn pushed(vendor: &'static str, fields: Value) -> impl Fn(&Seen) -> Reply {
    move |r| match calm(r) {
        Reply::Json(200, h, mut v) if r.path == SERVICE => {
            v["Actions"] = json!({});
            for (key, value) in fields.as_object().unwrap() {
                v[key.as_str()] = value.clone();
            }
            Reply::Json(200, h, v)
        }
        Reply::Json(200, h, mut v) if r.path == "/redfish/v1/" => {
            v["Vendor"] = json!(vendor);
            Reply::Json(200, h, v)
        }
        _ if r.is("PATCH", SERVICE) => Reply::status(204),
        _ if r.is("POST", PUSH) || r.is("POST", RAW) => {
            if r.header("x-auth-token").is_none() {
                return Reply::status(401);
            }
            Reply::status(202).with("Location", "/redfish/v1/TaskService/Tasks/9")
        }
        other => other,
    }
}

/// Header block and bytes of each part, by name.
fn parts(seen: &Seen) -> Vec<(String, Vec<u8>)> {
    let kind = seen.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
    let mark = format!("--{boundary}").into_bytes();
    let find = |from: usize, what: &[u8]| {
        seen.bytes[from..].windows(what.len()).position(|w| w == what).map(|at| from + at)
    };
    let mut out = Vec::new();
    let mut at = find(0, &mark).unwrap() + mark.len();
    while !seen.bytes[at..].starts_with(b"--") {
        let end = find(at, &mark).expect("the last part is closed");
        let head = find(at, b"\r\n\r\n").unwrap();
        let text = String::from_utf8(seen.bytes[at..head].to_vec()).unwrap();
        out.push((text, seen.bytes[head + 4..end - 2].to_vec()));
        at = end + mark.len();
    }
    out
}

const HANDLE: &str = "/redfish/v1/TaskService/Tasks/9";

fn applied() -> Outcome {
    Outcome::Applied { handle: Some(HANDLE.into()) }
}

#[tokio::test]
async fn an_image_is_streamed_whole_with_its_length_and_login() {
    let (_dir, bytes, file) = image();
    let bmc = pushed("Acme", json!({"MultipartHttpPushUri": PUSH, "HttpPushUri": RAW}));
    let server = Server::start(move |r, _| bmc(r)).await;
    assert_eq!(edge().update(&target(&server.url), &expect(), &order(&file)).await, applied());
    let seen = server.seen();
    let posts: Vec<&Seen> = seen.iter().filter(|s| s.is("POST", PUSH)).collect();
    assert_eq!(posts.len(), 1);
    assert_eq!(posts[0].header("transfer-encoding"), None, "no chunks: its length is said");
    let length: usize = posts[0].header("content-length").unwrap().parse().unwrap();
    assert_eq!(length, posts[0].bytes.len());
    assert_eq!(posts[0].header("expect"), None);
    let parts = parts(posts[0]);
    assert_eq!(parts.len(), 2);
    assert!(parts[0].0.contains("name=\"UpdateParameters\""), "{}", parts[0].0);
    assert!(parts[0].0.contains("application/json"));
    let parameters: Value = serde_json::from_slice(&parts[0].1).unwrap();
    let member = "/redfish/v1/UpdateService/FirmwareInventory/BIOS";
    assert_eq!(parameters, json!({"Targets": [member]}));
    assert!(parts[1].0.contains("name=\"UpdateFile\"; filename=\"bios.bin\""), "{}", parts[1].0);
    assert!(parts[1].1 == bytes, "the image is the image");
}

/// SimpleUpdate is there too: it has no place for what must be kept.
#[tokio::test]
async fn a_supermicro_is_told_to_keep_its_serial_and_settings() {
    let (_dir, bytes, file) = image();
    let bmc = pushed("Supermicro", json!({"MultipartHttpPushUri": PUSH}));
    let server = Server::start(move |r, _| match (calm(r), bmc(r)) {
        (Reply::Json(200, h, mut both), Reply::Json(200, ..)) if r.path == SERVICE => {
            both["MultipartHttpPushUri"] = json!(PUSH);
            Reply::Json(200, h, both)
        }
        (_, reply) => reply,
    })
    .await;
    let (edge, bmc) = (edge(), target(&server.url));
    assert_eq!(edge.update(&bmc, &expect(), &order(&file)).await, applied());
    let seen = server.seen();
    let posts: Vec<&Seen> = seen.iter().filter(|s| s.is("POST", PUSH)).collect();
    assert_eq!(posts.len(), 1);
    let parts = parts(posts[0]);
    let parameters: Value = serde_json::from_slice(&parts[0].1).unwrap();
    let kept = json!({"PreserveME": true, "PreserveNVRAM": true, "PreserveSMBIOS": true});
    assert_eq!(parameters["Targets"], json!(["/redfish/v1/Systems/1/Bios"]));
    assert_eq!(parameters["Oem"], json!({"Supermicro": {"BIOS": kept}}));
    assert!(parts[1].1 == bytes);
    // Without the image at hand the BMC still fetches it.
    let none = UpdateOrder { file: None, ..order(&file) };
    let outcome = edge.update(&bmc, &expect(), &none).await;
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
    assert_eq!(server.count("POST", PUSH), 1);
}

#[tokio::test]
async fn a_plain_push_is_the_image_alone() {
    let (_dir, bytes, file) = image();
    let bmc = pushed("Acme", json!({"HttpPushUri": RAW}));
    let server = Server::start(move |r, _| bmc(r)).await;
    assert_eq!(edge().update(&target(&server.url), &expect(), &order(&file)).await, applied());
    let seen = server.seen();
    let post = seen.iter().find(|s| s.is("POST", RAW)).unwrap();
    assert_eq!(post.header("content-type"), Some("application/octet-stream"));
    assert!(post.bytes == bytes, "the image is the image");
}

#[tokio::test]
async fn the_catalog_may_ask_for_a_push_of_a_bmc_that_fetches() {
    let (_dir, bytes, file) = image();
    for (form, at) in [(PushForm::Multipart, PUSH), (PushForm::Raw, RAW)] {
        let bmc = pushed("Acme", json!({"MultipartHttpPushUri": PUSH, "HttpPushUri": RAW}));
        let server = Server::start(move |r, _| match (calm(r), bmc(r)) {
            (Reply::Json(200, h, mut both), Reply::Json(200, _, push)) if r.path == SERVICE => {
                both["MultipartHttpPushUri"] = push["MultipartHttpPushUri"].clone();
                both["HttpPushUri"] = push["HttpPushUri"].clone();
                Reply::Json(200, h, both)
            }
            (_, reply) => reply,
        })
        .await;
        let file = ImageFile { form: Some(form), ..file.clone() };
        assert_eq!(edge().update(&target(&server.url), &expect(), &order(&file)).await, applied());
        assert_eq!(server.count("POST", at), 1, "{form:?}");
        let sent = server.seen().into_iter().find(|s| s.is("POST", at)).unwrap();
        assert!(sent.bytes.windows(4096).any(|w| w == &bytes[..4096]));
        let pulled = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
        assert_eq!(server.count("POST", pulled), 0);
    }
}

#[tokio::test]
async fn another_file_than_the_approved_one_is_not_sent() {
    let (_dir, mut bytes, file) = image();
    let bmc = pushed("Acme", json!({"MultipartHttpPushUri": PUSH, "MaxImageSizeBytes": 900_001}));
    let server = Server::start(move |r, _| bmc(r)).await;
    bytes[450_000] ^= 1;
    std::fs::write(&file.path, &bytes).unwrap();
    let longer = ImageFile { size: 900_002, ..file.clone() };
    for (file, code) in [(&file, "image-changed"), (&longer, "image-too-large")] {
        match edge().update(&target(&server.url), &expect(), &order(file)).await {
            Outcome::Failed { fault } => {
                assert_eq!((fault.class, &*fault.code), (FaultClass::Precondition, code));
            }
            o => panic!("{o:?}"),
        }
    }
    std::fs::remove_file(&file.path).unwrap();
    match edge().update(&target(&server.url), &expect(), &order(&file)).await {
        Outcome::Failed { fault } => assert_eq!(fault.code, "image-unreadable"),
        o => panic!("{o:?}"),
    }
    assert_eq!(server.count("POST", PUSH), 0);
}

#[tokio::test]
async fn without_an_image_or_a_place_for_it_nothing_is_pushed() {
    let (_dir, _, file) = image();
    let none = UpdateOrder { file: None, ..order(&file) };
    for (vendor, fields, order) in [
        ("Acme", json!({"MultipartHttpPushUri": PUSH}), none),
        ("Acme", json!({"MultipartHttpPushUri": null}), order(&file)),
        // iLO's own form of a push is none that Farrier speaks.
        ("HPE", json!({"HttpPushUri": RAW}), order(&file)),
    ] {
        let bmc = pushed(vendor, fields);
        let server = Server::start(move |r, _| bmc(r)).await;
        match edge().update(&target(&server.url), &expect(), &order).await {
            Outcome::Failed { fault } => {
                assert_eq!(
                    (fault.class, &*fault.code),
                    (FaultClass::Unsupported, "no-simple-update")
                );
            }
            o => panic!("{vendor}: {o:?}"),
        }
        assert!(!server.seen().iter().any(|s| s.method == "POST" && !s.path.contains("Session")));
    }
}

#[tokio::test]
async fn lenovos_service_is_taken_used_and_given_back() {
    let (_dir, _, file) = image();
    for fails in [false, true] {
        let bmc = pushed("Lenovo", json!({"HttpPushUri": RAW, "HttpPushUriTargetsBusy": false}));
        let server =
            Server::start(
                move |r, _| {
                    if fails && r.is("POST", RAW) { Reply::status(500) } else { bmc(r) }
                },
            )
            .await;
        let outcome = edge().update(&target(&server.url), &expect(), &order(&file)).await;
        match outcome {
            Outcome::Applied { .. } => assert!(!fails),
            Outcome::Unknown { .. } => assert!(fails),
            o => panic!("{o:?}"),
        }
        let seen = server.seen();
        let writes = seen.iter().filter(|s| s.is("PATCH", SERVICE) || s.is("POST", RAW));
        let flags: Vec<Value> = writes.map(|s| s.body["HttpPushUriTargetsBusy"].clone()).collect();
        assert_eq!(flags, [json!(true), Value::Null, json!(false)]);
    }
    // Another client has it.
    let bmc = pushed("Lenovo", json!({"HttpPushUri": RAW, "HttpPushUriTargetsBusy": true}));
    let server = Server::start(move |r, _| bmc(r)).await;
    match edge().update(&target(&server.url), &expect(), &order(&file)).await {
        Outcome::Failed { fault } => {
            assert_eq!(fault.class, FaultClass::Throttled);
            assert!(fault.retry_after_ms.is_some());
        }
        o => panic!("{o:?}"),
    }
    assert_eq!((server.count("PATCH", SERVICE), server.count("POST", RAW)), (0, 0));
}

#[tokio::test]
async fn a_push_that_breaks_off_is_unknown_and_not_repeated() {
    let (_dir, _, file) = image();
    for how in [Reply::Drop, Reply::Hang] {
        let bmc = pushed("Acme", json!({"MultipartHttpPushUri": PUSH}));
        let reply = how.clone();
        let server =
            Server::start(move |r, _| if r.is("POST", PUSH) { reply.clone() } else { bmc(r) })
                .await;
        let edge = edge();
        let bmc = target(&server.url);
        let (expect, order) = (expect(), order(&file));
        let push = edge.update(&bmc, &expect, &order);
        match how {
            // It has the image and says nothing: that may take minutes, and is not given up soon.
            Reply::Hang => {
                let waited = tokio::time::timeout(std::time::Duration::from_secs(4), push).await;
                assert!(waited.is_err(), "{waited:?}");
            }
            _ => match push.await {
                Outcome::Unknown { fault } => assert!(fault.is_no_answer(), "{fault:?}"),
                o => panic!("{o:?}"),
            },
        }
        assert_eq!(server.count("POST", PUSH), 1);
    }
}

#[tokio::test]
async fn an_upload_that_stands_still_is_given_up() {
    // A BMC that takes the first bytes and no more: nobody reads this socket any further.
    let (_dir, bytes, file) = image();
    let big: Vec<u8> = bytes.iter().copied().cycle().take(32 << 20).collect();
    std::fs::write(&file.path, &big).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &big);
    let file = ImageFile { size: 32 << 20, sha256: hex::encode(digest), ..file };
    let stuck = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = stuck.local_addr().unwrap();
    let bmc = pushed("Acme", json!({"MultipartHttpPushUri": PUSH}));
    let server = Server::start(move |r, _| bmc(r)).await;
    // One address for both: reads go on to the server, the upload's connection is left alone.
    let upstream = server.url.trim_start_matches("http://").to_string();
    let proxy = tokio::spawn(async move {
        let mut kept = Vec::new();
        let mut running = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = stuck.accept().await {
            let mut head = [0; 512];
            let n = stream.peek(&mut head).await.unwrap_or(0);
            if head[..n].starts_with(format!("POST {PUSH}").as_bytes()) {
                kept.push(stream);
                continue;
            }
            let upstream = upstream.clone();
            running.spawn(async move {
                if let Ok(mut to) = tokio::net::TcpStream::connect(upstream).await {
                    tokio::io::copy_bidirectional(&mut stream, &mut to).await.ok();
                }
            });
        }
    });
    let settings = Settings { write_timeout_ms: 700, ..settings() };
    let edge = RedfishBmc::new(Arc::new(OneCredential), settings);
    let outcome = edge.update(&target(&format!("http://{at}")), &expect(), &order(&file)).await;
    match outcome {
        Outcome::Unknown { fault } => assert!(fault.message.contains("stood still"), "{fault:?}"),
        o => panic!("{o:?}"),
    }
    proxy.abort();
}

#[tokio::test]
async fn an_image_goes_to_no_other_server() {
    let (_dir, _, file) = image();
    let trap = Server::start(|_, _| Reply::status(202)).await;
    let bmc = pushed("Acme", json!({"MultipartHttpPushUri": format!("{}{PUSH}", trap.url)}));
    let server = Server::start(move |r, _| bmc(r)).await;
    match edge().update(&target(&server.url), &expect(), &order(&file)).await {
        Outcome::Failed { fault } => assert_eq!(fault.code, "foreign-link"),
        o => panic!("{o:?}"),
    }
    assert!(trap.seen().is_empty());
}

#[tokio::test]
async fn a_login_that_is_refused_in_between_costs_one_more_upload() {
    let (_dir, bytes, file) = image();
    let bmc = pushed("Acme", json!({"HttpPushUri": RAW}));
    let server = Server::start(move |r, before| {
        let first = !before.iter().any(|s| s.is("POST", RAW));
        if first && r.is("POST", RAW) { Reply::status(401) } else { bmc(r) }
    })
    .await;
    assert_eq!(edge().update(&target(&server.url), &expect(), &order(&file)).await, applied());
    let seen = server.seen();
    let posts: Vec<&Seen> = seen.iter().filter(|s| s.is("POST", RAW)).collect();
    assert_eq!(posts.len(), 2);
    assert!(posts[1].bytes == bytes, "from its first byte on");
    assert_eq!(server.count("POST", "/redfish/v1/SessionService/Sessions"), 2);
}
