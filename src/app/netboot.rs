//! DHCP and TFTP wired up: who the machines are, which networks there are, and what people may see.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a copy of the machines has an age"
)]

use super::arrivals::{Arrival, Known, arrivals};
use super::current::Current;
use super::discover;
use crate::boot::pace::{Limits, paced};
use crate::boot::{BootServer, loader_router};
use crate::config::netboot::DhcpMode;
use crate::config::{Daemon, Loaded, Purpose};
use crate::dhcp::{self, DhcpServer, Mode, Ports, Stranger, Unknown};
use crate::engine::Director;
use crate::engine::driver::Handle;
use crate::model::network::{Lan, Mac};
use crate::model::{Expected, Identity, MachineId};
use crate::port::netboot::{
    Firmware, LoaderGate, Loaders, Netboot, Racks, Resident, Residents, Roster,
};
use crate::scan::reconcile::Delivered;
use crate::store::SqliteStore;
use crate::tftp::{self, TftpServer};
use async_trait::async_trait;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The loaders of the configuration, over what ships.
pub fn loaders(daemon: &Daemon) -> Loaders {
    let said = &daemon.loaders;
    let mut out = Loaders::default();
    if !said.paths.is_empty() {
        out.dirs.clone_from(&said.paths);
    }
    for firmware in Firmware::ALL {
        if let Some(name) = said.names.get(firmware.name()) {
            out.names.insert(firmware, name.clone());
        }
    }
    if !said.also.is_empty() {
        out.also.clone_from(&said.also);
    }
    out
}

/// The networks in which hosts can be served.
pub fn lans(loaded: &Loaded) -> Arc<[Lan]> {
    let served = loaded
        .networks
        .iter()
        .filter(|n| n.purpose != Purpose::Bmc && n.subnet.netmask().is_some());
    served.map(|n| (*n.lan).clone()).collect()
}

/// What the engine knows of machines, as DHCP reads it: the inventory's word, else what was proven.
pub fn residents<'e>(
    all: impl Iterator<Item = (MachineId, &'e Expected, &'e Identity)>,
) -> Residents {
    let mut out = Residents::default();
    for (machine, expected, proven) in all {
        let stated = &expected.identity;
        let address = match Loaded::address_of(&expected.host.address) {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        };
        out.addresses.extend(address);
        let mac = stated.mac.as_ref().or(proven.mac.as_ref());
        let mac = mac.and_then(|m| m.parse::<Mac>().ok());
        let Some(mac) = mac else { continue };
        let resident = Resident {
            machine,
            name: expected.name.clone(),
            address,
            uuid: stated.uuid.as_ref().or(proven.uuid.as_ref()).map(|u| u.to_string()),
            rack: expected.rack.clone(),
        };
        // A line that left the inventory stays known; the younger one of its MAC counts.
        let before = out.by_mac.get(&mac).is_none_or(|b| b.machine < machine);
        if before {
            out.by_mac.insert(mac, resident);
        }
    }
    out
}

/// Machines and networks as the engine and the configuration in force have them.
struct Live {
    current: Current,
    engine: Handle,
    copy: Mutex<Option<Copied>>,
    lans: Mutex<Option<Networks>>,
}

/// The networks of a configuration, and which one it was.
type Networks = (Arc<Loaded>, Arc<[Lan]>);

struct Copied {
    at: Instant,
    /// How long the engine took for it.
    cost: Duration,
    all: Arc<Residents>,
}

/// A copy of the machines is read again after this time, and sooner for a MAC that is not in it.
const OLD: Duration = Duration::from_secs(60);
const OLD_FOR_NEW: Duration = Duration::from_secs(1);
/// Strangers that ask all day take no more than one part in so many of the engine's time.
const SHARE: u32 = 100;

#[async_trait]
impl Roster for Live {
    async fn lans(&self) -> Arc<[Lan]> {
        let loaded = self.current.get();
        let mut held = self.lans.lock().await;
        if let Some((of, lans)) = &*held
            && Arc::ptr_eq(of, &loaded)
        {
            return lans.clone();
        }
        let fresh = lans(&loaded);
        *held = Some((loaded, fresh.clone()));
        fresh
    }

