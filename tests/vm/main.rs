//! Virtual machines go from a blank disk to a login and back to blank.
//!
//! Real: the machines (QEMU with OVMF or SeaBIOS, iPXE, Debian's kernel), their BMCs (sushy-tools on
//! libvirt), dnsmasq, the deploy ramdisk as `farrier image build-ramdisk` builds it, the disk image
//! (Debian with cloud-init), and Farrier: `farrier serve` as a whole (`engine.rs`), or its SSH edge alone
//! (`life.rs`, where the HTTP server and the order of events are the test's).
//! Needs root: it makes network namespaces with a bridge in them, and takes all away again.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::result_large_err,
    reason = "runs programs, and waits for conditions with a deadline"
)]

mod artefacts;
mod engine;
mod installer;
mod lab;
mod life;
mod login;
mod machine;
mod mirror;
mod network;
mod rescue;
mod server;
mod site;
mod vagrant;
