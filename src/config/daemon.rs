//! `farrier.toml`: where the daemon listens, where its files are, whose credentials it uses.
//! Relative paths in it count from the file's own directory.

use super::Source;
use super::book::{Book, Place};
use super::diagnostic::Diagnostic;
use super::names::unique;
use super::netboot;
pub use super::rotation::{Escrow, Rotation, VaultRef};
use super::table::{Table, Text};
use super::url::{Subnet, check_url};
pub use super::webhook::Webhook;
use crate::model::ActionKind;
use crate::model::time::Span;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

/// The daemon's settings.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// Directory of everything the daemon writes.
    pub state: PathBuf,
    /// SQLite file; `farrier.db` below `state` unless given.
    pub database: PathBuf,
    /// Files, or directories whose `*.toml` are read.
    pub inventory: Vec<PathBuf>,
    /// Directory whose `*.toml` are workflows.
    pub workflows: PathBuf,
    /// What is tried before a person is called; none = what ships with Farrier.
    pub remediation: Option<PathBuf>,
    /// What the site's BMCs do otherwise; comes before what ships with Farrier.
    pub quirks: Option<PathBuf>,
    /// Directory with `<vendor>/<family>.toml` and the images they name.
    pub catalog: PathBuf,
    /// Directory of OS images and what the boot server hands out.
    pub images: PathBuf,
    /// Directory of the operator's templates, `image/<id>/<file>.j2` and `profile/<name>/<file>.j2`.
    pub templates: PathBuf,
    pub api: ApiListener,
    /// Answers hosts that boot; without it nothing can be provisioned.
    pub boot: Option<Listener>,
    /// Serves firmware images to BMCs; without it nothing can be flashed.
    pub image_server: Option<Listener>,
    /// What one rack may fetch from `boot` at once.
    pub rack_limits: netboot::RackLimits,
    /// Gives addresses, or the way to a boot loader; `None`: another server does.
    pub dhcp: Option<netboot::Dhcp>,
    pub tftp: Option<netboot::Tftp>,
    pub loaders: netboot::Loaders,
    pub secrets: Option<SecretsKey>,
    /// By name.
    pub credentials: BTreeMap<String, CredentialRef>,
    pub ssh: Ssh,
    /// By name.
    pub clusters: BTreeMap<String, ClusterProvider>,
    /// A reload or a bulk change that touches more machines waits for a confirm.
    pub confirm_max_machines: u32,
    /// Quarantines within `breaker_window` that stop all destructive actions; 0 = off.
    pub breaker_quarantines: u32,
    pub breaker_window: Span,
    /// Where `farrier discover scan` may knock; nowhere unless said.
    pub discovery: Vec<Subnet>,
    /// Serial consoles of machines that a run boots.
    pub consoles: super::console::Consoles,
    /// Who is told of what, in file order.
    pub webhooks: Vec<Webhook>,
    /// Who keeps new passwords of BMCs before they are in force.
    pub escrow: Option<Escrow>,
    pub rotation: Rotation,
    /// PEM certificates that `tls = "ca"` trusts besides the system's.
    pub bmc_ca: Option<PathBuf>,
    pub(super) places: Places,
}

/// Places that other files are checked against.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// Network names in `advertise_url` tables.
    pub(super) networks: Vec<(String, Place)>,
    /// The file has `[listen.boot]` and `[listen.images]`, right or wrong.
    pub(super) has_boot: bool,
    pub(super) has_images: bool,
    /// `[listen.dhcp]`.
    pub(super) dhcp: Option<Place>,
}

/// One listening socket and the URLs under which it is reached.
#[derive(Clone, Debug)]
pub struct Listener {
    pub bind: SocketAddr,
    pub advertise: Advertise,
}

