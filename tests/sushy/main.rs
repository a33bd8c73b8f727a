//! A machine's whole life, on parts that nobody of this project wrote.
//!
//! Real: sushy-tools' Redfish emulator as BMC (login, identity by UUID and MAC, power with its 1 to
//! 11 s of delay, boot override), OpenSSH's sshd as host, the shell that runs the shipped scripts
//! there, and the release binary of Farrier with the shipped workflow, started, killed and asked as
//! an operator would.
//! The test's: the actor that plays boot and installation (`host.rs`), the host's DMI, disks, boot
//! id and GPU tools (files and shims below FARRIER_ROOT), and the cluster (a hook and a file).
//! Not here: firmware updates, which the fake driver can't do; they run against the virtual BMC.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "runs programs, and waits for conditions with a deadline"
)]

mod emulator;
mod host;
mod http;
mod site;
mod wipe;
mod world;

use serde_json::Value;
use site::{IMAGE, NODE, Site};
use std::sync::atomic::Ordering;

const UUID: &str = "5f0e4c1a-9d7b-4a53-8a36-0d9be1c55a01";
const MAC: &str = "02:5a:00:00:00:01";
const OTHER_UUID: &str = "c0ffee00-1111-4222-8333-444455556666";

#[test]
fn a_machine_lives_its_life_and_the_daemon_is_killed_in_the_middle() {
    let mut site = Site::build(UUID, MAC, "Off", false);
    let (host, emulator) = (site.host.clone(), site.emulator.clone());
    host.hold.store(true, Ordering::Relaxed);
    let _actor = host.live(emulator.clone());
    site.serve();

    // Unmanaged: looked at, not written to.
    let found = site.until("it is discovered", 60, |m| !m["identity"]["uuid"].is_null());
    assert_eq!(found["control"], "unmanaged");
    assert_eq!(
        (&found["identity"]["uuid"], &found["identity"]["mac"]),
        (&UUID.into(), &MAC.into())
    );
    assert!(found["identity"]["serial"].is_null(), "the fake driver has no serial: {found}");
    assert_eq!(emulator.writes(), 0, "an unmanaged machine was written to");

    site.cli(&["machine", "enroll", NODE, "--desired", "in-service", "--why", "first deployment"]);

    // Provision. The daemon dies as soon as the BMC has taken the order to power on: the machine
    // is still off then, for up to 11 s.
    site.clock.until("the BMC takes the power on", 60, || !emulator.resets().is_empty());
    assert_eq!(emulator.boot(), ("Pxe".into(), "Continuous".into()));
    site.kill_9("provision, the BMC has just taken the power on");
    site.serve();

    // And once more while the host installs: its boot window must outlive the daemon.
    let seen = |what: &str| host.seen().iter().any(|l| l.starts_with(what));
    site.clock.until("the host boots", 60, || seen("fetched its boot script"));
    assert_eq!(emulator.power(), "On");
    site.kill_9("provision, the host installs");
    host.hold.store(false, Ordering::Relaxed);
    site.serve();
    site.clock.until("the host calls back", 60, || seen("called back"));

    // Burn-in: the job runs on the host, through sshd, while the daemon dies.
    site.clock.until("the burn-in job is at work", 60, || !host.read("var/lib/calls").is_empty());
    let jobs = host.jobs("smoke");
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    site.kill_9("burn-in, its job runs");
    let runner = host.job_file(&jobs[0], "pid").trim().to_string();
    let alive = || std::path::Path::new(&format!("/proc/{runner}")).exists();
    assert!(!runner.is_empty() && alive(), "the job died with the daemon");
    site.serve();
    site.until("it follows the same job", 60, |m| {
        m["open_action"]["about"] == *jobs[0] && !m["read_ago_ms"].is_null()
    });
    assert!(alive(), "the job was not left alone");
    host.file("go", "");
    let there = site.rests("in-service", 120);

    // Nothing was done twice.
    assert_eq!(emulator.resets(), ["On"]);
    assert_eq!(emulator.overrides(), ["Pxe", "Hdd"]);
    assert_eq!(emulator.boot(), ("Hdd".into(), "Continuous".into()), "it would install again");
    assert_eq!(host.seen().iter().filter(|l| l.starts_with("installs")).count(), 1);
    assert_eq!(host.jobs("smoke"), jobs);
    assert_eq!(host.read("var/lib/calls"), "nvidia-smi\ndcgmi\n");
    let result: Value = serde_json::from_str(&host.job_file(&jobs[0], "result.json")).unwrap();
    assert_eq!((&result["ok"], &result["gpus"]), (&true.into(), &host::GPUS.into()), "{result}");
    assert_eq!(site.orders(), ["join"]);
    assert_eq!(there["image"], IMAGE);
    assert_eq!(host.read("etc/farrier/image").lines().next(), Some(&*format!("image={IMAGE}")));
    // What the fake driver can't do was skipped, and a person is told so.
    let lacks = "UpdateService/FirmwareInventory: the BMC answered 404";
    let history = site.history();
    let skipped = history.lines().find(|l| l.contains("`firmware` skipped"));
    assert!(skipped.is_some_and(|l| l.contains(lacks)), "{history}");
    let why = site.cli(&["machine", "explain", NODE]);
    assert!(why.contains("skipped") && why.contains(lacks), "{why}");

    // Drain: cordoned, and nothing is killed.
    site.cli(&["machine", "set", NODE, "drained", "--why", "maintenance"]);
    site.until("it waits for the workloads", 60, |m| m["waiting"] == "workloads to end");
    assert_eq!(site.orders(), ["join", "cordon"]);
    site.set_node(&site.node().replace("\"workloads\":2", "\"workloads\":1"));
    let asked = site.probes();
    site.clock.until("it goes on asking", 60, || site.probes() >= asked + 2);
    assert_eq!((&site.machine()["stage"], site.orders().len()), (&"drain".into(), 2));
    site.set_node(&site.node().replace("\"workloads\":1", "\"workloads\":0"));
    site.rests("drained", 60);
    assert_eq!(emulator.resets(), ["On"], "a drain leaves the power alone");

    // Retire: the shipped wipe, on the disks that are this machine's.
    assert!(host.disks().iter().all(|(_, b)| b.iter().any(|b| *b != 0)));
    site.cli(&["machine", "set", NODE, "retired", "--why", "end of lease"]);
    site.rests("retired", 120);
    assert_eq!(site.orders(), ["join", "cordon", "leave"]);
    let wipes = host.jobs("wipe");
    assert_eq!(wipes.len(), 1, "{wipes:?}");
    let result: Value = serde_json::from_str(&host.job_file(&wipes[0], "result.json")).unwrap();
    assert_eq!(result["verified"], true, "{result}");
    assert_eq!(result["drives"].as_array().map(Vec::len), Some(2), "{result}");
    for (name, bytes) in host.disks() {
        assert!(bytes.iter().all(|b| *b == 0), "{name} still holds data");
    }
    assert_eq!(emulator.resets(), ["On", "GracefulShutdown"]);
    assert_eq!(emulator.power(), "Off");
    site.clock.until("sshd is gone with the power", 20, || !host.ssh_listens());
    assert!(site.stop(), "a graceful stop");
    println!("{}", site.fsck());
}

