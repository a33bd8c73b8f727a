//! What a host does by itself: when it boots from the network it fetches its script and its seed
//! from the daemon, installs, calls back and boots its disk; a power cut kills what runs on it. The
//! calls are real and come from the host's own address.

use super::seat::{Counters, Happening, Seat};
use super::{World, WorldError, host, sandbox};
use crate::sim::physics::HostState;
use serde::Deserialize;
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a network boot asks a server that does not answer, real time: firmware gives up after
/// a few minutes, and a daemon that restarts is back sooner.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(300);

/// A client whose calls come from the machine's own address. Everything here is plain HTTP, so no
/// certificates are loaded.
pub(super) fn client(seat: &Seat) -> Result<reqwest::Client, WorldError> {
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .local_address(IpAddr::from(seat.address))
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(10))
        .build()?;
    Ok(client)
}

/// What the seed says (boot HTTP contract).
#[derive(Clone, Debug, Deserialize)]
struct Seed {
    run: String,
    image: String,
    #[serde(default)]
    allow_existing_data: bool,
    token: String,
    callback: String,
}

/// Lives until the world ends.
pub(super) async fn live(
    world: Arc<World>,
    seat: Arc<Seat>,
    mut inbox: mpsc::UnboundedReceiver<Happening>,
    client: reqwest::Client,
) {
    let mut seed: Option<Seed> = None;
    while let Some(happening) = inbox.recv().await {
        let done = match happening {
            Happening::Cut => {
                sandbox::kill_all(&seat.root).await;
                Ok(())
            }
            Happening::NetBoot { boot } => {
                seed = net_boot(&world, &seat, &client, boot).await;
                match &seed {
                    Some(_) if seat.with(world.now(), |b| b.vm.is_installing()) => {
                        seat.with(world.now(), |b| b.told_jobs.clear());
                        sandbox::erase(&seat.root).await
                    }
                    _ => Ok(()),
                }
            }
            Happening::Installed { ok: true } => match &seed {
                Some(seed) => {
                    let done = sandbox::install(&seat.root, &seed.image, &seed.run).await;
                    let key = seat.with(world.now(), |b| host::public_host_key(&b.vm));
                    let body = json!({
                        "token": seed.token, "ok": true, "host_key": key, "message": null,
                    });
                    drop(tokio::spawn(call_back(seat.clone(), client.clone(), seed.clone(), body)));
                    done
                }
                None => Ok(()),
            },
            // The installer died: nobody says a word.
            Happening::Installed { ok: false } => Ok(()),
            Happening::Refused { why } => {
                if let Some(seed) = &seed {
                    let body = json!({
                        "token": seed.token, "ok": false, "host_key": null, "message": why,
                    });
                    drop(tokio::spawn(call_back(seat.clone(), client.clone(), seed.clone(), body)));
                }
                Ok(())
            }
            Happening::Up { boot } => {
                let done = sandbox::boot(&seat, boot).await;
                seat.host_ready(world.now(), boot);
                done
            }
        };
        if let Err(error) = done {
            tracing::error!(machine = %seat.name, %error, "a virtual host's files can't be written");
        }
    }
}

/// Asks for the script, then for the seed; tells the physics what came of it.
async fn net_boot(world: &World, seat: &Seat, client: &reqwest::Client, boot: u32) -> Option<Seed> {
    let mac = seat.with(world.now(), |b| b.vm.identity.mac.clone()).unwrap_or_default();
    let base = world.boot_url().map(|url| format!("{url}/boot/{mac}"));
    let still =
        || seat.with(world.now(), |b| b.vm.boots == boot && b.vm.host == HostState::NetBoot);
    let script = match &base {
        Some(base) => fetch(seat, client, &format!("{base}/ipxe"), still).await,
        None => None,
    };
    let chained = script.as_deref().is_some_and(|s| s.starts_with("#!ipxe"));
    if !still() {
        return None;
    }
    seat.with(world.now(), |b| b.vm.script_answered(world.now(), chained));
    let base = base.filter(|_| chained)?;
    let text = fetch(seat, client, &format!("{base}/seed.json"), still).await;
    let seed: Option<Seed> = text.and_then(|t| serde_json::from_str(&t).ok());
    if !still() {
        return None;
    }
    let answer = seed.as_ref().map(|s| (s.run.clone(), s.image.clone(), s.allow_existing_data));
    seat.with(world.now(), |b| b.vm.seed_answered(world.now(), answer));
    seed
}

/// One document; asks again while nobody answers and the boot goes on.
async fn fetch(
    seat: &Seat,
    client: &reqwest::Client,
    url: &str,
    still: impl Fn() -> bool,
) -> Option<String> {
    let asking = async {
        while still() {
            Counters::count(&seat.counters.boot_fetches);
            match client.get(url).send().await {
                Ok(answer) if answer.status().is_success() => match answer.text().await {
                    Ok(text) => return Some(text),
                    Err(error) => tracing::debug!(%error, "half a boot file"),
                },
                Ok(answer) if !answer.status().is_server_error() => return None,
                _ => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        None
    };
    tokio::time::timeout(PATIENCE, asking).await.ok().flatten()
}

/// Calls back until somebody answers: an installer's last act.
async fn call_back(seat: Arc<Seat>, client: reqwest::Client, seed: Seed, body: serde_json::Value) {
    let calling = async {
        loop {
            Counters::count(&seat.counters.callbacks);
            match client.post(&seed.callback).json(&body).send().await {
                Ok(answer) if !answer.status().is_server_error() => return,
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    if tokio::time::timeout(PATIENCE * 3, calling).await.is_err() {
        tracing::warn!(machine = %seat.name, "nobody took the callback of a virtual host");
    }
}
