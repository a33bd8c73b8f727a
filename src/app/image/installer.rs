//! Installers: `<images>/<id>/` with `vmlinuz`, `initrd.img` and `image.toml`, which says what they speak.

use super::Trouble;
use super::build::put;
use super::store::{ABOUT, id_is_plain, sum};
use crate::model::installer::{Debian, INITRD, Installer, InstallerKind, KERNEL};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What is said of an installer besides its directory.
#[derive(Clone, Debug)]
pub struct Words {
    pub installer: InstallerKind,
    pub kernel_arguments: String,
    /// Of a Debian installer.
    pub mirror: Option<String>,
    pub suite: String,
    pub kernel_package: String,
}

/// Names by which distributions ship them.
const KERNELS: [&str; 2] = [KERNEL, "linux"];
const INITRDS: [&str; 3] = [INITRD, "initrd.gz", "initrd"];

/// Takes in the kernel and the initrd of `dir`.
pub(super) fn add(
    images: &Path,
    dir: &Path,
    id: &str,
    words: &Words,
    replace: bool,
    json: bool,
) -> Result<(), Trouble> {
    id_is_plain(id)?;
    let own = images.join(id);
    if own.join(ABOUT).exists() && !replace {
        return Err(Trouble::new(format!("there is an image `{id}` already"))
            .hint("take another id, so that machines keep what they were told; or --replace"));
    }
    let files = [(KERNEL, one_of(dir, &KERNELS)?), (INITRD, one_of(dir, &INITRDS)?)];
    let debian = match (words.installer, &words.mirror) {
        (InstallerKind::Autoinstall, _) => None,
        (InstallerKind::DebianPreseed, Some(mirror)) => Some(Debian {
            mirror: mirror.clone(),
            suite: words.suite.clone(),
            kernel_package: words.kernel_package.clone(),
        }),
        (InstallerKind::DebianPreseed, None) => {
            return Err(Trouble::new("where does Debian come from?")
                .hint("--mirror http://mirror.example/debian, one that the machines reach"));
        }
    };
    let mut about = Installer {
        schema: 1,
        kind: "installer".into(),
        installer: words.installer,
        kernel_arguments: words.kernel_arguments.clone(),
        sha256: BTreeMap::new(),
        debian,
    };
    about.check().map_err(Trouble::new)?;
    fs::create_dir_all(&own).map_err(|e| Trouble::file("making", &own, &e))?;
    for (name, from) in files {
        let part = own.join(".part");
        fs::copy(&from, &part).map_err(|e| Trouble::file("copying to", &part, &e))?;
        about.sha256.insert(name.into(), sum(&part)?.0);
        fs::rename(&part, own.join(name)).map_err(|e| Trouble::file("naming", &part, &e))?;
    }
    let text = toml::to_string(&about).map_err(|e| Trouble::new(format!("{ABOUT}: {e}")))?;
    put(&own.join(ABOUT), text.as_bytes())?;
    if json {
        println!("{}", serde_json::json!({ "id": id, "image": about }));
    } else {
        println!("{id}: {}", shown(&about));
    }
    Ok(())
}

fn one_of(dir: &Path, names: &[&str]) -> Result<PathBuf, Trouble> {
    let mut paths = names.iter().map(|name| dir.join(name));
    paths.find(|path| path.is_file()).ok_or_else(|| {
        Trouble::new(format!("{} has none of {}", dir.display(), names.join(", ")))
            .hint("a directory with an installer's kernel and initrd is needed")
    })
}

pub(super) fn shown(about: &Installer) -> String {
    match &about.debian {
        Some(debian) => {
            let (kind, suite) = (about.installer.name(), &debian.suite);
            format!("installer, {kind}, {suite} from {}", debian.mirror)
        }
        None => format!("installer, {}", about.installer.name()),
    }
}

/// Are the files what was taken in?
pub(super) fn verify(dir: &Path, about: &Installer) -> Result<(), Trouble> {
    about.check().map_err(Trouble::new)?;
    for name in [KERNEL, INITRD] {
        let (is, _) = sum(&dir.join(name))?;
        if about.sha256.get(name) != Some(&is) {
            return Err(Trouble::new(format!("{name} has sha256 {is}, its description another"))
                .hint("add it again with --replace"));
        }
    }
    Ok(())
}
