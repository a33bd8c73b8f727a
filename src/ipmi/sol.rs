//! The serial console over IPMI (IPMI 2.0, 15: Serial over LAN), taken down into a file: what a host
//! said that does not come up. Bounded by time and by size; nothing is typed.
//!
//! Some BMCs offer the console by SSH alone, with RSA host keys signed by SHA-1 (`ssh-rsa`: iLO 4, older
//! XCC, SMC X10). Farrier's SSH speaks no SHA-1 and refuses them; there, `ssh -oHostKeyAlgorithms=+ssh-rsa`
//! by hand is the way, or SOL where the BMC has both.

use super::Bmc;
use super::tool::{self, Group};
use crate::model::{Channel, Fault, FaultClass};
use crate::port::capability::{CaptureEnd, CaptureOrder, Captured};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Takes a secret out of a stream, wherever the stream is cut. A secret of less than four bytes would
/// take out half of the text.
#[derive(Debug)]
pub(super) struct Scrub {
    secret: Vec<u8>,
    /// The end of what came, as long as it may be the beginning of the secret.
    held: Vec<u8>,
}

const BLANK: &[u8] = "…".as_bytes();

impl Scrub {
    pub(super) fn new(secret: &str) -> Self {
        let secret = if secret.len() < 4 { Vec::new() } else { secret.as_bytes().to_vec() };
        Self { secret, held: Vec::new() }
    }

    /// What may be written now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let mut out = Vec::with_capacity(self.held.len());
        if self.secret.is_empty() {
            out.append(&mut self.held);
            return out;
        }
        let mut rest = self.held.as_slice();
        while let Some((&first, after)) = rest.split_first() {
            if rest.starts_with(&self.secret) {
                out.extend_from_slice(BLANK);
                rest = rest.get(self.secret.len()..).unwrap_or_default();
            } else if self.secret.starts_with(rest) {
                break;
            } else {
                out.push(first);
                rest = after;
            }
        }
        self.held = rest.to_vec();
        out
    }

    pub(super) fn end(self) -> Vec<u8> {
        self.held
    }
}

fn file_fault(path: &Path, e: &std::io::Error) -> Fault {
    Fault::new(
        FaultClass::Precondition,
        Channel::Engine,
        "no-file",
        format!("the console can't be written to `{}`: {e}", path.display()),
    )
}

pub(super) async fn capture(bmc: &Bmc<'_>, order: &CaptureOrder) -> Result<Captured, Fault> {
    let _place = bmc.edge.console().await?;
    let mut file = tokio::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&order.into)
        .await
        .map_err(|e| file_fault(&order.into, &e))?;
    end_console(bmc).await?;
    let (mut command, secret) = bmc.session().await?;
    // Its input stays open and silent: at its end ipmitool would close the console.
    command.args(["sol", "activate"]).stdin(Stdio::piped());
    let (mut child, mut group) = tool::spawn(command, &bmc.edge.settings.program).await?;
    let _input = child.stdin.take();
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(file_fault(&order.into, &std::io::ErrorKind::BrokenPipe.into()));
    };
    let words = tokio::spawn(head(err));
    let captured = take_down(out, &mut file, order, secret.expose())
        .await
        .map_err(|e| file_fault(&order.into, &e))?;
    if captured.end == CaptureEnd::Closed {
        // Its outputs are closed: it ends, and then says how.
        let status = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
        if let Ok(Ok(status)) = status {
            group.0 = None;
            if !status.success() && captured.bytes == 0 {
                let said = words.await.unwrap_or_default();
                return Err(no_console(&String::from_utf8_lossy(&said), secret.expose()));
            }
        }
    }
    drop::<Group>(group);
    // Killed, ipmitool has not told the BMC: its one console stays taken for whoever comes next.
    if let Err(fault) = end_console(bmc).await {
        tracing::debug!(machine = %bmc.target.name, %fault, "the console was not given back");
    }
    Ok(captured)
}

/// Reads to the end, keeps the beginning: a full pipe would stop the program.
pub(super) async fn head(mut stream: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 2048]);
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        let room = 4096_usize.saturating_sub(kept.len()).min(n);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
    kept
}

