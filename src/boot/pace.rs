//! How much a rack may fetch at once: so many files, so many bytes a second. A rack shares one uplink,
//! and forty machines that each get a fortieth of it all run into their deadlines.

use super::problem::Problem;
use crate::port::netboot::Racks;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::Instant;

/// What one rack may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files at once.
    pub files: usize,
    /// Bytes a second; `None`: as many as the wire takes.
    pub bytes_per_s: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: 16, bytes_per_s: None }
    }
}

/// How long a machine waits for its turn before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN_S: u64 = 10;
/// What a rack may take at once after a pause: a tenth of a second's share, at least this.
const SMALLEST_BURST: u64 = 256 * 1024;

struct Paced {
    limits: Limits,
    racks: Arc<dyn Racks>,
    /// By rack; machines that nobody knows share one.
    held: Mutex<BTreeMap<Arc<str>, Arc<Rack>>>,
}

struct Rack {
    room: Arc<Semaphore>,
    /// When the rack's bytes so far are paid for.
    paid: AsyncMutex<Instant>,
}

/// Puts the limits on the files of a boot router: images and loaders. Scripts and seeds pass.
pub fn paced(router: Router, limits: Limits, racks: Arc<dyn Racks>) -> Router {
    let state = Arc::new(Paced { limits, racks, held: Mutex::default() });
    router.layer(from_fn_with_state(state, pace))
}

async fn pace(
    State(paced): State<Arc<Paced>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let large = ["/image/", "/disk/"].iter().any(|files| path.contains(files))
        || path.starts_with("/loader/");
    if !large || request.method() != Method::GET {
        return next.run(request).await;
    }
    let name = paced.racks.rack_of(peer.ip().to_canonical()).await;
    let rack = paced.rack(name.unwrap_or_else(|| Arc::from("")));
    let turn = tokio::time::timeout(PATIENCE, rack.room.clone().acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        let what = "this rack fetches as many files as it may; come again";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "rack-busy", what)
            .retry_after_s(AGAIN_S)
            .into_response();
    };
    let (parts, body) = next.run(request).await.into_parts();
    let rate = paced.limits.bytes_per_s;
    // The turn ends with the body, also when the client goes away.
    let state = (body.into_data_stream(), rack, turn);
    let stream = futures_util::stream::unfold(state, move |(mut body, rack, turn)| async move {
        let piece: Result<Bytes, axum::Error> = body.next().await?;
        if let (Some(rate), Ok(bytes)) = (rate, &piece) {
            rack.pay(bytes.len(), rate).await;
        }
        Some((piece, (body, rack, turn)))
    });
    Response::from_parts(parts, Body::from_stream(stream))
}

impl Paced {
    fn rack(&self, name: Arc<str>) -> Arc<Rack> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || {
            let room = Arc::new(Semaphore::new(self.limits.files.max(1)));
            Arc::new(Rack { room, paid: AsyncMutex::new(Instant::now()) })
        };
        held.entry(name).or_insert_with(fresh).clone()
    }
}

impl Rack {
    /// Waits until the rack may have these bytes too.
    async fn pay(&self, bytes: usize, rate: u64) {
        let rate = rate.max(1);
        let micros = |bytes: u64| Duration::from_micros(bytes.saturating_mul(1_000_000) / rate);
        let burst = micros(SMALLEST_BURST.max(rate / 10));
        let due = {
            let mut paid = self.paid.lock().await;
            let now = Instant::now();
            // What was not used in a pause is not saved up.
            let start = (*paid).max(now.checked_sub(burst).unwrap_or(now));
            *paid = start + micros(u64::try_from(bytes).unwrap_or(u64::MAX));
            *paid
        };
        tokio::time::sleep_until(due).await;
    }
}
