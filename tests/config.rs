//! The configuration as operators meet it: the shipped files pass their own check, every kind of
//! mistake is told at its place, and no text makes the reader panic.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // reads the shipped files

use farrier::config::{self, Loaded, Source, Sources};
use farrier::model::DomainKind;
use farrier::steps::Step;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

fn file(path: &str) -> Source {
    let at = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    Source::new(path, std::fs::read_to_string(at).expect(path))
}

fn in_catalog(below: &str) -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-catalog").join(below).is_file()
}

/// The example configuration with all that ships.
fn shipped() -> Sources {
    Sources {
        remediation: None,
        quirks: None,
        daemon: file("farrier.example.toml"),
        inventory: vec![file("inventory.example.toml")],
        workflows: vec![file("workflows/gpu-node.toml"), file("workflows/cpu-node.toml")],
        catalog: vec![
            file("firmware-catalog/dell/poweredge-xe9680.toml"),
            file("firmware-catalog/farrier/virtual.toml"),
            file("firmware-catalog/supermicro/sys-821ge-tnhr.toml"),
        ],
        catalog_root: "firmware-catalog".into(),
        ..Sources::default()
    }
}

fn load(sources: &Sources) -> Result<Loaded, String> {
    config::load(sources, &in_catalog).map_err(|found| config::render(&found))
}

/// The report of a configuration that must not load.
fn report(sources: &Sources) -> String {
    match config::load(sources, &in_catalog) {
        Ok(_) => panic!("nothing was found"),
        Err(found) => config::render(&found),
    }
}

#[test]
fn the_shipped_files_pass_without_a_warning() {
    let loaded = load(&shipped()).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(config::render(&loaded.warnings), "");
    assert_eq!(loaded.expected.len(), 4);
    let gpu = &loaded.expected[0];
    assert_eq!((&*gpu.name, &*gpu.profile, &*gpu.pool), ("gpu-001", "h100", "train"));
    let domains: Vec<String> =
        gpu.domains.iter().map(|d| format!("{}={}", d.kind.name(), d.name)).collect();
    assert_eq!(
        domains,
        [
            "site=fra1",
            "rack=fra1-r01",
            "power=pdu-1a",
            "power=pdu-1b",
            "switch=leaf-01",
            "cooling=loop-1",
            "pool=train"
        ]
    );
    assert_eq!(&*gpu.bmc.credential, "bmc-default");
    assert_eq!(loaded.expected[2].domain(DomainKind::Chassis), Some("twin-001"));
    let profile = &loaded.site.profiles["h100"];
    assert_eq!(&*loaded.site.workflows[&profile.workflow].name, "gpu-node");
    // The example spells out the limits that hold without any.
    assert_eq!(loaded.site.limits, config::inventory::DEFAULT_LIMITS);
}

#[test]
fn a_large_site_may_flash_a_tenth_of_itself_at_once() {
    use config::inventory::{DEFAULT_LIMITS, default_limits};
    use farrier::model::{DomainKind, LimitClass};
    assert_eq!(default_limits(0), DEFAULT_LIMITS);
    assert_eq!(default_limits(640), DEFAULT_LIMITS);
    let large = default_limits(4_500);
    let site =
        |l: &&farrier::model::Limit| l.class == LimitClass::Flash && l.per == DomainKind::Site;
    assert_eq!(large.iter().find(site).map(|l| l.max), Some(450));
    let others = |all: &[farrier::model::Limit]| {
        all.iter().filter(|l| !site(l)).copied().collect::<Vec<_>>()
    };
    assert_eq!(others(&large), others(&DEFAULT_LIMITS));
}

#[test]
fn the_shipped_workflows_use_every_step_kind_and_parse_alone() {
    let sources = config::shipped::workflows();
    let (workflows, found) = config::workflow::parse(&sources);
    assert_eq!(config::render(&found), "");
    for workflow in &workflows {
        let kinds: BTreeSet<&str> = workflow.steps.iter().map(|s| s.step.kind()).collect();
        assert_eq!(kinds, BTreeSet::from(Step::KINDS), "{}", workflow.name);
    }
    let gpu = &workflows[0];
    let Step::BurnIn(p) = &gpu.steps.iter().find(|s| &*s.key == "smoke").unwrap().step else {
        panic!("smoke is burn-in")
    };
    assert_eq!(p.timeout.0, 1_800_000);
    // The hash names the content: the same text gives the same, another text another.
    let (again, _) = config::workflow::parse(&sources);
    assert_eq!(gpu.hash(), again[0].hash());
    assert_ne!(gpu.hash(), again[1].hash());
}

