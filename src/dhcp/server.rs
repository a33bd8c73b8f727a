//! Sockets, clock and memory around the decision.

mod lessor;

use super::answer::{self, Answer, Door, Mode, Scene, Unknown, Why};
use super::interface::{Interface, interface, open_socket};
use super::journal::{self, Journal};
use super::lease::Leases;
use super::packet::{self, Request};
use super::place::{destination, place};
use super::seen::{Seen, Stranger};
use crate::model::network::{Lan, Mac};
use crate::port::netboot::{Loaders, Netboot, Residents, Roster};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, watch};

/// How the server is to work.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mode: Mode,
    /// Interfaces on which it answers, by name.
    pub interfaces: Vec<String>,
    pub unknown: Unknown,
    pub loaders: Loaders,
    /// Seconds for which a client believes in its address. The address is its own for longer.
    pub lease_s: u32,
    pub ports: Ports,
}

/// UDP ports; others than the usual ones are for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub dhcp: u16,
    /// Where firmware asks a proxy for its boot file.
    pub boot: u16,
    pub client: u16,
    pub relay: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { dhcp: 67, boot: 4011, client: 68, relay: 67 }
    }
}

/// The DHCP server. Clones share one state.
#[derive(Clone)]
pub struct DhcpServer(Arc<Shared>);

impl std::fmt::Debug for DhcpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DhcpServer({:?})", self.0.settings.mode)
    }
}

struct Shared {
    settings: Settings,
    netboot: Arc<dyn Netboot>,
    roster: Arc<dyn Roster>,
    journal: Journal,
    memory: Mutex<Memory>,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Memory {
    leases: Leases,
    seen: Seen,
    /// Who asked first in an open window, and when it last asked.
    first: BTreeMap<Mac, ([u8; 16], u64)>,
    /// Complaints that were logged, by MAC, and when: firmware asks again and again.
    said: BTreeMap<Mac, (String, u64)>,
}

/// Requests in work at once. Each holds a packet.
const AT_ONCE: usize = 4096;
/// Addresses of an interface are read again after this time.
const ADDRESSES: Duration = Duration::from_secs(5);
/// Who asked first counts for this long after it last asked, seconds.
const FIRST_S: u64 = 3600;
/// The same complaint about a machine is logged again after this time, seconds.
const SAID_S: u64 = 300;
/// Complaints and first ones that are remembered.
const REMEMBERED: usize = 65_536;
/// Longest packet that is read; a client's has at most 1,472 bytes.
const PACKET: usize = 4096;

/// Where a packet came in.
#[derive(Clone, Debug)]
pub struct Origin {
    pub interface: Interface,
    pub door: Door,
    pub peer: SocketAddr,
}

/// What is known of the server, for people.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub mode: &'static str,
    pub interfaces: Vec<String>,
    pub leases: Vec<Held>,
    pub strangers: Vec<Stranger>,
}

/// An address out of a range, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    pub network: Arc<str>,
    pub address: Ipv4Addr,
    pub mac: Mac,
    /// `None`: the inventory does not know this MAC any more.
    pub machine: Option<Arc<str>>,
}

/// A socket and what it belongs to.
#[derive(Debug)]
pub struct Listening {
    socket: Arc<UdpSocket>,
    interface: String,
    door: Door,
}

impl DhcpServer {
    /// Reads the leases back from `state_dir`. Blocks; needs a tokio runtime.
    ///
    /// # Errors
    /// A sentence for a person.
    pub fn open(
        state_dir: &Path,
        settings: Settings,
        netboot: Arc<dyn Netboot>,
        roster: Arc<dyn Roster>,
    ) -> Result<Self, String> {
        let (leases, journal) = journal::open(state_dir)?;
        let memory = Memory { leases, ..Memory::default() };
        Ok(Self(Arc::new(Shared {
            settings,
            netboot,
            roster,
            journal,
            memory: Mutex::new(memory),
            room: Arc::new(Semaphore::new(AT_ONCE)),
        })))
    }

    /// Opens the sockets.
    ///
    /// # Errors
    /// A sentence for a person: which interface and port, and what would help.
    pub fn bind(&self) -> Result<Vec<Listening>, String> {
        let settings = &self.0.settings;
        let mut out = Vec::new();
        for interface in &settings.interfaces {
            let mut open = |port, door| {
                let socket = Arc::new(open_socket(interface, port)?);
                out.push(Listening { socket, interface: interface.clone(), door });
                Ok::<_, String>(())
            };
            open(settings.ports.dhcp, Door::Dhcp)?;
            if settings.mode == Mode::Proxy {
                open(settings.ports.boot, Door::Boot)?;
            }
        }
        Ok(out)
    }

