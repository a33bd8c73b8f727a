//! The network of an installed system as its profile says it: a static address, written into the seed.

use crate::lab::{GATEWAY, Lab, run};
use std::path::Path;

/// Lines for the profile, behind its own.
pub(crate) const STATIC: &str = "[[profile.nic]]\nname = \"lan0\"\nport = \"boot\"\nnetwork = \"provision\"\naddress = \"static\"\n\n";

/// Logs in with Farrier's key and looks: that address on the interface of that name, for ever, with no
/// DHCP client that could have brought it. The router is looked for in the file alone: cloud-init has
/// ifupdown set it by a program of net-tools, which the image lacks.
pub(crate) fn is_static(lab: &Lab, key: &Path, address: &str) {
    let mut ssh = lab.command("ssh");
    let options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"];
    ssh.args(options.iter().flat_map(|o| ["-o", o])).arg("-i").arg(key);
    ssh.arg(format!("root@{address}"));
    ssh.arg("ip -4 -o address show dev lan0; cat /etc/network/interfaces.d/* /proc/[0-9]*/comm");
    let said = run(&mut ssh);
    assert!(said.contains(&format!("inet {address}/24 ")), "{said}");
    assert!(!said.contains(" dynamic ") && !said.contains("dhclient"), "{said}");
    assert!(said.contains(&format!("default gw {GATEWAY}")), "{said}");
}
