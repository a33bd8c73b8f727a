//! `farrier doctor`: what keeps machines from booting over the network, found before they try.
//! Looks and asks; changes nothing.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "reads loaders and /proc, asks the network"
)]

mod loader;
mod ports;

use super::{database, files, netboot};
use crate::cli::args::Doctor as Words;
use crate::config::netboot::{Dhcp, DhcpMode};
use crate::config::{self, Daemon};
use crate::dhcp::packet::Heard;
use crate::dhcp::{self, Ports, survey};
use crate::port::netboot::{Firmware, Loaders};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Ok,
    /// Worth a look.
    Warn,
    /// Machines will not boot, or boot something else.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// `dhcp eth1`, `loader x64`, `port 67`, `url`.
    pub what: String,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    fn new(level: Level, what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level, what: what.into(), detail: detail.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Prints what was found; exit 0 when nothing is wrong, 1 when something is, 2 for bad files.
pub fn doctor(ask: &Words, json: bool) -> ExitCode {
    let loaded = match files::load(&ask.config) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprint!("{}", problems.report);
            return ExitCode::from(2);
        }
    };
    database::block_on(async {
        let findings = look(&loaded, ask).await;
        if json {
            println!("{}", serde_json::to_string_pretty(&findings).unwrap_or_default());
        } else {
            show(&findings);
        }
        let failed = findings.iter().any(|f| f.level == Level::Fail);
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    })
}

fn show(findings: &[Finding]) {
    for f in findings {
        let level = match f.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        println!("{level:<5} {}: {}", f.what, f.detail);
        if let Some(hint) = &f.hint {
            println!("      hint: {hint}");
        }
    }
}

async fn look(loaded: &config::Loaded, ask: &Words) -> Vec<Finding> {
    let daemon = &loaded.daemon;
    let mut found = Vec::new();
    let configured = daemon.dhcp.as_ref().map(|d| d.interfaces.clone()).unwrap_or_default();
    let interfaces = if ask.interface.is_empty() { configured } else { ask.interface.clone() };
    found.extend(held_ports(daemon, &interfaces));
    let wait = Duration::from_secs(ask.wait);
    let asked = interfaces.iter().map(|name| survey(name, Ports::default(), wait));
    let answers = futures_util::future::join_all(asked).await;
    for (name, answer) in interfaces.iter().zip(answers) {
        let own = dhcp::interface(name).map(|i| i.addresses).unwrap_or_default();
        found.extend(servers(name, answer, daemon.dhcp.as_ref(), &own));
    }
    if interfaces.is_empty() {
        found.push(
            Finding::new(Level::Warn, "dhcp", "no interface was asked on")
                .hint("name them in `[listen.dhcp]`, or with --interface"),
        );
    }
    let loaders = netboot::loaders(daemon);
    found.extend(check_loaders(&loaders));
    found.extend(urls(daemon, &loaders).await);
    found
}

/// Who holds the ports that the configuration needs.
fn held_ports(daemon: &Daemon, interfaces: &[String]) -> Vec<Finding> {
    let mut wanted: BTreeSet<u16> = BTreeSet::new();
    if let Some(dhcp) = &daemon.dhcp {
        wanted.insert(67);
        if dhcp.mode == DhcpMode::Proxy {
            wanted.insert(4011);
        }
    }
    wanted.extend(daemon.tftp.iter().flat_map(|t| t.bind.iter().map(std::net::SocketAddr::port)));
    let mut found = Vec::new();
    for port in wanted {
        let what = format!("port {port}/udp");
        let holders = ports::holders(port);
        let own = |h: &&ports::Holder| h.name.as_deref().is_some_and(|n| n == "farrier");
        let (ours, others): (Vec<_>, Vec<_>) = holders.iter().partition(own);
        let name = |h: &ports::Holder| match (&h.name, h.pid) {
            (Some(name), Some(pid)) => format!("`{name}` (pid {pid}) at {}", h.address),
            _ => format!("a program that only root may see, at {}", h.address),
        };
        found.push(match (others.first(), ours.first()) {
            (Some(other), _) => {
                let fits = matches!(port, 67 | 4011) && !interfaces.is_empty();
                let more = if fits { ". Farrier binds its interfaces one by one" } else { "" };
                Finding::new(Level::Fail, what, format!("taken by {}{more}", name(other)))
                    .hint("stop that program, or keep it off Farrier's interfaces and addresses")
            }
            (None, Some(own)) => Finding::new(Level::Ok, what, format!("served by {}", name(own))),
            (None, None) => Finding::new(Level::Ok, what, "free"),
        });
    }
    found
}

