//! `farrier render` and an operator's templates, as the program that ships shows them.
#![allow(clippy::disallowed_methods, reason = "tests touch the world")]

use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const DAEMON: &str = r#"
schema = 1
[listen.api]
bind = "127.0.0.1:7120"
[listen.boot]
bind = "10.30.0.2:7121"
advertise_url = "http://10.30.0.2:7121"
[listen.dhcp]
mode = "reservation"
interfaces = ["eth1"]
[ssh]
user = "root"
[[credential]]
name = "bmc"
user = "admin"
from = { file = "password" }
"#;

const INVENTORY: &str = r#"
schema = 1
[[site]]
name = "lab"
[[rack]]
name = "r1"
site = "lab"
[[network]]
name = "provision"
purpose = "provision"
subnet = "10.30.0.0/24"
gateway = "10.30.0.1"
range = "10.30.0.100-10.30.0.199"
dns = ["10.30.0.3"]
[[profile]]
name = "disk"
workflow = "cpu-node"
image = "debian-12"
root_disk = { kind = "nvme" }
authorized_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f ops"]
[[profile.nic]]
name = "lan0"
port = "boot"
network = "provision"
address = "static"
[[profile]]
name = "auto"
workflow = "cpu-node"
image = "ubuntu-24.04"
[[profile.nic]]
name = "lan0"
port = "boot"
network = "provision"
[[profile]]
name = "installed"
workflow = "cpu-node"
image = "debian-12-installer"
root_disk = { serial = "S4YPNE0N123" }
trust_installer = true
[[pool]]
name = "installs"
profile = "installed"
[[pool]]
name = "disks"
profile = "disk"
[[pool]]
name = "autos"
profile = "auto"
"#;

const INSTALLER: &str = r#"
schema = 1
kind = "installer"
installer = "debian-preseed"
[sha256]
[debian]
mirror = "http://mirror.example/debian"
suite = "bookworm"
kernel_package = "linux-image-amd64"
"#;

fn machine(name: &str, pool: &str, mac: u8, host: &str) -> String {
    format!(
        "[[machine]]\nname = \"{name}\"\nserial = \"S{mac}\"\nmac = \"0c:42:a1:00:00:{mac:02x}\"\nrack = \"r1\"\n\
         position = {mac}\npool = \"{pool}\"\nbmc = {{ url = \"https://10.20.0.{mac}\", credential = \"bmc\" }}\n{host}\n"
    )
}

/// A site's files in a directory.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let site = Site(tempfile::tempdir().unwrap());
        site.put("farrier.toml", DAEMON);
        let machines = [
            machine("n1", "disks", 1, "host = { address = \"10.30.0.11\" }"),
            machine("n2", "disks", 2, ""),
            machine("n3", "autos", 3, "host = { address = \"10.30.0.13\" }"),
        ];
        site.put("inventory.toml", &format!("{INVENTORY}{}", machines.concat()));
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows/cpu-node.toml");
        site.put("workflows/cpu-node.toml", &fs::read_to_string(shipped).unwrap());
        site.put("password", "secret");
        site
    }

    fn put(&self, file: &str, text: &str) {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Did it go well, and what was said.
    fn run(&self, words: &[&str]) -> (bool, String) {
        let program =
            std::env::var_os("FARRIER_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_farrier").into());
        let out = Command::new(program).args(words).current_dir(self.0.path()).output().unwrap();
        let said = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8(said).unwrap())
    }

    fn render(&self, machine: &str, file: &str) -> String {
        let (ok, said) = self.run(&["render", machine, file]);
        assert!(ok, "{machine} {file}: {said}");
        said
    }

    fn refused(&self, words: &[&str]) -> String {
        let (ok, said) = self.run(words);
        assert!(!ok, "{words:?}: {said}");
        said
    }
}

#[test]
fn a_machine_shows_what_it_would_be_handed() {
    let site = Site::new();
    let (ok, said) = site.run(&["check"]);
    assert!(ok, "{said}");
    assert_eq!(
        site.run(&["render", "n1"]).1,
        "ipxe\nseed.json\nmeta-data\ndeployed-user-data\nnetwork-config\n"
    );
    assert_eq!(
        site.run(&["render", "n3"]).1,
        "ipxe\nmeta-data\nuser-data\nnetwork-config\nseed.json\n"
    );
    for file in ["ipxe", "seed.json", "deployed-user-data", "network-config"] {
        insta::assert_snapshot!(
            format!("disk_{}", file.replace(['-', '.'], "_")),
            site.render("n1", file)
        );
    }
    assert!(site.render("n3", "user-data").contains("\"token\":\"FARRIER-TOKEN\""));
    let json: serde_json::Value =
        serde_json::from_str(&site.run(&["render", "n3", "ipxe", "--json"]).1).unwrap();
    assert!(json["text"].as_str().unwrap().starts_with("#!ipxe\n"), "{json}");
    let said = site.refused(&["render", "n4", "ipxe"]);
    assert!(said.contains("no machine `n4`") && said.contains("did you mean `n1`"), "{said}");
    let said = site.refused(&["render", "n1", "user-data"]);
    assert!(said.contains("`n1` is handed no `user-data`"), "{said}");
    assert!(said.contains("`deployed-user-data`"), "{said}");
}

