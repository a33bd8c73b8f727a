//! Request parts, with every rejection a problem that names its place.

use super::problem::{Code, Problem};
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;

/// A JSON body.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        // A form of another site can't send this type without asking the browser first.
        let kind = text(request.headers(), header::CONTENT_TYPE.as_str()).unwrap_or("").trim();
        let kind = kind.split(';').next().unwrap_or("").trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let was = if kind.is_empty() { "not stated" } else { kind };
            return Err(Problem::new(Code::NotJson, format!("the body's type is {was}"))
                .place("content-type")
                .hint("send `Content-Type: application/json`"));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let max = super::BODY_MAX;
                Problem::new(Code::BodyTooLarge, format!("a body has at most {max} bytes"))
            } else {
                let response = rejection.into_response();
                Problem::new(
                    Code::BadBody,
                    format!("the body broke off (status {})", response.status()),
                )
            }
        })?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Json(value)),
            Err(e) => {
                let (line, column) = (e.line(), e.column());
                let text = e.to_string();
                let what = text.strip_suffix(&format!(" at line {line} column {column}"));
                Err(Problem::new(Code::BadBody, what.unwrap_or(&text))
                    .place(format!("line {line}, column {column}"))
                    .hint("the shapes of bodies are in /v1/openapi.json"))
            }
        }
    }
}

/// A query string.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Query(value)),
            Err(rejection) => {
                let text = rejection.body_text();
                let what = text.strip_prefix("Failed to deserialize query string: ");
                Err(Problem::new(Code::BadQuery, what.unwrap_or(&text))
                    .place("query")
                    .hint("the parameters are in /v1/openapi.json"))
            }
        }
    }
}

/// Who speaks, for the journal: `X-Farrier-By`, or "api".
#[derive(Debug)]
pub(super) struct By(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let by = named(&parts.headers, "x-farrier-by", 64)?;
        Ok(By(by.unwrap_or_else(|| "api".into())))
    }
}

/// `Idempotency-Key`, when the client gives one.
#[derive(Debug)]
pub(super) struct Key(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Key(named(&parts.headers, "idempotency-key", 128)?))
    }
}

fn named(headers: &HeaderMap, name: &str, max: usize) -> Result<Option<String>, Problem> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let value = text(headers, name).map(str::trim).unwrap_or("");
    if value.is_empty() || value.len() > max {
        return Err(Problem::new(
            Code::BadHeader,
            format!("`{name}` must have 1 to {max} printable ASCII characters"),
        )
        .place(name));
    }
    Ok(Some(value.to_string()))
}

/// A header as text; `None` when it is absent or not printable ASCII.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
