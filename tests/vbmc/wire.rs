//! `read(wire(state)) == state` for what the daily facts do not hold: settings, media, volumes,
//! tasks, labels, the leak. The facts themselves are compared in `tests/serve.rs`.

use super::{Images, PASSWORD, Site, USER, images, site};
use farrier::sim::physics::ATTRIBUTES;
use farrier::sim::rng::Rng;
use reqwest::Method;
use serde_json::{Map, Value, json};

async fn call(site: &Site, method: Method, path: &str, body: Value) -> Option<(u16, Value)> {
    let url = format!("{}/redfish/v1/{path}", site.url(1));
    let mut request = site.http.request(method, url).basic_auth(USER, Some(PASSWORD));
    if !body.is_null() {
        request = request.json(&body);
    }
    // A BMC that restarts takes its connections along.
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    let text = answer.bytes().await.ok()?;
    Some((status, serde_json::from_slice(&text).unwrap_or(Value::Null)))
}

async fn get(site: &Site, path: &str) -> Option<Value> {
    let (status, body) = call(site, Method::GET, path, Value::Null).await?;
    (status == 200).then_some(body)
}

async fn members(site: &Site, path: &str) -> Option<Vec<Value>> {
    let mut out = Vec::new();
    for member in get(site, path).await?["Members"].as_array()? {
        let below = member["@odata.id"].as_str()?.strip_prefix("/redfish/v1/")?.to_string();
        out.push(get(site, &below).await?);
    }
    Some(out)
}

/// What the wire says; `None` when the BMC went away meanwhile.
async fn heard(site: &Site) -> Option<Value> {
    let system = get(site, "Systems/1").await?;
    let secure = get(site, "Systems/1/SecureBoot").await?;
    let detectors = "Chassis/1/ThermalSubsystem/LeakDetection/LeakDetectors";
    let media: Vec<Value> = members(site, "Systems/1/VirtualMedia")
        .await?
        .iter()
        .map(|m| json!([m["Id"], m["Image"], m["Inserted"]]))
        .collect();
    let from_the_bmc: Vec<Value> = members(site, "Managers/1/VirtualMedia")
        .await?
        .iter()
        .map(|m| json!([m["Id"], m["Image"], m["Inserted"]]))
        .collect();
    let volumes: Vec<Value> = members(site, "Systems/1/Storage/1/Volumes")
        .await?
        .iter()
        .map(|v| json!([v["Id"], v["Name"], v["RAIDType"], v["Links"]["Drives@odata.count"]]))
        .collect();
    let mut tasks: Vec<Value> = members(site, "TaskService/Tasks")
        .await?
        .iter()
        .map(|t| json!([t["Id"], t["TaskState"]]))
        .collect();
    tasks.sort_by_key(Value::to_string);
    Some(json!({
        "power": system["PowerState"], "tag": system["AssetTag"],
        "lit": system["LocationIndicatorActive"],
        "target": system["Boot"]["BootSourceOverrideTarget"],
        "enabled": system["Boot"]["BootSourceOverrideEnabled"],
        "bios": get(site, "Systems/1/Bios").await?["Attributes"],
        "next": get(site, "Systems/1/Bios/Settings").await?["Attributes"],
        "secure": [secure["SecureBootEnable"], secure["SecureBootCurrentBoot"]],
        "media": media, "media of the BMC": from_the_bmc, "volumes": volumes, "tasks": tasks,
        "leak": get(site, &format!("{detectors}/Leak0")).await?["DetectorState"],
    }))
}

/// How the machine stands, and whether its BMC answers.
fn stands(site: &Site) -> (bool, Value) {
    let now = site.now();
    site.look(1, |b| {
        let (vm, board) = (&b.vm, &b.vm.board);
        let attributes = |of: &dyn Fn(&farrier::sim::physics::Attribute) -> Value| {
            ATTRIBUTES.iter().map(|a| (a.name.to_string(), of(a))).collect::<Map<_, _>>()
        };
        let media: Vec<Value> = (["CD", "USB"].iter().zip(&board.drives))
            .map(|(id, drive)| {
                let shown = drive.shown(now);
                json!([id, shown.map(|m| m.url.to_string()), shown.is_some()])
            })
            .collect();
        let volumes: Vec<Value> = board
            .volumes(now)
            .map(|v| json!([v.id.to_string(), &*v.name, v.raid.word(), v.drives.len()]))
            .collect();
        let updates = vm.tasks.iter().map(|t| (t.id, t.shown(now).1));
        let chores = board
            .chores
            .iter()
            .map(|c| (c.id, if c.ends <= now { "Completed" } else { "Running" }));
        let mut tasks: Vec<Value> =
            updates.chain(chores).map(|(id, state)| json!([id.to_string(), state])).collect();
        tasks.sort_by_key(Value::to_string);
        let in_force = if board.secure_boot_now { "Enabled" } else { "Disabled" };
        let value = json!({
            "power": format!("{:?}", vm.shown_power()), "tag": &*board.asset_tag, "lit": board.lit,
            "target": vm.boot.target_word(), "enabled": vm.boot.mode_word(),
            "bios": attributes(&|a| board.attribute(a)),
            "next": attributes(&|a| board.attribute_next(a)),
            "secure": [json!(board.secure_boot), json!(in_force)],
            "media": media, "media of the BMC": media, "volumes": volumes, "tasks": tasks,
            "leak": if board.leaking { "Critical" } else { "OK" },
        });
        (vm.bmc_up, value)
    })
}

