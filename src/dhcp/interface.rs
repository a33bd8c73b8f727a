//! Network interfaces: their addresses, and sockets that belong to one of them.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::net::UdpSocket;

/// An interface and its IPv4 addresses, in the kernel's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub addresses: Vec<Ipv4Addr>,
}

/// Reads the interface's addresses. One without an address or one that is not there has none.
///
/// # Errors
/// The kernel's.
pub fn interface(name: &str) -> io::Result<Interface> {
    let all = if_addrs::get_if_addrs()?;
    let own = all.iter().filter(|i| i.name == name).filter_map(|i| match i.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    Ok(Interface { name: name.into(), addresses: own.collect() })
}

/// A UDP socket that hears and says everything through this one interface, broadcasts too. Two
/// interfaces have two such sockets on one port; a program that holds the port on all interfaces
/// keeps it from us.
///
/// # Errors
/// A sentence for a person, with what they can do.
pub fn open_socket(interface: &str, port: u16) -> Result<UdpSocket, String> {
    let make = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_broadcast(true)?;
        socket.set_nonblocking(true)?;
        // A rack that is switched on asks at once.
        socket.set_recv_buffer_size(4 << 20)?;
        Ok(socket)
    };
    let socket = make().map_err(|e| trouble(interface, port, &e))?;
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    socket.bind(&any.into()).map_err(|e| trouble(interface, port, &e))?;
    UdpSocket::from_std(socket.into()).map_err(|e| trouble(interface, port, &e))
}

fn trouble(interface: &str, port: u16, e: &io::Error) -> String {
    let hint = match e.kind() {
        io::ErrorKind::PermissionDenied => {
            "Farrier needs CAP_NET_BIND_SERVICE and CAP_NET_RAW for this: \
             `AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_NET_RAW` in its unit, or run it as root"
        }
        io::ErrorKind::AddrInUse => "another program has the port; `farrier doctor` says which",
        _ if e.raw_os_error() == Some(19) => {
            "there is no such interface: `interfaces` in `[listen.dhcp]` has their names"
        }
        _ => "`interfaces` in `[listen.dhcp]` says where Farrier answers",
    };
    format!("can't answer DHCP on interface `{interface}`, port {port}: {e}\n  hint: {hint}")
}
