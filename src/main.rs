//! The farrier command.

use clap::Parser;
use farrier::app;
use farrier::app::database::SecretAsk;
use farrier::app::demo::Profile;
use farrier::cli::args::{InventoryCommand, SecretCommand};
use farrier::cli::{Cli, Dispatch, Local};
use farrier::sim::serve::replay::Expand;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Every rustls configuration of the process uses aws-lc-rs.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    match farrier::cli::run(Cli::parse()) {
        Dispatch::Done(code) => code,
        Dispatch::Local { command, json } => local(*command, json),
    }
}

fn local(command: Local, json: bool) -> ExitCode {
    match command {
        Local::Check(args) => app::check::check(&args.config, json),
        Local::Render(args) => app::render::render(&args, json),
        Local::Sim(args) => app::simulate::simulate(&app::simulate::Ask {
            machines: args.machines,
            days: u64::from(args.days),
            seeds: if args.seed.is_some() { 1 } else { args.seeds },
            first_seed: args.seed.unwrap_or(args.first_seed),
            profile: args.profile,
            json,
            shrink: args.shrink,
            script: args.script,
        }),
        Local::Demo(args) => {
            let profile = Profile::from_name(&args.profile).unwrap_or_default();
            app::demo::demo(&app::demo::Options {
                until: args.until,
                exit: args.exit,
                seed: args.seed,
                time_scale: args.time_scale.unwrap_or(profile.time_scale()),
                profile,
                plot: args.plot,
                ..app::demo::Options::new(args.machines)
            })
        }
        Local::DemoHook(url) => app::demo::hook(&url),
        Local::Vbmc(args) => app::vbmc::vbmc(&app::vbmc::Ask {
            machines: args.machines,
            vendor: args.vendor,
            profile: args.profile,
            seed: args.seed,
            time_scale: args.time_scale,
            quick: args.quick,
            tls: args.tls,
            listen: args.listen,
            admin: args.admin,
            inventory_out: args.inventory_out,
            replay: args.replay,
            expand: match args.ignore_expand {
                true => Expand::Ignored,
                false => Expand::Refused,
            },
            json,
        }),
        Local::Serve(args) => app::serve::serve(&app::serve::Ask {
            config: args.config,
            observe_only: args.observe_only,
            time_scale: args.time_scale,
            confirm: args.confirm,
        }),
        Local::Fsck(args) => app::database::check(args.db, &args.config, json),
        Local::Backup(args) => {
            app::backup::backup(args.db, &args.config, &args.file, args.replace, json)
        }
        Local::SystemdUnit(args) => app::systemd::print_unit(&args.config, args.key.as_deref()),
        Local::Restore(args) => {
            app::backup::restore(args.db, &args.config, &args.file, args.dry_run, json)
        }
        Local::Bmc(args, ca_file) => app::bmc::run(&args, ca_file.as_deref(), json),
        Local::Discover(args, global) => {
            app::discover::scan(&app::discover::Ask::of(args, *global), json)
        }
        Local::Doctor(args) => app::doctor::doctor(&args, json),
        Local::Ipmi(args) => app::ipmi::ipmi(&args, json),
        Local::Image(args) => app::image::image(&args.config, &args.command.into(), json),
        Local::Inventory(InventoryCommand::Import(args)) => {
            app::inventory_import::import(&app::inventory_import::Ask {
                csv: args.csv,
                config: args.config,
                partial: args.partial,
                json,
            })
        }
        Local::Secret(args) => {
            let ask = match args.command {
                SecretCommand::Set { name, user, file } => SecretAsk::Set { name, user, file },
                SecretCommand::List => SecretAsk::List,
                SecretCommand::Rm { name } => SecretAsk::Remove { name },
            };
            app::database::secret(&args.config, &ask, json)
        }
    }
}
