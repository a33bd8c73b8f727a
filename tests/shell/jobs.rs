//! The job contract without a network: start once, find again, lose, time out.

use crate::world::{OTHER, SERIAL, SWAPPED, UUID, World, until, worlds};
use farrier::model::Identity;
use farrier::model::action::JobScript;
use farrier::model::facts::{JobFacts, JobState};
use farrier::shell::parse::{self, Started};
use farrier::shell::script;
use std::fs;
use std::process::Command;

fn me() -> Identity {
    Identity::new(Some(SERIAL), Some(UUID), None)
}

fn start(w: &World, expect: &Identity, name: &str, timeout_ms: u64) -> Option<Started> {
    parse::started(&w.sh(&script::start(expect, JobScript::Smoke, name, timeout_ms)))
}

fn show(w: &World, name: &str) -> JobFacts {
    parse::job(name, &w.sh(&script::show(name)), "").unwrap()
}

fn end(w: &World, name: &str) -> JobFacts {
    let mut last = show(w, name);
    until("the job ends", || {
        last = show(w, name);
        !matches!(last.state, JobState::Running { .. })
    });
    last
}

fn new_by_sh() -> Option<Started> {
    Some(Started::New("sh".into()))
}

#[test]
fn facts_are_read_and_placeholders_are_unknown() {
    for (shell, w) in worlds() {
        let facts = |w: &World| parse::facts(&w.sh(&script::facts()), "").unwrap();
        let f = facts(&w);
        assert_eq!(f.identity, me(), "{shell}");
        assert_eq!(f.boot_id.as_deref(), Some("11111111-0000-4000-8000-000000000001"));
        assert_eq!(f.hostname.as_deref(), Some("gpu-42"));
        assert_eq!(f.os.as_deref(), Some("Debian GNU/Linux 12"));
        assert!(f.kernel.is_some());
        assert_eq!((f.image, f.image_run, f.holds_data), (None, None, None), "{shell}");
        assert!(f.gpus.is_empty() && f.jobs.is_empty());

        let here = "11111111-0000-4000-8000-000000000001\n";
        for (name, boot, ended) in
            [("smoke-a-m1-3", here, false), ("wipe-a-m1-9", here, true), ("old", "2222\n", false)]
        {
            fs::create_dir_all(w.root.join(format!("var/lib/farrier/jobs/{name}"))).unwrap();
            w.file(&format!("var/lib/farrier/jobs/{name}/boot_id"), boot);
            if ended {
                w.file(&format!("var/lib/farrier/jobs/{name}/exit"), "0\n");
            }
        }
        let mut jobs: Vec<_> = facts(&w).jobs.into_iter().map(|j| (j.name, j.running)).collect();
        jobs.sort();
        let named = |name: &str, running| (name.to_string(), running);
        let wanted = [named("old", false), named("smoke-a-m1-3", true), named("wipe-a-m1-9", false)];
        assert_eq!(jobs, wanted, "{shell}");

        w.file("dev/disk/nvme0n1", vec![0; 8192]);
        assert_eq!(facts(&w).holds_data, Some(false), "{shell}");
        let mut used = vec![0; 8192];
        used[510] = 0x55;
        w.file("dev/disk/nvme1n1", &used);
        assert_eq!(facts(&w).holds_data, Some(true), "{shell}");
        w.file("etc/farrier/image", "image=ubuntu-24.04\nrun=r-7\n");
        w.file("sys/class/dmi/id/product_serial", "To Be Filled By O.E.M.\n");
        w.shim("nvidia-smi", &format!("cat <<'X'\n{}X", crate::dcgm::smi(2, "")));
        let f = facts(&w);
        assert_eq!(f.image.as_deref(), Some("ubuntu-24.04"));
        assert_eq!(f.image_run.as_deref(), Some("r-7"));
        assert_eq!(f.holds_data, Some(false), "a deployment of ours wrote the disks ({shell})");
        assert_eq!(f.identity.serial, None);
        assert_eq!(f.gpus.len(), 2, "{shell}");
        assert_eq!(f.gpus[1].id, "GPU-00000000-0000-0000-0000-000000000001");
        assert_eq!(f.gpus[1].model.as_deref(), Some("NVIDIA H200"));
        assert_eq!(f.gpus[1].serial.as_deref(), Some("165000000001"));

        // The driver's list is asked before nvidia-smi.
        let gpu = w.root.join("proc/driver/nvidia/gpus/0000:07:00.0");
        fs::create_dir_all(&gpu).unwrap();
        let about = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 120\nGPU UUID: \t GPU-????????-????\n\
                     Bus Type: \t PCIe\nBus Location: \t 0000:07:00.0\n";
        fs::write(gpu.join("information"), about).unwrap();
        let f = facts(&w);
        assert_eq!(f.gpus.len(), 1, "{shell}");
        assert_eq!(f.gpus[0].id, "0000:07:00.0");
        assert_eq!(f.gpus[0].model.as_deref(), Some("NVIDIA H100 80GB HBM3"));
    }
}

