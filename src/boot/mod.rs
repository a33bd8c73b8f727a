//! The boot edge: answers a machine that boots from the network, only while a run waits for it,
//! and serves firmware and OS images as files.
//!
//! A *boot window* belongs to one run and one MAC. It is one file below `<state>/boot-windows/`,
//! written before anything is answered on its ground, so that `kill -9` changes nothing for a
//! host that is in the middle of its installation. Wire contract, relative to the boot listener's
//! advertised URL (`{mac}` with `:` or `-`):
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /boot/{mac}/ipxe` | iPXE script |
//! | `GET /boot/{mac}/meta-data`, `user-data` | cloud-init NoCloud seed |
//! | `GET /boot/{mac}/network-config` | the installed system's network, where its profile names interfaces |
//! | `GET /boot/{mac}/file/{name}` | a file that the image's recipe names |
//! | `GET /boot/{mac}/seed.json` | `run`, `image`, `allow_existing_data`, `token`, `callback` |
//! | `GET /boot/{mac}/preseed.cfg`, `installer.sh` | what debian-installer is told, and runs |
//! | `GET /boot/{mac}/image/{file}` | a file of the image's directory |
//! | `GET /boot/{mac}/disk/{file}` | the disk image that the deploy job was told to write, to the same address |
//! | `GET /loader/{name}` | a boot loader of the distribution, for UEFI HTTP boot |
//! | `POST /boot/{mac}/callback` | `{"token","ok","host_key","message"}`: 200, 400, 403, 409, 410, 429 |
//!
//! Everything else, and everything without an open window, is 404.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an edge: it keeps files, and its rate limit has a clock"
)]

mod callback;
mod deploy;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod http;
mod images;
mod media;
mod netboot;
pub mod network_config;
pub mod pace;
mod preseed;
pub mod preview;
mod problem;
mod render;
mod sendfile;
mod server;
mod throttle;
mod window;

pub use images::{ImageServer, KnownImage};
pub use netboot::loader_router;
pub use sendfile::{FileListener, FileStream, Peer, introduce};
pub use server::{BootServer, Settings};
