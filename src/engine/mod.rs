//! The director is sans-I/O: events in, commands out. The driver beside it does the I/O.

pub mod clock;
pub mod director;
pub mod driver;
pub mod event;
pub mod headroom;
pub mod meter;
pub mod outages;
pub mod perform;

pub use director::Director;
pub use event::{Command, Event};
