//! User and password: from the environment, else asked for at the terminal; never from arguments,
//! which everybody on the machine can read.

use crate::cli::out::Failure;
use crate::model::{Channel, Fault, FaultClass};
use crate::port::{Credential, Secret, Vault};
use async_trait::async_trait;
use std::io::{IsTerminal, Write};
use std::path::Path;

const USER: &str = "FARRIER_BMC_USER";
const PASSWORD: &str = "FARRIER_BMC_PASSWORD";

/// The login of the one BMC that is meant.
pub(super) struct OneLogin(pub(super) Credential);

#[async_trait]
impl Vault for OneLogin {
    async fn credential(&self, _name: &str) -> Result<Credential, Fault> {
        Ok(self.0.clone())
    }

    async fn ssh_key(&self, _name: &str) -> Result<Secret, Fault> {
        Err(Fault::new(FaultClass::Bug, Channel::Host, "no-key", "no SSH key is at hand here"))
    }
}

pub(super) fn login() -> Result<Credential, Failure> {
    let given = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let user = match given(USER) {
        Some(user) => user,
        None => asked(USER, "user: ", false)?,
    };
    let password = match given(PASSWORD) {
        Some(password) => password,
        None => asked(PASSWORD, "password: ", true)?,
    };
    Ok(Credential { user, password: Secret::new(password) })
}

fn asked(name: &str, prompt: &str, hidden: bool) -> Result<String, Failure> {
    if !is_somebody_there() {
        return Err(Failure::usage(format!("no login: {name} is not set"))
            .hint(format!("set {USER} and {PASSWORD}, or run it at a terminal")));
    }
    eprint!("{prompt}");
    std::io::stderr().flush().ok();
    let term = console::Term::stderr();
    let read = if hidden { term.read_secure_line() } else { term.read_line() };
    match read {
        Ok(text) if !text.trim().is_empty() => Ok(text),
        Ok(_) => Err(Failure::usage("no login was given")),
        Err(e) => Err(Failure::error(format!("the terminal could not be read: {e}"))),
    }
}

fn is_somebody_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks at the terminal; only a whole `yes` is one.
pub(super) fn ask(question: &str) -> Option<bool> {
    if !is_somebody_there() {
        return None;
    }
    eprint!("{question} Type yes to go on: ");
    std::io::stderr().flush().ok();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).ok()?;
    Some(answer.trim() == "yes")
}

pub(super) fn certificates(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file)
        .map_err(|e| Failure::error(format!("`{}` could not be read: {e}", file.display())))
}
