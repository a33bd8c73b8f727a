//! The `hooks` provider: an operator's program gets one JSON object on stdin and prints one.
//!
//! In: `{"verb":"probe|join|cordon|uncordon|leave","machine":"n1","cluster":"k8s",
//! "address":"10.0.0.1","identity":{"serial","uuid","mac"}}`. Out, for `probe`:
//! `{"member":bool,"ready":bool,"cordoned":bool,"workloads":n,"detail":"…"}`; for writes
//! `{"ok":true}` or `{"ok":false,"error":"…"}`. Exit 0: the program has answered. A write without
//! a clear answer has an unknown outcome; the next probe tells.

use crate::model::action::HookVerb;
use crate::model::facts::Membership;
use crate::model::{Channel, Expect, Fault, FaultClass, Identity, Outcome};
use crate::port::command::{HostCommand, NotRun, Ran};
use crate::port::{Cluster, Node};
use async_trait::async_trait;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

/// The verb that only asks.
const PROBE: &str = "probe";

/// Kept of each output stream of a local hook; the rest is read and dropped.
const OUTPUT_LIMIT: usize = 64 * 1024;

/// Hooks beside the daemon that run at once, for reads and for writes each: a site of thousands asks
/// for all its nodes in one moment, and as many programs would take the machine from everything
/// else. Waiting for a place is not part of a hook's own timeout.
const AT_ONCE: usize = 24;

/// Where a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Beside the daemon.
    Local,
    /// On the machine, over SSH, after DMI was compared there.
    Host,
}

/// One cluster's command.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    pub place: Place,
    pub timeout: Duration,
}

/// Clusters by their names in the profiles.
pub struct HooksCluster {
    hooks: BTreeMap<String, Hook>,
    host: Arc<dyn HostCommand>,
    reads: Semaphore,
    writes: Semaphore,
}

impl std::fmt::Debug for HooksCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HooksCluster").field("hooks", &self.hooks).finish_non_exhaustive()
    }
}

/// Why a hook gave no answer.
enum NoAnswer {
    Refused {
        saw: String,
    },
    /// It did not run.
    NotRun(Fault),
    /// It ran, and what it did is not known.
    Unclear(Fault),
}

impl NoAnswer {
    fn fault(self) -> Fault {
        match self {
            NoAnswer::Refused { saw } => NotRun::Refused { saw }.into_read_fault(),
            NoAnswer::NotRun(f) | NoAnswer::Unclear(f) => f,
        }
    }
}

fn fault(class: FaultClass, code: &'static str, message: String) -> Fault {
    Fault::new(class, Channel::Cluster, code, message)
}

impl HooksCluster {
    /// `host` runs the hooks that are to run on the machine.
    pub fn new(hooks: BTreeMap<String, Hook>, host: Arc<dyn HostCommand>) -> Self {
        let places = || Semaphore::new(AT_ONCE);
        Self { hooks, host, reads: places(), writes: places() }
    }

    async fn ask(
        &self,
        node: &Node,
        verb: &str,
        identity: &Identity,
        check: bool,
    ) -> Result<String, NoAnswer> {
        let Some(hook) = self.hooks.get(&node.cluster) else {
            return Err(NoAnswer::NotRun(
                fault(
                    FaultClass::Precondition,
                    "no-provider",
                    format!("no `[[cluster]]` is named `{}`", node.cluster),
                )
                .hint("the profile's cluster and farrier.toml do not agree"),
            ));
        };
        let question = serde_json::json!({
            "verb": verb,
            "machine": &*node.name,
            "cluster": node.cluster,
            "address": node.host.endpoint.address,
            "identity": {
                "serial": identity.serial, "uuid": identity.uuid, "mac": identity.mac,
            },
        })
        .to_string();
        let what = format!("hook `{verb}` of cluster `{}` for {}", node.cluster, node.name);
        let ran = match hook.place {
            Place::Local => {
                let places = if verb == PROBE { &self.reads } else { &self.writes };
                // Never closed.
                let _place = places.acquire().await;
                local(hook, &what, question.as_bytes()).await?
            }
            Place::Host => {
                let expect = check.then_some(identity);
                let run = self.host.run(
                    &node.host,
                    expect,
                    &hook.command,
                    question.as_bytes(),
                    hook.timeout,
                );
                run.await.map_err(|e| match e {
                    NotRun::Refused { saw } => NoAnswer::Refused { saw },
                    NotRun::NotSent(f) => NoAnswer::NotRun(f),
                    NotRun::NoAnswer(f) => NoAnswer::Unclear(f),
                })?
            }
        };
        match ran.exit {
            Some(0) => Ok(ran.stdout),
            // What sh and OpenSSH say for "not found" and "not executable".
            Some(code @ (126 | 127)) if hook.place == Place::Host => {
                Err(NoAnswer::NotRun(missing(&what, &format!("exit {code}"), &ran.stderr)))
            }
            exit => {
                let how = exit.map_or("was killed".into(), |c| format!("ended with {c}"));
                Err(NoAnswer::Unclear(
                    fault(FaultClass::Transient, "hook-failed", format!("{what} {how}"))
                        .evidence(excerpt(&ran)),
                ))
            }
        }
    }
}

fn missing(what: &str, why: &str, evidence: &str) -> Fault {
    fault(FaultClass::Precondition, "hook-missing", format!("{what} cannot be run: {why}"))
        .hint("check `command` of this `[[cluster]]`: a program by its path, arguments after it")
        .evidence(evidence.chars().take(2000).collect::<String>())
}

