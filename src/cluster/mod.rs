//! Clusters that machines join and leave. The first provider is `hooks`: an operator's command.
#![allow(clippy::disallowed_methods, reason = "an edge: it runs programs")]

mod hooks;

pub use hooks::{Hook, HooksCluster, Place};
pub(crate) use hooks::{done, member};
