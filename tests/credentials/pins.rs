//! Certificates: accepted in bulk, changed, and under a CA.

use super::server::{Reply, Seen, Server, calm};
use super::site::farrier;
use farrier::bmc::{RedfishBmc, Settings};
use farrier::model::{BmcEndpoint, Channel, Fault, FaultClass, Identity, MachineId};
use farrier::port::{BmcRead, BmcTarget, Credential, Secret, Vault};
use serde_json::Value;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Any;

#[async_trait::async_trait]
impl Vault for Any {
    async fn credential(&self, _: &str) -> Result<Credential, Fault> {
        Ok(Credential { user: "farrier".into(), password: Secret::new("any") })
    }

    async fn ssh_key(&self, _: &str) -> Result<Secret, Fault> {
        Err(Fault::new(FaultClass::Bug, Channel::Host, "no-key", "none here"))
    }
}

/// A certificate for 127.0.0.1 and its key, by a CA where one is given.
struct Signed {
    der: rustls::pki_types::CertificateDer<'static>,
    key: rustls::pki_types::PrivateKeyDer<'static>,
}

fn params(name: &str) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_string()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

fn self_signed(name: &str) -> Signed {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params(name).self_signed(&key).unwrap();
    Signed { der: cert.der().clone(), key: private(&key) }
}

fn private(key: &rcgen::KeyPair) -> rustls::pki_types::PrivateKeyDer<'static> {
    rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into())
}

fn digest(signed: &Signed) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &signed.der))
}

fn config(signed: &Signed) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.der.clone()], signed.key.clone_key())
        .unwrap()
}

async fn bmc(signed: &Signed, serial: &'static str) -> Server {
    Server::start_tls(config(signed), move |r: &Seen, _| match calm(r) {
        Reply::Json(s, h, mut v) if v.get("SerialNumber").is_some() => {
            v["SerialNumber"] = serial.into();
            v["UUID"] = Value::Null;
            Reply::Json(s, h, v)
        }
        other => other,
    })
    .await
}

#[tokio::test]
async fn what_a_bmc_shows_is_read_without_a_login() {
    let signed = self_signed("bmc-of-n1");
    let server = bmc(&signed, "S1").await;
    let edge = RedfishBmc::new(Arc::new(Any), Settings::default());
    let shown = edge.certificate(&server.url).await.unwrap();
    assert_eq!(shown.sha256, digest(&signed));
    assert!(shown.subject.contains("CN=bmc-of-n1") && shown.self_signed, "{shown:?}");
    assert!(server.seen().is_empty(), "no request was sent");
    let f = edge.certificate("http://127.0.0.1:1").await.unwrap_err();
    assert_eq!(f.code, "no-tls");
}

#[tokio::test]
async fn a_changed_certificate_under_an_unchanged_ca_is_fine() {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "site CA");
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let settings = Settings { ca_pem: Some(pem), ..Settings::default() };
    let edge = RedfishBmc::new(Arc::new(Any), settings);
    for name in ["before", "after"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let der = params(name).signed_by(&key, &issuer).unwrap().der().clone();
        let server = bmc(&Signed { der, key: private(&key) }, "S1").await;
        let endpoint = BmcEndpoint {
            url: server.url.as_str().into(),
            credential: "c".into(),
            tls: "ca".into(),
            ipmi: None,
            controllers: Default::default(),
        };
        let target = BmcTarget {
            machine: MachineId(1),
            name: "n1".into(),
            endpoint,
            identity: Identity::default(),
        };
        edge.system(&target).await.unwrap();
    }
}

