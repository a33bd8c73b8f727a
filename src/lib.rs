//! Farrier takes bare-metal GPU machines from rack to cluster and back. See `ARCHITECTURE.md`.

pub mod app;
pub mod bmc;
pub mod config;
pub mod decide;
pub mod engine;
pub mod model;
pub mod port;
pub mod steps;
