//! Address ranges: what may be scanned, and what is. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A subnet in CIDR form, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// IPv4 addresses as numbers from 0 to 2³²-1.
    first: u128,
    last: u128,
    v6: bool,
    prefix: u8,
}

impl Range {
    /// Does `self` lie in `other` as a whole?
    pub fn is_within(&self, other: &Range) -> bool {
        self.v6 == other.v6 && self.first >= other.first && self.last <= other.last
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let (number, v6) = number(address.to_canonical());
        self.v6 == v6 && (self.first..=self.last).contains(&number)
    }

    /// The addresses that a machine can have: without a subnet's own and its broadcast address.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let edge = u128::from(!self.v6 && self.prefix < 31);
        let v6 = self.v6;
        (self.first + edge..=self.last - edge).map(move |n| address(n, v6))
    }

    /// How many [`Range::addresses`] there are.
    pub fn len(&self) -> u128 {
        let edge = if !self.v6 && self.prefix < 31 { 2 } else { 0 };
        (self.last - self.first).saturating_add(1) - edge
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn number(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(a) => (u32::from(a).into(), false),
        IpAddr::V6(a) => (a.into(), true),
    }
}

fn address(number: u128, v6: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(n) if !v6 => Ipv4Addr::from(n).into(),
        _ => Ipv6Addr::from(number).into(),
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no range; write one like `10.20.0.0/24`, or an address");
        let (base, prefix) = match text.trim().split_once('/') {
            Some((base, prefix)) => (base, Some(prefix)),
            None => (text.trim(), None),
        };
        let base: IpAddr = base.parse().map_err(|_| bad())?;
        let (base, v6) = number(base);
        let width: u8 = if v6 { 128 } else { 32 };
        let prefix: u8 = prefix.map_or(Ok(width), str::parse).map_err(|_| bad())?;
        let host = width.checked_sub(prefix).ok_or_else(bad)?;
        let mask = u128::MAX.checked_shl(host.into()).unwrap_or(0);
        let first = base & mask;
        let last = first | (!mask & if v6 { u128::MAX } else { u128::from(u32::MAX) });
        Ok(Self { first, last, v6, prefix })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", address(self.first, self.v6), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_is_its_machines_addresses() {
        let all = |t: &str| range(t).addresses().map(|a| a.to_string()).collect::<Vec<_>>();
        assert_eq!(all("10.0.0.4/30"), ["10.0.0.5", "10.0.0.6"]);
        assert_eq!(all("10.0.0.4/31"), ["10.0.0.4", "10.0.0.5"]);
        assert_eq!(all("10.0.0.7"), ["10.0.0.7"]);
        assert_eq!(all("fd00::1/127"), ["fd00::", "fd00::1"]);
        for text in ["10.0.0.0/24", "10.0.0.4/30", "10.0.0.4/31", "10.0.0.7/32", "fd00::/120"] {
            let r = range(text);
            assert_eq!(r.len(), r.addresses().count() as u128, "{text}");
            assert!(r.addresses().all(|a| r.contains(a)));
            assert_eq!(range(&r.to_string()), r);
        }
        assert!(range("::/0").len() > 1 << 100);
        assert_eq!(range("0.0.0.0/0").len(), (1 << 32) - 2);
    }

    #[test]
    fn only_a_part_of_what_is_allowed_is_within_it() {
        let allowed = range("10.20.0.0/16");
        for good in ["10.20.0.0/16", "10.20.7.0/24", "10.20.255.255"] {
            assert!(range(good).is_within(&allowed), "{good}");
        }
        for bad in ["10.0.0.0/8", "10.21.0.0/24", "10.20.0.0/15", "::ffff:10.20.0.1", "fd00::1"] {
            assert!(!range(bad).is_within(&allowed), "{bad}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "bmc-1", "10.0.0.0/-1", "10.0.0.0/"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }
}
