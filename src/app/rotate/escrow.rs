//! The operator's hook, which keeps new passwords: JSON on standard input, exit 0 = kept. It is told
//! of a password before the BMC is, and again when it is in force or withdrawn.

use crate::config::daemon::Escrow;
use crate::model::rotation::Rotation;
use crate::port::{BmcTarget, Secret};
use serde_json::json;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// What the hook is told of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// About to be set: either this one or the last one is in force.
    Pending,
    InForce,
    /// It was never set, or did not take hold.
    Withdrawn,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::InForce => "in-force",
            State::Withdrawn => "withdrawn",
        }
    }
}

/// Tells the hook. What it prints is thrown away: it may repeat what it was told.
///
/// # Errors
/// A sentence without a secret: it did not say that it kept it.
pub(super) async fn tell(
    escrow: &Escrow,
    state: State,
    r: &Rotation,
    target: &BmcTarget,
    password: &Secret,
) -> Result<(), String> {
    let (machine, controller) = r.place();
    let further = controller.and_then(|name| target.endpoint.controllers.named(name));
    let (serial, url) = match further {
        Some(c) => (c.serial.as_deref(), &*c.url),
        None => (target.identity.serial.as_deref(), &*target.endpoint.url),
    };
    let note = json!({
        "schema": 1,
        "state": state.name(),
        "machine": machine,
        // Null: the password is the host BMC's; else serial and URL are this controller's.
        "controller": controller,
        "serial": serial,
        "bmc_url": url,
        // The name under which `farrier secret set` brings it back.
        "secret": r.new,
        "user": r.user,
        "password": password.expose(),
        "begun_ms": r.begun_ms,
        "by": r.by,
        "why": r.why,
    });
    let Some((program, args)) = escrow.command.split_first() else {
        return Err("the escrow hook names no program".into());
    };
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("the escrow hook `{program}` can't be run: {e}"))?;
    let mut stdin = child.stdin.take().ok_or("the escrow hook has no standard input")?;
    let told = async {
        // A hook that ends without reading says by its exit status what it made of it.
        stdin.write_all(format!("{note}\n").as_bytes()).await.ok();
        drop(stdin);
        child.wait().await
    };
    match tokio::time::timeout(Duration::from_millis(escrow.timeout.0), told).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("the escrow hook `{program}` ended with {status}")),
        Ok(Err(e)) => Err(format!("the escrow hook `{program}`: {e}")),
        Err(_) => Err(format!("the escrow hook `{program}` took longer than {}", escrow.timeout)),
    }
}
