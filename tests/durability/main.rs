//! What an operating system can do to the daemon's database and clock, done to the real binary
//! while it works on machines behind real BMCs: full, failing and read-only disks, files that are
//! moved, deleted or replaced, a second daemon, a wall clock that jumps by a day. Each time: no
//! action is done twice, nothing is lost, the person reads what happened and what to do.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // files, programs, a clock

mod clock;
mod disk;
mod fixture;
mod place;
#[path = "../kill/truth.rs"]
mod truth;
