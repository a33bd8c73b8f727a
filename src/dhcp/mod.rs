//! The DHCP edge: addresses for machines of the inventory, and the way to a boot loader for those
//! that a run waits for. IPv4 (RFC 2131, 2132, 3046), PXE 2.1 and UEFI HTTP boot (UEFI 2.10 §24.7).
//!
//! Two ways to work, one decision ([`answer`]) without sockets or a clock:
//!
//! | mode | what it answers |
//! | --- | --- |
//! | `proxy` | beside the site's DHCP: only PXE, UEFI HTTP and iPXE clients, only with the way to a loader, never with an address; ports 67 and 4011 |
//! | `reservation` | machines of the inventory, with an address; and with the way to a loader while a run waits |
//!
//! What the field does, and where it is met:
//!
//! - One machine shows a client identifier each for its firmware, iPXE and its system: leases go by
//!   MAC alone.
//! - An address that two MACs are offered ends in a NAK, and the machine boots its disk (field notes,
//!   lessons 14.7): a lease is on the disk before it is offered, and is never another MAC's.
//! - UEFI firmware that gets PXE discovery control (option 43) from a proxy may ignore the offer; all
//!   ask at port 4011 when there is none. BIOS firmware is told to take the file of the offer.
//! - iPXE takes a proxy's offer only with `siaddr` and a file name, else it waits for minutes. In
//!   `reservation` it is told not to wait for a proxy (option 175.176).
//! - Two machines have one MAC, or the host behind a BMC is another one: who states another UUID
//!   (option 97) than the machine's gets nothing to boot, and who waits for the machine is told at once.
//! - Without an open window nothing is offered but an address, so that firmware goes on to the disk.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an edge: sockets, a file of leases and the wall clock"
)]

pub mod answer;
pub mod client;
mod interface;
mod journal;
pub mod lease;
pub mod packet;
pub(crate) mod place;
mod seen;
mod server;
mod survey;

pub use answer::{Door, Mode, Unknown};

pub use interface::{Interface, interface, open_socket};
pub use journal::kept_leases;
pub use seen::Stranger;
pub use server::{DhcpServer, Held, Listening, Origin, Ports, Settings, Status};
pub use survey::survey;
