//! What the virtual BMC's services do, read as plain JSON, and how the physics stands behind it.

use super::{PASSWORD, Site, USER, images, site};
use farrier::sim::physics::{ATTRIBUTES, HostState, PowerState};
use reqwest::Method;
use serde_json::{Value, json};

const V1: &str = "/redfish/v1";

fn at(path: &str) -> String {
    format!("{V1}/{path}")
}

async fn reset(site: &Site, n: usize, kind: &str) -> u16 {
    let body = json!({"ResetType": kind});
    site.post(n, &at("Systems/1/Actions/ComputerSystem.Reset"), body).await
}

fn id_of(body: &Value) -> &str {
    let id = body["error"]["@Message.ExtendedInfo"][0]["MessageId"].as_str().unwrap_or_default();
    id.rsplit('.').next().unwrap_or_default()
}

#[tokio::test]
async fn what_boots_depends_on_what_is_in_the_virtual_drive() {
    let site = site(600).await;
    let images = images().await;
    let cd = at("Systems/1/VirtualMedia/CD");
    let boot = json!({"Boot": {
        "BootSourceOverrideTarget": "Cd", "BootSourceOverrideEnabled": "Once",
    }});
    let host = || site.look(1, |b| b.vm.host);
    // Nothing in the drive, nothing on the disk: stuck.
    assert_eq!(site.patch(1, &at("Systems/1"), boot.clone()).await, 200);
    assert_eq!(reset(&site, 1, "On").await, 204);
    site.until("the host finds nothing", || host() == HostState::Stuck).await;
    // A live system.
    let insert = format!("{cd}/Actions/VirtualMedia.InsertMedia");
    let image = |file: &str| json!({"Image": format!("{}/{file}", images.url)});
    assert_eq!(site.post(1, &insert, image("live.iso")).await, 204);
    let (status, _, body) = site.call(1, Method::POST, &insert, Some(image("live.iso"))).await;
    assert_eq!((status, id_of(&body)), (409, "ResourceInUse"));
    assert_eq!(site.patch(1, &at("Systems/1"), boot.clone()).await, 200);
    assert_eq!(reset(&site, 1, "ForceRestart").await, 204);
    site.until("the live system runs", || host() == HostState::Idle).await;
    // Seen from the BMC's side too, and stale for a while after the eject.
    let drive = site.get(1, &at("Managers/1/VirtualMedia/CD")).await;
    assert_eq!((&drive["Inserted"], &drive["ImageName"]), (&json!(true), &json!("live.iso")));
    let eject = at("Managers/1/VirtualMedia/CD/Actions/VirtualMedia.EjectMedia");
    assert_eq!(site.post(1, &eject, json!({})).await, 204);
    assert!(site.look(1, |b| b.vm.board.drives[0].medium.is_none()));
    // An iPXE image asks the boot server, as PXE does.
    assert_eq!(site.post(1, &insert, image("ipxe.iso")).await, 204);
    assert_eq!(site.patch(1, &at("Systems/1"), boot).await, 200);
    assert_eq!(reset(&site, 1, "ForceRestart").await, 204);
    site.until("the host asks the boot server", || {
        site.look(1, |b| b.vm.boots >= 3 && !matches!(b.vm.host, HostState::Post))
    })
    .await;
    assert_eq!(site.truth(1).iter().filter(|w| **w == "booted-cd").count(), 2);
    site.serving.stop().await;
}

#[tokio::test]
async fn an_ejected_image_stays_visible_for_some_seconds() {
    // Real time, so that the six seconds cannot pass between two reads.
    let site = site(1).await;
    let images = images().await;
    let cd = at("Managers/1/VirtualMedia/CD");
    let image = json!({"Image": format!("{}/live.iso", images.url)});
    let insert = format!("{cd}/Actions/VirtualMedia.InsertMedia");
    assert_eq!(site.post(1, &insert, image).await, 204);
    assert_eq!(
        site.post(1, &format!("{cd}/Actions/VirtualMedia.EjectMedia"), json!({})).await,
        204
    );
    let drive = site.get(1, &cd).await;
    assert_eq!(drive["Inserted"], true, "stale (field notes, section 6.14)");
    site.serving.stop().await;
}

