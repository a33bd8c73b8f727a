//! `[[machine]]`: ten thousand of them are usual, so names that they share are stored once.

mod twice;

use super::{Inventory, controller};
use crate::config::book::{Book, Place};
use crate::config::names::dangling;
use crate::config::table::{Table, Text};
use crate::config::url::check_url;
use crate::model::identity::{clean_mac, clean_serial, clean_uuid};
use crate::model::{
    BmcEndpoint, Domain, DomainKind, Expected, Further, HostEndpoint, Identity, IpmiEndpoint,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use toml::de::DeValue;

/// Machines as read, until racks and pools of all files are known.
#[derive(Default)]
pub(super) struct Machines {
    drafts: Vec<Draft>,
    /// Names that machines share, each stored once.
    shared: BTreeSet<Arc<str>>,
    /// The current file's, and where its machines start in `drafts`.
    defaults: Option<Defaults>,
    file_start: usize,
    unchecked: Option<(Place, usize)>,
    unproven: Option<(Place, usize)>,
    /// Further controllers without a serial.
    unwritten: Option<(Place, usize)>,
}

struct Draft {
    expected: Expected,
    chassis: Option<Arc<str>>,
    nvlink: Option<Arc<str>>,
    controllers: Vec<controller::Draft>,
    /// The machine says nothing itself: the file's defaults count.
    wants_credential: bool,
    wants_tls: bool,
    at: Places,
}

#[derive(Clone, Copy, Default)]
struct Places {
    header: Place,
    name: Place,
    rack: Place,
    pool: Place,
    serial: Place,
    uuid: Place,
    mac: Place,
    bmc: Place,
    url: Place,
    credential: Place,
    ipmi_credential: Place,
}

/// The credential that means: the password which the machine was delivered with, as `farrier
/// inventory import` has sealed it.
pub(in crate::config) const FACTORY: &str = "factory";

/// `[defaults]` of a file.
struct Defaults {
    credential: Option<(Arc<str>, Place)>,
    tls: Option<Arc<str>>,
    user: Option<Arc<str>>,
    at: Place,
}

impl Machines {
    /// Reads a piece of a file.
    pub(super) fn read(&mut self, top: &mut Table<'_, '_>) {
        if let Some(mut t) = top.table("defaults") {
            if let Some(first) = &self.defaults {
                t.error(t.at, "`[defaults]` is there twice")
                    .hint(format!("the other one is at {}", t.book.where_is(first.at)));
            }
            let here = Defaults {
                credential: t.text("credential").map(|c| (c.value.into(), c.at)),
                tls: t.text("tls").and_then(|text| tls(&t, text)),
                user: t.text("user").map(|u| u.value.into()),
                at: t.at,
            };
            self.defaults.get_or_insert(here);
            t.done();
        }
        for mut t in top.tables("machine") {
            let draft = self.draft(&mut t);
            t.done();
            self.drafts.push(draft);
        }
    }

    /// The file is read: its defaults fill in what its machines leave open.
    pub(super) fn end_of_file(&mut self, book: &Book<'_>) {
        let start = std::mem::replace(&mut self.file_start, self.drafts.len());
        let defaults = self.defaults.take();
        let credential = defaults.as_ref().and_then(|d| d.credential.as_ref());
        let tls = defaults.as_ref().and_then(|d| d.tls.as_ref());
        let (ca, off): (Arc<str>, Arc<str>) = ("ca".into(), "off".into());
        let user = defaults.as_ref().and_then(|d| d.user.as_ref());
        for draft in self.drafts.iter_mut().skip(start) {
            let m = &mut draft.expected;
            match credential {
                Some((name, at)) if draft.wants_credential => {
                    m.bmc.credential = name.clone();
                    draft.at.credential = *at;
                }
                None if draft.wants_credential => {
                    book.error(draft.at.bmc, "`credential` is missing in `machine.bmc`")
                        .hint("give it here, or for the whole file in `[defaults]`");
                }
                _ => {}
            }
            if draft.wants_tls {
                let plain = m.bmc.url.starts_with("http://");
                let unsaid = if plain { &off } else { tls.unwrap_or(&ca) };
                m.bmc.tls = unsaid.clone();
                // Without TLS there is nothing that a pool could ask for.
                draft.wants_tls = !plain;
            }
            for further in &mut draft.controllers {
                further.defaults(book, credential, tls.unwrap_or(&ca), &off);
            }
            if let (true, Some(user)) = (m.host.user.is_empty(), user) {
                m.host.user = user.clone();
            }
        }
    }

    pub(super) fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(shared) = self.shared.get(name) {
            return shared.clone();
        }
        let shared: Arc<str> = name.into();
        self.shared.insert(shared.clone());
        shared
    }

    fn draft(&mut self, t: &mut Table<'_, '_>) -> Draft {
        let mut at = Places { header: t.at, ..Places::default() };
        let mut keep = |text: Option<Text<'_>>, place: &mut Place| {
            if let Some(text) = text {
                *place = text.at;
                self.share(text.value)
            } else {
                Arc::from("")
            }
        };
        let name = t.need_name("name");
        let rack = keep(t.need_text("rack"), &mut at.rack);
        let pool = keep(t.need_text("pool"), &mut at.pool);
        let name: Arc<str> = name.map_or_else(
            || Arc::from(""),
            |n| {
                at.name = n.at;
                n.value.into()
            },
        );
        let identity = Identity {
            serial: part(t, "serial", &mut at.serial, clean_serial).map(Into::into),
            uuid: part(t, "uuid", &mut at.uuid, clean_uuid).map(Into::into),
            mac: part(t, "mac", &mut at.mac, clean_mac).map(Into::into),
        };
        if identity.is_unknown() && ["serial", "uuid", "mac"].iter().all(|k| t.lacks(k)) {
            count(&mut self.unproven, t.at);
        }
        let position = t.integer("position", 0..1000).and_then(|n| u16::try_from(n).ok());
        let chassis = t.text("chassis").map(|c| self.share(c.value));
        let nvlink = t.text("nvlink").map(|c| self.share(c.value));
        let mut labels = BTreeMap::new();
        if let Some(mut table) = t.table("labels") {
            for (key, value) in table.pairs() {
                if let Some(text) = table.as_text(key.value, value) {
                    labels.insert(key.value.to_string(), text.value.to_string());
                }
            }
        }
        let mut draft_bmc = (BmcEndpoint::default(), false, false);
        if let Some(table) = t.table("bmc") {
            draft_bmc = bmc(table, &mut at);
        } else if t.lacks("bmc") {
            t.missing("bmc");
        }
        let (mut bmc, wants_credential, wants_tls) = draft_bmc;
        bmc.ipmi = ipmi(t, &mut at).map(Box::new);
        let controllers = controller::read(self, t);
        let host = host(t, &name);
        let expected = Expected {
            name,
            identity: Arc::new(identity),
            rack,
            position: position.unwrap_or(0),
            pool,
            profile: Arc::from(""),
            domains: Arc::default(),
            labels: labels.into(),
            bmc,
            host,
        };
        Draft { expected, chassis, nvlink, controllers, wants_credential, wants_tls, at }
    }

    /// Puts machines into their racks and pools, and notes what is there twice.
    pub(super) fn resolve(mut self, book: &Book<'_>, inv: &mut Inventory) {
        twice::check(book, &self.drafts);
        let drafts = std::mem::take(&mut self.drafts);
        let mut pools = PoolDomains::default();
        // Machines of a rack are mostly in the same domains: the list is kept once.
        let mut lists: BTreeSet<Arc<[Domain]>> = BTreeSet::new();
        inv.machines.reserve(drafts.len());
        for draft in drafts {
            let Draft { mut expected, chassis, nvlink, controllers, wants_tls, at, .. } = draft;
            let rack = inv.racks.get_key_value(&*expected.rack);
            if let Some((name, _)) = rack {
                expected.rack = name.clone();
            } else if !inv.broken && !expected.rack.is_empty() {
                dangling(book, at.rack, "rack", &expected.rack, inv.racks.keys().map(|k| &**k));
            }
            if let Some((name, pool)) = inv.pools.get_key_value(&*expected.pool) {
                expected.pool = name.clone();
                expected.profile = pool.profile.clone();
                if let (true, Some(tls)) = (wants_tls, &pool.tls) {
                    expected.bmc.tls = tls.clone();
                }
            } else if !inv.broken && !expected.pool.is_empty() {
                dangling(book, at.pool, "pool", &expected.pool, inv.pools.keys().map(|k| &**k));
            }
            let rack = rack.map_or(&[][..], |(_, r)| &r.domains);
            let found = domains(rack, pools.of(&expected.pool), chassis, nvlink);
            expected.domains = lists.get(&*found).cloned().unwrap_or_else(|| {
                let list: Arc<[Domain]> = found.into();
                lists.insert(list.clone());
                list
            });
            if &*expected.bmc.tls == "off" && !is_loopback(&expected.bmc.url) {
                count(&mut self.unchecked, at.url);
            }
            if &*expected.bmc.credential == FACTORY {
                match &expected.identity.serial {
                    Some(serial) => {
                        expected.bmc.credential = format!("{FACTORY}/{serial}").into();
                        inv.credentials.entry(FACTORY.into()).or_insert(at.credential);
                    }
                    None => {
                        book.error(
                            at.header,
                            "a factory password is found by the machine's serial",
                        )
                        .hint("give `serial`, or name another credential");
                    }
                }
            }
            if !controllers.is_empty() {
                let pool = inv.pools.get(&*expected.pool).and_then(|p| p.tls.clone());
                let found = controllers.into_iter().map(|c| c.resolve(book, pool.as_ref()));
                let found: Vec<controller::Resolved> = found.collect();
                for c in &found {
                    if &*c.further.tls == "off" && !is_loopback(&c.further.url) {
                        count(&mut self.unchecked, c.url);
                    }
                    if c.further.serial.is_none() {
                        count(&mut self.unwritten, c.header);
                    }
                    let name = &c.further.credential;
                    if !name.is_empty() && &**name != FACTORY {
                        inv.credentials.entry(name.clone()).or_insert(c.credential);
                    }
                }
                let all: Vec<Further> = found.into_iter().map(|c| c.further).collect();
                expected.bmc.controllers = all.into();
            }
            let credential = &*expected.bmc.credential;
            let sealed = credential.starts_with(FACTORY);
            if !sealed && !credential.is_empty() && !inv.credentials.contains_key(credential) {
                inv.credentials.insert(credential.into(), at.credential);
            }
            let own = expected.bmc.ipmi.as_ref().and_then(|i| i.credential.as_ref());
            if let Some(name) = own.filter(|n| !inv.credentials.contains_key(&***n)) {
                inv.credentials.insert(name.clone(), at.ipmi_credential);
            }
            inv.machines.push(Arc::new(expected));
        }
        let machines = |n: usize| format!("{n} machine{}", if n == 1 { "" } else { "s" });
        if let Some((at, n)) = self.unproven {
            book.warning(at, format!("{} with neither serial nor UUID nor MAC", machines(n)))
                .hint("whatever answers at such a BMC address is taken for the machine");
        }
        if let Some((at, n)) = self.unwritten {
            let s = if n == 1 { "" } else { "s" };
            book.warning(
                at,
                format!("{n} controller{s} without a serial: read, and never flashed"),
            )
            .hint("give `serial` as its own Redfish shows it, of a system, manager or chassis");
        }
        if let Some((at, n)) = self.unchecked {
            book.warning(at, format!("the BMC's certificate is not checked on {}", machines(n)))
                .hint("`tls = \"ca\"`, or `tls = \"pin\"` for self-signed certificates");
        }
    }
}

