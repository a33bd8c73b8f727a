//! The daemon as DHCP and TFTP server, on a private wire with real clients and real neighbours:
//! `udhcpc`, `dnsmasq` as the site's server, as a stranger's and as a relay, `tftp` and `curl`.
//! Needs root: each test makes network namespaces and removes them.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // processes, sockets, a clock

mod lab;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use farrier::boot::BootServer;
use farrier::model::{MachineId, Outcome};
use farrier::port::{Boot, WindowOrder};
use lab::{Answer, Host, Lab, Lease, ask, gather, message, until};
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;
use tower::ServiceExt;

const N1: &str = "52:54:00:77:00:01";
const N2: &str = "52:54:00:77:00:02";
const STRANGER: &str = "52:54:00:77:00:99";
const BMC: &str = "52:54:00:77:00:b2";
const SERVER: &str = "52:54:00:77:00:f0";
/// What n1's `host.address` is.
const OWN: &str = "10.9.0.11";
const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

fn everybody() -> SocketAddr {
    (Ipv4Addr::BROADCAST, 67).into()
}

fn octets(mac: &str) -> [u8; 6] {
    let all: Vec<u8> = mac.split(':').map(|o| u8::from_str_radix(o, 16).unwrap()).collect();
    all.try_into().unwrap()
}

/// As firmware asks: this class, architecture, and what else.
fn pxe(mac: &str, kind: u8, class: &str, arch: u8, more: &[(u8, &[u8])]) -> Vec<u8> {
    let uuid = [&[0], &[0x42; 15][..], &[octets(mac)[5]]].concat();
    let arch = [0, arch];
    let mut options: Vec<(u8, &[u8])> = vec![
        (55, &[1, 3, 66, 67]),
        (60, class.as_bytes()),
        (93, &arch),
        (94, &[1, 3, 1]),
        (97, &uuid),
    ];
    options.extend(more);
    message(octets(mac), kind, &options)
}

/// Files of a daemon.
struct Site {
    dir: TempDir,
}

const LOADER: &[u8] = b"MZ-not-really-a-loader ";

