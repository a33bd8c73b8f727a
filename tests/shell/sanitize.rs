//! What wipe.sh chooses for a drive, by what the drive says it can do. The drives' tools are shims that
//! print captured shapes; nothing is written to anything.

use crate::world::World;
use farrier::model::action::JobScript;
use farrier::shell::script;
use std::fs;

/// The functions of wipe.sh without its last line, then `calls`.
fn functions(w: &World, calls: &str) -> String {
    let text = script::payload(JobScript::Wipe);
    let text = text.strip_suffix("main \"$@\"\n").expect("wipe.sh ends with its call");
    let work = w.dir.path().join("work");
    fs::create_dir_all(&work).unwrap();
    w.sh(&format!("{text}\nroot=\nwork='{}'\n{calls}\n", work.display()))
}

/// Identify Controller with these bytes, as `nvme id-ctrl -b` gives it.
fn nvme(w: &World, oacs: u8, sanicap: u8, fna: u8) {
    let mut id = vec![0_u8; 4096];
    (id[256], id[328], id[524]) = (oacs, sanicap, fna);
    let file = w.dir.path().join("id");
    fs::write(&file, id).unwrap();
    w.shim("nvme", &format!("[ \"$1\" = id-ctrl ] && exec cat '{}'\nexit 1", file.display()));
}

fn ways(w: &World, name: &str, how: &str) -> Vec<String> {
    let said = functions(w, &format!("ways {name} /dev/{name} {how}"));
    said.split_whitespace().map(String::from).collect()
}

#[test]
fn an_nvme_drive_gets_the_best_that_it_names() {
    let w = World::new();
    for (oacs, sanicap, fna, wanted) in [
        (0, 0, 0, &["overwrite"][..]),
        (2, 0, 0, &["nvme-format", "overwrite"][..]),
        (2, 0, 4, &["nvme-format-crypto", "nvme-format", "overwrite"][..]),
        (0, 1, 0, &["nvme-crypto", "overwrite"][..]),
        (
            2,
            7,
            4,
            &[
                "nvme-block",
                "nvme-crypto",
                "nvme-overwrite",
                "nvme-format-crypto",
                "nvme-format",
                "overwrite",
            ][..],
        ),
    ] {
        nvme(&w, oacs, sanicap, fna);
        assert_eq!(ways(&w, "nvme7n9", "nvme"), wanted, "OACS {oacs} SANICAP {sanicap} FNA {fna}");
    }
    w.shim("nvme", "exit 1");
    assert_eq!(ways(&w, "nvme7n9", "nvme"), ["overwrite"], "a controller that does not answer");
}

/// As `hdparm -I` prints it.
fn hdparm(w: &World, features: &str, security: &str) {
    let text = format!(
        "/dev/sdx:\n\nATA device, with non-removable media\nCommands/features:\n\tEnabled\tSupported:\n\
         {features}Security:\n\tMaster password revision code = 65534\n{security}\
         Logical Unit WWN Device Identifier: 500a075\nChecksum: correct\n"
    );
    let file = w.dir.path().join("identify");
    fs::write(&file, text).unwrap();
    w.shim("hdparm", &format!("[ \"$1\" = -I ] && exec cat '{}'\nexit 1", file.display()));
}

#[test]
fn an_ata_drive_that_is_frozen_is_not_asked() {
    let w = World::new();
    let thawed = "\t\tsupported\n\tnot\tenabled\n\tnot\tlocked\n\tnot\tfrozen\n\tnot\texpired: security count\n\
                  \t\tsupported: enhanced erase\n";
    hdparm(&w, "", thawed);
    assert_eq!(ways(&w, "sdx", "sata"), ["ata-enhanced", "ata-erase", "overwrite"]);
    hdparm(&w, "", &thawed.replace("\tnot\tfrozen", "\t\tfrozen"));
    assert_eq!(ways(&w, "sdx", "sata"), ["ata-frozen", "overwrite"]);
    // Somebody's password is on it.
    hdparm(&w, "", &thawed.replace("\tnot\tenabled", "\t\tenabled"));
    assert_eq!(ways(&w, "sdx", "sata"), ["overwrite"]);
    hdparm(&w, "", &thawed.replace("\t\tsupported\n", "\tnot\tsupported\n"));
    assert_eq!(ways(&w, "sdx", "sata"), ["overwrite"]);
    let sanitize = "\t   *\tSANITIZE feature set\n\t   *\tCRYPTO_SCRAMBLE_EXT command\n\t   *\tBLOCK_ERASE_EXT command\n";
    hdparm(&w, sanitize, thawed);
    assert_eq!(
        ways(&w, "sdx", "sata"),
        ["ata-block", "ata-crypto", "ata-enhanced", "ata-erase", "overwrite"]
    );
}

/// No way claims more than IEEE 2883-2022 grants it.
#[test]
fn only_sanitize_commands_claim_a_purge() {
    let w = World::new();
    let all = [
        ("nvme-block", "purge"),
        ("nvme-crypto", "purge"),
        ("nvme-overwrite", "purge"),
        ("nvme-format-crypto", "clear"),
        ("nvme-format", "clear"),
        ("ata-block", "purge"),
        ("ata-crypto", "purge"),
        ("ata-enhanced", "clear"),
        ("ata-erase", "clear"),
        ("scsi-block", "purge"),
        ("scsi-crypto", "purge"),
        ("discard", "clear"),
        ("overwrite", "clear"),
    ];
    for (way, class) in all {
        let said = functions(
            &w,
            &format!("about {way}\nprintf '%s|%s|%s' \"$method\" \"$class\" \"$claims\""),
        );
        let fields: Vec<_> = said.split('|').collect();
        assert_eq!(fields[1], class, "{way}");
        assert!(
            fields[2].starts_with(&format!("IEEE 2883-2022 {class}, NIST SP 800-88r2 {class}")),
            "{said}"
        );
        assert!(!fields[0].is_empty());
    }
}

/// The sanitize log is what counts, not that the command was taken.
#[test]
fn the_sanitize_log_is_believed() {
    let w = World::new();
    for (state, taken) in [(1, "0"), (4, "0"), (3, "1"), (0, "1")] {
        let mut log = vec![0_u8; 512];
        log[2] = state;
        let file = w.dir.path().join("log");
        fs::write(&file, log).unwrap();
        w.shim(
            "nvme",
            &format!("case $1 in sanitize-log) exec cat '{}' ;; esac\nexit 0", file.display()),
        );
        let said = functions(&w, "why=\nnvme_sanitize nvme7n9 2\nprintf '%s %s' $? \"$why\"");
        assert!(said.starts_with(taken), "state {state}: {said}");
        assert_eq!(taken == "1", said.contains("the sanitize log says"), "{said}");
    }
}
