//! Installers: what boots from the network and installs the machine by itself, as `image.toml` beside its
//! kernel says. A directory with a kernel and no such file is an autoinstall (NoCloud), as ever.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The files that are booted, by these names.
pub const KERNEL: &str = "vmlinuz";
pub const INITRD: &str = "initrd.img";

/// Which installer's language the seed is to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstallerKind {
    /// Ubuntu's, or any other that takes a NoCloud seed.
    Autoinstall,
    /// debian-installer.
    DebianPreseed,
}

impl InstallerKind {
    pub const ALL: [InstallerKind; 2] = [InstallerKind::Autoinstall, InstallerKind::DebianPreseed];

    pub fn name(self) -> &'static str {
        match self {
            InstallerKind::Autoinstall => "autoinstall",
            InstallerKind::DebianPreseed => "debian-preseed",
        }
    }

    pub fn from_name(name: &str) -> Option<InstallerKind> {
        InstallerKind::ALL.into_iter().find(|k| k.name() == name)
    }
}

/// `<images>/<id>/image.toml` of an installer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installer {
    pub schema: u32,
    /// `installer`.
    pub kind: String,
    pub installer: InstallerKind,
    /// Words for the kernel besides Farrier's own, like `console=ttyS0`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kernel_arguments: String,
    /// SHA-256 of the kernel and the initrd, lower-case hex.
    pub sha256: BTreeMap<String, String>,
    /// Of a Debian installer alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debian: Option<Debian>,
}

/// Where Debian comes from and what of it is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// `http://host[:port]/directory` of the archive: the installer checks its signatures, not TLS.
    pub mirror: String,
    pub suite: String,
    pub kernel_package: String,
}

impl Installer {
    /// Is every value one that can stand in a boot script and in a seed? `Err` says which is not.
    pub fn check(&self) -> Result<(), String> {
        if (self.schema, self.kind.as_str()) != (1, "installer") {
            return Err("it does not describe an installer".into());
        }
        if !self.kernel_arguments.chars().all(|c| plain(c) || "=,:/ ".contains(c)) {
            return Err(format!("`{}` can't stand in a boot script", self.kernel_arguments));
        }
        match (self.installer, &self.debian) {
            (InstallerKind::Autoinstall, None) => Ok(()),
            (InstallerKind::Autoinstall, Some(_)) => {
                Err("`debian` is for the installer `debian-preseed`".into())
            }
            (InstallerKind::DebianPreseed, None) => {
                Err("`debian` with its mirror is missing".into())
            }
            (InstallerKind::DebianPreseed, Some(debian)) => {
                debian.parts().ok_or_else(|| {
                    format!("`{}` is not a mirror like http://host/debian", debian.mirror)
                })?;
                for word in [&debian.suite, &debian.kernel_package] {
                    if word.is_empty() || !word.chars().all(plain) {
                        return Err(format!("`{word}` is no suite or package"));
                    }
                }
                Ok(())
            }
        }
    }
}

impl Debian {
    /// Host with its port, and directory, as debian-installer wants them.
    pub fn parts(&self) -> Option<(&str, &str)> {
        let rest = self.mirror.strip_prefix("http://")?;
        let (host, directory) = rest.split_at(rest.find('/')?);
        let host_fits = |c: char| c.is_ascii_alphanumeric() || "._-:[]".contains(c);
        let fits = !host.is_empty()
            && host.chars().all(host_fits)
            && directory.chars().all(|c| plain(c) || c == '/');
        fits.then_some((host, directory))
    }
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian(mirror: &str) -> Installer {
        Installer {
            schema: 1,
            kind: "installer".into(),
            installer: InstallerKind::DebianPreseed,
            kernel_arguments: "console=ttyS0,115200".into(),
            sha256: BTreeMap::new(),
            debian: Some(Debian {
                mirror: mirror.into(),
                suite: "bookworm".into(),
                kernel_package: "linux-image-amd64".into(),
            }),
        }
    }

    #[test]
    fn a_mirror_is_a_host_and_a_directory() {
        let parts =
            |mirror| debian(mirror).debian.unwrap().parts().map(|(h, d)| format!("{h} {d}"));
        assert_eq!(parts("http://10.0.0.2:8080/debian").as_deref(), Some("10.0.0.2:8080 /debian"));
        assert!(debian("http://mirror.example/debian").check().is_ok());
        for bad in
            ["", "http://", "http:///debian", "http://host", "https://host/debian", "http://h/a b"]
        {
            assert!(debian(bad).check().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_can_not_stand_in_a_script_is_refused() {
        let with = |change: fn(&mut Installer)| {
            let mut it = debian("http://mirror.example/debian");
            change(&mut it);
            it.check()
        };
        assert!(with(|i| i.kernel_arguments = "a\nboot".into()).is_err());
        assert!(with(|i| i.kernel_arguments = "a ${net0/mac}".into()).is_err());
        assert!(with(|i| i.debian = None).is_err());
        assert!(with(|i| i.installer = InstallerKind::Autoinstall).is_err());
        assert!(with(|i| i.kind = "disk".into()).is_err());
        assert!(with(|i| i.debian.as_mut().unwrap().suite = "x y".into()).is_err());
    }
}
