//! Where things are on one BMC: the service root, and the system that is meant. Found once, kept
//! until a 404 or a reset.

use super::conn::Bmc;
use super::fault;
use super::http::{Login, Request};
use super::json;
use super::system;
use crate::model::identity::Match;
use crate::model::quirks::Subject;
use crate::model::{Fault, FaultClass, Identity};
use futures_util::StreamExt;
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Pages of a collection, and members of one, that are read at most.
const MAX_PAGES: usize = 64;
const MAX_MEMBERS: usize = 1_000;

/// The service root's links (DSP0268 ServiceRoot).
#[derive(Debug, Default)]
pub(super) struct Root {
    pub(super) systems: Option<String>,
    pub(super) managers: Option<String>,
    pub(super) chassis: Option<String>,
    pub(super) update: Option<String>,
    pub(super) tasks: Option<String>,
    pub(super) sessions: Option<String>,
    /// `$expand` of members may be asked for.
    pub(super) expand: bool,
    /// What it says of itself, for the quirks.
    pub(super) subject: Subject,
}

/// What was found of the machine's system.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) system: String,
    /// Other systems of this BMC: HGX baseboards hold the GPUs.
    pub(super) others: Vec<String>,
    /// Settings object that takes the boot override instead of the system.
    pub(super) boot_settings: Option<String>,
    /// MACs of the system's own interfaces, as found when it was chosen.
    pub(super) macs: Vec<String>,
}

impl Root {
    fn from(v: &Value) -> Self {
        let named = |key: &str| json::link(v, &[key]);
        let expand = |key: &str| {
            json::at(v, &["ProtocolFeaturesSupported", "ExpandQuery", key])
                .and_then(Value::as_bool)
                .unwrap_or(false)
        };
        let oem = json::at(v, &["Oem"]).and_then(Value::as_object);
        let oem = oem.into_iter().flat_map(|o| o.keys().cloned());
        let texts = |keys: &[&str]| keys.iter().filter_map(|k| json::text(v, &[k])).collect();
        Self {
            systems: named("Systems"),
            managers: named("Managers"),
            chassis: named("Chassis"),
            update: named("UpdateService"),
            tasks: named("Tasks"),
            sessions: json::link(v, &["Links", "Sessions"]),
            expand: expand("NoLinks") || expand("ExpandAll"),
            subject: Subject {
                vendors: json::text(v, &["Vendor"]).into_iter().chain(oem).collect(),
                products: texts(&["Product", "Name", "Id"]),
                ..Subject::default()
            },
        }
    }
}

