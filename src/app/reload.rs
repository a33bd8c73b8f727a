//! What a (re)loaded inventory would change, and taking it into a running engine.

use super::current::Current;
use super::systemd::{self, Manager};
use super::{files, parts, webhooks};
use crate::api::problem::Body;
use crate::bmc::RedfishBmc;
use crate::boot::{BootServer, ImageServer};
use crate::config;
use crate::engine::driver::Handle;
use crate::model::{Expected, MachineId};
use crate::notify::Notifier;
use crate::port::Inward;
use crate::port::store::Store;
use crate::steps::site::Site;
use crate::steps::workflow::Workflow;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The inventory file against what the database expects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Names that are new: they start unmanaged, so nothing is done to them.
    pub added: Vec<Arc<str>>,
    /// Names whose expectation changed.
    pub changed: Vec<Arc<str>>,
    /// Names that are gone from the file: reported, never acted on.
    pub vanished: Vec<Arc<str>>,
}

/// Compares by name.
pub fn difference(known: &BTreeMap<Arc<str>, Arc<Expected>>, file: &[Arc<Expected>]) -> Difference {
    let mut found = Difference::default();
    let names: BTreeSet<&Arc<str>> = file.iter().map(|e| &e.name).collect();
    for expected in file {
        match known.get(&expected.name) {
            None => found.added.push(expected.name.clone()),
            Some(old) if old != expected => found.changed.push(expected.name.clone()),
            Some(_) => {}
        }
    }
    found.vanished = known.keys().filter(|n| !names.contains(n)).cloned().collect();
    found
}

/// Stores what is new or changed among `lines`, the files' machines; returns the machines to tell
/// the engine of.
///
/// # Errors
/// A sentence for a person. The engine was told nothing; lines that the store took before it
/// failed are taken over at the next reload or start.
pub async fn take(
    store: &dyn Store,
    known: &BTreeMap<Arc<str>, Arc<Expected>>,
    lines: &[Arc<Expected>],
    loaded: &config::Loaded,
    confirmed: Option<usize>,
) -> Result<Vec<(MachineId, Arc<Expected>)>, String> {
    let diff = difference(known, lines);
    for name in &diff.vanished {
        tracing::warn!(machine = %name, "not in the inventory any more; Farrier leaves it as it is");
    }
    let max = loaded.daemon.confirm_max_machines as usize;
    if diff.changed.len() > max && confirmed != Some(diff.changed.len()) {
        return Err(format!(
            "the inventory changes what is expected of {} machines, more than `[confirm] max_machines = {max}`; nothing was taken over\n  hint: look at the change, then confirm it: `farrier reload --confirm {}`, or `farrier serve --confirm {}` at a start",
            diff.changed.len(),
            diff.changed.len(),
            diff.changed.len(),
        ));
    }
    for (hash, workflow) in &loaded.site.workflows {
        let json = serde_json::to_string(&**workflow).map_err(|e| e.to_string())?;
        store.keep_workflow(hash, &json).await.map_err(|e| e.to_string())?;
    }
    let touched: BTreeSet<&Arc<str>> = diff.added.iter().chain(&diff.changed).collect();
    let fresh: Vec<Arc<Expected>> =
        lines.iter().filter(|e| touched.contains(&e.name)).cloned().collect();
    if fresh.is_empty() {
        return Ok(Vec::new());
    }
    // A part at a time: 100,000 new machines as one statement are half a gigabyte.
    let mut ids = Vec::with_capacity(fresh.len());
    for part in fresh.chunks(1000) {
        let plain: Vec<Expected> = part.iter().map(|e| (**e).clone()).collect();
        ids.extend(store.expect(&plain).await.map_err(|e| e.to_string())?);
    }
    if ids.len() != fresh.len() {
        return Err("the store gave fewer ids than machines".into());
    }
    tracing::info!(added = diff.added.len(), changed = diff.changed.len(), "inventory taken over");
    Ok(ids.into_iter().zip(fresh).collect())
}

