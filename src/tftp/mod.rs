//! The TFTP edge: boot loaders for firmware that speaks nothing else. Read only, by name, bounded
//! (RFC 1350; options of RFC 2347–2349 and 7440).
//!
//! Why not the crate `async-tftp` (0.4.2): firmware first asks for the size alone and breaks off with
//! an ERROR packet, which that server does not read while it waits for an ACK: it sends the first
//! block a hundred times more. It has no limit on transfers, and an executor of its own beside tokio.
//!
//! What firmware does, and where it is met: a file name behind a slash or with a stray 0xff
//! (`packet::parse()`), an ERROR in the middle, ACKs twice (`transfer`), requests twice from one port
//! (`server`), files of more than 65,535 blocks (the number starts anew).
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an edge: sockets, files and their deadlines"
)]

pub mod packet;
mod server;
pub mod transfer;

pub use server::{Settings, TftpServer};
