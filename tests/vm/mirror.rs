//! The daemon puts a machine with two disks on a mirror of them; then somebody pulls one.

use crate::artefacts::{disk_image, ramdisk};
use crate::lab::{Lab, until};
use crate::login::Login;
use crate::machine::{Firmware, Machine, Plan, blank, emulator_is_here};
use crate::site::{LONG, Line, Site};
use std::fs;
use std::path::Path;
use std::process::Command;

/// libvirt's word for a disk in one of the machine's slots: a file with it.
fn slot(lab: &Lab, machine: &Machine, disk: &Path, target: &str, serial: &str) -> String {
    let xml = lab.path(&format!("{}-{target}.xml", machine.name));
    fs::write(
        &xml,
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='unsafe' discard='unmap'/>\
             <source file='{}'/><target dev='{target}' bus='virtio'/><serial>{serial}</serial></disk>",
            disk.display()
        ),
    )
    .unwrap();
    xml.display().to_string()
}

fn is_blank(disk: &Path) -> bool {
    let other = disk.with_extension("blank");
    blank(&other, "1G");
    Command::new("qemu-img").arg("compare").arg(disk).arg(&other).output().unwrap().status.success()
}

#[test]
#[ignore = "long form: `tests/run.sh --long --only vm`"]
fn a_mirror_starts_from_either_of_its_disks() {
    if !emulator_is_here() {
        return;
    }
    ramdisk();
    disk_image();
    let Some(mut lab) = Lab::start() else { return };
    let plan = Plan::small("m1", Firmware::Uefi);
    let machine = lab.machine(&plan);
    let second = lab.path("m1-second.qcow2");
    blank(&second, "1G");
    let first_slot = slot(&lab, &machine, &machine.disk, "vda", "LABDISK1");
    let second_slot = slot(&lab, &machine, &second, "vdb", "LABDISKB");
    lab.virsh(&["attach-device", "m1", &second_slot, "--config"]);
    let mirrored = "kind = \"virtio\", min_gb = 1, mirror = true";
    let line = Line { root_disk: mirrored, ..Line::of(&machine, "\"pxe\"") };
    let site = Site::start(&lab, "reservation", &[line]);
    site.cli(&["machine", "enroll", "m1", "--desired", "in-service", "--why", "first deployment"]);
    site.heard("m1", "will do deploy-job");
    site.heard("m1", "override reads Hdd");
    site.rests("m1", "in-service");
    let history = site.cli(&["machine", "history", "m1", "--all"]);
    assert!(history.contains("on a mirror of 2 disks"), "{history}");
    let system = Login::as_it_is(&lab, &site.dir.join("ssh_key"), &machine.address);
    let md = system.ask("cat /proc/mdstat").unwrap();
    assert!(md.contains("raid1") && md.contains("[2/2]"), "{md}");
    println!("{md}");

    // Somebody pulls the first disk.
    site.cli(&["machine", "hold", "m1", "--why", "a disk is pulled"]);
    machine.power("ForceOff");
    lab.virsh(&["detach-device", "m1", &first_slot, "--config"]);
    machine.boot("Hdd");
    let md = until("the second disk alone answers with the pinned key", LONG, || {
        system.ask("cat /proc/mdstat && cat /etc/farrier/image")
    });
    site.say("m1", "the second disk alone answers with the pinned key");
    println!("{md}");
    assert!(md.contains("[2/1]") && md.contains("image=debian"), "{md}");

    // Both are in their slots again, and both are sanitized.
    machine.power("ForceOff");
    lab.virsh(&["attach-device", "m1", &first_slot, "--config"]);
    site.cli(&["machine", "unhold", "m1", "--why", "back in its slot"]);
    site.cli(&["machine", "set", "m1", "retired", "--why", "end of lease"]);
    site.rests("m1", "retired");
    let history = site.history("m1");
    println!("{history}");
    assert!(history.contains("2 drives sanitized and read back"), "{history}");
    // md's superblocks and what each disk held are gone with all else.
    assert!(is_blank(&machine.disk) && is_blank(&second), "QEMU finds something on a disk");
    site.say("m1", "off, and both blank by QEMU's word");
}
