//! Images: `<images>/<id>/` with the file that is served and `image.toml`, which says what it is.

use super::build::{megabytes, put};
use super::tree::run;
use super::{RAMDISK, Trouble, installer};
use crate::model::deploy::ImageFormat;
use crate::model::installer::Installer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name of the description beside the image.
pub const ABOUT: &str = "image.toml";

/// `image.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct About {
    pub schema: u32,
    /// `disk`: a whole disk with its partition table.
    pub kind: String,
    /// Name of the file beside this one.
    pub file: String,
    pub format: ImageFormat,
    /// Of the file's bytes, lower-case hex.
    pub sha256: String,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes as they lie on the disk.
    pub raw_size: u64,
}

/// What there is: a disk's image, or an installer.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Kept {
    Disk(About),
    Installer(Installer),
}

/// The ids and descriptions below `images`, sorted; `Err` in the place of one that can't be read.
pub fn all(images: &Path) -> Vec<(String, Result<Kept, Trouble>)> {
    let Ok(entries) = fs::read_dir(images) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|e| e.path().join(ABOUT).is_file() && !is_recipe(&e.path().join(ABOUT)))
        .map(|e| e.file_name().to_string_lossy().to_string())
        .map(|id| {
            let about = read(&images.join(&id));
            (id, about)
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// One that describes how another installer is booted is the operator's, and `farrier check` looks at it.
fn is_recipe(about: &Path) -> bool {
    let text = fs::read_to_string(about).unwrap_or_default();
    text.parse::<toml::Table>()
        .is_ok_and(|t| t.get("kind").and_then(|k| k.as_str()) == Some("recipe"))
}

fn read(dir: &Path) -> Result<Kept, Trouble> {
    let path = dir.join(ABOUT);
    let text = fs::read_to_string(&path).map_err(|e| Trouble::file("reading", &path, &e))?;
    parse(&text).map_err(|why| Trouble::new(format!("{}: {why}", path.display())))
}

pub(crate) fn parse(text: &str) -> Result<Kept, String> {
    let wrong = |e: toml::de::Error| e.message().to_string();
    let table: toml::Table = toml::from_str(text).map_err(wrong)?;
    if table.get("kind").and_then(toml::Value::as_str) == Some("installer") {
        let about: Installer = toml::from_str(text).map_err(wrong)?;
        about.check()?;
        return Ok(Kept::Installer(about));
    }
    let about: About = toml::from_str(text).map_err(wrong)?;
    if (about.schema, about.kind.as_str()) != (1, "disk") {
        return Err("not a description of a disk image".into());
    }
    Ok(Kept::Disk(about))
}

/// An id is a directory and a part of a URL.
pub(super) fn id_is_plain(id: &str) -> Result<(), Trouble> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let starts = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && id.len() <= 64 && id.chars().all(plain) && id != RAMDISK {
        return Ok(());
    }
    Err(Trouble::new(format!("`{}` is no id for an image", id.escape_debug()))
        .hint("letters, digits, `.`, `_` and `-`, at most 64, like debian-12-gpu"))
}

/// What a file is by its first bytes; names lie.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Zstd,
    Qcow2,
    Raw,
}

fn found(first: &[u8]) -> Result<Found, &'static str> {
    match first {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Found::Zstd),
        [b'Q', b'F', b'I', 0xfb, ..] => Ok(Found::Qcow2),
        [0x1f, 0x8b, ..] => Err("gzip"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err("xz"),
        [b'K', b'D', b'M', b'V', ..] => Err("VMDK"),
        [b'P', b'K', 3, 4, ..] => Err("zip"),
        _ => Ok(Found::Raw),
    }
}

