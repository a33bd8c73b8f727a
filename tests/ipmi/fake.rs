//! A program in ipmitool's place, which notes how it was called.

use super::settings;
use farrier::ipmi::Settings;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

pub(crate) struct Fake {
    pub(crate) dir: tempfile::TempDir,
}

/// A BMC that is in order: on, with the serial `S1`.
pub(crate) const WHOLE: &str = r#"
case "$words" in
"chassis power status") echo "Chassis Power is $(cat power 2>/dev/null || echo on)" ;;
"chassis power "*) echo "Chassis Power Control: ok" ;;
"fru print 0") echo " Product Serial        : S1" ;;
"raw 0x06 0x37") echo " 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff" ;;
"raw 0x00 0x08 "*) echo ;;
"chassis bootdev "*) ;;
"chassis bootparam get 5") echo "Boot parameter data: a004000000" ;;
"mc reset cold") echo "Sent cold reset command to MC" ;;
*) echo "Invalid command: $words" >&2; exit 1 ;;
esac
"#;

impl Fake {
    /// `body` sees `$words` (the command), `$suite` (what follows -C, or `listed`) and `$level`. Its
    /// directory is its own.
    pub(crate) fn new(body: &str) -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
suite=listed level=ADMINISTRATOR
all="$*"
while [ $# -gt 0 ]; do
    case "$1" in
    -C) suite=$2; shift 2 ;;
    -L) level=$2; shift 2 ;;
    -I|-H|-p|-U|-N|-R) shift 2 ;;
    -v|-E) shift ;;
    *) break ;;
    esac
done
words="$*"
echo "$suite $level $words" >> calls
echo "$all" >> argv
printf '%s\n' "$IPMI_PASSWORD" > password
{body}"#
        );
        // Written by another process: a file that this one has open for writing while some other
        // test forks can't be run.
        let mut writer = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(dir.path().join("ipmitool"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writer.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        Fake { dir }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings { program: self.path("ipmitool"), ..settings() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// `suite level words` of every call so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.read("calls").lines().map(str::to_string).collect()
    }

    pub(crate) fn forget(&self) {
        std::fs::remove_file(self.path("calls")).ok();
    }
}
