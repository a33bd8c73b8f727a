//! A scan of BMC networks on loopback: virtual BMCs, servers that are something else, one that
//! redirects, silence; what is found beside the inventory; and that no credential goes to anybody
//! who has not shown to be the machine.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real sockets, and a clock to compare the pace with"
)]

use farrier::app::discover::{self, Ask, End, Report};
use farrier::model::{Identity, MachineId};
use farrier::scan::reconcile::Kind;
use farrier::scan::{self, Range, Settings};
use farrier::sim::durations::Durations;
use farrier::sim::faults::Dice;
use farrier::sim::physics::Quirks;
use farrier::sim::serve::{self, Berth, Hosts, Latency, Serving, World};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

const PASSWORD: &str = "a-password";
const MACHINES: u32 = 8;
/// Beside the virtual BMCs, which begin at 127.77.0.1.
const REDIRECTS: &str = "127.77.0.40";
const WEB: &str = "127.77.0.41";
const SECURE: &str = "127.77.0.42";
const IPMI_ONLY: &str = "127.77.0.43";
const REFUSES: &str = "127.77.0.44";
const SECURE_UUID: &str = "5ec0ffee-1111-4222-8333-444455556666";

fn identity(n: u32) -> Identity {
    Identity::new(
        Some(&format!("SN{n:05}")),
        Some(&format!("f0a1{n:04x}-1111-4222-8333-444455556666")),
        Some(&format!("02:fa:00:00:{:02x}:{:02x}", n >> 8, n & 255)),
    )
}

async fn world(dir: &std::path::Path) -> Serving {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&[7; 32]));
    let key = PrivateKey::new(pair, "test").unwrap().public_key().to_openssh().unwrap();
    let machines = (1..=MACHINES).map(|n| Berth {
        id: MachineId(n),
        name: format!("n{n}").as_str().into(),
        identity: identity(n),
        gpus: 0,
        quirks: Quirks::default(),
        sick: None,
        user: "admin".into(),
        password: PASSWORD.into(),
        dice: Dice::none(),
    });
    let settings = serve::Settings {
        dir: dir.to_path_buf(),
        seed: 1,
        scale: 1,
        durations: Durations::default(),
        latency: Latency::Even(0, 2),
        hosts: Hosts::Scripted,
        authorized_key: key,
        redfish_port: 0,
        ssh_port: 0,
        machines: machines.collect(),
    };
    serve::serve(settings).await.unwrap()
}

/// What the servers that are no virtual BMCs were asked, whole.
type Asked = Arc<Mutex<Vec<String>>>;

/// A TLS server that answers every request with `answer` and notes it. Says its port.
async fn tls(address: &str, port: u16, answer: String, asked: Asked) -> u16 {
    let cert = rcgen::generate_simple_self_signed(vec!["bmc".to_string()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(cert.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((address, port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer, asked) = (acceptor.clone(), answer.clone(), asked.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = Vec::new();
                let mut buffer = [0; 1024];
                while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                    match stream.read(&mut buffer).await {
                        Ok(n @ 1..) => head.extend_from_slice(&buffer[..n]),
                        _ => return,
                    }
                }
                asked.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                stream.write_all(answer.as_bytes()).await.ok();
                stream.shutdown().await.ok();
            });
        }
    });
    port
}

fn http(status: &str, more: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Answers an ASF presence ping as a BMC does.
async fn pong() -> u16 {
    let socket = UdpSocket::bind((IPMI_ONLY, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
            if n == 12 && buffer[8] == 0x80 {
                let mut pong = vec![6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x40, buffer[9], 0, 16];
                pong.extend([0, 0, 0x11, 0xbe, 0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]);
                socket.send_to(&pong, from).await.ok();
            }
        }
    });
    port
}

struct Site {
    dir: tempfile::TempDir,
    serving: Serving,
    asked: Asked,
    /// The redirect's goal was called.
    lured: Arc<Mutex<u32>>,
    knock: Settings,
}

