//! `farrier image`: what machines boot and what is written to their disks.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "reads and writes images, runs apt-get, dpkg-deb and qemu-img, tells how long it takes"
)]

mod build;
mod contents;
mod cpio;
mod installer;
mod iso;
mod modules;
pub mod store;
mod tree;

pub use build::Build;
pub use installer::Words;

use crate::config::{self, Source};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Directory of the deploy ramdisk, below the images.
pub const RAMDISK: &str = "farrier-ramdisk";

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Ask {
    BuildRamdisk(Build),
    Add {
        file: PathBuf,
        id: String,
        /// The file is a directory with an installer.
        installer: Option<Words>,
        replace: bool,
    },
    List,
    /// No id: all of them.
    Verify {
        id: Option<String>,
    },
}

/// Why there is no image: what happened, and what the person can do.
#[derive(Debug)]
pub struct Trouble {
    what: String,
    hint: Option<String>,
}

impl Trouble {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A file operation that failed.
    fn file(doing: &str, path: &Path, e: &std::io::Error) -> Self {
        Self::new(format!("{doing} {}: {e}", path.display()))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Exit 0 done, 1 not done or not sound.
pub fn image(config: &Path, ask: &Ask, json: bool) -> ExitCode {
    let images = images_of(config);
    let done = match ask {
        Ask::BuildRamdisk(build) => build::build(build, &images.join(RAMDISK), json).map(|()| true),
        Ask::Add { file, id, installer: Some(words), replace } => {
            installer::add(&images, file, id, words, *replace, json).map(|()| true)
        }
        Ask::Add { file, id, installer: None, replace } => {
            store::add(&images, file, id, *replace, json).map(|()| true)
        }
        Ask::List => store::list(&images, json).map(|()| true),
        Ask::Verify { id } => store::verify(&images, id.as_deref(), json),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(trouble) => {
            eprintln!("error: {trouble}");
            ExitCode::from(1)
        }
    }
}

/// The directory of images that the configuration names, or `images` beside it.
fn images_of(config: &Path) -> PathBuf {
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let (daemon, _) = config::daemon::parse(&Source::new(config.display().to_string(), text));
    let beside = || config.parent().unwrap_or(Path::new("")).join("images");
    daemon.map_or_else(beside, |d| d.images)
}

impl From<crate::cli::args::ImageCommand> for Ask {
    fn from(command: crate::cli::args::ImageCommand) -> Self {
        use crate::cli::args::ImageCommand;
        match command {
            ImageCommand::BuildRamdisk(a) => Ask::BuildRamdisk(Build {
                out: a.out,
                kernel_package: a.kernel_package,
                firmware_packages: a.firmware_package,
                cache: a.cache,
            }),
            ImageCommand::Add(a) => Ask::Add {
                file: a.file,
                id: a.id,
                replace: a.replace,
                installer: a.installer.map(|installer| Words {
                    installer,
                    kernel_arguments: a.kernel_arguments,
                    mirror: a.mirror,
                    suite: a.suite,
                    kernel_package: a.kernel_package,
                }),
            },
            ImageCommand::List => Ask::List,
            ImageCommand::Verify { id } => Ask::Verify { id },
        }
    }
}
