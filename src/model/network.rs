//! Networks as machines see them, and the network cards of an installed system.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::Arc;

/// `10.0.0.0/16` or `fd00::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    pub fn contains(&self, other: IpAddr) -> bool {
        let cut = |bits: u128, width: u8| match width - self.prefix {
            128 => 0,
            rest => bits >> rest,
        };
        match (self.address, other.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                cut(u32::from(a).into(), 32) == cut(u32::from(b).into(), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => cut(a.into(), 128) == cut(b.into(), 128),
            _ => false,
        }
    }

    /// Do the two share an address?
    pub fn overlaps(&self, other: &Subnet) -> bool {
        let (wide, narrow) =
            if self.prefix <= other.prefix { (self, other) } else { (other, self) };
        wide.contains(narrow.address)
    }

    /// Length of the prefix, bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Netmask of an IPv4 subnet.
    pub fn netmask(&self) -> Option<Ipv4Addr> {
        let rest = 32_u32.checked_sub(self.prefix.into()).filter(|_| self.address.is_ipv4())?;
        Some(Ipv4Addr::from(u32::MAX.checked_shl(rest).unwrap_or(0)))
    }

    /// Broadcast address of an IPv4 subnet.
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        let IpAddr::V4(address) = self.address else { return None };
        Some(Ipv4Addr::from(u32::from(address) | !u32::from(self.netmask()?)))
    }

    /// May a machine have this address: inside, and neither the network's own nor the broadcast
    /// address? A /31 and a /32 have neither of these (RFC 3021).
    pub fn is_host(&self, address: IpAddr) -> bool {
        let IpAddr::V4(v4) = address.to_canonical() else { return self.contains(address) };
        let network = self.netmask().map(|m| Ipv4Addr::from(u32::from(v4) & u32::from(m)));
        self.contains(address)
            && (self.prefix >= 31 || (Some(v4) != network && Some(v4) != self.broadcast()))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a subnet; write one like `10.0.0.0/16`");
        let (address, prefix) = text.trim().split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= width).then_some(Subnet { address, prefix }).ok_or_else(bad)
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

/// IPv4 addresses from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
}

impl AddressRange {
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// How many addresses these are.
    pub fn len(&self) -> u32 {
        u32::from(self.last).saturating_sub(self.first.into()).saturating_add(1)
    }

    /// Never: a range has at least one address.
    pub fn is_empty(&self) -> bool {
        self.first > self.last
    }

    /// The address so many places behind the first, starting anew behind the last.
    pub fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first).wrapping_add(n % self.len().max(1)))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a range; write one like `10.30.0.100-10.30.0.200`");
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        let first: Ipv4Addr = first.trim().parse().map_err(|_| bad())?;
        let last: Ipv4Addr = last.trim().parse().map_err(|_| bad())?;
        if first > last {
            return Err(format!("`{text}` ends before it begins"));
        }
        Ok(AddressRange { first, last })
    }
}

/// One network of the inventory, as a machine in it is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lan {
    pub name: Arc<str>,
    pub subnet: Subnet,
    pub gateway: Option<IpAddr>,
    /// Addresses that relay agents put into requests from this network, where they lie outside of
    /// its subnet (RFC 2131 `giaddr`).
    pub relay: Vec<Ipv4Addr>,
    /// What machines without an address of their own get.
    pub range: Option<AddressRange>,
    pub dns: Vec<IpAddr>,
    pub ntp: Vec<IpAddr>,
    pub mtu: Option<u16>,
    /// The VLAN in which it comes, where it comes tagged.
    pub vlan: Option<u16>,
    pub domain: Option<String>,
}

impl Lan {
    pub fn new(name: &str, subnet: Subnet) -> Self {
        Self {
            name: name.into(),
            subnet,
            gateway: None,
            relay: Vec::new(),
            range: None,
            dns: Vec::new(),
            ntp: Vec::new(),
            mtu: None,
            vlan: None,
            domain: None,
        }
    }
}

