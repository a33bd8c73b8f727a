//! Imports follow the floors of ARCHITECTURE.md and nothing else.
#![allow(clippy::disallowed_methods, reason = "reads the sources")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each part of `src/` may import from the crate, besides itself.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    let pure = &["model", "steps", "decide", "config"][..];
    BTreeMap::from([
        ("model", &[][..]),
        ("steps", &["model"][..]),
        ("decide", &["model", "steps"][..]),
        ("config", &["model", "steps"][..]),
        ("port", &["model", "steps"][..]),
        ("engine", &["model", "steps", "decide", "port"][..]),
        ("bmc", &["model", "port"][..]),
        ("ipmi", &["model", "port"][..]),
        ("scan", &["model", "port"][..]),
        ("shell", &["model", "port"][..]),
        ("cluster", &["model", "port"][..]),
        ("boot", &["model", "port"][..]),
        ("dhcp", &["model", "port"][..]),
        ("tftp", &["model", "port"][..]),
        ("store", &["model", "port"][..]),
        ("notify", &["model", "port"][..]),
        // The simulator drives the real engine; it must not see an edge.
        ("sim", &["model", "steps", "decide", "config", "port", "engine"][..]),
        ("pure", pure),
    ])
}

/// Crates that only edges may name.
const IO_CRATES: &[&str] = &["tokio", "sqlx", "reqwest", "russh", "axum", "rustls", "jiff"];

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// `crate::x` paths and `use crate::{x, y}` lists, as the names right after `crate::`.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code: String =
        text.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + 7..];
        if let Some(list) = rest.strip_prefix('{') {
            let (mut depth, mut word, mut top) = (0, String::new(), true);
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.push(std::mem::take(&mut word));
                        top = true;
                    }
                    ':' if depth == 0 => top = false,
                    c if depth == 0 && top && (c.is_alphanumeric() || c == '_') => word.push(c),
                    _ => {}
                }
            }
            found.push(word);
        } else {
            found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found.retain(|w| !w.is_empty());
    found
}

fn floor_of(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_string_lossy().to_string();
    // The wire of the simulator's world is a server, not part of the pure world.
    if below.starts_with("sim/serve") { "sim/serve".into() } else { first }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn imports_follow_the_floors() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    assert!(files.len() > 30, "the sources were not found");
    let allowed = allowed();
    let mut wrong = Vec::new();
    for file in &files {
        let floor = floor_of(file);
        let own = floor.split('/').next().unwrap_or(&floor).to_string();
        let Some(may) = allowed.get(own.as_str()) else { continue };
        let text = fs::read_to_string(file).unwrap();
        for import in imports(&text) {
            if import != own && !may.contains(&import.as_str()) {
                wrong.push(format!("{}: `crate::{import}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "upward imports:\n{}", wrong.join("\n"));
}

#[test]
fn pure_parts_name_no_io_crate() {
    let mut files = Vec::new();
    for part in ["model", "steps", "decide", "config", "sim"] {
        sources(&root().join("src").join(part), &mut files);
    }
    for pure in ["director.rs", "event.rs", "headroom.rs", "outages.rs"] {
        files.push(root().join("src/engine").join(pure));
    }
    let mut wrong = Vec::new();
    for file in files.iter().filter(|f| floor_of(f) != "sim/serve") {
        let text = fs::read_to_string(file).unwrap();
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for name in IO_CRATES {
                if code.contains(&format!("{name}::")) {
                    wrong.push(format!("{}:{}: {}", file.display(), n + 1, code.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "I/O in a pure part:\n{}", wrong.join("\n"));
}

#[test]
fn the_checker_sees_an_upward_import() {
    let text = "use crate::{model::Stage, engine::{Director, Event}};\n// crate::api\nlet x = crate::bmc::y();";
    assert_eq!(imports(text), ["model", "engine", "bmc"]);
}

#[test]
fn the_stage_diagram_in_the_readme_is_the_edge_table() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let diagram = farrier::model::stage::diagram();
    assert!(
        readme.contains(&format!("```mermaid\n{diagram}```")),
        "README.md's diagram differs from the edge table; it should be:\n```mermaid\n{diagram}```"
    );
}

/// What stands between backticks, outside of code blocks.
fn quoted(page: &str) -> Vec<&str> {
    let prose = page.split("\n```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn paths_and_functions_in_the_architecture_page_exist() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let code: String = files.iter().map(|f| fs::read_to_string(f).unwrap()).collect();
    let (mut paths, mut functions, mut wrong) = (0, 0, Vec::new());
    for word in quoted(&page) {
        let top = ["src/", "tests/", "workflows/", "firmware-catalog/", ".ci/"];
        if top.iter().any(|t| word.starts_with(t)) {
            paths += 1;
            if !root().join(word).exists() {
                wrong.push(format!("no file `{word}`"));
            }
        } else if let Some(name) = word.strip_suffix("()") {
            functions += 1;
            let name = name.rsplit("::").next().unwrap_or(name);
            if !code.contains(&format!("fn {name}(")) && !code.contains(&format!("fn {name}<")) {
                wrong.push(format!("no function `{word}`"));
            }
        } else if let Some((kind, variant)) = word.split_once("::")
            && kind.chars().next().is_some_and(char::is_uppercase)
            && !code.contains(word)
            && !code.contains(variant)
        {
            wrong.push(format!("no `{word}`"));
        }
    }
    assert!(paths > 50 && functions > 30, "{paths} paths, {functions} functions: is it read?");
    assert!(wrong.is_empty(), "ARCHITECTURE.md is out of date:\n{}", wrong.join("\n"));
}

/// The names of the `fn`s in `text`.
fn methods(text: &str) -> Vec<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    text.lines().filter_map(|l| Some(name(l.split_once("fn ")?.1))).collect()
}

/// From `head` to the brace that closes it at the line's beginning.
fn block<'t>(text: &'t str, head: &str) -> Option<&'t str> {
    let at = text.find(head)?;
    text[at..].split("\n}\n").next()
}

#[test]
fn what_stands_before_the_bmcs_passes_every_method_on() {
    // A method with a body of its own compiles where it is forgotten, and is then another one.
    let ports = fs::read_to_string(root().join("src/port/mod.rs")).unwrap();
    let traits = ["BmcRead", "BmcPower", "BmcUpdate", "BmcCare"];
    for (file, who) in [("src/app/access.rs", "Guarded"), ("src/app/fallback.rs", "WithFallback")] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        for name in traits {
            let wanted = methods(block(&ports, &format!("pub trait {name}")).unwrap());
            let has = methods(block(&text, &format!("impl {name} for {who}")).unwrap_or(""));
            assert!(!wanted.is_empty());
            for method in wanted {
                assert!(has.contains(&method), "{file}: {who} forgets {name}::{method}()");
            }
        }
    }
}

#[test]
fn every_test_is_in_a_part() {
    let script = fs::read_to_string(root().join("tests/run.sh")).unwrap();
    let parts = script.split("parts='").nth(1).and_then(|rest| rest.split("\n'").next()).unwrap();
    let named = |test: &str| {
        parts.split(|c: char| c.is_whitespace() || c == '|').any(|word| word == test)
            || script.contains(&format!("cargo_test --test {test}"))
    };
    let mut count = 0;
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").exists();
        if is_test {
            let test = path.file_stem().unwrap().to_str().unwrap();
            count += 1;
            assert!(named(test), "tests/run.sh runs no `{test}`");
        }
    }
    assert!(count > 30, "{count} tests: are they found?");
}