#[test]
fn a_job_starts_once_and_leaves_its_result() {
    for (shell, w) in worlds() {
        w.shim(
            "nvidia-smi",
            &format!(
                "echo one >>'{}/calls'\ncat <<'X'\n{}X",
                w.root.display(),
                crate::dcgm::smi(8, "")
            ),
        );
        assert_eq!(show(&w, "smoke-1").state, JobState::Absent);
        assert_eq!(start(&w, &me(), "smoke-1", 60_000), new_by_sh(), "{shell}");
        assert_eq!(start(&w, &me(), "smoke-1", 60_000), Some(Started::Exists));
        let job = end(&w, "smoke-1");
        let JobState::Finished { exit: 0, result: Some(result) } = &job.state else {
            panic!("{shell}: {job:?}")
        };
        assert_eq!(result["ok"], true, "{result}");
        assert_eq!(result["gpus"], 8);
        assert_eq!(job.boot_id.as_deref(), Some("11111111-0000-4000-8000-000000000001"));
        assert!(job.tail.unwrap().contains("nvidia-smi -q -x"));
        assert_eq!(w.read("calls"), "one\n", "{shell}: ran once");
        // Finished stays finished, also after a reboot, and the name stays taken.
        w.boot("22222222-0000-4000-8000-000000000002");
        assert!(matches!(show(&w, "smoke-1").state, JobState::Finished { exit: 0, .. }));
        assert_eq!(start(&w, &me(), "smoke-1", 60_000), Some(Started::Exists));
        assert_eq!(w.read("calls"), "one\n");
    }
}

#[test]
fn many_starts_at_once_run_one_job() {
    for (shell, w) in worlds() {
        w.shim("nvidia-smi", &format!("echo one >>'{}/calls'", w.root.display()));
        let said: Vec<_> = std::thread::scope(|s| {
            let all: Vec<_> =
                (0..6).map(|_| s.spawn(|| start(&w, &me(), "smoke-1", 60_000))).collect();
            all.into_iter().map(|t| t.join().unwrap().unwrap()).collect()
        });
        let new = said.iter().filter(|s| matches!(s, Started::New(_))).count();
        assert_eq!(new, 1, "{shell}: {said:?}");
        end(&w, "smoke-1");
        assert_eq!(w.read("calls"), "one\n", "{shell}");
    }
}

#[test]
fn another_machine_gets_no_job() {
    for (shell, w) in worlds() {
        let other = Identity::new(Some(SERIAL), Some(OTHER), None);
        let Some(Started::Refused(saw)) = start(&w, &other, "smoke-1", 1000) else {
            panic!("{shell}: not refused")
        };
        assert!(saw.contains(UUID.replace('-', "").as_str()), "{saw}");
        let serial = Identity::new(Some("FRR-0043"), Some(UUID), None);
        assert!(matches!(start(&w, &serial, "smoke-1", 1000), Some(Started::Refused(_))));
        assert!(!w.root.join("var").exists(), "{shell}: nothing was made");
        // The same machine in the other byte order, and one that nobody can tell.
        let swapped = Identity::new(None, Some(SWAPPED), None);
        assert_eq!(start(&w, &swapped, "smoke-2", 60_000), new_by_sh(), "{shell}");
        assert_eq!(start(&w, &Identity::default(), "smoke-3", 60_000), new_by_sh());
        end(&w, "smoke-2");
        end(&w, "smoke-3");
    }
}

#[test]
fn a_text_that_was_cut_off_does_nothing() {
    for (shell, w) in worlds() {
        let text = script::start(&me(), JobScript::Smoke, "smoke-1", 60_000);
        let all = text.len();
        let cuts = (0..all).step_by(1201).chain(all - 90..all - 1).step_by(3);
        for cut in cuts {
            if let Some(part) = text.get(..cut) {
                w.sh(part);
            }
            assert!(!w.root.join("var").exists(), "{shell}: {cut} of {all} bytes started it");
        }
    }
}

#[test]
fn a_reboot_loses_the_job() {
    for (shell, w) in worlds() {
        w.shim("nvidia-smi", "sleep 600");
        assert_eq!(start(&w, &me(), "smoke-1", 600_000), new_by_sh());
        until("it runs", || w.job("smoke-1").join("pid").exists());
        let JobState::Running { .. } = show(&w, "smoke-1").state else { panic!("{shell}") };
        w.boot("22222222-0000-4000-8000-000000000002");
        let JobState::Lost { why } = show(&w, "smoke-1").state else { panic!("{shell}") };
        assert!(why.contains("rebooted"), "{why}");
        kill_job(&w, "smoke-1");
        w.boot("11111111-0000-4000-8000-000000000001");
        let JobState::Lost { why } = show(&w, "smoke-1").state else { panic!("{shell}") };
        assert!(why.contains("is gone"), "{why}");
    }
}

