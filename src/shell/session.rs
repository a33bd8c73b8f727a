//! One SSH connection: connected against a pinned key, one command run, closed. Every failure is
//! classified here, once.

use super::parse::excerpt;
use crate::model::{Channel, Fault, FaultClass};
use crate::port::HostTarget;
use crate::port::command::Ran;
use russh::keys::ssh_key::Algorithm;
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, ChannelMsg, Disconnect, Preferred, client};
use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;

/// Kept of each output stream; the rest is read and dropped.
const OUTPUT_LIMIT: usize = 64 * 1024;

/// Who logs in, and how long it may take.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) key: PrivateKey,
    pub(super) deadline: Duration,
}

/// Accepts the pinned host key and nothing else.
pub(super) struct Pinned {
    expected: PublicKey,
    /// What was shown instead, for the evidence.
    shown: Arc<Mutex<Option<String>>>,
}

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let shown = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                if key.key_data() == self.expected.key_data() {
                    return Ok(true);
                }
                format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
            }
            PublicKeyOrCertificate::Certificate(_) => "a certificate".to_string(),
        };
        if let Ok(mut slot) = self.shown.lock() {
            *slot = Some(shown);
        }
        Ok(false)
    }
}

/// `address`, `address:port`, `[v6]:port` or a bare IPv6 address.
fn address(text: &str) -> (String, u16) {
    let with_port = match text.rsplit_once(':') {
        // A second colon without brackets is an IPv6 address, not a port.
        Some((host, _)) if host.contains(':') && !host.ends_with(']') => None,
        Some((host, port)) => port.parse().ok().map(|p| (host, p)),
        None => None,
    };
    let (host, port) = with_port.unwrap_or((text, 22));
    (host.trim_start_matches('[').trim_end_matches(']').to_string(), port)
}

pub(super) struct Session {
    handle: client::Handle<Pinned>,
}

/// Connects and logs in. Nothing has been run when this fails.
pub(super) async fn open(host: &HostTarget, login: Login) -> Result<Session, Fault> {
    let place = format!("{} ({})", host.name, host.endpoint.address);
    let deadline = login.deadline;
    match tokio::time::timeout(deadline, connect(host, &place, login)).await {
        Ok(session) => session,
        Err(_) => Err(Fault::no_answer(
            Channel::Host,
            format!("SSH to {place} was not up within {} s", deadline.as_secs_f32()),
        )),
    }
}

async fn connect(host: &HostTarget, place: &str, login: Login) -> Result<Session, Fault> {
    let expected = pinned(host, place)?;
    let (name, port) = address(&host.endpoint.address);
    let stream = TcpStream::connect((name.as_str(), port))
        .await
        .map_err(|e| Fault::no_answer(Channel::Host, format!("SSH to {place}: {e}")))?;
    // Nagle's algorithm costs 40 ms a command here.
    let _ = stream.set_nodelay(true);
    let shown = Arc::new(Mutex::new(None));
    let config = client::Config {
        nodelay: true,
        inactivity_timeout: Some(Duration::from_secs(300)),
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 3,
        // A host has keys of several types: ask for the pinned one's, or another honest key of
        // the same host would look like a changed one.
        preferred: Preferred {
            key: Cow::Owned(vec![expected.algorithm()]),
            ..Preferred::default()
        },
        ..client::Config::default()
    };
    let pinned = Pinned { expected: expected.clone(), shown: shown.clone() };
    let mut handle =
        client::connect_stream(Arc::new(config), stream, pinned).await.map_err(|e| match e {
            russh::Error::UnknownKey | russh::Error::WrongServerSig => {
                let shown = shown.lock().ok().and_then(|s| s.clone());
                changed(place, &expected, &shown.unwrap_or_else(|| "a key it cannot prove".into()))
            }
            russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, theirs, .. } => {
                changed(place, &expected, &format!("only keys of types {}", theirs.join(", ")))
            }
            russh::Error::NoCommonAlgo { kind, theirs, .. } => Fault::new(
                FaultClass::Unsupported,
                Channel::Host,
                "no-common-algorithm",
                format!("SSH to {place}: no {kind:?} algorithm in common"),
            )
            .evidence(theirs.join(", ")),
            e => Fault::no_answer(Channel::Host, format!("SSH to {place}: {e}")),
        })?;
    let key = PrivateKeyWithHashAlg::new(Arc::new(login.key), None);
    let auth = handle
        .authenticate_publickey(&login.user, key)
        .await
        .map_err(|e| Fault::no_answer(Channel::Host, format!("SSH login to {place}: {e}")))?;
    if !auth.success() {
        close(&handle).await;
        return Err(Fault::new(
            FaultClass::Auth,
            Channel::Host,
            "bad-credentials",
            format!("{place} refused the SSH key for user `{}`", login.user),
        )
        .hint("is Farrier's public key in that user's authorized_keys?"));
    }
    Ok(Session { handle })
}

/// The key that the host must show.
fn pinned(host: &HostTarget, place: &str) -> Result<PublicKey, Fault> {
    let Some(text) = host.host_key.as_deref() else {
        // Steps take it for "does not answer yet": a deployment pins the key later.
        return Err(Fault::no_answer(
            Channel::Host,
            format!("no host key is pinned yet for {place}, so there is no SSH to it"),
        )
        .hint("a deployment pins it; for a running host state `host_key` in the inventory"));
    };
    let unusable = |why: String| {
        Fault::new(
            FaultClass::Precondition,
            Channel::Host,
            "host-key-unusable",
            format!("the pinned host key of {place} cannot be used: {why}"),
        )
        .hint("give the ed25519 or ECDSA line of `ssh-keyscan`, from its type on")
    };
    let key = PublicKey::from_openssh(text.trim()).map_err(|e| unusable(e.to_string()))?;
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(key),
        other => Err(unusable(format!("keys of type {other} are not supported"))),
    }
}

