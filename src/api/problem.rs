//! Errors for a person at 3 a.m., as `application/problem+json` (RFC 9457) with stable codes.

use crate::model::{Fault, FaultClass};
use crate::port::store::StoreError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Every code the API answers with. Codes never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    BadBody,
    BadQuery,
    BadHeader,
    BadSelector,
    Unauthorized,
    CrossOrigin,
    WrongHost,
    NoSuchMachine,
    NoSuchRun,
    NoConsole,
    NoSuchPath,
    MethodNotAllowed,
    ConfirmNeeded,
    NotNow,
    NotExplainable,
    BodyTooLarge,
    NotJson,
    KeyReused,
    NotDurable,
    OutcomeUnknown,
    EngineBusy,
    StoreUnreadable,
    TooManyStreams,
}

impl Code {
    /// Code, status and title: one table.
    fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Code::BadBody => ("bad-body", 400, "The request's body can't be read"),
            Code::BadQuery => ("bad-query", 400, "The request's query can't be read"),
            Code::BadHeader => ("bad-header", 400, "A header of the request can't be read"),
            Code::BadSelector => ("bad-selector", 400, "The selector can't be read"),
            Code::Unauthorized => ("unauthorized", 401, "A token is required"),
            Code::CrossOrigin => ("cross-origin", 403, "The request comes from another site"),
            Code::WrongHost => ("wrong-host", 403, "The request names another host"),
            Code::NoSuchMachine => ("no-such-machine", 404, "There is no such machine"),
            Code::NoSuchRun => ("no-such-run", 404, "There is no such run"),
            Code::NoConsole => ("no-console", 404, "No console was kept"),
            Code::NoSuchPath => ("no-such-path", 404, "There is nothing here"),
            Code::MethodNotAllowed => {
                ("method-not-allowed", 405, "This path does not take this method")
            }
            Code::ConfirmNeeded => ("confirm-needed", 409, "The change touches many machines"),
            Code::NotNow => ("not-now", 409, "The machine can't take this change as it stands"),
            Code::NotExplainable => {
                ("not-explainable", 409, "The machine's configuration is not known")
            }
            Code::BodyTooLarge => ("body-too-large", 413, "The request's body is too large"),
            Code::NotJson => ("not-json", 415, "The request's body must be JSON"),
            Code::KeyReused => ("key-reused", 422, "The idempotency key was used before"),
            Code::NotDurable => ("not-durable", 503, "The change could not be made durable"),
            Code::OutcomeUnknown => {
                ("outcome-unknown", 503, "The change was not acknowledged in time")
            }
            Code::EngineBusy => ("engine-busy", 503, "The engine does not answer"),
            Code::StoreUnreadable => ("store-unreadable", 503, "The database can't be read"),
            Code::TooManyStreams => ("too-many-streams", 503, "Too many event streams are open"),
        }
    }

    pub fn name(self) -> &'static str {
        self.row().0
    }
}

/// A problem as it goes over the wire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct Body {
    /// `urn:farrier:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Stable, for programs and runbooks.
    pub code: String,
    /// The same for every problem of this code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened, this time.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where in the request: `line 1, column 17`, `query`, `selector.stage`, a header's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Names that are close to the one that is not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<String>,
    /// `confirm-needed`: how many machines the change touches; the number to confirm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machines: Option<usize>,
}

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem(Box<Body>);

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let (name, status, title) = code.row();
        Self(Box::new(Body {
            kind: format!("urn:farrier:problem:{name}"),
            code: name.into(),
            title: title.into(),
            status,
            detail: detail.into(),
            ..Body::default()
        }))
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub fn place(mut self, place: impl Into<String>) -> Self {
        self.0.place = Some(place.into());
        self
    }

    pub fn nearest(mut self, names: Vec<String>) -> Self {
        if !names.is_empty() {
            self.0.hint.get_or_insert_with(|| format!("did you mean {}?", quoted(&names)));
        }
        self.0.nearest = names;
        self
    }

    pub fn machines(mut self, count: usize) -> Self {
        self.0.machines = Some(count);
        self
    }

    pub fn body(&self) -> &Body {
        &self.0
    }

    pub fn into_body(self) -> Body {
        *self.0
    }

    /// The database could not be read.
    pub fn unreadable(e: &StoreError) -> Self {
        Problem::new(Code::StoreUnreadable, e.to_string())
            .hint("the daemon's log says more; `farrier fsck` checks the file")
    }

    /// The engine refused a change of `machine`.
    pub fn refused(fault: &Fault) -> Self {
        let code = match (fault.class, &*fault.code) {
            (_, "no-such-machine") => Code::NoSuchMachine,
            (FaultClass::Precondition, _) => Code::NotNow,
            _ => Code::NotDurable,
        };
        let problem = Problem::new(code, fault.message.clone());
        match (&fault.hint, code) {
            (Some(hint), _) => problem.hint(hint.clone()),
            (None, Code::NotNow) => problem.hint("`farrier machine explain` says where it stands"),
            (None, _) => problem,
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" or ")
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            // Basic is offered for browsers, which can't be made to send a bearer token.
            let both = HeaderValue::from_static("Bearer, Basic realm=\"farrier\"");
            headers.insert(header::WWW_AUTHENTICATE, both);
        }
        response
    }
}
