//! The machine as the inventory expects it: place, profile and where it was last found. The file
//! is an expectation; the database is the truth (design law 11).

use super::identity::Identity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A kind of failure domain. Domains overlap; limits and waves spread over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainKind {
    Site,
    Rack,
    Power,
    Chassis,
    Switch,
    Cooling,
    Nvlink,
    Pool,
}

impl DomainKind {
    pub const ALL: [DomainKind; 8] = [
        DomainKind::Site,
        DomainKind::Rack,
        DomainKind::Power,
        DomainKind::Chassis,
        DomainKind::Switch,
        DomainKind::Cooling,
        DomainKind::Nvlink,
        DomainKind::Pool,
    ];

    pub fn name(self) -> &'static str {
        match self {
            DomainKind::Site => "site",
            DomainKind::Rack => "rack",
            DomainKind::Power => "power",
            DomainKind::Chassis => "chassis",
            DomainKind::Switch => "switch",
            DomainKind::Cooling => "cooling",
            DomainKind::Nvlink => "nvlink",
            DomainKind::Pool => "pool",
        }
    }

    pub fn from_name(name: &str) -> Option<DomainKind> {
        DomainKind::ALL.into_iter().find(|d| d.name() == name)
    }
}

/// One failure domain a machine is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Domain {
    pub kind: DomainKind,
    pub name: Arc<str>,
}

/// Where a BMC was last found and how to talk to it. Credentials by name, never by value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcEndpoint {
    /// `https://10.0.0.5` (or `http://…` in labs).
    pub url: String,
    /// Name of the credential in the secrets table or of a `[[credential]]` reference.
    pub credential: Arc<str>,
    /// `ca`, `off`, or `sha256:<hex of the DER certificate>`.
    pub tls: Arc<str>,
}

/// The operating system's SSH end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEndpoint {
    /// `address` or `address:port`.
    pub address: String,
    pub user: Arc<str>,
    /// Known host key in OpenSSH form, when the inventory states one. Never accepted blindly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
}

/// One machine of the inventory file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    pub name: Arc<str>,
    pub identity: Arc<Identity>,
    pub rack: Arc<str>,
    #[serde(default)]
    pub position: u16,
    pub pool: Arc<str>,
    pub profile: Arc<str>,
    /// All failure domains, sorted.
    pub domains: Arc<[Domain]>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    pub bmc: BmcEndpoint,
    pub host: HostEndpoint,
}

impl Expected {
    /// The name of this machine's domain of `kind`.
    pub fn domain(&self, kind: DomainKind) -> Option<&str> {
        self.domains.iter().find(|d| d.kind == kind).map(|d| &*d.name)
    }
}