#[test]
fn the_virtual_images_are_what_the_catalog_says() {
    let source = config::shipped::virtual_catalog();
    let (catalog, found) = config::catalog::parse("firmware-catalog", &[source], &in_catalog);
    assert_eq!(config::render(&found), "");
    let set = &catalog.families[0].sets["2026.11"];
    let order: Vec<&str> = set.firmware.iter().map(|f| f.component.as_str()).collect();
    assert_eq!(order, ["bmc", "bios"]);
    for (fw, id) in
        set.firmware.iter().zip(["farrier-virtual-bmc-7.20", "farrier-virtual-bios-2.1.0"])
    {
        let (_, bytes) =
            config::shipped::VIRTUAL_IMAGES.iter().find(|(f, _)| *f == fw.file).expect(&fw.file);
        assert_eq!(*bytes, format!("{id}\n").repeat(64).as_bytes());
        assert_eq!(bytes.len() as u64, fw.size);
        let digest: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, fw.sha256);
    }
}

#[test]
fn a_bmc_and_a_host_get_the_url_of_their_network() {
    let loaded = load(&shipped()).unwrap_or_else(|report| panic!("{report}"));
    let boot = loaded.daemon.boot.as_ref().expect("boot listener");
    let images = loaded.daemon.image_server.as_ref().expect("image listener");
    let url = |listener, address: &str, purpose| {
        let address: Option<IpAddr> = Loaded::address_of(address);
        loaded.advertised(listener, address, purpose)
    };
    use config::Purpose::{Bmc, Provision};
    assert_eq!(url(images, "https://10.20.1.1", Bmc), Some("http://10.20.0.2:7122"));
    assert_eq!(url(boot, "10.30.1.1", Provision), Some("http://10.30.0.2:7121"));
    // A name instead of an address: the only network of that purpose.
    assert_eq!(url(boot, "gpu-001", Provision), Some("http://10.30.0.2:7121"));
    // A network for which no URL was given is not served by guessing.
    assert_eq!(url(images, "10.30.1.1", Bmc), None);
}

#[test]
fn relative_paths_count_from_the_file() {
    let source = Source::new("/etc/farrier/farrier.toml", "schema = 1\n[paths]\nstate = \"s\"\n");
    let (daemon, found) = config::daemon::parse(&source);
    assert_eq!(config::render(&found), "");
    let daemon = daemon.expect("no error");
    assert_eq!(daemon.database, Path::new("/etc/farrier/s/farrier.db"));
    assert_eq!(daemon.inventory, [Path::new("/etc/farrier/inventory.toml")]);
    assert_eq!(daemon.api.bind.to_string(), "127.0.0.1:7120");
}

#[test]
fn mistakes_in_the_daemon_file() {
    let daemon = Source::new(
        "farrier.toml",
        r#"schema = 2
[paths]
state = 7
invntory = ["a.toml"]
[listen.api]
bind = "0.0.0.0:7120"
tls_cert = "cert.pem"
[listen.boot]
bind = "nowhere"
advertise_url = { provisoin = "http://10.30.0.2:7121", bmc = "http://root:calvin@10.20.0.2" }
[listen.images]
bind = "0.0.0.0:7122"
[secrets]
key_file = "k"
systemd_credential = "k"
[[credential]]
name = "bmc-default"
user = "root"
password = "calvin"
[[credential]]
name = "bmc-default"
user = ""
from = { file = "a", env = "B" }
[[cluster]]
name = "training"
kind = "kubernetes"
command = []
where = "host"
timeout = "1h"
[confirm]
max_machines = -1
[breaker]
window = "soon"
[webb]
"#,
    );
    let (none, _) = config::daemon::parse(&daemon);
    assert!(none.is_none());
    insta::assert_snapshot!("daemon_mistakes", report(&Sources { daemon, ..shipped() }));
}

