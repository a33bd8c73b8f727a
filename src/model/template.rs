//! What hosts are handed that is made from templates, and what an operator may put in its place.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, UndefinedBehavior};
use std::collections::{BTreeMap, BTreeSet};

/// A template of the operator's, which stands before the built-in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnTemplate {
    /// `image/<id>/<file>` or `profile/<name>/<file>`.
    pub name: String,
    /// As people should see it.
    pub path: String,
    pub text: String,
}

/// How an installer that Farrier has no seed for is booted: `image.toml` with `kind = "recipe"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Plain names beside the description.
    pub kernel: String,
    pub initrds: Vec<String>,
    /// Of the kernel's command line; a template.
    pub arguments: String,
    /// Files that it fetches, each made from a template of the operator's.
    pub files: Vec<String>,
}

/// Everything of the operator's that the boot server makes files from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipes {
    pub templates: Vec<OwnTemplate>,
    /// By image id.
    pub images: BTreeMap<String, Recipe>,
}

/// What every file may name.
const COMMON: [&str; 11] = [
    "name",
    "run",
    "image",
    "profile",
    "here",
    "mac",
    "mac_dashes",
    "network",
    "user",
    "keys",
    "allow_existing_data",
];

/// The documents that an operator may have a template for, with what each may name besides. The files
/// of a recipe are like `user-data`.
const DOCUMENTS: [(&str, &[&str]); 5] = [
    ("ipxe", &[]),
    ("meta-data", &[]),
    ("user-data", &["token"]),
    ("network-config", &[]),
    ("deployed-user-data", &["public", "private"]),
];

/// Is it one of the usual documents?
pub fn is_document(file: &str) -> bool {
    DOCUMENTS.iter().any(|(name, _)| *name == file)
}

/// The usual documents.
pub fn documents() -> impl Iterator<Item = &'static str> {
    DOCUMENTS.iter().map(|(name, _)| *name)
}

/// What a template of this file may name; `arguments` are those of the kernel.
pub fn variables(file: &str) -> BTreeSet<&'static str> {
    let own = DOCUMENTS.iter().find(|(name, _)| *name == file).map(|(_, own)| *own);
    // Written to the disk, not served: there is no address of its own, and the disk was looked at.
    let served = |name: &&str| {
        file != "deployed-user-data" || !matches!(*name, "here" | "allow_existing_data")
    };
    let common = COMMON.into_iter().filter(served);
    match own {
        Some(own) => common.chain(own.iter().copied()).collect(),
        None if file == "arguments" => common.collect(),
        None => common.chain(["token"]).collect(),
    }
}

/// The engine with the rules of this place: nothing undefined is passed over.
///
/// # Errors
/// Never with these settings.
pub fn environment() -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    let mut syntax = SyntaxConfig::builder();
    syntax.keep_trailing_newline(true);
    env.set_syntax(syntax.build()?);
    Ok(env)
}

/// Why a template can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// From 1.
    pub line: usize,
    pub what: String,
    pub hint: String,
}

/// What is wrong with the template of a file, as far as that shows without a machine.
pub fn flaw(file: &str, text: &str) -> Option<Flaw> {
    let mut env = match environment() {
        Ok(env) => env,
        Err(e) => return Some(broken(&e)),
    };
    if let Err(e) = env.add_template_owned(file.to_string(), text.to_string()) {
        return Some(broken(&e));
    }
    let template = match env.get_template(file) {
        Ok(template) => template,
        Err(e) => return Some(broken(&e)),
    };
    let known = variables(file);
    let globals: BTreeSet<&str> = env.globals().map(|(name, _)| name).collect();
    let named: BTreeSet<String> = template.undeclared_variables(false).into_iter().collect();
    let strange = |n: &&String| !known.contains(n.as_str()) && !globals.contains(n.as_str());
    let name = named.iter().find(strange)?;
    let known: Vec<&str> = known.into_iter().collect();
    Some(Flaw {
        line: 1 + text.lines().position(|l| mentions(l, name)).unwrap_or(0),
        what: format!("nothing is called `{name}` in `{file}`"),
        hint: format!("there are `{}`", known.join("`, `")),
    })
}

fn broken(e: &Error) -> Flaw {
    Flaw {
        line: e.line().unwrap_or(1),
        what: format!("not a template: {}", e.detail().unwrap_or("it does not parse")),
        hint: "it is minijinja: `{{ value }}`, `{% if … %}`, `{# remark #}`".into(),
    }
}

/// Does the word stand in this line, and not as a part of another?
fn mentions(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|l| l.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|l| l.chars().next());
        !part(before) && !part(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flaws_have_a_line_and_name_what_there_is() {
        assert_eq!(flaw("user-data", "a: {{ name }}\nb: {{ token|tojson }}\n"), None);
        assert_eq!(flaw("ks.cfg", "{% for n in range(3) %}{{ n }}{{ token }}{% endfor %}"), None);
        let found = flaw("meta-data", "token_x: 1\nid: {{ token }}\n").unwrap();
        assert_eq!((found.line, &*found.what), (2, "nothing is called `token` in `meta-data`"));
        assert!(found.hint.contains("`mac_dashes`"), "{found:?}");
        let found = flaw("user-data", "a\n{% if name %}\nb\n").unwrap();
        assert!(found.what.starts_with("not a template"), "{found:?}");
        assert!(flaw("deployed-user-data", "{{ here }}").is_some(), "nothing is served there");
        assert_eq!(flaw("arguments", "inst.ks={{ here }}/file/ks.cfg"), None);
        assert!(
            flaw("arguments", "x={{ token }}").is_some(),
            "a command line is seen by everybody"
        );
    }
}