/// Takes an image in: copied (qcow2: converted to raw and compressed), measured and described.
pub(super) fn add(
    images: &Path,
    file: &Path,
    id: &str,
    replace: bool,
    json: bool,
) -> Result<(), Trouble> {
    id_is_plain(id)?;
    let dir = images.join(id);
    if dir.join(ABOUT).exists() && !replace {
        return Err(Trouble::new(format!("there is an image `{id}` already"))
            .hint("take another id, so that machines keep what they were told; or --replace"));
    }
    let mut source = fs::File::open(file).map_err(|e| Trouble::file("reading", file, &e))?;
    let mut first = [0; 8];
    let n = source.read(&mut first).map_err(|e| Trouble::file("reading", file, &e))?;
    let kind = found(first.get(..n).unwrap_or_default()).map_err(|kind| {
        Trouble::new(format!("{} is {kind}, which is not taken", file.display()))
            .hint("raw, raw.zst and qcow2 are; unpack it first")
    })?;
    fs::create_dir_all(&dir).map_err(|e| Trouble::file("making", &dir, &e))?;
    let part = dir.join(".part");
    let made = take(file, &kind, &part).inspect_err(|_| {
        fs::remove_file(&part).ok();
        fs::remove_dir(&dir).ok();
    })?;
    let name = match made.format {
        ImageFormat::Raw => "disk.raw",
        ImageFormat::RawZst => "disk.raw.zst",
    };
    fs::rename(&part, dir.join(name)).map_err(|e| Trouble::file("naming", &part, &e))?;
    let about = About {
        schema: 1,
        kind: "disk".into(),
        file: name.into(),
        format: made.format,
        sha256: made.sha256,
        size: made.size,
        raw_size: made.raw_size,
    };
    let text = toml::to_string(&about).map_err(|e| Trouble::new(format!("{ABOUT}: {e}")))?;
    put(&dir.join(ABOUT), text.as_bytes())?;
    if json {
        println!("{}", serde_json::json!({ "id": id, "image": about }));
    } else {
        println!("{id}: {}", words(&about));
    }
    Ok(())
}

struct Made {
    format: ImageFormat,
    sha256: String,
    size: u64,
    raw_size: u64,
}

fn take(file: &Path, kind: &Found, part: &Path) -> Result<Made, Trouble> {
    let format = match kind {
        Found::Qcow2 => {
            let raw = tempfile::Builder::new()
                .prefix(".raw-")
                .tempfile_in(part.parent().unwrap_or(Path::new(".")))
                .map_err(|e| Trouble::file("writing beside", part, &e))?;
            let mut convert = Command::new("qemu-img");
            convert.args(["convert", "-f", "qcow2", "-O", "raw"]).arg(file).arg(raw.path());
            run(&mut convert, "converting the image")?;
            let mut pack = Command::new("zstd");
            pack.args(["-6", "-T0", "-q", "-f", "-o"]).arg(part).arg(raw.path());
            run(&mut pack, "compressing the image")?;
            ImageFormat::RawZst
        }
        Found::Zstd | Found::Raw => {
            fs::copy(file, part).map_err(|e| {
                Trouble::file("copying to", part, &e).hint("is there room below the images?")
            })?;
            if *kind == Found::Zstd { ImageFormat::RawZst } else { ImageFormat::Raw }
        }
    };
    let (sha256, size) = sum(part)?;
    let raw_size = match format {
        ImageFormat::Raw => size,
        ImageFormat::RawZst => unpacked(part)?,
    };
    if raw_size < (1 << 20) || raw_size % 512 != 0 {
        return Err(Trouble::new(format!("{raw_size} bytes are no disk image")).hint(
            "an image of a whole disk with its partition table is needed, not of a file system",
        ));
    }
    Ok(Made { format, sha256, size, raw_size })
}

/// SHA-256 and length of a file, read once.
pub(super) fn sum(path: &Path) -> Result<(String, u64), Trouble> {
    let mut file = fs::File::open(path).map_err(|e| Trouble::file("reading", path, &e))?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0_u64, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((hex::encode(hash.finalize()), size)),
            Ok(n) => {
                hash.update(buffer.get(..n).unwrap_or_default());
                size += u64::try_from(n).unwrap_or(0);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Trouble::file("reading", path, &e)),
        }
    }
}

/// How many bytes come out of a zstd file, by unpacking it: its header need not say.
fn unpacked(path: &Path) -> Result<u64, Trouble> {
    let file = fs::File::open(path).map_err(|e| Trouble::file("reading", path, &e))?;
    let mut zstd = Command::new("zstd")
        .args(["-d", "-q", "-c"])
        .stdin(file)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Trouble::new(format!("can't run zstd: {e}")).hint("apt-get install zstd"))?;
    let counted = match zstd.stdout.take() {
        Some(mut out) => io::copy(&mut out, &mut Nowhere),
        None => Ok(0),
    };
    let ended = zstd.wait();
    match (counted, ended) {
        (Ok(bytes), Ok(status)) if status.success() => Ok(bytes),
        _ => Err(Trouble::new(format!("{} can't be unpacked: is it cut off?", path.display()))),
    }
}

