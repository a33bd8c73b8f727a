//! Virtual media: taken out first, put in by the form that this BMC takes, and read back.

use super::server::{Reply, Seen, Server, calm};
use super::{edge, target};
use farrier::model::action::{Expect, Outcome};
use farrier::model::{FaultClass, Identity};
use farrier::port::capability::{BmcMedia, MediaOrder};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const URL: &str = "http://192.0.2.1/boot.iso";
const DRIVE: &str = "/redfish/v1/Managers/1/VirtualMedia/CD";
const INSERT: &str = "/redfish/v1/Managers/1/VirtualMedia/CD/Actions/VirtualMedia.InsertMedia";
const EJECT: &str = "/redfish/v1/Managers/1/VirtualMedia/CD/Actions/VirtualMedia.EjectMedia";
const APPLIED: Outcome = Outcome::Applied { handle: None };

fn expect() -> Expect {
    Expect { identity: Identity::new(Some("S1001"), None, None), ..Expect::default() }
}

fn order() -> MediaOrder {
    MediaOrder { image_url: URL.into(), kind: "CD".into() }
}

/// One drive and what it does.
#[derive(Clone, Debug)]
struct Drive {
    image: Option<String>,
    /// Reads that go on saying it is full after an eject.
    stale: usize,
    /// 5xx answers to InsertMedia that still come.
    not_yet: usize,
    /// Properties that InsertMedia turns down.
    turns_down: &'static [&'static str],
    /// Takes the image and never shows it.
    forgets: bool,
    actions: bool,
}

impl Default for Drive {
    fn default() -> Self {
        Drive { image: None, stale: 0, not_yet: 0, turns_down: &[], forgets: false, actions: true }
    }
}

impl Drive {
    fn insert(&mut self, body: &Value) -> Reply {
        if let Some(bad) = self.turns_down.iter().find(|p| body.get(**p).is_some()) {
            return Reply::said(400, &format!("ActionParameterNotSupported{bad}"));
        }
        if self.not_yet > 0 {
            self.not_yet -= 1;
            return Reply::status(500);
        }
        if !self.forgets {
            self.image = body["Image"].as_str().map(str::to_string);
        }
        Reply::status(204)
    }

    fn answer(&mut self, r: &Seen) -> Reply {
        let link = |p: &str| json!({ "@odata.id": p });
        match (r.method.as_str(), r.path.split('?').next().unwrap_or_default()) {
            ("GET", "/redfish/v1/Managers/1") => {
                Reply::ok(json!({"VirtualMedia": link("/redfish/v1/Managers/1/VirtualMedia")}))
            }
            ("GET", "/redfish/v1/Managers/1/VirtualMedia") => {
                Reply::ok(json!({"Members": [link(DRIVE)]}))
            }
            ("GET", DRIVE) => {
                let stale = self.stale > 0 && self.image.is_none();
                self.stale -= usize::from(stale);
                let mut v = json!({"Id": "CD", "MediaTypes": ["CD", "DVD"], "Image": self.image,
                    "Inserted": self.image.is_some() || stale});
                if self.actions {
                    v["Actions"] = json!({
                        "#VirtualMedia.InsertMedia": {"target": INSERT},
                        "#VirtualMedia.EjectMedia": {"target": EJECT}});
                }
                Reply::ok(v).with("ETag", "\"7\"")
            }
            ("POST", EJECT) => {
                self.image = None;
                Reply::status(204)
            }
            ("POST", INSERT) => self.insert(&r.body),
            ("PATCH", DRIVE) if r.header("if-match") != Some("\"7\"") => Reply::status(412),
            ("PATCH", DRIVE) => {
                self.image = r.body["Image"].as_str().map(str::to_string);
                Reply::status(200)
            }
            _ => calm(r),
        }
    }
}

async fn serve(drive: Drive) -> (Server, Arc<Mutex<Drive>>) {
    let drive = Arc::new(Mutex::new(drive));
    let server = Server::start({
        let drive = drive.clone();
        move |r, _| drive.lock().unwrap().answer(r)
    })
    .await;
    (server, drive)
}

