//! `[[firmware]]`: one image of one component, with what must hold before it may be installed.

use super::{Set, cycles, pattern};
use crate::config::book::{Book, Place};
use crate::config::names::dangling;
use crate::config::table::{Table, Text};
use crate::config::url::check_url;
use crate::model::time::Span;
use crate::steps::catalog::{Activation, Firmware, Method, SetStatus};
use crate::steps::version::{Scheme, compare};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// An image with its links to others of the family.
pub(super) struct Image {
    /// Empty when it is missing, as are the next two: others may still refer to this image.
    pub(super) id: String,
    pub(super) component: String,
    version: String,
    scheme: Scheme,
    min_version: Option<String>,
    /// Below the catalog's directory.
    pub(super) file: Option<String>,
    /// `None` when what an update needs is missing or wrong.
    pub(super) firmware: Option<Firmware>,
    pub(super) sets: Vec<String>,
    /// Stepping stones: ids of images to pass through.
    via: Vec<(String, Place)>,
    requires: Vec<Requirement>,
    pub(super) at: Places,
}

/// Another component that must be at a version first.
struct Requirement {
    component: String,
    min: Option<String>,
    at: Place,
}

#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) header: Place,
    pub(super) component: Place,
    pub(super) file: Place,
}

/// Reads one image.
pub(super) fn read(
    t: &mut Table<'_, '_>,
    id: &str,
    folder: &str,
    sets: &BTreeMap<String, Set>,
) -> Image {
    let component = t.need_name("component");
    let names = t.texts("set");
    if t.lacks("set") {
        t.missing("set");
    }
    for name in &names {
        if !sets.contains_key(name.value) {
            dangling(t.book, name.at, "set", name.value, sets.keys().map(String::as_str));
        }
    }
    let mut member_of = names.iter().filter_map(|n| sets.get(n.value));
    // Only a set that is never installed may leave open what its files are.
    let open = member_of.all(|s| matches!(s.status, SetStatus::Draft | SetStatus::Blocked));
    let installed = names.iter().any(|n| sets.get(n.value).is_some_and(Set::may_be_installed));

    let inventory_id =
        t.need_text("inventory_id").and_then(|text| pattern::anchored(t, "inventory_id", text));
    let scheme = t
        .choice(
            "version_scheme",
            &[("dotted", Scheme::Dotted), ("lexical", Scheme::Lexical), ("opaque", Scheme::Opaque)],
        )
        .unwrap_or_default();
    let version_regex =
        t.text("version_regex").and_then(|text| pattern::any(t, "version_regex", text));
    let version = t.need_text("version");
    let min_version = t.text("min_version");
    let blocked = t.texts("blocked_versions");
    let file = t.text("file");
    let file_path = file.and_then(|text| file_below(t, folder, text));
    let size = t.integer("size", 1..1 << 40);
    let digest = t.text("sha256");
    let digest_ok = digest.and_then(|text| sha256(t, text));
    if !open {
        for key in ["file", "size", "sha256"] {
            if t.lacks(key) {
                t.missing(key);
            }
        }
    }
    let activation = activation(t);
    let verify_timeout = t.span("verify_timeout").map_or(Span(1_800_000), |(span, _)| span);
    let allow_downgrade =
        t.choice("downgrade", &[("deny", false), ("allow", true)]).unwrap_or(false);
    let method = method(t);
    let via: Vec<_> = t.texts("via").iter().map(|v| (v.value.to_string(), v.at)).collect();
    let requires = requires(t);
    not_yet(t, installed, method.is_none());

    let owned = |text: Option<Text<'_>>| text.map(|t| t.value.to_string());
    let firmware = (|| {
        Some(Firmware {
            id: id.to_string(),
            component: owned(component)?,
            inventory_id: inventory_id?,
            version: owned(version)?,
            scheme,
            version_regex,
            min_version: owned(min_version),
            blocked_versions: blocked.iter().map(|b| b.value.to_string()).collect(),
            file: file_path.clone().unwrap_or_default(),
            size: size.unwrap_or(0),
            sha256: digest_ok.unwrap_or_default(),
            activation: activation?,
            verify_timeout,
            allow_downgrade,
            method: method.unwrap_or_default(),
        })
    })();
    if let (Some(fw), Some(version)) = (&firmware, version) {
        check_versions(t, fw, version, min_version, &blocked);
    }
    Image {
        id: id.to_string(),
        component: owned(component).unwrap_or_default(),
        version: owned(version).unwrap_or_default(),
        scheme,
        min_version: owned(min_version),
        file: file_path,
        firmware,
        sets: names.iter().map(|n| n.value.to_string()).collect(),
        via,
        requires,
        at: Places {
            header: t.at,
            component: component.map_or(t.at, |c| c.at),
            file: file.map_or(t.at, |f| f.at),
        },
    }
}

