//! Words about passwords and certificates of BMCs.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum BmcCommand {
    /// Give BMCs new passwords: made, escrowed, set, tried, kept; a kill at any point loses none
    Rotate(Rotate),
    /// Look at the certificates that BMCs show, and accept them as theirs
    Pin(Pin),
}

#[derive(Debug, Args)]
pub struct Rotate {
    /// Its BMC and the controllers that it has at addresses of their own; MACHINE/CONTROLLER is one of
    /// them alone, MACHINE/bmc its BMC alone
    #[arg(value_name = "MACHINE", required_unless_present_any = ["selector", "list"])]
    pub names: Vec<String>,
    /// Machines by pool, rack, stage, … as for `farrier machine`
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub selector: Option<String>,
    /// For the person who reads it at 3 a.m.
    #[arg(long, required_unless_present = "list")]
    pub why: Option<String>,
    /// Also without a hook that keeps the new password for the day the database is lost
    #[arg(long)]
    pub no_escrow: bool,
    /// How many machines it may touch; asked for when they are many
    #[arg(long, value_name = "COUNT")]
    pub confirm: Option<usize>,
    /// Do not wait for the end
    #[arg(long)]
    pub no_wait: bool,
    /// How far rotations are, and how the last ones ended
    #[arg(long, conflicts_with_all = ["selector", "why"])]
    pub list: bool,
    /// A stuck rotation: try once more which of the two passwords works
    #[arg(long, conflicts_with_all = ["selector", "forget", "no_escrow"])]
    pub look_again: bool,
    /// A stuck rotation: give it up; logins go on with the credential that is kept
    #[arg(long, conflicts_with_all = ["selector", "no_escrow"])]
    pub forget: bool,
}

#[derive(Debug, Args)]
pub struct Pin {
    /// Its BMC and the controllers that it has at addresses of their own; MACHINE/CONTROLLER is one of
    /// them alone, MACHINE/bmc its BMC alone
    #[arg(value_name = "MACHINE", required_unless_present = "selector")]
    pub names: Vec<String>,
    /// Machines by pool, rack, stage, … as for `farrier machine`
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub selector: Option<String>,
    /// Accept what is shown without being asked
    #[arg(long)]
    pub yes: bool,
    /// How the fingerprints were compared
    #[arg(long, default_value = "accepted by hand")]
    pub why: String,
    /// How many machines it may touch; asked for when they are many
    #[arg(long, value_name = "COUNT")]
    pub confirm: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub enum InventoryCommand {
    /// Seal the factory passwords of a delivery note; the daemon must be stopped
    Import(Import),
}

#[derive(Debug, Args)]
pub struct Import {
    /// Columns: serial, bmc_mac, user, password, rack, position
    #[arg(long, value_name = "FILE")]
    pub csv: PathBuf,
    #[arg(long, default_value = "farrier.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// Keep the good lines although others are bad
    #[arg(long)]
    pub partial: bool,
}
