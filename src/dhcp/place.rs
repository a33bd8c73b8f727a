//! Where a request comes from, and where its answer goes: no socket, no clock.

use super::answer::Door;
use super::interface::Interface;
use super::packet::{Reply, Request, Said};
use super::server::{Origin, Ports};
use crate::model::network::Lan;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The request's network and our address on the way there; `None` when we have no address there.
pub(crate) fn place<'l>(
    request: &Request,
    lans: &'l [Lan],
    here: &Interface,
) -> Option<(Option<&'l Lan>, Ipv4Addr)> {
    let of =
        |a: Ipv4Addr| lans.iter().find(|l| l.relay.contains(&a) || l.subnet.contains(a.into()));
    let first = here.addresses.first().copied();
    // The client names the one of our addresses that it was told.
    let named = request.server.filter(|s| here.addresses.contains(s));
    if let Some(link) = link(request) {
        return Some((of(link), named.or(first)?));
    }
    // A client behind a relay renews without it.
    if !request.ciaddr.is_unspecified()
        && let Some(lan) = of(request.ciaddr)
    {
        let near = here.addresses.iter().find(|a| lan.subnet.contains((**a).into()));
        return Some((Some(lan), named.or(near.copied()).or(first)?));
    }
    let own = here.addresses.iter().find_map(|a| Some((of(*a)?, *a)));
    match own {
        Some((lan, address)) => Some((Some(lan), named.unwrap_or(address))),
        None => Some((None, named.or(first)?)),
    }
}

/// Where the relay says that the client is: link selection (RFC 3527) before its own address.
fn link(request: &Request) -> Option<Ipv4Addr> {
    if request.giaddr.is_unspecified() {
        return None;
    }
    let mut rest = request.relay.as_deref().unwrap_or_default();
    while let [kind, length, tail @ ..] = rest {
        let (data, next) = tail.split_at_checked((*length).into()).unwrap_or((tail, &[]));
        if *kind == LINK_SELECTION
            && let Ok(four) = <[u8; 4]>::try_from(data)
        {
            return Some(four.into());
        }
        rest = next;
    }
    Some(request.giaddr)
}

const LINK_SELECTION: u8 = 5;

/// Where a reply goes (RFC 2131 §4.1). A client that has no address yet is told by broadcast, also
/// where it could hear a unicast: that would take a raw socket, and a broadcast is allowed ("MAY be
/// sent as an IP broadcast").
pub(crate) fn destination(reply: &Reply, origin: &Origin, ports: Ports) -> SocketAddr {
    if origin.door == Door::Boot {
        let ip = match reply.ciaddr.is_unspecified() {
            true => origin.peer.ip(),
            false => IpAddr::V4(reply.ciaddr),
        };
        return SocketAddr::new(ip, origin.peer.port());
    }
    if !reply.giaddr.is_unspecified() {
        return (reply.giaddr, ports.relay).into();
    }
    if reply.said != Said::Nak && !reply.ciaddr.is_unspecified() {
        return (reply.ciaddr, ports.client).into();
    }
    (Ipv4Addr::BROADCAST, ports.client).into()
}