/// The endpoint, and whether credential and TLS are left to the file's defaults.
fn bmc(mut t: Table<'_, '_>, at: &mut Places) -> (BmcEndpoint, bool, bool) {
    let mut out = BmcEndpoint::default();
    at.bmc = t.at;
    if let Some(url) = t.need_text("url") {
        at.url = url.at;
        match check_url(url.value) {
            Ok(()) => out.url = url.value.trim_end_matches('/').into(),
            Err(why) => t.error(url.at, why).hint("write one like `https://10.0.0.5`"),
        }
    }
    if let Some(name) = t.text("credential") {
        out.credential = name.value.into();
        at.credential = name.at;
    }
    if let Some(text) = t.text("tls") {
        out.tls = tls(&t, text).unwrap_or_default();
    }
    let wants = (t.lacks("credential"), t.lacks("tls"));
    t.done();
    (out, wants.0, wants.1)
}

/// `ipmi = "address[:port]"`, or `[machine.ipmi]` with more to say.
fn ipmi(t: &mut Table<'_, '_>, at: &mut Places) -> Option<IpmiEndpoint> {
    let value = t.take("ipmi")?;
    if let DeValue::String(_) = value.get_ref() {
        let text = t.as_text("ipmi", value)?;
        return ipmi_address(t, text);
    }
    let mut t = t.as_table("ipmi", value)?;
    let address = t.need_text("address").and_then(|text| ipmi_address(&t, text));
    let port = t.integer("port", 1..65_536).and_then(|n| u16::try_from(n).ok());
    let cipher = t.integer("cipher", 1..18).and_then(|n| u8::try_from(n).ok());
    let credential = t.text("credential").map(|name| {
        at.ipmi_credential = name.at;
        Arc::from(name.value)
    });
    t.done();
    let address = address?;
    Some(IpmiEndpoint { port: port.unwrap_or(address.port), cipher, credential, ..address })
}

