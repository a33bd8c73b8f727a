//! Which MAC the kernel has learnt for an address on the same wire: `/proc/net/arp` (proc(5)). Behind a
//! router it knows none, and IPv6 has no such file.

use crate::model::network::Mac;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// ATF_COM of `linux/if_arp.h`: the entry is whole.
const COMPLETE: u32 = 2;

/// Where there is no such file, nobody is known.
pub(super) fn neighbours() -> BTreeMap<IpAddr, Mac> {
    std::fs::read_to_string("/proc/net/arp").map(|text| read(&text)).unwrap_or_default()
}

fn read(text: &str) -> BTreeMap<IpAddr, Mac> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (address, _kind, flags, mac) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?;
        let mac: Mac = mac.parse().ok()?;
        let known = flags & COMPLETE != 0 && mac.is_card();
        known.then_some((address.parse().ok()?, mac))
    };
    text.lines().skip(1).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_entries_are_read_and_others_left_out() {
        let text = "IP address       HW type     Flags       HW address            Mask     Device\n\
                    10.0.0.5         0x1         0x2         52:54:00:aa:bb:cc     *        eth0\n\
                    10.0.0.6         0x1         0x0         00:00:00:00:00:00     *        eth0\n\
                    10.0.0.7         0x1         0x6         52:54:00:aa:bb:cd     *        eth0\n\
                    nonsense\n10.0.0.8 0x1 0x2 not-a-mac * eth0\n";
        let found = read(text);
        let shown: Vec<String> = found.iter().map(|(a, m)| format!("{a} {m}")).collect();
        assert_eq!(shown, ["10.0.0.5 52:54:00:aa:bb:cc", "10.0.0.7 52:54:00:aa:bb:cd"]);
    }
}
