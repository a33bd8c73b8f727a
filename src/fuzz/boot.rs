//! What hosts ask of the boot server and say to it, and what lies beside the images that it serves.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the files that are served are real"
)]

use super::Seen;
use crate::app::image::store::{self, Kept};
use crate::boot::fuzz::{self as boot, Served, TOKEN};
use crate::shell::script;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use std::fmt::Debug;
use std::fs;
use std::io;
use std::path::Path;

/// A callback's body.
pub(super) fn callback(data: &[u8]) -> Seen {
    let (token, said) = match boot::said(data) {
        Ok(heard) => heard,
        Err(why) => {
            // It is sent to whoever asked, and says nothing of what stood there.
            assert!(why.len() <= 200 && !why.contains(char::is_control), "{why:?}");
            return Box::new(why);
        }
    };
    if let Some(message) = &said.message {
        let fits = (1..=500).contains(&message.chars().count());
        assert!(fits && !message.chars().any(char::is_control), "{said:?}");
    }
    if let Some(key) = &said.host_key {
        let words: Vec<&str> = key.split(' ').collect();
        assert!(words.len() == 2 && words.iter().all(|w| !w.is_empty()), "{key:?}");
        assert!(!key.contains(['\n', '\r', '\0']), "a second line of known_hosts: {key:?}");
    }
    let calls = boot::calls(&said);
    if let Some(calls) = &calls {
        assert_eq!(calls.by_host, ["taken", "repeated", "spent", "no window"], "{said:?}");
        assert_eq!(calls.by_others, ["wrong source", "wrong token"], "{said:?}");
        assert_eq!(calls.kept.as_ref(), Some(&said), "a restart changes it");
    }
    Box::new((token.expose() == TOKEN, said))
}

/// Nobody may fetch it: it lies beside the directory that is served.
const SECRET: &[u8] = b"secret-of-another-directory";
/// Stands for the file's own tag in a header of a request.
const OWN_TAG: &str = "OWN-TAG";

/// `GET path` or `HEAD path`, then headers, one a line.
pub(super) fn file(data: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let (method, path) = match first.split_once(' ') {
        Some(("HEAD", path)) => (Method::HEAD, path),
        Some(("GET", path)) => (Method::GET, path),
        _ => (Method::GET, first),
    };
    let Ok(place) = tempfile::tempdir() else { return Box::new(()) };
    let dir = place.path().join("images");
    let Ok(()) = fill(place.path(), &dir) else { return Box::new(()) };
    let mac = boot::mac(path.trim());
    assert!(mac.as_ref().is_none_or(|m| m.len() == 17 && m.is_ascii()), "{mac:?}");

    let plain = super::redfish::run(boot::served(&dir, path, Method::GET, HeaderMap::new()));
    let Some(plain) = plain else { return Box::new(()) };
    let tag = plain.header(header::ETAG).unwrap_or_default().to_string();
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim().replace(OWN_TAG, &tag);
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    }
    let served = super::redfish::run(boot::served(&dir, path, method.clone(), headers));
    let Some(served) = served else { return Box::new(()) };
    let whole = check_place(&dir, path, &plain);
    let gist = whole.map(|whole| check_part(&whole, &method, &served));
    Box::new((mac, plain.status, served.status, gist))
}

fn fill(place: &Path, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir.join("sub"))?;
    let bytes: Vec<u8> = (0..=250_u8).cycle().take(70_000).collect();
    fs::write(dir.join("disk.raw"), bytes)?;
    fs::write(dir.join("empty"), [])?;
    fs::write(dir.join("sub/one"), [7])?;
    fs::write(dir.join(".hidden"), SECRET)?;
    fs::write(place.join("secret"), SECRET)?;
    std::os::unix::fs::symlink("../secret", dir.join("out"))?;
    std::os::unix::fs::symlink("..", dir.join("up"))?;
    std::os::unix::fs::symlink("disk.raw", dir.join("link"))
}

