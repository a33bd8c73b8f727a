//! Is the BMC reachable, and is this the machine that the inventory expects?

use super::{Look, View, need};
use crate::model::facts::{ProbeSet, WindowFacts};
use crate::model::identity::{Match, clean_uuid, likelier_uuid, uuid_eq};
use crate::model::{Channel, Entry, Fault, FaultClass, Machine};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {}

impl Params {
    pub(super) fn needs(&self, _m: &Machine) -> ProbeSet {
        ProbeSet::SYSTEM.with(ProbeSet::HOST)
    }

    pub(super) fn look(&self, v: &View<'_>) -> Look {
        let system = need!(v.report.system);
        if system.identity.is_unknown() {
            return Look::Fail(
                Fault::new(
                    FaultClass::Transient,
                    Channel::Bmc,
                    "no-identity",
                    "the BMC names neither serial nor UUID nor MAC",
                )
                .hint("some BMCs know them only once the host has been powered on"),
            );
        }
        match v.expected.identity.compare(&system.identity) {
            Match::Differs { part, expected, found } => {
                return Look::Fail(wrong_machine(Channel::Bmc, part, &expected, &found));
            }
            Match::Unknown if !v.expected.identity.is_unknown() => {
                return Look::Fail(
                    Fault::new(
                        FaultClass::Transient,
                        Channel::Bmc,
                        "identity-unproven",
                        "nothing the inventory says of this machine's identity is known to the BMC",
                    )
                    .hint("some BMCs know more once the host is on; else give its serial, UUID or boot MAC in the inventory"),
                );
            }
            Match::Same | Match::Unknown => {}
        }
        // The pairing BMC ↔ host, where the host can be asked.
        if let Some(host) = v.report.host.seen()
            && let Match::Differs { part, expected, found } = pair(&system.identity, &host.identity)
        {
            return Look::Fail(wrong_machine(Channel::Host, part, &expected, &found));
        }
        let merged = system.identity.or(&v.expected.identity);
        if *v.m.identity != merged.or(&v.m.identity) {
            return Look::Note(vec![Entry::Proven { identity: merged }]);
        }
        Look::done(format!(
            "serial {}, UUID {}",
            v.m.identity.serial.as_deref().unwrap_or("not known"),
            v.m.identity.uuid.as_deref().unwrap_or("not known"),
        ))
    }
}

/// BMC and host are one machine. MACs are left out: a host may boot by another port.
pub fn pair(bmc: &crate::model::Identity, host: &crate::model::Identity) -> Match {
    let strip = |i: &crate::model::Identity| crate::model::Identity { mac: None, ..i.clone() };
    strip(bmc).compare(&strip(host))
}

/// The fault of meeting another machine than the one expected.
pub fn wrong_machine(channel: Channel, part: &str, expected: &str, found: &str) -> Fault {
    let what = match channel {
        Channel::Host => "the host behind the SSH address is not the BMC's machine",
        Channel::Boot => {
            "the host that asks to boot with this machine's MAC is not the BMC's machine"
        }
        _ => "the BMC's machine is not the one expected",
    };
    let hint = match channel {
        Channel::Boot => {
            "is the BMC's cable in its own host, and does no other machine have this boot MAC? a replaced board is declared with a new inventory entry"
        }
        _ => "check cabling and addresses; a replaced board is declared with a new inventory entry",
    };
    Fault::new(
        FaultClass::Identity,
        channel,
        "wrong-machine",
        format!("{what}: {part} is `{found}`, expected `{expected}`"),
    )
    .hint(hint)
}

/// Another machine asked for what this one is to boot, before this one did: known at once, where the
/// step would wait for a callback that never comes. Once the machine's own script was fetched it is
/// the ramdisk's login that tells who it is.
pub(super) fn other_asked(v: &View<'_>, window: &WindowFacts) -> Option<Fault> {
    let own = v.m.identity.uuid.as_deref()?;
    let stated = window.other_uuid.as_deref().and_then(clean_uuid)?;
    let alone = !window.script_fetched && window.callback.is_none();
    (alone && !uuid_eq(&stated, own))
        .then(|| wrong_machine(Channel::Boot, "uuid", own, &likelier_uuid(&stated)))
}
