//! Sockets and files around the transfers.

use super::packet::{self, Packet, Read, Refusal};
use super::transfer::{End, Event, Step, Transfer};
use crate::port::netboot::{LoaderGate, Loaders};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, watch};

/// How the server is to work.
#[derive(Clone)]
pub struct Settings {
    pub bind: Vec<SocketAddr>,
    pub loaders: Loaders,
    /// Who may load; `None`: everybody.
    pub gate: Option<Arc<dyn LoaderGate>>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("bind", &self.bind).finish_non_exhaustive()
    }
}

/// The TFTP server. Clones share one state.
#[derive(Clone, Debug)]
pub struct TftpServer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    /// Clients that are being served: firmware sends its request again when it is not answered at
    /// once.
    under_way: Mutex<BTreeSet<SocketAddr>>,
    /// By name.
    held: Mutex<BTreeMap<String, Held>>,
    room: Arc<Semaphore>,
}

/// A file as it was read, and when it was changed.
type Held = (SystemTime, Arc<[u8]>);

/// Transfers at once. A rack's machines wait a moment; firmware asks again.
const AT_ONCE: usize = 512;
/// From one address: a machine needs one, its next attempt another.
const FROM_ONE: usize = 8;
/// A loader has one or two megabytes.
const LARGEST: u64 = 32 << 20;
/// A transfer that takes longer is broken off.
const LONGEST: Duration = Duration::from_secs(600);

impl TftpServer {
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Shared {
            settings,
            under_way: Mutex::default(),
            held: Mutex::default(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
        }))
    }

    /// Opens the sockets.
    ///
    /// # Errors
    /// A sentence for a person.
    pub async fn bind(&self) -> Result<Vec<UdpSocket>, String> {
        let mut out = Vec::new();
        for address in &self.0.settings.bind {
            let socket = UdpSocket::bind(address).await.map_err(|e| {
                let hint = match e.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "Farrier needs CAP_NET_BIND_SERVICE for this: \
                         `AmbientCapabilities=CAP_NET_BIND_SERVICE` in its unit, or run it as root"
                    }
                    io::ErrorKind::AddrInUse => {
                        "another program has the port; `farrier doctor` says which"
                    }
                    io::ErrorKind::AddrNotAvailable => "no interface has this address now",
                    _ => "`bind` in `[listen.tftp]` says where Farrier listens",
                };
                format!("can't listen on {address} for `[listen.tftp]`: {e}\n  hint: {hint}")
            })?;
            out.push(socket);
        }
        Ok(out)
    }

    /// Serves until `ending` turns true.
    pub async fn serve(&self, sockets: Vec<UdpSocket>, ending: watch::Receiver<bool>) {
        let mut tasks = Vec::new();
        for socket in sockets {
            let (server, mut ending) = (self.clone(), ending.clone());
            tasks.push(tokio::spawn(async move {
                tokio::select! {
                    () = server.listen(&socket) => {}
                    _ = ending.wait_for(|e| *e) => {}
                }
            }));
        }
        for task in tasks {
            task.await.ok();
        }
    }

    async fn listen(&self, socket: &UdpSocket) {
        let mut buffer = vec![0_u8; 2048];
        let local = socket.local_addr().map_or(IpAddr::from([0, 0, 0, 0]), |a| a.ip());
        loop {
            let (length, peer) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(e) => {
                    // A client's ICMP answer to something that was sent; or the interface is away.
                    tracing::debug!(error = %e, "TFTP");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            let refusal = match packet::parse(bytes) {
                Ok(Packet::Read(read)) => {
                    self.begin(read, peer, local);
                    continue;
                }
                Ok(Packet::Write) => {
                    packet::error(Refusal::Denied, "Farrier takes no files over TFTP")
                }
                Ok(Packet::OtherMode(_)) => {
                    packet::error(Refusal::Illegal, "only the mode octet is served")
                }
                Ok(_) => continue,
                Err(why) => {
                    tracing::debug!(%peer, %why, "a packet that is no TFTP request");
                    continue;
                }
            };
            socket.send_to(&refusal, peer).await.ok();
        }
    }

    fn begin(&self, read: Read, peer: SocketAddr, local: IpAddr) {
        let Ok(room) = self.0.room.clone().try_acquire_owned() else {
            tracing::warn!(%peer, limit = AT_ONCE, "too many TFTP transfers; the client asks again");
            return;
        };
        {
            let mut under_way = self.0.under_way();
            let same = under_way.iter().filter(|p| p.ip() == peer.ip()).count();
            if same >= FROM_ONE || !under_way.insert(peer) {
                return;
            }
        }
        let shared = self.0.clone();
        tokio::spawn(async move {
            let transfer = shared.transfer(&read, peer, local);
            match tokio::time::timeout(LONGEST, transfer).await {
                Ok(Ok(End::Whole)) => {
                    tracing::info!(%peer, file = read.file, "TFTP: the loader was fetched");
                }
                Ok(Ok(end)) => tracing::debug!(%peer, file = read.file, ?end, "TFTP"),
                Ok(Err(why)) => tracing::warn!(%peer, file = read.file, "TFTP: {why}"),
                Err(_) => tracing::warn!(%peer, file = read.file, "TFTP: it took too long"),
            }
            shared.under_way().remove(&peer);
            drop(room);
        });
    }
}

