//! Machines that asked and are not in the inventory: a short list for people.

use super::client::{Asks, Machine, classify};
use super::packet::Request;
use crate::model::network::Mac;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A machine that nobody expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stranger {
    pub mac: Mac,
    /// The network that it asked in, where the inventory knows it.
    pub network: Option<Arc<str>>,
    /// `pxe x64`, `http arm64`, `ipxe`, or empty for a system that only wants an address.
    pub asks: String,
    /// Option 60.
    pub class: String,
    /// Option 97 as hex, in the order of the wire.
    pub uuid: Option<String>,
    /// What it has or asked for, from whichever server: it may be reached there.
    pub address: Option<Ipv4Addr>,
    /// Wall clock, seconds since 1970.
    pub first_s: u64,
    pub last_s: u64,
    pub times: u64,
}

/// The last of them. Bounded: a made-up MAC costs nothing to send.
#[derive(Debug, Default)]
pub(super) struct Seen {
    by_mac: BTreeMap<Mac, Stranger>,
}

const KEPT: usize = 1024;

impl Seen {
    pub(super) fn note(&mut self, request: &Request, network: Option<Arc<str>>, now_s: u64) {
        if self.by_mac.len() >= KEPT && !self.by_mac.contains_key(&request.mac) {
            let oldest = self.by_mac.values().min_by_key(|s| s.last_s).map(|s| s.mac);
            oldest.and_then(|mac| self.by_mac.remove(&mac));
        }
        let entry = self.by_mac.entry(request.mac).or_insert_with(|| Stranger {
            mac: request.mac,
            network: None,
            asks: String::new(),
            class: String::new(),
            uuid: None,
            address: None,
            first_s: now_s,
            last_s: now_s,
            times: 0,
        });
        let asks = words(classify(request));
        // Its firmware says more of it than its system does.
        if entry.asks.is_empty() {
            entry.asks = asks;
            entry.class.clone_from(&request.class);
        }
        entry.uuid = request.uuid.map(hex::encode).or_else(|| entry.uuid.take());
        let has = Some(request.ciaddr).filter(|a| !a.is_unspecified()).or(request.requested);
        entry.address = has.or(entry.address);
        entry.network = network.or_else(|| entry.network.take());
        entry.last_s = now_s;
        entry.times = entry.times.saturating_add(1);
    }

    /// Those that are not expected by now, the last seen first.
    pub(super) fn list(&self, is_known: impl Fn(Mac) -> bool) -> Vec<Stranger> {
        let mut all: Vec<Stranger> =
            self.by_mac.values().filter(|s| !is_known(s.mac)).cloned().collect();
        all.sort_by_key(|s| (std::cmp::Reverse(s.last_s), s.mac));
        all
    }
}

fn words(asks: Asks) -> String {
    let machine = |m: Machine| match m {
        Machine::Known(firmware) => firmware.name().to_string(),
        Machine::Other(arch) => format!("architecture {arch}"),
    };
    match asks {
        Asks::Address => String::new(),
        Asks::Pxe(m) => format!("pxe {}", machine(m)),
        Asks::Http(m) => format!("http {}", machine(m)),
        Asks::Ipxe => "ipxe".into(),
    }
}
