//! Who holds a UDP port of this network namespace, as far as /proc tells.

use std::fs;
use std::net::Ipv4Addr;

/// A socket on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Local address; IPv6 sockets as `[::]`.
    pub(super) address: String,
    /// `None`: another user's program.
    pub(super) pid: Option<u32>,
    pub(super) name: Option<String>,
}

pub(super) fn holders(port: u16) -> Vec<Holder> {
    let mut found = Vec::new();
    for table in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        for (address, inode) in sockets(&text, port) {
            let (pid, name) = owner(inode).unzip();
            // One line for a program with a socket on each interface.
            if pid.is_none() || found.iter().all(|h: &Holder| h.pid != pid) {
                found.push(Holder { address, pid, name });
            }
        }
    }
    found
}

/// Address and inode of the sockets on this port, from the text of `/proc/net/udp` (proc(5)).
fn sockets(text: &str, port: u16) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, at) = words.get(1)?.rsplit_once(':')?;
        if u16::from_str_radix(at, 16).ok()? != port {
            return None;
        }
        let shown = match u32::from_str_radix(address, 16) {
            Ok(v4) => Ipv4Addr::from(v4.swap_bytes()).to_string(),
            Err(_) => "[::]".into(),
        };
        Some((shown, words.get(9)?.parse().ok()?))
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// The process that has this socket open, and its name.
fn owner(inode: u64) -> Option<(u32, String)> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let open = fs::read_dir(process.path().join("fd")).ok()?;
        let is_it = |fd: fs::DirEntry| {
            fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str())
        };
        open.flatten().any(is_it).then(|| {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            (pid, name.trim().to_string())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                    \x20 4: 0101A8C0:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12345 2 0000000000000000 0\n\
                    \x20 9: 00000000:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 777 2 0000000000000000 0\n\
                    nonsense\n";
        assert_eq!(sockets(text, 67), [("192.168.1.1".to_string(), 12345)]);
        assert_eq!(sockets(text, 69), [("0.0.0.0".to_string(), 777)]);
        assert_eq!(sockets(text, 4011), []);
        assert_eq!(sockets("", 67), []);
    }
}
