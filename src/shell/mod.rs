//! The operating system of a machine over SSH: facts, named jobs, commands, files.
//!
//! Host keys are pinned and never accepted blindly. Scripts go over stdin into the host's `sh`;
//! nothing is installed but a job's own directory, `/var/lib/farrier/jobs/<name>/`. Every
//! operation opens and closes its connection: an open session costs 54 KB here, and a connect,
//! login and command 0.7 ms of CPU.
#![allow(clippy::disallowed_methods, reason = "an edge: it touches the network")]

pub mod parse;
pub mod script;
mod session;

use crate::model::action::JobScript;
use crate::model::facts::{HostFacts, HostHardware, JobFacts};
use crate::model::{Channel, Expect, Fault, FaultClass, Identity, Outcome};
use crate::port::command::{HostCommand, NotRun, Ran};
use crate::port::deploy::DeployOrder;
use crate::port::{HostTarget, Secret, Shell, Vault};
use async_trait::async_trait;
use session::{Cut, Login};
use std::sync::Arc;
use std::time::Duration;

/// How hosts are logged in to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the private key in the vault.
    pub key: String,
    /// User on hosts that name none.
    pub user: String,
    /// From the first packet to the end of the login.
    pub connect_deadline: Duration,
    /// From the command to its end. Facts, looks at jobs and starts of jobs are all short.
    pub command_deadline: Duration,
}

impl Settings {
    /// Ten seconds to connect, thirty for a command: together inside the engine's deadlines.
    pub fn new(key: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            user: user.into(),
            connect_deadline: Duration::from_secs(10),
            command_deadline: Duration::from_secs(30),
        }
    }
}

/// Hosts over SSH.
pub struct SshShell {
    vault: Arc<dyn Vault>,
    settings: Settings,
}

impl std::fmt::Debug for SshShell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshShell").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl SshShell {
    pub fn new(vault: Arc<dyn Vault>, settings: Settings) -> Self {
        Self { vault, settings }
    }

    async fn login(&self, host: &HostTarget) -> Result<Login, Fault> {
        let secret: Secret = self.vault.ssh_key(&self.settings.key).await?;
        let key = russh::keys::decode_secret_key(secret.expose(), None).map_err(|e| {
            // The error says what is wrong with the form, never what is in the key.
            Fault::new(
                FaultClass::Precondition,
                Channel::Host,
                "ssh-key-unreadable",
                format!("the SSH private key `{}` cannot be used: {e}", self.settings.key),
            )
            .hint("make one with `ssh-keygen -t ed25519 -N ''`; RSA keys are not supported")
        })?;
        let user = match &*host.endpoint.user {
            "" => self.settings.user.clone(),
            user => user.to_string(),
        };
        Ok(Login { user, key, deadline: self.settings.connect_deadline })
    }

    /// One command line of the login shell.
    async fn exec(
        &self,
        host: &HostTarget,
        command: &str,
        stdin: &[u8],
        deadline: Duration,
    ) -> Result<Ran, Cut> {
        let login = self.login(host).await.map_err(Cut::NotSent)?;
        let session = session::open(host, login).await.map_err(Cut::NotSent)?;
        session.run(command, stdin, deadline).await
    }

    /// A text for `sh -s`.
    async fn script(&self, host: &HostTarget, text: &str) -> Result<Ran, Cut> {
        let deadline = self.settings.command_deadline;
        self.exec(host, script::STDIN_SHELL, text.as_bytes(), deadline).await
    }

    /// The last `bytes` (64 KiB at most) of a job's output; empty when there is none.
    pub async fn tail(&self, host: &HostTarget, name: &str, bytes: usize) -> Result<String, Fault> {
        job_name(name)?;
        let ran = self.script(host, &script::tail(name, bytes)).await.map_err(Cut::fault)?;
        Ok(ran.stdout)
    }

    /// Writes a file whole or not at all. `path` is absolute; `mode` as in chmod.
    pub async fn put(
        &self,
        host: &HostTarget,
        path: &str,
        mode: u32,
        content: &[u8],
    ) -> Result<(), Fault> {
        let command = script::put(path, mode, content.len());
        let deadline = self.settings.command_deadline;
        let ran = self.exec(host, &command, content, deadline).await.map_err(Cut::fault)?;
        match ran.exit {
            Some(0) => Ok(()),
            _ => Err(session::failed(&format!("writing {path}"), &ran)),
        }
    }

    /// Starts a job; its text is the host's whole input.
    async fn launch(&self, host: &HostTarget, text: &str) -> Outcome {
        let ran = match self.script(host, text).await {
            Ok(ran) => ran,
            Err(Cut::NotSent(fault)) => return Outcome::Failed { fault },
            Err(Cut::NoAnswer(fault)) => return Outcome::Unknown { fault },
        };
        match parse::started(&ran.stdout) {
            // The name is the handle: the job is followed by it.
            Some(parse::Started::New(_) | parse::Started::Exists) => {
                Outcome::Applied { handle: None }
            }
            Some(parse::Started::Refused(saw)) => Outcome::Refused { saw, wrong_machine: true },
            Some(parse::Started::Failed(why)) => Outcome::Failed {
                fault: Fault::new(
                    FaultClass::Transient,
                    Channel::Host,
                    "job-not-started",
                    format!("the host could not start the job: {why}"),
                )
                .hint("jobs live below /var/lib/farrier: it needs space and a user that may write there"),
            },
            // 126 and 127: the login shell found no `sh`; nothing has run.
            None if matches!(ran.exit, Some(126 | 127)) => {
                Outcome::Failed { fault: session::failed("`sh -s`", &ran) }
            }
            None => Outcome::Unknown { fault: session::failed("the start of the job", &ran) },
        }
    }
}

