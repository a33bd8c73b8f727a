//! A BMC as text, so that a person can write one, and a fuzzer can change one:
//!
//! ```text
//! === /redfish/v1/Systems/1 200
//! ETag: "1"
//!
//! {"PowerState": "On"}
//! === POST /redfish/v1/SessionService/Sessions 503
//!
//! busy
//! ```
//!
//! Every answer begins at a line of `===`, a method unless it is GET, a path and a status; headers and
//! an empty line follow, then the body. Any bytes are a deck: what does not fit is left out.

use crate::bmc::canned::{Canned, Source};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const MARK: &[u8] = b"=== ";

/// Requests and bytes that get an answer. Collections of a thousand members that are a thousand
/// collections would be read until the deadline of the read is there.
const MOST_REQUESTS: usize = 5_000;
const MOST_BYTES: usize = 32 << 20;

/// The token of sessions on a BMC that does not say otherwise.
pub const TOKEN: &str = "token-of-the-deck";

/// Answers by method and path.
#[derive(Debug, Default)]
pub struct Deck {
    answers: BTreeMap<String, Canned>,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    /// In their order, with their queries.
    paths: Vec<String>,
    /// Of all answers.
    bytes: usize,
    /// [`TOKEN`] was given out.
    token: bool,
}

/// As paths are compared: without case and slash at the end.
fn key(method: &str, path: &str) -> String {
    format!("{method} {}", path.trim_end_matches('/').to_lowercase())
}

fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|b| *b == b'\n') {
        Some(end) => {
            (bytes.get(..end).unwrap_or_default(), bytes.get(end + 1..).unwrap_or_default())
        }
        None => (bytes, &[]),
    }
}

/// Headers to the empty line, then the body.
fn rest(status: u16, mut bytes: &[u8]) -> Canned {
    let mut headers = Vec::new();
    while !bytes.is_empty() {
        let (head, after) = line(bytes);
        bytes = after;
        if head.is_empty() {
            break;
        }
        let name_end = head.iter().position(|b| *b == b':').unwrap_or(head.len());
        let (name, value) = head.split_at_checked(name_end).unwrap_or((head, &[]));
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        headers.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
    }
    Canned { status, headers, body: bytes.strip_suffix(b"\n").unwrap_or(bytes).into() }
}

fn status(word: Option<&str>) -> u16 {
    word.and_then(|w| w.parse().ok()).filter(|s| (100..1000).contains(s)).unwrap_or(200)
}

/// One answer alone: a line with its status, headers, an empty line, the body.
pub fn one(bytes: &[u8]) -> Canned {
    let (first, after) = line(bytes);
    rest(status(String::from_utf8_lossy(first).split_whitespace().next()), after)
}

impl Deck {
    pub fn read(bytes: &[u8]) -> Deck {
        let mut starts = Vec::new();
        let mut at = 0;
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            if line.starts_with(MARK) {
                starts.push(at);
            }
            at += line.len();
        }
        let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
        let mut answers = BTreeMap::new();
        for (from, to) in starts.iter().zip(ends) {
            let (first, after) = line(bytes.get(from + MARK.len()..to).unwrap_or_default());
            let first = String::from_utf8_lossy(first);
            let mut words = first.split_whitespace().peekable();
            let method = words.next_if(|w| !w.starts_with('/')).unwrap_or("GET");
            let Some(path) = words.next() else { continue };
            answers.entry(key(method, path)).or_insert_with(|| rest(status(words.next()), after));
        }
        Deck { answers, asked: Mutex::default() }
    }

    /// Documents by path, each a 200.
    pub fn of<'a>(documents: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Deck {
        let canned = |body: Vec<u8>| Canned { status: 200, headers: vec![], body: body.into() };
        let all = documents.into_iter().map(|(path, body)| (key("GET", path), canned(body)));
        Deck { answers: all.collect(), asked: Mutex::default() }
    }

    /// What was asked for so far: `GET /redfish/v1/`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).paths.clone()
    }

    /// Was a request made that needs a login? The service root needs none.
    pub(super) fn was_told_the_password(&self) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.paths.iter().any(|p| !matches!(p.as_str(), "GET /redfish/v1/" | "GET /redfish/v1"))
    }

    /// Is [`TOKEN`] a secret of this deck's session?
    pub(super) fn gave_token(&self) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).token
    }

    fn find(&self, method: &str, path: &str) -> Canned {
        let short =
            |status, body: &str| Canned { status, headers: vec![], body: body.as_bytes().into() };
        // Pages of a collection are documents of their own, `$expand` is not.
        let bare = path.split('?').next().unwrap_or(path);
        let found = [path, bare].into_iter().find_map(|p| self.answers.get(&key(method, p)));
        match (found, method) {
            (Some(canned), _) => canned.clone(),
            (None, "POST") => {
                Canned { headers: vec![("X-Auth-Token".into(), TOKEN.into())], ..short(201, "{}") }
            }
            (None, _) => short(404, "{\"error\": {\"code\": \"Base.1.0.ResourceMissingAtURI\"}}"),
        }
    }
}

impl Source for Deck {
    fn answer(&self, method: &str, path: &str) -> Canned {
        let canned = self.find(method, path);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.paths.push(format!("{method} {path}"));
        asked.bytes += canned.body.len();
        asked.token |= canned.headers.iter().any(|(_, value)| value == TOKEN.as_bytes());
        if asked.paths.len() > MOST_REQUESTS || asked.bytes > MOST_BYTES {
            return Canned { status: 503, headers: vec![], body: Arc::default() };
        }
        canned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_a_deck() {
        let text = b"stray\n=== /A/ 200\nETag: \"1\"\nbroken\n\n{}\n=== POST /s 503\n\nno\nmore\n=== \n=== /b";
        let deck = Deck::read(text);
        let a = deck.answer("GET", "/a?$expand=.");
        assert_eq!((a.status, &*a.body), (200, &b"{}"[..]));
        assert_eq!(a.headers[0], ("ETag".to_string(), b"\"1\"".to_vec()));
        let s = deck.answer("POST", "/s");
        assert_eq!((s.status, &*s.body), (503, &b"no\nmore"[..]));
        assert_eq!((deck.answer("GET", "/b").status, deck.answer("GET", "/c").status), (200, 404));
        assert_eq!(deck.asked(), ["GET /a?$expand=.", "POST /s", "GET /b", "GET /c"]);
        assert_eq!(
            one(b"412 x\nLocation: /t\n\nbody"),
            Canned {
                status: 412,
                headers: vec![("Location".into(), b"/t".to_vec())],
                body: b"body"[..].into(),
            }
        );
    }
}
