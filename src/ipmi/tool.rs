//! One bounded run of ipmitool. The password is in its environment and nowhere else; the cipher
//! suite is found by a ladder and remembered; what a failure says is classified here.

use super::parse::{self, Said};
use super::{Bmc, IpmiBmc};
use crate::model::{Channel, Fault, FaultClass, IpmiEndpoint};
use crate::port::{Credential, Secret};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// Kept of each output; a full event log is some hundred KiB.
const OUTPUT_LIMIT: usize = 512 * 1024;
/// IPMI 2.0, 22.30: a password has 20 bytes at most.
const PASSWORD_MAX: usize = 20;
/// Refused logins in twice [`Settings::login_pause_ms`](super::Settings): one less than the lowest
/// threshold seen.
const MAX_REFUSED: usize = 2;

/// What is remembered of one BMC.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) endpoint: IpmiEndpoint,
    /// One operation at a time: many BMCs have few sessions for IPMI, and answer one.
    gate: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    suite: Option<Suite>,
    level: Level,
    /// When which credential was refused.
    refused: VecDeque<(Instant, [u8; 32])>,
}

/// A cipher suite (IPMI 2.0, table 22-20) to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suite {
    Id(u8),
    /// What ipmitool finds best among those that the BMC lists: costs 10 s where it lists none.
    Listed,
}

/// SHA-256 first; SHA-1 is all that older BMCs have.
const LADDER: [Suite; 3] = [Suite::Id(17), Suite::Id(3), Suite::Listed];

/// The privilege level of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Level {
    #[default]
    Administrator,
    /// Enough for power, boot device, log and FRU.
    Operator,
}

/// How much ipmitool says beside the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    /// Only then does it say that a password is wrong, and not just that there is no session.
    Verbose,
    Quiet,
}

impl Line {
    pub(super) fn new(endpoint: IpmiEndpoint) -> Self {
        Self { endpoint, gate: tokio::sync::Mutex::default(), known: Mutex::default() }
    }

    /// Waits until nobody else talks to this BMC.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.gate.lock().await
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account is not administrator on this channel, as far as is known.
    pub(super) fn is_operator(&self) -> bool {
        self.known().level == Level::Operator
    }

    /// What to ask for, best first.
    fn suites(&self) -> Vec<Suite> {
        match (self.known().suite, self.endpoint.cipher) {
            (Some(suite), _) => vec![suite],
            (None, Some(id)) => vec![Suite::Id(id)],
            (None, None) => LADDER.to_vec(),
        }
    }
}

impl Known {
    /// How long this credential must still rest.
    fn resting(&mut self, mark: &[u8; 32], pause: Duration) -> Option<Duration> {
        while self.refused.front().is_some_and(|(at, _)| at.elapsed() > pause * 2) {
            self.refused.pop_front();
        }
        let oldest = self.refused.front()?.0;
        let last = self.refused.iter().rev().find(|(_, m)| m == mark);
        let of_this = last.map(|(at, _)| pause.saturating_sub(at.elapsed()));
        let of_all = (self.refused.len() >= MAX_REFUSED)
            .then(|| (pause * 2).saturating_sub(oldest.elapsed()));
        of_this.max(of_all).filter(|left| !left.is_zero())
    }
}

/// Stands for a credential in memory, without being it.
fn mark(c: &Credential) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(c.user.as_bytes());
    context.update(&[0]);
    context.update(c.password.expose().as_bytes());
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// Why a command gave no result.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It was not carried out.
    NotDone(Fault),
    /// It may have been.
    Unclear(Fault),
}

impl Trouble {
    pub(super) fn fault(self) -> Fault {
        match self {
            Trouble::NotDone(f) | Trouble::Unclear(f) => f,
        }
    }
}

fn new(class: FaultClass, code: &'static str, message: impl Into<String>) -> Fault {
    Fault::new(class, Channel::Bmc, code, message)
}

