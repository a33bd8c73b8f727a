//! Redfish clients that nobody here wrote, unchanged: DMTF's redfishtool and Tacklebox (`rf_*`),
//! OpenStack's sushy.

use super::{Images, PASSWORD, Site, USER, images, run, site};
use farrier::model::EngineTime;
use farrier::sim::physics::{Attribute, BootMode, PowerState};
use serde_json::json;
use std::path::Path;

/// Fast enough that an update ends within a poll or two of its client.
const SCALE: u32 = 600;

struct Bench {
    site: Site,
    images: Images,
    dir: tempfile::TempDir,
}

async fn bench() -> Bench {
    Bench { site: site(SCALE).await, images: images().await, dir: tempfile::tempdir().unwrap() }
}

impl Bench {
    /// A tool of the Tacklebox against machine 1.
    async fn rf(&self, name: &str, args: &[&str]) -> (bool, String) {
        let url = self.site.url(1);
        let mut all = vec!["-u", USER, "-p", PASSWORD, "-r", &*url];
        all.extend(args);
        run(self.dir.path(), name, &all).await
    }

    async fn rf_ok(&self, name: &str, args: &[&str]) -> String {
        let (ok, said) = self.rf(name, args).await;
        assert!(ok, "{name} {args:?}:\n{said}");
        said
    }

    async fn redfishtool(&self, args: &[&str]) -> String {
        let url = self.site.url(1);
        let host = url.trim_start_matches("http://");
        let mut all = vec!["-r", host, "-u", USER, "-p", PASSWORD, "-S", "Never", "-A", "Session"];
        all.extend(args);
        let (ok, said) = run(self.dir.path(), "redfishtool", &all).await;
        assert!(ok, "redfishtool {args:?}:\n{said}");
        said
    }

    fn power(&self) -> PowerState {
        self.site.look(1, |b| b.vm.power)
    }

