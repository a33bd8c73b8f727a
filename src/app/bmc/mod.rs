//! `farrier bmc`: one BMC at a person's hand, with no daemon and no database. What it reads and does
//! is what the daemon would, through the same edge.
#![allow(
    clippy::disallowed_methods,
    reason = "reads the login from the environment, and waits for what a write is to show"
)]

mod bios;
mod boot;
mod change;
mod firmware;
mod inspect;
mod log;
mod login;
mod media;
mod power;
mod qualify;
mod scrub;
mod sensors;
mod volume;

use crate::bmc::{RedfishBmc, Settings, Trace};
use crate::cli::Io;
use crate::cli::bmc::{At, Bmc, BmcCommand};
use crate::cli::out::Failure;
use crate::model::{BmcEndpoint, Fault, Identity, MachineId};
use crate::port::{BmcRead, BmcTarget, Credential};
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Asks the person at the terminal; `None`: nobody is there.
pub type Ask = dyn Fn(&str) -> Option<bool> + Send + Sync;

/// What a command needs besides its words.
pub struct Context<'a> {
    pub login: Credential,
    /// Certificates (PEM) that `--tls ca` trusts besides the system's.
    pub ca_pem: Option<String>,
    pub ask: &'a Ask,
    pub settings: Settings,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context")
    }
}

/// Runs one command on a runtime of its own: 0, 1 for an error, 2 for a command line that makes no
/// sense.
pub fn run(args: &Bmc, ca_file: Option<&Path>, json: bool) -> ExitCode {
    let colour = std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|v| v != "dumb");
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let mut io = Io::new(&mut out, &mut err, json, colour);
    let context = login::login().and_then(|login| {
        let ca_pem = ca_file.map(login::certificates).transpose()?;
        let quirks = Arc::new(crate::config::quirks::shipped());
        let settings = Settings { quirks, ..Settings::default() };
        Ok(Context { login, ca_pem, ask: &login::ask, settings })
    });
    let code = match context {
        Err(failure) => failure.report(&mut io),
        Ok(context) => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(execute(&args.command, context, &mut io)),
            Err(e) => Failure::error(format!("no runtime: {e}")).report(&mut io),
        },
    };
    ExitCode::from(code)
}

/// Runs one command; returns the exit code.
pub async fn execute(command: &BmcCommand, context: Context<'_>, io: &mut Io<'_>) -> u8 {
    let one = match One::new(command.at(), &context) {
        Ok(one) => one,
        Err(failure) => return failure.report(io),
    };
    let result = match command {
        BmcCommand::Inspect(_) => inspect::run(&one, io).await,
        BmcCommand::Power { op, sure, .. } => power::run(&one, *op, *sure, io).await,
        BmcCommand::Boot { target, sure, .. } => boot::run(&one, *target, *sure, io).await,
        BmcCommand::Media { change, sure, .. } => {
            media::run(&one, change.as_ref(), *sure, io).await
        }
        BmcCommand::Bios { change, like, sure, .. } => {
            bios::run(&one, change.as_ref(), like.as_deref(), *sure, io).await
        }
        BmcCommand::Volume { change, sure, .. } => {
            volume::run(&one, change.as_ref(), *sure, io).await
        }
        BmcCommand::Log { last, .. } => log::run(&one, *last, io).await,
        BmcCommand::Firmware(_) => firmware::run(&one, io).await,
        BmcCommand::Sensors(_) => sensors::run(&one, io).await,
        BmcCommand::Qualify(_) => qualify::run(&one, io).await,
    };
    // Sessions are few, and outlive us by half an hour.
    one.edge.log_out().await;
    match result {
        Ok(()) => 0,
        Err(failure) => failure.report(io),
    }
}

/// The one BMC that is meant.
struct One<'a> {
    edge: RedfishBmc,
    target: BmcTarget,
    trace: Arc<Trace>,
    ask: &'a Ask,
}

impl<'a> One<'a> {
    fn new(at: &At, context: &Context<'a>) -> Result<Self, Failure> {
        let address = at.address.trim();
        let url = if address.contains("://") {
            address.to_string()
        } else if address.parse::<std::net::Ipv6Addr>().is_ok() {
            format!("https://[{address}]")
        } else {
            format!("https://{address}")
        };
        let identity = Identity::new(at.serial.as_deref(), at.uuid.as_deref(), None);
        if at.uuid.is_some() && identity.uuid.is_none() {
            return Err(Failure::usage("--uuid is no UUID that a machine can have"));
        }
        let trace = Arc::new(Trace::default());
        let settings = Settings {
            ca_pem: context.ca_pem.clone(),
            trace: Some(trace.clone()),
            ..context.settings.clone()
        };
        let target = BmcTarget {
            machine: MachineId(0),
            name: address.into(),
            endpoint: BmcEndpoint {
                url: url.as_str().into(),
                credential: "".into(),
                tls: at.tls.as_str().into(),
                ipmi: None,
                controllers: Default::default(),
            },
            identity,
        };
        let vault = Arc::new(login::OneLogin(context.login.clone()));
        Ok(One { edge: RedfishBmc::new(vault, settings), target, trace, ask: context.ask })
    }

    /// A fault as the command's failure, with what a person at a command line can do.
    async fn failed(&self, fault: Fault) -> Failure {
        let hint = match fault.code.as_ref() {
            "ambiguous-system" => Some("say which with --serial or --uuid".to_string()),
            "certificate-untrusted" => Some(match self.shown_certificate().await {
                Some(pin) => {
                    format!("compare it on site, then trust this one with --tls {pin}")
                }
                None => "trust its certificate with --tls sha256:…".to_string(),
            }),
            "bad-address" => None,
            _ => fault.hint.clone(),
        };
        let mut text = format!("{} ({})", fault.message, fault.code);
        if fault.is_no_answer() {
            // Of a request that got no answer the path alone is known.
            text = format!("{}: {text}", self.target.name);
        }
        if let Some(evidence) = fault.evidence.filter(|e| !fault.message.contains(&**e)) {
            text += &format!("\n  {evidence}");
        }
        let failure = match fault.code.as_ref() {
            "bad-address" => Failure::usage(text),
            _ => Failure::error(text),
        };
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    /// The pin of the certificate that is shown. Asked for with a pin that nothing fulfils, so that
    /// the handshake ends before anything is sent.
    async fn shown_certificate(&self) -> Option<String> {
        let mut target = self.target.clone();
        target.endpoint.tls = format!("sha256:{}", "0".repeat(64)).into();
        let fault = self.edge.system(&target).await.err()?;
        let pin = fault.evidence?.strip_prefix("shown: ")?.to_string();
        (fault.code == "certificate-changed").then_some(pin)
    }
}