/// The inventory gives no IPMI address.
pub(super) fn no_ipmi() -> Fault {
    new(FaultClass::Unsupported, "no-ipmi", "the inventory gives this machine no IPMI address")
        .hint("add `ipmi = \"10.0.0.5\"` to its `[[machine]]`")
}

/// How a run ended.
struct Ended {
    /// None: killed.
    exit: Option<i32>,
    out: String,
    err: String,
}

impl Bmc<'_> {
    /// Runs one command. Other cipher suites, and a lower privilege level, are tried only after an
    /// answer that says that no session was opened: then nothing was done.
    pub(super) async fn run(&self, words: &[&str]) -> Result<String, Trouble> {
        self.say(words, Tone::Verbose).await
    }

    /// Without `-v`, which turns some lists into something else. A refused password reads like
    /// silence then, so a run that says more comes first.
    pub(super) async fn run_quietly(&self, words: &[&str]) -> Result<String, Trouble> {
        self.run(&["chassis", "power", "status"]).await?;
        self.say(words, Tone::Quiet).await
    }

    async fn say(&self, words: &[&str], tone: Tone) -> Result<String, Trouble> {
        let credential = self.credential().await.map_err(Trouble::NotDone)?;
        let mark = mark(&credential);
        let pause = Duration::from_millis(self.edge.settings.login_pause_ms);
        if let Some(left) = self.line.known().resting(&mark, pause) {
            let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            let what = "login over IPMI not tried again yet";
            return Err(Trouble::NotDone(bad_credentials(what).retry_after(ms)));
        }
        let what = format!("ipmitool {}", words.join(" "));
        let level = self.line.known().level;
        let mut last = None;
        let suites = self.line.suites();
        for suite in &suites {
            match self.once(&what, (*suite, level, tone), &credential, words).await {
                Ok(out) => {
                    self.line.known().suite = Some(*suite);
                    return Ok(out);
                }
                Err((Said::NoCipher, trouble)) => last = Some(trouble),
                Err((Said::Privilege, _)) if level == Level::Administrator => {
                    return self.as_operator(&what, (*suite, tone), &credential, words).await;
                }
                Err((said, trouble)) => {
                    let mut known = self.line.known();
                    match said {
                        Said::BadCredentials => known.refused.push_back((Instant::now(), mark)),
                        // The session was opened, so the suite is right.
                        Said::Unsupported | Said::NotNow | Said::Rejected => {
                            known.suite = Some(*suite);
                        }
                        _ => {}
                    }
                    return Err(trouble);
                }
            }
        }
        // The BMC was set up anew, perhaps: the next operation begins with the whole ladder.
        self.line.known().suite = None;
        Err(last.unwrap_or_else(|| Trouble::NotDone(no_cipher(&what, &suites, ""))))
    }

    /// The account may not be administrator on this channel, or may not do this as one. What an
    /// operator may do is most of what is asked for here.
    async fn as_operator(
        &self,
        what: &str,
        (suite, tone): (Suite, Tone),
        credential: &Credential,
        words: &[&str],
    ) -> Result<String, Trouble> {
        match self.once(what, (suite, Level::Operator, tone), credential, words).await {
            Ok(out) => {
                let mut known = self.line.known();
                (known.suite, known.level) = (Some(suite), Level::Operator);
                Ok(out)
            }
            Err((_, trouble)) => Err(trouble),
        }
    }

    async fn credential(&self) -> Result<Credential, Fault> {
        let own = self.line.endpoint.credential.as_ref();
        let name = own.unwrap_or(&self.target.endpoint.credential);
        let credential = self.edge.vault.credential(name).await?;
        if credential.password.expose().len() > PASSWORD_MAX {
            return Err(new(
                FaultClass::Precondition,
                "password-too-long",
                format!("IPMI takes passwords of {PASSWORD_MAX} bytes at most; `{name}` is longer"),
            )
            .hint("give the machine's IPMI a `credential` of its own"));
        }
        Ok(credential)
    }

    /// One run under one suite.
    async fn once(
        &self,
        what: &str,
        (suite, level, tone): (Suite, Level, Tone),
        credential: &Credential,
        words: &[&str],
    ) -> Result<String, (Said, Trouble)> {
        // Waiting for a place is part of the operation's time.
        let place = tokio::time::timeout_at(self.until.into(), self.edge.places.acquire()).await;
        if place.is_err() {
            let f = new(FaultClass::Throttled, "busy", format!("{what}: too many runs at once"));
            return Err((Said::Busy, Trouble::NotDone(f)));
        }
        let settings = &self.edge.settings;
        let left = self.until.saturating_duration_since(Instant::now());
        let allowed = left.min(Duration::from_millis(settings.run_ms));
        if allowed.is_zero() {
            let f = Fault::no_answer(Channel::Bmc, format!("{what}: no time was left for it"));
            return Err((Said::Silent, Trouble::NotDone(f)));
        }
        let mut command = self.command(suite, level, tone, credential);
        command.args(words).stdin(Stdio::null());
        let (child, mut group) = spawn(command, &settings.program)
            .await
            .map_err(|f| (Said::Busy, Trouble::NotDone(f)))?;
        let Ok(ended) = tokio::time::timeout(allowed, end(child)).await else {
            drop(group);
            let f = Fault::no_answer(
                Channel::Bmc,
                format!(
                    "{what}: ipmitool did not end within {} s and was killed",
                    allowed.as_secs()
                ),
            );
            return Err((Said::Unclear, Trouble::Unclear(f)));
        };
        // It has been waited for: its number may belong to somebody else from now on.
        group.0 = None;
        if ended.exit == Some(0) {
            crate::port::heard::answered();
            return Ok(ended.out);
        }
        let secret = credential.password.expose();
        Err(self.failed(what, suite, &ended, secret))
    }

    /// Program, session and suite; the command's own words follow.
    fn command(&self, suite: Suite, level: Level, tone: Tone, credential: &Credential) -> Command {
        let settings = &self.edge.settings;
        let endpoint = &self.line.endpoint;
        let mut command = Command::new(&settings.program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| OsString::from(SAFE_PATH)))
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("IPMI_PASSWORD", credential.password.expose())
            .args(["-I", "lanplus", "-E", "-H", &endpoint.address])
            .args(["-p", &endpoint.port.to_string(), "-U", &credential.user])
            .args(["-N", &settings.resend_s.to_string(), "-R", &settings.resends.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if tone == Tone::Verbose {
            command.arg("-v");
        }
        if let Suite::Id(id) = suite {
            command.args(["-C", &id.to_string()]);
        }
        if level == Level::Operator {
            command.args(["-L", "OPERATOR"]);
        }
        command
    }

    /// The session for a console: under the suite and level that the runs before it found.
    pub(super) async fn session(&self) -> Result<(Command, Secret), Fault> {
        let credential = self.credential().await?;
        let (suite, level) = {
            let known = self.line.known();
            (known.suite.unwrap_or(Suite::Listed), known.level)
        };
        Ok((self.command(suite, level, Tone::Verbose, &credential), credential.password))
    }

    fn failed(&self, what: &str, suite: Suite, ended: &Ended, secret: &str) -> (Said, Trouble) {
        let text = format!("{}\n{}", ended.err, ended.out);
        let said = parse::said(&text);
        let gist = scrubbed(&parse::gist(&text), secret);
        if said != Said::Silent {
            crate::port::heard::answered();
        }
        let fault = match said {
            Said::NoCipher => no_cipher(what, &[suite], &gist),
            Said::BadCredentials => bad_credentials(what),
            Said::Privilege => not_allowed(what),
            Said::Busy => new(FaultClass::Throttled, "busy", format!("{what}: the BMC is busy")),
            Said::Unsupported => new(
                FaultClass::Unsupported,
                "not-supported",
                format!("{what}: the BMC does not know this command"),
            ),
            Said::NotNow => new(
                FaultClass::Transient,
                "conflict",
                format!("{what}: not possible in the machine's present state"),
            ),
            Said::Rejected => {
                new(FaultClass::Precondition, "rejected", format!("{what}: turned down"))
            }
            Said::Silent => {
                let at = format!("{} port {}", self.line.endpoint.address, self.line.endpoint.port);
                Fault::no_answer(Channel::Bmc, format!("{what}: no IPMI session with {at}"))
                    .hint("is IPMI over LAN switched on at this BMC, and UDP let through?")
            }
            Said::Unclear => {
                let how = ended.exit.map_or("was killed".into(), |c| format!("ended with {c}"));
                let f = new(
                    FaultClass::OutcomeUnknown,
                    "ipmitool-failed",
                    format!("{what}: ipmitool {how}"),
                )
                .evidence(gist);
                return (said, Trouble::Unclear(f));
            }
        };
        let fault = if gist.is_empty() { fault } else { fault.evidence(gist) };
        (said, Trouble::NotDone(fault))
    }
}

