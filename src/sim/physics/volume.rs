//! Volumes over whole drives, as a RAID controller makes them, and what an edge and a probe see of them.

use super::board::VOLUME_MS;
use super::{Cause, Making, Raid, VirtualMachine, Volume, What};
use crate::model::deploy::DiskKind;
use crate::model::storage::{Drive, Storage, StorageFacts};
use crate::model::{Channel, EngineTime, Fault, FaultClass, Outcome};
use crate::sim::faults::FaultKind;

impl VirtualMachine {
    /// Makes a volume over whole drives, whose data is lost. Returns the task's number; `None`: a
    /// drive is part of another volume, or not there.
    pub fn make_volume(
        &mut self,
        now: EngineTime,
        by: Cause,
        (name, raid): (&str, Raid),
        drives: &[usize],
        making: Making,
    ) -> Option<u32> {
        self.advance(now);
        let taken = |d: &usize| self.board.volumes.iter().any(|v| v.drives.contains(d));
        if drives.iter().any(taken) {
            self.effect(now, What::VolumeAgain, by);
            return None;
        }
        if drives.len() < 2 || drives.iter().any(|d| *d >= super::probe::DISKS) {
            return None;
        }
        let ends = match making {
            Making::AtOnce => now,
            Making::ByTask => now + VOLUME_MS,
            Making::AtPost => EngineTime::NEVER,
        };
        let mut fails = self.dice.throw(FaultKind::VolumeFails, now);
        if self.dice.throw(FaultKind::DriveDies, now) {
            self.board.dead_drive = drives.last().copied();
            fails = true;
        }
        let id = self.board.next_volume + 1;
        if !fails {
            self.board.next_volume = id;
            self.effect(now, What::VolumeMade { data: self.foreign_data }, by);
            let drives = drives.to_vec();
            self.board.volumes.push(Volume { id, name: name.into(), raid, drives, ready: ends });
            if making != Making::AtPost {
                self.lose_data();
            }
        }
        let leaves = format!("Systems/1/Storage/1/Volumes/{id}");
        Some(self.add_chore("Volume creation", now, ends, leaves, fails))
    }

    /// A volume takes the place of what was on its drives. An operating system that runs lives on in
    /// memory.
    pub(super) fn lose_data(&mut self) {
        self.installed = None;
        self.foreign_data = false;
    }

    /// As an edge orders it: drives by their serials. `Err`: why it is not sent.
    pub(super) fn drives_of(&self, serials: &[String]) -> Result<Vec<usize>, Outcome> {
        let disks = self.inventory().disks;
        let refused = |saw| Outcome::Refused { saw, wrong_machine: false };
        let place = |serial: &String| disks.iter().position(|d| d.serial.as_ref() == Some(serial));
        let found = serials
            .iter()
            .map(|s| place(s).ok_or_else(|| refused(format!("no drive with serial `{s}`"))));
        found.collect()
    }

    /// What the edge finds when it looks once more before it orders a volume.
    pub(super) fn volume_refusal(&self, now: EngineTime, serials: &[String]) -> Option<Outcome> {
        let drives = match self.drives_of(serials) {
            Ok(drives) => drives,
            Err(outcome) => return Some(outcome),
        };
        let no = |class, code: &'static str| {
            let text = "as it was looked at once more";
            Some(Outcome::Failed { fault: Fault::new(class, Channel::Bmc, code, text) })
        };
        let mut shown = self.board.volumes(now);
        match shown.find(|v| v.drives.iter().any(|d| drives.contains(d))) {
            // Said twice, done once.
            Some(v) if v.drives.len() == drives.len() => Some(Outcome::Applied { handle: None }),
            Some(_) => no(FaultClass::Precondition, "drive-in-use"),
            None if self.board.dead_drive.is_some_and(|d| drives.contains(&d)) => {
                no(FaultClass::Hardware, "drive-broken")
            }
            None => None,
        }
    }

    /// Storage as a probe reads it.
    pub fn storage(&self, now: EngineTime) -> StorageFacts {
        let disks = self.inventory().disks;
        let uri = |n: usize| format!("/redfish/v1/Systems/1/Storage/1/Drives/NVMe{n}");
        let of = |v: &Volume| format!("/redfish/v1/Systems/1/Storage/1/Volumes/{}", v.id);
        let drives = disks.into_iter().enumerate().map(|(n, d)| Drive {
            id: d.id,
            uri: uri(n),
            model: d.model,
            serial: d.serial,
            bytes: d.capacity,
            kind: Some(DiskKind::Nvme),
            health: Some(if self.board.dead_drive == Some(n) { "Critical" } else { "OK" }.into()),
            volumes: self.board.volumes(now).filter(|v| v.drives.contains(&n)).map(of).collect(),
        });
        let volumes = self.board.volumes(now).map(|v| crate::model::hardware::Volume {
            id: v.id.to_string(),
            uri: of(v),
            name: Some(v.name.to_string()),
            raid: Some(v.raid.word().into()),
            drives: v.drives.iter().map(|n| uri(*n)).collect(),
            health: Some("OK".into()),
            ..Default::default()
        });
        StorageFacts {
            parts: vec![Storage {
                id: "1".into(),
                models: vec![],
                levels: Raid::ALL.map(|r| r.word().to_string()).to_vec(),
                drives: drives.collect(),
                volumes: volumes.collect(),
            }],
        }
    }

    /// Takes a volume apart; `false`: there is none.
    pub fn delete_volume(&mut self, now: EngineTime, by: Cause, id: u32) -> bool {
        self.advance(now);
        let before = self.board.volumes.len();
        self.board.volumes.retain(|v| v.id != id);
        let found = self.board.volumes.len() != before;
        if found {
            self.effect(now, What::VolumeDeleted, by);
            self.installed = None;
        }
        found
    }
}