    /// Answers until `ending` turns true.
    pub async fn serve(&self, sockets: Vec<Listening>, ending: watch::Receiver<bool>) {
        let mut tasks = Vec::new();
        for listening in sockets {
            let (server, mut ending) = (self.clone(), ending.clone());
            tasks.push(tokio::spawn(async move {
                tokio::select! {
                    () = server.listen(listening) => {}
                    _ = ending.wait_for(|e| *e) => {}
                }
            }));
        }
        for task in tasks {
            task.await.ok();
        }
    }

    async fn listen(&self, listening: Listening) {
        let Listening { socket, interface: name, door } = listening;
        let mut here = read_interface(&name);
        let mut read_at = Instant::now();
        let mut buffer = vec![0_u8; PACKET];
        loop {
            let (length, peer) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(e) => {
                    // The interface is away; it may come back.
                    tracing::warn!(interface = name, error = %e, "DHCP can't be heard");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            if read_at.elapsed() > ADDRESSES {
                here = read_interface(&name);
                read_at = Instant::now();
            }
            let bytes = buffer.get(..length).unwrap_or_default().to_vec();
            let Ok(room) = self.0.room.clone().acquire_owned().await else { return };
            let origin = Origin { interface: here.clone(), door, peer };
            let (server, socket) = (self.clone(), socket.clone());
            tokio::spawn(async move {
                if let Some((reply, to)) = server.hear(&bytes, &origin).await
                    && let Err(e) = socket.send_to(&reply, to).await
                {
                    tracing::warn!(%to, interface = origin.interface.name, error = %e,
                        "a DHCP answer could not be sent; the client asks again");
                }
                drop(room);
            });
        }
    }

    /// One packet: the answer's bytes and where they go. What an answer says is durable by then.
    pub async fn hear(&self, bytes: &[u8], origin: &Origin) -> Option<(Vec<u8>, SocketAddr)> {
        let request = match packet::parse(bytes) {
            Ok(request) => request,
            Err(why) => {
                tracing::debug!(peer = %origin.peer, %why, "a packet that is no DHCP request");
                return None;
            }
        };
        let shared = &self.0;
        let lans = shared.roster.lans().await;
        let residents = shared.roster.residents(request.mac).await;
        let plan = match residents.by_mac.contains_key(&request.mac) {
            true => shared.netboot.boot_of(request.mac).await,
            false => None,
        };
        let now_s = now_s();
        let Some((lan, server)) = place(&request, &lans, &origin.interface) else {
            let what = "the interface has no IPv4 address: DHCP is not answered on it";
            if shared.memory().is_new(Mac([0; 6]), what, now_s) {
                tracing::warn!(interface = origin.interface.name, "{what}");
            }
            return None;
        };
        let answer = {
            let mut memory = shared.memory();
            let first_uuid = memory.first_uuid(&request, plan.is_some(), now_s);
            let scene = Scene {
                mode: shared.settings.mode,
                door: origin.door,
                lan,
                server,
                residents: &residents,
                plan: plan.as_ref(),
                first_uuid,
                loaders: &shared.settings.loaders,
                lease_s: shared.settings.lease_s,
                now_s,
            };
            let answer = answer::answer(&request, &scene, &mut memory.leases);
            shared.tell(&mut memory, &request, &answer, &residents, lan, now_s);
            answer
        };
        if let Why::OtherUuid(stated) = &answer.why {
            shared.netboot.other_asked(request.mac, stated).await;
        }
        if let Some(record) = answer.keep {
            if let Err(why) = shared.journal.keep(record.clone()).await {
                tracing::error!(mac = %request.mac, "{why}; no address is given until they can");
                return None;
            }
            shared.memory().leases.kept(&record);
        }
        let reply = answer.reply?;
        let to = destination(&reply, origin, shared.settings.ports);
        Some((reply.encode(), to))
    }

    /// Whose MAC has this address by now: out of a range, or by the inventory.
    pub async fn mac_at(&self, address: Ipv4Addr) -> Option<Mac> {
        if let Some(mac) = self.0.memory().leases.holder(address) {
            return Some(mac);
        }
        let residents = self.0.roster.residents(Mac([0; 6])).await;
        let mut all = residents.by_mac.iter();
        all.find(|(_, r)| r.address == Some(address)).map(|(mac, _)| *mac)
    }

    /// For people.
    pub async fn status(&self) -> Status {
        let residents = self.0.roster.residents(Mac([0; 6])).await;
        let memory = self.0.memory();
        let held = memory.leases.all().map(|(network, mac, address)| Held {
            network: network.clone(),
            address,
            mac,
            machine: residents.by_mac.get(&mac).map(|r| r.name.clone()),
        });
        Status {
            mode: match self.0.settings.mode {
                Mode::Proxy => "proxy",
                Mode::Reservation => "reservation",
            },
            interfaces: self.0.settings.interfaces.clone(),
            leases: held.collect(),
            strangers: memory.seen.list(|mac| residents.by_mac.contains_key(&mac)),
        }
    }
}

impl Memory {
    /// The UUID that came first since a run waits for this MAC. iPXE's own is its firmware's.
    fn first_uuid(&mut self, request: &Request, waits: bool, now_s: u64) -> Option<[u8; 16]> {
        if !waits {
            self.first.remove(&request.mac);
            return None;
        }
        let stated = request.uuid?;
        if self.first.len() >= REMEMBERED {
            self.first.retain(|_, (_, at_s)| now_s < at_s.saturating_add(FIRST_S));
        }
        let (first, at_s) = self.first.entry(request.mac).or_insert((stated, now_s));
        if now_s >= at_s.saturating_add(FIRST_S) {
            *first = stated;
        }
        if *first == stated {
            *at_s = now_s;
        }
        Some(*first)
    }