#[test]
fn a_boot_volume_is_read_with_all_its_mistakes() {
    let head = "schema = 1\n[[profile]]\nname = \"p\"\nworkflow = \"gpu-node\"\nimage = \"i\"\n";
    let good = format!(
        "{head}root_disk = {{ kind = \"raid\" }}\n[profile.boot_volume]\nkind = \"hardware-raid1\"\n\
         controller = \"BOSS*\"\ndrives = {{ kind = \"ssd\", model = \"Micron*\", max_gb = 500 }}\n"
    );
    let (inventory, found) = config::inventory::parse(&[Source::new("i.toml", &good)]);
    assert_eq!(config::render(&found), "");
    let volume = inventory.profiles["p"].boot_volume.as_ref().unwrap();
    assert_eq!((&*volume.name, volume.controller.as_deref()), ("boot", Some("BOSS*")));
    assert_eq!((volume.kind.raid(), volume.kind.drives()), ("RAID1", 2));
    assert_eq!(volume.drives.max_bytes, Some(500_000_000_000));

    let bad = |rest: &str| {
        let source = Source::new("inventory.toml", format!("{head}{rest}"));
        config::render(&config::inventory::parse(std::slice::from_ref(&source)).1)
    };
    let volume = "[profile.boot_volume]\nkind = \"hardware-raid1\"\ndrives = { kind = \"nvme\" }\n";
    let all = [
        volume.to_string(),
        format!("root_disk = {{ kind = \"nvme\", mirror = true }}\n{volume}"),
        format!("root_disk = {{ kind = \"virtio\" }}\n{volume}"),
        format!("root_disk = {{ min_gb = 100 }}\n{volume}"),
        "root_disk = { model = \"DELLBOSS*\" }\n[profile.boot_volume]\nkind = \"md\"\nname = \"a b\"\n\
         drives = { serials = [\"S1\", \"0\"], min_gb = 9, max_gb = 1, size = 3 }\n"
            .to_string(),
        "root_disk = { kind = \"raid\" }\n[profile.boot_volume]\nkind = \"hardware-raid1\"\ndrives = {}\n"
            .to_string(),
    ];
    let told: Vec<String> = all.iter().map(|rest| bad(rest)).collect();
    insta::assert_snapshot!("boot_volume_mistakes", told.join("\n---\n"));

    // Nothing would make it, or only when it is too late.
    let step =
        |key: &str| format!("[[step]]\nstage = \"provision\"\nkey = \"{key}\"\nkind = \"{key}\"\n");
    let identify = "[[step]]\nstage = \"discover\"\nkey = \"identify\"\nkind = \"identify\"\n";
    for (steps, says) in [
        (step("provision"), "workflow `gpu-node` has no step that makes it"),
        (step("provision") + &step("volume"), "`volume` makes a volume after the image is written"),
        (step("volume") + &step("provision"), ""),
    ] {
        let workflow = format!("schema = 1\nname = \"gpu-node\"\n{identify}{steps}");
        let sources = Sources {
            inventory: vec![Source::new("inventory.toml", &good)],
            workflows: vec![Source::new("gpu-node.toml", &workflow)],
            ..shipped()
        };
        let said = load(&sources).err().unwrap_or_default();
        match says {
            "" => assert!(!said.contains("volume"), "{said}"),
            says => assert!(said.contains(says), "{said}"),
        }
    }
}