impl Shared {
    fn under_way(&self) -> MutexGuard<'_, BTreeSet<SocketAddr>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one file from a port of its own (RFC 1350 §4), to this client alone.
    async fn transfer(
        self: &Arc<Self>,
        read: &Read,
        peer: SocketAddr,
        local: IpAddr,
    ) -> Result<End, String> {
        let words = |e: io::Error| e.to_string();
        let socket = UdpSocket::bind((local, 0)).await.map_err(words)?;
        socket.connect(peer).await.map_err(words)?;
        if !self.may_load(peer.ip()).await {
            socket
                .send(&packet::error(Refusal::Denied, "no run waits for this machine"))
                .await
                .ok();
            return Err("no run waits for the machine with this address; it got nothing".into());
        }
        let file = match self.file(&read.file).await {
            Ok(file) => file,
            Err(why) => {
                socket.send(&packet::error(Refusal::NotFound, "no such loader")).await.ok();
                return Err(why);
            }
        };
        let mut transfer = Transfer::new(file, read);
        let mut buffer = [0_u8; 1024];
        let (mut event, mut until) = (Event::Start, tokio::time::Instant::now());
        loop {
            match transfer.on(&event) {
                Step::Done(end) => return Ok(end),
                Step::Wait => {}
                Step::Send(packets, wait_ms) => {
                    for packet in packets {
                        // Refused: the client's port is closed. It will be silent, too.
                        socket.send(&packet).await.ok();
                    }
                    until = tokio::time::Instant::now() + Duration::from_millis(wait_ms);
                }
            }
            event = loop {
                match tokio::time::timeout_at(until, socket.recv(&mut buffer)).await {
                    Err(_) => break Event::Silence,
                    Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                    Ok(Ok(length)) => {
                        match packet::parse(buffer.get(..length).unwrap_or_default()) {
                            Ok(packet) => break Event::Packet(packet),
                            Err(_) => continue,
                        }
                    }
                }
            };
        }
    }

    async fn may_load(&self, from: IpAddr) -> bool {
        match (&self.settings.gate, from.to_canonical()) {
            (Some(gate), IpAddr::V4(from)) => gate.may_load(from).await,
            _ => true,
        }
    }

    /// The loader of this name, read once for each change of it.
    async fn file(self: &Arc<Self>, name: &str) -> Result<Arc<[u8]>, String> {
        let paths = self.settings.loaders.paths(name);
        if paths.is_empty() {
            return Err("that is not one of the boot loaders (`[loaders]`)".into());
        }
        let (shared, name) = (self.clone(), name.to_string());
        let read = tokio::task::spawn_blocking(move || {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for path in paths {
                match shared.read(&name, &path) {
                    Ok(file) => return Ok(file),
                    Err(e) if last.kind() == io::ErrorKind::NotFound => last = e,
                    Err(_) => {}
                }
            }
            Err(format!("the loader can't be read in any of `[loaders] paths`: {last}"))
        });
        read.await.map_err(|e| format!("the loader could not be read: {e}"))?
    }

    fn read(&self, name: &str, path: &std::path::Path) -> io::Result<Arc<[u8]>> {
        // Distributions link some of them; who may write there owns the machine anyway.
        let meta = std::fs::metadata(path)?;
        if !meta.is_file() || meta.len() > LARGEST {
            return Err(io::Error::other("it is no file of a loader's size"));
        }
        let changed = meta.modified()?;
        let held = || self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, file)) = held().get(name)
            && *at == changed
        {
            return Ok(file.clone());
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
        let file: Arc<[u8]> = bytes.into();
        held().insert(name.to_string(), (changed, file.clone()));
        Ok(file)
    }
}
