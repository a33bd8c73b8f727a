//! What is in the box, against what the profile expects.

use super::{Look, View, need};
use crate::model::facts::ProbeSet;
use crate::model::{Channel, Fault, FaultClass, Machine};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Fail when fewer GPUs are seen than the profile says. Off where BMCs don't list them.
    pub require_gpus: bool,
}

impl Params {
    pub(super) fn needs(&self, _m: &Machine) -> ProbeSet {
        ProbeSet::SYSTEM.with(ProbeSet::INVENTORY).with(ProbeSet::FIRMWARE).with(ProbeSet::HOST)
    }

    pub(super) fn look(&self, v: &View<'_>) -> Look {
        need!(v.report.system);
        let found = need!(v.report.inventory);
        let wanted = usize::from(v.profile.gpus);
        if self.require_gpus && found.gpus.len() < wanted {
            return Look::Fail(
                Fault::new(
                    FaultClass::Hardware,
                    Channel::Bmc,
                    "gpus-missing",
                    format!("{} of {wanted} GPUs are listed", found.gpus.len()),
                )
                .hint("HGX baseboards list GPUs minutes after power on; reseat or replace if it stays"),
            );
        }
        Look::done(format!(
            "{} CPUs, {} GPUs, {} disks, {} NICs",
            found.cpus.len(),
            found.gpus.len(),
            found.disks.len(),
            found.nics.len(),
        ))
    }
}