    /// Was this said of this machine just now?
    fn is_new(&mut self, mac: Mac, what: &str, now_s: u64) -> bool {
        if self.said.len() >= REMEMBERED {
            self.said.clear();
        }
        let fresh = self
            .said
            .get(&mac)
            .is_some_and(|(before, at_s)| before == what && now_s < at_s.saturating_add(SAID_S));
        if !fresh {
            self.said.insert(mac, (what.into(), now_s));
        }
        !fresh
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing panics while it is held, and each change of it is whole.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(
        &self,
        memory: &mut Memory,
        request: &Request,
        answer: &Answer,
        residents: &Residents,
        lan: Option<&Lan>,
        now_s: u64,
    ) {
        let mac = request.mac;
        let name = residents.by_mac.get(&mac).map_or("", |r| &*r.name);
        let network = lan.map_or("", |l| &*l.name);
        let what = match &answer.why {
            Why::Stranger => {
                tracing::debug!(%mac, network, class = request.class, "not in the inventory");
                if self.settings.unknown == Unknown::List {
                    memory.seen.note(request, lan.map(|l| l.name.clone()), now_s);
                }
                return;
            }
            Why::Address(address) => {
                tracing::debug!(machine = name, %mac, %address, kind = ?request.kind, "DHCP");
                return;
            }
            Why::Boot(address, file) => {
                tracing::info!(machine = name, %mac, %address, file, kind = ?request.kind,
                    "DHCP: the machine is told what to boot");
                return;
            }
            Why::Proxied(file) => {
                tracing::info!(machine = name, %mac, file, kind = ?request.kind,
                    "DHCP proxy: the machine is told what to boot");
                return;
            }
            Why::NotForUs | Why::NoWindow => {
                tracing::debug!(machine = name, %mac, kind = ?request.kind, why = ?answer.why, "DHCP");
                return;
            }
            Why::NotYours(address) => {
                format!("it wants {address}, which is not its own; it was told so and asks anew")
            }
            Why::NoLoader(arch) => format!(
                "its firmware is of architecture {arch} (option 93), and `[loaders]` names none for it; it gets nothing to boot"
            ),
            Why::TookOther(server) => {
                format!("it took the offer of another DHCP server, {server}; `farrier doctor` shows who answers here")
            }
            Why::NoRange => "its `host.address` lies elsewhere, and this network has no `range`; it gets no answer".into(),
            Why::Exhausted => "the network's `range` has no free address left; it gets no answer".into(),
            Why::Declined(address) => {
                format!("it found that another host uses {address}; that address rests for a day")
            }
            Why::OwnDeclined(address) => {
                format!("it found that another host uses {address}, its own address by the inventory")
            }
            Why::OtherUuid(uuid) => format!(
                "a machine with this MAC states the UUID {uuid}, which is not this machine's; it gets nothing to boot. Two machines have one MAC, or the inventory is wrong"
            ),
            Why::NoNetwork => "it asks from a network that the inventory does not know (`relay`, `subnet`); it gets no answer".into(),
        };
        if memory.is_new(mac, &what, now_s) {
            tracing::warn!(machine = name, %mac, network, interface = ?self.settings.interfaces, "DHCP: {what}");
        }
    }
}

fn read_interface(name: &str) -> Interface {
    interface(name).unwrap_or_else(|e| {
        tracing::warn!(interface = name, error = %e, "its addresses can't be read");
        Interface { name: name.into(), addresses: Vec::new() }
    })
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
