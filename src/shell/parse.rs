//! What the scripts print, read leniently: hosts add banners and cut lines.

use crate::model::facts::{
    HostCpu, HostDisk, HostFacts, HostGpu, HostHardware, HostNic, JobFacts, JobNote, JobState,
    LldpNeighbour, MirrorFacts, Part,
};
use crate::model::{Channel, Fault, FaultClass, Identity};
use std::collections::BTreeMap;

/// Longest excerpt of output in a fault's evidence.
const EVIDENCE: usize = 2000;

pub(super) fn excerpt(text: &str) -> String {
    text.trim().chars().take(EVIDENCE).collect()
}

fn text(value: Option<&String>) -> Option<String> {
    value.map(|v| v.trim().to_string()).filter(|v| !v.is_empty())
}

fn unreadable(what: &str, stdout: &str, stderr: &str) -> Fault {
    Fault::new(
        FaultClass::Transient,
        Channel::Host,
        "unreadable-answer",
        format!("the host's answer to {what} makes no sense"),
    )
    .hint("log in by hand: does `echo 'echo hello' | ssh host sh -s` print just that?")
    .evidence(excerpt(&format!("{stdout}\n{stderr}")))
}

/// Output of facts.sh: `key=value` lines, `gpu=id\tmodel\tserial`, `job=name\topen|ended`, closed by `end=facts`.
pub fn facts(stdout: &str, stderr: &str) -> Result<HostFacts, Fault> {
    let mut all = BTreeMap::new();
    let (mut gpus, mut jobs) = (Vec::new(), Vec::new());
    for line in stdout.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        if key == "gpu" {
            let mut fields = value.split('\t');
            let mut next = || {
                fields
                    .next()
                    .map(str::trim)
                    .filter(|f| !f.is_empty() && *f != "N/A")
                    .map(String::from)
            };
            let (id, model, serial) = (next(), next(), next());
            gpus.push(Part {
                id: id.unwrap_or_default(),
                model,
                manufacturer: Some("NVIDIA".into()),
                serial,
                ..Part::default()
            });
        } else if key == "job" {
            let (name, state) = value.split_once('\t').unwrap_or((value, ""));
            jobs.push(JobNote { name: name.trim().to_string(), running: state.trim() == "open" });
        } else {
            all.insert(key, value.to_string());
        }
    }
    if !all.contains_key("end") {
        return Err(unreadable("the question for its facts", stdout, stderr));
    }
    let raw = |key: &str| all.get(key).map(String::as_str);
    Ok(HostFacts {
        identity: Identity::new(raw("serial"), raw("uuid"), None),
        boot_id: text(all.get("boot_id")),
        hostname: text(all.get("hostname")),
        os: text(all.get("os")),
        kernel: text(all.get("kernel")),
        image: text(all.get("image")),
        image_run: text(all.get("image_run")),
        ramdisk_run: text(all.get("ramdisk_run")),
        disk_run: text(all.get("disk_run")),
        root_mirror: raw("root_mirror").and_then(mirror),
        holds_data: raw("holds_data").and_then(|v| v.trim().parse().ok()),
        gpus,
        jobs,
    })
}

/// Disks, missing ones, and the percentage of a copy under way.
fn mirror(text: &str) -> Option<MirrorFacts> {
    let mut words = text.split_whitespace().map(|w| w.parse().ok());
    let mut next = || words.next().flatten();
    Some(MirrorFacts { disks: next()?, missing: next()?, copied_percent: next() })
}