/// An address or name, with or without a port.
fn ipmi_address(t: &Table<'_, '_>, text: Text<'_>) -> Option<IpmiEndpoint> {
    let (host, port) = match text.value.parse::<std::net::SocketAddr>() {
        Ok(both) => (both.ip().to_string(), Some(both.port())),
        Err(_) => match text.value.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => (host.to_string(), port.parse().ok()),
            _ => (text.value.trim_matches(['[', ']']).to_string(), Some(IPMI_PORT)),
        },
    };
    let named = !host.is_empty()
        && !host.starts_with('-')
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'));
    match port.filter(|p| *p > 0 && named) {
        Some(port) => Some(IpmiEndpoint { address: host.into(), port, ..IpmiEndpoint::default() }),
        None => {
            t.error(text.at, format!("`{}` is not an IPMI address", text.value))
                .hint("write `10.0.0.5`, or `10.0.0.5:623` for another port");
            None
        }
    }
}

/// RMCP's primary port (IPMI 2.0, 13.1.2).
const IPMI_PORT: u16 = 623;

/// One warning for all, at the first place: there may be thousands.
fn count(slot: &mut Option<(Place, usize)>, at: Place) {
    slot.get_or_insert((at, 0)).1 += 1;
}

fn is_loopback(url: &str) -> bool {
    url.contains("//localhost")
        || crate::config::url::address_of(url).is_some_and(|a| a.is_loopback())
}