impl Bmc<'_> {
    /// The service root, read without a login if it is not known: the login itself needs it.
    pub(super) async fn root_unlocked(&self) -> Result<Arc<Root>, Fault> {
        if let Some(root) = self.conn.root() {
            return Ok(root);
        }
        let mut last = None;
        for path in ["/redfish/v1/", "/redfish/v1"] {
            let url = self.conn.url(path)?;
            self.settled(&Method::GET, &url)?;
            let request = Request {
                method: Method::GET,
                url,
                login: &Login::None,
                if_match: None,
                body: None,
            };
            let answer = match self.edge.clients.send(self.conn.policy, request).await {
                Ok(a) => a,
                Err(no) => return Err(no.fault),
            };
            let redirected = (300..400).contains(&answer.status)
                && answer.location.as_deref().is_some_and(|to| self.conn.url(to).is_ok());
            match fault::document(&format!("GET {path}"), answer) {
                Ok(v) => return Ok(self.keep(&v)),
                Err(f) if redirected || f.class == FaultClass::Unsupported => last = Some(f),
                Err(f) => return Err(f),
            }
        }
        Err(last.map_or_else(
            || fault::not_redfish("GET /redfish/v1/", "no service root"),
            |f| not_ready(f, "no-redfish"),
        ))
    }

    fn keep(&self, v: &Value) -> Arc<Root> {
        let root = Arc::new(Root::from(v));
        // A root without its systems is a service still starting (R20): used, not remembered.
        if root.systems.is_some() {
            self.conn.keep_root(&root);
        }
        root
    }

    /// The service root, logged in where it has to be.
    pub(super) async fn root(&self) -> Result<Arc<Root>, Fault> {
        match self.root_unlocked().await {
            Err(f) if f.class == FaultClass::Auth => {
                let v = self.get("/redfish/v1/").await?;
                Ok(self.keep(&v))
            }
            other => other,
        }
    }

    /// The collection's members: references, or whole resources where `expand` worked.
    pub(super) async fn members(&self, link: &str, expand: bool) -> Result<Vec<Value>, Fault> {
        let expand = expand && !link.contains('?') && self.may_expand().await?;
        if expand {
            match self.pages(&format!("{link}?$expand=.($levels=1)")).await {
                Ok(all) if all.is_empty() || all.iter().any(json::is_expanded) => return Ok(all),
                Err(f) if f.is_no_answer() || matches!(f.class, FaultClass::Auth) => return Err(f),
                _ => self.conn.no_expand.store(true, Ordering::Relaxed),
            }
        }
        self.pages(link).await
    }

    async fn may_expand(&self) -> Result<bool, Fault> {
        if self.conn.no_expand.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let root = self.root().await?;
        Ok(root.expand && self.quirks_of_root(&root).expand)
    }

    async fn pages(&self, link: &str) -> Result<Vec<Value>, Fault> {
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next = Some(link.to_string());
        while let Some(link) = next.take() {
            if seen.len() >= MAX_PAGES || !seen.insert(link.clone()) {
                break;
            }
            let page = self.get(&link).await?;
            all.extend(json::list(&page, &["Members"]).iter().cloned());
            if all.len() >= MAX_MEMBERS {
                all.truncate(MAX_MEMBERS);
                break;
            }
            next = json::text(&page, &["Members@odata.nextLink"]);
        }
        Ok(all)
    }

    /// Every member of a collection as a resource, with its path. A member that can't be read is an
    /// `Err` in its place; a fault of the whole BMC ends it.
    pub(super) async fn resources(
        &self,
        link: &str,
    ) -> Result<Vec<(String, Result<Value, Fault>)>, Fault> {
        self.resources_but(link, 0).await
    }

    /// The same, and so many members may be without any answer: some BMCs hang on one resource alone.
    pub(super) async fn resources_but(
        &self,
        link: &str,
        silent: usize,
    ) -> Result<Vec<(String, Result<Value, Fault>)>, Fault> {
        let members = self.members(link, true).await?;
        let reads = members.into_iter().filter_map(|m| {
            let path = json::link_of(&m)?;
            Some(async move {
                let read = if json::is_expanded(&m) && json::at(&m, &["Id"]).is_some() {
                    Ok(m)
                } else {
                    self.get(&path).await
                };
                (path, read)
            })
        });
        self.all(reads, silent).await
    }

    /// The resources behind `links`.
    pub(super) async fn get_all(
        &self,
        links: Vec<String>,
    ) -> Result<Vec<(String, Result<Value, Fault>)>, Fault> {
        let reads = links.into_iter().map(|path| async move {
            let read = self.get(&path).await;
            (path, read)
        });
        self.all(reads, 0).await
    }

    async fn all<F>(
        &self,
        reads: impl Iterator<Item = F>,
        mut silent: usize,
    ) -> Result<Vec<(String, Result<Value, Fault>)>, Fault>
    where
        F: Future<Output = (String, Result<Value, Fault>)> + Send,
    {
        let reads: Vec<F> = reads.collect();
        let mut done = futures_util::stream::iter(reads).buffered(self.edge.settings.reads_per_bmc);
        let mut out = Vec::new();
        while let Some((path, read)) = done.next().await {
            match read {
                Err(f) if f.is_no_answer() && silent > 0 => {
                    silent -= 1;
                    out.push((path, Err(f)));
                }
                Err(f) if is_fatal(&f) => return Err(f),
                read => out.push((path, read)),
            }
        }
        Ok(out)
    }

    /// Chooses the system that is meant, never simply the first (R24), and reads it.
    pub(super) async fn find_system(&self) -> Result<(Arc<Links>, Value), Fault> {
        let root = self.root().await?;
        let systems = root.systems.clone().ok_or_else(|| {
            fault::not_redfish("GET /redfish/v1/", "the service root names no systems")
        })?;
        let mut read = Vec::new();
        let mut broken = None;
        let members = self.members(&systems, false).await;
        let members = members.map_err(|f| not_ready(f, "no-system"))?;
        for path in members.iter().filter_map(json::link_of) {
            match self.get(&path).await {
                Ok(v) => read.push((path, v)),
                Err(f) if is_fatal(&f) => return Err(f),
                Err(f) => broken = Some(not_ready(f, "no-system")),
            }
        }
        let by_tag = |v: &Value| self.by_tag(v);
        let chosen = choose(&read, &self.target.identity, &by_tag);
        let chosen = chosen.map_err(|f| match &broken {
            Some(broken) if read.is_empty() => broken.clone(),
            _ => f,
        })?;
        let (path, v) = read.swap_remove(chosen);
        // A baseboard that can neither boot nor reset is the machine only where nothing else may be.
        if let Some(broken) = broken
            && able(&v) == 0
        {
            return Err(broken);
        }
        let links = Arc::new(Links {
            boot_settings: self.boot_settings(&v).await?,
            // A machine whose interfaces can't be read is read all the same.
            macs: match self.macs(&v).await {
                Err(f) if is_fatal(&f) => return Err(f),
                read => read.unwrap_or_default(),
            },
            others: read.into_iter().map(|(path, _)| path).collect(),
            system: path,
        });
        self.conn.keep_links(&links);
        Ok((links, v))
    }

    /// The settings object, where it is the one that takes the boot override (field notes §4).
    async fn boot_settings(&self, system: &Value) -> Result<Option<String>, Fault> {
        let Some(path) = json::link(system, &["@Redfish.Settings", "SettingsObject"]) else {
            return Ok(None);
        };
        match self.get(&path).await {
            Ok(v) if v["Boot"].get("BootSourceOverrideTarget").is_some() => Ok(Some(path)),
            Err(f) if is_fatal(&f) => Err(f),
            _ => Ok(None),
        }
    }

    /// MACs of the system's interfaces; an unreadable one is left out.
    pub(super) async fn macs(&self, system: &Value) -> Result<Vec<String>, Fault> {
        let Some(link) = json::link(system, &["EthernetInterfaces"]) else { return Ok(vec![]) };
        let mut macs = Vec::new();
        for (_, read) in self.resources(&link).await? {
            let Ok(v) = read else { continue };
            let mac = ["PermanentMACAddress", "MACAddress"]
                .iter()
                .find_map(|k| crate::model::identity::clean_mac(&json::text(&v, &[k])?));
            macs.extend(mac);
        }
        macs.sort();
        macs.dedup();
        Ok(macs)
    }
}

