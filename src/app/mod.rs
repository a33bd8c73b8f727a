//! Wiring: the only place that knows every part.

pub mod access;
pub mod backup;
pub mod bmc;
pub mod check;
pub mod current;
pub mod database;
pub mod demo;
pub mod descriptors;
pub mod discover;
pub mod fallback;
pub mod files;
pub mod image;
pub mod inventory_import;
pub mod ipmi;
pub mod listen;
pub mod orders;
pub mod pages;
pub mod parts;
pub mod pins;
pub mod reload;
pub mod rotate;
pub mod serve;
pub mod simulate;
pub mod systemd;
pub mod vbmc;
pub mod webhooks;
