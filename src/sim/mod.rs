//! The simulator: a world of virtual machines with faults, the production director on top of it,
//! and invariants checked on what each event changed. One pure world: time comes in events, chance
//! from a seeded generator, and the same seed gives the same journal.
//!
//! | part | what |
//! | --- | --- |
//! | [`physics`] | one virtual machine: power, BMC, firmware, host, cluster node, boot window |
//! | [`truth`] | what physically happened, by whom, and how the machine stood then |
//! | [`faults`] | what can go wrong, and the dice that throw it |
//! | [`profile`] | fault profiles: rules from TOML |
//! | [`store`] | the store in memory: journal, rows, sequence checks |
//! | [`scenario`] | what people do: enrol, hold, drain, retire, repair, stop |
//! | [`run`] | the discrete-event runner |
//! | [`invariants`] | what must hold after every event |
//! | [`coverage`] | fault × step kind, crash × command |
//! | [`broken`] | deliberately broken deciders that the invariants must catch |
//! | [`sabotage`] | deliberately broken directors and stores, likewise |
//! | [`campaign`] | many seeds over threads |
//! | [`script`] | a run as text: what people did and what went wrong |
//! | [`rotations`] | a BMC's password over weeks: rotations, locks, kills, lies |
//! | [`shrink`] | from a failing run to the shortest script that still fails |

pub mod broken;
pub mod campaign;
pub mod coverage;
pub mod durations;
pub mod faults;
pub mod invariants;
pub mod physics;
pub mod profile;
pub mod rng;
pub mod rotations;
pub mod run;
pub mod sabotage;
pub mod scenario;
pub mod script;
pub mod serve;
pub mod shrink;
pub mod store;
pub mod truth;
pub mod workflows;