const SAFE_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin";

fn bad_credentials(what: &str) -> Fault {
    new(
        FaultClass::Auth,
        "bad-credentials",
        format!("{what}: the BMC refuses user name and password over IPMI"),
    )
    .hint("correct the credential; it is not tried again for some minutes, BMCs lock accounts")
}

/// The account's level does not do.
pub(super) fn not_allowed(what: &str) -> Fault {
    new(
        FaultClass::Auth,
        "insufficient-privilege",
        format!("{what}: the account may not do this over IPMI"),
    )
    .hint("give the account ADMINISTRATOR on the BMC's LAN channel")
}

fn no_cipher(what: &str, suites: &[Suite], gist: &str) -> Fault {
    let named: Vec<String> = suites
        .iter()
        .map(|s| match s {
            Suite::Id(id) => id.to_string(),
            Suite::Listed => "those it lists".into(),
        })
        .collect();
    let f = new(
        FaultClass::Precondition,
        "no-cipher",
        format!("{what}: no cipher suite in common (asked for {})", named.join(", ")),
    )
    .hint("switch cipher suite 17 or 3 on at the BMC, or name its suite in the inventory's `ipmi`");
    if gist.is_empty() { f } else { f.evidence(gist) }
}

pub(super) fn scrubbed(text: &str, secret: &str) -> String {
    if secret.len() < 4 { text.to_string() } else { text.replace(secret, "…") }
}