#[tokio::test]
async fn bios_settings_and_secure_boot_wait_for_the_next_post() {
    let site = site(600).await;
    let settings = at("Systems/1/Bios/Settings");
    let wanted = json!({"Attributes": {"PowerOnDelaySeconds": 30, "AcpiSlit": false}});
    assert_eq!(site.patch(1, &settings, wanted).await, 200);
    let secure = json!({"SecureBootEnable": true});
    assert_eq!(site.patch(1, &at("Systems/1/SecureBoot"), secure).await, 200);
    let bios = site.get(1, &at("Systems/1/Bios")).await;
    assert_eq!(bios["Attributes"]["PowerOnDelaySeconds"], 0);
    assert_eq!(bios["@Redfish.Settings"]["SettingsObject"]["@odata.id"], settings);
    assert_eq!(site.get(1, &settings).await["Attributes"]["PowerOnDelaySeconds"], 30);
    let now = site.get(1, &at("Systems/1/SecureBoot")).await;
    assert_eq!(now["SecureBootCurrentBoot"], "Disabled");
    assert_eq!(now["SecureBootEnable"], true);
    for (bad, id) in [
        (json!({"BootMode": "Sideways"}), "PropertyValueNotInList"),
        (json!({"PowerOnDelaySeconds": 9999}), "PropertyValueOutOfRange"),
        (json!({"AcpiSlit": "yes"}), "PropertyValueTypeError"),
        (json!({"NoSuchThing": 1, "BootMode": "LegacyBios"}), "PropertyUnknown"),
    ] {
        let body = Some(json!({"Attributes": bad}));
        let (status, _, said) = site.call(1, Method::PATCH, &settings, body).await;
        assert_eq!((status, id_of(&said)), (400, id));
    }
    let untouched = site.get(1, &settings).await;
    assert_eq!(untouched["Attributes"]["BootMode"], "Uefi", "one wrong attribute refuses all");
    assert_eq!(reset(&site, 1, "On").await, 204);
    site.until("POST is through", || site.look(1, |b| b.vm.board.applied.is_some())).await;
    let bios = site.get(1, &at("Systems/1/Bios")).await;
    assert_eq!(bios["Attributes"]["PowerOnDelaySeconds"], 30);
    assert_eq!(bios["Attributes"]["AcpiSlit"], false);
    let now = site.get(1, &at("Systems/1/SecureBoot")).await;
    assert_eq!(now["SecureBootCurrentBoot"], "Enabled");
    // Back to the factory's, again at the next POST.
    assert_eq!(site.post(1, &at("Systems/1/Bios/Actions/Bios.ResetBios"), json!({})).await, 204);
    site.until("the host is on", || site.look(1, |b| b.vm.power == PowerState::On)).await;
    assert_eq!(reset(&site, 1, "ForceRestart").await, 204);
    site.until("the second POST", || {
        site.truth(1).iter().filter(|w| **w == "settings-applied").count() == 2
    })
    .await;
    let factory =
        site.look(1, |b| ATTRIBUTES.iter().all(|a| b.vm.board.attribute(a) == a.factory()));
    assert!(factory);
    // Every attribute is in the registry that the resource names.
    let name = bios["AttributeRegistry"].as_str().unwrap();
    let file = site.get(1, &at(&format!("Registries/{name}"))).await;
    let registry = site.get(1, file["Location"][0]["Uri"].as_str().unwrap()).await;
    let entries = registry["RegistryEntries"]["Attributes"].as_array().unwrap();
    for attribute in bios["Attributes"].as_object().unwrap().keys() {
        assert!(entries.iter().any(|e| e["AttributeName"] == **attribute), "{attribute}");
    }
    site.serving.stop().await;
}

