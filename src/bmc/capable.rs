//! The capabilities beyond the daily round, as ports: each call is one BMC, one file of this edge.

use super::{
    RedfishBmc, abilities, bios, clock, log, media, secure_boot, sensors, settle, volumes,
};
use crate::model::hardware::{
    Abilities, BiosFacts, ClockFacts, LogEntry, MediaSlot, SecureBootFacts, Sensor, Volume,
};
use crate::model::{Expect, Fault, Outcome};
use crate::port::BmcTarget;
use crate::port::capability::{
    BmcAbilities, BmcBios, BmcClock, BmcLog, BmcMedia, BmcSensors, BmcVolumes, MediaOrder,
    VolumeOrder,
};
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeMap;

#[async_trait]
impl BmcAbilities for RedfishBmc {
    async fn abilities(&self, target: &BmcTarget) -> Result<Abilities, Fault> {
        abilities::read(&self.bmc(target)?).await
    }
}

#[async_trait]
impl BmcMedia for RedfishBmc {
    async fn media(&self, target: &BmcTarget) -> Result<Vec<MediaSlot>, Fault> {
        media::read(&self.bmc(target)?).await
    }

    async fn insert(&self, target: &BmcTarget, expect: &Expect, order: &MediaOrder) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(media::insert(&bmc, expect, order).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn eject(&self, target: &BmcTarget, expect: &Expect) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(media::eject(&bmc, expect).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }
}

#[async_trait]
impl BmcBios for RedfishBmc {
    async fn bios(&self, target: &BmcTarget) -> Result<BiosFacts, Fault> {
        bios::read(&self.bmc(target)?).await
    }

    async fn set_bios(
        &self,
        target: &BmcTarget,
        expect: &Expect,
        attributes: &BTreeMap<String, Value>,
    ) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(bios::set(&bmc, expect, attributes).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }

    async fn secure_boot(&self, target: &BmcTarget) -> Result<SecureBootFacts, Fault> {
        secure_boot::read(&self.bmc(target)?).await
    }

    async fn set_secure_boot(&self, target: &BmcTarget, expect: &Expect, on: bool) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(secure_boot::set(&bmc, expect, on).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }
}

#[async_trait]
impl BmcLog for RedfishBmc {
    async fn log(&self, target: &BmcTarget, most: usize) -> Result<Vec<LogEntry>, Fault> {
        log::read(&self.bmc(target)?, most).await
    }
}

#[async_trait]
impl BmcSensors for RedfishBmc {
    async fn sensors(&self, target: &BmcTarget) -> Result<Vec<Sensor>, Fault> {
        sensors::read(&self.bmc(target)?).await
    }
}

#[async_trait]
impl BmcVolumes for RedfishBmc {
    async fn volumes(&self, target: &BmcTarget) -> Result<Vec<Volume>, Fault> {
        volumes::read(&self.bmc(target)?).await
    }

    async fn create(&self, target: &BmcTarget, expect: &Expect, order: &VolumeOrder) -> Outcome {
        match self.bmc(target) {
            Ok(bmc) => settle(volumes::create(&bmc, expect, order).await),
            Err(fault) => Outcome::Failed { fault },
        }
    }
}

#[async_trait]
impl BmcClock for RedfishBmc {
    async fn clock(&self, target: &BmcTarget) -> Result<ClockFacts, Fault> {
        clock::read(&self.bmc(target)?).await
    }
}
