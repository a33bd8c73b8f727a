//! `farrier render`: what a machine would be handed, from the files alone; no daemon is asked.

use super::current::Current;
use super::{files, parts, system_network};
use crate::boot::preview::{self, Preview};
use crate::cli::args::Render;
use crate::config::netboot::DhcpMode;
use crate::config::{Loaded, listed};
use crate::dhcp::lease::Leases;
use crate::model::Expected;
use crate::model::network::{Lan, Mac};
use crate::port::netboot::Lessor;
use crate::port::{Advertise, InstallOrder};
use async_trait::async_trait;
use std::net::Ipv4Addr;
use std::process::ExitCode;

/// Stands for Farrier's public key where its file can't be read.
const SSH_KEY: &str = "FARRIER-SSH-KEY";

/// Why there is nothing to show, with the exit code.
struct Refused(u8, String);

fn refused<T>(what: String, hint: &str) -> Result<T, Refused> {
    Err(Refused(1, format!("error: {what}\nhint: {hint}\n")))
}

/// Exit 0; 1 when there is no such machine or file, or it can't be made; 2 for bad files.
pub fn render(args: &Render, json: bool) -> ExitCode {
    match all(args).and_then(|files| show(args, &files, json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refused(code, report)) => {
            eprint!("{report}");
            ExitCode::from(code)
        }
    }
}

fn all(args: &Render) -> Result<preview::Files, Refused> {
    let loaded = files::load(&args.config).map_err(|problems| Refused(2, problems.report))?;
    let machine = loaded.expected.iter().find(|m| *m.name == *args.machine).cloned();
    let Some(machine) = machine else {
        let names: Vec<&str> = loaded.expected.iter().map(|m| &*m.name).collect();
        return refused(
            format!("there is no machine `{}` in the inventory", args.machine),
            &listed(&args.machine, &names),
        );
    };
    of(args, loaded, &machine)
}

fn of(args: &Render, loaded: Loaded, machine: &Expected) -> Result<preview::Files, Refused> {
    let name = &*machine.name;
    let Some(profile) = loaded.site.profiles.get(&machine.profile).cloned() else {
        return refused(format!("`{name}` has no profile"), "`farrier check` says more");
    };
    let Some(image) = profile.image.clone() else {
        return refused(
            format!("profile `{}` of `{name}` names no image: nothing is installed", profile.name),
            "give the profile its `image`",
        );
    };
    let stated = args.mac.as_deref().or(machine.identity.mac.as_deref());
    let Some(mac) = stated.and_then(|m| m.parse::<Mac>().ok()) else {
        return refused(
            format!("the boot MAC of `{name}` is not in the inventory"),
            "give the machine its `mac`, or say it here: `--mac aa:bb:cc:dd:ee:ff`",
        );
    };
    let reserves = loaded.daemon.dhcp.as_ref().is_some_and(|d| d.mode == DhcpMode::Reservation);
    let leases = match reserves {
        true => crate::dhcp::kept_leases(&loaded.daemon.state)
            .map(|leases| Some(Kept(leases)))
            .map_err(|why| Refused(1, format!("error: {why}\n")))?,
        false => None,
    };
    let text = mac.to_string();
    let lessor = leases.as_ref().map(|l| l as &dyn Lessor);
    let network = system_network::system_network(&loaded, machine, Some(&text), lessor);
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else {
        return refused("no runtime".into(), "is this machine out of threads?");
    };
    let network = runtime.block_on(network);
    let keys = parts::own_key(&loaded.daemon).unwrap_or_else(|| SSH_KEY.into());
    let (recipes, user) = (loaded.recipes.clone(), loaded.daemon.ssh.user.clone());
    let images = loaded.daemon.images.clone();
    let install = profile.root_disk.clone().filter(|_| profile.trust_installer);
    let install = install.map(|root| InstallOrder {
        identity: (*machine.identity).clone(),
        root,
        authorized_keys: profile.authorized_keys.clone(),
    });
    let Some(base_url) = Current::new(loaded).boot(machine) else {
        return refused(
            format!("`{name}` has no URL of the boot listener"),
            "give `[listen.boot]` an `advertise_url` that covers its network",
        );
    };
    let keys = [keys];
    let preview = Preview {
        name,
        mac,
        image: &image,
        profile: &machine.profile,
        by_ramdisk: profile.root_disk.is_some() && !profile.trust_installer,
        base_url: &base_url,
        network: network.as_ref().ok().and_then(|n| n.as_deref()),
        keys: &keys,
        more_keys: &profile.authorized_keys,
        user: &user,
        images: &images,
        install,
    };
    let made = runtime.block_on(preview::files(&recipes, &preview));
    let mut made = made.map_err(|why| Refused(1, format!("error: {why}\n")))?;
    if let Err(fault) = network {
        let hint = fault.hint.as_deref().map(|h| format!("\nhint: {h}")).unwrap_or_default();
        made.push(("network-config".into(), Err(format!("{}{hint}", fault.message))));
    }
    Ok(made)
}

fn show(args: &Render, files: &preview::Files, json: bool) -> Result<(), Refused> {
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let Some(wanted) = &args.file else {
        match json {
            true => println!("{}", serde_json::json!({ "machine": args.machine, "files": names })),
            false => println!("{}", names.join("\n")),
        }
        return Ok(());
    };
    match files.iter().find(|(name, _)| name == wanted) {
        Some((name, Ok(text))) => {
            match json {
                true => println!(
                    "{}",
                    serde_json::json!({ "machine": args.machine, "file": name, "text": text })
                ),
                false => print!("{text}"),
            }
            Ok(())
        }
        Some((name, Err(why))) => Err(Refused(1, format!("error: `{name}`: {why}\n"))),
        None => refused(
            format!("`{}` is handed no `{wanted}`", args.machine),
            &format!("there are `{}`", names.join("`, `")),
        ),
    }
}

/// The leases as the daemon has kept them; this gives none.
struct Kept(Leases);

#[async_trait]
impl Lessor for Kept {
    fn lease_of(&self, network: &str, mac: Mac) -> Option<Ipv4Addr> {
        self.0.kept_of(network, mac)
    }

    async fn lease(&self, lan: &Lan, mac: Mac) -> Result<Ipv4Addr, String> {
        let none = || {
            format!(
                "network `{}` has given it none so far; the daemon does when it installs it",
                lan.name
            )
        };
        self.0.kept_of(&lan.name, mac).ok_or_else(none)
    }
}
