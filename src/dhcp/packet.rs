//! DHCP messages as bytes: requests read leniently and without a panic, replies written by
//! `dhcproto`.
//!
//! `dhcproto`'s owned message stops at the first option that it does not like, and firmware sends
//! such: options are taken raw from its iterator, and each is judged by itself.

use crate::model::network::Mac;
use dhcproto::v4::{self, DhcpOption, OptionCode, UnknownOption};
use dhcproto::{Encodable, Encoder};
use std::net::Ipv4Addr;

/// Option codes that are read or written here (RFC 2132, 3004, 3046, 4578).
pub mod code {
    pub const NETMASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const BROADCAST: u8 = 28;
    pub const NTP: u8 = 42;
    pub const VENDOR: u8 = 43;
    pub const REQUESTED: u8 = 50;
    pub const LEASE: u8 = 51;
    pub const KIND: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const WANTED: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const RENEW: u8 = 58;
    pub const REBIND: u8 = 59;
    pub const CLASS: u8 = 60;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    pub const USER_CLASS: u8 = 77;
    pub const RELAY: u8 = 82;
    pub const ARCH: u8 = 93;
    pub const UUID: u8 = 97;
    pub const IPXE: u8 = 175;
}

/// What a client says (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Discover,
    Request,
    Decline,
    Release,
    Inform,
}

/// One message of a client, as far as anything here depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub kind: Kind,
    pub mac: Mac,
    pub xid: u32,
    pub hops: u8,
    pub secs: u16,
    /// As sent; bit 15: the client can only hear broadcasts.
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
    /// Option 55: which options it asks for.
    pub wanted: Vec<u8>,
    /// Option 60.
    pub class: String,
    /// Option 77.
    pub user_class: Vec<u8>,
    /// Option 82 as the relay sent it, to be sent back unread.
    pub relay: Option<Vec<u8>>,
    /// Option 93, the first of them.
    pub arch: Option<u16>,
    /// Option 97, as sent.
    pub uuid: Option<[u8; 16]>,
    /// Option 175 is there: iPXE.
    pub ipxe_options: bool,
}

/// Why bytes are no request that could be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it is shorter than a BOOTP header with its cookie")]
    Short,
    #[error("it is not a request")]
    NotRequest,
    #[error("the hardware address is not Ethernet's")]
    NotEthernet,
    #[error("no network card may have this hardware address")]
    BadMac,
    #[error("it has no DHCP cookie")]
    NoCookie,
    #[error("it has no message type that a client sends")]
    NoKind,
}

/// Fixed part and cookie (RFC 2131 §2).
const HEADER: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Reads a client's message. The entry point of the fuzz target.
///
/// # Errors
/// What keeps it from being one; an option that can't be read is left out.
pub fn parse(bytes: &[u8]) -> Result<Request, Malformed> {
    let message = v4::borrowed::Message::new(bytes).map_err(|_| Malformed::Short)?;
    let head: &[u8; HEADER] = bytes.first_chunk().ok_or(Malformed::Short)?;
    let [op, htype, hlen, ..] = head;
    if *op != 1 {
        return Err(Malformed::NotRequest);
    }
    // Also before `chaddr()`, which believes the length.
    if (*htype, *hlen) != (1, 6) {
        return Err(Malformed::NotEthernet);
    }
    if !head.ends_with(&COOKIE) {
        return Err(Malformed::NoCookie);
    }
    let mac = message.chaddr().try_into().map(Mac).map_err(|_| Malformed::NotEthernet)?;
    if !mac.is_card() {
        return Err(Malformed::BadMac);
    }
    let mut kind = None;
    let mut request = Request {
        kind: Kind::Discover,
        mac,
        xid: message.xid(),
        hops: message.hops(),
        secs: message.secs(),
        flags: message.flags().into(),
        ciaddr: message.ciaddr(),
        giaddr: message.giaddr(),
        requested: None,
        server: None,
        wanted: Vec::new(),
        class: String::new(),
        user_class: Vec::new(),
        relay: None,
        arch: None,
        uuid: None,
        ipxe_options: false,
    };
    for option in message.opts() {
        let data = option.data();
        match u8::from(option.code()) {
            code::KIND => kind = kind.or(kind_of(data)),
            code::REQUESTED => request.requested = address(data),
            code::SERVER => request.server = address(data),
            code::WANTED => request.wanted = data.to_vec(),
            code::CLASS => request.class = printable(data),
            code::USER_CLASS => request.user_class = data.to_vec(),
            code::RELAY => request.relay = Some(data.to_vec()),
            code::ARCH => {
                request.arch = data.first_chunk::<2>().map(|two| u16::from_be_bytes(*two));
            }
            // One byte of type (0), then the machine's UUID (RFC 4578 §2.3).
            code::UUID => request.uuid = data.get(1..).and_then(|rest| rest.try_into().ok()),
            code::IPXE => request.ipxe_options = true,
            _ => {}
        }
    }
    request.kind = kind.ok_or(Malformed::NoKind)?;
    Ok(request)
}

