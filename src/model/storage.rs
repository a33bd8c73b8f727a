//! Drives and volumes as a BMC shows them, and the boot volume that a profile may ask for.

use super::deploy::DiskKind;
use super::hardware::Volume;
use serde::{Deserialize, Serialize};

/// The storage of a machine that can have volumes. Every document of it was read: what is not here is
/// not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageFacts {
    pub parts: Vec<Storage>,
}

/// One storage subsystem (DSP0268 Storage): controllers, the drives behind them, volumes of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    pub id: String,
    /// Of its controllers.
    pub models: Vec<String>,
    /// `RAID0`, `RAID1`, …; empty: it does not say.
    pub levels: Vec<String>,
    pub drives: Vec<Drive>,
    /// Drives that are shown as a volume each are none.
    pub volumes: Vec<Volume>,
}

/// A drive (DSP0268 Drive).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drive {
    pub id: String,
    pub uri: String,
    pub model: Option<String>,
    pub serial: Option<String>,
    pub bytes: Option<u64>,
    pub kind: Option<DiskKind>,
    /// `OK`, `Warning`, `Critical`.
    pub health: Option<String>,
    /// Resource paths of the volumes that it is part of.
    pub volumes: Vec<String>,
}

impl Drive {
    /// For people: `D1 (SN1)`.
    pub fn name(&self) -> String {
        match &self.serial {
            Some(serial) => format!("{} ({serial})", self.id),
            None => self.id.clone(),
        }
    }

    pub fn is_broken(&self) -> bool {
        self.health.as_deref().is_some_and(|h| h.eq_ignore_ascii_case("critical"))
    }
}

impl StorageFacts {
    /// The volume of this level over exactly the drives with these serials.
    pub fn made(&self, raid: &str, serials: &[String]) -> Option<&Volume> {
        self.parts.iter().find_map(|s| {
            let is_one = |uri: &String| {
                let drive = s.drives.iter().find(|d| d.uri == *uri);
                drive.and_then(|d| d.serial.as_ref()).is_some_and(|n| serials.contains(n))
            };
            s.volumes.iter().find(|v| {
                v.raid.as_deref() == Some(raid)
                    && v.drives.len() == serials.len()
                    && v.drives.iter().all(is_one)
            })
        })
    }
}

/// Who makes a boot volume, and of what kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeKind {
    /// A mirror of two drives by a RAID controller.
    #[default]
    HardwareRaid1,
}

impl VolumeKind {
    pub const ALL: [VolumeKind; 1] = [VolumeKind::HardwareRaid1];

    pub fn name(self) -> &'static str {
        match self {
            VolumeKind::HardwareRaid1 => "hardware-raid1",
        }
    }

    /// `RAIDType` (DSP0268 Volume).
    pub fn raid(self) -> &'static str {
        match self {
            VolumeKind::HardwareRaid1 => "RAID1",
        }
    }

    pub fn drives(self) -> usize {
        match self {
            VolumeKind::HardwareRaid1 => 2,
        }
    }
}

/// The volume that is to hold the operating system, made before the image is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootVolume {
    pub kind: VolumeKind,
    /// What a new one is called; one that is there may have another name.
    pub name: String,
    /// Id of the storage, or model of a controller or how it begins with a `*` at its end.
    pub controller: Option<String>,
    pub drives: DriveRule,
}

/// Which drives: all that is set must hold, and exactly as many as the volume takes may fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveRule {
    pub serials: Vec<String>,
    /// The whole model, or its beginning when it ends with `*`.
    pub model: Option<String>,
    pub kind: Option<DiskKind>,
    pub min_bytes: Option<u64>,
    pub max_bytes: Option<u64>,
}

impl DriveRule {
    pub fn fits(&self, drive: &Drive) -> bool {
        let by_serial = |d: &Drive| d.serial.as_ref().is_some_and(|s| self.serials.contains(s));
        let by_model = |rule: &String| drive.model.as_deref().is_some_and(|m| is_like(rule, m));
        (self.serials.is_empty() || by_serial(drive))
            && self.model.as_ref().is_none_or(by_model)
            && self.kind.is_none_or(|kind| drive.kind == Some(kind))
            && self.min_bytes.is_none_or(|min| drive.bytes.is_some_and(|b| b >= min))
            && self.max_bytes.is_none_or(|max| drive.bytes.is_some_and(|b| b <= max))
    }
}

