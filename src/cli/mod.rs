//! The command line: a client of the API, and the words that start everything else.
//!
//! Architecture invariant: a client command knows the API and nothing behind it.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an edge: reads the token's file and the environment, makes idempotency keys"
)]

pub mod args;
pub mod bmc;
mod bmc_credentials;
mod change;
mod client;
mod events;
mod identify;
mod machine;
pub(crate) mod out;
mod rescue;
mod runs;
mod seen;
mod site;
mod webhook;

pub use args::{Cli, Command, Global, MachineCommand, RunCommand};
pub use out::Io;

pub(crate) use identify::identify;

use client::Api;
use out::Failure;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// What a command line asked for.
#[derive(Debug)]
pub enum Dispatch {
    /// A client command that has run.
    Done(ExitCode),
    /// A command that needs more than the API; main has it.
    Local { command: Box<Local>, json: bool },
}

/// Commands that main carries out.
#[derive(Debug)]
pub enum Local {
    Serve(args::Serve),
    Check(args::Check),
    Render(args::Render),
    Demo(args::Demo),
    DemoHook(String),
    Vbmc(args::Vbmc),
    Sim(args::Sim),
    Fsck(args::Fsck),
    Backup(args::Backup),
    SystemdUnit(args::SystemdUnit),
    Restore(args::Restore),
    Secret(args::Secret),
    /// With the certificates to trust.
    Bmc(bmc::Bmc, Option<PathBuf>),
    /// With where a daemon is.
    Discover(args::Scan, Box<Global>),
    Doctor(args::Doctor),
    Ipmi(args::Ipmi),
    Image(args::Image),
    Inventory(args::InventoryCommand),
}

/// Runs a client command on a runtime of its own, or hands the command back.
pub fn run(cli: Cli) -> Dispatch {
    let json = cli.global.json;
    let command = match split(cli.command, &cli.global) {
        Ok(command) => return Dispatch::Local { command: Box::new(command), json },
        Err(command) => *command,
    };
    let colour = std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|v| v != "dumb");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let code = match runtime {
        Ok(runtime) => {
            let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
            let mut io = Io::new(&mut out, &mut err, json, colour);
            runtime.block_on(execute(command, &cli.global, &mut io))
        }
        Err(e) => {
            eprintln!("error: no runtime: {e}");
            1
        }
    };
    Dispatch::Done(ExitCode::from(code))
}

fn split(command: Command, global: &Global) -> Result<Local, Box<Command>> {
    Ok(match command {
        Command::Serve(a) => Local::Serve(a),
        Command::Check(a) => Local::Check(a),
        Command::Render(a) => Local::Render(a),
        Command::Demo(a) => Local::Demo(a),
        Command::DemoHook { url } => Local::DemoHook(url),
        Command::Vbmc(a) => Local::Vbmc(a),
        Command::Sim(a) => Local::Sim(a),
        Command::Fsck(a) => Local::Fsck(a),
        Command::Backup(a) => Local::Backup(a),
        Command::SystemdUnit(a) => Local::SystemdUnit(a),
        Command::Restore(a) => Local::Restore(a),
        Command::Secret(a) => Local::Secret(a),
        Command::Bmc { command: bmc::Words::Alone(command) } => {
            Local::Bmc(bmc::Bmc { command }, global.ca_file.clone())
        }
        Command::Discover { command: args::DiscoverCommand::Scan(a) } => {
            Local::Discover(a, Box::new(global.clone()))
        }
        Command::Doctor(a) => Local::Doctor(a),
        Command::Ipmi(a) => Local::Ipmi(a),
        Command::Image(a) => Local::Image(a),
        Command::Inventory { command } => Local::Inventory(command),
        client => return Err(Box::new(client)),
    })
}

/// Runs one client command; returns the exit code: 0, 1 for an error, 2 for a command line that
/// makes no sense.
pub async fn execute(command: Command, global: &Global, io: &mut Io<'_>) -> u8 {
    let result = async {
        let api = Api::new(global)?;
        match command {
            Command::Machine { command } => machine::run(&api, command, io).await,
            Command::Run { command } => runs::run(&api, command, io).await,
            Command::Stop { why } => site::stop(&api, &why, io).await,
            Command::Resume { why } => site::resume(&api, &why, io).await,
            Command::Reload { confirm } => site::reload(&api, confirm, io).await,
            Command::Bmc { command: bmc::Words::Site(command) } => {
                bmc_credentials::run(&api, command, io).await
            }
            Command::Discover { command: args::DiscoverCommand::Seen } => seen::run(&api, io).await,
            Command::Webhook { command } => webhook::run(&api, command, io).await,
            Command::Status => site::status(&api, io).await,
            Command::Limits => site::limits(&api, io).await,
            Command::Events(args) => events::run(&api, &args, io).await,
            other => Err(Failure::usage(format!("{other:?} is not a client command"))),
        }
    };
    match result.await {
        Ok(()) => 0,
        Err(failure) => failure.report(io),
    }
}
