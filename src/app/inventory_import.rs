//! `farrier inventory import --csv`: delivery notes with the factory passwords of machines.
//!
//! A line is one machine: its serial, the MAC of its BMC, user and password as delivered, rack and
//! position. The password is sealed as `factory/<serial>`, which the inventory means by
//! `credential = "factory"`. No password is ever printed, in no message.
#![allow(clippy::disallowed_methods, reason = "reads the file that a person names")]

use super::{database, files, parts};
use crate::config::daemon::SecretsKey;
use crate::model::Expected;
use crate::model::identity::{clean_mac, clean_serial};
use crate::port::Secret;
use crate::store::credentials::Delivered;
use crate::store::{Key, SqliteStore};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// What is to be imported.
#[derive(Clone, Debug)]
pub struct Ask {
    pub csv: PathBuf,
    pub config: PathBuf,
    /// Good lines are kept although others are bad.
    pub partial: bool,
    pub json: bool,
}

/// A line that can't be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// In the file, from 1.
    pub line: u64,
    pub why: String,
}

/// What a file says.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// By line number.
    pub good: Vec<(u64, Delivered)>,
    pub bad: Vec<BadLine>,
    /// Columns that nobody asked for.
    pub extra: Vec<String>,
}

const COLUMNS: [&str; 6] = ["serial", "bmc_mac", "user", "password", "rack", "position"];
/// The columns without which a line is of no use.
const NEEDED: usize = 4;
/// Other spellings of them, as vendors' delivery notes have them.
const ALIASES: [(&str, &str); 8] = [
    ("serial_number", "serial"),
    ("service_tag", "serial"),
    ("mac", "bmc_mac"),
    ("bmcmac", "bmc_mac"),
    ("bmc_mac_address", "bmc_mac"),
    ("username", "user"),
    ("bmc_user", "user"),
    ("bmc_password", "password"),
];

/// Reads a delivery note.
///
/// # Errors
/// The file as a whole can't be read: no header, or columns missing.
pub fn read(bytes: &[u8]) -> Result<Note, String> {
    // Spreadsheets begin UTF-8 with a mark.
    let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes);
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::Headers).from_reader(bytes);
    let header = reader.byte_headers().map_err(|e| unreadable(&e))?.clone();
    let mut note = Note::default();
    let mut at: BTreeMap<&str, usize> = BTreeMap::new();
    for (n, name) in header.iter().enumerate() {
        let shown = String::from_utf8_lossy(name).trim().to_string();
        let word = shown.to_lowercase().replace([' ', '-'], "_");
        let word = ALIASES.iter().find(|(a, _)| *a == word).map_or(&*word, |(_, c)| c);
        match COLUMNS.iter().find(|c| **c == word) {
            Some(column) if at.insert(*column, n).is_some() => {
                return Err(format!("the column `{column}` is there twice"));
            }
            Some(_) => {}
            None => note.extra.push(shown.chars().filter(|c| !c.is_control()).take(64).collect()),
        }
    }
    let missing: Vec<&str> =
        COLUMNS.iter().take(NEEDED).copied().filter(|c| !at.contains_key(c)).collect();
    if !missing.is_empty() {
        return Err(format!(
            "the first line must name the columns; missing: {} (known are {})",
            missing.join(", "),
            COLUMNS.join(", ")
        ));
    }
    let mut first: BTreeMap<(&str, String), u64> = BTreeMap::new();
    let mut record = csv::ByteRecord::new();
    let mut lines = Lines { bytes, at: 0, line: 1 };
    loop {
        let line = lines.of(reader.position().byte());
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(e) => {
                note.bad.push(BadLine { line, why: unreadable(&e) });
                break;
            }
        }
        if record.iter().all(<[u8]>::is_empty) {
            continue;
        }
        match machine(&record, &at, header.len()) {
            Err(whys) => note.bad.extend(whys.into_iter().map(|why| BadLine { line, why })),
            Ok(found) => {
                let keys = [("serial", found.serial.clone()), ("BMC MAC", found.bmc_mac.clone())];
                let twice = keys.into_iter().find_map(|(what, value)| {
                    let other = *first.entry((what, value.clone())).or_insert(line);
                    (other != line).then(|| format!("the {what} `{value}` is in line {other} too"))
                });
                match twice {
                    Some(why) => note.bad.push(BadLine { line, why }),
                    None => note.good.push((line, found)),
                }
            }
        }
    }
    Ok(note)
}

