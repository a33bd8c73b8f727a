//! Consoles on the disk: one file a run, mode 0600, of which the end is kept. While it is followed it is
//! `NAME@RUN.live`; of a run that ended well it goes; of another one it becomes `NAME@RUN.log`, and those are
//! bounded in number and age.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const LIVE: &str = "live";
const KEPT: &str = "log";
/// Beside a console that was given to us and not given back yet: after an end in the middle the next start
/// gives it back.
const OPEN: &str = "open";

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of one console, its end; while it is followed the file is twice that at most.
    pub bytes: u64,
    /// Consoles of failed runs.
    pub runs: usize,
    pub age: Duration,
}

/// The directory of consoles.
#[derive(Clone, Debug)]
pub struct Shelf {
    dir: PathBuf,
    bounds: Bounds,
}

/// A console that is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    pub machine: String,
    pub run: String,
    /// It is followed now.
    pub live: bool,
    /// When its last word came.
    pub at: SystemTime,
    path: PathBuf,
}

/// A console that is followed.
#[derive(Debug)]
pub struct Live {
    stem: PathBuf,
    file: File,
    length: u64,
    bytes: u64,
    /// The last that came was a line's end.
    fresh_line: bool,
}

impl Shelf {
    /// # Errors
    /// The directory can't be made.
    pub fn new(dir: PathBuf, bounds: Bounds) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir, bounds })
    }

    fn stem(&self, machine: &str, run: &str) -> PathBuf {
        self.dir.join(format!("{}@{}", safe(machine), safe(run)))
    }

    /// The console of this run; one that was followed before goes on behind what is there.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn follow(&self, machine: &str, run: &str) -> io::Result<Live> {
        let stem = self.stem(machine, run);
        let live = with(&stem, LIVE);
        // A run that failed and goes on: the same console.
        if !live.exists() && with(&stem, KEPT).exists() {
            fs::rename(with(&stem, KEPT), &live)?;
        }
        let file =
            OpenOptions::new().append(true).read(true).create(true).mode(0o600).open(live)?;
        let length = file.metadata()?.len();
        Ok(Live { stem, file, length, bytes: self.bounds.bytes, fresh_line: true })
    }

    /// The run ended well: nobody asks for its console.
    pub fn forget(&self, live: Live) {
        live.set_open(false);
        fs::remove_file(with(&live.stem, LIVE)).ok();
    }

    /// The run did not end well. An empty console is none.
    pub fn keep(&self, live: Live) {
        if live.length == 0 {
            return self.forget(live);
        }
        live.set_open(false);
        if let Err(e) = fs::rename(with(&live.stem, LIVE), with(&live.stem, KEPT)) {
            tracing::warn!(file = %live.stem.display(), "a console can't be kept: {e}");
        }
        self.prune();
    }

    /// Takes away what is too old or too much; newest stay.
    pub fn prune(&self) {
        let mut kept: Vec<Console> = self.all().into_iter().filter(|c| !c.live).collect();
        kept.sort_by_key(|c| std::cmp::Reverse(c.at));
        for (n, console) in kept.iter().enumerate() {
            let old = console.at.elapsed().is_ok_and(|age| age > self.bounds.age);
            if n >= self.bounds.runs || old {
                fs::remove_file(&console.path).ok();
            }
        }
    }

    fn all(&self) -> Vec<Console> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let consoles = entries.filter_map(|entry| {
            let path = entry.path();
            let live = match path.extension()?.to_str()? {
                LIVE => true,
                KEPT => false,
                _ => return None,
            };
            let (machine, run) = path.file_stem()?.to_str()?.split_once('@')?;
            let at = entry.metadata().ok()?.modified().ok()?;
            Some(Console { machine: machine.into(), run: run.into(), live, at, path: path.clone() })
        });
        consoles.collect()
    }

    /// Consoles that were followed when the daemon ended.
    pub fn left(&self) -> Vec<Console> {
        self.all().into_iter().filter(|c| c.live).collect()
    }

    /// The console of the machine's run, or its newest.
    pub fn find(&self, machine: &str, run: Option<&str>) -> Option<Console> {
        let (machine, run) = (safe(machine), run.map(safe));
        let its = |c: &Console| c.machine == machine && run.as_ref().is_none_or(|r| c.run == *r);
        self.all().into_iter().filter(its).max_by_key(|c| c.at)
    }

    /// The end of what the host said, as a person may see it.
    ///
    /// # Errors
    /// The file can't be read, or is gone.
    pub fn read(&self, console: &Console) -> io::Result<String> {
        let mut file = File::open(&console.path)?;
        let bytes = tail(&mut file, self.bounds.bytes)?;
        Ok(super::plain(&bytes))
    }
}

impl Console {
    /// Its run is not followed any more, and nobody saw it end.
    pub fn leave(&self) {
        fs::remove_file(self.path.with_extension(OPEN)).ok();
        fs::rename(&self.path, self.path.with_extension(KEPT)).ok();
    }

    /// It was ours when the daemon ended.
    pub fn is_open(&self) -> bool {
        self.path.with_extension(OPEN).exists()
    }
}

