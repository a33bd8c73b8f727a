//! URLs, addresses and subnets, as strictly as BMCs need them.

pub use crate::model::network::Subnet;
use std::net::{IpAddr, SocketAddr};

/// Is it `http://` or `https://` with a host, and no more than that and a path?
pub(super) fn check_url(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else {
        return Err("the URL must start with `http://` or `https://`".into());
    };
    let authority = rest.split('/').next().unwrap_or("");
    if authority.contains('@') {
        return Err("a URL must not carry a user or a password".into());
    }
    if url.contains(['?', '#']) || url.contains(char::is_whitespace) || !url.is_ascii() {
        return Err("the URL must have no query, no fragment and no spaces".into());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, port),
            _ => return Err(format!("`{authority}` is not a host")),
        },
        None => match authority.find(':') {
            Some(colon) => authority.split_at(colon),
            None => (authority, ""),
        },
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(fits) {
        return Err("the URL has no host".into());
    }
    match port.strip_prefix(':') {
        Some(port) if !port.parse::<u16>().is_ok_and(|p| p > 0) => {
            Err(format!("`{port}` is not a port"))
        }
        None if !port.is_empty() => Err(format!("`{authority}` is not a host")),
        _ => Ok(()),
    }
}

/// The address in a URL's or endpoint's host part, where it is one.
pub(super) fn address_of(endpoint: &str) -> Option<IpAddr> {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next()?;
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    authority.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_plain() {
        for good in [
            "http://10.0.0.1",
            "https://bmc-1.example:8443",
            "http://[fd00::1]:80",
            "https://h/redfish-proxy/1",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "10.0.0.1",
            "ftp://h",
            "http://",
            "http://h:0",
            "http://h:99999",
            "http://u:p@h",
            "http://h/?q",
            "http://h/a b",
            "http://[fd00::1",
            "http://[zz]",
            "http://[fd00::1]x",
            "http://hé",
            "",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_found_in_endpoints() {
        let some = |s: &str| Some(s.parse::<IpAddr>().unwrap());
        assert_eq!(address_of("https://10.0.0.5:8443/x"), some("10.0.0.5"));
        assert_eq!(address_of("10.0.0.5:22"), some("10.0.0.5"));
        assert_eq!(address_of("http://[fd00::1]:80"), some("fd00::1"));
        assert_eq!(address_of("https://[fd00::1]"), some("fd00::1"));
        assert_eq!(address_of("https://bmc-1"), None);
    }

    #[test]
    fn subnets_know_their_addresses() {
        let net: Subnet = "10.1.0.0/16".parse().unwrap();
        assert!(net.contains("10.1.255.255".parse().unwrap()));
        assert!(!net.contains("10.2.0.0".parse().unwrap()));
        assert!(!net.contains("fd00::1".parse().unwrap()));
        let all: Subnet = "::/0".parse().unwrap();
        assert!(all.contains("fd00::1".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Subnet>().unwrap().overlaps(&net));
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "::/129", "/"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
