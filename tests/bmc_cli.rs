//! `farrier bmc`, whole: what people type and what they get to see, on a small BMC, on captured trees
//! and on sushy-tools.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test: starts programs, serves files, waits with a deadline"
)]

#[allow(dead_code, reason = "shared with tests/bmc.rs; each uses its part")]
#[path = "bmc/captured.rs"]
mod captured;
#[allow(dead_code, reason = "shared with tests/bmc.rs; each uses its part")]
#[path = "bmc/server.rs"]
mod server;
#[path = "bmc/small.rs"]
mod small;

use captured::{NAMES, Tree, identities, serve, tree};
use farrier::app::bmc::{Ask, Context, execute};
use farrier::bmc::Settings;
use farrier::cli::bmc::{Bmc, Words};
use farrier::cli::{Cli, Command, Io};
use farrier::port::{Credential, Secret};
use insta::assert_snapshot;
use regex::Regex;
use serde_json::{Value, json};
use server::{Reply, Seen, Server};
use small::small_tree;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PASSWORD: &str = "s3cret-of-the-bmc";

/// Nobody sits at the terminal.
fn nobody(_: &str) -> Option<bool> {
    None
}

/// Exit code, standard output, standard error.
async fn cli(url: &str, words: &[&str], ask: &Ask) -> (u8, String, String) {
    let mut line = vec!["farrier", "bmc"];
    line.extend(words.iter().map(|w| if *w == "BMC" { url } else { w }));
    let parsed = match <Cli as clap::Parser>::try_parse_from(&line) {
        Ok(cli) => cli,
        Err(e) => return (2, String::new(), e.to_string()),
    };
    let Command::Bmc { command: Words::Alone(command) } = parsed.command else {
        panic!("{words:?}")
    };
    let bmc = Bmc { command };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = {
        let mut io = Io::new(&mut out, &mut err, parsed.global.json, false);
        let context = Context {
            login: Credential { user: "farrier".into(), password: Secret::new(PASSWORD) },
            ca_pem: None,
            ask,
            settings: Settings {
                settle_ms: 5,
                read_timeout_ms: 5_000,
                settle_after_reset: false,
                quirks: Arc::new(farrier::config::quirks::shipped()),
                ..Settings::default()
            },
        };
        execute(&bmc.command, context, &mut io).await
    };
    let (out, err) = (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap());
    assert!(!format!("{out}{err}").contains(PASSWORD), "{words:?} tells the password");
    (code, out, err)
}

/// The same as a person sees it, with what differs from run to run taken out.
async fn shown(url: &str, words: &[&str]) -> String {
    let (code, out, err) = cli(url, words, &nobody).await;
    let mut text = format!("$ farrier bmc {}\n{out}", words.join(" "));
    if !err.is_empty() {
        text += &format!("--- stderr\n{err}");
    }
    if code != 0 {
        text += &format!("--- exit code {code}\n");
    }
    let text = text.replace(url, "http://BMC");
    let times = Regex::new(r"\b[0-9]+ ms\b").unwrap().replace_all(&text, "N ms").into_owned();
    let behind = Regex::new(r"[0-9]+d[0-9]{2}h behind").unwrap();
    let times = behind.replace_all(&times, "years behind").into_owned();
    let ours = Regex::new(r"Farrier's says [^;]+;").unwrap();
    ours.replace_all(&times, "Farrier's says NOW;").into_owned()
}

/// The small tree, alive: what is written to it shows.
struct Live {
    server: Server,
    tree: Arc<Mutex<Tree>>,
}

impl Live {
    async fn start() -> Live {
        let tree = Arc::new(Mutex::new(small_tree()));
        let server = Server::start({
            let tree = tree.clone();
            move |r, _| answer(&mut tree.lock().unwrap(), r)
        })
        .await;
        Live { server, tree }
    }

    fn writes(&self) -> usize {
        let reads = |s: &&Seen| s.method != "GET" && !s.path.contains("Sessions");
        self.server.seen().iter().filter(reads).count()
    }

    fn at(&self, path: &str) -> Value {
        self.tree.lock().unwrap()[path].clone()
    }
}

const VOLUMES: &str = "/redfish/v1/systems/1/storage/a/volumes";