impl Site {
    fn new(dhcp: &str, networks: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put(
            "farrier.toml",
            &format!(
                "schema = 1\n[paths]\nstate = \"state\"\n\
             [listen.boot]\nbind = \"0.0.0.0:7121\"\nadvertise_url = \"http://10.9.0.2:7121\"\n\
             [listen.dhcp]\n{dhcp}\n[listen.tftp]\nbind = \"10.9.0.2\"\n\
             [loaders]\npaths = [\"loaders\"]\n\
             [[credential]]\nname = \"bmc\"\nuser = \"u\"\nfrom = {{ env = \"NOBODY\" }}\n"
            ),
        );
        let machine = |n: u8, mac: &str, host: &str| {
            format!(
                "[[machine]]\nname = \"n{n}\"\nserial = \"S{n}\"\nmac = \"{mac}\"\nrack = \"r\"\npool = \"p\"\n\
             bmc = {{ url = \"http://127.0.0.{n}:9\", credential = \"bmc\" }}\n{host}\n"
            )
        };
        put(
            "inventory.toml",
            &format!(
                "schema = 1\n[[site]]\nname = \"s\"\n[[rack]]\nname = \"r\"\nsite = \"s\"\n\
             {networks}\n[[profile]]\nname = \"p\"\nworkflow = \"cpu-node\"\nimage = \"img\"\n\
             [[pool]]\nname = \"p\"\nprofile = \"p\"\n{}{}",
                machine(1, N1, &format!("host = {{ address = \"{OWN}\" }}")),
                machine(2, N2, ""),
            ),
        );
        for (name, text) in farrier::config::shipped::WORKFLOWS {
            put(&format!("workflows/{name}"), text);
        }
        fs::create_dir_all(dir.path().join("firmware-catalog")).unwrap();
        fs::create_dir_all(dir.path().join("images")).unwrap();
        for name in ["snponly.efi", "undionly.kpxe"] {
            let bytes = [LOADER, name.as_bytes()].concat().repeat(10_000);
            fs::create_dir_all(dir.path().join("loaders")).unwrap();
            fs::write(dir.path().join("loaders").join(name), bytes).unwrap();
        }
        fs::write(dir.path().join("loaders/secret"), "x").unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A run waits for n1, which has fetched something from its own address.
    fn wait_for_n1(&self) {
        let state = self.path("state");
        fs::create_dir_all(&state).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (inbox, _heard) = tokio::sync::mpsc::channel(8);
            let boot = BootServer::open(&state, farrier::boot::Settings::default(), inbox).unwrap();
            let order = WindowOrder {
                machine: MachineId(1),
                name: "n1".into(),
                run: "0badcafe-m1-1".into(),
                image: "img".into(),
                mac: Some(N1.into()),
                allow_existing_data: false,
                base_url: "http://10.9.0.2:7121".into(),
                keys: vec![],
                profile: "p".into(),
                network: None,
                install: None,
            };
            assert!(matches!(boot.open(&order).await, Outcome::Applied { .. }));
            let from: SocketAddr = format!("{OWN}:1").parse().unwrap();
            let mut fetch = Request::get(format!("/boot/{N1}/ipxe")).body(Body::empty()).unwrap();
            fetch.extensions_mut().insert(ConnectInfo(from));
            assert!(boot.router().oneshot(fetch).await.unwrap().status().is_success());
        });
    }

    /// Starts the daemon and waits until it answers.
    fn serve(&self, host: &mut Host) {
        let mut command = host.command(env!("CARGO_BIN_EXE_farrier"));
        command.args(["serve", "--config"]).arg(self.path("farrier.toml"));
        let log = self.path("daemon.log");
        host.start(&mut command, &log);
        until("the daemon serves", 60, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            assert!(host.runs(), "the daemon ended:\n{text}");
            text.contains("farrier serves").then_some(())
        });
        // The inventory is taken in while the API answers already.
        until("the machines are known", 30, || {
            let url = "http://127.0.0.1:7120/v1/machines";
            let out = host.command("curl").args(["-s", url]).output().unwrap();
            String::from_utf8_lossy(&out.stdout).contains("\"n2\"").then_some(())
        });
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    fn farrier(&self, host: &Host, words: &[&str]) -> Output {
        host.command(env!("CARGO_BIN_EXE_farrier")).args(words).output().unwrap()
    }

    /// What the doctor says, and whether it found nothing wrong.
    fn doctor(&self, host: &Host) -> (bool, String) {
        let config = self.path("farrier.toml");
        let words = ["doctor", "--wait", "2", "--config", config.to_str().unwrap()];
        let out = self.farrier(host, &words);
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

const NETWORK: &str = "[[network]]\nname = \"provision\"\npurpose = \"provision\"\nsubnet = \"10.9.0.0/24\"\n\
                       gateway = \"10.9.0.1\"\nrange = \"10.9.0.100-10.9.0.120\"\ndns = \"10.9.0.3\"\nmtu = 1400\n";
const RESERVATION: &str = "mode = \"reservation\"\ninterfaces = \"eth0\"\nunknown = \"list\"";
const PROXY: &str = "mode = \"proxy\"\ninterfaces = \"eth0\"";

/// Another DHCP server on the wire, dnsmasq with these lines.
fn dnsmasq(host: &mut Host, dir: &Path, lines: &str) {
    let config = dir.join(format!("{}.conf", host.ns));
    let common = format!(
        "port=0\nno-ping\ninterface=eth0\nbind-interfaces\nexcept-interface=lo\nuser=root\nkeep-in-foreground\n\
         log-facility=-\nlog-dhcp\ndhcp-leasefile={}\npid-file=\n",
        dir.join(format!("{}.leases", host.ns)).display()
    );
    fs::write(&config, format!("{common}{lines}\n")).unwrap();
    let log = dir.join(format!("{}.log", host.ns));
    let mut command = host.command("dnsmasq");
    command.arg(format!("--conf-file={}", config.display()));
    host.start(&mut command, &log);
    until("dnsmasq starts", 20, || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        assert!(host.runs(), "dnsmasq ended:\n{text}");
        text.contains("started").then_some(())
    });
}

fn lease(host: &Host, extra: &[&str]) -> Lease {
    host.udhcpc(extra).expect("a lease")
}