/// A job's name becomes a directory and a unit: nothing that a path or a shell could read.
fn job_name(name: &str) -> Result<(), Fault> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && name.len() <= 128 && name.chars().all(plain) {
        return Ok(());
    }
    Err(Fault::new(
        FaultClass::Bug,
        Channel::Host,
        "bad-job-name",
        format!("`{}` is no name for a job", name.escape_debug()),
    ))
}

/// What becomes part of a script must be what it is taken for.
fn deploy_order(order: &DeployOrder) -> Result<(), Fault> {
    let file = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    let wrong =
        if !order.image_url.starts_with("http://") && !order.image_url.starts_with("https://") {
            Some("its URL is not HTTP".to_string())
        } else if order.sha256.len() != 64 || !order.sha256.chars().all(|c| c.is_ascii_hexdigit()) {
            Some("its sha256 is none".to_string())
        } else {
            let bad = order.seed.iter().find(|f| !file(&f.name));
            bad.map(|f| format!("`{}` is no name for a seed file", f.name.escape_debug()))
        };
    wrong.map_or(Ok(()), |why| {
        let what = format!("the order to deploy image `{}` can't be given: {why}", order.image);
        Err(Fault::new(FaultClass::Bug, Channel::Host, "bad-deploy-order", what))
    })
}

#[async_trait]
impl Shell for SshShell {
    async fn facts(&self, host: &HostTarget) -> Result<HostFacts, Fault> {
        let ran = self.script(host, &script::facts()).await.map_err(Cut::fault)?;
        parse::facts(&ran.stdout, &ran.stderr)
    }

    async fn hardware(&self, host: &HostTarget) -> Result<HostHardware, Fault> {
        let ran = self.script(host, &script::hardware()).await.map_err(Cut::fault)?;
        parse::hardware(&ran.stdout, &ran.stderr)
    }

    async fn job(&self, host: &HostTarget, name: &str) -> Result<JobFacts, Fault> {
        job_name(name)?;
        let ran = self.script(host, &script::show(name)).await.map_err(Cut::fault)?;
        parse::job(name, &ran.stdout, &ran.stderr)
    }

    async fn start_job(
        &self,
        host: &HostTarget,
        expect: &Expect,
        script: JobScript,
        name: &str,
        timeout_ms: u64,
    ) -> Outcome {
        if let Err(fault) = job_name(name) {
            return Outcome::Failed { fault };
        }
        self.launch(host, &script::start(&expect.identity, script, name, timeout_ms)).await
    }

    async fn start_wipe(
        &self,
        host: &HostTarget,
        expect: &Expect,
        drives: &[String],
        name: &str,
        timeout_ms: u64,
    ) -> Outcome {
        if let Err(fault) = job_name(name) {
            return Outcome::Failed { fault };
        }
        self.launch(host, &script::start_wipe(&expect.identity, drives, name, timeout_ms)).await
    }

    async fn start_deploy(
        &self,
        host: &HostTarget,
        expect: &Expect,
        order: &DeployOrder,
        name: &str,
        timeout_ms: u64,
    ) -> Outcome {
        if let Err(fault) = job_name(name).and_then(|()| deploy_order(order)) {
            return Outcome::Failed { fault };
        }
        self.launch(host, &script::start_deploy(&expect.identity, order, name, timeout_ms)).await
    }
}

#[async_trait]
impl HostCommand for SshShell {
    async fn run(
        &self,
        host: &HostTarget,
        expect: Option<&Identity>,
        argv: &[String],
        stdin: &[u8],
        deadline: Duration,
    ) -> Result<Ran, NotRun> {
        let command = script::command(expect, argv);
        match self.exec(host, &command, stdin, deadline).await {
            Ok(ran) if expect.is_some() && ran.exit == Some(script::REFUSED) => {
                Err(NotRun::Refused { saw: ran.stdout.trim().to_string() })
            }
            Ok(ran) => Ok(ran),
            Err(Cut::NotSent(fault)) => Err(NotRun::NotSent(fault)),
            Err(Cut::NoAnswer(fault)) => Err(NotRun::NoAnswer(fault)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_names() {
        assert!(job_name("wipe-a1b2-7-12").is_ok());
        for bad in ["", ".", "..", "../x", "-x", "a b", "a/b", "a;b", "a\n", &"a".repeat(200)] {
            assert_eq!(job_name(bad).unwrap_err().code, "bad-job-name", "{bad:?}");
        }
    }
}