struct Nowhere;

impl Write for Nowhere {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn words(about: &About) -> String {
    format!(
        "{}, {:.1} MB, {:.1} MB on the disk, sha256 {}",
        about.format.name(),
        megabytes(about.size),
        megabytes(about.raw_size),
        about.sha256
    )
}

pub(super) fn list(images: &Path, json: bool) -> Result<(), Trouble> {
    let all = all(images);
    if json {
        let rows: Vec<_> = all
            .iter()
            .map(|(id, about)| match about {
                Ok(about) => serde_json::json!({ "id": id, "image": about }),
                Err(e) => serde_json::json!({ "id": id, "problem": e.to_string() }),
            })
            .collect();
        println!("{}", serde_json::Value::Array(rows));
        return Ok(());
    }
    let ramdisk: PathBuf = images.join(RAMDISK).join("ramdisk.toml");
    println!(
        "deploy ramdisk: {}",
        if ramdisk.is_file() { "built" } else { "none; `farrier image build-ramdisk`" }
    );
    if all.is_empty() {
        println!("no image below {}; `farrier image add`", images.display());
    }
    for (id, about) in &all {
        match about {
            Ok(Kept::Disk(about)) => println!("{id}: {}", words(about)),
            Ok(Kept::Installer(about)) => println!("{id}: {}", installer::shown(about)),
            Err(e) => println!("{id}: {e}"),
        }
    }
    Ok(())
}

/// Reads images again; true when every one is what its description says.
pub(super) fn verify(images: &Path, id: Option<&str>, json: bool) -> Result<bool, Trouble> {
    let wanted: Vec<_> =
        all(images).into_iter().filter(|(each, _)| id.is_none_or(|id| id == each)).collect();
    if wanted.is_empty() {
        return Err(Trouble::new(match id {
            Some(id) => format!("there is no image `{id}` below {}", images.display()),
            None => format!("there is no image below {}", images.display()),
        }));
    }
    let (mut sound, mut rows) = (true, Vec::new());
    for (id, about) in wanted {
        let problem = about.and_then(|about| {
            let about = match about {
                Kept::Disk(about) => about,
                Kept::Installer(about) => return installer::verify(&images.join(&id), &about),
            };
            let (sha256, size) = sum(&images.join(&id).join(&about.file))?;
            if (sha256.as_str(), size) == (about.sha256.as_str(), about.size) {
                return Ok(());
            }
            Err(Trouble::new(format!(
                "{} is {size} bytes with sha256 {sha256}, its description says {} and {}",
                about.file, about.size, about.sha256
            ))
            .hint("add it again with --replace"))
        });
        sound &= problem.is_ok();
        match (json, problem) {
            (true, p) => rows.push(serde_json::json!({
                "id": id, "sound": p.is_ok(), "problem": p.err().map(|e| e.to_string()),
            })),
            (false, Ok(())) => println!("{id}: sound"),
            (false, Err(e)) => println!("{id}: {e}"),
        }
    }
    if json {
        println!("{}", serde_json::Value::Array(rows));
    }
    Ok(sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        assert_eq!(found(&[0x28, 0xb5, 0x2f, 0xfd, 1]), Ok(Found::Zstd));
        assert_eq!(found(b"QFI\xfb\0\0"), Ok(Found::Qcow2));
        assert_eq!(found(&[0; 8]), Ok(Found::Raw));
        assert_eq!(found(&[0x1f, 0x8b, 8]), Err("gzip"));
        assert_eq!(found(&[]), Ok(Found::Raw));
    }

    #[test]
    fn ids_are_plain() {
        assert!(id_is_plain("debian-12.5_gpu").is_ok());
        for bad in ["", "..", ".hidden", "a/b", "a b", RAMDISK, &"a".repeat(65)] {
            assert!(id_is_plain(bad).is_err(), "{bad:?}");
        }
    }
}
