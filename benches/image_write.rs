//! How fast the deploy job writes an image, against what a person would type into the same machine:
//! `curl | zstd -d | dd`. The job also compares DMI, checks the SHA-256 of what comes, looks at the disk
//! before and reads back what makes it boot. A virtual machine of the tests' lab, in the ramdisk. Beside the
//! clock stands the processor time of the machine's process, which says the same where others keep this
//! machine busy.
//!
//! As root, after `bash tests/run.sh --only vm` has installed what it needs:
//!
//!     export FARRIER_SUSHY_LIBVIRT=$(echo ~/.cache/farrier-tests/sushy-libvirt-*/bin/sushy-emulator)
//!     cargo bench --bench image_write
//!
//! Wants 80 % or more.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::result_large_err,
    dead_code,
    unused_imports,
    reason = "a benchmark on the tests' lab, most of which it does not use"
)]

#[path = "../tests/vm/artefacts.rs"]
mod artefacts;
#[path = "../tests/vm/lab.rs"]
mod lab;
#[path = "../tests/vm/life.rs"]
mod life;
#[path = "../tests/vm/machine.rs"]
mod machine;
#[path = "../tests/vm/server.rs"]
mod server;

use artefacts::{disk_image, ramdisk};
use farrier::model::Outcome;
use farrier::port::command::HostCommand;
use farrier::port::deploy::DeployOrder;
use farrier::port::{HostTarget, Shell};
use life::{Run, block_on, keygen, order, pxe};
use machine::{Firmware, Machine, Plan, emulator_is_here};
use std::fs;
use std::path::Path;
use std::time::Duration;

const ROUNDS: usize = 3;

/// How often the daemon looks at a job that it waits for. Each look is an SSH login, and that takes the
/// machine's only processor a good part of a second.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What one write of the image took.
#[derive(Clone, Copy)]
struct Took {
    /// By the machine's own clock.
    seconds: f64,
    /// Processor time of the machine on this one: what else runs here does not count.
    cpu: f64,
}

/// Processor time so far of the process that runs this machine.
fn cpu(machine: &Machine) -> f64 {
    let disk = machine.disk.display().to_string();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let is_it = |dir: &Path| {
        let line = fs::read(dir.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("qemu-system") && line.contains(&disk)
    };
    let dir = all.map(|e| e.path()).find(|d| is_it(d)).expect("the machine's process");
    let stat = fs::read_to_string(dir.join("stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // proc(5): utime and stime, in hundredths.
    fields[11..13].iter().map(|f| f.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn plain(run: &Run<'_>, host: &HostTarget, url: &str) -> f64 {
    let script = format!(
        "read -r began rest </proc/uptime\n\
         curl -sSf '{url}' | zstd -q -d -c | dd of=/dev/vda bs=4194304 iflag=fullblock conv=fsync 2>/dev/null || exit 1\n\
         read -r ended rest </proc/uptime\necho \"$began $ended\"\n"
    );
    let argv = ["sh".to_string(), "-c".to_string(), script];
    let limit = Duration::from_secs(600);
    let ran = run.lab.inside(|| block_on(run.shell.run(host, None, &argv, b"", limit))).unwrap();
    assert_eq!(ran.exit, Some(0), "{ran:?}");
    let times: Vec<f64> = ran.stdout.split_whitespace().map(|t| t.parse().unwrap()).collect();
    times[1] - times[0]
}

fn deploy(run: &Run<'_>, host: &HostTarget, order: &DeployOrder, name: &str) -> f64 {
    let expect = run.expect();
    let started =
        run.lab.inside(|| block_on(run.shell.start_deploy(host, &expect, order, name, 900_000)));
    assert!(matches!(started, Outcome::Applied { .. }), "{started:?}");
    std::thread::sleep(LOOK_EVERY);
    let result = run.follow_every(host, name, LOOK_EVERY);
    assert_eq!(result["ok"], true, "{result}");
    result["seconds"].as_f64().unwrap()
}

fn median(all: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = all.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    if !emulator_is_here() {
        std::process::exit(1);
    }
    ramdisk();
    let image = disk_image();
    let Some(mut lab) = lab::Lab::start() else { std::process::exit(1) };
    let plan = Plan { disk_gib: 4, ..Plan::small("w1", Firmware::Bios) };
    let machine = lab.machine(&plan);
    let server = pxe(&mut lab);
    let run = Run::new(&lab, &machine, server);
    run.serve_ramdisk("run-1");
    machine.boot("Pxe");
    let host = run.called_home("run-1");
    run.say("the ramdisk called home");
    let (private, public) = keygen(&lab.path("host-key"));
    let mut told = order(&run, image, "run-1", &private, &public);
    told.allow_existing_data = true;
    let (mut plains, mut deploys) = (Vec::new(), Vec::new());
    for n in 0..ROUNDS {
        for first in [n % 2 == 0, n % 2 != 0] {
            let before = cpu(&machine);
            let (what, seconds) = if first {
                ("curl | zstd -d | dd", plain(&run, &host, &told.image_url))
            } else {
                ("the deploy job", deploy(&run, &host, &told, &format!("deploy-{n}")))
            };
            let took = Took { seconds, cpu: cpu(&machine) - before };
            let rate = image.raw_size as f64 / 1e6 / seconds;
            println!(
                "{what:20} {seconds:6.1} s ({:6.1} s of processor), {rate:5.1} MB/s onto the disk",
                took.cpu
            );
            if first { &mut plains } else { &mut deploys }.push(took);
        }
    }
    let said = run.lab.inside(|| block_on(run.shell.tail(&host, "deploy-0", 4096))).unwrap();
    assert!(!said.contains("through a pipe"), "this ramdisk has no device mapper: {said}");
    let middle = |all: &[Took], of: fn(&Took) -> f64| median(all.iter().map(of));
    let [seconds, _] = [|t: &Took| t.seconds, |t: &Took| t.cpu].map(|of| {
        let (by_hand, by_job) = (middle(&plains, of), middle(&deploys, of));
        println!(
            "medians: {by_hand:.1} s by hand, {by_job:.1} s by the job: {:.0} %",
            by_hand / by_job * 100.0
        );
        by_hand / by_job
    });
    println!("the first by the clock, the second of processor time; wanted: 80 % or more");
    assert!(seconds >= 0.8, "{:.0} % of what a person would do by hand", seconds * 100.0);
}