#[test]
fn what_is_asked_of_the_bios_is_read_with_all_its_mistakes() {
    let head = "schema = 1\n[[profile]]\nname = \"p\"\nworkflow = \"gpu-node\"\nimage = \"i\"\n";
    let good = format!(
        "{head}boot_mode = \"uefi\"\nsecure_boot = \"on\"\n[[profile.bios]]\nmodel = \"PowerEdge R7*\"\n\
         bios = \">=1.2, <2.0\"\nattributes = {{ Sriov = \"On\", Cores = 0x10, Turbo = true }}\n\
         [[profile.bios]]\nmodel = \"SYS-821GE-TNHR\"\nattributes = {{ \"Q0 Mode\" = \"\" }}\n"
    );
    let (inventory, found) = config::inventory::parse(&[Source::new("i.toml", &good)]);
    assert_eq!(config::render(&found), "");
    let asked = &inventory.profiles["p"].bios;
    assert_eq!((asked.boot_mode.map(|m| m.name()), asked.secure_boot), (Some("uefi"), Some(true)));
    assert_eq!(asked.rules[0].bios.to_string(), ">=1.2, <2.0");
    assert_eq!(asked.rules[0].attributes["Cores"], 16);
    assert_eq!(asked.rules[0].attributes["Turbo"], true);
    assert_eq!(asked.rules[1].attributes["Q0 Mode"], "");

    let bad = format!(
        "{head}boot_mode = \"legacy\"\nsecure_boot = \"on\"\n\
         [[profile.bios]]\nmodel = \"*R7*\"\nbios = \">=2, <1\"\nattributes = {{ A = 1.5 }}\n\
         [[profile.bios]]\nbios = \"newest\"\n\
         [[profile.bios]]\nmodel = \"R\"\nattributes = {{}}\n\
         [[profile.bios]]\nmodel = \"R7*\"\nattributes = {{ A = \"1\", B = [] }}\n\
         [[profile.bios]]\nmodel = \"r7*\"\nattributes = {{ A = \"2\" }}\nversion = \"1\"\n"
    );
    let inventory = Source::new("inventory.toml", &bad);
    let (_, found) = config::inventory::parse(std::slice::from_ref(&inventory));
    insta::assert_snapshot!("bios_mistakes", config::render(&found));

    // Nothing would set it.
    let workflow = "schema = 1\nname = \"gpu-node\"\n[[step]]\nstage = \"discover\"\n\
                    key = \"identify\"\nkind = \"identify\"\n\
                    [[step]]\nstage = \"provision\"\nkey = \"i\"\nkind = \"provision\"\n";
    let sources = Sources {
        inventory: vec![Source::new("inventory.toml", &good)],
        workflows: vec![Source::new("gpu-node.toml", workflow)],
        ..shipped()
    };
    let found = match config::load(&sources, &in_catalog) {
        Ok(loaded) => loaded.warnings,
        Err(found) => found,
    };
    let report = config::render(&found);
    assert!(report.contains("has no step that sets the BIOS"), "{report}");
}

#[test]
fn mistakes_in_the_inventory() {
    let inventory = Source::new(
        "inventory.toml",
        r#"schema = 1
[[site]]
name = "fra 1"
[[site]]
name = "fra2"
[[site]]
name = "fra2"
[[rack]]
name = "r1"
site = "fra3"
power = 3
[[rack]]
name = "r2"
site = "fra2"
[[network]]
name = "bmc"
purpose = "oob"
subnet = "10.20.0.0"
[[network]]
name = "bmc"
purpose = "bmc"
subnet = "10.20.0.0/16"
[[network]]
name = "provision"
purpose = "provision"
subnet = "10.20.30.0/24"
[[profile]]
name = "h100"
workflow = "gpu-nod"
firmware_set = "2026.12"
cluster = "trainning"
gpus = "8"
[[profile]]
name = "old"
workflow = "cpu-node"
firmware_set = "2026.11"
image = "u"
[[pool]]
name = "train"
profile = "h200"
[[pool]]
name = "spare"
profile = "h100"
[[limit]]
class = "flash"
per = "rakc"
max = 4
[[limit]]
class = "power"
per = "rack"
max = 0
[[limit]]
class = "drain"
per = "pool"
max = 1
[[limit]]
class = "drain"
per = "pool"
max = 2
[defaults]
tls = "yes"
[[machine]]
name = "m1"
serial = "S1"
uuid = "33221100-5544-7766-8899-aabbccddeeff"
mac = "0c:42:a1:00:00:01"
rack = "r2"
pool = "train"
bmc = { url = "https://10.20.1.1", credential = "bmc-default" }
[[machine]]
name = "m1"
serial = "S1"
uuid = "00112233-4455-6677-8899-AABBCCDDEEFF"
mac = "0C-42-A1-00-00-01"
rack = "r3"
pool = "trian"
bmc = { url = "HTTPS://10.20.1.1", credential = "bmc-default" }
[[machine]]
name = "m3"
seriall = "S3"
serial = "To Be Filled By O.E.M."
rack = "r2"
pool = "train"
labels = { n = 3 }
bmc = { url = "https://10.20.1.1/", credential = "bmc-defualt" }
host = { address = "root@h", host_key = "abc" }
[[machine]]
name = "m4"
rack = "r2"
pool = "train"
position = 1.5
bmc = { url = "http://10.20.1.4" }
[machines]
"#,
    );
    insta::assert_snapshot!(
        "inventory_mistakes",
        report(&Sources { inventory: vec![inventory], ..shipped() })
    );
}