impl Live {
    /// # Errors
    /// The disk is full, or worse.
    pub fn push(&mut self, text: &[u8]) -> io::Result<()> {
        self.file.write_all(text)?;
        self.length += u64::try_from(text.len()).unwrap_or(0);
        self.fresh_line = text.last().map_or(self.fresh_line, |b| *b == b'\n');
        if self.length > self.bytes.saturating_mul(2) {
            let end = tail(&mut self.file, self.bytes)?;
            let (path, new) = (with(&self.stem, LIVE), with(&self.stem, "new"));
            fs::remove_file(&new).ok();
            let mut file = OpenOptions::new()
                .append(true)
                .read(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&end)?;
            fs::rename(new, path)?;
            self.length = u64::try_from(end.len()).unwrap_or(0);
            self.file = file;
        }
        Ok(())
    }

    /// A line of ours between the host's.
    ///
    /// # Errors
    /// As [`Live::push`].
    pub fn note(&mut self, what: &str) -> io::Result<()> {
        let gap = if self.fresh_line { "" } else { "\n" };
        self.push(format!("{gap}-- farrier: {what}\n").as_bytes())
    }

    /// The BMC counts the console as ours, or does not any more.
    pub fn set_open(&self, open: bool) {
        let mark = with(&self.stem, OPEN);
        if open {
            let made =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(mark);
            if let Err(e) = made {
                tracing::debug!("a console's mark can't be made: {e}");
            }
        } else {
            fs::remove_file(mark).ok();
        }
    }

    pub fn is_open(&self) -> bool {
        with(&self.stem, OPEN).exists()
    }
}

fn tail(file: &mut File, bytes: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    Ok(end)
}

/// A name as part of a file's name.
fn safe(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.chars().map(|c| if plain(c) { c } else { '_' }).collect()
}

/// Names have dots: the ending is put behind, never in the place of another.
fn with(stem: &Path, ending: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn shelf(dir: &Path, bytes: u64, runs: usize) -> Shelf {
        let bounds = Bounds { bytes, runs, age: Duration::from_secs(3600) };
        Shelf::new(dir.join("consoles"), bounds).unwrap()
    }

    #[test]
    fn the_end_is_kept_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = shelf(dir.path(), 1000, 5);
        let mut live = shelf.follow("n1.rack-a", "abc-m1-7").unwrap();
        for n in 0..1000 {
            live.push(format!("line {n}\r\n").as_bytes()).unwrap();
        }
        live.note("the BMC ended the console").unwrap();
        let path = dir.path().join("consoles/n1.rack-a@abc-m1-7.live");
        let about = fs::metadata(&path).unwrap();
        assert!(about.len() <= 2000, "{}", about.len());
        assert_eq!(about.permissions().mode() & 0o777, 0o600);
        let of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(of(path.parent().unwrap()), 0o700);
        let found = shelf.find("n1.rack-a", None).unwrap();
        assert_eq!((found.live, &*found.run), (true, "abc-m1-7"));
        let text = shelf.read(&found).unwrap();
        assert!(
            text.len() <= 1000
                && text.ends_with("line 999\n-- farrier: the BMC ended the console\n")
        );
        shelf.keep(live);
        assert!(!path.exists());
        let found = shelf.find("n1.rack-a", Some("abc-m1-7")).unwrap();
        assert!(!found.live && shelf.read(&found).unwrap() == text);
        assert_eq!(shelf.find("n1.rack-a", Some("abc-m1-8")), None);
        assert_eq!(shelf.find("n1", None), None, "another machine's");
    }

    #[test]
    fn a_good_end_leaves_nothing_and_a_crash_is_seen_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = shelf(dir.path(), 1000, 5);
        let mut live = shelf.follow("n1", "r1").unwrap();
        live.push(b"hello\n").unwrap();
        live.set_open(true);
        drop(live);
        let left = shelf.left();
        assert!(left.len() == 1 && left[0].is_open());
        let mut live = shelf.follow("n1", "r1").unwrap();
        assert!(live.is_open());
        live.push(b"again\n").unwrap();
        assert_eq!(shelf.read(&shelf.left()[0]).unwrap(), "hello\nagain\n");
        shelf.forget(live);
        assert_eq!(fs::read_dir(dir.path().join("consoles")).unwrap().count(), 0);
        // Empty ones are not kept either.
        shelf.keep(shelf.follow("n1", "r2").unwrap());
        assert_eq!(fs::read_dir(dir.path().join("consoles")).unwrap().count(), 0);
    }

    #[test]
    fn kept_ones_are_bounded_in_number_and_age() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = shelf(dir.path(), 1000, 2);
        for n in 0..4_u64 {
            let mut live = shelf.follow("n1", &format!("r{n}")).unwrap();
            live.push(b"x\n").unwrap();
            let old = if n == 3 { 7200 } else { 100 - n };
            live.file.set_modified(SystemTime::now() - Duration::from_secs(old)).unwrap();
            shelf.keep(live);
        }
        let mut runs: Vec<_> = shelf.all().into_iter().map(|c| c.run).collect();
        runs.sort();
        assert_eq!(runs, ["r1", "r2"], "r0 is one too many, r3 too old");
    }

    #[test]
    fn a_name_is_never_a_path() {
        assert_eq!(safe("../a@b/c"), ".._a_b_c");
    }
}
