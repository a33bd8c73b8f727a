//! Reading the configuration's files: all that can be read is read, every one that can't is named.
#![allow(clippy::disallowed_methods, reason = "this is where configuration files are read")]

use crate::config::{self, Source, Sources};
use std::fs;
use std::path::{Path, PathBuf};

/// What came of reading and checking a configuration.
#[derive(Debug)]
pub struct Problems {
    /// Everything that is wrong, ready to print.
    pub report: String,
}

/// The database that `farrier.toml` at `path` names, when that much can be read: a start opens it
/// while the rest is parsed.
pub fn database(path: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(path).ok()?;
    let (daemon, _) = config::daemon::parse(&Source::new(path.display().to_string(), text));
    daemon.map(|d| d.database).filter(|db| db.is_file())
}

/// The files that grow with the site: database and inventory, as far as `farrier.toml` names them.
pub fn large(path: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let (daemon, _) = config::daemon::parse(&Source::new(path.display().to_string(), text));
    daemon.map_or_else(Vec::new, |d| [vec![d.database], d.inventory].concat())
}

/// Reads `farrier.toml` at `path` and all files it names, and checks them together.
///
/// # Errors
/// One report of all problems: unreadable files, then everything the checks found.
pub fn load(path: &Path) -> Result<config::Loaded, Problems> {
    let mut unreadable = Vec::new();
    let shown = path.display().to_string();
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) => {
            let report = format!(
                "error: can't read `{shown}`: {e}\n  hint: `--config` names it; copy `farrier.example.toml` to start\n"
            );
            return Err(Problems { report });
        }
    };
    let daemon_source = Source::new(shown, text);
    // The daemon's file says where the others are; its own mistakes are reported by `load`.
    let mut sources = Sources { daemon: daemon_source.clone(), ..Sources::default() };
    let (daemon, found) = config::daemon::parse(&daemon_source);
    let Some(daemon) = daemon else {
        return Err(Problems { report: config::render(&found) });
    };
    for path in &daemon.inventory {
        if path.is_dir() {
            sources.inventory.extend(
                toml_files(path, &mut unreadable)
                    .into_iter()
                    .filter_map(|p| read(&p, &mut unreadable)),
            );
        } else {
            sources.inventory.extend(read(path, &mut unreadable));
        }
    }
    for path in toml_files(&daemon.workflows, &mut unreadable) {
        sources.workflows.extend(read(&path, &mut unreadable));
    }
    if let Some(path) = &daemon.remediation {
        sources.remediation = read(path, &mut unreadable);
    }
    if let Some(path) = &daemon.quirks {
        sources.quirks = read(path, &mut unreadable);
    }
    // A site without firmware updates needs no catalog.
    if daemon.catalog.is_dir() {
        for vendor in folders(&daemon.catalog, &mut unreadable) {
            for path in toml_files(&vendor, &mut unreadable) {
                sources.catalog.extend(read(&path, &mut unreadable));
            }
        }
    }
    sources.catalog_root = daemon.catalog.display().to_string();
    if daemon.images.is_dir() {
        sources.recipes = recipes(&daemon.images, &mut unreadable);
    }
    sources.templates_root = daemon.templates.display().to_string();
    if daemon.templates.is_dir() {
        for path in templates(&daemon.templates, &mut unreadable) {
            sources.templates.extend(read(&path, &mut unreadable));
        }
    }
    let catalog = daemon.catalog.clone();
    let result = config::load(&sources, &|file| catalog.join(file).is_file());
    match (result, unreadable.is_empty()) {
        (Ok(loaded), true) => Ok(loaded),
        (Ok(_), false) => Err(Problems { report: unreadable.concat() }),
        (Err(found), _) => {
            Err(Problems { report: format!("{}{}", unreadable.concat(), config::render(&found)) })
        }
    }
}

fn read(path: &Path, unreadable: &mut Vec<String>) -> Option<Source> {
    match fs::read_to_string(path) {
        Ok(text) => Some(Source::new(path.display().to_string(), text)),
        Err(e) => {
            unreadable.push(format!("error: can't read `{}`: {e}\n", path.display()));
            None
        }
    }
}

/// The descriptions of images that are booted by a recipe; those of disk images are the boot server's.
fn recipes(images: &Path, unreadable: &mut Vec<String>) -> Vec<(String, Source)> {
    let described = folders(images, unreadable).into_iter().filter_map(|dir| {
        let id = dir.file_name()?.to_str()?.to_string();
        let source = read(&Some(dir.join("image.toml")).filter(|p| p.is_file())?, unreadable)?;
        config::is_recipe(&source.text).then_some((id, source))
    });
    described.collect()
}

/// Everything below the templates' directory, so that what is in a wrong place is told; editors' and
/// hidden files aside.
fn templates(dir: &Path, unreadable: &mut Vec<String>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in entries(dir, unreadable) {
        let name = path.file_name().map(|n| n.to_string_lossy().to_string()).unwrap_or_default();
        if name.starts_with('.') || name.ends_with('~') {
            continue;
        }
        match path.is_dir() {
            true => found.extend(templates(&path, unreadable)),
            false => found.push(path),
        }
    }
    found
}

/// `*.toml` of a directory, by name.
fn toml_files(dir: &Path, unreadable: &mut Vec<String>) -> Vec<PathBuf> {
    entries(dir, unreadable)
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "toml") && p.is_file())
        .collect()
}

fn folders(dir: &Path, unreadable: &mut Vec<String>) -> Vec<PathBuf> {
    entries(dir, unreadable).into_iter().filter(|p| p.is_dir()).collect()
}

fn entries(dir: &Path, unreadable: &mut Vec<String>) -> Vec<PathBuf> {
    match fs::read_dir(dir) {
        Ok(found) => {
            let mut paths: Vec<PathBuf> = found.filter_map(|e| Some(e.ok()?.path())).collect();
            paths.sort();
            paths
        }
        Err(e) => {
            unreadable.push(format!("error: can't read the directory `{}`: {e}\n", dir.display()));
            Vec::new()
        }
    }
}
