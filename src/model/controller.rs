//! Controllers of a machine besides its host's BMC, at addresses of their own: the BMC of an HGX
//! baseboard, of a DPU. What is read of them stands beside what the host's BMC says, under their name:
//! `hgx:HGX_FW_GPU_SXM_1`, `dpu0:/redfish/v1/TaskService/Tasks/3`.

use super::fault::Fault;
use super::text::Text;
use serde::{Deserialize, Serialize};
use std::ops::Deref;
use std::sync::Arc;

/// What a further controller is the BMC of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FurtherKind {
    /// The baseboard with the GPUs.
    Hgx,
    /// A BlueField or another card with a BMC of its own.
    Dpu,
}

impl FurtherKind {
    pub const ALL: [FurtherKind; 2] = [FurtherKind::Hgx, FurtherKind::Dpu];

    pub fn name(self) -> &'static str {
        match self {
            FurtherKind::Hgx => "hgx",
            FurtherKind::Dpu => "dpu",
        }
    }
}

/// A controller with a Redfish service at an address of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Further {
    /// Unique in its machine; see [`is_name`].
    pub name: Arc<str>,
    pub kind: FurtherKind,
    /// `https://10.0.0.6` (or `http://…` in labs).
    pub url: Text,
    /// Name of its credential.
    pub credential: Arc<str>,
    /// As the host BMC's: `ca`, `off`, `sha256:<hex of the DER certificate>` or `pin`.
    pub tls: Arc<str>,
    /// What a system, chassis or manager of its own Redfish has as its serial. Without it the
    /// controller is read and never written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<Text>,
    /// Why nobody may go to it now. Said on the way to it, to the edge that would go; never stored, and
    /// never in an inventory.
    #[serde(skip)]
    pub barred: Option<Arc<Fault>>,
}

impl Further {
    /// A name on this controller → as the machine's report has it.
    pub fn prefixed(&self, id: &str) -> String {
        format!("{}:{id}", self.name)
    }

    /// For people: its name and its address.
    pub fn called(&self) -> String {
        format!("controller `{}` ({})", self.name, &*self.url)
    }

    /// What waits until a person has accepted a certificate of it for the first time.
    pub fn first_certificate(&self) -> String {
        format!("a person to accept the certificate of {}", self.called())
    }

    /// What waits where it came back from Farrier's own update with another certificate.
    pub fn new_certificate(&self) -> String {
        format!("a person to accept the new certificate of {}", self.called())
    }
}

/// A machine's controller in one word, as orders, the store and people name it: `n1/hgx`; the machine's
/// name alone is its host's BMC. No machine's name has a `/`.
pub fn place(machine: &str, controller: Option<&str>) -> String {
    match controller {
        Some(name) => format!("{machine}/{name}"),
        None => machine.to_string(),
    }
}

/// What [`place`] made one word of: the machine's name, and the controller's.
pub fn placed(word: &str) -> (&str, Option<&str>) {
    match word.split_once('/') {
        Some((machine, controller)) => (machine, Some(controller)),
        None => (word, None),
    }
}

/// The further controllers of a machine. Most machines have none: then it is one word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Further>", into = "Vec<Further>")]
pub struct Controllers(#[allow(clippy::rc_buffer, reason = "one word")] Option<Arc<Vec<Further>>>);

impl Controllers {
    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    pub fn named(&self, name: &str) -> Option<&Further> {
        self.iter().find(|c| &*c.name == name)
    }

    /// Whose id or handle it is, and what it is called there; `None`: the host BMC's.
    pub fn of<'i>(&self, id: &'i str) -> Option<(&Further, &'i str)> {
        let (name, rest) = split(id);
        Some((self.named(name?)?, rest))
    }

    /// Changes each; whoever shares them keeps what was.
    pub fn change(&mut self, change: impl FnMut(&mut Further)) {
        if let Some(all) = &mut self.0 {
            Arc::make_mut(all).iter_mut().for_each(change);
        }
    }
}

impl Deref for Controllers {
    type Target = [Further];
    fn deref(&self) -> &[Further] {
        self.0.as_ref().map_or(&[], |all| all.as_slice())
    }
}

impl From<Vec<Further>> for Controllers {
    fn from(all: Vec<Further>) -> Self {
        Self((!all.is_empty()).then(|| Arc::new(all)))
    }
}

