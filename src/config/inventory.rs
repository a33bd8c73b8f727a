//! The inventory: sites, racks, networks, pools, profiles, limits and the machines expected in
//! them. Several files read as one; `[defaults]` counts for the file it stands in.

mod bios;
mod controller;
mod deployment;
mod machine;
mod network;
mod volume;

pub(super) use machine::FACTORY;
pub(super) use network::{PlacedNic, check_leased_nics};

use super::Source;
use super::book::{Book, Place};
use super::diagnostic::Diagnostic;
use super::names::{dangling, unique};
use super::table::{Table, Text};
use super::url::Subnet;
use crate::model::deploy::{BootMethod, RootDisk};
use crate::model::network::Lan;
use crate::model::storage::BootVolume;
use crate::model::{Domain, DomainKind, Expected, Limit, LimitClass};
use crate::steps::settings::Settings;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

/// Limits that hold when the inventory gives none: careful enough for a first day.
pub const DEFAULT_LIMITS: [Limit; 6] = [
    // Inrush current and cooling: four machines of a rack change power at once.
    Limit { class: LimitClass::Power, per: DomainKind::Rack, max: 4 },
    // A bad image shows on four machines of a rack before it reaches the rest.
    Limit { class: LimitClass::Flash, per: DomainKind::Rack, max: 4 },
    Limit { class: LimitClass::Flash, per: DomainKind::Site, max: 64 },
    Limit { class: LimitClass::Provision, per: DomainKind::Rack, max: 8 },
    Limit { class: LimitClass::Drain, per: DomainKind::Pool, max: 4 },
    // Burn-in draws full power.
    Limit { class: LimitClass::BurnIn, per: DomainKind::Power, max: 16 },
];

/// On large sites the site's limit on updates grows with them: one machine of so many. A whole site
/// then takes ten rounds, and the first one shows what an image does.
const FLASH_SHARE: usize = 10;

/// [`DEFAULT_LIMITS`] for an inventory whose largest site has `machines`.
pub fn default_limits(machines: usize) -> Vec<Limit> {
    let share = u32::try_from(machines / FLASH_SHARE).unwrap_or(u32::MAX);
    let mut limits = DEFAULT_LIMITS.to_vec();
    for limit in &mut limits {
        if limit.class == LimitClass::Flash && limit.per == DomainKind::Site {
            limit.max = limit.max.max(share);
        }
    }
    limits
}

/// What all inventory files together say.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    pub sites: Vec<Arc<str>>,
    /// By name.
    pub racks: BTreeMap<Arc<str>, Rack>,
    pub networks: Vec<Network>,
    /// By name.
    pub pools: BTreeMap<Arc<str>, Pool>,
    /// By name.
    pub profiles: BTreeMap<Arc<str>, ProfileRef>,
    /// The files' own, else [`DEFAULT_LIMITS`].
    pub limits: Vec<Limit>,
    /// In file order.
    pub machines: Vec<Arc<Expected>>,
    pub(super) credentials: BTreeMap<Arc<str>, Place>,
    /// Files with a syntax error among these sources.
    pub(super) broken: bool,
}

/// A rack with its failure domains: its site, and what its machines share.
#[derive(Clone, Debug, Default)]
pub struct Rack {
    /// Sorted.
    pub domains: Vec<Domain>,
}

/// Whom a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    Bmc,
    Provision,
    Data,
}

#[derive(Clone, Debug)]
pub struct Network {
    pub name: String,
    pub purpose: Purpose,
    pub subnet: Subnet,
    /// The same for its machines: gateway, range, names.
    pub lan: Arc<Lan>,
    /// Its range, else its subnet.
    pub(super) range_at: Place,
}

/// Machines that are handled alike.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Profile of its machines, as [`Expected::profile`] says it.
    pub profile: Arc<str>,
    /// How BMCs of its machines prove themselves where the machine does not say: `ca`, `pin`, `off`.
    pub tls: Option<Arc<str>>,
}

