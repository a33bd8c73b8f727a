//! Single traits of the profiles, met by a plain HTTP client: sessions, lockout, forced password
//! change, overrides, ETags, error bodies, windows after power changes, the way back after a reset.

use super::site::{Site, own, shipped, until};
use farrier::sim::physics::{BootMode, HostState, PowerState};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Mutex;

const V1: &str = "/redfish/v1";

fn id_of(body: &Value) -> String {
    let info = &body["error"]["@Message.ExtendedInfo"];
    let info = if info.is_array() { &info[0] } else { info };
    info["MessageId"].as_str().unwrap_or_default().to_string()
}

#[tokio::test]
async fn sessions_run_out_as_the_vendor_says_and_expire() {
    let site = Site::of(60, shipped(&["dell", "hpe"])).await;
    for (n, status, id) in [(1, 503, "RAC0218"), (2, 400, "CreateLimitReachedForResource")] {
        for open in 0..8 {
            let (status, headers, _) = site.log_in(n, super::site::PASSWORD).await;
            assert_eq!(status, 201, "session {open}");
            assert!(headers.contains_key("x-auth-token"));
        }
        let (refused, _, body) = site.log_in(n, super::site::PASSWORD).await;
        assert_eq!(refused, status);
        assert!(id_of(&body).ends_with(id), "{body}");
        // Basic is still served.
        site.get(n, &format!("{V1}/Systems")).await;
    }
    // iLO's end after 30 s: half a second here.
    until("room again", || async {
        (site.log_in(2, super::site::PASSWORD).await.0 == 201).then_some(())
    })
    .await;
    assert_eq!(site.log_in(1, super::site::PASSWORD).await.0, 503, "Dell's last half an hour");
}

