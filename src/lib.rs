//! Farrier takes bare-metal GPU machines from rack to cluster and back. See `ARCHITECTURE.md`.

/// Thousands of BMCs at once leave the system's allocator with holes and slow it down.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod api;
pub mod app;
pub mod bmc;
pub mod boot;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod decide;
pub mod dhcp;
pub mod engine;
#[doc(hidden)]
pub mod fuzz;
pub mod ipmi;
pub mod model;
pub mod notify;
pub mod port;
pub mod scan;
pub mod shell;
pub mod sim;
pub mod steps;
pub mod store;
pub mod tftp;
pub mod web;
