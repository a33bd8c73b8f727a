//! What became durable, as server-sent events (WHATWG HTML §9.2).

use super::State;
use super::extract::Query;
use super::problem::{Body, Code, Problem};
use super::select::glob_matches;
use super::view::{EventView, GapView};
use super::words::words;
use crate::engine::driver::Durable;
use axum::extract::State as Of;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::convert::Infallible;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::IntoParams;

/// Which events.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EventsQuery {
    /// Glob over machine names.
    machine: Option<String>,
}

/// Everything that becomes durable from now on. The event's name is the entry's kind, its data an
/// `EventView`; a client that is too slow gets a `gap` event with a `GapView` and should read again
/// what it shows.
#[utoipa::path(get, path = "/v1/events", tag = "site", operation_id = "events",
    params(EventsQuery),
    responses((status = 200, body = EventView, content_type = "text/event-stream"),
        (status = "4XX", body = Body, content_type = "application/problem+json")))]
pub(super) async fn stream(
    Of(state): Of<State>,
    Query(query): Query<EventsQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let watch = Watch::new(&state)?;
    Ok(watch.into_sse(move |durable| {
        let item = &durable.item;
        if query.machine.as_deref().is_some_and(|glob| !glob_matches(glob, &item.row.name)) {
            return vec![];
        }
        let seqs = item.after_seq + 1..;
        let views = seqs.zip(&item.entries).map(|(seq, entry)| {
            let view = EventView {
                machine: item.row.name.to_string(),
                seq,
                at: item.at.0,
                text: words(entry),
                entry: serde_json::to_value(entry).unwrap_or_default(),
            };
            event(entry.name(), &view)
        });
        views.collect()
    }))
}

/// An event with JSON data.
pub(crate) fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}

/// A place at the engine's broadcast, given back when the client goes.
pub(crate) struct Watch {
    durable: Receiver<Durable>,
    ending: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    pub(crate) fn new(state: &State) -> Result<Self, Problem> {
        let permit = state.streams.clone().try_acquire_owned().map_err(|_| {
            Problem::new(Code::TooManyStreams, "as many event streams are open as may be")
                .hint("close some, or read /v1/status from time to time instead")
        })?;
        let (durable, ending) = (state.engine.durable.subscribe(), state.ending.clone());
        Ok(Self { durable, ending, _permit: permit })
    }

    /// The stream; `events` says what one commit becomes.
    pub(crate) fn into_sse(
        self,
        events: impl Fn(&Durable) -> Vec<Event> + Send + 'static,
    ) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
        let start = (self, VecDeque::<Event>::new(), events);
        let stream =
            futures_util::stream::unfold(start, |(mut watch, mut ready, events)| async move {
                loop {
                    if let Some(event) = ready.pop_front() {
                        return Some((Ok(event), (watch, ready, events)));
                    }
                    let received = tokio::select! {
                        received = watch.durable.recv() => received,
                        () = ended(&mut watch.ending) => return None,
                    };
                    match received {
                        Ok(durable) => ready.extend(events(&durable)),
                        Err(RecvError::Lagged(missed)) => {
                            ready.push_back(event("gap", &GapView { missed }));
                        }
                        Err(RecvError::Closed) => return None,
                    }
                }
            });
        Sse::new(stream).keep_alive(KeepAlive::default())
    }
}

/// Resolves when the daemon stops; never when nobody can say so.
async fn ended(ending: &mut watch::Receiver<bool>) {
    if ending.wait_for(|ending| *ending).await.is_err() {
        std::future::pending::<()>().await;
    }
}
