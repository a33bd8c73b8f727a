//! How fast the deploy job writes an image, against what a person would type into the same machine:
//! `curl | zstd -d | dd`. The job also compares DMI, checks the SHA-256 of what comes, looks at the disk
//! before and reads back what makes it boot. A virtual machine of the tests' lab, in the ramdisk.
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
use machine::{Firmware, Plan, emulator_is_here};
use std::time::Duration;

const ROUNDS: usize = 3;

/// Seconds by the machine's own clock.
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
    let result = run.follow(host, name);
    assert_eq!(result["ok"], true, "{result}");
    result["seconds"].as_f64().unwrap()
}

fn median(mut all: Vec<f64>) -> f64 {
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
            let (what, seconds) = if first {
                plains.push(plain(&run, &host, &told.image_url));
                ("curl | zstd -d | dd", plains[plains.len() - 1])
            } else {
                deploys.push(deploy(&run, &host, &told, &format!("deploy-{n}")));
                ("the deploy job", deploys[deploys.len() - 1])
            };
            let rate = image.raw_size as f64 / 1e6 / seconds;
            println!("{what:20} {seconds:6.1} s, {rate:5.1} MB/s onto the disk");
        }
    }
    let share = median(plains.clone()) / median(deploys.clone());
    println!(
        "medians: {:.1} s by hand, {:.1} s by the job: {:.0} % (wanted: 80 % or more)",
        median(plains),
        median(deploys),
        share * 100.0
    );
    assert!(share >= 0.8, "{:.0} % of what a person would do by hand", share * 100.0);
}
