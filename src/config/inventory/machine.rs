//! `[[machine]]`: ten thousand of them are usual, so names that they share are stored once.

use super::Inventory;
use crate::config::names::dangling;
use crate::config::table::{Book, Place, Table, Text};
use crate::config::url::check_url;
use crate::model::identity::{clean_mac, clean_serial, clean_uuid};
use crate::model::{BmcEndpoint, Domain, DomainKind, Expected, HostEndpoint, Identity};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Machines as read, until racks and pools of all files are known.
#[derive(Default)]
pub(super) struct Machines {
    drafts: Vec<Draft>,
    /// Names that machines share, each stored once.
    shared: BTreeMap<Arc<str>, ()>,
    plain: Option<(Place, usize)>,
    unproven: Option<(Place, usize)>,
}

struct Draft {
    expected: Expected,
    chassis: Option<Arc<str>>,
    nvlink: Option<Arc<str>>,
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
    url: Place,
    credential: Place,
}

/// `[defaults]` of a file.
#[derive(Default)]
struct Defaults {
    credential: Option<(Arc<str>, Place)>,
    tls: Option<String>,
    user: Option<String>,
}

impl Machines {
    pub(super) fn read(&mut self, top: &mut Table<'_, '_>) {
        let mut defaults = Defaults::default();
        if let Some(mut t) = top.table("defaults") {
            defaults.credential = t.text("credential").map(|c| (self.share(c.value), c.at));
            defaults.tls = t.text("tls").and_then(|text| tls(&t, text));
            defaults.user = t.text("user").map(|u| u.value.to_string());
            t.done();
        }
        let tables = top.tables("machine");
        self.drafts.reserve(tables.len());
        for mut t in tables {
            let draft = self.draft(&mut t, &defaults);
            t.done();
            self.drafts.push(draft);
        }
    }

    fn share(&mut self, name: &str) -> Arc<str> {
        if let Some((shared, ())) = self.shared.get_key_value(name) {
            return shared.clone();
        }
        let shared: Arc<str> = name.into();
        self.shared.insert(shared.clone(), ());
        shared
    }

    fn draft(&mut self, t: &mut Table<'_, '_>, defaults: &Defaults) -> Draft {
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
            serial: part(t, "serial", &mut at.serial, clean_serial),
            uuid: part(t, "uuid", &mut at.uuid, clean_uuid),
            mac: part(t, "mac", &mut at.mac, clean_mac),
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
        let bmc = self.bmc(t, defaults, &mut at);
        let host = host(t, defaults, &name);
        let expected = Expected {
            name,
            identity,
            rack,
            position: position.unwrap_or(0),
            pool,
            profile: Arc::from(""),
            domains: Vec::new(),
            labels,
            bmc,
            host,
        };
        Draft { expected, chassis, nvlink, at }
    }

    fn bmc(&mut self, t: &mut Table<'_, '_>, defaults: &Defaults, at: &mut Places) -> BmcEndpoint {
        let mut out = BmcEndpoint::default();
        let Some(mut bmc) = t.table("bmc") else {
            if t.lacks("bmc") {
                t.missing("bmc");
            }
            return out;
        };
        if let Some(url) = bmc.need_text("url") {
            at.url = url.at;
            match check_url(url.value) {
                Ok(()) => out.url = url.value.trim_end_matches('/').to_string(),
                Err(why) => bmc.error(url.at, why).hint("write one like `https://10.0.0.5`"),
            }
        }
        match (bmc.text("credential"), &defaults.credential) {
            (Some(own), _) => {
                out.credential = own.value.to_string();
                at.credential = own.at;
            }
            (None, Some((name, place))) => {
                out.credential = name.to_string();
                at.credential = *place;
            }
            (None, None) if bmc.lacks("credential") => {
                bmc.missing("credential");
            }
            (None, None) => {}
        }
        let own = bmc.text("tls");
        let plain = out.url.starts_with("http://");
        out.tls = match own {
            Some(text) => tls(&bmc, text).unwrap_or_default(),
            None if plain => "off".to_string(),
            None => defaults.tls.clone().unwrap_or_else(|| "ca".to_string()),
        };
        if out.tls == "off" && !is_loopback(&out.url) {
            count(&mut self.plain, at.url);
        }
        bmc.done();
        out
    }

