//! All files against each other, and what comes out: the one way in for `app`, `farrier check` and
//! a reload.

use super::book::{Book, Place};
use super::daemon::{self, Daemon, Listener};
use super::diagnostic::Diagnostic;
use super::inventory::{self, Inventory, Network, Purpose};
use super::names::dangling;
use super::{Source, catalog, netboot, quirks, remediation, shipped, template, url, workflow};
use crate::model::network::Nic;
use crate::model::quirks::QuirkTable;
use crate::model::template::Recipes;
use crate::model::{Expected, Stage};
use crate::steps::catalog::{Catalog, SetStatus};
use crate::steps::remediation::Remediation;
use crate::steps::site::{Profile, Site};
use crate::steps::workflow::Workflow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The text of every file of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `farrier.toml`.
    pub daemon: Source,
    pub inventory: Vec<Source>,
    pub workflows: Vec<Source>,
    /// `remediation.toml`; none = the one that ships with Farrier.
    pub remediation: Option<Source>,
    /// The site's `bmc-quirks.toml`; the one that ships comes after it in any case.
    pub quirks: Option<Source>,
    pub catalog: Vec<Source>,
    /// The catalog's directory, as the paths of `catalog` start with it.
    pub catalog_root: String,
    /// `image.toml` of images that are booted by a recipe, with their ids.
    pub recipes: Vec<(String, Source)>,
    /// The operator's templates, and their directory as the paths start with it.
    pub templates: Vec<Source>,
    pub templates_root: String,
}

/// A configuration without an error in it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub daemon: Daemon,
    /// `incarnation` is left empty: the database knows it.
    pub site: Site,
    /// In file order.
    pub expected: Vec<Arc<Expected>>,
    pub networks: Vec<Network>,
    /// Interfaces of the installed system, by profile; those without have none.
    pub nics: BTreeMap<Arc<str>, Arc<[Nic]>>,
    /// The site's quirks of BMCs, then the shipped ones.
    pub quirks: Arc<QuirkTable>,
    /// The operator's templates, and images that are booted by a recipe.
    pub recipes: Recipes,
    /// Findings that do not stop anything.
    pub warnings: Vec<Diagnostic>,
}

impl Loaded {
    /// The URL under which somebody at `address` reaches a listener: that of the address's own
    /// network, else of the only network with that purpose, else the listener's one for all.
    pub fn advertised<'a>(
        &self,
        listener: &'a Listener,
        address: Option<IpAddr>,
        purpose: Purpose,
    ) -> Option<&'a str> {
        let own = address.and_then(|a| self.networks.iter().find(|n| n.subnet.contains(a)));
        let mut same = self.networks.iter().filter(|n| n.purpose == purpose);
        let only = same.next().filter(|_| same.next().is_none());
        listener.advertise.url(own.or(only).map(|n| n.name.as_str()))
    }

    /// The address in a BMC's URL or a host's address, where it is one and not a name.
    pub fn address_of(endpoint: &str) -> Option<IpAddr> {
        url::address_of(endpoint)
    }
}