/// The bytes of the file that was found; `None`: there is nothing.
fn check_place(dir: &Path, path: &str, plain: &Served) -> Option<Vec<u8>> {
    if plain.status != StatusCode::OK {
        assert_eq!(plain.status, StatusCode::NOT_FOUND, "`{path}`");
        return None;
    }
    let found = fs::canonicalize(dir.join(path)).ok()?;
    let inside = fs::canonicalize(dir).is_ok_and(|dir| found.starts_with(dir));
    assert!(inside, "`{path}` leads to {}", found.display());
    let bytes = fs::read(found).ok()?;
    assert_ne!(bytes, SECRET, "`{path}`");
    assert_eq!(plain.body.as_deref(), Some(&*bytes), "`{path}`");
    Some(bytes)
}

fn check_part(whole: &[u8], method: &Method, served: &Served) -> (Option<String>, usize) {
    let number = |name| served.header(name).and_then(|v| v.parse::<usize>().ok());
    let range = served.header(header::CONTENT_RANGE).map(String::from);
    let body = served.body.as_deref().unwrap_or_default();
    let length = number(header::CONTENT_LENGTH);
    match served.status {
        StatusCode::OK if *method == Method::HEAD => {
            assert_eq!((length, body.len()), (Some(whole.len()), 0));
        }
        StatusCode::OK => assert!(length == Some(body.len()) && body == whole, "{served:?}"),
        StatusCode::PARTIAL_CONTENT => {
            let place = range.as_deref().and_then(|r| r.strip_prefix("bytes ")?.split_once('/'));
            let (place, total) = place.unwrap_or_default();
            let (from, to) = place.split_once('-').unwrap_or_default();
            let (from, to) = (from.parse::<usize>(), to.parse::<usize>());
            let (from, to) = (from.unwrap_or(usize::MAX), to.unwrap_or(0));
            assert_eq!(total.parse(), Ok(whole.len()), "{range:?}");
            assert_eq!(whole.get(from..=to), Some(body), "{range:?}");
            assert_eq!((length, method), (Some(body.len()), &Method::GET));
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            assert_eq!(range, Some(format!("bytes */{}", whole.len())));
        }
        StatusCode::NOT_MODIFIED => assert!(body.is_empty()),
        other => panic!("{other} for a file that is there"),
    }
    (range, body.len())
}

/// `image.toml` as the boot server and as the command line read it, and the deploy job that comes of it.
pub(super) fn description(data: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(data);
    let (order, listed) = (boot::described(&text), store::parse(&text));
    let listed = listed.and_then(|kept| match kept {
        Kept::Disk(about) => Ok(about),
        Kept::Installer(_) => Err("an installer's".to_string()),
    });
    let Ok(order) = order else { return Box::new((order.err(), listed.err())) };
    let same = listed.as_ref().map(|l| (&l.sha256, l.size, l.raw_size, l.format));
    assert_eq!(same, Ok((&order.sha256, order.size, order.raw_size, order.format)));
    let job = script::deploy(&order);
    let started = script::start_deploy(&Default::default(), &order, "deploy-a-m1-7", 1000);
    let ends = |mark: &str| started.lines().filter(|line| *line == mark).count();
    // One for the payload, one for the runner, one for the seed: no text ends its own document.
    assert_eq!((ends("FARRIER_END_OF_TEXT"), ends("FARRIER_END_OF_SEED")), (2, 1));
    let variables: Vec<(&str, String)> = variables(&job);
    let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
    assert_eq!(value("sha256"), Some(&*order.sha256));
    assert_eq!(value("url"), Some(&*order.image_url));
    assert_eq!(value("size"), Some(&*order.size.to_string()));
    let seen: Box<dyn Debug> = Box::new(format!("{variables:?}"));
    seen
}

/// The assignments of the function `order`, as sh reads them.
fn variables(job: &str) -> Vec<(&str, String)> {
    let lines = job.lines().skip_while(|line| *line != "order() {").skip(1);
    let lines = lines.take_while(|line| *line != "}");
    lines
        .map(|line| {
            let Some((name, quoted)) = line.split_once('=') else {
                panic!("no assignment: {line}")
            };
            let inner = quoted.strip_prefix('\'').and_then(|q| q.strip_suffix('\''));
            let Some(inner) = inner else { panic!("not in quotes: {line}") };
            let value = inner.replace(r"'\''", "\0");
            assert!(!value.contains('\''), "its quotes end early: {line}");
            (name, value.replace('\0', "'"))
        })
        .collect()
}