    /// Puts machines into their racks and pools, and notes what is there twice.
    pub(super) fn resolve(self, book: &Book<'_>, inv: &mut Inventory) {
        let mut twice = Twice::default();
        let mut domains = DomainCache::default();
        inv.machines.reserve(self.drafts.len());
        let mut made: Vec<(Place, Option<Arc<str>>)> = Vec::new();
        for draft in self.drafts {
            let Draft { mut expected, chassis, nvlink, at } = draft;
            twice.check(book, &expected, chassis.as_deref(), &at, &made);
            made.push((at.header, chassis.clone()));
            let rack = inv.racks.get_key_value(&*expected.rack);
            if let Some((name, _)) = rack {
                expected.rack = name.clone();
            } else if !inv.broken && !expected.rack.is_empty() {
                dangling(book, at.rack, "rack", &expected.rack, inv.racks.keys().map(|k| &**k));
            }
            if let Some((name, pool)) = inv.pools.get_key_value(&*expected.pool) {
                expected.pool = name.clone();
                expected.profile = pool.profile.clone();
            } else if !inv.broken && !expected.pool.is_empty() {
                dangling(book, at.pool, "pool", &expected.pool, inv.pools.keys().map(|k| &**k));
            }
            expected.domains =
                domains.of(rack.map(|(_, r)| &*r.domains), &expected, chassis, nvlink);
            if !expected.bmc.credential.is_empty() {
                let shared = self.shared.get_key_value(expected.bmc.credential.as_str());
                let name =
                    shared.map_or_else(|| expected.bmc.credential.as_str().into(), |s| s.0.clone());
                inv.credentials.entry(name).or_insert(at.credential);
            }
            inv.machines.push(Arc::new(expected));
        }
        let machines =
            |n: usize| if n == 1 { "1 machine".to_string() } else { format!("{n} machines") };
        if let Some((at, n)) = self.unproven {
            book.warning(at, format!("{} with neither serial nor UUID nor MAC", machines(n)))
                .hint("whatever answers at such a BMC address is taken for the machine");
        }
        if let Some((at, n)) = self.plain {
            book.warning(at, format!("the BMC's certificate is not checked on {}", machines(n)))
                .hint("`tls = \"ca\"`, or `tls = \"sha256:…\"` for a self-signed certificate");
        }
    }
}

/// One warning for all, at the first place: there may be thousands.
fn count(slot: &mut Option<(Place, usize)>, at: Place) {
    slot.get_or_insert((at, 0)).1 += 1;
}

fn is_loopback(url: &str) -> bool {
    url.contains("//localhost")
        || crate::config::url::address_of(url).is_some_and(|a| a.is_loopback())
}

/// One part of the identity. A placeholder that boards report would fit many machines.
fn part(
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

fn tls(t: &Table<'_, '_>, text: Text<'_>) -> Option<String> {
    let pin =
        text.value.strip_prefix("sha256:").map(|hex| hex.replace(':', "").to_ascii_lowercase());
    match pin {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Some(format!("sha256:{hex}"))
        }
        None if matches!(text.value, "ca" | "off") => Some(text.value.to_string()),
        _ => {
            t.error(text.at, format!("`tls` can't be `{}`", text.value)).hint(
                "`ca`, `off`, or `sha256:` with the 64 hex digits of the certificate's digest",
            );
            None
        }
    }
}

fn host(t: &mut Table<'_, '_>, defaults: &Defaults, name: &str) -> HostEndpoint {
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
        address: address.map_or(name, |a| a.value).to_string(),
        user: user
            .map(|u| u.value.to_string())
            .or_else(|| defaults.user.clone())
            .unwrap_or_default(),
        host_key: key.map(|k| k.value.trim().to_string()),
    };
    if let Some(h) = host {
        h.done();
    }
    out
}