    async fn residents(&self, wanted: Mac) -> Arc<Residents> {
        // Held while they are read: a rack that is switched on reads them once.
        let mut copy = self.copy.lock().await;
        if let Some(c) = &*copy {
            let known = c.all.by_mac.contains_key(&wanted) || !wanted.is_card();
            let fresh = if known { OLD } else { OLD_FOR_NEW.max(c.cost.saturating_mul(SHARE)) };
            if c.at.elapsed() < fresh {
                return c.all.clone();
            }
        }
        let start = Instant::now();
        if let Some(all) = self.engine.ask(|director, _| read(director)).await {
            let (all, at) = (Arc::new(all), Instant::now());
            *copy = Some(Copied { at, cost: at - start, all });
        }
        // Without an answer the engine ends, and the daemon with it.
        copy.as_ref().map(|c| c.all.clone()).unwrap_or_default()
    }
}

fn read(director: &Director) -> Residents {
    residents(
        director.machines().filter_map(|m| Some((m.id, &**director.expected(m.id)?, &*m.identity))),
    )
}

/// Whose an address is, and what follows from it.
struct Addresses {
    dhcp: Option<DhcpServer>,
    roster: Arc<dyn Roster>,
    boot: BootServer,
}

impl Addresses {
    async fn mac_at(&self, address: Ipv4Addr) -> Option<Mac> {
        match &self.dhcp {
            Some(dhcp) => dhcp.mac_at(address).await,
            None => {
                let all = self.roster.residents(Mac([0; 6])).await;
                let mut all = all.by_mac.iter();
                all.find(|(_, r)| r.address == Some(address)).map(|(mac, _)| *mac)
            }
        }
    }
}

/// Machines that a run waits for may load, and addresses that are nobody's.
#[async_trait]
impl LoaderGate for Addresses {
    async fn may_load(&self, from: Ipv4Addr) -> bool {
        match self.mac_at(from).await {
            Some(mac) => self.boot.boot_of(mac).await.is_some(),
            None => true,
        }
    }
}

#[async_trait]
impl Racks for Addresses {
    async fn rack_of(&self, from: IpAddr) -> Option<Arc<str>> {
        let IpAddr::V4(from) = from else { return None };
        let mac = self.mac_at(from).await?;
        let all = self.roster.residents(mac).await;
        all.by_mac.get(&mac).map(|r| r.rack.clone())
    }
}

/// What serves machines that boot, opened and not yet serving.
pub struct Netbooting {
    dhcp: Option<(DhcpServer, Vec<dhcp::Listening>)>,
    tftp: Option<(TftpServer, Vec<tokio::net::UdpSocket>)>,
    loaders: Loaders,
    addresses: Arc<Addresses>,
    limits: Limits,
}

impl std::fmt::Debug for Netbooting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Netbooting({:?}, {:?})", self.dhcp, self.tftp)
    }
}

/// Opens what the configuration asks for.
///
/// # Errors
/// A sentence for a person: a port that is taken, a right that is missing, leases that can't be read.
pub async fn open(
    daemon: &Daemon,
    current: &Current,
    engine: &Handle,
    boot: &BootServer,
) -> Result<Netbooting, String> {
    let loaders = loaders(daemon);
    let roster: Arc<dyn Roster> = Arc::new(Live {
        current: current.clone(),
        engine: engine.clone(),
        copy: Mutex::default(),
        lans: Mutex::default(),
    });
    let dhcp = match &daemon.dhcp {
        None => None,
        Some(said) => {
            let settings = dhcp::Settings {
                mode: match said.mode {
                    DhcpMode::Proxy => Mode::Proxy,
                    DhcpMode::Reservation => Mode::Reservation,
                },
                interfaces: said.interfaces.clone(),
                unknown: if said.list_unknown { Unknown::List } else { Unknown::Refuse },
                loaders: loaders.clone(),
                lease_s: said.lease_s,
                ports: Ports::default(),
            };
            let netboot = Arc::new(boot.clone());
            let server = DhcpServer::open(&daemon.state, settings, netboot, roster.clone())?;
            current.lend(server.lessor());
            let sockets = server.bind()?;
            Some((server, sockets))
        }
    };
    let server = dhcp.as_ref().map(|(server, _)| server.clone());
    let addresses = Arc::new(Addresses { dhcp: server, roster, boot: boot.clone() });
    let tftp = match &daemon.tftp {
        None => None,
        Some(said) => {
            let server = TftpServer::new(tftp::Settings {
                bind: said.bind.clone(),
                loaders: loaders.clone(),
                gate: Some(addresses.clone()),
            });
            let sockets = server.bind().await?;
            Some((server, sockets))
        }
    };
    let limits = Limits {
        files: daemon.rack_limits.files,
        bytes_per_s: daemon.rack_limits.mbit_per_s.map(|m| u64::from(m) * 125_000),
    };
    Ok(Netbooting { dhcp, tftp, loaders, addresses, limits })
}

