//! The daemon as an operator runs it takes machines from a blank disk into service and back to blank,
//! with nothing beside it but what a site has: its own DHCP or the site's, TFTP, boot server, ramdisk
//! and image; a hook for a cluster. And machines that are not what they were.

use crate::artefacts::{disk_image, ramdisk};
use crate::lab::{Lab, NEIGHBOUR};
use crate::machine::{Change, Firmware, Machine, Plan, emulator_is_here};
use crate::network;
use crate::site::{Line, Site};

/// What a machine is given whose line has no address.
const FIRST_OF_THE_RANGE: &str = "10.77.0.100";

/// The lab, once what the machines are to boot and to get is made.
fn lab() -> Option<Lab> {
    if !emulator_is_here() {
        return None;
    }
    ramdisk();
    disk_image();
    Lab::start()
}

fn enroll(site: &Site<'_>, machine: &Machine) {
    let words = ["--desired", "in-service", "--why", "first deployment"];
    site.cli(&[&["machine", "enroll", &machine.name], &words[..]].concat());
}

/// A machine of [`Line::to_the_ramdisk`] has come there; nothing was written, and it is switched off.
fn reaches_the_ramdisk(site: &Site<'_>, lab: &Lab, machine: &Machine) {
    site.heard(&machine.name, "the deploy ramdisk answers");
    site.quarantined(&machine.name, "no-root-disk", &["no local disk fits the rule", "LABDISK"]);
    machine.unplug(lab);
    assert!(machine.disk_is_blank(), "QEMU finds something on the disk");
}

/// Retired: the disk is blank by QEMU's word, the power off by the BMC's.
fn is_gone(site: &Site<'_>, machine: &Machine) {
    let history = site.history(&machine.name);
    println!("{history}");
    let deploys = history.matches("will do deploy-job").count();
    assert_eq!(deploys, 1, "one image, one write");
    assert_eq!(history.matches("will do wipe-job").count(), 1, "one wipe");
    assert!(machine.disk_is_blank(), "QEMU finds something on the disk");
    let system = machine.redfish("GET", "", None).unwrap();
    assert!(system.contains("\"PowerState\": \"Off\""), "{system}");
    site.say(&machine.name, "off, and blank by QEMU's word");
}

/// Farrier gives all addresses. One machine lives its life, and the daemon is killed twice in it; another
/// one's firmware boots by HTTP.
#[test]
fn the_daemon_takes_a_uefi_machine_from_blank_to_service_and_back() {
    let Some(mut lab) = lab() else { return };
    let u1 = lab.machine(&Plan::small("u1", Firmware::Uefi));
    let h1 = lab.machine(&Plan { http_only: true, ..Plan::small("h1", Firmware::Uefi) });
    // sushy-tools takes UefiHttp for Pxe, and reads back as Pxe: it is told that.
    // Without an address of its own it is given one of the range, and found there.
    let u1_line = Line { nics: network::STATIC, addressed: false, ..Line::of(&u1, "\"pxe\"") };
    let lines = [u1_line, Line::to_the_ramdisk(&h1, "\"pxe\"")];
    let mut site = Site::start(&lab, "reservation", &lines);
    enroll(&site, &u1);
    enroll(&site, &h1);
    reaches_the_ramdisk(&site, &lab, &h1);
    let log = site.log();
    let by_http = format!("http://{}:7121/loader/snponly.efi", crate::lab::GATEWAY);
    assert!(
        log.lines().any(|l| l.contains("h1") && l.contains(&by_http)),
        "h1 was not told {by_http}"
    );

    site.heard("u1", "will do deploy-job");
    site.kill_9("while the image is written");
    site.heard("u1", "override reads Hdd");
    site.kill_9("at the first boot");
    site.rests("u1", "in-service");
    network::is_static(&lab, &site.dir.join("ssh_key"), FIRST_OF_THE_RANGE);
    site.say("u1", "its seed gave it a static address");
    site.cli(&["machine", "set", "u1", "retired", "--why", "end of lease"]);
    site.rests("u1", "retired");
    is_gone(&site, &u1);
}

/// The inventory has two machines' BMCs the wrong way round.
#[test]
fn crossed_bmcs_switch_no_machine_on() {
    let Some(mut lab) = lab() else { return };
    let c1 = lab.machine(&Plan::small("c1", Firmware::Bios));
    let c2 = lab.machine(&Plan::small("c2", Firmware::Uefi));
    let lines = [Line::of(&c1, "\"pxe\""), Line::of(&c2, "\"pxe\"")];
    let crossed = [lines[0].with_bmc_of(&c2), lines[1].with_bmc_of(&c1)];
    let site = Site::start(&lab, "off", &crossed);
    for (machine, other) in [(&c1, &c2), (&c2, &c1)] {
        enroll(&site, machine);
        site.quarantined(&machine.name, "wrong-machine", &[&machine.uuid, &other.uuid]);
    }
    assert!(!c1.is_on(&lab) && !c2.is_on(&lab), "another machine was switched on");
    // Each is known once its cable is right.
    site.expects(&lines);
    site.cli(&["machine", "release", "c1", "c2", "--why", "the cables are right now"]);
    site.heard("c1", &format!("step `identify` done: serial not known, UUID {}", c1.uuid));
    site.cli(&["machine", "hold", "c1", "c2", "--why", "no life here"]);
}

