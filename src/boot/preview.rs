//! What a machine would be handed, for a person to look at: made by the same code, with words in the
//! place of what is secret or known only in a run.

use super::preseed::{self, Preseed};
use super::render::{DeployedSeed, Document, Login, Templates, seed};
use super::server::Settings;
use super::window::{Mac, VERSION, Window};
use crate::model::MachineId;
use crate::model::deploy::RAMDISK;
use crate::model::template::Recipes;
use crate::port::{InstallOrder, Secret, WindowOrder};
use std::path::Path;

/// Stands for the run's name, and so on.
pub const RUN: &str = "FARRIER-RUN";
const TOKEN: &str = "FARRIER-TOKEN";
const PUBLIC: &str = "FARRIER-PUBLIC-HOST-KEY";
const PRIVATE: &str = "FARRIER-PRIVATE-HOST-KEY";

/// A machine as its files are made for it.
#[derive(Clone, Debug)]
pub struct Preview<'a> {
    pub name: &'a str,
    pub mac: crate::model::network::Mac,
    pub image: &'a str,
    pub profile: &'a str,
    /// The image is written by the deploy ramdisk, not by an installer.
    pub by_ramdisk: bool,
    pub base_url: &'a str,
    pub network: Option<&'a str>,
    /// Public SSH keys that the ramdisk lets in, and those besides that the installed system does.
    pub keys: &'a [String],
    pub more_keys: &'a [String],
    /// Whom the installed system lets in with them.
    pub user: &'a str,
    /// Where images lie.
    pub images: &'a Path,
    /// What an installer that the profile trusts is told; `None`: it trusts none.
    pub install: Option<InstallOrder>,
}

/// A machine's files by name, each made or why it can't be.
pub type Files = Vec<(String, Result<String, String>)>;

/// All files of a machine.
///
/// # Errors
/// A sentence for a person: a template does not parse, the MAC is none, the image is no installer that
/// may be handed out.
pub async fn files(recipes: &Recipes, p: &Preview<'_>) -> Result<Files, String> {
    let login = Login { user: p.user.into(), keys: p.keys.to_vec() };
    let templates = Templates::new(recipes, login).map_err(|e| e.kind().to_string())?;
    let window = window(p, preseed(recipes, p).await?)?;
    let mut files: Files = templates
        .served(&window)
        .into_iter()
        .map(|document| {
            let name = match document {
                Document::RamdiskIpxe | Document::PreseedIpxe => Document::Ipxe.file(),
                other => other.file(),
            };
            (name.into(), templates.render(document, &window).map_err(|why| why.to_string()))
        })
        .collect();
    match preseed::script(&window) {
        Some(script) => files.push(("installer.sh".into(), Ok(script))),
        None => files.push(("seed.json".into(), Ok(seed(&window, p.keys)))),
    }
    if p.by_ramdisk {
        let private = Secret::new(PRIVATE);
        let deployed = DeployedSeed {
            image: p.image,
            profile: p.profile,
            public: PUBLIC,
            private: &private,
            keys: p.more_keys,
            network: p.network,
        };
        for (name, made) in templates.deployed(&window, &deployed) {
            // Told apart from what an installer fetches by that name.
            let name = if name == "user-data" { "deployed-user-data" } else { name };
            files.push((name.into(), made.map_err(|why| why.to_string())));
        }
    }
    Ok(files)
}

/// As the boot server makes it when it opens a window.
async fn preseed(recipes: &Recipes, p: &Preview<'_>) -> Result<Option<Preseed>, String> {
    if p.by_ramdisk || (p.install.is_none() && recipes.images.contains_key(p.image)) {
        return Ok(None);
    }
    let settings = Settings {
        images: Some(p.images.to_path_buf()),
        ssh_keys: p.keys.to_vec(),
        user: p.user.into(),
        ..Settings::default()
    };
    let order = WindowOrder {
        machine: MachineId(0),
        name: p.name.into(),
        run: RUN.into(),
        image: p.image.into(),
        mac: Some(p.mac.to_string()),
        allow_existing_data: false,
        base_url: p.base_url.into(),
        keys: vec![],
        profile: p.profile.into(),
        network: p.network.map(str::to_string),
        install: p.install.clone(),
    };
    let said = |fault: crate::model::Fault| match fault.hint {
        Some(hint) => format!("{}\nhint: {hint}", fault.message),
        None => fault.message,
    };
    preseed::prepare(&settings, &order).await.map_err(said)
}

fn window(p: &Preview<'_>, preseed: Option<Preseed>) -> Result<Window, String> {
    let mac = Mac::parse(&p.mac.to_string()).ok_or_else(|| format!("`{}` is no MAC", p.mac))?;
    Ok(Window {
        version: VERSION,
        run: RUN.into(),
        machine: MachineId(0),
        name: p.name.into(),
        mac,
        image: if p.by_ramdisk { RAMDISK.into() } else { p.image.into() },
        allow_existing_data: false,
        base_url: p.base_url.trim_end_matches('/').into(),
        open: true,
        token: Some(Secret::new(TOKEN)),
        source: None,
        script_fetched: false,
        seed_fetched: false,
        callback: None,
        other_uuid: None,
        made: None,
        deploys: None,
        keys: vec![],
        preseed,
        profile: p.profile.into(),
        network: p.network.map(str::to_string),
        opened_at: 0,
        changed_at: 0,
    })
}
