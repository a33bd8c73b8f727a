//! `farrier sim`: the simulator at a person's hand.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tells how long it took, reads and writes the files it is given; the simulation itself reads no clock"
)]

use crate::config::{Source, render};
use crate::decide::Rules;
use crate::sim::campaign::{Campaign, Summary};
use crate::sim::profile::Profile;
use crate::sim::run::run;
use crate::sim::script::Script;
use crate::sim::shrink::shrink;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    pub machines: u32,
    pub days: u64,
    pub seeds: u64,
    pub first_seed: u64,
    /// One that ships, or a file that ends in `.toml`.
    pub profile: String,
    pub json: bool,
    /// Where the shrunk script of the first failing seed goes.
    pub shrink: Option<PathBuf>,
    /// Play this script and nothing else.
    pub script: Option<PathBuf>,
}

/// Exit 0 without a violation, 1 with one, 2 on bad usage.
pub fn simulate(ask: &Ask) -> ExitCode {
    if let Some(path) = &ask.script {
        return play(path);
    }
    let profile = match profile(&ask.profile) {
        Ok(profile) => profile,
        Err(text) => {
            eprint!("{text}");
            return ExitCode::from(2);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let started = Instant::now();
    let campaign = Campaign {
        machines: ask.machines.max(1),
        days: ask.days.max(1),
        seeds: ask.seeds.max(1),
        first_seed: ask.first_seed,
        profile,
        threads,
    };
    let progress = std::io::stderr().is_terminal();
    let summary = campaign.run_telling(&Rules, &|done, failed| {
        if progress {
            eprint!("\r{done} of {} seeds, {failed} failed ", campaign.seeds);
            std::io::stderr().flush().ok();
        }
    });
    if progress {
        eprintln!();
    }
    let seconds = started.elapsed().as_secs_f64();
    report(&summary, seconds, ask, &campaign.profile);
    if let (Some(path), Some(failure)) = (&ask.shrink, summary.failures.first()) {
        save(failure.script.as_ref(), path);
    }
    if summary.violations == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// The profile of that name or file, or what to print.
fn profile(name: &str) -> Result<Profile, String> {
    if Path::new(name).extension().is_none_or(|e| e != "toml") {
        let known = Profile::NAMES.join(", ");
        return Profile::named(name).ok_or_else(|| {
            format!(
                "error: there is no fault profile `{name}`\n  hint: one of {known}, or a file that ends in `.toml`\n"
            )
        });
    }
    let text = std::fs::read_to_string(name).map_err(|e| {
        format!(
            "error: the fault profile `{name}` could not be read: {e}\n  hint: check the path\n"
        )
    })?;
    Profile::parse(&Source::new(name, text)).map_err(|found| render(&found))
}

fn play(path: &Path) -> ExitCode {
    let read = std::fs::read_to_string(path).map_err(|e| e.to_string());
    let script = match read.and_then(|text| Script::parse(&text)) {
        Ok(script) => script,
        Err(why) => {
            eprintln!("error: `{}` is not a script: {why}", path.display());
            return ExitCode::from(2);
        }
    };
    let ran = run(&script.spec(), Rules);
    for violation in &ran.violations {
        eprintln!("  {violation}");
    }
    println!(
        "{} lines, {} events, {} violations",
        script.lines.len(),
        ran.events,
        ran.violation_count
    );
    if ran.violation_count == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn save(recorded: Option<&Script>, path: &Path) {
    let shrunk = recorded.and_then(|script| shrink(script, |spec| run(spec, Rules)));
    let Some(script) = shrunk.as_ref().or(recorded) else { return };
    if shrunk.is_none() {
        eprintln!("warning: the recorded run does not break the rule again when it is played");
    } else {
        eprint!("{script}");
    }
    match std::fs::write(path, script.to_string()) {
        Ok(()) => {
            eprintln!("written to {}: `farrier sim --script {}`", path.display(), path.display());
        }
        Err(e) => eprintln!("error: `{}` could not be written: {e}", path.display()),
    }
}

fn report(summary: &Summary, seconds: f64, ask: &Ask, profile: &Profile) {
    for failure in summary.failures.iter().take(10) {
        eprintln!("seed {}: {} violations", failure.seed, failure.count);
        for violation in failure.violations.iter().take(10) {
            eprintln!("  {violation}");
        }
        // Of one seed alone: what led to the first of them.
        if ask.seeds == 1 {
            for line in &failure.story {
                eprintln!("    {line}");
            }
        }
    }
    if ask.json {
        println!("{}", summary.json(seconds));
        return;
    }
    println!("{}", summary.coverage.table());
    let empty = summary.coverage.empty_cells(profile);
    if !empty.is_empty() {
        println!("never met: {}", empty.join(", "));
    }
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = summary.events as f64 / seconds.max(0.001);
    println!(
        "{} seeds of {} machines over {} days, profile {}: {} events in {seconds:.1} s ({rate:.0}/s), {} violations",
        summary.seeds, ask.machines, ask.days, profile.name, summary.events, summary.violations
    );
}
