//! The firmware catalog: `<vendor>/<family>.toml`, one file a family of machines. A set is what was
//! approved as a unit; only `approved` and `canary` sets are ever installed.

mod image;
mod pattern;

use super::Source;
use super::book::{Book, Place};
use super::diagnostic::Diagnostic;
use super::names::{dangling, unique};
use super::table::Table;
use crate::steps::catalog::{Catalog, Family, FirmwareSet, SetStatus};
use image::Image;
use std::collections::BTreeMap;
use std::ops::Range;

/// Reads all families. `root` is the catalog's directory as the sources' paths start with it; the
/// `file`s of the result are relative to it. `file_exists` is asked for such relative paths, for
/// images of sets that may be installed.
pub fn parse(
    root: &str,
    sources: &[Source],
    file_exists: &dyn Fn(&str) -> bool,
) -> (Catalog, Vec<Diagnostic>) {
    let book = Book::new(sources.iter().collect());
    let catalog = read(&book, 0..sources.len(), root, file_exists);
    (catalog, book.finish())
}

/// A set as written.
struct Set {
    status: SetStatus,
    order: Vec<(String, Place)>,
    requires: Option<(String, Place)>,
    at: Place,
}

impl Set {
    fn may_be_installed(&self) -> bool {
        matches!(self.status, SetStatus::Approved | SetStatus::Canary)
    }
}

pub(super) fn read(
    book: &Book<'_>,
    files: Range<usize>,
    root: &str,
    file_exists: &dyn Fn(&str) -> bool,
) -> Catalog {
    let mut ids = BTreeMap::new();
    let mut families = Vec::new();
    for file in files {
        let relative = relative(root, book.path(file));
        let folder = relative.rsplit_once('/').map_or("", |(folder, _)| folder);
        let (family, sets, images) = book.read(file, |top| read_family(top, folder, &mut ids));
        check_sets(book, &sets, &images);
        image::check_links(book, &images);
        for image in &images {
            let installed =
                image.sets.iter().any(|s| sets.get(s).is_some_and(Set::may_be_installed));
            if let Some(file) = &image.file
                && installed
                && !file_exists(file)
            {
                book.error(image.at.file, format!("`{file}` is not in the catalog"))
                    .hint(format!("put it below `{root}`, or make the set a `draft`"));
            }
        }
        let sets = sets.into_iter().map(|(name, set)| {
            let firmware = in_order(&name, &set, &images);
            (name, FirmwareSet { status: set.status, firmware })
        });
        families.push(Family { file: relative.clone(), sets: sets.collect(), ..family });
    }
    Catalog { families }
}

/// One file: whom it is for, its sets and its images.
fn read_family(
    mut top: Table<'_, '_>,
    folder: &str,
    ids: &mut BTreeMap<String, Place>,
) -> (Family, BTreeMap<String, Set>, Vec<Image>) {
    let mut family = Family {
        file: String::new(),
        manufacturer: Vec::new(),
        model: Vec::new(),
        sets: BTreeMap::new(),
    };
    top.schema();
    if let Some(mut t) = top.table("match") {
        let into = [("manufacturer", &mut family.manufacturer), ("model", &mut family.model)];
        for (key, into) in into {
            for text in t.texts(key) {
                into.extend(pattern::anchored(&t, key, text));
            }
            if t.lacks(key) {
                t.missing(key);
            }
        }
        t.done();
    } else if top.lacks("match") {
        top.error(top.at, "`[match]` is missing")
            .hint("say which machines the family is: `manufacturer` and `model` as regexes");
    }
    let sets = sets(&mut top);
    let mut images = Vec::new();
    for mut t in top.tables("firmware") {
        let id = t.need_name("id");
        if let Some(id) = id {
            unique(&t, ids, id, "firmware id");
        }
        images.push(image::read(&mut t, id.map_or("", |id| id.value), folder, &sets));
        t.done();
    }
    quirks(&mut top);
    top.done();
    (family, sets, images)
}

/// A source's path below the catalog's directory.
fn relative(root: &str, path: &str) -> String {
    let root = root.trim_end_matches('/');
    match path.strip_prefix(root).and_then(|p| p.strip_prefix('/')) {
        Some(below) if !root.is_empty() => below.to_string(),
        _ => path.trim_start_matches("./").to_string(),
    }
}

fn sets(top: &mut Table<'_, '_>) -> BTreeMap<String, Set> {
    let mut out = BTreeMap::new();
    let Some(mut all) = top.table("set") else {
        if top.lacks("set") {
            top.missing("set");
        }
        return out;
    };
    let statuses = [
        ("draft", SetStatus::Draft),
        ("canary", SetStatus::Canary),
        ("approved", SetStatus::Approved),
        ("deprecated", SetStatus::Deprecated),
        ("blocked", SetStatus::Blocked),
    ];
    for (name, value) in all.pairs() {
        let Some(mut t) = all.as_table(name.value, value) else { continue };
        let status = t.need_choice("status", &statuses).unwrap_or(SetStatus::Draft);
        let order = t.texts("order").iter().map(|c| (c.value.to_string(), c.at)).collect();
        let requires = t.text("requires_set").map(|r| (r.value.to_string(), r.at));
        t.done();
        out.insert(name.value.to_string(), Set { status, order, requires, at: name.at });
    }
    out
}

/// `[quirks]` is known and checked; the engine does not act on it yet, so it warns.
fn quirks(top: &mut Table<'_, '_>) {
    let Some(mut t) = top.table("quirks") else { return };
    let at = t.at;
    t.span("bmc_reset_recovery");
    t.span("delay_after_upload");
    t.boolean("ignore_backup_inventory");
    t.integer("max_parallel_uploads_per_bmc", 1..17);
    t.done();
    top.book.warning(at, "`[quirks]` is checked but not acted on by this version of Farrier");
}