#[tokio::test]
async fn a_volume_is_there_when_its_task_has_ended_and_takes_its_drives() {
    let site = site(60).await;
    let volumes = at("Systems/1/Storage/1/Volumes");
    let drive = |n: u32| json!({"@odata.id": at(&format!("Systems/1/Storage/1/Drives/NVMe{n}"))});
    let order = |raid: &str, drives: Vec<Value>| json!({"RAIDType": raid, "Name": "boot", "Links": {"Drives": drives}});
    for bad in [
        order("RAID1", vec![drive(0)]),
        order("RAID1", vec![drive(0), drive(0)]),
        order("RAID1", vec![drive(0), drive(7)]),
        order("RAID6", vec![drive(0), drive(1)]),
    ] {
        assert_eq!(site.post(1, &volumes, bad.clone()).await, 400, "{bad}");
    }
    let good = order("RAID1", vec![drive(0), drive(1)]);
    let (status, headers, task) = site.call(1, Method::POST, &volumes, Some(good.clone())).await;
    assert_eq!(status, 202);
    let monitor = headers["location"].to_str().unwrap().to_string();
    assert_eq!(task["TaskMonitor"], *monitor);
    let (status, ..) = site.call(1, Method::GET, &monitor, None).await;
    assert!([200, 202].contains(&status));
    let own = task["@odata.id"].as_str().unwrap();
    site.until("the task ends", || {
        let now = site.now();
        site.look(1, |b| b.vm.board.chores.iter().all(|c| c.ends <= now))
    })
    .await;
    let task = site.get(1, own).await;
    assert_eq!((&task["TaskState"], &task["PercentComplete"]), (&json!("Completed"), &json!(100)));
    let made = task["Links"]["CreatedResources"][0]["@odata.id"].as_str().unwrap();
    let volume = site.get(1, made).await;
    assert_eq!(volume["RAIDType"], "RAID1");
    assert_eq!(volume["CapacityBytes"], 3_840_755_982_336_u64);
    assert_eq!(volume["Links"]["Drives"], json!([drive(0), drive(1)]));
    let (status, _, body) = site.call(1, Method::POST, &volumes, Some(good)).await;
    assert_eq!((status, id_of(&body)), (409, "ResourceInUse"), "the drives are taken");
    assert_eq!(site.call(1, Method::DELETE, made, None).await.0, 204);
    assert_eq!(site.call(1, Method::GET, made, None).await.0, 404);
    // The refused order too: a controller less careful would have made it.
    assert_eq!(site.truth(1), ["volume-made", "volume-again", "volume-deleted"]);
    site.serving.stop().await;
}

#[tokio::test]
async fn accounts_have_roles_length_rules_and_a_lockout() {
    let site = site(1).await;
    let accounts = at("AccountService/Accounts");
    let account = |user: &str, password: &str, role: &str| json!({"UserName": user, "Password": password, "RoleId": role});
    let create = async |body: Value| site.call(1, Method::POST, &accounts, Some(body)).await;
    let (status, headers, body) = create(account("reader", "reads-only", "ReadOnly")).await;
    assert_eq!(status, 201);
    assert_eq!(headers["location"], body["@odata.id"].as_str().unwrap());
    assert_eq!(body["Password"], Value::Null);
    for (bad, id) in [
        (account("reader", "reads-only", "ReadOnly"), "ResourceAlreadyExists"),
        (account("other", "short", "ReadOnly"), "PropertyValueFormatError"),
        (account("other", &"x".repeat(65), "ReadOnly"), "PropertyValueFormatError"),
        (account("other", "long-enough", "King"), "PropertyValueNotInList"),
        (json!({"UserName": "other"}), "PropertyMissing"),
    ] {
        let (status, _, said) = create(bad).await;
        assert_eq!((status, id_of(&said)), (400, id));
        assert!(!said.to_string().contains("reads-only"), "a password in an error");
    }
    let as_user = |method: Method, path: String, user: &str, password: &str, body: Value| {
        let url = format!("{}{path}", site.url(1));
        site.http.request(method, url).basic_auth(user, Some(password)).json(&body).send()
    };
    let status = async |path: &str, user: &str, password: &str, body: Value| {
        let method = if body.is_null() { Method::GET } else { Method::PATCH };
        as_user(method, at(path), user, password, body).await.unwrap().status().as_u16()
    };
    // A reader reads, writes nothing, and may set its own password.
    assert_eq!(status("Systems/1", "reader", "reads-only", Value::Null).await, 200);
    let tag = json!({"AssetTag": "mine"});
    assert_eq!(status("Systems/1", "reader", "reads-only", tag.clone()).await, 403);
    let own = "AccountService/Accounts/2";
    let raise = json!({"RoleId": "Administrator"});
    assert_eq!(status(own, "reader", "reads-only", raise).await, 403);
    let password = json!({"Password": "reads-still"});
    assert_eq!(status(own, "reader", "reads-only", password.clone()).await, 200);
    let others = "AccountService/Accounts/1";
    assert_eq!(status(others, "reader", "reads-still", password).await, 403);
    // Nor does it end other people's sessions.
    let sessions = at("SessionService/Sessions");
    let login = json!({"UserName": USER, "Password": PASSWORD});
    let (_, headers, _) = site.call(1, Method::POST, &sessions, Some(login)).await;
    let session = headers["location"].to_str().unwrap().to_string();
    let end = as_user(Method::DELETE, session.clone(), "reader", "reads-still", Value::Null);
    assert_eq!(end.await.unwrap().status(), 403);
    assert_eq!(site.call(1, Method::DELETE, &session, None).await.0, 204);
    // A password that must be changed opens one door only.
    let must = json!({"PasswordChangeRequired": true});
    assert_eq!(status(own, USER, PASSWORD, must).await, 200);
    assert_eq!(status("Systems/1", "reader", "reads-still", Value::Null).await, 403);
    let password = json!({"Password": "reads-again"});
    assert_eq!(status(own, "reader", "reads-still", password).await, 200);
    assert_eq!(status("Systems/1", "reader", "reads-again", Value::Null).await, 200);
    // Five wrong ones in a row lock it; the administrator opens it again.
    for _ in 0..5 {
        assert_eq!(status("Systems/1", "reader", "wrong", Value::Null).await, 401);
    }
    assert_eq!(status("Systems/1", "reader", "reads-again", Value::Null).await, 401);
    assert_eq!(site.get(1, &at(own)).await["Locked"], true);
    assert_eq!(status(own, USER, PASSWORD, json!({"Locked": false})).await, 200);
    assert_eq!(status("Systems/1", "reader", "reads-again", Value::Null).await, 200);
    let (status, ..) = site.call(1, Method::DELETE, &at(others), None).await;
    assert_eq!(status, 405, "the last administrator stays");
    site.serving.stop().await;
}