/// Reads and checks everything. `file_exists` is asked for firmware images, relative to the
/// catalog's directory.
///
/// # Errors
/// Every finding of all files, when at least one of them is an error.
pub fn load(
    sources: &Sources,
    file_exists: &dyn Fn(&str) -> bool,
) -> Result<Loaded, Vec<Diagnostic>> {
    let mut files = vec![&sources.daemon];
    files.extend(&sources.inventory);
    let inventory_files = 1..files.len();
    files.extend(&sources.workflows);
    let workflow_files = inventory_files.end..files.len();
    files.extend(&sources.catalog);
    let catalog_files = workflow_files.end..files.len();
    let shipped = shipped::remediation();
    files.push(sources.remediation.as_ref().unwrap_or(&shipped));
    let remediation_file = catalog_files.end;
    files.extend(&sources.quirks);
    let recipe_files = files.len()..files.len() + sources.recipes.len();
    files.extend(sources.recipes.iter().map(|(_, source)| source));
    let template_files = recipe_files.end..recipe_files.end + sources.templates.len();
    files.extend(&sources.templates);
    let book = Book::new(files);

    let daemon = daemon::read(&book, 0);
    let mut inventory = inventory::read(&book, inventory_files);
    let workflows = workflow::read(&book, workflow_files.clone());
    let catalog = catalog::read(&book, catalog_files.clone(), &sources.catalog_root, file_exists);

    let remediation = remediation::read(&book, remediation_file);
    let site_quirks = sources.quirks.as_ref().map(|_| quirks::read(&book, remediation_file + 1));

    let known = Known {
        book: &book,
        daemon: (!book.any_broken(0..1)).then_some(&daemon),
        workflows: &workflows,
        workflows_broken: book.any_broken(workflow_files),
        catalog: &catalog,
        catalog_broken: book.any_broken(catalog_files),
    };
    known.check_profiles(&inventory);
    known.check_credentials(&inventory);
    known.check_networks(&inventory);
    known.check_dhcp(&inventory);
    known.check_pools(&inventory);
    known.check_nics(&inventory);

    let ids = sources.recipes.iter().map(|(id, _)| id.as_str());
    let images = template::recipes(&book, recipe_files.zip(ids));
    let templates =
        template::templates(&book, template_files, &sources.templates_root, &inventory, &images);
    let recipes = template::complete(&book, templates, images);

    fill_users(&mut inventory, &daemon.ssh.user);
    let nics = inventory.profiles.iter().filter(|(_, p)| !p.nics.is_empty());
    let nics = nics.map(|(name, p)| (name.clone(), p.nics.iter().map(|n| n.nic.clone()).collect()));
    let nics = nics.collect();
    let site = Site { remediation, ..site(&daemon, &inventory, &workflows, catalog) };
    let found = book.finish();
    if found.iter().any(Diagnostic::is_error) {
        return Err(found);
    }
    Ok(Loaded {
        daemon,
        site,
        expected: inventory.machines,
        networks: inventory.networks,
        nics,
        quirks: Arc::new(quirks::over(site_quirks.unwrap_or_default(), quirks::shipped())),
        recipes,
        warnings: found,
    })
}

struct Known<'k, 'a> {
    book: &'k Book<'a>,
    /// `None` when it could not be read: what it may define is not missing.
    daemon: Option<&'k Daemon>,
    workflows: &'k [workflow::Placed],
    workflows_broken: bool,
    catalog: &'k Catalog,
    catalog_broken: bool,
}

impl Known<'_, '_> {
    /// DHCP answers on the ground of boot windows and of networks.
    fn check_dhcp(&self, inventory: &Inventory) {
        let Some((daemon, at)) = self.daemon.and_then(|d| Some((d, d.places.dhcp?))) else {
            return;
        };
        let Some(dhcp) = &daemon.dhcp else { return };
        if !daemon.places.has_boot {
            self.book
                .error(at, "DHCP would send machines to a boot server that is not there")
                .hint("add `[listen.boot]` to farrier.toml, or `mode = \"off\"`");
        }
        let is_served = |n: &&Network| n.purpose != Purpose::Bmc && netboot::is_v4(&n.subnet);
        let none = !inventory.networks.iter().any(|n| is_served(&n));
        if none && !inventory.broken {
            self.book
                .error(at, "no network of the inventory is one in which DHCP could answer")
                .hint("add a `[[network]]` with `purpose = \"provision\"` and an IPv4 subnet");
        }
        let own = |n: &Network| {
            let inside = |m: &Arc<Expected>| {
                url::address_of(&m.host.address).is_some_and(|a| n.subnet.contains(a))
            };
            n.lan.range.is_some() || inventory.machines.iter().any(inside)
        };
        if dhcp.mode == netboot::DhcpMode::Reservation
            && let Some(first) = inventory.networks.iter().find(is_served)
            && !inventory.networks.iter().filter(is_served).any(own)
        {
            self.book
                .warning(
                    at,
                    format!(
                        "no machine has an address in network `{}`, and it has no `range`",
                        first.name
                    ),
                )
                .hint("add `range = \"first-last\"` to the network, or `host.address` to machines");
        }
    }

    /// Who gives addresses to static interfaces.
    fn check_nics(&self, inventory: &Inventory) {
        let Some(daemon) = self.daemon.filter(|_| !inventory.broken) else { return };
        let reserves = |d: &netboot::Dhcp| d.mode == netboot::DhcpMode::Reservation;
        let gives = daemon.dhcp.as_ref().is_some_and(reserves);
        inventory::check_leased_nics(self.book, inventory, gives);
    }