fn sent<'s>(seen: &'s [Seen], path: &str) -> Vec<&'s Value> {
    seen.iter().filter(|s| s.is("POST", path)).map(|s| &s.body).collect()
}

#[tokio::test]
async fn a_drive_is_emptied_before_it_is_filled_whatever_it_says() {
    for image in [None, Some("http://192.0.2.9/old.iso".to_string()), Some(URL.to_string())] {
        let (server, drive) = serve(Drive { image, stale: 3, ..Drive::default() }).await;
        let (edge, bmc) = (edge(), target(&server.url));
        assert_eq!(edge.insert(&bmc, &expect(), &order()).await, APPLIED);
        assert_eq!(drive.lock().unwrap().image.as_deref(), Some(URL));
        let seen = server.seen();
        let ejected = seen.iter().position(|s| s.is("POST", EJECT)).expect("an eject");
        let inserted = seen.iter().position(|s| s.is("POST", INSERT)).expect("an insert");
        assert!(ejected < inserted);
        assert_eq!(sent(&seen, EJECT), [&json!({})], "HPE wants a body");
        assert_eq!(
            sent(&seen, INSERT),
            [&json!({"Image": URL, "Inserted": true, "WriteProtected": true})]
        );
        let slots = edge.media(&bmc).await.unwrap();
        assert_eq!((slots[0].inserted, slots[0].image.as_deref()), (Some(true), Some(URL)));
    }
}

#[tokio::test]
async fn the_next_form_is_sent_only_where_one_was_turned_down() {
    let turns_down = &["WriteProtected", "Inserted"];
    let (server, _) = serve(Drive { turns_down, ..Drive::default() }).await;
    let edge = edge();
    assert_eq!(edge.insert(&target(&server.url), &expect(), &order()).await, APPLIED);
    let seen = server.seen();
    assert_eq!(
        sent(&seen, INSERT),
        [
            &json!({"Image": URL, "Inserted": true, "WriteProtected": true}),
            &json!({"Image": URL, "Inserted": true}),
            &json!({"Image": URL}),
        ]
    );
}

#[tokio::test]
async fn a_form_that_no_drive_takes_fails_with_the_first_reason() {
    let (server, _) = serve(Drive { turns_down: &["Image"], ..Drive::default() }).await;
    match edge().insert(&target(&server.url), &expect(), &order()).await {
        Outcome::Failed { fault } => {
            assert_eq!((fault.class, fault.code.as_ref()), (FaultClass::Precondition, "rejected"));
        }
        o => panic!("{o:?}"),
    }
    let seen = server.seen();
    let forms = sent(&seen, INSERT);
    assert!(forms.len() > 3, "{forms:?}");
    assert!(forms.iter().any(|f| f["TransferMethod"] == json!("Stream")), "{forms:?}");
}

#[tokio::test]
async fn a_5xx_right_after_an_eject_means_not_yet() {
    let (server, _) = serve(Drive { not_yet: 2, ..Drive::default() }).await;
    let edge = edge();
    assert_eq!(edge.insert(&target(&server.url), &expect(), &order()).await, APPLIED);
    assert_eq!(server.count("POST", INSERT), 3);
    // One that never gets there is a failure: the drive shows that nothing was done.
    let (server, _) = serve(Drive { not_yet: usize::MAX, ..Drive::default() }).await;
    match edge.insert(&target(&server.url), &expect(), &order()).await {
        Outcome::Failed { fault } => assert_eq!(fault.code, "bmc-error"),
        o => panic!("{o:?}"),
    }
    assert_eq!(server.count("POST", INSERT), 3);
}

#[tokio::test]
async fn taken_and_not_shown_is_unknown() {
    let (server, _) = serve(Drive { forgets: true, ..Drive::default() }).await;
    match edge().insert(&target(&server.url), &expect(), &order()).await {
        Outcome::Unknown { fault } => assert_eq!(fault.code, "media-not-shown"),
        o => panic!("{o:?}"),
    }
}