fn changed(place: &str, expected: &PublicKey, shown: &str) -> Fault {
    Fault::new(
        FaultClass::Identity,
        Channel::Host,
        "host-key-changed",
        format!("{place} does not show its pinned SSH host key"),
    )
    .hint(
        "another machine at this address, or a reinstalled one; nothing was sent to it. Reinstalled: \
         `farrier machine repair`, then `enroll`, installs it anew and pins its new key; a job that \
         is open on it ends when the host is powered off",
    )
    .evidence(format!(
        "pinned {} {}, shown {shown}",
        expected.algorithm(),
        expected.fingerprint(HashAlg::Sha256)
    ))
}

async fn close(handle: &client::Handle<Pinned>) {
    // A courtesy; the other end closes by itself when the socket goes.
    let bye = handle.disconnect(Disconnect::ByApplication, "", "");
    let _ = tokio::time::timeout(Duration::from_secs(1), bye).await;
}

/// Why a command has no result.
pub(super) enum Cut {
    NotSent(Fault),
    NoAnswer(Fault),
}

impl Cut {
    pub(super) fn fault(self) -> Fault {
        match self {
            Cut::NotSent(f) | Cut::NoAnswer(f) => f,
        }
    }
}

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    dropped: bool,
}

impl Kept {
    fn take(&mut self, data: &[u8]) {
        let room = OUTPUT_LIMIT - self.bytes.len();
        self.dropped |= data.len() > room;
        self.bytes.extend_from_slice(data.get(..room).unwrap_or(data));
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Session {
    /// Runs one command line of the login shell and closes the connection.
    pub(super) async fn run(
        self,
        command: &str,
        stdin: &[u8],
        deadline: Duration,
    ) -> Result<Ran, Cut> {
        let mut sent = false;
        let work = exec(&self.handle, command, stdin, &mut sent);
        let result = match tokio::time::timeout(deadline, work).await {
            Ok(Ok(ran)) => Ok(ran),
            Ok(Err(e)) => Err(format!("the SSH connection broke: {e}")),
            Err(_) => Err(format!("no end within {} s", deadline.as_secs_f32())),
        };
        close(&self.handle).await;
        result.map_err(|why| {
            let fault = Fault::no_answer(Channel::Host, why);
            if sent { Cut::NoAnswer(fault) } else { Cut::NotSent(fault) }
        })
    }
}

async fn exec(
    handle: &client::Handle<Pinned>,
    command: &str,
    stdin: &[u8],
    sent: &mut bool,
) -> Result<Ran, russh::Error> {
    let mut channel = handle.channel_open_session().await?;
    *sent = true;
    channel.exec(true, command).await?;
    // A program may end without reading its input; its answer counts, not our writing.
    let _ = channel.data(stdin).await;
    let _ = channel.eof().await;
    let (mut out, mut err) = (Kept::default(), Kept::default());
    let (mut exit, mut closed) = (None, false);
    // The exit status can come before the last output: read until the channel ends.
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => out.take(&data),
            ChannelMsg::ExtendedData { data, ext: 1 } => err.take(&data),
            ChannelMsg::ExitStatus { exit_status } => exit = Some(exit_status),
            ChannelMsg::ExitSignal { .. } | ChannelMsg::Close => closed = true,
            ChannelMsg::Failure => return Err(russh::Error::RequestDenied),
            _ => {}
        }
    }
    if exit.is_none() && !closed {
        // The connection died; what came is half an answer.
        return Err(russh::Error::Disconnect);
    }
    Ok(Ran { exit, stdout: out.text(), stderr: err.text(), truncated: out.dropped || err.dropped })
}

/// What a command that was to exit 0 left, as a fault.
pub(super) fn failed(what: &str, ran: &Ran) -> Fault {
    let how = ran.exit.map_or_else(|| "was killed".to_string(), |c| format!("ended with {c}"));
    let cut = if ran.truncated { " (output beyond 64 KiB was dropped)" } else { "" };
    Fault::new(
        FaultClass::Transient,
        Channel::Host,
        "command-failed",
        format!("{what} {how} on the host{cut}"),
    )
    .evidence(excerpt(&format!("{}\n{}", ran.stderr, ran.stdout)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, host, port) in [
            ("10.0.0.1", "10.0.0.1", 22),
            ("10.0.0.1:2222", "10.0.0.1", 2222),
            ("fd00::1", "fd00::1", 22),
            ("[fd00::1]", "fd00::1", 22),
            ("[fd00::1]:2222", "fd00::1", 2222),
            ("gpu-1.example", "gpu-1.example", 22),
        ] {
            assert_eq!(address(text), (host.to_string(), port), "{text}");
        }
    }

    #[test]
    fn output_is_bounded() {
        let mut kept = Kept::default();
        kept.take(&vec![b'x'; OUTPUT_LIMIT]);
        assert!(!kept.dropped);
        kept.take(b"y");
        assert!(kept.dropped);
        assert_eq!(kept.bytes.len(), OUTPUT_LIMIT);
    }
}