impl From<Controllers> for Vec<Further> {
    fn from(all: Controllers) -> Self {
        all.to_vec()
    }
}

/// Names that mean something else where a controller's stands.
const TAKEN: [&str; 3] = ["bmc", "host", "ipmi"];

/// May a controller be called so? Lower-case letters, digits and `-`, a letter first: no BMC's own ids
/// begin like that before a colon (Dell has `DCIM:…`, `Disk.Bay.7:…`).
pub fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    name.len() <= 32
        && name.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && name.bytes().all(fits)
        && !TAKEN.contains(&name)
}

/// The controller whose id or handle this is, and the id on it. `None`: the host's BMC.
pub fn split(id: &str) -> (Option<&str>, &str) {
    match id.split_once(':') {
        Some((name, rest)) if is_name(name) => (Some(name), rest),
        _ => (None, id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hgx() -> Further {
        Further {
            name: "hgx".into(),
            kind: FurtherKind::Hgx,
            url: "https://10.0.0.6".into(),
            credential: "hgx".into(),
            tls: "ca".into(),
            serial: Some("1575023".into()),
            barred: None,
        }
    }

    #[test]
    fn ids_are_a_controllers_by_its_name_and_else_the_hosts() {
        for (id, wanted) in [
            ("hgx:HGX_FW_GPU_SXM_1", (Some("hgx"), "HGX_FW_GPU_SXM_1")),
            (
                "dpu-0:/redfish/v1/TaskService/Tasks/3",
                (Some("dpu-0"), "/redfish/v1/TaskService/Tasks/3"),
            ),
            ("hgx:", (Some("hgx"), "")),
            ("HGX_FW_GPU_SXM_1", (None, "HGX_FW_GPU_SXM_1")),
            (
                "DCIM:INSTALLED_0x23_741__BIOS.Setup.1-1",
                (None, "DCIM:INSTALLED_0x23_741__BIOS.Setup.1-1"),
            ),
            ("Disk.Bay.7:Enclosure.Internal.0-1", (None, "Disk.Bay.7:Enclosure.Internal.0-1")),
            ("/redfish/v1/UpdateService#/Oem/a:b", (None, "/redfish/v1/UpdateService#/Oem/a:b")),
            ("ipmi:power on", (None, "ipmi:power on")),
        ] {
            assert_eq!(split(id), wanted, "{id}");
        }
        assert_eq!(split(&hgx().prefixed("X")), (Some("hgx"), "X"));
        // A colon after a word that is no controller of this machine is the BMC's own.
        assert!(Controllers::default().of("hgx:X").is_none());
        let all = Controllers::from(vec![hgx()]);
        assert_eq!(all.of("hgx:X").map(|(c, id)| (c.kind, id)), Some((FurtherKind::Hgx, "X")));
        assert!(all.of("dpu:X").is_none() && all.of("X").is_none());
    }

    #[test]
    fn a_place_is_one_word_and_comes_apart_again() {
        for (machine, controller, word) in [
            ("n1", None, "n1"),
            ("n1", Some("hgx"), "n1/hgx"),
            ("a.b-c_1", Some("dpu-0"), "a.b-c_1/dpu-0"),
        ] {
            assert_eq!(place(machine, controller), word);
            assert_eq!(placed(word), (machine, controller));
        }
    }

    #[test]
    fn why_it_is_barred_is_stored_nowhere() {
        let why = Fault::no_answer(super::super::Channel::Bmc, "not now");
        let barred = Further { barred: Some(Arc::new(why)), ..hgx() };
        let json = serde_json::to_string(&barred).unwrap();
        assert_eq!(json, serde_json::to_string(&hgx()).unwrap());
        assert_eq!(serde_json::from_str::<Further>(&json).unwrap(), hgx());
    }

    #[test]
    fn none_is_one_word_and_nothing_in_json() {
        assert_eq!(size_of::<Controllers>(), size_of::<usize>());
        let all = Controllers::from(vec![hgx()]);
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Controllers>(&json).unwrap(), all);
        assert!(serde_json::from_str::<Controllers>("[]").unwrap().is_none());
        let bmc = crate::model::BmcEndpoint::default();
        assert!(!serde_json::to_string(&bmc).unwrap().contains("controllers"));
    }
}
