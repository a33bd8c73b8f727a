//! The fuzz targets on the stable compiler: over their seeds, over what was captured of real BMCs, and
//! over a bounded number of seeded mutations of both. `tests/run.sh --long` gives each target to
//! libFuzzer as well (`fuzz/`), which is guided by coverage.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests read files and count the time"
)]

#[path = "fuzz/broken_field.rs"]
mod broken_field;
#[path = "bmc/captured.rs"]
#[allow(dead_code, reason = "only its trees are wanted here")]
mod captured;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/seeds.rs"]
mod seeds;
#[path = "bmc/server.rs"]
#[allow(dead_code, reason = "`captured` serves with it")]
mod server;

use farrier::fuzz::{TARGETS, Target};
use mutate::Dice;
use std::panic::AssertUnwindSafe;
use std::path::Path;

/// Mutations of a target in CI, and in `--long`.
const MUTANTS: u64 = 1_500;
const MUTANTS_LONG: u64 = 30_000;

fn long() -> bool {
    std::env::var_os("FARRIER_TEST_LONG").is_some()
}

/// Runs a target; what breaks it is left as a file, to become a seed.
fn run(target: &Target, what: &str, data: &[u8]) -> String {
    match std::panic::catch_unwind(AssertUnwindSafe(|| format!("{:?}", (target.run)(data)))) {
        Ok(seen) => seen,
        Err(_) => {
            let name = what.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            let kept = std::env::temp_dir().join(format!("farrier-fuzz-{}-{name}", target.name));
            std::fs::write(&kept, data).unwrap();
            let (target, kept) = (target.name, kept.display());
            panic!(
                "`{target}` breaks on {what}: {kept}; mend it and keep it in fuzz/corpus/{target}/"
            )
        }
    }
}

#[test]
fn every_target_reads_its_seeds_and_reads_them_the_same_again() {
    for target in TARGETS {
        let seeds = seeds::own(target.name);
        assert!(seeds.len() >= 4, "`{}` has {} seeds", target.name, seeds.len());
        for (name, data) in &seeds {
            let seen = run(target, name, data);
            assert_eq!(seen, run(target, name, data), "{}: {name}", target.name);
        }
    }
}

#[test]
fn the_seeds_of_a_target_are_not_all_the_same_to_it() {
    for target in TARGETS {
        let seen: std::collections::BTreeSet<String> =
            seeds::own(target.name).iter().map(|(name, data)| run(target, name, data)).collect();
        assert!(seen.len() >= 4, "`{}` tells {} of its seeds apart", target.name, seen.len());
    }
}

fn mutants_of(target: &Target, all: &[(String, Vec<u8>)], count: u64) {
    for n in 0..count {
        let mut dice = Dice::of(target.name, n);
        let (name, seed) = dice.one(all);
        let mut data = seed.clone();
        for _ in 0..=dice.below(3) {
            data = mutate::once(&data, all, &mut dice);
        }
        let what = format!("mutant {n} of {name}");
        let seen = run(target, &what, &data);
        if n % 16 == 0 {
            assert_eq!(seen, run(target, &what, &data), "{}: {what}", target.name);
        }
    }
}

/// One test a target, so that they run side by side and each says its name.
macro_rules! mutants {
    ($($test:ident: $target:literal),+ $(,)?) => {
        $(#[test]
        fn $test() {
            let target = TARGETS.iter().find(|t| t.name == $target).unwrap();
            let count = if long() { MUTANTS_LONG } else { MUTANTS };
            mutants_of(target, &seeds::own($target), count);
        })+

        #[test]
        fn no_target_is_left_out() {
            let tested = [$($target),+];
            assert_eq!(TARGETS.iter().map(|t| t.name).collect::<Vec<_>>(), tested);
        }
    };
}

mutants! {
    facts_survive_mutants: "redfish-facts",
    capabilities_survive_mutants: "redfish-capabilities",
    tasks_survive_mutants: "task",
    headers_survive_mutants: "headers",
    errors_survive_mutants: "errors",
    service_roots_survive_mutants: "service-root",
    ipmi_text_survives_mutants: "ipmi-text",
    ssh_answers_survive_mutants: "ssh-answers",
    delivery_notes_survive_mutants: "delivery-notes",
    quirks_survive_mutants: "quirks",
    dhcp_survives_mutants: "dhcp",
    tftp_survives_mutants: "tftp",
    callbacks_survive_mutants: "boot-callback",
    files_survive_mutants: "boot-file",
    image_descriptions_survive_mutants: "image-description",
    hidden_work_survives_mutants: "hidden-work",
    hook_answers_survive_mutants: "hook-answers",
    vault_answers_survive_mutants: "vault-answers",
}

/// Windows of the captured trees are read, and a few mutants of each. With `FARRIER_FUZZ_SEEDS` they
/// are written there for libFuzzer too, beside our own; never into the checkout.
#[test]
fn what_was_captured_is_read_and_survives_mutants() {
    let to = std::env::var_os("FARRIER_FUZZ_SEEDS");
    let mut decks = 0;
    for target in TARGETS.iter().filter(|t| t.name.starts_with("redfish-")) {
        let captured = seeds::captured(target.name);
        for (name, data) in &captured {
            let seen = run(target, name, data);
            assert_eq!(seen, run(target, name, data), "{}: {name}", target.name);
            if let Some(to) = &to {
                let dir = Path::new(to).join(target.name);
                std::fs::create_dir_all(&dir).unwrap();
                std::fs::write(dir.join(name), data).unwrap();
            }
        }
        decks += captured.len();
        if !captured.is_empty() {
            mutants_of(target, &captured, if long() { 5_000 } else { 150 });
        }
    }
    println!("{decks} decks of captured trees");
}

/// `fuzz/` is a workspace of its own: nothing but this looks at it in a short run.
#[test]
fn the_fuzz_crate_has_a_program_for_every_target() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest: toml::Table =
        toml::from_str(&std::fs::read_to_string(dir.join("Cargo.toml")).unwrap()).unwrap();
    let programs = manifest["bin"].as_array().unwrap();
    let names: Vec<&str> = programs.iter().map(|b| b["name"].as_str().unwrap()).collect();
    assert_eq!(names, TARGETS.iter().map(|t| t.name).collect::<Vec<_>>());
    for program in programs {
        let text = std::fs::read_to_string(dir.join(program["path"].as_str().unwrap())).unwrap();
        let name = program["name"].as_str().unwrap().replace('-', "_");
        let line = format!(
            "#![no_main]\n\nlibfuzzer_sys::fuzz_target!(|data: &[u8]| farrier::fuzz::{name}(data));\n"
        );
        assert_eq!(text, line);
    }
}
