//! File descriptors: a connection costs one, and the usual soft limit of 1,024 is too low for a
//! site.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. `Err`: fewer than `wanted` are allowed even then; a
/// sentence for a person.
pub fn raise(wanted: u64) -> Result<(), String> {
    let now = getrlimit(Resource::Nofile);
    if now.current != now.maximum {
        let most = Rlimit { current: now.maximum, maximum: now.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, most) {
            tracing::debug!(%error, "the limit of open files can't be raised");
        }
    }
    match getrlimit(Resource::Nofile).current {
        Some(allowed) if allowed < wanted => Err(format!(
            "this process may open {allowed} files and wants up to {wanted}\n\
             hint: raise the hard limit (`ulimit -Hn {wanted}` as root, `LimitNOFILE=` in a unit)"
        )),
        _ => Ok(()),
    }
}
