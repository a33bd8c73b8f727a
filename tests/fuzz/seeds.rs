//! What the targets start from: our own files in `fuzz/corpus/`, and windows of captured trees.

use super::captured;
use farrier::fuzz::{Deck, read, read_more};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

/// Bytes of captured documents in one deck, beyond those that lead to them.
const WINDOW: usize = 8 << 10;

/// Name and bytes, by name.
pub(crate) fn own(target: &str) -> Vec<(String, Vec<u8>)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut out = Vec::new();
    for entry in std::fs::read_dir(here.join("fuzz/corpus").join(target)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        out.push((name, std::fs::read(&path).unwrap()));
    }
    if target == "quirks" {
        out.push(("shipped".into(), std::fs::read(here.join("bmc-quirks.toml")).unwrap()));
    }
    out.sort();
    out
}

/// The documents of each captured tree that the target asks for, in decks of a size that a fuzzer can
/// work on: each has the root and the systems, and a window of the rest.
pub(crate) fn captured(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for name in captured::NAMES {
        let Some(tree) = captured::tree(name) else { return out };
        let documents = tree.iter().map(|(path, v)| (path.as_str(), v.to_string().into_bytes()));
        let deck = Arc::new(Deck::of(documents));
        if target == "redfish-facts" {
            assert!(read(&deck).is_some_and(|r| r.inventory.is_ok()), "{name} is not read");
        } else {
            read_more(&deck);
        }
        let (mut head, mut window) = (String::new(), String::new());
        let mut seen = BTreeSet::new();
        let mut n = 0;
        for asked in deck.asked() {
            let Some(path) = asked.strip_prefix("GET ").map(str::to_lowercase) else { continue };
            let bare = path.split('?').next().unwrap_or_default().trim_end_matches('/');
            let found = [path.as_str(), bare].into_iter().find(|p| tree.contains_key(*p));
            let Some(path) = found else { continue };
            if !seen.insert(path.to_string()) {
                continue;
            }
            let leads = path.matches('/').count() <= 4 && !path.contains("chassis");
            let to = if leads { &mut head } else { &mut window };
            let _ = write!(to, "=== {path} 200\n\n{}\n", tree[path]);
            if window.len() >= WINDOW {
                out.push((format!("{name}-{n}"), format!("{head}{window}").into_bytes()));
                window.clear();
                n += 1;
            }
        }
        out.push((format!("{name}-{n}"), format!("{head}{window}").into_bytes()));
    }
    out
}
