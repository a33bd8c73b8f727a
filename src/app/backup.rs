//! `farrier backup` and `farrier restore`.

use super::database::block_on;
use super::files;
use crate::engine::clock::{Clock, wall_ms};
use crate::store::backup::{self, Copy, Restoration};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Copies the database to `file`. Exit 0 done, 1 refused, 2 bad configuration.
pub fn backup(
    db: Option<PathBuf>,
    config: &Path,
    file: &Path,
    replace: bool,
    as_json: bool,
) -> ExitCode {
    block_on(async {
        let path = match database(db, config) {
            Ok(path) => path,
            Err(report) => return bad_files(&report),
        };
        match backup::backup(&path, file, replace).await {
            Ok(copy) => {
                if as_json {
                    println!("{}", with_copy(json!({ "file": file }), &copy));
                } else {
                    println!("{}: {}; checked, clean", file.display(), words(&copy));
                    println!(
                        "keep the key of its secrets apart from it; it is not part of the copy"
                    );
                }
                ExitCode::SUCCESS
            }
            Err(e) => failed(&e.to_string()),
        }
    })
}

/// Puts `file` in the database's place. Exit 0 done (or would be), 1 refused, 2 bad configuration.
pub fn restore(
    db: Option<PathBuf>,
    config: &Path,
    file: &Path,
    dry_run: bool,
    as_json: bool,
) -> ExitCode {
    block_on(async {
        let path = match database(db, config) {
            Ok(path) => path,
            Err(report) => return bad_files(&report),
        };
        if dry_run {
            return match backup::examine(file).await {
                Ok(copy) => {
                    would(&path, file, &copy, as_json);
                    ExitCode::SUCCESS
                }
                Err(e) => failed(&e.to_string()),
            };
        }
        let resume = |stored, wall| Clock::resume(stored, wall, 1).now();
        let now = wall_ms();
        match backup::restore(file, &path, &resume, now, &stamp(now)).await {
            Ok(done) => {
                did(&path, &done, as_json);
                ExitCode::SUCCESS
            }
            Err(e) => failed(&format!(
                "{e}\n  hint: `farrier restore` needs the daemon to be stopped and a whole backup"
            )),
        }
    })
}

fn database(db: Option<PathBuf>, config: &Path) -> Result<PathBuf, String> {
    match db {
        Some(path) => Ok(path),
        None => files::load(config).map(|l| l.daemon.database).map_err(|p| p.report),
    }
}

fn bad_files(report: &str) -> ExitCode {
    eprint!("{report}");
    ExitCode::from(2)
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

fn would(path: &Path, file: &Path, copy: &Copy, as_json: bool) {
    if as_json {
        println!("{}", with_copy(json!({ "dry_run": true, "database": path }), copy));
        return;
    }
    println!("{}: {}", file.display(), words(copy));
    if path.exists() {
        println!("`{}` would be kept beside it as `.aside-<time>`", path.display());
    }
    println!("every machine would be held by `restore`; nothing was changed");
}

fn did(path: &Path, done: &Restoration, as_json: bool) {
    let from = &done.from;
    if as_json {
        let said = json!({
            "database": path,
            "now_incarnation": done.incarnation,
            "aside": done.aside,
        });
        println!("{}", with_copy(said, from));
        return;
    }
    println!("restored `{}`: {}", path.display(), words(from));
    if let Some(aside) = &done.aside {
        println!("the database that was there is `{}`", aside.display());
    }
    println!(
        "incarnation {} (was {}); {} machines are held by `restore`, {} open actions count as unknown",
        done.incarnation, from.incarnation, from.machines, from.open_actions
    );
    println!("next: start the daemon, let it read the machines, look at what is noticed,");
    println!("      then release them: farrier machine unhold --selector held-by=restore --why …");
}

fn words(copy: &Copy) -> String {
    let size = copy.bytes.div_ceil(1024);
    if copy.incarnation.is_empty() {
        return format!("format {} (migrated when it is restored), {size} KiB", copy.format);
    }
    format!(
        "{} machines, {} journal entries, {} open actions, last commit {}, {size} KiB",
        copy.machines,
        copy.entries,
        copy.open_actions,
        date(copy.wall_ms),
    )
}

fn with_copy(mut said: serde_json::Value, copy: &Copy) -> serde_json::Value {
    let facts = json!({
        "incarnation": copy.incarnation,
        "format": copy.format,
        "machines": copy.machines,
        "entries": copy.entries,
        "open_actions": copy.open_actions,
        "bytes": copy.bytes,
        "last_commit_ms": copy.wall_ms,
    });
    if let (Some(said), serde_json::Value::Object(facts)) = (said.as_object_mut(), facts) {
        said.extend(facts);
    }
    said
}

fn date(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    match at {
        Some(at) if ms > 0 => at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        _ => "never".into(),
    }
}

/// `20261121T145900Z`, for the name of what is kept aside.
fn stamp(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.unwrap_or_default().strftime("%Y%m%dT%H%M%SZ").to_string()
}
