//! Text to typed values, with every mistake at its place. Pure: reading files is done by `app`,
//! so that the simulator and tests read the same files the same way.

mod book;
pub mod catalog;
mod check;
pub mod console;
pub mod daemon;
mod diagnostic;
pub mod fault_profile;
pub mod inventory;
mod names;
pub mod netboot;
pub mod quirks;
pub mod remediation;
pub mod rotation;
pub mod shipped;
mod table;
mod template;
mod url;
pub mod webhook;
pub mod workflow;

pub use check::{Loaded, Sources, load};
pub use daemon::Daemon;
pub use diagnostic::{Diagnostic, Severity, render};
pub use inventory::{Inventory, Network, Purpose};
pub use names::listed;
pub use template::is_recipe;
pub use url::Subnet;

/// One file, read by somebody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// As people should see it in findings.
    pub path: String,
    pub text: String,
}

impl Source {
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}
