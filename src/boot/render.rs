//! What a host is handed, rendered from the embedded templates.

use super::preseed::Preseed;
use super::window::Window;
use crate::port::Secret;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, context};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Document {
    Ipxe,
    /// The script of a window for the deploy ramdisk.
    RamdiskIpxe,
    /// The script of a window for debian-installer.
    PreseedIpxe,
    MetaData,
    UserData,
    /// Answers for debian-installer.
    Preseed,
}

impl Document {
    fn template(self) -> &'static str {
        match self {
            Document::Ipxe => "ipxe",
            Document::RamdiskIpxe => "ramdisk-ipxe",
            Document::PreseedIpxe => "preseed-ipxe",
            Document::Preseed => "preseed.cfg",
            Document::MetaData => "meta-data",
            Document::UserData => "user-data",
        }
    }
}

#[derive(Debug)]
pub(super) struct Templates(Environment<'static>);

impl Templates {
    pub(super) fn new() -> Result<Self, minijinja::Error> {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        let mut syntax = SyntaxConfig::builder();
        syntax.keep_trailing_newline(true);
        env.set_syntax(syntax.build()?);
        env.add_template("ipxe", include_str!("templates/ipxe.j2"))?;
        env.add_template("ramdisk-ipxe", include_str!("templates/ramdisk-ipxe.j2"))?;
        env.add_template("deployed-user-data", include_str!("templates/deployed-user-data.j2"))?;
        env.add_template("preseed-ipxe", include_str!("templates/preseed-ipxe.j2"))?;
        env.add_template("preseed.cfg", include_str!("templates/preseed.cfg.j2"))?;
        env.add_template("meta-data", include_str!("templates/meta-data.j2"))?;
        env.add_template("user-data", include_str!("templates/user-data.j2"))?;
        Ok(Self(env))
    }

    /// Every value is made of characters that mean nothing to iPXE, YAML or a shell: `open`
    /// refuses a window with others ([`is_plain`], [`is_plain_url`]).
    pub(super) fn render(&self, what: Document, w: &Window) -> Result<String, minijinja::Error> {
        let token = match what {
            Document::UserData => w.token.as_ref().map(Secret::expose),
            Document::Ipxe
            | Document::RamdiskIpxe
            | Document::PreseedIpxe
            | Document::Preseed
            | Document::MetaData => None,
        };
        self.0.get_template(what.template())?.render(context! {
            name => &w.name,
            run => &w.run,
            image => &w.image,
            here => here(w),
            mac_dashes => w.mac.to_string().replace(':', "-"),
            token => token,
            installer => w.preseed.as_ref().map(Preseed::words),
        })
    }
}

/// What a deployed system is told besides what its window knows.
#[derive(Debug)]
pub(super) struct DeployedSeed<'a> {
    pub(super) image: &'a str,
    pub(super) public: &'a str,
    pub(super) private: &'a Secret,
    pub(super) user: &'a str,
    pub(super) keys: &'a [String],
}

impl Templates {
    /// `meta-data` and `user-data` of a deployed system. `Err`: the kind of the template's error; its
    /// text would hold the variables.
    pub(super) fn deployed(
        &self,
        w: &Window,
        seed: &DeployedSeed<'_>,
    ) -> Result<(String, String), String> {
        let kind = |e: minijinja::Error| format!("{:?}", e.kind());
        let meta_data = self.render(Document::MetaData, w).map_err(kind)?;
        let template = self.0.get_template("deployed-user-data").map_err(kind)?;
        let user_data = template.render(context! {
            name => &w.name,
            run => &w.run,
            image => seed.image,
            public => seed.public,
            private => seed.private.expose(),
            user => seed.user,
            keys => seed.keys.to_vec(),
        });
        Ok((meta_data, user_data.map_err(kind)?))
    }
}

/// The window's own URL, without a slash at the end.
pub(super) fn here(w: &Window) -> String {
    format!("{}/boot/{}", w.base_url, w.mac)
}

/// `seed.json`: the same bytes each time.
pub(super) fn seed(w: &Window, ssh_keys: &[String]) -> String {
    if w.is_of_ramdisk() {
        let seed = serde_json::json!({
            "kind": "ramdisk",
            "name": w.name,
            "run": w.run,
            "token": w.token.as_ref().map(Secret::expose),
            "callback": format!("{}/callback", here(w)),
            "authorized_keys": ssh_keys,
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