fn excerpt(ran: &Ran) -> String {
    let text = if ran.stderr.trim().is_empty() { &ran.stdout } else { &ran.stderr };
    text.trim().chars().take(2000).collect()
}

fn garbage(what: &str, e: &serde_json::Error, answer: &str) -> Fault {
    fault(
        FaultClass::Transient,
        "hook-garbage",
        format!("{what} printed no answer that can be read: {e}"),
    )
    .hint("exactly one JSON object belongs on stdout; everything else on stderr")
    .evidence(answer.trim().chars().take(2000).collect::<String>())
}

/// Ends the hook's whole process group unless it has ended by itself: also when the caller's
/// deadline drops this future.
struct Group(Option<rustix::process::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

async fn local(hook: &Hook, what: &str, question: &[u8]) -> Result<Ran, NoAnswer> {
    let [program, arguments @ ..] = hook.command.as_slice() else {
        return Err(NoAnswer::NotRun(missing(what, "the command is empty", "")));
    };
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    // Starting a program stops the thread until the child has begun, and with thousands of
    // connections open that takes long: not on a thread that serves them.
    let spawned = tokio::task::spawn_blocking(move || command.spawn()).await;
    let mut child = spawned
        .map_err(std::io::Error::other)
        .flatten()
        .map_err(|e| NoAnswer::NotRun(missing(what, &format!("{program}: {e}"), "")))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(pid.and_then(rustix::process::Pid::from_raw));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let work = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // A hook may answer without reading its input.
                let _ = stdin.write_all(question).await;
            }
        };
        let ((), out, err, status) =
            tokio::join!(write, bounded(stdout), bounded(stderr), child.wait());
        (out, err, status)
    };
    let Ok((out, err, status)) = tokio::time::timeout(hook.timeout, work).await else {
        drop(group);
        return Err(NoAnswer::Unclear(
            Fault::no_answer(
                Channel::Cluster,
                format!(
                    "{what} did not end within {} s and was killed",
                    hook.timeout.as_secs_f32()
                ),
            )
            .hint("`timeout` of the `[[cluster]]` is the longest it may take"),
        ));
    };
    // It has been waited for: its number may belong to somebody else from now on.
    group.0 = None;
    let exit = status.ok().and_then(|s| s.code()).map(i32::unsigned_abs);
    Ok(Ran { exit, stdout: out.0, stderr: err.0, truncated: out.1 || err.1 })
}

/// Reads to the end, keeps the beginning.
async fn bounded(stream: Option<impl AsyncRead + Unpin>) -> (String, bool) {
    let Some(mut stream) = stream else { return (String::new(), false) };
    let (mut kept, mut dropped) = (Vec::new(), false);
    let mut buffer = vec![0; 8192];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        let room = (OUTPUT_LIMIT - kept.len()).min(n);
        dropped |= room < n;
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
    (String::from_utf8_lossy(&kept).into_owned(), dropped)
}

#[derive(Deserialize)]
struct Probe {
    member: bool,
    #[serde(default)]
    ready: bool,
    #[serde(default)]
    cordoned: bool,
    #[serde(default)]
    workloads: u32,
    #[serde(default)]
    detail: Option<String>,
}

#[derive(Deserialize)]
struct Done {
    ok: bool,
    #[serde(default)]
    error: Option<String>,
}

/// What a hook says in its own words, short enough for a line.
fn words(said: &str) -> String {
    said.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What the hook printed when it was asked whether the machine is a member.
pub(crate) fn member(what: &str, answer: &str) -> Result<Membership, Fault> {
    let p: Probe = serde_json::from_str(answer).map_err(|e| garbage(what, &e, answer))?;
    Ok(Membership {
        member: p.member,
        ready: p.ready,
        cordoned: p.cordoned,
        workloads: p.workloads,
        detail: p.detail.as_deref().map(words),
    })
}

/// What the hook printed after a write.
pub(crate) fn done(what: &str, answer: &str) -> Outcome {
    match serde_json::from_str::<Done>(answer) {
        Ok(Done { ok: true, .. }) => Outcome::Applied { handle: None },
        Ok(Done { error, .. }) => {
            let why = error.as_deref().map_or_else(|| "no reason given".to_string(), words);
            Outcome::Failed {
                fault: fault(
                    FaultClass::Transient,
                    "hook-said-no",
                    format!("{what} said no: {why}"),
                ),
            }
        }
        Err(e) => Outcome::Unknown { fault: garbage(what, &e, answer) },
    }
}

#[async_trait]
impl Cluster for HooksCluster {
    async fn membership(&self, node: &Node) -> Result<Membership, Fault> {
        let answer = self.ask(node, PROBE, &Identity::default(), false).await;
        let answer = answer.map_err(NoAnswer::fault)?;
        member(&format!("hook `probe` for {}", node.name), &answer)
    }

    async fn act(&self, node: &Node, expect: &Expect, verb: HookVerb) -> Outcome {
        let answer = match self.ask(node, verb.name(), &expect.identity, true).await {
            Ok(answer) => answer,
            Err(NoAnswer::Refused { saw }) => {
                return Outcome::Refused { saw, wrong_machine: true };
            }
            Err(NoAnswer::NotRun(fault)) => return Outcome::Failed { fault },
            Err(NoAnswer::Unclear(fault)) => return Outcome::Unknown { fault },
        };
        done(&format!("hook `{}` for {}", verb.name(), node.name), &answer)
    }
}