#[tokio::test]
async fn an_insert_without_an_answer_is_decided_by_the_drive() {
    for (arrives, wanted) in [(true, true), (false, false)] {
        let drive = Arc::new(Mutex::new(Drive::default()));
        let server = Server::start({
            let drive = drive.clone();
            move |r, _| {
                let mut drive = drive.lock().unwrap();
                if r.is("POST", INSERT) {
                    if arrives {
                        drive.insert(&r.body);
                    }
                    return Reply::Drop;
                }
                drive.answer(r)
            }
        })
        .await;
        let outcome = edge().insert(&target(&server.url), &expect(), &order()).await;
        assert_eq!(outcome == APPLIED, wanted, "{outcome:?}");
        assert_eq!(matches!(outcome, Outcome::Unknown { .. }), !wanted, "{outcome:?}");
        assert_eq!(server.count("POST", INSERT), 1, "nothing is sent twice in doubt");
    }
}

#[tokio::test]
async fn a_drive_without_actions_is_patched_with_its_etag() {
    let old = Some("http://192.0.2.9/old.iso".to_string());
    let (server, drive) = serve(Drive { actions: false, image: old, ..Drive::default() }).await;
    let (edge, bmc) = (edge(), target(&server.url));
    assert_eq!(edge.insert(&bmc, &expect(), &order()).await, APPLIED);
    let patches: Vec<Value> =
        server.seen().into_iter().filter(|s| s.method == "PATCH").map(|s| s.body).collect();
    assert_eq!(
        patches,
        [json!({"Image": null, "Inserted": false}), json!({"Image": URL, "Inserted": true})]
    );
    assert_eq!(edge.eject(&bmc, &expect()).await, APPLIED);
    assert_eq!(drive.lock().unwrap().image, None);
}

#[tokio::test]
async fn ejecting_empties_what_may_be_full_and_sees_it_empty() {
    let full = Some("http://192.0.2.9/old.iso".to_string());
    let (server, drive) = serve(Drive { image: full.clone(), stale: 4, ..Drive::default() }).await;
    let (edge, bmc) = (edge(), target(&server.url));
    assert_eq!(edge.eject(&bmc, &expect()).await, APPLIED);
    assert_eq!(drive.lock().unwrap().image, None);
    assert_eq!(edge.eject(&bmc, &expect()).await, APPLIED, "an empty drive is left alone");
    assert_eq!(server.count("POST", EJECT), 1);
    let (server, _) = serve(Drive { image: full, stale: usize::MAX, ..Drive::default() }).await;
    match edge.eject(&target(&server.url), &expect()).await {
        Outcome::Unknown { fault } => assert_eq!(fault.code, "media-still-shown"),
        o => panic!("{o:?}"),
    }
}

#[tokio::test]
async fn nothing_is_written_to_another_machine_or_from_a_bad_address() {
    let (server, _) = serve(Drive { image: Some("x".into()), ..Drive::default() }).await;
    let (edge, bmc) = (edge(), target(&server.url));
    let other = Expect { identity: Identity::new(Some("S2002"), None, None), ..Expect::default() };
    for outcome in [edge.insert(&bmc, &other, &order()).await, edge.eject(&bmc, &other).await] {
        assert!(matches!(outcome, Outcome::Refused { wrong_machine: true, .. }), "{outcome:?}");
    }
    let bad = MediaOrder { image_url: format!("{URL}?sig=1"), ..order() };
    match edge.insert(&bmc, &expect(), &bad).await {
        Outcome::Failed { fault } => assert_eq!(fault.code, "bad-image-url"),
        o => panic!("{o:?}"),
    }
    let floppy = MediaOrder { kind: "Floppy".into(), ..order() };
    match edge.insert(&bmc, &expect(), &floppy).await {
        Outcome::Failed { fault } => assert_eq!(fault.class, FaultClass::Unsupported),
        o => panic!("{o:?}"),
    }
    assert!(server.seen().iter().all(|s| s.method == "GET" || s.path.contains("Sessions")));
}
