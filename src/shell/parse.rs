//! What the scripts print, read leniently: hosts add banners and cut lines.

use crate::model::facts::{HostFacts, JobFacts, JobNote, JobState, Part};
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
        holds_data: raw("holds_data").and_then(|v| v.trim().parse().ok()),
        gpus,
        jobs,
    })
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
