//! Debian's installer as the boot edge hands it out: what is rendered, who may have it, and its script run
//! by `sh` over disks that are plain files, with a callback over real HTTP.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // sockets, files and programs

use farrier::boot::{BootServer, Settings};
use farrier::model::deploy::{DiskKind, RootDisk};
use farrier::model::facts::Callback;
use farrier::model::{Identity, MachineId, Outcome};
use farrier::port::{Boot, InstallOrder, WindowOrder};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tokio::net::TcpListener;

const MAC: &str = "aa:bb:cc:dd:ee:01";
const RUN: &str = "0badcafe-m1-7";
const UUID: &str = "7e57ab1e-0000-4000-8000-000000000001";
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
const MIB: u64 = 1 << 20;

const ABOUT: &str = r#"
schema = 1
kind = "installer"
installer = "debian-preseed"
kernel_arguments = "console=ttyS0"
[sha256]
[debian]
mirror = "http://mirror.example:8080/debian"
suite = "bookworm"
kernel_package = "linux-image-amd64"
"#;

struct Site {
    dir: tempfile::TempDir,
    boot: BootServer,
    base: String,
}

impl Site {
    async fn new(about: &str, user: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("images/debian");
        fs::create_dir_all(&image).unwrap();
        fs::write(image.join("vmlinuz"), "kernel").unwrap();
        fs::write(image.join("image.toml"), about).unwrap();
        let settings = Settings {
            images: Some(dir.path().join("images")),
            ssh_keys: vec![KEY.into()],
            user: user.into(),
            ..Settings::default()
        };
        let (inbox, _) = tokio::sync::mpsc::channel(64);
        let boot = BootServer::open(&dir.path().join("state"), settings, inbox).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let service = boot.router().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { dir, boot, base }
    }

    async fn open(&self, order: WindowOrder) -> Outcome {
        self.boot.open(&WindowOrder { base_url: self.base.clone(), ..order }).await
    }