fn kind_of(data: &[u8]) -> Option<Kind> {
    match data {
        [1] => Some(Kind::Discover),
        [3] => Some(Kind::Request),
        [4] => Some(Kind::Decline),
        [7] => Some(Kind::Release),
        [8] => Some(Kind::Inform),
        _ => None,
    }
}

fn address(data: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from)
}

fn printable(data: &[u8]) -> String {
    printable_of(data, 64)
}

/// Up to the first zero byte; what does not print as `?`.
fn printable_of(data: &[u8], most: usize) -> String {
    let text = data.iter().take(most).take_while(|b| **b != 0);
    text.map(|b| if matches!(b, b' '..=b'~') { char::from(*b) } else { '?' }).collect()
}

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Offer,
    Ack,
    Nak,
}

/// One message to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub said: Said,
    pub mac: Mac,
    pub xid: u32,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub yiaddr: Ipv4Addr,
    /// From where the boot file is fetched.
    pub siaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    /// Boot file, or empty. What does not fit the header's field stands only in option 67.
    pub file: String,
    /// Code and data, without message type and relay information.
    pub options: Vec<(u8, Vec<u8>)>,
    /// Sent back as it came (RFC 3046 §2.2).
    pub relay: Option<Vec<u8>>,
}

/// The header's field for the boot file, with its terminator.
const FILE: usize = 128;
/// Behind the last option.
const END: u8 = 255;
/// Shorter messages are dropped by old relays and firmware (RFC 1542 §2.1).
const SHORTEST: usize = 300;

impl Reply {
    /// A reply to this request that says nothing yet.
    pub fn to(request: &Request, said: Said) -> Self {
        Self {
            said,
            mac: request.mac,
            xid: request.xid,
            flags: request.flags,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: request.giaddr,
            file: String::new(),
            options: Vec::new(),
            relay: request.relay.clone(),
        }
    }

    /// The first option with this code.
    pub fn option(&self, wanted: u8) -> Option<&[u8]> {
        self.options.iter().find(|(code, _)| *code == wanted).map(|(_, data)| &**data)
    }

    /// As it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let Mac(mac) = self.mac;
        let mut message = v4::Message::new_with_id(
            self.xid,
            self.ciaddr,
            self.yiaddr,
            self.siaddr,
            self.giaddr,
            &mac,
        );
        message.set_opcode(v4::Opcode::BootReply).set_flags(v4::Flags::new(self.flags));
        if !self.file.is_empty() && self.file.len() < FILE {
            message.set_fname(self.file.as_bytes());
        }
        let said = match self.said {
            Said::Offer => v4::MessageType::Offer,
            Said::Ack => v4::MessageType::Ack,
            Said::Nak => v4::MessageType::Nak,
        };
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(said));
        for (code, data) in &self.options {
            let raw = UnknownOption::new(OptionCode::from(*code), data.clone());
            options.insert(DhcpOption::Unknown(raw));
        }
        let mut bytes = Vec::with_capacity(SHORTEST);
        // A vector takes every write, and no option here is of a form that can't be written.
        if message.encode(&mut Encoder::new(&mut bytes)).is_err() {
            return Vec::new();
        }
        // The last option (RFC 3046 §2.1), and as it came: the crate writes one that it did not read
        // itself twice.
        if let Some(data) = &self.relay
            && let Ok(length) = u8::try_from(data.len())
            && bytes.pop_if(|last| *last == END).is_some()
        {
            bytes.extend([code::RELAY, length]);
            bytes.extend_from_slice(data);
            bytes.push(END);
        }
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes
    }
}

