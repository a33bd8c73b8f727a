//! The operator's templates, and recipes for installers that Farrier has no seed for: checked as far as
//! that goes without a machine.

use super::book::{Book, Place, place};
use super::inventory::Inventory;
use super::names::{dangling, list};
use super::table::{Table, Text};
use crate::model::template::{OwnTemplate, Recipe, Recipes, documents, flaw, is_document};
use std::collections::BTreeMap;
use std::ops::Range;

/// Does this `image.toml` hold a recipe? One that can't be read may: its mistakes are told then.
pub fn is_recipe(text: &str) -> bool {
    let kind = |t: toml::Table| t.get("kind").and_then(|k| k.as_str()).map(|k| k == "recipe");
    text.parse().map_or(true, |t| kind(t).unwrap_or(false))
}

/// A recipe with its place.
pub(super) struct Placed {
    recipe: Recipe,
    files_at: Place,
}

/// The recipes by image id.
pub(super) fn recipes<'i>(
    book: &Book<'_>,
    files: impl Iterator<Item = (usize, &'i str)>,
) -> BTreeMap<String, Placed> {
    let mut found = BTreeMap::new();
    for (file, id) in files {
        if let Some(placed) = book.read(file, recipe) {
            found.insert(id.to_string(), placed);
        }
    }
    found
}

fn recipe(mut t: Table<'_, '_>) -> Option<Placed> {
    t.schema();
    t.need_choice("kind", &[("recipe", ())])?;
    let kernel = t.text("kernel").map_or("vmlinuz", |k| plain(&t, k)).to_string();
    let initrds: Vec<String> =
        t.texts("initrd").into_iter().map(|i| plain(&t, i).to_string()).collect();
    let arguments = t.need_text("arguments");
    if let Some(text) = arguments {
        // As in the boot script: a line, and nothing that iPXE reads for itself.
        if text.value.contains(['\n', '\r', '\t'])
            || ["||", "&&", "${"].iter().any(|w| text.value.contains(w))
        {
            t.error(text.at, "the kernel's arguments can't stand in a boot script")
                .hint("one line, without `||`, `&&` and `${`");
        }
        if let Some(flaw) = flaw("arguments", text.value) {
            t.error(text.at, flaw.what).hint(flaw.hint);
        }
    }
    let names = t.texts("files");
    let files: Vec<String> = names.iter().map(|f| plain(&t, *f).to_string()).collect();
    let files_at = names.first().map_or(t.at, |f| f.at);
    t.done();
    let arguments = arguments?.value.to_string();
    Some(Placed { recipe: Recipe { kernel, initrds, arguments, files }, files_at })
}

fn plain<'t>(t: &Table<'_, '_>, text: Text<'t>) -> &'t str {
    if !is_plain(text.value) {
        t.error(text.at, format!("`{}` is not a plain file name", text.value))
            .hint("letters, digits, `.`, `_`, `-` and `+`; the file lies beside `image.toml`");
    }
    text.value
}

fn is_plain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    (1..=128).contains(&name.len()) && !name.starts_with(['.', '-']) && name.chars().all(fits)
}

/// Reads the templates: each in a place where it counts, and without a flaw that shows.
pub(super) fn templates(
    book: &Book<'_>,
    files: Range<usize>,
    root: &str,
    inventory: &Inventory,
    recipes: &BTreeMap<String, Placed>,
) -> Vec<OwnTemplate> {
    let mut found = Vec::new();
    for file in files {
        let at = place(file, 0..0);
        let path = book.path(file);
        let below = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
        let parts: Vec<&str> = below.split('/').collect();
        let (of, owner, name) = match (parts.as_slice(), below.strip_suffix(".j2")) {
            ([of @ ("image" | "profile"), owner, _], Some(name)) => (*of, *owner, name),
            _ => {
                book.error(at, "no template is looked for here").hint(
                    "`image/<id>/<file>.j2` or `profile/<name>/<file>.j2` below the templates",
                );
                continue;
            }
        };
        let document = name.rsplit('/').next().unwrap_or(name);
        if of == "profile" && !inventory.broken && !inventory.profiles.contains_key(owner) {
            dangling(book, at, "profile", owner, inventory.profiles.keys().map(|k| &**k));
        }
        let used = inventory.profiles.values().any(|p| p.image.as_deref() == Some(owner));
        if of == "image" && !inventory.broken && !used {
            book.warning(at, format!("no profile has the image `{owner}`"));
        }
        let mut named = recipes
            .iter()
            .filter(|(id, _)| of == "profile" || *id == owner)
            .flat_map(|(_, placed)| &placed.recipe.files);
        if !is_document(document) && !named.any(|f| f == document) {
            let known: Vec<&str> = documents().collect();
            book.error(at, format!("nothing is made from a template `{document}`")).hint(format!(
                "templates are for {}, and for the `files` of an image's recipe",
                list(&known)
            ));
        }
        let text = book.whole(file);
        if let Some(flaw) = flaw(document, text) {
            book.error(line(file, text, flaw.line), flaw.what).hint(flaw.hint);
        }
        found.push(OwnTemplate { name: name.into(), path: path.into(), text: text.into() });
    }
    found
}

/// The bytes of a line, from 1, without what is blank around them.
fn line(file: usize, text: &str, number: usize) -> Place {
    let start: usize =
        text.split_inclusive('\n').take(number.saturating_sub(1)).map(str::len).sum();
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or("");
    let blank = line.len() - line.trim_start().len();
    place(file, start + blank..start + line.trim_end().len().max(blank))
}

/// Recipes and templates together: each file of a recipe has its template.
pub(super) fn complete(
    book: &Book<'_>,
    templates: Vec<OwnTemplate>,
    recipes: BTreeMap<String, Placed>,
) -> Recipes {
    for (id, placed) in &recipes {
        let lacks = |file: &&String| {
            let own = format!("image/{id}/{file}");
            let of_profile = |t: &OwnTemplate| {
                let name = t.name.strip_prefix("profile/").and_then(|n| n.split_once('/'));
                name.is_some_and(|(_, n)| n == file.as_str())
            };
            !templates.iter().any(|t| t.name == own || of_profile(t))
        };
        if let Some(file) = placed.recipe.files.iter().find(lacks) {
            book.error(placed.files_at, format!("there is no template for `{file}`"))
                .hint(format!("put it into the templates as `image/{id}/{file}.j2`"));
        }
    }
    let images = recipes.into_iter().map(|(id, placed)| (id, placed.recipe)).collect();
    Recipes { templates, images }
}
