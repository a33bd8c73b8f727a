//! The file of leases: a line a change, on the disk before the address is offered.
//!
//! Written by one task in batches: two thousand machines that are switched on at once share a few
//! writes. A line that a crash cut off was never answered on, and is cut away at the next start.

use super::lease::{Leases, Record};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, oneshot};

/// Lines written at once.
const BATCH: usize = 4096;
/// A file that is larger at a start is written anew, without what does not count any more.
const COMPACT_BYTES: u64 = 1 << 20;
const MOST_BYTES: u64 = 256 << 20;

type Order = (Record, oneshot::Sender<Result<(), String>>);

/// Where records become durable. Clones share one file.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    orders: mpsc::Sender<Order>,
}

/// Reads the leases back and opens the journal below `state_dir`. Blocks.
///
/// # Errors
/// A sentence for a person: without the old leases a new one could be somebody's.
pub(super) fn open(state_dir: &Path) -> Result<(Leases, Journal), String> {
    let path = state_dir.join("dhcp-leases.jsonl");
    let wrong = |what: &str, e: &dyn std::fmt::Display| {
        format!(
            "the DHCP leases in `{}`: could not {what}: {e}\n  hint: without them an address could \
             be given twice, so nothing is answered; put the file right, or move it away when no \
             machine uses an address of a range any more",
            path.display()
        )
    };
    fs::create_dir_all(state_dir).map_err(|e| wrong("make the directory", &e))?;
    let mut text = String::new();
    match File::open(&path) {
        Ok(file) => {
            file.take(MOST_BYTES).read_to_string(&mut text).map_err(|e| wrong("read them", &e))?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(wrong("open them", &e)),
    }
    let (leases, whole) =
        read(&text).map_err(|(line, e)| wrong(&format!("read line {line}"), &e))?;
    let large = u64::try_from(text.len()).unwrap_or(u64::MAX) > COMPACT_BYTES;
    if large {
        rewrite(&path, &leases).map_err(|e| wrong("write them anew", &e))?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let file = file.map_err(|e| wrong("open them", &e))?;
    if !large && whole < text.len() {
        let length = u64::try_from(whole).unwrap_or(u64::MAX);
        file.set_len(length).map_err(|e| wrong("cut off an unfinished line", &e))?;
    }
    file.sync_all().map_err(|e| wrong("write them", &e))?;
    File::open(state_dir).and_then(|d| d.sync_all()).map_err(|e| wrong("write them", &e))?;
    let (orders, inbox) = mpsc::channel(BATCH);
    tokio::spawn(write(file, path, inbox));
    Ok((leases, Journal { orders }))
}

/// The leases below `state_dir` as a daemon has kept them; none where it has not. Changes nothing.
///
/// # Errors
/// A sentence for a person.
pub fn kept_leases(state_dir: &Path) -> Result<Leases, String> {
    let path = state_dir.join("dhcp-leases.jsonl");
    let wrong = |e: &dyn std::fmt::Display| format!("can't read `{}`: {e}", path.display());
    let mut text = String::new();
    match File::open(&path) {
        Ok(file) => file.take(MOST_BYTES).read_to_string(&mut text).map_err(|e| wrong(&e))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Leases::default()),
        Err(e) => return Err(wrong(&e)),
    };
    let (leases, _) = read(&text).map_err(|(line, e)| wrong(&format!("line {line}: {e}")))?;
    Ok(leases)
}

/// The leases, and how many bytes of the text are whole lines. `Err`: line number and what is wrong.
fn read(text: &str) -> Result<(Leases, usize), (usize, serde_json::Error)> {
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let mut leases = Leases::default();
    for (n, line) in text.get(..whole).unwrap_or("").lines().enumerate() {
        let record: Record = serde_json::from_str(line).map_err(|e| (n + 1, e))?;
        leases.replay(&record);
    }
    Ok((leases, whole))
}

fn rewrite(path: &Path, leases: &Leases) -> io::Result<()> {
    let staged = path.with_extension("staged");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&staged)?;
    let mut text = String::new();
    for record in leases.records() {
        text.push_str(&serde_json::to_string(&record)?);
        text.push('\n');
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&staged, path)
}

async fn write(file: File, path: PathBuf, mut inbox: mpsc::Receiver<Order>) {
    let mut file = file;
    let mut batch = Vec::new();
    // After a failed write nobody knows what the file holds behind its last good byte.
    let mut good = file.metadata().map_or(0, |m| m.len());
    while inbox.recv_many(&mut batch, BATCH).await > 0 {
        let mut text = String::new();
        for (record, _) in &batch {
            if let Ok(line) = serde_json::to_string(record) {
                text.push_str(&line);
                text.push('\n');
            }
        }
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let written = tokio::task::spawn_blocking(move || {
            let result = file
                .set_len(good)
                .and_then(|()| file.write_all(text.as_bytes()))
                .and_then(|()| file.sync_data());
            (file, result)
        });
        let Ok((back, result)) = written.await else { return };
        file = back;
        let result = match result {
            Ok(()) => {
                good = good.saturating_add(length);
                Ok(())
            }
            Err(e) => Err(format!("DHCP leases can't be kept in `{}`: {e}", path.display())),
        };
        for (_, done) in batch.drain(..) {
            // Who gave up waiting hears nothing.
            done.send(result.clone()).ok();
        }
    }
}

impl Journal {
    /// Durable when it returns.
    pub(super) async fn keep(&self, record: Record) -> Result<(), String> {
        let (done, written) = oneshot::channel();
        let ended = || "the journal of DHCP leases has ended".to_string();
        self.orders.send((record, done)).await.map_err(|_| ended())?;
        written.await.map_err(|_| ended())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::network::Mac;
    use std::net::Ipv4Addr;

    fn record(n: u8) -> Record {
        let address = Ipv4Addr::new(10, 30, 0, n);
        Record::Given { lan: "provision".into(), mac: Mac([2, 0, 0, 0, 1, n]), address }
    }

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_kill_in_the_middle_of_a_line() {
        let state = tempfile::tempdir().unwrap();
        let (_, journal) = open(state.path()).unwrap();
        for n in [100, 101] {
            journal.keep(record(n)).await.unwrap();
        }
        drop(journal);
        let path = state.path().join("dhcp-leases.jsonl");
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"event\":\"given\",\"lan\":\"provi");
        fs::write(&path, &text).unwrap();
        let (leases, journal) = open(state.path()).unwrap();
        assert_eq!(leases.all().count(), 2);
        journal.keep(record(102)).await.unwrap();
        let (leases, _) = open(state.path()).unwrap();
        assert_eq!(leases.all().count(), 3, "the new line stands by itself");
    }

    #[tokio::test]
    async fn a_file_that_can_not_be_understood_is_not_taken_for_an_empty_one() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join("dhcp-leases.jsonl"), "{\"event\":\"given\"}\n").unwrap();
        let why = open(state.path()).unwrap_err();
        assert!(why.contains("line 1") && why.contains("hint:"), "{why}");
    }
}