/// What every BMC has is missing: it has just been reset, and its service is half up (R20). That
/// passes; it is not something this BMC cannot do.
fn not_ready(f: Fault, code: &'static str) -> Fault {
    if f.class != FaultClass::Unsupported {
        return f;
    }
    Fault { class: FaultClass::Transient, code: code.into(), ..f }
        .hint("a BMC's service comes up piece by piece after its reset; else check the address")
}

/// Faults that end a read: the BMC as a whole is concerned, not one resource.
pub(super) fn is_fatal(f: &Fault) -> bool {
    f.is_no_answer()
        || matches!(f.class, FaultClass::Auth | FaultClass::Throttled | FaultClass::Identity)
}

/// What a system can do: 2 for a reset, 1 for a boot override.
fn able(v: &Value) -> u8 {
    let reset = json::at(v, &["Actions", "#ComputerSystem.Reset"]).is_some();
    let boot = json::at(v, &["Boot"]).is_some();
    u8::from(reset) * 2 + u8::from(boot)
}

/// Which of the systems is the machine: the one with its identity, else the one that can boot and
/// reset. HGX baseboards can do neither.
fn choose(
    systems: &[(String, Value)],
    wanted: &Identity,
    by_tag: &(dyn Fn(&Value) -> bool + Sync),
) -> Result<usize, Fault> {
    let same: Vec<usize> = (0..systems.len())
        .filter(|i| {
            let v = &systems[*i].1;
            let found = system::identity(v, wanted, by_tag(v));
            matches!(wanted.compare(&found), Match::Same)
        })
        .collect();
    if let Some(best) = same.iter().copied().max_by_key(|i| (able(&systems[*i].1), usize::MAX - i))
    {
        return Ok(best);
    }
    let most = systems.iter().map(|(_, v)| able(v)).max().unwrap_or(0);
    let mut best = (0..systems.len()).filter(|i| able(&systems[*i].1) == most);
    match (best.next(), best.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(Fault::new(
            FaultClass::Transient,
            crate::model::Channel::Bmc,
            "no-system",
            "the BMC lists no computer system",
        )
        .hint("collections are empty for a while after a BMC reset")),
        (Some(_), Some(_)) => Err(fault::precondition(
            "ambiguous-system",
            format!(
                "the BMC has {} systems and none has the serial or UUID of this machine",
                systems.len()
            ),
        )
        .hint("give the machine's serial or UUID in the inventory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn system(serial: &str, able: bool) -> (String, Value) {
        let mut v = json!({"SerialNumber": serial});
        if able {
            v["Boot"] = json!({});
            v["Actions"] = json!({"#ComputerSystem.Reset": {"target": "/x"}});
        }
        (format!("/redfish/v1/Systems/{serial}"), v)
    }

    #[test]
    fn the_system_is_chosen_by_identity_then_by_what_it_can_do() {
        let choose = |systems: &[(String, Value)], wanted| choose(systems, wanted, &|_| false);
        let nobody = Identity::default();
        let hgx = [system("HGX1", false), system("DGX1", true)];
        assert_eq!(choose(&hgx, &nobody).ok(), Some(1));
        let blades = [system("A1", true), system("B1", true)];
        assert_eq!(choose(&blades, &nobody).err().map(|f| f.code), Some("ambiguous-system".into()));
        let b = Identity::new(Some("B1"), None, None);
        assert_eq!(choose(&blades, &b).ok(), Some(1));
        assert_eq!(choose(&[], &nobody).err().map(|f| f.code), Some("no-system".into()));
        assert_eq!(
            choose(&[system("A1", false)], &b).ok(),
            Some(0),
            "facts will show the mismatch"
        );
    }
}