/// One part of the identity. A placeholder that boards report would fit many machines.
pub(super) fn part(
    t: &mut Table<'_, '_>,
    key: &'static str,
    at: &mut Place,
    clean: fn(&str) -> Option<String>,
) -> Option<String> {
    let text = t.text(key)?;
    *at = text.at;
    let cleaned = clean(text.value);
    if cleaned.is_none() {
        let form = match key {
            "uuid" => "a UUID has 32 hex digits and is not all 0 or F",
            "mac" => "a MAC is written like `0c:42:a1:00:00:01`",
            _ => "boards report such text when nobody programmed a serial; leave the key out",
        };
        t.error(text.at, format!("`{}` identifies no machine", text.value)).hint(form);
    }
    cleaned
}

pub(super) fn tls(t: &Table<'_, '_>, text: Text<'_>) -> Option<Arc<str>> {
    let pin =
        text.value.strip_prefix("sha256:").map(|hex| hex.replace(':', "").to_ascii_lowercase());
    match pin {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Some(format!("sha256:{hex}").into())
        }
        None if matches!(text.value, "ca" | "pin" | "off") => Some(text.value.into()),
        _ => {
            t.error(text.at, format!("`tls` can't be `{}`", text.value)).hint(
                "`ca`, `pin`, `off`, or `sha256:` with the 64 hex digits of the certificate's digest",
            );
            None
        }
    }
}

fn host(t: &mut Table<'_, '_>, name: &str) -> HostEndpoint {
    let mut host = t.table("host");
    let address = host.as_mut().and_then(|h| h.text("address"));
    let user = host.as_mut().and_then(|h| h.text("user"));
    let key = host.as_mut().and_then(|h| h.text("host_key"));
    if let (Some(h), Some(key)) = (&host, key)
        && !looks_like_key(key.value)
    {
        h.error(key.at, "`host_key` is not an OpenSSH public key")
            .hint("copy the line of /etc/ssh/ssh_host_ed25519_key.pub");
    }
    if let (Some(h), Some(a)) = (&host, address)
        && a.value.contains(['/', '@', ' '])
    {
        h.error(a.at, format!("`{}` is not an address", a.value))
            .hint("write `address` or `address:port`; the user has a key of its own");
    }
    let out = HostEndpoint {
        // A machine without an address is looked up by its name.
        address: address.map_or(name, |a| a.value).into(),
        user: user.map(|u| u.value.into()).unwrap_or_default(),
        host_key: key.map(|k| k.value.trim().into()),
    };
    if let Some(h) = host {
        h.done();
    }
    out
}

