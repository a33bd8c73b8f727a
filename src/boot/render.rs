//! What a host is handed, rendered from the embedded templates, or the operator's in their place.

use super::preseed::Preseed;
use super::window::Window;
use crate::model::template::{OwnTemplate, Recipe, Recipes, environment};
use crate::model::{Channel, Fault, FaultClass};
use crate::port::Secret;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};
use std::collections::BTreeMap;

/// What is served while a window is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Document<'a> {
    Ipxe,
    /// The script of a window for the deploy ramdisk.
    RamdiskIpxe,
    /// The script of a window for debian-installer.
    PreseedIpxe,
    MetaData,
    UserData,
    NetworkConfig,
    /// Answers for debian-installer.
    Preseed,
    /// One that the image's recipe names.
    File(&'a str),
}

impl<'a> Document<'a> {
    pub(super) fn file(self) -> &'a str {
        match self {
            Document::Ipxe => "ipxe",
            Document::RamdiskIpxe => "ramdisk-ipxe",
            Document::PreseedIpxe => "preseed-ipxe",
            Document::Preseed => "preseed.cfg",
            Document::MetaData => "meta-data",
            Document::UserData => "user-data",
            Document::NetworkConfig => "network-config",
            Document::File(name) => name,
        }
    }
}

/// A document that could not be made. Never with a value of the template's in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unmade {
    /// The operator's template, or none: it is a built-in one.
    own: Option<String>,
    what: String,
}

impl Unmade {
    pub(super) fn fault(self, machine: &str) -> Fault {
        let (class, hint) = match self.own {
            Some(_) => (
                FaultClass::Precondition,
                "correct the template, see the result with `farrier render`, then `farrier reload`",
            ),
            None => (FaultClass::Bug, "a built-in template: please report it"),
        };
        let what = format!("nothing is made for `{machine}`: {self}");
        Fault::new(class, Channel::Boot, "boot-template", what).hint(hint)
    }
}

impl std::fmt::Display for Unmade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.own {
            Some(place) => write!(f, "{place}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

#[derive(Debug)]
pub(super) struct Templates {
    env: Environment<'static>,
    /// Name of an operator's template → where it lies.
    own: BTreeMap<String, String>,
    recipes: BTreeMap<String, Recipe>,
    login: Login,
}

/// Whom an installed system lets in, and with which public keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) keys: Vec<String>,
}

impl Templates {
    /// Built-in templates, and the operator's over them.
    pub(super) fn new(recipes: &Recipes, login: Login) -> Result<Self, minijinja::Error> {
        let mut env = environment()?;
        env.add_template("ipxe", include_str!("templates/ipxe.j2"))?;
        env.add_template("ramdisk-ipxe", include_str!("templates/ramdisk-ipxe.j2"))?;
        env.add_template("recipe-ipxe", include_str!("templates/recipe-ipxe.j2"))?;
        env.add_template("deployed-user-data", include_str!("templates/deployed-user-data.j2"))?;
        env.add_template("preseed-ipxe", include_str!("templates/preseed-ipxe.j2"))?;
        env.add_template("preseed.cfg", include_str!("templates/preseed.cfg.j2"))?;
        env.add_template("meta-data", include_str!("templates/meta-data.j2"))?;
        env.add_template("user-data", include_str!("templates/user-data.j2"))?;
        let mut own = BTreeMap::new();
        for OwnTemplate { name, path, text } in &recipes.templates {
            env.add_template_owned(name.clone(), text.clone())?;
            own.insert(name.clone(), path.clone());
        }
        Ok(Self { env, own, recipes: recipes.images.clone(), login })
    }

    /// How this image is booted, where it is not by a seed of ours.
    pub(super) fn recipe(&self, image: &str) -> Option<&Recipe> {
        self.recipes.get(image)
    }

    /// The operator's template for a file: the profile's, else the image's.
    fn own(&self, profile: &str, image: &str, file: &str) -> Option<String> {
        let names = [format!("profile/{profile}/{file}"), format!("image/{image}/{file}")];
        names.into_iter().find(|name| self.own.contains_key(name))
    }

    fn make(&self, name: &str, values: Value) -> Result<String, Unmade> {
        let made = self.env.get_template(name).and_then(|t| t.render(values));
        made.map_err(|e| {
            // Not its own text: that holds the template's variables.
            let place = |path: &String| format!("{path}:{}", e.line().unwrap_or(1));
            // An include may be the one that failed.
            let named = e.name().unwrap_or(name);
            let own = self.own.get(named).or_else(|| self.own.get(name)).map(place);
            Unmade { own, what: format!("the template could not be rendered: {}", e.kind()) }
        })
    }

    /// Every value is made of characters that mean nothing to iPXE, YAML or a shell: `open`
    /// refuses a window with others ([`is_plain`], [`is_plain_url`]).
    pub(super) fn render(&self, what: Document<'_>, w: &Window) -> Result<String, Unmade> {
        let (file, network) = (what.file(), network_of(w.network.as_deref()));
        let token = match what {
            Document::UserData | Document::File(_) => w.token.as_ref().map(Secret::expose),
            _ => None,
        };
        let values = context! {
            name => &w.name,
            run => &w.run,
            image => &w.image,
            profile => &w.profile,
            here => here(w),
            mac => w.mac.to_string(),
            mac_dashes => w.mac.to_string().replace(':', "-"),
            network => network,
            user => &self.login.user,
            keys => self.login.keys.clone(),
            allow_existing_data => w.allow_existing_data,
            installer => w.preseed.as_ref().map(Preseed::words),
        };
        let values = match token {
            Some(token) => context! { token => token, ..values },
            None => values,
        };
        // The ramdisk and its script are one piece of Farrier.
        let own = match what {
            Document::RamdiskIpxe => None,
            _ => self.own(&w.profile, &w.image, file),
        };
        match (own, what) {
            (Some(name), _) => self.make(&name, values),
            (None, Document::Ipxe) => match self.recipe(&w.image) {
                Some(recipe) => self.boot(recipe, w, values),
                None => self.make("ipxe", values),
            },
            (None, Document::NetworkConfig) => Ok(w.network.clone().unwrap_or_default()),
            (None, _) => self.make(file, values),
        }
    }

