//! Who asks: firmware of which kind, iPXE, or a system that is there already.

use super::packet::Request;
use crate::port::netboot::Firmware;

/// What a client can be helped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// An address, nothing else.
    Address,
    /// A loader by TFTP.
    Pxe(Machine),
    /// A loader by HTTP (UEFI 2.10 §24.7.3).
    Http(Machine),
    /// A script: our own loader, or an iPXE in the card's ROM.
    Ipxe,
}

/// The firmware, or the number in option 93 of one that there is no loader for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    Known(Firmware),
    Other(u16),
}

/// Who sent this?
pub fn classify(request: &Request) -> Asks {
    if is_ipxe(request) {
        return Asks::Ipxe;
    }
    let pxe = request.class.starts_with("PXEClient");
    let http = request.class.starts_with("HTTPClient");
    if !pxe && !http {
        return Asks::Address;
    }
    let arch = request.arch.or_else(|| arch_of_class(&request.class)).unwrap_or(0);
    let (machine, by_http) = machine(arch);
    if http || by_http { Asks::Http(machine) } else { Asks::Pxe(machine) }
}

/// The user class is `iPXE`, plain as iPXE sends it or with its length in front (RFC 3004); or its own
/// options are there.
fn is_ipxe(request: &Request) -> bool {
    matches!(&*request.user_class, b"iPXE" | b"\x04iPXE" | b"gPXE" | b"\x04gPXE")
        || request.ipxe_options
}

/// The kind of firmware, and whether it is the number for HTTP boot (IANA's registry of processor
/// architecture types; RFC 4578 §2.1, with 7 and 9 as the field uses them).
fn machine(arch: u16) -> (Machine, bool) {
    use Firmware::{Arm64, Bios, X64};
    match arch {
        0 => (Machine::Known(Bios), false),
        7 | 9 => (Machine::Known(X64), false),
        11 => (Machine::Known(Arm64), false),
        16 | 17 => (Machine::Known(X64), true),
        19 => (Machine::Known(Arm64), true),
        // 32-bit x86, 32-bit ARM and BIOS by HTTP.
        15 | 18 | 20 => (Machine::Other(arch), true),
        _ => (Machine::Other(arch), false),
    }
}

/// `PXEClient:Arch:00007:UNDI:003016` says it too.
fn arch_of_class(class: &str) -> Option<u16> {
    let (_, rest) = class.split_once(":Arch:")?;
    rest.split(':').next()?.parse().ok()
}