/// A MAC address (EUI-48).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// May a network card have it? Not all zeros, and no group address.
    pub fn is_card(&self) -> bool {
        let Mac([first, ..]) = self;
        self.0 != [0; 6] && first & 1 == 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    /// `aa:bb:cc:dd:ee:ff` or with `-`, any case.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a MAC address");
        let mut octets = [0_u8; 6];
        let mut words = text.split([':', '-']);
        for octet in &mut octets {
            let word = words.next().filter(|w| w.len() == 2).ok_or_else(bad)?;
            *octet = u8::from_str_radix(word, 16).map_err(|_| bad())?;
        }
        if words.next().is_some() || text.contains('+') {
            return Err(bad());
        }
        Ok(Mac(octets))
    }
}

impl TryFrom<String> for Mac {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

/// Which port of the machine is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// The one that it boots from: the inventory's `mac`.
    Boot,
    /// The one that the kernel gives this name; `*` stands for any characters.
    Named(String),
}

/// How a card of the installed system gets its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    #[default]
    Dhcp,
    /// The machine's `host.address`, which lies in the card's network.
    Static,
    /// None: a member of something, or a link that something else sets up.
    None,
}

/// How the members of a bond share the work. The names are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BondMode {
    /// One works, the others wait; the switch needs no setting.
    ActiveBackup,
    /// LACP. While the machine boots it speaks plain Ethernet on its boot port: the switch's port
    /// channel needs LACP fallback.
    Lacp,
    BalanceXor,
}

impl BondMode {
    pub const ALL: [BondMode; 3] = [BondMode::ActiveBackup, BondMode::Lacp, BondMode::BalanceXor];

    pub fn name(self) -> &'static str {
        match self {
            BondMode::ActiveBackup => "active-backup",
            BondMode::Lacp => "802.3ad",
            BondMode::BalanceXor => "balance-xor",
        }
    }
}

/// One interface of the installed system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its name there: `lan0`, `bond0`.
    pub name: String,
    /// One port, or the members of a bond.
    pub ports: Vec<Port>,
    pub bond: Option<BondMode>,
    /// The network it is in; `None`: the link comes up and has no address.
    pub network: Option<Arc<str>>,
    /// The network comes with its VLAN's tag on this link.
    pub tagged: bool,
    pub addressing: Addressing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_knows_its_mask_and_who_may_be_in_it() {
        let net: Subnet = "10.30.0.0/22".parse().unwrap();
        assert_eq!(net.netmask(), Some(Ipv4Addr::new(255, 255, 252, 0)));
        assert_eq!(net.broadcast(), Some(Ipv4Addr::new(10, 30, 3, 255)));
        let host = |a: &str| net.is_host(a.parse().unwrap());
        assert!(host("10.30.0.1") && host("10.30.3.254"));
        assert!(!host("10.30.0.0") && !host("10.30.3.255") && !host("10.30.4.1"));
        let all: Subnet = "0.0.0.0/0".parse().unwrap();
        assert_eq!(all.netmask(), Some(Ipv4Addr::UNSPECIFIED));
        let point: Subnet = "10.0.0.0/31".parse().unwrap();
        assert!(point.is_host("10.0.0.0".parse().unwrap()));
        assert_eq!("fd00::/64".parse::<Subnet>().unwrap().netmask(), None);
    }

    #[test]
    fn ranges_and_macs_are_read_strictly() {
        let range: AddressRange = "10.30.0.100 - 10.30.0.102".parse().unwrap();
        assert_eq!(range.len(), 3);
        assert_eq!(range.nth(4), Ipv4Addr::new(10, 30, 0, 101));
        for bad in ["", "10.0.0.1", "10.0.0.2-10.0.0.1", "10.0.0.1-x", "fd00::1-fd00::2"] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
        let mac: Mac = "AA-bb-cc-00-11-22".parse().unwrap();
        assert_eq!(mac.to_string(), "aa:bb:cc:00:11:22");
        for bad in
            ["", "aa:bb:cc:dd:ee", "aa:bb:cc:dd:ee:ff:00", "aa:bb:cc:dd:ee:+f", "aabbccddeeff"]
        {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        assert!(mac.is_card() && !Mac([0; 6]).is_card() && !Mac([0xff; 6]).is_card());
    }
}
