//! The key of the secrets table: 32 bytes, kept outside of the database.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const LEN: usize = 32;

/// Never printed.
#[derive(Clone)]
pub struct Key {
    pub(super) bytes: [u8; LEN],
    /// Where it came from, for messages.
    pub(super) from: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key(from {})", self.from)
    }
}

/// Where the key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFrom {
    /// A file of ours, mode 0600 or narrower.
    File(PathBuf),
    /// A systemd credential (`LoadCredential=`): this file below `$CREDENTIALS_DIRECTORY`.
    Systemd(String),
    /// An environment variable of the daemon with the 64 hex digits.
    Env(String),
}

/// The name of the systemd credential where the configuration gives none.
pub const SYSTEMD_CREDENTIAL: &str = "farrier-key";

/// A key that can't be used, for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

impl Key {
    /// Reads the key; `Ok(None)`: there is none at that place.
    pub fn read(from: &KeyFrom) -> Result<Option<Key>, KeyError> {
        match from {
            KeyFrom::File(path) => read(path, true),
            KeyFrom::Env(name) => match std::env::var(name) {
                Ok(text) => parse(&text, format!("the variable `{name}`")).map(Some),
                Err(_) => Err(KeyError(format!(
                    "the key is to come from the environment variable `{name}`, which is not set; \
                     the daemon's environment counts, not yours: `Environment=` of its unit"
                ))),
            },
            KeyFrom::Systemd(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
                // systemd keeps that directory to the service; the file's mode says nothing.
                Some(dir) => read(&Path::new(&dir).join(name), false),
                None => Err(KeyError(format!(
                    "the key is to come from the systemd credential `{name}`, but there is no \
                     `$CREDENTIALS_DIRECTORY`; add `LoadCredential={name}:/path/to/key` to the \
                     unit, or give `[secrets] key_file`"
                ))),
            },
        }
    }

    /// Makes a new key file, mode 0600. An existing file is left alone: without its key the
    /// secrets are gone.
    pub fn init(path: &Path) -> Result<Key, KeyError> {
        let mut bytes = [0; LEN];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| KeyError("the system gives no random numbers".into()))?;
        let shown = path.display();
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = match made {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(KeyError(format!(
                    "`{shown}` is there already; it was left as it is (secrets sealed with it \
                     can't be read with another key)"
                )));
            }
            Err(e) => return Err(KeyError(format!("can't make the key file `{shown}`: {e}"))),
        };
        writeln!(file, "{}", hex::encode(bytes))
            .and_then(|()| file.sync_all())
            .map_err(|e| KeyError(format!("can't write the key file `{shown}`: {e}")))?;
        Ok(Key { bytes, from: format!("`{shown}`") })
    }
}

fn read(path: &Path, private: bool) -> Result<Option<Key>, KeyError> {
    let shown = path.display();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(KeyError(format!("can't read the key file `{shown}`: {e}"))),
    };
    let cannot = |e: std::io::Error| KeyError(format!("can't read the key file `{shown}`: {e}"));
    let mode = file.metadata().map_err(cannot)?.permissions().mode() & 0o777;
    if private && mode & 0o077 != 0 {
        return Err(KeyError(format!(
            "others may read the key file `{shown}` (mode {mode:04o}); run `chmod 600 {shown}`, \
             and take a new key if somebody may have"
        )));
    }
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).map_err(cannot)?;
    parse(&text, format!("the key file `{shown}`"))
        .map(|key| Some(Key { from: format!("`{shown}`"), ..key }))
}

/// A key as it is written down: 64 hex digits.
fn parse(text: &str, from: String) -> Result<Key, KeyError> {
    let bytes = hex::decode(text.trim()).ok().and_then(|b| <[u8; LEN]>::try_from(b).ok());
    match bytes {
        Some(bytes) => Ok(Key { bytes, from }),
        None => Err(KeyError(format!(
            "{from} does not hold a key (64 hex digits); `openssl rand -hex 32` prints one"
        ))),
    }
}
