//! What orders over the API that the engine does not carry out have in common: who gives them, and
//! which machines are meant. They stand behind the API's own guard.

use super::current::Current;
use crate::api::select::Selector;
use crate::engine::Director;
use crate::engine::driver::Handle;
use crate::model::controller::{place, placed};
use crate::model::{Action, Machine};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

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

    /// The BMCs that are meant, each in one word as [`place`] makes it: of a machine that is named its
    /// host's and those of all its further controllers. `n1/hgx` among the names means that controller
    /// alone, `n1/bmc` the host's BMC alone.
    ///
    /// # Errors
    /// The answer that says why none is.
    pub async fn bmcs(&self, which: &Which, why: &str) -> Result<BTreeSet<String>, Box<Response>> {
        let mut which = which.clone();
        // Of which machines not all are meant, and who is.
        let mut parts: BTreeMap<String, BTreeSet<Option<String>>> = BTreeMap::new();
        let mut whole = BTreeSet::new();
        for name in &mut which.selector.names {
            let (machine, controller) = placed(name);
            let machine = machine.to_string();
            match controller {
                None => drop(whole.insert(machine.clone())),
                Some(part) => {
                    let controller = (part != Action::BMC).then(|| part.to_string());
                    parts.entry(machine.clone()).or_default().insert(controller);
                }
            }
            *name = machine;
        }
        parts.retain(|machine, _| !whole.contains(machine));
        let names = self.names(&which, why).await?;
        let there = self.engine.ask(move |d, _| {
            let meant =
                d.machines().filter(|m| names.binary_search_by(|n| (**n).cmp(&m.name)).is_ok());
            meant.map(|m| (m.name.to_string(), controllers(d, m))).collect::<Vec<_>>()
        });
        let Some(there) = there.await else { return Err(Box::new(self.ended())) };
        let mut out = BTreeSet::new();
        for (machine, all) in there {
            let meant = match parts.get(&machine) {
                Some(meant) => meant.clone(),
                None => [None].into_iter().chain(all.iter().cloned().map(Some)).collect(),
            };
            let stray = meant.iter().flatten().find(|c| !all.contains(c));
            if let Some(stray) = stray {
                let detail =
                    format!("the inventory gives machine `{machine}` no controller `{stray}`");
                let status = StatusCode::NOT_FOUND;
                return Err(Box::new(self.problem(status, "no-such-controller", detail)));
            }
            out.extend(meant.iter().map(|c| place(&machine, c.as_deref())));
        }
        Ok(out)
    }

    /// What is said when nobody can be asked any more.
    pub fn ended(&self) -> Response {
        let why = "the engine has ended".to_string();
        self.problem(StatusCode::SERVICE_UNAVAILABLE, "engine-busy", why)
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
        let Some((names, unknown)) = found.await else { return Err(Box::new(self.ended())) };
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

/// Names of a machine's further controllers.
fn controllers(d: &Director, m: &Machine) -> Vec<String> {
    let expected = d.expected(m.id);
    let all = expected.map(|e| e.bmc.controllers.iter().map(|c| c.name.to_string()).collect());
    all.unwrap_or_default()
}