/// Counts lines as an editor does; the reader's own count leaves out blank ones and half of CRLF.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the first record that begins at `byte` or behind blank lines after it.
    fn of(&mut self, byte: u64) -> u64 {
        let from = usize::try_from(byte).unwrap_or(usize::MAX);
        while let Some(b) = self.bytes.get(self.at) {
            if self.at >= from && !matches!(b, b'\r' | b'\n') {
                break;
            }
            self.line += u64::from(*b == b'\n');
            self.at += 1;
        }
        self.line
    }
}

/// What is wrong with the file's form; what stands in it is not repeated.
fn unreadable(e: &csv::Error) -> String {
    match e.kind() {
        csv::ErrorKind::Io(e) => e.to_string(),
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".into(),
        _ => "it is no CSV: a quote that does not end?".into(),
    }
}

fn machine(
    record: &csv::ByteRecord,
    at: &BTreeMap<&str, usize>,
    columns: usize,
) -> Result<Delivered, Vec<String>> {
    let mut bad = Vec::new();
    if record.len() != columns {
        bad.push(format!("{} fields, and {columns} columns", record.len()));
        return Err(bad);
    }
    let mut text = |column: &str| -> Option<String> {
        let field = at.get(column).and_then(|n| record.get(*n))?;
        match std::str::from_utf8(field) {
            Ok(text) => Some(text.to_string()).filter(|t| !t.trim().is_empty()),
            Err(_) => {
                bad.push(format!("`{column}` is not UTF-8"));
                None
            }
        }
    };
    let (serial, mac) = (text("serial"), text("bmc_mac"));
    let (user, password) = (text("user"), text("password"));
    let (rack, position) = (text("rack"), text("position"));
    let named = |what: &str, value: &Option<String>| {
        format!(
            "`{what}` {}",
            match value {
                Some(value) => format!("can't be `{}`", excerpt(value)),
                None => "is empty".into(),
            }
        )
    };
    let clean = serial.as_deref().and_then(clean_serial);
    if clean.is_none() {
        bad.push(named("serial", &serial));
    }
    let clean_mac = mac.as_deref().and_then(clean_mac);
    if clean_mac.is_none() {
        bad.push(named("bmc_mac", &mac));
    }
    let user = user.map(|u| u.trim().to_string());
    if user.is_none() {
        bad.push("`user` is empty".into());
    }
    // A password is taken as it stands, blanks included; what could never be sent is not.
    if !password.as_deref().is_some_and(|p| p.len() <= 256 && !p.contains(char::is_control)) {
        bad.push("`password` is empty, too long, or holds control characters".into());
    }
    let number = position.as_deref().map(|p| p.trim().parse::<u16>());
    if matches!(number, Some(Err(_))) {
        bad.push(named("position", &position));
    }
    match (clean, clean_mac, user, password) {
        (Some(serial), Some(bmc_mac), Some(user), Some(password)) if bad.is_empty() => {
            Ok(Delivered {
                serial,
                bmc_mac,
                user,
                password: Secret::new(password),
                rack: rack.map(|r| r.trim().to_string()),
                position: number.and_then(Result::ok),
            })
        }
        _ => Err(bad),
    }
}

