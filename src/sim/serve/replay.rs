//! A captured tree served from its files, as a mockup server does: any path in any case, with or
//! without the slash at its end. Sessions are given out, a PATCH is merged in memory, an action
//! answers 204 and changes nothing. Nobody has to log in, because a capture knows no account.
//!
//! A tree is a directory of `index.json` files, from `redfish/v1/` down or (DMTF's short form) from
//! the service root down. A `custom.json` is another status with a body: `{"status", "body"}`.

use super::World;
use super::redfish::{document, fault};
use super::seat::{Counters, Seat, Session};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is done with `$expand`: a file is not expanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expand {
    /// 501, as a service says that does not have it.
    #[default]
    Refused,
    /// The query is not looked at.
    Ignored,
}

/// The files of one tree.
#[derive(Clone, Debug)]
pub struct Tree {
    /// By path, lower-cased and without the slash at its end.
    files: BTreeMap<String, PathBuf>,
    /// Path of the session collection.
    sessions: String,
    expand: Expand,
}

/// Why a tree can't be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("the captured tree `{path}` can't be read: {error}")]
    Io { path: String, error: std::io::Error },
    #[error("`{0}` is no captured tree: it has no `redfish/v1/index.json` and no `index.json`")]
    NoTree(String),
}

/// A path as the files are kept by.
fn key(path: &str) -> String {
    path.trim_end_matches('/').to_lowercase()
}

impl Tree {
    /// Finds the files below `top`.
    pub fn load(top: &Path, expand: Expand) -> Result<Tree, ReplayError> {
        let shown = || top.display().to_string();
        let prefix = if top.join("redfish/v1").is_dir() { "" } else { "/redfish/v1" };
        let mut files = BTreeMap::new();
        let mut dirs = vec![top.to_path_buf()];
        while let Some(dir) = dirs.pop() {
            let io = |error| ReplayError::Io { path: dir.display().to_string(), error };
            for entry in std::fs::read_dir(&dir).map_err(io)? {
                let path = entry.map_err(io)?.path();
                let is = |name: &str| path.file_name().is_some_and(|f| f == name);
                if path.is_dir() {
                    dirs.push(path);
                } else if is("index.json") || is("custom.json") {
                    let below = dir.strip_prefix(top).unwrap_or(&dir).to_string_lossy();
                    files.insert(key(&format!("{prefix}/{below}")), path);
                }
            }
        }
        let root = files.get("/redfish/v1").ok_or_else(|| ReplayError::NoTree(shown()))?;
        let root: Value = std::fs::read(root)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let sessions = root["Links"]["Sessions"]["@odata.id"].as_str();
        let sessions = key(sessions.unwrap_or("/redfish/v1/SessionService/Sessions"));
        Ok(Tree { files, sessions, expand })
    }