impl Site {
    async fn start() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let serving = world(dir.path()).await;
        let asked = Asked::default();
        let lured = Arc::new(Mutex::new(0));
        let goal = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = goal.local_addr().unwrap();
        let count = lured.clone();
        tokio::spawn(async move {
            while goal.accept().await.is_ok() {
                *count.lock().unwrap() += 1;
            }
        });
        let answer = http("302 Found", &format!("Location: http://{to}/redfish/v1/\r\n"), "");
        let https_port = tls(REDIRECTS, 0, answer, asked.clone()).await;
        let web = http("200 OK", "", "<html>a printer\u{1b}[2J</html>");
        tls(WEB, https_port, web, asked.clone()).await;
        let root = format!(
            "{{\"RedfishVersion\": \"1.6.0\", \"Vendor\": \"ACME\", \"Product\": \"BMC 9\", \"UUID\": \"{}\"}}",
            SECURE_UUID.to_uppercase()
        );
        tls(SECURE, https_port, http("200 OK", "", &root), asked.clone()).await;
        tls(REFUSES, https_port, http("401 Unauthorized", "", "{}"), asked.clone()).await;
        let ipmi_port = pong().await;
        let knock = Settings {
            https_port,
            http_port: serving.redfish_port,
            ipmi_port,
            per_s: 500,
            at_once: 16,
            timeout_ms: 10_000,
        };
        Site { dir, serving, asked, lured, knock }
    }

    /// n1–n4 as they are; n5 with another UUID; n6 at another address; n7 without a UUID; n8 is not
    /// in it; n9 is silent; `secure` has the IPMI address of a machine that answers by IPMI alone.
    fn inventory(&self) -> String {
        let mut text = "schema = 1\n[[site]]\nname = \"s\"\n[[rack]]\nname = \"r\"\nsite = \"s\"\n\
            [[profile]]\nname = \"p\"\nworkflow = \"w\"\n[[pool]]\nname = \"p\"\nprofile = \"p\"\n\
            [defaults]\ncredential = \"bmc\"\ntls = \"off\"\n"
            .to_string();
        let port = self.serving.redfish_port;
        let mut machine = |name: &str, address: &str, id: &Identity, more: &str| {
            let part = |key: &str, value: Option<&str>| {
                value.map(|v| format!("{key} = \"{v}\"\n")).unwrap_or_default()
            };
            let (serial, uuid) =
                (part("serial", id.serial.as_deref()), part("uuid", id.uuid.as_deref()));
            let mac = part("mac", id.mac.as_deref());
            text += &format!(
                "[[machine]]\nname = \"{name}\"\nrack = \"r\"\npool = \"p\"\n{serial}{uuid}{mac}{more}\
                 bmc = {{ url = \"http://{address}:{port}\" }}\n"
            );
        };
        let at = |n: usize| World::address(n - 1).to_string();
        machine("n1", &at(1), &identity(1), "");
        let serial = Identity { serial: Some("SN-other".into()), ..identity(2) };
        machine("n2", &at(2), &serial, "");
        let mac = Identity { mac: Some("02:fa:00:00:99:99".into()), ..identity(3) };
        machine("n3", &at(3), &mac, "");
        machine("n4", &at(4), &identity(4), "");
        machine("n5", &at(5), &identity(500), "");
        machine("n6", "127.77.0.60", &identity(6), "");
        machine("n7", &at(7), &Identity { uuid: None, ..identity(7) }, "");
        machine("n9", "127.77.0.50", &identity(9), "");
        let ipmi = format!("ipmi = \"{IPMI_ONLY}:{}\"\n", self.knock.ipmi_port);
        machine("n10", "127.77.1.1", &identity(10), &ipmi);
        text
    }

    fn ask(&self, identify: bool) -> Ask {
        let inventory = self.dir.path().join("inventory.toml");
        std::fs::write(&inventory, self.inventory()).unwrap();
        Ask {
            ranges: vec!["127.77.0.0/26".into()],
            allow: vec!["127.77.0.0/24".into()],
            config: None,
            inventory: vec![inventory],
            identify,
            knock: self.knock.clone(),
            api: None,
        }
    }

    /// No request to anybody carried a credential.
    fn nobody_was_shown_a_credential(&self) {
        for request in self.asked.lock().unwrap().iter() {
            let low = request.to_lowercase();
            assert!(!low.contains("authorization") && !low.contains("x-auth"), "{request}");
            assert!(request.starts_with("GET /redfish/v1/ "), "{request}");
        }
        assert_eq!(*self.lured.lock().unwrap(), 0, "a redirect was followed");
    }

    /// Logins that each virtual BMC has seen, good and bad.
    fn logins(&self) -> Vec<u64> {
        let counted = self.serving.world.seats.iter().map(|s| {
            s.counters.logins.load(Ordering::Relaxed)
                + s.counters.failed_logins.load(Ordering::Relaxed)
        });
        counted.collect()
    }
}

fn kinds(report: &Report) -> Vec<(Kind, String)> {
    let of = |l: &scan::reconcile::Line| match (&l.machine, l.address) {
        (Some(machine), _) => machine.to_string(),
        (None, address) => address.map(|a| a.to_string()).unwrap_or_default(),
    };
    report.lines.iter().map(|r| (r.line.kind, of(&r.line))).collect()
}

