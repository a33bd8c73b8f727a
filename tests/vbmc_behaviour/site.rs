//! A world of virtual BMCs, our client, and a plain one.

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use farrier::bmc::{RedfishBmc, Settings as BmcSettings};
use farrier::config::shipped::VIRTUAL_IMAGES;
use farrier::model::action::{Expect, Outcome};
use farrier::model::{BmcEndpoint, Channel, EngineTime, Fault, FaultClass, Identity, MachineId};
use farrier::port::{BmcTarget, Credential, Secret, Vault};
use farrier::sim::durations::{Draw, Durations};
use farrier::sim::faults::Dice;
use farrier::sim::serve::{
    Behaviour, Berth, Hosts, Latency, Profile, Seat, Serving, Settings, serve_as,
};
use farrier::sim::truth::{Effect, What};
use reqwest::Method;
use reqwest::header::HeaderMap;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(super) const PASSWORD: &str = "virtual-bmc-pw-1";

pub(super) struct OneCredential;

#[async_trait]
impl Vault for OneCredential {
    async fn credential(&self, _name: &str) -> Result<Credential, Fault> {
        Ok(Credential { user: "admin".into(), password: Secret::new(PASSWORD) })
    }

    async fn ssh_key(&self, _name: &str) -> Result<Secret, Fault> {
        Err(Fault::new(FaultClass::Bug, Channel::Host, "no-key", "none here"))
    }
}

/// Our client. A BMC that hangs must not cost the test a minute.
pub(super) fn edge(timeout_ms: u64) -> RedfishBmc {
    let settings = BmcSettings {
        quirks: std::sync::Arc::new(farrier::config::quirks::shipped()),
        // In a time that runs faster its real seconds would be hours.
        settle_after_reset: false,
        read_timeout_ms: timeout_ms,
        write_timeout_ms: timeout_ms,
        ..BmcSettings::default()
    };
    RedfishBmc::new(Arc::new(OneCredential), settings)
}

pub(super) struct Site {
    pub(super) serving: Serving,
    pub(super) http: reqwest::Client,
    /// Where BMCs fetch the virtual images: its URL.
    pub(super) images: String,
    _dir: TempDir,
}

pub(super) fn identity(n: usize) -> Identity {
    Identity::new(
        Some(&format!("VB{n:06}")),
        Some(&format!("f0b1{n:04x}-1111-4222-8333-444455556666")),
        Some(&format!("02:fb:00:00:00:{n:02x}")),
    )
}

/// Physical times short enough to wait for; whatever a draw says, nothing is instant.
fn durations() -> Durations {
    Durations { post: Draw::new(90_000, 0.2, 60_000, 120_000), ..Durations::default() }
}

pub(super) fn shipped(names: &[&str]) -> Vec<Arc<Profile>> {
    names.iter().map(|n| Profile::named(n).unwrap()).collect()
}

/// A profile of the test's own: `text` after its name.
pub(super) fn own(text: &str) -> Vec<Arc<Profile>> {
    vec![Profile::parse("test.toml", &format!("name = \"test\"\n{text}")).unwrap()]
}

