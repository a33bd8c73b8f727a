//! Archives of captured data beside the checkout, unpacked for a test. They are never copied into it:
//! without them a test skips and says so.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Trees captured from real BMCs.
#[allow(dead_code, reason = "shared by several tests; each uses its part")]
pub(crate) const MOCKUPS: &str = "mockups.tar.xz";
/// DMTF's schemas.
#[allow(dead_code, reason = "shared by several tests; each uses its part")]
pub(crate) const SCHEMAS: &str = "csdl.tar.xz";

/// Where the archive is, if it is there.
pub(crate) fn archive(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/redfish").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: no {name} beside the checkout");
    None
}

pub(crate) fn unpacked(name: &str) -> Option<TempDir> {
    let archive = archive(name)?;
    let dir = tempfile::tempdir().unwrap();
    let done = std::process::Command::new("tar")
        .args(["-xJf".as_ref(), archive.as_os_str(), "-C".as_ref(), dir.path().as_os_str()])
        .status()
        .expect("tar is installed");
    assert!(done.success(), "{name} does not unpack");
    Some(dir)
}