fn one_of(rng: &mut Rng, words: &[&'static str]) -> &'static str {
    words[usize::try_from(rng.below(words.len() as u64)).unwrap()]
}

/// One write that somebody might send.
async fn write(site: &Site, images: &Images, rng: &mut Rng) {
    let drive =
        |n: u32| json!({"@odata.id": format!("/redfish/v1/Systems/1/Storage/1/Drives/NVMe{n}")});
    let (method, path, body) = match rng.below(12) {
        0 => {
            let kind = one_of(rng, &["On", "ForceOff", "ForceRestart"]);
            let path = "Systems/1/Actions/ComputerSystem.Reset";
            (Method::POST, path.to_string(), json!({"ResetType": kind}))
        }
        1 | 2 => {
            let id = one_of(rng, &["CD", "USB"]);
            let path = format!("Managers/1/VirtualMedia/{id}/Actions/VirtualMedia.InsertMedia");
            (Method::POST, path, json!({"Image": format!("{}/live.iso", images.url)}))
        }
        3 => {
            let id = one_of(rng, &["CD", "USB"]);
            let path = format!("Systems/1/VirtualMedia/{id}/Actions/VirtualMedia.EjectMedia");
            (Method::POST, path, json!({}))
        }
        4 | 5 => {
            let body = match rng.below(3) {
                0 => json!({"SriovGlobalEnable": one_of(rng, &["Enabled", "Disabled"])}),
                1 => json!({"PowerOnDelaySeconds": rng.below(240), "AcpiSlit": rng.below(2) == 0}),
                _ => json!({"ServiceTagLine": format!("line {}", rng.below(9))}),
            };
            (Method::PATCH, "Systems/1/Bios/Settings".into(), json!({"Attributes": body}))
        }
        6 => {
            let body = json!({"SecureBootEnable": rng.below(2) == 0});
            (Method::PATCH, "Systems/1/SecureBoot".into(), body)
        }
        7 => {
            let body = json!({
                "RAIDType": one_of(rng, &["RAID0", "RAID1"]), "Name": "v",
                "Links": {"Drives": [drive(0), drive(1)]},
            });
            (Method::POST, "Systems/1/Storage/1/Volumes".into(), body)
        }
        8 => {
            let volume = format!("Systems/1/Storage/1/Volumes/{}", 1 + rng.below(4));
            (Method::DELETE, volume, Value::Null)
        }
        9 => {
            let body = json!({"AssetTag": format!("t{}", rng.below(9)), "LocationIndicatorActive": rng.below(2) == 0});
            (Method::PATCH, "Systems/1".into(), body)
        }
        10 => {
            let target = one_of(rng, &["Cd", "Hdd", "None"]);
            let body = json!({"Boot": {"BootSourceOverrideTarget": target}});
            (Method::PATCH, "Systems/1".into(), body)
        }
        _ if rng.chance(200_000) => {
            (Method::POST, "Managers/1/Actions/Manager.Reset".into(), json!({}))
        }
        _ => {
            let now = site.now();
            let leaking = rng.below(2) == 0;
            site.look(1, |b| b.vm.leak(now, leaking));
            return;
        }
    };
    let answer = call(site, method, &path, body).await;
    // A volume is worth a look once it is there.
    if path.ends_with("Volumes") && answer.is_some_and(|(status, _)| status == 202) {
        let made = || {
            let now = site.now();
            site.look(1, |b| b.vm.board.volumes(now).count() == b.vm.board.volumes.len())
        };
        site.until("the volume is made", made).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_wire_says_is_how_the_board_stands() {
    let site = site(200).await;
    let images = images().await;
    let mut rng = Rng::new(23);
    let (mut compared, mut inserted, mut volumes, mut pending) = (0, 0, 0, 0);
    for _ in 0..150 {
        write(&site, &images, &mut rng).await;
        site.until("the BMC answers", || site.look(1, |b| b.vm.bmc_up)).await;
        for _ in 0..6 {
            let (up, before) = stands(&site);
            let wire = heard(&site).await;
            let (still_up, after) = stands(&site);
            if before != after || !(up && still_up) {
                continue;
            }
            // Up all the time and unchanged; a restart in between would have changed nothing else.
            if let Some(wire) = wire {
                assert_eq!(wire, before);
                compared += 1;
                inserted += usize::from(before["media"].to_string().contains("true"));
                volumes += usize::from(before["volumes"] != json!([]));
                pending += usize::from(before["bios"] != before["next"]);
                break;
            }
        }
    }
    let reached = format!("{compared} compared, {inserted} with media, {volumes} with volumes");
    println!("{reached}, {pending} with settings pending");
    assert!(compared > 60 && inserted > 5 && volumes > 5 && pending > 5, "{reached}, {pending}");
    site.serving.stop().await;
}
