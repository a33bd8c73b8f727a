//! Does an address answer IPMI? Two datagrams that need no login: RMCP's presence ping (ASF 2.0,
//! 3.2.4.3), which some BMCs leave out, and Get Channel Authentication Capabilities (IPMI 2.0, 22.13),
//! which every one of them answers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;

/// RMCP header of class ASF, then IANA 4542, presence ping, tag 0, no data.
const PING: [u8; 12] = [0x06, 0, 0xff, 0x06, 0, 0, 0x11, 0xbe, 0x80, 0, 0, 0];

/// RMCP header of class IPMI, no session, then the request: this channel, level administrator.
const CAPABILITIES: [u8; 23] = [
    0x06, 0, 0xff, 0x07, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x09, 0x20, 0x18, 0xc8, 0x81, 0, 0x38, 0x8e,
    0x04, 0xb5,
];

/// Datagrams get lost: each is sent so often.
const TRIES: u32 = 2;

/// Asks; `false` for whatever is not an answer to it.
pub(super) async fn answers(address: IpAddr, port: u16, wait: Duration) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let Ok(socket) = UdpSocket::bind(SocketAddr::new(any, 0)).await else { return false };
    // Connected: other senders are not heard, and a closed port is reported at once.
    if socket.connect(SocketAddr::new(address, port)).await.is_err() {
        return false;
    }
    let mut buffer = [0; 128];
    for _ in 0..TRIES {
        for datagram in [&PING[..], &CAPABILITIES[..]] {
            if socket.send(datagram).await.is_err() {
                return false;
            }
        }
        let heard = async {
            loop {
                match socket.recv(&mut buffer).await {
                    Ok(n) if is_answer(buffer.get(..n).unwrap_or_default()) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        match tokio::time::timeout(wait / TRIES, heard).await {
            Ok(told) => return told,
            Err(_) => continue,
        }
    }
    false
}

/// A presence pong that says IPMI, or an IPMI response to Get Channel Authentication Capabilities.
fn is_answer(bytes: &[u8]) -> bool {
    match bytes {
        // Pong: message type 40h; in "supported entities" bit 7 says IPMI.
        [0x06, _, _, 0x06, 0, 0, 0x11, 0xbe, 0x40, _, _, _, data @ ..] => {
            data.get(8).is_some_and(|entities| entities & 0x80 != 0)
        }
        // Network function "application response" (07h) and the command.
        [0x06, _, _, 0x07, 0, _, _, _, _, _, _, _, _, _, _, netfn, _, _, _, 0x38, ..] => {
            netfn >> 2 == 0x07
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_are_told_from_echoes() {
        let pong = |entities| {
            let mut p = vec![0x06, 0, 0xff, 0x06, 0, 0, 0x11, 0xbe, 0x40, 0, 0, 0x10];
            p.extend([0, 0, 0x11, 0xbe, 0, 0, 0, 0, entities, 0, 0, 0, 0, 0, 0, 0]);
            p
        };
        assert!(is_answer(&pong(0x81)));
        assert!(!is_answer(&pong(0x01)), "ASF without IPMI");
        assert!(!is_answer(&PING), "an echo service");
        assert!(!is_answer(&CAPABILITIES), "an echo service");
        let mut response = vec![0x06, 0, 0xff, 0x07, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
        response.extend([0x81, 0x1c, 0x63, 0x20, 0, 0x38, 0, 1, 0x80, 0x04, 0x02, 0, 0, 0, 0, 0]);
        assert!(is_answer(&response));
    }

    proptest! {
        #[test]
        fn no_datagram_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = is_answer(&bytes);
        }
    }
}
