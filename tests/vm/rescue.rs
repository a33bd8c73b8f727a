//! A person looks at an installed machine from the deploy ramdisk, and nothing on its disk changes.

use crate::artefacts::{disk_image, ramdisk};
use crate::lab::{Lab, until};
use crate::life::keygen;
use crate::login::Login;
use crate::machine::{Firmware, Machine, Plan, emulator_is_here};
use crate::site::{LONG, Line, Site};
use serde_json::Value;
use std::path::Path;

/// A person asks for a machine that rests in repair, off, with its disk as in `before`; logs in, and gives
/// it back. The login that counted meanwhile.
fn from_the_order_to_its_end<'a>(
    lab: &'a Lab,
    site: &Site<'_>,
    machine: &Machine,
    before: &Path,
) -> Login<'a> {
    let name = &*machine.name;
    let ours = site.dir.join("ssh_key");
    let theirs = lab.path("person");
    keygen(&theirs);
    let public = theirs.with_extension("pub").display().to_string();
    site.cli(&["machine", "rescue", name, "--key", &public, "--why", "look at the log"]);
    site.heard(name, "the rescue is up");
    let said = site.cli(&["machine", "rescue", name, "--json"]);
    let rescue: Value = serde_json::from_str(&said).unwrap();
    let word = |key: &str| rescue[key].as_str().unwrap_or_else(|| panic!("no {key}: {said}"));
    let person = Login::new(lab, &theirs, word("address"), word("host_key"));
    for login in [&person, &person.with_key(&ours)] {
        let seen = login.ask("cat /proc/cmdline; test -b /dev/vda && echo disk");
        let seen = seen.expect("the ramdisk lets the person and Farrier in");
        assert!(seen.contains("farrier.seed=") && seen.ends_with("disk"), "{seen}");
    }
    let nobody = lab.path("nobody");
    keygen(&nobody);
    assert_eq!(person.with_key(&nobody).ask("true"), None, "it lets in whom nobody named");
    site.say(name, "the person and Farrier log in, and nobody else");

    site.cli(&["machine", "rescue", name, "--end", "--why", "seen enough"]);
    site.heard(name, "the rescue was ended");
    site.rests(name, "repair");
    let power = machine.redfish("GET", "", None).unwrap();
    assert!(power.contains("\"PowerState\": \"Off\""), "{power}");
    assert!(machine.disk_is_as_in(before), "the disk was written");
    site.say(name, "off, and its disk as it was by QEMU's word");

    person
}

#[test]
#[ignore = "long form: `tests/run.sh --long --only vm`"]
fn a_person_looks_at_an_installed_machine_from_the_ramdisk() {
    if !emulator_is_here() {
        return;
    }
    ramdisk();
    disk_image();
    let Some(mut lab) = Lab::start() else { return };
    let machine = lab.machine(&Plan::small("r1", Firmware::Bios));
    let site = Site::start(&lab, "reservation", &[Line::of(&machine, "\"pxe\"")]);
    site.cli(&["machine", "enroll", "r1", "--desired", "in-service", "--why", "first deployment"]);
    site.rests("r1", "in-service");
    let ours = site.dir.join("ssh_key");
    let system = Login::as_it_is(&lab, &ours, &machine.address);
    let mark = system.ask("cat /etc/farrier/image").expect("the installed system lets Farrier in");
    site.cli(&["machine", "set", "r1", "drained", "--why", "ECC errors"]);
    site.rests("r1", "drained");
    site.cli(&["machine", "repair", "r1", "--why", "ECC errors"]);
    site.rests("r1", "repair");
    machine.unplug(&lab);
    let before = machine.copy_of_disk();

    let person = from_the_order_to_its_end(&lab, &site, &machine, &before);

    // Nothing of it is left in the way: the next boot is the disk's.
    machine.power("On");
    let again = until("the system answers with the key that was pinned", LONG, || {
        system.ask("cat /etc/farrier/image")
    });
    assert_eq!(again, mark);
    assert_eq!(person.ask("true"), None, "the person's key or the ramdisk's host key lives on");
    site.say("r1", "boots its disk, and shows the key that was pinned");
    println!("{}", site.history("r1"));
}
