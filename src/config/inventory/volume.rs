//! `[profile.boot_volume]`: a mirror that a RAID controller makes before the image is written.

use super::super::book::Place;
use super::super::table::Table;
use crate::model::deploy::{DiskKind, RootDisk};
use crate::model::identity::clean_serial;
use crate::model::storage::{BootVolume, DriveRule, VolumeKind};

/// `place`: where it stands. `root`: the rule for the disk that gets the image.
pub(super) fn boot_volume(
    t: &mut Table<'_, '_>,
    place: &mut Place,
    root: Option<&RootDisk>,
    with_image: bool,
) -> Option<BootVolume> {
    let mut t = t.table("boot_volume")?;
    *place = t.at;
    let kind = t.need_choice("kind", &VolumeKind::ALL.map(|k| (k.name(), k)));
    let name = match t.lacks("name") {
        true => "boot".to_string(),
        false => t.need_name("name").map(|n| n.value.to_string()).unwrap_or_default(),
    };
    let controller = t.text("controller").map(|c| c.value.trim().to_string());
    if t.lacks("drives") {
        t.missing("drives");
    }
    let drives = t.table("drives").map(|d| rule(d, kind.unwrap_or_default()));
    root_fits(&t, root, with_image);
    t.done();
    Some(BootVolume { kind: kind?, name, controller, drives: drives? })
}

/// Does the image go to that volume and to nothing else?
fn root_fits(t: &Table<'_, '_>, root: Option<&RootDisk>, with_image: bool) {
    let Some(root) = root.filter(|_| with_image) else {
        t.error(t.at, "`boot_volume` without an `image` that is written to it by `root_disk`")
            .hint("add `root_disk = { kind = \"raid\" }`, or what the volume's `model` is to the host");
        return;
    };
    if root.mirror {
        t.error(
            t.at,
            "`boot_volume` is a mirror already, and `root_disk` asks for a mirror of two",
        )
        .hint("the controller's mirror or md's: drop `boot_volume`, or `mirror` of `root_disk`");
    }
    match root.kind {
        Some(DiskKind::Virtio) => {
            t.error(t.at, "no volume of a RAID controller is a `virtio` disk");
        }
        Some(DiskKind::Raid) => {}
        _ if root.model.is_some() || root.by_id.is_some() || root.serial.is_some() => {}
        _ => {
            t.error(t.at, "`root_disk` may fit one of the drives as well as the volume of them")
                .hint("say `kind = \"raid\"`, or the `model` that the volume shows to the host");
        }
    }
}

fn rule(mut t: Table<'_, '_>, kind: VolumeKind) -> DriveRule {
    let mut rule =
        DriveRule { model: t.text("model").map(|m| m.value.trim().into()), ..DriveRule::default() };
    let kinds = [DiskKind::Nvme, DiskKind::Ssd, DiskKind::Hdd];
    rule.kind = t.choice("kind", &kinds.map(|k| (k.name(), k)));
    let gigabytes = |n: u64| n * 1_000_000_000;
    rule.min_bytes = t.integer("min_gb", 1..1_000_001).map(gigabytes);
    rule.max_bytes = t.integer("max_gb", 1..1_000_001).map(gigabytes);
    if let (Some(min), Some(max)) = (rule.min_bytes, rule.max_bytes)
        && min > max
    {
        t.error(t.at, "no drive has at least `min_gb` and at most `max_gb`");
    }
    for serial in t.texts("serials") {
        match clean_serial(serial.value) {
            Some(clean) if rule.serials.contains(&clean) => {
                t.error(serial.at, format!("`{clean}` is there twice"));
            }
            Some(clean) => rule.serials.push(clean),
            None => drop(t.error(serial.at, format!("`{}` is no serial number", serial.value))),
        }
    }
    let n = rule.serials.len();
    if n > 0 && n < kind.drives() {
        t.error(
            t.at,
            format!("{} takes {} drives, and `serials` has {n}", kind.raid(), kind.drives()),
        );
    }
    if rule == DriveRule::default() {
        t.error(t.at, "`drives` says nothing about them")
            .hint("give one or more of `model`, `kind`, `serials`, `min_gb`, `max_gb`");
    }
    t.done();
    rule
}
