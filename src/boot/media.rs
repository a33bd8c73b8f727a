//! The ramdisk's medium for a BMC's virtual drive. One ISO lies on the disk; what it tells one machine
//! is laid over a place kept free for that, while it is served.

use super::images::{Overlay, serve_overlaid};
use super::problem::Problem;
use super::render::here;
use super::sendfile::FileRequest;
use super::server::Shared;
use crate::model::deploy::RAMDISK;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use std::sync::Arc;

/// What of `ramdisk.toml` counts here.
#[derive(Debug, Deserialize)]
struct Built {
    overlay: Place,
}

/// Where the configuration lies in the ISO, how long it is, and its first line.
#[derive(Debug, Deserialize)]
struct Place {
    offset: u64,
    size: u64,
    magic: String,
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new().route("/media/{file}", get(medium)).with_state(shared)
}

async fn medium(
    State(shared): State<Arc<Shared>>,
    file: Path<String>,
    request: FileRequest,
) -> Result<Response, Problem> {
    let run = file.strip_suffix(".iso").ok_or_else(Problem::not_found)?;
    let slot = shared.by_run(run).ok_or_else(Problem::not_found)?;
    let window = slot.lock().await.clone();
    let images = shared.settings.images.as_ref().ok_or_else(Problem::not_found)?;
    // BMCs read as the host reads: the medium stays there after the callback too.
    if !window.open || !window.is_of_ramdisk() {
        return Err(Problem::not_found());
    }
    let dir = images.join(RAMDISK);
    let text = tokio::fs::read_to_string(dir.join("ramdisk.toml")).await;
    let built: Option<Built> = text.ok().and_then(|t| toml::from_str(&t).ok());
    let Some(Built { overlay: place }) = built else {
        tracing::error!(machine = window.name, dir = %dir.display(),
            "there is no ramdisk medium to serve; `farrier image build-ramdisk` makes one");
        return Err(Problem::not_found());
    };
    let mut config =
        format!("{}\nseed={}/\nmac={}\n", place.magic, here(&window), window.mac).into_bytes();
    config.resize(usize::try_from(place.size).unwrap_or(0).max(config.len()), b'\n');
    let overlay = Overlay { offset: place.offset, bytes: Bytes::from(config) };
    serve_overlaid(&dir, "ramdisk.iso", &request, overlay, &window.run).await
}
