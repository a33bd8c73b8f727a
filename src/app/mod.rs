//! Wiring: the only place that knows every part.

pub mod check;
pub mod files;