impl Netbooting {
    /// The boot listener's routes, with loaders beside them and the racks' limits over all.
    pub fn boot_router(&self, boot: Router) -> Router {
        let whole = boot.merge(loader_router(self.loaders.clone()));
        paced(whole, self.limits, self.addresses.clone())
    }

    /// Machines and networks as they are now.
    pub fn roster(&self) -> Arc<dyn Roster> {
        self.addresses.roster.clone()
    }

    /// What people may see of it.
    pub fn desk(&self, engine: Handle, store: SqliteStore) -> Desk {
        let dhcp = self.dhcp.as_ref().map(|(server, _)| server.clone());
        Desk { dhcp, engine, store }
    }

    /// Answers until `ending` turns true.
    pub fn start(self, ending: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
        let mut tasks = Vec::new();
        if let Some((server, sockets)) = self.dhcp {
            let ending = ending.clone();
            tracing::info!(mode = ?server, sockets = sockets.len(), "DHCP is answered");
            tasks.push(tokio::spawn(async move { server.serve(sockets, ending).await }));
        }
        if let Some((server, sockets)) = self.tftp {
            let ending = ending.clone();
            tasks.push(tokio::spawn(async move { server.serve(sockets, ending).await }));
        }
        tasks
    }
}

/// The DHCP server, where there is one, and what strangers are compared with.
#[derive(Clone, Debug)]
pub struct Desk {
    dhcp: Option<DhcpServer>,
    engine: Handle,
    store: SqliteStore,
}

impl Desk {
    async fn arrivals(&self, strangers: Vec<Stranger>) -> Vec<Arrival> {
        if strangers.is_empty() {
            return Vec::new();
        }
        let known = self.engine.ask(|director, _| known(director)).await.unwrap_or_default();
        let delivered = match self.store.delivered().await {
            Ok(all) => discover::by_mac(all),
            Err(e) => {
                tracing::warn!(error = %e, "delivery notes are not compared with who asked");
                Delivered::new()
            }
        };
        arrivals(strangers, &known, &delivered)
    }
}

fn known(director: &Director) -> Vec<Known> {
    let all = director.machines();
    all.filter_map(|m| {
        Some(Known { expected: director.expected(m.id)?.clone(), proven: (*m.identity).clone() })
    })
    .collect()
}

/// `GET /v1/dhcp`.
pub fn router() -> OpenApiRouter<Desk> {
    OpenApiRouter::new().routes(routes!(status))
}

/// Addresses given, and who asked with a MAC that nobody expects, beside whom it seems to be.
#[utoipa::path(get, path = "/v1/dhcp", tag = "site", operation_id = "show_dhcp",
    responses((status = 200, body = serde_json::Value,
        description = "`mode`, `interfaces`, `leases`, `strangers` (each with `kind`: unknown, \
            other-mac, bmc or delivered, `machine` and `what`)")))]
async fn status(State(desk): State<Desk>) -> Response {
    match &desk.dhcp {
        Some(dhcp) => {
            let status = dhcp.status().await;
            let strangers = desk.arrivals(status.strangers).await;
            Json(json!({
                "mode": status.mode, "interfaces": status.interfaces, "leases": status.leases,
                "strangers": strangers,
            }))
            .into_response()
        }
        None => Json(json!({ "mode": "off", "interfaces": [], "leases": [], "strangers": [] }))
            .into_response(),
    }
}