#[tokio::test]
async fn an_account_locks_and_the_right_password_does_not_help() {
    let site = Site::of(60, shipped(&["supermicro"])).await;
    for _ in 0..3 {
        assert_eq!(site.log_in(1, "wrong").await.0, 401);
    }
    assert_eq!(site.log_in(1, super::site::PASSWORD).await.0, 401, "locked");
    let (status, ..) = site.call(1, Method::GET, "/redfish/v1/Systems", &[], None).await;
    assert_eq!(status, 401, "Basic too");
    until("30 s later", || async {
        (site.log_in(1, super::site::PASSWORD).await.0 == 201).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_password_that_must_be_changed_closes_everything_else() {
    let site = Site::of(60, own("[password]\nchange_required = true\n")).await;
    assert_eq!(site.log_in(1, super::site::PASSWORD).await.0, 201);
    let (status, _, body) = site.call(1, Method::GET, "/redfish/v1/Systems/1", &[], None).await;
    assert_eq!((status, id_of(&body).ends_with("PasswordChangeRequired")), (403, true), "{body}");
    let args = &body["error"]["@Message.ExtendedInfo"][0]["MessageArgs"];
    assert!(args[0].as_str().is_some_and(|a| a.contains("/AccountService/Accounts/")), "{body}");
    let (status, ..) = site.call(1, Method::GET, V1, &[], None).await;
    assert_eq!(status, 200, "the root is open");
}

#[tokio::test]
async fn each_vendor_has_its_own_boot_override() {
    let site =
        Site::of(60, shipped(&["hpe", "supermicro", "lenovo", "openbmc", "dgx", "dell"])).await;
    let full = |enabled: &str| {
        json!({"Boot": {"BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": "Pxe",
                        "BootSourceOverrideMode": "UEFI"}})
    };
    let short =
        json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}});
    let patch = |n: usize, path: &'static str, etag: &'static str, body: &Value| {
        let (site, body) = (&site, body.clone());
        async move {
            let headers = [("If-Match", etag)];
            let headers = if etag.is_empty() { &[][..] } else { &headers[..] };
            let (status, _, body) = site.call(n, Method::PATCH, path, headers, Some(body)).await;
            (status, id_of(&body))
        }
    };
    let mode = |n: usize| site.seat(n).with(site.now(), |b| b.vm.boot.mode);

    // HPE: Mode is not writable, and nothing is during POST. Paths in any case.
    let (status, id) = patch(1, "/redfish/v1/systems/1/", "", &full("Once")).await;
    assert_eq!((status, id.ends_with("PropertyNotWritable")), (400, true), "{id}");
    assert_eq!(patch(1, "/redfish/v1/Systems/1", "", &short).await.0, 200);
    assert_eq!(mode(1), BootMode::Once);
    let seat = site.seat(1).clone();
    seat.with(site.now(), |b| b.vm.press_power(site.now()));
    until("POST", || async {
        seat.with(site.now(), |b| b.vm.host == HostState::Post).then_some(())
    })
    .await;
    let (status, id) = patch(1, "/redfish/v1/Systems/1", "", &short).await;
    assert_eq!((status, id.ends_with("UnableToModifyDuringSystemPOST")), (400, true), "{id}");

    // Supermicro: without the triple it is taken, and everything is as by default.
    assert_eq!(patch(2, "/redfish/v1/Systems/1", "", &full("Once")).await.0, 200);
    assert_eq!(mode(2), BootMode::Once);
    assert_eq!(patch(2, "/redfish/v1/Systems/1", "", &short).await.0, 200);
    assert_eq!(mode(2), BootMode::Disabled);
    let (status, _) = patch(2, "/redfish/v1/Systems/1", "*", &full("Once")).await;
    assert_eq!(status, 412, "If-Match is harmful there");

    // Lenovo: no Continuous, and a settings object.
    let pending = "/redfish/v1/Systems/1/Pending";
    let (status, id) = patch(3, pending, "", &full("Continuous")).await;
    assert_eq!((status, id.ends_with("PropertyValueNotInList")), (400, true), "{id}");
    assert_eq!(patch(3, pending, "", &full("Once")).await.0, 200);
    let shown = site.get(3, pending).await;
    assert_eq!(shown["Boot"]["BootSourceOverrideTarget"], "Pxe");
    let system = site.get(3, "/redfish/v1/Systems/1").await;
    assert_eq!(system["@Redfish.Settings"]["SettingsObject"]["@odata.id"], pending);

    // OpenBMC: Mode is absent. DGX: it is null, and a PATCH needs If-Match.
    let system = site.get(4, "/redfish/v1/Systems/System_0").await;
    assert!(system["Boot"].get("BootSourceOverrideMode").is_none(), "{system}");
    let system = site.get(5, "/redfish/v1/Systems/DGX").await;
    assert!(system["Boot"].get("BootSourceOverrideMode").is_some_and(Value::is_null));
    assert_eq!(patch(5, "/redfish/v1/Systems/DGX/SD", "", &short).await.0, 428);
    assert_eq!(patch(5, "/redfish/v1/Systems/DGX/SD", "\"no\"", &short).await.0, 412);
    assert_eq!(patch(5, "/redfish/v1/Systems/DGX/SD", "*", &short).await.0, 200);
    assert_eq!(mode(5), BootMode::Once);

    // Dell has another name for it, and the standard one leads nowhere.
    let (status, ..) = site.call(6, Method::GET, "/redfish/v1/Systems/1", &[], None).await;
    assert_eq!(status, 404);
    site.get(6, "/redfish/v1/Systems/System.Embedded.1").await;
}