#[test]
fn a_machine_gets_its_own_address_another_one_of_the_range_and_a_stranger_none() {
    let mut lab = Lab::new();
    let mut server = lab.host(SERVER, "10.9.0.2/24");
    let (n1, n2) = (lab.host(N1, ""), lab.host(N2, ""));
    let stranger = lab.host(STRANGER, "");
    let site = Site::new(RESERVATION, NETWORK);
    site.serve(&mut server);

    let own = lease(&n1, &[]);
    assert_eq!(own.ip().to_string(), OWN);
    for (word, value) in [
        ("subnet", "255.255.255.0"),
        ("router", "10.9.0.1"),
        ("dns", "10.9.0.3"),
        ("serverid", "10.9.0.2"),
    ] {
        assert_eq!(own.word(word), value, "{word}: {own:?}");
    }
    assert_eq!(own.word("boot_file"), "", "no run waits for it");
    let first = lease(&n2, &[]).ip();
    assert!((100..=120).contains(&first.octets()[3]), "{first}");
    // A client identifier of another kind, or none: it is the same machine.
    assert_eq!(lease(&n2, &["-C"]).ip(), first);
    assert_eq!(lease(&n2, &["-C", "-x", "0x3d:ff001122"]).ip(), first);
    assert!(stranger.udhcpc(&[]).is_none(), "a stranger got an address");

    let seen = site.farrier(&server, &["discover", "seen"]);
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(seen.contains(STRANGER) && seen.contains("provision") && !seen.contains(N2), "{seen}");
    assert!(seen.contains("not in the inventory"), "{seen}");

    server.kill();
    site.serve(&mut server);
    assert_eq!(lease(&n2, &["-C"]).ip(), first, "also after kill -9");
    let status =
        server.command("curl").args(["-s", "http://127.0.0.1:7120/v1/dhcp"]).output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["leases"][0]["machine"], "n2", "{status}");
    assert_eq!(status["leases"][0]["address"], first.to_string());
}

/// A rack that arrives: one boot MAC is mistyped, one BMC is on a delivery note. Both are told, and
/// neither gets anything.
#[test]
fn who_arrives_is_compared_with_what_is_expected_and_gets_nothing_on_a_guess() {
    for mode in [RESERVATION.to_string(), format!("{PROXY}\nunknown = \"list\"")] {
        let mut lab = Lab::new();
        let mut server = lab.host(SERVER, "10.9.0.2/24");
        let (port, bmc) = (lab.host(STRANGER, "10.9.0.51/24"), lab.host(BMC, "10.9.0.52/24"));
        let site = Site::new(&mode, NETWORK);
        let change = |name: &str, from: &str, to: &str| {
            let text = fs::read_to_string(site.path(name)).unwrap();
            assert!(text.contains(from));
            fs::write(site.path(name), text.replace(from, to)).unwrap();
        };
        change("farrier.toml", "[listen.boot]", "[secrets]\nkey_file = \"key\"\n[listen.boot]");
        // As `pxe` says it for the stranger's card.
        let uuid = "serial = \"S1\"\nuuid = \"42424242-4242-4242-4242-424242424299\"";
        change("inventory.toml", "serial = \"S1\"", uuid);
        let note = format!("serial,bmc_mac,user,password\nS2,{BMC},admin,on-the-label-42\n");
        fs::write(site.path("note.csv"), note).unwrap();
        let (config, csv) = (site.path("farrier.toml"), site.path("note.csv"));
        let words = ["inventory", "import", "--config", config.to_str().unwrap(), "--csv"];
        let out = site.farrier(&server, &[&words[..], &[csv.to_str().unwrap()]].concat());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        site.wait_for_n1();
        site.serve(&mut server);

        let discover = pxe(STRANGER, DISCOVER, "PXEClient:Arch:00007:UNDI:003016", 7, &[]);
        assert!(
            ask(&port.socket(68), everybody(), &discover, 600).is_empty(),
            "n1 waits, and this MAC is not its"
        );
        let wants = message(octets(BMC), REQUEST, &[(50, &[10, 9, 0, 77])]);
        assert!(ask(&bmc.socket(68), everybody(), &wants, 600).is_empty());

        let seen = site.farrier(&server, &["discover", "seen"]);
        let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
        let line =
            |mac: &str| seen.lines().find(|l| l.contains(mac)).unwrap_or_else(|| panic!("{seen}"));
        let words = format!("n1 by its UUID; in the inventory it boots with {N1}");
        assert!(line(STRANGER).contains(&words), "{seen}");
        let words = "the BMC of n2 at 10.9.0.77 by its delivery note (serial S2); the inventory has http://127.0.0.2:9";
        assert!(line(BMC).contains(words), "{seen}");
        let status =
            server.command("curl").args(["-s", "http://127.0.0.1:7120/v1/dhcp"]).output().unwrap();
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        let mut said: Vec<_> = status["strangers"].as_array().unwrap().iter().collect();
        said.sort_by_key(|s| s["machine"].as_str().unwrap_or_default());
        let said: Vec<_> = said.iter().map(|s| (&s["machine"], &s["kind"])).collect();
        assert_eq!(said[0], (&"n1".into(), &"other-mac".into()), "{status}");
        assert_eq!(said[1], (&"n2".into(), &"bmc".into()), "{status}");
    }
}