/// Output of hardware.sh, whose head says what its lines hold.
pub fn hardware(stdout: &str, stderr: &str) -> Result<HostHardware, Fault> {
    let mut all = BTreeMap::new();
    let mut found = HostHardware::default();
    for line in stdout.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let fields: Vec<&str> = value.split('\t').map(str::trim).collect();
        let field = |n: usize| fields.get(n).copied().filter(|f| !f.is_empty());
        let owned = |n: usize| field(n).map(String::from);
        let small = |n: usize| field(n).and_then(|f| f.parse::<u32>().ok());
        match key {
            "cpu" => found.cpus.push(HostCpu {
                socket: small(0).unwrap_or(0),
                model: owned(1),
                cores: small(2),
                threads: small(3),
            }),
            "disk" => found.disks.push(HostDisk {
                name: owned(0).unwrap_or_default(),
                attached: owned(1).unwrap_or_else(|| "unknown".into()),
                bytes: field(2).and_then(|f| f.parse().ok()),
                sector_bytes: small(3),
                serial: owned(4),
                model: owned(5),
                rotates: field(6).map(|f| f == "1"),
            }),
            "nic" => found.nics.push(HostNic {
                name: owned(0).unwrap_or_default(),
                mac: owned(1),
                link_up: field(2).map(|f| f == "1"),
                // A port without a link says -1.
                speed_mbit: small(3),
                driver: owned(4),
                pci: owned(5),
                neighbour: None,
            }),
            "lldp" => {
                let heard = LldpNeighbour { chassis: owned(1), port: owned(2), system: owned(3) };
                if let Some(nic) = found.nics.iter_mut().find(|n| Some(&*n.name) == field(0)) {
                    nic.neighbour = Some(heard);
                }
            }
            "gpu" => found.gpus.push(HostGpu {
                pci: owned(0).unwrap_or_default(),
                device: owned(1).unwrap_or_default(),
                board: owned(2).filter(|b| b != ":"),
            }),
            _ => {
                all.insert(key, value.to_string());
            }
        }
    }
    if all.get("end").map(|e| e.trim()) != Some("hardware") {
        return Err(unreadable("the question for its hardware", stdout, stderr));
    }
    let raw = |key: &str| all.get(key).map(String::as_str);
    found.identity = Identity::new(raw("serial"), raw("uuid"), None);
    found.vendor = text(all.get("vendor"));
    found.product = text(all.get("product"));
    found.board_serial = text(all.get("board_serial"));
    found.bios_version = text(all.get("bios_version"));
    found.memory_mib = raw("memory_mib").and_then(|m| m.trim().parse().ok());
    Ok(found)
}

/// Output of `show` in job.sh.
pub fn job(name: &str, stdout: &str, stderr: &str) -> Result<JobFacts, Fault> {
    let broken = || unreadable("the question for its job", stdout, stderr);
    let (head, rest) = stdout.split_once("\nresult ").ok_or_else(broken)?;
    let mut all = BTreeMap::new();
    for line in head.lines() {
        if let Some((key, value)) = line.split_once('=') {
            all.insert(key, value.to_string());
        }
    }
    let (bytes, rest) = rest.split_once('\n').ok_or_else(broken)?;
    let bytes: usize = bytes.trim().parse().map_err(|_| broken())?;
    let result = rest.get(..bytes).ok_or_else(broken)?;
    let tail = rest.get(bytes..).and_then(|r| r.strip_prefix("\ntail\n")).ok_or_else(broken)?;
    let why = || text(all.get("why")).unwrap_or_else(|| "no reason given".into());
    let state = match all.get("state").map(String::as_str) {
        Some("absent") => JobState::Absent,
        Some("running") => JobState::Running {
            progress: all.get("progress").and_then(|p| p.parse().ok()).unwrap_or(0),
        },
        Some("lost") => JobState::Lost { why: why() },
        Some("finished") => JobState::Finished {
            // Without a readable status it did not end well.
            exit: all.get("exit").and_then(|e| e.trim().parse().ok()).unwrap_or(-1),
            result: serde_json::from_str(result).ok(),
        },
        Some("unreadable") => {
            return Err(Fault::new(
                FaultClass::Precondition,
                Channel::Host,
                "job-directory-unreadable",
                why(),
            )
            .hint("log in as the user that started the job, or as root"));
        }
        _ => return Err(broken()),
    };
    Ok(JobFacts {
        name: name.to_string(),
        state,
        boot_id: text(all.get("boot_id")),
        tail: Some(tail.trim_end().to_string()).filter(|t| !t.is_empty()),
    })
}

/// What `start` in job.sh said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// Launched just now, by this driver.
    New(String),
    /// The name was there already; nothing was started.
    Exists,
    /// Another machine; nothing was started.
    Refused(String),
    Failed(String),
}