    fn check_profiles(&self, inventory: &Inventory) {
        let mut clusters_seen: BTreeSet<Place> = BTreeSet::new();
        for (name, profile) in &inventory.profiles {
            // Made from a pool's own cluster: the rest was looked at with its base.
            let derived = name.contains('@');
            let workflow = self.workflow(&profile.workflow);
            if !derived {
                if workflow.is_none() && !profile.workflow.is_empty() && !self.workflows_broken {
                    let known = self.workflows.iter().map(|w| &*w.workflow.name);
                    dangling(self.book, profile.at.workflow, "workflow", &profile.workflow, known);
                }
                self.check_needs(
                    name,
                    profile,
                    workflow.filter(|w| w.complete).map(|w| &*w.workflow),
                );
            }
            if let (Some(cluster), Some(daemon)) = (&profile.cluster, self.daemon)
                && !daemon.clusters.contains_key(cluster)
                && clusters_seen.insert(profile.at.cluster)
            {
                let known = daemon.clusters.keys().map(String::as_str);
                dangling(self.book, profile.at.cluster, "cluster", cluster, known);
            }
        }
    }

    fn workflow(&self, name: &str) -> Option<&workflow::Placed> {
        self.workflows.iter().find(|w| *w.workflow.name == *name)
    }

    /// What the workflow's steps need from the profile and the daemon.
    fn check_needs(
        &self,
        name: &str,
        profile: &inventory::ProfileRef,
        workflow: Option<&Workflow>,
    ) {
        let has =
            |kind: &str| workflow.is_some_and(|w| w.steps.iter().any(|s| s.step.kind() == kind));
        let header = profile.at.header;
        if let Some(set) = &profile.firmware_set {
            self.check_set(set, profile.at.firmware_set);
            if workflow.is_some() && !has("firmware") {
                self.book.warning(
                    profile.at.firmware_set,
                    format!("workflow `{}` has no step that installs it", profile.workflow),
                );
            }
            if has("firmware") && self.daemon.is_some_and(|d| !d.places.has_images) {
                self.book
                    .error(profile.at.firmware_set, "nothing serves firmware images to BMCs")
                    .hint("add `[listen.images]` to farrier.toml, or drop `firmware_set`");
            }
        }
        if !profile.bios.asks_nothing() && workflow.is_some() && !has("bios") {
            self.book
                .warning(
                    profile.at.bios,
                    format!("workflow `{}` has no step that sets the BIOS", profile.workflow),
                )
                .hint("add a step of kind `bios` to it, behind the firmware's");
        }
        if profile.boot_volume.is_some() && workflow.is_some() && !has("volume") {
            self.book
                .error(
                    profile.at.boot_volume,
                    format!("workflow `{}` has no step that makes it", profile.workflow),
                )
                .hint("add a step of kind `volume` to it, before the `provision` step");
        }
        match (&profile.image, has("provision")) {
            (None, true) => {
                self.book
                    .error(
                        header,
                        format!(
                            "profile `{name}` names no `image`, and workflow `{}` provisions",
                            profile.workflow
                        ),
                    )
                    .hint("add `image`, or use a workflow without a `provision` step");
            }
            (Some(_), true) if self.daemon.is_some_and(|d| !d.places.has_boot) => {
                self.book
                    .error(header, format!("nothing serves hosts of profile `{name}` that boot"))
                    .hint("add `[listen.boot]` to farrier.toml");
            }
            (Some(image), false) if workflow.is_some() => {
                self.book.warning(
                    header,
                    format!(
                        "workflow `{}` has no step that installs image `{image}`",
                        profile.workflow
                    ),
                );
            }
            _ => {}
        }
        let joins = workflow.is_some_and(|w| w.of_stage(Stage::Join).next().is_some());
        if profile.cluster.is_some() && workflow.is_some() && !joins {
            self.book.warning(
                profile.at.cluster,
                format!("workflow `{}` has no step that joins it", profile.workflow),
            );
        }
        let looked_at = has("inventory") || has("burn-in");
        if profile.gpus > 0 && workflow.is_some() && !looked_at {
            self.book.warning(
                header,
                format!(
                    "no step of workflow `{}` looks at the {} GPUs",
                    profile.workflow, profile.gpus
                ),
            );
        }
    }

