//! The serial console as it comes, for as long as somebody listens: what a host says while it boots. Nothing
//! is typed, and a console that somebody else has is left to them.

use super::sol::{Scrub, end_console, head, no_console};
use super::{IpmiBmc, tool};
use crate::model::Fault;
use crate::port::BmcTarget;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// What comes from a console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// The BMC gave the console to us: from now on it is taken until it is given back.
    Open,
    /// What the host said, without the passwords of its BMC.
    Text(&'a [u8]),
}

/// Why a console ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowEnd {
    /// Somebody else has it, and keeps it.
    Taken,
    /// The BMC ended it: it restarted, or somebody took the console. It is not ours any more.
    Closed,
    /// Nothing came for so long that the program may hang. Ours still.
    Silent,
}

/// ipmitool's own words, before anything that the host says.
const BANNER: &[u8] = b"[SOL Session operational.  Use ~? for help]";

impl IpmiBmc {
    /// Opens the console and hands on what comes. Dropped, it ends the program with all that it started, and
    /// the BMC still counts the console as taken: [`IpmiBmc::give_back`]. `ours`: it may still be open from a
    /// life before, and is given back first. `silent`: longest time without a word.
    ///
    /// # Errors
    /// No answer, refused credentials, no ipmitool, a BMC without Serial over LAN: classified.
    pub async fn follow(
        &self,
        target: &BmcTarget,
        ours: bool,
        silent: Duration,
        hear: &mut (dyn FnMut(Heard<'_>) + Send),
    ) -> Result<FollowEnd, Fault> {
        let bmc = self.bmc(target)?;
        if ours {
            end_console(&bmc).await?;
        } else {
            // Finds the cipher suite, and a wrong password before the console tries it.
            let _one = bmc.line.turn().await;
            bmc.run(&["chassis", "power", "status"]).await.map_err(tool::Trouble::fault)?;
        }
        let (mut command, secret) = bmc.session().await?;
        let mut secrets = vec![secret];
        // Redfish's own, where it is another one.
        if let Ok(other) = self.vault.credential(&target.endpoint.credential).await {
            secrets.push(other.password);
        }
        command.args(["sol", "activate"]).stdin(Stdio::piped());
        let (mut child, mut group) = tool::spawn(command, &self.settings.program).await?;
        let _input = child.stdin.take();
        let (Some(mut out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(no_console("ipmitool has no output", secrets[0].expose()));
        };
        let words = tokio::spawn(head(err));
        let mut scrubs: Vec<Scrub> = secrets.iter().map(|s| Scrub::new(s.expose())).collect();
        let (mut buffer, mut began) = (vec![0; 8192], Vec::new());
        let mut open = false;
        loop {
            let read = tokio::time::timeout(silent, out.read(&mut buffer)).await;
            let n = match read {
                Err(_) => return Ok(FollowEnd::Silent),
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(n)) => n,
            };
            let mut part = buffer.get(..n).unwrap_or_default().to_vec();
            if !open {
                began.append(&mut part);
                let Some(text) = after_banner(&began) else { continue };
                open = true;
                hear(Heard::Open);
                part = text.to_vec();
            }
            for scrub in &mut scrubs {
                part = scrub.push(&part);
            }
            if !part.is_empty() {
                hear(Heard::Text(&part));
            }
        }
        let mut rest = Vec::new();
        for mut scrub in scrubs {
            rest = scrub.push(&rest);
            rest.extend(scrub.end());
        }
        if !rest.is_empty() {
            hear(Heard::Text(&rest));
        }
        // Its output is closed: it ends, and then says how.
        if tokio::time::timeout(Duration::from_secs(2), child.wait()).await.is_ok() {
            group.0 = None;
        } else {
            drop(group);
        }
        if open {
            return Ok(FollowEnd::Closed);
        }
        let said = words.await.unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        if said.contains("already active") {
            return Ok(FollowEnd::Taken);
        }
        Err(no_console(&said, secrets[0].expose()))
    }

    /// Gives back a console that is or was ours: killed, ipmitool has not told the BMC, and its one console
    /// stays taken for whoever comes next. One that is not open is no failure.
    ///
    /// # Errors
    /// No answer, refused credentials, no ipmitool.
    pub async fn give_back(&self, target: &BmcTarget) -> Result<(), Fault> {
        end_console(&self.bmc(target)?).await
    }
}

/// What the host said after the program's own first words; `None` while those are not whole.
fn after_banner(began: &[u8]) -> Option<&[u8]> {
    let start = began.iter().position(|b| !b"\r\n".contains(b))?;
    let text = &began[start..];
    match text.strip_prefix(BANNER) {
        Some(rest) => {
            let rest = rest.strip_prefix(b"\r").unwrap_or(rest);
            Some(rest.strip_prefix(b"\n").unwrap_or(rest))
        }
        None if BANNER.starts_with(text) => None,
        // Another version's words: nothing is lost by showing them.
        None => Some(began),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_own_words_are_not_the_hosts() {
        assert_eq!(after_banner(b"\n[SOL Session oper"), None);
        assert_eq!(after_banner(b""), None);
        let whole = [BANNER, b"\nGRUB"].concat();
        assert_eq!(after_banner(&whole), Some(&b"GRUB"[..]));
        let whole = [b"\r\n", BANNER, b"\r\n"].concat();
        assert_eq!(after_banner(&whole), Some(&b""[..]));
        assert_eq!(after_banner(b"[SOL is up]"), Some(&b"[SOL is up]"[..]));
    }
}
