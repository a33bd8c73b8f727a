//! `farrier ipmi …`: one BMC over IPMI at a person's hand, without a daemon. What is left to do when
//! its Redfish is wedged, and what only IPMI has: the console.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "reads the environment's credential"
)]

use super::database;
use crate::cli::args::{Ipmi, IpmiCommand};
use crate::ipmi::{IpmiBmc, Settings};
use crate::model::action::{BootTarget, PowerOp};
use crate::model::{
    BmcEndpoint, Channel, Expect, Fault, FaultClass, Identity, IpmiEndpoint, MachineId, Outcome,
};
use crate::port::capability::{BmcConsole, BmcLog, CaptureOrder};
use crate::port::{BmcCare, BmcPower, BmcTarget, Credential, Secret, Vault};
use async_trait::async_trait;
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;

/// The environment's credential for whatever is asked.
struct Given(Credential);

#[async_trait]
impl Vault for Given {
    async fn credential(&self, _: &str) -> Result<Credential, Fault> {
        Ok(self.0.clone())
    }

    async fn ssh_key(&self, _: &str) -> Result<Secret, Fault> {
        Err(Fault::new(FaultClass::Bug, Channel::Host, "no-key", "IPMI needs no key"))
    }
}

/// Runs one command; exit 0 when the BMC took it, 1 when not, 2 for a command that makes no sense.
pub fn ipmi(ask: &Ipmi, json: bool) -> ExitCode {
    database::block_on(async {
        let (bmc, vault) = match (target(ask), given()) {
            (Ok(bmc), Ok(vault)) => (bmc, vault),
            (Err(why), _) | (_, Err(why)) => {
                eprintln!("error: {why}");
                return ExitCode::from(2);
            }
        };
        let edge = IpmiBmc::new(Arc::new(vault), Settings::default());
        match run(&edge, &bmc, ask, json).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => {
                eprintln!("error: {fault}");
                if let Some(evidence) = &fault.evidence {
                    eprintln!("  seen: {evidence}");
                }
                if let Some(hint) = &fault.hint {
                    eprintln!("  hint: {hint}");
                }
                ExitCode::FAILURE
            }
        }
    })
}

fn given() -> Result<Given, String> {
    let read = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    match (read("FARRIER_BMC_USER"), read("FARRIER_BMC_PASSWORD")) {
        (Some(user), Some(password)) => {
            Ok(Given(Credential { user, password: Secret::new(password) }))
        }
        _ => Err("no credential\n  hint: give FARRIER_BMC_USER and FARRIER_BMC_PASSWORD in the \
                  environment"
            .into()),
    }
}

fn target(ask: &Ipmi) -> Result<BmcTarget, String> {
    let (address, port) = match ask.address.parse::<std::net::SocketAddr>() {
        Ok(both) => (both.ip().to_string(), both.port()),
        Err(_) => match ask.address.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => {
                let port = port.parse().map_err(|_| format!("`{port}` is not a port"))?;
                (host.to_string(), port)
            }
            _ => (ask.address.trim_matches(['[', ']']).to_string(), 623),
        },
    };
    if address.is_empty() || address.starts_with('-') {
        return Err(format!("`{}` is not an address", ask.address));
    }
    let ipmi = IpmiEndpoint { address: address.into(), port, cipher: ask.cipher, credential: None };
    Ok(BmcTarget {
        machine: MachineId(0),
        name: ask.address.as_str().into(),
        endpoint: BmcEndpoint { ipmi: Some(Box::new(ipmi)), ..BmcEndpoint::default() },
        identity: Identity::new(ask.serial.as_deref(), None, None),
    })
}