/// The API's socket. Off loopback it has TLS and a token, or the file is refused.
#[derive(Clone, Debug)]
pub struct ApiListener {
    pub bind: SocketAddr,
    pub advertise: Advertise,
    /// Certificate chain and key, PEM.
    pub tls: Option<Tls>,
    /// File with the bearer token.
    pub token_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// URLs without a slash at the end: one for all, or one a network, because a BMC and a host see
/// different addresses of the same daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertise {
    /// Where no network's own is given.
    pub any: Option<String>,
    /// By network name.
    pub by_network: BTreeMap<String, String>,
}

impl Advertise {
    /// The URL to hand to somebody in `network`; `None` when there is none for them.
    pub fn url(&self, network: Option<&str>) -> Option<&str> {
        let own = network.and_then(|n| self.by_network.get(n));
        own.or(self.any.as_ref()).map(String::as_str)
    }
}

/// Where the key of the secrets table comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretsKey {
    /// A file with mode 0600.
    File(PathBuf),
    /// Name of a systemd credential (`LoadCredential=`).
    Systemd(String),
    /// Environment variable of the daemon.
    Env(String),
}

/// A user with a password that is kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialRef {
    pub user: String,
    pub from: SecretFrom,
}

/// Where a secret is read from, each time it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFrom {
    /// First line of the file.
    File(PathBuf),
    /// Environment variable of the daemon.
    Env(String),
    /// First line that the command prints; run without a shell.
    Exec(Vec<String>),
    /// A field of a secret that a Vault-style server keeps (KV version 2).
    Vault(VaultRef),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// User on hosts that name none.
    pub user: String,
    /// Private key in OpenSSH form, mode 0600; without it there is no SSH.
    pub key: Option<PathBuf>,
}

/// A cluster and how it is asked. The only kind so far is `hooks`: an operator's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterProvider {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    pub location: HookLocation,
    pub timeout: Span,
}

/// Where a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookLocation {
    /// Beside the daemon.
    Local,
    /// On the machine, over SSH.
    Host,
}

/// Reads one `farrier.toml`. `None` only when so much is wrong that no settings come out.
pub fn parse(source: &Source) -> (Option<Daemon>, Vec<Diagnostic>) {
    let book = Book::new(vec![source]);
    let daemon = read(&book, 0);
    let found = book.finish();
    let fatal = found.iter().any(Diagnostic::is_error);
    ((!fatal).then_some(daemon), found)
}

pub(super) fn read(book: &Book<'_>, file: usize) -> Daemon {
    let base = Path::new(book.path(file)).parent().unwrap_or(Path::new("")).to_path_buf();
    book.read(file, |top| settings(top, &base))
}

