//! Logging in as a person does: with one key, to a host that has to show one host key and no other.

use crate::lab::{Lab, run};
use std::fs;
use std::path::{Path, PathBuf};

/// A private key, and the host key that counts.
pub(crate) struct Login<'a> {
    lab: &'a Lab,
    key: PathBuf,
    known_hosts: PathBuf,
    address: String,
}

impl<'a> Login<'a> {
    /// `host_key`: kind and key, as in `known_hosts`.
    pub(crate) fn new(lab: &'a Lab, key: &Path, address: &str, host_key: &str) -> Self {
        let known_hosts = tempfile::NamedTempFile::new_in(lab.path(""))
            .and_then(|file| Ok(file.keep()?.1))
            .unwrap();
        fs::write(&known_hosts, format!("{address} {host_key}\n")).unwrap();
        Self { lab, key: key.into(), known_hosts, address: address.into() }
    }

    /// With the key that the host shows now. To be asked for right after the daemon has read the host
    /// with that key pinned.
    pub(crate) fn as_it_is(lab: &'a Lab, key: &Path, address: &str) -> Self {
        let line = run(lab.command("ssh-keyscan").args(["-T", "60", "-t", "ed25519", address]));
        let host_key = line.lines().find(|l| !l.starts_with('#')).and_then(|l| l.split_once(' '));
        Self::new(lab, key, address, host_key.expect("a host key").1)
    }

    /// With another person's key.
    pub(crate) fn with_key(&self, key: &Path) -> Self {
        Self {
            key: key.into(),
            known_hosts: self.known_hosts.clone(),
            address: self.address.clone(),
            lab: self.lab,
        }
    }

    /// What the host says to this command. `None`: nobody is let in there, or it failed.
    pub(crate) fn ask(&self, command: &str) -> Option<String> {
        let known = format!("UserKnownHostsFile={}", self.known_hosts.display());
        let options = [
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "ConnectTimeout=20",
        ];
        let mut ssh = self.lab.command("ssh");
        ssh.args(["-n", "-i"]).arg(&self.key).args(["-o", &known]);
        ssh.args(options.iter().flat_map(|o| ["-o", o]));
        let out = ssh.args([&format!("root@{}", self.address), command]).output().unwrap();
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_string())
    }
}