/// Ends the program's whole process group unless it has ended by itself: also when the caller's
/// deadline drops this future.
#[derive(Debug)]
pub(super) struct Group(pub(super) Option<rustix::process::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Starts the program. Starting stops the thread until the child has begun, and with thousands of
/// connections open that takes long: not on a thread that serves them.
pub(super) async fn spawn(mut command: Command, program: &Path) -> Result<(Child, Group), Fault> {
    let spawned = tokio::task::spawn_blocking(move || command.spawn()).await;
    let child = spawned.map_err(std::io::Error::other).flatten().map_err(|e| {
        new(
            FaultClass::Precondition,
            "no-ipmitool",
            format!("`{}` can't be run: {e}", program.display()),
        )
        .hint("install ipmitool on the daemon's machine (Debian, Ubuntu, RHEL: package `ipmitool`)")
    })?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    Ok((child, Group(pid.and_then(rustix::process::Pid::from_raw))))
}

async fn end(mut child: Child) -> Ended {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err, status) = tokio::join!(bounded(out), bounded(err), child.wait());
    Ended { exit: status.ok().and_then(|s| s.code()), out, err }
}

/// Reads to the end, keeps the beginning.
async fn bounded(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 8192]);
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        let room = OUTPUT_LIMIT.saturating_sub(kept.len()).min(n);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
    String::from_utf8_lossy(&kept).into_owned()
}

impl IpmiBmc {
    /// A place for a console.
    pub(super) async fn console(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Fault> {
        self.consoles.try_acquire().map_err(|_| {
            new(FaultClass::Throttled, "busy", "too many consoles are captured already")
                .retry_after(30_000)
        })
    }
}