#[tokio::test]
async fn hgx_gpus_are_on_a_second_system() {
    let site = Site::of(60, shipped(&["dgx"])).await;
    let systems = site.get(1, "/redfish/v1/Systems").await;
    assert_eq!(systems["Members@odata.count"], 2);
    let board = site.get(1, "/redfish/v1/Systems/HGX_Baseboard_0").await;
    assert!(board.get("Actions").is_none(), "it can't be reset");
    let processors = "/redfish/v1/Systems/HGX_Baseboard_0/Processors";
    assert_eq!(site.get(1, processors).await["Members"], json!([]), "not while the host is off");
    let seat = site.seat(1).clone();
    seat.with(site.now(), |b| b.vm.press_power(site.now()));
    until("on", || async { seat.with(site.now(), |b| b.vm.power == PowerState::On).then_some(()) })
        .await;
    let gpus = site.get(1, processors).await;
    assert_eq!(gpus["Members@odata.count"], 8);
    let one = gpus["Members"][0]["@odata.id"].as_str().unwrap().to_string();
    assert_eq!(site.get(1, &one).await["ProcessorType"], "GPU");
    let host = site.get(1, "/redfish/v1/Systems/DGX/Processors").await;
    assert_eq!(host["Members@odata.count"], 2);
    let (status, ..) =
        site.call(1, Method::GET, "/redfish/v1/Systems/DGX/Processors/GPU0", &[], None).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn errors_have_the_shapes_of_the_field() {
    let shape = |name: &str| own(&format!("[errors]\nshape = \"{name}\"\n")).remove(0);
    let names = ["standard", "object", "top-level", "html", "plain", "empty"];
    let site = Site::of(60, names.map(shape).to_vec()).await;
    for (n, name) in (1..).zip(names) {
        let (status, headers, body) =
            site.call(n, Method::GET, "/redfish/v1/Nowhere", &[], None).await;
        assert_eq!(status, 404, "{name}");
        let kind = headers.get("content-type").and_then(|h| h.to_str().ok()).unwrap_or_default();
        match name {
            "standard" => assert!(body["error"]["@Message.ExtendedInfo"].is_array()),
            "object" => assert!(body["error"]["@Message.ExtendedInfo"].is_object()),
            "top-level" => assert!(body["@Message.ExtendedInfo"].is_array()),
            "html" => assert_eq!(kind, "text/html"),
            "plain" => assert_eq!(kind, "text/plain"),
            _ => assert_eq!((kind, &body), ("", &Value::Null)),
        }
    }
}

#[tokio::test]
async fn resets_are_listed_and_refused_as_the_vendor_does() {
    let site = Site::of(60, shipped(&["dell", "supermicro", "dgx"])).await;
    let action = |v: &Value| v["Actions"]["#ComputerSystem.Reset"].clone();
    let reset = |n: usize, system: &'static str, kind: &'static str| {
        let site = &site;
        async move {
            let path = format!("{V1}/Systems/{system}/Actions/ComputerSystem.Reset");
            let body = Some(json!({"ResetType": kind}));
            let (status, _, body) = site.call(n, Method::POST, &path, &[], body).await;
            (status, id_of(&body))
        }
    };
    // Dell: inline; "already so" is a 409, and so is "not yet".
    let dell = action(&site.get(1, "/redfish/v1/Systems/System.Embedded.1").await);
    let list = dell["ResetType@Redfish.AllowableValues"].as_array().map(Vec::len);
    assert_eq!(list, Some(8), "{dell}");
    let (status, id) = reset(1, "System.Embedded.1", "ForceOff").await;
    assert_eq!((status, id.ends_with("PSU501")), (409, true), "{id}");
    assert_eq!(reset(1, "System.Embedded.1", "On").await.0, 204);
    let (status, id) = reset(1, "System.Embedded.1", "ForceOff").await;
    assert_eq!((status, id.ends_with("ActionParameterValueConflict")), (409, true), "{id}");
    until("it settles", || async {
        (reset(1, "System.Embedded.1", "ForceOff").await.0 == 204).then_some(())
    })
    .await;
    // Supermicro and DGX: in an ActionInfo.
    for (n, system, count) in [(2, "1", 7), (3, "DGX", 4)] {
        let reset = action(&site.get(n, &format!("{V1}/Systems/{system}")).await);
        assert!(reset.get("ResetType@Redfish.AllowableValues").is_none());
        let info = reset["@Redfish.ActionInfo"].as_str().unwrap();
        let info = site.get(n, info).await;
        let values = info["Parameters"][0]["AllowableValues"].as_array().map(Vec::len);
        assert_eq!(values, Some(count), "{info}");
    }
    let (status, id) = reset(3, "DGX", "PowerCycle").await;
    assert_eq!((status, id.ends_with("ActionParameterValueNotInList")), (400, true));
}

#[tokio::test]
async fn a_bmc_comes_back_in_steps() {
    let text = "[start]\nmute_s = [30, 30]\nbusy_s = [30, 30]\nbare_s = [30, 30]\n\
                partial_s = [30, 30]\n[errors]\nbusy = \"html\"\n";
    let site = Site::of(60, own(text)).await;
    let (status, headers, _) = site.log_in(1, super::site::PASSWORD).await;
    assert_eq!(status, 201);
    let token = headers["x-auth-token"].to_str().unwrap().to_string();
    let now = site.now();
    site.seat(1).with(now, |b| b.vm.reset_bmc_by_hand(now));
    // What each kind of answer was seen as, in its order.
    let seen: Mutex<Vec<String>> = Mutex::default();
    let base = site.serving.bmc_url(site.seat(1));
    let quick = std::time::Duration::from_millis(200);
    until("all steps", || {
        let get = |path: &str| {
            let url = format!("{base}{path}");
            site.http
                .get(url)
                .basic_auth("admin", Some(super::site::PASSWORD))
                .timeout(quick)
                .send()
        };
        let (root, list) = (get(V1), get("/redfish/v1/UpdateService/FirmwareInventory"));
        let seen = &seen;
        async move {
            let word = match root.await {
                Err(e) if e.is_timeout() => "mute".to_string(),
                Err(_) => "refused".to_string(),
                Ok(a) if a.status() == 503 => {
                    let html = a.headers()["content-type"] == "text/html";
                    if html { "busy".into() } else { "busy, but no HTML".into() }
                }
                Ok(a) => {
                    let root: Value = a.json().await.unwrap_or_default();
                    if root.get("Systems").is_none() {
                        "bare".into()
                    } else {
                        let list: Value = match list.await {
                            Ok(a) => a.json().await.unwrap_or_default(),
                            Err(_) => Value::Null,
                        };
                        match list["Members"].as_array().map(Vec::len) {
                            Some(0) => "partial".into(),
                            Some(_) => "up".into(),
                            None => "?".into(),
                        }
                    }
                }
            };
            let up = word == "up";
            let mut seen = seen.lock().unwrap();
            // What hung is reset when HTTP comes up.
            let again = word == "refused" && seen.iter().any(|w| w == "mute");
            if word != "?" && !again && seen.last() != Some(&word) {
                seen.push(word);
            }
            up.then_some(())
        }
    })
    .await;
    let order = ["refused", "mute", "busy", "bare", "partial", "up"];
    assert_eq!(seen.into_inner().unwrap(), order);
    let url = format!("{base}/redfish/v1/Systems");
    let answer = site.http.get(url).header("x-auth-token", token).send().await.unwrap();
    assert_eq!(answer.status(), 401, "the session died with the BMC");
}

#[tokio::test]
async fn connections_have_a_ceiling() {
    let site = Site::of(60, own("[pace]\nconnections = 2\n")).await;
    let address = (site.seat(1).address, site.serving.redfish_port);
    let hello = async |stream: &mut tokio::net::TcpStream| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let ask = b"GET /redfish/v1 HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(ask).await.ok()?;
        let mut some = [0; 12];
        stream.read_exact(&mut some).await.ok()?;
        (&some == b"HTTP/1.1 200").then_some(())
    };
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        assert!(hello(&mut stream).await.is_some());
        open.push(stream);
    }
    let mut third = tokio::net::TcpStream::connect(address).await.unwrap();
    assert!(hello(&mut third).await.is_none(), "there is no room for a third");
    drop(open);
    until("room again", || async {
        hello(&mut tokio::net::TcpStream::connect(address).await.ok()?).await
    })
    .await;
}

