//! DMTF's service validator over the whole tree, in the middle of its life: sessions open, an update
//! task and a volume task there, media inserted, settings pending, lines in the log.

#[path = "../support/unpacked.rs"]
mod unpacked;

use super::{PASSWORD, Site, USER, images, run, site};
use serde_json::json;
use std::path::{Path, PathBuf};
use unpacked::{SCHEMAS, unpacked};

async fn live_a_little(site: &Site, n: usize) {
    let images = images().await;
    let v1 = "/redfish/v1";
    // World time runs fast: the validator's session must outlive its reading of the schemas.
    let patience = json!({"SessionTimeout": 86_400});
    assert_eq!(site.patch(n, &format!("{v1}/SessionService"), patience).await, 200);
    let reset = format!("{v1}/Systems/1/Actions/ComputerSystem.Reset");
    assert_eq!(site.post(n, &reset, json!({"ResetType": "On"})).await, 204);
    let insert = format!("{v1}/Managers/1/VirtualMedia/CD/Actions/VirtualMedia.InsertMedia");
    let image = json!({"Image": format!("{}/live.iso", images.url)});
    assert_eq!(site.post(n, &insert, image).await, 204);
    let volume = json!({"RAIDType": "RAID1", "Name": "boot", "Links": {"Drives": [
        {"@odata.id": format!("{v1}/Systems/1/Storage/1/Drives/NVMe0")},
        {"@odata.id": format!("{v1}/Systems/1/Storage/1/Drives/NVMe1")},
    ]}});
    assert_eq!(site.post(n, &format!("{v1}/Systems/1/Storage/1/Volumes"), volume).await, 202);
    let settings = json!({"Attributes": {"SriovGlobalEnable": "Enabled"}});
    let path = format!("{v1}/Systems/1/Bios/Settings");
    assert_eq!(site.patch(n, &path, settings).await, 200);
    let update = format!("{v1}/UpdateService/Actions/UpdateService.SimpleUpdate");
    let order = json!({"ImageURI": format!("{}/bmc.bin", images.url)});
    assert_eq!(site.post(n, &update, order).await, 202);
    let account = json!({"UserName": "reader", "Password": "reads-only", "RoleId": "ReadOnly"});
    assert_eq!(site.post(n, &format!("{v1}/AccountService/Accounts"), account).await, 201);
    // The volume is there once its task has ended.
    site.until("the volume is made", || {
        let now = site.now();
        site.look(n, |b| b.vm.board.volumes(now).count() == 1)
    })
    .await;
}

async fn validate(n: usize) {
    let Some(schemas) = unpacked(SCHEMAS) else { return };
    let site = site(60).await;
    live_a_little(&site, n).await;
    let dir = tempfile::tempdir().unwrap();
    let schema_dir = schemas.path().join("SchemaFiles");
    let url = site.url(n);
    let schema_dir = schema_dir.to_string_lossy();
    let args = [
        "-r",
        &*url,
        "-u",
        USER,
        "-p",
        PASSWORD,
        "--authtype",
        "Session",
        "--schema_directory",
        &*schema_dir,
        "--skipschema",
        "--nooemcheck",
        "--logdir",
        "out",
    ];
    let (_, said) = run(dir.path(), "rf_service_validator", &args).await;
    let counts = counts(&said);
    let [passed, warned, failed] = counts.unwrap_or_else(|| panic!("no figures in:\n{said}"));
    println!("machine {n}: PASS {passed}, WARN {warned}, FAIL {failed}");
    assert_eq!(failed, 0, "{}", complaints(&said, &dir.path().join("out")));
    assert!(passed > 1_000, "the validator saw little: {passed}\n{said}");
    site.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_validator_finds_no_fault_with_a_gpu_node() {
    validate(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_validator_finds_no_fault_with_a_cpu_node() {
    validate(2).await;
}

/// PASS, WARN and FAIL of the summary's table.
fn counts(said: &str) -> Option<[u32; 3]> {
    let plain: String = said.replace('\u{1b}', " ");
    let mut lines = plain.lines().skip_while(|l| !(l.contains("PASS") && l.contains("NOT TESTED")));
    lines.next()?;
    let row = lines.find(|l| l.starts_with('|'))?;
    let mut cells = row.split('|').filter_map(|c| c.trim().parse::<u32>().ok());
    Some([cells.next()?, cells.next()?, cells.next()?])
}

/// The lines of the validator's log that say what is wrong.
fn complaints(said: &str, logs: &Path) -> String {
    let mut dirs: Vec<PathBuf> = vec![logs.to_path_buf()];
    let mut out = String::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "log") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let bad = text.lines().filter(|l| {
                    l.contains("FAIL - ") || l.contains("CRITICAL") || l.contains("Validating ")
                });
                // The resource's name stands before its faults.
                let mut last = "";
                for line in bad {
                    if line.contains("Validating ") {
                        last = line;
                    } else {
                        out += &format!("{last}\n    {line}\n");
                    }
                }
            }
        }
    }
    if out.is_empty() { said.to_string() } else { out }
}