    /// The script that boots a recipe's kernel.
    fn boot(&self, recipe: &Recipe, w: &Window, values: Value) -> Result<String, Unmade> {
        let arguments = self.env.render_str(&recipe.arguments, values.clone()).map_err(|e| {
            let own = Some(format!("image.toml of `{}`", w.image));
            Unmade { own, what: format!("`arguments` could not be rendered: {}", e.kind()) }
        })?;
        let (kernel, initrds) = (&recipe.kernel, recipe.initrds.clone());
        self.make("recipe-ipxe", context! { kernel, initrds, arguments, ..values })
    }

    /// The documents that this window serves.
    pub(super) fn served(&self, w: &Window) -> Vec<Document<'_>> {
        if w.is_of_ramdisk() {
            return vec![Document::RamdiskIpxe];
        }
        if w.preseed.is_some() {
            return vec![Document::PreseedIpxe, Document::Preseed];
        }
        let mut all = vec![Document::Ipxe, Document::MetaData, Document::UserData];
        all.extend(w.network.is_some().then_some(Document::NetworkConfig));
        let files = self.recipe(&w.image).map_or(&[][..], |r| &r.files);
        all.extend(files.iter().map(|name| Document::File(name)));
        all
    }
}

/// The part that a template may take on: an autoinstall's `network`, a list of interfaces.
fn network_of(text: Option<&str>) -> Option<Value> {
    let whole: serde_json::Value = serde_json::from_str(text?).ok()?;
    Some(Value::from(Serde(whole.get("network")?)))
}

/// What a deployed system is told besides what its window knows.
#[derive(Debug)]
pub(super) struct DeployedSeed<'a> {
    pub(super) image: &'a str,
    pub(super) profile: &'a str,
    pub(super) public: &'a str,
    pub(super) private: &'a Secret,
    /// Besides those of the site.
    pub(super) keys: &'a [String],
    pub(super) network: Option<&'a str>,
}

impl Templates {
    /// The files of a deployed system's seed volume, by name.
    pub(super) fn deployed(
        &self,
        w: &Window,
        seed: &DeployedSeed<'_>,
    ) -> Vec<(&'static str, Result<String, Unmade>)> {
        let values = context! {
            name => &w.name,
            run => &w.run,
            image => seed.image,
            profile => seed.profile,
            mac => w.mac.to_string(),
            mac_dashes => w.mac.to_string().replace(':', "-"),
            network => network_of(seed.network),
            user => &self.login.user,
            keys => [&*self.login.keys, seed.keys].concat(),
        };
        let secret = context! {
            public => seed.public,
            private => seed.private.expose(),
            ..values.clone()
        };
        // Who reads `meta-data` and `network-config` need not be root.
        let own = |file: &str| self.own(seed.profile, seed.image, file);
        let make = |file: &str, values| self.make(own(file).as_deref().unwrap_or(file), values);
        let served = context! {
            here => here(w),
            allow_existing_data => w.allow_existing_data,
            ..values.clone()
        };
        let mut files = vec![
            ("meta-data", make("meta-data", served.clone())),
            ("user-data", make("deployed-user-data", secret)),
        ];
        if let Some(network) = seed.network {
            let text = match own("network-config") {
                Some(name) => self.make(&name, served),
                None => Ok(network.to_string()),
            };
            files.push(("network-config", text));
        }
        files
    }
}

/// The window's own URL, without a slash at the end.
pub(super) fn here(w: &Window) -> String {
    format!("{}/boot/{}", w.base_url, w.mac)
}

/// `seed.json`: the same bytes each time.
pub(super) fn seed(w: &Window, ssh_keys: &[String]) -> String {
    if w.is_of_ramdisk() {
        let keys: Vec<&String> = ssh_keys.iter().chain(&w.keys).collect();
        let seed = serde_json::json!({
            "kind": "ramdisk",
            "name": w.name,
            "run": w.run,
            "token": w.token.as_ref().map(Secret::expose),
            "callback": format!("{}/callback", here(w)),
            "authorized_keys": keys,
        });
        return format!("{seed}\n");
    }
    let seed = serde_json::json!({
        "run": w.run,
        "image": w.image,
        "allow_existing_data": w.allow_existing_data,
        "token": w.token.as_ref().map(Secret::expose),
        "callback": format!("{}/callback", here(w)),
    });
    format!("{seed}\n")
}

/// Letters, digits and `.`, `_`, `-`, `+`; a directory name too, so no dot in front.
pub(super) fn is_plain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    (1..=128).contains(&name.len()) && !name.starts_with(['.', '-']) && name.chars().all(fits)
}

/// `http://` or `https://` and characters that need no quoting anywhere.
pub(super) fn is_plain_url(url: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "./:-_[]".contains(c);
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|r| !r.is_empty() && r.len() <= 256 && r.chars().all(fits))
}