#[tokio::test]
async fn etags_are_spelt_as_the_vendor_spells_them() {
    let site = Site::of(60, shipped(&["hpe", "dell"])).await;
    let (_, headers, body) = site.call(1, Method::GET, "/redfish/v1/Systems/1", &[], None).await;
    let weak = headers["etag"].to_str().unwrap().to_string();
    assert!(weak.starts_with("W/\""), "{weak}");
    assert_eq!(body["@odata.etag"], weak.as_str());
    let boot = json!({"Boot": {"BootSourceOverrideTarget": "Pxe"}});
    let patch = |etag: String| {
        let (site, boot) = (&site, boot.clone());
        async move {
            let headers = [("If-Match", etag.as_str())];
            site.call(1, Method::PATCH, "/redfish/v1/Systems/1", &headers, Some(boot)).await.0
        }
    };
    assert_eq!(patch(weak.trim_start_matches("W/").to_string()).await, 412, "only weak");
    assert_eq!(patch(weak).await, 200);
    // Dell takes no If-Match on an action.
    let path = "/redfish/v1/Systems/System.Embedded.1/Actions/ComputerSystem.Reset";
    let body = Some(json!({"ResetType": "On"}));
    let (status, ..) = site.call(2, Method::POST, path, &[("If-Match", "*")], body.clone()).await;
    assert_eq!(status, 412);
    assert_eq!(site.call(2, Method::POST, path, &[], body).await.0, 204);
}

