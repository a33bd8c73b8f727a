//! Data and its fold: what a machine is, where it stands, what was done to it. No I/O, no clock.

pub mod action;
pub mod change;
pub mod controller;
pub mod deploy;
pub mod expected;
pub mod facts;
pub mod fault;
pub mod fold;
pub mod hardware;
pub mod identity;
pub mod installer;
pub mod journal;
pub mod limit;
pub mod machine;
pub mod network;
pub mod observed;
pub mod quirks;
pub mod remedy;
pub mod rotation;
pub mod stage;
pub mod storage;
pub mod template;
pub mod text;
pub mod time;

pub use action::{
    Action, ActionKind, BootTarget, Expect, HookVerb, JobScript, Outcome, PowerOp, Redo,
};
pub use change::{Change, Desired};
pub use controller::{Controllers, Further, FurtherKind};
pub use expected::{BmcEndpoint, Domain, DomainKind, Expected, HostEndpoint, IpmiEndpoint, Labels};
pub use facts::{Read, Report};
pub use fault::{Channel, Fault, FaultClass};
pub use identity::Identity;
pub use journal::{Entry, StepEnd};
pub use limit::{Limit, LimitClass};
pub use machine::{Condition, Control, Machine, MachineId, OpenAction, OpenState};
pub use stage::Stage;
pub use text::Text;
pub use time::EngineTime;