fn settings(mut top: Table<'_, '_>, base: &Path) -> Daemon {
    let mut places = Places::default();
    top.schema();

    let mut paths = top.table("paths");
    let mut path = |key, default: &str| match paths.as_mut().and_then(|t| t.text(key)) {
        Some(text) => base.join(text.value),
        None => base.join(default),
    };
    let state = path("state", "state");
    let workflows = path("workflows", "workflows");
    let catalog = path("catalog", "firmware-catalog");
    let images = path("images", "images");
    let templates = path("templates", "templates");
    let database = match paths.as_mut().and_then(|t| t.text("database")) {
        Some(text) => base.join(text.value),
        None => state.join("farrier.db"),
    };
    let remediation =
        paths.as_mut().and_then(|t| t.text("remediation")).map(|text| base.join(text.value));
    let inventory: Vec<_> = paths.as_mut().map(|t| t.texts("inventory")).unwrap_or_default();
    let mut inventory: Vec<_> = inventory.iter().map(|t| base.join(t.value)).collect();
    if inventory.is_empty() {
        inventory.push(base.join("inventory.toml"));
    }
    finish(paths);

    let mut listen = top.table("listen");
    let api = api(listen.as_mut().and_then(|t| t.table("api")), base, &mut places);
    let boot = listen.as_mut().and_then(|t| t.table("boot"));
    places.has_boot = boot.is_some();
    let mut rack_limits = netboot::RackLimits::default();
    let boot = boot.and_then(|mut t| {
        rack_limits = netboot::rack_limits(&mut t);
        listener(t, &mut places)
    });
    let images_table = listen.as_mut().and_then(|t| t.table("images"));
    places.has_images = images_table.is_some();
    let image_server = images_table.and_then(|t| listener(t, &mut places));
    let (dhcp, dhcp_at) = netboot::dhcp(listen.as_mut().and_then(|t| t.table("dhcp")));
    places.dhcp = dhcp_at;
    let tftp = netboot::tftp(listen.as_mut().and_then(|t| t.table("tftp")));
    finish(listen);

    let mut bmc = top.table("bmc");
    let quirks = bmc.as_mut().and_then(|t| t.text("quirks")).map(|text| base.join(text.value));
    let bmc_ca = bmc.as_mut().and_then(|t| t.text("ca_file")).map(|text| base.join(text.value));
    finish(bmc);

    let daemon = Daemon {
        state,
        database,
        inventory,
        workflows,
        remediation,
        quirks,
        catalog,
        images,
        templates,
        api,
        boot,
        image_server,
        rack_limits,
        dhcp,
        tftp,
        loaders: netboot::loaders(top.table("loaders"), base),
        secrets: secrets(top.table("secrets"), base),
        credentials: credentials(top.tables("credential"), base),
        ssh: ssh(top.table("ssh"), base),
        clusters: clusters(top.tables("cluster")),
        confirm_max_machines: {
            let mut t = top.table("confirm");
            let max = t.as_mut().and_then(|t| t.integer("max_machines", 0..1_000_000));
            finish(t);
            max.and_then(|n| u32::try_from(n).ok()).unwrap_or(25)
        },
        breaker_quarantines: 0,
        breaker_window: Span(3_600_000),
        discovery: discovery(top.table("discovery")),
        consoles: super::console::read(top.table("console")),
        webhooks: super::webhook::read(top.tables("webhook")),
        escrow: super::rotation::escrow(top.table("escrow")),
        rotation: super::rotation::policy(top.table("rotation")),
        bmc_ca,
        places,
    };
    let mut breaker = top.table("breaker");
    let quarantines = breaker.as_mut().and_then(|t| t.integer("quarantines", 0..1_000_000));
    let window = breaker.as_mut().and_then(|t| t.span("window"));
    finish(breaker);
    top.done();
    Daemon {
        breaker_quarantines: quarantines.and_then(|n| u32::try_from(n).ok()).unwrap_or(10),
        breaker_window: window.map_or(daemon.breaker_window, |(span, _)| span),
        ..daemon
    }
}

fn finish(table: Option<Table<'_, '_>>) {
    if let Some(t) = table {
        t.done();
    }
}

fn discovery(table: Option<Table<'_, '_>>) -> Vec<Subnet> {
    let Some(mut t) = table else { return Vec::new() };
    let mut out = Vec::new();
    for text in t.texts("ranges") {
        match text.value.parse() {
            Ok(range) => out.push(range),
            Err(why) => {
                let why: String = why;
                t.error(text.at, why).hint("these are the BMC networks that a scan may knock at");
            }
        }
    }
    t.done();
    out
}

const LOOPBACK_API: ([u8; 4], u16) = ([127, 0, 0, 1], 7120);

