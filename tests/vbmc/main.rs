//! The virtual BMC met by programs that nobody here wrote: DMTF's service validator and the Redfish
//! clients of DMTF and OpenStack, as `tests/run.sh` installs them. What they did is looked up in the
//! physics, never in their own words.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests start programs, serve files and wait for conditions with a deadline"
)]

mod clients;
mod services;
mod validator;
mod wire;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use farrier::model::{EngineTime, Identity, MachineId};
use farrier::sim::durations::Durations;
use farrier::sim::faults::Dice;
use farrier::sim::physics::Quirks;
use farrier::sim::serve::{Berth, Body, Hosts, Latency, Seat, Serving, Settings, serve};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const USER: &str = "admin";
const PASSWORD: &str = "a-virtual-password";
/// Nobody logs in to these hosts.
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDnDd8sWQ8Yk1dYcXQj3QyyHCkBtFbNwOXjLgTrMPZ9H nobody";

/// Machine 1 has eight GPUs, machine 2 none.
struct Site {
    serving: Serving,
    http: reqwest::Client,
    _dir: tempfile::TempDir,
}

async fn site(scale: u32) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let berth = |n: u32, gpus: u16| Berth {
        id: MachineId(n),
        name: format!("node-{n}").into(),
        identity: Identity::new(
            Some(&format!("VB{n:06}")),
            Some(&format!("f0b1{n:04x}-1111-4222-8333-444455556666")),
            Some(&format!("02:fb:00:00:00:{n:02x}")),
        ),
        gpus,
        quirks: Quirks::default(),
        sick: None,
        user: USER.into(),
        password: PASSWORD.into(),
        dice: Dice::none(),
    };
    let serving = serve(Settings {
        dir: dir.path().join("world"),
        seed: 4,
        scale,
        durations: Durations::default(),
        latency: Latency::Even(0, 0),
        hosts: Hosts::Scripted,
        authorized_key: KEY.into(),
        redfish_port: 0,
        ssh_port: 0,
        machines: vec![berth(1, 8), berth(2, 0)],
    })
    .await
    .unwrap();
    let http =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
    Site { serving, http, _dir: dir }
}

impl Site {
    fn seat(&self, n: usize) -> &Arc<Seat> {
        &self.serving.world.seats[n - 1]
    }

    fn now(&self) -> EngineTime {
        self.serving.world.now()
    }

    fn url(&self, n: usize) -> String {
        self.serving.bmc_url(self.seat(n))
    }

    fn look<T>(&self, n: usize, f: impl FnOnce(&mut Body) -> T) -> T {
        self.seat(n).with(self.now(), f)
    }

    /// What happened to machine `n`, oldest first.
    fn truth(&self, n: usize) -> Vec<&'static str> {
        self.look(n, |b| b.vm.truth.effects().iter().map(|e| e.what.name()).collect())
    }

    async fn call(
        &self,
        n: usize,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, reqwest::header::HeaderMap, Value) {
        let url = format!("{}{path}", self.url(n));
        let mut request = self.http.request(method, url).basic_auth(USER, Some(PASSWORD));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await.unwrap();
        (status, headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn get(&self, n: usize, path: &str) -> Value {
        let (status, _, body) = self.call(n, reqwest::Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, n: usize, path: &str, body: Value) -> u16 {
        self.call(n, reqwest::Method::POST, path, Some(body)).await.0
    }

    async fn patch(&self, n: usize, path: &str, body: Value) -> u16 {
        self.call(n, reqwest::Method::PATCH, path, Some(body)).await.0
    }

    async fn until(&self, what: &str, mut is: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is() {
            assert!(Instant::now() < deadline, "still not: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A program of the Redfish tools, as `tests/run.sh` installs them.
fn tool(name: &str) -> PathBuf {
    let bin = std::env::var_os("FARRIER_REDFISH_TOOLS").map_or_else(
        || {
            let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
                || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
                PathBuf::from,
            );
            cache.join("farrier-tests/redfish-tools-1/bin")
        },
        PathBuf::from,
    );
    let program = bin.join(name);
    assert!(
        program.exists(),
        "no {}: `bash tests/run.sh --only vbmc` installs it",
        program.display()
    );
    program
}

/// Runs one of the tools in `dir`; its output, both streams.
async fn run(dir: &Path, name: &str, args: &[&str]) -> (bool, String) {
    let child = tokio::process::Command::new(tool(name))
        .args(args)
        .current_dir(dir)
        .env("PYTHONUNBUFFERED", "1")
        .env("NO_PROXY", "*")
        .env("no_proxy", "*")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(300), child.wait_with_output()).await;
    let out = ended.unwrap_or_else(|_| panic!("{name} {args:?} does not end")).unwrap();
    let text = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// An image server: what it holds, and each request it got as `METHOD /file range`.
struct Images {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Images {
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn content(file: &str) -> Option<Vec<u8>> {
    match file {
        "live.iso" => Some(vec![b'.'; 300_000]),
        "ipxe.iso" => {
            let mut image = vec![0; 200_000];
            image[2_000..2_006].copy_from_slice(b"#!ipxe");
            Some(image)
        }
        "empty.iso" => Some(Vec::new()),
        "bmc.bin" => Some("farrier-virtual-bmc-7.20\n".repeat(64).into()),
        "bios.bin" => Some("farrier-virtual-bios-2.1.0\n".repeat(64).into()),
        _ => None,
    }
}

async fn images() -> Images {
    async fn file(
        State(asked): State<Arc<Mutex<Vec<String>>>>,
        method: axum::http::Method,
        UrlPath(name): UrlPath<String>,
        headers: HeaderMap,
    ) -> Response {
        let range = headers.get(header::RANGE).and_then(|h| h.to_str().ok()).unwrap_or("-");
        asked.lock().unwrap().push(format!("{method} /{name} {range}"));
        let Some(all) = content(&name) else { return StatusCode::NOT_FOUND.into_response() };
        let last = range.strip_prefix("bytes=0-").and_then(|n| n.parse::<usize>().ok());
        match last {
            Some(last) if last + 1 < all.len() => {
                let of = format!("bytes 0-{last}/{}", all.len());
                (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, of)], all[..=last].to_vec())
                    .into_response()
            }
            _ => all.into_response(),
        }
    }
    let asked = Arc::new(Mutex::new(Vec::new()));
    let router = Router::new().route("/{file}", get(file)).with_state(asked.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Images { url, asked }
}
