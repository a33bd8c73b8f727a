//! The page for people: the fleet by rack, live, and one machine with its why. Rendered here,
//! whole without JavaScript; a small script keeps it current. No asset comes from elsewhere.

mod fleet;
mod machine;
mod page;

use crate::api::State;
use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

const CSS: &str = include_str!("assets/farrier.css");
const JS: &str = include_str!("assets/farrier.js");

/// The page's routes, to be merged with the API's.
pub(crate) fn routes() -> Router<State> {
    Router::new()
        .route("/", get(fleet::show))
        .route("/live", get(fleet::live))
        .route("/machines/{name}", get(machine::show))
        .route("/assets/farrier.css", get(|| async { asset("text/css; charset=utf-8", CSS) }))
        .route("/assets/farrier.js", get(|| async { asset("text/javascript; charset=utf-8", JS) }))
}

fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    // An upgraded daemon must not be shown in its predecessor's clothes.
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text)
}