/// The verdict line of `start`; `None` when there is none.
pub fn started(stdout: &str) -> Option<Started> {
    let mut ours = stdout.lines().rev().filter_map(|line| line.strip_prefix("farrier "));
    ours.find_map(|line| match line.split_once(' ').unwrap_or((line, "")) {
        ("started", driver) => Some(Started::New(driver.to_string())),
        ("exists", "") => Some(Started::Exists),
        ("refused", saw) => Some(Started::Refused(saw.to_string())),
        ("failed", why) => Some(Started::Failed(why.to_string())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_need_their_last_line() {
        let fault = facts("uuid=x\nboot_id=b", "").unwrap_err();
        assert_eq!(fault.code, "unreadable-answer");
        let f =
            facts("Welcome!\nboot_id=b\nholds_data=true\ngpu=GPU-1\tH200\tN/A\njob=smoke-a-m1-7\topen\njob=x\nend=facts\n", "")
                .unwrap();
        let jobs: Vec<_> = f.jobs.iter().map(|j| (&*j.name, j.running)).collect();
        assert_eq!(jobs, [("smoke-a-m1-7", true), ("x", false)]);
        assert_eq!((f.boot_id.as_deref(), f.holds_data), (Some("b"), Some(true)));
        assert_eq!((f.gpus[0].model.as_deref(), f.gpus[0].serial.as_deref()), (Some("H200"), None));
        assert!(f.identity.is_unknown());
    }

    #[test]
    fn hardware_is_read_line_by_line() {
        let said = "uuid=33221100-5544-7766-8899-aabbccddeeff\nserial=S-1\nvendor=Lab\nproduct=\n\
            cpu=0\tXeon\t32\t64\nmemory_mib=2012\n\
            disk=nvme0n1\tnvme\t3840755982336\t512\tS6\tMZQL\t0\ndisk=sda\tfc\t\t\t\t\t1\n\
            nic=eth0\t52:54:00:77:00:01\t1\t25000\tmlx5_core\t0000:01:00.0\n\
            nic=eth1\t52:54:00:77:00:02\t\t-1\t\t\n\
            lldp=eth0\t00:11:22:33:44:55\tEthernet1/7\tleaf-3\nlldp=gone\tx\ty\tz\n\
            gpu=0000:1b:00.0\t10de:2330\t10de:16c1\n";
        assert_eq!(hardware(said, "").unwrap_err().code, "unreadable-answer");
        let h = hardware(&format!("{said}end=hardware\n"), "").unwrap();
        assert_eq!((h.identity.serial.as_deref(), h.product.as_deref()), (Some("S-1"), None));
        assert_eq!(
            (h.cpus[0].cores, h.cpus[0].threads, h.memory_mib),
            (Some(32), Some(64), Some(2012))
        );
        assert_eq!((h.disks[0].bytes, h.disks[0].rotates), (Some(3_840_755_982_336), Some(false)));
        assert_eq!((&*h.disks[1].attached, h.disks[1].serial.as_deref()), ("fc", None));
        let heard = h.nics[0].neighbour.as_ref().unwrap();
        assert_eq!(
            (heard.port.as_deref(), heard.system.as_deref()),
            (Some("Ethernet1/7"), Some("leaf-3"))
        );
        assert_eq!((h.nics[1].speed_mbit, h.nics[1].link_up), (None, None));
        assert_eq!(h.gpus[0].device, "10de:2330");
    }

    #[test]
    fn a_job_is_read_by_its_counts() {
        let text =
            "boot_id=b\nstate=finished\nexit=0\nresult 12\n{\"ok\":true}\n\ntail\nresult 3\nx\n";
        let f = job("j", text, "").unwrap();
        assert_eq!(
            f.state,
            JobState::Finished { exit: 0, result: Some(serde_json::json!({"ok": true})) }
        );
        assert_eq!(f.tail.as_deref(), Some("result 3\nx"));
        for cut in ["", "state=finished", "state=x\nresult 0\n\ntail\n", "state=lost\nresult 90\nx"]
        {
            assert_eq!(job("j", cut, "").unwrap_err().code, "unreadable-answer", "{cut:?}");
        }
    }

    #[test]
    fn verdicts() {
        assert_eq!(started("motd\nfarrier started sh\n"), Some(Started::New("sh".into())));
        assert_eq!(started("farrier exists\n"), Some(Started::Exists));
        assert_eq!(started("farrier refused DMI uuid"), Some(Started::Refused("DMI uuid".into())));
        for none in ["sh: not found", "failed logins: 3", "farrier", "farrier woke up"] {
            assert_eq!(started(none), None, "{none:?}");
        }
    }
}
