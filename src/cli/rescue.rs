//! `farrier machine rescue`: a person's key in, the way to log in out.

use super::args::{How, RescueOrder, Target};
use super::change::change;
use super::client::{Api, encode};
use super::out::{Failure, Io};
use crate::api::view::{ChangeKind, ChangeOrder, MachineView, RescueView};
use crate::api::words::span;
use crate::model::deploy::is_public_key;
use crate::model::time::Span;
use std::path::Path;

/// A `.pub` file has a few hundred bytes.
const KEY_MAX: u64 = 16 * 1024;

pub(super) async fn run(api: &Api, order: RescueOrder, io: &mut Io<'_>) -> Result<(), Failure> {
    let how = How { why: order.why, key: order.idempotency_key, ..How::default() };
    let target = Target { names: vec![order.name.clone()], how };
    if order.end {
        let end = ChangeOrder { change: ChangeKind::EndRescue, ..ChangeOrder::default() };
        return change(api, target, end, io).await;
    }
    let Some(file) = &order.key else { return show(api, &order.name, io).await };
    let for_ms = order.r#for.parse::<Span>().map_err(Failure::usage)?.0;
    let rescue = ChangeOrder {
        change: ChangeKind::Rescue,
        key: Some(public_key(file)?),
        for_ms: Some(for_ms),
        ..ChangeOrder::default()
    };
    change(api, target, rescue, io).await?;
    if io.json {
        return Ok(());
    }
    io.line(format_args!(
        "over in {}; `farrier machine rescue {}` tells how to log in once it is up",
        span(for_ms),
        order.name
    ))
}

/// The one line of the file. A private key never leaves this machine.
fn public_key(file: &Path) -> Result<String, Failure> {
    let bad = |why: String| Failure::error(format!("{}: {why}", file.display()));
    let size = std::fs::metadata(file).map_err(|e| bad(e.to_string()))?.len();
    if size > KEY_MAX {
        return Err(bad("too long for a public key".into()));
    }
    let text = std::fs::read_to_string(file).map_err(|e| bad(e.to_string()))?;
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    match (lines.next(), lines.next()) {
        (Some(key), None) if is_public_key(key) => Ok(key.to_string()),
        _ => Err(bad("not one OpenSSH public key".into())
            .hint("the .pub file beside the private key, like ~/.ssh/id_ed25519.pub")),
    }
}

async fn show(api: &Api, name: &str, io: &mut Io<'_>) -> Result<(), Failure> {
    let answer = api.get::<MachineView>(&format!("/v1/machines/{}", encode(name))).await?;
    let Some(rescue) = answer.value.rescue else {
        return Err(Failure::error(format!("{name} is in no rescue"))
            .hint(format!("farrier machine rescue {name} --key FILE.pub --why \"…\"")));
    };
    if io.json {
        return io.document(&rescue);
    }
    fields(&rescue, io)
}

/// Who, until when, and the lines to log in with.
pub(super) fn fields(r: &RescueView, io: &mut Io<'_>) -> Result<(), Failure> {
    let left = match r.state.as_str() {
        "ending" => "now".into(),
        _ => format!("in {}", span(r.left_ms)),
    };
    let (host, port) = r.address.as_deref().map_or(("", None), host_and_port);
    let known = match port {
        Some(port) => format!("[{host}]:{port}"),
        None => host.to_string(),
    };
    let log_in = |address: &str| match (address, port) {
        ("", _) => String::new(),
        (_, Some(port)) => format!("ssh -p {port} root@{host}"),
        (_, None) => format!("ssh root@{host}"),
    };
    io.fields(&[
        ("state", r.state.clone()),
        ("asked for", format!("by {}: {}", r.by, r.why)),
        ("key", r.key.clone()),
        ("ends", left),
        ("log in", log_in(host)),
        ("known_hosts", r.host_key.as_ref().map_or(String::new(), |key| format!("{known} {key}"))),
    ])
}

/// `address` or `address:port`; a bare IPv6 address has more colons than one.
fn host_and_port(address: &str) -> (&str, Option<&str>) {
    if let Some((host, port)) = address.strip_prefix('[').and_then(|a| a.split_once("]:")) {
        return (host, Some(port));
    }
    match address.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (address, None),
    }
}