/// SIGKILL to the runner and to what it started.
fn kill_job(w: &World, name: &str) {
    let pid: u32 = fs::read_to_string(w.job(name).join("pid")).unwrap().trim().parse().unwrap();
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    // Groups first: the payload has its own, the heartbeat shares the runner's.
    let groups: Vec<String> = children.split_whitespace().map(|p| format!("-{p}")).collect();
    let list = format!("kill -s KILL -- {} {pid} {children} 2>/dev/null", groups.join(" "));
    let _ = Command::new("sh").args(["-c", &list]).status().unwrap();
    until("the runner is gone", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
}

#[test]
fn the_host_ends_a_job_that_takes_too_long() {
    for (shell, w) in worlds() {
        // The child would outlive its parent; the group is what is killed.
        w.shim(
            "nvidia-smi",
            &format!("sleep 600 &\necho $! >'{}/child'\necho working\nwait", w.root.display()),
        );
        assert_eq!(start(&w, &me(), "smoke-1", 900), new_by_sh());
        let job = end(&w, "smoke-1");
        assert_eq!(job.state, JobState::Finished { exit: 124, result: None }, "{shell}");
        assert!(job.tail.unwrap().contains("ended by farrier after 1 s"));
        let child = w.read("child").trim().to_string();
        until("what it started is gone", || {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
}

#[test]
fn a_start_that_was_cut_off_is_lost_after_a_while() {
    for (shell, w) in worlds() {
        let dir = w.job("smoke-1");
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(show(&w, "smoke-1").state, JobState::Running { progress: 0 }, "{shell}");
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(180);
        fs::File::open(&dir).unwrap().set_modified(old).unwrap();
        let JobState::Lost { why } = show(&w, "smoke-1").state else { panic!("{shell}") };
        assert_eq!(why, "its start was cut off");
        assert_eq!(start(&w, &me(), "smoke-1", 1000), Some(Started::Exists));
    }
}

#[test]
fn systemd_runs_the_job_where_it_is() {
    // Only dash: Debian's busybox takes its own `id` and no shim.
    for (shell, w) in worlds().into_iter().filter(|(shell, _)| *shell == "dash") {
        fs::create_dir_all(w.root.join("run/systemd/system")).unwrap();
        w.shim("id", "echo 0");
        w.shim("nvidia-smi", &format!("echo one >>'{}/calls'", w.root.display()));
        // The shim runs what it is given, in the background, as systemd would.
        let run = format!(
            "printf '%s\\n' \"$@\" >'{r}/asked'\nwhile [ \"$1\" != /bin/sh ]; do shift; done\n\"$@\" </dev/null >/dev/null 2>&1 &",
            r = w.root.display()
        );
        w.shim("systemd-run", &run);
        let driver = start(&w, &me(), "smoke-1", 60_000);
        assert_eq!(driver, Some(Started::New("systemd-run".into())), "{shell}");
        end(&w, "smoke-1");
        let asked = w.read("asked");
        let asked: Vec<&str> = asked.lines().collect();
        let dir = w.job("smoke-1").display().to_string();
        let runner = format!("{dir}/runner.sh");
        let root = format!("--setenv=FARRIER_ROOT={}", w.root.display());
        let path = format!("--setenv=PATH={}", w.path);
        assert_eq!(
            asked,
            [
                "--quiet",
                "--collect",
                "--unit=farrier-smoke-1",
                "--description=Farrier job smoke-1",
                root.as_str(),
                path.as_str(),
                "/bin/sh",
                runner.as_str(),
                dir.as_str(),
                "60",
            ],
            "{shell}"
        );

        // It started the unit and then failed: the fallback must not run the job again.
        w.shim("systemd-run", &format!("{run}\nsleep 1\nexit 1"));
        assert_eq!(start(&w, &me(), "smoke-2", 60_000), new_by_sh());
        end(&w, "smoke-2");
        assert_eq!(w.read("calls"), "one\none\n", "{shell}: one run each");
    }
}

#[test]
fn a_host_without_room_says_so_and_keeps_no_half_job() {
    for (shell, w) in worlds() {
        // A file where the directory should be.
        fs::create_dir_all(w.root.join("var/lib/farrier")).unwrap();
        fs::write(w.root.join("var/lib/farrier/jobs"), "").unwrap();
        let Some(Started::Failed(why)) = start(&w, &me(), "smoke-1", 1000) else {
            panic!("{shell}")
        };
        assert!(why.contains("smoke-1"), "{why}");
    }
}