#[tokio::test]
async fn writes_mind_etags_and_say_what_is_wrong_in_the_base_registrys_words() {
    let site = site(60).await;
    // What can be written, and what an error would be.
    for (path, good) in [
        ("Systems/1", json!({"AssetTag": "a"})),
        ("Chassis/1", json!({"LocationIndicatorActive": true})),
        ("Managers/1", json!({"DateTime": "2026-11-01T12:00:00Z"})),
        ("SessionService", json!({"SessionTimeout": 600})),
        ("AccountService", json!({"AccountLockoutThreshold": 3})),
        ("AccountService/Accounts/1", json!({"Enabled": true})),
        ("Systems/1/Bios/Settings", json!({"Attributes": {"BootMode": "LegacyBios"}})),
        ("Systems/1/SecureBoot", json!({"SecureBootEnable": true})),
    ] {
        let path = at(path);
        let (_, headers, _) = site.call(1, Method::GET, &path, None).await;
        let fresh = headers["etag"].to_str().unwrap().to_string();
        let patch = |etag: &str, body: Value| {
            let url = format!("{}{path}", site.url(1));
            let request = site.http.patch(url).basic_auth(USER, Some(PASSWORD));
            request.header("if-match", etag).json(&body).send()
        };
        assert_eq!(patch("\"stale\"", good.clone()).await.unwrap().status(), 412, "{path}");
        let answer = patch(&fresh, good.clone()).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let said = answer.headers()["etag"].to_str().unwrap().to_string();
        let (_, headers, body) = site.call(1, Method::GET, &path, None).await;
        assert_eq!(headers["etag"], *said, "{path}");
        assert_eq!(body["@odata.id"], *path);
        let (status, _, body) =
            site.call(1, Method::PATCH, &path, Some(json!({"NoSuchProperty": 1}))).await;
        assert_eq!(status, 400, "{path}");
        assert!(!id_of(&body).is_empty(), "{path}: {body}");
    }
    let (status, _, body) = site.call(1, Method::GET, &at("Systems/2"), None).await;
    assert_eq!((status, id_of(&body)), (404, "ResourceMissingAtURI"));
    let (status, headers, body) = site.call(1, Method::DELETE, &at("Systems/1"), None).await;
    assert_eq!((status, id_of(&body)), (405, "OperationNotAllowed"));
    assert!(headers.contains_key("allow"));
    let (status, _, body) = site.call(1, Method::GET, &at("Systems?$expand=."), None).await;
    assert_eq!((status, id_of(&body)), (501, "QueryNotSupported"));
    let url = format!("{}{}", site.url(1), at("Systems/1"));
    let garbage = site.http.patch(url).basic_auth(USER, Some(PASSWORD)).body("{\"AssetTag\":");
    assert_eq!(garbage.send().await.unwrap().status(), 400);
    let head = site.http.head(format!("{}{V1}", site.url(1))).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert!(head.headers().contains_key("etag"));
    // Open to everybody: the root and its two OData documents.
    for path in ["/redfish", "/redfish/v1/", "/redfish/v1/odata", "/redfish/v1/$metadata"] {
        let answer = site.http.get(format!("{}{path}", site.url(1))).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["odata-version"], "4.0", "{path}");
    }
    site.serving.stop().await;
}

