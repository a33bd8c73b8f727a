//! Credentials for the edges: from the encrypted table first, then by reference. A reference is
//! read each time it is needed, so a rotated password needs no restart.

use super::kv::{Clients, Kv};
use super::secrets::Secrets;
use crate::model::{Channel, Fault, FaultClass};
use crate::port::{Credential, Secret, Vault};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Where a secret is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    File(PathBuf),
    /// Environment variable of the daemon.
    Env(String),
    /// What the command prints; run without a shell, in 10 s at most.
    Exec(Vec<String>),
    /// A field of a secret that a Vault-style server keeps.
    Vault(Kv),
}

/// A user whose password is kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub user: String,
    pub from: From,
}

/// What the configuration names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// A password is the first line of what is read.
    pub credentials: BTreeMap<String, Reference>,
    /// A private key is all of it.
    pub ssh_keys: BTreeMap<String, From>,
}

/// The [`Vault`] of a site.
#[derive(Clone, Debug)]
pub struct SiteVault {
    secrets: Secrets,
    references: References,
    kv: Clients,
}

const EXEC_DEADLINE: Duration = Duration::from_secs(10);
/// Longest secret that is read: private keys are some KiB.
const MAX_BYTES: u64 = 64 * 1024;

impl SiteVault {
    pub fn new(secrets: Secrets, references: References) -> Self {
        Self { secrets, references, kv: Clients::default() }
    }

    /// The encrypted table.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What comes back is never part of a message, stderr of a command included.
    async fn read(&self, name: &str, from: &From) -> Result<String, Fault> {
        match from {
            From::Vault(kv) => match kv.read(&self.kv).await {
                Ok(value) => Ok(value.expose().to_string()),
                Err(why) => Err(unreadable(name, why)),
            },
            From::File(path) => file(path).await.map_err(|why| unreadable(name, why)),
            From::Env(variable) => std::env::var(variable).map_err(|_| {
                unreadable(name, format!("`${variable}` is not set (or not UTF-8)"))
                    .hint("the daemon's environment counts, not yours: `Environment=` of its unit")
            }),
            From::Exec(command) => exec(command).await.map_err(|why| unreadable(name, why)),
        }
    }

    fn sealed(&self, name: &str) -> Result<Option<(String, Secret)>, Fault> {
        self.secrets.get(name).map_err(|e| {
            unreadable(name, e.to_string()).hint("every login that needs it waits for this")
        })
    }
}

#[async_trait]
impl Vault for SiteVault {
    async fn credential(&self, name: &str) -> Result<Credential, Fault> {
        if let Some((user, password)) = self.sealed(name)? {
            return Ok(Credential { user, password });
        }
        let Some(reference) = self.references.credentials.get(name) else {
            return Err(missing(
                "credential",
                name,
                format!("set it with `farrier secret set {name}`, or add a `[[credential]]`"),
            ));
        };
        let text = self.read(name, &reference.from).await?;
        let first = text.lines().next().unwrap_or("");
        if first.is_empty() {
            return Err(unreadable(name, "what it refers to is empty".into()));
        }
        Ok(Credential { user: reference.user.clone(), password: Secret::new(first) })
    }

    async fn ssh_key(&self, name: &str) -> Result<Secret, Fault> {
        if let Some((_, key)) = self.sealed(name)? {
            return Ok(key);
        }
        match self.references.ssh_keys.get(name) {
            Some(from) => self.read(name, from).await.map(Secret::new),
            None => Err(missing(
                "SSH key",
                name,
                format!("set it with `farrier secret set {name}`, or give `[ssh] key`"),
            )),
        }
    }
}

fn missing(what: &str, name: &str, hint: String) -> Fault {
    let text = format!("there is no {what} `{name}`");
    Fault::new(FaultClass::Precondition, Channel::Engine, "no-such-secret", text).hint(hint)
}

fn unreadable(name: &str, why: String) -> Fault {
    let text = format!("the secret `{name}` can't be read: {why}");
    Fault::new(FaultClass::Precondition, Channel::Engine, "unreadable-secret", text)
}

async fn file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let failed = |e: std::io::Error| format!("`{shown}`: {e}");
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).await.map_err(failed)?;
    Ok(text)
}

async fn exec(command: &[String]) -> Result<String, String> {
    let (program, args) = command.split_first().ok_or("the command is empty")?;
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("`{program}` can't be run: {e}"))?;
    let stdout = child.stdout.take().ok_or("no pipe")?;
    let mut text = String::new();
    let all = async {
        let read = stdout.take(MAX_BYTES).read_to_string(&mut text).await;
        (read, child.wait().await)
    };
    match tokio::time::timeout(EXEC_DEADLINE, all).await {
        Ok((Ok(_), Ok(status))) if status.success() => Ok(text),
        Ok((Ok(_), Ok(status))) => Err(format!("`{program}` ended with {status}")),
        Ok((Err(e), _) | (_, Err(e))) => Err(format!("`{program}`: {e}")),
        Err(_) => Err(format!("`{program}` gave no answer within {} s", EXEC_DEADLINE.as_secs())),
    }
}
