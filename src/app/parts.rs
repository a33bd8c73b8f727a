//! The edges of a site, built from its configuration.
#![allow(clippy::disallowed_methods, reason = "reads certificates that the configuration names")]

use super::current::Current;
use super::fallback::WithFallback;
use crate::bmc::RedfishBmc;
use crate::boot::{BootServer, ImageServer, KnownImage};
use crate::cluster::{Hook, HooksCluster, Place};
use crate::config::Daemon;
use crate::config::daemon::{HookLocation, SecretFrom, SecretsKey};
use crate::ipmi::IpmiBmc;
use crate::port::{Inbox, Ports, Vault};
use crate::shell::SshShell;
use crate::steps::catalog::Catalog;
use crate::store::key::KeyFrom;
use crate::store::kv::Kv;
use crate::store::vault::{From as Source, Reference, References, SiteVault};
use crate::store::{Key, SqliteStore};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Name under which the vault knows the site's SSH key.
const SSH_KEY: &str = "ssh";

/// What the daemon runs on.
pub struct Parts {
    pub ports: Ports,
    pub bmc: Arc<RedfishBmc>,
    pub ipmi: Arc<IpmiBmc>,
    pub boot: BootServer,
    pub images: ImageServer,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}

/// Credentials and keys of the site.
///
/// # Errors
/// A sentence for a person: secrets without their key, a key that is readable by others.
pub async fn vault(store: &SqliteStore, daemon: &Daemon) -> Result<SiteVault, String> {
    let key = read_key(daemon)?;
    let secrets = store.secrets(key).await.map_err(|e| e.to_string())?;
    Ok(SiteVault::new(secrets, references(daemon)))
}

/// The Redfish edge: its quirks from the configuration, its sessions kept where there is a key.
/// `time_scale`: how much faster than the wall clock the engine's time runs.
///
/// # Errors
/// A sentence for a person.
pub fn redfish(
    current: &Current,
    vault: Arc<dyn Vault>,
    store: &SqliteStore,
    time_scale: u32,
) -> Result<RedfishBmc, String> {
    let loaded = current.get();
    let settings = crate::bmc::Settings {
        ca_pem: bmc_ca(current)?,
        quirks: loaded.quirks.clone(),
        // In a time that runs faster its real seconds would be hours.
        settle_after_reset: time_scale <= 1,
        ..Default::default()
    };
    let bmc = RedfishBmc::new(vault, settings);
    Ok(match store.bmc_sessions(read_key(&loaded.daemon)?) {
        Some(kept) => bmc.keeping(Arc::new(kept)),
        None => bmc,
    })
}

/// The certificates that BMCs' are signed with, where the configuration names some.
///
/// # Errors
/// A sentence for a person.
pub fn bmc_ca(current: &Current) -> Result<Option<String>, String> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path)
            .map_err(|e| format!("can't read the certificates `{}`: {e}", path.display()))
    };
    current.get().daemon.bmc_ca.as_ref().map(read).transpose()
}

/// The key of the secrets table, where the configuration names one.
///
/// # Errors
/// A sentence for a person.
pub fn read_key(daemon: &Daemon) -> Result<Option<Key>, String> {
    let from = match &daemon.secrets {
        Some(SecretsKey::File(path)) => KeyFrom::File(path.clone()),
        Some(SecretsKey::Systemd(name)) => KeyFrom::Systemd(name.clone()),
        Some(SecretsKey::Env(name)) => KeyFrom::Env(name.clone()),
        None => return Ok(None),
    };
    Key::read(&from).map_err(|e| e.to_string())
}

fn references(daemon: &Daemon) -> References {
    let from = |f: &SecretFrom| match f {
        SecretFrom::File(path) => Source::File(path.clone()),
        SecretFrom::Env(name) => Source::Env(name.clone()),
        SecretFrom::Exec(command) => Source::Exec(command.clone()),
        SecretFrom::Vault(v) => Source::Vault(Kv {
            address: v.address.clone(),
            mount: v.mount.clone(),
            path: v.path.clone(),
            field: v.field.clone(),
            token_file: v.token_file.clone(),
            namespace: v.namespace.clone(),
            ca_file: v.ca_file.clone(),
        }),
    };
    let credentials = daemon
        .credentials
        .iter()
        .map(|(name, c)| (name.clone(), Reference { user: c.user.clone(), from: from(&c.from) }));
    let key = daemon.ssh.key.iter().map(|path| (SSH_KEY.to_string(), Source::File(path.clone())));
    References { credentials: credentials.collect(), ssh_keys: key.collect() }
}

/// All edges.
///
/// # Errors
/// A sentence for a person.
pub fn build(
    current: &Current,
    vault: Arc<dyn Vault>,
    bmc: RedfishBmc,
    inbox: Inbox,
) -> Result<Parts, String> {
    let loaded = current.get();
    let daemon = &loaded.daemon;
    let shell = Arc::new(SshShell::new(
        vault.clone(),
        crate::shell::Settings::new(SSH_KEY, daemon.ssh.user.clone()),
    ));
    let hooks = daemon.clusters.iter().map(|(name, c)| {
        let hook = Hook {
            command: c.command.clone(),
            place: match c.location {
                HookLocation::Local => Place::Local,
                HookLocation::Host => Place::Host,
            },
            timeout: Duration::from_millis(c.timeout.0),
        };
        (name.clone(), hook)
    });
    let cluster = HooksCluster::new(hooks.collect(), shell.clone());
    let images_dir = daemon.images.is_dir().then(|| daemon.images.clone());
    let settings = crate::boot::Settings {
        images: images_dir.clone(),
        ssh_keys: own_key(daemon).into_iter().collect(),
        user: daemon.ssh.user.clone(),
        recipes: loaded.recipes.clone(),
        ..Default::default()
    };
    let boot = BootServer::open(&daemon.state, settings, inbox).map_err(|f| f.to_string())?;
    let images = ImageServer::new(daemon.catalog.clone(), images_dir, known(&loaded.site.catalog));
    let bmc = Arc::new(bmc);
    // An action has 60 s in all, and Redfish has had its part of them.
    let over_ipmi = crate::ipmi::Settings { budget_ms: 45_000, ..Default::default() };
    let ipmi = Arc::new(IpmiBmc::new(vault, over_ipmi));
    let ports = Ports {
        bmc: Arc::new(WithFallback::new(
            bmc.clone(),
            ipmi.clone(),
            super::fallback::Settings::default(),
        )),
        shell,
        cluster: Arc::new(cluster),
        boot: Arc::new(boot.clone()),
        advertise: Arc::new(current.clone()),
    };
    Ok(Parts { ports, bmc, ipmi, boot, images })
}

/// The public half of the site's SSH key, for those who are to let it in.
pub fn own_key(daemon: &Daemon) -> Option<String> {
    let path = daemon.ssh.key.as_ref()?;
    let text = std::fs::read_to_string(path).ok()?;
    let key = russh::keys::decode_secret_key(&text, None).ok()?;
    Some(key.public_key().to_openssh().ok()?.trim().to_string())
}

/// The firmware files that may be handed out, with what they must be.
pub fn known(catalog: &Catalog) -> BTreeMap<String, KnownImage> {
    let all = catalog.families.iter().flat_map(|f| f.sets.values()).flat_map(|s| &s.firmware);
    all.map(|fw| (fw.file.clone(), KnownImage { sha256: fw.sha256.clone(), size: fw.size }))
        .collect()
}