pub(super) fn no_console(said: &str, secret: &str) -> Fault {
    let what = "the BMC opens no console over IPMI";
    Fault::new(FaultClass::Unsupported, Channel::Bmc, "no-console", what)
        .hint(
            "switch Serial over LAN on at the BMC, and the console redirection in the BIOS; one that \
             has its console by SSH alone is for `ssh` by hand, old ones with \
             `-oHostKeyAlgorithms=+ssh-rsa`",
        )
        .evidence(tool::scrubbed(&super::parse::gist(said), secret))
}

/// Ends the console that may be open. One that is not open is no failure.
pub(super) async fn end_console(bmc: &Bmc<'_>) -> Result<(), Fault> {
    let _one = bmc.line.turn().await;
    let fresh = Bmc {
        edge: bmc.edge,
        target: bmc.target,
        line: bmc.line.clone(),
        until: Instant::now() + Duration::from_millis(bmc.edge.settings.budget_ms),
    };
    match fresh.run(&["sol", "deactivate"]).await.map_err(tool::Trouble::fault) {
        Err(f) if f.is_no_answer() || f.class == FaultClass::Auth || f.code == "no-ipmitool" => {
            Err(f)
        }
        _ => Ok(()),
    }
}

/// Writes what comes until time or room is used up, or no more comes.
async fn take_down(
    mut console: impl tokio::io::AsyncRead + Unpin,
    file: &mut File,
    order: &CaptureOrder,
    secret: &str,
) -> std::io::Result<Captured> {
    let until = Instant::now() + Duration::from_millis(order.for_ms);
    let mut scrub = Scrub::new(secret);
    let mut bytes = 0_u64;
    let mut buffer = vec![0; 8192];
    let end = loop {
        let read = tokio::time::timeout_at(until.into(), console.read(&mut buffer)).await;
        let n = match read {
            Err(_) => break CaptureEnd::Time,
            Ok(Ok(0) | Err(_)) => break CaptureEnd::Closed,
            Ok(Ok(n)) => n,
        };
        let text = scrub.push(buffer.get(..n).unwrap_or_default());
        if put(file, &text, &mut bytes, order.max_bytes).await? {
            break CaptureEnd::Size;
        }
    };
    if end != CaptureEnd::Size {
        put(file, &scrub.end(), &mut bytes, order.max_bytes).await?;
    }
    file.sync_all().await?;
    Ok(Captured { bytes, end })
}

/// Writes as much as there is room for; says whether the room is used up.
async fn put(file: &mut File, text: &[u8], bytes: &mut u64, max: u64) -> std::io::Result<bool> {
    let room = usize::try_from(max.saturating_sub(*bytes)).unwrap_or(usize::MAX);
    let part = text.get(..room.min(text.len())).unwrap_or_default();
    file.write_all(part).await?;
    *bytes += u64::try_from(part.len()).unwrap_or(0);
    Ok(part.len() >= room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_secret_is_found_over_the_cuts_of_a_stream() {
        let mut scrub = Scrub::new("hunter22");
        let mut out = Vec::new();
        for part in ["login: hun", "ter", "22 ok, hunter2", "3 hunhunter22hunter"] {
            out.extend(scrub.push(part.as_bytes()));
        }
        out.extend(scrub.end());
        assert_eq!(String::from_utf8(out).unwrap(), "login: … ok, hunter23 hun…hunter");
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_comes_out(
            text in "[ab]{0,60}",
            secret in "[ab]{4,6}",
            cuts in proptest::collection::vec(0_usize..60, 0..6),
        ) {
            let mut whole = Scrub::new(&secret);
            let mut want = whole.push(text.as_bytes());
            want.extend(whole.end());
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (mut scrub, mut got, mut from) = (Scrub::new(&secret), Vec::new(), 0);
            for cut in cuts.into_iter().filter(|c| *c <= text.len()) {
                got.extend(scrub.push(&text.as_bytes()[from..cut]));
                from = cut;
            }
            got.extend(scrub.push(&text.as_bytes()[from..]));
            got.extend(scrub.end());
            prop_assert_eq!(got, want.clone());
            prop_assert!(!String::from_utf8_lossy(&want).contains(&secret));
        }
    }
}
