//! The kernel's initramfs format, `newc` (Documentation/driver-api/early-userspace/buffer-format.rst).
//! Order, owners and times are fixed, so that the same contents give the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};

/// What a path in the archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir { mode: u32 },
    File { mode: u32, bytes: Vec<u8> },
    Link { target: String },
}

/// Paths without a leading slash, each with what it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Archive(BTreeMap<String, Node>);

impl Archive {
    /// Puts `node` at `path`, with the directories that lead there.
    pub(super) fn put(&mut self, path: &str, node: Node) {
        for (at, _) in path.match_indices('/') {
            if let Some(dir) = path.get(..at) {
                self.0.entry(dir.to_string()).or_insert(Node::Dir { mode: 0o755 });
            }
        }
        self.0.insert(path.to_string(), node);
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// Parents come before what is in them: that is the order of names.
    pub(super) fn write(&self, out: &mut impl Write, mtime: u32) -> io::Result<()> {
        let mut ino = 0;
        for (path, node) in &self.0 {
            ino += 1;
            let (mode, data): (u32, &[u8]) = match node {
                Node::Dir { mode } => (0o040_000 | mode, &[]),
                Node::File { mode, bytes } => (0o100_000 | mode, bytes),
                Node::Link { target } => (0o120_777, target.as_bytes()),
            };
            let links = if matches!(node, Node::Dir { .. }) { 2 } else { 1 };
            entry(out, [ino, mode, links, mtime], path, data)?;
        }
        entry(out, [0, 0, 1, 0], "TRAILER!!!", &[])
    }
}

fn entry(out: &mut impl Write, numbers: [u32; 4], name: &str, data: &[u8]) -> io::Result<()> {
    let [ino, mode, links, mtime] = numbers;
    let length = |n: usize| {
        u32::try_from(n).map_err(|_| io::Error::other(format!("{name} is too large for newc")))
    };
    let (size, name_size) = (length(data.len())?, length(name.len() + 1)?);
    // uid and gid are root's; the devices are for files that lie on one.
    let header = [ino, mode, 0, 0, links, mtime, size, 0, 0, 0, 0, name_size, 0];
    let mut text = String::from("070701");
    for field in header {
        text.push_str(&format!("{field:08X}"));
    }
    out.write_all(text.as_bytes())?;
    out.write_all(name.as_bytes())?;
    // The name ends with a NUL; then everything starts at a multiple of four.
    out.write_all(&[0; 4][..1 + padding(text.len() + name.len() + 1)])?;
    out.write_all(data)?;
    out.write_all(&[0; 4][..padding(data.len())])
}

fn padding(length: usize) -> usize {
    (4 - length % 4) % 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_in_order_and_aligned() {
        let mut archive = Archive::default();
        archive.put("usr/bin/x", Node::File { mode: 0o755, bytes: b"hello".to_vec() });
        archive.put("init", Node::Link { target: "usr/bin/x".into() });
        let mut out = Vec::new();
        archive.write(&mut out, 7).unwrap();
        assert_eq!(out.len() % 4, 0);
        let text = String::from_utf8_lossy(&out).to_string();
        let names: Vec<_> =
            text.match_indices("070701").map(|(at, _)| &text[at + 110..at + 114]).collect();
        assert_eq!(names, ["init", "usr\0", "usr/", "usr/", "TRAI"]);
        assert!(text.starts_with("070701000000010000A1FF"), "{}", &text[..40]);
        let mut again = Vec::new();
        archive.clone().write(&mut again, 7).unwrap();
        assert_eq!(out, again);
    }
}