#[tokio::test]
async fn what_answers_is_compared_with_the_inventory() {
    let site = Site::start().await;
    let report = discover::run(&site.ask(false)).await.unwrap();
    assert_eq!(report.addresses, 62);
    let own = |kind, name: &str| (kind, name.to_string());
    assert_eq!(
        kinds(&report),
        [
            own(Kind::Expected, "n1"),
            own(Kind::Expected, "n2"),
            own(Kind::Expected, "n3"),
            own(Kind::Expected, "n4"),
            own(Kind::Mismatch, "n5"),
            own(Kind::Moved, "n6"),
            own(Kind::Unproven, "n7"),
            own(Kind::Unknown, "127.77.0.8"),
            own(Kind::Unknown, REDIRECTS),
            own(Kind::Unknown, WEB),
            own(Kind::Unknown, SECURE),
            own(Kind::Unproven, "n10"),
            own(Kind::Unknown, REFUSES),
            own(Kind::Missing, "n9"),
        ]
    );
    let at = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        let row = report.lines.iter().find(|r| r.line.address == Some(address)).unwrap();
        row.line.found.clone().unwrap()
    };
    let secure = at(SECURE).redfish.unwrap();
    assert_eq!(secure.uuid.as_deref(), Some(SECURE_UUID));
    assert_eq!(
        (secure.vendor.as_deref(), secure.version.as_deref()),
        (Some("ACME"), Some("1.6.0"))
    );
    let pin = secure.certificate.unwrap();
    assert!(pin.starts_with("sha256:") && pin.len() == 71, "{pin}");
    assert!(at(REDIRECTS).other.is_some_and(|o| o.starts_with("redirects to http://127.0.0.1:")));
    assert!(at(WEB).other.is_some_and(|o| o == "a web server without Redfish"));
    assert!(at(REFUSES).other.is_some_and(|o| o.contains("401")));
    assert!(at(IPMI_ONLY).ipmi && at(IPMI_ONLY).redfish.is_none());
    assert!(!at("127.77.0.1").ipmi);
    site.nobody_was_shown_a_credential();
    assert_eq!(site.logins(), [0; MACHINES as usize]);
    site.serving.stop().await;
}