    async fn get(&self, file: &str) -> (u16, String) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.get(format!("{}/boot/{MAC}/{file}", self.base)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn ok(&self, file: &str) -> String {
        let (status, text) = self.get(file).await;
        assert_eq!(status, 200, "{file}: {text}");
        text
    }

    async fn said(&self) -> Option<Callback> {
        self.boot.window(MachineId(1), RUN).await.unwrap().callback
    }
}

fn order() -> WindowOrder {
    WindowOrder {
        machine: MachineId(1),
        name: "n1".into(),
        run: RUN.into(),
        image: "debian".into(),
        mac: Some(MAC.into()),
        allow_existing_data: false,
        base_url: String::new(),
        keys: vec![],
        profile: "p".into(),
        network: None,
        install: Some(InstallOrder {
            identity: Identity::new(Some("SER 1"), Some(UUID), None),
            root: RootDisk {
                model: Some("test disk".into()),
                kind: Some(DiskKind::Virtio),
                ..RootDisk::default()
            },
            authorized_keys: vec!["ssh-ed25519 AAAA it's a person".into()],
        }),
    }
}

fn code(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed { fault } => fault.code.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_rendered_files() {
    let site = Site::new(ABOUT, "root").await;
    let outcome = site.open(order()).await;
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
    let plain = |text: String| text.replace(&site.base, "http://boot");
    insta::assert_snapshot!("ipxe", plain(site.ok("ipxe").await));
    insta::assert_snapshot!("preseed", plain(site.ok("preseed.cfg").await));
    let script = site.ok("installer.sh").await;
    assert!(
        script.contains("\nexpect_serial='SER 1'\n") && script.contains("\nrule_kind='virtio'\n")
    );
    assert!(script.contains(r"it'\''s a person'"), "a quote in a key ends no word");
    let token = script.split("\ntoken='").nth(1).unwrap().split('\'').next().unwrap();
    for file in ["ipxe", "preseed.cfg"] {
        assert!(!site.ok(file).await.contains(token), "{file} holds the token");
    }
    assert_eq!(site.get("user-data").await.0, 404);
}

#[tokio::test]
async fn an_installer_is_handed_out_only_where_the_profile_trusts_it() {
    let site = Site::new(ABOUT, "root").await;
    let untrusted = WindowOrder { install: None, ..order() };
    assert_eq!(code(&site.open(untrusted).await), "installer-not-trusted");
    assert_eq!(site.get("ipxe").await.0, 404, "a refused window answers nobody");
    let nobody = Site::new(ABOUT, "admin").await;
    assert_eq!(code(&nobody.open(order()).await), "installer-setup");
    let autoinstall = "schema = 1\nkind = \"installer\"\ninstaller = \"autoinstall\"\n[sha256]\n";
    let other = Site::new(autoinstall, "root").await;
    assert_eq!(code(&other.open(order()).await), "installer-without-rule");
    let outcome = other.open(WindowOrder { install: None, ..order() }).await;
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
    assert_eq!(other.get("installer.sh").await.0, 404);
    let disk = Site::new("schema = 1\nkind = \"disk\"\nfile = \"x\"\n", "root").await;
    assert_eq!(code(&disk.open(order()).await), "not-an-installer");
    let bad = ABOUT.replace("console=ttyS0", "x ${net0/ip}");
    assert_eq!(code(&Site::new(&bad, "root").await.open(order()).await), "not-an-installer");
}

/// What the script runs over: DMI, disks, and an `nc` with the one option that it uses.
struct Host(PathBuf);

impl Host {
    fn new(dir: &Path, disks: &[&str]) -> Self {
        let host = Self(dir.join("host"));
        fs::remove_dir_all(&host.0).ok();
        for sub in ["tmp", "bin", "dev/disk", "sys/class/dmi/id", "target/etc/ssh"] {
            fs::create_dir_all(host.0.join(sub)).unwrap();
        }
        host.write("sys/class/dmi/id/product_uuid", UUID);
        host.write("sys/class/dmi/id/product_serial", "SER 1");
        host.write("target/etc/ssh/ssh_host_ed25519_key.pub", &format!("{KEY} root@n1\n"));
        host.write("bin/nc", "#!/bin/bash\nexec 3<>\"/dev/tcp/$3/$4\" && exec \"$6\" <&3 >&3\n");
        fs::set_permissions(host.0.join("bin/nc"), fs::Permissions::from_mode(0o755)).unwrap();
        for disk in disks {
            let file = fs::File::create(host.0.join("dev/disk").join(disk)).unwrap();
            file.set_len(8 * MIB).unwrap();
        }
        host
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap();
    }

    async fn run(&self, script: &str, word: &str) -> Output {
        self.write("script", script);
        let mut command = Command::new("sh");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.0.join("bin").display());
        command.arg(self.0.join("script")).arg(word).env("PATH", path).env("FARRIER_ROOT", &self.0);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    fn answers(&self) -> Option<String> {
        fs::read_to_string(self.0.join("tmp/farrier.answers")).ok()
    }
}

/// A window, and its script as a host fetched it.
async fn script(order: WindowOrder) -> (Site, String) {
    let site = Site::new(ABOUT, "root").await;
    let outcome = site.open(order).await;
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
    let script = site.ok("installer.sh").await;
    (site, script)
}

#[tokio::test]
async fn a_blank_disk_is_taken_and_the_end_is_called_back() {
    let (site, script) = script(order()).await;
    let host = Host::new(site.dir.path(), &["vda"]);
    let out = host.run(&script, "disk").await;
    assert!(out.status.success(), "{out:?}");
    let answers = host.answers().unwrap();
    let disk = host.0.join("dev/disk/vda").display().to_string();
    for line in [
        format!("d-i partman-auto/disk string {disk}"),
        format!("d-i grub-installer/bootdev string {disk}"),
        "d-i partman/confirm boolean true".to_string(),
    ] {
        assert!(answers.lines().any(|l| l == line), "{line}: {answers}");
    }
    assert_eq!(site.said().await, None, "nothing is said before the end");
    // Cut off and begun again: the disk is ours by then.
    let file = fs::File::options().write(true).open(&disk).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"half a system", 4096).unwrap();
    assert!(host.run(&script, "disk").await.status.success());

    let out = host.run(&script, "finish").await;
    assert!(out.status.success(), "{out:?}");
    let said = site.said().await.unwrap();
    assert_eq!((said.ok, said.host_key.as_deref()), (true, Some(KEY)));
    let mark = fs::read_to_string(host.0.join("target/etc/farrier/image")).unwrap();
    assert_eq!(mark, format!("image=debian\nrun={RUN}\n"));
    let keys = fs::read_to_string(host.0.join("target/root/.ssh/authorized_keys")).unwrap();
    assert_eq!(keys, format!("{KEY}\nssh-ed25519 AAAA it's a person\n"));
    assert!(!host.0.join("tmp/farrier").exists(), "the file with the token is gone");
    assert_eq!(site.get("ipxe").await.0, 404, "installed: the next boot is from the disk");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_anything_is_written() {
    let other = |change: fn(&mut InstallOrder)| {
        let mut order = order();
        change(order.install.as_mut().unwrap());
        order
    };
    let none = other(|i| i.root.serial = Some("OTHER".into()));
    let wrong = other(|i| i.identity = Identity::new(Some("SER 2"), Some(UUID), None));
    for (order, disks, data, code) in [
        (none, vec!["vda"], false, "no-root-disk"),
        (order(), vec![], false, "no-root-disk"),
        (order(), vec!["vda", "vdb"], false, "several-root-disks"),
        (wrong, vec!["vda"], false, "wrong-machine"),
        (order(), vec!["vda"], true, "holds-data"),
    ] {
        let (site, script) = script(order).await;
        let host = Host::new(site.dir.path(), &disks);
        if data {
            let file = fs::File::options().write(true).open(host.0.join("dev/disk/vda")).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"x", 8 * MIB - 1).unwrap();
        }
        let before: Vec<_> =
            disks.iter().map(|d| fs::read(host.0.join("dev/disk").join(d))).collect();
        let out = host.run(&script, "disk").await;
        assert_eq!(out.status.code(), Some(4), "{code}: {out:?}");
        let said = site.said().await.unwrap();
        assert_eq!((said.ok, said.code.as_deref()), (false, Some(code)), "{said:?}");
        assert_eq!(host.answers(), None, "{code}: the installer has no leave to write");
        for (disk, before) in disks.iter().zip(before) {
            let now = fs::read(host.0.join("dev/disk").join(disk)).unwrap();
            assert!(before.unwrap() == now, "{code}: {disk} was written to");
        }
    }
}

#[tokio::test]
async fn a_disk_with_data_is_overwritten_where_that_was_allowed() {
    let (site, script) = script(WindowOrder { allow_existing_data: true, ..order() }).await;
    let host = Host::new(site.dir.path(), &["vda"]);
    let file = fs::File::options().write(true).open(host.0.join("dev/disk/vda")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).unwrap();
    let out = host.run(&script, "disk").await;
    assert!(out.status.success() && host.answers().is_some(), "{out:?}");
}
