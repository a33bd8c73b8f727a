//! Who answers DHCP on an interface: two questions as a machine that nobody knows, and what comes back.

use super::interface::open_socket;
use super::packet::{self, Heard, discover};
use super::server::Ports;
use crate::model::network::Mac;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::time::Instant;

/// Asks for an address, and for something to boot (UEFI, x86-64), and listens for so long. The
/// MAC is made up: no lease of a real machine is touched, and Farrier's own server does not answer it.
///
/// # Errors
/// A sentence for a person: the socket can't be opened.
pub async fn survey(interface: &str, ports: Ports, wait: Duration) -> Result<Vec<Heard>, String> {
    let socket = open_socket(interface, ports.client)?;
    let seed = uuid::Uuid::new_v4();
    let [a, b, c, x0, x1, x2, x3, ..] = *seed.as_bytes();
    // A locally administered address (IEEE 802, bit 1 of the first octet).
    let mac = Mac([0x02, 0x46, 0x52, a, b, c]);
    let xid = u32::from_be_bytes([x0, x1, x2, x3]);
    let questions = [discover(mac, xid, false), discover(mac, xid.wrapping_add(1), true)];
    let everybody = SocketAddr::from((Ipv4Addr::BROADCAST, ports.dhcp));
    let end = Instant::now() + wait;
    let mut again = Instant::now();
    let mut found: Vec<Heard> = Vec::new();
    let mut buffer = vec![0_u8; 4096];
    while Instant::now() < end {
        if Instant::now() >= again {
            for question in &questions {
                socket.send_to(question, everybody).await.map_err(|e| {
                    format!("a question can't be sent on interface `{interface}`: {e}")
                })?;
            }
            again = Instant::now() + Duration::from_millis(1500);
        }
        let until = again.min(end);
        let Ok(received) = tokio::time::timeout_at(until, socket.recv_from(&mut buffer)).await
        else {
            continue;
        };
        let Ok((length, peer)) = received else { continue };
        let bytes = buffer.get(..length).unwrap_or_default();
        let IpAddr::V4(from) = peer.ip() else { continue };
        let Ok(heard) = packet::parse_reply(bytes, from) else { continue };
        if heard.mac == mac && !found.contains(&heard) {
            found.push(heard);
        }
    }
    found.sort_by_key(|h| (h.server, h.file.clone()));
    Ok(found)
}