#[tokio::test]
async fn only_machines_that_show_their_uuid_are_logged_in_to_and_once() {
    let site = Site::start().await;
    // As a process: the credential comes in its environment.
    let report = {
        let ask = site.ask(true);
        let out = tokio::process::Command::new(env!("CARGO_BIN_EXE_farrier"))
            .args(["--json", "discover", "scan", "--identify", "--rate", "500"])
            .args(["--range", "127.77.0.0/26", "--allow", "127.77.0.0/24", "--timeout", "10"])
            .arg("--inventory")
            .arg(&ask.inventory[0])
            .args(["--https-port", &site.knock.https_port.to_string()])
            .args(["--http-port", &site.knock.http_port.to_string()])
            .args(["--ipmi-port", &site.knock.ipmi_port.to_string()])
            .env("FARRIER_BMC_USER", "admin")
            .env("FARRIER_BMC_PASSWORD", PASSWORD)
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(!text.contains(PASSWORD));
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let told = |name: &str| {
        let rows = report["lines"].as_array().unwrap();
        rows.iter().find(|r| r["machine"] == name).unwrap()["identified"].clone()
    };
    assert_eq!(told("n1")["result"], "same");
    assert_eq!(
        (&told("n1")["serial"], &told("n1")["mac"]),
        (&"SN00001".into(), &"02:fa:00:00:00:01".into())
    );
    let n2 = told("n2");
    assert_eq!((&n2["result"], &n2["part"]), (&"differs".into(), &"serial".into()));
    assert_eq!((&n2["expected"], &n2["found"]), (&"SN-other".into(), &"SN00002".into()));
    let n3 = told("n3");
    assert_eq!((&n3["result"], &n3["part"]), (&"differs".into(), &"mac".into()), "{n3}");
    assert!(n3["found"].as_str().unwrap().contains("02:fa:00:00:00:03"));
    assert_eq!(told("n6")["result"], "same", "found by its UUID at another address");
    for name in ["n5", "n7", "n10"] {
        assert_eq!(told(name)["result"], "not-asked", "{name}");
    }
    // n8 is nobody's; n5 and n7 have not shown that they are the machines.
    assert_eq!(site.logins(), [1, 1, 1, 1, 0, 1, 0, 0]);
    site.nobody_was_shown_a_credential();
    site.serving.stop().await;
}

/// A daemon over the site's inventory: it has the database, and the password in a file.
struct Beside {
    child: tokio::process::Child,
    config: std::path::PathBuf,
    api: String,
}

impl Beside {
    async fn start(site: &Site) -> Beside {
        let dir = site.dir.path();
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        std::fs::create_dir(dir.join("workflows")).unwrap();
        write(
            "workflows/w.toml",
            "schema = 1\nname = \"w\"\n[watch]\nevery = \"60s\"\n[[step]]\nstage = \
             \"discover\"\nkey = \"identify\"\nkind = \"identify\"\ntimeout = \"30m\"\n",
        );
        write("inventory.toml", &site.inventory());
        write("password", PASSWORD);
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port()
        };
        let password = dir.join("password");
        write(
            "farrier.toml",
            &format!(
                "schema = 1\n[paths]\nstate = \"state\"\nworkflows = \"workflows\"\n\
                 [listen.api]\nbind = \"127.0.0.1:{port}\"\n[discovery]\n\
                 ranges = [\"127.77.0.0/26\"]\n[[credential]]\nname = \"bmc\"\n\
                 user = \"admin\"\nfrom = {{ file = \"{}\" }}\n",
                password.display()
            ),
        );
        let config = dir.join("farrier.toml");
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_farrier"))
            .args(["serve", "--config"])
            .arg(&config)
            .env_remove("NOTIFY_SOCKET")
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let api = format!("http://127.0.0.1:{port}");
        let beside = Beside { child, config, api };
        let deadline = Instant::now() + Duration::from_secs(120);
        while site.serving.world.seats[0].counters.logins.load(Ordering::Relaxed) == 0 {
            let log = std::fs::read_to_string(dir.join("log")).unwrap();
            assert!(Instant::now() < deadline, "it does not look at n1\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        beside
    }

    /// `farrier discover scan --identify` as a person beside it says it.
    async fn scan(&self, site: &Site, api: &str) -> std::process::Output {
        let knock = &site.knock;
        tokio::process::Command::new(env!("CARGO_BIN_EXE_farrier"))
            .args(["--json", "--api", api, "discover", "scan", "--identify", "--rate", "500"])
            .arg("--config")
            .arg(&self.config)
            .args(["--timeout", "10", "--https-port", &knock.https_port.to_string()])
            .args(["--http-port", &knock.http_port.to_string()])
            .args(["--ipmi-port", &knock.ipmi_port.to_string()])
            .env_remove("FARRIER_BMC_USER")
            .env_remove("FARRIER_BMC_PASSWORD")
            .kill_on_drop(true)
            .output()
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn beside_a_daemon_that_one_logs_in_once_and_tells_no_secret() {
    let site = Site::start().await;
    let mut beside = Beside::start(&site).await;
    let report = |out: std::process::Output| {
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(!text.contains(PASSWORD));
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let told = |report: &serde_json::Value, name: &str| {
        let rows = report["lines"].as_array().unwrap();
        rows.iter().find(|r| r["machine"] == name).unwrap()["identified"].clone()
    };
    let first = report(beside.scan(&site, &beside.api).await);
    assert_eq!(told(&first, "n1")["result"], "same", "{first}");
    assert_eq!(told(&first, "n2")["result"], "differs");
    assert_eq!(told(&first, "n3")["part"], "mac");
    assert_eq!(told(&first, "n6")["result"], "same", "found by its UUID at another address");
    for name in ["n5", "n7", "n10"] {
        assert_eq!(told(&first, name)["result"], "not-asked", "{name}");
    }
    // Nobody but the scan goes to n6, which is not where the inventory has it, or to n8, which nobody has.
    let strangers = || (site.logins()[5], site.logins()[7]);
    assert_eq!(strangers(), (1, 0), "once");
    // The daemon looks for itself, within its own ranges, and never far.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let order = |addresses: Vec<String>| {
        let body = serde_json::json!({"addresses": addresses, "https_port": site.knock.https_port,
            "http_port": site.knock.http_port, "ipmi_port": site.knock.ipmi_port});
        let url = format!("{}/v1/discover/identify", beside.api);
        http.post(url).header("content-type", "application/json").body(body.to_string()).send()
    };
    for (addresses, status) in [
        (vec!["127.77.0.8".to_string(), "127.77.3.1".into()], 403),
        (vec![], 400),
        (vec!["127.77.0.8".into(); 33], 400),
        (vec!["127.77.0.8".into(), REDIRECTS.into(), WEB.into()], 200),
    ] {
        let answer = order(addresses.clone()).await.unwrap();
        assert_eq!(answer.status(), status, "{addresses:?}");
        let text = answer.text().await.unwrap();
        assert!(!text.contains(PASSWORD) && !text.contains("\"same\""), "{text}");
    }
    assert_eq!(strangers(), (1, 0));
    // Where it can't be asked, that is said; nothing is sent to anybody.
    let out = beside.scan(&site, "http://127.0.0.1:9").await;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("hint: ") && !said.contains(PASSWORD), "{said}");
    assert_eq!(strangers(), (1, 0));
    // Without a daemon the scan has the database, and logs in by itself.
    beside.child.kill().await.unwrap();
    let alone = report(beside.scan(&site, &beside.api).await);
    assert_eq!(told(&alone, "n6")["result"], "same", "{alone}");
    assert_eq!(strangers(), (2, 0));
    site.nobody_was_shown_a_credential();
    let log = std::fs::read_to_string(site.dir.path().join("log")).unwrap();
    assert!(!log.contains(PASSWORD) && log.contains("looks who answers"), "{log}");
    site.serving.stop().await;
}

#[tokio::test]
async fn what_is_not_allowed_is_not_touched() {
    let site = Site::start().await;
    let before: Vec<u64> = requests(&site);
    let mut ask = site.ask(false);
    ask.allow = vec!["127.78.0.0/16".into()];
    match discover::run(&ask).await {
        Err(End::Refused(why)) => assert!(why.contains("nothing was sent"), "{why}"),
        other => panic!("{other:?}"),
    }
    ask.allow = vec![];
    assert!(matches!(discover::run(&ask).await, Err(End::Refused(_))));
    // With a configuration its own list counts.
    let config = site.dir.path().join("farrier.toml");
    std::fs::create_dir(site.dir.path().join("workflows")).unwrap();
    std::fs::write(&config, "schema = 1\n[discovery]\nranges = [\"127.78.0.0/16\"]\n").unwrap();
    std::fs::write(site.dir.path().join("inventory.toml"), "schema = 1\n").unwrap();
    let mut by_config =
        Ask { config: Some(config.clone()), allow: vec![], inventory: vec![], ..ask };
    match discover::run(&by_config).await {
        Err(End::Refused(why)) => assert!(why.contains("[discovery] ranges"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(requests(&site), before);
    std::fs::write(&config, "schema = 1\n[discovery]\nranges = [\"127.77.0.0/28\"]\n").unwrap();
    by_config.ranges = vec![];
    let report = discover::run(&by_config).await.unwrap();
    assert_eq!(report.addresses, 14, "all that is allowed, where nothing else was asked for");
    assert_eq!(report.lines.iter().filter(|r| r.line.kind == Kind::Unknown).count(), 8);
    site.serving.stop().await;
}

fn requests(site: &Site) -> Vec<u64> {
    site.serving.world.seats.iter().map(|s| s.counters.requests.load(Ordering::Relaxed)).collect()
}

#[tokio::test]
async fn a_scan_keeps_its_pace() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let SocketAddr::V4(at) = listener.local_addr().unwrap() else { panic!() };
    let count = Arc::new(Mutex::new(Vec::new()));
    let seen = count.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            seen.lock().unwrap().push(Instant::now());
        }
    });
    let settings = Settings {
        https_port: at.port(),
        http_port: at.port(),
        ipmi_port: 9,
        per_s: 10,
        at_once: 64,
        timeout_ms: 2_000,
    };
    let addresses = std::iter::repeat_n(IpAddr::from([127, 0, 0, 1]), 6);
    let since = Instant::now();
    let found = scan::scan(addresses, &settings, || {}).await.unwrap();
    // Two connections and a datagram pair for each of six addresses, ten a second: the last begins
    // 1.7 s after the first at the earliest.
    assert!(since.elapsed() >= Duration::from_millis(1_700), "{:?}", since.elapsed());
    assert_eq!(count.lock().unwrap().len(), 12);
    assert!(found.len() <= 6);
}

#[tokio::test]
async fn many_silent_addresses_are_silence() {
    let settings =
        Settings { https_port: 9, http_port: 9, ipmi_port: 9, per_s: 1_000, ..Settings::default() };
    let range: Range = "127.79.0.0/24".parse().unwrap();
    let ticks = Mutex::new(0);
    let found = scan::scan(range.addresses(), &settings, || *ticks.lock().unwrap() += 1).await;
    assert_eq!(found.unwrap(), []);
    assert_eq!(*ticks.lock().unwrap(), 254);
}