#[test]
fn firmware_is_told_what_to_boot_while_a_run_waits() {
    let mut lab = Lab::new();
    let mut server = lab.host(SERVER, "10.9.0.2/24");
    let (n1, n2) = (lab.host(N1, &format!("{OWN}/24")), lab.host(N2, "10.9.0.12/24"));
    let site = Site::new(RESERVATION, NETWORK);
    site.wait_for_n1();
    site.serve(&mut server);

    let socket = n1.socket(68);
    let boots = |class: &str, arch: u8, more: &[(u8, &[u8])]| {
        let heard = ask(&socket, everybody(), &pxe(N1, DISCOVER, class, arch, more), 600);
        assert_eq!(heard.len(), 1, "{class}: one server, one offer");
        Answer::of(&heard[0].1)
    };
    let uefi = boots("PXEClient:Arch:00007:UNDI:003001", 7, &[]);
    assert_eq!((uefi.yiaddr.to_string().as_str(), uefi.file.as_str()), (OWN, "snponly.efi"));
    assert_eq!(uefi.siaddr.to_string(), "10.9.0.2");
    assert_eq!(boots("PXEClient:Arch:00000:UNDI:002001", 0, &[]).file, "undionly.kpxe");
    let http = boots("HTTPClient:Arch:00016:UNDI:003001", 16, &[]);
    assert_eq!(http.file, "http://10.9.0.2:7121/loader/snponly.efi");
    assert_eq!(http.option(60), Some(&b"HTTPClient"[..]));
    let ipxe = boots("PXEClient:Arch:00007:UNDI:003010", 7, &[(77, b"iPXE")]);
    assert_eq!(ipxe.file, format!("http://10.9.0.2:7121/boot/{N1}/ipxe"));
    drop(socket);
    // Nobody waits for n2: an address, nothing to boot.
    let socket = n2.socket(68);
    let class = "PXEClient:Arch:00007:UNDI:003001";
    let heard = ask(&socket, everybody(), &pxe(N2, DISCOVER, class, 7, &[]), 600);
    let other = Answer::of(&heard[0].1);
    assert!(!other.yiaddr.is_unspecified() && other.file.is_empty(), "{other:?}");
    drop(socket);

    // The ways to the loader.
    let loader = fs::read(site.path("loaders/snponly.efi")).unwrap();
    let got = site.path("got");
    let fetch = |host: &Host, program: &str, words: &[&str]| {
        fs::remove_file(&got).ok();
        let out = host.command(program).args(words).output().unwrap();
        (out.status.success(), fs::read(&got).unwrap_or_default())
    };
    let at = got.to_str().unwrap();
    let tftp = |blocks: &'static str| {
        ["tftp", "-g", "-r", "snponly.efi", "-l", at, "-b", blocks, "10.9.0.2"]
    };
    for blocks in ["512", "1468", "8192"] {
        let (ok, bytes) = fetch(&n1, "busybox", &tftp(blocks));
        assert!(ok && bytes == loader, "tftp with blocks of {blocks}: {} bytes", bytes.len());
    }
    let (ok, bytes) = fetch(&n1, "curl", &["-s", "-o", at, "tftp://10.9.0.2/snponly.efi"]);
    assert!(ok && bytes == loader, "curl over TFTP");
    for path in
        ["secret", "../inventory.toml", "loaders/secret", "%2e%2e/farrier.toml", "etc/passwd"]
    {
        let url = format!("tftp://10.9.0.2/{path}");
        let (ok, bytes) = fetch(&n1, "curl", &["-s", "-o", at, "--path-as-is", &url]);
        assert!(!ok && bytes.is_empty(), "{path} was served: {} bytes", bytes.len());
    }
    let url = "http://10.9.0.2:7121/loader/snponly.efi";
    let (ok, bytes) = fetch(&n1, "curl", &["-sf", "-o", at, url]);
    assert!(ok && bytes == loader, "UEFI HTTP boot");
    let head = n1.command("curl").args(["-sfI", "-0", url]).output().unwrap();
    let head = String::from_utf8_lossy(&head.stdout).to_lowercase();
    assert!(head.contains(&format!("content-length: {}", loader.len())), "HEAD, HTTP/1.0: {head}");
    assert!(head.contains("etag:") && head.contains("accept-ranges: bytes"), "{head}");
    let part = n1.command("curl").args(["-sf", "-r", "2-9", url]).output().unwrap();
    assert_eq!(part.stdout, loader[2..10]);
    for path in ["secret", "..%2finventory.toml", "%2e%2e/inventory.toml"] {
        let url = format!("http://10.9.0.2:7121/loader/{path}");
        assert!(!fetch(&n1, "curl", &["-sf", "-o", at, "--path-as-is", &url]).0, "{path}");
    }
    // The script, from the machine's own address alone.
    let script = format!("http://10.9.0.2:7121/boot/{N1}/ipxe");
    let (ok, bytes) = fetch(&n1, "curl", &["-sf", "-o", at, &script]);
    assert!(ok && bytes.starts_with(b"#!ipxe"), "its own script");
    assert!(!fetch(&n2, "curl", &["-sf", "-o", at, &script]).0, "another machine got the script");
    // n2 has an address of the range; a loader is not for it now.
    let ip = lease(&n2, &[]).ip();
    lab::run("ip", &["-n", &n2.ns, "addr", "flush", "dev", "eth0"]);
    lab::run("ip", &["-n", &n2.ns, "addr", "add", &format!("{ip}/24"), "dev", "eth0"]);
    assert!(
        !fetch(&n2, "curl", &["-s", "-o", at, "tftp://10.9.0.2/snponly.efi"]).0,
        "no run waits for n2"
    );
    assert!(site.log().contains("told what to boot"), "{}", site.log());
}

