//! What orders over the API that the engine does not carry out have in common: who gives them, and
//! which machines are meant. They stand behind the API's own guard.

use super::current::Current;
use crate::api::select::Selector;
use crate::engine::driver::Handle;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;

/// Which machines; above the site's bound they are counted first.
#[derive(Clone, Debug, Default, Deserialize, utoipa::ToSchema)]
pub struct Which {
    #[serde(default)]
    pub selector: Selector,
    /// How many machines that are, where it is more than the site's bound.
    #[serde(default)]
    pub confirm: Option<usize>,
}

/// One kind of order.
#[derive(Clone, Debug)]
pub struct Orders {
    engine: Handle,
    current: Current,
    title: &'static str,
}

/// Who speaks, for what is kept.
pub fn by(headers: &HeaderMap) -> String {
    let said = headers.get("x-farrier-by").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let clean: String = said.chars().filter(char::is_ascii_graphic).take(64).collect();
    if clean.is_empty() { "api".into() } else { clean }
}

/// Longest `why`, in characters.
const WHY_MAX: usize = 500;

impl Orders {
    pub fn new(engine: Handle, current: Current, title: &'static str) -> Self {
        Self { engine, current, title }
    }

    pub fn problem(&self, status: StatusCode, code: &str, detail: String) -> Response {
        super::routes::problem(status, code, self.title, detail)
    }

    /// The names of the machines that are meant, sorted.
    ///
    /// # Errors
    /// The answer that says why none is.
    pub async fn names(&self, which: &Which, why: &str) -> Result<Vec<String>, Box<Response>> {
        let bad = |code, detail| Box::new(self.problem(StatusCode::BAD_REQUEST, code, detail));
        if why.trim().is_empty() || why.chars().count() > WHY_MAX {
            return Err(bad("bad-body", format!("`why` has 1 to {WHY_MAX} characters")));
        }
        if which.selector.is_empty() {
            return Err(bad("bad-selector", "the selector is empty: name the machines".into()));
        }
        let matcher = match which.selector.check("selector.") {
            Ok(matcher) => matcher,
            Err(problem) => return Err(Box::new(problem.into_response())),
        };
        let wanted: BTreeSet<String> = which.selector.names.iter().cloned().collect();
        let found = self.engine.ask(move |d, now| {
            let matching = d.machines().filter(|m| matcher.matches(d, m, now));
            let names: BTreeSet<String> = matching.map(|m| m.name.to_string()).collect();
            let unknown = wanted
                .into_iter()
                .find(|name| !d.machines().any(|m| m.seq > 0 && *m.name == **name));
            (names, unknown)
        });
        let Some((names, unknown)) = found.await else {
            let detail = "the engine has ended".to_string();
            return Err(Box::new(self.problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "engine-busy",
                detail,
            )));
        };
        if let Some(name) = unknown {
            let detail = format!("there is no machine `{name}`");
            return Err(Box::new(self.problem(StatusCode::NOT_FOUND, "no-such-machine", detail)));
        }
        let max = self.current.get().daemon.confirm_max_machines as usize;
        let count = names.len();
        if count > max && which.confirm != Some(count) {
            let body = json!({
                "type": "urn:farrier:problem:confirm-needed", "status": 409,
                "code": "confirm-needed", "title": self.title, "machines": count,
                "detail": format!("this touches {count} machines; above {max} it waits for a confirm"),
            });
            let kind = [("content-type", "application/problem+json")];
            return Err(Box::new((StatusCode::CONFLICT, kind, body.to_string()).into_response()));
        }
        Ok(names.into_iter().collect())
    }
}
