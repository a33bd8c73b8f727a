//! The machine as the inventory expects it: place, profile and where it was last found. The file
//! is an expectation; the database is the truth (design law 11).

use super::controller::Controllers;
use super::identity::Identity;
use super::text::Text;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Deref;
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
    pub url: Text,
    /// Name of the credential in the secrets table or of a `[[credential]]` reference.
    pub credential: Arc<str>,
    /// `ca`, `off`, `sha256:<hex of the DER certificate>`, or `pin`: the one that a person has
    /// accepted for this machine.
    pub tls: Arc<str>,
    /// Where it answers IPMI, for what is left when its Redfish does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipmi: Option<Box<IpmiEndpoint>>,
    /// The machine's controllers at addresses of their own.
    #[serde(default, skip_serializing_if = "Controllers::is_none")]
    pub controllers: Controllers,
}

/// Where a BMC answers IPMI 2.0 over RMCP+.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpmiEndpoint {
    /// Address or name, without a port.
    pub address: Text,
    /// UDP port, usually 623.
    pub port: u16,
    /// The cipher suite that this BMC takes; none: 17 is tried, then 3, then what the BMC offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher: Option<u8>,
    /// Name of its credential; none: the one for Redfish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Arc<str>>,
}

/// The operating system's SSH end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEndpoint {
    /// `address` or `address:port`.
    pub address: Text,
    pub user: Arc<str>,
    /// Known host key in OpenSSH form, when the inventory states one. Never accepted blindly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<Box<str>>,
}

/// A machine's labels. Most machines have none: then it is one word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(#[allow(clippy::box_collection, reason = "see above")] Option<Box<Map>>);

type Map = BTreeMap<String, String>;

impl Labels {
    fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl Deref for Labels {
    type Target = Map;
    fn deref(&self) -> &Map {
        static NONE: Map = Map::new();
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl From<Map> for Labels {
    fn from(labels: Map) -> Self {
        Self((!labels.is_empty()).then(|| Box::new(labels)))
    }
}

impl From<Labels> for Map {
    fn from(labels: Labels) -> Map {
        labels.0.map_or_else(Map::new, |l| *l)
    }
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
    #[serde(default, skip_serializing_if = "Labels::is_none")]
    pub labels: Labels,
    pub bmc: BmcEndpoint,
    pub host: HostEndpoint,
}

impl Expected {
    /// The name of this machine's domain of `kind`.
    pub fn domain(&self, kind: DomainKind) -> Option<&str> {
        self.domains.iter().find(|d| d.kind == kind).map(|d| &*d.name)
    }
}