pub(super) fn looks_like_key(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let kind = words.next().unwrap_or("");
    let kinds = ["ssh-", "ecdsa-sha2-", "sk-"];
    kinds.iter().any(|k| kind.starts_with(k)) && words.next().is_some_and(|k| k.starts_with("AAAA"))
}

/// The domain of each pool, its name stored once.
#[derive(Default)]
struct PoolDomains(BTreeMap<Arc<str>, Domain>);

impl PoolDomains {
    fn of(&mut self, pool: &Arc<str>) -> Option<Domain> {
        if pool.is_empty() {
            return None;
        }
        let make = || Domain { kind: DomainKind::Pool, name: pool.clone() };
        Some(self.0.entry(pool.clone()).or_insert_with(make).clone())
    }
}

/// All failure domains of a machine, sorted.
fn domains(
    rack: &[Domain],
    pool: Option<Domain>,
    chassis: Option<Arc<str>>,
    nvlink: Option<Arc<str>>,
) -> Vec<Domain> {
    let own = [
        pool,
        chassis.map(|name| Domain { kind: DomainKind::Chassis, name }),
        nvlink.map(|name| Domain { kind: DomainKind::Nvlink, name }),
    ];
    let mut out = Vec::with_capacity(rack.len() + own.iter().flatten().count());
    out.extend_from_slice(rack);
    out.extend(own.into_iter().flatten());
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use crate::config::Source;

    /// Address, port, suite, credential.
    type Ipmi = (String, u16, Option<u8>, Option<String>);

    fn read(line: &str) -> Result<Option<Ipmi>, String> {
        let text = format!(
            "schema = 1\n[[site]]\nname = \"s\"\n[[rack]]\nname = \"r\"\nsite = \"s\"\n\
             [[profile]]\nname = \"p\"\nworkflow = \"w\"\n[[pool]]\nname = \"p\"\nprofile = \"p\"\n\
             [[machine]]\nname = \"n1\"\nrack = \"r\"\npool = \"p\"\nserial = \"S1\"\n{line}\n\
             bmc = {{ url = \"https://10.0.0.1\", credential = \"bmc\" }}\n"
        );
        let (inventory, found) = parse(&[Source::new("i.toml", text)]);
        match found.iter().find(|d| d.is_error()) {
            Some(error) => Err(error.message.clone()),
            None => Ok(inventory.machines[0].bmc.ipmi.as_ref().map(|i| {
                let credential = i.credential.as_ref().map(ToString::to_string);
                (i.address.to_string(), i.port, i.cipher, credential)
            })),
        }
    }

    #[test]
    fn ipmi_is_an_address_or_a_table() {
        let short = |line: &str| read(line).unwrap().map(|(address, port, ..)| (address, port));
        assert_eq!(read(""), Ok(None));
        assert_eq!(short("ipmi = \"10.0.0.5\""), Some(("10.0.0.5".into(), 623)));
        assert_eq!(short("ipmi = \"10.0.0.5:6230\""), Some(("10.0.0.5".into(), 6230)));
        assert_eq!(short("ipmi = \"[fd00::5]:623\""), Some(("fd00::5".into(), 623)));
        assert_eq!(short("ipmi = \"fd00::5\""), Some(("fd00::5".into(), 623)));
        assert_eq!(short("ipmi = \"bmc-1.example\""), Some(("bmc-1.example".into(), 623)));
        assert_eq!(
            read("ipmi = { address = \"10.0.0.5\", port = 624, cipher = 3, credential = \"old\" }"),
            Ok(Some(("10.0.0.5".into(), 624, Some(3), Some("old".into()))))
        );
        for bad in [
            "ipmi = \"-H\"",
            "ipmi = \"10.0.0.5:0\"",
            "ipmi = \"10.0.0.5:x\"",
            "ipmi = \"a b\"",
            "ipmi = \"http://10.0.0.5\"",
            "ipmi = 623",
            "ipmi = { port = 623 }",
            "ipmi = { address = \"10.0.0.5\", cipher = 99 }",
            "ipmi = { address = \"10.0.0.5\", password = \"x\" }",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
