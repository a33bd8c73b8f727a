//! BIOS settings, Secure Boot and volumes: compared, written once, read back.

use super::server::{Reply, SYSTEM, Seen, Server, calm};
use super::{edge, target};
use farrier::model::action::{Expect, Outcome};
use farrier::model::{FaultClass, Identity};
use farrier::port::BmcRead;
use farrier::port::capability::{BmcBios, BmcVolumes, VolumeOrder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const BIOS: &str = "/redfish/v1/Systems/1/Bios";
/// iLO's: another case, and a slash at the end.
const PENDING: &str = "/redfish/v1/systems/1/bios/settings/";
const SECURE: &str = "/redfish/v1/Systems/1/SecureBoot";
const VOLUMES: &str = "/redfish/v1/Systems/1/Storage/A/Volumes";
const APPLIED: Outcome = Outcome::Applied { handle: None };

fn expect() -> Expect {
    Expect { identity: Identity::new(Some("S1001"), None, None), ..Expect::default() }
}

#[derive(Debug)]
struct Chassis {
    pending: serde_json::Map<String, Value>,
    /// What PATCH of the settings answers besides storing them.
    apply_times: &'static [&'static str],
    turns_down_apply_time: bool,
    stores: bool,
    secure: bool,
    mode: &'static str,
    volumes: Vec<Value>,
    /// Serials of the drives D1, D2, D3.
    serials: [&'static str; 3],
    /// How POST of a volume answers: 201, or 202 with a task.
    later: bool,
    /// Knows only the body from before `RAIDType`.
    old: bool,
    /// Answers 500 there.
    broken: &'static str,
}

impl Default for Chassis {
    fn default() -> Self {
        Chassis {
            pending: serde_json::Map::new(),
            apply_times: &[],
            turns_down_apply_time: false,
            stores: true,
            secure: false,
            mode: "UserMode",
            volumes: vec![],
            serials: ["SN1", "SN2", "SN3"],
            later: false,
            old: false,
            broken: "",
        }
    }
}

impl Chassis {
    fn answer(&mut self, r: &Seen) -> Reply {
        let link = |p: &str| json!({ "@odata.id": p });
        let path = r.path.split('?').next().unwrap_or_default();
        match (r.method.as_str(), path) {
            _ if path == self.broken => Reply::status(500),
            ("GET", SYSTEM) => match calm(r) {
                Reply::Json(200, h, mut v) => {
                    v["Bios"] = link(BIOS);
                    v["SecureBoot"] = link(SECURE);
                    v["Storage"] = link("/redfish/v1/Systems/1/Storage");
                    Reply::Json(200, h, v)
                }
                other => other,
            },
            ("GET", BIOS) => Reply::ok(json!({
                "Attributes": {"BootMode": "Uefi", "Cores": 8, "Turbo": true},
                "@Redfish.Settings": {
                    "SupportedApplyTimes": self.apply_times, "SettingsObject": link(PENDING)}})),
            ("GET", PENDING) => {
                Reply::ok(json!({"Attributes": self.pending})).with("ETag", "W/\"3\"")
            }
            ("PATCH", PENDING) => {
                if r.header("if-match") != Some("W/\"3\"") {
                    return Reply::status(428);
                }
                if self.turns_down_apply_time && r.body.get("@Redfish.SettingsApplyTime").is_some()
                {
                    return Reply::said(400, "PropertyUnknown");
                }
                if self.stores {
                    for (k, v) in r.body["Attributes"].as_object().unwrap() {
                        self.pending.insert(k.clone(), v.clone());
                    }
                }
                if self.apply_times.is_empty() {
                    return Reply::status(200);
                }
                Reply::status(202).with("Location", "/redfish/v1/TaskService/Tasks/JID_1")
            }
            ("GET", SECURE) => Reply::ok(json!({"SecureBootEnable": self.secure,
                "SecureBootCurrentBoot": "Disabled", "SecureBootMode": self.mode})),
            ("PATCH", SECURE) => {
                self.secure = r.body["SecureBootEnable"] == json!(true) && self.stores;
                Reply::status(200)
            }
            ("GET", "/redfish/v1/Systems/1/Storage") => {
                Reply::ok(json!({"Members": [link("/redfish/v1/Systems/1/Storage/A")]}))
            }
            ("GET", "/redfish/v1/Systems/1/Storage/A") => Reply::ok(json!({
                "Volumes": link(VOLUMES),
                "StorageControllers": [{"SupportedRAIDTypes": ["RAID0", "RAID1"]}],
                "Drives": [link("/redfish/v1/Drives/D1"), link("/redfish/v1/Drives/D2"),
                           link("/redfish/v1/Drives/D3")]})),
            ("GET", VOLUMES) => {
                let all: Vec<Value> =
                    (0..self.volumes.len()).map(|n| link(&format!("{VOLUMES}/{n}"))).collect();
                Reply::ok(json!({"Members": all}))
            }
            ("POST", VOLUMES) => self.create(&r.body),
            ("GET", path) if path.starts_with(VOLUMES) => {
                let n: usize = path.rsplit('/').next().unwrap().parse().unwrap();
                Reply::ok(self.volumes[n].clone())
            }
            ("GET", path) if path.starts_with("/redfish/v1/Drives/D") => {
                let n: usize = path.rsplit('D').next().unwrap().parse().unwrap();
                Reply::ok(json!({"Id": format!("D{n}"), "SerialNumber": self.serials[n - 1]}))
            }
            _ => calm(r),
        }
    }

    fn create(&mut self, body: &Value) -> Reply {
        if self.old && body.get("RAIDType").is_some() {
            return Reply::said(400, "PropertyUnknown");
        }
        if self.later {
            return Reply::status(202).with("Location", "/redfish/v1/TaskService/Tasks/9");
        }
        let drives =
            if self.old { body["Drives"].clone() } else { body["Links"]["Drives"].clone() };
        if self.stores {
            self.volumes.push(json!({"Id": "V", "RAIDType": body["RAIDType"],
                "VolumeType": body["VolumeType"], "Links": {"Drives": drives}}));
        }
        Reply::status(201).with("Location", &format!("{VOLUMES}/0"))
    }
}

async fn serve(it: Chassis) -> (Server, Arc<Mutex<Chassis>>) {
    let it = Arc::new(Mutex::new(it));
    let server = Server::start({
        let it = it.clone();
        move |r, _| it.lock().unwrap().answer(r)
    })
    .await;
    (server, it)
}

fn wanted(all: &[(&str, Value)]) -> BTreeMap<String, Value> {
    all.iter().map(|(k, v)| (k.to_string(), v.clone())).collect()
}

fn patches(server: &Server) -> Vec<Value> {
    server.seen().into_iter().filter(|s| s.method == "PATCH").map(|s| s.body).collect()
}

#[tokio::test]
async fn settings_go_to_the_pending_object_and_wait_there() {
    let (server, _) = serve(Chassis::default()).await;
    let (edge, bmc) = (edge(), target(&server.url));
    let ask = wanted(&[("Cores", json!(4)), ("Turbo", json!(true))]);
    assert_eq!(edge.set_bios(&bmc, &expect(), &ask).await, APPLIED);
    assert_eq!(patches(&server), [json!({"Attributes": {"Cores": 4}})], "only what changes");
    let facts = edge.bios(&bmc).await.unwrap();
    assert_eq!(facts.attributes["Cores"], json!(8), "in force until the next POST");
    assert_eq!(facts.pending, wanted(&[("Cores", json!(4))]));
    assert_eq!(edge.set_bios(&bmc, &expect(), &ask).await, APPLIED);
    assert_eq!(patches(&server).len(), 1, "said twice, done once");
}

#[tokio::test]
async fn an_apply_time_is_given_where_it_is_known_and_left_out_where_it_is_turned_down() {
    for turns_down in [false, true] {
        let it = Chassis {
            apply_times: &["OnReset"],
            turns_down_apply_time: turns_down,
            ..Chassis::default()
        };
        let (server, _) = serve(it).await;
        let ask = wanted(&[("Cores", json!(4))]);
        match edge().set_bios(&target(&server.url), &expect(), &ask).await {
            Outcome::Applied { handle: Some(handle) } => assert!(handle.ends_with("JID_1")),
            o => panic!("{o:?}"),
        }
        let sent = patches(&server);
        assert_eq!(sent.len(), 1 + usize::from(turns_down));
        assert_eq!(sent[0]["@Redfish.SettingsApplyTime"]["ApplyTime"], json!("OnReset"));
    }
}

#[tokio::test]
async fn what_the_bios_does_not_have_is_not_sent() {
    let (server, _) = serve(Chassis::default()).await;
    let (edge, bmc) = (edge(), target(&server.url));
    for (name, value, code) in
        [("Coers", json!(4), "unknown-bios-attribute"), ("Cores", json!("4"), "bios-value-kind")]
    {
        match edge.set_bios(&bmc, &expect(), &wanted(&[(name, value)])).await {
            Outcome::Failed { fault } => {
                assert_eq!((fault.class, fault.code.as_ref()), (FaultClass::Precondition, code));
            }
            o => panic!("{o:?}"),
        }
    }
    let other = Expect { identity: Identity::new(Some("S2002"), None, None), ..Expect::default() };
    let ask = wanted(&[("Cores", json!(4))]);
    for outcome in [
        edge.set_bios(&bmc, &other, &ask).await,
        edge.set_secure_boot(&bmc, &other, true).await,
        edge.create(&bmc, &other, &mirror(&["SN1", "SN2"])).await,
    ] {
        assert!(matches!(outcome, Outcome::Refused { wrong_machine: true, .. }), "{outcome:?}");
    }
    assert_eq!(patches(&server), Vec::<Value>::new());
}

#[tokio::test]
async fn settings_that_are_taken_and_not_shown_are_unknown() {
    let (server, _) = serve(Chassis { stores: false, ..Chassis::default() }).await;
    let (edge, bmc) = (edge(), target(&server.url));
    match edge.set_bios(&bmc, &expect(), &wanted(&[("Cores", json!(4))])).await {
        Outcome::Unknown { fault } => assert_eq!(fault.code, "bios-not-shown"),
        o => panic!("{o:?}"),
    }
    match edge.set_secure_boot(&bmc, &expect(), true).await {
        Outcome::Unknown { fault } => assert_eq!(fault.code, "secure-boot-not-shown"),
        o => panic!("{o:?}"),
    }
}

#[tokio::test]
async fn secure_boot_is_switched_once_and_never_without_keys() {
    let (server, it) = serve(Chassis::default()).await;
    let (edge, bmc) = (edge(), target(&server.url));
    assert_eq!(edge.set_secure_boot(&bmc, &expect(), false).await, APPLIED);
    assert_eq!(patches(&server).len(), 0, "it is off");
    assert_eq!(edge.set_secure_boot(&bmc, &expect(), true).await, APPLIED);
    let facts = edge.secure_boot(&bmc).await.unwrap();
    assert_eq!((facts.enabled, facts.in_force), (Some(true), Some(false)));
    {
        let mut it = it.lock().unwrap();
        (it.secure, it.mode) = (false, "SetupMode");
    }
    match edge.set_secure_boot(&bmc, &expect(), true).await {
        Outcome::Failed { fault } => assert_eq!(fault.code, "secure-boot-setup-mode"),
        o => panic!("{o:?}"),
    }
    assert_eq!(patches(&server).len(), 1);
}

fn mirror(drives: &[&str]) -> VolumeOrder {
    VolumeOrder {
        raid: "RAID1".into(),
        name: "boot".into(),
        drives: drives.iter().map(ToString::to_string).collect(),
    }
}

#[tokio::test]
async fn a_volume_is_made_of_the_drives_with_these_serials_and_read_back() {
    let (server, _) = serve(Chassis::default()).await;
    let (edge, bmc) = (edge(), target(&server.url));
    assert_eq!(edge.create(&bmc, &expect(), &mirror(&["SN3", "SN1"])).await, APPLIED);
    let posts: Vec<Seen> = server.seen().into_iter().filter(|s| s.is("POST", VOLUMES)).collect();
    assert_eq!(posts.len(), 1);
    assert_eq!(
        posts[0].body["Links"]["Drives"],
        json!([{"@odata.id": "/redfish/v1/Drives/D3"}, {"@odata.id": "/redfish/v1/Drives/D1"}])
    );
    assert_eq!(edge.volumes(&bmc).await.unwrap()[0].drives.len(), 2);
    // The same once more is done already; another with one of its drives is refused.
    assert_eq!(edge.create(&bmc, &expect(), &mirror(&["SN1", "SN3"])).await, APPLIED);
    match edge.create(&bmc, &expect(), &mirror(&["SN1", "SN2"])).await {
        Outcome::Failed { fault } => assert_eq!(fault.code, "drive-in-use"),
        o => panic!("{o:?}"),
    }
    assert_eq!(server.count("POST", VOLUMES), 1);
}

#[tokio::test]
async fn drives_that_are_not_there_once_stop_everything() {
    let (server, _) = serve(Chassis { serials: ["SN1", "SN1", "SN3"], ..Chassis::default() }).await;
    let (edge, bmc) = (edge(), target(&server.url));
    for (serial, says) in [("SN1", "2 drives"), ("SN9", "no drive")] {
        match edge.create(&bmc, &expect(), &mirror(&["SN3", serial])).await {
            Outcome::Refused { saw, wrong_machine: false } => assert!(saw.contains(says), "{saw}"),
            o => panic!("{o:?}"),
        }
    }
    for bad in [&[][..], &["SN3", "SN3"]] {
        match edge.create(&bmc, &expect(), &mirror(bad)).await {
            Outcome::Failed { fault } => assert_eq!(fault.code, "bad-drives"),
            o => panic!("{o:?}"),
        }
    }
    let raid6 = VolumeOrder { raid: "RAID6".into(), ..mirror(&["SN3"]) };
    match edge.create(&bmc, &expect(), &raid6).await {
        Outcome::Failed { fault } => assert_eq!(fault.class, FaultClass::Unsupported),
        o => panic!("{o:?}"),
    }
    assert_eq!(server.count("POST", VOLUMES), 0);
}

#[tokio::test]
async fn a_volume_may_take_a_task_or_the_older_body_or_not_show() {
    let (server, _) = serve(Chassis { later: true, ..Chassis::default() }).await;
    match edge().create(&target(&server.url), &expect(), &mirror(&["SN1", "SN2"])).await {
        Outcome::Applied { handle: Some(task) } => assert!(task.ends_with("/Tasks/9")),
        o => panic!("{o:?}"),
    }
    let (server, _) = serve(Chassis { old: true, ..Chassis::default() }).await;
    let (edge, bmc) = (edge(), target(&server.url));
    assert_eq!(edge.create(&bmc, &expect(), &mirror(&["SN1", "SN2"])).await, APPLIED);
    assert_eq!(edge.volumes(&bmc).await.unwrap()[0].raid.as_deref(), Some("RAID1"));
    let (server, _) = serve(Chassis { stores: false, ..Chassis::default() }).await;
    match edge.create(&target(&server.url), &expect(), &mirror(&["SN1", "SN2"])).await {
        Outcome::Unknown { fault } => assert_eq!(fault.code, "volume-not-shown"),
        o => panic!("{o:?}"),
    }
    assert_eq!(server.count("POST", VOLUMES), 1);
}

#[tokio::test]
async fn storage_is_read_whole_or_not_at_all() {
    let mut raw = json!({"Id": "Raw", "VolumeType": "RawDevice"});
    raw["Links"]["Drives"] = json!([{"@odata.id": "/redfish/v1/Drives/D3"}]);
    let it = Chassis { volumes: vec![raw], ..Chassis::default() };
    let (server, it) = serve(it).await;
    let (edge, bmc) = (edge(), target(&server.url));
    assert_eq!(edge.create(&bmc, &expect(), &mirror(&["SN1", "SN2"])).await, APPLIED);
    let facts = edge.storage(&bmc).await.unwrap();
    let part = &facts.parts[0];
    assert_eq!(part.levels, ["RAID0", "RAID1"]);
    assert_eq!(part.volumes.len(), 1, "a drive that is shown as a volume is none");
    let taken: Vec<usize> = part.drives.iter().map(|d| d.volumes.len()).collect();
    assert_eq!(taken, [1, 1, 0]);
    let serials = ["SN1".to_string(), "SN2".to_string()];
    assert!(facts.made("RAID1", &serials).is_some());
    // The third drive may fit a rule as well, the volume may hold one of the drives.
    let (volume, list) = ("/redfish/v1/Systems/1/Storage/A/Volumes/1", VOLUMES);
    for broken in ["/redfish/v1/Drives/D3", volume, list, "/redfish/v1/Systems/1/Storage/A"] {
        it.lock().unwrap().broken = broken;
        let fault = edge.storage(&bmc).await.unwrap_err();
        assert_eq!((fault.class, fault.of_read), (FaultClass::Transient, true), "{broken}");
        match edge.create(&bmc, &expect(), &mirror(&["SN3", "SN2"])).await {
            Outcome::Failed { fault } => assert!(fault.of_read, "{broken}: {fault}"),
            o => panic!("{broken}: {o:?}"),
        }
    }
    assert_eq!(server.count("POST", VOLUMES), 1);
}
