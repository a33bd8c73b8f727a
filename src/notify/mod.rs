//! Webhooks: one task a hook takes lines from the outbox in order and posts each until the other
//! side says 2xx. A hook that is dead waits by itself; nothing else waits for it.
//!
//! What a receiver sees: `POST`, a JSON object, and
//!
//! | header | what |
//! | --- | --- |
//! | `X-Farrier-Event` | `quarantined`, `stuck`, … |
//! | `X-Farrier-Delivery` | the event's id: the same when it comes again |
//! | `X-Farrier-Signature` | `t=<seconds since 1970>,v1=<hex>`: HMAC-SHA256 of `<t>.<body>` |
//!
//! The time is signed with the body, so an old request can't be sent again later: a receiver refuses
//! a `t` that is minutes away.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an edge: sockets, time-outs, the wall clock"
)]

mod deliver;
mod sign;

pub use deliver::{Hook, HookNumbers, Notifier};
pub use sign::{signature, verify};