/// What another server offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub mac: Mac,
    /// Option 54, else the packet's source.
    pub server: Ipv4Addr,
    /// `None`: a proxy, which gives none.
    pub address: Option<Ipv4Addr>,
    /// Header field or option 67.
    pub file: String,
    /// From where the file is fetched; unspecified where nothing is said.
    pub next: Ipv4Addr,
}

/// Reads a server's offer.
///
/// # Errors
/// What keeps it from being one.
pub fn parse_reply(bytes: &[u8], from: Ipv4Addr) -> Result<Heard, Malformed> {
    let message = v4::borrowed::Message::new(bytes).map_err(|_| Malformed::Short)?;
    let head: &[u8; HEADER] = bytes.first_chunk().ok_or(Malformed::Short)?;
    let [op, htype, hlen, ..] = head;
    if *op != 2 {
        return Err(Malformed::NotRequest);
    }
    if (*htype, *hlen) != (1, 6) {
        return Err(Malformed::NotEthernet);
    }
    if !head.ends_with(&COOKIE) {
        return Err(Malformed::NoCookie);
    }
    let mac = message.chaddr().try_into().map(Mac).map_err(|_| Malformed::NotEthernet)?;
    let mut heard = Heard {
        mac,
        server: from,
        address: Some(message.yiaddr()).filter(|a| !a.is_unspecified()),
        file: printable_of(message.fname(), 128),
        next: message.siaddr(),
    };
    for option in message.opts() {
        match u8::from(option.code()) {
            code::SERVER => heard.server = address(option.data()).unwrap_or(from),
            code::BOOT_FILE if heard.file.is_empty() => {
                heard.file = printable_of(option.data(), 255);
            }
            _ => {}
        }
    }
    Ok(heard)
}

/// A DISCOVER that asks for a broadcast answer; with `boots` as UEFI firmware sends it.
pub fn discover(mac: Mac, xid: u32, boots: bool) -> Vec<u8> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = v4::Message::new_with_id(xid, none, none, none, none, &mac.0);
    message.set_flags(v4::Flags::default().set_broadcast());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(v4::MessageType::Discover));
    let mut put = |code: u8, data: &[u8]| {
        let raw = UnknownOption::new(OptionCode::from(code), data.to_vec());
        options.insert(DhcpOption::Unknown(raw));
    };
    put(code::WANTED, &[code::NETMASK, code::ROUTER, code::TFTP_SERVER, code::BOOT_FILE]);
    if boots {
        put(code::CLASS, b"PXEClient:Arch:00007:UNDI:003001");
        put(code::ARCH, &[0, 7]);
        put(94, &[1, 3, 1]);
        put(code::UUID, &[&[0], &xid.to_be_bytes().repeat(4)[..]].concat());
    }
    let mut bytes = Vec::with_capacity(SHORTEST);
    if message.encode(&mut Encoder::new(&mut bytes)).is_err() {
        return Vec::new();
    }
    bytes.resize(bytes.len().max(SHORTEST), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_length_beyond_the_packet_is_not_believed() {
        let mut bytes = vec![0_u8; HEADER];
        bytes[0] = 1;
        bytes[1] = 1;
        bytes[2] = 255;
        bytes[236..240].copy_from_slice(&COOKIE);
        assert_eq!(parse(&bytes), Err(Malformed::NotEthernet));
    }
}
