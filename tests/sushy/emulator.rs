//! The BMC: OpenStack's `sushy-emulator` with its fake driver, a program that nobody of this
//! project wrote. It has no session service (Basic logins), takes a power change 1 to 11 real
//! seconds later, knows no `Once` override, and has neither a firmware inventory nor a serial
//! number.

use crate::http;
use crate::world::{Clock, Running, poll};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) const USER: &str = "farrier";
pub(crate) const PASSWORD: &str = "sushi-and-rice";
/// bcrypt of [`PASSWORD`], cost 4: the only kind that the emulator takes.
const HASH: &str = "$2b$04$hPBEhOgb8u.nnSndU9CSRuUUGi.mBqkReY3GzIaYeZMJNB1M.suIy";

pub(crate) struct Emulator {
    _process: Running,
    pub(crate) url: String,
    uuid: String,
    log: PathBuf,
}

/// Where tests/run.sh puts it.
fn program() -> PathBuf {
    let program = std::env::var_os("FARRIER_SUSHY_EMULATOR").map_or_else(
        || {
            let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
                || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
                PathBuf::from,
            );
            cache.join("farrier-tests/sushy-tools-2.2.0/bin/sushy-emulator")
        },
        PathBuf::from,
    );
    assert!(
        program.exists(),
        "no {}: `bash tests/run.sh --only sushy` installs it",
        program.display()
    );
    program
}

impl Emulator {
    /// One system with one NIC. Its log says each reset and each boot override.
    pub(crate) fn start(dir: &Path, clock: &Clock, uuid: &str, mac: &str, power: &str) -> Self {
        let dir = dir.join("bmc");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("htpasswd"), format!("{USER}:{HASH}\n")).unwrap();
        fs::write(
            dir.join("conf.py"),
            format!(
                "import logging\n\
                 logging.basicConfig(level=logging.INFO, format='%(message)s')\n\
                 SUSHY_EMULATOR_AUTH_FILE = '{d}/htpasswd'\n\
                 SUSHY_EMULATOR_STATE_DIR = '{d}/state'\n\
                 SUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': '{uuid}', 'name': 'node',\n\
                 \x20   'power_state': '{power}', 'nics': [{{'mac': '{mac}', 'ip': '127.0.0.1'}}]}}]\n",
                d = dir.display()
            ),
        )
        .unwrap();
        let log = dir.join("log");
        let port = crate::world::free_port();
        let mut command = Command::new(program());
        command.args(["--fake", "-i", "127.0.0.1", "-p", &port.to_string(), "--config"]);
        command.arg(dir.join("conf.py")).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(&log).unwrap());
        let process = Running::start(&mut command);
        let url = format!("http://127.0.0.1:{port}");
        let emulator = Self { _process: process, url, uuid: uuid.into(), log };
        let root = format!("{}/redfish/v1/", emulator.url);
        clock.until("sushy-emulator answers", 60, || {
            http::get(&root, None).is_ok_and(|a| a.status == 200)
        });
        emulator
    }

    /// The system, as the emulator shows it to anybody.
    pub(crate) fn system(&self) -> Result<Value, String> {
        let url = format!("{}/redfish/v1/Systems/{}", self.url, self.uuid);
        let answer = http::get(&url, Some((USER, PASSWORD)))?;
        match answer.status {
            200 => Ok(answer.json()),
            status => Err(format!("{url}: {status}")),
        }
    }

    pub(crate) fn power(&self) -> String {
        let read = || self.system().ok().and_then(|s| s["PowerState"].as_str().map(String::from));
        poll("the power state", 20, read)
    }

    /// (`BootSourceOverrideTarget`, `BootSourceOverrideEnabled`).
    pub(crate) fn boot(&self) -> (String, String) {
        let system = poll("the system", 20, || self.system().ok());
        let word = |key: &str| system["Boot"][key].as_str().unwrap_or("").to_string();
        (word("BootSourceOverrideTarget"), word("BootSourceOverrideEnabled"))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// ResetType of each reset that was taken, in order.
    pub(crate) fn resets(&self) -> Vec<String> {
        self.said("power state set to \"")
    }

    /// Target of each boot override that was taken, in order.
    pub(crate) fn overrides(&self) -> Vec<String> {
        self.said("Set boot device to \"")
    }

    fn said(&self, before: &str) -> Vec<String> {
        let log = self.log();
        let words = log.lines().filter_map(|line| line.split_once(before));
        words.map(|(_, rest)| rest.split('"').next().unwrap_or("").to_string()).collect()
    }

    /// Requests that are not reads.
    pub(crate) fn writes(&self) -> usize {
        let is_write =
            |l: &&str| ["POST /", "PATCH /", "PUT /", "DELETE /"].iter().any(|w| l.contains(w));
        self.log().lines().filter(is_write).count()
    }
}
