//! Passwords and certificates of BMCs: how they come, change, and survive a kill at any point.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests serve BMCs, start and kill the daemon, and wait for conditions with a deadline"
)]

mod accounts;
mod bmc;
mod controllers;
mod guard;
mod import;
mod kv;
mod pins;
mod policy;
mod rotation;
#[path = "../bmc/server.rs"]
#[allow(dead_code, reason = "the tests of the edge use more of it")]
mod server;
mod site;