/// A profile with names instead of hashes: what [`crate::steps::site::Profile`] is made from.
#[derive(Clone, Debug)]
pub struct ProfileRef {
    pub workflow: String,
    pub firmware_set: Option<String>,
    pub image: Option<String>,
    pub gpus: u16,
    pub cluster: Option<String>,
    pub root_disk: Option<RootDisk>,
    pub trust_installer: bool,
    pub boot: Vec<BootMethod>,
    pub bios: Settings,
    pub boot_volume: Option<BootVolume>,
    pub authorized_keys: Vec<String>,
    /// Interfaces of the installed system.
    pub(super) nics: Vec<PlacedNic>,
    pub(super) at: ProfilePlaces,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProfilePlaces {
    pub(super) header: Place,
    pub(super) workflow: Place,
    pub(super) firmware_set: Place,
    pub(super) cluster: Place,
    /// Of what is asked of the BIOS, the first.
    pub(super) bios: Place,
    pub(super) boot_volume: Place,
}

impl Inventory {
    /// The network of an address; the most specific would be the only one, as they don't overlap.
    pub fn network_of(&self, address: IpAddr) -> Option<&Network> {
        self.networks.iter().find(|n| n.subnet.contains(address))
    }
}

/// Reads all inventory files. What is said twice or refers to nothing inside them is found here;
/// what refers to other files is found by [`super::load`].
pub fn parse(sources: &[Source]) -> (Inventory, Vec<Diagnostic>) {
    let book = Book::new(sources.iter().collect());
    let inventory = read(&book, 0..sources.len());
    (inventory, book.finish())
}

/// What is read of the files before names can be resolved.
#[derive(Default)]
struct Draft {
    inv: Inventory,
    /// Kind → name → first place.
    seen: BTreeMap<&'static str, BTreeMap<String, Place>>,
    rack_sites: Vec<(String, Place)>,
    pools: BTreeMap<String, RawPool>,
    limits: Vec<(Limit, Place)>,
    subnets: Vec<Place>,
    machines: machine::Machines,
}

/// A pool as written, before profiles are known.
struct RawPool {
    profile: Option<(String, Place)>,
    cluster: Option<(String, Place)>,
    tls: Option<Arc<str>>,
}

pub(super) fn read(book: &Book<'_>, files: Range<usize>) -> Inventory {
    let mut draft = Draft::default();
    for file in files.clone() {
        book.read_in_pieces(file, "[[machine]]", |top| draft.read(top));
        draft.machines.end_of_file(book);
    }
    let Draft { mut inv, rack_sites, pools, limits, machines, .. } = draft;
    inv.broken = book.any_broken(files);
    for (site, at) in rack_sites {
        if !inv.broken && !inv.sites.iter().any(|s| **s == *site) {
            dangling(book, at, "site", &site, inv.sites.iter().map(|s| &**s));
        }
    }
    resolve_pools(book, &mut inv, pools);
    machines.resolve(book, &mut inv);
    network::check_relays(book, &inv);
    network::check_hosts(book, &inv);
    network::check_nics(book, &inv);
    inv.limits = match limits.is_empty() {
        true => default_limits(largest_site(&inv)),
        false => unique_limits(book, limits),
    };
    inv
}

impl Draft {
    fn named(&mut self, t: &mut Table<'_, '_>, what: &'static str) -> Option<String> {
        let name = t.need_name("name")?;
        unique(t, self.seen.entry(what).or_default(), name, what);
        Some(name.value.to_string())
    }

    fn read(&mut self, mut top: Table<'_, '_>) {
        top.schema();
        for mut t in top.tables("site") {
            let name = self.named(&mut t, "site");
            self.inv.sites.extend(name.map(|n| Arc::from(n.as_str())));
            t.done();
        }
        for mut t in top.tables("rack") {
            let name = self.named(&mut t, "rack");
            let rack = rack(&mut t, name.as_deref(), &mut self.rack_sites);
            if let Some(name) = name {
                self.inv.racks.entry(name.into()).or_insert(rack);
            }
            t.done();
        }
        for mut t in top.tables("network") {
            self.network(&mut t);
            t.done();
        }
        for mut t in top.tables("pool") {
            let name = self.named(&mut t, "pool");
            let owned = |t: Option<Text<'_>>| t.map(|t| (t.value.to_string(), t.at));
            let profile = owned(t.need_text("profile"));
            let cluster = owned(t.text("cluster"));
            let tls = t.text("tls").and_then(|text| pool_tls(&t, text));
            if let Some(name) = name {
                self.pools.entry(name).or_insert(RawPool { profile, cluster, tls });
            }
            t.done();
        }
        for mut t in top.tables("profile") {
            let name = self.named(&mut t, "profile");
            let profile = profile(&mut t);
            if let Some(name) = name {
                self.inv.profiles.entry(name.into()).or_insert(profile);
            }
            t.done();
        }
        for mut t in top.tables("limit") {
            self.limits.extend(limit(&mut t));
            t.done();
        }
        self.machines.read(&mut top);
        top.done();
    }