fn answer(tree: &mut Tree, r: &Seen) -> Reply {
    const SYSTEM: &str = "/redfish/v1/systems/1";
    const DRIVE: &str = "/redfish/v1/managers/1/virtualmedia/cd";
    let path = r.path.split('?').next().unwrap_or_default().trim_end_matches('/').to_lowercase();
    match (r.method.as_str(), path.as_str()) {
        ("POST", p) if p.ends_with("sessions") => {
            return Reply::Json(201, vec![], json!({})).with("X-Auth-Token", "t-1");
        }
        ("POST", "/x") => {
            let off = r.body["ResetType"].as_str().is_some_and(|t| t.ends_with("Off"))
                || r.body["ResetType"] == json!("GracefulShutdown");
            tree.get_mut(SYSTEM).unwrap()["PowerState"] = json!(if off { "Off" } else { "On" });
        }
        ("POST", "/ac") => {}
        ("POST", VOLUMES) => {
            let new = format!("{VOLUMES}/new");
            let list = tree.get_mut(VOLUMES).unwrap()["Members"].as_array_mut().unwrap();
            list.push(json!({ "@odata.id": new }));
            let mut volume = r.body.clone();
            volume["Id"] = json!("new");
            tree.insert(new, volume);
        }
        ("POST", "/i") => {
            let drive = tree.get_mut(DRIVE).unwrap();
            (drive["Image"], drive["Inserted"]) = (r.body["Image"].clone(), json!(true));
        }
        ("POST", "/e") => {
            let drive = tree.get_mut(DRIVE).unwrap();
            (drive["Image"], drive["Inserted"]) = (Value::Null, json!(false));
        }
        ("PATCH", p) => {
            let Some(v) = tree.get_mut(p) else { return Reply::status(404) };
            merge(v, &r.body);
        }
        (_, p) => {
            return match tree.get(p) {
                Some(v) => Reply::ok(v.clone()),
                None => Reply::said(404, "ResourceMissingAtURI"),
            };
        }
    }
    Reply::status(204)
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (k, v) in from {
                merge(into.entry(k).or_insert(Value::Null), v);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

#[tokio::test]
async fn people_see_a_bmc() {
    let bmc = serve(Arc::new(small_tree())).await;
    let url = &bmc.url;
    assert_snapshot!("inspect", shown(url, &["inspect", "BMC"]).await);
    assert_snapshot!("power", shown(url, &["power", "BMC"]).await);
    assert_snapshot!("boot", shown(url, &["boot", "BMC"]).await);
    assert_snapshot!("media", shown(url, &["media", "BMC"]).await);
    assert_snapshot!("bios", shown(url, &["bios", "BMC"]).await);
    assert_snapshot!("bios_like", shown(url, &["bios", "BMC", "--like", "core", "--json"]).await);
    assert_snapshot!("log", shown(url, &["log", "BMC", "--last", "2"]).await);
    assert_snapshot!("firmware", shown(url, &["firmware", "BMC"]).await);
    assert_snapshot!("sensors", shown(url, &["sensors", "BMC"]).await);
}

#[tokio::test]
async fn people_see_what_a_model_can_do() {
    let bmc = serve(Arc::new(small_tree())).await;
    let text = shown(&bmc.url, &["qualify", "BMC"]).await;
    // Which kinds of requests were slowest is another matter every time.
    let text = Regex::new(r"(?m)^  N ms  .*\n").unwrap().replace_all(&text, "").into_owned();
    assert_snapshot!("qualify", text);
}

#[tokio::test]
async fn a_change_is_confirmed_done_and_read_back() {
    let live = Live::start().await;
    let url = &live.server.url;
    // Nobody to ask, somebody who says no: nothing is sent.
    assert_snapshot!("power_unasked", shown(url, &["power", "BMC", "force-off"]).await);
    let (code, _, err) = cli(url, &["power", "BMC", "force-off"], &|_| Some(false)).await;
    assert_eq!((code, err.as_str()), (1, "error: nothing was done\n"));
    assert_eq!(live.writes(), 0);
    // Asked, the person is told which machine it is.
    let asked = Arc::new(Mutex::new(String::new()));
    let yes = {
        let asked = asked.clone();
        move |question: &str| {
            *asked.lock().unwrap() = question.to_string();
            Some(true)
        }
    };
    let (code, out, err) = cli(url, &["power", "BMC", "off"], &yes).await;
    assert_eq!((code, out.as_str()), (0, "power is off\n"), "{err}");
    let question = asked.lock().unwrap().clone();
    assert!(question.starts_with("Shut down: ") && question.contains("serial S1"), "{question}");
    assert_snapshot!("power_on", shown(url, &["power", "BMC", "on", "--yes"]).await);
    assert_snapshot!("power_on_again", shown(url, &["power", "BMC", "on", "--yes"]).await);
    assert_eq!(live.writes(), 2, "what is on is not switched on");
    assert_snapshot!("boot_cd", shown(url, &["boot", "BMC", "cd", "--yes"]).await);
    assert_eq!(live.at("/redfish/v1/systems/1")["Boot"]["BootSourceOverrideTarget"], json!("Cd"));
    let insert = ["media", "BMC", "insert", "http://192.0.2.1/boot.iso", "--yes"];
    assert_snapshot!("media_insert", shown(url, &insert).await);
    assert_snapshot!("media_eject", shown(url, &["media", "BMC", "eject", "--yes"]).await);
    assert_eq!(live.at("/redfish/v1/managers/1/virtualmedia/cd")["Inserted"], json!(false));
    let set = ["bios", "BMC", "set", "Cores=2", "Turbo=false", "--yes"];
    assert_snapshot!("bios_set", shown(url, &set).await);
    assert_eq!(
        live.at("/redfish/v1/systems/1/bios/settings")["Attributes"],
        json!({"Cores": 2, "Turbo": false})
    );
    let secure = ["bios", "BMC", "secure-boot", "off", "--yes"];
    assert_snapshot!("secure_boot_off", shown(url, &secure).await);
}

#[tokio::test]
async fn all_power_is_cut_only_with_the_host_off() {
    let live = Live::start().await;
    let url = &live.server.url;
    let ac = ["power", "BMC", "ac-cycle", "--yes"];
    let (code, _, err) = cli(url, &ac, &nobody).await;
    assert_eq!(code, 1);
    assert!(err.contains("no way to cut this machine's power is known"), "{err}");
    merge(
        live.tree.lock().unwrap().get_mut("/redfish/v1/systems/1").unwrap(),
        &json!({"Manufacturer": "Lenovo", "Actions": {"Oem": {
            "#LenovoComputerSystem.SystemReset": {"target": "/ac"}}}}),
    );
    let (code, _, err) = cli(url, &ac, &nobody).await;
    assert_eq!(code, 1);
    assert!(err.contains("nothing was sent") && err.contains("must be off"), "{err}");
    assert_eq!(live.writes(), 0);
    cli(url, &["power", "BMC", "force-off", "--yes"], &nobody).await;
    let (code, out, err) = cli(url, &ac, &nobody).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(out, "the BMC took it and answers again; power is off\n");
    let sent = live.server.seen().into_iter().find(|s| s.is("POST", "/ac")).unwrap();
    assert_eq!(sent.body, json!({"ResetType": "ACPowerCycle"}));
    assert_eq!(live.server.count("POST", "/ac"), 1);
}

#[tokio::test]
async fn a_volume_is_made_of_the_drives_that_are_named_once_somebody_is_sure() {
    let live = Live::start().await;
    let url = &live.server.url;
    {
        let mut tree = live.tree.lock().unwrap();
        let link = |n: u8| json!({ "@odata.id": format!("/redfish/v1/Drives/{n}") });
        for n in [2, 3] {
            let drive = json!({"Id": n.to_string(), "SerialNumber": format!("SSD-{n}")});
            tree.insert(format!("/redfish/v1/drives/{n}"), drive);
        }
        let storage = tree.get_mut("/redfish/v1/systems/1/storage/a").unwrap();
        storage["Drives"] = json!([link(1), link(2), link(3)]);
    }
    let create = |drives: &[&'static str], more: &[&'static str]| {
        let drives = drives.iter().flat_map(|d| ["--drive", *d]);
        let words = ["volume", "BMC", "create", "--raid", "RAID1"].into_iter().chain(drives);
        words.chain(more.iter().copied()).collect::<Vec<_>>()
    };
    let (code, _, err) = cli(url, &create(&["SSD-2", "SSD-3"], &[]), &nobody).await;
    assert_eq!(code, 2);
    assert!(
        err.contains("nothing was done") && err.contains("SSD-2, SSD-3, whose data is lost"),
        "{err}"
    );
    let (code, _, err) = cli(url, &create(&["SSD-2", "SSD-9"], &["--yes"]), &nobody).await;
    assert_eq!(code, 1);
    assert!(err.contains("no drive with serial `SSD-9`"), "{err}");
    assert_eq!(live.writes(), 0);
    for _ in 0..2 {
        let (code, out, err) = cli(url, &create(&["SSD-2", "SSD-3"], &["--yes"]), &nobody).await;
        assert_eq!(code, 0, "{err}");
        let made = out.lines().find(|l| l.starts_with("new ")).unwrap_or_else(|| panic!("{out}"));
        assert!(made.contains("boot") && made.contains("RAID1"), "{out}");
        assert_eq!(live.writes(), 1, "said twice, done once");
    }
}

#[tokio::test]
async fn mistakes_are_said_with_a_way_out() {
    let live = Live::start().await;
    let url = &live.server.url;
    let mut text = String::new();
    for words in [
        &["bios", "BMC", "set", "Coers=2", "--yes"][..],
        &["bios", "BMC", "set", "Cores", "--yes"],
        &["bios", "BMC", "set", "Cores=many", "--yes"],
        &["media", "BMC", "insert", "http://192.0.2.1/boot.iso?sig=1", "--yes"],
        &["media", "BMC", "insert", "http://192.0.2.1/boot.img", "--kind", "Floppy", "--yes"],
        &["inspect", "ftp://192.0.2.1"],
        &["inspect", "BMC", "--uuid", "x"],
        &["inspect", "https://192.0.2.1", "--tls", "sha256:00"],
    ] {
        text += &shown(url, words).await;
        text += "\n";
    }
    assert_snapshot!("mistakes", text);
    assert_eq!(live.writes(), 0);
}

#[tokio::test]
async fn an_unknown_certificate_is_shown_so_that_it_can_be_pinned() {
    let made = rcgen::generate_simple_self_signed(vec!["bmc".to_string()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let der = made.cert.der().clone();
    let pin = {
        use sha2::Digest;
        format!("sha256:{}", hex::encode(sha2::Sha256::digest(&der)))
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der], key)
        .unwrap();
    let tree = small_tree();
    let server = Server::start_tls(config, move |r, _| answer(&mut tree.clone(), r)).await;
    let (code, _, err) = cli(&server.url, &["power", "BMC"], &nobody).await;
    assert_eq!(code, 1);
    assert!(err.contains("certificate-untrusted") && err.contains(&pin), "{err}");
    assert_eq!(server.seen().len(), 0, "nothing is asked of a stranger, and no login sent");
    let (code, out, err) = cli(&server.url, &["power", "BMC", "--tls", &pin], &nobody).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("serial S1"), "{out}");
}

#[tokio::test]
async fn no_report_to_be_shared_holds_an_identity_of_its_tree() {
    for name in NAMES {
        let Some(tree) = tree(name) else { return };
        let server = serve(tree.clone()).await;
        let mut reports = Vec::new();
        // Text and JSON are the same report; of the largest tree one is enough.
        let text = (name != "nvidia-dgxh100-ami").then_some(&["qualify", "BMC"][..]);
        for words in [Some(&["qualify", "BMC", "--json"][..]), text].into_iter().flatten() {
            let (code, out, err) = cli(&server.url, words, &nobody).await;
            assert_eq!(code, 0, "{name}: {err}");
            reports.push(out);
        }
        let v: Value = serde_json::from_str(&reports[0]).unwrap();
        let model = v["model"].as_str().unwrap_or_else(|| panic!("{name}: {v}"));
        assert!(model.len() > 3 && !model.contains('…'), "{name}: {model}");
        let can = |what: &str| {
            let all = v["capabilities"].as_array().unwrap();
            all.iter().find(|c| c["name"] == what).map(|c| c["can"].as_str().unwrap().to_string())
        };
        assert_eq!(can("resets").as_deref(), Some("yes"), "{name}");
        assert_eq!(can("BIOS settings").as_deref(), Some("yes"), "{name}");
        assert!(v["requests"]["count"].as_u64() > Some(50), "{name}");
        let quirks = v["quirks"].as_array().map_or(0, Vec::len);
        assert_eq!(quirks > 0, name != "dmtf-public-rackmount1", "{name}: {v}");
        println!("{name}\n{}", reports[0]);
        for value in identities(&tree) {
            for report in &reports {
                assert!(
                    !report.to_lowercase().contains(&value.to_lowercase()),
                    "{name}: `{value}` in\n{report}"
                );
            }
        }
        assert!(!reports.concat().contains("127.0.0.1"), "{name}: the address");
    }
}

#[tokio::test]
async fn an_inspection_of_a_captured_tree_has_all_facts() {
    let Some(tree) = tree("lenovo-sr670v2-xcc-8gpu") else { return };
    let server = serve(tree).await;
    let (code, out, err) = cli(&server.url, &["inspect", "BMC", "--json"], &nobody).await;
    assert_eq!(code, 0, "{err}");
    let v: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(v["system"]["identity"]["serial"], json!("J105958B"));
    assert_eq!(v["inventory"]["gpus"].as_array().map(Vec::len), Some(8));
    assert_eq!(v["inventory"]["gpus"][0]["slot"], json!("slot_3"));
    assert!(v["inventory"]["warnings"].is_array());
    for part in ["firmware", "tasks", "abilities", "media", "secure_boot", "volumes", "clock"] {
        assert!(!v[part].is_null() || v["unread"][part]["class"].is_string(), "{part}: {v}");
    }
}

/// The binary itself, as a person runs it: the login in the environment.
async fn farrier(words: &[&str], login: Option<(&str, &str)>) -> (i32, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_farrier"));
    command.arg("bmc").args(words).stdin(Stdio::null()).kill_on_drop(true);
    command.env_remove("FARRIER_BMC_USER").env_remove("FARRIER_BMC_PASSWORD");
    if let Some((user, password)) = login {
        command.env("FARRIER_BMC_USER", user).env("FARRIER_BMC_PASSWORD", password);
    }
    let out = command.output().await.unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    assert!(!text(&out.stdout).contains(PASSWORD) && !text(&out.stderr).contains(PASSWORD));
    (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
}

#[tokio::test]
async fn without_a_login_and_nobody_to_ask_it_says_where_one_is_looked_for() {
    let (code, _, err) = farrier(&["power", "192.0.2.1"], None).await;
    assert_eq!(code, 2);
    assert!(err.contains("FARRIER_BMC_USER") && err.contains("hint: "), "{err}");
}

const UUID: &str = "7e57ab1e-0000-4000-8000-000000000001";

/// sushy-tools' emulator with its fake driver, on a port of its own.
struct Emulator {
    child: tokio::process::Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Emulator {
    async fn start() -> Emulator {
        let program = std::env::var_os("FARRIER_SUSHY_EMULATOR").map_or_else(
            || {
                let home = std::env::var_os("XDG_CACHE_HOME").map_or_else(
                    || std::path::PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
                    std::path::PathBuf::from,
                );
                home.join("farrier-tests/sushy-tools-2.2.0/bin/sushy-emulator")
            },
            std::path::PathBuf::from,
        );
        assert!(
            program.exists(),
            "`bash tests/run.sh --only sushy` installs {}",
            program.display()
        );
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        // bcrypt of "sushi-and-rice", cost 4: the only kind that the emulator takes.
        let hash = "$2b$04$hPBEhOgb8u.nnSndU9CSRuUUGi.mBqkReY3GzIaYeZMJNB1M.suIy";
        std::fs::write(dir.path().join("htpasswd"), format!("farrier:{hash}\n")).unwrap();
        let system = |uuid: &str, name: &str| {
            format!(
                "{{'uuid': '{uuid}', 'name': '{name}', 'power_state': 'Off', \
                 'nics': [{{'mac': '02:00:5e:00:53:01', 'ip': '192.0.2.9'}}]}},"
            )
        };
        let other = UUID.replace("000001", "000002");
        std::fs::write(
            dir.path().join("conf.py"),
            format!(
                "SUSHY_EMULATOR_AUTH_FILE = '{at}/htpasswd'\nSUSHY_EMULATOR_STATE_DIR = '{at}'\n\
                 SUSHY_EMULATOR_FAKE_SYSTEMS = [{}{}]\n",
                system(UUID, "n1"),
                system(&other, "n2")
            ),
        )
        .unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = tokio::process::Command::new(program)
            .args(["--fake", "-i", "127.0.0.1", "-p", &port.to_string(), "--config"])
            .arg(dir.path().join("conf.py"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Emulator { child, url: format!("http://127.0.0.1:{port}"), _dir: dir }
    }

    async fn run(&self, words: &[&str]) -> (i32, String, String) {
        let mut line: Vec<&str> =
            words.iter().map(|w| if *w == "BMC" { self.url.as_str() } else { w }).collect();
        line.extend(["--uuid", UUID]);
        farrier(&line, Some(("farrier", "sushi-and-rice"))).await
    }
}

#[tokio::test]
async fn sushy_tools_from_the_command_line() {
    let mut sushy = Emulator::start().await;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (code, _, err) = sushy.run(&["power", "BMC"]).await;
        if code == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{err}");
        assert!(sushy.child.try_wait().unwrap().is_none(), "the emulator ended");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Two systems behind one address, and a wrong password.
    let login = Some(("farrier", "sushi-and-rice"));
    let (code, _, err) = farrier(&["power", &sushy.url], login).await;
    assert_eq!(code, 1);
    assert!(err.contains("--serial or --uuid"), "{err}");
    let (code, _, err) = farrier(&["power", &sushy.url], Some(("farrier", PASSWORD))).await;
    assert_eq!(code, 1);
    assert!(err.contains("bad-credentials"), "{err}");

    let (code, out, err) = sushy.run(&["inspect", "BMC", "--json"]).await;
    assert_eq!(code, 0, "{err}");
    let v: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(v["system"]["identity"]["uuid"], json!(UUID));
    assert_eq!(v["inventory"]["nics"][0]["mac"], json!("02:00:5e:00:53:01"));
    assert_eq!(v["unread"]["firmware"]["class"], json!("unsupported"), "{v}");
    assert_eq!(v["media"].as_array().map(Vec::is_empty), Some(false), "{v}");

    // Power: taken at once, seen seconds later, waited for.
    let (code, _, err) = sushy.run(&["power", "BMC", "on"]).await;
    assert_eq!(code, 2, "nobody to ask: {err}");
    let (code, out, err) = sushy.run(&["power", "BMC", "on", "--yes"]).await;
    assert_eq!((code, out.as_str()), (0, "power is on\n"), "{err}");
    assert!(err.contains(UUID), "which machine: {err}");
    let (code, out, err) = sushy.run(&["power", "BMC", "force-off", "--yes"]).await;
    assert_eq!((code, out.as_str()), (0, "power is off\n"), "{err}");

    let (code, out, err) = sushy.run(&["boot", "BMC", "cd", "--yes"]).await;
    assert_eq!((code, out.as_str()), (0, "the BMC now says Cd (Continuous)\n"), "{err}");

    // Media: it really fetches the image.
    let image = Server::start(|r, _| match r.path.as_str() {
        "/boot.iso" => Reply::Text(200, "application/octet-stream", "an image".into()),
        _ => Reply::status(404),
    })
    .await;
    let iso = format!("{}/boot.iso", image.url);
    let (code, out, err) = sushy.run(&["media", "BMC", "insert", &iso, "--yes", "--json"]).await;
    assert_eq!(code, 0, "{err}");
    let slots: Value = serde_json::from_str(&out).unwrap();
    let inserted =
        |v: &Value| v.as_array().unwrap().iter().filter(|s| s["inserted"] == json!(true)).count();
    assert!(inserted(&slots) > 0, "{slots}");
    assert_eq!(image.count("GET", "/boot.iso"), 1, "fetched once");
    let (code, out, err) = sushy.run(&["media", "BMC", "eject", "--yes", "--json"]).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(inserted(&serde_json::from_str(&out).unwrap()), 0, "{out}");
    let gone = format!("{}/gone.iso", image.url);
    let (code, _, err) = sushy.run(&["media", "BMC", "insert", &gone, "--yes"]).await;
    assert_eq!(code, 1);
    assert!(err.contains("can the BMC reach the image's address?"), "{err}");

    let (code, out, err) = sushy.run(&["qualify", "BMC"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(!out.contains(UUID) && !out.contains("02:00:5e"), "{out}");
}