#[test]
fn a_proxy_stands_beside_the_sites_own_server() {
    let mut lab = Lab::new();
    let mut server = lab.host(SERVER, "10.9.0.2/24");
    let mut theirs = lab.host("52:54:00:77:00:f1", "10.9.0.3/24");
    let (n1, n2) = (lab.host(N1, ""), lab.host(N2, ""));
    let site = Site::new(PROXY, NETWORK);
    site.wait_for_n1();
    site.serve(&mut server);
    dnsmasq(&mut theirs, site.dir.path(), "dhcp-range=10.9.0.50,10.9.0.60,255.255.255.0,1h");

    // A system that only wants an address hears of one server.
    let plain = lease(&n1, &[]);
    assert_eq!((plain.word("serverid"), plain.word("boot_file")), ("10.9.0.3", ""));
    // Firmware hears both: an address from them, what to boot from us.
    let socket = n1.socket(68);
    let class = "PXEClient:Arch:00007:UNDI:003001";
    let heard = ask(&socket, everybody(), &pxe(N1, DISCOVER, class, 7, &[]), 4000);
    let mut offers: Vec<Answer> = heard.iter().map(|(_, bytes)| Answer::of(bytes)).collect();
    offers.sort_by_key(Answer::server);
    assert_eq!(offers.iter().map(Answer::server).collect::<Vec<_>>(), ["10.9.0.2", "10.9.0.3"]);
    assert!(offers[0].yiaddr.is_unspecified(), "a proxy gives no address");
    assert_eq!(
        (offers[0].file.as_str(), offers[0].option(60)),
        ("snponly.efi", Some(&b"PXEClient"[..]))
    );
    assert!(!offers[1].yiaddr.is_unspecified() && offers[1].file.is_empty(), "{:?}", offers[1]);
    drop(socket);
    // It has its address by then, and asks again at the boot port.
    let ip = plain.ip();
    lab::run("ip", &["-n", &n1.ns, "addr", "add", &format!("{ip}/24"), "dev", "eth0"]);
    let socket = n1.socket(68);
    let mut again = pxe(N1, REQUEST, class, 7, &[]);
    again[12..16].copy_from_slice(&ip.octets());
    let heard = ask(&socket, "10.9.0.2:4011".parse().unwrap(), &again, 800);
    assert_eq!(heard.len(), 1, "the boot port");
    let ack = Answer::of(&heard[0].1);
    assert_eq!((ack.option(53), ack.file.as_str()), (Some(&[5_u8][..]), "snponly.efi"));
    drop(socket);
    // Nobody waits for n2.
    let socket = n2.socket(68);
    let heard = ask(&socket, everybody(), &pxe(N2, DISCOVER, class, 7, &[]), 1000);
    let servers: Vec<String> = heard.iter().map(|(_, b)| Answer::of(b).server()).collect();
    assert!(!servers.contains(&"10.9.0.2".to_string()), "{servers:?}");
    drop(socket);

    let (_, said) = site.doctor(&server);
    assert!(said.contains("ok    dhcp eth0: 10.9.0.3 gives addresses"), "{said}");
    assert!(said.contains("port 67/udp: served by `farrier`"), "{said}");
    assert!(
        said.contains("ok    url: http://10.9.0.2:7121: answers, and has `snponly.efi`"),
        "{said}"
    );
    theirs.kill();
    let (ok, said) = site.doctor(&server);
    assert!(!ok && said.contains("FAIL  dhcp eth0: nobody gives addresses here"), "{said}");
}