struct Daemon {
    child: Child,
    dir: tempfile::TempDir,
    api: u16,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Daemon {
    /// Machines n1, n2, … behind these servers; their pool says `tls = "pin"`.
    fn start(urls: &[&str]) -> Self {
        Self::start_with(urls, "", 60)
    }

    /// The same with `more` below the last machine, and a clock that runs so much faster.
    fn start_with(urls: &[&str], more: &str, scale: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let api = free.local_addr().unwrap().port();
        drop(free);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("workflows")).unwrap();
        write(
            "workflows/look.toml",
            "schema = 1\nname = \"look\"\n[watch]\nevery = \"60s\"\n[[step]]\nstage = \
             \"discover\"\nkey = \"identify\"\nkind = \"identify\"\ntimeout = \"30m\"\n",
        );
        write(
            "farrier.toml",
            &format!(
                "schema = 1\n[paths]\nstate = \"state\"\nworkflows = \"workflows\"\n\
                 [listen.api]\nbind = \"127.0.0.1:{api}\"\n[[credential]]\nname = \"bmc\"\nuser = \
                 \"farrier\"\nfrom = {{ env = \"FARRIER_TEST_BMC\" }}\n"
            ),
        );
        let mut lines = String::from(
            "schema = 1\n[[site]]\nname = \"s\"\n[[rack]]\nname = \"r7\"\nsite = \"s\"\n[[profile]]\n\
             name = \"p\"\nworkflow = \"look\"\n[[pool]]\nname = \"all\"\nprofile = \"p\"\ntls = \
             \"pin\"\n",
        );
        for (n, url) in urls.iter().enumerate() {
            let n = n + 1;
            lines += &format!(
                "[[machine]]\nname = \"n{n}\"\nserial = \"S{n}\"\nrack = \"r7\"\npool = \
                 \"all\"\nbmc = {{ url = \"{url}\", credential = \"bmc\" }}\nhost = {{ address = \
                 \"127.0.0.1:1\" }}\n"
            );
        }
        write("inventory.toml", &(lines + more));
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(farrier())
            .args(["serve", "--time-scale", &scale.to_string(), "--config"])
            .arg(dir.path().join("farrier.toml"))
            .env_remove("NOTIFY_SOCKET")
            .env("FARRIER_TEST_BMC", "any")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, dir, api }
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(farrier())
            .args(["--api", &format!("http://127.0.0.1:{}", self.api), "--by", "tester"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Until what it says is as wanted.
    fn until(&self, words: &[&str], is: impl Fn(&Output) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let out = self.run(words);
            if is(&out) {
                return String::from_utf8(out.stdout).unwrap();
            }
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{words:?}: {out:?}\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificates_of_a_rack_are_accepted_at_once_and_a_changed_one_is_not_trusted() {
    let (one, two, other) = (self_signed("bmc-1"), self_signed("bmc-2"), self_signed("bmc-3"));
    let (first, second) = (bmc(&one, "S1").await, bmc(&two, "S2").await);
    let daemon = Daemon::start(&[&first.url, &second.url]);
    daemon.until(&["machine", "adopt", "n1", "n2", "--why", "test"], |o| o.status.success());
    // Nobody has accepted them: nobody logs in, and that is what they wait for.
    let explained = daemon.until(&["machine", "explain", "n1"], |o| {
        String::from_utf8_lossy(&o.stdout).contains("waiting for a person to accept")
    });
    assert!(explained.contains("farrier bmc pin n1"), "{explained}");
    let said = daemon.run(&["bmc", "pin", "--selector", "rack=r7"]);
    let text = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said.status.code(), Some(1), "not confirmed: {text}");
    for word in ["CN=bmc-1", "CN=bmc-2", "new", &digest(&one), &digest(&two)] {
        assert!(text.contains(word), "no {word}: {text}");
    }
    assert!(first.seen().is_empty() && second.seen().is_empty(), "no request was sent");
    let why = ["bmc", "pin", "--selector", "rack=r7", "--yes", "--why", "compared at the rack"];
    let said = daemon.until(&why, |o| o.status.success());
    assert!(said.contains("2 pinned"), "{said}");
    let deadline = Instant::now() + Duration::from_secs(60);
    while first.seen().is_empty() || second.seen().is_empty() {
        assert!(Instant::now() < deadline, "they are not read");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let said = daemon.until(&["bmc", "pin", "n1", "n2", "--yes"], |o| o.status.success());
    assert!(said.contains("nothing to accept"), "{said}");
    drop(second);

    // Where n1 was, another certificate is shown: an identity fault.
    let address: std::net::SocketAddr =
        first.url.strip_prefix("https://").unwrap().parse().unwrap();
    drop(first);
    let again = again(address, &other, "S1").await;
    let explained = daemon.until(&["machine", "explain", "n1"], |o| {
        String::from_utf8_lossy(&o.stdout).contains("another certificate")
    });
    assert!(
        explained.contains("quarantined") && explained.contains("farrier bmc pin"),
        "{explained}"
    );
    assert!(again.seen().is_empty(), "no request over a connection that was refused");
    let said = daemon.run(&["--json", "bmc", "pin", "n1"]);
    let shown: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(shown["certificates"][0]["stands"], "changed");
    daemon.until(&["bmc", "pin", "n1", "--yes", "--why", "new board"], |o| o.status.success());
    daemon.until(&["machine", "release", "n1", "--why", "new board"], |o| o.status.success());
    let deadline = Instant::now() + Duration::from_secs(60);
    while again.seen().is_empty() {
        assert!(Instant::now() < deadline, "it is not read again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A controller at an address of its own is looked at and accepted with its machine or by its own name; one
/// that is not accepted hides nothing of the host, and another certificate there is an identity fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_further_controllers_certificate_is_accepted_and_a_changed_one_is_not_trusted() {
    let (one, two, other) = (self_signed("bmc-1"), self_signed("hgx-1"), self_signed("hgx-2"));
    let (host, board) = (bmc(&one, "S1").await, bmc(&two, "B1").await);
    let more = format!(
        "[[machine.controller]]\nname = \"hgx\"\nkind = \"hgx\"\nurl = \"{}\"\nserial = \"B1\"\n\
         credential = \"bmc\"\n",
        board.url
    );
    let daemon = Daemon::start_with(&[&host.url], &more, 600);
    daemon.until(&["machine", "adopt", "n1", "--why", "test"], |o| o.status.success());
    // With its machine, both are shown.
    let said = daemon.run(&["bmc", "pin", "--selector", "rack=r7"]);
    let text = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said.status.code(), Some(1), "not confirmed: {text}");
    for word in ["n1/hgx", "CN=bmc-1", "CN=hgx-1", &digest(&one), &digest(&two)] {
        assert!(text.contains(word), "no {word}: {text}");
    }
    // What nobody has is refused, and nothing is accepted by that.
    let said = daemon.run(&["bmc", "pin", "n1/dpu0", "--yes"]);
    let err = String::from_utf8(said.stderr).unwrap();
    assert!(!said.status.success() && err.contains("no controller `dpu0`"), "{err}");
    // The host's BMC alone: it is read, and the controller is not asked.
    daemon.until(&["bmc", "pin", "n1/bmc", "--yes", "--why", "compared"], |o| o.status.success());
    let shown: Value =
        serde_json::from_slice(&daemon.run(&["--json", "bmc", "pin", "n1"]).stdout).unwrap();
    let stands = |shown: &Value, n: usize| shown["certificates"][n]["stands"].clone();
    assert_eq!((stands(&shown, 0), stands(&shown, 1)), ("pinned".into(), "new".into()), "{shown}");
    assert_eq!(shown["certificates"][1]["controller"], "hgx");
    let explained = daemon.until(&["machine", "explain", "n1"], |o| {
        String::from_utf8_lossy(&o.stdout).contains("whose certificate nobody has accepted")
    });
    assert!(explained.contains("`hgx`") && !explained.contains("quarantined"), "{explained}");
    assert!(!host.seen().is_empty() && board.seen().is_empty(), "nobody logs in there yet");
    daemon.until(&["bmc", "pin", "n1/hgx", "--yes", "--why", "compared"], |o| o.status.success());
    read(&board).await;

    // Where the baseboard was, another certificate is shown.
    let address: std::net::SocketAddr =
        board.url.strip_prefix("https://").unwrap().parse().unwrap();
    drop(board);
    let again = again(address, &other, "B1").await;
    let explained = daemon.until(&["machine", "explain", "n1"], |o| {
        String::from_utf8_lossy(&o.stdout).contains("another certificate")
    });
    for word in ["quarantined", "controller `hgx`", "farrier bmc pin"] {
        assert!(explained.contains(word), "no {word}: {explained}");
    }
    assert!(again.seen().is_empty(), "no request over a connection that was refused");
    let shown: Value =
        serde_json::from_slice(&daemon.run(&["--json", "bmc", "pin", "n1"]).stdout).unwrap();
    assert_eq!((stands(&shown, 0), stands(&shown, 1)), ("pinned".into(), "changed".into()));
    daemon.until(&["bmc", "pin", "n1", "--yes", "--why", "new board"], |o| o.status.success());
    daemon.until(&["machine", "release", "n1", "--why", "new board"], |o| o.status.success());
    read(&again).await;
}

/// Until somebody asks it.
async fn read(server: &Server) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.seen().is_empty() {
        assert!(Instant::now() < deadline, "it is not read");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A server where another one was.
async fn again(address: std::net::SocketAddr, signed: &Signed, serial: &'static str) -> Server {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => {
                return Server::over(listener, Some(config(signed)), move |r, _| match calm(r) {
                    Reply::Json(s, h, mut v) if v.get("SerialNumber").is_some() => {
                        v["SerialNumber"] = serial.into();
                        v["UUID"] = Value::Null;
                        Reply::Json(s, h, v)
                    }
                    other => other,
                });
            }
            Err(e) => assert!(Instant::now() < deadline, "{address}: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