fn looks_like_key(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let kind = words.next().unwrap_or("");
    let kinds = ["ssh-", "ecdsa-sha2-", "sk-"];
    kinds.iter().any(|k| kind.starts_with(k)) && words.next().is_some_and(|k| k.starts_with("AAAA"))
}

/// Domain lists are the same for all machines of a rack and pool: their names are shared.
#[derive(Default)]
struct DomainCache {
    pools: BTreeMap<Arc<str>, Domain>,
}

impl DomainCache {
    fn of(
        &mut self,
        rack: Option<&[Domain]>,
        m: &Expected,
        chassis: Option<Arc<str>>,
        nvlink: Option<Arc<str>>,
    ) -> Vec<Domain> {
        let rack = rack.unwrap_or_default();
        let extra = usize::from(chassis.is_some()) + usize::from(nvlink.is_some());
        let mut out = Vec::with_capacity(rack.len() + 1 + extra);
        out.extend_from_slice(rack);
        if !m.pool.is_empty() {
            let make = || Domain { kind: DomainKind::Pool, name: m.pool.clone() };
            out.push(self.pools.entry(m.pool.clone()).or_insert_with(make).clone());
        }
        out.extend(chassis.map(|name| Domain { kind: DomainKind::Chassis, name }));
        out.extend(nvlink.map(|name| Domain { kind: DomainKind::Nvlink, name }));
        out.sort();
        out
    }
}

/// What must be one machine's alone.
#[derive(Default)]
struct Twice {
    /// Kind of key and value → the machine that has it.
    seen: [BTreeMap<String, usize>; 5],
}

impl Twice {
    fn check(
        &mut self,
        book: &Book<'_>,
        m: &Expected,
        chassis: Option<&str>,
        at: &Places,
        made: &[(Place, Option<Arc<str>>)],
    ) {
        let id = &m.identity;
        let url = m.bmc.url.to_ascii_lowercase();
        let uuid = id.uuid.as_deref().map(either_order);
        let keys: [(&str, Option<&str>, Place); 5] = [
            ("name", Some(&*m.name), at.name),
            ("serial", id.serial.as_deref(), at.serial),
            ("UUID", uuid.as_deref(), at.uuid),
            ("MAC", id.mac.as_deref(), at.mac),
            ("BMC URL", Some(&url), at.url),
        ];
        for (slot, (what, value, place)) in self.seen.iter_mut().zip(keys) {
            let Some(value) = value.filter(|v| !v.is_empty()) else { continue };
            let Some(first) = slot.get(value) else {
                slot.insert(value.to_string(), made.len());
                continue;
            };
            let Some((header, other)) = made.get(*first) else { continue };
            // Nodes of one chassis may stand behind one BMC, as several systems of it.
            if what == "BMC URL" && chassis.is_some() && chassis == other.as_deref() {
                continue;
            }
            book.error(place, format!("two machines have the {what} `{value}`"))
                .hint(format!("the other one is at {}", book.where_is(*header)));
        }
    }
}

/// One form for both byte orders of a UUID: boards disagree about the first three fields.
fn either_order(uuid: &str) -> String {
    let swapped: Option<String> = (|| {
        let field = |r: std::ops::Range<usize>| {
            let text = uuid.get(r)?;
            let pairs: Option<Vec<&str>> =
                (0..text.len() / 2).rev().map(|i| text.get(i * 2..i * 2 + 2)).collect();
            Some(pairs?.concat())
        };
        Some(format!("{}-{}-{}{}", field(0..8)?, field(9..13)?, field(14..18)?, uuid.get(18..)?))
    })();
    match swapped {
        Some(s) if s.as_str() < uuid => s,
        _ => uuid.to_string(),
    }
}