impl BootVolume {
    /// Is that storage the one that it is to lie on?
    pub fn is_on(&self, storage: &Storage) -> bool {
        self.controller.as_ref().is_none_or(|rule| {
            rule.eq_ignore_ascii_case(&storage.id)
                || storage.models.iter().any(|m| is_like(rule, m))
        })
    }
}

/// The whole of `text`, or its beginning where the rule ends with `*`.
fn is_like(rule: &str, text: &str) -> bool {
    let text = text.trim();
    match rule.strip_suffix('*') {
        Some(start) => text.get(..start.len()).is_some_and(|t| t.eq_ignore_ascii_case(start)),
        None => text.eq_ignore_ascii_case(rule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(n: u8) -> Drive {
        Drive {
            id: format!("D{n}"),
            uri: format!("/d/{n}"),
            serial: Some(format!("SN{n}")),
            model: Some("Micron 5300 480GB".into()),
            bytes: Some(480_000_000_000),
            kind: Some(DiskKind::Ssd),
            ..Drive::default()
        }
    }

    #[test]
    fn every_line_of_a_drive_rule_must_hold() {
        let rule = DriveRule {
            model: Some("micron 5300*".into()),
            kind: Some(DiskKind::Ssd),
            min_bytes: Some(400_000_000_000),
            max_bytes: Some(500_000_000_000),
            ..DriveRule::default()
        };
        assert!(rule.fits(&drive(1)));
        assert!(!rule.fits(&Drive { bytes: None, ..drive(1) }), "a size that nobody knows");
        assert!(!rule.fits(&Drive { bytes: Some(960_000_000_000), ..drive(1) }));
        assert!(!rule.fits(&Drive { kind: Some(DiskKind::Hdd), ..drive(1) }));
        assert!(!rule.fits(&Drive { model: Some("Micron 7450".into()), ..drive(1) }));
        let serials = DriveRule { serials: vec!["SN2".into()], ..DriveRule::default() };
        assert!(serials.fits(&drive(2)) && !serials.fits(&drive(1)));
        assert!(!serials.fits(&Drive { serial: None, ..drive(2) }));
    }

    #[test]
    fn a_volume_is_known_by_level_and_drives_and_not_by_its_name() {
        let volume = |raid: &str, drives: &[u8]| Volume {
            raid: Some(raid.into()),
            drives: drives.iter().map(|n| format!("/d/{n}")).collect(),
            ..Volume::default()
        };
        let with = |volume| StorageFacts {
            parts: vec![Storage {
                drives: vec![drive(1), drive(2), drive(3)],
                volumes: vec![volume],
                ..Storage::default()
            }],
        };
        let wanted = ["SN1".to_string(), "SN2".to_string()];
        assert!(with(volume("RAID1", &[2, 1])).made("RAID1", &wanted).is_some());
        assert!(with(volume("RAID0", &[1, 2])).made("RAID1", &wanted).is_none());
        assert!(with(volume("RAID1", &[1, 3])).made("RAID1", &wanted).is_none());
        assert!(with(volume("RAID1", &[1, 2, 3])).made("RAID1", &wanted).is_none());
        assert!(with(volume("RAID1", &[1, 9])).made("RAID1", &wanted).is_none());
    }

    #[test]
    fn a_controller_goes_by_id_or_model() {
        let storage = Storage {
            id: "AHCI.Integrated.1-1".into(),
            models: vec!["BOSS-S2".into()],
            ..Storage::default()
        };
        let on = |rule: &str| {
            BootVolume { controller: Some(rule.into()), ..BootVolume::default() }.is_on(&storage)
        };
        assert!(on("ahci.integrated.1-1") && on("BOSS*") && on("boss-s2") && !on("PERC*"));
        assert!(BootVolume::default().is_on(&storage));
    }
}