/// The SSH address leads to another machine than the BMC's: a swapped cable, a reused address.
#[test]
fn the_wipe_refuses_a_host_that_is_not_the_bmcs_machine() {
    let mut site = Site::build(UUID, MAC, "On", true);
    let (host, emulator) = (site.host.clone(), site.emulator.clone());
    host.file("etc/os-release", "PRETTY_NAME=\"Test OS 1\"\n");
    host.write_disks();
    let before = host.disks();
    let _actor = host.live(emulator.clone());
    site.clock.until("the host is up", 30, || host.ssh_listens());
    site.serve();
    site.until("it is discovered", 60, |m| !m["identity"]["uuid"].is_null());

    // Adopted as it runs: nothing is written to BMC, host or cluster.
    site.cli(&["machine", "adopt", NODE]);
    site.rests("ready", 60);
    assert_eq!(emulator.writes(), 0, "adopting touches nothing");
    assert_eq!(host.jobs(""), Vec::<String>::new());

    host.set_dmi(OTHER_UUID);
    site.cli(&["machine", "set", NODE, "retired"]);
    let end = site.clock.wait("it is quarantined", 60, || {
        let m = site.machine();
        (m["condition"] == "quarantined").then_some(m)
    });
    assert_eq!((&end["stage"], &end["step"]), (&"retire".into(), &"sanitize".into()), "{end:#}");
    assert_eq!(end["fault"]["class"], "identity", "{end:#}");
    let explained = site.explain();
    let said = explained["last_fault"].as_str().unwrap_or_default();
    assert!(said.contains("refused just before the write"), "{explained:#}");
    for uuid in [UUID, OTHER_UUID] {
        assert!(said.contains(&uuid.replace('-', "")), "no {uuid} in {explained:#}");
    }
    assert_eq!(host.jobs(""), Vec::<String>::new(), "no job was started");
    assert!(host.disks() == before, "the disks of another machine were written");
    assert_eq!(emulator.resets(), Vec::<String>::new());
    assert_eq!(emulator.power(), "On");

    // The cable is put right: a person says so, and only then this machine's disks are wiped.
    host.set_dmi(UUID);
    site.cli(&["machine", "release", NODE, "--why", "the cable is where it belongs"]);
    site.rests("retired", 120);
    assert_eq!(host.jobs("wipe").len(), 1);
    assert!(host.disks().iter().all(|(_, bytes)| bytes.iter().all(|b| *b == 0)));
    assert_eq!(emulator.resets(), ["GracefulShutdown"]);
    assert!(site.stop());
}