    fn network(&mut self, t: &mut Table<'_, '_>) {
        let name = self.named(t, "network");
        let Some((network, at)) = network::network(t, name) else { return };
        let known = self.inv.networks.iter().zip(&self.subnets);
        if let Some((other, other_at)) =
            known.into_iter().find(|(n, _)| n.subnet.overlaps(&network.subnet))
        {
            t.error(at, format!("the subnet overlaps network `{}`", other.name))
                .hint(format!("that one is at {}", t.book.where_is(*other_at)));
        }
        self.inv.networks.push(network);
        self.subnets.push(at);
    }
}

/// One certificate is one machine's: a pool names none.
fn pool_tls(t: &Table<'_, '_>, text: Text<'_>) -> Option<Arc<str>> {
    let found = machine::tls(t, text)?;
    if found.starts_with("sha256:") {
        t.error(text.at, "the machines of a pool don't share a certificate")
            .hint("`tls = \"pin\"`, then `farrier bmc pin`; or `ca`, `off`");
        return None;
    }
    Some(found)
}

fn rack(t: &mut Table<'_, '_>, name: Option<&str>, sites: &mut Vec<(String, Place)>) -> Rack {
    let mut domains = Vec::new();
    let mut add = |kind, name: &str| domains.push(Domain { kind, name: name.into() });
    if let Some(name) = name {
        add(DomainKind::Rack, name);
    }
    if let Some(site) = t.need_text("site") {
        add(DomainKind::Site, site.value);
        sites.push((site.value.to_string(), site.at));
    }
    // A rack on two feeds is in both domains.
    for feed in t.texts("power") {
        add(DomainKind::Power, feed.value);
    }
    for (key, kind) in [("switch", DomainKind::Switch), ("cooling", DomainKind::Cooling)] {
        for name in t.texts(key) {
            add(kind, name.value);
        }
    }
    domains.sort();
    domains.dedup();
    Rack { domains }
}

fn profile(t: &mut Table<'_, '_>) -> ProfileRef {
    let mut at = ProfilePlaces { header: t.at, ..ProfilePlaces::default() };
    let word = |text: Option<Text<'_>>, place: &mut Place| {
        text.map(|text| {
            *place = text.at;
            text.value.to_string()
        })
    };
    let workflow = word(t.need_text("workflow"), &mut at.workflow).unwrap_or_default();
    let firmware_set = word(t.text("firmware_set"), &mut at.firmware_set);
    let cluster = word(t.text("cluster"), &mut at.cluster);
    let image = t.text("image").map(|i| i.value.to_string());
    let gpus = t.integer("gpus", 0..1025).and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
    let root_disk = t.table("root_disk").map(deployment::root_disk);
    let boot_volume =
        volume::boot_volume(t, &mut at.boot_volume, root_disk.as_ref(), image.is_some());
    let trust_installer = deployment::trust_installer(t, root_disk.is_some());
    let boot = deployment::boot_methods(t);
    let bios = bios::settings(t, &mut at.bios);
    let authorized_keys = deployment::authorized_keys(t);
    let nics = network::nics(t);
    ProfileRef {
        workflow,
        firmware_set,
        image,
        gpus,
        cluster,
        root_disk,
        trust_installer,
        boot,
        bios,
        boot_volume,
        authorized_keys,
        nics,
        at,
    }
}

fn limit(t: &mut Table<'_, '_>) -> Option<(Limit, Place)> {
    let class = t.need_choice("class", &LimitClass::ALL.map(|c| (c.name(), c)));
    let per = t.need_choice("per", &DomainKind::ALL.map(|d| (d.name(), d)));
    if t.lacks("max") {
        t.missing("max");
    }
    // 0 would stop such work for ever; a hold or `farrier stop` says that better.
    let max = t.integer("max", 1..1_000_001).and_then(|n| u32::try_from(n).ok());
    Some((Limit { class: class?, per: per?, max: max? }, t.at))
}

fn largest_site(inv: &Inventory) -> usize {
    let mut machines: BTreeMap<&str, usize> = BTreeMap::new();
    for site in inv.machines.iter().filter_map(|m| m.domain(DomainKind::Site)) {
        *machines.entry(site).or_default() += 1;
    }
    machines.into_values().max().unwrap_or(0)
}

fn unique_limits(book: &Book<'_>, limits: Vec<(Limit, Place)>) -> Vec<Limit> {
    let mut first: BTreeMap<(LimitClass, DomainKind), Place> = BTreeMap::new();
    let mut out = Vec::new();
    for (limit, at) in limits {
        if let Some(other) = first.get(&(limit.class, limit.per)) {
            book.error(
                at,
                format!("the limit on `{}` per `{}` is there twice", limit.class, limit.per.name()),
            )
            .hint(format!("the other one is at {}", book.where_is(*other)));
        } else {
            first.insert((limit.class, limit.per), at);
            out.push(limit);
        }
    }
    out
}

/// Pools get their profile; one that names a cluster of its own gets a profile of its own.
fn resolve_pools(book: &Book<'_>, inv: &mut Inventory, pools: BTreeMap<String, RawPool>) {
    for (name, raw) in pools {
        let mut profile: Arc<str> = Arc::from("");
        if let Some((wanted, at)) = raw.profile {
            match inv.profiles.get_key_value(wanted.as_str()) {
                Some((known, base)) => {
                    profile = known.clone();
                    if let Some((cluster, at)) = raw.cluster
                        && base.cluster.as_deref() != Some(&cluster)
                    {
                        let mut own = base.clone();
                        // `@` is not allowed in names, so this one is free.
                        profile = format!("{known}@{cluster}").into();
                        own.cluster = Some(cluster);
                        own.at.cluster = at;
                        inv.profiles.entry(profile.clone()).or_insert(own);
                    }
                }
                None if inv.broken => {}
                None => {
                    dangling(book, at, "profile", &wanted, inv.profiles.keys().map(|k| &**k));
                }
            }
        }
        inv.pools.insert(name.into(), Pool { profile, tls: raw.tls });
    }
}
