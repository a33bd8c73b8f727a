//! What DHCP and TFTP may ask of the boot windows, and the loaders by HTTP (UEFI HTTP boot).

use super::images::serve_file;
use super::problem::Problem;
use super::sendfile::FileRequest;
use super::server::BootServer;
use super::window;
use crate::model::network::Mac;
use crate::port::netboot::{Loaders, Netboot, NetbootPlan};
use async_trait::async_trait;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use std::sync::Arc;

#[async_trait]
impl Netboot for BootServer {
    async fn boot_of(&self, mac: Mac) -> Option<NetbootPlan> {
        let slot = self.0.by_mac(&window::Mac::parse(&mac.to_string())?)?;
        let window = slot.lock().await;
        // After the callback the machine is to find nothing and boot its disk.
        (window.open && window.callback.is_none()).then(|| NetbootPlan {
            machine: window.machine,
            name: window.name.as_str().into(),
            base_url: window.base_url.clone(),
        })
    }

    async fn other_asked(&self, mac: Mac, stated: &str) {
        let mac = window::Mac::parse(&mac.to_string());
        let Some(slot) = mac.and_then(|mac| self.0.by_mac(&mac)) else { return };
        let stated = stated.to_string();
        let told = self.0.change(slot, move |w| match w.other_asked(&stated) {
            Some(next) => (Some(w.machine), Some(next)),
            None => (None, None),
        });
        match told.await {
            Ok(Some(machine)) => self.0.poke(machine),
            Ok(None) => {}
            Err(fault) => tracing::warn!(%fault, "who asked with a machine's MAC is not kept"),
        }
    }
}

/// `GET /loader/{name}`: a boot loader of the operator's distribution, to anybody: it holds no secret.
/// To be merged into the boot listener's routes.
pub fn loader_router(loaders: Loaders) -> Router {
    Router::new().route("/loader/{name}", get(loader)).with_state(Arc::new(loaders))
}

async fn loader(
    State(loaders): State<Arc<Loaders>>,
    Path(name): Path<String>,
    request: FileRequest,
) -> Result<Response, Problem> {
    for dir in loaders.dirs.iter().filter(|_| loaders.knows(&name)) {
        if let Ok(response) = serve_file(dir, &name, &request).await {
            return Ok(response);
        }
    }
    if loaders.knows(&name) {
        tracing::warn!(loader = name, dirs = ?loaders.dirs,
            "a machine asks for a boot loader that is in none of `[loaders] paths`");
    }
    Err(Problem::not_found())
}