    /// How many resources it has.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

fn missing() -> Response {
    fault(StatusCode::NOT_FOUND, "no such resource in the captured tree")
}

/// One request to a seat's tree.
pub(super) fn answer(
    world: &World,
    seat: &Seat,
    tree: &Tree,
    parts: &Parts,
    body: &[u8],
) -> Response {
    let path = key(parts.uri.path());
    let under_sessions = path.strip_prefix(&tree.sessions).and_then(|p| p.strip_prefix('/'));
    match parts.method {
        Method::GET | Method::HEAD => {
            let expands = parts.uri.query().is_some_and(|q| q.contains("$expand"));
            match tree.expand {
                Expand::Refused if expands => {
                    fault(StatusCode::NOT_IMPLEMENTED, "a captured tree is not expanded")
                }
                _ => read(world, seat, tree, &path),
            }
        }
        Method::POST if path == tree.sessions => log_in(world, seat, body, parts.uri.path()),
        Method::POST => match path.split_once("/actions/") {
            Some((owner, _)) if tree.files.contains_key(owner) => {
                StatusCode::NO_CONTENT.into_response()
            }
            _ if tree.files.contains_key(&path) => {
                fault(StatusCode::METHOD_NOT_ALLOWED, "a captured tree does not grow")
            }
            _ => missing(),
        },
        Method::PATCH => patch(world, seat, tree, &path, body),
        Method::DELETE if under_sessions.is_some() => {
            let id = under_sessions.unwrap_or_default();
            let ended = seat.with(world.now(), |b| {
                let before = b.sessions.len();
                b.sessions.retain(|_, s| s.id != id);
                before != b.sessions.len()
            });
            if ended { StatusCode::NO_CONTENT.into_response() } else { missing() }
        }
        _ if tree.files.contains_key(&path) => {
            fault(StatusCode::METHOD_NOT_ALLOWED, "not with a captured tree")
        }
        _ => missing(),
    }
}

/// The file's own bytes, broken ones too, unless a PATCH changed the document.
fn read(world: &World, seat: &Seat, tree: &Tree, path: &str) -> Response {
    let Some(file) = tree.files.get(path) else { return missing() };
    if let Some(patched) = seat.with(world.now(), |b| b.patched.get(path).cloned()) {
        return document(StatusCode::OK, &patched);
    }
    let Ok(bytes) = std::fs::read(file) else {
        return fault(StatusCode::INTERNAL_SERVER_ERROR, "the captured file can't be read");
    };
    if file.file_name().is_some_and(|f| f == "custom.json") {
        let custom: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let status = custom["status"].as_u64().and_then(|s| u16::try_from(s).ok());
        let status = status.and_then(|s| StatusCode::from_u16(s).ok()).unwrap_or(StatusCode::OK);
        return match &custom["body"] {
            Value::String(text) => {
                (status, [(header::CONTENT_TYPE, "text/html")], text.clone()).into_response()
            }
            body => document(status, body),
        };
    }
    let kind = [(header::CONTENT_TYPE, "application/json;charset=utf-8")];
    (StatusCode::OK, kind, bytes).into_response()
}

fn log_in(world: &World, seat: &Seat, body: &[u8], sessions: &str) -> Response {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    if body["UserName"] != seat.user.as_str() || body["Password"] != seat.password.as_str() {
        Counters::count(&seat.counters.failed_logins);
        return fault(StatusCode::UNAUTHORIZED, "the user name or the password is wrong");
    }
    Counters::count(&seat.counters.logins);
    let now = world.now();
    let (token, id) = (format!("{:016x}", world.draw()), format!("{:08x}", world.draw() >> 32));
    seat.with(now, |b| {
        b.sessions
            .insert(token.clone(), Session { id: id.clone(), user: seat.user.clone(), used: now });
    });
    let own = format!("{}/{id}", sessions.trim_end_matches('/'));
    let shown = json!({
        "@odata.id": own, "@odata.type": "#Session.v1_5_0.Session",
        "Id": id, "Name": "User Session", "UserName": seat.user,
    });
    let mut out = document(StatusCode::CREATED, &shown);
    if let (Ok(token), Ok(own)) = (HeaderValue::from_str(&token), HeaderValue::from_str(&own)) {
        out.headers_mut().insert("x-auth-token", token);
        out.headers_mut().insert(header::LOCATION, own);
    }
    out
}

fn patch(world: &World, seat: &Seat, tree: &Tree, path: &str, body: &[u8]) -> Response {
    let Some(file) = tree.files.get(path) else { return missing() };
    let changes = match serde_json::from_slice::<Value>(body) {
        Ok(changes) if changes.is_object() => changes,
        _ => return fault(StatusCode::BAD_REQUEST, "the body is no JSON object"),
    };
    let document = std::fs::read(file).ok().and_then(|b| serde_json::from_slice::<Value>(&b).ok());
    seat.with(world.now(), |b| match b.patched.get_mut(path).map(Ok).unwrap_or(Err(document)) {
        Ok(patched) => {
            merge(patched, &changes);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(Some(mut document)) => {
            merge(&mut document, &changes);
            b.patched.insert(path.to_string(), document);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(None) => fault(StatusCode::METHOD_NOT_ALLOWED, "the captured document is no JSON"),
    })
}

/// Objects are merged, everything else is replaced: a `null` too, as a PATCH means it (DSP0266
/// §7.7).
fn merge(into: &mut Value, changes: &Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, change) in changes {
                merge(into.entry(key.clone()).or_insert(Value::Null), change);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_merges_objects_and_replaces_the_rest() {
        let mut v = json!({"Boot": {"Target": "None", "Mode": "UEFI"}, "List": [1, 2]});
        merge(&mut v, &json!({"Boot": {"Target": "Pxe"}, "List": [3], "New": {"a": null}}));
        let after =
            json!({"Boot": {"Target": "Pxe", "Mode": "UEFI"}, "List": [3], "New": {"a": null}});
        assert_eq!(v, after);
    }

    #[test]
    fn a_tree_is_found_in_its_long_and_its_short_form() {
        let dir = tempfile::tempdir().expect("a directory");
        let put = |path: &str, text: &str| {
            let file = dir.path().join(path);
            std::fs::create_dir_all(file.parent().expect("a parent")).expect("made");
            std::fs::write(file, text).expect("written");
        };
        let none = Tree::load(dir.path(), Expand::Refused).expect_err("nothing there");
        assert!(none.to_string().contains("is no captured tree"), "{none}");
        put(
            "long/redfish/v1/index.json",
            "{\"Links\": {\"Sessions\": {\"@odata.id\": \"/redfish/v1/S/\"}}}",
        );
        put("long/redfish/v1/Systems/A/index.json", "{}");
        put("short/index.json", "{}");
        put("short/Systems/A/index.json", "{}");
        let long = Tree::load(&dir.path().join("long"), Expand::Refused).expect("long");
        let short = Tree::load(&dir.path().join("short"), Expand::Refused).expect("short");
        for tree in [&long, &short] {
            assert!(tree.files.contains_key("/redfish/v1/systems/a"), "{:?}", tree.files);
            assert_eq!(tree.len(), 2);
        }
        assert_eq!(long.sessions, "/redfish/v1/s");
    }
}