fn check_sets(book: &Book<'_>, sets: &BTreeMap<String, Set>, images: &[Image]) {
    for (name, set) in sets {
        let members: Vec<&Image> = images.iter().filter(|i| i.sets.contains(name)).collect();
        let mut ordered: BTreeMap<&str, Place> = BTreeMap::new();
        for (component, at) in &set.order {
            if ordered.insert(component, *at).is_some() {
                book.error(*at, format!("`{component}` is in the order twice"));
            } else if !members.iter().any(|i| i.component == *component) {
                let known = members.iter().map(|i| i.component.as_str());
                dangling(book, *at, &format!("firmware of set `{name}` for"), component, known);
            }
        }
        for (i, image) in members.iter().enumerate() {
            let component = &image.component;
            if component.is_empty() {
                continue;
            }
            if let Some(other) = members.iter().take(i).find(|o| o.component == *component) {
                book.error(
                    image.at.header,
                    format!("set `{name}` has two images for component `{component}`"),
                )
                .hint(format!("the other one is at {}", book.where_is(other.at.header)));
            }
            if !ordered.contains_key(component.as_str())
                && (members.len() > 1 || !set.order.is_empty())
            {
                book.error(
                    image.at.component,
                    format!("component `{component}` is not in the order of set `{name}`"),
                )
                .hint(format!("add it to `order` at {}", book.where_is(set.at)));
            }
        }
        if members.is_empty() {
            book.error(set.at, format!("set `{name}` has no firmware"))
                .hint(format!("name it in a `[[firmware]]`: `set = \"{name}\"`"));
        }
        if let Some((required, at)) = &set.requires {
            match sets.get(required) {
                None => dangling(book, *at, "set", required, sets.keys().map(String::as_str)),
                Some(r) if r.status == SetStatus::Blocked => {
                    book.error(
                        *at,
                        format!("set `{required}` is blocked, so `{name}` can't be reached"),
                    );
                }
                Some(_) if set.may_be_installed() => {
                    book.warning(
                        *at,
                        "`requires_set` is checked but not acted on by this version of Farrier",
                    )
                    .hint("`min_version` of the images guards the path");
                }
                Some(_) => {}
            }
        }
    }
    let next = |name: &String| {
        sets.get(name)
            .and_then(|s| s.requires.as_ref())
            .map(|(r, _)| r.clone())
            .into_iter()
            .collect()
    };
    for round in cycles(sets.keys().cloned().collect(), &next) {
        if let Some((_, at)) = round.first().and_then(|n| sets.get(n)?.requires.as_ref()) {
            book.error(*at, format!("sets require each other: {}", round.join(" → ")));
        }
    }
}

fn in_order(name: &str, set: &Set, images: &[Image]) -> Vec<crate::steps::catalog::Firmware> {
    let rank = |component: &str| set.order.iter().position(|(c, _)| c == component);
    let mut members: Vec<_> = images
        .iter()
        .filter(|i| i.sets.iter().any(|s| s == name))
        .filter_map(|i| i.firmware.clone())
        .collect();
    members.sort_by_key(|f| rank(&f.component).unwrap_or(usize::MAX));
    members
}

/// Rings in a graph, each once, starting and ending with its smallest name. Names not in `nodes`
/// lead nowhere.
fn cycles(nodes: Vec<String>, next: &dyn Fn(&String) -> Vec<String>) -> Vec<Vec<String>> {
    let mut out: Vec<Vec<String>> = Vec::new();
    let mut clean: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
    for start in &nodes {
        // Depth first without recursion: catalogs come from outside.
        let mut path: Vec<(String, Vec<String>)> = vec![(start.clone(), next(start))];
        while let Some((_, ahead)) = path.last_mut() {
            let Some(node) = ahead.pop() else {
                if let Some((done, _)) = path.pop() {
                    clean.insert(done);
                }
                continue;
            };
            if let Some(from) = path.iter().position(|(n, _)| *n == node) {
                let mut ring: Vec<String> =
                    path.iter().skip(from).map(|(n, _)| n.clone()).collect();
                let least = ring.iter().enumerate().min_by_key(|(_, n)| (*n).clone());
                let least = least.map_or(0, |(i, _)| i);
                ring.rotate_left(least);
                ring.extend(ring.first().cloned());
                if !out.contains(&ring) {
                    out.push(ring);
                }
            } else if !clean.contains(&node) && nodes.contains(&node) {
                let ahead = next(&node);
                path.push((node, ahead));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_found_once() {
        let edges: BTreeMap<&str, Vec<&str>> = [
            ("a", vec!["b"]),
            ("b", vec!["c", "x"]),
            ("c", vec!["a"]),
            ("d", vec!["d"]),
            ("e", vec!["a"]),
        ]
        .into();
        let nodes = edges.keys().map(ToString::to_string).collect();
        let next = |n: &String| {
            edges.get(n.as_str()).into_iter().flatten().map(ToString::to_string).collect()
        };
        let rings: Vec<String> = cycles(nodes, &next).iter().map(|r| r.join(" ")).collect();
        assert_eq!(rings, ["a b c a", "d d"]);
    }

    #[test]
    fn paths_are_relative_to_the_catalog() {
        assert_eq!(relative("firmware-catalog", "firmware-catalog/dell/x.toml"), "dell/x.toml");
        assert_eq!(relative("/etc/f/", "/etc/f/dell/x.toml"), "dell/x.toml");
        assert_eq!(relative("", "dell/x.toml"), "dell/x.toml");
        assert_eq!(relative("other", "dell/x.toml"), "dell/x.toml");
    }
}
