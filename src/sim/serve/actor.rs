//! What a host does by itself: when it boots from the network it fetches its script and its seed
//! from the daemon, installs, calls back and boots its disk; a power cut kills what runs on it. The
//! calls are real and come from the host's own address.

use super::seat::{Counters, Happening, Seat};
use super::{Hosts, World, call, host, sandbox};
use crate::sim::physics::HostState;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a network boot asks a server that does not answer, real time: firmware gives up after
/// a few minutes, and a daemon that restarts is back sooner.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(300);
const DOCUMENT_MAX: usize = 256 * 1024;

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
) {
    // A host that runs no programs has no files either.
    let files = world.hosts == Hosts::Programs;
    let mut seed: Option<Seed> = None;
    while let Some(happening) = inbox.recv().await {
        let done = match happening {
            Happening::Cut => {
                if files {
                    sandbox::kill_all(&seat.root).await;
                }
                Ok(())
            }
            Happening::NetBoot { boot } => {
                seed = net_boot(&world, &seat, boot).await;
                match &seed {
                    Some(_) if files && seat.with(world.now(), |b| b.vm.is_installing()) => {
                        seat.with(world.now(), |b| b.told_jobs.clear());
                        sandbox::erase(&seat.root).await
                    }
                    _ => Ok(()),
                }
            }
            Happening::Installed { ok: true } => match &seed {
                Some(seed) => {
                    let done = match files {
                        true => sandbox::install(&seat.root, &seed.image, &seed.run).await,
                        false => Ok(()),
                    };
                    let key = seat.with(world.now(), |b| host::public_host_key(&b.vm));
                    let body = json!({
                        "token": seed.token, "ok": true, "host_key": key, "message": null,
                    });
                    drop(tokio::spawn(call_back(seat.clone(), seed.clone(), body)));
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
                    drop(tokio::spawn(call_back(seat.clone(), seed.clone(), body)));
                }
                Ok(())
            }
            Happening::Up { boot } => {
                let done = match files {
                    true => sandbox::boot(&seat, boot).await,
                    false => Ok(()),
                };
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
async fn net_boot(world: &World, seat: &Seat, boot: u32) -> Option<Seed> {
    let mac = seat.with(world.now(), |b| b.vm.identity.mac.clone()).unwrap_or_default();
    let base = world.boot_url().map(|url| format!("{url}/boot/{mac}"));
    let still =
        || seat.with(world.now(), |b| b.vm.boots == boot && b.vm.host == HostState::NetBoot);
    let script = match &base {
        Some(base) => fetch(seat, &format!("{base}/ipxe"), still).await,
        None => None,
    };
    let chained = script.as_deref().is_some_and(|s| s.starts_with("#!ipxe"));
    if !still() {
        return None;
    }
    seat.with(world.now(), |b| b.vm.script_answered(world.now(), chained));
    let base = base.filter(|_| chained)?;
    let text = fetch(seat, &format!("{base}/seed.json"), still).await;
    let seed: Option<Seed> = text.and_then(|t| serde_json::from_str(&t).ok());
    if !still() {
        return None;
    }
    let answer = seed.as_ref().map(|s| (s.run.clone(), s.image.clone(), s.allow_existing_data));
    seat.with(world.now(), |b| b.vm.seed_answered(world.now(), answer));
    seed
}

/// One document; asks again while nobody answers and the boot goes on.
async fn fetch(seat: &Seat, url: &str, still: impl Fn() -> bool) -> Option<String> {
    let asking = async {
        while still() {
            Counters::count(&seat.counters.boot_fetches);
            match call::get(seat.address, url, DOCUMENT_MAX).await {
                Ok(answer) if answer.ok() => {
                    return Some(String::from_utf8_lossy(&answer.body).into_owned());
                }
                Ok(answer) if answer.status < 500 => return None,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, url, "no boot file"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        None
    };
    tokio::time::timeout(PATIENCE, asking).await.ok().flatten()
}

/// Calls back until somebody answers: an installer's last act.
async fn call_back(seat: Arc<Seat>, seed: Seed, body: serde_json::Value) {
    let body = body.to_string();
    let calling = async {
        loop {
            Counters::count(&seat.counters.callbacks);
            match call::post(seat.address, &seed.callback, &body).await {
                Ok(answer) if answer.status < 500 => return,
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    if tokio::time::timeout(PATIENCE * 3, calling).await.is_err() {
        tracing::warn!(machine = %seat.name, "nobody took the callback of a virtual host");
    }
}