fn excerpt(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// What the inventory's files say otherwise, in words.
fn differences(note: &Note, expected: &[Arc<Expected>]) -> Vec<String> {
    let by_serial: BTreeMap<&str, &Arc<Expected>> =
        expected.iter().filter_map(|e| Some((e.identity.serial.as_deref()?, e))).collect();
    let mut out = Vec::new();
    for (line, d) in &note.good {
        let Some(e) = by_serial.get(d.serial.as_str()) else {
            out.push(format!(
                "line {line}: no machine of the inventory has the serial {}",
                d.serial
            ));
            continue;
        };
        if d.rack.as_deref().is_some_and(|rack| rack != &*e.rack) {
            let rack = d.rack.as_deref().unwrap_or_default();
            out.push(format!(
                "line {line}: {} is in rack {} there, and in {rack} here",
                e.name, e.rack
            ));
        }
        if d.position.is_some_and(|p| e.position != 0 && p != e.position) {
            let here = d.position.unwrap_or_default();
            out.push(format!(
                "line {line}: {} is at position {} there, and at {here} here",
                e.name, e.position
            ));
        }
    }
    out
}

/// Runs the import. Exit 0: all lines are kept; 1: not, or not all; 2: nothing can be read.
pub fn import(ask: &Ask) -> ExitCode {
    database::block_on(async {
        match run(ask).await {
            Ok(code) => code,
            Err(why) => {
                eprintln!("error: {why}");
                ExitCode::from(2)
            }
        }
    })
}

async fn run(ask: &Ask) -> Result<ExitCode, String> {
    let loaded = files::load(&ask.config).map_err(|p| p.report)?;
    let shown = ask.csv.display();
    let bytes = std::fs::read(&ask.csv).map_err(|e| format!("can't read `{shown}`: {e}"))?;
    let mode = mode(&ask.csv);
    if let Some(mode) = mode.filter(|m| m & 0o077 != 0) {
        eprintln!(
            "warning: others may read `{shown}` (mode {mode:04o}), and it holds passwords\n  \
             hint: `chmod 600 {shown}`; who could read it knows them until they are rotated"
        );
    }
    let note = read(&bytes).map_err(|why| format!("`{shown}`: {why}"))?;
    for column in &note.extra {
        eprintln!("warning: the column `{column}` is not used");
    }
    for bad in &note.bad {
        eprintln!("error: `{shown}` line {}: {}", bad.line, bad.why);
    }
    let differences = differences(&note, &loaded.expected);
    for difference in &differences {
        eprintln!("warning: {difference}");
    }
    let keep = note.bad.is_empty() || ask.partial;
    let kept = if keep { note.good.len() } else { 0 };
    if kept > 0 {
        let lines: Vec<Delivered> = note.good.iter().map(|(_, d)| d.clone()).collect();
        write(&loaded.daemon, &lines).await?;
    }
    if ask.json {
        let bad: Vec<_> =
            note.bad.iter().map(|b| serde_json::json!({"line": b.line, "why": b.why})).collect();
        let said = serde_json::json!({
            "kept": kept, "good": note.good.len(), "bad": bad, "unused_columns": note.extra,
            "differences": differences,
        });
        println!("{said}");
    } else {
        println!("{kept} machines kept, {} lines bad", note.bad.len());
    }
    if !keep {
        eprintln!("hint: nothing was kept; correct the lines, or keep the others with `--partial`");
        return Ok(ExitCode::FAILURE);
    }
    eprintln!(
        "hint: the passwords are sealed now: `shred -u {shown}`; `credential = \"factory\"` in the \
         inventory means them"
    );
    Ok(if note.bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn mode(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|m| m.permissions().mode() & 0o777)
}

async fn write(daemon: &crate::config::Daemon, lines: &[Delivered]) -> Result<(), String> {
    std::fs::create_dir_all(&daemon.state)
        .map_err(|e| format!("can't make `{}`: {e}", daemon.state.display()))?;
    let mut key = parts::read_key(daemon)?;
    if let (None, Some(SecretsKey::File(path))) = (&key, &daemon.secrets) {
        key = Some(Key::init(path).map_err(|e| e.to_string())?);
        eprintln!(
            "made the key `{}` (0600); keep a copy of it apart from the database",
            path.display()
        );
    }
    let store = SqliteStore::open(&daemon.database, crate::store::Settings::default())
        .await
        .map_err(|e| format!("{e}\n  hint: the import needs the daemon to be stopped"))?;
    let kept = match store.secrets(key).await {
        Ok(secrets) => secrets.deliver(lines).await,
        Err(e) => Err(e),
    };
    store.close().await;
    kept.map_err(|e| e.to_string())
}
