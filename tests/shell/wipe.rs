//! wipe.sh: the machine that is meant, all of it, proven; any other machine, not a byte.

use crate::world::{OTHER, SERIAL, SWAPPED, UUID, World, worlds};
use farrier::model::action::JobScript;
use farrier::shell::script;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

fn wipe(w: &World, arguments: &[&str]) -> (Option<i32>, Value) {
    let payload = w.dir.path().join("wipe.sh");
    let result = w.dir.path().join("result");
    let _ = fs::remove_file(&result);
    fs::write(&payload, script::payload(JobScript::Wipe)).unwrap();
    let mut command = Command::new("sh");
    command.arg(&payload).args(arguments).env("FARRIER_RESULT", &result);
    let out = w.run(&mut command, "");
    let text = fs::read_to_string(&result).unwrap_or_else(|_| {
        panic!(
            "no result: {}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        )
    });
    (out.status.code(), serde_json::from_str(&text).unwrap())
}

/// Debian's busybox takes its own `dd` whatever is on the PATH; dash takes the shim.
fn shimmed() -> impl Iterator<Item = (&'static str, World)> {
    worlds().into_iter().filter(|(shell, _)| *shell == "dash")
}

/// Two disks of odd sizes, full of data.
fn disks(w: &World) -> Vec<(String, usize)> {
    let all = [("nvme0n1", 3 * 1024 * 1024 + 5 * 512 + 7), ("sd a", 4096)];
    for (name, size) in all {
        let data: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap() + 1).collect();
        w.file(&format!("dev/disk/{name}"), data);
    }
    all.map(|(n, s)| (format!("dev/disk/{n}"), s)).to_vec()
}

fn bytes(w: &World, path: &str) -> Vec<u8> {
    fs::read(w.root.join(path)).unwrap()
}

#[test]
fn the_right_machine_is_overwritten_and_read_back() {
    for (shell, w) in worlds() {
        for (uuid, serial) in
            [(UUID, SERIAL), (SWAPPED, "-"), ("-", SERIAL), (UUID, "To be filled by O.E.M.")]
        {
            let disks = disks(&w);
            // A link out of the directory must not be followed.
            let outside = w.dir.path().join("outside");
            fs::write(&outside, vec![7; 9000]).unwrap();
            let _ = fs::remove_file(w.root.join("dev/disk/link"));
            symlink(&outside, w.root.join("dev/disk/link")).unwrap();
            let (exit, v) = wipe(&w, &[uuid, serial]);
            assert_eq!(exit, Some(0), "{shell}: {v}");
            assert_eq!(v["verified"], true);
            assert_eq!(v["drives"].as_array().unwrap().len(), 2, "{v}");
            for (i, (path, size)) in disks.iter().enumerate() {
                let now = bytes(&w, path);
                assert_eq!(now.len(), *size, "{shell}: {path} kept its size");
                assert!(now.iter().all(|b| *b == 0), "{shell}: {path} is zero");
                assert_eq!(v["drives"][i]["bytes"], *size);
                assert_eq!(v["drives"][i]["verified"], true);
            }
            assert_eq!(fs::read(&outside).unwrap(), vec![7; 9000], "{shell}");
        }
    }
}

#[test]
fn another_machine_keeps_every_byte() {
    for (shell, w) in worlds() {
        let disks = disks(&w);
        let before: Vec<_> = disks.iter().map(|(p, _)| bytes(&w, p)).collect();
        let refused = |arguments: &[&str], why: &str| {
            let (exit, v) = wipe(&w, arguments);
            assert_eq!(exit, Some(3), "{shell}: {arguments:?}: {v}");
            assert_eq!(v["verified"], false);
            assert!(v["refused"].as_str().unwrap().contains(why), "{shell}: {arguments:?}: {v}");
            for ((path, _), old) in disks.iter().zip(&before) {
                assert!(bytes(&w, path) == *old, "{shell}: {path} is untouched");
            }
        };
        refused(&[OTHER, SERIAL], "another machine");
        refused(&[UUID, "FRR-0043"], "another machine");
        refused(&[OTHER, "-"], "another machine");
        // Unknown is not "the same": not expected, not programmed, not readable, not sensible.
        let unknown = "nobody can tell";
        refused(&["-", "-"], unknown);
        refused(&["", ""], unknown);
        refused(&["00000000-0000-0000-0000-000000000000", "Default string"], unknown);
        refused(&["*", "-"], unknown);
        refused(&["*", "*"], "another machine");
        w.file("sys/class/dmi/id/product_uuid", "Not Settable\n");
        refused(&[UUID, "-"], unknown);
        fs::remove_file(w.root.join("sys/class/dmi/id/product_uuid")).unwrap();
        fs::remove_file(w.root.join("sys/class/dmi/id/product_serial")).unwrap();
        refused(&[UUID, SERIAL], unknown);
        let (exit, v) = wipe(&w, &[]);
        assert_eq!(exit, Some(4), "{shell}: no expectation at all: {v}");
        assert!(bytes(&w, &disks[0].0) == before[0]);
    }
}