    async fn power_is(&self, wanted: PowerState) {
        self.site.until("the power is as ordered", || self.power() == wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf_power_reset_switches_the_host_on_and_off() {
    let b = bench().await;
    let info = b.rf_ok("rf_power_reset.py", &["-info"]).await;
    assert!(
        info.contains("GracefulShutdown") && info.contains("Current power state: Off"),
        "{info}"
    );
    b.rf_ok("rf_power_reset.py", &["-t", "On"]).await;
    b.power_is(PowerState::On).await;
    b.rf_ok("rf_power_reset.py", &["-t", "ForceRestart"]).await;
    b.rf_ok("rf_power_reset.py", &["-t", "ForceOff"]).await;
    b.power_is(PowerState::Off).await;
    assert_eq!(b.site.truth(1), ["power-on", "power-cut", "power-cut"]);
    assert!(b.site.truth(2).is_empty(), "the neighbour stands still");
    let (ok, said) = b.rf("rf_power_reset.py", &["-t", "Nmi"]).await;
    assert!(!ok, "a reset that is not offered is refused: {said}");
    // The tools log out.
    assert_eq!(b.site.get(1, "/redfish/v1/SessionService/Sessions").await["Members"], json!([]));
    b.site.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf_boot_override_is_kept_and_consumed_by_one_boot() {
    let b = bench().await;
    b.rf_ok("rf_boot_override.py", &["-t", "Pxe", "-m", "UEFI"]).await;
    let boot = || b.site.look(1, |b| (b.vm.boot.target_word(), b.vm.boot.mode));
    assert_eq!(boot(), ("Pxe", BootMode::Once));
    let said = b.rf_ok("rf_boot_override.py", &["-info"]).await;
    assert!(said.contains("Pxe"), "{said}");
    b.rf_ok("rf_boot_override.py", &["-t", "None"]).await;
    assert_eq!(boot(), ("None", BootMode::Disabled));
    b.rf_ok("rf_boot_override.py", &["-t", "Hdd"]).await;
    b.rf_ok("rf_power_reset.py", &["-t", "On"]).await;
    b.site.until("the boot consumed it", || boot() == ("None", BootMode::Disabled)).await;
    let (ok, said) = b.rf("rf_boot_override.py", &["-t", "SDCard"]).await;
    assert!(!ok, "a target that is not offered is refused: {said}");
    b.site.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf_virtual_media_inserts_an_image_that_can_be_had_and_no_other() {
    let b = bench().await;
    let image = format!("{}/live.iso", b.images.url);
    b.rf_ok("rf_virtual_media.py", &["insert", "-image", &image]).await;
    let inserted = || {
        b.site
            .look(1, |b| b.vm.board.drives[0].medium.as_ref().map(|m| (m.url.to_string(), m.bytes)))
    };
    assert_eq!(inserted(), Some((image.clone(), 300_000)));
    assert_eq!(b.images.asked(), ["HEAD /live.iso -", "GET /live.iso bytes=0-65535"]);
    let said = b.rf_ok("rf_virtual_media.py", &["info"]).await;
    assert!(said.contains("live.iso"), "{said}");
    b.rf_ok("rf_virtual_media.py", &["eject", "-i", "CD"]).await;
    assert_eq!(inserted(), None);
    for (bad, why) in [
        (format!("{}/none.iso", b.images.url), "404"),
        (format!("{}/empty.iso", b.images.url), "nothing in it"),
        ("http://127.0.0.1:1/live.iso".to_string(), "nobody listens"),
        ("https://127.0.0.1/live.iso".to_string(), "a protocol that this BMC lacks"),
    ] {
        let (ok, said) = b.rf("rf_virtual_media.py", &["insert", "-i", "CD", "-image", &bad]).await;
        assert!(!ok && inserted().is_none(), "{why}: {said}");
    }
    assert_eq!(b.site.truth(1), ["medium-inserted", "medium-ejected"]);
    b.site.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf_update_pulls_and_pushes_and_the_image_says_what_is_installed() {
    let b = bench().await;
    let version = |slot: usize| b.site.look(1, |b| b.vm.firmware[slot].version.to_string());
    // Pulled: the BMC fetches it, the tool waits for the task.
    let image = format!("{}/bmc.bin", b.images.url);
    let said = b.rf_ok("rf_update.py", &["-i", &image]).await;
    assert!(said.contains("Task is Done"), "{said}");
    assert_eq!(b.site.truth(1), ["flash-started", "flash-ended"]);
    assert_eq!(b.images.asked(), ["GET /bmc.bin -"]);
    assert_eq!(version(1), "7.10", "staged, not running");
    b.rf_ok("rf_manager_config.py", &["reset", "--type", "GracefulRestart"]).await;
    b.site
        .until("the BMC is back with 7.20", || {
            b.site.look(1, |b| b.vm.bmc_up && &*b.vm.firmware[1].version == "7.20")
        })
        .await;
    // Pushed, to a target that is a resource, not a member of the inventory.
    let file = b.dir.path().join("bios.img");
    std::fs::write(&file, "farrier-virtual-bios-2.1.0\n".repeat(100_000)).unwrap();
    let file = file.to_string_lossy().into_owned();
    let target = ["-i", &*file, "-t", "/redfish/v1/Systems/1/Bios"];
    let said = b.rf_ok("rf_update.py", &target).await;
    assert!(said.contains("Pushing the image") && said.contains("Task is Done"), "{said}");
    assert_eq!(b.site.truth(1)[3..], ["flash-started", "flash-ended"]);
    b.rf_ok("rf_power_reset.py", &["-t", "On"]).await;
    b.site.until("POST activated 2.1.0", || version(0) == "2.1.0").await;
    // Half an image and one for another component install nothing.
    let before = b.site.truth(1).len();
    for (text, target) in [
        ("farrier-virtual-bmc-7.30\nfarrier-virt", "/redfish/v1/Managers/1"),
        ("farrier-virtual-bmc-7.30\n", "/redfish/v1/Systems/1/Bios"),
        ("not an image\n", "/redfish/v1/Managers/1"),
    ] {
        std::fs::write(Path::new(&file), text).unwrap();
        let (ok, said) = b.rf("rf_update.py", &["-i", &file, "-t", target]).await;
        assert!(!ok, "{text:?} for {target}: {said}");
    }
    assert_eq!(b.site.truth(1).len(), before);
    b.site.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tacklebox_reads_and_writes_accounts_settings_logs_and_sensors() {
    let b = bench().await;
    b.rf_ok("rf_accounts.py", &["--add", "operator2", "first-password", "Operator"]).await;
    b.rf_ok("rf_accounts.py", &["--setpassword", "operator2", "second-password"]).await;
    let login = |password: &'static str| {
        let url = format!("{}/redfish/v1/SessionService/Sessions", b.site.url(1));
        b.site.http.post(url).json(&json!({"UserName": "operator2", "Password": password})).send()
    };
    assert_eq!(login("first-password").await.unwrap().status(), 401);
    assert_eq!(login("second-password").await.unwrap().status(), 201);
    let (ok, _) = b.rf("rf_accounts.py", &["--setpassword", "operator2", "short"]).await;
    assert!(!ok, "a password below the minimum length is refused");
    b.rf_ok("rf_accounts.py", &["--delete", "operator2"]).await;
    assert_eq!(login("second-password").await.unwrap().status(), 401);

    let sriov = Attribute::of("SriovGlobalEnable").unwrap();
    let value = || b.site.look(1, |b| b.vm.board.attribute(sriov));
    b.rf_ok("rf_bios_settings.py", &["-a", "SriovGlobalEnable", "Enabled"]).await;
    assert_eq!(value(), "Disabled", "pending, not in force");
    b.rf_ok("rf_power_reset.py", &["-t", "On"]).await;
    b.site.until("POST applied the setting", || value() == "Enabled").await;

    let sel = b.rf_ok("rf_sel.py", &[]).await;
    assert!(sel.contains("Host power on") && sel.contains("Settings applied by POST"), "{sel}");
    b.rf_ok("rf_sel.py", &["-clear"]).await;
    let sel = b.rf_ok("rf_sel.py", &[]).await;
    assert!(!sel.contains("Host power on") && sel.contains("Log cleared"), "{sel}");
    let log = b.rf_ok("rf_logs.py", &["-m"]).await;
    assert!(!log.contains("Account changed"), "cleared too: {log}");

    let sensors = b.rf_ok("rf_sensor_list.py", &[]).await;
    for word in ["GPU7Temp", "TotalPower", "Inlet", "PSU5"] {
        assert!(sensors.contains(word), "{word} is not in:\n{sensors}");
    }
    let parts = b.rf_ok("rf_sys_inventory.py", &["-details"]).await;
    for word in ["Virtual GPU", "NVMe1", "Virtual 64-core"] {
        assert!(parts.contains(word), "{word} is not in:\n{parts}");
    }
    let versions = b.rf_ok("rf_firmware_inventory.py", &[]).await;
    assert!(versions.contains("7.10") && versions.contains("2.0.0"), "{versions}");
    b.rf_ok("rf_manager_config.py", &["settime", "--datetime", "2030-01-01T00:00:00Z"]).await;
    let ahead = b.site.look(1, |b| b.vm.board.clock_ahead_ms(EngineTime::NEVER));
    assert!(ahead > 3 * 365 * 86_400_000, "{ahead}");
    b.site.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redfishtool_reads_switches_and_labels() {
    let b = bench().await;
    let system = b.redfishtool(&["Systems", "-I", "1", "get"]).await;
    assert!(system.contains("VB000001"), "{system}");
    b.redfishtool(&["Systems", "-I", "1", "setAssetTag", "rack-7"]).await;
    assert_eq!(b.site.look(1, |b| b.vm.board.asset_tag.to_string()), "rack-7");
    b.redfishtool(&["Systems", "-I", "1", "setBootOverride", "Once", "Cd"]).await;
    assert_eq!(b.site.look(1, |b| b.vm.boot.target_word()), "Cd");
    b.redfishtool(&["Systems", "-I", "1", "reset", "On"]).await;
    b.power_is(PowerState::On).await;
    let drives = b.redfishtool(&["Systems", "-I", "1", "Processors", "list"]).await;
    assert!(drives.contains("GPU7"), "{drives}");
    b.redfishtool(&["Managers", "-I", "1", "Logs", "list"]).await;
    b.redfishtool(&["AccountService", "get"]).await;
    assert_eq!(b.site.truth(1)[..2], ["set-boot", "power-on"]);
    b.site.serving.stop().await;
}

const SUSHY: &str = r#"
import sys, time, sushy
from sushy import auth
url, user, password, image = sys.argv[1:]
s = sushy.Sushy(url, auth=auth.SessionOrBasicAuth(user, password), verify=False)
system = s.get_system()
assert system.identity == "1" and system.uuid, system.uuid
assert system.power_state == sushy.PowerState.OFF, system.power_state
boot = system.boot
system.set_system_boot_options(target=sushy.BootSource.CD, enabled=sushy.BootSourceOverrideEnabled.ONCE, mode=sushy.BootSourceOverrideMode.UEFI)
for media in (system.virtual_media, system.managers[0].virtual_media):
    kinds = [m for m in media.get_members() if sushy.VirtualMediaType.CD in m.media_types]
    assert len(kinds) == 1, kinds
cd = kinds[0]
cd.insert_media(image)
cd.refresh(force=True)
assert cd.inserted and cd.image == image, (cd.inserted, cd.image)
system.reset_system(sushy.ResetType.ON)
deadline = time.time() + 30
while system.power_state != sushy.PowerState.ON:
    assert time.time() < deadline, system.power_state
    time.sleep(0.1)
    system.refresh(force=True)
names = sorted(f.identity for f in s.get_update_service().firmware_inventory.get_members())
assert names == ["BIOS", "BMC"], names
assert len(system.processors.get_members()) == 10
drives = [d.identity for st in system.storage.get_members() for d in st.drives]
assert drives == ["NVMe0", "NVMe1"], drives
assert system.secure_boot.enabled is False
system.secure_boot.set_enabled(True)
system.bios.set_attribute("LogicalProc", "Disabled")
assert "LogicalProc" in system.bios.pending_attributes
macs = list(system.ethernet_interfaces.summary)
assert macs == ["02:fb:00:00:00:01"], macs
print("done", system.memory_summary.size_gib)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sushy_boots_the_host_from_a_virtual_cd() {
    let b = bench().await;
    let (url, image) = (b.site.url(1), format!("{}/live.iso", b.images.url));
    let args = ["-W", "ignore", "-c", SUSHY, &*url, USER, PASSWORD, &*image];
    let (ok, said) = run(b.dir.path(), "python", &args).await;
    assert!(ok && said.contains("done 2048"), "{said}");
    b.site.until("the host came up from the CD", || b.site.truth(1).contains(&"booted-cd")).await;
    let truth = b.site.truth(1);
    for what in ["set-boot", "medium-inserted", "power-on", "secure-boot-set", "bios-set"] {
        assert!(truth.contains(&what), "{what} is not in {truth:?}");
    }
    b.site.serving.stop().await;
}