fn api(table: Option<Table<'_, '_>>, base: &Path, places: &mut Places) -> ApiListener {
    let default = SocketAddr::from(LOOPBACK_API);
    let Some(mut t) = table else {
        return ApiListener {
            bind: default,
            advertise: Advertise::default(),
            tls: None,
            token_file: None,
        };
    };
    let bind = bind(&mut t);
    let advertise = advertise(&mut t, places);
    let cert = t.text("tls_cert");
    let key = t.text("tls_key");
    let token_file = t.text("token_file").map(|f| base.join(f.value));
    let tls = match (cert, key) {
        (Some(c), Some(k)) => Some(Tls { cert: base.join(c.value), key: base.join(k.value) }),
        (Some(one), None) | (None, Some(one)) => {
            t.error(one.at, "`tls_cert` and `tls_key` go together").hint("give both, or neither");
            None
        }
        (None, None) => None,
    };
    if let Some((address, at)) = bind
        && !address.ip().is_loopback()
        && (cert.is_none() || key.is_none() || token_file.is_none())
    {
        t.error(at, format!("the API on `{address}` needs TLS and a token"))
            .hint("give `tls_cert`, `tls_key` and `token_file`, or bind to 127.0.0.1");
    }
    t.done();
    ApiListener { bind: bind.map_or(default, |b| b.0), advertise, tls, token_file }
}

fn listener(mut t: Table<'_, '_>, places: &mut Places) -> Option<Listener> {
    let bind = bind(&mut t);
    let advertise = advertise(&mut t, places);
    for key in ["bind", "advertise_url"] {
        if t.lacks(key) {
            t.missing(key);
        }
    }
    t.done();
    Some(Listener { bind: bind?.0, advertise })
}

fn bind(t: &mut Table<'_, '_>) -> Option<(SocketAddr, Place)> {
    let text = t.text("bind")?;
    match text.value.parse() {
        Ok(address) => Some((address, text.at)),
        Err(_) => {
            t.error(text.at, format!("`{}` is not an address with a port", text.value))
                .hint("write one like `127.0.0.1:7120`, `0.0.0.0:7121` or `[::1]:7120`");
            None
        }
    }
}

fn advertise(t: &mut Table<'_, '_>, places: &mut Places) -> Advertise {
    let mut out = Advertise::default();
    let Some(value) = t.take("advertise_url") else { return out };
    if let DeValue::String(_) = value.get_ref() {
        let text = t.as_text("advertise_url", value);
        out.any = text.and_then(|text| url(t, text));
        return out;
    }
    let Some(mut table) = t.as_table("advertise_url", value) else { return out };
    for (name, value) in table.pairs() {
        if let Some(text) = table.as_text(name.value, value)
            && let Some(url) = url(&table, text)
        {
            out.by_network.insert(name.value.to_string(), url);
            places.networks.push((name.value.to_string(), name.at));
        }
    }
    out
}

/// `http://host[:port]` with nothing that a BMC stumbles over: no user, no query, no slash at the
/// end.
fn url(t: &Table<'_, '_>, text: Text<'_>) -> Option<String> {
    let trimmed = text.value.trim_end_matches('/');
    match check_url(trimmed) {
        Ok(()) => Some(trimmed.to_string()),
        Err(why) => {
            t.error(text.at, why).hint("write one like `http://10.0.0.2:7121`");
            None
        }
    }
}

fn secrets(table: Option<Table<'_, '_>>, base: &Path) -> Option<SecretsKey> {
    let mut t = table?;
    let file = t.text("key_file");
    let systemd = t.text("systemd_credential");
    let env = t.text("key_env");
    let ways = [
        file.map(|f| (f.at, SecretsKey::File(base.join(f.value)))),
        systemd.map(|name| (name.at, SecretsKey::Systemd(name.value.to_string()))),
        env.map(|name| (name.at, SecretsKey::Env(name.value.to_string()))),
    ];
    let mut ways: Vec<_> = ways.into_iter().flatten().collect();
    let out = match (ways.pop(), ways.is_empty()) {
        (Some((_, key)), true) => Some(key),
        (Some((at, _)), false) => {
            t.error(at, "`key_file`, `systemd_credential` and `key_env` are ways to say the same")
                .hint("keep one of them");
            None
        }
        (None, _) => {
            t.missing("key_file");
            None
        }
    };
    t.done();
    out
}