/// What the answers on one interface mean for the mode that is configured.
pub fn servers(
    interface: &str,
    answer: Result<Vec<Heard>, String>,
    dhcp: Option<&Dhcp>,
    own: &[Ipv4Addr],
) -> Vec<Finding> {
    let what = format!("dhcp {interface}");
    let heard = match answer {
        Ok(heard) => heard,
        Err(why) => return vec![Finding::new(Level::Fail, what, why)],
    };
    let mut by_server: BTreeMap<Ipv4Addr, Vec<&Heard>> = BTreeMap::new();
    for one in &heard {
        by_server.entry(one.server).or_default().push(one);
    }
    let mode = dhcp.map(|d| d.mode);
    let mut found = Vec::new();
    let mut givers = 0;
    for (server, offers) in &by_server {
        let gives = offers.iter().any(|o| o.address.is_some());
        let file = offers.iter().map(|o| o.file.as_str()).find(|f| !f.is_empty());
        givers += usize::from(gives);
        let whose = if own.contains(server) { " (an address of this machine)" } else { "" };
        let kind = if gives { "gives addresses" } else { "answers as a proxy" };
        let boots = file.map(|f| format!(" and says to boot `{f}`")).unwrap_or_default();
        let detail = format!("{server}{whose} {kind}{boots}");
        found.push(match (mode, gives, file) {
            (Some(DhcpMode::Reservation), true, _) => {
                Finding::new(Level::Fail, &*what, detail).hint(
                    "a second DHCP server: machines take whose answer comes first. Turn it off here, \
                     or use `mode = \"proxy\"` beside it",
                )
            }
            (Some(_), _, Some(_)) => Finding::new(Level::Fail, &*what, detail)
                .hint("two servers say what to boot: take the boot options out of that one"),
            (Some(DhcpMode::Proxy), true, None) => Finding::new(Level::Ok, &*what, detail),
            (Some(_), false, None) => Finding::new(Level::Warn, &*what, detail)
                .hint("another boot server; firmware may ask it instead of Farrier"),
            (None, ..) => Finding::new(Level::Ok, &*what, detail),
        });
    }
    match (mode, givers) {
        (Some(DhcpMode::Proxy), 0) => found.push(
            Finding::new(Level::Fail, what, "nobody gives addresses here").hint(
                "`mode = \"proxy\"` needs the site's DHCP server beside it; or it only answers MACs that it knows",
            ),
        ),
        (Some(DhcpMode::Proxy), 2..) => found.push(
            Finding::new(Level::Warn, what, format!("{givers} servers give addresses"))
                .hint("one may be a stranger's: compare them with what the network's people know"),
        ),
        (Some(DhcpMode::Reservation), 0) if heard.is_empty() => {
            found.push(Finding::new(Level::Ok, what, "no other DHCP server answers"));
        }
        (None, 0) if heard.is_empty() => found.push(Finding::new(Level::Ok, what, "nobody answers")),
        _ => {}
    }
    found
}

fn check_loaders(loaders: &Loaders) -> Vec<Finding> {
    let check = |firmware: &Firmware, name: &String| {
        let what = format!("loader {}", firmware.name());
        let found = loaders.paths(name).into_iter().find(|p| p.is_file());
        let Some(path) = found else {
            // Sites without ARM machines have no loader for them.
            let level = if *firmware == Firmware::Arm64 { Level::Warn } else { Level::Fail };
            let dirs: Vec<String> = loaders.dirs.iter().map(|d| d.display().to_string()).collect();
            return Finding::new(
                level,
                what,
                format!("`{name}` is in none of {}", dirs.join(", ")),
            )
            .hint("`apt-get install ipxe`, or say where it is in `[loaders]`");
        };
        let place = path.display();
        match std::fs::read(&path).map(|bytes| loader::check(&bytes, *firmware)) {
            Ok(Ok(kind)) => Finding::new(Level::Ok, what, format!("`{place}`: {kind}")),
            Ok(Err(why)) => Finding::new(Level::Fail, what, format!("`{place}` {why}"))
                .hint("such machines would fetch it and stop: name the right file in `[loaders]`"),
            Err(e) => Finding::new(Level::Fail, what, format!("`{place}` can't be read: {e}")),
        }
    };
    loaders.names.iter().map(|(firmware, name)| check(firmware, name)).collect()
}

/// Do machines reach what they are told to fetch? Asked from here: a firewall in between shows only
/// on the machines' side.
async fn urls(daemon: &Daemon, loaders: &Loaders) -> Vec<Finding> {
    let Some(boot) = &daemon.boot else {
        return vec![Finding::new(Level::Warn, "url", "there is no `[listen.boot]`")];
    };
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(5))
        .build();
    let client = match client {
        Ok(client) => client,
        Err(e) => return vec![Finding::new(Level::Fail, "url", format!("no HTTP client: {e}"))],
    };
    let advertised = boot.advertise.by_network.iter().map(|(n, u)| (format!("url of {n}"), u));
    let any = boot.advertise.any.iter().map(|u| ("url".to_string(), u));
    let mut found = Vec::new();
    for (what, url) in advertised.chain(any) {
        found.push(fetch(&client, what, url, loaders).await);
    }
    found
}

async fn fetch(client: &reqwest::Client, what: String, url: &str, loaders: &Loaders) -> Finding {
    let problem = |r: &reqwest::Response| {
        let kind = r.headers().get("content-type").and_then(|v| v.to_str().ok());
        kind.is_some_and(|k| k.starts_with("application/problem+json"))
    };
    // Nothing is there, and nobody but Farrier says so in this form.
    match client.get(format!("{url}/boot")).send().await {
        Err(e) => {
            let why =
                if e.is_timeout() { "it does not answer within 5 s" } else { "no connection" };
            Finding::new(Level::Fail, what, format!("{url}: {why}")).hint(
                "is `farrier serve` running, and is this the address under which machines see it?",
            )
        }
        Ok(answer) if !problem(&answer) => {
            let status = answer.status().as_u16();
            Finding::new(Level::Fail, what, format!("{url}: something else answers ({status})"))
                .hint("`advertise_url` must lead to the boot listener, without a proxy in between")
        }
        Ok(_) => {
            let name = loaders.names.get(&Firmware::X64).map_or("", String::as_str);
            match client.head(format!("{url}/loader/{name}")).send().await {
                Ok(answer) if answer.status().is_success() => {
                    Finding::new(Level::Ok, what, format!("{url}: answers, and has `{name}`"))
                }
                _ => Finding::new(Level::Warn, what, format!("{url}: answers, without `{name}`"))
                    .hint("UEFI HTTP boot fetches its loader there"),
            }
        }
    }
}
