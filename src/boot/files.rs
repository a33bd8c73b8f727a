//! The directory of window files: one JSON file a run, replaced as a whole.

use super::window::{VERSION, Window};
use crate::model::{Channel, Fault, FaultClass};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Starts the name of a file that is not finished.
const STAGED: &str = ".staged-";
/// A window's file has a few hundred bytes; what is far larger is not one.
const MAX_BYTES: u64 = 256 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Files {
    dir: PathBuf,
}

impl Files {
    /// Makes `<state>/boot-windows` (0700) and removes what a crash left unfinished.
    pub(super) fn open(state_dir: &Path) -> Result<Self, Fault> {
        let files = Self { dir: state_dir.join("boot-windows") };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&files.dir);
        made.map_err(|e| files.fault("make the directory", &e))?;
        for path in files.list()? {
            if file_name(&path).starts_with(STAGED) {
                fs::remove_file(&path).map_err(|e| files.fault("remove an unfinished file", &e))?;
            }
        }
        Ok(files)
    }

    /// All windows. A file that can't be read is reported and left out: its run opens a new one.
    pub(super) fn load(&self) -> Result<Vec<Window>, Fault> {
        let mut windows = Vec::new();
        for path in self.list()? {
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            match read(&path) {
                Ok(window) if file_name(&path) == format!("{}.json", window.run) => {
                    windows.push(window);
                }
                Ok(window) => tracing::warn!(
                    file = %path.display(), run = window.run,
                    "this boot window is not the one its file is named after; left out"
                ),
                Err(why) => tracing::warn!(
                    file = %path.display(), why,
                    "this boot window can't be read; left out, its run will open a new one"
                ),
            }
        }
        Ok(windows)
    }

    fn list(&self) -> Result<Vec<PathBuf>, Fault> {
        let entries = fs::read_dir(&self.dir).map_err(|e| self.fault("list", &e))?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(|e| self.fault("list", &e))?.path());
        }
        paths.sort();
        Ok(paths)
    }

    /// Durable when it returns: fsync of the file, atomic rename, fsync of the directory. Blocks.
    pub(super) fn write(&self, window: &Window) -> Result<(), Fault> {
        let staged = self.stage(window).map_err(|e| self.fault("write", &e))?;
        fs::rename(&staged, self.path(&window.run))
            .and_then(|()| File::open(&self.dir)?.sync_all())
            .map_err(|e| {
                let _ = fs::remove_file(&staged);
                self.fault("replace", &e)
            })
    }

    fn stage(&self, window: &Window) -> io::Result<PathBuf> {
        let staged = self.dir.join(format!("{STAGED}{}", window.run));
        let mut text = serde_json::to_vec_pretty(window)?;
        text.push(b'\n');
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&staged)?;
        file.write_all(&text).and_then(|()| file.sync_all()).inspect_err(|_| {
            let _ = fs::remove_file(&staged);
        })?;
        Ok(staged)
    }

    /// Blocks.
    pub(super) fn remove(&self, run: &str) -> Result<(), Fault> {
        match fs::remove_file(self.path(run)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.fault("remove", &e)),
            _ => Ok(()),
        }
    }

    fn path(&self, run: &str) -> PathBuf {
        self.dir.join(format!("{run}.json"))
    }

    fn fault(&self, what: &str, e: &io::Error) -> Fault {
        Fault::new(
            FaultClass::Transient,
            Channel::Boot,
            "boot-state",
            format!("boot windows in `{}`: could not {what}: {e}", self.dir.display()),
        )
        .hint("is the disk full, or the state directory not ours? Farrier tries again by itself")
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read(path: &Path) -> Result<Window, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|f| f.take(MAX_BYTES).read_to_end(&mut bytes))
        .map_err(|e| e.to_string())?;
    // Category and place only: serde's own text may quote what stands there, and that may be the token.
    let window: Window = serde_json::from_slice(&bytes)
        .map_err(|e| format!("{:?} error at line {}", e.classify(), e.line()))?;
    match window.version {
        VERSION => Ok(window),
        v => Err(format!("it has layout {v}, this Farrier writes {VERSION}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::Mac;
    use super::*;
    use crate::model::MachineId;

    fn window(image: &str) -> Window {
        Window {
            version: VERSION,
            run: "0badcafe-m1-7".into(),
            machine: MachineId(1),
            name: "n1".into(),
            mac: Mac::parse("aa:bb:cc:dd:ee:01").unwrap(),
            image: image.into(),
            allow_existing_data: false,
            base_url: "http://b".into(),
            open: true,
            token: Some(crate::port::Secret::new("t0ken")),
            source: None,
            script_fetched: false,
            seed_fetched: false,
            callback: None,
            other_uuid: None,
            made: None,
            deploys: None,
            keys: vec![],
            profile: "p".into(),
            network: None,
            preseed: None,
            opened_at: 1,
            changed_at: 1,
        }
    }

    #[test]
    fn a_kill_between_write_and_rename_leaves_the_old_state() {
        let state = tempfile::tempdir().unwrap();
        let files = Files::open(state.path()).unwrap();
        files.write(&window("old")).unwrap();
        let staged = files.stage(&window("new")).unwrap();
        assert!(staged.exists());
        // The daemon dies here and comes back.
        let files = Files::open(state.path()).unwrap();
        let found = files.load().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].image, "old");
        assert_eq!(found[0].token, window("old").token);
        assert!(!staged.exists(), "what was unfinished is cleared away");
    }

    #[test]
    fn a_bad_file_costs_only_itself_and_is_not_quoted() {
        let state = tempfile::tempdir().unwrap();
        let files = Files::open(state.path()).unwrap();
        files.write(&window("good")).unwrap();
        let bad = files.path("bad");
        for text in ["", "{", "{\"token\": 7}", "{\"token\":\"s3cret\",\"open\":\"s3cret\"}"] {
            fs::write(&bad, text).unwrap();
            assert_eq!(files.load().unwrap().len(), 1);
            assert!(!read(&bad).unwrap_err().contains("s3cret"));
        }
        let newer = Window { version: VERSION + 1, ..window("newer") };
        fs::write(&bad, serde_json::to_vec(&newer).unwrap()).unwrap();
        assert!(read(&bad).unwrap_err().contains("layout"));
    }
}
