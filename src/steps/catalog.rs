//! The firmware catalog as data: one file a vendor family, sets that were approved as a unit.

use super::version::{self, Scheme};
use crate::model::controller;
use crate::model::facts::{Component, SystemFacts};
use crate::model::time::Span;
use crate::model::{Channel, Fault, FaultClass};
use regex::Regex;
use std::collections::BTreeMap;

/// All families. The first whose `match` fits a machine counts.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub families: Vec<Family>,
}

#[derive(Clone, Debug)]
pub struct Family {
    /// File it came from, relative to the catalog's directory.
    pub file: String,
    /// Anchored; any one fits `Manufacturer`.
    pub manufacturer: Vec<Regex>,
    /// Anchored; any one fits `Model`.
    pub model: Vec<Regex>,
    pub sets: BTreeMap<String, FirmwareSet>,
}

/// Only `approved` and `canary` sets are installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetStatus {
    Draft,
    Canary,
    Approved,
    Deprecated,
    Blocked,
}

/// A best-known configuration: approved and installed as a unit, in order.
#[derive(Clone, Debug)]
pub struct FirmwareSet {
    pub status: SetStatus,
    /// In the order in which they are installed.
    pub firmware: Vec<Firmware>,
}

/// What makes a staged image the running one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The update does it by itself.
    None,
    BmcReset,
    HostReset,
}

/// How an image comes to the BMC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// As the BMC does it: it fetches the image where it can, else it is pushed.
    #[default]
    Found,
    SimpleUpdate,
    Multipart,
    HttpPush,
}

/// One image of one component.
#[derive(Clone, Debug)]
pub struct Firmware {
    pub id: String,
    /// `bmc`, `bios`, `nic`, …
    pub component: String,
    /// Anchored; matches the ids of the firmware inventory members that are this component. One that
    /// begins with `^hgx:` means members of the machine's further controller `hgx`, any other one those
    /// of the host's BMC.
    pub inventory_id: Regex,
    /// Normalized by `version_regex` where given.
    pub version: String,
    pub scheme: Scheme,
    /// First group is the version inside what the BMC reports.
    pub version_regex: Option<Regex>,
    /// Lowest version from which this image may be installed.
    pub min_version: Option<String>,
    /// Versions from which it must not be installed, or that must not be left as they are.
    pub blocked_versions: Vec<String>,
    /// File below the catalog's directory, served to the BMC by Farrier.
    pub file: String,
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
    pub activation: Activation,
    /// Longest time from activation until the version is re-read.
    pub verify_timeout: Span,
    pub allow_downgrade: bool,
    pub method: Method,
}

impl Catalog {
    /// The family of a machine, by what its BMC says of manufacturer and model.
    pub fn family(&self, system: &SystemFacts) -> Option<&Family> {
        let maker = system.manufacturer.as_deref().unwrap_or("");
        let model = system.model.as_deref().unwrap_or("");
        self.families.iter().find(|f| {
            f.manufacturer.iter().any(|r| r.is_match(maker))
                && f.model.iter().any(|r| r.is_match(model))
        })
    }
}

impl Firmware {
    /// Is the member with this id this component?
    pub fn fits(&self, id: &str) -> bool {
        self.controller() == controller::split(id).0 && self.inventory_id.is_match(id)
    }

    /// The further controller that has this component; `None`: the host's BMC.
    pub fn controller(&self) -> Option<&str> {
        let pattern = self.inventory_id.as_str().strip_prefix('^').unwrap_or_default();
        controller::split(pattern.strip_prefix("(?:").unwrap_or(pattern)).0
    }

    /// The inventory member that is this component. Backup, golden and staged copies don't count
    /// (field notes 1.3): with several members left, the first by id.
    pub fn member<'a>(&self, inventory: &'a [Component]) -> Option<&'a Component> {
        inventory
            .iter()
            .filter(|c| self.fits(&c.id))
            .filter(|c| {
                let id = c.id.to_ascii_lowercase();
                !["backup", "golden", "staging", "pending", "previous"]
                    .iter()
                    .any(|w| id.contains(w))
            })
            .min_by(|a, b| a.id.cmp(&b.id))
    }

    /// As [`Firmware::member`], for whoever goes by its version: a member whose document could not be
    /// read is neither there nor absent.
    ///
    /// # Errors
    /// The component, or one that may be it, could not be read this time. It passes: transient.
    pub fn read<'a>(&self, inventory: &'a [Component]) -> Result<Option<&'a Component>, Fault> {
        let unread = |c: &Component, why: &Fault| {
            let what = match controller::split(&c.id) {
                // Only a person changes that.
                (Some(_), "") if why.code == Fault::NO_PIN => {
                    let kept = why.clone();
                    return Fault { class: FaultClass::Transient, ..kept };
                }
                (Some(_), "") => {
                    format!("no firmware of this controller can be read now: {}", why.message)
                }
                _ => format!("firmware inventory member `{}` can't be read now", c.id),
            };
            Fault::new(FaultClass::Transient, Channel::Bmc, Fault::COMPONENT_UNREAD, what)
                .evidence(why.to_string())
                .hint("it is read again; where that goes on for long, a BMC reset often helps")
        };
        let unread = |c: &Component| c.unread.as_deref().map(|why| unread(c, why));
        match self.member(inventory) {
            Some(member) => unread(member).map_or(Ok(Some(member)), Err),
            // An id may be another than its path's end: one that was not read may be this one, where it
            // is on the same controller.
            None => {
                let is_here = |c: &&Component| controller::split(&c.id).0 == self.controller();
                inventory.iter().filter(is_here).find_map(unread).map_or(Ok(None), Err)
            }
        }
    }

    /// The version inside what the BMC reports.
    pub fn normalize<'a>(&self, reported: &'a str) -> &'a str {
        let found = self.version_regex.as_ref().and_then(|r| r.captures(reported));
        match found.and_then(|c| c.get(1).or_else(|| c.get(0))) {
            Some(m) => m.as_str(),
            None => reported.trim(),
        }
    }

    /// Is the reported version the wanted one, older, newer, or not comparable?
    pub fn compare(&self, reported: &str) -> Option<std::cmp::Ordering> {
        version::compare(self.scheme, self.normalize(reported), &self.version)
    }
}
