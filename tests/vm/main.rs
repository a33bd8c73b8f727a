//! Virtual machines go from a blank disk to a login and back to blank.
//!
//! Real: the machines (QEMU with OVMF or SeaBIOS, iPXE, Debian's kernel), their BMCs (sushy-tools on
//! libvirt), dnsmasq, the deploy ramdisk as `farrier image build-ramdisk` builds it, the disk image
//! (Debian with cloud-init), and the SSH edge of Farrier that drives the jobs.
//! The test's: the HTTP server (`server.rs`) and the order of events.
//! Needs root: it makes a network namespace with a bridge in it, and takes both away again.
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
mod lab;
mod life;
mod machine;
mod server;
mod vagrant;
