//! Commands on a database that no daemon runs on: `fsck`, `secret`.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "reads a secret from standard input or a file"
)]

use super::{files, parts};
use crate::config::daemon::{SecretFrom, SecretsKey};
use crate::port::Secret;
use crate::store::{Key, SqliteStore, fsck};
use std::future::Future;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Checks a database: does each journal fold to its row, and did the engine keep its rules? Exit 0
/// clean, 1 findings, 2 unusable. Without `db` it is the configuration's, and what that knows
/// besides (limits, secrets) is looked at too.
pub fn check(db: Option<PathBuf>, config: &Path, json: bool) -> ExitCode {
    block_on(async {
        let (path, known) = match db {
            Some(path) => (path, fsck::Known::default()),
            None => match files::load(config) {
                Ok(loaded) => {
                    let known = known(&loaded);
                    (loaded.daemon.database, known)
                }
                Err(problems) => {
                    eprint!("{}", problems.report);
                    return ExitCode::from(2);
                }
            },
        };
        match fsck::fsck_with(&path, &known).await {
            Ok(report) => {
                if json {
                    let said = serde_json::json!({
                        "clean": report.is_clean(),
                        "machines": report.machines,
                        "entries": report.entries,
                        "open_actions": report.open_actions,
                        "found": report.found,
                        "findings": report.findings,
                        "notes": report.notes,
                    });
                    println!("{said}");
                } else {
                    for finding in &report.findings {
                        println!("{finding}");
                    }
                    for note in &report.notes {
                        println!("note: {note}");
                    }
                    println!(
                        "{}: {} machines, {} journal entries, {} open actions, {} findings",
                        if report.is_clean() { "clean" } else { "NOT CLEAN" },
                        report.machines,
                        report.entries,
                        report.open_actions,
                        report.found,
                    );
                }
                if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) }
            }
            Err(e) => {
                eprintln!("error: {e}");
                ExitCode::from(2)
            }
        }
    })
}

/// What `fsck` can be told from the configuration. A secret that can't be read here is not looked
/// for: the daemon tells that, at its start.
fn known(loaded: &crate::config::Loaded) -> fsck::Known {
    let daemon = &loaded.daemon;
    let file = |path: &Path| std::fs::read_to_string(path).ok();
    let mut secrets = Vec::new();
    for (name, credential) in &daemon.credentials {
        let text = match &credential.from {
            SecretFrom::File(path) => file(path),
            SecretFrom::Env(name) => std::env::var(name).ok(),
            // No program is run for a check, and no server asked.
            SecretFrom::Exec(_) | SecretFrom::Vault(_) => None,
        };
        let first = text.as_deref().and_then(|t| t.lines().next());
        secrets.extend(first.map(|line| (name.to_string(), Secret::new(line))));
    }
    // Of a private key, each line of its body: it would not stand anywhere whole.
    if let Some(text) = daemon.ssh.key.as_deref().and_then(file) {
        let body = text.lines().filter(|l| !l.starts_with("-----") && l.len() > 40);
        secrets.extend(body.map(|line| ("the SSH key".to_string(), Secret::new(line))));
    }
    if let Some(text) = daemon.api.token_file.as_deref().and_then(file) {
        secrets.push(("the API's token".into(), Secret::new(text.trim())));
    }
    let key = parts::read_key(daemon).ok().flatten();
    fsck::Known { limits: loaded.site.limits.clone(), secrets, key }
}

/// What is to be done with the secrets table.
#[derive(Clone, Debug)]
pub enum SecretAsk {
    Set { name: String, user: Option<String>, file: Option<PathBuf> },
    List,
    Remove { name: String },
}

/// `farrier secret …`: works on the database itself, so the daemon must not run.
pub fn secret(config: &Path, ask: &SecretAsk, json: bool) -> ExitCode {
    block_on(async {
        match secrets(config, ask, json).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("error: {why}");
                ExitCode::FAILURE
            }
        }
    })
}

async fn secrets(config: &Path, ask: &SecretAsk, json: bool) -> Result<(), String> {
    let loaded = files::load(config).map_err(|p| p.report)?;
    let daemon = loaded.daemon;
    std::fs::create_dir_all(&daemon.state)
        .map_err(|e| format!("can't make `{}`: {e}", daemon.state.display()))?;
    let mut key = parts::read_key(&daemon)?;
    if let (None, SecretAsk::Set { .. }, Some(SecretsKey::File(path))) =
        (&key, ask, &daemon.secrets)
    {
        key = Some(Key::init(path).map_err(|e| e.to_string())?);
        eprintln!(
            "made the key `{}` (0600); keep a copy of it apart from the database",
            path.display()
        );
    }
    let store = SqliteStore::open(&daemon.database, crate::store::Settings::default())
        .await
        .map_err(|e| format!("{e}\n  hint: `farrier secret` needs the daemon to be stopped"))?;
    let secrets = store.secrets(key).await.map_err(|e| e.to_string())?;
    let result = match ask {
        SecretAsk::Set { name, user, file } => {
            let value = read_value(file.as_deref())?;
            let user = user.as_deref().unwrap_or("");
            secrets.set(name, user, &value).await.map_err(|e| e.to_string())
        }
        SecretAsk::List => secrets.list().await.map_err(|e| e.to_string()).map(|lines| {
            let names: Vec<_> = lines
                .iter()
                .map(|l| serde_json::json!({ "name": l.name, "user": l.user }))
                .collect();
            if json {
                println!("{}", serde_json::Value::from(names));
            } else {
                for line in &lines {
                    println!("{}  (user {})", line.name, line.user);
                }
            }
        }),
        SecretAsk::Remove { name } => match secrets.remove(name).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("there is no secret `{name}`")),
            Err(e) => Err(e.to_string()),
        },
    };
    store.close().await;
    result
}

/// The first line of the file or of standard input; never an argument, where `ps` shows it.
fn read_value(file: Option<&Path>) -> Result<Secret, String> {
    let mut text = String::new();
    let read = match file {
        Some(path) => std::fs::File::open(path).and_then(|mut f| f.read_to_string(&mut text)),
        None => std::io::stdin().read_to_string(&mut text),
    };
    read.map_err(|e| format!("can't read the value: {e}"))?;
    // A private key has many lines; a password has one, with the newline of `echo`.
    let value = if text.trim_end().lines().count() > 1 { text.as_str() } else { text.trim_end() };
    if value.is_empty() {
        return Err("the value is empty".into());
    }
    Ok(Secret::new(value))
}

pub(super) fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(e) => {
            eprintln!("error: no runtime: {e}");
            ExitCode::FAILURE
        }
    }
}
