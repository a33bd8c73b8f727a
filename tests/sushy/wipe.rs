//! The shipped wipe on the machine that runs this test, without FARRIER_ROOT: it would write to its
//! real disks. The UUID it is given is nobody's, so it must refuse.

use crate::world::Clock;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Random, and no machine's.
const NOBODY: &str = "0b8e6f0c-3d7a-4c1f-9a55-6e2d1c9f7b34";

/// Whatever the script could look at disks with, or write to them. Each is a shim that only says
/// that it was called: even a script that does not refuse could do no harm here.
const TOOLS: [&str; 6] = ["lsblk", "dd", "blockdev", "blkid", "nvme", "sync"];

#[test]
fn the_wipe_refuses_the_machine_that_runs_the_tests() {
    let clock = Clock::start();
    let dir = tempfile::tempdir().unwrap();
    let calls = dir.path().join("calls");
    for tool in TOOLS {
        let path = dir.path().join(tool);
        let text = format!("#!/bin/sh\necho {tool} \"$@\" >>'{}'\nexit 1\n", calls.display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let shell = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/shell");
    let part = |name: &str| fs::read_to_string(shell.join(name)).unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", dir.path().display());
    let text = part("identity.sh") + &part("wipe.sh");
    let result = dir.path().join("result");
    let wipe = |args: &[&str]| {
        let mut child = Command::new("sh")
            .args(["-s", "--"])
            .args(args)
            .env_clear()
            .env("PATH", &path)
            .env("FARRIER_RESULT", &result)
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).ok();
        child.wait_with_output().unwrap()
    };
    // Both: the serial unknown, and a serial that nobody has.
    for serial in ["-", "FARRIER-TEST-NOBODY"] {
        let out = wipe(&[NOBODY, serial]);
        let said = String::from_utf8_lossy(&out.stdout);
        assert_eq!(out.status.code(), Some(3), "{said}{}", String::from_utf8_lossy(&out.stderr));
        let said: Value = serde_json::from_str(&fs::read_to_string(&result).unwrap()).unwrap();
        assert_eq!((&said["verified"], &said["drives"]), (&false.into(), &Value::Array(vec![])));
        let why = said["refused"].as_str().expect("a reason");
        // Where this machine's DMI can be read it is another machine, else nobody can tell.
        assert!(why.contains("machine"), "{why}");
        assert!(why.contains(&NOBODY.replace('-', "")), "{why}");
        clock.say(why);
    }
    assert!(!calls.exists(), "it went on: {}", fs::read_to_string(&calls).unwrap_or_default());
    // A look at the disks would have been seen: the line above means something.
    wipe(&["--list"]);
    assert!(fs::read_to_string(&calls).is_ok_and(|c| c.starts_with("lsblk ")));
}
