//! The web page.
use crate::api::State;
use axum::Router;

pub(crate) fn routes() -> Router<State> {
    Router::new()
}
