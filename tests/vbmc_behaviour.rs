//! How the virtual BMCs behave: vendor profiles, fault rules, a captured tree from its files, and
//! the command. Driven by our own client, by a plain HTTP client, and by a whole daemon. The world's
//! truth log is the judge.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests serve files, start programs and wait for conditions with a deadline"
)]

#[path = "vbmc_behaviour/bios.rs"]
mod bios;
#[path = "vbmc_behaviour/controllers.rs"]
mod controllers;
#[path = "vbmc_behaviour/one.rs"]
mod one;
#[path = "vbmc_behaviour/program.rs"]
mod program;
#[path = "vbmc_behaviour/queue.rs"]
mod queue;
#[path = "vbmc_behaviour/replay.rs"]
mod replay;
#[path = "vbmc_behaviour/rules.rs"]
mod rules;
#[allow(dead_code, reason = "its other half is used by tests/bmc.rs")]
#[path = "bmc/server.rs"]
mod server;
#[path = "vbmc_behaviour/site.rs"]
mod site;
#[path = "vbmc_behaviour/trust.rs"]
mod trust;
#[path = "support/unpacked.rs"]
mod unpacked;
#[path = "vbmc_behaviour/vendors.rs"]
mod vendors;
#[path = "vbmc_behaviour/volume.rs"]
mod volume;
#[path = "vbmc_behaviour/wire.rs"]
mod wire;