/// Versions that contradict each other would update for ever, or never.
fn check_versions(
    t: &Table<'_, '_>,
    fw: &Firmware,
    version: Text<'_>,
    min: Option<Text<'_>>,
    blocked: &[Text<'_>],
) {
    if fw.normalize(&fw.version) != fw.version {
        t.error(
            version.at,
            format!(
                "`version_regex` reads `{}` out of `{}`",
                fw.normalize(&fw.version),
                fw.version
            ),
        )
        .hint("write `version` as the regex's first group reads it from the BMC's own text");
    }
    if let Some(min) = min {
        match compare(fw.scheme, min.value, &fw.version) {
            Some(Ordering::Greater) => {
                t.error(min.at, format!("`min_version` is above `{}` itself", fw.version));
            }
            None => {
                t.error(min.at, format!("`{}` and `{}` can't be ordered", min.value, fw.version))
                    .hint("`version_scheme` must order the versions: `dotted` or `lexical`");
            }
            Some(_) => {}
        }
    }
    for bad in blocked {
        if compare(fw.scheme, bad.value, &fw.version) == Some(Ordering::Equal) {
            t.error(bad.at, format!("`{}` is blocked and is the version to install", bad.value));
        }
    }
}

/// The image's path below the catalog. BMCs fetch it by URL: plain and short (field notes R22).
fn file_below(t: &Table<'_, '_>, folder: &str, text: Text<'_>) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    let parts = || text.value.split('/');
    if text.value.len() > 128
        || !text.value.chars().all(fits)
        || parts().any(|p| p.is_empty() || p.starts_with('.'))
    {
        t.error(text.at, format!("`{}` can't be served to a BMC", text.value)).hint(
            "a relative path of letters, digits, `.`, `-`, `_`; nothing above the file's own directory",
        );
        return None;
    }
    Some(if folder.is_empty() {
        text.value.to_string()
    } else {
        format!("{folder}/{}", text.value)
    })
}

fn sha256(t: &Table<'_, '_>, text: Text<'_>) -> Option<String> {
    if text.value.len() == 64 && text.value.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(text.value.to_ascii_lowercase());
    }
    t.error(
        text.at,
        format!("a SHA-256 has 64 hex digits, this has {}", text.value.chars().count()),
    )
    .hint("take the output of `sha256sum`");
    None
}

/// One activation, alone or in a list of one: this version of Farrier does one thing after an
/// update.
fn activation(t: &mut Table<'_, '_>) -> Option<Activation> {
    let words = t.texts("activation");
    if t.lacks("activation") {
        t.missing("activation");
    }
    if let Some(second) = words.get(1) {
        t.error(second.at, "this version of Farrier does one activation after an update");
        return None;
    }
    let word = *words.first()?;
    if ["host-power-cycle", "ac-cycle"].contains(&word.value)
        || word.value.starts_with("power-drain")
    {
        t.error(word.at, format!("this version of Farrier can't do activation `{}`", word.value))
            .hint("it can do `none`, `bmc-reset` and `host-reset`");
        return None;
    }
    t.pick(
        "activation",
        word,
        &[
            ("none", Activation::None),
            ("bmc-reset", Activation::BmcReset),
            ("host-reset", Activation::HostReset),
        ],
    )
}

fn requires(t: &mut Table<'_, '_>) -> Vec<Requirement> {
    let mut out = Vec::new();
    for mut r in t.tables("requires") {
        let component = r.need_text("component");
        let min = r.text("min").map(|m| m.value.to_string());
        if let Some(component) = component {
            out.push(Requirement { component: component.value.to_string(), min, at: component.at });
        }
        r.done();
    }
    out
}

/// `None`: one that this version of Farrier does not do.
fn method(t: &mut Table<'_, '_>) -> Option<Method> {
    let Some(method) = t.text("method") else { return Some(Method::Found) };
    if method.value.starts_with("vendor:") {
        return None;
    }
    let known = [
        ("simple-update", Some(Method::SimpleUpdate)),
        ("multipart", Some(Method::Multipart)),
        ("http-push", Some(Method::HttpPush)),
        ("inband-script", None),
    ];
    t.pick("method", method, &known).unwrap_or(Some(Method::Found))
}