/// §6.10: the chassis of a root of trust says that it copies, and a power cut in that time breaks the
/// component for good. The log and the truth say by whom.
#[tokio::test]
async fn a_power_cut_during_the_background_copy_breaks_the_component() {
    let site = Site::of(60, shipped(&["openbmc"])).await;
    let erot = format!("{V1}/Chassis/HGX_ERoT_BMC_0");
    let said = |v: &Value| v["Oem"]["Nvidia"]["BackgroundCopyStatus"].as_str().map(String::from);
    let list = site.get(1, &format!("{V1}/Chassis")).await;
    assert!(list["Members"].as_array().is_some_and(|m| m.iter().any(|m| m["@odata.id"] == *erot)));
    assert_eq!(said(&site.get(1, &erot).await).as_deref(), Some("Completed"));
    let seat = site.seat(1).clone();
    seat.with(site.now(), |b| b.vm.found_running(false, 0));
    seat.with(site.now(), |b| b.vm.flash_by_hand(site.now(), 1, "7.20"));
    until("written", || async { (!seat.with(site.now(), |b| b.vm.is_flashing())).then_some(()) })
        .await;
    seat.with(site.now(), |b| b.vm.reset_bmc_by_hand(site.now()));
    until("it copies", || async {
        let url = format!("{}{erot}", site.serving.bmc_url(&seat));
        let asked = site.http.get(url).basic_auth("admin", Some(super::site::PASSWORD));
        let v: Value = asked.send().await.ok()?.json().await.ok()?;
        (said(&v).as_deref() == Some("InProgress")).then_some(())
    })
    .await;
    let tasks = site.get(1, &format!("{V1}/TaskService/Tasks")).await;
    assert_eq!(tasks["Members"], json!([]), "no task says so");
    let order = json!({"ResetType": "ForceOff"});
    let reset = format!("{V1}/Systems/System_0/Actions/ComputerSystem.Reset");
    let (status, _, body) = site.call(1, Method::POST, &reset, &[], Some(order)).await;
    assert!(status < 300, "{status}: {body}");
    assert_eq!(said(&site.get(1, &erot).await).as_deref(), Some("Failed"));
    let part = site.get(1, &format!("{V1}/UpdateService/FirmwareInventory/BMC")).await;
    assert_eq!((&part["Version"], &part["Status"]["Health"]), (&Value::Null, &json!("Critical")));
    let system = site.get(1, &format!("{V1}/Systems/System_0")).await;
    assert_eq!(system["Status"]["Health"], "Critical");
    let (_, truth) = site.admin(Method::GET, "/truth", None).await;
    let lines = truth["node-1"].as_array().cloned().unwrap_or_default();
    let broken: Vec<&Value> = lines.iter().filter(|l| l["what"] == "copy-broken").collect();
    assert_eq!(broken.len(), 1, "{truth}");
    assert_eq!((&broken[0]["by"], &broken[0]["slot"]), (&json!("wire"), &json!(1)));
}