/// The example inventory with `more` below its machine `gpu-002`.
fn with_controllers(more: &str) -> Sources {
    let base = file("inventory.example.toml");
    let at = "host = { address = \"10.30.2.1\" }\n";
    assert_eq!(base.text.matches(at).count(), 1);
    let text = base.text.replace(at, &format!("{at}{more}"));
    Sources { inventory: vec![Source::new("inventory.toml", text)], ..shipped() }
}

#[test]
fn further_controllers_are_read_with_the_defaults_of_their_machine() {
    let loaded = load(&with_controllers(
        "[[machine.controller]]\nname = \"hgx\"\nkind = \"hgx\"\nurl = \"https://10.20.2.2/\"\n\
         serial = \"1575023002\"\n\
         [[machine.controller]]\nname = \"dpu0\"\nkind = \"dpu\"\nurl = \"https://10.20.2.3\"\n\
         credential = \"bmc-default\"\ntls = \"off\"\n",
    ))
    .unwrap_or_else(|report| panic!("{report}"));
    let all = &loaded.expected[1].bmc.controllers;
    let shown: Vec<_> = all
        .iter()
        .map(|c| (&*c.name, c.kind.name(), &*c.url, &*c.credential, &*c.tls, c.serial.as_deref()))
        .collect();
    assert_eq!(
        shown,
        [
            ("hgx", "hgx", "https://10.20.2.2", "bmc-default", "ca", Some("1575023002")),
            ("dpu0", "dpu", "https://10.20.2.3", "bmc-default", "off", None),
        ]
    );
    assert!(loaded.expected[0].bmc.controllers.is_empty());
    let warnings = config::render(&loaded.warnings);
    assert!(
        warnings.contains("1 controller without a serial: read, and never flashed"),
        "{warnings}"
    );
    assert!(warnings.contains("certificate is not checked on 1 machine"), "{warnings}");
}

#[test]
fn mistakes_in_further_controllers() {
    insta::assert_snapshot!(
        "controller_mistakes",
        report(&with_controllers(
            r#"[[machine.controller]]
name = "HGX"
kind = "hgx"
url = "https://10.20.2.10"
[[machine.controller]]
name = "bmc"
kind = "hgx"
url = "https://10.20.2.11"
[[machine.controller]]
name = "hgx"
kind = "gpu"
url = "10.20.2.12"
serial = "To Be Filled By O.E.M."
[[machine.controller]]
name = "dpu0"
kind = "dpu"
url = "https://10.20.2.13"
tls = "pin"
[[machine.controller]]
name = "dpu0"
kind = "dpu"
url = "https://10.20.2.1"
credential = "factory"
ipmi = "10.20.2.1"
[[machine.controller]]
name = "dpu1"
kind = "dpu"
url = "https://10.20.1.1"
credential = "nobody"
[[machine.controller]]
name = "dpu2"
"#
        ))
    );
}

#[test]
fn a_stage_has_an_sla_of_its_own_or_its_steps_timeouts() {
    use farrier::model::{Stage, time::Span};
    let own = |text: &str| {
        let mut sources = shipped();
        let file = &sources.workflows[0];
        let text = format!("{}\n[sla]\n{text}\n", file.text);
        sources.workflows[0] = Source::new(file.path.clone(), text);
        sources
    };
    let workflows = load(&own("firmware = \"6h\"")).unwrap().site.workflows;
    let gpu = workflows.values().find(|w| &*w.name == "gpu-node").unwrap();
    assert_eq!(gpu.sla(Stage::Firmware), Some(Span(6 * 3_600_000)));
    assert_eq!(gpu.sla(Stage::Discover), Some(Span(3_600_000)), "twice 30m");
    assert_eq!(gpu.sla(Stage::InService), None);
    let found = report(&own("firmware = \"0s\"\nready = \"1h\""));
    assert!(found.contains("`firmware` in `[sla]` must be longer than nothing"), "{found}");
    assert!(found.contains("unknown key `ready`"), "{found}");
}