#[tokio::test]
async fn the_log_comes_in_pages_and_the_sensors_follow_the_host() {
    let site = site(600).await;
    let total = site.get(1, &at("Chassis/1/Sensors/TotalPower")).await["Reading"].clone();
    let gpu = site.get(1, &at("Chassis/1/Sensors/GPU0Temp")).await;
    assert_eq!(
        (&gpu["Reading"], &gpu["Status"]["State"]),
        (&Value::Null, &json!("StandbyOffline"))
    );
    for _ in 0..60 {
        reset(&site, 1, "On").await;
        reset(&site, 1, "ForceOff").await;
        site.until("the host is off", || site.look(1, |b| b.vm.power == PowerState::Off)).await;
    }
    reset(&site, 1, "On").await;
    site.until("the host is on", || site.look(1, |b| b.vm.power == PowerState::On)).await;
    let on = site.get(1, &at("Chassis/1/Sensors/TotalPower")).await["Reading"].clone();
    assert!(on.as_u64() > total.as_u64(), "{on} after {total}");
    let mut page = at("Systems/1/LogServices/SEL/Entries");
    let (mut lines, mut pages) = (Vec::new(), 0);
    loop {
        let body = site.get(1, &page).await;
        let members = body["Members"].as_array().unwrap();
        lines.extend(members.iter().map(|m| m["@odata.id"].as_str().unwrap().to_string()));
        pages += 1;
        match body["Members@odata.nextLink"].as_str() {
            Some(next) => page = next.to_string(),
            None => {
                assert_eq!(body["Members@odata.count"], lines.len());
                break;
            }
        }
    }
    let told = site.truth(1).iter().filter(|w| w.starts_with("power")).count();
    assert_eq!(lines.len(), told);
    assert!(pages > 1, "{} lines on {pages} page", lines.len());
    let one = site.get(1, &lines[0]).await;
    assert_eq!(one["Message"], "Host power on");
    // A leak is seen by the detector, the chassis and the log.
    let now = site.now();
    site.look(1, |b| b.vm.leak(now, true));
    let detectors = "Chassis/1/ThermalSubsystem/LeakDetection/LeakDetectors";
    let leak = site.get(1, &at(&format!("{detectors}/Leak0"))).await;
    assert_eq!(leak["DetectorState"], "Critical");
    assert_eq!(site.get(1, &at("Chassis/1")).await["Status"]["Health"], "Critical");
    let (status, ..) = site.call(2, Method::GET, &at(detectors), None).await;
    assert_eq!(status, 404, "a node without GPUs has no hoses");
    site.serving.stop().await;
}

#[tokio::test]
async fn a_pushed_image_is_refused_before_it_is_read_by_whoever_is_not_logged_in() {
    let site = site(60).await;
    let url = format!("{}{}", site.url(1), at("UpdateService/update-multipart"));
    let kind = "multipart/form-data; boundary=xx";
    let part = |name: &str, text: &str| {
        format!("--xx\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
    };
    let whole = format!(
        "{}{}--xx--\r\n",
        part("UpdateParameters", "{\"Targets\":[]}"),
        part("UpdateFile", "farrier-virtual-bmc-7.20\nfarrier-virtual-bmc-7.20\n"),
    );
    let post = |body: String| site.http.post(&url).header("content-type", kind).body(body);
    assert_eq!(post(whole.clone()).send().await.unwrap().status(), 401);
    for half in [&whole[..whole.len() - 20], &part("UpdateFile", "x")[..], "nothing"] {
        let answer = post(half.into()).basic_auth(USER, Some(PASSWORD)).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{half:?}");
    }
    assert!(site.truth(1).is_empty());
    let answer = post(whole).basic_auth(USER, Some(PASSWORD)).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    assert_eq!(site.truth(1), ["flash-started"]);
    site.serving.stop().await;
}