/// The BMC is the right one, and the host behind it is another: it says so when it asks for an address,
/// gets nothing to boot, and the run learns of it at once and not by a callback that never comes.
#[test]
fn a_host_that_is_not_its_bmcs_machine_is_told_by_its_first_packet() {
    let Some(mut lab) = lab() else { return };
    let x1 = lab.machine(&Plan::small("x1", Firmware::Bios));
    x1.redefine(&lab, Change::Host);
    let site = Site::start(&lab, "reservation", &[Line::of(&x1, "\"pxe\"")]);
    enroll(&site, &x1);
    let asks = [&*x1.uuid, &x1.other_uuid(), "asks to boot with this machine's MAC"];
    site.quarantined("x1", "wrong-machine", &asks);
    let history = site.history("x1");
    println!("{history}");
    assert!(!history.contains("the deploy ramdisk answers"), "it booted:\n{history}");
    x1.unplug(&lab);
    assert!(x1.disk_is_blank(), "QEMU finds something on the disk");
}

/// dnsmasq gives the addresses and Farrier says what to boot. One machine lives its life, and is
/// sanitized only once it is the machine that is meant.
#[test]
fn beside_dnsmasq_a_bios_machine_is_wiped_only_while_it_is_the_one_that_is_meant() {
    let Some(mut lab) = lab() else { return };
    let b1 = lab.machine(&Plan::small("b1", Firmware::Bios));
    let p1 = lab.machine(&Plan::small("p1", Firmware::Uefi));
    // p1 gets what is free, as by a server that knows nobody.
    lab.neighbour(&[1]);
    let lines = [Line::of(&b1, "\"pxe\""), Line::to_the_ramdisk(&p1, "\"pxe\"")];
    let site = Site::start(&lab, "proxy", &lines);
    enroll(&site, &b1);
    enroll(&site, &p1);

    reaches_the_ramdisk(&site, &lab, &p1);
    let (theirs, ours) = (lab.neighbour_log(), site.log());
    assert!(theirs.contains("DHCPACK(eth0) 10.77.0.1"), "{theirs}");
    assert!(!theirs.contains("bootfile name"), "{NEIGHBOUR} said what to boot:\n{theirs}");
    assert!(ours.lines().any(|l| l.contains("p1") && l.contains("snponly.efi")), "{ours}");
    site.rests("b1", "in-service");

    // Switched off, and another board in it when the lease ends.
    b1.unplug(&lab);
    let before = b1.copy_of_disk();
    b1.redefine(&lab, Change::Board);
    site.cli(&["machine", "set", "b1", "retired", "--why", "end of lease"]);
    let both = [b1.uuid.clone(), b1.other_uuid()];
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    site.quarantined("b1", "wrong-machine", &both);
    assert!(!b1.is_on(&lab), "a machine that is another one was switched on");
    // A person who says that it is all right does not make it so.
    site.cli(&["machine", "release", "b1", "--why", "it is in its old place"]);
    site.quarantined("b1", "wrong-machine", &both);
    assert!(!b1.is_on(&lab) && b1.disk_is_as_in(&before), "the disk was written");

    // The BMC is the right one, and the host behind it is another: it says so when it asks for an
    // address, gets nothing to boot, and the run learns of it at once.
    b1.redefine(&lab, Change::Host);
    site.cli(&["machine", "release", "b1", "--why", "the old board is back"]);
    let asks = [both[0], both[1], "asks to boot with this machine's MAC"];
    site.quarantined("b1", "wrong-machine", &asks);
    b1.unplug(&lab);
    assert!(!site.history("b1").contains("will do wipe-job"), "another machine is wiped");
    // The lab's other host starts from the same disk, so its system may have written there.
    assert!(b1.has_partitions_of(&before), "the disk has other partitions");

    b1.redefine(&lab, Change::Nothing);
    site.cli(&["machine", "release", "b1", "--why", "the BMC's cable is in its own host"]);
    site.rests("b1", "retired");
    is_gone(&site, &b1);
}

/// It boots its disk whatever it is told, so the next method has its turn, and the system there still
/// lives meanwhile.
#[test]
#[ignore = "long form: `tests/run.sh --long --only vm`"]
fn a_machine_that_boots_its_old_disk_is_sanitized_by_the_next_method() {
    let Some(mut lab) = lab() else { return };
    let b1 = lab.machine(&Plan::small("b1", Firmware::Bios));
    let site = Site::start(&lab, "reservation", &[Line::of(&b1, "\"pxe\", \"virtual-media\"")]);
    enroll(&site, &b1);
    site.rests("b1", "in-service");
    b1.unplug(&lab);
    b1.redefine(&lab, Change::NoNetboot);
    site.cli(&["machine", "set", "b1", "retired", "--why", "end of lease"]);
    site.heard("b1", "booted debian from its disk and not the ramdisk by pxe");
    site.heard("b1", "will do wipe-job");
    assert!(site.history("b1").contains("insert"), "the next method is virtual media");
    site.rests("b1", "retired");
    is_gone(&site, &b1);
}

/// No DHCP at all: a CD in the BMC's drive, with an address on it. The host behind the BMC is another one
/// at first.
#[test]
fn without_dhcp_a_uefi_machine_gets_its_ramdisk_by_virtual_media() {
    let Some(mut lab) = lab() else { return };
    let m1 = lab.machine(&Plan::small("m1", Firmware::Uefi));
    m1.redefine(&lab, Change::Host);
    let site = Site::start(&lab, "off", &[Line::to_the_ramdisk(&m1, "\"virtual-media\"")]);
    enroll(&site, &m1);
    site.quarantined("m1", "wrong-machine", &[&m1.uuid, &m1.other_uuid()]);
    let history = site.history("m1");
    assert!(history.contains("the deploy ramdisk answers"), "{history}");
    assert!(!history.contains("will do deploy-job"), "{history}");
    m1.unplug(&lab);
    m1.redefine(&lab, Change::Nothing);
    site.cli(&["machine", "release", "m1", "--why", "the BMC's cable is in its own host"]);
    reaches_the_ramdisk(&site, &lab, &m1);
}