/// The site for the engine: the files' part, the database's incarnation and pinned workflows.
pub fn site(
    loaded: &config::Loaded,
    incarnation: &Arc<str>,
    pinned: &BTreeMap<Arc<str>, String>,
) -> Arc<Site> {
    let mut site = loaded.site.clone();
    site.incarnation = incarnation.clone();
    for (hash, json) in pinned {
        if site.workflows.contains_key(hash) {
            continue;
        }
        match serde_json::from_str::<Workflow>(json) {
            Ok(workflow) => {
                site.workflows.insert(hash.clone(), Arc::new(workflow));
            }
            Err(e) => tracing::error!(%hash, error = %e, "a kept workflow can't be read"),
        }
    }
    Arc::new(site)
}

/// Everything a reload touches. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    pub path: PathBuf,
    pub current: Current,
    pub store: Arc<dyn Store>,
    pub engine: Handle,
    pub boot: BootServer,
    pub images: ImageServer,
    pub bmc: Arc<RedfishBmc>,
    pub notifier: Notifier,
    pub manager: Manager,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Control({})", self.path.display())
    }
}

impl Control {
    /// Reads the files again; on any problem the last good configuration stays in force.
    ///
    /// # Errors
    /// The report of what is wrong; nothing was changed.
    pub async fn reload(&self, confirmed: Option<usize>) -> Result<String, String> {
        self.manager.tell(&systemd::reloading());
        let result = self.take_over(confirmed).await;
        self.manager.tell("READY=1");
        result
    }

    async fn take_over(&self, confirmed: Option<usize>) -> Result<String, String> {
        let mut loaded = files::load(&self.path).map_err(|problems| problems.report)?;
        // What was read is the engine's from here on: a second copy of a site's lines would be
        // half of the daemon's memory.
        let lines = std::mem::take(&mut loaded.expected);
        let (known, incarnation) = self
            .engine
            .ask(|director, _| {
                let named = director.machines().filter_map(|m| {
                    let expected = director.expected(m.id)?;
                    Some((expected.name.clone(), expected.clone()))
                });
                (named.collect::<BTreeMap<_, _>>(), director.site().incarnation.clone())
            })
            .await
            .ok_or("the engine has ended")?;
        let machines = take(&*self.store, &known, &lines, &loaded, confirmed).await?;
        let count = machines.len();
        let site = site(&loaded, &incarnation, &BTreeMap::new());
        self.boot.set_recipes(&loaded.recipes).map_err(|f| f.to_string())?;
        self.images.offer(parts::known(&loaded.site.catalog));
        self.bmc.set_quirks(loaded.quirks.clone());
        self.notifier.set(webhooks::hooks(&loaded.daemon.webhooks)).await;
        self.current.set(loaded);
        let ended = |_| "the engine has ended".to_string();
        self.engine.inbox.send(Inward::Site { site }).await.map_err(ended)?;
        if !machines.is_empty() {
            self.engine.inbox.send(Inward::Expect { machines }).await.map_err(ended)?;
        }
        Ok(format!("reloaded; {count} machines new or changed"))
    }
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ReloadOrder)]
#[serde(deny_unknown_fields)]
struct Order {
    /// How many machines it changes, where that is more than the site's bound.
    #[serde(default)]
    confirm: Option<usize>,
}

#[derive(Serialize, ToSchema)]
struct Reloaded {
    result: String,
}

/// `POST /v1/reload`: the same as SIGHUP, with an answer and a confirm.
pub fn router() -> OpenApiRouter<Control> {
    OpenApiRouter::new().routes(routes!(post))
}

/// Reads the files again; with any problem in them the last good configuration stays in force.
#[utoipa::path(post, path = "/v1/reload", tag = "site", operation_id = "reload",
    request_body = Order,
    responses((status = 200, body = Reloaded),
        (status = 409, body = Body, content_type = "application/problem+json",
            description = "`reload-refused`: what is wrong; nothing was changed")))]
async fn post(State(control): State<Control>, Json(order): Json<Order>) -> Response {
    match control.reload(order.confirm).await {
        Ok(result) => Json(Reloaded { result }).into_response(),
        Err(report) => {
            super::routes::problem(StatusCode::CONFLICT, "reload-refused", "not reloaded", report)
        }
    }
}