#[test]
fn mistakes_in_workflows() {
    let workflow = Source::new(
        "workflows/gpu-node.toml",
        r#"schema = 1
name = "gpu-node"
[watch]
every = "0s"
[[step]]
stage = "discover"
key = "identify"
kind = "identfy"
[[step]]
stage = "ready"
key = "spare"
kind = "inventory"
[[step]]
stage = "burn-in"
key = "smoke"
kind = "burn-in"
timeout = "5m"
params = { preset = "smok", timeout = 30, min_gpu = 8, max_temp_c = "hot", colour = "red" }
[[step]]
stage = "join"
key = "smoke"
kind = "sanitize"
retry = { attempts = 0, base = "1h", cap = "1m" }
unsupported = "ignore"
when = { pool = ["train"], labels = { a = 1 } }
[[step]]
stage = "firmware"
key = "firmware"
kind = "firmware"
params = { set = "2026.11" }
[[step]]
stage = "retire"
key = "off"
kind = "power"
[[step]]
stage = "retire"
kind = "leave"
params = []
"#,
    );
    let order = Source::new(
        "workflows/order.toml",
        r#"schema = 1
name = "gpu-node"
[[step]]
stage = "retire"
key = "off"
kind = "power"
params = { state = "off" }
[[step]]
stage = "retire"
key = "wipe"
kind = "sanitize"
timeout = "1h"
[[step]]
stage = "discover"
key = "identify"
kind = "identify"
when = { pools = ["trian"] }
"#,
    );
    let empty = Source::new("workflows/empty.toml", "");
    let workflows = vec![workflow, order, empty];
    insta::assert_snapshot!("workflow_mistakes", report(&Sources { workflows, ..shipped() }));
}

#[test]
fn mistakes_in_the_catalog() {
    let catalog = Source::new(
        "firmware-catalog/acme/box.toml",
        r#"schema = 1
[match]
manufacturer = ["Acme", "^Acme (Inc$"]
[set."1"]
status = "aproved"
order = ["bmc"]
[set."2"]
status = "approved"
order = ["bmc", "bois", "bmc"]
requires_set = "3"
[set."3"]
status = "canary"
requires_set = "2"
order = ["bmc", "bios"]
[[firmware]]
id = "bmc-2"
set = "2"
component = "bmc"
inventory_id = '^BMC['
version = "2.0"
file = "../bmc.bin"
size = 0
sha256 = "abc"
activation = "ac-cycle"
[[firmware]]
id = "bmc-3"
set = ["3", "4"]
component = "bmc"
inventory_id = '^BMC$'
version = "3.0"
min_version = "3.1"
blocked_versions = ["3.0.0"]
via = ["bmc-4", "bmc-5"]
requires = [{ component = "bios", min = "9" }, { component = "cpld" }, { component = "bmc", min = "9" }]
file = "bmc-3.bin"
size = 12
sha256 = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
activation = "bmc-reset"
host_power = "off"
[[firmware]]
id = "bmc-4"
set = "3"
component = "bmc"
inventory_id = '^BMC$'
version = "v3.0"
version_regex = '^v(.*)$'
via = "bmc-3"
activation = "bmc-reset"
[[firmware]]
id = "bmc-4"
set = "3"
component = "bios"
inventory_id = '^BIOS$'
version = "2"
verion = "3"
file = "bios.bin"
size = 12
sha256 = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
activation = ["host-reset", "bmc-reset"]
"#,
    );
    let mut sources = shipped();
    sources.catalog.push(catalog);
    insta::assert_snapshot!("catalog_mistakes", report(&sources));
}

/// A syntax error is told, the other files are still checked, and nothing that may stand in the
/// broken file is called missing.
#[test]
fn a_syntax_error_does_not_hide_the_others() {
    let mut sources = shipped();
    sources.workflows[0].text.insert_str(0, "name = = \"x\"\n");
    sources.inventory[0].text = sources.inventory[0].text.replace("gpus = 8", "gpus = 8\nhpus = 8");
    sources.daemon.text.push_str("\n[[cluster]\n");
    insta::assert_snapshot!("syntax_error", report(&sources));
}

#[test]
fn an_empty_configuration_says_what_is_missing() {
    insta::assert_snapshot!("empty", report(&Sources::default()));
}

