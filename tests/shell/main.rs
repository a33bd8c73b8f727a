//! The scripts under dash and busybox, and the SSH edge against a real OpenSSH server.
//!
//! Not real here: systemd (no PID 1 of its own in most test machines): a shim shows how
//! `systemd-run` is called. `nvidia-smi` and `dcgmi` are shims that print captured shapes. Disks
//! are files.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the world")]

mod dcgm;
mod deploy;
mod jobs;
mod mirror;
mod sanitize;
mod ssh;
mod wipe;
mod world;
