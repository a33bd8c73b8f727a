//! Files in memory, packed as one `.tar.gz`. Bounded: a bundle is for a ticket, not a backup.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io;
use tar::{Builder, EntryType, Header};

/// Longest file in a bundle, in bytes before packing; of a longer one the end is kept.
pub(super) const FILE_MAX: usize = 8 << 20;

/// Files under one directory.
#[derive(Debug)]
pub(super) struct Bundle {
    dir: String,
    /// Seconds since 1970, of every file.
    made_s: u64,
    files: Vec<(String, Vec<u8>)>,
    /// What was cut, in words.
    cut: Vec<String>,
}

impl Bundle {
    pub(super) fn new(dir: String, made_s: u64) -> Self {
        Self { dir, made_s, files: Vec::new(), cut: Vec::new() }
    }

    pub(super) fn json(&mut self, path: &str, value: &impl serde::Serialize) {
        let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
        text.push(b'\n');
        self.add(path, text);
    }

    /// Of a text that is too long, whole lines at its end are kept.
    pub(super) fn lines(&mut self, path: &str, lines: impl IntoIterator<Item = String>) {
        let mut text = Vec::new();
        for line in lines {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
        self.add(path, text);
    }

    /// The file that people should see first.
    pub(super) fn lead(&mut self, path: &str, text: String) {
        self.files.insert(0, (path.to_string(), text.into_bytes()));
    }

    fn add(&mut self, path: &str, mut bytes: Vec<u8>) {
        if let Some(over) = bytes.len().checked_sub(FILE_MAX).filter(|over| *over > 0) {
            let from =
                bytes.iter().skip(over).position(|b| *b == b'\n').map_or(over, |n| over + n + 1);
            self.cut.push(format!("{path}: {from} bytes at its beginning were left out"));
            bytes.drain(..from);
        }
        self.files.push((path.to_string(), bytes));
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(path, _)| path.as_str())
    }

    pub(super) fn cut(&self) -> &[String] {
        &self.cut
    }

    /// The archive, its files in the order in which they were given.
    ///
    /// # Errors
    /// Only what memory itself can't do; a path of more than 100 bytes.
    pub(super) fn pack(self) -> io::Result<Vec<u8>> {
        let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (path, bytes) in &self.files {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o600);
            header.set_mtime(self.made_s);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, format!("{}/{path}", self.dir), bytes.as_slice())?;
        }
        tar.into_inner()?.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_goes_in_comes_out_and_long_texts_keep_their_end() {
        let mut bundle = Bundle::new("n1-evidence".into(), 1_000);
        bundle.json("a.json", &serde_json::json!({"a": 1}));
        bundle.lines("log.txt", (0..1_000_000).map(|n| format!("line {n} of many")));
        assert_eq!(bundle.names().collect::<Vec<_>>(), ["a.json", "log.txt"]);
        assert!(bundle.cut()[0].starts_with("log.txt: "), "{:?}", bundle.cut());
        let packed = bundle.pack().unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
        let mut found = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            assert_eq!(
                (entry.header().mtime().unwrap(), entry.header().mode().unwrap()),
                (1_000, 0o600)
            );
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((path, text));
        }
        assert_eq!(found[0], ("n1-evidence/a.json".into(), "{\n  \"a\": 1\n}\n".into()));
        assert!(found[1].1.len() <= FILE_MAX && found[1].1.starts_with("line "));
        assert!(found[1].1.ends_with("line 999999 of many\n"));
    }
}