/// Keys of the format that this version checks but does not obey. Somebody who relies on one must
/// know; people's notes (`url`, `criticality`, …) rely on nothing.
fn not_yet(t: &mut Table<'_, '_>, installed: bool, another_method: bool) {
    let mut ignored: Vec<&str> = Vec::new();
    if another_method {
        ignored.push("method");
    }
    let apply_times = [
        "Immediate",
        "OnReset",
        "AtMaintenanceWindowStart",
        "InMaintenanceWindowOnReset",
        "OnStartUpdateRequest",
    ];
    if t.choice("apply_time", &apply_times.map(|a| (a, ()))).is_some() {
        ignored.push("apply_time");
    }
    if t.choice("host_power", &[("any", false), ("on", true), ("off", true)]) == Some(true) {
        ignored.push("host_power");
    }
    let targets = t.texts("target");
    if targets.iter().any(|x| x.value != "auto") {
        ignored.push("target");
    }
    for (key, present) in [
        ("pre_steps", !t.texts("pre_steps").is_empty()),
        ("software_id", t.text("software_id").is_some()),
        ("settle", t.span("settle").is_some()),
        ("drain_required", t.boolean("drain_required").is_some()),
        ("max_attempts", t.integer("max_attempts", 1..100).is_some()),
        ("licence", !t.texts("licence").is_empty()),
    ] {
        if present {
            ignored.push(key);
        }
    }
    if let Some(mut s) = t.table("signature") {
        s.need_choice("kind", &[("minisign", ())]);
        s.need_text("key");
        s.need_text("file");
        s.done();
        ignored.push("signature");
    }
    if let Some(url) = t.text("url")
        && let Err(why) = check_url(url.value)
    {
        t.error(url.at, why);
    }
    t.integer("est_minutes", 1..10_000);
    t.text("criticality");
    t.texts("advisories");
    t.text("notes");
    if installed && !t.lacks("requires") {
        ignored.push("requires");
    }
    if installed && !t.lacks("via") {
        ignored.push("via");
    }
    if installed && !ignored.is_empty() {
        let keys = crate::config::names::list(&ignored);
        t.book
            .warning(t.at, format!("{keys}: checked but not acted on by this version of Farrier"))
            .hint(
                "`min_version` guards the path; set such machines on hold where that is not enough",
            );
    }
}

/// Links between the images of a family: nothing dangling, nothing in a ring.
pub(super) fn check_links(book: &Book<'_>, images: &[Image]) {
    let by_id: BTreeMap<&str, &Image> = images.iter().map(|i| (i.id.as_str(), i)).collect();
    for image in images {
        for (via, at) in &image.via {
            match by_id.get(via.as_str()) {
                None => dangling(book, *at, "firmware id", via, by_id.keys().copied()),
                Some(stone) => check_stone(book, image, stone, *at),
            }
        }
        for r in &image.requires {
            let others: Vec<&Image> =
                images.iter().filter(|i| i.component == r.component).collect();
            if others.is_empty() {
                let known = images.iter().map(|i| i.component.as_str());
                dangling(book, r.at, "component", &r.component, known);
            } else if let Some(min) = &r.min
                && others.iter().all(|i| below(i.scheme, &i.version, min))
            {
                book.error(r.at, format!("no image of `{}` reaches `{min}`", r.component));
            }
        }
    }
    let next = |id: &String| -> Vec<String> {
        let image = by_id.get(id.as_str());
        image.map_or_else(Vec::new, |i| i.via.iter().map(|v| v.0.clone()).collect())
    };
    for ring in cycles(by_id.keys().map(ToString::to_string).collect(), &next) {
        let first = ring.first().and_then(|id| by_id.get(id.as_str()));
        // Of several stepping stones, the one that is in the ring.
        let at = first.and_then(|i| i.via.iter().find(|(v, _)| Some(v) == ring.get(1)));
        if let Some((_, at)) = at {
            book.error(*at, format!("stepping stones in a ring: {}", ring.join(" → ")));
        }
    }
}

fn check_stone(book: &Book<'_>, image: &Image, stone: &Image, at: Place) {
    if stone.component != image.component {
        book.error(
            at,
            format!("`{}` is for `{}`, not `{}`", stone.id, stone.component, image.component),
        )
        .hint("a stepping stone is an older image of the same component");
    } else if image.min_version.as_ref().is_some_and(|m| below(image.scheme, &stone.version, m)) {
        book.error(at, format!("`{}` leads to `{}`, below `min_version`", stone.id, stone.version))
            .hint("the stepping stone must reach `min_version`");
    }
}

fn below(scheme: Scheme, version: &str, min: &str) -> bool {
    compare(scheme, version, min) == Some(Ordering::Less)
}