#[test]
fn machines_behind_a_relay_are_served_from_their_own_network() {
    let (mut near, mut far) = (Lab::new(), Lab::new());
    let mut server = near.host(SERVER, "10.9.0.2/24");
    let mut relay = near.host("52:54:00:77:00:f2", "10.9.0.4/24");
    far.join(&relay, "far0", "52:54:00:77:00:f3", "10.8.0.1/24");
    let (n1, n2) = (far.host(N1, ""), far.host(N2, ""));
    lab::run("ip", &["-n", &server.ns, "route", "add", "10.8.0.0/24", "via", "10.9.0.4"]);
    let site = Site::new(
        RESERVATION,
        &format!(
            "{NETWORK}\n[[network]]\nname = \"far\"\npurpose = \"provision\"\nsubnet = \"10.8.0.0/24\"\n\
             gateway = \"10.8.0.1\"\nrange = \"10.8.0.30-10.8.0.40\"\n"
        ),
    );
    site.serve(&mut server);
    dnsmasq(&mut relay, site.dir.path(), "interface=far0\ndhcp-relay=10.8.0.1,10.9.0.2");
    let two = lease(&n2, &[]);
    assert!(two.ip().to_string().starts_with("10.8.0."), "{two:?}");
    assert_eq!((two.word("router"), two.word("serverid")), ("10.8.0.1", "10.9.0.2"));
    // Its own address is in the other network: here it gets one of the range.
    let one = lease(&n1, &[]);
    assert!(one.ip().to_string().starts_with("10.8.0.") && one.ip() != two.ip(), "{one:?}");
}

