//! Debian's installer: whether a window may hand it out, and the script that runs inside of it.

use super::render::here;
use super::server::Settings;
use super::window::Window;
use crate::model::deploy::RAMDISK;
use crate::model::installer::{Debian, Installer, InstallerKind};
use crate::model::{Channel, Fault, FaultClass};
use crate::port::{InstallOrder, Secret, WindowOrder};
use minijinja::{Value, context};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io::ErrorKind;

/// DMI of the host against what the BMC said: the same text that guards jobs over SSH.
const IDENTITY: &str = include_str!("../shell/identity.sh");
const SCRIPT: &str = include_str!("installer.sh");

/// What a window for debian-installer knows besides others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Preseed {
    kernel_arguments: String,
    debian: Debian,
    order: InstallOrder,
    /// All keys that the installed system lets in.
    authorized_keys: Vec<String>,
}

impl Preseed {
    /// For the templates: values that were checked to be plain.
    pub(super) fn words(&self) -> Value {
        let (mirror_host, mirror_directory) = self.debian.parts().unwrap_or_default();
        context! {
            kernel_arguments => &self.kernel_arguments,
            mirror_host => mirror_host,
            mirror_directory => mirror_directory,
            suite => &self.debian.suite,
            kernel_package => &self.debian.kernel_package,
        }
    }
}

/// `None`: the image is no Debian installer. `Err`: it is one, or the profile thinks so, and it must not
/// be handed out like this.
pub(super) async fn prepare(
    settings: &Settings,
    order: &WindowOrder,
) -> Result<Option<Preseed>, Fault> {
    let Some(images) = settings.images.as_deref().filter(|_| order.image != RAMDISK) else {
        return Ok(None);
    };
    let name = &order.image;
    let refuse = |code, what: String, hint: &str| {
        Err(Fault::new(FaultClass::Precondition, Channel::Boot, code, what).hint(hint))
    };
    let path = images.join(name).join("image.toml");
    let text = match tokio::fs::read_to_string(&path).await {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound && order.install.is_none() => return Ok(None),
        Err(e) => {
            let what = format!("image `{name}` has no description {}: {e}", path.display());
            return refuse("no-image", what, "`farrier image list` shows what there is");
        }
    };
    let installer = toml::from_str::<Installer>(&text)
        .map_err(|e| e.message().to_string())
        .and_then(|installer| installer.check().map(|()| installer));
    let installer = match installer {
        Ok(installer) => installer,
        Err(why) => {
            let what = format!("image `{name}` is no installer, by {}: {why}", path.display());
            let hint = "a disk image wants `root_disk` in the profile, and no `trust_installer`";
            return refuse("not-an-installer", what, hint);
        }
    };
    let (debian, told) = match (installer.installer, installer.debian, &order.install) {
        (InstallerKind::Autoinstall, _, None) => return Ok(None),
        (InstallerKind::Autoinstall, _, Some(_)) => {
            let what = format!("image `{name}` is an autoinstall, which takes no `root_disk` rule");
            let hint = "leave `root_disk` and `trust_installer` out, or take `debian-preseed`";
            return refuse("installer-without-rule", what, hint);
        }
        (InstallerKind::DebianPreseed, Some(debian), Some(told)) => (debian, told.clone()),
        (InstallerKind::DebianPreseed, ..) => {
            let what = format!(
                "image `{name}` is a Debian installer, and the profile of `{}` does not trust one",
                order.name
            );
            let hint = "`trust_installer = true` with a `root_disk`: read first what that trusts";
            return refuse("installer-not-trusted", what, hint);
        }
    };
    if settings.user != "root" || !order.base_url.starts_with("http://") {
        let what = "debian-installer speaks no HTTPS to us, and makes no account but root's";
        let hint = "`[listen.boot] advertise_url` with http://, `[ssh] user = \"root\"`";
        return refuse("installer-setup", what.into(), hint);
    }
    let mut authorized_keys = settings.ssh_keys.clone();
    authorized_keys.extend(told.authorized_keys.iter().cloned());
    let kernel_arguments = installer.kernel_arguments;
    Ok(Some(Preseed { kernel_arguments, debian, order: told, authorized_keys }))
}

/// `installer.sh` of this window; `None`: it has none.
pub(super) fn script(w: &Window) -> Option<String> {
    let (preseed, token) = (w.preseed.as_ref()?, w.token.as_ref()?);
    let (root, identity) = (&preseed.order.root, &preseed.order.identity);
    let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_string();
    let variables = [
        ("token", Secret::expose(token).to_string()),
        ("callback", format!("{}/callback", here(w))),
        ("image", w.image.clone()),
        ("run", w.run.clone()),
        ("allow", if w.allow_existing_data { "yes" } else { "no" }.into()),
        ("expect_uuid", or_dash(identity.uuid.as_deref())),
        ("expect_serial", or_dash(identity.serial.as_deref())),
        ("rule_by_id", root.by_id.clone().unwrap_or_default()),
        ("rule_serial", root.serial.clone().unwrap_or_default()),
        ("rule_model", root.model.clone().unwrap_or_default()),
        ("rule_kind", root.kind.map_or("", |k| k.name()).into()),
        ("rule_min", number(root.min_bytes)),
        ("rule_max", number(root.max_bytes)),
        ("authorized_keys", preseed.authorized_keys.join("\n")),
    ];
    let mut text = format!("#!/bin/sh\n{IDENTITY}\n");
    for (name, value) in variables {
        let _ = writeln!(text, "{name}={}", quoted(&value));
    }
    text.push('\n');
    text.push_str(SCRIPT);
    Some(text)
}

/// One word of a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', r"'\''"))
}
