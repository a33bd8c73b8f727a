//! Two thousand machines are switched on at once: how long until each has its offer, with its lease on
//! the disk, and its acknowledgement. Over real sockets on loopback, as a relay agent sees it.
//!
//!     cargo bench --bench dhcp
//!
//! Wants p99 <= 50 ms for each of the two.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark: sockets and a clock"
)]

use async_trait::async_trait;
use farrier::dhcp::{DhcpServer, Mode, Ports, Settings, Unknown};
use farrier::model::MachineId;
use farrier::model::network::{Lan, Mac};
use farrier::port::netboot::{Loaders, Netboot, NetbootPlan, Resident, Residents, Roster};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::watch;

const MACHINES: u32 = 2000;
const PORTS: Ports = Ports { dhcp: 16_067, boot: 16_011, client: 16_068, relay: 16_069 };

struct Site {
    lans: Arc<[Lan]>,
    residents: Arc<Residents>,
}

#[async_trait]
impl Roster for Site {
    async fn lans(&self) -> Arc<[Lan]> {
        self.lans.clone()
    }
    async fn residents(&self, _: Mac) -> Arc<Residents> {
        self.residents.clone()
    }
}

/// A run waits for each of them.
struct All;

#[async_trait]
impl Netboot for All {
    async fn boot_of(&self, mac: Mac) -> Option<NetbootPlan> {
        let base_url = "http://10.30.0.2:7121".to_string();
        Some(NetbootPlan { machine: MachineId(1), name: mac.to_string().into(), base_url })
    }

    async fn other_asked(&self, _mac: Mac, _stated: &str) {}
}

fn mac(n: u32) -> Mac {
    let [_, b, c, d] = n.to_be_bytes();
    Mac([0x0c, 0x42, 0xa1, b, c, d])
}

/// A message that a relay at 127.0.0.1 passes on.
fn message(n: u32, kind: u8, wants: Option<Ipv4Addr>) -> Vec<u8> {
    let mut out = vec![0_u8; 240];
    out[..4].copy_from_slice(&[1, 1, 6, 1]);
    out[4..8].copy_from_slice(&n.to_be_bytes());
    out[24..28].copy_from_slice(&[127, 0, 0, 1]);
    out[28..34].copy_from_slice(&mac(n).0);
    out[236..].copy_from_slice(&[99, 130, 83, 99]);
    out.extend([53, 1, kind, 55, 4, 1, 3, 66, 67, 93, 2, 0, 7]);
    out.extend([60, 9]);
    out.extend(b"PXEClient");
    if let Some(address) = wants {
        out.extend([54, 4, 127, 0, 0, 1, 50, 4]);
        out.extend(address.octets());
    }
    out.push(255);
    out
}

/// Sends all at once and waits for all answers: milliseconds and address by machine.
async fn round(socket: &UdpSocket, packets: &[Vec<u8>]) -> Vec<(f64, Ipv4Addr)> {
    let to: SocketAddr = (Ipv4Addr::LOCALHOST, PORTS.dhcp).into();
    let mut sent = vec![Instant::now(); packets.len()];
    let mut found = vec![None; packets.len()];
    let mut left = packets.len();
    let mut buffer = [0; 2048];
    let mut next = 0;
    while left > 0 {
        tokio::select! {
            biased;
            received = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)) => {
                let length = received.expect("an answer is missing").unwrap();
                let n = u32::from_be_bytes(buffer[4..8].try_into().unwrap()) as usize;
                let address = Ipv4Addr::from(<[u8; 4]>::try_from(&buffer[16..20]).unwrap());
                assert!(length >= 300);
                if found[n].is_none() {
                    found[n] = Some((sent[n].elapsed().as_secs_f64() * 1000.0, address));
                    left -= 1;
                }
            }
            ready = socket.writable(), if next < packets.len() => {
                ready.unwrap();
                sent[next] = Instant::now();
                if socket.try_send_to(&packets[next], to).is_ok() {
                    next += 1;
                }
            }
        }
    }
    found.into_iter().flatten().collect()
}

/// Is the 99th percentile within 50 ms?
fn show(what: &str, answers: &[(f64, Ipv4Addr)]) -> bool {
    let mut all: Vec<f64> = answers.iter().map(|a| a.0).collect();
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
    let fast = at(0.99) <= 50.0;
    let verdict = if fast { "ok" } else { "MISSED" };
    println!(
        "{what}: {} answers, p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms (wanted: p99 <= 50 ms: {verdict})",
        all.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    fast
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let state = tempfile::tempdir().unwrap();
        let lan = Lan {
            range: Some("127.1.0.1-127.1.31.254".parse().unwrap()),
            ..Lan::new("lab", "127.0.0.0/8".parse().unwrap())
        };
        let mut residents = Residents::default();
        for n in 0..MACHINES {
            let name = format!("n{n}").into();
            let resident = Resident {
                machine: MachineId(n),
                name,
                address: None,
                uuid: None,
                rack: "r".into(),
            };
            residents.by_mac.insert(mac(n), resident);
        }
        let site = Site { lans: vec![lan].into(), residents: Arc::new(residents) };
        let settings = Settings {
            mode: Mode::Reservation,
            interfaces: vec!["lo".into()],
            unknown: Unknown::Refuse,
            loaders: Loaders::default(),
            lease_s: 3600,
            ports: PORTS,
        };
        let server =
            DhcpServer::open(state.path(), settings, Arc::new(All), Arc::new(site)).unwrap();
        let sockets = server.bind().unwrap();
        let (_ending, ended) = watch::channel(false);
        tokio::spawn(async move { server.serve(sockets, ended).await });

        let relay =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        relay.set_nonblocking(true).unwrap();
        relay.set_recv_buffer_size(8 << 20).unwrap();
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, PORTS.relay).into();
        relay.bind(&address.into()).unwrap();
        let relay = UdpSocket::from_std(relay.into()).unwrap();

        let discovers: Vec<_> = (0..MACHINES).map(|n| message(n, 1, None)).collect();
        let offers = round(&relay, &discovers).await;
        let offered = show("DISCOVER, a new lease each", &offers);
        let mut addresses: Vec<Ipv4Addr> = offers.iter().map(|o| o.1).collect();
        let requests: Vec<_> =
            (0..MACHINES).zip(&addresses).map(|(n, a)| message(n, 3, Some(*a))).collect();
        let acknowledged = show("REQUEST", &round(&relay, &requests).await);
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), MACHINES as usize, "an address was given twice");
        assert!(offered && acknowledged, "too slow");
    });
}
