//! `[rotation]`, `[escrow]` and `vault = { … }`: passwords of BMCs, how they change, and who else
//! keeps them.

use super::table::Table;
use crate::model::time::Span;
use std::path::{Path, PathBuf};

/// When Farrier changes passwords by itself, and whose it never touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// A password older than this is changed; `None`: only when a person says so.
    pub every: Option<Span>,
    /// BMCs at once.
    pub at_once: u32,
    /// Users of the operator's own way in, in lower case: never touched.
    pub break_glass: Vec<String>,
}

impl Rotation {
    /// Is this the operator's own way in? BMCs differ in whether the case of names counts.
    pub fn is_break_glass(&self, user: &str) -> bool {
        let user = user.to_lowercase();
        self.break_glass.contains(&user)
    }
}

/// The operator's program that keeps new passwords: JSON on standard input, exit 0 = kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escrow {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    pub timeout: Span,
}

/// Where a Vault-style server (KV version 2) keeps a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultRef {
    pub address: String,
    pub mount: String,
    pub path: String,
    pub field: String,
    pub token_file: PathBuf,
    pub namespace: Option<String>,
    pub ca_file: Option<PathBuf>,
}

const AT_ONCE: u32 = 8;
const TIMEOUT: Span = Span(30_000);
const LONGEST: Span = Span(120_000);
/// Passwords that change every hour lock people out.
const SHORTEST: Span = Span(24 * 3_600_000);

pub(super) fn policy(table: Option<Table<'_, '_>>) -> Rotation {
    let Some(mut t) = table else { return Rotation { at_once: AT_ONCE, ..Rotation::default() } };
    let every = t.span("every");
    if let Some((span, at)) = every
        && span.0 < SHORTEST.0
    {
        t.error(at, format!("passwords change every {SHORTEST} at most, not every {span}"))
            .hint("`every = \"90d\"` is usual; leave it out to rotate by hand only");
    }
    let at_once = t.integer("at_once", 1..257).and_then(|n| u32::try_from(n).ok());
    let break_glass = t.texts("break_glass").iter().map(|u| u.value.to_lowercase()).collect();
    t.done();
    Rotation { every: every.map(|e| e.0), at_once: at_once.unwrap_or(AT_ONCE), break_glass }
}

pub(super) fn escrow(table: Option<Table<'_, '_>>) -> Option<Escrow> {
    let mut t = table?;
    let command: Vec<String> = t.texts("command").iter().map(|a| a.value.to_string()).collect();
    if command.is_empty() {
        t.missing("command");
    }
    let timeout = t.span("timeout");
    if let Some((span, at)) = timeout
        && span.0 > LONGEST.0
    {
        t.error(at, format!("the hook may take {LONGEST} at most, not {span}"));
    }
    t.done();
    (!command.is_empty())
        .then_some(Escrow { command, timeout: timeout.map_or(TIMEOUT, |(span, _)| span) })
}

pub(super) fn vault(mut t: Table<'_, '_>, base: &Path) -> Option<VaultRef> {
    let address = t.need_text("address");
    let mount = t.text("mount").map_or_else(|| "secret".to_string(), |m| m.value.to_string());
    let path = t.need_text("path");
    let field = t.text("field").map_or_else(|| "password".to_string(), |f| f.value.to_string());
    let token_file = t.need_text("token_file");
    let namespace = t.text("namespace").map(|n| n.value.to_string());
    let ca_file = t.text("ca_file").map(|f| base.join(f.value));
    if let Some(address) = address {
        match super::url::check_url(address.value) {
            Err(why) => {
                t.error(address.at, why).hint("write one like `https://vault.example:8200`");
            }
            Ok(())
                if address.value.starts_with("http://")
                    && !super::url::address_of(address.value).is_some_and(|a| a.is_loopback()) =>
            {
                t.error(address.at, "the token would go to that server unencrypted")
                    .hint("use https, or an agent on this machine");
            }
            Ok(()) => {}
        }
    }
    t.done();
    Some(VaultRef {
        address: address?.value.to_string(),
        mount,
        path: path?.value.to_string(),
        field,
        token_file: base.join(token_file?.value),
        namespace,
        ca_file,
    })
}