#[test]
fn a_client_that_knows_a_wrong_address_is_told_so_and_one_that_is_declined_rests() {
    let mut lab = Lab::new();
    let mut server = lab.host(SERVER, "10.9.0.2/24");
    let n2 = lab.host(N2, "");
    let site = Site::new(RESERVATION, NETWORK);
    site.serve(&mut server);
    let first = lease(&n2, &[]).ip();
    let socket = n2.socket(68);
    let said = |kind: u8, wants: Ipv4Addr| {
        let heard =
            ask(&socket, everybody(), &message(octets(N2), kind, &[(50, &wants.octets())]), 500);
        heard.iter().map(|(_, b)| Answer::of(b).option(53).unwrap()[0]).collect::<Vec<_>>()
    };
    assert_eq!(said(REQUEST, first), [5], "its own: ACK");
    assert_eq!(said(REQUEST, Ipv4Addr::new(10, 9, 0, 77)), [6], "not its own: NAK");
    assert_eq!(said(4, first), [0_u8; 0], "a DECLINE has no answer");
    let heard = ask(&socket, everybody(), &message(octets(N2), DISCOVER, &[]), 500);
    let next = Answer::of(&heard[0].1).yiaddr;
    assert_ne!(next, first);
    server.kill();
    site.serve(&mut server);
    let heard = ask(&socket, everybody(), &message(octets(N2), DISCOVER, &[]), 500);
    assert_eq!(Answer::of(&heard[0].1).yiaddr, next, "also after kill -9");
    // Rubbish on the port costs nothing.
    for rubbish in [&[0_u8; 3][..], &[0xff; 1400], &message(octets(N2), DISCOVER, &[])[..242]] {
        socket.send_to(rubbish, everybody()).unwrap();
    }
    assert!(gather(&socket, 300).is_empty());
    let heard = ask(&socket, everybody(), &message(octets(N2), DISCOVER, &[]), 500);
    assert_eq!(heard.len(), 1, "it answers on");
}

#[test]
fn the_doctor_finds_a_second_server_a_taken_port_and_a_wrong_loader() {
    let mut lab = Lab::new();
    let mut server = lab.host(SERVER, "10.9.0.2/24");
    let mut rogue = lab.host("52:54:00:77:00:f1", "10.9.0.66/24");
    let site = Site::new(RESERVATION, NETWORK);
    let (ok, said) = site.doctor(&server);
    assert!(!ok && said.contains("no other DHCP server answers"), "{said}");
    assert!(said.contains("port 67/udp: free"), "{said}");
    assert!(said.contains("FAIL  url: http://10.9.0.2:7121: no connection"), "{said}");
    assert!(said.contains("FAIL  loader x64") && said.contains("is no UEFI program"), "{said}");
    let evil =
        "dhcp-range=10.9.0.200,10.9.0.210,255.255.255.0,1h\ndhcp-boot=evil.efi,evil,10.9.0.66";
    dnsmasq(&mut rogue, site.dir.path(), evil);
    let (ok, said) = site.doctor(&server);
    let line = "FAIL  dhcp eth0: 10.9.0.66 gives addresses and says to boot `evil.efi`";
    assert!(!ok && said.contains(line), "{said}");
    // The port is another program's.
    dnsmasq(&mut server, site.dir.path(), "dhcp-range=10.9.0.220,10.9.0.221,255.255.255.0,1h");
    let (_, said) = site.doctor(&server);
    assert!(said.contains("FAIL  port 67/udp: taken by `dnsmasq` (pid "), "{said}");
    let config = site.path("farrier.toml");
    let out = site.farrier(&server, &["serve", "--config", config.to_str().unwrap()]);
    let trouble = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success(), "it serves beside another server: {trouble}");
    let words = "can't answer DHCP on interface `eth0`, port 67";
    assert!(
        trouble.contains(words) && trouble.contains("`farrier doctor` says which"),
        "{trouble}"
    );
}

#[test]
fn without_the_right_the_error_names_it() {
    let mut lab = Lab::new();
    let server = lab.host(SERVER, "10.9.0.2/24");
    let site = Site::new(RESERVATION, NETWORK);
    lab::run("chmod", &["-R", "a+rwX", site.dir.path().to_str().unwrap()]);
    let out = server
        .command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(env!("CARGO_BIN_EXE_farrier"))
        .args(["serve", "--config"])
        .arg(site.path("farrier.toml"))
        .output()
        .unwrap();
    let trouble = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success(), "{trouble}");
    assert!(trouble.contains("CAP_NET_BIND_SERVICE") && trouble.contains("hint:"), "{trouble}");
}
