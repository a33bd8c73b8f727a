//! The scan edge: which addresses of a range answer as BMCs do. It knocks gently and shows no
//! credential: the Redfish service root (DSP0266: open to everybody) over https, then http, and two
//! datagrams for IPMI. Redirects are not followed.
//!
//! What is found is compared with the inventory in [`reconcile`]; nothing follows from it but words.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an edge: connections are spread over time"
)]

mod neighbour;
mod presence;
pub mod range;
pub mod reconcile;
mod root;

pub use range::Range;
pub use root::Redfish;

use crate::model::network::Mac;
use futures_util::StreamExt;
use serde::Serialize;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How a scan knocks. The defaults are those of a guest: a /24 takes a quarter of a minute.
#[derive(Clone, Debug)]
pub struct Settings {
    pub https_port: u16,
    pub http_port: u16,
    pub ipmi_port: u16,
    /// Connections and datagram pairs begun a second, over all addresses.
    pub per_s: u32,
    /// Addresses at once.
    pub at_once: usize,
    /// For one connection, its answer included.
    pub timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            https_port: 443,
            http_port: 80,
            ipmi_port: 623,
            per_s: 50,
            at_once: 64,
            timeout_ms: 4_000,
        }
    }
}

/// What answers at an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    pub address: IpAddr,
    pub redfish: Option<Redfish>,
    pub ipmi: bool,
    /// Something answers HTTP and is no Redfish service: what it does.
    pub other: Option<String>,
    /// Its network card's, where it is on the same wire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

impl Found {
    fn is_something(&self) -> bool {
        self.redfish.is_some() || self.ipmi || self.other.is_some()
    }
}

/// Lets one connection begin every so often.
#[derive(Debug)]
struct Pace {
    every: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    fn new(per_s: u32) -> Self {
        Self { every: Duration::from_secs(1) / per_s.max(1), next: Mutex::new(Instant::now()) }
    }

    async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().await;
            let at = (*next).max(Instant::now());
            *next = at + self.every;
            at
        };
        tokio::time::sleep_until(at.into()).await;
    }
}

/// Knocks at every address; `tick` is called after each. What answers, by address.
///
/// # Errors
/// A sentence: the HTTP client can't be set up.
pub async fn scan(
    addresses: impl Iterator<Item = IpAddr>,
    settings: &Settings,
    tick: impl Fn(),
) -> Result<Vec<Found>, String> {
    let client = root::client(settings)?;
    let pace = Pace::new(settings.per_s);
    let (client, pace) = (&client, &pace);
    let mut found: Vec<Found> = futures_util::stream::iter(addresses)
        .map(|address| async move { knock(client, pace, settings, address).await })
        .buffer_unordered(settings.at_once.max(1))
        .inspect(|_| tick())
        .filter(|f| std::future::ready(f.is_something()))
        .collect()
        .await;
    let neighbours = neighbour::neighbours();
    for found in &mut found {
        found.mac = neighbours.get(&found.address).copied();
    }
    found.sort_by_key(|f| f.address);
    Ok(found)
}

/// What a body says to everybody, as a scan reads it; `None`: it is no service root.
#[doc(hidden)]
pub fn service_root(body: &[u8]) -> Option<Redfish> {
    root::read(body)
}

async fn knock(
    client: &reqwest::Client,
    pace: &Pace,
    settings: &Settings,
    address: IpAddr,
) -> Found {
    let mut found = Found { address, redfish: None, ipmi: false, other: None, mac: None };
    for (scheme, port) in [("https", settings.https_port), ("http", settings.http_port)] {
        pace.turn().await;
        match root::ask(client, scheme, address, port).await {
            root::Heard::Redfish(redfish) => {
                (found.redfish, found.other) = (Some(redfish), None);
                break;
            }
            root::Heard::Other(what) => {
                found.other.get_or_insert(what);
            }
            root::Heard::Silence => {}
        }
    }
    pace.turn().await;
    let wait = Duration::from_millis(settings.timeout_ms.min(2_000));
    found.ipmi = presence::answers(address, settings.ipmi_port, wait).await;
    found
}