fn credentials(tables: Vec<Table<'_, '_>>, base: &Path) -> BTreeMap<String, CredentialRef> {
    let mut out = BTreeMap::new();
    let mut seen: BTreeMap<String, Place> = BTreeMap::new();
    for mut t in tables {
        let name = t.need_name("name");
        let user = t.need_text("user");
        let from = match t.table("from") {
            Some(from) => secret_from(from, base),
            None => {
                if t.lacks("from") {
                    t.missing("from");
                }
                None
            }
        };
        if let Some(name) = name {
            unique(&t, &mut seen, name, "credential");
            let from = from.unwrap_or_else(|| SecretFrom::Env(String::new()));
            let user = user.map(|u| u.value.to_string()).unwrap_or_default();
            out.entry(name.value.to_string()).or_insert(CredentialRef { user, from });
        }
        t.done();
    }
    out
}

fn secret_from(mut t: Table<'_, '_>, base: &Path) -> Option<SecretFrom> {
    let file = t.text("file").map(|f| SecretFrom::File(base.join(f.value)));
    let env = t.text("env").map(|e| SecretFrom::Env(e.value.to_string()));
    let exec: Vec<String> = t.texts("exec").iter().map(|a| a.value.to_string()).collect();
    let exec = (!exec.is_empty()).then_some(SecretFrom::Exec(exec));
    let said_vault = !t.lacks("vault");
    let vault = t.table("vault").and_then(|v| super::rotation::vault(v, base));
    let mut ways: Vec<SecretFrom> =
        [file, env, exec, vault.map(SecretFrom::Vault)].into_iter().flatten().collect();
    // A `vault` with a mistake in it was told of already.
    if ways.len() != 1 && !(ways.is_empty() && said_vault) {
        t.error(t.at, "`from` takes exactly one of `file`, `env`, `exec` and `vault`")
            .hint("for example `from = { file = \"/etc/farrier/bmc-password\" }`");
    }
    t.done();
    ways.pop()
}

fn ssh(table: Option<Table<'_, '_>>, base: &Path) -> Ssh {
    let mut t = table;
    let user = t.as_mut().and_then(|t| t.text("user"));
    let key = t.as_mut().and_then(|t| t.text("key"));
    let out = Ssh {
        user: user.map_or_else(|| "root".to_string(), |u| u.value.to_string()),
        key: key.map(|k| base.join(k.value)),
    };
    finish(t);
    out
}

fn clusters(tables: Vec<Table<'_, '_>>) -> BTreeMap<String, ClusterProvider> {
    let mut out = BTreeMap::new();
    let mut seen = BTreeMap::new();
    // A hook that outlives the action's own deadline would count as outcome unknown.
    let longest = Span(ActionKind::Hook.class().deadline_ms);
    for mut t in tables {
        let name = t.need_name("name");
        t.need_choice("kind", &[("hooks", ())]);
        let command: Vec<String> = t.texts("command").iter().map(|a| a.value.to_string()).collect();
        if command.is_empty() && t.lacks("command") {
            t.missing("command");
        } else if command.is_empty() {
            t.error(t.at, "`command` in `[[cluster]]` names no program");
        }
        let places = [("local", HookLocation::Local), ("host", HookLocation::Host)];
        let location = t.choice("where", &places).unwrap_or(HookLocation::Local);
        let timeout = t.span("timeout");
        if let Some((span, at)) = timeout
            && span.0 > longest.0
        {
            t.error(at, format!("a hook may take {longest} at most, not {span}"))
                .hint("let the hook start the work and return; Farrier asks again");
        }
        if let Some(name) = name {
            unique(&t, &mut seen, name, "cluster");
            let timeout = timeout.map_or(Span(60_000), |(span, _)| span);
            out.entry(name.value.to_string()).or_insert(ClusterProvider {
                command,
                location,
                timeout,
            });
        }
        t.done();
    }
    out
}