    fn check_set(&self, set: &str, at: Place) {
        if self.catalog_broken {
            return;
        }
        let found: Vec<SetStatus> = self
            .catalog
            .families
            .iter()
            .filter_map(|f| f.sets.get(set))
            .map(|s| s.status)
            .collect();
        if found.is_empty() {
            let names: BTreeSet<&str> = self
                .catalog
                .families
                .iter()
                .flat_map(|f| f.sets.keys())
                .map(String::as_str)
                .collect();
            dangling(self.book, at, "firmware set", set, names.into_iter());
        } else if !found.iter().any(|s| matches!(s, SetStatus::Approved | SetStatus::Canary)) {
            self.book
                .error(at, format!("firmware set `{set}` is not approved in any family"))
                .hint("only sets with status `approved` or `canary` are installed");
        }
    }

    fn check_credentials(&self, inventory: &Inventory) {
        let Some(daemon) = self.daemon else { return };
        // With a secrets table the rest of the names may be in the database.
        if daemon.secrets.is_some() {
            return;
        }
        for (name, at) in &inventory.credentials {
            if &**name == inventory::FACTORY {
                self.book
                    .error(
                        *at,
                        "factory passwords are kept in the secrets table, and there is none",
                    )
                    .hint("add `[secrets] key_file` to farrier.toml");
            } else if !daemon.credentials.contains_key(&**name) {
                let known = daemon.credentials.keys().map(String::as_str);
                dangling(self.book, *at, "credential", name, known);
            }
        }
    }

    fn check_networks(&self, inventory: &Inventory) {
        if inventory.broken {
            return;
        }
        for (name, at) in self.daemon.into_iter().flat_map(|d| &d.places.networks) {
            if !inventory.networks.iter().any(|n| n.name == *name) {
                let known = inventory.networks.iter().map(|n| n.name.as_str());
                dangling(self.book, *at, "network", name, known);
            }
        }
    }

    fn check_pools(&self, inventory: &Inventory) {
        if inventory.broken {
            return;
        }
        for (pool, at) in self.workflows.iter().flat_map(|w| &w.pools) {
            if !inventory.pools.contains_key(pool.as_str()) {
                dangling(self.book, *at, "pool", pool, inventory.pools.keys().map(|p| &**p));
            }
        }
    }
}

/// Hosts without a user of their own get the daemon's.
fn fill_users(inventory: &mut Inventory, user: &str) {
    let user: Arc<str> = user.into();
    for machine in &mut inventory.machines {
        if machine.host.user.is_empty() {
            Arc::make_mut(machine).host.user = user.clone();
        }
    }
}

fn site(
    daemon: &Daemon,
    inventory: &Inventory,
    workflows: &[workflow::Placed],
    catalog: Catalog,
) -> Site {
    let hashes: BTreeMap<&str, Arc<str>> =
        workflows.iter().map(|w| (&*w.workflow.name, w.workflow.hash())).collect();
    let profiles = inventory.profiles.iter().map(|(name, p)| {
        let profile = Profile {
            name: name.clone(),
            workflow: hashes.get(p.workflow.as_str()).cloned().unwrap_or_default(),
            firmware_set: p.firmware_set.clone(),
            image: p.image.clone(),
            cluster: p.cluster.clone(),
            gpus: p.gpus,
            root_disk: p.root_disk.clone(),
            trust_installer: p.trust_installer,
            boot: p.boot.clone(),
            bios: p.bios.clone(),
            boot_volume: p.boot_volume.clone(),
            authorized_keys: p.authorized_keys.clone(),
        };
        (name.clone(), Arc::new(profile))
    });
    Site {
        incarnation: Arc::default(),
        limits: inventory.limits.clone(),
        profiles: profiles.collect(),
        workflows: workflows
            .iter()
            .filter_map(|w| Some((hashes.get(&*w.workflow.name)?.clone(), w.workflow.clone())))
            .collect(),
        catalog,
        breaker_quarantines: daemon.breaker_quarantines,
        breaker_window_ms: daemon.breaker_window.0,
        remediation: Remediation::default(),
    }
}