impl Site {
    /// One machine a profile, `machines` of them.
    pub(super) async fn start(scale: u32, machines: usize, behaviour: Behaviour) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let keypair = Ed25519Keypair::from_seed(&[9; 32]);
        let key = PrivateKey::new(KeypairData::Ed25519(keypair), "site").unwrap();
        let berths = (1..=machines).map(|n| {
            let profile = behaviour.profiles.get((n - 1) % behaviour.profiles.len().max(1));
            Berth {
                id: MachineId(u32::try_from(n).unwrap()),
                name: format!("node-{n}").into(),
                identity: identity(n),
                gpus: 8,
                quirks: profile.map(|p| p.quirks()).unwrap_or_default(),
                sick: None,
                user: "admin".into(),
                password: PASSWORD.into(),
                dice: Dice::none(),
            }
        });
        let settings = Settings {
            dir: dir.path().join("world"),
            seed: 1,
            scale,
            durations: durations(),
            latency: Latency::Even(0, 0),
            hosts: Hosts::Scripted,
            authorized_key: key.public_key().to_openssh().unwrap(),
            redfish_port: 0,
            ssh_port: 0,
            machines: berths.collect(),
        };
        let serving = serve_as(settings, behaviour).await.unwrap();
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let http =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
        Site { serving, http, images: images().await, _dir: dir }
    }

    pub(super) async fn of(scale: u32, profiles: Vec<Arc<Profile>>) -> Site {
        let machines = profiles.len();
        Self::start(scale, machines, Behaviour { profiles, ..Behaviour::default() }).await
    }

    pub(super) fn seat(&self, n: usize) -> &Arc<Seat> {
        &self.serving.world.seats[n - 1]
    }

    pub(super) fn now(&self) -> EngineTime {
        self.serving.world.now()
    }

    pub(super) fn target(&self, n: usize) -> BmcTarget {
        BmcTarget {
            machine: MachineId(u32::try_from(n).unwrap()),
            name: format!("node-{n}").into(),
            endpoint: BmcEndpoint {
                url: self.serving.bmc_url(self.seat(n)).into(),
                credential: "bmc".into(),
                tls: "off".into(),
                ipmi: None,
                controllers: Default::default(),
            },
            identity: identity(n),
        }
    }

    pub(super) fn expect(n: usize) -> Expect {
        Expect { identity: Identity { mac: None, ..identity(n) }, ..Expect::default() }
    }

    /// How often something truly happened to machine `n`.
    pub(super) fn truth(&self, n: usize, which: impl Fn(&Effect) -> bool) -> usize {
        self.seat(n).with(self.now(), |b| b.vm.truth.count(which))
    }

    pub(super) fn flashes(&self, n: usize) -> usize {
        self.truth(n, |e| matches!(e.what, What::FlashStarted { .. }))
    }

    /// A request with Basic and further headers; status, headers, body.
    pub(super) async fn call(
        &self,
        n: usize,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> (u16, HeaderMap, Value) {
        let url = format!("{}{path}", self.serving.bmc_url(self.seat(n)));
        let mut request = self.http.request(method, url).basic_auth("admin", Some(PASSWORD));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap_or_else(|e| panic!("{path}: {e:?}"));
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.bytes().await.unwrap_or_default();
        (status, headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub(super) async fn get(&self, n: usize, path: &str) -> Value {
        let (status, _, body) = self.call(n, Method::GET, path, &[], None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(super) async fn log_in(&self, n: usize, password: &str) -> (u16, HeaderMap, Value) {
        let url =
            format!("{}/redfish/v1/SessionService/Sessions", self.serving.bmc_url(self.seat(n)));
        let body = json!({"UserName": "admin", "Password": password});
        let answer = self.http.post(url).json(&body).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.bytes().await.unwrap();
        (status, headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub(super) async fn admin(
        &self,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.serving.admin_url));
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Sessions that machine `n`'s BMC has open.
    pub(super) async fn open_sessions(&self, n: usize) -> u64 {
        let (_, counters) = self.admin(Method::GET, "/counters", None).await;
        counters[format!("node-{n}")]["open_sessions"].as_u64().unwrap()
    }
}

async fn images() -> String {
    let mut router = Router::new();
    for (path, bytes) in VIRTUAL_IMAGES {
        router = router.route(&format!("/{path}"), get(move || async move { bytes.to_vec() }));
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(tokio::spawn(async move { axum::serve(listener, router).await }));
    url
}

/// Asks again and again until it is so.
pub(super) async fn until<F: Future<Output = Option<T>>, T>(
    what: &str,
    mut is: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(found) = is().await {
            return found;
        }
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Gives an order as the engine would: again where it was surely not carried out and the reason
/// passes, never where nobody knows. Returns the last outcome.
pub(super) async fn order<F: Future<Output = Outcome>>(
    what: &str,
    mut give: impl FnMut() -> F,
) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        match give().await {
            Outcome::Failed { fault }
                if matches!(fault.class, FaultClass::Transient | FaultClass::Throttled) =>
            {
                assert!(Instant::now() < deadline, "{what}: {fault:?}");
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            Outcome::Failed { fault } => panic!("{what}: {fault:?}"),
            outcome => return outcome,
        }
    }
}