fn many(machines: usize) -> Source {
    let mut text = String::from(
        "schema = 1\n[[site]]\nname = \"s\"\n[[profile]]\nname = \"p\"\nworkflow = \"gpu-node\"\n\
         image = \"i\"\n[[pool]]\nname = \"train\"\nprofile = \"p\"\n\
         [[network]]\nname = \"bmc\"\npurpose = \"bmc\"\nsubnet = \"10.20.0.0/16\"\n\
         [[network]]\nname = \"provision\"\npurpose = \"provision\"\nsubnet = \"10.30.0.0/16\"\n\
         [defaults]\ncredential = \"bmc-default\"\n",
    );
    for rack in 0..machines.div_ceil(20) {
        text += &format!("[[rack]]\nname = \"r{rack}\"\nsite = \"s\"\npower = \"f{}\"\n", rack / 8);
    }
    for i in 0..machines {
        let (rack, slot, high, low) = (i / 20, i % 20, i / 250, i % 250);
        text += &format!(
            "\n[[machine]]\nname = \"gpu-{i:06}\"\nserial = \"S{i:08}\"\n\
             mac = \"0c:42:a1:{:02x}:{:02x}:{:02x}\"\nrack = \"r{rack}\"\nposition = {slot}\n\
             pool = \"train\"\nbmc = {{ url = \"https://10.{}.{}.{low}\" }}\n\
             host = {{ address = \"10.30.0.1:{i}\" }}\n",
            i >> 16,
            i >> 8 & 255,
            i & 255,
            high / 250 + 20,
            high % 250,
        );
    }
    Source::new("many.toml", text)
}

#[test]
fn ten_thousand_machines_share_their_names() {
    let source = many(10_000);
    let start = std::time::Instant::now();
    let (inventory, found) = config::inventory::parse(std::slice::from_ref(&source));
    println!("10,000 machines, {} KB: {:?}", source.text.len() / 1024, start.elapsed());
    assert_eq!(config::render(&found), "");
    assert_eq!(inventory.machines.len(), 10_000);
    let (a, b) = (&inventory.machines[20], &inventory.machines[39]);
    assert!(Arc::ptr_eq(&a.rack, &b.rack) && Arc::ptr_eq(&a.pool, &b.pool));
    assert!(a.domains.iter().zip(&*b.domains).all(|(a, b)| Arc::ptr_eq(&a.name, &b.name)));
    let loaded = load(&Sources { inventory: vec![source], ..shipped() });
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
}

/// Large files are read in pieces; that must not show.
#[test]
fn a_large_file_reads_like_a_small_one() {
    let mut large = many(3_000);
    // A header inside a string is no header, and `[defaults]` may stand anywhere.
    large.text = large.text.replacen("[defaults]\ncredential = \"bmc-default\"\n", "", 1);
    let fake = "labels = { note = \"\"\"\n[[machine]]\nname = 3\n\"\"\" }\n";
    large.text = large.text.replace("pool = \"train\"\n", &format!("pool = \"train\"\n{fake}"));
    large.text += "[defaults]\ncredential = \"bmc-default\"\n";
    let (inventory, found) = config::inventory::parse(std::slice::from_ref(&large));
    assert_eq!(config::render(&found), "");
    assert_eq!(inventory.machines.len(), 3_000);
    let notes = inventory.machines.iter().map(|m| (m.labels["note"].as_str(), &*m.bmc.credential));
    assert!(notes.into_iter().all(|n| n == ("[[machine]]\nname = 3\n", "bmc-default")));

    // Places count from the start of the file, in every piece.
    let mut bad = many(3_000);
    bad.text = bad.text.replace("S00002999", "S00000000");
    bad.text += "[defaults]\ntls = \"off\"\n[[rack]]\nname = \"r0\"\nsite = \"s\"\n";
    let (_, found) = config::inventory::parse(std::slice::from_ref(&bad));
    let lines: Vec<&str> = bad.text.lines().collect();
    let said: Vec<(&str, &str)> =
        found.iter().map(|d| (lines[d.line - 1], d.message.as_str())).collect();
    assert_eq!(
        said,
        [
            ("serial = \"S00000000\"", "two machines have the serial `S00000000`"),
            ("[defaults]", "`[defaults]` is there twice"),
            ("name = \"r0\"", "rack `r0` is there twice"),
        ]
    );
    assert!(found[0].line > 20_000);

    // A syntax error in the last piece is told once, at its line.
    let mut broken = many(3_000);
    broken.text += "name = \"twice\"\nx = = 1\n";
    let (_, found) = config::inventory::parse(std::slice::from_ref(&broken));
    let last = broken.text.lines().count();
    assert_eq!(found.iter().map(|d| d.line).collect::<Vec<_>>(), [last - 1, last]);
}