/// No FARRIER_ROOT: this is the machine that runs the test. Every tool that could write is a
/// shim that only takes a note, so that even a script that failed to refuse would harm nothing.
#[test]
fn it_refuses_the_machine_that_runs_this_test() {
    for (shell, w) in shimmed() {
        let calls = w.dir.path().join("calls");
        for tool in ["dd", "lsblk", "blockdev", "wipefs", "blkdiscard", "nvme", "shred"] {
            w.shim(tool, &format!("echo \"{tool} $*\" >>'{}'", calls.display()));
        }
        for arguments in [[OTHER, "-"], [OTHER, "FRR-of-another"], ["-", "-"]] {
            let payload = w.dir.path().join("wipe.sh");
            let result = w.dir.path().join("result");
            let _ = fs::remove_file(&result);
            fs::write(&payload, script::payload(JobScript::Wipe)).unwrap();
            let mut command = Command::new("sh");
            command.arg(&payload).args(arguments);
            command.env("FARRIER_RESULT", &result).env("FARRIER_ROOT", "");
            let out = w.run(&mut command, "");
            assert_eq!(out.status.code(), Some(3), "{shell}");
            let v: Value = serde_json::from_str(&fs::read_to_string(&result).unwrap()).unwrap();
            assert!(v["refused"].is_string(), "{v}");
            assert!(
                !calls.exists(),
                "{shell}: not even a look at the disks: {:?}",
                fs::read_to_string(&calls)
            );
        }
    }
}

#[test]
fn a_doubt_about_one_disk_spares_all() {
    for (shell, w) in worlds() {
        let disks = disks(&w);
        let before = bytes(&w, &disks[0].0);
        w.file("dev/disk/zz-tiny", "small");
        let (exit, v) = wipe(&w, &[UUID, SERIAL]);
        assert_eq!(exit, Some(4), "{shell}: {v}");
        assert_eq!(v["verified"], false);
        assert_eq!(v["error"], "zz-tiny: 5 bytes is no disk, nothing was written");
        assert!(bytes(&w, &disks[0].0) == before, "{shell}");
        for (path, _) in &disks {
            fs::remove_file(w.root.join(path)).unwrap();
        }
        fs::remove_file(w.root.join("dev/disk/zz-tiny")).unwrap();
        let (exit, v) = wipe(&w, &[UUID, SERIAL]);
        assert_eq!((exit, &v["verified"]), (Some(4), &Value::Bool(false)), "no disk is no success");
    }
}

/// A disk that loses writes, or one where old data shines through, is never called wiped.
#[test]
fn what_does_not_read_back_is_not_verified() {
    for (shell, w) in shimmed() {
        disks(&w);
        let real = |tool: &str| {
            w.path
                .split(':')
                .skip(1)
                .map(|d| format!("{d}/{tool}"))
                .find(|p| fs::exists(p).unwrap())
                .unwrap()
        };
        let dd = real("dd");
        // Drops every write of zeros to the first disk.
        w.shim(
            "dd",
            &format!("case \"$*\" in *if=/dev/zero*nvme0n1*) exit 0 ;; esac\nexec {dd} \"$@\""),
        );
        let (exit, v) = wipe(&w, &[UUID, SERIAL]);
        assert_eq!(exit, Some(5), "{shell}: {v}");
        assert_eq!(v["verified"], false);
        assert_eq!(v["drives"][0]["verified"], false);
        assert!(v["drives"][0]["error"].as_str().unwrap().contains("still there"), "{v}");
        assert_eq!(v["drives"][1]["verified"], true, "{shell}: the other one is");
        // Takes only the first mebibyte.
        disks(&w);
        w.shim("dd", &format!("case \"$*\" in *seek=6144*if=/dev/zero*|*if=/dev/zero*nvme0n1*seek=6144*) exit 0 ;; esac\nexec {dd} \"$@\""));
        let (_, v) = wipe(&w, &[UUID, SERIAL]);
        assert_eq!(v["drives"][0]["verified"], false, "{shell}: {v}");
        // Drops all writes: the marker never arrives.
        disks(&w);
        w.shim(
            "dd",
            &format!("case \"$*\" in *of=*) cat >/dev/null; exit 0 ;; esac\nexec {dd} \"$@\""),
        );
        let (_, v) = wipe(&w, &[UUID, SERIAL]);
        assert!(
            v["drives"][0]["error"].as_str().unwrap().contains("not read back"),
            "{shell}: {v}"
        );
    }
}

/// Which block devices count, by what `lsblk` says (a shim; nothing is opened).
#[test]
fn only_local_disks_are_listed() {
    for (shell, w) in worlds() {
        w.shim(
            "lsblk",
            r#"cat <<'X'
NAME="sda" TYPE="disk" RM="0" RO="0" TRAN="sata"
NAME="sdb" TYPE="disk" RM="0" RO="0" TRAN="sas"
NAME="sdc" TYPE="disk" RM="1" RO="0" TRAN="usb"
NAME="sdd" TYPE="disk" RM="0" RO="0" TRAN="iscsi"
NAME="sde" TYPE="disk" RM="0" RO="0" TRAN="fc"
NAME="sdf" TYPE="disk" RM="0" RO="0" TRAN=""
NAME="sdg" TYPE="disk" RM="0" RO="1" TRAN="sata"
NAME="sdh" TYPE="disk" RM="1" RO="0" TRAN="sata"
NAME="zram0" TYPE="disk" RM="0" RO="0" TRAN=""
NAME="loop0" TYPE="loop" RM="0" RO="0" TRAN=""
NAME="sr0" TYPE="rom" RM="1" RO="0" TRAN="sata"
NAME="nvme9n9" TYPE="disk" RM="0" RO="0" TRAN="nvme"
X"#,
        );
        let payload = w.dir.path().join("wipe.sh");
        fs::write(&payload, script::payload(JobScript::Wipe)).unwrap();
        let out = w.run(Command::new("sh").arg(&payload).arg("--list").env("FARRIER_ROOT", ""), "");
        let text = String::from_utf8(out.stdout).unwrap();
        let lines: Vec<_> =
            text.lines().map(|l| l.split('\t').take(2).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "wipe sda",
                "wipe sdb",
                "skip sdc",
                "skip sdd",
                "skip sde",
                "doubt sdf",
                "doubt sdg",
                "skip sdh",
                "skip zram0",
                "skip loop0",
                "skip sr0",
                "doubt nvme9n9",
            ],
            "{shell}"
        );
    }
}