async fn run(edge: &IpmiBmc, bmc: &BmcTarget, ask: &Ipmi, json: bool) -> Result<(), Fault> {
    let expect = Expect { identity: bmc.identity.clone(), ..Expect::default() };
    match &ask.command {
        IpmiCommand::Status => status(edge, bmc, json).await,
        IpmiCommand::Log { last } => {
            let log = edge.log(bmc, *last).await?;
            if json {
                println!("{}", json!(log));
            } else {
                for line in &log {
                    let at = line.at.as_deref().unwrap_or("before the clock was set");
                    println!("{:>5}  {at:<23}  {}", line.id, line.message);
                }
            }
            Ok(())
        }
        IpmiCommand::Console { into, seconds, max_mib } => {
            let order = CaptureOrder {
                into: into.clone(),
                for_ms: seconds.saturating_mul(1000),
                max_bytes: max_mib.saturating_mul(1 << 20),
            };
            let got = edge.capture(bmc, &order).await?;
            let end = match got.end {
                crate::port::capability::CaptureEnd::Time => "time",
                crate::port::capability::CaptureEnd::Size => "size",
                crate::port::capability::CaptureEnd::Closed => "closed-by-the-bmc",
            };
            if json {
                println!("{}", json!({"file": into, "bytes": got.bytes, "end": end}));
            } else {
                println!("{} bytes in {} (end: {end})", got.bytes, into.display());
            }
            Ok(())
        }
        IpmiCommand::Power { to } => {
            let op = match to.as_str() {
                "on" => PowerOp::On,
                "off" => PowerOp::ForceOff,
                "soft" => PowerOp::GracefulShutdown,
                _ => PowerOp::ForceRestart,
            };
            told(edge.power(bmc, &expect, op).await, json)
        }
        IpmiCommand::Boot { from } => {
            let target = match from.as_str() {
                "pxe" => BootTarget::Pxe,
                "cd" => BootTarget::Cd,
                "disk" => BootTarget::Disk,
                _ => BootTarget::None,
            };
            told(edge.set_boot(bmc, &expect, target).await, json)
        }
        IpmiCommand::ResetBmc => told(edge.reset_bmc(bmc, &expect).await, json),
    }
}

async fn status(edge: &IpmiBmc, bmc: &BmcTarget, json: bool) -> Result<(), Fault> {
    let look = edge.look(bmc).await?;
    // Not every BMC has these.
    let fru = edge.fru(bmc).await.unwrap_or_default();
    let flags = edge.boot_flags(bmc).await.ok();
    let power = json!(look.power);
    if json {
        let said = json!({
            "power": power,
            "manufacturer": fru.product_manufacturer, "product": fru.product_name,
            "serial": fru.product_serial, "board_serial": fru.board_serial,
            "chassis_serial": fru.chassis_serial, "asset_tag": fru.asset_tag,
            "boot": flags.map(|f| json!({
                "valid": f.valid, "persistent": f.persistent, "efi": f.efi, "device": f.device,
            })),
        });
        println!("{said}");
        return Ok(());
    }
    println!("power    {}", power.as_str().unwrap_or_default());
    let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "not known".into());
    println!("machine  {} {}", text(&fru.product_manufacturer), text(&fru.product_name));
    println!("serial   {} (board {})", text(&fru.product_serial), text(&fru.board_serial));
    if let Some(f) = flags.filter(|f| f.valid && f.device != 0) {
        let mode = if f.efi { "UEFI" } else { "legacy" };
        let often = if f.persistent { "every boot" } else { "next boot" };
        println!("boot     device {} ({often}, {mode})", f.device);
    }
    Ok(())
}

/// What came of a write, for a person.
fn told(outcome: Outcome, json: bool) -> Result<(), Fault> {
    match outcome {
        Outcome::Applied { .. } => {
            println!("{}", if json { "{\"outcome\": \"applied\"}" } else { "the BMC took it" });
            Ok(())
        }
        Outcome::Failed { fault } | Outcome::Unknown { fault } => Err(fault),
        Outcome::Refused { saw, .. } => Err(Fault::new(
            FaultClass::Precondition,
            Channel::Bmc,
            "refused",
            format!("nothing was sent: {saw}"),
        )),
        Outcome::Withdrawn { why } => {
            Err(Fault::new(FaultClass::Bug, Channel::Engine, "withdrawn", why))
        }
    }
}