/// A file generated with one mistake has it in every machine; the report stays readable.
#[test]
fn a_flood_is_counted_not_printed() {
    let mut source = many(2_000);
    source.text = source.text.replace("position", "postion");
    let text = report(&Sources { inventory: vec![source], ..shipped() });
    assert!(text.ends_with("1900 more are not shown\n2000 errors\n"), "{}", &text[..500]);
    assert!(text.len() < 50_000);
}

/// Checks one text as every kind of file.
fn read_as_all(text: &str) {
    let source = Source::new("f.toml", text);
    let sources = Sources {
        daemon: source.clone(),
        inventory: vec![source.clone()],
        workflows: vec![source.clone()],
        remediation: Some(source.clone()),
        quirks: Some(source.clone()),
        catalog: vec![source.clone()],
        catalog_root: String::new(),
        recipes: vec![("x".into(), source)],
        templates: vec![Source::new("image/x/user-data.j2", text)],
        templates_root: String::new(),
    };
    for d in config::load(&sources, &|_| false).err().into_iter().flatten() {
        let lines = text.lines().count().max(1) + 1;
        assert!(d.line >= 1 && d.line <= lines, "{d}");
        assert!(d.span.end <= text.len());
    }
}

/// What TOML files are made of, right and wrong.
fn fragment() -> impl Strategy<Value = String> {
    let words = [
        "schema = 1\n",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        "\n",
        ",",
        "\"",
        "'",
        "\"\"\"",
        "#",
        "\\",
        "\\u{fffff}",
        "é",
        "\u{0}",
        "\u{1b}[31m",
        "machine",
        "step",
        "kind",
        "params",
        ".",
        "[[machine]]\n",
        "[[step]]\n",
        "kind = \"burn-in\"\n",
        "params = {}\n",
        "[match]\n",
        "url = \"https://a@b\"\n",
        "= -9223372036854775809\n",
        "1e999",
        "nan",
        "1979-05-27",
        "[set.\"1\"]\n",
        "[[firmware]]\n",
        "inventory_id = '^('\n",
        "0x",
        "timeout = \"\"\n",
        "password = \"x\"",
        "\r\n",
        "\u{feff}",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..40).prop_map(|w| w.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..Default::default() })]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        read_as_all(&text);
    }

    #[test]
    fn no_toml_like_text_makes_it_panic(text in fragment()) {
        read_as_all(&text);
    }

    /// The shipped files with pieces cut out, doubled or put elsewhere.
    #[test]
    fn no_damaged_file_makes_it_panic(
        which in 0usize..7,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), fragment(), 0u8..4), 1..4),
    ) {
        let mut sources = shipped();
        let damaged = match which {
            0 => &mut sources.daemon,
            1 => &mut sources.inventory[0],
            2 | 3 => &mut sources.workflows[which - 2],
            _ => &mut sources.catalog[which - 4],
        };
        for (a, b, piece, how) in cuts {
            let text: Vec<char> = damaged.text.chars().collect();
            if text.is_empty() {
                break;
            }
            let (a, b) = (a.index(text.len()), b.index(text.len()));
            let (from, to) = (a.min(b), a.max(b).min(a.min(b) + 60));
            let (head, middle, tail) = (&text[..from], &text[from..to], &text[to..]);
            let join = |parts: &[&[char]]| parts.concat().iter().collect::<String>();
            damaged.text = match how {
                0 => join(&[head, tail]),
                1 => join(&[head, middle, middle, tail]),
                2 => join(&[head, &piece.chars().collect::<Vec<_>>(), tail]),
                _ => join(&[middle, head, tail]),
            };
        }
        let text = damaged.text.clone();
        read_as_all(&text);
        let _ = config::load(&sources, &in_catalog);
    }
}