#[test]
fn a_trusted_installers_files_are_shown() {
    let site = Site::new();
    let inventory = fs::read_to_string(site.0.path().join("inventory.toml")).unwrap();
    site.put("inventory.toml", &(inventory + &machine("n5", "installs", 5, "")));
    // Without a description it is not known what would be handed out.
    let said = site.refused(&["render", "n5"]);
    assert!(said.contains("debian-12-installer") && said.contains("hint:"), "{said}");
    site.put("images/debian-12-installer/image.toml", INSTALLER);
    assert_eq!(site.run(&["render", "n5"]).1, "ipxe\npreseed.cfg\ninstaller.sh\n");
    assert!(site.render("n5", "ipxe").contains("/preseed.cfg"));
    assert!(site.render("n5", "preseed.cfg").contains("mirror.example"));
    let script = site.render("n5", "installer.sh");
    assert!(script.contains("token='FARRIER-TOKEN'"), "{script}");
    assert!(script.contains("rule_serial='S4YPNE0N123'"), "{script}");
    assert!(script.contains("expect_serial='S5'"), "{script}");
}

#[test]
fn a_static_machine_without_an_address_has_its_lease() {
    let site = Site::new();
    let said = site.refused(&["render", "n2", "network-config"]);
    assert!(said.contains("`n2` needs an address") && said.contains("hint:"), "{said}");
    let line =
        r#"{"event":"given","lan":"provision","mac":"0c:42:a1:00:00:02","address":"10.30.0.117"}"#;
    site.put("state/dhcp-leases.jsonl", &format!("{line}\n"));
    assert!(site.render("n2", "network-config").contains("\"10.30.0.117/24\""));
    // Beside another DHCP server nobody has given it one.
    site.put("farrier.toml", &DAEMON.replace("reservation", "proxy"));
    let said = site.refused(&["check"]);
    assert!(said.contains("`n2` has no `host.address` in network `provision`"), "{said}");
    assert!(said.contains("inventory.toml:"), "{said}");
}

#[test]
fn a_template_stands_before_the_built_in_one() {
    let site = Site::new();
    site.put(
        "templates/image/ubuntu-24.04/user-data.j2",
        "#cloud-config\nautoinstall:\n  network: {{ network|tojson }}\n",
    );
    site.put("templates/image/debian-12/deployed-user-data.j2", "host: {{ name }} {{ private }}\n");
    let said = site.render("n3", "user-data");
    assert!(said.contains("\"lan0\"") && said.starts_with("#cloud-config\nautoinstall:"), "{said}");
    assert_eq!(site.render("n1", "deployed-user-data"), "host: n1 FARRIER-PRIVATE-HOST-KEY\n");
    site.put("templates/profile/disk/deployed-user-data.j2", "profile {{ profile }}\n");
    assert_eq!(site.render("n1", "deployed-user-data"), "profile disk\n");
    // Nothing in the files shows that this fails.
    site.put("templates/profile/disk/meta-data.j2", "a: 1\nb: {{ network.bonds.x }}\n");
    let said = site.refused(&["render", "n1", "meta-data"]);
    assert!(said.contains("templates/profile/disk/meta-data.j2:2: "), "{said}");
}

#[test]
fn flaws_of_templates_are_told_at_their_place() {
    let site = Site::new();
    site.put("templates/image/ubuntu-24.04/user-data.j2", "a\nb: {{ nmae }}\n");
    site.put("templates/image/ubuntu-24.04/user_data.j2", "");
    site.put("templates/image/ubuntu-24.04/meta-data.j2", "{% if name %}\n");
    site.put("templates/profile/disc/meta-data.j2", "");
    site.put("templates/meta-data.j2", "");
    site.put("templates/image/old/meta-data.j2", "");
    site.put("images/rocky-9/image.toml", "schema = 1\nkind = \"recipe\"\narguments = \"{{ token }} ${x}\"\nfiles = [\"ks.cfg\", \"../x\"]\n");
    insta::assert_snapshot!("flaws", site.refused(&["check"]));
}

/// The examples of the page, each in the file that stands above it.
fn examples() -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/installers.md");
    let page = fs::read_to_string(page).unwrap();
    let mut found = Vec::new();
    let mut rest = page.as_str();
    while let Some(at) = rest.find("`:\n\n```") {
        let file = rest[..at].rsplit('`').next().unwrap().to_string();
        let (_, body) = rest[at + 4..].split_once('\n').unwrap();
        let (text, after) = body.split_once("\n```\n").unwrap();
        found.push((file, format!("{text}\n")));
        rest = after;
    }
    found
}

#[test]
fn the_examples_of_the_page_check_and_render() {
    let site = Site::new();
    let examples = examples();
    assert_eq!(examples.len(), 5, "{examples:?}");
    let mut inventory = fs::read_to_string(site.0.path().join("inventory.toml")).unwrap();
    for (n, image) in (10..).zip(["rocky-9", "coreos", "talos"]) {
        inventory += &format!(
            "[[profile]]\nname = \"{image}\"\nworkflow = \"cpu-node\"\nimage = \"{image}\"\n[[pool]]\nname = \"{image}\"\nprofile = \"{image}\"\n"
        );
        inventory += &machine(image, image, n, "");
    }
    site.put("inventory.toml", &inventory);
    for (file, text) in &examples {
        site.put(file, text);
    }
    let (ok, said) = site.run(&["check"]);
    assert!(ok, "{said}");
    insta::assert_snapshot!("rocky_ipxe", site.render("rocky-9", "ipxe"));
    insta::assert_snapshot!("rocky_ks", site.render("rocky-9", "ks.cfg"));
    let ignition: serde_json::Value =
        serde_json::from_str(&site.render("coreos", "config.ign")).unwrap();
    let files = ignition["storage"]["files"].as_array().unwrap();
    assert_eq!(files[0]["contents"]["source"], "data:,coreos");
    let script = files[2]["contents"]["source"].as_str().unwrap();
    assert!(script.starts_with("data:,%23!") || script.starts_with("data:,%23%21"), "{script}");
    assert!(site.render("talos", "ipxe").contains("talos.platform=metal"));
}
